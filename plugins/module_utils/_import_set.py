# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in archives of OpenCRVS and Primero, of which day, what of it is damaged, and what is missing.

Private to the collection: no promise of stability. Standard library only.

Known are, by the names that the systems give them::

    LABEL.tar.gz.enc                     OpenCRVS on Swarm: all stores of a day; the label is the day as a rule
    STORE_backup_DAY.tar.gz.enc          OpenCRVS on Kubernetes: one store of a day
    primero_backup.DAY.TIME.tar.gz       Primero: a database, and the attachments since the archive before; several belong together
"""

from __future__ import annotations

import calendar
import json
import os
import re
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _import_primero as primero
from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import (
    ArchiveError,
    Budget,
    Entry,
    Gunzip,
    Parts,
    Tar,
    WrongPassphraseError,
    exactly,
    opened,
)
from ansible_collections.civitas.hosting.plugins.module_utils._import_dump import Dump, read_dump, read_mongo

_STORE = re.compile(r"(postgres|mongo|minio|influxdb|elasticsearch)_backup_(\d{4}-\d\d-\d\d)\.tar\.gz\.enc")
_PRIMERO = re.compile(r"primero_backup\.(\d{8}\.\d{4})\.tar\.gz")
_LABEL = re.compile(r"([A-Za-z0-9._-]{1,100})\.tar\.gz\.enc")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MONGO = ("hearth-dev", "events", "user-mgnt", "application-config", "metrics", "webhooks", "performance")
_MONGO_KUBERNETES = ("hearth-dev", "events", "user-mgnt", "metrics", "performance")
_ROLES_END = b"-- PostgreSQL database cluster dump complete"
_SMALL = 16 * 2**20
# A night's run begins at midnight of the label, and may last.
_DAY_SECONDS = 86400
_SUCCESS = 1
# How a line about one that is missing begins.
ATTACHMENT = "the attachment "


class Archive(t.NamedTuple):
    """An archive by its name. C(label) is comparable: of several of Primero's the last one is the newest."""

    path: str
    system: str
    store: str
    label: str

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


class Member(t.NamedTuple):
    """A file in an archive.

    Attributes:
        archive: which one, from 0.
        path: below the archive's top.
        kind: C(postgres), C(roles), C(mongo), C(tar), C(attachment) or C(file).
        told: what is known of its content, for people; empty when nobody has looked.
    """

    archive: int
    path: str
    kind: str
    size: int
    told: str


class Report(t.NamedTuple):
    """What was found.

    Attributes:
        missing: what such archives have, and these do not.
        problems: what is damaged or is not what it should be.
        warnings: what is strange.
        bytes: what comes out.
        dumps: what is in the dumps of PostgreSQL, by archive and path.
        match: of Primero's attachments.
    """

    archives: t.List[Archive]
    members: t.List[Member]
    missing: t.List[str]
    problems: t.List[str]
    warnings: t.List[str]
    bytes: int
    dumps: t.Dict[t.Tuple[int, str], Dump]
    match: t.Optional[primero.Match]


def recognize(paths: t.Sequence[str]) -> t.List[Archive]:
    """The archives in order, which must belong together. Raises ArchiveError."""
    found = []
    for path in paths:
        name = os.path.basename(path)
        store, attachments, label = _STORE.fullmatch(name), _PRIMERO.fullmatch(name), _LABEL.fullmatch(name)
        if store:
            found.append(Archive(path, "opencrvs", store[1], store[2]))
        elif attachments:
            found.append(Archive(path, "primero", "", attachments[1]))
        elif label:
            found.append(Archive(path, "opencrvs", "", label[1]))
        else:
            raise ArchiveError(
                f"{name!r} is no name of an archive; they are called LABEL.tar.gz.enc, STORE_backup_DAY.tar.gz.enc or "
                "primero_backup.DAY.TIME.tar.gz, and the name says what is in it, so give it back its name"
            )
    if len({(one.system, bool(one.store)) for one in found}) != 1:
        raise ArchiveError("give archives of one kind at a time")
    if found[0].system == "opencrvs" and len({one.label for one in found}) != 1:
        raise ArchiveError(f"give archives of one day at a time, not of {', '.join(sorted({one.label for one in found}))}")
    if len({(one.store, one.label) for one in found}) != len(found):
        raise ArchiveError("the same archive is given twice")
    return sorted(found, key=lambda one: (one.label, one.store))


def entries(archive: Archive, passphrase: t.Optional[bytes], budget: Budget) -> t.Iterator[t.Tuple[Entry, t.Iterator[bytes]]]:
    """Each entry with its content; the path is below the archive's top. Raises ArchiveError, OSError."""
    top = f"primero_backup.{archive.label}/".encode() if archive.system == "primero" else b""
    with opened(archive.path, passphrase if archive.system == "opencrvs" else None) as stream:
        tar = Tar(Gunzip(stream, budget), budget)
        for entry in tar:
            if not (entry.path + b"/").startswith(top):
                raise ArchiveError(f"{entry.shown!r} is not below {top.decode()}; somebody has put it there")
            yield entry._replace(path=entry.path[len(top) :], link=entry.link[len(top) :]), tar.content()


def look(archives: t.Sequence[Archive], passphrase: t.Optional[bytes], limit: int, deep: bool = True) -> Report:
    """Read archives to their end; nothing is written.

    Args:
        limit: bytes that may come out of them, archives inside them included.
        deep: judge what is in each file, too.

    Raises:
        WrongPassphraseError: it is not the one of an archive.
        OSError: an archive cannot be read.
    """
    looking = _Look(archives, Budget(limit), deep)
    for number, archive in enumerate(archives):
        looking.archive(number, archive, passphrase)
    looking.compare()
    return Report(
        list(archives),
        looking.members,
        looking.missing,
        looking.problems,
        looking.warnings,
        looking.bytes,
        looking.dumps,
        looking.match,
    )


class _Look:
    def __init__(self, archives: t.Sequence[Archive], budget: Budget, deep: bool) -> None:
        self._archives, self._budget, self._deep = archives, budget, deep
        self.members: t.List[Member] = []
        self.missing: t.List[str] = []
        self.problems: t.List[str] = []
        self.warnings: t.List[str] = []
        self.dumps: t.Dict[t.Tuple[int, str], Dump] = {}
        self.match: t.Optional[primero.Match] = None
        self.bytes = 0
        self._attachments: t.List[primero.File] = []
        # Small files that say what else must be there, by archive and path.
        self._small: t.Dict[t.Tuple[int, str], bytes] = {}

    def archive(self, number: int, archive: Archive, passphrase: t.Optional[bytes]) -> None:
        newest = 0
        try:
            for entry, content in entries(archive, passphrase, self._budget):
                if entry.kind == "f":
                    newest = max(newest, entry.mtime)
                    self.bytes += entry.size
                    self._member(number, archive, entry, content)
        except WrongPassphraseError as error:
            raise WrongPassphraseError(f"{archive.name}: {error}") from error
        except ArchiveError as error:
            self.problems.append(f"{archive.name}: {error}")
            return
        if _DAY.fullmatch(archive.label) and newest:
            day = calendar.timegm(time.strptime(archive.label, "%Y-%m-%d"))
            if not day - _DAY_SECONDS <= newest < day + 3 * _DAY_SECONDS:
                shown = time.strftime("%Y-%m-%d", time.gmtime(newest))
                self.warnings.append(f"{archive.name}: the newest file in it is of {shown}")

    def _member(self, number: int, archive: Archive, entry: Entry, content: t.Iterator[bytes]) -> None:
        path = entry.shown
        kind, told = _kind(archive, path), ""
        what = f"{archive.name}: {path}"
        if kind == "attachment":
            # Its name may name somebody.
            what = f"{archive.name}: an attachment"
            name = path[len(primero.FOLDER) + 1 :]
            self._attachments.append(primero.File(number, name, entry.size, primero.digest(content)))
        elif self._deep or archive.system == "primero":
            try:
                told = self._judge(number, kind, path, content)
            except ArchiveError as error:
                self.problems.append(f"{what}: {error}")
        self.members.append(Member(number, path, kind, entry.size, told))

    def _judge(self, number: int, kind: str, path: str, content: t.Iterator[bytes]) -> str:
        """What is known of a file afterwards. Raises ArchiveError."""
        stream = Parts(content)
        if kind == "postgres":
            dump = read_dump(stream, primero.TABLES if self._archives[number].system == "primero" else ())
            self.dumps[number, path] = dump
            return f"PostgreSQL {dump.major}, {sum(dump.rows.values())} rows in {len(dump.rows)} tables"
        if kind == "mongo":
            count = read_mongo(Gunzip(stream, self._budget))
            return f"MongoDB, {sum(count.values())} documents in {len(count)} collections"
        if kind == "tar":
            files = size = 0
            for entry in Tar(Gunzip(stream, self._budget), self._budget):
                files += entry.kind == "f"
                size += entry.size
            return f"{files} files, {size} bytes"
        if kind == "roles":
            tail = b""
            for data in iter(lambda: stream.read(_SMALL), b""):
                tail = (tail + data)[-4096:]
            if _ROLES_END not in tail:
                raise ArchiveError("it is cut off: pg_dumpall's last line is missing")
            return "roles"
        if kind == "small":
            data = exactly(stream, _SMALL + 1)
            if len(data) > _SMALL:
                raise ArchiveError("it is larger than such a file is")
            self._small[number, path] = data
        return ""

    # --- what all of it must have

    def compare(self) -> None:
        for number, archive in enumerate(self._archives):
            if any(problem.startswith(f"{archive.name}:") for problem in self.problems):
                continue
            paths = {member.path for member in self.members if member.archive == number}
            if archive.system == "opencrvs":
                self._compare_stores(number, archive, paths)
            elif not any((number, path) in self.dumps for path in paths):
                self.missing.append(f"{archive.name}: the dump of the database")
        if self._archives[0].system == "primero":
            self._compare_attachments()
        elif self._archives[0].store:
            there = {archive.store for archive in self._archives}
            gone = [store for store in ("postgres", "minio", "mongo", "influxdb") if store not in there]
            self.missing += [f"{store}_backup_{self._archives[0].label}.tar.gz.enc" for store in gone]

    def _compare_stores(self, number: int, archive: Archive, paths: t.Set[str]) -> None:
        label, store = archive.label, archive.store
        expected = {
            "": [
                f"postgres/events-{label}.dump",
                *(f"mongo/{name}-{label}.gz" for name in _MONGO),
                f"minio/ocrvs-{label}.tar.gz",
                f"vsexport/ocrvs-{label}.tar.gz",
            ],
            "postgres": ["events.dump", "roles.sql"],
            "mongo": [f"{name}.gz" for name in _MONGO_KUBERNETES],
        }.get(store, [])
        self.missing += [f"{archive.name}: {path}" for path in expected if path not in paths]
        if store == "minio" and not paths:
            self.missing.append(f"{archive.name}: any file")
        if self._deep and store in ("", "influxdb"):
            self._told(archive, self._influx(number, "influxdb/" if not store else "", paths))
        if self._deep and store in ("", "elasticsearch"):
            self._told(archive, self._search(number, "elasticsearch/" if not store else "", paths, label))

    def _told(self, archive: Archive, result: t.Tuple[t.List[str], t.List[str]]) -> None:
        missing, problems = result
        self.missing += [f"{archive.name}: {line}" for line in missing]
        self.problems += [f"{archive.name}: {line}" for line in problems]

    def _influx(self, number: int, folder: str, paths: t.Set[str]) -> t.Tuple[t.List[str], t.List[str]]:
        manifests = [path for path in paths if re.fullmatch(re.escape(folder) + r"[^/]+\.manifest", path)]
        if not manifests:
            return [f"{folder}*.manifest, the list of InfluxDB's backup"], []
        sizes = {member.path: member.size for member in self.members if member.archive == number}
        missing: t.List[str] = []
        for path in manifests:
            try:
                content = json.loads(self._small.get((number, path), b""))
                needed = [content["meta"], *(content["files"] or [])]
                files = {f"{folder}{one['fileName']}": int(one["size"]) for one in needed}
            except (ValueError, KeyError, TypeError, AttributeError):
                return missing, [f"{path}: it is no manifest of InfluxDB"]
            missing += [name for name, size in files.items() if sizes.get(name) != size]
        return missing, []

    def _search(self, number: int, folder: str, paths: t.Set[str], label: str) -> t.Tuple[t.List[str], t.List[str]]:
        latest = self._small.get((number, f"{folder}index.latest"), b"")
        index = f"{folder}index-{int.from_bytes(latest, 'big')}"
        if len(latest) != 8 or index not in paths:
            return [f"{folder}index.latest and its index; the search index can be made anew by the application"], []
        try:
            snapshots = json.loads(self._small[number, index])["snapshots"]
            made = {one["name"]: one for one in snapshots}
            wanted = made.get(f"snapshot_{label}")
            if wanted is None:
                return [f"{folder}: the snapshot_{label}; there is {', '.join(made) or 'none'}"], []
            if wanted.get("state") != _SUCCESS:
                return [], [f"{index}: the snapshot of the search index did not succeed when it was made"]
            data = f"{folder}snap-{wanted['uuid']}.dat"
        except (ValueError, KeyError, TypeError, AttributeError):
            return [], [f"{index}: it is no index of Elasticsearch's snapshots"]
        return ([] if data in paths else [data]), []

    def _compare_attachments(self) -> None:
        newest = max((key for key in self.dumps), default=None)
        last = len(self._archives) - 1
        if newest is None or newest[0] != last:
            # What is missing cannot be known, which is said above.
            return
        try:
            needed, orphans = primero.wanted(self.dumps[newest].kept)
        except ValueError as error:
            self.problems.append(f"{self._archives[last].name}: {error}")
            return
        self.match = primero.match(needed, self._attachments)
        for one in self.match.missing:
            self.missing.append(f"{ATTACHMENT}{one.blob} of {one.owner}, {one.size} bytes: it is in an older archive")
        for one in self.match.replaced:
            self.missing.append(f"{ATTACHMENT}{one.blob} of {one.owner}, {one.size} bytes: another file of the same name is at its place")
        if orphans:
            self.warnings.append(f"{orphans} attachments in the database belong to no record, and Primero leaves them out")
        if self.match.unused:
            self.warnings.append(f"{self.match.unused} files belong to no attachment of the newest database any more")


def _kind(archive: Archive, path: str) -> str:
    if archive.system == "primero":
        if re.fullmatch(r"primero_backup_postgres_[0-9.]+\.dump", path):
            return "postgres"
        below = path.startswith(f"{primero.FOLDER}/") and not re.fullmatch(re.escape(primero.FOLDER) + r"/attachment-\d+\.rb", path)
        return "attachment" if below else "file"
    store, _slash, name = ("", "", path)
    if archive.store:
        store = archive.store
    else:
        store, _slash, name = path.partition("/")
    if store == "postgres":
        return "postgres" if name.endswith(".dump") else "roles" if name == "roles.sql" else "file"
    if store == "mongo" and name.endswith(".gz"):
        return "mongo"
    if store in ("minio", "vsexport", "influxdb") and name.endswith(".tar.gz") and not (store == "minio" and archive.store):
        return "tar"
    if (store == "influxdb" and name.endswith(".manifest")) or (store == "elasticsearch" and re.fullmatch(r"index(\.latest|-\d+)", name)):
        return "small"
    return "file"
