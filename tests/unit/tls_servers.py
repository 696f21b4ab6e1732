# SPDX-License-Identifier: GPL-3.0-or-later
"""Real TLS servers for tests: TLS from the first byte, or after STARTTLS as SMTP and PostgreSQL servers do it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Answer = Callable[[socket.socket], object]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """A server that treats each connection with C(answer): its port on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0), backlog=20) as listening:
        open_connections: list[socket.socket] = []

        def treat(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                answer(connection)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _address = listening.accept()
                    open_connections.append(connection)
                    threading.Thread(target=treat, args=[connection], daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listening.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            for connection in open_connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


def context(directory: Path, chain_pem: str, key_pem: str) -> ssl.SSLContext:
    """The chain is sent as it stands, whatever it is."""
    (directory / "served.pem").write_text(key_pem + chain_pem)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_ciphers("DEFAULT:@SECLEVEL=0")
    made.load_cert_chain(directory / "served.pem")
    return made


def tls(made: ssl.SSLContext) -> Answer:
    def answer(connection: socket.socket) -> None:
        with made.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return answer


def smtp(made: ssl.SSLContext, offers: bool = True) -> Answer:
    """As far as STARTTLS; C(offers) says whether the server has it."""

    def answer(connection: socket.socket) -> None:
        connection.sendall(b"220 mail.test ESMTP\r\n")
        lines = connection.makefile("rb")
        if not lines.readline().upper().startswith(b"EHLO"):
            return
        connection.sendall(b"250-mail.test\r\n250-PIPELINING\r\n" + (b"250-STARTTLS\r\n" if offers else b"") + b"250 8BITMIME\r\n")
        if lines.readline().strip().upper() != b"STARTTLS" or not offers:
            connection.sendall(b"502 5.5.1 not implemented\r\n")
            return
        connection.sendall(b"220 2.0.0 go ahead\r\n")
        tls(made)(connection)

    return answer


def postgres(made: ssl.SSLContext, answer_byte: bytes = b"S") -> Answer:
    """The first words of a PostgreSQL server: one byte in answer to the SSLRequest, then TLS."""

    def answer(connection: socket.socket) -> None:
        if connection.recv(8) != bytes.fromhex("0000000804d2162f"):
            return
        connection.sendall(answer_byte)
        if answer_byte == b"S":
            tls(made)(connection)

    return answer
