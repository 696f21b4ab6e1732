# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authorities that a host trusts beside those of its distribution: files, and the bundle that C(update-ca-certificates) makes of them.

Private to the collection: no promise of stability. Standard library only.

The bundle is the last thing that update-ca-certificates writes. While it is older than the directory of the files, or lacks one of them,
the program has to run: so a run that was cut off between the two is made up for by the next one, which finds no file to write.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import typing as t

UPDATE = "/usr/sbin/update-ca-certificates"
LOCAL = "/usr/local/share/ca-certificates"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class TrustError(Exception):
    """The system's trust cannot be changed."""


class SystemTrust:
    """The authorities of one directory below C(/usr/local/share/ca-certificates), which holds nothing else.

    Args:
        directory: its name.
        root: put before all paths.
    """

    def __init__(self, directory: str, root: str = "") -> None:
        self.directory = f"{root}{LOCAL}/{directory}"
        self.prefix = directory
        self.bundle = f"{root}{BUNDLE}"
        self.update = f"{root}{UPDATE}"

    def apply(self, certificates: t.Sequence[str], check: bool, package_follows: bool = False) -> bool:
        """Trust exactly C(certificates) (one certificate in PEM each); returns whether that changes anything.

        Args:
            certificates: one certificate in PEM each.
            check: change nothing.
            package_follows: the package ca-certificates may not be installed yet; it runs the program then itself.

        Raises:
            TrustError: update-ca-certificates fails, or is not there.
        """
        # Of a bundle only the first would be found by its hash, and of a file with new content none: one file each, named by content.
        wanted = {f"{self.prefix}-{hashlib.sha256(pem.encode()).hexdigest()[:16]}.crt": pem for pem in certificates}
        present = set(os.listdir(self.directory)) if os.path.isdir(self.directory) else set()
        missing = {name: pem for name, pem in wanted.items() if self._read(name) != pem}
        if not missing and present == set(wanted) and self._bundle_is_right(wanted.values()):
            return False
        if check:
            return True
        installed = os.access(self.update, os.X_OK)
        if not installed and not package_follows:
            raise TrustError(f"{self.update} is not there; install the package ca-certificates")
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        for name, pem in missing.items():
            temporary = os.path.join(self.directory, f"{name}.new")
            with open(temporary, "w", encoding="ascii") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(pem)
            os.replace(temporary, os.path.join(self.directory, name))
        for name in present - set(wanted):
            os.unlink(os.path.join(self.directory, name))
        if not installed:
            return True
        # The program appends to what it left when it was killed, and what was in there would be trusted again.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.bundle}.new")
        done = subprocess.run([self.update], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise TrustError(f"update-ca-certificates: {(done.stderr or done.stdout).strip()[-500:]}")
        return True

    def _bundle_is_right(self, certificates: t.Iterable[str]) -> bool:
        if not os.path.isdir(self.directory):
            return True
        try:
            with open(self.bundle, encoding="utf-8", errors="replace") as file:
                bundle = file.read()
        except FileNotFoundError:
            return False
        newer = os.stat(self.bundle).st_mtime_ns >= os.stat(self.directory).st_mtime_ns
        return newer and all(pem.strip() in bundle for pem in certificates)

    def _read(self, name: str) -> str:
        try:
            with open(os.path.join(self.directory, name), encoding="ascii", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""
