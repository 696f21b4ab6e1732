# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be known about a host before its way in is changed.

Private to the collection: no promise of stability. Standard library only. Changes nothing.
"""

from __future__ import annotations

import fnmatch
import re
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _access_program as program

# systemd's generator makes the socket's ports from the files of sshd, when it reads its own configuration again.
PATHS = (program.OURS, program.EXCEPTIONS)
# chrony asks a new server five times within ten seconds; a slow line or a busy host takes longer.
SYNC_SECONDS = 60
# Seconds from a look at the clock of the controller to one at that of the host.
DELAY = 20


class Wanted(t.NamedTuple):
    """What the role is about to do.

    Args:
        login: the account that Ansible logs in with over SSH; empty for another kind of connection.
        open_to: accounts that need no code afterwards.
        second_factor: whether codes are asked for.
        clock_tolerance: seconds by which the clock may be off.
        controller_time: the controller's clock, seconds since the epoch.
    """

    login: str
    open_to: t.Sequence[str]
    second_factor: bool
    clock_tolerance: float
    controller_time: float


def login_problems(wanted: Wanted) -> t.List[str]:
    """Whether Ansible itself would be shut out."""
    if not wanted.login or wanted.login in wanted.open_to:
        return []
    doors = ", ".join(wanted.open_to)
    if not doors:
        remedy = "give access_automation (in a site's inventory: civitas_automation) a name, ssh_keys and from"
    else:
        remedy = (
            "run this once with --tags access_people, which makes the account, lets sshd read its key and changes nothing else, then write "
            f"ansible_user: {wanted.open_to[0]} for this host and run all of it"
        )
    return [
        f"Ansible logs in as {wanted.login}, who would not get in afterwards without a code or at all; "
        f"open without one to: {doors or 'nobody'}. To go on, {remedy}"
    ]


def include_problems(text: str) -> t.List[str]:
    """Whether sshd reads our files, and reads them first."""
    line = f"Include {program.OURS.rsplit('/', 1)[0]}/*.conf"
    for number, written in enumerate(text.splitlines(), 1):
        words = written.split("#", 1)[0].replace("=", " ", 1).split()
        if not words:
            continue
        if words[0].lower() == "include" and any(
            fnmatch.fnmatch(program.OURS, pattern if pattern.startswith("/") else f"/etc/ssh/{pattern}") for pattern in words[1:]
        ):
            return []
        return [
            f"{program.MAIN}, line {number}: '{written.strip()}' comes before the directory of other files, and the first value counts; "
            f"write as the first line: {line}"
        ]
    return [f"{program.MAIN} does not read the directory of other files; write as its first line: {line}"]


def clock_problems(wanted: Wanted, now: float, ask: program.Run) -> t.List[str]:
    """Whether codes would be right. The two clocks are compared as well: chrony may follow a wrong server, and a container its host."""
    if not wanted.second_factor:
        return []
    problems = []
    offset = now - wanted.controller_time
    # The controller read its own clock before a slow connection and a busy host took their time.
    if not -wanted.clock_tolerance <= offset <= wanted.clock_tolerance + DELAY:
        side = "ahead of" if offset > 0 else "behind"
        problems.append(f"the clock is {abs(offset):.0f} s {side} the controller's; find out which one is wrong and set it")
    problem, _evidence = program.clock_state(wanted.clock_tolerance, ask)
    if problem:
        problems.append(problem)
    return [f"{each}. Codes are right only when the clock is, so none are asked for before that" for each in problems]


def wait_for_clock(tolerance: float, ask: program.Run, seconds: int = SYNC_SECONDS, pause: t.Callable[[float], None] = time.sleep) -> None:
    """chrony that was just started needs some seconds to know the time, and more to know it well. A container has its host's clock."""
    if ask(["systemd-detect-virt", "--container"])[0] == 0:
        return
    for _second in range(seconds):
        rc, out = ask(["chronyc", "-n", "-c", "tracking"])
        if rc != 0 or not program.judge_tracking(out, tolerance)[0]:
            return
        pause(1)


def ssh_units(ask: program.Run) -> t.List[t.Dict[str, t.Any]]:
    """The units that must run with what is on disk; with socket activation the port is the socket's, and the service is started by it."""
    units = [{"name": "ssh.service", "enabled": True, "state": "started", "restart_when_newer": list(PATHS)}]
    rc, out = ask(["systemctl", "is-active", "ssh.socket"])
    if rc == 0 and out == "active":
        units[0].pop("enabled")
        units.insert(0, {"name": "ssh.socket", "enabled": True, "state": "started", "restart_when_newer": [program.OURS]})
    return units


def leaves_port(connection: int, wanted: int, ask: program.Run) -> bool:
    """Whether Ansible reaches sshd by the port that it listens on now and will not afterwards. Else something in between translates it."""
    rc, out = ask(["/usr/sbin/sshd", "-T"])
    present = program.values(program.parse_settings(out), "port") if rc == 0 else []
    return str(connection) in present and str(wanted) not in present


def port_problems(wanted: int, ask: program.Run) -> t.List[str]:
    """Whether the firewall in force lets in the port that SSH is to move to."""
    rc, out = ask(["nft", "--numeric", "list", "chain", "inet", "civitas", "input"])
    if rc != 0:
        return []
    for ports in re.findall(r"\btcp dport (\{[^}]*\}|\S+) .*\baccept\b", out):
        for words in re.findall(r"(\d+)(?:-(\d+))?", ports):
            if int(words[0]) <= wanted <= int(words[1] or words[0]):
                return []
    return [
        f"SSH is to move to port {wanted}, which the firewall in force does not let in: nobody could log in any more. To go on, run this "
        "once with --tags firewall_rules, which opens both ports to administrators, then all of it, which closes the old one"
    ]


def restarts(units: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[t.List[str]]:
    """Commands that bring an old state of the files into force."""
    names = [str(unit["name"]) for unit in units]
    reload = [["systemctl", "daemon-reload"]] if "ssh.socket" in names else []
    return [*reload, *(["systemctl", "restart", name] for name in names)]


def is_enabled(service: str = "/etc/pam.d/sshd") -> bool:
    """Whether codes are asked for already."""
    try:
        with open(service, encoding="utf-8") as file:
            return re.search(r"^auth\s.*pam_google_authenticator\.so", file.read(), re.MULTILINE) is not None
    except OSError:
        return False


def judge(wanted: Wanted, ask: program.Run = program.run, main: str = program.MAIN) -> t.Tuple[t.List[str], t.List[str]]:
    """All problems, and what is only worth a warning."""
    problems, warnings = login_problems(wanted), []
    try:
        with open(main, encoding="utf-8", errors="replace") as file:
            problems += include_problems(file.read())
    except FileNotFoundError:
        pass  # comes with the package
    if wanted.second_factor:
        # Before the wait, which the controller's clock knows nothing of.
        now = time.time()
        if not is_enabled():
            wait_for_clock(wanted.clock_tolerance, ask)
            problems += clock_problems(wanted, now, ask)
        else:
            # Refusing would keep a host from being repaired.
            warnings += clock_problems(wanted, now, ask)
    return problems, warnings
