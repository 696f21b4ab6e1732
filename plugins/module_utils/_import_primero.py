# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attachments in Primero's archives: which file is whose, and which are missing.

Private to the collection: no promise of stability. Standard library only.

An archive has a whole database, and only those attachments that were made since the archive before it. Two of one name at one record lie
at one place, so that one of them is lost. The rows of the database say how long each file is, and its MD5, so all of this is known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._import_dump import Row

TABLES = frozenset(("active_storage_attachments", "active_storage_blobs", "attachments"))
FOLDER = "backup-attachments"
# These hang at their record themselves, the others at a row of the table attachments.
_DIRECT = ("Agency", "BulkExport")
# What Rails takes out of names; since 7.1 more than before.
_UNSAFE = ("\u202e%$|:;/\t\r\n\\", '\u202e%$|:;/<>?*"\t\r\n\\')
_KEY = re.compile(r"[A-Za-z0-9._-]{4,200}")


class File(t.NamedTuple):
    """A file in an archive: its number among the archives, its path below the folder of attachments, bytes, and MD5 in hexadecimal."""

    archive: int
    path: str
    size: int
    md5: str


class Wanted(t.NamedTuple):
    """A file that the database refers to.

    Attributes:
        blob: its number in C(active_storage_blobs).
        key: under which Primero's own store keeps it.
        paths: where it may lie in an archive.
        owner: the kind and number of its record, for people.
    """

    blob: str
    key: str
    size: int
    md5: str
    paths: t.Tuple[str, ...]
    owner: str


class Match(t.NamedTuple):
    """What came of comparing.

    Attributes:
        found: for each file of the database that is there, where.
        missing: those that are in no archive.
        replaced: those at whose place there is another file.
        unused: how many files nothing refers to any more.
    """

    found: t.List[t.Tuple[Wanted, File]]
    missing: t.List[Wanted]
    replaced: t.List[Wanted]
    unused: int


def wanted(rows: t.Mapping[str, t.List[Row]]) -> t.Tuple[t.List[Wanted], int]:
    """The files that the database refers to, and how many rows belong to nothing. Raises ValueError for rows that no Primero has."""
    try:
        blobs = {row["id"]: row for row in rows.get("active_storage_blobs", [])}
        attachments = {row["id"]: row for row in rows.get("attachments", [])}
        found, orphans = [], 0
        for row in rows.get("active_storage_attachments", []):
            blob = blobs.get(row["blob_id"])
            owner: t.Optional[Row] = row if row["record_type"] in _DIRECT else None
            if row["record_type"] == "Attachment":
                owner = attachments.get(row["record_id"])
            if blob is None or owner is None:
                orphans += 1
                continue
            key = str(blob["key"])
            if not _KEY.fullmatch(key) or ".." in key:
                raise ValueError(f"the key of the blob {blob['id']} is no key")
            folder = f"{owner['record_type']}/{owner['record_id']}"
            names = dict.fromkeys(_safe(str(blob["filename"]), unsafe) for unsafe in _UNSAFE)
            md5 = binascii.hexlify(base64.b64decode(str(blob["checksum"]), validate=True)).decode()
            found.append(
                Wanted(str(blob["id"]), key, int(str(blob["byte_size"])), md5, tuple(f"{folder}/{name}" for name in names), folder)
            )
        return found, orphans
    except (KeyError, binascii.Error) as error:
        raise ValueError(f"the tables of attachments are not as Primero has them: {error}") from error


def _safe(name: str, unsafe: str) -> str:
    return name.strip().translate({ord(one): "-" for one in unsafe})


def match(needed: t.Sequence[Wanted], files: t.Sequence[File]) -> Match:
    """Find the file of each row, by its content; of several the newest."""
    places: t.Dict[str, t.List[File]] = {}
    for file in files:
        places.setdefault(file.path, []).append(file)
    found, missing, replaced = [], [], []
    used: t.Set[t.Tuple[int, str]] = set()
    for one in needed:
        there = [file for path in one.paths for file in places.get(path, [])]
        same = [file for file in there if (file.size, file.md5) == (one.size, one.md5)]
        if same:
            best = max(same, key=lambda file: file.archive)
            found.append((one, best))
            used.update((file.archive, file.path) for file in same)
        elif there:
            replaced.append(one)
        else:
            missing.append(one)
    return Match(found, missing, replaced, sum((file.archive, file.path) not in used for file in files))


def place(key: str) -> str:
    """Where Primero's own store keeps a file."""
    return f"storage/{key[:2]}/{key[2:4]}/{key}"


def digest(parts: t.Iterable[bytes]) -> str:
    """MD5 in hexadecimal, as Rails keeps it: it finds damage, and proves nothing against a person."""
    found = hashlib.md5()
    for part in parts:
        found.update(part)
    return found.hexdigest()
