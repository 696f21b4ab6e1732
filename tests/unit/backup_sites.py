# SPDX-License-Identifier: GPL-3.0-or-later
"""A host and its store on this machine, with a real sshd, rsync and the store's service between them."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils import _store_give as give
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest

from tests.unit.backup_sets import MISSING as _MISSING
from tests.unit.backup_sets import age_key, ssh_key

COLLECTIONS = Path(__file__).resolve().parents[2] / ".cache/collections"
SSHD = "/usr/sbin/sshd"
MISSING = [*_MISSING, *([] if os.access(SSHD, os.X_OK) else ["sshd"]), *([] if shutil.which("rsync") else ["rsync"])]
needs_programs = pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")
MODULES = "ansible_collections.civitas.hosting.plugins.module_utils"


def program(name: str) -> list[str]:
    """A command that runs a program of hosts from this checkout."""
    code = f"import sys; sys.path.insert(0, {str(COLLECTIONS)!r}); from {MODULES}.{name} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-IS", "-c", code]


def serve_store(path: str, config: Path) -> socket.socket:
    """Answer on a socket as the store's service does, as systemd does with Accept=yes; closing it ends that."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            with connection:
                command = [*program("_store_program"), "--config", str(config), "answer"]
                subprocess.run(command, stdin=connection.fileno(), check=False)

    threading.Thread(target=serve, daemon=True).start()
    return listener


class Site:
    """One host, one store."""

    def __init__(self, base: Path) -> None:
        self.base = base
        base.mkdir(exist_ok=True)
        self.identity = base / "operator.key"
        self.recipients = [age_key(self.identity)]
        self.signer = ssh_key(base / "sign")
        transfer = ssh_key(base / "transfer")
        self.data = base / "data"
        self.data.mkdir()
        self.store = base / "store"
        self.store.mkdir()
        self.port = self._free_port()
        self.store_config: dict[str, Any] = {
            "directory": str(self.store),
            "socket": str(base / "socket"),
            "grants": str(base / "grants"),
            "reader": getpass.getuser(),
            "minimum_free_bytes": 0,
            "metrics_file": str(base / "store.prom"),
            "hosts": {
                "records1": {"user": getpass.getuser(), "signers": [self.signer], "quota_bytes": 10**10, "retention": "7 days"},
                "other": {"user": "nobody", "signers": [self.signer], "quota_bytes": 10**10, "retention": "7 days"},
            },
        }
        self.config: dict[str, Any] = {
            "host": "records1",
            "site": "demo",
            "environment": "production",
            "directory": str(base / "var"),
            "recipients": self.recipients,
            "signing_key": str(base / "sign"),
            "minimum_free_bytes": 0,
            "full_days": 30,
            "late_hours": 26,
            "metrics_file": str(base / "backup.prom"),
            "store": {
                "address": "127.0.0.1",
                "user": getpass.getuser(),
                "key": str(base / "transfer"),
                "known_hosts": str(base / "known_hosts"),
                "port": self.port,
                "tries": 3,
                "pause": 0.05,
                "timeout": 30,
            },
            "postgres": [],
            "commands": [],
            "files": [{"name": "data", "path": str(self.data)}],
        }
        self.write()
        forced = shlex.join([*program("_store_program"), "--config", str(base / "store.json"), "receive", "--host", "records1"])
        quoted = forced.replace("\\", "\\\\").replace('"', '\\"')
        (base / "authorized").write_text(f'restrict,command="{quoted}" {transfer}\n')
        self._listener = serve_store(self.store_config["socket"], base / "store.json")
        self._start_sshd()

    def _free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def write(self) -> None:
        (self.base / "store.json").write_text(json.dumps(self.store_config))
        (self.base / "backup.json").write_text(json.dumps(self.config))

    def _start_sshd(self) -> None:
        host_key = ssh_key(self.base / "host_key")
        (self.base / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        (self.base / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.base}/host_key\n"
            f"AuthorizedKeysFile {self.base}/authorized {self.base}/grants/keys\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"PidFile none\nPerSourceMaxStartups none\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = (self.base / "sshd.log").open("w")
        self._sshd = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.base / "sshd_config")], stderr=log)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline and self._sshd.poll() is None, (self.base / "sshd.log").read_text()
                time.sleep(0.02)

    def close(self) -> None:
        self._sshd.terminate()
        self._sshd.wait()
        self._listener.close()

    def backup(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*program("_backup_program"), "--config", str(self.base / "backup.json"), *(command or ("run",))],
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def fails(self) -> str:
        """A run that must not end well, and leaves no trace of success; what it said."""
        before = self.state().get("success", 0)
        done = self.backup(check=False)
        assert done.returncode != 0 and "NO NEW BACKUP" in done.stderr, done
        assert self.state().get("success", 0) == before
        assert "civitas_backup_failed 1\n" in (self.base / "backup.prom").read_text()
        return done.stderr

    def state(self) -> dict[str, Any]:
        path = self.base / "var/status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def store_program(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program("_store_program"), "--config", str(self.base / "store.json"), *command], capture_output=True, text=True, check=False
        )

    def ssh(self, command: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """What somebody can do who has the host's key."""
        words = ["ssh", "-F", "none", "-T", "-p", str(self.port), "-i", str(self.base / "transfer"), "-o", "BatchMode=yes"]
        words += ["-o", f"UserKnownHostsFile={self.base}/known_hosts", "127.0.0.1", "--", command]
        return subprocess.run(words, input=data, capture_output=True, check=False, timeout=60)

    def grant(self, host: str = "records1", set_id: str = "", hours: float = 1.0, name: str = "reader") -> dict[str, Any]:
        """How somebody reaches the store who may read; as root of the store grants it."""
        command = shlex.join([*program("_store_program"), "--config", str(self.base / "store.json")])
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        key = self.base / name
        public = ssh_key(key)
        give.add(str(self.base / "grants"), quoted, host, set_id, public, hours, time.time())
        return {**self.config["store"], "key": str(key)}

    def standing(self, name: str = "reader") -> dict[str, Any]:
        """How somebody reaches the store who may always read, with a new key of this name; as the role writes it."""
        key = ssh_key(self.base / name)
        self.store_config["hosts"]["records1"].setdefault("readers", []).append(key)
        self.write()
        (grant,) = list(give.standing({"records1": [key], "other": []}))
        forced = shlex.join([*program("_store_program"), "--config", str(self.base / "store.json"), "give", "--grant", grant])
        quoted = forced.replace("\\", "\\\\").replace('"', '\\"')
        with (self.base / "authorized").open("a") as file:
            file.write(f'restrict,command="{quoted}" {key} records1\n')
        return {**self.config["store"], "key": str(self.base / name)}

    def sets(self) -> list[Path]:
        directory = self.store / "hosts/records1/sets"
        return sorted(directory.iterdir()) if directory.exists() else []

    def prove(self, directory: Path) -> Manifest:
        manifest = verify.read_set(str(directory), "records1", [self.signer])
        assert verify.check_ciphers(str(directory), manifest) == []
        verify.check_contents(str(directory), manifest, str(self.identity))
        return manifest
