# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers on loopback that take messages: a mail relay, and whatever takes requests over HTTPS."""

from __future__ import annotations

import contextlib
import email
import email.message
import email.policy
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.unit import pki, tls_servers


def before(end: bytes, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines up to one that ends them, or up to where the client has gone."""
    for line in lines:
        if line == end:
            return
        yield line


@dataclass
class MailSink:
    """A relay. refuse: its answer to MAIL, when that is not yes."""

    port: int = 0
    refuse: str = ""
    mails: list[tuple[list[str], email.message.EmailMessage]] = field(default_factory=list)

    def answer(self, connection: socket.socket) -> None:
        connection.sendall(b"220 sink ESMTP\r\n")
        lines = connection.makefile("rb")
        recipients: list[str] = []
        for line in lines:
            word = line.strip().upper()
            reply = "250 ok"
            if word.startswith(b"MAIL") and self.refuse:
                reply = self.refuse
            elif word.startswith(b"RCPT"):
                recipients.append(line.decode().split("<")[1].split(">")[0])
            elif word == b"DATA":
                connection.sendall(b"354 go on\r\n")
                data = b"".join(before(b".\r\n", lines))
                self.mails.append((recipients, email.message_from_bytes(data, policy=email.policy.default)))
                recipients = []
            elif word == b"QUIT":
                connection.sendall(b"221 bye\r\n")
                return
            connection.sendall(reply.encode() + b"\r\n")


@contextlib.contextmanager
def mail() -> Iterator[MailSink]:
    sink = MailSink()
    with tls_servers.answering(sink.answer) as port:
        sink.port = port
        yield sink


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpsSink:
    """Takes every request. status: what it answers; ca_file: the authority of its certificate, which is for localhost."""

    ca_file: str
    port: int = 0
    status: int = 200
    requests: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


@contextlib.contextmanager
def https(directory: Path) -> Iterator[HttpsSink]:
    directory.mkdir(exist_ok=True)
    chain = pki.usual(subject="localhost", names=["localhost"])
    context = tls_servers.context(directory, chain.chain_pem, chain.leaf.key_pem())
    (directory / "root.pem").write_text(chain.root.pem)
    sink = HttpsSink(str(directory / "root.pem"))

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            stream = secured.makefile("rb")
            while head := b"".join(before(b"\r\n", stream)).decode():
                first, *rest = head.splitlines()
                headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in rest)}
                method, target, _version = first.split()
                body = stream.read(int(headers.get("content-length", 0)))
                sink.requests.append(Request(method, target, headers, body))
                secured.sendall(f"HTTP/1.1 {sink.status} x\r\nContent-Length: 2\r\nLocation: http://evil.test/\r\n\r\nok".encode())

    with tls_servers.answering(answer) as port:
        sink.port = port
        yield sink
