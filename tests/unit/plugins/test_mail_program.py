# SPDX-License-Identifier: GPL-3.0-or-later
"""The program of the hosts: what it makes of what Postfix's tools show, and what it tells. The tools themselves run in the scenario."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _mail_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _mail_signing as signing
from ansible_collections.civitas.hosting.plugins.module_utils._mail_queue import Limits, Mail, Seen
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Undelivered

NAME = "first._domainkey.example.org"
DOCUMENT = {
    "host": "server1",
    "unit": "postfix.service",
    "spool": "/",
    "minutes": 10,
    "messages": 200,
    "free_bytes": 1024,
    "metrics_file": "",
    "settings": {"relayhost": "[mail.example.org]:587", "mynetworks": "127.0.0.0/8, 172.30.128.0/17", "smtp_tls_CAfile": ""},
    "services": ["127.0.0.1:smtp"],
    "dkim": "",
    "webhook": {"url": "https://chat.example.org/hooks/canary", "format": "generic", "ca_file": ""},
}
# As postconf of Postfix 3.7 shows them.
SERVICES = """\
127.0.0.1:smtp inet n    -       n       -       -       smtpd
pickup     unix  n       -       n       60      1       pickup
smtp       unix  -       -       n       -       -       smtp
postlog    unix-dgram n  -       n       -       1       postlogd
"""


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose files are below C(tmp_path); its queue is C(host.seen), what it tells is in C(host.sent)."""

    class Host:
        seen = Seen(True, 2**30, [])
        sent: list[list[str]] = []
        problem = ""
        states = (str(tmp_path / "disk" / "mail.json"), str(tmp_path / "memory" / "mail.json"))
        metrics = tmp_path / "mail.prom"

        def watch(self):
            return program.watch(self.config)

    def send(config, kind, lines):
        if found.problem:
            raise Undelivered(found.problem)
        found.sent.append(list(lines))

    found = Host()
    found.sent = []
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**DOCUMENT, "metrics_file": str(found.metrics)}))
    found.config = program.read_config(str(path))
    monkeypatch.setattr(program, "look", lambda _config: found.seen)
    monkeypatch.setattr(program, "send", send)
    for name in ("read_told", "remember"):
        monkeypatch.setattr(getattr(program, name), "__defaults__", (found.states,))
    return found


def late():
    return Seen(True, 2**30, [Mail("deferred", time.time() - 700, 5, "because")])


def test_mail_that_waits_is_told_once_and_its_end_as_well(host):
    assert (host.watch(), host.sent) == (0, [])
    host.seen = late()
    assert host.watch() == 0 == host.watch()
    assert [len(lines) for lines in host.sent] == [1] and "(because)" in host.sent[0][0]
    assert "civitas_mail_problems 1" in host.metrics.read_text()
    assert host.metrics.stat().st_mode & 0o777 == 0o644
    host.seen = Seen(True, 2**30, [])
    host.watch()
    host.watch()
    assert host.sent[1:] == [["Mail leaves this host again."]]


def test_what_the_webhook_does_not_take_stays_news(host, capsys):
    host.seen, host.problem = late(), "webhook: chat.example.org: refused"
    assert host.watch() == 1 == host.watch()
    assert "it is tried again by the next run" in capsys.readouterr().err
    host.problem = ""
    assert host.watch() == 0 == host.watch()
    assert len(host.sent) == 1


def test_without_a_webhook_the_journal_has_it_once(host, capsys, monkeypatch):
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    host.config = host.config._replace(webhook={})
    host.seen = late()
    assert host.watch() == 0 == host.watch()
    assert host.sent == []
    shown = capsys.readouterr().err
    assert shown.count("1 mail waits") == 1 and shown.startswith("<3>")


def test_a_full_disk_is_told_once_as_well(host, tmp_path):
    (tmp_path / "disk").write_text("no directory")
    host.metrics.mkdir()
    host.seen = Seen(True, 1, [])
    assert host.watch() == 0 == host.watch()
    assert len(host.sent) == 1 and "MiB left" in host.sent[0][0]
    (tmp_path / "disk").unlink()
    host.seen = late()
    host.watch()
    assert len(host.sent) == 2 and [path.exists() for path in map(type(tmp_path), host.states)] == [True, False]
    host.watch()
    assert len(host.sent) == 2


def test_nothing_can_be_remembered(host, tmp_path):
    for name in ("disk", "memory"):
        (tmp_path / name).write_text("no directory")
    host.seen = late()
    with pytest.raises(OSError):
        host.watch()
    assert len(host.sent) == 1


@pytest.mark.parametrize("content", ["", "[]", "{", '{"late": "x"}', "null"])
def test_damaged_memory_is_no_memory(tmp_path, content):
    (tmp_path / "a").write_text(content)
    assert program.read_told((str(tmp_path / "a"), str(tmp_path / "b"))) == {}


def test_status(host, capsys):
    assert program.status(host.config) == 0
    host.seen = Seen(True, 2**30, [Mail("hold", 0, 1, ""), *late().mails])
    assert program.status(host.config) == 1
    shown = capsys.readouterr()
    assert "0 wait; 0 on hold; 1024 MiB left" in shown.out and "1 wait, the oldest for 700 seconds; 1 on hold" in shown.out
    assert "1 mail waits" in shown.err


@pytest.fixture
def signed(host, monkeypatch):
    """The host signs; what it sees of that is C(host.signing), and what a settled key changes is C(host.settled)."""
    host.config = host.config._replace(dkim=NAME)
    host.signing, host.settled = signing.Seen(NAME, "MIIB" * 98, NAME, signing.Answer("published"), 7200.0), []

    def look(_store, wanted, _now, **_more):
        if isinstance(host.signing, Exception):
            raise host.signing
        return host.signing._replace(wanted=wanted)

    monkeypatch.setattr(signing, "look", look)
    monkeypatch.setattr(signing, "settle", lambda _store, _wanted, answer, _reload: host.settled.append(answer.state))
    return host


def test_signatures_that_nobody_can_verify_are_told_and_their_end_as_well(signed):
    assert signed.watch() == 0 and signed.sent == [] and "civitas_mail_signing 1\n" in signed.metrics.read_text()
    good = signed.signing
    signed.signing = good._replace(answer=signing.Answer("wrong", "because"))
    assert signed.watch() == 0 == signed.watch()
    assert [len(lines) for lines in signed.sent] == [1] and "receivers cannot verify" in signed.sent[0][0]
    text = signed.metrics.read_text()
    assert "civitas_mail_signature_wrong 1\n" in text and "civitas_mail_problems 1\n" in text
    assert program.status(signed.config) == 1
    signed.signing = good
    signed.watch()
    assert signed.sent[1:] == [["Mail of this host is signed as it should be."]]
    # Only the watch lets keys sign.
    assert signed.settled == ["published", "wrong", "wrong", "published"]
    signed.signing = good._replace(running=False)
    signed.watch()
    signed.signing = good
    signed.watch()
    assert [lines[0] for lines in signed.sent[2:]] == [signing.summary(good._replace(running=False)), "Mail leaves this host again."]


def test_a_key_that_cannot_be_read_is_told_and_the_queue_is_watched_nevertheless(signed):
    signed.signing, signed.seen = signing.SigningError("no"), late()
    assert signed.watch() == 0
    ((first, second),) = signed.sent
    assert "1 mail waits" in first and second == "whether mail is signed cannot be told: no"
    assert "civitas_mail_signing" not in signed.metrics.read_text()


def test_the_record_is_shown(signed, capsys):
    assert program.dkim(signed.config) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("mail is signed with first.") and f'{NAME}. IN TXT "v=DKIM1; k=rsa; p=MIIB' in shown.out
    for changes in ({"signs": ""}, {"answer": signing.Answer("missing", "none")}, {"answer": signing.Answer("unknown", "silent")}):
        signed.signing = signed.signing._replace(**{"signs": NAME, **changes})
        assert program.dkim(signed.config) == 1
    assert "leaves unsigned" in capsys.readouterr().err and signed.settled == []


def test_a_host_that_does_not_sign(host, capsys):
    assert program.dkim(host.config) == 0 and "mail_relay_dkim" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({**DOCUMENT, "minutes": "canary"}), json.dumps({**DOCUMENT, "webhook": 1})])
def test_a_configuration_that_cannot_be_used(tmp_path, content):
    (tmp_path / "config").write_text(content)
    with pytest.raises(program.ConfigError, match="run the site playbook") as caught:
        program.read_config(str(tmp_path / "config"))
    assert "hooks" not in str(caught.value)


def test_settings_that_are_as_wanted():
    shown = "relayhost = [mail.example.org]:587\nmynetworks = 127.0.0.0/8 172.30.128.0/17\ntransport_maps =\n"
    wanted = {"relayhost": "[mail.example.org]:587", "mynetworks": "127.0.0.0/8, 172.30.128.0/17", "transport_maps": "", "unknown": ""}
    assert program.judge(shown, wanted) == []


@pytest.mark.parametrize("value", ["may", "encrypt", ""])
def test_a_setting_that_lets_mail_out_in_clear(value):
    (found,) = program.judge(f"smtp_tls_security_level = {value}\n", program.SETTINGS)
    assert found == f"smtp_tls_security_level is '{value}' and not 'secure'; run the site playbook, it writes /etc/postfix"


def test_services():
    assert program.judge_services(SERVICES, "", ["127.0.0.1:smtp"]) == []
    (found,) = program.judge_services(SERVICES.replace("127.0.0.1:smtp", "smtp          "), "", ["127.0.0.1:smtp"])
    assert found.startswith("master.cf listens as 'smtp'")
    (found,) = program.judge_services(SERVICES, "smtp/unix/smtp_tls_security_level = may\n", ["127.0.0.1:smtp"])
    assert "'smtp/unix/smtp_tls_security_level = may' for a single service" in found


def test_only_root(monkeypatch, capsys):
    monkeypatch.setattr(program.os, "geteuid", lambda: 1000)
    assert program.main(["status"]) == 1
    assert "write sudo before it" in capsys.readouterr().err


def test_limits(host):
    assert host.config.limits == Limits(600, 200, 1024)


def test_what_is_sent(monkeypatch, tmp_path):
    taken = []

    class Chat:
        def __init__(self, options):
            assert options == DOCUMENT["webhook"]

        def send(self, message):
            taken.append(message)

        def close(self):
            taken.append("closed")

    monkeypatch.setattr(program, "Webhook", Chat)
    (tmp_path / "config").write_text(json.dumps(DOCUMENT))
    config = program.read_config(str(tmp_path / "config"))
    program.send(config, "mail", ["a", "b"])
    program.send(config, "mail recovered", ["c"])
    first, _closed, second, _closed = taken
    assert (first["subject"], first["text"]) == ("[server1] mail: 2 problems", "a\nb\nWhat to do stands in docs/runbooks/mail_relay.md.\n")
    assert (first["host"], first["problems"]) == ("server1", ["a", "b"])
    assert (second["subject"], second["text"]) == ("[server1] c", "c\n") and first["id"] != second["id"]
