# SPDX-License-Identifier: GPL-3.0-or-later
"""Every mistake in the variables of the announcement is named, and no secret."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._login_preflight import problems

SMTP = {"host": "mail.example.org", "from": "logins@example.org", "to": ["admins@example.org"]}
GOOD = {
    "smtp": SMTP,
    "webhook": {"url": "https://chat.example.org/hooks/canary"},
    "automation": "each",
    "automation_minutes": 60,
    "host": "records-1",
    "record_weeks": 60,
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"smtp": {}, "webhook": {}},
        {"smtp": {**SMTP, "user": "u", "password": "p", "port": 2525, "tls": "tls", "ca_file": "/etc/civitas/ca.pem"}},
        {"smtp": {**SMTP, "host": "127.0.0.1", "tls": "none"}},
        {"smtp": {**SMTP, "host": "2001:db8::1"}},
        {"automation": "summary", "automation_minutes": "15"},
    ],
)
def test_right_variables(changes):
    assert problems({**GOOD, **changes}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smtp": "mail.example.org"}, "a text; write a mapping"),
        ({"smtp": {**SMTP, "hostt": "x"}}, "'hostt', which means nothing; known are host"),
        ({"smtp": {**SMTP, "host": ""}}, "smtp.host is ''"),
        ({"smtp": {**SMTP, "port": 70000}}, "70000; write a number from 1 to 65535"),
        ({"smtp": {**SMTP, "tls": "ssl"}}, "'ssl'; write starttls"),
        ({"smtp": {**SMTP, "tls": "none"}}, "in clear"),
        ({"smtp": {**SMTP, "user": "u"}}, "user or password and not the other"),
        ({"smtp": {**SMTP, "user": "u", "password": "canary\nx"}}, "line end"),
        ({"smtp": {**SMTP, "password": ["canary"], "user": "u"}}, "password is a list"),
        ({"smtp": {**SMTP, "from": "logins"}}, "'logins'; write a mail address"),
        ({"smtp": {**SMTP, "from": "a@example.org\nBcc: x@example.org"}}, "write a mail address"),
        ({"smtp": {**SMTP, "to": []}}, "to is no list of addresses"),
        ({"smtp": {**SMTP, "to": "admins@example.org"}}, "to is no list of addresses"),
        ({"smtp": {**SMTP, "to": ["admins@example.org", "x y@z"]}}, "'x y@z'; write a mail address"),
        ({"webhook": {"url": "http://chat.example.org/canary"}}, "it must be https"),
        ({"webhook": {"url": "https://chat.example.org/canary x"}}, "it must be https"),
        ({"webhook": {"url": "https://u:canary@chat.example.org/"}}, "it must be https"),
        ({"webhook": {"url": "https://chat.example.org:canary/"}}, "it must be https"),
        ({"webhook": {}, "smtp": {}, "automation": "none"}, "'none'; write each or summary"),
        ({"webhook": {**GOOD["webhook"], "format": "teams"}}, "'teams'; write generic"),
        ({"automation_minutes": 0}, "write a number from 1 to 1440"),
        ({"record_weeks": True}, "write a number from 1 to 1000"),
        ({"host": "records 1"}, "write a name of letters"),
    ],
)
def test_mistakes_are_named_and_secrets_are_not(changes, words):
    (problem,) = problems({**GOOD, **changes})
    assert words in problem
    assert "canary" not in problem


def test_all_at_once():
    assert len(problems({**GOOD, "smtp": {"host": "", "from": "", "to": []}, "webhook": {"url": ""}})) == 4
