# SPDX-License-Identifier: GPL-3.0-or-later
"""A message is found in a real IMAP server's mailbox, and what keeps it from being found is said."""

from __future__ import annotations

import email
import email.policy
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_box import Arrived, Mailbox, MailboxError, Reader, results

from tests.unit import mail_servers, pki, tls_servers
from tests.unit.mail_servers import PASSWORD, USER, Imap

LOCAL = pki.usual(subject="localhost", names=["localhost"])


@pytest.fixture(scope="module", name="server")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imap]:
    with mail_servers.imap(tmp_path_factory.mktemp("imap"), LOCAL) as server:
        yield server


def box(server: Imap, **changed: Any) -> Mailbox:
    tls = changed.get("tls", "tls")
    usual = Mailbox(
        "localhost", server.tls_port if tls == "tls" else server.port, tls, str(server.ca_file), USER, PASSWORD, ("INBOX", 'Junk "mail"')
    )
    return usual._replace(**changed)


def found(mailbox: Mailbox, nonce: str, patience: float = 5) -> Arrived | None:
    reader = Reader(mailbox, time.monotonic() + patience)
    try:
        return reader.wait_for(nonce)
    finally:
        reader.close()


def message(nonce: str) -> bytes:
    return f"Authentication-Results: mx.test; spf=pass\r\nFrom: a@example.org\r\nSubject: Mail proof {nonce}\r\n\r\nx\r\n".encode()


def test_a_message_that_is_there_by_tls(server: Imap) -> None:
    server.deliver(message("1111aaaa"))
    server.deliver(message("2222bbbb"))
    server.deliver(message("3333cccc"), '"Junk \\"mail\\""')
    arrived = found(box(server), "2222bbbb")
    assert arrived and arrived.folder == "INBOX"
    assert arrived.headers["Subject"] == "Mail proof 2222bbbb"
    assert results(arrived.headers) == {"spf": "pass"}
    spam = found(box(server), "3333cccc")
    assert spam and spam.folder == 'Junk "mail"'
    # It was looked at, and is as new as before.
    client = server.login()
    client.select("INBOX")
    assert client.search(None, "SEEN")[1] == [b""]
    assert client.search(None, "RECENT")[1] != [b""]
    client.logout()


def test_a_message_that_comes_later(server: Imap) -> None:
    timer = threading.Timer(0.5, server.deliver, [message("4444dddd")])
    timer.start()
    arrived = found(box(server, folders=("INBOX",)), "4444dddd", 10)
    timer.join()
    assert arrived


def test_a_message_that_does_not_come(server: Imap) -> None:
    began = time.monotonic()
    assert found(box(server, folders=("INBOX",)), "5555eeee", 1) is None
    assert time.monotonic() - began < 2


def test_starttls(server: Imap) -> None:
    assert found(box(server, tls="starttls", folders=("INBOX",)), "6666ffff", 1) is None


@pytest.mark.parametrize("tls", ["tls", "starttls"])
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ca_file": ""}, "certificate is not trusted: "),
        ({"host": "127.0.0.1"}, "certificate is not trusted: IP address mismatch"),
        ({"password": "wrong-päßword"}, "Invalid authentication credentials"),
        ({"user": "nobody"}, "Invalid authentication credentials"),
    ],
)
def test_who_must_not_be_talked_to_and_who_may_not_read(server: Imap, tls: str, changed: dict[str, Any], told: str) -> None:
    wanted = box(server, tls=tls)._replace(**changed)
    with pytest.raises(MailboxError, match=told) as caught:
        found(wanted, "x")
    assert wanted.password not in str(caught.value)
    assert caught.value.__suppress_context__


def test_other_troubles(server: Imap, tmp_path: Path) -> None:
    with pytest.raises(MailboxError, match=r"folder Nowhere"):
        found(box(server, folders=("Nowhere",)), "x")
    with pytest.raises(MailboxError, match="Connection refused"):
        found(box(server, port=1), "x")
    # TLS is asked of a server that speaks none, and the other way round.
    with pytest.raises(MailboxError):
        found(box(server, port=server.port), "x", 3)
    with pytest.raises(MailboxError):
        found(box(server, port=server.tls_port, tls="starttls"), "x", 1)
    with pytest.raises(MailboxError, match="No such file"):
        found(box(server, ca_file=str(tmp_path / "missing.pem")), "x")


@pytest.mark.parametrize("tls", ["tls", "starttls"])
def test_a_server_that_drips_is_cut_off(tls: str) -> None:
    def drip(connection: Any) -> None:
        # The beginning of a long TLS record, or of a greeting.
        connection.sendall(b"\x16\x03\x03\x3f\xff" if tls == "tls" else b"* OK ")
        for _time in range(60):
            connection.sendall(b"x")
            time.sleep(0.1)

    began = time.monotonic()
    with tls_servers.answering(drip) as port, pytest.raises(MailboxError, match="no answer in time"):
        Reader(Mailbox("127.0.0.1", port, tls, "", "u", "p", ("INBOX",)), began + 0.5)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], {}),
        (["mx.test; none"], {}),
        (
            ["mx.test 1; spf=pass smtp.mailfrom=a@b; dkim=pass header.d=b; dmarc=pass (p=none) header.from=b"],
            dict.fromkeys(("spf", "dkim", "dmarc"), "pass"),
        ),
        (["mx.test; SPF=SoftFail (a; dkim=pass) x=y;\r\n\tdkim = fail"], {"spf": "softfail", "dkim": "fail"}),
        (["mx.test; dkim=fail header.s=a; dkim=pass header.s=b; dkim=none"], {"dkim": "pass"}),
        # Only the first is the server's own.
        (["mx.test; spf=fail", "mx.test; spf=pass; dkim=pass"], {"spf": "fail"}),
    ],
)
def test_results(lines: list[str], expected: dict[str, str]) -> None:
    text = "".join(f"Authentication-Results: {line}\r\n" for line in lines) + "\r\n"
    assert results(email.message_from_bytes(text.encode(), policy=email.policy.default)) == expected
