# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write wrongly is named before it happens, with what to write."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.monitoring_agent_problems import FilterModule
from ansible_collections.civitas.hosting.plugins.module_utils._monitoring_preflight import problems

RULE = {
    "name": "Full",
    "severity": "warning",
    "metric": "civitas_mount_used_ratio",
    "above": 0.5,
    "text": "It is full.",
    "runbook": "alerts.md#disk",
    "role": "base",
}
LIGHT = {
    "mode": "light",
    "metrics_directory": "/var/lib/civitas/metrics",
    "units": ["nginx.service", "postgresql@17-main.service", r"srv-old\x20data.mount"],
    "mounts": ["/", "/srv"],
    "containers": [{"project": "shop", "services": ["web", "db"]}],
    "components": {"Solr 9": "2027-12-31"},
    "evaluate": True,
    "host": "server1",
    "rules": [RULE],
    "receivers": [{"name": "team", "webhook": {"url": "https://canary.example/secret"}}],
    "mail_from": "root",
    "heartbeat_url": "https://outside.example.org/canary",
    "port": 9998,
    "server_name": "server1.internal",
    "client_names": [],
    "client_addresses": [],
    "certificate_file": "/etc/civitas/certificates/monitoring/fullchain.pem",
    "key_file": "/etc/civitas/certificates/monitoring/key.pem",
    "ca_file": "/etc/civitas/ca.pem",
    "nginx_status_url": "",
}
FULL = {
    **LIGHT,
    "mode": "full",
    "evaluate": False,
    "rules": [],
    "receivers": [],
    "heartbeat_url": "",
    "client_names": ["monitoring.internal"],
    "client_addresses": ["192.0.2.10", "2001:db8::/64"],
    "nginx_status_url": "http://127.0.0.1:8081/status",
}


@pytest.mark.parametrize(
    "config", [LIGHT, FULL, {**LIGHT, "mode": "full", **{key: FULL[key] for key in ("client_names", "client_addresses")}}]
)
def test_good_variables(config):
    assert problems(config) == []


@pytest.mark.parametrize(
    ("base", "changes", "said"),
    [
        (LIGHT, {"mode": "both"}, "write light (the host judges itself) or full"),
        (LIGHT, {"metrics_directory": "/run/metrics"}, "which a reboot empties; write a directory on disk"),
        (LIGHT, {"metrics_directory": "metrics"}, "write a path on the host"),
        (FULL, {"key_file": "/etc/a b"}, "key_file is '/etc/a b'"),
        (FULL, {"ca_file": "/etc/../x"}, "ca_file is '/etc/../x'"),
        (LIGHT, {"units": "nginx.service"}, "units is a text; write a list such as [nginx.service]"),
        (LIGHT, {"units": ["nginx"]}, "write the full name of a unit, such as nginx.service"),
        (LIGHT, {"units": ["--all.service x"]}, "write the full name of a unit"),
        (LIGHT, {"mounts": ["/srv/"]}, "without a slash at its end"),
        (LIGHT, {"mounts": ["srv"]}, "write a directory"),
        (LIGHT, {"containers": [{"project": "shop"}]}, "write a project and its services"),
        (LIGHT, {"containers": [{"project": "shop", "services": []}]}, "write a project and its services"),
        (LIGHT, {"containers": ["shop"]}, "write a project and its services"),
        (LIGHT, {"components": []}, "components is a list; write a mapping"),
        (LIGHT, {"components": {"Solr": 2027}}, "write the last day of its support in quotes"),
        (LIGHT, {"components": {"Solr": "31.12.2027"}}, "'31.12.2027' for Solr"),
        (LIGHT, {"mail_from": "büro@example.org"}, "mail_from is 'büro@example.org'; write an address in plain letters"),
        (LIGHT, {"mail_from": "a@example.org\nBcc: b@example.org"}, "write an address"),
        (FULL, {"mail_from": ["root"]}, "write an address"),
        (LIGHT, {"heartbeat_url": "http://outside.example.org/canary"}, "heartbeat_url is no usable address; write the one"),
        (FULL, {"heartbeat_url": "https://outside.example.org/canary"}, "and the host does not judge itself"),
        (LIGHT, {"rules": []}, "so no alarm could ring"),
        (LIGHT, {"rules": {}}, "rules is a mapping; write a list"),
        (LIGHT, {"rules": [{**RULE, "severity": "loud"}]}, "severity is 'loud'; write warning or critical"),
        (LIGHT, {"receivers": [{"name": "team"}]}, "monitoring_agent_receivers[0] has no way to reach it"),
        (LIGHT, {"receivers": []}, "so nobody would be told"),
        (FULL, {"port": 0}, "write a number from 1 to 65535"),
        (FULL, {"server_name": "192.0.2.1"}, "such as server1.internal"),
        (FULL, {"client_names": []}, "so no certificate would be right"),
        (FULL, {"client_names": ["a|b"]}, "client_names has 'a|b'"),
        (FULL, {"client_addresses": []}, "so nobody could ask"),
        (FULL, {"client_addresses": ["monitoring.internal"]}, "write the address of a monitoring host"),
        (FULL, {"client_addresses": "192.0.2.10"}, "client_addresses"),
        (FULL, {"nginx_status_url": "http://192.0.2.1/status"}, "write an address on loopback"),
        (FULL, {"nginx_status_url": "http://u:p" + "@127.0.0.1/"}, "without a login"),
        (FULL, {"nginx_status_url": "http://127.0.0.1/a b"}, "write an address on loopback"),
        (FULL, {"nginx_status_url": 5}, "write an address on loopback"),
    ],
)
def test_what_is_wrong_is_named(base, changes, said):
    found = problems({**base, **changes})
    assert [line for line in found if said in line], found


def test_receivers_are_not_quoted():
    assert "canary" not in str(problems({**LIGHT, "mode": "x", "receivers": LIGHT["receivers"][0]}))


def test_the_filter_quotes_nothing_either():
    one = FilterModule().filters()["monitoring_agent_problems"]
    assert one(LIGHT) == []
    with pytest.raises(AnsibleFilterError, match=r"KeyError$"):
        one({"receivers": "canary"})
