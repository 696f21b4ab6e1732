# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes alarms from Alertmanager over loopback, so that they are told by the same receivers in the same words as on a host without one.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import calendar
import hmac
import http.server
import json
import re
import threading
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_kept import Kept
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import OWN_LABELS, SEVERITIES, Alert, kept_alert

ADDRESS = "127.0.0.1"
LARGEST = 4 * 2**20
PATIENCE = 10.0
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


def parse(payload: t.Any) -> t.Tuple[t.List[Alert], t.List[Alert]]:
    """Alarms that ring, and those that do not any more. Raises PayloadError."""
    items = payload.get("alerts") if isinstance(payload, dict) else None
    if not isinstance(items, list):
        raise PayloadError("there is no list of alerts")
    ringing: t.List[Alert] = []
    over: t.List[Alert] = []
    for item in items:
        labels, annotations = (item.get("labels"), item.get("annotations")) if isinstance(item, dict) else (None, None)
        if not isinstance(labels, dict) or not isinstance(annotations, dict) or item.get("status") not in ("firing", "resolved"):
            raise PayloadError("an alert has no labels, annotations or status")
        name = str(labels.get("alertname", "?"))
        severity = labels.get("severity")
        alert = Alert(
            name=name,
            host=str(labels.get("host") or labels.get("instance") or "?"),
            # Who wrote a rule without a severity meant it to be heard.
            severity=str(severity) if severity in SEVERITIES else "critical",
            labels=tuple(sorted((str(key), str(value)) for key, value in labels.items() if key not in OWN_LABELS)),
            text=str(annotations.get("text") or annotations.get("summary") or name),
            since=seconds(item.get("startsAt")),
            runbook=str(annotations.get("runbook") or "alerts.md"),
            inhibits=tuple(str(annotations.get("inhibits", "")).split()),
        )
        (ringing if item["status"] == "firing" else over).append(alert)
    return ringing, over


class Inbox:
    """The alarms that ring, as Alertmanager said last. Kept, as it says a thing only once in a while."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.changed = threading.Event()
        self._lock = threading.Lock()
        document = kept.read()
        self.heard = float(document.get("heard", 0.0))
        self._alerts = {alert.key: alert for alert in map(kept_alert, document.get("alerts", []))}

    def alerts(self) -> t.List[Alert]:
        with self._lock:
            return list(self._alerts.values())

    def take(self, payload: t.Any, now: float) -> None:
        """Raises PayloadError, or OSError when it cannot be kept; then Alertmanager sends it again."""
        ringing, over = parse(payload)
        with self._lock:
            alerts = {**self._alerts, **{alert.key: alert for alert in ringing}}
            for alert in over:
                alerts.pop(alert.key, None)
            self.kept.write({"heard": now, "alerts": [alert._asdict() for alert in alerts.values()]})
            self._alerts, self.heard = alerts, now
        self.changed.set()


class Server(http.server.ThreadingHTTPServer):
    """Listens on loopback, for who has the token: others on the host could ring alarms, or end them."""

    daemon_threads = True

    def __init__(self, port: int, token: str, inbox: Inbox) -> None:
        self.token = token
        self.inbox = inbox
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

    def _answer(self, status: int) -> None:
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: t.Any) -> None:
        """What is asked for is no news."""
