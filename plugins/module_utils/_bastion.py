# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role bastion, and what sshd is told of them.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_GROUP = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem.

    Args:
        config: the variables of the role without their prefix: C(forward_to), C(groups), C(keeper_groups).
    """
    found = _forward_problems(config["forward_to"])
    for key in ("groups", "keeper_groups"):
        value = config[key]
        if not isinstance(value, list) or not all(isinstance(name, str) and _GROUP.fullmatch(name) for name in value):
            found.append(f"bastion_{key} must be a list of names of groups, such as [civitas-people]")
    if not found and not config["groups"]:
        found.append("bastion_groups is empty, so nobody could use the bastion; write such as bastion_groups: [civitas-people]")
    if not found:
        found += [
            f"bastion_groups and bastion_keeper_groups both name {name}: the first get no shell, the second do. Remove it from one"
            for name in config["groups"]
            if name in config["keeper_groups"]
        ]
    return found


def _forward_problems(value: t.Any) -> t.List[str]:
    write = "write such as bastion_forward_to: [{host: 192.0.2.10, ports: [22]}]"
    if not isinstance(value, list):
        return [f"bastion_forward_to is {in_words(value)} and no list; {write}"]
    if not value:
        return [f"bastion_forward_to is empty, and a bastion that leads nowhere is none; {write}"]
    found = []
    for number, item in enumerate(value, 1):
        where = f"bastion_forward_to, item {number}"
        if not isinstance(item, dict) or set(item) != {"host", "ports"}:
            found.append(f"{where} must have host and ports and nothing else; {write}")
            continue
        host, ports = item["host"], item["ports"]
        if not isinstance(host, str) or not _is_host(host):
            found.append(f"{where}: {host!r:.80} is neither a name nor an address; patterns and networks are not accepted, name each host")
        if not isinstance(ports, list) or not ports or not all(_is_port(port) for port in ports):
            found.append(f"{where}: ports must be a list of numbers from 1 to 65535, such as [22]")
    return found


def _is_host(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
        return "%" not in value
    except ValueError:
        # Digits and dots alone are a mistyped address.
        labels = value.split(".")
        return len(value) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def _is_port(value: t.Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536


def permit_open(forward_to: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    """Return C(host:port) as sshd compares it: by letters, with what the client was told to reach."""
    pairs = [(item["host"], port) for item in forward_to for port in item["ports"]]
    return list(dict.fromkeys(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs))
