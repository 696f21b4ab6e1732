# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the certificates of the smarthosts and of the chat, once: python material.py DIRECTORY"""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from tests.unit import pki

DAY = datetime.timedelta(days=1)


def main() -> None:
    folder = Path(sys.argv[1])
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    root = pki.issue("Root", ca=True)
    names = {"names": ["smarthost.test"]}
    pairs = {
        "right": pki.issue("smarthost.test", root, **names),
        "selfsigned": pki.issue("smarthost.test", **names),
        "expired": pki.issue("smarthost.test", root, **names, start=pki.NOW - 90 * DAY, end=pki.NOW - DAY),
        "wrongname": pki.issue("other.test", root, names=["other.test"]),
        "chat": pki.issue("chat.test", root, names=["chat.test"]),
    }
    (folder / "root.pem").write_text(root.pem)
    for name, pair in pairs.items():
        (folder / f"{name}.pem").write_text(pair.pem + pair.key_pem())
    (folder / "done").touch()


if __name__ == "__main__":
    main()
