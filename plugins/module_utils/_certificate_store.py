# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates on a host: keys made there, pairs swapped in one step.

Private to the collection: no promise of stability.

A pair lives in a directory of its own, C(<store>/.generations/<name>.<id>/{fullchain,key}.pem), and the public path C(<store>/<name>) is a
symbolic link to it. Renaming a new link over the old one replaces both files at once: no reader ever sees a key beside another key's
certificate, whenever the host stops.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
import typing as t
import uuid

GENERATIONS = ".generations"


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
            raise StoreError(f"{error.args[0]}: install the package that makes this user or group first, or name another owner") from error


class Store:
    """The certificates below one directory, for example C(/etc/civitas/certificates)."""

    def __init__(self, path: str) -> None:
        self.path = path

    def inspect(self, name: str, owner: Owner) -> t.Dict[str, t.Any]:
        """What is installed as C(name).

        Returns:
            V(certificate) (PEM, or empty), V(public_key) (PEM of the key's public half, or empty) and V(permissions_ok).
        """
        directory = os.path.join(self.path, name)
        key = os.path.join(directory, "key.pem")
        found = {"certificate": _read(os.path.join(directory, "fullchain.pem")), "public_key": "", "permissions_ok": True}
        if os.path.exists(key):
            found["public_key"] = _openssl(["pkey", "-in", key, "-pubout"], fail=False)
            found["permissions_ok"] = self._permissions_ok(directory, owner)
        return found

    def _permissions_ok(self, directory: str, owner: Owner) -> bool:
        state = os.stat(os.path.join(directory, "key.pem"))
        try:
            return (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (*owner.ids(), owner.mode)
        except StoreError:
            return False

    def repair_permissions(self, name: str, owner: Owner) -> None:
        """Give the key of C(name) back to its owner alone."""
        key = os.path.join(self.path, name, "key.pem")
        os.chmod(key, 0o600)
        os.chown(key, *owner.ids())
        os.chmod(key, owner.mode)

    def request(self, name: str, owner: Owner) -> t.Tuple[str, str]:
        """Make a new key for C(name) in a new generation that nothing points to yet.

        Returns:
            The generation's id and a certificate request in PEM, self-signed by the key. The key never leaves the host.
        """
        uid, gid = owner.ids()
        generation = uuid.uuid4().hex[:12]
        self._remove_abandoned(name)
        directory = self._generation(name, generation)
        for parent in (self.path, os.path.dirname(directory)):
            os.makedirs(parent, mode=0o755, exist_ok=True)
        os.mkdir(directory, 0o755)
        key = os.path.join(directory, "key.pem")
        old_mask = os.umask(0o077)
        try:
            _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key])
        finally:
            os.umask(old_mask)
        os.chown(key, uid, gid)
        os.chmod(key, owner.mode)
        return generation, _openssl(["req", "-new", "-key", key, "-subj", "/CN=request"])

    def install(self, name: str, generation: str, certificate: str, ca_file: str) -> None:
        """Put C(certificate) beside the key of C(generation), verify the pair against C(ca_file), and make it the one that is used.

        Raises:
            StoreError: the pair does not verify; the pair in use stays.
        """
        directory = self._generation(name, generation)
        if not os.path.isdir(directory):
            raise StoreError(f"{name}: the key made for this certificate is gone; run again")
        chain = os.path.join(directory, "fullchain.pem")
        _write(chain, certificate, 0o644)
        try:
            _openssl(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca_file, "-untrusted", chain, chain])
            if _openssl(["x509", "-in", chain, "-noout", "-pubkey"]) != _openssl(
                ["pkey", "-in", os.path.join(directory, "key.pem"), "-pubout"]
            ):
                raise StoreError(f"{name}: the certificate does not belong to the key")
        except StoreError:
            shutil.rmtree(directory)
            raise
        link = os.path.join(self.path, name)
        if os.path.lexists(link) and not os.path.islink(link):
            raise StoreError(f"{link} is not a link made by this collection; move it away and run again")
        fresh = f"{link}.new"
        if os.path.lexists(fresh):
            os.unlink(fresh)
        os.symlink(os.path.join(GENERATIONS, f"{name}.{generation}"), fresh)
        os.replace(fresh, link)
        _sync(self.path)
        self._remove_abandoned(name)

    def _generation(self, name: str, generation: str) -> str:
        return os.path.join(self.path, GENERATIONS, f"{name}.{generation}")

    def _remove_abandoned(self, name: str) -> None:
        """Remove generations that are not in use: left by a run that was cut off, or replaced."""
        link = os.path.join(self.path, name)
        used = os.path.basename(os.readlink(link)) if os.path.islink(link) else ""
        generations = os.path.join(self.path, GENERATIONS)
        for entry in os.listdir(generations) if os.path.isdir(generations) else []:
            if entry.rpartition(".")[0] == name and entry != used:
                shutil.rmtree(os.path.join(generations, entry))


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
    with open(temporary, "w", encoding="ascii") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    _sync(os.path.dirname(path))


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
