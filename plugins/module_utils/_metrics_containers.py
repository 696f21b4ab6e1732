# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured of a host's containers, asked from the engine itself over its socket.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import http.client
import json
import socket
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, sample

TITLES = {
    "civitas_container_running": "1 when all containers of the service run, and the engine answers. Jobs that ended well do not count.",
    "civitas_container_healthy": "0 when one of them is unhealthy; absent without a health check and while it starts.",
    "civitas_container_log_bounded": "0 when the log of one of them can grow without end.",
    "civitas_container_restarts": "How often the engine had to start them again within the last hour.",
}
SOCKET = "/run/docker.sock"
WINDOW = 3600.0
# A label without a value is none.
NO_PROJECT = "no project"
# Their logs lie in files of the engine. Without a size one grows for ever; the other has one by itself.
_FILE_LOGS = {"json-file": "-1", "local": "20m"}
_PROJECT, _SERVICE, _JOB = "com.docker.compose.project", "com.docker.compose.service", "com.docker.compose.oneoff"


class EngineError(Exception):
    """The engine does not answer, or not as expected."""


class Container(t.NamedTuple):
    """One container.

    Attributes:
        key: its id.
        healthy: V(None) when it is not known.
        restarts: how often the engine started it again.
        log_bounded: whether its log has a greatest size, as far as it lies with the engine.
    """

    key: str
    project: str
    service: str
    running: bool
    healthy: t.Optional[bool]
    restarts: int
    log_bounded: bool


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str = SOCKET, timeout: float = 10) -> t.List[t.Dict[str, t.Any]]:
    """What the engine knows of each container (C(docker inspect)). Raises EngineError."""
    connection = _Connection(path, timeout)
    try:
        found = []
        for item in _get(connection, "/containers/json?all=1") or []:
            details = _get(connection, f"/containers/{item['Id']}/json")
            # One that was removed meanwhile is none any more.
            if details is not None:
                found.append(details)
        return found
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the container engine does not answer at {path}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()


def _get(connection: _Connection, path: str) -> t.Any:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise ValueError(f"the answer to {path.partition('?')[0]} is {answer.status}")
    return json.loads(body)


def parse(details: t.Mapping[str, t.Any]) -> t.Optional[Container]:
    """V(None) for one that is a job: run by hand, or ended well and never to be started again. Raises KeyError, TypeError."""
    labels = details["Config"].get("Labels") or {}
    state = details["State"]
    policy = ((details.get("HostConfig") or {}).get("RestartPolicy") or {}).get("Name") or "no"
    if labels.get(_JOB) == "True":
        return None
    if state["Status"] == "exited" and state.get("ExitCode") == 0 and policy in ("no", "on-failure"):
        return None
    health = (state.get("Health") or {}).get("Status")
    return Container(
        key=str(details["Id"]),
        project=labels.get(_PROJECT) or NO_PROJECT,
        service=labels.get(_SERVICE) or str(details["Name"]).lstrip("/"),
        running=state["Status"] == "running",
        healthy={"healthy": True, "unhealthy": False}.get(str(health)),
        restarts=int(details.get("RestartCount") or 0),
        log_bounded=_log_bounded((details.get("HostConfig") or {}).get("LogConfig") or {}),
    )


def _log_bounded(config: t.Mapping[str, t.Any]) -> bool:
    """Whether C(HostConfig.LogConfig) bounds what the engine itself keeps; the journal and others have bounds of their own."""
    size = (config.get("Config") or {}).get("max-size") or _FILE_LOGS.get(str(config.get("Type")), "0")
    return size != "-1"


def containers(
    found: t.Iterable[Container], expected: t.Iterable[t.Tuple[str, str]], state: t.Dict[str, t.Any], now: float
) -> t.Iterator[Sample]:
    """One series a service; C(expected) are those that must be there, as project and service. C(state) keeps counts of an hour."""
    services: t.Dict[t.Tuple[str, str], t.List[Container]] = {key: [] for key in expected}
    for one in found:
        services.setdefault((one.project, one.service), []).append(one)
    counts: t.Dict[str, t.List[t.List[float]]] = {}
    for (project, service), members in sorted(services.items()):
        labels = {"project": project, "service": service}
        yield sample("civitas_container_running", bool(members) and all(one.running for one in members), **labels)
        known = [one.healthy for one in members if one.running and one.healthy is not None]
        if known:
            yield sample("civitas_container_healthy", all(known), **labels)
        if members:
            yield sample("civitas_container_log_bounded", all(one.log_bounded for one in members), **labels)
        restarts = 0.0
        for one in members:
            counts[one.key] = _history(state.get(one.key) or [], one.restarts, now)
            restarts += one.restarts - counts[one.key][0][1]
        yield sample("civitas_container_restarts", restarts, **labels)
    state.clear()
    state.update(counts)


def unseen(expected: t.Iterable[t.Tuple[str, str]]) -> t.Iterator[Sample]:
    """When the engine cannot be asked: what must run and cannot be seen counts as not running, as an engine that hangs serves nobody."""
    for project, service in sorted(set(expected)):
        yield sample("civitas_container_running", 0, project=project, service=service)


def _history(before: t.List[t.List[float]], count: int, now: float) -> t.List[t.List[float]]:
    """Times and counts, one for each change: what was valid an hour ago, and what came since. A count that goes down begins anew."""
    history = [entry for entry in before if entry[0] <= now]
    if not history or count < history[-1][1]:
        return [[now, count]]
    if count > history[-1][1]:
        history.append([now, count])
    while len(history) > 1 and history[1][0] <= now - WINDOW:
        history.pop(0)
    return history
