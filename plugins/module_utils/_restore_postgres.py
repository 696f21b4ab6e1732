# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases out of a set into a server of PostgreSQL, to the side of what is there, and whether they are what the set says.

Private to the collection: no promise of stability. Standard library only.

Nothing is in plain text on a disk outside of the server's own: members go through pipes. Only sets that are proven belong here: what is
in a dump is run by a superuser.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._backup_command import said
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK, Manifest
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, Reader, WrongKeyError, reader
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import (
    SCHEMA,
    Postgres,
    PostgresError,
    Session,
    canary_there,
    command_of,
    connection,
    open_session,
    same_version,
)

Source = t.Mapping[str, t.Any]
# Of roles there are hundreds, not millions.
_GLOBALS_BYTES = 64 * 2**20
_NAME = r'(?:"(?:[^"]|"")*"|[^\s";]+)'
_ROLE = re.compile(rf"(?:CREATE|ALTER) ROLE ({_NAME})(?: |$)|COMMENT ON ROLE ({_NAME}) IS |SECURITY LABEL .* ON ROLE ({_NAME}) IS ")
_MEMBERSHIP = re.compile(rf"GRANT ({_NAME}) TO ({_NAME})(?: |$)")
_TABLESPACE = re.compile(r"(?:CREATE|ALTER) TABLESPACE |(?:COMMENT|GRANT|REVOKE|SECURITY LABEL) .*\bON TABLESPACE ")
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|^\\[^\n]*$|;|[^'"\\;-]+|.""", re.S | re.M)
# What Debian does not have in the server's own package.
_PACKAGES = {
    "age": "age",
    "hll": "hll",
    "hypopg": "hypopg",
    "ip4r": "ip4r",
    "orafce": "orafce",
    "pg_cron": "cron",
    "pg_partman": "partman",
    "pg_repack": "repack",
    "pg_similarity": "similarity",
    "pgaudit": "pgaudit",
    "pgrouting": "pgrouting",
    "rum": "rum",
    "unit": "unit",
    "vector": "pgvector",
}
_LANGUAGES = {"plperl": "plperl", "plperlu": "plperl", "plpython3u": "plpython3", "pltcl": "pltcl", "pltclu": "pltcl"}


class RestoreError(Exception):
    """The databases could not be restored; the text says why, and nothing half restored is left."""


class Globals(t.NamedTuple):
    """What came of the roles: those that were made, those that were there before, and what was left out."""

    made: t.List[str]
    kept: t.List[str]
    warnings: t.List[str]


# --- whether it can be


def check_version(server: Postgres, source: Source) -> str:
    """Why this server cannot take the databases of C(source), a server's part of a manifest; empty when it can. Raises RestoreError."""
    with _told():
        there, major = _major(server), int(source["version"]) // 10000
    if there >= major:
        return ""
    return f"the databases are of PostgreSQL {major}, and the server here has version {there}; take one with version {major} or a later one"


def check_extensions(server: Postgres, entry: Source) -> t.List[str]:
    """Which extensions of a database this server cannot make, and what brings them. Raises RestoreError."""
    with _told(), open_session(server, "postgres") as session:
        there = {one["name"] for one in session.all("SELECT json_build_object('name', name) FROM pg_available_extensions;")}
        major = _major(server, session)
    return [
        f"the database {entry['name']!r} needs the extension {name}, and the server does not have it; install {_package(name, major)}"
        for name in sorted(entry["extensions"])
        if name not in there
    ]


def _package(extension: str, major: int) -> str:
    if extension.startswith("postgis") or extension == "address_standardizer":
        return f"the packages postgresql-{major}-postgis-3 and postgresql-{major}-postgis-3-scripts"
    if extension in _LANGUAGES:
        return f"the package postgresql-{_LANGUAGES[extension]}-{major}"
    if extension in _PACKAGES:
        return f"the package postgresql-{major}-{_PACKAGES[extension]}"
    return f"the package that brings it for PostgreSQL {major}"


def _major(server: Postgres, session: t.Optional[Session] = None) -> int:
    if session is None:
        with open_session(server, "postgres") as own:
            return _major(server, own)
    return int(session.one("SELECT json_build_object('version', current_setting('server_version_num')::int);")["version"]) // 10000


@contextlib.contextmanager
def _told() -> t.Iterator[None]:
    try:
        yield
    except WrongKeyError as error:
        raise RestoreError(f"{error}; take the private key of one of its recipients") from error
    except (PostgresError, PipeError) as error:
        raise RestoreError(str(error)) from error
    except OSError as error:
        raise RestoreError(f"{error.filename or 'a program'}: {error.strerror}") from error


# --- roles


def restore_globals(server: Postgres, directory: str, manifest: Manifest, source: Source, identity: str, existing: bool = False) -> Globals:
    """Make the roles of a server that are missing, all or none.

    Tablespaces are left out: they are directories of the host that the set comes from.

    Args:
        directory: of the set.
        source: the server's part of the manifest.
        identity: file with a private key of age.
        existing: roles that are there get the password, the attributes and the memberships of the set, too.

    Raises:
        RestoreError: no role was made or changed.
    """
    with _told():
        member = manifest.members[source["globals"]]
        if member.plain_bytes > _GLOBALS_BYTES:
            raise RestoreError(f"{member.name} is too large to hold nothing but roles")
        with reader(os.path.join(directory, member.name), member, identity) as stream:
            text = b"".join(iter(lambda: stream.read(CHUNK), b"")).decode("utf-8", "surrogateescape")
        with open_session(server, "postgres") as session:
            # A password is neither repeated by an error, nor written into the server's log.
            session.all("\\set VERBOSITY terse")
            session.all("SET log_statement = 'none'; SET log_min_error_statement = 'panic'; SET log_min_duration_statement = -1;")
            there = {one["name"] for one in session.all("SELECT json_build_object('name', rolname) FROM pg_roles;")}
            chosen = _choose(text, there, existing)
            session.all("BEGIN;")
            for statement in chosen.statements:
                session.all(f"{statement};")
            session.all("COMMIT;")
    return Globals(sorted(chosen.named - there), sorted(chosen.named & there), chosen.warnings)


class _Chosen(t.NamedTuple):
    statements: t.List[str]
    named: t.Set[str]
    warnings: t.List[str]


def _choose(text: str, there: t.Set[str], existing: bool) -> _Chosen:
    """What of the statements of pg_dumpall is to be run where the roles C(there) are."""
    chosen, named, tablespaces = [], set(), 0
    for statement in statements(text, "the roles in the set end"):
        role, membership = _ROLE.match(statement), _MEMBERSHIP.match(statement)
        if _TABLESPACE.match(statement):
            tablespaces += statement.startswith("CREATE")
            continue
        if role:
            name = _unquoted(role[1] or role[2] or role[3])
            named.add(name)
            if name in there and (not existing or statement.startswith("CREATE")):
                continue
        elif membership and not existing and {_unquoted(membership[1]), _unquoted(membership[2])} <= there:
            continue
        chosen.append(statement)
    warnings = [f"{tablespaces} tablespaces were left out; all lies in the default one"] if tablespaces else []
    return _Chosen(chosen, named, warnings)


def statements(text: str, what: str) -> t.Iterator[str]:
    """The statements of a script without bodies of functions, without comments and without what is for psql.

    Raises:
        RestoreError: C(what) in the middle of a statement.
    """
    parts: t.List[str] = []
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token == ";":
            yield "".join(parts).strip()
            parts = []
        elif not token.startswith("--") and not (token.startswith("\\") and len(token) > 1):
            parts.append(token)
    if "".join(parts).strip():
        raise RestoreError(f"{what} in the middle of a statement")


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"{}"'.format(name.replace('"', '""'))


# --- databases


def restore_database(
    server: Postgres, directory: str, manifest: Manifest, source: Source, entry: Source, identity: str, new_name: str
) -> None:
    """Make the new database C(new_name) of what a set holds of a database; its owner, rights, settings and locale are those of the set.

    Roles come first, see C(restore_globals).

    Args:
        directory: of the set.
        source: the server's part of the manifest, C(entry) the database's.
        identity: file with a private key of age.

    Raises:
        RestoreError: there is no new database.
    """
    with _told():
        member = manifest.members[entry["member"]]
        path = os.path.join(directory, member.name)
        problems = [check_version(server, source), *check_extensions(server, entry)]
        if any(problems):
            raise RestoreError("; ".join(filter(None, problems)))
        major = _major(server)
        programs = server.programs.format(major=major)
        same_version(server, programs, "pg_restore", major)
        command = [*command_of(server, programs, "pg_restore"), "--exit-on-error", "--no-password", "--no-tablespaces"]
        # Before the database is made, so that the bytes of the head are all that was read when something is wrong with it.
        about = _About(entry["name"], new_name)
        with contextlib.suppress(_Enough), reader(path, member, identity) as stream:
            # Of a schema that nobody has: pg_restore prints what is about the database itself, and nothing of what is in it.
            only = ["--create", "--schema-only", f"--schema={os.urandom(16).hex()}", "--file=-"]
            _feed([*command, *only], stream, about.line, member.name)
            raise _Enough
        with open_session(server, "postgres") as session:
            if session.all(f"SELECT json_build_object('name', datname) FROM pg_database WHERE datname = {_literal(new_name)};"):
                raise RestoreError(f"there is a database {new_name!r} already; a database is restored to the side of what there is")
            session.all(about.create())
            try:
                with reader(path, member, identity) as stream:
                    _feed([*command, "--dbname", connection(server, new_name)], stream, lambda line: None, member.name)
                session.all(about.others)
            except BaseException:
                drop_database(server, new_name)
                raise


def drop_database(server: Postgres, name: str) -> None:
    """Remove a database, whoever uses it. Raises RestoreError."""
    with _told(), open_session(server, "postgres") as session:
        session.all(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE);")


def _literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


class _Enough(Exception):
    """The rest of a member is not read, so nobody proves it."""


class _About:
    """What a dump says of the database itself: how it was made, who owns it, who may use it, its settings.

    Its text is of people who are no superusers, such as the comment. So it is read as SQL: what looks like a statement inside of one
    is none.

    Args:
        name: of the database in the dump.
        new_name: the one that takes its place in all of it.
    """

    def __init__(self, name: str, new_name: str) -> None:
        self._names = re.compile(rf"\bDATABASE (?:{re.escape(quoted(name))}|{re.escape(name)})(?= )")
        self._new = f"DATABASE {quoted(new_name)}"
        self._lines: t.List[bytes] = []

    def line(self, line: bytes) -> None:
        """Takes the lines of pg_restore's script, one by one."""
        self._lines.append(line)

    def create(self) -> str:
        """The statement that makes the database. Raises RestoreError."""
        found = [one for one in self._statements() if one.startswith("CREATE DATABASE ")]
        if len(found) != 1:
            raise RestoreError("the dump does not say how its database was made")
        return f"{found[0]};"

    @property
    def others(self) -> str:
        """What is to be run when the data are there: before, a setting could change how they are read."""
        return "".join(f"{one};\n" for one in self._statements() if not one.startswith("CREATE DATABASE "))

    def _statements(self) -> t.Iterator[str]:
        """Those about the database, and none of those by which pg_restore prepares its own session."""
        # Names of databases are the same bytes everywhere, whatever their encoding is.
        for statement in statements(b"".join(self._lines).decode("utf-8", "surrogateescape"), "the head of the dump ends"):
            if re.match("CREATE|ALTER|COMMENT|SECURITY|GRANT|REVOKE", statement):
                text, count = self._names.subn(lambda match: self._new, statement, count=1)
                if count:
                    yield text


def _feed(command: t.Sequence[str], stream: Reader, take: t.Callable[[bytes], None], name: str) -> None:
    """Run pg_restore on a stream, as much of which is read as it wants; C(take) gets the lines that it prints.

    Raises:
        RestoreError: it failed.
        PipeError: the stream is not what it should be.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd="/")
        stdin, stdout = t.cast(t.IO[bytes], process.stdin), t.cast(t.IO[bytes], process.stdout)

        def listen() -> None:
            for line in stdout:
                take(line)

        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        try:
            # When it wants no more, its status says whether that is right.
            with contextlib.suppress(BrokenPipeError):
                for data in iter(lambda: stream.read(CHUNK), b""):
                    stdin.write(data)
                    stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            status = process.wait()
            listener.join()
        finally:
            with contextlib.suppress(OSError):
                stdin.close()
            if process.poll() is None:
                # Not killed: runuser would leave pg_restore behind.
                process.terminate()
                process.wait()
            listener.join()
            stdout.close()
        if status != 0:
            # What follows these words quotes rows of tables.
            words = re.split(r" (?:DETAIL|CONTEXT):", said(errors))[0]
            raise RestoreError(f"{name}: pg_restore ended with {status}: {words}")


# --- whether it is what it should be


def check_database(server: Postgres, name: str, entry: Source) -> t.List[str]:
    """What of the database C(name) is not as C(entry), its part of the manifest, says. Raises RestoreError."""
    with _told(), open_session(server, name) as session:
        session.begin()
        tables = session.lock_all(False)
        rows = session.count(tables)
        logged = {f"{table['schema']}.{table['name']}" for table in session.lock_all(True)}
        about = session.one(
            "SELECT json_build_object('encoding', pg_encoding_to_char(encoding), 'collate', datcollate, 'ctype', datctype,"
            " 'large_objects', (SELECT count(*) FROM pg_largeobject_metadata), 'extensions', (SELECT json_agg(extname) FROM pg_extension))"
            " FROM pg_database WHERE datname = current_database();"
        )
        _schema, there = canary_there(session, name)
        canaries = session.all(f"SELECT json_build_object('nonce', nonce) FROM {SCHEMA}.canary;") if there else []
    problems = []
    for table, wanted in sorted(entry["rows"].items()):
        if table not in rows:
            problems.append(f"the table {table} is missing; it had {wanted} rows")
        elif rows[table] != wanted:
            problems.append(f"the table {table} has {rows[table]} rows, and the set says {wanted}")
    # A replica's set has no unlogged tables, and its dump makes them, empty.
    problems += [f"the table {table} is in no set" for table in sorted(logged - set(entry["rows"]))]
    if about["large_objects"] != entry["large_objects"]:
        problems.append(f"there are {about['large_objects']} large objects, and the set says {entry['large_objects']}")
    for key in ("encoding", "collate", "ctype"):
        if about[key] != entry[key]:
            problems.append(f"the {key} is {about[key]}, and the set says {entry[key]}")
    problems += [f"the extension {extension} is missing" for extension in sorted(set(entry["extensions"]) - set(about["extensions"]))]
    if entry["canary"] is not None and [one["nonce"] for one in canaries] != [entry["canary"]]:
        problems.append("the canary is not the one that was written before the set was made")
    return problems


def recount(server: Postgres, name: str, entry: Source) -> t.Dict[str, t.Any]:
    """C(entry), the part of a manifest about the database C(name), with what is there now that somebody has altered it.

    What was altered is in no file of the database any more. Raises RestoreError.
    """
    with _told(), open_session(server, name) as session:
        session.all("VACUUM FULL;")
        session.begin()
        rows = session.count(session.lock_all(False))
        objects = session.one("SELECT json_build_object('count', count(*)) FROM pg_largeobject_metadata;")["count"]
    return {**entry, "rows": rows, "large_objects": objects, "canary": None}
