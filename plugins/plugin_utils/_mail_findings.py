# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the mail proof says: one finding for each thing that it looked at, good or not, and how to write a DNS record.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import textwrap
import typing as t

# Worst first. What nobody could answer is no fault and no proof either.
SEVERITIES = ("error", "unknown", "warning")
_WORDS = {"error": "ERROR", "unknown": "UNKNOWN", "warning": "WARNING"}
_WIDTH = 100


class Finding(t.NamedTuple):
    """One thing that was looked at.

    Attributes:
        id: stable name of what was looked at, such as V(spf.record).
        subject: the name, address or server that it was looked at for.
        ok: whether it is as it should be.
        severity: one of C(SEVERITIES), or V(none) when it is.
        found: what was seen.
        expected: what should be seen.
        remedy: what to do or to write; empty when there is nothing to do.
    """

    id: str
    subject: str
    ok: bool
    severity: str
    found: str
    expected: str
    remedy: str


def good(id: str, subject: str, found: str, expected: str) -> Finding:
    return Finding(id, subject, True, "none", shown(found), expected, "")


def bad(id: str, subject: str, found: str, expected: str, remedy: str, severity: str = "error") -> Finding:
    return Finding(id, subject, False, severity, shown(found), expected, remedy)


def unknown(id: str, subject: str, found: object, expected: str, remedy: str = "") -> Finding:
    """Nobody could tell: that is neither good nor a missing record."""
    remedy = remedy or "Nothing is proven either way. Look whether the name servers answer, then ask again."
    return Finding(id, subject, False, "unknown", shown(str(found)), expected, remedy)


def shown(text: str) -> str:
    """What strangers wrote, without what moves a terminal's cursor, and not endless."""
    return shown_whole(text if len(text) <= 1000 else f"{text[:1000]}...")


def shown_whole(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def txt_record(name: str, value: str) -> str:
    """A TXT record as it stands in a zone file: strings of 255 characters at most, one after the other."""
    strings = [value[place : place + 255] for place in range(0, max(len(value), 1), 255)]
    quoted = " ".join('"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in strings)
    return f"{name}. IN TXT {shown_whole(quoted)}"


def report(findings: t.Sequence[Finding]) -> str:
    """For people: what is wrong, the worst first, and how much is right."""
    wrong = sorted((one for one in findings if not one.ok), key=lambda one: SEVERITIES.index(one.severity))
    fine = [one for one in findings if one.ok]
    blocks = []
    for one in wrong:
        lines = [f"{_WORDS[one.severity]} {one.id} ({one.subject})"]
        for title, text in (("found", one.found), ("expected", one.expected), ("to do", one.remedy)):
            # A record to write must stay in one piece to be copied.
            for number, line in enumerate(text.splitlines()):
                begin = f"  {title + ':':<10}" if number == 0 else " " * 12
                record = " IN " in line and line.partition(" ")[0].endswith(".")
                lines += [begin + line] if record else textwrap.wrap(line, _WIDTH, initial_indent=begin, subsequent_indent=" " * 12)
        blocks.append("\n".join(lines))
    if fine:
        blocks.append("\n".join(["Good:", *(f"  {one.id} ({one.subject})" for one in fine)]))
    return "\n\n".join(blocks)
