# SPDX-License-Identifier: GPL-3.0-or-later
"""What the summary of a test run says of a scenario that failed."""

from __future__ import annotations

from tools.testrun import FAILED, PASSED, SKIPPED, Result, table, what_failed

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
