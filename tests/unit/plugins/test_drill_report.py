# SPDX-License-Identifier: GPL-3.0-or-later
"""What a report of a restore drill says, also when names in it are strange, and what monitoring learns when nothing is known."""

from __future__ import annotations

import json
from pathlib import Path

from ansible_collections.civitas.hosting.plugins.module_utils import _drill_report as reports
from ansible_collections.civitas.hosting.plugins.module_utils._drill_run import Report

GOOD = Report(
    origin="records1",
    host="staging1",
    begin=1_795_334_400.0,
    end=1_795_334_500.0,
    set_id="20261122T040000Z-0123456789ab",
    set_begin=1_795_320_000.0,
    environment="production",
    recovery_point=14_400.0,
    bytes=3 * 2**30,
    seconds={"fetch": 30.0, "verify": 20.5, "restore": 300.0, "check": 9.5},
    sources=[{"kind": "files", "name": "a", "path": "/srv/a|b", "files": 2, "directories": 1, "others": 0, "bytes": 5, "canary": True}],
    problems=[],
    warnings=[],
)


def test_a_good_one() -> None:
    text = reports.as_markdown(GOOD)
    assert text.startswith("# Restore drill of records1: good\n") and "FAILED" not in text
    assert "| Recovery time: until the data were back | 6 minutes |" in text
    assert "| Recovery point: what would have been lost | 4.0 hours, all since 2026-11-22T" in text
    assert "3 GiB |" in text and "| /srv/a\\|b | 2 files, 1 directories, 5 bytes |" in text
    found = reports.as_json(GOOD)
    assert (found["good"], found["recovery_time_seconds"], found["recovery_point_seconds"]) == (True, 360.0, 14_400.0)


def test_one_that_failed() -> None:
    bad = GOOD._replace(problems=["the table *x*\nis `gone`"], warnings=["w"], set_id="", sources=[])
    text = reports.as_markdown(bad)
    assert ": FAILED\n" in text and "- the table \\*x\\* is \\`gone\\`\n" in text and "- w\n" in text and "Recovery" not in text
    found = reports.as_json(bad)
    assert not found["good"] and found["recovery_point_seconds"] is None and found["set_begin"] is None


def test_what_monitoring_learns(tmp_path: Path) -> None:
    directory, metrics = str(tmp_path), tmp_path / "drill.prom"
    reports.write_state(directory, str(metrics), {"records1": {"try": 5.0, "running": 1}})
    text = metrics.read_text()
    # The first one lasts: it has not failed, and none was good.
    assert 'civitas_drill_failed{sender="records1"} 0\n' in text and 'civitas_backup_drill_time_seconds{sender="records1"} 0\n' in text
    assert "civitas_drill_seconds" not in text
    assert reports.read_state(directory) == {"records1": {"try": 5.0, "running": 1}}
    reports.write_state(directory, str(metrics), {"records1": {"try": 5.0, "running": 0, "problem": "it was ended by force"}})
    assert 'civitas_drill_failed{sender="records1"} 1\n' in metrics.read_text()
    reports.write_state(directory, str(metrics), {"records1": {"try": 5.0, "running": 1}})
    for content in ("{", "[]", json.dumps({"a": 5})):
        (tmp_path / "state.json").write_text(content)
        assert reports.read_state(directory) == {}
