# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mounts the data volume and the directories on it, so that nothing is ever written beneath, and starts what waited for it.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import string
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Run, VolumeError, must

_PLAIN = frozenset(string.ascii_letters + string.digits + ":_.")
_RUNBOOK = "docs/runbooks/data_volume.md"


class Directory(t.NamedTuple):
    """A directory whose data lies on the volume. Empty values: as the package made it, or root's, 0755."""

    path: str
    owner: str = ""
    group: str = ""
    mode: str = ""
    units: t.Tuple[str, ...] = ()


class Config(t.NamedTuple):
    """What the host knows of its volume, C(/etc/civitas/data.json).

    Attributes:
        device: as it is written in the inventory.
        encryption: C(none), C(operator), C(tang), C(tpm2).
        source: what is mounted.
        uuid: of the file system; empty in check mode while there is none.
        luks: UUID of the header; empty when it is not encrypted.
        path: where the volume is mounted.
        directories: what lies on it.
        servers: names and addresses of the tang servers.
        again: units that start without it, and are started again with it when they have failed.
        metrics_file: where its measurements go.
        swap_size: bytes of the swap on it; 0 for none.
    """

    device: str
    encryption: str
    source: str
    uuid: str
    luks: str
    path: str
    directories: t.Tuple[Directory, ...]
    servers: t.Tuple[str, ...] = ()
    again: t.Tuple[str, ...] = ()
    metrics_file: str = "/var/lib/civitas/metrics/data.prom"
    swap_size: int = 0

    @property
    def encrypted(self) -> bool:
        return self.encryption != "none"

    @property
    def bound(self) -> t.List[Directory]:
        """Those that do not lie below the path of the volume anyway."""
        return [each for each in self.directories if not each.path.startswith(f"{self.path}/")]

    @property
    def points(self) -> t.List[str]:
        """Where something must be mounted, in the order in which it can be."""
        return [self.path, *(each.path for each in self.bound)]

    @property
    def units(self) -> t.List[str]:
        """Those that do not start without it."""
        return sorted({unit for each in self.directories for unit in each.units})

    @property
    def swap_file(self) -> str:
        return f"{self.path}/{state.SWAP_FILE}"

    @property
    def swap_unit(self) -> str:
        return unit_name(self.swap_file, "swap")

    def place(self, directory: Directory) -> str:
        """Where it lies on the volume."""
        return directory.path if directory.path.startswith(f"{self.path}/") else f"{self.path}{directory.path}"


def config_of(found: t.Mapping[str, t.Any]) -> Config:
    """Raises VolumeError when it is none."""
    try:
        directories = tuple(
            Directory(
                str(each["path"]),
                str(each.get("owner") or ""),
                str(each.get("group") or ""),
                str(each.get("mode") or ""),
                tuple(str(unit) for unit in each.get("units") or ()),
            )
            for each in found["directories"]
        )
        plain = {key: str(found[key]) for key in ("device", "encryption", "source", "uuid", "luks", "path")}
        more = {"metrics_file": str(found["metrics_file"])} if found.get("metrics_file") else {}
        swap_size = state.size_of(found.get("swap_size", 0))
        if swap_size is None:
            raise VolumeError(f"swap_size is {found['swap_size']!r}; write one such as 2G")
        servers, again = (tuple(str(each) for each in found.get(key) or ()) for key in ("servers", "again"))
        return Config(directories=directories, servers=servers, again=again, swap_size=swap_size, **plain, **more)
    except (KeyError, TypeError, AttributeError) as error:
        raise VolumeError(f"{type(error).__name__}: {error}") from error


def read_config(path: str = state.CONFIG) -> Config:
    """Raises VolumeError when there is none, or one that cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return config_of(json.load(file))
    except FileNotFoundError as error:
        raise VolumeError("this host has no data volume; the site playbook makes it") from error
    except (OSError, ValueError, VolumeError) as error:
        raise VolumeError(f"{path}: {error}; run the site playbook, it writes this file") from error


def unit_name(path: str, kind: str = "mount") -> str:
    """The unit of a path, as C(systemd-escape --path) names it."""
    trimmed = "/".join(part for part in path.split("/") if part)
    escaped = "".join(
        "-" if letter == "/" else letter if letter in _PLAIN and not (place == 0 and letter == ".") else f"\\x{ord(letter):02x}"
        for place, letter in enumerate(trimmed)
    )
    return f"{escaped or '-'}.{kind}"


def files(config: Config) -> t.List[t.Dict[str, t.Any]]:
    """The units as items for O(extra) of config_tree: what is mounted, and what does not start without it."""
    units = "etc/systemd/system"
    swap = [config.swap_unit] if config.swap_size else []
    found: t.List[t.Dict[str, t.Any]] = [
        {
            "dest": f"{units}/{unit_name(config.path)}",
            "src": "units/volume.mount.j2",
            "vars": {
                "__data_volume_fsck": f"systemd-fsck@{unit_name(config.source, 'service')}",
                "__data_volume_wants": " ".join([*(unit_name(each.path) for each in config.bound), *swap]),
            },
        },
        {
            "dest": f"{units}/{config.swap_unit}",
            "src": "units/volume.swap.j2",
            "enabled": bool(swap),
            "vars": {"__data_volume_swap_file": config.swap_file},
        },
    ]
    for each in config.bound:
        words = {"__data_volume_what": config.place(each), "__data_volume_where": each.path}
        found.append({"dest": f"{units}/{unit_name(each.path)}", "src": "units/directory.mount.j2", "vars": words})
    waiting: t.Dict[str, t.List[str]] = {unit: [] for unit in config.units}
    for each in config.directories:
        for unit in each.units:
            waiting[unit].append(each.path)
    for unit, paths in waiting.items():
        dest = f"{units}/{unit}.d/50-civitas-data.conf"
        words = {"__data_volume_paths": " ".join([config.path, *paths]), "__data_volume_after": " ".join(swap)}
        found.append({"dest": dest, "src": "units/waits.conf.j2", "vars": words})
    return found


# --- what lies beneath


def contents(path: str, limit: int = 3) -> t.List[str]:
    """Up to C(limit) paths in a directory that are no directories; an empty tree has none. Raises OSError."""
    found: t.List[str] = []
    for root, folders, names in os.walk(path, onerror=_raise):
        found += [os.path.join(root, name) for name in [*names, *folders] if not _is_directory(os.path.join(root, name))]
        if len(found) >= limit:
            return found[:limit]
    return found


def _raise(error: OSError) -> None:
    raise error


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def is_protected(path: str, runner: Run = state.run) -> bool:
    """Whether nobody can write into an empty mount point, root included."""
    done = runner(["lsattr", "-d", path], b"")
    return done.status == 0 and "i" in done.out.split(" ", 1)[0] and stat.S_IMODE(os.stat(path).st_mode) == 0


def seal(path: str, runner: Run = state.run) -> None:
    """Make a directory an empty mount point that takes nothing. Raises VolumeError, OSError."""
    os.makedirs(path, exist_ok=True)
    if is_protected(path, runner):
        return
    for root, folders, _names in os.walk(path, topdown=False):
        for folder in folders:
            os.rmdir(os.path.join(root, folder))
    os.chmod(path, 0)
    must(runner, ["chattr", "+i", path])


# --- mounting


class Outcome(t.NamedTuple):
    """What was done, or would be: for people, in order; and the units that were started."""

    steps: t.List[str]
    started: t.List[str]


def refusals(config: Config, mounts: t.Mapping[str, t.Any]) -> t.List[str]:
    """Directories that hold data beneath where they shall be mounted. Raises OSError."""
    found = []
    for point in config.points:
        if point in mounts or not os.path.isdir(point):
            if os.path.lexists(point) and not os.path.isdir(point):
                found.append(f"{point} is no directory")
            continue
        inside = contents(point)
        if inside:
            found.append(f"{point} holds data, such as {inside[0]}, which the volume would hide; move it as {_RUNBOOK} says")
    return found


def up(config: Config, check: bool = False, start: bool = True, runner: Run = state.run) -> Outcome:
    """Mount what is not mounted, make the directories on it, start what waits for it. Raises VolumeError, OSError.

    C(start): whether enabled units that wait are started.
    """
    mounts = state.read_mounts()
    problems = refusals(config, mounts)
    if problems:
        raise VolumeError("; ".join(problems))
    steps: t.List[str] = []
    if not check and _outdated(config, runner):
        must(runner, ["systemctl", "daemon-reload"])
    missing = [point for point in config.points if point not in mounts]
    if check:
        steps = [f"mount {point}" for point in missing]
        steps += [f"make {config.place(each)}" for each in config.directories if config.path in mounts and not _is_there(config, each)]
        return Outcome(steps, [])
    attributes = {each.path: _attributes(each) for each in config.directories}
    # All of them first: what is mounted takes others along.
    for point in missing:
        seal(point, runner)
    steps += _mount(config.path, missing, runner)
    _must_be_the_volume(config)
    for each in config.directories:
        if not _is_there(config, each):
            steps.append(f"make {config.place(each)}")
            _make(config.place(each), attributes[each.path])
    for each in config.bound:
        steps += _mount(each.path, missing, runner)
    started = waiting(config, runner) if start else []
    for unit in started:
        steps.append(f"start {unit}")
        must(runner, ["systemctl", "start", unit])
    return Outcome(steps, started)


def _outdated(config: Config, runner: Run) -> bool:
    units = [*(unit_name(point) for point in config.points), *([config.swap_unit] if config.swap_size else [])]
    told = runner(["systemctl", "show", "--property=NeedDaemonReload,LoadState", "--", *units], b"").out
    return "NeedDaemonReload=yes" in told or "LoadState=not-found" in told


def _is_there(config: Config, directory: Directory) -> bool:
    return os.path.isdir(config.place(directory))


def _mount(point: str, missing: t.Sequence[str], runner: Run) -> t.List[str]:
    if point not in missing:
        return []
    must(runner, ["systemctl", "start", unit_name(point)])
    if point not in state.read_mounts():
        raise VolumeError(f"{point} is not mounted; see 'systemctl status {unit_name(point)}'")
    return [f"mount {point}"]


def _must_be_the_volume(config: Config) -> None:
    """What is mounted there must be it, and not what somebody else put there."""
    mounts = state.read_mounts()
    device = os.stat(os.path.realpath(config.source)).st_rdev
    if mounts[config.path][0] != f"{os.major(device)}:{os.minor(device)}":
        raise VolumeError(f"{mounts[config.path][1]} is mounted at {config.path}, and not {config.source}; unmount it")


def _attributes(directory: Directory) -> t.Tuple[int, int, int]:
    """Owner, group and mode that a directory gets on the volume. Raises VolumeError for an owner that is not there."""
    try:
        found = os.stat(directory.path)
        uid, gid, mode = found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode) or 0o755
    except FileNotFoundError:
        uid, gid, mode = 0, 0, 0o755
    try:
        uid = pwd.getpwnam(directory.owner).pw_uid if directory.owner else uid
        gid = grp.getgrnam(directory.group).gr_gid if directory.group else gid
    except KeyError as error:
        raise VolumeError(f"{directory.path}: {error.args[0]}; install the package that makes it first") from error
    return uid, gid, int(directory.mode, 8) if directory.mode else mode


def _make(path: str, attributes: t.Tuple[int, int, int]) -> None:
    os.makedirs(path, exist_ok=True)
    os.chown(path, attributes[0], attributes[1])
    os.chmod(path, attributes[2])


def waiting(config: Config, runner: Run = state.run) -> t.List[str]:
    """Units that need the volume, start at boot, and do not run, in the order in which they are to be started.

    Those of templates are started by what pulls them in.
    """
    units = [*config.again, *(unit for unit in config.units if "@." not in unit)]
    if not units:
        return []
    told = runner(["systemctl", "show", "--property=Id,ActiveState,UnitFileState,Type,RemainAfterExit", "--", *units], b"").out
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in told.strip().split("\n\n")]
    found = []
    for unit, block in zip(units, blocks):
        if block.get("UnitFileState") != "enabled":
            continue
        if unit in config.again:
            found += [unit] if block.get("ActiveState") == "failed" else []
            continue
        ends = block.get("Type") == "oneshot" and block.get("RemainAfterExit") != "yes"
        if block.get("ActiveState") in ("inactive", "failed"):
            found += [] if ends else [unit]
        elif f"{unit.rpartition('.')[0]}@.service" in config.units:
            found += _instances(unit, runner)
    return found


def _instances(unit: str, runner: Run) -> t.List[str]:
    """Instances that a unit pulls in and that do not run."""
    wanted = runner(["systemctl", "show", "--property=Wants", "--value", "--", unit], b"").out.split()
    names = [name for name in wanted if name.startswith(unit.rpartition(".")[0] + "@")]
    if not names:
        return []
    told = runner(["systemctl", "show", "--property=ActiveState", "--value", "--", *names], b"").out.split()
    return [name for name, active in zip(names, told) if active in ("inactive", "failed")]
