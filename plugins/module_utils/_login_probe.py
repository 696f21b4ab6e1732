# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real logins by SSH of an account that is there for some seconds: the proof that the way in is what its files say.

Private to the collection: no promise of stability. Standard library only; needs C(ssh), which comes with the server's package.

The account is a person like others to sshd and PAM. Its key works from the host itself only, it expires the next day, and it has no home:
one that a crash leaves behind opens nothing to anybody, and the next probe removes it.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import os
import pwd
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _access_program as program
from ansible_collections.civitas.hosting.plugins.module_utils._second_factors import new_secret, secret_file, write_private

NAME = "civitas-probe"
GROUP = "civitas-people"
# Programs in it must be runnable, which /run and /tmp need not allow.
SCRATCH = "/var/lib/civitas"
ANSWER = "CIVITAS_ANSWER"
PATIENCE = 15.0
LOGIN_SECONDS = 30
# What the client says when it has not come as far as a login.
UNTRIED = ("ssh: ", "kex_exchange", "Unable to negotiate", "Bad configuration", "command-line")


class ProbeError(Exception):
    """The probe could not be made: nothing is known about logins."""


class Case(t.NamedTuple):
    """One login: what it is called, whether it must succeed, and what was seen."""

    title: str
    wanted: bool
    found: bool
    said: str

    @property
    def ok(self) -> bool:
        return self.wanted == self.found


def totp(secret: str, moment: float) -> str:
    """The code of a base32 secret at a moment, by RFC 6238: SHA-1, six digits, 30 seconds."""
    digest = hmac.new(base64.b32decode(secret), struct.pack(">Q", int(moment) // 30), hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = struct.unpack(">I", digest[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"


def wrong_code(secret: str, moment: float) -> str:
    """Six digits that are right at no time near the moment."""
    right = {totp(secret, moment + 30 * step) for step in range(-4, 5)}
    return next(code for number in range(1_000_000) if (code := f"{number:06d}") not in right)


def servers(settings: program.Settings) -> t.List[t.Tuple[str, int]]:
    """Where to reach sshd from the host itself, by what C(sshd -T) says; IPv4 first, as a host may have no other."""
    found = []
    for listen in settings.get("listenaddress", ["0.0.0.0:22"]):
        address, _colon, port = listen.rpartition(":")
        address = address.strip("[]").partition("%")[0]
        found.append(({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address), int(port)))
    return sorted(found, key=lambda place: ":" in place[0])


class LoginProbe:
    """One probe of this host.

    Args:
        second_factor: whether a person needs a code.
        ask: runs a command.
    """

    def __init__(self, second_factor: bool, ask: program.Run = program.run) -> None:
        self.second_factor = second_factor
        self.ask = ask
        self.directory = ""
        self.address, self.port = "", 0

    def run(self) -> t.List[Case]:
        """All logins in turn. ProbeError when they could not be tried; whatever happens, the account is gone afterwards."""
        rc, out = self.ask(["/usr/sbin/sshd", "-T"])
        if rc != 0:
            raise ProbeError(f"sshd refuses its configuration: {out}")
        self.address, self.port = self._reach(servers(program.parse_settings(out)))
        self._remove()
        os.makedirs(SCRATCH, mode=0o755, exist_ok=True)
        self.directory = tempfile.mkdtemp(prefix="probe-", dir=SCRATCH)
        try:
            return self._cases()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
            self._remove()

    def _cases(self) -> t.List[Case]:
        key, password = self._make_account()
        keys, code = ["-i", key], "PreferredAuthentications=publickey,keyboard-interactive"
        cases = [
            Case("a password alone", False, *self._login(password, "-o", "PubkeyAuthentication=no")),
            Case("no key at all", False, *self._login(password, "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=none")),
        ]
        if not self.second_factor:
            return [*cases, Case("the key", True, *self._login("", *keys, "-o", "PreferredAuthentications=publickey"))]
        secret, codes = new_secret()
        write_private(os.path.join(program.SECRETS, NAME), secret_file(secret, codes).encode())
        now = time.time()
        return [
            *cases,
            Case("the key alone", False, *self._login("", *keys, "-o", "PreferredAuthentications=publickey")),
            Case("the key and a wrong code", False, *self._login(wrong_code(secret, now), *keys, "-o", code)),
            Case("the key and the password", False, *self._login(password, *keys, "-o", f"{code},password")),
            Case("a code without the key", False, *self._login(totp(secret, now), "-o", "PubkeyAuthentication=no")),
            Case("the key and the right code", True, *self._login(totp(secret, time.time()), *keys, "-o", code)),
        ]

    def _make_account(self) -> t.Tuple[str, str]:
        """Path of the private key, and the password."""
        end = datetime.date.today() + datetime.timedelta(days=2)
        self._must(
            *("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", "--groups", GROUP),
            *("--expiredate", end.isoformat(), "--comment", "Probe of the SSH login, removed at once", NAME),
        )
        password = secrets.token_hex(16)
        # With a method of its own it does not ask PAM, where rules for people's passwords would speak.
        done = subprocess.run(
            ["chpasswd", "--crypt-method", "SHA512"], input=f"{NAME}:{password}\n".encode(), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ProbeError(f"chpasswd: {done.stdout.decode('utf-8', 'replace').strip()}")
        key = os.path.join(self.directory, "key")
        self._must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", NAME, "-f", key)
        with open(f"{key}.pub", encoding="ascii") as file:
            line = f'restrict,from="{self.address}" {file.read()}'
        os.makedirs(program.KEYS, mode=0o755, exist_ok=True)
        path = os.path.join(program.KEYS, NAME)
        write_private(path, line.encode())
        # sshd reads it as the account.
        os.chmod(path, 0o644)
        askpass = os.path.join(self.directory, "askpass")
        with open(askpass, "w", encoding="ascii") as file:
            file.write(f"#!/bin/sh\nprintf '%s\\n' \"${ANSWER}\"\n")
        os.chmod(askpass, 0o700)
        return key, password

    def _login(self, answer: str, *options: str) -> t.Tuple[bool, str]:
        """Whether a command ran, and what ssh said. The answer is in the environment, which only root can read, and in no argument."""
        argv = [
            *("ssh", "-F", "/dev/null", "-n", "-p", str(self.port), "-o", "ControlPath=none", "-o", "IdentitiesOnly=yes"),
            *("-o", "IdentityAgent=none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
            *("-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=10", *options, f"{NAME}@{self.address}", "id -un"),
        ]
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": self.directory,
            "LC_ALL": "C.UTF-8",
            "SSH_ASKPASS": os.path.join(self.directory, "askpass"),
            "SSH_ASKPASS_REQUIRE": "force",
            ANSWER: answer,
        }
        try:
            done = subprocess.run(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=LOGIN_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise ProbeError(f"a login at {self.address} port {self.port} did not end within {LOGIN_SECONDS} s") from None
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        last = said[-1] if said else "the server closed the connection" if done.returncode == 255 else ""
        if done.returncode == 255 and last.startswith(UNTRIED):
            raise ProbeError(f"no login at {self.address} port {self.port} could be tried: {last}")
        return done.returncode == 0 and done.stdout.decode().strip() == NAME, last

    def _reach(self, places: t.Sequence[t.Tuple[str, int]]) -> t.Tuple[str, int]:
        """The first place where an SSH server answers; one that was just started may need a moment."""
        end = time.monotonic() + PATIENCE
        reasons: t.Dict[str, str] = {}
        while time.monotonic() < end:
            for address, port in places:
                try:
                    with socket.create_connection((address, port), timeout=5) as connection:
                        if connection.recv(4) == b"SSH-":
                            return address, port
                        reasons[address] = "closes the connection"
                except OSError as error:
                    reasons[address] = str(error)
            time.sleep(0.2)
        raise ProbeError("sshd does not answer: " + "; ".join(f"{address}: {reason}" for address, reason in reasons.items()))

    def _remove(self) -> None:
        """The account and all that belongs to it, also what an earlier probe left."""
        for path in (os.path.join(program.KEYS, NAME), os.path.join(program.SECRETS, NAME)):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(path)
        with contextlib.suppress(KeyError):
            pwd.getpwnam(NAME)
            # Its last session may still be ending.
            self._must("userdel", "--force", NAME)

    def _must(self, *argv: str) -> None:
        rc, out = self.ask(argv)
        if rc != 0:
            raise ProbeError(f"{argv[0]}: {out}")


def journal(since: float, ask: program.Run = program.run) -> str:
    """What sshd and PAM said about the probe since then. From OpenSSH 9.8 on sessions are a program of their own."""
    pattern = f"{NAME}|PAM (unable|adding|bad)"
    who = ["--identifier=sshd", "--identifier=sshd-session"]
    _rc, out = ask(["journalctl", "--boot", "--quiet", "--no-pager", "--output=cat", f"--since=@{since:.0f}", "--grep", pattern, *who])
    return "\n".join(out.splitlines()[-8:])
