# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs, made by the real ssh-keygen."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _key_pairs as keys


@pytest.fixture
def pair(tmp_path):
    return keys.KeyPair(str(tmp_path / "keys/transfer"), "server")


def test_a_pair_is_made_once(pair):
    assert keys.public(pair) == ""
    made = keys.make(pair)
    assert made.startswith("ssh-ed25519 AAAA") and keys.public(pair) == made
    with open(f"{pair.path}.pub", encoding="utf-8") as file:
        assert file.read() == f"{made} server\n"
    assert stat.S_IMODE(os.stat(pair.path).st_mode) == 0o600
    assert sorted(os.listdir(os.path.dirname(pair.path))) == ["transfer", "transfer.pub"]
    assert stat.S_IMODE(os.stat(os.path.dirname(pair.path)).st_mode) == 0o700


def test_the_public_half_is_the_private_keys_own(pair, tmp_path):
    made = keys.make(pair)
    with open(f"{pair.path}.pub", "w", encoding="utf-8") as file:
        file.write("ssh-ed25519 of somebody else\n")
    assert keys.public(pair) == made
    os.unlink(f"{pair.path}.pub")
    assert keys.public(pair) == made


def spoil(pair, how):
    if how == "readable":
        keys.make(pair)
        os.chmod(pair.path, 0o640)
        return
    os.makedirs(os.path.dirname(pair.path))
    if how == "link":
        os.symlink("/etc/hostname", pair.path)
    elif how == "text":
        with open(os.open(pair.path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write("no key\n")
    else:
        options = {"passphrase": ["-t", "ed25519", "-N", "secret"], "rsa": ["-t", "rsa", "-b", "2048", "-N", ""]}[how]
        subprocess.run(["ssh-keygen", "-q", *options, "-f", pair.path], check=True)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("readable", "could be read by others"),
        ("link", "is no file"),
        ("text", "no private key"),
        ("passphrase", "without a passphrase"),
        ("rsa", "another type"),
    ],
)
def test_what_is_no_good_is_refused(pair, how, words):
    spoil(pair, how)
    with pytest.raises(keys.KeyPairError, match=words):
        keys.public(pair)


@pytest.mark.skipif(not shutil.which("age-keygen"), reason="age is not installed here")
def test_a_pair_of_age(tmp_path):
    pair = keys.KeyPair(str(tmp_path / "keys/identity"), "", age=True)
    assert keys.public(pair) == ""
    made = keys.make(pair)
    assert made.startswith("age1") and keys.public(pair) == made
    assert stat.S_IMODE(os.stat(pair.path).st_mode) == 0o600
    assert os.listdir(os.path.dirname(pair.path)) == ["identity"]
    os.chmod(pair.path, 0o644)
    with pytest.raises(keys.KeyPairError, match="could be read by others"):
        keys.public(pair)
    os.chmod(pair.path, 0o600)
    with open(pair.path, "w", encoding="utf-8") as file:
        file.write("no key\n")
    with pytest.raises(keys.KeyPairError, match="is no private key of age"):
        keys.public(pair)


def test_a_program_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(keys.KeyPairError, match="the program age-keygen is not installed"):
        keys.make(keys.KeyPair(str(tmp_path / "identity"), "", age=True))
    assert os.listdir(tmp_path) == []
