# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role monitoring finds by itself: each of its rules fires, does not fire and resolves, by promtool of each distribution."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_promql

from tests.unit.plugins.test_alert_proof import no_engine
from tests.unit.plugins.test_declarations import ROOT, items
from tools import judges

VARIABLES: dict[str, Any] = {
    "monitoring_host_name": "watch",
    "monitoring_targets": [{"name": "h", "address": "10.0.0.5", "modules": ["node", "postgres"]}],
    "monitoring_probes": [
        {"name": "site", "type": "http", "target": "https://x/", "host": "h"},
        {"name": "own", "type": "icmp", "target": "x"},
    ],
}
NODE = {"host": "h", "job": "node", "instance": "h"}
OTHER = {"host": "h2", "job": "node", "instance": "h2"}
PROBE = {"host": "h", "job": "probe", "instance": "site", "probe": "site", "target": "https://x/"}
OWN = {"host": "watch", "job": "prometheus", "instance": "prometheus"}
DAY = 86400


def named(metric: str, labels: dict[str, str]) -> str:
    return f"{metric}{{{','.join(f'{name}={json.dumps(value)}' for name, value in labels.items())}}}"


CAN_BE_TOLD = named("civitas_alerts_can_be_told", {**OWN, "job": "alerts", "instance": "alerts"})
# Well for six minutes, wrong for twenty-one, well again.
WELL_WRONG_WELL = "1x5 0x20 1x60"

# Name to cases: series with a value each minute, the minutes to look at with whether it rings there, and the labels of what rings.
Case = tuple[dict[str, str], dict[int, bool], dict[str, str]]


# Whatever else is there, these are not missing.
THERE = {
    **{named("up", {**NODE, "job": job}): "1x200" for job in ("node", "postgres")},
    **{named("probe_success", {"host": host, "probe": name}): "1x200" for host, name in (("h", "site"), ("watch", "own"))},
}
STORIES: dict[str, list[Case]] = {
    "HostSilent": [
        (
            {named("up", NODE): WELL_WRONG_WELL, named("up", {**NODE, "job": "postgres"}): WELL_WRONG_WELL,
             # One of two exporters is not the host; what this host says of itself is none.
             named("up", OTHER): "0x90", named("up", {**OTHER, "job": "postgres"}): "1x90",
             named("up", {**OWN, "job": "alertmanager"}): "0x90", named("up", PROBE): "0x90"},
            {8: False, 9: True, 26: True, 27: False},
            {"host": "h"},
        )
    ],
    "TargetDown": [
        ({named("up", NODE): WELL_WRONG_WELL, named("up", PROBE): WELL_WRONG_WELL, named("up", OWN): WELL_WRONG_WELL},
         {10: False, 11: True, 26: True, 27: False}, NODE)
    ],
    "MonitoringPartDown": [
        ({named("up", labels): WELL_WRONG_WELL, named("up", NODE): WELL_WRONG_WELL}, {10: False, 11: True, 26: True, 27: False}, labels)
        for labels in (PROBE, OWN)
    ],
    "TargetMissing": [
        ({named("up", {**NODE, "job": "postgres"}): "_x13 1x30", named("up", NODE): "1x50"}, {9: False, 10: True, 12: True, 13: False},
         {"host": "h", "job": "postgres"}),
        # What is down is not missing.
        ({named("up", NODE): "0x90", named("up", {**NODE, "job": "postgres"}): "0x90"}, {60: False}, {}),
    ],
    "ProbeFailed": [({named("probe_success", PROBE): WELL_WRONG_WELL}, {8: False, 9: True, 26: True, 27: False}, PROBE)],
    "ProbeMissing": [
        ({named("probe_success", PROBE): "_x13 1x30", named("probe_success", {**PROBE, "probe": "own", "host": "watch"}): "0x50"},
         {9: False, 10: True, 12: True, 13: False}, {"host": "h", "probe": "site"}),
    ],
    "ProbeCertificateEndsSoon": [
        ({named("probe_ssl_earliest_cert_expiry", PROBE): f"{14 * DAY + 300}x100 {200 * DAY}x20"},
         {65: False, 66: True, 100: True, 101: False}, PROBE),
        ({named("probe_ssl_earliest_cert_expiry", PROBE): f"{16 * DAY}x150"}, {150: False}, {}),
    ],
    "ProbeCertificateEnds": [
        ({named("probe_ssl_earliest_cert_expiry", PROBE): f"{3 * DAY + 300}x50 {200 * DAY}x20"},
         {15: False, 16: True, 50: True, 51: False}, PROBE),
        # Ended is worse, and rings as well.
        ({named("probe_ssl_earliest_cert_expiry", PROBE): "60x50"}, {9: False, 40: True}, PROBE),
    ],
    "PrometheusConfigurationOld": [
        ({named("prometheus_config_last_reload_successful", OWN): WELL_WRONG_WELL}, {10: False, 11: True, 26: True, 27: False}, OWN)
    ],
    "AlertmanagerConfigurationOld": [
        ({named("alertmanager_config_last_reload_successful", OWN): WELL_WRONG_WELL}, {10: False, 11: True, 26: True, 27: False}, OWN)
    ],
    "RulesFailing": [
        ({named("prometheus_rule_evaluation_failures_total", {**OWN, "rule_group": "a"}): "0x9 1+1x10 11x60"},
         {9: False, 14: False, 17: True, 30: True, 40: False}, {"host": "watch"}),
        ({named("prometheus_rule_evaluation_failures_total", {**OWN, "rule_group": "a"}): "7x60"}, {60: False}, {}),
    ],
    "NotificationsFailing": [
        *(({named(metric, OWN): "0x9 1+1x30 31x60"}, {9: False, 19: False, 22: True, 45: True, 55: False}, {"host": "watch"})
          for metric in ("alertmanager_notifications_failed_total", "prometheus_notifications_errors_total",
                         "prometheus_notifications_dropped_total")),
        # One that did not leave and did a minute later is no alarm.
        ({named("alertmanager_notifications_failed_total", OWN): "0x9 1x90"}, {15: False, 18: False, 25: False, 60: False}, {}),
    ],
    "HistoryNearItsBound": [
        ({named("prometheus_tsdb_storage_blocks_bytes", OWN): "90x5 91x70 90x20",
          named("prometheus_tsdb_retention_limit_bytes", OWN): "100x120"},
         {65: False, 66: True, 76: True, 77: False}, OWN),
        # Without a bound nothing is near it.
        ({named("prometheus_tsdb_storage_blocks_bytes", OWN): "91x120", named("prometheus_tsdb_retention_limit_bytes", OWN): "0x120"},
         {110: False}, {}),
    ],
    "DeadMan": [
        ({CAN_BE_TOLD: "1x90"}, {0: True, 60: True}, {}),
        # It is held back while nobody can be told, or who tells is not there, but for a restart.
        ({CAN_BE_TOLD: "1x10 0x10 1x10 stale 1x10 stale _x20"},
         {10: True, 12: True, 15: False, 21: False, 22: True, 33: True, 46: True, 50: False}, {}),
        # It is held back while alarms do not leave, and comes again.
        ({CAN_BE_TOLD: "1x90",
          named("alertmanager_notifications_failed_total", OWN): "0x9 1+1x30 31x60"},
         {9: True, 25: False, 45: False, 60: True}, {}),
    ],
}  # fmt: skip


def declared() -> list[dict[str, Any]]:
    return list(items("monitoring", kind="alerts", **VARIABLES))


def records() -> dict[str, Any]:
    """The rules that reports are made of, for questions every 30 seconds."""
    text = (ROOT / "roles/monitoring/vars/main.yml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)["__monitoring_records"]
    return yaml.safe_load(yaml.safe_dump(found, width=10000).replace("{{ monitoring_interval }}", "30"))


def promtool_tests(found: list[dict[str, Any]], names: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The stories with these names, all unless some are given."""
    severity = {item["name"]: item["severity"] for item in found}
    tests = []
    for name in names or STORIES:
        for series, rings, labels in STORIES[name]:
            shown = named("ALERTS", {"alertname": name, "alertstate": "firing", "severity": severity[name], **labels})
            checks = [
                {
                    "expr": f'ALERTS{{alertname="{name}",alertstate="firing"}}',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": shown, "value": 1}] if ring else [],
                }
                for minute, ring in rings.items()
            ]
            given = [{"series": text, "values": values} for text, values in series.items()]
            tests.append({"name": name, "interval": "1m", "input_series": given, "promql_expr_test": checks})
    return tests


def judged(distribution: str, rules: dict[str, Any], tests: list[dict[str, Any]]) -> str:
    if no_engine():
        pytest.skip(f"promtool is not judged: {no_engine()}")
    files = {
        "rules.yml": yaml.safe_dump(rules),
        "tests.yml": yaml.safe_dump({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}),
    }
    return judges.promtool(distribution, files, "check", "rules", "rules.yml") or judges.promtool(
        distribution, files, "test", "rules", "tests.yml"
    )


def test_every_rule_has_a_story_and_names_only_labels_that_it_has() -> None:
    found = {item["name"]: item for item in declared()}
    assert set(found) == set(STORIES)
    for name, cases in STORIES.items():
        fields = set(re.findall(r"{(\w+)}", found[name]["text"])) - {"value"}
        for _series, rings, labels in cases:
            assert not any(rings.values()) or fields <= set(labels), f"{name}: {fields - set(labels)}"


def test_a_silent_host_hides_what_it_says_of_itself_and_nothing_else() -> None:
    inside = {item["name"] for item in declared() if item.get("inside")}
    assert inside == {"TargetDown", "TargetMissing"}
    assert [item["name"] for item in declared() if item.get("blinds")] == ["HostSilent"]


def test_every_rule_has_a_section_in_the_runbook() -> None:
    text = (ROOT / "docs/runbooks/monitoring.md").read_text(encoding="utf-8")
    for item in declared():
        page, section = item["runbook"].split("#")
        assert page == "monitoring.md"
        assert re.search(rf"(?ms)^## {section}$(?:(?!^## ).)*\*\*{item['name']}\*\*", text), item["name"]


@pytest.mark.parametrize("distribution", judges.PROMTOOLS)
def test_every_rule_fires_does_not_fire_and_resolves(distribution: str) -> None:
    found = declared()
    assert judged(distribution, _alert_promql.render({"watch": found}), promtool_tests(found)) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "name"),
    [
        ("max by (host) (up", "min by (host) (up", "HostSilent"),
        ('job!~"prometheus|alertmanager|blackbox|alerts|probe"', 'job!~"prometheus"', "HostSilent"),
        ("} == 0", "} != 1", "TargetMissing"),
        ("14 * 86400", "13 * 86400", "ProbeCertificateEndsSoon"),
        ("3 * 86400", "4 * 86400", "ProbeCertificateEnds"),
        ("> 0.9", ">= 0.9", "HistoryNearItsBound"),
        ("unless on () ALERTS", "and on () ALERTS", "DeadMan"),
        ("[3m]", "[30m]", "DeadMan"),
        ('probe="site"', 'probe="sit"', "ProbeMissing"),
    ],
)
def test_promtool_finds_a_rule_that_is_wrong(right: str, wrong: str, name: str) -> None:
    found = declared()
    text = yaml.safe_dump(_alert_promql.render({"watch": found}), width=10000)
    if name == "TargetMissing":
        # What is down shall not count as missing.
        right, wrong = 'absent(up{host="h",job="postgres"})', 'absent(up{host="h",job="postgres"} == 1)'
    assert right in text
    assert name in judged("debian13", yaml.safe_load(text.replace(right, wrong)), promtool_tests(found, [name]))


@pytest.mark.parametrize("distribution", judges.PROMTOOLS)
def test_availability_is_recorded_in_seconds(distribution: str) -> None:
    """Up until minute 10, down until 20, up until 30, not measured until 37:30, up."""
    # A question each 30 seconds, as the role asks.
    tests = [
        {
            "interval": "30s",
            "input_series": [
                {"series": named("probe_success", PROBE), "values": "1x19 0x20 1x18 stale _x14 1x30"},
                # The same probe with another target, before it was changed.
                {"series": named("probe_success", {**PROBE, "probe": "own", "target": "y"}), "values": "1x100"},
            ],
            "promql_expr_test": [
                {
                    "expr": f'civitas:probe_{kind}_seconds:5m{{probe="site"}}',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": f'civitas:probe_{kind}_seconds:5m{{probe="site"}}', "value": value}],
                }
                for minute, measured, down in ((5, 300, 0), (15, 300, 300), (20, 300, 300), (30, 300, 0), (40, 180, 0), (45, 300, 0))
                for kind, value in (("measured", measured), ("down", down))
            ],
        }
    ]
    assert judged(distribution, records(), tests) == ""
