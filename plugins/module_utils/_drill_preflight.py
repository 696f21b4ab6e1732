# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role restore_drill.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_preflight import store_problems
from ansible_collections.civitas.hosting.plugins.module_utils._policy import POLICIES
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_whole

_NAME = "restore_drill_"
_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]{40,}={0,2}")
# These keep the server of a drill away from people and from the host's own.
_OWN = {"listen_addresses", "port", "unix_socket_directories", "data_directory", "hba_file", "config_file", "unix_socket_permissions"}


def problems(config: t.Mapping[str, t.Any], check: bool = False) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables C(restore_drill_...) without that prefix, C(restore_drill_postgres_settings) as C(settings), and
            C(is_store), whether the host keeps sets of others, and C(restores), whether it has the settings of the role restore.
        check: in check mode the store may have no keys yet, and this host no settings.
    """
    found = []
    if not isinstance(config["host"], str) or not form.is_host(config["host"]):
        found.append(f"{_NAME}host is {config['host']!r}; write small letters, digits, dots and hyphens")
    if config["environment"] not in POLICIES:
        found.append(f"{_NAME}environment is {config['environment']!r}; write one of {', '.join(sorted(POLICIES))}")
    for name, least, most, example in (
        ("target_port", 1, 65535, "2022"),
        ("late_hours", 1, 24 * 31, "26"),
        ("keep_reports", 1, 10000, "60"),
        ("minimum_free_megabytes", 64, 10**8, "1024"),
        ("memory_megabytes", 256, 10**7, "1024"),
        ("health_minutes", 0, 24 * 60, "10"),
    ):
        if not is_whole(config[name], least, most):
            found.append(f"{_NAME}{name} is {config[name]!r}; write a whole number from {least} to {most}, such as {example}")
    found += _settings(config["settings"])
    for name, example in (("anonymise", "[/usr/local/sbin/anonymise]"), ("health", "[curl, -fsS, 'http://127.0.0.1:3000/ping']")):
        value = config[name]
        if not isinstance(value, (list, tuple)) or not all(isinstance(word, str) and word for word in value):
            found.append(f"{_NAME}{name} is {in_words(value)}; write one word an item, such as {example}")
    logins = config["logins"]
    if not isinstance(logins, (list, tuple)) or not all(_is_login(one) for one in logins):
        found.append(f"{_NAME}logins has what names no database and role; write {{database: records, role: registry}}")
    return found + list(_hosts(config, check))


def _is_login(value: t.Any) -> bool:
    return (
        isinstance(value, t.Mapping) and set(value) == {"database", "role"} and all(isinstance(one, str) and one for one in value.values())
    )


def _settings(value: t.Any) -> t.Iterator[str]:
    if not isinstance(value, t.Mapping):
        yield f"{_NAME}postgres_settings is {in_words(value)}; write a mapping such as {{shared_preload_libraries: pg_cron}}"
        return
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[a-z_][a-z0-9_]*(\.[a-z0-9_]+)*", name):
            yield f"{_NAME}postgres_settings has {name!r}, which is no name of a setting"
        elif name in _OWN:
            yield f"{_NAME}postgres_settings has {name}, by which the server of a drill is kept from others; leave it out"


def _hosts(config: t.Mapping[str, t.Any], check: bool) -> t.Iterator[str]:
    hosts = config["hosts"]
    if not isinstance(hosts, (list, tuple)) or not all(isinstance(one, t.Mapping) for one in hosts):
        yield f"{_NAME}hosts is {in_words(hosts)}; write a list such as [{{name: records1, signing_keys: [ssh-ed25519 AAAA...]}}]"
        return
    if not hosts:
        return
    playbook = "leave it empty, and drill with the playbook restore_drill, which brings the key and takes it away again"
    policy = POLICIES.get(config["environment"])
    if policy is not None and not policy.periodic_restore:
        yield f"{_NAME}hosts is written, and a host of the kind {policy.kind!r} must not hold a key that opens backups; {playbook}"
    if config["is_store"]:
        yield f"{_NAME}hosts is written, and this host keeps sets; whoever takes it must not find a key that opens them; {playbook}"
    names = [one.get("name") for one in hosts]
    for position, one in enumerate(hosts):
        name, where = one.get("name"), f"{_NAME}hosts[{position}]"
        if not isinstance(name, str) or not form.is_host(name):
            yield f"{where} has the name {name!r}; write what the host is called in its sets"
            continue
        if names.count(name) > 1 and names.index(name) == position:
            yield f"{_NAME}hosts has {name} twice; write each host once"
        if name in (config["own_sets"], config["host"]):
            yield f"{where} is this host itself, whose data a key to its backups must not lie beside; {playbook}"
        keys = one.get("signing_keys")
        if not isinstance(keys, (list, tuple)) or not all(
            isinstance(key, str) and (_KEY.match(key) or (check and not key)) for key in keys
        ):
            yield f"{where} has signing_keys that are none; write a list of 'ssh-ed25519 AAAA...'"
        elif not keys:
            yield f"{where} has no signing_keys, so no set of it could be believed; write the key that signs its sets"
        sets = one.get("sets", "")
        if not isinstance(sets, str) or (sets and not sets.startswith("/")):
            yield f"{where} has the directory {sets!r}; write an absolute path, or nothing for the store"
        yield from _mode(where, one, config, check)
    if not all(one.get("sets") for one in hosts):
        yield from store_problems(config, _NAME, "no key may lie on it that opens the sets", check)


def _mode(where: str, one: t.Mapping[str, t.Any], config: t.Mapping[str, t.Any], check: bool) -> t.Iterator[str]:
    mode, anonymise = one.get("mode", "throw_away"), one.get("anonymise", "command")
    if mode not in ("throw_away", "replace"):
        yield f"{where} has the mode {mode!r}; write throw_away or replace"
    if anonymise not in ("command", "none"):
        yield f"{where} has anonymise {anonymise!r}; write command, or none when records of people are to come to this host as they are"
    if mode != "replace":
        return
    if anonymise == "command" and not config["anonymise"]:
        yield (
            f"{where} would bring records of people to this host as they are; write a command into {_NAME}anonymise,"
            " or 'anonymise: none' for this host when that is wanted"
        )
    if anonymise == "none" and config["anonymise"]:
        yield f"{where} has 'anonymise: none', and {_NAME}anonymise is a command; write one of the two"
    if not config["restores"] and not check:
        yield f"{where} replaces data of this host, which the role restore must know; let it run on this host before"
