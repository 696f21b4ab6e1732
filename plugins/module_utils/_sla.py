# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Availability of what is probed, this month and this year, against the hours of a year that it may be down.

Private to the collection: no promise of stability. Standard library only.

Prometheus keeps two series for each probe, every five minutes: for how many of these seconds the probe was measured, and for how many of
them it was down. Their sums are all that is needed. When nothing was measured, as the monitoring itself was down, nothing is claimed.
"""

from __future__ import annotations

import datetime
import typing as t

Answer = t.Mapping[str, t.Any]


class Period(t.NamedTuple):
    """A month or a year in UTC: when it began, how much of it is over, and how long it is, in seconds."""

    name: str
    start: float
    seconds: int
    whole: int


class Figures(t.NamedTuple):
    """Of one probe in one period, in seconds.

    Attributes:
        availability: the share of the measured time that it was up; None when nothing was measured.
        budget: for how long it may be down in the whole period.
        unmeasured: what of the time that is over was not measured.
    """

    availability: t.Optional[float]
    down: float
    measured: float
    unmeasured: float
    budget: float

    @property
    def left(self) -> float:
        return self.budget - self.down

    @property
    def kept(self) -> t.Optional[bool]:
        """Whether the promise for the whole period can still be kept; None when nothing is known."""
        return None if self.availability is None else self.left >= 0


def periods(now: float) -> t.List[Period]:
    moment = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    year = moment.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    month = year.replace(month=moment.month)
    following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
    return [
        _period(f"{moment:%Y-%m}", month, following, now),
        _period(f"{moment:%Y}", year, year.replace(year=year.year + 1), now),
    ]


def _period(name: str, start: datetime.datetime, end: datetime.datetime, now: float) -> Period:
    return Period(name, start.timestamp(), int(now - start.timestamp()), int(end.timestamp() - start.timestamp()))


def figures(period: Period, measured: float, down: float, target: float) -> Figures:
    """Args: target: what was promised, in percent; a measurement may cover a few seconds more than the period."""
    measured = min(measured, float(period.seconds))
    down = min(down, measured)
    return Figures(
        availability=1 - down / measured if measured > 0 else None,
        down=down,
        measured=measured,
        unmeasured=period.seconds - measured,
        budget=period.whole * (1 - target / 100),
    )


def values(result: t.Sequence[Answer]) -> t.Dict[str, float]:
    """Probe to value, of the result of an instant query."""
    return {str(series["metric"].get("probe", "")): float(series["value"][1]) for series in result}


def report(answers: t.Sequence[Answer], now: float, target: float) -> t.Dict[str, t.Any]:
    """The figures of all probes, and a text of them.

    Args:
        answers: for each period C(period), a mapping with the fields of Period, and the results of the queries C(measured) and C(down).

    Raises:
        ValueError: a promise that is no percentage.
    """
    if not 0 < target < 100:
        raise ValueError(f"the promise is {target:g} %; write a percentage of the year such as 99 or 99.9")
    found: t.Dict[str, t.List[t.Tuple[Period, Figures]]] = {}
    for answer in answers:
        period = Period(**answer["period"])
        measured, down = values(answer["measured"]), values(answer["down"])
        for probe in sorted(measured):
            found.setdefault(probe, []).append((period, figures(period, measured[probe], down.get(probe, 0.0), target)))
    when = datetime.datetime.fromtimestamp(now, datetime.timezone.utc)
    head = [
        f"Availability of what is probed, up to {when:%Y-%m-%d %H:%M} UTC",
        f"Promised: {target:g} %, which is {hours(31536000 * (1 - target / 100))} of down time in a year of 365 days.",
        "",
    ]
    lines = [line for probe in sorted(found) for line in _lines(probe, found[probe])]
    return {
        "target": target,
        "probes": {
            probe: {period.name: {**item._asdict(), "left": item.left, "kept": item.kept} for period, item in items}
            for probe, items in sorted(found.items())
        },
        "text": "\n".join(head + (lines or ["Nothing was measured in this year.", ""])),
    }


def _lines(probe: str, items: t.Sequence[t.Tuple[Period, Figures]]) -> t.Iterator[str]:
    yield probe
    for period, item in items:
        available = "not measured" if item.availability is None else percent(item.availability)
        verdict = {None: "nothing is known", True: "kept", False: "NOT KEPT"}[item.kept]
        left = f"{hours(item.left)} left" if item.left >= 0 else f"{hours(-item.left)} too many"
        yield f"  {period.name:<8} {available:>12}   down {hours(item.down)} of {hours(item.budget)}, {left}: {verdict}"
        # Less than a probe's own step is none.
        if item.unmeasured > 600:
            yield f"  {'':<8} {'':>12}   {hours(item.unmeasured)} of {hours(period.seconds)} were not measured and count as neither"
    yield ""


def percent(share: float) -> str:
    """Cut, not rounded: 99.9996 % are not 100 %."""
    return f"{int(share * 100000 + 1e-9) / 1000:.3f} %"


def hours(seconds: float) -> str:
    """Such as 87.6 h; short times in minutes, the shortest in seconds."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
