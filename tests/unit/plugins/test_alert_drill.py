# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill raises rings by the rules themselves, says that it is a drill, and is heard or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_drill as drill
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_evaluate as light
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_metrics as metrics
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_receivers as receivers
from ansible_collections.civitas.hosting.plugins.module_utils._alert_notify import quiet
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import DRILL, DRILL_MOUNT, Alert, Rule, parse
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import Told, compose

ROOT = Path(__file__).resolve().parents[3]
NOW = 1_800_000_000.0
USUAL: dict[str, Any] = {"role": "test", "severity": "critical", "text": "{topic} is {value}.", "runbook": "alerts.md#test"}
DISK = {**USUAL, "unit": "ratio", "metric": drill.MOUNT_METRIC, "text": "{mountpoint} is {value} full."}


def rules(*items: dict[str, Any]) -> list[Rule]:
    return parse([{**USUAL, **item} for item in items])


def own_rules() -> list[Rule]:
    """Those of the collection that are written down as they are."""
    found = []
    for path in sorted(ROOT.glob("roles/*/meta/declarations.yml")):
        declared = yaml.safe_load(path.read_text(encoding="utf-8")).get("alerts") or []
        if isinstance(declared, list):
            found += [{**item, "role": path.parts[-3]} for item in declared if isinstance(item, dict) and "{{" not in str(item)]
    return parse(found)


def ringing(chosen: list[Rule], plan: drill.Plan, folder: Path, after: float) -> set[str]:
    """Which alarms of the drill a host would tell that judges itself, when they have rung for so long."""
    (folder / "drill.prom").write_text(plan.text, encoding="utf-8")
    mount = f'{drill.MOUNT_METRIC}{{mountpoint="{DRILL_MOUNT}"}} {plan.filled}\n' if plan.filled else ""
    (folder / "host.prom").write_text(mount, encoding="utf-8")
    samples, faults = metrics.read(str(folder))
    assert faults == []
    alerts, memory = light.evaluate(chosen, samples, light.memory({}), "a", NOW)
    alerts, memory = light.evaluate(chosen, samples, light.memory(json.loads(json.dumps(memory._asdict()))), "a", NOW + after)
    hidden = quiet(alerts)
    assert all(drill.is_drill(alert) for alert in alerts if alert.name in plan.alarms), alerts
    return {alert.name for alert in alerts if alert.key not in hidden}


def test_what_the_roles_declare_rings(tmp_path: Path) -> None:
    chosen = own_rules()
    plan = drill.plan(chosen, 300, NOW)
    assert {"DiskFillingUp", "InodesUsedUp", "UnitFailed", "UnitDown", "CollectorSilent", "ContainerDown"} <= set(plan.alarms)
    assert set(plan.alarms) | set(plan.left_out) == {rule.name for rule in chosen}
    assert ringing(chosen, plan, tmp_path, 301) == set(plan.alarms)
    assert plan.filled == pytest.approx(0.85)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"name": "Gone", "metric": "civitas_x", "missing": True, "text": "It is gone."}, "would have to be taken away"),
        ({"name": "Slow", "metric": "civitas_x", "above": 1, "for": "6m"}, "rings after 6 minutes only"),
        ({"name": "Grows", "metric": "civitas_x", "reaches": {"value": 1, "within": "1d", "from": "6h"}}, "the hours before"),
        ({"name": "Silent", "expr": "up == 0"}, "Prometheus itself knows"),
    ],
)
def test_what_cannot_be_raised_is_said(rule: dict[str, Any], why: str) -> None:
    plan = drill.plan(rules(rule), 300, NOW)
    assert (plan.text, plan.filled, plan.alarms) == ("", 0, {})
    assert why in plan.left_out[rule["name"]]


@pytest.mark.parametrize(
    "condition", [{"above": 0.5, "unit": "ratio"}, {"above": 4}, {"below": 0.1}, {"below": 0}, {"equals": 0}, {"older_than": "26h"}]
)
def test_every_condition_is_met(condition: dict[str, Any], tmp_path: Path) -> None:
    chosen = rules({"name": "One", "metric": "civitas_x", **condition, "labels": {"kind": "full"}})
    assert ringing(chosen, drill.plan(chosen, 300, NOW), tmp_path, 1) == {"One"}


def test_of_several_the_one_that_says_most_is_raised() -> None:
    plan = drill.plan(
        rules({**DISK, "name": "Half", "severity": "warning", "above": 0.5}, {**DISK, "name": "Full", "above": 0.7}), 300, NOW
    )
    assert plan.alarms == {"Full": "critical"} and plan.left_out == {"Half": "Full says more of the same"}
    one, other = {"name": "One", "metric": "civitas_x", "equals": 0}, {"name": "Other", "metric": "civitas_x", "equals": 2}
    plan = drill.plan(rules(one, other), 300, NOW)
    assert set(plan.alarms) == {"One"} and "same series" in plan.left_out["Other"]


def alarm(name: str, **labels: str) -> Alert:
    return Alert(name, "a", "critical", tuple(sorted(labels.items())), "X is 1.", NOW, "alerts.md#x")


def test_a_message_says_first_that_it_is_a_drill() -> None:
    message = compose("a", [Told("new", alarm("Full", mountpoint=DRILL_MOUNT))], "x")
    assert message["subject"] == "[a] DRILL, nothing is wrong: CRITICAL: X is 1."
    assert message["text"].startswith("DRILL, nothing is wrong: CRITICAL: a: X is 1.")
    assert "DRILL, nothing is wrong" in message["short"]
    assert "DRILL" not in str(compose("a", [Told("new", alarm("Full", mountpoint="/"))], "x"))


@pytest.mark.parametrize(
    "labels",
    [
        {"mountpoint": f"{DRILL_MOUNT}-archive"},
        {"mountpoint": "/srv/alarm-drill"},
        {"project": "p", "service": DRILL},
        {"drill": "x"},
    ],
)
def test_what_only_has_a_name_like_it_is_no_drill(labels: dict[str, str]) -> None:
    assert not drill.is_drill(alarm("Full", **labels))
    assert drill.is_drill(alarm("Full", **labels, **({} if "drill" in labels else {"drill": DRILL}))) == ("drill" not in labels)


def test_who_did_not_hear_is_named() -> None:
    both = receivers.parse(
        [
            {"name": "team", "email": {"to": ["a@example.org"]}},
            {"name": "duty", "severities": ["critical"], "webhook": {"url": "https://chat.example.org/x"}},
        ],
        {"from": "a@example.org"},
    )
    told = {"k": {"alert": alarm("Full", drill=DRILL)._asdict(), "at": NOW}, "l": {"alert": alarm("Real", unit="x")._asdict(), "at": NOW}}
    state = json.loads(json.dumps({both[0].name: {"told": told}, both[1].name: {"told": {}, "problem": "refused"}}))
    wanted = {"Full": "critical", "Half": "warning"}
    missing = drill.not_heard(both, state, "a", wanted)
    assert [text.split(" was not told of ")[1] for text in missing] == ["Half", "Full: refused"]
    assert len(drill.not_heard(both, state, "b", wanted)) == 3
    assert [text.split(" was not told that ")[1] for text in drill.not_over(both, state, "a")] == ["Full is over"]
    assert drill.not_over(both, state, "b") == []


def test_the_module_raises_and_ends(tmp_path: Path) -> None:
    def run(**arguments: Any) -> dict[str, Any]:
        given = json.dumps({"ANSIBLE_MODULE_ARGS": {"metrics_directory": str(tmp_path), **arguments}})
        module = [sys.executable, "-m", "ansible_collections.civitas.hosting.plugins.modules.alert_drill"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache/collections")}
        done = subprocess.run(module, input=given, env=environment, capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert run(state="raised", text="x 1\n", _ansible_check_mode=True)["changed"] and list(tmp_path.iterdir()) == []
    assert run(state="raised", text="x 1\n")["changed"]
    assert (tmp_path / "alarm-drill.prom").read_text() == "x 1\n"
    assert run(state="ended")["changed"] and list(tmp_path.iterdir()) == []
    assert not run(state="ended")["changed"]
    assert "nothing measures this host" in run(state="raised", metrics_directory=str(tmp_path / "x"))["msg"]
