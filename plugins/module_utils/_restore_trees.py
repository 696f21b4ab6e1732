# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees in a restore: whether they may be replaced, and the swap, which can be gone on with or taken back from where it was cut off.

Private to the collection: no promise of stability. Standard library only.

Nothing is written down of how far a swap is: it is seen from what there is. A tree is swapped by two renames. One that is a file system
of its own keeps its root, and its entries are moved, first the old ones out of the way, then the new ones in::

    there is                         it is
    .civitas-restore-WHEN            not swapped
    .civitas-before-WHEN.part        on the way: entries in the root are old
    .civitas-before-WHEN, and both   on the way: entries in the root are new
    .civitas-before-WHEN alone       swapped
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _restore_names as names
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK
from ansible_collections.civitas.hosting.plugins.module_utils._backup_tree import CANARY
from ansible_collections.civitas.hosting.plugins.module_utils._backup_verify import Index
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import sync_directory
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import is_swap_file

# Of the file system, not of the data.
_LEFT = "lost+found"
_SAMPLE = 500


class TreeError(Exception):
    """A tree cannot be replaced; the text says why."""


class TreeMove(t.NamedTuple):
    """A tree that is replaced.

    Attributes:
        name: of the source.
        path: without links.
        when: the stamp of the restore.
        existed: it was there before.
        inside: it is a file system of its own.
    """

    name: str
    path: str
    when: str
    existed: bool
    inside: bool

    def at(self, word: str) -> str:
        return names.of_tree(self.path, word, self.when, self.inside)


def plan(name: str, path: str, when: str) -> TreeMove:
    """Raises TreeError, OSError."""
    real = os.path.realpath(path)
    if os.path.lexists(real) and not os.path.isdir(real):
        raise TreeError(f"{path} is no directory")
    parent = os.path.dirname(real)
    if not os.path.isdir(parent):
        raise TreeError(f"{parent} is not there; run the site playbook first")
    below = [point for point in _mount_points() if point.startswith(real + "/")]
    if below:
        raise TreeError(f"{below[0]} is mounted inside of {path}; declare it by itself, as a tree is replaced as a whole")
    return TreeMove(name, real, when, os.path.isdir(real), os.path.ismount(real))


def _mount_points() -> t.List[str]:
    with open("/proc/self/mountinfo", "rb") as file:
        return [os.fsdecode(re.sub(rb"\\(\d{3})", lambda match: bytes([int(match[1], 8)]), line.split()[4])) for line in file]


def holds_data(path: str) -> bool:
    """Whether a tree has anything in it that a restore would put aside. Raises OSError."""
    try:
        found = os.listdir(path)
    except FileNotFoundError:
        return False
    return any(
        name not in (CANARY, _LEFT)
        and not (names.is_tree(os.fsencode(name)) and _is_directory(os.path.join(path, name)))
        and not is_swap_file(os.fsencode(os.path.join(path, name)))
        for name in found
    )


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


# --- the swap


def forward(move: TreeMove) -> None:
    """The new tree is in its place, and the old one beside it. Raises TreeError, OSError."""
    _look(move)
    new, before = move.at(names.NEW), move.at(names.BEFORE)
    if not os.path.isdir(new):
        return
    if not move.inside:
        if os.path.isdir(move.path) and not os.path.isdir(before):
            os.rename(move.path, before)
        os.rename(new, move.path)
        sync_directory(os.path.dirname(move.path))
        return
    part = f"{before}.part"
    if not os.path.isdir(before):
        if not os.path.isdir(part):
            os.mkdir(part, 0o700)
            _dress(move.path, part)
        _move_all(move.path, part)
        os.rename(part, before)
        sync_directory(move.path)
    _move_all(new, move.path)
    _dress(new, move.path)
    os.rmdir(new)
    sync_directory(move.path)


def backward(move: TreeMove) -> None:
    """The old tree is in its place again, and the new one beside it. Raises TreeError, OSError."""
    _look(move)
    new, before = move.at(names.NEW), move.at(names.BEFORE)
    if not move.inside:
        swapped = os.path.isdir(before) or not move.existed
        if swapped and os.path.isdir(move.path) and not os.path.isdir(new):
            os.rename(move.path, new)
        if os.path.isdir(before):
            os.rename(before, move.path)
        sync_directory(os.path.dirname(move.path))
        return
    part = f"{before}.part"
    if os.path.isdir(before):
        if not os.path.isdir(new):
            os.mkdir(new, 0o700)
            _dress(move.path, new)
        _move_all(move.path, new)
        os.rename(before, part)
        sync_directory(move.path)
    if os.path.isdir(part):
        _move_all(part, move.path)
        _dress(part, move.path)
        os.rmdir(part)
        sync_directory(move.path)


def _look(move: TreeMove) -> None:
    """Raises TreeError when the disk of the tree is not there: where nothing is, nothing would be to be done."""
    before = move.at(names.BEFORE)
    asides = (move.at(names.NEW), before, f"{before}.part")
    if move.inside and not os.path.ismount(move.path) and not any(map(os.path.isdir, asides)):
        raise TreeError(f"{move.path} is not mounted; mount it")
    if move.existed and not any(map(os.path.isdir, (move.path, before))):
        raise TreeError(f"there is neither {move.path} nor what was put aside of it; mount the disk on which it lies")


def keep(move: TreeMove) -> None:
    """The new tree, which was taken back and may have been written into, stays beside the old one."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(move.at(names.NEW), move.at(names.UNDONE))


def drop(move: TreeMove, word: str) -> None:
    path = move.at(word)
    if _is_directory(path):
        shutil.rmtree(path)


def _move_all(source: str, target: str) -> None:
    for name in os.listdir(source):
        if names.is_tree(os.fsencode(name)) and _is_directory(os.path.join(source, name)):
            continue
        if name == _LEFT:
            # Each root has its own.
            if names.is_tree(os.fsencode(os.path.basename(source))):
                shutil.rmtree(os.path.join(source, name))
            continue
        if is_swap_file(os.fsencode(os.path.join(source, name))):
            # While it is in use it cannot be moved.
            continue
        os.rename(os.path.join(source, name), os.path.join(target, name))
    sync_directory(target)
    sync_directory(source)


def _dress(source: str, target: str) -> None:
    """Owner, mode, times and attributes of a directory."""
    found = os.stat(source)
    os.chown(target, found.st_uid, found.st_gid)
    shutil.copystat(source, target)


# --- whether it is what it should be


class Sample(t.NamedTuple):
    """Files of a tree and what they must be: path below it, size, SHA-256; C(entries) in all."""

    files: t.List[t.Tuple[bytes, int, str]]
    entries: int


def sample(index: Index, everything: bool) -> Sample:
    """Files of all places of the tree, some hundred of them unless C(everything) is asked for; the canary is always one."""
    found = [line for line in index.entries if line["kind"] == "f" and line["path"].split("/")[0] != _LEFT]
    step = 1 if everything else max(1, len(found) // _SAMPLE)
    chosen = [line for number, line in enumerate(found) if number % step == 0 or line["path"] == CANARY]
    files = [(line["path"].encode("utf-8", "surrogateescape"), int(line["size"]), str(line["sha256"])) for line in chosen]
    return Sample(files, sum(line["path"] != "." and line["path"].split("/")[0] != _LEFT for line in index.entries))


def check(path: str, wanted: Sample) -> t.List[str]:
    """What of the tree at C(path) is not what the set says; no names, as the report is for everybody. Raises OSError."""
    problems = []
    root = os.fsencode(path)
    wrong = 0
    for name, size, sha256 in wanted.files:
        try:
            handle = os.open(os.path.join(root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            wrong += 1
            continue
        digest = hashlib.sha256()
        with open(handle, "rb", buffering=0) as file:
            about = os.fstat(handle)
            for data in iter(lambda: file.read(CHUNK), b"") if stat.S_ISREG(about.st_mode) else ():
                digest.update(data)
        wrong += about.st_size != size or digest.hexdigest() != sha256
    if wrong:
        problems.append(f"{wrong} of {len(wanted.files)} files that were read are not what the set says")
    there = _count(root)
    if there != wanted.entries:
        problems.append(f"there are {there} files and directories, and the set says {wanted.entries}")
    return problems


def _count(root: bytes) -> int:
    found, waiting = 0, [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if (
                    (names.is_tree(entry.name) and entry.is_dir(follow_symlinks=False))
                    or (entry.name == _LEFT.encode() and entry.path == os.path.join(root, entry.name))
                    or is_swap_file(entry.path)
                ):
                    continue
                found += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return found
