# SPDX-License-Identifier: GPL-3.0-or-later
"""What civitas-logs tells people and monitoring. That it keeps and sends what the journal has is shown on hosts (molecule/logs)."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_store as store

SERIES = "a" * 16


@pytest.fixture(name="written")
def _written(tmp_path, monkeypatch):
    """The file of the role, for a host that receives of two others."""
    for name in ("own", "received/one", "received/two", "metrics"):
        (tmp_path / name).mkdir(parents=True)
    found = {
        "directory": str(tmp_path / "own"),
        "keep_days": 90,
        "identifiers": ["story"],
        "metrics_directory": str(tmp_path / "metrics"),
        "certificate_file": "/nowhere/fullchain.pem",
        "key_file": "/nowhere/key.pem",
        "ca_file": "/nowhere/ca.pem",
        "receiver": {"name": "watch", "address": "192.0.2.1", "port": 9997, "tls_name": "watch.internal"},
        "senders": {"one.internal": "one", "two.internal": "two"},
        "received_directory": str(tmp_path / "received"),
        "port": 9997,
        "bytes_a_day": 1000,
    }
    path = tmp_path / "logs.json"
    path.write_text(json.dumps(found))
    real = program.read_config
    monkeypatch.setattr(program, "read_config", lambda: real(str(path)))
    monkeypatch.setattr(program.acknowledged, "__defaults__", (str(tmp_path / "state.json"),))
    monkeypatch.setattr(program, "STATE", str(tmp_path / "state.json"))
    return found


def put(directory, age=0.0, **more):
    """One line, written so many seconds ago."""
    path = os.path.join(directory, f"{store.date(time.time())}.jsonl")
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps({"series": SERIES, "n": 1, **more}) + "\n")
    os.utime(path, (time.time() - age, time.time() - age))


def measured(found):
    with open(os.path.join(found["metrics_directory"], "logs.prom"), encoding="utf-8") as file:
        pairs = [line.rpartition(" ") for line in file if not line.startswith("#")]
    return {name: float(value) for name, _space, value in pairs}


def test_what_is_measured(written, monkeypatch):
    now = time.time()
    put(written["directory"], 100)
    put(f"{written['received_directory']}/one", 7200, said={"message": "x" * 450})
    one = program.Measured(program.read_config())
    one.write(5, -1)
    found = measured(written)
    assert found["civitas_logs_kept_time_seconds"] == pytest.approx(now - 100, abs=5)
    assert found['civitas_logs_received_time_seconds{sender="one"}'] == pytest.approx(now - 7200, abs=5)
    # Nothing came yet: from when its directory was made on.
    assert found['civitas_logs_received_time_seconds{sender="two"}'] == pytest.approx(now, abs=60)
    assert 0.4 < found['civitas_logs_received_ratio{sender="one"}'] < 0.6 and found['civitas_logs_received_ratio{sender="two"}'] == 0
    assert found["civitas_logs_waiting_lines"] == 5 and found["civitas_logs_measured_time_seconds"] == pytest.approx(now, abs=5)


def test_when_the_receiver_had_everything(written, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(program.time, "time", lambda: clock[0])
    one = program.Measured(program.read_config())

    def after(number, have):
        clock[0] += 60
        one.write(number, have)
        return measured(written)["civitas_logs_acknowledged_time_seconds"]

    # Who never had a receiver waits from now on.
    assert after(10, -1) == 1000
    assert after(12, 9) == 1000
    # All that was there a minute ago; there are always some on their way.
    assert after(20, 12) == 1180 and after(30, 20) == 1240
    assert after(40, 21) == 1240 and after(50, 21) == 1240
    assert program.Measured(program.read_config())._acknowledged == 1240


@pytest.mark.parametrize(
    ("own", "acknowledged", "sender", "status"),
    [(10, 10, 10, 0), (1000, 10, 10, 1), (10, 1000, 10, 1), (10, 10, 10000, 0), (10, 10, 11000, 1)],
)
def test_status(written, capsys, own, acknowledged, sender, status):
    put(written["directory"], own)
    put(f"{written['received_directory']}/one", sender)
    put(f"{written['received_directory']}/two")
    program.write_json(program.STATE, {"acknowledged": time.time() - acknowledged})
    assert program.main(["status"]) == status
    said = capsys.readouterr()
    assert f"one was heard of {sender // 60} minutes ago" in said.out + said.err and bool(said.err) == bool(status)


def test_status_waits_for_a_receiver_that_has_just_come(written, capsys):
    put(written["directory"])
    later = threading.Timer(1.5, lambda: program.write_json(program.STATE, {"acknowledged": time.time()}))
    put(f"{written['received_directory']}/one")
    put(f"{written['received_directory']}/two")
    later.start()
    assert program.main(["status", "--wait", "30"]) == 0
    assert "never" not in capsys.readouterr().err
    later.join()


def test_a_receiver_that_never_had_anything(written, capsys):
    put(written["directory"])
    assert program.main(["status"]) == 1
    assert "watch never had all of it" in capsys.readouterr().err


def test_show(written, capsys):
    put(written["directory"], said={"message": "own"}, seen={"uid": 0})
    put(f"{written['received_directory']}/one", line={"said": {"message": "theirs"}, "seen": {"uid": 7}})
    assert program.main(["show"]) == 0
    assert "own" in (said := capsys.readouterr().out) and said.startswith("  ") and "theirs" not in said
    assert program.main(["show", "--sender", "one"]) == 0
    assert "theirs" in (said := capsys.readouterr().out) and said.startswith("! ? uid=7")
    assert program.main(["show", "--json"]) == 0 and json.loads(capsys.readouterr().out)["n"] == 1
    assert program.main(["show", "--since", "9999-01-01"]) == 0 and capsys.readouterr().out == ""
    assert program.main(["show", "--sender", "../own"]) == 1
    assert "this host receives nothing of ../own; it does of one, two" in capsys.readouterr().err


def test_what_is_no_line_is_shown_as_it_is(written, capsys):
    (path,) = [os.path.join(written["directory"], "2026-11-22.jsonl")]
    with open(path, "wb") as file:
        file.write(b"\xff\x1b[2J\n")
    assert program.main(["show"]) == 0
    assert capsys.readouterr().out == "? b'\\xff\\x1b[2J\\n'\n"


def test_check_says_what_cannot_be_used(written, capsys):
    assert program.main(["check"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_configuration_that_is_none(tmp_path):
    for text in ("{", "[]", "{}"):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(program.ConfigError, match="run the site playbook"):
            program.read_config(str(tmp_path / "x.json"))
