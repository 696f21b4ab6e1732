#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pam_profile
short_description: A profile of pam-auth-update, brought into effect with a way back
version_added: 0.1.0
description:
  - Adds to, or takes away from, what all services of a Debian or Ubuntu host have in common in PAM, in the distributions' own way. So no
    file of a package is changed by hand, and package updates ask nothing.
  - Before a change the automatic revert is armed with all files that may change. Follow it with the confirmation over a new connection.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Reports what would change and changes nothing.
    support: full
  diff_mode:
    description: Names the files that change.
    support: full
options:
  name:
    description: Name of the profile, of its file below C(/usr/share/pam-configs) as well.
    type: str
    required: true
  content:
    description: The profile. Required unless O(state=absent).
    type: str
    default: ""
  state:
    description: Whether the profile is in effect.
    type: str
    choices: [present, absent]
    default: present
  seconds:
    description: After how many seconds without a confirmation the old state is restored.
    type: int
    default: 90
"""

EXAMPLES = r"""
- name: Greet
  civitas.hosting.pam_profile:
    name: greeting
    content: |
      Name: Greet who logs in
      Default: yes
      Priority: 0
      Session-Type: Additional
      Session:
        optional pam_echo.so Welcome
  register: result

- name: Confirm over a new connection
  civitas.hosting.confirm_access:
  when: result.revert_pending
"""

RETURN = r"""
files:
  description: The files that were not as wanted.
  returned: always
  type: list
  elements: str
revert_pending:
  description: Whether a change waits for its confirmation, this one or one of an earlier run that was cut off.
  returned: always
  type: bool
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._pam_profile import Profile, ProfileError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "content": {"type": "str", "default": ""},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "seconds": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    wanted = module.params["state"] == "present"
    if wanted and not module.params["content"].strip():
        module.fail_json(msg="content is empty; write the profile as in pam-auth-update(8), or state: absent")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", module.params["name"]):
        module.fail_json(msg=f"name is {module.params['name']!r}; write lower case letters, digits, - and _")
    profile = Profile(module.params["name"], module.params["content"] if wanted else "")
    try:
        files = profile.differences()
        if files and not module.check_mode:
            _revert.arm(profile.paths(), seconds=module.params["seconds"])
            profile.apply()
        pending = _revert.pending() is not None
    except (ProfileError, _revert.RevertError, OSError) as error:
        module.fail_json(msg=str(error))
    diff = {"before": "", "after": "".join(f"{file}\n" for file in files)}
    module.exit_json(changed=bool(files), files=files, revert_pending=pending, diff=diff)


if __name__ == "__main__":
    main()
