# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of a domain whose mail is believed, and how to break one thing of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_dkim, _mail_proof
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, txt_record

from tests.unit import dns_server, pki

DOMAIN = "example.org"
ADDRESSES = ["203.0.113.25", "2001:db8::25"]
SELECTOR = "mail2026"
REVERSE = (
    "25.113.0.203.in-addr.arpa",
    "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
)


def good() -> dict[str, list[str]]:
    """Records by what they are; each list can be replaced, or emptied."""
    return {
        "domain": ["example.org. IN SOA ns.example.org. host.example.org. 1 3600 600 86400 60"],
        "spf": ['example.org. IN TXT "v=spf1 mx include:spf.example.net ip6:2001:db8::25 ~all"'],
        "included": ['spf.example.net. IN TXT "v=spf1 ip4:203.0.113.0/26 -all"'],
        "other text": ['example.org. IN TXT "some-verification=abc"'],
        "dkim": [txt_record(f"{SELECTOR}._domainkey.example.org", _mail_dkim.record_of(pki.rsa_key().public_key()))],
        "dmarc": ['_dmarc.example.org. IN TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@example.org"'],
        "ptr": [f"{name}. IN PTR smtp.example.org." for name in REVERSE],
        "host": ["smtp.example.org. IN A 203.0.113.25", "smtp.example.org. IN AAAA 2001:db8::25"],
        "mx": ["example.org. IN MX 10 mx.example.org."],
        "mx host": ["mx.example.org. IN A 203.0.113.80", "mx.example.org. IN AAAA 2001:db8::80"],
    }


def text(changed: Mapping[str, list[str]] | None = None) -> str:
    """A zone file."""
    records = {**good(), **(changed or {})}
    return "\n".join(record for group in records.values() for record in group)


@contextlib.contextmanager
def asking(changed: Mapping[str, list[str]] | None = None, **faults: Any) -> Iterator[Dns]:
    with dns_server.serving(text(changed), **faults) as server:
        # A busy machine is no silent server.
        yield Dns([server], timeout=1 if faults.get("silent") else 10)


def prove(dns: Dns, **changed: Any) -> list[Finding]:
    """All findings of the DNS for the good domain."""
    signers = [_mail_dkim.Signer(SELECTOR, DOMAIN, pki.rsa_key().public_key())]
    arguments: dict[str, Any] = {"domain": DOMAIN, "envelope_domain": DOMAIN, "addresses": ADDRESSES, "signers": signers, **changed}
    return _mail_proof.names(dns, **arguments)


def wrong(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.id, one.severity) for one in findings if not one.ok]
