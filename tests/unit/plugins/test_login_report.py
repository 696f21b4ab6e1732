# SPDX-License-Identifier: GPL-3.0-or-later
"""The access report says what sshd and sudo say, and names what it could not see."""

from __future__ import annotations

import json

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_report as report
from ansible_collections.civitas.hosting.plugins.module_utils import _people_state as people

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


@pytest.mark.parametrize(
    ("value", "end", "seconds"),
    [
        ("1970-01-02", False, 86400),
        ("1970-01-02", True, 2 * 86400),
        ("1970-01-02T01:00:00", True, 90000),
        ("1970-01-02T01:00:00Z", False, 90000),
        ("1970-01-02T01:00:00+01:00", False, 86400),
    ],
)
def test_times(value, end, seconds):
    assert report.moment(value, end) == seconds


@pytest.mark.parametrize("value", ["", "yesterday", "01.10.2026", "2026-13-01"])
def test_what_is_no_time(value):
    with pytest.raises(report.ReportError, match="write one such as 2026-10-01"):
        report.moment(value)


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A function that reports of a host with alice, root and a few others."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "alice").write_text(f'# old\nfrom="192.0.2.0/24",restrict {KEY} alice@laptop\n')
    accounts = {
        name: people.Account(name, uid, uid, full_name, f"/home/{name}", shell, password, expire=expire)
        for name, uid, full_name, shell, password, expire in [
            ("alice", 1000, "Alice", "/bin/bash", "!", "30000"),
            ("bob", 1001, "Bob", "/bin/bash", "$y$x", "1"),
            ("root", 0, "root", "/bin/bash", "*", ""),
            ("daemon", 1, "daemon", "/usr/sbin/nologin", "*", ""),
        ]
    }
    groups = {name: people.Group(name, gid, members) for name, gid, members in [
        ("alice", 1000, []), ("bob", 1001, []), ("root", 0, []), ("civitas-people", 2000, ["alice", "bob"]),
    ]}  # fmt: skip
    state = people.State(accounts, groups, {}, {}, {}, frozenset(), {}, frozenset(), frozenset(["alice"]), {}, [], frozenset(), today=20000)
    monkeypatch.setattr(people, "read", lambda: state)
    record = tmp_path / "logins.jsonl"
    login = {
        "time": 100.0,
        "when": "then",
        "user": "alice",
        "kind": "person",
        "address": "192.0.2.7",
        "tty": "",
        "keys": [],
        "session": "sftp",
    }
    record.write_text("".join(json.dumps({**login, "id": str(number), "time": number * 100.0}) + "\n" for number in (1, 2, 3)))

    def run(command):
        if command[0] == "sshd":
            user = command[3].split(",")[0].split("=")[1]
            methods = "publickey,keyboard-interactive:pam" if user == "alice" else "publickey"
            return 0, (
                f"authenticationmethods {methods}\nauthorizedkeysfile {tmp_path}/keys/%u .ssh/authorized_keys\n"
                "allowgroups civitas-people\nallowgroups other\npermitrootlogin no\n"
            )
        if command[-1] == "root":
            return 0, "Matching ...\nUser root may run the following commands on h:\n    (ALL : ALL) ALL\n    (root) NOPASSWD: ALL\n"
        return 0, "User alice is not allowed to run sudo on h.\n"

    return lambda since=0, until=1e9, run=run: report.gather(run, since, until, str(record))


def test_accounts(host):
    alice, bob, root = host()["accounts"]
    assert (alice["name"], alice["kind"], alice["open"], alice["expires"], alice["ssh"]) == ("alice", "person", True, "2052-02-20", True)
    assert alice["ssh_methods"] == "publickey,keyboard-interactive:pam" and alice["second_factor"] and alice["sudo"] == []
    (key,) = alice["keys"]
    assert (key["type"], key["comment"], key["options"]) == ("ssh-ed25519", "alice@laptop", 'from="192.0.2.0/24",restrict')
    assert key["fingerprint"].startswith("SHA256:") and alice["last_login"] == "then"
    assert (bob["open"], bob["password"], bob["last_login"]) == (False, True, "")
    assert (root["ssh"], root["sudo"]) == (False, ["(ALL : ALL) ALL", "(root) NOPASSWD: ALL"])


def test_logins_of_the_time_only(host):
    assert [login["id"] for login in host(200, 300)["logins"]] == ["2"]


def test_a_host_without_sshd_and_sudo(host):
    accounts = host(run=lambda _command: (127, ""))["accounts"]
    assert [(account["ssh"], account["keys"], account["sudo"]) for account in accounts] == [(False, [], [])] * 3


def test_the_text(host):
    shown = report.render({"records-1": host(), "records-2": None}, "a", "b", "c")
    assert shown.index("INCOMPLETE: not reached, and not in this report: records-2") < shown.index("records-1\n")
    for words in (
        "alice (person, Alice)",
        "SSH with publickey,keyboard-interactive:pam",
        "way in         expired",
        "key            ssh-ed25519 SHA256:",
        "WHO LOGGED IN (3; the record begins then)",
        "sudo           (root) NOPASSWD: ALL",
    ):
        assert words in shown, shown
