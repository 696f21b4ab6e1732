# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests against the specification's own examples, and against OpenSSL."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.password_digest import password_digest
from ansible_collections.civitas.hosting.plugins.module_utils._password_digest import sha512_crypt
from hypothesis import given, settings
from hypothesis import strategies as st


def test_the_specification_agrees():
    """The first example of 'Unix crypt using SHA-256 and SHA-512', Ulrich Drepper, 2008."""
    assert sha512_crypt("Hello world!", "saltstring") == (
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
    )


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl")
@settings(max_examples=20, deadline=None)
@given(
    st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=80),
    st.text("./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", min_size=1, max_size=16),
)
def test_openssl_agrees(password, salt):
    done = subprocess.run(
        ["openssl", "passwd", "-6", "-salt", salt, "-stdin"], input=password.encode() + b"\n", capture_output=True, check=True
    )
    assert sha512_crypt(password, salt) == done.stdout.decode().strip()


def test_a_user_has_the_same_digest_in_each_run_and_another_one_a_different():
    first = password_digest("Canary-4711-x", "anna")
    assert first == password_digest("Canary-4711-x", "anna")
    assert first.split("$")[2] != password_digest("Canary-4711-x", "bert").split("$")[2]
    assert first.split("$")[2] != password_digest("Canary-4711-y", "anna").split("$")[2]


@pytest.mark.parametrize("password", ["", None, 7])
def test_what_is_no_password_is_refused_without_being_told(password):
    with pytest.raises(AnsibleFilterError, match="is no text, or empty"):
        password_digest(password, "anna")
