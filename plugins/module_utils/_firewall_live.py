# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that is in force on this host: read, compared with what was loaded, replaced as a whole.

Also used by the host's own program C(civitas-firewall), so standard library only.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import EgressRules, kept_elements
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

TABLE = "inet civitas"
RULES = "/etc/civitas/firewall.nft"
CLOSED = "/etc/civitas/firewall-closed.nft"
# What the kernel made of the rules when they were loaded: two listings can be compared, a listing and a file cannot.
RECORD = "/var/lib/civitas/firewall.json"
# In a directory of root's alone: in /run/lock anybody could hold it.
_LOCK = "/run/civitas-firewall/lock"
_SECONDS = 60
# Of a run with everything that it asks nft.
_PATIENCE = 90.0

Listing = t.Dict[str, t.Any]


class FirewallError(Exception):
    """What nft said."""


@contextlib.contextmanager
def locked(patience: float = _PATIENCE) -> t.Iterator[None]:
    """One at a time: a run, and the timer that repairs.

    Raises:
        FirewallError: another one did not end in time.
    """
    os.makedirs(os.path.dirname(_LOCK), mode=0o700, exist_ok=True)
    with open(_LOCK, "w", encoding="ascii") as handle:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise FirewallError(
                        f"another run has held the firewall for {patience:g} seconds; see which with: fuser -v {_LOCK}"
                    ) from error
            time.sleep(0.1)
        yield


def check(text: str) -> str:
    """What the kernel would say to a ruleset; empty when it would take it. Nothing is changed."""
    return _nft(["--check", "--file", "-"], text)[1]


def listing() -> t.Optional[Listing]:
    """The table without counters, V(None) when there is none. In numbers: names depend on what else is installed."""
    rc, out = _nft(["--stateless", "--numeric", "--json", "list", "table", *TABLE.split()])
    if rc == 0:
        return t.cast(Listing, json.loads(out))
    rc, tables = _nft(["list", "tables"])
    if rc != 0:
        raise FirewallError(f"nft list tables: {tables}")
    if f"table {TABLE}" in tables.splitlines():
        raise FirewallError(f"nft list table {TABLE}: {out}")
    return None


def load(text: str) -> None:
    """Replace the table by a ruleset and record what the kernel made of it. Addresses that names had are carried over.

    Raises:
        FirewallError: it was refused; the old table is as it was.
    """
    before = listing()
    sets = [line.strip() for line in text.splitlines() if line.strip().startswith("set ")]
    kept = kept_elements(before, EgressRules(sets, [], [], [], [])) if before else []
    rc, out = _nft(["--file", "-"], "\n".join([text, *kept, ""]))
    if rc != 0:
        raise FirewallError(out)
    os.makedirs(os.path.dirname(RECORD), mode=0o755, exist_ok=True)
    write_json(RECORD, {"rules": digest(text), "entries": entries(listing())}, 0o600)


def drift(text: str) -> str:
    """How the table differs from what a ruleset made when it was loaded; empty when it does not."""
    found = listing()
    if found is None:
        return f"the table {TABLE} is gone"
    try:
        with open(RECORD, encoding="utf-8") as stream:
            record = json.load(stream)
    except (OSError, ValueError):
        record = {}
    if record.get("rules") != digest(text):
        return "these rules were not loaded yet"
    now, then = entries(found), t.cast("t.List[str]", record["entries"])
    words = [f"removed: {entry}" for entry in then if entry not in now] + [f"added: {entry}" for entry in now if entry not in then]
    if words:
        more = f" and {len(words) - 1} more" if len(words) > 1 else ""
        return f"the table {TABLE} was changed; {words[0]}{more}"
    return "" if now == then else f"the rules of the table {TABLE} were put into another order"


def entries(found: t.Optional[Listing]) -> t.List[str]:
    """What a table consists of, one text each, in order: without handles, and without the addresses that names have just now."""
    result = []
    for entry in (found or {}).get("nftables", []):
        for kind, value in entry.items():
            if kind == "metainfo":
                continue
            kept = {key: part for key, part in value.items() if key != "handle"}
            if kind == "set" and "timeout" in kept.get("flags", []):
                kept.pop("elem", None)
            elif kind == "set":
                kept["elem"] = sorted(kept.get("elem", []), key=json.dumps)
            result.append(json.dumps({kind: kept}, sort_keys=True))
    return result


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: str) -> str:
    """The text of a file, empty when there is none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    """Replace a file that root alone may read; the old one or the new one is there, also after a power failure."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _nft(words: t.Sequence[str], script: str = "") -> t.Tuple[int, str]:
    """The exit code and the output, which is what was wrong when the code is not 0."""
    try:
        done = subprocess.run(["nft", *words], input=script, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd="/")
    except FileNotFoundError as error:
        raise FirewallError("nft is not there; install the package nftables") from error
    except subprocess.TimeoutExpired as error:
        raise FirewallError(f"nft did not end within {_SECONDS} seconds") from error
    if done.returncode != 0:
        return done.returncode, done.stderr.strip() or f"exit code {done.returncode}"
    return 0, done.stdout


def main(words: t.Sequence[str]) -> int:
    """The host's program: V(check) says whether the rules are in force, V(repair) also loads them when they are not."""
    import sys

    if list(words) not in (["check"], ["repair"]):
        sys.stderr.write("usage: civitas-firewall check|repair\n")
        return 64
    try:
        with locked():
            text = read(RULES)
            if not text:
                raise FirewallError(f"{RULES} is not there; run the site playbook")
            found = drift(text)
            if found and words[0] == "repair":
                load(text)
    except (FirewallError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not found:
        sys.stdout.write("the declared rules are in force\n")
        return 0
    if words[0] == "repair":
        # Systemd reads the number: an error, as someone or something took the firewall down.
        sys.stderr.write(f"<3>{found}; the declared rules were loaded again\n")
        return 0
    sys.stderr.write(f"{found}\n")
    return 1
