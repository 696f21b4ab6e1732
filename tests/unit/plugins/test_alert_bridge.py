# SPDX-License-Identifier: GPL-3.0-or-later
"""What Alertmanager sends is understood, by who may send it."""

from __future__ import annotations

import http.client
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
        "annotations": {"text": "/srv is 51% full.", "runbook": "alerts.md#disk", "inhibits": "A B"},
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


def test_an_alarm_is_the_same_as_that_of_the_host_itself() -> None:
    ((alert,), over) = bridge.parse(payload(item()))
    assert alert == (
        "DiskFull",
        "server1",
        "warning",
        (("mountpoint", "/srv"),),
        "/srv is 51% full.",
        1.8e9 + 0.25,
        "alerts.md#disk",
        ("A", "B"),
    )
    assert over == [] and bridge.parse(payload(item("resolved"))) == ([], [alert])


def test_rules_of_others_are_heard_as_well() -> None:
    bare = {**item(), "labels": {"alertname": "Theirs", "instance": "a:1", "severity": "page"}, "annotations": {"summary": "It is bad"}}
    ((alert,), _over) = bridge.parse(payload(bare))
    assert (alert.host, alert.severity, alert.text, alert.labels) == ("a:1", "critical", "It is bad", ())


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


BAD: list[Any] = [
    None,
    [],
    {},
    {"alerts": {}},
    {"alerts": [1]},
    payload({}),
    payload({**item(), "labels": None}),
    payload({**item(), "status": "x"}),
    payload({**item(), "startsAt": "yesterday"}),
    payload({**item(), "startsAt": "2027-13-15T08:00:00Z"}),
    payload({**item(), "startsAt": 5}),
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_what_alertmanager_does_not_send(bad: Any) -> None:
    with pytest.raises(bridge.PayloadError):
        bridge.parse(bad)


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


def test_a_payload_is_taken_as_a_whole_or_not_at_all(inbox: bridge.Inbox) -> None:
    with pytest.raises(bridge.PayloadError):
        inbox.take(payload(item(), {**item(), "startsAt": "x"}), 5.0)
    assert inbox.alerts() == []


@pytest.fixture
def port(inbox: bridge.Inbox) -> Iterator[int]:
    with bridge.Server(0, TOKEN, inbox) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05])
        thread.start()
        yield server.server_address[1]
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
    assert post(port, b"", method="GET") == 501
    assert post(port, b"x", **{"Content-Length": str(bridge.LARGEST + 1)}) == 413
    assert inbox.alerts() == []


def test_what_cannot_be_kept_is_sent_again(port: int, inbox: bridge.Inbox, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    inbox.kept.paths = [str(tmp_path / "file" / "x.json")]
    assert post(port, json.dumps(payload(item())).encode()) == 503
    assert inbox.alerts() == []
