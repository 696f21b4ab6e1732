# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of several possible issuers is tried first, and what is held against a path."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_facts import Link
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_paths import ANCHOR, OPEN, SELF_SIGNED, Bag, Path
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tests.unit.pki import DAY, NOW, Pair, issue, name, rsa_key, with_weak_digest

OTHER = x509.SubjectKeyIdentifier(b"another key's")


@pytest.fixture(name="issuers", scope="module")
def _issuers() -> dict[str, Link]:
    """Authorities of one name and key, so that each of them has signed the leaf."""
    root, key = issue("Root", ca=True, key=rsa_key()), rsa_key(2048, 1)

    def authority(issuer: Pair | None = root, days: int = 50, **change: object) -> Pair:
        arguments: dict[str, object] = {"subject": "Authority", "issuer": issuer, "key": key, "ca": True, "end": NOW + days * DAY, **change}
        return issue(**arguments)  # type: ignore[arg-type]

    found = {
        "trusted": authority(None, 10),
        "lasting": authority(days=90),
        "usual": authority(),
        "expired": authority(start=NOW - 90 * DAY, days=-1),
        "early": authority(start=NOW + DAY, days=45),
        "no authority": authority(ca=False, usages=["key_cert_sign"], days=40),
        "may not sign": authority(usages=["crl_sign"], days=39),
        "SHA-1": with_weak_digest(authority(days=38), root, hashes.SHA1()),
        "two faults": authority(ca=False, usages=["digital_signature"]),
        "without identifier": authority(without=[x509.SubjectKeyIdentifier], days=300),
        "another identifier": authority(replace=[(OTHER, False)], days=400),
        "another name": authority(subject="Anybody", days=500),
    }
    return {key_: Link(one.certificate) for key_, one in found.items()} | {
        "root": Link(root.certificate),
        "leaf": Link(issue("leaf", authority(), names=["leaf"]).certificate),
    }


def bag_of(issuers: dict[str, Link]) -> Bag:
    trusted = [issuers["trusted"], issuers["root"]]
    return Bag([one for one in issuers.values() if one not in trusted], trusted, NOW)


def test_the_likeliest_issuer_comes_first(issuers: dict[str, Link]) -> None:
    order = [next(which for which, one in issuers.items() if one == found) for found in bag_of(issuers)._issuers(issuers["leaf"])]
    assert order == [
        "trusted",
        *("another name", "lasting", "usual"),
        *("early", "no authority", "may not sign", "SHA-1", "expired"),
        "two faults",
        "without identifier",
        "another identifier",
    ]


@pytest.mark.parametrize(
    ("which", "cost"),
    [
        ("trusted", 0),
        ("lasting", 0),
        ("usual", 0),
        ("expired", 10),
        ("early", 10),
        ("no authority", 10),
        ("may not sign", 10),
        ("SHA-1", 10),
        ("two faults", 20),
        ("without identifier", 0),
        ("another identifier", 5),
        ("another name", 20),
    ],
)
def test_what_is_held_against_a_path(issuers: dict[str, Link], which: str, cost: int) -> None:
    trusted = issuers["trusted" if which == "trusted" else "root"]
    path = next(Bag([issuers["leaf"], issuers[which]], [trusted], NOW).paths(issuers["leaf"]))
    assert (path.end, path.broken, path.cost) == (ANCHOR, frozenset(), cost)
    assert issuers[which] in path.links


def test_all_ways_are_told_the_cheapest_first(issuers: dict[str, Link]) -> None:
    paths = list(bag_of(issuers).paths(issuers["leaf"]))
    assert [path.cost for path in paths] == sorted(path.cost for path in paths)
    complete = [path for path in paths if path.end == ANCHOR]
    assert len(complete) == len(issuers) - 2
    assert complete[0].links == (issuers["leaf"], issuers["trusted"])
    assert {path.end for path in paths} == {ANCHOR, OPEN}
    # Every way is told as one that ends too, and these come last, the longest of them first.
    assert [len(path.links) for path in paths if path.end == OPEN][-1] == 1


def test_where_the_way_ends() -> None:
    root = issue("Root", ca=True)
    upper = issue("Upper", root, ca=True)
    leaf = issue("leaf", upper, names=["leaf"])
    links = [Link(one.certificate) for one in (leaf, upper, root)]

    def ways(links_: list[Link]) -> list[tuple[str, int]]:
        return [(path.end, len(path.links)) for path in Bag(links_, [], NOW).paths(links[0])]

    assert ways(links) == [(SELF_SIGNED, 3), (OPEN, 2), (OPEN, 1)]
    assert ways(links[:2]) == [(OPEN, 2), (OPEN, 1)]
    assert ways(links[:1]) == [(OPEN, 1)]


def test_a_damaged_link_takes_the_blame_from_those_below() -> None:
    path = Path((), "", frozenset({0, 1, 3}), 0)
    assert path.damaged == {1, 3}


def test_a_name_is_compared_without_case_and_spaces() -> None:
    one, other = (Link(issue(name(text, organization="O"), names=["a"]).certificate) for text in ("Some  Authority ", "some authority"))
    assert one.subject == other.subject and one.exact_name("subject") != other.exact_name("subject")
    assert one != other and one == Link(one.certificate) and len({one, other, Link(one.certificate)}) == 2
