# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A destination of messages that takes JSON over HTTPS, such as a chat, and the trust that all destinations are judged by.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
import typing as t
import urllib.parse

from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import unknown_keys

KEYS = ("url", "format", "ca_file")


class Undelivered(Exception):
    """A destination did not take a message; the text holds no secret."""


class Rejected(Undelivered):
    """A destination does not take this very message; it may take others."""


def trust(ca_file: str) -> ssl.SSLContext:
    """Verifies names and chains, by the system's authorities or by those of a file. Raises Undelivered."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise Undelivered(f"the authorities in {ca_file}: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 begins to refuse authorities that lack an extension; old ones of institutions do, and other programs take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Webhook:
    """An address that takes JSON over HTTPS. Redirections are not followed: they could lead to anybody, without TLS."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        address = urllib.parse.urlsplit(options["url"])
        # The path is the secret; it never becomes part of a message.
        self.place = f"webhook: {address.hostname}"
        if address.scheme != "https" or not address.hostname:
            raise Undelivered("webhook: the address does not begin with https://")
        self.target = urllib.parse.urlunsplit(("", "", address.path or "/", address.query, ""))
        self.shape = options["format"]
        self.connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=15, context=trust(options["ca_file"]))

    def send(self, message: t.Mapping[str, t.Any]) -> t.List[str]:
        body = json.dumps(text.payload(message, self.shape)).encode("ascii")
        headers = {"Content-Type": "application/json", "User-Agent": "civitas-hosting", "Idempotency-Key": str(message["id"])}
        try:
            self.connection.request("POST", self.target, body, headers)
            answer = self.connection.getresponse()
            answer.read(65536)
            if answer.will_close or not answer.isclosed():
                self.connection.close()
        except (http.client.HTTPException, OSError) as error:
            self.connection.close()
            raise Undelivered(f"{self.place}: {text.clean(error)}") from None
        if answer.status == 429 or answer.status >= 500:
            raise Undelivered(f"{self.place}: the answer is {answer.status}")
        if not 200 <= answer.status < 300:
            raise Rejected(f"{self.place}: the answer is {answer.status}")
        return []

    def close(self) -> None:
        self.connection.close()


def problems(name: str, webhook: t.Mapping[str, t.Any]) -> t.List[str]:
    """What is wrong with the variable C(name), one sentence each, with what to write. The address, which is a secret, is not quoted."""
    found = unknown_keys(name, webhook, KEYS)
    url = webhook.get("url", "")
    try:
        address = urllib.parse.urlsplit(url if isinstance(url, str) else "")
        good = address.scheme == "https" and bool(address.hostname) and address.username is None and (address.port or 443) > 0
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[!-~]+", url):
        found.append(f"{name}.url is no usable address; write https://chat.example.org/hooks/...; it must be https")
    if webhook.get("format", "generic") not in ("generic", "slack"):
        found.append(f"{name}.format is {webhook['format']!r}; write generic, or slack (Mattermost, too)")
    if not isinstance(webhook.get("ca_file", ""), str):
        found.append(f"{name}.ca_file is {in_words(webhook['ca_file'])}; write the path of a file on the host")
    return found
