# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets made by the real age, zstd and ssh-keygen, with keys that are made for each test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as tree
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest, Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import Writer

PAGE = Path(__file__).resolve().parents[2] / "docs/backup-format.md"
MISSING = [program for program in ("age", "age-keygen", "zstd", "ssh-keygen") if shutil.which(program) is None]
needs_programs = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")


def age_key(path: Path) -> str:
    """A new private key in a file; its public key."""
    done = subprocess.run(["age-keygen", "-o", str(path)], capture_output=True, text=True, check=True)
    return done.stderr.split()[-1]


def ssh_key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path.with_name(f"{path.name}.pub").read_text().strip()


class Outbox:
    """Where members of one set are made, as the program does it."""

    def __init__(self, directory: Path, recipients: list[str]) -> None:
        self.directory, self.recipients = directory, recipients
        self.made: list[Member] = []
        directory.mkdir(parents=True, exist_ok=True)

    def open(self, name: str) -> Writer:
        return Writer(name, self.recipients, (self.directory / name).open("xb"), lambda: None)

    def close(self, writer: Writer) -> Member:
        member = writer.close()
        self.made.append(member)
        return member


def manifest_of(set_id: str, begin: float, members: list[Member], sources: list[dict[str, Any]], **changes: Any) -> bytes:
    content = {
        "format": form.FORMAT,
        "host": "records1",
        "site": "demo",
        "environment": "production",
        "set": set_id,
        "previous": None,
        "previous_sha256": None,
        "begin": form.format_time(begin),
        "end": form.format_time(begin + 1),
        "complete": True,
        "members": [member._asdict() for member in members],
        "sources": sources,
        "warnings": [],
        "failures": [],
        **changes,
    }
    return form.encode(content)


class Host:
    """A host that makes sets of one tree, and a store that is a directory with hard links."""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir(exist_ok=True)
        self.key = base / "operator.key"
        self.recipients = [age_key(self.key), age_key(base / "escrow.key")]
        self.signer = ssh_key(base / "sign")
        self.data = base / "data"
        self.data.mkdir()
        self.state = base / "state.sqlite"
        self.store = base / "store"
        self.store.mkdir()
        self.last: Manifest | None = None
        self.stored: dict[str, Path] = {}
        self.made: tree.Made | None = None
        # Names of the members that the last set did not find in the store.
        self.sent: list[str] = []

    def backup(self, now: float | None = None, full_days: int = 30, **options: Any) -> Path:
        """One set of the tree; its directory."""
        now = time.time() if now is None else now
        set_id = form.new_set_id(now)
        out = Outbox(self.store / set_id, self.recipients)
        declared = tree.Tree("data", str(self.data), **options)
        self.made = tree.make(declared, str(self.state), out.open, out.close, self.recipients, self.stored, now, full_days)
        for member in self.made.members:
            if member not in out.made:
                (out.directory / member.name).hardlink_to(self.stored[member.sha256])
            self.stored.setdefault(member.sha256, out.directory / member.name)
        self.sent = [member.name for member in out.made if member in self.made.members]
        self.seal(out.directory, now, self.made.members, [self.made.source], self.made.failures)
        return out.directory

    def seal(
        self, directory: Path, now: float, members: list[Member], sources: list[dict[str, Any]], failures: list[str] | None = None
    ) -> None:
        changes: dict[str, Any] = {"failures": failures or [], "complete": not failures, "recipients": self.recipients}
        if self.last is not None:
            changes.update(previous=self.last.set_id, previous_sha256=self.last.sha256)
        raw = manifest_of(directory.name, now, members, sources, **changes)
        (directory / form.MANIFEST).write_bytes(raw)
        (directory / form.SIGNATURE).write_bytes(form.sign(raw, str(self.base / "sign")))
        self.last = form.parse(raw)

    def read(self, directory: Path) -> Manifest:
        return verify.read_set(str(directory), "records1", [self.signer])

    def restore(self, directory: Path, target: Path) -> dict[str, int]:
        manifest = self.read(directory)
        assert verify.check_ciphers(str(directory), manifest) == []
        verify.check_contents(str(directory), manifest, str(self.key))
        return verify.extract_tree(str(directory), manifest, manifest.sources[0], str(self.key), str(target))


def flip(path: Path, at: int = -40) -> None:
    """One bit of a file that may have several names: a copy takes its place, so that the other names stay good."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()
    path.write_bytes(data)


def listing(directory: Path) -> dict[str, Any]:
    """Everything of a tree that is to come back."""
    found: dict[str, Any] = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        info = path.lstat()
        content: Any = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(directory))] = (
            oct(info.st_mode),
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            info.st_nlink if not path.is_dir() else 0,
            content,
        )
    return dict(json.loads(json.dumps(found, default=repr)))


def block(title: str) -> str:
    """The commands that stand under a heading of the page."""
    found = re.search(rf"^### {title}\n.*?^```sh\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert found, title
    return found[1]
