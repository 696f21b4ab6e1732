# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes TLS handshakes for a while and says how many there were, as JSON.

    handshakes ADDRESS NAME CA_FILE SECONDS full|resumed PROCESSES

Each process makes one connection after the other. A connection ends with a request that any nginx refuses by itself (it has no Host), so
that the session ticket, which comes after the handshake, is read, and no application takes part. The chain is verified once, before the
clock starts; then the server is measured and not the verification in this client.

`openssl s_time` would be the obvious program; it sends no server name, and an edge refuses such a handshake.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import ssl
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"


def connect(context: ssl.SSLContext, address: str, name: str, session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession | None]:
    """One connection: was the session resumed, and the session for the next one."""
    with context.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=name, session=session) as connection:
        connection.sendall(REQUEST)
        while connection.recv(65536):
            pass
        return bool(connection.session_reused), connection.session


def work(address: str, name: str, seconds: float, resume: bool, begin, results) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # The same key exchange with every server, whichever they like best.
    context.set_ecdh_curve("X25519")
    _resumed, session = connect(context, address, name)
    handshakes = resumed = 0
    begin.wait()
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        again, session = connect(context, address, name, session if resume else None)
        handshakes += 1
        resumed += again
    results.put((handshakes, resumed, time.monotonic() - started))


def main() -> None:
    address, name, ca_file, seconds, mode, processes = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca_file)
    with context.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=name) as connection:
        version = connection.version()
    begin, results = multiprocessing.Barrier(int(processes)), multiprocessing.Queue()
    workers = [
        multiprocessing.Process(target=work, args=(address, name, float(seconds), mode == "resumed", begin, results))
        for _number in range(int(processes))
    ]
    for worker in workers:
        worker.start()
    counts = [results.get(timeout=float(seconds) + 30) for _number in workers]
    for worker in workers:
        worker.join()
    print(json.dumps({
        "version": version, "handshakes": sum(count[0] for count in counts),
        "resumed": sum(count[1] for count in counts), "seconds": max(count[2] for count in counts),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
