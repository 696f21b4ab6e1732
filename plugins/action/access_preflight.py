# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the module what only the controller knows: the account that it logs in with, and its time."""

from __future__ import annotations

import getpass
import time
import typing as t

from ansible.plugins.action import ActionBase

Result = t.Dict[str, t.Any]
# Kinds of connection that pass sshd.
SSH = ("ssh", "smart", "paramiko", "paramiko_ssh", "libssh")


class ActionModule(ActionBase):
    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[Result] = None) -> Result:
        result: Result = super().run(tmp, task_vars)
        login, port = "", None
        if self._connection.transport.rpartition(".")[2] in SSH:
            login = self._connection.get_option("remote_user") or self._play_context.remote_user or getpass.getuser()
            port = int(self._connection.get_option("port") or self._play_context.port or 22)
        arguments = {**self._task.args, "login": login, "connection_port": port, "controller_time": time.time()}
        result.update(self._execute_module(module_name="civitas.hosting.access_preflight", module_args=arguments, task_vars=task_vars))
        return result
