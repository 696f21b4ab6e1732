# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role backup_store.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._store_retention import PRESETS, Rules
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_address, is_whole

_NAME = "backup_store_"
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{40,}={0,2}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)+")


def problems(config: t.Mapping[str, t.Any], check: bool = False) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables C(backup_store_...) without that prefix.
        check: in check mode hosts may have no keys yet.
    """
    found = []
    directory = config["directory"]
    if not isinstance(directory, str) or not _PATH.fullmatch(directory) or ".." in directory.split("/"):
        found.append(f"{_NAME}directory is {directory!r}; write a path on the host of letters, digits, dots, hyphens and underscores")
    elif re.match(r"/(run|tmp|dev|proc|sys|etc|usr|boot)(/|$)", directory):
        found.append(
            f"{_NAME}directory is {directory}, which is no place for backups; write one on a disk of their own, such as /srv/backup"
        )
    for name, least, most in (
        ("port", 1, 65535),
        ("minimum_free_megabytes", 64, 10**8),
        ("verify_sets", 1, 1000),
        ("late_hours", 1, 24 * 31),
    ):
        if not is_whole(config[name], least, most):
            found.append(f"{_NAME}{name} is {config[name]!r}; write a whole number from {least} to {most}")
    addresses = config["listen_addresses"]
    if not isinstance(addresses, (list, tuple)) or not addresses or not all(is_address(one) for one in addresses):
        found.append(f"{_NAME}listen_addresses is {addresses!r}; write addresses, such as [0.0.0.0, '::']")
    hosts = config["hosts"]
    if not isinstance(hosts, (list, tuple)) or not hosts:
        found.append(
            f"{_NAME}hosts is {'empty' if isinstance(hosts, (list, tuple)) else in_words(hosts)}; write the hosts whose sets are kept"
        )
        return found
    names = [item.get("name") if isinstance(item, t.Mapping) else None for item in hosts]
    found += [f"{_NAME}hosts has {name} twice; write each host once" for name in sorted({str(n) for n in names if names.count(n) > 1})]
    for position, item in enumerate(hosts):
        found += _host(position, item, check)
    return found


def _host(position: int, item: t.Any, check: bool) -> t.Iterator[str]:
    where = f"{_NAME}hosts[{position}]"
    if not isinstance(item, t.Mapping) or not isinstance(item.get("name"), str) or not form.is_host(item["name"]):
        yield f"{where} has no good name; write what the host is called in its sets, of small letters, digits, dots and hyphens"
        return
    where = f"{_NAME}hosts: {item['name']}"
    copied = item.get("copied", False)
    if not isinstance(copied, bool):
        yield f"{where} has copied that is {in_words(copied)}; write true or false"
    elif copied and item.get("transfer_key"):
        yield f"{where} is copied and has a transfer_key; its sets come from another store or from the host, leave out one of them"
    for key, fact in (("transfer_key", "transfer"), ("signing_key", "signing")):
        value = item.get(key)
        if key == "transfer_key" and copied:
            continue
        if not (isinstance(value, str) and (_KEY.fullmatch(value) or (check and not value))):
            yield f"{where} has no {key}; run the role backup with tasks_from: keys there, then it is __backup_pairs.public.{fact}"
    before = item.get("signing_keys_before") or []
    if not isinstance(before, (list, tuple)) or not all(isinstance(key, str) and _KEY.fullmatch(key) for key in before):
        yield f"{where} has signing_keys_before that are no public keys; write a list of 'ssh-ed25519 AAAA...'"
    if item.get("transfer_key") and item.get("transfer_key") == item.get("signing_key"):
        yield f"{where} has one key for both; who may send could sign, write two"
    readers = item.get("readers", [])
    if not isinstance(readers, (list, tuple)) or not all(
        isinstance(key, str) and (_KEY.fullmatch(key) or (check and not key)) for key in readers
    ):
        yield f"{where} has readers that are no list of keys; run the role restore_drill with tasks_from: keys there, it tells them"
    elif set(readers) & {item.get("transfer_key"), item.get("signing_key")} - {""}:
        yield f"{where} could read its own sets with the key by which it sends them; leave it out of readers"
    if not is_whole(item.get("quota_gigabytes"), 1, 10**6):
        yield f"{where} has the quota_gigabytes {item.get('quota_gigabytes')!r}; write how much of the disk it may use"
    yield from _retention(where, item.get("retention"))


def _retention(where: str, value: t.Any) -> t.Iterator[str]:
    if isinstance(value, str):
        if value not in PRESETS:
            yield f"{where} has the retention {value!r}; write {' or '.join(map(repr, sorted(PRESETS)))}, or a mapping of numbers"
        return
    if not isinstance(value, t.Mapping) or set(value) - set(Rules._fields):
        yield f"{where} has a retention that is {in_words(value)} of other keys than {', '.join(Rules._fields)}; write these"
        return
    for key in Rules._fields[:5]:
        if not is_whole(value.get(key), 0, 10**5):
            yield f"{where} has no whole number {key} in its retention; write one, 0 for none"
            return
    if int(value["minimum_count"]) < 1 or int(value["minimum_days"]) < 1:
        yield f"{where} has a retention that could remove the last set; write minimum_count and minimum_days of 1 or more"
