# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tasks of the role access hand to its modules, and that what they change in the way in is confirmed."""

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
TASKS = ROOT / "roles" / "access" / "tasks"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"
KEYS = [KEY + tail for tail in ("OMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl", "Iqo4904P0jEdLMFMpVWoFb1s0m3ReP4RPlbMRUFh9pl")]
CASES = {
    "everybody": {},
    "nobody": {"access_second_factor": False},
    "only": {"__access_only": ["ann"]},
    "only_a_leaver": {"__access_only": ["gone"]},
    "reset": {"__access_reset": ["ben"], "__access_revoke": []},
    "revoke": {"__access_reset": [], "__access_revoke": ["ben"]},
    "neither": {"__access_reset": [], "__access_revoke": []},
}
PLAY = """
- hosts: all
  gather_facts: false
  vars_files: ["{{ role }}/defaults/main.yml", "{{ role }}/vars/main.yml", "{{ out }}/{{ inventory_hostname }}.given.json"]
  tasks:
    - ansible.builtin.copy:
        content: "{{ [(wanted.people | map(attribute='name') | list), wanted.exclusive] | to_json }}"
        dest: "{{ out }}/{{ inventory_hostname }}.json"
"""


def tasks(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((TASKS / f"{name}.yml").read_text(encoding="utf-8"))
    return found


@pytest.fixture(name="handed", scope="module")
def _handed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By case: whose second factor is dealt with, and whether it is taken from everybody else."""
    folder = tmp_path_factory.mktemp("access")
    (task,) = tasks("second_factor")
    people = [{"name": name, "ssh_keys": [key]} for name, key in zip(("ann", "ben"), KEYS, strict=True)]
    given = {**task.get("vars", {}), "access_people": people, "inventory_dir": "/nowhere", "wanted": task["civitas.hosting.second_factors"]}
    for name, more in CASES.items():
        (folder / f"{name}.given.json").write_text(json.dumps({**given, **more}), encoding="utf-8")
    (folder / "hosts").write_text("".join(f"{name} ansible_connection=local\n" for name in CASES), encoding="utf-8")
    (folder / "play.yml").write_text(PLAY, encoding="utf-8")
    words = {"role": str(TASKS.parent), "out": str(folder), "ansible_python_interpreter": sys.executable}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "hosts"), str(folder / "play.yml"),
         "-e", json.dumps(words)],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1"},
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in CASES}


@pytest.mark.parametrize(
    ("case", "names", "exclusive"),
    [
        ("everybody", ["ann", "ben"], True),
        ("nobody", [], False),
        ("only", ["ann"], False),
        ("only_a_leaver", [], False),
        ("reset", ["ben"], False),
        ("revoke", ["ben"], False),
        ("neither", ["ann", "ben"], True),
    ],
)
def test_a_playbook_for_one_person_touches_the_second_factor_of_nobody_else(
    handed: dict[str, Any], case: str, names: list[str], exclusive: bool
) -> None:
    assert handed[case] == [names, exclusive]


def test_each_change_of_the_way_in_is_confirmed_by_its_own_step() -> None:
    *_before, people = tasks("people")
    assert "civitas.hosting.confirm_access" in people
    assert "__access_accounts.revert_pending" in people["when"]
    assert "__access_bootstrap.revert_pending" in people["when"]
    # Not confirmed again, later, by what is still remembered.
    assert "__access_accounts" not in json.dumps(tasks("proof"))


@pytest.mark.parametrize("playbook", ["grant_access", "revoke_access"])
def test_the_playbooks_leave_that_to_the_role(playbook: str) -> None:
    assert "confirm_access" not in (ROOT / "playbooks" / f"{playbook}.yml").read_text(encoding="utf-8")
