# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store removes: 400 days under a faked clock, and whatever else arrives in whatever order."""

from __future__ import annotations

import random
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._store_retention import DAY, PRESETS, Kept, Rules, plan, plan_before
from hypothesis import given
from hypothesis import strategies as st

START = 1_767_225_600.0  # the first moment of 2026
HOUR = 3600.0


def one(name: str, arrival: float, moment: float | None = None, good: bool = True) -> Kept:
    moment = arrival if moment is None else moment
    return Kept(name, arrival, moment, min(arrival, moment), good)


def nights(count: int, rules: Rules, chance: random.Random | None = None) -> list[list[Kept]]:
    """The sets of each day, after the retention of that day; some nights fail when there is C(chance)."""
    sets: list[Kept] = []
    found = []
    for day in range(count):
        now = START + day * DAY + 2 * HOUR
        failed = chance is not None and chance.random() < 0.15
        if not failed or (chance is not None and chance.random() < 0.5):
            sets.append(one(f"{day:03d}", now, good=not failed))
        gone = set(plan(sets, rules, now + HOUR).remove)
        sets = [kept for kept in sets if kept.set_id not in gone]
        found.append(list(sets))
    return found


@pytest.mark.parametrize(("name", "count"), [("7 days", 7), ("15 days", 15)])
def test_400_days_of_a_preset(name: str, count: int) -> None:
    days = nights(400, PRESETS[name])
    for day, sets in enumerate(days):
        assert [kept.set_id for kept in sets] == [f"{number:03d}" for number in range(max(0, day + 1 - count), day + 1)]


def test_400_days_of_days_weeks_and_months() -> None:
    days = nights(400, Rules(daily=7, weekly=5, monthly=12, minimum_days=3, minimum_count=3))
    kept = [int(kept.set_id) for kept in days[-1]]
    assert kept[-7:] == list(range(393, 400))
    # The last days of three weeks and of ten months; those of the fourth week and of the eleventh month are among the seven days.
    names = [time.strftime("%a %d %b", time.gmtime(START + day * DAY)) for day in kept[:-7]]
    assert names[-3:] == ["Sun 10 Jan", "Sun 17 Jan", "Sun 24 Jan"]
    months = "31 Mar, 30 Apr, 31 May, 30 Jun, 31 Jul, 31 Aug, 30 Sep, 31 Oct, 30 Nov, 31 Dec"
    assert ", ".join(name[4:] for name in names[:-3]) == months
    assert max(len(sets) for sets in days) <= 7 + 5 + 12


@pytest.mark.parametrize("seed", range(5))
def test_400_days_with_failures(seed: int) -> None:
    rules = Rules(daily=7, weekly=4, monthly=6, minimum_days=7, minimum_count=7)
    all_good = 0
    for sets in nights(400, rules, random.Random(seed)):
        good = [kept for kept in sets if kept.good]
        all_good = max(all_good, len(good))
        assert len(good) >= min(7, all_good)


@pytest.mark.parametrize(
    ("sets", "held"),
    [
        ([], "there is no set"),
        ([one("a", START, good=False)], "there is no good set"),
        ([one(f"{n}", START + n * DAY) for n in range(30)] + [one("bad", START + 30 * DAY, good=False)], "the newest set bad is not good"),
        ([one(f"{n}", START + n * DAY) for n in range(28)], "the newest good set is older than 26 hours"),
        # An old set comes again under a new name: its arrival makes nothing fresh.
        (
            [one(f"{n}", START + n * DAY) for n in range(28)] + [one("again", START + 30 * DAY, START)],
            "the newest good set is older than 26 hours",
        ),
    ],
)
def test_nothing_is_removed(sets: list[Kept], held: str) -> None:
    assert plan(sets, PRESETS["7 days"], START + 30 * DAY + HOUR) == ([], held)


def test_dates_to_come_do_not_push_out_what_is_good() -> None:
    """What the store does with them: they count by their arrival."""
    sets = [one(f"{n:02d}", START + n * DAY) for n in range(10)]
    false = [one(f"false{n}", START + 9 * DAY + n) for n in range(50)]
    gone = plan(sets + false, PRESETS["7 days"], START + 9 * DAY + HOUR).remove
    # By age they may go; what came in the last days stays beside the false ones.
    assert gone == ["00", "01", "02"]


def test_the_clock_of_the_store_goes_wrong() -> None:
    sets = [one(f"{n:02d}", START + n * DAY) for n in range(30)]
    assert plan(sets, PRESETS["7 days"], START + 400 * DAY).held
    # It went back: what seems to come from the future is young.
    assert plan(sets, PRESETS["7 days"], START + 2 * DAY).remove == []


SETS = st.lists(
    st.tuples(st.floats(0, 60 * DAY), st.floats(-40 * DAY, 40 * DAY), st.booleans()).map(
        lambda found: (found[0], found[0] + found[1], found[2])
    ),
    max_size=40,
)
RULES = st.builds(
    Rules,
    daily=st.integers(0, 20),
    weekly=st.integers(0, 10),
    monthly=st.integers(0, 20),
    minimum_days=st.floats(0, 40),
    minimum_count=st.integers(0, 20),
    newest_hours=st.floats(1, 1000),
)


@given(SETS, RULES, st.floats(0, 70 * DAY))
def test_whatever_comes(found: list[tuple[float, float, bool]], rules: Rules, now: float) -> None:
    sets = [one(f"{number:02d}", START + arrival, START + moment, good) for number, (arrival, moment, good) in enumerate(found)]
    now += START
    chosen = plan(sets, rules, now)
    gone = set(chosen.remove)
    assert len(gone) == len(chosen.remove) and gone <= {kept.set_id for kept in sets}
    good = [kept for kept in sets if kept.good]
    left = [kept for kept in good if kept.set_id not in gone]
    assert len(left) >= min(len(good), max(1, rules.minimum_count))
    assert not any(now - kept.arrival < rules.minimum_days * DAY for kept in sets if kept.set_id in gone)
    if good:
        assert max(good, key=lambda kept: (kept.arrival, kept.set_id)).set_id not in gone
    if gone:
        newest = max(sets, key=lambda kept: (kept.arrival, kept.set_id))
        assert newest.good and now - max(kept.fresh for kept in good) <= rules.newest_hours * 3600
    # Nothing more goes when it runs again.
    assert plan([kept for kept in sets if kept.set_id not in gone], rules, now).remove == []


def test_what_is_older_than_a_moment_goes_when_a_newer_good_set_is_there() -> None:
    day = [one(f"{number}", START + number * DAY, good=number != 3) for number in range(5)]
    assert plan_before(day, START + 3 * DAY) == (["0", "1", "2"], "")
    assert plan_before(day, START) == ([], "")
    assert plan_before(day[:4], START + 3 * DAY) == ([], "there is no good set that is newer")
    assert plan_before([], START).remove == []
    # A set that claims to be newer than it is counts by its arrival, as everywhere.
    liar = Kept("9", START, START + 9 * DAY, START, True)
    assert plan_before([*day[:3], liar], START + 4 * DAY).remove == []
