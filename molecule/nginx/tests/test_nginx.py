# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge as seen from outside."""

from __future__ import annotations

import collections
import contextlib
import json
import re
import socket
import ssl
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from edge import USERS, connect, context, gets_nothing, https, plain, raw, read_all

HSTS = "max-age=31536000"


@pytest.fixture(name="address")
def _address(host):
    return next(address for address in host.interface("eth0").addresses if "." in address)


# --- names and requests


@pytest.mark.parametrize("name", ["records.test", "www.records.test", "any.apps.records.test"])
def test_a_request_reaches_the_application_over_verified_tls(address, name):
    answer = https(address, path="/v1/children?name=x", name=name)
    assert answer.status == 200
    assert answer.seen["path"] == "/v1/children?name=x"
    assert answer.headers["Host"] == answer.headers["X-Forwarded-Host"] == f"{name}:8443"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "PUT", "DELETE"])
def test_every_method_reaches_it(address, method):
    answer = https(address, method, body=b"{}" if method in ("POST", "PUT") else None)
    assert answer.status == 200
    assert (answer.content == b"") == (method == "HEAD")


def test_what_a_client_says_about_itself_is_not_believed(address):
    claims = {
        **dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP"), "203.0.113.66"),
        **dict.fromkeys(("Forwarded", "X-Forwarded", "X-Original-Forwarded-For", "X-Cluster-Client-IP"), "for=203.0.113.66"),
        **dict.fromkeys(("X-Client-Cert-Subject", "X-Client-Cert-Verify", "X-SSL-Client-Verify", "X-SSL-Client-S-DN"), "203.0.113.66"),
        **dict.fromkeys(
            ("X-Forwarded-Host", "X-Forwarded-Server", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"), "203.0.113.66"
        ),
        **dict.fromkeys(("X-Forwarded-User", "Remote-User", "X-Remote-User", "Proxy", "X_Forwarded_For"), "203.0.113.66"),
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Port": "80",
    }
    headers = https(address, headers=claims).headers
    assert "203.0.113.66" not in json.dumps(headers)
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-Port"]) == ("https", "8443")
    with socket.create_connection((address, 443)) as connection:
        assert headers["X-Forwarded-For"] == headers["X-Real-IP"] == connection.getsockname()[0]


@pytest.mark.parametrize(
    ("target", "host_header"),
    [
        ("https://records.test/", "evil.test"),
        ("/", "records.test:@evil.test"),
        ("/", "records.test:1234"),
        ("/", "RECORDS.test."),
    ],
)
def test_the_application_hears_the_name_of_its_site_and_nothing_else(address, target, host_header):
    """Links in mails are made of it."""
    answer = raw(address, f"GET {target} HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n\r\n")
    if " 200 " in answer.split("\r\n", 1)[0]:
        headers = json.loads(answer.split("\r\n\r\n", 1)[1])["headers"]
        assert headers["Host"] == headers["X-Forwarded-Host"] == "records.test:8443"
    else:
        assert answer == "" or " 400 " in answer.split("\r\n", 1)[0]


@pytest.mark.parametrize("name", ["other.test", "sub.www.records.test", "apps.records.test"])
def test_a_name_that_no_site_has_gets_nothing(address, name):
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        https(address, name=name)
    assert plain(address, f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n") == ""


def test_without_a_name_there_is_no_handshake(address):
    tls = context()
    tls.check_hostname = False
    with pytest.raises(ssl.SSLError):
        tls.wrap_socket(socket.create_connection((address, 443), timeout=10))


@pytest.mark.parametrize(
    "host_header", ["other.test", "any.apps.records.test", "maybe.records.test", "users.records.test", "closed.records.test"]
)
def test_the_connection_of_one_site_is_not_used_for_another_name(address, host_header):
    answer = raw(address, f"GET / HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n\r\n")
    assert answer == "" if host_header == "closed.records.test" else answer.startswith("HTTP/1.1 421 ")
    assert "method" not in answer


def test_plain_http_redirects_with_path_query_and_public_port(address):
    for method in ("GET", "HEAD", "OPTIONS", "POST"):
        answer = plain(address, f"{method} /v1/a%20b?c=d HTTP/1.1\r\nHost: records.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert answer.startswith("HTTP/1.1 301 ")
        assert "Location: https://records.test:8443/v1/a%20b?c=d\r\n" in answer


def test_authorities_find_their_proof_and_nothing_else(address):
    for name in ("records.test", "not-yet.records.test", "closed.records.test"):
        ask = "GET /.well-known/acme-challenge/{} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n"
        answer = plain(address, ask.format("token", name))
        assert answer.startswith("HTTP/1.1 200 ") and answer.endswith("\r\n\r\nproof\n")
        for wrong in ("", "nothing", "../../secret", "%2e%2e/%2e%2e/secret"):
            assert "not for you" not in plain(address, ask.format(wrong, name))


# --- TLS


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_protocols_are_refused(address, maximum):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        https(address, tls=context(maximum=maximum))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(address, version):
    tls = context()
    tls.minimum_version = tls.maximum_version = version

    def ask(session=None):
        connection = tls.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname="records.test", session=session)
        connection.sendall(b"GET / HTTP/1.1\r\nHost: records.test\r\nConnection: close\r\n\r\n")
        assert connection.recv(4)
        return connection.session, connection.session_reused

    session, reused = ask()
    assert not reused
    assert ask(session)[1]


def test_clients_without_ecdsa_get_the_rsa_pair(address):
    """And all others the first one."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(USERS / "rsa.pem")
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    assert https(address, tls=tls).status == 200
    with connect(address) as connection:
        assert "ECDSA" in connection.cipher()[0] or connection.version() == "TLSv1.3"
    # A site without such a pair.
    with pytest.raises(ssl.SSLError):
        https(address, name="maybe.records.test", tls=tls)


def test_http2_is_offered(address):
    tls = context()
    tls.set_alpn_protocols(["h2", "http/1.1"])
    with connect(address, tls=tls) as connection:
        assert connection.selected_alpn_protocol() == "h2"


# --- headers and pages


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/status/404", 404),
        ("GET", "/status/500", 500),
        ("GET", "/down/", 502),
        ("GET", "/assets/css/site.css", 200),
        ("GET", "/assets/nothing.css", 404),
        ("GET", "/MY_APP", 301),
        ("GET", "/MY_APP/login", 302),
        ("GET", "/civitas-maintenance.html", 404),
        ("POST", "/small/", 413),
        ("TRACE", "/", 405),
        ("OPTIONS", "/assets/css/site.css", 405),
        ("HEAD", "/assets/css/site.css", 200),
    ],
)
def test_headers_are_on_every_answer(address, method, path, status):
    answer = https(address, method, path, body=b"x" * 2000 if method == "POST" else None)
    assert answer.status == status
    assert answer.header("Strict-Transport-Security") == HSTS
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Referrer-Policy") == "same-origin"
    assert answer.header("X-Frame-Options") == "SAMEORIGIN"
    assert answer.header("Server") == "nginx"
    assert answer.header("Location", "").startswith("https://") is False


def test_headers_are_on_answers_to_nonsense(address):
    answer = raw(address, "GET / HTTP/1.1\r\nHost: records.test\r\nContent-Length: many\r\n\r\n")
    assert answer.startswith("HTTP/1.1 400 ")
    assert f"Strict-Transport-Security: {HSTS}\r\n" in answer


def test_the_application_may_be_stricter_and_not_laxer(address):
    answer = https(address, path="/own-headers")
    assert answer.header("X-Frame-Options") == "DENY"
    assert answer.header("Strict-Transport-Security") == HSTS


def test_an_application_that_does_not_answer_is_explained_in_words(address):
    answer = https(address, path="/down/")
    assert answer.status == 502
    assert b"try again" in answer.content and b"helpdesk@records.test" in answer.content


def test_pages_of_ones_own(address):
    """For errors of the edge, and for those of an application that asked for it."""
    ours = b"no such page in these records"
    assert ours in https(address, path="/assets/nothing.css").content
    assert ours in https(address, path="/small/status/410").content
    assert ours not in https(address, path="/status/404").content
    assert https(address, path="/civitas-error-records-404.html").status == 404


# --- locations


def test_a_further_application_under_a_path(address):
    seen = https(address, path="/MY_APP_AS_IT_IS/a%2Fb?c=d").seen
    assert (seen["port"], seen["path"]) == (8890, "/MY_APP_AS_IT_IS/a%2Fb?c=d")
    assert "X-Forwarded-Prefix" not in seen["headers"]
    assert https(address, path="/").seen["port"] == 8888


@pytest.mark.parametrize("rest", ["/", "/a%2Fb%20c?d=%2F&e", "/a//b", "/%2e%2e/x", "/?"])
def test_the_prefix_is_stripped_and_nothing_else(address, rest):
    seen = https(address, path=f"/MY_APP{rest}").seen
    assert (seen["port"], seen["path"]) == (8890, rest) if rest != "/%2e%2e/x" else seen["port"] == 8888
    assert seen["headers"].get("X-Forwarded-Prefix") == ("/MY_APP" if seen["port"] == 8890 else None)


def test_paths_that_only_end_up_below_the_prefix_are_not_stripped(address):
    assert https(address, path="/x/..%2fMY_APP/a").status == 404
    assert https(address, path="/MY_APPENDIX/").seen["port"] == 8888


def test_redirects_and_cookies_of_an_application_stay_below_its_prefix(address):
    answer = https(address, path="/MY_APP/login")
    assert answer.header("Location") == "/MY_APP/welcome?to=/login"
    assert answer.header("Set-Cookie") == "session=1; Path=/MY_APP/; HttpOnly"
    answer = https(address, path="/login")
    assert (answer.header("Location"), answer.header("Set-Cookie")) == ("/welcome?to=/login", "session=1; Path=/; HttpOnly")
    # Without its slash.
    assert https(address, path="/MY_APP?a=b").header("Location") == "/MY_APP/?a=b"


def test_a_backup_answers_when_no_other_does(address):
    assert [https(address, path="/pool/").seen["port"] for _number in range(3)] == [8890] * 3


def test_connections_to_an_application_are_kept_where_asked(address):
    """By each worker of nginx on its own, so of ten requests at least one finds another's connection; elsewhere none does."""
    assert len({https(address, path="/kept/").seen["connection"] for _number in range(10)}) < 10
    assert len({https(address, path="/").seen["connection"] for _number in range(10)}) == 10


def test_applications_with_tls_have_to_prove_their_name(address):
    """The edge itself is the application here. Were the name not verified, it would say 421."""
    answer = https(address, path="/tls/inner")
    assert (answer.seen["path"], answer.headers["X-Forwarded-For"]) == ("/inner", "127.0.0.1")
    assert https(address, path="/tls-of-another/").status == 502


def upgrade(address, path):
    connection = connect(address)
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: records.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return connection


def test_websockets_where_asked(address):
    with upgrade(address, "/socket/") as connection:
        head = connection.recv(4096).decode()
        assert head.startswith("HTTP/1.1 101 ") and "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        for message in (b"there", b"and again"):
            connection.sendall(message)
            assert connection.recv(4096) == message


def test_no_websockets_elsewhere(address):
    with upgrade(address, "/") as connection:
        head, _between, body = connection.recv(65536).decode().partition("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 ")
        assert "Upgrade" not in json.loads(body)["headers"]


def slow_upload(address, path, pieces=4, pause=0.5):
    """How long the application had to wait for the body, as it says, and how much came."""
    connection = connect(address)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: records.test\r\nContent-Length: {pieces * 1000}\r\nConnection: close\r\n\r\n".encode()
    )
    for _number in range(pieces):
        time.sleep(pause)
        connection.sendall(b"x" * 1000)
    seen = json.loads(read_all(connection).split("\r\n\r\n", 1)[1])
    return seen["seconds"], seen["length"]


def test_uploads_are_taken_in_whole_or_streamed_where_asked(address):
    seconds, length = slow_upload(address, "/")
    assert (seconds < 0.5, length) == (True, 4000)
    seconds, length = slow_upload(address, "/files/")
    assert (seconds > 1.5, length) == (True, 4000)


def test_sizes_by_location(address):
    assert https(address, "POST", body=b"x" * 1_000_000).seen["length"] == 1_000_000
    sizes = {"/": 50 << 20, "/files/": 100 << 20, "/small/": 1 << 10}
    for path, size in sizes.items():
        assert https(address, "POST", path, headers={"Content-Length": str(size + 1)}).status == 413
    assert https(address, "POST", "/files/", body=b"x" * (51 << 20)).seen["length"] == 51 << 20


def test_pauses_by_location(address):
    """One second for the small ones, minutes for all others."""
    assert slow_upload(address, "/", 2, 2)[1] == 2000
    started = time.monotonic()
    answer = raw(address, "POST /small/ HTTP/1.1\r\nHost: records.test\r\nContent-Length: 10\r\n\r\n")
    assert answer == "" or answer.startswith("HTTP/1.1 408 ")
    assert 0.5 < time.monotonic() - started < 8


def test_files_are_served_with_how_long_they_keep(address):
    answer = https(address, path="/assets/css/site.css")
    assert (answer.status, answer.content) == (200, b"body {}\n")
    assert answer.header("Cache-Control") == "public, max-age=86400"
    assert answer.header("Content-Type") == "text/css"
    assert https(address, path="/assets/nothing").header("Cache-Control") is None


@pytest.mark.parametrize(
    "path",
    [
        "/assets/",
        "/assets/css/",
        "/assets/.env",
        "/assets/css/.git",
        "/assets/../beside.txt",
        "/assets/%2e%2e/beside.txt",
        "/assets../beside.txt",
    ],
)
def test_neither_lists_nor_dotfiles_nor_what_lies_beside(address, path):
    answer = https(address, path=path)
    assert b"not for you" not in answer.content and b"site.css" not in answer.content
    if "beside" not in path:
        assert answer.status in (403, 404)


# --- who may come in


ASK_ITSELF = """
import http.client, socket, ssl, sys
connection = http.client.HTTPSConnection(sys.argv[1])
tls = ssl.create_default_context(cafile="/etc/civitas/ca.pem")
connection.sock = tls.wrap_socket(socket.create_connection(("127.0.0.1", 443)), server_hostname=sys.argv[1])
connection.request("GET", "/")
print(connection.getresponse().status)
"""


def answers_the_host_itself(host, name):
    return host.check_output("python3 -c %s %s", ASK_ITSELF, name) == "200"


def test_a_closed_site_answers_nobody_outside_its_networks(host, address):
    assert gets_nothing(https, address, name="closed.records.test")
    assert plain(address, "GET / HTTP/1.1\r\nHost: closed.records.test\r\nConnection: close\r\n\r\n") == ""
    assert answers_the_host_itself(host, "closed.records.test")


def test_users_with_certificates(address):
    headers = https(address, name="users.records.test", tls=context("officer"), headers={"X-Client-Cert-Subject": "CN=Minister"}).headers
    assert headers["X-Client-Cert-Verify"] == "SUCCESS"
    assert headers["X-Client-Cert-Subject"] == "CN=Officer 7"
    assert re.fullmatch("[0-9A-F]+", headers["X-Client-Cert-Serial"])


@pytest.mark.parametrize("user", [None, "left", "forged", "rsa"])
def test_users_without_one_that_holds(address, user):
    """None, revoked, signed by somebody else, of nobody's."""
    answer = https(address, name="users.records.test", tls=context(user))
    assert answer.status == 400
    assert answer.header("Strict-Transport-Security") == HSTS


def test_a_certificate_may_be_optional(address):
    claims = {"X-Client-Cert-Subject": "CN=Minister", "X-Client-Cert-Verify": "SUCCESS"}
    headers = https(address, name="maybe.records.test", headers=claims).headers
    assert headers["X-Client-Cert-Verify"] == "NONE"
    assert "X-Client-Cert-Subject" not in headers
    assert https(address, name="maybe.records.test", tls=context("officer")).headers["X-Client-Cert-Subject"] == "CN=Officer 7"
    assert https(address, name="maybe.records.test", tls=context("forged")).status == 400


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_of_another_site_is_no_certificate(address, version):
    tls = context()
    tls.minimum_version = tls.maximum_version = version
    session = None
    statuses = []
    with contextlib.suppress(ssl.SSLError):
        for name in ("maybe.records.test", "users.records.test"):
            with tls.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=name, session=session) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
                statuses.append(connection.recv(4096).decode().split()[1])
                session = connection.session
    # Older releases ask for the certificate, newer ones refuse to resume.
    assert statuses in (["200"], ["200", "400"], ["200", "421"])


# --- limits


def at_once(address, path, connections, each):
    """How many of the requests were answered with which status, all of them sent before the first answer is read."""
    request = f"GET {path} HTTP/1.1\r\nHost: records.test\r\n".encode()
    opened = [connect(address) for _number in range(connections)]
    for connection in opened:
        connection.sendall((request + b"\r\n") * (each - 1) + request + b"Connection: close\r\n\r\n")
    return collections.Counter(status for connection in opened for status in re.findall(r"HTTP/1.1 (\d+) ", read_all(connection)))


def test_an_office_behind_one_address_is_served_and_a_flood_is_not(address):
    """60 people open a page of 40 parts in the same moment. Then a program goes on and on."""
    assert at_once(address, "/assets/css/site.css", 60, 40) == {"200": 2400}
    flood = at_once(address, "/assets/css/site.css", 10, 990)
    assert flood["429"] > 1000, flood
    # Whoever shares the address with it is served again right after.
    time.sleep(1)
    assert at_once(address, "/assets/css/site.css", 1, 40) == {"200": 40}


def test_nginx_may_open_what_it_is_configured_for(host):
    """Where the kernel says no it would go on with a thousand files, and turn an office away."""
    worker = host.check_output("pgrep -f 'nginx: worker' | head -n 1")
    assert re.search(r"Max open files +16384 ", host.check_output("cat /proc/%s/limits", worker))


# --- maintenance


@pytest.fixture(name="closed")
def _closed(host):
    """As the playbook does it; nothing is reloaded."""
    host.check_output("touch /etc/civitas/nginx/maintenance/records")
    yield
    host.check_output("rm /etc/civitas/nginx/maintenance/records")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
def test_a_site_that_is_closed_for_maintenance(closed, address, method):
    answer = https(address, method, "/v1/children?name=x", body=b"{}" if method == "POST" else None)
    assert answer.status == 503
    assert (answer.header("Retry-After"), answer.header("Cache-Control")) == ("600", "no-store")
    assert answer.header("Strict-Transport-Security") == HSTS
    assert (b"Closed for maintenance" in answer.content and b"helpdesk@records.test" in answer.content) or method == "HEAD"


def test_who_is_served_all_the_same(closed, host, address):
    """Other sites, and this host; testers are tested with the side effects."""
    assert https(address, path="/assets/css/site.css").status == 503
    assert https(address, name="any.apps.records.test").status == 200
    assert answers_the_host_itself(host, "records.test")


def test_it_is_open_again(address):
    assert https(address).status == 200


# --- logs


def test_the_logs_hold_no_secrets(host, address):
    headers = {
        "Referer": "https://records.test/?token=canary-referrer",
        "Authorization": "Bearer canary-token",
        "Cookie": "s=canary-cookie",
    }
    for path in ("/v1/find", "/down/", "/small/", "/assets/none", "/MY_APP/find", "/reset/canary-path/now", "/v1/after"):
        https(address, "POST", path=f"{path}?child=canary-query", body=b"canary-body" * 200, headers=headers)
    # Other ways to write a hidden path, which nginx takes for the same.
    for path in ("//reset/canary-1", "/./reset/canary-2", "/v1/../reset/canary-3", "/%72eset/canary-4"):
        raw(address, f"GET {path} HTTP/1.1\r\nHost: records.test\r\nConnection: close\r\n\r\n")
    raw(address, "GET /v1/plain?child=canary-query HTTP/1.1\r\nHost: records.test\r\nContent-Length: many\r\n\r\n")
    plain(address, "GET /v1/plain?child=canary-query HTTP/1.1\r\nHost: records.test\r\nConnection: close\r\n\r\n")
    log = host.check_output("tail -n 20 /var/log/nginx/access.log")
    for line in ('"POST /v1/find" 200', '"POST /down/" 502', '"127.0.0.1:8889" "502"', '"POST /reset/..." 200', '"GET /v1/plain" 301'):
        assert line in log, line
    assert host.run("grep -r canary /var/log/nginx").stdout == ""
    assert host.run("journalctl -u nginx | grep canary").stdout == ""


def test_the_logs_are_rotated(host):
    assert "/var/log/nginx/*.log" in host.check_output("cat /etc/logrotate.d/nginx")


# --- the host


def test_only_the_declared_ports_listen(host):
    listening = {
        socket.rsplit(":", 1)[1] for socket in host.socket.get_listening_sockets() if "tcp://" in socket and "127.0.0.1" not in socket
    }
    assert listening == {"22", "80", "443"}


def test_a_site_without_its_certificate_is_left_out_and_no_other(host, address):
    host.check_output("mv /etc/civitas/certificates/lost /root/lost")
    try:
        # A reload keeps what runs.
        host.run("systemctl reload nginx")
        assert https(address, name="lost.records.test").status == 200
        host.check_output("systemctl restart nginx")
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            https(address, name="lost.records.test")
        assert plain(address, "GET / HTTP/1.1\r\nHost: lost.records.test\r\nConnection: close\r\n\r\n") == ""
        assert https(address).status == 200
        assert raw(address, "GET / HTTP/1.1\r\nHost: lost.records.test\r\nConnection: close\r\n\r\n").startswith("HTTP/1.1 421 ")
        journal = host.check_output("journalctl -u nginx -p err -n 20 -o cat")
        assert "lost is not served: " in journal and "/etc/civitas/certificates/lost/fullchain.pem" in journal
    finally:
        host.check_output("mv /root/lost /etc/civitas/certificates/lost; systemctl restart nginx")
    assert https(address, name="lost.records.test").status == 200


def test_what_the_role_declares_is_so(host):
    """The checks that `status` runs, the ones of the sites included."""
    declared = "checks={{ lookup('civitas.hosting.declarations', 'nginx', kind='checks') }}"
    done = host.ansible("civitas.hosting.host_checks", declared, check=False, become=True)
    assert {check["id"]: check["evidence"] for check in done["checks"] if not check["ok"]} == {}
    assert [check["id"].removeprefix("nginx.") for check in done["checks"]] == [
        "service",
        "configuration",
        *("site.records.answers.records.test", "site.records.answers.www.records.test", "site.records.certificate"),
        "site.apps.certificate",
        *("site.closed.answers.closed.records.test", "site.closed.certificate"),
        *("site.users.answers.users.records.test", "site.users.certificate"),
        *("site.maybe.answers.maybe.records.test", "site.maybe.certificate"),
        *("site.lost.answers.lost.records.test", "site.lost.certificate"),
    ]


def test_it_comes_back_after_a_reboot(host):
    assert host.service("nginx").is_enabled
    assert host.service("nginx").is_running
