# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What writes data on a host, units of systemd and projects of Docker Compose: stopped while data are replaced, and started again.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import subprocess
import typing as t

# Of a container, until it is ended by force.
_CONTAINER_SECONDS = 60
_SECONDS = 600
_ENGINE = "docker.service"
_RUNS = ("active", "activating", "reloading")


class WriterError(Exception):
    """Something that writes could not be stopped, or started; the text says what."""


class Writers(t.NamedTuple):
    """What writes: names of units, and of projects."""

    units: t.Tuple[str, ...] = ()
    projects: t.Tuple[str, ...] = ()


class Running(t.NamedTuple):
    """What of it ran: names of units, and numbers of containers in the order in which they were made."""

    units: t.List[str]
    containers: t.List[str]


def running(writers: Writers, boot: bool = False) -> Running:
    """What of it runs.

    Args:
        boot: the engine of containers may wait for who asks: while it was not started, none of its containers runs.

    Raises:
        WriterError: nobody can say.
    """
    # A unit that is about to start writes soon.
    states = [(unit, _state(unit)) for unit in writers.units]
    containers: t.List[str] = []
    for project in writers.projects if not boot or _state(_ENGINE) in _RUNS else ():
        found = _run("docker", "ps", "--quiet", "--no-trunc", "--filter", f"label=com.docker.compose.project={project}").split()
        containers += reversed(found)
    return Running([unit for unit, state in states if state in _RUNS], containers)


def _state(unit: str) -> str:
    return _run("systemctl", "show", "--property=ActiveState", "--value", "--", unit).strip()


def stop(writers: Writers, what: Running, boot: bool = False) -> None:
    """C(boot) as in C(running). Raises WriterError unless none of it runs any more."""
    if what.units:
        _run("systemctl", "stop", "--", *reversed(what.units))
    if what.containers:
        _run("docker", "stop", "--time", str(_CONTAINER_SECONDS), *reversed(what.containers))
    left = running(writers, boot)
    if left.units or left.containers:
        raise WriterError(f"{', '.join([*left.units, *left.containers])} still runs")


def start(what: Running) -> None:
    """Start what ran before. Raises WriterError when something does not start; all of it was tried."""
    problems = []
    jobs = [["systemctl", "start", "--", unit] for unit in what.units]
    jobs += [["docker", "start", container] for container in what.containers]
    for job in jobs:
        try:
            _run(*job)
        except WriterError as error:
            problems.append(str(error))
    if problems:
        raise WriterError("; ".join(problems))


def start_unit(unit: str, wait: bool = True) -> None:
    """Raises WriterError."""
    _run("systemctl", "start", *([] if wait else ["--no-block"]), "--", unit)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WriterError(f"{command[0]} does not run: {error}") from error
    if done.returncode != 0:
        raise WriterError(f"{' '.join(command[:2])} ended with {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout
