# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A set: the state of one host at one moment, as encrypted members and a signed manifest. docs/backup-format.md states the format.

Private to the collection: no promise of stability. Standard library only. Both the host that sends and the store read it.
"""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
import typing as t

FORMAT = 1
# What a signature is for; one made for anything else is worth nothing here.
NAMESPACE = "civitas-backup"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
MANIFEST_BYTES = 32 * 2**20
SIGNATURE_BYTES = 16 * 2**10
CHUNK = 2**20
# How far two clocks may be apart.
TOLERANCE = 300.0

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_SET = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
_MEMBER = re.compile(r"[a-z0-9][A-Za-z0-9._%+-]{0,199}\.age")
_ENVIRONMENT = re.compile(r"[a-z]{1,30}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SOURCES = ("files", "postgres", "command")


class FormatError(Exception):
    """What is there is no set; the text says what is wrong with it."""


class Member(t.NamedTuple):
    """An encrypted file of a set: its size in bytes and SHA-256 in hexadecimal, and the size of what was compressed."""

    name: str
    bytes: int
    sha256: str
    plain_bytes: int


class Manifest(t.NamedTuple):
    """What a set holds, as far as everybody may know it who keeps it.

    Attributes:
        raw: the text that is signed.
        sha256: its digest; the next set names it.
        environment: kind of environment of the host, such as C(production); it decides where the set may be restored.
        begin: the moment of the set, in seconds of Unix.
        complete: all that was declared is in it.
        sources: for each source what is in its members, see docs/backup-format.md.
        failures: why it is not complete.
    """

    raw: bytes
    sha256: str
    host: str
    site: str
    environment: str
    set_id: str
    previous: t.Optional[str]
    previous_sha256: t.Optional[str]
    begin: float
    end: float
    complete: bool
    members: t.Dict[str, Member]
    sources: t.List[t.Dict[str, t.Any]]
    warnings: t.List[str]
    failures: t.List[str]

    @property
    def bytes(self) -> int:
        return sum(member.bytes for member in self.members.values())

    @property
    def recipients(self) -> t.List[str]:
        """Public keys of age; each of their private keys opens it."""
        return [str(one) for one in json.loads(self.raw).get("recipients", [])]


def new_set_id(now: float) -> str:
    """The name of a set that begins now. Two of one second differ."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{os.urandom(6).hex()}"


def is_set_id(name: str) -> bool:
    return bool(_SET.fullmatch(name))


def is_host(name: str) -> bool:
    return bool(_HOST.fullmatch(name)) and ".." not in name


def is_member(name: str) -> bool:
    return bool(_MEMBER.fullmatch(name)) and ".." not in name


def is_digest(text: t.Any) -> bool:
    return isinstance(text, str) and bool(_DIGEST.fullmatch(text))


def file_name(text: str) -> str:
    """A part of a member's name for a name that may hold anything."""
    return "".join(chr(byte) if (chr(byte).isalnum() and byte < 128) or byte in b"_-" else f"%{byte:02x}" for byte in text.encode())


def format_time(moment: float) -> str:
    return time.strftime(_TIME, time.gmtime(moment))


def parse_time(text: str) -> float:
    """Raises ValueError."""
    return float(calendar.timegm(time.strptime(text, _TIME)))


def encode(content: t.Mapping[str, t.Any]) -> bytes:
    """The one way in which a manifest is written."""
    return (json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False) + "\n").encode()


def parse(raw: bytes) -> Manifest:
    """Raises FormatError. The signature is to be verified before."""
    try:
        content = json.loads(raw.decode("ascii"))
        if encode(content) != raw:
            raise FormatError("the manifest is not written in the one way that counts")
        if content["format"] != FORMAT:
            raise FormatError(f"the manifest has format {content['format']}, and this program knows {FORMAT} only")
        members = {one["name"]: Member(*(one[key] for key in Member._fields)) for one in content["members"]}
        manifest = Manifest(
            raw=raw,
            sha256=hashlib.sha256(raw).hexdigest(),
            host=content["host"],
            site=content["site"],
            environment=content["environment"],
            set_id=content["set"],
            previous=content["previous"],
            previous_sha256=content["previous_sha256"],
            begin=parse_time(content["begin"]),
            end=parse_time(content["end"]),
            complete=content["complete"],
            members=members,
            sources=list(content["sources"]),
            warnings=list(content["warnings"]),
            failures=list(content["failures"]),
        )
        fault = _fault(manifest, len(content["members"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"the manifest cannot be read: {type(error).__name__}: {error}") from error
    if fault:
        raise FormatError(f"the manifest is wrong: {fault}")
    return manifest


def _fault(manifest: Manifest, listed: int) -> str:
    if not (is_host(manifest.host) and is_set_id(manifest.set_id) and isinstance(manifest.site, str)):
        return "the name of its host, site or set"
    if not _ENVIRONMENT.fullmatch(manifest.environment):
        return "the kind of its environment"
    if manifest.previous is not None and not (is_set_id(manifest.previous) and is_digest(manifest.previous_sha256)):
        return "the name of the set before"
    if not manifest.set_id.startswith(time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(manifest.begin))) or manifest.end < manifest.begin:
        return "its times"
    if manifest.complete is not (not manifest.failures):
        return "it is complete and has failures, or neither"
    if listed != len(manifest.members):
        return "a member is there twice"
    for one in manifest.members.values():
        sizes = (one.bytes, one.plain_bytes)
        if not (is_member(one.name) and is_digest(one.sha256)):
            return f"the member {one.name!r:.80}"
        if not all(isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in sizes):
            return f"the sizes of {one.name}"
    named: t.List[str] = []
    for source in manifest.sources:
        if source["kind"] not in _SOURCES or not isinstance(source["name"], str):
            return "the kind or name of a source"
        named += source["members"]
    if sorted(named) != sorted(manifest.members):
        return "members and sources do not fit"
    return ""


def read_limited(path: str, limit: int) -> bytes:
    """A small file that somebody else wrote. Raises FormatError, OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FormatError(f"{os.path.basename(path)} is larger than {limit} bytes")
    return data


def digest(path: str) -> t.Tuple[int, str]:
    """Size and SHA-256 of a file. Raises OSError."""
    found, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        for data in iter(lambda: file.read(CHUNK), b""):
            found.update(data)
            size += len(data)
    return size, found.hexdigest()


# --- signatures


def sign(raw: bytes, key_file: str) -> bytes:
    """A signature of ssh-keygen(1). Raises FormatError."""
    # ssh-keygen would ask for a passphrase on a terminal.
    done = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key_file, "-n", NAMESPACE],
        input=raw,
        capture_output=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    if done.returncode != 0 or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        raise FormatError(f"the manifest cannot be signed with {key_file}: {_said(done.stderr)}")
    return done.stdout


def verify(raw: bytes, signature: bytes, host: str, signers: t.Sequence[str]) -> None:
    """Raises FormatError unless one of the public keys in C(signers) has signed for this host."""
    if not signers:
        raise FormatError(f"nobody is known to sign for {host}")
    with tempfile.TemporaryDirectory(prefix="civitas-verify-") as directory:
        allowed, proof = os.path.join(directory, "allowed"), os.path.join(directory, "proof")
        with open(allowed, "w", encoding="utf-8") as file:
            file.writelines(f'{host} namespaces="{NAMESPACE}" {" ".join(key.split()[:2])}\n' for key in signers)
        with open(proof, "wb") as file:
            file.write(signature)
        command = ["ssh-keygen", "-q", "-Y", "verify", "-f", allowed, "-I", host, "-n", NAMESPACE, "-s", proof]
        done = subprocess.run(command, input=raw, capture_output=True, check=False, timeout=60)
    if done.returncode != 0:
        raise FormatError(f"the signature of the manifest is not {host}'s: {_said(done.stderr or done.stdout)}")


def _said(output: bytes) -> str:
    return " ".join(output.decode("utf-8", "replace").split())[:300]
