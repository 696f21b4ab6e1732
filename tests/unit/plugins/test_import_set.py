# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole archives of OpenCRVS and Primero: looked at, extracted and restored, with what is damaged or missing in them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _import_database, _import_extract
from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import ArchiveError, WrongPassphraseError
from ansible_collections.civitas.hosting.plugins.module_utils._import_database import Server, restore
from ansible_collections.civitas.hosting.plugins.module_utils._import_dump import Dump
from ansible_collections.civitas.hosting.plugins.module_utils._import_extract import extract
from ansible_collections.civitas.hosting.plugins.module_utils._import_program import main
from ansible_collections.civitas.hosting.plugins.module_utils._import_set import Report, look, recognize

from tests.unit.import_archives import (
    DAY,
    PASSPHRASE,
    PRIMERO_SCHEMA,
    encrypt,
    influx,
    mongo,
    needs_programs,
    primero,
    primero_rows,
    search,
    swarm,
    swarm_tree,
    tar,
    write,
)
from tests.unit.postgres_servers import Cluster, running_cluster

pytestmark = needs_programs
LIMIT = 2**30
RECORD = "6a1f4a0e-0000-4000-8000-000000000001"


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        cluster.sql("postgres", "CREATE ROLE events_migrator; CREATE ROLE events_app")
        cluster.sql("postgres", "CREATE DATABASE events")
        cluster.sql(
            "events",
            """CREATE SCHEMA app AUTHORIZATION events_migrator; SET ROLE events_migrator;
            CREATE TABLE app.events (id int PRIMARY KEY, data jsonb); INSERT INTO app.events SELECT n, '{}' FROM generate_series(1, 700) n;
            GRANT USAGE ON SCHEMA app TO events_app; RESET ROLE; CREATE EXTENSION pg_trgm;""",
        )
        yield cluster


@pytest.fixture(scope="module", name="dump")
def _dump(cluster: Cluster) -> bytes:
    return cluster.dump("events")


@pytest.fixture(name="raw")
def _raw(tmp_path: Path, dump: bytes) -> Path:
    return swarm_tree(tmp_path, dump)


def seen(*paths: Path, deep: bool = True, passphrase: bytes | None = PASSPHRASE) -> Report:
    return look(recognize([str(path) for path in paths]), passphrase, LIMIT, deep)


# --- OpenCRVS


def test_a_day_of_opencrvs_is_whole(tmp_path: Path, raw: Path) -> None:
    report = seen(swarm(tmp_path, raw))
    assert (report.problems, report.missing, report.warnings) == ([], [], [])
    told = {member.path: member.told for member in report.members}
    assert told[f"postgres/events-{DAY}.dump"].endswith("700 rows in 1 tables")
    assert told[f"mongo/hearth-dev-{DAY}.gz"] == "MongoDB, 8 documents in 2 collections"
    assert told[f"minio/ocrvs-{DAY}.tar.gz"].startswith("2 files, ")
    assert seen(swarm(tmp_path, raw), deep=False).missing == []


def test_damage_of_each_store_is_found(tmp_path: Path, raw: Path) -> None:
    def damaged(path: str) -> list[str]:
        file = raw / path
        good = file.read_bytes()
        file.write_bytes(good[: len(good) // 2])
        found = seen(swarm(tmp_path, raw)).problems
        file.write_bytes(good)
        return found

    # The archive itself is whole: these were cut off when it was made.
    for path in (
        f"postgres/events-{DAY}.dump",
        f"mongo/performance-{DAY}.gz",
        f"minio/ocrvs-{DAY}.tar.gz",
        f"vsexport/ocrvs-{DAY}.tar.gz",
        "influxdb/20260301T000100Z.s2.tar.gz",
        "influxdb/20260301T000100Z.manifest",
        "elasticsearch/index-3",
    ):
        (problem,) = damaged(path)
        assert problem.startswith(f"{DAY}.tar.gz.enc: {path}")
    assert seen(swarm(tmp_path, raw)).problems == []


def test_what_is_missing_is_named(tmp_path: Path, raw: Path) -> None:
    (raw / f"mongo/webhooks-{DAY}.gz").unlink()
    (raw / "influxdb/20260301T000100Z.meta").write_bytes(b"short")
    (raw / "elasticsearch/snap-Xa1.dat").unlink()
    shutil.rmtree(raw / "postgres")
    assert seen(swarm(tmp_path, raw)).missing == [
        f"{DAY}.tar.gz.enc: postgres/events-{DAY}.dump",
        f"{DAY}.tar.gz.enc: mongo/webhooks-{DAY}.gz",
        f"{DAY}.tar.gz.enc: influxdb/20260301T000100Z.meta",
        f"{DAY}.tar.gz.enc: elasticsearch/snap-Xa1.dat",
    ]
    shutil.rmtree(raw / "elasticsearch")
    shutil.rmtree(raw / "influxdb")
    missing = seen(swarm(tmp_path, raw)).missing
    assert any("list of InfluxDB" in line for line in missing) and any("can be made anew" in line for line in missing)


def test_the_content_of_another_day(tmp_path: Path, raw: Path) -> None:
    shutil.copytree(raw, tmp_path / "copy")
    report = seen(swarm(tmp_path, raw, label="2026-03-09"))
    assert f"2026-03-09.tar.gz.enc: the newest file in it is of {DAY}" in report.warnings
    assert "2026-03-09.tar.gz.enc: postgres/events-2026-03-09.dump" in report.missing
    assert any("there is snapshot_2026-03-01" in line for line in report.missing)


def test_a_snapshot_that_did_not_succeed(tmp_path: Path, raw: Path) -> None:
    search(raw / "elasticsearch", DAY, state=2)
    assert "did not succeed" in seen(swarm(tmp_path, raw)).problems[0]


def test_the_wrong_passphrase(tmp_path: Path, raw: Path) -> None:
    file = swarm(tmp_path, raw)
    with pytest.raises(WrongPassphraseError, match=file.name):
        seen(file, passphrase=b"another")
    assert "it is encrypted" in seen(file, passphrase=None).problems[0]


def kubernetes(base: Path, dump: bytes) -> dict[str, Path]:
    write(base / "postgres/events.dump", dump)
    write(base / "postgres/roles.sql", "CREATE ROLE events_app;\n--\n-- PostgreSQL database cluster dump complete\n--\n\n")
    for name in ("hearth-dev", "events", "user-mgnt", "metrics", "performance"):
        write(base / f"mongo/{name}.gz", mongo(name, {"a": 2}))
    influx(base / "influxdb")
    write(base / "minio/ocrvs/scan.jpg", os.urandom(3000))
    write(base / "minio/ocrvs/export.tar.gz", "what a user has called so")
    found = {}
    for store in ("postgres", "mongo", "influxdb", "minio"):
        tar(base / store, base / "plain")
        found[store] = encrypt(base / "plain", base / f"{store}_backup_{DAY}.tar.gz.enc")
    return found


def test_the_stores_of_a_day_on_kubernetes(tmp_path: Path, dump: bytes) -> None:
    files = kubernetes(tmp_path, dump)
    report = seen(*files.values())
    assert (report.problems, report.missing, report.warnings) == ([], [], [])
    report = seen(files["postgres"], files["mongo"])
    assert report.missing == [f"minio_backup_{DAY}.tar.gz.enc", f"influxdb_backup_{DAY}.tar.gz.enc"]
    assert extract(seen(*files.values()), PASSPHRASE, str(tmp_path / "out")) == 12
    assert (tmp_path / "out/postgres/events.dump").read_bytes() == dump
    (tmp_path / "postgres/roles.sql").write_text("CREATE ROLE events_app;\n")
    tar(tmp_path / "postgres", tmp_path / "plain")
    encrypt(tmp_path / "plain", files["postgres"])
    assert "roles.sql: it is cut off" in seen(*files.values()).problems[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["backup.zip"], "is no name of an archive"),
        ([f"{DAY}.tar.gz.enc", "primero_backup.20260301.0100.tar.gz"], "one kind"),
        ([f"{DAY}.tar.gz.enc", "2026-03-02.tar.gz.enc"], "one day"),
        ([f"mongo_backup_{DAY}.tar.gz.enc", f"{DAY}.tar.gz.enc"], "one kind"),
        ([f"a/mongo_backup_{DAY}.tar.gz.enc", f"b/mongo_backup_{DAY}.tar.gz.enc"], "given twice"),
    ],
)
def test_archives_that_do_not_belong_together(names: list[str], message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        recognize(names)


def test_extraction_is_whole_and_private(tmp_path: Path, raw: Path) -> None:
    (raw / "elasticsearch/again").hardlink_to(raw / "elasticsearch/snap-Xa1.dat")
    target = tmp_path / "out"
    extract(seen(swarm(tmp_path, raw)), PASSPHRASE, str(target))
    done = subprocess.run(["diff", "-r", str(raw), str(target)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in target.rglob("*") if path.is_file()}
    assert modes == {0o600} and stat.S_IMODE(target.stat().st_mode) == 0o700
    assert (target / f"mongo/events-{DAY}.gz").stat().st_mtime == (raw / f"mongo/events-{DAY}.gz").stat().st_mtime
    with pytest.raises(ArchiveError, match="is there already"):
        extract(seen(swarm(tmp_path, raw)), PASSPHRASE, str(target))


def test_nothing_is_left_of_an_extraction_that_fails(tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, target = swarm(tmp_path, raw), tmp_path / "out"
    report = seen(file)
    with pytest.raises(ArchiveError, match="nothing was extracted: it is bad"):
        extract(report._replace(problems=["it is bad"]), PASSPHRASE, str(target))
    with monkeypatch.context() as patched:
        patched.setattr(_import_extract, "_RESERVE", 10**18)
        with pytest.raises(ArchiveError, match="bytes free"):
            extract(report, PASSPHRASE, str(target))
    # What was looked at is not what is extracted.
    file.write_bytes(file.read_bytes()[:-16])
    with pytest.raises(ArchiveError):
        extract(report, PASSPHRASE, str(target))
    subprocess.run(["tar", "-czf", str(tmp_path / "plain"), "-C", str(raw), ".", "./postgres"], check=True)
    encrypt(tmp_path / "plain", file)
    with pytest.raises(ArchiveError, match="is in it twice"):
        extract(seen(file), PASSPHRASE, str(target))
    assert not target.exists()


# --- Primero


@pytest.fixture(name="archives")
def _archives(cluster: Cluster, tmp_path: Path) -> Iterator[list[Path]]:
    """Three nights: each has the whole database, and the attachments since the one before."""
    cluster.sql("postgres", "CREATE DATABASE primero")
    cluster.sql("primero", PRIMERO_SCHEMA)
    night = [
        [(1, "Child", RECORD, "a.jpg", b"the first night"), (2, "Agency", "7", "logo.png", b"logo")],
        [(3, "Child", RECORD, "b:c.jpg", b"the second night")],
        [(4, "Child", RECORD, "a.jpg", b"the same name again"), (5, "Child", RECORD, "d.jpg", b"the third night")],
    ]
    places = [
        {f"Child/{RECORD}/a.jpg": b"the first night", "Agency/7/logo.png": b"logo"},
        {f"Child/{RECORD}/b-c.jpg": b"the second night"},
        {f"Child/{RECORD}/a.jpg": b"the same name again", f"Child/{RECORD}/d.jpg": b"the third night"},
    ]
    found = []
    for number, rows in enumerate(night):
        cluster.sql("primero", primero_rows(rows))
        label = f"2026030{number + 1}.0100"
        found.append(primero(tmp_path, label, cluster.dump("primero", "-Z", "9"), places[number]))
    yield found
    cluster.sql("postgres", "DROP DATABASE primero")


def test_all_archives_of_primero_together_are_whole(archives: list[Path], tmp_path: Path) -> None:
    report = seen(*reversed(archives), passphrase=None)
    assert (report.problems, report.missing, report.warnings) == ([], [], [])
    assert extract(report, None, str(tmp_path / "out")) == 6
    assert {
        str(path.relative_to(tmp_path / "out")): path.read_bytes() for path in (tmp_path / "out/storage").rglob("*") if path.is_file()
    } == {
        "storage/ke/y0/key0001abcd": b"the first night",
        "storage/ke/y0/key0002abcd": b"logo",
        "storage/ke/y0/key0003abcd": b"the second night",
        "storage/ke/y0/key0004abcd": b"the same name again",
        "storage/ke/y0/key0005abcd": b"the third night",
    }


def test_the_newest_archive_alone_lacks_the_older_attachments(archives: list[Path], tmp_path: Path) -> None:
    report = seen(archives[2], passphrase=None)
    assert [line.split(",")[0] for line in report.missing] == [
        "the attachment 2 of Agency/7",
        f"the attachment 3 of Child/{RECORD}",
        f"the attachment 1 of Child/{RECORD}",
    ]
    # At its place is one of the same name that came later.
    assert "another file of the same name" in report.missing[2]
    # Without the archive in which the database is newest nobody knows what there should be.
    older = seen(archives[0], archives[1], passphrase=None)
    assert older.missing == [] and older.match is not None and len(older.match.found) == 3


def test_an_attachment_that_was_damaged(archives: list[Path], cluster: Cluster, tmp_path: Path) -> None:
    changed = primero(tmp_path, "20260302.0100", cluster.dump("primero"), {f"Child/{RECORD}/b-c.jpg": b"the sEcond night"})
    report = seen(archives[0], changed, archives[2], passphrase=None)
    assert [line.split(",")[0] for line in report.missing] == [f"the attachment 3 of Child/{RECORD}"]
    assert "1 files belong to no attachment" in report.warnings[0]


# --- the database


def test_a_dump_becomes_a_new_database(cluster: Cluster, dump: bytes, tmp_path: Path) -> None:
    server, file = Server(Cluster.via, str(cluster.base), cluster.port), tmp_path / "events.dump"
    file.write_bytes(dump)
    assert restore(server, str(file), "events_2026", owners=True) == {("app", "events"): 700}
    assert cluster.sql("events_2026", "SELECT tableowner FROM pg_tables WHERE tablename = 'events'") == "events_migrator"
    with pytest.raises(ArchiveError, match="already"):
        restore(server, str(file), "events_2026", owners=True)
    assert cluster.sql("events", "SELECT count(*) FROM app.events") == "700"
    for wrong in ("Events", "events; DROP", "", "x" * 64):
        with pytest.raises(ArchiveError, match="no name"):
            restore(server, str(file), wrong, owners=True)
    cluster.sql("postgres", "DROP DATABASE events_2026")


def test_functions_of_the_dump_are_not_called(cluster: Cluster, tmp_path: Path) -> None:
    server, file = Server(Cluster.via, str(cluster.base), cluster.port), tmp_path / "events.dump"
    cluster.sql("postgres", "CREATE DATABASE other")
    cluster.sql(
        "other",
        "CREATE TABLE seized (x int); CREATE FUNCTION format(text, name, name) RETURNS text LANGUAGE sql AS"
        " $$ INSERT INTO public.seized VALUES (1); SELECT pg_catalog.format($1, $2, $3) $$",
    )
    file.write_bytes(cluster.dump("other"))
    restore(server, str(file), "fresh", owners=True)
    assert cluster.sql("fresh", "SELECT count(*) FROM seized") == "0"
    for name in ("other", "fresh"):
        cluster.sql("postgres", f"DROP DATABASE {name}")


def test_a_database_that_cannot_be_made_leaves_nothing(cluster: Cluster, dump: bytes, tmp_path: Path) -> None:
    server, file = Server(Cluster.via, str(cluster.base), cluster.port), tmp_path / "events.dump"
    cluster.sql("postgres", "CREATE ROLE gone")
    cluster.sql("postgres", "CREATE DATABASE other")
    cluster.sql("other", "CREATE TABLE t (x int); ALTER TABLE t OWNER TO gone; INSERT INTO t VALUES (1)")
    file.write_bytes(cluster.dump("other"))
    cluster.sql("postgres", "DROP DATABASE other")
    cluster.sql("postgres", "DROP ROLE gone")
    with pytest.raises(ArchiveError, match=r"gone.*--without-owners"):
        restore(server, str(file), "fresh", owners=True)
    file.write_bytes(dump[:-100])
    with pytest.raises(ArchiveError, match="cut off"):
        restore(server, str(file), "fresh", owners=True)
    assert cluster.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'fresh'") == "0"


@pytest.mark.parametrize("rows", [{("app", "events"): 699}, {("app", "events"): 701}, {}])
def test_rows_that_are_not_those_of_the_dump(rows: dict[tuple[str, str], int]) -> None:
    dump = Dump(15, "UTF8", {("app", "events"): 700, ("public", "words"): 5}, {}, 0)
    # The second one is an extension's, which has rows of its own.
    _import_database._compare(dump, {("app", "events"): 700}, {("public", "words")})
    with pytest.raises(ArchiveError, match=r"app\.events has .* rows of 700"):
        _import_database._compare(dump, rows, {("public", "words")})


# --- the program


def test_the_program(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str], cluster: Cluster) -> None:
    (raw / f"mongo/webhooks-{DAY}.gz").unlink()
    file, secret = swarm(tmp_path, raw), tmp_path / "passphrase"
    secret.write_bytes(PASSPHRASE)
    secret.chmod(0o600)
    words = [str(file), "--passphrase-file", str(secret)]
    assert main(["inspect", *words]) == 0
    said = capsys.readouterr()
    assert f"OpenCRVS, all stores, of {DAY}" in said.out and "missing: " in said.err
    assert main(["verify", *words]) == 1
    lacking = f"{DAY}.tar.gz.enc: mongo/webhooks-{DAY}.gz"
    assert main(["verify", *words, "--without", lacking]) == 0
    assert "proves no more" in capsys.readouterr().out
    assert main(["verify", *words, "--without", "attachments"]) == 1
    assert "what is not missing: attachments" in capsys.readouterr().err
    target = tmp_path / "out"
    assert main(["extract", *words, "--target", str(target)]) == 1 and not target.exists()
    assert "nothing was extracted" in capsys.readouterr().err
    assert main(["extract", *words, "--target", str(target), "--without", lacking, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == {f"postgres/events-{DAY}.dump": {"app.events": 700}} and result["target"] == str(target)
    where = ["--socket", str(cluster.base), "--port", str(cluster.port)]
    assert main(["restore", str(target / f"postgres/events-{DAY}.dump"), "--database", "imported", *where]) == 0
    assert "app.events: 700 rows" in capsys.readouterr().out
    cluster.sql("postgres", "DROP DATABASE imported")
    assert main(["verify", *words, "--limit-gigabytes", "0"]) == 1
    assert "more than is allowed" in capsys.readouterr().err


def test_the_program_and_primero(archives: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(archives[2])]) == 0
    said = capsys.readouterr()
    assert "of 5 attachments of the newest database 2 are there" in said.out and "a.jpg" not in said.out + said.err
    words = ["--target", str(tmp_path / "out"), "--without", "attachments"]
    assert main(["extract", str(archives[2]), *words]) == 0
    assert "neither encrypted nor signed" in capsys.readouterr().out
