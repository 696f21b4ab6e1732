# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of reset_data: tells the host what secrets are known, as digests only. Documented in the module."""

from __future__ import annotations

import os
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._reset_history import hashed
from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsError
from ansible_collections.civitas.hosting.plugins.plugin_utils import _secrets_run

Result = t.Dict[str, t.Any]


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[Result] = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        variables = task_vars or {}
        path = self._templar.template(variables["civitas_secrets_file"]) if "civitas_secrets_file" in variables else ""
        try:
            store = _secrets_run.secrets_file(path, variables.get("inventory_dir"), self._loader)
            values = [text for texts in store.texts().values() for text in texts] if os.path.exists(store.path) else []
        except SecretsError as error:
            raise AnsibleActionFail(str(error)) from error
        known = sorted({hashed(value) for value in values if value.strip()})
        arguments = {**self._task.args, "known_sha256": [*self._task.args.get("known_sha256", []), *known]}
        result.update(self._execute_module(module_name="civitas.hosting.reset_data", module_args=arguments, task_vars=variables))
        return result
