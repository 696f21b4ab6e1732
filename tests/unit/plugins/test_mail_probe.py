# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host sees of its smarthost and of its own relay, with real servers."""

from __future__ import annotations

import email
import email.policy
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._mail_probe import look, send

from tests.unit import mail_servers, pki, tls_servers

LOCAL = pki.usual(subject="smtp.example.net", names=["smtp.example.net"])


def seen(port: int, place: Path, **changed: Any) -> dict[str, Any]:
    (place / "ca.pem").write_text(LOCAL.root.pem)
    usual = {"host": "127.0.0.1", "port": port, "tls": "starttls", "tls_name": "smtp.example.net", "ca_file": str(place / "ca.pem")}
    return look({**usual, **changed}, 5)


def test_a_good_smarthost(tmp_path: Path) -> None:
    made = tls_servers.context(tmp_path, LOCAL.chain_pem, LOCAL.leaf.key_pem())
    with tls_servers.answering(tls_servers.smtp(made)) as asked, tls_servers.answering(tls_servers.tls(made)) as direct:
        for found in (seen(asked, tmp_path), seen(direct, tmp_path, tls="tls")):
            assert (found["error"], found["verify_error"], found["protocol"]) == ("", "", "TLSv1.3")
            assert found["not_after"] == pytest.approx(LOCAL.leaf.certificate.not_valid_after_utc.timestamp(), abs=1)


def test_what_is_wrong_with_a_smarthost(tmp_path: Path) -> None:
    made = tls_servers.context(tmp_path, LOCAL.chain_pem, LOCAL.leaf.key_pem())
    with tls_servers.answering(tls_servers.smtp(made)) as port:
        assert "mismatch" in seen(port, tmp_path, tls_name="other.example.net")["verify_error"]
        assert seen(port, tmp_path, ca_file=None)["verify_error"]
        assert seen(port, tmp_path, ca_file="/nowhere")["error_kind"] == "unusable"
    with tls_servers.answering(tls_servers.smtp(made, offers=False)) as port:
        assert seen(port, tmp_path)["error_kind"] == "no_tls"
    assert seen(mail_servers.free_port(), tmp_path)["error_kind"] == "unreachable"


def mail(port: int, **changed: Any) -> dict[str, Any]:
    usual = {"sender": "server@example.org", "recipient": "proof@example.com", "relay": "127.0.0.1", "relay_port": port}
    return send({**usual, **changed}, 1)


def test_the_relay_takes_the_message() -> None:
    handler = mail_servers.Relay()
    with mail_servers.relay(handler) as port:
        first, second = mail(port), mail(port)
    assert first["error"] == second["error"] == ""
    assert len({first["nonce"], second["nonce"]}) == 2
    taken = email.message_from_bytes(handler.taken[0], policy=email.policy.default)
    assert taken["Subject"] == f"Mail proof {first['nonce']}"
    assert (taken["From"], taken["To"], taken["Auto-Submitted"]) == ("server@example.org", "proof@example.com", "auto-generated")
    assert taken["Message-ID"].endswith("@example.org>") and taken["Date"]


def test_the_relay_does_not() -> None:
    handler = mail_servers.Relay()
    handler.refusal = "554 5.7.1 not for you"
    with mail_servers.relay(handler) as port:
        assert mail(port)["error"] == "554 5.7.1 not for you"
    assert mail(port)["error"] == f"127.0.0.1:{port}: Connection refused"
    assert "in clear" in mail(port, relay="203.0.113.25")["error"]
    began = time.monotonic()
    with tls_servers.answering(lambda connection: time.sleep(5)) as silent:
        assert "timed out" in mail(silent)["error"]
    assert time.monotonic() - began < 4
    with tls_servers.answering(lambda connection: connection.sendall(b"421 4.3.2 come back later\r\n")) as busy:
        assert mail(busy)["error"] == "421 4.3.2 come back later"
