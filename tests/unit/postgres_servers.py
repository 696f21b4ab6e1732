# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers of PostgreSQL of a test's own, of the newest version that is installed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.backup_sets import MISSING

VERSIONS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
MAJOR = VERSIONS[-1].parts[-3] if VERSIONS else ""
PROGRAMS = VERSIONS[-1].parent if VERSIONS else Path()
ROOT = os.geteuid() == 0
needs_postgres = [
    pytest.mark.skipif(not VERSIONS, reason="the server of PostgreSQL is not installed here"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}"),
    pytest.mark.skipif(ROOT and not shutil.which("runuser"), reason="runuser is not installed here"),
]


class Cluster:
    """A server of its own, reached by a socket; who runs the tests is its superuser, or the user postgres for root."""

    via = ("runuser", "-u", "postgres", "--") if ROOT else ()
    port = 54329

    def __init__(self, base: Path) -> None:
        self.base, self.data = base, base / "cluster"
        self.run("initdb", "-D", str(self.data), "-A", "peer", "--locale=C.UTF-8", "--no-sync", "-U", "postgres" if ROOT else "")
        self.set(
            "listen_addresses = ''", f"unix_socket_directories = '{base}'", f"port = {self.port}", "fsync = off", "wal_level = replica"
        )

    def set(self, *lines: str) -> None:
        subprocess.run(
            [*self.via, "tee", "-a", str(self.data / "postgresql.conf")],
            input="".join(f"{line}\n" for line in lines),
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def run(self, program: str, *arguments: str) -> str:
        words = [word for word in arguments if word not in ("-U", "")] if not ROOT else list(arguments)
        done = subprocess.run([*self.via, str(PROGRAMS / program), *words], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        # Its output is not captured: the server would hold the pipe.
        command = [*self.via, str(PROGRAMS / "pg_ctl"), "-D", str(self.data), "-w", "-l", str(self.base / "log"), "start"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def stop(self) -> None:
        subprocess.run(
            [*self.via, str(PROGRAMS / "pg_ctl"), "-D", str(self.data), "-m", "immediate", "stop"],
            capture_output=True,
            check=False,
            cwd="/",
        )

    def sql(self, database: str, query: str) -> str:
        return self.run(
            "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.base), "-p", str(self.port), "-d", database, "-c", query
        ).strip()

    def dump(self, database: str, *words: str) -> bytes:
        """What pg_dump makes of it, in the format custom."""
        command = [*self.via, str(PROGRAMS / "pg_dump"), "-h", str(self.base), "-p", str(self.port), "-d", database, "-F", "c", *words]
        return subprocess.run(command, capture_output=True, check=True, cwd="/").stdout


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    if not VERSIONS:
        pytest.skip("the server of PostgreSQL is not installed here")
    # Sockets have short paths.
    base = Path(tempfile.mkdtemp(prefix="pg-"))
    if ROOT:
        shutil.chown(base, "postgres")
    cluster = Cluster(base)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(base)
