# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role data_volume.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._volume_keys import beside
from ansible_collections.civitas.hosting.plugins.module_utils._volume_setup import ENCRYPTIONS, FILE_SYSTEMS
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Binding, size_of
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_loopback, is_whole, unknown_keys

_NAME = "data_volume_"
_DEVICE = re.compile(
    r"/dev/disk/by-(?:id|path|uuid|label|partuuid|partlabel)/[A-Za-z0-9._:+=-]+"
    r"|/dev/mapper/[A-Za-z0-9._+-]+"
    r"|/dev/(?!disk/|mapper/|fd/|pts/|shm/|input/|snd/)[A-Za-z0-9._+-]+/[A-Za-z0-9._+-]+"
    r"|(?:UUID|LABEL|PARTUUID|PARTLABEL)=[A-Za-z0-9._-]+"
)
_PATH = re.compile(r"(?:/[A-Za-z0-9_][A-Za-z0-9._-]*)+")
# Whoever hides one of these loses the host.
_SYSTEM = re.compile(r"/(?:bin|boot|dev|etc|lib|lib32|lib64|libx32|proc|root|run|sbin|sys|tmp|usr)(?:/|$)")
_WHOLE = ("/", "/home", "/srv", "/var", "/var/lib", "/var/lib/civitas", "/var/lib/dpkg", "/var/lib/systemd", "/var/log", "/opt")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{27}|[A-Za-z0-9_-]{43}")
_UNIT = re.compile(r"[A-Za-z0-9:_.-]+@?\.(?:service|socket|timer|target|path)")
_OWNER = re.compile(r"[a-z_][a-z0-9_-]*")
_PCRS = re.compile(r"(?:[0-9]|1[0-9]|2[0-3])(?:,(?:[0-9]|1[0-9]|2[0-3]))*|")
_SHORTEST = 16


def problems(config: t.Mapping[str, t.Any], own: t.Collection[str] = ()) -> t.List[str]:
    """Return one sentence per problem, each with what to write. Says nothing of a passphrase but how long it is.

    Args:
        config: the variables C(data_volume_...) without that prefix.
        own: names and addresses of the host, where somebody else judges it. The host itself judges what the volume really opens by.
    """
    found = []
    device = config["device"]
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        why = ", whose name may be another disk's after a restart" if isinstance(device, str) and device.startswith("/dev/") else ""
        found.append(f"{_NAME}device is {device!r}{why}; write a path below /dev/disk/by-id, a logical volume, UUID=... or LABEL=...")
    if not _is_place(config["path"]):
        found.append(f"{_NAME}path is {config['path']!r}; write a directory of its own, such as /srv/data")
    if config["filesystem"] not in FILE_SYSTEMS:
        found.append(f"{_NAME}filesystem is {config['filesystem']!r}; write one of {', '.join(FILE_SYSTEMS)}")
    wrong = list(_encryption(config["encryption"]))
    found += wrong or list(_beside(config["encryption"], own))
    found += _swap(config["swap_size"], bool(config["encryption"]))
    return [*found, *_directories(config["path"], config["directories"])]


def _is_place(path: t.Any) -> bool:
    return isinstance(path, str) and bool(_PATH.fullmatch(path)) and not _SYSTEM.match(path) and path not in _WHOLE


def _encryption(value: t.Any) -> t.Iterator[str]:
    where = f"{_NAME}encryption"
    if not isinstance(value, t.Mapping):
        yield f"{where} is {in_words(value)}; write a mapping with by and passphrase, or {{}} for a volume in the clear"
        return
    if not value:
        return
    yield from unknown_keys(where, value, ("by", "passphrase", "servers", "threshold", "pcrs"))
    by = value.get("by")
    if by not in ENCRYPTIONS[1:]:
        yield f"{where} has by: {by!r}; write one of {', '.join(ENCRYPTIONS[1:])}"
    passphrase = value.get("passphrase")
    if not isinstance(passphrase, str) or len(passphrase) < _SHORTEST or re.search(r"[\r\n]", passphrase):
        yield f"{where} has no passphrase in one line of {_SHORTEST} characters or more; take a generated one from the secrets file"
    for key, owner in (("servers", "tang"), ("threshold", "tang"), ("pcrs", "tpm2")):
        if key in value and by != owner:
            yield f"{where} has {key}, and by: {by}; write by: {owner}, or leave {key} out"
    if by == "tang":
        yield from _servers(where, value.get("servers"), value.get("threshold", 1))
    pcrs = value.get("pcrs", "7")
    if not isinstance(pcrs, str) or not _PCRS.fullmatch(pcrs):
        yield f"{where} has pcrs: {pcrs!r}; write numbers from 0 to 23 with commas between, in quotes"


def _swap(size: t.Any, encrypted: bool) -> t.Iterator[str]:
    wanted = size_of(size)
    if wanted is None:
        yield f'{_NAME}swap_size is {size!r}; write one such as 2G or 512M, or "0" for none'
    elif wanted and not encrypted:
        yield (
            f"{_NAME}swap_size is {size}, and the volume is not encrypted: memory would lie on its disk in the clear. Write encryption as "
            "well, or leave it out"
        )


def _beside(value: t.Mapping[str, t.Any], own: t.Collection[str]) -> t.Iterator[str]:
    """Whether the key would lie where the data are. C(value) is sound."""
    if own and value.get("by") == "tang":
        servers = tuple(server["url"] for server in value["servers"])
        local = beside(Binding("tang", servers, int(value.get("threshold", 1))), lambda url: _is_one_of(urlsplit(url).hostname, own))
        if local:
            yield f"{_NAME}encryption has servers of which {local}; write servers that are other machines"


def _is_one_of(host: t.Optional[str], own: t.Collection[str]) -> bool:
    return is_loopback(host) or host in {name.lower() for name in own}


def _servers(name: str, servers: t.Any, threshold: t.Any) -> t.Iterator[str]:
    if not isinstance(servers, (list, tuple)) or not servers:
        yield f"{name} has no servers; write those that open the volume, each with url and thumbprint"
        return
    for position, server in enumerate(servers):
        where = f"{name}.servers[{position}]"
        if not isinstance(server, t.Mapping):
            yield f"{where} is {in_words(server)}; write url and thumbprint"
            continue
        yield from unknown_keys(where, server, ("url", "thumbprint"))
        if not _is_url(server.get("url")):
            yield f"{where} has the url {server.get('url')!r}; write one such as http://tang.example.org"
        if not isinstance(server.get("thumbprint"), str) or not _THUMBPRINT.fullmatch(server["thumbprint"]):
            yield f"{where} has no thumbprint; 'tang-show-keys' on that server shows it, and whoever answers in its place is refused"
    if not is_whole(threshold, 1, len(servers)):
        yield f"{name} has the threshold {threshold!r}; write how many of the {len(servers)} servers must answer"


def _is_url(url: t.Any) -> bool:
    if not isinstance(url, str) or re.search(r"[\s'\"\\]", url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0 and not parts.query
    except ValueError:
        return False


def _directories(path: t.Any, directories: t.Any) -> t.Iterator[str]:
    if not isinstance(directories, (list, tuple)):
        yield f"{_NAME}directories is {in_words(directories)}; write a list of directories, each with its path"
        return
    paths: t.List[str] = []
    for position, item in enumerate(directories):
        where = f"{_NAME}directories[{position}]"
        if not isinstance(item, t.Mapping) or not _is_place(item.get("path")):
            yield f"{where} has no path that could lie on a volume of its own; write one such as /var/lib/postgresql"
            continue
        where = f"{_NAME}directories: {item['path']}"
        # Declarations bring a name and a role as well.
        yield from unknown_keys(where, item, ("path", "owner", "group", "mode", "units", "name", "role"))
        for key in ("owner", "group"):
            if item.get(key) and not (isinstance(item[key], str) and _OWNER.fullmatch(item[key])):
                yield f"{where} has the {key} {item[key]!r}; write a name"
        if item.get("mode") and not (isinstance(item["mode"], str) and re.fullmatch(r"0?[0-7]{3}", item["mode"])):
            yield f'{where} has the mode {item["mode"]!r}; write it in quotes, such as "0700"'
        units = item.get("units") or []
        if not isinstance(units, (list, tuple)) or not all(isinstance(unit, str) and _UNIT.fullmatch(unit) for unit in units):
            yield f"{where} has the units {units!r}; write names such as postgresql.service"
        for other in paths:
            if item["path"] == other or item["path"].startswith(f"{other}/") or other.startswith(f"{item['path']}/"):
                yield f"{where} lies in {other} or is it, which is on the volume as well; write one of them"
        paths.append(item["path"])
        if isinstance(path, str) and (item["path"] == path or path.startswith(f"{item['path']}/")):
            yield f"{where} is where the volume itself is mounted; write another {_NAME}path"
