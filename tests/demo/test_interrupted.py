# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that ended between writing a file and telling its user is made up for by the next one, which sees nothing to write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Demo

CHANGES = ("-e", "postgres_max_connections=77", "-e", "nginx_read_timeout=123", "-e", "docker_log_max_files=4")


@pytest.fixture(name="half_done")
def _half_done(demo: Demo) -> Iterator[None]:
    """Everything was written, nothing was restarted or reloaded."""
    done = demo.playbook("single.yml", *CHANGES, "--tags", "nginx_configure,docker_configure,postgres_configure")
    assert done.returncode == 0, done.stdout[-3000:]
    yield
    assert demo.playbook("single.yml").returncode == 0


def changed_at(demo: Demo, unit: str) -> int:
    return int(demo.on_server("systemctl", "show", "--property=StateChangeTimestampMonotonic", "--value", unit))


def max_connections(demo: Demo) -> str:
    return demo.on_server("runuser", "-u", "postgres", "--", "psql", "-XAtc", "SHOW max_connections")


def test_the_next_run_restarts_and_reloads_what_was_left_behind(demo: Demo, half_done: None) -> None:
    units = ("nginx.service", "docker.service", "postgresql@17-main.service")
    before = {unit: changed_at(demo, unit) for unit in units}
    assert max_connections(demo) == "100"
    done = demo.playbook("single.yml", *CHANGES)
    assert done.returncode == 0, done.stdout[-3000:]
    assert [unit for unit in units if changed_at(demo, unit) <= before[unit]] == []
    assert max_connections(demo) == "77"


@pytest.mark.parametrize(
    ("tag", "task"),
    [
        ("base_service", "Run what keeps the host in order"),
        ("access_people", "Let in who is listed, and nobody else"),
        ("certificates_issue", "Issue what is missing, wrong or about to end"),
        ("postgres_objects", "Create roles, databases and extensions"),
        ("app_service", "Make the containers as the service model says"),
    ],
)
def test_a_single_phase_can_be_run_alone(demo: Demo, tag: str, task: str) -> None:
    done = demo.playbook("single.yml", "--tags", tag)
    assert done.returncode == 0, done.stdout[-3000:]
    assert task in done.stdout


def test_an_address_that_docker_cannot_change_is_refused(demo: Demo) -> None:
    done = demo.playbook("single.yml", "-e", "docker_bridge_address=172.29.0.1/24")
    assert done.returncode != 0
    assert "docker0 has 172.30.0.1 already" in done.stdout
