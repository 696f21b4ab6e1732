# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/validate.yml in true runs: all mistakes at once, no host contacted, secrets generated once and never shown."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.unit import pki

COLLECTION = pathlib.Path(__file__).resolve().parents[3]
CANARY = "canary-1f9c7a"

# Small roles in place of the collection's own, so that every rule has something to bite on.
OPTIONS = {
    "base": {"base_timezone": {"type": "str"}},
    "access": {},
    "firewall": {},
    "monitoring": {},
    "monitoring_agent": {},
    "logs": {},
    "backup": {},
    "backup_store": {},
    "backup_copy": {},
    "restore": {},
    "restore_drill": {},
    "data_volume": {},
    "bastion": {"bastion_sessions": {"type": "int"}},
    "docker": {
        "docker_source": {"type": "str"},
        "docker_repository_url": {"type": "str"},
        "docker_bridge_address": {"type": "str"},
        "docker_address_pools": {"type": "list", "elements": "dict"},
        "docker_repository_key_file": {"type": "str"},
    },
    "certificates": {"certificates_days": {"type": "int"}},
    "postgres": {
        "postgres_databases": {"type": "list", "elements": "dict", "options": {"name": {"type": "str", "required": True}}},
        "postgres_port": {"type": "int"},
        "postgres_memory_mb": {"type": "int"},
        "postgres_release": {"type": "str"},
    },
    "app_demo": {
        "app_demo_title": {"type": "str", "required": True, "description": "What people read."},
        "app_demo_port": {"type": "int"},
        "app_demo_password": {"type": "str", "no_log": True},
        "app_demo_archive": {"type": "str"},
        "app_demo_archive_sha256": {"type": "str"},
    },
    "nginx": {
        "nginx_sites": {"type": "list", "elements": "dict"},
        "nginx_level": {"type": "str", "choices": ["low", "high"]},
        "nginx_hsts_max_age": {"type": "int"},
    },
}
DEFAULTS = {
    "base": {"base_timezone": "Etc/UTC"},
    "docker": {
        "docker_source": "distribution",
        "docker_repository_url": "",
        "docker_repository_key_file": "",
        "docker_bridge_address": "172.30.0.1/24",
        "docker_address_pools": [{"base": "172.30.128.0/17", "size": 24}],
    },
    "certificates": {"certificates_days": 397},
    "postgres": {
        "postgres_databases": [],
        "postgres_port": 5432,
        "postgres_memory_mb": "{{ ansible_facts['memtotal_mb'] // 4 }}",
        "postgres_release": "{{ postgres_platform_release }}",
    },
    "app_demo": {
        "app_demo_port": 8080,
        "app_demo_password": "{{ lookup('civitas.hosting.secret', 'app_demo_password') }}",
        "app_demo_archive": "",
        "app_demo_archive_sha256": "",
    },
    "nginx": {"nginx_sites": [], "nginx_level": "low", "nginx_hsts_max_age": 31536000},
}
DECLARATIONS = {
    "postgres": {"ports": [{"name": "sql", "port": "{{ postgres_port }}"}]},
    "app_demo": {
        "ports": [{"name": "web", "port": "{{ app_demo_port }}"}],
        "secrets": [{"name": "app_demo_password", "length": 32}, {"name": "app_demo_key"}],
        "databases": [{"name": "demo", "owner": "demo", "password_secret": "app_demo_password"}, {"name": "other", "owner": "demo"}],
        "artifacts": "{{ [{'name': 'app_demo_archive', 'file': app_demo_archive, 'sha256': app_demo_archive_sha256}]"
        " if app_demo_archive else [] }}",
    },
    "nginx": {"ports": [{"name": "https", "port": 443}], "sites": []},
}
VALID = {
    "civitas_environment": "development",
    "civitas_tier": "single",
    "civitas_application": "demo",
    "civitas_domain": "records.example.org",
    "civitas_automation": {"ssh_keys": []},
    "civitas_admin_networks": ["192.0.2.0/24"],
    "app_demo_title": "Records",
}
# For tests of other things.
ALARMS_WAIVED = {
    "rule": "alarms",
    "reason": "The chat is ordered.",
    "until": (datetime.date.today() + datetime.timedelta(days=30)).isoformat(),
}


class Site:
    """A copy of the plugins and playbooks with small roles, hosts that nobody can reach, and an ssh that tells of its use."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.collection = root / "collections/ansible_collections/civitas/hosting"
        for part in ("playbooks", "meta"):
            shutil.copytree(COLLECTION / part, self.collection / part)
        # Not copied: Python would compile all of them again for each site.
        (self.collection / "plugins").symlink_to(COLLECTION / "plugins")
        shutil.copy(COLLECTION / "galaxy.yml", self.collection)
        self.put(self.collection / "playbooks/vars/single.yml", {"nginx_sites": "{{ [{'name': civitas_domain}] }}"})
        for role, options in OPTIONS.items():
            self.put(self.collection / f"roles/{role}/meta/argument_specs.yml", {"argument_specs": {"main": {"options": options}}})
            self.put(self.collection / f"roles/{role}/defaults/main.yml", DEFAULTS.get(role, {}))
            declared = json.loads(json.dumps(DECLARATIONS.get(role, {})))
            for port in declared.get("ports", []):
                port.update({"protocol": "tcp", "addresses": ["127.0.0.1"], "from": "loopback", "purpose": "test"})
            self.put(self.collection / f"roles/{role}/meta/declarations.yml", declared)
        self.put(self.collection / "roles/postgres/vars/Debian_12.yml", {"postgres_platform_release": "15"})
        self.inventory = root / "inventory/hosts.yml"
        self.secrets = root / "inventory/secrets.yml"
        self.password = root / "password"
        self.password.write_text("right\n")
        self.password.chmod(0o600)
        self.calls = root / "ssh-calls"
        self.put(root / "bin/ssh", f'#!/bin/sh\necho "$@" >> {self.calls}\nexit 255\n')
        (root / "bin/ssh").chmod(0o755)
        self.hosts(server={"ansible_host": "192.0.2.1"})
        self.variables()

    def put(self, path: pathlib.Path, content) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))

    def hosts(self, **hosts) -> None:
        self.put(self.inventory, {"all": {"hosts": hosts}})

    def variables(self, **changes) -> None:
        values = {key: value for key, value in {**VALID, **changes}.items() if value is not ...}
        self.put(self.root / "inventory/group_vars/all.yml", values)

    def write_secrets(self, text: str) -> None:
        self.secrets.write_bytes(VaultLib([("default", VaultSecret(b"right"))]).encrypt(text))

    def read_secrets(self) -> dict:
        return yaml.safe_load(VaultLib([("default", VaultSecret(b"right"))]).decrypt(self.secrets.read_bytes()))

    def play(
        self, playbook: str, *arguments: str, password: bool = True, inventory: pathlib.Path | None = None
    ) -> subprocess.CompletedProcess:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment = {
            **kept,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(self.root / "collections"),
            "ANSIBLE_HOME": str(self.root / "home"),
            "HOME": str(self.root / "home"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_TIMEOUT": "2",
        }
        program = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
        vault = ["--vault-password-file", str(self.password)] if password else []
        command = [program, "-i", str(inventory or self.inventory), *vault, *arguments, playbook]
        return subprocess.run(command, env=environment, cwd=self.root, capture_output=True, text=True, timeout=120, check=False)

    def validate(self, *arguments: str, **keywords) -> Run:
        return Run(self.play("civitas.hosting.validate", *arguments, **keywords))


class Run:
    """The end of a run and the result of its task."""

    def __init__(self, process: subprocess.CompletedProcess) -> None:
        self.returncode = process.returncode
        self.output = process.stdout + process.stderr
        self.result: dict = {}
        for start in ("FAILED! => {", "ok: [server] => {", "changed: [server] => {"):
            if start in process.stdout:
                text = process.stdout.split(start, 1)[1]
                self.result = json.JSONDecoder().raw_decode("{" + text)[0]

    def found(self) -> set:
        assert self.returncode != 0 and self.result, self.output
        return {(problem["where"], problem["variable"]) for problem in self.result["problems"]}

    def only(self) -> dict:
        assert len(self.found()) == 1, self.output
        return self.result["problems"][0]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_a_valid_site(site):
    run = site.validate()
    assert run.returncode == 0, run.output
    assert run.result["msg"] == "Inventory inventory/hosts.yml is valid: 1 host, 26 variables checked, 2 secrets present (2 of them new)"
    assert run.result["generated_secrets"] == ["app_demo_password", "app_demo_key"]
    assert not site.calls.exists()


def test_a_server_behind_its_bastion(site):
    gate = {"hosts": {"gate": {"ansible_host": "192.0.2.2", "civitas_admin_networks": ["198.51.100.0/24"]}}}
    site.put(site.inventory, {"all": {"hosts": {"server": {"ansible_host": "192.0.2.1"}}, "children": {"bastion": gate}}})
    site.variables(civitas_bastion="gate")
    run = site.validate()
    assert run.returncode == 0, run.output
    # What a role of the server asks for is asked of no bastion, and the other way round.
    gate["hosts"]["gate"].update(bastion_sessions="many", nginx_level="medium")
    site.put(site.inventory, {"all": {"hosts": {"server": {"ansible_host": "192.0.2.1"}}, "children": {"bastion": gate}}})
    assert site.validate().found() == {("gate", "bastion_sessions")}


def test_a_bastion_is_in_the_group_and_in_the_inventory(site):
    site.hosts(server={"ansible_host": "192.0.2.1"})
    site.variables(civitas_bastion="gate")
    assert "no host of this inventory" in site.validate().only()["problem"]
    site.variables(civitas_bastion="server")
    assert "a server like any other" in site.validate().only()["problem"]


def test_what_hosts_share_is_rendered_once_for_each_and_anew_for_each_judgement(site):
    gate = {"hosts": {"gate": {"ansible_host": "192.0.2.2"}}}
    site.put(site.inventory, {"all": {"hosts": {"server": {"ansible_host": "192.0.2.1"}}, "children": {"bastion": gate}}})
    for name, number in (("server", 2201), ("gate", 2202)):
        site.put(site.root / f"inventory/host_vars/{name}.yml", {"number": number})
    site.variables(civitas_bastion="gate")
    ssh = {"name": "ssh", "port": "{{ __civitas_number }}", "protocol": "tcp", "addresses": ["::"], "from": "admin", "purpose": "x"}
    site.put(site.collection / "roles/base/meta/declarations.yml", {"ports": [ssh]})
    declared = "lookup('civitas.hosting.declarations', 'base', kind='ports'{}) | map(attribute='port') | first"
    counted = f"echo {{{{ inventory_hostname }}}} >> {site.root}/rendered; echo {{{{ number }}}}"
    computed = {
        "__civitas_number": "{{ lookup('ansible.builtin.pipe', __civitas_counted) }}",
        "__civitas_counted": counted,
        "base_timezone": "UTC{{ __civitas_number }}",
        "bastion_sessions": "{{ __civitas_number }}",
        "postgres_port": "{{ __civitas_number }}",
        "app_demo_port": "{{ __civitas_number }}",
        "nginx_level": f"{{{{ __civitas_number }}}} {{{{ {declared.format('')} }}}} {{{{ {declared.format(', host=' + repr('gate'))} }}}}",
    }
    site.put(site.collection / "playbooks/vars/single.yml", computed)
    (play,) = yaml.safe_load((COLLECTION / "playbooks/validate.yml").read_text())
    (judge,) = play["tasks"]
    change = {"ansible.builtin.set_fact": {"number": "{{ number + 1000 }}"}, "when": "inventory_hostname == 'gate'"}
    twice = {**play, "any_errors_fatal": False, "tasks": [{**judge, "ignore_errors": True}, change, judge]}
    site.put(site.collection / "playbooks/twice.yml", [twice])
    done = site.play("civitas.hosting.twice")
    told = re.findall(r'"problem": "is \'([\d ]*)\' and does not fit', done.stdout)
    # Of the host itself, what it declares, and what the other one declares, which has another number.
    assert told == ["2201 2201 2202", "2201 2201 3202"], done.stdout + done.stderr
    assert sorted((site.root / "rendered").read_text().split()) == ["gate", "gate", "server", "server"]


def test_all_mistakes_at_once_and_no_host_contacted(site):
    site.hosts(server={"ansible_host": "192.0.2.1"}, twin={"ansible_host": "192.0.2.1"})
    site.variables(
        civitas_environment="prodution",
        civitas_domain="https://records.example.org/",
        civitas_timezon="Africa/Nairobi",
        civitas_public_https_port=70000,
        civitas_ca_file="{{ nowhere }}/ca.pem",
        postgres_databses=[],
        postgres_port="eighty",
        postgres_databases=[{"nmae": "x"}],
        nginx_level="medium",
        nginx_sites=[],
        app_demo_title=...,
        app_demo_port=443,
    )
    site.write_secrets(f"app_demo_password: changeme\nother: '{CANARY}'\n")
    before = site.secrets.read_bytes()
    started = time.monotonic()
    run = site.validate("-vvv")
    assert time.monotonic() - started < 30
    assert run.found() == {
        ("all hosts", "civitas_environment"),
        ("all hosts", "civitas_domain"),
        ("all hosts", "civitas_timezon"),
        ("all hosts", "civitas_public_https_port"),
        ("all hosts", "civitas_ca_file"),
        ("all hosts", "postgres_databses"),
        ("all hosts", "postgres_port"),
        ("all hosts", "postgres_databases"),
        ("all hosts", "nginx_level"),
        ("all hosts", "nginx_sites"),
        ("all hosts", "app_demo_title"),
        ("all hosts", "port 443/tcp"),
        ("inventory", "civitas_tier"),
        ("server, twin", "ansible_host"),
        ("inventory/secrets.yml", "app_demo_password"),
    }
    assert all(problem["problem"] and problem["remedy"] for problem in run.result["problems"])
    sources = {problem["variable"]: problem["source"] for problem in run.result["problems"]}
    assert sources["civitas_environment"] == "inventory/group_vars/all.yml:1"
    assert "The inventory has 15 problems. No host was contacted, nothing was changed.\n\n 1. all hosts: " in run.output
    assert not site.calls.exists()
    assert site.secrets.read_bytes() == before
    assert CANARY not in run.output
    # The same site, the same ssh: a play that does connect is noticed.
    site.put(site.root / "connect.yml", [{"hosts": "server", "gather_facts": False, "tasks": [{"ansible.builtin.ping": None}]}])
    assert site.play(str(site.root / "connect.yml")).returncode != 0
    assert "192.0.2.1" in site.calls.read_text()


def test_secrets_are_generated_once_and_never_shown(site):
    site.write_secrets(f"# from the ministry\napp_demo_key: '{CANARY}'\n")
    first = site.validate("-vvv", "--diff")
    assert first.returncode == 0, first.output
    assert first.result["generated_secrets"] == ["app_demo_password"]
    assert first.result["changed"] is True
    secrets = site.read_secrets()
    assert secrets["app_demo_key"] == CANARY
    assert len(secrets["app_demo_password"]) == 32
    before = site.secrets.read_bytes()
    second = site.validate("-vvv", "--diff")
    assert second.returncode == 0
    assert second.result["generated_secrets"] == []
    assert second.result["changed"] is False
    assert site.secrets.read_bytes() == before
    for value in secrets.values():
        assert value not in first.output + second.output


def test_check_mode_generates_nothing(site):
    run = site.validate("--check")
    assert run.returncode == 0, run.output
    assert run.result["generated_secrets"] == []
    assert sorted(os.listdir(site.root / "inventory")) == ["group_vars", "hosts.yml"]


def test_nothing_is_generated_for_a_site_with_problems(site):
    site.variables(civitas_domain="nowhere")
    assert site.validate().found() == {("server", "civitas_domain")}
    assert not site.secrets.exists()


def test_no_host_at_all(site):
    site.put(site.inventory, {"all": {}})
    assert site.validate().only()["problem"] == "has no host"


def test_a_limit_does_not_hide_other_hosts(site):
    site.hosts(server={"ansible_host": "192.0.2.1"}, other={"ansible_host": "192.0.2.1"})
    run = site.validate("--limit", "server", "--tags", "nothing")
    assert run.found() == {("inventory", "civitas_tier"), ("server, other", "ansible_host")}


def test_without_a_vault_password(site):
    run = site.validate(password=False)
    problem = run.only()
    assert (problem["variable"], problem["remedy"]) == (
        "secrets file",
        "Name the file that holds the vault password with --vault-password-file or in ANSIBLE_VAULT_PASSWORD_FILE.",
    )


@pytest.mark.parametrize(
    ("prepare", "problem", "remedy"),
    [
        (lambda site: site.secrets.write_text(f"app_demo_key: {CANARY}\n"), "is not encrypted", "ansible-vault encrypt"),
        (
            lambda site: (site.write_secrets(f"a: {CANARY}"), site.password.write_text("wrong\n")),
            "cannot be decrypted",
            "Give the password",
        ),
        (lambda site: site.write_secrets(f"- {CANARY}"), "not a mapping", "ansible-vault edit"),
        (lambda site: site.write_secrets(f"a: '{CANARY}"), "no valid YAML", "ansible-vault edit"),
        (lambda site: site.write_secrets(f"app_demo_key: [{CANARY}]"), "is a list and not a text", "in quotes"),
        (lambda site: site.secrets.write_text("\n"), "is empty", "Remove it"),
        (lambda site: site.write_secrets(f"app_demo_password: '{CANARY} ä'"), "not printable ASCII", "ansible-vault edit"),
        (lambda site: site.write_secrets(f"app_demo_password: |\n  {CANARY}\n"), "a line break", "ansible-vault edit"),
        (lambda site: site.write_secrets("app_demo_key:"), "is empty", "remove the line"),
        (lambda site: site.write_secrets("unknown_one: REPLACE_ME"), "a placeholder", "true value"),
        (lambda site: site.variables(civitas_secrets_file="../../none/secrets.yml"), "cannot be written", "Create "),
        (
            lambda site: site.variables(civitas_secrets_file="../../../../../../../../../../etc/passwd"),
            "is not encrypted",
            "ansible-vault encrypt",
        ),
        (lambda site: site.variables(civitas_secrets_file="a\nb"), "a line break", "Write the path"),
        (lambda site: site.variables(civitas_secrets_file="{{ nowhere }}"), "cannot be rendered", "Define what it refers to"),
        (lambda site: site.password.chmod(0o644), "which others can read (mode 0644)", "chmod 600"),
    ],
)
def test_secrets_files(site, prepare, problem, remedy):
    prepare(site)
    before = site.secrets.read_bytes() if site.secrets.exists() else None
    run = site.validate("-vvv")
    found = run.only()
    assert problem in found["problem"]
    assert remedy in found["remedy"]
    assert CANARY not in run.output
    assert (site.secrets.read_bytes() if site.secrets.exists() else None) == before


def test_a_directory_as_inventory(site):
    run = site.validate(inventory=site.root / "inventory")
    assert "Name the file and not the directory" in run.only()["remedy"]


def test_the_kind_of_environment(site):
    site.variables(civitas_environment="production")
    found = site.validate().only()
    assert found["variable"] == "civitas_certificate_source"
    assert found["problem"].startswith("policy_internal_ca: ") and "do not trust the internal CA" in found["problem"]
    assert "add to civitas_waivers: {rule: internal_ca, " in found["remedy"]
    site.variables(civitas_environment="backup")
    assert "app_demo would be installed" in site.validate().only()["problem"]


@pytest.mark.parametrize(
    ("changes", "variable", "problem"),
    [
        ({"civitas_application": "dmo"}, "civitas_application", "did you mean demo?"),
        ({"civitas_application": None}, "civitas_application", "is empty"),
        ({"civitas_application": ...}, "civitas_application", "is not set"),
        ({"civitas_application": "../demo"}, "civitas_application", "did you mean demo?"),
        ({"civitas_tier": "../single"}, "civitas_tier", "did you mean single?"),
        ({"civitas_tier": None}, "civitas_tier", "is empty"),
        ({"civitas_tier": "{{ nowhere }}"}, "civitas_tier", "cannot be rendered"),
        ({"civitas_domain": ...}, "civitas_domain", "is not set"),
        ({"app_demo_title": "{{ nowhere }}"}, "app_demo_title", "'nowhere' is undefined"),
        ({"app_demo_title": None}, "app_demo_title", "is empty"),
        ({"certificates_days": None}, "certificates_days", "is empty"),
        ({"postgres_port": "{{ civitas_nowhere }}"}, "postgres_port", "'civitas_nowhere' is undefined"),
        # A name of the inventory is no role's own, however it begins.
        ({"postgres_port": "{{ __mine.port }}", "__mine": {}}, "postgres_port", "has no attribute 'port'"),
        ({"postgres_port": [5]}, "postgres_port", "does not fit"),
        ({"civitas_application": 5}, "civitas_application", "is 5, a number and not a text"),
        ({"civitas_aliases": {"a": 1}}, "civitas_aliases", "is {'a': 1}, a mapping and not a list"),
        ({"civitas_aliases": ["a.example.org", 5]}, "civitas_aliases", "has an item that is 5, a number and not a text"),
        ({"docker_bridge_address": "300.1.1.1/24"}, "docker_bridge_address", "'300.1.1.1/24' is not the address of a host"),
        ({"docker_bridge_address": 5}, "docker_bridge_address", "'5' is not the address of a host"),
        ({"docker_address_pools": []}, "docker_address_pools", "is empty"),
        ({"docker_address_pools": [{"base": "172.30.0.0/16", "size": 24}]}, "docker_address_pools", "overlaps docker_bridge_address"),
        ({"docker_address_pools": [{"bsae": "172.30.0.0/16"}]}, "docker_address_pools", "another shape"),
        (
            {"docker_repository_key_file": "/none", "docker_source": "vendor", "docker_repository_url": "x"},
            "docker_repository_key_file",
            "no file",
        ),
        ({"app_demo_archive": "/none/image.tar.gz"}, "app_demo_archive", "is /none/image.tar.gz: there is no such file on this machine"),
        ({"app_demo_archive": "image.tar.gz"}, "app_demo_archive", "where such a path begins"),
        ({"nginx_hsts_max_age": 0, "civitas_environment": "qa"}, "nginx_hsts_max_age", "accept plain HTTP"),
        ({"nginx_hsts_max_age": "{{ '0' }}", "civitas_environment": "qa"}, "nginx_hsts_max_age", "accept plain HTTP"),
    ],
)
def test_single_mistakes_give_single_problems(site, changes, variable, problem):
    site.variables(**changes)
    run = site.validate("--check")
    found = run.only()
    assert "_Ansible" not in str(found)
    assert found["variable"] == variable
    assert problem in found["problem"]


def test_values_that_need_the_host_are_no_problem(site):
    site.variables(
        app_demo_title="{{ ansible_facts['hostname'] }}",
        postgres_port="{{ port_of_mine }}",
        port_of_mine="{{ ansible_facts.nothing | int + 5000 }}",
    )
    run = site.validate("--check")
    assert run.returncode == 0, run.output


def test_vaulted_values_are_judged_and_not_shown(site):
    vaulted = VaultLib([("default", VaultSecret(b"right"))]).encrypt(CANARY).decode()
    text = (site.root / "inventory/group_vars/all.yml").read_text()
    block = "".join(f"  {line}\n" for line in vaulted.splitlines())
    site.put(site.root / "inventory/group_vars/all.yml", f"{text}mine: !vault |\n{block}nginx_level: '{{{{ mine }}}}'\n")
    run = site.validate("-vvv")
    found = run.only()
    assert (found["variable"], found["problem"]) == ("nginx_level", "has a value that does not fit; it is not shown because it is secret")
    assert CANARY not in run.output


def test_artifacts_are_judged_by_their_checksum(site):
    archive = site.root / "image.tar.gz"
    archive.write_bytes(b"an image")
    make_key(site.root / "home/.ssh/id_ed25519")
    sha256 = hashlib.sha256(b"an image").hexdigest()
    site.variables(app_demo_archive=str(archive), app_demo_archive_sha256=sha256)
    run = site.validate("--check")
    assert run.returncode == 0, run.output
    archive.write_bytes(b"half an im")
    found = site.validate("--check").only()
    assert (found["variable"], found["source"]) == ("app_demo_archive", "inventory/group_vars/all.yml:10")
    assert "is damaged or another file" in found["problem"]
    assert not site.calls.exists()


NAMES = ["records.example.org", "www.example.org"]
PKI = pki.usual(subject=NAMES[0], names=NAMES, end=pki.NOW + 100 * pki.DAY)


def delivered(site, **changes):
    """A production site with a delivery that is good and in no order, its key locked, beside the inventory."""
    site.put(site.root / "inventory/certificate/all.crt", PKI.intermediate.pem + PKI.leaf.pem + PKI.intermediate.pem)
    site.put(site.root / "inventory/certificate/key.pem", PKI.leaf.key_pem(CANARY))
    (site.root / "inventory/certificate/key.pem").chmod(0o600)
    site.put(site.root / "inventory/certificate/root.pem", PKI.root.pem)
    site.write_secrets(f"certificate_passphrase: {CANARY}\n")
    site.variables(
        **{
            "civitas_environment": "production",
            "civitas_aliases": NAMES[1:],
            "civitas_certificate_source": "delivered",
            "civitas_certificate_files": ["certificate/all.crt", "certificate/key.pem"],
            "civitas_certificate_passphrase_secret": "certificate_passphrase",
            "civitas_certificate_trust_file": "certificate/root.pem",
            **changes,
        }
    )


def test_a_delivered_certificate(site):
    delivered(site)
    run = site.validate("-vvv")
    assert run.returncode == 0, run.output
    assert run.result["notes"] == []
    assert CANARY not in run.output
    assert not site.calls.exists()


@pytest.mark.parametrize(
    ("changes", "variable", "problem"),
    [
        ({"civitas_domain": "other.example.org"}, "civitas_certificate_files", "name_mismatch: "),
        ({"civitas_certificate_files": ["certificate/all.crt"]}, "civitas_certificate_files", "key_missing: "),
        ({"civitas_certificate_files": ["certificate/none.crt"]}, "civitas_certificate_files", "there is no such file"),
        ({"civitas_certificate_trust_file": ...}, "civitas_certificate_files", "untrusted_root: "),
        (
            {"civitas_certificate_passphrase_secret": "x"},
            "civitas_certificate_passphrase_secret",
            "names x, which the secrets file does not have",
        ),
        ({"civitas_certificate_passphrase_secret": ...}, "civitas_certificate_files", "passphrase_missing: "),
        ({"civitas_certificate_source": "acme"}, "civitas_acme_directory", "is not set"),
    ],
)
def test_a_bad_delivery_is_refused_before_any_host_is_touched(site, changes, variable, problem):
    delivered(site, **changes)
    run = site.validate("-vvv")
    found = next(found for found in run.result["problems"] if found["variable"] == variable)
    assert problem in found["problem"] and found["remedy"]
    assert CANARY not in run.output
    assert not site.calls.exists()


def test_a_secrets_file_that_cannot_be_opened_is_told_once(site):
    delivered(site)
    site.password.write_text("wrong\n")
    assert site.validate().only()["variable"] == "secrets file"


def test_waivers_in_force_are_told(site):
    until = datetime.date.today() + datetime.timedelta(days=12)
    waiver = {"rule": "internal_ca", "reason": "The certificate has been ordered.", "until": until.isoformat()}
    site.variables(civitas_environment="production", civitas_waivers=[waiver, {**waiver, "rule": "wildcard"}])
    run = site.validate()
    assert run.returncode == 0, run.output
    assert run.result["notes"] == [
        f"Waiver internal_ca (12 days left, until {until}): The certificate has been ordered.",
        f"Waiver wildcard (12 days left, until {until}): it waives nothing here; remove it.",
    ]
    assert "[WARNING]: Waiver internal_ca (12 days left" in " ".join(run.output.split())


def test_a_waiver_that_ended_is_refused(site):
    waiver = {"rule": "internal_ca", "reason": "The certificate has been ordered.", "until": "2020-01-01"}
    site.variables(civitas_environment="production", civitas_waivers=[waiver])
    assert site.validate().found() == {("server", "civitas_waivers"), ("server", "civitas_certificate_source")}


def test_a_site_with_acme(site):
    acme = {"civitas_certificate_source": "acme", "civitas_acme_directory": "https://acme-v02.api.letsencrypt.org/directory"}
    site.variables(**acme, civitas_acme_email="certificates@example.org")
    assert site.validate("--check").returncode == 0
    site.variables(**acme, civitas_acme_email="certificates@example.org", civitas_environment="production")
    found = site.validate("--check").only()
    assert found["variable"] == "civitas_acme_directory" and found["problem"].startswith("policy_lets_encrypt: ")


def make_key(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)


def with_own_roles(site):
    """The collection's own roles and playbooks, and what stands for the application's archive."""
    shutil.rmtree(site.collection / "roles")
    for part in ("roles", "playbooks"):
        shutil.copytree(COLLECTION / part, site.collection / part, dirs_exist_ok=True)
    archive = site.root / "image.tar.gz"
    archive.write_bytes(b"an image")
    make_key(site.root / "home/.ssh/id_ed25519")
    return {"image": "localhost/demo:1", "archive": str(archive), "sha256": hashlib.sha256(b"an image").hexdigest()}


def test_the_demo_inventory_is_valid(site):
    image = with_own_roles(site)
    # What `make demo` knows only at run time.
    site.put(site.root / "demo/image.json", json.dumps(image))
    for name in ("ssh_key", "visitor_key"):
        make_key(site.root / "demo" / name)
    run = site.validate("-e", f"demo_dir={site.root}/demo", inventory=COLLECTION / "inventories/demo/hosts.yml")
    assert run.returncode == 0, run.output
    assert "hosts.yml is valid: 1 host," in run.output


def test_the_inventory_to_copy_lacks_only_the_archive(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    inventory = site.root / "own/hosts.yml"
    output = site.validate(inventory=inventory).output
    assert "The inventory has 1 problem." in output, output
    lines = (site.root / "own/group_vars/all.yml").read_text().splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if text.startswith("app_demo_archive:")]
    assert f"records: app_demo_archive  (own/group_vars/all.yml:{line})" in output and "there is no such file" in output
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert run.returncode == 0, run.output
    assert "Inventory own/hosts.yml is valid: 1 host," in run.output
    assert (site.root / "own/secrets.yml").read_bytes().startswith(b"$ANSIBLE_VAULT;")


def tier4(site) -> dict[str, object]:
    """A copy of the inventory of four hosts, and what people have to write into it."""
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/tier4", site.root / "own")
    made = pki.usual(subject="records.example.org", names=["records.example.org"], end=pki.NOW + 100 * pki.DAY)
    folder = site.root / "own/certificate"
    folder.mkdir()
    (folder / "fullchain.pem").write_text(made.chain_pem)
    (folder / "key.pem").write_text(made.leaf.key_pem())
    (folder / "root.pem").write_text(made.root.pem)
    vault = VaultLib([("default", VaultSecret(b"right"))])
    secrets = f"mail_password: {CANARY}\nannounce_webhook_url: https://chat.example.org/{CANARY}\n"
    (site.root / "own/secrets.yml").write_bytes(vault.encrypt(secrets))
    own: dict[str, object] = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    return {**own, "civitas_certificate_trust_file": "certificate/root.pem", "civitas_backup": BACKUP}


RECIPIENT = "age1" + "q" * 58
BACKUP = {"recipients": [RECIPIENT], "quota_gigabytes": 500}


def test_the_inventory_of_four_hosts_lacks_what_only_people_have(site):
    own = tier4(site)
    inventory = site.root / "own/hosts.yml"
    output = site.validate(inventory=inventory).output
    assert "The inventory has 3 problems." in output, output
    for told in ("civitas_backup", "app_demo_archive", "civitas_certificate_files"):
        assert f"{told}  (own/group_vars/all.yml:" in output, output
    # The playbook rebuild asks it, and is asked with what the playbook restore takes.
    run = site.validate("-e", json.dumps({**own, "restore_key_file": "/x", "restore_before": "2026-01-31T12:00:00Z"}), inventory=inventory)
    assert run.returncode == 0, run.output
    assert "Inventory own/hosts.yml is valid: 4 hosts," in run.output
    assert "is backed up" not in run.output


def test_what_is_said_of_backups_is_judged_by_the_names_that_people_wrote(site):
    own = tier4(site)
    wrong = {"retention": "8 days", "quota_gigabytes": 500, "bandwidth_kib": -1, "directory": "/tmp/x"}
    own["civitas_backup"] = {"recipients": ["AGE-SECRET-KEY-1", RECIPIENT, RECIPIENT], **wrong}
    output = site.validate("-e", json.dumps(own), inventory=site.root / "own/hosts.yml").output
    for told in (
        *("is a private key, which now lies in the inventory", "has a key twice", "has the retention '8 days'"),
        *("is -1", "no place for backups"),
    ):
        assert told.partition(";")[0] in output, output
    assert "backup_store" not in output and "The inventory has 5 problems." in output, output


def test_a_second_host_copies_what_the_first_keeps(site):
    own = tier4(site)
    inventory = site.root / "own/hosts.yml"
    hosts = yaml.safe_load(inventory.read_text())
    hosts["all"]["children"]["backup"]["hosts"]["vault2"] = {"ansible_host": "203.0.113.13", "ansible_user": "deploy"}
    site.put(inventory, hosts)
    output = site.validate("-e", json.dumps(own), inventory=inventory).output
    assert "has vault, vault2, and nothing says which of them copies" in output and "The inventory has 1 problem." in output, output
    wrong = {"host": "vault2", "bandwidth_kib": "fast"}
    output = site.validate("-e", json.dumps({**own, "civitas_backup_copy": wrong}), inventory=inventory).output
    assert "civitas_backup_copy.bandwidth_kib" in output and "The inventory has 1 problem." in output, output
    run = site.validate(
        "-e", json.dumps({**own, "civitas_backup_copy": {"host": "vault2"}, "restore_store": "vault2"}), inventory=inventory
    )
    assert run.returncode == 0 and "Inventory own/hosts.yml is valid: 5 hosts," in run.output, run.output


def test_a_tier_lacks_no_host(site):
    own = tier4(site)
    hosts = yaml.safe_load((site.root / "own/hosts.yml").read_text())
    for group, told in (("monitoring", "watches the others"), ("backup", "keeps the backups of the server")):
        fewer = json.loads(json.dumps(hosts))
        del fewer["all"]["children"][group]
        site.put(site.root / "own/hosts.yml", fewer)
        output = site.validate("-e", json.dumps(own), inventory=site.root / "own/hosts.yml").output
        assert f"has no host, and tier4 has one that {told}" in output, output
    # Without it backups would be for nobody.
    assert "is written, and the group backup has no host that would keep them" in output


def what_roles_get(site, own, names, inventory) -> dict[str, list]:
    """The values of templates on each host of an inventory, as the plays of the tier have them."""
    written = f"{{{{ [{', '.join(names)}] | to_json }}}}"
    task = {"ansible.builtin.copy": {"content": written, "dest": f"{site.root}/written-{{{{ inventory_hostname }}}}", "mode": "0600"}}
    files = [str(COLLECTION / "playbooks/vars" / name) for name in ("tier_single.yml", "single.yml")]
    facts = {"ansible_facts": {"distribution": "Debian", "distribution_major_version": "13"}}
    tasks = [{**task, "delegate_to": "localhost", "no_log": True}]
    site.put(site.root / "play.yml", [{"hosts": "all", "gather_facts": False, "vars": facts, "vars_files": files, "tasks": tasks}])
    done = site.play(str(site.root / "play.yml"), "-e", json.dumps(own), inventory=inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name[len("written-") :]: json.loads(path.read_text()) for path in site.root.glob("written-*")}


def test_a_host_with_a_disk_of_its_own_for_data(site):
    own = tier4(site)
    inventory, secrets = site.root / "own/hosts.yml", site.root / "own/secrets.yml"
    disk = {"device": "/dev/disk/by-id/scsi-data", "initialize": True}
    tang = {"by": "tang", "servers": [{"url": "http://192.0.2.10", "thumbprint": "A" * 43}]}
    several = {"device": "/dev/sdb", "path": "srv", "initialize": "perhaps", "encryption": {"pcrs": "7"}}
    wrong: list[tuple[dict, list[str]]] = [
        (several, ["'/dev/sdb', whose name may be another disk's", ".path is 'srv'", ".initialize", "one of operator, tang, tpm2"]),
        ({**disk, "path": "/var/lib/docker"}, ["Write another civitas_data_volume.path"]),
        ({**disk, "encryption": tang}, ["the tang server http://192.0.2.10 is this host, so the key lies beside the data"]),
        ({**disk, "encryption": {"by": "operator", "passphrase": CANARY}}, ["the inventory is no place for a secret"]),
        ({**disk, "encryption": {"by": "operator"}, "swap_size": "much"}, [".swap_size is 'much'", "Write one such as 2G or 512M"]),
        ({**disk, "swap_size": "2G"}, [".swap_size is 2G, and the volume is not encrypted"]),
    ]
    for value, told in wrong:
        site.put(site.root / "own/host_vars/records.yml", {"civitas_data_volume": value})
        output = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory).output
        said = " ".join(output.split("The inventory has")[-1].split())
        assert all(words in said for words in told) and CANARY not in output, (told, output)
        # By the names that people wrote; what is in quotes Ansible says.
        assert not re.findall(r"(?<!civitas_)(?<!')data_volume_(?!passphrase_)\w+", said), output
    encrypted = {**disk, "encryption": {"by": "operator"}, "swap_size": "2G"}
    site.put(site.root / "own/host_vars/records.yml", {"civitas_data_volume": encrypted})
    # One that keeps sets may have one, and one that lets people through has nothing to keep there.
    site.put(site.root / "own/host_vars/vault.yml", {"civitas_data_volume": {**disk, "path": "/srv/backup"}})
    site.put(site.root / "own/host_vars/gate.yml", {"civitas_data_volume": disk})
    output = " ".join(site.validate("-e", json.dumps(own), inventory=inventory).output.split())
    assert "The inventory has 2 problems." in output and "a host like this has no role data_volume" in output, output
    assert "/srv/backup is where the volume itself is mounted" in output, output
    (site.root / "own/host_vars/gate.yml").unlink()
    site.put(site.root / "own/host_vars/vault.yml", {"civitas_data_volume": disk})
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert run.returncode == 0, run.output
    vault = VaultLib([("default", VaultSecret(b"right"))])
    made = yaml.safe_load(vault.decrypt(secrets.read_bytes()))
    assert len(made["data_volume_passphrase_records"]) == 40 and "data_volume_passphrase_vault" not in made
    # What the roles get.
    names = ["__civitas_host_roles", "data_volume_device", "data_volume_path", "data_volume_encryption", "data_volume_directories"]
    names += ["backup_store_mount", "base_packages", "monitoring_rules | default({})", "data_volume_swap_size"]
    got = what_roles_get(site, own, names, inventory)
    roles, device, path, encryption, directories, _mount, packages, _rules, swap = got["records"]
    assert roles.index("access") < roles.index("data_volume") < min(roles.index(name) for name in ("docker", "postgres", "app_demo"))
    assert (device, path, swap) == (disk["device"], "/srv/data", "2G")
    assert encryption == {"by": "operator", "passphrase": made["data_volume_passphrase_records"]}
    assert {item["path"]: item["units"][0] for item in directories} == {
        "/var/lib/docker": "docker.service",
        "/var/lib/postgresql": "postgresql.service",
    }
    assert "cryptsetup-bin" in packages
    roles, _device, _path, encryption, directories, mount, packages, _rules, swap = got["vault"]
    assert "data_volume" in roles and encryption == {} and swap == "0" and "cryptsetup-bin" not in packages
    assert [item["path"] for item in directories] == ["/srv/backup"] and mount is True
    # The others have none, and who watches knows which.
    for name in ("gate", "watch"):
        assert "data_volume" not in got[name][0] and got[name][1] == ""
    assert ["DataVolumeLocked" in {rule["name"] for rule in got["watch"][7][name]} for name in ("records", "watch")] == [True, False]
    # Who replaces secrets learns that this one stays, whichever host has the disk.
    asked = site.play("civitas.hosting.rotate_keys", "-e", json.dumps(own), "-e", "rotate=nothing", inventory=inventory)
    said = " ".join((asked.stdout + asked.stderr).split())
    assert "data_volume_passphrase_records stays as it is: it opens the data volume" in said, said
    assert asked.returncode != 0 and "app_demo_" in said.split("This site generates:")[1].split(".")[0], said
    # A passphrase that somebody wrote is judged as well.
    secrets.write_bytes(vault.encrypt(yaml.safe_dump({**made, "data_volume_passphrase_records": "canary-short"})))
    output = " ".join(site.validate("-e", json.dumps(own), inventory=inventory).output.split())
    assert "has no passphrase in one line of 16 characters or more" in output and "canary-short" not in output, output


def test_a_host_that_restores_backups_for_trial(site):
    own = {**tier4(site), "civitas_alert_receivers": [{"name": "chat", "webhook": {"url_secret": "announce_webhook_url"}}]}
    inventory = site.root / "own/hosts.yml"
    hosts = yaml.safe_load(inventory.read_text())
    hosts["all"]["children"]["drill"] = {"hosts": {"trial": {"ansible_host": "192.0.2.14", "ansible_user": "deploy"}}}
    site.put(inventory, hosts)

    def told(**variables) -> str:
        site.put(site.root / "own/group_vars/drill.yml", variables)
        return " ".join(site.validate("-e", json.dumps(own), inventory=inventory).output.replace("\\n", " ").split())

    assert "civitas_restore_drill is not set, so this host would drill nothing" in told(civitas_environment="staging")
    said = told(civitas_restore_drill={"hosts": ["records"], "schedule": "Sun *-*-* 05:00:00"})
    assert "a host of the kind 'production' must not hold a key that opens backups" in said and "restore_drill_hosts" not in said
    said = told(civitas_environment="staging", civitas_restore_drill={"hosts": ["recrods", "vault"]})
    assert "'recrods', which is no server of this inventory -> Write records." in said and "'vault', which is no server" in said
    drill = {"civitas_environment": "staging", "civitas_restore_drill": {"hosts": ["records"], "schedule": "Sun *-*-* 05:00:00"}}
    site.put(site.root / "own/host_vars/vault.yml", {"civitas_restore_drill": {"hosts": ["records"]}})
    assert "a key that opens backups must not lie beside what it opens" in told(**drill)
    (site.root / "own/host_vars/vault.yml").unlink()
    assert "is valid: 5 hosts," in told(**drill)
    # What the roles get, once each host has told its keys.
    names = ["__civitas_host_roles", "backup_recipients", "backup_store_hosts", "restore_drill_hosts", "firewall_peers"]
    names += [
        "__civitas_partners",
        "restore_drill_postgres_package",
        "__civitas_key_lines",
        "restore_drill_environment",
        "restore_drill_schedule",
    ]
    keys = [
        'records namespaces="civitas-transfer" ssh-ed25519 AAAAtransfer',
        'records namespaces="civitas-backup" ssh-ed25519 AAAAbefore',
        'records namespaces="civitas-backup" ssh-ed25519 AAAAsigning',
        'vault namespaces="civitas-store" ssh-ed25519 AAAAstore',
        "# trial identity age1identity",
        'trial namespaces="civitas-read-records" ssh-ed25519 AAAAreader',
    ]
    (site.root / "own/backup-keys.txt").write_text("\n".join(["# written by hand", *keys]) + "\n")
    got = what_roles_get(site, own, names, inventory)
    assert got["records"][1] == [RECIPIENT, "age1identity"] and got["records"][3] == [] and got["records"][6] == ""
    (sender,) = got["vault"][2]
    assert sender["readers"] == ["ssh-ed25519 AAAAreader"] and sender["signing_keys_before"] == ["ssh-ed25519 AAAAbefore"]
    assert sorted(got["vault"][4]) == ["192.0.2.10", "192.0.2.14"]
    roles, drilled = got["trial"][0], got["trial"][3]
    assert "restore_drill" in roles and not {"backup", "backup_store", "postgres", "docker"} & set(roles)
    assert drilled == [{"name": "records", "signing_keys": ["ssh-ed25519 AAAAsigning", "ssh-ed25519 AAAAbefore"]}]
    assert (got["trial"][6], *got["trial"][8:]) == ("postgresql", "staging", "Sun *-*-* 05:00:00")
    assert {name: set(got[name][5]) for name in ("records", "vault", "trial")} == {
        "records": {"vault", "trial"},
        "vault": {"records", "trial"},
        "trial": {"vault", "records"},
    }
    # What is written down is what was read.
    assert got["trial"][7] == keys[4:] and got["vault"][7] == keys[3:4] and got["records"][7] == [keys[0], keys[2]]


def test_what_a_reset_empties_the_roles_of_the_site_say(site):
    own = {**tier4(site), "civitas_environment": "qa"}
    files = [str(COLLECTION / "playbooks/vars" / name) for name in ("tier_single.yml", "single.yml", "reset_data.yml")]
    got = "{{ [{} | civitas.hosting.reset_plan(__reset_declared), __reset_host, __reset_store] | to_json }}"
    task = {"ansible.builtin.copy": {"content": got, "dest": str(site.root / "written"), "mode": "0600"}, "delegate_to": "localhost"}
    servers = "{{ groups | civitas.hosting.site_servers }}"
    site.put(site.root / "play.yml", [{"hosts": servers, "gather_facts": False, "vars_files": files, "tasks": [task]}])
    done = site.play(str(site.root / "play.yml"), "-e", json.dumps(own), inventory=site.root / "own/hosts.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    plan, host, store = json.loads((site.root / "written").read_text())
    assert plan["databases"] == [{"name": "kinto", "port": 5432, "keep": ["public.metadata"]}] and plan["projects"] == ["demo"]
    # The settings of the host are backed up, and are no data.
    assert plan["trees"] == [] and (host, store) == ("records", "vault")
    # Nothing is contacted before it is typed.
    done = site.play("civitas.hosting.reset_data", "-e", json.dumps(own), inventory=site.root / "own/hosts.yml")
    assert "write -e reset_data_confirm=records.example.org" in " ".join(done.stdout.split()), done.stdout
    assert not site.calls.exists()


def test_the_collections_own_artifacts_and_networks_are_judged(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    own = {
        "app_demo_archive": image["archive"],
        "app_demo_archive_sha256": 64 * "0",
        "docker_compose_plugin_file": "/none/docker-compose",
        "docker_bridge_address": "300.1.1.1/24",
        "nginx_hsts_max_age": 0,
    }
    output = site.validate("-e", json.dumps(own), inventory=site.root / "own/hosts.yml").output
    assert "The inventory has 4 problems." in output, output
    for name in ("app_demo_archive", "docker_compose_plugin_file", "docker_bridge_address", "nginx_hsts_max_age"):
        assert f" records: {name}\n" in output, output


def test_the_way_in_is_judged_by_the_names_that_people_wrote(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    own.update(
        civitas_automation={"name": "deploy", "ssh_keys": ["ssh-dss AAAA"], "from": ["192.0.2.0/24"]},
        civitas_people=[{"name": "first_admin", "ssh_keys": [], "role": "king"}],
        civitas_admin_networks=["0.0.0.0/33"],
        civitas_announce_smtp={"host": "mail.example.org", "from": "logins", "to": ["administrators@example.org"]},
        civitas_second_factor=False,
    )
    output = site.validate("-e", json.dumps(own), inventory=site.root / "own/hosts.yml").output
    for name in ("civitas_automation", "civitas_people", "civitas_admin_networks", "civitas_announce_smtp", "civitas_second_factor"):
        assert f" records: {name}\n" in output, output


def test_who_is_told_of_logins_is_judged_with_the_secrets_that_others_gave(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    inventory, secrets = site.root / "own/hosts.yml", site.root / "own/secrets.yml"
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    relay = {"host": "mail.example.org", "from": "logins@example.org", "to": ["administrators@example.org"], "user": "logins"}
    own["civitas_announce_smtp"] = {**relay, "password_secret": "announce_smtp_password"}
    own["civitas_announce_webhook"] = {"url_secret": "announce_webhook_url", "format": "slack"}
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "The inventory has 2 problems." in run.output, run.output
    assert "names announce_smtp_password, which the secrets file does not have" in run.output
    assert 'ansible-vault edit own/secrets.yml and write announce_webhook_url: "..."' in run.output
    assert not secrets.exists()
    vault = VaultLib([("default", VaultSecret(b"right"))])
    for scheme, valid in (("http", False), ("https", True)):
        secrets.write_bytes(
            vault.encrypt(f"announce_smtp_password: {CANARY}-password\nannounce_webhook_url: {scheme}://chat.example.org/{CANARY}-hook\n")
        )
        run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
        assert (run.returncode == 0) is valid, run.output
        assert "Nobody is told" not in run.output
        assert ("civitas_announce_webhook\n" in run.output and "it must be https" in run.output) is not valid, run.output
        assert CANARY not in run.output
    # And the role gets what was written, with the secrets in it; who asks what leaves the host learns of the address its beginning.
    written = (
        "{{ [access_announce_smtp, access_announce_webhook, lookup('civitas.hosting.declarations', 'access', kind='destinations')]"
        " | to_json }}"
    )
    task = {"ansible.builtin.copy": {"content": written, "dest": str(site.root / "written"), "mode": "0600"}, "delegate_to": "localhost"}
    files = [str(COLLECTION / "playbooks/vars" / name) for name in ("tier_single.yml", "single.yml")]
    defaults = {"access_announce": True, "access_break_glass": {}}
    play = {"hosts": "all", "gather_facts": False, "vars": defaults, "vars_files": files, "tasks": [{**task, "no_log": True}]}
    site.put(site.root / "play.yml", [play])
    done = site.play(str(site.root / "play.yml"), "-e", json.dumps(own), inventory=inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    smtp, webhook, destinations = json.loads((site.root / "written").read_text())
    assert smtp == {**relay, "password": f"{CANARY}-password"}
    assert webhook == {"url": f"https://chat.example.org/{CANARY}-hook", "format": "slack"}
    assert {host for item in destinations for host in item["hosts"]} == {"mail.example.org", "chat.example.org"}
    assert CANARY not in json.dumps(destinations)


def test_the_way_of_mail_is_judged_with_the_secrets_that_others_gave(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    inventory, secrets = site.root / "own/hosts.yml", site.root / "own/secrets.yml"
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    own["civitas_mail"] = {"host": "192.0.2.25", "sender": "registry", "to": ["administrators"], "tls": "none"}
    own["civitas_mail_webhook"] = {"url_secret": "mail_webhook_url", "format": "slack"}
    vault = VaultLib([("default", VaultSecret(b"right"))])
    given = f"mail_password: {CANARY}-password\nmail_webhook_url: https://chat.example.org/{CANARY}-hook\n"
    secrets.write_bytes(vault.encrypt(given.replace("https", "http")))
    run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
    for told in (
        "an address",
        "tls is 'none'",
        "sender is 'registry'",
        "to has 'administrators'",
        "url_secret names what is no usable address",
    ):
        assert told in " ".join(run.output.split()), (told, run.output)
    assert "mail_relay_" not in run.output.split("The inventory has")[1].replace("mail_relay_hostname", "")
    mail = {"host": "mail.example.org", "sender": "registry@example.org", "to": ["administrators@example.org"], "user": "registry"}
    own["civitas_mail"] = {**mail, "password_secret": "mail_password", "dkim": {"domain": "example.net", "selector": "mail2026"}}
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "domain is 'example.net', and registry@example.org is not in it" in " ".join(run.output.split()), run.output
    own["civitas_mail"].update(port=2525, dkim={"domain": "example.org", "selector": "mail2026"})
    secrets.write_bytes(vault.encrypt(given))
    run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
    assert run.returncode == 0, run.output
    assert CANARY not in run.output
    # What the roles get.
    names = ["mail_relay_smarthost", "mail_relay_listen_addresses", "mail_relay_client_networks", "mail_relay_root_to"]
    names += ["mail_relay_dkim", "firewall_resolvable", "mail_relay_webhook", "access_announce_smtp", "__civitas_host_roles"]
    written = f"{{{{ [{', '.join(names)}, lookup('civitas.hosting.declarations', 'mail_relay', kind='destinations')] | to_json }}}}"
    task = {"ansible.builtin.copy": {"content": written, "dest": str(site.root / "written"), "mode": "0600"}, "delegate_to": "localhost"}
    files = [str(COLLECTION / "playbooks/vars" / name) for name in ("tier_single.yml", "single.yml")]
    play = {"hosts": "all", "gather_facts": False, "vars_files": files, "tasks": [{**task, "no_log": True}]}
    site.put(site.root / "play.yml", [play])

    def roles_get(values):
        done = site.play(str(site.root / "play.yml"), "-e", json.dumps(values), inventory=inventory)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads((site.root / "written").read_text())

    smarthost, listen, clients, root_to, signs, names, webhook, announce, roles, destinations = roles_get(own)
    assert smarthost == {"host": "mail.example.org", "user": "registry", "port": 2525, "password": f"{CANARY}-password"}
    assert (listen, clients) == (["172.30.0.1"], ["172.30.128.0/17"])
    assert root_to == announce["to"] == mail["to"] and (announce["host"], announce["tls"]) == ("127.0.0.1", "none")
    assert webhook == {"url": f"https://chat.example.org/{CANARY}-hook", "format": "slack"}
    assert "mail_relay" in roles
    assert signs == {"domain": "example.org", "selector": "mail2026-records"} and "_domainkey.example.org" in names
    assert {(host, port) for item in destinations for host in item["hosts"] for port in item["ports"]} == {
        ("mail.example.org", 2525),
        ("chat.example.org", 443),
    }
    # The chat of the logins hears of mail, too, and another server of theirs stays theirs.
    own["civitas_announce_webhook"] = own.pop("civitas_mail_webhook")
    own["civitas_announce_smtp"] = {"host": "other.example.org", "from": "logins@example.org", "to": ["others@example.org"]}
    *_others, webhook, announce, _roles, _destinations = roles_get(own)
    assert webhook["url"].endswith(f"{CANARY}-hook") and announce["host"] == "other.example.org"
    # Where people depend on it, somebody must hear that mail does not leave.
    del own["civitas_announce_webhook"]
    own["civitas_environment"] = "staging"
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "waive mail_webhook for a while" in " ".join(run.output.split()), run.output
    assert "Nobody hears when records itself is down" in " ".join(run.output.split()), run.output
    until = (datetime.date.today() + datetime.timedelta(days=30)).isoformat()
    reason = "The chat is ordered."
    own["civitas_waivers"] = [{"rule": "mail_webhook", "reason": reason, "until": until}]
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "waive mail_webhook" not in run.output and reason in run.output


def test_who_hears_alarms_is_judged_with_the_secrets_that_others_gave(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    inventory, secrets = site.root / "own/hosts.yml", site.root / "own/secrets.yml"
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert run.returncode == 0 and "Nobody hears alarms of records" in " ".join(run.output.split()), run.output
    chat = {"name": "chat", "webhook": {"url_secret": "chat_url", "format": "slack"}}
    duty = {"name": "duty", "severities": ["critical"], "sms": {"url_secret": "sms_url", "headers_secret": {"Authorization": "sms_token"}}}
    own["civitas_alert_receivers"] = [{"name": "team", "email": {"to": ["administrators"]}}, chat, duty]
    vault = VaultLib([("default", VaultSecret(b"right"))])
    secrets.write_bytes(vault.encrypt(f"chat_url: http://chat.example.org/{CANARY}\nsms_token: {CANARY}\n"))
    run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
    told = " ".join(run.output.split())
    for words in ("names sms_url, which the secrets file does not have", "to has 'administrators'", "url_secret names what is no usable"):
        assert words in told, run.output
    assert "where the number goes" in told and CANARY not in run.output
    # Everybody is reached, and each severity has somebody.
    duty["sms"].update(numbers=["+15550100"], body='{"to": "{number}", "text": "{text}"}')
    given = f"chat_url: https://chat.example.org/{CANARY}\nsms_token: {CANARY}\nsms_url: https://sms.example.org/{CANARY}\n"
    secrets.write_bytes(vault.encrypt(given))
    own["civitas_alert_receivers"] = [duty]
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "nobody hears warning alarms" in " ".join(run.output.split()), run.output
    own["civitas_alert_receivers"] = [{"name": "team", "email": ["administrators@example.org"]}, duty]
    run = site.validate("-e", json.dumps({**own, "monitoring_agent_mail_from": "büro@example.org"}), inventory=inventory)
    told = " ".join(run.output.split())
    assert "email is a list" in told and "Write a mapping such as {to: [administrators@example.org]}" in told, run.output
    assert "monitoring_agent_mail_from" in told and "Write an address in plain letters" in told, run.output
    own["civitas_alert_receivers"] = [{"name": "team", "email": {"to": ["administrators@example.org"]}}, duty]
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "the host has no server by which it leaves" in " ".join(run.output.split()), run.output
    own["civitas_alert_receivers"] = [chat, duty]
    own["civitas_heartbeat_secret"] = "outside_url"
    secrets.write_bytes(vault.encrypt(f"{given}outside_url: http://outside.example.org/{CANARY}\n"))
    run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
    assert "names outside_url, which is no usable address" in " ".join(run.output.split()) and CANARY not in run.output, run.output
    secrets.write_bytes(vault.encrypt(f"{given}outside_url: https://outside.example.org/{CANARY}\n"))
    run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
    assert run.returncode == 0 and CANARY not in run.output, run.output
    # What the role gets.
    names = ", ".join(f"monitoring_agent_{name}" for name in ("heartbeat_url", "receivers", "rules", "units", "containers"))
    written = f"{{{{ [{names}, lookup('civitas.hosting.declarations', 'monitoring_agent', kind='destinations')] | to_json }}}}"
    task = {"ansible.builtin.copy": {"content": written, "dest": str(site.root / "written"), "mode": "0600"}, "delegate_to": "localhost"}
    files = [str(COLLECTION / "playbooks/vars" / name) for name in ("tier_single.yml", "single.yml")]
    facts = {"ansible_facts": {"distribution": "Debian", "distribution_major_version": "13"}}
    play = {"hosts": "all", "gather_facts": False, "vars": facts, "vars_files": files, "tasks": [{**task, "no_log": True}]}
    site.put(site.root / "play.yml", [play])
    done = site.play(str(site.root / "play.yml"), "-e", json.dumps(own), inventory=inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    heartbeat, receivers, rules, units, containers, destinations = json.loads((site.root / "written").read_text())
    assert heartbeat == f"https://outside.example.org/{CANARY}"
    assert receivers[0]["webhook"] == {"url": f"https://chat.example.org/{CANARY}", "format": "slack"}
    assert receivers[1]["sms"]["headers"] == {"Authorization": CANARY}
    assert {"DiskHalfFull", "DiskFillingUp", "CollectorSilent"} <= {rule["name"] for rule in rules}
    assert {"nginx.service", "docker.service", "civitas-alerts.timer"} <= set(units) and containers == [
        {"project": "demo", "services": ["web"]}
    ]
    assert {host for item in destinations for host in item["hosts"]} == {"chat.example.org", "sms.example.org", "outside.example.org"}
    assert CANARY not in json.dumps([rules, destinations])


def test_a_site_that_is_watched(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    inventory, secrets = site.root / "own/hosts.yml", site.root / "own/secrets.yml"
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    chat = {"name": "chat", "webhook": {"url_secret": "chat_url", "format": "slack"}}
    own.update(civitas_alert_receivers=[chat], civitas_monitoring={"page_users": ["anna"], "heartbeat_secret": "heartbeat_url"})
    vault = VaultLib([("default", VaultSecret(b"right"))])
    secrets.write_bytes(vault.encrypt(f"chat_url: https://chat.example.org/{CANARY}\n"))
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "the group monitoring has no host that would read it" in " ".join(run.output.split()), run.output
    # Now somebody does, and judges all but a small host.
    children = {
        "bastion": {"hosts": {"gate": {"ansible_host": "192.0.2.2", "civitas_monitoring_mode": "light"}}},
        "monitoring": {"hosts": {"watch-1": {"ansible_host": "watch.example.org"}}},
    }
    site.put(inventory, {"all": {"hosts": {"records": {"ansible_host": "192.0.2.1"}}, "children": children}})
    own["civitas_monitoring"]["probes"] = "https://helpdesk.example.org/"
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "has probes that are a text" in " ".join(run.output.split()), run.output
    own["civitas_monitoring"]["probes"] = [{"name": "far", "type": "icmp", "target": "198.51.100.7", "host": "recrods"}]
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    assert "whose host is 'recrods', which is no host" in " ".join(run.output.split()), run.output
    own["civitas_monitoring"]["probes"] = [{"name": "far", "type": "ping", "target": "198.51.100.7"}]
    run = site.validate("-e", json.dumps(own), inventory=inventory)
    told = " ".join(run.output.split())
    assert "The inventory has 3 problems" in told and "civitas_monitoring.probes" in told, run.output
    for words in ("names heartbeat_url, which the secrets file does not have", "'watch.example.org': no address", "got: ping"):
        assert words in told, run.output
    children["monitoring"]["hosts"]["watch-1"]["civitas_address"] = "192.0.2.3"
    site.put(inventory, {"all": {"hosts": {"records": {"ansible_host": "192.0.2.1"}}, "children": children}})
    own["civitas_monitoring"]["probes"][0]["type"] = "icmp"
    given = f"chat_url: https://chat.example.org/{CANARY}\nheartbeat_url: https://outside.example.org/{CANARY}\n"
    secrets.write_bytes(vault.encrypt(given))
    mail = {"host": "mail.example.org", "sender": "registry@example.org", "to": ["administrators@example.org"]}
    run = site.validate("-e", json.dumps({**own, "civitas_mail": mail}), "-vvv", inventory=inventory)
    assert run.returncode == 0 and CANARY not in run.output, run.output
    assert "unique filter" not in run.output, run.output
    # What the roles get.
    names = (
        "monitoring_agent_mode, monitoring_agent_client_names, monitoring_agent_client_addresses, firewall_monitoring, monitoring_targets,"
    )
    names += (
        "monitoring_rules, monitoring_probes, monitoring_heartbeat_url, monitoring_page_users, monitoring_page_name, certificates_internal"
    )
    found = "lookup('civitas.hosting.declarations', __civitas_host_roles, kind='destinations')"
    names += ", logs_receiver, logs_receive, logs_senders, firewall_peers"
    written = f"{{{{ [{names}, {found}, __civitas_host_roles] | to_json }}}}"
    task = {"ansible.builtin.copy": {"content": written, "dest": f"{site.root}/written-{{{{ inventory_hostname }}}}", "mode": "0600"}}
    files = [str(COLLECTION / "playbooks/vars" / name) for name in ("tier_single.yml", "single.yml")]
    facts = {"ansible_facts": {"distribution": "Debian", "distribution_major_version": "13"}}
    play = {"hosts": "all", "gather_facts": False, "vars": facts, "vars_files": files, "tasks": [{**task, "delegate_to": "localhost"}]}
    site.put(site.root / "play.yml", [play])
    done = site.play(str(site.root / "play.yml"), "-e", json.dumps(own), inventory=inventory)
    assert done.returncode == 0, done.stdout + done.stderr
    got = {name: json.loads((site.root / f"written-{name}").read_text()) for name in ("records", "gate", "watch-1")}
    assert [got[name][0] for name in got] == ["full", "light", "full"]
    assert got["records"][1:4] == [["watch-1.internal"], ["192.0.2.3"], ["192.0.2.3"]]
    assert got["watch-1"][2] == ["192.0.2.3", "127.0.0.1"]
    targets, rules, probes, heartbeat, users, page = got["watch-1"][4:10]
    assert {target["name"]: (target["address"], target["tls_name"], target["modules"]) for target in targets} == {
        "records": ("192.0.2.1", "records.internal", ["node", "postgres", "nginx"]),
        "watch-1": ("127.0.0.1", "watch-1.internal", ["node", "nginx"]),
    }
    assert {name: "ContainerDown" in {rule["name"] for rule in of} for name, of in rules.items()} == {"records": True, "watch-1": False}
    assert [(probe["name"], probe.get("host")) for probe in probes] == [
        ("records.example.org", "records"),
        ("ping-gate", "gate"),
        ("far", None),
    ]
    assert heartbeat.endswith(CANARY) and page == "monitoring.records.example.org"
    assert [user["name"] for user in users] == ["anna"] and len(users[0]["password"]) >= 20
    # The page has a certificate of its own, and the site's is on its server only.
    assert {item["name"] for item in got["watch-1"][10]} == {"monitoring-client", "monitoring-page", "monitoring", "logs"}
    assert "edge" in {item["name"] for item in got["records"][10]} and [item["name"] for item in got["gate"][10]] == ["logs"]
    # Who watches gets the evidence of all others, and keeps its own.
    for name in ("records", "gate"):
        assert got[name][11:15] == [{"name": "watch-1", "address": "192.0.2.3", "tls_name": "watch-1.internal"}, False, [], []]
        assert ("evidence", ["192.0.2.3"], [9997]) in [(one["name"], one.get("hosts"), one.get("ports")) for one in got[name][15]]
    receiver, receives, senders, peers = got["watch-1"][11:15]
    assert (receiver, receives, sorted(peers)) == ({}, True, ["192.0.2.1", "192.0.2.2"])
    assert {sender["name"]: sender["tls_name"] for sender in senders} == {"records": "records.internal", "gate": "gate.internal"}
    assert {rule["text"] for rule in rules["records"] if rule["name"] == "EvidenceWaiting"} == {
        "The evidence of logins on {host} has waited for {value} to be brought to safety on watch-1."
    }
    assert {name for name, of in rules.items() if "EvidenceSilent" in {rule["name"] for rule in of}} == {"watch-1"}
    reached = {(item["name"], tuple(item.get("hosts", ()))) for item in got["watch-1"][15]}
    assert {
        ("targets", ("192.0.2.1", "127.0.0.1")),
        ("pings", ("192.0.2.2", "198.51.100.7")),
        ("heartbeat", ("outside.example.org",)),
    } <= reached
    assert "monitoring" not in got["records"][16] and "certificates" in got["gate"][16]


def test_exceptions_of_the_way_in_need_a_waiver(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    key = (site.root / "home/.ssh/id_ed25519.pub").read_text().strip()
    make_key(site.root / "home/.ssh/other")
    other = (site.root / "home/.ssh/other.pub").read_text().strip()
    own.update(
        civitas_automation={"name": "deploy", "ssh_keys": [key]},
        civitas_people=[{"name": "second_admin", "role": "admin", "two_factor": False, "ssh_keys": [other]}],
        access_automation_anywhere=True,
    )
    run = site.validate("-e", json.dumps(own), inventory=site.root / "own/hosts.yml")
    assert "The inventory has 2 problems." in run.output, run.output
    assert "lets in second_admin without a code" in run.output and " records: access_automation_anywhere\n" in run.output
    until = (datetime.date.today() + datetime.timedelta(days=30)).isoformat()
    reason = "The new telephones come next week."
    own["civitas_waivers"] = [{"rule": rule, "reason": reason, "until": until} for rule in ("second_factor", "automation_anywhere")]
    run = site.validate("-e", json.dumps(own), inventory=site.root / "own/hosts.yml")
    assert run.returncode == 0, run.output
    assert run.output.count(reason) >= 2


def test_a_delivered_certificate_with_the_collections_own_roles(site):
    image = with_own_roles(site)
    delivered(site)
    inventory = site.root / "own/hosts.yml"
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    shutil.copytree(site.root / "inventory/certificate", site.root / "own/certificate")
    shutil.copy(site.secrets, site.root / "own/secrets.yml")
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    kept = yaml.safe_load((site.root / "inventory/group_vars/all.yml").read_text())
    own.update({name: value for name, value in kept.items() if name.startswith("civitas_")}, civitas_waivers=[ALARMS_WAIVED])
    run = site.validate("-e", json.dumps(own), "-vvv", inventory=inventory)
    assert run.returncode == 0, run.output
    assert CANARY not in run.output


def test_behind_a_load_balancer_the_certificate_is_not_ours(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    own.update(civitas_environment="production", civitas_waivers=[ALARMS_WAIVED])
    run = site.validate("-e", json.dumps(own), "--check", inventory=site.root / "own/hosts.yml")
    assert "policy_internal_ca: " in run.output
    told = " ".join(run.output.split())
    assert "Nobody is told who logs in to records; write civitas_mail" in told
    assert "Mail of records and its applications goes nowhere; write civitas_mail." in told
    own.update(nginx_tls_mode="upstream", nginx_load_balancers=["192.0.2.7"])
    run = site.validate("-e", json.dumps(own), "--check", inventory=site.root / "own/hosts.yml")
    assert run.returncode == 0, run.output


def test_what_an_acme_server_would_be_asked_for_is_judged(site):
    image = with_own_roles(site)
    shutil.copytree(COLLECTION / "inventories/single", site.root / "own")
    own = {f"app_demo_{'archive_sha256' if name == 'sha256' else name}": value for name, value in image.items()}
    own.update(
        civitas_certificate_source="acme",
        civitas_acme_directory="https://acme.example.org/directory",
        civitas_acme_email="certificates@example.org",
        civitas_acme_challenge="dns-01",
        certificates_acme_eab_hmac_key="{{ lookup('civitas.hosting.secret', 'acme_eab') }}",
    )
    run = site.validate("-e", json.dumps(own), "--check", inventory=site.root / "own/hosts.yml")
    assert "The inventory has 5 problems." in run.output, run.output
    for name in ("accept_terms", "eab_kid", "dns_server", "dns_key_name", "dns_key_secret"):
        assert f" records: certificates_acme_{name}\n" in run.output, run.output
    assert "Read the terms of service of the ACME server (https://acme.example.org/directory)" in run.output
    own.update(
        certificates_acme_accept_terms=True,
        certificates_acme_eab_kid="kid-1",
        certificates_acme_dns_server="192.0.2.53",
        certificates_acme_dns_key_name="acme",
        certificates_acme_dns_key_secret="c2VjcmV0",
    )
    run = site.validate("-e", json.dumps(own), "--check", inventory=site.root / "own/hosts.yml")
    assert run.returncode == 0, run.output
    assert "acme_eab" not in run.output


def test_a_name_that_the_internal_ca_is_not_for_is_told_before_any_host_is_touched(site):
    image = with_own_roles(site)
    site.put(site.root / "demo/image.json", json.dumps(image))
    for name in ("ssh_key", "visitor_key"):
        make_key(site.root / "demo" / name)
    inventory = COLLECTION / "inventories/demo/hosts.yml"
    names = json.dumps({"postgres_server_names": ["database.internal", "db.other.example"], "certificates_revoked": ["no serial!"]})
    run = site.validate("-e", f"demo_dir={site.root}/demo", "-e", names, inventory=inventory)
    assert "certificates_revoked: 'no serial!' is neither a serial number" in run.output
    run = site.validate("-e", f"demo_dir={site.root}/demo", "-e", names, "-e", '{"certificates_revoked": []}', inventory=inventory)
    assert run.returncode != 0
    assert "'db.other.example' is not among the names that this CA is for" in run.output
    assert "Add it to certificates_ca_permitted_names." in run.output
    wider = '{"certificates_revoked": [], "certificates_ca_permitted_names": ["internal", "localhost", "other.example"]}'
    run = site.validate("-e", f"demo_dir={site.root}/demo", "-e", names, "-e", wider, inventory=inventory)
    assert run.returncode == 0, run.output
