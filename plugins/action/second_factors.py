# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the encrypted enrolments from the host, writes them on the controller, and tells the host that they have arrived."""

from __future__ import annotations

import base64
import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._second_factors import SUFFIX, write_private

Result = t.Dict[str, t.Any]
MODULE = "civitas.hosting.second_factors"


class ActionModule(ActionBase):
    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[Result] = None) -> Result:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "acknowledged" in arguments:
            return {"failed": True, "msg": "second_factors: 'acknowledged' is set by the action itself; remove it"}
        result: Result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        waiting = result.pop("waiting", {})
        if result.get("failed") or not waiting:
            return {**result, "files": []}
        directory = self._loader.path_dwim(str(arguments["directory"]))
        try:
            files = write_enrolments(directory, waiting)
        except OSError as error:
            message = f"{error.filename}: {error.strerror}. The enrolments wait on the host; correct the directory and run this again."
            return {**result, "failed": True, "msg": message}
        delivered = {name: enrolment["id"] for name, enrolment in waiting.items()}
        answer = self._execute_module(MODULE, module_args={**arguments, "acknowledged": delivered}, task_vars=task_vars)
        if answer.get("failed"):
            return {**result, **answer}
        return {**result, "changed": True, "files": files}


def write_enrolments(directory: str, waiting: t.Mapping[str, t.Mapping[str, str]]) -> t.List[str]:
    """Write each as C(NAME.tar.age), readable by its owner only; returns the paths."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    files = []
    for name, enrolment in sorted(waiting.items()):
        if "/" in name or name.startswith("."):  # what a host says is not believed
            raise OSError(0, "the host names a file outside of the directory", name)
        path = os.path.join(directory, f"{name}{SUFFIX}")
        write_private(path, base64.b64decode(enrolment["ciphertext"]))
        files.append(path)
    return files
