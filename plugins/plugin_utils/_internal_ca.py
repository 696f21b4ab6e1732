# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal certification authority: root, issuing CA, leafs, revocation lists. Runs on the controller.

Private to the collection: no promise of stability.

Clients trust the root. Its key signs issuing CAs and their revocation, and is kept offline. The issuing CA may sign for few names only.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
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

ROOT_LIFETIME = datetime.timedelta(days=20 * 365)
ISSUING_LIFETIME = datetime.timedelta(days=5 * 365)
# So long before its end the issuing CA is renewed by a run that has the root's key, and asked for by one that has not.
ISSUING_RENEWAL = datetime.timedelta(days=365)
# Hosts whose clocks are a little behind must not refuse a certificate of this minute.
BACKDATING = datetime.timedelta(minutes=10)
# Nobody else can own an address of these: loopback, private networks, and the range that VPNs and carriers use.
PRIVATE_NETWORKS = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "::1/128", "fc00::/7")

_CRL = re.compile(r"-----BEGIN X509 CRL-----\n.*?-----END X509 CRL-----\n", re.DOTALL)
_SERIAL = re.compile(r"(?:0x)?[0-9a-f]{16,40}|[0-9a-f]{2}(?::[0-9a-f]{2}){7,19}", re.IGNORECASE)
_ISSUING_CA = "issuing-ca"


class CaError(Exception):
    """A request or a CA that cannot be used."""


class Root(t.NamedTuple):
    """What is kept offline: the root's private key and certificate, both PEM."""

    key: str
    certificate: str


class Ca(t.NamedTuple):
    """What every run needs; empty texts for what there is not.

    Attributes:
        root: the root's certificate.
        key: the issuing CA's private key.
        certificate: the issuing CA's certificate.
        crls: revocation lists: the root's, the issuing CA's, and the last one of its predecessors.
        issued: the ledger, one line a certificate: serial number, last day, whose it is (C(host/name)), its names.
    """

    root: str = ""
    key: str = ""
    certificate: str = ""
    crls: str = ""
    issued: str = ""


class Policy(t.NamedTuple):
    """What the inventory asks for.

    Attributes:
        common_name: the name of a new root.
        permitted: names (each with all below it) and networks that the issuing CA may sign for, beside C(PRIVATE_NETWORKS).
        lifetime: for how long leafs and revocation lists are made.
        renew_before: how long before their end both are replaced.
        revoked: serial numbers, and names that must not have certificates any more.
    """

    common_name: str
    permitted: t.Sequence[str]
    lifetime: datetime.timedelta
    renew_before: datetime.timedelta
    revoked: t.Sequence[str] = ()


class Need(t.NamedTuple):
    """Why the root's key is needed.

    Attributes:
        reason: what is wrong, in words.
        urgent: the run cannot go on without it.
        told: people are told, even when it is not urgent.
        issuing: a new issuing CA is what it is needed for.
    """

    reason: str
    urgent: bool = True
    told: bool = True
    issuing: bool = True


class Entry(t.NamedTuple):
    """A line of the ledger."""

    serial: int
    until: str
    owner: str
    names: t.Tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.serial:x} {self.until} {self.owner} {','.join(self.names)}\n"


# The inventory's wishes.


def policy_problems(policy: Policy) -> t.List[str]:
    """What is wrong with C(policy) in itself."""
    problems = []
    if policy.renew_before >= policy.lifetime:
        problems.append(
            f"certificates live {policy.lifetime.days} days and would be replaced {policy.renew_before.days} days before their end, at "
            "every run; write certificates_renew_before_days smaller than certificates_lifetime_days"
        )
    for item in policy.permitted:
        why = _permitted_problem(item)
        if why:
            problems.append(f"certificates_ca_permitted_names: {item!r}: {why}")
    if not any(isinstance(item, str) and _network(item) is None for item in policy.permitted):
        problems.append("certificates_ca_permitted_names holds no name, so the CA could sign for all names; write your domain")
    for item in policy.revoked:
        if not isinstance(item, str):
            problems.append(f"certificates_revoked: {item!r} is no text; put quotes around a serial number")
        elif not _SERIAL.fullmatch(item) and check_host(item):
            problems.append(
                f"certificates_revoked: {item!r} is neither a serial number, as 'openssl x509 -noout -serial' prints it, nor a name: "
                f"{check_host(item)}"
            )
    return problems


def _permitted_problem(item: t.Any) -> t.Optional[str]:
    if not isinstance(item, str):
        return "write a name or a network, in quotes"
    network = _network(item)
    if network is not None:
        return "that is every address; write the network that the hosts are in" if network.prefixlen == 0 else None
    if item.startswith(("*", ".")):
        return f"a name permits all names below it; write {item.lstrip('*.') or 'your domain'}"
    return check_host(item)


def outside(hosts: t.Iterable[str], permitted: t.Sequence[str]) -> t.List[str]:
    """Those of C(hosts) that lie outside of C(permitted) and the private networks."""
    networks = [network for network in (_network(item) for item in (*PRIVATE_NETWORKS, *permitted)) if network is not None]
    names = [item.lower() for item in permitted if _network(item) is None]
    found = []
    for host in hosts:
        address = _address(host)
        if address is not None:
            good = any(address in network for network in networks)
        else:
            name = host.lower()[2:] if host.startswith("*.") else host.lower()
            good = any(name == base or name.endswith(f".{base}") for base in names)
        if not good:
            found.append(host)
    return found


def check_host(host: str) -> t.Optional[str]:
    """What is wrong with a name or address for a certificate; V(None) when nothing is."""
    if _address(host) is not None:
        return None
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


def revoked_names(policy: Policy, hosts: t.Iterable[str]) -> t.List[str]:
    """Those of C(hosts) that must not have certificates any more."""
    revoked = _normal([item for item in policy.revoked if not _SERIAL.fullmatch(item)])
    return [host for host in hosts if _normal([host]) & revoked]


def unknown_serials(policy: Policy, ca: Ca) -> t.List[str]:
    """Those of the revoked serial numbers that the ledger does not have."""
    known = {entry.serial for entry in ledger(ca.issued)}
    return [item for item in policy.revoked if _SERIAL.fullmatch(item) and _serial(item) not in known]


# The authorities.


def create_root(common_name: str, now: datetime.datetime) -> Root:
    """A new root. C(now) is aware of its time zone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name[:64])
    builder = _authority(key, name, 1, now, now + ROOT_LIFETIME).serial_number(x509.random_serial_number())
    certificate = builder.issuer_name(name).sign(key, hashes.SHA256())
    return Root(_key_pem(key), _pem(certificate))


def check(ca: Ca, now: datetime.datetime) -> None:
    """Judge what the secrets file keeps of a CA, if anything.

    Raises:
        CaError: parts are missing, cannot be read or do not belong together, or are not valid yet.
    """
    if not any(ca):
        return
    absent = [
        name
        for name, text in zip(("root certificate", "issuing certificate", "issuing key"), (ca.root, ca.certificate, ca.key))
        if not text
    ]
    # Without issuing CA a new one is made; half of one is an accident.
    if absent and absent != ["issuing certificate", "issuing key"]:
        raise CaError(f"the secrets file has a part of the internal CA only, not its {' and '.join(absent)}; restore it from its backup")
    try:
        root = _load(ca.root)
        issuing = _load(ca.certificate) if ca.certificate else None
        key = _load_key(ca.key) if ca.key else None
        ledger(ca.issued)
        _lists(ca.crls)
    except (ValueError, TypeError) as error:
        raise CaError(f"the secrets file holds an internal CA that cannot be read ({error}); restore it from its backup") from error
    if issuing is not None and key is not None:
        if _spki(key.public_key()) != _spki(issuing.public_key()):
            raise CaError("the stored key of the issuing CA does not belong to its certificate; restore the secrets file from its backup")
        if not _signed_by(issuing, root):
            raise CaError("the stored issuing CA is not from the stored root; restore the secrets file from its backup")
    for name, certificate in (("root", root), ("issuing CA", issuing)):
        if certificate is not None and now < certificate.not_valid_before_utc:
            raise CaError(
                f"the internal {name} is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on, and here it is "
                f"{now:%Y-%m-%d %H:%M}; correct the controller's clock"
            )
    if now > root.not_valid_after_utc:
        raise CaError(
            f"the internal root ended on {root.not_valid_after_utc:%Y-%m-%d}. If the controller's clock is right, remove all lines that "
            "begin with internal_ca_ from the secrets file, and ca.pem and ca-root.yml beside it; the next run makes a new root"
        )


def check_root(root: Root, ca: Ca) -> None:
    """Judge the root that was brought back.

    Raises:
        CaError: it cannot be read, its parts do not belong together, or it is the root of another CA.
    """
    try:
        key, certificate = _load_key(root.key), _load(root.certificate)
    except (ValueError, TypeError) as error:
        raise CaError(f"it holds no PEM key and PEM certificate ({error}); take another copy of it") from error
    if _spki(key.public_key()) != _spki(certificate.public_key()):
        raise CaError("its key does not belong to its certificate; take another copy of it")
    if ca.root and _load(ca.root) != certificate:
        raise CaError("it is the root of another CA than the one in the secrets file; bring the right one")


def needs_of_root(ca: Ca, policy: Policy, hosts: t.Iterable[str], now: datetime.datetime) -> t.List[Need]:
    """Why the root's key is needed. C(hosts) are all names and addresses that certificates are for."""
    if not ca.certificate:
        return [Need("there is no issuing CA yet")]
    issuing = _load(ca.certificate)
    end = issuing.not_valid_after_utc
    if now > end:
        return [Need(f"the issuing CA ended on {end:%Y-%m-%d} (if that day is yet to come, correct the controller's clock)")]
    if issuing.serial_number in _wanted(ca, policy, authorities=True):
        return [Need("the issuing CA is in certificates_revoked")]
    permitted = _permitted_of(issuing)
    names = outside(hosts, permitted)
    if names:
        return [Need(f"the issuing CA may not sign for {', '.join(names)}, only for {', '.join(permitted)}")]
    found = []
    listed = _list_of(ca.crls, _load(ca.root))
    if listed is None:
        found.append(Need("the root's revocation list is missing", urgent=False, issuing=False))
    elif set(_entries(ca, policy, _load(ca.root), now)) != {entry.serial_number for entry in listed}:
        found.append(Need("certificates_revoked names an earlier issuing CA, which only the root can revoke", issuing=False))
    if now + ISSUING_RENEWAL > end and _load(ca.root).not_valid_after_utc > end:
        found.append(Need(f"the issuing CA ends on {end:%Y-%m-%d}", urgent=False))
    if set(_subtrees(permitted)) != set(_subtrees(policy.permitted)):
        found.append(Need("certificates_ca_permitted_names changed", urgent=False, told=False))
    return found


def renew(ca: Ca, root: Root, policy: Policy, hosts: t.Iterable[str], now: datetime.datetime) -> Ca:
    """Do what the root's key is needed for: a new issuing CA unless the old one is good, and the root's revocation list."""
    needs = needs_of_root(ca, policy, hosts, now)
    if any(need.issuing for need in needs):
        ca = _new_issuing(ca._replace(root=root.certificate), policy, root, now)
    # Good until the next time that the root's key is needed anyway.
    until = _load(ca.certificate).not_valid_after_utc
    issuer = _load(root.certificate)
    return _with_list(ca, _sign_list(root.key, issuer, _entries(ca, policy, issuer, now), ca, now, until))


def end_of_issuing(ca: Ca) -> datetime.datetime:
    """The last moment of the issuing CA."""
    return _load(ca.certificate).not_valid_after_utc


def same(one: str, other: str) -> bool:
    """Whether two texts are the same certificate in PEM."""
    try:
        return _load(one) == _load(other)
    except ValueError:
        return False


def _new_issuing(ca: Ca, policy: Policy, root: Root, now: datetime.datetime) -> Ca:
    if ca.certificate:
        # Its leafs are good until each host has got its new one, so its last list lasts as long as they may.
        ca = _sign_own_list(ca, policy, now)
    issuer = _load(root.certificate)
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    # A name of its own: not all programs tell two authorities of one name apart.
    name = _name(f"{policy.common_name[:42]} issuing {serial % 2**32:08x}")
    end = min(now + ISSUING_LIFETIME, issuer.not_valid_after_utc)
    certificate = (
        _authority(key, name, 0, now, end)
        .serial_number(serial)
        .issuer_name(issuer.subject)
        .add_extension(_authority_key(issuer), critical=False)
        .add_extension(x509.NameConstraints(permitted_subtrees=_subtrees(policy.permitted), excluded_subtrees=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(t.cast(ec.EllipticCurvePrivateKey, _load_key(root.key)), hashes.SHA256())
    )
    return record(ca._replace(key=_key_pem(key), certificate=_pem(certificate)), [_entry(certificate, _ISSUING_CA)], now)


# Revocation.


def list_is_due(ca: Ca, policy: Policy, now: datetime.datetime) -> bool:
    """Whether the issuing CA's revocation list is missing, old, or not what it should be."""
    issuing = _load(ca.certificate)
    found = _list_of(ca.crls, issuing)
    return (
        found is None
        or t.cast(datetime.datetime, found.next_update_utc) < now + policy.renew_before
        or {entry.serial_number for entry in found} != set(_entries(ca, policy, issuing, now))
    )


def renew_list(ca: Ca, policy: Policy, now: datetime.datetime) -> Ca:
    """A new revocation list of the issuing CA."""
    return _sign_own_list(ca, policy, now)


def is_behind(ca: Ca, crls: str, now: datetime.datetime) -> bool:
    """Whether a host's revocation lists are newer than the CA's own: its secrets file is an older copy.

    Raises:
        CaError: they are from the future.
    """
    for issuer in (_load(ca.root), _load(ca.certificate)):
        theirs, ours = _list_of(crls, issuer), _list_of(ca.crls, issuer)
        if theirs is not None and _number(theirs) > _number(ours):
            if theirs.last_update_utc > now:
                raise CaError(
                    f"the host's revocation list is of {theirs.last_update_utc:%Y-%m-%d %H:%M} UTC, and here it is {now:%Y-%m-%d %H:%M}; "
                    "correct the controller's clock"
                )
            return True
    return False


def catch_up(ca: Ca, crls: str, policy: Policy, now: datetime.datetime) -> Ca:
    """Take over what a host's newer revocation lists hold: what was revoked once stays revoked."""
    root, issuing = _load(ca.root), _load(ca.certificate)
    of_root, of_issuing = _list_of(crls, root), _list_of(crls, issuing)
    if of_root is not None and _number(of_root) > _number(_list_of(ca.crls, root)):
        ca = _with_list(ca, of_root)
    if of_issuing is not None and _number(of_issuing) > _number(_list_of(ca.crls, issuing)):
        ca = _sign_own_list(_with_list(ca, of_issuing), policy, now)
    return ca


def _sign_own_list(ca: Ca, policy: Policy, now: datetime.datetime) -> Ca:
    issuing = _load(ca.certificate)
    return _with_list(ca, _sign_list(ca.key, issuing, _entries(ca, policy, issuing, now), ca, now, now + policy.lifetime))


def _sign_list(
    key: str,
    issuer: x509.Certificate,
    entries: t.Mapping[int, datetime.datetime],
    ca: Ca,
    now: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateRevocationList:
    # The time as number needs no counter, so a secrets file from a backup cannot make it go back.
    number = max(int(now.timestamp()), _number(_list_of(ca.crls, issuer)) + 1)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - BACKDATING)
        .next_update(until)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(issuer), critical=False)
    )
    for serial, date in sorted(entries.items()):
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(date).build())
    return builder.sign(t.cast(ec.EllipticCurvePrivateKey, _load_key(key)), hashes.SHA256())


def _entries(ca: Ca, policy: Policy, issuer: x509.Certificate, now: datetime.datetime) -> t.Dict[int, datetime.datetime]:
    """What the list of C(issuer) has to hold: what it holds already, and what the inventory adds, but nothing that has ended."""
    found = _list_of(ca.crls, issuer)
    entries = dict.fromkeys(_wanted(ca, policy, authorities=issuer == _load(ca.root)), now)
    entries.update({entry.serial_number: entry.revocation_date_utc for entry in found or ()})
    ended = {entry.serial for entry in ledger(ca.issued) if entry.until < f"{now:%Y-%m-%d}"}
    return {serial: date for serial, date in entries.items() if serial not in ended}


def _wanted(ca: Ca, policy: Policy, authorities: bool) -> t.Set[int]:
    """The serial numbers that the inventory revokes, of issuing CAs or of leafs."""
    entries = ledger(ca.issued)
    of_authorities = {entry.serial for entry in entries if entry.owner == _ISSUING_CA}
    serials = {_serial(item) for item in policy.revoked if _SERIAL.fullmatch(item)}
    if authorities:
        return serials & of_authorities
    leafs = {entry.serial for entry in entries if entry.owner != _ISSUING_CA and revoked_names(policy, entry.names)}
    return (serials | leafs) - of_authorities


def _lists(pem: str) -> t.List[x509.CertificateRevocationList]:
    return [x509.load_pem_x509_crl(block.encode()) for block in _CRL.findall(pem)]


def _list_of(pem: str, issuer: x509.Certificate) -> t.Optional[x509.CertificateRevocationList]:
    """The newest list in C(pem) that C(issuer) signed."""
    key = t.cast(ec.EllipticCurvePublicKey, issuer.public_key())
    found = [crl for crl in _lists(pem) if crl.issuer == issuer.subject and crl.is_signature_valid(key)]
    return max(found, key=_number, default=None)


def _number(crl: t.Optional[x509.CertificateRevocationList]) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number if crl is not None else 0


def _with_list(ca: Ca, crl: x509.CertificateRevocationList) -> Ca:
    """C(crl) in place of its issuer's former one: the root's first, the newest issuing CA's next."""
    others = [old for old in _lists(ca.crls) if old.issuer != crl.issuer]
    root = _load(ca.root).subject
    ordered = sorted([crl, *others], key=lambda one: (one.issuer != root, -_number(one)))
    return ca._replace(crls="".join(one.public_bytes(serialization.Encoding.PEM).decode() for one in ordered))


# The ledger.


def ledger(text: str) -> t.List[Entry]:
    """The lines of a ledger.

    Raises:
        ValueError: a line that is none.
    """
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 4:
            raise ValueError(f"line {number} of internal_ca_issued is incomplete")
        entries.append(Entry(int(words[0], 16), words[1], words[2], tuple(words[3].split(","))))
    return entries


def record(ca: Ca, entries: t.Iterable[Entry], now: datetime.datetime) -> Ca:
    """C(ca) with C(entries) in its ledger, and without what has ended."""
    known = {entry.serial: entry for entry in [*ledger(ca.issued), *entries]}
    return ca._replace(issued="".join(str(entry) for entry in known.values() if entry.until >= f"{now:%Y-%m-%d}"))


def entry_of(chain_pem: str, owner: str) -> Entry:
    """The line for the first certificate in C(chain_pem)."""
    return _entry(_load(chain_pem), owner)


def is_forgotten(chain_pem: str, ca: Ca) -> bool:
    """Whether the ledger lacks a certificate that the issuing CA did sign: the secrets file is an older copy."""
    try:
        certificate = _load(chain_pem)
    except ValueError:
        return False
    known = {entry.serial for entry in ledger(ca.issued)}
    return certificate.serial_number not in known and _signed_by(certificate, _load(ca.certificate))


def _entry(certificate: x509.Certificate, owner: str) -> Entry:
    names = tuple(sorted(_names_of(certificate))) or (_ISSUING_CA,)
    return Entry(certificate.serial_number, f"{certificate.not_valid_after_utc:%Y-%m-%d}", owner, names)


# Leafs.


def is_newer(chain_pem: str, ca: Ca) -> bool:
    """Whether the issuing CA in a host's chain is of the same root and younger than C(ca): the secrets file is an older copy."""
    try:
        chain = x509.load_pem_x509_certificates(chain_pem.encode())
    except ValueError:
        return False
    ours = _load(ca.certificate)
    return any(
        link != ours and _signed_by(link, _load(ca.root)) and link.not_valid_before_utc > ours.not_valid_before_utc for link in chain[1:]
    )


def is_foreign(chain_pem: str, ca: Ca) -> bool:
    """Whether there is a certificate and neither this CA nor an earlier issuing CA of its root has issued it."""
    try:
        certificates = x509.load_pem_x509_certificates(chain_pem.encode())
    except ValueError:
        return False
    own = [_load(ca.root), _load(ca.certificate)]
    return not any(_signed_by(certificate, issuer) for certificate in certificates for issuer in own)


def reason_to_issue(chain_pem: str, public_key_pem: str, hosts: t.Sequence[str], ca: Ca, policy: Policy, now: datetime.datetime) -> str:
    """Why the certificate on a host has to be replaced; empty when it is good.

    Args:
        chain_pem: the certificate found, with its intermediate; empty when there is none.
        public_key_pem: the public half of the key found beside it, empty when there is none.
        hosts: names and addresses it must be for, in any order.
        ca: the CA that must have signed it.
        policy: how long it may live, and when it is replaced.
        now: the time it is judged at.
    """
    if not chain_pem:
        return "there is none"
    issuing = _load(ca.certificate)
    try:
        certificate, *links = x509.load_pem_x509_certificates(chain_pem.encode())
    except ValueError:
        return "it cannot be read"
    if not _signed_by(certificate, issuing):
        return "it is not from the issuing CA"
    if links != [issuing]:
        return "its chain is not complete"
    if not public_key_pem:
        return "its key is missing"
    try:
        if _spki(serialization.load_pem_public_key(public_key_pem.encode())) != _spki(certificate.public_key()):
            return "its key is another one"
    except ValueError:
        return "its key cannot be read"
    return _reason_of_content(certificate, hosts, ca, policy, now)


def _reason_of_content(certificate: x509.Certificate, hosts: t.Sequence[str], ca: Ca, policy: Policy, now: datetime.datetime) -> str:
    issuing = _load(ca.certificate)
    if _names_of(certificate) != _normal(hosts):
        return "its names differ"
    if certificate.serial_number in _entries(ca, policy, issuing, now):
        return "it is revoked"
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return "it is not valid yet"
    if end - begin > policy.lifetime + BACKDATING:
        return f"it lives longer than {policy.lifetime.days} days"
    # One that ends with the issuing CA cannot be had for longer.
    if now + policy.renew_before > end and _leaf_end(issuing, policy, now) > end:
        return f"it ends on {end:%Y-%m-%d}"
    return ""


def _leaf_end(issuing: x509.Certificate, policy: Policy, now: datetime.datetime) -> datetime.datetime:
    return min(now + policy.lifetime, issuing.not_valid_after_utc).replace(microsecond=0)


def issue(ca: Ca, request_pem: str, hosts: t.Sequence[str], policy: Policy, now: datetime.datetime) -> str:
    """Sign a leaf certificate for server and client authentication; the names come from C(hosts), only the key from the request.

    Returns:
        The leaf and the issuing CA's certificate in PEM. The leaf never outlives the issuing CA.

    Raises:
        CaError: the request is not a PEM request, its signature is wrong, there are no hosts, or one that the CA may not sign for.
    """
    issuing = _load(ca.certificate)
    beyond = outside(hosts, _permitted_of(issuing))
    if not hosts or beyond:
        raise CaError(f"the issuing CA may not sign for {', '.join(beyond)}" if beyond else "a certificate needs a name or an address")
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
    except ValueError as error:
        raise CaError(f"the host's certificate request cannot be read: {error}") from error
    if not request.is_signature_valid:
        raise CaError("the signature of the host's certificate request is wrong")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(_label(hosts)))
        .issuer_name(issuing.subject)
        .public_key(request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(_leaf_end(issuing, policy, now))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
        .add_extension(_authority_key(issuing), critical=False)
        .sign(t.cast(ec.EllipticCurvePrivateKey, _load_key(ca.key)), hashes.SHA256())
    )
    return _pem(certificate) + ca.certificate


# Parts.


def _authority(
    key: ec.EllipticCurvePrivateKey, name: x509.Name, path_length: int, now: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .not_valid_before(now - BACKDATING)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _subtrees(permitted: t.Sequence[str]) -> t.List[x509.GeneralName]:
    names = sorted({item.lower() for item in permitted if _network(item) is None})
    networks = [*PRIVATE_NETWORKS, *sorted({item for item in permitted if _network(item) is not None} - set(PRIVATE_NETWORKS))]
    return [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_network(network, strict=False)) for network in networks)]


def _permitted_of(issuing: x509.Certificate) -> t.List[str]:
    """Names and networks of the name constraints, without the private networks."""
    subtrees = issuing.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    return [str(subtree.value) for subtree in subtrees if str(subtree.value) not in PRIVATE_NETWORKS]


def _network(item: str) -> t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network, None]:
    try:
        return ipaddress.ip_network(item, strict=False)
    except ValueError:
        return None


def _address(host: str) -> t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address, None]:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _general_name(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host.lower()) if address is None else x509.IPAddress(address)


def _normal(hosts: t.Iterable[str]) -> t.Set[str]:
    return {str(_general_name(host).value) for host in hosts}


def _names_of(certificate: x509.Certificate) -> t.Set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _label(hosts: t.Sequence[str]) -> str:
    """A common name for people. An address alone is none: OpenSSL would hold it against the permitted names."""
    return next((host for host in hosts if _address(host) is None), f"address {hosts[0]}")[:64]


def _serial(text: str) -> int:
    return int(text.replace(":", ""), 16)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(**used: bool) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{usage: used.get(usage, False) for usage in every})


def _spki(key: t.Any) -> bytes:
    return t.cast(bytes, key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def _load(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _load_key(pem: str) -> t.Any:
    return serialization.load_pem_private_key(pem.encode(), password=None)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
