# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses out of certificates, fetched from a real server; what only the controller reaches stays out of reach."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_fetch import MAXIMUM_SIZE, FetchError, fetch


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path
        if path.startswith("/size/"):
            self.answer(200, b"x" * int(path[6:]))
        elif path.startswith("/hops/"):
            left = int(path[6:])
            self.answer(302 if left else 200, b"arrived", f"/hops/{left - 1}" if left else "")
        elif path == "/to-file":
            self.answer(301, b"", "file:///etc/passwd")
        elif path == "/to-https":
            self.answer(301, b"", f"https://{self.headers['Host']}/")
        elif path == "/to-nowhere":
            self.answer(301, b"")
        elif path == "/drip":
            with contextlib.suppress(OSError):
                self.send_response(200)
                self.end_headers()
                while True:
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.02)
        elif path == "/drip-headers":
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"H")
                    self.wfile.flush()
                    time.sleep(0.02)
        else:
            self.answer(404, b"not here")

    def answer(self, status: int, body: bytes, location: str = "") -> None:
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(name="server", scope="module")
def _server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_what_lies_there_is_fetched(server: str) -> None:
    assert fetch(f"{server}/size/{MAXIMUM_SIZE}", allow_private=True) == b"x" * MAXIMUM_SIZE
    assert fetch(f"{server}/hops/2", allow_private=True) == b"arrived"


@pytest.mark.parametrize(
    ("path", "why"),
    [
        (f"/size/{MAXIMUM_SIZE + 1}", "more than 64 KiB"),
        ("/hops/3", "redirects more than 2 times"),
        ("/to-file", "redirects to another protocol"),
        ("/to-https", "redirects to another protocol"),
        ("/to-nowhere", "without a new address"),
        ("/missing", "status 404"),
    ],
)
def test_answers_that_are_refused(server: str, path: str, why: str) -> None:
    with pytest.raises(FetchError, match=why) as error:
        fetch(f"{server}{path}", allow_private=True)
    assert str(error.value).startswith(f"{server}{path}: ")


@pytest.mark.parametrize("path", ["/drip", "/drip-headers"])
def test_a_server_that_drips_is_cut_off(server: str, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(FetchError, match=r"no answer within 0\.4 s"):
        fetch(f"{server}{path}", timeout=0.4, allow_private=True)
    assert time.monotonic() - started < 2


def test_a_server_that_is_silent_or_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(FetchError, match=r"no answer within 0\.3 s"):
            fetch(f"http://127.0.0.1:{port}/", timeout=0.3, allow_private=True)
    with pytest.raises(FetchError, match="refused"):
        fetch(f"http://127.0.0.1:{port}/", allow_private=True)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::]", "10.0.0.1", "192.168.1.1", "172.30.0.1", "169.254.169.254", "100.64.0.1",
        "[fe80::1]", "[fd00::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "224.0.0.1",
        "[ff02::1]", "2130706433", "0x7f.1", "127.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_never_connected_to(host: str) -> None:
    with pytest.raises(FetchError, match=r"which is not a public address|not known|No address|resolution"):
        fetch(f"http://{host}/secret", timeout=2)


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def rebound(host: str, *arguments: object, **options: object) -> object:
        found = [real(address, 80, type=socket.SOCK_STREAM)[0] for address in ("198.41.0.4", "127.0.0.1")]
        return found if host == "issuer.example" else real(host, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    with pytest.raises(FetchError, match=r"issuer\.example is 127\.0\.0\.1, which is not a public address"):
        fetch("http://issuer.example/ca.crt")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "only addresses with http"),
        ("ldap://ca.example/cn=x", "only addresses with http"),
        ("ftp://ca.example/x", "only addresses with http"),
        ("http:///x", "only addresses with http"),
        ("", "only addresses with http"),
        ("http://ca.example:22/x", "port 22 is not the usual one"),
        ("https://ca.example:80/x", "port 80 is not the usual one"),
        ("http://user@ca.example/x", "user name"),
        ("http://ca.example/x\r\nHost: other", "characters"),
        ("http://ca.example/a b", "characters"),
        ("http://ca.example:99999/", "Port"),
        ("http://[::1/", "IPv6"),
    ],
)
def test_addresses_that_are_refused_unasked(url: str, why: str) -> None:
    with pytest.raises(FetchError, match=why):
        fetch(url)
    with pytest.raises(FetchError) as error:
        fetch(url)
    assert "\n" not in str(error.value)
