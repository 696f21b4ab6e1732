# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role backup_copy.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_preflight import store_problems
from ansible_collections.civitas.hosting.plugins.module_utils._store_retention import rules_of
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_whole

_NAME = "backup_copy_"
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{40,}={0,2}")
_EXAMPLE = "[{name: records1, signing_keys: [ssh-ed25519 AAAA...], retention: 15 days}]"


def problems(config: t.Mapping[str, t.Any], check: bool = False) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables C(backup_copy_...) without that prefix, C(is_store), whether the role backup_store has run on this host, and
            C(is_sender), whether it makes sets of its own.
        check: in check mode hosts may have no keys yet, and this one no store.
    """
    hosts = config["hosts"]
    if not isinstance(hosts, (list, tuple)) or not all(isinstance(one, t.Mapping) for one in hosts):
        return [f"{_NAME}hosts is {in_words(hosts)}; write a list such as {_EXAMPLE}"]
    if not hosts:
        return []
    found = []
    for name, least, most, example in (
        ("target_port", 1, 65535, "2022"),
        ("bandwidth_kib", 0, 10**9, "0 for no limit"),
        ("late_hours", 25, 24 * 31, "36"),
    ):
        if not is_whole(config[name], least, most):
            found.append(f"{_NAME}{name} is {config[name]!r}; write a whole number from {least} to {most}, such as {example}")
    if not config["is_store"] and not check:
        found.append(f"{_NAME}hosts is written, and nothing here keeps sets; run the role backup_store before, with copied: true")
    if config["is_sender"]:
        found.append(
            f"{_NAME}hosts is written, and this host makes backups of its own; a copy of them must lie elsewhere, take another host"
        )
    return [*found, *store_problems(config, _NAME, "a copy beside the sets is lost with them", check), *_hosts(hosts, check)]


def _hosts(hosts: t.Sequence[t.Mapping[str, t.Any]], check: bool) -> t.Iterator[str]:
    names = [one.get("name") for one in hosts]
    for position, one in enumerate(hosts):
        name, where = one.get("name"), f"{_NAME}hosts[{position}]"
        if not isinstance(name, str) or not form.is_host(name):
            yield f"{where} has the name {name!r}; write what the host is called in its sets"
            continue
        if names.index(name) != position:
            yield f"{_NAME}hosts has {name} twice; write each host once"
        keys = one.get("signing_keys")
        if not isinstance(keys, (list, tuple)) or not all(
            isinstance(key, str) and (_KEY.fullmatch(key) or (check and not key)) for key in keys
        ):
            yield f"{where} has signing_keys that are none; write a list of 'ssh-ed25519 AAAA...'"
        elif not keys:
            yield f"{where} has no signing_keys, so no set of it could be believed; write the key that signs its sets"
        try:
            rules_of(one.get("retention"))
        except (TypeError, ValueError):
            yield f"{where} has the retention {one.get('retention')!r}; write that of the first store, such as '15 days'"
