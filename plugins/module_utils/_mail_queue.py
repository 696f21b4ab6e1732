# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits in Postfix's queue, what is wrong with that, and what of it is told to whom.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import collections
import json
import re
import typing as t

QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
# What is still wrong after a day is told again.
REMIND = 86400.0
# Problems with which mail leaves nevertheless.
_SIGNED = {"signature", "signing"}
_ADDRESS = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?")


class Mail(t.NamedTuple):
    """One mail that waits.

    Attributes:
        queue: one of C(QUEUES).
        arrived: when, in seconds since 1970.
        size: in bytes.
        reason: why it was not delivered, without addresses; empty when that was not tried yet.
    """

    queue: str
    arrived: float
    size: int
    reason: str


class Seen(t.NamedTuple):
    """The host at one moment.

    Attributes:
        running: whether Postfix runs.
        free: bytes left for the queue.
        mails: all that waits.
        fault: why the queue cannot be read; empty when it can.
    """

    running: bool
    free: int
    mails: t.Sequence[Mail]
    fault: str = ""

    @property
    def moving(self) -> t.List[Mail]:
        """All that should leave by itself; what is on hold was stopped by somebody."""
        return [mail for mail in self.mails if mail.queue != "hold"]

    def oldest(self, now: float) -> float:
        """For how many seconds the oldest mail waits; a clock that was set back does not count."""
        return max([0.0, *(now - mail.arrived for mail in self.moving)])

    @property
    def reason(self) -> str:
        """Why most of it waits."""
        reasons = collections.Counter(mail.reason for mail in self.moving if mail.reason)
        return reasons.most_common(1)[0][0] if reasons else ""


class Limits(t.NamedTuple):
    """From when on it is wrong: seconds that a mail waits, mails that wait, bytes that must be free."""

    seconds: float
    mails: int
    free: int


def parse(shown: str) -> t.List[Mail]:
    """Read what C(postqueue -j) prints, a mail a line. Raises ValueError."""
    mails = []
    for line in shown.splitlines():
        found = json.loads(line)
        reasons = [recipient.get("delay_reason", "") for recipient in found["recipients"]]
        reason = without_addresses(next(filter(None, reasons), ""))
        mails.append(Mail(str(found["queue_name"]), float(found["arrival_time"]), int(found["message_size"]), reason))
    return mails


def without_addresses(reason: str) -> str:
    """Who gets mail is nobody's business where alerts go, and differs from mail to mail."""
    return _ADDRESS.sub("<...>", " ".join(reason.split()))[:300]


def problems(seen: Seen, limits: Limits, now: float) -> t.Dict[str, str]:
    """What is wrong, by a key that stays the same while it lasts."""
    found = {}
    if not seen.running:
        found["stopped"] = "Postfix does not run; mail of this host waits. See 'journalctl -u postfix*'"
    if seen.fault:
        found["unreadable"] = f"what waits for delivery cannot be told: {seen.fault}"
    if seen.free < limits.free:
        found["full"] = (
            f"the disk of the mail queue has {seen.free // 2**20} MiB left, less than {limits.free // 2**20}; mail is not taken. "
            "See 'df -h /var/spool/postfix'"
        )
    if seen.oldest(now) > limits.seconds:
        why = f" ({seen.reason})" if seen.reason else ""
        found["late"] = f"{_count(len(seen.moving))}, the oldest for {seen.oldest(now) / 60:.0f} minutes{why}. See 'postqueue -p'"
    if len(seen.moving) > limits.mails:
        found["many"] = f"{_count(len(seen.moving))}, more than {limits.mails}. See 'postqueue -p' for who sends so many"
    return found


def _count(number: int) -> str:
    return "1 mail waits" if number == 1 else f"{number} mails wait"


def news(found: t.Mapping[str, str], told: t.Mapping[str, float], now: float) -> t.Tuple[t.List[str], t.Dict[str, float]]:
    """Lines to tell now, and what has been told after that: for each key when it was told the last time.

    All that is wrong is told when one thing is new, or was told a day ago; and once that all is well again.
    """
    due = [key for key in found if not 0 <= now - told.get(key, -REMIND) < REMIND]
    if due:
        return list(found.values()), dict.fromkeys(found, now)
    if told and not found:
        return ["Mail leaves this host again." if set(told) - _SIGNED else "Mail of this host is signed as it should be."], {}
    return [], {key: told[key] for key in found}


def metrics(seen: Seen, found: t.Mapping[str, str], now: float) -> str:
    """The text format of Prometheus."""
    lines: t.List[str] = []

    def gauge(name: str, title: str, values: t.Mapping[str, float]) -> None:
        lines.extend([f"# HELP {name} {title}", f"# TYPE {name} gauge"])
        lines.extend(f"{name}{labels} {value:.0f}" for labels, value in values.items())

    sizes: t.Dict[str, t.List[int]] = {queue: [] for queue in QUEUES}
    for mail in seen.mails:
        sizes.setdefault(mail.queue, []).append(mail.size)
    gauge("civitas_mail_running", "1 when Postfix runs.", {"": float(seen.running)})
    gauge("civitas_mail_queue_messages", "Mails that wait.", {f'{{queue="{queue}"}}': len(each) for queue, each in sizes.items()})
    gauge("civitas_mail_queue_bytes", "Their size.", {f'{{queue="{queue}"}}': sum(each) for queue, each in sizes.items()})
    gauge("civitas_mail_queue_oldest_seconds", "For how long the oldest waits that is not on hold.", {"": seen.oldest(now)})
    gauge("civitas_mail_queue_free_bytes", "Place that is left for the queue.", {"": seen.free})
    gauge("civitas_mail_problems", "How much of what the host's own watch looks for is wrong.", {"": len(found)})
    gauge("civitas_mail_watch_timestamp_seconds", "When this was measured.", {"": now})
    return "\n".join(lines) + "\n"
