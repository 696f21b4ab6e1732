# SPDX-License-Identifier: GPL-3.0-or-later
"""What confirm_access makes of a host's answers, and what it says; molecule/revert proves the rest on hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.action import confirm_access
from ansible_collections.civitas.hosting.plugins.action.confirm_access import ActionModule

ROOT = Path(__file__).resolve().parents[3]
WAITING = {"id": "1-a", "seconds_left": 60, "restoring": False}
REPORT = {
    "id": "1-a",
    "outcome": "restored",
    "at": "2026-01-02 12:01:33 UTC",
    "why": "no new connection confirmed the change within 90 seconds",
    "restored": ["/etc/ssh/sshd_config.d/00-civitas.conf"],
    "problems": [],
}
REFUSED = {"msg": "deploy@host: Permission denied (publickey)."}
GOING_BACK = {"confirmed": None, "reverted": None, "pending": {**WAITING, "restoring": True}}
NOTHING = {"confirmed": None, "reverted": None, "pending": None}


class Action(ActionModule):
    """The action at a host that gives these answers, one after the other, the last one for ever."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def _ask(self, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirm_access, "PAUSES", (0.0, 0.001))


def test_a_change_is_confirmed() -> None:
    action = Action({"confirmed": WAITING, "reverted": None, "pending": None})
    assert action._confirm(5, None) == {"changed": True, "pending": None, "confirmed": WAITING}
    assert action.asked == 1


def test_nothing_waits() -> None:
    assert Action(NOTHING)._confirm(5, None) == {}


def test_a_service_that_starts_at_this_moment_is_asked_again() -> None:
    action = Action(REFUSED, {"confirmed": WAITING, "reverted": None, "pending": None})
    assert action._confirm(5, None)["confirmed"] == WAITING


def test_a_host_that_locks_everybody_out_is_waited_for() -> None:
    action = Action(REFUSED, REFUSED, {"msg": "timed out"}, GOING_BACK, {**NOTHING, "reverted": REPORT})
    result = action._confirm(5, None)
    assert action.asked == 5
    assert result["failed"]
    assert result["reverted"] == REPORT
    assert result["msg"] == (
        "The host did not accept a new connection after this change (deploy@host: Permission denied (publickey).). The host went back to "
        "its old state at 2026-01-02 12:01:33 UTC by itself (no new connection confirmed the change within 90 seconds) and can be reached "
        "again; nothing is lost. Put back: /etc/ssh/sshd_config.d/00-civitas.conf. Look at what you changed there, correct it, and run "
        "this again. On the host: journalctl -t civitas-revert, and /var/lib/civitas/revert/last.json."
    )


def test_a_change_that_was_taken_back_before_is_no_success() -> None:
    result = Action({**NOTHING, "reverted": REPORT})._confirm(5, None)
    assert result["failed"]
    assert result["msg"].startswith("The change was not confirmed in time by a new connection. The host went back")


def test_what_this_run_lost_is_no_success_although_a_later_change_is_confirmed() -> None:
    result = Action({"confirmed": WAITING, "reverted": {**REPORT, "seconds_ago": 0}, "pending": None})._confirm(5, None)
    assert result["failed"]
    assert result["reverted"]["id"] == "1-a"
    assert result["confirmed"] == WAITING
    assert result["msg"].startswith("An earlier change was not confirmed in time by a new connection. The host went back")
    assert "What was changed after that is confirmed and stays" in result["msg"]


def test_what_a_run_before_lost_is_told_and_no_failure() -> None:
    result = Action({"confirmed": WAITING, "reverted": {**REPORT, "seconds_ago": 10**9}, "pending": None})._confirm(5, None)
    assert not result.get("failed")
    assert result["changed"]
    assert "2026-01-02 12:01:33 UTC" in result["warnings"][0]


def test_what_could_not_be_put_back_is_named() -> None:
    report = {**REPORT, "outcome": "failed", "problems": ["/etc/pam.d/sshd: Operation not permitted"]}
    result = Action({**NOTHING, "reverted": report})._confirm(5, None)
    assert "could not put back everything: /etc/pam.d/sshd: Operation not permitted. Put that right on the host" in result["msg"]


def test_many_files_are_not_all_listed() -> None:
    report = {**REPORT, "restored": [f"/etc/{number}" for number in range(50)]}
    message = Action({**NOTHING, "reverted": report})._confirm(5, None)["msg"]
    assert "/etc/11 and 38 more. Look" in message


def test_a_host_without_a_report_is_no_success_after_a_refusal() -> None:
    result = Action(REFUSED, NOTHING)._confirm(5, None)
    assert result["failed"]
    assert "or another run confirmed the change" in result["msg"]


def test_a_host_that_stays_away_is_told_with_what_to_do() -> None:
    result = Action(REFUSED)._confirm(0, None)
    assert result["failed"]
    assert "nor within 0 seconds since" in result["msg"]
    assert "its console" in result["msg"]


@pytest.mark.skipif(os.geteuid() != 0 or os.path.exists("/var/lib/civitas/revert"), reason="asks this machine, as root, when it has no log")
@pytest.mark.parametrize("check", [False, True])
def test_a_machine_where_nothing_waits(tmp_path: Path, check: bool) -> None:
    words = ["-m", "civitas.hosting.confirm_access", "localhost", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache" / "collections"),
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
        "ANSIBLE_LOCAL_TEMP": str(tmp_path),
    }
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible"), *words, *(["--check"] if check else [])],
        capture_output=True, text=True, env=environment, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout[done.stdout.index("{") :])
    assert (result["changed"], result["pending"], result["confirmed"]) == (False, None, None)
    assert not os.path.exists("/var/lib/civitas/revert")
