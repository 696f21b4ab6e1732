# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes against real sockets, servers and commands of this machine, and the judgement of what other programs print."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _host_checks as checks

PORTS = [
    {"port": 443, "protocol": "tcp", "addresses": ["0.0.0.0", "::"], "from": "public"},
    {"port": 5432, "protocol": "tcp", "addresses": ["172.30.0.1"], "from": "containers"},
    {"port": 8888, "protocol": "tcp", "addresses": ["127.0.0.1"], "from": "loopback"},
]
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1001 1 0 100 0 0 10 0
   1: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1002 1 0 100 0 0 10 0
   2: 01001EAC:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1003 1 0 100 0 0 10 0
   3: 0100007F:01BB 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 1004 1 0 100 0 0 10 0
"""
TCP6 = """  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 2001 1
   1: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 2002 1
   2: B80D0120000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 2003 1
"""


def run(**check: object) -> dict[str, object]:
    (result,) = checks.run_checks([{"id": "x", "title": "t", "remedy": "r", **check}])
    return result


def test_sockets_are_decoded_and_only_listening_ones_count() -> None:
    assert [(s.address, s.port) for s in checks.parse_sockets("tcp", TCP.splitlines())] == [
        ("127.0.0.1", 8888),
        ("0.0.0.0", 443),
        ("172.30.0.1", 5432),
    ]
    assert [(s.address, s.port) for s in checks.parse_sockets("tcp", TCP6.splitlines())] == [
        ("::", 443),
        ("127.0.0.1", 80),
        ("2001:db8::1", 22),
    ]


def test_undeclared_sockets_are_found() -> None:
    sockets = [*checks.parse_sockets("tcp", TCP.splitlines()), *checks.parse_sockets("tcp", TCP6.splitlines())]
    assert [(s.address, s.port) for s in checks.undeclared_sockets(sockets, PORTS)] == [("2001:db8::1", 22)]


@pytest.mark.parametrize(
    ("protocol", "address", "port", "declared"),
    [
        ("tcp", "127.0.0.2", 9999, True),
        ("tcp", "::1", 9999, True),
        ("tcp", "10.0.0.1", 443, True),
        ("udp", "10.0.0.1", 443, False),
        ("tcp", "0.0.0.0", 5432, False),  # declared on the bridge's address only
        ("tcp", "0.0.0.0", 8888, False),  # declared for loopback only
        ("udp", "0.0.0.0", 68, True),
        ("tcp", "0.0.0.0", 68, False),
    ],
)
def test_a_declaration_covers_its_own_addresses_only(protocol: str, address: str, port: int, declared: bool) -> None:
    assert (checks.undeclared_sockets([checks.Socket(protocol, address, port, "1")], PORTS) == []) is declared


def test_a_real_socket_of_this_machine_is_seen() -> None:
    with socket.socket() as listening:
        listening.bind(("0.0.0.0", 0))
        listening.listen()
        port = listening.getsockname()[1]
        result = run(type="exposure", ports=PORTS)
        assert result["ok"] is False
        assert f"0.0.0.0:{port} (" in str(result["evidence"])
        assert "unknown process" not in str(result["evidence"]).split(f":{port} ")[1].split(")")[0]


@pytest.mark.parametrize(
    ("ports", "bad"),
    [
        ("0.0.0.0:5432->5432/tcp", ["0.0.0.0:5432->5432/tcp (container db)"]),
        ("[::]:5432->5432/tcp, :::443->443/tcp", ["[::]:5432->5432/tcp (container db)"]),
        ("127.0.0.1:8888->8888/tcp", []),
        ("0.0.0.0:440-443->440-443/tcp", ["0.0.0.0:440-443->440-443/tcp (container db)"]),
        ("0.0.0.0:443->8443/tcp, 5432/tcp", []),
        ("", []),
    ],
)
def test_published_ports_of_containers_are_judged(ports: str, bad: list[str]) -> None:
    assert checks.undeclared_publications([{"Names": "db", "Ports": ports}], PORTS) == bad


SHOWN = """Id=a.service
LoadState={}
ActiveState={}
SubState=x
UnitFileState={}

Id=b.service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled
"""


@pytest.mark.parametrize(
    ("load", "active", "file", "evidence"),
    [
        ("loaded", "active", "enabled", ""),
        ("loaded", "active", "static", ""),
        ("loaded", "failed", "enabled", "a is failed"),
        ("loaded", "active", "disabled", "will not come back"),
        ("not-found", "inactive", "", "a is not-found"),
    ],
)
def test_units_are_judged(load: str, active: str, file: str, evidence: str) -> None:
    ok, seen = checks.judge_units(["a", "b"], SHOWN.format(load, active, file), enabled=True)
    assert ok is (evidence == "")
    assert evidence in seen


def test_fewer_answers_than_units_is_a_failure() -> None:
    assert checks.judge_units(["a", "b", "c"], SHOWN.format("loaded", "active", "enabled"), enabled=True)[0] is False


def container(service: str, state: str = "running", status: str = "Up 3 minutes (healthy)", oneoff: str = "False") -> dict[str, str]:
    labels = f"com.docker.compose.service={service},com.docker.compose.oneoff={oneoff}"
    return {"Names": f"p-{service}-1", "State": state, "Status": status, "Labels": labels}


@pytest.mark.parametrize(
    ("containers", "services", "evidence"),
    [
        ([container("web")], ["web"], ""),
        ([container("web", status="Up 1 second")], ["web"], ""),
        ([], [], "no containers"),
        ([container("web")], ["web", "worker"], "service worker has no container"),
        ([container("web", "exited", "Exited (1) 2 seconds ago")], ["web"], "is exited"),
        ([container("web", status="Up 2 minutes (unhealthy)")], ["web"], "(unhealthy)"),
        ([container("web", status="Up 2 seconds (health: starting)")], ["web"], "(health: starting)"),
        ([container("web"), container("migrate", "exited", "Exited (0)", "True")], ["web"], ""),
    ],
)
def test_containers_are_judged(containers: list[dict[str, str]], services: list[str], evidence: str) -> None:
    ok, seen = checks.judge_containers(containers, services)
    assert ok is (evidence == "")
    assert evidence in seen


@pytest.mark.parametrize(
    ("check", "ok"),
    [
        ({"command": ["true"]}, True),
        ({"command": ["false"]}, False),
        ({"command": ["false"], "rc": 1}, True),
        ({"command": ["echo", "a b"], "stdout": "^a b$"}, True),
        ({"command": ["echo", "a b"], "stdout": r"\Aa b\Z"}, True),
        ({"command": ["printf", "a\nb\n"], "stdout": "^b$"}, True),
        ({"command": ["echo", "a b"], "stdout": "c"}, False),
        ({"command": ["no-such-command-here"]}, False),
        ({"command": ["sleep", "5"], "timeout": 0.1}, False),
    ],
)
def test_commands(check: dict[str, object], ok: bool) -> None:
    assert run(type="command", **check)["ok"] is ok


def test_a_command_is_never_given_to_a_shell() -> None:
    with pytest.raises(checks.CheckError, match="list of words"):
        run(type="command", command="true; true")


def test_an_unknown_type_or_a_missing_key_is_the_author_s_error() -> None:
    with pytest.raises(checks.CheckError, match="unknown type 'guess'"):
        run(type="guess")
    with pytest.raises(checks.CheckError, match="needs the key 'url'"):
        run(type="http")


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "f"
    assert run(type="file", path=str(file))["ok"] is False
    file.write_text("x")
    file.chmod(0o600)
    assert run(type="file", path=str(file), mode="0600")["ok"] is True
    assert "mode is 0600, wanted 0640" in str(run(type="file", path=str(file), mode="0640")["evidence"])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/broken" else 200)
        self.end_headers()
        self.wfile.write(json.dumps({"path": self.path}).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(name="tls")
def _tls(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A real HTTPS server for the name `records.test`, with a CA of its own: (port, CA file)."""
    import datetime
    import subprocess

    from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca

    now = datetime.datetime.now(datetime.UTC)
    ca = _internal_ca.create_ca("test", now)
    key, chain, ca_file = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "ca.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(key)], check=True, capture_output=True
    )
    request = subprocess.run(
        ["openssl", "req", "-new", "-key", str(key), "-subj", "/CN=x"], check=True, capture_output=True, text=True
    ).stdout
    chain.write_text(_internal_ca.issue(ca, request, ["records.test"], now, datetime.timedelta(days=1)))
    ca_file.write_text(ca.certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1], str(ca_file)
    server.shutdown()
    server.server_close()


def test_http_over_verified_tls(tls: tuple[int, str]) -> None:
    port, ca_file = tls
    good = {"type": "http", "url": f"https://records.test:{port}/v1/?a=b", "connect_to": "127.0.0.1", "ca_file": ca_file}
    assert run(**good, body="a=b")["ok"] is True
    assert run(**good, body="c=d")["ok"] is False
    assert run(**{**good, "url": f"https://records.test:{port}/broken"})["ok"] is False
    assert run(**{**good, "url": f"https://records.test:{port}/broken"}, status=[200, 503])["ok"] is True
    other_name = run(**{**good, "url": f"https://other.test:{port}/"})
    assert other_name["ok"] is False and "TLS" in str(other_name["evidence"])
    assert run(**{key: value for key, value in good.items() if key != "ca_file"})["ok"] is False


def test_http_to_a_closed_port_is_a_failure_with_words() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "refused" in str(run(type="http", url=f"http://127.0.0.1:{port}/")["evidence"])
    assert run(type="tcp_listen", port=port, addresses=["127.0.0.1"])["ok"] is False
