# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of an application and the ledger of those that were done.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import typing as t

# {"name", "service", "command": list of arguments, "run": "once" or "every_release", "secrets": names of files}
Job = t.Mapping[str, t.Any]
# name -> {"release", "time", "rc", "seconds", "secrets"}
Ledger = t.Dict[str, t.Dict[str, t.Any]]


class JobsError(Exception):
    """What failed and what to do."""


def pending(jobs: t.Iterable[Job], ledger: Ledger, release: str, secrets_directory: t.Optional[str] = None) -> t.List[Job]:
    """The jobs that have to run now, in their order."""
    return [
        job
        for job in jobs
        if job["name"] not in ledger
        or (job["run"] == "every_release" and ledger[job["name"]].get("release") != release)
        or ledger[job["name"]].get("secrets", {}) != versions(job, secrets_directory)
    ]


def versions(job: Job, secrets_directory: t.Optional[str]) -> t.Dict[str, str]:
    """Which files of secrets a job brings into the application: another file is another value. What they hold is in no ledger."""
    found = {}
    for name in job.get("secrets") or []:
        with contextlib.suppress(OSError):
            status = os.stat(os.path.join(secrets_directory or "", name))
            found[name] = f"{status.st_ino}-{status.st_mtime_ns}"
    return found


def read(path: str) -> Ledger:
    """The ledger; empty when there is none. A ledger that cannot be read is an error: its jobs must not run twice."""
    try:
        with open(path, encoding="utf-8") as stream:
            ledger = json.load(stream)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise JobsError(
            f"{path} is damaged ({error}). Restore it from a backup, or write by hand what was done: "
            '{"<job>": {"release": "<release>"}}. An empty {} makes every job run again'
        ) from None
    if not isinstance(ledger, dict):
        raise JobsError(f"{path} holds no mapping of jobs; restore it from a backup")
    return ledger


def make_directory(path: str) -> None:
    """A directory for root only: who may open the lock in it may hold it. One that was made more open is repaired."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    os.chmod(path, 0o700)


@contextlib.contextmanager
def locked(path: str) -> t.Iterator[None]:
    """Nobody else runs jobs of this application meanwhile. JobsError when somebody does."""
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+", encoding="utf-8") as stream:
        # Earlier releases let everybody read it, and reading is enough to hold it.
        os.fchmod(handle, 0o600)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = stream.read().strip()
            raise JobsError(
                f"another run executes jobs of this application (process {holder or 'unknown'}); wait for it and run again"
            ) from None
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        try:
            yield
        finally:
            # Still locked. Nobody shall be told of a process that is long gone.
            stream.truncate(0)


def arguments(command: t.Union[str, t.Sequence[t.Any]]) -> t.List[str]:
    """A command as a list; a text is split like a shell would, without any other meaning of a shell."""
    return shlex.split(command) if isinstance(command, str) else [str(part) for part in command]
