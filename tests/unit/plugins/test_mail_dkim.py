# SPDX-License-Identifier: GPL-3.0-or-later
"""DKIM keys in the DNS, good and bad ones."""

from __future__ import annotations

import base64
import itertools
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_dkim
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dkim import Signer, check, public_half, public_key, record_of, tags
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import txt_record
from cryptography.hazmat.primitives import serialization

from tests.unit import dns_server, pki

NAME = "s1._domainkey.example.org"
RSA, EDWARDS = pki.rsa_key(), pki.ed25519_key()
GOOD = record_of(RSA.public_key())
P = GOOD.partition("p=")[2]


def numbers() -> Iterator[str]:
    """Names of tests that hold no key: keys are made anew in each process."""
    return map(str, itertools.count())


def wrong(*published: str, key: Any = None) -> list[tuple[str, str]]:
    zone = "\n".join(["example.org. IN A 203.0.113.1", *(txt_record(NAME, one) for one in published)])
    with dns_server.serving(zone) as server:
        return [(one.id, one.severity) for one in check(Dns([server]), Signer("s1", "example.org", key)) if not one.ok]


def openssl_key(bits: int) -> str:
    """As a record; the library makes no such keys."""
    private = subprocess.run(["openssl", "genrsa", str(bits)], capture_output=True, check=True).stdout
    public = subprocess.run(["openssl", "rsa", "-pubout", "-outform", "DER"], input=private, capture_output=True, check=True).stdout
    return base64.b64encode(public).decode()


@pytest.mark.parametrize(
    "record",
    [
        GOOD,
        f"p={P}",
        f"k=rsa; p={P};",
        f" v = DKIM1 ; k=rsa; h=sha1:sha256; s=email; t=s; n=a note; p= {P[:30]} {P[30:]} ; ",
        record_of(EDWARDS.public_key()),
    ],
    ids=numbers(),
)
def test_good_records(record: str) -> None:
    assert wrong(record) == []


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=DKIM1; p=", ("dkim.revoked", "error")),
        ("v=DKIM1; k=rsa", ("dkim.valid", "error")),
        (f"v=DKIM2; p={P}", ("dkim.valid", "error")),
        (f"p={P}; v=DKIM1", ("dkim.valid", "error")),
        (f"v=DKIM1; k=dsa; p={P}", ("dkim.valid", "error")),
        (f"v=DKIM1; k=ed25519; p={P}", ("dkim.valid", "error")),
        (f"v=DKIM1; h=sha1; p={P}", ("dkim.valid", "error")),
        (f"v=DKIM1; p={P}; p={P}", ("dkim.valid", "error")),
        (f"v=DKIM1 p={P}; nonsense", ("dkim.valid", "error")),
        (f"v=DKIM1; p={P[:-8]}", ("dkim.valid", "error")),
        ("v=DKIM1; p=AAAA", ("dkim.valid", "error")),
        ("v=spf1 -all", ("dkim.valid", "error")),
        (f"v=DKIM1; s=tlsrpt; p={P}", ("dkim.use", "error")),
        (f"v=DKIM1; t=y:s; p={P}", ("dkim.use", "warning")),
        (f"v=DKIM1; p={openssl_key(512)}", ("dkim.strength", "error")),
        (f"v=DKIM1; p={openssl_key(768)}", ("dkim.strength", "error")),
        (f"v=DKIM1; p={openssl_key(1024)}", ("dkim.strength", "warning")),
    ],
    ids=numbers(),
)
def test_bad_records(record: str, expected: tuple[str, str]) -> None:
    assert wrong(record) == [expected]


def test_several_and_none() -> None:
    assert wrong() == [("dkim.record", "error")]
    assert wrong(GOOD, GOOD.replace("v=DKIM1; ", "")) == [("dkim.single", "error")]


@pytest.mark.parametrize("key", [RSA, EDWARDS])
def test_the_key_that_signs_must_be_the_one_published(key: Any) -> None:
    other = pki.rsa_key(2048, 1)
    private = pki.key_pem(key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    record = record_of(key.public_key())
    for wanted in (public_half(private), public_key(public), public_key(record.partition("p=")[2])):
        assert wrong(record, key=wanted) == []
        assert wrong(record_of(other.public_key()), key=wanted) == [("dkim.match", "error")]


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", pki.key_pem(RSA), pki.usual().leaf.pem],
    ids=numbers(),
)
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"key"):
        public_key(text)


@pytest.mark.parametrize(
    "text", ["", "nonsense", pki.key_pem(RSA, "a passphrase"), pki.key_pem(pki.ec_key()), pki.key_pem(RSA)[:-200]], ids=numbers()
)
def test_what_is_no_private_key_is_said_without_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^it is no private RSA or Ed25519 key in PEM without passphrase$") as caught:
        public_half(text)
    assert caught.value.__suppress_context__


def test_tags() -> None:
    assert tags("v=DKIM1;a= b=c ;\t_ =x".replace("_", "z")) == {"v": "DKIM1", "a": "b=c", "z": "x"}
    assert tags("") == {}
    for text in ("a=1;;b=2", "a", "1=2", "a=1; a=2"):
        with pytest.raises(ValueError):
            tags(text)
    assert _mail_dkim.MISSING == ""
