# SPDX-License-Identifier: GPL-3.0-or-later
"""Swap on the data volume, with the kernel's own swap on real file systems. That it comes with the volume is proven in the scenario vm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _reset_data as resetting
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_trees as trees
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_swapfile as swapfile
from ansible_collections.civitas.hosting.plugins.module_utils._volume_mounts import Config
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import MEBIBYTE, Done, VolumeError
from ansible_collections.civitas.hosting.plugins.module_utils._volume_swapfile import Kernel

from tests.unit import backup_sets

SIZE = 8 * MEBIBYTE
# XFS makes no smaller one.
DISKS = {"ext4": 96 * MEBIBYTE, "xfs": 320 * MEBIBYTE}


def config(path: object, size: int = SIZE, encryption: str = "operator") -> Config:
    return Config("LABEL=data", encryption, "/dev/mapper/civitas-data", "u", "l", str(path), (), swap_size=size)


def volume(base: Path, kind: str) -> Iterator[Path]:
    """A file system of its own, whose swap is off when the test ends."""
    programs = [f"mkfs.{kind}", "losetup", "mkswap", "swapon", "swapoff"]
    missing = [program for program in programs if shutil.which(program) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root, and the programs {', '.join(programs)}")
    with (base / "disk").open("wb") as stream:
        stream.truncate(DISKS[kind])
    subprocess.run([f"mkfs.{kind}", "-q", base / "disk"], check=True)
    (base / "volume").mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", base / "disk", base / "volume"], capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no block device can be made here: {mounted.stderr.strip()}")
    try:
        yield base / "volume"
    finally:
        subprocess.run(["swapoff", base / "volume" / state.SWAP_FILE], capture_output=True, check=False)
        subprocess.run(["umount", base / "volume"], check=True)


@pytest.fixture
def ext4(tmp_path):
    yield from volume(tmp_path, "ext4")


@pytest.fixture(params=list(DISKS))
def any_kind(request, tmp_path):
    yield from volume(tmp_path, request.param)


@pytest.fixture
def encrypted(monkeypatch):
    """The tests have no LUKS."""
    monkeypatch.setattr(swapfile, "disk_of", lambda *_arguments: "")


class Host:
    """This machine, with a systemd that only knows swap and, as systemd does, what has failed; and what it was told."""

    def __init__(self, path: Path) -> None:
        self.path, self.told, self.failed = path, [], False

    def __call__(self, command, given):
        self.told.append(list(command))
        if command[:2] == ["systemctl", "reset-failed"]:
            self.failed = False
            return Done(0, "", "")
        if command[0] == "systemctl":
            return state.run([{"start": "swapon", "stop": "swapoff"}[command[1]], str(self.path / state.SWAP_FILE)])
        return state.run(command, given)


def test_swap_is_made_changed_and_taken_away(any_kind, encrypted):
    host, file = Host(any_kind), any_kind / state.SWAP_FILE
    made = [f"make the swap {file} of 8 MiB", f"turn on the swap {file}"]
    assert swapfile.bring(config(any_kind), True, host) == made and host.told == [] and not file.exists()
    assert swapfile.bring(config(any_kind), False, host) == made
    found = file.stat()
    assert (found.st_size, found.st_mode & 0o777, found.st_uid) == (SIZE, 0o600, 0) and found.st_blocks * 512 >= SIZE
    assert swapfile.used(config(any_kind)) == 0
    # Once.
    for check in (True, False):
        assert swapfile.bring(config(any_kind), check, host) == []
    assert file.stat().st_ino == found.st_ino
    # Off, and as good as before.
    subprocess.run(["swapoff", file], check=True)
    assert swapfile.bring(config(any_kind), False, host) == [f"turn on the swap {file}"]
    assert file.stat().st_ino == found.st_ino
    # Another size.
    changed = [f"turn off the swap {file}", f"remove the swap {file}", f"make the swap {file} of 12 MiB", f"turn on the swap {file}"]
    larger = config(any_kind, 12 * MEBIBYTE)
    assert swapfile.bring(larger, True, host) == changed and swapfile.used(larger) == 0 and file.stat().st_ino == found.st_ino
    assert swapfile.bring(larger, False, host) == changed and swapfile.used(larger) == 0
    assert file.stat().st_size == 12 * MEBIBYTE and swapfile.bring(larger, False, host) == []
    # None. At an attempt before, memory was full.
    host.failed = True
    none = config(any_kind, 0)
    gone = [f"turn off the swap {file}", f"remove the swap {file}"]
    assert swapfile.bring(none, True, host) == gone and swapfile.used(larger) == 0
    assert swapfile.bring(none, False, host) == gone and swapfile.used(larger) is None and not host.failed
    assert swapfile.bring(none, False, host) == [] and state.SWAP_FILE not in os.listdir(any_kind)


def damage_mode(file):
    file.chmod(0o644)


def damage_signature(file):
    with file.open("r+b") as stream:
        stream.write(bytes(4096))


def damage_holes(file):
    # The kernel refuses it with all the rest in order.
    with file.open("r+b") as stream:
        stream.truncate(MEBIBYTE)
        stream.truncate(SIZE)


def damage_link(file):
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def damage_name(file):
    file.with_name("second").hardlink_to(file)


@pytest.mark.parametrize("damage", [damage_mode, damage_signature, damage_holes, damage_link, damage_name])
def test_a_file_that_is_no_good_is_made_anew(ext4, encrypted, damage):
    host, file = Host(ext4), ext4 / state.SWAP_FILE
    swapfile.make(str(file), SIZE)
    damage(file)
    made = [f"remove the swap {file}", f"make the swap {file} of 8 MiB", f"turn on the swap {file}"]
    assert swapfile.bring(config(ext4), False, host) == made
    assert swapfile.is_sound(str(file), SIZE) and swapfile.used(config(ext4)) == 0


def test_a_run_that_was_cut_off(ext4, encrypted):
    """By a power failure: the next one starts over, whatever is wanted by then."""
    host, left = Host(ext4), ext4 / state.SWAP_NEW
    left.write_bytes(bytes(4096))
    steps = swapfile.bring(config(ext4), False, host)
    assert steps[0] == f"remove the swap {left}" and not left.exists() and swapfile.used(config(ext4)) == 0
    left.write_bytes(bytes(4096))
    swapfile.bring(config(ext4, 0), False, host)
    assert not left.exists() and swapfile.bring(config(ext4, 0), False, host) == []


def test_a_file_that_cannot_be_made_leaves_nothing(ext4, encrypted):
    def no_mkswap(command, _given):
        return Done(1, "", "no space" if command[0] == "mkswap" else "")

    with pytest.raises(VolumeError, match=r"'mkswap .*no space"):
        swapfile.bring(config(ext4), False, no_mkswap)
    assert not [name for name in os.listdir(ext4) if "swap" in name]


def test_a_volume_with_too_little_room_is_left_alone(ext4, encrypted):
    host = Host(ext4)
    swapfile.bring(config(ext4), False, host)
    told = list(host.told)
    found = os.statvfs(ext4)
    keep = found.f_blocks * found.f_frsize // 10
    most = (found.f_bavail * found.f_frsize + SIZE - keep) // MEBIBYTE * MEBIBYTE
    for check in (True, False):
        with pytest.raises(VolumeError, match=r"there is no room on .* MiB are free.*a tenth of the volume.*nothing was changed"):
            swapfile.bring(config(ext4, most + MEBIBYTE), check, host)
    assert host.told == told and swapfile.used(config(ext4)) == 0
    # What is replaced counts as free.
    swapfile.bring(config(ext4, most), False, host)
    assert swapfile.used(config(ext4)) == 0 and (ext4 / state.SWAP_FILE).stat().st_size == most


def test_a_volume_in_the_clear_gets_none(ext4):
    """Whatever is said of it."""
    host = Host(ext4)
    with pytest.raises(VolumeError, match=r"would lie in the clear on /dev/loop\d+"):
        swapfile.bring(config(ext4), False, host)
    with pytest.raises(VolumeError, match="the volume is not encrypted; encrypt it, or leave the swap out"):
        swapfile.bring(config(ext4, encryption="none"), False, host)
    assert os.listdir(ext4) == ["lost+found"]


def kernel(base: Path, path: Path, used: int, available: int) -> Kernel:
    """With kibibytes of memory in the swap, and to spare, of 1 GiB."""
    name = str(path).replace(" ", "\\040")
    (base / "swaps").write_text(f"Filename Type Size Used Priority\n/dev/zram0 partition 9 9 100\n{name} file 8188 {used} -2\n")
    (base / "meminfo").write_text(f"MemTotal: 1048576 kB\nMemFree: 9 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n")
    return Kernel(f"{base}/swaps", f"{base}/meminfo")


@pytest.mark.parametrize("size", [12 * MEBIBYTE, 0])
def test_what_memory_cannot_take_stays_where_it_is(ext4, encrypted, tmp_path, size):
    host, file = Host(ext4), ext4 / state.SWAP_FILE
    swapfile.bring(config(ext4), False, host)
    told = list(host.told)
    # A twentieth of it stays free.
    says = kernel(tmp_path, file, 4097, 52429 + 4096)
    for check in (True, False):
        with pytest.raises(VolumeError, match=r"memory cannot take the 4 MiB .*: 4 MiB are to spare\. Stop what needs much.*nothing was"):
            swapfile.bring(config(ext4, size), check, host, says)
    assert host.told == told and swapfile.used(config(ext4)) == 0 and file.stat().st_size == SIZE
    assert swapfile.bring(config(ext4, size), True, host, kernel(tmp_path, file, 4096, 52429 + 4096))[0] == f"turn off the swap {file}"


def test_swap_that_stays_on_is_told(ext4, encrypted, tmp_path):
    """Systemd could not turn it off, and nothing is removed from under it."""
    host, file = Host(ext4), ext4 / state.SWAP_FILE
    swapfile.bring(config(ext4), False, host)

    def cannot(_command, _given):
        return Done(1, "", "Job for x.swap failed.")

    with pytest.raises(VolumeError, match=r"cannot be turned off: Job for x.swap failed\. Free memory"):
        swapfile.bring(config(ext4, 0), False, cannot)
    assert file.exists() and swapfile.used(config(ext4)) == 0
    with pytest.raises(VolumeError, match=r"the volume stays open: its swap .* is in use, and memory did not take the 5 MiB"):
        swapfile.must_be_off(config(ext4), kernel(tmp_path, file, 5 * 1024, 0))
    subprocess.run(["swapoff", file], check=True)
    swapfile.must_be_off(config(ext4))


def test_a_path_with_a_space(tmp_path):
    assert swapfile.used(config("/srv/my data"), kernel(tmp_path, Path("/srv/my data/.civitas-swap"), 3, 0)) == 3072
    assert swapfile.used(config("/srv/my"), kernel(tmp_path, Path("/srv/my data/.civitas-swap"), 3, 0)) is None
    assert swapfile.used(config("/srv/data"), Kernel(f"{tmp_path}/none", "")) is None


def test_what_is_not_mounted_is_only_told(tmp_path):
    assert swapfile.bring(config(tmp_path), True) == [
        f"make the swap {tmp_path}/.civitas-swap of 8 MiB",
        f"turn on the swap {tmp_path}/.civitas-swap",
    ]
    assert swapfile.bring(config(tmp_path, 0), True) == [] and os.listdir(tmp_path) == []


def test_swap_comes_with_a_volume_that_was_mounted(tmp_path):
    told = []

    def systemd(command, _given):
        told.append(list(command))
        return Done(0, "", "")

    step = [f"turn on the swap {tmp_path}/.civitas-swap"]
    assert swapfile.on(config(tmp_path, 0), None, False, systemd) == swapfile.on(config(tmp_path), 0, False, systemd) == []
    # The role has yet to make it.
    assert swapfile.on(config(tmp_path), None, False, systemd) == [] and told == []
    (tmp_path / ".civitas-swap").touch()
    assert swapfile.on(config(tmp_path), None, True, systemd) == step and told == []
    assert swapfile.on(config(tmp_path), None, False, systemd) == step
    assert told == [["systemctl", "start", config(tmp_path).swap_unit]] and told[0][2].endswith("-.civitas\\x2dswap.swap")


# --- it is no data


@backup_sets.needs_programs
def test_backups_leave_it_out(ext4, encrypted, tmp_path):
    swapfile.bring(config(ext4), False, Host(ext4))
    (ext4 / "below").mkdir()
    # A record of that name is one.
    for name in ("record", f"below/{state.SWAP_FILE}", "x.civitas-swap"):
        (ext4 / name).write_text("a record")
    (ext4 / state.SWAP_NEW).write_bytes(bytes(4096))
    host = backup_sets.Host(tmp_path / "host")
    host.data = ext4
    directory = host.backup(mount=True)
    assert host.made is not None and host.made.failures == []
    host.restore(directory, tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")}
    assert found == {"record", "below", f"below/{state.SWAP_FILE}", "x.civitas-swap", ".civitas-canary", "lost+found"}


def test_restores_leave_it_where_it_is(ext4, encrypted):
    """Swap that is in use cannot be moved, and the rest of the volume is swapped for what was restored."""
    host, file = Host(ext4), ext4 / state.SWAP_FILE
    swapfile.bring(config(ext4), False, host)
    assert not trees.holds_data(str(ext4))
    move = trees.plan("data", str(ext4), "20260102030405")
    assert move.inside
    (ext4 / "old").touch()
    new = Path(move.at("restore"))
    new.mkdir()
    (new / "new").touch()
    for work, there in ((trees.forward, "new"), (trees.backward, "old"), (trees.forward, "new")):
        work(move)
        names = sorted(name for name in os.listdir(ext4) if not name.startswith((".civitas-restore", ".civitas-before")))
        assert names == sorted([state.SWAP_FILE, "lost+found", there]) and swapfile.used(config(ext4)) == 0
    lines = [{"path": ".", "kind": "d"}, {"path": "new", "kind": "f", "size": 0, "sha256": hashlib.sha256().hexdigest()}]
    assert trees.check(str(ext4), trees.sample(trees.Index(lines, {}), True)) == []
    assert swapfile.bring(config(ext4), False, host) == [] and file.exists()


def test_a_reset_leaves_it_where_it_is(ext4, encrypted):
    swapfile.bring(config(ext4), False, Host(ext4))
    (ext4 / "record").touch()
    tree = resetting.Tree(str(ext4), ("lost+found",))
    assert resetting.count_files(tree) == (1, 1, [b"record"])
    resetting.empty_tree(tree)
    assert sorted(os.listdir(ext4)) == [state.SWAP_FILE, "lost+found"] and swapfile.used(config(ext4)) == 0
