# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the login announcement.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import problems as webhook_problems
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import (
    is_address,
    is_host_name,
    is_loopback,
    is_mail_address,
    is_whole,
    unknown_keys,
)

SMTP_KEYS = ("host", "port", "tls", "ca_file", "user", "password", "from", "to")


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem, each with what to write. Secrets are not quoted.

    Args:
        config: the variables C(access_announce_...) without that prefix: C(smtp), C(webhook), C(automation), C(automation_minutes),
            C(host), C(record_weeks).
    """
    found = []
    smtp, webhook = config["smtp"], config["webhook"]
    if not isinstance(smtp, t.Mapping):
        found.append(f"access_announce_smtp is {in_words(smtp)}; write a mapping with host, from and to")
    elif smtp:
        found += _smtp(smtp)
    if not isinstance(webhook, t.Mapping):
        found.append(f"access_announce_webhook is {in_words(webhook)}; write a mapping with url")
    elif webhook:
        found += webhook_problems("access_announce_webhook", webhook)
    if config["automation"] not in ("each", "summary"):
        found.append(f"access_announce_automation is {config['automation']!r}; write each or summary")
    if not is_whole(config["automation_minutes"], 1, 1440):
        found.append(f"access_announce_automation_minutes is {config['automation_minutes']!r}; write a number from 1 to 1440")
    if not is_whole(config["record_weeks"], 1, 1000):
        found.append(f"access_announce_record_weeks is {config['record_weeks']!r}; write a number from 1 to 1000")
    if not is_host_name(str(config["host"])):
        found.append(f"access_announce_host is {config['host']!r}; write a name of letters, digits, . and -, by which people know the host")
    return found


def _smtp(smtp: t.Mapping[str, t.Any]) -> t.List[str]:
    found = unknown_keys("access_announce_smtp", smtp, SMTP_KEYS)
    host, tls = smtp.get("host", ""), smtp.get("tls", "starttls")
    if not (is_host_name(host) or is_address(host)):
        found.append(f"access_announce_smtp.host is {host!r}; write the name of the relay, such as mail.example.org")
    if not is_whole(smtp.get("port", 25), 1, 65535):
        found.append(f"access_announce_smtp.port is {smtp['port']!r}; write a number from 1 to 65535, or leave it out")
    if tls not in ("starttls", "tls", "none"):
        found.append(f"access_announce_smtp.tls is {tls!r}; write starttls (port 587), tls (port 465) or none")
    if tls == "none" and not is_loopback(host):
        found.append(
            "access_announce_smtp.tls is none, so who logs in would travel the network in clear; write starttls or tls, "
            "or send through a relay on the host itself (host: 127.0.0.1)"
        )
    if bool(smtp.get("user")) != bool(smtp.get("password")):
        found.append("access_announce_smtp has user or password and not the other; write both, or neither for a relay that asks for none")
    for key in ("user", "password", "ca_file"):
        if not isinstance(smtp.get(key, ""), str):
            found.append(f"access_announce_smtp.{key} is {in_words(smtp[key])}; write a text")
    if not str(smtp.get("user") or "").isprintable() or not str(smtp.get("password") or "").isprintable():
        found.append("access_announce_smtp: user or password holds a line end or a control character; write them in one line")
    if not is_mail_address(smtp.get("from", "")):
        found.append(f"access_announce_smtp.from is {smtp.get('from', '')!r}; write a mail address such as logins@example.org")
    to = smtp.get("to", [])
    if isinstance(to, str) or not isinstance(to, (list, tuple)) or not to:
        found.append("access_announce_smtp.to is no list of addresses; write who learns of logins, such as [administrators@example.org]")
    else:
        found += [
            f"access_announce_smtp.to has {address!r}; write a mail address such as administrators@example.org"
            for address in to
            if not is_mail_address(address)
        ]
    return found
