# SPDX-License-Identifier: GPL-3.0-or-later
"""What people read about a login."""

from __future__ import annotations

import json
import subprocess

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery
from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text
from hypothesis import given
from hypothesis import strategies as st

NOTE = {
    "id": "1-a", "time": 1700000000.5, "pam_service": "sshd", "pam_user": "alice", "pam_rhost": "192.0.2.7", "pam_tty": "ssh",
    "pam_ruser": "",
    "ssh_connection": "192.0.2.7 51234 198.51.100.1 22", "methods": "publickey ssh-ed25519 AAAA\nkeyboard-interactive/pam\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_fingerprints_are_those_of_openssh(tmp_path, kind):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "key"], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key.pub"], capture_output=True, text=True, check=True).stdout
    words = (tmp_path / "key.pub").read_text().split()
    methods, keys = text.keys_of(f"publickey {words[0]} {words[1]}\nkeyboard-interactive/pam\n")
    assert methods == ["publickey", "keyboard-interactive/pam"]
    assert keys == [{"type": words[0], "fingerprint": shown.split()[1]}]


def test_a_damaged_key_has_no_fingerprint():
    assert text.keys_of("publickey ssh-rsa %%%\n\npassword\n") == (["publickey", "password"], [{"type": "ssh-rsa", "fingerprint": ""}])


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("Starting session: shell on pts/0 for alice from 192.0.2.7 port 51234 id 0", "interactive"),
        ("Starting session: shell for alice from 192.0.2.7 port 51234 id 0", "interactive"),
        ("Starting session: command for alice from 192.0.2.7 port 51234 id 0", "command"),
        ("Starting session: command on pts/3 for alice from 192.0.2.7 port 51234 id 1", "command on a terminal"),
        ("Starting session: subsystem 'sftp' for alice from 192.0.2.7 port 51234 id 0", "sftp"),
        ("Starting session: forced-command (config) '/bin/backup --all' for alice from 192.0.2.7 port 51234 id 0", "forced-command"),
        ("Starting session: forced-command (key-option) 'x for e from ::1 port 1' for a from 192.0.2.7 port 51234 id 0", "forced-command"),
    ],
)  # fmt: skip
def test_what_a_connection_is_for(line, what):
    assert text.sessions([line, "Connection from 192.0.2.7 port 1", line]) == {("192.0.2.7", "51234"): [what]}


@pytest.mark.parametrize(
    ("groups", "changes", "kind"),
    [
        ({"civitas-people"}, {}, "person"),
        ({"civitas-automation", "civitas-people"}, {}, "automation"),
        ({"civitas-breakglass", "civitas-people"}, {}, "break-glass"),
        ((), {}, "other"),
        ((), {"pam_user": "root"}, "root"),
        ({"civitas-automation"}, {"pam_user": "root"}, "automation"),
        ((), {"pam_user": "root", "pam_service": "login", "pam_tty": "/dev/tty1"}, "root console"),
        ({"civitas-people"}, {"pam_service": "login"}, "person"),
    ],
)
def test_kinds(groups, changes, kind):
    assert text.record({**NOTE, **changes}, groups, [], True)["kind"] == kind


def test_a_login_that_asked_for_nothing_is_told_apart_from_a_log_that_says_nothing():
    assert text.record(NOTE, (), [], True)["session"] == "none yet (forwarding only, or idle)"
    assert text.record(NOTE, (), [], False)["session"] == "unknown"
    assert text.record(NOTE, (), ["sftp", "command"], True)["session"] == "sftp, command"


def test_an_announcement_says_all_of_it():
    found = text.announcement("records-1", text.record(NOTE, {"civitas-people"}, ["interactive"], True))
    assert found["subject"] == "[records-1] login of alice (person) from 192.0.2.7"
    for words in (
        "192.0.2.7 port 51234",
        "ssh-ed25519 SHA256:",
        "publickey, keyboard-interactive/pam",
        "interactive",
        "2023-11-14 22:13:20 UTC",
    ):
        assert words in found["text"]
    assert found["login"]["user"] == "alice"


@given(st.dictionaries(st.sampled_from(sorted(set(NOTE) - {"id", "time"})), st.text(max_size=300)))
def test_whatever_names_hold_mails_have_their_own_headers_only(changes):
    found = text.announcement("records-1", text.record({**NOTE, **changes}, (), [], True))
    mail = delivery.compose(found, "logins@example.org", ["all@example.org"], "records-1")
    head, _blank, _body = mail.partition(b"\r\n\r\n")
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert sorted(names) == sorted(
        [
            b"From",
            b"To",
            b"Subject",
            b"Date",
            b"Message-ID",
            b"Auto-Submitted",
            b"MIME-Version",
            b"Content-Type",
            b"Content-Transfer-Encoding",
        ]
    )
    assert mail.isascii() and mail.replace(b"\r\n", b"").count(b"\n") == mail.replace(b"\r\n", b"").count(b"\r") == 0
    assert json.loads(json.dumps(text.payload(found, "generic")))["type"] == "login"


def test_slack_calls_nobody():
    found = text.announcement("records-1", text.record({**NOTE, "pam_user": "<!channel> & <@U1>"}, (), [], True))
    payload = text.payload(found, "slack")
    assert list(payload) == ["text"] and "<" not in payload["text"] and "&lt;!channel&gt; &amp; " in payload["text"]


def test_no_chat_makes_a_link_or_a_command_of_a_text():
    found = text.announcement("records-1", text.record({**NOTE, "pam_user": "[a](http://evil.test)"}, (), [], True))
    card = text.payload(found, "teams")["attachments"][0]["content"]["body"]
    assert {block["type"] for block in card} == {"RichTextBlock"} and "[a](http://evil.test)" in card[0]["inlines"][0]["text"]
    room = text.payload(found, "matrix")
    assert set(room) == {"msgtype", "body"} and found["text"] in room["body"]


def test_a_summary_counts_every_login():
    logins = [
        text.record({**NOTE, "id": str(n), "time": 1700000000 + n, "pam_user": "deploy"}, {"civitas-automation"}, [], True)
        for n in range(7)
    ]
    found = text.summary("s", "records-1", [*logins, {**logins[0], "address": "192.0.2.8"}])
    assert found["subject"] == "[records-1] 8 logins of automation"
    assert sorted((row["source"], row["count"]) for row in found["logins"]) == [("192.0.2.7", 7), ("192.0.2.8", 1)]
