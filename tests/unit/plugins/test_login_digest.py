# SPDX-License-Identifier: GPL-3.0-or-later
"""Failed logins, read from lines that sshd and login of Debian 12 and 13 have written."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_digest as digest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_probe as login_probe


def entries(*lines, pid="7", uid="0", identifier="sshd"):
    return [{"MESSAGE": line, "_PID": pid, "_UID": uid, "SYSLOG_IDENTIFIER": identifier} for line in lines]


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        (["Failed password for alice from 192.0.2.7 port 4 ssh2"], ("alice", "192.0.2.7", "wrong password")),
        (["Invalid user bob from 192.0.2.7 port 4", "Failed password for invalid user bob from 192.0.2.7 port 4 ssh2",
          "Connection closed by invalid user bob 192.0.2.7 port 4 [preauth]"], ("bob", "192.0.2.7", "no such user")),
        (["Failed publickey for alice from 192.0.2.7 port 4 ssh2: ED25519 SHA256:x",
          "Connection closed by authenticating user alice 192.0.2.7 port 4 [preauth]"], ("alice", "192.0.2.7", "key not accepted")),
        (["Connection reset by authenticating user alice 192.0.2.7 port 4 [preauth]"], ("alice", "192.0.2.7", "gave up")),
        (["User carol from 192.0.2.7 not allowed because not in any of AllowGroups's groups",
          "Failed publickey for invalid user carol from 192.0.2.7 port 4 ssh2: ED25519 SHA256:x"],
         ("carol", "192.0.2.7", "not allowed to log in")),
        (["Invalid verification code for alice", "Failed keyboard-interactive/pam for alice from 192.0.2.7 port 4 ssh2"],
         ("alice", "192.0.2.7", "wrong code")),
        (["error: maximum authentication attempts exceeded for invalid user x y from 192.0.2.7 port 4 ssh2 [preauth]"],
         ("x y", "192.0.2.7", "too many attempts")),
        (["Invalid user from from 192.0.2.9 from 192.0.2.7 port 4"], ("from from 192.0.2.9", "192.0.2.7", "no such user")),
        (["Invalid user  from 2001:db8::7 port 4"], ("", "2001:db8::7", "no such user")),
    ],
)  # fmt: skip
def test_each_connection_is_one_failure_with_its_best_reason(lines, key):
    assert digest.read(entries(*lines)).failed == {key: 1}


@pytest.mark.parametrize(
    ("line", "user", "place"),
    [
        ("FAILED LOGIN (1) on '/dev/pts/0' FOR 'alice', Authentication failure", "alice", "/dev/pts/0"),
        ("FAILED LOGIN (2) on '/dev/tty1' from 'host' FOR 'UNKNOWN', User not known", "UNKNOWN", "/dev/tty1"),
        ("FAILED LOGIN 1 FROM pts/0 FOR alice, Authentication failure", "alice", "pts/0"),
        ("FAILED LOGIN SESSION FROM tty1 FOR alice, Authentication failure", "alice", "tty1"),
    ],
)
def test_the_console_fails_as_well(line, user, place):
    assert digest.read(entries(line, identifier="login")).failed == {(user, place, "wrong password at the console"): 1}


def test_who_gets_in_has_not_failed_but_wrong_codes_are_counted():
    day = digest.read(
        entries(
            "Failed publickey for alice from 192.0.2.7 port 4 ssh2: RSA SHA256:x",
            "Failed keyboard-interactive/pam for alice from 192.0.2.7 port 4 ssh2",
            "Accepted keyboard-interactive/pam for alice from 192.0.2.7 port 4 ssh2",
        )
    )
    assert (day.failed, day.wrong_before_success, day.accepted) == ({}, 1, {("192.0.2.7", "4"): "alice"})


def test_what_users_write_to_the_journal_is_no_login():
    assert digest.read(entries("Accepted publickey for x from 1.2.3.4 port 4 ssh2", "Invalid user y from 1.2.3.4 port 5", uid="1000")) == (
        {},
        0,
        {},
        {},
    )


def test_many_wrong_codes_are_told_as_who_holds_the_key_guesses():
    wrong = ["Invalid verification code for alice", "Failed keyboard-interactive/pam for alice from 192.0.2.7 port 4 ssh2"]
    tries = [entry for number in range(digest.WRONG_CODES // 2) for entry in entries(*wrong, *wrong, pid=str(number))]
    accepted = entries("Accepted keyboard-interactive/pam for alice from 192.0.2.7 port 4 ssh2", pid="0")
    few = entries(*wrong[1:], pid="99")[:1]
    day = digest.read([*tries, *accepted, *[{**entry, "MESSAGE": entry["MESSAGE"].replace("alice", "bob")} for entry in few]])
    assert day.wrong_codes == {"alice": digest.WRONG_CODES, "bob": 1}
    assert [line for line in digest.guesses(day) if "bob" in line] == []
    found = digest.digest("records-1", 0, 200, day, [], 0)
    assert f"WRONG CODES: alice, {digest.WRONG_CODES} times" in found["text"] and "revoke_access" in found["text"]
    assert found["subject"].endswith(", WRONG CODES") and found["wrong_codes"] == {"alice": digest.WRONG_CODES, "bob": 1}


def test_the_login_that_a_run_tries_guesses_nothing():
    line = f"Failed keyboard-interactive/pam for {login_probe.NAME} from 127.0.0.1 port 4 ssh2"
    assert digest.read(entries(*[line] * digest.WRONG_CODES)).wrong_codes == {}


def test_processes_are_told_apart():
    lines = [*entries("Invalid user a from 192.0.2.7 port 1", pid="1"), *entries("Invalid user a from 192.0.2.7 port 2", pid="2")]
    assert digest.read(lines).failed == {("a", "192.0.2.7", "no such user"): 2}


def login(**changes):
    return {"id": "1", "time": 100.0, "address": "192.0.2.7", "port": "4", "kind": "person", **changes}


def test_a_quiet_day_is_told():
    found = digest.digest("records-1", 0, 200, digest.Day({}, 0, {}), [], 0)
    assert found["subject"] == "[records-1] 0 failed logins" and "Logins:            0" in found["text"]


def test_a_login_that_pam_did_not_tell_is_named():
    day = digest.Day({}, 0, {("192.0.2.7", "4"): "alice", ("192.0.2.7", "5"): "bob"})
    found = digest.digest("records-1", 0, 200, day, [login()], 0)
    assert found["unannounced"] == 1 and "NOT ANNOUNCED: bob got in from 192.0.2.7 port 5" in found["text"]
    assert found["logins"] == {"person": 1}


def test_a_journal_that_is_too_short_is_told():
    assert "The journal begins at 1970-01-01 00:02:00 UTC only" in digest.digest("h", 0, 200, digest.Day({}, 0, {}), [], 120)["text"]
    assert "There is no journal" in digest.digest("h", 0, 200, digest.Day({}, 0, {}), [], None)["text"]


def test_a_digest_is_bounded_and_clean():
    failed = {(f"u{number}\x1b[2J\nX: y", "192.0.2.7", "no such user"): 1 for number in range(1000)}
    found = digest.digest("h", 0, 200, digest.Day(failed, 0, {}), [], 0)
    assert found["failed_count"] == 1000 and len(found["failed"]) == digest.ROWS and "960 more" in found["text"]
    assert "\x1b" not in found["text"] and "\nX: y" not in found["text"]


def test_the_record_is_read_with_what_it_was_rotated_to(tmp_path):
    path = tmp_path / "logins.jsonl"
    path.write_text(json.dumps(login(id="3", time=300)) + "\n" + json.dumps(login(id="3", time=300)) + "\n{half\n")
    with gzip.open(tmp_path / "logins.jsonl-20260101.gz", "wt") as file:
        file.write(json.dumps(login(id="2", time=200)) + "\n")
    old = tmp_path / "logins.jsonl-20250101.gz"
    old.write_bytes(b"not read")
    os.utime(old, (10, 10))
    assert [item["id"] for item in digest.recorded(str(path), 150, 400)] == ["2", "3"]
    assert [item["id"] for item in digest.recorded(str(path), 250, 400)] == ["3"]
