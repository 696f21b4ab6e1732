# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges a certificate: finds it and its chain in a bag of certificates, and tells all that is wrong. Runs on the controller.

A path is good when the library's verifier and our own rules say so: the rules name what the verifier finds, and find what it does not
look for. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import itertools
import typing as t
import warnings

from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_names as certificate_names
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_rules as rules
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_facts import Link, describe, key_bytes
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_paths import (
    ANCHOR,
    OPEN,
    Bag,
    Path,
)
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, in_order, problem

try:
    from cryptography import x509
    from cryptography.x509 import verification

    # The verifier's extension policies, and callbacks in them.
    MISSING = "" if hasattr(verification, "ExtensionPolicy") else "cryptography is older than 45.0"
except ImportError as _error:
    MISSING = str(_error)

__all__ = ["MISSING", "Verdict", "describe", "judge", "with_lists"]

# Paths that are complete and bad, before the search is given up.
MAXIMUM_PATHS = 32
# Certificates for one key and the same names, before the others are left out.
MAXIMUM_RENEWALS = 8


class Verdict(t.NamedTuple):
    """What there is to say.

    Attributes:
        chain: the leaf and the intermediates to send with it, without the root; as far as it was found when there are problems.
        root: the trusted root it ends at.
        problems: why it must not be used, without duplicates, the most telling first; empty when it is good.
        notes: sentences about what is no fault and worth knowing.
        unfinished: the certificate whose issuer is missing.
    """

    chain: t.List[x509.Certificate]
    root: t.Optional[x509.Certificate]
    problems: t.List[Problem]
    notes: t.List[str]
    unfinished: t.Optional[x509.Certificate]


def judge(
    certificates: t.Sequence[x509.Certificate],
    trust: t.Sequence[x509.Certificate],
    *,
    hostnames: t.Sequence[str] = (),
    public_key: t.Any = None,
    at: t.Optional[datetime.datetime] = None,
    crls: t.Sequence[x509.CertificateRevocationList] = (),
    purpose: str = "server",
) -> Verdict:
    """Find the leaf and its chain, and say what is wrong with them.

    Args:
        certificates: a bag in any order, with duplicates, roots and strangers in it.
        trust: the trusted roots. Only certificates signed with their own key are roots; others among them may become part of the chain.
        hostnames: names and addresses that the leaf must be for; international names and C(*.) are understood.
        public_key: the public half of the private key that the leaf must belong to.
        at: the time to judge at, UTC when it has no time zone; now if there is none.
        crls: revocation lists, those of strangers do no harm.
        purpose: V(server), V(client), or V(any) for both.

    Raises:
        ValueError: a host name is none; the message says what to write.
    """
    when = at or datetime.datetime.now(datetime.timezone.utc)
    when = (when if when.tzinfo else when.replace(tzinfo=datetime.timezone.utc)).astimezone(datetime.timezone.utc).replace(microsecond=0)
    case = rules.Case([certificate_names.normal(host) for host in hostnames], when, purpose, crls)
    with warnings.catch_warnings():
        # Oddities that the library still tolerates are ours to judge, not to print.
        warnings.simplefilter("ignore")
        return _judge(certificates, trust, case, key_bytes(public_key) if public_key is not None else b"")


def with_lists(verdict: Verdict, crls: t.Sequence[x509.CertificateRevocationList], at: t.Optional[datetime.datetime] = None) -> Verdict:
    """The verdict, and what is wrong with revocation lists that somebody named for it: one that judges nothing must not pass unseen."""
    if not crls or not verdict.chain:
        return verdict
    links = [Link(one) for one in [*verdict.chain, *([verdict.root] if verdict.root else [])]]
    problems, notes = rules.examine_lists(links, crls, Bag(links, [], at or datetime.datetime.now(datetime.timezone.utc)))
    return verdict._replace(problems=in_order([*verdict.problems, *problems]), notes=[*verdict.notes, *notes])


def _judge(certificates: t.Sequence[x509.Certificate], trust: t.Sequence[x509.Certificate], case: rules.Case, key: bytes) -> Verdict:
    links = list(dict.fromkeys(Link(one) for one in certificates))
    if not links:
        return Verdict([], None, [problem("no_certificate", "There is no certificate.")], [], None)
    bag = Bag(links, [Link(one) for one in trust], case.at)
    leafs, problems = _find_leafs(links, case.hostnames, key)
    if problems:
        return Verdict([], None, problems, [], None)
    # Of several renewals the newest good one is it; when none is good, the newest is worth explaining.
    verdicts = (_judge_leaf(leaf, bag, case, key) for leaf in leafs)
    first = next(verdicts)
    return next((one for one in itertools.chain([first], verdicts) if not one.problems), first)


def _judge_leaf(leaf: Link, bag: Bag, case: rules.Case, key: bytes) -> Verdict:
    who = leaf.who("leaf")
    mismatch = [who.problem("key_mismatch", f"The private key does not belong to the {who}.")] if key not in (b"", leaf.key_bytes) else []
    notes = rules.notes(leaf, case.purpose)
    if bag.is_self_signed(leaf):
        return Verdict([leaf.certificate], None, in_order([*mismatch, *rules.examine_self_signed(leaf, case)]), notes, None)
    best: t.Optional[Path] = None
    least: t.List[Problem] = []
    left = MAXIMUM_PATHS
    for path in itertools.islice(bag.paths(leaf), left):
        left -= 1
        problems = in_order(rules.examine(path, bag, case)) or _ask_verifier(path, case)
        if best is None or not problems or (path.cost == best.cost and len(problems) < len(least)):
            best, least = path, problems
        if not problems:
            break
    if best is None or (least and (bag.exhausted or bag.crowded or not left)):
        text = "So many certificates have the same name that the search for a chain was given up before all ways were tried."
        least.append(who.problem("too_large", text))
    if best and 0 in best.damaged:
        # The key in a certificate that was changed says nothing about the private key.
        mismatch = []
    links = best.links if best else (leaf,)
    root = links[-1] if best and best.end == ANCHOR else None
    chain = [one.certificate for one in links if one is not root and (one is leaf or not bag.is_self_signed(one))]
    unfinished = links[-1].certificate if best and best.end == OPEN and not links[-1].self_issued else None
    return Verdict(chain, root.certificate if root else None, in_order([*mismatch, *least]), notes, unfinished)


def _find_leafs(links: t.List[Link], hostnames: t.Sequence[str], key: bytes) -> t.Tuple[t.List[Link], t.List[Problem]]:
    """The certificate that all this is about, its newest renewal first; or why it cannot be told."""

    def hosts(link: Link) -> int:
        return sum(1 for host in hostnames if not certificate_names.mismatch(host, link.names)[0] or host in link.common_names)

    # Programs make self-signed certificates for servers that call themselves an authority's.
    found = [one for one in links if not one.is_ca] or [one for one in links if one.key_bytes == key or hosts(one) or one.names]
    issuers = {one.issuer for one in links if not one.self_issued}
    best = max((hosts(one) for one in found), default=0)
    sieves: t.List[t.Callable[[Link], bool]] = [
        lambda one: one.key_bytes == key,
        lambda one: hosts(one) == best,
        # What issued another one is an authority, whatever it says.
        lambda one: one.subject not in issuers,
        lambda one: not one.self_issued,
    ]
    for sieve in sieves:
        found = [one for one in found if sieve(one)] or found
    if not found:
        named = ", ".join(str(one.who("authority")) for one in links[:3])
        return [], [problem("leaf_not_found", f"There are only certificates of authorities, none of a server ({named}).")]
    # Renewals for the same key are alike, the newest one counts.
    if len({(one.key_bytes, frozenset(() if hostnames else one.names)) for one in found}) > 1:
        named = "; ".join(f"{one.who('serial ' + one.serial)} for {', '.join(one.names[:3]) or 'no name'}" for one in found[:4])
        text = f"There are {len(found)} certificates of servers, and nothing tells which one is meant: {named}."
        return [], [problem("several_leaves", text)]
    return sorted(found, key=lambda one: (-one.start.timestamp(), one.fingerprint))[:MAXIMUM_RENEWALS], []


def _ask_verifier(path: Path, case: rules.Case) -> t.List[Problem]:
    """What the library's verifier has against a complete path in which the rules found nothing."""
    if path.end != ANCHOR:
        raise AssertionError("the rules have accepted a path without a trusted root")
    leaf, root = path.links[0], path.links[-1]
    who = leaf.who("leaf")
    builder = verification.PolicyBuilder().store(verification.Store([root.certificate])).time(case.at.replace(tzinfo=None))
    intermediates = [one.certificate for one in path.links[1:-1]]
    try:
        if case.purpose == "server":
            for host in case.hostnames or leaf.names[:1]:
                builder.build_server_verifier(_subject(host)).verify(leaf.certificate, intermediates)
        else:
            _without_names(builder, any_purpose=case.purpose == "any").build_client_verifier().verify(leaf.certificate, intermediates)
    except (verification.VerificationError, x509.UnsupportedGeneralNameType, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        return [who.problem("not_strict", f"The chain of the {who} is refused by strict programs: {reason}.")]
    return []


def _subject(host: str) -> verification.Subject:
    if certificate_names.is_address(host):
        return x509.IPAddress(certificate_names.address(host))
    # The verifier asks for one host; any below a wildcard shows that the certificate holds the wildcard, for the rules have seen it there.
    return x509.DNSName(f"any-name{host[1:]}" if host.startswith("*.") else host)


def _without_names(builder: verification.PolicyBuilder, any_purpose: bool) -> verification.PolicyBuilder:
    """Clients need no subject alternative names; the verifier wants them unless told otherwise."""
    either = verification.Criticality.AGNOSTIC
    leaf = verification.ExtensionPolicy.webpki_defaults_ee().may_be_present(x509.SubjectAlternativeName, either, None)
    authority = verification.ExtensionPolicy.webpki_defaults_ca()
    if any_purpose:
        leaf = leaf.may_be_present(x509.ExtendedKeyUsage, either, None)
        authority = authority.may_be_present(x509.ExtendedKeyUsage, either, None)
    return builder.extension_policies(ca_policy=authority, ee_policy=leaf)
