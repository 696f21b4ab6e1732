# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivered pairs are served, keys are where they belong only, and the watch measures them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

STORE = "/etc/civitas/certificates"
PKI = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "pki"


def test_all_endpoints_present_their_certificates(host):
    said = host.run("civitas-certificates status")
    assert said.rc == 0, said.stdout + said.stderr
    for place in (
        "edge: 127.0.0.1:443 as records.test",
        "edge: 127.0.0.2:443 as any.records.test",
        "database: 127.0.0.1:5432 as database.internal",
        "container: file",
    ):
        assert f"{place}, 300.0 days left" in said.stdout or f"{place}, 299.9 days left" in said.stdout, said.stdout


@pytest.mark.parametrize(("name", "owner"), [("edge", "root"), ("database", "postgres"), ("container", "root")])
def test_keys_are_for_their_owners_only(host, name, owner):
    assert host.check_output(f"stat --dereference --format '%U %a' {STORE}/{name}/key.pem") == f"{owner} 600"


def test_a_disordered_delivery_is_served_in_order(host):
    shown = host.check_output(
        "echo | openssl s_client -connect 127.0.0.1:443 -servername records.test -verify_hostname records.test -CAfile /srv/pki/root.pem"
        " -verify_return_error -brief 2>&1"
    )
    assert "Verification: OK" in shown


def test_no_key_is_anywhere_else(host):
    for key in ("sent", "database", "container"):
        line = (PKI / f"{key}.key").read_text().splitlines()[1]
        assert len(line) == 64
        found = host.run(f"grep -rlF '{line}' /etc /root /var/lib /var/log /tmp /home /run --exclude-dir docker").stdout.split()
        assert all(path.startswith(f"{STORE}/") for path in found), found


def test_the_watch_runs_and_leaves_its_results(host):
    assert host.service("civitas-certificates-watch.timer").is_running
    assert host.service("civitas-certificates-watch.timer").is_enabled
    host.check_output("systemctl start civitas-certificates-watch.service")
    assert json.loads(host.file("/var/lib/civitas/certificates/watch.json").content_string)["ok"] is True
    metrics = host.file("/var/lib/civitas/metrics/certificates.prom")
    assert metrics.mode == 0o644
    assert metrics.content_string.count("civitas_certificate_served{") == 4
    assert 'civitas_certificate_served{name="edge",place="127.0.0.1:443 as records.test"} 1' in metrics.content_string
