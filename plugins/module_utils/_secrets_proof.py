# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether old values of secrets are still of use on a host.

Private to the collection: no promise of stability. Standard library only. No message of this module holds a secret.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import subprocess
import typing as t
import urllib.error
import urllib.request

# Larger files are data, not settings.
_LARGEST = 4 << 20


def find(values: t.Mapping[str, str], directories: t.Sequence[str], proc: str = "/proc") -> t.List[t.Tuple[str, str]]:
    """Say where old values are still found: in files below C(directories), and in the environment and arguments of any process.

    Args:
        values: name of a secret to its old value.

    Returns:
        Name of a secret and a sentence, for each place.
    """
    wanted = {name: value.encode() for name, value in values.items()}
    found = []
    for path in _files(directories):
        found += [(name, f"{path} holds the old value of {name}") for name in _within(path, wanted)]
    for pid in sorted(filter(str.isdigit, os.listdir(proc)), key=int):
        if int(pid) == os.getpid():
            continue
        names = {name for kind in ("environ", "cmdline") for name in _within(f"{proc}/{pid}/{kind}", wanted)}
        found += [(name, f"process {pid} ({_program(proc, pid)}) was started with the old value of {name}") for name in sorted(names)]
    return found


def _files(directories: t.Sequence[str]) -> t.Iterator[str]:
    for directory in directories:
        for top, below, names in os.walk(directory):
            below.sort()
            for name in sorted(names):
                path = os.path.join(top, name)
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST:
                        yield path


def _within(path: str, wanted: t.Mapping[str, bytes]) -> t.List[str]:
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError:
        return []
    return [name for name, value in wanted.items() if value in data]


def _program(proc: str, pid: str) -> str:
    try:
        with open(f"{proc}/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "ended"


def login(host: str, port: int, database: str, user: str, password: str) -> t.Tuple[t.Optional[bool], str]:
    """Try to log in to PostgreSQL. Returns whether the password is accepted, V(None) when nobody could tell, and what was said."""
    environment = {**os.environ, "PGPASSWORD": password, "PGCONNECT_TIMEOUT": "10", "LC_ALL": "C"}
    command = ["psql", "--no-psqlrc", "--no-password", "-qtA", "-h", host, "-p", str(port), "-U", user, "-d", database, "-c", "SELECT 1"]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, type(error).__name__
    said = " ".join(done.stderr.split())[:300]
    if done.returncode == 0:
        return True, ""
    return (False, said) if "authentication failed" in said else (None, said)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An answer that leads elsewhere is an answer; a password goes to no other place."""

    def redirect_request(self, *_arguments: t.Any) -> None:
        return None


def ask(url: str, user: str, password: str) -> t.Tuple[t.Optional[bool], str]:
    """Ask an application by HTTP with user and password (Basic). Returns as C(login) does."""
    token = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    # No proxy of the environment stands between a host and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    try:
        with opener.open(request, timeout=30):
            return True, ""
    except urllib.error.HTTPError as error:
        return (False if error.code in (401, 403) else None), f"it answered {error.code}"
    except (OSError, ValueError) as error:
        return None, type(error).__name__


def prove_login(name: str, target: t.Mapping[str, t.Any], old: str, new: str) -> t.List[str]:
    """Say what speaks against the new password being the only one; nothing when it is."""

    def attempt(password: str) -> t.Tuple[t.Optional[bool], str]:
        if target.get("url"):
            return ask(target["url"], target["user"], password)
        return login(target["host"], target["port"], target["database"], target["user"], password)

    place = f"at {target['url']}" if target.get("url") else f"on {target['database']} at {target['host']}:{target['port']}"
    where = f"{target['user']} {place}"
    problems = []
    # First the new one: a server that refuses everybody proves nothing.
    accepted, said = attempt(new)
    if not accepted:
        problems.append(f"{name}: the new password does not work for {where}: {said}")
    accepted, said = attempt(old)
    if accepted:
        problems.append(f"{name}: the OLD password still works for {where}")
    elif accepted is None:
        problems.append(f"{name}: nobody could tell whether the old password still works for {where}: {said}")
    return problems
