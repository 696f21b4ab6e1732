#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_preflight
short_description: Judges a host before the way into it is changed
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Refuses to go on when Ansible's own login would be shut out, when sshd would not go by the files that are about to be written, when the
    firewall in force does not let in the port that SSH is to move to, or when the second factor is to be switched on and the clock is not
    known to be right.
  - Finds out whether SSH is started by systemd's socket.
  - Changes nothing.
options:
  open_to:
    description: Accounts that get in without a code afterwards.
    type: list
    elements: str
    required: true
  second_factor:
    description: Whether codes are asked for.
    type: bool
    required: true
  clock_tolerance:
    description: Seconds by which the host's clock may be off. A clock that is off later, when codes are asked for already, is warned of.
    type: int
    default: 5
  port:
    description: The port that SSH is to listen on.
    type: int
    default: 22
  connection_port:
    description: The port that Ansible connects to by SSH. Filled in by the action plugin of the same name, not for playbooks.
    type: int
  login:
    description: The account that Ansible logs in with over SSH. Filled in by the action plugin of the same name, not for playbooks.
    type: str
    default: ""
  controller_time:
    description: The controller's clock. Filled in by the action plugin of the same name, not for playbooks.
    type: float
attributes:
  check_mode:
    description: The module never changes anything. In check mode it warns of what would be refused.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Judge the host
  civitas.hosting.access_preflight:
    open_to: [deploy, breakglass]
    second_factor: true
  register: preflight
"""

RETURN = r"""
leaves_port:
  description: Whether Ansible has to go on by O(port), as the one it came by will be closed.
  type: bool
  returned: success
units:
  description: The systemd units of SSH with what M(civitas.hosting.systemd_units) is to do about them.
  type: list
  elements: dict
  returned: success
restarts:
  description: Commands that bring another state of the files of sshd into force.
  type: list
  elements: list
  returned: success
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _access_preflight as preflight
from ansible_collections.civitas.hosting.plugins.module_utils._access_program import run


def main():
    module = AnsibleModule(
        argument_spec={
            "open_to": {"type": "list", "elements": "str", "required": True},
            "second_factor": {"type": "bool", "required": True},
            "clock_tolerance": {"type": "int", "default": 5},
            "port": {"type": "int", "default": 22},
            "connection_port": {"type": "int"},
            "login": {"type": "str", "default": ""},
            "controller_time": {"type": "float"},
        },
        supports_check_mode=True,
    )
    params = module.params
    wanted = preflight.Wanted(
        params["login"], params["open_to"], params["second_factor"], params["clock_tolerance"], params["controller_time"] or time.time()
    )
    problems, warnings = preflight.judge(wanted)
    leaves = params["connection_port"] is not None and preflight.leaves_port(params["connection_port"], params["port"], run)
    if leaves:
        problems += preflight.port_problems(params["port"], run)
    if problems and not module.check_mode:
        module.fail_json(msg="Nothing was changed.\n" + "\n".join(problems))
    for warning in [*problems, *warnings]:
        module.warn(warning)
    units = preflight.ssh_units(run)
    if leaves:
        module.warn(f"SSH moves to port {params['port']}; write ansible_port: {params['port']} for this host")
    module.exit_json(changed=False, units=units, restarts=preflight.restarts(units), leaves_port=leaves)


if __name__ == "__main__":
    main()
