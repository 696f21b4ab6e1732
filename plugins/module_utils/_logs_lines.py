# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A line of evidence: what an entry of the journal says, and apart from it what is known of who said it.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import time
import typing as t

# Longer ones are cut, in characters. As JSON a character may take twelve bytes.
LONGEST_MESSAGE = 4096
_LONGEST_WORD = 256
LONGEST_LINE = 2**17
# auth and authpriv; any program may say so.
FACILITIES = (4, 10)
# From the journal, which has them from the kernel and from systemd; what a program says of itself never gets there.
_SEEN = {
    "_UID": "uid",
    "_PID": "pid",
    "_AUDIT_LOGINUID": "login_uid",
    "_EXE": "exe",
    "_SYSTEMD_UNIT": "unit",
    "_TRANSPORT": "transport",
    "_BOOT_ID": "boot",
}
_SAID = {"SYSLOG_IDENTIFIER": "identifier", "SYSLOG_FACILITY": "facility", "PRIORITY": "priority", "MESSAGE": "message"}
_NUMBERS = ("uid", "pid", "login_uid", "facility", "priority")


class LineError(Exception):
    """What came is no line of evidence."""


def journal_command(identifiers: t.Sequence[str], cursor: str) -> t.List[str]:
    """How to follow the journal from behind C(cursor) on, from its beginning without one."""
    # Without --all, a field of 4 KiB or more would be left out.
    command = ["journalctl", "--follow", "--all", "--quiet", "--no-pager", "--lines=all", "--output=json"]
    command.append("--output-fields=" + ",".join([*_SEEN, *_SAID]))
    if cursor:
        command.append(f"--after-cursor={cursor}")
    terms = [f"SYSLOG_FACILITY={number}" for number in FACILITIES] + [f"SYSLOG_IDENTIFIER={name}" for name in identifiers]
    return command + " + ".join(terms).split()


def from_entry(entry: t.Mapping[str, t.Any], series: str, number: int) -> bytes:
    """A line, from an entry of the journal as C(journalctl --output=json) prints it, which may hold anything."""
    line = {
        "series": series,
        "n": number,
        "time": moment(int(entry["__REALTIME_TIMESTAMP"]) / 1e6),
        "seen": _fields(entry, _SEEN),
        "said": _fields(entry, _SAID),
        "cursor": str(entry["__CURSOR"]),
    }
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _fields(entry: t.Mapping[str, t.Any], names: t.Mapping[str, str]) -> t.Dict[str, t.Any]:
    found: t.Dict[str, t.Any] = {}
    for field, name in names.items():
        text = _text(entry.get(field))
        if text is not None:
            text = text[: LONGEST_MESSAGE if name == "message" else _LONGEST_WORD]
            found[name] = int(text) if name in _NUMBERS and text.isascii() and text.isdigit() and len(text) < 12 else text
    return found


def _text(value: t.Any) -> t.Optional[str]:
    """Bytes that are no text come as a list of numbers, a field that comes several times as a list of such values."""
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        value = bytes(value).decode("utf-8", "replace")
    elif isinstance(value, list):
        value = " ".join(filter(None, map(_text, value)))
    return str(value)


def moment(seconds: float) -> str:
    """A time as people and machines read it, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1e6):06d}Z"


def is_number(value: t.Any) -> bool:
    """A whole number, which V(true) is to Python as well."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse(data: bytes) -> t.Dict[str, t.Any]:
    """A line that has a series and a number. Raises LineError."""
    try:
        line = json.loads(data)
        good = isinstance(line, dict) and isinstance(line["series"], str) and is_number(line["n"]) and line["n"] > 0
    except (ValueError, KeyError, RecursionError):
        good = False
    if not good or not 8 <= len(line["series"]) <= 32 or not line["series"].isalnum():
        raise LineError("a line has no series and number")
    return t.cast(t.Dict[str, t.Any], line)


def received(line: t.Mapping[str, t.Any], sender: str, address: str, now: float) -> bytes:
    """The line that a receiver keeps: what it knows itself, and apart from it what the sender wrote.

    C(sender) is the owner of the certificate.
    """
    rest = {key: value for key, value in line.items() if key not in ("series", "n")}
    kept = {"received": moment(now), "sender": sender, "address": address, "series": line["series"], "n": line["n"], "line": rest}
    return json.dumps(kept, separators=(",", ":")).encode() + b"\n"


def shown(line: t.Mapping[str, t.Any]) -> str:
    """One line for people. What another user than root has said is marked, as anybody may say that sshd let somebody in."""
    evidence = line.get("line", line)
    seen, said = (evidence.get(key) if isinstance(evidence.get(key), dict) else {} for key in ("seen", "said"))
    uid = seen.get("uid")
    mark = "  " if uid == 0 else "! "
    who = f"uid={uid if uid is not None else '?'} {seen.get('unit', '-')} {seen.get('exe', '-')}"
    text = f"{evidence.get('time', '?')} {who} {said.get('identifier', '-')}[{seen.get('pid', '?')}]: {said.get('message', '')}"
    # Nothing that a terminal would obey, and one line.
    return mark + "".join(character if character.isprintable() else "?" for character in text)
