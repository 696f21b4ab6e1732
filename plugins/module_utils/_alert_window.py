# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a host is worked on, its alarms are held back for a while, and whoever hears them is told so.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import glob
import json
import os
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import duration
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import PROGRAM
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json
from ansible_collections.civitas.hosting.plugins.module_utils._login_text import clean

FILE = "/etc/civitas/maintenance.json"
LONGEST = 86400.0
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


class WindowError(Exception):
    """A maintenance that cannot be; the text says what to write."""


class Window(t.NamedTuple):
    """Until when alarms are held back, in seconds since 1970, and why."""

    until: float
    reason: str


class Held(t.NamedTuple):
    """What is held back of one host while the alarms of all others are told.

    Attributes:
        alarms: their names; empty for all.
    """

    host: str
    alarms: t.Tuple[str, ...]
    until: float
    reason: str

    def holds(self, host: str, name: str) -> bool:
        return host == self.host and (not self.alarms or name in self.alarms)

    def facts(self) -> t.List[t.Any]:
        """As they are kept as JSON, beside the host."""
        return [list(self.alarms), self.until, self.reason]


def place(path: str, host: str) -> str:
    """The file of one host, beside that of all. Raises WindowError."""
    if not host:
        return path
    if not _HOST.fullmatch(host):
        raise WindowError(f"{host!r} is no name of a host; write it as alarms have it")
    stem, ending = os.path.splitext(path)
    return f"{stem}-{host}{ending}"


def read_held(path: str, now: float, program: str = PROGRAM) -> t.Tuple[t.List[Held], t.List[str]]:
    """What is held back of single hosts, and why files are passed over."""
    found: t.List[Held] = []
    faults: t.List[str] = []
    stem, ending = os.path.splitext(path)
    for each in sorted(glob.glob(f"{glob.escape(stem)}-*{ending}")):
        window, alarms, fault = _read(each, now, program)
        if window:
            host = each[len(stem) + 1 : len(each) - len(ending)]
            found.append(Held(host, alarms, window.until, window.reason))
        elif fault:
            faults.append(fault)
    return found, faults


def read(path: str, now: float, program: str = PROGRAM) -> t.Tuple[t.Optional[Window], str]:
    """The maintenance that is under way, and why a file is passed over. What nobody can read silences nothing.

    Args:
        program: by which it is written.
    """
    window, _alarms, fault = _read(path, now, program)
    return window, fault


def _read(path: str, now: float, program: str) -> t.Tuple[t.Optional[Window], t.Tuple[str, ...], str]:
    advice = f"alarms are told. Write it with 'sudo {program} silence', or remove it"
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        found = Window(float(document["until"]), clean(document["reason"]))
        alarms = tuple(clean(name) for name in document.get("alarms", ()))
    except FileNotFoundError:
        return None, (), ""
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        return None, (), f"{path}: {type(error).__name__}; {advice}"
    if not found.until <= now + LONGEST:
        return None, (), f"{path}: it lasts longer than 24 hours; {advice}"
    return (found if found.until > now else None), alarms, ""


def begin(path: str, length: str, reason: str, now: float, alarms: t.Sequence[str] = ()) -> Window:
    """Hold back alarms of all hosts, or of that which C(path) is the C(place) of. Raises WindowError, or OSError."""
    seconds = duration(length)
    if not seconds or seconds > LONGEST:
        raise WindowError(f"{length!r} is no length of a maintenance; write 30m, 2h, at most 24h")
    if not reason.strip():
        raise WindowError("there is no reason; write one, those who hear the alarms read it")
    window = Window(now + seconds, clean(reason.strip()))
    write_json(path, {"until": window.until, "reason": window.reason, **({"alarms": list(alarms)} if alarms else {})})
    return window


def end(path: str) -> bool:
    """Whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
