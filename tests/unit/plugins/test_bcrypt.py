# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests against those of jBCrypt's own tests, and against the system's crypt(3)."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _bcrypt
from hypothesis import given, settings
from hypothesis import strategies as st


def crypt() -> Any:
    """That of the system, which knows bcrypt where it is libxcrypt."""
    name = ctypes.util.find_library("crypt")
    if not name:
        return None
    function = ctypes.CDLL(name).crypt
    function.restype, function.argtypes = ctypes.c_char_p, [ctypes.c_char_p, ctypes.c_char_p]
    return function if (function(b"x", b"$2b$04$abcdefghijklmnopqrstuu") or b"").startswith(b"$2b$04$abc") else None


CRYPT = crypt()


def salt(text: str) -> bytes:
    """22 letters of bcrypt as 16 bytes."""
    value = 0
    for letter in text:
        value = value << 6 | _bcrypt._LETTERS.index(letter)
    return (value >> 4).to_bytes(16, "big")


@pytest.mark.parametrize(
    ("password", "salted", "rest"),
    [
        ("", "DCq7YPn5Rq63x1Lad4cll.", "TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
        ("a", "m0CrhHm10qJ3lXRY.5zDGO", "3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
        ("abc", "If6bvum7DFjUnE9p2uDeDu", "0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
    ],
)
def test_jbcrypt_agrees(password: str, salted: str, rest: str) -> None:
    assert _bcrypt.bcrypt(password, salt(salted), 6) == f"$2b$06${salted}{rest}"


@pytest.mark.skipif(not CRYPT, reason="this system's crypt(3) knows no bcrypt")
@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=90), st.binary(min_size=16, max_size=16))
def test_the_system_agrees(password: str, salted: bytes) -> None:
    found = _bcrypt.bcrypt(password, salted)
    assert CRYPT(password.encode(), found.encode()).decode() == found


def test_a_token_has_the_same_digest_in_each_run_and_another_one_a_different() -> None:
    first = _bcrypt.digest("civitas", "Canary-4711")
    assert first == _bcrypt.digest("civitas", "Canary-4711")
    assert first[:29] != _bcrypt.digest("other", "Canary-4711")[:29] != _bcrypt.digest("civitas", "Canary-4712")[:29]
