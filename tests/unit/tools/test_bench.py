# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of the figures. That they can be taken at all is shown by molecule/tls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import bench, bench_rows
from tools.bench_rows import Row, Spread


def test_median_and_spread() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0)
    assert Spread.of([0.12345]) == Spread(0.123, 0.123, 0.123)


def test_the_table_says_median_range_unit_and_note() -> None:
    rows = [Row("edge, ecdsa", "handshakes/s", Spread(1234.5, 1000.0, 2000.0), "549 µs"), Row("10 MB", "ms", Spread(1.25, 1.0, 2.0))]
    assert [line.split() for line in bench_rows.table(rows).splitlines()] == [
        ["median", "from", "to"],
        ["edge,", "ecdsa", "1,234", "1,000", "2,000", "handshakes/s;", "549", "µs"],
        ["10", "MB", "1.2", "1.0", "2.0", "ms"],
    ]


def test_parts_that_were_not_measured_keep_their_figures(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "bench.json"
    bench.store(file, {"runs": [1], "chains": [2]})
    bench.store(file, {"chains": [3]})
    found = json.loads(file.read_text())
    assert (found["runs"], found["chains"]) == ([1], [3])
    assert found["machine"]["cores"] > 0


def test_a_broken_file_of_figures_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text("{")
    bench.store(file, {"runs": [1]})
    assert json.loads(file.read_text())["runs"] == [1]


def test_an_unknown_part_is_named_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["chains", "handshake"])
    assert "there is no part handshake; write some of: runs, site, chains, handshakes, requests, backups" in capsys.readouterr().err
