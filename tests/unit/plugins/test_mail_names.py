# SPDX-License-Identifier: GPL-3.0-or-later
"""Reverse names and return addresses, asked of a real name server."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns, reverse_name
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_names import check_address, check_return, exists, is_generic

from tests.unit import dns_server

HOST = "smtp.example.org. IN A 203.0.113.25\nsmtp.example.org. IN AAAA 2001:db8::25"


def wrong(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(one.id, one.severity) for one in findings if not one.ok]


def of_address(address: str, zone: str, **faults: set[str]) -> list[tuple[str, str]]:
    with dns_server.serving(f"{HOST}\n{zone}", **faults) as server:
        return wrong(check_address(Dns([server]), address))


def of_return(zone: str, **faults: set[str]) -> list[tuple[str, str]]:
    with dns_server.serving(f"{HOST}\n{zone}", **faults) as server:
        return wrong(check_return(Dns([server]), "example.org"))


@pytest.mark.parametrize("address", ["203.0.113.25", "2001:db8::25", "2001:0DB8:0::25"])
def test_reverse_names(address: str) -> None:
    reverse = reverse_name(address)
    assert of_address(address, f"{reverse}. IN PTR smtp.example.org.") == []
    assert of_address(address, f"{reverse}. IN PTR other.example.org.\n{reverse}. IN PTR smtp.example.org.") == []
    assert of_address(address, f"{reverse}. IN PTR other.example.org.") == [("ptr.confirmed", "error")]
    assert of_address(address, "") == [("ptr.record", "error")]
    assert of_address(address, "", servfail={reverse}) == [("ptr.record", "unknown")]
    zone = f"{reverse}. IN PTR smtp.example.org."
    assert of_address(address, zone, servfail={"smtp.example.org"}) == [("ptr.confirmed", "unknown")]
    generic = f"{reverse}. IN PTR pool-9.example.net.\npool-9.example.net. IN {'AAAA' if ':' in address else 'A'} {address}"
    assert of_address(address, generic) == [("ptr.generic", "warning")]


@pytest.mark.parametrize("address", ["10.0.0.5", "192.168.1.1", "172.31.0.1", "100.64.0.1", "127.0.0.1", "::1", "fd00::1", "fe80::1"])
def test_addresses_that_nobody_outside_sees(address: str) -> None:
    assert of_address(address, "") == [("address.public", "error")]


@pytest.mark.parametrize(
    "name",
    [
        "203-0-113-25.example.net",
        "25.113.0.203.example.net",
        "host-203-000-113-025.example.net",
        "customer.113.0.203.example.net",
        "cb007119.example.net",
        "x-dynamic-9.example.net",
        "adsl-9.example.net",
        "dhcp.example.net",
        "static.9.example.net",
        "ip-9.example.net",
    ],
)
def test_names_that_a_provider_made(name: str) -> None:
    assert is_generic(name, "203.0.113.25")


@pytest.mark.parametrize(
    "name",
    ["smtp.example.org", "mail25.example.org", "mx1-2-3.example.org", "carpool.example.org", "dynamics.example.org", "ipswich.example.org"],
)
def test_names_of_ones_own(name: str) -> None:
    assert not is_generic(name, "203.0.113.25")
    assert not is_generic(name, "2001:db8::25")


def test_generic_names_of_ipv6() -> None:
    assert is_generic("2001-db8-0-0-0-0-1234-5678.example.net", "2001:db8::1234:5678")
    assert not is_generic("smtp.example.net", "2001:db8::1234:5678")


def test_return_addresses() -> None:
    assert of_return("example.org. IN MX 10 smtp.example.org.") == []
    assert of_return("") == [("mx.record", "error")]
    assert of_return("example.org. IN A 203.0.113.25") == [("mx.record", "warning")]
    assert of_return("example.org. IN MX 0 .") == [("mx.record", "error")]
    assert of_return("example.org. IN MX 10 no.example.org.") == [("mx.address", "error")]
    assert of_return("example.org. IN MX 10 a.example.org.\na.example.org. IN CNAME smtp.example.org.") == [("mx.address", "warning")]
    assert of_return("example.org. IN MX 10 smtp.example.org.", servfail={"smtp.example.org"}) == [("mx.address", "unknown")]
    assert of_return("", servfail={"example.org"}) == [("mx.record", "unknown")]


def test_domains() -> None:
    with dns_server.serving(HOST, servfail={"broken.example"}) as server:
        dns = Dns([server])
        assert wrong([exists(dns, "example.org")]) == []
        assert wrong([exists(dns, "example.net")]) == [("domain.exists", "error")]
        assert wrong([exists(dns, "broken.example")]) == [("domain.exists", "unknown")]
