# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-drill: restores the newest backup of hosts where nobody uses it, says whether it was good, and throws it away.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_replace as replacing
from ansible_collections.civitas.hosting.plugins.module_utils import _drill_report as reports
from ansible_collections.civitas.hosting.plugins.module_utils._backup_run import RunError, lock
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._drill_instance import InstanceError
from ansible_collections.civitas.hosting.plugins.module_utils._drill_run import Config, Drill, Login, Origin, Report, clean
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed, with_tuples

CONFIG = "/etc/civitas/drill.json"
_KILLED = "the drill was ended by force"


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-drill", description="Proves backups by restoring them where nobody uses them.")
    parser.add_argument("--config", default=CONFIG, help="file that says whose sets are drilled, and how")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="drill the newest set of each host; a service of the same name runs it")
    commands.add_parser("check", help="whether the configuration can be used")
    commands.add_parser("clean", help="remove what a drill that was ended by force has left behind; systemd runs it")
    told = commands.add_parser("status", help="what the last drills came to; exit status 1 when something is wrong")
    told.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(list(arguments))
    # So that nothing that was restored stays when somebody ends it.
    signal.signal(signal.SIGTERM, _end)
    try:
        config = read_config(options.config)
        if options.command == "check":
            for origin in config.origins:
                if origin.replace is not None:
                    replacing.check(origin.replace, config.environment, origin.host)
            return 0
        if options.command == "status":
            return status(config, options.json)
        with lock(config.directory):
            os.chmod(config.directory, 0o711)
            return tidy(config) if options.command == "clean" else run(config)
    except (ConfigError, RunError, InstanceError, replacing.ReplaceError, OSError) as error:
        say(3, f"civitas-drill: {error}")
        return 1


def _end(number: int, _frame: t.Any) -> None:
    raise SystemExit(128 + number)


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    config = Config(
        host=str(found["host"]),
        environment=str(found["environment"]),
        directory=str(found["directory"]),
        metrics_file=str(found["metrics_file"]),
        minimum_free=int(found["minimum_free_bytes"]),
        keep_reports=max(1, int(found["keep_reports"])),
        late_hours=float(found["late_hours"]),
        origins=[_origin(one) for one in found["origins"]],
        programs=str(found["programs"]),
        via=tuple(map(str, found["via"])),
        settings={str(name): str(value) for name, value in found["settings"].items()},
        anonymise=tuple(map(str, found["anonymise"])),
        logins=tuple(Login(**one) for one in found["logins"]),
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
        identity=str(one["identity"]),
        store=Store(**with_tuples(one["store"])) if one.get("store") else None,
        sets=str(one.get("sets", "")),
        replace=_replace(one["replace"]) if one.get("replace") else None,
    )


def _replace(one: t.Mapping[str, t.Any]) -> replacing.Replace:
    return replacing.Replace(
        settings=str(one["settings"]),
        anonymise=tuple(map(str, one["anonymise"])),
        health=tuple(map(str, one["health"])),
        health_seconds=float(one["health_seconds"]),
    )


def run(config: Config) -> int:
    """Drill one host after the other. Raises OSError."""
    try:
        tidy(config)
    except (InstanceError, replacing.ReplaceError, OSError) as error:
        problem = f"what an earlier drill has left behind cannot be removed: {error}"
        state = reports.read_state(config.directory)
        _remember(config, {**state, **{one.host: {**state.get(one.host, {}), "problem": problem} for one in config.origins}})
        say(3, f"the restore drill FAILED: {problem}")
        return 1
    failed = False
    for origin in config.origins:
        state = reports.read_state(config.directory)
        before = {**state.get(origin.host, {}), "try": time.time()}
        # What was good stays known while it lasts: an alert must not end because somebody tries.
        _remember(config, {**state, origin.host: {**before, "running": 1}})
        report = Drill(config, origin, say).run()
        path = ""
        try:
            path = reports.write(os.path.join(config.directory, "reports"), report, config.keep_reports)
        except OSError as error:
            report.problems.append(f"the report cannot be written: {error}")
        _remember(config, {**state, origin.host: {**before, **_outcome(report), "report": path, "running": 0}})
        _tell(report, path)
        failed = failed or bool(report.problems)
    return 1 if failed else 0


def _outcome(report: Report) -> t.Dict[str, t.Any]:
    outcome: t.Dict[str, t.Any] = {"problem": "; ".join(report.problems), "set": report.set_id, "seconds": report.recovery_time}
    if report.set_id:
        outcome["recovery_point"] = report.recovery_point
    if not report.problems:
        outcome["success"] = report.end
    return outcome


def _tell(report: Report, path: str) -> None:
    if report.problems:
        say(3, f"{report.origin}: the restore drill FAILED: {'; '.join(report.problems)}; the report is {path or 'nowhere'}")
    else:
        say(
            6,
            f"{report.origin}: {report.set_id} was restored and is good: recovery time {report.recovery_time:g} s,"
            f" recovery point {report.recovery_point:g} s{', and is in place' if report.replaced else ''}; the report is {path}",
        )


def _remember(config: Config, state: reports.State) -> None:
    try:
        reports.write_state(config.directory, config.metrics_file, state)
    except OSError as error:
        # With a full disk; old figures raise the alarm by their age.
        say(3, f"{error.filename}: {error.strerror}; monitoring does not learn of this drill")


def tidy(config: Config) -> int:
    """Remove what a drill has left behind that was ended by force, and take back what it had begun.

    Raises InstanceError, ReplaceError, OSError.
    """
    if clean(config):
        say(4, "what an earlier drill has left behind is removed")
    state = reports.read_state(config.directory)
    killed = {name: {**one, "running": 0, "problem": _KILLED} for name, one in state.items() if one.get("running")}
    if killed:
        _remember(config, {**state, **killed})
        for name in killed:
            say(3, f"{name}: the restore drill FAILED: {_KILLED}")
    for origin in config.origins:
        if origin.replace is not None:
            replacing.settle(origin.replace, say)
    return 0


def status(config: Config, as_json: bool) -> int:
    state, wrong = reports.read_state(config.directory), False
    if as_json:
        sys.stdout.write(json.dumps(state, indent=2, sort_keys=True) + "\n")
        return 1 if any(one.get("problem", "no drill has ended") for one in state.values()) else 0
    for name in sorted({*state, *(one.host for one in config.origins)}):
        one = state.get(name, {})
        if one.get("success"):
            say(6, f"{name}: a backup was restored and was good at {form.format_time(float(one['success']))}")
        if one.get("running"):
            say(5, f"{name}: a drill lasts since {form.format_time(float(one['try']))}, or was ended by force")
        # On a host that was just set up; should none ever come, an alarm says so.
        if "problem" not in one:
            say(5, f"{name}: no drill has ended yet")
        problem = one.get("problem", "")
        if problem:
            wrong = True
            say(3, f"{name}: {problem}")
    return 1 if wrong else 0
