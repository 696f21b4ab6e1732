# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write wrong about backups is told with what to write, and a private key is never repeated."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.backup_problems import backup_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_preflight as preflight

RECIPIENT = "age1" + "q" * 58
OTHER = "age1" + "p" * 58
HOST_KEY = "ssh-ed25519 " + "A" * 68
CONFIG = {
    "host": "records-1",
    "recipients": [RECIPIENT, OTHER],
    "target_address": "192.0.2.7",
    "target_port": 2022,
    "target_host_keys": [HOST_KEY],
    "ssh_options": [],
    "bandwidth_kib": 0,
    "late_hours": 26,
    "full_days": 90,
    "minimum_free_megabytes": 1024,
    "files": [{"name": "documents", "path": "/srv/documents"}],
    "postgres": [{"name": "main", "databases": ["records"]}],
    "commands": [{"name": "export", "run": ["/bin/true"]}],
}


def test_a_good_one():
    assert preflight.problems(CONFIG) == []
    assert preflight.problems({**CONFIG, "postgres": [], "commands": [], "ssh_options": ["-J", "gate.example.org"]}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "Records_1"}, "small letters"),
        ({"recipients": []}, "is empty"),
        ({"recipients": RECIPIENT}, "is a text"),
        ({"recipients": ["age1short"]}, "no public key"),
        ({"recipients": [RECIPIENT, RECIPIENT]}, "twice"),
        ({"recipients": ["AGE-SECRET-KEY-1CANARY"]}, "is a private key, which now lies in the inventory"),
        ({"target_address": "a b"}, "name or address"),
        ({"target_address": "127.0.0.1"}, "beside the data is lost with it"),
        ({"target_host_keys": []}, "run the role backup_store"),
        ({"target_host_keys": ["no key"]}, "no host key"),
        ({"ssh_options": "-J gate"}, "write words"),
        ({"ssh_options": ["-o", "StrictHostKeyChecking=no"]}, "is decided by backup_target_host_keys alone"),
        ({"target_port": 0}, "from 1 to 65535"),
        ({"late_hours": "soon"}, "whole number"),
        ({"files": {}}, "is a mapping"),
        ({"files": [], "postgres": [], "commands": []}, "so the backups would be"),
        ({"files": [{"path": "/srv"}]}, "without a good name"),
        ({"files": [{"name": "a", "path": "/srv/a"}, {"name": "a", "path": "/srv/b"}]}, "has a twice"),
        ({"files": [{"name": "a", "path": "srv/a"}]}, "an absolute one"),
        ({"files": [{"name": "a", "path": "/srv/a/"}]}, "without a slash at its end"),
        ({"files": [{"name": "a", "path": "/proc"}]}, "no tree of records"),
        ({"files": [{"name": "a", "path": "/srv/../etc"}]}, "no tree of records"),
        ({"postgres": [{"name": "main", "databases": []}]}, "names no databases"),
        ({"postgres": [{"name": "main", "databases": ["a"], "exclude": ["a"]}]}, "under databases and exclude"),
        ({"commands": [{"name": "export", "run": "/bin/true"}]}, "no command"),
    ],
)
def test_one_mistake_is_one_problem(changes, words):
    (problem,) = preflight.problems({**CONFIG, **changes})
    assert words in problem and "CANARY" not in problem


def test_check_mode_before_there_are_keys():
    assert preflight.problems({**CONFIG, "target_host_keys": [""]}, check=True) == []
    assert preflight.problems({**CONFIG, "target_host_keys": []}, check=True) == []
    assert preflight.problems({**CONFIG, "target_host_keys": [""]}) != []


def test_the_filter_says_the_same():
    assert backup_problems({**CONFIG, "host": ""}) == preflight.problems({**CONFIG, "host": ""})
    with pytest.raises(AnsibleFilterError, match="backup_problems"):
        backup_problems({})
