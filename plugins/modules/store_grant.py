#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: store_grant
short_description: Lets a key read the backups of a host for some hours
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Runs on the host that keeps the backups (role C(backup_store)), as root.
  - A grant reads the sets of one host, or one set, and does nothing else. It ends by itself, and a restart of the store ends all of them.
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  state:
    description: V(present) makes another grant; V(absent) ends all grants of the key.
    type: str
    choices: [present, absent]
    default: present
  key:
    description: The public key of the reader, of the type ssh-ed25519.
    type: str
    required: true
  host:
    description: Whose sets it reads, as they name it. Required for O(state=present).
    type: str
  set:
    description: The name of the one set that it reads; empty for all of the host.
    type: str
    default: ""
  hours:
    description: How long it lasts, 72 at most.
    type: float
    default: 12
"""

EXAMPLES = r"""
- name: Let it read at the store
  civitas.hosting.store_grant:
    host: records-1
    key: "{{ pairs.public.transfer }}"
  delegate_to: vault
  register: grant

- name: Take back what the store was told
  civitas.hosting.store_grant:
    state: absent
    key: "{{ pairs.public.transfer }}"
  delegate_to: vault
"""

RETURN = r"""
user:
  description: As whom the key logs in.
  returned: O(state=present)
  type: str
  sample: civitas-reader
grant:
  description: The name of the grant; empty in check mode.
  returned: O(state=present)
  type: str
  sample: 5f0c6c1c9a0e4a8c8d7f0d3b3f5a2e11
until:
  description: When the grant ends; empty in check mode.
  returned: O(state=present)
  type: str
  sample: "2026-01-31T12:00:00Z"
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _store_program
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import StoreError


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "key": {"type": "str", "required": True, "no_log": False},
            "host": {"type": "str"},
            "set": {"type": "str", "default": ""},
            "hours": {"type": "float", "default": 12.0},
        },
        required_if=[("state", "present", ["host"])],
        supports_check_mode=True,
    )
    asked = module.params
    try:
        config = _store_program.read_config()
        if asked["state"] == "absent":
            module.exit_json(changed=_store_program.revoke(config, asked["key"], time.time(), module.check_mode))
        grant = _store_program.grant(config, asked["host"], asked["set"], asked["key"], asked["hours"], time.time(), module.check_mode)
        module.exit_json(changed=True, **grant)
    except (ConfigError, StoreError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
