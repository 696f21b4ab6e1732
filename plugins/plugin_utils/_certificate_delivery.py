# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes in what an issuer delivered: reads it, judges it, and gives chain and key in the one form that all services read.

Runs on the controller. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import functools
import os
import ssl
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_chain as chains
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_files as files_
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_fetch import FetchError, fetch
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, in_order, problem

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

    MISSING = chains.MISSING
except ImportError as _error:
    MISSING = str(_error)

__all__ = ["MISSING", "DeliveryError", "FetchError", "Intake", "fetch", "roots_of", "system_trust", "take_in"]

MAXIMUM_FETCHES = 4

# Where distributions keep the roots that they trust, for a Python that was built elsewhere.
_ROOT_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/ca-certificates/cert.pem",
)
# Why there is no key although one may have been handed in.
_KEY_UNREAD = {"passphrase_missing", "wrong_passphrase", "unreadable", "truncated", "empty_file", "too_large"}


class DeliveryError(Exception):
    """The trust store cannot be used, so nothing can be judged."""


class Intake(t.NamedTuple):
    """A delivery as taken in.

    Attributes:
        fullchain: PEM, the leaf first, without the root; empty when there are problems.
        key: PEM, PKCS#8 without passphrase: a secret; empty when there are problems.
        problems: why it is refused, all of it.
        info: C(describe) of the leaf with V(chain) (C(describe) of each link); empty when there is no leaf.
        notes: what was done and what was left out, for people.
    """

    fullchain: str
    key: str
    problems: t.List[Problem]
    info: t.Dict[str, t.Any]
    notes: t.List[str]


def take_in(
    files: t.Sequence[t.Tuple[str, bytes]],
    *,
    trust: str,
    hostnames: t.Sequence[str] = (),
    passphrase: t.Optional[str] = None,
    at: t.Optional[datetime.datetime] = None,
    fetch: t.Optional[t.Callable[[str], bytes]] = None,
    crls: t.Sequence[x509.CertificateRevocationList] = (),
    key_needed: bool = True,
) -> Intake:
    """Read and judge a delivery.

    Args:
        files: pairs of a name (for messages) and the content.
        trust: PEM of the roots it may end at.
        hostnames: names and addresses that it must be for, all of them.
        passphrase: opens encrypted keys; never part of a message.
        at: the time it is judged at, now unless given.
        fetch: gets a missing intermediate from the address in the certificate (such as C(fetch) of this module); not done unless given.
        crls: revocation lists beside those in the files.
        key_needed: whether the private key must be there too.

    Raises:
        DeliveryError: C(trust) holds no certificate.
        ValueError: a host name is none; the message says what to write.
    """
    at = at or datetime.datetime.now(datetime.timezone.utc)
    roots = roots_of(trust)
    bag = files_.read(files, passphrase)
    problems = list(bag.problems)
    notes = [f"{one}; it is not needed." for one in bag.others]
    if not bag.certificates:
        if not {found.code for found in problems} & {*_KEY_UNREAD, "no_certificate"}:
            what = "; ".join(bag.others) or f"There is no certificate in {', '.join(files_.printable(name) for name, _content in files)}"
            problems.append(problem("no_certificate", f"{what}."))
        return Intake("", "", in_order(problems), {}, [])

    certificates = list(bag.certificates)
    public_key = _wanted_key(certificates, bag.keys)

    def judge() -> chains.Verdict:
        return chains.judge(certificates, roots, hostnames=hostnames, public_key=public_key, at=at, crls=[*bag.crls, *crls])

    verdict = judge()
    asked: t.Set[str] = set()
    while fetch and verdict.unfinished and len(asked) < MAXIMUM_FETCHES:
        address = next((url for url in chains.describe(verdict.unfinished, at)["aia_issuers"] if url not in asked), None)
        if not address:
            break
        asked.add(address)
        try:
            found = files_.read([(address, fetch(address))]).certificates
        except FetchError as error:
            notes.append(f"The missing issuer's certificate could not be fetched: {error}.")
            continue
        new = [one for one in found if one not in certificates]
        if new:
            notes.append(f"The missing issuer's certificate was fetched from {files_.printable(address)}.")
            certificates += new
            verdict = judge()
        else:
            notes.append(f"The missing issuer's certificate is not at {files_.printable(address)}, where it should be.")
    # Lists among the files came by themselves; the others somebody named.
    verdict = chains.with_lists(verdict, crls, at)
    problems += verdict.problems

    leaf = verdict.chain[0] if verdict.chain else None
    key = next((one for one in bag.keys if leaf and _same_key(one.public_key(), leaf)), None)
    if key and leaf and not _key_works(key, leaf):
        problems.append(problem("key_mismatch", "The private key is damaged: what it signs does not fit its own public key."))
    if key_needed and not bag.keys and not {found.code for found in bag.problems} & _KEY_UNREAD:
        problems.append(problem("key_missing", "There is no private key in these files."))
    elif key_needed and leaf and not key and not problems:
        problems.append(problem("key_mismatch", "None of the private keys in these files belongs to the certificate."))
    info = {**chains.describe(leaf, at), "chain": [chains.describe(one, at) for one in verdict.chain]} if leaf else {}
    if problems or (key_needed and not key):
        return Intake("", "", in_order(problems), info, notes + verdict.notes)
    return Intake(files_.as_pem(verdict.chain), files_.key_as_pem(key) if key else "", [], info, notes + verdict.notes)


def _key_works(key: t.Any, certificate: x509.Certificate) -> bool:
    """Whether what the private key signs fits the certificate: a damaged key has the right public half too."""
    public, proof = certificate.public_key(), b"civitas.hosting"
    try:
        if isinstance(key, rsa.RSAPrivateKey) and isinstance(public, rsa.RSAPublicKey):
            public.verify(key.sign(proof, padding.PKCS1v15(), hashes.SHA256()), proof, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(key.sign(proof, ec.ECDSA(hashes.SHA256())), proof, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
            t.cast(t.Any, public).verify(key.sign(proof), proof)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        return False
    return True


def _wanted_key(certificates: t.Sequence[x509.Certificate], keys: t.Sequence[t.Any]) -> t.Any:
    """The public key that the leaf must have: of the keys handed in, the one that a certificate is for."""
    fitting = [key.public_key() for key in keys if any(_same_key(key.public_key(), one) for one in certificates)]
    if not fitting:
        return keys[0].public_key() if keys else None
    # Two pairs in one delivery: which is meant, the judge may tell by the names.
    return fitting[0] if len(fitting) == 1 else None


def _same_key(public: t.Any, certificate: x509.Certificate) -> bool:
    return files_.public_bytes(public) == files_.public_bytes(certificate.public_key())


@functools.lru_cache(maxsize=8)
def roots_of(trust: str) -> t.Tuple[x509.Certificate, ...]:
    """The certificates of a trust store in PEM.

    Raises:
        DeliveryError: there is none.
    """
    bag = files_.read([("the trust store", trust.encode())], maximum_size=16 * 1024 * 1024)
    # Distributions list odd roots and comments; what is there is used, and what is not can only refuse.
    if not bag.certificates:
        raise DeliveryError("; ".join(found.message for found in bag.problems) or "The trust store holds no certificate.")
    return tuple(bag.certificates)


def system_trust() -> str:
    """The roots that this machine trusts, PEM.

    Raises:
        DeliveryError: no bundle is found.
    """
    paths = ssl.get_default_verify_paths()
    for path in dict.fromkeys([paths.cafile, paths.openssl_cafile, *_ROOT_BUNDLES]):
        if path and os.path.isfile(path) and os.path.getsize(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
    raise DeliveryError("this machine has no bundle of trusted roots; install ca-certificates, or name a trust file")
