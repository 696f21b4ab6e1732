# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges SPF (RFC 7208): whether receivers can evaluate the record at all, and what they get for the addresses that mail comes from.

Evaluation is pyspf's. Its limits are counted here in place of stopping at them, so that the finding can say by how much they are passed.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns, Unanswered
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, bad, good, txt_record, unknown

try:
    import spf

    _Base: t.Any = spf.query
    MISSING = ""
except ImportError as _error:
    _Base = object
    MISSING = str(_error)

MAXIMUM_LOOKUPS = 10
MAXIMUM_VOID_LOOKUPS = 2
# Far above any honest record, and the end of those that include themselves.
_STOP = 100
_RECORD = re.compile(r"v=spf1(?: |$)", re.IGNORECASE)
_ALL = re.compile(r"[-+~?]?all", re.IGNORECASE)
# Where an address is needed to evaluate and none is given (RFC 5737).
_NOBODY = "192.0.2.1"

_EXPECTED = {
    "spf.record": "one TXT record that begins with v=spf1",
    "spf.valid": "a record that receivers can evaluate, with all that it includes",
    "spf.lookups": f"{MAXIMUM_LOOKUPS} look-ups at most, those of included records counted",
    "spf.void_lookups": f"{MAXIMUM_VOID_LOOKUPS} look-ups at most that find nothing",
    "spf.all": "-all or ~all at the end",
    "spf.address": "pass",
}


class Invalid(Exception):
    """Receivers cannot evaluate the record; the message says why."""


class Cost(t.NamedTuple):
    """What it takes to evaluate a record to its end: how many terms ask the DNS, and the questions that found nothing."""

    lookups: int
    void: t.List[str]
    included: t.List[str]


class _Query(_Base):
    """pyspf's evaluation, with our answers and without a stop at its limits."""

    def __init__(self, dns: Dns, domain: str, address: str) -> None:
        super().__init__(i=address, s=f"postmaster@{domain}", h=domain, strict=True)
        self._asker = dns
        self.void: t.List[str] = []
        self.included: t.List[str] = []

    def dns(self, name: t.Any, qtype: str, cnames: t.Any = None, ignore_void: bool = False) -> t.List[t.Any]:
        name = str(name).rstrip(".")
        values = list(self._asker.ask(name, qtype).values)
        if not values and not ignore_void:
            self.void.append(f"{qtype} {name}")
        # pyspf joins the strings of a TXT record itself.
        return [(value,) for value in values] if qtype == "TXT" else values

    def dns_spf(self, domain: str) -> t.Any:
        self.included.append(domain)
        return super().dns_spf(domain)

    def check_lookups(self) -> None:
        self.lookups += 1
        if self.lookups > _STOP:
            raise spf.PermError(f"more than {_STOP} DNS look-ups")


class _CostQuery(_Query):
    """Nothing matches, so that every term is reached: the most that a receiver has to ask."""

    def cidrmatch(self, ipaddrs: t.Any, n: int) -> bool:
        return False

    def validated_ptrs(self) -> t.List[str]:
        return []

    def dns_a(self, domainname: str, A: str = "A") -> t.List[str]:
        super().dns_a(domainname, A)
        return []


def records(dns: Dns, domain: str) -> t.List[str]:
    """The SPF records of a domain, as they stand. Raises C(Unanswered)."""
    return [text for text in dns.text(domain) if _RECORD.match(text)]


def evaluate(dns: Dns, record: str, domain: str, address: str) -> str:
    """What receivers make of mail from an address: V(pass), V(fail), V(softfail) or V(neutral).

    Raises:
        Invalid: they cannot.
        Unanswered: a record that is needed was not to be had.
    """
    return _run(_Query(dns, domain, address), record)


def cost(dns: Dns, record: str, domain: str, address: str = _NOBODY) -> Cost:
    """What evaluating the record to its end takes. Raises C(Invalid) and C(Unanswered)."""
    query = _CostQuery(dns, domain, address)
    _run(query, record)
    return Cost(query.lookups, query.void, query.included)


def _run(query: t.Any, record: str) -> str:
    try:
        result = query.check(spf=record)
    except AssertionError:
        # So pyspf says that records include each other without end.
        raise Invalid("its includes lead in a circle, or are nested too deep") from None
    if result[0] == "permerror":
        raise Invalid(str(query.perm_error))
    return str(result[0])


def check(dns: Dns, domain: str, addresses: t.Sequence[str]) -> t.List[Finding]:
    """All findings for the domain of the return address.

    Args:
        addresses: those that mail is sent from.
    """
    expected = _EXPECTED["spf.record"]
    try:
        found = records(dns, domain)
    except Unanswered as error:
        return [unknown("spf.record", domain, error, expected)]
    if not found:
        return [bad("spf.record", domain, "no SPF record", expected, txt_record(domain, _with("v=spf1 -all", addresses)))]
    findings = [good("spf.record", domain, found[0], expected)]
    if len(found) > 1:
        told = " | ".join(found)
        remedy = f"Receivers refuse both. Remove all and write one:\n{txt_record(domain, _with(_merged(found), addresses))}"
        return [bad("spf.single", domain, f"{len(found)} records: {told}", expected, remedy)]
    findings.append(good("spf.single", domain, "one record", expected))
    return findings + _judged(dns, domain, found[0], addresses)


def _judged(dns: Dns, domain: str, record: str, addresses: t.Sequence[str]) -> t.List[Finding]:
    try:
        costs = [cost(dns, record, domain, address) for address in addresses or [_NOBODY]]
    except Unanswered as error:
        return [unknown("spf.valid", domain, error, _EXPECTED["spf.valid"])]
    except Invalid as error:
        remedy = f"Mend this, in the record itself or in what it includes:\n{txt_record(domain, record)}"
        return [bad("spf.valid", domain, str(error), _EXPECTED["spf.valid"], remedy)]
    findings = [good("spf.valid", domain, record, _EXPECTED["spf.valid"])]
    most = max(one.lookups for one in costs)
    told = f"{most} look-ups" + (f", including {', '.join(costs[0].included)}" if costs[0].included else "")
    if most > MAXIMUM_LOOKUPS:
        remedy = (
            "Receivers stop at the 11th and refuse the record. Remove what no longer sends for you, and write addresses (ip4:, ip6:) in"
            f" place of a, mx, ptr and include until {MAXIMUM_LOOKUPS} are left. Now it is:\n{txt_record(domain, record)}"
        )
        findings.append(bad("spf.lookups", domain, told, _EXPECTED["spf.lookups"], remedy))
    else:
        findings.append(good("spf.lookups", domain, told, _EXPECTED["spf.lookups"]))
    void = max((one.void for one in costs), key=len)
    told = f"{len(void)} that find nothing" + (f": {', '.join(void)}" if void else "")
    if len(void) > MAXIMUM_VOID_LOOKUPS:
        remedy = f"Remove the terms that lead nowhere, in the record itself or in what it includes:\n{txt_record(domain, record)}"
        findings.append(bad("spf.void_lookups", domain, told, _EXPECTED["spf.void_lookups"], remedy))
    else:
        findings.append(good("spf.void_lookups", domain, told, _EXPECTED["spf.void_lookups"]))
    findings.append(_all(dns, domain, record))
    if not addresses:
        remedy = "Write addresses: those from which the smarthost hands your mail on; whoever runs it knows them."
        told = "no address is given, so nobody knows whether the record allows it"
        findings.append(unknown("spf.address", domain, told, _EXPECTED["spf.address"], remedy))
    return findings + [_address(dns, domain, record, one) for one in addresses]


def _all(dns: Dns, domain: str, record: str) -> Finding:
    expected, text, seen = _EXPECTED["spf.all"], record, [domain]
    try:
        while True:
            terms = text.split()[1:]
            last = next((one.lower() for one in terms if _ALL.fullmatch(one)), "")
            onward = next((one.partition("=")[2] for one in terms if one.lower().startswith("redirect=")), "")
            # A macro is never worth following for its end.
            if last or not onward or "%" in onward or onward.lower() in seen:
                break
            seen.append(onward.lower())
            text = next(iter(records(dns, onward)), "")
    except Unanswered as error:
        return unknown("spf.all", domain, error, expected)
    if last in ("-all", "~all") or (onward and "%" in onward):
        return good("spf.all", domain, last or f"redirect={onward}", expected)
    kept = [one for one in (text or "v=spf1").split() if not _ALL.fullmatch(one) and not one.lower().startswith("redirect=")]
    remedy = txt_record(seen[-1], " ".join([*kept, "-all"]))
    if last in ("+all", "all"):
        return bad("spf.all", domain, f"{last}: anybody may send in your name", expected, remedy)
    return bad("spf.all", domain, f"{last or 'no all'}: mail of others is not told from yours", expected, remedy, "warning")


def _address(dns: Dns, domain: str, record: str, address: str) -> Finding:
    subject, expected = f"{domain} from {address}", _EXPECTED["spf.address"]
    try:
        result = evaluate(dns, record, domain, address)
    except Unanswered as error:
        return unknown("spf.address", subject, error, expected)
    except Invalid as error:
        # Such as an include that only this address reaches.
        return bad("spf.address", subject, str(error), expected, f"Mend this:\n{txt_record(domain, record)}")
    if result == "pass":
        return good("spf.address", subject, result, expected)
    return bad("spf.address", subject, f"{result}: {record}", expected, txt_record(domain, _with(record, [address])))


def _with(record: str, addresses: t.Sequence[str]) -> str:
    """The record with addresses added in front of its all."""
    terms = record.split()
    place = next((number for number, one in enumerate(terms) if _ALL.fullmatch(one) or one.lower().startswith("redirect=")), len(terms))
    wanted = [f"ip{ipaddress.ip_address(one).version}:{one}" for one in addresses]
    return " ".join(terms[:place] + [one for one in wanted if one not in terms] + terms[place:])


def _merged(found: t.Sequence[str]) -> str:
    """One record with the terms of several, and the strictest of their alls."""
    terms = [one for record in found for one in record.split()[1:]]
    ends = [one.lower() for one in terms if _ALL.fullmatch(one)]
    end = next((one for one in ("-all", "~all") if one in ends), "-all")
    return " ".join(["v=spf1", *dict.fromkeys(one for one in terms if not _ALL.fullmatch(one)), end])
