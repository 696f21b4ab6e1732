# SPDX-License-Identifier: GPL-3.0-or-later
"""Every mistake in the variables of the mail relay is named, and no secret."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.mail_relay_problems import FilterModule
from ansible_collections.civitas.hosting.plugins.module_utils._mail_preflight import problems

HOST = {"host": "mail.example.org", "user": "registry", "password": "canary"}
DKIM = {"domain": "example.org", "selector": "registry1-server1"}
HOOK = {"url": "https://chat.example.org/hooks/canary"}
GOOD = {
    "smarthost": HOST,
    "sender": "registry@example.org",
    "allowed_senders": ["records.example.org", "office+a@example.net"],
    "root_to": ["admins@example.org"],
    "hostname": "server1.example.org",
    "listen_addresses": ["172.30.0.1"],
    "client_networks": ["172.30.128.0/17", "fd00::/64"],
    "message_megabytes": 25,
    "minimum_free_megabytes": 512,
    "queue_days": 5,
    "seconds_between_messages": 1,
    "client_messages_per_minute": 120,
    "alert_minutes": 10,
    "alert_messages": 200,
    "webhook": HOOK,
    "dkim": {},
    "metrics_directory": "/var/lib/civitas/metrics",
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"webhook": {}, "listen_addresses": [], "client_networks": [], "allowed_senders": []},
        {"smarthost": {"host": "mail.example.org", "port": 465, "tls": "tls", "ca_file": "/etc/civitas/ca.pem"}},
        {"smarthost": {**HOST, "host": "192.0.2.1", "tls_name": "mail.example.org"}},
        {"smarthost": {**HOST, "password": "canary with spaces: #$"}},
        {"dkim": DKIM, "allowed_senders": ["records.Example.org", "office@example.org"]},
        {"dkim": {"domain": "Example.org", "selector": "Mail.2026"}, "allowed_senders": []},
        {"queue_days": "3", "seconds_between_messages": 0},
        {"hostname": "server1.example.org", "sender": "root@example.org"},
    ],
)
def test_right_variables(changes):
    assert problems({**GOOD, **changes}) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smarthost": "mail.example.org"}, "a text; write a mapping"),
        ({"smarthost": {}}, "smarthost.host is ''; write the name"),
        ({"smarthost": {**HOST, "relay": "x"}}, "'relay', which means nothing; known are host"),
        ({"smarthost": {**HOST, "host": "192.0.2.1"}}, "an address; write the name that its certificate is for"),
        ({"smarthost": {**HOST, "host": "localhost"}}, "this host itself"),
        ({"smarthost": {**HOST, "host": "127.0.0.1", "tls_name": "x.org"}}, "this host itself"),
        ({"smarthost": {**HOST, "host": "mail.example.org\nx"}}, "write the name of the smarthost"),
        ({"smarthost": {**HOST, "tls_name": "192.0.2.1"}}, "write the name in the smarthost's certificate"),
        ({"smarthost": {**HOST, "tls_name": "$relayhost"}}, "write the name in the smarthost's certificate"),
        ({"smarthost": {**HOST, "port": 0}}, "write a number from 1 to 65535"),
        ({"smarthost": {**HOST, "tls": "none"}}, "nothing is ever sent in clear"),
        ({"smarthost": {**HOST, "tls": "may"}}, "write starttls (port 587) or tls (port 465)"),
        ({"smarthost": {**HOST, "ca_file": "ca.pem"}}, "write the path of a file on the host"),
        ({"smarthost": {**HOST, "ca_file": "/etc/$x"}}, "write the path of a file on the host"),
        ({"smarthost": {**HOST, "ca_file": 1}}, "write the path of a file on the host"),
        ({"smarthost": {**HOST, "password": ""}}, "user or password and not the other"),
        ({"smarthost": {**HOST, "password": 12345}}, "password is a number; write a text, in quotes"),
        ({"smarthost": {**HOST, "password": "canary\n"}}, "password begins or ends with a blank, or holds a line end"),
        ({"smarthost": {**HOST, "password": " canary"}}, "password begins or ends with a blank"),
        ({"smarthost": {**HOST, "user": "a:b"}}, "user holds a colon"),
        ({"sender": "registry"}, "mail_relay_sender is 'registry'; write the address"),
        ({"sender": "a/b@example.org"}, "write the address"),
        ({"sender": "root@server1.example.org"}, "is at server1.example.org, which is this host"),
        ({"root_to": []}, "nobody would read"),
        ({"root_to": "admins@example.org"}, "root_to is a text; write a list"),
        ({"root_to": ["example.org"]}, "root_to has 'example.org'; write addresses"),
        ({"root_to": ["admins@localhost"]}, "is at localhost, which is this host"),
        ({"root_to": ["a@x.org, b@x.org"]}, "write addresses"),
        ({"root_to": [7]}, "has 7; write addresses"),
        ({"allowed_senders": ["org"]}, "allowed_senders has 'org'"),
        ({"allowed_senders": ["server1.example.org"]}, "which is this host"),
        ({"dkim": "example.org"}, "mail_relay_dkim is a text; write a mapping"),
        ({"dkim": {**DKIM, "key": "x"}}, "'key', which means nothing; known are domain"),
        ({"dkim": {"domain": "example.org"}}, "mail_relay_dkim.selector is ''; write letters"),
        ({"dkim": {**DKIM, "selector": 2026}}, "selector is 2026; write letters"),
        ({"dkim": {**DKIM, "selector": "a" * 64}}, "63 at most"),
        ({"dkim": {**DKIM, "selector": "a/../b"}}, "write letters, digits and hyphens"),
        ({"dkim": {**DKIM, "selector": "a._domainkey"}}, "write letters, digits and hyphens"),
        ({"dkim": {"selector": "a"}}, "mail_relay_dkim.domain is ''; write the domain"),
        ({"dkim": {**DKIM, "domain": "org"}}, "mail_relay_dkim.domain is 'org'"),
        ({"dkim": DKIM}, "mail_relay_dkim.domain is 'example.org', and office+a@example.net is not in it"),
        ({"dkim": {**DKIM, "domain": "ample.org"}}, "and registry@example.org is not in it"),
        ({"dkim": DKIM, "sender": "a@other.org"}, "and a@other.org is not in it"),
        ({"hostname": "server1"}, "write a name with a domain"),
        ({"hostname": "10.0.0.1"}, "write a name with a domain"),
        ({"hostname": "example.org"}, "another mail_relay_hostname, such as server1.example.org"),
        ({"listen_addresses": "172.30.0.1"}, "listen_addresses is a text; write a list"),
        ({"listen_addresses": ["0.0.0.0"]}, "has '0.0.0.0'; write the host's address"),
        ({"listen_addresses": ["192.0.2.1"]}, "write the host's address"),
        ({"listen_addresses": ["127.0.0.1"]}, "write the host's address"),
        ({"listen_addresses": []}, "given without the other"),
        ({"client_networks": ["0.0.0.0/0"]}, "an open relay"),
        ({"client_networks": ["192.0.2.0/24"]}, "an open relay"),
        ({"client_networks": ["172.30.0.1/17"]}, "write the network of the containers"),
        ({"client_networks": ["::/0"]}, "an open relay"),
        ({"client_networks": [None]}, "write the network of the containers"),
        ({"message_megabytes": 0}, "message_megabytes is 0; write a number from 1 to 100"),
        ({"message_megabytes": 50, "minimum_free_megabytes": 60}, "too little for messages of 50; write 100 or more"),
        ({"queue_days": True}, "queue_days is True"),
        ({"alert_minutes": "ten"}, "alert_minutes is 'ten'"),
        ({"webhook": "https://x"}, "webhook is a text; write a mapping with url"),
        ({"webhook": {"url": "http://chat.example.org/canary"}}, "mail_relay_webhook.url is no usable address"),
        ({"webhook": {**HOOK, "format": "teams"}}, "mail_relay_webhook.format is 'teams'"),
        ({"metrics_directory": "metrics"}, "write the path of a directory"),
        ({"metrics_directory": "/"}, "write the path of a directory"),
    ],
)
def test_mistakes_are_named_and_secrets_are_not(changes, words):
    found = problems({**GOOD, **changes})
    assert [line for line in found if words in line], found
    assert "canary" not in "".join(found)


def test_all_at_once():
    assert len(problems({**GOOD, "smarthost": {}, "sender": "", "root_to": [], "queue_days": 0})) >= 4


def test_the_filter_tells_no_secret():
    found = FilterModule().filters()["mail_relay_problems"]
    assert found(GOOD) == []
    with pytest.raises(AnsibleFilterError, match=r"^civitas.hosting.mail_relay_problems: KeyError") as caught:
        found({"smarthost": HOST})
    assert "canary" not in str(caught.value)
