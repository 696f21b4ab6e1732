# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in archives of the reference systems, as files in a new directory, once all of it was looked at.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _import_primero as primero
from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import ArchiveError, Budget, Entry
from ansible_collections.civitas.hosting.plugins.module_utils._import_set import Archive, Report, entries

# What stays free on the disk, beside a little for each file.
_RESERVE = 512 * 2**20
_PER_FILE = 8192
# What every file system can keep.
_LATEST = 2**32 - 1
DUMP = "primero.dump"


def extract(report: Report, passphrase: t.Optional[bytes], target: str) -> int:
    """Write what C(report) found good into the new directory C(target), and return how many files it holds.

    Of OpenCRVS all files, those of one store each below the name of the store where there are several archives. Of Primero the newest
    dump, and the attachments as its own store keeps them, so that the rows of the dump are right as they are.

    Files have the mode 0600 and the time of their last change. What cannot be had whole leaves nothing.

    Raises:
        ArchiveError: an archive is not good, has changed meanwhile, or there is too little room.
        OSError: it cannot be written.
    """
    if report.problems:
        raise ArchiveError(f"nothing was extracted: {'; '.join(report.problems)}")
    parent = os.path.dirname(os.path.abspath(target))
    disk = os.statvfs(parent)
    needed = report.bytes + _RESERVE + _PER_FILE * len(report.members)
    if disk.f_bavail * disk.f_frsize < needed:
        raise ArchiveError(f"{parent} has {disk.f_bavail * disk.f_frsize} bytes free, and {needed} are needed")
    try:
        os.mkdir(target, 0o700)
    except FileExistsError as error:
        raise ArchiveError(f"{target} is there already; archives are extracted to the side of what there is") from error
    try:
        writer = _Writer(os.fsencode(target), report)
        budget = Budget(needed)
        for number, archive in enumerate(report.archives):
            for entry, content in entries(archive, passphrase, budget):
                writer.take(number, archive, entry, content)
        writer.end()
    except BaseException:
        shutil.rmtree(target)
        raise
    os.sync()
    return writer.files


class _Writer:
    def __init__(self, target: bytes, report: Report) -> None:
        self._target, self._report = target, report
        self.files = 0
        self._several = bool(report.archives[0].store)
        # Of Primero: the places of each attachment that is used.
        self._places: t.Dict[t.Tuple[int, str], t.List[primero.Wanted]] = {}
        for wanted, file in report.match.found if report.match else []:
            self._places.setdefault((file.archive, file.path), []).append(wanted)
        self._last = len(report.archives) - 1

    def take(self, number: int, archive: Archive, entry: Entry, content: t.Iterator[bytes]) -> None:
        if archive.system == "primero":
            if entry.kind == "f":
                self._primero(number, entry, content)
            return
        path = os.path.join(archive.store.encode(), entry.path) if self._several else entry.path
        if entry.kind == "d":
            os.makedirs(os.path.join(self._target, path), 0o700, exist_ok=True)
        elif entry.kind == "h":
            link = os.path.join(archive.store.encode(), entry.link) if self._several else entry.link
            self._link(link, path)
        else:
            self._write(path, entry.mtime, content)

    def _primero(self, number: int, entry: Entry, content: t.Iterator[bytes]) -> None:
        name = entry.shown
        if (number, name) in self._report.dumps:
            if number == self._last:
                self._write(DUMP.encode(), entry.mtime, content)
            return
        wanted = self._places.pop((number, name[len(primero.FOLDER) + 1 :]), [])
        for first, one in enumerate(wanted):
            place = primero.place(one.key).encode()
            if first:
                self._link(primero.place(wanted[0].key).encode(), place)
            else:
                self._write(place, entry.mtime, content)

    def _write(self, path: bytes, mtime: int, content: t.Iterator[bytes]) -> None:
        full = self._parents(path)
        try:
            handle = os.open(full, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            raise ArchiveError(f"{os.fsdecode(path)!r} is in it twice") from error
        with open(handle, "wb") as file:
            for data in content:
                file.write(data)
        moment = min(max(0, mtime), _LATEST)
        os.utime(full, (moment, moment))
        self.files += 1

    def _link(self, link: bytes, path: bytes) -> None:
        try:
            os.link(os.path.join(self._target, link), self._parents(path), follow_symlinks=False)
        except FileExistsError as error:
            raise ArchiveError(f"{os.fsdecode(path)!r} is in it twice") from error
        except OSError as error:
            raise ArchiveError(f"the link {os.fsdecode(path)!r} leads to nothing that came before it") from error
        self.files += 1

    def _parents(self, path: bytes) -> bytes:
        full = os.path.join(self._target, path)
        try:
            os.makedirs(os.path.dirname(full), 0o700, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ArchiveError(f"a directory of {os.fsdecode(path)!r} is a file") from error
        return full

    def end(self) -> None:
        """Raises ArchiveError unless there is all that was found before."""
        if self._places:
            raise ArchiveError("an archive has changed since it was looked at")
