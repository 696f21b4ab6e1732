# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar streams as tar(1) reads them (pax), with names as bytes and times in nanoseconds.

Private to the collection: no promise of stability. Standard library only.

Python's tarfile keeps each entry in memory and times as floating point numbers; a tree of a million files would not fit.
"""

from __future__ import annotations

import typing as t

BLOCK = 512
END = b"\0" * (2 * BLOCK)
FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_XATTR = b"SCHILY.xattr."
# Larger numbers do not fit into the old header.
_UID_MAX = 0o7777777
_SIZE_MAX = 0o77777777777


class TarError(Exception):
    """What was read is no tar stream as this program writes it."""


class Entry(t.NamedTuple):
    """What tar keeps of a file beside its content; the time of its last change is in nanoseconds."""

    path: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    link: bytes = b""
    xattrs: t.Tuple[t.Tuple[bytes, bytes], ...] = ()
    device: t.Tuple[int, int] = (0, 0)


def header(entry: Entry) -> bytes:
    """What stands before the content of C(entry.size) bytes, which C(padding) follows."""
    records = {b"mtime": b"%d.%09d" % divmod(entry.mtime, 10**9)} if entry.mtime >= 0 else {}
    if len(entry.path) > 100:
        records[b"path"] = entry.path
    if len(entry.link) > 100:
        records[b"linkpath"] = entry.link
    for name, number, most in ((b"uid", entry.uid, _UID_MAX), (b"gid", entry.gid, _UID_MAX), (b"size", entry.size, _SIZE_MAX)):
        if number > most:
            records[name] = b"%d" % number
    records.update({_XATTR + name: value for name, value in entry.xattrs})
    extended = b"".join(_record(name, value) for name, value in records.items())
    if not extended:
        return _ustar(entry)
    before = _ustar(entry._replace(path=b"extended", kind=b"x", mode=0o600, size=len(extended), link=b""))
    return before + extended + padding(len(extended)) + _ustar(entry)


def padding(size: int) -> bytes:
    return b"\0" * (-size % BLOCK)


def _record(name: bytes, value: bytes) -> bytes:
    rest = len(name) + len(value) + 3
    size = rest + len(str(rest))
    if len(str(size)) != len(str(rest)):
        size += 1
    return b"%d %s=%s\n" % (size, name, value)


def _ustar(entry: Entry) -> bytes:
    data = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0%8b%b%b%b%64b%07o\0%07o\0" % (
        entry.path[:100].ljust(100, b"\0"),
        entry.mode,
        entry.uid if entry.uid <= _UID_MAX else 0,
        entry.gid if entry.gid <= _UID_MAX else 0,
        entry.size if entry.size <= _SIZE_MAX else 0,
        min(max(0, entry.mtime) // 10**9, _SIZE_MAX),
        b"",
        entry.kind,
        entry.link[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        b"\0" * 64,
        *entry.device,
    )
    # The sum counts its own place as blanks.
    return b"%b%06o\0 %b%b" % (data[:148], sum(data), data[156:], b"\0" * (BLOCK - len(data)))


class Stream(t.Protocol):
    """What C(entries) reads from."""

    def read(self, size: int) -> bytes: ...


class TarReader:
    """Reads a stream entry by entry."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0
        self._pad = 0

    def __iter__(self) -> t.Iterator[Entry]:
        """Each entry; its content is there until the next one is asked for. Raises TarError."""
        records: t.Dict[bytes, bytes] = {}
        while True:
            for _data in self.content():
                pass
            self._exactly(self._pad)
            self._pad = 0
            block = self._exactly(BLOCK)
            if block == END[:BLOCK]:
                if self._exactly(BLOCK) != END[BLOCK:] or self._stream.read(1):
                    raise TarError("something follows the end")
                return
            entry = _parse(block, records)
            if entry.kind == b"x":
                if entry.size > 2**20:
                    raise TarError("a header is too large")
                records = _records(self._exactly(entry.size))
                self._exactly(-entry.size % BLOCK)
                continue
            records = {}
            self._left, self._pad = entry.size, -entry.size % BLOCK
            yield entry

    def content(self) -> t.Iterator[bytes]:
        """The content of the entry, in parts. Raises TarError."""
        while self._left:
            data = self._stream.read(min(self._left, 2**20))
            if not data:
                raise TarError("it ends too early")
            self._left -= len(data)
            yield data

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._stream.read(size - len(data))
            if not more:
                raise TarError("it ends too early")
            data += more
        return data


def _parse(block: bytes, records: t.Mapping[bytes, bytes]) -> Entry:
    try:
        if int(block[148:154], 8) != sum(block[:148]) + sum(block[156:]) + 8 * 32:
            raise TarError("the checksum of a header is wrong")
        mode, uid, gid, size, mtime = (int(block[a:b], 8) for a, b in ((100, 107), (108, 115), (116, 123), (124, 135), (136, 147)))
        seconds, _point, rest = records[b"mtime"].partition(b".") if b"mtime" in records else (b"%d" % mtime, b"", b"")
        return Entry(
            path=records.get(b"path") or block[:100].rstrip(b"\0"),
            kind=block[156:157],
            mode=mode,
            uid=int(records.get(b"uid", uid)),
            gid=int(records.get(b"gid", gid)),
            mtime=int(seconds) * 10**9 + int(rest.ljust(9, b"0")[:9]),
            size=int(records.get(b"size", size)),
            link=records.get(b"linkpath") or block[157:257].rstrip(b"\0"),
            xattrs=tuple((name[len(_XATTR) :], value) for name, value in records.items() if name.startswith(_XATTR)),
            device=(int(block[329:336], 8), int(block[337:344], 8)),
        )
    except ValueError as error:
        raise TarError(f"a header cannot be read: {error}") from error


def _records(data: bytes) -> t.Dict[bytes, bytes]:
    found = {}
    while data:
        size = data.partition(b" ")[0]
        if not size.isdigit() or not len(size) + 3 <= int(size) <= len(data):
            raise TarError("an extended header cannot be read")
        name, _equals, value = data[len(size) + 1 : int(size) - 1].partition(b"=")
        found[name] = value
        data = data[int(size) :]
    return found
