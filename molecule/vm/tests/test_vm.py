# SPDX-License-Identifier: GPL-3.0-or-later
"""What a reboot must not undo, and what only a kernel of one's own can show.

A command takes about a second there: what is only read is read by one script.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._login_probe import totp

from tools import vm

MADE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
LOGIN = vm.login(f"{os.environ.get('CIVITAS_BED_ID', 'bed')}-vm")
SERVICES = [
    "apparmor.service", "auditd.service", "chrony.service", "civitas-firewall.service", "civitas-mounts.service", "ssh.service",
    "apt-daily-upgrade.timer", "civitas-firewall-watch.timer", "logrotate.timer",
]  # fmt: skip

READ = """
section() { printf '\\n=== %s\\n' "$1"; }
section state; systemctl show --property=SystemState --value; systemctl --failed --plain --no-legend
section revert; /usr/bin/python3 -I /usr/local/lib/civitas/revert.py status
section starts
for unit in civitas-revert-boot.service civitas-firewall.service civitas-mounts.service systemd-networkd.service ssh.service; do
  systemctl show --property=Id --property=InactiveExitTimestampMonotonic --property=ActiveEnterTimestampMonotonic $unit; echo
done
section services; for unit in SERVICES; do echo $unit $(systemctl is-enabled $unit) $(systemctl is-active $unit); done
section boots; journalctl --list-boots --quiet
section firewall; nft list table inet civitas
section firewall-check; /usr/local/sbin/civitas-firewall check > /dev/null; echo $?
section sysctl-wanted; cat /etc/sysctl.d/90-civitas.conf
section sysctl-found; sysctl $(sed -n 's/^\\([a-z][^ ]*\\) = .*/\\1/p' /etc/sysctl.d/90-civitas.conf) 2>&1
section mounts; for path in /tmp /var/tmp /dev/shm; do
  echo $path $(findmnt --noheadings --output VFS-OPTIONS --mountpoint $path | tail -n 1); done
section audit-wanted; cat /etc/audit/rules.d/90-civitas.rules
section audit-found; auditctl -l
section audit-status; auditctl -s
section apparmor; cat /sys/module/apparmor/parameters/enabled; cat /proc/$(pidof -s chronyd)/attr/current
section blocked; sed -n 's/^install \\(.*\\) .bin.false$/\\1/p' /etc/modprobe.d/90-civitas.conf
section built; for name in $(sed -n 's/^install \\(.*\\) .bin.false$/\\1/p' /etc/modprobe.d/90-civitas.conf); do
  modinfo --field name $name 2> /dev/null || :; done
""".replace("SERVICES", " ".join(SERVICES))

# Everything that is watched, done once. The last one ends the wait for auditd, which writes a little later.
TOUCH = """
useradd --no-create-home audited && userdel audited
touch /etc/sudoers.d/audited && rm /etc/sudoers.d/audited
touch /etc/ssh/sshd_config.d/audited && rm /etc/ssh/sshd_config.d/audited
cat /etc/civitas/second-factor/ann > /dev/null
echo x > /etc/civitas/backup/audited && cat /etc/civitas/backup/audited > /dev/null && rm /etc/civitas/backup/audited
touch /etc/civitas/audited && rm /etc/civitas/audited
touch /etc/cron.d/audited && rm /etc/cron.d/audited
python3 -c 'import socket as s
a, b = s.socket(s.AF_UNIX), s.socket(s.AF_UNIX)
a.bind("/run/docker.sock"); a.listen(); b.connect("/run/docker.sock")'
rm /run/docker.sock
cat /etc/hostname > /dev/null
modprobe dummy && rmmod dummy
touch /etc/audit/rules.d/audited && rm /etc/audit/rules.d/audited
for n in $(seq 60); do
  ausearch --input-logs --start boot --key civitas-audit 2> /dev/null | grep --quiet rules.d/audited && break; sleep 0.5
done
ausearch --input-logs --start boot --interpret --key civitas
"""


@pytest.fixture(scope="module")
def seen(host):
    """Section -> text."""
    done = host.run("sh -c %s", READ)
    assert done.rc == 0, done.stderr
    parts = re.split(r"\n=== (.*)\n", done.stdout)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.fixture(scope="module")
def recorded(host):
    """(key, program, what it did, path) of every record; a path that is unnamed is empty."""
    found = set()
    for event in host.check_output("sh -c %s", TOUCH).split("\n----\n"):
        call = re.search(r"^type=SYSCALL .* syscall=(\S+) success=yes .* comm=(\S+) .* key=civitas-(\S+)", event, re.M)
        if call:
            found |= {(call[3], call[2], call[1], path) for path in re.findall(r"^type=PATH .* name=(\S+) ", event, re.M) or [""]}
    return found


def test_no_unit_has_failed(seen):
    assert seen["state"] == "running"


def test_the_lockout_was_taken_back_before_the_network_was_up(seen):
    told = json.loads(seen["revert"])
    assert told["pending"] is None
    assert told["last"]["why"] == "the host was restarted before the change was confirmed"
    assert told["last"]["restored"] == ["/etc/ssh/sshd_config.d/00-a.conf"]
    units = [dict(line.split("=", 1) for line in block.splitlines()) for block in seen["starts"].split("\n\n")]
    began = {unit["Id"]: int(unit["InactiveExitTimestampMonotonic"]) for unit in units}
    ended = {unit["Id"]: int(unit["ActiveEnterTimestampMonotonic"]) for unit in units}
    assert all(began.values()) and all(ended.values()), seen["starts"]
    for later in ("systemd-networkd.service", "ssh.service", "civitas-firewall.service"):
        assert ended["civitas-revert-boot.service"] < began[later], later
    # Nor is there a moment with a network and without rules.
    assert ended["civitas-firewall.service"] < began["systemd-networkd.service"]


def test_services_are_there_again(seen):
    assert seen["services"].splitlines() == [f"{unit} enabled active" for unit in SERVICES]
    assert len(seen["boots"].splitlines()) == 2, "the journal of the boot before is kept"


def test_the_firewall_is_in_force(seen):
    assert len(re.findall(r"hook (?:input|forward|output) .* policy drop;", seen["firewall"])) == 3
    assert re.search(r"elements = \{ 10\.0\.2\.2 \}", seen["firewall"])
    assert seen["firewall-check"] == "0"


def test_a_port_that_nobody_declared_is_closed(host):
    server = "import socket as s; d = s.create_server(('', 8080))\nwhile True: d.accept()[0].send(b'hello')"
    ask = "import socket as s; print(s.create_connection(('127.0.0.1', 8080)).recv(5).decode())"
    host.check_output("systemd-run --quiet --unit=listener python3 -c %s", server)
    inside = host.check_output("for n in $(seq 60); do python3 -c %s 2> /dev/null && break; sleep 0.5; done", ask)
    assert inside == "hello"

    def greeting(port: int) -> bytes:
        # The emulator answers for the machine, and ends the connection when that does not.
        with socket.create_connection((str(LOGIN["address"]), port), timeout=8) as end:
            try:
                return end.recv(5)
            except (TimeoutError, ConnectionError):
                return b""

    try:
        assert greeting(int(LOGIN["port"])) == b"SSH-2"
        assert greeting(int(LOGIN["probe_port"])) == b""
    finally:
        host.run("systemctl stop listener")


def attempt(name: str, key: Path, answer: str = "") -> subprocess.CompletedProcess[str]:
    """A login with this key, every question answered with the same."""
    askpass = MADE / "askpass"
    askpass.write_text("#!/bin/sh\nprintf '%s\\n' \"$ANSWER\"\n")
    askpass.chmod(0o700)
    options = [
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "NumberOfPasswordPrompts=1",
        "LogLevel=ERROR",
    ]
    words = [word for option in options for word in ("-o", option)]
    return subprocess.run(
        ["ssh", "-F", "/dev/null", "-n", "-i", str(key), "-p", str(LOGIN["port"]), *words, f"{name}@{LOGIN['address']}", "id -un"],
        env={**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0", "ANSWER": answer},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_ssh_asks_people_for_a_code_and_automation_for_its_key(host):
    alone = attempt("ann", MADE / "ann")
    assert alone.returncode == 255 and "Permission denied (keyboard-interactive)" in alone.stderr, alone
    secret = host.check_output("head -n 1 /etc/civitas/second-factor/ann")
    while time.time() % 30 > 20:
        time.sleep(0.2)  # between two looks at the clock: the login takes some seconds
    both = attempt("ann", MADE / "ann", totp(secret, time.time()))
    assert both.stdout == "ann\n", both
    automation = attempt("deploy", Path(str(LOGIN["identity_file"])))
    assert automation.stdout == "deploy\n", automation
    assert attempt("deploy", MADE / "ann").returncode == 255


def test_kernel_settings_are_those_of_the_file(seen):
    def settings(text: str) -> dict[str, list[str]]:
        return {name: value.split() for name, value in re.findall(r"^([a-z]\S*) = (.*)$", text, re.M)}

    wanted = settings(seen["sysctl-wanted"])
    assert len(wanted) > 30 and "kernel.core_pattern" in wanted
    assert settings(seen["sysctl-found"]) == wanted


def test_memory_images_are_not_kept(host):
    """Of a program that crashes, also when it raises the limit first."""
    crash = (
        "cd $(mktemp -d) && ulimit -c unlimited && (sh -c 'kill -SEGV $$'; echo $?; find . /var/lib/systemd/coredump -type f 2> /dev/null)"
    )
    assert host.check_output(crash) == "139"
    assert host.check_output("su --login deploy --command 'ulimit -Hc'") == "0"


def test_temporary_file_systems_hold_no_devices_and_no_rights(seen, host):
    lines = (line.partition(" ") for line in seen["mounts"].splitlines())
    found = {path: set(options.split(",")) for path, _space, options in lines}
    assert set(found) == {"/tmp", "/var/tmp", "/dev/shm"}
    assert all({"nodev", "nosuid"} <= options for options in found.values()), found
    tried = "for d in /root /tmp /var/tmp /dev/shm; do mknod $d/null c 1 3; cat $d/null 2> /dev/null; echo $?; rm $d/null; done"
    assert host.check_output(tried).split() == ["0", "1", "1", "1"]


def test_unused_modules_cannot_be_loaded(seen, host):
    built = seen["built"].split()
    assert {"dccp", "sctp", "tipc", "rds"} <= set(built) <= set(seen["blocked"].split())
    # By name, and by a program that asks for the protocol (SCTP); what is not blocked is loaded.
    tried = "for n in %s; do modprobe -q $n && echo $n; done; python3 -c 'import socket as s; s.socket(s.AF_INET, s.SOCK_STREAM, 132)' 2>&1"
    said = host.run(tried % " ".join(built)).stdout
    assert said.splitlines()[-1] == "OSError: [Errno 93] Protocol not supported", said
    assert not set(built) & set(said.split())
    loaded = {line.split()[0] for line in host.check_output("modprobe dummy; cat /proc/modules; rmmod dummy").splitlines()}
    assert "dummy" in loaded and not loaded & {name.replace("-", "_") for name in built}


def test_apparmor_confines(seen, host):
    assert seen["apparmor"].splitlines() == ["Y", "/usr/sbin/chronyd (enforce)"]
    # Root may read the file, and chronyd as root may not.
    told = host.run("cp /etc/chrony/chrony.conf /root/audited.conf && /usr/sbin/chronyd -p -f /root/audited.conf; rm /root/audited.conf")
    assert "Could not open /root/audited.conf : Permission denied" in re.sub(r"\s+:", " :", told.stdout + told.stderr)


def rules(text: str) -> set[tuple[object, ...]]:
    """Watches and calls in one form: auditctl lists them in another than they are written in."""
    found: set[tuple[object, ...]] = set(re.findall(r"^-w (\S+) -p (\w+) -k (\S+)$", text, re.M))
    for line in re.findall(r"^-a always,exit (.*)$", text, re.M):
        calls = frozenset(call for words in re.findall(r"-S (\S+)", line) for call in words.split(","))
        found.add((calls, *sorted(re.findall(r"-F ((?!key)\S+)", line)), re.findall(r"(?:-k |key=)(\S+)", line)[0]))
    return found


def test_the_kernel_has_the_audit_rules_of_the_files_and_keeps_them(seen, host):
    assert len(rules(seen["audit-wanted"])) == len(re.findall(r"^-[wa] ", seen["audit-wanted"], re.M)) > 20
    assert rules(seen["audit-found"]) == rules(seen["audit-wanted"])
    assert len(seen["audit-found"].splitlines()) == len(rules(seen["audit-wanted"]))
    assert re.search(r"^enabled 2$", seen["audit-status"], re.M) and re.search(r"^lost 0$", seen["audit-status"], re.M)
    # Neither root nor a service that starts again switches it off.
    assert "Operation not permitted" in host.check_output("auditctl -D 2>&1 || :")
    assert "enabled 2" in host.check_output("systemctl restart systemd-journald && auditctl -s").splitlines()


@pytest.mark.parametrize(
    "record",
    [
        ("identity", "useradd", "openat", "/etc/passwd"),
        ("sudo", "touch", "openat", "/etc/sudoers.d/audited"),
        ("sudo", "rm", "unlinkat", "/etc/sudoers.d/audited"),
        ("ssh", "touch", "openat", "/etc/ssh/sshd_config.d/audited"),
        ("second-factor", "cat", "openat", "/etc/civitas/second-factor/ann"),
        ("backup-keys", "cat", "openat", "/etc/civitas/backup/audited"),
        ("secrets", "touch", "openat", "/etc/civitas/audited"),
        ("docker", "python3", "connect", "/run/docker.sock"),
        ("schedules", "touch", "openat", "/etc/cron.d/audited"),
        ("modules", "modprobe", "finit_module", ""),
        ("audit", "rm", "unlinkat", "/etc/audit/rules.d/audited"),
    ],
    ids=lambda record: f"{record[0]} {record[2]}",
)
def test_auditing_records(recorded, record):
    assert record in recorded, sorted(one for one in recorded if one[0] == record[0])


def test_auditing_leaves_out_what_is_nobodys_business(recorded):
    assert not [record for record in recorded if record[3] == "/etc/hostname"]
