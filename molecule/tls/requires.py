# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario needs its judges; their packages are another download than those of the other tests."""

from __future__ import annotations

from tools import bed, judges

try:
    judges.ensure_programs()
except bed.BedError as error:
    print(error)
