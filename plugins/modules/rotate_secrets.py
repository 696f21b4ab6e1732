#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rotate_secrets
short_description: Gives secrets of the environment new values and keeps the old ones until they are proven dead
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Runs on the controller only. The secrets file is the vault-encrypted one of the lookup P(civitas.hosting.secret#lookup).
  - Before the first value changes, the encrypted file is copied to a hidden file beside it, C(.secrets.yml.before-rotation). It stays,
    encrypted, until O(state=finished), so that the old values can be asked for and, if need be, taken back.
  - A rotation that was interrupted goes on where it was. A secret gets one new value in a rotation, however often it is begun.
options:
  state:
    description:
      - V(begun) makes the new values. They are in use after the next run of the site.
      - V(finished) removes the kept file. M(civitas.hosting.secrets_proof) says when.
    type: str
    required: true
    choices: [begun, finished]
  secrets:
    description: The secrets, as roles declare them. Needed with O(state=begun).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the secret.
        type: str
        required: true
      length:
        description: Number of letters and digits of the new value.
        type: int
        default: 40
  file:
    description: The secrets file. The variable C(civitas_secrets_file) when left out, else C(secrets.yml) beside the inventory.
    type: str
attributes:
  check_mode:
    description: Says which secrets would get a new value.
    support: full
  diff_mode:
    description: Secrets are not shown.
    support: none
notes:
  - Only for generated values. What others gave you, such as the password of a mail account, is theirs to change.
"""

EXAMPLES = r"""
- name: Give the generated secrets new values
  civitas.hosting.rotate_secrets:
    state: begun
    secrets: [{name: app_demo_database_password, length: 40}]
  run_once: true
"""

RETURN = r"""
rotated:
  description: Names that got a new value now.
  returned: when O(state=begun)
  type: list
  elements: str
pending:
  description: Names that have a new value in this rotation, whichever run gave it.
  returned: when O(state=begun)
  type: list
  elements: str
kept_file:
  description: The encrypted file with the old values.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["begun", "finished"]},
            "secrets": {
                "type": "list",
                "elements": "dict",
                # Names and lengths.
                "no_log": False,
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "length": {"type": "int", "default": 40}},
            },
            "file": {"type": "str"},
        },
        supports_check_mode=True,
    )
    module.fail_json(msg="rotate_secrets runs on the controller, by the action of the same name")


if __name__ == "__main__":
    main()
