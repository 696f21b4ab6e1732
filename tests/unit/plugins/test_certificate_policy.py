# SPDX-License-Identifier: GPL-3.0-or-later
"""What environments and products ask of a certificate: each rule refuses what it is for and nothing else."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _policy
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_policy as rules
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import CODES

AT = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
DOMAIN = "records.example.org"
KINDS = list(_policy.POLICIES)
PRODUCTION = _policy.POLICIES["production"]


def info(**changes):
    """A good certificate, as describe() tells of one."""
    good = {
        "subject": f"CN={DOMAIN}",
        "serial": "4f01",
        "issuer": "CN=Issuing 1,O=Authority",
        "names": [DOMAIN],
        "not_before": "2026-10-01T00:00:00Z",
        "not_after": "2027-04-01T00:00:00Z",
        "key_type": "ec",
        "key_bits": 256,
        "curve": "secp256r1",
    }
    return {**good, **changes}


def judge(kind="production", product="demo", domain=DOMAIN, names=(), at=AT, private=False, **changes):
    policy = _policy.POLICIES[kind]
    return rules.check_certificate_policy(policy, product, info(**changes), domain, names, at, private)


def codes(*arguments, **keywords):
    return [found.code for found in judge(*arguments, **keywords)]


def lasting(begin, days):
    start = datetime.datetime.fromisoformat(f"{begin}T00:00:00+00:00")
    return {"not_before": start.isoformat(), "not_after": (start + datetime.timedelta(days=days)).isoformat()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_certificate_is_taken_everywhere(kind):
    assert judge(kind) == []


@pytest.mark.parametrize("kind", KINDS)
def test_lets_encrypt(kind):
    allowed = kind in ("staging", "qa", "development")
    assert codes(kind, issuer="CN=R11,O=Let's Encrypt,C=US") == ([] if allowed else ["policy_lets_encrypt"])
    # A cross-signed chain: the leaf's issuer is a company of its own name.
    chain = [{"issuer": "CN=X,O=Company"}, {"issuer": "CN=(STAGING) Pretend Pear,O=(STAGING) Let's Encrypt"}]
    assert codes(kind, chain=chain) == ([] if allowed else ["policy_lets_encrypt"])


def certificate_names(*names):
    return {**info(), "names": list(names)}


def with_names(kind, product, names, domain=DOMAIN):
    policy = _policy.POLICIES[kind]
    return rules.check_certificate_policy(policy, product, certificate_names(*names), domain, (), AT)


@pytest.mark.parametrize("kind", KINDS)
def test_wildcards(kind):
    found = with_names(kind, "demo", ["*.example.org", DOMAIN])
    if kind in ("staging", "qa", "development"):
        assert found == []
    else:
        assert [one.code for one in found] == ["policy_wildcard"]
        assert "*.example.org" in found[0].message and f"'{kind}'" in found[0].message
        assert found[0].certificate == f"leaf CN={DOMAIN}, serial 4f01"


@pytest.mark.parametrize("kind", ["production", "qa"])
def test_pryv_needs_its_wildcard(kind):
    assert with_names(kind, "pryv", ["*.pryv.example.org", "pryv.example.org"], "pryv.example.org") == []
    # Advised only.
    assert with_names(kind, "pryv", ["*.pryv.example.org"], "pryv.example.org") == []
    (found,) = with_names(kind, "pryv", ["reg.pryv.example.org", "co1.pryv.example.org", "pryv.example.org"], "pryv.example.org")
    assert found.code == "policy_wildcard_needed"
    assert "It lists reg.pryv.example.org, co1.pryv.example.org in place of *.pryv.example.org; every user gets a name" in found.message
    (found,) = with_names(kind, "pryv", ["other.example.net"], "pryv.example.org")
    assert found.message.startswith("It does not hold *.pryv.example.org; ")


def test_pryv_is_no_licence_for_other_wildcards():
    found = with_names("production", "pryv", ["*.pryv.example.org", "*.example.org"], "pryv.example.org")
    assert [one.code for one in found] == ["policy_wildcard"]
    assert found[0].message.startswith("It holds *.example.org, ")
    assert [one.code for one in with_names("production", "pryv", ["*.example.org"], "pryv.example.org")] == [
        "policy_wildcard_needed",
        "policy_wildcard",
    ]


@pytest.mark.parametrize("name", ["primero.org", "ministry.primero.org", "*.primero.org", "*.PRIMERO.org"])
def test_the_vendors_names(name):
    found = [one for one in with_names("qa", "demo", [DOMAIN, name]) if one.code == "policy_vendor_domain"]
    assert len(found) == 1 and found[0].message.startswith(f"{name.lower()} is below primero.org")
    assert codes(domain="ministry.primero.org") == ["policy_vendor_domain"]
    assert codes(names=["ministry.primero.org"]) == ["policy_vendor_domain"]


@pytest.mark.parametrize("name", ["myprimero.org", "primero.org.ke", "primero.example.org"])
def test_only_the_vendors_names(name):
    assert with_names("production", "demo", [name], name) == []


@pytest.mark.parametrize(
    ("kind", "days", "refused"),
    [
        ("production", 30, False),
        ("production", 29, True),
        ("production", 0, True),
        ("staging", 14, False),
        ("staging", 13, True),
        ("qa", 7, False),
        ("qa", 6, True),
        ("development", 1, False),
        ("development", 0, True),
        # It has ended, which the judge of the chain tells.
        ("production", -1, False),
    ],
)
def test_days_left(kind, days, refused):
    end = AT + datetime.timedelta(days=days)
    begin = end - datetime.timedelta(days=180)
    assert codes(kind, not_before=begin.isoformat(), not_after=end.isoformat()) == (["policy_days_left"] if refused else [])


def test_days_left_are_told():
    (found,) = judge(not_before="2026-06-01T00:00:00Z", not_after="2026-12-01T00:00:00Z")
    assert found.message == "It ends on 2026-12-01, in 9 days; 'production' takes one that lasts 30 days or more."


@pytest.mark.parametrize(
    ("days", "private", "refused"),
    [(398, False, False), (399, False, True), (825, True, False), (826, True, True), (730, False, True), (730, True, False)],
)
def test_lifetime(days, private, refused):
    assert codes(private=private, **lasting("2026-11-01", days)) == (["policy_lifetime"] if refused else [])


@pytest.mark.parametrize(
    ("kind", "bits", "curve", "refused"),
    [
        ("rsa", 2048, None, False),
        ("rsa", 4096, None, False),
        ("rsa", 2047, None, True),
        ("rsa", 1024, None, True),
        ("ec", 256, "secp256r1", False),
        ("ec", 384, "secp384r1", False),
        ("ec", 521, "secp521r1", True),
        ("ec", 256, "secp256k1", True),
        ("ed25519", 256, None, True),
        ("ed448", 448, None, True),
        ("dsa", 2048, None, True),
        ("other", None, None, True),
    ],
)
def test_key_types(kind, bits, curve, refused):
    assert codes("qa", key_type=kind, key_bits=bits, curve=curve) == (["policy_key_type"] if refused else [])


def test_several_reasons_at_once():
    found = codes(issuer="O=Let's Encrypt", key_type="ed25519", curve=None, **lasting("2025-01-01", 700))
    assert found == ["policy_lets_encrypt", "policy_days_left", "policy_lifetime", "policy_key_type"]


@pytest.mark.parametrize(
    ("kind", "source", "directory", "code"),
    [
        ("production", "internal", "", "policy_internal_ca"),
        ("staging", "internal", "", "policy_internal_ca"),
        ("qa", "internal", "", None),
        ("development", "internal", "", None),
        ("production", "delivered", "", None),
        ("production", "acme", "https://acme-v02.api.letsencrypt.org/directory", "policy_lets_encrypt"),
        ("production", "acme", "https://ACME-V02.API.LETSENCRYPT.ORG./directory", "policy_lets_encrypt"),
        ("staging", "acme", "https://acme-v02.api.letsencrypt.org/directory", None),
        ("production", "acme", "https://acme.example.org/letsencrypt.org", None),
        ("production", "acme", "https://notletsencrypt.org/directory", None),
    ],
)
def test_sources(kind, source, directory, code):
    found = rules.check_source_policy(_policy.POLICIES[kind], source, directory)
    assert [one.code for one in found] == ([code] if code else [])


@pytest.mark.parametrize(
    ("begin", "days", "limit"),
    [
        ("2026-03-14", 398, None),
        ("2026-03-15", 200, None),
        ("2026-03-15", 201, 200),
        ("2027-03-14", 200, None),
        ("2027-03-15", 100, None),
        ("2027-03-15", 101, 100),
        ("2029-03-14", 100, None),
        ("2029-03-15", 47, None),
        ("2029-03-15", 48, 47),
    ],
)
def test_the_schedule_of_public_authorities_goes_by_the_day_of_issue(begin, days, limit):
    one = info(**lasting(begin, days))
    advice = rules.certificate_advice("demo", one, DOMAIN)
    assert len(advice) == (1 if limit else 0)
    assert not limit or f"may give {limit} since its day of issue, {begin}" in advice[0]
    assert rules.certificate_advice("demo", one, DOMAIN, private=True) == []


def test_other_advice():
    assert rules.certificate_advice("demo", info(**lasting("2026-10-01", 180)), DOMAIN) == []
    pryv = {**certificate_names("*.pryv.example.org"), **lasting("2026-10-01", 180)}
    (told,) = rules.certificate_advice("pryv", pryv, "pryv.example.org")
    assert told.startswith("The certificate does not hold pryv.example.org itself")
    pryv["names"].append("pryv.example.org")
    assert rules.certificate_advice("pryv", pryv, "pryv.example.org") == []
    (told,) = rules.certificate_advice("demo", info(**lasting("2026-10-01", 180), must_staple=True), DOMAIN)
    assert "OCSP stapling" in told


def test_names_to_serve():
    assert rules.names_to_serve("demo", "a.org", ["b.org"]) == ["a.org", "b.org"]
    assert rules.names_to_serve("pryv", "a.org", ["b.org"]) == ["b.org"]


def test_a_waiver_sets_aside_its_own_rule_only():
    problems = judge(issuer="O=Let's Encrypt", key_type="ed25519", curve=None, **lasting("2025-01-01", 700))
    for rule in _policy.WAIVABLE:
        waiver = _policy.Waiver(rule, "For the test.", AT.date())
        stand, waived = rules.waive(problems, [waiver])
        assert sorted(stand + waived) == sorted(problems)
        assert [one.code for one in waived] == [one.code for one in problems if one.code == f"policy_{rule}"]
    everything = [_policy.Waiver(rule, "For the test.", AT.date()) for rule in _policy.WAIVABLE]
    stand, _waived = rules.waive(problems, everything)
    assert [one.code for one in stand] == ["policy_key_type"]
    assert rules.waive(problems, []) == (problems, [])


def test_every_waivable_rule_belongs_to_a_code():
    assert set(rules._WAIVED_BY) <= set(CODES)
