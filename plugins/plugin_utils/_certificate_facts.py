# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a certificate says, read once and tolerantly: what cannot be read counts as absent and is told. Runs on the controller.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import ipaddress
import typing as t
from functools import cached_property

from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_names import normal
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, problem

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
    from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

DAY = 86400
FAST_RSA = 4096
EXPONENT_BITS = 64
NameKey = t.Tuple[t.Any, ...]
_Extension = t.TypeVar("_Extension")


class Who(t.NamedTuple):
    """A certificate as people are told of it; its serial number only where two of one name have to be told apart."""

    name: str
    serial: str

    def __str__(self) -> str:
        return self.name

    def problem(self, code: str, message: str) -> Problem:
        """A problem of this certificate."""
        return problem(code, message, f"{self.name}, serial {self.serial}")


class Link:
    """A certificate as a possible link of a chain. Equal when the bytes are."""

    def __init__(self, certificate: x509.Certificate) -> None:
        self.certificate = certificate

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Link) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @cached_property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @cached_property
    def fingerprint(self) -> bytes:
        return self.certificate.fingerprint(hashes.SHA256())

    @cached_property
    def serial(self) -> str:
        return f"{self.certificate.serial_number:x}"

    # --- names ---

    @cached_property
    def subject(self) -> NameKey:
        return name_key(self.name("subject"), self.fingerprint)

    @cached_property
    def issuer(self) -> NameKey:
        return name_key(self.name("issuer"), self.fingerprint)

    @cached_property
    def self_issued(self) -> bool:
        return self.subject == self.issuer

    @cached_property
    def common_names(self) -> t.List[str]:
        return [_printable(str(one.value)) for one in self._attributes("subject", NameOID.COMMON_NAME)]

    @cached_property
    def subject_text(self) -> str:
        return name_text(self.name("subject"))

    @cached_property
    def issuer_text(self) -> str:
        return name_text(self.name("issuer"))

    def organizations(self, which: str) -> t.Set[str]:
        """Of the V(subject) or the V(issuer)."""
        return {str(one.value).casefold() for one in self._attributes(which, NameOID.ORGANIZATION_NAME)}

    def exact_name(self, which: str) -> bytes:
        """V(subject) or V(issuer) as it is written; programs that compare bytes tell apart what others take for the same."""
        name = self.name(which)
        return name.public_bytes() if name is not None else b""

    def who(self, role: str) -> Who:
        """For messages, such as C(leaf CN=www.example.org)."""
        name = f"CN={self.common_names[0]}" if self.common_names else self.subject_text or next(iter(self.names), "") or "without a name"
        return Who(f"{role} {name}", self.serial)

    def name(self, which: str) -> t.Optional[x509.Name]:
        """V(subject) or V(issuer); V(None) when it cannot be read."""
        try:
            return t.cast(x509.Name, getattr(self.certificate, which))
        except (ValueError, TypeError):
            return None

    def _attributes(self, which: str, oid: x509.ObjectIdentifier) -> t.List[t.Any]:
        name = self.name(which)
        return list(name.get_attributes_for_oid(oid)) if name is not None else []

    # --- key and signature ---

    @cached_property
    def public_key(self) -> t.Any:
        """V(None) when the library cannot read it."""
        try:
            return self.certificate.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            return None

    @cached_property
    def key_bytes(self) -> bytes:
        return key_bytes(self.public_key) if self.public_key is not None else self.fingerprint

    @cached_property
    def key_type(self) -> str:
        return key_type(self.public_key)

    @cached_property
    def is_slow(self) -> bool:
        """Whether checking a signature with its key takes several times as long as usual."""
        key = self.public_key
        if isinstance(key, rsa.RSAPublicKey):
            return key.key_size > FAST_RSA
        return isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1)

    @cached_property
    def is_absurd(self) -> bool:
        """Whether the key was made to keep those busy who check signatures with it; no program makes RSA exponents that large."""
        key = self.public_key
        return isinstance(key, rsa.RSAPublicKey) and key.public_numbers().e.bit_length() > EXPONENT_BITS

    @cached_property
    def digest(self) -> str:
        """Name of the signature's digest; empty when the algorithm has none of its own or is unknown."""
        try:
            algorithm = self.certificate.signature_hash_algorithm
        except UnsupportedAlgorithm:
            return ""
        return algorithm.name if algorithm else ""

    # --- extensions ---

    @cached_property
    def _extensions(self) -> t.Tuple[t.Dict[str, x509.Extension[t.Any]], str]:
        try:
            return {one.oid.dotted_string: one for one in self.certificate.extensions}, ""
        except (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            return {}, _printable(str(error)) or type(error).__name__

    @property
    def unreadable(self) -> str:
        """Why the extensions cannot be read; empty when they can."""
        return self._extensions[1]

    def extension(self, kind: t.Type[_Extension]) -> t.Optional[_Extension]:
        found = self._extensions[0].get(kind.oid.dotted_string)  # type: ignore[attr-defined]
        return found.value if found and isinstance(found.value, kind) else None

    def is_critical(self, kind: t.Any) -> bool:
        found = self._extensions[0].get(kind.oid.dotted_string)
        return bool(found and found.critical)

    @cached_property
    def is_ca(self) -> bool:
        found = self.extension(x509.BasicConstraints)
        return bool(found and found.ca)

    @cached_property
    def path_length(self) -> t.Optional[int]:
        found = self.extension(x509.BasicConstraints)
        return found.path_length if found else None

    @cached_property
    def key_usage(self) -> t.Optional[x509.KeyUsage]:
        return self.extension(x509.KeyUsage)

    @cached_property
    def purposes(self) -> t.Optional[t.Set[x509.ObjectIdentifier]]:
        """Extended key usages; V(None) when there is no such extension, so that none is excluded."""
        found = self.extension(x509.ExtendedKeyUsage)
        return set(found) if found is not None else None

    @cached_property
    def key_id(self) -> t.Optional[bytes]:
        found = self.extension(x509.SubjectKeyIdentifier)
        return found.digest if found else None

    @cached_property
    def authority(self) -> t.Optional[x509.AuthorityKeyIdentifier]:
        return self.extension(x509.AuthorityKeyIdentifier)

    @cached_property
    def issuer_key_id(self) -> t.Optional[bytes]:
        return self.authority.key_identifier if self.authority else None

    @cached_property
    def dns_names(self) -> t.List[str]:
        """Normal where possible; what is no host name stays as it is and matches nothing."""
        found = self.extension(x509.SubjectAlternativeName)
        return [_normal_or_same(one) for one in found.get_values_for_type(x509.DNSName)] if found else []

    @cached_property
    def addresses(self) -> t.List[t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]]:
        found = self.extension(x509.SubjectAlternativeName)
        values = found.get_values_for_type(x509.IPAddress) if found else []
        return [one for one in values if isinstance(one, (ipaddress.IPv4Address, ipaddress.IPv6Address))]

    @cached_property
    def names(self) -> t.List[str]:
        return self.dns_names + [str(one) for one in self.addresses]

    @cached_property
    def start(self) -> datetime.datetime:
        return self.certificate.not_valid_before_utc

    @cached_property
    def end(self) -> datetime.datetime:
        return self.certificate.not_valid_after_utc

    def urls(self, method: x509.ObjectIdentifier) -> t.List[str]:
        found = self.extension(x509.AuthorityInformationAccess)
        places = [one.access_location for one in found or () if one.access_method == method]
        return [_printable(one.value) for one in places if _is_url(one)]

    @property
    def issuer_urls(self) -> t.List[str]:
        """Where the issuer's certificate is said to be."""
        return self.urls(AuthorityInformationAccessOID.CA_ISSUERS)


def key_bytes(public_key: t.Any) -> bytes:
    """A public key in the form in which keys are compared."""
    return t.cast(bytes, public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def key_type(public_key: t.Any) -> str:
    """V(rsa), V(ec), V(ed25519), V(ed448), V(dsa) or V(unknown)."""
    kinds = (
        (rsa.RSAPublicKey, "rsa"), (ec.EllipticCurvePublicKey, "ec"), (ed25519.Ed25519PublicKey, "ed25519"),
        (ed448.Ed448PublicKey, "ed448"), (dsa.DSAPublicKey, "dsa"),
    )  # fmt: skip
    return next((name for kind, name in kinds if isinstance(public_key, kind)), "unknown")


def signature_holds(child: Link, issuer: Link) -> t.Optional[bool]:
    """Whether the issuer's key made the child's signature, whatever the names are; V(None) when the library cannot tell."""
    certificate, key = child.certificate, issuer.public_key
    if issuer.is_absurd:
        return None
    try:
        signature, signed = certificate.signature, certificate.tbs_certificate_bytes
        # The library overlooks a signature that claims to have unused bits; others refuse it, and nobody makes one.
        if child.der[-len(signature) - 1] != 0:
            return False
        if isinstance(key, (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)):
            key.verify(signature, signed)
        elif certificate.signature_algorithm_parameters is None:
            return None
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, certificate.signature_algorithm_parameters, certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, signed, certificate.signature_algorithm_parameters)  # type: ignore[arg-type]
        else:
            return None
    except (InvalidSignature, ValueError, TypeError):
        # The wrong kind of key or parameters is a wrong signature, too.
        return False
    except UnsupportedAlgorithm:
        return None
    return True


def describe(certificate: x509.Certificate, at: t.Optional[datetime.datetime] = None) -> t.Dict[str, t.Any]:
    """The facts about a certificate, plain data.

    Args:
        at: the time that C(days_left) counts from, aware of its time zone; now if there is none.
    """
    link = Link(certificate)
    points = link.extension(x509.CRLDistributionPoints)
    feature = link.extension(x509.TLSFeature)
    left = (link.end - (at or datetime.datetime.now(datetime.timezone.utc))).total_seconds()
    key = link.public_key
    return {
        "subject": link.subject_text,
        "issuer": link.issuer_text,
        "serial": link.serial,
        "names": link.names,
        "not_before": _iso(link.start),
        "not_after": _iso(link.end),
        "days_left": int(left // DAY),
        "lifetime_days": int(-(-(link.end - link.start).total_seconds() // DAY)),
        "key_type": link.key_type,
        "key_bits": int(getattr(key, "key_size", {"ed25519": 256, "ed448": 456}.get(link.key_type, 0))),
        "curve": key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else "",
        "digest": link.digest,
        "is_ca": link.is_ca,
        "fingerprint_sha256": link.fingerprint.hex(),
        "self_signed": link.self_issued and signature_holds(link, link) is True,
        "aia_issuers": link.issuer_urls,
        "ocsp": link.urls(AuthorityInformationAccessOID.OCSP),
        "crl_urls": [_printable(name.value) for point in points or () for name in point.full_name or () if _is_url(name)],
        "must_staple": bool(feature and x509.TLSFeatureType.status_request in list(feature)),
        "wildcard": any(name.startswith("*.") for name in link.names),
    }


def _iso(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_url(name: t.Any) -> bool:
    return isinstance(name, x509.UniformResourceIdentifier)


def name_key(name: t.Optional[x509.Name], fallback: bytes) -> NameKey:
    """The same for names that differ only in letter case, spaces or kind of string."""
    if name is None:
        return ("unreadable", fallback)
    return tuple(tuple(sorted((one.oid.dotted_string, _folded(one.value)) for one in relative)) for relative in name.rdns)


def _folded(value: t.Union[str, bytes]) -> str:
    return value.hex() if isinstance(value, bytes) else " ".join(value.split()).casefold()


def name_text(name: t.Optional[x509.Name]) -> str:
    return _printable(name.rfc4514_string()) if name is not None else ""


def _normal_or_same(name: str) -> str:
    try:
        return normal(name)
    except ValueError:
        return _printable(name)


def _printable(text: str) -> str:
    """Strangers write certificates: nothing that moves a terminal's cursor, nothing endless."""
    return "".join(c if c.isprintable() else "?" for c in text[:200])
