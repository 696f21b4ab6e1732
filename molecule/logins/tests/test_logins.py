# SPDX-License-Identifier: GPL-3.0-or-later
"""Who logs in is told, and nobody else learns how."""

from __future__ import annotations

import pytest


def test_test_messages_arrive(host):
    said = host.run("civitas-logins test")
    assert (said.rc, said.stdout.split("\n")[:2]) == (0, ["mail: taken", "webhook: taken"]), said
    assert host.run("tail -n 1 /srv/sink/chat.jsonl | grep -F '/hooks/canary-webhook-token'").rc == 0


def test_nothing_waits(host):
    said = host.run("civitas-logins status")
    assert said.rc == 0, said.stdout + said.stderr


@pytest.mark.parametrize("unit", ["civitas-logins.timer", "civitas-logins-digest.timer"])
def test_units_run_and_start_at_boot(host, unit):
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/civitas/logins.json", 0o600),
        ("/var/spool/civitas/logins", 0o700),
        ("/usr/local/sbin/civitas-logins", 0o755),
    ],
)
def test_only_root_reads_and_writes(host, path, mode):
    found = host.file(path)
    assert (found.user, found.group, found.mode) == ("root", "root", mode)


def test_secrets_are_in_one_file_only(host):
    for secret in ("canary-smtp-password", "canary-webhook-token"):
        found = host.run(f"grep -rlF {secret} /etc /root /home /run /tmp /usr/local /var/lib /var/log /var/spool").stdout.split()
        assert found == ["/etc/civitas/logins.json"], found
        assert host.run(f"journalctl --no-pager | grep -F {secret}").stdout == ""


def test_packages_have_their_files_as_they_were(host):
    assert host.run("dpkg --verify login util-linux libpam-runtime | grep pam.d").stdout == ""


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
