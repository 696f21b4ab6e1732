# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restore drills came to: for people, for other programs, and for monitoring.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import os
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import format_time
from ansible_collections.civitas.hosting.plugins.module_utils._drill_run import Report
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render, sample

TITLES = {
    "civitas_backup_drill_time_seconds": "When a backup of a host was last restored for trial and was good; 0 for never.",
    "civitas_drill_failed": "1 when the last restore drill of a host failed, or was ended by force.",
    "civitas_drill_seconds": "How long fetching, verifying, restoring and checking took in the last drill.",
    "civitas_drill_recovery_point_seconds": "How old the newest backup was when the last drill began: what would have been lost.",
    "civitas_drill_running": "1 while a drill lasts; after a crash until it is cleaned up.",
}
_PARTS = {
    "fetch": "bring the set from the store",
    "verify": "prove signature and members",
    "restore": "restore",
    "check": "compare with the manifest",
}
State = t.Dict[str, t.Dict[str, t.Any]]


def as_json(report: Report) -> t.Dict[str, t.Any]:
    return {
        "format": 1,
        "host": report.origin,
        "drilled_on": report.host,
        "good": not report.problems,
        "problems": report.problems,
        "warnings": report.warnings,
        "begin": format_time(report.begin),
        "end": format_time(report.end),
        "set": report.set_id,
        "set_begin": format_time(report.set_begin) if report.set_id else None,
        "environment": report.environment,
        "recovery_point_seconds": report.recovery_point if report.set_id else None,
        "recovery_time_seconds": report.recovery_time,
        "seconds": report.seconds,
        "bytes": report.bytes,
        "sources": report.sources,
        "replaced": report.replaced or None,
    }


def as_markdown(report: Report) -> str:
    good = not report.problems
    lines = [
        f"# Restore drill of {report.origin}: {'good' if good else 'FAILED'}",
        "",
        f"On {report.host}, {format_time(report.begin)} to {format_time(report.end)}.",
        "",
    ]
    if not good:
        lines += ["**The backups of this host cannot be relied on until this is put right:**", "", *_list(report.problems), ""]
    if report.warnings:
        lines += ["Strange:", "", *_list(report.warnings), ""]
    if report.set_id:
        lines += [
            "| | |",
            "|---|---|",
            f"| Set | `{report.set_id}`, {_size(report.bytes)} |",
            f"| Recovery point: what would have been lost | {_span(report.recovery_point)}, all since {format_time(report.set_begin)} |",
            f"| Recovery time: until the data were back{'' if good else ', as far as it went'} | {_span(report.recovery_time)} |",
            *(f"| - to {words} | {_span(report.seconds[part])} |" for part, words in _PARTS.items()),
            "",
        ]
    if report.replaced:
        lines += [f"It took the place of the data of {report.host}; what was there before is kept as of {report.replaced}.", ""]
    if report.sources:
        lines += ["| restored | holds |", "|---|---|", *_sources(report.sources), ""]
    return "\n".join(lines)


def _list(texts: t.Sequence[str]) -> t.List[str]:
    return [f"- {_plain(text)}" for text in texts]


def _plain(text: str) -> str:
    """Names in it may hold what Markdown takes for its own."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else " " if c in "\r\n" else c for c in text)


def _sources(sources: t.Sequence[t.Mapping[str, t.Any]]) -> t.Iterator[str]:
    for one in sources:
        if one["kind"] == "postgres":
            yield f"| server {_plain(one['name'])} | {one['roles']} roles, in PostgreSQL {one['server']} |"
            for database in one["databases"]:
                canary = "" if database["canary"] else ", no canary was written"
                logins = ", ".join(map(_plain, database["logins"])) or "nobody but superusers"
                yield (
                    f"| database {_plain(database['name'])} | {database['tables']} tables, {database['rows']} rows,"
                    f" {database['large_objects']} large objects, {_size(database['bytes'])}{canary}; {logins} logged in and read |"
                )
        elif one["kind"] == "files":
            yield f"| {_plain(one['path'])} | {one['files']} files, {one['directories']} directories, {_size(one['bytes'])} |"
        else:
            yield f"| output of {_plain(one['name'])} | {_size(one['bytes'])} |"


def _size(size: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def write(directory: str, report: Report, keep: int) -> str:
    """Keep a report beside the last ones of the same host; the path of its Markdown. Raises OSError."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    # A host's name has no slash and no underscore.
    stem = f"{report.origin}_{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(report.begin))}"
    write_json(os.path.join(directory, f"{stem}.json"), as_json(report), 0o600)
    path = os.path.join(directory, f"{stem}.md")
    write_text(path, as_markdown(report), 0o600)
    for ending in (".json", ".md"):
        there = sorted(name for name in os.listdir(directory) if name.startswith(f"{report.origin}_") and name.endswith(ending))
        for name in there[:-keep]:
            os.unlink(os.path.join(directory, name))
    return path


# --- for monitoring


def read_state(directory: str) -> State:
    """What is known of the drills of each host; nothing when it cannot be read."""
    try:
        with open(os.path.join(directory, "state.json"), encoding="utf-8") as file:
            return {str(name): dict(one) for name, one in json.load(file).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_state(directory: str, metrics_file: str, state: State) -> None:
    """Raises OSError."""
    write_json(os.path.join(directory, "state.json"), state, 0o600)
    write_text(metrics_file, render(_samples(state), TITLES))


def _samples(state: State) -> t.Iterator[Sample]:
    for name, one in sorted(state.items()):
        yield sample("civitas_backup_drill_time_seconds", int(one.get("success", 0)), sender=name)
        yield sample("civitas_drill_failed", bool(one.get("problem")), sender=name)
        yield sample("civitas_drill_running", int(one.get("running", 0)), sender=name)
        if "seconds" in one:
            yield sample("civitas_drill_seconds", one["seconds"], sender=name)
        if "recovery_point" in one:
            yield sample("civitas_drill_recovery_point_seconds", one["recovery_point"], sender=name)
