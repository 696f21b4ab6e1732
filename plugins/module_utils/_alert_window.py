# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a host is worked on, its alarms are held back for a while, and whoever hears them is told so.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import duration
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import PROGRAM
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json
from ansible_collections.civitas.hosting.plugins.module_utils._login_text import clean

FILE = "/etc/civitas/maintenance.json"
LONGEST = 86400.0


class WindowError(Exception):
    """A maintenance that cannot be; the text says what to write."""


class Window(t.NamedTuple):
    """Until when alarms are held back, in seconds since 1970, and why."""

    until: float
    reason: str


def read(path: str, now: float, program: str = PROGRAM) -> t.Tuple[t.Optional[Window], str]:
    """The maintenance that is under way, and why a file is passed over. What nobody can read silences nothing.

    Args:
        program: by which it is written.
    """
    advice = f"alarms are told. Write it with 'sudo {program} silence', or remove it"
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        found = Window(float(document["until"]), clean(document["reason"]))
    except FileNotFoundError:
        return None, ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"{path}: {type(error).__name__}; {advice}"
    if not found.until <= now + LONGEST:
        return None, f"{path}: it lasts longer than 24 hours; {advice}"
    return (found if found.until > now else None), ""


def begin(path: str, length: str, reason: str, now: float) -> Window:
    """Raises WindowError, or OSError."""
    seconds = duration(length)
    if not seconds or seconds > LONGEST:
        raise WindowError(f"{length!r} is no length of a maintenance; write 30m, 2h, at most 24h")
    if not reason.strip():
        raise WindowError("there is no reason; write one, those who hear the alarms read it")
    window = Window(now + seconds, clean(reason.strip()))
    write_json(path, {"until": window.until, "reason": window.reason})
    return window


def end(path: str) -> bool:
    """Whether there was one."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
