# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of what the engine knows; the engine here is a server that answers as Docker does."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_containers as engine
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render

NOW = 1_800_000_000.0


def details(
    service="web", project="shop", status="running", health=None, restarts=0, policy="unless-stopped", exit_code=0, job="False", log=None
):
    """The part of docker inspect that counts, as Docker 20.10 and 28 give it."""
    labels = {"com.docker.compose.project": project, "com.docker.compose.service": service, "com.docker.compose.oneoff": job}
    return {
        "Id": f"id-{service}",
        "Name": f"/{project}-{service}-1",
        "RestartCount": restarts,
        "State": {"Status": status, "ExitCode": exit_code, **({"Health": {"Status": health, "Log": []}} if health else {})},
        "HostConfig": {"RestartPolicy": {"Name": policy, "MaximumRetryCount": 0}, **({"LogConfig": log} if log else {})},
        "Config": {"Labels": labels if project else None},
    }


def values(samples):
    found = list(samples)
    render(found, engine.TITLES)
    return {(one.name[len("civitas_container_") :], *(value for _name, value in one.labels)): one.value for one in found}


def measured(*found, expected=(), state=None, now=NOW):
    parsed = [one for one in map(engine.parse, found) if one is not None]
    return values(engine.containers(parsed, expected, {} if state is None else state, now))


def test_running_and_healthy():
    found = measured(
        details("web", health="healthy"),
        details("db", health="unhealthy"),
        details("cache", health="starting"),
        details("queue", status="exited"),
        details("loop", status="restarting", health="unhealthy"),
    )
    assert {key[2]: value for key, value in found.items() if key[0] == "running"} == {"web": 1, "db": 1, "cache": 1, "queue": 0, "loop": 0}
    assert {key[2]: value for key, value in found.items() if key[0] == "healthy"} == {"web": 1, "db": 0}


def test_all_of_a_service_must_run():
    other = {**details(status="exited"), "Id": "other"}
    assert measured(details(), other)["running", "shop", "web"] == 0


def test_what_must_be_there():
    found = measured(details(), expected=[("shop", "web"), ("shop", "db")])
    assert (found["running", "shop", "web"], found["running", "shop", "db"]) == (1, 0)


def test_jobs_are_no_services():
    assert measured(details(job="True"), details(status="exited", policy="no")) == {}
    assert measured(details(status="exited", policy="no", exit_code=1))["running", "shop", "web"] == 0
    # Stopped by hand: it would come back by itself.
    assert measured(details(status="exited"))["running", "shop", "web"] == 0
    # A job that must be there is one that never ends.
    assert measured(details(status="exited", policy="no"), expected=[("shop", "web")])["running", "shop", "web"] == 0


def test_without_compose():
    assert measured({**details(project=""), "Name": "/registry"})["running", "no project", "registry"] == 1


def test_restarts_of_an_hour():
    state = {}

    def look(count, minutes):
        return measured(details(restarts=count), state=state, now=NOW + 60 * minutes)["restarts", "shop", "web"]

    # What was before nobody looked does not count.
    assert look(50, 0) == 0
    assert [look(51, 1), look(53, 2), look(53, 59)] == [1, 3, 3]
    assert [look(53, 61), look(53, 62)] == [2, 0]
    assert len(state["id-web"]) == 1
    # Started by hand: the engine counts from nothing.
    assert [look(0, 63), look(2, 64)] == [0, 2]


@pytest.mark.parametrize(
    ("kind", "options", "bounded"),
    [
        ("json-file", {}, 0),
        ("json-file", {"max-file": "3"}, 0),
        ("json-file", {"max-size": "-1"}, 0),
        ("json-file", {"max-size": "10m"}, 1),
        ("local", {}, 1),
        ("local", {"max-size": "-1"}, 0),
        ("local", None, 1),
        ("journald", {}, 1),
        ("none", {}, 1),
    ],
)
def test_logs_that_would_fill_the_disk(kind, options, bounded):
    found = measured(details(log={"Type": kind, "Config": options}), expected=[("shop", "db")])
    assert found["log_bounded", "shop", "web"] == bounded
    assert ("log_bounded", "shop", "db") not in found


def test_one_log_without_bounds_is_enough():
    other = {**details(log={"Type": "json-file", "Config": {}}), "Id": "other"}
    assert measured(details(log={"Type": "local", "Config": {}}), other)["log_bounded", "shop", "web"] == 0


def test_what_is_gone_is_forgotten():
    state = {}
    measured(details(restarts=3), state=state)
    measured(state=state)
    assert state == {}


class Server(socketserver.ThreadingUnixStreamServer):
    answers: dict
    daemon_threads = True


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, body = self.server.answers.get(self.path, (404, {"message": "No such container"}))
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format, *args):
        pass

    def address_string(self):
        return ""


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(answers):
        path = str(tmp_path / "s")
        server = Server(path, Handler)
        server.answers = answers
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_engine_is_asked(serve):
    one = details()
    path = serve({"/containers/json?all=1": (200, [{"Id": "a"}, {"Id": "gone"}]), "/containers/a/json": (200, one)})
    assert engine.ask(path) == [one]


@pytest.mark.parametrize("answer", [(500, {"message": "x"}), (200, b"<html>"), (200, {"a": 1}), (200, [{}])])
def test_an_engine_that_answers_otherwise(serve, answer):
    with pytest.raises(engine.EngineError, match="does not answer"):
        engine.ask(serve({"/containers/json?all=1": answer}))


def test_no_engine(tmp_path):
    with pytest.raises(engine.EngineError, match="FileNotFoundError"):
        engine.ask(str(tmp_path / "nothing"))
