# SPDX-License-Identifier: GPL-3.0-or-later
"""One job of the collection's own backup, in a process of its own, so that it is measured alone (tools/bench_backup.py).

python -IS tools/bench_backup_job.py COLLECTIONS make|restore DIRECTORY NUMBER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as trees
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import Writer


def make(base: Path, number: str) -> None:
    """A set of the tree as a run makes it, without the way to the store; the set before it shares what did not change."""
    out = base / "ours" / number
    out.mkdir(parents=True)
    recipients = (base / "recipients").read_text().split()
    made: list[Member] = []

    def close(writer: Writer) -> Member:
        made.append(writer.close())
        return made[-1]

    stored = json.loads((base / "ours/stored").read_text()) if (base / "ours/stored").exists() else {}
    result = trees.make(
        trees.Tree("data", str(base / "tree")),
        str(base / "ours/state"),
        lambda name: Writer(name, recipients, (out / name).open("xb"), lambda: None),
        close,
        recipients,
        stored,
        time.time(),
        90,
    )
    for member in result.members:
        if member not in made:
            (out / member.name).hardlink_to(stored[member.sha256])
        stored[member.sha256] = str(out / member.name)
    now = time.time()
    content = {
        "format": form.FORMAT,
        "host": "bench",
        "site": "",
        "environment": "development",
        "set": form.new_set_id(now),
        "previous": None,
        "previous_sha256": None,
        "begin": form.format_time(now),
        "end": form.format_time(now),
        "complete": True,
        "members": [one._asdict() for one in result.members],
        "sources": [result.source],
        "warnings": [],
        "failures": [],
    }
    raw = form.encode(content)
    (out / form.MANIFEST).write_bytes(raw)
    (out / form.SIGNATURE).write_bytes(form.sign(raw, str(base / "sign")))
    (base / "ours/stored").write_text(json.dumps(stored))


def restore(base: Path, number: str) -> None:
    out = base / "ours" / number
    manifest = form.parse((out / form.MANIFEST).read_bytes())
    verify.extract_tree(str(out), manifest, manifest.sources[0], str(base / "key"), str(base / "restored"))


if __name__ == "__main__":
    {"make": make, "restore": restore}[sys.argv[2]](Path(sys.argv[3]), sys.argv[4])
