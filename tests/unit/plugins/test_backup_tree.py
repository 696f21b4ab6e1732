# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees in sets: what comes out is what went in, however often it changed between, and what did not change is not sent again."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as tree
from ansible_collections.civitas.hosting.plugins.module_utils._backup_tree import CANARY, MAX_PACKS, TreeError

from tests.unit.backup_sets import Host, listing, needs_programs

pytestmark = needs_programs


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture(name="settled")
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written before a set began counts as settled."""
    monkeypatch.setattr(tree, "_STEP", 0)


def strange_tree(directory: Path) -> None:
    (directory / "scans").mkdir(mode=0o2750)
    (directory / "scans/birth.pdf").write_bytes(os.urandom(70_000))
    (directory / "scans/birth.pdf").chmod(0o4751)
    (directory / "empty").touch()
    (directory / "ünïcode ✓").write_text("x")
    Path(os.fsdecode(os.fsencode(directory) + b"/no\xffutf8")).write_text("y")
    (directory / "new\nline").write_text("z")
    (directory / "-rf").write_text("dash")
    (directory / "*").write_text("star")
    (directory / "tab\t\\back'quote\"").write_text("t")
    deep = directory / ("d" * 90) / ("e" * 90) / ("f" * 90)
    deep.mkdir(parents=True)
    (deep / ("g" * 200)).write_text("deep")
    (directory / "link").symlink_to("scans/birth.pdf")
    (directory / "far").symlink_to("/etc/" + "x" * 150)
    (directory / "hard").hardlink_to(directory / "scans/birth.pdf")
    os.mkfifo(directory / "pipe")
    (directory / "void").mkdir()
    os.utime(directory / "scans/birth.pdf", ns=(1, 1_234_567_890_123_456_789))
    with contextlib.suppress(OSError):
        os.setxattr(directory / "empty", "user.origin", b"import \xff\0 of 2019")


def test_all_kinds_of_entries_come_back(host: Host, tmp_path: Path) -> None:
    strange_tree(host.data)
    directory = host.backup()
    before = listing(host.data)
    host.restore(directory, tmp_path / "out")
    assert listing(tmp_path / "out") == before
    assert os.listxattr(tmp_path / "out/empty") == os.listxattr(host.data / "empty")
    # Neither names nor contents are readable where they lie.
    for member in directory.iterdir():
        assert b"birth.pdf" not in member.read_bytes(), member


def test_what_did_not_change_is_not_sent(host: Host, settled: None) -> None:
    strange_tree(host.data)
    host.backup()
    assert len(host.sent) == 3
    second = host.backup()
    assert host.sent == []
    assert host.read(second).sources[0]["files"] == 11


def test_another_time_alone_sends_the_file_but_no_more(host: Host, settled: None, tmp_path: Path) -> None:
    for number in range(20):
        (host.data / f"{number}").write_bytes(os.urandom(1000))
    host.backup()
    os.utime(host.data / "7", (1, 1))
    second = host.backup()
    assert [name.split("-")[2][:4] for name in host.sent] == ["0000", "inde", "rest"]
    assert host.read(second).members[host.sent[0]].plain_bytes < 10_000
    host.restore(second, tmp_path / "out")
    assert (tmp_path / "out/7").stat().st_mtime == 1


def test_a_tree_that_was_copied_back_is_not_sent(host: Host, settled: None) -> None:
    """Other inodes and other times of the inodes, and all the same."""
    for number in range(20):
        (host.data / f"{number}").write_bytes(os.urandom(1000))
    host.backup()
    copy = host.base / "copy"
    subprocess.run(["cp", "-a", str(host.data), str(copy)], check=True)
    host.data.rename(host.base / "old")
    copy.rename(host.data)
    host.backup()
    assert host.sent == []


def test_a_file_changed_within_the_step_of_times_is_read_again(host: Host, tmp_path: Path) -> None:
    """Same size, same times, other content: what was written just before the set is not trusted."""
    path = host.data / "record"
    path.write_text("one")
    host.backup()
    times = path.stat()
    with path.open("r+") as file:
        file.write("two")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    # As if the time of the change of the inode were the same, too: the kernel counts it in steps of some milliseconds.
    with contextlib.closing(sqlite3.connect(host.state, isolation_level=None)) as state:
        state.execute("UPDATE entries SET ctime = ? WHERE name = ? AND ctime != -1", (path.stat().st_ctime_ns, b"record"))
    host.restore(host.backup(), tmp_path / "out")
    assert (tmp_path / "out/record").read_text() == "two"


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_between_sets(host: Host, tmp_path: Path, seed: int, settled: None) -> None:
    """Random changes over many sets: each set restores to what was there, by the program and by the commands of the page."""
    chance = random.Random(seed)
    packs = 0
    for turn in range(14):
        for _change in range(chance.choice([0, 1, 3, 12])):
            names = [path for path in host.data.rglob("*") if path.name != CANARY]
            folders = [host.data, *(path for path in names if path.is_dir() and not path.is_symlink())]
            new = chance.choice(folders) / f"n{chance.randrange(40)}"
            action = chance.choice(["write", "write", "write", "remove", "mkdir", "link", "rename", "chmod"])
            if action == "write" and not new.is_dir():
                new.write_bytes(chance.randbytes(chance.choice([0, 10, 4000, 50_000])))
            elif action == "mkdir" and not os.path.lexists(new):
                new.mkdir()
            elif action == "link" and not os.path.lexists(new):
                new.symlink_to("nowhere")
            elif names and action == "remove":
                victim = chance.choice(names)
                subprocess.run(["rm", "-r", str(victim)], check=True)
            elif names and action == "chmod" and not (victim := chance.choice(names)).is_symlink():
                victim.chmod(chance.choice([0o600, 0o750]) if victim.is_file() else 0o700)
            elif names and action == "rename" and not os.path.lexists(new):
                victim = chance.choice(names)
                if victim not in [new, *new.parents]:
                    victim.rename(new)
        if chance.random() < 0.1:
            host.state.unlink(missing_ok=True)
        directory = host.backup(may_be_empty=True)
        assert host.made is not None and host.made.failures == []
        packs = max(packs, len(host.made.source["packs"]))
        before = listing(host.data)
        host.restore(directory, tmp_path / f"out{turn}")
        assert listing(tmp_path / f"out{turn}") == before
    assert packs > 1


def test_packs_stay_few_and_what_is_sent_again_is_bounded(host: Host, settled: None) -> None:
    sent = live = 0
    (host.data / "base").write_bytes(os.urandom(3_000_000))
    for number in range(60):
        (host.data / f"f{number}").write_bytes(os.urandom(20_000))
        directory = host.backup(canary=False)
        assert host.made is not None
        live = host.made.source["bytes"]
        sent += sum((directory / name).stat().st_size for name in host.sent if "-00" in name)
        assert len(host.made.source["packs"]) <= MAX_PACKS
    # Each file goes some times through the small packs, and the large one is left alone.
    assert 3_000_000 + 60 * 20_000 <= live < sent < 3_000_000 + 60 * 20_000 * 8


def test_a_mostly_dead_pack_is_packed_anew(host: Host, settled: None, tmp_path: Path) -> None:
    for number in range(10):
        (host.data / f"{number}").write_bytes(os.urandom(10_000))
    host.backup(canary=False)
    for number in range(6):
        (host.data / f"{number}").unlink()
    directory = host.backup(canary=False)
    manifest = host.read(directory)
    packs = manifest.sources[0]["packs"]
    assert [pack["id"][:6] for pack in packs] == ["000002"]
    assert manifest.members[packs[0]["member"]].plain_bytes < 60_000
    host.restore(directory, tmp_path / "out")


def test_what_the_store_lost_is_made_anew(host: Host, settled: None, tmp_path: Path) -> None:
    (host.data / "a").write_text("a")
    first = host.backup()
    pack = host.read(first).sources[0]["packs"][0]["member"]
    del host.stored[host.read(first).members[pack].sha256]
    second = host.backup()
    assert any("-000002-" in name for name in host.sent)
    host.restore(second, tmp_path / "out")


@pytest.mark.parametrize("damage", ["lost", "garbage", "cut", "other keys", "old"])
def test_a_useless_state_means_a_full_set(host: Host, settled: None, tmp_path: Path, damage: str) -> None:
    for number in range(200):
        (host.data / f"{number}").write_text(f"{number}" * 50)
    host.backup()
    now = time.time()
    if damage == "lost":
        host.state.unlink()
    elif damage == "garbage":
        host.state.write_bytes(os.urandom(20_000))
    elif damage == "cut":
        data = host.state.read_bytes()
        host.state.write_bytes(data[: len(data) // 2])
    elif damage == "other keys":
        host.recipients = host.recipients[:1]
    else:
        now += 31 * 86400
    directory = host.backup(now)
    assert len(host.sent) == 3
    assert host.made is not None and host.made.failures == []
    host.restore(directory, tmp_path / "out")
    assert (tmp_path / "out/199").read_text() == "199" * 50


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ("missing", {}, "No such file"),
        ("file", {}, "is no directory"),
        ("empty", {}, "holds no file"),
        ("empty below", {}, "holds no file"),
        ("full", {"mount": True}, "is not mounted"),
    ],
)
def test_a_tree_that_is_not_as_declared(host: Host, shape: str, options: dict[str, bool], message: str) -> None:
    if shape == "missing":
        host.data.rmdir()
    elif shape == "file":
        host.data.rmdir()
        host.data.touch()
    elif shape == "empty below":
        (host.data / "a/b").mkdir(parents=True)
    elif shape == "full":
        (host.data / "a").touch()
    with pytest.raises(TreeError, match=message):
        host.backup(**options)


def test_an_emptied_tree_is_refused_though_the_canary_lies_in_it(host: Host, settled: None) -> None:
    (host.data / "a").touch()
    host.backup()
    (host.data / "a").unlink()
    assert (host.data / CANARY).exists()
    with pytest.raises(TreeError, match="holds no file"):
        host.backup()


def test_half_of_the_files_gone_is_said(host: Host, settled: None) -> None:
    for number in range(9):
        (host.data / f"{number}").touch()
    host.backup()
    for number in range(6):
        (host.data / f"{number}").unlink()
    host.backup()
    assert host.made is not None and host.made.warnings == [f"{host.data}: it holds 4 files, and 10 in the set before"]


@contextlib.contextmanager
def unprivileged(base: Path) -> Iterator[None]:
    """Root reads everything, so the test must not be root."""
    if os.geteuid() != 0:
        yield
        return
    for path in [base, *base.parents]:
        if path.stat().st_uid == 0 and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    subprocess.run(["chown", "-R", "65534:65534", str(base)], check=True)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_one_unreadable_file_and_one_unreadable_directory(host: Host, tmp_path: Path) -> None:
    for name in ("good", "secret", "zlast"):
        (host.data / name).write_text(name)
    (host.data / "closed").mkdir()
    (host.data / "closed/x").write_text("x")
    (host.data / "secret").chmod(0)
    (host.data / "closed").chmod(0)
    with unprivileged(host.base):
        directory = host.backup()
        made = host.made
        assert made is not None
        assert made.failures == [f"{host.data}: 2 files or directories could not be read"]
        assert made.problems == ["data: 'closed': Permission denied", "data: 'secret': Permission denied"]
        # Names are personal data; the store reads the manifest.
        assert b"secret" not in (directory / "manifest.json").read_bytes()
        manifest = host.read(directory)
        assert manifest.complete is False
    assert sorted(path.name for path in host.data.iterdir()) == [CANARY, "closed", "good", "secret", "zlast"]
    host.restore(directory, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CANARY, "good", "zlast"]


def test_a_file_that_vanishes_and_one_that_changes(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("calm", "gone", "once", "always"):
        (host.data / name).write_text(name * 100)
    turns = {b"once": 1, b"always": 99}
    real_add, real_opened = tree._Pack.add, tree._Maker._opened

    def opened(self, row):  # type: ignore[no-untyped-def]
        if row.path == b"gone":
            (host.data / "gone").unlink()
        return real_opened(self, row)

    def add(self, entry, file):  # type: ignore[no-untyped-def]
        if turns.get(entry.path, 0) > 0:
            # Somebody writes after the size was asked.
            turns[entry.path] -= 1
            with (host.data / entry.path.decode()).open("a") as other:
                other.write("more")
        return real_add(self, entry, file)

    monkeypatch.setattr(tree._Maker, "_opened", opened)
    monkeypatch.setattr(tree._Pack, "add", add)
    directory = host.backup()
    monkeypatch.undo()
    made = host.made
    assert made is not None
    assert made.failures == [f"{host.data}: 1 files changed each time they were read"]
    assert made.warnings == [f"{host.data}: 1 files vanished before they were read"]
    assert made.problems == ["data: 'always': it changed while it was read"]
    host.restore(directory, tmp_path / "out")
    assert (tmp_path / "out/once").read_text() == "once" * 100 + "more"
    assert not (tmp_path / "out/gone").exists()
    # As declared, it is no failure.
    monkeypatch.setattr(tree._Pack, "add", add)
    host.backup(may_change=("al*",))
    assert host.made is not None and host.made.failures == []
    assert host.made.warnings == [f"{host.data}: 1 files changed while they were read, as they may"]


@pytest.mark.parametrize("when", ["_merge", "_settle"])
def test_a_name_that_vanishes_and_leaves_its_file_to_another_name(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, when: str
) -> None:
    """As mail servers do: the file gets its second name, and loses the first one."""
    # The walk comes to a/tmp before a-new, and the order of the state is the other one.
    others = ("a/tmp/z", "a-new/1", "a-new/2")
    for name in ("first", "a/tmp/first"):
        (host.data / name).parent.mkdir(parents=True, exist_ok=True)
        (host.data / name).write_text("a record")
    (host.data / "a-new").mkdir()
    (host.data / "a-new/0").hardlink_to(host.data / "first")
    for name in others:
        (host.data / name).hardlink_to(host.data / "a/tmp/first")
    real = getattr(tree._Maker, when)

    def work(self):  # type: ignore[no-untyped-def]
        for name in ("first", "a/tmp/first", "a/tmp/z"):
            (host.data / name).unlink()
        real(self)

    monkeypatch.setattr(tree._Maker, when, work)
    directory = host.backup()
    monkeypatch.undo()
    assert host.made is not None and host.made.failures == []
    host.restore(directory, tmp_path / "out")
    for name in ("a-new/0", "a-new/1", "a-new/2"):
        assert (tmp_path / "out" / name).read_text() == "a record", name
    assert (tmp_path / "out/a-new/1").samefile(tmp_path / "out/a-new/2")
    # And the next set is of the same files.
    host.restore(host.backup(), tmp_path / "again")
    assert listing(tmp_path / "again") == listing(host.data)


def test_a_file_that_is_called_like_what_a_restore_puts_aside(host: Host, tmp_path: Path) -> None:
    """Anybody may upload one."""
    (host.data / "x.civitas-before-20260101000000").write_text("a record")
    (host.data / "y.civitas-before-20260101000000").mkdir()
    (host.data / "y.civitas-before-20260101000000/old").write_text("put aside")
    host.restore(host.backup(), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CANARY, "x.civitas-before-20260101000000"]


def test_a_file_system_inside_of_a_tree(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore would refuse it, so the backup says so in time."""
    (host.data / "a/b").mkdir(parents=True)
    (host.data / "a/record").touch()
    other = (host.data / "a/b").stat().st_ino
    monkeypatch.setattr(tree, "_device", lambda found: found.st_dev + (found.st_ino == other))
    host.backup()
    assert host.made is not None and host.made.failures == []
    said = f"{host.data}: a file system is mounted in it; declare it by itself, as a tree is restored as a whole"
    assert host.made.warnings == [said]
    monkeypatch.undo()
    host.backup()
    assert host.made.warnings == []


def test_what_is_excluded(host: Host, tmp_path: Path) -> None:
    (host.data / "cache").mkdir()
    (host.data / "cache/x").touch()
    (host.data / "keep").touch()
    host.restore(host.backup(exclude=("cache", "*.tmp")), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [CANARY, "keep"]


def test_the_canary_is_new_when_the_tree_is(host: Host, settled: None) -> None:
    (host.data / "a").touch()
    nonces = [host.read(host.backup()).sources[0]["canary"]["nonce"]]
    nonces.append(host.read(host.backup()).sources[0]["canary"]["nonce"])
    (host.data / "b").touch()
    nonces.append(host.read(host.backup()).sources[0]["canary"]["nonce"])
    (host.data / CANARY).write_text("somebody was here\n")
    nonces.append(host.read(host.backup()).sources[0]["canary"]["nonce"])
    assert nonces[0] == nonces[1] and len(set(nonces)) == 3
    assert (host.data / CANARY).read_text() == f"{nonces[-1]}\n"
