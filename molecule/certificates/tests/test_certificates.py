# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs that verify, keys that only their owners read, a CA key that no host has."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

STORE = "/etc/civitas/certificates"


@pytest.mark.parametrize(
    ("name", "hostname", "good"),
    [
        ("edge", "records.test", True),
        ("edge", "any.records.test", True),
        ("edge", "other.test", False),
        ("database", "database.internal", True),
        ("database", "records.test", False),
    ],
)
def test_openssl_on_the_host_accepts_the_declared_names_only(host, name, hostname, good):
    verify = "openssl verify -x509_strict -purpose sslserver -CAfile /etc/civitas/ca.pem"
    assert (host.run(f"{verify} -verify_hostname {hostname} {STORE}/{name}/fullchain.pem").rc == 0) is good


@pytest.mark.parametrize(("name", "group", "mode"), [("edge", "root", 0o600), ("database", "www-data", 0o640)])
def test_keys_belong_to_their_certificates_and_owners(host, name, group, mode):
    state = host.check_output(f"stat --dereference --format '%U %G %a' {STORE}/{name}/key.pem")
    assert state == f"root {group} {mode:o}"
    public = host.check_output(f"openssl pkey -in {STORE}/{name}/key.pem -pubout")
    assert host.check_output(f"openssl x509 -in {STORE}/{name}/fullchain.pem -noout -pubkey") == public


def test_no_abandoned_generation_is_left(host):
    links = host.check_output(f"find {STORE} -maxdepth 1 -type l -printf '%l\\n'").split()
    generations = host.check_output(f"find {STORE}/.generations -mindepth 1 -maxdepth 1 -printf '.generations/%f\\n'").split()
    assert sorted(links) == sorted(generations)


def test_the_ca_key_is_only_in_the_encrypted_file_of_the_controller(host):
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    secrets = directory / "secrets.yml"
    assert secrets.read_text().startswith("$ANSIBLE_VAULT;")
    assert secrets.stat().st_mode & 0o077 == 0
    plain = subprocess.run(["ansible-vault", "view", str(secrets)], capture_output=True, text=True, check=True).stdout
    # The first line of a key in PEM is the same for all keys of its type.
    line = plain.split("BEGIN PRIVATE KEY-----")[1].split("-----END")[0].split()[1]
    assert len(line) == 64
    assert host.run(f"grep -rqF '{line}' /etc /root /var/lib /var/log /tmp /home").rc == 1


def test_people_get_the_ca_certificate_on_the_controller(host):
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    assert (directory / "ca.pem").read_text().strip() == host.file("/etc/civitas/ca.pem").content_string.strip()
