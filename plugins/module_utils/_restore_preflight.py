# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role restore.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_preflight import sources
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_address, is_host_name, is_whole

_NAME = "restore_"
_SOURCES = {"files": "{name: documents, path: /srv/documents}", "postgres": "{name: main, databases: [records]}"}
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]+\.(service|timer|socket|path|target)")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]*")


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables C(restore_...) without that prefix.
    """
    found = []
    if not isinstance(config["host"], str) or not form.is_host(config["host"]):
        found.append(f"{_NAME}host is {config['host']!r}; write small letters, digits, dots and hyphens")
    address = config["store_address"]
    if not is_host_name(address) and not is_address(address):
        found.append(f"{_NAME}store_address is {address!r}; write the name or address of the host that keeps the sets")
    copy = config["copy_address"]
    if copy != "" and not is_host_name(copy) and not is_address(copy):
        found.append(f"{_NAME}copy_address is {copy!r}; write the name or address of the host that copies the sets, or nothing")
    for name, least, most, example in (
        ("store_port", 1, 65535, "2022"),
        ("copy_port", 1, 65535, "2022"),
        ("keep_days", 1, 365, "7"),
        ("minimum_free_megabytes", 64, 10**8, "1024"),
    ):
        if not is_whole(config[name], least, most):
            found.append(f"{_NAME}{name} is {config[name]!r}; write a whole number from {least} to {most}, such as {example}")
    found += sources(config, _NAME, _SOURCES)
    found += _writers(config["writers"])
    return found


def _writers(items: t.Any) -> t.Iterator[str]:
    example = "{name: app, units: [app.service]}"
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, t.Mapping) for item in items):
        yield f"{_NAME}writers is {in_words(items)}; write a list such as [{example}]"
        return
    for item in items:
        where = f"{_NAME}writers: {item.get('name')}"
        for key, pattern, words in (
            ("units", _UNIT, "units of systemd, such as app.service"),
            ("projects", _PROJECT, "projects of Compose, as their directories are called"),
        ):
            names = item.get(key) or []
            wrong = (
                [one for one in names if not isinstance(one, str) or not pattern.fullmatch(one)]
                if isinstance(names, (list, tuple))
                else [names]
            )
            if wrong:
                yield f"{where} has {wrong[0]!r} in {key}; write {words}"
        if not item.get("units") and not item.get("projects"):
            yield f"{where} has neither units nor projects; write what is to stand still, such as {example}"
