# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-alerts of the hosts: judges what the host measured, and tells people; or tells them what Alertmanager says.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _alert_drill as drill
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_evaluate as light
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_heartbeat as heartbeat
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_metrics as metrics
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_receivers as receivers
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_window as window
from ansible_collections.civitas.hosting.plugins.module_utils._alert_bridge import Inbox, Server
from ansible_collections.civitas.hosting.plugins.module_utils._alert_kept import DISK, MEMORY, Kept
from ansible_collections.civitas.hosting.plugins.module_utils._alert_notify import (
    SETTLE,
    UNREACHABLE,
    Notifier,
    kept_state,
    nobody_hears,
    quiet,
)
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import Rule, RuleError, kept_alerts, kept_number, parse
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import PAGES, PROGRAM
from ansible_collections.civitas.hosting.plugins.module_utils._alert_values import written
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._login_text import clean, utc
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ADVICE, ConfigError, parsed

CONFIG = "/etc/civitas/alerts.json"
# What was judged longer ago is not what is; while nothing is measured a timer does it every five minutes.
STALE = 600.0
# The bridge looks so often for what is to be told again; a new alarm waits a moment for those that come with it.
TICK, MOMENT = 20.0, 1.0


class Config(t.NamedTuple):
    """The file C(CONFIG), which a role writes.

    Attributes:
        host: its name in messages.
        rules: as roles declare them; empty where only Prometheus judges.
        pages: where the pages of the runbooks are.
        settle: for how many seconds warnings are gathered.
        port: of the bridge for Alertmanager; 0 for none.
        token: what Alertmanager shows there, and is shown.
        alertmanager: its own port, to ask it what rings; 0 to ask nobody.
        watched: the rules by which Prometheus judges hosts.
        heartbeat: the address of a service outside that hears that this host judges itself; empty for none. A secret.
    """

    host: str
    metrics: str
    rules: t.List[Rule]
    receivers: t.List[receivers.Receiver]
    pages: str
    settle: float
    port: int
    token: str
    alertmanager: int
    watched: t.Dict[str, t.List[Rule]]
    heartbeat: str


class Places(t.NamedTuple):
    """Where the program finds and keeps things, and what it is called."""

    config: str = CONFIG
    window: str = window.FILE
    state: t.Tuple[str, ...] = (DISK, MEMORY)
    program: str = PROGRAM

    def kept(self, name: str) -> Kept:
        return Kept(f"{name}.json", self.state)


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    try:
        return parsed(path, _config)
    except RuleError as error:
        raise ConfigError(f"{path}: {error}{ADVICE}") from error


def _config(found: t.Dict[str, t.Any]) -> Config:
    wrong = receivers.problems(found["receivers"])
    if wrong:
        raise ValueError("; ".join(wrong))
    bridge = found.get("bridge") or {}
    return Config(
        host=str(found["host"]),
        metrics=str(found.get("metrics_directory") or metrics.DIRECTORY),
        rules=parse(found["rules"]),
        receivers=receivers.parse(found["receivers"], found["mail"]),
        pages=str(found.get("pages") or PAGES),
        settle=float(found.get("settle_seconds", SETTLE)),
        port=int(bridge.get("port", 0)),
        token=str(bridge.get("token", "")),
        alertmanager=int(bridge.get("alertmanager", 0)),
        watched={str(host): parse(rules) for host, rules in (found.get("watched") or {}).items()},
        heartbeat=str(found.get("heartbeat") or ""),
    )


def main(arguments: t.Sequence[str], places: t.Optional[Places] = None) -> int:
    """Run one command; the exit status is 0 when all is well."""
    places = places or Places()
    parser = argparse.ArgumentParser(prog=places.program, description="Alarms of this host, or of the site that it watches.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("evaluate", help="judge what the host measured, and tell what is new; a timer runs it")
    commands.add_parser("status", help="what rings now, and who can be told; exit status 1 when something is wrong")
    test = commands.add_parser("test", help="send a test message to everybody; exit status 1 when one does not take it")
    test.add_argument("--receiver", default="", help="this one only")
    silence = commands.add_parser("silence", help="hold alarms back during a maintenance; who hears them is told so")
    silence.add_argument("--for", dest="length", default="", metavar="LENGTH", help="30m, 2h, at most 24h")
    silence.add_argument("--reason", default="", help="what is done; those who hear the alarms read it")
    silence.add_argument("--host", default="", help="only those of this host, by its name in alarms")
    silence.add_argument("--alarm", action="append", default=[], metavar="NAME", help="and of them only this one; may be repeated")
    silence.add_argument("--end", action="store_true", help="end it now")
    silence.add_argument("--patience", type=float, default=0.0, metavar="SECONDS", help="wait so long for what is held back to be over")
    drilled = commands.add_parser("drill", help="what a drill raises on a host, or whether everybody heard it; a playbook asks")
    drilled.add_argument("--host", required=True, help="its name in alarms")
    drilled.add_argument("--longest", type=float, default=300.0, help="leave out what rings after more seconds")
    drilled.add_argument("--told", default="", metavar="ALARMS", help="ask whether everybody was told of these, as JSON")
    drilled.add_argument("--over", action="store_true", help="ask whether everybody was told that it is over")
    commands.add_parser("receive", help="tell what Alertmanager says; a service runs it")
    options = parser.parse_args(list(arguments))
    if os.geteuid() != 0 and places.state == Places().state:
        say(3, f"{places.program}: only root can read its files; write sudo before it")
        return 1
    try:
        if options.command == "silence":
            return _silence(places, options)
        config = read_config(places.config)
        if options.command == "test":
            return _test(config, options.receiver)
        if options.command == "drill":
            return _drill(config, places, options)
        return {"evaluate": _evaluate, "status": _status, "receive": _receive}[options.command](config, places)
    except (ConfigError, window.WindowError, OSError) as error:
        say(3, f"{places.program}: {error}")
        return 1


def _window(places: Places, now: float) -> t.Optional[window.Window]:
    found, fault = window.read(places.window, now, places.program)
    if fault:
        say(4, fault)
    return found


def _held(places: Places, now: float) -> t.List[window.Held]:
    found, faults = window.read_held(places.window, now, places.program)
    for fault in faults:
        say(4, fault)
    return found


def _notifier(config: Config, places: Places, state: t.Dict[str, t.Any], save: t.Callable[[], None]) -> Notifier:
    def keep() -> None:
        try:
            save()
        except OSError as error:
            # What was told is told again by the next run, which is better than not at all.
            say(3, f"what was told cannot be kept: {error}")

    return Notifier(config.receivers, config.host, state, keep, receivers.send_all, say, config.settle, config.pages, places.program)


@contextlib.contextmanager
def _alone(places: Places) -> t.Iterator[None]:
    """One at a time: two would tell everything twice."""
    directory = places.state[-1]
    os.makedirs(directory, mode=0o755, exist_ok=True)
    with open(os.path.join(directory, "alerts.lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# --- a host that judges itself


def _evaluate(config: Config, places: Places) -> int:
    with _alone(places):
        now = time.time()
        kept = places.kept("alerts")
        state = kept.read()
        samples, faults = metrics.read(config.metrics)
        if faults != state.get("faults", []):
            for fault in faults:
                say(4, clean(fault))
        alerts, memory = light.evaluate(config.rules, samples, light.memory(state), config.host, now)
        document: t.Dict[str, t.Any] = {
            **memory._asdict(),
            "receivers": _receivers(state),
            "faults": faults,
            "heartbeat": state.get("heartbeat", {}),
            "alerts": [alert._asdict() for alert in alerts],
            "time": now,
        }
        notifier = _notifier(config, places, document["receivers"], lambda: kept.write(document))
        notifier.run(alerts, _window(places, now), now, _held(places, now))
        if config.heartbeat:
            untold = _untold(document["receivers"].values(), now)
            hindrance = "what was measured cannot be read" if faults else "not everybody can be told of alarms" if untold else ""
            document["heartbeat"] = heartbeat.beat(config.heartbeat, document["heartbeat"], hindrance, now, say)
            notifier.save()
    return 0


def _untold(states: t.Iterable[t.Mapping[str, t.Any]], now: float) -> bool:
    """Does somebody not take what there is to tell? Whoever was tried long ago has nothing to hear any more."""
    return any(state.get("problem") and 0 <= now - float(state.get("tried", 0.0)) < UNREACHABLE for state in states)


# --- a host that tells what Alertmanager says


def _receive(config: Config, places: Places) -> int:
    if not config.port or not config.token:
        raise ConfigError("there is no port and token for Alertmanager; run the site playbook with the role monitoring")
    stop = threading.Event()
    inbox = Inbox(places.kept("alerts-received"), say)

    def end(_number: int, _frame: t.Any) -> None:
        stop.set()
        inbox.changed.set()

    signal.signal(signal.SIGTERM, end)
    kept = places.kept("alerts-told")
    document: t.Dict[str, t.Any] = {"receivers": _receivers(kept.read())}
    notifier = _notifier(config, places, document["receivers"], lambda: kept.write(document))
    ran = time.monotonic()

    def tells() -> bool:
        return time.monotonic() - ran < STALE and not nobody_hears(config.receivers, document["receivers"], time.time())

    with Server(config.port, config.token, inbox, tells) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if config.alertmanager:
            threading.Thread(target=inbox.follow, args=[config.alertmanager, config.token, stop], daemon=True).start()
        say(6, f"alarms are taken at 127.0.0.1:{config.port}")
        while not stop.is_set():
            now = document["time"] = time.time()
            notifier.run(inbox.alerts(), _window(places, now), now, _held(places, now))
            ran = time.monotonic()
            if inbox.changed.wait(TICK):
                stop.wait(MOMENT)
                inbox.changed.clear()
        server.shutdown()
    return 0


# --- people


def _silence(places: Places, options: argparse.Namespace) -> int:
    host, alarms = options.host, options.alarm
    if alarms and not host:
        raise window.WindowError("an alarm is held back of one host; write --host, too")
    path = window.place(places.window, host)
    if options.end:
        _await_quiet(places, host, options.patience)
        say(6, "alarms are told again" if window.end(path) else "there is no maintenance")
        return 0
    made = window.begin(path, options.length, options.reason, time.time(), alarms)
    which = f"{', '.join(alarms) or 'alarms'} of {host}" if host else "alarms"
    again = f" --host {host}" if host else ""
    say(6, f"{which}: held back until {utc(made.until)}; 'sudo {places.program} silence --end{again}' ends it before")
    return 0


def _await_quiet(places: Places, host: str, patience: float) -> None:
    """What Alertmanager is about to say is over would ring once more."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        alerts, held = Inbox(places.kept("alerts-received")).alerts(), window.read_held(places.window, time.time())[0]
        if not any(one.host == host and one.holds(alert.host, alert.name) for one in held for alert in alerts):
            return
        time.sleep(MOMENT)


def _test(config: Config, name: str) -> int:
    chosen = [receiver for receiver in config.receivers if name in ("", receiver.name, receiver.name.split(" ")[0])]
    if not chosen:
        known = ", ".join(receiver.name for receiver in config.receivers) or "none"
        say(3, f"there is no receiver {name}; there are {known}" if name else "there are no receivers, so nobody hears an alarm")
        return 1
    text = f"This is a test of the alarms of {config.host}. Nothing is wrong."
    message = {
        "id": f"test-{time.time_ns():x}",
        "type": "test",
        "host": config.host,
        "subject": f"[{config.host}] test of alarms",
        "text": f"{text}\n",
        "short": text,
        "alerts": [],
    }
    failed = {receiver.name for receiver in chosen}
    for receiver_name, problem in receivers.send_all([(receiver, message) for receiver in chosen]):
        say(3 if problem else 6, f"{receiver_name}: {problem or 'taken'}")
        if not problem:
            failed.remove(receiver_name)
    return 1 if failed else 0


def _drill(config: Config, places: Places, options: argparse.Namespace) -> int:
    if not (options.told or options.over):
        rules = config.watched.get(options.host) or (config.rules if options.host == config.host else [])
        if not rules:
            say(3, f"there are no rules for {options.host} here, so none of its alarms rings; run the site playbook")
            return 1
        sys.stdout.write(json.dumps(drill.plan(rules, options.longest, time.time())._asdict()) + "\n")
        return 0
    state = _receivers(places.kept("alerts-told" if config.port else "alerts").read())
    if options.over:
        missing = drill.not_over(config.receivers, state, options.host)
    else:
        missing = drill.not_heard(config.receivers, state, options.host, json.loads(options.told))
    sys.stdout.writelines(f"{clean(text)}\n" for text in missing)
    return 1 if missing else 0


def _receivers(document: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
    """What was kept of them."""
    found = document.get("receivers")
    return dict(found) if isinstance(found, dict) else {}


def _is_stale(document: t.Mapping[str, t.Any], now: float, fault: str, units: str) -> bool:
    """Whether what keeps the document has stopped; that is said."""
    last = kept_number(document.get("time"))
    if 0 <= now - last < STALE:
        return False
    since = f"since {utc(last)}, {written(now - last, 'seconds')}" if 0 < last < now else "by now"
    say(3, f"{fault} {since}; see 'systemctl status {units}'")
    return True


def _status(config: Config, places: Places) -> int:
    now = time.time()
    wrong = False
    under_way = _window(places, now)
    if under_way:
        say(6, f"alarms are held back until {utc(under_way.until)}: {under_way.reason}")
    for one in _held(places, now):
        say(6, f"{', '.join(one.alarms) or 'alarms'} of {one.host}: held back until {utc(one.until)}: {one.reason}")
    state = places.kept("alerts").read()
    alerts = kept_alerts(state.get("alerts"))
    told = _receivers(state)
    if config.rules:
        wrong = _is_stale(state, now, "what the host measured is not judged", "civitas-alerts.timer civitas-metrics.timer")
    if config.port:
        received = places.kept("alerts-told").read()
        alerts += Inbox(places.kept("alerts-received")).alerts()
        told.update(_receivers(received))
        wrong = _is_stale(received, now, "what Alertmanager says is not told", "civitas-alerts-receive") or wrong
    # As people are told: nothing of which another says more.
    hidden = quiet(alerts)
    rings = [(alert.severity, alert.host, alert.text, alert.since) for alert in alerts if alert.key not in hidden]
    for severity, host, text, since in sorted(rings):
        say(3 if severity == "critical" else 4, clean(f"{severity.upper()}: {host}: {text}") + f" Since {utc(since)}.")
    for receiver in config.receivers:
        problem = kept_state(told.get(receiver.name)).get("problem", "")
        say(3 if problem else 6, f"{receiver.name} ({', '.join(receiver.severities)}): {problem or 'can be told'}")
        wrong = wrong or bool(problem)
    silent = state.get("heartbeat", {}).get("problem", "") if config.heartbeat else ""
    if config.heartbeat:
        say(3 if silent else 6, f"the sign of life for outside: {silent or 'it is sent'}")
    wrong = wrong or bool(silent)
    if not config.receivers:
        say(3, "there are no receivers, so nobody hears an alarm")
    return 1 if wrong or rings or not config.receivers else 0
