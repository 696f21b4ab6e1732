# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a site over and over until its standard input ends, and counts: load.py ROOT_FILE PORT NAME.

Two clients make a new connection for every request, two keep theirs. A kept connection that is closed before the first byte of an answer is
made anew, as RFC 9112 (9.3.1) asks of clients: servers may close idle connections at any time. Everything else that fails is a failure.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import sys
import threading
import time

CONTEXT = ssl.create_default_context(cafile=sys.argv[1])
PORT, NAME = int(sys.argv[2]), sys.argv[3]
stop = threading.Event()
lock = threading.Lock()
counts = {"fresh": 0, "kept": 0, "made_anew": 0}
failures: list[str] = []
seen: list[str] = []


class Connection(http.client.HTTPSConnection):
    """To this host whatever the name says."""

    def connect(self) -> None:
        plain = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
        plain.connect()
        self.sock = CONTEXT.wrap_socket(plain.sock, server_hostname=NAME)
        fingerprint = hashlib.sha256(self.sock.getpeercert(binary_form=True) or b"").hexdigest()
        with lock:
            if fingerprint not in seen[-1:]:
                seen.append(fingerprint)


def ask(connection: Connection) -> None:
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200 or body != b"records\n":
        raise ValueError(f"{answer.status} {body[:40]!r}")


def run(kept: bool) -> None:
    connection, asked = Connection(NAME), 0
    while not stop.is_set():
        try:
            try:
                ask(connection)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not asked:
                    raise
                connection.close()
                with lock:
                    counts["made_anew"] += 1
                asked = 0
                ask(connection)
            asked += 1
            with lock:
                counts["kept" if kept else "fresh"] += 1
        except (OSError, http.client.HTTPException, ValueError) as error:
            with lock:
                failures.append(f"{'kept' if kept else 'fresh'}: {error!r}")
            connection.close()
            asked = 0
        if not kept:
            connection.close()
            asked = 0
        # Enough to be there in every swap, and not so much that the swaps are slowed down.
        time.sleep(0.01)


threads = [threading.Thread(target=run, args=(number % 2 == 0,)) for number in range(4)]
for thread in threads:
    thread.start()
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(
    json.dumps({**counts, "failures": len(failures), "first_failures": failures[:5], "changes_seen": len(seen), "seen": sorted(set(seen))})
)
