# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at the host: what fails is told and silences nothing else, and what is slow is not asked each time."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_program as program
from ansible_collections.civitas.hosting.plugins.module_utils._alert_metrics import parse
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import sample

SETTINGS = {
    "directory": "/d",
    "units": ["a.service"],
    "mounts": ["/backup"],
    "containers": [{"project": "shop", "services": ["web", "db"]}],
    "components": {"Solr": "2027-01-01"},
}


def good(config, state, now):
    state["count"] = state.get("count", 0) + 1
    yield sample("civitas_units_failed", state["count"])


def other(config, state, now):
    state["count"] = state.get("count", 0) + 1
    yield sample("civitas_load_per_cpu", state["count"])


def half(config, state, now):
    state["count"] = 99
    yield sample("civitas_mount_used_ratio", 0.5, mountpoint="/")
    raise OSError(5, "Input/output error")


def slow(config, state, now):
    yield sample("civitas_memory_available_ratio", 1)
    time.sleep(30)


def twice(config, state, now):
    yield sample("civitas_swap_used_ratio", 1)
    yield sample("civitas_swap_used_ratio", 1)


def nameless(config, state, now):
    yield sample("civitas_nothing", 1)


@pytest.fixture
def look(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "SECONDS", 0.2)
    config = program.Config(str(tmp_path), [], [], [], {})

    def run(**topics):
        program.collect(config, topics, str(tmp_path / "state.json"))
        series = parse(read(tmp_path)).items()
        return {(name[len("civitas_") :], *(text for _name, text in labels)): value for name, each in series for labels, value in each}

    return run


def read(directory):
    return (directory / program.FILE).read_text()


def test_one_that_fails_silences_no_other(look, capsys):
    begin = time.monotonic()
    found = look(half=half, slow=slow, twice=twice, nameless=nameless, good=good)
    assert time.monotonic() - begin < 5
    assert {key[1]: value for key, value in found.items() if key[0] == "collect_failed"} == {
        "half": 1, "slow": 1, "twice": 1, "nameless": 1, "good": 0,
    }  # fmt: skip
    assert found["units_failed",] == 1
    # What was measured before it failed is good.
    assert (found["mount_used_ratio", "/"], found["memory_available_ratio",], found["swap_used_ratio",]) == (0.5, 1, 1)
    assert ("nothing",) not in found
    said = capsys.readouterr().err
    assert "half: OSError: [Errno 5] Input/output error" in said and "slow: MeasureError: no answer in 0.2 seconds" in said


def test_it_is_told_once_and_when_it_is_over(look, capsys):
    look(one=half)
    look(one=half)
    assert capsys.readouterr().err.count("one: ") == 1
    look(one=good)
    assert capsys.readouterr().out == "one: measured again\n"
    look(one=good)
    assert capsys.readouterr() == ("", "")


def test_each_topic_remembers_its_own(look, tmp_path):
    look(one=good, two=other)
    assert look(one=good, two=half)["units_failed",] == 2
    state = json.loads((tmp_path / "state.json").read_text())
    assert (state["one"]["count"], state["two"]["count"]) == (2, 1)
    # A topic that there is no more is forgotten.
    look(one=good)
    assert list(json.loads((tmp_path / "state.json").read_text())) == ["one"]


@pytest.mark.parametrize("state", ["", "[]", "{", '{"one": 5}'])
def test_a_spoiled_memory_begins_anew(look, tmp_path, state):
    (tmp_path / "state.json").write_text(state)
    assert look(one=good)["units_failed",] == 1


def test_files_and_their_modes(look, tmp_path):
    begin = int(time.time())
    found = look(one=good)
    assert begin <= found["collected_time_seconds",] <= time.time()
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"host.prom": "0o644", "state.json": "0o600"}


def test_a_result_that_cannot_be_written_leaves_the_old_one(look, tmp_path, monkeypatch):
    look(one=good)
    before = read(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        look(one=good)
    assert read(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host.prom", "state.json"]


def test_configuration(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(SETTINGS))
    config = program.read_config(str(path))
    assert config.containers == [("shop", "web"), ("shop", "db")]
    assert config.components == {"Solr": "2027-01-01"}


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({**SETTINGS, "containers": [5]}), json.dumps({**SETTINGS, "components": []})])
def test_a_configuration_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(program.ConfigError, match="run the site playbook"):
        program.read_config(str(path))


def test_updates_are_asked_when_something_changed_and_every_hour(monkeypatch):
    asked = []
    times = {"/var/lib/dpkg/status": 1.0, "/var/lib/apt/lists/partial": 2.0}
    line = "Inst libc6 [1] (2 Debian-Security:12/stable-security [amd64])\n"
    monkeypatch.setattr(program, "_modified", times.get)
    monkeypatch.setattr(program, "_run", lambda *command: asked.append(command) or line)
    config = program.Config("/d", [], [], [], {})
    state: dict = {}

    def ask(now):
        state.update(json.loads(json.dumps(state)))
        return {one.name: one.value for one in program.TOPICS["updates"](config, state, now)}

    assert ask(1000.0)["civitas_updates_security_time_seconds"] == 1000.0
    assert ask(1060.0)["civitas_updates_security_pending"] == 1
    assert len(asked) == 1
    times["/var/lib/dpkg/status"] = 5.0
    ask(1120.0)
    assert len(asked) == 2
    ask(1120.0 + 3601)
    assert len(asked) == 3
    # A clock that was set back.
    assert ask(900.0)["civitas_updates_security_time_seconds"] == 900.0
    assert len(asked) == 4


def test_this_machine_itself():
    """The texts of the kernel and libc that runs the tests."""
    config = program.Config("/d", [], [], [], {})
    for name in ("mounts", "memory", "processors", "reboot", "containers", "people"):
        if name == "containers" and not os.access(program.engine.SOCKET, os.W_OK):
            continue
        samples = list(program.TOPICS[name](config, {}, time.time()))
        assert all(one.name in program.TITLES for one in samples)
    assert isinstance(program._kernel_follows(), bool)


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["evaluate"], 2)])
def test_it_takes_no_arguments(arguments, status, capsys):
    assert program.main(arguments) == status
    assert "takes no arguments" in capsys.readouterr().err


def test_when_logs_were_rotated(look, tmp_path, monkeypatch):
    canary = tmp_path / "canary.log"
    monkeypatch.setattr(program, "CANARY", str(canary))
    assert ("logs_rotated_time_seconds",) not in look(logs=program.TOPICS["logs"])
    canary.touch()
    os.utime(canary, (1_800_000_000, 1_800_000_000))
    assert look(logs=program.TOPICS["logs"])["logs_rotated_time_seconds",] == 1_800_000_000
