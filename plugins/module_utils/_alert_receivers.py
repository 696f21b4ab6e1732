# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who hears alarms: by mail, by a chat's webhook, by the HTTP interface of an SMS gateway.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import typing as t
import urllib.parse

from ansible_collections.civitas.hosting.plugins.module_utils import _webhook
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import SEVERITIES
from ansible_collections.civitas.hosting.plugins.module_utils._login_delivery import SEND_SECONDS, Mail, side_by_side, timed
from ansible_collections.civitas.hosting.plugins.module_utils._value_types import in_words
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Https, Undelivered
from ansible_collections.civitas.hosting.plugins.module_utils._written_values import is_mail_address, unknown_keys

# What has not begun after so many seconds is left for the next time: who is told of alarms must not be kept from judging.
BEGIN_SECONDS = 150.0
WAYS = ("email", "webhook", "sms")
SMS_KEYS = ("url", "method", "body", "numbers", "headers", "ca_file")
METHODS = ("POST", "PUT", "GET")
# What a message by SMS may have: two of the parts that gateways join.
SMS_LENGTH = 300
# The relay of the host itself.
RELAY: t.Dict[str, t.Any] = {"host": "127.0.0.1", "port": 25, "tls": "none", "user": "", "password": "", "ca_file": ""}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,40}")
_NUMBER = re.compile(r"\+?[0-9]{3,18}")
_HEADER = re.compile(r"[A-Za-z0-9-]+")
_PLACE = re.compile(r"{(text|number)}")


class Receiver(t.NamedTuple):
    """Somebody who hears alarms.

    Attributes:
        name: unique. Each address and each number is a receiver of its own: one that fails makes no other hear a thing twice.
        severities: what it hears of.
        way: one of C(WAYS).
        options: what the way needs, secrets included.
    """

    name: str
    severities: t.Tuple[str, ...]
    way: str
    options: t.Dict[str, t.Any]


# --- what is wrong


def problems(receivers: t.Any, variable: str = "receivers") -> t.List[str]:
    """What is wrong with receivers, one sentence each, with what to write. Secrets are not quoted."""
    if isinstance(receivers, (str, t.Mapping)) or not isinstance(receivers, t.Sequence):
        return [f"{variable} is {in_words(receivers)}; write a list of receivers"]
    found: t.List[str] = []
    names: t.Set[str] = set()
    for position, receiver in enumerate(receivers):
        where = f"{variable}[{position}]"
        if not isinstance(receiver, t.Mapping):
            found.append(f"{where} is {in_words(receiver)}; write a mapping with name and one of email, webhook, sms")
            continue
        found += unknown_keys(where, receiver, ("name", "severities", *WAYS))
        name = receiver.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            found.append(f"{where}.name is {name!r}; write a short name without blanks, such as team")
        elif name in names:
            found.append(f"{where}.name is {name!r}, as another one's; write another name")
        names.add(str(name))
        severities = receiver.get("severities", list(SEVERITIES))
        if not isinstance(severities, (list, tuple)) or not severities or any(each not in SEVERITIES for each in severities):
            found.append(f"{where}.severities is {severities!r}; write [warning, critical], [critical], or leave it out")
        ways = [way for way in WAYS if receiver.get(way)]
        if len(ways) != 1:
            found.append(f"{where} has {' and '.join(ways) or 'no way to reach it'}; write exactly one of email, webhook, sms")
        elif not isinstance(receiver[ways[0]], t.Mapping):
            found.append(f"{where}.{ways[0]} is {in_words(receiver[ways[0]])}; write a mapping such as {_EXAMPLES[ways[0]]}")
        else:
            found += _WAY_PROBLEMS[ways[0]](f"{where}.{ways[0]}", receiver[ways[0]])
    return found or _unheard(receivers, variable)


def _unheard(receivers: t.Sequence[t.Mapping[str, t.Any]], variable: str) -> t.List[str]:
    """Severities that nobody hears. Without any receiver that is on purpose, or a matter of the site's policy."""
    heard = {severity for receiver in receivers for severity in receiver.get("severities", SEVERITIES)}
    missing = [severity for severity in SEVERITIES if receivers and severity not in heard]
    return [f"{variable}: nobody hears {severity} alarms; write {severity} into the severities of a receiver" for severity in missing]


def _email_problems(where: str, email: t.Mapping[str, t.Any]) -> t.List[str]:
    found = unknown_keys(where, email, ("to",))
    to = email.get("to")
    if isinstance(to, str) or not isinstance(to, (list, tuple)) or not to:
        return [*found, f"{where}.to is {in_words(to)}; write a list such as [administrators@example.org]"]
    return found + [f"{where}.to has {each!r}; write an address such as office@example.org" for each in to if not is_mail_address(each)]


def _webhook_problems(where: str, webhook: t.Mapping[str, t.Any]) -> t.List[str]:
    return _webhook.problems(where, webhook, _webhook.FORMATS)


def _sms_problems(where: str, sms: t.Mapping[str, t.Any]) -> t.List[str]:
    found = unknown_keys(where, sms, SMS_KEYS)
    url, body, method = sms.get("url", ""), sms.get("body", ""), sms.get("method", "POST")
    if not isinstance(url, str) or not _webhook.is_usable(_PLACE.sub("x", url)):
        found.append(f"{where}.url is no usable address; write that of the gateway, https://sms.example.org/send; it must be https")
    if method not in METHODS:
        found.append(f"{where}.method is {method!r}; write one of {', '.join(METHODS)}")
    if not isinstance(body, str):
        found.append(f"{where}.body is {in_words(body)}; write a text, in single quotes when it is JSON")
        body = ""
    if method == "GET" and body:
        found.append(f"{where}.body is given with the method GET; write what is sent into the url, or another method")
    for field in ("text", "number"):
        if f"{{{field}}}" not in f"{url}{body}":
            found.append(f"{where} does not say where the {field} goes; write {{{field}}} into its body or url")
    if _is_json(body):
        try:
            json.loads(_filled(body, {"text": "t", "number": "1"}, _as_json))
        except ValueError:
            found.append(f'{where}.body begins as JSON and is none; write, for example, \'{{"to": "{{number}}", "text": "{{text}}"}}\'')
    numbers = sms.get("numbers")
    if isinstance(numbers, str) or not isinstance(numbers, (list, tuple)) or not numbers:
        found.append(f"{where}.numbers is {in_words(numbers)}; write a list such as ['+251911000000']")
    elif any(not isinstance(number, str) or not _NUMBER.fullmatch(number) for number in numbers):
        found.append(f"{where}.numbers has something that is no number; write digits in quotes, such as '+251911000000'")
    headers = sms.get("headers", {})
    if not isinstance(headers, t.Mapping):
        found.append(f"{where}.headers is {in_words(headers)}; write a mapping such as {{Authorization: 'Bearer ...'}}")
    else:
        for name, value in headers.items():
            if not isinstance(name, str) or not _HEADER.fullmatch(name) or not isinstance(value, str) or not re.fullmatch(r"[ -~]+", value):
                found.append(f"{where}.headers has one that is none; write names of letters, and values in one line")
    if not isinstance(sms.get("ca_file", ""), str):
        found.append(f"{where}.ca_file is {in_words(sms['ca_file'])}; write the path of a file on the host")
    return found


_WAY_PROBLEMS: t.Dict[str, t.Callable[[str, t.Mapping[str, t.Any]], t.List[str]]] = {
    "email": _email_problems,
    "webhook": _webhook_problems,
    "sms": _sms_problems,
}
_EXAMPLES = {
    "email": "{to: [administrators@example.org]}",
    "webhook": "{url: https://chat.example.org/hooks/..., format: slack}",
    "sms": "{url: https://sms.example.org/send, numbers: ['+15550100'], body: 'to={number}&text={text}'}",
}


# --- how they are reached


def parse(receivers: t.Sequence[t.Mapping[str, t.Any]], mail: t.Mapping[str, t.Any]) -> t.List[Receiver]:
    """Receivers without C(problems).

    Args:
        mail: C(from), and what differs from C(RELAY).
    """
    found = []
    for receiver in receivers:
        way = next(way for way in WAYS if receiver.get(way))
        options = dict(receiver[way])
        severities = tuple(receiver.get("severities") or SEVERITIES)
        if way == "webhook":
            found.append(Receiver(str(receiver["name"]), severities, way, {"format": "generic", "ca_file": "", "token": "", **options}))
        elif way == "email":
            for address in options["to"]:
                found.append(Receiver(f"{receiver['name']} {address}", severities, way, {**RELAY, **mail, "to": [address]}))
        else:
            options = {"method": "POST", "body": "", "headers": {}, "ca_file": "", **options}
            for number in options.pop("numbers"):
                found.append(Receiver(f"{receiver['name']} {number}", severities, way, {**options, "number": number}))
    return found


def send(receiver: Receiver, message: t.Mapping[str, t.Any], seconds: int = SEND_SECONDS) -> None:
    """Hand over one message: C(id), C(host), C(subject), C(text), C(short), and what only a program reads. Raises Undelivered."""
    try:
        with timed(seconds), contextlib.closing(_sender(receiver, str(message["host"]))) as sender:
            left = sender.send(message)
    except Undelivered:
        raise
    except Exception as error:
        # Whatever it is, such as an address that cannot be written, the others are told. Its text could quote a secret.
        raise Undelivered(f"{receiver.way}: {type(error).__name__}") from None
    if left:
        raise Undelivered("mail: the relay does not take messages for this address now")


def send_all(messages: t.Sequence[t.Tuple[Receiver, t.Mapping[str, t.Any]]], seconds: int = SEND_SECONDS) -> t.Iterator[t.Tuple[str, str]]:
    """Hand over a message to each receiver, several at the same time; gives the name of each and its problem as soon as it is known.

    The problem is empty where the message was taken. One that is not given was not tried.
    """
    jobs = {receiver.name: functools.partial(_sent, receiver, message, seconds) for receiver, message in messages}
    for name, answer in side_by_side(jobs, seconds=seconds + 5, begin=BEGIN_SECONDS):
        yield name, "" if answer == "ok" else answer or "the sender died"


def _sent(receiver: Receiver, message: t.Mapping[str, t.Any], seconds: int) -> str:
    try:
        send(receiver, message, seconds)
    except Undelivered as error:
        return str(error)
    return "ok"


def _sender(receiver: Receiver, host: str) -> t.Union[Mail, _webhook.Webhook, Sms]:
    if receiver.way == "email":
        return Mail(receiver.options, host)
    return _webhook.Webhook(receiver.options) if receiver.way == "webhook" else Sms(receiver.options)


class Sms(Https):
    """A gateway that sends an SMS when it is asked over HTTPS, in the way that its maker has thought of."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        super().__init__("sms", options["url"], options["ca_file"])
        self.options = options

    def send(self, message: t.Mapping[str, t.Any]) -> t.List[str]:
        fields = {"text": str(message["short"])[:SMS_LENGTH], "number": str(self.options["number"])}
        body = self.options["body"]
        is_json = _is_json(body)
        headers = {"Idempotency-Key": str(message["id"]), **self.options["headers"]}
        if body:
            headers = {"Content-Type": "application/json" if is_json else "application/x-www-form-urlencoded", **headers}
        filled = _filled(body, fields, _as_json if is_json else _as_form)
        self.ask(self.options["method"], _filled(self.target, fields, _as_form), filled.encode("utf-8"), headers)
        return []


def _is_json(body: str) -> bool:
    return body.lstrip()[:1] in ("{", "[") and not _PLACE.match(body.lstrip())


def _filled(text: str, fields: t.Mapping[str, str], written: t.Callable[[str], str]) -> str:
    return _PLACE.sub(lambda place: written(fields[place[1]]), text)


def _as_json(text: str) -> str:
    """Within the quotes of a JSON text."""
    return json.dumps(text)[1:-1]


def _as_form(text: str) -> str:
    return urllib.parse.quote(text, safe="")
