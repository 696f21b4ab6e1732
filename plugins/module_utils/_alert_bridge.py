# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes alarms from Alertmanager over loopback, so that they are told by the same receivers in the same words as on a host without one.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import base64
import calendar
import contextlib
import hmac
import http.client
import http.server
import json
import re
import threading
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_kept import Kept
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import KNOWN_LABELS, SEVERITIES, Alert, kept_alerts, kept_number
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render, sample

ADDRESS = "127.0.0.1"
# Alertmanager does not send again what is refused for its size; with C(MOST) alarms, each may have 16 kB.
LARGEST, MOST = 16 * 2**20, 1000
PATIENCE = 10.0
# The receiver of that name in Alertmanager's configuration is this program.
PEOPLE = "people"
# As whom Alertmanager is asked, with the token.
USER = "civitas"
# How often Alertmanager is asked what rings, and for how long it must not know of an alarm before that is over. It says nothing of what
# ended while it was down; and when it begins, it knows nothing before Prometheus has told it anew.
COMPARE, FORGET = 120.0, 900.0
# Of an answer; of each alarm it has about a thousand characters.
LARGEST_ANSWER = 64 * 2**20
METRIC = "civitas_alerts_can_be_told"
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


class PayloadError(Exception):
    """What was sent is not what Alertmanager sends."""


def seconds(text: t.Any) -> float:
    """A moment of RFC 3339, in seconds since 1970. Raises PayloadError."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise PayloadError("a time is none")
    try:
        moment = float(calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        raise PayloadError("a time is none") from None
    if found[3] != "Z":
        offset = 3600 * int(found[3][1:3]) + 60 * int(found[3][4:6])
        moment -= offset if found[3][0] == "+" else -offset
    return moment + float(f"0{found[2] or '.0'}")


class Heard(t.NamedTuple):
    """Alarms that ring, those that do not any more, and how many could not be read."""

    ringing: t.List[Alert]
    over: t.List[Alert]
    unread: int


def parse(payload: t.Any) -> Heard:
    """Raises PayloadError. One alarm that cannot be read keeps no other from being heard."""
    items = payload.get("alerts") if isinstance(payload, dict) else None
    if not isinstance(items, list):
        raise PayloadError("there is no list of alerts")
    ringing: t.List[Alert] = []
    over: t.List[Alert] = []
    for item in items:
        status = item.get("status") if isinstance(item, dict) else None
        try:
            if status in ("firing", "resolved"):
                (ringing if status == "firing" else over).append(_alert(item))
        except PayloadError:
            continue
    return Heard(ringing, over, len(items) - len(ringing) - len(over))


def _alert(item: t.Mapping[str, t.Any]) -> Alert:
    """What is the same in what Alertmanager sends and in what it answers. Raises PayloadError."""
    labels, annotations = item.get("labels"), item.get("annotations")
    if not isinstance(labels, dict) or not isinstance(annotations, dict):
        raise PayloadError("an alert has no labels or annotations")
    name = str(labels.get("alertname", "?"))
    severity = labels.get("severity")
    return Alert(
        name=name,
        host=str(labels.get("host") or labels.get("instance") or "?"),
        # Who wrote a rule without a severity meant it to be heard.
        severity=str(severity) if severity in SEVERITIES else "critical",
        labels=tuple(sorted((str(key), str(value)) for key, value in labels.items() if key not in KNOWN_LABELS)),
        text=str(annotations.get("text") or annotations.get("summary") or name),
        since=seconds(item.get("startsAt")),
        runbook=str(annotations.get("runbook") or "alerts.md"),
        inhibits=tuple(str(annotations.get("inhibits", "")).split()),
        inside=annotations.get("inside") == "true",
    )


class Known(t.NamedTuple):
    """What Alertmanager has for people: what they are to hear, and what it holds back, such as what somebody silenced there."""

    told: t.List[Alert]
    held: t.List[Alert]


def ask(port: int, token: str) -> Known:
    """What Alertmanager has now. Raises PayloadError, OSError or HTTPException."""
    login = base64.b64encode(f"{USER}:{token}".encode()).decode()
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=PATIENCE)
    try:
        connection.request("GET", f"/api/v2/alerts?receiver={PEOPLE}", headers={"Authorization": f"Basic {login}"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise PayloadError(f"the answer is {answer.status}")
        return known(json.loads(answer.read(LARGEST_ANSWER)))
    except ValueError:
        raise PayloadError("the answer is no JSON, or too long") from None
    finally:
        connection.close()


def known(answer: t.Any) -> Known:
    """Raises PayloadError."""
    if not isinstance(answer, list):
        raise PayloadError("the answer is no list of alerts")
    found = Known([], [])
    for item in answer:
        status = item.get("status") if isinstance(item, dict) else None
        if isinstance(status, dict):
            with contextlib.suppress(PayloadError):
                (found.told if status.get("state") == "active" else found.held).append(_alert(item))
    return found


class Inbox:
    """The alarms that ring, as Alertmanager said last. Kept, as it says a thing only once in a while.

    Args:
        say: a line for the journal, with its severity as in syslog.
    """

    def __init__(self, kept: Kept, say: t.Callable[[int, str], None] = lambda _severity, _text: None) -> None:
        self.kept = kept
        self.say = say
        self.changed = threading.Event()
        self._lock = threading.Lock()
        document = kept.read()
        self.heard = kept_number(document.get("heard"))
        self._alerts = {alert.key: alert for alert in kept_alerts(document.get("alerts"))}
        self._missing: t.Dict[str, float] = {}
        self._taken = 0

    def alerts(self) -> t.List[Alert]:
        with self._lock:
            return list(self._alerts.values())

    def take(self, payload: t.Any, now: float) -> None:
        """Raises PayloadError, or OSError when it cannot be kept; then Alertmanager sends it again."""
        ringing, over, unread = parse(payload)
        with self._lock:
            # What has ended and rings anew is sent in any order.
            ended = {alert.key for alert in over}
            alerts = {key: alert for key, alert in self._alerts.items() if key not in ended}
            ringing_now = {alert.key: alert for alert in ringing}
            alerts.update(ringing_now)
            self._keep(alerts, now)
            self._missing = {key: since for key, since in self._missing.items() if key not in ringing_now}
            self._taken += 1
        self.changed.set()
        if unread:
            self.say(3, f"{unread} alarms that Alertmanager sent cannot be read and are passed over")

    def compare(self, what: t.Callable[[], Known], now: float) -> None:
        """Ring what Alertmanager has and never said, and end what it has not had for C(FORGET).

        Args:
            what: asks it; what that raises is raised.
            now: in seconds that no clock sets back.
        """
        before = self._taken
        found = what()
        with self._lock:
            there = {alert.key for alert in (*found.told, *found.held)}
            self._missing = {key: self._missing.get(key, now) for key in self._alerts if key not in there}
            alerts = {key: alert for key, alert in self._alerts.items() if now - self._missing.get(key, now) < FORGET}
            if before == self._taken:
                # What was said since the question is newer than the answer.
                alerts.update((alert.key, alert) for alert in found.told if alert.key not in alerts)
            if alerts.keys() == self._alerts.keys():
                return
            self._keep(alerts, self.heard)
        self.changed.set()

    def follow(self, port: int, token: str, stop: threading.Event) -> None:
        """Compare now and every few minutes, until C(stop). An Alertmanager that does not answer changes nothing."""
        problem = ""
        while True:
            before = problem
            try:
                self.compare(lambda: ask(port, token), time.monotonic())
                problem = ""
            except (PayloadError, OSError, http.client.HTTPException) as error:
                problem = f"Alertmanager cannot be asked what rings: {type(error).__name__}: {error}"
            if problem != before:
                self.say(4 if problem else 5, problem or "Alertmanager answers again")
            if stop.wait(COMPARE):
                return

    def _keep(self, alerts: t.Dict[str, Alert], heard: float) -> None:
        """Raises OSError."""
        self.kept.write({"heard": heard, "alerts": [alert._asdict() for alert in alerts.values()]})
        self._alerts, self.heard = alerts, heard


class Server(http.server.ThreadingHTTPServer):
    """Listens on loopback, for who has the token: others on the host could ring alarms, or end them. The metrics hold no secret.

    Args:
        tells: whether somebody can be told of alarms now.
    """

    daemon_threads = True

    def __init__(self, port: int, token: str, inbox: Inbox, tells: t.Callable[[], bool] = lambda: True) -> None:
        self.token = token
        self.inbox = inbox
        self.tells = tells
        super().__init__((ADDRESS, port), Handler)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE
    server_version = "civitas-alerts"
    sys_version = ""

    def do_POST(self) -> None:
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), f"Bearer {self.server.token}".encode()):
            self._answer(401)
            return
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LARGEST:
            self.server.inbox.say(3, f"Alertmanager sent {length or 'an unknown number of'} bytes at once, which is refused")
            self._answer(413)
            return
        try:
            self.server.inbox.take(json.loads(self.rfile.read(int(length))), time.time())
        except (PayloadError, ValueError):
            self._answer(400)
        except OSError:
            self._answer(503)
        else:
            self._answer(200)

    def do_GET(self) -> None:
        """What Prometheus asks: the heartbeat is sent while this says 1."""
        if self.path != "/metrics":
            self._answer(404)
            return
        title = "Whether somebody can be told of alarms now"
        self._answer(200, render([sample(METRIC, float(self.server.tells()))], {METRIC: title}).encode())

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: t.Any) -> None:
        """What is asked for is no news."""
