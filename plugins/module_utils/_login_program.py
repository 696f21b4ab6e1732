# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-logins of the hosts: announces who logs in.

PAM waits for C(pam), so what the other commands need is imported by them only.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import os
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _login_spool as spool
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say

# What waits longer than this is told by 'status'.
LATE = 300.0
UNITS = ("civitas-logins.timer", "civitas-logins-digest.timer")


def main(arguments: t.Sequence[str]) -> int:
    if list(arguments) == ["pam"]:
        try:
            spool.note_login(os.environ)
        except Exception as error:  # a login is never refused for this
            spool.to_journal(2, f"a login of {os.environ.get('PAM_USER', '?')} WILL NOT BE ANNOUNCED BY ITSELF: {error!r}")
        return 0
    return _people(arguments)


def _people(arguments: t.Sequence[str]) -> int:
    import argparse

    from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError

    parser = argparse.ArgumentParser(prog="civitas-logins", description="Tells who logs in to this host.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("pam", help="note a login; PAM runs it")
    commands.add_parser("deliver", help="send what waits; a timer runs it")
    commands.add_parser("retry", help="as deliver, without waiting for the next try to be due")
    commands.add_parser("digest", help="queue the message about failed logins since the last one; a timer runs it")
    commands.add_parser("test", help="send a test message to every destination now; exit status 1 when one does not take it")
    commands.add_parser("status", help="what waits and why; exit status 1 when something is not delivered")
    options = parser.parse_args(arguments)
    if not _is_root():
        say(3, "civitas-logins: only root can read its files; write sudo before it")
        return 1
    try:
        return {"deliver": _deliver, "retry": _retry, "digest": _digest, "test": _test, "status": _status}[options.command]()
    except (ConfigError, OSError) as error:
        say(3, f"civitas-logins: {error}")
        return 1


def _is_root() -> bool:
    return os.geteuid() == 0


def _deliver() -> int:
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery

    delivery.Delivery(delivery.read_config()).run()
    return 0


def _retry() -> int:
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery

    queues = delivery.Delivery(delivery.read_config())
    with queues.locked():
        state = delivery.read_state()
        queues.remember(**{name: {**state[name], "tried": 0} for name in delivery.DESTINATIONS if name in state})
    queues.run()
    return _status()


def _digest() -> int:
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_digest as digest

    queues = delivery.Delivery(delivery.read_config())
    with queues.locked():
        until = float(int(time.time()))
        since = float(delivery.read_state().get("digest", until - 86400))
        if not 0 <= until - since <= 31 * 86400:
            since = until - 86400
        day = digest.read(delivery.journal(since, until, digest.IDENTIFIERS))
        logins = digest.recorded(delivery.RECORD, since - 600, until + 600) + queues.waiting()
        queues.queue(digest.digest(queues.config.host, since, until, day, logins, delivery.journal_begins()))
        queues.remember(digest=until)
    for line in digest.guesses(day):
        say(2, line)
    say(6, f"{sum(day.failed.values())} failed logins since {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(since))}")
    return 0


def _test() -> int:
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text

    queues = delivery.Delivery(delivery.read_config())
    host = queues.config.host
    if not queues.config.destinations:
        say(4, "no destination is configured; logins are kept in the record only. Set access_announce_smtp or access_announce_webhook")
        return 1
    message = text.message(f"test-{time.time_ns():x}", "test", host, f"[{host}] test of the login announcement", ["This is a test."], {})
    failed = False
    for name in queues.config.destinations:
        problem = queues.send_now(name, message)
        say(3 if problem else 6, problem or f"{name}: taken")
        failed = failed or bool(problem)
    return 1 if failed else 0


def _status() -> int:
    import subprocess

    from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery

    queues = delivery.Delivery(delivery.read_config())
    now, problems = time.time(), []
    for kind in ("new", *delivery.DESTINATIONS):
        names = [(base, name) for base in queues.bases for name in queues.names(base, kind)]
        ages = [now - queues.age(base, kind, name) for base, name in names]
        say(6, f"{kind}: {len(names)} wait" + (f", the oldest for {max(ages):.0f} seconds" if ages else ""))
        if ages and max(ages) > LATE:
            problems.append(f"{kind}: {len(names)} wait, the oldest for {max(ages) / 60:.0f} minutes")
    state = delivery.read_state()
    for name in queues.config.destinations:
        found = state.get(name) or {}
        if found.get("problem"):
            problems.append(f"{found['problem']} (since {(now - float(found['since'])) / 60:.0f} minutes)")
    if not queues.config.destinations:
        say(6, "no destination is configured: logins are kept in the record only")
    for unit in UNITS:
        if subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode != 0:
            problems.append(f"{unit} does not run; systemctl start {unit}")
    for problem in problems:
        say(3, problem)
    return 1 if problems else 0
