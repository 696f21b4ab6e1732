# SPDX-License-Identifier: GPL-3.0-or-later
"""A sign of life reaches a real server outside every few minutes, and stays away when alarms could be lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_heartbeat as heartbeat

from tests.unit import sinks

NOW, MINUTE = 1.8e9, 60.0


class Beating:
    """A host and the service outside that hears it."""

    def __init__(self, service: sinks.HttpsSink) -> None:
        self.service = service
        self.kept: Any = None
        self.said: list[str] = []

    def run(self, now: float, hindrance: str = "") -> int:
        """How often the service was asked so far."""
        url = f"{self.service.url}/ping/canary?x=1"
        self.kept = heartbeat.beat(url, self.kept, hindrance, now, lambda severity, text: self.said.append(f"{severity} {text}"))
        return len(self.service.requests)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beating]:
    with sinks.https(tmp_path / "outside") as service:
        # What the host trusts.
        monkeypatch.setenv("SSL_CERT_FILE", service.ca_file)
        yield Beating(service)


def test_it_comes_every_few_minutes(host: Beating) -> None:
    asked = [host.run(NOW + minute * MINUTE) for minute in range(10)]
    assert asked == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    assert {(request.method, request.target, request.body) for request in host.service.requests} == {("POST", "/ping/canary?x=1", b"")}
    assert host.run(NOW - 3600) == 4, "a clock that was set back does not silence it"
    assert host.said == [] and host.kept["problem"] == ""


def test_it_stays_away_when_alarms_could_be_lost(host: Beating) -> None:
    assert host.run(NOW) == 1
    assert [host.run(NOW + minute * MINUTE, "nobody can be told") for minute in range(1, 8)] == [1] * 7
    assert host.said == ["3 the sign of life for outside: it is held back, as nobody can be told"]
    assert host.run(NOW + 8 * MINUTE) == 2 and host.said[1:] == ["5 the sign of life for outside: it is sent again"]


def test_one_that_was_not_taken_is_tried_again_each_time(host: Beating) -> None:
    host.service.status = 500
    assert [host.run(NOW + minute * MINUTE) for minute in range(3)] == [1, 2, 3]
    assert host.said == ["3 the sign of life for outside: heartbeat: localhost: the answer is 500; it is tried again"]
    host.service.status = 200
    assert [host.run(NOW + minute * MINUTE) for minute in (3, 4)] == [4, 4]
    assert "canary" not in str(host.said) + str(host.kept)


def test_a_server_that_the_host_does_not_trust_hears_nothing(host: Beating, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert host.run(NOW) == 0
    assert "certificate verify failed" in host.said[0] and "canary" not in host.said[0]


@pytest.mark.parametrize("kept", [[], {"at": "soon"}, {"at": None, "problem": ""}, {"at": float("nan")}])
def test_what_is_damaged_counts_for_nothing(host: Beating, kept: Any) -> None:
    host.kept = kept
    assert host.run(NOW) == 1
