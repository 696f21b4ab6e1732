# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What PAM runs at every login: note it, never hinder it.

The note goes to disk, else (full, missing, damaged) to memory, and always to the journal. All else is done later by another process.
Imports are few on purpose, as somebody waits for this.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import time
import typing as t

# Tried in this order; the second is memory, for when the first cannot be written.
BASES = ("/var/spool/civitas/logins", "/run/civitas/logins")
# One note is below 4 KiB. More than this many wait only where nothing is delivered any more.
LIMIT = 5000
# How long a login waits for the disk at most, in seconds. The note is finished without it.
PATIENCE = 1.0

LOST = "lost"
_LOST_BYTES = 1 << 20
_JOURNAL = "/run/systemd/journal/socket"
_WANTED = ("PAM_SERVICE", "PAM_USER", "PAM_RUSER", "PAM_RHOST", "PAM_TTY", "SSH_CONNECTION")


class SpoolError(Exception):
    """The note could not be written."""


class Full(SpoolError):
    """As many notes wait as may."""


def event(environment: t.Mapping[str, str], now: float, unique: str) -> t.Dict[str, t.Any]:
    """What is known of a login, as PAM tells it in the environment."""
    note: t.Dict[str, t.Any] = {key.lower(): environment.get(key, "")[:512] for key in _WANTED}
    # One line per method that was passed: "publickey ssh-ed25519 AAAA...". An RSA key of 16384 bits has 2800 characters.
    note["methods"] = environment.get("SSH_AUTH_INFO_0", "")[:12288]
    note["time"] = round(now, 3)
    # In the order of time, also as a file name.
    note["id"] = f"{int(now * 1000):013x}-{unique}"
    return note


def put(note: t.Mapping[str, t.Any], bases: t.Sequence[str] = BASES, limit: int = LIMIT) -> str:
    """Write a note where it is safe; returns the directory. SpoolError says why nothing takes it."""
    data = json.dumps(note).encode("ascii")
    reasons = []
    for base in bases:
        try:
            directory = open_directory(base, "new")
        except OSError as error:
            reasons.append(f"{base}: {error.strerror or error}")
            continue
        try:
            if len(os.listdir(directory)) >= limit:
                count_lost(base, float(note["time"]))
                raise Full(f"{base}: {limit} logins wait to be announced; see systemctl status civitas-logins.service")
            write(directory, f"{note['id']}.json", data)
            return base
        except OSError as error:
            reasons.append(f"{base}: {error.strerror or error}")
        finally:
            os.close(directory)
    raise SpoolError("; ".join(reasons))


def open_directory(base: str, name: str) -> int:
    """Open C(name) in C(base), made when missing. Raises OSError when others than its owner could write to it."""
    path = f"{base}/{name}"
    # The mode is for the last part of a path only.
    os.makedirs(base, mode=0o700, exist_ok=True)
    os.makedirs(path, mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    for found in (os.stat(base, follow_symlinks=False), os.fstat(handle)):
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            os.close(handle)
            raise PermissionError(f"must be a directory of user {os.geteuid()} that nobody else can write to")
    return handle


def write(directory: int, name: str, data: bytes) -> None:
    """Put a whole file into an open directory, or nothing."""
    temporary = f".{name}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def count_lost(base: str, when: float) -> None:
    """Remember that a login will not be announced by itself; a line of time each, in one file of bounded size."""
    handle = os.open(f"{base}/{LOST}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(handle).st_size < _LOST_BYTES:
            os.write(handle, b"%d\n" % int(when))
    finally:
        os.close(handle)


def to_journal(priority: int, message: str, **fields: str) -> None:
    """A line with fields of its own. Never waits and never fails: there is nobody left to tell."""
    lines = {"PRIORITY": str(priority), "SYSLOG_IDENTIFIER": "civitas-logins", "MESSAGE": message, **fields}
    # A line feed ends a field; what an attacker sends must not begin another.
    data = "".join(f"{key}={''.join(c if c.isprintable() else '?' for c in value)}\n" for key, value in lines.items())
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as journal:
        journal.sendto(data.encode("utf-8", "replace"), _JOURNAL)


def note_login(environment: t.Mapping[str, str]) -> None:
    """Note the login that PAM tells of in its environment, and return within C(PATIENCE) whatever happens."""
    if environment.get("PAM_TYPE", "open_session") != "open_session":
        return
    note = event(environment, time.time(), os.urandom(4).hex())
    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(ready)
            os.setsid()
            _note(note)
        finally:
            os._exit(0)
    os.close(done)
    # It is readable when the child has ended. One that hangs on the disk ends by itself later; init reaps it.
    select.select([ready], [], [], PATIENCE)


def _note(note: t.Mapping[str, t.Any]) -> None:
    who = f"{note['pam_user']} from {note['pam_rhost'] or note['pam_tty'] or 'nowhere'} by {note['pam_service']}"
    shown = json.dumps(note)
    try:
        base = put(note)
        where = "" if base == BASES[0] else f"; noted in {base}, as {BASES[0]} cannot be written"
        to_journal(6 if not where else 3, f"login of {who}{where}", CIVITAS_LOGIN=shown)
    except SpoolError as error:
        to_journal(2, f"login of {who} WILL NOT BE ANNOUNCED BY ITSELF: {error}", CIVITAS_LOGIN=shown)
    except Exception as error:  # whatever it is, the journal gets the login
        to_journal(2, f"login of {who} WILL NOT BE ANNOUNCED BY ITSELF: {error!r}", CIVITAS_LOGIN=shown)
