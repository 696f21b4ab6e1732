# SPDX-License-Identifier: GPL-3.0-or-later
"""Host names as people write them, and as certificates hold them."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_names import (
    address,
    covers,
    is_address,
    mismatch,
    normal,
    touches,
    within,
)
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.pki import NOW, issue


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("www.example.org", "www.example.org"),
        (" WWW.Example.ORG. ", "www.example.org"),
        ("*.example.org", "*.example.org"),
        ("localhost", "localhost"),
        ("m\u00fcnchen.example", "xn--mnchen-3ya.example"),
        ("\u65e5\u672c.example", "xn--wgv71a.example"),
        ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("[::1]", "::1"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("a." * 126 + "b", "a." * 126 + "b"),
    ],
)
def test_a_host_has_one_form(written: str, meant: str) -> None:
    assert normal(written) == meant == normal(meant)


@pytest.mark.parametrize(
    "written",
    ["", ".", "*", "*.", "a..b", "-a.example", "a-.example", "a_b.example", "www.example.org:443", "https://www.example.org", "a b",
     "*.*.example", "w*.example", "a" * 64, "a." * 127 + "b", "192.0.2.0/24", "[a.example", "[::1"],
)  # fmt: skip
def test_what_is_no_host_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"write www\.example\.org"):
        normal(written)


@pytest.mark.parametrize("written", ["stra\u00dfe.example", "\u03c2.example", "a\u200db.example", "\u00e4" * 80 + ".example"])
def test_a_name_that_programs_encode_differently_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="xn--"):
        normal(written)


def test_addresses_are_told_from_names() -> None:
    assert is_address("192.0.2.1") and is_address("::1") and not is_address("a.example")
    assert str(address("::1")) == "::1"


@pytest.mark.parametrize(
    ("host", "names", "code"),
    [
        ("a.example.org", ["b.example.org", "a.example.org"], ""),
        ("a.example.org", ["*.example.org"], ""),
        ("*.example.org", ["*.example.org"], ""),
        ("*.example.org", ["a.example.org"], "name_mismatch"),
        ("*.a.example.org", ["*.example.org"], "wildcard_too_shallow"),
        ("a.b.example.org", ["*.example.org"], "wildcard_too_shallow"),
        ("example.org", ["*.example.org"], "wildcard_for_apex"),
        ("example.org", ["*.org"], ""),
        ("badexample.org", ["*.example.org"], "name_mismatch"),
        ("192.0.2.1", ["*.0.2.1"], "name_mismatch"),
        ("a.example.org", [], "name_mismatch"),
    ],
)
def test_why_a_host_is_not_covered(host: str, names: list[str], code: str) -> None:
    found, why = mismatch(host, names)
    assert found == code
    assert bool(why) == bool(code)
    assert any(covers(one, host) for one in names) == (not code)


def test_a_long_list_is_cut() -> None:
    names = [f"a{number}.example" for number in range(9)]
    assert mismatch("x.example", names)[1].endswith("a4.example and 4 more")
    assert mismatch("x.example", names[:5])[1].endswith("a4.example")


@pytest.mark.parametrize(
    ("name", "domain", "inside", "touched"),
    [
        ("a.example.org", "example.org", True, True),
        ("example.org", "example.org", True, True),
        ("badexample.org", "example.org", False, False),
        ("example.org", "a.example.org", False, False),
        ("*.example.org", "example.org", True, True),
        ("*.example.org", "a.example.org", False, True),
        ("*.example.org", "b.a.example.org", False, False),
        ("anything", "", True, True),
    ],
)
def test_domains_of_constraints(name: str, domain: str, inside: bool, touched: bool) -> None:
    assert (within(name, domain), touches(name, domain)) == (inside, touched)


LABELS = st.sampled_from(["a", "b", "*", "example", "org"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@settings(deadline=None, max_examples=150)
@given(NAMES, NAMES)
def test_the_verifier_agrees(pattern: str, host: str) -> None:
    """Whether a name in a certificate is for a host, judged by the library."""
    if "*" in host:
        return
    pair = issue("x", names=[pattern], ca=False)
    verifier = PolicyBuilder().store(Store([pair.certificate])).time(NOW).build_server_verifier(x509.DNSName(host))
    try:
        verifier.verify(pair.certificate, [])
        agreed = True
    except VerificationError:
        agreed = False
    try:
        ours = covers(normal(pattern), host)
    except ValueError:
        ours = False
    assert ours == agreed
