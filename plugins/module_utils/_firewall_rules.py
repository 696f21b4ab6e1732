# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ruleset of a host, as text for C(nft -f), from the model of what may reach it.

Private to the collection: no promise of stability.

How the table decides. Its chains come just before those of others (priority -5 to their 0): what they drop is dropped, what they accept
goes on to the others. What comes in is judged packet by packet, also in a session that is established, so that taking a rule away cuts its
sessions at once; answers pass. What goes out is judged when a connection begins, since addresses of names come and go. Published ports are
rewritten by the container engine before anything is filtered; they are judged in C(forward) by the port that the client asked for.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import EgressRules
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_model import FAMILIES, Model, Network, Port

TABLE = "inet civitas"
# Before the chains of the container engine, of ufw and of others.
_PRIORITY = "priority filter - 5"
_SETS = {"admin": "admin", "cluster": "peers", "monitoring": "monitoring", "public": "public"}
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_IP = {4: "ip", 6: "ip6"}

_HEAD = """\
# SPDX-License-Identifier: GPL-3.0-or-later
# Managed by Ansible (civitas.hosting, role firewall): {what}
# Replaced as a whole; no other table is touched.
add table {table}
delete table {table}
"""


class Features(t.NamedTuple):
    """What the kernel of a host can do beyond what the rules cannot be without."""

    log: bool = True
    reject: bool = True


def ruleset(model: Model, egress: EgressRules, features: Features) -> str:
    """The whole file.

    Args:
        model: what may reach the host.
        egress: the rules for what the host and its containers may reach.
        features: what the kernel has.
    """
    lines = [_HEAD.format(what="what may reach this host, and what it may reach.", table=TABLE), f"table {TABLE} {{"]
    for source in _SETS:
        lines += _source_sets(model, source)
    lines += _indented(egress.sets, 1)
    lines += _indented(egress.chains, 1)
    lines += _chain("input", _input(model, egress.input, features), hook="input")
    lines += _chain("input_containers", _input_containers(model, features))
    lines += _chain("forward", _forward(model, features), hook="forward")
    lines += _chain("forward_out", _forward_out(model, egress, features))
    lines += _chain("published", _published(model, features))
    lines += _chain("output", [*_output(model), *egress.output, *_refuse_out(model, features)], hook="output")
    return "\n".join([*lines, "}", ""])


def closed_ruleset(model: Model) -> str:
    """What holds when the ruleset cannot be loaded at boot: nothing but SSH for administrators."""
    lines = [_HEAD.format(what="what holds when firewall.nft cannot be loaded: administrators only.", table=TABLE), f"table {TABLE} {{"]
    lines += _source_sets(model, "admin")
    lines += _chain("input", ["iifname lo accept", *_answers(), *_neighbors(), *_dhcp_in(), *_ssh_in(model), "counter drop"], hook="input")
    lines += _chain("forward", ["counter drop"], hook="forward")
    lines += _chain(
        "output", ["oifname lo accept", *_ssh_out(model), *_answers(), *_neighbors(), *_dhcp_out(), "counter drop"], hook="output"
    )
    return "\n".join([*lines, "}", ""])


# Chains


def _chain(name: str, rules: t.Iterable[str], hook: str = "") -> t.List[str]:
    head = [f"    chain {name} {{"]
    if hook:
        head.append(f"        type filter hook {hook} {_PRIORITY}; policy drop;")
    return [*head, *_indented(rules, 2), "    }"]


def _indented(lines: t.Iterable[str], depth: int) -> t.List[str]:
    """Each text is one line, also when somebody wrote a name of several."""
    return ["    " * depth + " ".join(text.splitlines()) for text in lines]


def _input(model: Model, resolver: t.Sequence[str], features: Features) -> t.List[str]:
    return [
        "iifname lo accept",
        *_answers(),
        *_neighbors(),
        "icmp type echo-request limit rate 20/second burst 40 packets accept",
        "icmpv6 type echo-request limit rate 20/second burst 40 packets accept",
        *resolver,
        *_each_interface(model, "iifname", "goto input_containers"),
        *_ssh_in(model),
        "ct state invalid counter drop",
        *_dhcp_in(),
        *(line for port in model.ports if not _is_ssh(model, port) for line in _opening(model, port)),
        *_encrypted_overlay(model, "saddr"),
        "meta pkttype { broadcast, multicast } counter drop",
        *_refuse("in", model, features),
    ]


def _input_containers(model: Model, features: Features) -> t.List[str]:
    """Containers reach what is for them and what is for everybody, but never what is for administrators."""
    ports = [port for port in model.ports if port.source in ("containers", "public")]
    rules = [line for port in ports for line in _opening(model, port, anybody=True)]
    return ["ct state invalid counter drop", *rules, *_refuse("in", model, features)]


def _forward(model: Model, features: Features) -> t.List[str]:
    return [
        *_answers(),
        "ct state invalid counter drop",
        *_each_interface(model, "iifname", "goto forward_out"),
        *_each_interface(model, "oifname", "ct status dnat goto published"),
        *_refuse("forward", model, features),
    ]


def _forward_out(model: Model, egress: EgressRules, features: Features) -> t.List[str]:
    """What containers send: to each other, which is for the engine to judge, and out."""
    return ["ct state established accept", *_each_interface(model, "oifname", "accept"), *egress.forward, *_refuse_out(model, features)]


def _published(model: Model, features: Features) -> t.List[str]:
    return [*(line for port in model.ports for line in _opening(model, port, published=True)), *_refuse("forward", model, features)]


def _output(model: Model) -> t.List[str]:
    return [
        "oifname lo accept",
        *_ssh_out(model),
        "ct state established,related accept",
        *_each_interface(model, "oifname", "accept"),
        *_to_peers(model),
    ]


# Parts of chains


def _answers() -> t.List[str]:
    """Answers, and errors about what is known, such as that a packet was too big."""
    return ["ct state established ct direction reply accept", "ct state related accept"]


def _neighbors() -> t.List[str]:
    """IPv6 does not work without: neighbors, routers and group membership, which never come from beyond the link."""
    return [
        "ip6 hoplimit 255 icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "ip6 hoplimit 1 icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
    ]


def _dhcp_in() -> t.List[str]:
    return ["udp sport 67 udp dport 68 accept", "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"]


def _dhcp_out() -> t.List[str]:
    return ["udp sport 68 udp dport 67 accept", "ip6 daddr { fe80::/10, ff02::/16 } udp sport 546 udp dport 547 accept"]


def _ssh_in(model: Model) -> t.List[str]:
    """SSH for administrators does not depend on what the kernel remembers of a session: no change of the rules cuts the one it comes by."""
    return [f"{match} tcp dport {_ssh_ports(model)} counter accept" for match in _sides(model, "admin", "saddr")]


def _ssh_out(model: Model) -> t.List[str]:
    return [f"{match} tcp sport {_ssh_ports(model)} accept" for match in _sides(model, "admin", "daddr")]


def _ssh_ports(model: Model) -> str:
    numbers = [str(number) for number in model.ssh_ports]
    return numbers[0] if len(numbers) == 1 else f"{{ {', '.join(numbers)} }}"


def _to_peers(model: Model) -> t.List[str]:
    lines = []
    for protocol in ("tcp", "udp"):
        numbers = sorted({port.number for port in model.ports if port.source == "cluster" and port.protocol == protocol})
        for match in _sides(model, "cluster", "daddr") if numbers else []:
            lines.append(f"{match} {protocol} dport {{ {', '.join(map(str, numbers))} }} counter accept")
    return lines + _encrypted_overlay(model, "daddr")


def _encrypted_overlay(model: Model, side: str) -> t.List[str]:
    """Networks between the hosts of a cluster may be encrypted by IPsec, which has no ports."""
    if not any(port.source == "cluster" for port in model.ports):
        return []
    return [f"{match} meta l4proto esp counter accept" for match in _sides(model, "cluster", side)]


def _each_interface(model: Model, key: str, verdict: str) -> t.List[str]:
    return [f'{key} "{pattern}" {verdict}' for pattern in model.interfaces]


def _refuse(way: str, model: Model, features: Features) -> t.List[str]:
    """The end of a chain: a session whose rule is gone hears of it, the rest is dropped."""
    reset = ["meta l4proto tcp ct state established counter reject with tcp reset"] if features.reject else []
    return [*reset, *_log(way, model, features), "counter drop"]


def _refuse_out(model: Model, features: Features) -> t.List[str]:
    """The end of a chain of what goes out: our own programs are told at once."""
    verdict = "reject with icmpx type admin-prohibited" if features.reject else "drop"
    return [*_log("out", model, features), f"counter {verdict}"]


def _log(way: str, model: Model, features: Features) -> t.List[str]:
    if not (model.log and features.log):
        return []
    return [f'limit rate 5/second burst 10 packets log prefix "civitas-firewall {way}: " level info']


def _is_ssh(model: Model, port: Port) -> bool:
    """It has its rule before all others."""
    return (port.source, port.protocol) == ("admin", "tcp") and port.number in model.ssh_ports


def _opening(model: Model, port: Port, published: bool = False, anybody: bool = False) -> t.List[str]:
    """The rules that let a port be reached, by its sources or by anybody: one where both families are alike, else one for each."""
    if not anybody and port.source not in _SETS:
        return []
    asked = f"{port.protocol} dport {port.number}"
    if published:
        asked = f"meta l4proto {port.protocol} ct original proto-dst {port.number}"
    rules = []
    for family in FAMILIES:
        listen = port.listen[family]
        source = "" if anybody else _source(model, port.source, family)
        if listen == [] or source is None:
            continue
        words = [source] if source else []
        if listen:
            side = f"ct original {_IP[family]} daddr" if published else f"{_IP[family]} daddr"
            words.append(f"{side} {listen[0] if len(listen) == 1 else '{ ' + ', '.join(sorted(listen)) + ' }'}")
        rules.append((family, words))
    if len(rules) == len(FAMILIES) and not any(words for _family, words in rules):
        rules = [(0, [])]
    tail = f'counter accept comment "{_comment(port)}"'
    return [" ".join([*(words or ([f"meta nfproto ipv{family}"] if family else [])), asked, tail]) for family, words in rules]


def _comment(port: Port) -> str:
    """Names are people's: nothing in them may end the comment."""
    return re.sub(r"[^\w .,:()/-]", "?", f"{port.label} ({port.source})", flags=re.ASCII)[:100]


def _source(model: Model, source: str, family: int) -> t.Optional[str]:
    """The match for a source, empty for everybody, V(None) when it has no address of the family."""
    networks = _of_family(model, source, family)
    if not networks:
        return None
    return "" if _is_everybody(networks) else f"{_IP[family]} saddr @{_SETS[source]}{family}"


def _sides(model: Model, source: str, side: str) -> t.List[str]:
    """For each family that a source has addresses of: the match of C(saddr) or C(daddr)."""
    matches = []
    for family in FAMILIES:
        networks = _of_family(model, source, family)
        if networks:
            everybody = f"meta nfproto ipv{family}"
            matches.append(everybody if _is_everybody(networks) else f"{_IP[family]} {side} @{_SETS[source]}{family}")
    return matches


def _of_family(model: Model, source: str, family: int) -> t.List[Network]:
    return [network for network in model.networks[source] if network.version == family]


def _is_everybody(networks: t.Iterable[Network]) -> bool:
    return any(network.prefixlen == 0 for network in networks)


def _source_sets(model: Model, source: str) -> t.List[str]:
    lines = []
    for family in FAMILIES:
        networks = _of_family(model, source, family)
        if not networks or _is_everybody(networks):
            continue
        merged = ipaddress.collapse_addresses(t.cast("t.Any", networks))
        elements = ", ".join(str(network.network_address) if network.num_addresses == 1 else str(network) for network in merged)
        lines += [
            f"    set {_SETS[source]}{family} {{",
            f"        type {_TYPES[family]}; flags interval;",
            f"        elements = {{ {elements} }}",
            "    }",
        ]
    return lines
