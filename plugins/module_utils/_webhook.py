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
FORMATS = ("generic", "slack", "teams", "matrix")


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


class Https:
    """A server that is asked over HTTPS. Redirections are not followed: they could lead to anybody, without TLS.

    Args:
        kind: what it is, for messages.
        url: its path and query are the secret; they never become part of a message.
        ca_file: the authorities to verify it by; the system's when empty.
    """

    def __init__(self, kind: str, url: str, ca_file: str) -> None:
        address = urllib.parse.urlsplit(url)
        self.place = f"{kind}: {address.hostname}"
        if address.scheme != "https" or not address.hostname:
            raise Undelivered(f"{kind}: the address does not begin with https://")
        self.target = urllib.parse.urlunsplit(("", "", address.path or "/", address.query, ""))
        self.connection = http.client.HTTPSConnection(address.hostname, address.port, timeout=15, context=trust(ca_file))

    def ask(self, method: str, target: str, body: bytes, headers: t.Mapping[str, str]) -> None:
        """Raises Undelivered, or Rejected."""
        try:
            self.connection.request(method, target, body or None, {"User-Agent": "civitas-hosting", **headers})
            answer = self.connection.getresponse()
            answer.read(65536)
            if answer.will_close or not answer.isclosed():
                self.connection.close()
        except OSError as error:
            self.connection.close()
            raise Undelivered(f"{self.place}: {text.clean(error)}") from None
        except (http.client.HTTPException, ValueError) as error:
            self.connection.close()
            # Their texts may quote the address or a header.
            raise Undelivered(f"{self.place}: {type(error).__name__}") from None
        if answer.status == 429 or answer.status >= 500:
            raise Undelivered(f"{self.place}: the answer is {answer.status}")
        if not 200 <= answer.status < 300:
            raise Rejected(f"{self.place}: the answer is {answer.status}")

    def close(self) -> None:
        self.connection.close()


class Webhook(Https):
    """An address that takes JSON. A room of Matrix is given each message under its number, so that a repetition is none."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        super().__init__("webhook", options["url"], options["ca_file"])
        self.shape = options["format"]
        self.token = options.get("token", "")

    def send(self, message: t.Mapping[str, t.Any]) -> t.List[str]:
        body = json.dumps(text.payload(message, self.shape)).encode("ascii")
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(message["id"])}
        if self.shape == "matrix":
            headers["Authorization"] = f"Bearer {self.token}"
            self.ask("PUT", f"{self.target.rstrip('/')}/{urllib.parse.quote(str(message['id']), safe='')}", body, headers)
        else:
            self.ask("POST", self.target, body, headers)
        return []


def is_usable(url: t.Any) -> bool:
    """Whether it is an address over HTTPS without a name in it to log in with."""
    try:
        address = urllib.parse.urlsplit(url if isinstance(url, str) else "")
        good = address.scheme == "https" and bool(address.hostname) and address.username is None and (address.port or 443) > 0
    except ValueError:
        return False
    return good and bool(re.fullmatch(r"[!-~]+", url))


def problems(name: str, webhook: t.Mapping[str, t.Any], formats: t.Sequence[str] = FORMATS[:2]) -> t.List[str]:
    """What is wrong with the variable C(name), one sentence each, with what to write. The address, which is a secret, is not quoted."""
    found = unknown_keys(name, webhook, KEYS + (("token",) if "matrix" in formats else ()))
    shape = webhook.get("format", "generic")
    if not is_usable(webhook.get("url", "")):
        found.append(f"{name}.url is no usable address; write https://chat.example.org/hooks/...; it must be https")
    if shape not in formats:
        further = ", teams or matrix" if "matrix" in formats else ""
        found.append(f"{name}.format is {shape!r}; write generic, or slack (Mattermost, too){further}")
    if not isinstance(webhook.get("ca_file", ""), str):
        found.append(f"{name}.ca_file is {in_words(webhook['ca_file'])}; write the path of a file on the host")
    if shape == "matrix" and "matrix" in formats:
        token = webhook.get("token", "")
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            found.append(f"{name}.token is no access token; write that of the account that writes into the room")
        if isinstance(webhook.get("url"), str) and not webhook["url"].rstrip("/").endswith("/send/m.room.message"):
            found.append(
                f"{name}.url is no room; write https://matrix.example.org/_matrix/client/v3/rooms/!ROOM:example.org/send/m.room.message"
            )
    return found
