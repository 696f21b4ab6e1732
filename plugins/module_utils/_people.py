# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in, as people write it, in one form. Runs on the controller (filters) and on hosts (module access_people).

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._people_commands import command_problem
from ansible_collections.civitas.hosting.plugins.module_utils._people_keys import Key, KeyProblem, parse_key, parse_source
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

Item = t.Mapping[str, t.Any]

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
ROLES = ("admin", "operator", "user")
PEOPLE = "civitas-people"
NO_SECOND_FACTOR = "civitas-no-second-factor"
ROLE_GROUPS = {"admin": "civitas-admins", "operator": "civitas-operators", "user": ""}
KIND_GROUPS = {"person": PEOPLE, "automation": "civitas-automation", "break-glass": "civitas-breakglass"}
# All that the collection makes; whoever is in one of them is there because of the inventory.
OUR_GROUPS = (PEOPLE, "civitas-admins", "civitas-operators", "civitas-automation", "civitas-breakglass", NO_SECOND_FACTOR)

# Who is in one of these is root one command later.
_ROOT_GROUPS = """
root sudo wheel admin docker lxd lxc incus incus-admin libvirt microk8s podman disk shadow kmem staff sys bin daemon
"""
ROOT_GROUPS = frozenset(_ROOT_GROUPS.split())
# Accounts and groups of the distributions and of the roles' packages. On a host every account below 1000 is one as well.
_SYSTEM_NAMES = """
root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup sshd messagebus polkitd syslog
tss uuidd landscape fwupd-refresh dnsmasq postfix postdrop postgres mysql redis mongodb elasticsearch solr nginx docker tcpdump ntp chrony
ntpsec unbound squid clamav prometheus grafana etcd patroni pgbackrest adm tty disk dialout fax voice cdrom floppy tape sudo audio dip
operator src shadow utmp video sasl plugdev staff users kvm render input sgx crontab ssl-cert netdev lxd wheel _apt
"""
SYSTEM_NAMES = frozenset(_SYSTEM_NAMES.split())
_OWN = {"name", "full_name", "ssh_keys", "role", "groups", "second_factor", "expires", "from", "state", "remove_home", "age_recipient"}
# What the inventories of OpenCRVS call it.
_OTHERS = {"sudoer": "role", "two_factor": "second_factor"}
_ACCOUNT = {"name", "ssh_keys", "from", "full_name"}


@dataclasses.dataclass(frozen=True)
class Person:
    """One account that somebody, or the pipeline, logs in with."""

    name: str
    kind: str = "person"
    full_name: str = ""
    keys: t.Tuple[Key, ...] = ()
    role: str = "user"
    groups: t.Tuple[str, ...] = ()
    second_factor: bool = True
    # The first day without access.
    expires: t.Optional[datetime.date] = None
    sources: t.Tuple[str, ...] = ()
    present: bool = True
    remove_home: bool = False
    age_recipient: str = ""

    @property
    def closed(self) -> bool:
        """Has no way in, so nothing of them may stay: absent, or without any key."""
        return not self.present or not self.keys

    @property
    def all_groups(self) -> t.Tuple[str, ...]:
        """Every supplementary group, sorted."""
        if self.closed:
            return ()
        names = {KIND_GROUPS[self.kind], *self.groups}
        if self.kind == "person":
            names |= {ROLE_GROUPS[self.role], "" if self.second_factor else NO_SECOND_FACTOR}
        return tuple(sorted(names - {""}))

    @property
    def key_lines(self) -> t.Tuple[str, ...]:
        return tuple(key.line(self.sources) for key in self.keys)

    def as_item(self) -> t.Dict[str, t.Any]:
        """The one form that roles and playbooks see, made of plain values; C(public_keys) are the keys without options."""
        return {
            "name": self.name,
            "full_name": self.full_name,
            "ssh_keys": [key.line() for key in self.keys],
            "public_keys": [key.bare for key in self.keys],
            "role": self.role,
            "groups": list(self.groups),
            "second_factor": self.second_factor,
            "expires": self.expires.isoformat() if self.expires else "",
            "from": list(self.sources),
            "state": "present" if self.present else "absent",
            "remove_home": self.remove_home,
            "age_recipient": self.age_recipient,
        }


class PeopleError(ValueError):
    """All problems of a list, each with what to write."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def normalized(value: t.Any) -> t.List[t.Dict[str, t.Any]]:
    """The list O(access_people) in one form; PeopleError tells all that is wrong with it. What it returns, it accepts again."""
    people, problems = _people(value)
    problems += _doubles(people)
    if problems:
        raise PeopleError(problems)
    return [person.as_item() for person in people]


def accounts(config: Item) -> t.List[Person]:
    """Everybody in the role's variables: people, automation, break-glass account. PeopleError tells all that is wrong.

    Args:
        config: C(people), C(automation), C(automation_anywhere), C(permit_root_automation), C(break_glass), C(operator_commands).
    """
    people, problems = _people(config.get("people"))
    everybody = list(people)
    for kind, variable in (("automation", "access_automation"), ("break-glass", "access_break_glass")):
        account, found = _account(config, kind, variable)
        problems += found
        if account is not None:
            everybody.append(account)
    problems += _doubles(everybody)
    problems += _commands(config.get("operator_commands"))
    if problems:
        raise PeopleError(problems)
    return everybody


def problems_of(config: Item) -> t.List[str]:
    """What is wrong with the role's variables, see C(accounts); empty when all is well."""
    try:
        accounts(config)
    except PeopleError as error:
        return error.problems
    return []


def _people(value: t.Any) -> t.Tuple[t.List[Person], t.List[str]]:
    if value is None:
        return [], []
    if not isinstance(value, (list, tuple)):
        return [], [f"access_people is {in_words(value)}; write a list, one item for each person"]
    people, problems = [], []
    for number, item in enumerate(value):
        if not isinstance(item, t.Mapping):
            problems.append(f"access_people[{number}] is {in_words(item)}; write a mapping with name, ssh_keys and role")
            continue
        reader = _Reader(item, _label(item, f"access_people[{number}]"))
        person = reader.person()
        problems += reader.problems
        if not reader.problems:
            people.append(person)
    return people, problems


def _label(item: Item, place: str) -> str:
    name = item.get("name")
    return f"access_people: {name}" if isinstance(name, str) and NAME.fullmatch(name) else place


def _account(config: Item, kind: str, variable: str) -> t.Tuple[t.Optional[Person], t.List[str]]:
    value = config.get(kind.replace("-", "_"))
    if not value:
        return None, []
    if not isinstance(value, t.Mapping):
        return None, [f"{variable} is {in_words(value)}; write a mapping with name, ssh_keys and from"]
    reader = _Reader(value, variable)
    account = reader.account(kind, bool(config.get("permit_root_automation")) and kind == "automation")
    if account.keys and not account.sources and not all(key.sources for key in account.keys):
        if kind == "break-glass":
            reader.problem("has no from; write the addresses it may be used from, as it needs no second factor, such as from: [192.0.2.7]")
        elif not config.get("automation_anywhere"):
            reader.problem(
                "has no from; write the addresses of the machines that run Ansible, such as from: [192.0.2.7], or "
                "access_automation_anywhere: true when they are really not known"
            )
    return (None if reader.problems else account), reader.problems


class _Reader:
    """Reads one item and notes all that is wrong with it."""

    def __init__(self, item: Item, label: str) -> None:
        self.item = item
        self.label = label
        self.problems: t.List[str] = []

    def problem(self, text: str) -> None:
        self.problems.append(f"{self.label} {text}")

    def person(self) -> Person:
        self.translate()
        self.known(_OWN | {"public_keys"})
        sources = self.sources()
        state = self.choice("state", ("present", "absent"), "present")
        present = state == "present"
        remove_home = self.flag("remove_home", False)
        if remove_home and present:
            self.problem("has remove_home: true, which goes with state: absent only")
        recipient = self.text("age_recipient", 120)
        if recipient and not re.fullmatch(r"age1[a-z0-9]{20,110}", recipient):
            self.problem("has an age_recipient that is none; write the public key that age-keygen printed, which begins with age1")
        name = self.name(False)
        # Sudo rules of distributions are for such groups, and an account's own group has its name. Who has it may leave.
        if present and name in ROOT_GROUPS - SYSTEM_NAMES:
            self.problem("is the name of a group that is as good as root; choose another login")
        return Person(
            name=name,
            full_name=self.full_name(),
            keys=self.keys(sources),
            role=self.choice("role", ROLES, "user"),
            groups=self.groups(),
            second_factor=self.flag("second_factor", True),
            expires=self.expires(),
            sources=sources,
            present=present,
            remove_home=remove_home,
            age_recipient=recipient,
        )

    def account(self, kind: str, root: bool) -> Person:
        self.known(_ACCOUNT)
        sources = self.sources()
        return Person(
            name=self.name(root), kind=kind, full_name=self.full_name(), keys=self.keys(sources), second_factor=False, sources=sources
        )

    def translate(self) -> None:
        """The names that OpenCRVS uses become ours."""
        item = dict(self.item)
        for other, own in _OTHERS.items():
            if other not in item:
                continue
            value = item.pop(other)
            if own in item:
                self.problem(f"has both {other} and {own}; leave {other} out")
            elif not isinstance(value, bool):
                self.problem(f"has {in_words(value)} as {other}; write true or false")
            else:
                item[own] = ("admin" if value else "user") if own == "role" else value
        self.item = item

    def known(self, keys: t.AbstractSet[str]) -> None:
        for key in self.item:
            if key not in keys:
                self.problem(f"has {str(key)[:40]!r}, which means nothing; write one of {', '.join(sorted(keys - {'public_keys'}))}")

    def name(self, root: bool) -> str:
        name = self.item.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            told = "has no name" if name in (None, "") else f"has the name {str(name)[:40]!r}"
            self.problem(f"{told}; write a login of 1 to 32 lower case letters, digits, - and _, beginning with a letter or _")
            return ""
        if name == "root" and root:
            return name
        if name == "root":
            self.problem(
                "is root; log in as a person or as the automation and let sudo do the rest"
                + ("; where nothing else is possible: access_permit_root_automation: true" if self.label == "access_automation" else "")
            )
        elif name in SYSTEM_NAMES or name.startswith(("civitas", "systemd-")):
            self.problem("is the name of a system account or group; choose another login")
        return name

    def full_name(self) -> str:
        name = self.text("full_name", 100)
        # The file of accounts ends fields at these.
        if re.search(r"[:,=&\\]", name):
            self.problem("has a full_name with one of : , = & \\ in it; leave them out")
        return name

    def text(self, key: str, longest: int) -> str:
        value = self.item.get(key)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > longest or not value.isprintable():
            self.problem(f"has a {key} that is no text of one line with at most {longest} printable characters")
            return ""
        return value.strip()

    def flag(self, key: str, default: bool) -> bool:
        value = self.item.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(f"has {in_words(value)} as {key}; write true or false")
            return default
        return value

    def choice(self, key: str, choices: t.Sequence[str], default: str) -> str:
        value = self.item.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            self.problem(f"has the {key} {str(value)[:40]!r}; write {' or '.join((', '.join(choices[:-1]), choices[-1]))}")
            return default
        return str(value)

    def many(self, key: str, what: str) -> t.Sequence[t.Any]:
        value = self.item.get(key)
        if value is None:
            return []
        if not isinstance(value, (list, tuple)):
            self.problem(f"has {in_words(value)} as {key}; write a list of {what}")
            return []
        return value

    def sources(self) -> t.Tuple[str, ...]:
        found = []
        for value in self.many("from", "addresses"):
            try:
                found.append(parse_source(value))
            except KeyProblem as error:
                self.problem(f"has a wrong from: {error}")
        return tuple(sorted(set(found)))

    def keys(self, sources: t.Sequence[str]) -> t.Tuple[Key, ...]:
        keys: t.List[Key] = []
        for number, value in enumerate(self.many("ssh_keys", "public key lines")):
            try:
                key = parse_key(value)
            except KeyProblem as error:
                self.problem(f"has a wrong key: ssh_keys[{number}] {error}")
                continue
            if key.sources and sources:
                self.problem(f"has addresses in ssh_keys[{number}] and in from; write them in one of the two")
            if key.blob in [other.blob for other in keys]:
                self.problem(f"has the key {key.fingerprint} twice; keep one line of it")
            keys.append(key)
        return tuple(keys)

    def groups(self) -> t.Tuple[str, ...]:
        found = []
        for value in self.many("groups", "group names"):
            if not isinstance(value, str) or not NAME.fullmatch(value):
                self.problem(f"has the group {str(value)[:40]!r}; write the name of a group of the host")
            elif value in ROOT_GROUPS:
                self.problem(f"would be in the group {value}, which is as good as root; leave it out and write a role instead")
            elif value.startswith("civitas-"):
                self.problem(f"would be in the group {value} by hand; it follows from role and second_factor, leave it out")
            else:
                found.append(str(value))
        return tuple(sorted(set(found)))

    def expires(self) -> t.Optional[datetime.date]:
        value = self.item.get("expires")
        if value is None or value == "":
            return None
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            return datetime.date(value.year, value.month, value.day)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            try:
                day = datetime.date.fromisoformat(value)
            except ValueError:
                day = None
            if day is not None and datetime.date(1970, 1, 2) <= day:
                return day
        self.problem(f'has {str(value)[:40]!r} as expires; write the first day without access, such as expires: "2027-01-31"')
        return None


def _doubles(people: t.Sequence[Person]) -> t.List[str]:
    """Names and keys that are there more than once. A key of two people says nothing about who logged in."""
    problems = []
    names = [person.name for person in people]
    problems += [
        f"the login {name} is listed {names.count(name)} times; keep one item of it"
        for name in sorted({n for n in names if names.count(n) > 1})
    ]
    owners: t.Dict[str, t.List[str]] = {}
    for person in people:
        for key in person.keys if person.present else ():
            owners.setdefault(key.fingerprint, []).append(person.name)
    problems += [
        f"the key {fingerprint} belongs to {' and '.join(found)}; every account needs keys of its own"
        for fingerprint, found in sorted(owners.items())
        if len(set(found)) > 1
    ]
    return problems


def _commands(value: t.Any) -> t.List[str]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        return [f"access_operator_commands is {in_words(value)}; write a list of commands"]
    found = ((number, command_problem(command)) for number, command in enumerate(value))
    return [f"access_operator_commands[{number}] ({str(value[number])[:60]!r}) {problem}" for number, problem in found if problem]
