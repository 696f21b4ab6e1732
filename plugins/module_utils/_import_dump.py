# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of databases in archives that others made: whether they are whole, and what is in them. No server is needed.

Private to the collection: no promise of stability. Standard library only.

C(pg_restore --list) reads the beginning of a dump only, so a dump is read to its end here, as SQL, and the rows of each table are counted.
"""

from __future__ import annotations

import contextlib
import glob
import re
import shutil
import subprocess
import tempfile
import threading
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import CHUNK, ArchiveError, Stream, exactly, said

Table = t.Tuple[str, str]
Row = t.Dict[str, t.Optional[str]]
_NAME = rb'(?:"(?:[^"]|"")*"|[^\s".(]+)'
_COPY = re.compile(rb"COPY (" + _NAME + rb")\.(" + _NAME + rb") +(?:\((.*)\) )?FROM stdin;\n")
_FROM = re.compile(rb"-- Dumped from database version (\d+)[^\n]*\n")
_ENCODING = re.compile(rb"SET client_encoding = '([A-Za-z0-9_]+)';\n")
# A row that is longer is counted, and its values are not looked at.
_LINE = 2**20
_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_MONGO_MAGIC = b"\x6d\xe2\x99\x81"
_TERMINATOR = b"\xff\xff\xff\xff"
_DOCUMENT_BYTES = 64 * 2**20


class Dump(t.NamedTuple):
    """A dump of PostgreSQL that was read to its end.

    Attributes:
        major: version of the server that it is of.
        rows: for each table that it has data of.
        kept: the rows of the tables that were asked for, with all values as texts.
        sql_bytes: size of its data as SQL.
    """

    major: int
    encoding: str
    rows: t.Dict[Table, int]
    kept: t.Dict[str, t.List[Row]]
    sql_bytes: int


# --- PostgreSQL


def find_pg_restore() -> str:
    """The newest one, which reads dumps of all versions up to its own. Raises ArchiveError."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_restore"), key=lambda path: int(path.split("/")[4]))
    program = found[-1] if found else shutil.which("pg_restore")
    if not program:
        raise ArchiveError("pg_restore is missing, so nobody knows whether the dump is whole; install postgresql-client")
    return program


def read_dump(stream: Stream, keep: t.Container[str] = ()) -> Dump:
    """Read a dump of C(pg_dump -F c) to its end.

    Args:
        keep: names of tables whose rows are wanted.

    Raises:
        ArchiveError: it is not whole, or no such dump.
    """
    begin = exactly(stream, 5)
    if begin != b"PGDMP":
        raise ArchiveError("it is no dump of 'pg_dump -F c'" if begin else "it is empty")
    with tempfile.TemporaryFile() as errors:
        command = [find_pg_restore(), "--data-only", "--file=-"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd="/", bufsize=0)
        script = _Script(t.cast(t.IO[bytes], process.stdout), keep)
        reader = threading.Thread(target=script.read, daemon=True)
        reader.start()
        stdin = t.cast(t.IO[bytes], process.stdin)
        try:
            # What is not read any more is no fault here: its status says what is.
            with contextlib.suppress(BrokenPipeError):
                data = begin
                while data:
                    view = memoryview(data)
                    while view:
                        view = view[stdin.write(view) :]
                    data = stream.read(CHUNK)
            with contextlib.suppress(OSError):
                stdin.close()
            status = process.wait()
            reader.join()
        finally:
            process.kill()
            process.wait()
            reader.join()
            t.cast(t.IO[bytes], process.stdout).close()
        if status != 0:
            text = said(errors)
            hint = "; install the postgresql-client of the version that made it" if "unsupported version" in text else ""
            raise ArchiveError(f"the dump is damaged, cut off or too new: pg_restore: {text}{hint}")
    if not script.major:
        raise ArchiveError("the dump does not say of which version its server was")
    return Dump(script.major, script.encoding, script.rows, script.kept, script.bytes)


class _Script:
    """Counts what pg_restore prints."""

    def __init__(self, stream: t.IO[bytes], keep: t.Container[str]) -> None:
        self._stream, self._keep = stream, keep
        self.major, self.encoding, self.bytes = 0, "UTF8", 0
        self.rows: t.Dict[Table, int] = {}
        self.kept: t.Dict[str, t.List[Row]] = {}

    def read(self) -> None:
        with open(self._stream.fileno(), "rb", buffering=CHUNK, closefd=False) as file:
            for line in iter(lambda: file.readline(_LINE), b""):
                self.bytes += len(line)
                found = _COPY.fullmatch(line)
                if found:
                    self._table(file, (_unquoted(found[1]), _unquoted(found[2])), found[3] or b"")
                    continue
                for pattern, name in ((_FROM, "major"), (_ENCODING, "encoding")):
                    value = pattern.fullmatch(line)
                    if value:
                        setattr(self, name, int(value[1]) if name == "major" else value[1].decode())

    def _table(self, file: t.IO[bytes], table: Table, columns: bytes) -> None:
        count, begins = self.rows.get(table, 0), True
        names = [_unquoted(name.strip()) for name in columns.split(b",")] if table[1] in self._keep else []
        for line in iter(lambda: file.readline(_LINE), b""):
            self.bytes += len(line)
            if begins and line == b"\\.\n":
                break
            ends = line.endswith(b"\n")
            if names and begins and ends:
                self.kept.setdefault(table[1], []).append(dict(zip(names, map(_value, line[:-1].split(b"\t")))))
            count += ends
            begins = ends
        self.rows[table] = count


def _unquoted(name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


def _value(field: bytes) -> t.Optional[str]:
    if field == b"\\N":
        return None
    return re.sub(rb"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), field).decode("utf-8", "surrogateescape")


# --- MongoDB


def read_mongo(stream: Stream) -> t.Dict[str, int]:
    """How many documents each collection has in an archive of C(mongodump --archive), read to its end.

    Each collection that is announced at its beginning must be said to be complete later; the check sum is gzip's.

    Raises:
        ArchiveError: it is not whole, or no such archive.
    """
    if exactly(stream, 4) != _MONGO_MAGIC:
        raise ArchiveError("it is no archive of 'mongodump --archive'")
    _document(stream)
    announced = set()
    while True:
        about = _document(stream)
        if about is None:
            break
        view = about.get("type") == "view" or '"viewOn"' in str(about.get("metadata", ""))
        if not view:
            announced.add(_namespace(about))
    count = dict.fromkeys(announced, 0)
    complete = set()
    while True:
        header = _document(stream, may_end=True)
        if header is None:
            break
        name = _namespace(header)
        if header.get("EOF"):
            complete.add(name)
        documents = 0
        while _skip(stream):
            documents += 1
        count[name] = count.get(name, 0) + documents
    missing = announced - complete
    if missing:
        raise ArchiveError(f"it is cut off: the collections {', '.join(sorted(missing))} are not complete")
    return count


def _namespace(document: t.Mapping[str, t.Any]) -> str:
    try:
        return f"{document['db']}.{document['collection']}"
    except KeyError as error:
        raise ArchiveError("it is damaged: a header of a collection cannot be read") from error


def _length(stream: Stream, may_end: bool) -> int:
    """Bytes of the document that follows, behind its length; 0 for the mark of an end, or for the end itself where it C(may_end)."""
    data = exactly(stream, 4)
    if data == _TERMINATOR and may_end:
        raise ArchiveError("it is damaged: two marks of an end follow each other")
    if data == _TERMINATOR or (not data and may_end):
        return 0
    size = int.from_bytes(data, "little")
    if len(data) < 4 or not 5 <= size <= _DOCUMENT_BYTES:
        raise ArchiveError("it is damaged or cut off: the length of a document is wrong")
    return size - 4


def _skip(stream: Stream) -> bool:
    left = size = _length(stream, False)
    while left:
        data = stream.read(left)
        if not data:
            raise ArchiveError("it is cut off: a document is not whole")
        left -= len(data)
    return bool(size)


def _document(stream: Stream, may_end: bool = False) -> t.Optional[t.Dict[str, t.Any]]:
    """A document of BSON with texts, numbers and truth values; None for the mark of an end."""
    size = _length(stream, may_end)
    if not size:
        return None
    data = exactly(stream, size)
    if len(data) < size:
        raise ArchiveError("it is cut off: a document is not whole")
    found: t.Dict[str, t.Any] = {}
    at = 0
    try:
        while data[at]:
            end = data.index(b"\0", at + 1)
            kind, name, at = data[at], data[at + 1 : end].decode(), end + 1
            if kind == 0x02:
                length = int.from_bytes(data[at : at + 4], "little")
                found[name] = data[at + 4 : at + 3 + length].decode("utf-8", "replace")
                at += 4 + length
            elif kind in (0x10, 0x12, 0x01):
                width = 4 if kind == 0x10 else 8
                found[name] = int.from_bytes(data[at : at + width], "little", signed=True)
                at += width
            elif kind == 0x08:
                found[name] = bool(data[at])
                at += 1
            elif kind != 0x0A:
                raise ValueError
    except (ValueError, IndexError) as error:
        raise ArchiveError("it is damaged: a header of a collection cannot be read") from error
    return found
