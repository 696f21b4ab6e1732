# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured of a host itself: its mounts, memory, processors, clock and units.

Private to the collection: no promise of stability. Standard library only. Functions get what was read and return or yield samples.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, sample

TITLES = {
    "civitas_mount_used_ratio": "How full it is for those who are not root, as df shows it.",
    "civitas_mount_inodes_used_ratio": "How many of its inodes are used.",
    "civitas_mount_writable": "0 when the file system went read-only by itself.",
    "civitas_expected_mount": "1 when something is mounted there.",
    "civitas_memory_available_ratio": "How much memory programs can get without swapping.",
    "civitas_swap_used_ratio": "How much of the swap space is used; absent without any.",
    "civitas_cpu_busy_ratio": "How busy all processors were since the measurement before.",
    "civitas_load_per_cpu": "Load over five minutes, by processor.",
    "civitas_clock_offset_seconds": "How far the clock is off, in either direction; absent when nothing tells.",
    "civitas_clock_synchronised": "1 when the clock follows a time server.",
    "civitas_logs_rotated_time_seconds": "When logrotate last reached its canary, a log that is rotated daily.",
    "civitas_unit_failed": "1 for each systemd unit that has failed.",
    "civitas_units_failed": "How many systemd units have failed.",
    "civitas_unit_running": "1 when a systemd unit runs that is to run always.",
}
# Those that hold data of the host. Not so network file systems, which may hang whoever asks them, nor overlays of containers.
_DATA = ("btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "ntfs3", "overlay", "reiserfs", "tmpfs", "vfat", "xfs", "zfs")
# Below these are the kernel's own, and those of single sessions and containers.
_PASSED_OVER = ("/dev", "/proc", "/run", "/sys", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet")
_SEPARATE = ("/run", "/var/lib/containers", "/var/lib/docker")
# How long no time server needs to answer, in seconds: by itself chrony asks once in 17 minutes, but may be told to ask less often.
# An outage is an interval as well.
_CLOCK_PATIENCE, _CLOCK_LONGEST = 3600.0, 86400.0
_OCTAL = re.compile(r"\\([0-7]{3})")


class MeasureError(Exception):
    """Something could not be measured, and why."""


class Mount(t.NamedTuple):
    """A line of /proc/self/mountinfo. V(options) are those of the file system, not of this one view of it."""

    device: str
    root: str
    point: str
    kind: str
    options: t.FrozenSet[str]


def parse_mounts(mountinfo: str) -> t.Tuple[t.List[Mount], t.List[str]]:
    """The mounts, and what is wrong with lines that are none."""
    found, faults = [], []
    # Whoever may mount something names it as he likes; the kernel masks no other ends of lines.
    for line in filter(None, mountinfo.split("\n")):
        left, _dash, right = line.partition(" - ")
        try:
            _id, _parent, device, root, point = left.split(" ")[:5]
            kind, _source, options = right.split(" ")[:3]
        except ValueError:
            faults.append(f"/proc/self/mountinfo has a line that is none: {line[:100]!r}")
            continue
        found.append(Mount(device, _plain(root), _plain(point), kind, frozenset(options.split(","))))
    return found, faults


def _plain(path: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), path)


def data_mounts(mounts: t.Iterable[Mount], is_directory: t.Callable[[str], bool] = os.path.isdir) -> t.List[Mount]:
    """One mount for each file system that can fill up: of several views of one, the whole before a part, then the one nearest to /."""
    found: t.Dict[str, Mount] = {}
    # What is mounted later at the same point covers what was there.
    for mount in {mount.point: mount for mount in mounts}.values():
        covered = mount.point not in _SEPARATE and any(mount.point == path or mount.point.startswith(f"{path}/") for path in _PASSED_OVER)
        if mount.kind not in _DATA or covered or (mount.kind == "overlay" and mount.point != "/") or not is_directory(mount.point):
            continue
        other = found.get(mount.device)
        if other is None or _rank(mount) < _rank(other):
            found[mount.device] = mount
    return sorted(found.values(), key=lambda mount: mount.point)


def _rank(mount: Mount) -> t.Tuple[bool, int, str]:
    return mount.root != "/", len(mount.point), mount.point


def read_only_by_choice(fstab: str) -> t.Set[str]:
    lines = [line.split() for line in fstab.split("\n") if not line.lstrip().startswith("#")]
    return {_plain(words[1]) for words in lines if len(words) > 3 and "ro" in words[3].split(",")}


def mounts(
    mountinfo: str,
    fstab: str,
    expected: t.Iterable[str],
    measure: t.Callable[[str], os.statvfs_result] = os.statvfs,
    is_directory: t.Callable[[str], bool] = os.path.isdir,
) -> t.Iterator[Sample]:
    """Raises MeasureError after all else, when a mount could not be measured."""
    everything, faults = parse_mounts(mountinfo)
    present = {mount.point for mount in everything if mount.kind != "autofs"}
    for path in expected:
        yield sample("civitas_expected_mount", path in present, mountpoint=path)
    by_choice = read_only_by_choice(fstab)
    for mount in data_mounts(everything, is_directory):
        labels = {"mountpoint": mount.point}
        try:
            disk = measure(mount.point)
        except OSError as error:
            faults.append(f"{mount.point}: {error.strerror}")
            continue
        used = disk.f_blocks - disk.f_bfree
        if used + disk.f_bavail > 0:
            yield sample("civitas_mount_used_ratio", used / (used + disk.f_bavail), **labels)
        # Some file systems make inodes as they need them.
        if disk.f_files > 0:
            yield sample("civitas_mount_inodes_used_ratio", (disk.f_files - disk.f_ffree) / disk.f_files, **labels)
        if mount.point not in by_choice:
            yield sample("civitas_mount_writable", "ro" not in mount.options, **labels)
    if faults:
        raise MeasureError("; ".join(faults))


def memory(meminfo: str) -> t.Iterator[Sample]:
    """Raises MeasureError."""
    values = {}
    for line in meminfo.splitlines():
        key, _colon, value = line.partition(":")
        if value.split()[:1]:
            values[key] = float(value.split()[0])
    try:
        yield sample("civitas_memory_available_ratio", values["MemAvailable"] / values["MemTotal"])
        if values["SwapTotal"] > 0:
            yield sample("civitas_swap_used_ratio", (values["SwapTotal"] - values["SwapFree"]) / values["SwapTotal"])
    except KeyError as error:
        raise MeasureError(f"/proc/meminfo has no {error}") from None


def processors(stat: str, loadavg: str, state: t.Dict[str, t.Any]) -> t.Iterator[Sample]:
    """C(state) keeps what was counted the time before. Raises MeasureError."""
    lines = [line.split() for line in stat.splitlines()]
    # The two last numbers of a line are in the first two as well.
    total = next((list(map(int, words[1:9])) for words in lines if words[:1] == ["cpu"]), [])
    count = sum(1 for words in lines if words and re.fullmatch(r"cpu[0-9]+", words[0]))
    if len(total) < 5 or not count:
        raise MeasureError("/proc/stat does not count what processors do")
    yield sample("civitas_load_per_cpu", float(loadavg.split()[1]) / count)
    idle, everything = total[3] + total[4], sum(total)
    before_idle, before = state.get("idle", idle), state.get("everything", everything)
    # All of it begins anew at a boot. The time waiting for disks may go down by itself, most of all while nothing is idle.
    if everything > before:
        yield sample("civitas_cpu_busy_ratio", max(0.0, 1 - max(0, idle - before_idle) / (everything - before)))
    state.update(idle=idle, everything=everything)


def clock(tracking: str, kernel_follows: bool, now: float) -> t.Iterator[Sample]:
    """What chrony says; where it does not run, as in a container, what the kernel knows of the host's clock.

    Args:
        tracking: the output of C(chronyc -c tracking), empty when there was no answer.

    Raises:
        ValueError: the answer is of another kind.
    """
    fields = tracking.strip().split(",")
    if len(fields) < 14:
        yield sample("civitas_clock_synchronised", kernel_follows)
        return
    told = fields[13] != "Not synchronised"
    # chrony says so for ever of the last source it had. When it heard from one, and how long before that from the one before:
    heard, interval = float(fields[3]), float(fields[12])
    yield sample("civitas_clock_synchronised", told and now - heard <= min(_CLOCK_LONGEST, max(_CLOCK_PATIENCE, 4 * interval)))
    if told:
        yield sample("civitas_clock_offset_seconds", abs(float(fields[4])))


def failed_units(listed: str) -> t.Iterator[Sample]:
    """C(systemctl list-units --state=failed --plain --no-legend)."""
    names = {line.split()[0] for line in listed.split("\n") if line.strip()}
    yield sample("civitas_units_failed", len(names))
    for name in sorted(names):
        yield sample("civitas_unit_failed", 1, unit=name)


def running_units(units: t.Sequence[str], shown: str) -> t.Iterator[Sample]:
    """C(systemctl show --property=ActiveState) of C(units), in their order; a unit that is not there is inactive. Raises MeasureError."""
    states = [line.partition("=")[2] for line in shown.split() if line.startswith("ActiveState=")]
    if len(states) != len(units):
        raise MeasureError(f"systemctl answered for {len(states)} of {len(units)} units")
    for unit, state in zip(units, states):
        yield sample("civitas_unit_running", state in ("active", "reloading", "refreshing"), unit=unit)
