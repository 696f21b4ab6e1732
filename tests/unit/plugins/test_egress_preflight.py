# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host asks and fetches already, from the files of such hosts."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _egress_preflight as preflight
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import EgressError

MIRROR = {"name": "packages", "hosts": ["deb.example.org"], "ports": [80], "protocol": "tcp", "from": "host", "purpose": "p"}


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Writes files of a host; apt has the proxies that are set."""
    proxies: dict[str, str] = {}
    monkeypatch.setattr(preflight, "_proxies", lambda: proxies)

    def write(**files):
        for name, text in files.items():
            path = tmp_path / {"sources": "etc/apt/sources.list.d/x.sources", "list": "etc/apt/sources.list",
                               "other": "etc/apt/sources.list.d/x.sources.save", "resolv": "etc/resolv.conf",
                               "resolved": "run/systemd/resolve/resolv.conf"}[name]  # fmt: skip
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path)

    write.proxies = proxies
    return write


def test_name_servers_are_those_that_are_asked(host):
    assert preflight.name_servers(host(resolv="# x\nsearch a\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\n")) == [
        "192.0.2.1"
    ]


def test_behind_systemd_resolved_are_the_real_ones(host):
    root = host(resolv="nameserver 127.0.0.53\noptions edns0\n", resolved="nameserver 192.0.2.1\nnameserver 2001:db8::1\n")
    assert preflight.name_servers(root) == ["192.0.2.1", "2001:db8::1"]


@pytest.mark.parametrize(("text", "named"), [("nameserver 127.0.0.1\n", "of its own"), ("", "names no name server")])
def test_a_host_without_name_servers_is_told_what_to_write(host, text, named):
    with pytest.raises(EgressError, match=f"{named}.*set firewall_resolvers"):
        preflight.name_servers(host(resolv=text))


def test_sources_are_found_in_both_forms(host):
    root = host(
        list="# deb http://old.example.org x main\ndeb [arch=amd64] http://deb.example.org/debian trixie main\n"
        "deb-src http://src.example.org/ trixie main\ndeb cdrom:[x]/ trixie main\n",
        sources="Types: deb\nURIs: https://a.example.org:8443/debian\n http://b.example.org/\nSuites: x\n\n"
        "Enabled: no\nURIs: http://off.example.org\n\n#URIs: http://comment.example.org\nURIs: mirror+https://c.example.org/m\n",
        other="URIs: http://ignored.example.org\n",
    )
    assert {(source.host, source.port) for source in preflight.package_sources(root)} == {
        ("deb.example.org", 80),
        ("a.example.org", 8443),
        ("b.example.org", 80),
        ("c.example.org", 443),
    }


def test_behind_a_proxy_only_the_proxy_is_reached(host):
    host.proxies.update(http="http://proxy.example.org:3142")
    root = host(list="deb http://deb.example.org/ x main\ndeb https://sec.example.org/ x main\n")
    assert {(source.host, source.port) for source in preflight.package_sources(root)} == {
        ("proxy.example.org", 3142),
        ("sec.example.org", 443),
    }


def test_what_is_not_declared_is_named_with_what_to_write():
    good, bad = preflight.Source("deb.example.org", 80, "/etc/apt/x"), preflight.Source("other.invalid", 80, "/etc/apt/y")
    (problem,) = preflight.undeclared([good, bad], [MIRROR])
    assert "other.invalid, port 80 (/etc/apt/y)" in problem and "base_package_hosts" in problem


def test_a_name_that_stands_for_declared_addresses_is_declared():
    source = preflight.Source("localhost", 80, "/etc/apt/x")
    declared = [{**MIRROR, "hosts": ["127.0.0.0/8", "::1"]}]
    assert preflight.undeclared([source], declared) == []
    assert preflight.undeclared([source], [{**MIRROR, "hosts": ["192.0.2.0/24"]}])


def test_package_sources_take_the_place_of_what_is_to_be_found(monkeypatch):
    known = {"deb.example.org": ["192.0.2.1"], "localhost": []}
    monkeypatch.setattr(preflight, "ask", lambda name, family, server: known[name] if family == 4 else [])
    sources = [preflight.Source("deb.example.org", 80, "a"), preflight.Source("localhost", 3142, "b")]
    wanted = {"name": "packages", "found": "package_sources", "from": "host", "purpose": "p", "role": "base"}
    found = preflight.with_found([wanted, MIRROR], sources, ["192.0.2.53"])
    assert (found[0]["hosts"], found[0]["ports"]) == (["deb.example.org"], [80])
    # The name servers do not know it, the host does.
    assert "127.0.0.1" in found[1]["hosts"] and "localhost" not in found[1]["hosts"]
    assert found[-1] == MIRROR
    assert preflight.undeclared(sources, found) == []


def test_when_no_name_server_answers_names_stay_names(monkeypatch):
    def silent(*_words):
        raise OSError("nobody")

    monkeypatch.setattr(preflight, "ask", silent)
    wanted = {"name": "packages", "found": "package_sources", "from": "host", "purpose": "p"}
    (found,) = preflight.with_found([wanted], [preflight.Source("localhost", 80, "a")], ["192.0.2.53"])
    assert found["hosts"] == ["localhost"] and "found" not in found
