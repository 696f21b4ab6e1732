# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in sets: from a real server of PostgreSQL, restored into it again, with the faults that happen."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, SourceError, reader

from tests.unit.backup_sets import Outbox, age_key, block
from tests.unit.postgres_servers import MAJOR, PROGRAMS, ROOT, Cluster, needs_postgres, running_cluster

pytestmark = needs_postgres


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(name="server")
def _server(cluster: Cluster) -> Iterator[postgres.Postgres]:
    cluster.sql("postgres", "CREATE DATABASE records")
    cluster.sql("postgres", 'CREATE DATABASE "odd name\'s"')
    cluster.sql("postgres", "CREATE ROLE registry LOGIN PASSWORD 'x'")
    cluster.sql(
        "records",
        """CREATE TABLE births (id int PRIMARY KEY, name text); INSERT INTO births SELECT n, 'child ' || n FROM generate_series(1, 1000) n;
        CREATE SCHEMA "Odd.Schema"; CREATE TABLE "Odd.Schema"."a ""b"" c" (x int); INSERT INTO "Odd.Schema"."a ""b"" c" VALUES (1), (2);
        CREATE TABLE parts (d int) PARTITION BY RANGE (d); CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        INSERT INTO parts VALUES (5); CREATE TABLE empty (); CREATE VIEW v AS SELECT 1; CREATE UNLOGGED TABLE scratch AS SELECT 1 AS a;
        ALTER TABLE births ENABLE ROW LEVEL SECURITY; SELECT lo_create(0);""",
    )
    yield postgres.Postgres("main", ("records", "odd name's"), via=Cluster.via, socket=str(cluster.base), port=Cluster.port)
    for database in cluster.sql(
        "postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
    ).splitlines():
        cluster.sql("postgres", 'DROP DATABASE "{}" WITH (FORCE)'.format(database.replace('"', '""')))
    cluster.sql("postgres", "DROP ROLE registry")


@pytest.fixture(name="outbox")
def _outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "set", [age_key(tmp_path / "key")])


def make(server: postgres.Postgres, outbox: Outbox) -> postgres.Made:
    return postgres.make(server, outbox.open, outbox.close)


def plain(outbox: Outbox, member: Member) -> bytes:
    with reader(str(outbox.directory / member.name), member, str(outbox.directory.parent / "key")) as stream:
        return b"".join(iter(lambda: stream.read(2**20), b""))


def counts(cluster: Cluster, database: str, names: list[str]) -> dict[str, int]:
    return {name: int(cluster.sql(database, f"SELECT count(*) FROM {name}")) for name in names}


def test_the_page_restores_a_database(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    """By the commands that stand there."""
    made = make(server, outbox)
    cluster.sql("postgres", "CREATE DATABASE again")
    cluster.sql("postgres", "DROP DATABASE records")
    cluster.sql("postgres", "DROP ROLE registry")
    if ROOT:
        for path in (outbox.directory.parent, *outbox.directory.parent.parents):
            path.chmod(path.stat().st_mode | 0o055)
        subprocess.run(["chown", "-R", "postgres", str(outbox.directory.parent)], check=True)
    names = dict(zip(("GLOBALS", "DUMP"), (member.name for member in made.members), strict=False))
    variables = {"SET": outbox.directory, "KEY": outbox.directory.parent / "key", "DATABASE": "again", **names}
    script = f"set -eu\ncd /\nexport PATH={PROGRAMS}:$PATH PGHOST={cluster.base} PGPORT={cluster.port}\n"
    script += "".join(f"{name}='{value}'\n" for name, value in variables.items()) + block("A database")
    done = subprocess.run([*cluster.via, "sh"], input=script, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == made.source["databases"][0]["canary"]
    assert counts(cluster, "again", ["births"]) == {"births": 1000}
    assert cluster.sql("postgres", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'registry'") == "t"


def restore(cluster: Cluster, data: bytes, database: str) -> None:
    cluster.sql("postgres", f"CREATE DATABASE {database}")
    command = [
        *cluster.via,
        str(PROGRAMS / "pg_restore"),
        "-h",
        str(cluster.base),
        "-p",
        str(cluster.port),
        "-d",
        database,
        "--exit-on-error",
    ]
    done = subprocess.run(command, input=data, capture_output=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr


def test_what_comes_back(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    made = make(server, outbox)
    assert [member.name for member in made.members] == [
        "db-main-globals.sql.zst.age",
        "db-main-records.dump.zst.age",
        "db-main-odd%20name%27s.dump.zst.age",
    ]
    assert made.source["version"] // 10000 == int(MAJOR)
    records = made.source["databases"][0]
    assert records["rows"] == {
        'Odd.Schema.a "b" c': 2,
        "civitas_backup.canary": 1,
        "public.births": 1000,
        "public.empty": 0,
        "public.part1": 1,
        "public.scratch": 1,
    }
    assert records["large_objects"] == 1 and records["encoding"] == "UTF8" and records["extensions"] == {"plpgsql": "1.0"}
    restore(cluster, plain(outbox, made.members[1]), "again")
    assert counts(cluster, "again", ["births", '"Odd.Schema"."a ""b"" c"', "parts"]) == {
        "births": 1000,
        '"Odd.Schema"."a ""b"" c"': 2,
        "parts": 1,
    }
    assert cluster.sql("again", "SELECT nonce FROM civitas_backup.canary") == records["canary"]
    assert b"CREATE ROLE registry" in plain(outbox, made.members[0])
    # A second time the canary is another one.
    cluster.sql("postgres", "DROP DATABASE again")
    shutil.rmtree(outbox.directory)
    outbox.directory.mkdir()
    assert make(server, outbox).source["databases"][0]["canary"] != records["canary"]


def test_counts_are_of_the_moment_of_the_dump(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    """Somebody writes all the time; dump and counts agree."""
    stop = threading.Event()

    def write() -> None:
        number = 10_000
        while not stop.is_set():
            new = f"INSERT INTO births SELECT n, 'x' FROM generate_series({number}, {number + 99}) n"
            cluster.sql("records", f"{new}; DELETE FROM births WHERE id = {number - 5}")
            number += 100

    writer = threading.Thread(target=write)
    writer.start()
    try:
        first = cluster.sql("records", "SELECT count(*) FROM births")
        while cluster.sql("records", "SELECT count(*) FROM births") == first:
            pass
        made = make(server, outbox)
    finally:
        stop.set()
        writer.join()
    restore(cluster, plain(outbox, made.members[1]), "again")
    assert int(cluster.sql("again", "SELECT count(*) FROM births")) == made.source["databases"][0]["rows"]["public.births"] > 1000


def test_the_server_is_down(server: postgres.Postgres, outbox: Outbox) -> None:
    with pytest.raises(SourceError, match="connection to server on socket"):
        make(server._replace(port=1), outbox)


def test_a_role_that_may_not_see_all(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    cluster.sql("postgres", "CREATE ROLE weak LOGIN")
    try:
        weak = server._replace(via=(*server.via, "env", "PGUSER=weak"))
        with pytest.raises(SourceError, match=r"[Pp]eer authentication failed"):
            make(weak, outbox)
        hba = cluster.data / "pg_hba.conf"
        before = hba.read_text()
        hba.write_text("local all weak trust\n" + before)
        cluster.sql("postgres", "SELECT pg_reload_conf()")
        deadline = time.monotonic() + 20
        while True:
            with pytest.raises(SourceError) as found:
                make(weak, outbox)
            if "is no superuser" in str(found.value):
                break
            assert time.monotonic() < deadline, found.value
        hba.write_text(before)
        cluster.sql("postgres", "SELECT pg_reload_conf()")
    finally:
        cluster.sql("postgres", "DROP ROLE weak")


def test_databases_that_are_not_as_declared(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    with pytest.raises(SourceError, match="the declared database 'gone' is not there"):
        make(server._replace(databases=(*server.databases, "gone")), outbox)
    with pytest.raises(SourceError, match='nobody has declared the database "odd name\'s"'):
        make(server._replace(databases=("records",)), outbox)
    assert len(make(server._replace(databases=("records",), exclude=("odd name's",)), outbox).members) == 2
    cluster.sql("postgres", 'ALTER DATABASE "odd name\'s" ALLOW_CONNECTIONS false')
    with pytest.raises(SourceError, match="takes no connections"):
        make(server, outbox)
    cluster.sql("postgres", 'ALTER DATABASE "odd name\'s" ALLOW_CONNECTIONS true')


@pytest.mark.parametrize("name", ["statement_timeout", "idle_in_transaction_session_timeout"])
def test_a_database_with_little_patience(cluster: Cluster, server: postgres.Postgres, outbox: Outbox, name: str) -> None:
    """What is set for an application that hangs must not end a backup that takes long."""
    cluster.sql(
        "records", f"INSERT INTO births SELECT n, 'x' FROM generate_series(1001, 300000) n; ALTER DATABASE records SET {name} TO 20"
    )
    made = make(server, outbox)
    assert made.source["databases"][0]["rows"]["public.births"] == 300_000


def test_a_database_that_is_read_only_for_others(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    cluster.sql("postgres", "ALTER DATABASE records SET default_transaction_read_only TO on")
    assert make(server, outbox).source["databases"][0]["canary"]


def test_tables_where_nobody_looks(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    """In the database that every server has, and that nobody declares."""
    cluster.sql("postgres", "CREATE TABLE births (id int)")
    try:
        with pytest.raises(postgres.PostgresError, match="the database 'postgres' holds tables; move them to a database that is declared"):
            make(server, outbox)
        assert make(server._replace(exclude=("postgres",)), outbox).source["databases"]
    finally:
        cluster.sql("postgres", "DROP TABLE births")


@pytest.mark.parametrize(
    "trap",
    [
        "CREATE TABLE civitas_backup.canary (nonce text, written timestamptz);"
        "CREATE TRIGGER t BEFORE INSERT ON civitas_backup.canary FOR EACH ROW EXECUTE FUNCTION seize()",
        # The schema alone: who has it can make the table in time.
        "",
        "CREATE VIEW civitas_backup.canary AS SELECT 'x' AS nonce",
    ],
)
def test_a_canary_of_somebody_else(cluster: Cluster, server: postgres.Postgres, outbox: Outbox, trap: str) -> None:
    """What the owner of a database has put there would be run by the superuser of the backup."""
    cluster.sql(
        "records",
        f"""GRANT CREATE ON DATABASE records TO registry; GRANT CREATE ON SCHEMA public TO registry; SET ROLE registry;
        CREATE FUNCTION public.seize() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ALTER ROLE registry SUPERUSER; RETURN NEW; END $$;
        CREATE SCHEMA civitas_backup; {trap.replace("seize", "public.seize")};""",
    )
    with pytest.raises(
        postgres.PostgresError, match="records: the schema civitas_backup, or canary in it, is not of a superuser; look who made it"
    ):
        make(server, outbox)
    assert cluster.sql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'registry'") == "f"


def other_programs(tmp_path: Path, **scripts: str) -> str:
    directory = tmp_path / "programs"
    directory.mkdir()
    for name in ("pg_dump", "pg_dumpall"):
        path = directory / name
        path.write_text(scripts.get(name, f'#!/bin/sh\nexec {PROGRAMS}/{name} "$@"\n'))
        path.chmod(0o755)
    for path in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o055)
    return str(directory)


@pytest.mark.parametrize(
    ("name", "script", "message"),
    [
        ("pg_dump", '#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 9.6.1"\n', "pg_dump is not of this version"),
        ("pg_dump", None, "pg_dump is not of this version"),
        ("pg_dump", '#!/bin/sh\n[ "$1" = --version ] && exec {real} "$@"\n{real} "$@" | head -c 2000; exit 1\n', "ended with 1"),
        ("pg_dump", '#!/bin/sh\n[ "$1" = --version ] && exec {real} "$@"\nexit 0\n', "printed 0 bytes"),
        (
            "pg_dumpall",
            '#!/bin/sh\n[ "$1" = --version ] && exec {real} "$@"\n{real} "$@" | head -c 300; exit 0\n',
            "not all that it should print",
        ),
    ],
)
def test_dumps_that_are_no_dumps(
    server: postgres.Postgres, outbox: Outbox, tmp_path: Path, name: str, script: str | None, message: str
) -> None:
    directory = other_programs(tmp_path, **{name: (script or "").replace("{real}", str(PROGRAMS / name))})
    if script is None:
        (Path(directory) / name).unlink()
    with pytest.raises(SourceError, match=re.escape(message)):
        make(server._replace(programs=directory), outbox)


def test_a_table_dropped_while_it_is_dumped(cluster: Cluster, server: postgres.Postgres, outbox: Outbox, tmp_path: Path) -> None:
    """It waits: the tables are locked from the moment of the snapshot on."""
    psql = f"{PROGRAMS}/psql -XAtq -h {cluster.base} -p {cluster.port} -d records"
    drop = f"{psql} -c \"SET lock_timeout = '100ms'; DROP TABLE births\" >&2"
    directory = other_programs(tmp_path, pg_dump=f'#!/bin/sh\n[ "$1" = --version ] || {drop}\nexec {PROGRAMS}/pg_dump "$@"\n')
    made = make(server._replace(programs=directory), outbox)
    assert made.source["databases"][0]["rows"]["public.births"] == 1000


def test_a_full_disk_while_dumping(server: postgres.Postgres, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_full(name: str) -> Any:
        writer = outbox.open(name)
        if "records" in name:
            writer._target = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        return writer

    with pytest.raises(PipeError, match="No space left on device"):
        postgres.make(server, open_full, outbox.close)


def test_a_replica(cluster: Cluster, server: postgres.Postgres, outbox: Outbox) -> None:
    base = Path(tempfile.mkdtemp(prefix="pgr-"))
    if ROOT:
        shutil.chown(base, "postgres")
    replica = object.__new__(Cluster)
    replica.base, replica.data, replica.port = base, base / "cluster", 54330
    try:
        cluster.run(
            "pg_basebackup",
            "-h",
            str(cluster.base),
            "-p",
            str(cluster.port),
            "-D",
            str(replica.data),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "--no-sync",
        )
        replica.set(f"unix_socket_directories = '{base}'", f"port = {replica.port}")
        replica.start()
        copied = server._replace(socket=str(base), port=replica.port)
        deadline = time.monotonic() + 30
        while True:
            try:
                made = make(copied, outbox)
                break
            except SourceError as error:
                assert "gets nothing from its primary" in str(error) and time.monotonic() < deadline, error
        assert made.warnings == ["the server is a replica, so no canary was written"]
        assert made.source["databases"][0]["rows"]["public.births"] == 1000
        assert made.source["databases"][0]["canary"] is None
        # It is behind: what it has received is not applied.
        replica.sql("postgres", "SELECT pg_wal_replay_pause()")
        cluster.sql("records", "INSERT INTO births VALUES (-1, 'late')")
        with pytest.raises(SourceError, match=r"(seconds|how far) behind"):
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                make(copied._replace(max_lag=0.0, canary=False), Outbox(outbox.directory / f"{time.monotonic()}", outbox.recipients))
        replica.sql("postgres", "SELECT pg_wal_replay_resume()")
        # Nothing comes any more, so it cannot know how old it is.
        replica.sql("postgres", "ALTER SYSTEM SET primary_conninfo = ''; ")
        replica.sql("postgres", "SELECT pg_reload_conf()")
        with pytest.raises(SourceError, match="gets nothing from its primary"):
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                make(copied, Outbox(outbox.directory / f"{time.monotonic()}", outbox.recipients))
    finally:
        replica.stop()
        shutil.rmtree(base)
