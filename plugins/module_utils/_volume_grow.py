# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Grows a mounted file system, and what it lies on, as far as the disk allows.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._volume_keys import chain
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Run, VolumeError, must

# What is less is not worth it: file systems leave a rest, and partitions end where they are aligned.
LEAST = 16 * state.MEBIBYTE
# The copy of a GPT at the end of a disk.
_GPT_END = 33 * 512


class Layer(t.NamedTuple):
    """One of what lies upon each other.

    Attributes:
        node: the device; of a file system the one that it lies on.
        kind: C(disk), C(part), C(crypt), C(ext4), C(xfs), or what only people grow, such as C(lvm).
        size: bytes now.
        least: bytes that it loses of the one below: what is before its data, and what must stay free behind.
        fixed: why it cannot grow; empty when it can.
    """

    node: str
    kind: str
    size: int
    least: int = 0
    fixed: str = ""


class Step(t.NamedTuple):
    """A layer that grows."""

    layer: Layer
    size: int


def plan(layers: t.Sequence[Layer]) -> t.Tuple[t.List[Step], t.List[str]]:
    """What grows, and why something does not, from the disk upward."""
    steps: t.List[Step] = []
    notes: t.List[str] = []
    room = layers[0].size
    for layer in layers[1:]:
        available = room - layer.least
        if layer.fixed:
            if available - layer.size >= LEAST:
                notes.append(f"{layer.node}: {layer.fixed}")
            room = layer.size
        elif available - layer.size >= LEAST:
            steps.append(Step(layer, available))
            room = available
        else:
            room = layer.size
    return steps, notes


def partition(disk_size: int, label: str, start: int, size: int, others: t.Sequence[int]) -> t.Tuple[int, str]:
    """What a partition loses of its disk, in bytes, and why it cannot grow.

    Args:
        disk_size: bytes.
        label: kind of the table, such as C(gpt).
        start: first byte of the partition.
        size: bytes of the partition.
        others: first bytes of the other partitions.
    """
    behind = [other for other in others if other > start]
    if behind:
        return start + max(0, disk_size - min(behind)), "another partition lies behind it"
    if label == "dos" and start + size >= 2**32 * 512 - LEAST:
        return start, "a table of the kind dos ends at 2 TiB"
    return start + (_GPT_END if label == "gpt" else 0), ""


def read(path: str, runner: Run = state.run) -> t.List[Layer]:
    """The layers below a mount point, the disk first. Raises VolumeError, OSError."""
    mounts = state.read_mounts()
    if path not in mounts:
        raise VolumeError(f"nothing is mounted at {path}")
    source = os.path.realpath(mounts[path][1])
    if not source.startswith("/dev/"):
        raise VolumeError(f"{path} lies on {mounts[path][1]}, which is no disk")
    found = chain(source, runner)
    for node, kind in found:
        _rescan(node, kind)
    layers = [_layer(node, kind, found[place + 1][0] if place + 1 < len(found) else "", runner) for place, (node, kind) in enumerate(found)]
    layers.reverse()
    return [*layers, _file_system(path, source, runner)]


def _rescan(node: str, kind: str) -> None:
    """Ask a disk for its size; virtual ones tell it by themselves."""
    asked = f"/sys/class/block/{os.path.basename(node)}/device/rescan"
    if kind == "disk" and os.access(asked, os.W_OK):
        with open(asked, "w", encoding="ascii") as file:
            file.write("1\n")


def _size(node: str) -> int:
    with open(f"/sys/class/block/{os.path.basename(os.path.realpath(node))}/size", encoding="ascii") as file:
        return int(file.read()) * 512


def _number(node: str, name: str) -> int:
    with open(f"/sys/class/block/{os.path.basename(node)}/{name}", encoding="ascii") as file:
        return int(file.read())


def _layer(node: str, kind: str, below: str, runner: Run) -> Layer:
    size = _size(node)
    if kind in ("disk", "loop"):
        return Layer(node, "disk", size)
    if kind == "part":
        disk = os.path.basename(below)
        others = []
        for name in os.listdir(f"/sys/class/block/{disk}"):
            if name.startswith(disk) and name != os.path.basename(node):
                others.append(_number(name, "start") * 512)
        label = must(runner, ["lsblk", "--noheadings", "--nodeps", "--output", "PTTYPE", below]).strip()
        least, fixed = partition(_size(below), label, _number(node, "start") * 512, size, others)
        return Layer(node, "part", size, least, fixed)
    if kind == "crypt":
        luks = state.read_luks(state.read_device(below, runner), runner)
        return Layer(node, "crypt", size, luks.offset)
    return Layer(node, kind, size, 0, f"it is of the kind {kind}; grow it by hand (lvextend for LVM), then run this again")


def _file_system(path: str, source: str, runner: Run) -> Layer:
    kind = must(runner, ["findmnt", "--noheadings", "--output", "FSTYPE", "--mountpoint", path]).split()[-1]
    if kind == "ext4":
        return Layer(source, kind, size_of_ext4(must(runner, ["dumpe2fs", "-h", source])))
    if kind == "xfs":
        return Layer(source, kind, size_of_xfs(must(runner, ["xfs_info", path])))
    return Layer(source, kind, _size(source), 0, f"a file system {kind} is grown by hand")


def size_of_ext4(shown: str) -> int:
    """Bytes, of what C(dumpe2fs -h) shows. Raises VolumeError."""
    found = dict(re.findall(r"^(Block count|Block size):\s+(\d+)$", shown, re.M))
    if len(found) != 2:
        raise VolumeError("dumpe2fs does not show the size of the file system")
    return int(found["Block count"]) * int(found["Block size"])


def size_of_xfs(shown: str) -> int:
    """Bytes, of what C(xfs_info) shows. Raises VolumeError."""
    found = re.search(r"^data\s+=\s+bsize=(\d+)\s+blocks=(\d+)", shown, re.M)
    if not found:
        raise VolumeError("xfs_info does not show the size of the file system")
    return int(found[1]) * int(found[2])


def apply(step: Step, path: str, passphrase: bytes, runner: Run = state.run) -> None:
    """Grow one layer. Raises VolumeError."""
    node, kind = step.layer.node, step.layer.kind
    if kind == "part":
        disk = re.sub(r"p?\d+$", "", node) if re.search(r"\dp\d+$", node) else re.sub(r"\d+$", "", node)
        must(runner, ["growpart", disk, str(_number(node, "partition"))])
        runner(["udevadm", "settle", "--timeout", "60"], b"")
    elif kind == "crypt":
        if not passphrase:
            raise VolumeError(f"{node} is encrypted; its passphrase is needed to grow it")
        name = os.path.basename(must(runner, ["lsblk", "--noheadings", "--nodeps", "--paths", "--output", "NAME", node]).strip())
        done = runner(["cryptsetup", "resize", "--key-file", "-", name], passphrase)
        if done.status == 2:
            raise VolumeError(f"the passphrase does not open {node}; it was not grown")
        if done.status != 0:
            raise VolumeError(f"cryptsetup resize {name}: {' '.join(done.err.split())[:300]}")
    elif kind == "ext4":
        must(runner, ["resize2fs", node])
    else:
        must(runner, ["xfs_growfs", path])


class Outcome(t.NamedTuple):
    """What grew: lines for people, whether anything did, and why something did not."""

    lines: t.List[str]
    changed: bool
    notes: t.List[str]


def grow(path: str, passphrase: bytes = b"", check: bool = False, runner: Run = state.run) -> Outcome:
    """Grow what is mounted at a path. Raises VolumeError, OSError; what grew until then has grown, and the next run goes on."""
    before = read(path, runner)
    steps, notes = plan(before)
    if not check:
        for step in steps:
            apply(step, path, passphrase, runner)
    after = {layer[:2]: layer.size for layer in (read(path, runner) if steps and not check else [])}
    lines = []
    for step in steps:
        layer = step.layer
        size = step.size if check else after.get(layer[:2], layer.size)
        if size != layer.size:
            lines.append(f"{layer.kind} {layer.node}: {_mebibytes(layer.size)} -> {'about ' if check else ''}{_mebibytes(size)}")
    return Outcome(lines, bool(lines), notes)


def _mebibytes(size: int) -> str:
    return f"{size // state.MEBIBYTE} MiB"
