# SPDX-License-Identifier: GPL-3.0-or-later
"""A line of evidence has apart from each other what was said and who said it, whatever an entry of the journal holds."""

from __future__ import annotations

import json

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_lines as lines

ENTRY = {
    "__REALTIME_TIMESTAMP": "1795335380123456",
    "__CURSOR": "s=1;i=2",
    "_UID": "1000",
    "_PID": "7",
    "_SYSTEMD_UNIT": "session-1.scope",
    "SYSLOG_FACILITY": "10",
    "SYSLOG_IDENTIFIER": "sshd",
    "MESSAGE": "Accepted publickey for root",
    "_CMDLINE": "not asked for",
}


def line(**changes):
    return json.loads(lines.from_entry({**ENTRY, **changes}, "ab" * 8, 5))


def test_what_was_said_is_apart_from_who_said_it():
    assert line() == {
        "series": "ab" * 8,
        "n": 5,
        "time": "2026-11-22T08:16:20.123456Z",
        "seen": {"uid": 1000, "pid": 7, "unit": "session-1.scope"},
        "said": {"identifier": "sshd", "facility": 10, "message": "Accepted publickey for root"},
        "cursor": "s=1;i=2",
    }


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (None, None),
        ([65, 255, 10], "A\ufffd\n"),
        (["a", "b"], "a b"),
        ([[65, 66], "c", None], "AB c"),
        ([], ""),
        (7, "7"),
        ("x" * 5000, "x" * 4096),
    ],
)
def test_whatever_the_journal_holds_becomes_a_text(message, text):
    assert line(MESSAGE=message)["said"].get("message") == text


@pytest.mark.parametrize("pid", ["x", "-1", "", "9" * 40, "\u0661"])
def test_what_is_no_number_stays_a_text(pid):
    assert line(_PID=pid)["seen"]["pid"] == pid


def test_the_longest_line_has_room():
    huge = dict.fromkeys(("MESSAGE", "SYSLOG_IDENTIFIER", "_EXE", "_SYSTEMD_UNIT", "_TRANSPORT", "_BOOT_ID"), "😀" * 9999)
    assert len(lines.from_entry({**ENTRY, **huge}, "a" * 16, 5)) < lines.LONGEST_LINE


def test_a_line_is_one_line():
    assert lines.from_entry({**ENTRY, "MESSAGE": 'a\nb\r\u2028{"n":1}'}, "a" * 16, 5).count(b"\n") == 1


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"[]", b"7", b"{}", b'{"series":"abababab"}', b'{"series":"abababab","n":0}', b'{"series":"abababab","n":true}',
     b'{"series":"abababab","n":"1"}', b'{"series":7,"n":1}', b'{"series":"../../ab","n":1}', b'{"series":"ab","n":1}', b"[" * 99999,
     b"\xff", b'{"series":"' + b"a" * 99 + b'","n":1}'],
)  # fmt: skip
def test_what_is_no_line(data):
    with pytest.raises(lines.LineError):
        lines.parse(data)


def test_what_a_sender_writes_stays_inside():
    own = {"series": "a" * 8, "n": 3, "sender": "other", "received": "never", "said": {"message": "m"}}
    kept = json.loads(lines.received(lines.parse(json.dumps(own).encode()), "records", "192.0.2.1", 0.5))
    assert kept == {
        "received": "1970-01-01T00:00:00.500000Z", "sender": "records", "address": "192.0.2.1", "series": "a" * 8, "n": 3,
        "line": {"sender": "other", "received": "never", "said": {"message": "m"}},
    }  # fmt: skip


def test_people_see_who_is_not_root():
    assert lines.shown(line()) == ("! 2026-11-22T08:16:20.123456Z uid=1000 session-1.scope - sshd[7]: Accepted publickey for root")
    root = {"line": line(_UID="0", _EXE="/usr/sbin/sshd", MESSAGE="a\x1b[2Jb\nc")}
    assert lines.shown(root) == "  2026-11-22T08:16:20.123456Z uid=0 session-1.scope /usr/sbin/sshd sshd[7]: a?[2Jb?c"
    assert lines.shown({"line": {"seen": [], "said": 7}}) == "! ? uid=? - - -[?]: "


def test_the_journal_is_asked_for_these_and_no_others():
    command = lines.journal_command(["civitas-bastion"], "s=1")
    place = command.index("--after-cursor=s=1")
    assert command[place + 1 :] == ["SYSLOG_FACILITY=4", "+", "SYSLOG_FACILITY=10", "+", "SYSLOG_IDENTIFIER=civitas-bastion"]
    assert "--all" in command and not any(word.startswith("--after") for word in lines.journal_command([], ""))
