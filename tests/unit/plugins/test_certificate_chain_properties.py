# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all bags of certificates: order does not matter, no change goes through, and no bag keeps the judge busy."""

from __future__ import annotations

import functools
import heapq
import ipaddress
import itertools
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_paths as certificate_paths
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_rules as certificate_rules
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_chain import judge
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_facts import Link, signature_holds
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.pki import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Pair,
    Pki,
    constraints,
    ec_key,
    flipped,
    issue,
    name,
    pem,
    revocation_list,
    rsa_key,
    usual,
)

WWW = "www.example.org"
SLOW = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.cache
def good_bags() -> dict[str, tuple[list[Pair], Pair, list[Pair]]]:
    """All certificates but the root, the root, and the chain that must come out."""
    pki = usual()
    usual_bag = [pki.leaf, pki.intermediate]

    old, new = issue("Old Root", ca=True), issue("New Root", ca=True)
    bridge = issue("New Root", old, ca=True, key=new.key, end=NOW - DAY / 2)
    authority = issue("Intermediate", new, ca=True)
    bottom = issue(WWW, authority, names=[WWW])
    crossed = [bottom, authority, bridge]

    root = issue("Root", ca=True)
    first = issue("First", root, ca=True)
    second = issue("Second", first, ca=True)
    twins = [issue("First", root, ca=True, key=first.key, end=NOW + days * DAY) for days in (30, 60)]
    ring = [issue(WWW, second, names=[WWW]), second, first, issue("First", second, ca=True, key=first.key), *twins]
    # All three are good; the one that lasts longest is taken.
    return {
        "usual": (usual_bag, pki.root, usual_bag),
        "cross-signed": (crossed, new, crossed[:2]),
        "ring with twins": (ring, root, ring[:3]),
    }


@SLOW
@given(st.sampled_from(["usual", "cross-signed", "ring with twins"]), st.randoms(use_true_random=False), st.booleans(), st.integers(0, 3))
def test_any_order_and_any_company_give_the_same_chain(which: str, shuffle: random.Random, with_root: bool, doubles: int) -> None:
    bag, root, chain = good_bags()[which]
    others = [issue("Stranger", ca=True), issue("Other", ca=True)]
    mixed = [*bag, *others, *([root] if with_root else []), *(shuffle.choice(bag) for _number in range(doubles))]
    trust = [root, issue("Root", ca=True)]
    shuffle.shuffle(mixed)
    shuffle.shuffle(trust)
    verdict = judge([one.certificate for one in mixed], [one.certificate for one in trust], hostnames=[WWW])
    assert verdict.problems == []
    assert pem(*verdict.chain) == pem(*(one.certificate for one in chain))


# --- no change goes through -------------------------------------------------------------------------------------------------------------


@functools.cache
def changed_pki(kind: str) -> Pki:
    if kind == "ec":
        return usual()
    root = issue("Root", ca=True, key=rsa_key())
    intermediate = issue("Intermediate", root, ca=True, key=rsa_key(2048, 1), pss=True)
    return Pki(root, intermediate, issue(WWW, intermediate, names=[WWW], key=rsa_key(2048, 2), pss=True))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("which", ["leaf", "intermediate"])
@pytest.mark.parametrize(("kind", "step"), [("ec", 7), ("rsa", 21)])
def test_no_bit_of_a_link_can_be_turned_over(kind: str, step: int, which: str) -> None:
    """A step that has no divisor in common with eight comes to each bit of a byte; each run begins at another one."""
    pki = changed_pki(kind)
    pair = getattr(pki, which)
    good, kept = pki.certificates, [one for one in pki.certificates if one != pair.certificate]
    assert judge(good, [pki.root.certificate], hostnames=[WWW]).problems == []
    refused = 0
    for bit in range(random.randrange(step), len(pair.der) * 8, step):
        try:
            changed = x509.load_der_x509_certificate(flipped(pair.der, bit))
        except (ValueError, x509.InvalidVersion):
            refused += 1
            continue
        problems = judge([changed, *kept], [pki.root.certificate], hostnames=[WWW]).problems
        assert problems, f"bit {bit} of {pair.der.hex()}"
        refused += 1
    assert refused >= len(pair.der) * 8 // step


def test_a_changed_root_beside_the_chain_changes_nothing() -> None:
    pki = changed_pki("ec")
    for bit in range(0, len(pki.root.der) * 8, 97):
        try:
            changed = x509.load_der_x509_certificate(flipped(pki.root.der, bit))
        except (ValueError, x509.InvalidVersion):
            continue
        verdict = judge([changed, *pki.certificates], [pki.root.certificate], hostnames=[WWW], public_key=pki.leaf.key.public_key())
        assert (verdict.problems, pem(*verdict.chain)) == ([], pki.chain_pem)


@SLOW
@given(st.integers(1, 7), st.data())
def test_no_link_can_be_left_out_or_be_replaced(length: int, data: st.DataObject) -> None:
    authorities = [issue("Root", ca=True)]
    for number in range(length):
        authorities.append(issue(f"Authority {number}", authorities[-1], ca=True))
    chain = [issue(WWW, authorities[-1], names=[WWW]), *authorities[:0:-1]]
    root, key = authorities[0].certificate, chain[0].key.public_key()
    certificates = [one.certificate for one in chain]
    assert judge(certificates, [root], hostnames=[WWW], public_key=key).problems == []
    position = data.draw(st.integers(0, length))
    without = certificates[:position] + certificates[position + 1 :]
    assert judge(without, [root], hostnames=[WWW], public_key=key).problems
    # The same names, issued by the same authority, for another key.
    again = issue(
        chain[position].certificate.subject, [*chain[1:], authorities[0]][position], ca=position > 0, names=[] if position else [WWW]
    )
    replaced = [again.certificate if number == position else one for number, one in enumerate(certificates)]
    assert judge(replaced, [root], hostnames=[WWW], public_key=key).problems


# --- the second judge -------------------------------------------------------------------------------------------------------------------

NAME_CHOICES: list[list[str]] = [[WWW], ["*.example.org"], ["example.org"], ["www.example.com", WWW], [], [WWW, "192.0.2.1"]]
USAGE_CHOICES: list[list[str] | None] = [None, None, ["digital_signature"], ["key_cert_sign", "crl_sign"], ["key_encipherment"], []]
CONSTRAINTS: list[x509.NameConstraints | None] = [
    None,
    None,
    constraints([x509.DNSName("example.org")]),
    constraints([x509.DNSName("www.example.org")]),
    constraints([], [x509.DNSName("example.com")]),
    constraints([x509.IPAddress(ipaddress.ip_network("10.0.0.0/8"))]),
]
LEFT_OUT: list[list[type[x509.ExtensionType]]] = [
    [],
    [],
    [x509.AuthorityKeyIdentifier],
    [x509.SubjectKeyIdentifier],
    [x509.BasicConstraints],
    [x509.KeyUsage],
]
KEYS: list[Callable[[], Any]] = [
    ec_key,
    ec_key,
    rsa_key,
    lambda: rsa_key(1024),
    lambda: ec_key(ec.SECP384R1()),
    lambda: ec_key(ec.SECP256K1()),
]
SPANS = [(-10, 90), (-10, 90), (-10, 90), (-10, -1), (1, 90)]


def drawn(data: st.DataObject, subject: str, issuer: Pair | None, ca: bool) -> Pair:
    """A certificate with up to a few things that are out of the ordinary."""

    def pick(choices: Sequence[Any]) -> Any:
        # The first is the usual one, and usual ones must be frequent for anything to be accepted.
        return choices[max(0, data.draw(st.integers(-3 * len(choices), len(choices) - 1)))]

    start, end = pick(SPANS)
    return issue(
        subject,
        issuer,
        key=pick(KEYS)(),
        ca=ca if pick([True, True, True, False]) else not ca,
        names=pick(NAME_CHOICES) if not ca else [],
        path_length=None,
        start=NOW + start * DAY,
        end=NOW + end * DAY,
        usages=pick(USAGE_CHOICES),
        purposes=pick([None, None, [SERVER], [CLIENT], [SERVER, CLIENT]]),
        constrained=pick(CONSTRAINTS) if ca else None,
        without=pick(LEFT_OUT),
        digest=pick([hashes.SHA256(), hashes.SHA384(), hashes.SHA512(), hashes.SHA224()]),
        serial=pick([0, 0, 1, 2**158]),
        issuer_name=pick([None, None, None, name("Somebody else")]) if issuer else None,
    )


ACCEPTED: list[bool] = []


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed, so it cannot judge")
def test_openssl_accepts_all_that_is_accepted(tmp_path: Path, data: st.DataObject) -> None:
    root = drawn(data, "Root", None, ca=True)
    intermediate = drawn(data, "Intermediate", root, ca=True)
    bottom = drawn(data, WWW, intermediate, ca=False)
    verdict = judge([bottom.certificate, intermediate.certificate], [root.certificate], hostnames=[WWW], at=NOW)
    ACCEPTED.append(not verdict.problems)
    if verdict.problems:
        return
    for file, pairs in (("root", [root]), ("rest", [intermediate]), ("leaf", [bottom])):
        (tmp_path / file).write_text("".join(one.pem for one in pairs))
    command = ["openssl", "verify", "-x509_strict", "-auth_level", "2", "-purpose", "sslserver", "-verify_hostname", WWW]
    command += ["-attime", str(int(NOW.timestamp())), "-CAfile", "root", "-untrusted", "rest", "leaf"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed, so it cannot judge")
def test_the_second_judge_was_asked() -> None:
    """Some were accepted and some were not, else the test above says nothing."""
    assert not ACCEPTED or {True, False} == set(ACCEPTED)


# --- hostile bags -----------------------------------------------------------------------------------------------------------------------


def crowd(count: int, **change: Any) -> list[Pair]:
    """Certificates of the intermediate's name, each for another key."""
    pki = changed_pki("ec")
    return [
        issue(pki.intermediate.certificate.subject, pki.root, **{"ca": True, "path_length": 0, "end": NOW + 3000 * DAY, **change})
        for _number in range(count)
    ]


def same_key_id() -> list[Pair]:
    found = changed_pki("ec").intermediate.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return crowd(1500, replace=[(found.value, False)])


def slow_decoy() -> list[Pair]:
    identifier = changed_pki("ec").intermediate.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return crowd(1, replace=[(identifier.value, False)], key=ec_key(ec.SECP521R1()))


def same_key() -> list[Pair]:
    """All of them have signed the leaf, and none leads to the root."""
    pki, gone = changed_pki("ec"), issue("Gone", ca=True)
    return [issue(pki.intermediate.certificate.subject, gone, ca=True, key=pki.intermediate.key) for _number in range(1500)]


def mesh() -> list[Pair]:
    """Every level has signed every one of the next: twelve to the power of seven ways, and none ends."""
    pki, upper = changed_pki("ec"), issue("Gone", ca=True)
    levels: list[Pair] = []
    subjects: list[str | x509.Name] = [*(f"Level {number}" for number in range(6)), pki.intermediate.certificate.subject]
    for subject in subjects:
        key = pki.intermediate.key if subject == pki.intermediate.certificate.subject else ec_key()
        level = [issue(subject, upper, ca=True, key=key) for _number in range(12)]
        levels += level
        upper = level[0]
    return levels


def constrained_crowd() -> list[Pair]:
    """All lead to the root, all have the right key, and none may issue for the name."""
    pki = changed_pki("ec")
    elsewhere = constraints([x509.DNSName(f"d{number}.example.com") for number in range(100)])
    return crowd(600, key=pki.intermediate.key, constrained=elsewhere)


def very_deep() -> list[Pair]:
    levels = [issue("Gone", ca=True)]
    for number in range(600):
        levels.append(issue(f"Level {number}", levels[-1], ca=True))
    pki = changed_pki("ec")
    return [*levels, issue(pki.intermediate.certificate.subject, levels[-1], ca=True, key=pki.intermediate.key)]


def same_key_id_few_keys() -> list[Pair]:
    """Few enough keys to check them all, and too many certificates to look at each."""
    found = changed_pki("ec").intermediate.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return [one for _number in range(10) for one in crowd(100, key=ec_key(), replace=[(found.value, False)])]


HOSTILE: dict[str, Callable[[], list[Pair]]] = {
    "other keys": lambda: crowd(1500),
    "other keys without identifier": lambda: crowd(1500, without=[x509.SubjectKeyIdentifier]),
    "same key identifier": same_key_id,
    "same key identifier, few keys": same_key_id_few_keys,
    "same key": same_key,
    "mesh": mesh,
    "constrained": constrained_crowd,
    "very deep": very_deep,
    "slow keys": lambda: [one for _number in range(300) for one in slow_decoy()],
    "expired": lambda: crowd(1500, start=NOW - 9 * DAY, end=NOW - DAY),
}


@pytest.fixture(name="work")
def _work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts what costs: signatures that are checked, and steps of the search."""
    done = {"signatures": 0, "steps": 0, "paths": 0}

    def signature(child: Any, issuer: Any) -> bool | None:
        done["signatures"] += 1
        return signature_holds(child, issuer)

    def step(queue: list[Any], entry: Any) -> None:
        done["steps"] += 1
        heapq.heappush(queue, entry)

    examine = certificate_rules.examine

    def path(*arguments: Any) -> Any:
        done["paths"] += 1
        return examine(*arguments)

    monkeypatch.setattr(certificate_paths, "signature_holds", signature)
    monkeypatch.setattr(certificate_paths, "heappush", step)
    monkeypatch.setattr(certificate_rules, "examine", path)
    return done


@pytest.mark.parametrize("there", [True, False], ids=["with the right one", "without the right one"])
@pytest.mark.parametrize("which", HOSTILE)
def test_a_hostile_bag_is_judged_with_bounded_work(which: str, there: bool, work: dict[str, int]) -> None:
    pki = changed_pki("ec")
    bag = [one.certificate for one in HOSTILE[which]()] + (pki.certificates if there else pki.certificates[:1])
    random.shuffle(bag)
    verdict = judge(bag, [pki.root.certificate], hostnames=[WWW], public_key=pki.leaf.key.public_key())
    assert 0 < work["signatures"] <= certificate_paths.MAXIMUM_SIGNATURES
    assert 0 < work["steps"] <= certificate_paths.MAXIMUM_STEPS + certificate_paths.MAXIMUM_SIGNATURES
    assert work["paths"] <= 32
    if which == "slow keys":
        assert work["signatures"] <= certificate_paths.MAXIMUM_SIGNATURES // certificate_paths.SLOW_KEY
    found = there and which not in ("same key identifier", "same key identifier, few keys", "slow keys", "constrained")
    if there and not found:
        # The right one is there, so nobody may be told that it is not.
        assert verdict.problems[0].code == "too_large"
    assert (pem(*verdict.chain) if not verdict.problems else "") == (pki.chain_pem if found else ""), verdict.problems


def test_a_key_that_takes_forever_is_not_used() -> None:
    """An RSA exponent as long as the modulus makes each check take as long as a thousand."""
    good = rsa_key()
    modulus = good.public_key().public_numbers().n
    large = rsa.RSAPublicNumbers(modulus - 2, modulus).public_key()
    link = Link(issue("x").certificate)
    link.public_key = large
    assert link.is_absurd and signature_holds(link, link) is None
    (found,) = certificate_rules._strength(link, link.who("leaf"))
    assert (found.code, found.message) == ("weak_key", "The leaf CN=x has an RSA key with an exponent that no program makes.")


def test_a_flood_of_forged_lists_does_not_hide_a_revocation() -> None:
    """Which of them is real cannot be found out with bounded work, so the certificate is refused."""
    pki = changed_pki("ec")
    crls = [revocation_list(pki.intermediate, [pki.leaf], key=ec_key()) for _number in range(300)]
    verdict = judge(pki.certificates, [pki.root.certificate], hostnames=[WWW], crls=crls)
    assert [one.code for one in verdict.problems] == ["too_large", "revoked"]
    assert judge(pki.certificates, [pki.root.certificate], hostnames=[WWW], crls=crls[:200]).problems == []


def test_a_usual_bag_takes_no_more_than_it_needs(work: dict[str, int]) -> None:
    pki = changed_pki("ec")
    judge([*pki.certificates[::-1], pki.root.certificate], [pki.root.certificate], hostnames=[WWW])
    assert work["signatures"] == 3 and work["paths"] == 1


def test_thousands_of_names_and_constraints_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = range(2000)
    root = issue("Root", ca=True)
    authority = issue("A", root, ca=True, constrained=constraints([x509.DNSName(f"d{number}.example.com") for number in numbers]))
    bottom = issue(WWW, authority, names=[WWW, *(f"h{number}.example.org" for number in numbers)])
    count = itertools.count()
    matches = certificate_rules._matches
    monkeypatch.setattr(certificate_rules, "_matches", lambda *given, **further: (next(count), matches(*given, **further))[1])
    verdict = judge([bottom.certificate, authority.certificate], [root.certificate], hostnames=[WWW])
    assert [one.code for one in verdict.problems] == ["name_constraints"]
    assert next(count) == 0
