# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the host: its file of settings, and what it says. Whole runs are in test_backup_run."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_run as run
from ansible_collections.civitas.hosting.plugins.module_utils._backup_command import Command
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres
from ansible_collections.civitas.hosting.plugins.module_utils._backup_program import ConfigError, read_config
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Sender, SendError, Store
from ansible_collections.civitas.hosting.plugins.module_utils._backup_tree import Tree


def settings(base: Path, **changes: Any) -> dict[str, Any]:
    return {
        "host": "records1",
        "site": "demo",
        "environment": "production",
        "directory": str(base / "var"),
        "recipients": ["age1x"],
        "signing_key": str(base / "sign"),
        "minimum_free_bytes": 0,
        "full_days": 30,
        "late_hours": 26,
        "metrics_file": str(base / "backup.prom"),
        "store": {"address": "192.0.2.1", "user": "store", "key": "/k", "known_hosts": "/h", "options": ["-o", "ProxyJump=gate"]},
        "postgres": [{"name": "main", "databases": ["records"]}],
        "commands": [{"name": "dump", "run": ["echo", "x"]}],
        "files": [{"name": "data", "path": "/srv/data", "mount": True, "exclude": ["*.tmp"]}],
        **changes,
    }


def write(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "backup.json"
    path.write_text(json.dumps(settings(tmp_path, **changes)))
    return str(path)


def test_the_settings(tmp_path: Path) -> None:
    config = read_config(write(tmp_path))
    assert config.files == [Tree("data", "/srv/data", mount=True, exclude=("*.tmp",))]
    assert config.postgres == [Postgres("main", ("records",))] and config.commands == [Command("dump", ("echo", "x"))]
    assert config.store == Store("192.0.2.1", "store", "/k", "/h", options=("-o", "ProxyJump=gate"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"host": "Records 1"}, "is no name of a host"),
        ({"files": [{"name": "a", "path": "/"}]}, "'/' is no path of a tree"),
        ({"files": [{"name": "a", "path": "srv"}]}, "'srv' is no path of a tree"),
        ({"files": [{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]}, "two sources of a kind have one name"),
        ({"files": [{"name": "a", "path": "/a", "nonsense": 1}]}, "nonsense"),
        ({"postgres": [{"name": "a"}]}, "databases"),
        ({"full_days": "x"}, "ValueError"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(tmp_path, **change))
    with pytest.raises(ConfigError, match="run the site playbook"):
        read_config(str(tmp_path / "none"))


def test_what_status_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path)

    def status(**state: Any) -> tuple[int, str]:
        (tmp_path / "var").mkdir(exist_ok=True)
        (tmp_path / "var/status.json").write_text(json.dumps(state))
        code = program.main(["--config", file, "status"])
        said = capsys.readouterr()
        return code, said.out + said.err

    good = {"success": time.time() - 3600, "set": "S", "bytes": 5, "sent": 1, "try": time.time(), "problem": "", "running": 0}
    assert status(**good)[0] == 0
    assert status() == (1, "there is no backup of this host\n")
    assert "the last backup is 30 hours old" in status(**{**good, "success": time.time() - 30 * 3600})[1]
    assert "the last run failed: no way" in status(**{**good, "problem": "no way"})[1]
    assert status(**{**good, "warnings": ["odd"]})[1].endswith("odd\n")
    code, said = status(**{**good, "running": 1})
    assert code == 1 and "and was ended by force" in said
    # The first one ever is no fault while it lasts.
    first = {"try": time.time(), "running": 1}
    assert "there is no backup of this host" in status(**first)[1]
    with run.lock(str(tmp_path / "var")):
        code, said = status(**first)
    assert (code, "by force" in said, "a run began at" in said) == (0, False, True)


def test_the_lock_is_the_kernels(tmp_path: Path) -> None:
    other = pytest.raises(run.RunError, match=f"another run lasts, process {os.getpid()}")
    with run.lock(str(tmp_path)), other, run.lock(str(tmp_path)):
        pytest.fail("two runs at once")
    (tmp_path / "lock").write_text("1\n")
    with run.lock(str(tmp_path)):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    (tmp_path / "bin").mkdir()
    for name, script in scripts.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")


STORE = Store("192.0.2.1", "store", "/k", "/h", port=2200, options=("-o", "ProxyCommand=ssh -W '%h:%p' gate"), tries=3, pause=0.0)


def test_tries_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch, ssh=f'echo "$@" >> {tmp_path}/said; echo "no route" >&2; exit 255')
    lines: list[str] = []
    with pytest.raises(SendError, match="the store does not answer: no route"):
        Sender(STORE, lines.append).ask("have")
    assert len(lines) == 2 and len((tmp_path / "said").read_text().splitlines()) == 3


@pytest.mark.parametrize("answer", ["", "nonsense", "[]", "1", '{"error": 1}'])
def test_answers_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    programs(tmp_path, monkeypatch, ssh=f"echo '{answer}'")
    with pytest.raises(SendError, match="the store does not answer"):
        Sender(STORE, lambda line: None).ask("have")


def test_ssh_is_pinned_and_rsync_runs_the_same_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its own words: rsync takes the command of ssh apart again."""
    script = f'for word in "$@"; do printf "%s\\n" "$word"; done > {tmp_path}/words-$(ls {tmp_path} | wc -l); echo "{{}}"; exit 1'
    programs(tmp_path, monkeypatch, ssh=script)
    sender = Sender(STORE._replace(tries=1), lambda line: None)
    with pytest.raises(SendError):
        sender.ask("have")
    (asked,) = tmp_path.glob("words-*")
    words = asked.read_text().splitlines()
    for setting in (
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=/h",
        "GlobalKnownHostsFile=none",
        "BatchMode=yes",
        "IdentitiesOnly=yes",
    ):
        assert setting in words
    assert "ProxyCommand=ssh -W '%h:%p' gate" in words and words[-3:] == ["--", "192.0.2.1", "have"]
    (tmp_path / "m.age").touch()
    with pytest.raises(SendError, match="the transfer was cut off"):
        sender._rsync(str(tmp_path), "20260101T000000Z-0123456789ab", ["m.age"])
    (sent,) = set(tmp_path.glob("words-*")) - {asked}
    transferred = sent.read_text().splitlines()
    assert transferred[: len(words) - 3] == words[:-3]
    assert transferred[len(words) - 3 : len(words) - 2] == ["192.0.2.1"]
    assert transferred[-1] == "incoming/20260101T000000Z-0123456789ab/"
