# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-restore: brings data of a host back from a set, and takes that back when it was no good.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_run as restoring
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed, with_tuples
from ansible_collections.civitas.hosting.plugins.module_utils._restore_run import Config, Journal, Plan, Restore, RestoreFailed, Tree
from ansible_collections.civitas.hosting.plugins.module_utils._restore_writers import Writers

CONFIG = "/etc/civitas/restore.json"
PLAN = "/run/civitas-restore/plan.json"


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-restore", description="Restores data of this host from a backup.")
    parser.add_argument("--config", default=CONFIG, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="restore what is planned; a service of the same name runs it")
    run.add_argument("--plan", default=PLAN, help="file with the plan, which is removed")
    commands.add_parser("check", help="whether the configuration can be used")
    status = commands.add_parser("status", help="how far the last restore is, and what is kept; exit status 1 when it waits for somebody")
    status.add_argument("--json", action="store_true", help="as JSON")
    commands.add_parser("resume", help="go on with a restore that was cut off after it began to put data in place")
    commands.add_parser("undo", help="bring back what was there before the last restore")
    commands.add_parser("accept", help="the application works; what was there before stays until it is forgotten")
    settle = commands.add_parser("settle", help="take back a restore that was cut off; systemd runs it")
    settle.add_argument("--boot", action="store_true", help="before what writes is started, which waits for this")
    forget = commands.add_parser("forget", help="remove what is kept of a restore")
    forget.add_argument("when", metavar="WHEN", help="its name in 'status'; 'due' for those that were kept long enough, 'all' for all")
    options = parser.parse_args(list(arguments))
    try:
        config = read_config(options.config)
        if options.command == "check":
            return 0
        if options.command == "status":
            return _status(config, options.json)
        return _work(config, options)
    except (ConfigError, RestoreFailed, OSError) as error:
        say(3, f"civitas-restore: {error}")
        return 1


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    config = Config(
        host=str(found["host"]),
        environment=str(found["environment"]),
        directory=str(found["directory"]),
        backup_directory=str(found["backup_directory"]),
        minimum_free=int(found["minimum_free_bytes"]),
        keep_days=int(found["keep_days"]),
        postgres=[Postgres(**with_tuples(one)) for one in found["postgres"]],
        files=[Tree(**one) for one in found["files"]],
        writers=Writers(**with_tuples(found["writers"])),
    )
    wrong = [one.path for one in config.files if not os.path.isabs(one.path) or os.path.normpath(one.path) == "/"]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no path of a tree")
    return config


def read_plan(path: str) -> Plan:
    """Raises ConfigError."""
    return parsed(path, _plan, "")


def _plan(found: t.Dict[str, t.Any]) -> Plan:
    store, before = found.pop("store", None), found.pop("before", None)
    plan = Plan(
        **with_tuples({**found, "signers": None}),
        store=Store(**with_tuples(store)) if store else None,
        before=form.parse_time(before) if before else None,
    )._replace(signers=[str(key) for key in found["signers"]])
    if not form.is_host(plan.host) or not (plan.store or plan.sets):
        raise ValueError("it says not whose sets are restored, or not where they are")
    return plan


def _work(config: Config, options: argparse.Namespace) -> int:
    """Raises RestoreFailed, ConfigError, OSError."""
    os.makedirs(config.directory, mode=0o700, exist_ok=True)
    restore = Restore(config, say)
    if options.command == "settle" and (restoring.cut_off(config) is None or restoring.at_work(config)):
        # One that is at work starts what writes itself, and takes back what fails.
        return 0
    if options.command == "forget" and options.when == "due" and restoring.cut_off(config) is not None:
        # The next day will do: who takes it back must not find somebody at work.
        return 0
    if options.command == "run":
        plan = read_plan(options.plan)
        os.unlink(options.plan)
        with restoring.removed(plan.identity), restoring.locked(config):
            say(6, _line(restore.run(plan)))
        return 0
    with restoring.locked(config):
        if options.command == "settle":
            journal: t.Optional[Journal] = restore.settle(options.boot)
        elif options.command == "forget":
            for one in restore.forget(options.when):
                say(6, f"what was kept of {one.when} is removed")
            return 0
        else:
            journal = {"resume": restore.resume, "undo": restore.undo, "accept": restore.accept}[options.command]()
    if journal is not None:
        say(6, _line(journal))
    return 0


def _line(journal: Journal) -> str:
    found, report = journal.content, journal.content["report"]
    line = f"{journal.when}: {found['set'] or 'a set'} of {found['from']}: {journal.phase}"
    if "recovery_seconds" in report:
        line += f", restored in {report['recovery_seconds']:g} s, {report['down_seconds']:g} s of them down"
        line += f"; data of {form.format_time(found['begin'])}"
    if found["problem"]:
        line += f": {found['problem']}"
    return line


def _status(config: Config, as_json: bool) -> int:
    known = restoring.journals(config)
    last = known[-1] if known else None
    waits = last is not None and last.phase not in (restoring.ACCEPTED, restoring.UNDONE, restoring.REFUSED)
    kept = [one for one in known if one.content["kept"] and not one.content.get("forgotten")]
    if as_json:
        report = {
            "host": config.host,
            "phase": last.phase if last else "",
            "waits": waits,
            "last": last.content if last else None,
            "kept": [one.when for one in kept],
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 1 if waits else 0
    if last is None:
        say(6, "nothing was ever restored here")
        return 0
    say(6, _line(last))
    for one in kept:
        copies = [move.at(one.content["kept"]) for group in one.databases().values() for move in group]
        copies += [move.at(one.content["kept"]) for move in one.trees()]
        say(6, f"{one.when} keeps {', '.join(copies) or 'nothing'}; 'civitas-restore forget {one.when}' removes it")
    for path in last.content["sides"]:
        say(6, f"{path} was brought to the side")
    if last.phase == restoring.RESTORED:
        say(5, "nobody has said yet whether the application works: 'civitas-restore accept' or 'civitas-restore undo'")
    return 1 if waits else 0
