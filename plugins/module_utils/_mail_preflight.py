# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the mail relay.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _webhook
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import (
    is_address,
    is_host_name,
    is_loopback,
    is_whole,
    unknown_keys,
)

DKIM_KEYS = ("domain", "selector")
SMARTHOST_KEYS = ("host", "port", "tls", "tls_name", "ca_file", "user", "password")
# Narrower than what mail allows: these get into tables of regular expressions.
_MAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9][A-Za-z0-9.-]{0,251}[A-Za-z0-9]")
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)+")
# Of a name in the DNS, and of files that are named after it.
_SELECTOR = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
# What nobody can send from over the internet.
_PRIVATE = tuple(ipaddress.ip_network(text) for text in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
# Name without prefix -> least, most.
_NUMBERS = {
    "message_megabytes": (1, 100),
    "minimum_free_megabytes": (2, 1_000_000),
    "queue_days": (1, 30),
    "seconds_between_messages": (0, 60),
    "client_messages_per_minute": (1, 10_000),
    "alert_minutes": (1, 1440),
    "alert_messages": (1, 1_000_000),
}


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem, each with what to write. Secrets are not quoted.

    Args:
        config: the variables C(mail_relay_...) without that prefix.
    """
    found: t.List[str] = []
    if isinstance(config["smarthost"], t.Mapping):
        found += _smarthost(config["smarthost"])
    else:
        found.append(f"mail_relay_smarthost is {in_words(config['smarthost'])}; write a mapping with host, and user and password")
    found += _addresses(config)
    found += _clients(config)
    found += _dkim(config)
    for name, (least, most) in _NUMBERS.items():
        if not is_whole(config[name], least, most):
            found.append(f"mail_relay_{name} is {config[name]!r}; write a number from {least} to {most}")
    sizes = (config["message_megabytes"], config["minimum_free_megabytes"])
    if all(is_whole(size, 1, 1_000_000) for size in sizes) and int(sizes[1]) < 2 * int(sizes[0]):
        found.append(
            f"mail_relay_minimum_free_megabytes is {sizes[1]}, too little for messages of {sizes[0]}; write {2 * int(sizes[0])} or more"
        )
    if not isinstance(config["webhook"], t.Mapping):
        found.append(f"mail_relay_webhook is {in_words(config['webhook'])}; write a mapping with url")
    elif config["webhook"]:
        found += _webhook.problems("mail_relay_webhook", config["webhook"])
    if not _is_path(config["metrics_directory"]):
        found.append(f"mail_relay_metrics_directory is {config['metrics_directory']!r}; write the path of a directory on the host")
    return found


def _smarthost(smarthost: t.Mapping[str, t.Any]) -> t.List[str]:
    found = unknown_keys("mail_relay_smarthost", smarthost, SMARTHOST_KEYS)
    host, tls, tls_name = smarthost.get("host", ""), smarthost.get("tls", "starttls"), smarthost.get("tls_name", "")
    if is_loopback(host):
        found.append(f"mail_relay_smarthost.host is {host!r}, this host itself; write the server that takes mail of your organization")
    elif is_address(host) and not tls_name:
        found.append(f"mail_relay_smarthost.host is {host!r}, an address; write the name that its certificate is for, or that as tls_name")
    elif not (is_host_name(host) or (is_address(host) and tls_name)):
        found.append(f"mail_relay_smarthost.host is {host!r}; write the name of the smarthost, such as mail.example.org")
    if tls_name and (not is_host_name(tls_name) or is_address(tls_name)):
        found.append(f"mail_relay_smarthost.tls_name is {tls_name!r}; write the name in the smarthost's certificate, or leave it out")
    if not is_whole(smarthost.get("port", 587), 1, 65535):
        found.append(f"mail_relay_smarthost.port is {smarthost['port']!r}; write a number from 1 to 65535, or leave it out")
    if tls not in ("starttls", "tls"):
        found.append(f"mail_relay_smarthost.tls is {tls!r}; write starttls (port 587) or tls (port 465); nothing is ever sent in clear")
    if not isinstance(smarthost.get("ca_file", ""), str) or (smarthost.get("ca_file") and not _is_path(smarthost["ca_file"])):
        found.append(f"mail_relay_smarthost.ca_file is {smarthost['ca_file']!r}; write the path of a file on the host, or leave it out")
    return found + _login(smarthost)


def _login(smarthost: t.Mapping[str, t.Any]) -> t.List[str]:
    found = []
    user, password = smarthost.get("user", ""), smarthost.get("password", "")
    for key, value in (("user", user), ("password", password)):
        if not isinstance(value, str):
            found.append(f"mail_relay_smarthost.{key} is {in_words(value)}; write a text, in quotes")
        elif not value.isprintable() or value != value.strip():
            found.append(f"mail_relay_smarthost.{key} begins or ends with a blank, or holds a line end; write it in one line without")
    if bool(user) != bool(password):
        found.append("mail_relay_smarthost has user or password and not the other; write both, or neither for one that asks for none")
    if isinstance(user, str) and ":" in user:
        found.append("mail_relay_smarthost.user holds a colon, which Postfix cannot log in with; ask for another login")
    return found


def _addresses(config: t.Mapping[str, t.Any]) -> t.List[str]:
    found = []
    hostname, sender = config["hostname"], config["sender"]
    if not is_host_name(hostname) or "." not in hostname or is_address(hostname):
        found.append(f"mail_relay_hostname is {hostname!r}; write a name with a domain, such as server1.example.org")
    if not _is_mail(sender):
        found.append(f"mail_relay_sender is {sender!r}; write the address that this host may send from, such as registry@example.org")
    others: t.List[t.Any] = []
    for name, example in (("allowed_senders", "[example.org, office@example.net]"), ("root_to", "[administrators@example.org]")):
        values = config[name]
        if isinstance(values, str) or not isinstance(values, (list, tuple)):
            found.append(f"mail_relay_{name} is {in_words(values)}; write a list such as {example}")
        elif name == "root_to" and not values:
            found.append(f"mail_relay_root_to is empty, so nobody would read what cron and root are told; write a list such as {example}")
        else:
            others += values
            good = [value for value in values if _is_mail(value) or (name == "allowed_senders" and _is_domain(value))]
            found += [f"mail_relay_{name} has {value!r}; write addresses, such as {example}" for value in values if value not in good]
    own = str(hostname).lower()
    for value in [sender, *others]:
        if str(value).rpartition("@")[2].lower() in (own, "localhost", "localhost.localdomain"):
            found.append(
                f"{value} is at {str(value).rpartition('@')[2]}, which is this host: its mail goes to mail_relay_root_to. "
                f"Write an address of your organization, or another mail_relay_hostname, such as server1.{own}"
            )
    return found


def _dkim(config: t.Mapping[str, t.Any]) -> t.List[str]:
    dkim = config["dkim"]
    example = "{domain: example.org, selector: registry1}"
    if not isinstance(dkim, t.Mapping):
        return [f"mail_relay_dkim is {in_words(dkim)}; write a mapping such as {example}, or {{}} when the smarthost signs"]
    if not dkim:
        return []
    found = unknown_keys("mail_relay_dkim", dkim, DKIM_KEYS)
    domain, selector = dkim.get("domain", ""), dkim.get("selector", "")
    if not isinstance(selector, str) or len(selector) > 100 or not _SELECTOR.fullmatch(selector.lower()):
        found.append(f"mail_relay_dkim.selector is {selector!r}; write letters, digits and hyphens, 63 at most, such as registry1")
    if not _is_domain(domain) or "_" in domain:
        return [*found, f"mail_relay_dkim.domain is {domain!r}; write the domain of the senders' addresses, such as example.org"]
    senders = [config["sender"], *(config["allowed_senders"] if isinstance(config["allowed_senders"], (list, tuple)) else [])]
    for sender in senders:
        there = str(sender).rpartition("@")[2].lower()
        if there and there != domain.lower() and not there.endswith(f".{domain.lower()}"):
            found.append(
                f"mail_relay_dkim.domain is {domain!r}, and {sender} is not in it, so its signatures would prove nothing to receivers; "
                "write senders of one domain, or its name as domain"
            )
    return found


def _clients(config: t.Mapping[str, t.Any]) -> t.List[str]:
    found = []
    addresses, networks = config["listen_addresses"], config["client_networks"]
    for name, values in (("listen_addresses", addresses), ("client_networks", networks)):
        if isinstance(values, str) or not isinstance(values, (list, tuple)):
            found.append(f"mail_relay_{name} is {in_words(values)}; write a list, [] for mail of the host alone")
            return found
    for value in addresses:
        if not is_address(value) or not _is_private(value):
            found.append(f"mail_relay_listen_addresses has {value!r}; write the host's address in its containers' network, 172.30.0.1")
    for value in networks:
        if not _is_private(value):
            found.append(
                f"mail_relay_client_networks has {value!r}; write the network of the containers, such as 172.30.128.0/17; "
                "a network that others can send from would make this host an open relay"
            )
    if bool(addresses) != bool(networks):
        found.append("mail_relay_listen_addresses or mail_relay_client_networks is given without the other; write both, or neither")
    return found


def _is_private(value: t.Any) -> bool:
    """Whether an address or network lies in private space as a whole."""
    try:
        network = ipaddress.ip_network(value) if isinstance(value, str) else None
    except ValueError:
        return False
    return network is not None and any(network.version == one.version and network.subnet_of(one) for one in _PRIVATE)  # type: ignore[arg-type]


def _is_mail(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_MAIL.fullmatch(value))


def _is_domain(value: t.Any) -> bool:
    return is_host_name(value) and "." in value and not is_address(value)


def _is_path(value: t.Any) -> bool:
    return isinstance(value, str) and bool(_PATH.fullmatch(value))
