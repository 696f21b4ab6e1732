# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A drill: alarms that are raised to see whether people hear them, and that they are over.

A small file system is really filled. Of all else series are written beside those of the host, with labels that say what they are.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_notify import kept_state
from ansible_collections.civitas.hosting.plugins.module_utils._alert_receivers import Receiver
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import (
    ALL,
    DRILL,
    FIELD,
    Alert,
    Rule,
    inhibited_by,
    is_drill,
    kept_alerts,
)
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render

MOUNT_METRIC = "civitas_mount_used_ratio"
# In place of what a text names otherwise.
_OWN_FIELDS = ("value", "host")


class Plan(t.NamedTuple):
    """What a drill does on a host.

    Attributes:
        text: series for a file beside the host's own.
        filled: how full the small file system is to be, from 0 to 1; 0 for no file system.
        alarms: what rings then, and with which severity.
        left_out: what does not, and why.
    """

    text: str
    filled: float
    alarms: t.Dict[str, str]
    left_out: t.Dict[str, str]


def plan(rules: t.Sequence[Rule], longest: float, now: float) -> Plan:
    """Raise each rule that can be raised without harm.

    Args:
        longest: rules that ring after more seconds are left out.
        now: seconds since 1970.
    """
    left_out = {rule.name: why for rule in rules for why in [_obstacle(rule, longest)] if why}
    able = [rule for rule in rules if rule.name not in left_out]
    louder = {name: rule.name for rule in able for name in inhibited_by(rule, able)}
    raised = [rule for rule in able if rule.name not in louder]
    left_out.update({rule.name: f"{louder[rule.name]} says more of the same" for rule in able if rule.name in louder})
    filled = max([_value(rule, now) for rule in raised if rule.metric == MOUNT_METRIC], default=0.0)
    samples: t.Dict[t.Tuple[str, t.Any], Sample] = {}
    alarms = {rule.name: rule.severity for rule in raised}
    for rule in raised:
        if rule.metric != MOUNT_METRIC:
            one = Sample(rule.metric, _labels(rule), _value(rule, now))
            if samples.setdefault((one.name, one.labels), one) != one:
                del alarms[rule.name]
                left_out[rule.name] = "another alarm needs the same series with another value"
    titles = {one.name: "Raised by a drill of alarms" for one in samples.values()}
    return Plan(render(samples.values(), titles), filled, alarms, left_out)


def _obstacle(rule: Rule, longest: float) -> str:
    if rule.expr:
        return "it looks at what Prometheus itself knows"
    if rule.condition == "missing":
        return "what is measured would have to be taken away"
    if rule.condition == "reaches":
        return "it looks at the hours before"
    if rule.hold > longest:
        return f"it rings after {rule.hold / 60:.0f} minutes only"
    if rule.metric == MOUNT_METRIC and (rule.condition != "above" or rule.limit >= 1):
        return "a file system cannot be filled like that"
    return ""


def _labels(rule: Rule) -> t.Tuple[t.Tuple[str, str], ...]:
    fields = {field: DRILL for field in FIELD.findall(rule.text) if field not in _OWN_FIELDS}
    return tuple(sorted({"drill": DRILL, **fields, **dict(rule.labels)}.items()))


def _value(rule: Rule, now: float) -> float:
    if rule.condition == "older_than":
        return float(int(now - rule.limit - 60))
    if rule.condition == "equals":
        return rule.limit
    if rule.condition == "above":
        return (rule.limit + 1) / 2 if rule.unit == "ratio" and rule.limit < 1 else rule.limit + 1
    return rule.limit / 2 if rule.limit > 0 else rule.limit - 1


def not_heard(receivers: t.Sequence[Receiver], state: t.Mapping[str, t.Any], host: str, alarms: t.Mapping[str, str]) -> t.List[str]:
    """One sentence for each receiver and alarm that was not told yet; C(state) is what is kept of receivers."""
    found = []
    for receiver in receivers:
        told = {alert.name for alert in _drills(state, receiver, host)}
        problem = kept_state(state.get(receiver.name)).get("problem", "")
        for name, severity in sorted(alarms.items()):
            if severity in receiver.severities and name not in told:
                found.append(f"{receiver.name} was not told of {name}{f': {problem}' if problem else ''}")
    return found


def not_over(receivers: t.Sequence[Receiver], state: t.Mapping[str, t.Any], host: str) -> t.List[str]:
    """One sentence for each receiver and alarm that is not over for them."""
    return [f"{receiver.name} was not told that {alert.name} is over" for receiver in receivers for alert in _drills(state, receiver, host)]


def _drills(state: t.Mapping[str, t.Any], receiver: Receiver, host: str) -> t.List[Alert]:
    told = kept_state(state.get(receiver.name))["told"]
    alerts = kept_alerts([entry["alert"] for _key, entry in sorted(told.items())])
    return [alert for alert in alerts if alert.host == host and is_drill(alert) and ALL not in alert.inhibits]
