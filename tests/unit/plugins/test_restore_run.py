# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole restores into a real server and real trees: what is refused leaves everything as it was, and so does what is cut off anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_run as backups
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_program as restore_program
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_run as restoring

from tests.unit.backup_sets import age_key, flip, listing, ssh_key
from tests.unit.backup_sites import COLLECTIONS, MODULES, Site
from tests.unit.backup_sites import needs_programs as needs_store
from tests.unit.postgres_servers import Cluster, needs_postgres, running_cluster
from tests.unit.restore_setting import Made, Setting, damaged, found, good, made_in

pytestmark = needs_postgres


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


# --- it works


def test_a_restore_over_live_data(host: Setting, made: Made) -> None:
    before = host.state()
    host.restore()
    assert found(host) == good(made)
    assert host.cluster.sql("records", "SELECT tableowner FROM pg_tables WHERE tablename = 'births'") == "registrar"
    status = host.status()
    assert status["phase"] == "restored" and status["waits"]
    report = status["last"]["report"]
    assert 0 < report["down_seconds"] < report["recovery_seconds"] < 60 and report["recovery_point_seconds"] >= 0
    log = (host.base / "units/log").read_text()
    assert log.index("stop -- app.service") < log.index("start -- app.service") and "start -- other.service" not in log
    # What was there is kept, nobody gets into it, and what is not put in place lies to the side.
    (side,) = (host.base / "var/restore/side").iterdir()
    assert (side / "files-settings/secrets").read_text() == "a secret" and (side / "command-list").read_text() == "a list\n"
    assert (host.settings / "secrets").read_text() == "a secret" and listing(host.settings) == before["settings"]
    assert listing(next(host.data.parent.glob("data.civitas-before-*"))) == before["data"][1]
    kept = f"civitas_before_{status['last']['when']}_records"
    assert f"{kept} " in host.state()["databases"] and host.cluster.sql(
        "postgres", "SELECT rolname FROM pg_roles WHERE rolname = 'registrar'"
    )
    # Until somebody says whether it is good, there is no other one.
    done = host.restore(check=False)
    assert "is not finished, its phase is 'restored'" in done.stderr
    host.run("accept")
    assert host.status()["phase"] == "accepted" and not host.status()["waits"]
    assert "keeps civitas_before_" in host.run("status").stdout
    host.run("forget", "due")
    assert host.status()["kept"] == [status["last"]["when"]]
    host.run("forget", status["last"]["when"])
    assert host.status()["kept"] == [] and host.state()["beside"] == ["data"] and "civitas_" not in host.state()["databases"]
    assert list((host.base / "var/restore/side").iterdir()) == []
    assert found(host) == good(made)


def test_it_is_undone_and_nothing_is_lost(host: Setting, made: Made) -> None:
    before = host.state()
    host.restore()
    host.run("accept")
    host.cluster.sql("records", "INSERT INTO births VALUES (9999, 'written after the restore')")
    (host.data / "after").write_text("written after the restore")
    host.run("undo")
    after = host.state()
    assert {key: after[key] for key in ("records", "second", "data", "units")} == {
        key: before[key] for key in ("records", "second", "data", "units")
    }
    when = host.status()["last"]["when"]
    # What was entered meanwhile is beside it.
    kept = f"civitas_undone_{when}_records"
    assert kept in after["databases"] and (host.data.parent / f"data.civitas-undone-{when}/after").exists()
    assert "there is nothing to undo" in host.run("undo", check=False).stderr
    # A backup does not count any of it as data that nobody has declared.
    host.backup()
    host.run("forget", "all")
    assert "civitas_" not in host.state()["databases"] and host.state()["beside"] == ["data"]


def test_what_is_half_forgotten_is_not_undone(host: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old databases are gone, and the old tree is there: together they are nothing that ever was."""

    def fails(*_arguments: object) -> None:
        raise OSError("the disk does not answer")

    host.restore()
    host.run("accept")
    with monkeypatch.context() as patch:
        patch.setattr(restoring.trees, "drop", fails)
        with pytest.raises(restoring.RestoreFailed, match="the disk does not answer"):
            restoring.Restore(restore_program.read_config(str(host.base / "restore.json")), lambda _severity, _line: None).forget("all")
    before = host.state()
    assert "is removed, or a part of it" in host.run("undo", check=False).stderr and host.state() == before
    host.run("forget", "all")
    assert host.state()["beside"] == ["data"]


def test_to_a_fresh_host(host: Setting, made: Made) -> None:
    """Its databases are empty, its tree is not there, and nobody has to confirm anything."""
    for name in ("records", "second"):
        host.cluster.sql(name, "DROP SCHEMA public CASCADE; DROP SCHEMA IF EXISTS civitas_backup CASCADE; CREATE SCHEMA public")
    host.cluster.sql("postgres", "DROP DATABASE second")
    host.cluster.sql("postgres", "ALTER ROLE registrar PASSWORD 'of this host'")
    password = "SELECT rolpassword FROM pg_authid WHERE rolname = 'registrar'"
    here = host.cluster.sql("postgres", password)
    shutil.rmtree(host.data)
    host.restore(confirm="")
    assert found(host) == good(made) and host.cluster.sql("postgres", password) == here
    host.run("undo")
    assert not host.data.exists() and "second " not in host.cluster.sql(
        "postgres", "SELECT string_agg(datname || ' ', '') FROM pg_database"
    )


def test_parts_of_a_set(host: Setting, made: Made) -> None:
    before = found(host)
    host.restore(only=["postgres/main/records"])
    assert found(host) == {**before, "records": good(made)["records"]}
    host.run("accept")
    host.restore(only=["files/data"])
    assert found(host) == {**good(made), "second": before["second"]}
    host.run("accept")
    before = found(host)
    host.restore(only=["command/list", "files/settings"], confirm="")
    assert found(host) == before
    assert sorted(path.name for path in Path(host.status()["last"]["sides"][0]).parent.iterdir()) == ["command-list", "files-settings"]


# --- it is refused


def test_refusals(host: Setting, made: Made, tmp_path: Path) -> None:
    _setting, directory, _state = made
    host.refuses("the database records, the database second would be replaced", confirm="records1", only=["postgres/main"])
    host.refuses(f"the tree {host.data}", confirm="")
    host.refuses("has no 'files/none'; it has", only=["files/none"])
    host.refuses("the signature of the manifest is not records1's", signers=[ssh_key(tmp_path / "thief")])
    host.refuses("there is no good set of records1 that is not later than 2020", before="2020-01-01T00:00:00Z")
    host.refuses("there is no set '20200101T000000Z-000000000000' of records1", wanted="20200101T000000Z-000000000000")
    age_key(tmp_path / "wrong")
    host.key, kept = tmp_path / "wrong", host.key
    host.refuses("is not encrypted to this key; take the private key of one of its recipients")
    host.key = kept
    member = next(directory.glob("db-main-second*"))
    whole = member.read_bytes()
    try:
        flip(member)
        host.refuses("was altered: its size is right")
        member.unlink()
        host.refuses(f"{member.name} is missing", only=["files/data"])
    finally:
        member.write_bytes(whole)
    host.config["minimum_free_bytes"] = shutil.disk_usage(host.data).free - 10_000
    host.refuses("there is too little space at")
    host.config["minimum_free_bytes"] = 0
    for here, words in (
        ("qa", "'production' holds personal data and 'qa' may not"),
        ("backup", "nothing is ever restored into 'backup'"),
        ("x", "nobody knows the kind of environment 'x'"),
    ):
        host.config["environment"] = here
        host.refuses(words)
    host.config["environment"] = "production"
    host.config["files"] = []
    host.refuses("this host declares no tree 'data'")
    # After all of them it goes.
    host.config["files"] = [{"name": "data", "path": str(host.data)}, {"name": "settings", "path": str(host.settings), "side": True}]
    host.restore()
    assert found(host) == good(made)


def test_sets_that_are_refused(host: Setting, made: Made) -> None:
    incomplete = host.backup(failures=("files data failed",))
    # The newest one that is good is taken, and that is told.
    host.restore()
    assert host.status()["last"]["set"] == made[1].name and incomplete.name in host.status()["last"]["warnings"][0]
    host.run("undo")
    host.run("forget", "all")
    host.refuses("is not complete (files data failed)", wanted=incomplete.name)
    host.refuses("'production' is never restored from 'qa'", wanted=host.backup(environment="qa").name)
    newer = host.backup()
    raw = json.loads((newer / form.MANIFEST).read_text())
    raw["sources"][0]["version"] = 990000
    (newer / form.MANIFEST).write_bytes(form.encode(raw))
    (newer / form.SIGNATURE).write_bytes(form.sign(form.encode(raw), str(host.base / "sign")))
    host.refuses("the databases are of PostgreSQL 99, and the server here has version", wanted=newer.name)
    before = host.state()
    host.restore(wanted=incomplete.name, incomplete=True)
    after = host.state()
    assert (after["records"], after["second"]) == (before["records"], before["second"])
    assert after["data"][1]["new"] == before["data"][1]["new"]


def test_the_newest_set_is_of_an_empty_host(host: Setting) -> None:
    """As the first night after a host was built anew makes it, when nobody has restored yet."""
    (host.data / "scan").write_bytes(os.urandom(200_000))
    full = host.backup(later=1)
    (host.data / "scan").unlink()
    empty = host.backup(later=2)
    host.refuses(f"it may be of a host that was empty; name the set that is wanted, such as {full.name}, or this one")
    host.restore(wanted=empty.name)


def test_one_at_a_time(host: Setting) -> None:
    with backups.lock(host.config["backup_directory"]):
        host.plan()
        done = host.run(*host.plan(), check=False)
        assert done.returncode == 1 and "a backup or a restore is at work" in done.stderr
    assert host.status()["last"] is None


# --- it fails


def test_what_does_not_hold_what_the_set_says(host: Setting, made: Made) -> None:
    """A signed manifest that is wrong: it is seen beside the data, before anything stands still."""
    newer = host.backup()
    raw = json.loads((newer / form.MANIFEST).read_text())
    raw["sources"][0]["databases"][1]["rows"]["public.t"] = 7
    (newer / form.MANIFEST).write_bytes(form.encode(raw))
    (newer / form.SIGNATURE).write_bytes(form.sign(form.encode(raw), str(host.base / "sign")))
    host.refuses("the table public.t has 2 rows, and the set says 7; nothing was touched")
    assert not (host.base / "units/log").exists()


def test_every_member_is_read_before_anything_is_made(host: Setting) -> None:
    """Also those of which nothing is wanted: a set that lies in one place is not to be trusted in another."""
    newer = host.backup()
    raw = json.loads((newer / form.MANIFEST).read_text())
    (member,) = [one for one in raw["members"] if one["name"].startswith("command-")]
    member["plain_bytes"] += 1
    (newer / form.MANIFEST).write_bytes(form.encode(raw))
    (newer / form.SIGNATURE).write_bytes(form.sign(form.encode(raw), str(host.base / "sign")))
    host.refuses("its content is not what the manifest says", only=["files/data"])
    assert "preparing" not in host.status()["last"]["times"]


def test_a_writer_that_does_not_start(host: Setting) -> None:
    before = host.state()
    (host.base / "units/app.service.broken").touch()
    done = host.restore(check=False)
    assert "app.service is broken" in done.stderr and "the old state is NOT back" in done.stderr
    assert host.status()["phase"] == "returned" and host.status()["waits"]
    (host.base / "units/app.service.broken").unlink()
    host.run("undo")
    after = host.state()
    assert {key: after[key] for key in ("records", "second", "data", "units")} == {
        key: before[key] for key in ("records", "second", "data", "units")
    }


KILLED = f"""
import os, signal, sys
sys.path.insert(0, {str(COLLECTIONS)!r})
from {MODULES} import _restore_program as program, _restore_run as restoring, _restore_databases as data, _restore_writers as writing
steps, at = 0, int(sys.argv.pop(3))
def wrap(module, name):
    real = getattr(module, name)
    def step(*arguments, **named):
        global steps
        steps += 1
        known = restoring.journals(program.read_config(sys.argv[2]))
        print("step", known[-1].phase if known else "-", file=sys.stderr)
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(module, name, step)
for module, name in ((os, "rename"), (os, "unlink"), (data, "_together"), (data, "_clear"), (writing, "stop"), (writing, "start")):
    wrap(module, name)
sys.exit(program.main(sys.argv[1:]))
"""


def killed(host: Setting, number: int) -> subprocess.CompletedProcess[str]:
    """A restore that is killed before the step with this number."""
    words = host.plan(only=["postgres/main/second", "files/data"])
    return host.run(str(number), *words, code=KILLED, check=False)


def test_it_is_killed_at_any_step(host: Setting, made: Made) -> None:
    """Nobody stops it in time, and a machine that loses its power is not asked: whatever is on the disk then leads back, and forward."""
    before = host.state()
    wanted = {**found(host), "second": good(made)["second"], "data": good(made)["data"]}
    done = killed(host, 999)
    assert done.returncode == 0 and found(host) == wanted, done.stderr
    steps = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("step ")]
    host.run("undo")
    host.run("forget", "all")
    assert host.state() == before
    # The last of each phase, and all while data are swapped.
    chosen = {len(steps) - 1 - steps[::-1].index(phase) for phase in set(steps)}
    chosen |= {number for number, phase in enumerate(steps) if phase == "swapping"}
    assert {steps[number] for number in chosen} >= {"proving", "preparing", "stopping", "swapping", "checking", "starting"}, steps
    for number in sorted(chosen):
        shutil.rmtree(host.base / "var/restore")
        assert killed(host, number + 1).returncode == -signal.SIGKILL
        phase = host.status()["phase"]
        if number % 2 and phase in (restoring.STOPPING, restoring.SWAPPING, restoring.CHECKING, restoring.STARTING):
            host.run("resume")
            assert found(host) == wanted and host.status()["phase"] == restoring.RESTORED
        if host.status()["phase"] == restoring.RESTORED:
            host.run("undo")
        else:
            # Where data may be half swapped, they are back before anything writes.
            touched = phase not in ("", restoring.FETCHING, restoring.PROVING, restoring.PREPARING)
            assert host.boot() == (restoring.RETURNED if touched else phase)
        host.run("forget", "all")
        assert host.state() == before, (number, phase)


CUT_OFF = f"""
import os, signal, sys
sys.path.insert(0, {str(COLLECTIONS)!r})
from {MODULES} import _restore_program as program, _restore_trees as trees
trees.check = lambda path, sample: [] if "restore" in os.path.basename(path) else os.kill(os.getpid(), signal.SIGKILL)
sys.exit(program.main(sys.argv[1:]))
"""


def cut_off(host: Setting) -> None:
    """A restore that loses its power when all is swapped, and nothing was looked at."""
    assert host.run(*host.plan(), code=CUT_OFF, check=False).returncode == -signal.SIGKILL
    assert host.status()["phase"] == restoring.CHECKING


def test_a_start_before_the_data_are_there(host: Setting) -> None:
    """As on a volume that people unlock: it fails, what writes waits, and the next one takes all of it back."""
    before, place = host.state(), host.data.parent
    cut_off(host)
    place.rename(place.with_name("locked"))
    place.mkdir()
    try:
        done = host.run("settle", "--boot", check=False)
        assert done.returncode == 1 and "mount the disk on which it lies" in done.stderr
        # The other part is asked for nothing, and nothing runs.
        assert not (host.base / "units/civitas-restore-finish.service").exists() and not (host.base / "units/app.service").exists()
    finally:
        place.rmdir()
        place.with_name("locked").rename(place)
    assert "start -- postgresql.service" in (host.base / "units/log").read_text().splitlines()
    host.run("settle", "--boot")
    assert host.status()["phase"] == restoring.RETURNED and not (host.base / "units/app.service").exists()
    # Once more without power, before what writes runs.
    assert host.boot() == restoring.RETURNED
    assert host.state() == before and host.status()["phase"] == restoring.UNDONE
    assert "cut off in the phase 'checking'" in host.status()["last"]["problem"]


def test_who_is_at_work_is_left_alone(host: Setting) -> None:
    """What it starts waits for this program, which must not wait for it; and what is due leaves the lock to who takes back."""
    host.restore()
    host.run("accept")
    (host.base / "var/restore/journal" / "20250101000000.json").write_text(
        json.dumps({**host.status()["last"], "when": "20250101000000", "times": {"accepted": 1.0}, "databases": [], "trees": []})
    )
    cut_off(host)
    before = host.state()
    with backups.lock(host.config["directory"]):
        host.run("settle", "--boot")
        host.run("settle")
        host.run("forget", "due")
    assert host.state() == before and host.status()["phase"] == restoring.CHECKING
    host.run("forget", "due")
    assert "20250101000000" in host.status()["kept"]
    host.run("undo")
    host.run("forget", "due")
    assert "20250101000000" not in host.status()["kept"]


# --- from the store


@needs_store
def test_from_the_store(host: Setting, made: Made, tmp_path: Path) -> None:
    """A host of another name restores what a host has sent, by a grant."""
    site = Site(tmp_path / "site")
    try:
        site.config.update(postgres=[host.server._asdict()], files=[{"name": "data", "path": str(host.data)}])
        site.write()
        site.backup()
        wanted = found(host)
        host.cluster.sql("records", "DROP TABLE births; CREATE TABLE births (id int)")
        shutil.rmtree(host.data / "below")
        host.key = site.identity
        way = {**site.grant(), "tries": 1}
        host.restore(signers=[site.signer], sets="", store=way, all_files=True)
        assert found(host) == wanted and list((host.base / "var/restore/sets").iterdir()) == []
        host.run("accept")
        member = next(site.sets()[0].glob("tree-data-0*"))
        flip(member)
        host.refuses("the store has another tree-data-0", signers=[site.signer], sets="", store=way)
    finally:
        host.key = host.base / "operator.key"
        site.close()
