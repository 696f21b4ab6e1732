# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host names and addresses, and what certificates say for them. Standard library only.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import typing as t

# Browsers keep these letters, the encoding of the standard library replaces them: the two name different hosts.
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")


def normal(host: str) -> str:
    """A name in small ASCII letters without its last dot, or an address in its shortest form. A name may begin with C(*.).

    Raises:
        ValueError: neither a name nor an address; the message says what to write.
    """
    text = host.strip()
    try:
        return str(ipaddress.ip_address(text[1:-1] if text.startswith("[") and text.endswith("]") else text))
    except ValueError:
        pass
    text = text[:-1] if text.endswith(".") else text
    if not text.isascii():
        try:
            if _DEVIATIONS & set(text):
                raise UnicodeError
            text = text.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise ValueError(f"the name {host!r} has no safe ASCII form; write it as the registry does (xn--...)") from error
    text = text.lower()
    labels = (text[2:] if text.startswith("*.") else text).split(".")
    if len(text) > 253 or not all(_is_label(label) for label in labels):
        raise ValueError(f"{host!r} is neither a host name nor an address; write www.example.org, *.example.org or 192.0.2.1")
    return text


def is_address(host: str) -> bool:
    """Whether a normal host is an address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def address(host: str) -> t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]:
    """A normal address as such."""
    return ipaddress.ip_address(host)


def covers(pattern: str, host: str) -> bool:
    """Whether a name or address in a certificate is for the host, both normal; a wildcard stands for exactly one whole label."""
    if pattern == host:
        return True
    return pattern.startswith("*.") and not is_address(host) and not host.startswith("*.") and host.partition(".")[2] == pattern[2:]


def mismatch(host: str, names: t.Sequence[str]) -> t.Tuple[str, str]:
    """The code and reason why none of the names is for the host, all normal; two empty strings when one is."""
    if any(covers(name, host) for name in names):
        return "", ""
    wildcards = [] if is_address(host) else [name for name in names if name.startswith("*.")]
    for wildcard in wildcards:
        if host == wildcard[2:]:
            return "wildcard_for_apex", f"{wildcard} does not cover {host} itself"
    for wildcard in wildcards:
        if host.endswith(wildcard[1:]):
            return "wildcard_too_shallow", f"{wildcard} covers one label only and not {host}"
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return "name_mismatch", f"{host} is not among its names: {listed or 'it has none'}"


def within(name: str, domain: str) -> bool:
    """Whether a name, which may be a wildcard, lies in a domain altogether, as name constraints count it."""
    base = name[2:] if name.startswith("*.") else name
    return not domain or base == domain or base.endswith("." + domain)


def touches(name: str, domain: str) -> bool:
    """Whether a name, which may be a wildcard, stands for any host in the domain."""
    return within(name, domain) or (name.startswith("*.") and covers(name, domain))


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and label[0] != "-" and label[-1] != "-" and all(c.isascii() and (c.isalnum() or c == "-") for c in label)
