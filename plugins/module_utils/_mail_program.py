# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-mail of the hosts: tells by another way than mail when mail does not leave.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text
from ansible_collections.civitas.hosting.plugins.module_utils import _mail_queue as queue
from ansible_collections.civitas.hosting.plugins.module_utils import _mail_signing as signing
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Undelivered, Webhook

CONFIG = "/etc/civitas/mail.json"
# What has been told. The second is memory, for when the disk is full; that is one of the things to tell.
STATES = ("/var/lib/civitas/mail.json", "/run/civitas/mail.json")
# What must hold whatever the variables say; mail that finds another way out might leave in clear.
SETTINGS = {
    "content_filter": "",
    "default_transport": "smtp",
    "mydestination": "",
    "relay_domains": "",
    "sender_dependent_default_transport_maps": "",
    "sender_dependent_relayhost_maps": "",
    "smtp_fallback_relay": "",
    "smtp_tls_mandatory_protocols": ">=TLSv1.2",
    "smtp_tls_per_site": "",
    "smtp_tls_policy_maps": "",
    "smtp_tls_security_level": "secure",
    "smtpd_relay_restrictions": "permit_mynetworks reject",
    "transport_maps": "",
}
_ADVICE = "run the site playbook, it writes /etc/postfix"
_DOWN = "Mail system is down"
_RUNBOOK = "What to do stands in docs/runbooks/mail_relay.md."
_TEST_SECONDS = 30


class Config(t.NamedTuple):
    """The file C(CONFIG), which the role writes.

    Attributes:
        host: its name in messages.
        unit: the service that is Postfix's master process.
        spool: directory of the queue.
        settings: what Postfix's parameters must be beside C(SETTINGS).
        services: where it listens, as master.cf has it.
        webhook: options of C(Webhook); empty for none.
        dkim: the name of the record of the key that signs; empty when the host does not sign.
    """

    host: str
    unit: str
    spool: str
    limits: queue.Limits
    metrics_file: str
    settings: t.Dict[str, str]
    services: t.List[str]
    webhook: t.Dict[str, t.Any]
    dkim: str


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-mail", description="Watches whether mail leaves this host.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("watch", help="measure, and tell what is new; a timer runs it")
    commands.add_parser("status", help="what waits and why; exit status 1 when something is wrong")
    commands.add_parser("check", help="judge Postfix's settings; exit status 1 when mail could leave in clear, or be relayed for others")
    commands.add_parser("dkim", help="the record that signatures need in the DNS; exit status 1 when it is not there or does not sign")
    commands.add_parser("test", help="send a test message by mail to root and by the webhook; exit status 1 when one does not take it")
    options = parser.parse_args(list(arguments))
    if os.geteuid() != 0:
        say(3, "civitas-mail: only root can read its files; write sudo before it")
        return 1
    try:
        config = read_config()
        return {"watch": watch, "status": status, "check": check, "dkim": dkim, "test": test}[options.command](config)
    except (ConfigError, signing.SigningError, OSError) as error:
        say(3, f"civitas-mail: {error}")
        return 1


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    return Config(
        host=str(found["host"]),
        unit=str(found["unit"]),
        spool=str(found["spool"]),
        limits=queue.Limits(60.0 * found["minutes"], int(found["messages"]), int(found["free_bytes"])),
        metrics_file=str(found["metrics_file"]),
        settings=dict(found["settings"]),
        services=list(found["services"]),
        webhook=dict(found["webhook"]),
        dkim=str(found["dkim"]),
    )


# --- the queue


def look(config: Config) -> queue.Seen:
    """See what waits. Without Postfix, postqueue reads the directories itself, and says so."""
    running = subprocess.run(["systemctl", "is-active", "--quiet", config.unit], stdin=subprocess.DEVNULL, check=False).returncode == 0
    disk = os.statvfs(config.spool)
    free = disk.f_bavail * disk.f_frsize
    try:
        done = subprocess.run(["postqueue", "-j"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode != 0:
            return queue.Seen(running, free, [], text.clean(" ".join(done.stderr.split())))
        # Where the master process died alone, the service is active for as long as another one ends its work.
        return queue.Seen(running and _DOWN not in done.stderr, free, queue.parse(done.stdout))
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
        return queue.Seen(running, free, [], f"postqueue: {text.clean(error)}")


def watch(config: Config) -> int:
    now = time.time()
    seen = look(config)
    signed, unsigned = look_at_signing(config, now, act=True)
    found = {**queue.problems(seen, config.limits, now), **unsigned}
    try:
        write_text(config.metrics_file, queue.metrics(seen, found, now) + (signing.metrics(signed) if signed else ""))
    except OSError as error:
        # With a full disk; the alert must go out nevertheless.
        say(4, f"{config.metrics_file}: {error.strerror or error}")
    told = read_told()
    lines, after = queue.news(found, told, now)
    for line in lines:
        say(3 if found else 5, line)
    if lines and config.webhook:
        try:
            send(config, "mail" if found else "mail recovered", lines)
        except Undelivered as error:
            # It stays news.
            say(3, f"{error}; it is tried again by the next run")
            return 1
    if after != told:
        remember(after)
    return 0


def look_at_signing(config: Config, now: float, act: bool) -> t.Tuple[t.Optional[signing.Seen], t.Dict[str, str]]:
    """See whether mail is signed, and what is wrong with that; C(act) lets a key sign whose record has come."""
    if not config.dkim:
        return None, {}
    store = signing.Store()
    try:
        seen = signing.look(store, config.dkim, now)
        if act and signing.settle(store, config.dkim, seen.answer, signing.reload_signer):
            store.remember(now, config.dkim, seen.answer)
            seen = seen._replace(signs=store.signs())
            say(5, signing.summary(seen))
        return seen, signing.problems(seen)
    except (signing.SigningError, OSError, subprocess.SubprocessError) as error:
        return None, {"signing": f"whether mail is signed cannot be told: {text.clean(error)}"}


def send(config: Config, kind: str, lines: t.Sequence[str]) -> None:
    """Raises Undelivered."""
    subject = f"[{config.host}] {lines[0]}" if len(lines) == 1 else f"[{config.host}] mail: {len(lines)} problems"
    told = [*lines, *([_RUNBOOK] if kind == "mail" else [])]
    message = text.message(f"mail-{time.time_ns():x}", kind, config.host, subject, told, {"problems": list(lines)})
    with contextlib.closing(Webhook(config.webhook)) as sender:
        sender.send(message)


def read_told(paths: t.Sequence[str] = STATES) -> t.Dict[str, float]:
    """What has been told, from where it could be written the last time."""
    for path in reversed(paths):
        try:
            with open(path, encoding="utf-8") as file:
                return {str(key): float(value) for key, value in json.load(file).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            continue
    return {}


def remember(told: t.Mapping[str, float], paths: t.Sequence[str] = STATES) -> None:
    """Raises OSError when no place takes it."""
    problem: t.Optional[OSError] = None
    for position, path in enumerate(paths):
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            write_json(path, dict(told), 0o600)
        except OSError as error:
            problem = error
            continue
        for other in paths[position + 1 :]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(other)
        return
    raise problem or OSError("there is no place for what has been told")


def status(config: Config) -> int:
    now = time.time()
    seen = look(config)
    waits = f", the oldest for {seen.oldest(now):.0f} seconds" if seen.moving else ""
    say(6, f"{len(seen.moving)} wait{waits}; {len(seen.mails) - len(seen.moving)} on hold; {seen.free // 2**20} MiB left")
    found = {**queue.problems(seen, config.limits, now), **look_at_signing(config, now, act=False)[1]}
    for line in found.values():
        say(3, line)
    return 1 if found else 0


# --- settings


def check(config: Config) -> int:
    wanted = {**SETTINGS, **config.settings}
    found = judge(_run("postconf", "-x", *wanted), wanted)
    found += judge_services(_run("postconf", "-M"), _run("postconf", "-P"), config.services)
    try:
        with open(config.settings["smtp_tls_CAfile"], encoding="utf-8", errors="replace") as file:
            if "-----BEGIN CERTIFICATE-----" not in file.read():
                found.append(f"{file.name} holds no certificate, so no smarthost is trusted; write another mail_relay_smarthost.ca_file")
    except OSError as error:
        found.append(f"{error.filename}: {error.strerror}, so no smarthost is trusted; write another mail_relay_smarthost.ca_file")
    for line in found:
        say(3, line)
    if not found:
        say(6, f"mail leaves by {wanted['relayhost']} only, over verified TLS, and is taken from {wanted['mynetworks']}")
    return 1 if found else 0


def judge(shown: str, wanted: t.Mapping[str, str]) -> t.List[str]:
    """Compare what C(postconf) shows of parameters with what is wanted."""
    pairs = [line.partition("=")[::2] for line in shown.splitlines()]
    effective = {key.strip(): value.strip() for key, value in pairs}
    # A parameter that a version does not know any more does no harm.
    return [
        f"{key} is '{effective[key]}' and not '{value}'; {_ADVICE}"
        for key, value in wanted.items()
        if key in effective and _words(effective[key]) != _words(value)
    ]


def judge_services(shown: str, overrides: str, wanted: t.Sequence[str]) -> t.List[str]:
    """Compare what C(postconf) shows of services and of parameters for single ones with what is wanted."""
    found = [f"master.cf has '{line.strip()}' for a single service; {_ADVICE}" for line in overrides.splitlines()]
    services = [line.split()[0] for line in shown.splitlines() if line.split()[1:2] == ["inet"]]
    return found + [f"master.cf listens as '{name}'; {_ADVICE}" for name in services if name not in wanted]


def _words(value: str) -> t.List[str]:
    return re.split(r"[,\s]+", value.strip())


def _run(*command: str) -> str:
    """The output of a command. Raises ConfigError."""
    done = subprocess.run(list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode != 0:
        raise ConfigError(f"{command[0]}: {text.clean(' '.join(done.stderr.split()))}")
    return done.stdout


# --- signatures


def dkim(config: Config) -> int:
    """Show the record that receivers need. Changes nothing."""
    if not config.dkim:
        say(6, "this host does not sign; see mail_relay_dkim")
        return 0
    seen = signing.look(signing.Store(), config.dkim, time.time(), always=True)
    say(6 if seen.good else 3, signing.summary(seen))
    if seen.public_key:
        say(6, signing.zone_line(seen.wanted, signing.record_value(seen.public_key)))
    return 0 if seen.good else 1


# --- a test


def test(config: Config) -> int:
    outcomes = [("mail", mail_test(config))]
    try:
        if config.webhook:
            send(config, "test", ["This is a test of the watch of this host's mail."])
            outcomes.append(("webhook", ""))
        else:
            outcomes.append(("webhook", "none is configured; set mail_relay_webhook, or nobody hears it when mail does not leave"))
    except Undelivered as error:
        outcomes.append(("webhook", str(error)))
    for name, problem in outcomes:
        say(3 if problem else 6, f"{name}: {problem or 'taken'}")
    return 1 if any(problem for _name, problem in outcomes) else 0


def mail_test(config: Config) -> str:
    """Send a mail to root and wait until it left; returns why it did not."""
    start = int(time.time())
    mail = f"Subject: [{config.host}] test of mail\nTo: root\nAuto-Submitted: auto-generated\n\nThis is a test of this host's mail.\n"
    command = ["sendmail", "-i", "root"]
    done = subprocess.run(command, input=mail, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        return text.clean(" ".join(done.stderr.split()))
    while True:
        seen = look(config)
        left = [mail for mail in seen.moving if mail.arrived >= start]
        if seen.fault or not left:
            return seen.fault
        if time.time() - start > _TEST_SECONDS:
            return f"it waits: {left[0].reason or 'it was not tried yet'}"
        time.sleep(1)
