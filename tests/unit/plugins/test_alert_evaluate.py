# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host remembers between evaluations; the conditions themselves are in test_alert_proof."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_evaluate as light
from ansible_collections.civitas.hosting.plugins.module_utils._alert_metrics import Samples
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import Rule, parse
from hypothesis import given, settings
from hypothesis import strategies as st

RULE: dict[str, Any] = {
    "name": "R",
    "severity": "warning",
    "metric": "civitas_r",
    "above": 1,
    "for": "5m",
    "text": "{a}",
    "runbook": "a.md#a",
}
TREND = {**{key: value for key, value in RULE.items() if key != "above"}, "reaches": {"value": 1, "within": "24h", "from": "1h"}}
NOTHING = light.Memory({}, {})


def kept(memory: light.Memory) -> light.Memory:
    """As it comes back from the disk."""
    return light.memory(json.loads(json.dumps(memory._asdict())))


def ring(rule: Rule, memory: light.Memory, now: float, **series: float) -> tuple[dict[str, float], light.Memory]:
    """Label to since when it rings."""
    samples: Samples = {rule.metric: [((("a", name),), value) for name, value in series.items()]}
    alerts, after = light.evaluate([rule], samples, memory, "h", now)
    return {alert.text: alert.since for alert in alerts}, kept(after)


def test_each_series_is_held_for_itself() -> None:
    (rule,) = parse([RULE])
    assert ring(rule, NOTHING, 1000, x=2, y=0) == ({}, light.Memory({'["R", [["a", "x"]]]': 1000.0}, {}))
    _found, memory = ring(rule, NOTHING, 1000, x=2, y=0)
    found, memory = ring(rule, memory, 1299, x=2, y=2)
    assert found == {}
    found, memory = ring(rule, memory, 1300, x=2, y=2)
    assert found == {"x": 1300}
    # One moment without it, and it begins anew.
    found, memory = ring(rule, memory, 1599, x=0, y=2)
    assert found == {"y": 1599}
    assert ring(rule, memory, 1600, x=2)[0] == {}


def test_a_clock_that_was_set_back_holds_nothing_for_ever() -> None:
    (rule,) = parse([RULE])
    _found, memory = ring(rule, NOTHING, 1e9, x=2)
    _found, memory = ring(rule, memory, 1000, x=2)
    assert ring(rule, memory, 1300, x=2)[0] == {"x": 1300}


def test_values_that_are_none_ring_nothing() -> None:
    (rule,) = parse([{**RULE, "for": 0}])
    assert ring(rule, NOTHING, 1000, x=float("nan"), y=float("inf"))[0] == {"y": 1000}


def test_a_trend_keeps_few_points() -> None:
    (rule,) = parse([TREND])
    memory = NOTHING
    for minute in range(300):
        _found, memory = ring(rule, memory, minute * 20, x=0.1)
    (points,) = memory.trends.values()
    assert len(points) <= light.POINTS + 1 and points[0][0] >= 299 * 20 - 3600


@pytest.mark.parametrize("text", ["[]", "{}", '{"active": []}', '{"active": {"a": "x"}}', '{"trends": {"a": [1]}}', '{"trends": {"a": 5}}'])
def test_a_damaged_memory_is_none(text: str) -> None:
    assert light.memory(json.loads(text)) == NOTHING


def test_what_is_for_prometheus_is_passed_over() -> None:
    (rule,) = parse([{"name": "R", "severity": "warning", "expr": "up == 0", "text": "x", "runbook": "a.md#a"}])
    assert light.evaluate([rule], {}, NOTHING, "h", 0) == ([], NOTHING)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 86400), min_size=2, max_size=60, unique=True),
    st.floats(-1, 1), st.floats(-1e6, 1e6), st.integers(0, 86400),
)  # fmt: skip
def test_a_straight_line_is_continued(times: list[int], slope: float, start: float, ahead: int) -> None:
    points = [(1.7e9 + time, start + slope * time) for time in sorted(times)]
    when = max(times) + ahead
    assert light.predicted(points, 1.7e9 + when) == pytest.approx(start + slope * when, rel=1e-6, abs=0.1)
