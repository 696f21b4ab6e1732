# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages arrive, by a real mail relay and over real TLS; and what is wrong with receivers is told with what to write."""

from __future__ import annotations

import json
import socket
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_receivers as receivers
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Rejected, Undelivered
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import sinks, tls_servers

MESSAGE: dict[str, Any] = {
    "id": "a/b 1",
    "type": "alerts",
    "host": "server_1",
    "subject": "[server_1] CRITICAL: /srv is 71% full",
    "text": "CRITICAL: /srv is 71% full\n",
    "short": 'server_1: CRITICAL: "/srv" is 71% full & more → x',
    "alerts": [{"name": "DiskFull"}],
}
ROOM = "/_matrix/client/v3/rooms/!room:example.org/send/m.room.message"


def one(receiver: dict[str, Any], mail: dict[str, Any] | None = None) -> receivers.Receiver:
    assert receivers.problems([{"name": "team", **receiver}]) == []
    (found,) = receivers.parse([{"name": "team", **receiver}], mail or {})
    return found


def webhook(sink: sinks.HttpsSink, **options: Any) -> receivers.Receiver:
    return one({"webhook": {"url": f"{sink.url}/hooks/canary?a=b", "ca_file": sink.ca_file, **options}})


# --- mail


def test_mail_goes_to_the_relay_of_the_host_unless_told() -> None:
    found = one({"email": {"to": ["a@example.org"]}}, {"from": "h@example.org"})
    assert (found.options["host"], found.options["port"], found.options["tls"]) == ("127.0.0.1", 25, "none")


def test_each_address_gets_a_mail_of_its_own() -> None:
    with sinks.mail() as sink:
        team = {"name": "team", "severities": ["critical"], "email": {"to": ["a@example.org", "b@example.org"]}}
        found = receivers.parse([team], {"from": "h@example.org", "port": sink.port})
        assert [(each.name, each.severities) for each in found] == [
            ("team a@example.org", ("critical",)),
            ("team b@example.org", ("critical",)),
        ]
        for each in found:
            receivers.send(each, MESSAGE)
    assert [recipients for recipients, _mail in sink.mails] == [["a@example.org"], ["b@example.org"]]
    mail = sink.mails[0][1]
    assert (mail["From"], mail["To"], mail["Subject"]) == ("h@example.org", "a@example.org", MESSAGE["subject"])
    assert mail["Message-ID"] == "<a-b-1@server-1>" and mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().splitlines() == MESSAGE["text"].splitlines()


@pytest.mark.parametrize("answer", ["450 later", "550 never"])
def test_a_relay_that_refuses(answer: str) -> None:
    with sinks.mail() as sink:
        sink.refuse = answer
        with pytest.raises(Undelivered, match=answer):
            receivers.send(one({"email": {"to": ["a@example.org"]}}, {"from": "h@example.org", "port": sink.port}), MESSAGE)


def test_a_relay_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Undelivered, match=f"127.0.0.1 port {port}: .*refused"):
        receivers.send(one({"email": {"to": ["a@example.org"]}}, {"from": "h@example.org", "port": port}), MESSAGE)


# --- chats


def test_any_program_gets_everything(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        receivers.send(webhook(sink), MESSAGE)
    (request,) = sink.requests
    assert (request.method, request.target) == ("POST", "/hooks/canary?a=b") and json.loads(request.body) == MESSAGE


def test_slack(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        receivers.send(webhook(sink, format="slack"), MESSAGE)
    assert json.loads(sink.requests[0].body) == {"text": f"{MESSAGE['subject']}\n{MESSAGE['text']}"}


def test_teams_gets_a_card_in_which_nothing_is_a_link(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        receivers.send(webhook(sink, format="teams"), {**MESSAGE, "text": "[a](http://evil.test)\n\nb\n"})
    document = json.loads(sink.requests[0].body)
    assert document["type"] == "message"
    (attachment,) = document["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive" and attachment["content"]["type"] == "AdaptiveCard"
    blocks = attachment["content"]["body"]
    assert {block["type"] for block in blocks} == {"RichTextBlock"}
    assert [block["inlines"][0]["text"] for block in blocks] == [MESSAGE["subject"], "[a](http://evil.test)", " ", "b"]


def test_matrix_knows_a_message_by_its_number(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        room = webhook(sink, format="matrix", url=f"{sink.url}{ROOM}", token="canary")
        receivers.send(room, MESSAGE)
    (request,) = sink.requests
    assert (request.method, request.target) == ("PUT", f"{ROOM}/a%2Fb%201")
    assert request.headers["authorization"] == "Bearer canary"
    assert json.loads(request.body) == {"msgtype": "m.text", "body": f"{MESSAGE['subject']}\n{MESSAGE['text']}"}


@pytest.mark.parametrize(("status", "kind"), [(500, Undelivered), (429, Undelivered), (404, Rejected), (302, Rejected)])
def test_an_answer_that_is_no_success(tmp_path: Path, status: int, kind: type[Exception]) -> None:
    with sinks.https(tmp_path) as sink:
        sink.status = status
        with pytest.raises(kind, match=f"webhook: localhost: the answer is {status}") as caught:
            receivers.send(webhook(sink), MESSAGE)
    assert "canary" not in str(caught.value) and len(sink.requests) == 1


def test_a_certificate_that_does_not_verify_ends_it(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        for options in ({"ca_file": ""}, {"url": f"https://127.0.0.1:{sink.port}/canary"}):
            with pytest.raises(Undelivered, match="certificate verify failed") as caught:
                receivers.send(webhook(sink, **options), MESSAGE)
            assert "canary" not in str(caught.value)
    assert sink.requests == []


def test_an_error_quotes_no_secret(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        for options in ({"url": f"{sink.url}/canary with blanks"}, {"url": f"{sink.url}{ROOM}", "format": "matrix", "token": "canary\n"}):
            found = receivers.parse([{"name": "x", "webhook": {"ca_file": sink.ca_file, **options}}], {})[0]
            with pytest.raises(Undelivered, match=r"webhook: localhost: (InvalidURL|ValueError)$") as caught:
                receivers.send(found, MESSAGE)
            assert "canary" not in str(caught.value)


def test_one_that_hangs_is_left(tmp_path: Path) -> None:
    with tls_servers.answering(lambda _connection: time.sleep(30)) as port:
        hanging = one({"email": {"to": ["a@example.org"]}}, {"from": "h@example.org", "port": port})
        begin = time.monotonic()
        with pytest.raises(Undelivered, match="did not answer within 1 seconds"):
            receivers.send(hanging, MESSAGE, 1)
        assert time.monotonic() - begin < 5


def test_those_that_hang_delay_no_other_and_whatever_fails_is_the_failure_of_one(tmp_path: Path) -> None:
    with tls_servers.answering(lambda _connection: time.sleep(30)) as port, sinks.https(tmp_path) as sink:
        mail = {"from": "h@example.org", "port": port}
        hanging = receivers.parse([{"name": "slow", "email": {"to": [f"a{number}@example.org" for number in range(6)]}}], mail)
        unwritable = receivers.parse([{"name": "bad", "webhook": {"url": f"{sink.url}/b\u00fcro"}}], {})
        begin = time.monotonic()
        times = {}
        outcomes = {}
        for name, problem in receivers.send_all([(each, MESSAGE) for each in (*hanging, *unwritable, webhook(sink))], 2):
            times[name], outcomes[name] = time.monotonic() - begin, problem
    assert [request.target for request in sink.requests] == ["/hooks/canary?a=b"]
    assert outcomes["team"] == "" and times["team"] < 2 and times["bad"] < 2
    assert outcomes["bad"].startswith("webhook: ") and "UnicodeEncodeError" in outcomes["bad"]
    assert all("did not answer within 2 seconds" in outcomes[each.name] for each in hanging) and max(times.values()) < 10


def test_an_address_that_cannot_be_written_is_the_failure_of_one() -> None:
    with sinks.mail() as sink:
        (found,) = receivers.parse(
            [{"name": "x", "email": {"to": ["a@example.org"]}}], {"from": "b\u00fcro@example.org", "port": sink.port}
        )
        with pytest.raises(Undelivered, match="UnicodeEncodeError"):
            receivers.send(found, MESSAGE)


# --- SMS


def sms(sink: sinks.HttpsSink, **options: Any) -> receivers.Receiver:
    standard = {"url": f"{sink.url}/send?key=canary", "numbers": ["+251911000000"], "ca_file": sink.ca_file}
    return one({"sms": {**standard, "body": '{"to": "{number}", "text": "{text}"}', **options}})


def test_a_gateway_that_takes_json(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        receivers.send(sms(sink, headers={"Authorization": "Bearer canary"}), MESSAGE)
    (request,) = sink.requests
    assert (request.method, request.target, request.headers["content-type"]) == ("POST", "/send?key=canary", "application/json")
    assert request.headers["authorization"] == "Bearer canary"
    assert json.loads(request.body) == {"to": "+251911000000", "text": MESSAGE["short"]}


def test_a_gateway_that_takes_a_form(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        receivers.send(sms(sink, body="to={number}&text={text}"), MESSAGE)
    (request,) = sink.requests
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert urllib.parse.parse_qs(request.body.decode()) == {"to": ["+251911000000"], "text": [MESSAGE["short"]]}


def test_a_gateway_that_takes_an_address(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        receivers.send(sms(sink, method="GET", url=f"{sink.url}/send?to={{number}}&text={{text}}", body=""), MESSAGE)
    (request,) = sink.requests
    assert request.method == "GET" and request.body == b"" and "content-type" not in request.headers
    assert urllib.parse.parse_qs(request.target.partition("?")[2]) == {"to": ["+251911000000"], "text": [MESSAGE["short"]]}


def test_an_sms_is_short_and_each_number_gets_its_own(tmp_path: Path) -> None:
    with sinks.https(tmp_path) as sink:
        item = {"name": "duty", "sms": {"url": sink.url, "ca_file": sink.ca_file, "body": "{number} {text}", "numbers": ["111", "222"]}}
        found = receivers.parse([item], {})
        for each in found:
            receivers.send(each, {**MESSAGE, "short": "x" * 1000})
    assert [each.name for each in found] == ["duty 111", "duty 222"]
    assert [request.body.decode() for request in sink.requests] == [f"{number} {'x' * receivers.SMS_LENGTH}" for number in ("111", "222")]


# The alphabet of what could get out of its place.
@settings(deadline=None)
@given(st.text('a0 "\\&=?#%{}\n\u2192', max_size=30))
def test_no_text_gets_out_of_its_place(text: str) -> None:
    fields = {"text": text, "number": "1"}
    filled = receivers._filled('{"to": "{number}", "text": "{text}"}', fields, receivers._as_json)
    assert json.loads(filled) == {"to": "1", "text": text}
    filled = receivers._filled("to={number}&text={text}", fields, receivers._as_form)
    assert urllib.parse.parse_qs(filled, keep_blank_values=True) == {"to": ["1"], "text": [text]}


# --- what is wrong

HOOK = {"url": "https://chat.example.org/hooks/canary"}
SMS = {"url": "https://sms.example.org/canary", "numbers": ["111"], "body": "{number} {text}"}


def named(**changes: Any) -> dict[str, Any]:
    return {"name": "team", **changes}


@pytest.mark.parametrize(
    ("receiver", "problem"),
    [
        ("x", "receivers[0] is a text; write a mapping"),
        (named(), "has no way to reach it; write exactly one of email, webhook, sms"),
        (named(webhook=HOOK, sms=SMS), "has webhook and sms; write exactly one"),
        (named(webhook=HOOK, name="a b"), "receivers[0].name is 'a b'; write a short name"),
        (named(webhook=HOOK, severities=["info"]), "severities is ['info']; write [warning, critical]"),
        (named(webhook=HOOK, severities=[]), "severities is []"),
        (named(webhook=HOOK, mail="x"), "has 'mail', which means nothing; known are name, severities, email, webhook, sms"),
        (named(email=["a@example.org"]), "receivers[0].email is a list; write a mapping"),
        (named(email={"to": []}), "email.to is a list; write a list such as"),
        (named(email={"to": "a@example.org"}), "email.to is a text; write a list"),
        (named(email={"to": ["a"]}), "email.to has 'a'; write an address"),
        (named(webhook={**HOOK, "url": "http://chat.example.org/canary"}), "webhook.url is no usable address"),
        (named(webhook={**HOOK, "format": "irc"}), "webhook.format is 'irc'; write generic, or slack (Mattermost, too), teams or matrix"),
        (named(webhook={**HOOK, "format": "matrix", "token": "canary"}), "webhook.url is no room; write https://matrix"),
        (named(webhook={"url": f"https://m.example.org{ROOM}", "format": "matrix"}), "webhook.token is no access token"),
        (named(webhook={**HOOK, "ca_file": 5}), "webhook.ca_file is a number"),
        (named(sms={**SMS, "url": "http://sms.example.org/canary"}), "sms.url is no usable address"),
        (named(sms={**SMS, "method": "DELETE"}), "sms.method is 'DELETE'; write one of POST, PUT, GET"),
        (named(sms={**SMS, "method": "GET"}), "sms.body is given with the method GET"),
        (named(sms={**SMS, "body": "{number}"}), "does not say where the text goes; write {text} into its body or url"),
        (named(sms={**SMS, "body": '{"to": {number}, "canary": "{text}"'}), "sms.body begins as JSON and is none"),
        (named(sms={**SMS, "numbers": [111]}), "sms.numbers has something that is no number"),
        (named(sms={**SMS, "numbers": "111"}), "sms.numbers is a text; write a list"),
        (named(sms={**SMS, "headers": {"A b": "canary"}}), "sms.headers has one that is none"),
        (named(sms={**SMS, "headers": {"Key": "canary\r\nX: y"}}), "sms.headers has one that is none"),
    ],
)
def test_problems_are_told_with_what_to_write_and_without_secrets(receiver: Any, problem: str) -> None:
    found = receivers.problems([receiver])
    assert any(problem in line for line in found), found
    assert "canary" not in " ".join(found)


def test_names_are_unique() -> None:
    assert "as another one's" in receivers.problems([named(webhook=HOOK), named(sms=SMS)])[0]
    assert "is a mapping; write a list" in receivers.problems({})[0]


def test_a_severity_that_nobody_hears() -> None:
    assert receivers.problems([named(webhook=HOOK, severities=["critical"])], "civitas_alerts") == [
        "civitas_alerts: nobody hears warning alarms; write warning into the severities of a receiver"
    ]
    assert receivers.problems([]) == []


def test_good_receivers() -> None:
    assert receivers.problems([named(webhook=HOOK), {"name": "duty", "severities": ["critical"], "sms": SMS}]) == []
