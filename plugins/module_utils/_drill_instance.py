# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server of PostgreSQL that is thrown away: in a directory of its own, reached by a socket in it alone, never the host's own server.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import subprocess
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres, PostgresError, open_session

PORT = 5432
_SECONDS = 300
# It lives for minutes: what keeps data over a power failure only costs time. Nothing runs in it by itself.
_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "20",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "jit": "off",
    "logging_collector": "off",
    "log_timezone": "UTC",
}
_ROLES = """
SELECT json_build_object('name', r.rolname, 'login', r.rolcanlogin, 'super', r.rolsuper,
  'connects', has_database_privilege(r.oid, d.oid, 'CONNECT'), 'expired', coalesce(r.rolvaliduntil < now(), false),
  'tables', (SELECT coalesce(json_agg(format('%I.%I', n.nspname, c.relname)), '[]') FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND NOT c.relrowsecurity AND n.nspname !~ '^(pg_|information_schema$|civitas_backup$)'
      AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_table_privilege(r.oid, c.oid, 'SELECT')))
FROM pg_roles r, pg_database d WHERE d.datname = current_database() AND r.rolname !~ '^pg_' ORDER BY r.rolname;
"""


class InstanceError(Exception):
    """There is no server; the text says why."""


class Logins(t.NamedTuple):
    """Who could log in to a database and read all that it may read, and what went wrong."""

    roles: t.List[str]
    problems: t.List[str]


class Instance:
    """A server that is thrown away.

    Args:
        directory: new; all of it lies there. Who starts it must be able to get there.
        programs: directory of PostgreSQL's programs, with C({major}) for the version.
        via: words before each command; they make it the user of the system that the server runs as.
        settings: further ones, such as C(shared_preload_libraries).
    """

    def __init__(self, directory: str, programs: str, via: t.Sequence[str], settings: t.Mapping[str, str]) -> None:
        self.directory = directory
        self._data = os.path.join(directory, "data")
        self._programs = programs
        self._via = tuple(via)
        self._settings = {**_SETTINGS, "unix_socket_directories": directory, **settings}

    def server(self, name: str) -> Postgres:
        """How it is reached."""
        return Postgres(name, (), via=self._via, programs=self._programs, socket=self.directory, port=PORT)

    def start(self, major: int) -> int:
        """Make it and start it, of version C(major) or else the next later one, which is returned. Raises InstanceError, OSError."""
        there = [int(one) for one in _majors(self._programs) if int(one) >= major]
        if not there:
            raise InstanceError(f"no server of PostgreSQL {major} or later is installed here; install postgresql-{major}")
        self._bin = self._programs.format(major=min(there))
        os.mkdir(self.directory, 0o700)
        if self._via:
            # The locale matters to nobody: each database has its own.
            shutil.chown(self.directory, "postgres")
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
        text = "".join("{} = '{}'\n".format(name, value.replace("'", "''")) for name, value in self._settings.items())
        path = os.path.join(self._data, "postgresql.auto.conf")
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW), "w", encoding="utf-8") as file:
            file.write(text)
        log = os.path.join(self.directory, "log")
        try:
            # What it prints is not read: the server would hold the pipe.
            self._run("pg_ctl", "-D", self._data, "-w", "-t", str(_SECONDS), "-l", log, "start", quiet=True)
        except InstanceError as error:
            with contextlib.suppress(OSError), open(log, encoding="utf-8", errors="replace") as file:
                raise InstanceError(f"{error}: {' '.join(file.read()[-500:].split())}") from error
            raise
        return min(there)

    def stop(self) -> None:
        """Stop it, and remove all of it; also one that another process has left behind. Raises InstanceError, OSError."""
        if os.path.exists(os.path.join(self._data, "postmaster.pid")):
            with open(os.path.join(self._data, "PG_VERSION"), encoding="ascii") as file:
                self._bin = self._programs.format(major=int(file.read()))
            try:
                self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "-t", "60", "stop")
            except InstanceError as error:
                # Its process may be gone already, as after a restart of the host.
                if "PID file" not in str(error) and "Is server running" not in str(error) and "No such process" not in str(error):
                    raise
        if os.path.lexists(self.directory):
            shutil.rmtree(self.directory)

    def _run(self, program: str, *arguments: str, quiet: bool = False) -> None:
        command = [*self._via, os.path.join(self._bin, program), *arguments]
        output = subprocess.DEVNULL if quiet else subprocess.PIPE
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=2 * _SECONDS,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstanceError(f"{program} does not run: {error}") from error
        if done.returncode != 0:
            said = " ".join((done.stdout or b"").decode("utf-8", "replace").split())[-300:]
            raise InstanceError(f"{program} ended with {done.returncode}{f': {said}' if said else ''}")


def _majors(programs: str) -> t.List[str]:
    """The versions whose server is installed."""
    pattern = os.path.join(programs, "initdb")
    if "{major}" not in pattern:
        return []
    before, after = pattern.split("{major}")
    found = [path[len(before) : -len(after)] for path in glob.glob(f"{glob.escape(before)}*{glob.escape(after)}")]
    return [one for one in found if one.isdigit()]


def check_logins(server: Postgres, database: str, wanted: t.Sequence[str]) -> Logins:
    """Log in to a database as each role that an application may come as, and read each table that it may read.

    Args:
        wanted: roles that must be able to.

    Raises:
        PostgresError: the server cannot be asked.
    """
    with open_session(server, database) as session:
        roles = {one["name"]: one for one in session.all(_ROLES)}
    good, problems = [], []
    for name in sorted({*wanted, *(one["name"] for one in roles.values() if _is_application(one))}):
        problem = _login(server, database, name, roles.get(name))
        if problem:
            problems.append(f"{database}: the role {name} {problem}")
        else:
            good.append(name)
    return Logins(good, problems)


def _is_application(role: t.Mapping[str, t.Any]) -> bool:
    return bool(role["login"] and not role["super"] and role["connects"] and role["tables"])


def _login(server: Postgres, database: str, name: str, role: t.Optional[t.Mapping[str, t.Any]]) -> str:
    """What is wrong; empty for nothing."""
    if role is None:
        return "is not there"
    if role["expired"]:
        return "may not log in any more: its password has expired"
    own = server._replace(via=(*server.via, "env", f"PGUSER={name}"))
    try:
        with open_session(own, database) as session:
            for table in role["tables"]:
                session.all(f"SELECT json_build_object('read', count(*)) FROM (SELECT 1 FROM {table} LIMIT 1) one;")
    except PostgresError as error:
        return f"cannot log in and read: {error}"
    return "" if role["tables"] else "logs in, and may read no table"


def anonymise(server: Postgres, database: str, command: t.Sequence[str], say: t.Callable[[str], None]) -> None:
    """Run a command on a database of the server, as the user that the server runs as.

    Args:
        say: takes what it printed when it failed; it may name people.

    Raises:
        InstanceError: it failed.
    """
    words = [*server.via, "env", f"PGHOST={server.socket}", f"PGPORT={server.port}", f"PGDATABASE={database}", "PGUSER=postgres", *command]
    _run_command(words, command[0], f"the database {database!r}", say)


def anonymise_tree(path: str, command: t.Sequence[str], say: t.Callable[[str], None]) -> None:
    """Run a command on a tree, whose path it finds in C(CIVITAS_TREE), as root; otherwise as C(anonymise)."""
    _run_command(["env", f"CIVITAS_TREE={path}", *command], command[0], f"the tree {path}", say)


def _run_command(words: t.Sequence[str], name: str, where: str, say: t.Callable[[str], None]) -> None:
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, cwd="/")
    except OSError as error:
        raise InstanceError(f"{name} does not run: {error.strerror}") from error
    if done.returncode != 0:
        say(" ".join(done.stdout.decode("utf-8", "replace").split())[-1000:])
        raise InstanceError(f"{name} ended with {done.returncode} in {where}")
