# SPDX-License-Identifier: GPL-3.0-or-later
"""A key that opens backups lies on no host where it must not, and what people write wrong is told with what to write."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.drill_problems import drill_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_preflight as preflight

KEY = "ssh-ed25519 " + "A" * 68
RECORDS = {"name": "records-1", "signing_keys": [KEY]}
CONFIG = {
    "host": "staging-1",
    "own_sets": "staging-1",
    "is_store": False,
    "restores": False,
    "environment": "staging",
    "hosts": [RECORDS],
    "target_address": "192.0.2.7",
    "target_port": 2022,
    "target_host_keys": [KEY],
    "ssh_options": [],
    "late_hours": 26,
    "keep_reports": 60,
    "minimum_free_megabytes": 1024,
    "memory_megabytes": 1024,
    "settings": {"shared_preload_libraries": "pg_cron", "cron.database_name": "records"},
    "anonymise": ["/usr/local/sbin/anonymise"],
    "health": ["true"],
    "health_minutes": 10,
    "logins": [{"database": "records", "role": "registry"}],
}


def test_good_ones():
    assert preflight.problems(CONFIG) == []
    replaced = {**CONFIG, "restores": True, "hosts": [{**RECORDS, "mode": "replace"}]}
    assert preflight.problems(replaced) == [] and preflight.problems({**replaced, "restores": False}, check=True) == []
    assert preflight.problems({**replaced, "anonymise": [], "hosts": [{**RECORDS, "mode": "replace", "anonymise": "none"}]}) == []
    local = {**CONFIG, "hosts": [{**RECORDS, "sets": "/srv/copies"}], "target_address": "", "target_host_keys": []}
    assert preflight.problems(local) == []
    # Without a timer there is no key, so it may be anywhere.
    for environment in ("production", "backup", "qa"):
        assert preflight.problems({**local, "hosts": [], "environment": environment, "is_store": True}) == []
    assert preflight.problems({**CONFIG, "target_host_keys": [], "hosts": [{**RECORDS, "signing_keys": [""]}]}, check=True) == []


@pytest.mark.parametrize("environment", ["production", "backup", "qa", "development", "bastion"])
def test_environments_without_a_timer(environment):
    (found,) = preflight.problems({**CONFIG, "environment": environment})
    assert found.startswith(
        f"restore_drill_hosts is written, and a host of the kind '{environment}' must not hold a key that opens backups"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"is_store": True}, "this host keeps sets; whoever takes it must not find a key that opens them"),
        ({"own_sets": "records-1"}, r"hosts\[0\] is this host itself, whose data a key to its backups must not lie beside"),
        ({"host": "records-1"}, r"hosts\[0\] is this host itself"),
        ({"host": "A B"}, "small letters"),
        ({"environment": "live"}, "write one of"),
        ({"hosts": {}}, "is a mapping"),
        ({"hosts": ["records-1"]}, "write a list such as"),
        ({"hosts": [{"name": "../x", "signing_keys": [KEY]}]}, "what the host is called"),
        ({"hosts": [RECORDS, RECORDS]}, "has records-1 twice"),
        ({"hosts": [{**RECORDS, "signing_keys": []}]}, "no set of it could be believed"),
        ({"hosts": [{**RECORDS, "signing_keys": ["x"]}]}, "signing_keys that are none"),
        ({"hosts": [{**RECORDS, "signing_keys": [""]}]}, "signing_keys that are none"),
        ({"hosts": [{**RECORDS, "sets": "copies"}]}, "write an absolute path"),
        ({"target_address": ""}, "name or address"),
        ({"target_address": "127.0.0.1"}, "no key may lie on it that opens the sets"),
        ({"target_host_keys": []}, "run the role backup_store"),
        ({"target_host_keys": ["x"]}, "no host key"),
        ({"ssh_options": ["-o", "StrictHostKeyChecking=no"]}, "is decided by restore_drill_target_host_keys alone"),
        ({"ssh_options": "-J gate"}, "write words"),
        ({"anonymise": "rm -rf"}, "one word an item"),
        ({"health": "curl x"}, "one word an item"),
        ({"health_minutes": -1}, "whole number"),
        ({"hosts": [{**RECORDS, "mode": "keep"}]}, "write throw_away or replace"),
        ({"hosts": [{**RECORDS, "anonymise": "no"}]}, "write command, or none"),
        ({"hosts": [{**RECORDS, "mode": "replace"}]}, "let it run on this host before"),
        ({"restores": True, "anonymise": [], "hosts": [{**RECORDS, "mode": "replace"}]}, "would bring records of people to this host"),
        ({"restores": True, "hosts": [{**RECORDS, "mode": "replace", "anonymise": "none"}]}, "write one of the two"),
        ({"late_hours": 0}, "whole number"),
        ({"memory_megabytes": "x"}, "whole number"),
        ({"settings": {"listen_addresses": "*"}}, "is kept from others; leave it out"),
        ({"settings": {"a b": "1"}}, "no name of a setting"),
        ({"settings": []}, "write a mapping"),
        ({"logins": [{"database": "records"}]}, "names no database and role"),
    ],
)
def test_what_is_wrong(changes, words):
    with pytest.raises(AssertionError, match=words):
        assert not drill_problems({**CONFIG, **changes}), drill_problems({**CONFIG, **changes})[0]
    assert len(drill_problems({**CONFIG, **changes})) == 1


def test_the_filter_tells_what_it_cannot_read():
    with pytest.raises(AnsibleFilterError, match="KeyError"):
        drill_problems({})
