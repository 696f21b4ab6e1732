# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether data may be emptied: what people have typed, and what the rules of the environment say.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import datetime
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _policy
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

_KEYS = ("databases", "trees", "commands", "units", "projects")


def problems(config: t.Mapping[str, t.Any], today: t.Optional[datetime.date] = None) -> t.List[str]:
    """What is wrong, one sentence each, with what to write.

    Args:
        config: C(environment), C(domain), C(confirm), C(going_live), C(data) and C(declared), as the playbook reset_data has them.
        today: in UTC.
    """
    today = today or datetime.datetime.now(datetime.timezone.utc).date()
    return [line for line in (*_confirmed(config), *_allowed(config, today), *_data(config["data"], config["declared"])) if line]


def plan(written: t.Any, declared: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """What is emptied, and what stands still meanwhile: what roles declare, with what the inventory adds and keeps.

    Databases and directories that a restore puts in their place are data. What it puts to the side, and what only lies on the data volume,
    is not: settings, the server of the databases itself, containers.

    Args:
        written: the variable C(reset_data): C(databases), C(trees), C(commands), C(units), C(projects).
        declared: C(databases), C(backups) and C(writers), lists of items of these kinds of declarations.

    Returns:
        The same keys as C(written); the C(keep) of a database is V(None) where nobody has said what stays.
    """
    written = written if isinstance(written, dict) else {}
    in_place = [one for one in declared["backups"] if one.get("restore", "place") == "place"]
    keeps = {one["name"]: one["keep"] for one in declared["databases"] if "keep" in one}
    databases: t.Dict[str, t.Dict[str, t.Any]] = {}
    for one in in_place:
        for name in one["databases"] if one["type"] == "postgres" else ():
            databases[name] = {"name": name, "port": one["port"], "keep": keeps.get(name)}
    for one in written.get("databases") or []:
        found = databases.setdefault(one["name"], {"name": one["name"], "port": 5432, "keep": None})
        found["port"] = one.get("port", found["port"])
        if one.get("keep") is not None:
            found["keep"] = [*(found["keep"] or []), *one["keep"]]
    trees: t.Dict[str, t.Dict[str, t.Any]] = {}
    for one in (*(one for one in in_place if one["type"] == "files"), *(written.get("trees") or [])):
        keep = trees.get(one["path"], {"keep": []})["keep"]
        trees[one["path"]] = {"path": one["path"], "keep": [*keep, *(one.get("keep") or [])]}
    return {
        "databases": list(databases.values()),
        "trees": list(trees.values()),
        "commands": list(written.get("commands") or []),
        **{
            key: list(dict.fromkeys([*(name for one in declared["writers"] for name in one[key]), *(written.get(key) or [])]))
            for key in ("units", "projects")
        },
    }


def _confirmed(config: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    domain = str(config["domain"] or "")
    if not domain:
        yield "civitas_domain is not set; without it nobody can say which site is meant."
    elif str(config["confirm"] or "") != domain:
        yield f"All data of {domain} would be removed. When that is meant, write -e reset_data_confirm={domain}."


def _allowed(config: t.Mapping[str, t.Any], today: datetime.date) -> t.Iterator[str]:
    kind, day = str(config["environment"] or ""), str(config["going_live"] or "")
    policy = _policy.POLICIES.get(kind)
    if policy is None:
        yield f"civitas_environment is {kind or 'not set'}; write one of {', '.join(_policy.POLICIES)}."
        return
    if day and kind != "production":
        yield f"reset_data_going_live is for production only, and this is {kind}; leave it out."
        return
    forbidden = _policy.check_reset(policy)
    if forbidden is None:
        return
    if kind == "production" and day == today.isoformat():
        return
    yield f"{forbidden[0][0].upper()}{forbidden[0][1:]}. {forbidden[1]}"
    if kind == "production":
        what = f"It is {day}. " if day else ""
        yield f"{what}When this site goes live today, and holds test data only, write -e reset_data_going_live={today.isoformat()} as well."


def _data(written: t.Any, declared: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    if not isinstance(written, dict):
        yield f"reset_data is {in_words(written)}; write a mapping of {', '.join(_KEYS)}, or leave it out."
        return
    unknown = sorted(set(written) - set(_KEYS))
    if unknown:
        yield f"reset_data has {', '.join(unknown)}, which nobody knows; it has {', '.join(_KEYS)}."
    data = plan(written, declared)
    if not data["databases"] and not data["trees"]:
        yield "No role declares a database or a directory, and reset_data says none; write what holds the data as the runbook says."
        return
    for database in data["databases"]:
        keep = database["keep"]
        if keep is None:
            yield (
                f"reset_data.databases: {database['name']} has no keep; write the tables that stay, such as those of migrations,"
                " or [] for none."
            )
        elif any(not re.fullmatch(r"[^.]+\.[^.]+", str(one)) for one in keep):
            yield f"reset_data.databases: {database['name']} keeps {', '.join(map(str, keep))}; write each as schema.table."
    if not data["units"] and not data["projects"]:
        yield "No role declares what writes, and reset_data says nothing; write the application's projects of Docker Compose, or its units."
