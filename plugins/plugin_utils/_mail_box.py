# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a mailbox by IMAP over verified TLS until a message is there. Nothing in the mailbox is changed.

Runs on the controller, standard library only. Private to the collection: no promise of stability.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import functools
import imaplib
import re
import socket
import ssl
import threading
import time
import typing as t
from email.message import EmailMessage

METHODS = ("spf", "dkim", "dmarc")
# Between two looks, at first and at most: soon for what comes at once, and seldom enough for servers that count.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0
_HEADERS = "(SUBJECT FROM RETURN-PATH RECEIVED AUTHENTICATION-RESULTS)"


class Mailbox(t.NamedTuple):
    """Where to look.

    Attributes:
        host: the IMAP server.
        port: TCP port.
        tls: V(tls) from the first byte, or V(starttls).
        ca_file: authorities to verify it by, this machine's when empty.
        user: who logs in.
        password: a secret.
        folders: where the message may be, the inbox first.
    """

    host: str
    port: int
    tls: str
    ca_file: str
    user: str
    password: str
    folders: t.Tuple[str, ...]


class MailboxError(Exception):
    """The mailbox could not be read. The message says why, without the password."""


class Arrived(t.NamedTuple):
    """A message that was found.

    Attributes:
        folder: where.
        headers: those that tell of its way.
    """

    folder: str
    headers: EmailMessage


class _Client(imaplib.IMAP4):
    """IMAP on a connection that is there already."""

    def __init__(self, connection: socket.socket, host: str, port: int, timeout: float) -> None:
        self._connection = connection
        super().__init__(host, port, timeout)

    def _create_socket(self, timeout: t.Optional[float] = None) -> socket.socket:
        return self._connection


class Reader:
    """A connection that is logged in.

    Args:
        deadline: the end of all waiting, by C(time.monotonic).

    Raises:
        MailboxError: there is no such connection, or one of the folders is not there.
    """

    def __init__(self, box: Mailbox, deadline: float) -> None:
        self._box = box
        self._deadline = deadline
        self._imap: t.Any = None
        self._line: t.Optional[socket.socket] = None
        # Time limits of sockets are for one packet; a server that drips is cut off here.
        self._guard = threading.Timer(max(deadline - time.monotonic(), 0), self._cut_off)
        self._guard.daemon = True
        self._guard.start()
        try:
            self._told(self._open)
        except MailboxError:
            self.close()
            raise

    def wait_for(self, nonce: str) -> t.Optional[Arrived]:
        """The message with the nonce in its subject; V(None) when it is not there before the deadline.

        Raises:
            MailboxError: the connection ended or a folder cannot be read.
        """
        pause = _FIRST_PAUSE
        while True:
            for folder in self._box.folders:
                found: t.Optional[EmailMessage] = self._told(functools.partial(self._look, folder, nonce))
                if found:
                    return Arrived(folder, found)
            # A server tells of new mail when it is asked.
            left = self._deadline - time.monotonic()
            if left <= _FIRST_PAUSE:
                return None
            # One more look before the end.
            time.sleep(min(pause, left - _FIRST_PAUSE / 2))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def close(self) -> None:
        self._guard.cancel()
        if self._imap is not None:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                self._imap.logout()
        if self._line is not None:
            self._line.close()

    def _open(self) -> None:
        box = self._box
        context = ssl.create_default_context(cafile=box.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        left = max(self._deadline - time.monotonic(), 0.1)
        connection = socket.create_connection((box.host, box.port), timeout=left)
        # Another handle of the same connection, since TLS takes the first one over.
        self._line = connection.dup()
        if box.tls == "tls":
            connection = context.wrap_socket(connection, server_hostname=box.host)
        self._imap = _Client(connection, box.host, box.port, left)
        if box.tls == "starttls":
            self._imap.starttls(context)
        if "AUTH=PLAIN" in self._imap.capabilities:
            self._imap.authenticate("PLAIN", lambda _challenge: f"\0{box.user}\0{box.password}".encode())
        else:
            self._imap.login(box.user, box.password)
        for folder in box.folders:
            self._select(folder)

    def _select(self, folder: str) -> None:
        quoted = '"' + folder.replace("\\", "\\\\").replace('"', '\\"') + '"'
        # Read-only, so that nothing gets marked as read.
        state, said = self._imap.select(quoted, readonly=True)
        if state != "OK":
            raise MailboxError(f"folder {folder}: {_text(said)}")

    def _look(self, folder: str, nonce: str) -> t.Optional[EmailMessage]:
        # Anew each time, as that is what shows new mail everywhere.
        self._select(folder)
        _state, found = self._imap.uid("SEARCH", "SUBJECT", f'"{nonce}"')
        numbers = (found[0] or b"").split() if found else []
        for number in numbers:
            _state, parts = self._imap.uid("FETCH", number.decode("ascii"), f"(BODY.PEEK[HEADER.FIELDS {_HEADERS}])")
            for part in parts:
                if isinstance(part, tuple) and nonce.encode() in part[1]:
                    return email.message_from_bytes(part[1], policy=email.policy.default)
        return None

    def _told(self, action: t.Callable[[], t.Any]) -> t.Any:
        """What can go wrong with a mail server, in words."""
        where = f"{self._box.host}:{self._box.port}"
        try:
            return action()
        except ssl.SSLCertVerificationError as error:
            raise MailboxError(f"{where}: its certificate is not trusted: {error.verify_message}") from None
        except (imaplib.IMAP4.error, OSError, EOFError, UnicodeError) as error:
            if time.monotonic() >= self._deadline:
                raise MailboxError(f"{where}: no answer in time") from None
            said = getattr(error, "strerror", "") or _text([*error.args]) or type(error).__name__
            raise MailboxError(f"{where}: {said.replace(self._box.password, '***')}") from None

    def _cut_off(self) -> None:
        if self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)


def results(headers: EmailMessage) -> t.Dict[str, str]:
    """What the mailbox's own server found: V(spf), V(dkim) and V(dmarc) with their result, such as V(pass), where it says so.

    Only the header at the top is the server's own (RFC 8601); those below came with the message and anybody may have written them. A
    signature that passes stands for all.
    """
    lines = headers.get_all("Authentication-Results") or []
    found: t.Dict[str, str] = {}
    # Comments may hold anything, also semicolons.
    text = re.sub(r"\([^()]*\)", "", str(lines[0])) if lines else ""
    for method, result in re.findall(r";\s*(spf|dkim|dmarc)\s*=\s*([A-Za-z]+)", text, re.IGNORECASE):
        if found.get(method.lower()) != "pass":
            found[method.lower()] = result.lower()
    return found


def _text(said: t.Sequence[t.Any]) -> str:
    return " ".join(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in said)
