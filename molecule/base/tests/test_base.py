# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role promises, read from the running system and not from the files it wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).resolve().parents[3] / "roles" / "base"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
NETWORK = {key: value for key, value in DEFAULTS["base_sysctl"].items() if key.startswith(("net.ipv4.", "net.ipv6."))}


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl list-units --state=failed --plain --no-legend") == ""


def test_chrony_runs_and_leaves_the_clock_of_a_container_alone(host):
    assert host.service("chrony").is_running
    assert host.service("chrony").is_enabled
    (arguments,) = {process.args for process in host.process.filter(comm="chronyd")}
    assert "-x" in arguments.split()
    assert "DAEMON_OPTS" in host.file("/etc/default/chrony").content_string


def test_chrony_answers_its_socket_and_knows_its_sources(host):
    assert "Leap status" in host.check_output("chronyc -n tracking")
    assert re.search(r"^pool\s+pool\.ntp\.org\b", host.check_output("chronyd -p -f /etc/chrony/chrony.conf"), re.MULTILINE)


def test_nothing_but_ssh_listens(host):
    sockets = host.check_output("ss --no-header --listening --tcp --udp --numeric --processes")
    assert "sshd" in sockets
    assert [line for line in sockets.splitlines() if "sshd" not in line and "127.0.0.1" not in line and "[::1]" not in line] == []


def test_the_time_zone_is_in_force(host):
    assert host.check_output("date +%Z") == "EAT"
    timezone = host.file("/etc/timezone")
    if host.system_info.release.startswith("12"):
        assert timezone.content_string == "Africa/Nairobi\n"
    elif host.system_info.distribution == "debian":
        assert not timezone.exists


@pytest.mark.parametrize("key", NETWORK)
def test_kernel_setting_is_in_force(host, key):
    assert host.check_output("sysctl --values %s", key) == str(NETWORK[key])


def test_a_container_does_not_touch_its_hosts_kernel(host):
    text = host.file("/etc/sysctl.d/90-civitas.conf").content_string
    keys = [line.split(" = ")[0] for line in text.splitlines() if " = " in line]
    assert keys == list(NETWORK)


def test_the_journal_persists_within_its_bounds(host):
    assert host.file("/var/log/journal").is_directory
    sizes = host.check_output("journalctl --unit systemd-journald --output cat --no-pager --grep 'System Journal'").splitlines()
    assert re.search(r"max 64\.?0?M", sizes[-1]), sizes
    assert "MaxRetentionSec=90day" in host.check_output("systemd-analyze cat-config systemd/journald.conf").splitlines()


def test_a_flood_of_lines_leaves_the_journal_within_its_bounds(host):
    # Nothing twice: the journal keeps the same text once.
    host.check_output("head -c 110M /dev/urandom | base64 -w 40000 | systemd-cat -t flood; journalctl --sync")
    megabytes = int(host.check_output("du -sm /var/log/journal").split()[0])
    # More than half of it arrived, or there was no flood.
    assert 40 <= megabytes <= 72, megabytes
    assert not host.file("/run/log/journal").exists or host.check_output("find /run/log/journal -name '*.journal'") == ""


def test_the_timer_rotates_and_says_so_by_its_canary(host):
    """A day that is faked by logrotate's own record; the unit runs as the timer starts it."""
    canary, record = "/var/log/civitas/canary.log", "/var/lib/logrotate/status"
    twice = "/etc/logrotate.d/aa-twice"
    yesterday = f"touch --date '3 days ago' {canary}; sed -i '\\|{canary}|d' {record}; echo '\"{canary}\" 2020-1-1-0:0:0' >> {record}"

    def age():
        return int(host.check_output(f"echo $(($(date +%s) - $(stat -c %Y {canary})))"))

    try:
        host.check_output(f"systemctl start logrotate; {yesterday}")
        assert age() > 250_000
        host.check_output("systemctl start logrotate")
        assert age() < 600
        assert host.file(f"{canary}.1").exists and host.file(canary).mode == 0o644
        # A second file with the same log: the unit fails, and monitoring tells of it.
        host.check_output(f"printf '%s {{ missingok }}\n' {canary} > {twice}; chmod 0644 {twice}; {yesterday}")
        assert host.run("systemctl start logrotate").rc != 0
        assert "duplicate log entry" in host.check_output("journalctl --unit logrotate --output cat --no-pager --lines 20")
    finally:
        host.run(f"rm -f {twice}; touch {canary}; systemctl reset-failed logrotate; systemctl start logrotate")


def test_a_log_that_grows_is_rotated_and_compressed(host):
    entry, log = "/etc/logrotate.d/canary", "/var/log/canary.log"
    try:
        host.check_output(f"rm -f {log}* && printf '%s {{ missingok }}\\n' {log} > {entry} && chmod 0644 {entry}")
        for letter in "ab":
            host.check_output(f"head -c 1200000 /dev/zero | tr '\\0' {letter} > {log}")
            host.check_output("logrotate /etc/logrotate.conf")
        assert host.file(log).size == 0
        assert host.check_output(f"head -c 1 {log}.1") == "b"
        assert host.check_output(f"gzip -dc {log}.2.gz | head -c 1") == "a"
    finally:
        host.check_output(f"rm -f {entry} {log}*")


def test_rotation_has_no_errors(host):
    assert host.run("logrotate --debug /etc/logrotate.conf").rc == 0
    assert host.service("logrotate.timer").is_running


def test_only_security_updates_are_installed_and_what_interrupts_people_is_held(host):
    log = host.run("unattended-upgrade --dry-run --debug")
    assert log.rc == 0
    text = log.stdout + log.stderr
    codename = host.system_info.codename
    assert re.search(rf"^Allowed origins are: origin=Debian,codename={codename}-security,label=Debian-Security$", text, re.MULTILINE)
    held = re.search(r"^Initial blacklist: (.*)$", text, re.MULTILINE).group(1).split()
    assert held == DEFAULTS["base_upgrade_hold"]
    assert "not to cause conffile prompts" in text


@pytest.mark.parametrize("name", ["postgresql-15", "postgresql-17", "docker.io", "docker-ce", "containerd", "containerd.io"])
def test_package_is_held(name):
    assert any(re.match(pattern, name) for pattern in DEFAULTS["base_upgrade_hold"])


@pytest.mark.parametrize("name", ["postgresql-client-17", "postgresql-common", "libpq5", "openssl", "docker-ce-cli", "linux-image-amd64"])
def test_package_is_not_held(name):
    assert not any(re.match(pattern, name) for pattern in DEFAULTS["base_upgrade_hold"])


def test_lists_of_packages_count_when_all_of_them_came(host):
    stamp, refused = "/var/lib/apt/periodic/civitas-lists-complete", "/etc/apt/sources.list.d/refused.list"
    host.check_output(f"apt-get update -qq && touch -d @1000000000 {stamp} && echo 'deb [trusted=yes] http://127.0.0.1:1/x ./' > {refused}")
    try:
        host.run("apt-get update -qq")
        assert host.check_output(f"stat -c %Y {stamp}") == "1000000000"
    finally:
        host.check_output(f"rm {refused}")
    host.check_output("apt-get update -qq")
    assert int(host.check_output(f"stat -c %Y {stamp}")) > 1_700_000_000


def test_upgrades_run_in_their_window(host):
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_enabled
        assert host.service(timer).is_running
    shown = host.check_output("systemctl show --property=TimersCalendar --property=RandomizedDelayUSec apt-daily-upgrade.timer")
    assert re.findall(r"OnCalendar=(.*?) ;", shown) == ["*-*-* 02:30:00"]
    assert "RandomizedDelayUSec=30min" in shown
    dump = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in dump
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in dump


def test_needrestart_only_lists(host):
    program = 'our %nrconf; do "/etc/needrestart/needrestart.conf"; print $nrconf{restart}'
    assert host.check_output("perl -e %s", program) == "l"


def test_people_write_no_memory_images(host):
    assert host.check_output("su -s /bin/sh nobody -c 'ulimit -Hc'") == "0"


def test_both_authorities_of_the_file_are_trusted(host):
    program = (
        "import ssl; names = [dict(part[0] for part in certificate['subject']).get('commonName', '')"
        " for certificate in ssl.create_default_context().get_ca_certs()];"
        " print(sorted(name for name in names if name.startswith('Authority ')))"
    )
    assert host.check_output("python3 -c %s", program) == "['Authority one', 'Authority two']"


def test_the_proxy_of_another_day_is_forgotten(host):
    assert not host.file("/etc/apt/apt.conf.d/90civitas-proxy").exists
