# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads when the bed cannot be made. That it can be made is shown by every scenario."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# Drops root after the imports, which another user may not be allowed to read.
AS_NOBODY = """
import os, sys
from tools import bed
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
sys.argv = ["bed", "up"]
sys.exit(bed.main(["up"]))
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=ROOT, env=settings, capture_output=True, text=True, check=False)


def test_without_root_and_without_an_engine_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    # No docker on this PATH: as on a machine that has none.
    done = run(PATH=str(tmp_path))
    assert done.returncode != 0
    (line,) = (done.stdout + done.stderr).strip().splitlines()
    assert line.startswith("No container engine answers, and only root may start one: run this as root, or start Docker")


def test_an_engine_that_was_named_and_does_not_answer_is_not_replaced(tmp_path: Path) -> None:
    done = run(PATH=os.environ["PATH"], DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode != 0
    assert f"No container engine answers at DOCKER_HOST=unix://{tmp_path}/none.sock." in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
