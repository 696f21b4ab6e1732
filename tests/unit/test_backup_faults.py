# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of faults of backups names all of them that are caused, and for each a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.test_requirements import problems_of_test

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/backup-faults.md").read_text()
OWN = "molecule/backup/tests/test_faults.py"
TABLE = "test_a_fault_is_no_success"
# Those that a backup must survive at least.
EXPECTED = (
    *("a source is missing", "a source is empty", "a disk is not mounted, and its directory is there", "one file may not be read"),
    *("a file vanishes while files are read", "the database server is down", "its password is wrong", "one of the databases is gone"),
    *("the disk of the host gets full, and the dump is cut off", "the disk of the store gets full", "the store is not reached"),
    *("the host key of the store has changed", "the transfer is cut at half", "a key for encrypting is missing or none"),
    *("the wrong private key", "a bit flips", "a file is missing", "a dead run has left its lock", "two runs at once"),
    *("the clock is a day behind", "the run is killed", "the timer does not run", "a set is dated to come"),
    *("somebody with the key of the host tries to remove sets", "the source is a replica that is far behind, or gets nothing"),
    *("the server has another major version than `pg_dump`", "there are live data, and nobody has confirmed"),
)


def faults() -> dict[str, list[str]]:
    """Each fault of the page, with its tests as files, functions and names of cases."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "fault":
            found[cells[0]] = [whole(test) for test in re.findall(r"`([^`]+)`", cells[2])]
    return found


def whole(test: str) -> str:
    if test.startswith("["):
        return f"{OWN}::{TABLE}{test}"
    return f"{OWN}{test}" if test.startswith("::") else test


def problems(test: str) -> list[str]:
    """What is wrong with the name of a test, and of one of its cases."""
    name, _bracket, case = test.partition("[")
    found = problems_of_test(name, ROOT)
    if not found and case and f'"{case.rstrip("]")}"' not in (ROOT / name.partition("::")[0]).read_text():
        found.append(f"{name} has no case {case.rstrip(']')!r}")
    return found


def test_no_fault_is_left_out() -> None:
    assert [one for one in EXPECTED if one not in faults()] == []


@pytest.mark.parametrize("fault", faults())
def test_each_fault_has_a_test(fault: str) -> None:
    tests = faults()[fault]
    assert tests and [problem for test in tests for problem in problems(test)] == []


def test_each_case_is_on_the_page() -> None:
    text = (ROOT / OWN).read_text()
    cases = re.findall(r'^    "([^"]+)": Fault\(', text, re.M)
    named = {test for tests in faults().values() for test in tests}
    assert len(cases) > 15 and [case for case in cases if f"{OWN}::{TABLE}[{case}]" not in named] == []


def test_what_is_not_there_is_seen() -> None:
    assert problems(f"{OWN}::test_of_nobody") and problems(f"{OWN}::{TABLE}[a fault of nobody]")
