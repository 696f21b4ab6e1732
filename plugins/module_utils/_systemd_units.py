# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring systemd units into a wanted state: one read, the difference, one command per verb. No Ansible in here."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Run = Callable[[list[str]], tuple[int, str, str]]

PROPERTIES = (
    "Id",
    "LoadState",
    "LoadError",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "NeedDaemonReload",
    "CanReload",
    "FragmentPath",
    "SourcePath",
    "DropInPaths",
    "Type",
    "RemainAfterExit",
    "StateChangeTimestampMonotonic",
)
SUFFIXES = ("service", "socket", "timer", "target", "path", "mount", "automount", "swap", "slice", "scope", "device")
# Where systemd looks, the strongest first.
UNIT_DIRECTORIES = tuple(root + "/systemd/system" for root in ("/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"))
STATES = ("started", "stopped", "restarted", "reloaded", "reloaded_if_running")
# What asks nothing of a unit that is not there.
PASSIVE = (None, "stopped", "reloaded_if_running")
# The order in which changes are applied: what may take a link away comes before what makes one, a mask after the stop.
VERBS = ("unmask", "disable", "enable", "stop", "mask", "start", "reload", "restart")
# Seconds in which a service that fails at once has failed.
SETTLE = 1.0
MARKS = {"start": "started", "stop": "stopped", "restart": "restarted", "reload": "reloaded"}

_NAME = re.compile(r"^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?$")
_ACTIVE = ("active", "reloading", "refreshing")
_FIXED = {
    "static": "it has no [Install] section: other units pull it in",
    "indirect": "only the units that its [Install] section names with Also= can be enabled",
    "generated": "a generator makes it from other configuration at every boot",
    "transient": "it was made at run time and ends with the boot",
    "alias": "it is another name of a unit; name that unit instead",
    "": "it has no unit file",
}


class UnitError(Exception):
    """What is wrong and what to do; several problems are joined by line breaks."""

    def __init__(self, problems: Sequence[str], report: Report | None = None) -> None:
        super().__init__("\n".join(problems))
        self.report = report


@dataclass
class Wanted:
    """One unit as the user wants it. None means: leave it alone."""

    name: str
    enabled: bool | None = None
    state: str | None = None
    masked: bool | None = None
    # Paths whose change the unit only notices when it is restarted or reloaded.
    restart_when_newer: tuple[str, ...] = ()
    reload_when_newer: tuple[str, ...] = ()


@dataclass
class Found:
    """One unit as it is on the host."""

    id: str
    load: str = "loaded"
    load_error: str = ""
    file: str = ""
    active: str = "inactive"
    sub: str = "dead"
    result: str = ""
    need_reload: bool = False
    can_reload: bool = False
    ends: bool = False
    # systemd is content as soon as the process exists.
    unproven: bool = False
    path: str = ""
    drop_ins: tuple[str, ...] = ()
    sysv_enabled: bool | None = None
    has_install: bool = True
    # When it was last started, stopped or reloaded, in seconds since the epoch.
    changed_at: float = 0.0

    @property
    def missing(self) -> bool:
        return self.load == "not-found"

    @property
    def masked(self) -> bool:
        return self.load == "masked" or self.file.startswith("masked")

    @property
    def enabled(self) -> bool:
        return self.file == "enabled" or bool(self.sysv_enabled)

    @property
    def running(self) -> bool:
        return self.active in _ACTIVE

    def public(self) -> dict[str, Any]:
        return {"load_state": self.load, "unit_file_state": self.file, "active_state": self.active, "sub_state": self.sub}


@dataclass
class Plan:
    """What one unit still needs."""

    actions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problem: str | None = None


@dataclass
class Report:
    """The result over all units."""

    units: dict[str, dict[str, Any]] = field(default_factory=dict)
    daemon_reloaded: bool = False
    reload_needed: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def changed_units(self) -> list[str]:
        return [name for name, unit in self.units.items() if unit["changed"]]

    @property
    def changed(self) -> bool:
        return self.reload_needed or bool(self.changed_units)


def full_name(name: str) -> str:
    """`nginx` is `nginx.service`; `ssh.socket` stays."""
    return name if name.rpartition(".")[2] in SUFFIXES and "." in name else name + ".service"


def wanted_units(items: Sequence[Mapping[str, Any]]) -> list[Wanted]:
    """Judge the user's list and return it with full unit names; raises UnitError with all problems."""
    problems: list[str] = []
    units: list[Wanted] = []
    seen = set()
    for item in items:
        name = full_name(str(item["name"]))
        newer = [tuple(item.get(verb + "_when_newer") or ()) for verb in ("restart", "reload")]
        unit = Wanted(name, item.get("enabled"), item.get("state"), item.get("masked"), newer[0], newer[1])
        if any(newer) and unit.state not in (None, "started"):
            problems.append("%s: restart_when_newer and reload_when_newer go with 'state: started' only." % name)
        for path in newer[0] + newer[1]:
            if not path.startswith("/"):
                problems.append("%s: %r is not an absolute path." % (name, path))
        if not _NAME.match(name):
            problems.append("%r is not the name of a unit; write one like 'nginx.service', no glob and no path." % item["name"])
        elif name.rpartition(".")[0].endswith("@"):
            problems.append("%s is a template; name an instance of it, for example %s." % (name, name.replace("@.", "@main.")))
        if name in seen:
            problems.append("%s is listed twice; write one item with all its settings." % name)
        seen.add(name)
        if unit.masked and unit.enabled:
            problems.append("%s: 'masked: true' and 'enabled: true' exclude each other; drop one." % name)
        if unit.masked and unit.state not in PASSIVE:
            problems.append("%s: a masked unit cannot be %s; write 'state: stopped' or 'masked: false'." % (name, unit.state))
        if unit.enabled is None and unit.state is None and unit.masked is None:
            problems.append("%s: nothing is asked of it; write at least one of enabled, state, masked." % name)
        units.append(unit)
    if problems:
        raise UnitError(problems)
    return units


def parse_show(text: str) -> list[dict[str, str]]:
    """The output of `systemctl show a b`: one block of Key=value lines per unit, in the order asked for."""
    blocks: list[dict[str, str]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        pairs = (line.partition("=") for line in block.splitlines() if "=" in line)
        values = {key: value for key, _sep, value in pairs}
        if values:
            blocks.append(values)
    return blocks


def found_unit(values: Mapping[str, str]) -> Found:
    """One block of `systemctl show` as a Found."""
    return Found(
        id=values.get("Id", ""),
        load=values.get("LoadState", "not-found"),
        load_error=values.get("LoadError", ""),
        file=values.get("UnitFileState", ""),
        active=values.get("ActiveState", "inactive"),
        sub=values.get("SubState", "dead"),
        result=values.get("Result", ""),
        need_reload=values.get("NeedDaemonReload") == "yes",
        can_reload=values.get("CanReload") == "yes",
        # Does its work and is inactive again: nothing to expect after a start.
        ends=values.get("Type") == "oneshot" and values.get("RemainAfterExit") != "yes",
        unproven=values.get("Type") in ("simple", "exec", "idle"),
        drop_ins=tuple(values.get("DropInPaths", "").split()),
        path=values.get("FragmentPath", "") or values.get("SourcePath", ""),
        changed_at=_epoch(values.get("StateChangeTimestampMonotonic", "")),
    )


def _epoch(monotonic: str) -> float:
    """Microseconds since the boot, as systemd prints them in every release, as seconds since the epoch."""
    if not monotonic.isdigit():
        return 0.0
    return time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + int(monotonic) / 1e6


def newer_paths(paths: Sequence[str], than: float) -> list[str]:
    """Those that were written, renamed into place or given other attributes after a moment; what does not exist is not newer."""
    newer = []
    for path in paths:
        try:
            # Of a link the link itself: pairs of files are swapped by putting another link in its place.
            if os.lstat(path).st_ctime > than:
                newer.append(path)
        except OSError:
            continue
    return newer


def plan(wanted: Wanted, found: Found, booted: bool = True) -> Plan:
    """The difference between wanted and found. Without a running systemd (image build) nothing is started or stopped."""
    result = Plan()
    if found.missing and not wanted.masked:
        if wanted.enabled or wanted.state not in PASSIVE:
            result.problem = (
                "%s does not exist on this host; install the package that brings it, or correct the name "
                "(systemctl list-unit-files shows all)." % wanted.name
            )
            result.actions = [verb for verb in ("enable" if wanted.enabled else "", _start_verb(wanted.state) if booted else "") if verb]
        else:
            result.notes.append("not on this host: nothing to do")
        return result
    if found.load in ("bad-setting", "error"):
        result.problem = "%s cannot be loaded: %s. Run: systemd-analyze verify %s" % (
            wanted.name,
            found.load_error or found.load,
            found.path or wanted.name,
        )
        return result
    if found.masked and wanted.masked is None and (wanted.enabled or wanted.state not in PASSIVE):
        result.problem = (
            "%s is masked; on the host: systemctl unmask %s; in a task: write 'masked: false' to lift the mask, or drop enabled and state."
            % (
                wanted.name,
                wanted.name,
            )
        )
        return result
    if wanted.masked and not found.masked and found.path.startswith("/etc/systemd/system/"):
        result.problem = "%s cannot be masked: its file is where the mask belongs. Remove %s, or write 'enabled: false'." % (
            wanted.name,
            found.path,
        )
        return result
    if found.file == "bad":
        result.problem = "%s has an invalid unit file. Run: systemd-analyze verify %s" % (wanted.name, found.path or wanted.name)
        return result
    if wanted.masked is False and found.masked:
        result.actions.append("unmask")
    _plan_enabled(wanted, found, result)
    if wanted.masked and not found.masked:
        result.actions.append("mask")
    if booted:
        _plan_state(wanted, found, result)
    elif wanted.state is not None:
        result.notes.append("systemd does not run here: neither started nor stopped")
    result.actions.sort(key=VERBS.index)
    return result


def _start_verb(state: str | None) -> str:
    return {"started": "start", "restarted": "restart", "reloaded": "start"}.get(state or "", "")


def _plan_enabled(wanted: Wanted, found: Found, result: Plan) -> None:
    if wanted.enabled is None or found.missing:
        return
    if found.masked:
        # What is below the mask shows only once it is lifted: the caller reads and plans again then.
        if wanted.enabled:
            result.actions.append("enable")
        return
    fixed = _FIXED.get(found.file) if found.sysv_enabled is None else None
    if found.file.startswith("linked") and not found.has_install:
        fixed = _FIXED["static"]
    if fixed:
        result.notes.append("cannot be enabled or disabled (%s): %s" % (found.file or "no file", fixed))
    elif wanted.enabled and not found.enabled:
        result.actions.append("enable")
    elif not wanted.enabled and (found.enabled or found.file == "enabled-runtime"):
        result.actions.append("disable")


def _plan_state(wanted: Wanted, found: Found, result: Plan) -> None:
    if wanted.state == "started" and not found.running:
        result.actions.append("start")
    elif wanted.state in (None, "started"):
        _plan_newer(wanted, found, result)
    elif wanted.state == "stopped" and found.active not in ("inactive", "failed"):
        result.actions.append("stop")
    elif wanted.state == "restarted":
        result.actions.append("restart")
    elif wanted.state == "reloaded" and not found.running:
        result.actions.append("start")
    elif wanted.state == "reloaded_if_running" and not found.running:
        result.notes.append("does not run: nothing to reload")
    elif wanted.state in ("reloaded", "reloaded_if_running") and not found.can_reload:
        result.problem = "%s cannot be reloaded; write 'state: restarted'." % wanted.name
    elif wanted.state in ("reloaded", "reloaded_if_running"):
        result.actions.append("reload")


def _plan_newer(wanted: Wanted, found: Found, result: Plan) -> None:
    """What changed on disk since the unit last looked. It does not matter which run changed it, so interrupted runs are made up for."""
    if not found.running:
        return
    for verb, paths in (("restart", wanted.restart_when_newer), ("reload", wanted.reload_when_newer)):
        newer = newer_paths(paths, found.changed_at)
        if newer and verb == "reload" and not found.can_reload:
            result.problem = "%s cannot be reloaded; write restart_when_newer." % wanted.name
        elif newer:
            result.actions.append(verb)
            result.notes.append("%s because of %s" % (MARKS[verb], ", ".join(newer)))
            return


class Manager:
    """systemd of the host.

    `run` takes an argument list and returns (exit code, standard output, standard error).
    """

    def __init__(self, run: Run, booted: bool, systemctl: str = "systemctl", journalctl: str = "journalctl") -> None:
        self.run = run
        self.booted = booted
        self.systemctl = systemctl
        self.journalctl = journalctl

    def read(self, names: Sequence[str]) -> dict[str, Found]:
        """All units with one call; without a running systemd one cheap call each, as only the files can be asked."""
        if not names:
            return {}
        if not self.booted:
            return {name: self._read_file_state(name) for name in names}
        rc, out, err = self.run([self.systemctl, "show", "--no-pager", "--property=" + ",".join(PROPERTIES), "--", *names])
        blocks = parse_show(out)
        if rc != 0 or len(blocks) != len(names):
            raise UnitError(["systemctl show answered for %d of %d units: %s" % (len(blocks), len(names), err.strip() or "no message")])
        units = {name: found_unit(values) for name, values in zip(names, blocks)}
        for unit in units.values():
            # systemd itself overlooks a drop-in whose directory is new since it last listed its directories.
            unit.need_reload = unit.need_reload or (unit.load == "loaded" and bool(new_drop_ins(unit.id, unit.drop_ins)))
            if unit.file.startswith("linked"):
                unit.has_install = _has_install(unit.path)
            if unit.file == "generated" and unit.path.startswith("/etc/init.d/"):
                unit.sysv_enabled = self.run([self.systemctl, "is-enabled", "--", unit.id])[0] == 0
        return units

    def _read_file_state(self, name: str) -> Found:
        rc, out, _err = self.run([self.systemctl, "is-enabled", "--", name])
        state = out.strip().splitlines()[-1] if out.strip() else ""
        # systemd before 253 says so on standard error only.
        missing = state == "not-found" or (not state and rc != 0)
        return Found(id=name, load="not-found" if missing else "loaded", file="" if missing else state)

    def reload(self) -> None:
        rc, _out, err = self.run([self.systemctl, "daemon-reload"])
        if rc != 0:
            raise UnitError(["systemctl daemon-reload failed: %s" % err.strip()])

    def call(self, verb: str, ids: Sequence[str]) -> tuple[int, str]:
        rc, out, err = self.run([self.systemctl, verb, "--", *ids])
        return rc, (err.strip() or out.strip())

    def journal(self, unit: str) -> str:
        # What a unit said last may not have been written yet when it is already known to have failed.
        self.run([self.journalctl, "--sync"])
        _rc, out, err = self.run([self.journalctl, "--no-pager", "--output=short-iso", "--lines=20", "--unit=" + unit])
        return out.strip() or err.strip() or "(the journal has no line of it)"


def new_drop_ins(unit: str, known: Sequence[str], directories: Sequence[str] = UNIT_DIRECTORIES) -> list[str]:
    """Drop-ins of a unit on disk that systemd has not loaded. One that is a link to /dev/null switches off those below it."""
    strongest: dict[str, str] = {}
    # An instance has those of its template, too.
    folders = [unit + ".d"]
    if "@" in unit:
        folders.append(re.sub(r"@.*\.", "@.", unit) + ".d")
    for folder in [os.path.join(directory, name) for directory in directories for name in folders]:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            if name.endswith(".conf"):
                strongest.setdefault(name, os.path.join(folder, name))
    names = {os.path.basename(path) for path in known}
    return [path for name, path in sorted(strongest.items()) if name not in names and os.path.realpath(path) != os.devnull]


def _has_install(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return any(line.strip() == "[Install]" for line in handle)
    except OSError:
        return False


def booted_with_systemd() -> bool:
    """As sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def apply(items: Sequence[Mapping[str, Any]], manager: Manager, check: bool, daemon_reload: bool = False) -> Report:
    """Bring the listed units into the wanted state, or say what would be done (check). Raises UnitError."""
    wanted = {unit.name: unit for unit in wanted_units(items)}
    names = list(wanted)
    report = Report()
    before = manager.read(names)
    if manager.booted:
        report.reload_needed = any(unit.need_reload for unit in before.values())
        lost = any(plan(wanted[name], before[name]).problem for name in names if before[name].missing)
        if not check and (daemon_reload or report.reload_needed or lost):
            manager.reload()
            report.daemon_reloaded = True
            found = manager.read(names)
        else:
            found = before
    else:
        found = before
    plans = {name: plan(wanted[name], found[name], manager.booted) for name in names}
    for name in names:
        # On a fresh host the package comes earlier in the same run: missing in check mode is a change to come.
        if check and found[name].missing and plans[name].problem:
            plans[name].notes.append("not on this host yet")
            plans[name].problem = None
    problems = [plans[name].problem or "" for name in names if plans[name].problem]
    if problems:
        raise UnitError(problems)
    if check:
        after = {name: _predicted(found[name], plans[name].actions) for name in names}
    else:
        after = _execute(wanted, found, plans, manager, report)
    for name in names:
        _record(report, name, before[name], after[name], plans[name])
    return report


def _execute(
    wanted: Mapping[str, Wanted], found: dict[str, Found], plans: dict[str, Plan], manager: Manager, report: Report
) -> dict[str, Found]:
    names = list(wanted)
    unmask = [name for name in names if "unmask" in plans[name].actions]
    if unmask:
        _call(manager, "unmask", [found[name].id for name in unmask])
        found = manager.read(names)
        for name in unmask:
            plans[name] = plan(wanted[name], found[name], manager.booted)
            plans[name].actions.insert(0, "unmask")
            if plans[name].problem:
                raise UnitError([plans[name].problem or ""])
    failures: list[str] = []
    ran: dict[str, tuple[int, str]] = {}
    for verb in VERBS[1:]:
        affected = [name for name in names if verb in plans[name].actions]
        if not affected:
            continue
        ids = [found[name].id or name for name in affected]
        if verb in ("enable", "disable", "mask"):
            _call(manager, verb, ids)
        else:
            ran[verb] = manager.call(verb, ids)
            if verb == "stop" and ran[verb][0] == 0 and ran[verb][1]:
                report.warnings.append(ran[verb][1])
    if not any(item.actions for item in plans.values()):
        return found
    after = _settled(names, plans, manager)
    for verb, (rc, message) in ran.items():
        failures.extend(_judge(verb, rc, message, plans, after, manager, report))
    if failures:
        for name in names:
            _record(report, name, found[name], after[name], plans[name])
        raise UnitError(failures, report)
    return after


def _settled(names: Sequence[str], plans: Mapping[str, Plan], manager: Manager) -> dict[str, Found]:
    """The state after the changes; services of which systemd only knows that they were begun get a second to fail."""
    until = time.monotonic() + SETTLE
    while True:
        after = manager.read(names)
        begun = [name for name in names if after[name].unproven and after[name].running and {"start", "restart"} & set(plans[name].actions)]
        if not begun or time.monotonic() >= until:
            return after
        time.sleep(SETTLE / 5)


def _call(manager: Manager, verb: str, ids: Sequence[str]) -> None:
    rc, message = manager.call(verb, ids)
    if rc != 0:
        raise UnitError(["systemctl %s %s failed: %s" % (verb, " ".join(ids), message)])


def _judge(
    verb: str, rc: int, message: str, plans: Mapping[str, Plan], after: Mapping[str, Found], manager: Manager, report: Report
) -> list[str]:
    """Who failed, each with its journal. A simple service that dies at once fails although systemctl was content."""
    affected = [name for name in plans if verb in plans[name].actions]
    failures: list[str] = []
    for name in affected:
        unit = after[name]
        if verb in ("start", "restart") and rc == 0 and unit.active == "inactive" and not unit.ends:
            # systemctl is content with a unit whose conditions are not met, and forgets at once that there were any.
            plans[name].actions.remove(verb)
            plans[name].notes.append("does not run: a condition of the unit is not met on this host, or it ended at once")
            report.warnings.append(
                "%s does not run: a condition of the unit is not met, or it ended at once. See: journalctl -u %s" % (name, name)
            )
            continue
        if verb == "stop":
            failed = rc != 0 and unit.active not in ("inactive", "failed")
        else:
            failed = unit.active == "failed" or unit.sub.startswith("auto-restart") or (rc != 0 and not unit.running)
        if failed:
            failures.append(
                "%s could not be %s (%s, %s%s).%s Its last journal lines:\n%s"
                % (
                    name,
                    MARKS[verb],
                    unit.active,
                    unit.sub,
                    ", result " + unit.result if unit.result else "",
                    " " + message.splitlines()[0] if message else "",
                    manager.journal(unit.id or name),
                )
            )
    if rc != 0 and not failures:
        # All are up again but the request itself failed, as a refused reload does.
        failures.append(
            "systemctl %s %s failed: %s\nLast journal lines:\n%s"
            % (verb, " ".join(affected), message, "\n".join(manager.journal(after[name].id or name) for name in affected))
        )
    return failures


def _predicted(found: Found, actions: Sequence[str]) -> Found:
    values = dict(found.__dict__)
    for verb in actions:
        if verb in ("start", "restart", "reload"):
            values.update(active="active", sub="running")
        elif verb == "stop":
            values.update(active="inactive", sub="dead")
        elif verb == "unmask":
            values.update(load="loaded", file="disabled")
        else:
            values.update(file=verb + "d" if verb != "mask" else "masked")
        if verb == "mask":
            values.update(load="masked")
        elif values["load"] == "not-found":
            values.update(load="loaded")
    return Found(**values)


def _record(report: Report, name: str, before: Found, after: Found, item: Plan) -> None:
    report.units[name] = {
        "changed": bool(item.actions),
        "actions": item.actions,
        "notes": item.notes,
        "before": before.public(),
        "after": after.public(),
    }


def diff(report: Report) -> dict[str, str]:
    """Before and after of the units that change, one line each."""
    lines: dict[str, list[str]] = {"before": [], "after": []}
    for name in report.changed_units:
        for side, text in lines.items():
            state = report.units[name][side]
            file = state["unit_file_state"] or state["load_state"]
            text.append("%s: %s, %s (%s)" % (name, file, state["active_state"], state["sub_state"]))
        lines["after"][-1] += " [%s]" % ", ".join(report.units[name]["actions"])
    if report.reload_needed:
        lines["before"].append("systemd: unit files changed on disk")
        lines["after"].append("systemd: unit files loaded")
    return {side: "".join(line + "\n" for line in text) for side, text in lines.items()}
