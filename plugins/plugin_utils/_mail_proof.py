# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof that mail of a domain is believed: asks the DNS, judges what a host saw of its smarthost, follows a message to its mailbox.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_box, _mail_dkim, _mail_dmarc, _mail_dns, _mail_names, _mail_spf
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, bad, good, unknown

# What must be installed where this runs: the first library that is not, and how to get all of them.
MISSING = _mail_dns.MISSING or _mail_spf.MISSING or _mail_dkim.MISSING
INSTALL = "pip install 'dnspython>=2.6' 'pyspf>=2.0.14' 'cryptography>=45'"

_EXPECTED = {
    "tls.reached": "the smarthost answers this host",
    "tls.offered": "TLS",
    "tls.verified": "a certificate that verifies for the smarthost's name",
    "tls.protocol": "TLS 1.2 or newer",
    "delivery.taken": "the host's relay takes the message",
    "delivery.mailbox": "the mailbox can be read",
    "delivery.arrived": "the message arrives",
    "delivery.inbox": "it arrives in the inbox",
    "delivery.spf": "the mailbox's server says spf=pass",
    "delivery.dkim": "the mailbox's server says dkim=pass",
    "delivery.dmarc": "the mailbox's server says dmarc=pass",
}


def names(
    dns: _mail_dns.Dns, domain: str, envelope_domain: str, addresses: t.Sequence[str], signers: t.Sequence[_mail_dkim.Signer]
) -> t.List[Finding]:
    """All that the DNS can prove.

    Args:
        domain: that of the From address.
        envelope_domain: that of the return address.
        addresses: those that mail is sent from, normal.
        signers: the DKIM keys.
    """
    findings = [_mail_names.exists(dns, one) for one in dict.fromkeys([domain, envelope_domain, *(one.domain for one in signers)])]
    there = {one.subject for one in findings if one.ok}
    if envelope_domain in there:
        findings += _mail_spf.check(dns, envelope_domain, addresses)
    for signer in signers:
        if signer.domain in there:
            findings += _mail_dkim.check(dns, signer)
    if not signers:
        told = "no selector is given, and the DNS does not tell them"
        remedy = "Write the selector that signs; s= in the DKIM-Signature of any message has it. Who signs nothing starts to."
        findings.append(unknown("dkim.record", domain, told, "a TXT record with the public key", remedy))
    if domain in there:
        findings += _mail_dmarc.check(dns, domain, envelope_domain, [one.domain for one in signers])
    for address in addresses:
        findings += _mail_names.check_address(dns, address)
    if envelope_domain in there:
        findings += _mail_names.check_return(dns, envelope_domain)
    return findings


def smarthost(place: str, seen: t.Mapping[str, t.Any]) -> t.List[Finding]:
    """What a host saw of its smarthost, as C(_mail_probe.look) tells it.

    Args:
        place: the smarthost's name and port.
    """
    reached = good("tls.reached", place, "it answers", _EXPECTED["tls.reached"])
    if seen["error_kind"] == "no_tls":
        remedy = "Mail would go in clear, so it must not go. Ask those who run the smarthost for TLS; on port 465 write tls: tls."
        return [reached, bad("tls.offered", place, seen["error"], _EXPECTED["tls.offered"], remedy)]
    if seen["error_kind"] == "unusable":
        return [unknown("tls.reached", place, seen["error"], _EXPECTED["tls.reached"], "Mend what is said, on this host.")]
    if seen["error"]:
        remedy = "Look at the name, the port, and the firewalls between this host and the smarthost."
        return [bad("tls.reached", place, seen["error"], _EXPECTED["tls.reached"], remedy)]
    findings = [reached, good("tls.offered", place, seen["cipher"] or "TLS", _EXPECTED["tls.offered"])]
    if seen["verify_error"]:
        remedy = (
            "Ask those who run the smarthost for another certificate, or write the ca_file that it is verified by, or the tls_name that it"
            " is for. certificate_info tells more."
        )
        findings.append(bad("tls.verified", place, seen["verify_error"], _EXPECTED["tls.verified"], remedy))
    else:
        until = time.strftime("%Y-%m-%d", time.gmtime(seen["not_after"]))
        findings.append(good("tls.verified", place, f"verified, until {until}", _EXPECTED["tls.verified"]))
    if seen["protocol"] in ("TLSv1.2", "TLSv1.3"):
        return [*findings, good("tls.protocol", place, seen["protocol"], _EXPECTED["tls.protocol"])]
    remedy = "Ask those who run the smarthost to update it; mail waits until then."
    return [*findings, bad("tls.protocol", place, seen["protocol"] or "none agreed on", _EXPECTED["tls.protocol"], remedy)]


def taken(recipient: str, error: str) -> Finding:
    """Whether the host's relay took the message."""
    expected = _EXPECTED["delivery.taken"]
    if not error:
        return good("delivery.taken", recipient, "taken", expected)
    return bad("delivery.taken", recipient, error, expected, "See 'journalctl -u \"postfix*\"' on the host, and whether its relay runs.")


def unread(recipient: str, error: str) -> Finding:
    """A mailbox that nobody can look into proves nothing."""
    return unknown("delivery.mailbox", recipient, error, _EXPECTED["delivery.mailbox"], "Mend the mailbox's server, user or password.")


def arrived(recipient: str, found: t.Optional[_mail_box.Arrived], inbox: str, waited: float) -> t.List[Finding]:
    """What became of the message.

    Args:
        found: V(None) when it did not arrive.
        inbox: the folder in which it should be.
        waited: seconds.
    """
    if not found:
        remedy = "See on the host what waits and why ('postqueue -p'), then the log of the smarthost, then whether a filter took it away."
        return [bad("delivery.arrived", recipient, f"not there after {waited:.0f} s", _EXPECTED["delivery.arrived"], remedy)]
    findings = [good("delivery.arrived", recipient, f"there after {waited:.0f} s", _EXPECTED["delivery.arrived"])]
    if found.folder == inbox:
        findings.append(good("delivery.inbox", recipient, found.folder, _EXPECTED["delivery.inbox"]))
    else:
        remedy = "Mend the other findings first; then ask those who run the mailbox why."
        findings.append(bad("delivery.inbox", recipient, f"taken for spam: {found.folder}", _EXPECTED["delivery.inbox"], remedy))
    told = _mail_box.results(found.headers)
    for method in _mail_box.METHODS:
        id = f"delivery.{method}"
        if method not in told:
            remedy = "This server tells nothing; look with a mailbox at another provider."
            findings.append(unknown(id, recipient, f"no Authentication-Results for {method}", _EXPECTED[id], remedy))
        elif told[method] == "pass":
            findings.append(good(id, recipient, "pass", _EXPECTED[id]))
        else:
            remedy = f"Mend the {method} findings; when there are none, the message went another way than was said (addresses, selectors)."
            findings.append(bad(id, recipient, f"{method}={told[method]}", _EXPECTED[id], remedy))
    return findings
