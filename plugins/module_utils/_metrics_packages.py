# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured of a host's software: whether it waits for a reboot or for security updates, and how long it is supported.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import datetime
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, sample

TITLES = {
    "civitas_reboot_required_time_seconds": "Since when a reboot is due; absent when none is.",
    "civitas_updates_security_pending": "Packages that wait for a security update.",
    "civitas_updates_security_time_seconds": "Since when the one waits that has waited longest; absent when none does.",
    "civitas_package_lists_time_seconds": "When the host last fetched all lists of packages.",
    "civitas_support_ends_time_seconds": "Until when a component gets security updates.",
}
# Such as: Inst libc6 [2.36-9] (2.36-9+deb12u4 Debian:12.5/stable, Debian-Security:12/stable-security [amd64])
_INSTALLED = re.compile(r"Inst (\S+) (?:\[[^\]]*\] )?\((\S+) (.*)")
# Numbers come first in the name of a kernel, then its kind, such as 6.1.0-28-amd64 or 6.8.0-49-generic.
_NUMBERS = re.compile(r"[0-9]+(?:[.+~-][0-9]+)*")


def security_updates(simulated: str) -> t.List[str]:
    """The packages that C(apt-get --simulate dist-upgrade) would bring from a security archive."""
    found = set()
    for line in simulated.splitlines():
        match = _INSTALLED.match(line)
        archives = match[3].partition(" [")[0].split(", ") if match else []
        if match and any(one.startswith("Debian-Security:") or one.endswith("-security") for one in archives):
            found.add(match[1])
    return sorted(found)


def updates(packages: t.Iterable[str], state: t.Dict[str, t.Any], now: float, lists: t.Optional[float]) -> t.Iterator[Sample]:
    """C(state) keeps since when each package waits. An update that is overtaken by the next one has waited nevertheless.

    Args:
        lists: when all lists of packages were last fetched; V(None) when that is not known.
    """
    waiting = {name: min(now, state.get(name, now)) for name in packages}
    state.clear()
    state.update(waiting)
    yield sample("civitas_updates_security_pending", len(waiting))
    if waiting:
        yield sample("civitas_updates_security_time_seconds", min(waiting.values()))
    if lists is not None:
        yield sample("civitas_package_lists_time_seconds", lists)


def newer_kernel(running: str, installed: t.Iterable[str]) -> bool:
    """Whether a kernel is installed that the next boot would take. V(False) in a container, which has none of its own."""
    versions = [_version(name) for name in installed]
    return _version(running) in versions and max(versions) > _version(running)


def _version(name: str) -> t.Tuple[int, ...]:
    match = _NUMBERS.match(name)
    return tuple(int(number) for number in re.findall(r"[0-9]+", match[0])) if match else ()


def reboot(required: bool, boot: str, state: t.Dict[str, t.Any], now: float) -> t.Iterator[Sample]:
    """C(state) keeps since when it is due; later reasons do not make it younger. C(boot) names the boot that is running."""
    since = min(now, state["since"]) if state.get("boot") == boot and "since" in state else now
    state.clear()
    if required:
        state.update(boot=boot, since=since)
        yield sample("civitas_reboot_required_time_seconds", since)


def support(components: t.Mapping[str, str]) -> t.Iterator[Sample]:
    """C(components) has the last day (YYYY-MM-DD) of each; the day itself counts. Raises ValueError."""
    for name, day in sorted(components.items()):
        end = datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=datetime.timezone.utc) + datetime.timedelta(days=1)
        yield sample("civitas_support_ends_time_seconds", end.timestamp(), component=name)
