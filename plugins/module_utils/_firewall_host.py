# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host already has that a firewall must know of: the connection it is administered by, its way out, other firewalls.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import glob
import ipaddress
import json
import os
import re
import shutil
import subprocess
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._firewall_live import TABLE
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_model import Model, admits, matches

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Connection(t.NamedTuple):
    """An SSH connection: the address it comes from, and the port of the host."""

    source: str
    port: int


def ssh_connection() -> t.Optional[Connection]:
    """The SSH connection that this process runs in, V(None) when there is none.

    sudo drops the variable from the environment, so the parents' are read.
    """
    process = "self"
    while process not in ("0", "1", ""):
        try:
            with open(f"/proc/{process}/environ", "rb") as stream:
                environment = stream.read().split(b"\0")
            with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stream:
                # After the name, which may hold anything: state, then parent.
                process = stream.read().rpartition(")")[2].split()[1]
        except OSError:
            return None
        for variable in environment:
            name, _equals, value = variable.decode("utf-8", "replace").partition("=")
            words = value.split()
            if name == "SSH_CONNECTION" and len(words) == 4:
                return Connection(words[0], int(words[3]))
    return None


def connection_problems(model: Model, connection: t.Optional[Connection]) -> t.List[str]:
    """Whether the connection that is in use could be made again."""
    if connection is None or admits(model, connection.source, connection.port):
        return []
    source = ipaddress.ip_address(connection.source.partition("%")[0])
    shown = getattr(source, "ipv4_mapped", None) or source
    if source.is_loopback or (connection.port in model.ssh_ports[1:] and _is_admin(model, shown)):
        return []
    return [
        f"this connection comes from {shown}, which is not in firewall_admin_networks: it would be the last one; add {shown} or its "
        "network (in a site's inventory: civitas_admin_networks)"
    ]


def both_ports(model: Model, connection: t.Optional[Connection]) -> t.Tuple[Model, t.List[str]]:
    """While SSH moves to another port, the one that the connection in use came to stays open to administrators; with a warning."""
    if connection is None or ipaddress.ip_address(connection.source.partition("%")[0]).is_loopback:
        return model, []
    declared = model.ssh_ports[0]
    if connection.port == declared or admits(model, connection.source, connection.port):
        return model, []
    return model._replace(ssh_ports=[declared, connection.port]), [
        f"this connection came to port {connection.port} of the host, and firewall_ssh_port is {declared}: both are open to "
        f"administrators until one comes to {declared}. Run the role access, which moves SSH there, or correct the port (in a site's "
        "inventory: base_ssh_port)"
    ]


def _is_admin(model: Model, address: t.Any) -> bool:
    return any(network.version == address.version and address in network for network in model.networks["admin"])


def interface_problems(model: Model) -> t.List[str]:
    """Containers' interfaces that are the host's way to everybody else."""
    return [
        f"firewall_container_interfaces: {pattern!r} also means {interface}, by which the host reaches other networks; "
        "write more of the names"
        for interface in sorted(default_interfaces())
        for pattern in model.interfaces
        if matches(pattern, interface)
    ]


def bridge_problems(model: Model, root: str = "/sys/class/net") -> t.List[str]:
    """Containers' interfaces that are bridges to a network outside of the host."""
    problems = []
    for path in sorted(glob.glob(os.path.join(root, "*", "brif"))):
        bridge = os.path.basename(os.path.dirname(path))
        cards = sorted(card for member in os.listdir(path) for card in _cards(root, member))
        patterns = [pattern for pattern in model.interfaces if matches(pattern, bridge)]
        if cards and patterns:
            problems.append(
                f"firewall_container_interfaces: {patterns[0]!r} also means {bridge}, a bridge of the network card {cards[0]}, with which "
                "all of that network would count as containers; write the names of the containers' bridges, such as br-0123456789ab, or "
                "give this one a name that is not meant"
            )
    return problems


def _cards(root: str, interface: str) -> t.Iterator[str]:
    """The network cards that an interface, a VLAN or a bond for one, leads to."""
    if os.path.exists(os.path.join(root, interface, "device")):
        yield interface
    for lower in glob.glob(os.path.join(glob.escape(os.path.join(root, interface)), "lower_*")):
        yield from _cards(root, os.path.basename(lower)[len("lower_") :])


def default_interfaces() -> t.Set[str]:
    """The interfaces that default routes lead through."""
    found = set()
    for path, destination, name in (("/proc/net/route", 1, 0), ("/proc/net/ipv6_route", 0, -1)):
        try:
            with open(path, encoding="ascii") as stream:
                lines = [line.split() for line in stream]
        except OSError:
            continue
        for words in lines:
            if not words or set(words[destination]) != {"0"} or words[name] == "lo":
                continue
            # The prefix: a mask of IPv4, a length of IPv6.
            if set(words[7 if name == 0 else 1]) == {"0"}:
                found.add(words[name])
    return found


def other_firewalls(root: str = "/") -> t.List[str]:
    """Other programs that decide about packets, each with why it matters and how to be rid of it."""
    return [*_ufw(root), *_packaged_service(root), *_other_tables(_nft_chains()), *_legacy()]


def _ufw(root: str) -> t.Iterator[str]:
    try:
        with open(os.path.join(root, "etc/ufw/ufw.conf"), encoding="utf-8") as stream:
            active = re.search(r"^\s*ENABLED\s*=\s*yes", stream.read(), re.MULTILINE | re.IGNORECASE)
    except OSError:
        return
    if active:
        yield (
            "ufw is active: what it closes stays closed, whatever is declared here, and it does not cover published ports; "
            "run 'ufw disable' on the host"
        )


def _packaged_service(root: str) -> t.Iterator[str]:
    enabled = glob.glob(os.path.join(root, "etc/systemd/system/*.wants/nftables.service"))
    try:
        with open(os.path.join(root, "etc/nftables.conf"), encoding="utf-8") as stream:
            flushes = re.search(r"^\s*flush\s+ruleset", stream.read(), re.MULTILINE)
    except OSError:
        return
    if enabled and flushes:
        yield (
            "nftables.service is enabled, and /etc/nftables.conf begins with flushing the tables of all programs, the container engine's "
            "too; run 'systemctl disable nftables.service' on the host (without --now: stopping flushes as well), and declare in "
            "firewall_ports what the file opened"
        )


def _nft_chains() -> t.List[t.Dict[str, t.Any]]:
    rc, out = _run("nft", "--json", "list", "chains")
    if rc != 0:
        return []
    return [entry["chain"] for entry in json.loads(out)["nftables"] if "chain" in entry]


def _other_tables(chains: t.Iterable[t.Mapping[str, t.Any]]) -> t.Iterator[str]:
    """Tables that drop what they do not know. What only names senders to drop, as fail2ban does, goes well with ours."""
    found: t.Dict[str, t.List[str]] = {}
    for chain in chains:
        table = f"{chain['family']} {chain['table']}"
        if table == TABLE or chain.get("hook") not in ("input", "output"):
            continue
        if chain.get("policy") == "drop" or chain["table"] == "firewalld":
            found.setdefault(table, []).append(chain["name"])
    for table, names in sorted(found.items()):
        if table == "inet firewalld":
            yield "firewalld is active: what it closes stays closed; run 'systemctl disable --now firewalld.service' on the host"
        else:
            yield (
                f"the nftables table {table} drops in {', '.join(sorted(names))} whatever it does not allow (iptables and ufw keep "
                "their rules in such tables): that stays closed whatever is declared here; remove its rules with the program that made them"
            )


def _legacy() -> t.Iterator[str]:
    for family in ("", "6"):
        program = shutil.which(f"ip{family}tables-legacy-save", path=_PATH)
        # Asking a kernel for a table that it has not got would load it.
        if not program or not _first_line(f"/proc/net/ip{family}_tables_names"):
            continue
        rc, out = _run(program, "-t", "filter")
        if rc == 0:
            yield from _judge_legacy(family, out)


def _judge_legacy(family: str, saved: str) -> t.Iterator[str]:
    closing = re.findall(r"^:(INPUT|OUTPUT) DROP|^-A (INPUT|OUTPUT)\b.* -j (?:DROP|REJECT)", saved, re.MULTILINE)
    if closing:
        chains = ", ".join(sorted({one or other for one, other in closing}))
        yield (
            f"iptables-legacy has rules for IPv{family or '4'} that drop in {chains}, beside those of nftables and unseen by it: what "
            f"they close stays closed whatever is declared here; see 'ip{family}tables-legacy-save', and remove them with their program"
        )


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii") as stream:
            return stream.readline().strip()
    except OSError:
        return ""


def _run(*words: str) -> t.Tuple[int, str]:
    try:
        done = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return 127, ""
    return done.returncode, done.stdout
