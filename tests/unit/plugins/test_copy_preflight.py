# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write wrong about a host that copies backups is told with what to write."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.backup_copy_problems import backup_copy_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _copy_preflight as preflight

KEY = "ssh-ed25519 " + "A" * 68
RECORDS = {"name": "records-1", "signing_keys": [KEY], "retention": "15 days"}
CONFIG = {
    "hosts": [RECORDS],
    "is_store": True,
    "is_sender": False,
    "target_address": "192.0.2.7",
    "target_port": 2022,
    "target_host_keys": [KEY],
    "ssh_options": ["-J", "gate"],
    "bandwidth_kib": 0,
    "late_hours": 36,
}


def test_good_ones():
    assert preflight.problems(CONFIG) == backup_copy_problems(CONFIG) == []
    rules = {"daily": 7, "weekly": 4, "monthly": 12, "minimum_days": 2, "minimum_count": 3}
    assert preflight.problems({**CONFIG, "hosts": [{**RECORDS, "signing_keys": [KEY, KEY[:-1] + "B"], "retention": rules}]}) == []
    # Before anything has keys.
    fresh = {**CONFIG, "is_store": False, "target_host_keys": [""], "hosts": [{**RECORDS, "signing_keys": [""]}]}
    assert preflight.problems(fresh, check=True) == []
    # A host that copies nothing needs nothing.
    assert preflight.problems({**CONFIG, "hosts": [], "is_store": False, "is_sender": True, "target_address": ""}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hosts": {}}, "is a mapping"),
        ({"hosts": ["records-1"]}, "write a list such as"),
        ({"hosts": [{**RECORDS, "name": "../x"}]}, "what the host is called"),
        ({"hosts": [RECORDS, RECORDS]}, "has records-1 twice"),
        ({"hosts": [{**RECORDS, "signing_keys": []}]}, "no set of it could be believed"),
        ({"hosts": [{**RECORDS, "signing_keys": [""]}]}, "signing_keys that are none"),
        ({"hosts": [{**RECORDS, "signing_keys": KEY}]}, "signing_keys that are none"),
        ({"hosts": [{**RECORDS, "retention": "8 days"}]}, "write that of the first store"),
        ({"hosts": [{**RECORDS, "retention": {"daily": 1}}]}, "write that of the first store"),
        ({"is_store": False}, "nothing here keeps sets; run the role backup_store before"),
        ({"is_sender": True}, "a copy of them must lie elsewhere"),
        ({"target_address": ""}, "name or address"),
        ({"target_address": "::1"}, "this host itself"),
        ({"target_port": 0}, "backup_copy_target_port is 0"),
        ({"target_host_keys": []}, "run the role backup_store on the store"),
        ({"target_host_keys": ["ssh-rsa AAAA"]}, "no host key"),
        ({"ssh_options": "-J gate"}, "write words"),
        ({"ssh_options": ["-o", "StrictHostKeyChecking=no"]}, "is decided by backup_copy_target_host_keys alone"),
        ({"bandwidth_kib": -1}, "backup_copy_bandwidth_kib is -1"),
        ({"late_hours": 24}, "backup_copy_late_hours is 24"),
    ],
)
def test_what_is_wrong(changes, words):
    (problem,) = preflight.problems({**CONFIG, **changes})
    assert words in problem


def test_the_filter_tells_what_it_cannot_read():
    with pytest.raises(AnsibleFilterError, match="KeyError"):
        backup_copy_problems({})
