# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of requirements is complete, its states are honest in form, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tools import pages

ROOT = Path(__file__).resolve().parents[2]

PAGE = ROOT / "docs" / "requirements.md"

# How many requirements each system has; ids are these letters with 1 to the number.
SYSTEMS = {"H": 37, "T": 45, "O": 24, "C": 18, "P": 22}
IDS = [f"{letter}{number}" for letter, last in SYSTEMS.items() for number in range(1, last + 1)]
REFERENCE = re.compile(r"`([^`]+)`")


def problems_of_ids(rows: list[list[str]], ids: list[str]) -> list[str]:
    """Ids without a row, with several, or that nobody knows; rows in another order than the ids."""
    found = Counter(row[0] for row in rows)
    problems = [f"{name}: no row" for name in ids if not found[name]]
    problems += [f"{name}: {number} rows" for name, number in found.items() if number > 1]
    problems += [f"{name}: no such requirement" for name in found if name not in ids]
    if not problems and [row[0] for row in rows] != ids:
        problems.append("rows are not in the order of their ids")
    return problems


def problems_of_row(row: list[str], root: Path) -> list[str]:
    """A wrong number of columns, an empty text, an unknown state, or tests that do not fit the state or do not exist."""
    if len(row) != 5:
        return [f"{row[0]}: {len(row)} columns in place of 5"]
    name, requirement, met_by, proven_by, state = row
    problems = [f"{name}: empty {title}" for title, text in (("requirement", requirement), ("met by", met_by)) if text in ("", "-")]
    if state not in pages.STATES:
        problems.append(f"{name}: state '{state}' is none of {', '.join(pages.STATES)}")
    tests = REFERENCE.findall(proven_by)
    if not tests and proven_by != "-":
        problems.append(f"{name}: proven by '{proven_by}': write tests between backticks, or '-'")
    if state == "proven" and not tests:
        problems.append(f"{name}: proven, but names no test")
    if state == "missing" and proven_by != "-":
        problems.append(f"{name}: missing, but names a test")
    return problems + [f"{name}: {problem}" for test in tests for problem in problems_of_test(test, root)]


def problems_of_test(reference: str, root: Path) -> list[str]:
    """What is wrong with C(molecule/<scenario>), C(<file>.py) or C(<file>.py::<test>)."""
    path, _separator, test = reference.partition("::")
    if path.startswith("molecule/") and path.count("/") == 1 and not test:
        return [] if (root / path / "molecule.yml").is_file() else [f"there is no scenario {path}"]
    if not re.fullmatch(r"(tests|molecule/\w+/tests)/[\w/]*test_\w+\.py", path):
        return [f"'{reference}' is neither molecule/<scenario> nor a test file of tests/ or of a scenario"]
    file = root / path
    if not file.is_file():
        return [f"there is no file {path}"]
    if not test:
        return [f"'{reference}' names no test of the file"]
    names = {node.name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)}
    return [] if test.startswith("test_") and test in names else [f"{path} has no test {test}"]


ROWS = pages.requirement_rows(PAGE.read_text(encoding="utf-8"))


def test_every_requirement_has_one_row() -> None:
    assert len(IDS) == 146
    assert problems_of_ids(ROWS, IDS) == []


def test_every_row_is_sound() -> None:
    problems = [problem for row in ROWS for problem in problems_of_row(row, ROOT)]
    assert not problems, "\n".join(problems)


def test_no_row_is_lost_by_its_form() -> None:
    """A row that the reader of the table overlooks would be a requirement without a state."""
    text = PAGE.read_text(encoding="utf-8")
    in_tables = [line for line in text.split("<!-- summary:end -->")[1].splitlines() if line.startswith("|")]
    assert len(in_tables) - 2 * len(SYSTEMS) == len(ROWS)


def test_the_summary_is_right() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == pages.fill(text, "summary", pages.summary_block(ROWS)), "run 'make docs'"


def test_the_summary_counts() -> None:
    rows = [["H1", "a", "b", "-", "missing"], ["H2", "a", "b", "-", "missing"], ["P1", "a", "b", "`x`", "proven"]]
    block = pages.summary_block(rows)
    assert "| H: Primero, hosted | 0 | 0 | 2 | 2 |" in block
    assert "| P: Pryv.io | 1 | 0 | 0 | 1 |" in block
    assert block.endswith("| **all** | **1** | **0** | **2** | **3** |")


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        (["H1"], "H2: no row"),
        (["H1", "H2", "H2"], "H2: 2 rows"),
        (["H1", "H2", "H3"], "H3: no such requirement"),
        (["H2", "H1"], "rows are not in the order of their ids"),
    ],
)
def test_wrong_ids_are_found(ids: list[str], problem: str) -> None:
    rows = pages.requirement_rows("\n".join(f"| {name} | text | role `x` | - | missing |" for name in ids))
    assert problems_of_ids(rows, ["H1", "H2"]) == [problem]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| H1 | text | role | missing |", "4 columns"),
        ("| H1 |  | role | - | missing |", "empty requirement"),
        ("| H1 | text | - | - | missing |", "empty met by"),
        ("| H1 | text | role | - | done |", "state 'done' is none of"),
        ("| H1 | text | role | - | Proven |", "state 'Proven' is none of"),
        ("| H1 | text | role | - | proven |", "names no test"),
        ("| H1 | text | role | soon | built, unproven |", "between backticks"),
        ("| H1 | text | role | `molecule/real` | missing |", "missing, but names a test"),
        ("| H1 | text | role | `molecule/other` | proven |", "no scenario molecule/other"),
        ("| H1 | text | role | `molecule/empty` | proven |", "no scenario molecule/empty"),
        ("| H1 | text | role | `tests/unit/test_other.py::test_x` | proven |", "no file tests/unit/test_other.py"),
        ("| H1 | text | role | `tests/unit/test_a.py::test_y` | proven |", "has no test test_y"),
        ("| H1 | text | role | `tests/unit/test_a.py::helper` | proven |", "has no test helper"),
        ("| H1 | text | role | `tests/unit/test_a.py` | proven |", "names no test of the file"),
        ("| H1 | text | role | `README.md` | proven |", "is neither"),
        ("| H1 | text | role | `tests/unit/../unit/test_a.py::test_x` | proven |", "is neither"),
        ("| H1 | text | role | `molecule/real/tests/test_b.py::test_y` | proven |", "has no test test_y"),
        ("| H1 | text | role | `molecule/real`, `molecule/other` | proven |", "no scenario molecule/other"),
    ],
)
def test_wrong_rows_are_found(row: str, problem: str, small_tree: Path) -> None:
    (cells,) = pages.requirement_rows(row)
    problems = problems_of_row(cells, small_tree)
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize(
    "row",
    [
        "| H1 | text | role | - | missing |",
        "| H1 | text | role | - | built, unproven |",
        "| H1 | text | role | `molecule/real` | built, unproven |",
        "| H1 | text | role | `molecule/real`, `tests/unit/test_a.py::test_x` | proven |",
        "| H1 | text | role | `molecule/real/tests/test_b.py::test_x` | proven |",
    ],
)
def test_right_rows_pass(row: str, small_tree: Path) -> None:
    (cells,) = pages.requirement_rows(row)
    assert problems_of_row(cells, small_tree) == []


@pytest.fixture
def small_tree(tmp_path: Path) -> Path:
    for path, text in {
        "tests/unit/test_a.py": "def helper(): pass\ndef test_x(): pass\n",
        "molecule/real/molecule.yml": "---\n",
        "molecule/real/tests/test_b.py": "class TestB:\n    def test_x(self): pass\n",
        "molecule/empty/README.md": "not a scenario\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path
