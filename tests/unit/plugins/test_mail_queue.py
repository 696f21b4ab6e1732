# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from the queue, what is wrong with it, and what of that is told."""

from __future__ import annotations

import json

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._mail_queue import (
    REMIND,
    Limits,
    Mail,
    Seen,
    metrics,
    news,
    parse,
    problems,
    without_addresses,
)

NOW = 1_800_000_000.0
LIMITS = Limits(600, 3, 512 * 2**20)
TLS = "TLS is required, but was not offered by host mail.example.org[192.0.2.1]"


def mail(queue="deferred", age=0.0, reason="", size=1000):
    return Mail(queue, NOW - age, size, reason)


def seen(*mails, running=True, free=2**30, fault=""):
    return Seen(running, free, list(mails), fault)


def test_what_postqueue_prints():
    lines = [
        {
            "queue_name": "deferred",
            "queue_id": "4ZJ",
            "arrival_time": 1799999000,
            "message_size": 420,
            "forced_expire": False,
            "sender": "registry@example.org",
            "recipients": [
                {"address": "a@example.net"},
                {"address": "b@example.net", "delay_reason": f"{TLS} said: <b@example.net>: no\n again"},
            ],
        },
        {"queue_name": "active", "queue_id": "4ZK", "arrival_time": 1799999999, "message_size": 7, "sender": "", "recipients": []},
    ]
    found = parse("".join(json.dumps(line) + "\n" for line in lines))
    assert found == [
        Mail("deferred", 1799999000.0, 420, f"{TLS} said: <...>: no again"),
        Mail("active", 1799999999.0, 7, ""),
    ]
    assert parse("") == []


@pytest.mark.parametrize("shown", ["Mail queue is empty", "{}", "[]", "1"])
def test_what_it_does_not_print(shown):
    with pytest.raises((ValueError, KeyError, TypeError)):
        parse(shown)


def test_nobody_is_named():
    assert without_addresses("host x[192.0.2.1] said: 550 <amina.o'neil+x@example.org> unknown, try b@c") == (
        "host x[192.0.2.1] said: 550 <...> unknown, try <...>"
    )
    assert len(without_addresses("x" * 10_000)) == 300


def test_the_oldest_and_the_usual_reason():
    found = seen(mail(age=9, reason="a"), mail(age=700, reason=TLS), mail(age=5, reason=TLS), mail("hold", 9999), mail("active"))
    assert (found.oldest(NOW), found.reason, len(found.moving)) == (700, TLS, 4)
    assert (seen().oldest(NOW), seen().reason) == (0, "")
    assert seen(mail(age=-50)).oldest(NOW) == 0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (seen(), {}),
        (seen(mail(age=600)), {}),
        (seen(mail("hold", 10_000)), {}),
        (seen(mail(age=601, reason=TLS)), {"late": f"1 mail waits, the oldest for 10 minutes ({TLS}). See 'postqueue -p'"}),
        (seen(mail("maildrop", 1200), mail()), {"late": "2 mails wait, the oldest for 20 minutes. See 'postqueue -p'"}),
        (seen(*[mail()] * 3), {}),
        (seen(*[mail()] * 4), {"many": "4 mails wait, more than 3. See 'postqueue -p' for who sends so many"}),
        (seen(running=False), {"stopped": "Postfix does not run; mail of this host waits. See 'journalctl -u postfix*'"}),
        (seen(fault="main.cf: x"), {"unreadable": "what waits for delivery cannot be told: main.cf: x"}),
    ],
)
def test_problems(given, wanted):
    assert problems(given, LIMITS, NOW) == wanted


def test_a_full_disk():
    assert "has 511 MiB left, less than 512" in problems(seen(free=512 * 2**20 - 1), LIMITS, NOW)["full"]
    assert problems(seen(free=512 * 2**20), LIMITS, NOW) == {}


def test_it_is_told_once_a_day_and_when_it_is_over():
    lines, told = news({"late": "a"}, {}, NOW)
    assert (lines, told) == (["a"], {"late": NOW})
    assert news({"late": "a, for longer"}, told, NOW + 120) == ([], told)
    assert news({"late": "b"}, told, NOW + REMIND) == (["b"], {"late": NOW + REMIND})
    assert news({}, told, NOW + 120) == (["Mail leaves this host again."], {})
    assert news({}, {}, NOW) == ([], {})


def test_something_new_is_told_with_what_is_known():
    told = {"late": NOW}
    assert news({"late": "a", "full": "b"}, told, NOW + 60) == (["a", "b"], {"late": NOW + 60, "full": NOW + 60})


def test_a_part_that_is_over_is_no_news_and_is_news_when_it_comes_back():
    told = {"late": NOW, "full": NOW}
    lines, told = news({"late": "a"}, told, NOW + 60)
    assert (lines, told) == ([], {"late": NOW})
    assert news({"late": "a", "full": "b"}, told, NOW + 120)[0] == ["a", "b"]


def test_a_clock_that_was_set_back_does_not_silence():
    assert news({"late": "a"}, {"late": NOW + 10}, NOW)[0] == ["a"]


def test_metrics():
    shown = metrics(seen(mail(age=30, size=5), mail("active", size=6)), {"late": "a"}, NOW)
    lines = shown.splitlines()
    assert shown.endswith("\n") and len([line for line in lines if line.startswith("# TYPE")]) == 7
    for line in (
        "civitas_mail_running 1",
        'civitas_mail_queue_messages{queue="deferred"} 1',
        'civitas_mail_queue_messages{queue="hold"} 0',
        'civitas_mail_queue_bytes{queue="active"} 6',
        "civitas_mail_queue_oldest_seconds 30",
        f"civitas_mail_queue_free_bytes {2**30}",
        "civitas_mail_problems 1",
        "civitas_mail_watch_timestamp_seconds 1800000000",
    ):
        assert line in lines, line
