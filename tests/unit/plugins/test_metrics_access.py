# SPDX-License-Identifier: GPL-3.0-or-later
"""Who lacks a second factor."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_access import second_factors

SETTINGS = {"second_factor": True, "people": ["ada", "bob"], "grace_until": ""}


@pytest.mark.parametrize(
    ("changes", "present", "values"),
    [
        ({}, ["ada", "bob", "left"], [0]),
        ({}, ["ada"], [1]),
        ({}, [], [2]),
        ({"grace_until": "2026-11-21"}, [], [0]),
        ({"grace_until": "2026-11-20"}, [], [2]),
        ({"second_factor": False}, [], []),
    ],
)
def test_who_lacks_one(changes, present, values):
    assert [one.value for one in second_factors({**SETTINGS, **changes}, present, "2026-11-21")] == values
