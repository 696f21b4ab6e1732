# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL settings from the size of the host.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import typing as t

# What a page read out of order costs compared with one in order, and how many reads the disk answers at once.
DISKS = {"ssd": ("1.1", 200), "hdd": ("4", 2)}

MINIMUM_MEMORY_MB = 512


def tune(memory_mb: int, cpus: int, share: float = 0.5, max_connections: int = 100, disk: str = "ssd") -> t.Dict[str, t.Union[str, int]]:
    """Return PostgreSQL settings for a host.

    The memory that PostgreSQL may count on is ``memory_mb * share``, rounded down; the page cache of the kernel is part of it.

    Args:
        memory_mb: memory of the host in MiB, at least 512.
        cpus: processors of the host, at least 1.
        share: part of the memory that is for PostgreSQL, above 0 and at most 1. A host with an application beside it: 0.5.
        max_connections: how many clients may be connected at once, 5 to 10000.
        disk: ``ssd`` or ``hdd``.

    Returns:
        Setting to value. Memory is text with a unit (``512MB``), the others are numbers or their text.

    Raises:
        ValueError: a value that cannot be, with what to write.
    """
    if memory_mb < MINIMUM_MEMORY_MB:
        raise ValueError(f"memory_mb is {memory_mb}; PostgreSQL needs a host with at least {MINIMUM_MEMORY_MB} MiB")
    if cpus < 1:
        raise ValueError(f"cpus is {cpus}; write the number of processors, 1 or more")
    if not 0 < share <= 1:
        raise ValueError(f"share is {share:g}; write a part above 0 and at most 1, such as 0.5")
    if not 5 <= max_connections <= 10000:
        raise ValueError(f"max_connections is {max_connections}; write a number from 5 to 10000")
    if disk not in DISKS:
        raise ValueError(f"disk is {disk!r}; write {' or '.join(DISKS)}")

    memory = _steady(int(memory_mb * share))
    # A quarter: the rest is left to the page cache, which PostgreSQL reads through. Above 16 GiB the gain ends and checkpoints suffer.
    shared_buffers = _within(memory // 4, 64, 16 * 1024)
    # A sort or hash may use this much several times in one query, so all connections busy with three of them still fit.
    work_mem = _within((memory - shared_buffers) // (max_connections * 3), 2, 64)
    # Three autovacuum workers may each use it.
    maintenance_work_mem = _within(memory // 16, 32, 1024)
    parallel = _within(cpus // 2, 1, 4)
    random_page_cost, effective_io_concurrency = DISKS[disk]
    return {
        "max_connections": max_connections,
        "shared_buffers": f"{shared_buffers}MB",
        "effective_cache_size": f"{memory * 3 // 4}MB",
        "work_mem": f"{work_mem}MB",
        "maintenance_work_mem": f"{maintenance_work_mem}MB",
        # Fewer checkpoints on hosts that have the disk for it; a crash is then replayed in seconds to a minute.
        "min_wal_size": "256MB" if memory < 4096 else "1GB",
        "max_wal_size": "1GB" if memory < 4096 else "4GB",
        "random_page_cost": random_page_cost,
        "effective_io_concurrency": effective_io_concurrency,
        "max_worker_processes": max(8, cpus),
        "max_parallel_workers": _within(cpus, 1, 64),
        "max_parallel_workers_per_gather": 0 if cpus == 1 else parallel,
        "max_parallel_maintenance_workers": 0 if cpus == 1 else parallel,
    }


def _steady(memory: int) -> int:
    """Round down to four significant binary digits: a new kernel that counts some MiB less must not ask for a restart of the server."""
    step = 1 << max(0, memory.bit_length() - 5)
    return memory // step * step


def _within(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))
