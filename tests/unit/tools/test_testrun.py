# SPDX-License-Identifier: GPL-3.0-or-later
"""What the summary of a test run says of a scenario that failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import testrun
from tools.testrun import EXPECTED, FAILED, PASSED, SCENARIOS, SKIPPED, WHOLE, Result, Skip, in_time, table, turns, what_failed

LOG = """
TASK [Refused as it should be] ***
fatal: [host12]: FAILED! =>
    changed: false
    msg: expected
...ignoring

TASK [base : service | Run it] *****
fatal: [host12]: FAILED! =>
    changed: false
    msg: 'the journal
        says nothing'
    units: {}
ok: [host13]

TASK [Later] ***
ok: [host13]
"""


def test_the_task_the_host_and_the_message() -> None:
    assert what_failed(LOG) == "base : service | Run it: fatal: [host12] 'the journal says nothing'"


def test_tests_that_failed() -> None:
    log = LOG + "FAILED molecule/base/tests/test_base.py::test_time[docker://host12] - AssertionError: no\n"
    assert what_failed(log) == "test_time[docker://host12] - AssertionError: no"


def test_nothing_that_failed() -> None:
    assert what_failed("TASK [All is well] ***\nok: [host13]\n") == ""


def test_what_failed_is_read_last() -> None:
    lines = table([Result("lint", FAILED, reason="mypy"), Result("unit", PASSED), Result("molecule/vm", SKIPPED)]).splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["unit", "molecule/vm", "lint"]
    assert lines[3].endswith("mypy") and lines[-1] == "1 passed, 1 failed, 1 skipped"


def test_the_whole_story_begins_and_the_others_take_turns() -> None:
    names = ["tls", "vm", "nginx", "acme", "tier4", "base", "docker"]
    orders = {tuple(turns(names, f"commit {number}")) for number in range(20)}
    assert len(orders) > 5
    for order in orders:
        assert sorted(order) == sorted(names)
        assert order[0] == WHOLE == "tier4"
    assert turns(names, "a") == turns(names, "a")


def test_what_there_is_no_time_for_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(testrun, "TIMES", tmp_path / "times.json")
    # `make test` has begun long ago when this is run by it.
    monkeypatch.setattr(testrun.bed, "elapsed", lambda: 5.0)
    assert all((SCENARIOS / name / "molecule.yml").is_file() for name in EXPECTED)
    assert in_time("tls", lambda: "done", minutes=0) == "done"
    assert in_time("tls", lambda: "done", minutes=1e6) == "done"
    with pytest.raises(Skip, match=r"takes 16 of 15 minutes, which are not left; make molecule S=tls"):
        in_time("tls", lambda: "done", minutes=15)
    # The last run knows better.
    testrun.TIMES.write_text('{"molecule/tls": 60}')
    assert in_time("tls", lambda: "done", minutes=15) == "done"
