# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as its users get it: built, installed into an empty project elsewhere, run from there with the installed files only.

They meet the demonstration server, which the checkout's files have built: any file that is missing from what is installed, or is another
one there, is an error or a change.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from .conftest import DIRECTORY, ROOT, SETTINGS, Demo

BIN = Path(sys.executable).parent


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in the project; nothing of the checkout is on its paths."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
    environment.update(SETTINGS, ANSIBLE_COLLECTIONS_PATH=str(project / "collections"), ANSIBLE_NOCOLOR="1")
    environment.update(ANSIBLE_HOME=str(project / "home"), ANSIBLE_PIPELINING="1")
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=project, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module", name="tarball")
def _tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("build")
    done = run(output, "ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(output))
    assert done.returncode == 0, done.stdout
    (tarball,) = output.glob("civitas-hosting-*.tar.gz")
    return tarball


@pytest.fixture(scope="module", name="project")
def _project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("project")
    # Where Galaxy cannot be reached, the dependencies come with the package `ansible`; elsewhere galaxy.yml names them.
    done = run(project, "ansible-galaxy", "collection", "install", str(tarball), "--no-deps", "-p", str(project / "collections"))
    assert done.returncode == 0, done.stdout
    shutil.copytree(ROOT / "inventories" / "demo", project / "inventory")
    return project


def test_it_holds_what_runs_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    tops = {name.split("/")[0] for name in names}
    assert {"MANIFEST.json", "FILES.json", "README.md", "LICENSE", "meta", "plugins", "roles", "playbooks"} <= tops
    assert tops & {"tests", "molecule", "inventories", "tools", ".cache", ".venv", ".demo", ".git", ".ci", ".config"} == set()
    assert [name for name in names if name.endswith((".pyc", ".tar.gz")) or "__pycache__" in name] == []
    assert tarball.stat().st_size < 2_000_000


def test_its_documentation_is_found(project: Path) -> None:
    for kind, name in [("module", "config_tree"), ("lookup", "secret"), ("filter", "postgres_tuning"), ("role", "base")]:
        done = run(project, "ansible-doc", "-t", kind, f"civitas.hosting.{name}")
        assert done.returncode == 0, done.stdout
        assert "civitas" in done.stdout.lower()


def test_site_and_status_run_from_the_installed_files(project: Path, demo: Demo) -> None:
    done = run(
        project, "ansible-playbook", "-i", "inventory", "--vault-password-file", str(DIRECTORY / "vault-password"), "civitas.hosting.site"
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert str(ROOT) not in done.stdout.replace(str(ROOT / ".cache"), "")
    # The last of its plays is status.yml.
    assert re.search(r"ok +nginx\.site\.demo\.answers", done.stdout)
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}
