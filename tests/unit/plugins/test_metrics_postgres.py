# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of what a server answers. That servers answer so, and what faults look like, is shown by molecule/postgres."""

from __future__ import annotations

import json

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render

QUIET = {
    "connections": 9,
    "connections_allowed": 97,
    "archiving": False,
    "archive_failing": False,
    "archive_waiting": 0,
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
    assert found["archive_failing",] == 1 and found["archive_waiting",] == 7


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
