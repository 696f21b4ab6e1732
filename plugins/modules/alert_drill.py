#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: alert_drill
short_description: Raises alarms on a host without harm, and ends them
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Fills a file system of two megabytes, which is mounted for that in memory, and writes series beside those that the host measures.
    Nothing of the host is touched.
  - What it raises says in every message that it is a drill. It rings until O(state=ended).
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
options:
  state:
    description: Whether alarms are raised or ended.
    type: str
    choices: [raised, ended]
    required: true
  metrics_directory:
    description: Where the host writes what it measures.
    type: path
    default: /var/lib/civitas/metrics
  text:
    description: Series in the text format of Prometheus. Needed when O(state=raised).
    type: str
    default: ""
  filled:
    description: How full the small file system is, from 0 to 1. V(0) for none.
    type: float
    default: 0.0
"""

EXAMPLES = r"""
- name: End a drill that was cut off
  civitas.hosting.alert_drill:
    state: ended
"""

RETURN = r"""
file:
  description: The file with the series.
  returned: always
  type: str
mount:
  description: Where the small file system is mounted while alarms are raised.
  returned: always
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import DRILL, DRILL_MOUNT
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_text

SIZE = 2 * 1024 * 1024


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["raised", "ended"], "required": True},
            "metrics_directory": {"type": "path", "default": "/var/lib/civitas/metrics"},
            "text": {"type": "str", "default": ""},
            "filled": {"type": "float", "default": 0.0},
        },
        supports_check_mode=True,
    )
    path = os.path.join(module.params["metrics_directory"], f"{DRILL}.prom")
    result = {"file": path, "mount": DRILL_MOUNT}
    if module.params["state"] == "raised":
        if not os.path.isdir(module.params["metrics_directory"]):
            module.fail_json(
                msg=f"{module.params['metrics_directory']} is not there: nothing measures this host; run the site playbook", **result
            )
        if not module.check_mode:
            _raise(module, path)
        module.exit_json(changed=True, **result)
    there = os.path.lexists(path) or os.path.ismount(DRILL_MOUNT) or os.path.isdir(DRILL_MOUNT)
    if there and not module.check_mode:
        _end(module, path)
    module.exit_json(changed=there, **result)


def _raise(module: AnsibleModule, path: str) -> None:
    if module.params["filled"]:
        os.makedirs(DRILL_MOUNT, mode=0o755, exist_ok=True)
        if not os.path.ismount(DRILL_MOUNT):
            options = f"size={SIZE},mode=0700,nosuid,nodev,noexec"
            module.run_command(["mount", "-t", "tmpfs", "-o", options, DRILL, DRILL_MOUNT], check_rc=True)
        with open(os.path.join(DRILL_MOUNT, "filled"), "wb") as file:
            file.write(b"\0" * int(SIZE * module.params["filled"]))
    write_text(path, module.params["text"])


def _end(module: AnsibleModule, path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    if os.path.ismount(DRILL_MOUNT):
        module.run_command(["umount", DRILL_MOUNT], check_rc=True)
    if os.path.isdir(DRILL_MOUNT):
        os.rmdir(DRILL_MOUNT)


if __name__ == "__main__":
    main()
