# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way in which a certificate or its chain can be wrong, made and judged; and what is right, judged by OpenSSL too."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import ipaddress
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_chain import Verdict, judge, with_lists
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import CODES
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.unit.pki import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Pair,
    constraints,
    ec_key,
    ed25519_key,
    flipped,
    issue,
    name,
    pem,
    revocation_list,
    rsa_key,
    tampered,
    usual,
    with_weak_digest,
)

WWW = "www.example.org"
FIXED: Any = ec_key()
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


@dataclasses.dataclass
class Given:
    """What is handed in, and what it is judged for."""

    bag: Sequence[Pair]
    trust: Sequence[Pair]
    hostnames: Sequence[str] = (WWW,)
    key: Any = None
    at: datetime.datetime | None = None
    crls: Sequence[x509.CertificateRevocationList] = ()
    purpose: str = "server"
    # Of a good one: what comes out.
    chain: Sequence[Pair] = ()


def verdict_of(given: Given) -> Verdict:
    return judge(
        [one.certificate for one in given.bag],
        [one.certificate for one in given.trust],
        hostnames=given.hostnames,
        public_key=given.key.public_key() if given.key else None,
        at=given.at,
        crls=given.crls,
        purpose=given.purpose,
    )


PKI = functools.cache(usual)
EXPIRED: dict[str, Any] = {"start": NOW - 90 * DAY, "end": NOW - DAY}
FUTURE: dict[str, Any] = {"start": NOW + DAY, "end": NOW + 90 * DAY}
# Differs in one place from what a good authority does.
Change = dict[str, Any]


def leaf(**change: Any) -> Given:
    """The usual chain with another leaf."""
    pki = PKI()
    return Given([issue(**{"subject": WWW, "issuer": pki.intermediate, "names": [WWW], **change}), pki.intermediate], [pki.root])


def middle(**change: Any) -> Given:
    """The usual chain with another intermediate."""
    root = PKI().root
    authority = issue(**{"subject": "Intermediate", "issuer": root, "ca": True, "path_length": 0, **change})
    return Given([issue(WWW, authority, names=[WWW]), authority], [root])


def top(change: Change, inner: Change | None = None, names: Sequence[str] = (WWW,), subject: str | x509.Name = WWW) -> Given:
    """A whole chain below another root."""
    root = issue(**{"subject": "Root", "ca": True, **change})
    authority = issue(**{"subject": "Intermediate", "issuer": root, "ca": True, **(inner or {})})
    bottom = issue(subject, authority, names=names)
    return Given([bottom, authority], [root], names[:1], chain=[bottom, authority])


def constrained(
    permitted: Sequence[str] = (),
    excluded: Sequence[str] = (),
    names: Sequence[str] = (WWW,),
    subject: str | x509.Name = WWW,
    critical: bool = True,
) -> Given:
    kinds = [[_constraint(one) for one in some] for some in (permitted, excluded)]
    return top({}, {"replace": [(constraints(*kinds), critical)]}, names, subject)


def _constraint(text: str) -> x509.GeneralName:
    if text.startswith("O="):
        return x509.DirectoryName(name("", organization=text[2:]))
    return x509.IPAddress(ipaddress.ip_network(text)) if "/" in text else x509.DNSName(text)


def with_other(change: Callable[[Given], Change], of: Given | None = None) -> Given:
    """The usual chain, judged in another way."""
    given = of or Given([PKI().leaf, PKI().intermediate], [PKI().root])
    return dataclasses.replace(given, **change(given))


def self_signed(**change: Any) -> Given:
    return Given([issue(**{"subject": WWW, "names": [WWW], **change})], [PKI().root])


def deep(count: int) -> Given:
    authorities = [issue("Root", ca=True)]
    for number in range(count):
        authorities.append(issue(f"Authority {number}", authorities[-1], ca=True))
    bottom = issue(WWW, authorities[-1], names=[WWW])
    chain = [bottom, *authorities[:0:-1]]
    return Given([bottom, *authorities[1:]], authorities[:1], chain=chain)


def weak(digest: hashes.HashAlgorithm, where: str) -> Given:
    root = issue("Root", ca=True, key=rsa_key())
    authority = issue("Intermediate", root, ca=True, key=rsa_key(2048, 1))
    bottom = issue(WWW, authority, names=[WWW])
    if where == "root":
        root = with_weak_digest(root, root, digest)
    elif where == "intermediate":
        authority = with_weak_digest(authority, root, digest)
    else:
        bottom = with_weak_digest(bottom, authority, digest)
    return Given([bottom, authority], [root], chain=[bottom, authority])


def unused_bits() -> Given:
    """The signature claims to have one bit less than whole bytes; it still has them all."""
    pki = PKI()
    while True:
        bottom = issue(WWW, pki.intermediate, names=[WWW])
        signature = bottom.certificate.signature
        if not signature[-1] & 1:
            break
    der = bottom.der[: -len(signature) - 1] + b"\x01" + signature
    return Given([Pair(x509.load_der_x509_certificate(der), bottom.key), pki.intermediate], [pki.root])


def revoked(which: str) -> Given:
    pki = PKI()
    lists = {
        "leaf": [revocation_list(pki.intermediate, [pki.leaf])],
        "intermediate": [revocation_list(pki.intermediate), revocation_list(pki.root, [pki.intermediate])],
        "by an old list": [revocation_list(pki.intermediate, [pki.leaf], last=NOW - 90 * DAY, following=NOW - 60 * DAY)],
        "forged": [revocation_list(pki.intermediate, [pki.leaf], key=ec_key())],
        "by another authority": [revocation_list(pki.root, [pki.leaf])],
        "another certificate": [revocation_list(pki.intermediate, [pki.intermediate])],
    }
    return Given([pki.leaf, pki.intermediate], [pki.root], crls=lists[which], chain=[pki.leaf, pki.intermediate])


def listed(which: str, usages: Sequence[str] = ("key_cert_sign", "crl_sign")) -> Given:
    """The leaf is on the list, with something more said of it."""
    root = PKI().root
    authority = issue("Intermediate", root, ca=True, usages=usages)
    bottom = issue(WWW, authority, names=[WWW])
    entry = x509.RevokedCertificateBuilder().serial_number(bottom.certificate.serial_number).revocation_date(NOW - DAY)
    said: dict[str, x509.ExtensionType] = {
        "stolen": x509.CRLReason(x509.ReasonFlags.key_compromise),
        "taken back": x509.CRLReason(x509.ReasonFlags.remove_from_crl),
        "of this issuer": x509.CertificateIssuer([x509.DirectoryName(authority.certificate.subject)]),
        "of another issuer": x509.CertificateIssuer([x509.DirectoryName(root.certificate.subject)]),
        "unreadable": x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.24"), b"\x05\x00"),
        "no reason": x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.21"), b"\x0a\x01\x07"),
    }
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
        .add_revoked_certificate(entry.add_extension(said[which], critical=False).build())
        .sign(authority.key, hashes.SHA256())
    )
    return Given([bottom, authority], [root], crls=[crl], chain=[bottom, authority])


def spoiled(pair: Pair) -> Pair:
    """Its signature is another one."""
    return Pair(x509.load_der_x509_certificate(flipped(pair.der, len(pair.der) * 8 - 8)), pair.key)


def names_its_issuer_by_serial(right: bool) -> Given:
    pki = PKI()
    issuer = pki.intermediate.certificate
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    serial = issuer.serial_number if right else 1
    full = x509.AuthorityKeyIdentifier(key_id, [x509.DirectoryName(issuer.issuer)], serial)
    given = leaf(replace=[(full, False)])
    return dataclasses.replace(given, chain=given.bag)


def two_of_one_name(first: Change, second: Change) -> Given:
    """Two intermediates for one key, each with its own fault; the better way is the one that is told."""
    root, gone, key = PKI().root, issue("Gone", ca=True), ec_key()
    both = [issue(**{"subject": "Intermediate", "issuer": gone if "gone" in one else root, "ca": True, "key": key, **one.get("gone", one)})
            for one in (first, second)]  # fmt: skip
    bottom = issue(WWW, both[0], names=[WWW])
    return Given([bottom, *both], [root])


def organization_below() -> Given:
    """An intermediate below a constrained one belongs to another organization; the leaf does not."""
    root = issue("Root", ca=True)
    upper = issue("Upper", root, ca=True, replace=[(constraints([_constraint("O=Org")]), False)])
    lower = issue(name("Lower", organization="Other"), upper, ca=True)
    return Given([issue(name(WWW, organization="Org"), lower, names=[WWW]), lower, upper], [root])


def unreadable(kind: type[x509.ExtensionType]) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(kind.oid, b"\x05\x00"), False


def self_signed_before() -> Pair:
    """What served until the delivery came."""
    return issue(WWW, names=[WWW])


def other_spelling() -> Given:
    """The leaf writes its issuer's name in another kind of string; comparing bytes, the names differ."""
    root = issue("Root", ca=True)
    written = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Root", _type=x509.name._ASN1Type.PrintableString)])
    return Given([issue(WWW, root, names=[WWW], issuer_name=written)], [root])


def wrong_key_id(where: str) -> Given:
    pki = PKI()
    other = x509.AuthorityKeyIdentifier.from_issuer_public_key(ec_key().public_key())
    change: Change = {"replace": [(other, False)]}
    return leaf(**change) if where == "leaf" else middle(issuer=pki.root, **change)


def replaced_name() -> Given:
    """A bit of the intermediate's own name is turned over, so the leaf's issuer is not there by name."""
    pki = PKI()
    return Given([pki.leaf, tampered(pki.intermediate)], [pki.root])


def another_root_of_that_name() -> Given:
    pki = PKI()
    return Given([pki.leaf, pki.intermediate], [issue(pki.root.certificate.subject, ca=True)])


def authority_as_leaf() -> Given:
    root = PKI().root
    authority = issue(WWW, root, ca=True, names=[WWW])
    return Given([authority], [root], key=authority.key)


def two_sites() -> Given:
    pki = PKI()
    return Given([pki.leaf, issue("b", pki.intermediate, names=[WWW]), pki.intermediate], [pki.root])


def hidden_by_decoys(count: int) -> Given:
    """Certificates of the intermediate's name and key identifier, each with another key."""
    pki = PKI()
    identifier = pki.intermediate.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    change: Change = {"ca": True, "path_length": 0, "end": NOW + 2000 * DAY, "replace": [(identifier, False)]}
    decoys = [issue(pki.intermediate.certificate.subject, pki.root, **change) for _number in range(count)]
    return Given([pki.leaf, *decoys, pki.intermediate], [pki.root])


def missing_below_known_organization(aia: str = "") -> Given:
    root = issue(name("Root", organization="Trust"), ca=True)
    upper = issue(name("Upper", organization="Trust"), root, ca=True)
    lower = issue(name("Lower", organization="Trust"), upper, ca=True, aia=aia)
    return Given([issue(WWW, lower, names=[WWW]), lower], [root])


def unknown_critical() -> Given:
    return leaf(replace=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00"), True)])


BAD: dict[str, tuple[Callable[[], Given], list[str]]] = {
    # dates
    "expired leaf": (lambda: leaf(**EXPIRED), ["expired"]),
    "expired intermediate": (lambda: middle(**EXPIRED), ["expired"]),
    "expired root": (lambda: top(EXPIRED), ["expired"]),
    "leaf of tomorrow": (lambda: leaf(**FUTURE), ["not_yet_valid"]),
    "intermediate of tomorrow": (lambda: middle(**FUTURE), ["not_yet_valid"]),
    "good today, judged in a year": (lambda: with_other(lambda _: {"at": NOW + 365 * DAY}), ["expired"]),
    "good today, judged a year ago": (lambda: with_other(lambda _: {"at": NOW - 365 * DAY}), ["not_yet_valid"] * 3),
    # the way to a root
    "missing intermediate": (lambda: with_other(lambda given: {"bag": given.bag[:1]}), ["missing_intermediate"]),
    "missing intermediate, another one of its name": (
        lambda: with_other(lambda given: {"bag": [given.bag[0], issue(given.bag[1].certificate.subject, given.trust[0], ca=True)]}),
        ["missing_intermediate"],
    ),
    "missing upper intermediate": (
        lambda: missing_below_known_organization("http://ca.example.org/upper.crt"),
        ["missing_intermediate"],
    ),
    "another authority of an organization with a trusted root": (missing_below_known_organization, ["untrusted_root"]),
    "another root is trusted": (lambda: with_other(lambda _: {"trust": [issue("Other", ca=True)]}), ["untrusted_root"]),
    "another root is trusted, its own is there": (
        lambda: with_other(lambda given: {"bag": [*given.bag, *given.trust], "trust": [issue("Other", ca=True)]}),
        ["untrusted_root"],
    ),
    "another root of that name is trusted": (another_root_of_that_name, ["untrusted_root"]),
    "only the intermediate is trusted": (lambda: with_other(lambda given: {"trust": given.bag[1:]}), ["untrusted_root"]),
    "self-signed": (self_signed, ["self_signed"]),
    "self-signed as an authority": (lambda: self_signed(ca=True), ["self_signed"]),
    "self-signed without names": (lambda: self_signed(ca=True, names=[]), ["self_signed", "common_name_only"]),
    "self-signed and trusted": (lambda: with_other(lambda given: {"trust": given.bag}, self_signed()), ["self_signed"]),
    "self-signed, expired, weak": (lambda: self_signed(key=rsa_key(1024), **EXPIRED), ["self_signed", "expired", "weak_key"]),
    "self-signed, tampered": (lambda: with_other(lambda given: {"bag": [spoiled(given.bag[0])]}, self_signed()), ["tampered"]),
    "self-signed, tampered and trusted": (
        lambda: with_other(lambda given: {"bag": [spoiled(given.bag[0])], "trust": [spoiled(given.bag[0])]}, self_signed()),
        ["tampered"],
    ),
    "another root is trusted, its own is there and tampered": (
        lambda: with_other(lambda given: {"bag": [*given.bag, spoiled(given.trust[0])], "trust": [issue("Other", ca=True)]}),
        ["tampered"],
    ),
    "a trusted root is tampered": (lambda: with_other(lambda given: {"trust": [spoiled(given.trust[0])]}), ["untrusted_root"]),
    # the better of two ways is told
    "expired, or leading nowhere": (lambda: two_of_one_name(EXPIRED, {"gone": {}}), ["expired"]),
    "leading nowhere, or expired": (lambda: two_of_one_name({"gone": {}}, EXPIRED), ["expired"]),
    "expired and no authority, or expired": (
        lambda: two_of_one_name({**EXPIRED, "usages": ["crl_sign"], "end": NOW - DAY / 2}, EXPIRED),
        ["expired"],
    ),
    "expired, or no authority": (lambda: two_of_one_name(EXPIRED, {"ca": False, **EXPIRED, "end": NOW - DAY / 2}), ["expired"]),
    "weak digest, or expired and of no use": (
        lambda: two_of_one_name({"digest": hashes.SHA224()}, {**EXPIRED, "usages": ["crl_sign"]}),
        ["weak_digest"],
    ),
    "50 intermediates": (lambda: deep(50), ["chain_too_long"]),
    "9 intermediates": (lambda: deep(9), ["chain_too_long"]),
    # changed after signing
    "tampered leaf": (lambda: with_other(lambda given: {"bag": [tampered(given.bag[0]), given.bag[1]]}), ["tampered"]),
    "tampered intermediate": (replaced_name, ["tampered"]),
    "tampered leaf and its key": (
        lambda: with_other(lambda given: {"bag": [tampered(given.bag[0]), given.bag[1]], "key": given.bag[0].key}),
        ["tampered"],
    ),
    "unused bits in the signature": (unused_bits, ["tampered"]),
    # names
    "another name": (lambda: leaf(names=["mail.example.org"]), ["name_mismatch"]),
    "one of two names missing": (lambda: with_other(lambda _: {"hostnames": [WWW, "mail.example.org"]}), ["name_mismatch"]),
    "common name only": (lambda: leaf(names=[]), ["common_name_only"]),
    "common name only, another one": (lambda: leaf(names=[], subject="mail.example.org"), ["name_mismatch", "common_name_only"]),
    "common name only, no name asked": (lambda: with_other(lambda _: {"hostnames": []}, leaf(names=[])), ["common_name_only"]),
    "wildcard two labels above": (lambda: deeper("a.b.example.org"), ["wildcard_too_shallow"]),
    "wildcard for the domain": (lambda: deeper("example.org"), ["wildcard_for_apex"]),
    "wildcard wanted": (lambda: with_other(lambda _: {"hostnames": ["*.example.org"]}), ["name_mismatch"]),
    "wildcard inside a label": (lambda: leaf(names=["w*.example.org"]), ["name_mismatch"]),
    "another address": (lambda: with_other(lambda _: {"hostnames": ["192.0.2.1"]}), ["name_mismatch"]),
    "address as text": (lambda: with_other(lambda _: {"hostnames": ["192.0.2.1"]}, textual_address()), ["name_mismatch"]),
    # what it may be used for
    "key usage of the leaf without signatures": (lambda: leaf(usages=["key_encipherment"]), ["wrong_key_usage"]),
    "key usage of the leaf of an authority": (lambda: leaf(usages=["digital_signature", "key_cert_sign"]), ["wrong_key_usage"]),
    "key usage of the intermediate without certificates": (lambda: middle(usages=["crl_sign"]), ["wrong_key_usage"]),
    "purpose of the leaf": (lambda: leaf(purposes=[CLIENT]), ["wrong_purpose"]),
    "any purpose of the leaf": (lambda: leaf(purposes=[ANY]), ["wrong_purpose"]),
    "purpose of the intermediate": (lambda: middle(purposes=[CLIENT]), ["wrong_purpose"]),
    "purpose of a client": (lambda: with_other(lambda _: {"purpose": "client"}), ["wrong_purpose"]),
    "authority as leaf": (authority_as_leaf, ["wrong_purpose"]),
    # authorities
    "intermediate is no authority": (lambda: middle(ca=False, path_length=None, usages=["key_cert_sign"]), ["intermediate_not_ca"]),
    "intermediate is no authority, no name asked": (
        lambda: with_other(lambda _: {"hostnames": []}, middle(ca=False, path_length=None, usages=["key_cert_sign"])),
        ["intermediate_not_ca"],
    ),
    "intermediate does not say that it is one": (lambda: middle(without=[x509.BasicConstraints]), ["intermediate_not_ca"]),
    "path length of the root": (lambda: top({"path_length": 0}), ["path_length"]),
    "names not permitted": (lambda: constrained(["example.com"]), ["name_constraints"]),
    "names excluded": (lambda: constrained([], ["example.org"]), ["name_constraints"]),
    "wildcard over an excluded name": (lambda: constrained([], ["mail.example.org"], ["*.example.org"]), ["name_constraints"]),
    "address not permitted": (lambda: constrained(["10.0.0.0/8"], [], ["192.0.2.1"]), ["name_constraints"]),
    "organization not permitted": (lambda: constrained(["O=Other"], critical=False), ["name_constraints"]),
    "organization permitted, but nobody can judge it": (
        lambda: constrained(["O=Org"], subject=name(WWW, organization="Org")),
        ["not_strict"],
    ),
    "organization of an intermediate not permitted": (organization_below, ["name_constraints"]),
    "common name not permitted": (lambda: constrained(["example.com"], [], ["192.0.2.1"], "a.example.org"), ["name_constraints"]),
    # strength
    "RSA-1024 leaf": (lambda: leaf(key=rsa_key(1024)), ["weak_key"]),
    "RSA-1024 intermediate": (lambda: middle(key=rsa_key(1024)), ["weak_key"]),
    "RSA-1024 root": (lambda: top({"key": rsa_key(1024)}), ["weak_key"]),
    "small curve": (lambda: leaf(key=ec_key(ec.SECP224R1())), ["weak_key"]),
    "rare curve": (lambda: leaf(key=ec_key(ec.SECP256K1())), ["weak_key"]),
    "key for encryption": (lambda: leaf(key=x25519.X25519PrivateKey.generate()), ["weak_key"]),
    "SHA-1 leaf": (lambda: weak(hashes.SHA1(), "leaf"), ["weak_digest"]),
    "SHA-1 intermediate": (lambda: weak(hashes.SHA1(), "intermediate"), ["weak_digest"]),
    "MD5 leaf": (lambda: weak(hashes.MD5(), "leaf"), ["weak_digest"]),
    # revoked
    "revoked leaf": (lambda: revoked("leaf"), ["revoked"]),
    "revoked intermediate": (lambda: revoked("intermediate"), ["revoked"]),
    "revoked by an old list": (lambda: revoked("by an old list"), ["revoked"]),
    "revoked as stolen": (lambda: listed("stolen"), ["revoked"]),
    "revoked with more that cannot be read": (lambda: listed("unreadable"), ["revoked"]),
    "revoked for no known reason": (lambda: listed("no reason"), ["revoked"]),
    "revoked on a list of many issuers": (lambda: listed("of this issuer"), ["revoked"]),
    # form
    "serial number of another issuer": (lambda: names_its_issuer_by_serial(right=False), ["not_strict"]),
    "names of the leaf unreadable": (lambda: leaf(names=[], replace=[unreadable(x509.SubjectAlternativeName)]), ["not_strict"]),
    "key usage of the intermediate unreadable": (lambda: middle(replace=[unreadable(x509.KeyUsage)]), ["not_strict"]),
    "unknown critical extension, no name asked": (lambda: with_other(lambda _: {"hostnames": []}, unknown_critical()), ["not_strict"]),
    "no authority key identifier": (lambda: leaf(without=[x509.AuthorityKeyIdentifier]), ["not_strict"]),
    "no subject key identifier of an authority": (lambda: middle(without=[x509.SubjectKeyIdentifier]), ["not_strict"]),
    "no subject key identifier of the root": (lambda: top({"without": [x509.SubjectKeyIdentifier]}), ["not_strict"]),
    "wrong authority key identifier of the leaf": (lambda: wrong_key_id("leaf"), ["not_strict"]),
    "wrong authority key identifier of the intermediate": (lambda: wrong_key_id("intermediate"), ["not_strict"]),
    "basic constraints not critical": (lambda: middle(replace=[(x509.BasicConstraints(True, 0), False)]), ["not_strict"]),
    "no key usage of an authority": (lambda: middle(without=[x509.KeyUsage]), ["not_strict"]),
    "critical key identifier": (lambda: leaf(replace=[critical_key_id()], key=FIXED), ["not_strict"]),
    "issuer's name spelled otherwise": (other_spelling, ["not_strict"]),
    "another issuer's name": (lambda: leaf(issuer_name=name("Somebody")), ["not_strict"]),
    "unknown critical extension": (unknown_critical, ["not_strict"]),
    "names critical beside a subject": (
        lambda: leaf(replace=[(x509.SubjectAlternativeName([x509.DNSName(WWW)]), True)]),
        ["not_strict"],
    ),
    "signed with Ed25519": (lambda: middle(key=ed25519_key()), ["not_strict"]),
    # which one is meant
    "another key": (lambda: with_other(lambda _: {"key": ec_key()}), ["key_mismatch"]),
    "the key of the intermediate": (lambda: with_other(lambda given: {"key": given.bag[1].key}), ["key_mismatch"]),
    "nothing": (lambda: with_other(lambda _: {"bag": []}), ["no_certificate"]),
    "authorities only": (lambda: with_other(lambda given: {"bag": [*given.bag[1:], *given.trust]}), ["leaf_not_found"]),
    "two sites": (two_sites, ["several_leaves"]),
    "two sites, no name asked": (lambda: with_other(lambda _: {"hostnames": []}, two_sites()), ["several_leaves"]),
    "a crowd of one name": (lambda: hidden_by_decoys(300), ["too_large"]),
    # several at once
    "all is told": (
        lambda: with_other(
            lambda _: {"key": ec_key()},
            leaf(key=rsa_key(1024), names=["mail.example.org"], purposes=[CLIENT], **EXPIRED),
        ),
        ["key_mismatch", "expired", "name_mismatch", "wrong_purpose", "weak_key"],
    ),
    "expired without an intermediate": (
        lambda: with_other(lambda given: {"bag": given.bag[:1]}, leaf(**EXPIRED)),
        ["missing_intermediate", "expired"],
    ),
    "expired below an untrusted root": (
        lambda: with_other(lambda _: {"trust": [issue("Other", ca=True)]}, middle(**EXPIRED)),
        ["untrusted_root", "expired"],
    ),
}


def critical_key_id() -> tuple[x509.ExtensionType, bool]:
    return x509.SubjectKeyIdentifier.from_public_key(FIXED.public_key()), True


def deeper(host: str) -> Given:
    return with_other(lambda _: {"hostnames": [host]}, leaf(names=["*.example.org"]))


def textual_address() -> Given:
    return leaf(names=[], replace=[(x509.SubjectAlternativeName([x509.DNSName("192.0.2.1")]), False)])


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_named(case: str) -> None:
    make, codes = BAD[case]
    verdict = verdict_of(make())
    assert [one.code for one in verdict.problems] == codes, verdict.problems
    for one in verdict.problems:
        assert one.remedy == CODES[one.code]
        assert one.message[0].isupper() and one.message.endswith(".") and "\n" not in one.message
    assert bool(verdict.unfinished) == bool({"missing_intermediate"} & set(codes)) or "untrusted_root" in codes


def test_every_code_of_a_chain_has_a_bad_case() -> None:
    """The others belong to files and policy and are tested there."""
    mine = set(list(CODES)[list(CODES).index("key_mismatch") : list(CODES).index("not_strict") + 1]) - {"crl_unusable"}
    assert mine <= {code for _make, codes in BAD.values() for code in codes}


# What the message has to show so that people can act on it.
SAID = {
    "missing intermediate": "CN=Test Intermediate,O=Test Trust, is missing; the issuer offers it at http://ca.example.org/i.crt.",
    "missing intermediate, another one of its name": "one of that name is there, but with another key",
    "another root of that name is trusted": "was issued by CN=Test Root,O=Test Trust; the trusted root of that name has another key.",
    "address as text": "192.0.2.1 stands among its names as text and not as an address",
    "another name": f"The leaf CN={WWW} is not for {WWW}: {WWW} is not among its names: mail.example.org.",
    "wildcard for the domain": "*.example.org does not cover example.org itself",
    "wildcard two labels above": "*.example.org covers one label only and not a.b.example.org",
    "tampered intermediate": "The intermediate CN=Uest Intermediate was changed after it was signed",
    "expired intermediate": "The intermediate CN=Intermediate ended on ",
    "expired root": "The root CN=Root ended on ",
    "another address": "192.0.2.1 is not among its names: www.example.org, example.org.",
    "another root is trusted, its own is there": "The chain ends at the root CN=Test Root, which is not among the trusted roots.",
    "issuer's name spelled otherwise": "writes the name of its issuer another way than the issuer does",
    "another issuer's name": "names CN=Somebody as its issuer and is signed by CN=Test Intermediate",
    "revoked as stolen": "(reason: keyCompromise)",
    "names of the leaf unreadable": f"The leaf CN={WWW} has extensions that cannot be read",
    "two sites": "There are 2 certificates of servers",
    "organization permitted, but nobody can judge it": "restricts distinguished names too, which the verifier here cannot judge",
    "unknown critical extension": "1.3.6.1.4.1.99999.1",
}


@pytest.mark.parametrize("case", SAID)
def test_the_message_says_what_and_where(case: str) -> None:
    (found,) = verdict_of(BAD[case][0]()).problems
    assert SAID[case] in found.message


def test_a_certificate_cannot_write_to_the_terminal() -> None:
    given = leaf(subject=name("a\x1b[2J\nb" + "c" * 40), **EXPIRED)
    (found,) = verdict_of(given).problems
    assert "CN=a?[2J?bccc" in found.message and "\x1b" not in found.certificate


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (name("", organization="Org"), "The leaf O=Org ended"),
        (name(""), f"The leaf {WWW} ended"),
        (name("a", unit="b"), "The leaf CN=a ended"),
    ],
)
def test_a_certificate_is_called_by_the_name_it_has(subject: x509.Name, said: str) -> None:
    (found,) = verdict_of(leaf(subject=subject, serial=0x4F01, **EXPIRED)).problems
    assert found.message.startswith(said) and found.certificate.endswith(", serial 4f01")


# --- what is right ----------------------------------------------------------------------------------------------------------------------


def good(bag: Sequence[Pair], root: Pair, length: int, **further: Any) -> Given:
    """The first certificates of the bag are the chain."""
    return Given(bag, [root], chain=bag[:length], **further)


def usual_with(*others: Callable[[], Pair], order: Callable[[list[Pair]], list[Pair]] = list) -> Given:
    pki = PKI()
    bag = order([pki.leaf, pki.intermediate, *(other() for other in others)])
    return Given(bag, [pki.root], chain=[pki.leaf, pki.intermediate], key=pki.leaf.key)


def cross_signed(end: datetime.datetime, trust: str) -> Given:
    """The new root is signed by an old one as well, as new authorities do until they are known."""
    old, new = issue("Old Root", ca=True), issue("New Root", ca=True)
    bridge = issue("New Root", old, ca=True, key=new.key, end=end)
    authority = issue("Intermediate", new, ca=True)
    bottom = issue(WWW, authority, names=[WWW])
    chain = [bottom, authority, bridge] if trust == "old" else [bottom, authority]
    return Given([bottom, bridge, authority, new], {"old": [old], "new": [new], "both": [old, new]}[trust], chain=chain)


def circle() -> Given:
    """Two authorities that have signed each other, and one of them is below the root."""
    root = issue("Root", ca=True)
    first = issue("First", root, ca=True)
    second = issue("Second", first, ca=True)
    back = issue("First", second, ca=True, key=first.key)
    bottom = issue(WWW, second, names=[WWW])
    return Given([bottom, second, back, first], [root], chain=[bottom, second, first])


def dead_end() -> Given:
    """The likelier of two issuers leads nowhere, so one has to come back from it."""
    root, gone = issue("Root", ca=True), issue("Gone", ca=True)
    key = ec_key()
    good_one = issue("Authority", root, ca=True, key=key, end=NOW + 100 * DAY)
    bad_one = issue("Authority", gone, ca=True, key=key, end=NOW + 900 * DAY)
    constrained_one = issue(
        "Authority", root, ca=True, key=key, end=NOW + 800 * DAY, constrained=constraints([x509.DNSName("example.com")])
    )
    bottom = issue(WWW, good_one, names=[WWW])
    return Given([bottom, good_one, bad_one, constrained_one], [root], chain=[bottom, good_one])


def renewed(order: int) -> Given:
    """The old certificate is still there; both are for one key."""
    pki, key = PKI(), ec_key()
    old = issue(WWW, pki.intermediate, names=[WWW], key=key, **EXPIRED)
    new = issue(WWW, pki.intermediate, names=[WWW], key=key)
    later = issue(WWW, pki.intermediate, names=[WWW], key=key, **FUTURE)
    return Given([old, new, later, pki.intermediate][::order], [pki.root], chain=[new, pki.intermediate], key=key)


def rsa(pss: bool) -> Given:
    root = issue("Root", ca=True, key=rsa_key(3072), pss=pss)
    authority = issue("Intermediate", root, ca=True, key=rsa_key(2048, 1), pss=pss)
    bottom = issue(WWW, authority, names=[WWW], key=rsa_key(2048, 2), pss=pss, usages=["digital_signature", "key_encipherment"])
    return good([bottom, authority], root, 2)


def other_leaf(names: Sequence[str], hosts: Sequence[str], **change: Any) -> Given:
    pki = PKI()
    bottom = issue(**{"subject": WWW, "issuer": pki.intermediate, "names": names, **change})
    return good([bottom, pki.intermediate], pki.root, 2, hostnames=hosts)


def trusted_bundle() -> Given:
    """The trust file holds the intermediate too, and the delivery does not."""
    pki = PKI()
    return Given([pki.leaf], [pki.root, pki.intermediate], chain=[pki.leaf, pki.intermediate])


def right_of_two_roots() -> Given:
    """Two trusted roots of one name; only one of them has issued."""
    pki = PKI()
    return good([pki.leaf, pki.intermediate], pki.root, 2, key=pki.leaf.key)


def cousin() -> Pair:
    return issue(PKI().intermediate.certificate.subject, PKI().root, ca=True, path_length=0, end=NOW + 3000 * DAY)


GOOD: dict[str, Callable[[], Given]] = {
    # in order
    "P-256": usual_with,
    "RSA": lambda: rsa(pss=False),
    "RSA with PSS signatures": lambda: rsa(pss=True),
    "eight intermediates": lambda: deep(8),
    "P-384 and SHA-384": lambda: other_leaf([WWW], [WWW], key=ec_key(ec.SECP384R1()), digest=hashes.SHA384()),
    "Ed25519 key": lambda: other_leaf([WWW], [WWW], key=ed25519_key()),
    "wildcard": lambda: other_leaf(["*.example.org", "example.org"], ["a.example.org", "example.org", "*.example.org"]),
    "addresses": lambda: other_leaf(["192.0.2.1", "2001:db8::1"], ["192.0.2.1", "[2001:DB8:0::1]"]),
    "international name": lambda: other_leaf(["xn--mnchen-3ya.example.org"], ["M\u00fcnchen.example.org."]),
    "no purpose": lambda: other_leaf([WWW], [WWW], purposes=[]),
    "no key usage": lambda: other_leaf([WWW], [WWW], without=[x509.KeyUsage]),
    "no subject": lambda: other_leaf([WWW], [WWW], subject=name("")),
    "no name asked": lambda: other_leaf([WWW, "example.org"], []),
    "root with SHA-1": lambda: weak(hashes.SHA1(), "root"),
    "permitted names": lambda: constrained(["example.org", "example.com"], ["mail.example.com"], ["*.a.example.org", "example.org"]),
    "permitted addresses": lambda: constrained(["192.0.2.0/24"], [], ["192.0.2.1"], "plain text"),
    "permitted organization": lambda: constrained(["O=Org"], subject=name(WWW, organization="Org"), critical=False),
    "another one revoked": lambda: revoked("another certificate"),
    "revoked by a forged list": lambda: revoked("forged"),
    "revocation taken back": lambda: listed("taken back"),
    "revoked with another issuer": lambda: listed("of another issuer"),
    "revoked by an authority that may not": lambda: listed("stolen", usages=["key_cert_sign"]),
    "serial number of its issuer": lambda: names_its_issuer_by_serial(right=True),
    "common names elsewhere": lambda: constrained(["example.org"], subject="www.example.com"),
    "common name like a sentence": lambda: constrained(["192.0.2.0/24", "example.org"], [], ["192.0.2.1"], "Example Inc. server"),
    "revoked by somebody else": lambda: revoked("by another authority"),
    # disordered
    "reversed": lambda: usual_with(order=lambda bag: bag[::-1]),
    "root in the middle": lambda: usual_with(lambda: PKI().root, order=lambda bag: [bag[0], bag[2], bag[1]]),
    "everything twice": lambda: usual_with(lambda: PKI().root, order=lambda bag: bag[::-1] + bag),
    "strangers": lambda: usual_with(
        lambda: issue("Stranger", ca=True), lambda: issue("x", issue("y", ca=True), names=["x"]), order=lambda bag: bag[::-1]
    ),
    "another intermediate of that name": lambda: usual_with(cousin, order=lambda bag: bag[::-1]),
    "another site without a key": lambda: dataclasses.replace(
        usual_with(lambda: issue("b", PKI().intermediate, names=["b.example.org"]), order=lambda bag: bag[::-1]), key=None
    ),
    "cross-signed, new root trusted": lambda: cross_signed(NOW + DAY, "new"),
    "cross-signed, old root trusted": lambda: cross_signed(NOW + DAY, "old"),
    "cross-signed, both roots trusted": lambda: cross_signed(NOW + DAY, "both"),
    "expired cross-signed one beside a trusted root": lambda: cross_signed(NOW - datetime.timedelta(hours=1), "new"),
    "circle": circle,
    "dead end": dead_end,
    "renewed": lambda: renewed(1),
    "self-signed before": lambda: dataclasses.replace(usual_with(self_signed_before), key=None),
    "self-signed before, no name asked": lambda: dataclasses.replace(usual_with(self_signed_before), key=None, hostnames=[]),
    "renewed, the other way round": lambda: renewed(-1),
    "intermediate in the trust file": trusted_bundle,
    "two roots of one name": lambda: with_other(
        lambda given: {"trust": [issue(given.trust[0].certificate.subject, ca=True), *given.trust]}, right_of_two_roots()
    ),
    "trusted root expired beside its successor": lambda: with_other(
        lambda given: {"trust": [issue(given.trust[0].certificate.subject, ca=True, key=given.trust[0].key, **EXPIRED), *given.trust]},
        right_of_two_roots(),
    ),
}


def openssl(given: Given, verdict: Verdict, directory: Path) -> str:
    """What OpenSSL has against the chain; empty when nothing."""
    (directory / "root.pem").write_text(pem(*([verdict.root] if verdict.root else [])))
    (directory / "leaf.pem").write_text(pem(verdict.chain[0]))
    (directory / "rest.pem").write_text(pem(*verdict.chain[1:]))
    at = int((given.at or NOW).timestamp())
    command = ["openssl", "verify", "-x509_strict", "-auth_level", "2", "-purpose", f"ssl{given.purpose}", "-attime", str(at)]
    command += ["-CAfile", "root.pem", "-untrusted", "rest.pem"]
    for host in given.hostnames or [""]:
        plain = host.replace("*", "any").strip("[].").lower().replace("m\u00fcnchen", "xn--mnchen-3ya")
        kind = "-verify_ip" if plain.replace(".", "").isdigit() or ":" in plain else "-verify_hostname"
        run = subprocess.run(
            [*command, *([kind, plain] if plain else []), "leaf.pem"], cwd=directory, capture_output=True, text=True, check=False
        )
        if run.returncode:
            return run.stdout + run.stderr
    return ""


@pytest.mark.parametrize("case", GOOD)
def test_what_is_right_is_put_in_order_and_openssl_agrees(case: str, tmp_path: Path) -> None:
    given = GOOD[case]()
    verdict = verdict_of(given)
    assert verdict.problems == []
    assert pem(*verdict.chain) == pem(*(one.certificate for one in given.chain))
    assert verdict.root in [one.certificate for one in given.trust]
    assert verdict.unfinished is None
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, so it cannot judge")
    assert openssl(given, verdict, tmp_path) == ""


def test_what_is_no_fault_is_noted() -> None:
    assert "browsers do not take it" in verdict_of(GOOD["Ed25519 key"]()).notes[0]
    assert "no extended key usage" in verdict_of(GOOD["no purpose"]()).notes[0]
    assert verdict_of(usual_with()).notes == []


@pytest.mark.parametrize(("purposes", "purpose"), [([CLIENT], "client"), ([SERVER, CLIENT], "any"), ([CLIENT], "any"), ([SERVER], "any")])
def test_clients_need_no_names(purposes: list[x509.ObjectIdentifier], purpose: str) -> None:
    given = with_other(lambda _: {"hostnames": [], "purpose": purpose}, leaf(names=[], purposes=purposes))
    verdict = verdict_of(given)
    assert verdict.problems == [] and len(verdict.chain) == 2


def test_the_verifier_is_asked_about_clients_too() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    given = with_other(lambda _: {"hostnames": [], "purpose": "client"}, leaf(names=[], purposes=[CLIENT], replace=[(unknown, True)]))
    assert [one.code for one in verdict_of(given).problems] == ["not_strict"]


def test_a_time_without_a_zone_is_utc_and_the_last_second_counts() -> None:
    given = usual_with()
    end = PKI().leaf.certificate.not_valid_after_utc
    start = PKI().leaf.certificate.not_valid_before_utc
    assert verdict_of(dataclasses.replace(given, at=start)).problems == []
    for at, codes in ((end, []), (end + datetime.timedelta(microseconds=999999), []), (end + datetime.timedelta(seconds=1), ["expired"])):
        zone = datetime.timezone(datetime.timedelta(hours=-11))
        for same in (at, at.replace(tzinfo=None), at.astimezone(zone)):
            assert [one.code for one in verdict_of(dataclasses.replace(given, at=same)).problems] == codes


def test_a_host_that_is_none_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="neither a host name nor an address"):
        verdict_of(dataclasses.replace(usual_with(), hostnames=["https://www.example.org/"]))


# --- revocation lists that somebody named -----------------------------------------------------------------------------------------------


def unusable(crl: x509.CertificateRevocationList, authority: Pair | None = None) -> tuple[list[str], str]:
    """Codes, and all that is said."""
    pki = PKI()
    above = authority or pki.intermediate
    bottom = issue(WWW, above, names=[WWW]) if authority else pki.leaf
    verdict = judge([bottom.certificate, above.certificate], [pki.root.certificate], hostnames=[WWW], at=NOW)
    assert verdict.problems == []
    verdict = with_lists(verdict, [crl], NOW)
    return [one.code for one in verdict.problems], " ".join([*(one.message for one in verdict.problems), *verdict.notes])


def test_a_named_list_that_judges_nothing_is_told() -> None:
    pki = PKI()
    assert unusable(revocation_list(pki.intermediate)) == unusable(revocation_list(pki.root)) == ([], "")
    old, said = unusable(revocation_list(pki.intermediate, last=NOW - 90 * DAY, following=NOW - 60 * DAY))
    assert old == ["crl_unusable"] and "ended on 2" in said
    forged, said = unusable(revocation_list(pki.intermediate, key=ec_key()))
    assert forged == ["crl_unusable"] and "is not signed by the issuer of that name" in said
    strange, said = unusable(revocation_list(issue("Stranger", ca=True)))
    assert strange == [] and "is about no certificate of this chain" in said
    may_not = issue("Intermediate", pki.root, ca=True, usages=["key_cert_sign"])
    assert unusable(revocation_list(may_not), may_not)[0] == ["crl_unusable"]


def test_the_issuer_of_a_list_may_be_written_another_way() -> None:
    pki = PKI()
    shouted = issue(name("TEST  INTERMEDIATE", organization="test trust"), pki.root, ca=True, key=pki.intermediate.key)
    crl = revocation_list(shouted, [pki.leaf])
    verdict = judge([pki.leaf.certificate, pki.intermediate.certificate], [pki.root.certificate], crls=[crl], at=NOW)
    assert [one.code for one in verdict.problems] == ["revoked"]
