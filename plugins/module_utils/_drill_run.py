# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore drill: the newest set of a host is restored where nobody uses it, compared with what its manifest says, and thrown away.

Private to the collection: no promise of stability. Standard library only.

Below its directory::

    lock             held for as long as something is done
    state.json       what the drills of each host came to, for monitoring
    reports/         reports, as JSON and as Markdown
    work/sets/SET/   what comes from the store, encrypted
    work/postgres/   the server that is thrown away
    work/tree/       a tree, or what a command has printed, one at a time
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_instance as instances
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_replace as replacing
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_trees as trees
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, SourceError
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._policy import POLICIES, check_restore
from ansible_collections.civitas.hosting.plugins.module_utils._restore_fetch import Fetcher, FetchError
from ansible_collections.civitas.hosting.plugins.module_utils._restore_run import Plan, RestoreFailed, choose, local_sets, tree_bytes

FETCH, VERIFY, RESTORE, CHECK = "fetch", "verify", "restore", "check"
# A server takes more room for a database than it had, and some for itself.
_DATABASE_SLACK = 1.2
_SERVER_BYTES = 512 * 2**20
_FAULTS = (
    verify.VerifyError,
    FetchError,
    RestoreFailed,
    SourceError,
    PipeError,
    postgres.RestoreError,
    instances.InstanceError,
    replacing.ReplaceError,
    OSError,
)
Source = t.Dict[str, t.Any]
Say = t.Callable[[int, str], None]


class DrillError(Exception):
    """The drill has failed; the text says why."""


class Origin(t.NamedTuple):
    """A host whose sets are drilled.

    Attributes:
        host: as its sets name it.
        signers: public keys of SSH that sign for it.
        identity: file with a private key of age.
        store: how it is reached; none when C(sets) is a directory of this host with sets.
        replace: how a good set takes the place of this host's own data; none to throw it away.
    """

    host: str
    signers: t.List[str]
    identity: str
    store: t.Optional[Store] = None
    sets: str = ""
    replace: t.Optional[replacing.Replace] = None


class Login(t.NamedTuple):
    """A role that must be able to log in to a database and read."""

    database: str
    role: str


class Config(t.NamedTuple):
    """What is drilled on this host, and how.

    Attributes:
        host: name of this host, for the reports.
        environment: kind of its environment, such as C(staging).
        directory: where the program keeps its own; the user of the server must be able to get there.
        minimum_free: bytes that stay free.
        keep_reports: how many of each host stay.
        late_hours: age of a set that is too old to be the newest.
        programs: directory of PostgreSQL's programs, with C({major}) for the version.
        via: words before commands of PostgreSQL.
        settings: of the server.
        anonymise: command that is run on each database; empty for none.
    """

    host: str
    environment: str
    directory: str
    metrics_file: str
    minimum_free: int
    keep_reports: int
    late_hours: float
    origins: t.List[Origin]
    programs: str = "/usr/lib/postgresql/{major}/bin"
    via: t.Tuple[str, ...] = ("runuser", "-u", "postgres", "--")
    settings: t.Mapping[str, str] = {}
    anonymise: t.Tuple[str, ...] = ()
    logins: t.Tuple[Login, ...] = ()


class Report(t.NamedTuple):
    """What a drill came to. Times in seconds of Unix.

    Attributes:
        seconds: how long each part took.
        recovery_point: seconds from the moment of the set to the begin of the drill; what was entered in between would be lost.
        sources: what was restored, as the report shows it.
        replaced: when it took the place of the host's own data, as the restore is named; empty when it did not.
    """

    origin: str
    host: str
    begin: float
    end: float
    set_id: str
    set_begin: float
    environment: str
    recovery_point: float
    bytes: int
    seconds: t.Dict[str, float]
    sources: t.List[Source]
    problems: t.List[str]
    warnings: t.List[str]
    replaced: str = ""

    @property
    def recovery_time(self) -> float:
        return round(sum(self.seconds.values()), 1)


def work_directory(config: Config) -> str:
    return os.path.join(config.directory, "work")


def clean(config: Config) -> bool:
    """Remove what a drill has left behind; whether there was something. Raises InstanceError, OSError."""
    work = work_directory(config)
    if not os.path.isdir(work):
        return False
    there = bool(os.listdir(work))
    _instance(config).stop()
    shutil.rmtree(work)
    return there


def _instance(config: Config) -> instances.Instance:
    return instances.Instance(os.path.join(work_directory(config), "postgres"), config.programs, config.via, config.settings)


class Drill:
    """The drill of one host's newest set, inside the lock.

    Args:
        say: takes a severity of the journal of systemd and a line for people.
    """

    def __init__(self, config: Config, origin: Origin, say: Say) -> None:
        self.config = config
        self.origin = origin
        self._say = say
        self._work = work_directory(config)
        self._seconds = dict.fromkeys((FETCH, VERIFY, RESTORE, CHECK), 0.0)
        self._sources: t.List[Source] = []
        self._problems: t.List[str] = []
        self._warnings: t.List[str] = []
        self._manifest: t.Optional[Manifest] = None
        self._replaced = ""

    def run(self) -> Report:
        """All of it; what goes wrong is in the report. Nothing is left of what was restored."""
        begin = time.time()
        try:
            with self._told("the drill"):
                clean(self.config)
                os.makedirs(self._work, mode=0o711)
                # Whatever the umask is: the server runs as another user.
                os.chmod(self._work, 0o711)
                self._drill(begin)
        finally:
            with self._told("the end of the drill"):
                clean(self.config)
        manifest = self._manifest
        return Report(
            origin=self.origin.host,
            host=self.config.host,
            begin=begin,
            end=time.time(),
            set_id=manifest.set_id if manifest else "",
            set_begin=manifest.begin if manifest else 0.0,
            environment=manifest.environment if manifest else "",
            recovery_point=round(begin - manifest.begin) if manifest else 0.0,
            bytes=manifest.bytes if manifest else 0,
            seconds={name: round(value, 1) for name, value in self._seconds.items()},
            sources=self._sources,
            problems=self._problems,
            warnings=self._warnings,
            replaced=self._replaced,
        )

    @contextlib.contextmanager
    def _told(self, what: str) -> t.Iterator[None]:
        """A fault inside is a problem of the drill, which goes on after it."""
        try:
            yield
        except (DrillError, *_FAULTS) as error:
            self._problem(f"{error}" if what == "the drill" else f"{what}: {error}")
        except Exception as error:
            # Whatever it is, it must be told as loudly as what was foreseen.
            self._problem(f"{what}: {type(error).__name__}: {error}")

    def _problem(self, line: str) -> None:
        self._problems.append(line)
        self._say(3, f"{self.origin.host}: {line}")

    def _warn(self, line: str) -> None:
        self._warnings.append(line)
        self._say(4, f"{self.origin.host}: {line}")

    @contextlib.contextmanager
    def _timed(self, part: str) -> t.Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self._seconds[part] += time.monotonic() - begin

    # --- the set

    def _drill(self, begin: float) -> None:
        """Raises DrillError and C(_FAULTS)."""
        with open(self.origin.identity, "rb"):
            pass
        replace = self.origin.replace
        if replace is not None:
            replacing.check(replace, self.config.environment, self.origin.host)
        with self._timed(FETCH):
            directory, manifest = self._fetch()
        age = (begin - manifest.begin) / 3600
        if age > self.config.late_hours:
            self._problem(f"{manifest.set_id} is the newest set that can be restored, and it is {age:.0f} hours old")
        with self._timed(VERIFY):
            problems = verify.check_ciphers(directory, manifest)
            if problems:
                raise DrillError(f"{manifest.set_id}: {'; '.join(problems)}")
            verify.check_contents(directory, manifest, self.origin.identity)
        for source in manifest.sources:
            restore = {"postgres": self._postgres, "files": self._tree, "command": self._command}[source["kind"]]
            with self._told(f"{source['kind']} {source['name']}"):
                restore(directory, manifest, source)
        if replace is not None and self._problems:
            raise DrillError("so the data of this host stay as they are")
        if replace is not None:
            self._replaced = replacing.run(
                replace, self.config.environment, directory, manifest, self.origin.signers, self.origin.identity, self._work, self._say
            )

    def _fetch(self) -> t.Tuple[str, Manifest]:
        """The directory of the newest set, and its manifest; there is room for all of it. Raises as C(_drill)."""
        plan = Plan(self.origin.host, self.origin.signers, self.origin.identity)
        if self.origin.store is None:
            set_id = choose(plan, local_sets(self.origin.sets), self._warn)
            directory = os.path.join(self.origin.sets, set_id)
            self._manifest = manifest = verify.read_set(directory, self.origin.host, self.origin.signers)
            self._judge(manifest, 0)
            return directory, manifest
        fetcher = Fetcher(self.origin.store, lambda line: self._say(4, line))
        set_id = choose(plan, fetcher.sets(), self._warn)
        directory = os.path.join(self._work, "sets", set_id)
        self._manifest = manifest = fetcher.manifest(set_id, directory, self.origin.host, self.origin.signers)
        self._judge(manifest, manifest.bytes)
        return directory, fetcher.fetch(set_id, directory, self.origin.host, self.origin.signers)

    def _judge(self, manifest: Manifest, fetched: int) -> None:
        """Raises DrillError unless the set may be restored here, and C(fetched) bytes of it and all that is in it have room."""
        source, target = POLICIES.get(manifest.environment), POLICIES.get(self.config.environment)
        if source is None or target is None:
            raise DrillError(f"nobody knows the kind of environment {(manifest if source is None else self.config).environment!r}")
        finding = check_restore(target, source)
        if finding:
            raise DrillError(f"{finding[0]}. {finding[1]}")
        if not manifest.complete:
            raise DrillError(f"{manifest.set_id} is not complete: {'; '.join(manifest.failures)}")
        needed = fetched + max((_room(manifest, one) for one in manifest.sources), default=0)
        entries = max((one["files"] + one["directories"] + one["others"] for one in manifest.sources if one["kind"] == "files"), default=0)
        disk = os.statvfs(self._work)
        free = disk.f_bavail * disk.f_frsize
        if free - needed < self.config.minimum_free:
            raise DrillError(
                f"there is too little space at {self._work}: {needed} bytes are needed, {free} are free,"
                f" and {self.config.minimum_free} stay so"
            )
        if disk.f_files and disk.f_favail < entries:
            raise DrillError(f"there are too few inodes at {self._work}: {entries} are needed, {disk.f_favail} are free")

    # --- what is in it

    def _postgres(self, directory: str, manifest: Manifest, source: Source) -> None:
        """Raises C(_FAULTS)."""
        instance = _instance(self.config)
        # Not in the way of a source that comes later.
        try:
            with self._timed(RESTORE):
                major = instance.start(int(source["version"]) // 10000)
                server = instance.server(source["name"])
                made = postgres.restore_globals(server, directory, manifest, source, self.origin.identity)
                for line in made.warnings:
                    self._warn(f"{source['name']}: {line}")
            shown: Source = {"kind": "postgres", "name": source["name"], "server": major, "roles": len(made.made), "databases": []}
            self._sources.append(shown)
            for entry in source["databases"]:
                with self._told(f"the database {entry['name']!r}"):
                    shown["databases"].append(self._database(instance, directory, manifest, source, entry))
        finally:
            instance.stop()

    def _database(
        self, instance: instances.Instance, directory: str, manifest: Manifest, source: Source, entry: Source
    ) -> t.Dict[str, t.Any]:
        """Raises C(_FAULTS)."""
        server, name = instance.server(source["name"]), str(entry["name"])
        # This one is in each server; the one of the set comes beside it.
        new_name = name if name != "postgres" else "postgres of the set"
        with self._timed(RESTORE):
            postgres.restore_database(server, directory, manifest, source, entry, self.origin.identity, new_name)
        with self._timed(CHECK):
            for problem in postgres.check_database(server, new_name, entry):
                self._problem(f"the database {name!r}: {problem}")
            wanted = [one.role for one in self.config.logins if one.database == name]
            logins = instances.check_logins(server, new_name, wanted)
            for problem in logins.problems:
                self._problem(problem)
            if not logins.roles:
                self._warn(f"the database {name!r}: nobody but a superuser can log in and read")
        if self.config.anonymise:
            instances.anonymise(server, new_name, self.config.anonymise, lambda line: self._say(3, line))
        return {
            "name": name,
            "tables": len(entry["rows"]),
            "rows": sum(entry["rows"].values()),
            "large_objects": entry["large_objects"],
            "bytes": entry["bytes"],
            "canary": entry["canary"] is not None,
            "logins": logins.roles,
        }

    def _tree(self, directory: str, manifest: Manifest, source: Source) -> None:
        """Raises C(_FAULTS)."""
        with self._place() as target:
            with self._timed(RESTORE):
                verify.extract_tree(directory, manifest, source, self.origin.identity, target)
            with self._timed(CHECK):
                wanted = trees.sample(verify.read_index(directory, manifest, source, self.origin.identity), True)
                for problem in trees.check(target, wanted):
                    self._problem(f"files {source['name']}: {problem}")
            if self.origin.replace is not None and self.origin.replace.anonymise:
                instances.anonymise_tree(target, self.origin.replace.anonymise, lambda line: self._say(3, line))
        shown = {name: source[name] for name in ("kind", "name", "path", "files", "directories", "others", "bytes")}
        self._sources.append({**shown, "canary": source["canary"] is not None})

    def _command(self, directory: str, manifest: Manifest, source: Source) -> None:
        """Raises C(_FAULTS)."""
        for name in source["members"]:
            member = manifest.members[name]
            with self._place() as target, self._timed(RESTORE):
                verify.extract_member(directory, manifest, member, self.origin.identity, target)
            self._sources.append({"kind": "command", "name": source["name"], "bytes": member.plain_bytes})

    @contextlib.contextmanager
    def _place(self) -> t.Iterator[str]:
        """Where something is restored to. Nobody else gets there: owners are numbers of the set's host, and other people here."""
        place = os.path.join(self._work, "tree")
        os.mkdir(place, 0o700)
        try:
            yield os.path.join(place, "restored")
        finally:
            shutil.rmtree(place, ignore_errors=True)


def _room(manifest: Manifest, source: Source) -> int:
    """Bytes that a source takes when it is restored."""
    if source["kind"] == "postgres":
        return int(sum(one["bytes"] for one in source["databases"]) * _DATABASE_SLACK) + _SERVER_BYTES
    if source["kind"] == "files":
        return tree_bytes(source)
    return sum(manifest.members[name].plain_bytes for name in source["members"])
