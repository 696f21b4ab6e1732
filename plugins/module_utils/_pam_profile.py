# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A profile of pam-auth-update(8), the way in which Debian and Ubuntu let others add to what services have in common in PAM.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import typing as t

PROGRAM = "/usr/sbin/pam-auth-update"
PROFILES = "/usr/share/pam-configs"
STATE = "/var/lib/pam"
# Block of a profile -> the file that it becomes a part of.
FILES = {
    "Auth": "common-auth",
    "Account": "common-account",
    "Password": "common-password",
    "Session": "common-session",
}


class ProfileError(Exception):
    """The profile cannot be brought into effect."""


class Profile:
    """One profile and what it stands for.

    Args:
        name: its name, of the file as well.
        content: the file; empty when there is to be none.
        root: put before all paths.
    """

    def __init__(self, name: str, content: str, root: str = "") -> None:
        self.name = name
        self.content = content
        self.root = root
        self.path = f"{root}{PROFILES}/{name}"

    def paths(self) -> t.List[str]:
        """Everything that apply() may change."""
        common = [f"{self.root}/etc/pam.d/{file}" for file in (*FILES.values(), "common-session-noninteractive")]
        return [self.path, f"{self.root}{STATE}", *common]

    def differences(self) -> t.List[str]:
        """What is not as wanted; nothing when all is."""
        found = []
        installed = _read(self.path)
        if installed != (self.content or None):
            found.append(self.path)
        rules = rules_of(self.content or installed or "")
        for file, lines in sorted(rules.items()):
            present = {_plain(line) for line in (_read(f"{self.root}/etc/pam.d/{file}") or "").splitlines()}
            if all(line in present for line in lines) != bool(self.content):
                found.append(f"{self.root}/etc/pam.d/{file}")
        return found

    def apply(self) -> None:
        """Bring the profile into effect, or take it away. Raises ProfileError."""
        if self.content:
            _write(self.path, self.content)
            self._update("--enable")
        else:
            self._update("--remove")
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        left = self.differences()
        if left:
            raise ProfileError(
                f"pam-auth-update did not bring the profile {self.name} into effect in {', '.join(left)}. "
                "It leaves files alone that somebody has changed by hand: move such changes elsewhere, run 'pam-auth-update --force', "
                "and repeat"
            )

    def _update(self, verb: str) -> None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                [f"{self.root}{PROGRAM}", "--package", verb, self.name],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProfileError(f"pam-auth-update: {error}") from error
        if done.returncode != 0:
            raise ProfileError(f"pam-auth-update failed: {(done.stderr or done.stdout).strip()[-500:] or done.returncode}")


def rules_of(content: str) -> t.Dict[str, t.List[str]]:
    """The lines that a profile adds to each file."""
    found: t.Dict[str, t.List[str]] = {}
    block = ""
    for line in content.splitlines():
        header = re.match(r"([A-Za-z-]+):", line)
        if header:
            block = header[1]
        elif line[:1].isspace() and line.strip() and block in FILES:
            found.setdefault(FILES[block], []).append(_plain(f"{block.lower()} {line}"))
    return found


def _plain(line: str) -> str:
    return " ".join(line.split())


def _read(path: str) -> t.Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _write(path: str, content: str) -> None:
    """Replace a file in one step."""
    temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    os.rename(temporary, path)
