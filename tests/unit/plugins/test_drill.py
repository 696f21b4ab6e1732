# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore drills with a real PostgreSQL: a good set is good, and whatever is wrong with one is told loudly and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_command as command
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as tree
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_instance as instances
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_program as drilling
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_run as run

from tests.unit.backup_sets import Outbox, age_key, flip, manifest_of, ssh_key
from tests.unit.backup_sites import program
from tests.unit.postgres_servers import MAJOR, ROOT, VERSIONS, Cluster, needs_postgres, running_cluster

pytestmark = needs_postgres
DAY = 86400.0


class Sets:
    """Sets of a host with a database, an empty one, a tree and the output of a command."""

    def __init__(self, base: Path, cluster: Cluster) -> None:
        self.base, self.cluster = base, cluster
        self.key = base / "operator.key"
        self.recipients = [age_key(self.key)]
        self.signer = ssh_key(base / "sign")
        self.data = base / "documents"
        self.data.mkdir()
        (self.data / "record").write_text("one record")
        (self.data / "scan").write_bytes(os.urandom(300_000))
        self.sets = base / "sets"
        self.sets.mkdir()

    def backup(self, now: float, **changes: Any) -> Path:
        out = Outbox(self.sets / form.new_set_id(now), self.recipients)
        server = postgres.Postgres("main", ("records", "empty"), via=Cluster.via, socket=str(self.cluster.base), port=Cluster.port)
        databases = postgres.make(server, out.open, out.close)
        printed, member = command.make(command.Command("export", ("echo", "all that there is")), out.open, out.close)
        declared = tree.Tree("documents", str(self.data))
        state = self.base / f"{out.directory.name}.sqlite"
        files = tree.make(declared, str(state), out.open, out.close, self.recipients, {}, now, 30)
        members = [*databases.members, member, *files.members]
        sources = [databases.source, printed, files.source]
        self.seal(out.directory, manifest_of(out.directory.name, now, members, sources, **{"environment": "production", **changes}))
        return out.directory

    def seal(self, directory: Path, raw: bytes) -> None:
        (directory / form.MANIFEST).write_bytes(raw)
        (directory / form.SIGNATURE).write_bytes(form.sign(raw, str(self.base / "sign")))

    def alter(self, directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
        """As a host does that counts wrongly."""
        content = json.loads((directory / form.MANIFEST).read_text())
        change(content)
        self.seal(directory, form.encode(content))


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        cluster.sql("postgres", "CREATE ROLE registry LOGIN PASSWORD 'x'")
        cluster.sql("postgres", "CREATE DATABASE records OWNER registry")
        cluster.sql("postgres", "CREATE DATABASE empty")
        cluster.sql("postgres", "REVOKE CONNECT ON DATABASE records FROM PUBLIC; CREATE ROLE reader LOGIN")
        cluster.sql("postgres", "CREATE ROLE former LOGIN VALID UNTIL '2020-01-01'")
        cluster.sql(
            "records",
            """SET ROLE registry; CREATE TABLE births (id int PRIMARY KEY, name text);
            INSERT INTO births SELECT n, 'child ' || n FROM generate_series(1, 500) n; CREATE TABLE places (); SELECT lo_create(0);""",
        )
        yield cluster


@pytest.fixture(scope="module", name="made")
def _made(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    sets = Sets(tmp_path_factory.mktemp("sets"), cluster)
    sets.backup(time.time() - 3600)
    return sets


class Drills:
    """A host that drills."""

    def __init__(self, base: Path, sets: Sets) -> None:
        self.base = base
        self.sets = base / "sets"
        shutil.copytree(sets.sets, self.sets)
        self.key = base / "identity"
        shutil.copy(sets.key, self.key)
        self.directory = base / "drill"
        self.metrics = base / "drill.prom"
        self.config: dict[str, Any] = {
            "host": "staging1",
            "environment": "staging",
            "directory": str(self.directory),
            "metrics_file": str(self.metrics),
            "minimum_free_bytes": 0,
            "keep_reports": 3,
            "late_hours": 26,
            "origins": [{"host": "records1", "signers": [sets.signer], "identity": str(self.key), "sets": str(self.sets)}],
            "programs": "/usr/lib/postgresql/{major}/bin",
            "via": list(Cluster.via),
            "settings": {},
            "anonymise": [],
            "logins": [],
        }

    @property
    def set(self) -> Path:
        """The newest."""
        return max(path for path in self.sets.iterdir() if form.is_set_id(path.name))

    def command(self, *words: str) -> list[str]:
        (self.base / "drill.json").write_text(json.dumps(self.config))
        return [*program("_drill_program"), "--config", str(self.base / "drill.json"), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*(words or ("run",))), capture_output=True, text=True, check=False)

    def metric(self, name: str) -> float:
        found = re.search(rf'^{name}{{sender="records1"}} (\S+)$', self.metrics.read_text(), re.M)
        assert found, self.metrics.read_text()
        return float(found[1])

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.directory / "reports").glob("*.json"))]

    def left(self) -> list[str]:
        """What of a restored set is still there: files, or processes of its server."""
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
        mine = [line for line in running if f"{self.directory}/work" in line and line.startswith("/usr/lib/postgresql")]
        return mine + [str(path) for path in (self.directory / "work").rglob("*")]

    def good(self) -> dict[str, Any]:
        begin = time.time()
        done = self.run()
        assert done.returncode == 0, done.stderr
        report = self.reports()[-1]
        assert report["good"] and report["problems"] == []
        assert self.metric("civitas_backup_drill_time_seconds") >= int(begin)
        assert self.metric("civitas_drill_failed") == self.metric("civitas_drill_running") == 0
        assert self.left() == []
        return report

    def fails(self, *messages: str) -> dict[str, Any]:
        """A drill that must fail: exit status, journal, report, metric; and the moment of the last good one stays."""
        before = self.metric("civitas_backup_drill_time_seconds") if self.metrics.exists() else 0
        done = self.run()
        assert done.returncode == 1 and "the restore drill FAILED" in done.stderr, done
        report = self.reports()[-1]
        assert not report["good"]
        for message in messages:
            assert re.search(message, done.stderr) and any(re.search(message, one) for one in report["problems"]), (
                message,
                report,
                done.stderr,
            )
        assert self.metric("civitas_drill_failed") == 1
        assert self.metric("civitas_backup_drill_time_seconds") == before
        assert self.run("status").returncode == 1
        assert "FAILED" in max((self.directory / "reports").glob("*.md")).read_text()
        assert self.left() == []
        return report


@pytest.fixture(name="drills")
def _drills(made: Sets) -> Iterator[Drills]:
    # Sockets have short paths.
    base = Path(tempfile.mkdtemp(prefix="dr-"))
    base.chmod(0o711)
    try:
        yield Drills(base, made)
    finally:
        shutil.rmtree(base)


def test_a_good_set(drills: Drills) -> None:
    report = drills.good()
    assert report["set"] == drills.set.name and report["environment"] == "production" and report["drilled_on"] == "staging1"
    assert 3600 <= report["recovery_point_seconds"] <= 3900
    assert report["recovery_time_seconds"] == pytest.approx(sum(report["seconds"].values())) and report["seconds"]["restore"] > 0
    server, printed, files = report["sources"]
    assert server["roles"] == 3 and server["server"] == int(MAJOR)
    records, empty = server["databases"]
    assert (records["tables"], records["rows"], records["large_objects"], records["canary"]) == (3, 501, 1, True)
    # The one that may not read is not among them; that an empty database is empty is no alarm.
    assert records["logins"] == ["registry"]
    assert (empty["rows"], empty["logins"]) == (1, [])
    assert report["warnings"] == ["the database 'empty': nobody but a superuser can log in and read"]
    assert (printed["kind"], printed["bytes"]) == ("command", len("all that there is\n"))
    assert (files["files"], files["canary"]) == (3, True)
    assert drills.metric("civitas_drill_recovery_point_seconds") == report["recovery_point_seconds"]
    assert drills.metric("civitas_drill_seconds") == report["recovery_time_seconds"]
    text = max((drills.directory / "reports").glob("*.md")).read_text()
    assert "# Restore drill of records1: good\n" in text and "| database records | 3 tables, 501 rows, 1 large objects" in text
    done = drills.run("status")
    assert done.returncode == 0 and "records1: a backup was restored and was good" in done.stdout


def test_the_next_drill_after_a_good_one(drills: Drills, made: Sets) -> None:
    drills.config["anonymise"] = ["sh", "-c", 'test "$PGDATABASE" = records || exit 0; psql -X -c "UPDATE births SET name = id::text"']
    drills.config["logins"] = [{"database": "records", "role": "registry"}]
    drills.good()
    # What fails later is told, and what was good stays known.
    drills.config["anonymise"] = ["sh", "-c", "echo the child Anna; exit 4"]
    report = drills.fails("sh ended with 4 in the database 'records'")
    assert "Anna" not in json.dumps(report)
    # Nothing is kept for ever.
    drills.config["anonymise"] = []
    (drills.directory / "reports/records1.example_20200101T000000Z.json").write_text("{}")
    for number in range(5):
        for ending in ("json", "md"):
            (drills.directory / f"reports/records1_2020010{number + 1}T000000Z.{ending}").write_text("{}")
    drills.good()
    names = sorted(path.name for path in (drills.directory / "reports").iterdir())
    assert len(names) == 7 and names[0] == "records1.example_20200101T000000Z.json" and not any("records1_2020" in name for name in names)


# --- what must fail


def member(directory: Path, begin: str) -> Path:
    (found,) = directory.glob(f"{begin}*.age")
    return found


def test_a_set_that_was_tampered_with(drills: Drills) -> None:
    flip(member(drills.set, "db-main-records"))
    drills.fails(r"db-main-records.dump.zst.age was altered: its size is right, its SHA-256 is not")
    manifest = drills.set / form.MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"public.births":500', b'"public.births":499'))
    drills.fails("the signature of the manifest is not records1's")


def test_the_wrong_key(drills: Drills) -> None:
    drills.key.unlink()
    drills.fails("No such file or directory")
    age_key(drills.key)
    drills.fails("is not encrypted to this key; take the private key of one of its recipients")


def test_rows_and_canaries_that_are_missing(drills: Drills, made: Sets) -> None:
    """The other databases and the files are looked at all the same, and all that is wrong is told at once."""

    def change(content: dict[str, Any]) -> None:
        (source,) = (one for one in content["sources"] if one["kind"] == "postgres")
        records, empty = source["databases"]
        records["rows"]["public.births"] = 501
        records["rows"]["public.more"] = 7
        empty["canary"] = "0" * 32

    made.alter(drills.set, change)
    report = drills.fails(
        "the database 'records': the table public.births has 500 rows, and the set says 501",
        "the database 'records': the table public.more is missing; it had 7 rows",
        "the database 'empty': the canary is not the one that was written before",
    )
    assert len(report["problems"]) == 3 and [one["kind"] for one in report["sources"]] == ["postgres", "command", "files"]


def test_a_canary_of_files_that_is_missing(drills: Drills, made: Sets) -> None:
    made.alter(drills.set, lambda content: content["sources"][2]["canary"].update(nonce="f" * 32))
    drills.fails("the canary of documents is not the one that was written before")


def test_an_application_that_could_not_log_in(drills: Drills) -> None:
    drills.config["logins"] = [
        {"database": "records", "role": "reader"},
        {"database": "records", "role": "nobody"},
        {"database": "records", "role": "former"},
        {"database": "empty", "role": "registry"},
    ]
    drills.fails(
        'records: the role reader cannot log in and read: .*permission denied for database "records"',
        "records: the role nobody is not there",
        "records: the role former may not log in any more: its password has expired",
        "empty: the role registry logs in, and may read no table",
    )


def test_sets_that_are_not_good(drills: Drills, made: Sets) -> None:
    drills.config["late_hours"] = 0.5
    drills.fails(r"is the newest set that can be restored, and it is 1 hours old")
    drills.config["late_hours"] = 26
    good = drills.set.name
    # What came after it is no set to restore from, and says so itself.
    later = made.sets.parent / "later"
    shutil.copytree(drills.set, later)
    begin = time.time() - 60
    new = drills.sets / form.new_set_id(begin)
    shutil.move(later, new)
    changes = {"begin": form.format_time(begin), "end": form.format_time(begin), "set": new.name}
    made.alter(new, lambda content: content.update({**changes, "complete": False, "failures": ["files x failed"]}))
    report = drills.good()
    assert report["set"] == good
    assert report["warnings"][0] == f"the newer set {new.name} is passed over, as it is not good: files x failed"
    shutil.rmtree(drills.sets / good)
    drills.fails("there is no good set of records1; there are 1 in all")


def test_environments(drills: Drills) -> None:
    drills.config["environment"] = "backup"
    drills.fails(r"nothing is ever restored into 'backup' \(.*\)\. Restore into staging\.")
    drills.config["environment"] = "development"
    drills.fails("'production' holds personal data and 'development' may not")
    drills.config["environment"] = "x"
    drills.fails("nobody knows the kind of environment 'x'")


def test_too_little_space(drills: Drills) -> None:
    """Refused before anything is restored."""
    disk = os.statvfs(drills.base)
    drills.config["minimum_free_bytes"] = disk.f_bavail * disk.f_frsize
    report = drills.fails(r"there is too little space at .*/work: \d+ bytes are needed, \d+ are free, and \d+ stay so")
    assert report["seconds"]["restore"] == report["seconds"]["verify"] == 0 and report["sources"] == []


@pytest.mark.skipif(not ROOT, reason="only root mounts")
def test_a_disk_that_gets_full(drills: Drills, made: Sets) -> None:
    """While it restores: the manifest says that less is needed."""

    def change(content: dict[str, Any]) -> None:
        content["sources"] = [one for one in content["sources"] if one["kind"] == "files"]
        named = content["sources"][0]["members"]
        content["members"] = [one for one in content["members"] if one["name"] in named]
        content["sources"][0]["bytes"] = 10_000

    made.alter(drills.set, change)
    drills.directory.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=0711", "none", str(drills.directory)], check=True)
    try:
        drills.fails("files documents: .*No space left on device")
    finally:
        subprocess.run(["umount", str(drills.directory)], check=True)


def test_a_server_that_is_not_installed(drills: Drills) -> None:
    drills.config["programs"] = "/nowhere/{major}/bin"
    drills.fails(f"postgres main: no server of PostgreSQL {MAJOR} or later is installed here; install postgresql-{MAJOR}")
    drills.config["programs"] = "/usr/lib/postgresql/{major}/bin"
    drills.config["settings"] = {"shared_preload_libraries": "none_such"}
    drills.fails('postgres main: pg_ctl ended with 1: .*could not access file "none_such"')


@pytest.mark.skipif(not ROOT, reason="only root becomes others")
def test_a_server_for_nobody_else(drills: Drills) -> None:
    """It listens to no network, and others of the host do not reach it; afterwards another one can take its place."""
    directory = drills.base / "server"
    instance = instances.Instance(str(directory), "/usr/lib/postgresql/{major}/bin", Cluster.via, {})
    for _number in range(2):
        assert instance.start(9) == min(int(path.parts[-3]) for path in VERSIONS)
        with postgres.open_session(instance.server("x"), "postgres") as session:
            (found,) = session.all("SELECT json_build_object('addresses', current_setting('listen_addresses'));")
        assert found == {"addresses": ""}
        psql = ["psql", "-X", "-h", str(directory), "-U", "postgres", "-c", "SELECT 1"]
        done = subprocess.run(["runuser", "-u", "nobody", "--", *psql], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode != 0 and "Permission denied" in done.stderr
        instance.stop()
        assert not directory.exists()


# --- what is ended by force


def test_files_for_nobody_else(drills: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners are numbers of another host; here they are other people."""
    seen = []
    real = run.trees.check

    def check(path: str, wanted: Any) -> list[str]:
        seen.append([parent.stat().st_mode & 0o077 for parent in Path(path).parents if drills.directory in parent.parents])
        return real(path, wanted)

    monkeypatch.setattr(run.trees, "check", check)
    drills.command()
    config = drilling.read_config(str(drills.base / "drill.json"))
    drills.directory.mkdir(mode=0o711, exist_ok=True)
    assert run.Drill(config, config.origins[0], lambda _severity, _line: None).run().problems == []
    assert [0 in modes for modes in seen] == [True]


def started(drills: Drills) -> subprocess.Popen[str]:
    """A drill that is just restoring a database."""
    flag = drills.base / "there"
    drills.config["anonymise"] = ["sh", "-c", f"touch {flag}; while test -S $PGHOST/.s.PGSQL.5432; do sleep 0.1; done"]
    if ROOT:
        drills.base.chmod(0o777)
    process = subprocess.Popen(drills.command("run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not flag.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    drills.config["anonymise"] = []
    return process


def test_a_drill_that_was_killed(drills: Drills) -> None:
    """The next one removes what it has left, or whoever cleans up before; and it is told that it came to nothing."""
    process = started(drills)
    assert drills.metric("civitas_drill_running") == 1
    second = drills.run()
    assert second.returncode == 1 and "another run lasts" in second.stderr
    process.kill()
    process.communicate()
    assert any("postgres" in line for line in drills.left())
    done = drills.run("clean")
    assert (done.returncode, drills.left()) == (0, []), done
    assert "what an earlier drill has left behind is removed" in done.stderr
    assert "records1: the restore drill FAILED: the drill was ended by force" in done.stderr
    assert drills.metric("civitas_drill_failed") == 1 and drills.metric("civitas_drill_running") == 0
    assert drills.run("clean").stderr == ""
    started(drills).kill()
    drills.good()


def test_a_drill_that_is_ended(drills: Drills) -> None:
    process = started(drills)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and drills.left() == []
    assert drills.run("clean").returncode == 0 and drills.metric("civitas_drill_failed") == 1


def test_a_server_whose_host_was_restarted(drills: Drills) -> None:
    """Its files are there, its process is not."""
    process = started(drills)
    number = (drills.directory / "work/postgres/data/postmaster.pid").read_text().split()[0]
    process.kill()
    process.communicate()
    os.kill(int(number), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{number}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    done = drills.run("clean")
    assert (done.returncode, drills.left()) == (0, []), done


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origins": [{"host": "../x"}]}, "KeyError"),
        ({"keep_reports": "many"}, "ValueError"),
        ({"origins": 2 * [{"host": "a", "signers": [], "identity": "/x"}]}, "'a' is no name of a host, or is there twice"),
    ],
)
def test_configurations_that_are_none(drills: Drills, change: dict[str, Any], message: str) -> None:
    assert drills.run("check").returncode == 0
    drills.config.update(change)
    done = drills.run("check")
    assert done.returncode == 1 and message in done.stderr and "run the site playbook" in done.stderr
    with pytest.raises(drilling.ConfigError, match=message):
        drilling.read_config(str(drills.base / "drill.json"))
