# SPDX-License-Identifier: GPL-3.0-or-later
"""How figures are taken and shown. Part of `make bench` (tools/bench.py)."""

from __future__ import annotations

import re
import statistics
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = sorted(values)
        return cls(*(round(value, 3) for value in (statistics.median(found), found[0], found[-1])))


@dataclass(frozen=True)
class Row:
    """One candidate. name: what was measured; unit: of the spread; note: what else there is to know."""

    name: str
    unit: str
    spread: Spread
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def table(rows: Sequence[Row]) -> str:
    width = max(len(row.name) for row in rows)
    lines = [f"{'':<{width}} {'median':>10} {'from':>10} {'to':>10}"]
    for row in rows:
        numbers = " ".join(f"{value:>10,.{1 if value < 100 else 0}f}" for value in (row.spread.median, row.spread.low, row.spread.high))
        lines.append(f"{row.name:<{width}} {numbers}  {row.unit}{f'; {row.note}' if row.note else ''}")
    return "\n".join(lines)


class Peak(threading.Thread):
    """The largest sum of the proportional memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.kib, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.3):
            self.kib = max(self.kib, sum(self._pss(pid) for pid in self._family()))

    def _family(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                parents.setdefault(parent, []).append(int(entry.name))
        family = [self.pid]
        for pid in family:
            family.extend(parents.get(pid, []))
        return family

    @staticmethod
    def _pss(pid: int) -> int:
        try:
            return int(re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])  # type: ignore[index]
        except (OSError, TypeError):
            return 0
