# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the ACME variables of the role certificates.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
import typing as t

ALGORITHMS = ("HMAC-SHA256", "HMAC-SHA384", "HMAC-SHA512", "HMAC-SHA224", "HMAC-SHA1", "HMAC-MD5")
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_NAME = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})+")


def problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    """Return one sentence per problem, each with what to write. Secrets are not quoted.

    Args:
        config: the variables C(certificates_acme_...) without that prefix, and C(certificates), the list C(certificates_acme) itself.
    """
    certificates = config["certificates"]
    found = []
    if not certificates:
        return []
    names = [item["name"] for item in certificates]
    for item in certificates:
        found += _certificate_problems(item, names)
    found += _server_problems(config)
    if any(item.get("challenge") == "dns-01" for item in certificates):
        found += _dns_problems(config)
    return list(dict.fromkeys(found))


def _certificate_problems(item: t.Mapping[str, t.Any], names: t.Sequence[str]) -> t.List[str]:
    name, hosts = str(item["name"]), [str(host) for host in item["hosts"]]
    where = f"certificates_acme, {name}"
    found = []
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        found.append(f"{where}: a name has letters, digits, - and _ only")
    if list(names).count(item["name"]) > 1:
        found.append(f"{where}: it is declared {list(names).count(item['name'])} times; join their hosts in one")
    if not hosts:
        found.append(f"{where}: hosts is empty; write the DNS names that it is for")
    if len(hosts) > 100:
        found.append(f"{where}: {len(hosts)} names; ACME servers take up to 100, so split it")
    for host in hosts:
        if _is_address(host):
            found.append(f"{where}: {host} is an address; write a DNS name, or use the internal CA for addresses")
        elif not _NAME.fullmatch(host) or len(host) > 253:
            found.append(f"{where}: {host!r} is no full DNS name; write one such as records.example.org")
        elif host.startswith("*.") and item.get("challenge", "http-01") != "dns-01":
            found.append(f"{where}: a wildcard ({host}) can be shown to be ours by DNS only; write challenge: dns-01")
    return found


def _server_problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    found = []
    if not re.fullmatch(r"https://[^\s/]+(/\S*)?", config["directory"]):
        found.append("certificates_acme_directory: write the https:// address of the ACME server's directory")
    if not config["accept_terms"]:
        found.append(
            "certificates_acme_accept_terms is false: read the terms of service of the ACME server "
            f"({config['directory']}) and write true when your organization agrees to them"
        )
    if config["email"] and not re.fullmatch(r"[^@\s,]+@[^@\s,]+\.[^@\s,]+", config["email"]):
        found.append(f"certificates_acme_email: {config['email']!r} is no e-mail address")
    if config["ca_file"] and not os.path.isfile(config["ca_file"]):
        found.append(f"certificates_acme_ca_file: there is no file {config['ca_file']} on the controller")
    if bool(config["eab_kid"]) != bool(config["eab_hmac_key"]):
        found.append("certificates_acme_eab_kid and certificates_acme_eab_hmac_key belong together: write both or none")
    elif config["eab_hmac_key"] and not re.fullmatch(r"[A-Za-z0-9_-]+=*", config["eab_hmac_key"]):
        found.append("certificates_acme_eab_hmac_key: write it as the ACME server's owner gave it, in base64url")
    if re.search(r"\s", config["eab_kid"]):
        found.append("certificates_acme_eab_kid: it holds white space; write it as the ACME server's owner gave it")
    return found


def _dns_problems(config: t.Mapping[str, t.Any]) -> t.List[str]:
    found = []
    if not _is_address(config["dns_server"]):
        found.append("certificates_acme_dns_server: write the address (not the name) of the primary name server of the zone")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", config["dns_key_name"]):
        found.append("certificates_acme_dns_key_name: write the name of the TSIG key, as the name server has it")
    if config["dns_key_algorithm"] not in ALGORITHMS:
        found.append(f"certificates_acme_dns_key_algorithm: write one of {', '.join(ALGORITHMS)}")
    try:
        if not base64.b64decode(config["dns_key_secret"], validate=True):
            raise ValueError
    except (binascii.Error, ValueError):
        found.append("certificates_acme_dns_key_secret: write the secret of the TSIG key in base64, as the name server has it")
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
