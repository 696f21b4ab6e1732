#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_proof
short_description: Proves that old values of secrets are of no use on a host any more
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Logs in to databases and applications with the old password, which must be refused, and with the new one, which must be accepted.
  - Searches files, and the environment and arguments of every process (those in containers included), for the old values.
  - Names every place, and no value.
options:
  secrets:
    description: The secrets.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the secret.
        type: str
        required: true
      old:
        description: The value from before.
        type: str
        required: true
      new:
        description: The value now.
        type: str
        required: true
  logins:
    description: Databases (this needs C(psql) on the host) and applications that one of O(secrets) is the password of.
    type: list
    elements: dict
    default: []
    suboptions:
      secret:
        description: Name of the secret.
        type: str
        required: true
      database:
        description: Name of the database. Either it or O(logins[].url).
        type: str
      url:
        description:
          - An address of the application that gives an answer of success to O(logins[].user) with the right password (HTTP Basic), and 401
            or 403 to everybody else.
        type: str
      user:
        description: Name of the role.
        type: str
        required: true
      host:
        description: Address of the server.
        type: str
        default: 127.0.0.1
      port:
        description: Port of the server.
        type: int
        default: 5432
  directories:
    description: Directories whose files are searched.
    type: list
    elements: path
    default: [/etc/civitas, /srv/civitas/apps]
attributes:
  check_mode:
    description: Changes nothing ever.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
notes:
  - What a program has read from a file into its memory cannot be seen. The roles restart what uses a file that changed.
seealso:
  - module: civitas.hosting.rotate_secrets
"""

EXAMPLES = r"""
- name: Prove that the old password is refused
  civitas.hosting.secrets_proof:
    secrets: [{name: app_demo_database_password, old: "{{ old_password }}", new: "{{ new_password }}"}]
    logins: [{secret: app_demo_database_password, database: demo, user: demo}]

- name: Prove that the application refuses the old password of its administrator
  civitas.hosting.secrets_proof:
    secrets: [{name: app_demo_admin_password, old: "{{ old_password }}", new: "{{ new_password }}"}]
    logins: [{secret: app_demo_admin_password, user: admin, url: "http://127.0.0.1:8888/v1/accounts/admin"}]
"""

RETURN = r"""
proven:
  description: Names of secrets whose old value is of no use.
  returned: always
  type: list
  elements: str
problems:
  description: One sentence for each place where one still is, or where nobody could tell.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _secrets_proof


def main() -> None:
    text = {"type": "str", "required": True}
    # Not the list as a whole: its names are what the report is about.
    hidden = {**text, "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "secrets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {"name": text, "old": hidden, "new": hidden},
            },
            "logins": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "secret": {**text, "no_log": False},
                    "database": {"type": "str"},
                    "url": {"type": "str"},
                    "user": text,
                    "host": {"type": "str", "default": "127.0.0.1"},
                    "port": {"type": "int", "default": 5432},
                },
                "required_one_of": [["database", "url"]],
                "mutually_exclusive": [["database", "url"]],
            },
            "directories": {"type": "list", "elements": "path", "default": ["/etc/civitas", "/srv/civitas/apps"]},
        },
        supports_check_mode=True,
    )
    secrets = {item["name"]: item for item in module.params["secrets"]}
    unknown = [item["secret"] for item in module.params["logins"] if item["secret"] not in secrets]
    if unknown:
        module.fail_json(msg=f"logins names {', '.join(unknown)}, which is not among secrets")
    problems = _secrets_proof.find({name: item["old"] for name, item in secrets.items()}, module.params["directories"])
    for target in module.params["logins"]:
        item = secrets[target["secret"]]
        problems += [(item["name"], text) for text in _secrets_proof.prove_login(item["name"], target, item["old"], item["new"])]
    proven = sorted(secrets.keys() - {name for name, dummy in problems})
    module.exit_json(changed=False, proven=proven, problems=[text for dummy, text in problems])


if __name__ == "__main__":
    main()
