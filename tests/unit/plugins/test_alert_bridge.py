# SPDX-License-Identifier: GPL-3.0-or-later
"""What Alertmanager sends is understood, by who may send it."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_bridge as bridge
from ansible_collections.civitas.hosting.plugins.module_utils._alert_kept import Kept

TOKEN = "canary-token"


def item(status: str = "firing", name: str = "DiskFull", **labels: str) -> dict[str, Any]:
    """As Alertmanager 0.25 to 0.28 send it."""
    return {
        "status": status,
        "labels": {
            "alertname": name, "host": "server1", "instance": "server1:9998", "job": "civitas", "mountpoint": "/srv",
            "severity": "warning", **labels,
        },
        "annotations": {"text": "/srv is 51% full.", "runbook": "alerts.md#disk", "inhibits": "A B", "inside": "true"},
        "startsAt": "2027-01-15T08:00:00.25Z",
        "endsAt": "0001-01-01T00:00:00Z" if status == "firing" else "2027-01-15T09:00:00Z",
        "generatorURL": "http://monitoring:9090/graph",
        "fingerprint": "8d4a1e2f0b1c2d3e",
    }  # fmt: skip


def payload(*items: Any) -> dict[str, Any]:
    return {
        "version": "4", "groupKey": '{}:{host="server1"}', "truncatedAlerts": 0, "status": "firing", "receiver": "people",
        "groupLabels": {"host": "server1"}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://monitoring:9093",
        "alerts": list(items),
    }  # fmt: skip


def test_an_alarm_is_as_the_host_itself_would_tell_it() -> None:
    ((alert,), over, _unread) = bridge.parse(payload(item()))
    assert alert == (
        "DiskFull",
        "server1",
        "warning",
        (("instance", "server1:9998"), ("job", "civitas"), ("mountpoint", "/srv")),
        "/srv is 51% full.",
        1.8e9 + 0.25,
        "alerts.md#disk",
        ("A", "B"),
        True,
    )
    assert over == [] and bridge.parse(payload(item("resolved"))) == ([], [alert], 0)


def test_rules_of_others_are_heard_as_well() -> None:
    bare = {**item(), "labels": {"alertname": "Theirs", "instance": "a:1", "severity": "page"}, "annotations": {"summary": "It is bad"}}
    ((alert,), _over, _unread) = bridge.parse(payload(bare))
    assert (alert.host, alert.severity, alert.text, alert.labels) == (
        "a:1",
        "critical",
        "It is bad",
        (("instance", "a:1"),),
    ) and not alert.inside


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00Z", 1.8e9),
        ("2027-01-15T10:30:00.5+02:30", 1.8e9 + 0.5),
        ("2027-01-15T03:00:00.123456789-05:00", 1.8e9 + 0.123456789),
    ],
)
def test_times(text: str, seconds: float) -> None:
    assert bridge.seconds(text) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("bad", [None, [], {}, {"alerts": {}}], ids=range(4))
def test_what_alertmanager_does_not_send(bad: Any) -> None:
    with pytest.raises(bridge.PayloadError):
        bridge.parse(bad)


BAD: list[Any] = [
    1,
    {},
    {**item(), "labels": None},
    {**item(), "annotations": []},
    {**item(), "status": "x"},
    {**item(), "status": ["firing"]},
    {**item(), "startsAt": "yesterday"},
    {**item(), "startsAt": "2027-13-15T08:00:00Z"},
    {**item(), "startsAt": 5},
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_one_that_cannot_be_read_hinders_no_other(tmp_path: Path, bad: Any) -> None:
    said: list[tuple[int, str]] = []
    inbox = bridge.Inbox(Kept("inbox.json", (str(tmp_path),)), lambda severity, text: said.append((severity, text)))
    inbox.take(payload(item(), bad, item(name="Other")), 5.0)
    assert [alert.name for alert in inbox.alerts()] == ["DiskFull", "Other"]
    assert said == [(3, "1 alarms that Alertmanager sent cannot be read and are passed over")]


@pytest.fixture
def inbox(tmp_path: Path) -> bridge.Inbox:
    return bridge.Inbox(Kept("inbox.json", (str(tmp_path),)))


def test_the_inbox_knows_what_rings_also_after_a_restart(inbox: bridge.Inbox) -> None:
    inbox.take(payload(item(), item(name="Other"), item(mountpoint="/home")), 5.0)
    inbox.take(payload(item("resolved"), item(name="Third")), 6.0)
    again = bridge.Inbox(inbox.kept)
    expected = [("Other", "/srv"), ("DiskFull", "/home"), ("Third", "/srv")]
    assert [(alert.name, dict(alert.labels)["mountpoint"]) for alert in again.alerts()] == expected
    assert again.alerts() == inbox.alerts() and again.heard == 6.0 and inbox.changed.is_set()


def test_two_exporters_of_a_host_are_two_alarms(inbox: bridge.Inbox) -> None:
    down = [item(name="TargetDown", job=job, instance="server1") for job in ("nginx", "postgres")]
    inbox.take(payload(*down), 5.0)
    assert len(inbox.alerts()) == 2
    inbox.take(payload({**down[0], "status": "resolved"}, down[1]), 6.0)
    assert [dict(alert.labels)["job"] for alert in inbox.alerts()] == ["postgres"]


def test_what_ends_and_rings_anew_at_once_rings(inbox: bridge.Inbox) -> None:
    for items in ([item(), item("resolved")], [item("resolved"), item()]):
        inbox.take(payload(*items), 5.0)
        assert len(inbox.alerts()) == 1


def test_what_another_release_kept_is_no_obstacle(inbox: bridge.Inbox) -> None:
    inbox.take(payload(item(), item(name="Other")), 5.0)
    kept = inbox.kept.read()
    inbox.kept.write({"heard": "x", "alerts": [{**kept["alerts"][0], "colour": "red"}, {"name": "Other"}, None]})
    assert bridge.Inbox(inbox.kept).alerts() == inbox.alerts()[:1]
    inbox.kept.write({"alerts": None})
    assert bridge.Inbox(inbox.kept).alerts() == []


@pytest.fixture
def port(inbox: bridge.Inbox) -> Iterator[int]:
    with bridge.Server(0, TOKEN, inbox) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_prometheus_learns_whether_somebody_can_be_told(inbox: bridge.Inbox) -> None:
    told = [True]
    with bridge.Server(0, TOKEN, inbox, lambda: told[0]) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        for value in (True, False):
            told[0] = value
            connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert answer.read().decode().splitlines()[-1] == f"civitas_alerts_can_be_told {int(value)}"
            connection.close()
        server.shutdown()
        thread.join()


def post(port: int, body: bytes, token: str = TOKEN, method: str = "POST", **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(method, "/", body, {"Authorization": f"Bearer {token}", **headers})
    status = connection.getresponse().status
    connection.close()
    return status


def test_who_has_the_token_is_heard(port: int, inbox: bridge.Inbox) -> None:
    assert post(port, json.dumps(payload(item())).encode()) == 200
    assert [alert.name for alert in inbox.alerts()] == ["DiskFull"]


@pytest.mark.parametrize("token", ["", "canary", f"{TOKEN}x", "\u00e9"])
def test_nobody_else_is(port: int, inbox: bridge.Inbox, token: str) -> None:
    assert post(port, json.dumps(payload(item())).encode(), token) == 401
    assert inbox.alerts() == []


def test_what_is_no_payload_is_refused(port: int, inbox: bridge.Inbox) -> None:
    assert post(port, b"{") == 400 and post(port, b"\xff") == 400 and post(port, b"[]") == 400
    assert post(port, b"", method="GET") == 404
    assert post(port, b"x", **{"Content-Length": str(bridge.LARGEST + 1)}) == 413
    assert inbox.alerts() == []


def test_as_many_as_alertmanager_sends_at_once_are_taken(port: int, inbox: bridge.Inbox) -> None:
    many = [item(unit=f"run-u{number}.service", more="x" * 10000) for number in range(bridge.MOST)]
    assert post(port, json.dumps(payload(*many)).encode()) == 200
    assert len(inbox.alerts()) == bridge.MOST


def test_what_cannot_be_kept_is_sent_again(port: int, inbox: bridge.Inbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inbox.kept.paths = [str(tmp_path / "file" / "x.json")]
    assert post(port, json.dumps(payload(item())).encode()) == 503
    assert inbox.alerts() == []


# --- what Alertmanager still has


class Alertmanager(http.server.BaseHTTPRequestHandler):
    """Answers as Alertmanager 0.25 to 0.28 do at /api/v2/alerts."""

    alarms: list[tuple[dict[str, Any], str]] = []
    status = 200
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        assert self.headers["Authorization"] == f"Basic {base64.b64encode(f'civitas:{TOKEN}'.encode()).decode()}"
        body = json.dumps([in_answer(alarm, state) for alarm, state in self.alarms]).encode() if self.status == 200 else b"{}"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def in_answer(alarm: dict[str, Any], state: str = "active") -> dict[str, Any]:
    return {
        **{key: alarm[key] for key in ("labels", "annotations", "startsAt", "fingerprint", "generatorURL")},
        "endsAt": "2027-01-15T08:04:00.000Z", "updatedAt": "2027-01-15T08:00:00.000Z", "receivers": [{"name": "people"}],
        "status": {"inhibitedBy": [], "silencedBy": ["x"] if state == "suppressed" else [], "state": state},
    }  # fmt: skip


@pytest.fixture
def alertmanager() -> Iterator[type[Alertmanager]]:
    class One(Alertmanager):
        alarms: list[tuple[dict[str, Any], str]] = []
        asked: list[str] = []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), One) as server:
        One.port = server.server_address[1]  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield One
        server.shutdown()
        thread.join()


def compare(inbox: bridge.Inbox, alertmanager: Any, now: float) -> list[str]:
    inbox.compare(lambda: bridge.ask(alertmanager.port, TOKEN), now)
    return sorted(alert.name for alert in inbox.alerts())


def test_what_ended_while_alertmanager_was_down_is_over_in_the_end(inbox: bridge.Inbox, alertmanager: Any) -> None:
    inbox.take(payload(item(), item(name="Other")), 5.0)
    # It has just begun, and knows nothing yet.
    assert compare(inbox, alertmanager, 100) == ["DiskFull", "Other"]
    alertmanager.alarms.append((item(), "active"))
    assert compare(inbox, alertmanager, 200) == ["DiskFull", "Other"]
    assert compare(inbox, alertmanager, 99 + bridge.FORGET) == ["DiskFull", "Other"]
    inbox.changed.clear()
    assert compare(inbox, alertmanager, 100 + bridge.FORGET) == ["DiskFull"]
    assert inbox.changed.is_set() and [alert.name for alert in bridge.Inbox(inbox.kept).alerts()] == ["DiskFull"]
    assert set(alertmanager.asked) == {"/api/v2/alerts?receiver=people"}


def test_what_it_knows_again_is_not_over(inbox: bridge.Inbox, alertmanager: Any) -> None:
    inbox.take(payload(item()), 5.0)
    compare(inbox, alertmanager, 100)
    alertmanager.alarms.append((item(), "suppressed"))
    compare(inbox, alertmanager, 200)
    alertmanager.alarms.clear()
    assert compare(inbox, alertmanager, 100 + bridge.FORGET) == ["DiskFull"]
    inbox.take(payload(item()), 6.0)
    assert compare(inbox, alertmanager, 300 + bridge.FORGET) == ["DiskFull"]


def test_what_it_never_said_rings_unless_somebody_silenced_it(inbox: bridge.Inbox, alertmanager: Any) -> None:
    alertmanager.alarms += [(item(), "active"), (item(name="Held"), "suppressed"), (item(name="Early"), "unprocessed")]
    assert compare(inbox, alertmanager, 100) == ["DiskFull"]
    # It ended after Alertmanager was asked.
    answer = bridge.ask(alertmanager.port, TOKEN)

    def late() -> bridge.Known:
        inbox.take(payload(item("resolved")), 5.0)
        return answer

    inbox.compare(late, 200)
    assert inbox.alerts() == []


def test_one_that_cannot_be_asked_changes_nothing(inbox: bridge.Inbox, alertmanager: Any) -> None:
    inbox.take(payload(item()), 5.0)
    compare(inbox, alertmanager, 100)
    alertmanager.status = 503
    with pytest.raises(bridge.PayloadError, match="the answer is 503"):
        compare(inbox, alertmanager, 100 + bridge.FORGET)
    assert len(inbox.alerts()) == 1


def test_it_is_asked_again_and_again_and_what_is_wrong_is_said_once(
    inbox: bridge.Inbox, alertmanager: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "COMPARE", 0.01)
    stop = threading.Event()
    said: list[tuple[int, str]] = []
    inbox.say = lambda severity, text: said.append((severity, text))
    alertmanager.status = 503
    thread = threading.Thread(target=inbox.follow, args=[alertmanager.port, TOKEN, stop])
    thread.start()
    while len(alertmanager.asked) < 3:
        stop.wait(0.01)
    alertmanager.status = 200
    alertmanager.alarms.append((item(), "active"))
    assert inbox.changed.wait(10)
    stop.set()
    thread.join()
    assert said[0] == (4, "Alertmanager cannot be asked what rings: PayloadError: the answer is 503")
    assert len(said) <= 2


@pytest.mark.parametrize("bad", [1, {}, {**in_answer(item()), "labels": None}], ids=range(3))
def test_what_cannot_be_read_in_its_answer_is_passed_over(bad: Any) -> None:
    assert [alert.name for alert in bridge.known([bad, in_answer(item())]).told] == ["DiskFull"]
    with pytest.raises(bridge.PayloadError):
        bridge.known(bad)
