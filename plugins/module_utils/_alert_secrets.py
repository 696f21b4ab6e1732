# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets by which people are told of alarms: an inventory names them, and the secrets file has them.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import typing as t

# Way -> what holds a secret -> what names it in its place.
KEYS: t.Dict[str, t.Dict[str, str]] = {
    "webhook": {"url": "url_secret", "token": "token_secret"},
    "sms": {"url": "url_secret", "headers": "headers_secret"},
}


def names(receivers: t.Iterable[t.Mapping[str, t.Any]]) -> t.List[str]:
    """All that receivers name, each once."""
    found: t.List[str] = []
    for receiver in receivers:
        for way, keys in KEYS.items():
            for names_it in keys.values():
                named = receiver.get(way, {}).get(names_it, [])
                found += named.values() if isinstance(named, t.Mapping) else [named] if named else []
    return [name for position, name in enumerate(found) if name not in found[:position]]


def filled(receivers: t.Iterable[t.Mapping[str, t.Any]], secrets: t.Mapping[str, str]) -> t.List[t.Dict[str, t.Any]]:
    """Receivers with the values of what they name. Raises KeyError for one that is not there."""
    return [{key: _filled(KEYS[key], value, secrets) if key in KEYS else value for key, value in item.items()} for item in receivers]


def _filled(keys: t.Mapping[str, str], options: t.Mapping[str, t.Any], secrets: t.Mapping[str, str]) -> t.Dict[str, t.Any]:
    result = {key: value for key, value in options.items() if key not in keys.values()}
    for key, names_it in keys.items():
        if names_it in options:
            named = options[names_it]
            result[key] = {each: secrets[name] for each, name in named.items()} if isinstance(named, t.Mapping) else secrets[named]
    return result
