# SPDX-License-Identifier: GPL-3.0-or-later
"""What certbot has, what it is asked for, and what its answers mean. Certificates are real; the authority is in molecule/acme."""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
import threading
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _acme, _acme_client
from ansible_collections.civitas.hosting.plugins.module_utils._acme_client import Certificate, Client, ClientError, Settings

EDGE = Certificate("edge", ("records.test", "WWW.records.test"), "http-01", "ecdsa")
ANY = Certificate("any", ("*.records.test",), "dns-01", "rsa")
SETTINGS = Settings(directory="https://acme.test/dir", email="operators@records.test", http_address="", dns_credentials="/etc/rfc2136.ini")
RENEWAL = """# renew_before_expiry = 30 days
version = 2.1.0
archive_dir = /etc/letsencrypt/archive/edge

# Options used in the renewal process
[renewalparams]
account = efd423194ab999098064e8a77bce47c7
key_type = ecdsa
server = https://acme.test/dir
authenticator = webroot
webroot_path = /var/lib/civitas/acme,
[[webroot_map]]
records.test = /var/lib/civitas/acme
server = /somewhere/else
"""
RENEWAL_DNS = """version = 4.0.0
[renewalparams]
key_type = rsa
server = https://acme.test/dir
authenticator = dns-rfc2136
dns_rfc2136_propagation_seconds = 60
dns_rfc2136_credentials = /etc/rfc2136.ini
"""


@pytest.fixture
def certbot(tmp_path, monkeypatch):
    """A home of certbot with the lineage edge, and a recorder in the place of the program."""
    monkeypatch.setattr(_acme_client, "HOME", str(tmp_path))
    monkeypatch.setattr(_acme, "LIVE", str(tmp_path / "live"))
    monkeypatch.setattr(_acme_client, "LOG", str(tmp_path / "letsencrypt.log"))
    monkeypatch.setattr(_acme_client, "LEDGER", str(tmp_path / "state" / "acme.json"))
    program = tmp_path / "certbot"
    program.write_text(
        '#!/bin/sh\nprintf \'%s\\n\' "$*" >> "$0.arguments"\n'
        'for word; do case "$word" in /run/*|*.ini) [ -f "$word" ] && { stat -c %a "$word"; cat "$word"; } >> "$0.files";; esac; done\n'
        'if [ -s "$0.answers" ]; then head -n 1 "$0.answers"; sed -i 1d "$0.answers"; exit 1; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(_acme_client, "CERTBOT", str(program))
    (tmp_path / "renewal").mkdir()
    (tmp_path / "renewal" / "edge.conf").write_text(RENEWAL)
    lineage(tmp_path, "edge", "DNS:records.test,DNS:www.records.test")
    return tmp_path


def lineage(home, name, names):
    folder = home / "live" / name
    folder.mkdir(parents=True)
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x", "-days", "90"]
    files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    subprocess.run(["openssl", *new, "-addext", f"subjectAltName={names}", *files], check=True, capture_output=True)


def said(certbot, what="arguments"):
    path = certbot / f"certbot.{what}"
    return path.read_text() if path.exists() else ""


# --- what there is


def test_a_lineage_as_declared_needs_nothing(certbot):
    assert _acme_client.reason_to_obtain(EDGE, SETTINGS, time.time()) == ""


@pytest.mark.parametrize(
    ("certificate", "settings", "reason"),
    [
        (ANY, SETTINGS, "there is none yet"),
        (EDGE._replace(hosts=("records.test",)), SETTINGS, "its names differ"),
        (EDGE._replace(key_type="rsa"), SETTINGS, "its key_type is ecdsa, not rsa"),
        (EDGE._replace(challenge="dns-01"), SETTINGS, "its authenticator is webroot, not dns-rfc2136"),
        (EDGE, SETTINGS._replace(directory="https://other.test/dir"), "its server is https://acme.test/dir, not https://other.test/dir"),
        (EDGE, SETTINGS._replace(webroot="/srv/acme"), "its webroot_path is /var/lib/civitas/acme, not /srv/acme"),
    ],
)
def test_what_differs_is_obtained_anew(certbot, certificate, settings, reason):
    assert _acme_client.reason_to_obtain(certificate, settings, time.time()) == reason


@pytest.mark.parametrize(("days", "overdue"), [(0, False), (67, False), (68, True), (100, True)])
def test_what_the_timer_should_have_renewed_long_ago(certbot, days, overdue):
    reason = _acme_client.reason_to_obtain(EDGE, SETTINGS, time.time() + days * 86400)
    assert bool(reason) is overdue


def test_a_lineage_without_its_certificate_is_none(certbot):
    (certbot / "live" / "edge" / "fullchain.pem").unlink()
    assert _acme_client.reason_to_obtain(EDGE, SETTINGS, time.time()) == "there is none yet"


# --- what the timer renews


def test_only_own_lineages_cease_to_be_renewed_and_declared_ones_begin_again(certbot):
    (certbot / "renewal" / "any.conf").write_text(RENEWAL_DNS)
    (certbot / "renewal" / "foreign.conf").write_text(RENEWAL.replace("/var/lib/civitas/acme", "/var/www/html"))
    (certbot / "renewal" / "standalone.conf").write_text("[renewalparams]\nauthenticator = standalone\n")
    assert _acme_client.renewals([EDGE, ANY], SETTINGS) == {}
    assert _acme_client.renewals([EDGE], SETTINGS) == {"any": False}
    _acme_client.set_renewal("any", False)
    assert _acme_client.renewals([EDGE], SETTINGS) == {}
    assert "[renewalparams]\nautorenew = False\n" in (certbot / "renewal" / "any.conf").read_text()
    assert _acme_client.renewals([EDGE, ANY], SETTINGS) == {"any": True}
    _acme_client.set_renewal("any", True)
    assert (certbot / "renewal" / "any.conf").read_text() == RENEWAL_DNS


def test_no_lineage_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(_acme_client, "HOME", str(tmp_path))
    assert _acme_client.renewals([EDGE], SETTINGS) == {}


# --- what certbot is asked for


def test_a_certificate_is_asked_for_with_all_that_renewals_need(certbot):
    Client(SETTINGS).obtain(ANY)
    asked = said(certbot)
    for words in (
        "certonly --cert-name any --key-type rsa",
        "--authenticator dns-rfc2136 --dns-rfc2136-credentials /etc/rfc2136.ini --dns-rfc2136-propagation-seconds 60",
        "--domain *.records.test --server https://acme.test/dir --non-interactive",
    ):
        assert words in asked


def test_the_secret_of_the_account_is_in_no_argument_and_leaves_no_file(certbot):
    before = set(os.listdir("/run"))
    assert Client(SETTINGS._replace(eab_kid="kid-1", eab_hmac_key="c2VjcmV0")).ensure_account()
    assert "c2VjcmV0" not in said(certbot)
    assert said(certbot, "files") == "600\neab-kid = kid-1\neab-hmac-key = c2VjcmV0\n"
    assert not [name for name in set(os.listdir("/run")) - before if name.startswith("civitas-acme")]


def test_an_account_is_made_once_and_told_a_changed_address(certbot):
    assert Client(SETTINGS).ensure_account()
    account = certbot / "accounts" / "acme.test" / "dir" / "0123"
    account.mkdir(parents=True)
    (account / "regr.json").write_text("{}")
    assert not Client(SETTINGS).ensure_account()
    assert Client(SETTINGS._replace(email="others@records.test")).ensure_account()
    assert not Client(SETTINGS._replace(email="others@records.test")).ensure_account()
    register, update = said(certbot).splitlines()
    assert register.startswith("register --agree-tos --email operators@records.test --no-eff-email")
    assert update.startswith("update_account --email others@records.test")


def test_a_run_of_the_timer_is_waited_for(certbot, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    (certbot / "certbot.answers").write_text("Another instance of Certbot is already running.\n")
    Client(SETTINGS).obtain(ANY)
    assert len(said(certbot).splitlines()) == 2


def test_a_failure_is_explained_by_what_was_logged_meanwhile(certbot):
    (certbot / "letsencrypt.log").write_text("acme.messages.Error: urn:ietf:params:acme:error:rateLimited :: long ago\n")
    (certbot / "certbot.answers").write_text("An unexpected error occurred: nobody knows\n")
    with pytest.raises(ClientError, match="nobody knows"):
        Client(SETTINGS).obtain(ANY)


def test_a_missing_client_is_named(certbot, monkeypatch):
    monkeypatch.setattr(_acme_client, "CERTBOT", str(certbot / "none"))
    with pytest.raises(ClientError, match="is not installed"):
        Client(SETTINGS).obtain(ANY)


# --- this host's own web server


class Web(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def web(tmp_path):
    root = tmp_path / "webroot"
    root.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Web(*args, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield root, f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_web_server_that_answers_lets_the_client_ask(certbot, web):
    root, address = web
    Client(SETTINGS._replace(webroot=str(root), http_address=address)).obtain(EDGE)
    assert f"--webroot-path {root}" in said(certbot)
    assert list((root / ".well-known" / "acme-challenge").iterdir()) == []
    assert stat.S_IMODE((root / ".well-known" / "acme-challenge").stat().st_mode) & 0o555 == 0o555


def test_a_web_server_that_does_not_keeps_it_from_asking(certbot, web, tmp_path):
    _root, address = web
    with pytest.raises(ClientError, match=r"answered 404\), so the ACME server was not asked"):
        Client(SETTINGS._replace(webroot=str(tmp_path / "other"), http_address=address)).obtain(EDGE)
    with pytest.raises(ClientError, match="refused"):
        Client(SETTINGS._replace(webroot=str(tmp_path / "other"), http_address="127.0.0.1:9")).obtain(EDGE)
    assert said(certbot) == ""


# --- what answers mean

FAILED = """Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for records.test and www.records.test

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: records.test
  Type:   connection
  Detail: 192.0.2.1: Fetching http://records.test/.well-known/acme-challenge/x: Timeout
during connect (likely firewall problem)

  Domain: www.records.test
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for www.records.test

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile for more details.
"""


def test_every_name_that_failed_has_its_own_remedy():
    text = _acme_client.explain(FAILED, "", SETTINGS, EDGE)
    first, second = text.split("; www.")
    assert "records.test could not be validated by http-01 (connection:" in first
    assert "Timeout during connect" in first
    assert "port 80 of this host must answer" in first
    assert "records.test could not be validated by http-01 (dns: DNS problem: NXDOMAIN" in second
    assert "needs an A record" in second
    assert "Hint" not in text


@pytest.mark.parametrize(
    ("output", "log", "expected"),
    [
        ("Service busy; retry later.", "urn:ietf:params:acme:error:rateLimited :: There were too many requests", "rate limit"),
        ("", "urn:ietf:params:acme:error:externalAccountRequired :: x", "certificates_acme_eab_kid"),
        ("", "urn:ietf:params:acme:error:accountDoesNotExist :: x", "/etc/letsencrypt/accounts"),
        ("", "urn:ietf:params:acme:error:rejectedIdentifier :: x", "correct the name"),
        ("", "urn:ietf:params:acme:error:caa :: x", "CAA record"),
        ("", "urn:ietf:params:acme:error:invalidContact :: x", "certificates_acme_email"),
        ("", "urn:ietf:params:acme:error:serverInternal :: x", "in trouble itself"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "", "certificates_acme_ca_file"),
        ("Requesting acme.test/dir: No route to host", "requests.exceptions.ConnectionError: x", "cannot be reached"),
        ("Received response from server: REFUSED", "", "refused the update of the zone"),
        ("Another instance of Certbot is already running.", "", "another certbot"),
        ("Something new happened.", "", "Something new happened.; see "),
    ],
)
def test_answers_are_told_in_plain_words(output, log, expected):
    assert expected in _acme_client.explain(f"Saving debug log to /x\n{output}\n", log, SETTINGS, EDGE)
