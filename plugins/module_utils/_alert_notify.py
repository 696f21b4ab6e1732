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
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import ALL, Alert, is_drill, kept_alert, kept_number
from ansible_collections.civitas.hosting.plugins.module_utils._alert_text import PAGES, PROGRAM, Told, compose, occasion
from ansible_collections.civitas.hosting.plugins.module_utils._alert_window import Held, Window
from ansible_collections.civitas.hosting.plugins.module_utils._login_text import utc

# What still rings is told again after so many seconds.
REMIND = {"critical": 4 * 3600.0, "warning": 86400.0}
# So long warnings are gathered.
SETTLE = 120.0
# So long a warning goes into no message of others: what says more of the same may be on its way, as Alertmanager tells of each severity
# by itself, once a minute.
ALONE = 75.0
# So many times that an alarm must be quiet before it is over: one that flickers is told once, and the alarms of a host that falls silent
# end minutes before it is known that they say nothing.
QUIET = 3
# Seconds to wait after the first, second ... failure in a row; with a run every minute, what comes back is found within five.
WAITS = (0.0, 60.0, 120.0, 180.0)
# A receiver that has failed for so long is a matter for the others.
UNREACHABLE = 900.0
UNREACHABLE_RULE, UNREACHABLE_PAGE = "ReceiverUnreachable", "alerts.md#receiver"

State = t.Dict[str, t.Any]
# Gives the name of each receiver and its problem, which is empty when it took its message.
Send = t.Callable[[t.Sequence[t.Tuple[Receiver, t.Mapping[str, t.Any]]]], t.Iterable[t.Tuple[str, str]]]


def kept_state(document: t.Any) -> State:
    """What is kept of a receiver, also by another release. An alarm that cannot be read counts as not told."""
    found = document if isinstance(document, dict) else {}
    told: State = {}
    for entry in _mapping(found.get("told")).values():
        alert = kept_alert(_mapping(entry).get("alert"))
        if alert is not None:
            gone = {"gone": kept_number(entry["gone"])} if "gone" in entry else {}
            told[alert.key] = {"alert": alert._asdict(), "at": kept_number(entry.get("at")), **gone}
    state: State = {"told": told, "fresh": {str(key): kept_number(since) for key, since in _mapping(found.get("fresh")).items()}}
    window = found.get("window")
    if isinstance(window, (list, tuple)) and len(window) == 2:
        state["window"] = [kept_number(window[0]), str(window[1])]
    held = {str(host): _kept_facts(facts) for host, facts in _mapping(found.get("held")).items()}
    if held:
        state["held"] = {host: facts for host, facts in held.items() if facts}
    if found.get("problem"):
        state["problem"] = str(found["problem"])
        state.update({key: kept_number(found.get(key)) for key in ("since", "tried")})
        state["failures"] = max(0, int(kept_number(found.get("failures"))))
    return state


def _kept_facts(facts: t.Any) -> t.List[t.Any]:
    """What is known to be held back of a host; nothing when it cannot be read, so that it is told anew."""
    if isinstance(facts, list) and len(facts) == 3 and isinstance(facts[0], list):
        return [[str(name) for name in facts[0]], kept_number(facts[1]), str(facts[2])]
    return []


def _mapping(value: t.Any) -> t.Mapping[str, t.Any]:
    return value if isinstance(value, dict) else {}


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
        save: keeps C(state); called whenever it is known whether a receiver took its message, so that a cut does not repeat it.
        send: hands a message to each of some receivers.
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
        program: str = PROGRAM,
    ) -> None:
        self.receivers = receivers
        self.host = host
        self.state = state
        self.save = save
        self.send = send
        self.say = say
        self.settle = settle
        self.pages = pages
        self.program = program

    def run(self, alerts: t.Sequence[Alert], window: t.Optional[Window], now: float, held: t.Sequence[Held] = ()) -> bool:
        """Tell what there is to tell; returns whether everybody could be told."""
        names = [receiver.name for receiver in self.receivers]
        # Others look at it meanwhile: at no moment it lacks a receiver.
        for name in list(self.state):
            if name in names:
                self.state[name] = kept_state(self.state[name])
            else:
                del self.state[name]
        failing = [alert for receiver in self.receivers for alert in self.unreachable(receiver, now)]
        plans: t.Dict[str, t.Tuple[Receiver, Plan, State]] = {}
        for receiver in self.receivers:
            others = [alert for alert in failing if ("receiver", receiver.name) not in alert.labels]
            before = self.state.get(receiver.name, {})
            plan = planned(receiver, before, [*alerts, *others], window, self.host, now, self.settle, self.pages, self.program, held)
            self.state[receiver.name] = plan.after if plan.message is None else plan.otherwise
            wait = WAITS[min(before.get("failures", 0), len(WAITS) - 1)]
            if plan.message is not None and not 0 <= now - before.get("tried", 0.0) < wait:
                plans[receiver.name] = (receiver, plan, before)
        self.save()
        # Who hangs takes the time of none that takes messages.
        order = sorted(plans.values(), key=lambda one: one[2].get("failures", 0))
        for name, problem in self.send([(receiver, plan.message) for receiver, plan, _before in order if plan.message is not None]):
            self.remember(name, problem, *plans[name][1:], now)
            self.save()
        return not any(self.state[name].get("problem") for name in names)

    def remember(self, name: str, problem: str, plan: Plan, before: State, now: float) -> None:
        """What is known of a receiver after it was told, or was not."""
        if problem:
            if before.get("problem") != problem:
                self.say(3, f"{name}: {problem}; it is tried again")
            failed = {"problem": problem, "since": before.get("since") or now, "tried": now, "failures": before.get("failures", 0) + 1}
            self.state[name] = {**plan.otherwise, **failed}
            return
        if before.get("problem"):
            self.say(5, f"{name}: messages are taken again")
        self.say(5, f"{name} was told: {plan.message['subject'] if plan.message else ''}")
        self.state[name] = {key: value for key, value in plan.after.items() if key not in ("problem", "since", "tried", "failures")}

    def unreachable(self, receiver: Receiver, now: float) -> t.List[Alert]:
        """The alarm that a receiver cannot be told anything."""
        state = self.state.get(receiver.name, {})
        since = _failing_since(state, now)
        if now - since < UNREACHABLE:
            return []
        text = f"{receiver.name} cannot be told of alarms: {state['problem']}."
        labels = (("receiver", receiver.name),)
        return [Alert(UNREACHABLE_RULE, self.host, "critical", labels, text, since, UNREACHABLE_PAGE)]


def nobody_hears(receivers: t.Sequence[Receiver], state: t.Mapping[str, t.Any], now: float) -> bool:
    """Whether all who hear critical alarms have failed for long. A site without any has chosen that."""
    hearing = [receiver for receiver in receivers if "critical" in receiver.severities]
    return bool(hearing) and all(_failing_since(state.get(receiver.name), now) <= now - UNREACHABLE for receiver in hearing)


def _failing_since(document: t.Any, now: float) -> float:
    """Now for one that does not fail."""
    state = kept_state(document)
    return (state["since"] or now) if state.get("problem") else now


def quiet(alerts: t.Sequence[Alert]) -> t.Set[str]:
    """The keys of alarms of which another says more."""
    blind = unknown_hosts(alerts)
    named = {(alert.host, name, alert.labels) for alert in alerts for name in alert.inhibits}
    return {alert.key for alert in alerts if (alert.host, alert.name, alert.labels) in named or (alert.inside and alert.host in blind)}


def unknown_hosts(alerts: t.Iterable[Alert]) -> t.Set[str]:
    """The hosts that say nothing of themselves: that such an alarm of theirs does not ring says nothing either."""
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
    program: str = PROGRAM,
    held: t.Sequence[Held] = (),
) -> Plan:
    """What one receiver does not know yet.

    What is kept of a receiver: C(told), by key of the alarm: it as it was told, C(at) when the last time, C(gone) since when it does not
    ring any more; C(fresh), by key since when it waits to be told; C(window), the maintenance that it knows of;
    C(held), by host what it knows to be held back.
    """
    kept: State = copy.deepcopy({"told": {}, "fresh": {}, **state})
    told: t.Dict[str, t.Dict[str, t.Any]] = kept["told"]
    before = {key: alert for key, entry in told.items() for alert in [kept_alert(entry["alert"])] if alert is not None}
    ringing = {alert.key: alert for alert in alerts if alert.severity in receiver.severities}
    blind = unknown_hosts(alerts)
    for key, entry in told.items():
        alert = before[key]
        if key in ringing or (alert.inside and alert.host in blind) or _is_held(held, alert.host, alert.name):
            entry.pop("gone", None)
        else:
            entry["gone"] = min(entry.get("gone", now), now)
    hidden = quiet(list(ringing.values())) | {key for key, alert in ringing.items() if _is_held(held, alert.host, alert.name)}
    unknown = [alert for key, alert in ringing.items() if key not in told and key not in hidden]
    fresh = kept["fresh"] = {alert.key: min(kept["fresh"].get(alert.key, now), now) for alert in unknown}

    known = Window(*kept["window"]) if kept.get("window") else None
    if window is not None:
        if window == known:
            return Plan(None, kept, kept)
        note = f"Alarms of {host} are held back until {utc(window.until)}: {window.reason}"
        message = compose(host, [], occasion(receiver.name, [], [window.until], note), note, pages, program)
        return Plan(message, {**kept, "window": list(window)}, kept)

    known_held: t.Dict[str, t.List[t.Any]] = kept.get("held", {})
    begun = [one for one in held if known_held.get(one.host) != one.facts()]
    ended = {name: facts for name, facts in known_held.items() if name not in [one.host for one in held]}
    # An alarm of a drill never stands beside a real one, of which people would read that nothing is wrong; it waits for the next run.
    for drills in (False, True):
        waited = {alert.key: settle if alert.severity == "critical" else now - fresh[alert.key] for alert in unknown}
        chosen = [alert for alert in unknown if is_drill(alert) is drills and waited[alert.key] >= min(ALONE, settle)]
        over = [
            key
            for key, entry in told.items()
            if "gone" in entry and (known or now - entry["gone"] >= QUIET * settle) and is_drill(before[key]) is drills
        ]
        again = [
            key
            for key, alert in ringing.items()
            if key in told and key not in hidden and not 0 <= now - told[key]["at"] < REMIND[alert.severity] and is_drill(alert) is drills
        ]
        due = any(waited[alert.key] >= settle for alert in chosen)
        if over or again or due or known or begun or ended:
            break
    else:
        since = _failing_since(kept, now)
        if now - since < UNREACHABLE:
            return Plan(None, kept, kept)
        # What was to be told is over. Without a message nobody would ever know that it takes some again.
        note = f"Alarms of {host} could not be told here since {utc(since)}. This can, and what rings comes by itself."
        return Plan(compose(host, [], occasion(receiver.name, [], [since], note), note, pages, program), kept, kept)
    news = [
        *(Told("new", alert) for alert in chosen),
        *(Told("still", ringing[key]) for key in again),
        *(Told("over", before[key], told[key]["gone"]) for key in over),
    ]
    notes = [f"Alarms of {host} are told again: the time for its maintenance is over."] if known else []
    notes += [f"{_named(one.host, one.alarms)} are held back until {utc(one.until)}: {one.reason.rstrip('.')}." for one in begun]
    notes += [f"{_named(name, facts[0])} are told again: the time for its maintenance is over." for name, facts in ended.items()]
    note = " ".join(notes)
    # The end of each maintenance is another occasion, though it has the same words.
    times = [*(told[key]["at"] for key in again), *(facts[1] for facts in ended.values()), *([known.until] if known else [])]
    message = compose(host, news, occasion(receiver.name, news, times, note), note, pages, program)
    after: State = {**copy.deepcopy(kept), "held": {one.host: one.facts() for one in held}}
    after.pop("window", None)
    for key in over:
        del after["told"][key]
    for alert in [*chosen, *(ringing[key] for key in again)]:
        after["fresh"].pop(alert.key, None)
        after["told"][alert.key] = {"alert": alert._asdict(), "at": now}
    return Plan(message, after, kept)


def _is_held(held: t.Iterable[Held], host: str, name: str) -> bool:
    return any(one.holds(host, name) for one in held)


def _named(host: str, alarms: t.Sequence[str]) -> str:
    return f"{'Alarms' if not alarms else ' and '.join(alarms) + ' alarms'} of {host}"
