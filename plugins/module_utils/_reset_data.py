# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Empties databases and file trees, and leaves what makes them work.

Private to the collection: no promise of stability. Standard library only.

Tables are truncated and not made anew: schema, roles, rights and extensions stay as they are, the application's migrations included, and
no program of the application is needed for it. All tables of a database are emptied in one transaction, or none of them.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import stat
import subprocess
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import is_swap_file

# Beside what is declared: what the backup has written, by which it knows that a set is right.
_KEEP = ("civitas_backup.canary",)
_CANARY = ".civitas-canary"
_TIMEOUT_SECONDS = 60
_TABLES = """
SELECT json_build_object('name', n.nspname || '.' || c.relname, 'sql', format('%I.%I', n.nspname, c.relname), 'kind', c.relkind)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^(pg_|information_schema$)'
  AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1::text;
"""
# What a kept table refers to must be kept as well: emptying it would empty the kept one, or fail.
# A trigger runs with the rights of who truncates, which are all.
_NO_TRIGGERS = """
DO $do$ DECLARE found text; BEGIN
  SELECT string_agg(format('%s of %s', tgname, tgrelid::regclass), ', ') INTO found
    FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid JOIN pg_roles ON pg_roles.oid = proowner
    WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 32 <> 0 AND NOT rolsuper;
  IF found IS NOT NULL THEN
    RAISE EXCEPTION 'the trigger % would run with the rights of a superuser; turn it off with ALTER TABLE ... DISABLE TRIGGER', found;
  END IF;
END $do$;
"""
_REFERENCES = """
SELECT json_build_object('from', fn.nspname || '.' || f.relname, 'to', tn.nspname || '.' || t.relname)
FROM pg_constraint k JOIN pg_class f ON f.oid = k.conrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace
JOIN pg_class t ON t.oid = k.confrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
WHERE k.contype = 'f' ORDER BY 1::text;
"""


class ResetError(Exception):
    """What was asked for is not clear, or could not be done; the text says what."""


class Database(t.NamedTuple):
    """A database whose tables are emptied.

    Attributes:
        keep: patterns of C(schema.table) that stay, such as those of migrations and settings.
        via: words before psql, by which it runs as the server's superuser.
    """

    name: str
    keep: t.Tuple[str, ...] = ()
    port: int = 5432
    socket: str = ""
    via: t.Tuple[str, ...] = ("runuser", "-u", "postgres", "--")


class Tree(t.NamedTuple):
    """A directory that is emptied, and stays itself.

    Attributes:
        keep: patterns of names in it that stay, with all below them.
    """

    path: str
    keep: t.Tuple[str, ...] = ()


class Tables(t.NamedTuple):
    """Rows of the tables that are to be emptied, rows of those that stay, and large objects."""

    empty: t.Dict[str, int]
    keep: t.Dict[str, int]
    large_objects: int

    @property
    def left(self) -> int:
        return sum(self.empty.values()) + self.large_objects


class Files(t.NamedTuple):
    """Files that are to be removed, how many names in the directory stay, and those that go."""

    remove: int
    keep: int
    names: t.List[bytes]


# --- databases


def count_rows(database: Database) -> Tables:
    """Raises ResetError, also when a pattern keeps nothing, or a kept table needs one that is emptied."""
    tables = [one for one in _psql(database, _TABLES) if one["kind"] != "m"]
    keep = {one["name"] for one in tables if _matches(one["name"], (*database.keep, *_KEEP))}
    unused = [pattern for pattern in database.keep if not any(fnmatch.fnmatchcase(one["name"], pattern) for one in tables)]
    if unused:
        raise ResetError(f"{database.name} has no table {', '.join(unused)}; write what is to be kept as schema.table, as it is there")
    for one in _psql(database, _REFERENCES):
        if one["from"] in keep and one["to"] not in keep:
            raise ResetError(f"{database.name}: {one['from']} is kept and refers to {one['to']}, which is not; keep both or neither")
    # A partitioned table has its rows in its parts.
    queries = "".join(
        f"SELECT json_build_object('name', {_literal(one['name'])}, 'rows', count(*)) FROM ONLY {one['sql']};\n" for one in tables
    )
    rows = {one["name"]: int(one["rows"]) for one in _psql(database, queries)} if queries else {}
    (objects,) = _psql(database, "SELECT json_build_object('number', count(*)) FROM pg_largeobject_metadata;")
    return Tables(
        {name: number for name, number in rows.items() if name not in keep},
        {name: number for name, number in rows.items() if name in keep},
        int(objects["number"]),
    )


def empty_database(database: Database) -> None:
    """Raises ResetError; then nothing was emptied."""
    before = count_rows(database)
    tables = _psql(database, _TABLES)
    gone = [one["sql"] for one in tables if one["kind"] in "rp" and one["name"] in before.empty]
    views = [one["sql"] for one in tables if one["kind"] == "m"]
    sql = [f"BEGIN; SET LOCAL lock_timeout = '{_TIMEOUT_SECONDS}s';"]
    if gone:
        sql.append(f"LOCK TABLE {', '.join(gone)} IN ACCESS EXCLUSIVE MODE;\n{_NO_TRIGGERS}")
        # Without CASCADE: nothing is emptied that is not listed.
        sql.append(f"TRUNCATE {', '.join(gone)} RESTART IDENTITY;")
    sql.append("SELECT json_build_object('objects', count(lo_unlink(oid))) FROM pg_largeobject_metadata;")
    # They would show what the tables held.
    sql += [f"REFRESH MATERIALIZED VIEW {view};" for view in views]
    sql.append("COMMIT;")
    _psql(database, "\n".join(sql))
    after = count_rows(database)
    if after.left:
        raise ResetError(f"{database.name} has {after.left} rows again; something that writes still runs")
    if after.keep != before.keep:
        raise ResetError(f"{database.name}: tables that are kept have changed")


def _matches(name: str, patterns: t.Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _literal(text: str) -> str:
    return "'{}'".format(text.replace("'", "''"))


def _psql(database: Database, sql: str) -> t.List[t.Dict[str, t.Any]]:
    """Raises ResetError."""
    connection = {"dbname": database.name, "port": str(database.port), "connect_timeout": "10", "application_name": "civitas-reset"}
    if database.socket:
        connection["host"] = database.socket
    words = " ".join("{}='{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'")) for name, value in connection.items())
    command = [*database.via, "psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", words]
    # Functions are the server's own, and not what somebody has put into the database under their names.
    text = f"\\encoding UTF8\nSET standard_conforming_strings = on; SET search_path = pg_catalog;\n{sql}\n"
    try:
        done = subprocess.run(command, input=text.encode("utf-8", "surrogateescape"), capture_output=True, check=False, cwd="/")
    except OSError as error:
        raise ResetError(f"{error.filename}: {error.strerror}") from error
    if done.returncode != 0:
        raise ResetError(f"{database.name}: {' '.join(done.stderr.decode('utf-8', 'replace').split())[:300]}")
    return [json.loads(line) for line in done.stdout.decode("utf-8", "surrogateescape").splitlines() if line.strip()]


# --- trees


def count_files(tree: Tree) -> Files:
    """Raises ResetError, also when a pattern keeps nothing."""
    if not os.path.isabs(tree.path) or os.path.normpath(tree.path).count("/") < 2:
        raise ResetError(f"{tree.path!r} is no directory of data; write a path such as /srv/records")
    remove = keep = 0
    names, used = [], set()
    try:
        if not stat.S_ISDIR(os.lstat(tree.path).st_mode):
            raise ResetError(f"{tree.path} is no directory")
        found = sorted(os.listdir(os.fsencode(tree.path)))
    except OSError as error:
        raise ResetError(f"{tree.path}: {error.strerror}") from error
    for name in found:
        if is_swap_file(os.path.join(os.fsencode(tree.path), name)):
            continue
        matching = [pattern for pattern in tree.keep if fnmatch.fnmatchcase(os.fsdecode(name), pattern)]
        used.update(matching)
        if matching or name == _CANARY.encode():
            keep += 1
            continue
        remove += _files(os.path.join(os.fsencode(tree.path), name), os.lstat(tree.path).st_dev)
        names.append(name)
    unused = [pattern for pattern in tree.keep if pattern not in used]
    if unused:
        raise ResetError(f"{tree.path} has nothing called {', '.join(unused)}; write what is to be kept as it is spelled there")
    return Files(remove, keep, names)


def _files(path: bytes, device: int) -> int:
    """Raises ResetError for another file system, which is to be declared by itself."""
    if os.path.islink(path) or not os.path.isdir(path):
        return 1
    count = 0
    for directory, _directories, files in os.walk(path):
        if os.lstat(directory).st_dev != device:
            raise ResetError(f"something is mounted on {os.fsdecode(directory)}; declare it as a tree of its own, and keep it in this one")
        count += len(files)
    return count


def empty_tree(tree: Tree) -> None:
    """Raises ResetError."""
    for name in count_files(tree).names:
        path = os.path.join(os.fsencode(tree.path), name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except OSError as error:
            raise ResetError(f"{os.fsdecode(path)}: {error.strerror}") from error
    left = count_files(tree)
    if left.names:
        raise ResetError(f"{tree.path} holds {len(left.names)} names again; something that writes still runs")
