# SPDX-License-Identifier: GPL-3.0-or-later
"""The module with its action, and the playbook, as people run them: a real name server, relay and mailbox."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_dkim

from tests.unit import dns_server, mail_servers, mail_zone, pki, tls_servers
from tests.unit.mail_servers import PASSWORD, USER

ROOT = Path(__file__).resolve().parents[3]
LOCAL = pki.usual(subject="localhost", names=["localhost"])
PROOF, SPAM, LOST = USER, "spam@example.com", "lost@example.com"
DELIVERIES = {
    PROOF: ("INBOX", b"Authentication-Results: mx.example.com; spf=pass; dkim=pass; dmarc=pass\r\n"),
    SPAM: ("Junk", b"Authentication-Results: mx.example.com; spf=softfail; dmarc=fail\r\n"),
}
KEY = pki.key_pem(pki.rsa_key())
# The beginning of the password, as its other letters can be written in many ways.
SECRETS = ("a-mailbox-p", KEY.splitlines()[1])


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A site whose mail is believed, with the names of what belongs to it."""
    secured = tls_servers.context(tmp_path, LOCAL.chain_pem, LOCAL.leaf.key_pem())
    with (
        mail_servers.imap(tmp_path, LOCAL) as mailbox,
        dns_server.serving(mail_zone.text()) as names,
        tls_servers.answering(tls_servers.smtp(secured)) as smarthost,
    ):
        mailbox.deliver(b"Subject: x\r\n\r\n", "Junk")
        handler = mail_servers.Relay(mailbox, DELIVERIES)
        with mail_servers.relay(handler) as relay:
            yield {
                "directory": tmp_path,
                "handler": handler,
                "relay": relay,
                "names": {
                    "domain": "example.org",
                    "addresses": mail_zone.ADDRESSES,
                    "dkim": [{"selector": mail_zone.SELECTOR, "private_key": KEY}],
                    "nameservers": [names],
                },
                "smarthost": {"host": "localhost", "port": smarthost, "ca_file": str(mailbox.ca_file)},
                "mailbox": {"host": "localhost", "port": mailbox.tls_port, "ca_file": str(mailbox.ca_file), "user": USER},
            }


def ansible(place: dict[str, Any], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1", **environment},
        cwd=place["directory"], capture_output=True, text=True, check=False,
    )  # fmt: skip


def results(place: dict[str, Any], *calls: dict[str, Any], **environment: str) -> tuple[list[dict[str, Any]], str]:
    """The module's results, failures too, by one run; and all that was printed, with -vvv, beside them."""
    tasks = [
        {"civitas.hosting.mail_proof": call, "ignore_errors": True, "check_mode": call.pop("check", False)} for call in map(dict, calls)
    ]
    (place["directory"] / "calls.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    done = ansible(place, "-vvv", "calls.yml", ANSIBLE_STDOUT_CALLBACK="json", **environment)
    played = json.loads(done.stdout[done.stdout.index("\n{\n") :])["plays"][0]["tasks"]
    return [task["hosts"]["localhost"] for task in played], done.stdout + done.stderr


def severities(result: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["severity"] for one in result["findings"] if not one["ok"]}


def test_the_module(place: dict[str, Any]) -> None:
    message = {"sender": "server@example.org", "recipient": PROOF, "relay_port": place["relay"]}
    mailbox = {**place["mailbox"], "password": PASSWORD, "spam_folders": ["Junk"]}
    bad_names = {**place["names"], "addresses": ["198.51.100.1"], "dkim": []}
    (good, wrong, unsaid, whole, spam, lost, checked, unread, *said), printed = results(
        place,
        place["names"],
        {**bad_names, "fail_on": ["error"]},
        {**bad_names, "addresses": [], "fail_on": ["unknown"]},
        {"smarthost": place["smarthost"], "test_message": message, "mailbox": mailbox, "wait": 20},
        {"test_message": {**message, "recipient": SPAM}, "mailbox": mailbox, "wait": 20},
        {"test_message": {**message, "recipient": LOST}, "mailbox": mailbox, "wait": 1, "fail_on": ["error"]},
        {"test_message": message, "mailbox": mailbox, "check": True},
        {"test_message": message, "mailbox": {**mailbox, "password": "a-wrong-password"}},
        {},
        {"domain": "localhost"},
        {"domain": "example.org", "addresses": ["smtp.example.org"]},
        {"domain": "example.org", "dkim": [{"selector": "a._domainkey.example.org."}]},
        {"domain": "example.org", "dkim": [{"selector": "a", "private_key": f"{KEY[:200]}"}]},
        {"domain": "example.org", "nameservers": ["ns1.example.org"]},
        {"test_message": {**message, "relay": "203.0.113.25"}},
        {"test_message": {**message, "sender": "root"}},
        {"mailbox": mailbox, "domain": "example.org"},
        ANSIBLE_KEEP_REMOTE_FILES="1", ANSIBLE_PIPELINING="0", ANSIBLE_REMOTE_TEMP=str(place["directory"] / "remote"),
    )  # fmt: skip
    assert (good["changed"], good["good"], good["problems"], severities(good)) == (False, True, [], {})
    assert wrong["failed"] and wrong["msg"].startswith("2 of ") and "spf.address (example.org from 198.51.100.1): softfail" in wrong["msg"]
    assert severities(wrong) == {"spf.address": "error", "dkim.record": "unknown", "ptr.record": "error"}
    assert wrong["problems"] == ["spf.address", "dkim.record", "ptr.record"]
    assert unsaid.get("failed") and not unsaid["good"] and set(severities(unsaid).values()) == {"unknown"}
    assert severities(whole) == {}, whole["report"]
    assert {one["id"] for one in whole["findings"]} == {
        *("tls.reached", "tls.offered", "tls.verified", "tls.protocol"),
        *("delivery.taken", "delivery.arrived", "delivery.inbox", "delivery.spf", "delivery.dkim", "delivery.dmarc"),
    }
    assert severities(spam) == {"delivery.inbox": "error", "delivery.spf": "error", "delivery.dkim": "unknown", "delivery.dmarc": "error"}
    assert not spam.get("failed") and not spam["good"]
    assert severities(lost) == {"delivery.arrived": "error"} and lost["failed"]
    # Nothing is sent in check mode, nor when nobody could look for it.
    assert checked["findings"] == []
    assert severities(unread) == {"delivery.mailbox": "unknown"}
    assert len(place["handler"].taken) == 3
    for found, text in zip(
        said,
        [
            "there is nothing to look at", "no mail domain", "'smtp.example.org' is no address", "is no selector",
            "private_key: it is no private RSA or Ed25519 key in PEM", "no address of a name server", "is no loopback address",
            "'root' is no mail address", "mailbox is where a message is looked for",
        ],
        strict=True,
    ):  # fmt: skip
        assert found["failed"] and text in found["msg"], found["msg"]
    # No secret is told, nor sent to the host.
    sent = "".join(path.read_text(errors="replace") for path in (place["directory"] / "remote").rglob("*.py"))
    assert "server@example.org" in sent
    for secret in (*SECRETS, "a-wrong-password"):
        assert secret not in printed and secret not in sent


def playbook(
    place: dict[str, Any], signs: dict[str, str] | None = None, keys: Path | None = None, **proofs: dict[str, Any]
) -> tuple[int, str]:
    """The playbook over hosts with the site's mail and their C(civitas_mail_proof); secrets are in the secrets file.

    Hosts sign as C(signs) says, and C(keys) is the file with what they have.
    """
    directory = place["directory"]
    login = {"user": "registry", "password_secret": "nobody_asks_for_it"}
    mail = {**place["smarthost"], **login, "sender": f"registry@{place['names']['domain']}", "to": ["administrators@example.org"]}
    if signs:
        mail["dkim"] = signs
    usual = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "civitas_mail": mail}
    hosts = {name: {**usual, "civitas_mail_proof": proof} for name, proof in proofs.items()}
    (directory / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    (directory / "password").write_text("x")
    (directory / "secrets.yml").write_text(json.dumps({"mailbox": PASSWORD, "dkim": KEY}))
    vault = Path(sys.executable).with_name("ansible-vault")
    subprocess.run([vault, "encrypt", "--vault-password-file", "password", "secrets.yml"], cwd=directory, check=True, capture_output=True)
    done = ansible(
        place, "-i", "hosts.yml", "--vault-password-file", "password", "civitas.hosting.mail_proof", "-vvv",
        *(("-e", f"__civitas_mail_keys={keys}") if keys else ()),
        ANSIBLE_DISPLAY_ARGS_TO_STDOUT="1",
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_keys_of_hosts_that_sign_are_judged(place: dict[str, Any]) -> None:
    names = place["names"]
    proof = {"addresses": names["addresses"], "nameservers": names["nameservers"], "fail_on": ["error"]}
    public = _mail_dkim.record_of(pki.rsa_key().public_key()).rpartition("p=")[2]
    other = _mail_dkim.record_of(pki.rsa_key(which=1).public_key()).rpartition("p=")[2]
    keys = place["directory"] / "state.json"
    for key, status, told in ((public, 0, "Good."), (other, 2, "ERROR dkim.match (mail2026._domainkey.example.org)")):
        keys.write_text(json.dumps({"keys": [{"domain": "example.org", "selector": mail_zone.SELECTOR, "public_key": key}]}))
        found, printed = playbook(place, signs={"domain": "example.org", "selector": "mail2026"}, keys=keys, one=proof)
        assert (found, told in printed) == (status, True), printed
    keys.unlink()
    found, printed = playbook(place, signs={"domain": "example.org", "selector": "mail2026"}, keys=keys, one=proof)
    assert found != 0 and "file not found" in printed.lower(), printed


def test_the_playbook(place: dict[str, Any]) -> None:
    names = place["names"]
    # Domain and smarthost are those of the site's mail.
    proof = {
        "selectors": [{"selector": mail_zone.SELECTOR, "private_key_secret": "dkim"}],
        "addresses": names["addresses"],
        "nameservers": names["nameservers"],
    }
    status, told = playbook(place, one=proof)
    assert status == 0, told
    assert "spf.address (example.org from 203.0.113.25)" in told and "tls.verified (localhost:" in told
    unread = {"sender": "a@example.org", "recipient": PROOF, "mailbox": {**place["mailbox"], "port": 1, "password_secret": "mailbox"}}
    wrong = {"smarthost": {"host": "localhost", "tls": "ssl"}}
    status, told = playbook(place, one={**proof, "selectors": ["other"], **unread}, two={**proof, **wrong, "domain": names["domain"]})
    assert status != 0
    assert "Not good: dkim.record, delivery.mailbox." in told
    assert "ERROR dkim.record (other._domainkey.example.org)" in told
    assert "value of tls must be one of: starttls, tls" in told
    assert not any(secret in told for secret in SECRETS)
