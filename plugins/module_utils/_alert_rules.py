# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of alarms as roles declare them: one model for the host that judges itself and for Prometheus.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import math
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

CONDITIONS = ("above", "below", "equals", "older_than", "reaches", "missing")
SEVERITIES = ("warning", "critical")
UNITS = ("ratio", "seconds", "bytes", "count", "none")
KEYS = ("role", "name", "severity", "metric", "labels", *CONDITIONS, "for", "unit", "text", "runbook", "expr", "blinds", "inside")
# A condition that is stricter with a greater number, one that is with a smaller one.
_GROWING, _SHRINKING = ("above", "older_than"), ("below",)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")
_NAME = re.compile(r"(?:[A-Z][a-z0-9]*)+")
_METRIC = re.compile(r"civitas_[a-z0-9_]+")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_RUNBOOK = re.compile(r"[a-z0-9_]+\.md#[a-z0-9_-]+")
# What stands in braces in a text.
FIELD = re.compile(r"{([^{}]*)}")
# In place of names of rules: all by which the same host says something of itself.
ALL = "*"
# In a label of what a drill raises.
DRILL = "alarm-drill"
# Where the small file system of a drill is mounted.
DRILL_MOUNT = f"/var/lib/civitas/{DRILL}"
# What an alarm has otherwise than as labels.
KNOWN_LABELS = ("alertname", "severity", "host")
# What Prometheus adds to series and alarms, and is no part of what was measured.
OWN_LABELS = (*KNOWN_LABELS, "job", "instance", "prometheus")


class RuleError(Exception):
    """Rules that cannot be used; the text has one sentence per problem, with what to write."""


class Rule(t.NamedTuple):
    """One rule.

    Attributes:
        labels: what the series of the metric must have, sorted.
        condition: one of C(CONDITIONS); empty for one in PromQL.
        limit: the number of the condition, in seconds for C(older_than); 0 for C(missing).
        within, window: of C(reaches), how far ahead and how far back it looks, in seconds.
        hold: for how many seconds the condition must hold.
        expr: an expression for Prometheus alone, in place of metric and condition.
        blinds: while it rings, its host says nothing of itself.
        inside: it is what the host says of itself, and not what is seen from outside, such as a probe.
    """

    role: str
    name: str
    severity: str
    metric: str
    labels: t.Tuple[t.Tuple[str, str], ...]
    condition: str
    limit: float
    within: float
    window: float
    hold: float
    unit: str
    text: str
    runbook: str
    expr: str
    blinds: bool
    inside: bool

    @property
    def rank(self) -> int:
        return SEVERITIES.index(self.severity)


class Alert(t.NamedTuple):
    """A rule that rings for one series.

    Attributes:
        labels: of the series, without C(KNOWN_LABELS). All others tell two alarms apart: two exporters of a host differ in their job only.
        since: from when on it rings, in seconds since 1970.
        inhibits: names of rules that say less about the same series, and are quiet meanwhile; C(ALL) when the host says nothing of itself.
        inside: as of its rule.
    """

    name: str
    host: str
    severity: str
    labels: t.Tuple[t.Tuple[str, str], ...]
    text: str
    since: float
    runbook: str
    inhibits: t.Tuple[str, ...] = ()
    inside: bool = False

    @property
    def key(self) -> str:
        """The same as long as it is the same alarm."""
        return json.dumps([self.host, self.name, self.labels])


def kept_alert(document: t.Any) -> t.Optional[Alert]:
    """One that was kept as JSON, also by another release; None when it cannot be read."""
    try:
        return Alert(
            name=str(document["name"]),
            host=str(document["host"]),
            severity=SEVERITIES[SEVERITIES.index(document["severity"])],
            labels=tuple((str(name), str(value)) for name, value in document["labels"]),
            text=str(document["text"]),
            since=float(document["since"]),
            runbook=str(document["runbook"]),
            inhibits=tuple(str(name) for name in document["inhibits"]),
            inside=document.get("inside") is True,
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def kept_alerts(documents: t.Any) -> t.List[Alert]:
    """Those of a list that can be read."""
    found = map(kept_alert, documents if isinstance(documents, list) else [])
    return [alert for alert in found if alert is not None]


def kept_number(value: t.Any) -> float:
    """A number that was kept as JSON; 0 when it is none."""
    return number(value) or 0.0


def is_drill(alert: Alert) -> bool:
    """Was it raised to see whether people hear it? Only by the very labels of a drill: others may have names like it."""
    return bool({("drill", DRILL), ("mountpoint", DRILL_MOUNT)} & set(alert.labels))


def duration(value: t.Any) -> t.Optional[float]:
    """Seconds of C(10m), C(26h), C(0); None when it is no duration."""
    if value in (0, "0") and not isinstance(value, bool):
        return 0.0
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return float(int(found[1]) * _SECONDS[found[2]]) if found else None


def number(value: t.Any) -> t.Optional[float]:
    """A finite number, also as text: older releases of Ansible render templates to text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _fits(pattern: t.Pattern[str], value: t.Any) -> bool:
    return isinstance(value, str) and bool(pattern.fullmatch(value))


def is_true(value: t.Any) -> bool:
    return value is True or value in ("true", "True")


# --- what is wrong


def problems(items: t.Any) -> t.List[str]:
    """What is wrong with declared rules, one sentence each, with what to write."""
    if isinstance(items, (str, t.Mapping)) or not isinstance(items, t.Sequence):
        return [f"alerts: this is {in_words(items)}; write a list of rules"]
    found: t.List[str] = []
    owners: t.Dict[str, str] = {}
    series: t.Set[str] = set()
    for item in items:
        if not isinstance(item, t.Mapping):
            found.append(f"alerts: a rule is {in_words(item)}; write a mapping with name, severity, metric, a condition, text and runbook")
            continue
        where = f"alert {item.get('name', '')} of role {item.get('role', '?')}"
        found += [f"{where}: {problem}" for problem in _problems(item)]
        owner = owners.setdefault(str(item.get("name", "")), str(item.get("role", "?")))
        if owner != str(item.get("role", "?")):
            found.append(f"{where}: role {owner} has a rule of this name; write another name")
        same = json.dumps([str(item.get("name", "")), str(item.get("metric", "")), str(item.get("labels", {}))])
        if same in series:
            found.append(f"{where}: it is there twice for the same metric and labels; write another name")
        series.add(same)
    return found


def _problems(item: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    for key in item:
        if key not in KEYS:
            yield f"{key!r} means nothing; known are {', '.join(KEYS[1:])}"
    if not _fits(_NAME, item.get("name")):
        yield "its name is no name; write words without blanks, each with a capital letter, such as DiskFillingUp"
    if item.get("severity") not in SEVERITIES:
        yield f"severity is {item.get('severity')!r}; write warning or critical"
    if duration(item.get("for", 0)) is None:
        yield f"for is {item['for']!r}; write a duration such as 30s, 10m, 26h or 3d, or leave it out"
    if item.get("unit", "none") not in UNITS:
        yield f"unit is {item['unit']!r}; write one of {', '.join(UNITS)}"
    if "blinds" in item and not ("expr" in item and is_true(item["blinds"])):
        yield f"blinds is {item['blinds']!r}; write true, and that for a rule with expr only, such as that a host does not answer"
    if "inside" in item and not ("expr" in item and is_true(item["inside"])):
        yield f"inside is {item['inside']!r}; write true, and that for a rule with expr only that means nothing while its host is silent"
    if not _fits(_RUNBOOK, item.get("runbook")):
        yield f"runbook is {item.get('runbook')!r}; write page and section below docs/runbooks, such as alerts.md#disk"
    yield from (_expression_problems(item) if "expr" in item else _condition_problems(item))
    yield from _text_problems(item)


def _expression_problems(item: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    others = [key for key in ("metric", "labels", *CONDITIONS) if key in item]
    if others:
        yield f"it has expr and {', '.join(others)}; write expr, or metric and a condition"
    if not isinstance(item["expr"], str) or not item["expr"].strip():
        yield "expr is empty; write an expression in PromQL"


def _condition_problems(item: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    if not _fits(_METRIC, item.get("metric")):
        yield f"metric is {item.get('metric')!r}; write the name of one that hosts measure themselves; they begin with civitas_"
    labels = item.get("labels", {})
    if not isinstance(labels, t.Mapping):
        yield f"labels is {in_words(labels)}; write a mapping of label to value"
    else:
        for name, value in labels.items():
            if not _LABEL.fullmatch(str(name)) or name in OWN_LABELS:
                yield f"labels has {name!r}; write a label that the host itself writes; {', '.join(OWN_LABELS)} are others'"
            if not isinstance(value, str) or not value:
                yield f"labels.{name} is {in_words(value) if value != '' else 'empty'}; write a text, in quotes"
    conditions = [key for key in CONDITIONS if key in item]
    if len(conditions) != 1:
        yield f"it has {' and '.join(conditions) or 'no condition'}; write exactly one of {', '.join(CONDITIONS)}"
        return
    (condition,) = conditions
    value = item[condition]
    if condition in ("above", "below", "equals") and number(value) is None:
        yield f"{condition} is {value!r}; write a number"
    elif condition == "older_than" and duration(value) is None:
        yield f"older_than is {value!r}; write a duration such as 30s, 10m, 26h or 3d"
    elif condition == "missing" and not is_true(value):
        yield f"missing is {value!r}; write true"
    elif condition == "reaches":
        yield from _reaches_problems(value)


def _reaches_problems(value: t.Any) -> t.Iterator[str]:
    if not isinstance(value, t.Mapping) or set(value) != {"value", "within", "from"}:
        yield "reaches is incomplete; write {value: 1.0, within: 24h, from: 6h}, the trend of the last 6 hours"
        return
    if number(value["value"]) is None:
        yield f"reaches.value is {value['value']!r}; write a number"
    for key in ("within", "from"):
        if not duration(value[key]):
            yield f"reaches.{key} is {value[key]!r}; write a duration such as 6h"


def _text_problems(item: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    text = item.get("text", "")
    if not isinstance(text, str) or not text.strip() or not text.isprintable():
        yield "text is no sentence; write one of what it means, in one line"
        return
    fields = FIELD.findall(text)
    if re.search(r"[{}]", FIELD.sub("", text)):
        yield "text has single or double braces; write {label}, {value} or {host} in single ones"
    for field in fields:
        if not _LABEL.fullmatch(field):
            yield f"text has {{{field}}}; write {{value}}, {{host}} or the name of a label"
    if "value" in fields and "missing" in item:
        yield "text has {value}, which nothing has that is missing; leave it out"


# --- the model


def parse(items: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Rule]:
    """Rules of declared items. Raises RuleError with all their problems."""
    found = problems(items)
    if found:
        raise RuleError("; ".join(found))
    return [_rule(item) for item in items]


def _rule(item: t.Mapping[str, t.Any]) -> Rule:
    condition = next((key for key in CONDITIONS if key in item), "")
    limit: t.Optional[float] = 0.0
    within: t.Optional[float] = 0.0
    window: t.Optional[float] = 0.0
    if condition in ("above", "below", "equals"):
        limit = number(item[condition])
    elif condition == "older_than":
        limit = duration(item[condition])
    elif condition == "reaches":
        value = item[condition]
        limit, within, window = number(value["value"]), duration(value["within"]), duration(value["from"])
    return Rule(
        role=str(item.get("role", "")),
        name=str(item["name"]),
        severity=str(item["severity"]),
        metric=str(item.get("metric", "")),
        labels=tuple(sorted((str(name), str(value)) for name, value in item.get("labels", {}).items())),
        condition=condition,
        limit=limit or 0.0,
        within=within or 0.0,
        window=window or 0.0,
        hold=duration(item.get("for", 0)) or 0.0,
        unit=str(item.get("unit", "none")),
        text=str(item["text"]).strip(),
        runbook=str(item["runbook"]),
        expr=str(item.get("expr", "")).strip(),
        blinds="blinds" in item,
        inside="metric" in item or "inside" in item,
    )


def inhibited_by(rule: Rule, rules: t.Iterable[Rule]) -> t.Tuple[str, ...]:
    """The names of rules that say less than C(rule) about the same series: less severe ones, and less strict ones of the same condition."""
    if rule.blinds:
        return (ALL,)
    if not rule.metric:
        return ()
    same = [other for other in rules if (other.metric, other.labels) == (rule.metric, rule.labels) and other.name != rule.name]
    return tuple(sorted({other.name for other in same if other.rank < rule.rank or (other.rank == rule.rank and _looser(other, rule))}))


def _looser(other: Rule, rule: Rule) -> bool:
    if other.condition != rule.condition:
        return False
    return (rule.condition in _GROWING and other.limit < rule.limit) or (rule.condition in _SHRINKING and other.limit > rule.limit)
