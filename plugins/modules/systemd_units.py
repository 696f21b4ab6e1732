#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_units
short_description: Bring a list of systemd units into a wanted state
version_added: 0.1.0
description:
  - Reads all listed units with one call, applies only the differences with one command per verb, and reports per unit.
  - Reloads the systemd configuration by itself when a listed unit's files have changed on disk.
  - On a host that was not booted with systemd, as during an image build, units are enabled, disabled and masked, but neither started
    nor stopped.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Reports what would change and changes nothing. A unit that does not exist yet counts as a change.
    support: full
  diff_mode:
    description: Shows the state of changed units before and after.
    support: full
options:
  units:
    description:
      - The units. Each has a name and at least one of O(units[].enabled), O(units[].state) and O(units[].masked).
      - What is not given is left alone.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the unit. C(.service) is added to a name without a type. Globs and bare templates are refused.
        type: str
        required: true
      enabled:
        description:
          - Whether the unit starts at boot.
          - Units that cannot be enabled or disabled (static, indirect, generated and alias units) get a note and are no error.
        type: bool
      state:
        description:
          - V(started) and V(stopped) change only what is not so yet; V(restarted) and V(reloaded) act every time.
          - V(reloaded) starts a unit that does not run; V(reloaded_if_running) leaves it alone.
        type: str
        choices: [started, stopped, restarted, reloaded, reloaded_if_running]
      masked:
        description: Whether the unit is masked, so that nothing can start it.
        type: bool
      restart_when_newer:
        description:
          - Files, directories and links that the unit reads when it starts. A running unit is restarted when one of them was changed, or
            put in place, after the unit was last started, stopped or reloaded.
          - This is found out on the host and not from what the run has changed, so a run that was cut off between writing a file and
            restarting its user is made up for by the next one.
        type: list
        elements: path
        default: []
      reload_when_newer:
        description: As O(units[].restart_when_newer), for what the unit reads again when it is reloaded.
        type: list
        elements: path
        default: []
  daemon_reload:
    description:
      - Reload the systemd configuration in any case. It does not count as a change.
      - Rarely needed, as the module finds out whether a listed unit needs it.
    type: bool
    default: false
notes:
  - A unit that does not exist is an error that names it, unless it is to be stopped or disabled, or in check mode.
  - A unit whose own conditions are not met on the host is not started; the module warns, names it in its notes, and reports no change.
"""

EXAMPLES = r"""
- name: Run chrony, and nothing else that sets the clock
  civitas.hosting.systemd_units:
    units:
      - {name: chrony, enabled: true, state: started}
      - {name: systemd-timesyncd, enabled: false, state: stopped}

- name: Run nginx with the configuration that is on disk
  civitas.hosting.systemd_units:
    units:
      - name: nginx
        state: started
        reload_when_newer: [/etc/nginx/nginx.conf, /etc/nginx/sites-enabled]

- name: Restart in any case
  civitas.hosting.systemd_units:
    units:
      - {name: systemd-journald, state: restarted}
      - {name: nginx, state: reloaded}
"""

RETURN = r"""
units:
  description: State of each unit, by its full name.
  returned: always
  type: dict
  contains:
    changed:
      description: Whether anything was done, or would be in check mode.
      type: bool
    actions:
      description: The systemctl verbs that were needed.
      type: list
      elements: str
    notes:
      description: What was not done, and why.
      type: list
      elements: str
    before:
      description: C(load_state), C(unit_file_state), C(active_state) and C(sub_state) as found.
      type: dict
    after:
      description: The same afterwards; in check mode the expected values.
      type: dict
  sample:
    chrony.service:
      changed: true
      actions: [enable, start]
      notes: []
      before: {load_state: loaded, unit_file_state: disabled, active_state: inactive, sub_state: dead}
      after: {load_state: loaded, unit_file_state: enabled, active_state: active, sub_state: running}
changed_units:
  description: Full names of the units that were changed.
  returned: always
  type: list
  elements: str
daemon_reloaded:
  description: Whether the systemd configuration was reloaded.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._systemd_units import (
    STATES,
    Manager,
    Report,
    UnitError,
    apply,
    booted_with_systemd,
    diff,
)


def result_of(report: Report) -> dict:
    return {
        "changed": report.changed,
        "units": report.units,
        "changed_units": report.changed_units,
        "daemon_reloaded": report.daemon_reloaded,
        "diff": diff(report),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "enabled": {"type": "bool"},
                    "state": {"type": "str", "choices": list(STATES)},
                    "masked": {"type": "bool"},
                    "restart_when_newer": {"type": "list", "elements": "path", "default": []},
                    "reload_when_newer": {"type": "list", "elements": "path", "default": []},
                },
            },
            "daemon_reload": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # Messages are shown to people and compared by nobody, but states are parsed: no translations.
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    manager = Manager(module.run_command, booted_with_systemd(), module.get_bin_path("systemctl", required=True))
    try:
        report = apply(module.params["units"], manager, module.check_mode, module.params["daemon_reload"])
    except UnitError as error:
        module.fail_json(msg=str(error), **(result_of(error.report) if error.report else {}))
    for warning in report.warnings:
        module.warn(warning)
    module.exit_json(**result_of(report))


if __name__ == "__main__":
    main()
