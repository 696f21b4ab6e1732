# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what PAM said to what people read: who came in, from where, with which key, and as what.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import time
import typing as t

# Group on the host -> kind of login; the first that holds.
GROUPS = (("civitas-breakglass", "break-glass"), ("civitas-automation", "automation"), ("civitas-people", "person"))

_STARTED = re.compile(
    r"Starting session: (?P<what>shell|command|forced-command|subsystem)(?: \([a-z-]+\))?(?: '(?P<name>.*)')?(?: on (?P<tty>\S+))?"
    r" for (?P<user>\S+) from (?P<address>\S+) port (?P<port>\d+) id \d+"
)
_LENGTH = 200


def clean(text: t.Any) -> str:
    """One line that is safe in headers, mails and terminals: what cannot be printed, and all too much of it, is left out."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown if len(shown) <= _LENGTH else f"{shown[:_LENGTH]}..."


def utc(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def keys_of(methods: str) -> t.Tuple[t.List[str], t.List[t.Dict[str, str]]]:
    """The methods that were passed, and the keys among them with type and SHA-256 fingerprint as C(ssh-keygen -l) shows it."""
    names, keys = [], []
    for line in methods.splitlines():
        words = line.split()
        if not words:
            continue
        names.append(clean(words[0]))
        if words[0] == "publickey" and len(words) >= 3:
            keys.append({"type": clean(words[1]), "fingerprint": fingerprint(words[2])})
    return names, keys


def fingerprint(blob: str) -> str:
    """SHA-256 of a public key in base64, as OpenSSH writes it; empty when it is damaged."""
    try:
        raw = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode("ascii").rstrip("=")


def sessions(lines: t.Iterable[str]) -> t.Dict[t.Tuple[str, str], t.List[str]]:
    """What was asked for on each connection (address, port), from the lines that sshd logs at level VERBOSE."""
    found: t.Dict[t.Tuple[str, str], t.List[str]] = {}
    for line in lines:
        match = _STARTED.match(line)
        if not match:
            continue
        what = {"shell": "interactive", "subsystem": match["name"]}.get(match["what"]) or match["what"]
        if match["tty"] and match["what"] != "shell":
            what += " on a terminal"
        kinds = found.setdefault((match["address"], match["port"]), [])
        if what not in kinds:
            kinds.append(clean(what))
    return found


def record(note: t.Mapping[str, t.Any], groups: t.Collection[str], asked: t.Sequence[str], told: bool) -> t.Dict[str, t.Any]:
    """The login as it is kept and announced.

    Args:
        note: what PAM said.
        groups: the groups of the user.
        asked: what was asked for on its connection.
        told: whether the log was there to see that.
    """
    service, user = clean(note["pam_service"]), clean(note["pam_user"])
    connection = [clean(word) for word in str(note.get("ssh_connection") or "").split()]
    address, port = (connection[0], connection[1]) if len(connection) == 4 else (clean(note["pam_rhost"]), "")
    methods, keys = keys_of(str(note.get("methods") or ""))
    remote = service == "sshd"
    kind = next((kind for group, kind in GROUPS if group in groups), "root" if user == "root" else "other")
    if not remote:
        kind = "root console" if user == "root" else kind
        session = "console"
    elif asked:
        session = ", ".join(asked)
    else:
        session = "none yet (forwarding only, or idle)" if told else "unknown"
    return {
        "id": clean(note["id"]),
        "time": float(note["time"]),
        "when": utc(float(note["time"])),
        "user": user,
        "kind": kind,
        "service": service,
        "address": address,
        "port": port,
        "tty": "" if remote else clean(note["pam_tty"]),
        "methods": methods,
        "keys": keys,
        "session": session,
    }


def source(login: t.Mapping[str, t.Any]) -> str:
    return str(login["address"] or login["tty"] or "an unknown place")


def key_text(login: t.Mapping[str, t.Any]) -> str:
    return ", ".join(f"{key['type']} {key['fingerprint']}" for key in login["keys"]) or "none"


def announcement(host: str, login: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """The message about one login."""
    mark = "BREAK-GLASS " if login["kind"] == "break-glass" else ""
    lines = [
        f"Host:     {host}",
        f"User:     {login['user']}",
        f"Kind:     {login['kind']}",
        f"From:     {source(login)}" + (f" port {login['port']}" if login["port"] else ""),
        f"Key:      {key_text(login)}",
        f"Proofs:   {', '.join(login['methods']) or 'those of the console'}",
        f"Session:  {login['session']}",
        f"Time:     {login['when']}",
    ]
    subject = f"[{host}] {mark}login of {login['user']} ({login['kind']}) from {source(login)}"
    return message(login["id"], "login", host, subject, lines, {"login": dict(login)})


def summary(identifier: str, host: str, logins: t.Sequence[t.Mapping[str, t.Any]]) -> t.Dict[str, t.Any]:
    """One message about several logins of automation: every user, source and key with number, first and last time."""
    rows: t.Dict[t.Tuple[str, str, str, str], t.List[float]] = {}
    for login in logins:
        rows.setdefault((login["user"], source(login), key_text(login), login["session"]), []).append(login["time"])
    lines = [f"Host:     {host}", f"Logins:   {len(logins)}, of automation", ""]
    table = []
    for (user, place, key, session), times in sorted(rows.items(), key=lambda row: -len(row[1])):
        lines.append(f"{len(times):5} x {user} from {place}, key {key}, {session}; {utc(min(times))} to {utc(max(times))}")
        table.append({"user": user, "source": place, "key": key, "session": session, "count": len(times), "times": sorted(times)})
    subject = f"[{host}] {len(logins)} login{'s' if len(logins) != 1 else ''} of automation"
    return message(identifier, "summary", host, subject, lines, {"count": len(logins), "logins": table})


def lost(identifier: str, host: str, count: int, first: float, last: float) -> t.Dict[str, t.Any]:
    """The message that some logins were not announced one by one."""
    lines = [
        f"{count} logins between {utc(first)} and {utc(last)} are not announced one by one, because too many messages waited.",
        f"On {host}, 'journalctl -t civitas-logins' names them all, and /var/log/civitas/logins.jsonl those that were delivered from disk.",
    ]
    facts = {"count": count, "first": first, "last": last}
    return message(identifier, "lost", host, f"[{host}] {count} logins were not announced one by one", lines, facts)


def message(
    identifier: str, kind: str, host: str, subject: str, lines: t.Sequence[str], facts: t.Mapping[str, t.Any]
) -> t.Dict[str, t.Any]:
    return {"id": identifier, "type": kind, "host": host, "subject": clean(subject), "text": "\n".join(lines) + "\n", **facts}


def payload(found: t.Mapping[str, t.Any], shape: str) -> t.Dict[str, t.Any]:
    """What a webhook gets: V(slack) and V(matrix) are one text, V(teams) is a card of lines, V(generic) everything."""
    plain = f"{found['subject']}\n{found['text']}"
    if shape == "slack":
        for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # nobody calls a whole channel by a user name
            plain = plain.replace(sign, entity)
        return {"text": plain}
    if shape == "matrix":
        return {"msgtype": "m.text", "body": plain}
    if shape == "teams":
        # Rich text, in which no sign makes a link or a mention.
        lines = [
            {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line or " ", "weight": "Default" if position else "Bolder"}]}
            for position, line in enumerate(plain.rstrip("\n").split("\n"))
        ]
        card = {"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.2", "body": lines}
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
        return {"type": "message", "attachments": [attachment]}
    return dict(found)
