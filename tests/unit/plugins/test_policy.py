# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the kinds of environments: one test per rule, every combination named."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _policy
from ansible_collections.civitas.hosting.plugins.module_utils._policy import POLICIES

KINDS = ["production", "staging", "qa", "backup", "bastion", "development"]
TODAY = datetime.date(2026, 11, 21)


def kinds_where(check):
    return {kind for kind in KINDS if check(POLICIES[kind]) is None}


def test_all_kinds():
    assert list(POLICIES) == KINDS
    assert all(policy.kind == kind and policy.purpose for kind, policy in POLICIES.items())


def test_personal_data():
    assert {kind for kind in KINDS if POLICIES[kind].may_hold_personal_data} == {"production", "staging"}


def test_only_staging_is_restored_by_the_clock():
    assert {kind for kind in KINDS if POLICIES[kind].periodic_restore} == {"staging"}


def test_application():
    assert kinds_where(lambda policy: _policy.check_application(policy, ["base", "app_demo"])) == set(KINDS) - {"backup", "bastion"}
    assert kinds_where(lambda policy: _policy.check_application(policy, ["base", "nginx"])) == set(KINDS)
    problem, remedy = _policy.check_application(POLICIES["backup"], ["base", "app_demo", "some.where.app_other"])
    assert "app_demo, some.where.app_other would be installed" in problem
    assert remedy.startswith("Write one of production, staging, qa, development")


ALLOWED_RESTORES = {
    ("production", "production"),
    ("staging", "production"),
    ("staging", "staging"),
    ("qa", "qa"),
    ("qa", "development"),
    ("development", "development"),
    ("development", "qa"),
}


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_restore(target, source):
    finding = _policy.check_restore(POLICIES[target], POLICIES[source])
    assert (finding is None) == ((target, source) in ALLOWED_RESTORES)
    if finding:
        assert f"'{target}'" in finding[0] and finding[1].endswith(".")


@pytest.mark.parametrize("target", KINDS)
def test_restore_of_an_anonymized_set(target):
    finding = _policy.check_restore(POLICIES[target], POLICIES["production"], anonymized=True)
    assert (finding is None) == (target in ("production", "staging", "qa", "development"))


def test_anonymized_data_of_staging_never_reach_production():
    assert _policy.check_restore(POLICIES["production"], POLICIES["staging"], anonymized=True)


def test_reset():
    assert kinds_where(_policy.check_reset) == {"staging", "qa", "development"}


def test_fixed_codes():
    assert kinds_where(lambda policy: _policy.check_fixed_codes(policy, enabled=True)) == {"qa", "development"}
    assert kinds_where(lambda policy: _policy.check_fixed_codes(policy, enabled=False)) == set(KINDS)


def test_second_factor():
    assert kinds_where(lambda policy: _policy.check_second_factor(policy, enabled=False)) == {"development"}
    assert kinds_where(lambda policy: _policy.check_second_factor(policy, enabled=True)) == set(KINDS)


def test_vendor_access():
    assert kinds_where(lambda policy: _policy.check_vendor_access(policy, ["vendor1"])) == {"qa", "development"}
    assert kinds_where(lambda policy: _policy.check_vendor_access(policy, [])) == set(KINDS)


@pytest.mark.parametrize(
    ("issuer", "wildcard", "mandatory", "kinds"),
    [
        ("bought", False, False, set(KINDS)),
        ("bought", True, False, {"staging", "qa", "development"}),
        ("bought", True, True, set(KINDS)),
        ("lets_encrypt", False, False, {"staging", "qa", "development"}),
        ("lets_encrypt", True, True, {"staging", "qa", "development"}),
        ("internal", False, False, {"qa", "development"}),
    ],
)
def test_public_certificate(issuer, wildcard, mandatory, kinds):
    assert kinds_where(lambda policy: _policy.check_public_certificate(policy, issuer, wildcard, mandatory)) == kinds


def test_internal_ca_with_a_waiver():
    production = POLICIES["production"]
    assert _policy.check_public_certificate(production, "internal", waiver="2026-12-01", today=TODAY) is None
    problem, _remedy = _policy.check_public_certificate(production, "internal", waiver="2026-11-20", today=TODAY)
    assert problem == "ended on 2026-11-20"
    problem, remedy = _policy.check_public_certificate(production, "internal", today=TODAY)
    assert "only qa, development" in problem
    assert 'civitas_accept_internal_ca_until: "2026-12-21"' in remedy


@pytest.mark.parametrize("value", ["2026-11-21", "2027-02-19", TODAY, datetime.date(2027, 2, 19)])
def test_good_waivers(value):
    assert _policy.check_waiver(value, TODAY) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2026-11-20", "ended on 2026-11-20"),
        ("2027-02-20", "is more than 90 days ahead"),
        ("9999-12-31", "is more than 90 days ahead"),
        ("2026-13-01", "is no date"),
        ("soon", "is no date"),
        ("2026-12-01\n", "is no date"),
        ("20261201", "is no date"),
        ("2026-W49-1", "is no date"),
        ("", "is no date"),
        (True, "is no date"),
        (20261201, "is no date"),
        (["2026-12-01"], "is no date"),
        ("2" * 10_000_000, "is no date"),
        (datetime.datetime(2026, 12, 1, 12), "holds a time and not a day"),
    ],
)
def test_bad_waivers(value, problem):
    finding = _policy.check_waiver(value, TODAY)
    assert finding[0] == problem
    assert "2027-02-19" in finding[1]
