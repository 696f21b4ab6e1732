# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of rendered rules; what they mean is proven by promtool in test_alert_proof."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.prometheus_rules import prometheus_rules

DISK: dict[str, Any] = {
    "role": "base", "name": "DiskFull", "severity": "warning", "metric": "civitas_mount_used_ratio", "above": 0.5, "unit": "ratio",
    "for": "10m", "text": "{mountpoint} is {value} full.", "runbook": "alerts.md#disk",
}  # fmt: skip
WORSE = {**DISK, "name": "DiskFuller", "severity": "critical", "above": 0.7}
GONE = {"role": "base", "name": "Gone", "severity": "critical", "metric": "civitas_x", "missing": True, "text": "x", "runbook": "a.md#a"}


def expressions(declared: dict[str, Any]) -> dict[str, str]:
    return {rule["alert"]: rule["expr"] for group in prometheus_rules(declared)["groups"] for rule in group["rules"]}


def test_one_rule() -> None:
    assert prometheus_rules({"h": [DISK]}) == {"groups": [{"name": "base", "rules": [{
        "alert": "DiskFull",
        "expr": 'civitas_mount_used_ratio{host="h"} > 0.5',
        "for": "600s",
        "labels": {"severity": "warning"},
        "annotations": {
            "text": "{{ $labels.mountpoint }} is {{ $value | humanizePercentage }} full.",
            "runbook": "alerts.md#disk",
            "inside": "true",
        },
    }]}]}  # fmt: skip


def test_what_hosts_declare_alike_is_one_rule() -> None:
    declared = {"b.example.org": [DISK, GONE], "a": [DISK, GONE], "c": [{**DISK, "above": 0.6}]}
    rules = prometheus_rules(declared)["groups"][0]["rules"]
    assert [rule["expr"] for rule in rules] == [
        r'civitas_mount_used_ratio{host=~"a|b\\.example\\.org"} > 0.5',
        'absent(civitas_x{host="a"}) unless on(host) max by (host) (up{host="a"}) == 0'
        ' or absent(civitas_x{host="b.example.org"}) unless on(host) max by (host) (up{host="b.example.org"}) == 0',
        'civitas_mount_used_ratio{host="c"} > 0.6',
    ]


def test_who_says_less_is_named() -> None:
    rules = prometheus_rules({"h": [DISK, WORSE]})["groups"][0]["rules"]
    assert [rule["annotations"].get("inhibits") for rule in rules] == [None, "DiskFull"]


def test_expressions_are_left_as_they_are_and_written_once() -> None:
    rule = {"role": "monitoring", "name": "Up", "severity": "critical", "expr": "up == 0", "text": "{host} is down.", "runbook": "a.md#a"}
    assert expressions({"a": [rule], "b": [rule]}) == {"Up": "up == 0"}
    (group,) = prometheus_rules({"a": [{**rule, "blinds": True}]})["groups"]
    assert group["rules"][0]["annotations"]["inhibits"] == "*" and "inside" not in group["rules"][0]["annotations"]


def test_no_label_gets_out_of_its_quotes() -> None:
    found = expressions({"h": [{**DISK, "labels": {"a": 'x"} or up{a="'}}]})
    assert found == {"DiskFull": 'civitas_mount_used_ratio{host="h",a="x\\"} or up{a=\\""} > 0.5'}


@pytest.mark.parametrize(
    ("declared", "problem"), [([], "write a mapping of host"), ({"h": [{**DISK, "above": "x"}]}, "h: alert DiskFull of role")]
)
def test_problems_are_told(declared: Any, problem: str) -> None:
    with pytest.raises(AnsibleFilterError, match=problem):
        prometheus_rules(declared)
