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

_KEYS = ("databases", "trees", "commands", "units", "projects")


def problems(config: t.Mapping[str, t.Any], today: t.Optional[datetime.date] = None) -> t.List[str]:
    """What is wrong, one sentence each, with what to write.

    Args:
        config: C(environment), C(domain), C(confirm), C(going_live) and C(data), as the playbook reset_data has them.
        today: in UTC.
    """
    today = today or datetime.datetime.now(datetime.timezone.utc).date()
    return [line for line in (*_confirmed(config), *_allowed(config, today), *_data(config["data"])) if line]


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


def _data(data: t.Any) -> t.Iterator[str]:
    if not isinstance(data, dict) or not any(data.get(key) for key in ("databases", "trees")):
        yield "reset_data says neither a database nor a directory; write what holds the data, see docs/runbooks/reset_data.md."
        return
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        yield f"reset_data has {', '.join(unknown)}, which nobody knows; it has {', '.join(_KEYS)}."
    for database in data.get("databases") or []:
        keep = database.get("keep")
        if keep is None:
            yield (
                f"reset_data.databases: {database.get('name')} has no keep; write the tables that stay, such as those of migrations,"
                " or [] for none."
            )
        elif any(not re.fullmatch(r"[^.]+\.[^.]+", str(one)) for one in keep):
            yield f"reset_data.databases: {database.get('name')} keeps {', '.join(map(str, keep))}; write each as schema.table."
    if not data.get("units") and not data.get("projects"):
        yield "reset_data says nothing that writes; write the application's projects of Docker Compose, or its units."
