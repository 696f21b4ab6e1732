# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The data volume of a host, without Ansible: opened, closed, watched, judged. The program civitas-data.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_keys as keys
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts as mounting
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_setup as setup
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_swap as swap
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_swapfile as swapfile
from ansible_collections.civitas.hosting.plugins.module_utils._journal_lines import say
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_text
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, render, sample
from ansible_collections.civitas.hosting.plugins.module_utils._volume_mounts import Config
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Run, VolumeError, must

TITLES = {
    "civitas_data_volume_mounted": "1 when the data volume and all directories on it are mounted.",
    "civitas_data_volume_locked": "1 while the data volume is encrypted and not open.",
    "civitas_data_volume_waiting_units": "How many units that start at boot do not run and need the data volume.",
    "civitas_data_volume_time_seconds": "When the data volume was looked at.",
}


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-data", description="The data volume of this host.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("status", help="whether all is mounted from it; exit status 1 when not")
    commands.add_parser("unlock", help="open it with the passphrase, which is asked for or read from standard input; start what waited")
    commands.add_parser("lock", help="stop what needs it, unmount and close it")
    commands.add_parser("key", help="whether it is protected; exit status 1 when what opens it lies here")
    commands.add_parser("swap", help="whether memory can get on a disk in the clear; exit status 1 when so")
    commands.add_parser("open", help="open it when it can by itself; systemd runs it")
    commands.add_parser("close", help="close it; systemd runs it")
    commands.add_parser("watch", help="measure it; a timer runs it")
    options = parser.parse_args(list(arguments))
    try:
        return COMMANDS[options.command](mounting.read_config())
    except (VolumeError, OSError) as error:
        say(3, f"civitas-data: {error}")
        return 1


class Seen(t.NamedTuple):
    """The volume at one moment.

    Attributes:
        locked: whether it is encrypted and not open.
        problems: what is not mounted as it must be, a sentence each.
        waiting: units that do not run and start at boot.
    """

    locked: bool
    problems: t.List[str]
    waiting: t.List[str]


def look(config: Config, runner: Run = state.run) -> Seen:
    """Raises OSError."""
    locked = config.encrypted and not state.mapped_on()
    found = state.read_mounts()
    missing = [point for point in config.points if point not in found]
    problems = []
    if locked:
        problems.append("the volume is locked: 'civitas-data unlock' or the playbook unlock opens it")
    elif missing:
        problems.append(f"nothing is mounted at {', '.join(missing)}: see 'systemctl status {mounting.unit_name(missing[0])}'")
    if config.path in found and found[config.path][0] == found["/"][0]:
        problems.append(f"{config.path} lies on the file system of the host itself")
    problems += [
        f"{each.path} is not the directory on the volume"
        for each in config.bound
        if each.path in found and config.path in found and found[each.path][0] != found[config.path][0]
    ]
    problems += [
        f"{point} could be written to while the volume is not mounted; the site playbook seals it"
        for point in missing
        if os.path.isdir(point) and not mounting.is_protected(point, runner)
    ]
    if config.swap_size and config.path in found and swapfile.used(config) is None:
        problems.append(f"{config.swap_file} is not in use as swap: see 'systemctl status {config.swap_unit}'")
    waiting = mounting.waiting(config, runner)
    if waiting and not missing:
        problems.append(f"not running: {', '.join(waiting)}")
    return Seen(locked, problems, waiting)


def _status(config: Config) -> int:
    seen = look(config)
    for problem in seen.problems:
        say(3, problem)
    if not seen.problems:
        say(6, f"{', '.join(config.points)}: mounted from {config.source}")
    return 1 if seen.problems else 0


def _watch(config: Config) -> int:
    seen = look(config)
    found = state.read_mounts()
    values: t.List[Sample] = [
        sample("civitas_data_volume_mounted", all(point in found for point in config.points)),
        sample("civitas_data_volume_locked", seen.locked),
        sample("civitas_data_volume_waiting_units", len(seen.waiting)),
        sample("civitas_data_volume_time_seconds", time.time()),
    ]
    write_text(config.metrics_file, render(values, TITLES))
    return 0


def _open(config: Config) -> int:
    """What systemd runs at boot: it succeeds when the volume is open."""
    behind = state.mapped_on()
    if behind and behind != config.luks:
        raise VolumeError(f"{state.MAPPING} is another volume ({behind})")
    if not behind:
        node = setup.find(config.device)
        if config.encryption == "operator":
            raise VolumeError("the volume is locked: 'civitas-data unlock' or the playbook unlock opens it")
        setup.open_by_itself(node)
        _resume(config)
    return 0


def _close(config: Config) -> int:
    if state.mapped_on():
        must(state.run, ["cryptsetup", "close", state.NAME])
    return 0


def _resume(config: Config) -> None:
    """Start what an attempt before could not. It is not waited for: systemd is still busy with who asks."""
    units = [mounting.unit_name(point) for point in config.points]
    must(state.run, ["systemctl", "start", "--no-block", "--", *units, *mounting.waiting(config)])


def unlock(config: Config, passphrase: bytes, check: bool = False, runner: Run = state.run) -> t.List[str]:
    """Open the volume, mount it, start what waited; returns what was done, for people. Raises VolumeError, OSError."""
    steps = []
    before = swapfile.used(config)
    if config.encrypted and not state.mapped_on():
        node = setup.find(config.device, runner)
        steps.append(f"open {node}")
        if check:
            # What waits is started by then, and that may be known only when it is open.
            return [*steps, *(f"mount {point}" for point in config.points), *swapfile.on(config, before, check, runner)]
        setup.open_mapping(node, passphrase, runner)
    if config.encrypted and not check:
        must(runner, ["systemctl", "start", state.OPEN_UNIT])
    steps += mounting.up(config, check, runner=runner).steps
    steps += swapfile.on(config, before, check, runner)
    return steps


def _unlock(config: Config) -> int:
    if config.encrypted and not state.mapped_on():
        given = getpass.getpass("Passphrase of the data volume: ").encode() if sys.stdin.isatty() else sys.stdin.buffer.read()
        steps = unlock(config, given.rstrip(b"\r\n"))
    else:
        steps = unlock(config, b"")
    for step in steps:
        say(6, step)
    return _status(config)


def _lock(config: Config) -> int:
    if not config.encrypted:
        raise VolumeError("the volume is not encrypted")
    try:
        must(state.run, ["systemctl", "stop", state.OPEN_UNIT])
        if state.mapped_on():
            _close(config)
    except VolumeError:
        # That is most often why.
        swapfile.must_be_off(config)
        raise
    swapfile.forget(config)
    say(6, "locked")
    return 0


def _key(config: Config) -> int:
    if not config.encrypted:
        say(3, "not protected: the volume is not encrypted")
        return 1
    verdict = keys.verdict(config, state.read_device(setup.find(config.device)))
    for line in verdict.lines:
        say(6 if verdict.protected else 3, line)
    return 0 if verdict.protected else 1


def _swap(config: Config) -> int:
    found = swap.plain()
    for path in found:
        say(3, f"{path} is swap on a disk in the clear, and memory lies there; the site playbook turns it off")
    if not found:
        say(6, "no swap on a disk in the clear")
    return 1 if found else 0


COMMANDS: t.Dict[str, t.Callable[[Config], int]] = {
    "status": _status,
    "unlock": _unlock,
    "lock": _lock,
    "key": _key,
    "swap": _swap,
    "open": _open,
    "close": _close,
    "watch": _watch,
}
