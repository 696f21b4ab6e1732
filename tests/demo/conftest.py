# SPDX-License-Identifier: GPL-3.0-or-later
"""A demonstration of the tests' own, made by the command that the README names. A person's demonstration beside it is not touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / ".cache" / "test-demo"
SETTINGS = {
    "CIVITAS_DEMO_HOST": "civitas-test-demo",
    "CIVITAS_DEMO_DIR": str(DIRECTORY),
    "CIVITAS_DEMO_HTTPS_PORT": "28443",
    "CIVITAS_DEMO_HTTP_PORT": "28080",
    "CIVITAS_DEMO_SSH_PORT": "22222",
}
# tools.demo reads it when it is imported, in this process too.
os.environ.update(SETTINGS)


@dataclass
class Demo:
    """The running demonstration."""

    output: str = ""
    # Not in the message of a failed test.
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    def read_secrets(self) -> None:
        """What the secrets file and the root's file hold now."""
        from ansible.parsing.vault import VaultLib, VaultSecret

        vault = VaultLib([("default", VaultSecret((DIRECTORY / "vault-password").read_bytes().strip()))])
        files = [DIRECTORY / name for name in ("secrets.yml", "ca-root.yml")]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
        self.secrets = {name: value for file in files for name, value in yaml.safe_load(vault.decrypt(file.read_bytes())).items()}

    @staticmethod
    def make(target: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run make with this and more in its environment."""
        # Not the make of the test run: its flags and job server are its own.
        environment = {
            key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CIVITAS_STARTED")
        }
        return subprocess.run(
            ["make", target], cwd=ROOT, env={**environment, **more},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    @staticmethod
    def playbook(name: str, *options: str) -> subprocess.CompletedProcess[str]:
        from tools import demo

        return subprocess.run(
            demo.playbook_command(name, *options), cwd=ROOT, env=demo.playbook_environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip

    @staticmethod
    def on_server(*command: str, check: bool = True) -> str:
        """Run a command as root on the server; its output."""
        from tools import bed

        return bed.docker("exec", SETTINGS["CIVITAS_DEMO_HOST"], *command, check=check)


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    Demo.make("demo-down")
    done = Demo.make("demo")
    try:
        assert done.returncode == 0, done.stdout
        made = Demo(done.stdout)
        made.read_secrets()
        yield made
    finally:
        Demo.make("demo-down")
