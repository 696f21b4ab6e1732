# SPDX-License-Identifier: GPL-3.0-or-later
"""For a rule of alarms what a host could measure, minute by minute: all is well, the rule holds, all is well again.

Written from what conditions mean, and not with the code that judges them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import OWN_LABELS, Rule

HOST = "server-1.example.org"
MINUTE = 60
# Minutes at the beginning in which all is well, and in the end.
WELL = 7


@dataclass(frozen=True)
class Story:
    """One series, a value a minute (None where it is missing), and the minutes at which to look.

    rings: minute to whether the rule rings then.
    """

    labels: dict[str, str]
    values: list[float | None]
    rings: dict[int, bool]


def story(rule: Rule) -> Story:
    """Ends with a minute at which the rule has been quiet again."""
    hold = round(rule.hold / MINUTE + 0.49)
    labels = {field: f"{field}-1" for field in re.findall(r"{(\w+)}", rule.text) if field not in ("value", *OWN_LABELS)}
    labels.update(rule.labels)
    if rule.condition == "reaches":
        return Story(labels, *_trend(rule, hold))
    length = WELL + hold + 3
    end = length + WELL
    if rule.condition == "older_than":
        # Time begins at 0: the stamp is so old that its age passes the limit between two minutes.
        good = WELL * MINUTE - 30 - rule.limit
        values: list[float | None] = [good] * length
        values += [float(minute * MINUTE) for minute in range(length, end + 1)]
    else:
        step = max(abs(rule.limit) / 100, 0.001)
        good, bad = {
            "above": (rule.limit, rule.limit + step),
            "below": (rule.limit, rule.limit - step),
            "equals": (rule.limit + 1, rule.limit),
            "missing": (1.0, None),
        }[rule.condition]
        values = [good] * WELL + [bad] * (length - WELL) + [good] * (WELL + 1)
    # One minute before, the first at which it holds, the last at which it was not held long enough, the first at which it was.
    rings = {WELL - 1: False, WELL: hold == 0, WELL + hold: True, length - 1: True, length: False, end: False}
    if hold:
        rings[WELL + hold - 1] = False
    return Story(labels, values, rings)


def _trend(rule: Rule, hold: int) -> tuple[list[float | None], dict[int, bool]]:
    """A steep rise of which too little is seen, flat, a rise that would reach the limit in time, flat below the limit."""
    window, within = round(rule.window / MINUTE), round(rule.within / MINUTE)
    begin, slope, short, rising = 0.1 * rule.limit, rule.limit / within, window // 4, window + hold
    top = begin + slope * rising
    assert top < 0.9 * rule.limit, f"{rule.name}: the trend of {window} minutes says too little about {within}; write a shorter from"
    values: list[float | None] = [begin * minute / short for minute in range(short)]
    values += [begin] * window
    values += [begin + slope * minute for minute in range(rising)]
    values += [top] * (window + 1)
    flat = short + window
    return values, {short - 1: False, flat - 1: False, flat + rising - 1: True, len(values) - 1: False}
