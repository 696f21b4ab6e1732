# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets into a host as it is now: accounts, groups, keys, sudo rules, jobs and processes, each read once.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import re
import stat
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._people import ROOT_GROUPS
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

KEYS = "/etc/ssh/civitas/keys"
SUDOERS = "/etc/sudoers"
SUDOERS_DIRECTORY = "/etc/sudoers.d"
OUR_SUDOERS = "/etc/sudoers.d/civitas-people"
SECOND_FACTOR = "/etc/civitas/second-factor"
LEDGER = "/var/lib/civitas/access/people.json"
CRONTABS = "/var/spool/cron/crontabs"
AT_JOBS = "/var/spool/cron/atjobs"
LINGER = "/var/lib/systemd/linger"

# Shells that let nobody in.
NO_SHELL = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false", "/bin/sync", "")
# Below are the accounts of the system.
FIRST_UID = 1000


class HostError(Exception):
    """Why the host cannot be read or changed, and what to do."""


@dataclasses.dataclass
class Account:
    """One line of /etc/passwd with its line of /etc/shadow."""

    name: str
    uid: int
    gid: int
    full_name: str
    home: str
    shell: str
    password: str = "!"
    # Days since 1970, as text; empty when there is none.
    last_change: str = ""
    maximum: str = ""
    inactive: str = ""
    expire: str = ""

    @property
    def has_password(self) -> bool:
        """Whether somebody may log in with a password, the empty one included."""
        return not self.password.startswith(("!", "*"))

    @property
    def has_shell(self) -> bool:
        return self.shell not in NO_SHELL

    def expired(self, today: int) -> bool:
        return self.expire not in ("", "-1") and int(self.expire) <= today


@dataclasses.dataclass
class Group:
    """One line of /etc/group."""

    name: str
    gid: int
    members: t.List[str]


@dataclasses.dataclass(frozen=True)
class Process:
    """A process that belongs to somebody, by its users, by who logged in, or by the session that it was started in."""

    pid: int
    uids: t.FrozenSet[int]
    # What it can still use, also after the account lost the group.
    gids: t.FrozenSet[int] = frozenset()


@dataclasses.dataclass
class State:
    """All that is read."""

    accounts: t.Dict[str, Account]
    groups: t.Dict[str, Group]
    # File name to its lines; V(None) for what is no file of root's.
    keys: t.Dict[str, t.Optional[t.Tuple[str, ...]]]
    ledger: t.Dict[str, t.Dict[str, t.Any]]
    # Path to text.
    sudoers: t.Dict[str, str]
    crontabs: t.FrozenSet[str]
    at_jobs: t.Dict[int, t.List[str]]
    linger: t.FrozenSet[str]
    second_factors: t.FrozenSet[str]
    # Paths of files that run something as somebody: /etc/cron.d, units.
    system_jobs: t.Dict[str, t.FrozenSet[str]]
    processes: t.List[Process]
    # Numbers of the accounts that this very run came in with.
    running: t.FrozenSet[int]
    today: int
    # Names that a directory service knows.
    foreign: t.FrozenSet[str] = frozenset()
    homes: t.FrozenSet[str] = frozenset()
    sound: bool = True

    def groups_of(self, name: str) -> t.Set[str]:
        """Supplementary groups."""
        return {group.name for group in self.groups.values() if name in group.members}

    def own(self, name: str) -> bool:
        """Whether this is an account that the module made or took over, and not another one of the same name."""
        entry, account = self.ledger.get(name), self.accounts.get(name)
        return entry is not None and (account is None or entry.get("uid") in (None, account.uid))

    def processes_of(self, name: str) -> t.List[int]:
        account = self.accounts.get(name)
        return [process.pid for process in self.processes if account is not None and account.uid in process.uids]


def read(names: t.Iterable[str] = ()) -> State:
    """Reads the host; HostError when it cannot be. C(names) are looked up in directory services as well."""
    accounts = _accounts(_text("/etc/passwd"), _text("/etc/shadow"))
    return State(
        accounts=accounts,
        groups=_groups(_text("/etc/group")),
        keys=_keys(),
        ledger=_ledger(),
        sudoers={path: _text(path) for path in _sudoers_files()},
        crontabs=frozenset(_names(CRONTABS)),
        at_jobs=_at_jobs(),
        linger=frozenset(_names(LINGER)),
        second_factors=frozenset(_names(SECOND_FACTOR)),
        system_jobs=_system_jobs(),
        processes=processes(),
        running=_running(),
        today=int(time.time() // 86400),
        foreign=frozenset(name for name in names if name not in accounts and _known(name)),
        homes=frozenset("/home/" + name for name in _names("/home")),
        sound=_sound_directories(),
    )


def _text(path: str) -> str:
    try:
        # Names of people may be in any encoding; what is not read as text is kept as it is.
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        raise HostError(f"{path} does not exist; it must, on every host that people log in to") from None
    except PermissionError:
        raise HostError(f"{path} cannot be read; run the task as root (become: true)") from None


def _names(directory: str) -> t.List[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _accounts(passwd: str, shadow: str) -> t.Dict[str, Account]:
    found: t.Dict[str, Account] = {}
    for line in passwd.splitlines():
        fields = line.split(":")
        # Lines of directory services begin with + or -.
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            name = fields[0]
            found.setdefault(name, Account(name, int(fields[2]), int(fields[3]), fields[4].split(",")[0], fields[5], fields[6]))
            if fields[1] != "x":
                found[name].password = fields[1]
    for line in shadow.splitlines():
        fields = line.split(":")
        account = found.get(fields[0])
        if account is not None and len(fields) >= 8:
            account.password, account.last_change, account.maximum = fields[1], fields[2], fields[4]
            account.inactive, account.expire = fields[6], fields[7]
    return found


def _known(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _groups(text: str) -> t.Dict[str, Group]:
    found = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 4 and fields[2].isdigit():
            found[fields[0]] = Group(fields[0], int(fields[2]), [name for name in fields[3].split(",") if name])
    return found


def _keys() -> t.Dict[str, t.Optional[t.Tuple[str, ...]]]:
    found: t.Dict[str, t.Optional[t.Tuple[str, ...]]] = {}
    for name in _names(KEYS):
        path = os.path.join(KEYS, name)
        status = os.lstat(path)
        whole = stat.S_ISREG(status.st_mode) and (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o644)
        found[name] = tuple(_text(path).splitlines()) if whole else None
    return found


def _sound_directories() -> bool:
    """Whether nobody but root can put another file in the place of one with keys."""
    for path in (os.path.dirname(KEYS), KEYS):
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            raise HostError(f"{path} is no directory; remove it, it must be one of root's own")
        if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) != (0, 0, 0o755):
            return False
    return True


def _ledger() -> t.Dict[str, t.Dict[str, t.Any]]:
    try:
        value = json.loads(_text(LEDGER))
        accounts = value["accounts"]
        if not all(isinstance(name, str) and isinstance(entry, dict) for name, entry in accounts.items()):
            raise TypeError(in_words(accounts))
    except HostError:
        if os.path.lexists(LEDGER):
            raise
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HostError(
            f"{LEDGER}, which says what accounts were made here, cannot be read; restore it from a backup. Without it (remove it) only "
            "people who are listed are looked after: list those who left with state: absent"
        ) from None
    return t.cast("t.Dict[str, t.Dict[str, t.Any]]", accounts)


def _sudoers_files() -> t.List[str]:
    """Those that sudo reads: not with a dot or a tilde in the name."""
    names = [name for name in _names(SUDOERS_DIRECTORY) if "." not in name and not name.endswith("~")]
    paths = [SUDOERS, *(os.path.join(SUDOERS_DIRECTORY, name) for name in names)]
    return [path for path in paths if os.path.isfile(path)]


def _at_jobs() -> t.Dict[int, t.List[str]]:
    found: t.Dict[int, t.List[str]] = {}
    for name in _names(AT_JOBS):
        path = os.path.join(AT_JOBS, name)
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and not name.startswith("."):
                found.setdefault(status.st_uid, []).append(path)
    return found


def _system_jobs() -> t.Dict[str, t.FrozenSet[str]]:
    found = {}
    cron = re.compile(r"^\s*(?:@\w+|(?:\S+\s+){4}\S+)\s+([a-z_][a-z0-9_-]*)\s+\S", re.MULTILINE)
    unit = re.compile(r"^\s*User=([a-z_][a-z0-9_-]*)\s*$", re.MULTILINE)
    places = [("/etc/crontab", cron), *(("/etc/cron.d/" + name, cron) for name in _names("/etc/cron.d"))]
    places += [("/etc/systemd/system/" + name, unit) for name in _names("/etc/systemd/system") if name.endswith(".service")]
    for path, pattern in places:
        if os.path.isfile(path):
            names = frozenset(pattern.findall(re.sub(r"(?m)^\s*#.*$", "", _text(path))))
            if names:
                found[path] = names
    return found


def processes() -> t.List[Process]:
    """Processes of people. What runs in a container is not there, though its users may have the same numbers."""
    found = []
    space = os.readlink("/proc/self/ns/pid")
    root = _control_group("1").rpartition("/init.scope")[0]
    session = re.compile(re.escape(root) + r"/user\.slice/user-([0-9]+)\.slice(?:/|$)")
    for name in os.listdir("/proc"):
        if not name.isdigit() or name == "1":
            continue
        # It may have ended in between.
        with contextlib.suppress(OSError):
            match = session.match(_control_group(name))
            uids: t.Set[int] = {int(match.group(1))} if match else set()
            gids: t.Set[int] = set()
            if os.readlink(f"/proc/{name}/ns/pid") == space:
                status = _proc(f"/proc/{name}/status")
                own = {int(word) for word in _field(status, "Uid")}
                uids |= own
                # The server's part of a session is root's, with groups that say nothing about the person.
                gids.update(int(word) for word in _field(status, "Gid") + _field(status, "Groups") if 0 not in own)
                login = _proc(f"/proc/{name}/loginuid")
                if login.isdigit():
                    uids.add(int(login))
            people = {uid for uid in uids if FIRST_UID <= uid < 2**32 - 1}
            if people:
                found.append(Process(int(name), frozenset(people), frozenset(gids)))
    return found


def _proc(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as stream:
        return stream.read()


def _field(status: str, name: str) -> t.List[str]:
    match = re.search(rf"^{name}:(.*)$", status, re.MULTILINE)
    return match.group(1).split() if match else []


def _control_group(pid: str) -> str:
    """The place of a process in systemd's tree, with one hierarchy or with several."""
    lines = _proc(f"/proc/{pid}/cgroup").splitlines()
    paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in lines if line.count(":") >= 2}
    return paths.get("name=systemd") or paths.get("", "")


def _running() -> t.FrozenSet[int]:
    """Whose session this run uses: the users of all processes above this one."""
    found: t.Set[int] = set()
    pid = os.getpid()
    while pid > 1:
        status = _proc(f"/proc/{pid}/status")
        found.update(int(word) for word in _field(status, "Uid"))
        pid = int(_field(status, "PPid")[0])
    return frozenset(found)


# Sudo rules of others.


def rule_owners(text: str) -> t.Tuple[t.Set[str], bool]:
    """Whom the rules of a sudoers file are for (C(bob), C(%bob), C(#1000), C(%#1000), C(ALL)), and whether that is all that it holds.

    The second is no when one of the last three is among them: what is for more than one name is nobody's own.
    """
    owners: t.Set[str] = set()
    whole = True
    for line in re.sub(r"\\\n", " ", text).splitlines():
        line = line.strip()
        if not line or (line.startswith("#") and not re.match(r"#(include|includedir|[0-9])", line)):
            continue
        match = re.match(r"Defaults:([a-z_][a-z0-9_-]*)\s", line)
        if match:
            owners.add(match.group(1))
            continue
        head = re.split(r"\s+[A-Za-z0-9_.+-]+(?:\s*,\s*[A-Za-z0-9_.+-]+)*\s*=", line)[0]
        names = [name.strip() for name in head.split(",")]
        if "=" in line and all(re.fullmatch(r"%?[a-z_][a-z0-9_-]*", name) for name in names):
            owners.update(names)
        else:
            whole = False
            # An alias, an include, a rule for numbers: who is named is told, and the file is left alone.
            owners.update(re.findall(r"(?<![\w/.-])%?[a-z_][a-z0-9_-]*(?![\w/.-])", line))
            # ALL stands for hosts and commands as well, so only the place of the users counts.
            alias = re.match(r"User_Alias\s(.*)", line)
            users = re.split(r"[\s,:=]+", alias.group(1)) if alias else re.sub(r"\s*,\s*", ",", line).split()[0].split(",")
            owners.update(name for name in users if re.fullmatch(r"ALL|%?#[0-9]+", name))
    return owners, whole


def names_root(state: State, name: str) -> t.List[str]:
    """Groups through which somebody is as good as root."""
    account = state.accounts.get(name)
    groups = state.groups_of(name)
    if account is not None:
        groups |= {group.name for group in state.groups.values() if group.gid == account.gid}
    return sorted(groups & ROOT_GROUPS)
