# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets that receivers of alarms name."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.alert_receivers import alert_receivers
from ansible_collections.civitas.hosting.plugins.filter.alert_secrets import alert_secrets

WRITTEN = [
    {"name": "team", "email": {"to": ["administrators@example.org"]}},
    {"name": "chat", "webhook": {"url_secret": "chat_url", "token_secret": "chat_token", "format": "matrix"}},
    {"name": "other", "severities": ["critical"], "webhook": {"url_secret": "chat_url"}},
    {
        "name": "duty",
        "sms": {"url_secret": "sms_url", "headers_secret": {"Authorization": "sms_token", "X-Account": "sms_account"}, "numbers": ["+100"]},
    },
]
SECRETS = {name: f"the {name}" for name in ("chat_url", "chat_token", "sms_url", "sms_token", "sms_account")}


def test_each_secret_is_named_once():
    assert alert_secrets(WRITTEN) == list(SECRETS)
    assert alert_secrets([]) == []


def test_roles_get_values_and_no_names():
    team, chat, other, duty = alert_receivers(WRITTEN, SECRETS)
    assert team == WRITTEN[0]
    assert chat["webhook"] == {"url": "the chat_url", "token": "the chat_token", "format": "matrix"}
    assert other == {"name": "other", "severities": ["critical"], "webhook": {"url": "the chat_url"}}
    assert duty["sms"]["headers"] == {"Authorization": "the sms_token", "X-Account": "the sms_account"}
    assert "url_secret" not in duty["sms"] and duty["sms"]["numbers"] == ["+100"]


def test_a_value_that_is_missing_is_an_error_that_quotes_nothing():
    with pytest.raises(AnsibleFilterError, match=r"alert_receivers: KeyError$"):
        alert_receivers(WRITTEN, {"chat_url": "canary"})
    with pytest.raises(AnsibleFilterError, match=r"alert_secrets: AttributeError$"):
        alert_secrets(["canary"])
