# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what people write in an inventory is an address, a name or a number.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


def is_mail_address(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_MAIL.fullmatch(value))


def is_host_name(value: t.Any) -> bool:
    """A name of letters, digits, dots and hyphens. An address of IPv4 looks like one."""
    return isinstance(value, str) and bool(_HOST.fullmatch(value))


def is_address(value: t.Any) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def is_loopback(value: t.Any) -> bool:
    return value == "localhost" or (is_address(value) and ipaddress.ip_address(value).is_loopback)


def is_whole(value: t.Any, least: int, most: int) -> bool:
    """A whole number within bounds, also as text."""
    return isinstance(value, (int, str)) and not isinstance(value, bool) and str(value).isdigit() and least <= int(value) <= most


def unknown_keys(name: str, value: t.Mapping[str, t.Any], keys: t.Sequence[str]) -> t.List[str]:
    """One sentence for each key of the variable C(name) that means nothing."""
    return [f"{name} has {key!r}, which means nothing; known are {', '.join(keys)}" for key in value if key not in keys]
