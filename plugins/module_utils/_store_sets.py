# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sets that a store keeps for one host: how they come in, and what is known of them.

Private to the collection: no promise of stability. Standard library only.

A host writes into a directory of its own, and nowhere else. What is good of it is copied to where only root can write, while its digest is
taken, so nothing that the host still has open can change what was judged. Directories::

    incoming/HOST/SET/      of the host's user; what rsync writes
    incoming/HOST/SET.json  what it may write
    hosts/HOST/staging/SET/ of root; members that are proven already
    hosts/HOST/sets/SET/    of root; whole sets, which share members by hard links
    hosts/HOST/removed/     names of sets that were here, so that none comes twice
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import CHUNK, TOLERANCE, FormatError, Manifest, Member
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import sync_directory, write_json

RECORD = "store.json"
# A set that took longer to come than this counts by the day of its arrival.
_LATE = 7 * 86400.0
# A set that is copied sooner than this after it was made follows the one that was copied before it.
_CAUGHT_UP = 86400.0
# Of so many sets a host may have members linked: fewer than retention keeps, and enough for a tree that failed on some nights.
_OFFERED = 5
# A host that comes while a large set of it is read again waits, so that its night is not lost.
_LOCK_WAIT = 3 * 3600.0
_LOCK_PAUSE = 0.2


class StoreError(Exception):
    """A request of a host that is refused; the text is for it.

    Attributes:
        bad: members that are to be sent again.
        final: it is refused for ever.
    """

    def __init__(self, text: str, bad: t.Sequence[str] = (), final: bool = False) -> None:
        super().__init__(text)
        self.bad = list(bad)
        self.final = final


class StoredSet(t.NamedTuple):
    """A set in the store.

    Attributes:
        arrival: when it was whole, by the clock of the store.
        moment: the time by which it is kept or removed.
        verified: when its members were last read and found good.
        bad: members that were not.
        notes: what is strange about it.
    """

    path: str
    manifest: Manifest
    arrival: float
    moment: float
    verified: float
    bad: t.List[str]
    notes: t.List[str]

    @property
    def set_id(self) -> str:
        return self.manifest.set_id

    @property
    def good(self) -> bool:
        return self.manifest.complete and not self.bad

    @property
    def fresh(self) -> float:
        """How new its content is at most, whatever the manifest says."""
        return min(self.manifest.begin, self.arrival)


def describe(one: StoredSet) -> t.Dict[str, t.Any]:
    """What is known of a set, for people and programs."""
    return {
        "set": one.set_id,
        "begin": form.format_time(one.manifest.begin),
        "arrival": form.format_time(one.arrival),
        "verified": form.format_time(one.verified),
        "environment": one.manifest.environment,
        "bytes": one.manifest.bytes,
        "sha256": one.manifest.sha256,
        "good": one.good,
        "bad": one.bad,
        "notes": one.notes,
        "failures": one.manifest.failures,
        "warnings": one.manifest.warnings,
    }


class HostStore:
    """What a store keeps for one host.

    Args:
        directory: of the store.
        host: the name that the store gave to the key which was used.
        signers: public keys that sign for this host; behind the first one those that did so earlier.
        quota: bytes that this host may use.
        minimum_free: bytes that stay free in the file system.
        copied: its sets come from another store, and not from the host.
    """

    def __init__(self, directory: str, host: str, signers: t.Sequence[str], quota: int, minimum_free: int, copied: bool = False) -> None:
        if not form.is_host(host):
            raise StoreError(f"{host!r} is no name of a host")
        self.host = host
        self.signers = list(signers)
        self.quota = quota
        self.minimum_free = minimum_free
        self.copied = copied
        self.incoming = os.path.join(directory, "incoming", host)
        self.base = os.path.join(directory, "hosts", host)
        self.sets_directory = os.path.join(self.base, "sets")
        self.staging = os.path.join(self.base, "staging")
        self.removed = os.path.join(self.base, "removed")

    @contextlib.contextmanager
    def locked(self, wait: float = 0.0) -> t.Iterator[None]:
        """Nobody else changes what this store keeps of the host. Raises StoreError when somebody does for more than C(wait) seconds."""
        for path in (self.sets_directory, self.staging, self.removed):
            os.makedirs(path, mode=0o700, exist_ok=True)
        # The kernel ends the lock with the process, however that ends.
        handle = os.open(os.path.join(self.base, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + wait
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() >= deadline:
                        raise StoreError("the store works on the sets of this host just now; try again") from error
                time.sleep(_LOCK_PAUSE)
            yield
        finally:
            os.close(handle)

    # --- what is there

    def sets(self) -> t.List[StoredSet]:
        """All whole sets in the order of their arrival; one that cannot be read counts as bad, and is no reason to stop. Raises OSError."""
        try:
            names = sorted(name for name in os.listdir(self.sets_directory) if form.is_set_id(name))
        except FileNotFoundError:
            return []
        found = [self._read(name) for name in names]
        return sorted(found, key=lambda one: (one.arrival, one.set_id))

    def _read(self, name: str) -> StoredSet:
        path = os.path.join(self.sets_directory, name)
        try:
            manifest = form.parse(form.read_limited(os.path.join(path, form.MANIFEST), form.MANIFEST_BYTES))
            if (manifest.host, manifest.set_id) != (self.host, name):
                raise FormatError(f"it holds the manifest of the set {manifest.set_id} of {manifest.host}")
            with open(os.path.join(path, RECORD), encoding="utf-8") as file:
                record = json.load(file)
            numbers = [float(record[key]) for key in ("arrival", "moment", "verified")]
            return StoredSet(path, manifest, numbers[0], numbers[1], numbers[2], list(record["bad"]), list(record["notes"]))
        except (FormatError, OSError, ValueError, KeyError, TypeError) as error:
            # It was whole when it came. When that was is not known any more, so it is not among the first to go.
            now = time.time()
            begin = form.parse_time(f"{name[:4]}-{name[4:6]}-{name[6:8]}T{name[9:11]}:{name[11:13]}:{name[13:15]}Z")
            fault = f"{type(error).__name__}: {error}"
            manifest = Manifest(b"", "", self.host, "", "", name, None, None, begin, begin, False, {}, [], [], [fault])
            return StoredSet(path, manifest, now, now, 0.0, [form.MANIFEST], [f"it cannot be read: {fault}"])

    def write_record(self, one: StoredSet, directory: t.Optional[str] = None) -> None:
        record = {"arrival": one.arrival, "moment": one.moment, "verified": one.verified, "bad": one.bad, "notes": one.notes}
        write_json(os.path.join(directory or one.path, RECORD), record, 0o600)

    def used(self) -> int:
        """Bytes on the disk, each shared member once. Raises OSError."""
        return _disk_usage(self.base) + _disk_usage(self.incoming)

    def free(self) -> int:
        found = os.statvfs(self.base)
        return found.f_bavail * found.f_frsize

    # --- what a host asks for

    def have(self, now: float) -> t.Dict[str, t.Any]:
        """What the store has, as far as a host is to know: names and digests, which it knew before."""
        sets = self.sets()
        members = {member.sha256 for one in sets[-_OFFERED:] for member in one.manifest.members.values() if member.name not in one.bad}
        newest = {"set": sets[-1].set_id, "sha256": sets[-1].manifest.sha256} if sets else None
        return {"time": now, "newest": newest, "members": sorted(members), "sets": [one.set_id for one in sets[-14:]]}

    def known(self, now: float) -> t.Dict[str, t.Any]:
        """As C(have), and which sets are here and were here, for who copies them from another store. Raises StoreError, OSError."""
        if not self.copied:
            raise StoreError("the sets of this host come from the host itself", final=True)
        here = [{"set": one.set_id, "sha256": one.manifest.sha256, "begin": one.manifest.begin, "good": one.good} for one in self.sets()]
        removed = sorted(os.listdir(self.removed)) if os.path.isdir(self.removed) else []
        return {**self.have(now), "here": here, "removed": removed}

    def begin(self, set_id: str, size: int, owner: int) -> t.Dict[str, t.Any]:
        """Make room for a set; members that were proven in an earlier try are taken already. Raises StoreError, OSError."""
        self._check_new(set_id)
        with self.locked(_LOCK_WAIT):
            self._clean(set_id)
            taken = self._staged(set_id)
            path = os.path.join(self.incoming, set_id)
            there = _disk_usage(path)
            more = max(0, size - there - _disk_usage(os.path.join(self.staging, set_id)))
            # A member lies in both places while it is copied; the largest may be all.
            if self.free() - 2 * more < self.minimum_free:
                raise StoreError(f"the store is full: {more} bytes are to come twice, {self.free()} are free, {self.minimum_free} stay so")
            if self.used() + more > self.quota:
                raise StoreError(f"the share of this host is full: {self.used()} of {self.quota} bytes are used, {more} are to come")
            for directory in (os.path.dirname(self.incoming), self.incoming):
                # The users of hosts pass through, and see nothing.
                os.makedirs(directory, exist_ok=True)
                os.chmod(directory, 0o711)
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chown(path, owner, -1)
            write_json(os.path.join(self.incoming, f"{set_id}.json"), {"bytes": size + form.MANIFEST_BYTES}, 0o644)
            return {"taken": taken}

    def commit(self, set_id: str, owner: int, now: float) -> t.Dict[str, t.Any]:
        """Prove what came, and keep it.

        Args:
            owner: number of the user whose files are taken.

        Raises:
            StoreError: it is not good.
            OSError: it cannot be kept.
        """
        with self.locked(_LOCK_WAIT):
            there = os.path.join(self.sets_directory, set_id)
            if form.is_set_id(set_id) and os.path.isdir(there):
                # The answer to an earlier request was lost.
                known = self._read(set_id)
                return self._kept(known)
            self._check_new(set_id)
            manifest, signature = self._incoming_manifest(set_id)
            sets = self.sets()
            staging = os.path.join(self.staging, set_id)
            os.makedirs(staging, mode=0o700, exist_ok=True)
            self._take_all(set_id, manifest, sets, owner)
            for name, data in ((form.MANIFEST, manifest.raw), (form.SIGNATURE, signature)):
                _write_new(os.path.join(staging, name), data)
            notes, moment = _judge(manifest, sets, now, self.copied)
            one = StoredSet(there, manifest, now, moment, now, [], notes)
            self.write_record(one, staging)
            for name in os.listdir(staging):
                os.chmod(os.path.join(staging, name), 0o600 if name == RECORD else 0o400)
            sync_directory(staging)
            os.rename(staging, there)
            sync_directory(self.sets_directory)
            self._clean("")
            return self._kept(self._read(set_id))

    def _kept(self, one: StoredSet) -> t.Dict[str, t.Any]:
        """What is said of a set that is kept, as it is found on the disk."""
        return {"set": one.set_id, "sha256": one.manifest.sha256, "arrival": one.arrival, "sets": [other.set_id for other in self.sets()]}

    def _check_new(self, set_id: str) -> None:
        if not form.is_set_id(set_id):
            raise StoreError("this is no name of a set", final=True)
        if any(os.path.lexists(path) for path in (os.path.join(self.sets_directory, set_id), os.path.join(self.removed, set_id))):
            raise StoreError(f"{set_id} was here already; a set does not come twice", final=True)

    def _clean(self, keep: str) -> None:
        """Remove what an earlier set has left half done."""
        for directory in (self.incoming, self.staging):
            for name in os.listdir(directory) if os.path.isdir(directory) else []:
                if keep and name in (keep, f"{keep}.json"):
                    continue
                path = os.path.join(directory, name)
                if os.path.isdir(path) and not os.path.islink(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)

    def _staged(self, set_id: str) -> t.List[str]:
        directory = os.path.join(self.staging, set_id)
        return sorted(name for name in os.listdir(directory) if form.is_member(name)) if os.path.isdir(directory) else []

    def _incoming_manifest(self, set_id: str) -> t.Tuple[Manifest, bytes]:
        directory = os.path.join(self.incoming, set_id)
        try:
            raw = form.read_limited(os.path.join(directory, form.MANIFEST), form.MANIFEST_BYTES)
            signature = form.read_limited(os.path.join(directory, form.SIGNATURE), form.SIGNATURE_BYTES)
        except OSError as error:
            names = [form.MANIFEST, form.SIGNATURE]
            raise StoreError(f"the manifest of {set_id} has not come: {error.strerror}", bad=names) from error
        try:
            # With an earlier key nothing new is signed.
            form.verify(raw, signature, self.host, self.signers[:1])
            manifest = form.parse(raw)
        except FormatError as error:
            raise StoreError(f"{set_id} is not kept: {error}", bad=[form.MANIFEST, form.SIGNATURE]) from error
        if (manifest.host, manifest.set_id) != (self.host, set_id):
            raise StoreError(f"the manifest is of the set {manifest.set_id} of {manifest.host}", final=True)
        return manifest, signature

    def _take_all(self, set_id: str, manifest: Manifest, sets: t.Sequence[StoredSet], owner: int) -> None:
        """Raises StoreError when members are not good, with all that are not."""
        incoming, staging = os.path.join(self.incoming, set_id), os.path.join(self.staging, set_id)
        unknown = set(os.listdir(incoming)) - set(manifest.members) - {form.MANIFEST, form.SIGNATURE}
        for name in unknown:
            path = os.path.join(incoming, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        for name in set(self._staged(set_id)) - set(manifest.members):
            os.unlink(os.path.join(staging, name))
        places: t.Dict[t.Tuple[str, int], str] = {}
        for one in sets:
            for member in one.manifest.members.values():
                if member.name not in one.bad:
                    places[(member.sha256, member.bytes)] = os.path.join(one.path, member.name)
        bad = []
        handle = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for member in manifest.members.values():
                target = os.path.join(staging, member.name)
                if os.path.exists(target):
                    continue
                place = places.get((member.sha256, member.bytes))
                if not (_link(place, target, member) if place else _take(handle, target, member, owner)):
                    bad.append(member.name)
                with contextlib.suppress(OSError):
                    os.unlink(member.name, dir_fd=handle)
                with contextlib.suppress(OSError):
                    os.rmdir(member.name, dir_fd=handle)
        finally:
            os.close(handle)
        if bad:
            shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
            raise StoreError(f"{set_id} is not whole; missing, cut off or altered: {shown}", bad=bad)


def _judge(manifest: Manifest, sets: t.Sequence[StoredSet], now: float, copied: bool) -> t.Tuple[t.List[str], float]:
    """What is strange about the times and the place of a set, and the time by which it counts.

    A copy may come long after it was made: the first copies are of a whole history, and some of that is gone already. Nobody gains by it:
    a set that is dated before the newest one here still counts by its arrival.
    """
    notes, moment = [], manifest.begin
    catching_up = copied and now - manifest.begin > _CAUGHT_UP
    if manifest.begin > now + TOLERANCE:
        notes.append(f"it is dated {form.format_time(manifest.begin)}, which is to come")
        moment = now
    if now - manifest.begin > _LATE and not copied:
        notes.append(f"it is dated {form.format_time(manifest.begin)}, long before it came")
        moment = now
    if sets:
        before = sets[-1]
        if manifest.begin < before.manifest.begin:
            notes.append(f"it is older than {before.set_id}, which came before it")
            moment = now
        if not catching_up and (manifest.previous, manifest.previous_sha256) != (before.set_id, before.manifest.sha256):
            notes.append(f"it follows {manifest.previous or 'none'}, and not {before.set_id}")
    return notes, moment


def _take(directory: int, target: str, member: Member, owner: int) -> bool:
    """Copy a file that somebody else may still change; whether what was copied is the member."""
    try:
        source = os.open(member.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return False
    found = os.fstat(source)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_size != member.bytes:
        os.close(source)
        return False
    with open(source, "rb", buffering=0) as file:
        return _copy(file, target, member)


def _copy(file: t.IO[bytes], target: str, member: Member) -> bool:
    digest, part = hashlib.sha256(), f"{target}.part"
    with open(part, "wb") as out:
        left = member.bytes
        while left:
            data = file.read(min(left, CHUNK))
            if not data:
                break
            digest.update(data)
            out.write(data)
            left -= len(data)
        out.flush()
        os.fsync(out.fileno())
    if left or digest.hexdigest() != member.sha256:
        os.unlink(part)
        return False
    os.rename(part, target)
    return True


def _link(place: str, target: str, member: Member) -> bool:
    try:
        if os.lstat(place).st_size != member.bytes:
            return False
        os.link(place, target, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EMLINK:
            return False
        with open(place, "rb", buffering=0) as file:
            return _copy(file, target, member)
    return True


def _write_new(path: str, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _disk_usage(directory: str) -> int:
    seen: t.Dict[t.Tuple[int, int], int] = {}
    for path, _directories, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(os.path.join(path, name))
                seen[(found.st_dev, found.st_ino)] = found.st_blocks * 512
    return sum(seen.values())


# --- later


def verify_set(store: HostStore, one: StoredSet, now: float, seen: t.Dict[t.Tuple[int, int], bool]) -> StoredSet:
    """Read all members of a set, and remember what is not good.

    Args:
        seen: members that several sets share are read once; inode and device of those that were read.

    Raises:
        OSError: what was found cannot be remembered.
    """
    bad = []
    try:
        raw = form.read_limited(os.path.join(one.path, form.MANIFEST), form.MANIFEST_BYTES)
        signature = form.read_limited(os.path.join(one.path, form.SIGNATURE), form.SIGNATURE_BYTES)
        form.verify(raw, signature, store.host, store.signers)
    except (FormatError, OSError):
        bad.append(form.MANIFEST)
    for member in one.manifest.members.values():
        path = os.path.join(one.path, member.name)
        try:
            found = os.lstat(path)
            key = (found.st_dev, found.st_ino)
            if key not in seen:
                seen[key] = form.digest(path) == (member.bytes, member.sha256)
            good = seen[key]
        except OSError:
            good = False
        if not good:
            bad.append(member.name)
    after = one._replace(verified=now, bad=bad)
    store.write_record(after)
    return after
