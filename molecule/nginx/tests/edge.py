# SPDX-License-Identifier: GPL-3.0-or-later
"""How the tests ask the edge: from the controller, through the host's own address, with verification on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
from pathlib import Path

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
CA_FILE = str(FOLDER / "ca.pem")
USERS = FOLDER / "users"


class Answer:
    def __init__(self, response, content):
        self.status, self.content, self.header = response.status, content, response.getheader

    @property
    def seen(self):
        """The request as the application saw it."""
        return json.loads(self.content)

    @property
    def headers(self):
        return self.seen["headers"]


def context(user=None, maximum=None):
    made = ssl.create_default_context(cafile=CA_FILE)
    if maximum:
        made.minimum_version = ssl.TLSVersion.TLSv1
        made.maximum_version = maximum
        made.set_ciphers("ALL:@SECLEVEL=0")
    if user:
        made.load_cert_chain(USERS / f"{user}.pem", USERS / f"{user}.key")
    return made


def connect(address, name="records.test", tls=None):
    return (tls or context()).wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=name)


def https(address, method="GET", path="/", name="records.test", body=None, headers=None, tls=None):
    connection = http.client.HTTPSConnection(name, 443, timeout=10)
    connection.sock = connect(address, name, tls)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response, response.read())
    finally:
        connection.close()


def read_all(connection):
    """All that comes until the connection ends, in whichever way."""
    pieces = []
    with connection, contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces).decode()


def raw(address, request, name="records.test"):
    """What comes back for a request as written, over TLS."""
    connection = connect(address, name)
    connection.sendall(request.encode())
    return read_all(connection)


def plain(address, request):
    connection = socket.create_connection((address, 80), timeout=10)
    connection.sendall(request.encode())
    return read_all(connection)


def gets_nothing(ask, *arguments, **options):
    """Whether a question is answered with the end of the connection, during the handshake or after it."""
    try:
        ask(*arguments, **options)
    except (ssl.SSLError, http.client.RemoteDisconnected, ConnectionError):
        return True
    return False
