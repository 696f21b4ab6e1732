# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host itself sees of the mail that it sends: the smarthost's TLS, and whether its own relay takes a message.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import email.message
import email.policy
import email.utils
import ipaddress
import secrets
import smtplib
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._certificate_wire import WireError, fetch, not_after

DEFAULT_PORTS = {"starttls": 587, "tls": 465}


def look(smarthost: t.Mapping[str, t.Any], timeout: float) -> t.Dict[str, t.Any]:
    """The smarthost's TLS as this host gets and judges it.

    Args:
        smarthost: V(host), V(tls) (V(starttls) or V(tls)), and V(port), V(tls_name), V(ca_file), which may be empty.

    Returns:
        V(protocol), V(cipher), V(verify_error) (empty when it verifies), V(not_after) (Unix time), V(error) and V(error_kind) (why there is
        nothing, of C(WireError), else empty).
    """
    found: t.Dict[str, t.Any] = {"protocol": "", "cipher": "", "verify_error": "", "not_after": 0, "error": "", "error_kind": ""}
    starttls = "smtp" if smarthost["tls"] == "starttls" else ""
    port = smarthost["port"] or DEFAULT_PORTS[smarthost["tls"]]
    try:
        wire = fetch(smarthost["host"], port, smarthost["tls_name"] or "", starttls, timeout, smarthost["ca_file"] or None)
        found.update(protocol=wire.protocol, cipher=wire.cipher, verify_error=wire.verify_error, not_after=not_after(wire.chain_pem))
    except WireError as error:
        found.update(error=str(error), error_kind=error.kind)
    except ValueError as error:
        found.update(error=str(error), error_kind="unusable")
    return found


def send(message: t.Mapping[str, t.Any], timeout: float) -> t.Dict[str, t.Any]:
    """Hand a message with a nonce in its subject to the host's own relay.

    Args:
        message: V(sender), V(recipient), and V(relay) and V(relay_port), the address of the relay on this host.

    Returns:
        V(nonce), and V(error): why it was not taken, else empty.
    """
    nonce = secrets.token_hex(16)
    return {"nonce": nonce, "error": _send(message, nonce, timeout)}


def _send(message: t.Mapping[str, t.Any], nonce: str, timeout: float) -> str:
    if not ipaddress.ip_address(message["relay"]).is_loopback:
        return f"{message['relay']} is no loopback address; mail would go there in clear"
    mail = email.message.EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"] = message["sender"], message["recipient"]
    mail["Subject"] = f"Mail proof {nonce}"
    mail["Date"] = email.utils.formatdate(localtime=False)
    mail["Message-ID"] = f"<{nonce}@{message['sender'].rpartition('@')[2]}>"
    # No holiday reply (RFC 3834).
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("This message proves that mail of a server arrives. It can be deleted.\n")
    try:
        with smtplib.SMTP(message["relay"], message["relay_port"], timeout=timeout) as relay:
            relay.send_message(mail, message["sender"], [message["recipient"]])
    except smtplib.SMTPRecipientsRefused as error:
        return "; ".join(f"{code} {text.decode('utf-8', 'replace')}" for code, text in error.recipients.values())
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else str(error.smtp_error)
        return f"{error.smtp_code} {said}"
    except (smtplib.SMTPException, OSError) as error:
        return f"{message['relay']}:{message['relay_port']}: {getattr(error, 'strerror', '') or error}"
    return ""
