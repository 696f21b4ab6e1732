# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that sign: made by openssl, looked for at a real name server, judged as the controller judges them.

The signer itself runs in the scenario.
"""

from __future__ import annotations

import os
import pathlib
import pwd
import stat
import subprocess

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _mail_signing as signing
from ansible_collections.civitas.hosting.plugins.module_utils._egress_refresh import ask_texts
from ansible_collections.civitas.hosting.plugins.plugin_utils import _mail_dkim
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_dns import Dns
from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import txt_record

from tests.unit import dns_server

FIRST, SECOND = (signing.record_name("Example.org", name) for name in ("First", "second"))
ME = pwd.getpwuid(os.geteuid()).pw_name
KEY = "MIIB"
RECORD = f"v=DKIM1; k=rsa; p={KEY}"
PUBLISHED, MISSING, UNKNOWN = signing.Answer("published"), signing.Answer("missing", "no"), signing.Answer("unknown", "silent")


@pytest.fixture
def store(tmp_path):
    return signing.Store(str(tmp_path), ME)


@pytest.fixture
def reloads():
    return []


def settle(store, name, answer, reloads, **more):
    return signing.settle(store, name, answer, lambda: reloads.append(store.signs()), **more)


def test_a_key_is_made_once_and_for_nobody_else(store, tmp_path):
    assert signing.prepare(store, FIRST, check_mode=True) and not os.listdir(tmp_path)
    assert signing.prepare(store, FIRST) is True
    key = tmp_path / "first._domainkey.example.org.pem"
    before = key.read_text()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and "PRIVATE KEY" in before
    assert signing.prepare(store, FIRST) is False and key.read_text() == before
    assert sorted(os.listdir(tmp_path)) == [key.name, "keys", "senders"] and store.signs() == ""
    shown = subprocess.run(["openssl", "pkey", "-in", key, "-noout", "-text"], capture_output=True, text=True, check=True).stdout
    assert "2048 bit" in shown
    # The same key, and the same record, as the controller makes of it.
    assert _mail_dkim.record_of(_mail_dkim.public_half(before)) == signing.record_value(store.public_key(FIRST))


def test_without_the_account_there_is_no_key(tmp_path):
    with pytest.raises(signing.SigningError, match="install the package opendkim"):
        signing.prepare(signing.Store(str(tmp_path), "nobody-of-that-name"), FIRST)
    assert not os.listdir(tmp_path)


def test_an_unreadable_key_is_not_quoted(store, tmp_path):
    (tmp_path / f"{FIRST}.pem").write_text("-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n")
    with pytest.raises(signing.SigningError) as caught:
        store.public_key(FIRST)
    assert "canary" not in str(caught.value)


def test_a_key_signs_once_its_record_is_there_and_goes_on(store, reloads):
    signing.prepare(store, FIRST)
    for answer in (MISSING, UNKNOWN, signing.Answer("wrong", "x")):
        assert settle(store, FIRST, answer, reloads) is False and store.signs() == ""
    assert settle(store, FIRST, PUBLISHED, reloads, check_mode=True) is True and store.signs() == ""
    assert settle(store, FIRST, PUBLISHED, reloads) is True
    assert (store.signs(), reloads) == (FIRST, [FIRST])
    for answer in (PUBLISHED, MISSING, UNKNOWN, signing.Answer("wrong", "x")):
        assert settle(store, FIRST, answer, reloads) is False and store.signs() == FIRST
    assert len(reloads) == 1


def test_the_tables_of_the_signer(store, tmp_path, reloads):
    signing.prepare(store, FIRST)
    settle(store, FIRST, PUBLISHED, reloads)
    assert (tmp_path / "senders").read_text() == f"* {FIRST}\n"
    assert (tmp_path / "keys").read_text() == f"{FIRST} example.org:first:{tmp_path}/{FIRST}.pem\n"


def test_rotation(store, reloads):
    signing.prepare(store, FIRST)
    settle(store, FIRST, PUBLISHED, reloads)
    assert signing.prepare(store, SECOND) is True
    assert settle(store, SECOND, MISSING, reloads) is False
    assert (store.signs(), store.names()) == (FIRST, [FIRST, SECOND])
    assert settle(store, SECOND, PUBLISHED, reloads) is True
    assert (store.signs(), store.names()) == (SECOND, [SECOND])
    assert reloads == [FIRST, SECOND] and FIRST not in pathlib.Path(store.keys).read_text()
    assert settle(store, SECOND, UNKNOWN, reloads) is False


def test_a_rotation_that_was_cut_off_is_ended(store, reloads):
    signing.prepare(store, FIRST)
    signing.prepare(store, SECOND)
    store.use(SECOND, [FIRST, SECOND])
    assert settle(store, SECOND, UNKNOWN, reloads) is True and store.names() == [SECOND]


def test_a_lost_key_is_another_key(store, reloads):
    signing.prepare(store, FIRST)
    settle(store, FIRST, PUBLISHED, reloads)
    os.unlink(store.key_file(FIRST))
    assert settle(store, FIRST, PUBLISHED, reloads) is False
    assert "run the site playbook" in signing.summary(signing.look(store, FIRST, 0.0))
    assert signing.prepare(store, FIRST) is True and store.signs() == "" and store.names() == [FIRST]


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        ([RECORD], "published", ""),
        ([f"p={KEY}"], "published", ""),
        ([f"v=DKIM1; h=sha1:sha256; s=email; t=s; p={KEY[:2]} {KEY[2:]};"], "published", ""),
        ([], "missing", "no such record"),
        ([RECORD, RECORD], "wrong", "2 records"),
        (["v=DKIM1; p=MIIC"], "wrong", "another key"),
        (["v=DKIM1; k=rsa"], "wrong", "another key"),
        ([f"v=DKIM1; k=ed25519; p={KEY}"], "wrong", "another key"),
        (["v=DKIM1; p="], "wrong", "revokes"),
        ([f"k=rsa; v=DKIM1; p={KEY}"], "wrong", "begin with v=DKIM1"),
        ([f"v=DKIM2; p={KEY}"], "wrong", "begin with v=DKIM1"),
        ([f"v=DKIM1; h=sha1; p={KEY}"], "wrong", "sha256"),
        ([f"v=DKIM1; s=other; p={KEY}"], "wrong", "not for mail"),
        ([f"v=DKIM1; t=s:y; p={KEY}"], "wrong", "t=y"),
        ([f"v=DKIM1; p={KEY}; p={KEY}"], "wrong", "comes twice"),
        (["canary"], "wrong", "no tag"),
        ([""], "wrong", "no tag"),
    ],
)
def test_records(found, state, words):
    answer = signing.judge(found, KEY)
    assert answer.state == state and words in answer.detail


def test_the_record_to_publish_is_found_by_the_dns(store):
    """Served as it is shown, by UDP and, as such keys are long, by TCP; the controller's own check says the same."""
    name = signing.record_name("example.org", "a-selector-as-long-as-one-may-be-that-is-made-of-a-hosts-name")
    signing.prepare(store, name)
    key = store.public_key(name)
    line = signing.zone_line(name, signing.record_value(key))
    assert line == txt_record(name, signing.record_value(key)) and max(map(len, line.split('"'))) == 255
    seen: list[tuple[str, str, str]] = []
    with dns_server.serving(line, seen=seen) as server:
        address, port = server.split(":")

        def ask(asked, _server):
            return ask_texts(asked, (address, int(port)))

        assert signing.ask_dns(name, key, ["192.0.2.1"], ask) == PUBLISHED
        assert signing.ask_dns(FIRST, key, ["192.0.2.1"], ask).state == "missing"
        assert signing.ask_dns(name, "another", ["192.0.2.1"], ask).state == "wrong"
        signer = _mail_dkim.Signer(name.partition("._")[0], "example.org", _mail_dkim.public_key(key))
        assert [one.id for one in _mail_dkim.check(Dns([server], 10), signer) if not one.ok] == []
    assert "tcp" in {protocol for protocol, _kind, _name in seen}
    with dns_server.serving(line, servfail=[name]) as server:
        address, port = server.split(":")
        answer = signing.ask_dns(name, key, ["192.0.2.1"], ask)
        assert answer.state == "unknown" and "192.0.2.1: the name servers could not find out" in answer.detail


def test_nobody_to_ask():
    assert signing.ask_dns(FIRST, KEY, []).state == "unknown"


def test_name_servers(tmp_path):
    (tmp_path / "resolv.conf").write_text("# nameserver 1\nsearch x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1\n")
    assert signing.name_servers(str(tmp_path / "resolv.conf")) == ["192.0.2.1", "::1"]
    assert signing.name_servers(str(tmp_path / "none")) == []


def test_a_good_record_is_looked_at_every_hour(store, reloads):
    signing.prepare(store, FIRST)
    key, asked = store.public_key(FIRST), []

    def ask(name, _server):
        asked.append(name)
        return [signing.record_value(key)]

    def look(now, **more):
        return signing.look(store, FIRST, now, ask=ask, **more)

    assert look(1000.0).answer == PUBLISHED and len(asked) == 1
    # It does not sign yet, so it is asked again.
    assert look(1001.0).signs == "" and len(asked) == 2
    settle(store, FIRST, PUBLISHED, reloads)
    look(1002.0)
    assert len(asked) == 2
    look(1002.0, always=True, remember=False)
    look(1001.0 + signing.LOOK)
    # A clock that was set back.
    look(0.0)
    assert len(asked) == 5
    kept = pathlib.Path(store.state).read_text()
    assert kept.count(key) == 1 and "PRIVATE" not in kept


def seen(**changes):
    return signing.Seen(**{"wanted": FIRST, "public_key": KEY, "signs": FIRST, "answer": PUBLISHED, "age": 2 * signing.GRACE, **changes})


@pytest.mark.parametrize(
    ("changes", "keys", "words"),
    [
        ({}, [], "mail is signed with first"),
        ({"answer": UNKNOWN}, [], "silent"),
        ({"answer": MISSING}, ["signature"], "mail is signed"),
        ({"signs": "", "answer": MISSING}, ["signing"], "leaves unsigned"),
        ({"signs": "", "answer": UNKNOWN}, ["signing"], "leaves unsigned"),
        ({"signs": "", "answer": MISSING, "age": 10.0}, [], "leaves unsigned"),
        ({"wanted": SECOND, "answer": MISSING}, ["signing"], "is signed with first._domainkey.example.org until the record second"),
        ({"running": False}, ["signer"], "opendkim does not run; mail waits"),
        ({"public_key": ""}, ["signing"], "run the site playbook"),
    ],
)
def test_what_is_told(changes, keys, words):
    there = seen(**changes)
    assert list(signing.problems(there)) == keys and words in signing.summary(there)
    assert there.good == (not changes)


def test_metrics():
    assert [line for line in signing.metrics(seen(answer=MISSING)).splitlines() if line[0] != "#"] == [
        "civitas_mail_signer_running 1",
        "civitas_mail_signing 1",
        "civitas_mail_signature_wrong 1",
    ]
    assert "civitas_mail_signing 0\ncivitas_mail" not in signing.metrics(seen(signs=""))
    assert "civitas_mail_signing 0\n" in signing.metrics(seen(signs=""))
    assert "civitas_mail_signature_wrong 0\n" in signing.metrics(seen(answer=UNKNOWN))
