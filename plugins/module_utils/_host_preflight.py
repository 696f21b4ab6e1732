# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what a host must have before anything on it is changed. `collect` reads, `judge` decides; nothing is written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import socket
import struct
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Release(NamedTuple):
    """A distribution release: regular security support and all security support that costs nothing end on these days."""

    title: str
    regular_end: date
    end: date


# From the distributions' own tables (package distro-info-data). Debian's second date is the end of its LTS, which uses the same archive.
RELEASES = {
    ("debian", "11"): Release("Debian 11", date(2024, 8, 14), date(2026, 8, 31)),
    ("debian", "12"): Release("Debian 12", date(2026, 7, 11), date(2028, 6, 30)),
    ("debian", "13"): Release("Debian 13", date(2028, 8, 9), date(2030, 6, 30)),
    ("ubuntu", "20.04"): Release("Ubuntu 20.04", date(2025, 5, 29), date(2025, 5, 29)),
    ("ubuntu", "22.04"): Release("Ubuntu 22.04", date(2027, 6, 1), date(2027, 6, 1)),
    ("ubuntu", "24.04"): Release("Ubuntu 24.04", date(2029, 5, 31), date(2029, 5, 31)),
}
# What the roles have platform files for. Ended releases stay above so that the message can say when they ended.
SUPPORTED = (("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04"))
SUPPORTED_TEXT = "Debian 12 or 13, Ubuntu 22.04 or 24.04"
ARCHITECTURES = ("amd64", "arm64")
WARN_DAYS = 180
# Firmware, kernel and file system take their part of what a machine was sold with.
SOLD_SIZE = 0.9
LOW_PERCENT = 15
LOW_INODES_PERCENT = 5

LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock")
DPKG_STATES = {"F": "half-configured", "H": "half-installed", "U": "unpacked", "W": "waits for triggers", "t": "triggers pending"}
RESOLVE_SECONDS = 15.0

_LABEL = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$")


@dataclass
class Wanted:
    """What the caller asks for. Sizes in MB and GB (1024), times in seconds; 0 and None switch a check off."""

    memory_mb: int = 0
    cpus: int = 0
    disk_gb: int = 0
    disk_path: str = "/"
    free_mb: int = 0
    controller_time: float | None = None
    clock_tolerance: int = 60
    today: date | None = None


@dataclass
class Finding:
    """One thing that is not as it must be (problem) or soon will not be (warning)."""

    level: str
    subject: str
    wanted: str
    found: str
    remedy: str

    def public(self) -> dict[str, str]:
        return asdict(self)


def parse_os_release(text: str) -> dict[str, str]:
    """The lines of os-release(5)."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.startswith("#"):
            values[key.strip()] = "".join(shlex.split(value)) if value else ""
    return values


def parse_memory(text: str) -> int:
    """MemTotal of /proc/meminfo in MB."""
    match = re.search(r"^MemTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) // 1024 if match else 0


def parse_packages(text: str) -> list[str]:
    """Packages that dpkg has not finished, from lines `<status> <package>` of dpkg-query's ${db:Status-Abbrev}."""
    unfinished: list[str] = []
    for line in text.splitlines():
        status, _separator, package = line.partition("|")
        if len(status) < 2 or not package:
            continue
        states = [DPKG_STATES[status[1]]] if status[1] in DPKG_STATES else []
        if status[2:3] == "R":
            states.append("reinstallation required")
        if states:
            unfinished.append("%s (%s)" % (package, ", ".join(states)))
    return unfinished


def collect(disk_path: str, names: Sequence[str], lock_timeout: int) -> dict[str, Any]:
    """Read everything `judge` needs. Waits up to lock_timeout seconds for a running package manager to end."""
    now = time.time()
    return {
        "time": now,
        "root": os.geteuid() == 0,
        "os_release": _read("/etc/os-release"),
        "meminfo": _read("/proc/meminfo"),
        "cpus": len(os.sched_getaffinity(0)),
        "architecture": _output(["dpkg", "--print-architecture"]).strip(),
        "systemd": os.path.isdir("/run/systemd/system"),
        "container": _output(["systemd-detect-virt", "--container"]).strip().replace("none", ""),
        "hostname": socket.gethostname(),
        "file_systems": {path: _file_system(path) for path in dict.fromkeys(["/", "/var", disk_path])},
        "packages": _output(["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${binary:Package}\\n"]),
        "interrupted": _interrupted(),
        "names": _resolve(names),
        "locks": _locks(lock_timeout),
    }


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def _output(command: Sequence[str]) -> str:
    try:
        environment = dict(os.environ, LC_ALL="C.UTF-8")
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, check=False)
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace")


def _file_system(path: str) -> dict[str, Any]:
    existing = os.path.abspath(path)
    while not os.path.exists(existing):
        existing = os.path.dirname(existing)
    stat = os.statvfs(existing)
    return {
        "total_mb": stat.f_frsize * stat.f_blocks // 2**20,
        "free_mb": stat.f_frsize * stat.f_bavail // 2**20,
        "inodes": stat.f_files,
        "free_inodes": stat.f_favail,
        "read_only": bool(stat.f_flag & os.ST_RDONLY),
        "device": os.stat(existing).st_dev,
    }


def _interrupted() -> bool:
    """dpkg keeps its journal here while it works; what is left over after it makes apt refuse."""
    try:
        return any(name.isdigit() for name in os.listdir("/var/lib/dpkg/updates"))
    except OSError:
        return False


def _resolve(names: Sequence[str]) -> dict[str, bool]:
    """Whether each name has an address. All at once: a dead name server must not cost its time-out for every name."""
    answers = dict.fromkeys(names, False)

    def ask(name: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            answers[name] = bool(socket.getaddrinfo(name, None))

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in answers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + RESOLVE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def _locks(timeout: int) -> list[dict[str, str]]:
    deadline = time.monotonic() + timeout
    while True:
        held = [lock for lock in (_lock_holder(path) for path in LOCKS) if lock]
        if not held or time.monotonic() >= deadline:
            return held
        time.sleep(1)


def _lock_holder(path: str) -> dict[str, str] | None:
    """Who holds the lock of a package manager: asks the kernel (F_GETLK), takes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        flock = fcntl.fcntl(descriptor, fcntl.F_GETLK, struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError:
        return None
    finally:
        os.close(descriptor)
    kind, _whence, _start, _length, pid = struct.unpack("@hhqqi0q", flock)
    if kind == fcntl.F_UNLCK:
        return None
    return {"path": path, "pid": str(pid), "command": _read("/proc/%d/comm" % pid).strip() or "unknown"}


def judge(host: Mapping[str, Any], wanted: Wanted) -> list[Finding]:
    """All findings about a host (the result of `collect`), problems first."""
    findings = (
        _judge_access(host)
        + _judge_release(host, wanted)
        + _judge_size(host, wanted)
        + _judge_file_systems(host, wanted)
        + _judge_clock(host, wanted)
        + _judge_packages(host)
        + _judge_names(host)
    )
    return sorted(findings, key=lambda finding: finding.level != "problem")


def _problem(subject: str, wanted: str, found: str, remedy: str) -> Finding:
    return Finding("problem", subject, wanted, found, remedy)


def _judge_access(host: Mapping[str, Any]) -> list[Finding]:
    findings = []
    if not host["root"]:
        findings.append(_problem("privileges", "root", "another user", "set become: true for the play"))
    if not host["systemd"]:
        findings.append(
            _problem(
                "systemd",
                "running as init",
                "/run/systemd/system is missing",
                "boot the host with systemd; in a container make it the first process",
            )
        )
    return findings


def _judge_release(host: Mapping[str, Any], wanted: Wanted) -> list[Finding]:
    values = parse_os_release(host["os_release"])
    key = (values.get("ID", ""), values.get("VERSION_ID", ""))
    found = values.get("PRETTY_NAME") or " ".join(key).strip() or "no /etc/os-release"
    today = wanted.today or date.fromtimestamp(host["time"])
    release = RELEASES.get(key)
    findings = []
    if release and today > release.end:
        findings.append(
            _problem(
                "release",
                SUPPORTED_TEXT,
                "%s, without security updates since %s" % (found, release.end),
                "install a supported release on a new host and move over",
            )
        )
    elif key not in SUPPORTED:
        findings.append(_problem("release", SUPPORTED_TEXT, found, "install one of these releases"))
    elif release:
        left = (release.end - today).days
        if left < WARN_DAYS:
            findings.append(
                Finding(
                    "warning",
                    "release",
                    "security updates for %d more days" % WARN_DAYS,
                    "%s, which ends on %s" % (found, release.end),
                    "plan the move to a newer release",
                )
            )
        elif today > release.regular_end:
            findings.append(
                Finding(
                    "warning",
                    "release",
                    "regular security support",
                    "%s, in long-term support until %s" % (found, release.end),
                    "plan the move to a newer release; some packages are no longer covered",
                )
            )
    architecture = host["architecture"]
    if architecture not in ARCHITECTURES:
        findings.append(_problem("architecture", " or ".join(ARCHITECTURES), architecture or "unknown", "install a 64-bit system"))
    return findings


def _judge_size(host: Mapping[str, Any], wanted: Wanted) -> list[Finding]:
    findings = []
    memory = parse_memory(host["meminfo"])
    if memory < wanted.memory_mb * SOLD_SIZE:
        findings.append(_problem("memory", "%d MB" % wanted.memory_mb, "%d MB" % memory, "give the host more memory, or lower the minimum"))
    if host["cpus"] < wanted.cpus:
        findings.append(_problem("processors", str(wanted.cpus), str(host["cpus"]), "give the host more cores, or lower the minimum"))
    total = host["file_systems"][wanted.disk_path]["total_mb"]
    if total < wanted.disk_gb * 1024 * SOLD_SIZE:
        findings.append(
            _problem(
                "disk of %s" % wanted.disk_path,
                "%d GB" % wanted.disk_gb,
                "%.1f GB" % (total / 1024.0),
                "enlarge the file system, or lower the minimum",
            )
        )
    return findings


def _judge_file_systems(host: Mapping[str, Any], wanted: Wanted) -> list[Finding]:
    findings = []
    seen = set()
    for path, state in host["file_systems"].items():
        if state["device"] in seen:
            continue
        seen.add(state["device"])
        subject = "file system of %s" % path
        if state["read_only"]:
            findings.append(_problem(subject, "writable", "read-only", "read the kernel log (dmesg) for disk errors, check it, remount it"))
        if state["free_mb"] < wanted.free_mb:
            findings.append(
                _problem(
                    subject,
                    "%d MB free" % wanted.free_mb,
                    "%d MB free" % state["free_mb"],
                    "remove or move files (du -x -h -d 2 %s), or enlarge it" % path,
                )
            )
        elif state["free_mb"] * 100 < state["total_mb"] * LOW_PERCENT:
            findings.append(
                Finding(
                    "warning",
                    subject,
                    "%d %% free" % LOW_PERCENT,
                    "%d %% free" % (state["free_mb"] * 100 // state["total_mb"]),
                    "remove or move files (du -x -h -d 2 %s), or enlarge it" % path,
                )
            )
        # Some file systems (btrfs) make inodes as they need them and report none.
        if state["inodes"] and state["free_inodes"] * 100 < state["inodes"] * LOW_INODES_PERCENT:
            findings.append(
                _problem(
                    subject,
                    "%d %% of the inodes free" % LOW_INODES_PERCENT,
                    "%d of %d free" % (state["free_inodes"], state["inodes"]),
                    "find the directory with countless small files: du -x --inodes -d 2 %s | sort -n" % path,
                )
            )
    return findings


def _judge_clock(host: Mapping[str, Any], wanted: Wanted) -> list[Finding]:
    offset = clock_offset(host, wanted)
    if offset is None or abs(offset) <= wanted.clock_tolerance:
        return []
    return [
        _problem(
            "clock",
            "within %d s of the controller" % wanted.clock_tolerance,
            "%d s %s" % (abs(offset), "ahead" if offset > 0 else "behind"),
            "find out which of the two is wrong and set it, for example: date --set @%d" % (wanted.controller_time or 0),
        )
    ]


def clock_offset(host: Mapping[str, Any], wanted: Wanted) -> float | None:
    """Seconds by which the host's clock is ahead of the controller's."""
    return None if wanted.controller_time is None else host["time"] - wanted.controller_time


def _judge_packages(host: Mapping[str, Any]) -> list[Finding]:
    findings = []
    unfinished = parse_packages(host["packages"])
    if unfinished or host["interrupted"]:
        found = ", ".join(unfinished[:5]) + (" and %d more" % (len(unfinished) - 5) if len(unfinished) > 5 else "")
        findings.append(
            _problem(
                "packages",
                "all completely installed",
                found or "dpkg was interrupted",
                "run dpkg --configure -a, then apt-get --fix-broken install, and read their errors",
            )
        )
    for lock in host["locks"]:
        findings.append(
            _problem(
                "package manager",
                "not in use",
                "%s (process %s) holds %s" % (lock["command"], lock["pid"], lock["path"]),
                "wait for it to end, or raise the time to wait; never delete the lock file",
            )
        )
    return findings


def _judge_names(host: Mapping[str, Any]) -> list[Finding]:
    findings = []
    for name, known in host["names"].items():
        if not known:
            findings.append(
                _problem(
                    "name resolution",
                    "an address for %s" % name,
                    "none",
                    "check /etc/resolv.conf and that the name servers can be reached: getent hosts %s" % name,
                )
            )
    hostname = host["hostname"]
    labels = hostname.split(".")
    if hostname.partition(".")[0] == "localhost" or len(hostname) > 64 or not all(_LABEL.match(label) for label in labels):
        findings.append(
            _problem("host name", "letters, digits, hyphens; not localhost", hostname or "none", "hostnamectl set-hostname NAME")
        )
    return findings


def summary(host: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The numbers behind the judgement."""
    values = parse_os_release(host["os_release"])
    disk = host["file_systems"][wanted.disk_path]
    offset = clock_offset(host, wanted)
    return {
        "distribution": values.get("ID", ""),
        "release": values.get("VERSION_ID", ""),
        "codename": values.get("VERSION_CODENAME", ""),
        "architecture": host["architecture"],
        "memory_mb": parse_memory(host["meminfo"]),
        "cpus": host["cpus"],
        "disk_mb": disk["total_mb"],
        "disk_free_mb": disk["free_mb"],
        "hostname": host["hostname"],
        "container": host["container"],
        "clock_offset": None if offset is None else round(offset, 1),
    }


def table(findings: Sequence[Finding]) -> str:
    """Findings as text, columns aligned; the last one is free to run on."""
    rows = [("", "wanted", "found", "what to do")]
    rows += [(finding.subject, finding.wanted, finding.found, finding.remedy) for finding in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([row[column].ljust(widths[column]) for column in range(3)] + [row[3]]).rstrip() for row in rows)
