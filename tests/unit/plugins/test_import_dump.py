# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of a real PostgreSQL, whole and damaged, read without a server; and MongoDB's archives."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _import_dump as dumps
from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import ArchiveError, Budget, Gunzip

from tests.unit.import_archives import END, PRIMERO_SCHEMA, bson, mongo, needs_programs, primero_rows
from tests.unit.postgres_servers import running_cluster

pytestmark = needs_programs
RECORD = "6a1f4a0e-0000-4000-8000-000000000001"


@pytest.fixture(scope="module", name="dump")
def _dump() -> Iterator[bytes]:
    with running_cluster() as cluster:
        cluster.sql("postgres", "CREATE DATABASE events")
        cluster.sql("events", PRIMERO_SCHEMA)
        cluster.sql("events", primero_rows([(1, "Child", RECORD, "it's a\tname", b"content"), (2, "Agency", "7", "logo.png", b"logo")]))
        cluster.sql(
            "events",
            """CREATE SCHEMA app; CREATE TABLE app.births (id int, text text);
            INSERT INTO app.births SELECT n, repeat('x', 100) || E'\\n\\\\.\\nCOPY app.births (id, text) FROM stdin;'
              FROM generate_series(1, 5000) n;
            CREATE TABLE "Odd.Schema (x) FROM stdin;" (x int); CREATE SCHEMA "a.b"; CREATE TABLE "a.b"."c ""d"" (e" (x int, y text);
            INSERT INTO "a.b"."c ""d"" (e" VALUES (1, repeat('y', 3000000)), (2, NULL),
              -- What is read of it at last looks like the end of the table.
              (3, repeat('y', 1048573) || E'\\\\.'); CREATE TABLE app.nothing (); SELECT lo_create(0);
            CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$ SELECT 'x
COPY app.births (id, text) FROM stdin;
' $$;""",
        )
        yield cluster.dump("events", "-Z", "9")


def test_a_dump_is_counted(dump: bytes) -> None:
    found = dumps.read_dump(io.BytesIO(dump), keep=("attachments", "active_storage_blobs"))
    assert found.rows["app", "births"] == 5000 and found.rows["app", "nothing"] == 0 and found.rows["a.b", 'c "d" (e'] == 3
    assert found.rows["public", "Odd.Schema (x) FROM stdin;"] == 0 and len(found.rows) == 8
    assert found.major >= 13 and found.encoding == "UTF8" and found.sql_bytes > 3_500_000
    (row,) = found.kept["attachments"]
    assert (row["record_id"], row["comments"], row["description"]) == (RECORD, "a\tb\\c\nd", None)
    assert [row["filename"] for row in found.kept["active_storage_blobs"]] == ["it's a\tname", "logo.png"]


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.999])
def test_a_cut_dump_is_found(dump: bytes, keep: float) -> None:
    with pytest.raises(ArchiveError, match=r"cut off|is empty"):
        dumps.read_dump(io.BytesIO(dump[: int(len(dump) * keep)]))


def test_what_is_no_dump(dump: bytes) -> None:
    with pytest.raises(ArchiveError, match="no dump"):
        dumps.read_dump(io.BytesIO(b"-- PostgreSQL database dump\n"))
    with pytest.raises(ArchiveError, match=r"too new.*install"):
        dumps.read_dump(io.BytesIO(dump[:5] + b"\x01\x63" + dump[7:]))


def test_pg_restore_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumps.glob, "glob", lambda pattern: [])
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ArchiveError, match="install postgresql-client"):
        dumps.find_pg_restore()


def mongo_of(data: bytes) -> dict[str, int]:
    return dumps.read_mongo(Gunzip(io.BytesIO(data), Budget(2**30)))


def test_documents_are_counted() -> None:
    assert mongo_of(mongo("hearth-dev", {"patient": 1001, "task": 0, "one": 1})) == {
        "hearth-dev.patient": 1001,
        "hearth-dev.task": 0,
        "hearth-dev.one": 1,
    }


def test_views_have_no_documents() -> None:
    prelude = gzip.decompress(mongo("d", {}))[:-4]
    for view in ({"type": "view", "metadata": "{}"}, {"type": "", "metadata": '{"options":{"viewOn":"a"}}'}):
        assert mongo_of(gzip.compress(prelude + bson(db="d", collection="v", size=0, **view) + END)) == {}


def test_a_cut_or_damaged_archive_of_mongodb() -> None:
    plain = gzip.decompress(mongo("d", {"a": 20, "b": 3}))
    with pytest.raises(ArchiveError, match=r"the collections d\.a are not complete"):
        mongo_of(mongo("d", {"a": 20, "b": 3}, complete=False))
    # At each byte: what is whole up to there lacks the mark of a collection.
    for cut in range(len(plain)):
        with pytest.raises(ArchiveError):
            mongo_of(gzip.compress(plain[:cut], 1))
    # mongorestore refuses this, too.
    with pytest.raises(ArchiveError, match="two marks"):
        mongo_of(gzip.compress(plain + END))
    for wrong, message in ((plain[:4] + b"\0\0\0\0", "length"), (plain[:4] + bson(_id=1) + bson(_id=2), "header of a collection")):
        with pytest.raises(ArchiveError, match=message):
            mongo_of(gzip.compress(wrong))
    with pytest.raises(ArchiveError, match="header of a collection"):
        mongo_of(gzip.compress(plain[:4] + b"\x0d\0\0\0\x03a\0\x05\0\0\0\0\0"))
    with pytest.raises(ArchiveError, match="no archive of 'mongodump"):
        mongo_of(gzip.compress(b"error: no such host"))
