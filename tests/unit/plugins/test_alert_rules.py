# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declared rule may say, and what is told of one that says something else."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_rules as rules
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GOOD: dict[str, Any] = {
    "role": "base",
    "name": "DiskFull",
    "severity": "critical",
    "metric": "civitas_mount_used_ratio",
    "above": 0.7,
    "text": "{mountpoint} is {value} full.",
    "runbook": "alerts.md#disk",
}
REACHES = {"value": 1, "within": "24h", "from": "6h"}


def without(*keys: str, **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**GOOD, **changes}.items() if key not in keys}


def test_a_good_rule() -> None:
    (rule,) = rules.parse([{**GOOD, "labels": {"b": "2", "a": "1"}, "for": "10m", "unit": "ratio"}])
    assert (rule.condition, rule.limit, rule.hold, rule.labels, rule.rank) == ("above", 0.7, 600.0, (("a", "1"), ("b", "2")), 1)
    assert rule.inside and not rules.parse([without("above", "metric", expr="up == 0")])[0].inside


@pytest.mark.parametrize(
    "item",
    [
        without(above="0.7"),
        without("above", older_than=0),
        without("above", reaches=REACHES),
        without("above", missing="True", text="Nothing is known of {host}."),
        without("above", "metric", expr="up == 0"),
        without("above", "metric", expr="up == 0", blinds=True),
        without("above", "metric", expr="up == 0", inside=True),
    ],
)
def test_others(item: dict[str, Any]) -> None:
    assert rules.problems([item]) == []


@pytest.mark.parametrize(
    ("item", "problem"),
    [
        (without("name"), "its name is no name; write words"),
        (without(name="disk_full"), "its name is no name"),
        (without(severity="page"), "severity is 'page'; write warning or critical"),
        (without("severity"), "severity is None"),
        (without(metric="node_load1"), "they begin with civitas_"),
        (without("above"), "it has no condition; write exactly one of above, below, equals, older_than, reaches, missing"),
        (without(below=1), "it has above and below; write exactly one"),
        (without(above="much"), "above is 'much'; write a number"),
        (without(above=True), "above is True; write a number"),
        (without(above="inf"), "write a number"),
        (without(above=10**400), "write a number"),
        (without("above", older_than="26 hours"), "older_than is '26 hours'; write a duration"),
        (without("above", missing=False, text="x"), "missing is False; write true"),
        (without("above", missing=True), "text has {value}, which nothing has that is missing"),
        (without("above", reaches={"value": 1}), "reaches is incomplete; write {value: 1.0, within: 24h, from: 6h}"),
        (without("above", reaches={**REACHES, "from": 0}), "reaches.from is 0; write a duration"),
        (without("above", reaches={**REACHES, "value": "x"}), "reaches.value is 'x'; write a number"),
        (without(labels=["a"]), "labels is a list; write a mapping"),
        (without(labels={"host": "a"}), "labels has 'host'; write a label that the host itself writes"),
        (without(labels={"a": 1}), "labels.a is a number; write a text"),
        (without(labels={"a": ""}), "labels.a is empty; write a text"),
        (without(**{"for": "soon"}), "for is 'soon'; write a duration"),
        (without(unit="percent"), "unit is 'percent'; write one of ratio"),
        (without(text=""), "text is no sentence"),
        (without(text="a\nb"), "text is no sentence"),
        (without(text="{{ $value }}"), "text has single or double braces"),
        (without(text="{Value}"), "text has {Value}; write {value}"),
        (without(runbook="disk"), "runbook is 'disk'; write page and section"),
        (without(expr="up"), "it has expr and metric, above; write expr, or metric and a condition"),
        (without("above", "metric", expr=" "), "expr is empty"),
        (without(blinds=True), "blinds is True; write true, and that for a rule with expr only"),
        (without("above", "metric", expr="up == 0", blinds="x"), "blinds is 'x'; write true"),
        (without(inside=True), "inside is True; write true, and that for a rule with expr only"),
        (without(summary="x"), "'summary' means nothing; known are name"),
    ],
)
def test_a_bad_rule_is_told_with_what_to_write(item: dict[str, Any], problem: str) -> None:
    found = rules.problems([item])
    assert any(problem in line for line in found), found
    assert all(line.startswith(f"alert {item.get('name', '')} of role base: ") for line in found)
    with pytest.raises(rules.RuleError):
        rules.parse([item])


@pytest.mark.parametrize(("items", "problem"), [("x", "this is a text"), ({}, "this is a mapping"), (["x"], "a rule is a text")])
def test_what_is_no_rule_at_all(items: Any, problem: str) -> None:
    assert problem in rules.problems(items)[0]


def test_two_roles_may_not_give_one_name() -> None:
    assert rules.problems([{**GOOD, "labels": {"a": "1"}}, {**GOOD, "labels": {"a": "2"}}]) == []
    assert "it is there twice for the same metric and labels" in rules.problems([GOOD, {**GOOD, "above": 0.8}])[0]
    assert "role base has a rule of this name" in rules.problems([GOOD, {**GOOD, "role": "docker"}])[0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90s", 90), ("10m", 600), ("26h", 93600), ("3d", 259200), (0, 0), ("0", 0), ("0s", 0),
     (False, None), (5, None), ("1.5h", None), ("-1h", None), (None, None), ({}, None)],
)  # fmt: skip
def test_durations(value: Any, seconds: float | None) -> None:
    assert rules.duration(value) == seconds


def test_who_says_more_inhibits_who_says_less() -> None:
    items = [
        {**GOOD, "name": "A", "severity": "warning", "above": 0.5},
        {**GOOD, "name": "B", "severity": "warning", "above": 0.6},
        {**GOOD, "name": "C", "severity": "critical", "above": 0.7},
        {**without("above"), "name": "D", "severity": "warning", "reaches": REACHES},
        {**GOOD, "name": "E", "severity": "warning", "metric": "civitas_mount_inodes_used_ratio"},
        {**GOOD, "name": "F", "severity": "warning", "labels": {"mountpoint": "/"}},
        {**without("above"), "name": "G", "severity": "critical", "below": 0.1},
        {**without("above"), "name": "H", "severity": "critical", "below": 0.2},
    ]
    parsed = rules.parse(items)
    quiet = {rule.name: rules.inhibited_by(rule, parsed) for rule in parsed}
    low = ("A", "B", "D")
    assert quiet == {"A": (), "B": ("A",), "C": low, "D": (), "E": (), "F": (), "G": (*low, "H"), "H": low}


TEXTS = st.text('aZ0. {}"\\\n\u2192', max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | TEXTS
JSON = SCALARS | st.lists(SCALARS, max_size=2) | st.dictionaries(TEXTS, SCALARS, max_size=3)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(rules.KEYS), JSON, max_size=4))
def test_whatever_is_written_is_judged_and_never_breaks(changes: dict[str, Any]) -> None:
    item = {**GOOD, **changes}
    if not rules.problems([item]):
        assert rules.parse([item])[0].name == item["name"]
