# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who went through a bastion, when, from where, to which host and port, and for how long: read from what sshd writes into the journal.

Private to the collection: no promise of stability. sshd tells of an allowed forwarding at no level below debug; its option LogVerbose lets
single functions tell it all the same, without the rest. Reading the journal afterwards neither delays nor ends a connection, and nothing is
lost while the reader is down: it goes on where it was. Standard library only.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import typing as t

Record = t.Dict[str, t.Any]

# 'debug1: channels.c:channel_free():792 (bin=sshd-session, pid=141): ', of which errors and other levels have only parts.
_PREFIX = re.compile(r"^(?:(?:debug[123]|error|fatal): )?(?:[\w.-]+\.c:\w+\(\):\d+ \([^()]*\): )?")
_ACCEPTED = re.compile(r"(Accepted|Partial) ([\w/-]+) for (\S+) from (\S+) port (\d+) ssh2(?:: (.*))?$")
_FINGERPRINT = re.compile(r"\b(SHA256:[A-Za-z0-9+/]+|MD5:[0-9a-f:]+)")
_CHILD = re.compile(r"User child is on pid (\d+)$")
_CLOSED = re.compile(r"pam_unix\(sshd:session\): session closed for user ")
_ASKED = re.compile(r"originator \S+ port \d+, target (\S+) port (\d+)$")
_CONNECTED = re.compile(r"channel (\d+): connected to (\S+) port (\d+)$")
_FREED = re.compile(r"channel (\d+): free: ")
_REASON = re.compile(r"channel \d+: connection failed: (.+)$")
_FAILED = re.compile(r"connect_to (\S+) port (\d+): failed\.$")
_UNKNOWN = re.compile(r"connect_to (\S+): unknown host \((.+)\)$")
_DENIED = re.compile(r"Received request .*to connect to host (\S+) port (\d+), but the request was denied\.$")
_REFUSED = re.compile(r"refused local port forward: originator \S+ port \d+, target (\S+) port (\d+)$")

# Seconds after which sshd has long given up a login that is not complete.
_GRACE = 600


class Recorder:
    """Turns lines of sshd into records.

    The process that authenticates is root's; the one that forwards runs as the person and is believed only under the number that the first
    one announced. Both numbers come from the journal and not from the line, so nobody speaks for another process.

    Args:
        state: what C(state) of an earlier one returned; left out for a new start.
    """

    def __init__(self, state: t.Optional[t.Mapping[str, t.Any]] = None) -> None:
        known = state or {}
        self._boot = str(known.get("boot", ""))
        # Number of root's process -> its login; number of the person's process -> number of root's.
        self._sessions: t.Dict[str, Record] = dict(known.get("sessions", {}))
        self._children: t.Dict[str, str] = dict(known.get("children", {}))

    def state(self) -> t.Dict[str, t.Any]:
        """What a later one needs to go on, as JSON can hold it."""
        return {"boot": self._boot, "sessions": self._sessions, "children": self._children}

    def feed(self, entry: t.Mapping[str, t.Any]) -> t.List[Record]:
        """Return the records that one entry of the journal (C(journalctl --output=json)) completes, most often none."""
        pid, now = str(entry.get("_PID", "")), int(entry.get("__REALTIME_TIMESTAMP", 0)) / 1e6
        records = self._new_boot(str(entry.get("_BOOT_ID", "")), now)
        text = _PREFIX.sub("", _text(entry.get("MESSAGE")))
        if str(entry.get("_UID")) == "0":
            records += self._root_says(pid, text, now)
        if pid in self._children:
            records += self._child_says(self._sessions[self._children[pid]], text, now)
        return records

    def _new_boot(self, boot: str, now: float) -> t.List[Record]:
        if boot == self._boot:
            return []
        self._boot = boot
        return [record for pid in list(self._sessions) for record in self._end(pid, now, "reboot")]

    def _root_says(self, pid: str, text: str, now: float) -> t.List[Record]:
        accepted = _ACCEPTED.match(text)
        if accepted:
            kind, method, user, address, port, rest = accepted.groups()
            # A number of a process that ended unseen comes again.
            records = self._end(pid, now, "lost") if self._sessions.get(pid, {}).get("since") else []
            session = self._sessions.setdefault(pid, {"methods": [], "key": "", "channels": {}, "asked": []})
            session["methods"].append(method)
            key = _FINGERPRINT.search(rest or "")
            session["key"] = key.group(1) if key else session["key"]
            session.update(user=user, address=address, port=int(port), id=f"{self._boot[:8]}-{pid}-{int(now)}")
            if kind == "Partial":
                # Of those whose code never came nothing more is heard.
                session["begun"] = now
                late = [other for other, item in self._sessions.items() if "since" not in item and now - item["begun"] > _GRACE]
                for other in late:
                    del self._sessions[other]
                return records
            session["since"] = now
            return [*records, _record("login", session, now, method="+".join(session["methods"]))]
        child = _CHILD.match(text)
        if child and pid in self._sessions:
            self._children[child.group(1)] = pid
        if _CLOSED.match(text) and pid in self._sessions:
            return self._end(pid, now, "")
        return []

    def _end(self, pid: str, now: float, why: str) -> t.List[Record]:
        session = self._sessions.pop(pid)
        self._children = {child: parent for child, parent in self._children.items() if parent != pid}
        if "since" not in session:
            return []
        note = {"note": why} if why else {}
        records = [self._close(session, channel, now, note) for channel in list(session["channels"])]
        return [*records, _record("logout", session, now, seconds=_seconds(session["since"], now), **note)]

    def _close(self, session: Record, channel: str, now: float, note: t.Mapping[str, str]) -> Record:
        to, since = session["channels"].pop(channel)
        return _record("close", session, now, to=to, seconds=_seconds(since, now), **note)

    def _child_says(self, session: Record, text: str, now: float) -> t.List[Record]:
        reason = _REASON.match(text)
        if reason:
            session["reason"] = reason.group(1)
        connected = _CONNECTED.match(text)
        if connected:
            to = _target(connected.group(2), connected.group(3))
            session["channels"][connected.group(1)] = [to, now]
            return [_record("open", session, now, to=to)]
        freed = _FREED.match(text)
        if freed and freed.group(1) in session["channels"]:
            return [self._close(session, freed.group(1), now, {})]
        asked = _ASKED.match(text)
        if asked:
            # The line about an unknown name has no port.
            session["asked"] = [*session["asked"][-9:], list(asked.groups())]
        denied = _DENIED.match(text) or _REFUSED.match(text)
        if denied:
            return [_record("refused", session, now, to=_target(*denied.groups()), reason="not declared")]
        failed = _FAILED.match(text)
        if failed:
            return [_record("failed", session, now, to=_target(*failed.groups()), reason=session.pop("reason", "no answer"))]
        unknown = _UNKNOWN.match(text)
        if unknown:
            port = next((port for host, port in reversed(session["asked"]) if host == unknown.group(1)), "0")
            return [_record("failed", session, now, to=_target(unknown.group(1), port), reason=unknown.group(2))]
        return []


def _text(message: t.Any) -> str:
    # The journal gives what is no text as a list of bytes.
    if isinstance(message, list):
        return bytes(message).decode("utf-8", "replace")
    return str(message or "")


def _target(host: str, port: str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _seconds(since: float, now: float) -> float:
    return round(max(0.0, now - since), 1)


def _record(event: str, session: t.Mapping[str, t.Any], now: float, **more: t.Any) -> Record:
    stamp = datetime.datetime.fromtimestamp(now, datetime.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    who = {"user": session["user"], "from": session["address"], "from_port": session["port"], "key": session["key"]}
    return {"time": stamp, "event": event, "session": session["id"], **who, **more}


def append(path: str, records: t.Sequence[Record], written: int) -> int:
    """Append records as JSON lines to C(path), all or none, safe on disk when it returns.

    Args:
        path: the file; made when missing, its directory exists.
        records: what is to be added. A line that stands behind C(written) already is not added again: it is from before a power failure.
        written: size of the file that an earlier call returned, 0 when there was none.

    Returns:
        The size of the file now.

    Raises:
        OSError: it cannot be written; the file is then as it was.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        size = os.fstat(handle).st_size
        # Smaller than it was: it has been rotated.
        there = set(os.pread(handle, size - written, written).splitlines()) if written <= size else set()
        lines = [json.dumps(record, ensure_ascii=True).encode() for record in records]
        data = b"".join(line + b"\n" for line in lines if line not in there)
        if data:
            try:
                if os.write(handle, data) != len(data):
                    raise OSError(28, os.strerror(28), path)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise
        return size + len(data)
    finally:
        os.close(handle)
