# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host asks and fetches already: its name servers and its package sources, before its outgoing connections are restricted.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import glob
import ipaddress
import os
import re
import socket
import subprocess
import typing as t
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils._egress_refresh import AnswerError, ask
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import PACKAGE_SOURCES, EgressError, covers

RESOLV_CONF = "etc/resolv.conf"
# Where systemd-resolved writes the servers that it asks itself; resolv.conf names only its own address then.
RESOLVED = "run/systemd/resolve/resolv.conf"
_PORTS = {"http": 80, "https": 443, "ftp": 21}
# Before the address there may be a method of apt's that fetches by another one, such as mirror+https.
_SOURCE = re.compile(r"(?:[a-z0-9]+\+)?(https?|ftp)://[^\s\]]+")


class Source(t.NamedTuple):
    """Where packages come from. C(file) is for people."""

    host: str
    port: int
    file: str


def name_servers(root: str = "/") -> t.List[str]:
    """The name servers that the host asks, without its own addresses on loopback. Raises EgressError when there are none."""
    found = _listed(os.path.join(root, RESOLV_CONF))
    remote = [address for address in found if not ipaddress.ip_address(address).is_loopback]
    if not remote and found:
        remote = [address for address in _listed(os.path.join(root, RESOLVED)) if not ipaddress.ip_address(address).is_loopback]
    if remote:
        return remote
    if found:
        raise EgressError(
            [
                f"the host asks a name server of its own ({', '.join(found)} in /etc/resolv.conf), which asks others that nobody named;"
                " set firewall_resolvers to the name servers of the site"
            ]
        )
    raise EgressError(["/etc/resolv.conf names no name server; set firewall_resolvers to those of the site"])


def package_sources(root: str = "/") -> t.List[Source]:
    """Hosts and ports that apt fetches from, by its sources and proxies."""
    proxies = _proxies()
    found: t.Set[Source] = set()
    for path in sorted(glob.glob(os.path.join(root, "etc/apt/sources.list")) + glob.glob(os.path.join(root, "etc/apt/sources.list.d/*"))):
        if not path.endswith((".list", ".sources")):
            continue
        for line in _active_lines(path):
            for match in _SOURCE.finditer(line):
                proxy = proxies.get(match[1], "")
                address = urlsplit(proxy or match[0])
                if address.hostname:
                    where = "apt's proxy" if proxy else "/" + os.path.relpath(path, root)
                    found.add(Source(address.hostname, address.port or _PORTS.get(address.scheme if proxy else match[1], 80), where))
    return sorted(found)


def with_found(
    destinations: t.Sequence[t.Mapping[str, t.Any]], sources: t.Sequence[Source], resolvers: t.Sequence[str]
) -> t.List[t.Dict[str, t.Any]]:
    """The declarations, those for the host's package sources with these instead of C(found)."""
    result: t.List[t.Dict[str, t.Any]] = []
    for item in destinations:
        if item.get("found") != PACKAGE_SOURCES:
            result.append(dict(item))
            continue
        by_port: t.Dict[int, t.List[str]] = {}
        for source in sources:
            by_port.setdefault(source.port, []).extend(_followed(source, resolvers))
        plain = {key: value for key, value in item.items() if key != "found"}
        result += [{**plain, "hosts": sorted(set(hosts)), "ports": [port], "protocol": "tcp"} for port, hosts in sorted(by_port.items())]
    return result


def _followed(source: Source, resolvers: t.Sequence[str]) -> t.List[str]:
    """The name, or its addresses when the name servers do not know it, as with one of /etc/hosts: no answer would let them through."""
    for resolver in resolvers:
        try:
            if ask(source.host, 4, (resolver, 53)) or ask(source.host, 6, (resolver, 53)):
                return [source.host]
            return _addresses(source) or [source.host]
        except (AnswerError, OSError, ValueError):
            continue
    return [source.host]


def undeclared(sources: t.Iterable[Source], destinations: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    """One sentence for each package source that would be refused."""
    return [
        f"packages come from {source.host}, port {source.port} ({source.file}), which is no destination;"
        f" add '{source.host}' to base_package_hosts, set base_apt_proxy, or remove the source"
        for source in sources
        if not covers(destinations, source.host, source.port) and not _covered_by_address(source, destinations)
    ]


def _covered_by_address(source: Source, destinations: t.Sequence[t.Mapping[str, t.Any]]) -> bool:
    """Whether a name stands for declared addresses only, such as one of /etc/hosts."""
    found = _addresses(source)
    return bool(found) and all(covers(destinations, address, source.port) for address in found)


def _addresses(source: Source) -> t.List[str]:
    """What the host makes of a name."""
    try:
        found = socket.getaddrinfo(source.host, source.port, proto=socket.IPPROTO_TCP)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found if "%" not in str(entry[4][0])})


def _listed(path: str) -> t.List[str]:
    """The servers of a file in the form of resolv.conf; addresses with an interface (link-local ones) are passed over."""
    found: t.List[str] = []
    for line in _lines(path):
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = str(ipaddress.ip_address(words[1]))
            except ValueError:
                continue
            if "%" not in address and address not in found:
                found.append(address)
    return found


def _active_lines(path: str) -> t.Iterator[str]:
    """Lines with addresses of sources that are not disabled: of one-line entries, and of paragraphs with fields."""
    if path.endswith(".list"):
        for line in _lines(path):
            if line.split()[:1] == ["deb"]:
                yield line
        return
    for paragraph in re.split(r"\n\s*\n", "\n".join(line for line in _lines(path, blank=True) if not line.startswith("#"))):
        if re.search(r"^Enabled:\s*(no|false|off|0)\s*$", paragraph, re.I | re.M):
            continue
        yield from re.findall(r"^URIs:((?:.*\n?(?=[ \t]))*.*)$", paragraph, re.I | re.M)


def _lines(path: str, blank: bool = False) -> t.List[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in file if blank or line.strip()]
    except OSError:
        return []


def _proxies() -> t.Dict[str, str]:
    """apt's proxies by protocol."""
    try:
        done = subprocess.run(["apt-config", "dump"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return {}
    # With a proxy for HTTP alone, apt sends HTTPS through it as well.
    found = dict(re.findall(r'^Acquire::(https?)::Proxy "([^"]*)";$', done.stdout, re.M | re.I))
    proxies = {"http": found.get("http", ""), "https": found.get("https") or found.get("http", "")}
    return {protocol: proxy for protocol, proxy in proxies.items() if proxy and proxy.upper() != "DIRECT"}
