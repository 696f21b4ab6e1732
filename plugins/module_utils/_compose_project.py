# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The containers of a Compose project as they run on this host.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import json
import os
import re
import typing as t

Container = t.Mapping[str, t.Any]
# Runs a command (a list), returns (rc, stdout, stderr).
Run = t.Callable[[t.List[str]], t.Tuple[int, str, str]]

_LABEL = "com.docker.compose."


class ComposeError(Exception):
    """What failed and what the engine said."""


def mask(text: str, secrets: t.Iterable[str]) -> str:
    """C(text) with every secret in it replaced; the longest first, so that no part of one stays."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, "********")
    return text


def secret_values(directory: str) -> t.List[str]:
    """What must never be shown: the files of a directory of secrets, their lines, and the values and passwords in these lines.

    Pieces of less than 8 characters are left out: they are words like C(true), and masking them would make a message unreadable.
    """
    values: t.Set[str] = set()
    try:
        paths = [entry.path for entry in os.scandir(directory) if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as stream:
            content = stream.read(1 << 20).strip()
        lines = [line.strip() for line in content.splitlines()]
        if len(lines) <= 1:
            values.add(content)
            continue
        for line in lines:
            values.update(re.findall(r"://[^/@:\s]*:([^/@\s]+)@", line))
            found = re.match(
                r"[\w.\"'-]*(?:password|secret|token|key|passphrase)[\w.\"']*\s*[=:]\s*[\"']?(.+?)[\"']?$", line, re.IGNORECASE
            )
            if found:
                values.add(found[1])
    return [value for value in values if len(value) >= 8]


def containers(run: Run, docker: str, project: str) -> t.List[t.Dict[str, t.Any]]:
    """What C(docker inspect) says about all containers of the project, those of one-off commands not included."""
    rc, out, err = run([docker, "ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={_LABEL}project={project}"])
    if rc != 0:
        raise ComposeError(f"docker ps failed: {err.strip()}")
    if not out.split():
        return []
    # A container that ends in between is not inspected, the others are.
    _rc, out, _err = run([docker, "inspect", "--type", "container", *out.split()])
    found: t.List[t.Dict[str, t.Any]] = json.loads(out or "[]")
    return [container for container in found if container["Config"]["Labels"].get(f"{_LABEL}oneoff") != "True"]


def service_of(container: Container) -> str:
    return str(container["Config"]["Labels"].get(f"{_LABEL}service", ""))


def outdated_files(container: Container, root: str = "/proc/{pid}/root") -> t.List[str]:
    """The mounted files of which a running container still sees the version before the last replacement.

    A file that was replaced by a rename is another inode; the mount keeps the old one until the container is made or started again.
    Comparing what container and host see needs neither clocks nor hashes of secrets.
    """
    pid = container["State"].get("Pid") or 0
    if not pid or not container["State"].get("Running"):
        return []
    stale = []
    for mount in container.get("Mounts") or []:
        if mount.get("Type") != "bind":
            continue
        try:
            here = os.stat(mount["Source"])
            if not os.path.isfile(mount["Source"]):
                continue
            there = os.stat(root.format(pid=pid) + mount["Destination"])
        except OSError:
            continue
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            stale.append(mount["Source"])
    return stale


def describe(container: Container) -> t.Dict[str, t.Any]:
    state = container["State"]
    return {
        "container": container["Name"].lstrip("/"),
        "state": state.get("Status", ""),
        "health": (state.get("Health") or {}).get("Status", ""),
        "exit_code": state.get("ExitCode", 0),
        "outdated_files": outdated_files(container),
    }


def well(service: t.Mapping[str, t.Any]) -> bool:
    return service["state"] == "running" and service["health"] in ("", "healthy")


def explain(container: Container, description: t.Mapping[str, t.Any], run: Run, docker: str, lines: int) -> str:
    """Why a service is not well: its state, what its health check said last, and the end of its log."""
    text = f"service {service_of(container)} is {description['state']}"
    if description["state"] == "exited":
        text += f" (exit code {description['exit_code']})"
    elif description["health"]:
        text += f" and {description['health']}"
    checks = (container["State"].get("Health") or {}).get("Log") or []
    if checks and checks[-1].get("ExitCode"):
        text += f"\n  its health check said: {checks[-1].get('Output', '').strip()[-500:]}"
    _rc, out, err = run([docker, "logs", "--tail", str(lines), container["Id"]])
    log = (out + err).strip()
    return text + (
        "\n  the end of its log:\n" + "\n".join(f"    {line}" for line in log.splitlines()[-lines:]) if log else "\n  its log is empty"
    )
