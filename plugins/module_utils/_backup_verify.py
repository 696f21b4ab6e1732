# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a set is what its host has made, whole and readable; and a tree out of it, to the side of what is there.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tar as tar
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK, FormatError, Manifest, Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, WrongKeyError, reader

Source = t.Dict[str, t.Any]
Line = t.Dict[str, t.Any]
_KINDS = {
    "f": tar.FILE,
    "h": tar.HARD_LINK,
    "l": tar.SYMBOLIC_LINK,
    "c": tar.CHARACTER,
    "b": tar.BLOCK_DEVICE,
    "d": tar.DIRECTORY,
    "p": tar.FIFO,
}


class VerifyError(Exception):
    """A set is not to be used; the text says why."""


class Index(t.NamedTuple):
    """What a tree holds: its entries in order, and for each pack its live files by their place in it."""

    entries: t.List[Line]
    packs: t.Dict[str, t.Dict[int, Line]]


# --- without a key


def read_set(directory: str, host: str, signers: t.Sequence[str]) -> Manifest:
    """The manifest of a set that C(host) has signed with one of C(signers), public keys of SSH. Raises VerifyError, OSError."""
    name = os.path.basename(os.path.abspath(directory))
    try:
        raw = form.read_limited(os.path.join(directory, form.MANIFEST), form.MANIFEST_BYTES)
        signature = form.read_limited(os.path.join(directory, form.SIGNATURE), form.SIGNATURE_BYTES)
        form.verify(raw, signature, host, signers)
        manifest = form.parse(raw)
    except FileNotFoundError as error:
        raise VerifyError(f"{name}: {os.path.basename(error.filename)} is missing") from error
    except FormatError as error:
        raise VerifyError(f"{name}: {error}") from error
    if manifest.host != host:
        raise VerifyError(f"{name} is a set of {manifest.host} and not of {host}")
    if manifest.set_id != name:
        raise VerifyError(f"{name} holds the manifest of the set {manifest.set_id}; somebody has put it there")
    return manifest


def check_ciphers(directory: str, manifest: Manifest) -> t.List[str]:
    """What is wrong with the encrypted members. Nothing, when the store still has what the host has sent. Raises OSError."""
    problems = []
    known = {member.sha256: member.name for member in manifest.members.values()}
    for member in manifest.members.values():
        path = os.path.join(directory, member.name)
        try:
            size, sha256 = form.digest(path)
        except FileNotFoundError:
            problems.append(f"{member.name} is missing")
            continue
        if sha256 == member.sha256:
            continue
        if sha256 in known:
            problems.append(f"{member.name} holds what {known[sha256]} should hold")
        elif size < member.bytes:
            problems.append(f"{member.name} is truncated: {size} of {member.bytes} bytes are there")
        elif size > member.bytes:
            problems.append(f"{member.name} is {size - member.bytes} bytes too long")
        else:
            problems.append(f"{member.name} was altered: its size is right, its SHA-256 is not")
    return problems


def check_chain(manifests: t.Sequence[Manifest]) -> t.List[str]:
    """Where a set that one names as the one before it is not there, or is not the one that it names; the first may name any."""
    problems = []
    known = {manifest.set_id: manifest for manifest in manifests}
    for number, manifest in enumerate(sorted(manifests, key=lambda one: (one.begin, one.set_id))):
        before = known.get(manifest.previous or "")
        if before is not None and before.sha256 != manifest.previous_sha256:
            problems.append(f"{manifest.set_id} follows another {before.set_id} than the one that is here")
        elif number and manifest.previous is None:
            problems.append(f"{manifest.set_id} follows none, and is not the first")
        elif number and before is None:
            problems.append(f"{manifest.previous} is missing, which {manifest.set_id} follows")
    return problems


# --- with the key


def check_contents(directory: str, manifest: Manifest, identity: str) -> None:
    """Decrypt all members, and compare them with the manifest, and trees with their index. Writes nothing.

    Raises:
        VerifyError: it cannot be restored from; the text names the member.
        OSError: it cannot be read.
    """
    for source in manifest.sources:
        with _named(manifest):
            if source["kind"] == "files":
                _check_tree(directory, manifest, source, identity)
            else:
                for name in source["members"]:
                    with reader(os.path.join(directory, name), manifest.members[name], identity):
                        pass


@contextlib.contextmanager
def _named(manifest: Manifest) -> t.Iterator[None]:
    try:
        yield
    except (PipeError, tar.TarError) as error:
        hint = ""
        if isinstance(error, WrongKeyError):
            # People have several files, and none of them says which sets it opens.
            keys = " or ".join(manifest.recipients)
            hint = f"; take the private key of one of its recipients, {keys}; age-keygen -y FILE prints whose a file is"
        raise VerifyError(f"{manifest.set_id}: {error}{hint}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise VerifyError(f"{manifest.set_id}: an index cannot be read: {type(error).__name__}: {error}") from error


def source_of(manifest: Manifest, kind: str, name: str) -> Source:
    """Raises VerifyError."""
    for source in manifest.sources:
        if (source["kind"], source["name"]) == (kind, name):
            return source
    there = ", ".join(f"{source['name']} ({source['kind']})" for source in manifest.sources)
    raise VerifyError(f"{manifest.set_id} has no {kind} called {name!r}; it has {there or 'nothing'}")


def _check_tree(directory: str, manifest: Manifest, source: Source, identity: str) -> None:
    index = read_index(directory, manifest, source, identity)
    for _line, content in _live(directory, manifest, source, index, identity):
        for _data in content:
            pass
    _check_rest(directory, manifest, source, index, identity)
    canary = source["canary"]
    if canary is not None:
        wanted = hashlib.sha256(f"{canary['nonce']}\n".encode()).hexdigest()
        found = [line for line in index.entries if line["path"] == canary["path"]]
        if [line.get("sha256") for line in found] != [wanted]:
            raise VerifyError(f"{manifest.set_id}: the canary of {source['name']} is not the one that was written before")


def read_index(directory: str, manifest: Manifest, source: Source, identity: str) -> Index:
    """Raises VerifyError, PipeError, TarError, OSError."""
    name, prefix = source["name"], manifest.set_id
    packs: t.Dict[str, t.Dict[int, Line]] = {pack["id"]: {} for pack in source["packs"]}
    entries: t.List[Line] = []
    directories = set()
    with reader(os.path.join(directory, source["index"]), manifest.members[source["index"]], identity) as stream:
        archive = tar.TarReader(stream)
        for entry in archive:
            if not entry.path.startswith(b"index/"):
                continue
            for text in b"".join(archive.content()).splitlines():
                line = json.loads(text)
                path, kind = line["path"], line["kind"]
                parent = path.rpartition("/")[0] or "."
                if kind not in _KINDS or not _is_inside(path) or (path != "." and parent not in directories):
                    raise VerifyError(f"{prefix}: the index of {name} is wrong")
                if kind == "d":
                    directories.add(path)
                if kind == "f":
                    packs[line["pack"]][line["at"]] = line
                entries.append(line)
    files = sum(line["kind"] in "fh" for line in entries)
    links = {line["link"] for line in entries if line["kind"] == "h"}
    if links - {line["path"] for line in entries if line["kind"] == "f" and line["path"] in links}:
        raise VerifyError(f"{prefix}: the index of {name} has a hard link to what is not in it")
    if files != source["files"]:
        raise VerifyError(f"{prefix}: the index of {name} has {files} files, and the manifest {source['files']}")
    return Index(entries, packs)


def _is_inside(path: str) -> bool:
    return path == "." or ("\0" not in path and all(part not in ("", ".", "..") for part in path.split("/")))


def _live(directory: str, manifest: Manifest, source: Source, index: Index, identity: str) -> t.Iterator[t.Tuple[Line, t.Iterator[bytes]]]:
    """Each live file with its content, which is to be read to its end. Raises as C(read_index)."""
    for pack in source["packs"]:
        live, seen = index.packs[pack["id"]], 0
        member = manifest.members[pack["member"]]
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(reader(os.path.join(directory, member.name), member, identity))
            archive = tar.TarReader(stream)
            for number, entry in enumerate(archive):
                line = live.get(number)
                if line is None:
                    continue
                seen += 1
                if (entry.kind, entry.path, entry.size) != (tar.FILE, _bytes(line["path"]), line["size"]):
                    raise VerifyError(f"{member.name}: its entry {number} is not what the index says")
                yield line, _digested(archive.content(), line["sha256"], f"{member.name}: the content of its entry {number}")
        if seen != len(live):
            raise VerifyError(f"{member.name} lacks {len(live) - seen} files that the index says are in it")


def _digested(content: t.Iterator[bytes], sha256: str, what: str) -> t.Iterator[bytes]:
    found = hashlib.sha256()
    for data in content:
        found.update(data)
        yield data
    if found.hexdigest() != sha256:
        raise VerifyError(f"{what} is not what the index says")


def _check_rest(directory: str, manifest: Manifest, source: Source, index: Index, identity: str) -> None:
    """What is no file is there twice: in the index, and in the form that tar reads."""
    member = manifest.members[source["rest"]]
    ordered = [line for line in index.entries if line["kind"] not in "fd"]
    ordered += [line for line in reversed(index.entries) if line["kind"] == "d"]
    wanted = [(_bytes(line["path"]), _KINDS[line["kind"]]) for line in ordered]
    with reader(os.path.join(directory, member.name), member, identity) as stream:
        found = [(entry.path, entry.kind) for entry in tar.TarReader(stream)]
    if found != wanted:
        raise VerifyError(f"{member.name} is not what the index says")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# --- out of it


def extract_member(directory: str, manifest: Manifest, member: Member, identity: str, target: str) -> None:
    """The plain text of a member as a new file of mode 0600; none is left when it is not whole. Raises VerifyError, OSError."""
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        try:
            with _named(manifest), reader(os.path.join(directory, member.name), member, identity) as stream:
                for data in iter(lambda: stream.read(CHUNK), b""):
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(target)
            raise


def extract_tree(directory: str, manifest: Manifest, source: Source, identity: str, target: str) -> t.Dict[str, int]:
    """Restore a tree into the new directory C(target), and return how many entries of each kind it holds.

    It has the owners, modes, times and attributes of the source; owners only when root runs it. What cannot be had whole leaves nothing.

    Raises:
        VerifyError: the set is not good, or C(target) exists.
        OSError: it cannot be written.
    """
    try:
        os.mkdir(target, 0o700)
    except FileExistsError as error:
        raise VerifyError(f"{target} is there already; a tree is restored to the side of what there is") from error
    try:
        with _named(manifest):
            index = read_index(directory, manifest, source, identity)
            _fill(os.fsencode(target), index, _live(directory, manifest, source, index, identity))
    except BaseException:
        shutil.rmtree(target)
        raise
    os.sync()
    count: t.Dict[str, int] = {}
    for line in index.entries:
        count[line["kind"]] = count.get(line["kind"], 0) + 1
    return count


def _fill(target: bytes, index: Index, live: t.Iterator[t.Tuple[Line, t.Iterator[bytes]]]) -> None:
    for line in index.entries:
        if line["kind"] == "d" and line["path"] != ".":
            os.mkdir(os.path.join(target, _bytes(line["path"])), 0o700)
    for line, content in live:
        path = os.path.join(target, _bytes(line["path"]))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            for data in content:
                file.write(data)
        _dress(path, line)
    # Links come after all files, so nothing is written through one of them.
    for line in index.entries:
        path, kind = os.path.join(target, _bytes(line["path"])), line["kind"]
        if kind == "h":
            os.link(os.path.join(target, _bytes(line["link"])), path, follow_symlinks=False)
        elif kind == "l":
            os.symlink(_bytes(line["link"]), path)
            _dress(path, line)
        elif kind == "p":
            os.mkfifo(path, 0o600)
            _dress(path, line)
        elif kind in "cb":
            os.mknod(path, 0o600 | (0o020000 if kind == "c" else 0o060000), os.makedev(*line["device"]))
            _dress(path, line)
    for line in reversed(index.entries):
        if line["kind"] == "d":
            _dress(os.path.join(target, _bytes(line["path"])), line)


def _dress(path: bytes, line: Line) -> None:
    if os.geteuid() == 0:
        os.chown(path, line["uid"], line["gid"], follow_symlinks=False)
    if line["kind"] != "l":
        os.chmod(path, line["mode"])
    for name, value in line.get("xattrs", []):
        os.setxattr(path, name, bytes.fromhex(value), follow_symlinks=False)
    os.utime(path, ns=(line["mtime"], line["mtime"]), follow_symlinks=False)
