# SPDX-License-Identifier: GPL-3.0-or-later
"""Which attachment of Primero is which file, and which are missing."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _import_primero as primero

RECORD = "6a1f4a0e-0000-4000-8000-000000000001"


def blob(number: int, content: bytes, **changes: Any) -> dict[str, Any]:
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    return {"id": f"{number}", "key": f"abcdkey{number}", "filename": "a.jpg", "byte_size": f"{len(content)}", "checksum": md5, **changes}


def hung(number: int, kind: str = "Attachment", record: str = "") -> dict[str, Any]:
    return {"record_type": kind, "record_id": record or f"{number}", "blob_id": f"{number}"}


def row(number: int) -> dict[str, Any]:
    return {"id": f"{number}", "record_type": "Child", "record_id": RECORD}


def file(archive: int, path: str, content: bytes) -> primero.File:
    return primero.File(archive, path, len(content), primero.digest([content]))


def test_files_are_found_by_their_content_in_any_archive() -> None:
    rows: Any = {
        "active_storage_blobs": [
            blob(1, b"old"),
            blob(2, b"new", filename="b.jpg"),
            blob(3, b"logo", filename="l/o:g<o>.png"),
            blob(4, b"logo", filename="x<y>"),
        ],
        "active_storage_attachments": [hung(1), hung(2), hung(3, "Agency", "7"), hung(4, "Agency", "8")],
        "attachments": [row(1), row(2)],
    }
    needed, orphans = primero.wanted(rows)
    assert orphans == 0 and [one.owner for one in needed] == [f"Child/{RECORD}", f"Child/{RECORD}", "Agency/7", "Agency/8"]
    files = [
        file(0, f"Child/{RECORD}/a.jpg", b"old"),
        # One of the same name that came later and is gone again.
        file(1, f"Child/{RECORD}/a.jpg", b"other"),
        file(1, f"Child/{RECORD}/b.jpg", b"new"),
        file(2, f"Child/{RECORD}/b.jpg", b"new"),
        # As Rails before 7.1 and since writes it.
        file(0, "Agency/7/l-o-g<o>.png", b"logo"),
        file(0, "Agency/8/x-y-", b"logo"),
    ]
    found = primero.match(needed, files)
    assert [(one.blob, there.archive) for one, there in found.found] == [("1", 0), ("2", 2), ("3", 0), ("4", 0)]
    assert (found.missing, found.replaced, found.unused) == ([], [], 1)


def test_what_is_missing_and_what_another_file_has_replaced() -> None:
    rows: Any = {
        "active_storage_blobs": [blob(1, b"first"), blob(2, b"second"), blob(3, b"third", filename="c.jpg"), blob(9, b"")],
        "active_storage_attachments": [hung(1), hung(2), hung(3), hung(4), hung(9)],
        "attachments": [row(1), row(2), row(3), row(4)],
    }
    needed, orphans = primero.wanted(rows)
    # One has no blob, the other no attachment.
    assert orphans == 2
    found = primero.match(needed, [file(0, f"Child/{RECORD}/a.jpg", b"second")])
    assert [one.blob for one, _file in found.found] == ["2"]
    assert [one.blob for one in found.replaced] == ["1"] and [one.blob for one in found.missing] == ["3"]


@pytest.mark.parametrize(
    "changes", [{"key": "../../etc/passwd"}, {"key": "a/b/c/d"}, {"checksum": "no base 64"}, {"byte_size": "x"}, {"byte_size": None}]
)
def test_rows_that_no_primero_has(changes: dict[str, Any]) -> None:
    rows: Any = {"active_storage_blobs": [blob(1, b"x", **changes)], "active_storage_attachments": [hung(1)], "attachments": [row(1)]}
    with pytest.raises(ValueError):
        primero.wanted(rows)


def test_columns_that_no_primero_has() -> None:
    with pytest.raises(ValueError, match="not as Primero has them"):
        primero.wanted({"active_storage_attachments": [{"name": "x"}]})
    assert primero.wanted({}) == ([], 0)


def test_the_place_in_primeros_own_store() -> None:
    assert primero.place("abcdefg") == "storage/ab/cd/abcdefg"
