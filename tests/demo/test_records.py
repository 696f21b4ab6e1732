# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's job, through its public address: what was recorded is there after restart, kill, database restart and reboot."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tools import bed
from tools import demo as demonstration
from tools.records import Records, Story

from .conftest import DIRECTORY, SETTINGS, Demo

HOST = SETTINGS["CIVITAS_DEMO_HOST"]


@pytest.fixture(scope="module", name="records")
def _records(demo: Demo) -> Records:
    return Records("localhost", 28443, DIRECTORY / "ca.pem", address="127.0.0.1")


@pytest.fixture(scope="module", name="story")
def _story(demo: Demo, records: Records) -> Story:
    return Story(records, ("admin", demo.secrets[demonstration.ADMINISTRATOR_SECRET]))


def container(demo: Demo) -> str:
    """Its identifier, also in the moment in which it does not run."""
    return demo.on_server("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project=demo")


def start_of(demo: Demo) -> str:
    return demo.on_server("docker", "inspect", "--format", "{{.State.StartedAt}}", container(demo))


def test_an_account_and_a_record_are_kept(story: Story) -> None:
    assert story.is_kept()


def test_a_stranger_gets_nothing(records: Records, story: Story) -> None:
    path = f"/v1/buckets/registry/collections/births/records/{story.record}"
    assert records.call("GET", path)[0] == 401
    assert records.call("GET", path, ("admin", "admin"))[0] == 401
    assert records.call("PUT", "/v1/accounts/stranger", None, {"data": {"password": "x" * 20}})[0] in (401, 403)


def restart_container(demo: Demo) -> None:
    demo.on_server("docker", "restart", container(demo))


def kill_container(demo: Demo) -> None:
    """The process dies as it would by the out-of-memory killer, not by a command of the engine, which would count as wanted."""
    pid = demo.on_server("docker", "inspect", "--format", "{{.State.Pid}}", container(demo))
    demo.on_server("kill", "-KILL", pid)


def restart_database(demo: Demo) -> None:
    demo.on_server("systemctl", "restart", "postgresql.service")


def restart_engine(demo: Demo) -> None:
    demo.on_server("systemctl", "restart", "docker.service")


def restart_host(demo: Demo) -> None:
    bed.docker("restart", "--time", "30", HOST)


def cut_power(demo: Demo) -> None:
    bed.docker("kill", HOST)
    bed.docker("start", HOST)


@pytest.mark.parametrize(
    "fault",
    [restart_container, kill_container, restart_database, restart_engine, restart_host, cut_power],
    ids=lambda fault: fault.__name__,
)
def test_the_service_comes_back_by_itself_with_the_record(
    demo: Demo, records: Records, story: Story, fault: Callable[[Demo], None]
) -> None:
    before = start_of(demo)
    started = time.monotonic()
    fault(demo)
    if fault in (restart_container, kill_container):
        bed.wait_for("a new start of the container", lambda: start_of(demo) != before, 60)
    records.wait(60)
    assert time.monotonic() - started < 60 + 30  # the commands above take their own time, an orderly shutdown up to 30 s
    assert story.is_kept()


def test_the_checks_pass_after_all_that(demo: Demo) -> None:
    # A health check of a container that has just started takes a moment.
    bed.wait_for("status", lambda: demo.playbook("status.yml").returncode == 0, 60)
