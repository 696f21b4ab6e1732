# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a path of certificates, each reason by its name. Runs on the controller.

The library's verifier says no to the first fault, in words that change; these rules name all faults, and some that it overlooks.
Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import ipaddress
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_names as certificate_names
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_facts import Link, Who, key_type, name_key, name_text
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_paths import (
    ANCHOR,
    MAXIMUM_INTERMEDIATES,
    OPEN,
    SELF_SIGNED,
    TOO_LONG,
    Bag,
    Path,
)
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, problem

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
    _UNREADABLE: t.Tuple[t.Type[Exception], ...] = (ValueError, TypeError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    MISSING = ""
except ImportError as _error:
    PURPOSES = {}
    _UNREADABLE = (ValueError, TypeError)
    MISSING = str(_error)

MINIMUM_RSA = 2048
CURVES = ("secp256r1", "secp384r1", "secp521r1")
WEAK_DIGESTS = ("md5", "sha1", "sha224")
# Names times constraints; thousands of both are made to keep a judge busy.
MAXIMUM_COMPARISONS = 100000

Found = t.Iterator[Problem]


class Case(t.NamedTuple):
    """What a path is judged for.

    Attributes:
        hostnames: normal names and addresses that the leaf must be for.
        at: the time, aware of its time zone.
        purpose: V(server), V(client) or V(any).
        crls: revocation lists; those of other authorities do no harm.
    """

    hostnames: t.Sequence[str]
    at: datetime.datetime
    purpose: str
    crls: t.Sequence[x509.CertificateRevocationList]


def examine(path: Path, bag: Bag, case: Case) -> t.List[Problem]:
    """All that is wrong with a path.

    Of a link that was tampered with nothing else is told, for nothing in it can be believed.
    """
    found: t.List[Problem] = []
    for position, link in enumerate(path.links):
        who = link.who(role(path, position))
        if position in path.damaged:
            found.append(who.problem("tampered", f"The {who} was changed after it was signed: its signature is wrong."))
            continue
        above = position + 1
        issuer = path.links[above] if above < len(path.links) and above not in path.damaged else None
        anchor = path.end == ANCHOR and above == len(path.links)
        found += [*_dates(link, who, case.at), *_strength(link, who), *_digest(link, who, anchor), *_form(link, who, issuer)]
        if position == 0:
            found += [*_leaf(link, who, case), *_names(link, who, case)]
        else:
            below = [one for number, one in enumerate(path.links[:position]) if number not in path.damaged]
            found += [*_authority(link, who, position, case.purpose), *_constraints(link, who, below)]
        if issuer and position not in path.broken:
            found += _revoked(link, who, issuer, case.crls, bag)
    return found + list(_end(path, bag))


def examine_self_signed(leaf: Link, case: Case) -> t.List[Problem]:
    """All that is wrong with a certificate beside that nobody else signed it."""
    who = leaf.who("leaf")
    return [
        who.problem("self_signed", f"The {who} is signed with its own key, so nobody vouches for it."),
        *_dates(leaf, who, case.at),
        *_strength(leaf, who),
        *_names(leaf, who, case),
    ]


def role(path: Path, position: int) -> str:
    """V(leaf), V(intermediate) or V(root)."""
    if position == 0:
        return "leaf"
    return "root" if position == len(path.links) - 1 and path.end in (ANCHOR, SELF_SIGNED) else "intermediate"


def _end(path: Path, bag: Bag) -> Found:
    """Why a path does not end at a trusted root. A damaged link's issuer is not known, so nothing can be said then."""
    last = path.links[-1]
    who = last.who(role(path, len(path.links) - 1))
    if path.end == TOO_LONG:
        yield who.problem("chain_too_long", f"The chain leads over more than {MAXIMUM_INTERMEDIATES} intermediates.")
    elif path.end == SELF_SIGNED:
        yield who.problem("untrusted_root", f"The chain ends at the {who}, which is not among the trusted roots.")
    elif path.end == OPEN:
        if last.self_issued:
            # It claims to be signed with its own key, and is not: otherwise it were a root or a self-signed leaf.
            yield who.problem("tampered", f"The {who} was changed after it was signed: its signature is wrong.")
        elif _ends_below_unknown_root(path, bag):
            why = "; the trusted root of that name has another key" if bag.has_anchor_named(last.issuer) else ", which is no trusted root"
            yield who.problem("untrusted_root", f"The {who} was issued by {last.issuer_text}{why}.")
        else:
            other = "; one of that name is there, but with another key" if bag.named(last.issuer) else ""
            where = f"; the issuer offers it at {last.issuer_urls[0]}" if last.issuer_urls else ""
            text = f"The certificate of the issuer of the {who}, {last.issuer_text}, is missing{other}{where}."
            yield who.problem("missing_intermediate", text)


def _ends_below_unknown_root(path: Path, bag: Bag) -> bool:
    """Whether what is missing at the end is a root that is not trusted, and not a further intermediate.

    That cannot be seen for sure. A leaf's issuer is an intermediate with all public authorities; an intermediate's issuer mostly is a root,
    unless its organization has a root that is trusted and it says where its issuer can be had, as public authorities' intermediates do.
    """
    last = path.links[-1]
    if bag.has_anchor_named(last.issuer):
        return True
    if len(path.links) == 1:
        return False
    known = {name for anchor in bag.anchors for name in anchor.organizations("subject")}
    return not (last.issuer_urls and known & last.organizations("issuer"))


def _dates(link: Link, who: Who, at: datetime.datetime) -> Found:
    if at > link.end:
        yield who.problem("expired", f"The {who} ended on {link.end:%Y-%m-%d %H:%M} UTC.")
    elif at < link.start:
        yield who.problem("not_yet_valid", f"The {who} begins on {link.start:%Y-%m-%d %H:%M} UTC only.")


def _strength(link: Link, who: Who) -> Found:
    kind, key = link.key_type, link.public_key
    if kind == "rsa" and key.key_size < MINIMUM_RSA:
        yield who.problem("weak_key", f"The {who} has an RSA key of {key.key_size} bits; {MINIMUM_RSA} are the least.")
    elif link.is_absurd:
        yield who.problem("weak_key", f"The {who} has an RSA key with an exponent that no program makes.")
    elif isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in CURVES:
        yield who.problem("weak_key", f"The {who} has a key on the curve {key.curve.name}, which is weak or known to few programs.")
    elif kind in ("dsa", "unknown"):
        yield who.problem("weak_key", f"The {who} has a key of a kind ({kind}) that browsers do not know.")


def _digest(link: Link, who: Who, anchor: bool) -> Found:
    """A trusted root is trusted for itself, whatever its signature is made with."""
    if not anchor and link.digest in WEAK_DIGESTS:
        yield who.problem("weak_digest", f"The {who} is signed with {link.digest.upper()}, which can be forged or is refused.")


def _form(link: Link, who: Who, issuer: t.Optional[Link]) -> Found:
    """The form that strict programs insist on, where the verifier does not or says it badly."""
    wrong = []
    if link.unreadable:
        yield who.problem("not_strict", f"The {who} has extensions that cannot be read ({link.unreadable}).")
        return
    if link.is_ca and not link.key_id:
        wrong.append("is an authority's and has no subject key identifier")
    if link.is_critical(x509.SubjectKeyIdentifier):
        wrong.append("has a critical subject key identifier")
    if link.is_ca and not link.is_critical(x509.BasicConstraints):
        wrong.append("has basic constraints that are not critical")
    if link.is_ca and link.key_usage is None:
        wrong.append("is an authority's and has no key usage")
    if issuer and not link.issuer_key_id:
        wrong.append("does not say which key signed it (no authority key identifier)")
    if issuer:
        if issuer.subject == link.issuer and issuer.exact_name("subject") != link.exact_name("issuer"):
            wrong.append(f"writes the name of its issuer another way than the issuer does ({issuer.subject_text})")
        elif issuer.subject != link.issuer:
            wrong.append(f"names {link.issuer_text} as its issuer and is signed by {issuer.subject_text}")
        if link.issuer_key_id and issuer.key_id and link.issuer_key_id != issuer.key_id:
            wrong.append("says that another key signed it than the one that did (wrong authority key identifier)")
        serial = link.authority.authority_cert_serial_number if link.authority else None
        if serial is not None and serial != issuer.certificate.serial_number:
            wrong.append("names another certificate of its issuer than the one at hand (serial number in its authority key identifier)")
    for one in wrong:
        yield who.problem("not_strict", f"The {who} {one}.")


def _authority(link: Link, who: Who, position: int, purpose: str) -> Found:
    """An intermediate or a root as one that issues certificates."""
    if not link.is_ca and not link.unreadable:
        yield who.problem("intermediate_not_ca", f"The {who} is no certificate of an authority and may sign no other.")
    if link.key_usage is not None and not link.key_usage.key_cert_sign:
        yield who.problem("wrong_key_usage", f"The {who} may not be used to sign certificates.")
    # Every intermediate below counts, also those that verifiers could leave out, as none does.
    if link.path_length is not None and position - 1 > link.path_length:
        text = f"The {who} may have {link.path_length} authorities below it, and {position - 1} are there."
        yield who.problem("path_length", text)
    if (
        purpose in PURPOSES
        and link.purposes is not None
        and not link.purposes & {PURPOSES[purpose], ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    ):
        yield who.problem("wrong_purpose", f"The {who} may not issue certificates for a TLS {purpose}.")


def _leaf(link: Link, who: Who, case: Case) -> Found:
    if link.is_ca and not link.self_issued:
        yield who.problem("wrong_purpose", f"The {who} is a certificate of an authority and not of a {case.purpose}.")
    elif case.purpose in PURPOSES and link.purposes is not None and PURPOSES[case.purpose] not in link.purposes:
        yield who.problem("wrong_purpose", f"The {who} is not for a TLS {case.purpose}.")
    usage = link.key_usage
    if usage is not None and usage.key_cert_sign and not link.is_ca:
        yield who.problem("wrong_key_usage", f"The {who} claims that it may sign certificates, and is not of an authority.")
    elif usage is not None and not usage.digital_signature and not link.is_ca:
        yield who.problem("wrong_key_usage", f"The {who} may not be used for signatures, which every TLS connection begins with.")


def _names(link: Link, who: Who, case: Case) -> Found:
    if link.unreadable:
        return
    if not link.names and case.purpose == "server":
        name = f" ({link.common_names[0]})" if link.common_names else ""
        yield who.problem("common_name_only", f"The {who} has no subject alternative name, only a common name{name}.")
    for host in case.hostnames:
        address = certificate_names.is_address(host)
        names = [str(one) for one in link.addresses] if address else link.dns_names
        code, why = certificate_names.mismatch(host, names)
        if not code or (not link.names and host in [one.lower() for one in link.common_names]):
            continue
        if address:
            text = f"{host} stands among its names as text and not as an address"
            why = text if host in link.dns_names else certificate_names.mismatch(host, link.names)[1]
        yield who.problem(code, f"The {who} is not for {host}: {why}.")


def _revoked(link: Link, who: Who, issuer: Link, crls: t.Sequence[x509.CertificateRevocationList], bag: Bag) -> Found:
    for crl in crls:
        try:
            if name_key(crl.issuer, b"") != link.issuer:
                continue
            entry = crl.get_revoked_certificate_by_serial_number(link.certificate.serial_number)
        except _UNREADABLE:
            # A list that cannot be read revokes nothing; of those that were named, C(examine_lists) tells.
            continue
        if entry is None:
            continue
        try:
            about, reason = _is_about(entry, link), _reason(entry)
        except _UNREADABLE:
            # What more is said of an entry may lessen it, but not when nobody can read it.
            about, reason = True, ""
        if about and bag.crl_signed_by(crl, issuer):
            yield who.problem("revoked", f"The {who} was revoked by its issuer on {entry.revocation_date_utc:%Y-%m-%d}{reason}.")
            return


def examine_lists(
    chain: t.Sequence[Link], crls: t.Sequence[x509.CertificateRevocationList], bag: Bag
) -> t.Tuple[t.List[Problem], t.List[str]]:
    """Lists that somebody named to be judged by, and that judge nothing: the problems, and notes on those of other authorities.

    Args:
        chain: the leaf first, the root last.
    """
    found: t.List[Problem] = []
    strangers: t.Dict[str, None] = {}
    for crl in crls:
        try:
            name, shown, end = name_key(crl.issuer, b""), name_text(crl.issuer), crl.next_update_utc
            issuers = [one for one in chain[1:] if one.subject == name]
            for link in chain:
                crl.get_revoked_certificate_by_serial_number(link.certificate.serial_number)
        except _UNREADABLE:
            found.append(problem("crl_unusable", "A revocation list is damaged: its issuer, its end or its entries cannot be read."))
            continue
        if not issuers:
            strangers[shown] = None
        elif not any(bag.crl_signed_by(crl, one) for one in issuers):
            text = f"The revocation list of {shown} is not signed by the issuer of that name, or that one may not sign lists."
            found.append(problem("crl_unusable", text))
        elif end is not None and end < bag.at:
            found.append(problem("crl_unusable", f"The revocation list of {shown} ended on {end:%Y-%m-%d %H:%M} UTC."))
    return found, [f"The revocation list of {one} is about no certificate of this chain, so it judged nothing." for one in strangers]


def _is_about(entry: x509.RevokedCertificate, link: Link) -> bool:
    """Lists can hold certificates of other issuers, and can take an entry back."""
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CertificateIssuer):
            return link.issuer in [name_key(name, b"") for name in extension.value.get_values_for_type(x509.DirectoryName)]
        if isinstance(extension.value, x509.CRLReason) and extension.value.reason == x509.ReasonFlags.remove_from_crl:
            return False
    return True


def _reason(entry: x509.RevokedCertificate) -> str:
    reasons = [one.value.reason.value for one in entry.extensions if isinstance(one.value, x509.CRLReason)]
    return f" (reason: {reasons[0]})" if reasons else ""


def _constraints(authority: Link, who: Who, below: t.Sequence[Link]) -> Found:
    """Whether an authority may issue for the names of the certificates below it, the leaf being the first of them."""
    found = authority.extension(x509.NameConstraints)
    if found is None:
        return
    permitted, excluded = list(found.permitted_subtrees or ()), list(found.excluded_subtrees or ())
    if authority.is_critical(x509.NameConstraints) and any(isinstance(one, x509.DirectoryName) for one in [*permitted, *excluded]):
        yield who.problem("not_strict", f"The {who} restricts distinguished names too, which the verifier here cannot judge.")
    names = [name for link in below if not (link.is_ca and link.self_issued) for name in _constrained_names(link)]
    if len(names) * (len(permitted) + len(excluded)) > MAXIMUM_COMPARISONS:
        yield who.problem("name_constraints", f"The {who} restricts so many names that nobody can judge them.")
        return
    for name in dict.fromkeys(names):
        allowed = [_matches(name, one, within=True) for one in permitted if _same_kind(name, one)]
        if allowed and not any(allowed):
            yield who.problem("name_constraints", f"The {who} may issue for other names only, not for {_shown(name)}.")
        elif any(_matches(name, one, within=False) for one in excluded if _same_kind(name, one)):
            yield who.problem("name_constraints", f"The {who} may not issue for {_shown(name)}.")


_Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
# A host name, an address, or a distinguished name.
_Name = t.Union[str, _Address, "x509.Name"]


def _constrained_names(link: Link) -> t.List[_Name]:
    names: t.List[_Name] = [*link.dns_names, *link.addresses]
    if not link.is_ca and not link.dns_names:
        # Without names a common name that looks like a host's counts as one.
        names += [one.lower() for one in link.common_names if "." in one and " " not in one and not certificate_names.is_address(one)]
    subject = link.name("subject")
    return [*names, subject] if subject else names


def _same_kind(name: _Name, constraint: x509.GeneralName) -> bool:
    kind = x509.DNSName if isinstance(name, str) else x509.DirectoryName if isinstance(name, x509.Name) else x509.IPAddress
    return isinstance(constraint, kind)


def _matches(name: _Name, constraint: x509.GeneralName, within: bool) -> bool:
    value = constraint.value
    if isinstance(name, str):
        domain = str(value).lower()
        return certificate_names.within(name, domain) if within else certificate_names.touches(name, domain)
    if isinstance(name, x509.Name):
        return list(name.rdns)[: len(value.rdns)] == list(value.rdns)
    return name in value


def _shown(name: _Name) -> str:
    return name.rfc4514_string() if isinstance(name, x509.Name) else str(name)


def notes(leaf: Link, purpose: str) -> t.List[str]:
    """What is no fault and worth knowing."""
    found = []
    if key_type(leaf.public_key) in ("ed25519", "ed448"):
        found.append(f"Its key ({leaf.key_type}) is strong, but browsers do not take it; programs with OpenSSL do.")
    if purpose == "server" and leaf.purposes is None:
        found.append("It has no extended key usage; Apple's devices want server authentication there.")
    return found
