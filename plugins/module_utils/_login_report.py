# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who can get into a host, and who did: for audits. Read-only.

What sshd and sudo themselves say counts, and not what their files seem to say.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import os
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _login_digest as digest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text
from ansible_collections.civitas.hosting.plugins.module_utils import _people_state as people

RECORD = "/var/log/civitas/logins.jsonl"
# A command as a list; returns its exit status and output.
Run = t.Callable[[t.Sequence[str]], t.Tuple[int, str]]
_KEY = re.compile(
    r"(?P<options>\S.*\s)?(?P<type>(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+)\s+(?P<blob>[A-Za-z0-9+/=]{40,})(?:\s+(?P<comment>.*))?$"
)
_METHODS = "authenticationmethods"


class ReportError(Exception):
    """The host cannot be read, or the time is none."""


def moment(value: str, end: bool = False) -> float:
    """A date (V(2026-10-01)) or a time (V(2026-10-01T12:00:00)), UTC, in seconds since 1970; C(end): a date means the end of that day."""
    try:
        found = datetime.datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
    except ValueError:
        raise ReportError(f"{value!r} is no date; write one such as 2026-10-01, or a time such as 2026-10-01T12:00:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.timezone.utc)
    if end and re.fullmatch(r"[\d-]+", value.strip()):
        found += datetime.timedelta(days=1)
    return found.timestamp()


def gather(run: Run, since: float, until: float, record: str = RECORD) -> t.Dict[str, t.Any]:
    """Accounts that somebody can get in with, or could, and the logins of a time. Raises ReportError."""
    try:
        state = people.read()
    except people.HostError as error:
        raise ReportError(str(error)) from error
    every = digest.recorded(record, 0, float("inf"))
    last: t.Dict[str, t.Dict[str, t.Any]] = {login["user"]: login for login in every}
    accounts = []
    for account in sorted(state.accounts.values(), key=lambda account: account.name):
        if not account.has_shell and account.name not in state.keys:
            continue
        groups = state.groups_of(account.name)
        primary = next((group.name for group in state.groups.values() if group.gid == account.gid), str(account.gid))
        settings = _sshd(run, account.name)
        keys = _keys(account, settings.get("authorizedkeysfile", ""))
        login = last.get(account.name)
        allowed, denied = settings.get("allowgroups", "").split(), settings.get("denyusers", "").split()
        root_refused = account.uid == 0 and settings.get("permitrootlogin") == "no"
        ssh = (
            bool(settings) and account.name not in denied and not root_refused and (not allowed or bool({primary, *groups} & set(allowed)))
        )
        expires = int(account.expire) if account.expire.isdigit() else None
        accounts.append(
            {
                "name": account.name,
                "uid": account.uid,
                "full_name": text.clean(account.full_name),
                "groups": sorted(groups | {primary}),
                "kind": next((kind for group, kind in text.GROUPS if group in groups | {primary}), "root" if account.uid == 0 else "other"),
                "open": not account.expired(state.today),
                "expires": _day(expires) if expires is not None else "",
                "password": account.has_password,
                "ssh": ssh,
                "ssh_methods": settings.get(_METHODS, "") if ssh else "",
                "keys": keys,
                "second_factor": account.name in state.second_factors,
                "sudo": _sudo(run, account.name),
                "last_login": login["when"] if login else "",
                "last_source": text.source(login) if login else "",
            }
        )
    return {
        "accounts": accounts,
        "logins": [login for login in every if since <= login["time"] < until],
        "record_begins": every[0]["when"] if every else "",
    }


def _day(days: int) -> str:
    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=days)).isoformat()


def _sshd(run: Run, user: str) -> t.Dict[str, str]:
    """What sshd would do for a login of a user from elsewhere; nothing when there is no sshd."""
    status, output = run(["sshd", "-T", "-C", f"user={user},host=elsewhere,addr=192.0.2.1"])
    found: t.Dict[str, str] = {}
    for line in output.splitlines() if status == 0 else []:
        key, _space, value = line.partition(" ")
        # Some are one line for each value.
        found[key] = f"{found[key]} {value}" if key in found else value
    return found


def _keys(account: people.Account, patterns: str) -> t.List[t.Dict[str, str]]:
    """The keys in the files that sshd reads for an account."""
    found = []
    for pattern in patterns.split():
        path = re.sub(
            r"%[%uhU]", lambda token: {"%%": "%", "%u": account.name, "%h": account.home, "%U": str(account.uid)}[token[0]], pattern
        )
        path = os.path.join(account.home, path)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        for line in lines:
            match = _KEY.match(line.strip())
            if match and not line.lstrip().startswith("#"):
                found.append(
                    {
                        "type": match["type"],
                        "fingerprint": text.fingerprint(match["blob"]),
                        "comment": text.clean(match["comment"] or ""),
                        "options": text.clean((match["options"] or "").strip()),
                        "file": path,
                    }
                )
    return found


def _sudo(run: Run, user: str) -> t.List[str]:
    """What sudo lets a user run, as sudo says it."""
    status, output = run(["sudo", "-n", "-l", "-U", user])
    if status != 0 or "may run the following" not in output:
        return []
    lines = output.split("may run the following", 1)[1].splitlines()[1:]
    return [text.clean(line.strip()) for line in lines if line.strip()]


def render(hosts: t.Mapping[str, t.Optional[t.Mapping[str, t.Any]]], since: str, until: str, now: str) -> str:
    """The report of all hosts for people; a host without facts was not reached, and is named first."""
    lines = ["ACCESS REPORT", f"made {now}, of {len(hosts)} hosts, with logins from {since} to {until}"]
    missing = sorted(name for name, facts in hosts.items() if facts is None)
    if missing:
        lines += ["", f"INCOMPLETE: not reached, and not in this report: {', '.join(missing)}"]
    for name in sorted(set(hosts) - set(missing)):
        lines += ["", "=" * 100, name, "=" * 100]
        lines += _host_lines(t.cast(t.Mapping[str, t.Any], hosts[name]))
    return "\n".join(lines) + "\n"


def _host_lines(facts: t.Mapping[str, t.Any]) -> t.List[str]:
    lines = ["", "WHO HAS ACCESS"]
    for account in facts["accounts"]:
        ways = [f"SSH with {account['ssh_methods'] or 'any'}"] if account["ssh"] and account["keys"] else []
        ways += ["password at the console"] if account["password"] else []
        state = "expired" if not account["open"] else " and ".join(ways) or "no way in"
        lines += ["", f"{account['name']} ({account['kind']}{', ' + account['full_name'] if account['full_name'] else ''})"]
        lines.append(f"    way in         {state}")
        lines.append(f"    expires        {account['expires'] or 'never'}")
        lines.append(f"    second factor  {'enrolled' if account['second_factor'] else 'none'}")
        lines.append(f"    groups         {', '.join(account['groups'])}")
        lines += [f"    sudo           {rule}" for rule in account["sudo"] or ["none"]]
        for key in account["keys"]:
            lines.append(f"    key            {' '.join(filter(None, [key['type'], key['fingerprint'], key['comment'], key['options']]))}")
        seen = f"{account['last_login']} from {account['last_source']}" if account["last_login"] else "none in the record"
        lines.append(f"    last login     {seen}")
    lines += [
        "",
        f"WHO LOGGED IN ({len(facts['logins'])}; the record begins {facts['record_begins'] or 'with the first login: it is empty'})",
    ]
    for login in facts["logins"]:
        key = text.key_text(login)
        lines.append(f"    {login['when']}  {login['user']} ({login['kind']}) from {text.source(login)}, key {key}, {login['session']}")
    return lines
