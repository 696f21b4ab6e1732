# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at the host: what fails is told and silences nothing else, and what is slow is not asked each time."""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_program as program
from ansible_collections.civitas.hosting.plugins.module_utils._alert_metrics import parse
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import sample

from tests.unit.plugins.test_declarations import ROOT

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


def test_names_that_differ_in_what_cannot_be_printed_spoil_nothing(look):
    def named(config, state, now):
        yield sample("civitas_container_running", 1, service="a\rb")
        yield sample("civitas_container_running", 0, service="a?b")

    assert look(named=named)["collect_failed", "named"] == 1
    assert look(named=named, good=good)["units_failed",] == 1


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
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()}
    assert modes == {"host.prom": "0o644", "state.json": "0o600"}


def test_a_result_that_cannot_be_written_leaves_the_old_one(look, tmp_path, monkeypatch):
    look(one=good)
    before = read(tmp_path)

    def full(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="Input/output"):
        look(one=good)
    assert read(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host.prom", "state.json"]


@pytest.fixture
def small_disk(tmp_path):
    """64 KiB, which /proc/self/mountinfo knows as such."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "disk", str(path)], capture_output=True, check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def fill(disk):
    with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


def test_a_disk_that_fills_at_once_is_told_of(small_disk, tmp_path):
    config = program.Config(str(small_disk), [], [], [], {})

    def told():
        program.collect(config, {"mounts": program.TOPICS["mounts"]}, str(tmp_path / "state.json"))
        series = parse(read(small_disk))["civitas_mount_used_ratio"]
        return next(value for labels, value in series if labels == (("mountpoint", str(small_disk)),))

    assert told() == pytest.approx(0.2, abs=0.2)
    fill(small_disk)
    assert told() == 1
    assert sorted(os.listdir(small_disk)) == ["filler", "host.prom"]
    (small_disk / "filler").unlink()
    assert told() < 0.5


def test_more_than_there_is_room_for_on_a_full_disk(small_disk, tmp_path):
    config, state = program.Config(str(small_disk), [], [], [], {}), str(tmp_path / "state.json")
    program.collect(config, {}, state)
    before = read(small_disk)
    assert len(before) % 4096 == 0 and before.endswith(" \n")
    fill(small_disk)

    def much(config, state, now):
        for number in range(500):
            yield sample("civitas_mount_used_ratio", 0.5, mountpoint=f"/{number}")

    with pytest.raises(OSError, match="No space left"):
        program.collect(config, {"mounts": much}, state)
    assert read(small_disk) == before


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


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """The package manager of this machine, with lists of its own and the order of the role base."""
    if shutil.which("apt-get") is None:
        pytest.skip("no apt here")
    for directory in ("state/lists/partial", "state/periodic", "cache/archives/partial", "etc/preferences.d", "archive"):
        (tmp_path / directory).mkdir(parents=True)
    order = tmp_path / "etc/apt.conf"
    template = ROOT / "roles/base/templates/early/etc/apt/apt.conf.d/90civitas.j2"
    order.write_text(template.read_text().partition("\n")[2].replace("/var/lib/apt", str(tmp_path / "state")))
    monkeypatch.setattr(program, "LISTS", str(tmp_path / "state/periodic/civitas-lists-complete"))
    monkeypatch.setattr(program, "LISTS_ORDER", str(order))
    monkeypatch.setattr(program, "_run", lambda *command: "")
    (tmp_path / "archive/Packages").write_text("")
    digest = hashlib.sha256(b"").hexdigest()
    (tmp_path / "archive/Release").write_text(f"Date: {email.utils.formatdate(usegmt=True)}\nSHA256:\n {digest} 0 Packages\n")
    options = {
        "Dir": f"{tmp_path}/", "Dir::State": "state", "Dir::State::status": "/dev/null", "Dir::Cache": "cache", "Dir::Etc": "etc",
        "Dir::Etc::SourceList": "sources.list", "Dir::Etc::SourceParts": "/dev/null", "Dir::Log": "state", "Acquire::Retries": "0",
        "Dir::Bin::Methods": "/usr/lib/apt/methods", "APT::Sandbox::User": "",
    }  # fmt: skip

    def update(*archives):
        """Asks these archives; the time that is measured afterwards."""
        (tmp_path / "etc/sources.list").write_text("".join(f"deb [trusted=yes] {url} ./\n" for url in archives))
        command = ["apt-get", "update", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
        done = subprocess.run(command, env={**os.environ, "APT_CONFIG": str(order)}, capture_output=True, text=True, check=False)
        samples = program.TOPICS["updates"](program.Config("/d", [], [], [], {}), {}, time.time())
        return {one.name: one.value for one in samples}["civitas_package_lists_time_seconds"], done.stdout + done.stderr

    return update


def test_lists_are_as_old_as_the_last_time_that_all_came(apt, tmp_path):
    stamp, order = tmp_path / "state/periodic/civitas-lists-complete", tmp_path / "etc/apt.conf"
    good, refused, gone = f"file:{tmp_path}/archive", "http://127.0.0.1:1/x", f"file:{tmp_path}/gone"
    os.utime(order, (1_700_000_000, 1_700_000_000))
    # Never yet: since the role was there.
    assert apt(refused)[0] == 1_700_000_000
    fetched, said = apt(good)
    assert fetched == pytest.approx(time.time(), abs=30), said
    os.utime(stamp, (1_750_000_000, 1_750_000_000))
    for archives in ((refused,), (good, refused), (refused, good), (good, gone), (gone,)):
        found, said = apt(*archives)
        assert found == 1_750_000_000, f"{archives}: {said}"
        assert "failed to download" in said
    assert apt(good)[0] > 1_750_000_000


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


@pytest.mark.parametrize("answers", [True, False])
def test_containers_of_an_engine_that_hangs_do_not_run(tmp_path, monkeypatch, capsys, answers):
    monkeypatch.setattr(program, "SECONDS", 0.5)
    monkeypatch.setattr(program.engine, "SOCKET", str(tmp_path / "engine.sock"))
    config = program.Config(str(tmp_path), [], [], [("shop", "web"), ("shop", "db")], {})
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(program.engine.SOCKET)
        if answers:
            # It accepts, and says nothing.
            server.listen(5)
        program.collect(config, {"containers": program.TOPICS["containers"]}, str(tmp_path / "state.json"))
    found = parse(read(tmp_path))
    assert {dict(labels)["service"]: value for labels, value in found["civitas_container_running"]} == {"web": 0, "db": 0}
    assert found["civitas_collect_failed"] == [((("topic", "containers"),), 1.0)]
    assert "containers: " in capsys.readouterr().err


def test_when_logs_were_rotated(look, tmp_path, monkeypatch):
    canary = tmp_path / "canary.log"
    monkeypatch.setattr(program, "CANARY", str(canary))
    assert ("logs_rotated_time_seconds",) not in look(logs=program.TOPICS["logs"])
    canary.touch()
    os.utime(canary, (1_800_000_000, 1_800_000_000))
    assert look(logs=program.TOPICS["logs"])["logs_rotated_time_seconds",] == 1_800_000_000
