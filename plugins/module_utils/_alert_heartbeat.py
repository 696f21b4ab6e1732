# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sign of life of a host that judges itself, for a service outside of the site that tells people when it stays away.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import number
from ansible_collections.civitas.hosting.plugins.module_utils._login_delivery import SEND_SECONDS, timed
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Https, Undelivered

# The service outside waits for ten minutes, so one or two may be lost.
EVERY = 240.0


def beat(url: str, before: t.Any, hindrance: str, now: float, say: t.Callable[[int, str], None]) -> t.Dict[str, t.Any]:
    """Send it when it is time, and say what changed.

    Args:
        url: a secret; it becomes part of no message.
        before: what the last call returned; what is damaged counts for nothing.
        hindrance: why alarms could be lost, so that people must hear of it from outside; empty when they could not.
        say: a line for the journal, with its severity as in syslog.

    Returns: what is kept: C(at), when it was taken last, in seconds since 1970, and C(problem), empty when there is none.
    """
    kept = before if isinstance(before, dict) else {}
    at = number(kept.get("at")) or 0.0
    problem = f"it is held back, as {hindrance}" if hindrance else ""
    if not hindrance and not 0 <= now - at < EVERY:
        try:
            send(url)
            at = now
        except Undelivered as error:
            problem = f"{error}; it is tried again"
    if problem != kept.get("problem", ""):
        say(3 if problem else 5, f"the sign of life for outside: {problem or 'it is sent again'}")
    return {"at": at, "problem": problem}


def send(url: str, seconds: int = SEND_SECONDS) -> None:
    """Ask the address once. Raises Undelivered."""
    with timed(seconds), contextlib.closing(Https("heartbeat", url, "")) as service:
        service.ask("POST", service.target, b"", {})
