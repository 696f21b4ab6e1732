# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A dump of PostgreSQL that others made, into a new database beside those that are there.

Private to the collection: no promise of stability. Standard library only.

Such a dump comes without a list of its rows, so those that are in the dump are counted, and compared with those that the database then has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import ArchiveError
from ansible_collections.civitas.hosting.plugins.module_utils._import_dump import Dump, Table, find_pg_restore, read_dump

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ENCODING = re.compile(r"[A-Za-z0-9_]+")
# Indexes, and the journal of what is written.
_ROOM = 3
_TABLES = """
SELECT json_build_array(n.nspname, c.relname, format('SELECT count(*) FROM ONLY %I.%I', n.nspname, c.relname),
  EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema$)' ORDER BY 1::text;
"""


class Server(t.NamedTuple):
    """A server of this host.

    Attributes:
        via: words before each command, by which it is asked as its superuser.
        socket: directory of its socket; empty for psql's own.
    """

    via: t.Tuple[str, ...] = ("runuser", "-u", "postgres", "--")
    socket: str = ""
    port: int = 5432


def restore(server: Server, path: str, name: str, owners: bool) -> t.Dict[Table, int]:
    """Make the database C(name) from the dump in a file, and return the rows of its tables.

    All of the dump is read before anything is made, and of a database that did not come out whole nothing is left.

    Args:
        owners: who owns what, and who may do what, is as in the dump; its roles must be there. Else all belongs to the superuser.

    Raises:
        ArchiveError: it cannot be had; the text says why.
        OSError: the file cannot be read.
    """
    if not _NAME.fullmatch(name):
        raise ArchiveError(f"{name!r} is no name for a new database; take lower-case letters, digits and underscores")
    with open(path, "rb", buffering=0) as file:
        dump = read_dump(t.cast(t.Any, file))
    _judge(server, name, dump)
    if not _ENCODING.fullmatch(dump.encoding):
        raise ArchiveError(f"the dump has the encoding {dump.encoding!r}")
    _psql(server, "postgres", f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{dump.encoding}';")
    try:
        _fill(server, path, name, owners)
        rows, extensions = _count(server, name)
        _compare(dump, rows, extensions)
        _psql(server, name, "ANALYZE;")
        return rows
    except BaseException:
        _psql(server, "postgres", f"DROP DATABASE IF EXISTS {name};")
        raise


def _judge(server: Server, name: str, dump: Dump) -> None:
    """Raises ArchiveError before anything is made."""
    about = json.loads(
        _psql(
            server,
            "postgres",
            "SELECT json_build_object('major', current_setting('server_version_num')::int / 10000,"
            " 'directory', current_setting('data_directory'), 'recovery', pg_is_in_recovery(),"
            f" 'there', EXISTS (SELECT 1 FROM pg_database WHERE datname = '{name}'));",
        )
    )
    if about["there"]:
        raise ArchiveError(f"there is a database {name} already; a dump is restored to the side of what there is")
    if about["recovery"]:
        raise ArchiveError("the server is a replica; take its primary")
    if dump.major > about["major"]:
        raise ArchiveError(
            f"the dump is of PostgreSQL {dump.major}, and the server of {about['major']}; take a server of {dump.major} or later"
        )
    disk = os.statvfs(about["directory"])
    free, needed = disk.f_bavail * disk.f_frsize, dump.sql_bytes * _ROOM
    if free < needed:
        raise ArchiveError(f"{about['directory']} has {free} bytes free, and the database may need {needed}")


def _fill(server: Server, path: str, name: str, owners: bool) -> None:
    """Raises ArchiveError."""
    command = [*server.via, find_pg_restore(), "--exit-on-error", *_where(server), "--dbname", name]
    if not owners:
        command += ["--no-owner", "--no-privileges"]
    # It is read here, as the superuser of the database may not.
    with open(path, "rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, check=False, cwd="/")
    if done.returncode != 0:
        text = " ".join(done.stderr.decode("utf-8", "replace").split())[:500]
        hint = "; make the roles that it names first, or take --without-owners" if owners and "role " in text else ""
        raise ArchiveError(f"{name} was not made: pg_restore: {text}{hint}")


def _count(server: Server, name: str) -> t.Tuple[t.Dict[Table, int], t.Set[Table]]:
    """The rows of all tables, and the tables that are an extension's and not counted."""
    tables = [json.loads(line) for line in _psql(server, name, _TABLES).splitlines()]
    extensions = {(schema, table) for schema, table, _query, extension in tables if extension}
    counted = [one for one in tables if not one[3]]
    answers = _psql(server, name, "".join(f"{query};\n" for _schema, _table, query, _extension in counted)).split() if counted else []
    return {(one[0], one[1]): int(answer) for one, answer in zip(counted, answers)}, extensions


def _compare(dump: Dump, rows: t.Mapping[Table, int], extensions: t.Container[Table]) -> None:
    """Raises ArchiveError."""
    wrong = [
        f"{'.'.join(table)} has {rows.get(table, 'no')} rows of {count}"
        for table, count in dump.rows.items()
        if table not in extensions and rows.get(table) != count
    ]
    if wrong:
        raise ArchiveError(f"the database is not what the dump holds: {'; '.join(wrong[:5])}")


def _where(server: Server) -> t.List[str]:
    return [*(["--host", server.socket] if server.socket else []), "--port", str(server.port), "--no-password"]


def _psql(server: Server, database: str, sql: str) -> str:
    """What a query answers, one row a line. Raises ArchiveError."""
    command = [*server.via, "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", *_where(server), "--dbname", database]
    done = subprocess.run(
        command,
        # Functions are the server's own, and not what the dump has brought under their names.
        input=f"SET search_path = pg_catalog;\n{sql}".encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
        cwd="/",
        env={**os.environ, "PGCLIENTENCODING": "UTF8"},
    )
    if done.returncode != 0:
        raise ArchiveError(f"psql: {' '.join(done.stderr.decode('utf-8', 'replace').split())[:300]}")
    return done.stdout.decode("utf-8", "surrogateescape")
