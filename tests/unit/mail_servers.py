# SPDX-License-Identifier: GPL-3.0-or-later
"""Real mail servers for tests: an IMAP server with one mailbox, a relay that takes mail and delivers it there."""

from __future__ import annotations

import contextlib
import dataclasses
import imaplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from tests.unit import pki, tls_servers

USER, PASSWORD = "proof@example.com", "a-mailbox-päßword"
NAME = "imap.test"


@dataclasses.dataclass
class Imap:
    """A running IMAP server.

    Attributes:
        port: asks for STARTTLS.
        tls_port: TLS from the first byte.
        ca_file: what it is verified by, for C(localhost).
    """

    port: int
    tls_port: int
    ca_file: Path

    def login(self) -> imaplib.IMAP4_SSL:
        client = imaplib.IMAP4_SSL("localhost", self.tls_port, ssl_context=ssl.create_default_context(cafile=self.ca_file))
        client.authenticate("PLAIN", lambda _challenge: f"\0{USER}\0{PASSWORD}".encode())
        return client

    def deliver(self, content: bytes, folder: str = "INBOX") -> None:
        client = self.login()
        client.create(folder)
        client.append(folder, "", imaplib.Time2Internaldate(time.time()), content)
        client.logout()


@contextlib.contextmanager
def imap(directory: Path, made: pki.Pki) -> Iterator[Imap]:
    """The server's certificate is that of C(made)."""
    (directory / "chain.pem").write_text(made.chain_pem)
    (directory / "key.pem").write_text(made.leaf.key_pem())
    (directory / "ca.pem").write_text(made.root.pem)
    secured = tls_servers.context(directory, made.chain_pem, made.leaf.key_pem())
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(_pymap("--cert", str(directory / "chain.pem"), "--key", str(directory / "key.pem")))
        # The server itself knows STARTTLS only.
        plain = stack.enter_context(_pymap("--no-tls"))
        tls_port = stack.enter_context(tls_servers.answering(lambda connection: _forward(connection, secured, plain)))
        yield Imap(port, tls_port, directory / "ca.pem")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _pymap(*arguments: str) -> Iterator[int]:
    port = free_port()
    command = [str(Path(sys.executable).with_name("pymap")), "--host", "127.0.0.1", "--port", str(port), *arguments]
    command += ["dict", "--demo-user", USER, "--demo-password", PASSWORD]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 20
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.communicate()


def _forward(connection: socket.socket, secured: ssl.SSLContext, port: int) -> None:
    """Everything between a TLS connection and a plain one."""
    with secured.wrap_socket(connection, server_side=True) as outer, socket.create_connection(("127.0.0.1", port)) as inner:
        threading.Thread(target=_copy, args=[inner, outer], daemon=True).start()
        _copy(outer, inner)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_RDWR)


class Relay:
    """Takes mail and delivers it, with the headers that a receiver adds.

    Attributes:
        deliveries: for a recipient the folder and what is put on top of the message; other mail is lost.
        refusal: an answer in place of taking it.
        taken: the messages.
    """

    def __init__(self, mailbox: Imap | None = None, deliveries: dict[str, tuple[str, bytes]] | None = None) -> None:
        self.mailbox, self.deliveries, self.refusal = mailbox, deliveries or {}, ""
        self.taken: list[bytes] = []

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.taken.append(envelope.content)
        for recipient in envelope.rcpt_tos:
            if self.mailbox and recipient in self.deliveries:
                folder, headers = self.deliveries[recipient]
                self.mailbox.deliver(headers + envelope.content, folder)
        return "250 OK"


@contextlib.contextmanager
def relay(handler: Relay) -> Iterator[int]:
    """The relay's port on 127.0.0.1."""
    controller = Controller(handler, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()
