# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role monitoring, before any host is asked.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import re
import typing as t
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils import _alert_receivers
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_mail_address

Config = t.Mapping[str, t.Any]
Found = t.Iterator[str]

PROBES = ("http", "tcp", "icmp", "tls")
# Labels that the configuration itself gives.
OWN_LABELS = ("job", "instance", "host", "probe", "target", "alertname", "severity")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9a-fA-F:]*:[0-9a-fA-F:.]+")
_PAIR = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")
_MODULE = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)+")
_DIGEST_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")


def problems(config: Config) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables of the role without their prefix. Options that were left out may be missing or None.
    """
    return [*_numbers(config), *_targets(config["targets"]), *_probes(config["probes"]), *_urls(config), *_page(config)]


def _whole(where: str, value: t.Any, least: int, most: int) -> Found:
    if isinstance(value, bool) or not re.fullmatch("[0-9]{1,9}", str(value)) or not least <= int(str(value)) <= most:
        yield f"{where} is {value!r}; write a whole number from {least} to {most}"


def _numbers(config: Config) -> Found:
    yield from _whole("monitoring_interval", config["interval"], 15, 300)
    yield from _whole("monitoring_retention_days", config["retention_days"], 15, 3660)
    yield from _whole("monitoring_heartbeat_minutes", config["heartbeat_minutes"], 1, 60)
    try:
        fits = 0.05 <= float(config["retention_share"]) <= 0.8
    except (TypeError, ValueError):
        fits = False
    if not fits:
        yield f"monitoring_retention_share is {config['retention_share']!r}; write a share of the disk from 0.05 to 0.8"
    if not _PATH.fullmatch(str(config["ca_file"])):
        yield f"monitoring_ca_file is {config['ca_file']!r}; write an absolute path on the host"
    for key in ("client_certificate", "host_name"):
        if not _NAME.fullmatch(str(config[key])):
            yield f"monitoring_{key} is {config[key]!r}; write letters, digits, -, . and _"


def _twice(values: t.Iterable[t.Any]) -> t.List[str]:
    listed = [str(value) for value in values]
    return sorted({value for value in listed if listed.count(value) > 1})


# --- who is asked


def _targets(targets: t.Sequence[Config]) -> Found:
    for name in _twice(target.get("name") for target in targets):
        yield f"monitoring_targets has the name {name} twice; write each host once, with all its modules"
    for number, target in enumerate(targets):
        where = f"monitoring_targets[{number}]"
        if not _NAME.fullmatch(str(target.get("name"))):
            yield f"{where}.name is {target.get('name')!r}; write the name of the host"
            continue
        where = f"monitoring_targets, {target['name']}"
        if not _HOST.fullmatch(str(target.get("address"))):
            yield f"{where}: address is {target.get('address')!r}; write an address or a name, without a port"
        if target.get("port") is not None:
            yield from _whole(f"{where}: port", target["port"], 1, 65535)
        if target.get("tls_name") and not _HOST.fullmatch(str(target["tls_name"])):
            yield f"{where}: tls_name is {target['tls_name']!r}; write a name that its certificate is for"
        for module in target.get("modules") or []:
            if not _MODULE.fullmatch(str(module)):
                yield f"{where}: modules has {module!r}; write names of exporters such as node"
        for module in _twice(target.get("modules") or []):
            yield f"{where}: modules has {module} twice; write it once"
        for label in target.get("labels") or {}:
            if not _LABEL.fullmatch(str(label)) or label in OWN_LABELS:
                yield f"{where}: labels has {label!r}; write small letters and _, and none of {', '.join(OWN_LABELS)}"


def _probes(probes: t.Sequence[Config]) -> Found:
    for name in _twice(probe.get("name") for probe in probes):
        yield f"monitoring_probes has the name {name} twice; choose another"
    for number, probe in enumerate(probes):
        if not _NAME.fullmatch(str(probe.get("name"))):
            yield f"monitoring_probes[{number}].name is {probe.get('name')!r}; write letters, digits, -, . and _"
            continue
        yield from _probe(f"monitoring_probes, {probe['name']}", probe)


def _probe(where: str, probe: Config) -> Found:
    kind, target = probe.get("type"), str(probe.get("target"))
    if kind not in PROBES:
        yield f"{where}: type is {kind!r}; write one of {', '.join(PROBES)}"
        return
    if kind == "http":
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\s\"'\\]", target):
            yield f"{where}: target is {target!r}; write an address such as https://records.example.org/"
        elif parts.username or parts.password:
            yield f"{where}: target holds a password, which everybody who sees the page would read; probe an address that needs none"
    elif kind == "icmp" and not _HOST.fullmatch(target):
        yield f"{where}: target is {target!r}; write an address or a name"
    elif kind in ("tcp", "tls"):
        match = _PAIR.fullmatch(target)
        if not match or not 0 < int(match["port"]) < 65536:
            yield f"{where}: target is {target!r}; write address:port such as 10.0.0.5:22"
    for key, kinds in (
        ("statuses", ("http",)),
        ("contains", ("http",)),
        ("expect", ("tcp",)),
        ("ca_file", ("http", "tls")),
        ("tls_name", ("http", "tls")),
    ):
        if probe.get(key) and kind not in kinds:
            yield f"{where}: {key} is for {' and '.join(kinds)}; remove it"
    if probe.get("ca_file") and not _PATH.fullmatch(str(probe["ca_file"])):
        yield f"{where}: ca_file is {probe['ca_file']!r}; write an absolute path on the host"
    if probe.get("timeout") is not None:
        # Prometheus itself waits for ten seconds.
        yield from _whole(f"{where}: timeout", probe["timeout"], 1, 9)
    for status in probe.get("statuses") or []:
        yield from _whole(f"{where}: statuses", status, 100, 599)


# --- who is told


def _urls(config: Config) -> Found:
    yield from _alert_receivers.problems(config["receivers"], "monitoring_receivers")
    yield from _whole("monitoring_bridge_port", config["bridge_port"], 1024, 65535)
    if config["mail_from"] and not is_mail_address(config["mail_from"]):
        yield f"monitoring_mail_from is {config['mail_from']!r}; write an address such as monitoring@example.org, or nothing"
    if not str(config["runbooks"]).endswith("/") or re.search(r"[\s\"'<>]", str(config["runbooks"])):
        yield f"monitoring_runbooks is {config['runbooks']!r}; write a directory or an address that ends in /"
    if config["heartbeat_url"]:
        # Its value is a secret: who knows it can keep the outside silent.
        parts = urlsplit(str(config["heartbeat_url"]))
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", str(config["heartbeat_url"])):
            yield "monitoring_heartbeat_url is no address; write the one that the service outside gave you, such as https://hc.example.org/ping/KEY"


def _page(config: Config) -> Found:
    if not config["page_name"]:
        return
    if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", str(config["page_name"])):
        yield f"monitoring_page_name is {config['page_name']!r}; write a DNS name in lower case such as monitoring.example.org"
    if not config["page_users"]:
        yield "monitoring_page_users is empty, so nobody could see the page; write at least one user, or no monitoring_page_name"
    for name in _twice(user.get("name") for user in config["page_users"]):
        yield f"monitoring_page_users has {name} twice; write one password for each"
    for number, user in enumerate(config["page_users"]):
        if not _DIGEST_USER.fullmatch(str(user.get("name"))):
            yield f"monitoring_page_users[{number}].name is {user.get('name')!r}; write letters, digits, -, . and _"
        if len(str(user.get("password") or "")) < 12:
            yield f"monitoring_page_users[{number}].password has fewer than 12 characters; write a longer one"
