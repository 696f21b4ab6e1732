# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-store of a store: takes sets of hosts, keeps them for as long as is said, and tells how old they are.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pwd
import shlex
import socket
import statistics
import sys
import syslog
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _store_give as giver
from ansible_collections.civitas.hosting.plugins.module_utils import _store_receive as receiver
from ansible_collections.civitas.hosting.plugins.module_utils import _store_retention as retention
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render, sample
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import HostStore, StoredSet, StoreError, describe, verify_set

CONFIG = "/etc/civitas/store.json"
PROGRAM = "/usr/local/sbin/civitas-store"
# A set that is this much smaller than the median of those before it is told.
SHRINK = 0.3
_MEDIAN_OF = 7
TITLES = {
    "civitas_store_sets": "Sets of a host that are good.",
    "civitas_store_sets_bad": "Sets of a host that are not complete, or whose members are not what came.",
    "civitas_store_sets_strange": "Sets of a host whose date or place among the others is strange.",
    "civitas_store_newest_time_seconds": "How new the content of the newest good set of a host is; 0 for none.",
    "civitas_store_newest_bytes": "Size of the newest good set.",
    "civitas_store_newest_median_ratio": "Its size, as a share of the median of the seven before it.",
    "civitas_store_newest_missing": "1 when the newest set of a host is not good, or older than it should be.",
    "civitas_store_bytes": "What a host uses on the disk.",
    "civitas_store_quota_bytes": "What it may use.",
    "civitas_store_verified_time_seconds": "When the sets of a host were all last read: the oldest of these times.",
    "civitas_store_free_bytes": "What is free on the disk.",
    "civitas_store_time_seconds": "When these figures were made.",
}


class Host(t.NamedTuple):
    """A host whose sets are kept here.

    Attributes:
        user: whose authorized_keys has the key of the host.
        signers: public keys of SSH: the one that signs its manifests, and those that did so earlier.
        readers: public keys of SSH that may always read its sets, to drill restores.
    """

    user: str
    signers: t.List[str]
    quota: int
    rules: retention.Rules
    readers: t.List[str]


class Config(t.NamedTuple):
    """The file C(CONFIG), which the role writes. The users of hosts read it; it holds no secret.

    Attributes:
        directory: of the store.
        socket: where its service is asked.
        grants: directory of the grants; a restart empties it.
        reader: the user that reads by a grant.
        metrics_file: where the figures lie for monitoring; not on /run.
    """

    directory: str
    socket: str
    grants: str
    reader: str
    minimum_free: int
    metrics_file: str
    hosts: t.Dict[str, Host]


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well. For its users it is the login shell as well: they need no other."""
    if len(arguments) == 2 and arguments[0] == "-c":
        words = shlex.split(arguments[1])
        if not words or words[0] != PROGRAM or words[1:2] == ["-c"]:
            say(3, "civitas-store: this is no shell")
            return 1
        return main(words[1:])
    parser = argparse.ArgumentParser(prog="civitas-store", description="Keeps the backups of hosts.")
    parser.add_argument("--config", default=CONFIG, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    receive = commands.add_parser("receive", help="serve a host; sshd runs it for the host's key")
    receive.add_argument("--host", required=True)
    granted = commands.add_parser("grant", help="let a key read sets of a host for a while, for a restore; as root")
    granted.add_argument("--host", required=True)
    granted.add_argument("--set", default="", help="this one only")
    granted.add_argument("--key", required=True, help="public key of the type ssh-ed25519")
    granted.add_argument("--hours", type=float, default=12.0, help=f"{giver.MOST_HOURS} at most")
    commands.add_parser("grants", help="those that hold, as JSON; as root")
    revoked = commands.add_parser("revoke", help="end the grants of a key; as root")
    revoked.add_argument("--key", required=True, help="public key")
    give = commands.add_parser("give", help="serve a reader; sshd runs it for the key of a grant")
    give.add_argument("--grant", required=True)
    commands.add_parser("answer", help="serve one request of a host's user; systemd runs it for the socket")
    verify = commands.add_parser("verify", help="read sets, and remember which are not what came; a timer runs it")
    verify.add_argument("--oldest", type=int, metavar="N", help="only those N of each host that were not read for the longest time")
    commands.add_parser("retain", help="remove what need not be kept any more; a timer runs it")
    forget = commands.add_parser("forget", help="remove the sets of before a moment, such as those of test data; as root")
    forget.add_argument("--host", required=True)
    forget.add_argument("--before", required=True, metavar="TIME", help="in UTC, such as 2026-11-22T10:00:00Z")
    forget.add_argument("--remove", action="store_true", help="remove them; without it they are only listed")
    status = commands.add_parser("status", help="what is here, and what is wrong; exit status 1 when something is")
    status.add_argument("--json", action="store_true", help="as JSON")
    options = parser.parse_args(list(arguments))
    try:
        config = read_config(options.config)
        if options.command == "receive":
            return _receive(config, options.host)
        if options.command == "give":
            return _given(lambda asked: giver.give(config.socket, options.grant, asked))
        if options.command in ("grant", "grants", "revoke"):
            return _grants(config, options)
        if options.command == "answer":
            with socket.socket(fileno=os.dup(0)) as connection:
                receiver.answer(
                    connection,
                    lambda host, uid: _store_of(config, host, uid),
                    lambda request, uid: _serve(config, connection, request, uid),
                )
            write_metrics(config, time.time())
            return 0
        if options.command == "verify":
            return _verify(config, options.oldest)
        if options.command == "retain":
            return _retain(config)
        if options.command == "forget":
            return _forget(config, options)
        return _status(config, options.json)
    except (ConfigError, StoreError, OSError) as error:
        say(3, f"civitas-store: {error}")
        return 1


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    hosts = {}
    for name, one in found["hosts"].items():
        if not form.is_host(name):
            raise ValueError(f"{name!r} is no name of a host")
        hosts[name] = Host(
            user=str(one["user"]),
            signers=[str(key) for key in one["signers"]],
            quota=int(one["quota_bytes"]),
            rules=_rules(one["retention"]),
            readers=[str(key) for key in one.get("readers", [])],
        )
    return Config(
        directory=str(found["directory"]),
        socket=str(found["socket"]),
        grants=str(found["grants"]),
        reader=str(found["reader"]),
        minimum_free=int(found["minimum_free_bytes"]),
        metrics_file=str(found["metrics_file"]),
        hosts=hosts,
    )


def _rules(value: t.Any) -> retention.Rules:
    """A preset's name, or all numbers. Raises ValueError, TypeError."""
    if isinstance(value, str):
        if value not in retention.PRESETS:
            raise ValueError(f"nobody knows the retention {value!r}; there are {', '.join(sorted(retention.PRESETS))}")
        return retention.PRESETS[value]
    return retention.Rules(**value)


def _host_store(config: Config, name: str) -> HostStore:
    host = config.hosts[name]
    return HostStore(config.directory, name, host.signers, host.quota, config.minimum_free)


def _store_of(config: Config, name: str, uid: int) -> HostStore:
    """Raises StoreError unless the user may speak for the host."""
    host = config.hosts.get(name)
    try:
        if host is not None and pwd.getpwnam(host.user).pw_uid == uid:
            return _host_store(config, name)
    except KeyError:
        pass
    raise StoreError("this store does not know this host", final=True)


def _receive(config: Config, host: str) -> int:
    return _given(lambda asked: receiver.receive(config.directory, config.socket, host, asked, config.minimum_free))


def _serve(config: Config, connection: socket.socket, request: t.Mapping[str, t.Any], uid: int) -> t.Optional[t.Dict[str, t.Any]]:
    """Raises StoreError unless the user is the one that reads by grants."""
    try:
        reader = pwd.getpwnam(config.reader).pw_uid
    except KeyError:
        reader = -1
    if uid != reader:
        raise StoreError("this store does not know this reader", final=True)
    standing = giver.standing({name: host.readers for name, host in config.hosts.items()})
    return giver.serve(connection, request, config.grants, standing, lambda name: _known(config, name), time.time())


def _known(config: Config, name: str) -> HostStore:
    """Raises StoreError."""
    if name not in config.hosts:
        raise StoreError(f"this store keeps nothing of {name}; it keeps sets of {', '.join(sorted(config.hosts)) or 'nobody'}", final=True)
    return _host_store(config, name)


def grant(config: Config, host: str, set_id: str, key: str, hours: float, now: float, check: bool = False) -> t.Dict[str, str]:
    """Let a key read the sets of a host.

    Args:
        set_id: one set; empty for all.
        check: make none.

    Returns:
        C(user), as whom it logs in; C(grant), its id, and C(until), in UTC, both empty when none was made.

    Raises:
        StoreError: it cannot be granted.
        OSError: it cannot be written.
    """
    store = _known(config, host)
    if set_id and set_id not in [one.set_id for one in store.sets()]:
        raise StoreError(f"there is no set {set_id} of {host} here")
    if check:
        return {"grant": "", "until": "", "user": config.reader}
    made = giver.add(config.grants, PROGRAM, host, set_id, key, hours, now)
    return {"grant": made.grant_id, "until": form.format_time(made.until), "user": config.reader}


def revoke(config: Config, key: str, now: float, check: bool = False) -> bool:
    """End the grants of a key; whether there were some. Raises OSError."""
    if check:
        return any(one.key == " ".join(key.split()[:2]) for one in giver.grants(config.grants, now))
    return giver.revoke(config.grants, PROGRAM, key, now)


def _grants(config: Config, options: argparse.Namespace) -> int:
    """Raises StoreError, OSError."""
    now = time.time()
    if options.command == "grants":
        sys.stdout.write(json.dumps([one._asdict() for one in giver.grants(config.grants, now)], indent=2) + "\n")
    elif options.command == "revoke":
        if not revoke(config, options.key, now):
            say(4, "this key had no grant")
    else:
        sys.stdout.write(json.dumps(grant(config, options.host, options.set, options.key, options.hours, now)) + "\n")
    return 0


def _given(work: t.Callable[[str], int]) -> int:
    """Serve what somebody asked sshd to run, and tell him why not."""
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    try:
        return work(asked)
    except StoreError as error:
        if not asked.startswith(("rsync", "get ")):
            sys.stdout.write(json.dumps({"error": str(error), "bad": error.bad, "final": error.final}) + "\n")
        sys.stderr.write(f"civitas-store: {error}\n")
        return 1


# --- work of its own


def _verify(config: Config, oldest: t.Optional[int]) -> int:
    failed = False
    for name in sorted(config.hosts):
        store, seen = _host_store(config, name), {}  # type: HostStore, t.Dict[t.Tuple[int, int], bool]
        sets = sorted(store.sets(), key=lambda one: one.verified)[: oldest if oldest is not None else None]
        for one in sets:
            try:
                # Not for all of them at once: a host may want to send meanwhile.
                with store.locked():
                    after = verify_set(store, one, time.time(), seen) if os.path.isdir(one.path) else one
            except StoreError as error:
                say(4, f"{name}: {error}")
                continue
            if after.bad:
                failed = True
                say(3, f"{name}: {one.set_id} is damaged: {', '.join(after.bad)}")
    write_metrics(config, time.time())
    return 1 if failed else 0


def _retain(config: Config) -> int:
    failed = False
    for name, host in sorted(config.hosts.items()):
        try:
            done = retention.apply(_host_store(config, name), host.rules, time.time())
        except (StoreError, OSError) as error:
            failed = True
            say(3, f"{name}: {error}")
            continue
        if done.held:
            say(4, f"{name}: nothing is removed: {done.held}")
        for set_id in done.remove:
            say(6, f"{name}: {set_id} was removed")
    write_metrics(config, time.time())
    return 1 if failed else 0


def _forget(config: Config, options: argparse.Namespace) -> int:
    """Raises ConfigError, StoreError."""
    if options.host not in config.hosts:
        raise ConfigError(f"no host is called {options.host!r} here; there are {', '.join(sorted(config.hosts)) or 'none'}")
    try:
        before = form.parse_time(options.before)
    except ValueError as error:
        raise ConfigError(f"{options.before!r} is no time; write it in UTC, such as {form.format_time(time.time())}") from error
    if before > time.time():
        raise ConfigError(f"{options.before} is in the future")
    done = retention.forget(_host_store(config, options.host), before, time.time(), options.remove)
    if done.held:
        raise StoreError(f"{options.host}: nothing is removed: {done.held} than {options.before}", final=True)
    for set_id in done.remove:
        line = f"{options.host}: {set_id} {'was removed, as of before' if options.remove else 'is of before'} {options.before}"
        say(6, line)
        if options.remove:
            # Who removes backups by hand leaves a trace that is not on the terminal.
            syslog.syslog(syslog.LOG_NOTICE, f"civitas-store: {line}")
    if not options.remove and done.remove:
        say(6, f"these {len(done.remove)} sets are removed with --remove")
    write_metrics(config, time.time())
    return 0


# --- figures


def problems_of(name: str, host: Host, sets: t.Sequence[StoredSet], now: float) -> t.List[str]:
    """What is wrong with the sets of a host."""
    good = [one for one in sets if one.good]
    found = []
    if good:
        age = (now - max(one.fresh for one in good)) / 3600
        if age > host.rules.newest_hours:
            found.append(f"{name}: the newest good set is {age:.0f} hours old")
        ratio = _ratio(good)
        if ratio < 1 - SHRINK:
            found.append(f"{name}: the newest good set is {100 - 100 * ratio:.0f} % smaller than those before it")
    else:
        found.append(f"{name}: there is no good set")
    if sets and not sets[-1].good:
        found.append(f"{name}: the newest set {sets[-1].set_id} is not good: {'; '.join(sets[-1].manifest.failures) or 'it is damaged'}")
    for one in sets:
        if one.bad:
            found.append(f"{name}: {one.set_id} is damaged: {', '.join(one.bad)}")
        found += [f"{name}: {one.set_id}: {note}" for note in one.notes]
    return found


def _ratio(good: t.Sequence[StoredSet]) -> float:
    before = [one.manifest.bytes for one in good[:-1][-_MEDIAN_OF:]]
    median = statistics.median(before) if before else 0
    return good[-1].manifest.bytes / median if median else 1.0


def samples(config: Config, now: float) -> t.Iterator[Sample]:
    for name, host in sorted(config.hosts.items()):
        store = _host_store(config, name)
        sets = store.sets()
        good = [one for one in sets if one.good]
        newest = max((one.fresh for one in good), default=0.0)
        late = now - newest > host.rules.newest_hours * 3600
        yield sample("civitas_store_sets", len(good), sender=name)
        yield sample("civitas_store_sets_bad", len(sets) - len(good), sender=name)
        yield sample("civitas_store_sets_strange", sum(bool(one.notes) for one in sets), sender=name)
        yield sample("civitas_store_newest_time_seconds", int(newest), sender=name)
        yield sample("civitas_store_newest_missing", late or not sets or not sets[-1].good, sender=name)
        yield sample("civitas_store_bytes", store.used(), sender=name)
        yield sample("civitas_store_quota_bytes", host.quota, sender=name)
        if good:
            yield sample("civitas_store_newest_bytes", good[-1].manifest.bytes, sender=name)
            yield sample("civitas_store_newest_median_ratio", round(_ratio(good), 4), sender=name)
            yield sample("civitas_store_verified_time_seconds", int(min(one.verified for one in sets)), sender=name)
    disk = os.statvfs(config.directory)
    yield sample("civitas_store_free_bytes", disk.f_bavail * disk.f_frsize)
    yield sample("civitas_store_time_seconds", int(now))


def write_metrics(config: Config, now: float) -> None:
    """Raises OSError."""
    write_text(config.metrics_file, render(samples(config, now), TITLES))


def _status(config: Config, as_json: bool) -> int:
    now = time.time()
    report: t.Dict[str, t.Any] = {"time": form.format_time(now), "hosts": {}, "problems": []}
    for name, host in sorted(config.hosts.items()):
        store = _host_store(config, name)
        sets = store.sets()
        problems = problems_of(name, host, sets, now)
        report["problems"] += problems
        report["hosts"][name] = {
            "bytes": store.used(),
            "quota_bytes": host.quota,
            "sets": [describe(one) for one in sets],
        }
    with contextlib.suppress(PermissionError):
        write_metrics(config, now)
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return 1 if report["problems"] else 0
    for name, found in report["hosts"].items():
        say(6, f"{name}: {len(found['sets'])} sets, {found['bytes'] / 2**20:.0f} MiB of {found['quota_bytes'] / 2**20:.0f}")
        for one in found["sets"]:
            say(6, f"  {one['set']}  {one['bytes'] / 2**20:.1f} MiB  {'good' if one['good'] else 'NOT GOOD'}")
    for line in report["problems"]:
        say(3, line)
    return 1 if report["problems"] else 0
