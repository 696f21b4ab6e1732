# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal certification authority: its creation, and the issue of leaf certificates. Runs on the controller.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import ipaddress
import typing as t

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

CA_LIFETIME = datetime.timedelta(days=3650)
# Hosts whose clocks are a little behind must not refuse a certificate of this minute.
BACKDATING = datetime.timedelta(minutes=10)


class CaError(Exception):
    """A request or a CA that cannot be used."""


class Ca(t.NamedTuple):
    """The CA's private key and certificate, both PEM."""

    key: str
    certificate: str


def create_ca(common_name: str, now: datetime.datetime) -> Ca:
    """A new CA that can sign leafs only (path length 0). C(now) is aware of its time zone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Ca(pem.decode(), _pem(certificate))


def check_ca(ca: Ca, now: datetime.datetime) -> None:
    """Judge a stored CA.

    Raises:
        CaError: key and certificate are not PEM, do not belong together, or the certificate is not valid now.
    """
    try:
        key = serialization.load_pem_private_key(ca.key.encode(), password=None)
        certificate = x509.load_pem_x509_certificate(ca.certificate.encode())
    except (ValueError, TypeError) as error:
        raise CaError(f"the stored internal CA is not a PEM key and a PEM certificate: {error}") from error
    if _spki(key.public_key()) != _spki(certificate.public_key()):
        raise CaError("the stored key of the internal CA does not belong to its certificate; restore the secrets file from its backup")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise CaError(
            f"the internal CA is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to {certificate.not_valid_after_utc:%Y-%m-%d}, "
            "not now; check the controller's clock, or remove internal_ca_key and internal_ca_certificate from the secrets file for a new "
            "one"
        )


def reason_to_issue(
    certificate_pem: str,
    public_key_pem: str,
    hosts: t.Sequence[str],
    ca: Ca,
    now: datetime.datetime,
    renew_before: datetime.timedelta,
) -> str:
    """Why the certificate on a host has to be replaced; empty when it is good.

    Args:
        certificate_pem: the certificate found, empty when there is none.
        public_key_pem: the public half of the key found beside it, empty when there is none.
        hosts: names and addresses it must be for, in any order.
        ca: the CA that must have signed it.
        now: the time it is judged at.
        renew_before: how long before its end it is replaced.
    """
    if not certificate_pem:
        return "there is none"
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    except ValueError:
        return "it cannot be read"
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return "it is not from this CA"
    if not public_key_pem:
        return "its key is missing"
    try:
        if _spki(serialization.load_pem_public_key(public_key_pem.encode())) != _spki(certificate.public_key()):
            return "its key is another one"
    except ValueError:
        return "its key cannot be read"
    if _names_of(certificate) != _normal(hosts):
        return "its names differ"
    if now + renew_before > certificate.not_valid_after_utc:
        return f"it ends on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if now < certificate.not_valid_before_utc:
        return "it is not valid yet"
    return ""


def issue(ca: Ca, request_pem: str, hosts: t.Sequence[str], now: datetime.datetime, lifetime: datetime.timedelta) -> str:
    """Sign a leaf certificate for server and client authentication; the names come from C(hosts), only the key from the request.

    Returns:
        The leaf in PEM. It never outlives the CA.

    Raises:
        CaError: the request is not a PEM request, its signature is wrong, or there are no hosts.
    """
    if not hosts:
        raise CaError("a certificate needs at least one name or address")
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
    except ValueError as error:
        raise CaError(f"the host's certificate request cannot be read: {error}") from error
    if not request.is_signature_valid:
        raise CaError("the signature of the host's certificate request is wrong")
    key = t.cast(ec.EllipticCurvePrivateKey, serialization.load_pem_private_key(ca.key.encode(), password=None))
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(min(now + lifetime, issuer.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate)


def check_host(host: str) -> t.Optional[str]:
    """What is wrong with a name or address for a certificate; V(None) when nothing is."""
    try:
        ipaddress.ip_address(host)
        return None
    except ValueError:
        pass
    labels = host.split(".")
    if not host.isascii():
        return "write an international name in its ASCII form (xn--...)"
    if len(host) > 253 or not all(0 < len(label) <= 63 for label in labels):
        return "a name has labels of 1 to 63 characters, 253 in all"
    if labels[0] == "*":
        labels = labels[1:]
    if not labels or any(not all(c.isalnum() or c == "-" for c in label) or label[0] == "-" or label[-1] == "-" for label in labels):
        return "a name has letters, digits and hyphens between its dots, nothing else"
    return None


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.lower())


def _normal(hosts: t.Sequence[str]) -> t.Set[str]:
    return {str(_general_name(host).value) for host in hosts}


def _names_of(certificate: x509.Certificate) -> t.Set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _key_usage(**used: bool) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{usage: used.get(usage, False) for usage in every})


def _spki(key: t.Any) -> bytes:
    return t.cast(bytes, key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
