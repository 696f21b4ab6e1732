# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in and what they may do there, asked of the real server, of sudo and of PAM. Before and after all that the side effects do."""

from __future__ import annotations

import json

import pytest

SSH = (
    "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    " -o ControlPath=none -o IdentitiesOnly=yes -i /root/keys/%s %s@127.0.0.1 %s"
)
ADMINS = ("amina", "gina", "eve")


def login(host, name, command="id -un", key=""):
    return host.run(SSH, key or name, name, command)


@pytest.mark.parametrize("name", ["amina", "ben", "eve", "frank", "gina", "hugo", "ines", "ubuntu", "deploy"])
def test_who_is_listed_gets_in(host, name):
    assert login(host, name).stdout == f"{name}\n"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("carla", "carla"),  # expired today
        ("dede", "dede"),  # from another network
        ("glass", "glass"),
        ("amina", "ben"),
        ("amina", "amina2"),
        ("root", "amina"),
        ("stranger", "stranger"),  # in their own home only
        ("keyless", "amina"),
        ("never", "amina"),
    ],
)
def test_nobody_else_does(host, name, key):
    done = login(host, name, key=key)
    assert done.rc == 255
    assert done.stdout == ""


def test_the_expired_account_is_refused_for_its_date_and_not_for_its_key(host):
    login(host, "carla")
    host.check_output("journalctl --sync")
    log = host.check_output("journalctl --quiet --no-pager --grep 'carla.*expired'")
    assert "account carla has expired" in log


@pytest.mark.parametrize("name", ADMINS)
def test_administrators_are_root_without_a_password(host, name):
    assert login(host, name, "sudo -n id -un").stdout == "root\n"


def test_automation_is_root_without_a_password(host):
    assert login(host, "deploy", "sudo -n id -un").stdout == "root\n"


@pytest.mark.parametrize("name", ["ben", "ines", "ubuntu"])
def test_operators_run_exactly_their_commands(host, name):
    assert login(host, name, "sudo -n id").stdout.startswith("uid=0(root)")
    for refused in ("sudo -n id -un", "sudo -n journalctl --no-pager", "sudo -n sh", "sudo -n -u ben true", "sudo -n cat /etc/shadow"):
        done = login(host, name, refused)
        assert done.rc == 1, refused
        assert done.stdout == ""
    assert "(root) NOPASSWD: /usr/bin/id" in login(host, name, "sudo -n -l").stdout


@pytest.mark.parametrize("name", ["frank", "hugo"])
def test_users_have_no_sudo(host, name):
    done = login(host, name, "sudo -n id")
    assert done.rc == 1
    assert done.stdout == ""


def test_what_is_run_with_sudo_is_logged(host):
    login(host, "amina", "sudo -n /bin/echo canary-of-a-command")
    login(host, "hugo", "echo guess | sudo -S /bin/echo canary-of-a-refusal")
    host.check_output("journalctl --sync")
    log = host.check_output("journalctl --quiet --no-pager _COMM=sudo")
    assert "amina : " in log
    assert "COMMAND=/bin/echo canary-of-a-command" in log
    assert any(" hugo : " in line and "COMMAND=/bin/echo canary-of-a-refusal" in line for line in log.splitlines())


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("amina", {"civitas-people", "civitas-admins"}),
        ("ben", {"civitas-people", "civitas-operators"}),
        ("eve", {"civitas-people", "civitas-admins", "adm"}),
        ("frank", {"civitas-people", "civitas-no-second-factor"}),
        ("gina", {"civitas-people", "civitas-admins", "civitas-no-second-factor"}),
        ("hugo", {"civitas-people"}),
        ("ines", {"civitas-people", "civitas-operators"}),
        ("ubuntu", {"civitas-people", "civitas-operators"}),
        ("deploy", {"civitas-automation"}),
        ("glass", {"civitas-breakglass"}),
        ("stranger", {"sudo"}),
    ],
)
def test_groups_are_those_of_the_inventory(host, name, groups):
    assert set(host.user(name).groups) - {name} == groups


def test_nobody_is_in_the_group_docker(host):
    assert host.group("docker").members == []


@pytest.mark.parametrize("name", ["keyless", "never"])
def test_who_has_no_way_in_has_no_account(host, name):
    assert not host.user(name).exists


def test_keys_are_roots_alone(host):
    assert host.check_output("stat --format '%a %U:%G' /etc/ssh/civitas /etc/ssh/civitas/keys") == "755 root:root\n755 root:root"
    assert set(host.check_output("stat --format '%a %U:%G' /etc/ssh/civitas/keys/*").split("\n")) == {"644 root:root"}
    lines = host.file("/etc/ssh/civitas/keys/deploy").content_string.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith('from="127.0.0.1" ssh-ed25519 ')
    assert lines[1].endswith(" deploy@laptop")


def test_no_password_gets_anybody_in(host):
    shadow = host.check_output("cut --delimiter : --fields 1,2 /etc/shadow").splitlines()
    assert [line for line in shadow if line.split(":")[1][:1] not in ("!", "*")] == []
    assert host.check_output("chage --list ubuntu | grep '^Password expires'").endswith("never")


def test_what_the_installer_gave_is_gone(host):
    assert not host.file("/etc/sudoers.d/90-cloud-init-users").exists
    host.check_output("visudo --check")


def test_homes_are_private(host):
    assert set(host.check_output("stat --format %a /home/c*").split("\n")) == {"700"}


def test_the_ledger_knows_who_was_made(host):
    ledger = json.loads(host.file("/var/lib/civitas/access/people.json").content_string)["accounts"]
    assert "stranger" not in ledger
    assert ledger["amina"] == {"kind": "person", "uid": host.user("amina").uid}
    assert ledger["deploy"]["kind"] == "automation"
    assert len([name for name in ledger if name.startswith("c")]) == 39
