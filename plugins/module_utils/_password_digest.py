# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests of passwords in the form C($6$) of crypt(3), which nginx and PAM read.

Private to the collection: no promise of stability. Standard library only: Python has no crypt since 3.13.
"""

from __future__ import annotations

import base64
import hashlib
import typing as t

_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ROUNDS = 5000


def digest(name: str, password: str) -> str:
    """The digest of a user's password. The salt comes of both, slowly: the same in each run, and it tells nothing of the password."""
    made = hashlib.pbkdf2_hmac("sha256", password.encode(), b"civitas.hosting:" + name.encode(), 100000, 12)
    return sha512_crypt(password, base64.b64encode(made, b"./").decode())


def sha512_crypt(password: str, salt: str) -> str:
    """C($6$salt$digest), as Ulrich Drepper's specification has it, with its usual 5000 rounds.

    Args:
        salt: at most 16 characters.
    """
    key, seed = password.encode(), salt.encode()[:16]
    inner = hashlib.sha512(key + seed + key).digest()
    outer = hashlib.sha512(key + seed + _repeat(inner, len(key)))
    bits = len(key)
    while bits:
        outer.update(inner if bits & 1 else key)
        bits >>= 1
    result = outer.digest()
    keys = _repeat(hashlib.sha512(key * len(key)).digest(), len(key))
    seeds = _repeat(hashlib.sha512(seed * (16 + result[0])).digest(), len(seed))
    for number in range(_ROUNDS):
        turn = hashlib.sha512(keys if number & 1 else result)
        if number % 3:
            turn.update(seeds)
        if number % 7:
            turn.update(keys)
        turn.update(result if number & 1 else keys)
        result = turn.digest()
    return f"$6${seed.decode()}${''.join(_letters(result))}"


def _repeat(data: bytes, length: int) -> bytes:
    return (data * (length // len(data) + 1))[:length]


def _letters(data: bytes) -> t.Iterator[str]:
    """64 bytes in the order of the specification, six bits a letter."""
    first, second, third = 0, 21, 42
    for _group in range(21):
        yield from _six(data[first] << 16 | data[second] << 8 | data[third], 4)
        first, second, third = second + 1, third + 1, first + 1
    yield from _six(data[63], 2)


def _six(value: int, count: int) -> t.Iterator[str]:
    for _letter in range(count):
        yield _LETTERS[value & 63]
        value >>= 6
