# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Grants: for some hours a key may read the sets of one host, or one set. Only root of the store makes them, and a restart ends them all.

Private to the collection: no promise of stability. Standard library only.

Whoever reads comes by SSH as a user of his own, which can read no set either. The store's service opens the one file that is asked for, and
hands it over as an open file: so no set has to change its owner, and nothing that was not asked for is ever within reach. Below the
directory of grants, which is to be on a file system that a restart empties::

    ID.json  a grant
    keys     what sshd reads
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hmac
import json
import os
import re
import socket
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._store_receive import ANSWER_SECONDS
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import HostStore, StoreError, describe

# Who restores more slowly than this makes another one.
MOST_HOURS = 72
_ID = re.compile(r"[0-9a-f]{32}")
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{40,}={0,2}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,203}")


class Grant(t.NamedTuple):
    """What a key may read.

    Attributes:
        key: the public key, C(type base64).
        set_id: one set; empty for all of the host.
        until: seconds of Unix from which on it is worth nothing.
    """

    grant_id: str
    host: str
    set_id: str
    key: str
    until: float


# --- what root does


def add(directory: str, command: str, host: str, set_id: str, key: str, hours: float, now: float) -> Grant:
    """Make a grant.

    Args:
        directory: of the grants.
        command: the program, as sshd runs it.

    Raises:
        StoreError: it would be none.
        OSError: it cannot be written.
    """
    key = " ".join(key.split()[:2])
    if not _KEY.fullmatch(key):
        raise StoreError("this is no public key of the type ssh-ed25519")
    if set_id and not form.is_set_id(set_id):
        raise StoreError(f"{set_id!r} is no name of a set")
    if not 0 < hours <= MOST_HOURS:
        raise StoreError(f"a grant lasts {MOST_HOURS} hours at most")
    grant = Grant(os.urandom(16).hex(), host, set_id, key, now + hours * 3600)
    with _changed(directory, command, now):
        write_json(os.path.join(directory, f"{grant.grant_id}.json"), grant._asdict(), 0o600)
    return grant


def revoke(directory: str, command: str, key: str, now: float) -> bool:
    """End the grants of a public key; whether there was one. Raises OSError."""
    with _changed(directory, command, now):
        found = [one for one in grants(directory, now) if one.key == " ".join(key.split()[:2])]
        for one in found:
            os.unlink(os.path.join(directory, f"{one.grant_id}.json"))
    return bool(found)


def grants(directory: str, now: float) -> t.List[Grant]:
    """Those that hold. Raises OSError."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        with contextlib.suppress(StoreError):
            found.append(_read(directory, name[: -len(".json")], now))
    return found


@contextlib.contextmanager
def _changed(directory: str, command: str, now: float) -> t.Iterator[None]:
    """While grants are changed; sshd knows of it at the end."""
    os.makedirs(directory, mode=0o711, exist_ok=True)
    os.chmod(directory, 0o711)
    handle = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
        lines = [
            # The time zone of the host: sshd of Ubuntu 22.04 knows no other one here. The service looks at the time once more.
            f'restrict,expiry-time="{time.strftime("%Y%m%d%H%M%S", time.localtime(one.until))}",'
            f'command="{command} give --grant {one.grant_id}" {one.key} {one.host}\n'
            for one in grants(directory, now)
        ]
        write_text(os.path.join(directory, "keys"), "".join(lines), 0o644)
    finally:
        os.close(handle)


def _read(directory: str, grant_id: str, now: float) -> Grant:
    """Raises StoreError unless there is such a grant, and holds."""
    try:
        if not _ID.fullmatch(grant_id):
            raise ValueError(grant_id)
        with open(os.path.join(directory, f"{grant_id}.json"), encoding="utf-8") as file:
            grant = Grant(**json.load(file))
        if hmac.compare_digest(grant.grant_id, grant_id) and now < float(grant.until):
            return grant
    except (OSError, ValueError, TypeError):
        pass
    raise StoreError("this grant has ended; make another one", final=True)


# --- the service


def serve(
    connection: socket.socket, request: t.Mapping[str, t.Any], directory: str, store_of: t.Callable[[str], HostStore], now: float
) -> t.Optional[t.Dict[str, t.Any]]:
    """The reply to a request with a grant; nothing when it was an open file, which is sent already.

    Args:
        store_of: the store of a host; raises StoreError.

    Raises:
        StoreError: it is refused.
        OSError: it cannot be read.
    """
    grant = _read(directory, str(request["grant"]), now)
    store = store_of(grant.host)
    sets = [one for one in store.sets() if grant.set_id in ("", one.set_id)]
    if request["request"] == "sets":
        return {"time": now, "host": grant.host, "sets": [describe(one) for one in sets]}
    if request["request"] != "open":
        raise StoreError("nobody knows this request", final=True)
    for one in sets:
        if one.set_id == request["set"] and request["name"] in {form.MANIFEST, form.SIGNATURE, *one.manifest.members}:
            handle = os.open(os.path.join(one.path, str(request["name"])), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                line = (json.dumps({"bytes": os.fstat(handle).st_size}) + "\n").encode()
                connection.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))])
            finally:
                os.close(handle)
            return None
    raise StoreError("this grant is for other files", final=True)


# --- what the key runs


def give(socket_path: str, grant_id: str, asked: str) -> int:
    """Serve one request of who holds the key of a grant; C(asked) is what he wants to run. Raises StoreError, OSError."""
    words = asked.split(" ")
    if words == ["sets"]:
        reply, _handle = _ask(socket_path, {"request": "sets", "grant": grant_id})
        sys.stdout.write(json.dumps(reply) + "\n")
        return 1 if "error" in reply else 0
    if len(words) != 4 or words[0] != "get" or not _NAME.fullmatch(words[2]) or not re.fullmatch(r"\d{1,15}", words[3]):
        raise StoreError("only 'sets' and 'get SET NAME OFFSET' are served here", final=True)
    reply, handle = _ask(socket_path, {"request": "open", "grant": grant_id, "set": words[1], "name": words[2]})
    if handle is None:
        raise StoreError(str(reply.get("error", "the store does not answer")), final=bool(reply.get("final")))
    with open(handle, "rb", buffering=0) as file:
        file.seek(int(words[3]))
        for data in iter(lambda: file.read(CHUNK), b""):
            sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return 0


def _ask(socket_path: str, request: t.Mapping[str, t.Any]) -> t.Tuple[t.Dict[str, t.Any], t.Optional[int]]:
    """What the service answers, and the open file. Raises StoreError, OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(socket_path)
        connection.sendall((json.dumps(request) + "\n").encode())
        size = array.array("i").itemsize
        text, extra, _flags, _address = connection.recvmsg(65536, socket.CMSG_SPACE(size))
        handle = next((array.array("i", data[:size])[0] for level, kind, data in extra if kind == socket.SCM_RIGHTS), None)
        with connection.makefile("rb") as file:
            text += b"" if text.endswith(b"\n") else file.readline()
    try:
        return json.loads(text), handle
    except ValueError as error:
        raise StoreError("the store does not answer") from error
