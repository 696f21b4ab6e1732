# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured of who gets in: whether everybody has a second factor who needs one, and whether people hear of logins.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, sample

TITLES = {
    "civitas_second_factor_missing": "People without the second factor that they need, once their time to get one is over.",
    "civitas_login_announcements_waiting": "How many announcements of logins are not delivered yet.",
    "civitas_login_announcements_waiting_time_seconds": "Since when the one waits that has waited longest; absent when none does.",
}
# First that of logins of which no announcement is written yet, then those of each destination.
QUEUES = ("new", "mail", "webhook")
# One of a login is named by its moment, in milliseconds. When only some recipients took it, the file is written anew.
_MOMENT = re.compile(r"([0-9a-f]{13})-")


def second_factors(access: t.Mapping[str, t.Any], present: t.Container[str], today: str) -> t.Iterator[Sample]:
    """Raises KeyError.

    Args:
        access: what the role access left on the host (C(/etc/civitas/access.json)).
        present: names of those who have one.
        today: as YYYY-MM-DD.
    """
    if access["second_factor"]:
        missing = [name for name in access["people"] if name not in present] if today > access["grace_until"] else []
        yield sample("civitas_second_factor_missing", len(missing))


def announcements(queues: t.Mapping[str, t.Iterable[t.Tuple[str, float]]]) -> t.Iterator[Sample]:
    """C(queues) has of each queue the names of its files, and when they were written."""
    for queue, files in sorted(queues.items()):
        # What begins with a dot is being written.
        since = [_since(name, written) for name, written in files if name.endswith(".json") and not name.startswith(".")]
        yield sample("civitas_login_announcements_waiting", len(since), queue=queue)
        if since:
            yield sample("civitas_login_announcements_waiting_time_seconds", min(since), queue=queue)


def _since(name: str, written: float) -> float:
    moment = _MOMENT.match(name)
    return min(written, int(moment[1], 16) / 1000) if moment else written
