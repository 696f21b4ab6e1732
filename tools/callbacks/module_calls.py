# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what a run costs: tasks, calls of modules on hosts, changes. For `make bench` and the tests of budgets."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: module_calls
type: aggregate
short_description: Counts tasks, module calls and changes
description:
  - Every call of a module on a host is written as a line to the file named by the environment variable CIVITAS_CALLS_FILE, from whichever
    process makes it; tasks and changes are added at the end.
"""

CALLS = os.environ.get("CIVITAS_CALLS_FILE", "")


def _record(line: t.Dict[str, t.Any]) -> None:
    # Appending one short line is atomic: the workers of all hosts write to the same file.
    with open(CALLS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _count_calls() -> None:
    original = ActionBase._execute_module

    def counted(self: t.Any, module_name: t.Any = None, *args: t.Any, **kwargs: t.Any) -> t.Any:
        _record({"module": module_name or self._task.action, "task": self._task.get_name()})
        return original(self, module_name, *args, **kwargs)

    ActionBase._execute_module = counted


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_calls"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: t.Any, **kwargs: t.Any) -> None:
        super().__init__(*args, **kwargs)
        if not CALLS:
            self.disabled = True
            return
        # Before the workers are forked, so that each of them counts.
        _count_calls()

    def v2_playbook_on_stats(self, stats: t.Any) -> None:
        hosts = {host: stats.summarize(host) for host in stats.processed}
        _record({"hosts": hosts})
