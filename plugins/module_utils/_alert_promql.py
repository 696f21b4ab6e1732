# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules as Prometheus reads them.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import Rule, RuleError, inhibited_by, parse
from ansible_collections.civitas.hosting.plugins.module_utils._alert_values import template

_COMPARE = {"above": ">", "below": "<", "equals": "=="}


def render(declared: t.Mapping[str, t.Sequence[t.Mapping[str, t.Any]]]) -> t.Dict[str, t.Any]:
    """The content of a file of rules.

    Args:
        declared: host to the rules that its roles declare. One that several hosts declare alike becomes one; the series must have the label
            C(host).

    Raises:
        RuleError: with all problems.
    """
    hosts: t.Dict[Rule, t.List[str]] = {}
    quiet: t.Dict[Rule, t.Tuple[str, ...]] = {}
    problems: t.List[str] = []
    for host, items in declared.items():
        try:
            rules = parse(items)
        except RuleError as error:
            problems.append(f"{host}: {error}")
            continue
        for rule in rules:
            names = hosts.setdefault(rule, [])
            if host not in names:
                names.append(host)
            quiet[rule] = tuple(sorted({*quiet.get(rule, ()), *inhibited_by(rule, rules)}))
    if problems:
        raise RuleError("; ".join(problems))
    groups: t.Dict[str, t.List[t.Dict[str, t.Any]]] = {}
    for rule, names in hosts.items():
        groups.setdefault(rule.role or "civitas", []).append(_rendered(rule, sorted(names), quiet[rule]))
    return {"groups": [{"name": role, "rules": rules} for role, rules in groups.items()]}


def _rendered(rule: Rule, hosts: t.Sequence[str], quiet: t.Sequence[str]) -> t.Dict[str, t.Any]:
    annotations = {"text": template(rule.text, rule.unit), "runbook": rule.runbook}
    if quiet:
        annotations["inhibits"] = " ".join(quiet)
    if rule.inside:
        annotations["inside"] = "true"
    result: t.Dict[str, t.Any] = {"alert": rule.name, "expr": rule.expr or expression(rule, hosts)}
    if rule.hold:
        result["for"] = _duration(rule.hold)
    return {**result, "labels": {"severity": rule.severity}, "annotations": annotations}


def expression(rule: Rule, hosts: t.Sequence[str]) -> str:
    """The condition in PromQL, for the series of some hosts."""
    if rule.condition == "missing":
        # One for each host: it is from the selector that the answer has its labels. One that does not answer is another matter.
        return " or ".join(
            f"absent({_selector(rule, [host])}) unless on(host) max by (host) (up{{host={_quoted(host)}}}) == 0" for host in hosts
        )
    selector = _selector(rule, hosts)
    if rule.condition == "older_than":
        return f"time() - {selector} > {_number(rule.limit)}"
    if rule.condition == "reaches":
        window, half = _duration(rule.window), _duration(rule.window / 2)
        line = f"predict_linear({selector}[{window}], {_number(rule.within)}) >= {_number(rule.limit)}"
        # Half of the time must have been seen: a minute of unpacking is no trend.
        return f"{selector} and {line} and {selector} offset {half}"
    return f"{selector} {_COMPARE[rule.condition]} {_number(rule.limit)}"


def _selector(rule: Rule, hosts: t.Sequence[str]) -> str:
    matchers = [f"host={_quoted(hosts[0])}" if len(hosts) == 1 else f"host=~{_quoted('|'.join(map(_literal, hosts)))}"]
    matchers += [f"{name}={_quoted(value)}" for name, value in rule.labels]
    return f"{rule.metric}{{{','.join(matchers)}}}"


def _number(value: float) -> str:
    """The shortest that is read as the same number."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)


def _literal(text: str) -> str:
    """The text as a regular expression; expressions are anchored."""
    return re.sub(r"([^A-Za-z0-9_-])", r"\\\1", text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _duration(seconds: float) -> str:
    """Whole milliseconds, as Prometheus takes them."""
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"
