# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives secrets new values on the controller. Documentation is in the module of the same name."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsError
from ansible_collections.civitas.hosting.plugins.plugin_utils import _secrets_rotation, _secrets_run


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = self.validate_argument_spec(
            {
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
            }
        )[1]
        path = arguments["file"] or self._templar.template(variables.get("civitas_secrets_file"))
        try:
            store = _secrets_run.secrets_file(path, variables.get("inventory_dir"), self._loader)
            result["kept_file"] = _secrets_rotation.kept_path(store.path)
            if arguments["state"] == "begun":
                lengths = {item["name"]: item["length"] for item in arguments["secrets"]}
                rotated, pending = _secrets_rotation.begin(store, lengths, self._task.check_mode)
                result.update(changed=bool(rotated), rotated=rotated, pending=pending)
            else:
                result["changed"] = _secrets_rotation.finish(store, self._task.check_mode)
        except SecretsError as error:
            result.update(failed=True, msg=str(error))
        return result
