# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers, none, and nobody who answers: three different things, each asked of a real server."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Answer, Dns, Unanswered, reverse_name

from tests.unit import dns_server

ZONE = """
example.org. IN TXT "v=spf1 " "-all"
example.org. IN MX 10 mx.example.org.
mx.example.org. IN A 203.0.113.80
mx.example.org. IN AAAA 2001:db8::80
alias.example.org. IN CNAME mx.example.org.
80.113.0.203.in-addr.arpa. IN PTR mx.example.org.
"""


def test_what_there_is_and_what_there_is_not() -> None:
    with dns_server.serving(ZONE) as server:
        dns = Dns([server])
        assert dns.ask("Example.ORG.", "TXT") == Answer(True, (b"v=spf1 -all",))
        assert dns.text("example.org") == ["v=spf1 -all"]
        assert dns.ask("example.org", "MX").values == ((10, "mx.example.org"),)
        assert dns.ask("example.org", "A") == Answer(True, ())
        assert dns.ask("no.example.org", "A") == Answer(False, ())
        assert dns.ask("alias.example.org", "A") == Answer(True, ("203.0.113.80",), alias=True)
        assert dns.addresses("mx.example.org") == ["203.0.113.80", "2001:db8::80"]
        assert dns.ask(reverse_name("203.0.113.80"), "PTR").values == ("mx.example.org",)
        # No question can be made of these.
        assert dns.ask("a" * 64 + ".example.org", "A") == dns.ask("a..example.org", "A") == Answer(False)


def test_a_cut_off_answer_is_asked_for_by_tcp() -> None:
    long = " ".join(f'"{letter * 200}"' for letter in "abcd")
    seen: list[tuple[str, str, str]] = []
    with dns_server.serving(f"example.org. IN TXT {long}", seen=seen) as server:
        (text,) = Dns([server]).text("example.org")
    assert len(text) == 800
    assert [protocol for protocol, _kind, _name in seen] == ["udp", "tcp"]


def test_each_question_is_asked_once_also_when_it_failed() -> None:
    seen: list[tuple[str, str, str]] = []
    with dns_server.serving(ZONE, servfail={"broken.example.org"}, seen=seen) as server:
        dns = Dns([server])
        for _time in range(3):
            dns.ask("example.org", "TXT")
            with pytest.raises(Unanswered, match=rf"^A of broken.example.org: {server.partition(':')[0]}.* says SERVFAIL$"):
                dns.ask("broken.example.org", "A")
    assert len(seen) == 2


def test_silence_and_a_closed_port_are_no_missing_record() -> None:
    with dns_server.serving(ZONE, silent={"example.org"}) as server, pytest.raises(Unanswered, match="no answer within"):
        Dns([server], timeout=0.3).ask("example.org", "TXT")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unanswered):
        Dns([f"127.0.0.1:{port}"], timeout=0.3).ask("example.org", "TXT")


def test_the_second_server_answers_for_one_that_fails() -> None:
    with dns_server.serving(ZONE, servfail={"example.org"}) as broken, dns_server.serving(ZONE) as good:
        assert Dns([broken, good]).text("example.org") == ["v=spf1 -all"]


@pytest.mark.parametrize("text", ["", "ns.example.org", "127.0.0.1:0", "127.0.0.1:99999", "::1:53x", "[::1]", "1.2.3"])
def test_what_is_no_name_server_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 192\.0\.2\.53"):
        Dns([text])


@pytest.mark.parametrize("text", ["192.0.2.53", "2001:db8::53", "[2001:db8::53]:5353", "192.0.2.53:5353"])
def test_ways_to_write_a_name_server(text: str) -> None:
    Dns([text])


def test_reverse_names() -> None:
    assert reverse_name("203.0.113.25") == "25.113.0.203.in-addr.arpa"
    assert reverse_name("2001:db8::1").endswith("8.b.d.0.1.0.0.2.ip6.arpa")
