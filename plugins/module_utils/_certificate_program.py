# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-certificates of the hosts: what the modules do, without Ansible.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_watch as watch
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_wire as wire
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_install import Installer, InstallError, Spec, leaf_fingerprint
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Store, StoreError
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say

CONFIG = "/etc/civitas/certificates.json"
# A watch that has not run for this long does not run any more; it is due every six hours.
STALE = 86400.0


class Settings(t.NamedTuple):
    """The file C(CONFIG), which the role certificates writes."""

    store: Store
    specs: t.Dict[str, Spec]
    trust: t.Dict[str, str]
    state_file: str
    metrics_file: str
    days: t.List[int]
    critical_days: int
    alert_command: t.List[str]
    patience: int


class ProgramError(Exception):
    """Something that the caller has to put right."""


def settings(path: str) -> Settings:
    """Read the configuration. Raises ProgramError."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        items = document["certificates"]
        return Settings(
            Store(document["store"]),
            {item["name"]: Spec.of(item) for item in items},
            {item["name"]: item.get("trust_file") or "" for item in items},
            document["state_file"],
            document["metrics_file"],
            [int(day) for day in document["days"]],
            int(document["critical_days"]),
            list(document["alert_command"]),
            int(document["patience"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProgramError(f"{path}: {error!r}; run the site playbook, it writes this file") from error


def main(arguments: t.Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="civitas-certificates", description="The certificates of this host and their users.")
    parser.add_argument("--config", default=CONFIG, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    install = commands.add_parser("install", help="bring a new pair into use, proven on the wire, else the pair from before stays")
    install.add_argument("name")
    install.add_argument("--chain", required=True, help="file with the certificates in PEM, the server's own first")
    install.add_argument("--key", required=True, help="file with the private key in PEM, without passphrase")
    install.add_argument(
        "--trust", default="", help="file with the roots to judge it by, in PEM; the declared or the host's own unless given"
    )
    rollback = commands.add_parser("rollback", help="bring the pair from before back into use, proven in the same way")
    rollback.add_argument("name")
    rollback.add_argument("--generation", default="", help="which one, see 'list'; the one in use before unless given")
    commands.add_parser("list", help="the pairs on this host")
    commands.add_parser("status", help="measure every certificate now; exit status 1 when one is not as it should be")
    commands.add_parser("watch", help="as status; tell each threshold and each fault once. A timer runs it")
    options = parser.parse_args(arguments)
    try:
        found = settings(options.config)
        if options.command == "install":
            return _install(found, options.name, options.chain, options.key, options.trust)
        if options.command == "rollback":
            return _roll_back(found, options.name, options.generation)
        return {"list": _list, "status": _status, "watch": _watch}[options.command](found)
    except (ProgramError, InstallError, StoreError, OSError) as error:
        say(3, str(error))
        return 1


def _spec(found: Settings, name: str) -> Spec:
    if name not in found.specs:
        raise ProgramError(f"{name} is no certificate of this host; there are {', '.join(sorted(found.specs)) or 'none'}")
    return found.specs[name]


def _install(found: Settings, name: str, chain_file: str, key_file: str, trust_file: str) -> int:
    spec = _spec(found, name)
    with open(chain_file, encoding="ascii", errors="replace") as file:
        chain = "".join(wire.certificates(file.read()))
    with open(key_file, encoding="ascii", errors="replace") as file:
        key = file.read()
    if not chain:
        raise ProgramError(f"{chain_file} holds no certificate in PEM")
    outcome = Installer(found.store, spec, found.patience).install(chain, key, trust_file or found.trust[name])
    return _tell(name, outcome.changed, outcome.generation, outcome.notes)


def _roll_back(found: Settings, name: str, generation: str) -> int:
    outcome = Installer(found.store, _spec(found, name), found.patience).roll_back(generation, found.trust[name])
    return _tell(name, outcome.changed, outcome.generation, outcome.notes)


def _tell(name: str, changed: bool, generation: str, notes: t.Sequence[str]) -> int:
    for note in notes:
        say(6, note)
    say(6, f"{name}: generation {generation} is in use" + ("" if changed else " already; nothing changed"))
    return 0


def _list(found: Settings) -> int:
    now = time.time()
    for name in sorted(found.specs):
        current = found.store.current(name)
        if not current:
            say(6, f"{name}: not installed")
        lineage = found.store.history(name).lineage
        for generation in found.store.generations(name):
            chain = found.store.chain(name, generation)
            if chain:
                mark = "in use" if generation == current else "kept" if generation in lineage else "rolled away from"
                try:
                    days = (wire.not_after(chain) - now) / 86400
                    say(6, f"{name}: generation {generation}, {mark}, ends in {days:.1f} days, SHA-256 {leaf_fingerprint(chain)}")
                except ValueError as error:
                    say(6, f"{name}: generation {generation}, {mark}, damaged: {error}")
        if found.store.pending(name):
            say(6, f"{name}: a change was cut off; the watch or the next installation ends it")
    return 0


def _status(found: Settings) -> int:
    now = time.time()
    seen = watch.measure(found.store, found.specs.values())
    problems = watch.problems(seen, found.critical_days, now)
    last = watch.read_state(found.state_file).get("time")
    if last is not None and now - last > STALE:
        problems.append(f"the watch has not run for {(now - last) / 3600:.0f} hours; see systemctl status civitas-certificates-watch.timer")
    for item in seen:
        if not item.fault:
            say(6, f"{item.name}: {item.place}, {item.days_left(now):.1f} days left")
    for problem in problems:
        say(3, problem)
    return 1 if problems else 0


def _watch(found: Settings) -> int:
    messages = []
    failed = False
    for spec in found.specs.values():
        try:
            notes = Installer(found.store, spec, found.patience, 300).heal(found.trust[spec.name])
            messages += [watch.News(5, note) for note in notes]
        except (InstallError, StoreError, OSError) as error:
            messages.append(watch.News(3, f"the certificate {spec.name}: {error}"))
            failed = True
    now = time.time()
    seen = watch.measure_settled(found.store, list(found.specs.values()))
    told = watch.read_state(found.state_file).get("told", {})
    news, told_now = watch.news(seen, told, found.days, found.critical_days, now)
    messages += news
    for message in messages:
        say(message.severity, message.text)
    problem = _alert(found.alert_command, [message.text for message in messages])
    problems = watch.problems(seen, found.critical_days, now)
    if problem:
        say(3, problem)
    # What nobody heard is told again.
    watch.write(found.state_file, watch.state(seen, told if problem else told_now, problems, now))
    watch.write(found.metrics_file, watch.metrics(seen, found.days, now))
    return 1 if failed or problem or problems else 0


def _alert(command: t.Sequence[str], lines: t.Sequence[str]) -> str:
    """Hand the news to the command; returns why that failed, or nothing."""
    if not command or not lines:
        return ""
    text = "".join(f"{line}\n" for line in lines)
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the alert command failed: {error}"
    return "" if done.returncode == 0 else f"the alert command failed: {(done.stderr or done.stdout).strip()[-300:] or done.returncode}"
