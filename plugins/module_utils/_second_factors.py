# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of the second factor: one file a person, made once, told to nobody but that person.

Private to the collection: no promise of stability. Standard library only; runs C(qrencode) and C(age).

What a person needs to set up an authenticator is encrypted to their own SSH keys in memory, and lies on the host only as ciphertext until
the controller has it. The ciphertext is named after a hash of its secret and is written first: whatever a crash leaves behind, one that
does not belong to the secret in force is known and removed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import secrets
import subprocess
import tarfile
import time
import typing as t
from urllib.parse import quote, urlencode

DIRECTORY = "/etc/civitas/second-factor"
OUTBOX = "/var/lib/civitas/access/enrolment"
# In place of a secret: nothing is right, and nobody is enrolled again unasked.
REVOKED = '" REVOKED\n'
SCRATCH_CODES = 8
# Of code steps of 30 seconds: the one before, the present one, the one after.
WINDOW = 3
AGE_KINDS = ("ssh-ed25519", "ssh-rsa", "age1")
SUFFIX = ".tar.age"


class SecondFactorError(Exception):
    """What cannot be done, for whom, and what to write."""


class Enrolment(t.NamedTuple):
    """What is sent to one person: hash of the secret that it belongs to, ciphertext in base64."""

    id: str
    ciphertext: str


class Outcome(t.NamedTuple):
    """Names by what has become of their secrets, and the enrolments that wait for the controller."""

    made: t.List[str]
    reset: t.List[str]
    revoked: t.List[str]
    removed: t.List[str]
    without: t.List[str]
    waiting: t.Dict[str, Enrolment]

    @property
    def changed(self) -> bool:
        return bool(self.made or self.reset or self.revoked or self.removed)


def recipients(name: str, public_keys: t.Sequence[str], age_recipient: str = "") -> t.List[str]:
    """What to encrypt to: the recipient that is given, else all keys that age can use. SecondFactorError when there is none."""
    if age_recipient:
        if not age_recipient.startswith(AGE_KINDS):
            raise SecondFactorError(f"{name}: age_recipient must begin with age1, ssh-ed25519 or ssh-rsa")
        return [age_recipient]
    usable = [key for key in public_keys if key.startswith(AGE_KINDS)]
    if not usable:
        raise SecondFactorError(
            f"{name}: none of the SSH keys can be encrypted to (ssh-ed25519 and ssh-rsa can, keys on hardware tokens and ECDSA cannot), "
            "so the enrolment could not be sent; write age_recipient with a key made by age-keygen"
        )
    return usable


def new_secret() -> t.Tuple[str, t.List[str]]:
    """160 random bits in base32, and codes for emergencies, eight digits each, none beginning with 0."""
    codes: t.List[str] = []
    while len(codes) < SCRATCH_CODES:
        code = str(10_000_000 + secrets.randbelow(90_000_000))
        if code not in codes:
            codes.append(code)
    return base64.b32encode(secrets.token_bytes(20)).decode("ascii"), codes


def secret_file(secret: str, codes: t.Sequence[str]) -> str:
    """The file as pam_google_authenticator reads it; it rewrites it at each login."""
    options = ["RATE_LIMIT 3 30", f"WINDOW_SIZE {WINDOW}", "DISALLOW_REUSE", "TOTP_AUTH"]
    return "\n".join([secret, *(f'" {option}' for option in options), *codes]) + "\n"


def secret_id(text: str) -> str:
    """Hash of the secret (the first line) of a file: the same whatever logins have changed in it."""
    return hashlib.sha256(text.partition("\n")[0].encode()).hexdigest()[:16]


def otpauth(name: str, host: str, secret: str) -> str:
    """The link that authenticators understand, label C(civitas:name@host)."""
    query = urlencode({"secret": secret, "issuer": "civitas", "algorithm": "SHA1", "digits": 6, "period": 30})
    return f"otpauth://totp/{quote(f'civitas:{name}@{host}', safe=':@')}?{query}"


def _pipe(argv: t.Sequence[str], data: bytes) -> bytes:
    """Output of a program that gets C(data) by pipe: never by argument, never by file."""
    try:
        done = subprocess.run(list(argv), input=data, capture_output=True, check=False, timeout=60)
    except FileNotFoundError:
        raise SecondFactorError(f"{argv[0]} is not installed; install the packages of the role access") from None
    if done.returncode != 0:
        raise SecondFactorError(f"{argv[0]}: {done.stderr.decode('utf-8', 'replace').strip()[-300:]}")
    return done.stdout


def archive(name: str, host: str, secret: str, codes: t.Sequence[str]) -> bytes:
    """What the person gets, as tar: a text with link, secret, emergency codes and QR code; the QR code as PNG and SVG."""
    link = otpauth(name, host, secret).encode()
    code = {kind: _pipe(["qrencode", "-t", kind, "-o", "-"], link) for kind in ("UTF8", "PNG", "SVG")}
    text = (
        f"Second factor of {name} at {host}\n\n"
        "Scan the code with an authenticator (any that does TOTP), or type the secret. Then delete these files.\n\n"
        f"{code['UTF8'].decode('utf-8')}\n"
        f"link:    {link.decode()}\n"
        f"secret:  {secret}\n\n"
        "Each of these works once, in place of a code, when the authenticator is lost. Keep them on paper:\n"
        + "".join(f"    {each}\n" for each in codes)
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, data in (("enrolment.txt", text.encode()), ("enrolment.png", code["PNG"]), ("enrolment.svg", code["SVG"])):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(time.time())
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def encrypt(data: bytes, to: t.Sequence[str]) -> bytes:
    return _pipe(["age", *(word for each in to for word in ("--recipient", each))], data)


def write_private(path: str, data: bytes) -> None:
    """Put a file of root's alone in place in one step; what cannot be written in full leaves the old one."""
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class SecondFactors:
    """The secrets of a host.

    Args:
        host: what the host is called in an authenticator.
        directory: where PAM finds the secrets.
        outbox: where enrolments wait for the controller.
    """

    def __init__(self, host: str, directory: str = DIRECTORY, outbox: str = OUTBOX) -> None:
        self.host = host
        self.directory = directory
        self.outbox = outbox

    def apply(
        self,
        people: t.Sequence[t.Mapping[str, t.Any]],
        reset: t.Sequence[str] = (),
        revoke: t.Sequence[str] = (),
        exclusive: bool = True,
        enrol: bool = True,
        check: bool = False,
    ) -> Outcome:
        """Give a secret to everybody in C(people) who has none, and take it from everybody else.

        Args:
            people: C(name), C(public_keys), C(age_recipient).
            reset: who gets another one; the old one is of no use from then on.
            revoke: whose secret is made useless without another; only a reset ends that.
            exclusive: whether secrets of others are removed.
            enrol: whether who has no secret gets one unasked; else only those in C(reset) do.
            check: change nothing.

        Raises:
            SecondFactorError: with all problems; nothing was changed then.
        """
        names = [str(person["name"]) for person in people]
        problems = [
            f"{name}: has no second factor here that could be {verb}; write one of: {', '.join(names) or 'nobody has'}"
            for verb, asked in (("reset", reset), ("revoked", revoke))
            for name in asked
            if name not in names
        ]
        problems += [f"{name}: is to be reset and revoked; write one of them" for name in reset if name in revoke]
        present = self._present()
        to: t.Dict[str, t.List[str]] = {}
        for person in people:
            name = str(person["name"])
            try:
                if name in reset or (enrol and name not in present and name not in revoke):
                    to[name] = recipients(name, person.get("public_keys") or [], person.get("age_recipient") or "")
            except SecondFactorError as error:
                problems.append(str(error))
        if problems:
            raise SecondFactorError("\n".join(problems))
        outcome = Outcome(
            made=[name for name in to if name not in reset],
            reset=[name for name in names if name in reset],
            revoked=[name for name in names if name in revoke and self._read(name) != REVOKED],
            removed=sorted(present - set(names)) if exclusive else [],
            without=[name for name in names if name not in {*present, *to, *revoke}],
            waiting={},
        )
        if check:
            return outcome
        for directory in (self.directory, self.outbox):
            os.makedirs(os.path.dirname(directory), mode=0o755, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            # An earlier mode, or a umask, does not count.
            if os.stat(directory).st_mode & 0o077:
                os.chmod(directory, 0o700)
        for name in outcome.removed:
            os.unlink(os.path.join(self.directory, name))
        for name in outcome.revoked:
            write_private(os.path.join(self.directory, name), REVOKED.encode())
        for name, keys in to.items():
            self._make(name, keys)
        outcome.waiting.update({name: enrolment for name, enrolment in self._waiting().items() if name in names})
        return outcome

    def acknowledge(self, delivered: t.Mapping[str, str]) -> None:
        """Forget the ciphertexts that the controller has: name to the id of the enrolment."""
        for name, identity in delivered.items():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._box(name, identity))

    def _make(self, name: str, keys: t.Sequence[str]) -> None:
        secret, codes = new_secret()
        text = secret_file(secret, codes)
        write_private(self._box(name, secret_id(text)), encrypt(archive(name, self.host, secret, codes), keys))
        write_private(os.path.join(self.directory, name), text.encode())

    def _waiting(self) -> t.Dict[str, Enrolment]:
        """What the controller does not have yet; what belongs to no secret in force is removed."""
        waiting = {}
        for file in sorted(os.listdir(self.outbox)):
            name, _dot, identity = file[: -len(SUFFIX)].rpartition(".") if file.endswith(SUFFIX) else ("", "", "")
            path = os.path.join(self.outbox, file)
            text = self._read(name) if name else ""
            if not text or secret_id(text) != identity:
                os.unlink(path)
                continue
            with open(path, "rb") as stream:
                waiting[name] = Enrolment(identity, base64.b64encode(stream.read()).decode("ascii"))
        return waiting

    def _present(self) -> t.Set[str]:
        """Who has a file. A leftover of a write that was cut off is nobody's: no login has a dot."""
        if not os.path.isdir(self.directory):
            return set()
        return {name for name in os.listdir(self.directory) if not name.endswith(".new")}

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self.directory, name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def _box(self, name: str, identity: str) -> str:
        return os.path.join(self.outbox, f"{name}.{identity}{SUFFIX}")
