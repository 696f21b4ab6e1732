# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role nginx. Runs on the controller, before nginx sees any of the values.

Private to the collection: no promise of stability.

Every value that goes into the configuration has a form of its own here, and none of these forms holds white space, quotes, braces or a
semicolon: what passes cannot end a directive and begin another.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import typing as t

try:
    from cryptography import x509

    MISSING = ""
except ImportError as _error:
    MISSING = str(_error)

Config = t.Mapping[str, t.Any]
Found = t.Iterator[str]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SIZE = re.compile(r"[0-9]{1,9}[kKmMgG]?")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
_DIRECTORY = re.compile(r"(?:/[A-Za-z0-9_-][A-Za-z0-9._-]*)+/?")
# What the host keeps for itself; /usr/share and /srv, /var/www and /opt are where assets lie.
_PRIVATE = (
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/tmp",
    "/var/lib/civitas",
    "/var/lib/postgresql",
    "/var/log",
)
_PATTERN = re.compile(r"[A-Za-z0-9._*?\[\]-]+")
_URL = re.compile(r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::(?P<port>[0-9]+))?")
_SERVER = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]+)")
# Pages and proofs of the edge itself.
_RESERVED = ("/civitas-",)
_UPSTREAM_ONLY = ("strip_prefix", "websocket", "stream_uploads", "intercept_errors", "read_timeout", "exact")
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_USER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_REALM = re.compile(r"[A-Za-z0-9 ._-]{1,64}")
# crypt(3): SHA-2, bcrypt and yescrypt. Others are too weak, or a password in plain.
_DIGEST = re.compile(r"\$(?:[56]|2[aby]|y)\$[A-Za-z0-9./$=,]{20,120}")


def problems(config: Config) -> t.List[str]:
    """Return one sentence per problem, each with what to write.

    Args:
        config: the variables of the role without their prefix. Options that were left out may be missing or None.
    """
    return [*_role(config), *_sites(config["sites"], config)]


# --- values: each function yields what is wrong with one


def _matches(where: str, value: t.Any, form: t.Pattern[str], write: str) -> Found:
    if not form.fullmatch(str(value)):
        yield f"{where} is {value!r}; write {write}"


def _number(where: str, value: t.Any, least: int, most: int) -> Found:
    # int() would take white space and underscores, too.
    fits = re.fullmatch("[0-9]{1,12}", str(value)) and least <= int(str(value)) <= most
    if not fits:
        yield f"{where} is {value!r}; write a whole number from {least} to {most}"


def _port(where: str, value: t.Any) -> Found:
    yield from _number(where, value, 1, 65535)


def _size(where: str, value: t.Any) -> Found:
    yield from _matches(where, value, _SIZE, "a size such as 50m (k, m or g; 0 for no limit)")


def _seconds(where: str, value: t.Any) -> Found:
    yield from _number(where, value, 1, 86400)


def _networks(where: str, values: t.Any) -> Found:
    for value in values or []:
        try:
            ipaddress.ip_network(str(value))
        except ValueError:
            try:
                meant = f" (you may mean {ipaddress.ip_network(str(value), strict=False)})"
            except ValueError:
                meant = ""
            yield f"{where} holds {value!r}; write addresses or networks such as 10.8.0.0/24 or fd00::/64{meant}"


def _addresses(where: str, values: t.Any) -> Found:
    for value in values or []:
        text = str(value)
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            address = None
        if address is None or (address.version == 6) != (bare != text) or "%" in text:
            yield f"{where} holds {value!r}; write addresses such as 10.0.0.1 or, in brackets, [fd00::1]"


def _file(where: str, path: t.Any) -> Found:
    if not os.path.isabs(str(path)) or not os.path.isfile(str(path)):
        yield f"{where}: there is no file {path} on the controller; write its whole path, such as {{{{ inventory_dir }}}}/files/name"


def _twice(values: t.Iterable[t.Any]) -> t.List[str]:
    seen: t.Set[str] = set()
    return sorted({str(value) for value in values if str(value) in seen or seen.add(str(value))})  # type: ignore[func-returns-value]


def _given(item: Config, key: str) -> bool:
    return item.get(key) is not None


# --- the role


def _role(config: Config) -> Found:
    yield from _addresses("nginx_listen_addresses", config["listen_addresses"])
    if not config["listen_addresses"]:
        yield 'nginx_listen_addresses is empty; write ["0.0.0.0", "[::]"] for all, or the addresses of this host that people reach'
    for key in ("http_port", "https_port", "public_https_port"):
        yield from _port(f"nginx_{key}", config[key])
    if str(config["http_port"]) == str(config["https_port"]) and config["tls_mode"] == "terminate":
        yield "nginx_http_port and nginx_https_port are the same; write two"
    yield from _networks("nginx_load_balancers", config["load_balancers"])
    if config["tls_mode"] == "upstream" and not config["load_balancers"]:
        yield "nginx_tls_mode is upstream, but nginx_load_balancers is empty; write the addresses of who ends TLS in front of it"
    if config["tls_mode"] != "upstream" and config["load_balancers"]:
        yield "nginx_load_balancers is used with nginx_tls_mode: upstream only; write that, or remove the list"
    if any(ipaddress.ip_network(str(network)).prefixlen == 0 for network in config["load_balancers"] if not list(_networks("", [network]))):
        yield "nginx_load_balancers holds the whole internet, so anybody could name any address; write the balancers' own"
    for resolver in config["ocsp_resolvers"]:
        yield from _addresses("nginx_ocsp_resolvers", [resolver])
    for key in ("ca_file", "acme_webroot"):
        if config[key]:
            yield from _matches(f"nginx_{key}", config[key], _DIRECTORY, "an absolute path on the host, or nothing")
    yield from _matches("nginx_upstream_ca_file", config["upstream_ca_file"], _DIRECTORY, "an absolute path on the host")
    yield from _number("nginx_hsts_max_age", config["hsts_max_age"], 0, 10**9)
    yield from _size("nginx_max_body_size", config["max_body_size"])
    yield from _seconds("nginx_read_timeout", config["read_timeout"])
    for key in ("requests_per_second", "requests_burst", "requests_at_once"):
        yield from _number(f"nginx_{key}", config[key], 0, 10**6)
    yield from _number("nginx_status_port", config["status_port"], 0, 65535)
    if str(config["status_port"]) in (str(config["http_port"]), str(config["https_port"])):
        yield f"nginx_status_port is {config['status_port']}, a port of the sites; write another one such as 9112, or 0 for none"
    yield from _networks("nginx_maintenance_testers", config["maintenance_testers"])
    yield from _seconds("nginx_maintenance_retry_after", config["maintenance_retry_after"])
    if re.search(r"[\x00-\x1f\x7f]", str(config["contact"])):
        yield "nginx_contact holds a control character or a line break; write one line"
    for pattern in config["keep_sites"]:
        yield from _matches("nginx_keep_sites", pattern, _PATTERN, 'patterns of file names such as "*.local.conf"')


# --- sites


def _sites(sites: t.Sequence[Config], config: Config) -> Found:
    for number, site in enumerate(sites):
        where = f"nginx_sites[{number}]"
        if not _NAME.fullmatch(str(site["name"])):
            yield f"{where}.name is {site['name']!r}; write letters, digits, - and _"
        else:
            where = f"nginx_sites, {site['name']}"
        yield from _site(where, site, config)
    # Names of variables and upstreams in the configuration have no hyphens.
    for name in _twice(str(site["name"]).replace("-", "_") for site in sites):
        alike = sorted(str(site["name"]) for site in sites if str(site["name"]).replace("-", "_") == name)
        yield f"nginx_sites: the names {' and '.join(alike)} are the same to nginx (- and _ count as one); choose others"
    for name in _twice(server for site in sites for server in site["server_names"] or []):
        yield f"nginx_sites: the name {name} stands twice in server_names; a name belongs to one site"


def _site(where: str, site: Config, config: Config) -> Found:
    if not site["server_names"]:
        yield f"{where}: server_names is empty; write at least one name"
    for name in site["server_names"] or []:
        text = str(name)[2:] if str(name).startswith("*.") else str(name)
        if not _HOST.fullmatch(text) or len(text) > 253 or ("*" in str(name) and "." not in text):
            yield (
                f"{where}: server_names holds {name!r}; write DNS names in lower case such as records.example.org or *.example.org, "
                "names with other letters in their form xn--"
            )
    certificates = [site[key] for key in ("certificate", "rsa_certificate") if key == "certificate" or site.get(key)]
    for name in certificates:
        yield from _matches(f"{where}: certificate", name, _NAME, "the name of a directory in /etc/civitas/certificates")
    if _twice(certificates):
        yield f"{where}: rsa_certificate is the same as certificate; write the name of a pair with an RSA key, or remove it"
    if site.get("max_body_size"):
        yield from _size(f"{where}: max_body_size", site["max_body_size"])
    yield from _addresses(f"{where}: listen_addresses", site.get("listen_addresses"))
    if "allowed_networks" in site:
        yield from _networks(f"{where}: allowed_networks", site["allowed_networks"])
        if not site["allowed_networks"]:
            yield f"{where}: allowed_networks is empty, so nobody could reach the site; write the networks, or remove it for everybody"
    for path in site.get("hidden_paths") or []:
        yield from _matches(f"{where}: hidden_paths", path, _PATH, "paths such as /reset/")
    yield from _upstreams(where, site.get("upstreams") or [])
    yield from _locations(where, site)
    if site.get("basic_auth"):
        yield from _basic_auth(f"{where}: basic_auth", site["basic_auth"])
    if site.get("client_certificates"):
        yield from _client_certificates(f"{where}: client_certificates", site["client_certificates"], config)
    yield from _error_pages(f"{where}: error_pages", site.get("error_pages") or [])


def _upstreams(where: str, upstreams: t.Sequence[Config]) -> Found:
    for name in _twice(str(upstream["name"]).replace("-", "_") for upstream in upstreams):
        yield f"{where}: upstreams holds {name} twice (- and _ count as one); choose other names"
    for upstream in upstreams:
        here = f"{where}: upstream {upstream['name']}"
        yield from _matches(f"{where}: the name of an upstream", upstream["name"], _NAME, "letters, digits, - and _")
        servers = upstream["servers"] or []
        if all(server.get("backup") for server in servers):
            yield f"{here} has no server beside backups; write at least one"
        for server in servers:
            yield from _server(here, server)
        if upstream.get("balance") == "ip_hash" and any(server.get("backup") for server in servers):
            yield f"{here}: ip_hash knows no backup servers; use least_conn, or no backup"
        if _given(upstream, "keepalive"):
            yield from _number(f"{here}: keepalive", upstream["keepalive"], 0, 1000)
        if _given(upstream, "keepalive_timeout"):
            yield from _seconds(f"{here}: keepalive_timeout", upstream["keepalive_timeout"])
        if upstream.get("scheme") == "https":
            yield from _matches(f"{here}: tls_name", upstream.get("tls_name") or "", _HOST, "the name in the servers' certificate")
        elif upstream.get("tls_name"):
            yield f"{here}: tls_name is used with scheme: https only; write that, or remove it"


def _server(here: str, server: Config) -> Found:
    match = _SERVER.fullmatch(str(server["address"]))
    if not match or list(_port("", match["port"])):
        yield f"{here}: the server {server['address']!r}; write address:port such as 10.0.0.5:3000"
    if _given(server, "weight"):
        yield from _number(f"{here}: weight", server["weight"], 1, 1000)


def _locations(where: str, site: Config) -> Found:
    locations = site["locations"] or []
    if not locations:
        yield f"{where}: locations is empty; write at least one, such as {{path: /, upstream: 'http://127.0.0.1:8080'}}"
    for path in _twice(location["path"] for location in locations):
        yield f"{where}: two locations have the path {path}; write one"
    for location in locations:
        path = str(location["path"])
        here = f"{where}: location {path}"
        yield from _matches(f"{where}: the path of a location", path, _PATH, "a path that begins with / such as /MY_APP/")
        if path.startswith(_RESERVED):
            yield f"{here}: paths that begin with {_RESERVED[0]} are the edge's own; choose another"
        if location.get("max_body_size"):
            yield from _size(f"{here}: max_body_size", location["max_body_size"])
        for method in location.get("methods") or []:
            if method not in _METHODS:
                yield f"{here}: methods has {method!r}; write some of {', '.join(_METHODS)}"
        if bool(location.get("upstream")) == bool(location.get("directory")):
            yield f"{here} has {'both' if location.get('upstream') else 'neither'} upstream and directory; write one of them"
        elif location.get("directory"):
            yield from _directory(here, location)
        else:
            yield from _upstream_location(here, location, site)


def _basic_auth(where: str, auth: Config) -> Found:
    """No message holds a digest."""
    if auth.get("realm"):
        yield from _matches(f"{where}: realm", auth["realm"], _REALM, "letters, digits, blanks, . - and _")
    users = auth.get("users") or []
    if not users:
        yield f"{where}: users is empty, so nobody could log in; write at least one, or remove basic_auth for everybody"
    for name in _twice(user.get("name") for user in users):
        yield f"{where}: users has {name} twice; write each once"
    for user in users:
        yield from _matches(f"{where}: the name of a user", user.get("name"), _USER, "letters, digits, . _ @ and -")
        if not _DIGEST.fullmatch(str(user.get("digest") or "")):
            yield f"{where}: digest of {user.get('name')} is none; write password | civitas.hosting.password_digest(name)"


def _directory(here: str, location: Config) -> Found:
    directory = str(location["directory"])
    yield from _matches(f"{here}: directory", directory, _DIRECTORY, "an absolute path on the host without .. such as /srv/assets")
    if any(directory == private or directory.startswith(private + "/") for private in _PRIVATE):
        yield f"{here}: {directory} is no place for what everybody may read; put the files below /srv, /opt or /var/www"
    if not str(location["path"]).endswith("/"):
        yield f"{here}: end the path of a directory with /; without it, names beside the directory could be read"
    if _given(location, "max_age"):
        yield from _number(f"{here}: max_age", location["max_age"], 0, 10**8)
    for key in _UPSTREAM_ONLY:
        if location.get(key):
            yield f"{here}: {key} is for locations with an upstream; remove it"


def _upstream_location(here: str, location: Config, site: Config) -> Found:
    target = str(location["upstream"])
    match = _URL.fullmatch(target)
    known = [str(upstream["name"]) for upstream in site.get("upstreams") or []]
    if match:
        if match["port"] and list(_port("", match["port"])):
            yield f"{here}: upstream {target!r} has no port from 1 to 65535"
    elif target not in known:
        names = f" or a name of the site's upstreams ({', '.join(known)})" if known else ""
        yield f"{here}: upstream is {target!r}; write http://address:port without a path{names}"
    path = str(location["path"])
    if location.get("strip_prefix") and (not path.endswith("/") or path == "/"):
        yield f"{here}: strip_prefix needs a path like /MY_APP/ with / at both ends"
    if _given(location, "read_timeout"):
        yield from _seconds(f"{here}: read_timeout", location["read_timeout"])
    if _given(location, "max_age"):
        yield f"{here}: max_age is for locations with a directory; the application says how long its answers may be kept"
    if location.get("intercept_errors") and not site.get("error_pages"):
        yield f"{here}: intercept_errors shows the site's error_pages, and there are none; write some, or remove it"


def _error_pages(where: str, pages: t.Sequence[Config]) -> Found:
    statuses = [status for page in pages for status in page["statuses"] or []]
    for status in statuses:
        yield from _number(f"{where}: statuses", status, 400, 599)
    for status in _twice(statuses):
        yield f"{where}: the status {status} has two pages; write one"
    for page in pages:
        if not page["statuses"]:
            yield f"{where}: statuses is empty for {page['file']}; write some, such as [404]"
        yield from _file(where, page["file"])


# --- certificates of clients


def _client_certificates(where: str, clients: Config, config: Config) -> Found:
    if config["tls_mode"] != "terminate":
        yield f"{where}: only who ends TLS sees certificates of clients; with nginx_tls_mode: upstream ask for them there"
    if not clients.get("ca_file"):
        yield f"{where}: ca_file is missing; write the file on the controller with the certificates of the CA that clients have theirs from"
        return
    unreadable = [problem for key in ("ca_file", "crl_file") if clients.get(key) for problem in _file(f"{where}: {key}", clients[key])]
    if unreadable:
        yield from unreadable
        return
    data = _read(clients["ca_file"])
    if b"PRIVATE KEY" in data:
        yield f"{where}: {clients['ca_file']} holds a private key, which must not leave its owner; hand in the certificates alone"
    try:
        authorities = x509.load_pem_x509_certificates(data)
    except ValueError:
        yield f"{where}: {clients['ca_file']} holds no certificates in PEM form; write the CA's file (it has BEGIN CERTIFICATE)"
        return
    if clients.get("crl_file"):
        yield from _crls(where, clients["crl_file"], authorities)


def _crls(where: str, path: str, authorities: t.Sequence[x509.Certificate]) -> Found:
    """With a list that has ended, or without the list of one CA of the chain, nginx refuses every client."""
    blocks = re.findall(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", _read(path), re.DOTALL)
    try:
        lists = [x509.load_pem_x509_crl(block) for block in blocks]
    except ValueError:
        lists = []
    if not lists:
        yield f"{where}: {path} holds no revocation list in PEM form; write the CA's file (it has BEGIN X509 CRL)"
        return
    now = datetime.datetime.now(datetime.timezone.utc)
    for revoked in lists:
        ends = _ends(revoked)
        if ends is not None and ends < now:
            yield (
                f"{where}: the revocation list of {revoked.issuer.rfc4514_string()} ended on {ends:%Y-%m-%d}, so every client would be "
                "refused; fetch a new one"
            )
    for authority in authorities:
        if authority.subject not in [revoked.issuer for revoked in lists]:
            yield (
                f"{where}: {path} has no revocation list of {authority.subject.rfc4514_string()}, so every client would be refused; "
                "put the lists of all CAs of the chain into the file"
            )


def _ends(revoked: x509.CertificateRevocationList) -> t.Optional[datetime.datetime]:
    # cryptography 42 gave the times a zone, and will drop those without.
    if hasattr(revoked, "next_update_utc"):
        return revoked.next_update_utc
    return revoked.next_update.replace(tzinfo=datetime.timezone.utc) if revoked.next_update else None


def _read(path: str) -> bytes:
    with open(path, "rb") as stream:
        return stream.read()
