# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role logs.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import (
    is_address,
    is_host_name,
    is_loopback,
    is_whole,
    unknown_keys,
)

LEAST_DAYS = 90
# What journalctl, file systems and systemd take as it is.
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)+")


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables C(logs_...) without that prefix.
    """
    found = []
    if not is_whole(config["keep_days"], LEAST_DAYS, 3660):
        found.append(f"logs_keep_days is {config['keep_days']!r}; write a number from {LEAST_DAYS} to 3660")
    for name in ("port", "sender_megabytes_per_day"):
        most = {"port": 65535, "sender_megabytes_per_day": 65536}[name]
        if not is_whole(config[name], 1, most):
            found.append(f"logs_{name} is {config[name]!r}; write a number from 1 to {most}")
    for name in ("metrics_directory", "certificate_file", "key_file", "ca_file"):
        if not _is_path(config[name]):
            found.append(f"logs_{name} is {config[name]!r}; write a path on the host of letters, digits, dots, hyphens and underscores")
    if not _is_tls_name(config["server_name"]):
        found.append(f"logs_server_name is {config['server_name']!r}; write a name that the internal CA may sign for, server1.internal")
    found += _identifiers(config["identifiers"])
    found += _receiver(config["receiver"], config["server_name"])
    found += _senders(config)
    return found


def _identifiers(values: t.Any) -> t.Iterator[str]:
    if not isinstance(values, (list, tuple)):
        yield f"logs_identifiers is {in_words(values)}; write a list such as [vpn-gateway]"
        return
    for value in values:
        if not isinstance(value, str) or not _IDENTIFIER.fullmatch(value):
            yield f"logs_identifiers has {value!r}; write a name as 'journalctl -t' takes it, such as vpn-gateway"


def _receiver(receiver: t.Any, own_name: t.Any) -> t.Iterator[str]:
    if not isinstance(receiver, t.Mapping):
        yield f"logs_receiver is {in_words(receiver)}; write a mapping with name, address and tls_name, or {{}} for none"
        return
    if not receiver:
        return
    yield from unknown_keys("logs_receiver", receiver, ("name", "address", "port", "tls_name"))
    name, address, tls_name = (receiver.get(key, "") for key in ("name", "address", "tls_name"))
    if not isinstance(name, str) or not name or not name.isprintable():
        yield f"logs_receiver.name is {name!r}; write the name of that host, such as watch-1"
    if is_loopback(address) or (tls_name and tls_name == own_name):
        yield "logs_receiver is this host itself, which could rewrite it; write another host, or {} for none"
    elif not (is_address(address) or is_host_name(address)):
        yield f"logs_receiver.address is {address!r}; write the address by which this host reaches it, such as 192.0.2.10"
    if not _is_tls_name(tls_name):
        yield f"logs_receiver.tls_name is {tls_name!r}; write the name in its certificate, such as watch-1.internal"
    if not is_whole(receiver.get("port", 9997), 1, 65535):
        yield f"logs_receiver.port is {receiver['port']!r}; write a number from 1 to 65535, its logs_port"


def _senders(config: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    receive, senders = config["receive"], config["senders"]
    if not isinstance(receive, bool):
        yield f"logs_receive is {receive!r}; write true or false"
        return
    if not isinstance(senders, (list, tuple)):
        yield f"logs_senders is {in_words(senders)}; write a list such as [{{name: server1, tls_name: server1.internal}}]"
        return
    if receive and not senders:
        yield "logs_senders is empty, so every host would be refused; write [{name: server1, tls_name: server1.internal}]"
    if senders and not receive:
        yield "logs_senders is written and logs_receive is false, so nobody listens to them; write logs_receive: true, or remove them"
    names: t.Set[t.Any] = set()
    for sender in senders:
        if not isinstance(sender, t.Mapping):
            yield f"logs_senders has {in_words(sender)}; write {{name: server1, tls_name: server1.internal}}"
            continue
        yield from unknown_keys("logs_senders", sender, ("name", "tls_name"))
        name, tls_name = sender.get("name"), sender.get("tls_name")
        if not isinstance(name, str) or not _IDENTIFIER.fullmatch(name):
            yield f"logs_senders has the name {name!r}; write letters, digits, dots, hyphens and underscores, such as server1"
        if not _is_tls_name(tls_name):
            yield f"logs_senders has the tls_name {tls_name!r}; write the name in the certificate of {name}, such as server1.internal"
        if tls_name == config["server_name"]:
            yield f"logs_senders has {tls_name}, which is this host itself; remove it, its own evidence is kept anyway"
        for value in (("name", name), ("tls_name", tls_name)):
            if str(value) in names:
                yield f"logs_senders has the {value[0]} {value[1]!r} twice; each host has its own"
            names.add(str(value))


def _is_tls_name(value: t.Any) -> bool:
    return is_host_name(value) and "." in value and not is_address(value)


def _is_path(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_PATH.fullmatch(value)) and ".." not in value.split("/")
