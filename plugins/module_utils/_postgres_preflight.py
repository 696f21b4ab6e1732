# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of the role postgres, before any host is touched.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._postgres_objects import check_wanted
from ansible_collections.civitas.hosting.plugins.module_utils._postgres_tuning import tune

# Narrower than PostgreSQL: such names need no quotes in pg_hba.conf, connection strings and backups, and match no keyword or pattern there.
NAME = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
EXTENSION = re.compile(r"[a-z][a-z0-9_-]{0,62}")
SETTING = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)?")

# Settings that the role decides: which variable to write, or why not at all.
DECIDED = {
    "listen_addresses": "write postgres_listen_addresses",
    "port": "write postgres_port",
    "max_connections": "write postgres_max_connections",
    "ssl_cert_file": "write postgres_ssl_certificate_file",
    "ssl_key_file": "write postgres_ssl_key_file",
    "ssl": "leave it out, connections are always encrypted",
    "password_encryption": "leave it out, it is always scram-sha-256",
    "data_directory": "leave it out, the role runs the distribution's cluster",
    "hba_file": "leave it out, the role writes the distribution's file",
    "ident_file": "leave it out, the role runs the distribution's cluster",
    "unix_socket_directories": "leave it out, the role and its checks use the distribution's",
}
# Shorter prefixes hold networks of strangers. IPv4: a private network is at most a /8.
WIDEST = {4: 8, 6: 32}


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return everything that is wrong with C(config), each with the variable and what to write; no secret is shown.

    Args:
        config: the role's variables without their prefix: C(listen_addresses), C(port), C(client_networks), C(ssl_certificate_file),
            C(ssl_key_file), C(memory_share), C(max_connections), C(disk), C(settings), C(databases), C(roles).
    """
    found: t.List[str] = []
    beyond = _check_addresses(config["listen_addresses"], found)
    if not 0 < int(config["port"]) < 65536:
        found.append(f"postgres_port is {config['port']}; write a number from 1 to 65535")
    for network in config["client_networks"]:
        _check_network(str(network), found)
    _check_tls(config, beyond, found)
    _check_size(config, found)
    for name, value in config["settings"].items():
        _check_setting(str(name), value, found)
    _check_objects(config["roles"], config["databases"], found)
    return found


def _check_addresses(addresses: t.Sequence[str], found: t.List[str]) -> bool:
    """Whether one of C(addresses) is beyond loopback."""
    if not addresses:
        found.append("postgres_listen_addresses is empty; write [127.0.0.1] for clients on this host only")
    beyond = False
    for text in addresses:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            found.append(f"postgres_listen_addresses: {text!r} is not an address; write those of this host that clients reach it by")
            continue
        if address.is_unspecified:
            found.append(f"postgres_listen_addresses: {text} is every address there is; write the ones that clients reach this host by")
        beyond = beyond or not address.is_loopback
    return beyond


def _check_network(text: str, found: t.List[str]) -> None:
    where = "postgres_client_networks"
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        found.append(f"{where}: {text!r} is not a network; write one as address/length, such as 172.30.0.0/16")
        return
    if network.prefixlen < WIDEST[network.version]:
        found.append(
            f"{where}: {text} lets in {'everybody' if network.prefixlen == 0 else 'far more than your clients'}; "
            f"write the networks of the clients, /{WIDEST[network.version]} or narrower"
        )
    elif "/" not in text or ipaddress.ip_address(text.split("/")[0]) != network.network_address:
        found.append(f"{where}: {text} is an address and not a network; write {network}")


def _check_tls(config: t.Mapping[str, t.Any], beyond: bool, found: t.List[str]) -> None:
    files = {f"postgres_{key}": str(config[key] or "") for key in ("ssl_certificate_file", "ssl_key_file")}
    given = [name for name, path in files.items() if path]
    if beyond and not given:
        found.append(
            "postgres_listen_addresses goes beyond loopback, where clients must be able to verify the server; "
            "write postgres_ssl_certificate_file and postgres_ssl_key_file"
        )
    elif len(given) == 1:
        found.append(f"{given[0]} is given without its counterpart; write {' and '.join(files)}, or neither")
    for name, path in files.items():
        if path and (not path.startswith("/") or "\n" in path):
            found.append(f"{name} is {path!r}; write an absolute path on the host")


def _check_size(config: t.Mapping[str, t.Any], found: t.List[str]) -> None:
    # The host's own size is not known yet; one that is large enough leaves the variables to be judged.
    try:
        tune(65536, 1, float(config["memory_share"]), int(config["max_connections"]), config["disk"])
    except ValueError as error:
        name = "disk" if "disk" in str(error) else "max_connections" if "max_connections" in str(error) else "memory_share"
        found.append(f"postgres_{name}: {error}")


def _check_setting(name: str, value: t.Any, found: t.List[str]) -> None:
    where = f"postgres_settings: {name}"
    if not SETTING.fullmatch(name):
        found.append(f"{where!r} is no name of a setting; write it in small letters, such as work_mem")
        return
    if name in DECIDED:
        found.append(f"{where} is decided by the role; {DECIDED[name]}")
    if name == "ssl_min_protocol_version" and value not in ("TLSv1.2", "TLSv1.3"):
        found.append(f"{where} is {value!r}; write TLSv1.2 or TLSv1.3")
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, (str, int, float)):
            found.append(f"{where} is a {type(part).__name__}; write a text, a number, true, false, or a list of texts")
        elif isinstance(part, str) and not part.isprintable():
            found.append(f"{where} holds a line break or another unprintable character; write it on one line")


def _check_objects(roles: t.Sequence[t.Mapping[str, t.Any]], databases: t.Sequence[t.Mapping[str, t.Any]], found: t.List[str]) -> None:
    for kind, items in (("roles", roles), ("databases", databases)):
        for item in items:
            if not NAME.fullmatch(str(item["name"])):
                found.append(
                    f"postgres_{kind}: the name {item['name']!r} is not usable everywhere; "
                    "write small letters, digits, _ and -, beginning with a letter"
                )
    wanted = check_wanted([dict(role) for role in roles], [dict(database) for database in databases])
    found.extend(f"postgres_roles, postgres_databases: {problem}" for problem in wanted)
    present = {role["name"] for role in roles if role.get("state", "present") == "present"}
    for role in roles:
        if role.get("login", True) and role["name"] in present and role.get("password") is None:
            found.append(f"postgres_roles: role {role['name']} has no password; give it one, or login: false")
    for database in databases:
        if database["owner"] not in present:
            where = f"postgres_databases: database {database['name']}"
            found.append(f"{where} is owned by {database['owner']}; list that role in postgres_roles")
        for extension in database.get("extensions") or []:
            if not EXTENSION.fullmatch(str(extension)):
                found.append(f"postgres_databases: database {database['name']}: {extension!r} is no name of an extension, such as pg_trgm")
