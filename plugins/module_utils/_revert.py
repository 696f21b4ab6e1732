# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An undo log with a deadline: whoever changes the way in arms it first, and the host goes back by itself unless the change is confirmed.

A module calls arm() before its first change. The host then holds what was there before, and a service of its own waits for the deadline.
confirm() is called over a new connection and drops the log. Without it the service restores, also after a crash of anything, itself
included; after a reboot another service restores before the network is up.

This file is also the program that those services run: arming installs it. Standard library only, and no import from the collection.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import filecmp
import inspect
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import syslog
import time
import typing as t
import zlib

# The old state is back within 120 seconds: the deadline, and what restoring takes.
SECONDS = 90
LONGEST = 100
SERVICE = "civitas-revert.service"
BOOT_SERVICE = "civitas-revert-boot.service"
# Of one action: a service that hangs must not keep the others from theirs.
ACTION_SECONDS = 20.0
ATTEMPTS = 10
PAUSE = 5.0
PATIENCE = 60.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_TABLE = re.compile(r"(ip|ip6|inet|arp|bridge|netdev) [A-Za-z_][A-Za-z0-9_./-]*\Z")
_SYSCTL = re.compile(r"[A-Za-z0-9_]+([./][A-Za-z0-9_@:-]+)+\Z")
# What starts a service has no place in a boot: the service starts later anyway, with what was restored.
_STARTS = ("start", "restart", "reload", "try-restart", "reload-or-restart", "try-reload-or-restart", "condrestart", "force-reload")

_UNIT = """\
# Managed by Ansible: written by civitas.hosting when a change to the way in is armed.
[Unit]
Description=Go back to the old state unless the change to the way in is confirmed
Documentation=file:{program}
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
# Never given up.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={python} -I {program} wait
SyslogIdentifier=civitas-revert
Restart=on-failure
# Ended by anybody but systemd it is started again.
RestartForceExitStatus=SIGTERM
RestartSec=2
OOMScoreAdjust=-900
"""

_BOOT_UNIT = """\
# Managed by Ansible: written by civitas.hosting when a change to the way in is armed.
[Unit]
Description=Go back to the old state when the host was restarted before a change to the way in was confirmed
Documentation=file:{program}
DefaultDependencies=no
RequiresMountsFor={state} {program} /etc
After=local-fs.target
Wants=network-pre.target
Before=sysinit.target network-pre.target systemd-sysctl.service systemd-networkd.service networking.service
Before=ssh.service ssh.socket sshd.service nftables.service civitas-firewall.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=oneshot
# Else every start of another unit would run it again.
RemainAfterExit=yes
ExecStart={python} -I {program} boot
SyslogIdentifier=civitas-revert
TimeoutStartSec=120

[Install]
WantedBy=sysinit.target
"""


class RevertError(Exception):
    """Why nothing may be changed, or what could not be put back; and what to do."""


# --- public


def arm(
    paths: t.Iterable[str] = (),
    actions: t.Iterable[t.Sequence[str]] = (),
    tables: t.Iterable[str] = (),
    sysctls: t.Iterable[str] = (),
    seconds: int = SECONDS,
    attributes: t.Iterable[str] = (),
) -> str:
    """Note the state of PATHS (directories with all that is in them), nftables TABLES ("inet name") and SYSCTLS, and start the clock.

    Called before a change, as root, never in check mode. What is noted already is not noted again; ACTIONS (argument lists) are run after
    restoring, each once, in the order in which they were first given. The deadline is SECONDS from now, or the later one of another call.
    ATTRIBUTES are directories of which owner and mode are noted, and not what is in them.
    Returns the log's id. RevertError: the change must not be made, as it could not be taken back.
    """
    return Revert().arm(paths, actions, tables, sysctls, seconds, attributes)


def pending() -> t.Optional[t.Dict[str, t.Any]]:
    """What waits for confirmation: id, since (UTC), seconds_left, restoring (bool), paths, tables, sysctls. None: nothing."""
    return Revert().pending()


def holds(log: str) -> bool:
    """Whether the log of this id still waits: a change that took longer than the deadline must be given up."""
    found = Revert().pending()
    return found is not None and found["id"] == log and not found["restoring"]


def confirm() -> t.Optional[t.Dict[str, t.Any]]:
    """Drop the log: the change stays. Returns what waited, None when nothing did. RevertError when the host goes back already."""
    return Revert().confirm()


def restore(why: str = "asked for") -> t.Optional[t.Dict[str, t.Any]]:
    """Go back now. Returns the report, None when nothing waited. RevertError names what could not be put back; it is tried again."""
    return Revert().restore(why)


def last() -> t.Optional[t.Dict[str, t.Any]]:
    """The report of the last end of a log: id, outcome (confirmed, restored, failed), since, at, seconds_ago, why, restored, problems."""
    return Revert().last()


# --- the log


# The lock that a process holds from arming until it ends.
_changing: t.List[int] = []


class Revert:
    """The undo log of a host.

    C(armed.json) is the log; C(restoring.json) is the same one from the moment that restoring begins, so that going back is carried to its
    end whatever happens. Both steps are renames, and ending is an unlink: a full disk hinders none of them.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.state = os.path.join(root, "var/lib/civitas/revert")
        # Gone after a reboot, which is how a reboot is told.
        self.boot = os.path.join(root, "run/civitas-revert")
        self.program = os.path.join(root, "usr/local/lib/civitas/revert.py")
        self.units = os.path.join(root, "etc/systemd/system")
        self.armed = os.path.join(self.state, "armed.json")
        self.restoring = os.path.join(self.state, "restoring.json")
        self.failed = os.path.join(self.state, "failed.json")
        self.report = os.path.join(self.state, "last.json")
        # The report of a change that was taken back, and that nobody heard before the next one was confirmed.
        self.untold = os.path.join(self.state, "untold.json")

    def arm(
        self,
        paths: t.Iterable[str] = (),
        actions: t.Iterable[t.Sequence[str]] = (),
        tables: t.Iterable[str] = (),
        sysctls: t.Iterable[str] = (),
        seconds: int = SECONDS,
        attributes: t.Iterable[str] = (),
    ) -> str:
        wanted = _checked(paths, actions, tables, sysctls, seconds, attributes)
        try:
            _make_directory(self.state, 0o700)
            self._hold()
            with self._lock():
                if os.path.exists(self.restoring):
                    raise RevertError(
                        "the host is still going back to the state before an earlier change. Wait a minute and run this again; "
                        "if it says the same then, see on the host: journalctl -t civitas-revert"
                    )
                self._install()
                # It waits for the lock: if this process dies from here on, it finds either nothing or a whole log.
                self._systemctl("restart", SERVICE)
                return self._note(*wanted, seconds)
        except OSError as error:
            raise RevertError(
                f"the way back could not be noted ({error.filename or self.state}: {error.strerror or error}); "
                "nothing was changed, as it could not be taken back"
            ) from error

    def _note(
        self,
        paths: t.Sequence[str],
        actions: t.Sequence[t.List[str]],
        tables: t.Sequence[str],
        sysctls: t.Sequence[str],
        attributes: t.Sequence[str],
        seconds: int,
    ) -> str:
        log = _read(self.armed)
        if log is None:
            self._sweep()
            log = {
                "id": "%d-%s" % (time.time(), os.urandom(4).hex()),
                "since": _utc(),
                "deadline": 0.0,
                "items": [],
                "tables": {},
                "sysctls": {},
                "actions": [],
            }
        images = os.path.join(self.state, log["id"])
        _make_directory(images, 0o700)
        _make_directory(self.boot, 0o700)
        with open(os.path.join(self.boot, log["id"]), "w", encoding="ascii"):
            pass
        for path in paths:
            self._note_path(log["items"], path, images)
        for path in attributes:
            if all(item["path"] != path for item in log["items"]):
                status = os.stat(path)
                owned = {"uid": status.st_uid, "gid": status.st_gid, "mode": stat.S_IMODE(status.st_mode)}
                log["items"].append({"path": path, "kind": "attributes", **owned})
        _sync(images)
        for table in tables:
            if table not in log["tables"]:
                log["tables"][table] = _ruleset(table)
        for name in sysctls:
            if name not in log["sysctls"]:
                log["sysctls"][name] = _text(_sysctl_file(name))
        for action in actions:
            if action not in log["actions"]:
                log["actions"].append(action)
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        log["deadline"] = max(log["deadline"], now + seconds)
        log["seconds"] = seconds
        _write(self.armed, log)
        return str(log["id"])

    def _note_path(self, items: t.List[t.Dict[str, t.Any]], path: str, images: str) -> None:
        path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        known = {item["path"]: item for item in items if item["kind"] != "attributes"}
        if path in known:
            if known[path]["kind"] == "parent":
                known[path]["kind"] = "absent"
            return
        parents = _parents(path)
        if any(known[parent]["kind"] != "parent" for parent in parents if parent in known):
            return
        for parent in parents:
            if parent in known:
                continue
            if not os.path.lexists(parent):
                items.append({"path": parent, "kind": "parent"})
            elif not os.path.isdir(parent):
                # It has to give way for the path.
                self._note_item(items, parent, images)
                return
        self._note_item(items, path, images)

    def _note_item(self, items: t.List[t.Dict[str, t.Any]], path: str, images: str) -> None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            items.append({"path": path, "kind": "absent"})
            return
        item: t.Dict[str, t.Any] = {"path": path, "uid": status.st_uid, "gid": status.st_gid, "mode": stat.S_IMODE(status.st_mode)}
        items.append(item)
        if stat.S_ISLNK(status.st_mode):
            item.update(kind="link", target=os.readlink(path))
        elif stat.S_ISREG(status.st_mode):
            item.update(kind="file", image=str(len(items)))
            _copy(path, os.path.join(images, item["image"]))
        elif stat.S_ISDIR(status.st_mode):
            item.update(kind="directory", names=sorted(os.listdir(path)))
            for name in item["names"]:
                self._note_item(items, os.path.join(path, name), images)
        else:
            raise RevertError(f"{path} is a device, pipe or socket, whose state cannot be noted; leave it out of the change")

    def pending(self) -> t.Optional[t.Dict[str, t.Any]]:
        # In this order: the log goes from the first name to the second.
        for file in (self.armed, self.restoring):
            log = _read(file)
            if log is not None:
                return {
                    "id": log["id"],
                    "since": log["since"],
                    "seconds_left": max(0, round(log["deadline"] - time.clock_gettime(time.CLOCK_BOOTTIME))),
                    "restoring": file == self.restoring,
                    "paths": [item["path"] for item in log["items"] if item["kind"] != "parent"],
                    "tables": sorted(log["tables"]),
                    "sysctls": sorted(log["sysctls"]),
                }
        return None

    def confirm(self) -> t.Optional[t.Dict[str, t.Any]]:
        if not os.path.isdir(self.state):
            return None
        try:
            with self._flock("changing", 20, "another run is changing the way in at this moment; run this again"), self._lock():
                found = self.pending()
                if found is None:
                    return None
                if found["restoring"]:
                    raise RevertError("the host is going back to its old state already")
                os.unlink(self.armed)
                if _is_unheard(self._last(self.report)):
                    os.rename(self.report, self.untold)
                _sync(self.state)
                self._tell({**found, "outcome": "confirmed", "why": "a new connection was accepted", "restored": [], "problems": []})
                self._sweep()
                return found
        except OSError as error:
            raise RevertError(f"the change could not be confirmed: {error}") from error

    def last(self) -> t.Optional[t.Dict[str, t.Any]]:
        return _aged(self._last(self.report))

    def _last(self, path: str) -> t.Optional[t.Dict[str, t.Any]]:
        report = _read(path)
        if report is None or "outcome" in report:
            return report
        ended = os.stat(path).st_ctime
        told = {"id": report["id"], "since": report["since"], "at": _utc(ended), "time": ended, "outcome": "restored"}
        restored = [item["path"] for item in report["items"] if item["kind"] != "parent"]
        return {**told, "why": "there was no room for the reason", "restored": restored, "problems": []}

    def unheard(self) -> t.Optional[t.Dict[str, t.Any]]:
        """The report of a change that was taken back, once: for the run that made it."""
        for path in (self.report, self.untold):
            report = self._last(path)
            if _is_unheard(report):
                with contextlib.suppress(OSError):
                    if path == self.untold:
                        os.unlink(path)
                    else:
                        _write(path, {**(report or {}), "heard": True})
                return _aged(report)
        return None

    # --- going back

    def restore(self, why: str = "", booting: bool = False) -> t.Optional[t.Dict[str, t.Any]]:
        """One attempt. RevertError names what could not be put back; the log stays for the next one."""
        if not os.path.isdir(self.state):
            return None
        with self._lock():
            return self._restore(why, booting)

    def _restore(self, why: str, booting: bool) -> t.Optional[t.Dict[str, t.Any]]:
        if os.path.exists(self.armed):
            os.rename(self.armed, self.restoring)
            _sync(self.state)
        log = _read(self.restoring)
        if log is None:
            return None
        why = why or self._why(log)
        _say(syslog.LOG_WARNING, f"going back to the state of {log['since']}: {why}")
        restored: t.List[str] = []
        problems: t.List[str] = []
        images = os.path.join(self.state, log["id"])
        # Backwards: what was noted first is the oldest.
        for item in reversed(log["items"]):
            try:
                if _put_back(item, images, log["id"]):
                    restored.append(item["path"])
                    _say(syslog.LOG_NOTICE, f"restored {item['path']}")
            except OSError as error:
                problems.append(f"{item['path']}: {error.strerror or error}")
        for table, ruleset in log["tables"].items():
            try:
                if _put_back_table(table, ruleset):
                    restored.append(f"table {table}")
            except RevertError as error:
                problems.append(f"table {table}: {error}")
        for name, value in log["sysctls"].items():
            try:
                if _text(_sysctl_file(name)) != value:
                    with open(_sysctl_file(name), "w", encoding="utf-8") as stream:
                        stream.write(value)
                    restored.append(f"sysctl {name}")
            except OSError as error:
                problems.append(f"sysctl {name}: {error.strerror or error}")
        for action in log["actions"]:
            problem = _act(action, booting)
            problems += [f"{' '.join(action)}: {problem}"] if problem else []
        report = {"id": log["id"], "since": log["since"], "why": why, "restored": restored, "problems": problems}
        if problems:
            for problem in problems:
                _say(syslog.LOG_ERR, problem)
            raise RevertError("could not be put back: " + "; ".join(problems))
        # Else a power failure after the unlink could take back what was put back.
        os.sync()
        if self._tell({**report, "outcome": "restored"}):
            os.unlink(self.restoring)
        else:
            # The disk is full: the log itself becomes the report.
            os.rename(self.restoring, self.report)
        _sync(self.state)
        self._sweep()
        _say(syslog.LOG_WARNING, f"the old state is back ({len(restored)} restored)")
        return self.last()

    def _why(self, log: t.Mapping[str, t.Any]) -> str:
        if not self._same_boot(log):
            return "the host was restarted before the change was confirmed"
        return f"no new connection confirmed the change within {log['seconds']} seconds"

    def _same_boot(self, log: t.Mapping[str, t.Any]) -> bool:
        return os.path.exists(os.path.join(self.boot, log["id"]))

    def wait(self) -> None:
        """Wait for the deadline and go back then. Returns when nothing waits any more."""
        attempts = 0
        while True:
            while not self._due():
                time.sleep(0.5)
            with self._lock(None):
                # Read again: it may have been confirmed, or its deadline moved.
                if not os.path.exists(self.armed) and not os.path.exists(self.restoring):
                    self._sweep()
                    return
                if not self._due():
                    continue
                try:
                    self._restore("", False)
                    return
                except (RevertError, OSError) as error:
                    attempts += 1
                    if attempts == ATTEMPTS:
                        self._give_up(str(error))
                        return
            time.sleep(PAUSE)

    def _due(self) -> bool:
        log = _read(self.armed)
        return log is None or not self._same_boot(log) or time.clock_gettime(time.CLOCK_BOOTTIME) >= log["deadline"]

    def _give_up(self, problems: str) -> None:
        """The rest needs a person; the images stay until the next change."""
        log = _read(self.restoring)
        if log is not None:
            os.rename(self.restoring, self.failed)
            _sync(self.state)
            told = {"id": log["id"], "since": log["since"], "why": self._why(log)}
            self._tell({**told, "outcome": "failed", "restored": [], "problems": [problems]})
            _say(syslog.LOG_CRIT, f"gave up; what was there before is in {self.state}/{log['id']}, see {self.failed}: {problems}")

    def at_boot(self) -> None:
        """Go back at once when a log from before the boot is there; wait for its deadline when it is younger than the boot."""
        log = _read(self.restoring) or _read(self.armed)
        if log is None:
            return
        if not self._same_boot(log):
            try:
                self.restore(booting=True)
                return
            except (RevertError, OSError) as error:
                _say(syslog.LOG_ERR, f"not all could be put back before the services start; trying again: {error}")
        self._systemctl("start", SERVICE, "--no-block")

    # --- parts

    def _install(self) -> None:
        """The program and the units, when they are not there or are not these."""
        python = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
        words = {"program": self.program, "python": python, "state": self.state}
        _make_directory(os.path.dirname(self.program), 0o755)
        _install(self.program, inspect.getsource(sys.modules[__name__]))
        _make_directory(self.units, 0o755)
        changed = [
            _install(os.path.join(self.units, name), text.format(**words)) for name, text in ((SERVICE, _UNIT), (BOOT_SERVICE, _BOOT_UNIT))
        ]
        wanted = os.path.join(self.units, "sysinit.target.wants")
        link = os.path.join(wanted, BOOT_SERVICE)
        if any(changed) or not os.path.islink(link):
            self._systemctl("daemon-reload")
            _make_directory(wanted, 0o755)
            with contextlib.suppress(FileExistsError):
                os.symlink(os.path.join(self.units, BOOT_SERVICE), link)
            _sync(wanted)
            # Done for this boot.
            self._systemctl("start", BOOT_SERVICE)

    def _systemctl(self, *words: str) -> None:
        try:
            done = subprocess.run(
                ["systemctl", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=PATIENCE, env={**os.environ, "PATH": PATH, "LC_ALL": "C"}, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RevertError(f"systemctl {' '.join(words)}: {error}; the change is refused, as nothing would take it back") from None
        if done.returncode != 0:
            raise RevertError(
                f"systemctl {' '.join(words)} failed: {done.stdout.decode('utf-8', 'replace').strip()}; the change is refused, as nothing "
                f"would take it back. See on the host: journalctl -u {SERVICE}"
            )

    def _lock(self, patience: t.Optional[float] = PATIENCE) -> t.ContextManager[None]:
        return self._flock("lock", patience, "the host is going back to its old state, or another run notes it; run this again in a minute")

    @contextlib.contextmanager
    def _flock(self, name: str, patience: t.Optional[float], problem: str) -> t.Iterator[None]:
        handle = os.open(os.path.join(self.state, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            end = None if patience is None else time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX if end is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if end is not None and time.monotonic() > end:
                        raise RevertError(problem) from None
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def _hold(self) -> None:
        """Nothing is confirmed while this process runs: the change would be left without a way back."""
        if not _changing:
            _changing.append(os.open(os.path.join(self.state, "changing"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            fcntl.flock(_changing[0], fcntl.LOCK_SH)

    def _tell(self, report: t.Dict[str, t.Any]) -> bool:
        """Whether there was room for the report. What was done counts, and the journal has it."""
        try:
            _write(self.report, {**report, "at": _utc(), "time": time.time()})
        except OSError:
            return False
        return True

    def _sweep(self) -> None:
        """Remove what no log needs any more."""
        logs = [log["id"] for log in map(_read, (self.armed, self.restoring)) if log]
        if logs:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self.state):
                path = os.path.join(self.state, name)
                if os.path.isdir(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif name.startswith(".new-") or path == self.failed:
                    os.unlink(path)
        with contextlib.suppress(OSError):
            for name in os.listdir(self.boot):
                os.unlink(os.path.join(self.boot, name))


# --- reports


def _is_unheard(report: t.Optional[t.Mapping[str, t.Any]]) -> bool:
    return report is not None and report["outcome"] != "confirmed" and not report.get("heard")


def _aged(report: t.Optional[t.Dict[str, t.Any]]) -> t.Optional[t.Dict[str, t.Any]]:
    return None if report is None else {**report, "seconds_ago": round(time.time() - report["time"])}


# --- what is asked for


def _checked(
    paths: t.Iterable[str],
    actions: t.Iterable[t.Sequence[str]],
    tables: t.Iterable[str],
    sysctls: t.Iterable[str],
    seconds: int,
    attributes: t.Iterable[str],
) -> t.Tuple[t.List[str], t.List[t.List[str]], t.List[str], t.List[str], t.List[str]]:
    listed = [[value] if isinstance(value, str) else list(value) for value in (paths, actions, tables, sysctls, attributes)]
    problems = []
    for path in listed[0] + listed[4]:
        if not isinstance(path, str) or not path.startswith("/") or os.path.normpath(path) != path or path == "/":
            problems.append(f"the path {path!r} is not absolute and plain; write such as /etc/ssh/sshd_config")
    for action in listed[1]:
        if isinstance(action, str) or not action or not all(isinstance(word, str) for word in action):
            problems.append(f"the action {action!r} is no list of words; write such as [systemctl, reload-or-restart, ssh.service]")
    for table in listed[2]:
        if not isinstance(table, str) or not _TABLE.match(table):
            problems.append(f"the table {table!r} has no family and name; write such as 'inet filter'")
    for name in listed[3]:
        if not isinstance(name, str) or not _SYSCTL.match(name):
            problems.append(f"{name!r} names no sysctl; write such as net.ipv4.ip_forward")
        elif not os.path.exists(_sysctl_file(name)):
            problems.append(f"this kernel has no sysctl {name}; correct the name or leave it out")
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 5 <= seconds <= LONGEST:
        problems.append(f"seconds is {seconds!r}; write a number from 5 to {LONGEST}")
    if problems:
        raise RevertError("; ".join(problems))
    texts = [[str(value) for value in group] for group in (listed[0], listed[2], listed[3], listed[4])]
    return texts[0], [list(action) for action in listed[1]], texts[1], texts[2], texts[3]


# --- files


def _put_back(item: t.Mapping[str, t.Any], images: str, log: str) -> bool:
    """Whether the path had to be changed."""
    path, kind = item["path"], item["kind"]
    if kind == "absent":
        return _remove(path)
    if kind == "parent":
        try:
            os.rmdir(path)
        except OSError as error:
            # Not empty: it holds what nobody has noted.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True
    temporary = os.path.join(os.path.dirname(path), ".civitas-0-%08x" % zlib.crc32(f"{log}{path}".encode()))
    _remove(temporary)
    if kind == "directory":
        return _put_back_directory(item)
    if kind == "attributes":
        return os.path.isdir(path) and _put_back_attributes(item)
    image = os.path.join(images, item["image"]) if kind == "file" else ""
    if _is_same(item, image):
        return False
    _make_parents(path)
    if os.path.isdir(path) and not os.path.islink(path):
        _remove(path)
    if kind == "link":
        os.symlink(item["target"], temporary)
        os.chown(temporary, item["uid"], item["gid"], follow_symlinks=False)
        os.rename(temporary, path)
    else:
        _put_back_file(image, temporary, path)
    _sync(os.path.dirname(path))
    return True


def _put_back_file(image: str, temporary: str, path: str) -> None:
    try:
        try:
            # No byte is written: it works on a full disk.
            os.link(image, temporary)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            _copy(image, temporary)
        os.rename(temporary, path)
    except OSError as error:
        _remove(temporary)
        # Full, or a mount point of its own: what is there is written over.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EBUSY, errno.EXDEV):
            raise
        with open(image, "rb") as source, open(path, "r+b") as target:
            shutil.copyfileobj(source, target)
            target.truncate()
            _same_attributes(source.fileno(), target.fileno())


def _put_back_directory(item: t.Mapping[str, t.Any]) -> bool:
    path, changed = item["path"], False
    if os.path.islink(path) or not os.path.isdir(path):
        _remove(path)
        _make_parents(path)
        os.mkdir(path, 0o700)
        changed = True
    for name in os.listdir(path):
        if name not in item["names"]:
            changed |= _remove(os.path.join(path, name))
    return _put_back_attributes(item) or changed


def _put_back_attributes(item: t.Mapping[str, t.Any]) -> bool:
    path, changed = item["path"], False
    status = os.lstat(path)
    if (status.st_uid, status.st_gid) != (item["uid"], item["gid"]):
        os.chown(path, item["uid"], item["gid"])
        changed = True
    if stat.S_IMODE(os.lstat(path).st_mode) != item["mode"]:
        os.chmod(path, item["mode"])
        changed = True
    return changed


def _is_same(item: t.Mapping[str, t.Any], image: str) -> bool:
    try:
        status = os.lstat(item["path"])
    except (FileNotFoundError, NotADirectoryError):
        return False
    if (status.st_uid, status.st_gid) != (item["uid"], item["gid"]):
        return False
    if item["kind"] == "link":
        return stat.S_ISLNK(status.st_mode) and os.readlink(item["path"]) == item["target"]
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != item["mode"]:
        return False
    return os.path.samestat(status, os.lstat(image)) or filecmp.cmp(item["path"], image, shallow=False)


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (IsADirectoryError, PermissionError):
        if not os.path.isdir(path):
            raise
        shutil.rmtree(path)
    return True


def _copy(source: str, target: str) -> None:
    """Content, owner, mode, times and extended attributes, on disk when this returns."""
    with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW), "rb") as reader:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()
            _same_attributes(reader.fileno(), descriptor)
            os.fsync(descriptor)


def _same_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    # After the owner, whose change clears set-id bits.
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(OSError):  # not every file system has them
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _parents(path: str) -> t.List[str]:
    """All directories above a path, the highest first."""
    found = []
    parent = os.path.dirname(path)
    while parent != "/":
        found.append(parent)
        parent = os.path.dirname(parent)
    return found[::-1]


def _make_parents(path: str) -> None:
    for parent in _parents(path):
        if not os.path.isdir(parent):
            _remove(parent)
            os.mkdir(parent, 0o755)


def _make_directory(path: str, mode: int) -> None:
    if not os.path.isdir(path):
        for parent in [*_parents(path), path]:
            if not os.path.isdir(parent):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(parent, mode if parent == path else 0o755)
                _sync(os.path.dirname(parent))
    if stat.S_IMODE(os.stat(path).st_mode) & ~mode:
        os.chmod(path, mode)


def _install(path: str, text: str) -> bool:
    """Whether the file was not there or was another."""
    try:
        with open(path, encoding="utf-8") as stream:
            if stream.read() == text:
                return False
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    _write(path, text, 0o644)
    return True


def _write(path: str, value: t.Any, mode: int = 0o600) -> None:
    """Replace a file by a text, or by a value as JSON: the old one or the new one is there, also after a power failure."""
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".new-{name}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="utf-8") as stream:
            if isinstance(value, str):
                stream.write(value)
            else:
                json.dump(value, stream, indent=1)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync(directory)


def _read(path: str) -> t.Optional[t.Dict[str, t.Any]]:
    try:
        with open(path, encoding="utf-8") as stream:
            value: t.Dict[str, t.Any] = json.load(stream)
            return value
    except FileNotFoundError:
        return None


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- kernel


def _sysctl_file(name: str) -> str:
    # As sysctl(8): with a slash first, dots are part of names, such as those of VLAN interfaces.
    separator = next((character for character in name if character in "./"), ".")
    return "/proc/sys/" + (name if separator == "/" else name.replace(".", "/"))


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read().strip()


def _nft(words: t.Sequence[str], script: str = "") -> t.Tuple[int, str]:
    return _run(["nft", *words], script)


def _ruleset(table: str) -> t.Optional[str]:
    """The table as a script, None when there is none."""
    if shutil.which("nft", path=PATH) is None:
        return None
    code, listed = _nft(["list", "tables"])
    if code != 0:
        raise RevertError(f"nft list tables failed: {listed}")
    if f"table {table}" not in listed.splitlines():
        return None
    code, ruleset = _nft(["--stateless", "--numeric", "list", "table", *table.split()])
    if code != 0:
        raise RevertError(f"nft list table {table} failed: {ruleset}")
    return ruleset


def _put_back_table(table: str, ruleset: t.Optional[str]) -> bool:
    """Whether it had to be changed. One transaction: never without rules in between."""
    if _ruleset(table) == ruleset:
        return False
    # The first line makes the second one right when there is no such table.
    code, output = _nft(["-f", "-"], f"add table {table}\ndelete table {table}\n{ruleset or ''}\n")
    if code != 0:
        raise RevertError(output or f"nft ended with {code}")
    return True


def _act(action: t.Sequence[str], booting: bool) -> str:
    """What was wrong, or nothing."""
    words = list(action)
    if booting and os.path.basename(words[0]) == "systemctl":
        if any(word in _STARTS for word in words):
            return ""
        # Waiting for a job that itself waits for the end of this one would never end.
        words.insert(1, "--no-block")
    code, output = _run(words)
    _say(syslog.LOG_NOTICE, f"ran {' '.join(words)}" + (f", which ended with {code}" if code else ""))
    return "" if code == 0 else output[-500:] or f"ended with {code}"


def _run(words: t.Sequence[str], script: str = "") -> t.Tuple[int, str]:
    try:
        done = subprocess.run(
            words, input=script.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", timeout=ACTION_SECONDS,
            env={"PATH": PATH, "LC_ALL": "C"}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"did not end within {ACTION_SECONDS:.0f} seconds"
    except OSError as error:
        return 127, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


# --- program


def _utc(moment: t.Optional[float] = None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _say(severity: int, text: str) -> None:
    """A line for people, in the journal under civitas-revert."""
    line = " ".join(text.split())
    if os.environ.get("JOURNAL_STREAM") and __name__ == "__main__":
        sys.stderr.write(f"<{severity}>{line}\n")
        sys.stderr.flush()
    else:
        syslog.openlog("civitas-revert")
        syslog.syslog(severity, line)


def _ready() -> None:
    """sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", "\0" + address[1:] if address.startswith("@") else address)


def main(words: t.Sequence[str]) -> int:
    """What the services run; C(status) and C(restore) are for people."""
    log = Revert()
    command = words[0] if len(words) == 1 else ""
    try:
        if command == "wait":
            _ready()
            log.wait()
        elif command == "boot":
            log.at_boot()
        elif command == "restore":
            # Who asks need not be told later.
            if log.restore("asked for") is not None:
                log.unheard()
        elif command == "status":
            sys.stdout.write(json.dumps({"pending": log.pending(), "last": log.last()}, indent=1) + "\n")
        else:
            sys.stderr.write("usage: revert.py status | restore\n")
            return 2
    except (RevertError, OSError) as error:
        _say(syslog.LOG_ERR, str(error))
        if "JOURNAL_STREAM" not in os.environ:
            sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
