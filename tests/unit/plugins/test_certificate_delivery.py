# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole deliveries: what is accepted comes out in one form, what is refused comes out with all its reasons and without a key."""

from __future__ import annotations

import functools
import http.server
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from io import BytesIO

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_delivery as delivery
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_delivery import DeliveryError, FetchError, Intake
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_fetch import fetch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from tests.unit import pki

USUAL = pki.usual(key=pki.rsa_key())
LEAF, INTERMEDIATE, ROOT = USUAL.leaf, USUAL.intermediate, USUAL.root
KEY = LEAF.key_pem()
CHAIN = LEAF.pem + INTERMEDIATE.pem
NAMES = ("www.example.org", "example.org")


def take_in(*contents: str | bytes, trust: str = ROOT.pem, hostnames: Sequence[str] = NAMES, **further: object) -> Intake:
    files = [(f"{number}.pem", one.encode() if isinstance(one, str) else one) for number, one in enumerate(contents, 1)]
    return delivery.take_in(files, trust=trust, hostnames=hostnames, **further)  # type: ignore[arg-type]


def codes(intake: Intake) -> list[str]:
    return [found.code for found in intake.problems]


def archive(**members: str) -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name, member in members.items():
            opened.writestr(name, member)
    return content.getvalue()


def p12(passphrase: str) -> bytes:
    encryption = serialization.BestAvailableEncryption(passphrase.encode())
    return pkcs12.serialize_key_and_certificates(b"x", LEAF.key, LEAF.certificate, [ROOT.certificate, INTERMEDIATE.certificate], encryption)


GOOD: dict[str, tuple[str | bytes, ...]] = {
    "chain and key": (CHAIN, KEY),
    "the wrong way round, with the root": (ROOT.pem + INTERMEDIATE.pem + LEAF.pem, KEY),
    "one file each": (KEY, ROOT.pem, LEAF.pem, INTERMEDIATE.pem),
    "key twice and a chain twice": (CHAIN, CHAIN, KEY, KEY),
    "another key beside the right one": (CHAIN, INTERMEDIATE.key_pem(), KEY),
    "another key after the right one": (CHAIN, KEY, pki.key_pem(pki.ec_key())),
    "archive": (archive(**{"a.crt": LEAF.pem, "ca-bundle.crt": INTERMEDIATE.pem, "a.key": KEY, "letter.txt": "Hello"}),),
    "encrypted key": (CHAIN, LEAF.key_pem("secret one")),
    "PKCS#12": (p12("secret one"),),
    "PKCS#7 and key": (pkcs7.serialize_certificates([INTERMEDIATE.certificate, LEAF.certificate], serialization.Encoding.DER), KEY),
    "DER": (LEAF.der, INTERMEDIATE.der, KEY),
    "Windows": (CHAIN.replace("\n", "\r\n").encode("utf-16"), b"\xef\xbb\xbf" + KEY.encode()),
}


@pytest.mark.parametrize("shape", GOOD)
def test_good_deliveries_come_out_the_same(shape: str) -> None:
    intake = take_in(*GOOD[shape], passphrase="secret one")
    assert codes(intake) == []
    assert (intake.fullchain, intake.key) == (CHAIN, KEY)
    assert intake.info["fingerprint_sha256"] == intake.info["chain"][0]["fingerprint_sha256"]
    assert [one["subject"] for one in intake.info["chain"]] == ["CN=www.example.org", "CN=Test Intermediate,O=Test Trust"]


def test_what_is_given_is_read_by_openssl() -> None:
    for key in (pki.rsa_key(), pki.ec_key()):
        usual = pki.usual(key=key)
        intake = take_in(usual.chain_pem, usual.leaf.key_pem("x"), trust=usual.root.pem, passphrase="x")
        assert codes(intake) == []
        public = subprocess.run(["openssl", "pkey", "-pubout"], input=intake.key, text=True, capture_output=True, check=True).stdout
        of_leaf = subprocess.run(
            ["openssl", "x509", "-noout", "-pubkey"], input=intake.fullchain, text=True, capture_output=True, check=True
        )
        assert public == of_leaf.stdout


def broken_key() -> str:
    """The public half is right, one prime is not."""
    numbers = pki.rsa_key().private_numbers()
    wrong = rsa.RSAPrivateNumbers(
        numbers.p, numbers.q, numbers.d + 2, numbers.dmp1 + 2, numbers.dmq1 + 2, numbers.iqmp, numbers.public_numbers
    )
    return pki.key_pem(wrong.private_key(unsafe_skip_rsa_key_validation=True))


OTHER = pki.usual(names=["other.example.org"], subject="other.example.org")
SELF_SIGNED = pki.issue("www.example.org", names=NAMES)

REFUSED: dict[str, tuple[tuple[str | bytes, ...], list[str]]] = {
    "nothing": ((), ["no_certificate"]),
    "a key only": ((KEY,), ["no_certificate"]),
    "a request": ((b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", KEY), ["truncated"]),
    "an empty file": (("", KEY), ["empty_file"]),
    "no key": ((CHAIN,), ["key_missing"]),
    "the key of another": ((CHAIN, pki.key_pem(pki.ec_key())), ["key_mismatch"]),
    "two keys of others": ((CHAIN, pki.key_pem(pki.ec_key()), pki.key_pem(pki.ec_key())), ["key_mismatch"]),
    "a damaged key": ((CHAIN, broken_key()), ["key_mismatch"]),
    "no passphrase": ((CHAIN, LEAF.key_pem("other")), ["passphrase_missing"]),
    "both in one": ((CHAIN + KEY,), ["private_key_in_certificate_file"]),
    "no intermediate": ((LEAF.pem, KEY), ["missing_intermediate"]),
    "authorities only": ((INTERMEDIATE.pem + ROOT.pem, KEY), ["leaf_not_found"]),
    "another trust": ((OTHER.chain_pem, OTHER.leaf.key_pem()), ["untrusted_root", "name_mismatch"]),
    "self-signed": ((SELF_SIGNED.pem, SELF_SIGNED.key_pem()), ["self_signed"]),
    "the end is lost": ((CHAIN[:-30], KEY), ["truncated", "missing_intermediate"]),
    "many faults": ((LEAF.pem + "-----BEGIN X-----", LEAF.key_pem("other")), ["truncated", "passphrase_missing", "missing_intermediate"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_deliveries_give_neither_chain_nor_key(case: str) -> None:
    contents, wanted = REFUSED[case]
    intake = take_in(*contents)
    assert set(wanted) <= set(codes(intake)), codes(intake)
    assert (intake.fullchain, intake.key) == ("", "")
    assert "BEGIN PRIVATE" not in repr(intake)


def test_all_faults_are_told_at_once() -> None:
    intake = take_in(CHAIN[:-30], LEAF.key_pem("x"), hostnames=["a.example.net"], at=pki.NOW + 400 * pki.DAY)
    assert {"truncated", "passphrase_missing", "missing_intermediate", "name_mismatch", "expired"} <= set(codes(intake))


def test_a_request_instead_of_the_certificate_is_told() -> None:
    request = subprocess.run(
        ["openssl", "req", "-new", "-key", "/dev/stdin", "-subj", "/CN=x"], input=KEY, text=True, capture_output=True, check=True
    ).stdout
    intake = take_in(request, KEY)
    assert codes(intake) == ["no_certificate"]
    assert "certificate request (CSR)" in intake.problems[0].message
    accepted = take_in(request, CHAIN, KEY)
    assert codes(accepted) == [] and any("certificate request" in note for note in accepted.notes)


def test_the_passphrase_is_in_no_message() -> None:
    for contents in ((CHAIN, LEAF.key_pem("right")), (p12("right"),)):
        intake = take_in(*contents, passphrase="hunter2")
        assert "wrong_passphrase" in codes(intake)
        assert "hunter2" not in repr(intake)


def test_the_pair_is_chosen_by_the_names() -> None:
    old = pki.issue("old.example.org", INTERMEDIATE, names=["old.example.org"])
    both = [old.pem + LEAF.pem + INTERMEDIATE.pem, old.key_pem(), KEY]
    intake = take_in(*both)
    assert codes(intake) == [] and (intake.fullchain, intake.key) == (CHAIN, KEY)
    assert codes(take_in(*both, hostnames=[])) == ["several_leaves"]
    # The judge takes the certificate for the names, which none of the two keys belongs to.
    third = pki.issue("a.example.org", INTERMEDIATE, names=["a.example.org"])
    assert codes(take_in(both[0] + third.pem, old.key_pem(), KEY, hostnames=["a.example.org"])) == ["key_mismatch"]


def test_a_certificate_alone_is_judged_when_no_key_is_needed() -> None:
    intake = take_in(CHAIN, key_needed=False)
    assert codes(intake) == [] and (intake.fullchain, intake.key) == (CHAIN, "")


def test_revocation_lists_beside_and_in_the_delivery() -> None:
    revoked = pki.revocation_list(INTERMEDIATE, [LEAF])
    assert codes(take_in(CHAIN, KEY, crls=[revoked])) == ["revoked"]
    assert codes(take_in(CHAIN, KEY, revoked.public_bytes(serialization.Encoding.PEM))) == ["revoked"]


def test_a_wrong_host_name_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="example"):
        take_in(CHAIN, KEY, hostnames=["https://www.example.org/"])


# --- the trust store --------------------------------------------------------------------------------------------------------------------


def test_the_trust_store() -> None:
    for trust in ("", "nothing here", KEY):
        with pytest.raises(DeliveryError):
            take_in(CHAIN, KEY, trust=trust)
    assert codes(take_in(CHAIN, KEY, trust=f"# comment\n{OTHER.root.pem}{ROOT.pem}")) == []


def test_the_trust_of_this_machine() -> None:
    trust = delivery.system_trust()
    assert len(delivery.roots_of(trust)) > 20
    started = time.process_time()
    assert codes(take_in(CHAIN, KEY, trust=trust)) == ["untrusted_root"] or "missing_intermediate" in codes(
        take_in(CHAIN, KEY, trust=trust)
    )
    assert time.process_time() - started < 1


# --- completing a chain -----------------------------------------------------------------------------------------------------------------


class Places(http.server.BaseHTTPRequestHandler):
    contents: dict[str, bytes] = {}
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path in self.contents else 404)
        self.end_headers()
        self.wfile.write(self.contents.get(self.path, b""))

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(name="issuer")
def _issuer() -> Iterator[str]:
    Places.contents, Places.asked = {}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Places)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


reach = functools.partial(fetch, allow_private=True, timeout=3)


def long_chain(issuer: str, count: int) -> tuple[pki.Pair, list[pki.Pair], pki.Pair]:
    root = above = pki.issue("Root", ca=True)
    between = []
    for number in range(count):
        above = pki.issue(f"Authority {number}", above, ca=True, aia=f"{issuer}/{number - 1}" if number else "")
        between.append(above)
    return pki.issue("www.example.org", above, names=NAMES, aia=f"{issuer}/{count - 1}"), between, root


@pytest.mark.parametrize("form", ["der", "pem", "p7"])
def test_a_missing_intermediate_is_fetched_when_allowed(issuer: str, form: str) -> None:
    usual = pki.usual(aia=f"{issuer}/ca")
    certificate = usual.intermediate.certificate
    Places.contents["/ca"] = {
        "der": usual.intermediate.der,
        "pem": usual.intermediate.pem.encode(),
        "p7": pkcs7.serialize_certificates([certificate], serialization.Encoding.DER),
    }[form]
    given = (usual.leaf.pem, usual.leaf.key_pem())
    refused = take_in(*given, trust=usual.root.pem)
    assert codes(refused) == ["missing_intermediate"] and Places.asked == []
    assert f"{issuer}/ca" in refused.problems[0].message + refused.problems[0].remedy
    intake = take_in(*given, trust=usual.root.pem, fetch=reach)
    assert codes(intake) == [] and intake.fullchain == usual.chain_pem
    assert any(f"fetched from {issuer}/ca" in note for note in intake.notes)


def test_several_are_fetched_one_after_the_other_but_not_without_end(issuer: str) -> None:
    for count, good in ((2, True), (4, True), (5, False)):
        Places.asked.clear()
        leaf, between, root = long_chain(issuer, count)
        Places.contents = {f"/{number}": pair.der for number, pair in enumerate(between)}
        intake = take_in(leaf.pem, leaf.key_pem(), trust=root.pem, fetch=reach)
        assert (codes(intake) == []) is good, (count, codes(intake))
        assert len(Places.asked) == min(count, 4)


def test_what_comes_from_there_is_judged_like_the_rest(issuer: str) -> None:
    usual, other = pki.usual(aia=f"{issuer}/ca"), pki.usual()
    given = (usual.leaf.pem, usual.leaf.key_pem())
    for content, note in ((b"<html>", "is not at"), (other.leaf.der, "fetched"), (None, "status 404"), (usual.leaf.der, "is not at")):
        Places.contents = {} if content is None else {"/ca": content}
        Places.asked.clear()
        intake = take_in(*given, trust=usual.root.pem, fetch=reach)
        assert "missing_intermediate" in codes(intake) and intake.fullchain == ""
        assert any(note in one for one in intake.notes), intake.notes
        assert Places.asked == ["/ca"]


def test_nothing_is_fetched_that_is_not_missing() -> None:
    def refuse(url: str) -> bytes:
        raise FetchError(url)

    assert codes(take_in(CHAIN, KEY, fetch=refuse)) == []
    assert take_in(CHAIN, KEY, fetch=refuse).notes == []


def test_a_private_address_in_a_certificate_is_not_fetched(issuer: str) -> None:
    usual = pki.usual(aia=f"{issuer}/ca")
    Places.contents["/ca"] = usual.intermediate.der
    intake = take_in(usual.leaf.pem, usual.leaf.key_pem(), trust=usual.root.pem, fetch=delivery.fetch)
    assert codes(intake) == ["missing_intermediate"] and Places.asked == []


def test_a_chain_of_fifty_and_a_hostile_bag_take_less_than_a_second() -> None:
    leaf, between, root = long_chain("http://ca.example.org", 50)
    started = time.process_time()
    intake = take_in("".join(one.pem for one in [leaf, *between]), leaf.key_pem(), trust=root.pem)
    assert time.process_time() - started < 1
    assert "chain_too_long" in codes(intake)
