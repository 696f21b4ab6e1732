# SPDX-License-Identifier: GPL-3.0-or-later
"""What grows when a disk did. That it does so while in use is proven in the scenario vm."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_grow as growing
from ansible_collections.civitas.hosting.plugins.module_utils._volume_grow import Layer, Step
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import MEBIBYTE, Done, VolumeError

from tests.unit.plugins.test_volume_state import RELEASES, said

M = MEBIBYTE
DISK, PART, CRYPT, EXT4 = (
    Layer("/dev/vdb", "disk", 400 * M),
    Layer("/dev/vdb1", "part", 318 * M, 2 * M),
    Layer("/dev/mapper/civitas-data", "crypt", 313 * M, 5 * M),
    Layer("/dev/dm-0", "ext4", 313 * M),
)


@pytest.mark.parametrize(
    ("layers", "grown", "notes"),
    [
        ([DISK, PART, CRYPT, EXT4], [398, 393, 393], 0),
        ([DISK, CRYPT, EXT4], [395, 395], 0),
        ([DISK, EXT4], [400], 0),
        # One that was cut off goes on.
        ([DISK, PART._replace(size=398 * M), CRYPT, EXT4], [393, 393], 0),
        ([DISK, PART._replace(size=398 * M), CRYPT._replace(size=393 * M), EXT4], [393], 0),
        # Nothing, and too little.
        ([DISK._replace(size=320 * M), PART, CRYPT, EXT4], [], 0),
        ([DISK._replace(size=335 * M), PART, CRYPT, EXT4], [], 0),
        ([DISK._replace(size=336 * M), PART, CRYPT, EXT4], [334, 329, 329], 0),
        # What cannot grow stops what lies on it, and says so when it has room.
        ([DISK, PART._replace(fixed="another partition lies behind it"), CRYPT, EXT4], [], 1),
        ([DISK, PART._replace(size=398 * M, fixed="why"), CRYPT, EXT4], [393, 393], 0),
        ([DISK, Layer("/dev/mapper/vg-data", "lvm", 313 * M, 0, "by hand"), EXT4], [], 1),
    ],
)
def test_what_grows(layers, grown, notes):
    steps, told = growing.plan(layers)
    assert [step.size // M for step in steps] == grown and len(told) == notes


def test_partitions():
    assert growing.partition(400 * M, "gpt", M, 100 * M, []) == (M + 33 * 512, "")
    assert growing.partition(400 * M, "dos", M, 100 * M, []) == (M, "")
    assert growing.partition(400 * M, "gpt", 100 * M, 100 * M, [M]) == (100 * M + 33 * 512, "")
    assert growing.partition(400 * M, "gpt", M, 100 * M, [200 * M]) == (201 * M, "another partition lies behind it")
    assert growing.partition(4 << 40, "dos", M, 2 << 40, [])[1] == "a table of the kind dos ends at 2 TiB"


@pytest.mark.parametrize("release", RELEASES)
def test_sizes_of_file_systems(release):
    assert growing.size_of_ext4(said(release, "dumpe2fs")) == 20 * M
    assert growing.size_of_xfs(said(release, "xfs")) == 320 * M


def test_a_size_that_is_not_shown_is_told():
    for read in (growing.size_of_ext4, growing.size_of_xfs):
        with pytest.raises(VolumeError, match="does not show the size"):
            read("Block count: many")


def answers(*asked):
    """A host on which each command ends so."""
    told: list[tuple[list[str], bytes]] = []

    def runner(command, given):
        told.append((list(command), given))
        return dict(asked).get(command[0], Done(0, "/dev/mapper/civitas-data\n", ""))

    return told, runner


def test_luks_grows_with_the_passphrase_in_no_word():
    told, runner = answers()
    growing.apply(Step(CRYPT, 1), "/srv/data", b"canary", runner)
    assert told[-1] == (["cryptsetup", "resize", "--key-file", "-", "civitas-data"], b"canary")
    with pytest.raises(VolumeError, match="its passphrase is needed"):
        growing.apply(Step(CRYPT, 1), "/srv/data", b"", runner)
    _told, runner = answers(("cryptsetup", Done(2, "", "")))
    with pytest.raises(VolumeError, match="it was not grown"):
        growing.apply(Step(CRYPT, 1), "/srv/data", b"canary", runner)


def test_each_kind_has_its_program():
    told, runner = answers()
    growing.apply(Step(EXT4, 1), "/srv/data", b"", runner)
    growing.apply(Step(Layer("/dev/vdb", "xfs", 1), 1), "/srv/data", b"", runner)
    assert [command for command, _given in told] == [["resize2fs", "/dev/dm-0"], ["xfs_growfs", "/srv/data"]]


def test_what_did_not_grow_is_no_change(monkeypatch):
    """Whatever was planned: only what is larger afterwards counts."""
    sizes = iter([313, 313])

    def read(_path, _runner):
        return [DISK, Layer("/dev/vdb", "ext4", next(sizes) * M)]

    monkeypatch.setattr(growing, "read", read)
    _told, runner = answers()
    assert growing.grow("/srv/data", runner=runner) == growing.Outcome([], False, [])


def test_nothing_is_mounted_there():
    with pytest.raises(VolumeError, match="nothing is mounted at /civitas-none"):
        growing.read("/civitas-none")
