# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key pairs of SSH that are made on the host which uses them, and never leave it but for their public halves.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import typing as t


class KeyPairError(Exception):
    """A key pair cannot be used or made; the text says why."""


class KeyPair(t.NamedTuple):
    """A private key of root alone: of SSH, type ed25519, without passphrase, whose public half C(comment) is part of; or of age."""

    path: str
    comment: str
    age: bool = False


def public(pair: KeyPair) -> str:
    """The public half of a key pair that is there, C(type base64) or C(age1...); empty when there is none. Raises KeyPairError, OSError."""
    if not os.path.lexists(pair.path):
        return ""
    found = os.lstat(pair.path)
    if os.path.islink(pair.path) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise KeyPairError(f"{pair.path} could be read by others than root, or is no file; remove it, and a new pair is made")
    if pair.age:
        return _run(["age-keygen", "-y", pair.path], f"{pair.path} is no private key of age").strip()
    # A file beside it may be another key's.
    words = _run(["ssh-keygen", "-y", "-P", "", "-f", pair.path], f"{pair.path} is no private key without a passphrase").split()
    if len(words) < 2 or words[0] != "ssh-ed25519":
        raise KeyPairError(f"{pair.path} is of another type than ed25519; remove it, and a new pair is made")
    return " ".join(words[:2])


def make(pair: KeyPair) -> str:
    """Make a key pair and return its public half. Killed at any time, it leaves a whole pair or none. Raises KeyPairError, OSError."""
    directory = os.path.dirname(pair.path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".key-", dir=directory) as place:
        new = os.path.join(place, "key")
        if pair.age:
            _run(["age-keygen", "-o", new], f"{pair.path} cannot be made")
            os.replace(new, pair.path)
            return public(pair)
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", pair.comment, "-f", new], f"{pair.path} cannot be made")
        # The private half comes last: with it the pair is there.
        os.replace(f"{new}.pub", f"{pair.path}.pub")
        os.replace(new, pair.path)
    return public(pair)


def _run(command: t.Sequence[str], problem: str) -> str:
    try:
        done = subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True)
    except FileNotFoundError as error:
        raise KeyPairError(f"{problem}: the program {command[0]} is not installed") from error
    if done.returncode != 0:
        raise KeyPairError(f"{problem}: {' '.join(done.stderr.split())[:200]}")
    return done.stdout
