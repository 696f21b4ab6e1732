# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""New SSH host keys in three steps: made beside the old ones, swapped in with a way back, and the old ones forgotten.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

STAGE = "/var/lib/civitas/host-keys"
# Public keys that this host had once and that nobody should accept any more.
RETIRED = "/var/lib/civitas/host-keys-retired.json"
_RELOAD = ["systemctl", "reload-or-restart", "ssh.service"]
_BITS = {"rsa": ["-b", "4096"], "ecdsa": ["-b", "256"]}


class HostKeyError(Exception):
    """The host keys cannot be replaced; the text says what to do."""


class HostKeys:
    """The host keys of one host.

    Args:
        settings: what C(sshd -T) prints.
        stage: directory for the new keys until they are in use.
        retired: file with the public keys that were in use before.
    """

    def __init__(self, settings: str, stage: str = STAGE, retired: str = RETIRED) -> None:
        lines = [line.split(None, 1) for line in settings.splitlines() if " " in line]
        self.paths = [path for key, path in lines if key == "hostkey"]
        self.ports = [port for key, port in lines if key == "port"]
        self.stage = stage
        self._retired_file = retired
        if not self.paths:
            raise HostKeyError("sshd names no host key. See 'sshd -T'; its lines HostKey must name files.")
        if any(key == "hostcertificate" and path != "none" for key, path in lines):
            raise HostKeyError("sshd uses a host certificate, which belongs to a host key. Have the authority sign new keys instead.")

    def public(self) -> t.List[str]:
        """Public keys in use, each C(type base64)."""
        return [_public(path) for path in self.paths if os.path.exists(path)]

    def staged(self) -> t.List[str]:
        """Public keys that wait to be swapped in, or are in use already but not yet finished."""
        paths = [self._staged(path) for path in self.paths]
        return [_public(path) for path in paths] if paths and all(os.path.exists(path + ".pub") for path in paths) else []

    def old(self) -> t.List[str]:
        """Public keys that the staged ones replace."""
        return _list(os.path.join(self.stage, "old.json"))

    def retired(self) -> t.List[str]:
        """Public keys that were in use once."""
        return _list(self._retired_file)

    def make(self) -> bool:
        """Make new keys beside those in use; false when they are there already."""
        if self.staged() and self.old():
            return False
        shutil.rmtree(self.stage, ignore_errors=True)
        os.makedirs(self.stage, mode=0o700)
        for path in self.paths:
            kind = _public(path).split()[0]
            name = "ecdsa" if kind.startswith("ecdsa-") else kind.replace("ssh-", "")
            _run(["ssh-keygen", "-q", "-t", name, *_BITS.get(name, []), "-N", "", "-C", "", "-f", self._staged(path)])
        # Last: what is here without it was cut off and is made anew.
        write_json(os.path.join(self.stage, "old.json"), self.public(), 0o600)
        return True

    def swap(self) -> bool:
        """Bring the staged keys into use, armed to go back by itself; false when they are in use already."""
        staged = self.staged()
        if not staged or not self.old():
            raise HostKeyError("there are no new keys; make them first (state: staged)")
        if self.public() == staged:
            return False
        _revert.arm([file for path in self.paths for file in (path, path + ".pub")], [_RELOAD])
        for path in self.paths:
            for end, mode in (("", 0o600), (".pub", 0o644)):
                _put(self._staged(path) + end, path + end, mode)
        _run(_RELOAD)
        return True

    def offered(self) -> t.List[str]:
        """Public keys that sshd offers to a client on this host."""
        done = subprocess.run(
            ["ssh-keyscan", "-T", "10", "-p", self.ports[0] if self.ports else "22", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return sorted(" ".join(line.split()[1:3]) for line in done.stdout.splitlines() if not line.startswith("#"))

    def is_offered(self, patience: float = 15) -> bool:
        """Whether sshd offers new keys and no old one. It may take a moment: the end of a reload is not told."""
        end = time.monotonic() + patience
        while True:
            offered = self.offered()
            # One of the new ones is enough: settings may keep sshd from offering a kind.
            if set(offered) & set(self.staged()) and not set(offered) & set(self.old()):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(0.3)

    def finish(self) -> bool:
        """Forget the old keys; false when there is nothing to forget."""
        if not os.path.exists(self.stage):
            return False
        if self.public() != self.staged():
            raise HostKeyError("the new keys are not in use; swap them in first (state: active)")
        # First: the controller forgets what stands here, also in a run after one that was cut off.
        write_json(self._retired_file, sorted({*self.retired(), *self.old()} - set(self.public())), 0o600)
        shutil.rmtree(self.stage)
        return True

    def _staged(self, path: str) -> str:
        return os.path.join(self.stage, os.path.basename(path))


def _list(path: str) -> t.List[str]:
    try:
        with open(path, encoding="utf-8") as stream:
            return list(json.load(stream))
    except FileNotFoundError:
        return []


def _public(path: str) -> str:
    with open(path + ".pub", encoding="ascii") as stream:
        return " ".join(stream.read().split()[:2])


def _put(source: str, target: str, mode: int) -> None:
    with open(source, "rb") as stream:
        data = stream.read()
    temporary = f"{target}.civitas-new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())
    os.rename(temporary, target)


def _run(words: t.Sequence[str]) -> None:
    done = subprocess.run(list(words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostKeyError(f"{' '.join(words[:3])} ... failed: {' '.join((done.stderr or done.stdout).split())}")
