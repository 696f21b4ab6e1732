# SPDX-License-Identifier: GPL-3.0-or-later
"""What writes is stopped and started again: containers of a real engine. Units are in test_restore_run and in molecule/backup."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_writers as writing
from ansible_collections.civitas.hosting.plugins.module_utils._restore_writers import Running, WriterError, Writers

IMAGE = "civitas-bed/debian13"
PROJECT = "civitas-writers-test"


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True, timeout=120).stdout.strip()


@pytest.fixture(name="containers")
def _containers() -> Iterator[list[str]]:
    if (
        not shutil.which("docker")
        or subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True, check=False).returncode != 0
    ):
        pytest.skip(f"the engine or the image {IMAGE} is not here")
    label = f"com.docker.compose.project={PROJECT}"
    run = ("run", "--detach", "--network", "none", "--init", "--entrypoint", "sleep")
    made = [docker(*run, "--label", name, IMAGE, "600") for name in (label, label, "com.docker.compose.project=another")]
    yield made
    docker("rm", "--force", *made)


def test_containers_of_a_project(containers: list[str]) -> None:
    writers = Writers(projects=(PROJECT,))
    found = writing.running(writers)
    assert found == Running([], containers[:2])
    writing.stop(writers, found)
    assert writing.running(writers) == Running([], [])
    assert docker("inspect", "--format", "{{.State.Running}}", containers[2]) == "true"
    writing.stop(writers, writing.running(writers))
    writing.start(found)
    assert writing.running(writers).containers == containers[:2]


def test_an_engine_that_waits_for_who_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for its containers it would be started, which it is only afterwards."""
    state = tmp_path / "state"
    for name, script in (("systemctl", f"cat {state}"), ("docker", f"echo asked >> {tmp_path}/asked; echo abc")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    writers = Writers(projects=(PROJECT,))
    for active in ("inactive", "failed"):
        state.write_text(active)
        assert writing.running(writers, boot=True) == Running([], []) and not (tmp_path / "asked").exists()
        writing.stop(writers, Running([], []), boot=True)
        assert not (tmp_path / "asked").exists()
    state.write_text("active")
    assert writing.running(writers, boot=True) == Running([], ["abc"])
    state.write_text("inactive")
    assert writing.running(writers) == Running([], ["abc"])


def test_what_cannot_be_stopped_or_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(WriterError, match="systemctl does not run"):
        writing.running(Writers(units=("x.service",)))
    with pytest.raises(WriterError, match=r"docker does not run.*docker does not run"):
        writing.start(Running([], ["a", "b"]))
    writing.stop(Writers(), Running([], []))
