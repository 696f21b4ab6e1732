# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of what a server answers. That servers answer so, and what faults look like, is shown by molecule/postgres."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render

QUIET = {
    "connections": 9,
    "connections_allowed": 97,
    "archiving": False,
    "archive_failing": False,
    "archive_waiting": 0,
    "archive_discarding": False,
    "archive_directory": None,
    "segment_bytes": 16 * 2**20,
    "replicas": [],
    "behind": None,
    "slots": [],
    "transactions": 2**30,
}


def values(answer):
    found = list(postgres.server("5432", answer))
    render(found, postgres.TITLES)
    assert all(("port", "5432") in one.labels for one in found)
    rest = {one: tuple(value for name, value in one.labels if name != "port") for one in found}
    return {(one.name[len("civitas_postgres_") :], *labels): one.value for one, labels in rest.items()}


def answer(**changes):
    return json.dumps({**QUIET, **changes})


def test_a_server_of_its_own():
    assert values(answer()) == {("up",): 1, ("connections_ratio",): pytest.approx(9 / 97), ("transactions_used_ratio",): 0.5}


def test_one_that_does_not_answer():
    assert values(None) == {("up",): 0}


def test_one_that_puts_its_wal_away():
    found = values(answer(archiving=True, archive_failing=True, archive_waiting=7))
    assert found["archive_failing",] == 1 and found["archive_waiting",] == 7 and found["archive_discarding",] == 0
    assert values(answer(archiving=True, archive_discarding=True))["archive_discarding",] == 1


def piece(number, timeline=1, size=16 * 2**20):
    each = 2**32 // size
    return f"{timeline:08X}{number // each:08X}{number % each:08X}"


def test_an_archive_without_a_gap():
    names = [*map(piece, range(250, 262)), f"{piece(255)}.00000028.backup", f"{piece(300)}.partial", "00000002.history", "notes.txt"]
    assert piece(256) == "000000010000000100000000"
    assert postgres.missing_pieces(names, 16 * 2**20) == 0
    assert postgres.missing_pieces([f"{name}.gz" for name in map(piece, range(9))], 16 * 2**20) == 0
    assert postgres.missing_pieces([], 16 * 2**20) == 0
    large = [piece(number, size=2**30) for number in range(3, 10)]
    assert large[1] == "000000010000000100000000" and postgres.missing_pieces(large, 2**30) == 0


@pytest.mark.parametrize("gone", [{251}, {251, 252, 255, 256}, {258}])
def test_pieces_that_an_archive_lacks(gone):
    names = [piece(number) for number in range(250, 260) if number not in gone]
    assert postgres.missing_pieces(names, 16 * 2**20) == len(gone)
    # What is only half written is not there yet, and never will be when its program has ended.
    assert postgres.missing_pieces([*names, *(f"{piece(number)}.tmp" for number in gone)], 16 * 2**20) == len(gone)
    found = list(postgres.server("5432", answer(archiving=True), names))
    assert [one.value for one in found if one.name == "civitas_postgres_archive_missing"] == [len(gone)]


@pytest.mark.parametrize(
    ("first", "second", "missing"),
    [
        (range(9), range(9, 12), 0),
        # The old primary went on alone for a while.
        (range(15), range(9, 12), 0),
        (range(8), range(9, 12), 1),
        (range(9), range(11, 12), 2),
        ([number for number in range(15) if number not in (7, 12)], range(9, 12), 1),
    ],
)
def test_an_archive_with_a_promotion(first, second, missing):
    names = [*map(piece, first), *(piece(number, timeline=2) for number in second)]
    assert postgres.missing_pieces(names, 16 * 2**20) == missing


def test_an_archive_that_can_be_looked_into():
    assert postgres.archive_command(answer(archiving=True, archive_directory="/srv/wal"))[-1] == "/srv/wal"
    assert postgres.archive_command(answer(archiving=True)) is None
    assert postgres.archive_command(answer(archive_directory="/srv/wal")) is None


def test_a_primary():
    found = values(answer(replicas=[{"name": "two at 192.0.2.2", "seconds": 1.5, "bytes": 4096}], slots=[{"name": "three", "bytes": -1}]))
    assert found["replication_lag_seconds", "two at 192.0.2.2"] == 1.5
    assert found["replication_lag_bytes", "two at 192.0.2.2"] == 4096
    assert found["slot_retained_bytes", "three"] == 0


@pytest.mark.parametrize(("behind", "seconds"), [(0, 0), (12.5, 12.5), (-0.1, 0)])
def test_a_replica(behind, seconds):
    assert values(answer(behind=behind))["replication_lag_seconds", postgres.ITSELF] == seconds


def test_servers_are_found_by_their_sockets():
    assert postgres.ports([".s.PGSQL.5433", ".s.PGSQL.5432.lock", "15-main.pid", ".s.PGSQL.10000", ".s.PGSQL.5432"]) == [
        "5432",
        "5433",
        "10000",
    ]
    assert postgres.ports([]) == []


@pytest.mark.parametrize("text", ["", "not json", "{}", "null", json.dumps({**QUIET, "connections": "many"})])
def test_an_answer_of_another_kind(text):
    with pytest.raises((ValueError, KeyError, TypeError)):
        values(text)


# --- a real pair ------------------------------------------------------------------------------------------------------------------------


class Cluster:
    """A server in a directory, run by nobody where PostgreSQL would be run by root."""

    def __init__(self, directory, name, port):
        self.directory, self.data, self.port = directory, directory / name, port

    def run(self, program, *arguments):
        user = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(BINARIES / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", timeout=60, **user)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def start(self, **settings):
        settings = {"port": self.port, "unix_socket_directories": self.directory, "listen_addresses": "", **settings}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        # Without the log it would keep the pipes of the test open.
        self.run("pg_ctl", "-D", self.data, "-w", "-l", f"{self.data}.log", "-o", options, "start")

    def ask(self, query):
        return self.run("psql", "-XAtq", "-h", self.directory, "-p", self.port, "-U", "x", "-d", "postgres", "-c", query).strip()

    def behind(self):
        return values(self.ask(postgres.QUERY)).get(("replication_lag_seconds", postgres.ITSELF))

    def until(self, holds, seconds=20):
        end = time.monotonic() + seconds
        while not (found := holds()) and time.monotonic() < end:
            time.sleep(0.1)
        assert found


BINARIES = next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)


@pytest.fixture
def by_files():
    """A primary, and a replica that gets nothing but the files of its archive."""
    if BINARIES is None:
        pytest.skip("PostgreSQL is not installed here")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        (directory / "archive").mkdir()
        if os.geteuid() == 0:
            for path in (directory, directory / "archive"):
                shutil.chown(path, "nobody", pwd.getpwnam("nobody").pw_gid)
        primary, replica = Cluster(directory, "primary", 5432), Cluster(directory, "replica", 5433)
        primary.run("initdb", "-D", primary.data, "-A", "trust", "-N", "-U", "x")
        primary.start(archive_mode="on", archive_command=f"cp %p {directory}/archive/%f", fsync="off")
        stack.callback(primary.run, "pg_ctl", "-D", primary.data, "-m", "immediate", "stop")
        primary.run("pg_basebackup", "-h", directory, "-p", primary.port, "-U", "x", "-D", replica.data, "-c", "fast", "-X", "none")
        (replica.data / "standby.signal").touch()
        restore = f"cp {directory}/archive/%f %p"
        replica.start(archive_mode="off", restore_command=restore, wal_retrieve_retry_interval="200ms", fsync="off")
        stack.callback(replica.run, "pg_ctl", "-D", replica.data, "-m", "immediate", "stop")
        yield primary, replica


def test_a_replica_that_gets_files_is_not_behind_a_quiet_primary(by_files):
    primary, replica = by_files
    since = "SELECT coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0) > 2"
    primary.ask("CREATE TABLE story (a int)")
    primary.ask("SELECT pg_switch_wal()")
    replica.until(lambda: replica.ask(since) == "t")
    # Now and then it looks for the next file just then.
    replica.until(lambda: replica.behind() == 0)
    # One that does not replay what there is.
    replica.ask("SELECT pg_wal_replay_pause()")
    primary.ask("INSERT INTO story VALUES (1)")
    primary.ask("SELECT pg_switch_wal()")
    replica.until(lambda: replica.ask("SELECT pg_get_wal_replay_pause_state()") == "paused")
    assert replica.behind() > 2
    replica.ask("SELECT pg_wal_replay_resume()")
    replica.until(lambda: replica.behind() == 0)
