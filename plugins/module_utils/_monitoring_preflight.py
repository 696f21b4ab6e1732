# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role monitoring_agent.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing as t
import urllib.parse

from ansible_collections.civitas.hosting.plugins.module_utils import _alert_receivers, _alert_rules
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import is_usable
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import (
    is_address,
    is_host_name,
    is_loopback,
    is_mail_address,
    is_whole,
)

MODES = ("light", "full")
# What systemd, and the lines that it starts programs by, take as it is.
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)+")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]+\.(?:service|socket|timer|target|mount|path|slice|swap|automount|device|scope)")
_USER = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NAME = "monitoring_agent_"


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem, each with what to write. Receivers, which hold secrets, are not quoted.

    Args:
        config: the variables C(monitoring_agent_...) without that prefix.
    """
    found = []
    if config["mode"] not in MODES:
        found.append(f"{_NAME}mode is {config['mode']!r}; write light (the host judges itself) or full (a monitoring host does)")
    for name in ("metrics_directory", "certificate_file", "key_file", "ca_file"):
        if not _is_path(config[name]):
            found.append(f"{_NAME}{name} is {config[name]!r}; write a path on the host of letters, digits, dots, hyphens and underscores")
    if _is_path(config["metrics_directory"]) and re.match(r"/(run|tmp|dev|proc|sys)(/|$)", config["metrics_directory"]):
        found.append(f"{_NAME}metrics_directory is {config['metrics_directory']}, which a reboot empties; write a directory on disk")
    found += _watched(config)
    found += _judged(config)
    found += sender_problems(config["mail_from"])
    found += _asked(config) if config["mode"] == "full" else []
    return found


def _is_path(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_PATH.fullmatch(value)) and ".." not in value.split("/")


def _is_list(value: t.Any) -> bool:
    return isinstance(value, (list, tuple))


def _watched(config: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    for name, example in (("units", "[nginx.service]"), ("mounts", "[/srv]"), ("containers", "[{project: shop, services: [web]}]")):
        if not _is_list(config[name]):
            yield f"{_NAME}{name} is {in_words(config[name])}; write a list such as {example}"
    for unit in config["units"] if _is_list(config["units"]) else []:
        if not isinstance(unit, str) or not _UNIT.fullmatch(unit):
            yield f"{_NAME}units has {unit!r}; write the full name of a unit, such as nginx.service"
    for mount in config["mounts"] if _is_list(config["mounts"]) else []:
        if not isinstance(mount, str) or not mount.startswith("/") or (mount.endswith("/") and mount != "/") or "//" in mount:
            yield f"{_NAME}mounts has {mount!r}; write a directory without a slash at its end, such as /srv"
    for item in config["containers"] if _is_list(config["containers"]) else []:
        services = item.get("services") if isinstance(item, t.Mapping) else None
        words = [item.get("project"), *services] if isinstance(item, t.Mapping) and _is_list(services) and services else [None]
        if not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
            yield f"{_NAME}containers has {item!r}; write a project and its services, such as {{project: shop, services: [web, db]}}"
    if not isinstance(config["components"], t.Mapping):
        yield f"{_NAME}components is {in_words(config['components'])}; write a mapping such as {{Solr 9: '2027-12-31'}}"
        return
    for name, day in config["components"].items():
        try:
            datetime.datetime.strptime(day if isinstance(day, str) else "", "%Y-%m-%d")
        except ValueError:
            yield f"{_NAME}components has {day!r} for {name}; write the last day of its support in quotes, such as '2027-12-31'"


def _judged(config: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    for name in ("rules", "receivers"):
        if not _is_list(config[name]):
            yield f"{_NAME}{name} is {in_words(config[name])}; write a list"
    if config["heartbeat_url"] and not is_usable(config["heartbeat_url"]):
        # Its value is a secret: who knows it can keep the outside silent.
        yield f"{_NAME}heartbeat_url is no usable address; write the one that the service outside gave you; it must be https"
    if not config["evaluate"]:
        if config["heartbeat_url"]:
            yield f"{_NAME}heartbeat_url is given, and the host does not judge itself; write monitoring_agent_evaluate: true, or remove it"
        return
    if _is_list(config["rules"]):
        yield from (text.replace("alerts:", f"{_NAME}rules:", 1) for text in _alert_rules.problems(config["rules"]))
    if _is_list(config["receivers"]):
        yield from _alert_receivers.problems(config["receivers"], f"{_NAME}receivers")
    if config["rules"] in ([], ()):
        yield (
            f"{_NAME}rules is empty, so no alarm could ring; write "
            "\"{{ lookup('civitas.hosting.declarations', 'base', 'monitoring_agent', kind='alerts') }}\", with all roles of the host"
        )
    if config["receivers"] in ([], ()):
        yield f"{_NAME}receivers is empty, so nobody would be told; write [{{name: team, email: {{to: [admins@example.org]}}}}]"


def sender_problems(value: t.Any) -> t.Iterator[str]:
    """A name of the host's relay, or an address. It becomes a line of each message."""
    if not is_mail_address(value) and not (isinstance(value, str) and _USER.fullmatch(value)):
        yield f"{_NAME}mail_from is {value!r}; write an address in plain letters such as monitoring@example.org, or root"


def _asked(config: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    if not is_whole(config["port"], 1, 65535):
        yield f"{_NAME}port is {config['port']!r}; write a number from 1 to 65535"
    if not is_host_name(config["server_name"]) or is_address(config["server_name"]):
        yield f"{_NAME}server_name is {config['server_name']!r}; write a name that the internal CA may sign for, such as server1.internal"
    names, addresses = config["client_names"], config["client_addresses"]
    if not _is_list(names) or not names:
        yield f"{_NAME}client_names is {names!r}, so no certificate would be right; write the monitoring host's, [monitoring.internal]"
    for name in names if _is_list(names) else []:
        if not is_host_name(name):
            yield f"{_NAME}client_names has {name!r}; write a name as it stands in the monitoring host's certificate"
    if not _is_list(addresses) or not addresses:
        yield f"{_NAME}client_addresses is {addresses!r}, so nobody could ask; write the monitoring host's, such as [192.0.2.10]"
    for address in addresses if _is_list(addresses) else []:
        if not _is_network(address):
            yield f"{_NAME}client_addresses has {address!r}; write the address of a monitoring host, such as 192.0.2.10"
    yield from _status_url(config["nginx_status_url"])


def _is_network(value: t.Any) -> bool:
    try:
        return isinstance(value, str) and bool(ipaddress.ip_network(value))
    except ValueError:
        return False


def _status_url(url: t.Any) -> t.Iterator[str]:
    try:
        parts = urllib.parse.urlsplit(url)
        good = parts.scheme == "http" and is_loopback(parts.hostname) and not parts.username and not re.search(r"[\s\"'\\%$]", url)
    except (AttributeError, TypeError, ValueError):
        good = False
    if url and not good:
        yield f"{_NAME}nginx_status_url is {url!r}; write an address on loopback without a login, such as http://127.0.0.1:8081/status"
