# SPDX-License-Identifier: GPL-3.0-or-later
"""SPF as receivers evaluate it, against a real name server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns, Unanswered
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_spf import Invalid, check, cost, evaluate, records
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import dns_server

ZONE = """
example.org. IN A 203.0.113.1
example.org. IN MX 10 mx.example.org.
mx.example.org. IN A 203.0.113.80
net.example.org. IN TXT "v=spf1 ip4:198.51.100.0/24 -all"
anybody.example.org. IN TXT "v=spf1 +all"
onward.example.org. IN TXT "v=spf1 redirect=net.example.org"
round.example.org. IN TXT "v=spf1 redirect=round.example.org"
soft.example.org. IN TXT "v=spf1 ip4:198.51.100.7 ~all"
two.example.org. IN TXT "v=spf1 -all"
two.example.org. IN TXT "v=spf1 ~all"
25.113.0.203.allowed.example.org. IN A 127.0.0.2
25.113.0.203.in-addr.arpa. IN PTR mail.example.org.
mail.example.org. IN A 203.0.113.25
odd.example.org. IN TXT "v=spf10 -all"
odd.example.org. IN TXT "V=SPF1 -ALL"
"""


@pytest.fixture(scope="module", name="dns")
def _dns() -> Iterator[Dns]:
    with dns_server.serving(ZONE, servfail={"broken.example.org"}) as server:
        yield Dns([server])


@pytest.mark.parametrize(
    ("record", "address", "result"),
    [
        ("v=spf1 ip4:203.0.113.25 -all", "203.0.113.25", "pass"),
        ("v=spf1 ip4:203.0.113.0/24 -all", "203.0.113.25", "pass"),
        ("v=spf1 ip4:203.0.113.24 ~all", "203.0.113.25", "softfail"),
        ("v=spf1 -ip4:203.0.113.0/24 +all", "203.0.113.25", "fail"),
        ("v=spf1 ip6:2001:db8::/32 -all", "2001:db8::25", "pass"),
        ("v=spf1 ip4:203.0.113.25 -all", "2001:db8::25", "fail"),
        ("v=spf1 a -all", "203.0.113.1", "pass"),
        ("v=spf1 a/24 -all", "203.0.113.25", "pass"),
        ("v=spf1 mx -all", "203.0.113.80", "pass"),
        ("v=spf1 include:net.example.org ?all", "198.51.100.9", "pass"),
        ("v=spf1 include:net.example.org ?all", "203.0.113.25", "neutral"),
        ("v=spf1 redirect=onward.example.org", "198.51.100.9", "pass"),
        ("v=spf1 redirect=onward.example.org", "203.0.113.25", "fail"),
        ("v=spf1 exists:%{i}.nobody.example.org -all", "203.0.113.25", "fail"),
        ("v=spf1 exists:%{ir}.allowed.example.org -all", "203.0.113.25", "pass"),
        ("v=spf1 ptr:example.org -all", "203.0.113.25", "pass"),
        ("v=spf1 moo.example=1 ip4:203.0.113.25 -all", "203.0.113.25", "pass"),
        ("v=spf1", "203.0.113.25", "neutral"),
    ],
)
def test_what_receivers_get(dns: Dns, record: str, address: str, result: str) -> None:
    assert evaluate(dns, record, "example.org", address) == result


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 ip4:203.0.113.256 -all",
        "v=spf1 ip4:203.0.113.0/33 -all",
        "v=spf1 ip6:203.0.113.0 -all",
        "v=spf1 include: -all",
        "v=spf1 include:nothing.example.org -all",
        "v=spf1 include:two.example.org -all",
        "v=spf1 redirect=nothing.example.org",
        "v=spf1 redirect=net.example.org redirect=net.example.org",
        "v=spf1 redirect=round.example.org",
        "v=spf1 a:%{z}.example.org -all",
        "v=spf1 all:all -all",
        "v=spf1 \u00e4 -all",
    ],
)
def test_what_receivers_cannot_evaluate(dns: Dns, record: str) -> None:
    with pytest.raises(Invalid):
        cost(dns, record, "example.org")


def test_a_failing_server_is_no_result(dns: Dns) -> None:
    for term in ("include:broken.example.org", "a:broken.example.org", "mx:broken.example.org", "exists:broken.example.org"):
        for action in (lambda text: cost(dns, text, "example.org"), lambda text: evaluate(dns, text, "example.org", "203.0.113.25")):
            with pytest.raises(Unanswered, match="SERVFAIL"):
                action(f"v=spf1 {term} -all")


@pytest.mark.parametrize(
    ("record", "lookups", "void"),
    [
        ("v=spf1 ip4:203.0.113.25 -all", 0, 0),
        # What matches does not end the count.
        ("v=spf1 a mx include:net.example.org -all", 3, 0),
        ("v=spf1 include:onward.example.org -all", 2, 0),
        ("v=spf1 a:no.example.org include:soft.example.org exists:no.example.org ~all", 3, 2),
        ("v=spf1 ptr -all", 1, 0),
        ("v=spf1 redirect=onward.example.org", 2, 0),
    ],
)
def test_the_look_ups_are_counted(dns: Dns, record: str, lookups: int, void: int) -> None:
    found = cost(dns, record, "example.org", "203.0.113.1")
    assert (found.lookups, len(found.void)) == (lookups, void)


def test_only_exact_versions_are_records(dns: Dns) -> None:
    assert records(dns, "odd.example.org") == ["V=SPF1 -ALL"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=spf1 redirect=net.example.org", ""),
        ("v=spf1 redirect=anybody.example.org", "error"),
        ("v=spf1 redirect=%{d}.example.org", ""),
        ("V=SPF1 -ALL", ""),
    ],
)
def test_the_end_of_a_record_may_be_elsewhere(record: str, expected: str) -> None:
    with dns_server.serving(f'{ZONE}\nhere.example.org. IN TXT "{record}"\nhere.example.org.example.org. IN TXT "v=spf1 -all"') as server:
        found = check(Dns([server]), "here.example.org", ["198.51.100.9"])
    assert [one.severity for one in found if one.id == "spf.all"] == [expected or "none"]


@settings(max_examples=150, deadline=None)
@given(
    terms=st.lists(
        st.one_of(st.text(max_size=12), st.sampled_from(["a:", "mx/", "ip4:", "ip6:", "include:", "exists:%{", "redirect=", "exp=", "all"]))
    )
)
def test_no_record_makes_it_break(dns: Dns, terms: list[str]) -> None:
    record = "v=spf1 " + "".join(f"{one} " if len(one) % 2 else one for one in terms)
    try:
        cost(dns, record, "example.org")
        evaluate(dns, record, "example.org", "203.0.113.25")
    except (Invalid, Unanswered):
        pass
