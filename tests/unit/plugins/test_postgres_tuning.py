# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.postgres_tuning import postgres_tuning
from hypothesis import given
from hypothesis import strategies as st

GB = 1024


@pytest.mark.parametrize(
    ("memory_mb", "cpus", "share", "expected"),
    [
        (512, 1, 0.5, ("64MB", "192MB", "2MB", "32MB", "1GB", 0)),
        (1 * GB, 1, 0.5, ("128MB", "384MB", "2MB", "32MB", "1GB", 0)),
        (2 * GB, 2, 0.5, ("256MB", "768MB", "2MB", "64MB", "1GB", 1)),
        (4 * GB, 2, 0.5, ("512MB", "1536MB", "5MB", "128MB", "1GB", 1)),
        (8 * GB - 1, 4, 0.5, ("992MB", "2976MB", "9MB", "248MB", "1GB", 2)),
        (8 * GB, 4, 0.5, ("1024MB", "3072MB", "10MB", "256MB", "4GB", 2)),
        (16 * GB, 8, 1, ("4096MB", "12288MB", "40MB", "1024MB", "4GB", 4)),
        (64 * GB, 16, 1, ("16384MB", "49152MB", "64MB", "1024MB", "4GB", 4)),
        (512 * GB, 128, 1, ("16384MB", "393216MB", "64MB", "1024MB", "4GB", 4)),
    ],
)
def test_sizes(memory_mb, cpus, share, expected):
    settings = postgres_tuning(memory_mb, cpus=cpus, share=share)
    keys = ("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem", "max_wal_size", "max_parallel_workers_per_gather")
    assert tuple(settings[key] for key in keys) == expected


def test_disk_decides_cost_of_random_reads():
    assert postgres_tuning(4 * GB, cpus=2, disk="ssd")["random_page_cost"] == "1.1"
    assert postgres_tuning(4 * GB, cpus=2, disk="hdd")["effective_io_concurrency"] == 2


def test_some_megabytes_less_change_nothing():
    assert postgres_tuning(3916, cpus=2) == postgres_tuning(3890, cpus=2)


def test_numbers_that_arrive_as_text_are_numbers():
    assert postgres_tuning("4096", cpus="2", share="0.5", max_connections="100") == postgres_tuning(4096, cpus=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_mb": 511}, "at least 512 MiB"),
        ({"cpus": 0}, "1 or more"),
        ({"share": 0}, "above 0"),
        ({"share": 1.01}, "at most 1"),
        ({"max_connections": 4}, "from 5 to 10000"),
        ({"disk": "tape"}, "ssd or hdd"),
        ({"memory_mb": "much"}, "invalid literal"),
    ],
)
def test_impossible_values_say_what_to_write(arguments, message):
    with pytest.raises(AnsibleFilterError, match=message):
        postgres_tuning(**{"memory_mb": 4096, "cpus": 2, **arguments})


@given(
    memory_mb=st.integers(512, 4 * 1024 * 1024),
    cpus=st.integers(1, 1024),
    share=st.floats(0.05, 1),
    connections=st.integers(5, 10000),
)
def test_buffers_never_take_the_memory_away(memory_mb, cpus, share, connections):
    settings = postgres_tuning(memory_mb, cpus, share, connections)
    size = {key: int(value[:-2]) for key, value in settings.items() if str(value).endswith("MB") and key != "min_wal_size"}
    assert size["shared_buffers"] <= max(memory_mb * share / 4, 64)
    if memory_mb * share >= 512:  # Below that the floors of the formulas rule.
        assert size["shared_buffers"] + 3 * size["maintenance_work_mem"] <= memory_mb * share / 2
    assert settings["max_parallel_workers_per_gather"] <= settings["max_parallel_workers"] <= settings["max_worker_processes"]
