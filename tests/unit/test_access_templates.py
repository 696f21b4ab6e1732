# SPDX-License-Identifier: GPL-3.0-or-later
"""The way in as each platform gets it, the ones included that cannot be run here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "access"
PLATFORMS = sorted(path.stem for path in (ROLE / "vars").glob("[A-Z]*.yml"))
OURS, EXCEPTIONS, PAM = "sshd_config.d/00-civitas.conf", "sshd_config.d/99-civitas-match.conf", "pam.d/sshd"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl someone"
GIVEN = {
    "access_people": [],
    "access_automation": {"name": "deploy", "ssh_keys": [KEY], "from": ["192.0.2.0/28", "2001:db8::/64"]},
    "inventory_dir": "/nowhere",
}

PLAY = """
- hosts: all
  gather_facts: false
  vars_files:
    - "{{ role }}/defaults/main.yml"
    - "{{ role }}/vars/main.yml"
    - "{{ role }}/vars/{{ inventory_hostname }}.yml"
    - "{{ out }}/given.json"
  tasks:
    - ansible.builtin.copy:
        content: >-
          {%- set files = {} -%}
          {%- set base = role ~ '/templates/root/etc/' -%}
          {%- set first = role ~ '/templates/bootstrap/etc/' -%}
          {%- for source in query('fileglob', base ~ 'ssh/sshd_config.d/*.j2', base ~ 'pam.d/*.j2', first ~ 'ssh/sshd_config.d/*.j2') -%}
          {%- set name = (source.split('/')[-2:] | join('/')) | regex_replace('[.]j2$', '') -%}
          {%- set _ = files.update({name: lookup('ansible.builtin.template', source)}) -%}
          {%- endfor -%}
          {{ files | to_json }}
        dest: "{{ out }}/{{ inventory_hostname }}.json"
"""


@pytest.fixture(name="rendered", scope="module")
def _rendered(tmp_path_factory):
    """A function from values of the role's variables to (platform, file) -> text."""

    def render(**given):
        folder = tmp_path_factory.mktemp("access")
        (folder / "given.json").write_text(json.dumps({**GIVEN, **given}), encoding="utf-8")
        (folder / "play.yml").write_text(PLAY, encoding="utf-8")
        (folder / "inventory").write_text("".join(f"{name} ansible_connection=local\n" for name in PLATFORMS), encoding="utf-8")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "inventory"), str(folder / "play.yml"),
             "-e", json.dumps({"role": str(ROLE), "out": str(folder), "ansible_python_interpreter": sys.executable})],
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1"},
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in PLATFORMS}
        return {(name, file): text for name, files in found.items() for file, text in files.items()}

    return render


@pytest.fixture(name="usual", scope="module")
def _usual(rendered):
    return rendered()


@pytest.fixture(name="other", scope="module")
def _other(rendered):
    return rendered(
        access_ssh_profile="strict",
        access_second_factor_grace_until="2027-01-31",
        access_permit_root_automation=True,
        access_automation={**GIVEN["access_automation"], "name": "root"},
        access_penalty_exempt=["192.0.2.0/28"],
        access_announce=True,
    )


def lines(text):
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_keyword_is_written_that_the_release_does_not_know(usual, platform):
    text = usual[platform, OURS]
    # OpenSSH 8.9, 9.2, 9.6, 10.0
    assert ("RequiredRSASize 3072" in text) is (platform != "Ubuntu_22")
    assert ("PerSourcePenaltyExemptList" in text) is (platform == "Debian_13")
    assert ("mlkem768x25519-sha256" in text) is (platform == "Debian_13")
    assert "KexAlgorithms sntrup761" in text or "KexAlgorithms mlkem768" in text


def test_everybody_behind_a_bastion_is_exempt_and_so_is_the_host(other):
    assert "PerSourcePenaltyExemptList 127.0.0.1,::1,192.0.2.0/28" in lines(other["Debian_13", OURS])


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_strict_profile_has_only_what_a_quantum_computer_does_not_break(other, platform):
    (kex,) = re.findall(r"(?m)^KexAlgorithms (.*)$", other[platform, OURS])
    assert all(name.startswith(("sntrup761", "mlkem768")) for name in kex.split(","))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_no_keyword_is_written_twice(usual, platform):
    keywords = [line.split()[0] for line in lines(usual[platform, OURS])]
    assert sorted({word for word in keywords if keywords.count(word) > 1}) == ["HostKey"]


def test_exceptions_end_with_everybody(usual, other):
    for texts in (usual, other):
        assert lines(texts["Debian_13", EXCEPTIONS])[-1] == "Match all"
    assert "Match" not in usual["Debian_13", OURS].replace("99-civitas-match.conf", "")


def test_a_person_is_not_excepted_by_another_group(usual):
    assert "Match Group civitas-automation,civitas-breakglass,!civitas-people" in lines(usual["Debian_13", EXCEPTIONS])


def test_root_gets_in_only_as_the_automation_and_from_its_addresses(usual, other):
    assert "root" not in usual["Debian_13", EXCEPTIONS]
    assert "Match User root Address 192.0.2.0/28,2001:db8::/64" in lines(other["Debian_13", EXCEPTIONS])
    for texts in (usual, other):
        assert "PermitRootLogin no" in lines(texts["Debian_13", OURS])


def test_pam_asks_for_the_code_and_never_says_nullok(usual, other, rendered):
    off = rendered(access_second_factor=False)
    for texts in (usual, other, off):
        assert "nullok" not in texts["Debian_13", PAM]
        assert "@include common-auth" not in lines(texts["Debian_13", PAM])
    assert [line for line in lines(off["Debian_13", PAM]) if line.startswith("auth")] == ["auth     required  pam_deny.so"]
    assert lines(usual["Debian_13", PAM])[0].startswith("auth     required  pam_google_authenticator.so user=root ")
    assert lines(other["Debian_13", PAM])[0].endswith("pam_exec.so quiet /usr/local/lib/civitas/second-factor-grace")
    assert any("civitas-logins pam" in line for line in lines(other["Debian_13", PAM]))
    assert "AuthenticationMethods publickey" in lines(off["Debian_13", OURS])


def test_what_lets_the_automation_in_for_the_first_run_is_taken_away_by_it(rendered):
    """Its keys count beside those of the provider, and nobody else's."""
    names = [path.relative_to(ROLE / "templates/bootstrap") for path in (ROLE / "templates/bootstrap").rglob("*.j2")]
    (tree,) = [task["civitas.hosting.config_tree"] for task in yaml.safe_load((ROLE / "tasks/sshd.yml").read_text(encoding="utf-8"))[:1]]
    assert tree["absent"] == [str(name)[: -len(".j2")] for name in names] == ["etc/ssh/sshd_config.d/01-civitas-bootstrap.conf"]
    bootstrap = rendered(access_people=[{"name": "ann", "ssh_keys": [KEY]}])["Debian_13", "sshd_config.d/01-civitas-bootstrap.conf"]
    assert lines(bootstrap) == [
        "Match User deploy",
        "    AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 /etc/ssh/civitas/keys/%u",
        "Match all",
    ]
