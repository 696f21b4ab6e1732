# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swap on an encrypted volume: a file in its root, which a unit turns on with the mount and off before it.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import sync_directory
from ansible_collections.civitas.hosting.plugins.module_utils._volume_keys import disk_of
from ansible_collections.civitas.hosting.plugins.module_utils._volume_mounts import Config
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import MEBIBYTE, Run, VolumeError, must

# What of the file system must stay free, and of the memory when swap comes back into it.
_FREE_OF_DISK = 10
_FREE_OF_MEMORY = 20
_SIGNATURE = b"SWAPSPACE2"
_PART = 4 * MEBIBYTE


class Kernel(t.NamedTuple):
    """What the kernel says; in tests what it would say."""

    swaps: str = "/proc/swaps"
    memory: str = "/proc/meminfo"


KERNEL = Kernel()


def used(config: Config, kernel: Kernel = KERNEL) -> t.Optional[int]:
    """How many bytes of memory lie in the swap; nothing when it is not in use. Raises OSError."""
    return _used(config.swap_file, _text(kernel.swaps))


def _used(path: str, swaps: str) -> t.Optional[int]:
    for line in swaps.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[0]) == path:
            return int(words[3]) << 10
    return None


def on(config: Config, before: t.Optional[int], check: bool = False, runner: Run = state.run) -> t.List[str]:
    """Turn on the swap of a volume that was mounted; C(before) is what C(used) said before that. Raises VolumeError.

    The mount has asked for it already, and nobody waited.
    """
    if not config.swap_size or before is not None or not (check or os.path.exists(config.swap_file)):
        return []
    if not check:
        must(runner, ["systemctl", "start", config.swap_unit])
    return [f"turn on the swap {config.swap_file}"]


def must_be_off(config: Config, kernel: Kernel = KERNEL) -> None:
    """Raises VolumeError, OSError."""
    left = used(config, kernel)
    if left is not None:
        raise VolumeError(
            f"the volume stays open: its swap {config.swap_file} is in use, and memory did not take the {left // MEBIBYTE} MiB that lie in "
            "it. Stop what needs memory, and run this again"
        )


def forget(config: Config, runner: Run = state.run) -> None:
    """Let systemd forget that an attempt before has failed: it calls a unit failed for that even when it is off since, or gone."""
    runner(["systemctl", "reset-failed", config.swap_unit], b"")


def bring(config: Config, check: bool = False, runner: Run = state.run, kernel: Kernel = KERNEL) -> t.List[str]:
    """Make, replace or remove the swap of a volume that is mounted; returns what was done, or would be. Raises VolumeError, OSError."""
    path, size = config.swap_file, config.swap_size
    if size and not config.encrypted:
        raise VolumeError(
            f"swap on {config.path} would lie in the clear, as the volume is not encrypted; encrypt it, or leave the swap out"
        )
    if config.path not in state.read_mounts():
        return [f"make the swap {path} of {size // MEBIBYTE} MiB", f"turn on the swap {path}"] if size else []
    # What a run that was cut off left is there as well.
    there = [each for each in (path, f"{config.path}/{state.SWAP_NEW}") if os.path.lexists(each)]
    inside = used(config, kernel)
    good = bool(size) and there == [path] and is_sound(path, size)
    if (good and inside is not None) or not (size or there):
        return []
    steps = []
    if not good:
        if size:
            _must_have_room(config, there)
            _must_be_encrypted(config, runner)
        if inside is not None:
            _must_fit(path, inside, _text(kernel.memory))
            steps.append(f"turn off the swap {path}")
        steps += [f"remove the swap {each}" for each in there]
        if size:
            steps.append(f"make the swap {path} of {size // MEBIBYTE} MiB")
    if size:
        steps.append(f"turn on the swap {path}")
    if check:
        return steps
    if not good:
        if inside is not None:
            _off(config, runner, kernel)
        for each in there:
            os.unlink(each)
        if size:
            make(path, size, runner)
    if size:
        must(runner, ["systemctl", "start", config.swap_unit])
        if used(config, kernel) is None:
            raise VolumeError(f"{path} is not in use as swap; see 'systemctl status {config.swap_unit}'")
    return steps


def is_sound(path: str, size: int) -> bool:
    """Whether a file is one that the kernel can use as swap, of a size, and for nobody to read. Raises OSError."""
    about = os.lstat(path)
    private = stat.S_ISREG(about.st_mode) and stat.S_IMODE(about.st_mode) == 0o600 and about.st_uid == 0 and about.st_nlink == 1
    if not private or about.st_size != size or about.st_blocks * 512 < size:
        return False
    with open(path, "rb") as file:
        file.seek(os.sysconf("SC_PAGE_SIZE") - len(_SIGNATURE))
        return file.read(len(_SIGNATURE)) == _SIGNATURE


def make(path: str, size: int, runner: Run = state.run) -> None:
    """Make a file for swap, whose blocks are all written: what has holes the kernel refuses. Raises VolumeError, OSError.

    It has another name until it is whole.
    """
    directory = os.path.dirname(path)
    new = os.path.join(directory, state.SWAP_NEW)
    try:
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb", buffering=0) as file:
            # In one piece, if there is one.
            os.posix_fallocate(file.fileno(), 0, size)
            zeros = memoryview(bytes(_PART))
            left = size
            while left:
                left -= file.write(zeros[: min(left, _PART)])
            os.fsync(file.fileno())
        must(runner, ["mkswap", new])
        os.rename(new, path)
        sync_directory(directory)
    except BaseException:
        if os.path.lexists(new):
            os.unlink(new)
        raise


def _must_have_room(config: Config, replaced: t.Sequence[str]) -> None:
    found = os.statvfs(config.path)
    # What it replaces is gone by then.
    old = sum(os.lstat(path).st_blocks * 512 for path in replaced)
    free, keep = found.f_bavail * found.f_frsize + old, found.f_blocks * found.f_frsize // _FREE_OF_DISK
    if config.swap_size + keep > free:
        raise VolumeError(
            f"there is no room on {config.path} for a swap of {config.swap_size // MEBIBYTE} MiB: {free // MEBIBYTE} MiB are free, and "
            f"{keep // MEBIBYTE} MiB, a tenth of the volume, must stay so. Write a smaller size, or grow the disk; nothing was changed"
        )


def _must_be_encrypted(config: Config, runner: Run) -> None:
    """Whatever the configuration says."""
    disk = disk_of(config.path, runner)
    if disk:
        raise VolumeError(f"a swap on {config.path} would lie in the clear on {disk}; what is mounted there is not the encrypted volume")


def _must_fit(path: str, inside: int, memory: str) -> None:
    found = {name: int(value) << 10 for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", memory, re.M)}
    free = found["MemAvailable"] - found["MemTotal"] // _FREE_OF_MEMORY
    if inside > free:
        raise VolumeError(
            f"memory cannot take the {inside // MEBIBYTE} MiB that lie in the swap {path}: {max(0, free) // MEBIBYTE} MiB are to spare. "
            "Stop what needs much, or wait, and run this again; nothing was changed"
        )


def _off(config: Config, runner: Run, kernel: Kernel) -> None:
    done = runner(["systemctl", "stop", config.swap_unit], b"")
    if used(config, kernel) is not None:
        said = " ".join((done.err or done.out).split())[:300].rstrip(".")
        raise VolumeError(f"the swap {config.swap_file} cannot be turned off: {said}. Free memory, and run this again; it is as it was")
    forget(config, runner)


def _text(path: str) -> str:
    """Empty where the kernel knows no swap."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
