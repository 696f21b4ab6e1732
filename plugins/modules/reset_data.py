#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: reset_data
short_description: Empty databases and directories, and clear secrets out of histories
version_added: 0.1.0
description:
  - Empties tables and directories that hold test data, such as before a system goes live. The configuration, the schema and the tables that
    are to be kept stay as they are.
  - A last backup is made first where the role civitas.hosting.backup is, and nothing is emptied unless that ends well. What writes stands
    still meanwhile.
  - Lines of shells' and database clients' histories that hold secrets are taken out, of all accounts. Neither a line nor a secret is told.
  - On a host that was emptied for going live nothing is ever emptied again, unless with the same day.
  - Done again it changes nothing; after an interruption it goes on.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Counts what would be emptied, and which histories hold secrets.
    support: full
  diff_mode:
    description: There is nothing to show of what is removed.
    support: none
options:
  databases:
    description: Databases of this host's PostgreSQL, as its system user C(postgres) sees them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The database.
        type: str
        required: true
      port:
        description: Port of the server.
        type: int
        default: 5432
      keep:
        description: Patterns of C(schema.table) that stay, such as those of migrations. One that fits no table is an error.
        type: list
        elements: str
        required: true
  trees:
    description: Directories.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The directory, which stays itself.
        type: path
        required: true
      keep:
        description: Patterns of names in it that stay, with all below them. One that fits nothing is an error.
        type: list
        elements: str
        default: []
  commands:
    description: What is run afterwards, such as to empty a search index.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it does, for people.
        type: str
        required: true
      run:
        description: The command, one word an item. Everybody on the host can see it, so it holds no secret.
        type: list
        elements: str
        required: true
  units:
    description: Units of systemd that write.
    type: list
    elements: str
    default: []
  projects:
    description: Projects of Docker Compose that write.
    type: list
    elements: str
    default: []
  known_sha256:
    description: SHA-256 of secrets that no history may hold, in hexadecimal. Those of the secrets file are added by the action itself.
    type: list
    elements: str
    default: []
  going_live:
    description: The day on which this host goes live, as V(YYYY-MM-DD). It is remembered on the host.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Remove the test data
  civitas.hosting.reset_data:
    databases:
      - name: records
        keep: [public.schema_migrations]
    trees:
      - path: /srv/documents
    projects: [records]
"""

RETURN = r"""
backup:
  description: What came of the last backup.
  returned: success
  type: str
before:
  description: Rows of each table and files of each directory, before.
  returned: success
  type: dict
after:
  description: The same, after.
  returned: success
  type: dict
emptied:
  description: When data of this host were last emptied, as V(2026-11-22T10:00:00Z); empty for never.
  returned: success
  type: str
histories:
  description: Files with the number of lines that were, or would be, taken out.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._reset_data import Database, ResetError, Tree
from ansible_collections.civitas.hosting.plugins.module_utils._reset_history import HistoryError
from ansible_collections.civitas.hosting.plugins.module_utils._reset_run import Plan, reset
from ansible_collections.civitas.hosting.plugins.module_utils._restore_writers import WriterError, Writers


def main() -> None:
    names = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "databases": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "port": {"type": "int", "default": 5432},
                    "keep": {"type": "list", "elements": "str", "required": True},
                },
            },
            "trees": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "keep": names},
            },
            "commands": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "run": {"type": "list", "elements": "str", "required": True}},
            },
            "units": names,
            "projects": names,
            "known_sha256": {**names, "no_log": False},
            "going_live": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    values = module.params
    plan = Plan(
        [Database(one["name"], tuple(one["keep"]), one["port"]) for one in values["databases"]],
        [Tree(one["path"], tuple(one["keep"])) for one in values["trees"]],
        [(one["name"], one["run"]) for one in values["commands"]],
        Writers(tuple(values["units"]), tuple(values["projects"])),
        frozenset(values["known_sha256"]),
        values["going_live"],
    )
    try:
        report = reset(plan, change=not module.check_mode)
    except (ResetError, WriterError, HistoryError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**report)


if __name__ == "__main__":
    main()
