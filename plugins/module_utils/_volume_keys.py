# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an encrypted volume is protected: not when what opens it lies on the same host in the clear.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import stat
import typing as t
from urllib.parse import urlsplit

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json
from ansible_collections.civitas.hosting.plugins.module_utils._volume_mounts import Config
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Binding, Device, Luks, Run

CACHE = "/var/lib/civitas/data-keys.json"
# Where people leave keys. To try one takes seconds, so only what looks like one is tried, and once as long as nothing changes.
PLACES = ("/root", "/home", "/etc", "/boot", "/opt", "/srv", "/usr/local", "/var/backups", "/var/lib/civitas", "/media", "/mnt")
AT_ONCE = 12
_LARGEST = 8192
_NAMES = (re.compile(r"luks|crypt|disk|volume", re.I), re.compile(r"key|pass|secret", re.I))
_OTHER_KEYS = re.compile(r"-----BEGIN|age-encryption|AGE-SECRET-KEY|\$ANSIBLE_VAULT|ssh-")
_PROGRAMS = (".py", ".pyc", ".so")
_IN_MEMORY = ("tmpfs", "ramfs", "proc", "sysfs", "devtmpfs")


class Verdict(t.NamedTuple):
    """Whether the volume is protected, and why, a line each."""

    protected: bool
    lines: t.List[str]


def candidates(places: t.Sequence[str], named: t.Sequence[str], skip: t.Sequence[str] = ()) -> t.List[str]:
    """Files that look like keys, the likeliest first: those that the configuration names, then by their names."""
    found: t.Dict[str, int] = {path: 0 for path in named if os.path.isfile(path)}
    for place in places:
        for root, folders, names in os.walk(place):
            folders[:] = [folder for folder in folders if os.path.join(root, folder) not in skip]
            for name in names:
                rank = next((rank for rank, pattern in enumerate(_NAMES, 1) if pattern.search(name)), 0)
                path = os.path.join(root, name)
                if rank and path not in found and _like_a_key(path):
                    found[path] = rank
    return sorted(found, key=lambda path: (found[path], path))


def _like_a_key(path: str) -> bool:
    """Whether a file may be a key as a whole: a line of text, or no text at all."""
    try:
        about = os.lstat(path)
        if not stat.S_ISREG(about.st_mode) or not 8 <= about.st_size <= _LARGEST or path.endswith(_PROGRAMS):
            return False
        with open(path, "rb") as file:
            content = file.read(_LARGEST)
    except OSError:
        return False
    try:
        text = content.decode("ascii")
    except UnicodeDecodeError:
        return True
    return len(text.strip().splitlines()) == 1 and not _OTHER_KEYS.search(text)


def named_files(crypttab: str, cmdline: str) -> t.List[str]:
    """Key files of crypttab(5) and of the kernel's command line."""
    found = []
    for line in crypttab.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) > 2 and words[2].startswith("/"):
            found.append(words[2])
    for word in cmdline.split():
        key, _separator, value = word.partition("=")
        if key in ("rd.luks.key", "luks.key"):
            found.append(value.split(":", 1)[0].rpartition("=")[2])
    return found


def opens(node: str, path: str, runner: Run = state.run) -> bool:
    """Whether what a file holds opens a volume, with or without its last line break."""
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError:
        return False
    words = ["cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", "-", node]
    return any(runner(words, key).status == 0 for key in dict.fromkeys((content.rstrip(b"\r\n"), content)) if key)


class Tried:
    """What was tried already, by what it was; another header makes all of it unknown again."""

    def __init__(self, header: bytes, path: str = CACHE) -> None:
        self._header, self._path = hashlib.sha256(header).hexdigest(), path
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
            self._known: t.Dict[str, bool] = dict(found["tried"]) if found["header"] == self._header else {}
        except (OSError, ValueError, KeyError, TypeError):
            self._known = {}
        self._seen: t.Dict[str, bool] = {}

    def judge(self, path: str, test: t.Callable[[str], bool], may_test: bool) -> t.Optional[bool]:
        """Whether a file opens the volume; nothing when that is not known and may not be tried."""
        about = os.stat(path)
        key = f"{path} {about.st_dev} {about.st_ino} {about.st_size} {about.st_mtime_ns}"
        if key not in self._known:
            if not may_test:
                return None
            self._known[key] = test(path)
        self._seen[key] = self._known[key]
        return self._known[key]

    def knows(self, path: str) -> bool:
        return self.judge(path, lambda _path: False, False) is not None

    def keep(self) -> None:
        write_json(self._path, {"header": self._header, "tried": self._seen}, 0o600)


def is_here(server: str) -> bool:
    """Whether the address of a server is one of this host: then it holds the key itself."""
    try:
        found = socket.getaddrinfo(urlsplit(server).hostname, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return False
    for family, kind, protocol, _name, address in found:
        with socket.socket(family, kind, protocol) as end:
            try:
                end.bind((address[0], 0))
                return True
            except OSError:
                continue
    return False


def beside(binding: Binding, here: t.Callable[[str], bool] = is_here) -> str:
    """Why what opens a volume lies beside it, as far as servers do; empty when it does not."""
    local = [server for server in binding.servers if here(server)] if binding.pin == "tang" else []
    return f"the tang server {', '.join(local)} is this host, so the key lies beside the data" if len(local) >= binding.threshold else ""


def judge(config: Config, luks: Luks, keys: t.Mapping[str, str], untried: int, here: t.Callable[[str], bool] = is_here) -> Verdict:
    """Weigh what was found.

    Args:
        config: what the host knows.
        luks: the header.
        keys: files that open the volume -> the disk that they lie on in the clear; empty for one in memory or on an encrypted disk.
        untried: how many files that look like keys were not tried yet.
        here: whether a server is this host.
    """
    bad = [f"not protected: {path} opens the volume, and lies unencrypted on {disk}" for path, disk in sorted(keys.items()) if disk]
    good = [f"{path} opens the volume, and lies in memory or on an encrypted disk" for path, disk in sorted(keys.items()) if not disk]
    for binding in luks.bindings:
        local = beside(binding, here)
        if local:
            bad.append(f"not protected: {local}")
        elif binding.pin == "tang":
            good.append(
                f"opens by itself where {binding.threshold} of {', '.join(binding.servers)} answers; guard those as you guard the key"
            )
        elif binding.pin == "tpm2":
            good.append("opens by itself in this machine (TPM2): a disk that is taken out is protected, the whole machine is not")
        else:
            bad.append(f"not known to be protected: key slot {binding.slot or '?'} belongs to a token that this collection did not make")
    extra = len(luks.slots) - 1 - len(luks.bindings)
    if extra > 0:
        bad.append(
            f"not known to be protected: {extra} key slots more than the passphrase and what opens it by itself; see cryptsetup luksDump"
        )
    if untried:
        bad.append(f"not known yet: {untried} files that look like keys were not tried; run this again")
    if not bad:
        good.insert(0, "opens with the passphrase that people keep" if config.encryption == "operator" else "the passphrase lies elsewhere")
    return Verdict(not bad, bad or good)


def chain(node: str, runner: Run = state.run) -> t.List[t.Tuple[str, str]]:
    """A device and what lies under it, as (node, kind)."""
    found = state.parse_lsblk(state.must(runner, ["lsblk", "--inverse", "--json", "--paths", "--output", "NAME,TYPE", node]))
    layers = []
    while found:
        layers.append((str(found["name"]), str(found["type"])))
        found = (found.get("children") or [{}])[0]
    return layers


def disk_of(path: str, runner: Run = state.run) -> str:
    """The disk on which a file lies in the clear; empty for memory, and for a disk that is encrypted."""
    mounts = state.read_mounts()
    point = os.path.realpath(path)
    while point not in mounts:
        point = os.path.dirname(point)
    source = mounts[point][1]
    if source in _IN_MEMORY or not source.startswith("/dev/"):
        return "" if source in _IN_MEMORY else source
    layers = chain(source, runner)
    return "" if any(kind == "crypt" for _node, kind in layers) else layers[-1][0]


def verdict(config: Config, device: Device, runner: Run = state.run, cache: str = CACHE) -> Verdict:
    """Look at the host. Raises VolumeError, OSError."""
    luks = state.read_luks(device, runner)
    tried = Tried(state.read_header(device.node, luks), cache)
    named = named_files(_text("/etc/crypttab"), _text("/proc/cmdline"))
    files = candidates(PLACES, named, skip=config.points)
    new = [path for path in files if not tried.knows(path)]
    may = set(new[:AT_ONCE])
    matching = [path for path in files if tried.judge(path, lambda one: opens(device.node, one, runner), path in may)]
    tried.keep()
    return judge(config, luks, {path: disk_of(path, runner) for path in matching}, len(new) - len(may))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
