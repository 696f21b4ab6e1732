# SPDX-License-Identifier: GPL-3.0-or-later
"""A host whose data are restored: a server of PostgreSQL, trees, units that write, and a directory of sets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_command as command
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as tree

from tests.unit.backup_sets import Outbox, age_key, listing, manifest_of, ssh_key
from tests.unit.backup_sites import program
from tests.unit.postgres_servers import Cluster

ROWS = "SELECT count(*), coalesce(md5(string_agg(births::text, ',' ORDER BY id)), '') FROM births"
# A systemctl that knows two units, whose states are files.
SYSTEMCTL = """#!/bin/sh
cd "$UNITS" || exit 9
echo "$*" >> log
while [ "$1" != -- ]; do last=$1; verb=${verb:-$1}; shift; done; shift
case $verb in
  show) test -e "$1" && echo active || echo inactive ;;
  stop) for unit; do rm -f "$unit"; done ;;
  start) for unit; do test ! -e "$unit.broken" || { echo "$unit is broken" >&2; exit 1; }; touch "$unit"; done ;;
esac
"""


class Setting:
    """A host with a database, trees, and a directory of sets of it."""

    def __init__(self, base: Path, cluster: Cluster) -> None:
        self.base, self.cluster = base, cluster
        self.key = base / "operator.key"
        self.recipients = [age_key(self.key)]
        self.signer = ssh_key(base / "sign")
        self.data, self.settings, self.sets = base / "srv/data", base / "etc/settings", base / "sets"
        for path in (self.data / "below", self.settings, self.sets, base / "run", base / "bin", base / "units"):
            path.mkdir(parents=True)
        (base / "bin/systemctl").write_text(SYSTEMCTL)
        (base / "bin/systemctl").chmod(0o755)
        self.server = postgres.Postgres("main", ("records", "second"), via=cluster.via, socket=str(cluster.base), port=cluster.port)
        self.config: dict[str, Any] = {
            "host": "records2",
            "environment": "production",
            "directory": str(base / "var/restore"),
            "backup_directory": str(base / "var/backup"),
            "minimum_free_bytes": 0,
            "keep_days": 7,
            "postgres": [self.server._asdict()],
            "files": [
                {"name": "data", "path": str(self.data)},
                {"name": "settings", "path": str(self.settings), "side": True},
            ],
            "writers": {"units": ["app.service", "other.service"], "projects": []},
        }
        (base / "var").mkdir()

    # --- what is there

    def fill(self) -> None:
        self.cluster.sql("postgres", "CREATE ROLE registrar LOGIN PASSWORD 'x'")
        self.cluster.sql("postgres", "CREATE DATABASE records OWNER registrar")
        self.cluster.sql("postgres", "CREATE DATABASE second")
        self.cluster.sql(
            "records",
            "SET ROLE registrar; CREATE TABLE births (id int PRIMARY KEY, name text);"
            " INSERT INTO births SELECT n, 'child ' || n FROM generate_series(1, 500) n",
        )
        self.cluster.sql("second", "CREATE TABLE t AS SELECT 1 AS a")
        for number in range(20):
            (self.data / f"below/{number}").write_text(f"record {number}")
        (self.data / "link").symlink_to("below/1")
        (self.settings / "secrets").write_text("a secret")

    def backup(self, environment: str = "production", failures: tuple[str, ...] = (), later: float = 0.0) -> Path:
        now = time.time() + later
        out = Outbox(self.sets / form.new_set_id(now), self.recipients)
        made = postgres.make(self.server, out.open, out.close)
        sources = [made.source]
        for name, path in (("data", self.data), ("settings", self.settings)):
            state = self.base / f"{name}-{out.directory.name}"
            one = tree.make(tree.Tree(name, str(path)), str(state), out.open, out.close, self.recipients, (), now, 30)
            sources.append(one.source)
        sources.append(command.make(command.Command("list", ("echo", "a list")), out.open, out.close)[0])
        used = {name for source in sources for name in source["members"]}
        members = [member for member in out.made if member.name in used]
        changes = {"environment": environment, "failures": list(failures), "complete": not failures}
        raw = manifest_of(out.directory.name, now, members, sources, **changes)
        (out.directory / form.MANIFEST).write_bytes(raw)
        (out.directory / form.SIGNATURE).write_bytes(form.sign(raw, str(self.base / "sign")))
        return out.directory

    def damage(self) -> None:
        """What has befallen the host since: rows and files are changed, gone, and new."""
        self.cluster.sql("records", "DELETE FROM births WHERE id % 3 = 0; UPDATE births SET name = 'x' WHERE id = 1")
        self.cluster.sql("second", "INSERT INTO t VALUES (2)")
        (self.data / "below/1").write_text("altered")
        (self.data / "below/2").unlink(missing_ok=True)
        (self.data / "new").write_text("written since")
        (self.base / "units/app.service").touch()

    def state(self) -> dict[str, Any]:
        """All that a refused restore must not touch."""
        names = "SELECT string_agg(datname || ' ' || oid || ' ' || datallowconn, ',' ORDER BY datname) FROM pg_database"
        return {
            "databases": self.cluster.sql("postgres", names),
            "roles": self.cluster.sql("postgres", "SELECT string_agg(rolname || coalesce(rolpassword, ''), ',' ORDER BY 1) FROM pg_authid"),
            "records": self.cluster.sql("records", ROWS),
            "second": self.cluster.sql("second", "SELECT count(*) FROM t"),
            "data": (self.data.stat().st_ino, listing(self.data)),
            "settings": listing(self.settings),
            "beside": sorted(path.name for path in self.data.parent.iterdir()),
            "units": sorted(path.name for path in (self.base / "units").glob("*.service")),
        }

    # --- the program

    def run(self, *words: str, code: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        (self.base / "restore.json").write_text(json.dumps(self.config))
        config = ["--config", str(self.base / "restore.json")]
        started = [sys.executable, "-IS", "-c", code, *config, *words] if code else [*program("_restore_program"), *config, *words]
        environment = {**os.environ, "PATH": f"{self.base}/bin:{os.environ['PATH']}", "UNITS": str(self.base / "units")}
        done = subprocess.run(started, capture_output=True, text=True, check=False, env=environment, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def boot(self) -> str:
        """The machine starts: first without anything that writes, then with it. How far the restore was between the two."""
        self.run("settle", "--boot")
        between = str(self.status()["phase"])
        (self.base / "units/postgresql.service").unlink(missing_ok=True)
        asked = self.base / "units/civitas-restore-finish.service"
        if asked.exists():
            asked.unlink()
            self.run("settle")
        return between

    def plan(self, **changes: Any) -> list[str]:
        identity = self.base / "run/identity"
        shutil.copy(self.key, identity)
        plan = {"host": "records1", "signers": [self.signer], "identity": str(identity), "sets": str(self.sets), "confirm": "records2"}
        path = self.base / "run/plan.json"
        path.write_text(json.dumps({**plan, **changes}))
        return ["run", "--plan", str(path)]

    def restore(self, check: bool = True, **changes: Any) -> subprocess.CompletedProcess[str]:
        done = self.run(*self.plan(**changes), check=check)
        assert not (self.base / "run/identity").exists()
        return done

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json", check=False).stdout))

    def refuses(self, words: str, **changes: Any) -> None:
        before = self.state()
        done = self.restore(check=False, **changes)
        assert done.returncode == 1 and words in done.stderr, done.stderr
        assert self.state() == before
        assert list((self.base / "var/restore").glob("side/*")) == []


Made = tuple[Setting, Path, dict[str, Any]]


def made_in(base: Path, cluster: Cluster) -> Made:
    """A host with one good set, and its state then."""
    setting = Setting(base, cluster)
    setting.fill()
    directory = setting.backup()
    return setting, directory, setting.state()


@contextmanager
def damaged(made: Made) -> Iterator[Setting]:
    """It is damaged, and comes back to that afterwards."""
    setting, directory, _state = made
    kept, config = setting.base / "kept", dict(setting.config)
    setting.damage()
    shutil.copytree(setting.data, kept, symlinks=True)
    yield setting
    setting.config = config
    for path in (setting.base / "var/restore", setting.data, *setting.data.parent.glob("data.civitas-*")):
        shutil.rmtree(path, ignore_errors=True)
    for path in setting.sets.iterdir():
        if path != directory:
            shutil.rmtree(path)
    kept.rename(setting.data)
    query = "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"
    for name in setting.cluster.sql("postgres", query).split("\n"):
        setting.cluster.sql("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')
    setting.cluster.sql("postgres", "CREATE DATABASE records OWNER registrar")
    setting.cluster.sql("postgres", "CREATE DATABASE second")
    setting.cluster.sql("records", "CREATE TABLE births AS SELECT 1 AS id, 'child'::text AS name")
    setting.cluster.sql("second", "CREATE TABLE t AS SELECT 1 AS a")
    for path in (setting.base / "units").iterdir():
        path.unlink()


def good(made: Made) -> dict[str, Any]:
    """What comes back."""
    state = made[2]
    return {key: state[key] for key in ("records", "second")} | {"data": state["data"][1]}


def found(host: Setting) -> dict[str, Any]:
    state = host.state()
    return {key: state[key] for key in ("records", "second")} | {"data": state["data"][1]}
