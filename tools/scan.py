# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP ports of an address answer: C(open) and C(refused) have passed the firewall, C(EHOSTUNREACH) was answered by it.

scan.py SOURCE ADDRESS [PORT ...]: all 65,535 ports unless some are given. Prints JSON: port -> answer. Needs nothing but Python, as
scenarios run it on their hosts. An empty SOURCE is the system's choice.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import sys
import time
from collections.abc import Sequence

# Long enough for a second SYN.
SECONDS = 1.3


def scan(source: str, address: str, ports: Sequence[int]) -> dict[int, str]:
    """Ask all of them, as many at once as there may be sockets; ports that are silent are not in the answer."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    at_once = min(hard, 17000) - 100
    answers = {}
    for start in range(0, len(ports), at_once):
        poll = select.epoll()
        waiting = {}
        for port in ports[start : start + at_once]:
            one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            if source:
                # Not one local port for each socket, or they run out.
                one.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
                one.bind((source, 0))
            one.connect_ex((address, port))
            waiting[one.fileno()] = (one, port)
            poll.register(one, select.EPOLLOUT | select.EPOLLERR)
        end = time.monotonic() + SECONDS
        while waiting and (left := end - time.monotonic()) > 0:
            for number, _events in poll.poll(left):
                one, port = waiting.pop(number)
                code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                answers[port] = {0: "open", errno.ECONNREFUSED: "refused"}.get(code) or errno.errorcode[code]
                one.close()
        for one, _port in waiting.values():
            one.close()
        poll.close()
    return answers


if __name__ == "__main__":
    print(json.dumps(scan(sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]] or list(range(1, 65536)))))
