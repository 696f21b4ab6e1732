# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of a program on a host: JSON that a role writes.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import typing as t

T = t.TypeVar("T")
ADVICE = "; run the site playbook, it writes this file"


class ConfigError(Exception):
    """A file cannot be used."""


def parsed(path: str, parse: t.Callable[[t.Dict[str, t.Any]], T], advice: str = ADVICE) -> T:
    """Read a file.

    Args:
        parse: makes the configuration of it; KeyError, TypeError, ValueError and AttributeError mean that the file is at fault.
        advice: the end of the sentence.

    Raises:
        ConfigError: it is not there, no JSON, or not what C(parse) takes. The text quotes nothing of a file that is no JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return parse(json.load(file))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}{advice}") from error


def with_tuples(values: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """The same with tuples for lists, which named tuples want and JSON has not."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
