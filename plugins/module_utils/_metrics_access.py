# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured of who gets in: whether everybody has a second factor who needs one.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, sample

TITLES = {"civitas_second_factor_missing": "People without the second factor that they need, once their time to get one is over."}


def second_factors(access: t.Mapping[str, t.Any], present: t.Container[str], today: str) -> t.Iterator[Sample]:
    """Raises KeyError.

    Args:
        access: what the role access left on the host (C(/etc/civitas/access.json)).
        present: names of those who have one.
        today: as YYYY-MM-DD.
    """
    if access["second_factor"]:
        missing = [name for name in access["people"] if name not in present] if today > access["grace_until"] else []
        yield sample("civitas_second_factor_missing", len(missing))
