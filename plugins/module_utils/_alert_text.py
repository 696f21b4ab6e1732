# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alarms as people read them: what is new, what still rings, what is over.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import SEVERITIES, Alert, is_drill
from ansible_collections.civitas.hosting.plugins.module_utils._login_text import clean, utc

# Where the page of a rule is found; the role writes another place.
PAGES = "docs/runbooks/"
# What a host that judges itself has; a monitoring host has another.
PROGRAM = "civitas-alerts"
# A message that names more is not read.
LINES = 40
_STATES = {"new": "", "still": "still ", "over": "over: "}


class Told(t.NamedTuple):
    """An alarm in a message: C(new), C(still) or C(over), and for one that is over when it ended."""

    state: str
    alert: Alert
    ended: float = 0.0


def compose(
    host: str, told: t.Sequence[Told], occasion: str, note: str = "", pages: str = PAGES, program: str = PROGRAM
) -> t.Dict[str, t.Any]:
    """One message.

    Args:
        host: who tells.
        told: what it is about.
        occasion: by which a repetition of the same message is recognized.
        note: a sentence that comes first, such as that a maintenance begins.
        program: who knows the rest.
    """
    order = sorted(
        told, key=lambda one: (list(_STATES).index(one.state), -SEVERITIES.index(one.alert.severity), one.alert.since, one.alert.key)
    )
    hosts = sorted({one.alert.host for one in order}) or [host]
    place = hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"
    lead = note or _headline(order[0])
    others = len(order) - (0 if note else 1)
    more = f" (and {others} more)" if others > 0 else ""
    lines = [note, ""] if note else []
    for one in order[:LINES]:
        lines += _lines(one, pages)
    if len(order) > LINES:
        lines.append(f"And {len(order) - LINES} more; see 'sudo {program} status' on {host}.")
    first = f" {pages}{order[0].alert.runbook}" if order and not note else ""
    return {
        "id": hashlib.sha256(occasion.encode("utf-8", "surrogatepass")).hexdigest()[:32],
        "type": "alerts",
        "host": host,
        "subject": clean(f"[{place}] {lead}{more}"),
        "text": "\n".join(lines).rstrip("\n") + "\n",
        "short": clean(f"{place}: {lead}{more}") + first,
        "alerts": [_facts(one) for one in order[:LINES]],
        "left_out": max(0, len(order) - LINES),
    }


def occasion(receiver: str, told: t.Sequence[Told], times: t.Sequence[float], note: str) -> str:
    """The same for a message that is tried again, another for any other."""
    return json.dumps([receiver, note, [[one.state, one.alert.key, one.alert.since, one.ended] for one in told], list(times)])


def _headline(one: Told) -> str:
    severity = f"{one.alert.severity.upper()}: " if one.state != "over" else ""
    return f"{_drill(one.alert)}{_STATES[one.state]}{severity}{one.alert.text}"


def _drill(alert: Alert) -> str:
    """What people must read before all else."""
    return "DRILL, nothing is wrong: " if is_drill(alert) else ""


def _lines(one: Told, pages: str) -> t.List[str]:
    alert = one.alert
    if one.state == "over":
        return [
            clean(f"{_drill(alert)}over: {alert.host}: {alert.text}"),
            f"    It was {alert.severity} from {utc(alert.since)} to {utc(one.ended)}.",
            "",
        ]
    return [
        clean(f"{_drill(alert)}{_STATES[one.state]}{alert.severity.upper()}: {alert.host}: {alert.text}"),
        f"    Since {utc(alert.since)}. What to do: {pages}{alert.runbook}",
        "",
    ]


def _facts(one: Told) -> t.Dict[str, t.Any]:
    alert = one.alert
    return {
        "state": one.state,
        "name": alert.name,
        "host": alert.host,
        "severity": alert.severity,
        "labels": dict(alert.labels),
        "text": alert.text,
        "since": alert.since,
        "runbook": alert.runbook,
        **({"ended": one.ended} if one.state == "over" else {}),
    }
