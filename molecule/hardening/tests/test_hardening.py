# SPDX-License-Identifier: GPL-3.0-or-later
"""What the hardening promises, tried out as people and programs would: not the files it wrote, but what they bring about."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

MADE = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
DEFAULTS = yaml.safe_load((Path(__file__).resolve().parents[3] / "roles/base/defaults/main.yml").read_text(encoding="utf-8"))
PASSWORD = "Vq7#mandolin-Kite"  # of an account that lives as long as the test host


def as_user(host, name: str, command: str):
    """In a session with all that PAM makes of one."""
    return host.run("su --login %s --command %s", name, command)


def wrong_passwords(host, name: str, number: int) -> None:
    """All at once: each is answered after some seconds."""
    one = f"(printf 'wrong\\n' | su {name} --command true && touch /run/entered) 2> /dev/null &"
    host.check_output("runuser --user nobody -- sh -c %s", f"for i in $(seq {number}); do {one} done; wait; ! [ -e /run/entered ]")


def login(host, name: str, password: str) -> bool:
    """Whether su, started by a person who is not root, takes this password."""
    return host.run("runuser --user nobody -- sh -c %s", f"printf '%s\\n' '{password}' | su {name} --command true").succeeded


# First, as other tests change passwords.
def test_host_is_as_its_baseline(host):
    assert host.check_output("civitas-integrity check").find("found NO differences") >= 0
    assert host.service("civitas-integrity.timer").is_running


@pytest.mark.parametrize(("name", "umask"), [("probe", "0027"), ("ann", "0027"), ("root", "0022"), ("www-data", "0022")])
def test_files_of_people_are_not_for_everybody(host, name, umask):
    assert host.check_output("su --shell /bin/sh --login %s --command umask", name).splitlines()[-1] == umask


def test_what_sudo_writes_can_be_read_by_services(host):
    assert as_user(host, "ann", "sudo --non-interactive sh -c umask").stdout.strip() == "0022"


def change_password(host, old: str, *new: str):
    """As the person would, one after the other; the result of the last."""
    host.check_output("chage --mindays 0 probe")
    try:
        for password in new:
            done = as_user(host, "probe", f"printf '%s\\n' '{old}' '{password}' '{password}' | passwd")
            old = password
        return done
    finally:
        host.check_output("chage --mindays 1 probe")


@pytest.mark.parametrize(
    ("password", "words"),
    [
        ("Sh0rt-pass", "shorter than 15 characters"),
        ("only-small-letters-7", "less than 1 uppercase"),
        ("Mandolin-Kite-Vq", "less than 1 digits"),
        ("Quite-Probe-Long-7x", "contains the user name"),
        ("Zebra-77777-Lantern", "more than 3 same characters"),
    ],
)
def test_weak_password_is_refused(host, password, words):
    before = host.check_output("getent shadow probe").split(":")[1]
    refused = change_password(host, PASSWORD, password)
    assert refused.failed and words in refused.stderr + refused.stdout
    assert host.check_output("getent shadow probe").split(":")[1] == before


def test_good_password_is_taken_and_the_last_ones_are_not(host):
    try:
        assert change_password(host, PASSWORD, "Ein-anderes.Wort7", "Noch+eines/Tier8").succeeded
        assert login(host, "probe", "Noch+eines/Tier8")
        assert re.match(r"probe:\$y\$j?", host.check_output("getent shadow probe"))
        refused = change_password(host, "Noch+eines/Tier8", "Ein-anderes.Wort7")
        assert refused.failed and "already used" in refused.stderr + refused.stdout
    finally:
        # The history is forgotten before, so that the old password is taken, and after, as that has put the last one into it.
        host.check_output("install -m 0600 /dev/null /etc/security/opasswd")
        host.check_output("echo %s | chpasswd", f"probe:{PASSWORD}")
        host.check_output("install -m 0600 /dev/null /etc/security/opasswd")


def test_account_is_refused_after_several_wrong_passwords_and_released_again(host):
    assert login(host, "probe", PASSWORD)
    try:
        wrong_passwords(host, "probe", DEFAULTS["base_lockout_attempts"])
        assert not login(host, "probe", PASSWORD)
    finally:
        host.check_output("faillock --user probe --reset")
    assert login(host, "probe", PASSWORD)


def test_a_right_password_forgets_wrong_ones(host):
    for _attempt in range(2):
        wrong_passwords(host, "probe", DEFAULTS["base_lockout_attempts"] - 1)
        assert login(host, "probe", PASSWORD)


def test_a_key_still_lets_in_whose_password_is_refused(host):
    key = (MADE / "deploy").read_text(encoding="utf-8")
    try:
        wrong_passwords(host, "deploy", DEFAULTS["base_lockout_attempts"])
        assert len(host.check_output("faillock --user deploy").splitlines()) >= DEFAULTS["base_lockout_attempts"]
        host.check_output("install -m 0600 /dev/null /run/key && printf %%s %s > /run/key", key)
        ssh = "ssh -i /run/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null deploy@127.0.0.1 id -un"
        done = host.run(ssh)
        assert done.stdout.strip() == "deploy", done.stderr
        assert "authorized persons only" in done.stderr
    finally:
        host.check_output("rm -f /run/key; faillock --user deploy --reset")


def test_root_is_never_refused(host):
    old = host.check_output("getent shadow root").split(":")[1]
    try:
        host.check_output("echo %s | chpasswd", f"root:{PASSWORD}")
        wrong_passwords(host, "root", DEFAULTS["base_lockout_attempts"] + 2)
        assert login(host, "root", PASSWORD)
    finally:
        host.check_output("usermod --password %s root", old)
        host.check_output("faillock --user root --reset")


def test_passwords_age_and_keys_do_not(host):
    assert host.check_output("getent shadow probe").split(":")[3:6] == ["1", "365", "14"]
    for name in ("deploy", "ann", "keyonly"):
        assert host.check_output("getent shadow %s", name).split(":")[4] in ("", "-1", "99999"), name
    assert host.check_output("getent shadow root").split(":")[4] == "99999"


def test_memory_images_are_not_kept(host):
    assert as_user(host, "probe", "ulimit -Hc; ulimit -Sc").stdout.split() == ["0", "0"]
    crash = as_user(host, "probe", "cd && sh -c 'kill -SEGV $$'; ls core* 2> /dev/null")
    assert crash.stdout == ""
    settings = host.check_output("systemd-analyze cat-config systemd/coredump.conf")
    assert re.findall(r"^(Storage|ProcessSizeMax)=(.*)$", settings, re.MULTILINE)[-2:] == [("Storage", "none"), ("ProcessSizeMax", "0")]


def test_only_root_compiles(host):
    host.check_output("printf 'int main(void){return 0;}' > /tmp/a.c")
    assert host.run("tcc -c -o /tmp/a.o /tmp/a.c").succeeded
    refused = as_user(host, "probe", "tcc -c -o /tmp/b.o /tmp/a.c")
    assert refused.failed and "Permission denied" in refused.stderr


@pytest.mark.parametrize("program", ["chfn", "chsh", "newgrp", "mount", "umount", "gpasswd", "chage", "expiry"])
def test_program_has_lost_the_rights_of_another(host, program):
    assert host.check_output("stat --dereference --format %%a /usr/bin/%s", program) == "755"


@pytest.mark.parametrize("program", ["su", "sudo", "passwd"])
def test_program_that_people_need_has_kept_them(host, program):
    assert host.file(f"/usr/bin/{program}").mode & 0o4000


@pytest.mark.parametrize("path", ["/tmp", "/var/tmp", "/dev/shm"])
def test_temporary_file_system_holds_no_devices_and_no_rights(host, path):
    options = host.check_output("findmnt --noheadings --output VFS-OPTIONS --target %s", path).splitlines()[-1].split(",")
    assert {"nodev", "nosuid"} <= set(options)
    try:
        assert host.run("mknod %s/device c 1 3 && cat %s/device", path, path).failed
    finally:
        host.run("rm -f %s/device", path)


def test_java_and_installers_can_still_run_what_they_unpack(host):
    assert host.check_output("cd /tmp && printf '#!/bin/sh\\necho runs\\n' > x && chmod 0755 x && ./x && rm x") == "runs"


def test_unused_modules_cannot_be_loaded_and_those_of_containers_can(host):
    text = host.file("/etc/modprobe.d/90-civitas.conf").content_string
    blocked = re.findall(r"^install (\S+) /bin/false$", text, re.MULTILINE)
    assert {"dccp", "sctp", "tipc", "rds", "usb-storage", "firewire-core", "cramfs"} <= set(blocked)
    assert not {"overlay", "br_netfilter", "vxlan", "ip_vs", "wireguard", "dm_crypt", "xfs", "squashfs", "vfat"} & set(blocked)


def test_only_listed_people_have_schedules(host):
    refused = as_user(host, "probe", "crontab -l")
    assert refused.failed and "not allowed" in refused.stderr
    assert "no crontab for root" in host.run("crontab -l").stderr
    assert host.check_output("stat --format %a /etc/crontab /etc/cron.d /etc/cron.daily").split() == ["600", "700", "700"]


@pytest.mark.parametrize("path", ["/etc/issue", "/etc/issue.net"])
def test_banner_warns_and_names_no_release(host, path):
    text = host.file(path).content_string
    assert "authorized" in text
    assert not re.search(r"debian|ubuntu|linux|\\[a-z]", text, re.IGNORECASE)


def test_idle_shells_end(host):
    assert as_user(host, "probe", "echo $TMOUT").stdout.strip() == str(DEFAULTS["base_idle_seconds"])
    assert as_user(host, "probe", "TMOUT=0").failed


@pytest.mark.parametrize("key", ["net.ipv4.tcp_rfc1337", "net.ipv4.conf.all.log_martians", "net.ipv4.conf.all.accept_redirects"])
def test_kernel_setting_is_in_force(host, key):
    assert host.check_output("sysctl --values %s", key) == str(DEFAULTS["base_sysctl"][key])


def test_forwarding_is_left_to_containers(host):
    assert not [key for key in DEFAULTS["base_sysctl"] if "forward" in key or "bridge" in key]
    assert host.run("grep --recursive ip_forward /etc/sysctl.d").stdout == ""


def test_audit_rules_are_right(host):
    """The kernel lets no container audit, which is all that it objects to."""
    answer = host.run("auditctl -R /etc/audit/rules.d/90-civitas.rules")
    lines = (answer.stdout + answer.stderr).splitlines()
    harmless = (
        r"Error sending .* \(Operation not permitted\)|There was an error in line \d+ of .*|Old style watch rules are slower|No rules|\s*"
    )
    assert [line for line in lines if not re.fullmatch(harmless, line)] == []
    assert "No change" in host.check_output("augenrules --check") or host.run("augenrules --check").succeeded
    keys = set(re.findall(r"-k civitas-(\S+)", host.file("/etc/audit/rules.d/90-civitas.rules").content_string))
    assert {"identity", "sudo", "ssh", "docker", "secrets", "backup-keys", "uploads"} <= keys
    assert not host.service("auditd").is_enabled


def test_nothing_waits_to_be_reverted(host):
    assert not host.file("/var/lib/civitas/revert/armed.json").exists
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""
