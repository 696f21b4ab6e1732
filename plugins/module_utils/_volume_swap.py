# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swap of a host with an encrypted volume: what is in memory must not lie on a disk in the clear.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_text
from ansible_collections.civitas.hosting.plugins.module_utils._volume_keys import chain, disk_of
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Run, VolumeError

FSTAB = "/etc/fstab"
MARK = "# swap in the clear, off since the data volume is encrypted: "


def in_use(swaps: str) -> t.List[str]:
    """Devices and files of the text of /proc/swaps, but for those in memory."""
    words = [line.split() for line in swaps.splitlines()[1:]]
    return [line[0].replace("\\040", " ") for line in words if line and not line[0].startswith("/dev/zram")]


def plain(runner: Run = state.run, swaps: str = "/proc/swaps") -> t.List[str]:
    """Swap that is in use on a disk in the clear."""
    try:
        with open(swaps, encoding="utf-8") as file:
            found = in_use(file.read())
    except FileNotFoundError:
        return []
    return [path for path in found if is_plain(path, runner)]


def is_plain(path: str, runner: Run = state.run) -> bool:
    """Whether swap at a path lies on a disk in the clear."""
    if os.path.realpath(path).startswith("/dev/"):
        return not any(kind == "crypt" for _node, kind in chain(path, runner))
    return bool(disk_of(path, runner))


def without(fstab: str, clear: t.Callable[[str], bool]) -> str:
    """The text of fstab(5) with the swap taken out for which C(clear) says so."""
    lines = []
    for line in fstab.splitlines(keepends=True):
        words = line.split()
        swap = len(words) > 2 and not line.lstrip().startswith("#") and words[2] == "swap"
        lines.append(f"{MARK}{line}" if swap and clear(words[0]) else line)
    return "".join(lines)


def off(check: bool = False, runner: Run = state.run, fstab: str = FSTAB, swaps: str = "/proc/swaps") -> t.List[str]:
    """Turn swap in the clear off, now and at boot; returns what was done. Raises VolumeError, OSError."""
    steps = []
    try:
        with open(fstab, encoding="utf-8") as file:
            before = file.read()
    except FileNotFoundError:
        before = ""
    after = without(before, lambda written: _clear(written, runner))
    if after != before:
        steps.append(f"take swap in the clear out of {fstab}")
        if not check:
            write_text(fstab, after, os.stat(fstab).st_mode & 0o777)
    for path in plain(runner, swaps):
        steps.append(f"turn off the swap {path}")
        if not check:
            done = runner(["swapoff", path], b"")
            if done.status != 0:
                raise VolumeError(f"swapoff {path}: {' '.join(done.err.split())}; free memory, and run this again")
    return steps


def _clear(written: str, runner: Run) -> bool:
    path = state.device_path(written.strip('"'))
    return not os.path.exists(path) or is_plain(path, runner)
