# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-copy of a host that keeps copies: brings what another store has, and tells what is wrong there.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import signal
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils._backup_run import RunError, is_locked, lock
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._copy_run import Config, Copier, CopyError, Origin, Outcome
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render, sample
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed, with_tuples
from ansible_collections.civitas.hosting.plugins.module_utils._store_retention import rules_of

CONFIG = "/etc/civitas/copy.json"
_KILLED = "the last run was ended by force"
TITLES = {
    "civitas_copy_success_time_seconds": "When a run last came to its end, so that what the first store has was here; 0 for never.",
    "civitas_copy_failed": "1 when the last run did not come to its end.",
    "civitas_copy_lacking": "Sets of the first store that are not here and should be.",
    "civitas_copy_refused": "Sets of the first store that are not what the host has sent.",
    "civitas_copy_gone": "Sets that are here and that the first store should still have.",
}
State = t.Dict[str, t.Dict[str, t.Any]]


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-copy", description="Copies the backups that another store keeps.")
    parser.add_argument("--config", default=CONFIG, help="file that says whose backups are copied, and from where")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="bring what is new; a service of the same name runs it")
    commands.add_parser("check", help="whether the configuration can be used")
    commands.add_parser("tell", help="write the figures for monitoring; systemd runs it after each run, however that ended")
    told = commands.add_parser("status", help="what the last runs came to; exit status 1 when something is wrong")
    told.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(list(arguments))
    # What waits for ssh ends as well.
    signal.signal(signal.SIGTERM, _end)
    try:
        config = read_config(options.config)
        if options.command == "run":
            with lock(config.directory):
                return run(config)
        if options.command == "tell":
            write_text(config.metrics_file, render(_samples(config), TITLES))
        if options.command == "status":
            return _status(config, options.json)
        return 0
    except (ConfigError, RunError, OSError) as error:
        say(3, f"civitas-copy: {error}")
        return 1


def _end(number: int, _frame: t.Any) -> None:
    raise SystemExit(128 + number)


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    config = Config(
        directory=str(found["directory"]),
        incoming=str(found["incoming"]),
        socket=str(found["socket"]),
        metrics_file=str(found["metrics_file"]),
        origins=[_origin(one) for one in found["origins"]],
    )
    names = [one.host for one in config.origins]
    wrong = [name for name in names if not form.is_host(name) or names.count(name) > 1]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no name of a host, or is there twice")
    return config


def _origin(one: t.Mapping[str, t.Any]) -> Origin:
    return Origin(
        host=str(one["host"]),
        signers=[str(key) for key in one["signers"]],
        store=Store(**with_tuples(one["store"])),
        keeps=max(1, rules_of(one["retention"]).minimum_count),
    )


def _say_of(host: str, line: str) -> None:
    say(6, f"{host}: {line}")


def run(config: Config) -> int:
    """Copy what is new of one host after the other. Raises OSError when its notes cannot be written."""
    wrong = False
    for origin in config.origins:
        state = read_state(config.directory)
        before = {**state.get(origin.host, {}), "try": time.time()}
        # What was good stays known while it lasts: an alert must not end because somebody tries.
        _write_state(config, {**state, origin.host: {**before, "running": 1}})
        outcome, problem = Outcome(), ""
        try:
            Copier(config, origin, functools.partial(_say_of, origin.host)).run(outcome)
        except CopyError as error:
            problem = str(error)
        after = {**before, **vars(outcome), "running": 0, "problem": problem}
        if not problem:
            after["success"] = time.time()
        if not outcome.compared:
            # What was wrong there still is, as far as anybody knows.
            after.update({name: before[name] for name in ("refused", "gone", "lacking") if name in before})
        _write_state(config, {**state, origin.host: after})
        for line in _wrong(origin.host, after):
            wrong = True
            say(3, line)
        for set_id, reason in outcome.passed.items():
            say(5, f"{origin.host}: {set_id} is left out: {reason}")
        say(6, f"{origin.host}: {len(outcome.copied)} sets are new here")
    return 1 if wrong else 0


def _wrong(host: str, one: t.Mapping[str, t.Any]) -> t.Iterator[str]:
    """What people have to know of a host, one sentence each."""
    problem = one.get("problem", "no run has ended")
    if problem:
        yield f"{host}: THE COPY IS NOT COMPLETE: {problem}"
    for set_id, reason in one.get("refused", {}).items():
        yield f"{host}: {set_id} is NOT WHAT THE HOST HAS SENT, and nothing of it is taken: {reason}"
    for set_id in one.get("gone", []):
        yield f"{host}: {set_id} is here, and has VANISHED FROM THE FIRST STORE; look who was there"


# --- what is known


def read_state(directory: str) -> State:
    """What is known of each host; nothing when it cannot be read."""
    try:
        with open(os.path.join(directory, "state.json"), encoding="utf-8") as file:
            state = {str(name): dict(one) for name, one in json.load(file).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return state


def _write_state(config: Config, state: State) -> None:
    write_json(os.path.join(config.directory, "state.json"), state, 0o600)


def _settled(config: Config) -> State:
    """What is known of the hosts that are copied, with what was ended by force as such."""
    state = {one.host: read_state(config.directory).get(one.host, {}) for one in config.origins}
    if is_locked(config.directory):
        return state
    return {name: {**one, "running": 0, "problem": _KILLED} if one.get("running") else one for name, one in state.items()}


def _samples(config: Config) -> t.Iterator[Sample]:
    for name, one in sorted(_settled(config).items()):
        yield sample("civitas_copy_success_time_seconds", int(one.get("success", 0)), sender=name)
        yield sample("civitas_copy_failed", bool(one.get("problem", "no run has ended")), sender=name)
        yield sample("civitas_copy_lacking", int(one.get("lacking", 0)), sender=name)
        yield sample("civitas_copy_refused", len(one.get("refused", {})), sender=name)
        yield sample("civitas_copy_gone", len(one.get("gone", [])), sender=name)


def _status(config: Config, as_json: bool) -> int:
    state = _settled(config)
    problems = [line for name, one in sorted(state.items()) for line in _wrong(name, one)]
    if as_json:
        sys.stdout.write(json.dumps({"hosts": state, "problems": problems}, indent=2, sort_keys=True) + "\n")
        return 1 if problems else 0
    for name, one in sorted(state.items()):
        if one.get("success"):
            say(6, f"{name}: all good sets of the first store were here at {form.format_time(float(one['success']))}")
        if one.get("running"):
            say(5, f"{name}: a run lasts since {form.format_time(float(one['try']))}; {one.get('lacking', 0)} sets were lacking before it")
    for line in problems:
        say(3, line)
    return 1 if problems else 0
