# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's key may do on a store: ask, write into one directory, and have it judged. sshd runs it, whatever the host asks.

Private to the collection: no promise of stability. Standard library only.

It runs as the user of the host, which can read no set. Whatever needs more is asked from the store's own service by a socket; that one
trusts the number of the user that the kernel tells, and nothing of the request.
"""

from __future__ import annotations

import json
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import FormatError
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import HostStore, StoreError

REQUEST_BYTES = 4096
# Much can be read before a set is kept.
ANSWER_SECONDS = 6 * 3600.0
# What rsync may write beyond what was announced, and how many files.
SLACK = 64 * 2**20
MOST_FILES = 20_000
_WATCH_SECONDS = 0.5
# Only these options, which the sending program gives: no deleting, no links, no other directory, nothing to be read.
_FLAGS = re.compile(r"-v*te\.[A-Za-z.]{1,40}")
_OPTIONS = re.compile(r"--inplace|--timeout=\d{1,5}|--bwlimit=\d{1,9}")
_TARGET = re.compile(r"incoming/([0-9TZa-f-]{29})/")


def rsync_command(words: t.Sequence[str]) -> t.Tuple[t.List[str], str]:
    """The command of rsync's receiving side for what a host asks, without its target, and the name of the set. Raises StoreError."""
    if len(words) < 5 or words[0] != "rsync" or words[1] != "--server" or words[-2] != ".":
        raise StoreError("only the sending side of rsync is served here", final=True)
    flags, options, target = words[2], words[3:-2], _TARGET.fullmatch(words[-1])
    if not _FLAGS.fullmatch(flags) or not all(_OPTIONS.fullmatch(option) for option in options) or "--inplace" not in options:
        raise StoreError("rsync is served with the options of civitas-backup only", final=True)
    if target is None or not form.is_set_id(target[1]):
        raise StoreError("rsync may write into the directory of a new set only", final=True)
    return ["rsync", "--server", flags, *options, "."], target[1]


def receive(directory: str, socket_path: str, host: str, asked: str, minimum_free: int) -> int:
    """Serve one request of a host; C(asked) is what it wants to run. Raises StoreError, OSError."""
    words = asked.split(" ")
    if words[0] == "rsync":
        command, set_id = rsync_command(words)
        return _rsync(command, os.path.join(directory, "incoming", host), set_id, minimum_free)
    request: t.Dict[str, t.Any] = {"request": words[0], "host": host}
    if words[0] == "begin" and len(words) == 3 and words[2].isdigit() and len(words[2]) < 16:
        request.update(set=words[1], bytes=int(words[2]))
    elif words[0] == "commit" and len(words) == 2:
        request.update(set=words[1])
    elif words != ["have"]:
        raise StoreError("a host may say 'have', 'begin SET BYTES', 'commit SET', or send a set with rsync", final=True)
    sys.stdout.write(ask(socket_path, request))
    sys.stdout.flush()
    return 0


def ask(socket_path: str, request: t.Mapping[str, t.Any]) -> str:
    """The line that the store's service answers. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(socket_path)
        connection.sendall((json.dumps(request) + "\n").encode())
        with connection.makefile("r", encoding="utf-8") as file:
            return file.readline()


def _rsync(command: t.Sequence[str], incoming: str, set_id: str, minimum_free: int) -> int:
    """Let rsync write, and end it when it writes more than was announced. Raises StoreError, OSError."""
    target = os.path.join(incoming, set_id)
    try:
        with open(f"{target}.json", encoding="utf-8") as file:
            allowed = int(json.load(file)["bytes"])
    except FileNotFoundError as error:
        raise StoreError(f"nobody has announced {set_id}; say 'begin' first", final=True) from error
    resource.setrlimit(resource.RLIMIT_FSIZE, (allowed + SLACK, allowed + SLACK))
    os.umask(0o077)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    with subprocess.Popen([*command, f"{target}/"], cwd=incoming, env=environment) as rsync:
        while True:
            try:
                return rsync.wait(timeout=_WATCH_SECONDS)
            except subprocess.TimeoutExpired:
                problem = _too_much(target, allowed, minimum_free)
            if problem:
                rsync.kill()
                raise StoreError(problem)


def _too_much(target: str, allowed: int, minimum_free: int) -> str:
    disk = os.statvfs(target)
    if disk.f_bavail * disk.f_frsize < minimum_free:
        return "the store is full"
    with os.scandir(target) as entries:
        sizes = [entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries]
    if sum(sizes) > allowed + SLACK or len(sizes) > MOST_FILES:
        return "more came than was announced"
    return ""


# --- the service


def answer(
    connection: socket.socket,
    store_of: t.Callable[[str, int], HostStore],
    serve: t.Callable[[t.Mapping[str, t.Any], int], t.Optional[t.Dict[str, t.Any]]],
) -> None:
    """Serve the request on a socket.

    Args:
        store_of: the store of a host, for a user that may speak for it; raises StoreError.
        serve: the reply to who reads by a grant, none when it has answered already; raises StoreError.
    """
    connection.settimeout(60)
    try:
        reply = _reply(connection, store_of, serve)
    except StoreError as error:
        reply = {"error": str(error), "bad": error.bad, "final": error.final}
    except (OSError, ValueError, KeyError, TypeError, FormatError) as error:
        # The host learns no paths.
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        reason = (error.strerror if isinstance(error, OSError) else "") or type(error).__name__
        reply = {"error": f"the store could not do it: {reason}", "bad": [], "final": False}
    if reply is not None:
        connection.sendall((json.dumps(reply) + "\n").encode())


def _reply(
    connection: socket.socket,
    store_of: t.Callable[[str, int], HostStore],
    serve: t.Callable[[t.Mapping[str, t.Any], int], t.Optional[t.Dict[str, t.Any]]],
) -> t.Optional[t.Dict[str, t.Any]]:
    _pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    with connection.makefile("rb") as file:
        request = json.loads(file.readline(REQUEST_BYTES))
    if "grant" in request:
        return serve(request, uid)
    store = store_of(str(request["host"]), uid)
    kind, now = request["request"], time.time()
    if kind == "have":
        return store.have(now)
    if kind == "known":
        return store.known(now)
    if kind == "begin":
        return store.begin(str(request["set"]), int(request["bytes"]), uid)
    if kind == "commit":
        return store.commit(str(request["set"]), uid, now)
    raise StoreError("nobody knows this request", final=True)
