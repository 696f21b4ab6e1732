# SPDX-License-Identifier: GPL-3.0-or-later
"""What may reach a host: what people write wrongly, and the rules that are made from what they write rightly.

The rulesets in tests/fixtures/firewall are judged by nft itself, of each release, in molecule/firewall.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.filter.firewall_problems import firewall_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _firewall_host as host
from ansible_collections.civitas.hosting.plugins.module_utils import _firewall_live as live
from ansible_collections.civitas.hosting.plugins.module_utils._declarations import check_items
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import egress_rules
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_live import entries
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_model import admits, matches, model
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_rules import Features, closed_ruleset, ruleset
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_run import FirewallRefused, run
from ansible_collections.civitas.hosting.plugins.module_utils._host_checks import Socket, undeclared_sockets
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).parents[2] / "fixtures" / "firewall"
EVERYWHERE = ["0.0.0.0", "::"]


def port(name, number, source, addresses=None, protocol="tcp", role="test"):
    return {
        "name": name,
        "port": number,
        "protocol": protocol,
        "addresses": EVERYWHERE if addresses is None else addresses,
        "from": source,
        "role": role,
    }


SSH = port("ssh", 22, "admin", role="base")
HTTPS = port("https", 443, "public", role="nginx")
GOOD = {
    "ports": [
        SSH,
        HTTPS,
        port("postgresql", 5432, "containers", ["127.0.0.1", "172.30.0.1"], role="postgres"),
        port("app", 8888, "loopback"),
    ],
    "admin_networks": ["192.0.2.0/24", "192.0.3.0/24", "198.51.100.7", "2001:db8:1::/48"],
    "peers": [],
    "monitoring": [],
    "public_networks": ["0.0.0.0/0", "::/0"],
    "container_interfaces": ["docker0", "docker_gwbridge", "br-*"],
    "ssh_port": 22,
    "log_drops": True,
    "egress": {"mode": "open"},
}
DESTINATION = {"name": "packages", "hosts": ["deb.example.org", "192.0.2.128/25"], "ports": [443], "protocol": "tcp", "from": "both"}
RULESETS = {
    "single": (GOOD, Features()),
    "cluster": (
        {
            **GOOD,
            "ports": [
                SSH,
                port("management", 2377, "cluster", role="swarm"),
                port("gossip", 7946, "cluster", role="swarm"),
                port("gossip", 7946, "cluster", protocol="udp", role="swarm"),
                port("api", 6443, "cluster", role="kubernetes"),
                port("api", 6443, "admin", role="kubernetes"),
                port("exporters", 9998, "monitoring", role="monitoring_agent"),
            ],
            "admin_networks": ["::/0"],
            "peers": ["192.0.2.11", "2001:db8::12"],
            "monitoring": ["192.0.2.20"],
        },
        Features(),
    ),
    "narrow": (
        {
            **GOOD,
            "ports": [
                SSH,
                port("https", 443, "public", ["192.0.2.1", "192.0.2.2", "[2001:db8::1]"]),
                port("names", 53, "public", ["0.0.0.0"], "udp"),
            ],
            "public_networks": ["10.0.0.0/8", "::/0"],
            "container_interfaces": [],
            "log_drops": False,
        },
        Features(log=False, reject=False),
    ),
    "restricted": (
        {
            **GOOD,
            "egress": {
                "mode": "restricted",
                "destinations": [DESTINATION],
                "resolvers": ["192.0.2.53"],
                "resolver_addresses": ["172.30.0.1"],
                "container_interfaces": ["docker0"],
            },
        },
        Features(),
    ),
}


def rules_of(config, features=None):
    return ruleset(model(config), egress_rules(config["egress"]), features or Features())


def chain(text, name):
    return text.split(f"    chain {name} {{\n")[1].split("\n    }")[0].split("\n")


@pytest.mark.parametrize("name", RULESETS)
def test_the_rules_are_those_that_were_judged(name):
    config, features = RULESETS[name]
    assert firewall_problems(config) == []
    assert rules_of(config, features) == (FIXTURES / f"{name}.nft").read_text()


def test_the_rules_of_an_emergency_are_those_that_were_judged():
    assert closed_ruleset(model(GOOD)) == (FIXTURES / "closed.nft").read_text()


@pytest.mark.parametrize("name", RULESETS)
def test_no_table_of_others_is_ever_touched(name):
    text = rules_of(*RULESETS[name])
    assert "flush" not in text
    statements = [line for line in text.splitlines() if line.startswith(("add ", "delete ", "table "))]
    assert statements == ["add table inet civitas", "delete table inet civitas", "table inet civitas {"]


def test_only_containers_reach_what_is_theirs_and_never_what_is_for_administrators():
    text = rules_of(GOOD)
    for name in ("input", "published"):
        assert not any("5432" in line for line in chain(text, name))
    assert any("ip daddr 172.30.0.1 tcp dport 5432" in line for line in chain(text, "input_containers"))
    assert not any("dport 22 " in line for line in chain(text, "input_containers"))
    lines = [line.strip() for line in chain(text, "input")]
    assert lines.index('iifname "br-*" goto input_containers') < lines.index("ip saddr @admin4 tcp dport 22 counter accept")


def test_what_listens_on_loopback_is_opened_to_nobody():
    assert "8888" not in rules_of(GOOD)
    assert "443" not in rules_of({**GOOD, "ports": [SSH, port("https", 443, "public", ["127.0.0.1", "::1"])]})


@given(st.text(min_size=1))
def test_no_name_becomes_a_rule(text):
    plain = rules_of({**GOOD, "ports": [SSH, port("x", 443, "public")]})
    named = rules_of({**GOOD, "ports": [SSH, port(text, 443, "public")]})
    assert len(plain.splitlines()) == len(named.splitlines())
    assert plain.count('"') == named.count('"')


def test_no_destination_becomes_a_rule():
    config, _features = RULESETS["restricted"]
    named = {**config["egress"], "destinations": [{**DESTINATION, "name": "one\n        accept"}]}
    assert rules_of({**config, "egress": named}).count("\n") == rules_of(config).count("\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"admin_networks": []}, ["firewall_admin_networks is empty"]),
        ({"admin_networks": "192.0.2.0/24"}, ["firewall_admin_networks is a text; write a list"]),
        ({"admin_networks": ["192.0.2.1/24"]}, ["write 192.0.2.0/24 for the network or 192.0.2.1 for the one address"]),
        ({"admin_networks": ["office"]}, ["firewall_admin_networks[0]: 'office' is no network"]),
        ({"admin_networks": [10]}, ["10 is a number; write a network in quotes"]),
        ({"admin_networks": ["192.0.2.0/33", "2001:db8::/129"]}, ["'192.0.2.0/33' is no network", "'2001:db8::/129' is no network"]),
        ({"admin_networks": ["::ffff:10.0.0.1"]}, ["which no packet has; write 10.0.0.1"]),
        ({"admin_networks": ["fe80::1%eth0"]}, ["an interface cannot be named here; write fe80::1"]),
        ({"admin_networks": ["127.0.0.1"]}, ["never the source of a connection from elsewhere"]),
        ({"peers": ["10.0.0.0/24"]}, ["firewall_peers[0]: 10.0.0.0/24 is a network"]),
        ({"ports": [SSH, port("exporters", 9998, "monitoring")]}, ["firewall_monitoring is empty"]),
        ({"monitoring": ["one.example.org"]}, ["firewall_monitoring[0]: 'one.example.org' is no network"]),
        ({"peers": ["one.example.org"]}, ["firewall_peers[0]: 'one.example.org' is no network"]),
        ({"public_networks": []}, ["firewall_public_networks is empty, but ports are public"]),
        ({"container_interfaces": ["*"]}, ["'*' names no interface"]),
        ({"container_interfaces": ['docker0" accept']}, ["names no interface"]),
        ({"container_interfaces": ["lo*"]}, ["would be the loopback interface too"]),
        ({"ssh_port": 2222}, ["the port of SSH, 2222/tcp, is not among firewall_ports"]),
        ({"ssh_port": 0}, ["firewall_ssh_port: 0 is not a port number"]),
        ({"ports": [HTTPS]}, ["the port of SSH, 22/tcp, is not among firewall_ports"]),
        ({"ports": [port("ssh", 22, "containers")]}, ["the port of SSH, 22/tcp"]),
        ({"ports": [port("ssh", 22, "admin", ["127.0.0.1"])]}, ["the port of SSH, 22/tcp"]),
        ({"ports": [SSH, port("none", 0, "public")]}, ["firewall_ports[1] (none): 0 is not a port number"]),
        ({"ports": [SSH, port("none", 65536, "public")]}, ["65536 is not a port number"]),
        ({"ports": [SSH, port("none", True, "public")]}, ["True is not a port number"]),
        ({"ports": [SSH, port("none", 80, "world")]}, ["from 'world' is unknown; write one of public, admin, cluster"]),
        ({"ports": [SSH, port("none", 80, "public", protocol="sctp")]}, ["protocol 'sctp' is unknown"]),
        ({"ports": [SSH, port("none", 80, "public", [])]}, ["addresses must be a list"]),
        ({"ports": [SSH, port("none", 80, "public", ["name", "fe80::1%eth0"])]}, ["'name' is no address", "'fe80::1%eth0' is no address"]),
        ({"ports": [SSH, {"name": "none"}]}, ["port, protocol, addresses, from missing"]),
        ({"ports": [SSH, "none"]}, ["firewall_ports[1] is a text"]),
        ({"ports": None}, ["firewall_ports is nothing; write a list"]),
        (
            {"ports": [SSH, HTTPS, port("other", 443, "public", ["192.0.2.1"])]},
            ["443/tcp is declared by 'nginx: https' and by 'test: other'"],
        ),
        ({"ports": [SSH, port("one", 80, "public", ["192.0.2.1"]), port("two", 80, "public", ["192.0.2.1"])]}, ["by 'test: one'"]),
        ({"ports": [SSH, HTTPS, port("other", 443, "admin", ["*"])]}, ["from public and from admin, which contradict each other"]),
        ({"egress": {"mode": "closed"}}, ["firewall_egress: 'closed' is unknown; write restricted or open"]),
        ({"egress": {"mode": "restricted", "destinations": []}}, ["firewall_destinations is empty"]),
        ({"admin_networks": [], "ssh_port": -1, "peers": ["x"]}, ["is empty", "-1 is not a port", "firewall_peers[0]"]),
    ],
)
def test_each_mistake_is_named_and_all_at_once(change, expected):
    found = firewall_problems({**GOOD, **change})
    assert len(found) == len(expected), found
    assert all(any(words in problem for problem in found) for words in expected), found


@pytest.mark.parametrize(
    "ports",
    [
        [SSH, port("one", 80, "public", ["192.0.2.1"]), port("two", 80, "admin", ["192.0.2.2"])],
        [SSH, port("one", 53, "public"), port("two", 53, "public", protocol="udp")],
        [SSH, port("one", 6443, "admin"), port("two", 6443, "cluster"), port("three", 6443, "containers")],
        [SSH, port("one", 80, "public", ["0.0.0.0"]), port("two", 80, "loopback", ["::1"])],
    ],
)
def test_ports_that_go_together(ports):
    assert firewall_problems({**GOOD, "ports": ports}) == []


@pytest.mark.parametrize(
    ("source", "number", "admitted"),
    [
        ("192.0.3.9", 22, True),
        ("::ffff:192.0.2.9", 22, True),
        ("2001:db8:1::9", 22, True),
        ("203.0.113.1", 22, False),
        ("fe80::1%eth0", 22, False),
        ("203.0.113.1", 443, True),
        ("192.0.2.9", 2222, False),
        ("192.0.2.9", 5432, False),
    ],
)
def test_who_could_connect_again(source, number, admitted):
    assert admits(model(GOOD), source, number) is admitted
    assert bool(host.connection_problems(model(GOOD), host.Connection(source, number))) is not admitted


def test_who_could_connect_again_by_the_family_that_is_listened_on():
    rules = model({**GOOD, "ports": [SSH, port("old", 80, "public", ["0.0.0.0"])]})
    assert admits(rules, "203.0.113.1", 80)
    assert not admits(rules, "2001:db8::1", 80)


def test_a_connection_that_would_be_the_last_is_named_with_what_to_write():
    (problem,) = host.connection_problems(model(GOOD), host.Connection("::ffff:203.0.113.1", 22))
    assert "comes from 203.0.113.1, which is not in firewall_admin_networks" in problem
    assert "(in a site's inventory: civitas_admin_networks)" in problem
    assert host.connection_problems(model(GOOD), None) == []
    assert host.connection_problems(model(GOOD), host.Connection("127.0.0.1", 22)) == []


def test_while_ssh_moves_to_another_port_both_are_open_to_administrators():
    moving = {**GOOD, "ports": [{**SSH, "port": 2222}, HTTPS], "ssh_port": 2222}
    rules, warnings = host.both_ports(model(moving), host.Connection("192.0.2.1", 22))
    assert "came to port 22 of the host, and firewall_ssh_port is 2222" in warnings[0]
    assert host.connection_problems(rules, host.Connection("192.0.2.1", 22)) == []
    assert "comes from 203.0.113.1" in host.connection_problems(rules, host.Connection("203.0.113.1", 22))[0]
    for text in (ruleset(rules, egress_rules({"mode": "open"}), Features()), closed_ruleset(rules)):
        assert "ip saddr @admin4 tcp dport { 2222, 22 } counter accept" in text
        assert "ip daddr @admin4 tcp sport { 2222, 22 } accept" in text


@pytest.mark.parametrize("connection", [None, host.Connection("192.0.2.1", 2222), host.Connection("127.0.0.1", 22)])
def test_a_move_that_is_over_leaves_one_port(connection):
    moved = model({**GOOD, "ports": [{**SSH, "port": 2222}, HTTPS], "ssh_port": 2222})
    assert host.both_ports(moved, connection) == (moved, [])


def test_a_bridge_of_a_network_card_is_not_taken_for_containers(tmp_path):
    for bridge, member in (("br-lan", "eno1"), ("br-office", "bond0.7"), ("br-0123456789ab", "veth1"), ("bridge", "eno2")):
        (tmp_path / bridge / "brif" / member).mkdir(parents=True)
    for card in ("eno1", "eno2", "eno3"):
        (tmp_path / card / "device").mkdir(parents=True)
    for upper, lower in (("bond0.7", "bond0"), ("bond0", "eno3")):
        (tmp_path / upper).mkdir(exist_ok=True)
        (tmp_path / lower).mkdir(exist_ok=True)
        (tmp_path / upper / f"lower_{lower}").symlink_to(tmp_path / lower)
    (tmp_path / "veth1").mkdir()
    found = host.bridge_problems(model(GOOD), str(tmp_path))
    assert [text.split(", with")[0] for text in found] == [
        "firewall_container_interfaces: 'br-*' also means br-lan, a bridge of the network card eno1",
        "firewall_container_interfaces: 'br-*' also means br-office, a bridge of the network card eno3",
    ]
    assert all("write" in text for text in found)


def test_the_connection_is_found_behind_what_cleans_the_environment():
    code = f"import sys; sys.path[:0] = {sys.path!r}; from {host.__name__} import ssh_connection; print(ssh_connection())"
    shell = ["sh", "-c", 'env -u SSH_CONNECTION "$@"; true', "sh", sys.executable, "-c", code]
    with_it = {"PATH": "/usr/bin:/bin", "SSH_CONNECTION": "203.0.113.1 50000 192.0.2.1 2222"}
    done = subprocess.run(shell, env=with_it, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Connection(source='203.0.113.1', port=2222)", done.stderr


def test_patterns_of_interfaces():
    assert matches("br-*", "br-0123456789ab")
    assert not matches("br-*", "br0")
    assert matches("docker0", "docker0")
    assert not matches("docker0", "docker01")
    assert "lo" not in host.default_interfaces()


def test_ufw_and_the_packaged_service_are_found_when_they_act(tmp_path):
    (tmp_path / "etc/ufw").mkdir(parents=True)
    (tmp_path / "etc/systemd/system/sysinit.target.wants").mkdir(parents=True)
    (tmp_path / "etc/nftables.conf").write_text("#!/usr/sbin/nft -f\n\nflush ruleset\n")
    (tmp_path / "etc/ufw/ufw.conf").write_text("# comment\nENABLED=no\n")
    assert list(host._ufw(str(tmp_path))) + list(host._packaged_service(str(tmp_path))) == []
    (tmp_path / "etc/ufw/ufw.conf").write_text("# comment\nENABLED=yes\n")
    (tmp_path / "etc/systemd/system/sysinit.target.wants/nftables.service").symlink_to("/lib/systemd/system/nftables.service")
    assert ["ufw disable" in text for text in host._ufw(str(tmp_path))] == [True]
    assert ["without --now" in text for text in host._packaged_service(str(tmp_path))] == [True]
    (tmp_path / "etc/nftables.conf").write_text("include rules\n# flush ruleset\n")
    assert list(host._packaged_service(str(tmp_path))) == []


def test_tables_that_close_are_told_from_those_that_only_block_senders():
    def base(table, name, hook, policy, family="inet"):
        return {"family": family, "table": table, "name": name, "hook": hook, "policy": policy}

    mine = base("civitas", "input", "input", "drop")
    docker = base("filter", "FORWARD", "forward", "drop", "ip")
    fail2ban = base("f2b-table", "f2b-chain", "input", "accept")
    assert list(host._other_tables([mine, docker, fail2ban, {"family": "ip", "table": "filter", "name": "DOCKER"}])) == []
    (found,) = host._other_tables([base("filter", "INPUT", "input", "drop", "ip"), base("filter", "OUTPUT", "output", "drop", "ip")])
    assert "the nftables table ip filter drops in INPUT, OUTPUT" in found
    (found,) = host._other_tables([base("firewalld", "filter_INPUT", "input", "accept")])
    assert "firewalld is active" in found


@pytest.mark.parametrize(
    ("saved", "closing"),
    [
        (":INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n-A FORWARD -j DROP\n", ""),
        (":INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n", "INPUT"),
        (":INPUT ACCEPT [0:0]\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset\n-A OUTPUT -j DROP\n", "INPUT, OUTPUT"),
    ],
)
def test_what_the_old_iptables_closes_is_found(saved, closing):
    found = list(host._judge_legacy("", saved))
    assert [f"drop in {closing}," in text for text in found] == ([True] if closing else [])


def test_listings_are_compared_without_what_changes_by_itself():
    def listing(handle, comment, address):
        admin = ["192.0.2.1", {"prefix": {"addr": "10.0.0.0", "len": 8}}]
        return {
            "nftables": [
                {"metainfo": {"version": "1.1.3"}},
                {"set": {"name": "names", "handle": handle, "flags": ["dynamic", "timeout"], "elem": [{"elem": {"val": address}}]}},
                {"set": {"name": "admin4", "handle": handle, "flags": ["interval"], "elem": admin}},
                {"rule": {"chain": "input", "handle": handle, "comment": comment, "expr": [{"accept": None}]}},
            ]
        }

    assert entries(listing(1, "one", "192.0.2.1")) == entries(listing(2, "one", "192.0.2.2"))
    assert entries(listing(1, "one", "192.0.2.1")) != entries(listing(1, "two", "192.0.2.1"))
    other = json.loads(json.dumps(listing(1, "one", "192.0.2.1")).replace("10.0.0.0", "11.0.0.0"))
    assert entries(listing(1, "one", "192.0.2.1")) != entries(other)
    assert entries(None) == []


def test_ports_of_a_cluster_are_declared_and_are_no_surprise():
    (item,) = check_items("swarm", "ports", [{**port("gossip", 7946, "cluster"), "purpose": "Gossip"}])
    assert undeclared_sockets([Socket("tcp", "0.0.0.0", 7946, "")], [item]) == []


def test_a_run_refuses_before_it_looks_at_the_host():
    with pytest.raises(FirewallRefused) as refusal:
        run({**GOOD, "admin_networks": [], "peers": ["10.0.0.0/8"], "other_firewalls": "refuse", "revert_seconds": 90}, check_mode=False)
    lines = str(refusal.value).splitlines()
    assert lines[0] == "the firewall was left as it was:"
    assert ["firewall_admin_networks is empty" in lines[2], "firewall_peers[0]" in lines[1]] == [True, True]


def test_a_fresh_host_is_told_what_would_be_put_in_force():
    outcome = run({**GOOD, "other_firewalls": "accept", "revert_seconds": 90}, check_mode=True)
    assert outcome.changed
    assert outcome.diff == {"before": "", "after": rules_of(GOOD)}


def test_a_lock_that_is_held_is_waited_for_and_then_named(tmp_path, monkeypatch):
    directory = tmp_path / "civitas-firewall"
    monkeypatch.setattr(live, "_LOCK", str(directory / "lock"))
    with live.locked():
        assert directory.stat().st_mode & 0o777 == 0o700
        with (
            pytest.raises(live.FirewallError, match=r"another run has held the firewall for 0\.2 seconds.*fuser -v .*/lock"),
            live.locked(0.2),
        ):
            pass
    with live.locked(0.2):
        pass


def test_only_root_can_hold_the_lock():
    assert live._LOCK.startswith("/run/civitas-firewall/")


def test_a_lock_that_cannot_be_had_is_said_and_not_thrown(tmp_path, monkeypatch, capsys):
    (tmp_path / "civitas-firewall").write_text("")
    monkeypatch.setattr(live, "_LOCK", str(tmp_path / "civitas-firewall" / "lock"))
    assert live.main(["check"]) == 1
    assert "civitas-firewall" in capsys.readouterr().err
