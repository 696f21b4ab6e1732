# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which sets a store removes. The rules know no clock but the one they are given.

Private to the collection: no promise of stability. Standard library only.

A set counts by the date in its signed manifest, where the store's own clock at its arrival agrees; else by its arrival. Nobody gains by a
false date: what is young by arrival stays.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import HostStore, StoredSet

DAY = 86400.0


class Rules(t.NamedTuple):
    """How much is kept.

    Attributes:
        daily, weekly, monthly: for so many of the last days, weeks and months that have a good set, its last one stays.
        minimum_days: what came later than so many days ago stays.
        minimum_count: so many of the newest good sets stay.
        newest_hours: when the newest good set is older than this, nothing is removed.
    """

    daily: int
    weekly: int
    monthly: int
    minimum_days: float
    minimum_count: int
    newest_hours: float = 26.0


PRESETS = {
    "7 days": Rules(daily=7, weekly=0, monthly=0, minimum_days=7, minimum_count=7),
    "15 days": Rules(daily=15, weekly=0, monthly=0, minimum_days=15, minimum_count=15),
}


def rules_of(value: t.Any, newest_hours: float = Rules._field_defaults["newest_hours"]) -> Rules:
    """The rules that a preset's name or a mapping stands for; C(newest_hours) where that says none. Raises ValueError, TypeError."""
    if isinstance(value, str):
        if value not in PRESETS:
            raise ValueError(f"nobody knows the retention {value!r}; there are {', '.join(sorted(PRESETS))}")
        return PRESETS[value]._replace(newest_hours=newest_hours)
    return Rules(**{"newest_hours": newest_hours, **value})


class Kept(t.NamedTuple):
    """What the rules need to know of a set; times in seconds of Unix."""

    set_id: str
    arrival: float
    moment: float
    fresh: float
    good: bool


class Plan(t.NamedTuple):
    """What is to be removed, and why nothing is when something is in the way."""

    remove: t.List[str]
    held: str


def plan(sets: t.Sequence[Kept], rules: Rules, now: float) -> Plan:
    """Choose by the rules."""
    ordered = sorted(sets, key=lambda one: (one.arrival, one.set_id))
    good = [one for one in ordered if one.good]
    if not ordered:
        return Plan([], "there is no set")
    if not good:
        return Plan([], "there is no good set")
    if not ordered[-1].good:
        return Plan([], f"the newest set {ordered[-1].set_id} is not good")
    if now - max(one.fresh for one in good) > rules.newest_hours * 3600:
        return Plan([], f"the newest good set is older than {rules.newest_hours:g} hours")
    keep = {one.set_id for one in ordered if now - one.arrival < rules.minimum_days * DAY}
    keep |= (
        {one.set_id for one in good[len(good) - max(1, rules.minimum_count) :]}
        if len(good) > rules.minimum_count
        else {one.set_id for one in good}
    )
    for count, name in ((rules.daily, "%Y-%m-%d"), (rules.weekly, "%G-%V"), (rules.monthly, "%Y-%m")):
        last: t.Dict[str, str] = {}
        for one in sorted(good, key=lambda found: (found.moment, found.arrival, found.set_id)):
            last[time.strftime(name, time.gmtime(one.moment))] = one.set_id
        keep |= {last[period] for period in sorted(last)[max(0, len(last) - count) :]}
    return Plan([one.set_id for one in ordered if one.set_id not in keep], "")


def kept(one: StoredSet) -> Kept:
    return Kept(one.set_id, one.arrival, one.moment, one.fresh, one.good)


def apply(store: HostStore, rules: Rules, now: float) -> Plan:
    """Remove what the rules say; a run that is ended half way is completed by the next one. Raises StoreError, OSError."""
    with store.locked():
        sets = {one.set_id: one for one in store.sets()}
        chosen = plan([kept(one) for one in sets.values()], rules, now)
        for set_id in chosen.remove:
            _remove(store, sets[set_id], now)
        return chosen


def plan_before(sets: t.Sequence[Kept], before: float) -> Plan:
    """Choose what is older than a moment, such as that on which test data were removed."""
    old = [one.set_id for one in sorted(sets, key=lambda one: (one.moment, one.set_id)) if one.moment < before]
    if not any(one.good and one.fresh >= before for one in sets):
        return Plan([], "there is no good set that is newer")
    return Plan(old, "")


def forget(store: HostStore, before: float, now: float, change: bool) -> Plan:
    """Remove the sets that are older than a moment, whatever the rules say, or only say which. Raises StoreError, OSError."""
    with store.locked():
        sets = {one.set_id: one for one in store.sets()}
        chosen = plan_before([kept(one) for one in sets.values()], before)
        for set_id in chosen.remove if change else []:
            _remove(store, sets[set_id], now)
        return chosen


def _remove(store: HostStore, one: StoredSet, now: float) -> None:
    # First it is known that it was here, then it is no set any more, then its space is free.
    with open(os.path.join(store.removed, one.set_id), "w", encoding="utf-8") as file:
        json.dump({"sha256": one.manifest.sha256, "arrival": one.arrival, "removed": now}, file)
        file.flush()
        os.fsync(file.fileno())
    leaving = os.path.join(store.staging, f"removing-{one.set_id}")
    os.rename(one.path, leaving)
    shutil.rmtree(leaving)
