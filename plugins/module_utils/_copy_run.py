# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies the sets of a host from the store that the host sends them to, into a store elsewhere.

Private to the collection: no promise of stability. Standard library only.

It pulls: nobody of the first store has a key of this one. It runs as a user who can write what came and nothing else. What came is judged
by the store of this host as if the sending host had brought it: by the host's signature, the size and the digest of each member. So whoever
has all of the first store can keep back what is to come, and can neither change nor remove what is here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest, Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Sender, SendError, Store
from ansible_collections.civitas.hosting.plugins.module_utils._backup_verify import VerifyError
from ansible_collections.civitas.hosting.plugins.module_utils._restore_fetch import AlteredError, Fetcher, FetchError, Found
from ansible_collections.civitas.hosting.plugins.module_utils._store_receive import ask


class CopyError(Exception):
    """The sets of a host are not all here; the text says why."""


class Origin(t.NamedTuple):
    """A host whose sets are copied.

    Attributes:
        signers: public keys of SSH: the one that signs its sets, and those that did so earlier.
        store: how the first store is reached.
        keeps: so many of its newest good sets the first store never removes by its rules.
    """

    host: str
    signers: t.List[str]
    store: Store
    keeps: int


class Config(t.NamedTuple):
    """What is copied, and where to.

    Attributes:
        directory: of the program's own notes.
        incoming: where the store of this host takes sets from.
        socket: where its service is asked.
    """

    directory: str
    incoming: str
    socket: str
    metrics_file: str
    origins: t.List[Origin]


class Outcome:
    """What a run came to, as far as it came.

    Attributes:
        copied: sets that are new here.
        refused: sets that the first store has and that are not what the host has sent, with the reason.
        passed: sets that are left out and no fault, with the reason.
        gone: sets that are here, and that the first store should still have.
        lacking: how many sets of the first store are not here, those that are refused or passed aside.
        compared: whether the first store said what it has.
    """

    def __init__(self) -> None:
        self.copied: t.List[str] = []
        self.refused: t.Dict[str, str] = {}
        self.passed: t.Dict[str, str] = {}
        self.gone: t.List[str] = []
        self.lacking = 0
        self.compared = False


def vanished(found: t.Sequence[Found], here: t.Sequence[t.Mapping[str, t.Any]], keeps: int) -> t.List[str]:
    """Names of good sets that are here and newer than the C(keeps) newest good ones of the first store, and that it has not."""
    good = sorted(one.begin for one in found if one.good)
    bound = good[-keeps] if len(good) >= keeps else float("-inf")
    there = {one.set_id for one in found}
    return sorted(one["set"] for one in here if one["good"] and one["begin"] > bound and one["set"] not in there)


class Copier:
    """Copies the sets of one host.

    Args:
        say: takes lines for people.
    """

    def __init__(self, config: Config, origin: Origin, say: t.Callable[[str], None]) -> None:
        self._config, self._origin, self._say = config, origin, say
        self._sender = Sender(origin.store, say)
        self._fetcher = Fetcher(origin.store, say)
        # Digests of members that are here already.
        self._members: t.Set[str] = set()

    def run(self, outcome: Outcome) -> None:
        """Bring what is new, from old to new, and note in C(outcome) what became of it. Raises CopyError before the end."""
        try:
            self._run(outcome)
        except (FetchError, SendError) as error:
            raise CopyError(str(error)) from error
        except OSError as error:
            raise CopyError(f"{error.filename or self._config.incoming}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(os.path.join(self._config.directory, "work"), ignore_errors=True)

    def _run(self, outcome: Outcome) -> None:
        found = self._fetcher.sets()
        known = self._ask("known")
        here = {str(one["set"]): one for one in known["here"]}
        self._members = set(known["members"])
        outcome.gone = vanished(found, known["here"], self._origin.keeps)
        wanted = []
        for one in found:
            mine = here.get(one.set_id)
            if mine is not None:
                # What is here stays, whatever the other one says.
                if one.sha256 and mine["sha256"] and one.sha256 != mine["sha256"]:
                    outcome.refused[one.set_id] = "the first store has another set of this name than the one that is here"
            elif one.bad:
                outcome.refused[one.set_id] = f"the first store has it damaged: {', '.join(one.bad[:5])}"
            elif one.set_id not in known["removed"]:
                wanted.append(one)
        outcome.lacking, outcome.compared = len(wanted), True
        for one in wanted:
            self._copy(one, outcome)
            outcome.lacking -= 1

    def _copy(self, one: Found, outcome: Outcome) -> None:
        """Raises FetchError, SendError, OSError."""
        try:
            manifest, signature = self._manifest(one.set_id)
            if manifest is None:
                outcome.passed[one.set_id] = "it is signed with an earlier key of the host, with which nothing new is taken"
                return
            self._bring(one.set_id, manifest, signature)
        except (FetchError, VerifyError) as error:
            if one.set_id not in {other.set_id for other in self._fetcher.sets()}:
                # The rules there have removed it while it was on its way.
                outcome.passed[one.set_id] = "the first store does not have it any more"
            elif isinstance(error, (AlteredError, VerifyError)):
                outcome.refused[one.set_id] = str(error)
            else:
                raise
            return
        outcome.copied.append(one.set_id)
        self._members |= {member.sha256 for member in manifest.members.values()}
        self._say(f"{one.set_id} is here, {manifest.bytes / 2**20:.1f} MiB")

    def _manifest(self, set_id: str) -> t.Tuple[t.Optional[Manifest], bytes]:
        """What the host has signed, and its signature; nothing when it has signed with an earlier key. Raises FetchError, VerifyError."""
        host, directory = self._origin.host, os.path.join(self._config.directory, "work", set_id)
        manifest: t.Optional[Manifest] = self._fetcher.manifest(set_id, directory, host, self._origin.signers)
        with contextlib.suppress(VerifyError):
            verify.read_set(directory, host, self._origin.signers[:1])
            return manifest, form.read_limited(os.path.join(directory, form.SIGNATURE), form.SIGNATURE_BYTES)
        return None, b""

    def _bring(self, set_id: str, manifest: Manifest, signature: bytes) -> None:
        """Raises FetchError, SendError, OSError."""
        needed = [member for member in manifest.members.values() if member.sha256 not in self._members]
        taken = set(self._ask("begin", set=set_id, bytes=sum(member.bytes for member in needed))["taken"])
        needed = [member for member in needed if member.name not in taken]
        directory = os.path.join(self._config.incoming, self._origin.host, set_id)
        for left in reversed(range(self._origin.store.tries)):
            # What is there of a member goes on where it was cut off.
            self._fetcher.members(set_id, directory, needed)
            for name, data in ((form.MANIFEST, manifest.raw), (form.SIGNATURE, signature)):
                _write(os.path.join(directory, name), data)
            try:
                reply = self._ask("commit", set=set_id)
                break
            except SendError as error:
                needed = self._again(manifest, error.bad)
                if not needed or error.final or not left:
                    raise
                self._say(f"{error}; these are fetched again")
        if (reply.get("set"), reply.get("sha256")) != (set_id, manifest.sha256) or set_id not in reply.get("sets", []):
            raise SendError("the store of this host keeps another set than the one that came", final=True)

    @staticmethod
    def _again(manifest: Manifest, bad: t.Iterable[str]) -> t.List[Member]:
        return [manifest.members[name] for name in bad if name in manifest.members]

    def _ask(self, request: str, **values: t.Any) -> t.Dict[str, t.Any]:
        """What the store of this host answers. Raises SendError, OSError."""
        return t.cast(t.Dict[str, t.Any], self._sender.often(lambda: self._ask_once({"request": request, **values})))

    def _ask_once(self, request: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
        try:
            reply = json.loads(ask(self._config.socket, {**request, "host": self._origin.host}))
            if "error" not in reply:
                return dict(reply)
        except (ValueError, TypeError) as error:
            raise SendError(f"the store of this host does not answer: {error}") from error
        raise SendError(f"the store of this host refuses: {reply['error']}", [str(name) for name in reply["bad"]], bool(reply["final"]))


def _write(path: str, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
