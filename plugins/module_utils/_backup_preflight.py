# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role backup.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_address, is_host_name, is_loopback, is_whole

_NAME = "backup_"
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp[0-9]{3}|ssh-rsa) [A-Za-z0-9+/]{40,}={0,2}")
_SOURCES = {
    "files": "{name: documents, path: /srv/documents}",
    "postgres": "{name: main, databases: [records]}",
    "commands": "{name: export, run: [docker, exec, app, export]}",
}
# Trees in which records do not lie, and which never end or never stand still.
_NO_TREE = ("/", "/proc", "/sys", "/dev", "/run", "/tmp")


def problems(config: t.Mapping[str, t.Any], check: bool = False) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables C(backup_...) without that prefix.
        check: in check mode the store, and a host that drills restores, may have no keys yet.
    """
    found = []
    if not isinstance(config["host"], str) or not form.is_host(config["host"]):
        found.append(f"{_NAME}host is {config['host']!r}; write small letters, digits, dots and hyphens")
    found += _recipients(config["recipients"], check)
    found += store_problems(config, _NAME, "a backup beside the data is lost with it", check)
    for name, least, most, example in (
        ("target_port", 1, 65535, "2022"),
        ("bandwidth_kib", 0, 10**8, "512, or 0 for no limit"),
        ("late_hours", 1, 24 * 31, "26"),
        ("full_days", 1, 3650, "90"),
        ("minimum_free_megabytes", 64, 10**8, "1024"),
    ):
        if not is_whole(config[name], least, most):
            found.append(f"{_NAME}{name} is {config[name]!r}; write a whole number from {least} to {most}, such as {example}")
    found += sources(config, _NAME, _SOURCES)
    if not any(config[kind] for kind in _SOURCES):
        found.append(f"{_NAME}files, {_NAME}postgres and {_NAME}commands are empty, so the backups would be; write what is to be backed up")
    return found


def _recipients(value: t.Any, check: bool) -> t.Iterator[str]:
    advice = "write public keys of age, which 'age-keygen' prints; they begin with age1"
    if not isinstance(value, (list, tuple)) or not value:
        yield f"{_NAME}recipients is {in_words(value) if not isinstance(value, (list, tuple)) else 'empty'}; {advice}"
        return
    for position, one in enumerate(value):
        # What is no public key may be a private one, and is not repeated.
        if isinstance(one, str) and one.startswith("AGE-SECRET-KEY-"):
            yield f"{_NAME}recipients[{position}] is a private key, which now lies in the inventory; write the public key of a new pair"
        elif not isinstance(one, str) or not (_RECIPIENT.fullmatch(one) or (check and not one)):
            yield f"{_NAME}recipients[{position}] is no public key of age; {advice}"
    if len(set(map(str, value))) < len(value):
        yield f"{_NAME}recipients has a key twice; write each once"


def store_problems(config: t.Mapping[str, t.Any], prefix: str, here: str, check: bool) -> t.Iterator[str]:
    """What is wrong with the way to a store.

    Args:
        config: C(target_address), C(target_host_keys) and C(ssh_options).
        prefix: of the role's variables.
        here: why the store must not be this host itself.
        check: in check mode the store may have no keys yet.
    """
    address = config["target_address"]
    if not is_host_name(address) and not is_address(address):
        yield f"{prefix}target_address is {address!r}; write the name or address of the host that keeps the sets"
    elif is_loopback(address):
        yield f"{prefix}target_address is {address}, this host itself; {here}, write another host"
    keys = config["target_host_keys"]
    if not isinstance(keys, (list, tuple)) or not (keys or check):
        yield f"{prefix}target_host_keys is empty; run the role backup_store on the store before, it tells its host keys"
    elif not all(isinstance(key, str) and (_HOST_KEY.fullmatch(key) or (check and not key)) for key in keys):
        yield f"{prefix}target_host_keys has what is no host key; write 'ssh-ed25519 AAAA...'"
    options = config["ssh_options"]
    if not isinstance(options, (list, tuple)) or not all(isinstance(word, str) and word for word in options):
        yield f"{prefix}ssh_options is {in_words(options)}; write words, such as [-J, gate.example.org]"
    else:
        loose = [word for word in options if re.search(r"(?i)stricthostkeychecking|knownhosts|checkhostip", word)]
        if loose:
            yield f"{prefix}ssh_options has {loose[0]!r}; whose key the store has is decided by {prefix}target_host_keys alone, remove it"


def sources(config: t.Mapping[str, t.Any], prefix: str, kinds: t.Mapping[str, str]) -> t.Iterator[str]:
    """What is wrong with sources.

    Args:
        prefix: of the role's variables.
        kinds: those that it has, each with an example of an item.
    """
    for kind, example in kinds.items():
        items = config[kind]
        if not isinstance(items, (list, tuple)):
            yield f"{prefix}{kind} is {in_words(items)}; write a list such as [{example}]"
            continue
        names = [item.get("name") if isinstance(item, t.Mapping) else None for item in items]
        if not all(isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name) for name in names):
            yield f"{prefix}{kind} has an item without a good name; write one of letters, digits, dots, _ and -, such as {example}"
            continue
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        yield from (f"{prefix}{kind} has {name} twice; give each a name of its own" for name in twice)
        for item in items:
            yield from _source(f"{prefix}{kind}: {item['name']}", kind, item, example)


def _source(where: str, kind: str, item: t.Mapping[str, t.Any], example: str) -> t.Iterator[str]:
    if kind == "files":
        path = item.get("path")
        if not isinstance(path, str) or not path.startswith("/") or path != "/" + "/".join(part for part in path.split("/") if part):
            yield f"{where} has the path {path!r}; write an absolute one without a slash at its end, such as /srv/documents"
        elif path in _NO_TREE or ".." in path.split("/"):
            yield f"{where} has the path {path}, which is no tree of records; write the directory in which they lie"
    elif kind == "postgres":
        databases = item.get("databases")
        if not isinstance(databases, (list, tuple)) or not databases or not all(isinstance(one, str) and one for one in databases):
            yield f"{where} names no databases; write those that must be there, such as {example}"
        elif set(databases) & set(item.get("exclude") or ()):
            yield f"{where} names databases under databases and exclude; write each in one of them"
    else:
        run = item.get("run")
        if not isinstance(run, (list, tuple)) or not run or not all(isinstance(word, str) and word for word in run):
            yield f"{where} has no command in run; write one word an item, such as {example}"
