# SPDX-License-Identifier: GPL-3.0-or-later
"""A judge that could not judge is an error and never an agreement. What they say of real servers is in molecule/tls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tools import judges
from tools.bed import BedError


def answer(name: str, finding: str, severity: str = "INFO") -> dict[str, Any]:
    return {"id": name, "ip": "records.test/192.0.2.1", "port": "443", "severity": severity, "finding": finding}


def test_a_grade_with_its_reasons_and_findings() -> None:
    grade = judges.grade(
        [
            answer("engine_problem", "No engine", "WARN"),
            answer("HSTS", "not offered", "LOW"),
            answer("TLS1_3", "offered", "OK"),
            answer("final_score", "94"),
            answer("overall_grade", "B", "MEDIUM"),
            answer("grade_cap_reason_1", "Grade capped to A. HSTS is not offered"),
            answer("grade_cap_warning_1", "Uncommon"),
        ]
    )
    assert (grade.grade, grade.score) == ("B", 94)
    assert grade.reasons == ["Grade capped to A. HSTS is not offered", "Uncommon"]
    assert [str(finding) for finding in grade.findings] == ["LOW HSTS: not offered", "MEDIUM overall_grade: B"]


def test_no_grade_is_an_error_with_the_cause() -> None:
    with pytest.raises(BedError, match="Can't connect"):
        judges.grade([answer("scanProblem", "Can't connect to '192.0.2.1:443'", "FATAL"), answer("scanTime", "Scan interrupted", "WARN")])


def test_a_scan_that_was_cut_off_is_an_error() -> None:
    with pytest.raises(BedError, match="did not come to its end"):
        judges.grade([answer("TLS1_3", "offered", "OK")])


def test_gixy_is_not_asked_about_anything_but_a_whole_configuration() -> None:
    with pytest.raises(BedError, match="nginx -T"):
        judges.gixy("nginx: [emerg] unexpected end of file\n")


def test_packages_that_cannot_be_had_are_named_and_asked_for_again(tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("./missing-1.0-py3-none-any.whl\n")
    for _number in range(2):
        with pytest.raises(BedError, match=r"requirements\.txt cannot be had"):
            judges.ensure_programs(requirements, tmp_path / "environment")


def test_what_is_there_is_not_made_again_until_the_pins_change(tmp_path: Path) -> None:
    requirements, environment = tmp_path / "requirements.txt", tmp_path / "environment"
    requirements.write_text("# nothing\n")
    programs = judges.ensure_programs(requirements, environment)
    (programs / "mark").touch()
    assert judges.ensure_programs(requirements, environment) == programs
    assert (programs / "mark").exists()
    requirements.write_text("# nothing else\n")
    judges.ensure_programs(requirements, environment)
    assert not (programs / "mark").exists()
