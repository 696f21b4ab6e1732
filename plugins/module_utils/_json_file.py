# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that is always whole: the old one or the new one, also after a power failure.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import json
import os
import tempfile
import typing as t


def write_json(path: str, value: t.Any, mode: int = 0o644) -> None:
    """Replace C(path), whose directory exists, by C(value) as JSON. What cannot be written leaves the old file and nothing else."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n", mode)


def write_text(path: str, text: str, mode: int = 0o644, check: t.Optional[t.Callable[[str], None]] = None) -> None:
    """As C(write_json), with a text. C(check) gets the path of the new file before it takes the old one's place, or raises."""
    directory = os.path.dirname(path) or "."
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        if check is not None:
            check(temporary)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    # The rename is in the directory.
    sync_directory(directory)


def sync_directory(path: str) -> None:
    """Bring the names in a directory to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
