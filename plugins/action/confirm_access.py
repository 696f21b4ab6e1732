# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Confirms a change to the way in over a new connection, or waits until the host has taken it back. Documentation is in the module."""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

# A firewall that drops answers nothing: to be told early, and tried again.
CONNECT_SECONDS = 10
# The first is for a service that starts at this moment. Faster than the second the SSH server would add up penalties for failed logins.
PAUSES = (2.0, 7.0)
LISTED = 12


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        arguments = self.validate_argument_spec({"timeout": {"type": "int", "default": 180}})[1]
        result.update(changed=False, pending=None, confirmed=None)
        if self._task.check_mode:
            return result
        with self._new_connections():
            result.update(self._confirm(arguments["timeout"], task_vars))
        # The tasks that follow use what was proven, and not what was open from before.
        self._reset()
        return result

    def _confirm(self, timeout: int, task_vars: t.Optional[t.Dict[str, t.Any]]) -> t.Dict[str, t.Any]:
        end = time.monotonic() + timeout
        refusal, attempt = "", 0
        while True:
            found = self._ask(task_vars)
            # What was interrupted or went wrong on the host holds none of the module's keys.
            answered = "confirmed" in found
            if found.get("confirmed"):
                return {"changed": True, "pending": None, "confirmed": found["confirmed"], **_hidden(found.get("reverted"))}
            if found.get("reverted"):
                return {"failed": True, "reverted": found["reverted"], "msg": _went_back(found["reverted"], refusal)}
            if answered and found["pending"] is None:
                return {"failed": True, "msg": _unknown(refusal)} if refusal else {}
            if not answered:
                refusal = refusal or " ".join(str(found.get("msg") or found.get("module_stderr") or "no answer").split())[:500]
            if time.monotonic() >= end:
                return {"failed": True, "msg": _silent(timeout, refusal), "pending": found.get("pending")}
            time.sleep(PAUSES[attempt > 0])
            attempt += 1

    def _ask(self, task_vars: t.Optional[t.Dict[str, t.Any]]) -> t.Dict[str, t.Any]:
        self._reset()
        try:
            found: t.Dict[str, t.Any] = self._execute_module(
                "civitas.hosting.revert_point", module_args={"state": "confirmed"}, task_vars=task_vars
            )
        except AnsibleError as error:
            return {"msg": str(error)}
        return found

    def _reset(self) -> None:
        with contextlib.suppress(AnsibleError, AttributeError):
            self._connection.reset()

    @contextlib.contextmanager
    def _new_connections(self) -> t.Iterator[None]:
        """Every connection within is one of its own: no multiplexing, no long wait, no second try of the plugin's own."""
        # The shared connection is ended first, while its options still lead to it.
        self._reset()
        before: t.Dict[str, t.Any] = {}
        changes: t.Dict[str, t.Callable[[t.Any], t.Any]] = {
            # Of an option that is given twice ssh takes the first.
            "ssh_args": lambda value: f"-o ControlMaster=no -o ControlPath=none {value or ''}",
            "timeout": lambda value: min(int(value or CONNECT_SECONDS), CONNECT_SECONDS),
            "reconnection_retries": lambda _value: 0,
        }
        for name, change in changes.items():
            with contextlib.suppress(KeyError, AnsibleError):
                before[name] = self._connection.get_option(name)
                self._connection.set_option(name, change(before[name]))
        try:
            yield
        finally:
            for name, value in before.items():
                self._connection.set_option(name, value)


def _hidden(report: t.Optional[t.Mapping[str, t.Any]]) -> t.Dict[str, t.Any]:
    """What to say of a change that was taken back before the one that is confirmed now."""
    if report is None:
        return {}
    # Since this run began, as logging is loaded at its start. What was taken back before that, this run has looked at anew.
    if report["seconds_ago"] > logging.makeLogRecord({}).relativeCreated / 1000:
        return {"warnings": [f"A change of an earlier run was taken back at {report['at']} ({report['why']})."]}
    later = "What was changed after that is confirmed and stays."
    return {"failed": True, "reverted": report, "msg": f"{_went_back(report, '', 'An earlier change')} {later}"}


def _went_back(report: t.Mapping[str, t.Any], refusal: str, change: str = "The change") -> str:
    restored = list(report["restored"])
    listed = ", ".join(restored[:LISTED]) + (f" and {len(restored) - LISTED} more" if len(restored) > LISTED else "")
    look = "On the host: journalctl -t civitas-revert, and /var/lib/civitas/revert/last.json."
    began = (
        f"The host did not accept a new connection after this change ({refusal})."
        if refusal
        else f"{change} was not confirmed in time by a new connection."
    )
    if report["outcome"] == "failed":
        return (
            f"{began} The host tried to go back to its old state at {report['at']} ({report['why']}), but could not put back everything: "
            f"{'; '.join(report['problems'])}. Put that right on the host, then run this again. {look}"
        )
    return (
        f"{began} The host went back to its old state at {report['at']} by itself ({report['why']}) and can be reached again; nothing is "
        f"lost. Put back: {listed or 'nothing had to be'}. Look at what you changed there, correct it, and run this again. {look}"
    )


def _unknown(refusal: str) -> str:
    return (
        f"The host did not accept a new connection after this change at first ({refusal}). Now it does, and nothing waits for a "
        "confirmation any more: it went back to its old state, or another run confirmed the change. On the host: "
        "journalctl -t civitas-revert. Run this again."
    )


def _silent(timeout: int, refusal: str) -> str:
    return (
        f"The host did not accept a new connection after this change ({refusal}), nor within {timeout} seconds since. It goes back to its "
        "old state by itself within 120 seconds of the change: if it still cannot be reached, there is another reason, or its console is "
        "needed. There: journalctl -t civitas-revert, and /usr/bin/python3 /usr/local/lib/civitas/revert.py status."
    )
