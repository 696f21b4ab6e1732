# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read."""

from __future__ import annotations

from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import Alert
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import Told, compose

DISK = Alert("DiskFull", "server1", "critical", (("mountpoint", "/srv"),), "/srv is 71.23% full.", 1.8e9, "alerts.md#disk")
UNIT = Alert("UnitFailed", "server1", "warning", (), "cron.service has failed.", 1.8e9 - 60, "alerts.md#unit")


def test_the_worst_comes_first_and_all_that_is_needed_is_there() -> None:
    found = compose("server1", [Told("over", UNIT, 1.8e9), Told("still", UNIT._replace(name="Other")), Told("new", DISK)], "x")
    assert found["subject"] == "[server1] CRITICAL: /srv is 71.23% full. (and 2 more)"
    assert (
        found["text"]
        == """\
CRITICAL: server1: /srv is 71.23% full.
    Since 2027-01-15 08:00:00 UTC. What to do: docs/runbooks/alerts.md#disk

still WARNING: server1: cron.service has failed.
    Since 2027-01-15 07:59:00 UTC. What to do: docs/runbooks/alerts.md#unit

over: server1: cron.service has failed.
    It was warning from 2027-01-15 07:59:00 UTC to 2027-01-15 08:00:00 UTC.
"""
    )
    assert found["short"] == "server1: CRITICAL: /srv is 71.23% full. (and 2 more) docs/runbooks/alerts.md#disk"
    assert [fact["state"] for fact in found["alerts"]] == ["new", "still", "over"]
    assert found["alerts"][0]["labels"] == {"mountpoint": "/srv"}


def test_pages_may_be_elsewhere() -> None:
    assert "What to do: https://example.org/alerts.md#disk" in compose("h", [Told("new", DISK)], "x", pages="https://example.org/")["text"]


def test_a_label_makes_no_header_and_no_line() -> None:
    found = compose("h", [Told("new", DISK._replace(text="a\r\nBcc: evil@example.org\x1b[2J"))], "x")
    assert "\n" not in found["subject"] and "\x1b" not in found["text"] and found["text"].count("\n") == 2


def test_a_note_alone() -> None:
    found = compose("h", [], "x", "It begins.")
    assert (found["subject"], found["text"], found["short"]) == ("[h] It begins.", "It begins.\n", "h: It begins.")
