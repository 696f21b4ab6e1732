# SPDX-License-Identifier: GPL-3.0-or-later
"""session.py SOURCE ADDRESS PORT FILE: one connection that talks all the time; the file says what became of it."""

from __future__ import annotations

import socket
import sys
import time

source, address, port, file = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]


def say(text):
    with open(file, "w", encoding="ascii") as stream:
        stream.write(text)


with socket.create_connection((address, port), timeout=5, source_address=(source, 0)) as one:
    for number in range(600):
        try:
            one.sendall(b"x")
            if not one.recv(1):
                say("ended")
                break
        except OSError as error:
            say(type(error).__name__)
            break
        say(f"alive {number}")
        time.sleep(0.2)
