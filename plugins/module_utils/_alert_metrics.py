# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts measured: the text format of Prometheus, read by the host itself.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import re
import typing as t

DIRECTORY = "/var/lib/civitas/metrics"
Labels = t.Tuple[t.Tuple[str, str], ...]
# Name of the metric to its series: labels, sorted, and value.
Samples = t.Dict[str, t.List[t.Tuple[Labels, float]]]

_LINE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?[ \t]+(?P<value>[^ \t]+)(?:[ \t]+-?[0-9]+)?[ \t]*")
_LABEL = re.compile(r'[ \t]*(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"(?P<value>(?:[^"\\]|\\.)*)"[ \t]*(?:,|$)')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def parse(text: str) -> Samples:
    """Raises ValueError with the first line that is none of the format."""
    found: Samples = {}
    for position, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        labels = _labels(match["labels"] or "") if match else None
        if match is None or labels is None:
            raise ValueError(f"line {position} is no sample")
        try:
            value = float(match["value"])
        except ValueError:
            raise ValueError(f"line {position}: {match['value'][:40]!r} is no number") from None
        found.setdefault(match["name"], []).append((labels, value))
    return found


def _labels(text: str) -> t.Optional[Labels]:
    labels: t.Dict[str, str] = {}
    while text.strip():
        match = _LABEL.match(text)
        if match is None:
            return None
        labels[match["name"]] = re.sub(r"\\.", lambda found: _ESCAPES.get(found[0], found[0]), match["value"])
        text = text[match.end() :]
    # A label without a value is none.
    return tuple(sorted((name, value) for name, value in labels.items() if value))


def read(directory: str = DIRECTORY) -> t.Tuple[Samples, t.List[str]]:
    """The samples of all files C(*.prom), and why some could not be read. One that is damaged counts for nothing, as in node_exporter."""
    samples: Samples = {}
    faults: t.List[str] = []
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".prom") and not name.startswith("."))
    except OSError as error:
        return {}, [f"{directory}: {error.strerror}"]
    for name in names:
        path = os.path.join(directory, name)
        try:
            # As others write them: a label may hold any other end of a line.
            with open(path, encoding="utf-8", newline="\n") as file:
                for metric, series in parse(file.read()).items():
                    samples.setdefault(metric, []).extend(series)
        except OSError as error:
            faults.append(f"{path}: {error.strerror}")
        except ValueError as error:
            faults.append(f"{path}: {error}")
    return samples, faults
