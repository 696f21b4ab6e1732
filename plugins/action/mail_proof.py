# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controller side of mail_proof: asks the DNS, judges what the module saw on the host, reads the mailbox. Documented in the module."""

from __future__ import annotations

import ipaddress
import re
import time
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._mail_probe import DEFAULT_PORTS
from ansible_collections.civitas.hosting.plugins.modules.mail_proof import ARGUMENT_SPEC
from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_box, _mail_dkim, _mail_dns, _mail_proof
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_names import is_address, normal
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import Finding, report

_MAILBOX_PORTS = {"tls": 993, "starttls": 143}
_SELECTOR = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*")
_MAIL = re.compile(r"[^\s@<>,;:\"\\]+@[A-Za-z0-9][A-Za-z0-9.-]*")

Arguments = t.Dict[str, t.Any]


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[t.Dict[str, t.Any]] = None) -> t.Dict[str, t.Any]:
        result: t.Dict[str, t.Any] = super().run(tmp, task_vars)
        if _mail_proof.MISSING:
            raise AnsibleActionFail(f"a library is missing here ({_mail_proof.MISSING}); run: {_mail_proof.INSTALL}")
        arguments = self.validate_argument_spec(ARGUMENT_SPEC)[1]
        try:
            findings = self._names(arguments) if _checked(arguments)["domain"] else []
        except ValueError as error:
            raise AnsibleActionFail(str(error)) from None
        message, box = arguments["test_message"], None
        sends = bool(message)
        if arguments["mailbox"]:
            # Looked into before anything is sent: a message that nobody can find proves nothing.
            box = _mailbox(arguments["mailbox"])
            try:
                _mail_box.Reader(box, time.monotonic() + 3 * arguments["timeout"]).close()
            except _mail_box.MailboxError as error:
                findings.append(_mail_proof.unread(message["recipient"], str(error)))
                sends = False
        if arguments["smarthost"] or sends:
            # What the controller alone needs stays here: password and private keys.
            asked = {"smarthost": arguments["smarthost"], "test_message": message if sends else None, "timeout": arguments["timeout"]}
            asked = {name: value for name, value in asked.items() if value is not None}
            seen = self._execute_module("civitas.hosting.mail_proof", module_args=asked, task_vars=task_vars)
            if "smarthost" not in seen:
                return {**result, **seen}
            if seen["smarthost"]:
                findings += _mail_proof.smarthost(_place(arguments["smarthost"]), seen["smarthost"])
            if seen["test_message"]:
                findings += _delivery(message, seen["test_message"], box, arguments["wait"])
        told = report(findings)
        if arguments["show"]:
            self._display.display(f"\n{told}\n")
        bad = [one for one in findings if not one.ok]
        result.update(
            changed=False,
            good=all(one.severity == "warning" for one in bad),
            findings=[one._asdict() for one in findings],
            problems=list(dict.fromkeys(one.id for one in bad)),
            report=told,
        )
        fatal = [one for one in bad if one.severity in arguments["fail_on"]]
        if fatal:
            lines = [f"{one.id} ({one.subject}): {one.found} -> {one.remedy}" for one in fatal]
            result.update(failed=True, msg=f"{len(fatal)} of {len(findings)} findings are not good: " + " | ".join(lines))
        return result

    def _names(self, arguments: Arguments) -> t.List[Finding]:
        domain = _domain("domain", arguments["domain"])
        envelope_domain = _domain("envelope_domain", arguments["envelope_domain"] or domain)
        dns = _mail_dns.Dns(arguments["nameservers"], arguments["timeout"])
        signers = [_signer(one, domain) for one in arguments["dkim"]]
        return _mail_proof.names(dns, domain, envelope_domain, [_address(one) for one in arguments["addresses"]], signers)


def _checked(arguments: Arguments) -> Arguments:
    """What is written wrong is said before anything is asked."""
    message = arguments["test_message"]
    if not (arguments["domain"] or arguments["smarthost"] or message):
        raise ValueError("there is nothing to look at; write domain, smarthost or test_message")
    if not arguments["domain"] and (arguments["addresses"] or arguments["dkim"] or arguments["envelope_domain"]):
        raise ValueError("addresses, dkim and envelope_domain say more of a domain; write domain")
    if arguments["mailbox"] and not message:
        raise ValueError("mailbox is where a message is looked for; write test_message with sender and recipient")
    for name in ("sender", "recipient") if message else ():
        if not _MAIL.fullmatch(message[name]):
            raise ValueError(f"test_message.{name}: {message[name]!r} is no mail address; write one such as server@example.org")
    if message and not (is_address(message["relay"]) and ipaddress.ip_address(message["relay"]).is_loopback):
        raise ValueError(
            f"test_message.relay: {message['relay']!r} is no loopback address; write 127.0.0.1, where the host's relay listens"
        )
    for name in ("timeout", "wait"):
        if arguments[name] <= 0:
            raise ValueError(f"{name}: {arguments[name]:g} is no time to wait; write more than 0 seconds")
    return arguments


def _domain(option: str, text: str) -> str:
    try:
        found = normal(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    if is_address(found) or "*" in found or "." not in found:
        raise ValueError(f"{option}: {text!r} is no mail domain; write what stands behind the @, such as example.org")
    return found


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        raise ValueError(f"addresses: {text!r} is no address; write one such as 203.0.113.25 or 2001:db8::25") from None


def _signer(wanted: Arguments, domain: str) -> _mail_dkim.Signer:
    where = f"dkim: {wanted['selector']}"
    if not _SELECTOR.fullmatch(wanted["selector"]):
        raise ValueError(f"{where} is no selector; write s= of a signature, such as mail2026, without ._domainkey")
    if wanted["public_key"] and wanted["private_key"]:
        raise ValueError(f"{where}: write public_key or private_key and not both")
    key = None
    for name, read in (("public_key", _mail_dkim.public_key), ("private_key", _mail_dkim.public_half)):
        if wanted[name]:
            try:
                key = read(wanted[name])
            except ValueError as error:
                raise ValueError(f"{where}: {name}: {error}") from None
    return _mail_dkim.Signer(wanted["selector"].lower(), _domain("dkim.domain", wanted["domain"] or domain), key)


def _mailbox(wanted: Arguments) -> _mail_box.Mailbox:
    return _mail_box.Mailbox(
        host=wanted["host"],
        port=wanted["port"] or _MAILBOX_PORTS[wanted["tls"]],
        tls=wanted["tls"],
        ca_file=wanted["ca_file"] or "",
        user=wanted["user"],
        password=wanted["password"],
        folders=(wanted["inbox"], *wanted["spam_folders"]),
    )


def _place(smarthost: Arguments) -> str:
    return f"{smarthost['host']}:{smarthost['port'] or DEFAULT_PORTS[smarthost['tls']]}"


def _delivery(message: Arguments, sent: Arguments, box: t.Optional[_mail_box.Mailbox], wait: int) -> t.List[Finding]:
    recipient = message["recipient"]
    findings = [_mail_proof.taken(recipient, sent["error"])]
    if sent["error"] or not box:
        return findings
    began = time.monotonic()
    try:
        reader = _mail_box.Reader(box, began + wait)
        try:
            found = reader.wait_for(sent["nonce"])
        finally:
            reader.close()
    except _mail_box.MailboxError as error:
        return [*findings, _mail_proof.unread(recipient, str(error))]
    return findings + _mail_proof.arrived(recipient, found, box.folders[0], time.monotonic() - began)
