# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may reach a host, as people write it: judged, and as a model that rules are made from.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._declarations import PORT_SOURCES
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import egress_problems
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Config = t.Mapping[str, t.Any]

FAMILIES = (4, 6)
MODES = ("restricted", "open")
# Interface names have 15 characters at most; only an ending may be left open.
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}|[A-Za-z0-9_.:@-]{1,14}\*")
_WILDCARDS = {"0.0.0.0": (4,), "::": (6,), "*": FAMILIES}


class Port(t.NamedTuple):
    """A declared port. V(listen) has for each family V(None) (all addresses) or the addresses, loopback left out."""

    label: str
    number: int
    protocol: str
    source: str
    listen: t.Dict[int, t.Optional[t.List[str]]]


class Model(t.NamedTuple):
    """V(networks) has the sources V(admin), V(cluster), V(monitoring) and V(public), each as networks."""

    ports: t.List[Port]
    networks: t.Dict[str, t.List[Network]]
    interfaces: t.List[str]
    # The declared one, and while SSH moves to it, the one that it is reached by until then.
    ssh_ports: t.List[int]
    log: bool
    egress: t.Dict[str, t.Any]


def model(config: Config) -> Model:
    """The model of a configuration that has no L(problems).

    Args:
        config: the variables of the role firewall without their prefix: V(ports), V(admin_networks), V(peers), V(monitoring),
            V(public_networks), V(container_interfaces), V(ssh_port), V(log_drops), and V(egress), a
            mapping with V(mode) and all that its rules are made from.
    """
    return Model(
        ports=[_port(item) for item in config["ports"]],
        networks={
            "admin": [_network(item) for item in config["admin_networks"]],
            "cluster": [_network(item) for item in config["peers"]],
            "monitoring": [_network(item) for item in config["monitoring"]],
            "public": [_network(item) for item in config["public_networks"]],
        },
        interfaces=list(config["container_interfaces"]),
        ssh_ports=[int(config["ssh_port"])],
        log=bool(config["log_drops"]),
        egress=dict(config["egress"]),
    )


def problems(config: Config) -> t.List[str]:
    """One sentence for each thing that is wrong, with what to write."""
    found = [
        *_network_problems("firewall_admin_networks", config["admin_networks"]),
        *_network_problems("firewall_public_networks", config["public_networks"]),
        *_peer_problems(config["peers"]),
        *_network_problems("firewall_monitoring", config["monitoring"]),
        *_interface_problems(config["container_interfaces"]),
    ]
    if config["admin_networks"] == []:
        found.append(
            "firewall_admin_networks is empty: nobody could administer the host any more; write the networks that people and pipelines "
            "connect from, like [192.0.2.0/24, '2001:db8:1::/48']"
        )
    ports, bad = _ports(config["ports"])
    found += bad
    found += _overlaps(ports)
    if any(port.source == "public" for port in ports) and config["public_networks"] == []:
        found.append("firewall_public_networks is empty, but ports are public; write ['0.0.0.0/0', '::/0'] or the networks they are for")
    if any(port.source == "monitoring" for port in ports) and config["monitoring"] == []:
        found.append("firewall_monitoring is empty, but ports are for it; write the monitoring hosts, such as [192.0.2.10]")
    ssh = config["ssh_port"]
    if not _is_port(ssh):
        found.append(f"firewall_ssh_port: {ssh!r} is not a port number; write the one that sshd listens on, usually 22")
    elif not bad and not any(_opens(port, int(ssh)) for port in ports):
        found.append(
            f"the port of SSH, {ssh}/tcp, is not among firewall_ports: nobody could log in any more; add {{name: ssh, port: {ssh}, "
            "protocol: tcp, addresses: ['0.0.0.0', '::'], from: admin}, or correct firewall_ssh_port"
        )
    egress = config["egress"]
    if egress.get("mode") not in MODES:
        found.append(f"firewall_egress: {egress.get('mode')!r} is unknown; write {' or '.join(MODES)}")
    elif egress["mode"] == "restricted":
        found += egress_problems(egress)
    return found


def admits(rules: Model, source: str, port: int) -> bool:
    """Whether C(source), an address that is no container's, may open TCP connections to C(port) of the host."""
    address = _plain(ipaddress.ip_address(source.partition("%")[0]))
    return any(
        declared.number == port
        and declared.protocol == "tcp"
        and declared.listen[address.version] != []
        and any(address in network for network in rules.networks.get(declared.source, []) if network.version == address.version)
        for declared in rules.ports
    )


def matches(pattern: str, interface: str) -> bool:
    """Whether C(interface) is meant by a pattern with an optional final C(*)."""
    return interface.startswith(pattern[:-1]) if pattern.endswith("*") else interface == pattern


def _plain(address: Address) -> Address:
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _network_problems(name: str, items: t.Any) -> t.Iterator[str]:
    if not isinstance(items, (list, tuple)):
        yield f"{name} is {in_words(items)}; write a list of networks, like [192.0.2.0/24]"
        return
    for position, item in enumerate(items):
        problem = _network_problem(item)
        if problem:
            yield f"{name}[{position}]: {problem}"


def _network_problem(item: t.Any) -> str:
    if not isinstance(item, str):
        return f"{item!r} is {in_words(item)}; write a network in quotes, like '192.0.2.0/24'"
    try:
        network = ipaddress.ip_network(item)
    except ValueError:
        try:
            interface = ipaddress.ip_interface(item)
        except ValueError:
            return f"{item!r} is no network; write it like 192.0.2.0/24, 192.0.2.7 or 2001:db8:1::/48 (names are not looked up)"
        return f"{item} has bits beyond its prefix; write {interface.network} for the network or {interface.ip} for the one address"
    if isinstance(network, ipaddress.IPv6Network):
        if network.network_address.ipv4_mapped and network.prefixlen >= 96:
            return f"{item} is an IPv4 address in the form of IPv6, which no packet has; write {network.network_address.ipv4_mapped}"
        if "%" in item:
            return f"{item}: an interface cannot be named here; write {item.partition('%')[0]}"
    if network.is_loopback or network.is_multicast:
        return f"{item} is never the source of a connection from elsewhere; remove it"
    return ""


def _peer_problems(items: t.Any) -> t.Iterator[str]:
    yield from _network_problems("firewall_peers", items)
    for position, item in enumerate(items if isinstance(items, (list, tuple)) else []):
        if not _network_problem(item) and _network(item).num_addresses > 1:
            yield f"firewall_peers[{position}]: {item} is a network; write the address of each other host of the cluster"


def _interface_problems(items: t.Any) -> t.Iterator[str]:
    if not isinstance(items, (list, tuple)):
        yield f"firewall_container_interfaces is {in_words(items)}; write a list, like [docker0, 'br-*']"
        return
    for item in items:
        if not isinstance(item, str) or not _INTERFACE.fullmatch(item):
            yield f"firewall_container_interfaces: {item!r} names no interface; write a name, or its beginning and *, like 'br-*'"
        elif matches(item, "lo"):
            yield f"firewall_container_interfaces: {item!r} would be the loopback interface too; write more of the name"


def _is_port(value: t.Any) -> bool:
    return not isinstance(value, bool) and str(value).isdigit() and 0 < int(value) < 65536


def _ports(items: t.Any) -> t.Tuple[t.List[Port], t.List[str]]:
    """The ports that are written rightly, and what is wrong with the others."""
    if not isinstance(items, (list, tuple)):
        return [], [f"firewall_ports is {in_words(items)}; write a list of ports"]
    good, bad = [], []
    for position, item in enumerate(items):
        if not isinstance(item, t.Mapping):
            bad.append(f"firewall_ports[{position}] is {in_words(item)}; write {{name, port, protocol, addresses, from}}")
            continue
        wrong = list(_port_problems(item))
        bad += [f"firewall_ports[{position}] ({item.get('name', 'without a name')}): {problem}" for problem in wrong]
        if not wrong:
            good.append(_port(item))
    return good, bad


def _port_problems(item: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    missing = [key for key in ("name", "port", "protocol", "addresses", "from") if item.get(key) is None]
    if missing:
        yield f"{', '.join(missing)} missing; write {{name, port, protocol, addresses, from}}"
        return
    if not _is_port(item["port"]):
        yield f"{item['port']!r} is not a port number; write one from 1 to 65535"
    if item["protocol"] not in ("tcp", "udp"):
        yield f"protocol {item['protocol']!r} is unknown; write tcp or udp"
    if item["from"] not in PORT_SOURCES:
        yield f"from {item['from']!r} is unknown; write one of {', '.join(PORT_SOURCES)}"
    addresses = item["addresses"]
    if not isinstance(addresses, (list, tuple)) or not addresses:
        yield "addresses must be a list of the addresses it listens on; write ['0.0.0.0', '::'] for all"
        return
    for address in addresses:
        try:
            _families_of(address)
        except ValueError:
            yield f"{address!r} is no address; write one like 192.0.2.7 or 2001:db8::7, or '*' for all"


def _families_of(address: t.Any) -> t.Tuple[t.Tuple[int, ...], str]:
    """(families, address), the address being empty for a wildcard."""
    text = str(address).strip("[]") if isinstance(address, str) else ""
    if text in _WILDCARDS:
        return _WILDCARDS[text], ""
    parsed = ipaddress.ip_address(text)
    if "%" in text:
        raise ValueError(text)
    return (parsed.version,), str(parsed)


def _port(item: t.Mapping[str, t.Any]) -> Port:
    listen: t.Dict[int, t.Optional[t.List[str]]] = {4: [], 6: []}
    for entry in item["addresses"]:
        families, address = _families_of(entry)
        for family in families:
            known = listen[family]
            if not address:
                listen[family] = None
            elif known is not None and address not in known and not ipaddress.ip_address(address).is_loopback:
                known.append(address)
    role = str(item.get("role") or "")
    label = f"{role}: {item['name']}" if role else str(item["name"])
    return Port(label, int(item["port"]), str(item["protocol"]), str(item["from"]), listen)


def _opens(port: Port, number: int) -> bool:
    return (
        port.number == number
        and port.protocol == "tcp"
        and port.source in ("admin", "public")
        and any(port.listen[family] != [] for family in FAMILIES)
    )


def _overlaps(ports: t.Sequence[Port]) -> t.Iterator[str]:
    """Ports that say the same thing twice, or that contradict each other; V(admin), V(cluster), V(monitoring) and V(containers) add up."""
    for position, port in enumerate(ports):
        for other in ports[:position]:
            if (port.number, port.protocol) != (other.number, other.protocol) or not any(
                _share(port.listen[family], other.listen[family]) for family in FAMILIES
            ):
                continue
            what = f"{port.number}/{port.protocol} is declared by '{other.label}' and by '{port.label}'"
            if port.source == other.source:
                yield f"{what}: only one program can listen there; remove one of them, or change its port"
            elif {port.source, other.source} & {"public", "loopback"}:
                yield f"{what}, from {other.source} and from {port.source}, which contradict each other; remove one of them"


def _share(one: t.Optional[t.List[str]], other: t.Optional[t.List[str]]) -> bool:
    if one is None:
        return other is None or bool(other)
    if other is None:
        return bool(one)
    return bool(set(one) & set(other))
