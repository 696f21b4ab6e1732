# SPDX-License-Identifier: GPL-3.0-or-later
"""DMARC records where receivers look for them, and what aligns with them."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dmarc import check, organization, walk
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding

from tests.unit import dns_server

DEEP = "a.b.c.d.e.f.g.h.example.org"


def dmarc(**records: str) -> str:
    """Records of domains, with C(_) for the dots."""
    lines = [f'_dmarc.{name.replace("_", ".")}. IN TXT "{record}"' for name, record in records.items()]
    return "\n".join(["example.org. IN A 203.0.113.1", *lines])


def found(zone: str, domain: str = "example.org", envelope: str = "", signing: list[str] | None = None) -> list[Finding]:
    with dns_server.serving(zone, servfail={"_dmarc.broken.example"}) as server:
        return check(Dns([server]), domain, envelope or domain, [domain] if signing is None else signing)


def wrong(*arguments: str, **named: list[str]) -> list[tuple[str, str]]:
    return [(one.id, one.severity) for one in found(*arguments, **named) if not one.ok]


@pytest.mark.parametrize(
    ("zone", "domain", "places", "top"),
    [
        (dmarc(example_org="v=DMARC1; p=none"), "example.org", ["example.org"], "example.org"),
        (dmarc(example_org="v=DMARC1; p=none"), "mail.example.org", ["example.org"], "example.org"),
        (dmarc(), "mail.example.org", [], "mail.example.org"),
        (
            dmarc(example_org="v=DMARC1; p=none", mail_example_org="v=DMARC1; p=none"),
            "mail.example.org",
            ["mail.example.org", "example.org"],
            "example.org",
        ),
        # Says of itself that it is an organization of its own.
        (
            dmarc(example_org="v=DMARC1; p=none", mail_example_org="v=DMARC1; p=none; psd=n"),
            "a.mail.example.org",
            ["mail.example.org"],
            "mail.example.org",
        ),
        # A public suffix: the organization is the one below.
        (dmarc(gov_example="v=DMARC1; p=none; psd=y"), "mail.registry.gov.example", ["gov.example"], "registry.gov.example"),
        # No further than receivers look: after the name itself at seven labels.
        (dmarc(d_e_f_g_h_example_org="v=DMARC1; p=none"), DEEP, ["d.e.f.g.h.example.org"], "d.e.f.g.h.example.org"),
        (dmarc(c_d_e_f_g_h_example_org="v=DMARC1; p=none"), DEEP, [], DEEP),
    ],
)
def test_the_way_up(zone: str, domain: str, places: list[str], top: str) -> None:
    with dns_server.serving(zone) as server:
        dns = Dns([server])
        assert [one.domain for one in walk(dns, domain)] == places
        assert organization(dns, domain) == top


def test_two_records_are_none_for_those_below() -> None:
    zone = dmarc(example_org="v=DMARC1; p=none") + '\n_dmarc.example.org. IN TXT "v=DMARC1; p=reject"'
    assert wrong(zone, "mail.example.org") == [("dmarc.record", "error")]
    assert wrong(zone) == [("dmarc.single", "error")]


REPORTS = "rua=mailto:dmarc@example.org"


@pytest.mark.parametrize(
    "record",
    [
        f"v=DMARC1; p=reject; {REPORTS}",
        f"v=DMARC1;p=quarantine;{REPORTS};",
        f"v = DMARC1 ; p = Reject ; sp=none; adkim=s; aspf=s; pct=100; fo=1; rf=afrf; ri=86400; x=y; {REPORTS}!10m , mailto:b@example.org",
    ],
)
def test_good_records(record: str) -> None:
    assert wrong(dmarc(example_org=record)) == []


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (f"v=DMARC1; {REPORTS}", ("dmarc.valid", "error")),
        (f"v=DMARC1; p=block; {REPORTS}", ("dmarc.valid", "error")),
        (f"v=DMARC1; p=reject; p=none; {REPORTS}", ("dmarc.valid", "error")),
        (f"v=DMARC1; p=reject; adkim=strict; {REPORTS}", ("dmarc.valid", "error")),
        (f"v=DMARC1; p=reject; pct=101; {REPORTS}", ("dmarc.valid", "error")),
        ("v=DMARC1; p=reject; rua=dmarc@example.org", ("dmarc.valid", "error")),
        ("v=DMARC1; p=reject; rua=mailto:dmarc", ("dmarc.valid", "error")),
        (f"v=DMARC1; p=reject {REPORTS}", ("dmarc.valid", "error")),
        ("v=DMARC1; p=reject; rua=https://example.org/", ("dmarc.reports", "warning")),
        ("v=DMARC1; p=reject", ("dmarc.reports", "warning")),
        ("v=DMARC1; p=reject; rua=mailto:a@reports.example.net", ("dmarc.reports", "warning")),
        ("v=DMARC1; p=reject; rua=mailto:a@broken.example", ("dmarc.reports", "unknown")),
        (f"v=DMARC1; p=none; {REPORTS}", ("dmarc.policy", "warning")),
        (f"v=DMARC1; p=reject; pct=10; {REPORTS}", ("dmarc.policy", "warning")),
        (f"v=DMARC1; p=reject; t=y; {REPORTS}", ("dmarc.policy", "warning")),
        (f"v=DMARC1x; p=reject; {REPORTS}", ("dmarc.record", "error")),
    ],
)
def test_bad_records(record: str, expected: tuple[str, str]) -> None:
    assert wrong(dmarc(example_org=record)) == [expected]


def test_reports_elsewhere_need_consent() -> None:
    zone = dmarc(example_org="v=DMARC1; p=reject; rua=mailto:a@reports.example.net")
    (missing,) = (one for one in found(zone) if not one.ok)
    assert missing.remedy.splitlines()[-1] == 'example.org._report._dmarc.reports.example.net. IN TXT "v=DMARC1"'
    assert wrong(f"{zone}\n{missing.remedy.splitlines()[-1]}") == []


def test_a_domain_below_has_the_policy_for_such() -> None:
    zone = dmarc(example_org=f"v=DMARC1; p=reject; sp=none; {REPORTS}")
    assert wrong(zone) == []
    assert wrong(zone, "mail.example.org") == [("dmarc.policy", "warning")]


@pytest.mark.parametrize(
    ("mode", "envelope", "signing", "expected"),
    [
        ("r", "bounces.example.org", ["mail.example.org"], []),
        ("s", "bounces.example.org", ["example.org"], [("dmarc.spf_alignment", "warning")]),
        ("s", "example.org", ["mail.example.org"], [("dmarc.dkim_alignment", "warning")]),
        ("r", "example.net", ["example.org"], [("dmarc.spf_alignment", "warning")]),
        ("r", "example.net", ["example.net", "example.org"], [("dmarc.spf_alignment", "warning")]),
        ("r", "example.net", ["example.net"], [("dmarc.spf_alignment", "error"), ("dmarc.dkim_alignment", "error")]),
        ("r", "example.net", [], [("dmarc.spf_alignment", "error")]),
        ("r", "broken.example", ["example.org"], [("dmarc.spf_alignment", "unknown")]),
        # Ends in the same letters, and is somebody else's.
        ("r", "badexample.org", ["example.org"], [("dmarc.spf_alignment", "warning")]),
    ],
)
def test_alignment(mode: str, envelope: str, signing: list[str], expected: list[tuple[str, str]]) -> None:
    zone = dmarc(example_org=f"v=DMARC1; p=reject; adkim={mode}; aspf={mode}; {REPORTS}", example_net=f"v=DMARC1; p=reject; {REPORTS}")
    assert wrong(zone, "example.org", envelope, signing=signing) == expected
