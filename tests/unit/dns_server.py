# SPDX-License-Identifier: GPL-3.0-or-later
"""A real DNS server for tests, on loopback by UDP and TCP, which serves records from text and fails where it is told to."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Collection, Iterator
from typing import Any

from dnslib import QTYPE, RCODE, RR, DNSRecord
from dnslib.server import DNSHandler, TCPServer, UDPServer

# What fits into a UDP answer without EDNS.
UDP_SIZE = 512


class _Handler(DNSHandler):
    def handle(self) -> None:
        with contextlib.suppress(_Silence, OSError):
            super().handle()


class _Silence(Exception):
    """No answer at all."""


class _Zones:
    def __init__(self, text: str, servfail: Collection[str], silent: Collection[str], seen: list[tuple[str, str, str]]) -> None:
        self.records = RR.fromZone(text)
        self.servfail, self.silent, self.seen = set(servfail), set(silent), seen

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        name, kind = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        self.seen.append((handler.protocol, kind, name))
        asked = {name, f"{kind} {name}"}
        if asked & self.silent:
            raise _Silence
        reply = request.reply()
        if asked & self.servfail:
            reply.header.rcode = RCODE.SERVFAIL
            return reply
        for _step in range(8):
            here = [one for one in self.records if str(one.rname).rstrip(".").lower() == name]
            reply.add_answer(*(one for one in here if QTYPE[one.rtype] == kind))
            aliases = [one for one in here if QTYPE[one.rtype] == "CNAME"]
            if not aliases or kind == "CNAME":
                break
            reply.add_answer(aliases[0])
            name = str(aliases[0].rdata.label).rstrip(".").lower()
        # A name exists when something is at it or below it.
        if not any(_is_at_or_below(one, name) for one in self.records):
            reply.header.rcode = RCODE.NXDOMAIN
        if handler.protocol == "udp" and len(reply.pack()) > UDP_SIZE:
            # As name servers do: the question, and that the answer was cut off.
            reply = request.reply()
            reply.header.tc = 1
        return reply


def _is_at_or_below(record: Any, name: str) -> bool:
    owner = str(record.rname).rstrip(".").lower()
    return owner == name or owner.endswith(f".{name}")


@contextlib.contextmanager
def serving(
    text: str, *, servfail: Collection[str] = (), silent: Collection[str] = (), seen: list[tuple[str, str, str]] | None = None
) -> Iterator[str]:
    """The server's address with its port.

    Args:
        text: records as in a zone file, with full names.
        servfail: what it fails for: names, or C("TXT example.org").
        silent: what it does not answer, likewise.
        seen: gets what was asked: protocol, type, name.
    """
    zones = _Zones(text, servfail, silent, [] if seen is None else seen)
    servers, port = _both()
    for server in servers:
        server.resolver, server.logger = zones, _Quiet()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def _both() -> tuple[list[socketserver.BaseServer], int]:
    """Servers on one port that is free for both protocols."""
    for _attempt in range(20):
        by_tcp = TCPServer(("127.0.0.1", 0), _Handler)
        try:
            port = int(by_tcp.server_address[1])
            return [by_tcp, UDPServer(("127.0.0.1", port), _Handler)], port
        except OSError:
            by_tcp.server_close()
    raise OSError("no port is free")


class _Quiet:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_arguments: None
