#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_people
short_description: Bring the accounts of people, their keys and their rights into a wanted state
version_added: 0.1.0
description:
  - Reads accounts, groups, keys, sudo rules, jobs and processes once, applies only the differences, and reports person by person.
  - Keys lie in C(/etc/ssh/civitas/keys), where only root writes; sshd has to be told so (C(AuthorizedKeysFile)). Sudo rules follow from
    groups. Nobody stays in the group docker.
  - Who is absent, has no key, or was made here earlier and is no longer listed, loses keys, sudo, groups, sessions, jobs and second factor.
    The account is locked and expired, and stays, so that its number never becomes somebody else's.
  - An account that was there before is taken over when it is listed. Others are never touched, except that they leave the group docker and
    the groups of this collection; those that can log in or have root's rights are reported.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Reports what would change and changes nothing. Groups and programs that a package would bring may be missing.
    support: full
  diff_mode:
    description: Shows groups, expiry and keys of changed people before and after.
    support: full
options:
  people:
    description:
      - Who gets in, as the variable C(access_people) of the role civitas.hosting.access; the lists of OpenCRVS inventories are understood.
    type: list
    elements: dict
    required: true
  exclusive:
    description: Whether who was made here earlier and is no longer listed is treated as absent.
    type: bool
    default: true
  only:
    description: Look after these names only, and after what all share.
    type: list
    elements: str
    default: []
  automation:
    description: The account of pipeline and Ansible, with C(name), C(ssh_keys) and C(from).
    type: dict
    default: {}
  automation_anywhere:
    description: Whether O(automation) may do without C(from).
    type: bool
    default: false
  permit_root_automation:
    description: Whether the automation may be root.
    type: bool
    default: false
  break_glass:
    description: The account without a second factor for emergencies, with C(name), C(ssh_keys) and C(from).
    type: dict
    default: {}
  operator_commands:
    description: What operators may run as root, each with its exact arguments.
    type: list
    elements: str
    default: []
  revert_seconds:
    description:
      - Seconds until the host goes back by itself, unless the change is confirmed over a new connection (RV(revert_pending)).
      - Keys and sudo rules go back to what they were, and who stays gets lost groups and the password back. A closed account stays
        closed, and one that was made stays without keys.
    type: int
    default: 90
notes:
  - Processes of people are those with their number outside of containers, those of their sessions, and those that they started as root.
    Services that systemd runs for somebody are not ended but reported.
  - Sudo rules of others are removed when their file holds nothing but rules of people who may not have them; else they are reported.
seealso:
  - module: civitas.hosting.systemd_units
"""

EXAMPLES = r"""
- name: Let two people in, one of them for a while
  civitas.hosting.access_people:
    people:
      - name: amina
        full_name: Who that is
        role: admin
        ssh_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKNxW3oWc8Yk0Qy2S0i0Ff0aTn0D2cWmJmJ3rQ2L2b5c amina@laptop"]
      - name: vendor
        expires: "2027-01-31"
        from: [192.0.2.0/24]
        ssh_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBB0Yl0qSmQb8V5o4p0dUuVQm1G3oJ0hYx9m5nS0b1a2 vendor@example"]

- name: Take everything from one person
  civitas.hosting.access_people:
    people: [{name: amina, state: absent}]
    only: [amina]
"""

RETURN = r"""
people:
  description: What was done for each person, by login.
  returned: always
  type: dict
  contains:
    changed:
      description: Whether anything was done, or would be in check mode.
      type: bool
    state:
      description: V(present), or V(closed) for who has no way in any more.
      type: str
    actions:
      description: What was done.
      type: list
      elements: str
    removed:
      description: What was taken from a person who leaves.
      type: list
      elements: str
    left:
      description: What the module does not remove, with its place.
      type: list
      elements: str
    notes:
      description: What is worth knowing.
      type: list
      elements: str
  sample:
    amina:
      changed: true
      state: closed
      actions: [account locked and expired, "groups removed (civitas-admins, civitas-people)", sessions and processes ended (2)]
      removed: [account locked and expired, "groups removed (civitas-admins, civitas-people)", sessions and processes ended (2)]
      left: []
      notes: []
actions:
  description: What was done for nobody in particular.
  returned: always
  type: list
  elements: str
strangers:
  description:
    - Accounts that are not listed and can log in or have root's rights, by name, with C(login) (V(password), V(keys)), C(groups),
      C(sudo) (files with rules) and C(uid).
  returned: always
  type: dict
docker_group:
  description: Who was in the group docker.
  returned: always
  type: list
  elements: str
sshd_reads_keys:
  description: Whether the role access has told sshd to go by the keys that this module writes.
  returned: always
  type: bool
revert_pending:
  description: Whether a change waits for its confirmation, this one or one of an earlier run that was cut off.
  returned: always
  type: bool
"""

import contextlib
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._access_program import OURS
from ansible_collections.civitas.hosting.plugins.module_utils._people import PeopleError, accounts
from ansible_collections.civitas.hosting.plugins.module_utils._people_changes import Plan, apply, make_plan
from ansible_collections.civitas.hosting.plugins.module_utils._people_state import HostError, read


class Way:
    """The way back of this run, and its deadline."""

    def __init__(self, paths: t.Sequence[str], undo: t.Sequence[t.Sequence[str]], seconds: int) -> None:
        self.seconds = seconds
        self.log = _revert.arm(paths, undo, seconds=seconds)

    def holds(self) -> bool:
        """Whether it is still there. When the deadline is near it is moved: the host is not to go back while there is work."""
        found = _revert.pending()
        if found is None or found["id"] != self.log or found["restoring"]:
            return False
        if found["seconds_left"] * 2 < self.seconds:
            # On a full disk it stays where it is, and what is left of the time is used.
            with contextlib.suppress(_revert.RevertError):
                _revert.arm(seconds=self.seconds)
        return _revert.holds(self.log)


def result_of(plan: Plan, done: dict, actions: list) -> dict:
    diff = [
        {
            "before_header": item.person.name,
            "after_header": item.person.name,
            "before": "".join(line + "\n" for line in item.before),
            "after": "".join(line + "\n" for line in item.after),
        }
        for item in plan.people
        if done[item.person.name]
    ]
    return {
        "changed": bool(actions or any(done.values())),
        "people": {item.person.name: item.report(done[item.person.name]) for item in plan.people},
        "actions": actions,
        "strangers": plan.strangers,
        "docker_group": plan.docker_group,
        "diff": diff,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "people": {"type": "list", "elements": "dict", "required": True},
            "exclusive": {"type": "bool", "default": True},
            # Public keys and names of people; no secret is among them.
            "only": {"type": "list", "elements": "str", "default": []},
            "automation": {"type": "dict", "default": {}},
            "automation_anywhere": {"type": "bool", "default": False},
            "permit_root_automation": {"type": "bool", "default": False},
            "break_glass": {"type": "dict", "default": {}},
            "operator_commands": {"type": "list", "elements": "str", "default": []},
            "revert_seconds": {"type": "int", "default": _revert.SECONDS},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    wanted = module.params
    try:
        # What waits already is given time first: it could be taken back between comparison and change.
        if not module.check_mode and _revert.pending() is not None:
            _revert.arm(seconds=wanted["revert_seconds"])
        everybody = accounts(wanted)
        state = read([person.name for person in everybody])
        plan = make_plan(everybody, state, wanted["operator_commands"], wanted["exclusive"], wanted["only"], module.check_mode)
    except (PeopleError, HostError, _revert.RevertError) as error:
        module.fail_json(msg=f"Nothing was changed.\n{error}")
    planned = {item.person.name: [step.action for step in item.steps] for item in plan.people}
    general = [step.action for step in [*plan.first, *plan.middle]]
    failed: list = []
    way = None
    if not module.check_mode and plan.changed:
        try:
            if general or any(planned.values()):
                way = Way(plan.paths, plan.undo, wanted["revert_seconds"])
        except _revert.RevertError as error:
            module.fail_json(msg=f"Nothing was changed, as it could not be taken back: {error}")
        planned, general, failed = apply(plan, module.run_command, way.holds if way else lambda: True)
    result = result_of(plan, planned, general)
    result["sshd_reads_keys"] = os.path.exists(OURS)
    result["revert_pending"] = _revert.pending() is not None
    for item in plan.people:
        for note in item.left:
            module.warn(f"{item.person.name} is still there: {note}")
    if plan.docker_group:
        module.warn(f"In the group docker, which is as good as root, until now: {', '.join(plan.docker_group)}")
    if way is not None and not way.holds():
        module.fail_json(
            msg=f"This took longer than the {way.seconds} seconds after which the host goes back to its old state by itself, and the host "
            "went back before all was done: keys and sudo rules are those of before. Run it again; it goes on where it stopped. "
            "On the host: journalctl -t civitas-revert." + "".join("\n" + line for line in failed),
            **result,
        )
    if failed:
        module.fail_json(msg="Not all could be done; run it again after correcting this:\n" + "\n".join(failed), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
