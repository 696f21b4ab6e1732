# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench's own servers come up, every figure can be taken, and nothing is left. How large the figures are is no matter here."""

from __future__ import annotations

import json
import subprocess
import sys

from tools import bed


def test_every_part_of_the_bench_works(tmp_path):
    result = tmp_path / "bench.json"
    prefix = "civitas-bench-test"
    words = ["chains", "handshakes", "requests", "--seconds", "0.2", "--rounds", "1", "--prefix", prefix, "--result", str(result)]
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", *words], cwd=bed.ROOT, capture_output=True, text=True, timeout=400, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(result.read_text())
    assert {part: len(figures[part]) for part in ("chains", "handshakes", "requests")} == {"chains": 5, "handshakes": 8, "requests": 4}
    assert all(row["spread"]["low"] > 0 for part in ("chains", "handshakes", "requests") for row in figures[part])
    assert all(row["name"] in done.stdout for row in figures["handshakes"])
    assert bed.docker("ps", "--all", "--quiet", "--filter", f"name={prefix}") == ""
