# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of a host that copies: its file of settings, and what it tells without ever having run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _copy_program as program
from ansible_collections.civitas.hosting.plugins.module_utils._copy_program import ConfigError, read_config

STORE = {"address": "192.0.2.7", "user": "civitas-reader", "key": "/x", "known_hosts": "/x", "options": ["-J", "gate"]}
ORIGIN = {"host": "records1", "signers": ["ssh-ed25519 AAAA"], "retention": "15 days", "store": STORE}


def write(base: Path, **changes: Any) -> str:
    own = {"directory": str(base / "var"), "incoming": "x", "socket": "x", "metrics_file": str(base / "copy.prom"), "origins": [ORIGIN]}
    (base / "copy.json").write_text(json.dumps({**own, **changes}))
    return str(base / "copy.json")


def test_settings(tmp_path: Path) -> None:
    (origin,) = read_config(write(tmp_path)).origins
    assert origin.store.options == ("-J", "gate") and origin.store.tries > 1
    assert origin.keeps == 15
    rules = {"daily": 7, "weekly": 4, "monthly": 12, "minimum_days": 2, "minimum_count": 3}
    (origin,) = read_config(write(tmp_path, origins=[{**ORIGIN, "retention": rules}])).origins
    assert origin.keeps == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origins": [{"host": "../x"}]}, "KeyError"),
        ({"origins": None}, "TypeError"),
        ({"origins": [{**ORIGIN, "store": {"key": "x"}}]}, "TypeError"),
        ({"origins": [{**ORIGIN, "retention": "8 days"}]}, "nobody knows the retention"),
        ({"origins": [{**ORIGIN, "host": "../x"}]}, "is no name of a host"),
        ({"origins": [ORIGIN, ORIGIN]}, "is there twice"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str) -> None:
    file = write(tmp_path, **change)
    with pytest.raises(ConfigError, match=message):
        read_config(file)
    for words in (["check"], ["run"], ["tell"], ["status"]):
        assert program.main(["--config", file, *words]) == 1
        assert "run the site playbook" in capsys.readouterr().err
    assert not (tmp_path / "copy.prom").exists()


def test_that_nothing_ever_ran_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path)
    assert program.main(["--config", file, "check"]) == 0
    assert program.main(["--config", file, "tell"]) == 0
    text = (tmp_path / "copy.prom").read_text()
    assert 'civitas_copy_failed{sender="records1"} 1\n' in text
    assert 'civitas_copy_success_time_seconds{sender="records1"} 0\n' in text
    capsys.readouterr()
    assert program.main(["--config", file, "status"]) == 1
    assert "records1: THE COPY IS NOT COMPLETE: no run has ended" in capsys.readouterr().err
    assert program.main(["--config", file, "status", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"] != []
