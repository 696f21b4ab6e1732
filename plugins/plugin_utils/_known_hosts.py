# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of known hosts on the controller, changed by what keys stand in them and not by names, which may be hashed.

Private to the collection: no promise of stability. Runs on the controller only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import typing as t


def holds(path: str, keys: t.Iterable[str]) -> bool:
    """Whether C(path) has a line with one of C(keys), each C(type base64)."""
    wanted = set(keys)
    return any(_key(line) in wanted for line in _lines(path))


def add_beside(path: str, old: t.Sequence[str], new: t.Sequence[str], write: bool = True) -> bool:
    """Give every line with an old key a line for the same names with the new key of its kind. Returns whether that changes the file."""
    kinds = {key.split()[0]: key for key in new}

    def change(lines: t.List[str]) -> t.List[str]:
        there = set(map(_entry, lines))
        result = []
        for line in lines:
            result.append(line)
            key = _key(line)
            if key in old and key.split()[0] in kinds:
                added = f"{line.split()[0]} {kinds[key.split()[0]]}"
                if _entry(added) not in there:
                    there.add(_entry(added))
                    result.append(added)
        return result

    return _change(path, change, write)


def remove(path: str, keys: t.Sequence[str], write: bool = True) -> bool:
    """Remove every line with one of C(keys). Returns whether that changes the file."""
    return _change(path, lambda lines: [line for line in lines if _key(line) not in keys], write)


def _key(line: str) -> str:
    """C(type base64) of a line; empty for a comment and for what names authorities and revoked keys."""
    words = line.split()
    return " ".join(words[1:3]) if len(words) > 2 and not line.startswith(("#", "@")) else ""


def _entry(line: str) -> t.Tuple[str, ...]:
    return tuple(line.split()[:3])


def _lines(path: str) -> t.List[str]:
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().splitlines()
    except FileNotFoundError:
        return []


def _change(path: str, function: t.Callable[[t.List[str]], t.List[str]], write: bool) -> bool:
    # The file behind a link, which many have in a repository of their own.
    real = os.path.realpath(os.path.expanduser(path))
    if not os.path.exists(real):
        return False
    with _lock(os.path.dirname(real)):
        before = _lines(real)
        after = function(list(before))
        if before == after:
            return False
        if write:
            _replace(real, after)
        return True


@contextlib.contextmanager
def _lock(directory: str) -> t.Iterator[None]:
    """Several hosts at once are several processes that change one file."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace(path: str, lines: t.Sequence[str]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".known_hosts.", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write("".join(f"{line}\n" for line in lines))
            stream.flush()
            os.fchmod(stream.fileno(), os.stat(path).st_mode & 0o777)
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
