# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges DKIM keys (RFC 6376, 8301, 8463): the record of a selector, the key in it, and whether it is the one that signs.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import base64
import binascii
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_facts import key_bytes, key_type
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns, Unanswered
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, bad, good, txt_record, unknown

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

MINIMUM_BITS = 1024
GOOD_BITS = 2048
_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)

_EXPECTED = {
    "dkim.record": "a TXT record with the public key",
    "dkim.single": "one record",
    "dkim.valid": "v=DKIM1, and a key of k=rsa or k=ed25519 in p=",
    "dkim.revoked": "a key in p=",
    "dkim.strength": f"RSA with {GOOD_BITS} bits or more",
    "dkim.use": "no t=y (testing), and s= for mail",
    "dkim.match": "the public key of the private key that signs",
}


class Signer(t.NamedTuple):
    """Who signs, and with which key where that is known.

    Attributes:
        selector: its name.
        domain: the signing domain (d=).
        key: the public key that must be in the record, V(None) when nobody said.
    """

    selector: str
    domain: str
    key: t.Any

    @property
    def name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


def tags(record: str) -> t.Dict[str, str]:
    """The tags of a DKIM or DMARC record (RFC 6376, 3.2), without the white space around them.

    Raises:
        ValueError: something is no tag, or a tag comes twice.
    """
    found: t.Dict[str, str] = {}
    parts = record.split(";")
    # A semicolon may end the list.
    for part in parts[:-1] if not parts[-1].strip() else parts:
        tag = _TAG.fullmatch(part)
        if not tag:
            raise ValueError(f"{part.strip()!r} is no tag with a value")
        if tag[1] in found:
            raise ValueError(f"{tag[1]}= comes twice")
        found[tag[1]] = tag[2].strip()
    return found


def public_key(text: str) -> t.Any:
    """A public key that somebody wrote: PEM, or what stands in p=.

    Raises:
        ValueError: it is none.
    """
    if "-----BEGIN" in text:
        try:
            return _known(serialization.load_pem_public_key(text.strip().encode()))
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("it is no public RSA or Ed25519 key in PEM") from None
    content = _decoded(text)
    return _from_der(content, "ed25519" if len(content) == 32 else "rsa")


def public_half(private_key: str) -> t.Any:
    """The public key of a private key in PEM. Raises C(ValueError), without a word of the key."""
    try:
        return _known(serialization.load_pem_private_key(private_key.strip().encode(), None).public_key())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it is no private RSA or Ed25519 key in PEM without passphrase") from None


def record_of(key: t.Any) -> str:
    """The record for a public key."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(key.public_bytes_raw()).decode()}"
    return f"v=DKIM1; k=rsa; p={base64.b64encode(key_bytes(key)).decode()}"


def check(dns: Dns, signer: Signer) -> t.List[Finding]:
    """All findings for one selector."""
    name = signer.name
    write = txt_record(name, record_of(signer.key)) if signer.key else f"Write the record that the signer shows for {name}."
    try:
        found = dns.text(name)
    except Unanswered as error:
        return [unknown("dkim.record", name, error, _EXPECTED["dkim.record"])]
    if not found:
        return [bad("dkim.record", name, "no TXT record", _EXPECTED["dkim.record"], write)]
    findings = [good("dkim.record", name, found[0], _EXPECTED["dkim.record"])]
    if len(found) > 1:
        remedy = f"Receivers take any of them. Remove all but one:\n{write}"
        return [bad("dkim.single", name, f"{len(found)} records: {' | '.join(found)}", _EXPECTED["dkim.single"], remedy)]
    findings.append(good("dkim.single", name, "one record", _EXPECTED["dkim.single"]))
    try:
        parts = tags(found[0])
        _check_tags(parts, found[0])
        if not parts["p"]:
            return [*findings, bad("dkim.revoked", name, "p= is empty: the key is revoked", _EXPECTED["dkim.revoked"], write)]
        key = _from_der(_decoded(parts["p"]), parts.get("k", "rsa"))
    except ValueError as error:
        return [*findings, bad("dkim.valid", name, f"{error}: {found[0]}", _EXPECTED["dkim.valid"], write)]
    findings.append(good("dkim.valid", name, found[0], _EXPECTED["dkim.valid"]))
    findings.append(good("dkim.revoked", name, "a key", _EXPECTED["dkim.revoked"]))
    findings += [_strength(name, key), _use(name, parts, write)]
    if signer.key:
        told = "the same key"
        if key_bytes(key) != key_bytes(signer.key):
            findings.append(bad("dkim.match", name, f"another key: {found[0]}", _EXPECTED["dkim.match"], write))
        else:
            findings.append(good("dkim.match", name, told, _EXPECTED["dkim.match"]))
    return findings


def _check_tags(parts: t.Mapping[str, str], record: str) -> None:
    if "v" in parts and (parts["v"] != "DKIM1" or next(iter(parts)) != "v"):
        raise ValueError("v= is not DKIM1 at the beginning")
    if "p" not in parts:
        raise ValueError("there is no p=")
    if parts.get("k", "rsa") not in ("rsa", "ed25519"):
        raise ValueError(f"k={parts['k']} is unknown")
    digests = [one.strip() for one in parts.get("h", "sha256").split(":")]
    if "sha256" not in digests:
        raise ValueError(f"h={parts['h']} leaves out sha256, the one that is still accepted")


def _strength(name: str, key: t.Any) -> Finding:
    expected = _EXPECTED["dkim.strength"]
    if isinstance(key, ed25519.Ed25519PublicKey):
        return good("dkim.strength", name, "Ed25519; sign with RSA as well, some receivers know nothing else", expected)
    bits = key.key_size
    remedy = f"Make a key of {GOOD_BITS} bits under a new selector, sign with it, and let this one go a week later."
    if bits < MINIMUM_BITS:
        return bad("dkim.strength", name, f"RSA with {bits} bits, which receivers ignore", expected, remedy)
    if bits < GOOD_BITS:
        return bad("dkim.strength", name, f"RSA with {bits} bits", expected, remedy, "warning")
    return good("dkim.strength", name, f"RSA with {bits} bits", expected)


def _use(name: str, parts: t.Mapping[str, str], write: str) -> Finding:
    expected = _EXPECTED["dkim.use"]
    services = [one.strip() for one in parts.get("s", "*").split(":")]
    if "*" not in services and "email" not in services:
        return bad("dkim.use", name, f"s={parts['s']}: the key is not for mail", expected, write)
    if "y" in [one.strip() for one in parts.get("t", "").split(":")]:
        return bad("dkim.use", name, "t=y: receivers treat signatures as if there were none", expected, write, "warning")
    return good("dkim.use", name, "for mail", expected)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise ValueError("the key is no base64") from None


def _from_der(content: bytes, kind: str) -> t.Any:
    try:
        if kind == "ed25519":
            return ed25519.Ed25519PublicKey.from_public_bytes(content)
        return _known(serialization.load_der_public_key(content))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"p= holds no {'Ed25519' if kind == 'ed25519' else 'RSA'} key") from None


def _known(key: t.Any) -> t.Any:
    if not isinstance(key, (rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
        raise ValueError(f"a key of the kind {key_type(key)}")
    return key
