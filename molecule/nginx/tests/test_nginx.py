# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge as seen from outside: from the controller, through the host's own address, with verification on."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl

import pytest

CA_FILE = os.path.join(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "ca.pem")


@pytest.fixture(name="address")
def _address(host):
    return next(address for address in host.interface("eth0").addresses if "." in address)


def https(address, method="GET", path="/", name="records.test", body=None, headers=None, maximum=None):
    context = ssl.create_default_context(cafile=CA_FILE)
    if maximum:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = maximum
        context.set_ciphers("ALL:@SECLEVEL=0")
    connection = http.client.HTTPSConnection(name, 443, timeout=10, context=context)
    connection.sock = context.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname=name)
    connection.request(method, path, body=body, headers=headers or {})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def plain(address, request):
    with socket.create_connection((address, 80), timeout=10) as connection:
        connection.sendall(request.encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


@pytest.mark.parametrize("name", ["records.test", "www.records.test"])
def test_a_request_reaches_the_application_over_verified_tls(address, name):
    response, content = https(address, path="/v1/children?name=x", name=name)
    seen = json.loads(content)
    assert response.status == 200
    assert seen["path"] == "/v1/children?name=x"
    assert seen["headers"]["Host"] == seen["headers"]["X-Forwarded-Host"] == f"{name}:8443"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "DELETE"])
def test_every_method_reaches_it(address, method):
    response, _content = https(address, method, body=b"{}" if method == "POST" else None)
    assert response.status == 200


def test_what_a_client_says_about_its_address_is_not_believed(address):
    _response, content = https(
        address, headers={"X-Forwarded-For": "203.0.113.66", "X-Real-IP": "203.0.113.66", "X-Forwarded-Proto": "http"}
    )
    headers = json.loads(content)["headers"]
    assert "203.0.113.66" not in json.dumps(headers)
    assert headers["X-Forwarded-Proto"] == "https"
    assert headers["X-Forwarded-For"] == headers["X-Real-IP"] != ""


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
    context = ssl.create_default_context(cafile=CA_FILE)
    with context.wrap_socket(socket.create_connection((address, 443), timeout=10), server_hostname="records.test") as connection:
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {host_header}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    if " 200 " in answer.split("\r\n", 1)[0]:
        headers = json.loads(answer.split("\r\n\r\n", 1)[1])["headers"]
        assert headers["Host"] == headers["X-Forwarded-Host"] == "records.test:8443"
    else:
        assert answer == "" or " 400 " in answer.split("\r\n", 1)[0]


def test_a_name_that_no_site_has_gets_nothing(address):
    with pytest.raises((ssl.SSLError, http.client.RemoteDisconnected, ConnectionError)):
        https(address, name="other.test")
    assert plain(address, "GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n") == ""


def test_plain_http_redirects_with_path_query_and_public_port(address):
    answer = plain(address, "GET /v1/a%20b?c=d HTTP/1.1\r\nHost: records.test\r\nConnection: close\r\n\r\n")
    assert answer.startswith("HTTP/1.1 301 ")
    assert "Location: https://records.test:8443/v1/a%20b?c=d\r\n" in answer


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_protocols_are_refused(address, maximum):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        https(address, maximum=maximum)


def test_headers(address):
    response, _content = https(address)
    assert response.getheader("Strict-Transport-Security") == "max-age=31536000"
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    assert response.getheader("Server") == "nginx"


def test_an_application_that_does_not_answer_is_explained_in_words(address):
    response, content = https(address, path="/down/")
    assert response.status == 502
    assert b"try again" in content and b"helpdesk@records.test" in content
    assert response.getheader("Strict-Transport-Security")


def test_large_requests_are_refused_at_the_edge(address):
    response, content = https(address, "POST", body=b"x" * 1_000_000)
    assert json.loads(content)["length"] == 1_000_000
    response, _content = https(address, "POST", headers={"Content-Length": str(60 * 1024 * 1024)})
    assert response.status == 413


def test_the_log_holds_neither_query_strings_nor_bodies(host, address):
    https(address, "POST", path="/v1/find?child=canary-query", body=b"canary-body")
    log = host.run("tail -n 5 /var/log/nginx/access.log").stdout
    assert '"POST /v1/find"' in log
    assert host.run("grep -rq -e canary-query -e canary-body /var/log/nginx").rc == 1


def test_only_the_declared_ports_listen(host):
    listening = {
        socket.rsplit(":", 1)[1] for socket in host.socket.get_listening_sockets() if "tcp://" in socket and "127.0.0.1" not in socket
    }
    assert listening == {"22", "80", "443"}


def test_what_the_role_declares_is_so(host):
    """The checks that `status` runs, the ones of the sites included."""
    declared = "checks={{ lookup('civitas.hosting.declarations', 'nginx', kind='checks') }}"
    done = host.ansible("civitas.hosting.host_checks", declared, check=False, become=True)
    assert [(check["id"], check["ok"]) for check in done["checks"]] == [
        ("nginx.service", True),
        ("nginx.configuration", True),
        ("nginx.site.records.answers.records.test", True),
        ("nginx.site.records.answers.www.records.test", True),
        ("nginx.site.records.certificate", True),
    ], done


def test_it_comes_back_after_a_reboot(host):
    assert host.service("nginx").is_enabled
    assert host.service("nginx").is_running
