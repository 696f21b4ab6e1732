# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement over hosts as they are found (tests/fixtures/facts). What reads the host is proven by the scenario `base`."""

from __future__ import annotations

import copy
import fcntl
import json
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _host_preflight as preflight
from ansible_collections.civitas.hosting.plugins.module_utils._host_preflight import Wanted, judge, summary, table

FACTS = Path(__file__).resolve().parents[2] / "fixtures" / "facts"
SYSTEMS = ("debian12", "debian13", "ubuntu2204", "ubuntu2404")
DAY = date(2026, 7, 1)


def load(system):
    return json.loads((FACTS / f"{system}.json").read_text(encoding="utf-8"))["host"]


@pytest.fixture
def host():
    return load("debian13")


def wanted(**changes):
    values = {"memory_mb": 4096, "cpus": 2, "disk_gb": 40, "disk_path": "/", "free_mb": 512, "today": DAY}
    return Wanted(**{**values, **changes})


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_sound_host_has_no_findings(system):
    host = load(system)
    assert judge(host, wanted(controller_time=host["time"] + 2)) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_numbers_come_from_the_host(system):
    host = load(system)
    numbers = summary(host, wanted(disk_path="/srv", controller_time=host["time"] - 12.34))
    assert numbers["memory_mb"] == 3915
    assert numbers["cpus"] == 2
    assert numbers["disk_mb"] == 102400
    assert numbers["clock_offset"] == 12.3
    assert numbers["codename"] in ("bookworm", "trixie", "jammy", "noble")


def change(**values):
    return lambda host: host.update(values)


def change_disk(path, **values):
    return lambda host: host["file_systems"][path].update(values)


LOCK = {"path": "/var/lib/dpkg/lock-frontend", "pid": "731", "command": "unattended-upgr"}
ROCKY = 'ID=rocky\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n'
FOCAL = 'ID=ubuntu\nVERSION_ID="20.04"\nPRETTY_NAME="Ubuntu 20.04.6 LTS"\n'
PROBLEMS = {
    "another distribution": (change(os_release=ROCKY), "release", "Rocky Linux 9.4"),
    "an ended release": (change(os_release=FOCAL), "release", "since 2025-05-29"),
    "a release to come": (change(os_release='ID=debian\nVERSION_ID="14"\nPRETTY_NAME="Debian 14"\n'), "release", "Debian 14"),
    "testing has no number": (change(os_release='ID=debian\nPRETTY_NAME="Debian forky/sid"\n'), "release", "forky"),
    "no os-release": (change(os_release=""), "release", "no /etc/os-release"),
    "32 bits": (change(architecture="i386"), "architecture", "i386"),
    "not root": (change(root=False), "privileges", "another user"),
    "no systemd": (change(systemd=False), "systemd", "missing"),
    "little memory": (change(meminfo="MemTotal:  2009324 kB\n"), "memory", "1962 MB"),
    "few processors": (change(cpus=1), "processors", "1"),
    "a small disk": (change_disk("/", total_mb=20480), "disk of /", "20.0 GB"),
    "a full disk": (change_disk("/", free_mb=100), "file system of /", "100 MB free"),
    "a full /var": (change_disk("/var", free_mb=0, device=9), "file system of /var", "0 MB free"),
    "no inodes": (change_disk("/", free_inodes=1000), "file system of /", "1000 of 2621440 free"),
    "read-only root": (change_disk("/", read_only=True), "file system of /", "read-only"),
    "half-configured": (
        change(packages="ii |bash\niF |postgresql-17\niUR|nginx\n"),
        "packages",
        "postgresql-17 (half-configured), nginx (unpacked, reinstallation required)",
    ),
    "interrupted": (change(interrupted=True), "packages", "dpkg was interrupted"),
    "lock held": (change(locks=[LOCK]), "package manager", "unattended-upgr (process 731) holds /var/lib/dpkg/lock-frontend"),
    "dead name": (change(names={"deb.example.org": False}), "name resolution", "none"),
    "localhost": (change(hostname="localhost"), "host name", "localhost"),
    "a name with an underscore": (change(hostname="my_host"), "host name", "my_host"),
    "no name": (change(hostname=""), "host name", "none"),
    "clock ahead": (lambda host: host.update(time=host["time"] + 61.5), "clock", "61 s ahead"),
    "clock behind": (lambda host: host.update(time=host["time"] - 3600), "clock", "3600 s behind"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_is_found_and_is_the_only_one(host, name):
    spoil, subject, found = PROBLEMS[name]
    controller = host["time"]
    spoil(host)
    findings = judge(host, wanted(controller_time=controller))
    assert [(finding.level, finding.subject) for finding in findings] == [("problem", subject)]
    assert found in findings[0].found
    assert findings[0].wanted and findings[0].remedy


def test_all_problems_are_reported_at_once_and_before_warnings(host):
    for spoil, _subject, _found in PROBLEMS.values():
        spoil(host)
    host["os_release"] = load("debian12")["os_release"]
    findings = judge(host, wanted(today=date(2028, 6, 1), controller_time=0))
    levels = [finding.level for finding in findings]
    assert levels == sorted(levels)
    assert levels.count("problem") >= 12
    assert findings[-1].subject == "release"


@pytest.mark.parametrize(
    ("system", "day", "level", "words"),
    [
        ("debian12", date(2026, 7, 12), "warning", "long-term support until 2028-06-30"),
        ("debian12", date(2028, 6, 30), "warning", "ends on 2028-06-30"),
        ("debian12", date(2028, 7, 1), "problem", "since 2028-06-30"),
        ("ubuntu2204", date(2026, 12, 4), "warning", "ends on 2027-06-01"),
        ("ubuntu2204", date(2027, 6, 2), "problem", "since 2027-06-01"),
        ("ubuntu2404", date(2029, 6, 1), "problem", "since 2029-05-31"),
        ("debian13", date(2030, 1, 2), "warning", "ends on 2030-06-30"),
    ],
)
def test_end_of_life(system, day, level, words):
    (finding,) = judge(load(system), wanted(today=day))
    assert (finding.level, finding.subject) == (level, "release")
    assert words in finding.found


def test_the_warning_begins_180_days_before_the_end():
    assert judge(load("ubuntu2204"), wanted(today=date(2026, 12, 3))) == []


@pytest.mark.parametrize(("sold", "ok"), [(4096, True), (4349, True), (4352, False)])
def test_ten_percent_of_the_sold_memory_may_be_missing(host, sold, ok):
    assert (judge(host, wanted(memory_mb=sold)) == []) is ok


def test_a_nearly_full_disk_is_a_warning(host):
    change_disk("/", free_mb=5000)(host)
    (finding,) = judge(host, wanted())
    assert (finding.level, finding.found) == ("warning", "12 % free")


def test_file_systems_without_a_number_of_inodes_are_not_judged_by_it(host):
    change_disk("/", inodes=0, free_inodes=0)(host)
    assert judge(host, wanted()) == []


def test_a_clock_without_comparison_is_not_judged(host):
    host["time"] = 0.0
    assert judge(host, wanted(controller_time=None)) == []


def test_every_supported_release_is_in_the_table_and_has_a_fixture():
    releases = [preflight.parse_os_release(load(system)["os_release"]) for system in SYSTEMS]
    assert {(values["ID"], values["VERSION_ID"]) for values in releases} == set(preflight.SUPPORTED)
    assert set(preflight.SUPPORTED) <= set(preflight.RELEASES)


def test_the_table_is_aligned():
    host = load("debian12")
    change(cpus=1, hostname="localhost")(host)
    lines = table(judge(host, wanted())).splitlines()
    assert lines[0].split() == ["wanted", "found", "what", "to", "do"]
    column = lines[0].index("found")
    assert lines[1][column:].startswith("1  ")
    assert lines[2][column:].startswith("localhost  ")


def test_collect_reads_this_machine():
    host = preflight.collect("/no/such/directory", ["localhost", "no-such-name.invalid"], 0)
    assert set(host) == set(load("debian13"))
    assert host["names"] == {"localhost": True, "no-such-name.invalid": False}
    assert host["file_systems"]["/no/such/directory"] == host["file_systems"]["/"]
    assert preflight.parse_memory(host["meminfo"]) > 100
    json.dumps(host)


def test_the_holder_of_a_lock_is_named(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()
    assert preflight._lock_holder(str(lock)) is None
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        found = preflight._lock_holder(str(lock))
        holder.stdin.close()
        holder.wait()
    assert found["pid"] == str(holder.pid)
    assert "python" in found["command"]
    assert preflight._lock_holder(str(lock)) is None


def test_looking_at_a_lock_does_not_take_it(tmp_path):
    lock = tmp_path / "lock"
    lock.touch()
    preflight._lock_holder(str(lock))
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_judging_changes_nothing(host):
    before = copy.deepcopy(host)
    judge(host, wanted())
    assert host == before
