# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules over what a host measured, on the host itself: the same answers as Prometheus gives, without one.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import operator
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_metrics import Labels, Samples
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import Alert, Rule, inhibited_by
from ansible_collections.civitas.hosting.plugins.module_utils._alert_values import sentence

# A trend is drawn through about so many points: fewer bytes a minute for small disks, and the line is the same.
POINTS = 60
_COMPARE: t.Dict[str, t.Callable[[float, float], bool]] = {"above": operator.gt, "below": operator.lt, "equals": operator.eq}

Points = t.List[t.Tuple[float, float]]


class Memory(t.NamedTuple):
    """What one evaluation leaves to the next, by rule and series.

    Attributes:
        active: since when the condition holds.
        trends: time and value of what was seen, the oldest first, of rules that look at a trend.
    """

    active: t.Dict[str, float]
    trends: t.Dict[str, Points]


def memory(document: t.Any) -> Memory:
    """What was kept as JSON; what is damaged counts for nothing."""
    found = document if isinstance(document, dict) else {}
    try:
        active = {str(key): float(since) for key, since in found.get("active", {}).items()}
        trends = {str(key): [(float(time), float(value)) for time, value in points] for key, points in found.get("trends", {}).items()}
    except (AttributeError, TypeError, ValueError):
        return Memory({}, {})
    return Memory(active, trends)


def evaluate(rules: t.Sequence[Rule], samples: Samples, before: Memory, host: str, now: float) -> t.Tuple[t.List[Alert], Memory]:
    """The alarms that ring now. Rules for Prometheus alone are passed over."""
    after = Memory({}, {})
    alerts = []
    for rule in rules:
        if rule.expr:
            continue
        for labels, value in _matches(rule, samples, before, after, now):
            key = _key(rule, labels)
            # A clock that was set back does not count.
            since = after.active[key] = min(before.active.get(key, now), now)
            if now - since >= rule.hold:
                text = sentence(rule.text, rule.unit, host, dict(labels), value)
                quiet = inhibited_by(rule, rules)
                alerts.append(Alert(rule.name, host, rule.severity, labels, text, since + rule.hold, rule.runbook, quiet, rule.inside))
    return alerts, after


def _key(rule: Rule, labels: Labels) -> str:
    return json.dumps([rule.name, labels])


def _matches(rule: Rule, samples: Samples, before: Memory, after: Memory, now: float) -> t.Iterator[t.Tuple[Labels, float]]:
    """The series for which the condition holds, each with the value that is told."""
    series = [(labels, value) for labels, value in samples.get(rule.metric, []) if set(rule.labels) <= set(labels)]
    if rule.condition == "missing":
        if not series:
            yield rule.labels, 1.0
        return
    for labels, value in series:
        if rule.condition == "older_than":
            if now - value > rule.limit:
                yield labels, now - value
        elif rule.condition == "reaches":
            key = _key(rule, labels)
            points = [point for point in before.trends.get(key, []) if now - rule.window <= point[0] < now]
            due = not points or now - points[-1][0] >= rule.window / POINTS
            seen = [*points, (now, value)]
            after.trends[key] = seen if due else points
            # Half of the time must have been seen: a minute of unpacking is no trend.
            if seen[0][0] <= now - rule.window / 2 and predicted(seen, now + rule.within) >= rule.limit:
                yield labels, value
        elif _COMPARE[rule.condition](value, rule.limit):
            yield labels, value


def predicted(points: Points, when: float) -> float:
    """The value at a time, by the straight line with the least squares through at least two points."""
    middle = sum(time for time, _value in points) / len(points)
    mean = sum(value for _time, value in points) / len(points)
    spread = sum((time - middle) ** 2 for time, _value in points)
    slope = sum((time - middle) * (value - mean) for time, value in points) / spread
    return mean + slope * (when - middle)
