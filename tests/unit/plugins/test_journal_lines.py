# SPDX-License-Identifier: GPL-3.0-or-later
"""What programs say, to a person and to the journal."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _journal_lines as journal


@pytest.mark.parametrize("severity", range(8))
def test_what_is_wrong_goes_to_standard_error(capsys, monkeypatch, severity):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    journal.say(severity, "one\ntwo")
    told = capsys.readouterr()
    assert (told.err, told.out) == (("one\ntwo\n", "") if severity <= 4 else ("", "one\ntwo\n"))


def test_the_journal_learns_the_severity_of_each_line(capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    journal.say(3, "one\r\ntwo\u2028three")
    assert capsys.readouterr().err == "<3>one\n<3>two\n<3>three\n"


@pytest.mark.parametrize(
    ("written", "said"), [("a\x1b[2Jb", "a?[2Jb"), ("a\tb", "a\tb"), ("été", "été"), ("a\u202eb", "a?b"), ("a\x00", "a?")]
)
def test_nothing_moves_the_cursor_of_who_reads_it(capsys, monkeypatch, written, said):
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    journal.say(6, written)
    assert capsys.readouterr().out == f"{said}\n"
