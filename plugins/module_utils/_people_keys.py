# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of public SSH keys: what is accepted, in one form. Runs on the controller and on hosts.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import ipaddress
import re
import typing as t

# Type of a key to the number of fields that follow the type in its blob.
_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
_TYPES = ("ssh-", "ecdsa-", "sk-")
RSA_BITS = 3072
# Options that only take something away; all others give, run or trust something.
_PLAIN = ("restrict", "no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc", "no-X11-forwarding", "verify-required")
_OPTION = re.compile(r'([A-Za-z0-9-]+)(?:="([^"\\]*)")?(?:,|$)')
# Wider networks are no pin: they hold networks of strangers.
_WIDEST = {4: 8, 6: 32}


class KeyProblem(ValueError):
    """What is wrong with a line and what to write. The line itself is not quoted: it may hold a private key."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One public key with the options that limit it."""

    kind: str
    blob: str
    comment: str = ""
    options: t.Tuple[str, ...] = ()
    # Addresses that its own from= names.
    sources: t.Tuple[str, ...] = ()

    @property
    def bare(self) -> str:
        """The key without options, as other programs read it."""
        return " ".join(filter(None, (self.kind, self.blob, self.comment)))

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l and the server's log show it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")

    def line(self, sources: t.Sequence[str] = ()) -> str:
        """The line of an authorized_keys file. C(sources) are the addresses of the account; the key's own come first."""
        pins = self.sources or tuple(sources)
        options = ([f'from="{",".join(pins)}"'] if pins else []) + list(self.options)
        return " ".join(filter(None, (",".join(options), self.bare)))


def parse_source(text: t.Any) -> str:
    """An address or network of C(from) in its usual form, such as C(192.0.2.0/24); KeyProblem says what is wrong with it."""
    example = "write an address such as 192.0.2.7 or a network such as 192.0.2.0/24"
    if not isinstance(text, str) or not re.fullmatch(r"[0-9A-Fa-f:.]+(/[0-9]{1,3})?", text):
        raise KeyProblem(f"{_quoted(text)} is no address; {example}; names depend on whoever answers for them")
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            right = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise KeyProblem(f"{_quoted(text)} is no address; {example}") from None
        # sshd ignores the whole line then.
        raise KeyProblem(f"{_quoted(text)} is an address inside a network; write {right} or {text.split('/')[0]}") from None
    if network.prefixlen < _WIDEST[network.version]:
        raise KeyProblem(f"{_quoted(text)} is as good as everywhere; write the networks that are really used")
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


def parse_key(text: t.Any) -> Key:
    """One line of an authorized_keys file as a Key; KeyProblem says what is wrong with it and what to write."""
    if not isinstance(text, str):
        raise KeyProblem("is no text; write the line of the .pub file")
    if "PRIVATE KEY" in text or text.lstrip().startswith("PuTTY-User-Key-File"):
        raise KeyProblem(
            "is a private key and must not be used any more; its owner makes a new pair (ssh-keygen -t ed25519), hands over the .pub file"
        )
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise KeyProblem("is in the SSH2 format; convert it with ssh-keygen -i -f FILE")
    line = text.strip(" \t\r\n").replace("\t", " ")
    if not line:
        raise KeyProblem("is empty; leave it out, or write the line of the .pub file")
    if not line.isprintable():
        raise KeyProblem("has a line break or a control character inside; write one line for each key")
    options, rest = _split_options(line)
    words = rest.split(None, 2)
    kind, blob = words[0], words[1] if len(words) > 1 else ""
    _check_blob(kind, blob)
    sources, plain = _check_options(options)
    return Key(kind, blob, " ".join(words[2].split()) if len(words) > 2 else "", plain, sources)


def _split_options(line: str) -> t.Tuple[str, str]:
    """Options and the rest of a line; the options end at the first blank outside of quotes."""
    if line.startswith(_TYPES):
        return "", line
    quoted = False
    for position, letter in enumerate(line):
        if letter == '"':
            quoted = not quoted
        elif letter in " \t" and not quoted:
            rest = line[position:].strip()
            if rest.startswith(_TYPES):
                return line[:position], rest
            break
    raise KeyProblem("is no public key; write the line of the .pub file, such as 'ssh-ed25519 AAAA... name@computer'")


def _check_options(text: str) -> t.Tuple[t.Tuple[str, ...], t.Tuple[str, ...]]:
    sources: t.List[str] = []
    plain: t.List[str] = []
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None:
            raise KeyProblem('has options that cannot be read; write them such as from="192.0.2.7",restrict')
        name, value = match.group(1).lower(), match.group(2)
        known = {option.lower(): option for option in _PLAIN}
        if name == "from" and value is not None and not sources:
            sources = [parse_source(item) for item in value.split(",")]
        elif name == "expiry-time" and re.fullmatch(r"[0-9]{8}", value or ""):
            plain.append(f'expiry-time="{value}"')
        elif name in known and value is None:
            plain.append(known[name])
        else:
            allowed = ", ".join(("from", 'expiry-time="YYYYMMDD"', *_PLAIN))
            raise KeyProblem(f"has the option {_quoted(name)} in a form that is not accepted; only these are, each once: {allowed}")
        position = match.end()
    if len(set(plain)) != len(plain):
        raise KeyProblem("has an option twice; keep one of them")
    return tuple(sources), tuple(plain)


def _check_blob(kind: str, blob: str) -> None:
    if kind.startswith("ssh-dss"):
        raise KeyProblem("is a DSA key, which no server accepts any more; its owner makes a new one: ssh-keygen -t ed25519")
    if "-cert-" in kind:
        raise KeyProblem("is a certificate; write the key itself")
    if kind not in _FIELDS:
        raise KeyProblem(f"has the unknown type {_quoted(kind)}; write one of {', '.join(_FIELDS)}")
    broken = KeyProblem(f"is no whole {kind} key; copy the line of the .pub file again, it may have been cut or wrapped")
    try:
        fields = _fields(base64.b64decode(blob.encode("ascii"), validate=True))
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise broken from None
    if len(fields) != _FIELDS[kind] + 1 or fields[0] != kind.encode("ascii") or not all(fields):
        raise broken
    if kind.endswith("ed25519") and len(fields[1]) != 32:
        raise broken
    if kind.startswith("sk-ssh-ed25519") and len(fields[1]) != 32:
        raise broken
    if kind == "ssh-rsa":
        bits = int.from_bytes(fields[2], "big").bit_length()
        if bits < RSA_BITS:
            raise KeyProblem(f"is an RSA key of {bits} bits, {RSA_BITS} are the least; its owner makes a new one: ssh-keygen -t ed25519")
        if int.from_bytes(fields[1], "big") < 65537:
            raise KeyProblem("is an RSA key with a weak exponent; its owner makes a new one: ssh-keygen -t ed25519")
    if "ecdsa" in kind:
        curve = re.search(r"nistp[0-9]+", kind)
        size = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
        if curve is None or fields[1] != curve.group().encode("ascii") or len(fields[2]) != size[curve.group()]:
            raise broken


def _fields(data: bytes) -> t.List[bytes]:
    """The strings of SSH's wire format, each with its length before it; ValueError when they do not fill the data exactly."""
    fields = []
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if position + 4 + length > len(data):
            raise ValueError("cut off")
        fields.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    return fields


def _quoted(value: t.Any) -> str:
    """Something that a person wrote, short and on one line."""
    return repr(value)[:60]
