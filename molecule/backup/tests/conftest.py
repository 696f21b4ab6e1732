# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test of backups does to a file."""

from __future__ import annotations

import shlex

import pytest

# A byte that is written may be the one that was there: one run in 256 would alter nothing.
FLIP = """
import sys
with open(sys.argv[1], "r+b", buffering=0) as file:
    file.seek(int(sys.argv[2]))
    byte = file.read(1)[0]
    file.seek(int(sys.argv[2]))
    file.write(bytes([byte ^ 1]))
"""


@pytest.fixture(name="flip", scope="session")
def _flip():
    """Invert a bit of a file of a host, in place and for certain."""

    def flip(host, path, at=300):
        host.check_output(f"python3 -c {shlex.quote(FLIP)} {shlex.quote(path)} {at}")

    return flip
