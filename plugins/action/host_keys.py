# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the controller's files of known hosts in step with the keys of a host. Documentation is in the module of the same name."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.plugin_utils import _known_hosts


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = self.validate_argument_spec(
            {
                "state": {"type": "str", "required": True, "choices": ["staged", "active", "finished"]},
                "known_hosts": {"type": "list", "elements": "str", "default": ["~/.ssh/known_hosts"]},
            }
        )[1]
        result.update(self._execute_module("civitas.hosting.host_keys", module_args=arguments, task_vars=task_vars))
        if result.get("failed") or arguments["state"] == "active":
            return result
        try:
            self._known_hosts(arguments, result)
        except OSError as error:
            return {**result, "failed": True, "msg": f"{error.filename or 'known_hosts'} on the controller: {error.strerror}"}
        return result

    def _known_hosts(self, arguments: t.Dict[str, t.Any], result: t.Dict[str, t.Any]) -> None:
        files, old, new = arguments["known_hosts"], result["old"], result["new"]
        write = not self._task.check_mode
        if arguments["state"] == "finished":
            changed = [path for path in files if _known_hosts.remove(path, [key for key in old if key not in new], write)]
        elif not files or any(_known_hosts.holds(path, [*old, *new]) for path in files):
            changed = [path for path in files if _known_hosts.add_beside(path, old, new, write)]
        else:
            result.update(
                failed=True,
                msg=f"None of {', '.join(files)} on the controller has a key of this host, so the new keys would be unknown there. "
                "Name the file that ssh uses: -e known_hosts_file=PATH. sshd still uses the old keys.",
            )
            return
        result.update(known_hosts_changed=changed, changed=bool(result["changed"] or changed))
