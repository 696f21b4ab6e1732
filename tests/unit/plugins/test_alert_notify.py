# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what and when, minute by minute. That messages arrive is in test_alert_receivers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_notify as notify
from ansible_collections.civitas.hosting.plugins.module_utils._alert_receivers import Receiver
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import Alert
from ansible_collections.civitas.hosting.plugins.module_utils._alert_window import Held, Window
from hypothesis import given, settings
from hypothesis import strategies as st

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
BEGIN = 1.8e9
MAIL = Receiver("mail", ("warning", "critical"), "email", {})
PHONE = Receiver("phone", ("critical",), "sms", {})


def alarm(name: str = "Disk", severity: str = "warning", inhibits: tuple[str, ...] = (), **labels: str) -> Alert:
    return Alert(
        name, "h", severity, tuple(sorted(labels.items())), f"{name} {' '.join(labels.values())}".strip(), BEGIN, "a.md#a", inhibits
    )


WARNING, CRITICAL = alarm(), alarm("Fuller", "critical", ("Disk",))


class Site:
    """Time, receivers and what they heard."""

    def __init__(self, *receivers: Receiver) -> None:
        self.receivers = receivers or (MAIL,)
        self.state: dict[str, Any] = {}
        self.now = BEGIN
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self.tried: list[str] = []
        self.said: list[str] = []
        self.failing: dict[str, str] = {}
        self.window: Window | None = None
        self.held: list[Held] = []

    def send(self, messages: Any) -> Iterator[tuple[str, str]]:
        for receiver, message in messages:
            self.tried.append(receiver.name)
            if receiver.name not in self.failing:
                self.heard.append((receiver.name, dict(message)))
            yield receiver.name, self.failing.get(receiver.name, "")

    def save(self) -> None:
        self.kept = json.dumps(self.state)

    def run(self, *alerts: Alert, minutes: int = 1) -> list[str]:
        """The subjects that are heard in some minutes with these alarms."""
        before = len(self.heard)
        for _minute in range(minutes):
            notifier = notify.Notifier(
                self.receivers, "h", self.state, self.save, self.send, lambda _severity, text: self.said.append(text)
            )
            notifier.run(alerts, self.window, self.now, self.held)
            self.state = json.loads(self.kept)
            self.now += MINUTE
        return [f"{name}: {message['subject']}" if len(self.receivers) > 1 else message["subject"] for name, message in self.heard[before:]]


def test_a_critical_alarm_is_told_at_once_and_a_warning_is_gathered() -> None:
    site = Site()
    assert site.run(CRITICAL) == ["[h] CRITICAL: Fuller"]
    site = Site()
    other = alarm("Memory")
    assert site.run(WARNING) == []
    site.now -= MINUTE / 2
    assert site.run(WARNING, other) == []
    site.now += MINUTE / 2
    assert site.run(WARNING, other) == ["[h] WARNING: Disk (and 1 more)"]
    assert site.run(WARNING, other, minutes=60) == []


@pytest.mark.parametrize("severity", ["critical", "warning"])
def test_a_warning_waits_for_what_says_more_of_the_same(severity: str) -> None:
    """Alertmanager tells of each severity by itself, once a minute: in between, only half of it is known, at the begin and at the end."""
    site = Site()
    other, another = alarm("Other", severity), alarm("Another", severity)
    gathered = {"critical": 0, "warning": 2}[severity]
    site.run(other, minutes=gathered)
    assert "Other" in str(site.run(other, WARNING))
    site.run(other, WARNING, CRITICAL)
    site.run(other, WARNING, CRITICAL, another, minutes=gathered)
    assert "Another" in str(site.run(other, WARNING, another))
    site.run(minutes=10)
    names = [alert["name"] for _name, message in site.heard for alert in message["alerts"] if alert["state"] == "new"]
    assert sorted(names) == ["Another", "Fuller", "Other"]


def test_what_still_rings_is_told_again() -> None:
    site = Site()
    site.run(CRITICAL)
    assert site.run(CRITICAL, minutes=239) == []
    assert site.run(CRITICAL) == ["[h] still CRITICAL: Fuller"]
    assert len(site.run(CRITICAL, minutes=24 * 60)) == 6
    site = Site()
    assert len(site.run(WARNING, minutes=3)) == 1
    assert site.run(WARNING, minutes=24 * 60 - 1) == []
    assert site.run(WARNING) == ["[h] still WARNING: Disk"]


def test_each_alarm_is_over_once() -> None:
    site = Site()
    site.run(CRITICAL)
    assert site.run(minutes=6) == []
    assert site.run() == ["[h] over: Fuller"]
    assert site.run(minutes=2000) == []
    message = site.heard[-1][1]
    assert "It was critical from 2027-01-15 08:00:00 UTC to 2027-01-15 08:01:00 UTC." in message["text"]
    assert message["alerts"][0]["state"] == "over" and message["alerts"][0]["ended"] == BEGIN + MINUTE


def test_one_that_flickers_is_told_once() -> None:
    site = Site()
    told = site.run(CRITICAL)
    for _time in range(30):
        told += site.run(minutes=5) + site.run(CRITICAL)
    assert told == ["[h] CRITICAL: Fuller"]


def test_a_warning_that_is_over_before_it_is_told_is_not_told() -> None:
    site = Site()
    assert site.run(WARNING) + site.run(minutes=10) == []


def test_who_says_more_silences_who_says_less() -> None:
    site = Site()
    assert site.run(WARNING, CRITICAL) == ["[h] CRITICAL: Fuller"]
    assert site.run(WARNING, CRITICAL, minutes=60) == []
    # What is left rings now, in the same message.
    assert site.run(WARNING, minutes=7) == ["[h] WARNING: Disk", "[h] over: Fuller"]
    # One that was told before is neither told again nor over.
    assert site.run(WARNING, CRITICAL) == ["[h] CRITICAL: Fuller"]
    assert site.run(WARNING, minutes=7) == ["[h] over: Fuller"]


def test_another_series_or_host_is_not_silenced() -> None:
    worse = alarm("Fuller", "critical", ("Disk",), mountpoint="/a")
    same, other = alarm(mountpoint="/a"), alarm(mountpoint="/b")
    assert notify.quiet([worse, same, other, same._replace(host="i")]) == {same.key}


def test_of_a_host_that_does_not_answer_nothing_of_itself_is_told_nor_over() -> None:
    site = Site()
    own = CRITICAL._replace(inside=True)
    site.run(own)
    down, other = alarm("HostDown", "critical", ("*",)), alarm("Elsewhere", "critical")._replace(host="i", inside=True)
    # Its series end at once, and that it is down is known minutes later.
    assert site.run(minutes=5) == []
    missing = alarm("Missing", "critical")._replace(inside=True)
    assert site.run(down, missing, other) == ["[2 hosts] CRITICAL: HostDown (and 1 more)"]
    assert site.run(down, minutes=200) == ["[i] over: Elsewhere"]
    assert site.run(own, minutes=7) == ["[h] over: HostDown"]
    assert site.run(minutes=7) == ["[h] over: Fuller"]


def test_of_a_host_that_does_not_answer_what_is_seen_from_outside_is_told_and_over() -> None:
    site = Site()
    down, probe = alarm("HostDown", "critical", ("*",)), alarm("ProbeFailed", "critical", probe="site")
    site.run(down)
    assert site.run(down, minutes=60) == []
    assert site.run(down, probe) == ["[h] CRITICAL: ProbeFailed site"]
    assert site.run(down, minutes=7) == ["[h] over: ProbeFailed site"]


def test_a_drill_and_what_really_is_wrong_are_never_in_one_message() -> None:
    drilled = [alarm("ContainerDown", "critical", drill="alarm-drill"), alarm("Unit", drill="alarm-drill")]
    real = [CRITICAL._replace(since=BEGIN + 1), alarm("Memory")]
    site = Site()
    assert site.run(*drilled, *real) == ["[h] CRITICAL: Fuller"]
    assert site.run(*drilled, *real) == ["[h] DRILL, nothing is wrong: CRITICAL: ContainerDown alarm-drill"]
    assert site.run(*drilled, *real) == ["[h] WARNING: Memory"]
    assert site.run(*drilled, *real) == ["[h] DRILL, nothing is wrong: WARNING: Unit alarm-drill"]
    assert site.run(*drilled, *real, minutes=60) == []
    assert site.run(minutes=10) == [
        "[h] over: Fuller (and 1 more)",
        "[h] DRILL, nothing is wrong: over: ContainerDown alarm-drill (and 1 more)",
    ]
    for _name, message in site.heard:
        assert message["text"].count("DRILL, nothing is wrong") in (0, len(message["alerts"]))
        assert ("DRILL" in message["short"]) == ("DRILL" in message["text"])
    site.window = Window(site.now + HOUR, "x")
    site.run(*drilled, *real, minutes=2)
    site.window = None
    assert site.run(*drilled, *real) == ["[h] Alarms of h are told again: the time for its maintenance is over. (and 2 more)"]
    assert "DRILL" not in site.heard[-1][1]["text"]
    assert len(site.run(*drilled, *real)) == 1


def test_who_hears_critical_alarms_only() -> None:
    site = Site(MAIL, PHONE)
    assert site.run(WARNING, minutes=3) == ["mail: [h] WARNING: Disk"]
    assert site.run(WARNING, CRITICAL) == ["mail: [h] CRITICAL: Fuller", "phone: [h] CRITICAL: Fuller"]


def test_what_was_not_taken_is_told_later_and_once() -> None:
    site = Site()
    site.failing["mail"] = "no"
    assert site.run(CRITICAL, minutes=30) == []
    assert site.said == ["mail: no; it is tried again"]
    del site.failing["mail"]
    assert site.run(CRITICAL, minutes=5) == ["[h] CRITICAL: Fuller"]
    assert site.said[1:] == ["mail: messages are taken again", "mail was told: [h] CRITICAL: Fuller"]
    assert site.run(CRITICAL, minutes=60) == []


def test_a_run_that_is_cut_keeps_what_it_knows_and_the_next_begins_with_others() -> None:
    site = Site(*(Receiver(name, ("critical",), "sms", {}) for name in ("a", "b", "c")))
    site.failing = {"a": "it hangs", "b": "it hangs"}
    kept: dict[str, Any] = {}

    class CutError(Exception):
        pass

    def send(messages: Any) -> Iterator[tuple[str, str]]:
        for number, outcome in enumerate(site.send(messages)):
            if number == 2:
                raise CutError
            yield outcome

    def save() -> None:
        kept.update(json.loads(json.dumps(site.state)))

    notifier = notify.Notifier(site.receivers, "h", site.state, save, send, lambda _severity, _text: None)
    with pytest.raises(CutError):
        notifier.run([CRITICAL], None, site.now)
    assert {name: state.get("problem") for name, state in kept.items()} == {"a": "it hangs", "b": "it hangs", "c": None}
    site.state, site.now, site.tried, site.heard = kept, site.now + 3 * MINUTE, [], []
    site.run(CRITICAL)
    assert site.tried == ["c", "a", "b"] and [name for name, _message in site.heard] == ["c"]


def test_who_was_not_tried_is_tried_next() -> None:
    site = Site()
    notifier = notify.Notifier(site.receivers, "h", site.state, site.save, lambda _messages: [], lambda _severity, _text: None)
    assert notifier.run([CRITICAL], None, site.now)
    assert site.run(CRITICAL) == ["[h] CRITICAL: Fuller"]


def test_a_repetition_has_the_same_number_and_nothing_else_has() -> None:
    site = Site()
    plans = [notify.planned(MAIL, {}, [CRITICAL], None, "h", BEGIN + minute) for minute in (0, 60)]
    assert plans[0].message and plans[1].message and plans[0].message["id"] == plans[1].message["id"]
    for day in range(2):
        site.run(CRITICAL._replace(since=BEGIN + day * DAY), minutes=600)
        site.run(minutes=10)
    numbers = [message["id"] for _name, message in site.heard]
    assert len(numbers) >= 6 and len(set(numbers)) == len(numbers)


def test_one_that_cannot_be_told_is_told_to_the_others() -> None:
    site = Site(MAIL, PHONE)
    site.failing["mail"] = "mail: 127.0.0.1 port 25: refused"
    site.run(CRITICAL)
    assert site.run(CRITICAL, minutes=14) == []
    assert site.run(CRITICAL) == ["phone: [h] CRITICAL: mail cannot be told of alarms: mail: 127.0.0.1 port 25: refused."]
    site.failing.clear()
    assert site.run(CRITICAL, minutes=12) == [
        "mail: [h] CRITICAL: Fuller",
        "phone: [h] over: mail cannot be told of alarms: mail: 127.0.0.1 port 25: refused.",
    ]


def test_one_that_could_not_be_told_is_known_to_be_there_again_although_nothing_rings() -> None:
    site = Site()
    site.failing["mail"] = "no"
    site.run(CRITICAL, minutes=2)
    assert site.run(minutes=20) == []
    assert notify.nobody_hears(site.receivers, site.state, site.now)
    site.failing.clear()
    assert site.run(minutes=60) == [
        "[h] Alarms of h could not be told here since 2027-01-15 08:00:00 UTC. This can, and what rings comes by itself."
    ]
    assert not notify.nobody_hears(site.receivers, site.state, site.now)


def test_nobody_hears_when_all_who_hear_critical_alarms_fail_for_long() -> None:
    warned = Receiver("office", ("warning",), "email", {})
    site = Site(MAIL, PHONE, warned)
    assert not notify.nobody_hears(site.receivers, site.state, site.now)
    site.failing = {"mail": "no", "phone": "no"}
    site.run(CRITICAL, minutes=14)
    assert not notify.nobody_hears(site.receivers, site.state, site.now)
    site.run(CRITICAL, WARNING, minutes=3)
    assert notify.nobody_hears(site.receivers, site.state, site.now)
    del site.failing["phone"]
    site.run(CRITICAL, minutes=5)
    assert not notify.nobody_hears(site.receivers, site.state, site.now)
    assert not notify.nobody_hears([], {}, site.now) and not notify.nobody_hears([warned], {}, site.now)


def test_a_maintenance_is_told_at_its_beginning_and_end_and_silent_between() -> None:
    site = Site()
    site.run(CRITICAL)
    site.window = Window(site.now + HOUR, "new disk")
    assert site.run(CRITICAL) == ["[h] Alarms of h are held back until 2027-01-15 09:01:00 UTC: new disk"]
    assert site.run(alarm("Other", "critical"), minutes=58) == []
    site.window = None
    assert site.run(alarm("Other", "critical")) == ["[h] Alarms of h are told again: the time for its maintenance is over. (and 2 more)"]
    text = site.heard[-1][1]["text"]
    assert "CRITICAL: h: Other" in text and "over: h: Fuller" in text
    assert site.run(alarm("Other", "critical"), minutes=60) == []


def test_alarms_of_one_host_are_held_back_and_all_others_are_told() -> None:
    site = Site()
    probe, rang = alarm("ProbeFailed", "critical", probe="site"), alarm("ProbeFailed", "critical", probe="old")
    site.run(rang)
    site.held = [Held("h", ("ProbeFailed",), site.now + HOUR, "release")]
    assert site.run(probe, rang, minutes=30) == ["[h] ProbeFailed alarms of h are held back until 2027-01-15 09:01:00 UTC: release."]
    # What rang before is not over because it is held back, and others ring as ever.
    assert site.run(probe, CRITICAL) == ["[h] CRITICAL: Fuller"]
    site.held = []
    (message,) = site.run(CRITICAL, probe, rang)
    assert message == "[h] ProbeFailed alarms of h are told again: the time for its maintenance is over. (and 1 more)"
    assert "CRITICAL: h: ProbeFailed site" in site.heard[-1][1]["text"]
    # The next one has the same words, and is another message.
    site.held = [Held("h", ("ProbeFailed",), site.now + HOUR, "release")]
    site.run(CRITICAL, minutes=10)
    site.held = []
    assert "told again" in site.run(CRITICAL)[0]
    assert len({message["id"] for _name, message in site.heard}) == len(site.heard)
    assert site.run(CRITICAL, minutes=10) == ["[h] over: ProbeFailed old (and 1 more)"]


def test_what_is_held_back_and_ends_meanwhile_is_never_told() -> None:
    site = Site()
    site.held = [Held("h", (), site.now + HOUR, "release"), Held("other", ("X",), site.now + HOUR, "y")]
    (message,) = site.run(CRITICAL, minutes=10)
    assert "UTC: release. X alarms of other are held back until" in message
    site.held = []
    over = "are told again: the time for its maintenance is over."
    assert site.run(minutes=20) == [f"[h] Alarms of h {over} X alarms of other {over}"]


def test_a_receiver_that_failed_hears_later_that_alarms_are_held_back() -> None:
    site = Site()
    site.failing = {"mail": "down"}
    site.held = [Held("h", (), site.now + HOUR, "release")]
    assert site.run(CRITICAL, minutes=3) == []
    site.failing = {}
    assert [subject.partition(" until")[0] for subject in site.run(CRITICAL, minutes=5)] == ["[h] Alarms of h are held back"]


def test_a_maintenance_that_is_longer_is_told_again() -> None:
    site = Site()
    site.window = Window(BEGIN + HOUR, "x")
    assert len(site.run()) == 1
    site.window = Window(BEGIN + 2 * HOUR, "x")
    assert len(site.run(minutes=30)) == 1


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    site = Site()
    site.now = BEGIN + 1000 * DAY
    site.run(CRITICAL)
    site.failing["mail"] = "no"
    site.run(CRITICAL, alarm("Other", "critical"))
    site.failing.clear()
    site.now = BEGIN
    assert site.run(CRITICAL, alarm("Other", "critical")) == ["[h] CRITICAL: Other (and 1 more)"]


def test_who_is_no_receiver_any_more_is_forgotten() -> None:
    site = Site(MAIL, PHONE)
    site.run(CRITICAL)
    site.receivers = (MAIL,)
    site.run(CRITICAL)
    assert list(site.state) == ["mail"]


def test_many_are_one_message_that_can_be_read() -> None:
    site = Site()
    (subject,) = site.run(*(alarm("Unit", "critical", unit=f"u{number:03}") for number in range(100)))
    assert subject == "[h] CRITICAL: Unit u000 (and 99 more)"
    message = site.heard[0][1]
    assert (
        "And 60 more; see 'sudo civitas-alerts status' on h." in message["text"]
        and len(message["alerts"]) == 40
        and message["left_out"] == 60
    )


def test_several_hosts_in_one_message() -> None:
    site = Site()
    assert site.run(CRITICAL, CRITICAL._replace(host="i")) == ["[2 hosts] CRITICAL: Fuller (and 1 more)"]
    assert "CRITICAL: h: Fuller" in site.heard[0][1]["text"] and "CRITICAL: i: Fuller" in site.heard[0][1]["text"]


@pytest.mark.parametrize(
    "bad",
    [
        None, [], 5, {"told": None}, {"told": {"k": {}}}, {"told": {"k": None}}, {"told": {"k": {"alert": {"name": "X"}, "at": 1}}},
        {"told": {"k": {"alert": WARNING._asdict(), "at": "x", "gone": None}}}, {"fresh": {"k": None}}, {"fresh": []},
        {"window": 5}, {"window": [1]}, {"window": ["x", 5]}, {"problem": "x", "tried": "y", "failures": "z", "since": []},
        {"problem": 5, "failures": -7},
    ],
    ids=range(15),
)  # fmt: skip
def test_a_state_that_cannot_be_read_hinders_nothing(bad: Any) -> None:
    site = Site()
    site.state = {"mail": bad}
    assert any("CRITICAL: Fuller" in subject or "are told again" in subject for subject in site.run(CRITICAL, minutes=5))
    assert json.loads(json.dumps(notify.kept_state(site.state["mail"]))) == site.state["mail"]


ALARMS = [WARNING, CRITICAL, alarm("Memory"), alarm("Unit", "critical", unit="a")]
STEPS = st.lists(st.tuples(st.sets(st.integers(0, 3)), st.booleans(), st.integers(1, 4)), max_size=25)


@settings(deadline=None)
@given(STEPS)
def test_whatever_happens_everything_is_told_and_ends(steps: list[tuple[set[int], bool, int]]) -> None:
    """In the end the receiver knows exactly what rings, and what it was told to be new and over alternates."""
    site = Site()
    last: list[Alert] = []
    for ringing, taken, minutes in steps:
        site.failing = {} if taken else {"mail": "no"}
        last = [ALARMS[number] for number in sorted(ringing)]
        site.run(*last, minutes=minutes)
    site.failing = {}
    site.run(*last, minutes=15)
    believed: set[str] = set()
    for _name, message in site.heard:
        for fact in message["alerts"]:
            if fact["state"] == "new":
                assert fact["name"] not in believed
                believed.add(fact["name"])
            elif fact["state"] == "over":
                assert fact["name"] in believed
                believed.remove(fact["name"])
    hidden = notify.quiet(last)
    visible = {alert.name for alert in last if alert.key not in hidden}
    assert visible <= believed <= {alert.name for alert in last}
    assert site.run(*last, minutes=30) == []


@pytest.mark.parametrize("severity", ["warning", "critical"])
def test_a_told_alarm_comes_back_from_the_disk(severity: str) -> None:
    told = alarm("X", severity, ("Y",), b="2", a="1")
    assert notify.kept_alert(json.loads(json.dumps(told._asdict()))) == told
