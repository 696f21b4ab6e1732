# SPDX-License-Identifier: GPL-3.0-or-later
"""No login is lost between its note and its destination, whatever is cut off, full or slow.

Relay, chat and disk are real ones in the scenario logins.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _login_delivery as delivery
from ansible_collections.civitas.hosting.plugins.module_utils import _login_spool as spool

from tests.unit import pki, sinks, tls_servers

LOGIN = {
    "PAM_SERVICE": "sshd",
    "PAM_USER": "alice",
    "PAM_RHOST": "192.0.2.7",
    "PAM_TTY": "ssh",
    "SSH_CONNECTION": "192.0.2.7 5 192.0.2.1 22",
}
SMTP = {"host": "127.0.0.1", "tls": "none", "user": "", "password": "", "ca_file": "", "from": "l@example.org", "to": ["a@example.org"]}


class Taker:
    """A destination that writes down what it takes; C(behavior) is called with each message first."""

    def __init__(self, path, behavior):
        self.path, self.behavior = path, behavior

    def send(self, message):
        answer = self.behavior(message)
        with open(self.path, "a", encoding="ascii") as file:
            file.write(json.dumps(message) + "\n")
        return answer or []

    def close(self):
        pass


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A function that makes a Delivery whose destinations are Takers."""
    monkeypatch.setattr(delivery, "journal", lambda *_arguments: iter(()))
    monkeypatch.setattr(delivery, "to_journal", lambda priority, text: told.append(text))
    told = []

    def make(mail=lambda _message: None, webhook=lambda _message: None, automation="each", minutes=60, destinations=("mail", "webhook")):
        config = delivery.Config(
            "h", SMTP if "mail" in destinations else {}, {"url": "x"} if "webhook" in destinations else {}, automation, minutes * 60
        )
        senders = {"mail": lambda: Taker(tmp_path / "mail", mail), "webhook": lambda: Taker(tmp_path / "webhook", webhook)}
        found = delivery.Delivery(config, [str(tmp_path / "disk"), str(tmp_path / "memory")], str(tmp_path / "log" / "l.jsonl"),
                                  str(tmp_path / "state" / "s.json"), senders)  # fmt: skip
        found.told = told
        found.taken = lambda name: lines(tmp_path / name)
        found.recorded = lambda: lines(tmp_path / "log" / "l.jsonl")
        return found

    return make


def note(queues, ago=60.0, which=0, **changes):
    made = spool.event({**LOGIN, **changes}, time.time() - ago, f"{ago:.0f}-{changes.get('PAM_USER', '')}")
    spool.put(made, [queues.bases[which]])
    return made["id"]


def refuse(_message):
    raise delivery.Undelivered("mail: no")


def test_a_note_is_recorded_and_goes_everywhere_once(made):
    queues = made()
    ids = [note(queues, ago) for ago in (50, 40)] + [note(queues, 30, which=1)]
    queues.run()
    queues.run()
    assert [message["id"] for message in queues.taken("mail")] == [message["id"] for message in queues.taken("webhook")] == ids
    assert [login["id"] for login in queues.recorded()] == ids
    assert not any(queues.names(base, kind) for base in queues.bases for kind in ("new", "mail", "webhook"))


def test_a_young_note_waits_until_sshd_has_said_what_it_is_for(made, monkeypatch):
    monkeypatch.setattr(delivery, "SETTLE", 0.5)
    queues = made()
    note(queues, 0)
    assert 0 < queues.sort(time.time()) <= 0.5
    begin = time.monotonic()
    queues.run()
    assert 0.2 < time.monotonic() - begin < 3
    assert len(queues.taken("mail")) == 1


def test_a_clock_that_was_set_back_holds_nothing(made):
    queues = made()
    note(queues, -100000)
    queues.remember(mail={"failures": 9, "tried": time.time() + 100000, "problem": "x", "since": 0})
    queues.run()
    assert len(queues.taken("mail")) == 1


def test_one_destination_fails_and_the_other_does_not_notice(made):
    queues = made(mail=refuse)
    note(queues)
    queues.run()
    assert len(queues.taken("webhook")) == 1 and len(queues.names(queues.bases[0], "mail")) == 1
    assert queues.told == ["mail: no; messages wait and are tried again"]
    # It is not tried again at once, and told once only.
    queues.run()
    state = delivery.read_state(queues.state_file)
    assert state["mail"]["failures"] == 1 and state["mail"]["problem"] == "mail: no"
    queues.remember(mail={**state["mail"], "tried": time.time() - 21})
    queues.run()
    assert delivery.read_state(queues.state_file)["mail"]["failures"] == 2 and len(queues.told) == 1
    better = made()
    better.remember(mail={**state["mail"], "tried": time.time() - 21})
    better.run()
    assert len(better.taken("mail")) == 1 and better.told[-1] == "mail: messages are delivered again"
    assert "problem" not in delivery.read_state(queues.state_file)["mail"]


def test_what_comes_back_is_found_within_five_minutes():
    # The longest wait, the timer, and a destination that hangs.
    assert delivery.WAITS[-1] + 10 + delivery.SEND_SECONDS + delivery.SETTLE < 300


def test_one_that_hangs_is_left(made, monkeypatch):
    monkeypatch.setattr(delivery, "SEND_SECONDS", 1)
    queues = made(mail=lambda _message: time.sleep(30))
    note(queues)
    begin = time.monotonic()
    queues.run()
    assert time.monotonic() - begin < 5
    assert len(queues.taken("webhook")) == 1 and "did not answer within 1 seconds" in queues.told[0]


def test_a_message_that_is_rejected_holds_no_other(made):
    def behavior(message):
        if "bob" in message["subject"]:
            raise delivery.Rejected("mail: 554 no")

    queues = made(mail=behavior)
    note(queues, 60, PAM_USER="bob")
    note(queues, 50)
    queues.run()
    assert [message["login"]["user"] for message in queues.taken("mail")] == ["alice"]
    assert len(queues.names(queues.bases[0], "mail")) == 1


def test_only_who_did_not_get_it_gets_it_again(made):
    queues = made(mail=lambda message: [] if message.get("to") else ["b@example.org"])
    note(queues)
    queues.run()
    (name,) = queues.names(queues.bases[0], "mail")
    assert queues.read(queues.bases[0], "mail", name)["to"] == ["b@example.org"]
    queues.remember(mail={})
    queues.run()
    assert [message.get("to") for message in queues.taken("mail")] == [None, ["b@example.org"]]


@pytest.mark.parametrize("step", range(1, 9))
def test_cut_off_anywhere_everything_comes_once(made, monkeypatch, step):
    """The n-th change of the disk is the last that the first run makes."""
    queues = made()
    identifier = note(queues)
    calls = []

    class PowerFailure(BaseException):
        pass

    def counted(function):
        def call(*arguments, **options):
            calls.append(function)
            if len(calls) == step:
                raise PowerFailure
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as context:
        for function in ("rename", "unlink", "write"):
            context.setattr(os, function, counted(getattr(os, function)))
        context.setattr(delivery.Delivery, "send_all", lambda _self: None)
        try:
            queues.run()
        except PowerFailure:
            assert len(calls) == step
    queues.run()
    assert [message["id"] for message in queues.taken("mail")] == [message["id"] for message in queues.taken("webhook")] == [identifier]
    assert {login["id"] for login in queues.recorded()} == {identifier}


def test_a_full_log_holds_no_announcement(made, monkeypatch):
    queues = made()
    note(queues)
    with monkeypatch.context() as context:
        context.setattr(
            delivery.Delivery, "append", lambda *_arguments: (each for each in ()).throw(OSError(28, "No space left on device"))
        )
        queues.sort(time.time())
        queues.send_all()
    assert len(queues.taken("mail")) == 1 and queues.recorded() == []
    assert "No space left" in queues.told[0]
    assert len(queues.names(queues.bases[0], "new")) == 1


def test_messages_that_find_no_place_are_counted_and_told(made, monkeypatch):
    monkeypatch.setattr(delivery, "LIMIT", 3)
    queues = made(mail=refuse)
    for ago in (60, 50, 40, 30, 20):
        note(queues, ago)
        queues.run()
    assert len(queues.taken("webhook")) == 5 and len(queues.names(queues.bases[0], "mail")) == 3
    better = made()
    better.remember(mail={})
    better.run()
    better.run()
    messages = better.taken("mail")
    assert [message["type"] for message in messages] == ["login", "login", "login", "lost"]
    assert messages[-1]["count"] == 2 and "2 logins were not announced" in messages[-1]["subject"]
    assert len(better.taken("webhook")) == 5 and len(better.recorded()) == 5


def test_notes_that_found_no_place_are_told(made):
    queues = made()
    os.makedirs(queues.bases[0], mode=0o700)
    for _number in range(3):
        spool.count_lost(queues.bases[0], 1700000000)
    queues.run()
    queues.run()
    assert [message["count"] for message in queues.taken("mail")] == [message["count"] for message in queues.taken("webhook")] == [3]


def test_a_damaged_note_is_told_and_in_nobodys_way(made):
    queues = made()
    note(queues)
    for text in ("{", "[]", "{}"):
        with open(f"{queues.bases[0]}/new/0{len(text)}{ord(text[0])}.json", "w", encoding="ascii") as file:
            file.write(text)
    queues.run()
    assert len(queues.taken("mail")) == 1 and sum("is damaged" in line for line in queues.told) == 3


def test_without_destinations_the_record_has_them(made):
    queues = made(destinations=())
    note(queues)
    queues.run()
    assert len(queues.recorded()) == 1


def test_a_destination_that_is_gone_leaves_nothing_waiting(made):
    queues = made(mail=refuse)
    note(queues)
    queues.run()
    rest = made(destinations=("webhook",))
    rest.run()
    assert rest.names(rest.bases[0], "mail") == [] and "not configured any more" in rest.told[-1]


def automation(queues, ago):
    return note(queues, ago, PAM_USER="deploy")


@pytest.fixture
def deploy(monkeypatch):
    monkeypatch.setattr(
        delivery, "groups_of", lambda users: {user: {"civitas-automation"} if user == "deploy" else set() for user in users}
    )


def test_summaries_lose_nothing_and_come_seldom(made, deploy):
    queues = made(automation="summary", minutes=10)
    ids = [automation(queues, 60)]
    note(queues, 55)
    queues.run()
    ids += [automation(queues, ago) for ago in (50, 40, 30)]
    queues.run()
    queues.run()
    assert [message["type"] for message in queues.taken("mail")] == ["login", "summary"]
    queues.remember(summary=time.time() - 601)
    queues.run()
    messages = [message for message in queues.taken("mail") if message["type"] == "summary"]
    assert [message["count"] for message in messages] == [1, 3]
    assert {login["id"] for login in queues.recorded()} >= set(ids)


def test_a_summary_that_was_cut_off_is_the_same_message(made, deploy, monkeypatch):
    queues = made(automation="summary", minutes=10)
    for ago in (60, 50):
        automation(queues, ago)

    class PowerFailure(BaseException):
        pass

    def fail(*_arguments, **_options):
        raise PowerFailure

    with monkeypatch.context() as context:
        context.setattr(delivery.Delivery, "remember", fail)
        with pytest.raises(PowerFailure):
            queues.run()
    automation(queues, 40)
    queues.run()
    assert [message["count"] for message in queues.taken("mail")] == [2]
    queues.remember(summary=0)
    queues.run()
    assert [message["count"] for message in queues.taken("mail")] == [2, 1]


# --- conversations


def relay(answers, said):
    """A relay that answers each command as C(answers) says, and keeps what it was told."""

    def answer(connection):
        connection.sendall(b"220 relay ESMTP\r\n")
        lines = connection.makefile("rb")
        for line in lines:
            said.append(line.strip().decode())
            words = said[-1].upper()
            if words == "DATA":
                connection.sendall(b"354 go on\r\n")
                while lines.readline() != b".\r\n":
                    pass
                words = "MESSAGE"
            reply = next((value for key, value in answers.items() if words.startswith(key)), "250 ok")
            connection.sendall(reply.encode() + b"\r\n")

    return tls_servers.answering(answer)


def mail(port, **options):
    return delivery.Mail({**SMTP, "port": port, **options}, "h")


MESSAGE = {"id": "1", "subject": "s", "text": "t\n"}


def test_a_relay_without_starttls_learns_nothing():
    said = []
    with relay({}, said) as port, pytest.raises(delivery.Undelivered, match="STARTTLS"):
        mail(port, tls="starttls", user="u", password="canary")
    assert [line.split()[0].upper() for line in said] == ["EHLO"]


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_certificate_that_does_not_verify_ends_it(tmp_path, tls):
    chain = pki.usual()
    context = tls_servers.context(tmp_path, chain.chain_pem, chain.leaf.key_pem())
    server = tls_servers.smtp(context) if tls == "starttls" else tls_servers.tls(context)
    with tls_servers.answering(server) as port, pytest.raises(delivery.Undelivered, match="certificate verify failed"):
        mail(port, tls=tls)


def test_recipients_are_refused_for_now_or_for_good(monkeypatch):
    told = []
    monkeypatch.setattr(delivery, "to_journal", lambda _priority, text: told.append(text))
    answers = {"RCPT TO:<NOW": "450 later", "RCPT TO:<NEVER": "550 nobody"}
    with relay(answers, []) as port:
        sender = mail(port, to=["yes@example.org", "now@example.org", "never@example.org"])
        assert sender.send(MESSAGE) == ["now@example.org"]
        with pytest.raises(delivery.Rejected, match="450 later"):
            sender.send({**MESSAGE, "to": ["now@example.org"]})
        assert sender.send({**MESSAGE, "to": ["yes@example.org"]}) == []
        sender.close()
    assert ["never@example.org is not accepted: 550 nobody" in line for line in told] == [False, True]


def test_a_refused_password_is_not_quoted():
    answers = {"EHLO": "250-relay\r\n250 AUTH LOGIN PLAIN", "AUTH": "535 no: canary"}
    with relay(answers, []) as port, pytest.raises(delivery.Undelivered, match="user or password is refused") as caught:
        mail(port, user="u", password="canary")
    assert "canary" not in str(caught.value)


def test_a_message_is_rejected_and_the_next_is_taken():
    said, answers = [], {"MESSAGE": "554 spam"}
    with relay(answers, said) as port:
        sender = mail(port)
        with pytest.raises(delivery.Rejected, match="554 spam"):
            sender.send(MESSAGE)
        answers["MESSAGE"] = "250 taken"
        assert sender.send(MESSAGE) == []
        sender.close()


# --- webhook


@pytest.fixture
def chat(tmp_path):
    """A function: a context in which a chat gives answers in turn; what it was asked, and a sender for it."""

    def made(*answers, path="/hooks/canary", shape="generic"):
        chain = pki.usual(subject="localhost", names=["localhost"])
        context = tls_servers.context(tmp_path, chain.chain_pem, chain.leaf.key_pem())
        (tmp_path / "root.pem").write_text(chain.root.pem)
        asked, left = [], list(answers)

        def answer(connection):
            with context.wrap_socket(connection, server_side=True) as secured:
                stream = secured.makefile("rb")
                while head := b"".join(sinks.before(b"\r\n", stream)).decode():
                    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length"))
                    asked.append((head, json.loads(stream.read(length))))
                    secured.sendall(left.pop(0).encode())

        @contextlib.contextmanager
        def running(ca_file=str(tmp_path / "root.pem")):
            with tls_servers.answering(answer) as port:
                options = {"url": f"https://localhost:{port}{path}", "format": shape, "ca_file": ca_file}
                with contextlib.closing(delivery.Webhook(options)) as sender:
                    yield sender

        return asked, running

    return made


def reply(status, *headers):
    return "\r\n".join([f"HTTP/1.1 {status} x", "Content-Length: 2", *headers, "", "ok"])


def test_a_chat_gets_json(chat):
    asked, running = chat(reply(200), reply(204, "Connection: close").replace("ok", "").replace(": 2", ": 0"), path="/hooks/canary?a=b")
    with running() as sender:
        assert sender.send(MESSAGE) == [] == sender.send({**MESSAGE, "id": "2"})
    head, body = asked[0]
    assert head.startswith("POST /hooks/canary?a=b HTTP/1.1") and "Idempotency-Key: 1\r\n" in head
    assert body == MESSAGE and asked[1][1]["id"] == "2"


def test_a_chat_like_slack_gets_one_text(chat):
    asked, running = chat(reply(200), shape="slack")
    with running() as sender:
        sender.send(MESSAGE)
    assert asked[0][1] == {"text": "s\nt\n"}


@pytest.mark.parametrize(
    ("status", "kind"), [(500, delivery.Undelivered), (429, delivery.Undelivered), (404, delivery.Rejected), (302, delivery.Rejected)]
)
def test_an_answer_that_is_no_success(chat, status, kind):
    asked, running = chat(reply(status, "Location: http://evil.test/"))
    with running() as sender, pytest.raises(kind, match=f"the answer is {status}") as caught:
        sender.send(MESSAGE)
    assert caught.type is kind and "canary" not in str(caught.value) and len(asked) == 1


def test_a_chat_whose_certificate_does_not_verify_gets_nothing(chat):
    asked, running = chat()
    with running(ca_file="") as sender, pytest.raises(delivery.Undelivered, match="certificate verify failed") as caught:
        sender.send(MESSAGE)
    assert asked == [] and "canary" not in str(caught.value)


def test_nothing_goes_without_tls():
    with pytest.raises(delivery.Undelivered, match="https"):
        delivery.Webhook({"url": "http://localhost/canary", "format": "generic", "ca_file": ""})


def entry(message, uid="0", pid="7", program="/usr/lib/openssh/sshd-session"):
    return {"MESSAGE": message, "_UID": uid, "_PID": pid, "_EXE": program}


def test_what_a_session_said_counts_when_its_process_ended_before_the_journal_looked():
    said = [
        entry("Starting session: command for alice from 192.0.2.7 port 5 id 0", "1000", "42", ""),
        entry("User child is on pid 42"),
        entry("Starting session: shell on pts/0 for root from 192.0.2.7 port 6 id 0", "0", "50", ""),
        entry("Starting session: command for bob from 192.0.2.7 port 8 id 0", "1001", "60"),
    ]
    assert delivery.said_by_sshd(said) == [line["MESSAGE"] for line in said]


def test_nobody_else_says_it_in_the_name_of_sshd():
    forged = "Starting session: command for alice from 192.0.2.7 port 5 id 0"
    said = [
        entry("User child is on pid 42"),
        entry("User child is on pid 43", "1000", "99", ""),
        entry("User child is on pid 45", "0", "98", "/usr/bin/logger"),
        # Another program, one that nobody named, one that a person named, one that root's logger named, and root's logger.
        entry(forged, "1000", "42", "/usr/bin/logger"),
        entry(forged, "1000", "44", ""),
        entry(forged, "1000", "43", ""),
        entry(forged, "1000", "45", ""),
        entry(forged, "0", "42", "/usr/bin/logger"),
    ]
    assert delivery.said_by_sshd(said) == ["User child is on pid 42"]


# --- several at the same time


def test_one_that_hangs_or_dies_delays_no_other() -> None:
    def dies() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    def fails() -> str:
        raise KeyError("canary")

    def hangs() -> str:
        time.sleep(60)
        return "never"

    begin = time.monotonic()
    jobs = {"hangs": hangs, "dies": dies, "fails": fails, "long": lambda: "x" * 5000, "good": lambda: "ok"}
    found = list(delivery.side_by_side(jobs, at_once=2, seconds=3))
    assert found[-1] == ("hangs", "") and time.monotonic() - begin < 20
    assert dict(found) == {"hangs": "", "dies": "", "fails": "", "long": "x" * 4000, "good": "ok"}


def test_what_does_not_begin_in_time_is_left_out() -> None:
    def slow() -> str:
        time.sleep(0.5)
        return "ok"

    assert list(delivery.side_by_side({"a": slow, "b": slow, "c": slow}, at_once=2, begin=0.1)) in (
        [("a", "ok"), ("b", "ok")],
        [("b", "ok"), ("a", "ok")],
    )
