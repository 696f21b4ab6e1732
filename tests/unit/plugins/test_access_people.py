# SPDX-License-Identifier: GPL-3.0-or-later
"""How long access_people may change something: as long as the host has not gone back, and it moves the deadline while it works."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.modules.access_people import Way

from tests.unit.plugins.test_revert import Host, expire, log_of, release


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    host = Host(tmp_path / "host")
    monkeypatch.setattr(_revert, "Revert", lambda: host)
    yield host
    release()


def left(host: Host) -> float:
    return float(log_of(host)["deadline"] - time.clock_gettime(time.CLOCK_BOOTTIME))


def test_the_deadline_moves_only_when_it_is_near(host: Host, tmp_path: Path) -> None:
    way = Way([str(tmp_path / "file")], [], 90)
    asked = len(host.asked)
    expire(host, 60)
    assert way.holds()
    assert left(host) < 61
    assert len(host.asked) == asked
    expire(host, 30)
    assert way.holds()
    assert left(host) > 85


def test_a_host_that_went_back_is_told_and_nothing_is_armed_again(host: Host, tmp_path: Path) -> None:
    way = Way([str(tmp_path / "file")], [], 90)
    host.restore("no connection")
    assert not way.holds()
    assert host.pending() is None


def test_the_log_of_another_run_is_no_way_back_for_this_one(host: Host, tmp_path: Path) -> None:
    way = Way([str(tmp_path / "file")], [], 90)
    host.restore("no connection")
    host.arm([str(tmp_path / "other")])
    expire(host, 10)
    assert not way.holds()
    assert left(host) < 11


def test_a_deadline_that_cannot_be_moved_is_used_to_its_end(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Way([str(tmp_path / "file")], [], 90)
    expire(host, 5)

    def full(*_words: str) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(host, "_systemctl", full)
    assert way.holds()
    host.restore("no connection")
    assert not way.holds()
