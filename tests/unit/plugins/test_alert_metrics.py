# SPDX-License-Identifier: GPL-3.0-or-later
"""The text format of Prometheus is read as Prometheus does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_metrics as metrics
from hypothesis import given, settings
from hypothesis import strategies as st


def test_samples() -> None:
    text = """# HELP a An example.
# TYPE a gauge
a{mountpoint="/srv",device="x y"} 0.5
a 1 1700000000000

b{quoted="a\\"b\\\\c\\nd",empty="",} +Inf
  c{} 1e3
"""
    assert metrics.parse(text) == {
        "a": [((("device", "x y"), ("mountpoint", "/srv")), 0.5), ((), 1.0)],
        "b": [((("quoted", 'a"b\\c\nd'),), math.inf)],
        "c": [((), 1000.0)],
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a 1\nb\n", "line 2 is no sample"),
        ('a{b="c} 1', "line 1 is no sample"),
        ('a{b="c" d="e"} 1', "line 1 is no sample"),
        ("a{b} 1", "line 1 is no sample"),
        ("a one", "'one' is no number"),
        ("0a 1", "line 1 is no sample"),
    ],
)
def test_what_is_none(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        metrics.parse(text)


LABELS = st.dictionaries(
    st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True), st.text('a "\\\n,{}=#\u2192', min_size=1, max_size=12), max_size=3
)


@settings(deadline=None)
@given(st.lists(st.tuples(LABELS, st.floats(allow_nan=False)), max_size=5))
def test_what_is_written_is_read(series: list[tuple[dict[str, str], float]]) -> None:
    lines = []
    for labels, value in series:
        pairs = []
        for name, text in labels.items():
            escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
            pairs.append(f'{name}="{escaped}"')
        lines.append(f"m{{{','.join(pairs)}}} {value!r}\n")
    expected = {"m": [(tuple(sorted(labels.items())), value) for labels, value in series]} if series else {}
    assert metrics.parse("".join(lines)) == expected


def test_files_are_read_together_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.prom").write_text("m 1\n")
    (tmp_path / "b.prom").write_text('m{x="y"} 2\nn 3\n')
    (tmp_path / "c.prom").write_text("n 4\nrubbish\n")
    (tmp_path / "d.prom").write_bytes(b"\xff 1\n")
    (tmp_path / "e.prom").mkdir()
    (tmp_path / ".f.prom").write_text("hidden 1\n")
    (tmp_path / "g.txt").write_text("other 1\n")
    samples, faults = metrics.read(str(tmp_path))
    assert samples == {"m": [((), 1.0), ((("x", "y"),), 2.0)], "n": [((), 3.0)]}
    assert [fault.partition(": ")[0].rpartition("/")[2] for fault in faults] == ["c.prom", "d.prom", "e.prom"]


def test_a_label_may_hold_other_ends_of_lines(tmp_path: Path) -> None:
    (tmp_path / "a.prom").write_bytes('m{x="a\rb"} 1\nm{x="\x0b\x85\u2028"} 2\r\nn 3\n'.encode())
    samples = {"m": [((("x", "a\rb"),), 1.0), ((("x", "\x0b\x85\u2028"),), 2.0)], "n": [((), 3.0)]}
    assert metrics.read(str(tmp_path)) == (samples, [])


def test_without_a_directory_there_is_nothing(tmp_path: Path) -> None:
    assert metrics.read(str(tmp_path / "x")) == ({}, [f"{tmp_path}/x: No such file or directory"])
