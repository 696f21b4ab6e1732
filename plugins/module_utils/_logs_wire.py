# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of evidence on their way to another host, over TLS with certificates on both sides.

The sender names its series, the receiver answers with the number of the last line of it that is safe on its disk, the sender goes on with
the next. So nothing is lost and nothing comes twice, whoever was restarted in between. There is no word to read, change or delete anything.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import ssl
import threading
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._logs_lines import LONGEST_LINE, LineError, is_number, parse, received
from ansible_collections.civitas.hosting.plugins.module_utils._logs_store import Store, Tail

# In seconds: to connect and greet, for an answer, between two lines (there is a heartbeat every five minutes), between two attempts.
GREETING = 10.0
ANSWER = 60.0
IDLE = 1200.0
PAUSE = 5.0
LONGEST_PAUSE = 30.0
_BATCH = 2**18
_MOST_CONNECTIONS = 64
Say = t.Callable[[int, str], None]


class WireError(Exception):
    """The other side does not do as agreed."""


def context(purpose: ssl.Purpose, certificate: str, key: str, authorities: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, with a certificate of our own, and one of the other side that C(authorities) signed. Raises OSError."""
    found = ssl.create_default_context(purpose, cafile=authorities)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.verify_mode = ssl.CERT_REQUIRED
    found.load_cert_chain(certificate, key)
    return found


class Lines:
    """Lines of a connection, none longer than C(LONGEST_LINE)."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._rest = b""

    def next(self) -> t.List[bytes]:
        """All that are there, at least one; none when the other side has ended it. Raises OSError, WireError."""
        while True:
            data = self._connection.recv(2**16)
            if not data:
                return []
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > LONGEST_LINE or any(len(line) > LONGEST_LINE for line in lines):
                raise WireError("a line is too long")
            if lines:
                return lines


def message(data: bytes) -> t.Dict[str, t.Any]:
    """Raises WireError."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WireError("the answer is none")
    return found


# --- the sender


class Forwarder(threading.Thread):
    """Sends what the directory holds, for ever, and never hinders who writes it.

    Attributes:
        acknowledged: number of the last line that the receiver has on disk; -1 until it has answered.
        problem: why it could not be sent the last time; empty when it could.
    """

    def __init__(self, directory: str, series: str, receiver: t.Mapping[str, t.Any], files: t.Tuple[str, str, str], say: Say) -> None:
        super().__init__(daemon=True)
        self._directory = directory
        self._series = series
        self._receiver = receiver
        self._files = files
        self._say = say
        self._awake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self.acknowledged = -1
        self.problem = ""

    def wake(self) -> None:
        """There is something new."""
        # A pipe that is full wakes as well.
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"x")

    def run(self) -> None:
        pause = PAUSE
        while True:
            before = self.acknowledged
            try:
                self._session()
            except (OSError, WireError, ValueError) as error:
                problem = f"{self._receiver['name']} does not take the evidence: {error}"
                if problem != self.problem:
                    self._say(4, f"{problem}; it is kept here, and sent when it can be")
                self.problem = problem
            pause = PAUSE if self.acknowledged > before else min(2 * pause, LONGEST_PAUSE)
            time.sleep(pause)

    def _session(self) -> None:
        """Raises OSError, WireError."""
        place = (self._receiver["address"], int(self._receiver["port"]))
        # Anew each time: the certificate may have been replaced.
        secure = context(ssl.Purpose.SERVER_AUTH, *self._files)
        with contextlib.ExitStack() as stack:
            plain = stack.enter_context(socket.create_connection(place, timeout=GREETING))
            connection = stack.enter_context(secure.wrap_socket(plain, server_hostname=self._receiver["tls_name"]))
            lines = Lines(connection)
            connection.sendall(json.dumps({"civitas_logs": 1, "series": self._series}).encode() + b"\n")
            tail = Tail(self._directory, self._series, self._answer(lines))
            if self.problem:
                self._say(5, f"{self._receiver['name']} takes the evidence again")
                self.problem = ""
            try:
                self._send(connection, lines, tail)
            finally:
                tail.close()

    def _send(self, connection: ssl.SSLSocket, lines: Lines, tail: Tail) -> None:
        while True:
            batch, number = tail.batch(_BATCH)
            if not batch:
                sources: t.List[t.Any] = [connection, self._awake]
                ready, _none, _nothing = select.select(sources, [], [], IDLE)
                if self._awake in ready:
                    os.read(self._awake, 4096)
                # In between it says nothing but that it ends.
                if connection in ready:
                    connection.settimeout(1.0)
                    try:
                        if not lines.next():
                            raise WireError("it has closed the connection")
                    except (socket.timeout, ssl.SSLWantReadError):
                        pass
                continue
            connection.settimeout(ANSWER)
            connection.sendall(b"".join(batch))
            while self._answer(lines) < number:
                pass

    def _answer(self, lines: Lines) -> int:
        """The number of the last line that is safe there. Raises OSError, WireError."""
        found = lines.next()
        if not found:
            raise WireError("it has closed the connection")
        answer = message(found[-1])
        if "error" in answer:
            raise WireError(str(answer["error"])[:200])
        if not is_number(answer.get("have")):
            raise WireError("the answer is none")
        self.acknowledged = answer["have"]
        return self.acknowledged


# --- the receiver


class Sender:
    """One who may send, and what is there of it."""

    def __init__(self, name: str, directory: str, bytes_a_day: int) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.connection: t.Optional[ssl.SSLSocket] = None
        self._store = Store(directory)
        self._bytes_a_day = bytes_a_day

    def have(self, series: str) -> int:
        return int(self._store.last["n"]) if self._store.last.get("series") == series else 0

    def take(self, found: t.Sequence[bytes], series: str, address: str, now: float) -> t.Tuple[int, str]:
        """Keep lines that are new; the number of the last one that is safe, and what is missing before it.

        Raises LineError, OSError, WireError.
        """
        have, gaps, kept, last = self.have(series), [], [], None
        for data in found:
            line = parse(data)
            if line["series"] != series:
                raise LineError("a line is of another series")
            if line["n"] <= have:
                continue
            if line["n"] != have + 1:
                gaps.append(f"{have + 1} to {line['n'] - 1}")
            have, last = line["n"], line
            kept.append(received(line, self.name, address, now))
        if last is not None:
            if self._store.written_today(now) + sum(map(len, kept)) > self._bytes_a_day:
                raise WireError("this host has sent as much as it may in a day")
            self._store.append(kept, last, now)
        return have, ", ".join(gaps)


class Receiver:
    """Takes lines of known senders, each into its own directory. The certificate says who it is, and nothing else does."""

    def __init__(self, senders: t.Mapping[str, Sender], files: t.Tuple[str, str, str], say: Say) -> None:
        """C(senders) by the name in the certificate. Raises OSError."""
        self._senders = senders
        self._context = context(ssl.Purpose.CLIENT_AUTH, *files)
        self._say = say
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def serve(self, listener: socket.socket) -> None:
        while True:
            plain, address = listener.accept()
            if not self._room.acquire(blocking=False):
                plain.close()
                continue
            threading.Thread(target=self._serve, args=(plain, str(address[0])), daemon=True).start()

    def _serve(self, plain: socket.socket, address: str) -> None:
        address = address[7:] if address.startswith("::ffff:") else address
        who = address
        try:
            plain.settimeout(GREETING)
            with self._context.wrap_socket(plain, server_side=True) as connection:
                sender = self._owner(connection)
                who = f"{sender.name} ({address})"
                self._session(connection, sender, address)
        except (OSError, ValueError, WireError, LineError) as error:
            self._say(4, f"{who}: {error}")
        finally:
            plain.close()
            self._room.release()

    def _owner(self, connection: ssl.SSLSocket) -> Sender:
        """Raises WireError."""
        names = [value for kind, value in t.cast(t.Any, connection.getpeercert() or {}).get("subjectAltName", ()) if kind == "DNS"]
        known = [self._senders[name] for name in names if name in self._senders]
        if len(known) != 1:
            raise WireError(f"its certificate is for {', '.join(names) or 'nobody'}, who is no sender")
        return known[0]

    def _session(self, connection: ssl.SSLSocket, sender: Sender, address: str) -> None:
        lines = Lines(connection)
        greeting = lines.next()
        if not greeting:
            return
        series = message(greeting[0]).get("series")
        if len(greeting) != 1 or not isinstance(series, str):
            raise WireError("the greeting is none")
        with sender.lock:
            # Who was restarted comes again before the old connection is known to be dead.
            if sender.connection is not None:
                _shut(sender.connection)
            sender.connection = connection
            have = sender.have(series)
        if have == 0:
            self._say(5, f"{sender.name} begins a new series of lines")
        _tell(connection, have=have)
        connection.settimeout(IDLE)
        while True:
            found = lines.next()
            if not found:
                return
            try:
                with sender.lock:
                    if sender.connection is not connection:
                        return
                    have, missing = sender.take(found, series, address, time.time())
            except (OSError, WireError) as error:
                _refuse(connection, "it has no room" if isinstance(error, OSError) else str(error))
                raise
            if missing:
                self._say(3, f"{sender.name} has skipped the lines {missing}; somebody has removed them there")
            _tell(connection, have=have)


def _tell(connection: ssl.SSLSocket, **words: t.Any) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


def _refuse(connection: ssl.SSLSocket, why: str) -> None:
    """Say why, and read for a moment what is on its way: who closes before loses its own last word."""
    connection.settimeout(1.0)
    _tell(connection, error=why)
    deadline = time.monotonic() + 5.0
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline and connection.recv(2**16):
            pass


def _shut(connection: ssl.SSLSocket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def listen(port: int) -> socket.socket:
    """On all addresses. Raises OSError."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
