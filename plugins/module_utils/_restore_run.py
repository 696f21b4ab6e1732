# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One restore: all is proven before anything is touched, what is new is made to the side, and what was there is kept.

Private to the collection: no promise of stability. Standard library only.

Below its directory::

    lock          held for as long as something is done
    journal/WHEN.json  a restore: how far it is and what it came to
    sets/SET/     what comes from the store, encrypted
    side/WHEN/    what is never put in place

A restore passes through the phases in their order. What is cut off is gone on with (C(resume)) or taken back (C(undo), C(settle)): each
step can be done again, as it looks at what there is.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_databases as data
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_names as names
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_trees as trees
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_writers as writing
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import SourceError
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres
from ansible_collections.civitas.hosting.plugins.module_utils._backup_run import RunError, is_locked, lock
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json
from ansible_collections.civitas.hosting.plugins.module_utils._policy import POLICIES, check_restore
from ansible_collections.civitas.hosting.plugins.module_utils._restore_fetch import Fetcher, FetchError, Found

FETCHING, PROVING, PREPARING = "fetching", "proving", "preparing"
STOPPING, SWAPPING, CHECKING, STARTING = "stopping", "swapping", "checking", "starting"
RESTORED, UNDOING, RETURNED = "restored", "undoing", "returned"
ACCEPTED, UNDONE, REFUSED = "accepted", "undone", "refused"
# In these nothing that was there is touched yet.
_BEFORE = (FETCHING, PROVING, PREPARING)
_GOES_ON = (STOPPING, SWAPPING, CHECKING, STARTING)
_UNFINISHED = (*_BEFORE, *_GOES_ON, UNDOING, RETURNED)
# Does what a start of the system leaves to be done when what writes may run again.
FINISH_UNIT = "civitas-restore-finish.service"
_DATABASE_UNIT = "postgresql.service"
# A dump takes more room in a server than it had, until it is tidied up.
_DATABASE_SLACK = 1.2
_ENTRY_BYTES = 4096
# A newest set that is smaller than this share of the median of those before it is not taken without its name.
_SHRINK = 0.5
_MEDIAN_OF = 7
_FAULTS = (
    verify.VerifyError,
    FetchError,
    SourceError,
    postgres.RestoreError,
    trees.TreeError,
    writing.WriterError,
    OSError,
)


class RestoreFailed(Exception):
    """The restore came to nothing; the text says why, and what state that leaves."""


class Tree(t.NamedTuple):
    """Where a tree lies on this host. C(side): it is never put in place."""

    name: str
    path: str
    side: bool = False


class Config(t.NamedTuple):
    """What can be restored on this host, and where to.

    Attributes:
        environment: kind of environment, such as C(production).
        directory: where the program keeps its own.
        backup_directory: where the program of backups keeps its own; only one of both works at a time.
        minimum_free: bytes that stay free on each file system.
        keep_days: how long what was there before a restore is kept.
    """

    host: str
    environment: str
    directory: str
    backup_directory: str
    minimum_free: int
    keep_days: int
    postgres: t.List[Postgres]
    files: t.List[Tree]
    writers: writing.Writers


class Plan(t.NamedTuple):
    """What is to be restored.

    Attributes:
        host: whose sets, as they name it.
        signers: public keys of SSH that sign for it.
        identity: file with a private key of age; it is removed as soon as it is of no more use.
        wanted: name of a set, or C(newest).
        before: the newest set that is not later than this; none for any.
        store: how it is reached, with a key that has a grant; none when C(sets) is a directory of this host.
        only: what of the set; empty for all.
        incomplete: a set that was not complete when it was made will do.
        confirm: name of this host, when data that are there may be replaced.
        all_files: compare all files with the set in the end, and not some hundred.
        unattended: no person waits for it; a program says whether the application works.
    """

    host: str
    signers: t.List[str]
    identity: str
    wanted: str = "newest"
    before: t.Optional[float] = None
    store: t.Optional[Store] = None
    sets: str = ""
    only: t.Tuple[str, ...] = ()
    incomplete: bool = False
    confirm: str = ""
    all_files: bool = False
    unattended: bool = False


Source = t.Dict[str, t.Any]
Say = t.Callable[[int, str], None]


class Chosen(t.NamedTuple):
    """What of a set is restored: databases with their server, trees with their places, and what is brought to the side."""

    databases: t.List[t.Tuple[Postgres, Source, Source]]
    trees: t.List[t.Tuple[Tree, Source]]
    sides: t.List[Source]


class Alter(t.NamedTuple):
    """What is done to new data that are whole and proven, before they take the place of the old ones. Both raise RestoreFailed.

    Attributes:
        database: takes the server and the name of the new database.
        tree: takes the path of the new tree.
    """

    database: t.Callable[[Postgres, str], None]
    tree: t.Callable[[str], None]


# --- the journal


class Journal:
    """A restore, as it is on the disk.

    Args:
        content: what is known of it; it is written by C(to) and C(write).
    """

    def __init__(self, path: str, content: t.Dict[str, t.Any]) -> None:
        self.path = path
        self.content = content

    @property
    def phase(self) -> str:
        return str(self.content["phase"])

    @property
    def when(self) -> str:
        return str(self.content["when"])

    def write(self) -> None:
        write_json(self.path, self.content, 0o600)

    def to(self, phase: str) -> None:
        """The next phase begins. Raises OSError."""
        self.content["phase"] = phase
        self.content["times"][phase] = round(time.time(), 3)
        self.write()

    def trees(self) -> t.List[trees.TreeMove]:
        return [trees.TreeMove(**one) for one in self.content["trees"]]

    def databases(self) -> t.Dict[str, t.List[data.DatabaseMove]]:
        """By server."""
        found: t.Dict[str, t.List[data.DatabaseMove]] = {}
        for one in self.content["databases"]:
            move = data.DatabaseMove(**one)
            found.setdefault(move.server, []).append(move)
        return found

    def running(self) -> writing.Running:
        return writing.Running(**self.content["running"])


def journals(config: Config) -> t.List[Journal]:
    """All restores that are known, from old to new. Raises RestoreFailed, OSError."""
    directory = os.path.join(config.directory, "journal")
    found = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        if name.endswith(".json") and not name.startswith("."):
            path = os.path.join(directory, name)
            try:
                with open(path, encoding="utf-8") as file:
                    found.append(Journal(path, dict(json.load(file))))
            except (ValueError, TypeError) as error:
                raise RestoreFailed(f"{path} cannot be read: {error}; look beside the data for what it has left") from error
    return found


def cut_off(config: Config) -> t.Optional[Journal]:
    """The last restore, when it did not come to its end. Raises RestoreFailed, OSError."""
    known = journals(config)
    return known[-1] if known and known[-1].phase in _UNFINISHED else None


def at_work(config: Config) -> bool:
    """Whether a restore lasts. Raises OSError."""
    return is_locked(config.directory)


@contextlib.contextmanager
def locked(config: Config) -> t.Iterator[None]:
    """Neither another restore nor a backup works meanwhile. Raises RestoreFailed."""
    try:
        with lock(config.directory), lock(config.backup_directory):
            yield
    except RunError as error:
        raise RestoreFailed(f"a backup or a restore is at work: {error}") from error


# --- a restore


class Restore:
    """The restores of a host, inside the lock.

    Args:
        say: takes a severity of the journal of systemd and a line for people.
        alter: what is done to new data before they are put in place; none to take them as they are.
    """

    def __init__(self, config: Config, say: Say, alter: t.Optional[Alter] = None) -> None:
        self.config = config
        self._say = say
        self._alter = alter
        self._servers = {server.name: server for server in config.postgres}

    def run(self, plan: Plan) -> Journal:
        """Restore what is planned. What was there stays beside it.

        Raises:
            RestoreFailed: nothing was touched, or all is as it was before.
        """
        known = journals(self.config)
        if known and known[-1].phase in (*_UNFINISHED, RESTORED):
            raise RestoreFailed(
                f"the restore of {known[-1].when} is not finished, its phase is {known[-1].phase!r};"
                " say 'civitas-restore accept' or 'civitas-restore undo' first"
            )
        journal = self._begin(plan)
        try:
            # Its key is of no use without the set that it opens.
            with removed(plan.identity):
                directory, manifest = self._set(plan, journal)
                journal.to(PROVING)
                chosen = self._judge(plan, directory, manifest, journal)
                verify.check_contents(directory, manifest, plan.identity)
                journal.to(PREPARING)
                samples = self._prepare(plan, directory, manifest, chosen, journal)
            self._forward(journal, chosen, samples)
        except (RestoreFailed, *_FAULTS) as error:
            raise self._failed(journal, error) from error
        except BaseException as error:
            raise self._failed(journal, RestoreFailed(f"{type(error).__name__}: {error}")) from error
        self._clean()
        return journal

    def _begin(self, plan: Plan) -> Journal:
        directory = os.path.join(self.config.directory, "journal")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        now = time.time()
        while os.path.exists(os.path.join(directory, f"{names.stamp(now)}.json")):
            now += 1
        when = names.stamp(now)
        path = os.path.join(directory, f"{when}.json")
        content: t.Dict[str, t.Any] = {"when": when, "from": plan.host, "only": list(plan.only), "set": "", "times": {}}
        content.update(unattended=plan.unattended, problem="", kept="", warnings=[], report={}, trees=[], databases=[], sides=[])
        content.update(running={"units": [], "containers": []})
        journal = Journal(path, content)
        journal.to(FETCHING)
        return journal

    def _failed(self, journal: Journal, error: BaseException) -> RestoreFailed:
        """Take back what was done, and say what became of it."""
        before = journal.phase
        try:
            if before not in _BEFORE:
                self._say(3, f"{error}; the old state is brought back")
            self.take_back(journal, str(error))
        except (RestoreFailed, *_FAULTS) as another:
            return RestoreFailed(f"{error}; and the old state is NOT back: {another}; say 'civitas-restore undo' when it can be")
        roles = journal.content["report"].get("roles_made", [])
        stay = f", but for the roles {', '.join(roles)}, which were made and stay" if roles else ""
        return RestoreFailed(f"{error}; {'nothing was touched' if before in _BEFORE else 'all is as it was before'}{stay}")

    # --- the set

    def _set(self, plan: Plan, journal: Journal) -> t.Tuple[str, Manifest]:
        """The directory of the set and its manifest; what is in it is what the host has sent."""
        with open(plan.identity, "rb"):
            pass
        if plan.store is None:
            found = local_sets(plan.sets)
            set_id = choose(plan, found, lambda line: self._warn(journal, line))
            _compare_sizes(plan, found, set_id)
            directory = os.path.join(plan.sets, set_id)
            manifest = verify.read_set(directory, plan.host, plan.signers)
            problems = verify.check_ciphers(directory, manifest)
            if problems:
                raise verify.VerifyError(f"{set_id}: {'; '.join(problems)}")
        else:
            fetcher = Fetcher(plan.store, lambda line: self._say(4, line))
            found = fetcher.sets()
            set_id = choose(plan, found, lambda line: self._warn(journal, line))
            _compare_sizes(plan, found, set_id)
            directory = os.path.join(self.config.directory, "sets", set_id)
            self._clean(set_id)
            os.makedirs(os.path.dirname(directory), mode=0o700, exist_ok=True)
            size = next(one.bytes for one in found if one.set_id == set_id)
            there = sum(entry.stat().st_size for entry in os.scandir(directory)) if os.path.isdir(directory) else 0
            self._room({os.path.dirname(directory): max(0, size - there)}, "for what comes from the store")
            manifest = fetcher.fetch(set_id, directory, plan.host, plan.signers)
        journal.content["set"] = set_id
        journal.content["begin"] = manifest.begin
        journal.content["environment"] = manifest.environment
        journal.write()
        return directory, manifest

    def _warn(self, journal: Journal, line: str) -> None:
        self._say(4, line)
        journal.content["warnings"].append(line)

    def _clean(self, keep: str = "") -> None:
        """Remove sets that were fetched."""
        directory = os.path.join(self.config.directory, "sets")
        for name in os.listdir(directory) if os.path.isdir(directory) else []:
            if name != keep:
                shutil.rmtree(os.path.join(directory, name))

    # --- whether it may be

    def _judge(self, plan: Plan, directory: str, manifest: Manifest, journal: Journal) -> Chosen:
        """All that can be asked without the key. Raises RestoreFailed, with all that is wrong."""
        problems = []
        if not manifest.complete and not plan.incomplete:
            problems.append(f"{manifest.set_id} is not complete ({'; '.join(manifest.failures)}); take another set, or say that it will do")
        source, target = POLICIES.get(manifest.environment), POLICIES.get(self.config.environment)
        if source is None or target is None:
            problems.append(f"nobody knows the kind of environment {(manifest if source is None else self.config).environment!r}")
        else:
            finding = check_restore(target, source)
            problems += [f"{finding[0]}. {finding[1]}"] if finding else []
        chosen = choose_sources(plan, manifest, self.config)
        moves = [trees.plan(tree.name, tree.path, journal.when) for tree, _source in chosen.trees]
        replaced = [f"the tree {move.path}" for move in moves if trees.holds_data(move.path)]
        for server, entry, database in chosen.databases:
            there = data.databases(server)
            existed = database["name"] in there
            journal.content["databases"].append(data.DatabaseMove(server.name, database["name"], journal.when, existed)._asdict())
            problems += postgres.check_extensions(server, database)
            if existed and data.holds_data(server, database["name"]):
                replaced.append(f"the database {database['name']}")
            if database["name"] == "postgres":
                problems.append("the database 'postgres' cannot be replaced; leave it out")
            problem = postgres.check_version(server, entry)
            problems += [problem] if problem and problem not in problems else []
            if not data.is_primary(server):
                problems.append("the server is a replica; restore on its primary")
        journal.content["trees"] = [move._asdict() for move in moves]
        if replaced and plan.confirm != self.config.host:
            problems.append(
                f"{', '.join(replaced)} would be replaced; confirm it with the name of this host: -e restore_confirm={self.config.host}"
            )
        if problems:
            raise RestoreFailed("; ".join(problems))
        self._room(self._needed(chosen, moves), "beside what is there")
        return chosen

    def _needed(self, chosen: Chosen, moves: t.Sequence[trees.TreeMove]) -> t.Dict[str, int]:
        """Bytes that come to lie below directories. What is there stays, so as much is needed afterwards as meanwhile."""
        needed: t.Dict[str, int] = {}
        for server, _entry, database in chosen.databases:
            path = data.data_directory(server)
            needed[path] = needed.get(path, 0) + int(database["bytes"] * _DATABASE_SLACK)
        for move, (_tree, source) in zip(moves, chosen.trees):
            path = move.path if move.inside else os.path.dirname(move.path)
            needed[path] = needed.get(path, 0) + tree_bytes(source)
        for source in chosen.sides:
            size = tree_bytes(source) if source["kind"] == "files" else source["plain_bytes"]
            needed[self.config.directory] = needed.get(self.config.directory, 0) + size
        return needed

    def _room(self, needed: t.Mapping[str, int], what: str) -> None:
        """Raises RestoreFailed unless each file system has room for all that comes to lie on it."""
        systems: t.Dict[int, t.Tuple[str, int]] = {}
        for path, size in needed.items():
            device = os.stat(path).st_dev
            systems[device] = (path, systems.get(device, (path, 0))[1] + size)
        for path, size in systems.values():
            disk = os.statvfs(path)
            free = disk.f_bavail * disk.f_frsize
            if free - size < self.config.minimum_free:
                raise RestoreFailed(
                    f"there is too little space at {path}: {size} bytes are needed {what}, {free} are free,"
                    f" and {self.config.minimum_free} stay so"
                )

    # --- to the side

    def _prepare(self, plan: Plan, directory: str, manifest: Manifest, chosen: Chosen, journal: Journal) -> t.Dict[str, trees.Sample]:
        """All that is new, whole and proven, beside what is there; what is to be looked at in the end, by tree."""
        servers: t.Set[str] = set()
        for position, (server, entry, database) in enumerate(chosen.databases):
            if server.name not in servers:
                servers.add(server.name)
                made = postgres.restore_globals(server, directory, manifest, entry, plan.identity)
                journal.content["report"].setdefault("roles_made", []).extend(made.made)
                for line in made.warnings:
                    self._warn(journal, f"{server.name}: {line}")
            new = names.of_database(database["name"], names.NEW, journal.when)
            postgres.restore_database(server, directory, manifest, entry, database, plan.identity, new)
            _good(f"the database {database['name']}", postgres.check_database(server, new, database))
            if self._alter is not None:
                self._alter.database(server, new)
                # From now on it is these rows that must be there.
                chosen.databases[position] = (server, entry, postgres.recount(server, new, database))
        samples = {}
        for tree, source in chosen.trees:
            (move,) = [one for one in journal.trees() if one.name == tree.name]
            index = verify.read_index(directory, manifest, source, plan.identity)
            samples[tree.name] = trees.sample(index, plan.all_files)
            del index
            verify.extract_tree(directory, manifest, source, plan.identity, move.at(names.NEW))
            _good(f"the tree {tree.path}", trees.check(move.at(names.NEW), samples[tree.name]))
            if self._alter is not None:
                self._alter.tree(move.at(names.NEW))
                # What its files hold now, no index says.
                del samples[tree.name]
        if chosen.sides:
            side = os.path.join(self.config.directory, "side", journal.when)
            os.makedirs(side, mode=0o700)
            for source in chosen.sides:
                path = os.path.join(side, f"{source['kind']}-{form.file_name(source['name'])}")
                journal.content["sides"].append(path)
                journal.write()
                if source["kind"] == "files":
                    verify.extract_tree(directory, manifest, source, plan.identity, path)
                else:
                    (name,) = source["members"]
                    verify.extract_member(directory, manifest, manifest.members[name], plan.identity, path)
        return samples

    # --- in place

    def _forward(self, journal: Journal, chosen: t.Optional[Chosen], samples: t.Mapping[str, trees.Sample]) -> None:
        """From the phase C(STOPPING) to the end. Without C(chosen) it was cut off, and only what there is can be looked at."""
        moves = journal.trees()
        if journal.phase in (*_BEFORE, STOPPING):
            if journal.phase != STOPPING:
                journal.content["running"] = writing.running(self.config.writers)._asdict()
                journal.to(STOPPING)
            writing.stop(self.config.writers, journal.running())
            journal.to(SWAPPING)
        if journal.phase == SWAPPING:
            for move in moves:
                trees.forward(move)
            for server, group in journal.databases().items():
                data.forward(self._server(server), group)
            journal.to(CHECKING)
        if journal.phase == CHECKING:
            for _server, _entry, database in chosen.databases if chosen else []:
                _good(f"the database {database['name']}", postgres.check_database(_server, database["name"], database))
            for move in moves:
                if move.name in samples:
                    _good(f"the tree {move.path}", trees.check(move.path, samples[move.name]))
            journal.to(STARTING)
        writing.start(journal.running())
        self._report(journal)
        journal.to(RESTORED)

    def _server(self, name: str) -> Postgres:
        if name not in self._servers:
            raise RestoreFailed(f"the server {name} is not declared on this host any more; run the site playbook")
        return self._servers[name]

    def _report(self, journal: Journal) -> None:
        now, times = time.time(), journal.content["times"]
        journal.content["report"].update(
            recovery_seconds=round(now - times[FETCHING], 1),
            down_seconds=round(now - times[STOPPING], 1),
            recovery_point_seconds=round(times[FETCHING] - journal.content["begin"]),
        )

    # --- afterwards

    def resume(self) -> Journal:
        """Go on with what was cut off. Raises RestoreFailed."""
        journal = self._last()
        if journal.phase in _BEFORE:
            self.take_back(journal, "it was cut off before anything was touched")
            raise RestoreFailed("it was cut off before anything was touched, and its key is gone; what was made is removed, begin anew")
        if journal.phase in (UNDOING, RETURNED):
            return self.undo()
        if journal.phase not in _GOES_ON:
            raise RestoreFailed(f"there is nothing to go on with: the restore of {journal.when} is {journal.phase}")
        try:
            self._forward(journal, None, {})
        except (RestoreFailed, *_FAULTS) as error:
            raise self._failed(journal, error) from error
        self._clean()
        return journal

    def undo(self, reason: str = "somebody asked for it") -> Journal:
        """Bring the state before the last restore back. Raises RestoreFailed."""
        journal = self._last()
        if journal.content.get("forgetting"):
            raise RestoreFailed(
                f"there is nothing to undo: what was there before the restore of {journal.when} is removed, or a part of it"
            )
        if journal.phase not in (*_UNFINISHED, RESTORED, ACCEPTED):
            raise RestoreFailed(f"there is nothing to undo: the restore of {journal.when} is {journal.phase}")
        try:
            self.take_back(journal, reason)
        except _FAULTS as error:
            raise RestoreFailed(f"{error}; say 'civitas-restore undo' again when it can be") from error
        return journal

    def settle(self, boot: bool) -> t.Optional[Journal]:
        """Take back a restore that was cut off, if there is one.

        Args:
            boot: what writes waits for the end of this. Data are brought back, and the rest is left to C(FINISH_UNIT).

        Raises:
            RestoreFailed: it cannot be taken back now.
        """
        journal = cut_off(self.config)
        if journal is None:
            return None
        reason = journal.content["problem"] if journal.phase in (UNDOING, RETURNED) else f"it was cut off in the phase {journal.phase!r}"
        try:
            self.take_back(journal, reason, boot)
            if boot:
                writing.start_unit(FINISH_UNIT, wait=False)
        except _FAULTS as error:
            raise RestoreFailed(f"{error}; say 'civitas-restore undo' when it can be") from error
        return journal

    def take_back(self, journal: Journal, reason: str, boot: bool = False) -> None:
        """C(boot) as in C(settle). Raises RestoreFailed, or what is among the faults."""
        phase = journal.content.get("undone_from", journal.phase)
        journal.content["problem"] = reason
        if phase in _BEFORE:
            # Nothing that was there is touched: what was made beside it keeps nobody waiting.
            if not boot:
                self._drop(journal, names.NEW)
                journal.to(REFUSED)
            return
        # What ran since may have written into what was brought; and what runs now is what runs afterwards.
        used = phase in (STARTING, RESTORED, ACCEPTED)
        if journal.phase != RETURNED:
            self._bring_back(journal, phase, used, boot)
        if boot:
            return
        writing.start(journal.running())
        if not used:
            self._drop(journal, names.NEW)
        journal.content["kept"] = names.UNDONE if used else ""
        journal.to(UNDONE)
        self._clean()

    def _bring_back(self, journal: Journal, phase: str, used: bool, boot: bool) -> None:
        """The old state is in its place, and nothing writes."""
        writers = self.config.writers
        if journal.phase != UNDOING:
            if used:
                journal.content["running"] = _both(journal.running(), writing.running(writers, boot))._asdict()
            journal.content["undone_from"] = phase
            journal.to(UNDOING)
        writing.stop(writers, writing.running(writers, boot), boot)
        if boot and journal.content["databases"]:
            # An unlock of the volume on which they lie may start what waits in any order.
            writing.start_unit(_DATABASE_UNIT)
        for server, group in journal.databases().items():
            data.backward(self._server(server), group)
            if used:
                data.keep(self._server(server), group)
        for move in journal.trees():
            trees.backward(move)
            if used:
                trees.keep(move)
        journal.to(RETURNED)

    def accept(self) -> Journal:
        """Somebody says that the application works. Raises RestoreFailed."""
        journal = self._last()
        if journal.phase not in (RESTORED, ACCEPTED):
            raise RestoreFailed(f"there is nothing to accept: the restore of {journal.when} is {journal.phase}")
        if journal.phase == RESTORED:
            journal.content["kept"] = names.BEFORE
            journal.to(ACCEPTED)
        return journal

    def forget(self, when: str) -> t.List[Journal]:
        """Remove what was there before a restore, or what one that was undone had brought.

        Args:
            when: its stamp; C(due) for all that were kept long enough, C(all) for all.

        Raises:
            RestoreFailed: there is none, or it is not finished.
        """
        due = time.time() - self.config.keep_days * 86400
        found = []
        for journal in journals(self.config):
            ended = journal.phase in (ACCEPTED, UNDONE, REFUSED) and not journal.content.get("forgotten")
            if ended and when in ("all", "due", journal.when) and (when != "due" or journal.content["times"][journal.phase] < due):
                # From here on there is no way back, also when this ends half way.
                journal.content["forgetting"] = True
                journal.write()
                try:
                    for word in (names.BEFORE, names.UNDONE) if journal.phase == ACCEPTED else (names.UNDONE,):
                        self._drop(journal, word)
                    for path in journal.content["sides"]:
                        shutil.rmtree(os.path.dirname(path), ignore_errors=True)
                except _FAULTS as error:
                    raise RestoreFailed(f"{journal.when}: {error}") from error
                journal.content["forgotten"] = round(time.time())
                journal.write()
                found.append(journal)
        if not found and when not in ("all", "due"):
            raise RestoreFailed(f"there is no finished restore {when!r} of which anything is kept; 'civitas-restore status' lists them")
        return found

    def _drop(self, journal: Journal, word: str) -> None:
        for server, group in journal.databases().items():
            if server in self._servers:
                data.drop(self._servers[server], group, word)
        for move in journal.trees():
            trees.drop(move, word)
        if word == names.NEW:
            shutil.rmtree(os.path.join(self.config.directory, "side", journal.when), ignore_errors=True)

    def _last(self) -> Journal:
        known = journals(self.config)
        if not known:
            raise RestoreFailed("nothing was ever restored here")
        return known[-1]


# --- what is asked for


def choose(plan: Plan, found: t.Sequence[Found], warn: t.Callable[[str], None]) -> str:
    """The name of the set that is wanted, of those that there are. Raises RestoreFailed."""
    if plan.wanted != "newest":
        if plan.wanted not in [one.set_id for one in found]:
            there = ", ".join(one.set_id for one in found[-5:]) or "none at all"
            raise RestoreFailed(f"there is no set {plan.wanted!r} of {plan.host}; there are {there}")
        return plan.wanted
    in_time = [one for one in found if plan.before is None or one.begin <= plan.before]
    good = [one for one in in_time if one.good]
    if not good:
        when = f" that is not later than {form.format_time(plan.before)}" if plan.before is not None else ""
        raise RestoreFailed(f"there is no good set of {plan.host}{when}; there are {len(found)} in all")
    for one in in_time[in_time.index(good[-1]) + 1 :]:
        warn(f"the newer set {one.set_id} is passed over, as it is not good: {'; '.join(one.problems)}")
    return good[-1].set_id


def _compare_sizes(plan: Plan, found: t.Sequence[Found], set_id: str) -> None:
    """Raises RestoreFailed when nobody has named the set, and it holds much less than those before it."""
    good = [one for one in found if one.good]
    if plan.wanted != "newest" or set_id not in [one.set_id for one in good]:
        return
    place = [one.set_id for one in good].index(set_id)
    before = [one.bytes for one in good[max(0, place - _MEDIAN_OF) : place]]
    if before and good[place].bytes < _SHRINK * statistics.median(before):
        raise RestoreFailed(
            f"{set_id} is the newest set, and it has {good[place].bytes} bytes where those before it had {statistics.median(before):.0f}:"
            f" it may be of a host that was empty; name the set that is wanted, such as {good[place - 1].set_id}, or this one"
        )


def local_sets(directory: str) -> t.List[Found]:
    """What sets a directory has, as far as they say themselves. Raises OSError."""
    found = []
    for name in sorted(os.listdir(directory)):
        if form.is_set_id(name):
            try:
                manifest = form.parse(form.read_limited(os.path.join(directory, name, form.MANIFEST), form.MANIFEST_BYTES))
            except (form.FormatError, OSError):
                continue
            found.append(Found(name, manifest.begin, manifest.bytes, manifest.complete, manifest.failures))
    return sorted(found, key=lambda one: (one.begin, one.set_id))


def choose_sources(plan: Plan, manifest: Manifest, config: Config) -> Chosen:
    """What of a set is restored. Raises RestoreFailed when something asked for is not in it, or has no place on this host."""
    servers, places = {server.name: server for server in config.postgres}, {tree.name: tree for tree in config.files}
    chosen, problems, used = Chosen([], [], []), [], set()  # type: Chosen, t.List[str], t.Set[str]

    def asked(*aliases: str) -> bool:
        used.update(set(aliases) & set(plan.only))
        return not plan.only or bool(set(aliases) & set(plan.only))

    for source in manifest.sources:
        kind, name = source["kind"], source["name"]
        if kind == "postgres":
            for database in source["databases"]:
                if asked(f"postgres/{name}", f"postgres/{name}/{database['name']}"):
                    server = servers.get(name)
                    if server is None or database["name"] not in server.databases:
                        problems.append(f"this host declares no database {database['name']!r} of a server {name!r}")
                    else:
                        chosen.databases.append((server, source, database))
        elif asked(f"{kind}/{name}"):
            if kind == "command":
                (member,) = source["members"]
                chosen.sides.append({**source, "plain_bytes": manifest.members[member].plain_bytes})
            elif name not in places:
                problems.append(f"this host declares no tree {name!r}")
            elif places[name].side:
                chosen.sides.append(source)
            else:
                chosen.trees.append((places[name], source))
    there = [f"{one['kind']}/{one['name']}" for one in manifest.sources if one["kind"] != "postgres"]
    for one in manifest.sources:
        there += [f"postgres/{one['name']}/{database['name']}" for database in one.get("databases", [])]
    for name in set(plan.only) - used:
        problems.append(f"{manifest.set_id} has no {name!r}; it has {', '.join(there)}")
    if problems:
        raise RestoreFailed(f"{'; '.join(problems)}; declare it, or say what is to be restored")
    return chosen


def tree_bytes(source: Source) -> int:
    """What a tree takes on a disk, about."""
    return int(source["bytes"] + (source["files"] + source["directories"] + source["others"]) * _ENTRY_BYTES)


def _good(what: str, problems: t.Sequence[str]) -> None:
    if problems:
        raise RestoreFailed(f"{what} is not what the set says: {'; '.join(problems)}")


def _both(one: writing.Running, other: writing.Running) -> writing.Running:
    units = [*one.units, *(unit for unit in other.units if unit not in one.units)]
    return writing.Running(units, [*one.containers, *(number for number in other.containers if number not in one.containers)])


@contextlib.contextmanager
def removed(identity: str) -> t.Iterator[None]:
    """Afterwards the key is not on this host any more."""
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(identity)
