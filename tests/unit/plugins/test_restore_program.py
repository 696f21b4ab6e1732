# SPDX-License-Identifier: GPL-3.0-or-later
"""What the program takes as configuration and plan, and which set it takes. Whole restores are in test_restore_run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_run as restoring
from ansible_collections.civitas.hosting.plugins.module_utils._restore_fetch import Found
from ansible_collections.civitas.hosting.plugins.module_utils._restore_run import Plan, RestoreFailed

CONFIG: dict[str, Any] = {
    "host": "records1",
    "environment": "production",
    "minimum_free_bytes": 0,
    "keep_days": 7,
    "postgres": [{"name": "main", "port": 5432, "databases": ["records"]}],
    "files": [{"name": "data", "path": "/srv/data", "side": False}],
    "writers": {"units": ["app.service"], "projects": []},
}
PLAN: dict[str, Any] = {"host": "records1", "signers": ["ssh-ed25519 AAAA"], "identity": "/run/x", "sets": "/srv/sets"}
STORE = {"address": "192.0.2.7", "user": "reader", "key": "/run/key", "known_hosts": "/run/known", "port": 2022}
OLD, MIDDLE, NEW = (f"2026010{day}T000000Z-0123456789ab" for day in (1, 2, 3))


def written(tmp_path: Path, **changes: Any) -> str:
    content = {**CONFIG, "directory": str(tmp_path / "var"), "backup_directory": str(tmp_path / "backup"), **changes}
    path = tmp_path / "restore.json"
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return str(path)


def test_a_host_that_never_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    assert program.main(["--config", path, "check"]) == program.main(["--config", path, "status"]) == 0
    assert "nothing was ever restored here" in capsys.readouterr().out
    assert program.main(["--config", path, "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"host": "records1", "phase": "", "waits": False, "last": None, "kept": []}
    for command in ("undo", "accept", "resume"):
        assert program.main(["--config", path, command]) == 1
        assert "nothing was ever restored here" in capsys.readouterr().err
    assert program.main(["--config", path, "settle"]) == program.main(["--config", path, "forget", "due"]) == 0
    assert program.main(["--config", path, "forget", "20260101000000"]) == 1


def test_a_journal_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "var/journal").mkdir(parents=True)
    (tmp_path / "var/journal/20260101000000.json").write_text("{")
    for command in ("status", "undo", "settle"):
        assert program.main(["--config", written(tmp_path), command]) == 1
        assert "20260101000000.json cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": None}, "KeyError: 'host'"),
        ({"keep_days": "x"}, "ValueError"),
        ({"files": [{"name": "x", "path": "/"}]}, "'/' is no path of a tree"),
        ({"files": [{"name": "x", "path": "srv"}]}, "'srv' is no path of a tree"),
        ({"postgres": [{"name": "x", "unknown": 1}]}, "TypeError"),
        ({"writers": []}, "AttributeError"),
    ],
)
def test_a_configuration_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str) -> None:
    assert program.main(["--config", written(tmp_path, **changes), "check"]) == 1
    assert words in capsys.readouterr().err


def plan(tmp_path: Path, **changes: Any) -> Plan:
    content = {**PLAN, **changes}
    (tmp_path / "plan.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return program.read_plan(str(tmp_path / "plan.json"))


def test_plans(tmp_path: Path) -> None:
    assert plan(tmp_path) == Plan("records1", ["ssh-ed25519 AAAA"], "/run/x", sets="/srv/sets")
    found = plan(tmp_path, sets=None, store=STORE, before="2026-01-02T03:04:05Z", only=["files/data"])
    assert found.store is not None and found.store.port == 2022 and found.before == 1767323045.0 and found.only == ("files/data",)
    for changes, words in (
        ({"sets": None}, "not where they are"),
        ({"host": "../x"}, "not whose sets"),
        ({"before": "yesterday"}, "does not match"),
        ({"unknown": 1}, "TypeError"),
        ({"identity": None}, "TypeError"),
    ):
        with pytest.raises(program.ConfigError, match=words):
            plan(tmp_path, **changes)


def chosen(found: list[Found], **changes: Any) -> tuple[str, list[str]]:
    said: list[str] = []
    return restoring.choose(Plan("records1", [], "", **changes), found, said.append), said


def test_which_set_is_taken() -> None:
    sets = [Found(OLD, 100.0, 1, True, []), Found(MIDDLE, 200.0, 1, True, []), Found(NEW, 300.0, 1, False, ["files data failed"])]
    assert chosen(sets[:2]) == (MIDDLE, [])
    assert chosen(sets) == (MIDDLE, [f"the newer set {NEW} is passed over, as it is not good: files data failed"])
    assert chosen(sets, before=200.0) == (MIDDLE, []) and chosen(sets, before=199.0) == (OLD, [])
    assert chosen(sets, wanted=NEW) == (NEW, [])
    with pytest.raises(RestoreFailed, match=r"no good set of records1 that is not later than 1970-01-01T00:01:39Z; there are 3 in all"):
        chosen(sets, before=99.0)
    with pytest.raises(RestoreFailed, match=r"no good set of records1; there are 0"):
        chosen([])
    with pytest.raises(RestoreFailed, match=f"there are {OLD}"):
        chosen(sets, wanted="x")
