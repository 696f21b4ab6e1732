# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions to the DNS that know "there is none" from "nobody answered". Runs on the controller, with dnspython.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

try:
    import dns.exception
    import dns.name
    import dns.nameserver
    import dns.resolver
    import dns.reversename

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

# Waiting for one answer before the question is repeated: a lost packet must not be a missing record.
_TRY_SECONDS = 1.5


class Unanswered(Exception):
    """Whether there is such a record cannot be told: servers failed, refused or were silent. The message names the question."""


class Answer(t.NamedTuple):
    """What the DNS says for a name and type.

    Attributes:
        exists: whether the name does, with any type (V(False) is NXDOMAIN).
        values: V(bytes) for TXT (its strings joined), V((preference, name)) for MX, V(str) for A, AAAA and PTR; nothing for other types.
            Names come without their last dot.
        alias: whether the name is a CNAME.
    """

    exists: bool
    values: t.Tuple[t.Any, ...] = ()
    alias: bool = False


class Dns:
    """Asks each question once and remembers the answer, or that there was none.

    Args:
        nameservers: such as V(192.0.2.53) or V([2001:db8::53]:5353); this machine's own when empty.
        timeout: seconds for one question with all its repetitions.

    Raises:
        ValueError: a name server is written wrong, or this machine has none; the message says what to write.
    """

    def __init__(self, nameservers: t.Sequence[str] = (), timeout: float = 5) -> None:
        servers = [_server(one) for one in nameservers]
        try:
            self._resolver = dns.resolver.Resolver(configure=not servers)
        except dns.resolver.NoResolverConfiguration as error:
            raise ValueError("this machine has no name server in /etc/resolv.conf; write nameservers, such as [192.0.2.53]") from error
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in servers]
        self._resolver.timeout = min(_TRY_SECONDS, timeout)
        self._resolver.lifetime = timeout
        self._known: t.Dict[t.Tuple[str, str], t.Union[Answer, Unanswered]] = {}

    def ask(self, name: str, kind: str) -> Answer:
        """The records of a type; an answer that was cut off is asked for again by TCP.

        Raises:
            Unanswered: nobody could tell.
        """
        key = (name.lower().rstrip("."), kind)
        if key not in self._known:
            try:
                self._known[key] = self._ask(*key)
            except Unanswered as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, Unanswered):
            raise found
        return found

    def addresses(self, name: str) -> t.List[str]:
        """All addresses of a name, IPv4 first. Raises C(Unanswered)."""
        return [*self.ask(name, "A").values, *self.ask(name, "AAAA").values]

    def text(self, name: str) -> t.List[str]:
        """The TXT records of a name. Raises C(Unanswered)."""
        return [value.decode("utf-8", "replace") for value in self.ask(name, "TXT").values]

    def _ask(self, name: str, kind: str) -> Answer:
        try:
            wanted = dns.name.from_text(f"{name}.")
        except (dns.exception.DNSException, UnicodeError):
            # Nothing can have such a name.
            return Answer(False)
        try:
            found = self._resolver.resolve(wanted, kind, raise_on_no_answer=False, search=False)
        except dns.resolver.NXDOMAIN:
            return Answer(False)
        except dns.resolver.LifetimeTimeout:
            raise Unanswered(f"{kind} of {name}: no answer within {self._resolver.lifetime:g} s") from None
        except dns.resolver.NoNameservers as error:
            raise Unanswered(f"{kind} of {name}: {_said(error)}") from None
        except (dns.exception.DNSException, OSError) as error:
            raise Unanswered(f"{kind} of {name}: {error or type(error).__name__}") from None
        return Answer(True, tuple(_value(one, kind) for one in found), found.canonical_name != wanted)


def reverse_name(address: str) -> str:
    """The name under which the PTR record of an address is, without its last dot."""
    return str(dns.reversename.from_address(address)).rstrip(".")


def _server(text: str) -> t.Tuple[str, int]:
    # An address without port, IPv6 with brackets and port, IPv4 with port.
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:([0-9]{1,5})|([0-9.]+):([0-9]{1,5})", text)
    host, port = (found[1] or found[3], int(found[2] or found[4])) if found else (text, 53)
    try:
        if 0 < port < 65536:
            return str(ipaddress.ip_address(host)), port
    except ValueError:
        pass
    raise ValueError(f"nameservers: {text!r} is no address of a name server; write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353")


def _said(error: dns.resolver.NoNameservers) -> str:
    """What each server said, such as "192.0.2.53 says SERVFAIL"."""
    told = [
        f"{str(one[0]).partition('@')[0].replace('Do53:', '')} says {one[3] or type(one[3]).__name__}" for one in error.kwargs["errors"]
    ]
    return "; ".join(dict.fromkeys(told)) or "no name server could be asked"


def _value(record: t.Any, kind: str) -> t.Any:
    if kind == "TXT":
        return b"".join(record.strings)
    if kind == "MX":
        return (record.preference, str(record.exchange).rstrip("."))
    return str(record).rstrip(".")
