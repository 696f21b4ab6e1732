# SPDX-License-Identifier: GPL-3.0-or-later
"""What was confirmed is there after its deadline, what was broken is as before, and nothing waits or lies about."""

from __future__ import annotations

import json

STATE = "/var/lib/civitas/revert"


def test_what_was_confirmed_stays_after_the_deadline(host):
    # The deadline was 40 seconds after the change.
    report = json.loads(host.file(f"{STATE}/last.json").content_string)
    now = int(host.check_output("date +%s"))
    if now < report["time"] + 40:
        host.check_output(f"sleep {report['time'] + 40 - now:.0f}")
    assert "logingracetime 90" in host.check_output("sshd -T").splitlines()
    assert 'comment "from before"' in host.check_output("nft list table inet civitas")
    assert "dport 22" not in host.check_output("nft list ruleset")


def test_what_was_broken_is_as_before(host):
    assert not host.file("/etc/ssh/sshd_config.d/00-nobody.conf").exists
    assert not host.file("/etc/sysctl.d/90-test.conf").exists
    assert host.check_output("sysctl -n net.ipv4.tcp_fin_timeout") == "60"
    assert "inet new" not in host.check_output("nft list tables")
    # As the package brought it.
    assert "pam.d/sshd" not in host.run("dpkg --verify openssh-server").stdout
    assert not host.check_output("find /etc -name '.civitas-*'")


def test_nothing_waits_and_no_copy_stays(host):
    assert host.run(f"test -e {STATE}/armed.json -o -e {STATE}/restoring.json -o -e {STATE}/failed.json").rc == 1
    assert sorted(host.file(STATE).listdir()) == ["changing", "last.json", "lock"]
    assert host.file(STATE).mode == 0o700
    assert host.file("/run/civitas-revert").listdir() == []
    assert host.check_output("systemctl show --property=ActiveState --value civitas-revert.service") == "inactive"


def test_the_units_are_sound_and_armed_for_the_next_boot(host):
    for unit in ("civitas-revert.service", "civitas-revert-boot.service"):
        assert host.run(f"systemd-analyze verify /etc/systemd/system/{unit}").stderr == ""
    assert host.service("civitas-revert-boot.service").is_enabled
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend 'civitas-*'") == ""
    before = host.check_output("systemctl show --property=Before --value civitas-revert-boot.service").split()
    assert {"network-pre.target", "ssh.service", "sysinit.target", "systemd-sysctl.service"} <= set(before)


def test_people_can_ask_on_the_host(host):
    told = json.loads(host.check_output("/usr/bin/python3 /usr/local/lib/civitas/revert.py status"))
    assert told["pending"] is None
    assert told["last"]["outcome"] in ("confirmed", "restored")
    assert told["last"]["problems"] == []
    if told["last"]["outcome"] == "restored":
        journal = host.check_output("journalctl --identifier=civitas-revert --output=cat --no-pager")
        assert "going back to the state of" in journal
        assert "restored /etc/ssh/sshd_config.d/00-nobody.conf" in journal
        assert "the old state is back" in journal


def test_only_root_may_look(host):
    assert host.run(f"sudo -u deploy ls {STATE}").rc != 0
