#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: key_pairs
short_description: Makes key pairs of SSH and of age on a host, and tells their public halves
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Makes each pair that is missing, of SSH (type ed25519, without a passphrase) or of age, readable by root alone. Private keys never
    leave the host.
  - A pair that is there stays. One that others could read, that has a passphrase, or that is of another type, is refused.
attributes:
  check_mode:
    description: Reports which pairs would be made; their public halves are empty.
    support: full
  diff_mode:
    description: Keys have no text worth comparing.
    support: none
options:
  pairs:
    description: The pairs.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What the pair is called in RV(public).
        type: str
        required: true
      path:
        description: File of the private key. The public one of SSH lies beside it, as C(.pub).
        type: path
        required: true
      type:
        description: What the pair is for.
        type: str
        choices: [ssh, age]
        default: ssh
      comment:
        description: Comment of a pair that is made.
        type: str
        default: ""
"""

EXAMPLES = r"""
- name: Make the keys of the backup
  civitas.hosting.key_pairs:
    pairs:
      - {name: transfer, path: /etc/civitas/backup/transfer, comment: "{{ inventory_hostname }}"}
      - {name: signing, path: /etc/civitas/backup/signing, comment: "{{ inventory_hostname }}"}
  register: keys
"""

RETURN = r"""
public:
  description: For each name the public key, C(type base64) or C(age1...); empty in check mode for what is not there yet.
  returned: success
  type: dict
  sample: {transfer: ssh-ed25519 AAAA...}
made:
  description: Names of pairs that were made, or would be.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _key_pairs


def main():
    module = AnsibleModule(
        argument_spec={
            "pairs": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "type": {"type": "str", "choices": ["ssh", "age"], "default": "ssh"},
                    "comment": {"type": "str", "default": ""},
                },
            }
        },
        supports_check_mode=True,
    )
    public, made = {}, []
    try:
        for item in module.params["pairs"]:
            pair = _key_pairs.KeyPair(item["path"], item["comment"], item["type"] == "age")
            public[item["name"]] = _key_pairs.public(pair)
            if not public[item["name"]]:
                made.append(item["name"])
                if not module.check_mode:
                    public[item["name"]] = _key_pairs.make(pair)
    except (_key_pairs.KeyPairError, OSError) as error:
        module.fail_json(msg=str(error), public=public, made=made)
    module.exit_json(changed=bool(made), public=public, made=made)


if __name__ == "__main__":
    main()
