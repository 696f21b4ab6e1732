# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store keeps, and what it does not, whatever lies in the directory of a host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _store_retention as retention
from ansible_collections.civitas.hosting.plugins.module_utils import _store_sets
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import HostStore, StoredSet, StoreError, verify_set

from tests.unit.backup_sets import Host, flip, needs_programs, ssh_key

pytestmark = needs_programs
ME = os.geteuid()
LARGE = 10**15


class Pair:
    """A host that makes sets, and its store."""

    def __init__(self, base: Path) -> None:
        self.host = Host(base / "host")
        (self.host.data / "record").write_text("one record")
        (self.host.data / "scan").write_bytes(os.urandom(50_000))
        self.base = base / "store"
        self.base.mkdir()
        self.store = HostStore(str(self.base), "records1", [self.host.signer], LARGE, 0)

    def bring(self, directory: Path, now: float | None = None, missing: tuple[str, ...] = ()) -> Path:
        """As rsync would; the way of the set in the store, before it is committed."""
        self.store.begin(directory.name, 10**7, ME)
        target = self.base / "incoming/records1" / directory.name
        for path in directory.iterdir():
            if path.name not in missing:
                shutil.copyfile(path, target / path.name)
        return target

    def commit(self, directory: Path, now: float | None = None) -> Path:
        reply = self.store.commit(directory.name, ME, time.time() if now is None else now)
        assert reply["set"] == directory.name and directory.name in reply["sets"]
        assert reply["sha256"] == form.parse((directory / "manifest.json").read_bytes()).sha256
        return self.base / "hosts/records1/sets" / directory.name

    def keep(self, now: float | None = None, dated: float | None = None) -> Path:
        directory = self.host.backup(dated if dated is not None else now)
        self.bring(directory)
        return self.commit(directory, now)

    def sets(self) -> list[StoredSet]:
        return self.store.sets()


@pytest.fixture(name="pair")
def _pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_a_set_comes_in(pair: Pair) -> None:
    kept = pair.keep()
    (one,) = pair.sets()
    assert one.good and one.notes == [] and one.path == str(kept)
    assert {path.stat().st_mode & 0o777 for path in kept.iterdir() if path.name != "store.json"} == {0o400}
    assert list((pair.base / "incoming/records1").iterdir()) == []
    assert list((pair.base / "hosts/records1/staging").iterdir()) == []
    # The answer was lost, and the host asks again.
    assert pair.store.commit(one.set_id, ME, 0.0)["arrival"] == one.arrival


def test_members_that_are_there_are_linked(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pair.keep()
    directory = pair.host.backup()
    shared = tuple(
        {path.name for path in directory.iterdir()} & {path.name for path in first.iterdir()} - {"manifest.json", "manifest.json.sig"}
    )
    assert shared
    have = pair.store.have(time.time())
    assert set(have["members"]) == {member.sha256 for member in pair.sets()[0].manifest.members.values()}
    pair.bring(directory, missing=shared)
    second = pair.commit(directory)
    assert all((first / name).samefile(second / name) for name in shared)
    used = pair.store.used()
    assert used < 2 * sum(path.stat().st_blocks * 512 for path in first.iterdir())
    # Where no more links are possible it is copied.
    third = pair.host.backup()
    pair.bring(third, missing=shared)

    def link(*_arguments: object, **_options: object) -> None:
        raise OSError(31, "Too many links")

    monkeypatch.setattr(os, "link", link)
    assert not (pair.commit(third) / shared[0]).samefile(first / shared[0])


def replace_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        path = next(directory.glob("tree-data-0*"))
        path.rename(path.parent.parent / "elsewhere")
        make(path)

    return damage


def cut(directory: Path) -> None:
    path = next(directory.glob("tree-data-0*"))
    os.truncate(path, path.stat().st_size // 2)


def swap(directory: Path) -> None:
    one, two = sorted(directory.glob("tree-data-*"))[:2]
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda directory: flip(next(directory.glob("tree-data-0*"))),
        cut,
        swap,
        lambda directory: next(directory.glob("tree-data-0*")).unlink(),
        replace_by(lambda path: path.symlink_to(path.parent.parent / "elsewhere")),
        replace_by(lambda path: path.symlink_to("/etc/passwd")),
        replace_by(os.mkfifo),
        replace_by(lambda path: path.mkdir()),
    ],
    ids=["bit flip", "cut off", "swapped", "missing", "link to the same", "link to another", "pipe", "directory"],
)
def test_members_that_are_not_good(pair: Pair, damage: Callable[[Path], None]) -> None:
    directory = pair.host.backup()
    target = pair.bring(directory)
    damage(target)
    with pytest.raises(StoreError, match="missing, cut off or altered: tree-data-") as found:
        pair.commit(directory)
    assert found.value.bad and not found.value.final
    assert pair.sets() == []
    # What was good needs not come again; what is sent again is taken.
    taken = pair.store.begin(directory.name, 10**7, ME)["taken"]
    assert set(taken) | set(found.value.bad) == set(pair.host.read(directory).members)
    for name in found.value.bad:
        if (target / name).is_dir():
            (target / name).rmdir()
        shutil.copyfile(directory / name, target / name)
    for name in ("manifest.json", "manifest.json.sig"):
        shutil.copyfile(directory / name, target / name)
    pair.commit(directory)


def test_what_the_host_still_has_open(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes while its set is judged, and afterwards."""
    directory = pair.host.backup()
    target = pair.bring(directory)
    stop, files = threading.Event(), [path.open("r+b") for path in target.glob("*.age")]

    def write() -> None:
        while not stop.is_set():
            for file in files:
                file.seek(200)
                file.write(os.urandom(8))
                file.flush()

    thread = threading.Thread(target=write)
    kept = None
    thread.start()
    try:
        kept = pair.commit(directory)
    except StoreError:
        assert pair.sets() == []
    finally:
        stop.set()
        thread.join()
    for file in files:
        file.seek(0)
        file.write(b"X" * 100)
        file.close()
    if kept:
        assert verify_set(pair.store, pair.sets()[0], time.time(), {}).bad == []


def test_files_of_somebody_else(pair: Pair) -> None:
    directory = pair.host.backup()
    pair.bring(directory)
    with pytest.raises(StoreError, match="missing, cut off or altered"):
        pair.store.commit(directory.name, ME + 1, time.time())


def test_files_that_nobody_has_listed_are_not_kept(pair: Pair) -> None:
    directory = pair.host.backup()
    target = pair.bring(directory)
    (target / "extra.age").write_text("x")
    (target / "tree").mkdir()
    (target / "tree/x").touch()
    kept = pair.commit(directory)
    assert sorted(path.name for path in kept.iterdir()) == sorted([*(path.name for path in directory.iterdir()), "store.json"])


def test_sets_of_others(pair: Pair, tmp_path: Path) -> None:
    directory = pair.host.backup()
    pair.bring(directory)
    stranger = HostStore(str(pair.base), "records1", [ssh_key(tmp_path / "thief")], LARGE, 0)
    with pytest.raises(StoreError, match="the signature of the manifest is not records1's"):
        stranger.commit(directory.name, ME, time.time())
    # A manifest of another set, under this name.
    other = pair.host.backup()
    target = pair.base / "incoming/records1" / directory.name
    for name in ("manifest.json", "manifest.json.sig"):
        shutil.copyfile(other / name, target / name)
    with pytest.raises(StoreError, match=f"the manifest is of the set {other.name} of records1") as found:
        pair.commit(directory)
    assert found.value.final
    (target / "manifest.json").write_bytes(b" " * (form.MANIFEST_BYTES + 1))
    with pytest.raises(form.FormatError, match="is larger than"):
        pair.commit(directory)
    (target / "manifest.json").unlink()
    (target / "manifest.json").symlink_to("/dev/zero")
    with pytest.raises(StoreError, match="has not come"):
        pair.commit(directory)
    with pytest.raises(StoreError, match="is no name of a host"):
        HostStore(str(pair.base), "../x", [], 0, 0)


def test_an_earlier_key_proves_what_is_there_and_signs_nothing_new(pair: Pair, tmp_path: Path) -> None:
    """After a host was built anew: its old sets are good, and whoever has its old key brings none."""
    kept = pair.keep()
    later = HostStore(str(pair.base), "records1", [ssh_key(tmp_path / "new"), pair.host.signer], LARGE, 0)
    (one,) = later.sets()
    assert verify_set(later, one, time.time(), {}).bad == []
    directory = pair.host.backup()
    pair.bring(directory)
    with pytest.raises(StoreError, match="the signature of the manifest is not records1's"):
        later.commit(directory.name, ME, time.time())
    forgetful = HostStore(str(pair.base), "records1", later.signers[:1], LARGE, 0)
    assert verify_set(forgetful, one, time.time(), {}).bad == ["manifest.json"]
    assert kept.is_dir()


def test_a_set_does_not_come_twice(pair: Pair) -> None:
    """Also not after it was removed: an old set would look like a new one."""
    now = time.time() - 30 * 86400
    old = [pair.keep(now + day * 86400) for day in range(30)]
    saved = pair.base.parent / "saved"
    shutil.copytree(old[0], saved / old[0].name)
    done = retention.apply(pair.store, retention.PRESETS["7 days"], now + 29 * 86400 + 3600)
    assert done.remove == [path.name for path in old[:23]] and not old[0].exists() and old[23].exists()
    with pytest.raises(StoreError, match="was here already; a set does not come twice") as found:
        pair.store.begin(old[0].name, 10, ME)
    assert found.value.final
    with pytest.raises(StoreError, match="was here already"):
        pair.store.begin(old[29].name, 10, ME)
    assert list((pair.base / "hosts/records1/staging").iterdir()) == []
    assert [verify_set(pair.store, one, now, {}).bad for one in pair.sets()] == [[]] * 7


def test_dates_that_are_strange(pair: Pair) -> None:
    now = time.time()
    pair.keep(now)
    pair.keep(now + 60, dated=now + 86400)
    pair.keep(now + 120, dated=now + 100)
    pair.keep(now + 180, dated=now - 30 * 86400)
    one, future, past, old = pair.sets()
    assert one.notes == [] and one.moment == float(int(now))
    assert [note.split(",")[1] for note in future.notes] == [" which is to come"] and future.moment == now + 60
    assert past.notes == [f"it is older than {future.set_id}, which came before it"] and past.moment == now + 120
    assert old.notes[0].endswith("long before it came") and old.moment == now + 180
    # A false date makes nothing fresh.
    assert (future.fresh, old.fresh) == (now + 60, float(int(now - 30 * 86400)))


def test_a_set_that_follows_another_one(pair: Pair) -> None:
    pair.keep()
    directory = pair.host.backup()
    pair.keep()
    assert pair.sets()[1].notes == [f"it follows {directory.name}, and not {pair.sets()[0].set_id}"]


def test_room(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = pair.keep()
    used = pair.store.used()
    small = HostStore(str(pair.base), "records1", [pair.host.signer], used + 1000, 0)
    name = form.new_set_id(time.time() + 5)
    with pytest.raises(StoreError, match="the share of this host is full"):
        small.begin(name, 2000, ME)
    assert small.begin(name, 500, ME) == {"taken": []}
    full = HostStore(str(pair.base), "records1", [pair.host.signer], LARGE, LARGE)
    with pytest.raises(StoreError, match="the store is full"):
        full.begin(name, 500, ME)
    for wrong in ("", "..", "../../x", "20260101T000000Z-0123456789AB", f"{name}/x"):
        with pytest.raises(StoreError, match="no name of a set"):
            pair.store.begin(wrong, 1, ME)
    assert kept.exists()


def test_a_host_waits_while_its_sets_are_read(pair: Pair) -> None:
    """To read a large set again takes longer than a host tries."""
    directory = pair.host.backup()
    for work in (lambda: pair.bring(directory), lambda: pair.commit(directory)):
        waits = threading.Thread(target=work)
        with pair.store.locked():
            waits.start()
            waits.join(0.5)
            assert waits.is_alive()
        waits.join(60)
        assert not waits.is_alive()
    assert [one.set_id for one in pair.sets()] == [directory.name]


def test_one_at_a_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_store_sets, "_LOCK_WAIT", 0.0)
    directory = pair.host.backup()
    pair.bring(directory)
    with pair.store.locked(), pytest.raises(StoreError, match="try again"):
        pair.commit(directory)
    pair.commit(directory)


def test_killed_while_it_keeps_a_set(pair: Pair) -> None:
    """At each step that changes something: no half set is ever seen, and the next try works."""
    directory = pair.host.backup()
    for step in range(40):
        if pair.sets():
            break
        pair.bring(directory)
        child = os.fork()
        if child == 0:
            count = iter(range(step))

            def hook(event: str, _arguments: object, count: Iterator[int] = count) -> None:
                if event in ("os.rename", "os.chmod", "os.link", "os.remove", "os.mkdir", "shutil.rmtree") and next(count, None) is None:
                    os.kill(os.getpid(), 9)

            import sys

            sys.addaudithook(hook)
            try:
                pair.commit(directory)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        for one in pair.sets():
            assert verify_set(pair.store, one, time.time(), {}).bad == []
    assert step > 5
    assert [one.set_id for one in pair.sets()] == [directory.name]
    pair.store.commit(directory.name, ME, time.time())
    pair.keep()
    assert len(pair.sets()) == 2


def test_damage_is_found_in_every_set_that_shares_it(pair: Pair) -> None:
    first, second = pair.keep(), pair.keep()
    shared = next(path.name for path in first.glob("tree-data-0*") if (second / path.name).exists() and path.samefile(second / path.name))
    with (first / shared).open("r+b") as file:
        file.seek(-10, 2)
        file.write(b"x" * 10)
    seen: dict[tuple[int, int], bool] = {}
    now = time.time() + 5
    assert [verify_set(pair.store, one, now, seen).bad for one in pair.sets()] == [[shared], [shared]]
    assert [one.good for one in pair.sets()] == [False, False] and pair.sets()[0].verified == now
    digest = pair.sets()[0].manifest.members[shared].sha256
    assert digest not in pair.store.have(now)["members"]
    (first / "manifest.json.sig").unlink()
    assert "manifest.json" in verify_set(pair.store, pair.sets()[0], now, seen).bad


def test_a_set_that_cannot_be_read_is_no_reason_to_stop(pair: Pair) -> None:
    first, second = pair.keep(), pair.keep()
    (first / "store.json").write_text("{")
    by_name = {one.set_id: one for one in pair.sets()}
    assert not by_name[first.name].good and by_name[second.name].good
    assert retention.apply(pair.store, retention.PRESETS["7 days"], time.time()).remove == []


def test_a_record_names_what_the_page_says(pair: Pair) -> None:
    assert sorted(json.loads((pair.keep() / _store_sets.RECORD).read_text())) == ["arrival", "bad", "moment", "notes", "verified"]


def test_only_the_host_of_the_directory_gets_in(pair: Pair) -> None:
    pair.bring(pair.host.backup())
    modes = {path.name: path.stat().st_mode & 0o777 for path in (pair.base / "hosts/records1").iterdir()}
    assert set(modes.values()) <= {0o700, 0o600}
    assert (
        subprocess.run(
            ["find", str(pair.base / "incoming"), "-mindepth", "2", "-type", "d", "-perm", "/077"], capture_output=True, check=True
        ).stdout
        == b""
    )
