# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The paths from a certificate to a root through a bag of others, the likeliest first. Runs on the controller.

A best-first search whose costs are what is wrong with a path, so that the first path is the right one where there is one, and the one
that is worth explaining where there is none. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import typing as t
from heapq import heappop, heappush

from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_facts import Link, signature_holds

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

# As in the library's verifier; public authorities need one or two.
MAXIMUM_INTERMEDIATES = 8
# Good bags need less than ten, other verifiers stop at about a hundred. All of them take a quarter of a second.
MAXIMUM_SIGNATURES = 256
# Checking with a slow key takes as long as that many with a usual one.
SLOW_KEY = 8
# Steps cost no signature, but hostile bags can make exponentially many.
MAXIMUM_STEPS = 10000

# How a path ends.
ANCHOR = "anchor"  # at a trusted root
SELF_SIGNED = "self_signed"  # at a root that is not trusted
OPEN = "open"  # at a certificate whose issuer is not there
TOO_LONG = "too_long"

# The costs of what is wrong. A path that ends somewhere is more telling than one that does not, and of those the longest.
_DEFECT, _OTHER_KEY_ID, _OTHER_NAME, _BROKEN, _UNTRUSTED, _LONG, _OPEN = 10, 5, 20, 50, 300, 600, 2000
_OPEN_STEP = 100


class Path(t.NamedTuple):
    """A path as far as it goes.

    Attributes:
        links: the leaf first, the root last when there is one.
        end: how it ends.
        broken: positions of the links whose signature the next one's key did not make.
        cost: what is wrong with it, in no unit; a path without defects costs nothing.
    """

    links: t.Tuple[Link, ...]
    end: str
    broken: t.FrozenSet[int]
    cost: int

    @property
    def damaged(self) -> t.Set[int]:
        """Positions of the links that were changed. One below may be good: the key that it is checked with is not the right one."""
        return {position for position in self.broken if position + 1 not in self.broken}


class Bag:
    """Certificates to build paths of, and how much work may still go into it.

    Args:
        certificates: what was handed in, in any order.
        trust: certificates of trusted roots. Others among them are used like those handed in.
        at: the time that paths are judged at.

    Attributes:
        exhausted: the search was given up.
        crowded: there were so many issuers of one name that some were not looked at.
    """

    def __init__(self, certificates: t.Iterable[Link], trust: t.Iterable[Link], at: datetime.datetime) -> None:
        self.at = at
        self.exhausted = self.crowded = False
        trusted = dict.fromkeys(trust)
        roots = [one for one in trusted if one.self_issued]
        others = [one for one in trusted if not one.self_issued]
        self.anchors = set(roots)
        self.links = [one for one in dict.fromkeys([*certificates, *others]) if one not in self.anchors]
        self._by_subject: t.Dict[t.Any, t.List[Link]] = {}
        for one in [*roots, *self.links]:
            self._by_subject.setdefault(one.subject, []).append(one)
        self._by_key_id: t.Optional[t.Dict[bytes, t.List[Link]]] = None
        self._issuers_of: t.Dict[Link, t.List[Link]] = {}
        self._left = MAXIMUM_SIGNATURES
        self._signatures: t.Dict[t.Tuple[bytes, bytes], t.Optional[bool]] = {}

    def signed_by(self, child: Link, issuer: Link) -> t.Optional[bool]:
        """Whether the issuer's key signed the child; V(None) when that cannot be told, too much work being one reason."""
        key = (child.fingerprint, issuer.key_bytes)
        if key not in self._signatures:
            if not self._may_check(issuer):
                return None
            self._signatures[key] = signature_holds(child, issuer)
        return self._signatures[key]

    def _may_check(self, issuer: Link) -> bool:
        self._left -= SLOW_KEY if issuer.is_slow else 1
        self.exhausted = self.exhausted or self._left < 0
        return not self.exhausted

    def crl_signed_by(self, crl: x509.CertificateRevocationList, issuer: Link) -> bool:
        """Whether the issuer made the list, and may. When too much was checked already it is taken to be so, to be on the safe side."""
        usage = issuer.key_usage
        key = (crl.fingerprint(hashes.SHA256()), issuer.key_bytes)
        if key not in self._signatures:
            if not self._may_check(issuer):
                return True
            try:
                holds = issuer.public_key is not None and crl.is_signature_valid(issuer.public_key)
            except (ValueError, TypeError, UnsupportedAlgorithm):
                holds = False
            self._signatures[key] = holds and (usage is None or usage.crl_sign)
        return self._signatures[key] is True

    def is_self_signed(self, link: Link) -> bool:
        """A root signed with a digest that the library does not know any more counts as well."""
        return link.self_issued and self.signed_by(link, link) is not False

    def has_anchor_named(self, name: t.Any) -> bool:
        return any(one in self.anchors for one in self._by_subject.get(name, ()))

    def named(self, name: t.Any) -> t.List[Link]:
        """All certificates of that subject."""
        return self._by_subject.get(name, [])

    def paths(self, leaf: Link) -> t.Iterator[Path]:
        """All paths, the cheapest first, until all are told or the work is too much (C(exhausted) says so)."""
        # By cost; then one that is at its end, or else the longest, which is the nearest to it; then the likeliest, which the contents of
        # the bag alone determine.
        queue: t.List[t.Tuple[int, bool, int, int, Path, bool]] = []
        count = 0

        def push(path: Path, checked: bool) -> None:
            nonlocal count
            count += 1
            self.exhausted = self.exhausted or count > MAXIMUM_STEPS
            heappush(queue, (path.cost, not path.end, -len(path.links), count, path, checked))

        push(Path((leaf,), "", frozenset(), 0), True)
        while queue and not self.exhausted:
            path, checked = heappop(queue)[4:]
            if not checked:
                judged = self._check_last(path)
                if judged and judged != path:
                    push(judged, True)
                if judged != path:
                    continue
            if path.end:
                yield path
                continue
            for further, known in self._continued(path):
                push(further, known)

    def _check_last(self, path: Path) -> t.Optional[Path]:
        """The path with its last signature checked; V(None) when the last link has nothing to do with the one before."""
        child, issuer = path.links[-2:]
        if issuer in self.anchors and not self.is_self_signed(issuer):
            return None
        if self.signed_by(child, issuer) is not False:
            return path
        if child.issuer_key_id and issuer.key_id and child.issuer_key_id != issuer.key_id:
            # Another authority of the same name, or an older key of it.
            return None
        return path._replace(broken=path.broken | {len(path.links) - 2}, cost=path.cost + _BROKEN)

    def _continued(self, path: Path) -> t.Iterator[t.Tuple[Path, bool]]:
        """The path with each possible issuer, whose signature is still to be checked, and the path with its end."""
        last = path.links[-1]
        if len(path.links) > 1 and last in self.anchors:
            yield path._replace(end=ANCHOR), True
            return
        if self.is_self_signed(last):
            yield path._replace(end=SELF_SIGNED, cost=path.cost + _UNTRUSTED), True
            return
        if len(path.links) > MAXIMUM_INTERMEDIATES + 1:
            yield path._replace(end=TOO_LONG, cost=path.cost + _LONG), True
            return
        # No authority twice, not even with another certificate: cross-signed ones would go round in circles.
        seen = {(one.subject, one.key_bytes) for one in path.links}
        for issuer in self._issuers(last):
            if (issuer.subject, issuer.key_bytes) in seen:
                continue
            known = bool(last.issuer_key_id and issuer.key_id and last.issuer_key_id != issuer.key_id)
            cost = _DEFECT * self._defects(issuer) + (_OTHER_KEY_ID if known else 0) + (0 if issuer.subject == last.issuer else _OTHER_NAME)
            yield path._replace(links=(*path.links, issuer), cost=path.cost + cost), False
        yield path._replace(end=OPEN, cost=path.cost + _OPEN - _OPEN_STEP * len(path.links)), True

    def _issuers(self, child: Link) -> t.List[Link]:
        """Certificates that may have issued the child: by its issuer's name, or by its issuer's key, whose name may be damaged."""

        def likelihood(one: Link) -> t.Tuple[t.Any, ...]:
            wanted, has = child.issuer_key_id, one.key_id
            key = 0 if wanted and wanted == has else 2 if wanted and has else 1
            return (one not in self.anchors, key, self._defects(one), -one.end.timestamp(), one.fingerprint)

        if child not in self._issuers_of:
            found = list(self._by_subject.get(child.issuer, ()))
            if child.issuer_key_id:
                found += [one for one in self._with_key_id(child.issuer_key_id) if one.subject != child.issuer]
            # More than can be checked need not be ordered again and again.
            self.crowded = self.crowded or len(found) > MAXIMUM_SIGNATURES
            self._issuers_of[child] = sorted(found, key=likelihood)[:MAXIMUM_SIGNATURES]
        return self._issuers_of[child]

    def _with_key_id(self, key_id: bytes) -> t.List[Link]:
        if self._by_key_id is None:
            self._by_key_id = {}
            for one in (link for links in self._by_subject.values() for link in links):
                if one.key_id:
                    self._by_key_id.setdefault(one.key_id, []).append(one)
        return self._by_key_id.get(key_id, [])

    def _defects(self, link: Link) -> int:
        """How much is wrong with a certificate as an authority's, as far as it says so itself."""
        usage = link.key_usage
        return (
            (not link.start <= self.at <= link.end)
            + (not link.is_ca)
            + (usage is None or not usage.key_cert_sign)
            + (link not in self.anchors and link.digest in ("sha1", "md5"))
        )
