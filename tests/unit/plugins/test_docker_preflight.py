# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib

import pytest
from ansible_collections.civitas.hosting.plugins.filter.docker_problems import docker_problems

GOOD = {
    "source": "distribution",
    "repository_url": "",
    "repository_key_file": "",
    "compose_plugin_file": "",
    "compose_plugin_sha256": "",
    "compose_packaged": True,
    "bridge_address": "172.30.0.1/24",
    "address_pools": [{"base": "172.30.128.0/17", "size": 24}],
}
FACTS = {
    "interfaces": ["lo", "eth0", "wg-site", "docker0", "br-0123456789ab"],
    "lo": {"ipv4": {"address": "127.0.0.1", "netmask": "255.0.0.0"}},
    "eth0": {
        "ipv4": {"address": "10.1.2.3", "netmask": "255.255.255.0"},
        "ipv4_secondaries": [{"address": "10.9.0.1", "netmask": "255.255.0.0"}],
    },
    "wg_site": {"ipv4": {"address": "192.168.7.1", "netmask": "255.255.255.0"}},
    # The engine's own networks are no reason to refuse the second run.
    "docker0": {"ipv4": {"address": "172.30.0.1", "netmask": "255.255.255.0"}},
    "br_0123456789ab": {"ipv4": {"address": "172.30.128.1", "netmask": "255.255.255.0"}},
}


def test_a_good_configuration_has_no_problem():
    assert docker_problems(GOOD, FACTS) == []
    assert docker_problems(GOOD, {}) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bridge_address": "10.1.2.200/28"}, "docker_bridge_address (10.1.2.192/28) overlaps 10.1.2.0/24, reached through eth0"),
        ({"bridge_address": "10.9.200.1/24"}, "overlaps 10.9.0.0/16, reached through eth0"),
        ({"address_pools": [{"base": "192.168.0.0/16", "size": 24}]}, "overlaps 192.168.7.0/24, reached through wg-site"),
        (
            {"bridge_address": "172.30.200.1/24"},
            "docker_address_pools[0] (172.30.128.0/17) overlaps docker_bridge_address (172.30.200.0/24)",
        ),
        ({"address_pools": [{"base": "172.31.0.0/16", "size": 24}, {"base": "172.31.128.0/17", "size": 24}]}, "docker_address_pools[1]"),
        ({"bridge_address": "172.29.0.1/24"}, "docker0 has 172.30.0.1 already"),
        ({"bridge_address": "172.30.0.0/24"}, "write it like 172.30.0.1/24"),
        ({"bridge_address": "172.30.0.255/24"}, "write it like 172.30.0.1/24"),
        ({"bridge_address": "172.30.0.1"}, "write it like 172.30.0.1/24"),
        ({"bridge_address": "bridge"}, "write it like 172.30.0.1/24"),
        ({"address_pools": []}, "docker_address_pools is empty"),
        ({"address_pools": [{"base": "172.31.0.1/16", "size": 24}]}, "is not a network"),
        ({"address_pools": [{"base": "172.31.0.0/16", "size": 8}]}, "write a size from 16 to 30"),
        ({"address_pools": [{"base": "172.31.0.0/16", "size": 31}]}, "write a size from 16 to 30"),
        ({"compose_packaged": False}, "Choose one of three"),
        ({"source": "vendor", "repository_key_file": __file__}, "docker_repository_url is empty"),
        ({"source": "vendor", "repository_url": "https://mirror.example.org"}, "docker_repository_key_file is empty"),
        ({"source": "vendor", "repository_url": "https://mirror.example.org", "repository_key_file": "/none"}, "there is no file /none"),
        ({"compose_plugin_file": "/none"}, "there is no file /none"),
        ({"compose_plugin_file": __file__}, "write the 64 digits"),
        ({"compose_plugin_file": __file__, "compose_plugin_sha256": "0" * 64}, "fetch it again or correct the sum"),
    ],
)
def test_a_problem_is_named(change, expected):
    problems = docker_problems({**GOOD, **change}, FACTS)
    assert [problem for problem in problems if expected in problem], problems


def test_a_plugin_file_with_its_sum_makes_up_for_the_package():
    with open(__file__, "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    change = {"compose_packaged": False, "compose_plugin_file": __file__, "compose_plugin_sha256": digest}
    assert docker_problems({**GOOD, **change}, FACTS) == []


def test_the_vendor_has_compose_for_every_release():
    change = {
        "compose_packaged": False,
        "source": "vendor",
        "repository_url": "https://mirror.example.org",
        "repository_key_file": __file__,
    }
    assert docker_problems({**GOOD, **change}, FACTS) == []
