# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what, and when: each alarm once, again while it lasts, and once when it is over.

Nothing is queued: what a receiver was told is kept for each of them, and what it does not know yet is found anew every time. So what could
not be delivered is delivered later as things are then, and what nobody heard is never taken for told.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import copy
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._alert_receivers import Receiver
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import ALL, Alert, kept_alert
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import PAGES, Told, compose, occasion
from ansible_collections.civitas.hosting.plugins.module_utils._alert_window import Window
from ansible_collections.civitas.hosting.plugins.module_utils._login_text import utc
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Undelivered

# What still rings is told again after so many seconds.
REMIND = {"critical": 4 * 3600.0, "warning": 86400.0}
# So long warnings are gathered.
SETTLE = 120.0
# So many times that an alarm must be quiet before it is over: one that flickers is told once, and the alarms of a host that falls silent
# end minutes before it is known that they say nothing.
QUIET = 3
# Seconds to wait after the first, second ... failure in a row; with a run every minute, what comes back is found within five.
WAITS = (0.0, 60.0, 120.0, 180.0)
# A receiver that has failed for so long is a matter for the others.
UNREACHABLE = 900.0
UNREACHABLE_RULE, UNREACHABLE_PAGE = "ReceiverUnreachable", "alerts.md#receiver"

State = t.Dict[str, t.Any]
Send = t.Callable[[Receiver, t.Mapping[str, t.Any]], None]


class Plan(t.NamedTuple):
    """What is to be told one receiver now, what is kept when it took that (or there was nothing), and what when it did not."""

    message: t.Optional[t.Dict[str, t.Any]]
    after: State
    otherwise: State


class Notifier:
    """One program's receivers.

    Args:
        host: who tells.
        state: what is kept, by receiver; changed in place.
        save: keeps C(state); called after every message that was taken, so that a cut does not repeat it.
        send: hands one message to one receiver, or raises Undelivered.
        say: a line for the journal, with its severity as in syslog.
    """

    def __init__(
        self,
        receivers: t.Sequence[Receiver],
        host: str,
        state: State,
        save: t.Callable[[], None],
        send: Send,
        say: t.Callable[[int, str], None],
        settle: float = SETTLE,
        pages: str = PAGES,
    ) -> None:
        self.receivers = receivers
        self.host = host
        self.state = state
        self.save = save
        self.send = send
        self.say = say
        self.settle = settle
        self.pages = pages

    def run(self, alerts: t.Sequence[Alert], window: t.Optional[Window], now: float) -> bool:
        """Tell what there is to tell; returns whether everybody could be told."""
        names = [receiver.name for receiver in self.receivers]
        for name in [name for name in self.state if name not in names]:
            del self.state[name]
        failing = [alert for receiver in self.receivers for alert in self.unreachable(receiver, now)]
        for receiver in self.receivers:
            others = [alert for alert in failing if ("receiver", receiver.name) not in alert.labels]
            self.tell(receiver, [*alerts, *others], window, now)
        self.save()
        return not any(self.state[name].get("problem") for name in names)

    def tell(self, receiver: Receiver, alerts: t.Sequence[Alert], window: t.Optional[Window], now: float) -> None:
        state = self.state.get(receiver.name, {})
        plan = planned(receiver, state, alerts, window, self.host, now, self.settle, self.pages)
        if plan.message is None:
            self.state[receiver.name] = plan.after
            return
        failures = int(state.get("failures", 0))
        self.state[receiver.name] = plan.otherwise
        if 0 <= now - float(state.get("tried", 0.0)) < WAITS[min(failures, len(WAITS) - 1)]:
            return
        try:
            self.send(receiver, plan.message)
        except Undelivered as error:
            problem = str(error)
            if state.get("problem") != problem:
                self.say(3, f"{receiver.name}: {problem}; it is tried again")
            since = float(state.get("since") or now)
            self.state[receiver.name] = {**plan.otherwise, "problem": problem, "since": since, "tried": now, "failures": failures + 1}
            return
        if state.get("problem"):
            self.say(5, f"{receiver.name}: messages are taken again")
        self.say(5, f"{receiver.name} was told: {plan.message['subject']}")
        self.state[receiver.name] = {
            key: value for key, value in plan.after.items() if key not in ("problem", "since", "tried", "failures")
        }
        self.save()

    def unreachable(self, receiver: Receiver, now: float) -> t.List[Alert]:
        """The alarm that a receiver cannot be told anything."""
        state = self.state.get(receiver.name, {})
        since = float(state.get("since") or now)
        if not state.get("problem") or now - since < UNREACHABLE:
            return []
        text = f"{receiver.name} cannot be told of alarms: {state['problem']}."
        labels = (("receiver", receiver.name),)
        return [Alert(UNREACHABLE_RULE, self.host, "critical", labels, text, since, UNREACHABLE_PAGE)]


def quiet(alerts: t.Sequence[Alert]) -> t.Set[str]:
    """The keys of alarms of which another says more."""
    blind = unknown_hosts(alerts)
    named = {(alert.host, name, alert.labels) for alert in alerts for name in alert.inhibits}
    return {
        alert.key
        for alert in alerts
        if (alert.host, alert.name, alert.labels) in named or (alert.host in blind and ALL not in alert.inhibits)
    }


def unknown_hosts(alerts: t.Iterable[Alert]) -> t.Set[str]:
    """The hosts of which nothing is known: that an alarm of theirs does not ring says nothing."""
    return {alert.host for alert in alerts if ALL in alert.inhibits}


def planned(
    receiver: Receiver,
    state: t.Mapping[str, t.Any],
    alerts: t.Sequence[Alert],
    window: t.Optional[Window],
    host: str,
    now: float,
    settle: float = SETTLE,
    pages: str = PAGES,
) -> Plan:
    """What one receiver does not know yet.

    What is kept of a receiver: C(told), by key of the alarm: it as it was told, C(at) when the last time, C(gone) since when it does not
    ring any more; C(fresh), by key since when it waits to be told; C(window), the maintenance that it knows of.
    """
    kept: State = copy.deepcopy({"told": {}, "fresh": {}, **state})
    told: t.Dict[str, t.Dict[str, t.Any]] = kept["told"]
    ringing = {alert.key: alert for alert in alerts if alert.severity in receiver.severities}
    blind = unknown_hosts(alerts)
    for key, entry in told.items():
        if key in ringing or entry["alert"]["host"] in blind:
            entry.pop("gone", None)
        else:
            entry["gone"] = min(entry.get("gone", now), now)
    hidden = quiet(list(ringing.values()))
    unknown = [alert for key, alert in ringing.items() if key not in told and key not in hidden]
    fresh = kept["fresh"] = {alert.key: min(kept["fresh"].get(alert.key, now), now) for alert in unknown}

    known = Window(*kept["window"]) if kept.get("window") else None
    if window is not None:
        if window == known:
            return Plan(None, kept, kept)
        note = f"Alarms of {host} are held back until {utc(window.until)}: {window.reason}"
        message = compose(host, [], occasion(receiver.name, [], [window.until], note), note, pages)
        return Plan(message, {**kept, "window": list(window)}, kept)

    over = [key for key, entry in told.items() if "gone" in entry and (known or now - entry["gone"] >= QUIET * settle)]
    again = [key for key in ringing if key in told and key not in hidden and not 0 <= now - told[key]["at"] < REMIND[ringing[key].severity]]
    due = any(alert.severity == "critical" or now - fresh[alert.key] >= settle for alert in unknown)
    if not (over or again or due or known):
        return Plan(None, kept, kept)
    news = [
        *(Told("new", alert) for alert in unknown),
        *(Told("still", ringing[key]) for key in again),
        *(Told("over", kept_alert(told[key]["alert"]), told[key]["gone"]) for key in over),
    ]
    note = f"Alarms of {host} are told again: the time for its maintenance is over." if known else ""
    message = compose(host, news, occasion(receiver.name, news, [told[key]["at"] for key in again], note), note, pages)
    after: State = {**copy.deepcopy(kept), "fresh": {}}
    after.pop("window", None)
    for key in over:
        del after["told"][key]
    for alert in [*unknown, *(ringing[key] for key in again)]:
        after["told"][alert.key] = {"alert": alert._asdict(), "at": now}
    return Plan(message, after, kept)
