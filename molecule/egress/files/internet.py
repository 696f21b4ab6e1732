# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers connections on the ports that the probes ask: TCP with a line that names the address, UDP with what was sent."""

import asyncio
import sys


async def greet(reader, writer):
    writer.write(f"{writer.get_extra_info('sockname')[0]}\n".encode())
    await writer.drain()
    # One of them stays until it is ended.
    await reader.read(1)
    writer.close()


async def main():
    for port in map(int, sys.argv[1:]):
        await asyncio.start_server(greet, ["0.0.0.0", "::"], port)
    await asyncio.Event().wait()


asyncio.run(main())
