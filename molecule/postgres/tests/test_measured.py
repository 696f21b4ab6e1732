# SPDX-License-Identifier: GPL-3.0-or-later
"""What monitoring sees of servers, by its own question, while they are troubled: of throw-away ones beside that of the role."""

from __future__ import annotations

import shlex
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_postgres as postgres

HOME = "/var/lib/postgresql/measured"
PRIMARY, REPLICA = "5498", "5499"


def run(host, command):
    done = host.run(
        "cd / && PATH=$(ls -d /usr/lib/postgresql/*/bin):$PATH exec setpriv --reuid=postgres --regid=postgres --init-groups "
        f"bash -ec {shlex.quote(command)}"
    )
    assert done.rc == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout.strip()


def ask(host, port, query):
    return run(host, f"psql -XAtq -h /run/postgresql -p {port} -d postgres -c {shlex.quote(query)}")


def measured(host, port):
    done = host.run(shlex.join(["env", *(f"{name}={value}" for name, value in postgres.ENVIRONMENT.items()), *postgres.command(port)]))
    archive = postgres.archive_command(done.stdout) if done.rc == 0 else None
    listed = host.run(shlex.join(archive)) if archive else None
    archived = listed.stdout.splitlines() if listed and listed.rc == 0 else None
    found = list(postgres.server(port, done.stdout if done.rc == 0 else None, archived))
    rest = {one: tuple(value for name, value in one.labels if name != "port") for one in found}
    return {(one.name[len("civitas_postgres_") :], *labels): one.value for one, labels in rest.items()}


def until(host, port, name, holds, seconds=60):
    """Waits for a series, by the beginning of its name and labels."""
    end = time.monotonic() + seconds
    while True:
        found = measured(host, port)
        values = [value for key, value in found.items() if key[: len(name)] == name]
        if values and holds(values[0]):
            return values[0]
        assert time.monotonic() < end, found
        time.sleep(0.5)


@pytest.fixture(scope="module")
def pair(host):
    """A primary that cannot put its WAL away, and a replica that follows it."""
    options = "unix_socket_directories=/run/postgresql listen_addresses= archive_mode=on archive_command=/bin/false fsync=off"
    settings = "\n".join(option.replace("=", " = '", 1) + "'" for option in options.split())
    start = "pg_ctl -w -D {0} -l {0}.log -o '-p {1}' start"
    try:
        run(
            host,
            f"mkdir {HOME}; initdb -D {HOME}/one -A peer >/dev/null; printf '%s\\n' {shlex.quote(settings)} >> {HOME}/one/postgresql.conf",
        )
        run(host, start.format(f"{HOME}/one", PRIMARY))
        run(host, f"pg_basebackup -h /run/postgresql -p {PRIMARY} -D {HOME}/two -R -C -S left -c fast")
        run(host, start.format(f"{HOME}/two", REPLICA))
        yield
    finally:
        for name in ("two", "one"):
            host.run(f"pkill -KILL --parent 1 --full -- '-D {HOME}/{name}'; rm -f /run/postgresql/.s.PGSQL.549*")
        host.run(f"rm -rf {HOME}")


def test_the_server_of_the_role(host):
    names = host.check_output("ls -A /run/postgresql").split()
    assert postgres.ports(names) == ["5432"]
    found = measured(host, "5432")
    assert found["up",] == 1 and 0 <= found["connections_ratio",] < 0.5 and 0 < found["transactions_used_ratio",] < 0.01
    assert [key for key in found if key[0].startswith(("archive", "replication", "slot"))] == []


def test_wal_that_cannot_be_put_away(host, pair):
    ask(host, PRIMARY, "CREATE TABLE IF NOT EXISTS noise (line text); INSERT INTO noise VALUES ('one'); SELECT pg_switch_wal()")
    until(host, PRIMARY, ("archive_failing",), lambda value: value == 1)
    assert measured(host, PRIMARY)["archive_waiting",] >= 1
    ask(host, PRIMARY, "ALTER SYSTEM SET archive_command = 'test -s %p'")
    ask(host, PRIMARY, "SELECT pg_reload_conf()")
    until(host, PRIMARY, ("archive_failing",), lambda value: value == 0)
    until(host, PRIMARY, ("archive_waiting",), lambda value: value == 0)


@pytest.mark.parametrize("command", ["/bin/true", "true %p", ": %p %f", "echo done", "exit 0"])
def test_wal_that_is_thrown_away(host, pair, command):
    """The server takes each of these for success."""
    try:
        for value, wanted in (("cp %p /srv/%f", 0), (command, 1), ("/usr/local/bin/true-copy %f", 0)):
            ask(host, PRIMARY, f"ALTER SYSTEM SET archive_command = '{value}'")
            ask(host, PRIMARY, "SELECT pg_reload_conf()")
            until(host, PRIMARY, ("archive_discarding",), lambda found, wanted=wanted: found == wanted)
    finally:
        ask(host, PRIMARY, "ALTER SYSTEM SET archive_command = 'test -s %p'")
        ask(host, PRIMARY, "SELECT pg_reload_conf()")


def test_a_gap_in_the_archive_of_the_wal(host, pair):
    """Somebody made room in it."""
    kept = f'test ! -f "{HOME}/archive/%f" && cp %p "{HOME}/archive/%f"'
    try:
        run(host, f"mkdir {HOME}/archive")
        ask(host, PRIMARY, f"ALTER SYSTEM SET archive_command = '{kept}'")
        ask(host, PRIMARY, "SELECT pg_reload_conf()")
        end = time.monotonic() + 60
        # The archiver may take the first ones with the command that was there before.
        while len(pieces := run(host, f"ls {HOME}/archive").split()) < 6:
            assert time.monotonic() < end, pieces
            ask(host, PRIMARY, "INSERT INTO noise VALUES ('more')")
            ask(host, PRIMARY, "SELECT pg_switch_wal()")
            until(host, PRIMARY, ("archive_waiting",), lambda value: value == 0)
        assert measured(host, PRIMARY)["archive_missing",] == 0
        run(host, f"cd {HOME}/archive; rm {pieces[0]} {pieces[2]} {pieces[4]}")
        # The oldest is no gap: a base backup that is younger does not need it.
        assert measured(host, PRIMARY)["archive_missing",] == 2
        # One of another host is not taken for one of this.
        ask(host, PRIMARY, f"ALTER SYSTEM SET archive_command = 'rsync %p store:{HOME}/archive/%f'")
        ask(host, PRIMARY, "SELECT pg_reload_conf()")
        assert ("archive_missing",) not in measured(host, PRIMARY)
        ask(host, PRIMARY, f"ALTER SYSTEM SET archive_command = '{kept}'")
        ask(host, PRIMARY, "SELECT pg_reload_conf()")
        until(host, PRIMARY, ("archive_missing",), lambda value: value == 2)
        run(host, f"rm -r {HOME}/archive")
        assert ("archive_missing",) not in measured(host, PRIMARY)
    finally:
        ask(host, PRIMARY, "ALTER SYSTEM SET archive_command = 'test -s %p'")
        ask(host, PRIMARY, "SELECT pg_reload_conf()")


def test_a_replica_that_falls_behind_and_is_gone(host, pair):
    until(host, PRIMARY, ("replication_lag_bytes",), lambda value: value == 0)
    assert measured(host, REPLICA)["replication_lag_seconds", postgres.ITSELF] == 0
    ask(host, REPLICA, "SELECT pg_wal_replay_pause()")
    ask(
        host,
        PRIMARY,
        "CREATE TABLE IF NOT EXISTS noise (line text); INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 9999)",
    )
    until(host, PRIMARY, ("replication_lag_bytes",), lambda value: value > 5_000_000)
    first = until(host, REPLICA, ("replication_lag_seconds", postgres.ITSELF), lambda value: value > 0)
    until(host, REPLICA, ("replication_lag_seconds", postgres.ITSELF), lambda value: value > first)
    ask(host, REPLICA, "SELECT pg_wal_replay_resume()")
    until(host, PRIMARY, ("replication_lag_bytes",), lambda value: value == 0)
    until(host, REPLICA, ("replication_lag_seconds", postgres.ITSELF), lambda value: value == 0)
    assert not [key for key in measured(host, PRIMARY) if key[0] == "slot_retained_bytes"]
    run(host, f"pg_ctl -w -D {HOME}/two -m fast stop")
    ask(host, PRIMARY, "INSERT INTO noise SELECT repeat('y', 1000) FROM generate_series(1, 9999)")
    until(host, PRIMARY, ("slot_retained_bytes", "left"), lambda value: value > 5_000_000)
    assert ("replication_lag_bytes",) not in {key[:1] for key in measured(host, PRIMARY)}


def test_a_server_that_hangs_does_not_answer(host, pair):
    pid = run(host, f"head -n 1 {HOME}/one/postmaster.pid")
    host.check_output(f"kill -STOP {pid}")
    try:
        assert measured(host, PRIMARY) == {("up",): 0}
    finally:
        host.check_output(f"kill -CONT {pid}")
    until(host, PRIMARY, ("up",), lambda value: value == 1)
