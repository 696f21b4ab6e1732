# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may empty data, and what must be typed."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._reset_preflight import plan, problems

TODAY = datetime.date(2026, 11, 22)
DATA = {"databases": [{"name": "records", "keep": ["public.schema_migrations"]}], "trees": [], "projects": ["records"]}

NOTHING: dict[str, Any] = {"databases": [], "backups": [], "writers": []}
DECLARED: dict[str, Any] = {
    "databases": [{"name": "records", "owner": "registry", "keep": ["public.metadata"]}, {"name": "search", "owner": "registry"}],
    "backups": [
        {"name": "settings", "type": "files", "path": "/etc/civitas", "restore": "side"},
        {"name": "main", "type": "postgres", "port": 5433, "databases": ["records", "search"]},
        {"name": "documents", "type": "files", "path": "/srv/records/documents"},
        {"name": "index", "type": "command", "run": ["export"]},
    ],
    "writers": [{"name": "records", "units": [], "projects": ["records"]}],
}


def found(**changes: Any) -> list[str]:
    config = {
        "environment": "qa",
        "domain": "example.org",
        "confirm": "example.org",
        "going_live": "",
        "data": DATA,
        "declared": NOTHING,
        **changes,
    }
    return problems(config, TODAY)


def test_what_is_typed_rightly_passes() -> None:
    assert found() == []
    assert found(environment="staging") == []
    assert found(environment="production", going_live="2026-11-22") == []


@pytest.mark.parametrize("confirm", ["", None, "example.com", "yes", "example.org "])
def test_the_domain_must_be_typed(confirm: Any) -> None:
    (said,) = found(confirm=confirm)
    assert said == "All data of example.org would be removed. When that is meant, write -e reset_data_confirm=example.org."


def test_a_site_without_a_name_is_never_emptied() -> None:
    assert "nobody can say which site" in found(domain="", confirm="")[0]


def test_production_is_emptied_on_the_day_it_goes_live_only() -> None:
    for day in ("", "2026-11-21", "2026-11-23", "true"):
        said = found(environment="production", going_live=day)
        assert "live personal data" in said[0] and "-e reset_data_going_live=2026-11-22" in said[1]


@pytest.mark.parametrize("kind", ["test", "", None, "Production"])
def test_an_environment_that_nobody_knows(kind: Any) -> None:
    assert "write one of production" in found(environment=kind)[0]


def test_other_kinds_do_not_go_live() -> None:
    assert "for production only" in found(going_live="2026-11-22")[0]


def test_a_backup_host_is_never_emptied() -> None:
    (said,) = found(environment="backup")
    assert "never reset" in said


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "No role declares a database or a directory"),
        (None, "reset_data is nothing; write a mapping"),
        ([DATA], "reset_data is a list; write a mapping"),
        ({**DATA, "index": []}, "has index, which nobody knows"),
        ({**DATA, "projects": []}, "No role declares what writes"),
        ({**DATA, "databases": [{"name": "records"}]}, "records has no keep"),
        ({**DATA, "databases": [{"name": "records", "keep": ["schema_migrations"]}]}, "write each as schema.table"),
    ],
)
def test_what_is_emptied_must_be_said(data: Any, message: str) -> None:
    (said,) = found(data=data)
    assert message in said


def test_what_roles_declare_is_emptied_and_nothing_that_a_restore_puts_to_the_side() -> None:
    assert plan({}, DECLARED) == {
        "databases": [
            {"name": "records", "port": 5433, "keep": ["public.metadata"]},
            {"name": "search", "port": 5433, "keep": None},
        ],
        "trees": [{"path": "/srv/records/documents", "keep": []}],
        "commands": [],
        "units": [],
        "projects": ["records"],
    }
    # Of one nobody has said what stays.
    (said,) = found(data={}, declared=DECLARED)
    assert "reset_data.databases: search has no keep" in said


def test_the_inventory_adds_and_keeps() -> None:
    written: dict[str, Any] = {
        "databases": [{"name": "search", "keep": []}, {"name": "records", "keep": ["public.places"]}, {"name": "own", "keep": ["a.b"]}],
        "trees": [{"path": "/srv/records/documents", "keep": ["templates"]}, {"path": "/srv/spool"}],
        "commands": [{"name": "the index", "run": ["empty"]}],
        "units": ["records.service"],
        "projects": ["records", "other"],
    }
    assert found(data=written, declared=DECLARED) == []
    assert plan(written, DECLARED) == {
        "databases": [
            {"name": "records", "port": 5433, "keep": ["public.metadata", "public.places"]},
            {"name": "search", "port": 5433, "keep": []},
            {"name": "own", "port": 5432, "keep": ["a.b"]},
        ],
        "trees": [{"path": "/srv/records/documents", "keep": ["templates"]}, {"path": "/srv/spool", "keep": []}],
        "commands": [{"name": "the index", "run": ["empty"]}],
        "units": ["records.service"],
        "projects": ["records", "other"],
    }
