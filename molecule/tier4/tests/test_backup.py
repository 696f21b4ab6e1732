# SPDX-License-Identifier: GPL-3.0-or-later
"""The backups of the site, as the tier makes them without anybody's further doing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import testinfra

from tools import scan

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
testinfra_hosts = ["ansible://servers"]


def kept(vault, server):
    found = json.loads(vault.run("civitas-store status --json").stdout)
    assert found["problems"] == []
    return found["hosts"][server]["sets"]


def test_the_first_set_came_with_the_site(host, vault):
    """Before the first night, and with all that roles declare."""
    server = host.backend.get_hostname()
    first = kept(vault, server)[0]
    assert first["good"] and first["failures"] == [] and first["warnings"] == []
    manifest = json.loads(vault.check_output(f"cat /srv/backup/hosts/{server}/sets/{first['set']}/manifest.json"))
    assert {(source["kind"], source["name"]) for source in manifest["sources"]} == {("postgres", "main"), ("files", "settings")}
    databases = {database["name"] for source in manifest["sources"] if source["kind"] == "postgres" for database in source["databases"]}
    assert databases == {"kinto"}
    assert manifest["recipients"] == [(DIRECTORY / "recipient").read_text().strip()]
    assert "15 days" in vault.check_output("cat /etc/civitas/store.json")
    assert host.service("civitas-backup.timer").is_enabled and host.service("civitas-backup.timer").is_running
    assert host.run("civitas-backup status").rc == 0
    assert first["set"] in host.check_output("journalctl -u civitas-backup -o cat")


def test_only_the_server_reaches_the_store(host, vault):
    """And the store is nobody's way in: neither the bastion nor whoever else is on the network."""
    addresses = json.loads((DIRECTORY / "addresses.json").read_text())
    address = addresses[vault.backend.name]
    assert [port for port, answer in scan.scan("", address, range(1, 65536)).items() if answer == "open"] == []
    ask = "timeout 5 bash -c 'exec 3<>/dev/tcp/%s/2022 && head -c 4 <&3'"
    assert host.run(ask, address).stdout == "SSH-"
    for group in ("bastion", "monitoring"):
        other = testinfra.get_host(f"docker://{host.ansible.get_variables()['groups'][group][0]}")
        assert other.run(ask, address).rc != 0, group


def test_keys_are_written_down_where_people_prove_sets(host, vault):
    lines = (DIRECTORY / "backup-keys.txt").read_text().splitlines()
    server, store = host.backend.get_hostname(), vault.backend.name
    assert [line.split()[:2] for line in lines] == [
        [server, 'namespaces="civitas-transfer"'],
        [server, 'namespaces="civitas-backup"'],
        [store, 'namespaces="civitas-store"'],
    ]
    signer = host.check_output("cut -d' ' -f1,2 /etc/civitas/backup/signing.pub")
    assert lines[1].endswith(signer)
    set_id = kept(vault, server)[-1]["set"]
    place = f"/srv/backup/hosts/{server}/sets/{set_id}"
    with vault.sudo():
        vault.check_output("printf '%%s\\n' %s > /run/signers", lines[1])
        proof = f"ssh-keygen -Y verify -f /run/signers -I {server} -n civitas-backup -s {place}/manifest.json.sig < {place}/manifest.json"
        assert vault.run(proof).rc == 0


def test_who_keeps_them_judges_itself(vault):
    """It is too small for more."""
    config = json.loads(vault.check_output("cat /etc/civitas/alerts.json"))
    assert {"StoreBackupOld", "StoreBackupBad", "StoreFull", "DiskHalfFull"} <= {rule["name"] for rule in config["rules"]}
    assert vault.run("civitas-alerts status").rc == 0, vault.run("civitas-alerts status").stdout
    assert "node_exporter" not in vault.check_output("ps -eo args")
