# SPDX-License-Identifier: GPL-3.0-or-later
"""udp.py SOURCE ADDRESS PORT ...: prints the ports that answer, as JSON."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys

source, address, ports = sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]
sockets = {}
for port in ports:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    one.bind((source, 0))
    one.connect((address, port))
    one.send(b"anybody there?")
    sockets[one] = port
answered = set()
while len(answered) < len(ports):
    ready, _writable, _broken = select.select([one for one in sockets if sockets[one] not in answered], [], [], 2)
    if not ready:
        break
    for one in ready:
        with contextlib.suppress(OSError):
            one.recv(100)
        answered.add(sockets[one])
print(json.dumps(sorted(answered)))
