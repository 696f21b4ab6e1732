# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases of a PostgreSQL server as members of sets: dumps, and row counts of the very same snapshot.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import tempfile
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._backup_command import dump, said
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Member, file_name
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import SourceError, Writer
from ansible_collections.civitas.hosting.plugins.module_utils._restore_names import is_database as is_of_restore

SCHEMA = "civitas_backup"
_LOCK_SECONDS = 60
_DUMP_BEGINS = b"PGDMP"
_GLOBALS_END = b"-- PostgreSQL database cluster dump complete"
_TABLES = """
SELECT json_build_object('schema', n.nspname, 'name', c.relname, 'sql', format('%I.%I', n.nspname, c.relname))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND c.relpersistence IN ('p', {unlogged}) AND n.nspname !~ '^(pg_|information_schema$)'
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1::text;
"""
# What a database or a role sets for applications would end a session that counts, or that keeps a snapshot; pg_dump does so for itself.
_PATIENCE = """
SELECT json_build_object(name, set_config(name, '0', false)) FROM pg_settings WHERE name IN
  ('statement_timeout', 'lock_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout');
SET default_transaction_read_only = off;
"""
_SERVER = """
SELECT json_build_object('version', current_setting('server_version_num')::int, 'recovery', pg_is_in_recovery(),
  'lag', CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
    THEN coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), -1) END,
  'receiving', NOT pg_is_in_recovery() OR EXISTS (SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  'superuser', current_setting('is_superuser'));
"""
_DATABASES = """
SELECT json_build_object('name', datname, 'connects', datallowconn) FROM pg_database WHERE NOT datistemplate ORDER BY datname;
"""
_DATABASE = """
SELECT json_build_object('encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,
  'bytes', pg_database_size(oid),
  'large_objects', (SELECT count(*) FROM pg_largeobject_metadata),
  'extensions', (SELECT coalesce(json_object_agg(extname, extversion), '{}') FROM pg_extension))
FROM pg_database WHERE datname = current_database();
"""
# Whose it is; nothing where there is none.
_CANARY = f"""
SELECT json_build_object(
  'schema', (SELECT r.rolsuper FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = '{SCHEMA}'),
  'table', (SELECT r.rolsuper AND c.relkind = 'r' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_roles r ON r.oid = c.relowner WHERE n.nspname = '{SCHEMA}' AND c.relname = 'canary'));
"""


class PostgresError(SourceError):
    """The databases are not in the set; the text says why."""


class Postgres(t.NamedTuple):
    """A declared server.

    Attributes:
        via: words before each command, such as C(runuser -u postgres --) or C(docker exec -i -u postgres NAME).
        programs: directory of pg_dump; C({major}) stands for the server's version. Empty for what the search path has.
        socket: directory of its socket, or a host; empty for psql's own.
        databases: those that are to be there.
        exclude: those that may be there and are left out.
        canary: a row with a new number is written into each database before.
        max_lag: seconds that a replica may be behind.
    """

    name: str
    databases: t.Tuple[str, ...]
    exclude: t.Tuple[str, ...] = ()
    via: t.Tuple[str, ...] = ("runuser", "-u", "postgres", "--")
    programs: str = "/usr/lib/postgresql/{major}/bin"
    socket: str = ""
    port: int = 5432
    canary: bool = True
    max_lag: float = 300.0


class Made(t.NamedTuple):
    """What came of a server: its part of the manifest, and its members."""

    source: t.Dict[str, t.Any]
    members: t.List[Member]
    warnings: t.List[str]


def make(server: Postgres, open_member: t.Callable[[str], Writer], close_member: t.Callable[[Writer], Member]) -> Made:
    """Dump all declared databases, each in one snapshot, all of them taken at the same moment.

    Raises:
        PostgresError: something of it could not be had, so all of it counts as failed.
        PipeError: a member cannot be made.
    """
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(open_session(server, "postgres"))
        about = first.one(_SERVER)
        warnings = _judge(server, about)
        _compare(server, first.all(_DATABASES))
        if "postgres" not in (*server.databases, *server.exclude) and first.all(_TABLES.replace("{unlogged}", "'u'")):
            raise PostgresError("the database 'postgres' holds tables; move them to a database that is declared, or exclude it by name")
        major = about["version"] // 10000
        programs = server.programs.format(major=major)
        for program in ("pg_dump", "pg_dumpall"):
            same_version(server, programs, program, major)
        canaries = dict.fromkeys(server.databases, "")
        if server.canary and not about["recovery"]:
            canaries = {name: _write_canary(server, name) for name in server.databases}
        sessions = {name: stack.enter_context(open_session(server, name)) for name in server.databases}
        snapshots = {name: session.begin() for name, session in sessions.items()}
        tables = {name: session.lock_all(about["recovery"]) for name, session in sessions.items()}
        made = []
        for name in server.databases:
            command = [*command_of(server, programs, "pg_dump"), "--format=custom", "--compress=0", f"--snapshot={snapshots[name]}"]
            command += [f"--lock-wait-timeout={_LOCK_SECONDS}s", "--no-password", "--dbname", connection(server, name)]
            member = f"db-{file_name(server.name)}-{file_name(name)}.dump.zst.age"
            if about["recovery"]:
                # A replica has none of it.
                command.append("--no-unlogged-table-data")
            made.append((name, dump(command, open_member(member), close_member, begins=_DUMP_BEGINS)))
        databases = [
            {
                **sessions[name].one(_DATABASE),
                "name": name,
                "member": member.name,
                "rows": sessions[name].count(tables[name]),
                "canary": canaries[name] or None,
            }
            for name, member in made
        ]
        command = [*command_of(server, programs, "pg_dumpall"), "--globals-only", "--no-password"]
        command += ["--dbname", connection(server, "postgres")]
        member = f"db-{file_name(server.name)}-globals.sql.zst.age"
        everybody = dump(command, open_member(member), close_member, ends=_GLOBALS_END)
    members = [everybody, *(member for _name, member in made)]
    source = {
        "kind": "postgres",
        "name": server.name,
        "version": about["version"],
        "replica": about["recovery"],
        "globals": everybody.name,
        "members": [member.name for member in members],
        "databases": databases,
    }
    return Made(source, members, warnings)


def _judge(server: Postgres, about: t.Mapping[str, t.Any]) -> t.List[str]:
    """Raises PostgresError when the server cannot give what is asked for."""
    if about["superuser"] != "on":
        raise PostgresError("the user of the backup is no superuser, so it does not see all of a database")
    if not about["recovery"]:
        return []
    lag = float(about["lag"] or 0)
    if lag > server.max_lag or lag < 0:
        raise PostgresError(f"the server is a replica, and {f'{lag:.0f} seconds' if lag > 0 else 'nobody knows how far'} behind")
    if not about["receiving"]:
        raise PostgresError("the server is a replica, and gets nothing from its primary")
    return ["the server is a replica, so no canary was written"] if server.canary else []


def _compare(server: Postgres, found: t.Sequence[t.Mapping[str, t.Any]]) -> None:
    """Raises PostgresError unless there is what was declared, and nothing else."""
    there = {one["name"]: one["connects"] for one in found}
    gone = [name for name in server.databases if not there.get(name)]
    if gone:
        raise PostgresError(f"the declared database {_list(gone)} is not there, or takes no connections")
    # What a restore has put aside is no data of this host.
    more = [name for name in there if name not in (*server.databases, *server.exclude, "postgres") and not is_of_restore(name)]
    if more:
        raise PostgresError(f"nobody has declared the database {_list(more)}; declare it, or exclude it by name")


def _list(names: t.Sequence[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def same_version(server: Postgres, programs: str, program: str, major: int) -> None:
    """Raises PostgresError unless a program is of the server's own major version."""
    command = [*command_of(server, programs, program), "--version"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60, cwd="/")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PostgresError(f"{program} does not run: {error}") from error
    found = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    if done.returncode != 0 or not found or int(found[1]) != major:
        shown = " ".join((done.stdout or done.stderr).split())[:200]
        advice = f"install postgresql-client-{major}"
        raise PostgresError(f"the server has version {major}, and {program} is not of this version: {shown}; {advice}")


def command_of(server: Postgres, programs: str, program: str) -> t.List[str]:
    """The words that run one of the server's programs; C(programs) is their directory."""
    return [*server.via, os.path.join(programs, program) if programs else program]


def connection(server: Postgres, database: str) -> str:
    """What psql and its siblings take as C(--dbname)."""
    values = {"dbname": database, "port": str(server.port), "connect_timeout": "10", "application_name": "civitas-backup"}
    if server.socket:
        values["host"] = server.socket
    return " ".join("{}='{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'")) for name, value in values.items())


def _write_canary(server: Postgres, database: str) -> str:
    """Raises PostgresError."""
    nonce = os.urandom(16).hex()
    with open_session(server, database) as session:
        session.all(f"BEGIN; SET LOCAL lock_timeout = '{_LOCK_SECONDS}s';")
        schema, table = canary_there(session, database)
        if not schema:
            session.all(f"CREATE SCHEMA {SCHEMA};")
        if not table:
            session.all(f"CREATE TABLE {SCHEMA}.canary (nonce text NOT NULL, written timestamptz NOT NULL DEFAULT now());")
        session.all(f"DELETE FROM {SCHEMA}.canary; INSERT INTO {SCHEMA}.canary (nonce) VALUES ('{nonce}'); COMMIT;")
    return nonce


def canary_there(session: Session, database: str) -> t.Tuple[bool, bool]:
    """Whether there are the schema and the table of the canary.

    Raises:
        PostgresError: they are of somebody who is no superuser. What he has put there, such as a trigger, would be run by one.
    """
    there = session.one(_CANARY)
    if False in there.values():
        raise PostgresError(
            f"{database}: the schema {SCHEMA}, or canary in it, is not of a superuser;"
            " look who made it, and drop it: the backup makes its own"
        )
    return there["schema"] is not None, there["table"] is not None


@contextlib.contextmanager
def open_session(server: Postgres, database: str) -> t.Iterator[Session]:
    """Raises PostgresError."""
    session = Session(server, database)
    try:
        yield session
    finally:
        session.close()


class Session:
    """A psql that stays, as a snapshot lives as long as its transaction."""

    def __init__(self, server: Postgres, database: str) -> None:
        self._database = database
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as psql
        command = [*server.via, "psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", connection(server, database)]
        try:
            self._psql = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, cwd="/")
        except OSError as error:
            raise PostgresError(f"{error.filename}: {error.strerror}") from error
        try:
            self.all("\\encoding UTF8\nSET client_min_messages = 'error'; SET search_path = 'pg_catalog';")
            self.all(_PATIENCE)
        except PostgresError:
            self.close()
            raise

    def all(self, query: str) -> t.List[t.Dict[str, t.Any]]:
        """All rows of a query that gives objects of JSON. Raises PostgresError."""
        mark = f"end-{os.urandom(8).hex()}"
        stdin, stdout = t.cast(t.IO[bytes], self._psql.stdin), t.cast(t.IO[bytes], self._psql.stdout)
        found: t.List[t.Dict[str, t.Any]] = []
        try:
            stdin.write(f"{query}\n\\echo {mark}\n".encode("utf-8", "surrogateescape"))
            stdin.flush()
            for line in stdout:
                text = line.decode("utf-8", "surrogateescape").rstrip("\n")
                if text == mark:
                    return found
                if text:
                    found.append(json.loads(text))
        except (OSError, ValueError) as error:
            if self._psql.poll() is None:
                raise PostgresError(f"{self._database}: psql: {error}") from error
        self._psql.wait()
        raise PostgresError(f"{self._database}: {said(self._errors)}")

    def one(self, query: str) -> t.Dict[str, t.Any]:
        return self.all(query)[0]

    def begin(self) -> str:
        """The name of the snapshot in which all that this session reads lies from now on."""
        self.all(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL lock_timeout = '{_LOCK_SECONDS}s';")
        return str(self.one("SELECT json_build_object('id', pg_export_snapshot());")["id"])

    def lock_all(self, recovery: bool) -> t.List[t.Dict[str, str]]:
        """All tables; none of them can be dropped before the end."""
        tables = self.all(_TABLES.replace("{unlogged}", "'p'" if recovery else "'u'"))
        for begin in range(0, len(tables), 100):
            names = ", ".join(f"ONLY {table['sql']}" for table in tables[begin : begin + 100])
            self.all(f"LOCK TABLE {names} IN ACCESS SHARE MODE;")
        return tables

    def count(self, tables: t.Sequence[t.Mapping[str, str]]) -> t.Dict[str, int]:
        query = "SELECT json_build_object('rows', count(*)) FROM ONLY {};"
        return {f"{table['schema']}.{table['name']}": int(self.one(query.format(table["sql"]))["rows"]) for table in tables}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            t.cast(t.IO[bytes], self._psql.stdin).close()
        try:
            self._psql.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._psql.kill()
            self._psql.wait()
        t.cast(t.IO[bytes], self._psql.stdout).close()
        self._errors.close()
