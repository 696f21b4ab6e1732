# SPDX-License-Identifier: GPL-3.0-or-later
"""What is seen from another host, and what containers reach. Run after the first runs, and again after all that befell the hosts."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import testinfra

from tools import bed

testinfra_hosts = ["ansible://servers"]

ADMIN, PEER, STRANGER = 10, 20, 66
FAMILIES = {4: "198.19.44.{}", 6: "fd63:6976:6974:44::{}"}


@pytest.fixture(scope="module")
def name(host):
    return host.backend.get_hostname()


@pytest.fixture(scope="module")
def server(name):
    """Its number in the addresses."""
    return 1 if "debian12" in name else 2


@pytest.fixture(scope="module")
def here(name):
    """The host by a shorter way than Ansible's, for there are many questions."""
    return testinfra.get_host(f"docker://{name}")


@pytest.fixture(scope="module")
def outside(name):
    """Runs a command on the host outside and returns what it prints."""
    stranger = re.sub(r"debian\d+$", "outside", name)

    def run(*words, check=True):
        return bed.docker("exec", stranger, *(str(word) for word in words), check=check)

    return run


def addresses(family, *numbers):
    return [FAMILIES[family].format(number) for number in numbers]


@pytest.fixture(scope="module")
def seen(outside, server):
    """What each source sees over each family, by TCP and by UDP; asked at the same time, since silence takes time."""

    def tcp(family, source, *ports):
        found = outside("python3", "/root/scan.py", *addresses(family, source, server), *ports)
        return {int(port): answer for port, answer in json.loads(found).items()}

    def udp(family, source, *ports):
        return json.loads(outside("python3", "/root/udp.py", *addresses(family, source, server), *ports))

    some = (22, 443, 2377, 5000, 5432, 5433)
    with ThreadPoolExecutor(12) as pool:
        asked = {}
        for family in FAMILIES:
            for source in (STRANGER, ADMIN, PEER):
                asked["tcp", family, source] = pool.submit(tcp, family, source, *(() if source == STRANGER else some))
                asked["udp", family, source] = pool.submit(udp, family, source, 53, 123, 161, 4789, 7946)
        return {key: future.result() for key, future in asked.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stranger_sees_the_public_ports_of_all_65535_and_nothing_else(seen, family):
    assert seen["tcp", family, STRANGER] == {443: "open", 8081: "open"}
    assert seen["udp", family, STRANGER] == [53]


@pytest.mark.parametrize("family", FAMILIES)
def test_ssh_is_for_administrators(seen, family):
    assert seen["tcp", family, ADMIN] == {22: "open", 443: "open"}
    assert seen["udp", family, ADMIN] == [53]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_cluster_is_for_its_members(seen, family):
    assert seen["tcp", family, PEER] == {443: "open", 2377: "open"}
    assert seen["udp", family, PEER] == [53, 7946]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ports_that_nobody_sees_are_really_there(here, family):
    """Else the scans prove nothing."""
    listening = here.check_output("ss --no-header --listening --tcp --udp --numeric")
    wildcard = {4: "0.0.0.0", 6: "[::]"}[family]
    for port in (22, 2377, 5000, 5432, 5433, 8080, 123, 161, 4789):
        assert f"{wildcard}:{port} " in listening or f"*:{port} " in listening, port


@pytest.mark.parametrize("family", FAMILIES)
def test_the_host_answers_a_ping_but_no_flood(outside, server, family):
    (target,) = addresses(family, server)
    assert " 0% packet loss" in outside("busybox", "ping", "-c", "2", "-A", "-W", "3", target)
    flood = outside("busybox", "ping", "-q", "-A", "-c", "300", "-W", "1", "-w", "2", target, check=False)
    assert " 0% packet loss" not in flood


def in_container(here, container, *words):
    return here.run(f"timeout 5 docker exec {container} /bin/busybox {' '.join(words)}").rc == 0


def address_of(here, name):
    return here.check_output("docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' " + name)


def connects(here, container, address, port):
    return in_container(here, container, "nc", "-w", "2", address, str(port), "-e", "/bin/busybox", "true")


def test_containers_reach_what_is_theirs_and_each_other(here):
    assert connects(here, "web", "172.30.0.1", 5000), "a port of the host that is for containers"
    assert connects(here, "bystander", "172.30.0.1", 5000)
    assert connects(here, "web", address_of(here, "inner"), 5432), "another container of its network"
    assert connects(here, "bystander", "172.30.0.1", 443), "what is public, by way of the host"


def test_containers_do_not_reach_what_is_not_theirs(here):
    assert not connects(here, "web", "172.30.0.1", 22)
    assert not connects(here, "web", "172.30.0.1", 2377)


def test_containers_reach_what_is_outside(here):
    assert connects(here, "web", "198.19.44.66", 22)


def test_the_host_reaches_its_containers(here):
    for address, port in ((address_of(here, "web"), 5432), ("127.0.0.1", 5432), ("127.0.0.1", 443)):
        assert here.run(f"python3 -c \"import socket; socket.create_connection(('{address}', {port}), 3)\"").rc == 0, (address, port)


def test_other_tables_are_left_alone(here):
    assert "DOCKER" in here.check_output("iptables --table nat --list-rules")


def test_the_firewall_comes_before_the_network_and_is_looked_after(here):
    assert here.service("civitas-firewall").is_enabled
    assert here.check_output("systemctl is-active civitas-firewall.service civitas-firewall-watch.timer") == "active\nactive"
    before = here.check_output("systemctl show --property=Before --value civitas-firewall.service").split()
    assert "network-pre.target" in before
    assert here.check_output("systemctl is-enabled nftables.service || true") in ("disabled", "not-found")
    assert here.file("/etc/civitas/firewall.nft").mode == 0o600


def test_the_declared_rules_are_in_force(here):
    assert here.check_output("civitas-firewall check") == "the declared rules are in force"


def test_a_look_at_it_finds_a_changed_rule(here):
    here.check_output("nft add rule inet civitas input tcp dport 99 accept")
    try:
        done = here.run("civitas-firewall check")
        assert done.rc == 1
        assert "99" in done.stderr
    finally:
        assert here.run("civitas-firewall repair").rc == 0
    assert here.run("civitas-firewall check").rc == 0


@pytest.mark.parametrize("ruleset", ["single", "cluster", "narrow", "restricted", "closed"])
def test_this_release_takes_the_rulesets_of_the_unit_tests(here, name, ruleset):
    # The name of a user must be there to be judged, and its package is not.
    here.check_output("useradd --system dnsmasq")
    file = Path(__file__).parents[3] / "tests/fixtures/firewall" / f"{ruleset}.nft"
    bed.docker("cp", str(file), f"{name}:/root/ruleset.nft")
    judged = here.run("nft --check --file /root/ruleset.nft")
    here.check_output("userdel dnsmasq")
    assert judged.rc == 0, judged.stderr
