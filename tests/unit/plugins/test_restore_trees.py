# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees that are swapped: wherever it is cut off, it can be gone on with and taken back, and nothing of either tree is lost."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_names as names
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_trees as trees
from ansible_collections.civitas.hosting.plugins.module_utils._backup_verify import Index
from ansible_collections.civitas.hosting.plugins.module_utils._restore_trees import TreeMove

from tests.unit.backup_sets import listing

WHEN = "20260102030405"
# Times of a root that keeps its place change with its entries.
ROOT = "."


def fill(path: Path, word: str) -> dict[str, Any]:
    path.mkdir(parents=True, exist_ok=True)
    (path / "both").write_text(word)
    (path / word).write_text(word)
    (path / "below").mkdir()
    (path / "below" / word).write_text(word)
    path.chmod(0o750 if word == "new" else 0o711)
    return content(path)


def content(path: Path) -> dict[str, Any]:
    """What a tree holds, without what a restore has put into it, and the mode of its root."""
    found = {name: value for name, value in listing(path).items() if ".civitas-" not in name and name != "lost+found"}
    found[ROOT] = oct(path.stat().st_mode)
    found.pop("below", None)
    return found


class Cut(Exception):
    pass


def cut(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """The process ends before the step with this number; how many there were."""
    steps = [0]
    for name in ("rename", "mkdir", "rmdir"):
        real = getattr(os, name)

        def step(*arguments: Any, real: Any = real, **named: Any) -> Any:
            steps[0] += 1
            if steps[0] == at:
                raise Cut
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, step)
    return lambda: steps[0]


def setting(base: Path, inside: bool, existed: bool) -> tuple[TreeMove, dict[str, Any], dict[str, Any]]:
    path = base / "tree"
    old = fill(path, "old") if existed or inside else {}
    if inside:
        (path / "lost+found").mkdir()
    move = TreeMove("tree", str(path), WHEN, existed or inside, inside)
    new = fill(Path(move.at(names.NEW)), "new")
    if inside:
        (Path(move.at(names.NEW)) / "lost+found").mkdir()
    return move, old, new


@pytest.mark.parametrize("direction", ["forward", "backward", "forward, backward"])
@pytest.mark.parametrize(("inside", "existed"), [(False, True), (False, False), (True, True)])
def test_a_swap_that_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str, inside: bool, existed: bool) -> None:
    for number in range(1, 60):
        base = tmp_path / str(number)
        base.mkdir()
        move, old, new = setting(base, inside, existed)
        if direction == "backward":
            trees.forward(move)
        with monkeypatch.context() as patch:
            count = cut(patch, number)
            try:
                for word in direction.split(", "):
                    getattr(trees, word)(move)
            except Cut:
                pass
            done = count() < number
        # Either way goes from there, and again from its end.
        for word in ("forward", "forward", "backward", "backward", "forward") if number % 2 else ("backward", "backward", "forward"):
            getattr(trees, word)(move)
            path = Path(move.path)
            if word == "forward":
                assert content(path) == new and not Path(move.at(names.NEW)).exists()
                assert not existed or content(Path(move.at(names.BEFORE))) == old
            else:
                assert content(Path(move.at(names.NEW))) == new
                assert content(path) == old if existed else not path.exists()
        assert [one.name for one in path.iterdir() if one.name == "lost+found"] == (["lost+found"] if inside else [])
        if done:
            assert number > 1
            return
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("inside", "problem"), [(False, "there is neither .*; mount the disk"), (True, "is not mounted; mount it")])
def test_a_disk_that_is_not_there(tmp_path: Path, inside: bool, problem: str) -> None:
    """Such as one that waits for its passphrase. What is not seen there is not done."""
    move, old, _new = setting(tmp_path, inside, True)
    trees.forward(move)
    disk = tmp_path / "disk"
    if inside:
        Path(move.path).rename(disk)
        Path(move.path).mkdir()
    else:
        disk.mkdir()
        for path in (Path(move.path), Path(move.at(names.BEFORE))):
            path.rename(disk / path.name)
    for work in (trees.backward, trees.forward):
        with pytest.raises(trees.TreeError, match=problem):
            work(move)
    if inside:
        Path(move.path).rmdir()
        disk.rename(move.path)
    else:
        for path in (Path(move.path), Path(move.at(names.BEFORE))):
            (disk / path.name).rename(path)
    trees.backward(move)
    assert content(Path(move.path)) == old


def test_what_is_kept_and_dropped(tmp_path: Path) -> None:
    move, old, new = setting(tmp_path, False, True)
    trees.forward(move)
    trees.backward(move)
    trees.keep(move)
    trees.keep(move)
    assert content(Path(move.path)) == old and content(Path(move.at(names.UNDONE))) == new
    trees.drop(move, names.UNDONE)
    trees.drop(move, names.UNDONE)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"] and content(Path(move.path)) == old


def test_trees_that_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(trees.TreeError, match="is no directory"):
        trees.plan("x", str(tmp_path / "file"), WHEN)
    with pytest.raises(trees.TreeError, match="is not there; run the site playbook"):
        trees.plan("x", str(tmp_path / "no/where"), WHEN)
    monkeypatch.setattr(trees, "_mount_points", lambda: ["/", f"{tmp_path}/tree/a b", f"{tmp_path}/treetop"])
    with pytest.raises(trees.TreeError, match="a b is mounted inside"):
        trees.plan("x", str(tmp_path / "tree"), WHEN)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    assert trees.plan("x", str(tmp_path / "link"), WHEN) == TreeMove("x", str(tmp_path / "real"), WHEN, True, False)


def test_mount_points_of_this_machine() -> None:
    assert "/" in trees._mount_points() and "/proc" in trees._mount_points()


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_that_is_called_like_what_a_restore_puts_aside(tmp_path: Path, inside: bool) -> None:
    move, _old, _new = setting(tmp_path, inside, True)
    name = "x.civitas-before-20200101000000"
    assert name not in [path.name for path in Path(move.path).iterdir()]
    (Path(move.at(names.NEW)) / name).write_text("a record")
    trees.forward(move)
    assert (Path(move.path) / name).read_text() == "a record"
    trees.backward(move)
    assert not (Path(move.path) / name).exists()


def test_which_trees_hold_data(tmp_path: Path) -> None:
    assert not trees.holds_data(str(tmp_path / "none"))
    (tmp_path / ".civitas-canary").write_text("")
    for name in ("lost+found", f".civitas-before-{WHEN}"):
        (tmp_path / name).mkdir()
    assert not trees.holds_data(str(tmp_path))
    (tmp_path / "x").mkdir()
    assert trees.holds_data(str(tmp_path))


def test_files_are_compared(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [{"path": ".", "kind": "d"}, {"path": "lost+found", "kind": "d"}, {"path": "below", "kind": "d"}]
    (tmp_path / "below").mkdir()
    (tmp_path / "lost+found").mkdir()
    for number in range(1200):
        name = f"below/{number}"
        (tmp_path / name).write_text(str(number))
        digest = hashlib.sha256(str(number).encode()).hexdigest()
        lines.append({"path": name, "kind": "f", "size": len(str(number)), "sha256": digest})
    some, everything = trees.sample(Index(lines, {}), False), trees.sample(Index(lines, {}), True)
    assert len(some.files) == 600 and len(everything.files) == 1200 and some.entries == everything.entries == 1201
    assert trees.check(str(tmp_path), some) == trees.check(str(tmp_path), everything) == []
    (tmp_path / "below/1").write_text("x")
    assert trees.check(str(tmp_path), some) == []
    assert trees.check(str(tmp_path), everything) == ["1 of 1200 files that were read are not what the set says"]
    (tmp_path / "below/2").unlink()
    (tmp_path / "below/2").symlink_to("4")
    (tmp_path / "below/4").unlink()
    os.mkfifo(tmp_path / "below/4")
    assert trees.check(str(tmp_path), some) == ["2 of 600 files that were read are not what the set says"]
    (tmp_path / "more").write_text("")
    assert "there are 1202 files and directories, and the set says 1201" in trees.check(str(tmp_path), some)


def test_names_of_a_restore() -> None:
    assert names.is_database(names.of_database("records", names.NEW, WHEN)) and not names.is_database("records")
    long = [names.of_database(name * 60, names.BEFORE, WHEN) for name in ("x", "é")]
    assert all(len(name.encode()) <= 63 and names.is_database(name) for name in long) and len(set(long)) == 2
    assert names.is_tree(os.path.basename(names.of_tree("/srv/x", names.UNDONE, WHEN, False)).encode())
    assert names.is_tree(f".civitas-before-{WHEN}.part".encode()) and not names.is_tree(b".civitas-canary")
    assert names.stamp(0) == "19700101000000"
