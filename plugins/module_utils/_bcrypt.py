# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests in the form C($2b$) (bcrypt), the only one that the web configuration of Prometheus' programs takes.

Private to the collection: no promise of stability. Standard library only. Slow enough for tokens, which are long and random; passwords that
people choose need a higher cost than Python by itself can do.
"""

from __future__ import annotations

import functools
import hashlib
import typing as t

# The lowest that there is.
COST = 4
_LETTERS = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_ROUNDS, _BOXES, _WORD = 18, 4, 0xFFFFFFFF
_TEXT = b"OrpheanBeholderScryDoubt"

Words = t.List[int]


def digest(name: str, token: str) -> str:
    """The digest of a token. The salt comes of both, slowly: the same in each run, and it tells nothing of the token."""
    made = hashlib.pbkdf2_hmac("sha256", token.encode(), b"civitas.hosting:" + name.encode(), 100000, 16)
    return bcrypt(token, made)


def bcrypt(password: str, salt: bytes, cost: int = COST) -> str:
    """C($2b$cost$), salt and digest.

    Args:
        password: of which 72 bytes count.
        salt: 16 bytes.
        cost: 4 to 31; two to the power of it are the turns.
    """
    key = (password.encode() + b"\0")[:72]
    parts, boxes = _begin()
    _expand(parts, boxes, key, salt)
    for _turn in range(1 << cost):
        _expand(parts, boxes, key, bytes(16))
        _expand(parts, boxes, salt, bytes(16))
    result = b""
    for start in range(0, len(_TEXT), 8):
        left, right = int.from_bytes(_TEXT[start : start + 4], "big"), int.from_bytes(_TEXT[start + 4 : start + 8], "big")
        for _turn in range(64):
            left, right = _encrypted(parts, boxes, left, right)
        result += left.to_bytes(4, "big") + right.to_bytes(4, "big")
    # The last byte is left out, as it has been since the first implementation.
    return f"$2b${cost:02}${_written(salt)}{_written(result[:23])}"


@functools.lru_cache(maxsize=1)
def _fraction() -> t.Tuple[int, ...]:
    """The digits of pi after its point, in words of 32 bits, with which the cipher begins; by Machin's formula."""
    bits = 32 * (_ROUNDS + _BOXES * 256)
    one = 1 << (bits + 64)
    pi = 16 * _arc_cotangent(5, one) - 4 * _arc_cotangent(239, one)
    fraction = (pi - 3 * one) >> 64
    return tuple(fraction >> shift & _WORD for shift in range(bits - 32, -1, -32))


def _arc_cotangent(value: int, one: int) -> int:
    power = total = one // value
    number, sign = 3, -1
    while power:
        power //= value * value
        total += sign * (power // number)
        number, sign = number + 2, -sign
    return total


def _begin() -> t.Tuple[Words, t.List[Words]]:
    words = list(_fraction())
    return words[:_ROUNDS], [words[start : start + 256] for start in range(_ROUNDS, len(words), 256)]


def _encrypted(parts: Words, boxes: t.Sequence[Words], left: int, right: int) -> t.Tuple[int, int]:
    """One block of Blowfish."""
    first, second, third, fourth = boxes
    for part in parts[:16]:
        left ^= part
        mixed = (first[left >> 24] + second[left >> 16 & 255] & _WORD) ^ third[left >> 8 & 255]
        left, right = right ^ (mixed + fourth[left & 255] & _WORD), left
    return right ^ parts[17], left ^ parts[16]


def _expand(parts: Words, boxes: t.Sequence[Words], key: bytes, salt: bytes) -> None:
    """Mix key and salt into the tables of the cipher, in place."""
    keys, salts = _words(key), _words(salt)
    for number in range(_ROUNDS):
        parts[number] ^= next(keys)
    left = right = 0
    for table in (parts, *boxes):
        for number in range(0, len(table), 2):
            left, right = _encrypted(parts, boxes, left ^ next(salts), right ^ next(salts))
            table[number], table[number + 1] = left, right


def _words(data: bytes) -> t.Iterator[int]:
    """The data again and again, four bytes each."""
    place = 0
    while True:
        word = 0
        for _byte in range(4):
            word = word << 8 | data[place]
            place = (place + 1) % len(data)
        yield word


def _written(data: bytes) -> str:
    """In the alphabet of bcrypt, without filling."""
    value, length = int.from_bytes(data, "big"), (len(data) * 8 + 5) // 6
    value <<= length * 6 - len(data) * 8
    return "".join(_LETTERS[value >> 6 * place & 63] for place in range(length - 1, -1, -1))
