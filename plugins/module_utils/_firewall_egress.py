# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the host and its containers may connect to: from declared destinations to lines of nftables and of dnsmasq.

Destinations with the same users (host, containers, both), protocol and ports share sets: one of networks that are written down, and one
of addresses that the local resolver fills with its answers. The resolver answers declared names only; whatever asks the host's real
name servers is led to it, so that neither resolv.conf nor a DHCP client nor the container engine has to be told.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import typing as t
from urllib.parse import urlsplit

TABLE = "civitas"
SET_PREFIX = "egress_"
RESOLVER_PORT = 10053
RESOLVER_USER = "dnsmasq"
# An address is let through for this long after it was last answered. It must exceed ANSWER_SECONDS, the longest that any cache keeps an
# answer: whoever has an address from a cache may then use it.
ADDRESS_SECONDS = 3600
ANSWER_SECONDS = 30

_RESOLVER_PURPOSE = "Questions for declared names, by the host's resolver alone"

# The value of C(found) in a declaration whose hosts are those that apt fetches from.
PACKAGE_SOURCES = "package_sources"
SOURCES = ("host", "containers", "both")
PROTOCOLS = ("tcp", "udp")
# Questions whether a host is there, which know no ports.
PING = "icmp"
_PING = {"ip": "icmp", "ip6": "icmpv6"}

_URL_PORTS = {"http": 80, "https": 443, "ftp": 21, "smtp": 25, "smtps": 465}
# Public registries hand out layers at other addresses than their own, as their operators document.
_REGISTRY_HOSTS = {
    "docker.io": (
        "auth.docker.io",
        "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
        "production.cloudflare.docker.com",
        "registry-1.docker.io",
    ),
    "ghcr.io": ("ghcr.io", "pkg-containers.githubusercontent.com"),
    "quay.io": ("cdn01.quay.io", "cdn02.quay.io", "cdn03.quay.io", "quay.io"),
}

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?\Z")
_NAME_LIMIT = 60


class EgressError(Exception):
    """Destinations that make no rules; C(problems) says what is wrong and what to write."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


class EgressRules(t.NamedTuple):
    """Lines for the table C(inet civitas), without indentation.

    sets: whole declarations of sets. chains: whole base chains (they lead questions to the resolver).
    input: accepts the containers' questions to the resolver.
    output, forward: bodies of chains that accept what is declared; the caller lets established connections and loopback pass before them
    (forward: calls it for what comes from container interfaces and leaves by another one), and refuses and counts what is left after them.
    """

    sets: t.List[str]
    chains: t.List[str]
    input: t.List[str]
    output: t.List[str]
    forward: t.List[str]


class Group(t.NamedTuple):
    """Destinations that share sets and rules."""

    source: str
    protocol: str
    ports: t.Tuple[int, ...]
    names: t.Tuple[str, ...]
    networks: t.Tuple[str, ...]
    purposes: t.Tuple[str, ...]

    @property
    def set_name(self) -> str:
        ports = "_".join(str(port) for port in self.ports)
        name = f"{SET_PREFIX}{self.source}_{self.protocol}_{ports}".rstrip("_")
        if len(name) > _NAME_LIMIT:
            name = f"{SET_PREFIX}{self.source}_{self.protocol}_{hashlib.sha256(ports.encode()).hexdigest()[:12]}"
        return name


def egress_rules(model: t.Mapping[str, t.Any]) -> EgressRules:
    """The rules for what may leave.

    Args:
        model: C(mode) is V(restricted) or V(open). C(destinations) are declarations of the kind of that name. C(resolvers) are addresses
            of the name servers that the local resolver asks. C(resolver_addresses) are addresses of the host at which containers reach
            the local resolver. C(container_interfaces) are interface names, a star at the end stands for the rest.

    Raises:
        EgressError: nothing is declared, or a declaration is wrong.
    """
    if model["mode"] == "open":
        return EgressRules([], [], [], ["accept"], ["accept"])
    # Here, at the latest, the name servers must be known, and what was to be found on the host.
    problems = egress_problems({**model, "resolvers": model.get("resolvers") or []})
    problems += [
        f"destination {item.get('name')!r}: it was not looked for on the host" for item in model["destinations"] if "found" in item
    ]
    if problems:
        raise EgressError(problems)
    groups = grouped(model["destinations"])
    resolvers = _by_family(model.get("resolvers") or ())
    output = _protocol_rules()
    input_rules: t.List[str] = []
    chains: t.List[str] = []
    if any(resolvers.values()):
        for family, addresses in resolvers.items():
            if addresses:
                target = f'meta skuid "{RESOLVER_USER}" {family} daddr {_in_set(addresses)}'
                output += [f"{target} udp dport 53 accept", f"{target} tcp dport 53 accept"]
        chains, input_rules = _resolver_chains(model, resolvers)
    sets: t.List[str] = []
    forward: t.List[str] = []
    for group in groups:
        sets += _sets(group)
        rules = _rules(group)
        if group.source in ("host", "both"):
            output += rules
        if group.source in ("containers", "both"):
            forward += rules
    return EgressRules(sets, chains, input_rules, output, forward)


def expanded(item: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    """A declaration in plain form: instead of C(hosts), C(ports) and C(protocol) it may have C(urls), or C(images) of containers.

    Empty texts among them are passed over, so that a declaration without any is none. With C(found) the host says where to.

    Raises:
        EgressError: a URL without host, or with a protocol whose port nobody knows.
    """
    if "urls" not in item and "images" not in item:
        return [dict(item)]
    by_port: t.Dict[int, t.List[str]] = {}
    problems = []
    for url in item.get("urls") or ():
        if not url:
            continue
        parts = urlsplit(str(url))
        try:
            port = parts.port or _URL_PORTS.get(parts.scheme)
        except ValueError:
            port = None
        if not parts.hostname or port is None:
            # It is not quoted: it may hold a password.
            problems.append(f"destination {item.get('name')!r}: not a URL; write it like https://mirror.example.org:8443/")
            continue
        by_port.setdefault(port, []).append(parts.hostname)
    for image in item.get("images") or ():
        if image:
            registry, port = _registry(str(image))
            by_port.setdefault(port, []).extend(_REGISTRY_HOSTS.get(registry, (registry,)))
    if problems:
        raise EgressError(problems)
    plain = {key: value for key, value in item.items() if key not in ("urls", "images")}
    return [{**plain, "hosts": sorted(set(hosts)), "ports": [port], "protocol": "tcp"} for port, hosts in sorted(by_port.items())]


def _registry(image: str) -> t.Tuple[str, int]:
    """Where an image is pulled from, by the rule of the engines: the first part is a registry when it looks like a host."""
    first, slash, _rest = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return "docker.io", 443
    host, _colon, port = first.partition(":")
    return host.lower(), int(port) if port.isdigit() else 443


def egress_problems(model: t.Mapping[str, t.Any]) -> t.List[str]:
    """All that is wrong with the model in mode V(restricted), each with what to write instead.

    Without C(resolvers), or with V(None), they are still to be found on the host, and not judged.
    """
    problems: t.List[str] = []
    if not model["destinations"]:
        problems.append(
            "firewall_destinations is empty: the host could not even fetch security updates. Hand over the declarations of kind"
            " 'destinations' of all roles, or set 'firewall_egress: open'"
        )
    for item in model["destinations"]:
        problems += destination_problems(item)
    resolvers = model.get("resolvers")
    if not problems and resolvers is not None and not resolvers and any(group.names for group in grouped(model["destinations"])):
        problems.append("destinations are declared by name, but there is no name server; set firewall_resolvers to those of the site")
    for address in resolvers or ():
        if _network(address) is None or "/" in address:
            problems.append(f"firewall_resolvers: {address!r} is not an address")
    for name in model.get("resolvable", ()):
        if name != "*" and not _NAME.match(str(name).lower()):
            problems.append(f"firewall_resolvable: {name!r} is not a name; write it like example.org, or '*' for every name")
    return problems


def destination_problems(item: t.Mapping[str, t.Any]) -> t.List[str]:
    """All that is wrong with one declaration of kind C(destinations)."""
    where = f"destination {item.get('name')!r}"
    if "found" in item:
        if item["found"] == PACKAGE_SOURCES and item.get("from") in SOURCES:
            return []
        return [f"{where}: found is {PACKAGE_SOURCES}, and from one of {', '.join(SOURCES)}"]
    problems: t.List[str] = []
    hosts, ports = item.get("hosts"), item.get("ports")
    if not isinstance(hosts, (list, tuple)) or not hosts:
        problems.append(f"{where}: hosts is empty; list names, addresses or networks")
        hosts = []
    if item.get("protocol") == PING:
        if ports:
            problems.append(f"{where}: {PING} knows no ports; remove them")
        ports = []
    elif not isinstance(ports, (list, tuple)) or not ports:
        problems.append(f"{where}: ports is empty; list port numbers, such as [443]")
        ports = []
    for port in ports:
        if _port(port) is None:
            problems.append(f"{where}: {port!r} is not a port number (1 to 65535)")
    if item.get("protocol") not in (*PROTOCOLS, PING):
        problems.append(f"{where}: protocol {item.get('protocol')!r} is none of {', '.join(PROTOCOLS)} and {PING}")
    if item.get("from") not in SOURCES:
        problems.append(f"{where}: from {item.get('from')!r} is none of {', '.join(SOURCES)}")
    for host in hosts:
        problem = _host_problem(host)
        if problem:
            problems.append(f"{where}: {problem}")
    return problems


def grouped(destinations: t.Iterable[t.Mapping[str, t.Any]]) -> t.List[Group]:
    """Right declarations by who, protocol and ports; sorted, so that their order in the inventory means nothing."""
    found: t.Dict[t.Tuple[str, str, t.Tuple[int, ...]], t.Tuple[t.Set[str], t.Set[str], t.Set[str]]] = {}
    for item in _plain(destinations):
        ports = tuple(sorted({int(port) for port in item.get("ports") or ()}))
        names, networks, purposes = found.setdefault((item["from"], item["protocol"], ports), (set(), set(), set()))
        for host in item["hosts"]:
            network = _network(host)
            if network is None:
                names.add(host.lower().rstrip("."))
            else:
                networks.add(str(network))
        purposes.add(f"{item['role']}: {item['name']}" if item.get("role") else str(item["name"]))
    return [
        Group(source, protocol, ports, tuple(sorted(names)), tuple(sorted(networks)), tuple(sorted(purposes)))
        for (source, protocol, ports), (names, networks, purposes) in sorted(found.items())
    ]


def name_sets(groups: t.Sequence[Group]) -> t.Dict[str, t.List[str]]:
    """Declared names, a leading C(*.) included, with the sets that their addresses go to (without the suffix of the family).

    A name under a declared wildcard belongs to the wildcard's sets as well: the resolver looks at the longest match only.
    """
    result: t.Dict[str, t.List[str]] = {}
    for name in sorted({name for group in groups for name in group.names}):
        covering = {name} | {other for group in groups for other in group.names if other.startswith("*.") and name.endswith(other[1:])}
        result[name] = sorted({group.set_name for group in groups if covering & set(group.names)})
    return result


def resolver_lines(
    destinations: t.Iterable[t.Mapping[str, t.Any]], resolvers: t.Sequence[str], resolvable: t.Sequence[str] = (), fill_sets: bool = True
) -> t.List[str]:
    """Lines of dnsmasq's configuration: which names are answered by whom, and which sets their addresses go to.

    Args:
        destinations: right declarations.
        resolvers: addresses of the name servers to ask.
        resolvable: names that are answered, with all below them, without being destinations; V(*) stands for every name.
        fill_sets: whether this dnsmasq can fill sets of nftables (2.87 and later).
    """
    sets = name_sets(grouped(destinations))
    everything = "*" in resolvable
    # Servers for single names only: one for all names would be asked before the address that is none.
    lines = [f"server={address}" for address in resolvers] if everything else ["address=/#/"]
    for name in sorted({each.lower().rstrip(".") for each in resolvable} - {"*"}):
        lines += [f"server=/{name}/{address}" for address in resolvers]
    for name in sets:
        if name not in resolvable:
            lines += [f"server=/{name}/{address}" for address in resolvers]
        # dnsmasq takes a name for itself and all below it. What is below stays unanswered unless it was declared.
        if not name.startswith("*.") and f"*.{name}" not in sets and name not in resolvable and not everything:
            lines.append(f"address=/*.{name}/")
    if fill_sets:
        # A wildcard and the name itself are one to `nftset`; only one of the two is answered when only one is declared.
        targets: t.Dict[str, t.Set[str]] = {}
        for name, its_sets in sets.items():
            targets.setdefault(name[2:] if name.startswith("*.") else name, set()).update(its_sets)
        for name, all_sets in sorted(targets.items()):
            filled = ",".join(f"{family}#inet#{TABLE}#{each}_{family}" for each in sorted(all_sets) for family in (4, 6))
            lines.append(f"nftset=/{name}/{filled}")
    return lines


def egress_rows(destinations: t.Sequence[t.Mapping[str, t.Any]], resolvers: t.Iterable[str] = ()) -> t.List[t.Dict[str, t.Any]]:
    """What people read: one row per host and declaration, sorted, with C(host), C(ports), C(protocol), C(from), C(role), C(purpose).

    Raises:
        EgressError: a wrong declaration.
    """
    problems = [problem for item in destinations for problem in destination_problems(item)]
    if problems:
        raise EgressError(problems)
    asked = [
        {"hosts": list(resolvers), "ports": [53], "protocol": protocol, "from": "host", "role": "firewall", "purpose": _RESOLVER_PURPOSE}
        for protocol in PROTOCOLS
    ]
    rows = [
        {
            "host": str(host),
            "ports": sorted({int(port) for port in item.get("ports") or ()}),
            "protocol": str(item["protocol"]),
            "from": str(item["from"]),
            "role": str(item.get("role", "")),
            "purpose": str(item["purpose"]),
        }
        for item in [*_plain(destinations), *asked]
        for host in item["hosts"]
    ]
    unique = {repr(sorted(row.items())): row for row in rows}
    return sorted(unique.values(), key=lambda row: [str(row[key]) for key in ("host", "protocol", "ports", "from", "role", "purpose")])


def egress_text(rows: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """The rows in columns, ending with a line break."""
    head = ("HOST", "PORT", "PROTOCOL", "FROM", "ROLE", "PURPOSE")
    lines = [head] + [
        (row["host"], ",".join(map(str, row["ports"])), row["protocol"], row["from"], row["role"], row["purpose"]) for row in rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() + "\n" for line in lines)


def covers(destinations: t.Iterable[t.Mapping[str, t.Any]], host: str, port: int) -> bool:
    """Whether the host may connect to C(port) of C(host), a name or an address, by TCP."""
    target = _network(host)
    for item in _plain(destinations):
        if item["protocol"] != "tcp" or item["from"] == "containers" or port not in {int(each) for each in item["ports"]}:
            continue
        for declared in item["hosts"]:
            network = _network(declared)
            if network is not None and target is not None and network.version == target.version:
                if int(network.network_address) <= int(target.network_address) <= int(network.broadcast_address):
                    return True
            elif network is None and target is None:
                wanted, name = declared.lower().rstrip("."), host.lower().rstrip(".")
                if name == wanted or (wanted.startswith("*.") and name.endswith(wanted[1:])):
                    return True
    return False


def kept_elements(listing: t.Mapping[str, t.Any], rules: EgressRules) -> t.List[str]:
    """Lines that carry addresses over when the table is replaced, for the same transaction: clients may have them in caches.

    Args:
        listing: what C(nft -j list table inet civitas) printed before; empty when there was no table.
    """
    wanted = {line.split()[1] for line in rules.sets if "timeout" in line}
    lines = []
    for entry in listing.get("nftables", ()):
        found = entry.get("set", {})
        if found.get("family") != "inet" or found.get("table") != TABLE or found.get("name") not in wanted:
            continue
        elements = []
        for element in found.get("elem", ()):
            values = element.get("elem", {}) if isinstance(element, dict) else {}
            if "val" in values and values.get("expires"):
                elements.append(f"{values['val']} expires {values['expires']}s")
        if elements:
            lines.append(f"add element inet {TABLE} {found['name']} {_in_set(elements)}")
    return lines


def _plain(destinations: t.Iterable[t.Mapping[str, t.Any]]) -> t.List[t.Mapping[str, t.Any]]:
    """Those that do not wait for what is found on the host."""
    return [item for item in destinations if "found" not in item]


def _protocol_rules() -> t.List[str]:
    """What an address needs to live: loopback, neighbor discovery, multicast membership and DHCP, in the local network only."""
    return [
        # What was led to the local resolver still bears the interface that it would have left by.
        "ip daddr 127.0.0.0/8 accept",
        "ip6 daddr ::1 accept",
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report } ip6 hoplimit { 1, 255 } accept",
        "udp sport 68 udp dport 67 accept",
        "ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept",
    ]


def _resolver_chains(model: t.Mapping[str, t.Any], resolvers: t.Mapping[str, t.List[str]]) -> t.Tuple[t.List[str], t.List[str]]:
    """Chains that lead questions for the name servers to the local resolver, and what lets the containers' ones in."""
    output = []
    for family, addresses in resolvers.items():
        if addresses:
            for protocol in ("udp", "tcp"):
                target = f"{family} daddr {_in_set(addresses)} {protocol} dport 53"
                output.append(f'meta skuid != "{RESOLVER_USER}" {target} redirect to :{RESOLVER_PORT}')
    local = _by_family(model.get("resolver_addresses", ()))["ip"]
    prerouting, accepted = [], []
    if local:
        asked = _in_set([*resolvers["ip"], *local])
        for interface in model.get("container_interfaces", ()):
            for protocol in ("udp", "tcp"):
                source = f'iifname "{interface}"'
                prerouting.append(f"{source} ip daddr {asked} {protocol} dport 53 dnat ip to {local[0]}:{RESOLVER_PORT}")
                accepted.append(f"{source} ip daddr {local[0]} {protocol} dport {RESOLVER_PORT} accept")
    # Before the engine's own chains (-100): in a network of its own the engine answers questions at an address of the host.
    chains = _chain("egress_dns_output", "type nat hook output priority -110; policy accept;", output)
    if prerouting:
        chains += _chain("egress_dns_prerouting", "type nat hook prerouting priority -110; policy accept;", prerouting)
    return chains, accepted


def _chain(name: str, head: str, rules: t.Sequence[str]) -> t.List[str]:
    return [f"chain {name} {{", f"  {head}", *(f"  {rule}" for rule in rules), "}"]


def _sets(group: Group) -> t.List[str]:
    lines = []
    for family, suffix, kind in (("ip", "4", "ipv4_addr"), ("ip6", "6", "ipv6_addr")):
        networks = _by_family(group.networks)[family]
        if networks:
            attributes = f"type {kind}; flags interval; auto-merge; elements = {_in_set(networks)};"
            lines.append(f"set {group.set_name}_net{suffix} {{ {attributes} }}")
        if group.names:
            attributes = f"type {kind}; flags dynamic, timeout; timeout {ADDRESS_SECONDS}s; size 16384;"
            lines.append(f"set {group.set_name}_{suffix} {{ {attributes} }}")
    return lines


def _rules(group: Group) -> t.List[str]:
    lines = [f"# {purpose}" for purpose in group.purposes]
    ports = _in_set([str(port) for port in group.ports])
    for family, suffix in (("ip", "4"), ("ip6", "6")):
        asked = f"{_PING[family]} type echo-request" if group.protocol == PING else f"{group.protocol} dport {ports}"
        target = f"{asked} {family} daddr"
        if _by_family(group.networks)[family]:
            lines.append(f"{target} @{group.set_name}_net{suffix} counter accept")
        if group.names:
            # A conversation by UDP (time servers) asks no name again: its address stays while it is used, like a connection.
            renew = f" update @{group.set_name}_{suffix} {{ {family} daddr }}" if group.protocol == "udp" else ""
            lines.append(f"{target} @{group.set_name}_{suffix}{renew} counter accept")
    return lines


def _in_set(values: t.Sequence[str]) -> str:
    return f"{{ {', '.join(values)} }}"


def _by_family(values: t.Iterable[str]) -> t.Dict[str, t.List[str]]:
    result: t.Dict[str, t.List[str]] = {"ip": [], "ip6": []}
    for value in values:
        network = _network(value)
        if network is not None:
            result["ip" if network.version == 4 else "ip6"].append(value)
    return result


def _network(value: t.Any) -> t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network, None]:
    # The name of an interface after an address could be any text.
    if "%" in str(value):
        return None
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        return None


def _host_problem(host: t.Any) -> str:
    if not isinstance(host, str) or not host:
        return f"{host!r} is neither a name nor an address; put it in quotes"
    network = _network(host)
    if network is not None:
        if network.prefixlen == 0:
            return f"{host} is the whole internet; name what is needed, or set 'firewall_egress: open'"
        return ""
    if "/" in host:
        return f"{host!r} is not a network; write it like 192.0.2.0/24, the host's part being zero, and without https://"
    if not _NAME.match(host.lower()) or len(host) > 253 or host.replace(".", "").isdigit():
        return f"{host!r} is not a host name; write it like mirror.example.org or *.example.org, without protocol and port"
    if host.startswith("*.") and host.count(".") < 2:
        return f"{host!r} is a whole top-level domain; write a longer name"
    return ""


def _port(value: t.Any) -> t.Optional[int]:
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if 0 < number < 65536 else None
