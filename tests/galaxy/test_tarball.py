# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection as its users get it: built, installed into an empty project elsewhere, run from there with the installed files only."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tools import bed, kinto_image
from tools.records import Records, Story

ROOT = Path(__file__).resolve().parents[2]
HOST = "civitas-test-tarball"
BIN = Path(sys.executable).parent


def run(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in the project; nothing of the checkout is on its paths."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
    environment.update(ANSIBLE_COLLECTIONS_PATH=str(project / "collections"), ANSIBLE_NOCOLOR="1", ANSIBLE_HOME=str(project / "home"))
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
    return project


@pytest.fixture(scope="module", name="server")
def _server(project: Path) -> Iterator[str]:
    bed.remove_host(HOST)
    bed.start_host(HOST, "debian13")
    image = kinto_image.ensure_archive()
    (project / "password").touch(0o600)
    (project / "password").write_text("a password of the test\n")
    bed.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(project / "ssh_key"))
    (project / "inventory.yml").write_text(
        yaml.safe_dump(
            {
                "all": {
                    "hosts": {"records": {"ansible_host": HOST, "ansible_connection": "community.docker.docker"}},
                    "vars": {
                        "civitas_environment": "qa",
                        "civitas_tier": "single",
                        "civitas_application": "demo",
                        "civitas_domain": "records.example.org",
                        "civitas_automation": {
                            "ssh_keys": [(project / "ssh_key.pub").read_text().strip()],
                            "from": ["192.0.2.0/24"],
                        },
                        "civitas_admin_networks": ["192.0.2.0/24"],
                        # The names of a container's network are known to the engine only.
                        "civitas_egress": "open",
                        "app_demo_image": image["image"],
                        "app_demo_archive": image["archive"],
                        "app_demo_archive_sha256": image["sha256"],
                    },
                }
            }
        )
    )
    try:
        yield bed.docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", HOST)
    finally:
        bed.remove_host(HOST)


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


def test_the_single_server_is_built_from_the_installed_files(project: Path, server: str) -> None:
    assert not (project / "secrets.yml").exists()
    done = run(project, "ansible-playbook", "-i", "inventory.yml", "--vault-password-file", "password", "civitas.hosting.single")
    assert done.returncode == 0, done.stdout[-6000:]
    assert str(ROOT) not in done.stdout.replace(str(ROOT / ".cache" / "demo"), "")
    assert (project / "secrets.yml").read_text().startswith("$ANSIBLE_VAULT;")
    records = Records("records.example.org", 443, project / "ca.pem", address=server)
    records.wait(60)
    shown = run(project, "ansible-vault", "view", "--vault-password-file", "password", "secrets.yml").stdout
    assert Story(records, ("admin", str(yaml.safe_load(shown)["app_demo_admin_password"]))).is_kept()


def test_site_and_status_run_from_the_installed_files(project: Path, server: str) -> None:
    for playbook in ("civitas.hosting.site", "civitas.hosting.status"):
        done = run(project, "ansible-playbook", "-i", "inventory.yml", "--vault-password-file", "password", playbook)
        assert done.returncode == 0, done.stdout[-6000:]
        assert "changed=0" in done.stdout
