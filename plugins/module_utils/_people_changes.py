# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From who gets in to who is to get in: the difference, person by person, and its execution.

Private to the collection: no promise of stability.

Accounts are changed by the system's own programs, which lock the files. Who leaves is dealt with first, and a step that fails for one
person keeps nobody else from theirs: a run that ends early has taken more than it has given. Every step is found again by the next run.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import functools
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _people_state as host
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._people import OUR_GROUPS, ROOT_GROUPS, Person
from ansible_collections.civitas.hosting.plugins.module_utils._people_commands import sudoers_command
from ansible_collections.civitas.hosting.plugins.module_utils._people_keys import KeyProblem, parse_key
from ansible_collections.civitas.hosting.plugins.module_utils._people_state import HostError, State

Run = t.Callable[[t.List[str]], t.Tuple[int, str, str]]
# Whether the way back is still there.
Holds = t.Callable[[], bool]

DOCKER = "docker"
SHELL = "/bin/bash"
_HOME = re.compile(r"/home/[^/]+")
# Seconds between two looks at the deadline during a long step.
_BEAT = 5.0
_HEADER = "# Managed by Ansible: only keys of the inventory count, changes are overwritten."
# Of which somebody who lost them may still make use until the session ends.
_STRONG = ROOT_GROUPS | {"civitas-admins", "civitas-operators"}

_SUDOERS = """\
# Managed by Ansible (role access): changes are overwritten. Who is in these groups follows from the inventory.
Defaults env_reset
Defaults use_pty
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Every command is in the journal and in the authentication log.
Defaults syslog=authpriv, syslog_goodpri=notice, syslog_badpri=alert, log_allowed, log_denied
%civitas-admins ALL=(ALL:ALL) NOPASSWD: ALL
%civitas-automation ALL=(ALL:ALL) NOPASSWD: ALL
%civitas-breakglass ALL=(ALL:ALL) NOPASSWD: ALL
"""


@dataclasses.dataclass
class Step:
    """One thing to do, told in the words of the report."""

    action: str
    # A command, or a function.
    command: t.Tuple[str, ...] = ()
    task: t.Optional[t.Callable[[], None]] = None
    # Whether something is taken from somebody who leaves.
    removes: bool = False
    # Cannot be taken back and may take long: done when all else is.
    last: bool = False


@dataclasses.dataclass
class PersonPlan:
    """What one person still needs, or still has."""

    person: Person
    steps: t.List[Step] = dataclasses.field(default_factory=list)
    # What cannot be removed by machine, each with its place.
    left: t.List[str] = dataclasses.field(default_factory=list)
    notes: t.List[str] = dataclasses.field(default_factory=list)
    before: t.List[str] = dataclasses.field(default_factory=list)
    after: t.List[str] = dataclasses.field(default_factory=list)
    # Run if the change is not confirmed: what somebody who stays has lost.
    undo: t.List[t.List[str]] = dataclasses.field(default_factory=list)

    def report(self, done: t.Sequence[str]) -> t.Dict[str, t.Any]:
        removed = [step.action for step in self.steps if step.removes and step.action in done]
        return {
            "changed": bool(done),
            "state": "closed" if self.person.closed else "present",
            "actions": list(done),
            "removed": removed,
            "left": self.left,
            "notes": self.notes,
        }


@dataclasses.dataclass
class Plan:
    """Everything that is to do on a host, in order."""

    first: t.List[Step] = dataclasses.field(default_factory=list)
    closing: t.List[PersonPlan] = dataclasses.field(default_factory=list)
    middle: t.List[Step] = dataclasses.field(default_factory=list)
    opening: t.List[PersonPlan] = dataclasses.field(default_factory=list)
    strangers: t.Dict[str, t.Dict[str, t.Any]] = dataclasses.field(default_factory=dict)
    docker_group: t.List[str] = dataclasses.field(default_factory=list)
    # Before-images for the automatic revert.
    paths: t.List[str] = dataclasses.field(default_factory=lambda: [host.KEYS, host.OUR_SUDOERS])
    ledger: t.Dict[str, t.Dict[str, t.Any]] = dataclasses.field(default_factory=dict)
    ledger_changed: bool = False

    @property
    def people(self) -> t.List[PersonPlan]:
        return [*self.closing, *self.opening]

    @property
    def changed(self) -> bool:
        return bool(self.first or self.middle or self.ledger_changed or any(plan.steps for plan in self.people))

    @property
    def undo(self) -> t.List[t.List[str]]:
        return [command for plan in self.opening for command in plan.undo]


def sudoers_text(commands: t.Sequence[str]) -> str:
    """The sudo rules of all groups."""
    lines = [sudoers_command(command) for command in commands]
    return _SUDOERS + (f"%civitas-operators ALL=(root) NOPASSWD: {', '.join(lines)}\n" if lines else "")


def make_plan(
    everybody: t.Sequence[Person],
    state: State,
    commands: t.Sequence[str] = (),
    exclusive: bool = True,
    only: t.Sequence[str] = (),
    check_mode: bool = False,
) -> Plan:
    """The difference between C(everybody) and the host; HostError with all that stands against it. Changes nothing.

    Args:
        everybody: people, automation and break-glass account.
        state: the host.
        commands: what operators may run.
        exclusive: who was made here earlier and is no longer listed is treated as absent.
        only: compare these names and nobody else; all when empty.
        check_mode: what a package would bring may be missing.
    """
    return _Planner(everybody, state, commands, exclusive, only, check_mode).run()


class _Planner:
    def __init__(
        self,
        everybody: t.Sequence[Person],
        state: State,
        commands: t.Sequence[str],
        exclusive: bool,
        only: t.Sequence[str],
        check_mode: bool,
    ) -> None:
        self.state = state
        self.commands = commands
        self.only = set(only)
        self.check_mode = check_mode
        self.problems: t.List[str] = []
        self.plan = Plan()
        self.rules = {path: host.rule_owners(text) for path, text in state.sudoers.items() if path != host.OUR_SUDOERS}
        self.wanted = {person.name: person for person in everybody}
        for name in state.ledger if exclusive else ():
            # Another account of the same name, made since by somebody else, is a stranger.
            if name not in self.wanted and state.own(name):
                self.wanted[name] = Person(name, present=False)

    def run(self) -> Plan:
        people = [person for name, person in sorted(self.wanted.items()) if not self.only or name in self.only]
        self.plan_groups()
        for person in people:
            plan = PersonPlan(person)
            if person.closed:
                self.plan_closing(plan)
                self.plan.closing.append(plan)
            else:
                self.plan_opening(plan)
                self.plan.opening.append(plan)
        self.plan_sudoers()
        if not self.only:
            self.plan_key_files()
            self.plan_members()
        self.find_strangers()
        self.plan_ledger(people)
        if self.problems:
            raise HostError("\n".join(self.problems))
        return self.plan

    # What everybody shares.

    def plan_groups(self) -> None:
        for group in OUR_GROUPS:
            if group not in self.state.groups:
                self.plan.first.append(Step(f"group {group} made", ("groupadd", "--system", group)))
        if not self.state.sound:
            self.plan.first.append(Step(f"directory {host.KEYS} made", task=_make_directories))

    def plan_sudoers(self) -> None:
        text = sudoers_text(self.commands)
        if self.state.sudoers.get(host.OUR_SUDOERS) != text or not _mode_is(host.OUR_SUDOERS, 0o440):
            self.plan.middle.append(Step(f"{host.OUR_SUDOERS} written", task=lambda: _write_sudoers(text)))
        main = self.state.sudoers.get(host.SUDOERS)
        if main is None:
            if not self.check_mode:
                self.problems.append("sudo is not installed: /etc/sudoers does not exist; install the package sudo")
        elif not re.search(r"^\s*[@#]includedir\s+/etc/sudoers\.d/?\s*$", main, re.MULTILINE):
            self.problems.append("/etc/sudoers does not read /etc/sudoers.d; add the line '@includedir /etc/sudoers.d' with visudo")

    def plan_key_files(self) -> None:
        """The directory is ours: a file for somebody else is a way in that nobody listed."""
        for name in sorted(set(self.state.keys) - set(self.wanted)):
            if not self.state.own(name):
                remove = functools.partial(_remove, _keys_of(name))
                self.plan.first.append(Step(f"keys of {name}, who is not listed, removed", task=remove))

    def plan_members(self) -> None:
        """Who is in our groups, or in docker, without being listed."""
        for group in (*OUR_GROUPS, DOCKER):
            for name in self.state.groups[group].members if group in self.state.groups else ():
                if name not in self.wanted and not (group != DOCKER and self.state.own(name)):
                    self.plan.middle.append(Step(f"{name} taken out of the group {group}", ("gpasswd", "--delete", name, group)))
            if group == DOCKER and group in self.state.groups:
                self.plan.docker_group = sorted(self.state.groups[group].members)

    def plan_ledger(self, people: t.Sequence[Person]) -> None:
        ledger = {name: entry for name, entry in self.state.ledger.items() if name in self.state.accounts or name in self.wanted}
        for person in people:
            account = self.state.accounts.get(person.name)
            if account is None and person.closed:
                ledger.pop(person.name, None)
            elif person.name != "root":
                ledger[person.name] = {"uid": account.uid if account else None, "kind": person.kind}
        self.plan.ledger = ledger
        self.plan.ledger_changed = ledger != self.state.ledger

    def find_strangers(self) -> None:
        for account in self.state.accounts.values():
            if account.name in self.wanted or self.state.own(account.name) or account.name == "root":
                continue
            login = []
            if account.has_shell and not account.expired(self.state.today):
                login += ["password"] if account.has_password else []
                login += ["keys"] if _has_home_keys(account.home) else []
            found = {
                "login": login,
                "groups": host.names_root(self.state, account.name) if account.uid >= host.FIRST_UID or account.has_shell else [],
                "sudo": self.mentions(account.name)[1],
                "uid": account.uid,
            }
            if login or found["groups"] or found["sudo"] or account.uid == 0:
                self.plan.strangers[account.name] = found

    # Sudo rules that others wrote, such as the installer.

    def mentions(self, name: str) -> t.Tuple[t.List[str], t.List[str]]:
        """Files that hold nothing but rules of people who may not have them, and all that name this person."""
        removable, named = [], []
        ways = self.ways_to(name)
        for path in self.rules:
            owners, whole = self.rules[path]
            if owners & ways:
                named.append(path)
                limited = {owner for owner in owners if self.limited(owner)}
                if whole and owners == limited and path != host.SUDOERS:
                    removable.append(path)
        return removable, named

    def ways_to(self, name: str) -> t.Set[str]:
        """How a sudo rule can reach somebody. The groups are those of afterwards; those of strangers are told of on their own."""
        account, person = self.state.accounts.get(name), self.wanted.get(name)
        ways = {name, "%" + name}
        if account is not None:
            ways.add(f"#{account.uid}")
        if person is None or (account is None and person.closed):
            return ways
        ways.add("ALL")
        for group in self.state.groups.values():
            if group.name in person.all_groups or (account is not None and group.gid == account.gid):
                ways |= {f"%{group.name}", f"%#{group.gid}"}
        return ways

    def limited(self, name: str) -> bool:
        person = self.wanted.get(name)
        return person is not None and (person.closed or (person.kind == "person" and person.role != "admin"))

    def plan_mentions(self, plan: PersonPlan) -> None:
        removable, named = self.mentions(plan.person.name)
        for path in removable:
            if path not in self.plan.paths:
                self.plan.paths.append(path)
            remove = functools.partial(_remove, path)
            plan.steps.append(Step(f"sudo rules {path} removed", task=remove, removes=plan.person.closed))
        plan.left += [f"sudo rules in {path}" for path in named if path not in removable]

    # One person.

    def account_of(self, person: Person) -> t.Optional[host.Account]:
        account = self.state.accounts.get(person.name)
        if account is not None and account.uid < host.FIRST_UID and person.name != "root":
            self.problems.append(
                f"{person.name} is a system account of this host (number {account.uid}); choose another login for the person"
            )
        return account

    def plan_closing(self, plan: PersonPlan) -> None:
        person = plan.person
        name = person.name
        account = self.account_of(person)
        if person.present:
            plan.notes.append("has no key: no way in, treated as absent")
        if account is None:
            plan.notes.append("has no account on this host")
        else:
            if account.uid in self.state.running:
                self.problems.append(f"{name} is who this run logged in as; run it as somebody else to take everything from {name}")
            self.close_account(plan, account)
        if name in self.state.keys:
            plan.steps.append(Step(f"keys removed ({_told(self.state.keys[name])})", task=lambda: _remove(_keys_of(name)), removes=True))
        if account is not None:
            files = _home_keys(account.home)
            if files:
                plan.steps.append(
                    Step(
                        f"own keys removed ({', '.join(files)} in {account.home}/.ssh)",
                        task=lambda: _remove_home_keys(account),
                        removes=True,
                    )
                )
        self.plan_mentions(plan)
        pids = self.state.processes_of(name)
        if name in self.state.linger:
            plan.steps.append(Step("services without a session ended", task=lambda: _remove(os.path.join(host.LINGER, name)), removes=True))
        if name in self.state.crontabs:
            plan.steps.append(Step("cron jobs removed", task=lambda: _remove(os.path.join(host.CRONTABS, name)), removes=True))
        jobs = self.state.at_jobs.get(account.uid, []) if account is not None else []
        if jobs:
            plan.steps.append(Step(f"at jobs removed ({len(jobs)})", task=lambda: _remove(*jobs), removes=True))
        if pids:
            plan.steps.append(Step(f"sessions and processes ended ({len(pids)})", task=lambda: _end(name), removes=True))
        timers = _user_units(account.home) if account is not None else []
        if account is not None and timers:
            plan.steps.append(Step(f"user timers removed ({', '.join(timers)})", task=lambda: _remove_user_units(account), removes=True))
        if name in self.state.second_factors:
            plan.steps.append(Step("second factor removed", task=lambda: _remove(os.path.join(host.SECOND_FACTOR, name)), removes=True))
        if person.remove_home and account is not None and os.path.lexists(account.home):
            self.plan_home_removal(plan, account)
        plan.left += [f"a job of the system runs as {name}: {path}" for path, names in self.state.system_jobs.items() if name in names]
        plan.before = _describe(account, self.state) if plan.steps else []

    def close_account(self, plan: PersonPlan, account: host.Account) -> None:
        options: t.List[str] = []
        told = []
        if not account.password.startswith("!"):
            options.append("--lock")
            told.append("locked")
        if account.expire != "1":
            options += ["--expiredate", "1"]
            told.append("expired")
        if account.has_shell:
            options += ["--shell", "/usr/sbin/nologin"]
        if options:
            plan.steps.append(Step(f"account {' and '.join(told) or 'without a shell'}", ("usermod", *options, account.name), removes=True))
        groups = sorted(self.state.groups_of(account.name))
        if groups:
            plan.steps.append(Step(f"groups removed ({', '.join(groups)})", ("usermod", "--groups", "", account.name), removes=True))

    def plan_home_removal(self, plan: PersonPlan, account: host.Account) -> None:
        status = os.lstat(account.home)
        others = [other.name for other in self.state.accounts.values() if other.home == account.home and other.name != account.name]
        if not _HOME.fullmatch(account.home) or not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid or others:
            plan.left.append(f"the home {account.home}, which is not a directory below /home of this person alone; look at it by hand")
            return
        if os.path.ismount(account.home):
            plan.left.append(f"the home {account.home}, which is a file system of its own; unmount it and run this again")
            return
        plan.steps.append(Step(f"home {account.home} deleted", task=lambda: shutil.rmtree(account.home), removes=True, last=True))

    def plan_opening(self, plan: PersonPlan) -> None:
        person = plan.person
        account = self.account_of(person)
        missing = [group for group in person.groups if group not in self.state.groups]
        if missing and not self.check_mode:
            self.problems.append(
                f"{person.name} would be in {', '.join(missing)}, and no such group is on this host; correct it or leave it out"
            )
        if account is None:
            self.plan_new(plan)
        elif person.name == "root":
            self.plan_memberships(plan, set(self.state.groups_of("root")) | set(person.all_groups))
        else:
            self.plan_known(plan, account)
        taken = self.plan_keys(plan)
        if self.limited(person.name):
            self.plan_mentions(plan)
        if account is not None and person.name != "root":
            self.plan_sessions(plan, account, taken)
        plan.before = _describe(account, self.state) if plan.steps else []
        plan.after = _describe_wanted(person) if plan.steps else []

    def plan_new(self, plan: PersonPlan) -> None:
        person = plan.person
        name = person.name
        if name in self.state.foreign:
            self.problems.append(f"{name} is an account of a directory service (getent passwd {name}); choose another login")
        if name in self.state.groups:
            self.problems.append(
                f"{name}: a group of this name is on the host already; choose another login, or remove it: groupdel {name}"
            )
        if f"/home/{name}" in self.state.homes:
            self.problems.append(f"/home/{name} exists and belongs to no account of that name; move it away, or {name} would own it")
        options = ["--create-home", "--home-dir", f"/home/{name}", "--user-group", "--shell", SHELL, "--password", "*"]
        options += ["--key", "HOME_MODE=0700", "--key", "PASS_MAX_DAYS=-1", "--key", "PASS_MIN_DAYS=-1"]
        options += ["--groups", ",".join(person.all_groups), "--comment", person.full_name]
        options += ["--expiredate", _expiry(person)] if person.expires else []
        until = f", expires on {person.expires.isoformat()}" if person.expires else ""
        plan.steps.append(Step(f"account made (groups {', '.join(person.all_groups)}{until})", ("useradd", *options, name)))

    def plan_known(self, plan: PersonPlan, account: host.Account) -> None:
        person = plan.person
        primary = next((group.name for group in self.state.groups.values() if group.gid == account.gid), "")
        # Automation and break-glass account are root by declaration; a group of their own gives them nothing more.
        if primary in ROOT_GROUPS and (person.kind == "person" or primary != person.name):
            self.problems.append(
                f"{person.name} has the primary group {primary}, which is as good as root; change it: usermod --gid GROUP {person.name}"
            )
        options: t.List[str] = []
        told = []
        if person.full_name and account.full_name != person.full_name:
            options += ["--comment", person.full_name]
            told.append(f"full name {person.full_name}")
        if not account.has_shell:
            options += ["--shell", SHELL]
            told.append(f"shell {SHELL}")
        expire = str(_days(person)) if person.expires else ""
        if ("" if account.expire == "-1" else account.expire) != expire:
            options += ["--expiredate", _expiry(person)]
            told.append(f"expires on {person.expires.isoformat()}" if person.expires else "does not expire")
        if account.password == "!*":
            # As it was made: without a password, but not locked, which a server without PAM would refuse.
            options += ["--password", "*"]
            told.append("unlocked")
        if account.has_password:
            options.append("--lock")
            told.append("password locked")
            plan.undo.append(["usermod", "--unlock", person.name])
        if options:
            plan.steps.append(Step("account: " + ", ".join(told), ("usermod", *options, person.name)))
        # A password that nobody has cannot be changed either, and its age would shut the key's door.
        if account.maximum not in ("", "-1", "99999") or account.inactive not in ("", "-1") or account.last_change == "0":
            plan.steps.append(
                Step(
                    "no age of a password",
                    ("chage", "--maxdays", "-1", "--inactive", "-1", "--lastday", str(self.state.today), person.name),
                )
            )
        self.plan_memberships(plan, set(person.all_groups))
        if not os.path.lexists(account.home) and _HOME.fullmatch(account.home):
            plan.steps.append(Step(f"home {account.home} made", task=lambda: _make_home(account)))

    def plan_memberships(self, plan: PersonPlan, wanted: t.Set[str]) -> None:
        name = plan.person.name
        current = self.state.groups_of(name)
        joined, left = sorted(wanted - current), sorted(current - wanted)
        if not joined and not left:
            return
        told = [f"joined {', '.join(joined)}"] if joined else []
        told += [f"left {', '.join(left)}"] if left else []
        plan.steps.append(Step("groups: " + ", ".join(told), ("usermod", "--groups", ",".join(sorted(wanted)), name)))
        # The way in of before may have led through them.
        plan.undo += [["gpasswd", "--add", name, group] for group in left if group != DOCKER]

    def plan_keys(self, plan: PersonPlan) -> bool:
        """Whether a key is taken away that worked until now."""
        person = plan.person
        lines = (_HEADER, *person.key_lines)
        current = self.state.keys.get(person.name)
        if current == lines:
            return False
        old = _blobs(current)
        new = {key.blob: key.fingerprint for key in person.keys}
        added = [new[blob] for blob in new if blob not in old]
        removed = [old[blob] for blob in old if blob not in new]
        told = [f"added {', '.join(added)}"] if added else []
        told += [f"removed {', '.join(removed)}"] if removed else []
        text = "\n".join(lines) + "\n"
        plan.steps.append(Step("keys: " + (", ".join(told) or "rewritten"), task=lambda: write_text(_keys_of(person.name), text, 0o644)))
        return bool(removed)

    def plan_sessions(self, plan: PersonPlan, account: host.Account, taken: bool) -> None:
        """Ends what goes on with a right that is gone: a key, root, the account's time."""
        person = plan.person
        mine = [process for process in self.state.processes if account.uid in process.uids]
        strong = {group.gid for name, group in self.state.groups.items() if name in _STRONG - set(person.all_groups)} - {account.gid}
        lost = self.state.groups_of(person.name) & _STRONG - set(person.all_groups)
        why = "a key was taken" if taken else ""
        why = "a group was left" if lost or any(process.gids & strong for process in mine) else why
        why = "the account has expired" if person.expires and _days(person) <= self.state.today else why
        if not why or not mine:
            return
        if account.uid in self.state.running:
            plan.notes.append(f"{why}, but this run uses the account: its sessions go on")
            return
        plan.steps.append(Step(f"sessions and processes ended ({len(mine)}): {why}", task=lambda: _end(person.name)))


# Reports.


def _describe(account: t.Optional[host.Account], state: State) -> t.List[str]:
    if account is None:
        return []
    lines = state.keys.get(account.name) or ()
    expire = "" if account.expire in ("", "-1") else _day(int(account.expire))
    open_ = account.has_shell and not account.expired(state.today)
    return _described(account.full_name, open_, expire, sorted(state.groups_of(account.name)), [line for line in lines if line != _HEADER])


def _describe_wanted(person: Person) -> t.List[str]:
    expire = person.expires.isoformat() if person.expires else ""
    return _described(person.full_name, True, expire, person.all_groups, person.key_lines)


def _described(full_name: str, open_: bool, expire: str, groups: t.Sequence[str], keys: t.Sequence[str]) -> t.List[str]:
    return [
        f"full name: {full_name}",
        f"account: {'open' if open_ else 'closed'}{', expires on ' + expire if expire else ''}",
        f"groups: {', '.join(groups)}",
        *(f"key: {line}" for line in keys),
    ]


def _day(days: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=days)).isoformat()


def _days(person: Person) -> int:
    return (person.expires - datetime.date(1970, 1, 1)).days if person.expires else -1


def _expiry(person: Person) -> str:
    return person.expires.isoformat() if person.expires else ""


def _blobs(lines: t.Optional[t.Sequence[str]]) -> t.Dict[str, str]:
    """Keys in a file of ours, to their fingerprints. A line that is none is nothing that worked."""
    found = {}
    for line in lines or ():
        with contextlib.suppress(KeyProblem):
            key = parse_key(line)
            found[key.blob] = key.fingerprint
    return found


def _told(lines: t.Optional[t.Sequence[str]]) -> str:
    return ", ".join(_blobs(lines).values()) or "none that worked"


# What is read in homes. Their owners may have put links there, so nothing below a home is followed.


def _keys_of(name: str) -> str:
    return os.path.join(host.KEYS, name)


def _open_below(path: str, *names: str) -> int:
    """A directory below another, without following a link of its owner; OSError when there is none. The caller closes it."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    for name in names:
        try:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
        finally:
            os.close(handle)
        handle = below
    return handle


def _home_keys(home: str) -> t.List[str]:
    try:
        handle = _open_below(home, ".ssh")
    except OSError:
        return []
    try:
        return sorted(name for name in ("authorized_keys", "authorized_keys2") if name in os.listdir(handle))
    finally:
        os.close(handle)


def _has_home_keys(home: str) -> bool:
    try:
        handle = _open_below(home, ".ssh")
    except OSError:
        return False
    try:
        return any(os.stat(name, dir_fd=handle, follow_symlinks=False).st_size for name in _home_keys(home))
    except OSError:
        return False
    finally:
        os.close(handle)


def _user_units(home: str) -> t.List[str]:
    """Units of the person that start by themselves."""
    found = []
    for directory in _wants(home):
        try:
            handle = _open_below(home, ".config", "systemd", "user", directory)
        except OSError:
            continue
        try:
            found += os.listdir(handle)
        finally:
            os.close(handle)
    return sorted(set(found))


def _wants(home: str) -> t.List[str]:
    try:
        handle = _open_below(home, ".config", "systemd", "user")
    except OSError:
        return []
    try:
        return [name for name in os.listdir(handle) if name.endswith((".wants", ".requires"))]
    finally:
        os.close(handle)


def _mode_is(path: str, mode: int) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, mode)


# Execution.


def apply(plan: Plan, run: Run, holds: Holds = lambda: True) -> t.Tuple[t.Dict[str, t.List[str]], t.List[str], t.List[str]]:
    """Carries out what was planned: actions done by person, actions for nobody in particular, and all that failed.

    C(holds) is asked before each step, and stops it all: without a way back nothing more is changed.
    """
    done: t.Dict[str, t.List[str]] = {person.person.name: [] for person in plan.people}
    general: t.List[str] = []
    failed: t.List[str] = []
    stopped: t.List[bool] = []

    def steps(items: t.Sequence[Step], record: t.List[str], about: str) -> None:
        for step in items:
            if stopped or not holds():
                stopped.append(True)
                return
            try:
                _do(step, run)
            except (HostError, OSError) as error:
                failed.append(f"{about}{step.action}: {error}")
            else:
                record.append(step.action)

    # Who is about to be made is noted first: a run that ends early leaves no account that nobody knows of.
    if plan.ledger_changed:
        _write_ledger(plan.ledger)

    def change(person: PersonPlan, last: bool) -> None:
        for step in person.steps:
            if step.last != last:
                continue
            before = len(failed)
            steps([step], done[person.person.name], f"{person.person.name}: ")
            # Without an account, keys would wait for whoever gets the name.
            if len(failed) > before and step.command[:1] == ("useradd",):
                break

    def finish() -> None:
        for person in plan.people:
            change(person, last=True)

    steps(plan.first, general, "")
    for person in plan.closing:
        change(person, last=False)
    steps(plan.middle, general, "")
    for person in plan.opening:
        change(person, last=False)
    if any(step.last for person in plan.people for step in person.steps):
        _patiently(finish, holds)
    ledger = {name: dict(entry, uid=_uid(name, entry)) for name, entry in plan.ledger.items()}
    if ledger != plan.ledger:
        _write_ledger(ledger)
    return done, general, failed


def _patiently(work: t.Callable[[], None], holds: Holds) -> None:
    """Does what may take longer than the deadline, and looks at that meanwhile, which moves it."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(work)
        while concurrent.futures.wait([future], timeout=_BEAT).not_done:
            holds()
        future.result()


def _uid(name: str, entry: t.Mapping[str, t.Any]) -> t.Optional[int]:
    try:
        return pwd.getpwnam(name).pw_uid if entry["uid"] is None else int(entry["uid"])
    except KeyError:
        return None


def _do(step: Step, run: Run) -> None:
    if step.task is not None:
        step.task()
    else:
        code, out, err = run(list(step.command))
        if code != 0:
            raise HostError(f"{' '.join(step.command[:1])} ended with {code}: {(err or out).strip()[-300:]}")


def _write_ledger(accounts: t.Mapping[str, t.Any]) -> None:
    os.makedirs(os.path.dirname(host.LEDGER), mode=0o700, exist_ok=True)
    write_json(host.LEDGER, {"version": 1, "accounts": accounts}, 0o600)


def _make_directories() -> None:
    for path in (os.path.dirname(host.KEYS), host.KEYS):
        os.makedirs(path, exist_ok=True)
        os.chown(path, 0, 0)
        os.chmod(path, 0o755)


def _write_sudoers(text: str) -> None:
    os.makedirs(host.SUDOERS_DIRECTORY, mode=0o750, exist_ok=True)
    write_text(host.OUR_SUDOERS, text, 0o440, _check_sudoers)


def _check_sudoers(path: str) -> None:
    """A file that sudo cannot read would take sudo from everybody."""
    done = subprocess.run(["visudo", "--check", "--strict", "--file", path], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError(f"visudo refuses the rules: {(done.stderr or done.stdout).strip()[-300:]}")


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _remove_home_keys(account: host.Account) -> None:
    handle = _open_below(account.home, ".ssh")
    try:
        for name in _home_keys(account.home):
            os.unlink(name, dir_fd=handle)
    finally:
        os.close(handle)


def _remove_user_units(account: host.Account) -> None:
    for directory in _wants(account.home):
        try:
            handle = _open_below(account.home, ".config", "systemd", "user", directory)
        except OSError:
            continue
        try:
            for name in os.listdir(handle):
                os.unlink(name, dir_fd=handle)
        finally:
            os.close(handle)


def _make_home(account: host.Account) -> None:
    os.mkdir(account.home, 0o700)
    shutil.copytree("/etc/skel", account.home, symlinks=True, dirs_exist_ok=True)
    os.chmod(account.home, 0o700)
    for directory, _names, files in os.walk(account.home):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _end(name: str) -> None:
    """Ends sessions, services and processes of somebody, wherever they were started. HostError when some do not end."""
    uid = pwd.getpwnam(name).pw_uid
    # Without a login manager there is nothing that it could end.
    with contextlib.suppress(OSError):
        subprocess.run(["loginctl", "terminate-user", name], capture_output=True, check=False)
    began = time.monotonic()
    # A shell may keep its hangup handlers for a moment; after that nothing is asked any more.
    patience = 2.0
    while True:
        found = [process.pid for process in host.processes() if uid in process.uids]
        waited = time.monotonic() - began
        if not found:
            return
        if waited > patience + 8:
            raise HostError(f"{len(found)} processes do not end: {', '.join(map(str, found[:10]))}; see: ps -u {name}")
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if waited > patience else signal.SIGTERM)
        time.sleep(0.1)
