# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill has proven takes the place of this host's own data, which come back when anything about it goes wrong.

Private to the collection: no promise of stability. Standard library only.

The work is done by what restores for people, see C(_restore_run): new data are made beside the old ones, proven, altered, and swapped by
renames. Here is only what a person would decide.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _drill_instance as instances
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_run as restoring
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Manifest
from ansible_collections.civitas.hosting.plugins.module_utils._backup_postgres import Postgres
from ansible_collections.civitas.hosting.plugins.module_utils._policy import POLICIES
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import ConfigError

_HEALTH_PAUSE = 2.0
_HEALTH_SECONDS = 120.0
Say = t.Callable[[int, str], None]


class ReplaceError(Exception):
    """The data of this host are what they were before; the text says why."""


class Replace(t.NamedTuple):
    """How the data of this host are replaced.

    Attributes:
        settings: the file of civitas-restore, which says where data lie on this host and what writes them.
        anonymise: command that is run on all new data; empty when somebody has said that there is to be none.
        health: command that ends well when the application works; empty for none.
        health_seconds: how long it may take until it does.
    """

    settings: str
    anonymise: t.Tuple[str, ...]
    health: t.Tuple[str, ...]
    health_seconds: float


def check(replace: Replace, environment: str, host: str) -> restoring.Config:
    """The settings of this host, where data may be replaced without a person.

    Args:
        environment: kind of this host.
        host: whose sets take the place of its data, as they name it.

    Raises:
        ReplaceError: they may not.
    """
    policy = POLICIES.get(environment)
    if policy is None or not policy.periodic_restore:
        raise ReplaceError(f"the data of a host of the kind {environment!r} are never replaced by a timer")
    try:
        config = program.read_config(replace.settings)
    except ConfigError as error:
        raise ReplaceError(f"this host has no settings for restores, which the role restore writes: {error}") from error
    if config.environment != environment:
        raise ReplaceError(f"{replace.settings} says that this host is of the kind {config.environment!r}, and not {environment!r}")
    if config.host == host:
        raise ReplaceError(f"{replace.settings} says that this host is {host}; it would have the sets of this host itself put in place")
    return config


def run(
    replace: Replace, environment: str, directory: str, manifest: Manifest, signers: t.Sequence[str], identity: str, work: str, say: Say
) -> str:
    """Put the set in place that lies in C(directory) and was proven; which restore it was.

    Args:
        identity: file with a private key of age; it stays.
        work: directory of the drill.

    Raises:
        ReplaceError: all is as it was before, or the text says what is not.
        OSError: nothing was touched.
    """
    config = check(replace, environment, manifest.host)
    # A restore removes the key that it was given.
    key = os.path.join(work, "replace.key")
    with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target, open(identity, "rb") as source:
        shutil.copyfileobj(source, target)
    plan = restoring.Plan(
        host=manifest.host,
        signers=list(signers),
        identity=key,
        wanted=manifest.set_id,
        sets=os.path.dirname(directory),
        only=tuple(_parts(manifest, config)),
        confirm=config.host,
        unattended=True,
    )
    alter = _alter(replace, say) if replace.anonymise else None
    try:
        with restoring.removed(key), restoring.locked(config):
            restore = restoring.Restore(config, say, alter)
            journal = restore.run(plan)
            problem = _health(replace)
            if problem:
                restore.undo(problem)
                raise ReplaceError(f"{problem}; all is as it was before")
            restore.accept()
            return journal.when
    except restoring.RestoreFailed as error:
        raise ReplaceError(str(error)) from error


def settle(replace: Replace, say: Say) -> None:
    """Take back what was cut off, also when only nobody knew yet whether the application works. Raises ReplaceError, OSError."""
    try:
        config = program.read_config(replace.settings)
    except ConfigError:
        # Where nothing can be restored nothing was begun; the drill says so when it is about to.
        return
    try:
        known = restoring.journals(config)
        if not known or known[-1].phase in (restoring.ACCEPTED, restoring.UNDONE, restoring.REFUSED):
            return
        if not known[-1].content.get("unattended"):
            return
        with restoring.locked(config):
            restore = restoring.Restore(config, say)
            if restore.settle(False) is None:
                restore.undo("it was cut off before anybody knew whether the application works")
        say(4, "what an earlier drill has put in place is taken back, as it was cut off")
    except restoring.RestoreFailed as error:
        raise ReplaceError(str(error)) from error


def _parts(manifest: Manifest, config: restoring.Config) -> t.Iterator[str]:
    """Databases and trees. What a person would look at, brought to the side, would only be one more copy."""
    sides = {tree.name for tree in config.files if tree.side}
    for source in manifest.sources:
        if source["kind"] == "postgres" or (source["kind"] == "files" and source["name"] not in sides):
            yield f"{source['kind']}/{source['name']}"


def _alter(replace: Replace, say: Say) -> restoring.Alter:
    def database(server: Postgres, name: str) -> None:
        try:
            instances.anonymise(server, name, replace.anonymise, lambda line: say(3, line))
        except instances.InstanceError as error:
            raise restoring.RestoreFailed(str(error)) from error

    def tree(path: str) -> None:
        try:
            instances.anonymise_tree(path, replace.anonymise, lambda line: say(3, line))
        except instances.InstanceError as error:
            raise restoring.RestoreFailed(str(error)) from error

    return restoring.Alter(database, tree)


def _health(replace: Replace) -> str:
    """Why the application does not work in time; empty when it does."""
    if not replace.health:
        return ""
    deadline = time.monotonic() + replace.health_seconds
    while True:
        try:
            done = subprocess.run(
                list(replace.health), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_HEALTH_SECONDS, cwd="/"
            )
            if done.returncode == 0:
                return ""
            problem = f"ended with {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = f"does not run: {error}"
        if time.monotonic() > deadline:
            return f"the application does not work with the new data: {replace.health[0]} {problem}"
        time.sleep(_HEALTH_PAUSE)
