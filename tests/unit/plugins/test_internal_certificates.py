# SPDX-License-Identifier: GPL-3.0-or-later
"""internal_certificates from real playbooks: this machine is controller and host, below a temporary directory."""

from __future__ import annotations

import datetime
import getpass
import grp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.template import Templar
from ansible_collections.civitas.hosting.plugins.action.internal_certificates import ActionModule
from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsFile
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca
from ansible_collections.civitas.hosting.plugins.plugin_utils._internal_ca import Ca, Policy, Root
from ansible_collections.civitas.hosting.plugins.plugin_utils._internal_ca_run import KEPT, Keeper

COLLECTIONS = Path(_internal_ca.__file__).parents[5]
DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)
VAULT = VaultLib([("default", VaultSecret(b"password-of-the-test"))])


class Action(ActionModule):
    """With the real module as a process of its own, and no connection before it."""

    def _execute_module(self, module_name: Any = None, module_args: Any = None, **_others: Any) -> Any:
        arguments = {**module_args, "_ansible_check_mode": self._task.check_mode}
        done = subprocess.run(
            [sys.executable, "-m", f"ansible_collections.civitas.hosting.plugins.modules.{module_name.rpartition('.')[2]}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return json.loads(done.stdout)


class Site:
    """An inventory's directory with what a run leaves in it, and a host's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.secrets, self.root_file, self.people = path / "secrets.yml", path / "ca-root.yml", path / "ca.pem"
        self.host = path / "host"
        self.store = self.host / "certificates"
        (path / "password").write_text("password-of-the-test\n")
        (path / "hosts.yml").write_text("all: {hosts: {records: {ansible_connection: local}}}\n")
        self.password = True
        self.environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(path / "password"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "COLUMNS": "400",
        }

    def options(self, **changes: object) -> dict[str, Any]:
        me = {"owner": getpass.getuser(), "group": grp.getgrgid(os.getegid()).gr_name}
        certificate = {"name": "edge", "hosts": ["records.test"], "reload_units": ["nginx.service"], **me}
        return {
            "certificates": [certificate],
            "store": str(self.store),
            "ca_file": str(self.host / "ca.pem"),
            "crl_file": str(self.host / "crl.pem"),
            "controller_ca_file": str(self.people),
            "secrets_file": "secrets.yml",
            "permitted_names": ["records.test"],
            "system_trust": False,
            **changes,
        }

    def play(self, *arguments: str, **changes: object) -> str:
        """One run of ansible-playbook; what was printed."""
        task = {"civitas.hosting.internal_certificates": self.options(**changes)}
        (self.path / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "hosts.yml", "play.yml", *arguments]
        done = subprocess.run(
            command, cwd=self.path, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def run(self, check: bool = False, **changes: object) -> dict[str, Any]:
        """The result of the task, without the start of a whole Ansible for each."""
        loader = DataLoader()
        loader.set_vault_secrets([("default", VaultSecret(b"password-of-the-test"))] if self.password else [])
        task = Task()
        task.args, task.check_mode = self.options(**changes), check
        connection = plugins.connection_loader.get("local", PlayContext())
        action = Action(task, connection, PlayContext(), loader, Templar(loader=loader), plugins)
        result: dict[str, Any] = action.run(task_vars={"inventory_dir": str(self.path), "inventory_hostname": "records"})
        assert not result.get("failed"), result
        return {**result, "warned": " ".join(result.get("warnings", []))}

    def refused(self, **changes: object) -> str:
        """Why the task fails."""
        with pytest.raises(AnsibleActionFail) as error:
            self.run(**changes)
        return str(error.value)

    def kept(self) -> Ca:
        values = yaml.safe_load(VAULT.decrypt(self.secrets.read_bytes()))
        return Ca(**{field: values.get(name, "") for name, field in KEPT.items()})

    def keep(self, ca: Ca) -> None:
        values = {name: getattr(ca, field) for name, field in KEPT.items() if getattr(ca, field)}
        self.secrets.write_bytes(VAULT.encrypt(yaml.safe_dump(values)))

    def take_away(self) -> Path:
        safe = self.path / "safe"
        self.root_file.rename(safe)
        return safe

    def chain(self) -> str:
        return (self.store / "edge" / "fullchain.pem").read_text()

    def serial(self) -> str:
        return f"{_internal_ca.entry_of(self.chain(), 'x').serial:X}"

    def verified(self) -> bool:
        """As a client sees it that has the root and the lists of the host."""
        files = ["-CAfile", "ca.pem", "-crl_check_all", "-CRLfile", "crl.pem", "-untrusted", "certificates/edge/fullchain.pem"]
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *files, "certificates/edge/fullchain.pem"]
        return subprocess.run(command, cwd=self.host, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session", name="built")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site after its first run."""
    path = tmp_path_factory.mktemp("site")
    site = Site(path)
    assert site.run(check=True)["issued"] == {"edge": "there is none"}
    assert not any(file.exists() for file in (site.secrets, site.root_file, site.people, site.store))
    output = site.play("-vvv", "--diff")
    assert "+issued" in output
    assert "Move it to two places offline" in output
    secret = [site.kept().key, yaml.safe_load(VAULT.decrypt(site.root_file.read_bytes()))["internal_ca_root_key"]]
    lines = [line for key in secret for line in key.splitlines() if not line.startswith("-----")]
    assert [line for line in lines if line in output] == []
    return path


@pytest.fixture(name="site")
def _site(built: Path, tmp_path: Path) -> Site:
    path = tmp_path / "site"
    shutil.copytree(built, path, symlinks=True)
    return Site(path)


def test_the_first_run(site: Site) -> None:
    assert site.verified()
    assert site.root_file.stat().st_mode & 0o777 == 0o600
    assert site.root_file.read_bytes().startswith(b"$ANSIBLE_VAULT;")
    assert site.people.read_text() == (site.host / "ca.pem").read_text() == site.kept().root
    (issuing, leaf) = _internal_ca.ledger(site.kept().issued)
    assert (issuing.owner, leaf.owner, leaf.names) == ("issuing-ca", "records/edge", ("records.test",))
    # The root's key is nowhere but in its own file.
    assert "internal_ca_root_key" not in VAULT.decrypt(site.secrets.read_bytes()).decode()


def test_the_second_run_needs_no_root_and_changes_nothing(site: Site) -> None:
    site.take_away()
    before = site.secrets.read_bytes()
    for check in (False, True):
        done = site.run(check=check)
        assert (done["changed"], done["issued"], done["changed_units"], done["warned"]) == (False, {}, [], "")
    assert site.secrets.read_bytes() == before


@pytest.mark.parametrize("name", ["ca.pem", "crl.pem"])
def test_what_a_host_lost_is_put_back(site: Site, name: str) -> None:
    right = (site.host / name).read_text()
    (site.host / name).unlink()
    assert site.run(check=True)["changed"] is True
    assert not (site.host / name).exists()
    done = site.run()
    assert (done["changed"], done["issued"]) == (True, {})
    assert (site.host / name).read_text() == right


def test_validation_tells_before_a_run_would_fail(site: Site) -> None:
    secrets = SecretsFile(str(site.secrets), VAULT)
    policy = Policy("x", ["records.test"], 180 * DAY, 120 * DAY)

    def problem(*hosts: str, at: datetime.datetime = NOW) -> str:
        return Keeper(secrets, "", str(site.people), policy, at, check=True).problem(hosts)

    before = site.secrets.read_bytes()
    now = datetime.datetime.now(datetime.UTC)
    assert problem("new.test", at=now) == "", "the root is here"
    site.take_away()
    assert problem("records.test", at=now) == ""
    assert "may not sign for new.test" in problem("new.test", at=now)
    assert "the issuing CA ended" in problem("records.test", at=now + 2000 * DAY)
    assert "correct the controller's clock" in problem("records.test", at=now - DAY)
    site.people.write_text(_internal_ca.create_root("x", NOW).certificate)
    assert "is not the root certificate of the CA" in problem("records.test", at=now)
    assert site.secrets.read_bytes() == before


def test_a_name_beyond_the_permitted_ones_is_refused_with_what_to_write(site: Site) -> None:
    before = site.secrets.read_bytes()
    certificate = {"name": "edge", "hosts": ["records.test", "other.example", "8.8.8.8"]}
    message = site.refused(certificates=[certificate])
    assert "'other.example' is not among the names that this CA is for; add it to certificates_ca_permitted_names" in message
    assert "'8.8.8.8'" in message and "records.test" not in message.replace("'records.test'", "")
    assert site.secrets.read_bytes() == before


def test_another_domain_needs_the_root_once(site: Site) -> None:
    certificate = {**site.options()["certificates"][0], "hosts": ["records.example"]}
    asked = {"certificates": [certificate], "permitted_names": ["records.example"]}
    safe = site.take_away()
    message = site.refused(**asked)
    assert "may not sign for records.example, only for records.test" in message
    assert f"Bring the file of the root's key back to {site.root_file}" in message
    old = site.kept()
    safe.rename(site.root_file)
    # As media without permissions leave it.
    site.root_file.chmod(0o644)
    done = site.run(**asked)
    assert site.root_file.stat().st_mode & 0o777 == 0o600
    assert done["issued"] == {"edge": "it is not from the issuing CA"}
    assert site.kept().root == old.root and site.kept().certificate != old.certificate
    assert site.verified()
    site.take_away()
    assert site.run(**asked)["changed"] is False


def test_a_leaf_is_revoked_and_replaced_in_one_run(site: Site) -> None:
    site.take_away()
    serial, chain = site.serial(), site.chain()
    done = site.run(revoked=[serial])
    assert done["issued"] == {"edge": "it is revoked"} and done["warned"] == ""
    assert site.verified() and site.chain() != chain
    (site.store / "edge" / "fullchain.pem").write_text(chain)
    assert not site.verified()
    (site.store / "edge" / "fullchain.pem").unlink()
    site.run(revoked=[serial])
    assert site.run(revoked=[serial])["changed"] is False


def test_what_is_wrong_with_a_list_of_revoked_ones(site: Site) -> None:
    site.take_away()
    message = site.refused(revoked=["records.test"])
    assert "'records.test' is in certificates_revoked and gets no certificate" in message
    message = site.refused(revoked=["!"])
    assert "neither a serial number" in message
    done = site.run(revoked=["00112233445566778899"])
    assert "no valid certificate with the serial number 00112233445566778899 was issued here" in done["warned"]


def test_a_revoked_issuing_ca_needs_the_root(site: Site) -> None:
    serial = f"{_internal_ca.entry_of(site.kept().certificate, 'x').serial:x}"
    safe = site.take_away()
    assert "the issuing CA is in certificates_revoked" in site.refused(revoked=[serial])
    safe.rename(site.root_file)
    site.run(revoked=[serial])
    assert site.verified()


def aged(site: Site, age: datetime.timedelta) -> tuple[Root, Ca]:
    """Put a CA in the site's place that was made so long ago."""
    made = NOW - age
    policy = Policy("aged CA", ["records.test"], 180 * DAY, 120 * DAY)
    root = _internal_ca.create_root("aged CA", made)
    ca = _internal_ca.renew(Ca(), root, policy, [], made)
    site.keep(ca)
    site.people.unlink()
    site.root_file.write_bytes(VAULT.encrypt(yaml.safe_dump(
        {"internal_ca_root_key": root.key, "internal_ca_root_certificate": root.certificate}
    )))  # fmt: skip
    return root, ca


def test_an_issuing_ca_that_is_about_to_end_is_asked_for_and_renewed(site: Site) -> None:
    _root, ca = aged(site, 1500 * DAY)
    safe = site.take_away()
    done = site.run()
    assert f"the issuing CA ends on {_internal_ca.end_of_issuing(ca):%Y-%m-%d}. Bring the file of the root's key back" in done["warned"]
    assert site.kept().certificate == ca.certificate
    safe.rename(site.root_file)
    done = site.run()
    assert site.kept().certificate != ca.certificate
    assert done["issued"] == {"edge": "it is not from the issuing CA"}
    assert "ends on" not in done["warned"]
    assert site.verified()


def test_an_issuing_ca_that_has_ended_stops_the_run(site: Site) -> None:
    aged(site, 1900 * DAY)
    site.take_away()
    message = site.refused()
    assert "the issuing CA ended on" in message and "correct the controller's clock" in message


def test_another_root_is_not_taken_for_the_right_one(site: Site) -> None:
    aged(site, DAY)
    right = site.root_file.read_bytes()
    site.run()
    root = _internal_ca.create_root("x", NOW)
    values = {"internal_ca_root_key": root.key, "internal_ca_root_certificate": root.certificate}
    site.root_file.write_bytes(VAULT.encrypt(yaml.safe_dump(values)))
    message = site.refused(permitted_names=["records.test", "new.test"])
    assert f"{site.root_file}: it is the root of another CA" in message
    site.root_file.write_bytes(right.replace(b"$ANSIBLE_VAULT", b"no vault"))
    message = site.refused(permitted_names=["records.test", "new.test"])
    assert "ca-root.yml is not encrypted. Run ansible-vault encrypt" in message


def test_secrets_of_before_the_ca_do_not_bring_a_new_root(site: Site) -> None:
    site.take_away()
    site.secrets.write_bytes(VAULT.encrypt("token: canary\n"))
    message = site.refused()
    assert f"{site.people} is not the root certificate of the CA in {site.secrets}" in message
    assert not site.root_file.exists()
    # With the root at hand nothing is lost: there is a new issuing CA, and clients see no change.
    (site.path / "safe").rename(site.root_file)
    before = site.people.read_text()
    done = site.run()
    assert done["issued"] == {"edge": "it is not from the issuing CA"}
    assert site.people.read_text() == before and site.verified()


def test_secrets_of_before_the_last_issuing_ca_are_refused(site: Site) -> None:
    older = site.secrets.read_bytes()
    site.run(permitted_names=["records.test", "new.test"])
    assert site.secrets.read_bytes() != older
    chain = site.chain()
    # The one of the copy is older by definition; here it was made in the same minute.
    values = site.kept()
    root = yaml.safe_load(VAULT.decrypt(site.root_file.read_bytes()))
    past = NOW - 2 * DAY
    policy = Policy("x", ["records.test"], 180 * DAY, 120 * DAY)
    site.take_away()
    aged_ca = _internal_ca.renew(Ca(), Root(root["internal_ca_root_key"], values.root), policy, [], past)
    site.keep(aged_ca)
    message = site.refused()
    assert "The host has certificates of a newer issuing CA" in message and "Restore the newest one" in message
    assert site.chain() == chain
    # The way out when the newest is lost.
    site.keep(aged_ca._replace(key="", certificate=""))
    (site.path / "safe").rename(site.root_file)
    site.run()
    assert site.verified()


def test_secrets_of_before_the_last_revocation_catch_up(site: Site) -> None:
    site.take_away()
    older, serial = site.secrets.read_bytes(), site.serial()
    site.run(revoked=[serial])
    site.secrets.write_bytes(older)
    done = site.run()
    assert "was an older copy: its revocation lists are made up from the host's" in done["warned"]
    assert "it did not know the certificates edge" in done["warned"]
    assert done["issued"] == {}
    assert site.verified()
    assert int(serial, 16) in {entry.serial_number for crl in _internal_ca._lists((site.host / "crl.pem").read_text()) for entry in crl}
    done = site.run()
    assert (done["changed"], done["warned"]) == (False, "")


def test_without_a_vault_password_nothing_is_made(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.password = False
    message = site.refused()
    assert "no vault password was given" in message
    assert not any(file.exists() for file in (site.secrets, site.root_file, site.people, site.store))


def test_hosts_of_one_run_agree_on_one_ca(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "hosts.yml").write_text("all: {hosts: {a: {}, b: {}, c: {}}, vars: {ansible_connection: local}}\n")
    changes = {key: f"{site.host}-{{{{ inventory_hostname }}}}/{value}" for key, value in
               {"store": "certificates", "ca_file": "ca.pem", "crl_file": "crl.pem"}.items()}  # fmt: skip
    site.play(**changes)
    roots = {(tmp_path / f"host-{name}" / "ca.pem").read_text() for name in "abc"}
    assert roots == {site.people.read_text()}
    assert sorted(entry.owner for entry in _internal_ca.ledger(site.kept().issued)) == ["a/edge", "b/edge", "c/edge", "issuing-ca"]


def test_a_run_that_was_cut_off_after_the_root_goes_on_with_it(site: Site) -> None:
    root = site.root_file.read_bytes()
    site.secrets.unlink()
    site.people.unlink()
    site.run()
    assert site.root_file.read_bytes() == root
    assert site.verified()
