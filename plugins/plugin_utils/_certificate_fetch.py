# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fetches an issuer's certificate from the address that a certificate names (AIA). Runs on the controller, standard library only.

The address comes from a file that somebody sent, so it must not make the controller talk to what only the controller reaches: addresses
are resolved once and judged, and exactly the judged one is connected to. For the same reason no proxy is used. What comes back needs no
protection, because its signature is checked.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
import typing as t
from urllib.parse import SplitResult, urljoin, urlsplit

MAXIMUM_SIZE = 64 * 1024
MAXIMUM_REDIRECTS = 2
_PORTS = {"http": 80, "https": 443}


class FetchError(Exception):
    """Nothing usable came from the address; the message names it and says why."""


def fetch(url: str, *, timeout: float = 10, allow_private: bool = False) -> bytes:
    """What lies at the address.

    Args:
        url: http or https, on their usual ports.
        timeout: in seconds, for all of it.
        allow_private: also addresses that are not public, and other ports.

    Raises:
        FetchError: the address is refused, or the answer is.
    """
    deadline = time.monotonic() + timeout
    shown = "".join(c if c.isprintable() else "?" for c in url[:200])
    try:
        for _redirect in range(MAXIMUM_REDIRECTS + 1):
            content, location = _get(_checked(url, allow_private), deadline, allow_private)
            if not location:
                return content
            target = urljoin(url, location)
            if urlsplit(target).scheme != urlsplit(url).scheme:
                raise FetchError("it redirects to another protocol")
            url = target
        raise FetchError(f"it redirects more than {MAXIMUM_REDIRECTS} times")
    except FetchError as error:
        raise FetchError(f"{shown}: {error}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        said = getattr(error, "strerror", "") or str(error) or type(error).__name__
        reason = f"no answer within {timeout:g} s" if time.monotonic() >= deadline else said
        raise FetchError(f"{shown}: {reason}") from error


def _checked(url: str, allow_private: bool) -> SplitResult:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise FetchError("it has characters that do not belong into an address")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise FetchError("only addresses with http:// or https:// are fetched")
    if parts.username is not None or parts.password is not None:
        raise FetchError("it holds a user name")
    if not allow_private and parts.port not in (None, _PORTS[parts.scheme]):
        raise FetchError(f"port {parts.port} is not the usual one")
    return parts


def _public_addresses(host: str, port: int, allow_private: bool) -> t.List[str]:
    found = list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
    if not allow_private:
        for address in found:
            # One private address among public ones is no accident either.
            if not _is_public(address):
                raise FetchError(f"{host} is {address}, which is not a public address")
    return found


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # Forms that carry an IPv4 address are judged by that.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def _get(parts: SplitResult, deadline: float, allow_private: bool) -> t.Tuple[bytes, str]:
    """The content and no location, or no content and where it moved."""
    host, port = str(parts.hostname), parts.port or _PORTS[parts.scheme]
    raw = _connect(_public_addresses(host, port, allow_private), port, deadline)
    # Time limits of sockets are for one packet; a server that drips is cut off here.
    guard = threading.Timer(max(deadline - time.monotonic(), 0), _cut_off, [raw])
    guard.daemon = True
    guard.start()
    connection = http.client.HTTPConnection(host, port)
    try:
        connection.sock = ssl.create_default_context().wrap_socket(raw, server_hostname=host) if parts.scheme == "https" else raw
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status in (301, 302, 303, 307, 308):
            return b"", response.getheader("Location") or _fail(f"status {response.status} without a new address")
        if response.status != 200:
            raise FetchError(f"status {response.status}")
        content = response.read(MAXIMUM_SIZE + 1)
        if len(content) > MAXIMUM_SIZE:
            raise FetchError(f"more than {MAXIMUM_SIZE // 1024} KiB came, a certificate has 2")
        if time.monotonic() >= deadline:
            raise OSError("cut off")
        return content, ""
    finally:
        guard.cancel()
        connection.close()
        raw.close()


def _connect(addresses: t.Sequence[str], port: int, deadline: float) -> socket.socket:
    failure: OSError = OSError("the name has no address")
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError as error:
            failure = error
    raise failure


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _fail(why: str) -> str:
    raise FetchError(why)
