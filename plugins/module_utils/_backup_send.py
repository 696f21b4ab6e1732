# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a set to the store: rsync over SSH, as often as is allowed, and the store's word that it keeps it.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest

Reply = t.Dict[str, t.Any]
# As long as the store's own programs wait for its service; much can be read before a set is kept.
_ANSWER_SECONDS = 6 * 3600.0


class SendError(Exception):
    """The store does not have the set; the text says why.

    Attributes:
        bad: members that are to be sent again.
        final: it makes no sense to try again.
    """

    def __init__(self, text: str, bad: t.Sequence[str] = (), final: bool = False) -> None:
        super().__init__(text)
        self.bad = list(bad)
        self.final = final


class Store(t.NamedTuple):
    """How the store is reached.

    Attributes:
        key: file of the private key of SSH that may add sets and nothing else.
        known_hosts: file with the store's host keys; no other one is trusted.
        options: for ssh, as the way through a bastion.
        bandwidth: KiB per second; 0 for no limit.
        tries: how often each step is tried.
        pause: seconds before the second try; each further pause is twice as long.
        timeout: seconds without any progress after which a try has failed.
    """

    address: str
    user: str
    key: str
    known_hosts: str
    port: int = 22
    options: t.Tuple[str, ...] = ()
    bandwidth: int = 0
    tries: int = 4
    pause: float = 30.0
    timeout: int = 120


class Sender:
    """Speaks with the store.

    Args:
        say: takes lines for people.

    Attributes:
        ssh: the command that reaches it, without its address.
    """

    def __init__(self, store: Store, say: t.Callable[[str], None]) -> None:
        self.store = store
        self._say = say
        self.ssh = ["ssh", "-T", "-F", "none", "-p", str(store.port), "-l", store.user, "-i", store.key]
        settings = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": store.known_hosts,
            "GlobalKnownHostsFile": "none",
            "UpdateHostKeys": "no",
            "ConnectTimeout": "20",
            "ServerAliveInterval": "15",
            "ServerAliveCountMax": str(max(1, store.timeout // 15)),
            "ForwardAgent": "no",
            "ClearAllForwardings": "yes",
        }
        self.ssh += [word for name, value in settings.items() for word in ("-o", f"{name}={value}")] + list(store.options)

    def ask(self, *words: str) -> Reply:
        """What the store says. Raises SendError after all tries."""
        return t.cast(Reply, self.often(lambda: self._ask(words)))

    def often(self, work: t.Callable[[], t.Any]) -> t.Any:
        """What C(work) gives, which is tried again as long as a try may help. Raises SendError."""
        pause = self.store.pause
        for left in reversed(range(self.store.tries)):
            try:
                return work()
            except SendError as error:
                if error.final or error.bad or not left:
                    raise
                self._say(f"{error}; it is tried again in {pause:g} seconds")
            time.sleep(pause)
            pause *= 2
        raise SendError("no try is allowed", final=True)

    def _ask(self, words: t.Sequence[str]) -> Reply:
        command = [*self.ssh, "--", self.store.address, " ".join(words)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_ANSWER_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise SendError(f"the store does not answer within {_ANSWER_SECONDS / 3600:g} hours") from error
        try:
            reply = json.loads(done.stdout)
            if "error" in reply:
                raise SendError(f"the store refuses: {reply['error']}", [str(name) for name in reply["bad"]], bool(reply["final"]))
            if done.returncode == 0 and isinstance(reply, dict):
                return reply
        except (ValueError, KeyError, TypeError):
            pass
        raise SendError(f"the store does not answer: {_said(done.stderr) or f'ssh ended with {done.returncode}'}")

    def send(self, directory: str, manifest: Manifest) -> None:
        """Bring a set into the store and have it kept. Members that are not in C(directory) are there already.

        Raises:
            SendError: it is not kept.
            OSError: the set cannot be read.
        """
        size = sum(os.stat(os.path.join(directory, name)).st_size for name in os.listdir(directory))
        taken = set(self.ask("begin", manifest.set_id, str(size))["taken"])
        names = [name for name in sorted(manifest.members) if name not in taken and os.path.exists(os.path.join(directory, name))]
        # The manifest comes last, so a set without one is never whole.
        names += [form.MANIFEST, form.SIGNATURE]
        for left in reversed(range(self.store.tries)):
            self.often(functools.partial(self._rsync, directory, manifest.set_id, names))
            try:
                reply = self.ask("commit", manifest.set_id)
                break
            except SendError as error:
                mine = [name for name in error.bad if os.path.exists(os.path.join(directory, name))]
                if error.final or len(mine) < len(error.bad) or not mine or not left:
                    raise
                self._say(f"{error}; these are sent again")
                names = [*mine, form.MANIFEST, form.SIGNATURE]
        listed = manifest.set_id in reply.get("sets", [])
        if not listed or (reply.get("set"), reply.get("sha256")) != (manifest.set_id, manifest.sha256):
            raise SendError("the store says that it keeps another set than the one that was sent", final=True)

    def _rsync(self, directory: str, set_id: str, names: t.Sequence[str]) -> None:
        """Raises SendError."""
        command = ["rsync", "-t", "--inplace", f"--timeout={self.store.timeout}"]
        command += [f"--bwlimit={self.store.bandwidth}"] if self.store.bandwidth else []
        # rsync takes words in quotes, and a doubled quote for one.
        command += ["-e", " ".join("'" + word.replace("'", "''") + "'" for word in self.ssh), "--", *names]
        command += [f"{self.store.address}:incoming/{set_id}/"]
        environment = {**os.environ, "RSYNC_PROTECT_ARGS": "0", "LC_ALL": "C"}
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=directory, env=environment)
        if done.returncode != 0:
            raise SendError(f"the transfer was cut off: rsync ended with {done.returncode}: {_said(done.stderr)}")


def _said(output: bytes) -> str:
    return " ".join(output.decode("utf-8", "replace").split())[-300:]
