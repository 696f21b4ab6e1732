# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the host which backups of headers are here, and keeps the one that it sends."""

from __future__ import annotations

import base64
import os
import re
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._second_factors import write_private

Result = t.Dict[str, t.Any]
MODULE = "civitas.hosting.data_volume"
_NAME = re.compile(r"[0-9a-f-]{36}-[0-9a-f]{16}\.luks2\.bak")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[Result] = None) -> Result:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "headers" in arguments:
            return {"failed": True, "msg": "data_volume: 'headers' is set by the action itself; remove it"}
        if arguments.get("encryption") and not arguments.get("header_directory"):
            return {"failed": True, "msg": "data_volume: an encrypted volume needs header_directory, for the backup of its header"}
        directory = self._loader.path_dwim(str(arguments.get("header_directory") or "."))
        headers = sorted(name for name in _listed(directory) if _NAME.fullmatch(name)) if arguments.get("encryption") else []
        result: Result = self._execute_module(MODULE, module_args={**arguments, "headers": headers}, task_vars=task_vars)
        sent = result.pop("header", None)
        if result.get("failed"):
            return result
        if not sent:
            return {**result, "header_file": ""}
        try:
            path = write_header(directory, sent)
        except (OSError, ValueError, KeyError, TypeError) as error:
            message = f"the backup of the header was not written to {directory}: {error}. Correct that and run this again, it is sent again"
            return {**result, "failed": True, "msg": message}
        return {**result, "changed": True, "header_file": path}


def _listed(directory: str) -> t.List[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def write_header(directory: str, sent: t.Mapping[str, str]) -> str:
    """Write a backup that a host sent, readable by its owner only; returns its path. Raises OSError, ValueError."""
    if not _NAME.fullmatch(sent["name"]):  # what a host says is not believed
        raise ValueError("the host gives it a name that is none of a backup")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    path = os.path.join(directory, sent["name"])
    write_private(path, base64.b64decode(sent["content"], validate=True))
    return path
