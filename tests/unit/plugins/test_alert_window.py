# SPDX-License-Identifier: GPL-3.0-or-later
"""A maintenance silences for a while, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_window as window

NOW = 1.8e9


def test_it_begins_and_ends_by_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "maintenance.json")
    assert window.read(path, NOW) == (None, "")
    made = window.begin(path, "2h", " new\ndisk ", NOW)
    assert made == window.Window(NOW + 7200, "new?disk")
    assert window.read(path, NOW + 7199) == (made, "")
    assert window.read(path, NOW + 7200) == (None, "")
    assert window.end(path) and not window.end(path)
    assert window.read(path, NOW) == (None, "")


def test_one_of_a_host_is_beside_that_of_all(tmp_path: Path) -> None:
    path = str(tmp_path / "maintenance.json")
    assert window.read_held(path, NOW) == ([], [])
    window.begin(window.place(path, "server1"), "2h", "release", NOW, ["ProbeFailed"])
    window.begin(window.place(path, "server-2.internal"), "1h", "new disk", NOW)
    assert window.read(path, NOW) == (None, "") and window.place(path, "") == path
    other, one = window.read_held(path, NOW)[0]
    assert one == window.Held("server1", ("ProbeFailed",), NOW + 7200, "release")
    assert other == window.Held("server-2.internal", (), NOW + 3600, "new disk")
    assert one.holds("server1", "ProbeFailed") and not one.holds("server1", "DiskFull") and not one.holds("server2", "ProbeFailed")
    assert other.holds("server-2.internal", "DiskFull") and not other.holds("server1", "DiskFull")
    assert [held.host for held in window.read_held(path, NOW + 3600)[0]] == ["server1"]
    assert window.end(window.place(path, "server1"))
    (tmp_path / "maintenance-server3.json").write_text('{"until": 1800090001, "reason": "x"}')
    found, faults = window.read_held(path, NOW)
    assert found == [other] and len(faults) == 1 and "maintenance-server3.json: it lasts longer" in faults[0]


@pytest.mark.parametrize("host", ["../x", "a b", "-x", "a/b"])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(window.WindowError, match="no name of a host"):
        window.place(str(tmp_path / "maintenance.json"), host)


@pytest.mark.parametrize(("length", "reason"), [("25h", "x"), ("0", "x"), ("", "x"), ("two hours", "x"), ("2h", " ")])
def test_one_that_cannot_be_is_refused(tmp_path: Path, length: str, reason: str) -> None:
    with pytest.raises(window.WindowError, match="write"):
        window.begin(str(tmp_path / "x"), length, reason, NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"until": "x", "reason": ""}', '{"until": 1800090001, "reason": "x"}', '{"until": NaN, "reason": "x"}',
     '{"until": Infinity, "reason": "x"}'],
)  # fmt: skip
def test_what_nobody_can_read_or_lasts_for_ever_silences_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    found, fault = window.read(str(tmp_path / "x"), NOW)
    assert found is None and "alarms are told. Write it with 'sudo civitas-alerts silence'" in fault
    assert "'sudo civitas-site-alerts silence'" in window.read(str(tmp_path / "x"), NOW, "civitas-site-alerts")[1]
