# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.nginx_problems import nginx_problems
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

UPSTREAM = {"path": "/", "upstream": "http://127.0.0.1:8888"}
USERS = [{"name": "anna", "digest": "$6$salt$" + 86 * "x"}]
SITE = {"name": "records", "server_names": ["records.example.org"], "certificate": "edge", "locations": [UPSTREAM]}
GOOD = {
    "sites": [SITE],
    "listen_addresses": ["0.0.0.0", "[::]"],
    "http_port": 80,
    "https_port": 443,
    "public_https_port": 443,
    "tls_mode": "terminate",
    "load_balancers": [],
    "ocsp_resolvers": [],
    "ca_file": "/etc/civitas/ca.pem",
    "upstream_ca_file": "/etc/civitas/ca.pem",
    "acme_webroot": "",
    "hsts_max_age": 31536000,
    "max_body_size": "50m",
    "read_timeout": 300,
    "requests_per_second": 200,
    "requests_burst": 5000,
    "requests_at_once": 2500,
    "maintenance_testers": [],
    "maintenance_retry_after": 600,
    "contact": "",
    "status_port": 8081,
    "keep_sites": [],
}


def site(**changes):
    return {"sites": [{**SITE, **changes}]}


def location(**changes):
    return site(locations=[{**UPSTREAM, **changes}])


def upstream(**changes):
    group = {"name": "pool", "servers": [{"address": "10.0.0.5:3000"}], **changes}
    return site(upstreams=[group], locations=[{"path": "/", "upstream": "pool"}])


def asked(change):
    return nginx_problems({**GOOD, **change})


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sites": []},
        {"listen_addresses": ["10.0.0.1", "[fd00::1]"], "ca_file": "", "acme_webroot": "/var/lib/civitas/acme"},
        {"tls_mode": "upstream", "load_balancers": ["10.0.0.7", "fd00::/64"]},
        {"contact": 'Help desk; {ask} "them" $now', "keep_sites": ["*.local.conf"], "requests_per_second": "0"},
        site(server_names=["*.example.org", "xn--mnchen-3ya.example", "localhost"], rsa_certificate="edge-rsa", max_body_size="0"),
        site(allowed_networks=["10.8.0.0/24"], listen_addresses=["10.8.0.1"], hidden_paths=["/reset/"], upstreams=None, error_pages=None),
        site(error_pages=[{"statuses": [404, "503"], "file": __file__}]),
        location(path="/MY_APP/", strip_prefix=True, websocket=True, stream_uploads=True, read_timeout="60", max_body_size="1g"),
        location(upstream="https://app.internal"),
        location(upstream="http://[::1]:3000"),
        site(locations=[{"path": "/assets/", "directory": "/srv/assets/v1.2", "max_age": 0}]),
        upstream(),
        upstream(servers=[{"address": "[fd00::5]:3000"}, {"address": "app.internal:3000", "backup": True, "weight": 2}], keepalive=16),
        upstream(scheme="https", tls_name="app.internal", balance="least_conn", keepalive_timeout=10),
    ],
)
def test_good_values_have_no_problem(change):
    assert asked(change) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (site(basic_auth={"users": []}), "users is empty"),
        (site(basic_auth={"realm": 'a"b', "users": USERS}), "realm is"),
        (site(basic_auth={"users": USERS * 2}), "anna twice"),
        (site(basic_auth={"users": [{**USERS[0], "name": "a:b"}]}), "name of a user is 'a:b'"),
        (site(basic_auth={"users": [{"name": "anna", "digest": "canary-in-plain"}]}), "digest of anna is none"),
        (site(basic_auth={"users": [{"name": "anna", "digest": USERS[0]["digest"] + "\nbert:x"}]}), "digest of anna is none"),
        (location(methods=["get"]), "methods has 'get'"),
        (site(locations=[{"path": "/a/", "directory": "/srv/a", "exact": True}]), "exact is for locations with an upstream"),
        ({"listen_addresses": []}, "nginx_listen_addresses is empty; write"),
        ({"listen_addresses": ["::"]}, "nginx_listen_addresses holds '::'; write addresses such as 10.0.0.1 or, in brackets, [fd00::1]"),
        ({"listen_addresses": ["[10.0.0.1]"]}, "in brackets"),
        ({"http_port": 0}, "nginx_http_port is 0; write a whole number from 1 to 65535"),
        ({"https_port": 80}, "nginx_http_port and nginx_https_port are the same"),
        ({"tls_mode": "upstream"}, "nginx_load_balancers is empty; write the addresses"),
        ({"load_balancers": ["10.0.0.7"]}, "is used with nginx_tls_mode: upstream only"),
        ({"tls_mode": "upstream", "load_balancers": ["0.0.0.0/0"]}, "the whole internet"),
        ({"tls_mode": "upstream", "load_balancers": ["balancer"]}, "nginx_load_balancers holds 'balancer'"),
        ({"ocsp_resolvers": ["resolver.example.org"]}, "nginx_ocsp_resolvers holds"),
        ({"ca_file": "ca.pem"}, "nginx_ca_file is 'ca.pem'; write an absolute path on the host, or nothing"),
        ({"upstream_ca_file": ""}, "nginx_upstream_ca_file is ''"),
        ({"acme_webroot": "/var/../etc"}, "nginx_acme_webroot is"),
        ({"hsts_max_age": -1}, "nginx_hsts_max_age is -1"),
        ({"max_body_size": "plenty"}, "nginx_max_body_size is 'plenty'; write a size such as 50m"),
        ({"read_timeout": "5m"}, "nginx_read_timeout is '5m'; write a whole number"),
        ({"requests_burst": 1.5}, "nginx_requests_burst is 1.5"),
        ({"status_port": "many"}, "nginx_status_port is 'many'"),
        ({"status_port": 443}, "a port of the sites; write another one such as 9112"),
        ({"maintenance_testers": ["10.8.0.1/24"]}, "you may mean 10.8.0.0/24"),
        ({"contact": "one\ntwo"}, "nginx_contact holds a control character"),
        ({"keep_sites": ["../*"]}, "nginx_keep_sites is '../*'"),
        ({"sites": [SITE, {**SITE, "server_names": ["other.example.org"]}]}, "the names records and records are the same"),
        (
            {"sites": [{**SITE, "name": "a-b"}, {**SITE, "name": "a_b", "server_names": ["b.example.org"]}]},
            "the names a-b and a_b are the same to nginx",
        ),
        ({"sites": [SITE, {**SITE, "name": "other"}]}, "the name records.example.org stands twice"),
        (site(name="rec ords"), "nginx_sites[0].name is 'rec ords'"),
        (site(name="../x"), "nginx_sites[0].name"),
        (site(server_names=[]), "nginx_sites, records: server_names is empty"),
        (site(server_names=["Records.example.org"]), "write DNS names in lower case"),
        (site(server_names=["münchen.example"]), "names with other letters in their form xn--"),
        (site(server_names=["*"]), "server_names holds '*'"),
        (site(server_names=["*.org"]), "server_names holds '*.org'"),
        (site(server_names=["www.*.org"]), "server_names holds"),
        (site(certificate="../edge"), "write the name of a directory in /etc/civitas/certificates"),
        (site(rsa_certificate="edge"), "rsa_certificate is the same as certificate"),
        (site(max_body_size="50 m"), "records: max_body_size is '50 m'"),
        (site(listen_addresses=["vpn"]), "records: listen_addresses holds 'vpn'"),
        (site(allowed_networks=[]), "allowed_networks is empty, so nobody could reach the site"),
        (site(allowed_networks=None), "allowed_networks is empty"),
        (site(allowed_networks=["10.8.0.0/33"]), "allowed_networks holds '10.8.0.0/33'"),
        (site(hidden_paths=["reset"]), "hidden_paths is 'reset'; write paths such as /reset/"),
        (site(locations=[]), "locations is empty; write at least one"),
        (site(locations=[UPSTREAM, UPSTREAM]), "two locations have the path /"),
        (location(path="MY_APP"), "the path of a location is 'MY_APP'; write a path that begins with /"),
        (location(path="/a b/"), "the path of a location"),
        (location(path="/civitas-x"), "are the edge's own"),
        (location(directory="/srv/a"), "has both upstream and directory"),
        (location(upstream=None), "has neither upstream and directory"),
        (location(upstream="127.0.0.1:8888"), "write http://address:port without a path"),
        (location(upstream="http://127.0.0.1:8888/"), "without a path"),
        (location(upstream="http://127.0.0.1:99999"), "has no port from 1 to 65535"),
        (location(strip_prefix=True), "strip_prefix needs a path like /MY_APP/"),
        (location(path="/MY_APP", strip_prefix=True), "strip_prefix needs a path like /MY_APP/"),
        (location(read_timeout=0), "location /: read_timeout is 0"),
        (location(max_body_size="x"), "location /: max_body_size is 'x'"),
        (location(max_age=1), "max_age is for locations with a directory"),
        (location(intercept_errors=True), "and there are none"),
        (site(locations=[{"path": "/assets", "directory": "/srv/assets"}]), "end the path of a directory with /"),
        (site(locations=[{"path": "/a/", "directory": "/srv/../etc"}]), "an absolute path on the host without .."),
        (site(locations=[{"path": "/a/", "directory": "/"}]), "directory is '/'"),
        (site(locations=[{"path": "/a/", "directory": "/etc/civitas"}]), "is no place for what everybody may read"),
        (site(locations=[{"path": "/a/", "directory": "/root"}]), "is no place for what everybody may read"),
        (site(locations=[{"path": "/a/", "directory": "/srv/a", "max_age": "1h"}]), "max_age is '1h'"),
        (site(locations=[{"path": "/a/", "directory": "/srv/a", "websocket": True}]), "websocket is for locations with an upstream"),
        (upstream(name="pool 1"), "the name of an upstream is 'pool 1'"),
        (upstream(name="other"), "upstream is 'pool'; write http://address:port without a path or a name of the site's upstreams (other)"),
        (upstream(servers=[]), "has no server beside backups"),
        (upstream(servers=[{"address": "10.0.0.5:3000", "backup": True}]), "has no server beside backups"),
        (upstream(servers=[{"address": "10.0.0.5"}]), "write address:port such as 10.0.0.5:3000"),
        (upstream(servers=[{"address": "10.0.0.5:3000 backup"}]), "write address:port"),
        (upstream(servers=[{"address": "10.0.0.5:3000", "weight": 0}]), "weight is 0"),
        (
            upstream(servers=[{"address": "10.0.0.5:1"}, {"address": "10.0.0.5:2", "backup": True}], balance="ip_hash"),
            "ip_hash knows no backup servers",
        ),
        (upstream(keepalive=-1), "keepalive is -1"),
        (upstream(keepalive_timeout=0), "keepalive_timeout is 0"),
        (upstream(scheme="https"), "tls_name is ''; write the name in the servers' certificate"),
        (upstream(tls_name="app.internal"), "tls_name is used with scheme: https only"),
        (site(upstreams=[{"name": n, "servers": [{"address": "a:1"}]} for n in ("a-b", "a_b")]), "upstreams holds a_b twice"),
        (site(error_pages=[{"statuses": [200], "file": __file__}]), "statuses is 200; write a whole number from 400 to 599"),
        (site(error_pages=[{"statuses": [404], "file": __file__}, {"statuses": [404], "file": __file__}]), "404 has two pages"),
        (site(error_pages=[{"statuses": [], "file": __file__}]), "statuses is empty"),
        (site(error_pages=[{"statuses": [404], "file": "404.html"}]), "there is no file 404.html on the controller; write its whole path"),
    ],
)
def test_a_problem_is_named(change, expected):
    found = asked(change)
    assert [problem for problem in found if expected in problem], found


def test_all_problems_are_told_at_once():
    found = asked({**site(server_names=["a b"], certificate=";", locations=[{"path": "x", "upstream": "y"}]), "http_port": "x"})
    assert len(found) == 5, found


# Every text that reaches the configuration, given the texts that would leave it.
FIELDS = [
    lambda text: {"listen_addresses": [text]},
    lambda text: {"load_balancers": [text], "tls_mode": "upstream"},
    lambda text: {"ocsp_resolvers": [text]},
    lambda text: {"upstream_ca_file": f"/etc/{text}"},
    lambda text: {"acme_webroot": f"/srv/{text}"},
    lambda text: {"max_body_size": f"1{text}"},
    lambda text: {"read_timeout": f"1{text}"},
    lambda text: {"hsts_max_age": f"1{text}"},
    lambda text: {"requests_burst": f"1{text}"},
    lambda text: {"maintenance_retry_after": f"1{text}"},
    lambda text: {"maintenance_testers": [f"10.0.0.1{text}"]},
    lambda text: site(name=f"a{text}"),
    lambda text: site(server_names=[f"a{text}"]),
    lambda text: site(certificate=f"a{text}"),
    lambda text: site(rsa_certificate=f"a{text}"),
    lambda text: site(max_body_size=f"1{text}"),
    lambda text: site(listen_addresses=[f"10.0.0.1{text}"]),
    lambda text: site(allowed_networks=[f"10.0.0.1{text}"]),
    lambda text: site(hidden_paths=[f"/a{text}"]),
    lambda text: site(error_pages=[{"statuses": [f"404{text}"], "file": __file__}]),
    lambda text: location(path=f"/a{text}"),
    lambda text: location(upstream=f"http://a{text}"),
    lambda text: location(max_body_size=f"1{text}"),
    lambda text: location(read_timeout=f"1{text}"),
    lambda text: site(locations=[{"path": "/a/", "directory": f"/srv/a{text}"}]),
    lambda text: site(locations=[{"path": "/a/", "directory": "/srv/a", "max_age": f"1{text}"}]),
    lambda text: upstream(name=f"a{text}"),
    lambda text: upstream(servers=[{"address": f"10.0.0.5:3000{text}"}]),
    lambda text: upstream(servers=[{"address": "10.0.0.5:3000", "weight": f"1{text}"}]),
    lambda text: upstream(keepalive=f"1{text}"),
    lambda text: upstream(scheme="https", tls_name=f"a{text}"),
]


@pytest.mark.parametrize("field", FIELDS)
@given(
    before=st.text(max_size=3),
    evil=st.sampled_from([";", "{", "}", "\n", "\r", " ", "\t", '"', "'", "$", "\\", "#", "\0"]),
    after=st.text(max_size=3),
)
def test_nothing_leaves_its_directive(field, before, evil, after):
    assert asked(field(before + evil + after))


# --- certificates of clients

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def authority(text):
    made = x509.CertificateBuilder(name(text), name(text), KEY.public_key(), 1, NOW - DAY, NOW + DAY).sign(KEY, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


def crl(issuer, ends=NOW + DAY):
    return (
        x509.CertificateRevocationListBuilder(name(issuer), NOW - 9 * DAY, ends)
        .sign(KEY, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )


PRIVATE = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize(
    ("ca", "revoked", "expected"),
    [
        (authority("A"), None, None),
        (authority("A"), crl("A"), None),
        (authority("A") + authority("B"), crl("B") + crl("A"), None),
        (authority("A") + authority("B"), crl("B"), "has no revocation list of CN=A, so every client would be refused"),
        (authority("A"), crl("A", NOW - DAY), "the revocation list of CN=A ended on "),
        (authority("A"), b"", "holds no revocation list"),
        (authority("A"), authority("A"), "holds no revocation list"),
        (authority("A"), crl("A")[:-60], "holds no revocation list"),
        (b"", None, "holds no certificates"),
        (crl("A"), None, "holds no certificates"),
        (authority("A") + PRIVATE, None, "holds a private key"),
    ],
)
def test_files_for_certificates_of_clients(tmp_path, ca, revoked, expected):
    clients = {"mode": "required", "ca_file": str(tmp_path / "ca.pem")}
    (tmp_path / "ca.pem").write_bytes(ca)
    if revoked is not None:
        (tmp_path / "crl.pem").write_bytes(revoked)
        clients["crl_file"] = str(tmp_path / "crl.pem")
    found = asked(site(client_certificates=clients))
    assert (found == []) if expected is None else [problem for problem in found if expected in problem], found


def test_files_for_certificates_of_clients_have_to_be_there():
    found = asked(site(client_certificates={"mode": "required", "ca_file": "/none", "crl_file": "crl.pem"}))
    assert ["there is no file /none" in found[0], "there is no file crl.pem" in found[1]] == [True, True]
    assert "ca_file is missing" in asked(site(client_certificates={"mode": "required"}))[0]


def test_who_does_not_end_tls_sees_no_certificates_of_clients(tmp_path):
    (tmp_path / "ca.pem").write_bytes(authority("A"))
    change = site(client_certificates={"mode": "required", "ca_file": str(tmp_path / "ca.pem")})
    assert "ask for them there" in asked({**change, "tls_mode": "upstream", "load_balancers": ["10.0.0.7"]})[0]


def test_a_wrong_call_is_an_error_of_the_filter():
    with pytest.raises(AnsibleFilterError, match=r"civitas\.hosting\.nginx_problems: KeyError: 'listen_addresses'"):
        nginx_problems({})


def test_who_may_log_in_is_no_problem_and_is_never_told():
    assert asked(site(basic_auth={"realm": "The office", "users": USERS})) == []
    assert asked(location(path="/api/query", exact=True, methods=["GET", "POST"])) == []
    assert "canary" not in str(asked(site(basic_auth={"users": [{"name": "anna", "digest": "canary-in-plain"}]})))
