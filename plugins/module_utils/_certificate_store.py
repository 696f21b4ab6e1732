# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates on a host: keys made there or brought, pairs swapped in one step, and a way back that needs no space on the disk.

Private to the collection: no promise of stability.

Everything of a certificate lies below C(<store>/<name>)::

    fullchain.pem -> current/fullchain.pem      what its users name
    key.pem       -> current/key.pem
    current       -> .generations/7             renaming a new link over it replaces both files in one step
    .generations/7/{fullchain,key}.pem          a pair; the higher number is the newer one
    .generations/pending                        while a pair is not proven: its number and that of the one before it
    .generations/back -> .generations/6         renamed over C(current) it brings that one back
    .generations/history                        which pairs were in use one after the other, without those that were rolled away from;
                                                missing while it is what the numbers tell

The directory itself changes with a swap only, so it is newer than a service that has not loaded the pair. It can be mounted into a
container, where it shows later swaps, too, and no other certificate.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import ipaddress
import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import typing as t

GENERATIONS = ".generations"
CHAIN = "fullchain.pem"
KEY = "key.pem"


class StoreError(Exception):
    """A pair that cannot be read or installed; nothing that is served was changed."""


class Owner(t.NamedTuple):
    """Who may read a key: names of a user and a group. The mode is 0640 for a key of root that a group may read, else 0600."""

    user: str
    group: str

    @property
    def mode(self) -> int:
        # PostgreSQL for one refuses a key of its own user that its group may read.
        return 0o640 if self.user == "root" != self.group else 0o600

    def ids(self) -> t.Tuple[int, int]:
        try:
            return pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid
        except KeyError as error:
            raise StoreError(
                f"the host knows no user {self.user} or no group {self.group}: install the package that makes it first, or name another"
            ) from error


class Pending(t.NamedTuple):
    """A change that is not proven yet: from which generation to which; a V(fresh) one exists for this change only."""

    previous: str
    new: str
    fresh: bool


class History(t.NamedTuple):
    """How the pair in use came to be that: the generations before it that were not rolled away from, and itself as the last one."""

    lineage: t.List[str]
    rolled_back: bool

    @property
    def before(self) -> str:
        """The generation in use before the current one; empty when there is none."""
        return self.lineage[-2] if len(self.lineage) > 1 else ""


class Store:
    """The certificates below one directory, for example C(/etc/civitas/certificates)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._locked = False

    # What is there

    def inspect(self, name: str, owner: Owner) -> t.Dict[str, t.Any]:
        """What is installed as C(name).

        Returns:
            V(certificate) (PEM, or empty), V(public_key) (PEM of the key's public half, or empty) and V(permissions_ok).
        """
        directory = os.path.join(self.path, name)
        key = os.path.join(directory, KEY)
        found = {"certificate": _read(os.path.join(directory, CHAIN)), "public_key": "", "permissions_ok": True}
        if os.path.exists(key):
            found["public_key"] = _openssl(["pkey", "-in", key, "-pubout"], fail=False)
            found["permissions_ok"] = self._permissions_ok(directory, owner)
        return found

    def _permissions_ok(self, directory: str, owner: Owner) -> bool:
        state = os.stat(os.path.join(directory, KEY))
        try:
            return (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (*owner.ids(), owner.mode)
        except StoreError:
            return False

    def repair_permissions(self, name: str, owner: Owner) -> None:
        """Give the key of C(name) back to its owner alone."""
        _give(os.path.join(self.path, name, KEY), owner)

    def current(self, name: str) -> str:
        """The generation in use; empty when there is none."""
        link = os.path.join(self.path, name, "current")
        if not os.path.islink(link) or not os.path.isdir(link):
            return ""
        return os.path.basename(os.readlink(link))

    def generations(self, name: str) -> t.List[str]:
        """All generations on disk, the oldest first."""
        directory = os.path.join(self.path, name, GENERATIONS)
        return sorted((entry for entry in os.listdir(directory) if entry.isdigit()), key=int) if os.path.isdir(directory) else []

    def chain(self, name: str, generation: str) -> str:
        """The certificates of a generation in PEM; empty when there are none."""
        return _read(os.path.join(self._generation(name, generation), CHAIN))

    def key_is(self, name: str, key: str) -> bool:
        """Whether the key in use is C(key) (PEM)."""
        return bool(key) and _read(os.path.join(self.path, name, KEY)) == key

    # New pairs

    def request(self, name: str, owner: Owner) -> t.Tuple[str, str]:
        """Make a new key for C(name) in a new generation that nothing points to yet.

        Returns:
            The generation and a certificate request in PEM, self-signed by the key. The key never leaves the host.
        """
        owner.ids()
        self.settle(name, 1)
        generation = self._next(name)
        key = os.path.join(self._make(name, generation), KEY)
        old_mask = os.umask(0o077)
        try:
            _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key])
        finally:
            os.umask(old_mask)
        _give(key, owner)
        return generation, _openssl(["req", "-new", "-key", key, "-subj", "/CN=request"])

    def install(self, name: str, generation: str, certificate: str, ca_file: str) -> None:
        """Put C(certificate) beside the key of C(generation), verify the pair against C(ca_file), and make it the one that is used.

        Raises:
            StoreError: the pair does not verify; the pair in use stays.
        """
        directory = self._generation(name, generation)
        if not os.path.isdir(directory):
            raise StoreError(f"{name}: the key made for this certificate is gone; run again")
        _write(os.path.join(directory, CHAIN), certificate, 0o644)
        try:
            self.judge(name, generation, [], ca_file)
        except StoreError:
            shutil.rmtree(directory)
            raise
        self.swap(name, generation)
        self.settle(name, 1)

    def stage(self, name: str, generation: str, owner: Owner, chain: str, key: str) -> None:
        """Write a pair that was brought into a new generation that nothing points to yet."""
        directory = self._make(name, generation)
        _write(os.path.join(directory, KEY), key, 0o600)
        _give(os.path.join(directory, KEY), owner)
        _write(os.path.join(directory, CHAIN), chain, 0o644)

    def judge(self, name: str, generation: str, hosts: t.Sequence[str], ca_file: str = "") -> None:
        """Let openssl judge the pair of a generation.

        Args:
            hosts: the names and addresses it must be valid for.
            ca_file: the roots to trust; the host's own when empty.

        Raises:
            StoreError: in the words of openssl.
        """
        directory = self._generation(name, generation)
        chain = os.path.join(directory, CHAIN)
        trust = ["-no-CApath", "-no-CAstore", "-CAfile", ca_file] if ca_file else []
        for option in [_host_option(host) for host in hosts] or [[]]:
            _openssl(["verify", "-x509_strict", "-auth_level", "2", "-purpose", "sslserver", *option, *trust, "-untrusted", chain, chain])
        self.judge_alone(name, generation)

    def judge_alone(self, name: str, generation: str) -> None:
        """Judge what can be judged without roots: that certificate and key can be read and belong together, and that it has not expired.

        Raises:
            StoreError: in the words of openssl, or of this collection.
        """
        directory = self._generation(name, generation)
        chain = os.path.join(directory, CHAIN)
        if _openssl(["x509", "-in", chain, "-noout", "-pubkey"]) != _openssl(["pkey", "-in", os.path.join(directory, KEY), "-pubout"]):
            raise StoreError(f"{name}: the certificate does not belong to the key")
        if not _openssl(["x509", "-in", chain, "-noout", "-checkend", "0"], fail=False):
            raise StoreError(f"{name}: the certificate of generation {generation} has expired")

    def covers(self, name: str, generation: str, host: str) -> bool:
        """Whether the certificate of a generation is for a name or an address."""
        option = "-checkip" if _host_option(host)[0] == "-verify_ip" else "-checkhost"
        chain = os.path.join(self._generation(name, generation), CHAIN)
        # The exit status is 0 either way.
        return "does match" in _openssl(["x509", "-in", chain, "-noout", option, host], fail=False)

    # Swapping

    def arm(self, name: str, generation: str = "") -> Pending:
        """Begin a change to a generation that there is, or else to a new one. Everything that the way back needs is written here."""
        change = Pending(self.current(name), generation or self._next(name), not generation)
        self._make(name)
        if change.previous:
            self._link(name, change.previous, "back")
        _write(self._state(name, "pending"), json.dumps(change), 0o644)
        return change

    def swap(self, name: str, generation: str) -> None:
        """Make C(generation) the pair that is used, in one step."""
        directory = os.path.join(self.path, name)
        for file in (CHAIN, KEY):
            path = os.path.join(directory, file)
            if not os.path.islink(path) or os.readlink(path) != f"current/{file}":
                _unlink(path)
                os.symlink(f"current/{file}", path)
        self._link(name, generation, "next")
        os.replace(self._state(name, "next"), os.path.join(directory, "current"))
        _sync(directory)

    def go_back(self, name: str) -> None:
        """Undo the swap: a rename only. The certificate stays pending until its users have been told."""
        os.replace(self._state(name, "back"), os.path.join(self.path, name, "current"))
        _sync(os.path.join(self.path, name))

    def pending(self, name: str) -> t.Optional[Pending]:
        """The change that was begun and not ended; V(None) when there is none."""
        try:
            return Pending(*json.loads(_read(self._state(name, "pending"))))
        except (ValueError, TypeError):
            return None

    def has_way_back(self, name: str) -> bool:
        """Whether the way back was prepared and not taken."""
        return os.path.lexists(self._state(name, "back"))

    def history(self, name: str) -> History:
        """How the pair in use came to be that."""
        current, kept, change = self.current(name), self.generations(name), self.pending(name)
        try:
            noted = json.loads(_read(self._state(name, "history")))
            lineage, rolled_back = [str(generation) for generation in noted["lineage"]], bool(noted["rolled_back"])
        except (ValueError, TypeError, KeyError):
            # Nothing is noted while what is older than the pair in use was in use before it.
            lineage, rolled_back = _up_to(kept, change.previous if change else current), False
        lineage = [generation for generation in lineage if generation in kept]
        if not current or lineage[-1:] == [current]:
            return History(lineage, rolled_back)
        if current in lineage:
            return History(lineage[: lineage.index(current) + 1], True)
        return History([*lineage, current], False)

    def settle(self, name: str, keep: int) -> None:
        """The pair in use is the right one: end the change, and remove all generations but C(keep).

        Those that were rolled away from are removed first, then those that were in use longest ago.
        """
        change = self.pending(name)
        current = self.current(name)
        history = self.history(name)
        if change and change.fresh and change.new != current:
            shutil.rmtree(self._generation(name, change.new), ignore_errors=True)
        for state in ("pending", "back", "next"):
            _unlink(self._state(name, state))
        others = [generation for generation in self.generations(name) if generation != current]
        others.sort(key=lambda generation: history.lineage.index(generation) if generation in history.lineage else -1)
        for generation in others[: max(0, len(others) + 1 - keep)]:
            shutil.rmtree(self._generation(name, generation))
        self._note(name, history)

    def _note(self, name: str, history: History) -> None:
        kept = self.generations(name)
        lineage = [generation for generation in history.lineage if generation in kept]
        text = json.dumps({"lineage": lineage, "rolled_back": history.rolled_back})
        if lineage == _up_to(kept, self.current(name)) and not history.rolled_back:
            _unlink(self._state(name, "history"))
        elif text != _read(self._state(name, "history")):
            # With a full disk it is found again from what was noted before and what is in use.
            with contextlib.suppress(OSError):
                _write(self._state(name, "history"), text, 0o644)

    @contextlib.contextmanager
    def lock(self, patience: float) -> t.Iterator[None]:
        """Only one installer at a time; within it, it may be taken again. It ends with its process, however that ends.

        Raises:
            StoreError: another one still had it after C(patience) seconds.
        """
        if self._locked:
            yield
            return
        _directory(self.path)
        descriptor = os.open(os.path.join(self.path, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise StoreError(f"another installation is at work in {self.path}; wait for its end and run again") from None
                    time.sleep(0.1)
            self._locked = True
            yield
        finally:
            self._locked = False
            os.close(descriptor)

    # Paths

    def _generation(self, name: str, generation: str) -> str:
        return os.path.join(self.path, name, GENERATIONS, generation)

    def _state(self, name: str, state: str) -> str:
        return os.path.join(self.path, name, GENERATIONS, state)

    def _next(self, name: str) -> str:
        # The number of a pair that was refused may be used again; one that is in use or kept never is.
        return str(int((self.generations(name) or ["0"])[-1]) + 1)

    def _make(self, name: str, generation: str = "") -> str:
        """Make the directories of a certificate, or of one of its generations, for everybody to pass, whatever the umask."""
        public = os.path.join(self.path, name)
        inner = os.path.join(public, GENERATIONS)
        if os.path.islink(public) or (os.path.isdir(public) and os.listdir(public) and not os.path.isdir(inner)):
            raise StoreError(f"{public} was not made by this collection; move it away and run again")
        for directory in (self.path, public, inner, *([self._generation(name, generation)] if generation else [])):
            _directory(directory)
        return self._generation(name, generation)

    def _link(self, name: str, generation: str, state: str) -> None:
        path = self._state(name, state)
        _unlink(path)
        os.symlink(os.path.join(GENERATIONS, generation), path)
        _sync(os.path.dirname(path))


@contextlib.contextmanager
def trust_file(roots: str) -> t.Iterator[str]:
    """A temporary file with roots in PEM, for openssl; the empty text for none."""
    if not roots:
        yield ""
        return
    with tempfile.NamedTemporaryFile("w", prefix="civitas-roots-", suffix=".pem", encoding="ascii") as file:
        file.write(roots)
        file.flush()
        yield file.name


def write_ca(path: str, pem: str, check: bool) -> bool:
    """Write the CA's certificate for everybody to read; returns whether that changed anything."""
    if _read(path) == pem and os.stat(path).st_mode & 0o7777 == 0o644:
        return False
    if not check:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _write(path, pem, 0o644)
    return True


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str, mode: int) -> None:
    temporary = f"{path}.new"
    _unlink(temporary)
    try:
        # Nobody reads a key before it has its owner.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        _unlink(temporary)
        raise
    _sync(os.path.dirname(path))


def _directory(path: str) -> None:
    if not os.path.isdir(path):
        os.makedirs(path)
        os.chmod(path, 0o755)


def _up_to(generations: t.Iterable[str], newest: str) -> t.List[str]:
    return [generation for generation in generations if int(generation) <= int(newest or 0)]


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _give(key: str, owner: Owner) -> None:
    """Nobody but the owner may read the key, at no moment."""
    os.chmod(key, 0o600)
    os.chown(key, *owner.ids())
    os.chmod(key, owner.mode)


def _host_option(host: str) -> t.List[str]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # openssl takes no pattern: any name that a wildcard covers stands for it.
        return ["-verify_hostname", host.replace("*", "any", 1)]
    return ["-verify_ip", host]


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _openssl(arguments: t.Sequence[str], fail: bool = True) -> str:
    try:
        done = subprocess.run(["openssl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError as error:
        raise StoreError("openssl is not installed on the host; install the package openssl") from error
    if done.returncode != 0:
        if fail:
            raise StoreError(f"openssl {arguments[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
        return ""
    return done.stdout
