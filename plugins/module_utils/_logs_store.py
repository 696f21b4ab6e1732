# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A directory of lines, one file a day, named by date: written once, never renamed, compressed when it is over, removed when it is old.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import re
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._logs_lines import LONGEST_LINE, LineError, parse

DAY = 86400
_NAME = re.compile(r"(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?")


class Store:
    """One directory, which exists, and its only writer.

    Attributes:
        last: the newest line; nothing before the first.
    """

    def __init__(self, directory: str, mode: int = 0o640) -> None:
        self._directory = directory
        self._mode = mode
        self._handle = -1
        self._day = ""
        self.last: t.Dict[str, t.Any] = {}
        self.size = 0
        for day, path in reversed(files(directory)):
            # A power failure may have left half a line, or none at all.
            if not path.endswith(".gz"):
                _cut(path)
            self.last = _last(path)
            self._day = self._day or day
            if self.last:
                break

    def append(self, lines: t.Sequence[bytes], last: t.Mapping[str, t.Any], now: float) -> None:
        """Add lines, all or none, safe on disk when it returns; C(last) is the last of them. Raises OSError, the file is then as it was."""
        # A clock that was set back does not reopen a day that is over.
        day = max(self._day, date(now))
        if self._handle < 0 or day != self._day:
            self._open(day)
        data = b"".join(lines)
        try:
            if os.write(self._handle, data) != len(data):
                raise OSError(28, os.strerror(28), self._directory)
            os.fsync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self.size)
            raise
        self.size += len(data)
        self.last = dict(last)

    def _open(self, day: str) -> None:
        self.close()
        path = os.path.join(self._directory, f"{day}.jsonl")
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, self._mode)
        self._day, self.size = day, os.fstat(self._handle).st_size
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def written_today(self, now: float) -> int:
        """Bytes of the file of today."""
        if self._handle < 0 and self._day >= date(now):
            self._open(self._day)
        return self.size if self._day >= date(now) else 0

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def date(now: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(now))


def files(directory: str) -> t.List[t.Tuple[str, str]]:
    """Day and path of each file, by day. Compressed and not: what was compressed last is whole once the other one is gone."""
    found: t.Dict[str, str] = {}
    for name in sorted(os.listdir(directory), reverse=True):
        match = _NAME.fullmatch(name)
        if match:
            found[match[1]] = os.path.join(directory, name)
    return sorted(found.items())


def reading(path: str) -> t.IO[bytes]:
    """Open one for reading."""
    if path.endswith(".gz"):
        # Only who reads old files needs it.
        import gzip

        return t.cast(t.IO[bytes], gzip.open(path, "rb"))
    return open(path, "rb")


def _cut(path: str) -> None:
    """Take away what stands behind the last end of a line."""
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        begin = max(0, size - 2 * LONGEST_LINE)
        file.seek(begin)
        whole = begin + file.read().rfind(b"\n") + 1
        if whole < size:
            file.truncate(whole)
            os.fsync(file.fileno())


def _last(path: str) -> t.Dict[str, t.Any]:
    """The last line with a series and a number; nothing when there is none."""
    ends: t.List[bytes] = []
    with reading(path) as file:
        if not path.endswith(".gz"):
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2 * LONGEST_LINE))
        for data in file:
            ends = [*ends[-1:], data]
    for data in reversed(ends):
        try:
            return parse(data)
        except LineError:
            continue
    return {}


class Tail:
    """Lines of one series behind a number, as they come."""

    def __init__(self, directory: str, series: str, number: int) -> None:
        self._directory = directory
        self._series = series
        self._number = number
        self._file: t.Optional[t.IO[bytes]] = None
        self._rest = b""
        found = files(directory)
        self._day = found[0][0] if found else ""
        for day, path in reversed(found):
            with reading(path) as file:
                first = file.readline()
            try:
                line = parse(first)
            except LineError:
                continue
            if line["series"] == series and line["n"] <= number + 1:
                self._day = day
                break

    def batch(self, most: int) -> t.Tuple[t.List[bytes], int]:
        """Lines that are there and were not read yet, about C(most) bytes of them, and the number of the last one."""
        lines: t.List[bytes] = []
        size = 0
        while size < most:
            data = self._readline()
            if not data:
                break
            try:
                line = parse(data)
            except LineError:
                continue
            if line["series"] == self._series and line["n"] > self._number:
                self._number = line["n"]
                lines.append(data)
                size += len(data)
        return lines, self._number

    def _readline(self) -> bytes:
        while True:
            if self._file is None:
                self._open(self._day)
            if self._file is not None and not self._rest.endswith(b"\n"):
                self._rest += self._file.readline()
            if self._rest.endswith(b"\n"):
                whole, self._rest = self._rest, b""
                return whole
            following = [day for day, _path in files(self._directory) if day > self._day]
            if not following:
                return b""
            # Once the next day is there, nothing comes to this one; until then something may have.
            if self._file is not None:
                self._rest += self._file.readline()
                if self._rest.endswith(b"\n"):
                    continue
            self.close()
            self._day = following[0]

    def _open(self, day: str) -> None:
        path = dict(files(self._directory)).get(day)
        self._file = reading(path) if path else None

    def close(self) -> None:
        self._rest = b""
        if self._file is not None:
            self._file.close()
            self._file = None


def tidy(directory: str, keep_days: int, now: float) -> None:
    """Compress the days before yesterday, remove those before the last C(keep_days).

    As many days are kept whatever the clock says: one that is wrong by a year would else remove everything.
    """
    found = files(directory)
    for day, path in found:
        if day >= date(now - DAY) or path.endswith(".gz"):
            continue
        _compress(path)
    for day, path in found[: -keep_days - 1]:
        if day < date(now - keep_days * DAY):
            for each in (path, path if path.endswith(".gz") else f"{path}.gz"):
                if os.path.exists(each):
                    os.unlink(each)


def _compress(path: str) -> None:
    import gzip
    import shutil

    temporary = f"{path}.tmp"
    before = os.stat(path)
    with open(path, "rb") as source, open(temporary, "wb") as raw:
        os.fchmod(raw.fileno(), before.st_mode & 0o777)
        with gzip.GzipFile("", "wb", 6, raw, before.st_mtime) as target:
            shutil.copyfileobj(source, target)
        raw.flush()
        os.fsync(raw.fileno())
    os.utime(temporary, (before.st_atime, before.st_mtime))
    os.rename(temporary, f"{path}.gz")
    os.unlink(path)
