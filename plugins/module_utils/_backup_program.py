# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-backup: makes sets on a host and brings them to the store; on any machine, proves sets and gets out what is in them.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_command import Command
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, check_recipients
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres
from ansible_collections.civitas.hosting.plugins.module_utils._backup_run import Config, Run, RunError, is_locked, lock
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Sender, SendError, Store
from ansible_collections.civitas.hosting.plugins.module_utils._backup_tree import Tree
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render, sample
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed, with_tuples

CONFIG = "/etc/civitas/backup.json"
TITLES = {
    "civitas_backup_success_time_seconds": "The moment of the last complete set that the store keeps; 0 for none.",
    "civitas_backup_try_time_seconds": "When the last run began.",
    "civitas_backup_running": "1 while a run lasts; when the host goes down meanwhile, until the next one ends.",
    "civitas_backup_failed": "1 when the last run that ended brought no complete set to the store.",
    "civitas_backup_seconds": "How long the last run took.",
    "civitas_backup_bytes": "Size of the last set.",
    "civitas_backup_sent_bytes": "What of it the store did not have.",
    "civitas_backup_files": "Files in the trees of the last set.",
    "civitas_backup_rows": "Rows in the databases of the last set.",
    "civitas_backup_warnings": "Warnings about the last set.",
}
_KILLED = "the run was ended by force"


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-backup", description="Makes backups of this host, and proves backups of any.")
    parser.add_argument("--config", default=CONFIG, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="make a set and bring it to the store; a timer runs it")
    commands.add_parser("before", help="whether the store keeps sets from before this host was set up; the role runs it once")
    commands.add_parser("settle", help="remember that a run was ended by force; systemd runs it")
    commands.add_parser("check", help="whether the configuration can be used")
    commands.add_parser("status", help="what the last runs came to; exit status 1 when something is wrong")
    sets = commands.add_parser("list", help="sets in a directory, and whether one is missing")
    check = commands.add_parser("verify", help="prove a set; with a private key also that it can be read")
    extract = commands.add_parser("extract", help="prove a set, and get a source out of it to the side")
    sets.add_argument("directory", help="that holds sets")
    for one in (check, extract):
        one.add_argument("directory", help="of the set")
    for one in (sets, check, extract):
        one.add_argument("--host", required=True, help="that made the sets")
        one.add_argument("--signers", required=True, help="file with the public keys that sign for it, one a line")
    check.add_argument("--identity", help="file with a private key of age")
    extract.add_argument("--identity", required=True, help="file with a private key of age")
    extract.add_argument("--kind", required=True, choices=["files", "postgres", "command"])
    extract.add_argument("--source", required=True, help="its name")
    extract.add_argument("--target", required=True, help="new directory")
    options = parser.parse_args(list(arguments))
    try:
        if options.command == "run":
            return run(read_config(options.config))
        if options.command == "settle":
            return settle(read_config(options.config))
        if options.command == "before":
            return before(read_config(options.config))
        if options.command == "check":
            check_recipients(read_config(options.config).recipients)
            return 0
        if options.command == "status":
            return status(read_config(options.config))
        return {"list": _list, "verify": _verify, "extract": _extract}[options.command](options)
    except (ConfigError, PipeError, RunError, SendError, verify.VerifyError, OSError) as error:
        say(3, f"civitas-backup: {error}")
        return 1


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    config = Config(
        host=str(found["host"]),
        site=str(found["site"]),
        environment=str(found["environment"]),
        directory=str(found["directory"]),
        recipients=[str(key) for key in found["recipients"]],
        signing_key=str(found["signing_key"]),
        minimum_free=int(found["minimum_free_bytes"]),
        full_days=int(found["full_days"]),
        late_hours=float(found["late_hours"]),
        metrics_file=str(found["metrics_file"]),
        store=Store(**with_tuples(found["store"])),
        postgres=[Postgres(**with_tuples(one)) for one in found["postgres"]],
        commands=[Command(**with_tuples(one)) for one in found["commands"]],
        files=[Tree(**with_tuples(one)) for one in found["files"]],
    )
    if not form.is_host(config.host):
        raise ValueError(f"{config.host!r} is no name of a host")
    for kind in (config.postgres, config.commands, config.files):
        names = [one.name for one in kind]
        if len(set(names)) < len(names):
            raise ValueError("two sources of a kind have one name")
    wrong = [one.path for one in config.files if not os.path.isabs(one.path) or os.path.normpath(one.path) == "/"]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no path of a tree")
    return config


# --- on the host


def run(config: Config) -> int:
    """Raises RunError when another run lasts."""
    with lock(config.directory):
        state = read_state(config)
        begin = time.time()
        # What was good stays known while the run lasts: an alert must not end because somebody tries.
        _remember(config, {**state, "try": begin, "running": 1})
        problem, changes = "", {}  # type: str, t.Dict[str, t.Any]
        try:
            outcome = Run(config, say).run()
            manifest = outcome.manifest
            for line in manifest.warnings:
                say(4, line)
            changes = {
                "set": manifest.set_id,
                "bytes": manifest.bytes,
                "sent": outcome.sent,
                "files": sum(source["files"] for source in manifest.sources if source["kind"] == "files"),
                "rows": sum(
                    sum(database["rows"].values())
                    for source in manifest.sources
                    if source["kind"] == "postgres"
                    for database in source["databases"]
                ),
                "warnings": manifest.warnings,
            }
            if manifest.complete:
                changes["success"] = outcome.moment
            else:
                problem = f"{manifest.set_id} is in the store and is not complete: {'; '.join(manifest.failures)}"
                if os.path.getsize(os.path.join(config.directory, "problems")):
                    problem += f"; the names are in {os.path.join(config.directory, 'problems')}"
        except RunError as error:
            problem = str(error)
        except Exception as error:
            # Whatever it is, it must be told as loudly as what was foreseen.
            problem = f"{type(error).__name__}: {error}"
        seconds = round(time.time() - begin, 1)
        _remember(config, {**state, **changes, "try": begin, "running": 0, "problem": problem, "seconds": seconds})
    if problem:
        say(3, f"there is NO NEW BACKUP: {problem}")
        return 1
    say(6, f"the store keeps {changes['set']}: {changes['bytes']} bytes, {changes['sent']} of them new, in {seconds:g} seconds")
    return 0


def settle(config: Config) -> int:
    """Monitoring is to learn of a run that could not say anything itself any more."""
    try:
        with lock(config.directory):
            state = read_state(config)
            if state.get("running"):
                _remember(config, {**state, "running": 0, "problem": _KILLED})
                say(3, f"there is NO NEW BACKUP: {_KILLED}")
    except RunError:
        # Another one lasts, and tells itself what becomes of it.
        pass
    return 0


def before(config: Config) -> int:
    """Tell, as JSON, how many sets the store keeps of a host that knows of none, and remember the newest.

    A host that was built anew is empty. A set of it would be the newest one, so none is made before people had time to restore.
    Raises RunError when a run lasts, SendError.
    """
    with lock(config.directory):
        state = read_state(config)
        sets = [] if state else [str(name) for name in Sender(config.store, lambda line: say(4, line)).ask("have")["sets"]]
        if sets:
            _remember(config, {"try": time.time(), "running": 0, "problem": "", "before": sets[-1]})
    sys.stdout.write(json.dumps({"sets": len(sets), "newest": sets[-1] if sets else None}) + "\n")
    return 0


def read_state(config: Config) -> t.Dict[str, t.Any]:
    try:
        with open(os.path.join(config.directory, "status.json"), encoding="utf-8") as file:
            return dict(json.load(file))
    except (OSError, ValueError, TypeError):
        return {}


def _remember(config: Config, state: t.Mapping[str, t.Any]) -> None:
    try:
        write_json(os.path.join(config.directory, "status.json"), state, 0o600)
        names = {
            "civitas_backup_success_time_seconds": int(state.get("success", 0)),
            "civitas_backup_try_time_seconds": int(state["try"]),
            "civitas_backup_running": state["running"],
            "civitas_backup_failed": bool(state.get("problem", "no run has ended")),
            "civitas_backup_seconds": state.get("seconds", 0),
            "civitas_backup_bytes": state.get("bytes", 0),
            "civitas_backup_sent_bytes": state.get("sent", 0),
            "civitas_backup_files": state.get("files", 0),
            "civitas_backup_rows": state.get("rows", 0),
            "civitas_backup_warnings": len(state.get("warnings", [])),
        }
        write_text(config.metrics_file, render([sample(name, value) for name, value in names.items()], TITLES))
    except OSError as error:
        # With a full disk; what the store says is not changed by it, and old figures raise the alarm by their age.
        say(3, f"{error.filename}: {error.strerror}; monitoring does not learn of this run")


def status(config: Config) -> int:
    state, now, problems = read_state(config), time.time(), []  # type: t.Dict[str, t.Any], float, t.List[str]
    success = float(state.get("success", 0))
    waits = state.get("before") and now - float(state["try"]) < config.late_hours * 3600
    if success:
        if now - success > config.late_hours * 3600:
            problems.append(f"the last backup is {(now - success) / 3600:.0f} hours old")
    elif waits:
        say(4, f"the store keeps {state['before']} from before this host was set up: restore it, or begin anew with the next run")
    elif not (state.get("running") and is_locked(config.directory)):
        problems.append("there is no backup of this host")
    if state.get("problem"):
        problems.append(f"the last run failed: {state['problem']}")
    if success:
        say(6, f"{state.get('set')} of {form.format_time(success)}: {state.get('bytes')} bytes, {state.get('sent')} of them were new")
    for line in state.get("warnings", []):
        say(4, line)
    if state.get("running") and is_locked(config.directory):
        say(5, f"a run began at {form.format_time(float(state['try']))}")
    elif state.get("running"):
        problems.append(f"a run began at {form.format_time(float(state['try']))}, and was ended by force")
    for line in problems:
        say(3, line)
    return 1 if problems else 0


# --- where sets are


def _signers(options: argparse.Namespace) -> t.List[str]:
    with open(options.signers, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def _list(options: argparse.Namespace) -> int:
    found, problems = [], []  # type: t.List[form.Manifest], t.List[str]
    for name in sorted(name for name in os.listdir(options.directory) if form.is_set_id(name)):
        try:
            found.append(verify.read_set(os.path.join(options.directory, name), options.host, _signers(options)))
        except (verify.VerifyError, OSError) as error:
            problems.append(str(error))
    for one in found:
        say(6, f"{one.set_id}  {form.format_time(one.begin)}  {one.bytes} bytes  {'complete' if one.complete else 'NOT COMPLETE'}")
    problems += verify.check_chain(found)
    for line in problems:
        say(3, line)
    return 1 if problems or not found else 0


def _prove(options: argparse.Namespace) -> form.Manifest:
    """Raises VerifyError."""
    manifest = verify.read_set(options.directory, options.host, _signers(options))
    problems = verify.check_ciphers(options.directory, manifest)
    if problems:
        raise verify.VerifyError(f"{manifest.set_id}: {'; '.join(problems)}")
    if options.identity:
        verify.check_contents(options.directory, manifest, options.identity)
    return manifest


def _verify(options: argparse.Namespace) -> int:
    manifest = _prove(options)
    proven = "signed, whole and readable" if options.identity else "signed and whole; nobody has tried to read it, as no key was given"
    say(6, f"{manifest.set_id} is {proven}")
    for line in manifest.failures:
        say(3, f"it was not complete when it was made: {line}")
    return 0 if manifest.complete else 1


def _extract(options: argparse.Namespace) -> int:
    # All of it is proven before anything is written.
    manifest = _prove(options)
    source = verify.source_of(manifest, options.kind, options.source)
    if options.kind == "files":
        count = verify.extract_tree(options.directory, manifest, source, options.identity, options.target)
        say(6, f"{options.target} holds {count.get('f', 0) + count.get('h', 0)} files of {source['path']}")
        return 0
    os.mkdir(options.target, 0o700)
    for name in source["members"]:
        plain = os.path.join(options.target, name[: -len(".zst.age")])
        verify.extract_member(options.directory, manifest, manifest.members[name], options.identity, plain)
        say(6, plain)
    return 0
