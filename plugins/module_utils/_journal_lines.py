# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program on a host says: to a person who runs it, or to the journal when systemd does.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import sys

_KEPT = "\t"


def say(severity: int, lines: str) -> None:
    """Say lines, each with its severity. What is no printable character becomes a question mark: nothing that was read elsewhere moves
    the cursor of whoever looks at it.

    Args:
        severity: as in syslog(3). From 4 (warning) on to what is worse it goes to standard error; the journal learns it from the begin of
            a line (sd-daemon(3)).
    """
    stream = sys.stderr if severity <= 4 else sys.stdout
    prefix = f"<{severity}>" if os.environ.get("JOURNAL_STREAM") else ""
    for line in lines.splitlines():
        stream.write(f"{prefix}{''.join(one if one.isprintable() or one in _KEPT else '?' for one in line)}\n")
    stream.flush()
