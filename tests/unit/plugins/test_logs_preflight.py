# SPDX-License-Identifier: GPL-3.0-or-later
"""Every mistake in the variables of the role logs is named, with what to write."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.logs_problems import FilterModule
from ansible_collections.civitas.hosting.plugins.module_utils._logs_preflight import problems

WATCH = {"name": "watch-1", "address": "192.0.2.10", "tls_name": "watch-1.internal"}
SENDER = {"name": "server_1", "tls_name": "server-1.internal"}
GOOD = {
    "keep_days": 180,
    "identifiers": ["vpn-gateway"],
    "metrics_directory": "/var/lib/civitas/metrics",
    "receiver": WATCH,
    "server_name": "host-1.internal",
    "certificate_file": "/etc/civitas/certificates/logs/fullchain.pem",
    "key_file": "/etc/civitas/certificates/logs/key.pem",
    "ca_file": "/etc/civitas/ca.pem",
    "receive": True,
    "senders": [SENDER],
    "port": 9997,
    "sender_megabytes_per_day": 256,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"receiver": {}, "receive": False, "senders": [], "identifiers": []},
        {"keep_days": "90", "receiver": {**WATCH, "address": "watch.example.org", "port": 9999}},
        {"receiver": {**WATCH, "address": "2001:db8::1"}},
    ],
)
def test_right_variables(changes):
    assert problems({**GOOD, **changes}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep_days": 89}, "write a number from 90"),
        ({"keep_days": True}, "write a number from 90"),
        ({"port": 0}, "logs_port is 0; write a number from 1 to 65535"),
        ({"sender_megabytes_per_day": "much"}, "write a number from 1 to 65536"),
        ({"metrics_directory": "metrics"}, "write a path on the host"),
        ({"key_file": "/etc/../key"}, "logs_key_file is '/etc/../key'"),
        ({"server_name": "192.0.2.1"}, "write a name that the internal CA may sign for"),
        ({"identifiers": "sshd"}, "logs_identifiers is a text; write a list"),
        ({"identifiers": ["a b"]}, "logs_identifiers has 'a b'"),
        ({"receiver": "watch-1"}, "logs_receiver is a text; write a mapping"),
        ({"receiver": {**WATCH, "host": "x"}}, "'host', which means nothing; known are name"),
        ({"receiver": {"address": "192.0.2.10", "tls_name": "watch-1.internal"}}, "logs_receiver.name is ''"),
        ({"receiver": {"name": "watch-1", "tls_name": "watch-1.internal"}}, "logs_receiver.address is ''; write the address"),
        ({"receiver": {"name": "watch-1", "address": "192.0.2.10"}}, "logs_receiver.tls_name is ''"),
        ({"receiver": {**WATCH, "tls_name": "192.0.2.10"}}, "write the name in its certificate"),
        ({"receiver": {**WATCH, "port": "x"}}, "logs_receiver.port is 'x'"),
        ({"receiver": {**WATCH, "address": "127.0.0.1"}}, "this host itself, which could rewrite it"),
        ({"receiver": {**WATCH, "tls_name": "host-1.internal"}}, "this host itself, which could rewrite it"),
        ({"receive": "yes"}, "logs_receive is 'yes'; write true or false"),
        ({"senders": []}, "so every host would be refused"),
        ({"receive": False}, "nobody listens to them"),
        ({"senders": "server1"}, "logs_senders is a text; write a list"),
        ({"senders": ["server1"]}, "logs_senders has a text; write {name: server1"),
        ({"senders": [{**SENDER, "address": "192.0.2.1"}]}, "'address', which means nothing"),
        ({"senders": [{**SENDER, "name": "../x"}]}, "logs_senders has the name '../x'"),
        ({"senders": [{**SENDER, "name": ".x"}]}, "logs_senders has the name '.x'"),
        ({"senders": [{"name": "server1"}]}, "logs_senders has the tls_name None"),
        ({"senders": [{**SENDER, "tls_name": "host-1.internal"}]}, "this host itself; remove it"),
        ({"senders": [SENDER, {**SENDER, "tls_name": "x.internal"}]}, "the name 'server_1' twice"),
        ({"senders": [SENDER, {**SENDER, "name": "x"}]}, "the tls_name 'server-1.internal' twice"),
    ],
)
def test_wrong_variables(changes, words):
    found = problems({**GOOD, **changes})
    assert len(found) == 1 and words in found[0], found


def test_what_is_none_of_these_is_told_without_a_trace():
    with pytest.raises(AnsibleFilterError, match="logs_problems: KeyError"):
        FilterModule().filters()["logs_problems"]({})
