# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The logins that failed in a day, from the journal; and whether each one that succeeded was noted.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import glob
import gzip
import json
import os
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text

IDENTIFIERS = (
    "sshd", "sshd-session", "sshd-auth", "sshd(pam_google_authenticator)", "sshd-session(pam_google_authenticator)", "login",
)  # fmt: skip
# Rows of the table at most: who tries out names makes thousands.
ROWS = 40
# Of one person until the next digest. Nobody is asked for a code without the right key: more is no slip of a finger.
WRONG_CODES = 10
# The login that a run of the role tries, wrong codes included.
_PROBE = "civitas-probe"

_USER = r"(?P<user>.*?)"
_FROM = r"from (?P<address>\S+)"
# The first that matches tells more than those after it, when several lines of one connection match.
_REASONS = tuple(
    (reason, re.compile(pattern))
    for reason, pattern in (
        ("not allowed to log in", rf"User {_USER} {_FROM} not allowed because"),
        ("wrong code", rf"Invalid verification code for {_USER}$"),
        ("wrong code", rf"Failed keyboard-interactive/pam for (?:invalid user )?{_USER} {_FROM} port \d+"),
        ("wrong password", rf"Failed password for (?!invalid user ){_USER} {_FROM} port \d+"),
        ("no such user", rf"Invalid user {_USER} {_FROM} port \d+"),
        ("no such user", rf"Failed \S+ for invalid user {_USER} {_FROM} port \d+"),
        ("too many attempts", rf"error: maximum authentication attempts exceeded for (?:invalid user )?{_USER} {_FROM} port \d+"),
        ("key not accepted", rf"Failed publickey for {_USER} {_FROM} port \d+"),
        ("gave up", rf"Connection (?:closed|reset) by (?:authenticating|invalid) user {_USER} (?P<address>\S+) port \d+"),
        ("gave up", rf"Disconnected from (?:authenticating|invalid) user {_USER} (?P<address>\S+) port \d+"),
        ("wrong password at the console", rf"FAILED LOGIN \(\d+\) on '(?P<address>[^']*)'(?: from '[^']*')? FOR '{_USER}'"),
        ("wrong password at the console", rf"FAILED LOGIN (?:SESSION )?(?:\d+ )?FROM (?P<address>\S+) FOR {_USER}, "),
    )
)
_ACCEPTED = re.compile(r"Accepted (?P<method>\S+) for (?P<user>\S+) from (?P<address>\S+) port (?P<port>\d+)")


class Day(t.NamedTuple):
    """What the journal says of a time.

    Attributes:
        failed: (user, source, reason) with how often.
        wrong_before_success: how often a login that succeeded in the end had a wrong code or password before.
        accepted: (address, port) of the SSH connections that got in, with the user.
        wrong_codes: how many codes of a user were refused, of all connections; one that came too soon after others counts, too.
    """

    failed: t.Dict[t.Tuple[str, str, str], int]
    wrong_before_success: int
    accepted: t.Dict[t.Tuple[str, str], str]
    wrong_codes: t.Mapping[str, int] = {}


def read(entries: t.Iterable[t.Mapping[str, t.Any]]) -> Day:
    """Judge journal entries, those of one process as one attempt. Lines of users' own processes say nothing about logins."""
    attempts: t.Dict[str, t.List[t.Tuple[int, str, str]]] = {}
    succeeded: t.Set[str] = set()
    accepted: t.Dict[t.Tuple[str, str], str] = {}
    failed: t.Dict[t.Tuple[str, str, str], int] = {}
    for entry in entries:
        line, process = str(entry["MESSAGE"]), str(entry["_PID"])
        if entry["_UID"] != "0":
            continue
        match = _ACCEPTED.match(line)
        if match:
            succeeded.add(process)
            accepted[(match["address"], match["port"])] = match["user"]
            continue
        for rank, (reason, pattern) in enumerate(_REASONS):
            match = pattern.match(line)
            if match:
                place = match.groupdict().get("address") or ""
                if entry["SYSLOG_IDENTIFIER"] == "login":
                    key = (match["user"], place, reason)
                    failed[key] = failed.get(key, 0) + 1
                else:
                    attempts.setdefault(process, []).append((rank, match["user"], place))
                break
    wrong = 0
    codes: t.Dict[str, int] = {}
    for process, found in attempts.items():
        for rank, user, place in found:
            # Of the two lines about each, the one of sshd.
            if _REASONS[rank][0] == "wrong code" and place and user != _PROBE:
                codes[user] = codes.get(user, 0) + 1
        if process in succeeded:
            wrong += sum(1 for rank, _user, place in found if _REASONS[rank][0].startswith("wrong") and place)
            continue
        rank, user, place = min(found)
        place = place or next((other for _rank, _user, other in found if other), "")
        key = (user, place, _REASONS[rank][0])
        failed[key] = failed.get(key, 0) + 1
    return Day(failed, wrong, accepted, codes)


def guesses(day: Day) -> t.List[str]:
    """Whose codes are being tried out, one line each, and what to do."""
    return [
        f"WRONG CODES: {text.clean(user)}, {count} times: whoever holds the key tries codes; unless it was the person, take it away "
        "(revoke_access) and write another key"
        for user, count in sorted(day.wrong_codes.items())
        if count >= WRONG_CODES
    ]


def recorded(path: str, since: float, until: float) -> t.List[t.Dict[str, t.Any]]:
    """The logins of a time from the record and from the files that it was rotated to, each once, oldest first."""
    found: t.Dict[str, t.Dict[str, t.Any]] = {}
    for file in rotated(path, since):
        for login in _lines(file):
            if since <= login["time"] < until:
                found[login["id"]] = login
    return sorted(found.values(), key=lambda login: (login["time"], login["id"]))


def rotated(path: str, since: float) -> t.List[str]:
    """The record and what it was rotated to, as far as that was changed after C(since)."""
    return [file for file in sorted(glob.glob(f"{glob.escape(path)}*")) if os.path.getmtime(file) >= since]


def _lines(path: str) -> t.Iterator[t.Dict[str, t.Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as file:
        for line in file:
            try:
                login = json.loads(line)
                login["time"], login["id"] = float(login["time"]), str(login["id"])
            except (ValueError, KeyError, TypeError):
                continue
            yield login


def digest(
    host: str, since: float, until: float, day: Day, logins: t.Sequence[t.Mapping[str, t.Any]], begins: t.Optional[float]
) -> t.Dict[str, t.Any]:
    """The message of a day; it is sent also when nothing happened, so that its absence says something.

    Args:
        host: name of the host.
        since: begin of the time.
        until: its end.
        day: what the journal says.
        logins: what was noted, for a little longer than that time.
        begins: time of the journal's first entry.
    """
    total = sum(day.failed.values())
    noted = {(login["address"], login["port"]) for login in logins}
    unnoted = {connection: user for connection, user in day.accepted.items() if connection not in noted}
    kinds: t.Dict[str, int] = {}
    for login in logins:
        if since <= login["time"] < until:
            kinds[login["kind"]] = kinds.get(login["kind"], 0) + 1
    lines = [
        f"Host:              {host}",
        f"From:              {text.utc(since)}",
        f"To:                {text.utc(until)}",
        f"Failed logins:     {total}",
        f"Wrong, then right: {day.wrong_before_success}",
        f"Logins:            {sum(kinds.values())}" + "".join(f", {kind} {kinds[kind]}" for kind in sorted(kinds)),
    ]
    if begins is None or begins > since + 60:
        lines.append(f"The journal begins at {text.utc(begins)} only." if begins else "There is no journal: nothing is known of failures.")
    for (address, port), user in sorted(unnoted.items()):
        who = f"{text.clean(user)} got in from {text.clean(address)} port {text.clean(port)}"
        lines.append(f"NOT ANNOUNCED: {who}, and PAM told nothing of it")
    lines += guesses(day)
    table = sorted(day.failed.items(), key=lambda row: (-row[1], row[0]))
    if table:
        lines += ["", "times  user, from, reason"]
        lines += [f"{count:5}  {text.clean(user)}, {text.clean(place)}, {reason}" for (user, place, reason), count in table[:ROWS]]
    if len(table) > ROWS:
        lines.append(f"and {len(table) - ROWS} more; journalctl --since '{text.utc(since)}' -t sshd -t sshd-session -t login")
    subject = f"[{host}] {total} failed login{'s' if total != 1 else ''}" + (f", {len(unnoted)} NOT ANNOUNCED" if unnoted else "")
    subject += ", WRONG CODES" if guesses(day) else ""
    facts = {
        "since": since,
        "until": until,
        "failed": [{"user": text.clean(u), "source": text.clean(p), "reason": r, "count": n} for (u, p, r), n in table[:ROWS]],
        "failed_count": total,
        "logins": kinds,
        "unannounced": len(unnoted),
        "wrong_codes": {text.clean(user): count for user, count in sorted(day.wrong_codes.items())[:ROWS]},
    }
    return text.message(f"digest-{int(until)}", "digest", host, subject, lines, facts)
