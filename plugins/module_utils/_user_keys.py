# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keys of before the accounts of a host still have. What was before stays on the host until that is settled.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

KEYS = "/etc/ssh/civitas/keys"
BEFORE = "/var/lib/civitas/user-keys-before.json"
# Wherever it stands in a line: what looks like a key and is none is named too often rather than too seldom.
_KEY = re.compile(r"(?<!\S)((?:ssh|ecdsa|sk)-[A-Za-z0-9@.-]+)\s+(AAAA[A-Za-z0-9+/]+)")

# Account, type, blob.
Entry = t.Tuple[str, str, str]


class UserKeyError(Exception):
    """People's keys cannot be judged; the text says what to do."""


class UserKeys:
    """The keys of the accounts of one host.

    Args:
        directory: one file of keys for each account, named after it.
        before: file with what the directory held when the rotation began.
    """

    def __init__(self, directory: str = KEYS, before: str = BEFORE) -> None:
        self._directory = directory
        self._before = before

    def now(self) -> t.List[Entry]:
        """What sshd accepts now. A comment or an option makes no other key of it."""
        try:
            # sshd looks for names of accounts, which begin with no dot.
            names = sorted(name for name in os.listdir(self._directory) if not name.startswith("."))
        except FileNotFoundError:
            raise UserKeyError(
                f"there is no {self._directory}, so sshd takes people's keys from elsewhere, and those would stay. Run the site playbook "
                "first: the role access brings the keys there"
            ) from None
        found: t.Set[Entry] = set()
        for name in names:
            with open(os.path.join(self._directory, name), encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    if not line.lstrip().startswith("#"):
                        found.update((name, kind, blob) for kind, blob in _KEY.findall(line))
        return sorted(found)

    def begin(self, check_mode: bool = False) -> bool:
        """Keep what is there now; false when it was kept before, by a run that did not come to its end."""
        now = self.now()
        if os.path.exists(self._before):
            return False
        if not check_mode:
            os.makedirs(os.path.dirname(self._before), mode=0o755, exist_ok=True)
            write_json(self._before, {"since": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "keys": now}, 0o600)
        return True

    def since(self) -> str:
        """When the rotation began; empty when there is none."""
        kept = self._kept()
        return str(kept["since"]) if kept else ""

    def same(self) -> t.List[str]:
        """Accounts that have a key which some account had before: handed on to another account, it lets the same people in."""
        kept = self._kept()
        if kept is None:
            raise UserKeyError("nobody noted which keys there were before; begin with state: begun")
        known = {(kind, blob) for _account, kind, blob in kept["keys"]}
        return sorted({account for account, kind, blob in self.now() if (kind, blob) in known})

    def finish(self, check_mode: bool = False) -> bool:
        """Forget what was before; false when there is nothing to forget."""
        if not os.path.exists(self._before):
            return False
        if not check_mode:
            os.unlink(self._before)
        return True

    def _kept(self) -> t.Optional[t.Dict[str, t.Any]]:
        try:
            with open(self._before, encoding="utf-8") as stream:
                kept = json.load(stream)
            return {"since": kept["since"], "keys": [(str(a), str(b), str(c)) for a, b, c in kept["keys"]]}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise UserKeyError(f"{self._before} is damaged; remove it and run this again, which then compares with today's keys") from None
