# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as text: what the filters do. Runs on the controller.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import functools
import typing as t

from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_chain as certificate_chain
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_chain import Verdict, describe, judge, with_lists
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_files import Bag, read
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import Problem, in_order, in_words, problem

if t.TYPE_CHECKING:
    from cryptography import x509


class TextError(Exception):
    """An argument that cannot be used; the message says what to write."""


def judge_text(pem_text: t.Any, trust: t.Any, hostname: t.Any = None, private_key: t.Any = None, at: t.Any = None) -> Verdict:
    """Judge the certificates in a text.

    Args:
        pem_text: the certificate and its chain in any order, revocation lists too.
        trust: the trusted roots.
        hostname: a name or address that the leaf must be for, or a list of them; only V(None) leaves the name unjudged.
        private_key: the private key of the leaf without a passphrase, or V(None).
        at: the time to judge at (ISO 8601, UTC unless it says otherwise) or V(None) for now.

    Raises:
        TextError: an argument is no text, no time, no name, or there are no trusted roots.
    """
    _require_library()
    roots = _roots(_text(trust, "trust"))
    when = moment(at)
    hosts = _hosts(hostname)
    bag = read([("the text", _encoded(pem_text, "the text"))])
    problems = list(bag.problems)
    if any(one.code in ("truncated", "unreadable", "too_large") for one in problems):
        # What was not read may be what would be missed.
        return Verdict([], None, problems, [], None)
    if bag.keys and not any(one.code == "private_key_in_certificate_file" for one in problems):
        problems.append(problem("private_key_in_certificate_file", "The text holds a private key."))
    public_key = None
    if private_key is not None:
        public_key, wrong = _public_half(private_key)
        problems += wrong
    if not bag.certificates:
        return Verdict([], None, in_order(problems or [_nothing(bag)]), [], None)
    try:
        verdict = judge(bag.certificates, roots, hostnames=hosts, public_key=public_key, at=when, crls=bag.crls)
    except ValueError as error:
        raise TextError(str(error)) from error
    verdict = with_lists(verdict, bag.crls, when)
    return verdict._replace(problems=in_order([*problems, *verdict.problems]))


def describe_text(pem_text: t.Any, at: t.Any = None) -> t.List[t.Dict[str, t.Any]]:
    """The facts about every certificate in a text, in its order.

    Raises:
        TextError: the text cannot be read, or holds no certificate.
    """
    _require_library()
    when = moment(at)
    bag = read([("the text", _encoded(pem_text, "the text"))])
    problems = [one for one in bag.problems if one.code != "private_key_in_certificate_file"]
    if not bag.certificates and not problems:
        problems = [_nothing(bag)]
    if problems:
        raise TextError("the certificates cannot be read.\n" + in_words(problems))
    return [describe(one, when) for one in bag.certificates]


def moment(at: t.Any) -> t.Optional[datetime.datetime]:
    """A time from its text, aware of its time zone, which is UTC unless it says otherwise; V(None) stays.

    Raises:
        TextError: it is none.
    """
    if at is None:
        return None
    if isinstance(at, datetime.datetime):
        found = at
    else:
        text = str(at).strip()
        try:
            # Python 3.10 does not know the letter.
            found = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in ("Z", "z") else text)
        except ValueError:
            raise TextError(f"at is {text!r}; write a time such as 2026-12-31T12:00:00Z") from None
    found = found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)
    try:
        found.astimezone(datetime.timezone.utc)
    except OverflowError:
        text = f"at is {str(at)!r}, which lies outside the years 1 to 9999 in UTC; write a time such as 2026-12-31T12:00:00Z"
        raise TextError(text) from None
    return found


def _require_library() -> None:
    if certificate_chain.MISSING:
        raise TextError(
            f"the controller needs the Python library cryptography, 45.0 or newer ({certificate_chain.MISSING}); install it for the "
            "Python that runs Ansible"
        )


def _hosts(hostname: t.Any) -> t.List[str]:
    """An empty variable must not switch off the check of the name."""
    if hostname is None:
        return []
    hosts = [_text(one, "hostname") for one in hostname] if isinstance(hostname, (list, tuple)) else [_text(hostname, "hostname")]
    if not hosts or not all(one.strip() for one in hosts):
        raise TextError("hostname is empty; write the name that the certificate must be for, or leave hostname out to judge none")
    return hosts


def _text(value: t.Any, name: str) -> str:
    if value is not None and not isinstance(value, str):
        raise TextError(f"{name} must be text, not {type(value).__name__}")
    return value or ""


def _encoded(value: t.Any, name: str) -> bytes:
    return value if isinstance(value, bytes) else _text(value, name).encode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=4)
def _roots(text: str) -> t.Tuple[x509.Certificate, ...]:
    """Trusted roots are the same in call after call, and there are many of them."""
    if not text.strip():
        raise TextError("trust is empty; hand over the trusted roots as PEM, such as the content of the system's bundle")
    bag = read([("trust", text.encode("utf-8", "surrogateescape"))])
    if bag.problems or not bag.certificates:
        raise TextError("trust cannot be used.\n" + in_words(bag.problems or [_nothing(bag)]))
    return tuple(bag.certificates)


def _nothing(bag: Bag) -> Problem:
    return problem("no_certificate", "There is no certificate." + "".join(f" {one[0].upper()}{one[1:]}." for one in bag.others[:1]))


def _public_half(private_key: t.Any) -> t.Tuple[t.Any, t.List[Problem]]:
    bag = read([("the private key", _encoded(private_key, "private_key"))])
    problems = [problem("key_missing", "The private key is empty.") if one.code == "empty_file" else one for one in bag.problems]
    if len(bag.keys) > 1:
        problems.append(problem("key_missing", f"There are {len(bag.keys)} private keys where one is wanted."))
    elif not bag.keys and not problems:
        problems.append(problem("key_missing", "There is no private key where one is wanted."))
    return (bag.keys[0].public_key() if len(bag.keys) == 1 else None), problems
