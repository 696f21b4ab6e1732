# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles declare: the kinds there are, and the judgement of one role's items.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _alert_rules
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import EgressError, destination_problems, expanded
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

# kind -> the keys that every item of it must have. An item may have more: consumers check what they use.
KINDS: t.Dict[str, t.Tuple[str, ...]] = {
    "packages": ("name",),
    "ports": ("name", "port", "protocol", "addresses", "from", "purpose"),
    "checks": ("id", "title", "type", "remedy"),
    "secrets": ("name",),
    "certificates": ("name", "hosts"),
    "databases": ("name", "owner"),
    "sites": ("name", "server_names", "certificate", "locations"),
    "networks": ("name", "host_address", "cidrs"),
    "artifacts": ("name", "file", "sha256"),
    "destinations": ("name", "from", "purpose"),
    "clients": ("name", "process", "purpose"),
    "alerts": ("name", "severity", "text", "runbook"),
    "backups": ("name", "type"),
    "writers": ("name", "units", "projects"),
    "data": ("name", "path"),
}

# What a backup holds, and the further keys that each type must have.
BACKUP_TYPES: t.Dict[str, t.Tuple[str, ...]] = {"postgres": ("port", "databases"), "files": ("path",), "command": ("run",)}
# While a site is judged: the variable that holds the variables of all hosts, each with those of its roles in them.
JUDGED = "__civitas_judged"
PORT_SOURCES = ("public", "admin", "cluster", "monitoring", "containers", "loopback")


class DeclarationError(Exception):
    """A declaration that cannot be used; the text names role, kind and what to write."""


def check_document(role: str, document: t.Any) -> t.Dict[str, t.Any]:
    """Return the declarations of C(role) as a mapping of kind to unrendered items.

    Args:
        role: name of the role, for messages.
        document: what its C(meta/declarations.yml) holds; V(None) when the file is empty or missing.

    Raises:
        DeclarationError: not a mapping, or a kind that nobody knows.
    """
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise DeclarationError(f"role {role}: meta/declarations.yml must be a mapping of kinds to lists, it is {in_words(document)}")
    unknown = sorted(str(kind) for kind in document if kind not in KINDS)
    if unknown:
        raise DeclarationError(f"role {role}: meta/declarations.yml has unknown kinds {', '.join(unknown)}; known are {', '.join(KINDS)}")
    return document


def check_items(role: str, kind: str, items: t.Any) -> t.List[t.Dict[str, t.Any]]:
    """Return rendered C(items) of one role, each with the key C(role) added.

    Items may be nested lists (one template may render to several items) and V(None) (a template may decide that there is none).

    Raises:
        DeclarationError: something that is not a list of mappings, a missing key, a bad port, or a bad rule.
    """
    result: t.List[t.Dict[str, t.Any]] = []
    for item in _flatten(items):
        if not isinstance(item, dict):
            raise DeclarationError(f"role {role}: an item of '{kind}' must be a mapping, it is {item!r}")
        missing = [key for key in KINDS[kind] if key not in item]
        if missing:
            raise DeclarationError(f"role {role}: an item of '{kind}' lacks {', '.join(missing)}: {_name_of(item)}")
        if kind == "ports":
            _check_port(role, item)
        if kind == "alerts":
            _check_alert(role, item)
        if kind == "backups":
            _check_backup(role, item)
        plain = _destinations(role, item) if kind == "destinations" else [item]
        result += [{**each, "role": role} for each in plain]
    return result


def _destinations(role: str, item: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    try:
        plain = expanded(item)
    except EgressError as error:
        raise DeclarationError(f"role {role}: {error}") from error
    problems = [problem for each in plain for problem in destination_problems(each)]
    if problems:
        raise DeclarationError(f"role {role}: {'; '.join(problems)}")
    return plain


def _check_alert(role: str, item: t.Mapping[str, t.Any]) -> None:
    problems = _alert_rules.problems([{**item, "role": role}])
    if problems:
        raise DeclarationError("; ".join(problems))


def _check_backup(role: str, item: t.Mapping[str, t.Any]) -> None:
    if item["type"] not in BACKUP_TYPES:
        raise DeclarationError(f"role {role}: backup {item['name']}: type {item['type']!r} is none of {', '.join(BACKUP_TYPES)}")
    missing = [key for key in BACKUP_TYPES[item["type"]] if key not in item]
    if missing:
        raise DeclarationError(f"role {role}: backup {item['name']} lacks {', '.join(missing)}")
    if item.get("restore", "place") not in ("place", "side"):
        raise DeclarationError(f"role {role}: backup {item['name']}: restore {item['restore']!r} is none of place, side")


def _flatten(items: t.Any) -> t.Iterator[t.Any]:
    if items is None or items == "":
        return
    if isinstance(items, (list, tuple)):
        for item in items:
            yield from _flatten(item)
        return
    yield items


def _name_of(item: t.Dict[str, t.Any]) -> str:
    return str(item.get("name") or item.get("id") or sorted(item))


def _check_port(role: str, item: t.Dict[str, t.Any]) -> None:
    try:
        port = int(item["port"])
    except (TypeError, ValueError):
        port = 0
    if not 0 < port < 65536:
        raise DeclarationError(f"role {role}: port {item['name']}: {item['port']!r} is not a port number (1 to 65535)")
    if item["protocol"] not in ("tcp", "udp"):
        raise DeclarationError(f"role {role}: port {item['name']}: protocol {item['protocol']!r} is neither tcp nor udp")
    if item["from"] not in PORT_SOURCES:
        raise DeclarationError(f"role {role}: port {item['name']}: from {item['from']!r} is none of {', '.join(PORT_SOURCES)}")
    if not item["addresses"]:
        raise DeclarationError(f"role {role}: port {item['name']}: addresses is empty; name the addresses it listens on")
    item["port"] = port
