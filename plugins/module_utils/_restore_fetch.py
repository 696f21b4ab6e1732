# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a set from the store, by a grant: which sets there are, and one of them, member by member.

What the store says is not believed: neither how much comes, nor what, nor that anything comes at all.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest, Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Sender, SendError, Store

# What the store's program says of a file that is not there.
_LOST = "the store could not do it: No such file or directory"


class FetchError(Exception):
    """The set could not be had; the text says why."""


class AlteredError(FetchError):
    """What the store has of the set is not what the host has sent, or it has it no more."""


class Found(t.NamedTuple):
    """A set that the store has, as the store says; times in seconds of Unix.

    Attributes:
        sha256: of its manifest.
        bad: members that are damaged there.
    """

    set_id: str
    begin: float
    bytes: int
    good: bool
    problems: t.List[str]
    sha256: str = ""
    bad: t.Sequence[str] = ()


class Fetcher:
    """Speaks with the store.

    Args:
        store: how it is reached; its key has a grant.
        say: takes lines for people.
    """

    def __init__(self, store: Store, say: t.Callable[[str], None]) -> None:
        self._sender = Sender(store, say)

    def sets(self) -> t.List[Found]:
        """What there is, from old to new. Raises FetchError."""
        try:
            reply = self._sender.ask("sets")
            found = [
                Found(
                    str(one["set"]),
                    form.parse_time(one["begin"]),
                    int(one["bytes"]),
                    bool(one["good"]),
                    [*map(str, one["failures"]), *(f"{name} is damaged" for name in one["bad"])],
                    str(one.get("sha256", "")),
                    [str(name) for name in one["bad"]],
                )
                for one in reply["sets"]
                if form.is_set_id(one["set"])
            ]
        except (SendError, KeyError, TypeError, ValueError) as error:
            raise FetchError(str(error)) from error
        return sorted(found, key=lambda one: (one.begin, one.set_id))

    def manifest(self, set_id: str, directory: str, host: str, signers: t.Sequence[str]) -> Manifest:
        """What is in a set, before any of it is fetched; C(directory) is named after it. Raises as C(fetch)."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name, limit in ((form.MANIFEST, form.MANIFEST_BYTES), (form.SIGNATURE, form.SIGNATURE_BYTES)):
            path = os.path.join(directory, name)
            if os.path.exists(path):
                os.unlink(path)
            self._get(set_id, name, path, limit)
        return verify.read_set(directory, host, signers)

    def fetch(self, set_id: str, directory: str, host: str, signers: t.Sequence[str]) -> Manifest:
        """Bring a set into C(directory), which is named after it; what is there of it already stays.

        Raises:
            FetchError: it could not be had, AlteredError when it will not be.
            VerifyError: it is not the host's.
            OSError: it cannot be written.
        """
        manifest = self.manifest(set_id, directory, host, signers)
        self.members(set_id, directory, manifest.members.values())
        return manifest

    def members(self, set_id: str, directory: str, members: t.Iterable[Member]) -> None:
        """Bring members of a set into C(directory); what is there of them already stays. Raises FetchError, AlteredError, OSError."""
        for member in members:
            path = os.path.join(directory, member.name)
            for left in (1, 0):
                # What is no good is fetched once more, and from its beginning.
                if os.path.exists(path) and os.stat(path).st_size >= member.bytes:
                    if form.digest(path) == (member.bytes, member.sha256):
                        break
                    os.unlink(path)
                self._get(set_id, member.name, path, member.bytes)
                if not left and form.digest(path) != (member.bytes, member.sha256):
                    raise AlteredError(f"{set_id}: the store has another {member.name} than the host has sent; take another set")

    def _get(self, set_id: str, name: str, path: str, limit: int) -> None:
        """The rest of a file of the store. Raises FetchError, OSError."""
        try:
            self._sender.often(lambda: self._try(set_id, name, path, limit))
        except SendError as error:
            raise FetchError(f"{name}: {error}") from error

    def _try(self, set_id: str, name: str, path: str, limit: int) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        store = self._sender.store
        with open(handle, "ab") as file, tempfile.TemporaryFile() as said:
            command = [*self._sender.ssh, "--", store.address, f"get {set_id} {name} {file.tell()}"]
            with subprocess.Popen(command, bufsize=0, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as ssh:
                stream = t.cast(t.IO[bytes], ssh.stdout)
                began, came = time.monotonic(), 0
                while True:
                    if not select.select([stream], [], [], store.timeout)[0]:
                        ssh.kill()
                        raise SendError(f"the transfer was cut off: nothing came for {store.timeout} seconds")
                    data = stream.read(form.CHUNK)
                    if not data:
                        break
                    if file.tell() + len(data) > limit:
                        ssh.kill()
                        raise AlteredError(f"{name}: the store sends more than {limit} bytes")
                    file.write(data)
                    came += len(data)
                    if store.bandwidth:
                        # Who reads slowly is sent slowly.
                        time.sleep(max(0.0, came / (store.bandwidth * 1024) - (time.monotonic() - began)))
            file.flush()
            os.fsync(file.fileno())
            if ssh.returncode != 0:
                said.seek(0)
                words = " ".join(said.read(4096).decode("utf-8", "replace").split())[-300:]
                if _LOST in words:
                    raise AlteredError(f"{name}: {words}")
                raise SendError(f"the transfer was cut off: {words or f'ssh ended with {ssh.returncode}'}", final="this grant" in words)
