#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_report_facts
short_description: Who can get into a host, and who did
version_added: 0.1.0
description:
  - Lists the accounts that somebody can log in with, with the keys, groups, expiry and second factor they have, and what sshd and sudo
    themselves say that they may do.
  - Lists the logins of a time from the record that the role civitas.hosting.access keeps.
  - The result is in RV(access_report), not in the host's facts, as it is about people.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Can run in check mode; the module never changes the host.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  since:
    description: Begin of the time, a date such as V(2026-10-01) or a time such as V(2026-10-01T12:00:00), in UTC.
    type: str
    required: true
  until:
    description: End of the time; of a date, the end of that day. Now unless given.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Read who has access, and who logged in during October
  civitas.hosting.access_report_facts:
    since: "2026-10-01"
    until: "2026-10-31"
  register: result
"""

RETURN = r"""
access_report:
  description: What was found.
  returned: always
  type: dict
  contains:
    accounts:
      description: The accounts, each with V(name), V(kind), V(keys), V(groups), V(sudo), V(expires), V(second_factor), V(last_login).
      returned: always
      type: list
      elements: dict
    logins:
      description: The logins of the time, oldest first.
      returned: always
      type: list
      elements: dict
    record_begins:
      description: The first login in the record.
      returned: always
      type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._login_report import ReportError, gather, moment


def main() -> None:
    module = AnsibleModule(
        argument_spec={"since": {"type": "str", "required": True}, "until": {"type": "str", "default": ""}},
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}

    def run(command):
        program = module.get_bin_path(command[0], opt_dirs=["/usr/sbin", "/sbin"])
        if not program:
            return 127, ""
        status, output, _error = module.run_command([program, *command[1:]])
        return status, output

    try:
        until = moment(module.params["until"], end=True) if module.params["until"] else time.time()
        found = gather(run, moment(module.params["since"]), until)
    except ReportError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, access_report=found)


if __name__ == "__main__":
    main()
