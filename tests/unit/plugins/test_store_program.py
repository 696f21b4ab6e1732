# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the store: its file of settings, what it says and the figures it leaves."""

from __future__ import annotations

import json
import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _store_program as program
from ansible_collections.civitas.hosting.plugins.module_utils._store_program import ConfigError, read_config
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import StoreError

from tests.unit.backup_sets import flip, needs_programs
from tests.unit.plugins.test_store_sets import Pair

DAY = 86400.0


def settings(base: Path, signers: list[str], **changes: Any) -> dict[str, Any]:
    user = pwd.getpwuid(os.getuid()).pw_name
    host = {"user": user, "signers": signers, "quota_bytes": 10**12, "retention": "7 days"}
    return {
        "directory": str(base),
        "socket": str(base / "socket"),
        "grants": str(base / "grants"),
        "reader": "nobody",
        "minimum_free_bytes": 0,
        "metrics_file": str(base / "store.prom"),
        "hosts": {"records1": host, "quiet": {**host, "user": "nobody"}},
        **changes,
    }


def write(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hosts": {"../x": {}}}, "is no name of a host"),
        ({"hosts": {"x": {"user": "a", "signers": [], "quota_bytes": 1, "retention": "8 days"}}}, "nobody knows the retention '8 days'"),
        ({"hosts": {"x": {"user": "a", "signers": [], "quota_bytes": 1, "retention": {"daily": 1}}}}, "TypeError"),
        ({"directory": None, "socket": None, "minimum_free_bytes": None}, "TypeError"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_config(write(tmp_path / "store.json", settings(tmp_path, [], **change)))
    with pytest.raises(ConfigError, match="run the site playbook"):
        read_config(str(tmp_path / "none"))


def test_who_may_speak_for_a_host(tmp_path: Path) -> None:
    config = read_config(write(tmp_path / "store.json", settings(tmp_path, [])))
    assert program._store_of(config, "records1", os.getuid()).host == "records1"
    for name, uid in (("quiet", os.getuid()), ("records1", os.getuid() + 1), ("unknown", os.getuid())):
        with pytest.raises(StoreError, match="does not know this host"):
            program._store_of(config, name, uid)


@needs_programs
def test_what_it_says_and_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(tmp_path)
    file = write(tmp_path / "store.json", settings(pair.base, [pair.host.signer]))

    def run(*words: str) -> tuple[int, str]:
        status = program.main(["--config", file, *words])
        said = capsys.readouterr()
        return status, said.out + said.err

    def figures() -> dict[str, float]:
        lines = (pair.base / "store.prom").read_text().splitlines()
        return {
            name.replace('{sender="records1"}', ""): float(value)
            for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")
        }

    now = time.time()
    for day in range(10, 0, -1):
        pair.keep(now - day * DAY + 3600)
    status, said = run("status")
    assert status == 1 and "quiet: there is no good set" in said and "records1: 10 sets" in said and "records1: the" not in said
    assert figures()["civitas_store_newest_missing"] == 0 and figures()["civitas_store_newest_median_ratio"] == 1
    status, said = run("retain")
    assert status == 0 and said.count("was removed") == 3 and "quiet: nothing is removed: there is no set" in said
    # Much less than before.
    (pair.host.data / "scan").write_bytes(b"")
    pair.host.state.unlink()
    pair.keep(now)
    assert "records1: the newest good set is" in run("status")[1] and figures()["civitas_store_newest_median_ratio"] < 0.3
    # Damage.
    newest = pair.sets()[-1]
    flip(next(Path(newest.path).glob("tree-data-0*")))
    assert run("verify", "--oldest", "1")[0] == 0
    status, said = run("verify")
    assert status == 1 and f"records1: {newest.set_id} is damaged" in said
    assert figures()["civitas_store_newest_missing"] == 1 and figures()["civitas_store_sets_bad"] == 1
    assert f"nothing is removed: the newest set {newest.set_id} is not good" in run("retain")[1]
    report = json.loads(run("status", "--json")[1])
    assert [one["good"] for one in report["hosts"]["records1"]["sets"]] == [True] * 7 + [False]
    assert any(newest.set_id in line for line in report["problems"])


@needs_programs
def test_it_is_a_shell_that_runs_itself_only(capsys: pytest.CaptureFixture[str]) -> None:
    for asked in ("id", "", "/bin/sh -c id", f"{program.PROGRAM} -c id", "/tmp/civitas-store status"):
        assert program.main(["-c", asked]) == 1
        assert capsys.readouterr().err == "civitas-store: this is no shell\n"
    assert program.main(["-c", f"{program.PROGRAM} --config /none status"]) == 1
    assert "civitas-store: /none: FileNotFoundError" in capsys.readouterr().err


def test_an_old_set_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(tmp_path)
    file = write(tmp_path / "store.json", settings(pair.base, [pair.host.signer]))
    pair.keep(time.time() - 30 * 3600)
    assert program.main(["--config", file, "status"]) == 1
    assert "records1: the newest good set is 30 hours old" in capsys.readouterr().err
    assert 'civitas_store_newest_missing{sender="records1"} 1\n' in (pair.base / "store.prom").read_text()


def test_sets_of_before_a_moment_are_listed_and_then_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(tmp_path)
    now = time.time()
    old = [pair.keep(now - 3 * DAY).name, pair.keep(now - 2 * DAY).name]
    config = write(tmp_path / "store.json", settings(pair.base, [pair.host.signer]))
    moment = ["--before", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - DAY))]
    forget = ["--config", config, "forget", "--host", "records1", *moment]
    # Without a newer one they are all that there is.
    assert program.main([*forget, "--remove"]) == 1 and len(pair.sets()) == 2
    assert "no good set that is newer" in capsys.readouterr().err
    new = pair.keep(now).name
    assert program.main(forget) == 0 and len(pair.sets()) == 3
    said = capsys.readouterr().out
    assert all(name in said for name in old) and new not in said and "--remove" in said
    assert program.main([*forget, "--remove"]) == 0
    assert [one.set_id for one in pair.sets()] == [new] and "was removed" in capsys.readouterr().out
    # They do not come back, and doing it again changes nothing.
    assert sorted(path.name for path in (pair.base / "hosts/records1/removed").iterdir()) == sorted(old)
    assert program.main([*forget, "--remove"]) == 0 and len(pair.sets()) == 1
    for wrong, message in (
        (["--host", "records2", *moment], "no host is called"),
        (["--host", "records1", "--before", "yesterday"], "no time"),
        (["--host", "records1", "--before", "2999-01-01T00:00:00Z"], "in the future"),
    ):
        assert program.main(["--config", config, "forget", *wrong, "--remove"]) == 1
        assert message in capsys.readouterr().err
