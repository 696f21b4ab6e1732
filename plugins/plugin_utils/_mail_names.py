# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges the names around mail: domains that exist, the reverse names of the addresses that send, and where returned mail goes.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns, Unanswered, reverse_name
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, bad, good, unknown

# What nobody on the internet sees as a sender.
_INSIDE = [
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
        *("::1/128", "fc00::/7", "fe80::/10"),
    )
]
# Words in the names that providers give to the lines of their customers.
_GENERIC = re.compile(
    r"(?:^|[.\d_-])(?:dyn|dynamic|dhcp|dsl|adsl|vdsl|cable|dial|dialup|ppp|pppoe|pool|client|customer|static|ip)(?=[.\d_-])"
)

_EXPECTED = {
    "domain.exists": "a domain that exists in the DNS",
    "address.public": "the address that receivers see",
    "ptr.record": "a PTR record",
    "ptr.confirmed": "a name that leads back to the address",
    "ptr.generic": "a name of the sender's own",
    "mx.record": "an MX record, so that returned mail arrives",
    "mx.address": "a mail server with an address",
}


def exists(dns: Dns, domain: str) -> Finding:
    """Whether a domain is there at all; when not, nothing else about it needs to be asked."""
    expected = _EXPECTED["domain.exists"]
    try:
        if dns.ask(domain, "SOA").exists:
            return good("domain.exists", domain, "it exists", expected)
    except Unanswered as error:
        return unknown("domain.exists", domain, error, expected)
    remedy = "Compare the name letter by letter. If it is right: register it, or have the zone above it delegate it."
    return bad("domain.exists", domain, "NXDOMAIN: there is no such name", expected, remedy)


def check_address(dns: Dns, address: str) -> t.List[Finding]:
    """All findings for the reverse name of an address that sends."""
    if any(ipaddress.ip_address(address) in network for network in _INSIDE):
        remedy = "Write the public address that this one leaves with."
        return [bad("address.public", address, "an address of an inner network", _EXPECTED["address.public"], remedy)]
    findings = [good("address.public", address, "a public address", _EXPECTED["address.public"])]
    reverse = reverse_name(address)
    owner = (
        f"Whoever provides the address {address} writes, with the full name of the server that sends:\n{reverse}. IN PTR mail.example.org."
    )
    try:
        names = dns.ask(reverse, "PTR").values
    except Unanswered as error:
        return [*findings, unknown("ptr.record", address, error, _EXPECTED["ptr.record"])]
    if not names:
        return [*findings, bad("ptr.record", address, "no PTR record", _EXPECTED["ptr.record"], owner)]
    told = ", ".join(names)
    findings.append(good("ptr.record", address, told, _EXPECTED["ptr.record"]))
    try:
        confirmed = [one for one in names[:10] if _same(address, dns.addresses(one))]
    except Unanswered as error:
        return [*findings, unknown("ptr.confirmed", address, error, _EXPECTED["ptr.confirmed"])]
    if not confirmed:
        kind = "AAAA" if ":" in address else "A"
        remedy = f"{names[0]}. IN {kind} {address}\nor, if that is not the server's name, another PTR record. {owner}"
        return [*findings, bad("ptr.confirmed", address, f"{told} leads elsewhere or nowhere", _EXPECTED["ptr.confirmed"], remedy)]
    findings.append(good("ptr.confirmed", address, ", ".join(confirmed), _EXPECTED["ptr.confirmed"]))
    if all(is_generic(one, address) for one in confirmed):
        return [*findings, bad("ptr.generic", address, f"{told}, such as home lines have", _EXPECTED["ptr.generic"], owner, "warning")]
    return [*findings, good("ptr.generic", address, told, _EXPECTED["ptr.generic"])]


def is_generic(name: str, address: str) -> bool:
    """Whether a reverse name looks like one that a provider made from the address: many receivers take no mail from such."""
    name = name.lower()
    if _GENERIC.search(name):
        return True
    if ":" in address:
        digits = ipaddress.ip_address(address).exploded.replace(":", "")
        return digits[-8:] in re.sub(r"[^0-9a-f]", "", name)
    octets = address.split(".")
    numbers = re.findall(r"\d+", name)
    # Three of the four numbers, in either order.
    wanted = [octets[:3], octets[1:], octets[::-1][:3], octets[::-1][1:]]
    runs = [[one.lstrip("0") or "0" for one in numbers[place : place + 3]] for place in range(len(numbers) - 2)]
    return any(run in wanted for run in runs) or "".join(f"{int(one):02x}" for one in octets) in name


def check_return(dns: Dns, domain: str) -> t.List[Finding]:
    """All findings for the domain that mail is returned to when it cannot be delivered."""
    expected = _EXPECTED["mx.record"]
    remedy = (
        f"{domain}. IN MX 10 mail.{domain}.\nwith the name of the server that takes mail for it, or use a return address of another domain."
    )
    try:
        servers = sorted(dns.ask(domain, "MX").values)
        direct = [] if servers else dns.addresses(domain)
    except Unanswered as error:
        return [unknown("mx.record", domain, error, expected)]
    if not servers and not direct:
        return [bad("mx.record", domain, "no MX record and no address", expected, remedy)]
    if not servers:
        return [bad("mx.record", domain, f"no MX record, so {direct[0]} itself is tried", expected, remedy, "warning")]
    told = ", ".join(f"{preference} {name or '.'}" for preference, name in servers)
    if any(not name for _preference, name in servers):
        return [bad("mx.record", domain, f"{told}: the domain takes no mail (RFC 7505)", expected, remedy)]
    findings = [good("mx.record", domain, told, expected)]
    expected = _EXPECTED["mx.address"]
    for _preference, name in servers:
        try:
            if not dns.addresses(name):
                record = f"{name}. IN A ...\nwith the address of the server, or remove the MX record."
                findings.append(bad("mx.address", name, "no address", expected, record))
            elif dns.ask(name, "A").alias:
                record = f"{domain}. IN MX 10 ...\nwith the name that {name} is an alias of (RFC 2181)."
                findings.append(bad("mx.address", name, "an alias (CNAME)", expected, record, "warning"))
            else:
                findings.append(good("mx.address", name, ", ".join(dns.addresses(name)), expected))
        except Unanswered as error:
            findings.append(unknown("mx.address", name, error, expected))
    return findings


def _same(address: str, others: t.Sequence[str]) -> bool:
    return ipaddress.ip_address(address) in [ipaddress.ip_address(one) for one in others]
