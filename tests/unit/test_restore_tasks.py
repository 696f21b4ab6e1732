# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook restore goes on with, and what it refuses as something else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SET = "20260131T000212Z-0123456789ab"
LAST = {"phase": "restored", "from": "records", "only": [], "set": SET, "begin": 1769817732.0}
CASES: dict[str, tuple[dict[str, Any] | None, dict[str, Any], bool]] = {
    "the_same": (LAST, {}, False),
    "its_set": (LAST, {"restore_set": SET}, False),
    "another_set": (LAST, {"restore_set": "20260130T000212Z-0123456789ab"}, True),
    "later": (LAST, {"restore_before": "2026-02-01T00:00:00Z"}, False),
    "before_it": (LAST, {"restore_before": "2026-01-30T00:00:00Z"}, True),
    "another_host": (LAST, {"restore_from_host": "other"}, True),
    "other_parts": (LAST, {"restore_only": "files/documents"}, True),
    "same_parts": ({**LAST, "only": ["b", "a"]}, {"restore_only": "a, b"}, False),
    "no_set_yet": ({**LAST, "phase": "fetching", "set": ""}, {"restore_set": SET}, False),
    "none_ever": (None, {"restore_set": SET}, False),
    "finished": ({**LAST, "phase": "accepted"}, {"restore_from_host": "other"}, False),
}
PLAY = """
- hosts: all
  gather_facts: false
  vars_files: ["{{ out }}/{{ inventory_hostname }}.given.json"]
  tasks:
    - ansible.builtin.copy:
        content: "{{ __restore_another | bool | to_json }}"
        dest: "{{ out }}/{{ inventory_hostname }}.json"
"""


@pytest.fixture(name="judged", scope="module")
def _judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bool]:
    """By case, whether it is something else."""
    folder = tmp_path_factory.mktemp("restore")
    tasks = yaml.safe_load((ROOT / "playbooks/tasks/restore.yml").read_text(encoding="utf-8"))
    (task,) = [one for one in tasks if one["name"] == "Restore"]
    for name, (last, asked, _another) in CASES.items():
        status = {"stdout": json.dumps({"last": last, "phase": last["phase"] if last else ""})}
        given = {**task["vars"], "restore_host": "records", "__restore_before_run": status, **asked}
        (folder / f"{name}.given.json").write_text(json.dumps(given), encoding="utf-8")
    (folder / "hosts").write_text("".join(f"{name} ansible_connection=local\n" for name in CASES), encoding="utf-8")
    (folder / "play.yml").write_text(PLAY, encoding="utf-8")
    words = {"out": str(folder), "ansible_python_interpreter": sys.executable}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "hosts"), str(folder / "play.yml"),
         "-e", json.dumps(words)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1"},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_another_restore_than_the_one_under_way(judged: dict[str, bool], case: str) -> None:
    assert judged[case] is CASES[case][2]
