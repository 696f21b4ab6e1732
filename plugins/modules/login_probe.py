#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: login_probe
short_description: Proves by real logins what SSH asks of people
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Makes the account C(civitas-probe) in the group C(civitas-people), with a key and a secret of its own, and logs in to the host's own
    sshd with the ordinary client. It must get in with what a person has, and not with anything less. Then the account is removed.
  - Files that look right may still keep everybody out, such as a PAM stack whose module is missing. Only a login tells.
options:
  second_factor:
    description: Whether people need a code.
    type: bool
    default: true
attributes:
  check_mode:
    description: Tries nothing, as it would have to make an account.
    support: none
  diff_mode:
    description: There is nothing to compare.
    support: none
notes:
  - Nothing is different on the host afterwards, so it never reports a change. The logins are in its journal.
"""

EXAMPLES = r"""
- name: Prove that a key without a code opens nothing
  civitas.hosting.login_probe:
    second_factor: true
"""

RETURN = r"""
cases:
  description: The logins that were tried.
  type: list
  elements: dict
  returned: always
  contains:
    title:
      description: What was offered.
      type: str
    wanted:
      description: Whether it had to succeed.
      type: bool
    found:
      description: Whether it did.
      type: bool
    said:
      description: The last line of the client.
      type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._login_probe import LoginProbe, ProbeError, journal


def main():
    module = AnsibleModule(argument_spec={"second_factor": {"type": "bool", "default": True}})
    began = time.time()
    try:
        cases = LoginProbe(module.params["second_factor"]).run()
    except (ProbeError, OSError) as error:
        module.fail_json(msg=f"{error}\n{journal(began)}".strip(), cases=[])
    result = [case._asdict() for case in cases]
    wrong = [f"{case.title}: {'lets in' if case.found else 'is refused'} ({case.said})" for case in cases if not case.ok]
    if wrong:
        module.fail_json(msg="The SSH login is not as it must be. " + "; ".join(wrong) + "\n" + journal(began), cases=result)
    module.exit_json(changed=False, cases=result)


if __name__ == "__main__":
    main()
