# SPDX-License-Identifier: GPL-3.0-or-later
"""Deliveries for the scenario: python pki.py DIRECTORY. Each is C(<name>.pem), the chain, and C(<name>.key)."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.unit.pki import DAY, NOW, issue, pem

NAMES = ("records.test", "*.records.test")


def main() -> None:
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    root = issue("Test Root", ca=True, start=NOW - 400 * DAY, end=NOW + 3650 * DAY)
    between = issue("Test Intermediate", root, ca=True, path_length=0, start=NOW - 400 * DAY, end=NOW + 1800 * DAY)
    stranger = issue("Strange Root", ca=True, end=NOW + 3650 * DAY)
    (directory / "root.pem").write_text(root.pem)

    def deliver(name: str, names: Sequence[str] = NAMES, days: float = 300, disordered: bool = False) -> None:
        leaf = issue(names[0], between, names=list(names), start=NOW - 300 * DAY, end=NOW + datetime.timedelta(days=days))
        chain = pem(between.certificate, leaf.certificate).replace("\n", "\r\n") if disordered else leaf.pem + between.pem
        (directory / f"{name}.pem").write_bytes(chain.encode())
        (directory / f"{name}.key").write_text(leaf.key_pem())

    deliver("sent", disordered=True)
    deliver("first")
    deliver("second")
    deliver("third")
    # For the watch: what is left of most of a year.
    for days in (29, 13, 6):
        deliver(f"days-{days}", days=days + 0.5)
    deliver("days-0", days=0.9)
    deliver("database", ["database.internal"])
    deliver("database-next", ["database.internal"])
    deliver("container", ["container.internal"])
    deliver("container-next", ["container.internal"])
    strange = issue("records.test", stranger, names=NAMES)
    (directory / "strange.pem").write_text(strange.pem)
    (directory / "strange.key").write_text(strange.key_pem())


if __name__ == "__main__":
    main()
