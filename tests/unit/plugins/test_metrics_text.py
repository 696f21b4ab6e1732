# SPDX-License-Identifier: GPL-3.0-or-later
"""What is written is what is read, whatever people call their mounts."""

from __future__ import annotations

import math

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._alert_metrics import parse, read
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import FormatError, Sample, render, sample
from hypothesis import given
from hypothesis import strategies as st

TITLES = {"a": "First.", "b": "Second."}


def test_form():
    written = render([sample("b", 1795303315, unit="x.service"), sample("a", 0.5), sample("b", True, unit="a.service", host="h")], TITLES)
    assert written.splitlines() == [
        "# HELP a First.",
        "# TYPE a gauge",
        "a 0.5",
        "# HELP b Second.",
        "# TYPE b gauge",
        'b{host="h",unit="a.service"} 1',
        'b{unit="x.service"} 1795303315',
    ]
    assert written.endswith("\n")
    assert render([], TITLES) == ""


# A label without a value is none, to every reader.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), TEXT, max_size=3), st.floats(allow_nan=False))
def test_it_is_read_as_it_was_written(labels, value):
    one = Sample("a", tuple(sorted(labels.items())), value)
    assert parse(render([one], TITLES)) == {"a": [(one.labels, one.value)]}


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x0bb", "a\x0cb", "a\x1cb", "a\x7fb", "a\x85b", "a\u2028b", "a\udcffb"])
def test_what_cannot_be_printed_spoils_nothing(text, tmp_path):
    written = render([sample("a", 1, unit=text), sample("b", 2)], TITLES)
    assert len(written.splitlines()) == 6
    (tmp_path / "a.prom").write_bytes(written.encode())
    assert read(str(tmp_path)) == ({"a": [((("unit", "a?b"),), 1.0)], "b": [((), 2.0)]}, [])


def test_not_a_number_is_written_and_read():
    assert math.isnan(parse(render([sample("a", math.nan)], TITLES))["a"][0][1])


def test_twice_the_same_and_nameless_are_refused():
    with pytest.raises(FormatError, match="twice"):
        render([sample("a", 1, b="c"), sample("a", 2, b="c")], TITLES)
    with pytest.raises(FormatError, match="nothing says"):
        render([sample("c", 1)], TITLES)
