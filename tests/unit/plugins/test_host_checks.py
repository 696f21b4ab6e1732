# SPDX-License-Identifier: GPL-3.0-or-later
"""Probes against real sockets, servers and commands of this machine, and the judgement of what other programs print."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _host_checks as checks
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca

ROOT = Path(__file__).resolve().parents[3]

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


def test_a_client_is_no_listener_but_a_service_is() -> None:
    question, service, other = (checks.Socket("udp", "0.0.0.0", port, inode) for port, inode in ((34141, "1"), (53, "1"), (34142, "2")))
    stream = checks.Socket("tcp", "0.0.0.0", 34141, "1")
    sockets = [question, service, other, stream]
    assert checks.without_clients(sockets, {"1": "dnsmasq", "2": "nc"}, {"dnsmasq"}) == [service, other, stream]
    assert checks.without_clients(sockets, {}, {"dnsmasq"}) == sockets


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


POLICY = _internal_ca.Policy("test", ["records.test"], datetime.timedelta(days=90), datetime.timedelta(days=30))


def new_ca() -> _internal_ca.Ca:
    now = datetime.datetime.now(datetime.UTC)
    return _internal_ca.renew(_internal_ca.Ca(), _internal_ca.create_root("test", now), POLICY, [], now)


@dataclass
class Tls:
    """A real HTTPS server for the name `records.test`, with a CA of its own."""

    directory: Path
    ca: _internal_ca.Ca
    port: int = 0

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")

    @property
    def chain(self) -> str:
        return str(self.directory / "chain.pem")

    def issue(self, file: str, days: float, ago: float = 0) -> None:
        """Another certificate for the same key and name, made so many days ago."""
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=ago)
        policy = POLICY._replace(lifetime=datetime.timedelta(days=days))
        Path(file).write_text(_internal_ca.issue(self.ca, (self.directory / "request.pem").read_text(), ["records.test"], policy, now))

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.directory / "key.pem")
        return context

    def check(self, **other: object) -> dict[str, object]:
        good = {"type": "certificate", "address": "127.0.0.1", "port": self.port, "server_name": "records.test"}
        return run(**{**good, "file": self.chain, "ca_file": self.ca_file, **other})


@pytest.fixture(name="tls")
def _tls(tmp_path: Path) -> Iterator[Tls]:
    tls = Tls(tmp_path, new_ca())
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
         "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "request.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    tls.issue(tls.chain, days=20)
    Path(tls.ca_file).write_text(tls.ca.root)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.context().wrap_socket(server.socket, server_side=True)
    tls.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tls
    server.shutdown()
    server.server_close()


def test_http_over_verified_tls(tls: Tls) -> None:
    port = tls.port
    good = {"type": "http", "url": f"https://records.test:{port}/v1/?a=b", "connect_to": "127.0.0.1", "ca_file": tls.ca_file}
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


def test_the_served_certificate_is_the_installed_one(tls: Tls) -> None:
    result = tls.check()
    assert result["ok"] is True, result
    assert f"records.test on 127.0.0.1:{tls.port} serves {tls.chain}, valid for 20 days" in str(result["evidence"])
    assert tls.check(address="0.0.0.0")["ok"] is True


def test_a_renewed_certificate_that_the_service_did_not_load_is_noticed(tls: Tls) -> None:
    tls.issue(tls.chain, days=90)
    result = tls.check()
    assert result["ok"] is False
    assert "serves another certificate (SHA-256 " in str(result["evidence"])


@pytest.mark.parametrize(
    ("other", "evidence"),
    [
        ({"server_name": "other.test"}, "match"),
        ({"ca_file": None}, "certificate"),
        ({"minimum_days": 21}, "the certificate ends in 2"),
        ({"minimum_days": 19}, ""),
        ({"file": "/nonexistent/fullchain.pem"}, "No such file"),
        ({"file": "/dev/null"}, "holds no certificate"),
    ],
)
def test_a_certificate_that_is_not_right(tls: Tls, other: dict[str, object], evidence: str) -> None:
    result = tls.check(**other)
    assert result["ok"] is (evidence == "")
    assert evidence in str(result["evidence"])


def test_a_certificate_of_another_ca_is_refused(tls: Tls, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text(new_ca().root)
    result = tls.check(ca_file=str(other))
    assert result["ok"] is False
    assert "records.test on" in str(result["evidence"])


def test_an_expired_certificate_is_refused(tls: Tls) -> None:
    assert tls.check(minimum_days=0)["ok"] is True
    with one_answer(lambda connection: expired(tls, connection)) as port:
        result = tls.check(port=port, minimum_days=0)
    assert result["ok"] is False
    assert "expired" in str(result["evidence"])


def expired(tls: Tls, connection: socket.socket) -> None:
    tls.issue(tls.chain, days=1, ago=2)
    with contextlib.suppress(OSError), tls.context().wrap_socket(connection, server_side=True):
        pass


@contextlib.contextmanager
def one_answer(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that treats one connection with C(answer): its port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _address = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(10)


def postgres(answer: bytes, tls: Tls, connection: socket.socket) -> None:
    """The first words of a PostgreSQL server: one byte in answer to the SSLRequest, then TLS."""
    assert connection.recv(8) == bytes.fromhex("0000000804d2162f")
    connection.sendall(answer)
    if answer == b"S":
        with contextlib.suppress(OSError), tls.context().wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)


@pytest.mark.parametrize(("answer", "ok"), [(b"S", True), (b"N", False), (b"E", False), (b"", False)])
def test_starttls_of_postgres(tls: Tls, answer: bytes, ok: bool) -> None:
    with one_answer(lambda connection: postgres(answer, tls, connection)) as port:
        result = tls.check(port=port, starttls="postgres")
    assert result["ok"] is ok, result
    assert ("the server refuses TLS" in str(result["evidence"])) is not ok


def test_a_server_without_tls_is_refused(tls: Tls) -> None:
    with one_answer(lambda connection: connection.sendall(b"220 hello\r\n")) as port:
        result = tls.check(port=port)
    assert result["ok"] is False
    assert "TLS" in str(result["evidence"]) or "reset" in str(result["evidence"])


def test_a_silent_server_ends_within_the_time_limit(tls: Tls) -> None:
    with one_answer(lambda connection: connection.recv(1) and threading.Event().wait(1)) as port:
        result = tls.check(port=port, timeout=0.2)
    assert result["ok"] is False
    assert "timed out" in str(result["evidence"])


def test_an_unknown_starttls_is_the_author_s_error(tls: Tls) -> None:
    with pytest.raises(checks.CheckError, match="write smtp, postgres or leave it out"):
        tls.check(starttls="imap")


def declared(role: str, **variables: object) -> dict[str, dict[str, object]]:
    """The checks of a role, by their ids, as a task gets them."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", "ansible.builtin.debug", "-o", "-e", json.dumps(variables),
         "-a", f"msg={{{{ lookup('civitas.hosting.declarations', '{role}', kind='checks') }}}}"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1"},
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return {check["id"]: check for check in json.loads(done.stdout.split("=>", 1)[1])["msg"]}


def test_what_nginx_declares_for_its_sites(tls: Tls) -> None:
    site = {"name": "records", "certificate": "edge", "locations": []}
    sites = [
        {**site, "server_names": ["records.test", "www.records.test", "*.records.test"]},
        {**site, "name": "wild", "server_names": ["*.other.test"]},
    ]
    found = declared("nginx", nginx_sites=sites, nginx_listen_addresses=["[::]", "10.0.0.1"], nginx_https_port=tls.port)
    of_sites = [name for name in found if name.startswith("nginx.site.")]
    assert of_sites == [
        "nginx.site.records.answers.records.test",
        "nginx.site.records.answers.www.records.test",
        "nginx.site.records.certificate",
        "nginx.site.wild.certificate",
    ]
    assert {found[name]["ca_file"] for name in of_sites} == {"/etc/civitas/ca.pem"}
    assert found["nginx.site.records.certificate"]["file"] == "/etc/civitas/certificates/edge/fullchain.pem"
    assert found["nginx.site.wild.certificate"]["server_name"] == "any.other.test"
    # The real server of this test stands for nginx.
    here = {"ca_file": tls.ca_file, "connect_to": "0.0.0.0", "address": "0.0.0.0", "file": tls.chain}
    results = checks.run_checks([{**found[name], **{key: here[key] for key in here if key in found[name]}} for name in of_sites[:3]])
    assert [result["ok"] for result in results] == [True, False, True], results
    assert found[of_sites[0]]["connect_to"] == found["nginx.site.records.certificate"]["address"] == "::"


def test_without_sites_nginx_declares_itself_only() -> None:
    assert list(declared("nginx")) == ["nginx.service", "nginx.configuration"]


@pytest.mark.parametrize(
    ("file", "ca_file"),
    [
        ("", None),
        ("/etc/civitas/certificates/postgres/fullchain.pem", "/etc/civitas/ca.pem"),
        ("/etc/ssl/own.pem", None),
    ],
)
def test_what_postgres_declares_for_its_certificate(file: str, ca_file: str | None) -> None:
    facts = {"distribution": "Debian", "distribution_major_version": "13"}
    check = declared("postgres", postgres_ssl_certificate_file=file, ansible_facts=facts).get("postgres.certificate")
    assert (check is not None) is bool(file)
    if check:
        assert (check["server_name"], check["address"], check["port"]) == ("database.internal", "127.0.0.1", 5432)
        assert (check["starttls"], check["file"], check["ca_file"]) == ("postgres", file, ca_file)


def test_who_listens_everywhere_is_asked_only_where_there_are_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        check = {"port": server.getsockname()[1], "addresses": ["0.0.0.0", "::"]}
        monkeypatch.setattr(checks, "_has_ipv6", lambda: False)
        assert checks.probe_tcp_listen(check) == (True, f"port {check['port']} answers on 0.0.0.0")
        monkeypatch.setattr(checks, "_has_ipv6", lambda: True)
        with pytest.raises(OSError):
            checks.probe_tcp_listen(check)
