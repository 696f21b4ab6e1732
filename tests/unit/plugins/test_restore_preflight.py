# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write wrong about restores is told with what to write."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.restore_problems import restore_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_preflight as preflight

CONFIG = {
    "host": "records-1",
    "store_address": "192.0.2.7",
    "store_port": 2022,
    "copy_address": "",
    "copy_port": 2022,
    "keep_days": 7,
    "minimum_free_megabytes": 1024,
    "files": [{"name": "documents", "path": "/srv/documents", "restore": "side"}],
    "postgres": [{"name": "main", "databases": ["records"]}],
    "writers": [{"name": "app", "units": ["app@one.service", "jobs.timer"], "projects": ["app_demo"]}, {"name": "x", "projects": ["x"]}],
}


def test_a_good_one():
    assert preflight.problems(CONFIG) == restore_problems(CONFIG) == []
    assert preflight.problems({**CONFIG, "files": [], "postgres": [], "writers": []}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "Records_1"}, "small letters"),
        ({"store_address": ""}, "restore_store_address is ''; write the name or address"),
        ({"store_port": 0}, "restore_store_port is 0"),
        ({"copy_address": "a b"}, "restore_copy_address is 'a b'"),
        ({"copy_port": 0}, "restore_copy_port is 0"),
        ({"keep_days": 0}, "whole number from 1 to 365"),
        ({"minimum_free_megabytes": "x"}, "restore_minimum_free_megabytes"),
        ({"files": "x"}, "restore_files is"),
        ({"files": [{"name": "a", "path": "relative"}]}, "restore_files: a has the path 'relative'"),
        ({"files": [{"name": "a", "path": "/"}]}, "is no tree of records"),
        ({"postgres": [{"name": "main", "databases": []}]}, "restore_postgres: main names no databases"),
        ({"writers": {"units": []}}, "restore_writers is"),
        ({"writers": [{"name": "app"}]}, "has neither units nor projects"),
        ({"writers": [{"name": "app", "units": ["app"]}]}, "has 'app' in units"),
        ({"writers": [{"name": "app", "units": "app.service"}]}, "has 'app.service' in units"),
        ({"writers": [{"name": "app", "projects": ["../x"]}]}, "has '../x' in projects"),
    ],
)
def test_what_is_wrong(changes, words):
    (problem,) = preflight.problems({**CONFIG, **changes})
    assert words in problem


def test_what_the_filter_cannot_read():
    with pytest.raises(AnsibleFilterError, match="KeyError"):
        restore_problems({})
