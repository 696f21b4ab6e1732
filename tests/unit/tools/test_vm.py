# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads when no virtual machine can be made, and whose processes are ended. That machines run is shown by the scenario vm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import vm
from tools.bed import BedError

ROOT = Path(__file__).resolve().parents[3]
# Drops root after the imports, which another user may not be allowed to read.
AS_NOBODY = """
import os, sys
from tools import vm
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
sys.exit(vm.main(["start", "unit-test"]))
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vm, "HOME", tmp_path)
    return tmp_path


def sleeper(*words: str) -> subprocess.Popen[bytes]:
    """A process that has these words on its command line, once it has begun."""
    script = "import time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    return process


def test_without_root_one_sentence_says_so() -> None:
    settings = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("No virtual machine can run here: ")


def test_what_is_missing_is_named_where_it_cannot_be_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "x", "6", "1", "x86_64")))
    assert "qemu-system-x86, mmdebstrap, e2fsprogs, openssh-client" in vm.obstacle()


def test_another_architecture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "x", "6", "1", "aarch64")))
    assert vm.obstacle() == "the virtual machine is one for x86_64, and this machine is not"


def test_nobody_waits_for_a_machine_that_does_not_run(home: Path) -> None:
    with pytest.raises(BedError, match="The virtual machine none does not run"):
        vm.wait_ready("none")


def test_a_question_that_is_never_answered_is_asked_again(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As a connection to a machine that was restarted meanwhile.
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n[ -e {tmp_path}/asked ] && echo running && exit\ntouch {tmp_path}/asked\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with sleeper("-name", "restarted") as machine:
        (home / "restarted.pid").write_text(str(machine.pid))
        vm.wait_ready("restarted", deadline=30, patience=1)
        machine.kill()


def test_a_number_that_is_anothers_by_now_is_left_alone(home: Path) -> None:
    with sleeper("another") as process:
        (home / "mine.pid").write_text(f"{process.pid}\n")
        vm.remove("mine")
        assert process.poll() is None
        process.kill()
    assert not (home / "mine.pid").exists()


def test_all_machines_of_a_checkout_are_ended(home: Path) -> None:
    processes = {name: sleeper("-name", name) for name in ("bed-one", "bed-two")}
    for name, process in processes.items():
        (home / f"{name}.pid").write_text(f"{process.pid}\n")
    assert sorted(vm.leftovers()) == ["bed-one", "bed-two"]
    assert [process.wait(10) for process in processes.values()] == [-9, -9]
    assert list(home.iterdir()) == []


def test_machines_have_ports_of_their_own() -> None:
    ports = [vm.login(name)[key] for name in ("one", "two") for key in ("port", "probe_port")]
    assert len(set(ports)) == 4
    assert vm.login("one")["port"] == ports[0]
