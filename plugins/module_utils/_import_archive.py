# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives that others made, read as streams: decrypted by openssl(1), gunzipped, and taken apart as tar.

Private to the collection: no promise of stability. Standard library only.

Nobody has signed such an archive, so whatever is in it may want to do harm: nothing is written here, names that lead out of the tree, and
entries that are neither files, directories nor hard links inside it, are refused, and what may come out of it is bounded.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import typing as t
import zlib

CHUNK = 2**20
BLOCK = 512
# gzip does not pack tighter, but archives lie in archives.
ENTRIES = 20_000_000
_HEADER_BYTES = 2**20
_PASSPHRASE_BYTES = 1000
_SALTED = b"Salted__"
# What OpenSSL 1.1.1 and later take when only -pbkdf2 is given; written out, as defaults have changed before.
_CIPHER = ("-aes-256-cbc", "-salt", "-pbkdf2", "-md", "sha256", "-iter", "10000")


class ArchiveError(Exception):
    """An archive, or a member of one, cannot be used; the text says why."""


class WrongPassphraseError(ArchiveError):
    """What came out of the decryption is no archive."""


class Stream(t.Protocol):
    """What is read from."""

    def read(self, size: int) -> bytes:
        """At least one byte and at most C(size), or none at the end."""


class Budget:
    """What may come out of archives, those inside them included.

    Args:
        limit: bytes.
        entries: of tar.
    """

    def __init__(self, limit: int, entries: int = ENTRIES) -> None:
        self.limit = limit
        self.left, self.entries = limit, entries

    def spend(self, size: int) -> None:
        """Raises ArchiveError."""
        self.left -= size
        if self.left < 0:
            raise ArchiveError(f"more than {self.limit} bytes come out of it, which is more than is allowed")

    def count(self) -> None:
        """Raises ArchiveError."""
        self.entries -= 1
        if self.entries < 0:
            raise ArchiveError("it has more entries than are allowed")


class Entry(t.NamedTuple):
    """An entry of tar.

    Attributes:
        path: below the tree, without C(.) and C(..); empty for the tree itself.
        kind: C(f) file, C(d) directory, C(h) further hard link.
        link: the path that a hard link is another name of.
    """

    path: bytes
    kind: str
    size: int
    mtime: int
    link: bytes

    @property
    def shown(self) -> str:
        return self.path.decode("utf-8", "backslashreplace")


# --- decryption


@contextlib.contextmanager
def opened(path: str, passphrase: t.Optional[bytes]) -> t.Iterator[Stream]:
    """The gzip stream in a file, which C(openssl enc) has encrypted when there is a passphrase.

    At its end it is known that all of it was decrypted; not that nobody has changed it: CBC proves nothing.

    Raises:
        ArchiveError: it is no such file.
        OSError: it cannot be read.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "rb", buffering=0))
        size = os.fstat(file.fileno()).st_size
        begin = file.read(8)
        file.seek(0)
        if passphrase is None:
            stream: Stream = t.cast(Stream, file)
            if begin == _SALTED:
                raise ArchiveError("it is encrypted; give the file with the passphrase")
        else:
            if begin != _SALTED:
                raise ArchiveError("it is not encrypted by 'openssl enc -salt'")
            if size % 16 or size <= 16:
                raise ArchiveError(f"it is cut off: {size} bytes are no whole number of blocks")
            stream = stack.enter_context(_decrypted(file, passphrase))
        first = _Ahead(stream)
        if first.peek(2) != b"\x1f\x8b":
            if passphrase is None:
                raise ArchiveError("it is no file of gzip")
            raise WrongPassphraseError("the passphrase is wrong, or it was damaged or made in another way")
        yield first


@contextlib.contextmanager
def _decrypted(file: t.IO[bytes], passphrase: bytes) -> t.Iterator[Stream]:
    readable, writable = os.pipe()
    errors = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as openssl
    try:
        # A pipe takes it at once, and neither a command line nor an environment shows it.
        os.write(writable, passphrase + b"\n")
        os.close(writable)
        try:
            process = subprocess.Popen(
                ["openssl", "enc", "-d", *_CIPHER, "-pass", f"fd:{readable}"],
                stdin=file,
                stdout=subprocess.PIPE,
                stderr=errors,
                pass_fds=[readable],
                bufsize=0,
            )
        except OSError as error:
            raise ArchiveError(f"openssl: {error.strerror}; the package openssl is missing") from error
    finally:
        os.close(readable)
    try:
        yield _Checked(process, errors)
    finally:
        process.kill()
        process.wait()
        t.cast(t.IO[bytes], process.stdout).close()
        errors.close()


class _Checked:
    """What a program prints; its end is one only when the program ends well."""

    def __init__(self, process: subprocess.Popen[bytes], errors: t.IO[bytes]) -> None:
        self._process, self._errors = process, errors

    def read(self, size: int) -> bytes:
        data = t.cast(t.IO[bytes], self._process.stdout).read(size)
        if not data and self._process.wait() != 0:
            raise ArchiveError(f"its end cannot be decrypted, so it is damaged or cut off: {said(self._errors)}")
        return data


class _Ahead:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting = b""

    def peek(self, size: int) -> bytes:
        while len(self._waiting) < size:
            data = self._stream.read(CHUNK)
            if not data:
                break
            self._waiting += data
        return self._waiting[:size]

    def read(self, size: int) -> bytes:
        if self._waiting:
            data, self._waiting = self._waiting[:size], self._waiting[size:]
            return data
        return self._stream.read(size)


def said(errors: t.IO[bytes]) -> str:
    errors.seek(0)
    return " ".join(errors.read(4096).decode("utf-8", "replace").split())[:300] or "it said nothing"


def read_passphrase(path: str, stdin: t.IO[bytes]) -> bytes:
    """The passphrase in the first line of a file, or of C(stdin) for C(-).

    Raises:
        ArchiveError: it is none, or others can read it.
        OSError: it cannot be read.
    """
    if path == "-":
        text = stdin.readline(_PASSPHRASE_BYTES + 2)
    else:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ArchiveError(f"others can read {path}; run 'chmod 600 {path}'")
            text = file.readline(_PASSPHRASE_BYTES + 2)
    text = text.rstrip(b"\r\n")
    if not text or len(text) > _PASSPHRASE_BYTES or b"\0" in text:
        raise ArchiveError("the passphrase is empty, or no line of text")
    return text


# --- gzip


class Gunzip:
    """Unpacks gzip; its end is one only when the check sum and the length were right. Raises ArchiveError."""

    def __init__(self, stream: Stream, budget: Budget) -> None:
        self._stream, self._budget = stream, budget
        self._inflate = zlib.decompressobj(31)
        self._input = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        while not self._ended:
            if not self._input:
                self._input = self._stream.read(CHUNK)
            last = not self._input
            try:
                data = self._inflate.decompress(self._input, size)
            except zlib.error as error:
                raise ArchiveError(f"it is damaged: {error}") from error
            self._input = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self._next()
            elif last and not data:
                raise ArchiveError("it is cut off: its compressed content ends too early")
            if data:
                self._budget.spend(len(data))
                return data
        return b""

    def _next(self) -> None:
        """gzip files may follow each other, and zeros may follow them."""
        rest = self._inflate.unused_data or self._stream.read(CHUNK)
        while rest and not rest.strip(b"\0"):
            rest = self._stream.read(CHUNK)
        if not rest:
            self._ended = True
            return
        if not rest.startswith(b"\x1f"):
            raise ArchiveError("something follows the end of its compressed content")
        self._inflate, self._input = zlib.decompressobj(31), rest


class Parts:
    """A stream of what an iterator gives."""

    def __init__(self, parts: t.Iterator[bytes]) -> None:
        self._parts = parts
        self._waiting = b""

    def read(self, size: int) -> bytes:
        if not self._waiting:
            self._waiting = next((part for part in self._parts if part), b"")
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        return data


def exactly(stream: Stream, size: int) -> bytes:
    """C(size) bytes, or fewer at the end."""
    parts, left = [], size
    while left:
        data = stream.read(left)
        if not data:
            break
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


# --- tar


class Tar:
    """Takes a stream of tar apart (ustar, GNU and pax, as GNU tar and BusyBox make them)."""

    def __init__(self, stream: Stream, budget: Budget) -> None:
        self._stream, self._budget = stream, budget
        self._left = self._pad = 0

    def __iter__(self) -> t.Iterator[Entry]:
        """Each entry; its content is there until the next one is asked for. At the end it was whole. Raises ArchiveError."""
        records: t.Dict[bytes, bytes] = {}
        common: t.Dict[bytes, bytes] = {}
        while True:
            for _data in self.content():
                pass
            self._take(self._pad)
            self._pad = 0
            block = self._take(BLOCK)
            if not block.strip(b"\0"):
                self._end()
                return
            size, kind = _size(block), block[156:157]
            if kind in (b"x", b"g", b"L", b"K"):
                if size > _HEADER_BYTES:
                    raise ArchiveError("the name of an entry is longer than is allowed")
                data = self._take(size)
                self._take(-size % BLOCK)
                if kind in (b"L", b"K"):
                    records[b"path" if kind == b"L" else b"linkpath"] = data.partition(b"\0")[0]
                else:
                    (records if kind == b"x" else common).update(_records(data))
                continue
            entry = _entry(block, {**common, **records})
            records = {}
            self._budget.count()
            if entry.kind == "f":
                self._left, self._pad = entry.size, -entry.size % BLOCK
            yield entry

    def content(self) -> t.Iterator[bytes]:
        """The content of the entry, in parts. Raises ArchiveError."""
        while self._left:
            data = self._stream.read(min(self._left, CHUNK))
            if not data:
                raise ArchiveError("it is cut off: its last entry is not whole")
            self._left -= len(data)
            yield data

    def _take(self, size: int) -> bytes:
        data = exactly(self._stream, size)
        if len(data) < size:
            raise ArchiveError("it is cut off: the mark at its end is missing")
        return data

    def _end(self) -> None:
        if self._take(BLOCK).strip(b"\0"):
            raise ArchiveError("it is damaged: an entry follows half a mark of the end")
        for data in iter(lambda: self._stream.read(CHUNK), b""):
            if data.strip(b"\0"):
                raise ArchiveError("something follows its end")


def _number(field: bytes) -> int:
    """Raises ArchiveError."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise ArchiveError("it is damaged: a header cannot be read") from error


def _size(block: bytes) -> int:
    """The size in a header, whose check sum must be right. Raises ArchiveError."""
    if _number(block[148:156]) != sum(block[:148]) + sum(block[156:]) + 8 * 32:
        raise ArchiveError("it is damaged, or no archive of tar: the check sum of a header is wrong")
    return _number(block[124:136])


def _records(data: bytes) -> t.Dict[bytes, bytes]:
    found = {}
    while data:
        size = data.partition(b" ")[0]
        if not size.isdigit() or not len(size) + 3 <= int(size) <= len(data):
            raise ArchiveError("it is damaged: an extended header cannot be read")
        name, _equals, value = data[len(size) + 1 : int(size) - 1].partition(b"=")
        if name.startswith(b"GNU.sparse."):
            raise ArchiveError("it has a sparse file, which is not supported")
        found[name] = value
        data = data[int(size) :]
    return found


# Symbolic links that are harmless alone can lead out together, and no reference system has any in its archives.
_KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"5": "d", b"1": "h"}


def _entry(block: bytes, records: t.Mapping[bytes, bytes]) -> Entry:
    """Raises ArchiveError for what is to be neither read nor written."""
    path = records.get(b"path", b"") or block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and prefix and b"path" not in records:
        path = prefix + b"/" + path
    shown = path.decode("utf-8", "backslashreplace")[:200]
    kind = _KINDS.get(block[156:157], "")
    if not kind:
        raise ArchiveError(f"{shown!r} is a symbolic link, a device or of another kind that is not allowed")
    link = records.get(b"linkpath", b"") or block[157:257].partition(b"\0")[0]
    try:
        size = int(records[b"size"]) if b"size" in records else _number(block[124:136])
        mtime = int(float(records[b"mtime"])) if b"mtime" in records else _number(block[136:148])
    except (ValueError, OverflowError) as error:
        raise ArchiveError("it is damaged: an extended header cannot be read") from error
    if size < 0:
        raise ArchiveError("it is damaged: an extended header cannot be read")
    if kind == "f" and path.endswith(b"/"):
        kind = "d"
    if kind == "h":
        link = inside(link, f"the link {shown!r}")
    return Entry(inside(path, repr(shown)), kind, size if kind == "f" else 0, mtime, link)


def inside(path: bytes, what: str) -> bytes:
    """A path without C(.) and empty parts. Raises ArchiveError for one that leads out."""
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if path.startswith(b"/") or b".." in parts or b"\0" in path:
        raise ArchiveError(f"{what} leads out of the archive")
    return b"/".join(parts)
