# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges DMARC (RFC 9989, which follows RFC 7489): the policy that receivers find, and whether SPF and DKIM vouch for the From domain.

The organizational domain is found by walking up the DNS tree, so that no list of public suffixes is needed.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dkim import tags
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns, Unanswered
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, bad, good, txt_record, unknown

_RECORD = re.compile(r"v\s*=\s*DMARC1\s*(?:;|$)")
_POLICIES = ("none", "quarantine", "reject")
_CHOICES = {
    "p": _POLICIES, "sp": _POLICIES, "np": _POLICIES, "adkim": ("r", "s"), "aspf": ("r", "s"), "t": ("y", "n"), "psd": ("y", "n", "u"),
}  # fmt: skip
# Mail is the one way of reporting that receivers know.
_MAIL = re.compile(r"mailto:([^@\s,!]+)@([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?:![0-9]+[kmgt]?)?", re.IGNORECASE)
# With more labels the walk goes on at this many.
_LABELS = 7

_EXPECTED = {
    "dmarc.record": "a TXT record that begins with v=DMARC1, of the domain or of the one above it",
    "dmarc.single": "one record",
    "dmarc.valid": "tags as RFC 9989 has them, with p=none, p=quarantine or p=reject",
    "dmarc.policy": "p=quarantine or p=reject for all mail",
    "dmarc.reports": "rua=mailto:..., an address that takes reports",
    "dmarc.spf_alignment": "the domain of the return address fits that of From",
    "dmarc.dkim_alignment": "the domain of the signature (d=) fits that of From",
}


class Found(t.NamedTuple):
    """A domain with exactly one DMARC record."""

    domain: str
    record: str


def records(dns: Dns, domain: str) -> t.List[str]:
    """The DMARC records at a domain, as they stand. Raises C(Unanswered)."""
    return [text for text in dns.text(f"_dmarc.{domain}") if _RECORD.match(text)]


def walk(dns: Dns, domain: str) -> t.List[Found]:
    """The domain and those above it that have a DMARC record, upwards as far as receivers look. Raises C(Unanswered)."""
    labels = domain.split(".")
    above = labels[-_LABELS:] if len(labels) > _LABELS else labels[1:]
    found = []
    for name in [domain, *(".".join(above[place:]) for place in range(len(above)))]:
        here = records(dns, name)
        # Several are none, as receivers see it.
        if len(here) == 1:
            found.append(Found(name, here[0]))
            if _public(here[0]) == "n" or (_public(here[0]) == "y" and name != domain):
                break
    return found


def organization(dns: Dns, domain: str) -> str:
    """The organizational domain; the domain itself when there is no record anywhere. Raises C(Unanswered)."""
    found = walk(dns, domain)
    if not found:
        return domain
    top = found[-1]
    if _public(top.record) == "y" and top.domain != domain:
        # The one below a public suffix.
        return ".".join(domain.split(".")[-len(top.domain.split(".")) - 1 :])
    return top.domain


def check(dns: Dns, domain: str, envelope_domain: str, signing_domains: t.Sequence[str]) -> t.List[Finding]:
    """All findings for a From domain.

    Args:
        envelope_domain: the domain of the return address, which SPF is for.
        signing_domains: those that sign with DKIM; nothing is said of DKIM when there is none.
    """
    suggested = txt_record(f"_dmarc.{domain}", f"v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}")
    try:
        own = records(dns, domain)
        if len(own) > 1:
            told, remedy = f"{len(own)} records: {' | '.join(own)}", f"Receivers ignore all of them. Remove all but one:\n{suggested}"
            return [bad("dmarc.single", f"_dmarc.{domain}", told, _EXPECTED["dmarc.single"], remedy)]
        top = organization(dns, domain)
        found = Found(domain, own[0]) if own else next((one for one in walk(dns, domain) if one.domain == top), None)
    except Unanswered as error:
        return [unknown("dmarc.record", domain, error, _EXPECTED["dmarc.record"])]
    if not found:
        return [bad("dmarc.record", domain, "no DMARC record", _EXPECTED["dmarc.record"], suggested)]
    name = f"_dmarc.{found.domain}"
    findings = [
        good("dmarc.record", name, found.record, _EXPECTED["dmarc.record"]),
        good("dmarc.single", name, "one record", _EXPECTED["dmarc.single"]),
    ]
    try:
        parts = tags(found.record)
        _check_tags(parts)
    except ValueError as error:
        return [*findings, bad("dmarc.valid", name, f"{error}: {found.record}", _EXPECTED["dmarc.valid"], suggested)]
    findings.append(good("dmarc.valid", name, found.record, _EXPECTED["dmarc.valid"]))
    findings += [_policy(found, parts, domain), _reports(dns, found, parts, top)]
    return findings + _alignment(dns, domain, top, parts, envelope_domain, signing_domains)


def _public(record: str) -> str:
    try:
        return tags(record).get("psd", "u").lower()
    except ValueError:
        return "u"


def _check_tags(parts: t.Mapping[str, str]) -> None:
    for name, choices in _CHOICES.items():
        if name in parts and parts[name].lower() not in choices:
            raise ValueError(f"{name}={parts[name]} is none of {', '.join(choices)}")
    if "p" not in parts:
        raise ValueError("there is no p=")
    if "pct" in parts and not re.fullmatch(r"100|[1-9]?[0-9]", parts["pct"]):
        raise ValueError(f"pct={parts['pct']} is no number from 0 to 100")
    for name in ("rua", "ruf"):
        for uri in _uris(parts, name):
            if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri) or (uri.lower().startswith("mailto:") and not _MAIL.fullmatch(uri)):
                raise ValueError(f"{name}={uri} is no address such as mailto:reports@example.org")


def _uris(parts: t.Mapping[str, str], name: str) -> t.List[str]:
    return [one.strip() for one in parts[name].split(",")] if name in parts else []


def _policy(found: Found, parts: t.Mapping[str, str], domain: str) -> Finding:
    name, expected = f"_dmarc.{found.domain}", _EXPECTED["dmarc.policy"]
    tag = "sp" if found.domain != domain and "sp" in parts else "p"
    policy = parts[tag].lower()
    weak = [f"{tag}={policy}"] if policy == "none" else []
    weak += ["t=y"] if parts.get("t", "n").lower() == "y" else []
    weak += [f"pct={parts['pct']}"] if parts.get("pct", "100") != "100" else []
    if not weak:
        return good("dmarc.policy", name, f"{tag}={policy}", expected)
    strict = {**parts, **({tag: "quarantine"} if policy == "none" else {})}
    record = "; ".join(f"{key}={value}" for key, value in strict.items() if key not in ("t", "pct"))
    remedy = f"When the reports show that your own mail passes, write:\n{txt_record(name, record)}"
    return bad("dmarc.policy", name, f"{', '.join(weak)}: mail of others in your name is let through", expected, remedy, "warning")


def _reports(dns: Dns, found: Found, parts: t.Mapping[str, str], top: str) -> Finding:
    name, expected = f"_dmarc.{found.domain}", _EXPECTED["dmarc.reports"]
    addresses = [mail for mail in (_MAIL.fullmatch(uri) for uri in _uris(parts, "rua")) if mail]
    if not addresses:
        remedy = txt_record(name, f"{found.record.rstrip('; ')}; rua=mailto:postmaster@{found.domain}")
        return bad("dmarc.reports", name, parts.get("rua", "no rua="), expected, remedy, "warning")
    for mail in addresses:
        other = mail[2].lower()
        asked = f"{found.domain}._report._dmarc.{other}"
        try:
            # Who takes reports of other organizations has to say so.
            if other == top or organization(dns, other) == top or any(_RECORD.match(one) for one in dns.text(asked)):
                continue
        except Unanswered as error:
            return unknown("dmarc.reports", name, error, expected)
        remedy = f"Whoever runs {other} writes:\n{txt_record(asked, 'v=DMARC1')}"
        return bad(
            "dmarc.reports", name, f"{other} does not say that it takes these reports, so none are sent", expected, remedy, "warning"
        )
    return good("dmarc.reports", name, parts["rua"], expected)


def _alignment(
    dns: Dns, domain: str, top: str, parts: t.Mapping[str, str], envelope_domain: str, signing_domains: t.Sequence[str]
) -> t.List[Finding]:
    asked = [("dmarc.spf_alignment", [envelope_domain], parts.get("aspf", "r").lower())]
    asked += [("dmarc.dkim_alignment", list(signing_domains), parts.get("adkim", "r").lower())] if signing_domains else []
    judged: t.List[t.Tuple[str, str, t.Optional[bool]]] = []
    for id, domains, mode in asked:
        told = f"{' and '.join(dict.fromkeys(domains))}, {'strict' if mode == 's' else 'relaxed'}"
        try:
            fits = any(one == domain or (mode == "r" and organization(dns, one) == top) for one in domains)
            judged.append((id, told, fits))
        except Unanswered as error:
            judged.append((id, str(error), None))
    # One of the two that fits is enough for DMARC to pass; while the other does not, a forwarded message or a broken key loses mail.
    severity = "warning" if any(one[2] for one in judged) else "error"
    findings = []
    for id, told, fitting in judged:
        if fitting is None:
            findings.append(unknown(id, domain, told, _EXPECTED[id]))
        elif fitting:
            findings.append(good(id, domain, told, _EXPECTED[id]))
        else:
            what = "Use a return address of" if id == "dmarc.spf_alignment" else "Sign (d=) as"
            findings.append(bad(id, domain, told, _EXPECTED[id], f"{what} {domain}.", severity))
    return findings
