# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers on all addresses: what the firewall does not keep away is seen. Sends back what it gets."""

from __future__ import annotations

import asyncio
import socket

TCP = (2377, 5000, 8080, 8081)
UDP = (53, 123, 161, 4789, 7946)


class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)


async def echo(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()


async def main():
    loop = asyncio.get_running_loop()
    for address in ("0.0.0.0", "::"):
        for port in TCP:
            await asyncio.start_server(echo, address, port)
        for port in UDP:
            one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            if ":" in address:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address, port))
            await loop.create_datagram_endpoint(Echo, sock=one)
    await asyncio.Event().wait()


asyncio.run(main())
