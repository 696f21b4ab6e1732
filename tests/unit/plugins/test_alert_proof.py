# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule of every role fires, does not fire, and resolves: by promtool of each distribution's Prometheus, and on a host without one."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.module_utils import (
    _alert_evaluate,
    _alert_metrics,
    _alert_notify,
    _alert_promql,
    _alert_values,
)
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import CONDITIONS, UNITS, Rule, inhibited_by, parse

from tests.unit.alert_series import HOST, MINUTE, Story, story
from tests.unit.plugins.test_declarations import ROOT, items
from tools import bed, judges

# What roles need beside their defaults to declare all that they can.
VARIABLES: dict[str, Any] = {
    "backup_copy_hosts": [{"name": "records-1", "signing_keys": ["ssh-ed25519 AAAA"], "retention": "15 days"}],
    "certificates_internal": [{"name": "edge"}],
    "logs_receive": True,
    "logs_receiver": {"name": "watch-1", "address": "192.0.2.10", "tls_name": "watch-1.internal"},
}
# One of each kind, whatever roles declare.
KINDS: list[dict[str, Any]] = [
    {"name": "KindAbove", "severity": "warning", "metric": "civitas_a", "above": 0.5, "for": "10m", "unit": "ratio",
     "text": "{mountpoint} on {host} is {value} full."},
    {"name": "KindAboveMuch", "severity": "critical", "metric": "civitas_a", "above": 0.7, "unit": "ratio",
     "text": "{mountpoint}: {value}"},
    {"name": "KindBelow", "severity": "warning", "metric": "civitas_b", "labels": {"unit": 'a"b\\c'}, "below": -3.5,
     "text": "{unit} {value}."},
    {"name": "KindEquals", "severity": "critical", "metric": "civitas_c", "equals": 0, "for": "90s", "unit": "count", "text": "{value}."},
    {"name": "KindOlder", "severity": "warning", "metric": "civitas_d", "older_than": "26h", "unit": "seconds", "text": "For {value}."},
    {"name": "KindPassed", "severity": "warning", "metric": "civitas_d", "older_than": 0, "for": "2m", "text": "It is over."},
    {"name": "KindReaches", "severity": "warning", "metric": "civitas_a", "reaches": {"value": 1.0, "within": "24h", "from": "6h"},
     "for": "30m", "unit": "ratio", "text": "{mountpoint} is {value} full, and will be wholly."},
    {"name": "KindMissing", "severity": "critical", "metric": "civitas_e", "missing": True, "for": "5m", "text": "None on {host}."},
    {"name": "KindMissingLabel", "severity": "warning", "metric": "civitas_e", "labels": {"queue": "deferred"}, "missing": "True",
     "text": "None of {queue} on {host}."},
    {"name": "KindBytes", "severity": "warning", "metric": "civitas_f", "below": 536870912, "unit": "bytes", "text": "{value} are left."},
]  # fmt: skip


# The alarm of the program itself.
UNREACHABLE = {**KINDS[0], "name": _alert_notify.UNREACHABLE_RULE, "runbook": _alert_notify.UNREACHABLE_PAGE}


@functools.cache
def declared() -> tuple[dict[str, Any], ...]:
    """All rules there are, those of the test first."""
    found = [{"role": "kinds", "runbook": "alerts.md#kind", **item} for item in KINDS]
    roles = [
        path.parents[1].name for path in sorted(ROOT.glob("roles/*/meta/declarations.yml")) if "alerts" in yaml.safe_load(path.read_text())
    ]
    found += items(*roles, kind="alerts", **VARIABLES)
    silent = set(roles) - {str(item["role"]) for item in found}
    assert not silent, f"{', '.join(silent)}: no alert is declared with the role's defaults; add what it needs to VARIABLES"
    return tuple(found)


def rules() -> list[Rule]:
    return parse(declared())


def measured() -> list[Rule]:
    return [rule for rule in rules() if not rule.expr]


# --- promtool ---------------------------------------------------------------------------------------------------------------------------


def notation(values: list[float | None]) -> str:
    """The values as promtool takes them; a scrape that no longer finds a series marks its end."""
    words = []
    for before, value in zip([None, *values], values, strict=False):
        words.append(repr(value) if value is not None else "stale" if before is not None else "_")
    return " ".join(words)


def shown(rule: Rule, told: Story, minute: int) -> dict[str, Any]:
    """The alarm as promtool expects it."""
    value = told.values[minute]
    if rule.condition == "older_than":
        value = minute * MINUTE - (value or 0.0)
    quiet = inhibited_by(rule, [other for other in rules() if other.role == rule.role])
    annotations = {
        "text": _alert_values.sentence(rule.text, rule.unit, HOST, told.labels, 1.0 if value is None else value),
        "runbook": rule.runbook,
        # What a host measures says nothing while that host is silent.
        "inside": "true",
        **({"inhibits": " ".join(quiet)} if quiet else {}),
    }
    # What is missing has no labels but those that were asked for.
    labels = dict(rule.labels) if rule.condition == "missing" else told.labels
    return {"exp_labels": {**labels, "host": HOST, "severity": rule.severity}, "exp_annotations": annotations}


def promtool_test(rule: Rule) -> dict[str, Any]:
    told = story(rule)
    selector = ",".join(f"{name}={_alert_promql._quoted(value)}" for name, value in {**told.labels, "host": HOST}.items())
    checks = [
        {"eval_time": f"{minute}m", "alertname": rule.name, "exp_alerts": [shown(rule, told, minute)] if rings else []}
        for minute, rings in sorted(told.rings.items())
    ]
    series = [{"series": f"{rule.metric}{{{selector}}}", "values": notation(told.values)}]
    # Another host, which declares nothing, measures what would ring.
    worst = next(value for minute, value in enumerate(told.values) if told.rings.get(minute))
    if worst is not None:
        series.append(
            {"series": f"{rule.metric}{{{selector.replace(HOST, 'server-12example.org')}}}", "values": f"{worst!r}x{len(told.values)}"}
        )
    return {"name": rule.name, "interval": "1m", "input_series": series, "alert_rule_test": checks}


def files(found: list[dict[str, Any]], hosts: tuple[str, ...] = (HOST,)) -> dict[str, str]:
    """All rules in one file, and for each name a file of its own with the tests that follow from the conditions.

    promtool judges all rules of a test at every minute of it, so that with all of them in one it would take minutes.
    """
    rendered = _alert_promql.render(dict.fromkeys(hosts, found))
    content = {"rules.yml": yaml.safe_dump(rendered)}
    tests: dict[str, list[dict[str, Any]]] = {}
    for rule in parse(found):
        if not rule.expr:
            tests.setdefault(rule.name, []).append(promtool_test(rule))
    for name, groups in tests.items():
        own = [rule for group in rendered["groups"] for rule in group["rules"] if rule["alert"] == name]
        content[f"{name}.rules.yml"] = yaml.safe_dump({"groups": [{"name": name, "rules": own}]})
        document = {"rule_files": [f"{name}.rules.yml"], "evaluation_interval": "1m", "tests": groups}
        content[f"{name}.tests.yml"] = yaml.safe_dump(document)
    return content


@functools.cache
def no_engine() -> str:
    """Why nothing can be run in a container here; empty when it can."""
    try:
        bed.ensure_engine()
    except bed.BedError as error:
        return str(error)
    return ""


def judged(distribution: str, content: dict[str, str]) -> str:
    if no_engine():
        pytest.skip(f"promtool is not judged: {no_engine()}")
    tests = [name for name in content if name.endswith("tests.yml")]
    return judges.promtool(distribution, content, "check", "rules", "rules.yml") or judges.promtool(
        distribution, content, "test", "rules", *tests
    )


@pytest.mark.parametrize("distribution", judges.PROMTOOLS)
def test_every_rule_fires_does_not_fire_and_resolves(distribution: str) -> None:
    assert judged(distribution, files(list(declared()))) == ""


@pytest.mark.parametrize("distribution", judges.PROMTOOLS)
def test_of_a_host_that_does_not_answer_nothing_is_missing(distribution: str) -> None:
    found = [{**item, "role": "kinds", "runbook": "a.md#a"} for item in KINDS if item["name"] == "KindMissing"]
    (rule,) = parse(found)
    tests = []
    for first, second, rings in (("1x20", "1x20", True), ("0x20", "1x20", True), ("0x20", "0x20", False)):
        series = [{"series": f'up{{host="{HOST}",job="{job}"}}', "values": up} for job, up in (("host", first), ("mail", second))]
        expected = [shown(rule, Story({}, [1.0] * 21, {}), 20)] if rings else []
        check = {"eval_time": "20m", "alertname": rule.name, "exp_alerts": expected}
        tests.append({"interval": "1m", "input_series": series, "alert_rule_test": [check]})
    content = {"rules.yml": files(found)["rules.yml"]}
    content["tests.yml"] = yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    assert judged(distribution, content) == ""


@pytest.mark.parametrize("distribution", judges.PROMTOOLS)
def test_a_rule_for_several_hosts_is_the_same_for_each(distribution: str) -> None:
    # What is missing on the other host is another matter.
    found = [item for item in declared() if "missing" not in item]
    assert judged(distribution, files(found, (HOST, "other(1)"))) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "name"),
    [
        ("} > 0.5", "} >= 0.5", "KindAbove"),
        ("for: 600s", "for: 660s", "KindAbove"),
        ("for: 600s", "for: 540s", "KindAbove"),
        ("} > 93600", "} > 93660", "KindOlder"),
        ("humanizePercentage", "humanize", "KindAbove"),
        ("offset 10800s", "offset 60s", "KindReaches"),
        ("86400) >= 1", "8640) >= 1", "KindReaches"),
        ("absent(", "count(", "KindMissing"),
        ("== 0", "== bool 0", "KindEquals"),
        ("} < -3.5", "} <= -3.4", "KindBelow"),
    ],
)
def test_promtool_finds_a_rule_that_is_wrong(right: str, wrong: str, name: str) -> None:
    found = [item for item in declared() if item["role"] == "kinds"]
    content = files(found)
    assert right in content["rules.yml"]
    faulty = {file: text.replace(right, wrong) if file.endswith("rules.yml") else text for file, text in content.items()}
    assert name in judged("debian13", faulty)


# --- the host itself --------------------------------------------------------------------------------------------------------------------


def said_by_the_host(rule: Rule) -> list[str]:
    """What the host itself says otherwise than it should, through the story of a rule."""
    told = story(rule)
    labels = tuple(sorted(told.labels.items()))
    memory = _alert_evaluate.Memory({}, {})
    wrong = []
    for minute, value in enumerate(told.values):
        samples: _alert_metrics.Samples = {rule.metric: [(labels, value)] if value is not None else []}
        alerts, memory = _alert_evaluate.evaluate([rule], samples, memory, HOST, minute * MINUTE)
        if minute not in told.rings:
            continue
        if bool(alerts) != told.rings[minute]:
            wrong.append(f"{rule.name} {'rings' if alerts else 'does not ring'} after {minute} minutes")
        for alert in alerts:
            found = {**dict(alert.labels), "host": alert.host, "severity": alert.severity}
            expected = shown(rule, told, minute)
            if (found, alert.text, alert.runbook) != (expected["exp_labels"], expected["exp_annotations"]["text"], rule.runbook):
                wrong.append(f"{rule.name} says {found} {alert.text!r} and not {expected}")
    return wrong


def test_the_host_itself_says_the_same() -> None:
    assert [line for rule in measured() for line in said_by_the_host(rule)] == []


@pytest.mark.parametrize(
    "rule", parse([{"role": "kinds", "runbook": "alerts.md#kind", **item} for item in KINDS]), ids=lambda rule: rule.name
)
def test_the_story_finds_a_host_that_is_wrong(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    real = _alert_evaluate.evaluate
    # When a trend begins to be one is not known to the minute.
    if rule.condition != "reaches":
        monkeypatch.setattr(_alert_evaluate, "evaluate", lambda rules, *others: real([rules[0]._replace(hold=rule.hold + 60)], *others))
        assert said_by_the_host(rule)
    monkeypatch.setattr(_alert_evaluate, "evaluate", lambda _rules, _samples, memory, *_others: ([], memory))
    assert said_by_the_host(rule)


# --- a disk over three days -------------------------------------------------------------------------------------------------------------

# Minutes between two looks; a day; and how the disk fills, by minute.
LOOK, DAY = 5, 1440


def nightly(base: float, dump: float, hours: float, removed: float) -> list[float]:
    """A dump that begins at 2 o'clock, takes so many hours and is removed at that hour; and a little that stays."""
    hour = [minute % DAY / 60 for minute in range(0, 3 * DAY, LOOK)]
    return [base + index * 3e-6 + (dump * min(1, (at - 2) / hours) if 2 <= at < removed else 0) for index, at in enumerate(hour)]


def growing(base: float, hours: float) -> list[float]:
    """Full so many hours after the first day."""
    return [base + (1 - base) * min(1, max(0, minute - DAY) / 60 / hours) for minute in range(0, 3 * DAY, LOOK)]


# Whether it rings, and how full the disk may be then at most.
FILLING: dict[str, tuple[list[float], float]] = {
    "a tenth for four hours": (nightly(0.4, 0.1, 1, 6), 0),
    "on a fuller disk": (nightly(0.58, 0.1, 1, 6), 0),
    "slowly": (nightly(0.5, 0.1, 3, 8), 0),
    "a fifth": (nightly(0.4, 0.2, 2, 7), 0),
    "a day": (growing(0.3, 24), 0.65),
    "twenty hours": (growing(0.2, 20), 0.65),
    "ten days": (growing(0.4, 240), 0),
}


def tomorrow() -> Rule:
    return next(rule for rule in rules() if rule.name == "DiskFullTomorrow")


@pytest.mark.parametrize("name", FILLING)
def test_the_host_tells_growth_from_a_nightly_dump(name: str) -> None:
    rule = tomorrow()
    values, latest = FILLING[name]
    memory = _alert_evaluate.Memory({}, {})
    rings = []
    for index, value in enumerate(values):
        samples: _alert_metrics.Samples = {rule.metric: [((("mountpoint", "/"),), value)]}
        alerts, memory = _alert_evaluate.evaluate([rule], samples, memory, HOST, 1.8e9 + index * LOOK * MINUTE)
        rings += [value] if alerts else []
    assert bool(rings) == bool(latest) and rings[:1] <= [latest]


@pytest.mark.parametrize("distribution", judges.PROMTOOLS)
def test_prometheus_tells_growth_from_a_nightly_dump(distribution: str) -> None:
    rule = tomorrow()
    tests = []
    for values, latest in FILLING.values():
        series = [{"series": f'{rule.metric}{{host="{HOST}",mountpoint="/"}}', "values": " ".join(map(repr, values))}]
        # Where it may ring at the latest; where it may not, all hours are looked at.
        due = next((index for index, value in enumerate(values) if value > latest), 0)
        looks = [due] if latest else range(0, len(values), 60 // LOOK)
        expected = {"exp_labels": {"host": HOST, "mountpoint": "/", "severity": rule.severity}} if latest else {}
        checks = []
        for index in looks:
            found = {**expected, "exp_annotations": shown(rule, Story({"mountpoint": "/"}, list(values), {}), index)["exp_annotations"]}
            checks.append({"eval_time": f"{index * LOOK}m", "alertname": rule.name, "exp_alerts": [found] if latest else []})
        tests.append({"interval": f"{LOOK}m", "input_series": series, "alert_rule_test": checks})
    document = {"rule_files": ["rules.yml"], "evaluation_interval": f"{LOOK}m", "tests": tests}
    # With all of the role, as it says which of them are quiet meanwhile.
    rendered = _alert_promql.render({HOST: [item for item in declared() if item["role"] == rule.role]})
    assert judged(distribution, {"rules.yml": yaml.safe_dump(rendered), "tests.yml": yaml.safe_dump(document)}) == ""


# --- all of it --------------------------------------------------------------------------------------------------------------------------


def test_all_kinds_and_units_are_proven() -> None:
    kinds = [rule for rule in rules() if rule.role == "kinds"]
    assert {rule.condition for rule in kinds} == set(CONDITIONS) and {rule.unit for rule in kinds} == set(UNITS)


def test_every_expression_is_proven_elsewhere() -> None:
    """What series there may be cannot be known from an expression: a test that asks promtool names the rule."""
    others = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    proofs = [text for text in others if "judges.promtool(" in text]
    assert [rule.name for rule in rules() if rule.expr and not any(f'"{rule.name}"' in text for text in proofs)] == []


def sections(page: Path) -> set[str]:
    """The anchors of a page."""
    heads = [line.lstrip("#").strip() for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("##")]
    return {head.lower().replace(" ", "-") for head in heads}


def test_every_rule_has_its_section_in_a_runbook() -> None:
    missing = []
    for rule in [*(rule for rule in rules() if rule.role != "kinds"), *parse([UNREACHABLE])]:
        name, _hash, section = rule.runbook.partition("#")
        page = ROOT / "docs" / "runbooks" / name
        if section not in sections(page) or rule.name not in page.read_text(encoding="utf-8"):
            missing.append(f"{rule.role}: {rule.name}: {rule.runbook}")
    assert missing == []
