# SPDX-License-Identifier: GPL-3.0-or-later
"""The role bastion's variables, what sshd's settings let people do, and the records made of what sshd says (lines of 9.2 and 10.0)."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _bastion, _bastion_program, _bastion_records
from hypothesis import given
from hypothesis import strategies as st

GOOD = {
    "forward_to": [
        {"host": "192.0.2.10", "ports": [22, 5432]},
        {"host": "2001:db8::10", "ports": [22]},
        {"host": "db.example.org", "ports": [22]},
    ],
    "groups": ["civitas-people"],
    "keeper_groups": ["civitas-automation"],
}


def test_good_variables_have_no_problem():
    assert _bastion.problems(GOOD) == []


@pytest.mark.parametrize(
    "host",
    [
        "*",
        "any",
        "192.0.2.0/24",
        "192.0.2",
        "192.0.2.256",
        "a b",
        "",
        "-x",
        "x-",
        "host:22",
        "fe80::1%eth0",
        "*.example.org",
        None,
        7,
        "a\nb",
        "x" * 300,
    ],
)
def test_only_single_hosts(host):
    if host == "any":
        # A name like another; sshd gives the word a meaning only alone.
        assert _bastion.permit_open([{"host": "any", "ports": [22]}]) == ["any:22"]
        return
    assert any("item 1" in text for text in _bastion.problems({**GOOD, "forward_to": [{"host": host, "ports": [22]}]}))


@pytest.mark.parametrize("ports", [[], [0], [65536], ["22"], [True], ["*"], 22, None, [22.0]])
def test_only_port_numbers(ports):
    assert any("ports must" in text for text in _bastion.problems({**GOOD, "forward_to": [{"host": "a", "ports": ports}]}))


@pytest.mark.parametrize(
    "forward_to", [[], None, "a:22", {"host": "a"}, [{"host": "a"}], [{"host": "a", "ports": [22], "user": "x"}], ["a:22"]]
)
def test_somewhere_to_go(forward_to):
    assert _bastion.problems({**GOOD, "forward_to": forward_to})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"groups": []}, "bastion_groups is empty"),
        ({"groups": ["a b"]}, "names of groups"),
        ({"groups": "civitas-people"}, "names of groups"),
        ({"keeper_groups": ["civitas-people"]}, "both name civitas-people"),
    ],
)
def test_other_problems(change, said):
    assert any(said in text for text in _bastion.problems({**GOOD, **change}))


def test_pairs_as_sshd_writes_them():
    assert _bastion.permit_open(GOOD["forward_to"]) == ["192.0.2.10:22", "192.0.2.10:5432", "[2001:db8::10]:22", "db.example.org:22"]


# --- effective settings

SHOWN = "\n".join(f"{key} {value}" for key, value in _bastion_program._FORWARDING_ONLY.items()) + "\npermitopen a:22 [2001:db8::1]:22\n"


def test_what_is_wanted_is_no_problem():
    assert _bastion_program.judge("anna", SHOWN, _bastion_program._FORWARDING_ONLY, ["[2001:db8::1]:22", "a:22"]) == []


@pytest.mark.parametrize("key", [*_bastion_program._FORWARDING_ONLY, "permitopen"])
def test_every_setting_is_looked_at(key):
    shown = "".join(f"{line}\n" if line.split()[0] != key else f"{key} yes\n" for line in SHOWN.splitlines())
    (problem,) = _bastion_program.judge("anna", shown, _bastion_program._FORWARDING_ONLY, ["[2001:db8::1]:22", "a:22"])
    assert problem.startswith(key)
    shown = "".join(f"{line}\n" for line in SHOWN.splitlines() if line.split()[0] != key)
    assert len(_bastion_program.judge("anna", shown, _bastion_program._FORWARDING_ONLY, ["[2001:db8::1]:22", "a:22"])) == 1


# --- records

KEY = "SHA256:Pwr7gu7CYyhlt1bmstgg12ftM9LLU2HtGp1rXyv698s"


class Journal:
    """Entries of the journal, a second apart."""

    def __init__(self, child_prefix):
        self.prefix = child_prefix
        self.now = 1_795_272_550

    def entry(self, pid, uid, message, boot="b" * 32):
        self.now += 1
        return {"_PID": str(pid), "_UID": str(uid), "_BOOT_ID": boot, "MESSAGE": message, "__REALTIME_TIMESTAMP": str(self.now * 1_000_000)}

    def root(self, message, pid=100):
        return self.entry(pid, 0, message)

    def child(self, message, function="channels.c:channel_post_connecting():2090", pid=101, level="debug1"):
        return self.entry(pid, 1000, f"{level}: {function} ({self.prefix}pid={pid}): {message}")

    def login(self, pid=100, child=101, user="anna"):
        return [
            self.root(f"Accepted publickey for {user} from 192.0.2.7 port 4711 ssh2: ED25519 {KEY}", pid),
            self.root(f"User child is on pid {child}", pid),
        ]


@pytest.fixture(params=["", "bin=sshd-session, "], ids=["9.2", "10.0"])
def journal(request):
    return Journal(request.param)


def events(recorder, entries):
    return [record for entry in entries for record in recorder.feed(entry)]


def test_a_forwarding_from_login_to_logout(journal):
    recorder = _bastion_records.Recorder()
    found = events(
        recorder,
        [
            *journal.login(),
            journal.child("originator 127.0.0.1 port 65535, target 10.0.0.5 port 22", "serverloop.c:server_request_direct_tcpip():424"),
            journal.child("channel 0: connected to 10.0.0.5 port 22"),
            journal.child("channel 0: free: direct-tcpip, nchannels 1", "channels.c:channel_free():721"),
            journal.root("pam_unix(sshd:session): session closed for user anna"),
        ],
    )
    assert [item["event"] for item in found] == ["login", "open", "close", "logout"]
    assert found[1]["to"] == found[2]["to"] == "10.0.0.5:22"
    assert (found[2]["seconds"], found[3]["seconds"]) == (1.0, 5.0)
    for item in found:
        assert (item["user"], item["from"], item["from_port"], item["key"]) == ("anna", "192.0.2.7", 4711, KEY)
    assert found[0]["time"] == "2026-11-21T14:49:11.000Z"
    assert recorder.state()["sessions"] == {} == recorder.state()["children"]


def test_a_key_and_a_code(journal):
    found = events(
        _bastion_records.Recorder(),
        [
            journal.root(f"Partial publickey for anna from 192.0.2.7 port 4711 ssh2: ED25519 {KEY}"),
            journal.root("Accepted keyboard-interactive/pam for anna from 192.0.2.7 port 4711 ssh2"),
        ],
    )
    assert [(item["event"], item["method"], item["key"]) for item in found] == [("login", "publickey+keyboard-interactive/pam", KEY)]


def test_a_code_that_never_came_is_forgotten(journal):
    recorder = _bastion_records.Recorder()
    for pid in range(200, 220):
        journal.now += 60
        events(recorder, [journal.root(f"Partial publickey for anna from 192.0.2.7 port 4711 ssh2: ED25519 {KEY}", pid)])
    assert len(recorder.state()["sessions"]) <= 11


def test_refused_failed_and_unknown(journal):
    found = events(
        _bastion_records.Recorder(),
        [
            *journal.login(),
            journal.entry(
                101, 1000, "Received request from 192.0.2.7 port 4711 to connect to host 10.0.0.5 port 80, but the request was denied."
            ),
            journal.child("channel 0: connection failed: Connection refused"),
            journal.child("connect_to 10.0.0.5 port 2222: failed.", level="error"),
            journal.child("originator 127.0.0.1 port 1, target nowhere.invalid port 22", "serverloop.c:server_request_direct_tcpip():453"),
            journal.entry(101, 1000, "error: connect_to nowhere.invalid: unknown host (Name or service not known)"),
            journal.child("connect_to 2001:db8::1 port 22: failed.", level="error"),
        ],
    )
    assert [(item["event"], item.get("to"), item.get("reason")) for item in found[1:]] == [
        ("refused", "10.0.0.5:80", "not declared"),
        ("failed", "10.0.0.5:2222", "Connection refused"),
        ("failed", "nowhere.invalid:22", "Name or service not known"),
        ("failed", "[2001:db8::1]:22", "no answer"),
    ]


def test_many_channels_of_one_session_and_their_end_with_it(journal):
    found = events(
        _bastion_records.Recorder(),
        [
            *journal.login(),
            journal.child("channel 0: connected to a port 22"),
            journal.child("channel 3: connected to b port 22"),
            journal.child("channel 0: free: direct-tcpip, nchannels 2", "channels.c:channel_free():1"),
            journal.root("pam_unix(sshd:session): session closed for user anna"),
        ],
    )
    assert [(item["event"], item.get("to")) for item in found[1:]] == [
        ("open", "a:22"), ("open", "b:22"), ("close", "a:22"), ("close", "b:22"), ("logout", None),
    ]  # fmt: skip


def test_nobody_speaks_for_another(journal):
    """What an account writes by itself, under a number that sshd has not announced or as root's process, makes no record."""
    entries = journal.login()
    forged = [
        journal.entry(999, 1000, f"Accepted publickey for root from 192.0.2.9 port 1 ssh2: ED25519 {KEY}"),
        journal.entry(999, 1000, "User child is on pid 999"),
        journal.child("channel 0: connected to 10.0.0.9 port 22", pid=999),
        journal.entry(100, 1000, "pam_unix(sshd:session): session closed for user anna"),
    ]
    assert [item["event"] for item in events(_bastion_records.Recorder(), entries + forged)] == ["login"]


def test_a_number_that_comes_again_ends_the_session_of_before(journal):
    recorder = _bastion_records.Recorder()
    events(recorder, [*journal.login(), journal.child("channel 0: connected to a port 22")])
    found = events(recorder, journal.login(user="bert"))
    assert [(item["event"], item["user"], item.get("note")) for item in found] == [
        ("close", "anna", "lost"), ("logout", "anna", "lost"), ("login", "bert", None),
    ]  # fmt: skip


def test_a_reboot_ends_all(journal):
    recorder = _bastion_records.Recorder()
    events(recorder, journal.login())
    found = recorder.feed(journal.entry(5, 0, "Server listening on :: port 22.", boot="c" * 32))
    assert [(item["event"], item["note"]) for item in found] == [("logout", "reboot")]


def test_it_goes_on_from_its_state(journal):
    entries = [
        *journal.login(),
        journal.child("channel 0: connected to a port 22"),
        journal.child("channel 0: free: direct-tcpip, nchannels 1", "channels.c:channel_free():1"),
        journal.root("pam_unix(sshd:session): session closed for user anna"),
    ]
    whole = events(_bastion_records.Recorder(), entries)
    for cut in range(len(entries)):
        first = _bastion_records.Recorder()
        parts = events(first, entries[:cut])
        second = _bastion_records.Recorder(json.loads(json.dumps(first.state())))
        assert parts + events(second, entries[cut:]) == whole


@given(st.one_of(st.text(), st.binary().map(list), st.none()), st.integers(0, 2))
def test_no_line_stops_it(message, uid):
    journal = Journal("")
    recorder = _bastion_records.Recorder()
    events(recorder, journal.login())
    recorder.feed({**journal.entry(101, uid, message)})
    recorder.feed({**journal.entry(100, uid, message)})
    json.dumps(recorder.state())


def test_records_are_appended_once(tmp_path):
    path = str(tmp_path / "records")
    size = _bastion_records.append(path, [{"a": 1}], 0)
    # The power failed after these were written and before that was noted.
    _bastion_records.append(path, [{"b": 1}], size)
    size = _bastion_records.append(path, [{"b": 1}, {"c": "\u00e9\n"}], size)
    assert [json.loads(line) for line in (tmp_path / "records").read_text().splitlines()] == [{"a": 1}, {"b": 1}, {"c": "\u00e9\n"}]
    # The same again later is an event of its own; and a rotated file is shorter.
    size = _bastion_records.append(path, [{"b": 1}], size)
    assert len((tmp_path / "records").read_text().splitlines()) == 4
    (tmp_path / "records").write_text("")
    assert _bastion_records.append(path, [{"d": 1}], size) == len('{"d": 1}\n')


def test_records_go_through_no_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        _bastion_records.append(str(tmp_path / "link"), [{"a": 1}], 0)
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "records"
    path.write_text('{"a": 1}\n')
    code = (
        "import resource, signal, sys\n"
        "from ansible_collections.civitas.hosting.plugins.module_utils import _bastion_records as records\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
        f"try:\n    records.append({str(path)!r}, [{{'b': 'x' * 100}}], 9)\nexcept OSError:\n    sys.exit(3)\n"
    )
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"], check=False)
    assert done.returncode == 3
    assert path.read_text() == '{"a": 1}\n'
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 64
