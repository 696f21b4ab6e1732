# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the kinds of environments: one test per rule, every combination named."""

from __future__ import annotations

import datetime

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.minimum_certificate_days import minimum_certificate_days
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
        ("other", False, False, set(KINDS)),
        ("other", True, False, {"staging", "qa", "development"}),
        ("other", True, True, set(KINDS)),
        ("lets_encrypt", False, False, {"staging", "qa", "development"}),
        ("lets_encrypt", True, True, {"staging", "qa", "development"}),
        ("internal", False, False, {"qa", "development"}),
    ],
)
def test_public_certificate(issuer, wildcard, mandatory, kinds):
    assert kinds_where(lambda policy: _policy.check_public_certificate(policy, issuer, wildcard, mandatory)) == kinds


def test_the_rule_that_is_broken_is_named():
    production = POLICIES["production"]
    assert _policy.check_public_certificate(production, "internal", True) == "internal_ca"
    assert _policy.check_public_certificate(production, "lets_encrypt", True) == "lets_encrypt"
    assert _policy.check_public_certificate(production, "other", True) == "wildcard"


def test_days_at_hand_in():
    days = {kind: POLICIES[kind].minimum_days_left for kind in KINDS}
    assert days == {"production": 30, "staging": 14, "qa": 7, "backup": 30, "bastion": 30, "development": 1}


@pytest.mark.parametrize(("application", "wildcard"), [("pryv", True), ("primero", False), ("demo", False), (None, False), ([], False)])
def test_only_pryv_needs_a_wildcard(application, wildcard):
    assert _policy.product_of(application).wildcard is wildcard


WAIVER = {"rule": "internal_ca", "reason": "The certificate has been ordered.", "until": "2026-12-01"}


def test_good_waivers_hold():
    assert _policy.check_waivers([], TODAY) is None
    waivers = [WAIVER, {"rule": "wildcard", "reason": "Old hosting until the move", "until": datetime.date(2026, 11, 21)}]
    assert _policy.check_waivers(waivers, TODAY) is None
    first, second = _policy.waivers_of(waivers, TODAY)
    assert (first.rule, first.reason, first.days_left(TODAY)) == ("internal_ca", "The certificate has been ordered.", 10)
    assert second.days_left(TODAY) == 0


@pytest.mark.parametrize(
    ("waivers", "problem", "remedy"),
    [
        ("internal_ca", "is no list", 'until: "2026-12-21"'),
        ({"rule": "internal_ca"}, "is no list", "Write a list such as [{rule: internal_ca, reason: "),
        (["internal_ca"], "has an item without exactly rule, reason and until", "Write a list such as"),
        ([{**WAIVER, "by": "me"}], "has an item without exactly rule, reason and until", "Write a list such as"),
        ([{"rule": "internal_ca", "until": "2026-12-01"}], "has an item without exactly", "Write a list such as"),
        ([{**WAIVER, "rule": "wildcards"}], "names 'wildcards', which is no rule", "Write one of internal_ca, lets_encrypt, wildcard"),
        ([{**WAIVER, "rule": "key_type"}], "no rule that can be waived", "second_channel."),
        ([{**WAIVER, "rule": ["wildcard"]}], "names something, which is no rule", "Write one of"),
        ([{**WAIVER, "reason": ""}], "waives internal_ca without a reason", "Write a sentence of why"),
        ([{**WAIVER, "reason": "because"}], "waives internal_ca without a reason", "Write a sentence of why"),
        ([{**WAIVER, "reason": "necessarily"}], "waives internal_ca without a reason", "Write a sentence of why"),
        ([{**WAIVER, "reason": " - - - "}], "waives internal_ca without a reason", "Write a sentence of why"),
        ([{**WAIVER, "reason": "one two\nthree four"}], "waives internal_ca without a reason", "Write a sentence of why"),
        ([{**WAIVER, "reason": "word " * 101}], "waives internal_ca without a reason", "10 to 500 characters"),
        ([{**WAIVER, "reason": 5}], "waives internal_ca without a reason", "Write a sentence of why"),
        ([{**WAIVER, "until": "2026-11-20"}], "with a last day that passed on 2026-11-20", "remove the waiver"),
        ([{**WAIVER, "until": "2027-02-20"}], "with a last day that is more than 90 days ahead", "up to 2027-02-19"),
        ([{**WAIVER, "until": None}], "with a last day that is no date", "up to 2027-02-19"),
        ([WAIVER, WAIVER], "waives internal_ca 2 times", "Keep one"),
        ([WAIVER, {**WAIVER, "rule": "x"}, {**WAIVER, "rule": "wildcard", "reason": ""}], "names 'x', which", "Write one of"),
        ([WAIVER, {**WAIVER, "rule": "x"}, {**WAIVER, "rule": "wildcard", "reason": ""}], "; waives wildcard without", "Write one of"),
    ],
)
def test_bad_waivers_are_refused(waivers, problem, remedy):
    found = _policy.check_waivers(waivers, TODAY)
    assert problem in found[0]
    assert remedy in found[1]


def test_only_waivers_in_force_set_a_rule_aside():
    waivers = [{**WAIVER, "until": "2026-11-20"}, {**WAIVER, "rule": "wildcard", "reason": "no"}, {**WAIVER, "rule": "lets_encrypt"}, "x"]
    assert [waiver.rule for waiver in _policy.waivers_of(waivers, TODAY)] == ["lets_encrypt"]
    assert _policy.waivers_of("x", TODAY) == []


@pytest.mark.parametrize("value", ["2026-11-21", "2027-02-19", TODAY, datetime.date(2027, 2, 19)])
def test_good_last_days(value):
    assert _policy.check_day(value, TODAY) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("2026-11-20", "passed on 2026-11-20"),
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
def test_bad_last_days(value, problem):
    finding = _policy.check_day(value, TODAY)
    assert finding[0] == problem
    assert "2027-02-19" in finding[1]


def test_the_filter_knows_the_days_at_hand_in():
    assert {kind: minimum_certificate_days(kind) for kind in KINDS} == {kind: POLICIES[kind].minimum_days_left for kind in KINDS}
    waiver = {"rule": "days_left", "reason": "The next one is ordered.", "until": datetime.date.today().isoformat()}
    assert minimum_certificate_days("production", [waiver]) == 0
    assert minimum_certificate_days("production", [{**waiver, "rule": "lifetime"}]) == 30
    assert minimum_certificate_days("production", [{**waiver, "until": "2020-01-01"}]) == 30
    for wrong in ("live", None, []):
        with pytest.raises(AnsibleFilterError, match="Write one of production, staging"):
            minimum_certificate_days(wrong)


def way_in(**changes):
    values = {"without_code": [], "grace_until": "", "automation_anywhere": False, "root_automation": False}
    return _policy.WayIn(**{**values, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions_of_the_way_in(kind):
    everything = way_in(without_code=["one", "two"], grace_until="2099-12-31", automation_anywhere=True, root_automation=True)
    found, used = _policy.check_way_in(POLICIES[kind], everything, [])
    wanted = {"civitas_people", "access_automation_anywhere", "access_permit_root_automation", "access_second_factor_grace_until"}
    assert {variable for variable, _problem, _remedy in found} == (set() if kind == "development" else wanted)
    assert used == set()
    assert _policy.check_way_in(POLICIES[kind], way_in(), ["second_factor"]) == ([], set())


def test_exceptions_can_be_waived_and_a_long_grace_cannot():
    waived = ["second_factor", "automation_anywhere", "root_automation"]
    everything = way_in(without_code=["one"], grace_until="2099-12-31", automation_anywhere=True, root_automation=True)
    found, used = _policy.check_way_in(POLICIES["production"], everything, waived)
    assert [variable for variable, _problem, _remedy in found] == ["access_second_factor_grace_until"]
    assert used == set(waived) <= set(_policy.WAIVABLE)


@pytest.mark.parametrize("kind", KINDS)
def test_where_people_depend_on_mail_something_else_tells_that_it_does_not_leave(kind):
    policy = POLICIES[kind]
    assert (_policy.check_mail(policy, False, []) is not None) is policy.may_hold_personal_data
    assert _policy.check_mail(policy, True, []) is None
    assert _policy.check_mail(policy, False, ["mail_webhook"]) is None
    assert "mail_webhook" in _policy.WAIVABLE


@pytest.mark.parametrize("kind", KINDS)
def test_where_people_depend_on_it_somebody_hears_of_failures_also_when_mail_does_not_leave(kind):
    policy = POLICIES[kind]
    is_strict = policy.may_hold_personal_data
    for ways, waiver, words in ((set(), "alarms", "names nobody"), ({"email"}, "second_channel", "has mail only")):
        found = _policy.check_alarms(policy, ways, [])
        assert (found is not None and words in found[0]) is is_strict
        assert _policy.check_alarms(policy, ways, [waiver]) is None
        assert waiver in _policy.WAIVABLE
    assert _policy.check_alarms(policy, {"sms"}, []) is None
    assert _policy.check_alarms(policy, {"email", "webhook"}, []) is None


@pytest.mark.parametrize(("day", "is_good"), [("2026-11-21", True), ("2026-12-22", True), ("2026-12-23", False), ("soon", False)])
def test_a_grace_window_is_short(day, is_good):
    found, _used = _policy.check_way_in(POLICIES["production"], way_in(grace_until=day), [], datetime.date(2026, 11, 21))
    assert (found == []) == is_good
