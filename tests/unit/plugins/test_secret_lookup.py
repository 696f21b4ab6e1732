# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup civitas.hosting.secret in true runs of ansible-playbook."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

COLLECTION = pathlib.Path(__file__).resolve().parents[3]
CANARY = "canary-1f9c7a"


class Site:
    """A directory with an inventory, a vault password, and this collection."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        (root / "collections/ansible_collections/civitas").mkdir(parents=True)
        (root / "collections/ansible_collections/civitas/hosting").symlink_to(COLLECTION)
        (root / "inventory").mkdir()
        hosts = {f"server{number}": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for number in range(1, 6)}
        (root / "inventory/hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        (root / "password").write_text("right\n")
        self.secrets = root / "inventory/secrets.yml"

    def write(self, text: str) -> None:
        self.secrets.write_bytes(VaultLib([("default", VaultSecret(b"right"))]).encrypt(text))

    def values(self) -> dict:
        return yaml.safe_load(VaultLib([("default", VaultSecret(b"right"))]).decrypt(self.secrets.read_bytes()))

    def command(self, tasks: list, *arguments: str, password: bool = True) -> list:
        (self.root / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
        vault = ["--vault-password-file", str(self.root / "password")] if password else []
        program = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
        return [program, "-i", str(self.root / "inventory/hosts.yml"), *vault, *arguments, str(self.root / "play.yml")]

    def environment(self) -> dict:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return {
            **kept,
            "ANSIBLE_COLLECTIONS_PATH": str(self.root / "collections"),
            "ANSIBLE_HOME": str(self.root / "home"),
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, tasks: list, *arguments: str, password: bool = True) -> subprocess.CompletedProcess:
        command = self.command(tasks, *arguments, password=password)
        return subprocess.run(command, env=self.environment(), cwd=self.root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def use(expression: str, **task) -> dict:
    """A task that uses a secret and shows only its length."""
    return {"ansible.builtin.debug": {"msg": "length {{ (" + expression + ") | length }}"}, **task}


SECRET = "lookup('civitas.hosting.secret', 'demo_password')"


def test_generates_once_for_all_hosts_and_never_shows_it(site):
    store = {
        "ansible.builtin.copy": {"content": "{{ " + SECRET + " }}", "dest": "{{ inventory_dir }}/{{ inventory_hostname }}.out"},
        "no_log": True,
    }
    first = site.run([use(SECRET), store], "-vvv", "--diff", "--forks", "5")
    assert first.returncode == 0, first.stdout + first.stderr
    value = site.values()["demo_password"]
    assert re.fullmatch("[A-Za-z0-9]{40}", value)
    assert first.stdout.count("length 40") == 5
    assert {(site.root / f"inventory/server{number}.out").read_text() for number in range(1, 6)} == {value}
    before = site.secrets.read_bytes()
    second = site.run([use(SECRET), store], "-vvv", "--diff")
    assert second.returncode == 0
    assert site.secrets.read_bytes() == before
    assert value not in first.stdout + first.stderr + second.stdout + second.stderr


def test_two_runs_at_once_agree(site):
    tasks = [
        {
            "ansible.builtin.copy": {"content": "{{ " + SECRET + " }}", "dest": "{{ inventory_dir }}/{{ inventory_hostname }}.{{ run }}"},
            "no_log": True,
        }
    ]
    runs = [
        subprocess.Popen(
            site.command(tasks, "-e", f"run={number}", "--limit", "server1"),
            env=site.environment(),
            cwd=site.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in (1, 2)
    ]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    assert (
        (site.root / "inventory/server1.1").read_text() == (site.root / "inventory/server1.2").read_text() == site.values()["demo_password"]
    )


def test_check_mode_writes_nothing(site):
    result = site.run([use(SECRET)], "--check")
    assert result.returncode == 0, result.stdout
    assert "length 40" in result.stdout
    assert sorted(os.listdir(site.root / "inventory")) == ["hosts.yml"]


def test_an_operators_value_wins(site):
    site.write(f"demo_password: {CANARY}\n")
    before = site.secrets.read_bytes()
    result = site.run([use(SECRET), use(SECRET)], "-vvv")
    assert f"length {len(CANARY)}" in result.stdout
    assert site.secrets.read_bytes() == before
    assert CANARY not in result.stdout + result.stderr


def test_what_others_give_is_not_generated(site):
    given = SECRET.replace(")", ", generate=false)")
    for options in ((), ("--check",)):
        missing = site.run([use(given)], *options)
        assert missing.returncode != 0
        assert 'write demo_password: "...", as it was given to you' in " ".join((missing.stdout + missing.stderr).split())
        assert not site.secrets.exists()
    site.write("demo_password: Given-by-others\n")
    assert "length 15" in site.run([use(given)]).stdout


def test_file_and_length(site):
    (site.root / "other").mkdir()
    result = site.run(
        [use("lookup('civitas.hosting.secret', 'a', file=root ~ '/other/s.yml', length=16)"), use("lookup('civitas.hosting.secret', 'b')")],
        "-e",
        f"root={site.root}",
        "-e",
        "civitas_secrets_file='{{ root }}/other/s.yml'",
        "--limit",
        "server1",
    )
    assert "length 16" in result.stdout and "length 40" in result.stdout, result.stdout
    site.secrets = site.root / "other/s.yml"
    assert set(site.values()) == {"a", "b"}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("lookup('civitas.hosting.secret', '../x')", "is no name for a secret"),
        ("lookup('civitas.hosting.secret', 'a', length=8)", "the length of a secret is 8"),
        ("lookup('civitas.hosting.secret', 'a', file='no/such/dir.yml')", "Create its directory"),
        ("lookup('civitas.hosting.secret', 'a', file='../play.yml')", "is not encrypted. Run ansible-vault encrypt"),
    ],
)
def test_errors(site, expression, message):
    result = site.run([use(expression)], "--limit", "server1")
    assert result.returncode != 0
    assert message in " ".join((result.stdout + result.stderr).split())
    assert not site.secrets.exists()


def test_no_and_wrong_password(site):
    result = site.run([use(SECRET)], "--limit", "server1", password=False)
    assert result.returncode != 0
    assert "--vault-password-file or in ANSIBLE_VAULT_PASSWORD_FILE" in " ".join((result.stdout + result.stderr).split())
    site.write(f"demo_password: {CANARY}\n")
    (site.root / "password").write_text("wrong\n")
    result = site.run([use(SECRET)], "--limit", "server1", "-vvv")
    assert result.returncode != 0
    assert "cannot be decrypted with the vault password of this run" in " ".join((result.stdout + result.stderr).split())
    assert CANARY not in result.stdout + result.stderr
