# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept survives a disk that takes nothing, and damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._alert_kept import Kept


def made(path: Path) -> Kept:
    return Kept("x.json", (str(path / "disk" / "civitas"), str(path / "memory")))


def test_it_is_on_disk_for_root_alone(tmp_path: Path) -> None:
    made(tmp_path).write({"a": 1})
    assert (tmp_path / "disk" / "civitas" / "x.json").stat().st_mode & 0o777 == 0o600
    assert made(tmp_path).read() == {"a": 1} and not (tmp_path / "memory" / "x.json").exists()


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    made(tmp_path).write({"a": 1})
    (tmp_path / "disk").rename(tmp_path / "away")
    (tmp_path / "disk").write_text("no directory")
    made(tmp_path).write({"a": 2})
    assert made(tmp_path).read() == {"a": 2}
    # The disk is back with what it had: what is newer counts, and goes there.
    (tmp_path / "disk").unlink()
    (tmp_path / "away").rename(tmp_path / "disk")
    assert made(tmp_path).read() == {"a": 2}
    made(tmp_path).write({"a": 3})
    assert made(tmp_path).read() == {"a": 3} and list((tmp_path / "memory").iterdir()) == []


def test_no_place_at_all(tmp_path: Path) -> None:
    (tmp_path / "disk").write_text("")
    (tmp_path / "memory").write_text("")
    with pytest.raises(OSError):
        made(tmp_path).write({})


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00"])
def test_damage_is_nothing(tmp_path: Path, text: str) -> None:
    made(tmp_path).write({"a": 1})
    (tmp_path / "disk" / "civitas" / "x.json").write_text(text)
    assert made(tmp_path).read() == {}
