# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-egress of the hosts: asks the local resolver for every declared name and keeps its addresses let through.

The resolver fills the sets with what it answers, where it can. This program does it where it cannot, and keeps addresses for clients that
ask once and stay: what is still answered is renewed before it ends, which adding it again does not do.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
import typing as t

CONFIG = "/etc/civitas/egress/names.json"
RESOLVER = ("127.0.0.1", 10053)
TYPES = {4: 1, 6: 28}
TEXT = 16
_PATIENCE = 4.0
_TRIES = 3
_LINES = 50
_Reader = t.Callable[[bytes, bytes, int], t.List[str]]


class AnswerError(Exception):
    """A message that is no answer to the question."""


def question(name: str, kind: int, number: int) -> bytes:
    """A DNS message that asks for records of a type. Raises ValueError for what is no name."""
    labels = b""
    for label in name.rstrip(".").encode("ascii").split(b"."):
        if not 0 < len(label) < 64:
            raise ValueError(f"{name!r} is not a host name")
        labels += bytes([len(label)]) + label
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def addresses(message: bytes, asked: bytes, kind: int) -> t.List[str]:
    """The addresses in the answer to a question, whatever aliases lead to them. Raises AnswerError as C(records)."""
    form = ipaddress.IPv4Address if kind == TYPES[4] else ipaddress.IPv6Address
    try:
        return [str(form(data)) for data in records(message, asked, kind)]
    except ValueError as error:
        raise AnswerError("the answer is damaged") from error


def texts(message: bytes, asked: bytes, _kind: int) -> t.List[str]:
    """The texts in the answer to a question, each put together from its strings. Raises AnswerError as C(records)."""
    found = []
    for data in records(message, asked, TEXT):
        strings = []
        while data:
            strings.append(data[1 : 1 + data[0]])
            data = data[1 + data[0] :]
        found.append(b"".join(strings).decode("utf-8", "replace"))
    return found


def records(message: bytes, asked: bytes, kind: int) -> t.List[bytes]:
    """The data of the records of a type in the answer to a question.

    Raises:
        AnswerError: not an answer to it, cut short, or one that says that the server could not find out.
    """
    try:
        number, flags, questions, answers = struct.unpack_from("!HHHH", message)
        if number != struct.unpack_from("!H", asked)[0] or not flags & 0x8000 or questions != 1:
            raise AnswerError("not the answer to the question")
        if flags & 0x000F not in (0, 3):
            raise AnswerError(f"the name servers could not find out (code {flags & 0x000F})")
        if flags & 0x0200:
            raise AnswerError("the answer is cut short")
        position = _after_name(message, 12) + 4
        found = []
        for _each in range(answers):
            position = _after_name(message, position)
            record, _family, _seconds, length = struct.unpack_from("!HHIH", message, position)
            position += 10
            data = message[position : position + length]
            if len(data) != length:
                raise AnswerError("the answer is cut short")
            position += length
            if record == kind:
                found.append(data)
        return found
    except (struct.error, IndexError) as error:
        raise AnswerError("the answer is damaged") from error


def _after_name(message: bytes, position: int) -> int:
    while message[position]:
        if message[position] & 0xC0:
            return position + 2
        position += message[position] + 1
    return position + 1


def ask(name: str, family: int, server: t.Tuple[str, int] = RESOLVER) -> t.List[str]:
    """The addresses of a name; none when it has none. Raises AnswerError or OSError when nobody knows."""
    return _asked(name, TYPES[family], server, addresses)


def ask_texts(name: str, server: t.Tuple[str, int]) -> t.List[str]:
    """The texts of a name; none when it has none. Raises AnswerError or OSError when nobody knows, ValueError for what is no name."""
    return _asked(name, TEXT, server, texts)


def _asked(name: str, kind: int, server: t.Tuple[str, int], read: _Reader) -> t.List[str]:
    asked = question(name, kind, secrets.randbelow(65536))
    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.connect(server)
        link.settimeout(_PATIENCE / _TRIES)
        for attempt in range(_TRIES):
            try:
                link.send(asked)
                return read(link.recv(65535), asked, kind)
            except socket.timeout:
                continue
            except AnswerError as error:
                # Over UDP a late answer to an earlier question may come first, and a long answer comes cut short.
                if "cut short" in str(error):
                    return _ask_at_length(asked, kind, server, read)
                if attempt == _TRIES - 1:
                    raise
    raise AnswerError("no answer")


def _ask_at_length(asked: bytes, kind: int, server: t.Tuple[str, int], read: _Reader) -> t.List[str]:
    with socket.create_connection(server, timeout=_PATIENCE) as link:
        link.sendall(struct.pack("!H", len(asked)) + asked)
        with link.makefile("rb") as stream:
            (length,) = struct.unpack("!H", stream.read(2).rjust(2, b"\0"))
            return read(stream.read(length), asked, kind)


def present(listing: t.Mapping[str, t.Any]) -> t.Dict[str, t.Dict[str, float]]:
    """Sets with their addresses and the seconds that these are still let through, from what C(nft -j list sets inet) prints."""
    result: t.Dict[str, t.Dict[str, float]] = {}
    for entry in listing.get("nftables", ()):
        found = entry.get("set", {})
        if found.get("table") != "civitas":
            continue
        elements = result.setdefault(str(found["name"]), {})
        for element in found.get("elem", ()):
            values = element.get("elem", {}) if isinstance(element, dict) else {}
            if "val" in values:
                elements[str(values["val"])] = float(values.get("expires", 0))
    return result


def changes(wanted: t.Mapping[str, t.Set[str]], sets: t.Mapping[str, t.Mapping[str, float]], renew_below: float) -> t.List[str]:
    """Lines for C(nft -f): addresses that are missing, and those that end soon. Sets that do not exist are passed over.

    Args:
        wanted: sets and the addresses that belong to them.
        sets: what is there, see present().
        renew_below: seconds that an address must at least have left.
    """
    lines = []
    for name, members in sorted(wanted.items()):
        if name not in sets:
            continue
        for address in sorted(members):
            left = sets[name].get(address)
            target = f"element inet civitas {name} {{ {address} }}"
            if left is None:
                lines.append(f"add {target}")
            elif left < renew_below:
                # In one transaction, so that no connection is refused meanwhile. Added before it is removed: it may have ended by now.
                lines += [f"add {target}", f"delete {target}", f"add {target}"]
    return lines


def main(arguments: t.Sequence[str]) -> int:
    """Ask and fill once. Returns 1 when nothing came of it, 3 when some names have no address; the others are let through all the same."""
    with open(arguments[0] if arguments else CONFIG, encoding="utf-8") as file:
        config = json.load(file)
    wanted: t.Dict[str, t.Set[str]] = {}
    failed = []
    for name, its_sets in config["names"].items():
        found: t.Dict[int, t.List[str]] = {}
        try:
            for family in TYPES:
                found[family] = ask(name, family)
            if not any(found.values()):
                failed.append(f"{name}: it has no address")
        except (AnswerError, OSError) as error:
            failed.append(f"{name}: {error}")
        for family, members in found.items():
            for each in its_sets:
                wanted.setdefault(f"{each}_{family}", set()).update(members)
    problem = fill(wanted, float(config["renew_below"]))
    for line in failed[:_LINES] + ([problem] if problem else []):
        sys.stderr.write(f"{line}\n")
    if problem or (failed and not any(wanted.values())):
        return 1
    return 3 if failed else 0


def fill(wanted: t.Mapping[str, t.Set[str]], renew_below: float) -> str:
    """Bring the sets up to date; returns what was wrong."""
    problem = ""
    for _attempt in range(3):
        listed = _nft("-j", "list", "sets", "inet")
        if listed.returncode:
            return f"nft cannot list the sets: {listed.stderr.strip()}"
        lines = changes(wanted, present(json.loads(listed.stdout)), renew_below)
        if not lines:
            return ""
        done = _nft("-f", "-", script="\n".join([*lines, ""]))
        if done.returncode == 0:
            return ""
        # The table may have been replaced in between.
        problem = f"nft cannot fill the sets: {done.stderr.strip()}"
        time.sleep(0.2)
    return problem


def _nft(*words: str, script: str = "") -> t.Any:
    environment = dict(os.environ, PATH="/usr/sbin:/usr/bin:/sbin:/bin")
    return subprocess.run(["nft", *words], input=script, env=environment, capture_output=True, text=True, timeout=60, check=False)
