# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values as people read them, in the same words as Prometheus' templates write them.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import math
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import FIELD

# The unit of a value to what writes it in a template of Prometheus.
TEMPLATES = {
    "ratio": "{{ $value | humanizePercentage }}",
    "seconds": "{{ $value | humanizeDuration }}",
    "bytes": "{{ $value | humanize1024 }}B",
    "count": '{{ printf "%.0f" $value }}',
    "none": '{{ printf "%.4g" $value }}',
}


def written(value: float, unit: str) -> str:
    """The value as C(TEMPLATES) write it."""
    if not math.isfinite(value):
        # As Go writes them.
        return {"inf": "+Inf", "-inf": "-Inf"}.get(str(value), "NaN")
    if unit == "ratio":
        return f"{value * 100:.4g}%"
    if unit == "seconds":
        return _duration(value)
    if unit == "bytes":
        return _bytes(value)
    return f"{value:.0f}" if unit == "count" else f"{value:.4g}"


def _duration(value: float) -> str:
    if abs(value) < 1:
        for prefix in ("", "m", "u", "n", "p", "f", "a", "z", "y"):
            if value == 0 or abs(value) >= 1 or prefix == "y":
                return f"{value:.4g}{prefix}s"
            value *= 1000
    sign = "-" if value < 0 else ""
    whole = int(abs(value))
    days, hours, minutes, seconds = whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    return f"{sign}{minutes}m {seconds}s" if minutes else f"{sign}{abs(value):.4g}s"


def _bytes(value: float) -> str:
    prefix = ""
    if abs(value) > 1:
        for following in ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"):
            if abs(value) < 1024:
                break
            prefix = following
            value /= 1024
    return f"{value:.4g}{prefix}B"


def sentence(text: str, unit: str, host: str, labels: t.Mapping[str, str], value: float) -> str:
    """The text of a rule for one series."""
    known = {**labels, "host": host, "value": written(value, unit)}
    return FIELD.sub(lambda field: known.get(field[1], ""), text)


def template(text: str, unit: str) -> str:
    """The text of a rule as a template of Prometheus."""
    return FIELD.sub(lambda field: TEMPLATES[unit] if field[1] == "value" else "{{ $labels." + field[1] + " }}", text)
