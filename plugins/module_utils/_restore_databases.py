# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases in a restore: whether they may be replaced, and the swap of all of a server in one transaction.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _restore_names as names
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import SCHEMA, Postgres, PostgresError, open_session
from ansible_collections.civitas.hosting.plugins.module_utils._restore_postgres import RestoreError, drop_database, quoted

# Until those who are thrown out of a database have left it.
_LEAVE_SECONDS = 30.0


class DatabaseMove(t.NamedTuple):
    """A database that is replaced.

    Attributes:
        server: name of the source.
        when: the stamp of the restore.
        existed: it was there before.
    """

    server: str
    name: str
    when: str
    existed: bool

    def at(self, word: str) -> str:
        return names.of_database(self.name, word, self.when)


def databases(server: Postgres) -> t.Set[str]:
    """Raises PostgresError."""
    with open_session(server, "postgres") as session:
        return {one["name"] for one in session.all("SELECT json_build_object('name', datname) FROM pg_database;")}


def data_directory(server: Postgres) -> str:
    """Raises PostgresError."""
    with open_session(server, "postgres") as session:
        return str(session.one("SELECT json_build_object('path', current_setting('data_directory'));")["path"])


def is_primary(server: Postgres) -> bool:
    """Raises PostgresError."""
    with open_session(server, "postgres") as session:
        return not session.one("SELECT json_build_object('replica', pg_is_in_recovery());")["replica"]


def holds_data(server: Postgres, name: str) -> bool:
    """Whether a database has large objects, or any table of it a row. Raises PostgresError."""
    with open_session(server, name) as session:
        session.begin()
        if session.one("SELECT json_build_object('any', EXISTS (SELECT 1 FROM pg_catalog.pg_largeobject_metadata));")["any"]:
            return True
        for table in session.lock_all(False):
            if (
                table["schema"] != SCHEMA
                and session.one(f"SELECT json_build_object('row', EXISTS (SELECT 1 FROM ONLY {table['sql']}));")["row"]
            ):
                return True
    return False


# --- the swap


def forward(server: Postgres, moves: t.Sequence[DatabaseMove]) -> None:
    """The new databases are in their places, and nobody can use the old ones, all at once. Raises PostgresError."""
    there = databases(server)
    waiting = [move for move in moves if move.at(names.NEW) in there]
    statements = []
    for move in waiting:
        if move.name in there:
            _clear(server, move.name)
            statements.append(_rename(move.name, move.at(names.BEFORE)))
        _clear(server, move.at(names.NEW))
        statements.append(_rename(move.at(names.NEW), move.name))
        statements.append(_allow(move.name, True))
    _together(server, statements)


def backward(server: Postgres, moves: t.Sequence[DatabaseMove]) -> None:
    """The old databases are in their places again, and the new ones beside them. Raises PostgresError."""
    there = databases(server)
    statements = []
    for move in moves:
        swapped = move.at(names.NEW) not in there and (move.at(names.BEFORE) in there or not move.existed)
        if swapped and move.name in there:
            _clear(server, move.name)
            statements.append(_rename(move.name, move.at(names.NEW)))
        if move.at(names.BEFORE) in there:
            statements.append(_rename(move.at(names.BEFORE), move.name))
        if move.existed:
            statements.append(_allow(move.name, True))
    _together(server, statements)


def keep(server: Postgres, moves: t.Sequence[DatabaseMove]) -> None:
    """The new databases, which were taken back and may have been written into, stay beside the old ones. Raises PostgresError."""
    there = databases(server)
    _together(server, [_rename(move.at(names.NEW), move.at(names.UNDONE)) for move in moves if move.at(names.NEW) in there])


def drop(server: Postgres, moves: t.Sequence[DatabaseMove], word: str) -> None:
    """Raises PostgresError."""
    for move in moves:
        try:
            drop_database(server, move.at(word))
        except RestoreError as error:
            raise PostgresError(str(error)) from error


def _rename(old: str, new: str) -> str:
    return f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)};"


def _allow(name: str, allowed: bool) -> str:
    return f"ALTER DATABASE {quoted(name)} ALLOW_CONNECTIONS {'true' if allowed else 'false'};"


def _together(server: Postgres, statements: t.Sequence[str]) -> None:
    if statements:
        with open_session(server, "postgres") as session:
            session.all("BEGIN;")
            for statement in statements:
                session.all(statement)
            session.all("COMMIT;")


def _clear(server: Postgres, name: str) -> None:
    """Nobody is in a database, and nobody comes in. Raises PostgresError."""
    text = "'{}'".format(name.replace("'", "''"))
    deadline = time.monotonic() + _LEAVE_SECONDS
    with open_session(server, "postgres") as session:
        session.all(_allow(name, False))
        while True:
            found = session.one(
                "SELECT json_build_object('left', count(*), 'told', count(*) FILTER (WHERE pg_terminate_backend(pid)))"
                f" FROM pg_stat_activity WHERE datname = {text};"
            )
            if not found["left"]:
                return
            if time.monotonic() > deadline:
                raise PostgresError(f"{found['left']} sessions do not leave the database {name!r}")
            time.sleep(0.1)
