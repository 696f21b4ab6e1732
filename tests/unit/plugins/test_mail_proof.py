# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault that mail can have in the DNS is named, each asked of a real server, and nothing is named for a domain that has none."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_dkim, _mail_proof
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import txt_record

from tests.unit import mail_zone, pki
from tests.unit.mail_zone import SELECTOR, asking, prove, wrong

DKIM = f"{SELECTOR}._domainkey.example.org"


def spf(record: str) -> dict[str, list[str]]:
    return {"spf": [f'example.org. IN TXT "{record}"']}


def test_a_good_domain_has_no_finding_and_every_check_was_made() -> None:
    with asking() as dns:
        findings = prove(dns)
    assert wrong(findings) == []
    assert {one.id for one in findings} == {
        "domain.exists",
        *(f"spf.{name}" for name in ("record", "single", "valid", "lookups", "void_lookups", "all", "address")),
        *(f"dkim.{name}" for name in ("record", "single", "valid", "revoked", "strength", "use", "match")),
        *(f"dmarc.{name}" for name in ("record", "single", "valid", "policy", "reports", "spf_alignment", "dkim_alignment")),
        *("address.public", "ptr.record", "ptr.confirmed", "ptr.generic", "mx.record", "mx.address"),
    }
    assert all(one.found and one.expected and not one.remedy for one in findings)


MANY = " ".join(f"a:h{number}.example.org" for number in range(10))
HOSTS = {
    "h": [f"h{number}.example.org. IN {kind}" for number in range(10) for kind in ("A 198.51.100.1", "AAAA 2001:db8::1")],
}
CASES: list[Any] = [
    pytest.param({"spf": []}, {}, [("spf.record", "error")], "no SPF record", id="SPF missing"),
    pytest.param(
        {"spf": ['example.org. IN TXT "v=spf1 mx -all"', 'example.org. IN TXT "v=spf1 ip4:203.0.113.25 ~all"']},
        {}, [("spf.single", "error")], "2 records", id="two SPF records",
    ),
    pytest.param(
        {**HOSTS, **spf(f"v=spf1 include:spf.example.net ip6:2001:db8::25 {MANY} ~all")},
        {}, [("spf.lookups", "error")], "11 look-ups, including spf.example.net", id="more than 10 look-ups",
    ),
    pytest.param(
        {**HOSTS, **spf("v=spf1 include:spf.example.net a:smtp.example.org ~all"),
         "included": [f'spf.example.net. IN TXT "v=spf1 {MANY} -all"']},
        {}, [("spf.lookups", "error")], "12 look-ups", id="more than 10 look-ups, nested",
    ),
    pytest.param(
        spf("v=spf1 a:no1.example.org a:no2.example.org a:no3.example.org ip4:203.0.113.25 ip6:2001:db8::25 -all"),
        {}, [("spf.void_lookups", "error")], "3 that find nothing: A no1.example.org", id="more than 2 void look-ups",
    ),
    pytest.param(spf("v=spf1 ipv4:203.0.113.25 -all"), {}, [("spf.valid", "error")], "ipv4", id="SPF with a wrong term"),
    pytest.param({"included": []}, {}, [("spf.valid", "error")], "spf.example.net", id="SPF includes what is not there"),
    pytest.param(spf("v=spf1 include:example.org -all"), {}, [("spf.valid", "error")], "recursion", id="SPF includes itself"),
    pytest.param(
        {**spf("v=spf1 include:spf.example.net -all"), "included": ['spf.example.net. IN TXT "v=spf1 include:example.org -all"']},
        {}, [("spf.valid", "error")], "circle", id="SPF includes in a circle",
    ),
    pytest.param(spf("v=spf1 ip4:203.0.113.25 ip6:2001:db8::25"), {}, [("spf.all", "warning")], "no all", id="SPF without an end"),
    pytest.param(spf("v=spf1 ip4:203.0.113.25 ip6:2001:db8::25 ?all"), {}, [("spf.all", "warning")], "?all", id="SPF that ends neutral"),
    pytest.param(spf("v=spf1 +all"), {}, [("spf.all", "error")], "anybody", id="SPF lets everybody"),
    pytest.param(
        spf("v=spf1 ip4:203.0.113.25 -all"), {}, [("spf.address", "error")], "fail: v=spf1", id="SPF leaves out the IPv6 address"
    ),
    pytest.param({"dkim": []}, {}, [("dkim.record", "error")], "no TXT record", id="DKIM missing"),
    pytest.param(
        {"dkim": [txt_record(DKIM, _mail_dkim.record_of(pki.rsa_key(2048, 1).public_key()))]},
        {}, [("dkim.match", "error")], "another key", id="DKIM key mismatch",
    ),
    pytest.param({"dkim": [f'{DKIM}. IN TXT "v=DKIM1; p="']}, {}, [("dkim.revoked", "error")], "revoked", id="DKIM revoked"),
    pytest.param({"dkim": [f'{DKIM}. IN TXT "v=DKIM1; p=!"']}, {}, [("dkim.valid", "error")], "base64", id="DKIM unreadable"),
    pytest.param({"dmarc": []}, {}, [("dmarc.record", "error")], "no DMARC record", id="DMARC none"),
    pytest.param(
        {"dmarc": ['_dmarc.example.org. IN TXT "v=DMARC1; p=none; rua=mailto:a@example.org"']},
        {}, [("dmarc.policy", "warning")], "p=none", id="DMARC with the policy none",
    ),
    pytest.param(
        {"dmarc": ['_dmarc.example.org. IN TXT "v=DMARC1; p=reject"', '_dmarc.example.org. IN TXT "v=DMARC1; p=none"']},
        {}, [("dmarc.single", "error")], "2 records", id="two DMARC records",
    ),
    pytest.param(
        {"dmarc": ['_dmarc.example.org. IN TXT "v=DMARC1; p=block"']},
        {}, [("dmarc.valid", "error")], "p=block", id="DMARC with a wrong policy",
    ),
    pytest.param({"ptr": []}, {}, [("ptr.record", "error")] * 2, "no PTR record", id="no PTR"),
    pytest.param(
        {"ptr": [f"{name}. IN PTR mx.example.org." for name in mail_zone.REVERSE]},
        {}, [("ptr.confirmed", "error")] * 2, "mx.example.org leads elsewhere", id="PTR not confirmed",
    ),
    pytest.param({"mx": [], **spf("v=spf1 ip4:203.0.113.25 ip6:2001:db8::25 -all")}, {}, [("mx.record", "error")], "no MX", id="no MX"),
    pytest.param({"mx": ["example.org. IN MX 0 ."], **spf("v=spf1 ip4:203.0.113.25 ip6:2001:db8::25 -all")}, {},
                 [("mx.record", "error")], "takes no mail", id="null MX"),
    pytest.param({name: [] for name in mail_zone.good() if name not in ("ptr", "host", "included")} | {"host": []}, {},
                 [("domain.exists", "error"), ("ptr.confirmed", "error"), ("ptr.confirmed", "error")], "NXDOMAIN", id="NXDOMAIN"),
    pytest.param({}, {"servfail": {"TXT example.org"}}, [("spf.record", "unknown")], "says SERVFAIL", id="SERVFAIL of SPF"),
    pytest.param({}, {"servfail": {"spf.example.net"}}, [("spf.valid", "unknown")], "says SERVFAIL", id="SERVFAIL of an included SPF"),
    pytest.param({}, {"servfail": {DKIM}}, [("dkim.record", "unknown")], "says SERVFAIL", id="SERVFAIL of DKIM"),
    pytest.param({}, {"servfail": {"_dmarc.example.org"}}, [("dmarc.record", "unknown")], "says SERVFAIL", id="SERVFAIL of DMARC"),
    pytest.param({}, {"servfail": set(mail_zone.REVERSE)}, [("ptr.record", "unknown")] * 2, "says SERVFAIL", id="SERVFAIL of PTR"),
    pytest.param({}, {"servfail": {"SOA example.org"}}, [("domain.exists", "unknown")], "says SERVFAIL", id="SERVFAIL of the domain"),
    pytest.param({}, {"silent": {DKIM}}, [("dkim.record", "unknown")], "no answer within", id="silence"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "faults", "expected", "told"), CASES)
def test_each_fault_is_named(changed: dict[str, list[str]], faults: dict[str, Any], expected: list[tuple[str, str]], told: str) -> None:
    with asking(changed, **faults) as dns:
        findings = prove(dns)
    assert wrong(findings) == expected
    first = next(one for one in findings if not one.ok)
    assert told in first.found
    assert first.remedy


@pytest.mark.parametrize(
    ("changed", "record"),
    [
        ({"spf": []}, 'example.org. IN TXT "v=spf1 ip4:203.0.113.25 ip6:2001:db8::25 -all"'),
        (spf("v=spf1 mx ip4:203.0.113.25 -all"), 'example.org. IN TXT "v=spf1 mx ip4:203.0.113.25 ip6:2001:db8::25 -all"'),
        ({"dmarc": []}, '_dmarc.example.org. IN TXT "v=DMARC1; p=quarantine; rua=mailto:postmaster@example.org"'),
        ({"dkim": []}, mail_zone.good()["dkim"][0]),
        ({"dmarc": ['_dmarc.example.org. IN TXT "v=DMARC1; p=none; pct=50; rua=mailto:a@example.org"']},
         '_dmarc.example.org. IN TXT "v=DMARC1; p=quarantine; rua=mailto:a@example.org"'),
        ({"spf": ['example.org. IN TXT "v=spf1 mx -all"', 'example.org. IN TXT "v=spf1 mx a:smtp.example.org ~all"']},
         'example.org. IN TXT "v=spf1 mx a:smtp.example.org ip4:203.0.113.25 ip6:2001:db8::25 -all"'),
    ],
    ids=["SPF missing", "SPF leaves out an address", "DMARC none", "DKIM missing", "DMARC with the policy none", "two SPF records"],
)  # fmt: skip
def test_the_record_that_is_told_mends_it(changed: dict[str, list[str]], record: str) -> None:
    with asking(changed) as dns:
        remedy = next(one for one in prove(dns) if not one.ok).remedy
    assert record in remedy.splitlines()
    with asking({**changed, ("spf" if "spf" in changed else next(iter(changed))): [record]}) as dns:
        assert wrong(prove(dns)) == []


def test_what_was_not_said_is_unknown_and_not_good() -> None:
    with asking() as dns:
        findings = prove(dns, addresses=[], signers=[])
    assert wrong(findings) == [("spf.address", "unknown"), ("dkim.record", "unknown")]


def smarthost(**seen: Any) -> list[tuple[str, str]]:
    usual = {"protocol": "TLSv1.3", "cipher": "X", "verify_error": "", "not_after": 0, "error": "", "error_kind": ""}
    return wrong(_mail_proof.smarthost("smtp.example.net:587", {**usual, **seen}))


def test_what_a_host_saw_of_its_smarthost() -> None:
    assert smarthost() == []
    assert smarthost(error="x", error_kind="no_tls") == [("tls.offered", "error")]
    assert smarthost(error="x", error_kind="unreachable") == [("tls.reached", "error")]
    assert smarthost(error="x", error_kind="unusable") == [("tls.reached", "unknown")]
    assert smarthost(verify_error="expired") == [("tls.verified", "error")]
    assert smarthost(protocol="TLSv1") == [("tls.protocol", "error")]
    assert smarthost(protocol="", verify_error="x") == [("tls.verified", "error"), ("tls.protocol", "error")]
