# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-metrics of the hosts: measures once, and writes what it measured for whoever judges it.

Private to the collection: no promise of stability. Standard library only.

It runs every minute on the smallest hosts, so whatever is slow is asked once an hour, and imported only then.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import json
import os
import signal
import subprocess
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_access as access
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_containers as engine
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_host as host
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_packages as packages
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_postgres as postgres
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render, sample
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError, parsed

CONFIG = "/etc/civitas/metrics.json"
# What one measurement leaves for the next. Not on /run: what a reboot forgets would begin to wait anew.
STATE = "/var/lib/civitas/metrics.json"
FILE = "host.prom"
# Room in its file beyond what is needed, so that a disk that filled up meanwhile can be told of: what a file has, it keeps.
BLOCK, SPARE = 4096, 2048
CANARY = "/var/log/civitas/canary.log"
# The first is touched when all lists of packages were fetched, by order of the second, which the role base writes.
LISTS, LISTS_ORDER = "/var/lib/apt/periodic/civitas-lists-complete", "/etc/apt/apt.conf.d/90civitas"
HOUR = 3600.0
TITLES = {
    "civitas_collected_time_seconds": "When this host was measured.",
    "civitas_collect_seconds": "How long it took.",
    "civitas_collect_failed": "1 when a part of the measurement failed; its series are missing then.",
    **host.TITLES,
    **packages.TITLES,
    **engine.TITLES,
    **postgres.TITLES,
    **access.TITLES,
}
# For each topic, so that one that hangs leaves time for the others before systemd ends it all.
SECONDS = 8.0
SECONDS_OF = {"updates": 30.0}
_STA_UNSYNC = 0x0040


class Config(t.NamedTuple):
    """The file C(CONFIG), which the role writes.

    Attributes:
        directory: where metrics lie.
        units: systemd units that are to run always.
        mounts: where something is to be mounted always.
        containers: services of compose that are to run always, as project and service.
        components: last day of the support of what is on the host beside the distribution, by name.
    """

    directory: str
    units: t.List[str]
    mounts: t.List[str]
    containers: t.List[t.Tuple[str, str]]
    components: t.Dict[str, str]


State = t.Dict[str, t.Any]
Topic = t.Callable[[Config, State, float], t.Iterator[Sample]]


def main(arguments: t.Sequence[str]) -> int:
    """Measure once; the exit status is 0 when the result could be written."""
    if arguments:
        sys.stderr.write("civitas-metrics takes no arguments; it measures this host once, and writes the result for monitoring\n")
        return 0 if arguments[0] in ("-h", "--help") else 2
    if os.geteuid() != 0:
        say(3, "civitas-metrics: only root can measure; write sudo before it")
        return 1
    try:
        collect(read_config(), TOPICS)
    except (ConfigError, OSError) as error:
        say(3, f"civitas-metrics: {error}")
        return 1
    return 0


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    return Config(
        directory=str(found["directory"]),
        units=[str(unit) for unit in found["units"]],
        mounts=[str(mount) for mount in found["mounts"]],
        containers=[(str(one["project"]), str(service)) for one in found["containers"] for service in one["services"]],
        components={str(name): str(day) for name, day in found["components"].items()},
    )


def collect(config: Config, topics: t.Mapping[str, Topic], state_file: str = STATE) -> None:
    """Measure all topics, write the result and then what is remembered. Raises OSError."""
    begin = time.monotonic()
    state = read_state(state_file)
    found: t.List[Sample] = []
    for name, topic in topics.items():
        before: State = state[name] if isinstance(state.get(name), dict) else {}
        after: State = json.loads(json.dumps(before))
        fault = _measured(functools.partial(topic, config, after, time.time()), SECONDS_OF.get(name, SECONDS), found)
        # It is told once. What failed is measured from where it stood.
        if fault and fault != before.get("fault", ""):
            say(4, f"{name}: {fault}")
        if not fault and before.get("fault", ""):
            say(5, f"{name}: measured again")
        state[name] = {**(before if fault else after), "fault": fault}
        found.append(sample("civitas_collect_failed", bool(fault), topic=name))
    found.append(sample("civitas_collect_seconds", round(time.monotonic() - begin, 3)))
    found.append(sample("civitas_collected_time_seconds", int(time.time())))
    _publish(os.path.join(config.directory, FILE), render(found, TITLES))
    write_json(state_file, {name: state[name] for name in topics}, 0o600)


def _publish(path: str, text: str) -> None:
    """Put the result where readers find it, also on a full disk as long as its file has room. Raises OSError."""
    size = -(-(len(text.encode()) + SPARE) // BLOCK) * BLOCK
    try:
        # Everybody may read it: who serves it is not root.
        write_text(path, _filled(text, size))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A reader may see half of it, which is as good as none until a minute later.
        with open(os.open(path, os.O_WRONLY | os.O_NOFOLLOW), "wb", buffering=0) as file:
            room = os.fstat(file.fileno()).st_size
            if len(text.encode()) + 2 > room:
                raise
            file.write(_filled(text, room).encode())


def _filled(text: str, size: int) -> str:
    """A text with a comment at its end, of that size in bytes."""
    return f"{text}#{' ' * (size - len(text.encode()) - 2)}\n"


def _measured(topic: t.Callable[[], t.Iterator[Sample]], seconds: float, found: t.List[Sample]) -> str:
    """Why a topic failed; its samples up to then are good. Nothing that is wrong with one topic may hinder the others."""
    got: t.List[Sample] = []
    fault = ""
    try:
        with _limit(seconds):
            got.extend(topic())
        render(got, TITLES)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    # A series that comes twice would spoil the whole file.
    found.extend({(one.name, one.labels): one for one in got if one.name in TITLES}.values())
    return fault


@contextlib.contextmanager
def _limit(seconds: float) -> t.Iterator[None]:
    """Raises MeasureError inside when it takes longer; a command that is waited for is ended."""

    def stop(_number: int, _frame: t.Any) -> None:
        raise host.MeasureError(f"no answer in {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read_state(path: str) -> State:
    """What the measurement before left; nothing when it cannot be read, so that it begins anew."""
    try:
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


# --- topics


def _mounts(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    return host.mounts(_read("/proc/self/mountinfo"), _read("/etc/fstab", ""), config.mounts)


def _memory(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    return host.memory(_read("/proc/meminfo"))


def _processors(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    return host.processors(_read("/proc/stat"), _read("/proc/loadavg"), state)


def _clock(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    try:
        tracking = _run("chronyc", "-c", "tracking")
    except (FileNotFoundError, host.MeasureError):
        tracking = ""
    return host.clock(tracking, bool(tracking) or _kernel_follows(), now)


def _kernel_follows() -> bool:
    """Whether the kernel knows of a program that keeps its clock. Raises OSError."""
    # Slow to import, and seldom needed.
    import ctypes

    # The sixth word of struct timex is the status. Zero in the first one asks, and sets nothing.
    timex = (ctypes.c_long * 64)()
    library = ctypes.CDLL(None, use_errno=True)
    if library.adjtimex(ctypes.byref(timex)) < 0:
        raise OSError(ctypes.get_errno(), "adjtimex")
    return not (timex[5] & 0xFFFFFFFF) & _STA_UNSYNC


def _logs(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    # logrotate makes it anew each time. A host without the role base has none.
    rotated = _modified(CANARY)
    if rotated is not None:
        yield sample("civitas_logs_rotated_time_seconds", rotated)


def _units(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    yield from host.failed_units(_run("systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full"))
    if config.units:
        yield from host.running_units(config.units, _run("systemctl", "show", "--property=ActiveState", "--", *config.units))


def _reboot(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    kernels = [os.path.basename(path).partition("-")[2] for path in glob.glob("/boot/vmlinuz-*")]
    required = os.path.exists("/run/reboot-required") or packages.newer_kernel(os.uname().release, kernels)
    return packages.reboot(required, _read("/proc/sys/kernel/random/boot_id").strip(), state, now)


def _updates(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    # apt touches that directory whenever it asks, also when nobody answers.
    asked = [_modified("/var/lib/dpkg/status"), _modified("/var/lib/apt/lists/partial")]
    # It takes a second, so it is asked again after an hour, or when packages or lists have changed.
    if not (state.get("asked") == asked and 0 <= now - state["time"] < HOUR):
        simulated = _run("apt-get", "-s", "-qq", "-o", "Debug::NoLocking=true", "--ignore-hold", "dist-upgrade")
        state.update(asked=asked, time=now, packages=packages.security_updates(simulated))
    since = state.setdefault("since", {})
    # Where they were never fetched, it counts from when that was first noted.
    complete = [time for time in map(_modified, (LISTS, LISTS_ORDER)) if time is not None]
    return packages.updates(state["packages"], since, now, complete[0] if complete else None)


def _modified(path: str) -> t.Optional[float]:
    try:
        return float(int(os.stat(path).st_mtime))
    except FileNotFoundError:
        return None


def _support(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    release = [_modified("/etc/os-release"), _modified("/usr/lib/os-release")]
    if not (state.get("release") == release and 0 <= now - state["time"] < HOUR):
        # Slow to import.
        from ansible_collections.civitas.hosting.plugins.module_utils import _host_preflight

        values = _host_preflight.parse_os_release(_read("/etc/os-release"))
        known = _host_preflight.RELEASES.get((values.get("ID", ""), values.get("VERSION_ID", "")))
        if known is None:
            raise host.MeasureError("nobody knows how long this release is supported")
        state.update(release=release, time=now, own={known.title: known.end.isoformat()})
    return packages.support({**state["own"], **config.components})


def _containers(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    if not config.containers and not os.path.exists(engine.SOCKET):
        return
    try:
        found = [one for one in map(engine.parse, engine.ask(engine.SOCKET)) if one is not None]
    except Exception:
        yield from engine.unseen(config.containers)
        raise
    yield from engine.containers(found, config.containers, state.setdefault("restarts", {}), now)


def _databases(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    try:
        names = os.listdir(postgres.DIRECTORY)
    except FileNotFoundError:
        names = []
    # A server that crashed leaves its socket; one that was stopped does not, and its unit tells.
    for port in postgres.ports(names):
        answer: t.Optional[str] = None
        with contextlib.suppress(host.MeasureError, subprocess.TimeoutExpired):
            answer = _run(*postgres.command(port), seconds=4, **postgres.ENVIRONMENT)
        archive = postgres.archive_command(answer) if answer is not None else None
        archived: t.Optional[t.List[str]] = None
        if archive:
            # A directory that is not there, or does not answer, is no fault of the server: it says itself when it cannot write there.
            with contextlib.suppress(host.MeasureError, subprocess.TimeoutExpired):
                archived = _run(*archive, seconds=2).splitlines()
        yield from postgres.server(port, answer, archived)


def _people(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    try:
        settings = json.loads(_read("/etc/civitas/access.json"))
    except FileNotFoundError:
        # A host without the role access.
        return iter(())
    directory = "/etc/civitas/second-factor"
    present = os.listdir(directory) if os.path.isdir(directory) else []
    return access.second_factors(settings, present, time.strftime("%Y-%m-%d", time.gmtime(now)))


def _announcements(config: Config, state: State, now: float) -> t.Iterator[Sample]:
    # Slow to import where nobody is told of logins.
    from ansible_collections.civitas.hosting.plugins.module_utils import _login_spool

    queues: t.Dict[str, t.List[t.Tuple[str, float]]] = {}
    for base in _login_spool.BASES:
        for queue in access.QUEUES:
            with contextlib.suppress(FileNotFoundError), os.scandir(f"{base}/{queue}") as entries:
                files = queues.setdefault(queue, [])
                for entry in entries:
                    # One that is delivered meanwhile waits no more.
                    with contextlib.suppress(FileNotFoundError):
                        files.append((entry.name, entry.stat().st_mtime))
    return access.announcements(queues)


# In the order of the file; each is measured whatever becomes of the others.
TOPICS: t.Dict[str, Topic] = {
    "mounts": _mounts,
    "memory": _memory,
    "processors": _processors,
    "clock": _clock,
    "logs": _logs,
    "units": _units,
    "reboot": _reboot,
    "updates": _updates,
    "support": _support,
    "containers": _containers,
    "databases": _databases,
    "people": _people,
    "announcements": _announcements,
}


def _read(path: str, missing: t.Optional[str] = None) -> str:
    """The text of a file; C(missing), if given, for one that is not there. Raises OSError."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            return file.read()
    except FileNotFoundError:
        if missing is None:
            raise
        return missing


def _run(*command: str, seconds: t.Optional[float] = None, **variables: str) -> str:
    """The output of a command, with these variables of the environment. Raises MeasureError, FileNotFoundError, TimeoutExpired."""
    environment = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **variables}
    done = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment, timeout=seconds
    )
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        raise host.MeasureError(f"{command[0]} ended with {done.returncode}: {said}")
    return done.stdout
