# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees as members of sets: what did not change since the last set is not read, packed or sent again.

Private to the collection: no promise of stability. Standard library only.

Files lie in packs: tar streams, encrypted, made once and shared by all sets that need them. An index, encrypted as well, says which file
of which pack is the present one. The host keeps a state with sizes and times, and without content; it is a cache: when it is lost, all is
packed anew. Packs are merged as the levels of a log-structured merge tree, from the live files, so nothing is ever decrypted here.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import sqlite3
import stat
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tar as tar
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK, Member, file_name
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, SourceError, Writer
from ansible_collections.civitas.hosting.plugins.module_utils._restore_names import is_tree as is_of_restore
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import is_swap_file

CANARY = ".civitas-canary"
MAX_PACKS = 12
# Raised when what the state holds or what packs look like changes; then all is packed anew.
STATE_VERSION = 2
# A file that changed this short before it was read may change again without a sign: times of files have steps.
_STEP = 2 * 10**9
_INDEX_PART = 4 * 2**20
# What is smaller is gathered before it is written.
_DIRECT = 64 * 2**10
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT);
CREATE TABLE entries (
  dir BLOB, name BLOB, kind TEXT, mode INTEGER, uid INTEGER, gid INTEGER, mtime INTEGER, size INTEGER, ctime INTEGER, inode INTEGER,
  link BLOB, xattrs TEXT, major INTEGER, minor INTEGER, sha256 TEXT, pack INTEGER, at INTEGER, PRIMARY KEY (dir, name)
) WITHOUT ROWID;
CREATE TABLE packs (number INTEGER PRIMARY KEY, id TEXT, member TEXT, files INTEGER, total INTEGER, live INTEGER);
CREATE TABLE dead (pack INTEGER, path BLOB);
"""
_KINDS = {
    "f": tar.FILE,
    "h": tar.HARD_LINK,
    "l": tar.SYMBOLIC_LINK,
    "c": tar.CHARACTER,
    "b": tar.BLOCK_DEVICE,
    "d": tar.DIRECTORY,
    "p": tar.FIFO,
}


class TreeError(SourceError):
    """A tree is not as it was declared, so it is not in the set; the text says why."""


class Tree(t.NamedTuple):
    """A declared tree.

    Attributes:
        mount: its path is to be a mount point.
        may_be_empty: it is all right that no file is in it.
        exclude: patterns of fnmatch for paths below it that are left out.
        may_change: patterns for files that may change while they are read, such as logs.
        canary: a file with a new number is written into it when it changed.
    """

    name: str
    path: str
    mount: bool = False
    may_be_empty: bool = False
    exclude: t.Tuple[str, ...] = ()
    may_change: t.Tuple[str, ...] = ()
    canary: bool = True


class Made(t.NamedTuple):
    """What came of a tree.

    Attributes:
        source: for the manifest.
        members: all that it needs, those that are in the store already among them.
        failures: why it is not all there; no names.
        problems: the same with names, for this host only.
    """

    source: t.Dict[str, t.Any]
    members: t.List[Member]
    failures: t.List[str]
    warnings: t.List[str]
    problems: t.List[str]


class Row(t.NamedTuple):
    """An entry of the state; times in nanoseconds. C(pack) is None for what is to be packed, negative for what may have changed since."""

    dir: bytes
    name: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    ctime: int
    inode: int
    link: bytes
    xattrs: str
    major: int
    minor: int
    sha256: str
    pack: t.Optional[int]
    at: int

    @property
    def path(self) -> bytes:
        """Below the tree; the tree itself, whose row comes first, is a dot."""
        return self.dir + b"/" + self.name if self.dir else self.name or b"."

    @property
    def shown(self) -> t.Tuple[t.Any, ...]:
        """What a restored entry must have."""
        size = self.size if self.kind == "f" else 0
        return (self.kind, self.mode, self.uid, self.gid, self.mtime, size, self.link, self.xattrs, self.major, self.minor)

    def entry(self) -> tar.Entry:
        xattrs = tuple((name.encode(), bytes.fromhex(value)) for name, value in json.loads(self.xattrs or "[]"))
        size = self.size if self.kind == "f" else 0
        kind, device = _KINDS[self.kind], (self.major, self.minor)
        return tar.Entry(self.path, kind, self.mode, self.uid, self.gid, self.mtime, size, self.link, xattrs, device)


_COLUMNS = ", ".join(Row._fields)
_PUT = f"INSERT OR REPLACE INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(Row._fields))})"

Opener = t.Callable[[str], Writer]


def make(
    tree: Tree,
    state_file: str,
    open_member: Opener,
    close_member: t.Callable[[Writer], Member],
    recipients: t.Sequence[str],
    stored: t.Container[str],
    now: float,
    full_days: int,
) -> Made:
    """Bring a tree into a set.

    Args:
        state_file: what is known of it; it is changed.
        stored: SHA-256 of the members that the store has.
        full_days: age of the state after which everything is packed anew, so that no single pack is all that there is.

    Raises:
        TreeError: nothing of it can be in the set.
        PipeError: a member cannot be made.
        OSError: as well.
    """
    _check(tree)

    def once() -> Made:
        state = _State(state_file, tree, recipients, now, full_days)
        try:
            made = _Maker(tree, state, open_member, close_member, stored).make()
            state.db.execute("COMMIT")
            return made
        finally:
            # Without the end of the transaction the file is worth nothing, and who asked for it removes it.
            state.db.close()

    try:
        return once()
    except sqlite3.OperationalError as error:
        raise PipeError(f"{state_file}: {error}") from error
    except sqlite3.DatabaseError:
        # A cache that is damaged is worth as much as none.
        os.unlink(state_file)
        return once()


def _check(tree: Tree) -> None:
    """Raises TreeError."""
    try:
        found = os.stat(tree.path)
    except OSError as error:
        raise TreeError(f"{tree.path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise TreeError(f"{tree.path} is no directory")
    if tree.mount and not os.path.ismount(tree.path):
        raise TreeError(f"{tree.path} is not mounted; mount it, or say that it is no mount point")


class _State:
    """The database of a tree's state, inside one transaction."""

    def __init__(self, path: str, tree: Tree, recipients: t.Sequence[str], now: float, full_days: int) -> None:
        self.path = path
        identity = {"version": STATE_VERSION, "path": tree.path, "recipients": sorted(recipients), "exclude": sorted(tree.exclude)}
        try:
            self.db = self._open()
            made = float(self.get("made") or 0)
            good = self.get("identity") == json.dumps(identity) and -86400 <= now - made <= full_days * 86400
        except (sqlite3.DatabaseError, ValueError):
            good = False
        if not good:
            if hasattr(self, "db"):
                self.db.close()
            if os.path.exists(path):
                os.unlink(path)
            self.db = self._open()
            for statement in _SCHEMA.split(";"):
                self.db.execute(statement)
            self.set("identity", json.dumps(identity))
            self.set("made", repr(now))

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None)
        # It is a copy, which takes the place of the old one when the store has the set.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("BEGIN")
        return db

    def get(self, key: str) -> t.Optional[str]:
        found = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else None

    def set(self, key: str, value: t.Optional[str]) -> None:
        self.db.execute("DELETE FROM meta WHERE key = ?", (key,))
        if value is not None:
            self.db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))

    def put(self, row: Row) -> None:
        self.db.execute(_PUT, row)

    def rows(self, directory: bytes) -> t.Dict[bytes, Row]:
        found = self.db.execute(f"SELECT {_COLUMNS} FROM entries WHERE dir = ?", (directory,))
        return {row[1]: Row(*row) for row in found}

    def batches(self, condition: str, arguments: t.Tuple[t.Any, ...] = ()) -> t.Iterator[Row]:
        """Rows in order; they may be changed meanwhile."""
        after, compare = (b"", b""), ">="
        while True:
            query = f"SELECT {_COLUMNS} FROM entries WHERE (dir, name) {compare} (?, ?) AND ({condition}) ORDER BY dir, name LIMIT 500"
            found = [Row(*row) for row in self.db.execute(query, after + arguments)]
            if not found:
                return
            yield from found
            after, compare = (found[-1].dir, found[-1].name), ">"

    def leave(self, row: Row) -> None:
        """What a pack holds of this entry is dead."""
        if row.pack is not None and row.kind == "f":
            number = abs(row.pack)
            self.db.execute("INSERT INTO dead VALUES (?, ?)", (number, row.path))
            self.db.execute("UPDATE packs SET live = live - ? WHERE number = ?", (row.size, number))

    def remove(self, row: Row) -> None:
        """The entry, and what was below it."""
        self.leave(row)
        self.db.execute("DELETE FROM entries WHERE dir = ? AND name = ?", (row.dir, row.name))
        if row.kind == "d":
            below = "(dir = ? OR (dir > ? AND dir < ?))"
            limits = (row.path, row.path + b"/", row.path + b"0")
            for child in self.batches(below, limits):
                self.leave(child)
            self.db.execute(f"DELETE FROM entries WHERE {below}", limits)

    def drop_pack(self, number: int) -> None:
        """Its live files are to be packed anew."""
        self.db.execute("UPDATE entries SET pack = NULL WHERE pack IN (?, ?)", (number, -number))
        self.db.execute("DELETE FROM dead WHERE pack = ?", (number,))
        self.db.execute("DELETE FROM packs WHERE number = ?", (number,))

    def packs(self) -> t.List[t.Tuple[int, str, Member, int, int, int]]:
        found = self.db.execute("SELECT number, id, member, files, total, live FROM packs ORDER BY number")
        return [(number, name, Member(*json.loads(member)), files, total, live) for number, name, member, files, total, live in found]


class _Maker:
    def __init__(
        self, tree: Tree, state: _State, open_member: Opener, close_member: t.Callable[[Writer], Member], stored: t.Container[str]
    ) -> None:
        self.tree = tree
        self.state = state
        self._open_member, self._close_member = open_member, close_member
        self._stored = stored
        self._root = os.fsencode(tree.path)
        self._exclude = _patterns(tree.exclude)
        self._may_change = _patterns(tree.may_change)
        self._begin = time.time_ns()
        self._links: t.Dict[t.Tuple[int, int], bytes] = {}
        # Whether the index of before is no longer the present one.
        self._differs = False
        self.files = self.sockets = self.vanished = 0
        self._devices: t.Set[int] = set()
        self.changed: t.List[bytes] = []
        self.unreadable: t.List[str] = []

    def make(self) -> Made:
        for number, _name, member, *_sizes in self.state.packs():
            if member.sha256 not in self._stored:
                self.state.drop_pack(number)
                self._differs = True
        before = int(self.state.get("files") or 0)
        self._walk()
        if self.files == 0 and not self.tree.may_be_empty:
            raise TreeError(f"{self.tree.path} holds no file; say that it may be empty if that is right")
        if self.tree.canary and (self._differs or self._pending() or not self._canary_stands()):
            self._write_canary()
        self._settle()
        self._merge()
        self._pack()
        index = self._index()
        count = dict(self.state.db.execute("SELECT kind, count(*) FROM entries GROUP BY kind").fetchall())
        files = count.get("f", 0) + count.get("h", 0)
        self.state.set("files", str(files))
        return self._made(index, count, files, before)

    def _made(self, index: t.List[Member], count: t.Mapping[str, int], files: int, before: int) -> Made:
        packs = self.state.packs()
        size = self.state.db.execute("SELECT coalesce(sum(size), 0) FROM entries WHERE kind = 'f'").fetchone()[0]
        members = index + [member for _number, _name, member, *_sizes in packs]
        nonce = self.state.get("canary") if self.tree.canary else None
        source = {
            "kind": "files",
            "name": self.tree.name,
            "path": self.tree.path,
            "members": [member.name for member in members],
            "index": index[0].name,
            "rest": index[1].name,
            "packs": [{"id": name, "member": member.name} for _number, name, member, *_sizes in packs],
            "files": files,
            "directories": count.get("d", 0),
            "others": sum(count.values()) - files - count.get("d", 0),
            "bytes": size,
            "canary": {"path": CANARY, "nonce": nonce} if nonce else None,
        }
        failures, warnings = [], []
        torn = [path for path in self.changed if not _matches(self._may_change, path)]
        if self.unreadable:
            failures.append(f"{self.tree.path}: {len(self.unreadable)} files or directories could not be read")
        if torn:
            failures.append(f"{self.tree.path}: {len(torn)} files changed each time they were read")
        if len(torn) < len(self.changed):
            warnings.append(f"{self.tree.path}: {len(self.changed) - len(torn)} files changed while they were read, as they may")
        if self.vanished:
            warnings.append(f"{self.tree.path}: {self.vanished} files vanished before they were read")
        if self.sockets:
            warnings.append(f"{self.tree.path}: {self.sockets} sockets were left out")
        if len(self._devices) > 1:
            warnings.append(f"{self.tree.path}: a file system is mounted in it; declare it by itself, as a tree is restored as a whole")
        if files * 2 < before:
            warnings.append(f"{self.tree.path}: it holds {files} files, and {before} in the set before")
        problems = self.unreadable + [f"{_shown(path)}: it changed while it was read" for path in self.changed]
        return Made(source, members, failures, warnings, [f"{self.tree.name}: {line}" for line in problems])

    # --- what is there

    def _walk(self) -> None:
        self._visit(b"", self.state.rows(b"").get(b""), b"", os.stat(self._root))
        waiting = [b""]
        while waiting:
            directory = waiting.pop()
            try:
                with os.scandir(os.path.join(self._root, directory)) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                self._forget(directory)
                self.vanished += 1
                continue
            except OSError as error:
                if not directory:
                    raise TreeError(f"{self.tree.path}: {error.strerror}") from error
                self.unreadable.append(f"{_shown(directory)}: {error.strerror}")
                self._forget(directory)
                continue
            known = self.state.rows(directory)
            if not directory:
                known.pop(b"", None)
            below = []
            for entry in entries:
                path = directory + b"/" + entry.name if directory else entry.name
                # What a restore has put aside is no record of this host; a file of such a name is one. Nor is what memory was put into.
                if (
                    (is_of_restore(entry.name) and entry.is_dir(follow_symlinks=False))
                    or (self._exclude is not None and _matches(self._exclude, path))
                    or is_swap_file(entry.path)
                ):
                    continue
                try:
                    found = entry.stat(follow_symlinks=False)
                    self._devices.add(_device(found))
                    row = self._visit(directory, known.get(entry.name), entry.name, found)
                except FileNotFoundError:
                    self.vanished += 1
                    continue
                except OSError as error:
                    self.unreadable.append(f"{_shown(path)}: {error.strerror}")
                    continue
                if row is None:
                    continue
                known.pop(entry.name, None)
                if row.kind == "d":
                    below.append(path)
            for row in known.values():
                self.state.remove(row)
                self._differs = True
            # In the order of their names, so that the first of several hard links is always the same one.
            waiting += reversed(below)

    def _forget(self, directory: bytes) -> None:
        parent, _slash, name = directory.rpartition(b"/")
        row = self.state.rows(parent).get(name)
        if row is not None:
            self.state.remove(row)
            self._differs = True

    def _visit(self, directory: bytes, row: t.Optional[Row], name: bytes, found: os.stat_result) -> t.Optional[Row]:
        """What is known of an entry afterwards; None for what is no part of a set. Raises OSError."""
        path = directory + b"/" + name if directory else name
        kind, link = _kind(found.st_mode), b""
        if not kind:
            self.sockets += 1
            return None
        if kind == "f":
            self.files += path != CANARY.encode()
            if found.st_nlink > 1:
                first = self._links.setdefault((found.st_dev, found.st_ino), path)
                if first != path:
                    kind, link = "h", first
        if row is not None and row.kind == kind and row.link == link and kind in "fdh":
            same = (row.mtime, row.ctime, row.inode) == (found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
            if same and (kind == "d" or row.size == found.st_size):
                return row
        if row is not None and row.kind == kind == "f" and row.pack is not None:
            # It may have the same content; it is read before it is packed.
            row = row._replace(pack=-abs(row.pack))
            self.state.put(row)
            return row
        full = os.path.join(self._root, path)
        if kind == "l":
            link = os.readlink(full)
        new = self._row(directory, name, kind, link, found, _xattrs(full))
        if row is None or row.shown != new.shown:
            self._differs = True
        if row is not None and (row.kind != kind or kind == "f"):
            self.state.remove(row)
        self.state.put(new)
        return new

    def _row(self, directory: bytes, name: bytes, kind: str, link: bytes, found: os.stat_result, xattrs: str) -> Row:
        return Row(
            dir=directory,
            name=name,
            kind=kind,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime=found.st_mtime_ns,
            size=found.st_size,
            ctime=found.st_ctime_ns if found.st_ctime_ns < self._begin - _STEP else -1,
            inode=found.st_ino,
            link=link,
            xattrs=xattrs,
            major=os.major(found.st_rdev) if kind in "bc" else 0,
            minor=os.minor(found.st_rdev) if kind in "bc" else 0,
            sha256="",
            pack=None,
            at=0,
        )

    def _pending(self) -> bool:
        """Whether a file is to be packed, as it is new or has another size.

        Another time alone is no reason for a new canary, which would be a change itself.
        """
        return self.state.db.execute("SELECT 1 FROM entries WHERE kind = 'f' AND pack IS NULL LIMIT 1").fetchone() is not None

    def _canary_stands(self) -> bool:
        nonce = self.state.get("canary")
        try:
            with open(os.path.join(self._root, CANARY.encode()), encoding="ascii", errors="replace") as file:
                return nonce is not None and file.read(100) == f"{nonce}\n"
        except OSError:
            return False

    def _write_canary(self) -> None:
        """Raises TreeError."""
        nonce, path = os.urandom(16).hex(), os.path.join(self._root, CANARY.encode())
        temporary = f"{CANARY}.new".encode()
        try:
            handle = os.open(os.path.join(self._root, temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(handle, "w", encoding="ascii") as file:
                file.write(f"{nonce}\n")
            os.rename(os.path.join(self._root, temporary), path)
            found = os.lstat(path)
        except OSError as error:
            raise TreeError(f"{self.tree.path}: the canary cannot be written: {error.strerror}") from error
        row = self.state.rows(b"").get(CANARY.encode())
        if row is not None:
            self.state.remove(row)
        self.state.put(self._row(b"", CANARY.encode(), "f", b"", found, _xattrs(path)))
        self.state.set("canary", nonce)
        self._visit(b"", self.state.rows(b"").get(b""), b"", os.stat(self._root))
        self._differs = True

    # --- what is packed

    def _settle(self) -> None:
        """Read what may have changed; what has not stays in its pack."""
        for row in self.state.batches("kind = 'f' AND pack < 0"):
            try:
                with self._opened(row) as file:
                    found = os.fstat(file.fileno())
                    new = self._row(row.dir, row.name, "f", b"", found, _xattrs(file.fileno()))
                    same = new.shown == row.shown and _sha256(file) == row.sha256
                    after = os.fstat(file.fileno())
            except OSError as error:
                self._lost(row, error)
                continue
            if same and (after.st_mtime_ns, after.st_ctime_ns) == (found.st_mtime_ns, found.st_ctime_ns):
                self.state.put(new._replace(sha256=row.sha256, pack=-t.cast(int, row.pack), at=row.at))
                continue
            self.state.leave(row)
            self.state.put(new)
            self._differs = True

    def _opened(self, row: Row) -> t.IO[bytes]:
        """Raises OSError."""
        handle = os.open(os.path.join(self._root, row.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise FileNotFoundError
        return open(handle, "rb", buffering=0)

    def _lost(self, row: Row, error: OSError) -> None:
        self.state.remove(row)
        self._differs = True
        if row.path in self._links.values():
            # Programs that write safely give a file its second name, and take the first one away.
            query = f"SELECT {_COLUMNS} FROM entries WHERE kind = 'h' AND link = ? ORDER BY dir, name"
            for number, other in enumerate([Row(*values) for values in self.state.db.execute(query, (row.path,))]):
                if not number:
                    heir = other._replace(kind="f", link=b"", pack=None)
                self.state.put(other._replace(link=heir.path) if number else heir)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            self.vanished += 1
        else:
            self.unreadable.append(f"{_shown(row.path)}: {error.strerror}")

    def _merge(self) -> None:
        """Choose the packs whose live files are packed anew: mostly dead ones, and small ones that new files would outnumber."""
        new = self.state.db.execute("SELECT coalesce(sum(size), 0), count(*) FROM entries WHERE kind = 'f' AND pack IS NULL").fetchone()
        size, any_new = int(new[0]), bool(new[1])
        kept = []
        for number, _name, _member, _files, total, live in self.state.packs():
            alive = self.state.db.execute("SELECT 1 FROM entries WHERE pack = ? LIMIT 1", (number,)).fetchone()
            if alive and 2 * live >= total:
                kept.append((number, live))
                continue
            self.state.drop_pack(number)
            size += live
            any_new = any_new or bool(alive)
            self._differs = True
        # Each pack is to be at least twice as large as the next one.
        while any_new and kept and kept[-1][1] < 2 * size:
            number, live = kept.pop()
            self.state.drop_pack(number)
            size += live
        while any_new and len(kept) >= MAX_PACKS:
            smallest = min(kept, key=lambda pack: pack[1])
            kept.remove(smallest)
            self.state.drop_pack(smallest[0])

    def _pack(self) -> None:
        if not self._pending():
            return
        self._differs = True
        number = int(self.state.get("packs") or 0) + 1
        self.state.set("packs", str(number))
        name = f"{number:06d}-{os.urandom(4).hex()}"
        packed = _Pack(self._open_member(f"tree-{file_name(self.tree.name)}-{name}.tar.zst.age"))
        try:
            live = files = 0
            # One that is lost may leave its content to a hard link that stands before it.
            while self._pending():
                for row in self.state.batches("kind = 'f' AND pack IS NULL"):
                    count = packed.count
                    try:
                        new = self._add(packed, row)
                    except OSError as error:
                        self._lost(row, error)
                        if packed.count > count:
                            self.state.db.execute("INSERT INTO dead VALUES (?, ?)", (number, row.path))
                        continue
                    self.state.put(new._replace(pack=number))
                    live, files = live + new.size, files + 1
            packed.end()
            member = self._close_member(packed.writer)
        except BaseException:
            packed.writer.abort()
            raise
        if files:
            values = (number, name, json.dumps(list(member)), files, packed.content, live)
            self.state.db.execute("INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", values)

    def _add(self, packed: _Pack, row: Row) -> Row:
        """Put a file into the pack. Raises OSError when it cannot be opened."""
        for last in (False, True):
            with self._opened(row) as file:
                found = os.fstat(file.fileno())
                new = self._row(row.dir, row.name, "f", b"", found, _xattrs(file.fileno()))
                sha256, whole = packed.add(new.entry(), file)
                after = os.fstat(file.fileno())
            # What comes later in a tar stream takes the place of what came before.
            new = new._replace(sha256=sha256, at=packed.count - 1)
            if whole and (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == (found.st_size, found.st_mtime_ns, found.st_ctime_ns):
                return new
            if last:
                self.changed.append(row.path)
        return new._replace(ctime=-1)

    # --- the index

    def _index(self) -> t.List[Member]:
        """The index and what is no file: the members of before when nothing differs."""
        known = [Member(*one) for one in json.loads(self.state.get("index") or "[]")]
        if known and not self._differs and all(member.sha256 in self._stored for member in known):
            return known
        number, prefix = os.urandom(4).hex(), f"tree-{file_name(self.tree.name)}"
        made = []
        for name, write in (("index", self._write_index), ("rest", self._write_rest)):
            packed = _Pack(self._open_member(f"{prefix}-{name}-{number}.tar.zst.age"))
            try:
                write(packed)
                packed.end()
                made.append(self._close_member(packed.writer))
            except BaseException:
                packed.writer.abort()
                raise
        self.state.set("index", json.dumps([list(member) for member in made]))
        return made

    def _write_index(self, packed: _Pack) -> None:
        names = {number: name for number, name, *_rest in self.state.packs()}
        part, lines, size = 0, [], 0
        for row in self.state.batches("1"):
            lines.append(index_line(row, names.get(row.pack or 0, "")))
            size += len(lines[-1])
            if size >= _INDEX_PART:
                packed.add_bytes(f"index/{part:06d}".encode(), [b"".join(lines)], size)
                part, lines, size = part + 1, [], 0
        packed.add_bytes(f"index/{part:06d}".encode(), [b"".join(lines)], size)
        for number, name in names.items():
            dead = self.state.db.execute("SELECT path FROM dead WHERE pack = ? ORDER BY path", (number,))
            size = self.state.db.execute("SELECT coalesce(sum(length(path) + 1), 0) FROM dead WHERE pack = ?", (number,)).fetchone()[0]
            packed.add_bytes(f"dead/{name}".encode(), (path + b"\0" for (path,) in dead), size)

    def _write_rest(self, packed: _Pack) -> None:
        # Directories come last and the deepest first: what is made in one of them afterwards would change its time.
        for row in self.state.batches("kind NOT IN ('f', 'd')"):
            packed.add(row.entry(), None)
        for values in self.state.db.execute(f"SELECT {_COLUMNS} FROM entries WHERE kind = 'd' ORDER BY dir DESC, name DESC"):
            packed.add(Row(*values).entry(), None)


class _Pack:
    """A tar stream into a member."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        # Entries, and bytes of content.
        self.count = self.content = 0
        self._waiting = bytearray()
        self._buffer = memoryview(bytearray(CHUNK))

    def _write(self, data: t.Union[bytes, memoryview]) -> None:
        if len(data) > _DIRECT:
            self._flush()
            self.writer.write(data)
            return
        self._waiting += data
        if len(self._waiting) > _DIRECT:
            self._flush()

    def _flush(self) -> None:
        data, self._waiting = self._waiting, bytearray()
        self.writer.write(data)

    def add(self, entry: tar.Entry, file: t.Optional[t.IO[bytes]]) -> t.Tuple[str, bool]:
        """The content's SHA-256, and whether it was as long as C(entry) says. What is missing is filled up. Raises PipeError."""
        self._write(tar.header(entry))
        digest, left = hashlib.sha256(), entry.size
        while left and file is not None:
            try:
                size = file.readinto(self._buffer[: min(left, CHUNK)])  # type: ignore[attr-defined]
            except OSError:
                # The entry has begun, so it must end.
                size = 0
            if not size:
                break
            data = self._buffer[:size]
            digest.update(data)
            self._write(data)
            left -= size
        whole = left == 0
        while left:
            zeros = bytes(min(left, CHUNK))
            digest.update(zeros)
            self._write(zeros)
            left -= len(zeros)
        self._write(tar.padding(entry.size))
        self.count += 1
        self.content += entry.size
        return digest.hexdigest(), whole

    def add_bytes(self, path: bytes, parts: t.Iterable[bytes], size: int) -> None:
        self._write(tar.header(tar.Entry(path, tar.FILE, 0o600, 0, 0, 0, size)))
        for part in parts:
            self._write(part)
        self._write(tar.padding(size))

    def end(self) -> None:
        self._write(tar.END)
        self._flush()


def index_line(row: Row, pack: str) -> bytes:
    """An entry as the index has it; a byte of a name that is no UTF-8 is written as Python's surrogateescape does."""
    line: t.Dict[str, t.Any] = {
        "path": row.path.decode("utf-8", "surrogateescape"),
        "kind": row.kind,
        "mode": row.mode,
        "uid": row.uid,
        "gid": row.gid,
        "mtime": row.mtime,
    }
    if row.kind == "f":
        line.update(size=row.size, sha256=row.sha256, pack=pack, at=row.at)
    if row.link:
        line["link"] = row.link.decode("utf-8", "surrogateescape")
    if row.xattrs:
        line["xattrs"] = json.loads(row.xattrs)
    if row.kind in "bc":
        line["device"] = [row.major, row.minor]
    return (json.dumps(line, separators=(",", ":")) + "\n").encode()


def _device(found: os.stat_result) -> int:
    return found.st_dev


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISREG, "f"), (stat.S_ISDIR, "d"), (stat.S_ISLNK, "l"), (stat.S_ISFIFO, "p"), (stat.S_ISCHR, "c"), (stat.S_ISBLK, "b"))
    return next((kind for test, kind in kinds if test(mode)), "")


def _xattrs(path: t.Union[int, bytes]) -> str:
    """Extended attributes, ACLs and capabilities among them, as JSON; empty for none."""
    follow = isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:
        return ""
    if not names:
        return ""
    return json.dumps([[name, os.getxattr(path, name, follow_symlinks=follow).hex()] for name in sorted(names)])


def _sha256(file: t.IO[bytes]) -> str:
    found = hashlib.sha256()
    for data in iter(lambda: file.read(CHUNK), b""):
        found.update(data)
    return found.hexdigest()


def _patterns(patterns: t.Sequence[str]) -> t.Optional[t.Pattern[str]]:
    return re.compile("|".join(fnmatch.translate(one) for one in patterns)) if patterns else None


def _matches(patterns: t.Optional[t.Pattern[str]], path: bytes) -> bool:
    return patterns is not None and patterns.match(os.fsdecode(path)) is not None


def _shown(path: bytes) -> str:
    return repr(path.decode("utf-8", "backslashreplace"))
