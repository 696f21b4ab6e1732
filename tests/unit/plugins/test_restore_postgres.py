# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases out of sets into a real server of PostgreSQL: with all that belongs to them, or not at all."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_postgres as restore
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import reader
from ansible_collections.civitas.hosting.plugins.module_utils._restore_postgres import RestoreError

from tests.unit.backup_sets import Outbox, age_key, flip, manifest_of
from tests.unit.postgres_servers import MAJOR, PROGRAMS, Cluster, needs_postgres, running_cluster

pytestmark = needs_postgres
ODD = 'odd; DATABASE "name\'s" é'


def ident(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module", name="other")
def _other() -> Iterator[Cluster]:
    """The one that is restored to."""
    with running_cluster() as cluster:
        yield cluster


class Set:
    """A set with the databases of a server."""

    def __init__(self, base: Path, cluster: Cluster, names: tuple[str, ...]) -> None:
        now = time.time()
        self.key = str(base / "key")
        outbox = Outbox(base / form.new_set_id(now), [age_key(base / "key")])
        self.path, self.directory = outbox.directory, str(outbox.directory)
        others = tuple(set(databases(cluster)) - set(names))
        server = postgres.Postgres("main", names, others, via=Cluster.via, socket=str(cluster.base), port=Cluster.port)
        made = postgres.make(server, outbox.open, outbox.close)
        self.manifest: Manifest = form.parse(manifest_of(outbox.directory.name, now, made.members, [made.source]))
        self.source: dict[str, Any] = self.manifest.sources[0]
        self.entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in self.source["databases"]}

    def globals(self, server: postgres.Postgres, **options: bool) -> restore.Globals:
        return restore.restore_globals(server, self.directory, self.manifest, self.source, self.key, **options)

    def database(self, server: postgres.Postgres, name: str, new_name: str) -> None:
        restore.restore_database(server, self.directory, self.manifest, self.source, self.entries[name], self.key, new_name)


@pytest.fixture(scope="module", name="made")
def _made(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Set:
    """A set with what is easily forgotten."""
    cluster.sql("postgres", "CREATE ROLE registry LOGIN PASSWORD 'it''s; secret'")
    cluster.sql("postgres", 'CREATE ROLE "Odd ""Role"";" NOLOGIN; GRANT "Odd ""Role"";" TO registry')
    cluster.sql("postgres", r"COMMENT ON ROLE registry IS E'one;\ntwo '' \\; three'; ALTER ROLE registry SET search_path TO app, public")
    cluster.sql("postgres", "CREATE DATABASE records OWNER registry TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")
    cluster.sql("postgres", f"CREATE DATABASE {ident(ODD)} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    cluster.sql("postgres", "CREATE DATABASE empty")
    cluster.sql("postgres", "REVOKE CONNECT ON DATABASE records FROM PUBLIC; ALTER DATABASE records SET work_mem TO '7MB'")
    cluster.sql("postgres", "ALTER ROLE registry IN DATABASE records SET statement_timeout TO '9s'")
    cluster.sql("postgres", "COMMENT ON DATABASE records IS E'first\n\n-- DATABASE records;\nlast'")
    cluster.sql(
        "records",
        """CREATE EXTENSION pg_trgm; SET ROLE registry; CREATE SCHEMA app;
        CREATE TABLE app.births (id serial PRIMARY KEY, name text);
        INSERT INTO app.births (name) SELECT 'child ' || n FROM generate_series(1, 1000) n;
        CREATE INDEX ON app.births USING gin (name public.gin_trgm_ops);
        CREATE TABLE parts (d int) PARTITION BY RANGE (d); CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE part2 PARTITION OF parts FOR VALUES FROM (10) TO (20); INSERT INTO parts VALUES (5), (6), (15);
        CREATE UNLOGGED TABLE scratch AS SELECT 1 AS a; CREATE TABLE "Odd ""; T" (x int); INSERT INTO "Odd ""; T" VALUES (1);
        CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n FROM app.births; SELECT lo_from_bytea(0, 'a scan');""",
    )
    cluster.sql(ODD, "CREATE TABLE t (x text); INSERT INTO t VALUES (chr(233))")
    return Set(tmp_path_factory.mktemp("set"), cluster, ("records", ODD, "empty"))


@pytest.fixture(name="server")
def _server(other: Cluster) -> Iterator[postgres.Postgres]:
    yield postgres.Postgres("restore", (), via=Cluster.via, socket=str(other.base), port=Cluster.port)
    for database in databases(other):
        other.sql("postgres", f"DROP DATABASE {ident(database)} WITH (FORCE)")
    for role in roles(other):
        other.sql("postgres", f"DROP ROLE {ident(role)}")


def databases(cluster: Cluster) -> list[str]:
    return cluster.sql("postgres", "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'").splitlines()


def roles(cluster: Cluster) -> list[str]:
    return cluster.sql("postgres", "SELECT rolname FROM pg_roles WHERE oid >= 16384 ORDER BY oid DESC").splitlines()


ABOUT = """SELECT pg_get_userbyid(datdba),
  (SELECT array_agg(acl::text ORDER BY acl::text) FROM unnest(datacl) acl),
  pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider,
  (SELECT array_agg(setrole::regrole || setconfig::text ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid),
  shobj_description(oid, 'pg_database') FROM pg_database d WHERE datname = '{}'"""


def about(cluster: Cluster, database: str) -> str:
    return cluster.sql("postgres", ABOUT.format(database.replace("'", "''")))


def test_all_that_belongs_to_a_database(cluster: Cluster, other: Cluster, server: postgres.Postgres, made: Set) -> None:
    assert made.globals(server) == restore.Globals(['Odd "Role";', "registry"], ["postgres"], [])
    secret = "SELECT rolpassword FROM pg_authid WHERE rolname = 'registry'"
    assert other.sql("postgres", secret) == cluster.sql("postgres", secret)
    for query in (
        "SELECT rolcanlogin, rolconfig, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'registry'",
        "SELECT roleid::regrole, member::regrole FROM pg_auth_members WHERE member = 'registry'::regrole",
    ):
        assert other.sql("postgres", query) == cluster.sql("postgres", query) != ""
    for name, new_name in (("records", 'new "records";'), (ODD, ODD), ("empty", "empty")):
        made.database(server, name, new_name)
        assert restore.check_database(server, new_name, made.entries[name]) == []
        assert about(other, new_name) == about(cluster, name)
    assert other.sql('new "records";', "SET ROLE registry; SELECT nextval('app.births_id_seq')") == "1001"
    assert other.sql('new "records";', "SELECT convert_from(lo_get(oid), 'UTF8') FROM pg_largeobject_metadata") == "a scan"
    assert other.sql('new "records";', "SELECT n FROM sums") == "1000"
    assert other.sql(ODD, "SELECT x = chr(233) FROM t") == "t"


# --- roles


def test_roles_that_are_there(cluster: Cluster, other: Cluster, server: postgres.Postgres, made: Set) -> None:
    """A restore of one database must not bring back an old password, nor take a role out of a group."""
    other.sql("postgres", "CREATE ROLE registry NOLOGIN PASSWORD 'newer'; CREATE ROLE more; GRANT more TO registry")
    query = "SELECT a.rolpassword, r.rolcanlogin, rolconfig FROM pg_roles r JOIN pg_authid a USING (oid) WHERE r.rolname = 'registry'"
    before = other.sql("postgres", query)
    assert made.globals(server) == restore.Globals(['Odd "Role";'], ["postgres", "registry"], [])
    assert other.sql("postgres", query) == before
    # The membership in a role that is new comes with it.
    assert other.sql("postgres", "SELECT pg_has_role('registry', 'Odd \"Role\";', 'member')") == "t"
    other.sql("postgres", 'REVOKE "Odd ""Role"";" FROM registry')
    assert made.globals(server).made == []
    assert other.sql("postgres", "SELECT pg_has_role('registry', 'Odd \"Role\";', 'member')") == "f"
    made.globals(server, existing=True)
    assert other.sql("postgres", query) == cluster.sql("postgres", query) != before
    assert other.sql("postgres", "SELECT pg_has_role('registry', 'Odd \"Role\";', 'member')") == "t"


def replaced(made: Set, base: Path, name: str, change: Callable[[bytes], bytes]) -> Set:
    """The same set with another content of a member, encrypted and written into the manifest as the host would do it."""
    new = copy.copy(made)
    shutil.copytree(made.path, base / made.path.name)
    new.path, new.directory = base / made.path.name, str(base / made.path.name)
    old = made.manifest.members[name]
    with reader(str(made.path / name), old, made.key) as stream:
        plain = b"".join(iter(lambda: stream.read(2**20), b""))
    (new.path / name).unlink()
    outbox = Outbox(new.path, [public_key(made.key)])
    writer = outbox.open(name)
    writer.write(change(plain))
    new.manifest = made.manifest._replace(members={**made.manifest.members, name: outbox.close(writer)})
    return new


def public_key(path: str) -> str:
    return subprocess.run(["age-keygen", "-y", path], capture_output=True, text=True, check=True).stdout.strip()


def test_all_roles_or_none(other: Cluster, server: postgres.Postgres, made: Set, tmp_path: Path) -> None:
    """And a password is neither in what is said, nor in the server's log."""
    name = made.source["globals"]
    wrong = replaced(made, tmp_path, name, lambda sql: sql + b"ALTER ROLE registry PASSWORD 'hidden' NONSENSE;\n")
    with pytest.raises(RestoreError, match="unrecognized role option") as found:
        wrong.globals(server)
    assert roles(other) == []
    assert "hidden" not in str(found.value)
    log = (other.base / "log").read_text()
    assert "hidden" not in log and "SCRAM" not in log
    cut = replaced(made, tmp_path / "cut", name, lambda sql: sql.rstrip().rpartition(b";")[0])
    with pytest.raises(RestoreError, match="in the middle of a statement"):
        cut.globals(server)
    assert roles(other) == []


def test_tablespaces_are_left_out(other: Cluster, server: postgres.Postgres, made: Set, tmp_path: Path) -> None:
    more = b"""CREATE TABLESPACE fast OWNER registry LOCATION '/srv/fast';\nALTER TABLESPACE fast SET (x=1);
GRANT ALL ON TABLESPACE fast TO registry;\n"""
    found = replaced(made, tmp_path, made.source["globals"], lambda sql: sql + more).globals(server)
    assert found.warnings == ["1 tablespaces were left out; all lies in the default one"]
    assert "registry" in found.made and other.sql("postgres", "SELECT count(*) FROM pg_tablespace") == "2"


# --- a restore that fails leaves nothing


def refused(made: Set, cluster: Cluster, server: postgres.Postgres, message: str) -> None:
    before = databases(cluster)
    with pytest.raises(RestoreError, match=message):
        made.database(server, "records", "again")
    assert databases(cluster) == before


def test_a_database_that_is_there(other: Cluster, server: postgres.Postgres, made: Set) -> None:
    other.sql("postgres", "CREATE DATABASE again")
    other.sql("again", "CREATE TABLE precious AS SELECT 1 AS x")
    refused(made, other, server, "there is a database 'again' already")
    assert other.sql("again", "SELECT x FROM precious") == "1"


def test_roles_that_are_missing(other: Cluster, server: postgres.Postgres, made: Set) -> None:
    refused(made, other, server, 'pg_restore ended with 1: .*role "registry" does not exist')


def test_members_that_are_bad(other: Cluster, server: postgres.Postgres, made: Set, tmp_path: Path) -> None:
    made.globals(server)
    name = made.entries["records"]["member"]
    cut = replaced(made, tmp_path / "cut", name, lambda dump: dump[:-3000])
    refused(cut, other, server, "pg_restore ended with 1: .*could not read from input file")
    cut = replaced(made, tmp_path / "head", name, lambda dump: dump[:1000])
    refused(cut, other, server, "pg_restore ended with 1: ")
    nothing = replaced(made, tmp_path / "none", name, lambda dump: b"")
    refused(nothing, other, server, "pg_restore ended with 1: ")
    # pg_restore is content before its end, and nobody else would notice.
    longer = replaced(made, tmp_path / "longer", name, lambda dump: dump + os.urandom(3_000_000))
    flip(longer.path / name)
    refused(longer, other, server, "cannot be decrypted")
    longer = replaced(made, tmp_path / "size", name, lambda dump: dump)
    member = longer.manifest.members[name]
    member = member._replace(plain_bytes=member.plain_bytes + 1)
    longer.manifest = longer.manifest._replace(members={**longer.manifest.members, name: member})
    refused(longer, other, server, "its content is not what the manifest says")


def test_keys(other: Cluster, server: postgres.Postgres, made: Set, tmp_path: Path) -> None:
    wrong = copy.copy(made)
    age_key(tmp_path / "wrong")
    wrong.key = str(tmp_path / "wrong")
    refused(wrong, other, server, "is not encrypted to this key; take the private key of one of its recipients")
    with pytest.raises(RestoreError, match="is not encrypted to this key"):
        wrong.globals(server)
    wrong.key = str(tmp_path / "none")
    refused(wrong, other, server, "cannot be decrypted")


def test_extensions_that_are_missing(other: Cluster, server: postgres.Postgres, made: Set) -> None:
    made.globals(server)
    wanted = copy.deepcopy(made)
    entry = wanted.entries["records"]
    entry["extensions"].update({"postgis_topology": "3.3.2", "plpython3u": "1.0", "vector": "0.4", "own": "1"})
    assert restore.check_extensions(server, entry) == [
        f"the database 'records' needs the extension {name}, and the server does not have it; install {package}"
        for name, package in (
            ("own", f"the package that brings it for PostgreSQL {MAJOR}"),
            ("plpython3u", f"the package postgresql-plpython3-{MAJOR}"),
            ("postgis_topology", f"the packages postgresql-{MAJOR}-postgis-3 and postgresql-{MAJOR}-postgis-3-scripts"),
            ("vector", f"the package postgresql-{MAJOR}-pgvector"),
        )
    ]
    refused(wanted, other, server, "needs the extension own, .*; the database 'records' needs the extension plpython3u")
    assert restore.check_extensions(server, made.entries["records"]) == []


def test_versions(other: Cluster, server: postgres.Postgres, made: Set, tmp_path: Path) -> None:
    assert restore.check_version(server, made.source) == ""
    assert restore.check_version(server, {**made.source, "version": 90600}) == ""
    newer = {**made.source, "version": 990003}
    said = restore.check_version(server, newer)
    assert said == f"the databases are of PostgreSQL 99, and the server here has version {MAJOR}; take one with version 99 or a later one"
    later = copy.copy(made)
    later.source = newer
    refused(later, other, server, "the databases are of PostgreSQL 99")
    with pytest.raises(RestoreError, match="connection to server on socket"):
        restore.check_version(server._replace(port=1), made.source)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "pg_restore is not of this version"),
        ('[ "$1" = --version ] && echo "pg_restore (PostgreSQL) 9.6.1"', "pg_restore is not of this version"),
        ('[ "$1" = --version ] && exec {real} "$@"; exit 0', "does not say how its database was made"),
        (
            'case "$*" in *--file=-* | --version) exec {real} "$@" ;; esac; head -c 5000 > /dev/null; echo no room >&2; exit 3',
            "ended with 3: no room",
        ),
    ],
)
def test_programs_that_are_none(
    other: Cluster, server: postgres.Postgres, made: Set, tmp_path: Path, script: str | None, message: str
) -> None:
    made.globals(server)
    programs = tmp_path / "programs"
    programs.mkdir()
    if script is not None:
        (programs / "pg_restore").write_text("#!/bin/sh\n" + script.replace("{real}", str(PROGRAMS / "pg_restore")) + "\n")
        (programs / "pg_restore").chmod(0o755)
    for path in (tmp_path, *tmp_path.parents):
        with contextlib.suppress(PermissionError):
            path.chmod(path.stat().st_mode | 0o055)
    refused(made, other, server._replace(programs=str(programs)), message)


# --- whether it is what it should be


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("DELETE FROM app.births WHERE id = 7", "the table app.births has 999 rows, and the set says 1000"),
        ("DELETE FROM app.births", "the table app.births has 0 rows, and the set says 1000"),
        ('DROP TABLE "Odd ""; T"', 'the table public.Odd "; T is missing; it had 1 rows'),
        ("CREATE TABLE more ()", "the table public.more is in no set"),
        ("SELECT lo_create(0)", "there are 2 large objects, and the set says 1"),
        ("DROP EXTENSION pg_trgm CASCADE", "the extension pg_trgm is missing"),
        ("UPDATE civitas_backup.canary SET nonce = 'x'", "the canary is not the one that was written before the set was made"),
    ],
)
def test_differences(other: Cluster, server: postgres.Postgres, made: Set, change: str, problem: str) -> None:
    made.globals(server)
    made.database(server, "records", "again")
    other.sql("again", change)
    assert restore.check_database(server, "again", made.entries["records"]) == [problem]


def test_more_differences(other: Cluster, server: postgres.Postgres, made: Set) -> None:
    made.globals(server)
    made.database(server, "records", "again")
    entry = made.entries["records"]
    # The sum of a partitioned table says nothing.
    other.sql("again", "UPDATE parts SET d = 16 WHERE d = 6")
    assert restore.check_database(server, "again", entry) == [
        "the table public.part1 has 1 rows, and the set says 2",
        "the table public.part2 has 2 rows, and the set says 1",
    ]
    other.sql("again", "UPDATE parts SET d = 6 WHERE d = 16; DROP SCHEMA civitas_backup CASCADE; CREATE UNLOGGED TABLE local ()")
    assert restore.check_database(server, "again", entry) == [
        "the table civitas_backup.canary is missing; it had 1 rows",
        "the canary is not the one that was written before the set was made",
    ]
    other.sql("postgres", "CREATE DATABASE plain TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    found = restore.check_database(server, "plain", {**entry, "rows": {}, "canary": None, "large_objects": 0, "extensions": {}})
    assert found == ["the encoding is LATIN1, and the set says UTF8", "the ctype is C, and the set says C.UTF-8"]
    assert restore.check_database(server, "plain", {**entry, "rows": {}, "encoding": "LATIN1", "ctype": "C"} | dict.fromkeys(("canary",)))[
        :1
    ] == ["there are 0 large objects, and the set says 1"]
    with pytest.raises(RestoreError, match='database "none" does not exist'):
        restore.check_database(server, "none", entry)


# --- what who owns a database could write into it


@pytest.fixture(name="hostile")
def _hostile(cluster: Cluster) -> Iterator[str]:
    """A database of a role that is no superuser, but would like to be one."""
    cluster.sql("postgres", "CREATE ROLE owner LOGIN")
    cluster.sql("postgres", "CREATE DATABASE hostile OWNER owner")
    try:
        yield "hostile"
    finally:
        cluster.sql("postgres", "DROP DATABASE IF EXISTS hostile WITH (FORCE)")
        cluster.sql("postgres", "DROP ROLE owner")


FORGED = """
--
-- Name: x; Type: DATABASE PROPERTIES; Schema: -; Owner: owner
--

ALTER ROLE owner SUPERUSER;
\\! touch {}/pwned
"""
HEAD = "-- Name: a; Type: TABLE; Schema: b; Owner: c\n"


@pytest.mark.parametrize(
    "query",
    [
        "SET ROLE owner; SET check_function_bodies = off; CREATE SCHEMA own;"
        f"CREATE FUNCTION own.f() RETURNS text LANGUAGE sql AS $x${FORGED}{HEAD}$x$",
        f"SET ROLE owner; COMMENT ON DATABASE hostile IS '{HEAD}{FORGED}'; RESET ROLE;"
        f"ALTER DATABASE hostile SET my.thing TO '{FORGED}{HEAD}'",
    ],
    ids=["function", "comment"],
)
def test_what_looks_like_a_part_of_the_dump(
    cluster: Cluster, other: Cluster, server: postgres.Postgres, hostile: str, tmp_path: Path, query: str
) -> None:
    """What anybody may write into a database is run by no superuser of a restore."""
    cluster.sql(hostile, query.replace("{}", str(other.base)))
    made = Set(tmp_path, cluster, (hostile,))
    made.globals(server)
    made.database(server, hostile, "again")
    assert other.sql("postgres", "SELECT rolsuper FROM pg_roles WHERE rolname = 'owner'") == "f"
    assert not (other.base / "pwned").exists()
    assert about(other, "again") == about(cluster, hostile)
