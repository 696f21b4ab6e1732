# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of a support bundle: where it may lie, the second redaction, by the secrets of the site, and what is told of it.

Private to the collection: no promise of stability. Runs on the controller only. No message of this module holds a secret.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import ipaddress
import json
import os
import re
import secrets
import subprocess
import tarfile
import tempfile
import typing as t
import zipfile

from ansible_collections.civitas.hosting.plugins.module_utils._redaction import LastLook, Redactor, Secret, harmless
from ansible_collections.civitas.hosting.plugins.module_utils._support_bundle import MANIFEST, redacted_texts

# What a host says is not believed: this is the most that is taken of one.
_LARGEST = 2 << 30
_PIECE = 1 << 20
_NAME = re.compile(r"(?:[A-Za-z0-9@_+~,=:{}%-][A-Za-z0-9.@_+~,=:{}% -]{0,200}/){0,12}[A-Za-z0-9.@_+~,=:{}% -]{1,200}\Z")


class BundleError(Exception):
    """A bundle cannot be written; says why and what to do."""


# --- where it may lie -------------------------------------------------------------------------------------------------


def check_directory(directory: str) -> None:
    """Refuse a directory whose files could be committed by accident. One that is made for bundles gets a file that lets git pass over it.

    Raises:
        BundleError: it is in a git work tree that does not ignore it and it has other files, or it is no directory.
    """
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise BundleError(f"{directory} is no directory. Write another support_bundle_directory.")
    if not _work_tree(directory) or _is_ignored(directory) or not _names(directory):
        return
    raise BundleError(
        f"{directory} is in a git work tree that does not ignore it, and a bundle must never be committed. "
        "Write a directory outside of it as support_bundle_directory, one that is not there yet, or add this one to .gitignore."
    )


def make_directory(directory: str, name: str) -> str:
    """Make the directory of one bundle, readable by its owner only; returns its path.

    Raises:
        BundleError: it cannot be made.
    """
    path = os.path.join(directory, name)
    try:
        fresh = not _names(directory)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if fresh:
            with open(os.path.join(directory, ".gitignore"), "w", encoding="utf-8") as stream:
                stream.write("*\n")
        os.mkdir(path, 0o700)
    except OSError as error:
        raise BundleError(f"{path} cannot be made: {error.strerror}. Write another support_bundle_directory.") from None
    return path


def _names(directory: str) -> t.List[str]:
    with contextlib.suppress(OSError):
        return os.listdir(directory)
    return []


def _work_tree(directory: str) -> bool:
    path = os.path.realpath(directory)
    while True:
        if os.path.lexists(os.path.join(path, ".git")):
            return True
        above = os.path.dirname(path)
        if above == path:
            return False
        path = above


def _is_ignored(directory: str) -> bool:
    """Whether git would pass over a bundle in this directory; not, when nobody can tell."""
    above = os.path.realpath(directory)
    while not os.path.isdir(above):
        above = os.path.dirname(above)
    command = ["git", "-C", above, "check-ignore", "-q", os.path.join(os.path.realpath(directory), "site", "host.tar.gz")]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False).returncode == 0
    return False


def shared_key(directory: str) -> bytes:
    """A key of this run, the same for all hosts, kept in a private directory that ends with the run."""
    path = os.path.join(directory, "civitas-support-bundle-key")
    with contextlib.suppress(FileExistsError):
        temporary = f"{path}.{os.getpid()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(32))
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    with open(path, "rb") as stream:
        return stream.read()


# --- the second redaction ---------------------------------------------------------------------------------------------

_V4 = r"(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_V6 = rf"(?:[0-9A-Fa-f]{{1,4}}:|:){{2,8}}(?:{_V4}|[0-9A-Fa-f]{{1,4}}|:)?"
_ADDRESS = re.compile(rf"(client: )?(?:(?<![\w.:-])({_V6})(?![\w:]|\.\d)|(?<![\w.])({_V4})(?![\w]|\.\d))")
_INSIDE = [
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"),
        *("::/127", "fc00::/7", "fe00::/9", "fe80::/10", "ff00::/8"),
    )
]


class Addresses:
    """Gives each public address a name, the same within a bundle. Private ones stay, but for those of the clients of nginx."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.count = 0

    def mask(self, text: str) -> str:
        return _ADDRESS.sub(self._replace, text)

    def _replace(self, match: t.Match[str]) -> str:
        client, found = match.group(1) or "", match.group(2) or match.group(3)
        try:
            address = ipaddress.ip_address(found)
        except ValueError:
            return match.group()
        mapped = getattr(address, "ipv4_mapped", None) or address
        if not client and any(mapped in network for network in _INSIDE if network.version == mapped.version):
            return match.group()
        self.count += 1
        digest = hmac.new(self._key, str(mapped).encode(), hashlib.sha256).hexdigest()
        return f"{client}[address {digest[:8]}]"


class Outcome(t.NamedTuple):
    """What became of one host's part.

    Args:
        files: those in it, {name, bytes, note}.
        missing: what is not in it, {name, reason}.
        redacted: kind to how often, of both redactions.
        too_short: where secrets are that are too short to be looked for.
        size: of the written file, bytes.
    """

    files: t.List[t.Dict[str, t.Any]]
    missing: t.List[t.Dict[str, str]]
    redacted: t.Dict[str, int]
    too_short: t.List[str]
    size: int


def second_pass(source: str, target: str, host: str, known: t.Sequence[Secret], addresses: t.Optional[Addresses], scratch: str) -> Outcome:
    """Write what came from a host, redacted again, as C(target), a compressed tar file that its owner alone may read.

    Args:
        source: the ZIP file of the host.
        known: the secrets of the site.
        addresses: what masks addresses; they stay without it.
        scratch: a private directory.

    Raises:
        BundleError: a secret of the site would be in it, or what came is no such file. Nothing is written then.
    """
    redactor, last = Redactor(known), LastLook(known)
    counts: t.Dict[str, int] = {}
    part = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.part")
    try:
        with zipfile.ZipFile(source) as archive, _private(part) as raw, tarfile.open(fileobj=raw, mode="w:gz") as made:
            if sum(item.file_size for item in archive.infolist()) > _LARGEST:
                raise BundleError(f"{host} sent more than {_LARGEST >> 30} GiB. Write fewer support_bundle_hours.")
            told = _manifest(archive, redactor, last, host)
            for item in archive.infolist():
                if item.filename == MANIFEST:
                    continue
                if not _NAME.match(item.filename) or ".." in item.filename.split("/"):
                    raise BundleError(f"{host} sent a file whose name leads out of the bundle. Nobody can use what it sent.")
                stream = redactor.stream()
                with tempfile.SpooledTemporaryFile(8 << 20, dir=scratch) as spool, archive.open(item) as content:
                    for piece in _pieces(content):
                        text = stream.feed(piece)
                        if addresses and not item.filename.startswith("packages/"):
                            text = addresses.mask(text)
                        _refuse(last.names(text), item.filename, host)
                        spool.write(text.encode("utf-8", "backslashreplace"))
                    name = redactor.redact(item.filename)
                    _refuse(last.names(name), "the name of a file", host)
                    for kind, count in stream.counts.items():
                        counts[kind] = counts.get(kind, 0) + count
                    _add(made, f"{host}/{name}", spool)
            for kind, count in told["redacted"].items():
                counts[str(kind)] = counts.get(str(kind), 0) + int(count)
            if addresses and addresses.count:
                counts["address"] = addresses.count
            outcome = Outcome(told["files"], told["missing"], counts, told["too_short"], 0)
            _add(made, f"{host}/MANIFEST.txt", io.BytesIO(_manifest_text(host, outcome).encode()))
        os.rename(part, target)
        return outcome._replace(size=os.stat(target).st_size)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, EOFError):
        raise BundleError(f"what {host} sent is not whole. Run it again.") from None
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(part)


def _manifest(archive: zipfile.ZipFile, redactor: Redactor, last: LastLook, host: str) -> t.Dict[str, t.Any]:
    told = json.loads(archive.read(MANIFEST).decode("utf-8"))
    redacted: t.Dict[str, t.Any] = {**redacted_texts({**told, "redacted": {}}, redactor.redact), "redacted": told["redacted"]}
    _refuse(last.names(json.dumps(redacted, ensure_ascii=False)), "what is told", host)
    return redacted


def _pieces(content: t.IO[bytes]) -> t.Iterator[str]:
    """Whole lines; the host has made all that is no text harmless, and has shortened long lines."""
    rest = b""
    while True:
        data = content.read(_PIECE)
        whole, newline, after = (rest + data).rpartition(b"\n")
        if not data:
            if rest:
                yield harmless(rest)
            return
        if newline:
            yield harmless(whole + newline)
            rest = after
        else:
            rest += data
            if len(rest) > 64 * _PIECE:
                raise ValueError("a line has no end")


def _refuse(names: t.Sequence[str], where: str, host: str) -> None:
    if names:
        raise BundleError(
            f"{', '.join(names)} would be in {where} of {host}, so nothing of this host was written. "
            "Report this fault without that file; its value must not leave your site."
        )


def _add(made: tarfile.TarFile, name: str, spool: t.IO[bytes]) -> None:
    told = tarfile.TarInfo(name)
    told.size, told.mode = spool.seek(0, os.SEEK_END), 0o600
    spool.seek(0)
    made.addfile(told, spool)


def _private(path: str) -> t.BinaryIO:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


# --- what is told of it -----------------------------------------------------------------------------------------------

_HEAD = """\
Support bundle of {site}, {time} UTC

Logs and state of the hosts, with secrets taken out by the collection civitas.hosting.

  - READ IT BEFORE YOU SEND IT: tar -xzf HOST.tar.gz, then look at the logs. A program does not know what only people know to be secret.
  - Send it to one person who helps you, encrypted (age or gpg). Never attach it to a public issue, a forum or a chat.
  - Have it deleted when the fault is found, and delete it here.

What was taken out stands as [redacted: kind]; a public address as [address ...], the same one for the same address in all files of this
bundle. What a helper may ask for and is not here on purpose: the access log of nginx, values and statements in PostgreSQL's log,
arguments and environments of processes{applications}.
"""


def readme(
    site: str, moment: str, hosts: t.Mapping[str, t.Mapping[str, t.Any]], applications: bool, too_short: t.Sequence[str] = ()
) -> str:
    """What lies beside the bundles: for each host what is inside, what was cut, what was redacted, what is missing and why."""
    said = "" if applications else ", and what applications log"
    lines = [_HEAD.format(site=site, time=moment, applications=said)]
    if too_short:
        lines.append(f"Secrets that are too short to be looked for, so look yourself, and make them longer: {', '.join(too_short)}\n")
    for host, told in sorted(hosts.items()):
        lines.append(f"\n{host}")
        if "reason" in told:
            lines.append(f"  NOT HERE: {told['reason']}")
            continue
        lines.append(f"  {file_name(host)}, {_size(told['size'])}, {len(told['files'])} files, which its MANIFEST.txt names")
        lines += _summary(told)
    return harmless("\n".join(lines).encode()) + "\n"


def _summary(told: t.Mapping[str, t.Any]) -> t.List[str]:
    lines = ["  redacted: " + (", ".join(f"{kind} {count}" for kind, count in sorted(told["redacted"].items())) or "nothing")]
    if told["too_short"]:
        lines.append(f"  too short to be looked for, so look yourself, and make them longer: {', '.join(told['too_short'])}")
    lines.append("  missing:")
    lines += [f"    {item['name']}: {item['reason']}" for item in told["missing"]] or ["    nothing"]
    lines.append("  cut:")
    return lines + ([f"    {item['name']}: {item['note']}" for item in told["files"] if item["note"]] or ["    nothing"])


def _manifest_text(host: str, outcome: Outcome) -> str:
    files = [f"    {item['name']}: {_size(item['bytes'])}" for item in outcome.files]
    return harmless("\n".join([host, *_summary(outcome._asdict()), "  files:", *files]).encode()) + "\n"


def file_name(host: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]', '_', host)}.tar.gz"


def _size(count: t.Any) -> str:
    number = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024 or unit == "MiB":
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return ""


def total(sizes: t.Iterable[int]) -> str:
    """The size of several files in words."""
    return _size(sum(sizes))
