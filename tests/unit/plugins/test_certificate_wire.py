# SPDX-License-Identifier: GPL-3.0-or-later
"""The wire, read from real servers with openssl."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_wire import (
    WireError,
    certificates,
    fetch,
    fingerprints,
    not_after,
)
from cryptography.hazmat.primitives import hashes

from tests.unit import pki, tls_servers

ROOT = Path(__file__).resolve().parents[3]
USUAL = pki.usual(names=["www.example.org", "127.0.0.1"])


@pytest.fixture(name="made")
def _made(tmp_path: Path) -> ssl.SSLContext:
    return tls_servers.context(tmp_path, USUAL.chain_pem, USUAL.leaf.key_pem())


@pytest.fixture(name="trust")
def _trust(tmp_path: Path) -> str:
    (tmp_path / "root.pem").write_text(USUAL.root.pem)
    return str(tmp_path / "root.pem")


@pytest.mark.parametrize("starttls", ["", "smtp", "postgres"])
def test_the_chain_comes_as_it_is_sent(made: ssl.SSLContext, trust: str, starttls: str) -> None:
    answer = {"": tls_servers.tls, "smtp": tls_servers.smtp, "postgres": tls_servers.postgres}[starttls](made)
    with tls_servers.answering(answer) as port:
        wire = fetch("127.0.0.1", port, "www.example.org", starttls, ca_file=trust)
    assert wire.chain_pem == USUAL.chain_pem
    assert (wire.protocol, wire.verify_error) == ("TLSv1.3", "")
    assert wire.cipher.startswith("TLS_")
    assert fingerprints(wire.chain_pem) == [one.fingerprint(hashes.SHA256()).hex() for one in USUAL.certificates]
    assert not_after(wire.chain_pem) == USUAL.leaf.certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1"])
def test_older_protocols_are_spoken_and_named(made: ssl.SSLContext, protocol: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = made.maximum_version = ssl.TLSVersion[protocol.replace(".", "_")]
    with tls_servers.answering(tls_servers.tls(made)) as port:
        wire = fetch("127.0.0.1", port)
    assert wire.protocol == protocol and wire.cipher.startswith("ECDHE-")


def test_the_name_is_asked_for_and_verified(made: ssl.SSLContext, trust: str) -> None:
    asked: list[str | None] = []
    made.sni_callback = lambda _socket, name, _context: asked.append(name)
    with tls_servers.answering(tls_servers.tls(made)) as port:
        assert fetch("127.0.0.1", port, "www.example.org", ca_file=trust).verify_error == ""
        assert "mismatch" in fetch("127.0.0.1", port, "other.example.org", ca_file=trust).verify_error
        # An address cannot be asked for, but must be in the certificate.
        assert fetch("127.0.0.1", port, ca_file=trust).verify_error == ""
        assert "mismatch" in fetch("127.0.0.1", port, "127.0.0.2", ca_file=trust).verify_error
        # Not trusted by this machine, and shown all the same.
        assert fetch("127.0.0.1", port, "www.example.org").verify_error
    assert asked == ["www.example.org", "other.example.org", None, None, "www.example.org"]


def test_certificates_that_clients_refuse_are_seen_with_the_reason(tmp_path: Path) -> None:
    root = pki.issue("Root", ca=True)
    trust = tmp_path / "its-root.pem"
    trust.write_text(root.pem)
    weak = pki.issue("www.example.org", root, names=["www.example.org"], key=pki.rsa_key(1024))
    old = pki.issue("www.example.org", root, names=["www.example.org"], end=pki.NOW - pki.DAY / 2)
    for pair, reason in ((weak, "EE certificate key too weak"), (old, "certificate has expired")):
        with tls_servers.answering(tls_servers.tls(tls_servers.context(tmp_path, pair.pem, pair.key_pem()))) as port:
            wire = fetch("127.0.0.1", port, "www.example.org", ca_file=str(trust))
        assert (wire.chain_pem, wire.verify_error, wire.protocol) == (pair.pem, reason, "TLSv1.3")


def test_a_server_that_wants_a_client_certificate_shows_its_own(made: ssl.SSLContext, trust: str) -> None:
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(trust)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        made.maximum_version = version
        with tls_servers.answering(tls_servers.tls(made)) as port:
            assert fetch("127.0.0.1", port, "www.example.org").chain_pem == USUAL.chain_pem


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_nobody_there() -> None:
    with pytest.raises(WireError, match=r"^www\.example\.org on 127\.0\.0\.1:\d+: Connection refused$") as error:
        fetch("127.0.0.1", closed_port(), "www.example.org")
    assert error.value.kind == "unreachable"
    with pytest.raises(WireError, match=r"the name does-not-exist\.invalid is not known") as error:
        fetch("does-not-exist.invalid", 443)
    assert error.value.kind == "unreachable"


def test_a_server_that_does_not_speak_tls(made: ssl.SSLContext) -> None:
    def http(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    answers = [
        (http, "", "answers, but not with TLS"),
        (lambda connection: None, "", "answers, but not with TLS"),
        (tls_servers.smtp(made), "", "answers, but not with TLS"),
        (tls_servers.smtp(made, offers=False), "smtp", "refuses TLS"),
        (tls_servers.postgres(made, b"N"), "postgres", "refuses TLS"),
        (tls_servers.postgres(made, b""), "postgres", "refuses TLS"),
    ]
    for answer, starttls, words in answers:
        with tls_servers.answering(answer) as port, pytest.raises(WireError, match=words) as error:
            fetch("127.0.0.1", port, starttls=starttls)
        assert error.value.kind == "no_tls"


@pytest.mark.parametrize(
    ("alert", "words"),
    [
        (
            ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME,
            r"refuses the TLS connection, because it has no site of the name www\.example\.org \(.*unrecognized name\)",
        ),
        (ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR, r"the server refuses the TLS connection \(.*internal error\)"),
        (ssl.AlertDescription.ALERT_DESCRIPTION_HANDSHAKE_FAILURE, r"the server refuses the TLS connection \(.*handshake failure\)"),
    ],
)
def test_a_refusal_in_tls_is_none_of_tls(made: ssl.SSLContext, alert: ssl.AlertDescription, words: str) -> None:
    made.sni_callback = lambda *_arguments: alert
    with tls_servers.answering(tls_servers.tls(made)) as port, pytest.raises(WireError, match=words) as error:
        fetch("127.0.0.1", port, "www.example.org")
    assert error.value.kind == "no_tls"


@pytest.mark.parametrize("starttls", ["", "smtp", "postgres"])
def test_a_silent_server_ends_within_the_time_limit(starttls: str) -> None:
    ended = threading.Event()
    with tls_servers.answering(lambda _connection: ended.wait(20)) as port:
        started = time.monotonic()
        with pytest.raises(WireError, match=r"timed out after 0\.5 s") as error:
            fetch("127.0.0.1", port, starttls=starttls, timeout=0.5)
        assert time.monotonic() - started < 3
    ended.set()
    assert error.value.kind == "timeout"


@pytest.mark.parametrize(
    ("host", "port", "further", "words"),
    [
        ("127.0.0.1", 443, {"starttls": "imap"}, "write smtp, postgres or leave it out"),
        ("-help", 0, {}, "no name or address with a port"),
        ("a b", 443, {}, "no name or address with a port"),
        ("a;b", 443, {}, "no name or address with a port"),
        ("", 443, {}, "no name or address with a port"),
        ("127.0.0.1", 70000, {}, "no name or address with a port"),
        ("127.0.0.1", 443, {"server_name": "a\nb"}, "no name or address with a port"),
        ("127.0.0.1", 443, {"ca_file": "/nonexistent.pem"}, "trust store /nonexistent.pem: No such file"),
        ("127.0.0.1", 443, {"ca_file": "/dev/null"}, "holds no certificate"),
    ],
)
def test_questions_that_cannot_be_asked(host: str, port: int, further: dict[str, str], words: str) -> None:
    with pytest.raises(WireError, match=words) as error:
        fetch(host, port, **further)  # type: ignore[arg-type]
    assert error.value.kind == "unusable"


def test_a_machine_without_openssl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WireError, match="openssl is not installed here") as error:
        fetch("127.0.0.1", 443)
    assert error.value.kind == "unusable"


def test_blocks_in_a_text() -> None:
    text = f"before\n{USUAL.chain_pem.replace(chr(10), chr(13) + chr(10))}\nbetween{USUAL.root.pem}after"
    assert len(certificates(text)) == len(fingerprints(text)) == 3
    assert fingerprints("nothing") == certificates("nothing") == []
    for broken, words in (("", "there is no certificate"), (USUAL.leaf.pem.replace("MII", "AAA", 1), "cannot be read")):
        with pytest.raises(ValueError, match=words):
            not_after(broken)
    with pytest.raises(ValueError, match="damaged"):
        fingerprints("-----BEGIN CERTIFICATE-----\nMIIBA\n-----END CERTIFICATE-----\n")


def test_it_stands_alone() -> None:
    """A program on the hosts takes the file as it is."""
    path = ROOT / "plugins/module_utils/_certificate_wire.py"
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import runpy, sys; print(len(runpy.run_path(sys.argv[1])['fingerprints']('')))", str(path)],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "0\n"


# --- a real database --------------------------------------------------------------------------------------------------------------------


def postgres_binary() -> Path | None:
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
    return Path(found).resolve().parent if found else None


@contextlib.contextmanager
def database() -> Iterator[int]:
    """PostgreSQL refuses to run as root, so it runs as nobody then."""
    binaries = postgres_binary()
    assert binaries
    user: dict[str, Any] = {} if os.getuid() else {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    with tempfile.TemporaryDirectory() as directory:
        data, port = Path(directory), closed_port()

        def own(path: Path) -> None:
            if user:
                shutil.chown(path, "nobody", user["group"])

        own(data)
        subprocess.run([binaries / "initdb", "-D", data, "-A", "trust", "-N", "-U", "x"], check=True, capture_output=True, cwd="/", **user)
        for name, content in (("server.crt", USUAL.chain_pem), ("server.key", USUAL.leaf.key_pem())):
            (data / name).write_text(content)
            (data / name).chmod(0o600)
            own(data / name)
        options = [f"port={port}", "unix_socket_directories=", "listen_addresses=127.0.0.1", "ssl=on"]
        command: list[str | Path] = [binaries / "postgres", "-D", data, *(part for option in options for part in ("-c", option))]
        with subprocess.Popen(command, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user) as server:
            try:
                for _attempt in range(400):
                    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                        break
                    time.sleep(0.05)
                yield port
            finally:
                server.terminate()


@pytest.mark.skipif(postgres_binary() is None, reason="PostgreSQL is not installed here")
def test_a_real_database(trust: str) -> None:
    with database() as port:
        wire = fetch("127.0.0.1", port, "www.example.org", "postgres", ca_file=trust)
        assert (wire.chain_pem, wire.verify_error) == (USUAL.chain_pem, "")
        with pytest.raises(WireError) as error:
            fetch("127.0.0.1", port, "www.example.org")
    assert error.value.kind == "no_tls"
