# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of what a restore puts beside the data, and of what it keeps. Backups leave all of it out.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import time

# What comes out of a set; what was there before a restore; what a restore had brought that was undone.
NEW, BEFORE, UNDONE = "restore", "before", "undone"
_DATABASE = re.compile(r"civitas_(restore|before|undone)_\d{14}_.+", re.S)
_TREE = re.compile(rb".*\.civitas-(restore|before|undone)-\d{14}(\.part)?", re.S)
# Bytes of a name in PostgreSQL.
_LONGEST = 63


def stamp(now: float) -> str:
    """What all names of one restore have in common."""
    return time.strftime("%Y%m%d%H%M%S", time.gmtime(now))


def of_database(name: str, word: str, when: str) -> str:
    prefix = f"civitas_{word}_{when}_"
    if len((prefix + name).encode()) <= _LONGEST:
        return prefix + name
    return prefix + hashlib.sha256(name.encode()).hexdigest()[:24]


def of_tree(path: str, word: str, when: str, inside: bool) -> str:
    """Beside the tree, or in it where it is a file system of its own."""
    name = f".civitas-{word}-{when}"
    return os.path.join(path, name) if inside else path + name


def is_database(name: str) -> bool:
    return bool(_DATABASE.fullmatch(name))


def is_tree(name: bytes) -> bool:
    """Whether an entry of a directory is of a restore."""
    return bool(_TREE.fullmatch(name))
