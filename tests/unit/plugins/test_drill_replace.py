# SPDX-License-Identifier: GPL-3.0-or-later
"""A good set takes the place of a staging host's own data, altered; whatever goes wrong leaves, or brings back, what was there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_replace as replacing
from ansible_collections.civitas.hosting.plugins.module_utils._policy import POLICIES

from tests.unit.backup_sets import flip
from tests.unit.backup_sites import program
from tests.unit.postgres_servers import Cluster, needs_postgres, running_cluster
from tests.unit.restore_setting import Made, Setting, damaged, found, good, made_in

pytestmark = needs_postgres
HOOK = """#!/bin/sh
set -e
echo "${CIVITAS_TREE:-$PGDATABASE}" >> @BASE@/log
case ${CIVITAS_TREE:-$PGDATABASE} in @WHERE@) @HOW@ ;; esac
if [ "$CIVITAS_TREE" ]; then rm -f "$CIVITAS_TREE/below/3"; exit; fi
psql -qXv ON_ERROR_STOP=1 <<'SQL'
DO $$ BEGIN
  IF to_regclass('births') IS NOT NULL THEN
    UPDATE births SET name = 'somebody';
    DELETE FROM births WHERE id > 400;
  END IF;
END $$
SQL
"""
SERVICE = Path(__file__).parents[3] / "roles/restore_drill/templates/root/etc/systemd/system"
ALTERED = "SELECT count(*) || ' ' || min(name) || ' ' || max(name) FROM births"


class Staging:
    """A host with data of its own, which are replaced by what its drills have proven."""

    def __init__(self, base: Path, host: Setting) -> None:
        self.base, self.host = base, host
        self.sets = base / "sets"
        shutil.copytree(host.sets, self.sets)
        self.key = base / "identity"
        shutil.copy(host.key, self.key)
        # The name of this host and its kind; what restores there knows both, too.
        host.config.update(host="staging1", environment="staging")
        self.hook()
        self.replace: dict[str, Any] = {
            "settings": str(base / "restore.json"),
            "anonymise": [str(base / "hook")],
            "health": [],
            "health_seconds": 0,
        }
        self.environment = "staging"

    def hook(self, where: str = "nowhere", how: str = ":") -> None:
        """What anonymises, and does something else in databases or trees whose name fits."""
        path = self.base / "hook"
        path.write_text(HOOK.replace("@BASE@", str(self.base)).replace("@WHERE@", where).replace("@HOW@", how))
        path.chmod(0o755)
        (self.base / "log").touch()
        (self.base / "log").chmod(0o666)

    def drill(self, *words: str) -> subprocess.CompletedProcess[str]:
        origin = {"host": "records1", "signers": [self.host.signer], "identity": str(self.key), "sets": str(self.sets)}
        config = {
            "host": "staging1",
            "environment": self.environment,
            "directory": str(self.base / "drill"),
            "metrics_file": str(self.base / "drill.prom"),
            "minimum_free_bytes": 0,
            "keep_reports": 3,
            "late_hours": 26,
            "origins": [{**origin, "replace": self.replace}],
            "programs": "/usr/lib/postgresql/{major}/bin",
            "via": list(Cluster.via),
            "settings": {},
            "anonymise": self.replace["anonymise"],
            "logins": [],
        }
        (self.base / "drill.json").write_text(json.dumps(config))
        (self.base / "restore.json").write_text(json.dumps(self.host.config))
        command = [*program("_drill_program"), "--config", str(self.base / "drill.json"), *(words or ("run",))]
        environment = {**os.environ, "PATH": f"{self.host.base}/bin:{os.environ['PATH']}", "UNITS": str(self.host.base / "units")}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=240)

    def report(self) -> dict[str, Any]:
        return dict(json.loads(max((self.base / "drill/reports").glob("*.json")).read_text()))

    def log(self) -> list[str]:
        return (self.base / "log").read_text().split()

    def fails(self, *words: str) -> None:
        """It is told, and the data are those of before."""
        before = self.state()
        done = self.drill()
        assert done.returncode == 1 and "the restore drill FAILED" in done.stderr, done
        assert all(one in done.stderr for one in words), done.stderr
        assert self.report()["replaced"] is None and not self.report()["good"]
        assert self.state() == before
        assert self.key.exists() and list((self.base / "drill/work").rglob("*")) == []

    def state(self) -> dict[str, Any]:
        """What people use."""
        state = self.host.state()
        return {name: state[name] for name in ("records", "second", "data", "settings", "roles", "units")}


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module", name="made")
def _made(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Made:
    return made_in(tmp_path_factory.mktemp("restored"), cluster)


@pytest.fixture(name="host")
def _host(made: Made) -> Iterator[Setting]:
    with damaged(made) as host:
        yield host


@pytest.fixture(name="staging")
def _staging(host: Setting) -> Iterator[Staging]:
    # Sockets have short paths, and the user of the server gets there.
    base = Path(tempfile.mkdtemp(prefix="rp-"))
    base.chmod(0o711)
    yield Staging(base, host)
    shutil.rmtree(base)


def test_a_good_set_takes_the_place_of_the_data(staging: Staging, host: Setting, made: Made) -> None:
    done = staging.drill()
    assert done.returncode == 0 and "and is in place" in done.stderr + done.stdout, done.stderr
    assert host.cluster.sql("records", ALTERED) == "400 somebody somebody"
    assert not (host.data / "below/3").exists() and (host.data / "below/2").read_text() == "record 2"
    assert not (host.data / "new").exists()
    # First where nobody uses it, then beside the old data, and never on those.
    names = staging.log()
    assert names[:4] == ["records", "second", *[str(staging.base / "drill/work/tree/restored")] * 2]
    assert [name.split("_")[:2] for name in names[4:6]] == [["civitas", "restore"]] * 2 and ".civitas-restore-" in names[6]
    assert len(names) == 7
    assert (host.base / "units/app.service").exists()
    log = (host.base / "units/log").read_text()
    assert log.index("stop -- app.service") < log.index("start -- app.service")
    status = host.status()
    assert status["phase"] == "accepted" and status["last"]["unattended"] and status["kept"] == [staging.report()["replaced"]]
    # A person may still want the old state; nothing was brought to the side, and the key is where it was.
    assert not (host.base / "var/restore/side").exists() and staging.key.exists()
    host.run("undo")
    assert (host.data / "new").read_text() == "written since"


def test_the_day_after(staging: Staging, host: Setting) -> None:
    assert [staging.drill().returncode for _day in range(2)] == [0, 0]
    assert len(host.status()["kept"]) == 2 and host.cluster.sql("records", ALTERED) == "400 somebody somebody"
    host.run("forget", "all")
    assert "civitas_" not in host.state()["databases"] and host.state()["beside"] == ["data"]


def test_records_of_people_come_when_somebody_has_said_so(staging: Staging, host: Setting, made: Made) -> None:
    staging.replace["anonymise"] = []
    assert staging.drill().returncode == 0
    assert found(host) == good(made)


def test_what_was_altered_is_not_in_the_files_of_the_database(staging: Staging, host: Setting) -> None:
    assert staging.drill().returncode == 0
    path = host.cluster.sql("records", "CHECKPOINT; SELECT pg_relation_filepath('births')").split("\n")[-1]
    directory = Path(host.cluster.sql("postgres", "SHOW data_directory"))
    assert b"somebody" in (directory / path).read_bytes() and b"child " not in (directory / path).read_bytes()


def test_a_bad_set_leaves_the_old_data(staging: Staging) -> None:
    (only,) = staging.sets.iterdir()
    flip(next(only.glob("db-main-records*")))
    staging.fails("db-main-records.dump.zst.age was altered")
    assert staging.log() == []


def test_a_set_that_was_not_complete(staging: Staging, host: Setting) -> None:
    shutil.rmtree(staging.sets)
    incomplete = host.backup(failures=("a tree was gone",))
    shutil.copytree(incomplete, staging.sets / incomplete.name)
    staging.fails("there is no good set")


@pytest.mark.parametrize("where", ["second", "*/work/tree/*", "civitas_restore_*_second", "*/data.civitas-restore-*"])
def test_an_anonymising_that_fails_leaves_the_old_data(staging: Staging, where: str) -> None:
    staging.hook(where, "echo a name of somebody; exit 3")
    staging.fails("hook ended with 3")
    assert "a name" not in json.dumps(staging.report())


def test_an_application_that_does_not_work_gets_its_old_data_back(staging: Staging) -> None:
    staging.replace["health"] = ["false"]
    staging.fails("the application does not work with the new data: false ended with 1", "all is as it was before")


def test_health_is_waited_for(staging: Staging, host: Setting) -> None:
    path = staging.base / "healthy"
    staging.replace.update(health=["sh", "-c", f"test -e {path} || {{ touch {path}; exit 1; }}"], health_seconds=60)
    assert staging.drill().returncode == 0 and host.status()["phase"] == "accepted"


@pytest.mark.parametrize("moment", ["preparing", "stopping", "starting", "restored"])
def test_it_is_killed(staging: Staging, host: Setting, moment: str) -> None:
    """systemd has the rest of it done at once."""
    before = staging.state()
    kill = f"pkill -KILL -x -f '.*{staging.base}/drill.json run'"
    if moment == "preparing":
        staging.hook("*/data.civitas-restore-*", f"{kill}; sleep 1")
    elif moment == "restored":
        staging.replace.update(health=["sh", "-c", f"{kill}; sleep 1"], health_seconds=60)
    else:
        verb = "stop" if moment == "stopping" else "start"
        script = host.base / "bin/systemctl"
        original = script.read_text()
        script.write_text(original.replace("case $verb in", f"test $verb != {verb} || {{ kill -KILL $PPID; exit; }}\ncase $verb in"))
    try:
        done = staging.drill()
    finally:
        if moment in ("stopping", "starting"):
            script.write_text(original)
    assert done.returncode == -signal.SIGKILL, done
    assert host.status()["phase"] == moment
    cleaned = staging.drill("clean")
    assert cleaned.returncode == 0 and "is taken back, as it was cut off" in cleaned.stderr, cleaned.stderr
    assert staging.state() == before and host.status()["phase"] in ("refused", "undone")
    assert staging.drill("status").returncode == 1
    staging.hook()
    staging.replace["health"] = []
    assert staging.drill().returncode == 0 and host.cluster.sql("records", ALTERED) == "400 somebody somebody"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": "production"}, "are never replaced by a timer"),
        ({"environment": "qa"}, "are never replaced by a timer"),
        ({"config": {"environment": "production"}}, "of the kind 'production', and not 'staging'"),
        ({"config": {"host": "records1"}}, "the sets of this host itself"),
        ({"settings": "/nonexistent"}, "has no settings for restores"),
        ({"config": {"files": []}}, "declares no tree"),
    ],
)
def test_where_nothing_is_replaced(staging: Staging, host: Setting, change: dict[str, Any], words: str) -> None:
    staging.environment = change.get("environment", "staging")
    staging.replace["settings"] = change.get("settings", staging.replace["settings"])
    host.config = {**host.config, **change.get("config", {})}
    staging.fails(words)


def test_what_could_never_be_replaced_is_told_when_it_is_configured(staging: Staging, host: Setting) -> None:
    """The role asks so before the first night."""
    assert staging.drill("check").returncode == 0
    host.config["environment"] = "production"
    told = staging.drill("check")
    assert told.returncode == 1 and "says that this host is of the kind 'production', and not 'staging'" in told.stderr
    host.config.update(environment="staging", host="records1")
    told = staging.drill("check")
    assert told.returncode == 1 and "the sets of this host itself" in told.stderr


def test_it_waits_for_what_it_replaces_and_is_not_cut_off_while_it_takes_back() -> None:
    text = (SERVICE / "civitas-drill.service.j2").read_text()
    (after,) = [line for line in text.splitlines() if line.startswith("After=")]
    assert {"postgresql.service", "docker.service", "civitas-restore-settle.service"} < set(after[6:].split())
    assert "\nTimeoutStopSec=infinity\n" in text


@pytest.mark.parametrize("kind", [*sorted(set(POLICIES) - {"staging"}), "live", ""])
def test_no_other_kind_of_host_is_ever_asked(kind: str, tmp_path: Path) -> None:
    with pytest.raises(replacing.ReplaceError, match="are never replaced by a timer"):
        replacing.check(replacing.Replace(str(tmp_path / "restore.json"), (), (), 0), kind, "records1")


def test_a_restore_of_a_person_is_not_in_the_way_of_anybody(staging: Staging, host: Setting) -> None:
    """Somebody restores and has not said yet whether it works: the drill neither takes that back nor goes on."""
    host.restore(confirm="staging1", only=["files/data"])
    assert host.status()["phase"] == "restored"
    staging.fails("is not finished, its phase is 'restored'")
    assert host.status()["phase"] == "restored"
