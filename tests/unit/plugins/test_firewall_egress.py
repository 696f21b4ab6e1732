# SPDX-License-Identifier: GPL-3.0-or-later
"""Destinations become sets, rules and lines of the resolver, and every mistake is named."""

from __future__ import annotations

import json

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _firewall_egress as egress
from ansible_collections.civitas.hosting.plugins.module_utils._declarations import DeclarationError, check_items
from hypothesis import given
from hypothesis import strategies as st

MIRROR = {
    "name": "packages",
    "hosts": ["deb.example.org"],
    "ports": [80],
    "protocol": "tcp",
    "from": "host",
    "purpose": "p",
    "role": "base",
}
MODEL = {
    "mode": "restricted",
    "destinations": [MIRROR],
    "resolvers": ["192.0.2.53"],
    "resolver_addresses": ["172.30.0.1"],
    "container_interfaces": ["docker0", "br-*"],
}


def rules(*changes, **more):
    return egress.egress_rules({**MODEL, "destinations": [{**MIRROR, **change} for change in changes or ({},)], **more})


def test_open_lets_everything_through_and_leads_nobody_anywhere():
    assert egress.egress_rules({"mode": "open", "destinations": []}) == egress.EgressRules([], [], [], ["accept"], ["accept"])


def test_who_may_decides_about_the_chain():
    accepted = "tcp dport { 80 } ip daddr @egress_%s_tcp_80_4 counter accept"
    for source, host, containers in (("host", True, False), ("containers", False, True), ("both", True, True)):
        found = rules({"from": source})
        assert ((accepted % source) in found.output, (accepted % source) in found.forward) == (host, containers), source


def test_networks_are_written_down_and_names_are_filled_for_a_time():
    found = rules({"hosts": ["192.0.2.0/24", "2001:db8::/32", "deb.example.org"]})
    assert [line.split()[1] for line in found.sets] == [f"egress_host_tcp_80_{end}" for end in ("net4", "4", "net6", "6")]
    assert "elements = { 192.0.2.0/24 };" in found.sets[0] and "timeout" not in found.sets[0]
    assert "timeout 3600s;" in found.sets[1] and "elements" not in found.sets[1]


def test_a_network_alone_has_no_set_for_names():
    assert [line.split()[1] for line in rules({"hosts": ["192.0.2.1"]}).sets] == ["egress_host_tcp_80_net4"]


def test_only_the_resolver_asks_name_servers_and_everybody_else_is_led_to_it():
    found = rules(resolvers=["192.0.2.53", "2001:db8::53"])
    asking = [line for line in found.output if "dport 53" in line]
    assert asking and all(line.startswith('meta skuid "dnsmasq"') for line in asking)
    chains = "\n".join(found.chains)
    assert 'meta skuid != "dnsmasq" ip daddr { 192.0.2.53 } udp dport 53 redirect to :10053' in chains
    assert 'meta skuid != "dnsmasq" ip6 daddr { 2001:db8::53 } tcp dport 53 redirect to :10053' in chains
    assert 'iifname "br-*" ip daddr { 192.0.2.53, 172.30.0.1 } udp dport 53 dnat ip to 172.30.0.1:10053' in chains
    assert 'iifname "docker0" ip daddr 172.30.0.1 udp dport 10053 accept' in found.input


def test_without_an_address_for_them_containers_are_led_nowhere():
    found = rules(resolver_addresses=[])
    assert found.input == [] and "prerouting" not in "".join(found.chains)


def test_only_conversations_without_connection_renew_their_address():
    assert not any("update" in line for line in rules().output)
    assert any("update @egress_host_udp_80_4 { ip daddr } counter accept" in line for line in rules({"protocol": "udp"}).output)


def test_a_ping_needs_no_port():
    found = rules({"protocol": "icmp", "ports": [], "hosts": ["198.51.100.9", "2001:db8::9", "far.example.org"]})
    assert [line for line in found.output if "echo-request" in line] == [
        "icmp type echo-request ip daddr @egress_host_icmp_net4 counter accept",
        "icmp type echo-request ip daddr @egress_host_icmp_4 counter accept",
        "icmpv6 type echo-request ip6 daddr @egress_host_icmp_net6 counter accept",
        "icmpv6 type echo-request ip6 daddr @egress_host_icmp_6 counter accept",
    ]
    pinged = {"name": "far", "role": "monitoring", "hosts": ["198.51.100.9"], "protocol": "icmp", "from": "host", "purpose": "Probes"}
    assert [row["ports"] for row in egress.egress_rows([pinged])] == [[]]


def test_the_order_of_declarations_means_nothing():
    other = {**MIRROR, "name": "other", "hosts": ["a.example.org"], "ports": ["443"]}
    assert egress.egress_rules({**MODEL, "destinations": [MIRROR, other]}) == egress.egress_rules(
        {**MODEL, "destinations": [other, MIRROR]}
    )


def test_many_ports_have_a_set_with_a_name_that_is_short_enough():
    (name,) = {line.split()[1] for line in rules({"hosts": ["192.0.2.1"], "ports": list(range(1000, 1100))}).sets}
    assert len(name) <= 64


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hosts": []}, "hosts is empty"),
        ({"hosts": "a.example.org"}, "hosts is empty"),
        ({"hosts": ["https://a.example.org"]}, "without https://"),
        ({"hosts": ["a.example.org:80"]}, "without protocol and port"),
        ({"hosts": ["a b"]}, "is not a host name"),
        ({"hosts": ["fe80::1%a;b"]}, "is not a host name"),
        ({"hosts": ["a.example.org\nserver=x"]}, "is not a host name"),
        ({"hosts": ["a.example.org\n"]}, "is not a host name"),
        ({"hosts": ["10.0.0.256"]}, "is not a host name"),
        ({"hosts": ["192.0.2.1/24"]}, "is not a network"),
        ({"hosts": ["0.0.0.0/0"]}, "whole internet"),
        ({"hosts": ["::/0"]}, "whole internet"),
        ({"hosts": ["*.org"]}, "top-level domain"),
        ({"hosts": ["a.*.org"]}, "is not a host name"),
        ({"hosts": [17]}, "put it in quotes"),
        ({"ports": []}, "ports is empty"),
        ({"ports": [0]}, "0 is not a port number"),
        ({"ports": ["https"]}, "is not a port number"),
        ({"protocol": "sctp"}, "none of tcp, udp and icmp"),
        ({"protocol": "icmp"}, "icmp knows no ports; remove them"),
        ({"from": "everybody"}, "none of host, containers, both"),
    ],
)
def test_a_mistake_is_named(change, named):
    with pytest.raises(egress.EgressError) as refused:
        rules(change)
    assert [problem for problem in refused.value.problems if named in problem], refused.value.problems


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"destinations": []}, "firewall_destinations is empty"),
        ({"resolvers": []}, "there is no name server"),
        ({"resolvers": ["dns.example.org"]}, "is not an address"),
        ({"resolvable": ["a/b"]}, "is not a name"),
    ],
)
def test_a_mistake_of_the_model_is_named(change, named):
    assert [problem for problem in egress.egress_problems({**MODEL, **change}) if named in problem]


def test_name_servers_that_are_still_to_be_found_are_no_problem_but_make_no_rules():
    unknown = {**MODEL, "resolvers": None}
    assert egress.egress_problems(unknown) == []
    with pytest.raises(egress.EgressError):
        egress.egress_rules(unknown)


def test_the_resolver_answers_declared_names_and_nothing_below_them():
    lines = egress.resolver_lines([MIRROR, {**MIRROR, "hosts": ["*.wild.test"]}], ["192.0.2.53", "192.0.2.54"])
    assert lines == [
        "address=/#/",
        "server=/*.wild.test/192.0.2.53",
        "server=/*.wild.test/192.0.2.54",
        "server=/deb.example.org/192.0.2.53",
        "server=/deb.example.org/192.0.2.54",
        "address=/*.deb.example.org/",
        "nftset=/deb.example.org/4#inet#civitas#egress_host_tcp_80_4,6#inet#civitas#egress_host_tcp_80_6",
        "nftset=/wild.test/4#inet#civitas#egress_host_tcp_80_4,6#inet#civitas#egress_host_tcp_80_6",
    ]


def test_a_name_under_a_wildcard_belongs_to_both():
    both = [{**MIRROR, "hosts": ["a.wild.test"]}, {**MIRROR, "hosts": ["*.wild.test"], "ports": [443]}]
    assert egress.name_sets(egress.grouped(both)) == {
        "*.wild.test": ["egress_host_tcp_443"],
        "a.wild.test": ["egress_host_tcp_443", "egress_host_tcp_80"],
    }


def test_without_sets_the_resolver_only_answers():
    assert not [line for line in egress.resolver_lines([MIRROR], ["192.0.2.53"], fill_sets=False) if line.startswith("nftset")]


def test_names_can_be_resolved_without_being_reached():
    lines = egress.resolver_lines([MIRROR], ["192.0.2.53"], ["site.test"])
    assert "server=/site.test/192.0.2.53" in lines and not [line for line in lines if line.startswith("nftset=/site.test/")]
    assert egress.resolver_lines([MIRROR], ["192.0.2.53"], ["*"])[0] == "server=192.0.2.53"


@pytest.mark.parametrize(
    ("host", "port", "covered"),
    [
        ("deb.example.org", 80, True),
        ("DEB.example.org.", 80, True),
        ("deb.example.org", 443, False),
        ("sub.deb.example.org", 80, False),
        ("a.wild.test", 80, True),
        ("wild.test", 80, False),
        ("notwild.test", 80, False),
        ("192.0.2.77", 80, True),
        ("192.0.3.77", 80, False),
        ("2001:db8::1", 80, False),
    ],
)
def test_what_is_covered(host, port, covered):
    declared = [{**MIRROR, "hosts": ["deb.example.org", "*.wild.test", "192.0.2.0/24"]}]
    assert egress.covers(declared, host, port) is covered


def test_addresses_are_carried_over_to_sets_that_stay():
    elements = [{"elem": {"val": "192.0.2.1", "expires": 100}}, {"elem": {"val": "192.0.2.2", "expires": 0}}]
    common = {"family": "inet", "table": "civitas", "elem": elements}
    listing = {"nftables": [{"metainfo": {}}, {"set": {**common, "name": "egress_host_tcp_80_4"}}, {"set": {**common, "name": "gone"}}]}
    assert egress.kept_elements(listing, rules()) == ["add element inet civitas egress_host_tcp_80_4 { 192.0.2.1 expires 100s }"]
    assert egress.kept_elements({}, rules()) == []


def test_urls_and_images_are_declarations_too():
    item = {"name": "n", "from": "host", "purpose": "p"}
    declared = check_items("r", "destinations", [{**item, "urls": ["https://a.example.org/x", "http://b.example.org:8080", ""]}])
    assert [(each["hosts"], each["ports"], each["protocol"]) for each in declared] == [
        (["a.example.org"], [443], "tcp"),
        (["b.example.org"], [8080], "tcp"),
    ]
    assert check_items("r", "destinations", [{**item, "urls": []}, {**item, "images": [""]}]) == []
    pulled = check_items(
        "r", "destinations", [{**item, "images": ["registry.example.org:5000/a/b:1", "postgres:17", "ghcr.io/a/b@sha256:0"]}]
    )
    hosts = {(host, each["ports"][0]) for each in pulled for host in each["hosts"]}
    assert {("registry.example.org", 5000), ("registry-1.docker.io", 443), ("ghcr.io", 443)} <= hosts
    assert not {host for host, _port in hosts} & {"postgres", "docker.io"}


def test_a_bad_url_is_named_without_its_password():
    with pytest.raises(DeclarationError, match="role r: destination 'n': not a URL") as refused:
        check_items("r", "destinations", [{"name": "n", "from": "host", "purpose": "p", "urls": ["gopher://user:" + "hush@x"]}])
    assert "hush" not in str(refused.value)


def test_a_declaration_is_judged():
    with pytest.raises(DeclarationError, match="role r: destination 'packages': 0 is not a port number"):
        check_items("r", "destinations", [{**MIRROR, "ports": [0]}])


def test_what_is_to_be_found_must_be_found_before_there_are_rules():
    wanted = {"name": "packages", "found": "package_sources", "from": "host", "purpose": "p", "role": "base"}
    assert egress.egress_problems({**MODEL, "destinations": [wanted]}) == []
    assert check_items("base", "destinations", [{**wanted}]) == [wanted]
    with pytest.raises(egress.EgressError, match="was not looked for"):
        egress.egress_rules({**MODEL, "destinations": [wanted]})
    with pytest.raises(DeclarationError, match="found is package_sources"):
        check_items("r", "destinations", [{**wanted, "found": "treasure"}])


def test_the_list_for_people_has_every_host_once():
    rows = egress.egress_rows([MIRROR, MIRROR, {**MIRROR, "hosts": ["a.example.org"], "ports": ["443", 80]}], ["192.0.2.53"])
    assert [(row["host"], row["ports"], row["protocol"]) for row in rows] == [
        ("192.0.2.53", [53], "tcp"),
        ("192.0.2.53", [53], "udp"),
        ("a.example.org", [80, 443], "tcp"),
        ("deb.example.org", [80], "tcp"),
    ]
    lines = egress.egress_text(rows).splitlines()
    assert lines[0].split() == ["HOST", "PORT", "PROTOCOL", "FROM", "ROLE", "PURPOSE"]
    assert lines[3].split() == ["a.example.org", "80,443", "tcp", "host", "base", "p"]
    json.dumps(rows)


@given(st.text(max_size=40))
def test_no_text_gets_into_a_line_unless_it_is_a_host(text):
    """What is accepted cannot end a word of nftables or of dnsmasq."""
    if not egress.destination_problems({**MIRROR, "hosts": [text]}):
        assert not set(text) & set(" \t\r\n{}\";#,'$@")
