# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One reset of a host: a last backup, what writes stands still, data are emptied, and it runs again.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _restore_writers as writing
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import format_time
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json
from ansible_collections.civitas.hosting.plugins.module_utils._reset_data import (
    Database,
    ResetError,
    Tree,
    count_files,
    count_rows,
    empty_database,
    empty_tree,
)
from ansible_collections.civitas.hosting.plugins.module_utils._reset_history import clean

RECORD = "/var/lib/civitas/reset.json"
BACKUP = "/etc/civitas/backup.json"
BACKUP_UNIT = "civitas-backup.service"
_LAST_LINES = 5


class Plan(t.NamedTuple):
    """What is emptied on a host.

    Attributes:
        commands: what is run afterwards, such as to empty an index; each with a name, and seen by everybody on the host.
        known: SHA-256 of secrets that no history may hold.
        going_live: the day on which a production environment goes live, or empty.
    """

    databases: t.List[Database]
    trees: t.List[Tree]
    commands: t.List[t.Tuple[str, t.List[str]]]
    writers: writing.Writers
    known: t.Container[str]
    going_live: str = ""
    record: str = RECORD
    backup: str = BACKUP


def reset(plan: Plan, change: bool) -> t.Dict[str, t.Any]:
    """Empty what is declared, and say what was there before and is there after.

    Args:
        change: whether to do it, or only to count.

    Raises:
        ResetError: it is not clear, or could not be done to its end; done again it goes on.
        writing.WriterError: what writes could not be stopped or started.
        HistoryError: a history could not be cleaned.
    """
    record = _read(plan.record)
    live = record.get("going_live", "")
    before = _count(plan)
    # What was interrupted may have emptied the data, and not yet the index.
    needed = _left(before) > 0 or bool(record.get("pending"))
    if needed and live:
        raise ResetError(
            f"this host was emptied for going live on {live}; what it holds now are people's records."
            f" Only if that is not so, remove {plan.record} on it, and run this again"
        )
    backup = "nothing was to be emptied"
    if change:
        os.makedirs(os.path.dirname(plan.record), exist_ok=True)
    if needed and change:
        backup = _last_backup(plan)
        write_json(plan.record, {**record, "pending": True}, 0o600)
        running = writing.running(plan.writers)
        writing.stop(plan.writers, running)
        try:
            for database in plan.databases:
                empty_database(database)
            for tree in plan.trees:
                empty_tree(tree)
        finally:
            writing.start(running)
        # What was backed up before this moment holds what was emptied.
        record["emptied"] = int(time.time())
        write_json(plan.record, {**record, "pending": True}, 0o600)
        for name, command in plan.commands:
            _run(name, command)
    elif needed:
        backup = "a last backup would be made first" if os.path.exists(plan.backup) else "no backup would be made: the host has none"
    cleaned = clean(plan.known, change)
    report = {
        "changed": needed or bool(cleaned),
        "backup": backup,
        "before": before,
        "after": _count(plan) if needed and change else before,
        "histories": [{"path": one.path, "lines": one.lines} for one in cleaned],
        "emptied": format_time(record["emptied"]) if record.get("emptied") else "",
    }
    if change and (report["changed"] or plan.going_live != live):
        kept = {**report, "time": int(time.time()), "pending": False, "going_live": plan.going_live or live}
        kept["emptied"] = record.get("emptied", 0)
        write_json(plan.record, kept, 0o600)
    return report


def _read(path: str) -> t.Dict[str, t.Any]:
    try:
        with open(path, encoding="utf-8") as file:
            return dict(json.load(file))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        # Not knowing of a day on which it went live must not look like there being none.
        raise ResetError(f"{path} cannot be read: {error}; look what it says of going live, and repair or remove it") from error


def _count(plan: Plan) -> t.Dict[str, t.Any]:
    found: t.Dict[str, t.Any] = {"databases": {}, "trees": {}}
    for database in plan.databases:
        tables = count_rows(database)
        found["databases"][database.name] = {
            "rows": sum(tables.empty.values()),
            "tables": tables.empty,
            "kept": tables.keep,
            "large_objects": tables.large_objects,
        }
    for tree in plan.trees:
        files = count_files(tree)
        found["trees"][tree.path] = {"files": files.remove, "names": len(files.names), "kept": files.keep}
    return found


def _left(found: t.Mapping[str, t.Any]) -> int:
    rows: int = sum(one["rows"] + one["large_objects"] for one in found["databases"].values())
    names: int = sum(one["names"] for one in found["trees"].values())
    return rows + names


def _last_backup(plan: Plan) -> str:
    """Raises ResetError unless the store keeps it."""
    if not os.path.exists(plan.backup):
        return "none was made: the host has none"
    begin = time.time()
    try:
        # A unit of the type oneshot has ended when this does, and well only when the store keeps the set. One that began earlier does not
        # have what came since.
        under_way = _run("the last backup", ["systemctl", "show", "-P", "ActiveState", BACKUP_UNIT]).strip() == "activating"
        for _time in range(2 if under_way else 1):
            _run("the last backup", ["systemctl", "start", BACKUP_UNIT])
    except ResetError as error:
        raise ResetError(f"nothing was emptied, as {error}; see 'journalctl -u {BACKUP_UNIT}'") from error
    return f"made in {time.time() - begin:.0f} seconds"


def _run(name: str, command: t.Sequence[str]) -> str:
    try:
        done = subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd="/")
    except OSError as error:
        raise ResetError(f"{name} does not run: {error}") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").split("\n")[-_LAST_LINES:]
        raise ResetError(f"{name} ended with {done.returncode}: {' '.join(' '.join(lines).split())[:300]}")
    return done.stdout.decode("utf-8", "replace")
