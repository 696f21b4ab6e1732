# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write wrong about a store is told with what to write."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.backup_store_problems import backup_store_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _store_preflight as preflight

KEY, OTHER = "ssh-ed25519 " + "A" * 68, "ssh-ed25519 " + "B" * 68
HOST = {"name": "records-1", "transfer_key": KEY, "signing_key": OTHER, "quota_gigabytes": 10, "retention": "7 days"}
RULES = {"daily": 7, "weekly": 4, "monthly": 12, "minimum_days": 2, "minimum_count": 3}
CONFIG = {
    "directory": "/srv/backup",
    "port": 2022,
    "listen_addresses": ["0.0.0.0", "::"],
    "minimum_free_megabytes": 2048,
    "verify_sets": 2,
    "late_hours": 26,
    "hosts": [HOST],
}


def with_host(**changes):
    return {"hosts": [{**HOST, **changes}]}


def test_good_ones():
    assert preflight.problems(CONFIG) == []
    assert preflight.problems({**CONFIG, "hosts": [{**{key: HOST[key] for key in HOST if key != "transfer_key"}, "copied": True}]}) == []
    assert preflight.problems({**CONFIG, **with_host(retention="15 days")}) == []
    assert preflight.problems({**CONFIG, **with_host(retention={**RULES, "newest_hours": 50})}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"directory": "srv/backup"}, "a path on the host"),
        ({"directory": "/tmp/backup"}, "no place for backups"),
        ({"port": 70000}, "from 1 to 65535"),
        ({"listen_addresses": ["here"]}, "write addresses"),
        ({"verify_sets": 0}, "from 1 to 1000"),
        ({"hosts": []}, "is empty"),
        ({"hosts": {"name": "a"}}, "is a mapping"),
        ({"hosts": [HOST, HOST]}, "has records-1 twice"),
        (with_host(name="Records 1"), "no good name"),
        (with_host(transfer_key=""), "no transfer_key; run the role backup with tasks_from: keys"),
        (with_host(copied=True), "is copied and has a transfer_key"),
        (with_host(copied="yes", transfer_key=""), "copied that is a text"),
        ({"late_hours": 0}, "from 1 to 744"),
        (with_host(signing_key="ssh-rsa AAAA"), "no signing_key"),
        (with_host(signing_key=KEY), "one key for both"),
        (with_host(signing_keys_before=["AAAA"]), "signing_keys_before that are no public keys"),
        (with_host(readers="all"), "readers that are no list of keys"),
        (with_host(readers=["ssh-rsa AAAA"]), "readers that are no list of keys"),
        (with_host(readers=[KEY]), "read its own sets with the key by which it sends"),
        (with_host(quota_gigabytes=None), "how much of the disk"),
        (with_host(retention="for ever"), "'15 days' or '7 days'"),
        (with_host(retention={"days": 7}), "other keys than"),
        (with_host(retention={"daily": 7}), "no whole number weekly"),
        (with_host(retention={**RULES, "minimum_count": 0}), "could remove the last set"),
        (with_host(retention=7), "write these"),
    ],
)
def test_one_mistake_is_one_problem(changes, words):
    (problem,) = preflight.problems({**CONFIG, **changes})
    assert words in problem


def test_check_mode_before_there_are_keys():
    assert preflight.problems({**CONFIG, **with_host(transfer_key="", signing_key="")}, check=True) == []


def test_the_filter_says_the_same():
    assert backup_store_problems({**CONFIG, "port": 0}) == preflight.problems({**CONFIG, "port": 0})
    with pytest.raises(AnsibleFilterError, match="backup_store_problems"):
        backup_store_problems({})
