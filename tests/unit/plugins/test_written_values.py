# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as an address, a name and a number."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _written_values as values


@pytest.mark.parametrize(
    ("judge", "good", "bad"),
    [
        (values.is_mail_address, ["a@b", "o'neil+x@example.org"], ["", "a", "a@", "a b@c", "a@b\n", None, 1, "a@b, c@d"]),
        (values.is_host_name, ["a", "a.example.org", "192.0.2.1"], ["", "-a", "a_b", "a b", "a\n", "::1", None, 1]),
        (values.is_address, ["192.0.2.1", "::1"], ["", "a", "192.0.2", "192.0.2.1/32", None, 1]),
        (values.is_loopback, ["localhost", "127.0.0.9", "::1"], ["", "192.0.2.1", "a", None]),
        (lambda value: values.is_whole(value, 1, 9), [1, "9"], [0, 10, "x", "-1", True, 1.5, None]),
    ],
)
def test_values(judge, good, bad):
    assert [value for value in good if not judge(value)] == []
    assert [value for value in bad if judge(value)] == []


def test_unknown_keys():
    assert values.unknown_keys("a_b", {"x": 1, "y": 2}, ["x", "z"]) == ["a_b has 'y', which means nothing; known are x, z"]
