# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people call the type of a value; Ansible's own classes have names that nobody wrote.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import typing as t

# A boolean is a number as well, so it comes first.
_WORDS: t.Tuple[t.Tuple[t.Any, str], ...] = (
    (str, "a text"),
    (bool, "a boolean (true or false)"),
    ((int, float), "a number"),
    ((list, tuple), "a list"),
    (dict, "a mapping"),
    (datetime.date, "a date"),
)


def in_words(value: t.Any) -> str:
    """The type of C(value), such as C(a list)."""
    if value is None:
        return "nothing"
    return next((words for types, words in _WORDS if isinstance(value, types)), "a value of another type")
