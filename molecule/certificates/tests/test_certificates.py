# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs that verify, and keys that only their owners read."""

from __future__ import annotations

import os
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
    chain = f"{STORE}/{name}/fullchain.pem"
    verify = f"openssl verify -x509_strict -purpose sslserver -CAfile /etc/civitas/ca.pem -untrusted {chain}"
    assert (host.run(f"{verify} -verify_hostname {hostname} {chain}").rc == 0) is good


@pytest.mark.parametrize(("name", "group", "mode"), [("edge", "root", 0o600), ("database", "www-data", 0o640)])
def test_keys_belong_to_their_certificates_and_owners(host, name, group, mode):
    state = host.check_output(f"stat --dereference --format '%U %G %a' {STORE}/{name}/key.pem")
    assert state == f"root {group} {mode:o}"
    public = host.check_output(f"openssl pkey -in {STORE}/{name}/key.pem -pubout")
    assert host.check_output(f"openssl x509 -in {STORE}/{name}/fullchain.pem -noout -pubkey") == public


def test_no_abandoned_generation_is_left(host):
    used = host.check_output(f"find {STORE} -mindepth 2 -maxdepth 2 -name current -printf '%h/%l\\n'").split()
    generations = host.check_output(f"find {STORE} -mindepth 3 -maxdepth 3 -path '*/.generations/*' -type d").split()
    assert sorted(used) == sorted(generations)
    assert len(used) == 2


def test_people_get_the_ca_certificate_on_the_controller(host):
    directory = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    assert (directory / "ca.pem").read_text().strip() == host.file("/etc/civitas/ca.pem").content_string.strip()
