# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates of every kind for tests, made at run time: good ones by default, bad ones by naming what is bad.

root = issue("Root", ca=True)
intermediate = issue("Intermediate", root, ca=True, path_length=0)
leaf = issue("www.example.org", intermediate, names=["www.example.org"])
leaf.pem + intermediate.pem, leaf.key_pem()
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip
Key = Any
Digest = hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512


@dataclasses.dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Key = dataclasses.field(repr=False)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return pem(self.certificate)

    def key_pem(self, passphrase: str = "") -> str:
        return key_pem(self.key, passphrase)


def pem(*certificates: x509.Certificate) -> str:
    return "".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in certificates)


def key_pem(key: Key, passphrase: str = "") -> str:
    """PKCS#8."""
    encryption = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    return cast(bytes, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)).decode()


@functools.cache
def rsa_key(bits: int = 2048, which: int = 0) -> rsa.RSAPrivateKey:
    """Made once in a run, since they are slow to make; C(which) tells several of one size apart."""
    return rsa.generate_private_key(65537, bits)


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def name(common_name: str, **further: str) -> x509.Name:
    """C(name("CA", organization="O")); an empty common name is left out."""
    oids = {"organization": NameOID.ORGANIZATION_NAME, "unit": NameOID.ORGANIZATIONAL_UNIT_NAME, "country": NameOID.COUNTRY_NAME}
    attributes = [x509.NameAttribute(oids[key], value) for key, value in further.items()]
    return x509.Name(attributes + ([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []))


def usage(*used: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{one: one in used for one in USAGES})


def general_name(value: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(value))
    except ValueError:
        return x509.DNSName(value)


def constraints(permitted: Sequence[x509.GeneralName] = (), excluded: Sequence[x509.GeneralName] = ()) -> x509.NameConstraints:
    return x509.NameConstraints(list(permitted) or None, list(excluded) or None)


def issue(
    subject: str | x509.Name,
    issuer: Pair | None = None,
    *,
    key: Key = None,
    names: Sequence[str] = (),
    ca: bool = False,
    path_length: int | None = None,
    start: datetime.datetime = NOW - DAY,
    end: datetime.datetime = NOW + 90 * DAY,
    usages: Sequence[str] | None = None,
    purposes: Sequence[x509.ObjectIdentifier] | None = None,
    constrained: x509.NameConstraints | None = None,
    aia: str = "",
    ocsp: str = "",
    crl: str = "",
    digest: Digest | None = None,
    pss: bool = False,
    serial: int = 0,
    issuer_name: x509.Name | None = None,
    replace: Iterable[tuple[x509.ExtensionType, bool]] = (),
    without: Iterable[type[x509.ExtensionType]] = (),
) -> Pair:
    """A certificate as a careful authority makes it, unless told otherwise.

    Args:
        issuer: who signs; nobody: it signs itself.
        key: the private key of the new certificate; a fresh P-256 key if there is none.
        names: subject alternative names and addresses.
        usages: names of C(USAGES); what fits an authority or a server if there are none.
        purposes: extended key usages; for a leaf that of a server, for an authority none. An empty list leaves them out.
        issuer_name: another name than that of C(issuer).
        replace: further extensions with their criticality; they take the place of those of the same type.
        without: types of extensions that are left out.
    """
    key = key or ec_key()
    subject = name(subject) if isinstance(subject, str) else subject
    signer = issuer or Pair(cast(x509.Certificate, None), key)
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=ca, path_length=path_length), True),
        (usage(*(usages if usages is not None else ("key_cert_sign", "crl_sign") if ca else ("digital_signature",))), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    if issuer:
        try:
            identifier = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            found.append((x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False))
        except (x509.ExtensionNotFound, ValueError):
            found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), False))
    elif not ca:
        found.append((x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False))
    if names:
        found.append((x509.SubjectAlternativeName([general_name(one) for one in names]), not list(subject)))
    purposes = ([] if ca else [SERVER]) if purposes is None else list(purposes)
    if purposes:
        found.append((x509.ExtendedKeyUsage(purposes), False))
    if constrained:
        found.append((constrained, True))
    places = [(AuthorityInformationAccessOID.CA_ISSUERS, aia), (AuthorityInformationAccessOID.OCSP, ocsp)]
    access = [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for method, url in places if url]
    if access:
        found.append((x509.AuthorityInformationAccess(access), False))
    if crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)
        found.append((x509.CRLDistributionPoints([point]), False))
    replaced = list(replace)
    left_out = {kind.oid for kind in without} | {value.oid for value, _critical in replaced}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name or (issuer.certificate.subject if issuer else subject))
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    for value, critical in [*(one for one in found if one[0].oid not in left_out), *replaced]:
        builder = builder.add_extension(value, critical)
    if isinstance(signer.key, ed25519.Ed25519PrivateKey):
        return Pair(builder.sign(signer.key, None), key)
    how = padding.PSS(padding.MGF1(digest or hashes.SHA256()), (digest or hashes.SHA256()).digest_size) if pss else None
    return Pair(builder.sign(signer.key, digest or hashes.SHA256(), rsa_padding=how), key)


def with_weak_digest(pair: Pair, issuer: Pair, digest: hashes.HashAlgorithm) -> Pair:
    """The same certificate, its RSA signature made with SHA-1 or MD5, which the library does not sign with any more.

    The object identifiers of RSA signatures differ in their last byte only.
    """
    oid = bytes.fromhex("06092a864886f70d0101")
    last = {"sha1": b"\x05", "md5": b"\x04"}[digest.name]
    tbs = pair.certificate.tbs_certificate_bytes
    weak = tbs.replace(oid + b"\x0b", oid + last)
    der = pair.der.replace(tbs, weak).replace(oid + b"\x0b", oid + last)
    signature = issuer.key.sign(weak, padding.PKCS1v15(), digest)
    return Pair(x509.load_der_x509_certificate(der[: -len(signature)] + signature), pair.key)


def flipped(der: bytes, bit: int) -> bytes:
    """The bytes with one bit turned over; bits beyond the end count from the front again."""
    position, mask = bit // 8 % len(der), 1 << bit % 8
    return der[:position] + bytes([der[position] ^ mask]) + der[position + 1 :]


def tampered(pair: Pair) -> Pair:
    """One letter of the subject is another one, nothing is signed again."""
    text = pair.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    old = text.encode() if isinstance(text, str) else text
    position = pair.der.rindex(old)
    return Pair(x509.load_der_x509_certificate(flipped(pair.der, position * 8)), pair.key)


def revocation_list(
    issuer: Pair,
    revoked: Iterable[Pair] = (),
    *,
    key: Key = None,
    last: datetime.datetime = NOW - DAY,
    following: datetime.datetime = NOW + 30 * DAY,
) -> x509.CertificateRevocationList:
    """A revocation list of an authority; with another C(key) its signature is wrong."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject).last_update(last).next_update(following)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number).revocation_date(last)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key or issuer.key, hashes.SHA256())


@dataclasses.dataclass(frozen=True)
class Pki:
    """The usual three: a root, an intermediate, a leaf for C(www.example.org) and C(example.org)."""

    root: Pair
    intermediate: Pair
    leaf: Pair

    @property
    def certificates(self) -> list[x509.Certificate]:
        """What a server sends: the leaf and the intermediate."""
        return [self.leaf.certificate, self.intermediate.certificate]

    @property
    def chain_pem(self) -> str:
        return pem(*self.certificates)


def usual(**leaf: Any) -> Pki:
    """C(leaf): arguments of C(issue) for the leaf."""
    root = issue(name("Test Root", organization="Test Trust"), ca=True, end=NOW + 3650 * DAY)
    intermediate = issue(name("Test Intermediate", organization="Test Trust"), root, ca=True, path_length=0, end=NOW + 1800 * DAY)
    arguments = {"subject": "www.example.org", "names": ["www.example.org", "example.org"], "aia": "http://ca.example.org/i.crt", **leaf}
    return Pki(root, intermediate, issue(issuer=intermediate, **arguments))
