# SPDX-License-Identifier: GPL-3.0-or-later
"""Types in people's words, for plain values and for Ansible's own classes."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _site_rules
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # ansible-core before 2.19
    Origin = None

WORDS = [
    ("x", "a text"),
    (1, "a number"),
    (1.5, "a number"),
    (["x"], "a list"),
    ({"a": 1}, "a mapping"),
    (datetime.date(2026, 1, 1), "a date"),
    (datetime.datetime(2026, 1, 1), "a date"),
]


@pytest.mark.parametrize(
    ("value", "words"), [*WORDS, (True, "a boolean (true or false)"), (None, "nothing"), (object(), "a value of another type")]
)
def test_plain_values(value, words):
    assert in_words(value) == words


@pytest.mark.skipif(Origin is None, reason="this release of Ansible does not tag values")
@pytest.mark.parametrize(("value", "words"), WORDS)
def test_values_as_ansible_reads_them(value, words):
    tagged = Origin(path="/inventory/hosts.yml", line_num=1).tag(value)
    assert type(tagged) is not type(value)
    assert in_words(tagged) == words
    finding = _site_rules.check_names(tagged) if isinstance(value, str) else _site_rules.check_text(tagged, "")
    assert f", {words} and not a " in finding[0] and "Ansible" not in finding[0]
