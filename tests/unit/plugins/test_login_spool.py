# SPDX-License-Identifier: GPL-3.0-or-later
"""A login is noted where that is possible, and never waits for it."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_spool as spool

LOGIN = {
    "PAM_TYPE": "open_session",
    "PAM_SERVICE": "sshd",
    "PAM_USER": "alice",
    "PAM_RHOST": "192.0.2.7",
    "PAM_TTY": "ssh",
    "SSH_CONNECTION": "192.0.2.7 51234 198.51.100.1 22",
    "SSH_AUTH_INFO_0": "publickey ssh-ed25519 AAAA\nkeyboard-interactive/pam\n",
}


@pytest.fixture
def bases(tmp_path):
    return [str(tmp_path / "disk"), str(tmp_path / "memory")]


def names(base):
    return sorted(os.listdir(f"{base}/new")) if os.path.isdir(f"{base}/new") else []


def test_a_note_has_what_pam_says_and_nothing_else():
    note = spool.event({**LOGIN, "SECRET": "x"}, 1700000000.1234, "abcd")
    assert note["pam_user"] == "alice" and note["ssh_connection"].startswith("192.0.2.7 ") and note["methods"].count("\n") == 2
    assert note["id"] == "018bcfe5687b-abcd".rjust(18, "0") and note["time"] == 1700000000.123
    assert "SECRET" not in json.dumps(note)


def test_values_without_end_are_cut():
    note = spool.event({**LOGIN, "PAM_USER": "x" * 100000, "SSH_AUTH_INFO_0": "y" * 100000}, 0, "")
    assert len(json.dumps(note)) < 20000


def test_notes_sort_by_time():
    ids = [spool.event(LOGIN, moment, "0")["id"] for moment in (5, 1e9, 1.7e9, 1.7e9 + 0.01)]
    assert ids == sorted(ids)


def test_a_note_is_whole_and_for_its_owner_only(bases):
    note = spool.event(LOGIN, time.time(), "1")
    assert spool.put(note, bases) == bases[0]
    (name,) = names(bases[0])
    with open(f"{bases[0]}/new/{name}", encoding="ascii") as file:
        assert json.load(file) == note
    assert os.stat(f"{bases[0]}/new/{name}").st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["writable", "file", "link"])
def test_memory_takes_what_the_disk_cannot(bases, damage):
    os.makedirs(f"{bases[0]}/new")
    if damage == "writable":
        os.chmod(f"{bases[0]}/new", 0o777)
    else:
        os.rmdir(f"{bases[0]}/new")
        if damage == "file":
            open(f"{bases[0]}/new", "w", encoding="ascii").close()
        else:
            os.makedirs(f"{bases[0]}/elsewhere")
            os.symlink(f"{bases[0]}/elsewhere", f"{bases[0]}/new")
    assert spool.put(spool.event(LOGIN, time.time(), "1"), bases) == bases[1]
    assert len(names(bases[1])) == 1


def test_nobody_takes_it(bases):
    for base in bases:
        open(base, "w", encoding="ascii").close()
    with pytest.raises(spool.SpoolError, match=r"disk.*memory"):
        spool.put(spool.event(LOGIN, time.time(), "1"), bases)


def test_a_full_queue_counts(bases):
    for number in range(5):
        note = spool.event(LOGIN, 1700000000 + number, str(number))
        if number < 3:
            spool.put(note, bases, limit=3)
        else:
            with pytest.raises(spool.Full):
                spool.put(note, bases, limit=3)
    assert len(names(bases[0])) == 3 and names(bases[1]) == []
    with open(f"{bases[0]}/lost", encoding="ascii") as file:
        assert file.read() == "1700000003\n1700000004\n"


def test_the_count_is_bounded(bases, monkeypatch):
    monkeypatch.setattr(spool, "_LOST_BYTES", 30)
    os.makedirs(bases[0])
    for _number in range(10):
        spool.count_lost(bases[0], 1700000000)
    assert os.path.getsize(f"{bases[0]}/lost") == 33


def test_a_failed_write_leaves_nothing(bases, monkeypatch):
    def fail(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(spool.SpoolError, match="No space"):
        spool.put(spool.event(LOGIN, time.time(), "1"), bases)
    assert [os.listdir(f"{base}/new") for base in bases] == [[], []]


def test_the_end_of_a_session_is_no_login(bases, monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("forked"))
    spool.note_login({**LOGIN, "PAM_TYPE": "close_session"})


def test_a_disk_that_hangs_holds_nobody(tmp_path, monkeypatch):
    base = tmp_path / "disk"
    (base / "new").mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(spool, "PATIENCE", 0.3)
    monkeypatch.setattr(spool.put, "__defaults__", ([str(base)], spool.LIMIT))
    monkeypatch.setattr(spool, "_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setattr(os, "urandom", lambda size: b"\0" * size)
    monkeypatch.setattr(time, "time", lambda: 1700000000.0)
    # Opening a pipe for writing waits until somebody reads.
    pipe = base / "new" / f".{spool.event(LOGIN, 1700000000.0, '00000000')['id']}.json"
    os.mkfifo(pipe)
    begin = time.monotonic()
    spool.note_login(LOGIN)
    assert 0.25 < time.monotonic() - begin < 1.5
    # It is finished all the same.
    reader = os.open(pipe, os.O_RDONLY)
    assert b'"alice"' in os.read(reader, 100000)
    os.close(reader)
    os.wait()


def test_the_journal_gets_no_fields_from_names(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(spool, "_JOURNAL", str(tmp_path / "journal"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        spool.to_journal(6, "login of eve\nPRIORITY=0\n", CIVITAS_LOGIN="{}\n_X=1")
        lines = journal.recv(65536).decode().splitlines()
    assert [line.split("=")[0] for line in lines] == ["PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE", "CIVITAS_LOGIN"]


def test_no_journal_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "_JOURNAL", str(tmp_path / "none"))
    spool.to_journal(6, "x")
