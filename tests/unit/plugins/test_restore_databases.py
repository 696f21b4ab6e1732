# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases that are swapped on a real server: all of them or none, whoever uses them, forward and back as often as somebody likes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_databases as data
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_names as names
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres, PostgresError
from ansible_collections.civitas.hosting.plugins.module_utils._restore_databases import DatabaseMove
from ansible_collections.civitas.hosting.plugins.module_utils._restore_postgres import quoted

from tests.unit.postgres_servers import PROGRAMS, Cluster, needs_postgres, running_cluster

pytestmark = needs_postgres
WHEN = "20260102030405"
ODD = 'odd "name\'s" é'
MOVES = [DatabaseMove("main", "records", WHEN, True), DatabaseMove("main", ODD, WHEN, False)]


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(name="server")
def _server(cluster: Cluster) -> Iterator[Postgres]:
    server = Postgres("main", ("records",), via=cluster.via, socket=str(cluster.base), port=cluster.port)
    cluster.sql("postgres", "CREATE DATABASE records")
    for move in MOVES:
        cluster.sql("postgres", f"CREATE DATABASE {quoted(move.at(names.NEW))}")
        cluster.sql(move.at(names.NEW), "CREATE TABLE new AS SELECT 1 AS a")
    yield server
    for name in data.databases(server) - {"postgres", "template0", "template1"}:
        cluster.sql("postgres", f"DROP DATABASE {quoted(name)} WITH (FORCE)")


def there(server: Postgres) -> set[str]:
    return data.databases(server) - {"postgres", "template0", "template1"}


def is_new(cluster: Cluster, name: str) -> bool:
    return cluster.sql(name, "SELECT count(*) FROM pg_class WHERE relname = 'new'") == "1"


def test_forward_and_back(cluster: Cluster, server: Postgres) -> None:
    before = there(server)
    for _round in range(2):
        data.forward(server, MOVES)
        assert there(server) == {"records", ODD, MOVES[0].at(names.BEFORE)}
        assert is_new(cluster, "records") and is_new(cluster, ODD)
    # Nobody gets into what is kept.
    command = [*cluster.via, str(PROGRAMS / "psql"), "-h", str(cluster.base), "-p", str(cluster.port), "-d", MOVES[0].at(names.BEFORE)]
    assert "not currently accepting" in subprocess.run([*command, "-c", "SELECT 1"], capture_output=True, text=True, check=False).stderr
    for _round in range(2):
        data.backward(server, MOVES)
        assert there(server) == before and not is_new(cluster, "records")
    data.forward(server, MOVES)
    data.backward(server, MOVES)
    data.keep(server, MOVES)
    data.keep(server, MOVES)
    assert there(server) == {"records", *(move.at(names.UNDONE) for move in MOVES)}
    data.drop(server, MOVES, names.UNDONE)
    data.drop(server, MOVES, names.UNDONE)
    assert there(server) == {"records"}


def test_all_or_none(cluster: Cluster, server: Postgres) -> None:
    """The second database cannot be renamed: the first one is not, either, and is open again after going back."""
    for name in (ODD, MOVES[1].at(names.BEFORE)):
        cluster.sql("postgres", f"CREATE DATABASE {quoted(name)}")
    before = there(server)
    with pytest.raises(PostgresError, match="already exists"):
        data.forward(server, MOVES)
    assert there(server) == before
    data.backward(server, MOVES[:1])
    assert not is_new(cluster, "records")


def test_who_is_in_it_is_thrown_out(cluster: Cluster, server: Postgres) -> None:
    command = [*cluster.via, str(PROGRAMS / "psql"), "-XAtq", "-h", str(cluster.base), "-p", str(cluster.port), "-d", "records"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as psql:
        assert psql.stdin and psql.stdout
        psql.stdin.write("BEGIN; SELECT 'in';\n")
        psql.stdin.flush()
        assert psql.stdout.readline() == "in\n"
        data.forward(server, MOVES)
        psql.stdin.write("SELECT 'still in';\n")
        psql.stdin.close()
        assert psql.stdout.read() == "" and is_new(cluster, "records")


def test_which_databases_hold_data(cluster: Cluster, server: Postgres) -> None:
    assert not data.holds_data(server, "records")
    cluster.sql("records", "CREATE TABLE t (a int); CREATE SCHEMA civitas_backup; CREATE TABLE civitas_backup.canary AS SELECT 1 AS a")
    assert not data.holds_data(server, "records")
    cluster.sql("records", "SELECT lo_create(4711)")
    assert data.holds_data(server, "records")
    cluster.sql("records", "SELECT lo_unlink(4711); INSERT INTO t VALUES (1)")
    assert data.holds_data(server, "records")
    assert data.is_primary(server) and data.data_directory(server) == str(cluster.data)
