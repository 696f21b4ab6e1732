# SPDX-License-Identifier: GPL-3.0-or-later
"""Databases of a real server and trees are emptied, whole or not at all; what is to stay stays."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _reset_run as runs
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import parse_time
from ansible_collections.civitas.hosting.plugins.module_utils._reset_data import (
    Database,
    ResetError,
    Tree,
    count_files,
    count_rows,
    empty_database,
    empty_tree,
)
from ansible_collections.civitas.hosting.plugins.module_utils._restore_writers import Writers

from tests.unit.postgres_servers import Cluster, needs_postgres, running_cluster

pytestmark = needs_postgres


@pytest.fixture(scope="module", name="cluster")
def _cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(name="database")
def _database(cluster: Cluster) -> Iterator[Database]:
    cluster.sql("postgres", 'CREATE DATABASE "test data"')
    cluster.sql(
        "test data",
        """CREATE TABLE schema_migrations (version text); INSERT INTO schema_migrations VALUES ('1'), ('2');
        CREATE TABLE people (id serial PRIMARY KEY, name text); INSERT INTO people (name) SELECT 'x' FROM generate_series(1, 50);
        CREATE TABLE "Odd's ""Table" (person int REFERENCES people); INSERT INTO "Odd's ""Table" VALUES (1);
        CREATE TABLE parts (d int) PARTITION BY RANGE (d); CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        INSERT INTO parts VALUES (5), (6); CREATE MATERIALIZED VIEW names AS SELECT name FROM people; SELECT lo_create(0);
        CREATE SCHEMA civitas_backup; CREATE TABLE civitas_backup.canary (nonce text); INSERT INTO civitas_backup.canary VALUES ('n');
        CREATE EXTENSION earthdistance CASCADE;""",
    )
    yield Database("test data", ("public.schema_migrations",), cluster.port, str(cluster.base), Cluster.via)
    cluster.sql("postgres", 'DROP DATABASE "test data" WITH (FORCE)')


def test_tables_are_emptied_and_what_is_kept_stays(cluster: Cluster, database: Database) -> None:
    before = count_rows(database)
    assert before.left == 54 and before.keep == {"civitas_backup.canary": 1, "public.schema_migrations": 2}
    empty_database(database)
    after = count_rows(database)
    assert (after.left, after.keep) == (0, before.keep) and set(after.empty) == set(before.empty)
    assert cluster.sql("test data", "SELECT count(*) FROM names") == "0"
    # Numbers begin anew, and the schema is as it was.
    assert cluster.sql("test data", "INSERT INTO people (name) VALUES ('first') RETURNING id") == "1"
    empty_database(database)
    assert count_rows(database).left == 0


def test_functions_of_somebody_else_are_not_called(cluster: Cluster, database: Database) -> None:
    """Who may write into the schema public could name one as what this asks for, and the superuser would run it."""
    cluster.sql(
        "test data",
        "CREATE TABLE seized (x int); CREATE FUNCTION format(text, name, name) RETURNS text LANGUAGE sql AS"
        " $$ INSERT INTO public.seized VALUES (1); SELECT pg_catalog.format($1, $2, $3) $$",
    )
    assert count_rows(database).empty["public.seized"] == 0


def test_what_is_not_clear_is_refused_before_anything_is_emptied(cluster: Cluster, database: Database) -> None:
    with pytest.raises(ResetError, match=r"has no table public\.schema_migration"):
        empty_database(database._replace(keep=("public.schema_migration",)))
    with pytest.raises(ResetError, match=r"Table is kept and refers to public\.people"):
        empty_database(database._replace(keep=("public.Odd*",)))
    with pytest.raises(ResetError, match="does not exist"):
        empty_database(database._replace(name="absent"))
    assert count_rows(database).left == 54


def test_all_or_nothing(cluster: Cluster, database: Database) -> None:
    cluster.sql(
        "test data",
        """CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER no BEFORE TRUNCATE ON part1 EXECUTE FUNCTION no()""",
    )
    with pytest.raises(ResetError, match="no"):
        empty_database(database)
    assert count_rows(database).left == 54


def test_a_trigger_of_somebody_else_is_not_run(cluster: Cluster, database: Database) -> None:
    """It would be run by a superuser, as one."""
    cluster.sql("postgres", "CREATE ROLE registrar")
    try:
        cluster.sql(
            "test data",
            """CREATE TABLE seized (x int); CREATE FUNCTION seize() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.seized VALUES (1); RETURN NULL; END $$; ALTER FUNCTION seize() OWNER TO registrar;
            CREATE TRIGGER seize AFTER TRUNCATE ON people EXECUTE FUNCTION seize(); ALTER TABLE people ENABLE ALWAYS TRIGGER seize""",
        )
        with pytest.raises(ResetError, match=r"the trigger seize of public\.people would run with the rights of a superuser; turn it off"):
            empty_database(database)
        assert count_rows(database).left == 54
        cluster.sql("test data", "ALTER TABLE people DISABLE TRIGGER seize")
        empty_database(database)
        assert count_rows(database).left == 0
    finally:
        cluster.sql("test data", "DROP FUNCTION seize CASCADE")
        cluster.sql("postgres", "DROP ROLE registrar")


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Tree:
    for path in ("2026/a/scan", "2026/b", "keep/seed", ".civitas-canary", "-rf"):
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / path).write_text("x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (tmp_path / "data/link").symlink_to(outside)
    return Tree(str(tmp_path / "data"), ("keep",))


def test_a_tree_is_emptied_and_no_link_is_followed(tree: Tree, tmp_path: Path) -> None:
    found = count_files(tree)
    assert (found.remove, found.keep) == (4, 2)
    empty_tree(tree)
    assert sorted(os.listdir(tree.path)) == [".civitas-canary", "keep"] and (tmp_path / "outside/file").exists()
    empty_tree(tree)


@pytest.mark.parametrize("path", ["/", "/srv", "srv/records", "/srv/..", "/srv/records/../.."])
def test_what_is_no_directory_of_data(path: str) -> None:
    with pytest.raises(ResetError, match="no directory of data"):
        count_files(Tree(path))


def test_trees_that_are_not_clear(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(ResetError, match="nothing called seeds"):
        empty_tree(tree._replace(keep=("seeds",)))
    with pytest.raises(ResetError, match="No such file"):
        empty_tree(Tree(str(tmp_path / "absent")))
    (tmp_path / "aside").symlink_to(tree.path)
    with pytest.raises(ResetError, match="is no directory"):
        empty_tree(Tree(str(tmp_path / "aside")))
    assert (Path(tree.path) / "2026/b").exists()


# --- a whole reset


class Desk:
    """A reset whose last backup and writers are programs of the test."""

    def __init__(self, base: Path, plan: runs.Plan) -> None:
        self.base, self.plan = base, plan
        self.said = base / "said"
        self.said.write_text("")

    def program(self, name: str, text: str) -> None:
        path = self.base / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def calls(self) -> list[str]:
        found = self.said.read_text().splitlines()
        self.said.write_text("")
        return found

    def reset(self, change: bool = True, **changes: Any) -> dict[str, Any]:
        return runs.reset(self.plan._replace(**changes), change)


@pytest.fixture(name="desk")
def _desk(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    (tmp_path / "backup.json").write_text("{}")
    plan = runs.Plan(
        [], [tree], [("the index", ["index", "clear"])], Writers(("records.service",)), (),
        record=str(tmp_path / "var/reset.json"), backup=str(tmp_path / "backup.json"),
    )  # fmt: skip
    desk = Desk(tmp_path, plan)
    # A unit that runs until it is stopped.
    desk.program(
        "systemctl",
        f'echo "systemctl $*" >> {desk.said}\ncase $1 in show) cat {tmp_path}/state;; stop) echo inactive > {tmp_path}/state;;\n'
        f"start) [ ! -e {tmp_path}/broken ] || exit 1; echo active > {tmp_path}/state;; esac",
    )
    desk.program("index", f'echo "index $*" >> {desk.said}; [ ! -e {tmp_path}/index-broken ]')
    (tmp_path / "state").write_text("active\n")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(runs, "clean", lambda known, change: [])
    return desk


def test_a_reset_in_its_order(desk: Desk) -> None:
    looked = desk.reset(change=False)
    assert looked["changed"] and looked["after"] == looked["before"] and desk.calls() == []
    assert "would be made" in looked["backup"] and looked["emptied"] == ""
    begin = int(time.time())
    report = desk.reset()
    assert begin <= parse_time(report["emptied"]) <= time.time()
    assert [line.split(" --")[0] for line in desk.calls()] == [
        "systemctl show -P ActiveState civitas-backup.service",
        "systemctl start civitas-backup.service",
        "systemctl show",
        "systemctl stop",
        "systemctl show",
        "systemctl start",
        "index clear",
    ]
    path = desk.plan.trees[0].path
    assert (report["before"]["trees"][path]["files"], report["after"]["trees"][path]["files"]) == (4, 0)
    assert json.loads((desk.base / "var/reset.json").read_text())["pending"] is False
    again = desk.reset()
    # What was backed up before then is still to be forgotten, whenever it is asked.
    assert again["emptied"] == report["emptied"]
    assert not again["changed"] and desk.calls() == []


def test_without_a_last_backup_nothing_is_emptied(desk: Desk) -> None:
    (desk.base / "broken").touch()
    with pytest.raises(ResetError, match="nothing was emptied, as the last backup"):
        desk.reset()
    assert os.path.exists(f"{desk.plan.trees[0].path}/2026/b") and not (desk.base / "var/reset.json").exists()
    (desk.base / "backup.json").unlink()
    (desk.base / "broken").unlink()
    assert "the host has none" in desk.reset()["backup"]


def test_a_backup_that_is_under_way_is_not_the_last_one(desk: Desk) -> None:
    (desk.base / "state").write_text("activating\n")
    desk.reset()
    assert desk.calls()[:3] == [
        "systemctl show -P ActiveState civitas-backup.service",
        "systemctl start civitas-backup.service",
        "systemctl start civitas-backup.service",
    ]


def test_after_an_interruption_it_goes_on(desk: Desk) -> None:
    (desk.base / "index-broken").touch()
    with pytest.raises(ResetError, match="the index ended with 1"):
        desk.reset()
    assert (desk.base / "state").read_text() == "active\n"
    (desk.base / "index-broken").unlink()
    desk.calls()
    assert desk.reset()["changed"] and desk.calls()[-1] == "index clear"
    assert not desk.reset()["changed"]


def test_a_host_that_went_live_is_never_emptied_again(desk: Desk) -> None:
    desk.reset(going_live="2026-11-22")
    assert not desk.reset(going_live="")["changed"]
    (Path(desk.plan.trees[0].path) / "a record").write_text("of a person")
    # On the day itself it may hold people's records, too.
    for day in ("", "2026-11-23", "2026-11-22"):
        with pytest.raises(ResetError, match="going live on 2026-11-22"):
            desk.reset(going_live=day)
    (desk.base / "var/reset.json").write_text("{")
    with pytest.raises(ResetError, match="cannot be read"):
        desk.reset(going_live="2026-11-23")
    assert (Path(desk.plan.trees[0].path) / "a record").exists()
