# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ACME server issued is what the wire shows, and no secret is where it can be read."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

testinfra_hosts = ["ansible://servers"]

LIVE = "/etc/letsencrypt/live"
STORE = "/etc/civitas/certificates"


def here(name: str) -> str:
    return Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], name).read_text().strip()


@pytest.fixture
def certificates(host):
    """Name of the certificate to a public name that it is for."""
    short = host.backend.get_hostname().rsplit("-", 1)[-1]
    found = {"edge": f"{short}.records.test"}
    if short == "debian13":
        found["wildcard"] = f"one.any.{short}.records.test"
    return found


def fingerprint(host, file):
    return host.check_output(f"openssl x509 -in {file} -noout -fingerprint -sha256")


def test_the_wire_shows_what_the_acme_server_issued(host, certificates):
    for name, server_name in certificates.items():
        served = host.check_output(
            f"openssl s_client -connect 127.0.0.1:443 -servername {server_name} -verify_hostname {server_name} -verify_return_error "
            "-CAfile /etc/civitas/acme/ca.pem </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256"
        )
        assert served == fingerprint(host, f"{LIVE}/{name}/fullchain.pem")
        assert served == fingerprint(host, f"{STORE}/{name}/fullchain.pem")


def test_key_types_are_as_declared(host, certificates):
    wanted = {"edge": "id-ecPublicKey", "wildcard": "rsaEncryption"}
    for name in certificates:
        assert wanted[name] in host.check_output(f"openssl x509 -in {STORE}/{name}/fullchain.pem -noout -text")


def test_keys_and_credentials_are_for_root_alone(host, certificates):
    for name in certificates:
        assert host.check_output(f"stat --dereference --format '%U %G %a' {STORE}/{name}/key.pem") == "root root 600"
    credentials = host.file("/etc/civitas/acme/rfc2136.ini")
    assert credentials.exists == ("wildcard" in certificates)
    if credentials.exists:
        assert (credentials.user, credentials.group, credentials.mode) == ("root", "root", 0o600)


def test_secrets_are_nowhere_else(host):
    for secret in (here("hmac"), here("tsig")):
        encoded = host.check_output(f"printf %s {secret} | base64 --wrap=0").rstrip("=")
        for text in (secret, encoded, encoded.replace("+", "-").replace("/", "_")):
            found = host.run(f"grep -rlF -e {text} /etc /run /root /tmp /usr/local /var/lib/civitas /var/lib/letsencrypt /var/log")
            assert set(found.stdout.split()) <= {"/etc/civitas/acme/rfc2136.ini"}
            assert host.run(f"journalctl --no-pager --quiet | grep -qF -e {text}").rc == 1


def test_renewals_are_looked_for_and_what_is_in_use_is_checked(host):
    assert host.service("certbot.timer").is_running
    assert host.service("certbot.timer").is_enabled
    assert host.check_output("systemctl show --property=NeedDaemonReload --value certbot.service") == "no"
    checked = host.run("/usr/local/sbin/civitas-acme check")
    assert checked.rc == 0, checked.stdout


def test_there_is_one_account_with_its_address(host):
    accounts = host.check_output("find /etc/letsencrypt/accounts -name regr.json").split()
    assert len(accounts) == 1
    assert list(json.loads(host.file("/var/lib/civitas/acme.json").content_string)["email"].values()) == ["operators@records.test"]


def test_plain_http_answers_challenges_and_redirects_all_else(host, certificates):
    assert host.check_output("find /var/lib/civitas/acme -type f") == ""
    ask = (
        "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', timeout=5); "
        "c.request('GET', sys.argv[2], headers={'Host': sys.argv[1]}); print(c.getresponse().status)"
    )
    for server_name in certificates.values():
        assert host.check_output(f'python3 -c "{ask}" {server_name} /.well-known/acme-challenge/none') == "404"
        assert host.check_output(f'python3 -c "{ask}" {server_name} /anything') in ("301", "308")
