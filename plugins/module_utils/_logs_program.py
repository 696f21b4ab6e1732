# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-logs of the hosts: keeps the evidence of logins and of sudo, and brings it to another host.

Private to the collection: no promise of stability. Standard library only.

It stays in memory on the smallest hosts, so what only people need is imported when they do.
"""

from __future__ import annotations

import json
import os
import select
import ssl
import subprocess
import sys
import syslog
import threading
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _journal_lines as journal
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_lines as lines
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_store as store
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_wire as wire
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render, sample
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed

CONFIG = "/etc/civitas/logs.json"
# When the receiver had everything the last time.
STATE = "/var/lib/civitas/logs.json"
FILE = "logs.prom"
IDENTIFIER = "civitas-logs"
TITLES = {
    "civitas_logs_measured_time_seconds": "When this was measured.",
    "civitas_logs_kept_time_seconds": "When a line of evidence was kept the last time; the host itself says one every five minutes.",
    "civitas_logs_acknowledged_time_seconds": "When the receiver had all lines of this host the last time.",
    "civitas_logs_waiting_lines": "Lines that the receiver does not have, as far as that is known.",
    "civitas_logs_received_time_seconds": "When a line of this sender came the last time; when it was first waited for, if none did.",
    "civitas_logs_received_ratio": "How much of what it may send in a day this sender has sent today.",
}
# In seconds.
MEASURE = 60.0
HEARTBEAT = 300.0
TIDY = 3600.0
LATE = 900.0
SILENT = 10800.0


class Config(t.NamedTuple):
    """The file C(CONFIG), which the role writes.

    Attributes:
        directory: where the host's own evidence lies, a file a day.
        keep_days: for how many days.
        identifiers: what is kept beside the facilities of logins.
        files: certificate, key, and the authority of the others.
        receiver: who gets a copy, C(name), C(address), C(port) and C(tls_name); empty for nobody.
        senders: from whom copies are taken, name in the certificate to name of the directory; empty for none.
    """

    directory: str
    keep_days: int
    identifiers: t.List[str]
    metrics_directory: str
    files: t.Tuple[str, str, str]
    receiver: t.Dict[str, t.Any]
    senders: t.Dict[str, str]
    received_directory: str
    port: int
    bytes_a_day: int


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    if list(arguments) in (["keep"], ["receive"]):
        command, options = arguments[0], None
    else:
        options = _options(arguments)
        command = options.command
    try:
        config = read_config()
        if options is not None:
            return {"status": status, "show": show, "check": check}[command](config, options)
        return {"keep": keep, "receive": receive}[command](config)
    except BrokenPipeError:
        # Who read it has read enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (ConfigError, OSError) as error:
        say(3, f"civitas-logs: {error}")
        return 1


def _options(arguments: t.Sequence[str]) -> t.Any:
    import argparse

    parser = argparse.ArgumentParser(prog="civitas-logs", description="Keeps the evidence of logins and of sudo.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    reading = commands.add_parser("show", help="show what is kept; lines with ! are not from root, so anybody may have made them up")
    reading.add_argument("--sender", default="", help="of this host, on the one that receives")
    reading.add_argument("--since", default="", metavar="YYYY-MM-DD", help="from this day on")
    reading.add_argument("--json", action="store_true", help="as it is kept")
    ages = commands.add_parser("status", help="how old the newest line is, and that of each sender; exit status 1 when one is too old")
    ages.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="for so long, until none is too old")
    commands.add_parser("check", help="judge the settings and certificates; exit status 1 when they cannot be used")
    commands.add_parser("keep", help="follow the journal, for ever; a service runs it")
    commands.add_parser("receive", help="take what others send, for ever; a service runs it")
    return parser.parse_args(list(arguments))


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    return Config(
        directory=str(found["directory"]),
        keep_days=int(found["keep_days"]),
        identifiers=[str(name) for name in found["identifiers"]],
        metrics_directory=str(found["metrics_directory"]),
        files=(str(found["certificate_file"]), str(found["key_file"]), str(found["ca_file"])),
        receiver=dict(found["receiver"]),
        senders={str(tls_name): str(name) for tls_name, name in found["senders"].items()},
        received_directory=str(found["received_directory"]),
        port=int(found["port"]),
        bytes_a_day=int(found["bytes_a_day"]),
    )


def say(severity: int, line: str) -> None:
    """One line, whatever a stranger put in it."""
    journal.say(severity, "?".join(line.splitlines()))


# --- what is kept


def keep(config: Config) -> int:
    """Follow the journal until it ends; what is kept knows itself from where to go on."""
    kept = store.Store(config.directory)
    series = str(kept.last.get("series") or os.urandom(8).hex())
    forwarder = None
    if config.receiver:
        forwarder = wire.Forwarder(config.directory, series, config.receiver, config.files, say)
        forwarder.start()
    measured = Measured(config)
    command = lines.journal_command(config.identifiers, str(kept.last.get("cursor", "")))
    syslog.openlog(IDENTIFIER, 0, syslog.LOG_AUTHPRIV)
    due = {"heartbeat": 0.0, "measure": 0.0, "tidy": 0.0}
    rest = b""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as journal:
        handle = t.cast(t.IO[bytes], journal.stdout).fileno()
        while True:
            ready, _none, _nothing = select.select([handle], [], [], max(0.0, min(due.values()) - time.monotonic()))
            if ready:
                data = os.read(handle, 2**18)
                if not data:
                    return 1  # the service starts it again
                *whole, rest = (rest + data).split(b"\n")
                entries = [json.loads(one) for one in whole if one]
                if entries:
                    _append(kept, entries, series)
                    measured.kept = time.time()
                    if forwarder is not None:
                        forwarder.wake()
            now = time.monotonic()
            if now >= due["heartbeat"]:
                # By the way that all lines take, so that a stop anywhere on it is seen.
                syslog.syslog(syslog.LOG_INFO, "the evidence of this host is kept")
                due["heartbeat"] = now + HEARTBEAT
            if now >= due["measure"]:
                measured.write(int(kept.last.get("n", 0)), forwarder.acknowledged if forwarder is not None else 0)
                due["measure"] = now + MEASURE
            if now >= due["tidy"]:
                store.tidy(config.directory, config.keep_days, time.time())
                due["tidy"] = now + TIDY


def _append(kept: store.Store, entries: t.Sequence[t.Mapping[str, t.Any]], series: str) -> None:
    number = int(kept.last.get("n", 0))
    found = [lines.from_entry(entry, series, number + place) for place, entry in enumerate(entries, 1)]
    kept.append(found, json.loads(found[-1]), time.time())


class Measured:
    """What monitoring gets to know.

    Attributes:
        kept: when a line was kept the last time.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.kept = newest(config.directory)
        # Who never had a receiver waits from now on.
        self._acknowledged = acknowledged() or time.time()
        self._number = 0

    def write(self, number: int, have: int) -> None:
        """C(have) is the number of the last line that the receiver has, below 0 when it has not said so yet."""
        now = time.time()
        found = [sample("civitas_logs_measured_time_seconds", int(now)), sample("civitas_logs_kept_time_seconds", int(self.kept))]
        if self._config.receiver:
            # Where lines come all the time, the newest are always on their way.
            if have >= self._number:
                self._acknowledged = now
            self._number = number
            found.append(sample("civitas_logs_acknowledged_time_seconds", int(self._acknowledged)))
            found.append(sample("civitas_logs_waiting_lines", number - max(have, 0)))
        found += list(of_senders(self._config, now))
        try:
            write_text(os.path.join(self._config.metrics_directory, FILE), render(found, TITLES))
            write_json(STATE, {"acknowledged": self._acknowledged}, 0o600)
        except OSError as error:
            # With a full disk; that is told by others.
            say(4, f"{self._config.metrics_directory}: {error.strerror or error}")


def acknowledged(path: str = STATE) -> float:
    """When the receiver had everything the last time; 0 when it never had."""
    try:
        with open(path, encoding="utf-8") as file:
            return float(json.load(file)["acknowledged"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def newest(directory: str) -> float:
    """When something was written there the last time; when the directory was made, if nothing was."""
    times = [os.stat(path).st_mtime for _day, path in store.files(directory)[-1:]]
    return times[0] if times else os.stat(directory).st_mtime


def of_senders(config: Config, now: float) -> t.Iterator[Sample]:
    for name in sorted(config.senders.values()):
        directory = os.path.join(config.received_directory, name)
        found = dict(store.files(directory))
        path = found.get(store.date(now), "")
        yield sample("civitas_logs_received_time_seconds", int(newest(directory)), sender=name)
        yield sample("civitas_logs_received_ratio", round(os.stat(path).st_size / config.bytes_a_day, 3) if path else 0, sender=name)


# --- what others send


def receive(config: Config) -> int:
    """Take what the senders send, for ever."""
    senders = {}
    for tls_name, name in config.senders.items():
        senders[tls_name] = wire.Sender(name, os.path.join(config.received_directory, name), config.bytes_a_day)
    receiver = wire.Receiver(senders, _credentials(config.files), say)
    listener = wire.listen(config.port)
    threading.Thread(target=_tidy, args=(config,), daemon=True).start()
    receiver.serve(listener)
    return 1


def _credentials(files: t.Tuple[str, str, str]) -> t.Tuple[str, str, str]:
    """Those that systemd has handed over: the account of the service cannot read the key."""
    place = os.environ.get("RUNTIME_DIRECTORY", "")
    return (f"{place}/certificate", f"{place}/key", files[2]) if place else files


def _tidy(config: Config) -> None:
    while True:
        for name in config.senders.values():
            try:
                store.tidy(os.path.join(config.received_directory, name), config.keep_days, time.time())
            except OSError as error:
                say(3, f"{name}: old days cannot be put away: {error}")
        time.sleep(TIDY)


# --- for people


def status(config: Config, options: t.Any) -> int:
    end = time.monotonic() + options.wait
    while True:
        now = time.time()
        found = _ages(config, now)
        waits = bool(config.receiver) and not acknowledged()
        late = waits or any(age > most for _text, age, most in found)
        if not late or time.monotonic() >= end:
            break
        time.sleep(1)
    if waits:
        say(3, f"{config.receiver['name']} never had all of it")
    for text, age, most in found:
        say(3 if age > most else 6, f"{text} {int(max(0.0, age) // 60)} minutes {'old' if text.endswith('is') else 'ago'}")
    return 1 if late else 0


def _ages(config: Config, now: float) -> t.List[t.Tuple[str, float, float]]:
    """What is looked at, how old it is, and how old it may be, in seconds."""
    found = [(f"the newest line of this host, in {config.directory}, is", now - newest(config.directory), LATE)]
    if config.receiver:
        since = acknowledged()
        found += [(f"{config.receiver['name']} had all of it", now - since, LATE)] if since else []
    for one in of_senders(config, now):
        if one.name == "civitas_logs_received_time_seconds":
            found.append((f"{dict(one.labels)['sender']} was heard of", now - one.value, SILENT))
    return found


def check(config: Config, _options_: t.Any) -> int:
    """Raises OSError."""
    try:
        if config.receiver or config.senders:
            wire.context(ssl.Purpose.SERVER_AUTH, *config.files)
    except ssl.SSLError as error:
        say(3, f"{', '.join(config.files)}: {error}; run the site playbook, it issues the certificate")
        return 1
    for name in ["", *config.senders.values()]:
        store.files(os.path.join(config.received_directory, name) if name else config.directory)
    say(6, f"evidence is kept in {config.directory}" + (f" and sent to {config.receiver['name']}" if config.receiver else ""))
    return 0


def show(config: Config, options: t.Any) -> int:
    if options.sender and options.sender not in config.senders.values():
        say(3, f"this host receives nothing of {options.sender}; it does of {', '.join(sorted(config.senders.values())) or 'nobody'}")
        return 1
    directory = os.path.join(config.received_directory, options.sender) if options.sender else config.directory
    for day, path in store.files(directory):
        if day < options.since:
            continue
        with store.reading(path) as file:
            for data in file:
                try:
                    text = data.decode().rstrip("\n") if options.json else lines.shown(lines.parse(data))
                except (ValueError, lines.LineError):
                    text = f"? {data!r}"
                sys.stdout.write(f"{text}\n")
    return 0
