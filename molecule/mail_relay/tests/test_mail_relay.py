# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail leaves, nobody else's does, and nobody reads the login."""

from __future__ import annotations

import socket

import pytest


def test_test_messages_arrive(host):
    said = host.run("civitas-mail test")
    assert (said.rc, said.stdout.split("\n")[:2]) == (0, ["mail: taken", "webhook: taken"]), said
    assert host.run("tail -n 1 /srv/sink/chat.jsonl | grep -F '/hooks/canary-webhook-token'").rc == 0


@pytest.mark.parametrize("command", ["status", "check", "dkim"])
def test_all_is_well(host, command):
    said = host.run(f"civitas-mail {command}")
    assert said.rc == 0, said.stdout + said.stderr


@pytest.mark.parametrize("unit", ["postfix.service", "civitas-dkim.service", "civitas-mail.timer"])
def test_units_run_and_start_at_boot(host, unit):
    assert host.service(unit).is_running
    assert host.service(unit).is_enabled


def test_it_listens_for_its_clients_only(host):
    listening = host.check_output("ss -Hltn 'sport = :25 or sport = :465 or sport = :587'").splitlines()
    assert sorted(line.split()[3] for line in listening) == ["127.0.0.1:25", "127.0.0.2:587", "172.30.0.1:25"]


def test_the_outside_does_not_reach_it(host):
    address = host.check_output("hostname -I").split()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 25), timeout=10)


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/postfix/login", 0o600),
        ("/etc/civitas/mail.json", 0o600),
        ("/etc/postfix/main.cf", 0o644),
        ("/usr/local/sbin/civitas-mail", 0o755),
        ("/var/lib/civitas/metrics/mail.prom", 0o644),
    ],
)
def test_only_root_writes_and_reads_secrets(host, path, mode):
    found = host.file(path)
    assert (found.user, found.group, found.mode) == ("root", "root", mode)


@pytest.mark.parametrize(
    ("secret", "place"), [("canary-smtp-password", "/etc/postfix/login"), ("canary-webhook-token", "/etc/civitas/mail.json")]
)
def test_secrets_are_in_one_file_only(host, secret, place):
    found = host.run(f"grep -rlF {secret} /etc /root /home /run /tmp /usr/local /var/lib /var/log /var/spool").stdout.split()
    assert found == [place], found
    assert host.run(f"journalctl --no-pager | grep -F {secret}").stdout == ""


def test_the_key_is_the_signers_alone(host):
    (path,) = host.check_output("ls /var/lib/civitas/dkim/*.pem").split()
    found = host.file(path)
    assert (found.user, found.group, found.mode) == ("opendkim", "opendkim", 0o600)
    line = found.content_string.splitlines()[5]
    assert host.run(f"grep -rlF -e {line} /etc /root /home /run /tmp /usr/local /var/lib /var/log /var/spool").stdout.split() == [path]
    assert host.run(f"journalctl --no-pager | grep -F -e {line}").stdout == ""
    assert host.run("runuser -u www-data -- ls /var/lib/civitas/dkim /run/civitas-dkim").rc != 0


def test_the_distributions_signer_stays_off(host):
    assert host.run("systemctl is-enabled opendkim.service").stdout == "masked\n"


def test_metrics_are_fresh(host):
    shown = host.file("/var/lib/civitas/metrics/mail.prom").content_string
    assert "civitas_mail_running 1\n" in shown and 'civitas_mail_queue_messages{queue="deferred"} 0\n' in shown
    assert host.run('test -n "$(find /var/lib/civitas/metrics/mail.prom -mmin -5)"').rc == 0


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --plain --no-legend") == ""
