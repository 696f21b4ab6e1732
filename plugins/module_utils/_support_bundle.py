# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collects logs and state of a host for somebody who helps, without its secrets.

Each part is read within a time and a size, so that nothing that hangs or grows holds up the rest. What is written has been through the
Redactor, which knows the secrets of the host. The result is one ZIP file with a C(manifest.json):

    {"files": [{"name", "bytes", "note"}], "missing": [{"name", "reason"}], "redacted": {kind: count}, "too_short": [path]}

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import collections
import contextlib
import glob
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
import typing as t
import zipfile

from ansible_collections.civitas.hosting.plugins.module_utils import _support_logs as logs
from ansible_collections.civitas.hosting.plugins.module_utils._redaction import Redactor, Secret, whole_lines
from ansible_collections.civitas.hosting.plugins.module_utils._secret_values import of_host

MANIFEST = "manifest.json"
# Seconds for one command, and for all.
PATIENCE = 20
_ALL = 480
_LARGEST_PART = 4 << 20
_LARGEST_LINE = 32768
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0"}
_ENVIRONMENT.update(SYSTEMD_PAGER="", HOME="/root", DOCKER_CLI_HINTS="false", PGDATABASE="postgres")

# Services that the roles run; those of the collection have its name.
_UNITS = (
    *("civitas*", "nginx*", "postgresql*", "docker*", "containerd*", "ssh.service", "ssh.socket", "sshd.service", "chrony*", "postfix*"),
    *("prometheus*", "nftables*", "auditd*", "audit-rules*", "rsyslog*", "logrotate*", "unattended-upgrades*", "apt-daily*", "certbot*"),
    *("systemd-journald*", "systemd-timesyncd*", "systemd-resolved*", "systemd-networkd.service", "networking.service", "clamav*"),
    *("patroni*", "etcd*", "pgbackrest*", "docker-registry*", "cron.service"),
)
_SHOWN = (
    *("Id", "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "NRestarts", "ExecMainCode", "ExecMainStatus"),
    *("ActiveEnterTimestamp", "InactiveEnterTimestamp", "MemoryCurrent", "TasksCurrent", "TriggeredBy", "Triggers"),
)
# Without PAM, which would note a login.
_PSQL = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "psql", "-X", "--no-password", "-P", "pager=off", "-c")

# File in the bundle, and the command whose output it is. None of them shows arguments or environments of processes.
COMMANDS: t.Tuple[t.Tuple[str, t.Tuple[str, ...]], ...] = (
    ("system/kernel.txt", ("uname", "-a")),
    ("system/uptime.txt", ("uptime",)),
    ("system/memory.txt", ("free", "-m")),
    ("system/disks.txt", ("df", "-PTh")),
    ("system/inodes.txt", ("df", "-PTi")),
    ("system/block-devices.txt", ("lsblk", "-o", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT,RO")),
    ("system/mounts.txt", ("findmnt", "--list", "-o", "TARGET,SOURCE,FSTYPE,OPTIONS")),
    ("system/processes.txt", ("ps", "-eo", "pid,ppid,user:20,stat,etimes,pcpu,rss,comm", "--sort=-rss")),
    ("system/time.txt", ("timedatectl", "show", "--no-pager")),
    ("system/clock.txt", ("chronyc", "-n", "tracking")),
    ("system/clock-sources.txt", ("chronyc", "-n", "sources")),
    ("system/accounts-logged-in.txt", ("who", "-b")),
    ("network/addresses.txt", ("ip", "-br", "address")),
    ("network/routes.txt", ("ip", "route")),
    ("network/routes-ipv6.txt", ("ip", "-6", "route")),
    ("network/links.txt", ("ip", "-s", "link")),
    ("network/listening.txt", ("ss", "-ltnup")),
    ("network/sockets.txt", ("ss", "-s")),
    ("network/firewall.txt", ("nft", "list", "ruleset")),
    ("packages/installed.txt", ("dpkg-query", "-W", "-f", "${binary:Package} ${Version} ${db:Status-Abbrev}\\n")),
    ("packages/held.txt", ("apt-mark", "showhold")),
    ("packages/audit.txt", ("dpkg", "--audit")),
    ("services/failed.txt", ("systemctl", "list-units", "--failed", "--all", "--plain", "--no-pager")),
    ("services/units.txt", ("systemctl", "show", "--no-pager", f"--property={','.join(_SHOWN)}", *_UNITS)),
    ("services/timers.txt", ("systemctl", "list-timers", "--all", "--no-pager")),
    ("services/jobs.txt", ("systemctl", "list-jobs", "--no-pager")),
    ("civitas/certificates.txt", ("/usr/local/sbin/civitas-certificates", "list")),
    ("civitas/access.txt", ("/usr/local/sbin/civitas-access",)),
    ("civitas/logins.txt", ("/usr/local/sbin/civitas-logins", "status")),
    ("civitas/alerts.txt", ("/usr/local/sbin/civitas-alerts", "status")),
    ("mail/settings.txt", ("postconf", "-n")),
    ("mail/queue.txt", ("postqueue", "-p")),
    ("nginx/version.txt", ("nginx", "-v")),
    ("postgresql/clusters.txt", ("pg_lsclusters",)),
    (
        "postgresql/databases.txt",
        (*_PSQL, "SELECT datname, pg_size_pretty(pg_database_size(oid)) AS size, age(datfrozenxid) FROM pg_database"),
    ),
    (
        "postgresql/connections.txt",
        (*_PSQL, "SELECT datname, state, wait_event_type, count(*), max(now() - xact_start) FROM pg_stat_activity GROUP BY 1, 2, 3"),
    ),
    (
        "postgresql/statistics.txt",
        (*_PSQL, "SELECT datname, xact_commit, xact_rollback, deadlocks, temp_bytes, conflicts, checksum_failures FROM pg_stat_database"),
    ),
    ("containers/version.txt", ("docker", "version")),
    (
        "containers/list.txt",
        ("docker", "ps", "--all", "--no-trunc", "--format", "table {{.Names}}\\t{{.Image}}\\t{{.State}}\\t{{.Status}}\\t{{.Ports}}"),
    ),
    ("containers/images.txt", ("docker", "images", "--digests")),
    ("containers/usage.txt", ("docker", "system", "df")),
    ("containers/networks.txt", ("docker", "network", "ls")),
)
# What of a container's description is no environment, no argument and no output of its health check.
_CONTAINER = (
    "{{.Name}}\timage={{.Config.Image}}\tdigest={{.Image}}\tstatus={{.State.Status}}\thealth={{if .State.Health}}{{.State.Health.Status}} "
    "({{.State.Health.FailingStreak}} failures){{else}}none{{end}}\trestarts={{.RestartCount}}\texit={{.State.ExitCode}}"
    "\tkilled_for_memory={{.State.OOMKilled}}\tstarted={{.State.StartedAt}}\tfinished={{.State.FinishedAt}}"
)

# Small files as they are: what the roles lay down, and what programs of the collection keep. Which of them hold secrets, their modes tell.
CONFIGURATION = (
    *(
        "etc/os-release",
        "etc/debian_version",
        "etc/hosts",
        "etc/resolv.conf",
        "etc/fstab",
        "etc/apt/sources.list",
        "etc/apt/sources.list.d/*",
    ),
    *("etc/apt/apt.conf.d/90civitas*", "etc/apt/preferences.d/*", "etc/chrony/*.conf", "etc/default/chrony", "etc/default/prometheus*"),
    *("etc/sysctl.d/*", "etc/modprobe.d/90-civitas.conf", "etc/security/limits.d/90-civitas.conf", "etc/profile.d/civitas-*"),
    *(
        "etc/systemd/journald.conf.d/*",
        "etc/systemd/coredump.conf.d/*",
        "etc/systemd/system/civitas-*",
        "etc/systemd/system/*.d/*civitas*.conf",
    ),
    *("etc/needrestart/conf.d/*", "etc/logrotate.conf", "etc/logrotate.d/*", "etc/rsyslog.d/*.conf", "etc/sudoers.d/civitas-*"),
    *("etc/audit/rules.d/*civitas*", "etc/at.allow", "etc/cron.allow", "etc/aide/aide.conf", "etc/pam.d/sshd"),
    *("etc/ssh/sshd_config", "etc/ssh/sshd_config.d/*.conf", "etc/ssh/civitas/*/sshd_config", "usr/share/pam-configs/civitas-*"),
    *(
        "etc/civitas/*.json",
        "etc/civitas/*.conf",
        "etc/civitas/*.known_hosts",
        "etc/civitas/*.yml",
        "etc/civitas/*.sql",
        "etc/civitas/egress/*",
        "etc/civitas/*.nft",
    ),
    *("etc/docker/daemon.json", "etc/nginx/nginx.conf", "etc/nginx/civitas/*.conf", "etc/nginx/sites-enabled/*"),
    *("etc/postgresql/*/*/conf.d/*.conf", "etc/postgresql/*/*/pg_hba.conf", "etc/postgresql/*/*/postgresql.conf"),
    *("etc/postfix/main.cf", "etc/postfix/master.cf", "etc/postfix/senders", "etc/postfix/recipients", "etc/postfix/re*"),
    *("etc/prometheus/*.yml", "etc/prometheus/rules/*.yml", "etc/letsencrypt/renewal-hooks/deploy/civitas"),
    *("srv/civitas/apps/*/compose.yml", "var/lib/civitas/*.json", "var/lib/civitas/apps/*/jobs.json", "var/lib/civitas/metrics/*.prom"),
    *("proc/meminfo", "proc/loadavg", "proc/pressure/*", "proc/net/sockstat"),
)
# Files that are secrets, or records of people.
_NEVER = re.compile(
    r"etc/(?:civitas/(?:apps|second-factor|backup)/|postfix/login|apt/auth|shadow|gshadow|ssh/ssh_host_)|.*(?:/secrets?/|\.key\Z|key\.pem\Z|\.p12\Z)"
    r"|var/lib/civitas/(?:access|revert)/"
)
# Kept for root alone, but no secrets in them.
_OPEN = re.compile(
    r"etc/(?:civitas/(?:access|certificates)\.json|civitas/[a-z-]+\.nft|audit/|sudoers\.d/|postgresql/|at\.allow|cron\.allow|ssh/)"
    r"|srv/civitas/apps/[^/]+/compose\.yml|var/lib/civitas/(?:firewall|hardening|metrics)\.json|var/lib/civitas/apps/[^/]+/jobs\.json"
)


class Wanted(t.NamedTuple):
    """What to collect.

    Args:
        hours: how far logs go back.
        log_bytes: of each log, its end.
        applications: whether what containers wrote is collected.
    """

    hours: int = 24
    log_bytes: int = 10 << 20
    applications: bool = False


class Missing(Exception):
    """A part cannot be collected; says why, in words of its own."""


class Bundle:
    """The ZIP file that grows, and what is told of it."""

    def __init__(self, path: str, redactor: Redactor, root: str = "/") -> None:
        self.root = root
        self.deadline = time.monotonic() + _ALL
        self._redactor = redactor
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self._files: t.List[t.Dict[str, t.Any]] = []
        self._missing: t.List[t.Dict[str, str]] = []
        self._counts: t.Counter[str] = collections.Counter()

    def add(self, name: str, text: t.Iterable[str], notes: t.Sequence[str] = ()) -> None:
        """Write a part; a note is told beside it. What goes wrong meanwhile makes it missing, or cut."""
        stream, size, said = self._redactor.stream(), 0, []
        parts = iter(text)
        try:
            first = next(parts, "")
        except (Missing, OSError, ValueError) as error:
            self.miss(name, _reason(error))
            return
        with self._zip.open(zipfile.ZipInfo(name, time.gmtime()[:6]), "w", force_zip64=True) as member:
            try:
                piece: t.Optional[str] = first
                while piece is not None:
                    data = _shortened(stream.feed(piece)).encode("utf-8", "backslashreplace")
                    member.write(data)
                    size += len(data)
                    piece = next(parts, None)
            except (Missing, ValueError) as error:
                said.append(f"it ends early: {_reason(error)}")
        self._counts.update(stream.counts)
        self._files.append({"name": name, "bytes": size, "note": "; ".join([*notes, *said])})

    def miss(self, name: str, reason: str) -> None:
        self._missing.append({"name": name, "reason": reason})

    def close(self) -> None:
        # Names of files may hold what people wrote as well.
        manifest = {"files": self._files, "missing": self._missing, "too_short": sorted(set(self._redactor.too_short))}
        text = json.dumps({**redacted_texts(manifest, self._redactor.redact), "redacted": dict(self._counts)}, indent=1)
        self._zip.writestr(MANIFEST, text)
        self._zip.close()


def redacted_texts(data: t.Any, redact: t.Callable[[str], str]) -> t.Any:
    """Lists and mappings with their texts redacted, each by itself, so that they stay what they are."""
    if isinstance(data, dict):
        return {name: redacted_texts(value, redact) for name, value in data.items()}
    if isinstance(data, list):
        return [redacted_texts(item, redact) for item in data]
    return redact(data) if isinstance(data, str) else data


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error) or type(error).__name__


def _shortened(text: str) -> str:
    """With the middle of very long lines left out; after redaction, so that no secret is cut in two."""
    if len(text) <= _LARGEST_LINE:
        return text
    found = []
    for line in text.split("\n"):
        if len(line) > _LARGEST_LINE:
            line = f"{line[: _LARGEST_LINE // 2]}[... {len(line) - _LARGEST_LINE} characters left out ...]{line[-_LARGEST_LINE // 2 :]}"
        found.append(line)
    return "\n".join(found)


# --- sources ----------------------------------------------------------------------------------------------------------


def output(command: t.Sequence[str], patience: float = PATIENCE, most: int = _LARGEST_PART, deadline: float = 0) -> t.Iterator[bytes]:
    """What a command prints, with its errors.

    Raises:
        Missing: it is not there, did not end in time, or printed more than C(most) bytes. What it printed before was given.
    """
    program = shutil.which(command[0], path=_ENVIRONMENT["PATH"])
    if not program or not _is_there(command):
        raise Missing(f"{'psql' if command[0] == _PSQL[0] else command[0]} is not installed")
    end = time.monotonic() + patience
    if deadline:
        end = min(end, deadline)
    if end <= time.monotonic():
        raise Missing("there was no time left for it")
    process = subprocess.Popen(
        [program, *command[1:]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_ENVIRONMENT,
        cwd="/",
        start_new_session=True,
    )
    total = 0
    try:
        with selectors.DefaultSelector() as selector:
            pipe = process.stdout
            if pipe is None:
                raise Missing("it has no output")
            selector.register(pipe, selectors.EVENT_READ)
            while True:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise Missing(f"{command[0]} did not end within {patience:.0f} seconds")
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    break
                yield data
                total += len(data)
                if total > most:
                    raise Missing(f"{command[0]} printed more than {most >> 20} MiB")
    finally:
        _end(process)


def _is_there(command: t.Sequence[str]) -> bool:
    needed = [command[0], "psql"] if command[0] == _PSQL[0] else [command[0]]
    return all(shutil.which(program, path=_ENVIRONMENT["PATH"]) for program in needed)


def _end(process: subprocess.Popen[bytes]) -> None:
    """One that waits for a dead disk does not even hear the last signal; it is left behind then."""
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.stdout:
        process.stdout.close()


def end_of(path: str, most: int) -> t.Tuple[t.Iterator[bytes], int]:
    """The end of a file, from the first whole line, and how many bytes before it are left out."""
    stream = open(path, "rb")  # noqa: SIM115 - it is closed where it is read to its end
    size = os.fstat(stream.fileno()).st_size
    left_out = max(0, size - most)
    if left_out:
        stream.seek(left_out)
        # A secret may have been cut at this place.
        left_out += len(stream.readline(65536))
    return _read(stream, most), left_out


def _read(stream: t.BinaryIO, most: int) -> t.Iterator[bytes]:
    with stream:
        while most > 0:
            data = stream.read(min(65536, most))
            if not data:
                return
            most -= len(data)
            yield data


def _entries(arguments: t.Sequence[str], wanted: Wanted, deadline: float, notes: t.List[str]) -> t.Iterator[str]:
    """Lines of the journal, the newest that fit into the size, the oldest of them first."""
    command = [
        *("journalctl", "--reverse", "--no-pager", "--quiet", "--all", "--output=json"),
        *(f"--output-fields={','.join(logs.FIELDS)}", f"--since=-{wanted.hours}h", *arguments),
    ]
    found: t.List[str] = []
    size = containers = 0
    waiting: t.List[bytes] = []
    try:
        for data in output(command, 90, 1 << 40, deadline):
            if b"\n" not in data:
                waiting.append(data)
                if sum(map(len, waiting)) > 16 << 20:
                    raise Missing("an entry has more than 16 MiB")
                continue
            *lines, rest = b"".join([*waiting, data]).split(b"\n")
            waiting = [rest]
            for line in lines:
                text = logs.journal(line, wanted.applications)
                containers += text is None
                if text:
                    found.append(text)
                    size += len(text)
            if size > wanted.log_bytes:
                notes.append(f"only its end, as it is larger than {wanted.log_bytes >> 20} MiB")
                break
    except Missing as error:
        if not found:
            raise
        notes.append(f"only its end: {error}")
    if containers:
        notes.append(f"{containers} entries of containers are left out")
    found.reverse()
    for at in range(0, len(found), 4096):
        yield "".join(found[at : at + 4096])


# --- the parts --------------------------------------------------------------------------------------------------------


def plan(wanted: Wanted, root: str = "/") -> t.List[str]:
    """The names of the parts that this host has, as far as they are known beforehand."""
    names = [name for name, command in COMMANDS if _is_there(command)]
    names += [f"files/{path}" for path in configuration(root)]
    names += ["logs/journal.txt", "logs/journal-units.txt", *(name for name, _path, _filter in _log_files(root))]
    if shutil.which("docker", path=_ENVIRONMENT["PATH"]):
        names.append("containers/state.txt")
        names += ["containers/logs/NAME.txt"] if wanted.applications else []
    return sorted(names)


def collect(path: str, wanted: Wanted, root: str = "/") -> None:
    """Write the bundle to C(path), which must be a place for root alone."""
    bundle = Bundle(path, Redactor(_secrets(root)), root)
    try:
        for name, command in COMMANDS:
            _command(bundle, name, command)
        _configuration(bundle)
        _containers(bundle, wanted)
        _logs(bundle, wanted)
    finally:
        bundle.close()


def _secrets(root: str) -> t.List[Secret]:
    environments: t.List[t.List[str]] = []
    for name in _container_names():
        with contextlib.suppress(Missing, ValueError):
            told = json.loads(b"".join(output(("docker", "inspect", "--format", "{{json .Config.Env}}", name))))
            environments.append([str(word) for word in told or ()])
    return of_host(root, environments)


def _container_names() -> t.List[str]:
    try:
        text = b"".join(output(("docker", "ps", "--all", "--format", "{{.Names}}"))).decode("utf-8", "replace")
    except Missing:
        return []
    return [name for name in text.split() if re.match(r"[A-Za-z0-9][\w.-]*\Z", name)]


def _command(bundle: Bundle, name: str, command: t.Sequence[str]) -> None:
    bundle.add(name, whole_lines(output(command, deadline=bundle.deadline)))


def configuration(root: str) -> t.List[str]:
    """The files that are shown, as paths below root."""
    found = set()
    for pattern in CONFIGURATION:
        for path in glob.glob(os.path.join(root, pattern)):
            relative = os.path.relpath(path, root)
            # What a link leads to is judged: sites-enabled holds links, and one may lead to a key.
            target = os.path.relpath(os.path.realpath(path), os.path.realpath(root))
            if os.path.isfile(path) and not _NEVER.match(relative) and not _NEVER.match(target):
                found.add(relative)
    return sorted(found)


def _configuration(bundle: Bundle) -> None:
    for relative in configuration(bundle.root):
        path, name = os.path.join(bundle.root, relative), f"files/{relative}"
        try:
            private = not os.stat(path).st_mode & 0o004 and not _OPEN.match(relative)
            data, left_out = end_of(path, _LARGEST_PART)
            if private:
                content = b"".join(data)
                bundle.add(name, [shape(content)], ["only its shape, as it holds secrets"])
                continue
        except (OSError, Missing) as error:
            bundle.miss(name, _reason(error))
            continue
        bundle.add(name, whole_lines(data), _cut(left_out))


def _cut(left_out: int) -> t.List[str]:
    return [f"only its end, {left_out} bytes before it are left out"] if left_out else []


def shape(data: bytes) -> str:
    """What a file with secrets says without its texts: names and numbers of JSON.

    Raises:
        Missing: it is no JSON.
    """
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Missing("it holds secrets and has no shape that could be shown") from None

    def shown(value: t.Any) -> t.Any:
        if isinstance(value, dict):
            return {name: shown(item) for name, item in value.items()}
        if isinstance(value, list):
            return [shown(item) for item in value]
        return "(text)" if isinstance(value, str) and value else value

    return json.dumps(shown(content), indent=1) + "\n"


def _containers(bundle: Bundle, wanted: Wanted) -> None:
    names = _container_names()
    if not names:
        return
    _command(bundle, "containers/state.txt", ("docker", "inspect", "--format", _CONTAINER, *names))
    if not wanted.applications:
        bundle.miss("containers/logs", "nobody asked for it; applications may log people's records")
        return
    for name in names:
        notes: t.List[str] = []
        command = ("docker", "logs", "--timestamps", "--since", f"{wanted.hours}h", name)
        parts = _last(output(command, 60, 1 << 40, bundle.deadline), wanted.log_bytes, notes)
        bundle.add(f"containers/logs/{name}.txt", whole_lines(parts), notes)


def _last(parts: t.Iterator[bytes], most: int, notes: t.List[str]) -> t.Iterator[bytes]:
    """The last bytes of what a command prints, from the first whole line."""
    kept: t.Deque[bytes] = collections.deque()
    size = left_out = 0
    for data in parts:
        kept.append(data)
        size += len(data)
        while size - len(kept[0]) >= most:
            left_out += len(kept[0])
            size -= len(kept.popleft())
    if left_out:
        notes.extend(_cut(left_out))
        first = kept.popleft()
        kept.appendleft(first[first.find(b"\n") + 1 :] if b"\n" in first else b"")
    yield from kept


def _log_files(root: str) -> t.List[t.Tuple[str, str, t.Optional[t.Callable[[str], str]]]]:
    """Name in the bundle, path, and what its lines go through."""
    found: t.List[t.Tuple[str, str, t.Optional[t.Callable[[str], str]]]] = []
    for pattern, told in (
        ("var/log/nginx/error.log", logs.nginx),
        ("var/log/nginx/error.log.1", logs.nginx),
        ("var/log/postgresql/*.log", logs.postgres),
        ("var/log/postgresql/*.log.1", logs.postgres),
        ("var/log/apt/history.log", None),
        ("var/log/unattended-upgrades/unattended-upgrades.log", None),
    ):
        for path in sorted(glob.glob(os.path.join(root, pattern))):
            found.append((f"logs/{os.path.relpath(path, os.path.join(root, 'var/log'))}", path, told))
    return found


def _logs(bundle: Bundle, wanted: Wanted) -> None:
    for name, path, told in _log_files(bundle.root):
        try:
            data, left_out = end_of(path, wanted.log_bytes)
        except OSError as error:
            bundle.miss(name, _reason(error))
            continue
        text = whole_lines(data)
        bundle.add(name, map(told, text) if told else text, _cut(left_out))
    failed: t.List[str] = []
    with contextlib.suppress(Missing):
        listed = b"".join(output(("systemctl", "list-units", "--failed", "--all", "--plain", "--no-legend", "--no-pager")))
        failed = [line.split()[0] for line in listed.decode("utf-8", "replace").splitlines() if line.split()]
    journals = [("logs/journal.txt", ["--priority=notice"])]
    journals.append(("logs/journal-units.txt", ["--priority=info", *(f"--unit={unit}" for unit in (*_UNITS, *failed))]))
    for name, arguments in journals:
        notes: t.List[str] = []
        parts = _entries(arguments, wanted, bundle.deadline, notes)
        bundle.add(name, parts, notes)
