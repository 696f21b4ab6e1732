# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text format of Prometheus, as a host writes it. _alert_metrics reads it.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import typing as t


class FormatError(Exception):
    """What cannot be written in this format."""


class Sample(t.NamedTuple):
    """One value of one series; labels are sorted by name."""

    name: str
    labels: t.Tuple[t.Tuple[str, str], ...]
    value: float


def sample(metric: str, value: float, **labels: str) -> Sample:
    """One with labels as they can be written in a line: anybody may name a mount or a container."""
    return Sample(metric, tuple(sorted((name, _printable(text)) for name, text in labels.items())), float(value))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def render(samples: t.Iterable[Sample], titles: t.Mapping[str, str]) -> str:
    """All samples as gauges, grouped and sorted by name; C(titles) says what each name means, and no other name is written.

    Raises:
        FormatError: a series comes twice, or a name has no title. Readers refuse the whole file for that.
    """
    groups: t.Dict[str, t.Dict[t.Tuple[t.Tuple[str, str], ...], float]] = {}
    for one in samples:
        group = groups.setdefault(one.name, {})
        if one.labels in group:
            raise FormatError(f"{one.name} {dict(one.labels)} is there twice")
        group[one.labels] = one.value
    lines = []
    for name, group in sorted(groups.items()):
        if name not in titles:
            raise FormatError(f"nothing says what {name} means")
        lines += [f"# HELP {name} {titles[name]}", f"# TYPE {name} gauge"]
        lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in sorted(group.items())]
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: t.Sequence[t.Tuple[str, str]]) -> str:
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels) + "}" if labels else ""


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    # Whole numbers stay whole: times of 1970 in the form 1.8e+09 lose their seconds for people.
    return f"{value:.0f}" if abs(value) < 1e15 and value == int(value) else repr(value)
