# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of the backup of a host: it ends well only when the store has said that it keeps the set.

Private to the collection: no promise of stability. Standard library only.

Below its directory::

    lock            held for as long as a run lasts
    last.json       the last set that the store keeps
    status.json     what the runs came to, for monitoring and for people
    state/          what is known of trees
    outgoing/SET/   members that are to be sent, and the manifest when all are there
    outgoing/SET.state/  the states of the trees once the store keeps the set
    problems        names of files that could not be read, for root only
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_command as command
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as tree
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import FormatError, Manifest, Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, SourceError, Writer, check_recipients
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Reply, Sender, SendError, Store
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text

# A set that waited longer than this to be sent is worth no more than a new one.
_WAITS = 7 * 86400.0


class RunError(Exception):
    """There is no new set in the store; the text says why."""


class Config(t.NamedTuple):
    """What is to be backed up, how and where to.

    Attributes:
        environment: kind of environment, such as C(production).
        directory: where the program keeps its own.
        recipients: public keys of age; each of their private keys decrypts alone.
        signing_key: file of a private key of SSH without passphrase.
        minimum_free: bytes that stay free where the set is made.
        full_days: age after which trees are packed anew.
        late_hours: age of the last good set from which on something is wrong.
    """

    host: str
    site: str
    environment: str
    directory: str
    recipients: t.List[str]
    signing_key: str
    minimum_free: int
    full_days: int
    late_hours: float
    metrics_file: str
    store: Store
    postgres: t.List[postgres.Postgres]
    commands: t.List[command.Command]
    files: t.List[tree.Tree]


class Outcome(t.NamedTuple):
    """What a run came to.

    Attributes:
        sent: bytes that the store did not have.
        moment: how new the set is, by the earlier of the clocks of host and store; a wrong one makes no backup look newer.
    """

    manifest: Manifest
    sent: int
    moment: float


@contextlib.contextmanager
def lock(directory: str) -> t.Iterator[None]:
    """One run at a time. Raises RunError when another one lasts."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    handle = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # The kernel ends the lock with the process, however that ends, so none is ever stale.
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    except BlockingIOError as error:
        holder = os.read(handle, 20).decode("ascii", "replace").strip()
        raise RunError(f"another run lasts, process {holder or 'unknown'}; this one did nothing") from error
    finally:
        os.close(handle)


def is_locked(directory: str) -> bool:
    """Does a run last?"""
    try:
        handle = os.open(os.path.join(directory, "lock"), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class Run:
    """One run, inside the lock.

    Args:
        say: takes a severity of the journal and a line for people.
    """

    def __init__(self, config: Config, say: t.Callable[[int, str], None]) -> None:
        self.config = config
        self._say = say
        self._sender = Sender(config.store, lambda line: say(4, line))
        self._outgoing = os.path.join(config.directory, "outgoing")
        self._states = os.path.join(config.directory, "state")
        self._made: t.Dict[str, Member] = {}
        self._set = ""
        self._problems: t.List[str] = []

    def run(self) -> Outcome:
        """Make a set and bring it to the store; one that an earlier run could not bring there goes first.

        Raises:
            RunError: there is no new set in the store.
        """
        try:
            for directory in (self._outgoing, self._states):
                os.makedirs(directory, mode=0o700, exist_ok=True)
            check_recipients(self.config.recipients)
            form.sign(b"", self.config.signing_key)
            have = self._sender.ask("have")
            if self._finish(have):
                have = self._sender.ask("have")
            try:
                return self._new(have)
            finally:
                self._tidy()
        except (PipeError, FormatError, SendError, OSError, subprocess.TimeoutExpired) as error:
            raise RunError(f"{error}") from error

    def _tidy(self) -> None:
        """What was made of a set that is none takes room, which may be what was missing."""
        directory = os.path.join(self._outgoing, self._set)
        if not os.path.exists(os.path.join(directory, form.SIGNATURE)):
            for path in (directory, f"{directory}.state"):
                shutil.rmtree(path, ignore_errors=True)

    # --- a set that waits

    def _finish(self, have: Reply) -> bool:
        """Bring the set of an earlier run to the store, and remove what is left of others; whether there was one."""
        done = False
        for name in sorted(os.listdir(self._outgoing)):
            path = os.path.join(self._outgoing, name)
            waiting = self._waiting(path) if form.is_set_id(name) and not done else None
            if waiting is None:
                shutil.rmtree(path, ignore_errors=True)
                continue
            self._say(5, f"{name} was made by an earlier run, and is sent first")
            self._set = name
            try:
                if name not in have["sets"]:
                    self._sender.send(path, waiting)
            except SendError as error:
                if not error.final and not error.bad:
                    raise
                # Something in it is no good any more, as a member that the store had.
                self._say(4, f"{name} is given up: {error}")
                shutil.rmtree(path)
                continue
            self._kept(waiting)
            done = True
        return done

    def _waiting(self, path: str) -> t.Optional[Manifest]:
        try:
            with open(os.path.join(path, form.SIGNATURE), "rb"):
                manifest = form.parse(form.read_limited(os.path.join(path, form.MANIFEST), form.MANIFEST_BYTES))
        except (OSError, FormatError):
            return None
        return manifest if abs(time.time() - manifest.begin) < _WAITS else None

    def _kept(self, manifest: Manifest) -> None:
        """The store keeps a set: what is known of its trees holds from now on."""
        states = os.path.join(self._outgoing, f"{manifest.set_id}.state")
        # After a crash some of it may be done already.
        for name in os.listdir(states) if os.path.isdir(states) else []:
            os.rename(os.path.join(states, name), os.path.join(self._states, name))
        write_json(os.path.join(self.config.directory, "last.json"), {"set": manifest.set_id, "sha256": manifest.sha256}, 0o600)
        shutil.rmtree(states, ignore_errors=True)
        shutil.rmtree(os.path.join(self._outgoing, manifest.set_id))

    # --- a new set

    def _new(self, have: Reply) -> Outcome:
        begin = time.time()
        self._set = form.new_set_id(begin)
        directory = os.path.join(self._outgoing, self._set)
        for path in (directory, f"{directory}.state"):
            os.mkdir(path, 0o700)
        warnings = (
            [f"the clock is {abs(have['time'] - begin):.0f} seconds off the store's"] if abs(have["time"] - begin) > form.TOLERANCE else []
        )
        previous, strange = self._previous(have)
        warnings += strange
        members, sources, failures = self._sources(set(have["members"]), begin, warnings)
        write_text(os.path.join(self.config.directory, "problems"), "".join(f"{line}\n" for line in self._problems), 0o600)
        if not members:
            raise RunError(f"nothing could be backed up: {'; '.join(failures) or 'nothing is declared'}")
        content = {
            "format": form.FORMAT,
            "host": self.config.host,
            "site": self.config.site,
            "environment": self.config.environment,
            "set": self._set,
            "previous": previous and previous["set"],
            "previous_sha256": previous and previous["sha256"],
            "begin": form.format_time(begin),
            "end": form.format_time(max(begin, time.time())),
            "complete": not failures,
            "recipients": self.config.recipients,
            "tools": tools(),
            "members": [member._asdict() for member in members],
            "sources": sources,
            "warnings": warnings,
            "failures": failures,
        }
        raw = form.encode(content)
        manifest = form.parse(raw)
        sent = self._seal(directory, manifest)
        self._sender.send(directory, manifest)
        self._kept(manifest)
        return Outcome(manifest, sent, min(manifest.begin, float(have["time"])))

    def _previous(self, have: Reply) -> t.Tuple[t.Optional[t.Dict[str, str]], t.List[str]]:
        """The set before this one, and what is strange about it."""
        newest = have["newest"]
        try:
            with open(os.path.join(self.config.directory, "last.json"), encoding="utf-8") as file:
                last = json.load(file)
            last = {"set": str(last["set"]), "sha256": str(last["sha256"])}
        except (OSError, ValueError, KeyError, TypeError):
            return newest, ["this host does not know its last set"] if newest else []
        warnings = []
        if last != newest:
            warnings.append(f"the newest set of the store is {newest['set'] if newest else 'none'}, and not {last['set']}")
        if self._set < last["set"]:
            warnings.append(f"the clock is behind the set before, {last['set']}")
        return last, warnings

    def _sources(
        self, stored: t.Set[str], begin: float, warnings: t.List[str]
    ) -> t.Tuple[t.List[Member], t.List[t.Dict[str, t.Any]], t.List[str]]:
        """All that is declared. Databases come first: they refer to files, which are there before the reference is."""
        members: t.List[Member] = []
        sources: t.List[t.Dict[str, t.Any]] = []
        failures: t.List[str] = []
        for server in self.config.postgres:
            with self._source("postgres", server.name, failures):
                dumped = postgres.make(server, self._open, self._close)
                members += dumped.members
                sources.append(dumped.source)
                warnings += [f"{server.name}: {line}" for line in dumped.warnings]
        for one in self.config.commands:
            with self._source("command", one.name, failures):
                source, member = command.make(one, self._open, self._close)
                members.append(member)
                sources.append(source)
        for declared in self.config.files:
            with self._source("files", declared.name, failures):
                made = self._tree(declared, stored, begin)
                members += made.members
                sources.append(made.source)
                failures += made.failures
                warnings += made.warnings
                self._problems += made.problems
        return members, sources, failures

    @contextlib.contextmanager
    def _source(self, kind: str, name: str, failures: t.List[str]) -> t.Iterator[None]:
        try:
            yield
        except SourceError as error:
            # What a program said may name people; the manifest is read by who keeps the store.
            failures.append(f"{kind} {name} failed; the journal of the host says why")
            self._say(3, f"{kind} {name}: {error}")

    def _tree(self, declared: tree.Tree, stored: t.Set[str], begin: float) -> tree.Made:
        name = f"{form.file_name(declared.name)}.sqlite"
        state = os.path.join(self._outgoing, f"{self._set}.state", name)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(os.path.join(self._states, name), state)
        try:
            return tree.make(declared, state, self._open, self._close, self.config.recipients, stored, begin, self.config.full_days)
        except SourceError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(state)
            raise

    def _open(self, name: str) -> Writer:
        self._room()
        path = os.path.join(self._outgoing, self._set, name)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        return Writer(name, self.config.recipients, os.fdopen(handle, "wb"), self._room)

    def _close(self, writer: Writer) -> Member:
        member = writer.close()
        self._made[member.name] = member
        return member

    def _room(self) -> None:
        """Raises PipeError."""
        disk = os.statvfs(self._outgoing)
        if disk.f_bavail * disk.f_frsize < self.config.minimum_free:
            raise PipeError(f"the disk of {self._outgoing} is too full to make a set: fewer than {self.config.minimum_free} bytes are free")

    def _seal(self, directory: str, manifest: Manifest) -> int:
        """Sign a set, from where on it is one; the bytes that are to be sent."""
        for name in os.listdir(directory):
            # Of a source that failed half way.
            if self._made.get(name) != manifest.members.get(name):
                os.unlink(os.path.join(directory, name))
        sent = sum(os.stat(os.path.join(directory, name)).st_size for name in os.listdir(directory))
        _write(os.path.join(directory, form.MANIFEST), manifest.raw)
        _write(os.path.join(directory, form.SIGNATURE), form.sign(manifest.raw, self.config.signing_key))
        return sent


def _write(path: str, data: bytes) -> None:
    """Whole or not at all."""
    with open(f"{path}.part", "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.part", path)


def tools() -> t.Dict[str, str]:
    """Versions of the programs, for whoever reads the set in years."""
    found = {}
    for name in ("age", "zstd"):
        done = subprocess.run([name, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
        found[name] = " ".join(done.stdout.split())[:100]
    return found
