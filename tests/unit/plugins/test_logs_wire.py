# SPDX-License-Identifier: GPL-3.0-or-later
"""Evidence on its way over real connections: whole, once, from whom the certificate names, and whatever the other side does."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_store as store
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_wire as wire

from tests.unit import pki

SERIES = "a" * 16


class Story:
    """An authority, a receiver of two senders, and what both sides say."""

    def __init__(self, root):
        self.root = root
        self.told = []
        root_ca = pki.issue(pki.name("Root"), ca=True)
        self.files = {}
        for name in ("watch.internal", "one.internal", "two.internal", "stranger.internal"):
            self.files[name] = self.pair(name, root_ca)
        self.files["foreign"] = self.pair("one.internal", pki.issue(pki.name("Foreign"), ca=True), "foreign")
        (root / "ca.pem").write_text(root_ca.pem)
        self.files = {name: (*pair, str(root / "ca.pem")) for name, pair in self.files.items()}
        self.listener = None
        self.start()

    def pair(self, name, issuer, file=""):
        leaf = pki.issue(name, issuer, names=[name], purposes=[pki.SERVER, pki.CLIENT])
        certificate, key = self.root / f"{file or name}.pem", self.root / f"{file or name}.key"
        certificate.write_text(leaf.pem)
        key.write_text(leaf.key_pem())
        return str(certificate), str(key)

    def say(self, severity, text):
        self.told.append(text)

    def start(self, bytes_a_day=10**6):
        senders = {}
        for name in ("one", "two"):
            (self.root / name).mkdir(exist_ok=True)
            senders[f"{name}.internal"] = wire.Sender(name, str(self.root / name), bytes_a_day)
        self.listener = socket.create_server(("127.0.0.1", 0))
        receiver = wire.Receiver(senders, self.files["watch.internal"], self.say)
        threading.Thread(target=receiver.serve, args=(self.listener,), daemon=True).start()

    @property
    def place(self):
        return {"name": "watch", "address": "127.0.0.1", "port": self.listener.getsockname()[1], "tls_name": "watch.internal"}

    def connect(self, certificate="one.internal", series=SERIES):
        context = wire.context(ssl.Purpose.SERVER_AUTH, *self.files[certificate])
        plain = socket.create_connection(("127.0.0.1", self.place["port"]), timeout=10)
        connection = context.wrap_socket(plain, server_hostname="watch.internal")
        connection.sendall(json.dumps({"series": series}).encode() + b"\n")
        return connection, connection.makefile("rb")

    def there(self, name="one"):
        return [json.loads(data) for _day, path in store.files(str(self.root / name)) for data in open(path, "rb")]


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path)


def line(number, series=SERIES, **more):
    return json.dumps({"series": series, "n": number, **more}).encode() + b"\n"


def soon(question):
    deadline = time.monotonic() + 20
    while not question() and time.monotonic() < deadline:
        time.sleep(0.02)
    return question()


def answer(file):
    return json.loads(file.readline() or b"{}")


def test_lines_are_acknowledged_when_they_are_on_disk_and_taken_once(story):
    connection, file = story.connect()
    assert answer(file) == {"have": 0}
    connection.sendall(line(1) + line(2, said={"message": "m"}))
    assert answer(file) == {"have": 2}
    assert [(one["n"], one["sender"], one["address"]) for one in story.there()] == [(1, "one", "127.0.0.1"), (2, "one", "127.0.0.1")]
    # Again, in two parts, with a new one.
    data = line(2) + line(3)
    connection.sendall(data[:50])
    connection.sendall(data[50:])
    while answer(file) != {"have": 3}:
        pass
    again, file = story.connect()
    assert answer(file) == {"have": 3}
    again.sendall(line(1, said={"message": "changed"}))
    assert answer(file) == {"have": 3}
    assert [one["n"] for one in story.there()] == [1, 2, 3]


def test_a_new_series_begins_anew_and_what_is_missing_is_told(story):
    connection, file = story.connect()
    answer(file)
    connection.sendall(line(1) + line(7))
    assert answer(file) == {"have": 7}
    connection, file = story.connect(series="b" * 16)
    assert answer(file) == {"have": 0}
    assert "one has skipped the lines 2 to 6; somebody has removed them there" in story.told
    assert "one begins a new series of lines" in story.told


@pytest.mark.parametrize("certificate", ["stranger.internal", "foreign"])
def test_who_is_no_sender_gets_no_answer(story, certificate):
    with pytest.raises(OSError):
        # How it ends differs between TLS 1.2 and 1.3.
        _connection, file = story.connect(certificate)
        assert file.readline() == b""
        raise OSError
    assert soon(lambda: any("no sender" in text or "certificate verify failed" in text for text in story.told)), story.told
    assert story.there() == [] and story.there("two") == []


def test_a_client_without_a_certificate_gets_no_answer(story):
    context = ssl.create_default_context(cafile=story.files["one.internal"][2])
    plain = socket.create_connection(("127.0.0.1", story.place["port"]))
    with pytest.raises(OSError), context.wrap_socket(plain, server_hostname="watch.internal") as one:
        one.sendall(b'{"series":"' + b"a" * 16 + b'"}\n')
        if one.recv(99) == b"":
            raise OSError
    assert soon(lambda: any("certificate" in text.lower() for text in story.told))


@pytest.mark.parametrize(
    "data",
    [b"\n", b"{}\n", b"[]\n", b"[" * 99999 + b"\n", line(1, "b" * 16), line(0), b"\xff\n", b"x" * 300000, b'{"delete":1}\n',
     line(1) + b"rubbish\n"],
)  # fmt: skip
def test_what_is_no_line_ends_the_connection_and_is_not_kept(story, data):
    connection, file = story.connect()
    answer(file)
    try:
        connection.sendall(data)
        assert b"have" not in file.read()
    except OSError:
        pass
    assert story.there() == []
    connection, file = story.connect("two.internal")
    assert answer(file) == {"have": 0}


def test_one_that_connects_again_takes_the_place_of_the_first(story):
    _first, file_1 = story.connect()
    answer(file_1)
    second, file_2 = story.connect()
    answer(file_2)
    assert file_1.read() == b""
    second.sendall(line(1))
    assert answer(file_2) == {"have": 1}


def test_more_than_a_day_s_share_waits_and_says_why(story):
    story.start(bytes_a_day=2000)
    connection, file = story.connect()
    answer(file)
    for number in range(1, 40):
        connection.sendall(line(number, said={"message": "x" * 100}))
    answers = [json.loads(data) for data in file]
    assert answers[-1] == {"error": "this host has sent as much as it may in a day"}
    kept = len(story.there())
    assert 5 < kept < 15
    connection, file = story.connect()
    assert answer(file) == {"have": kept}


def test_a_disk_without_room_is_told(story):
    connection, file = story.connect()
    answer(file)
    (story.root / "one").rmdir()
    connection.sendall(line(1))
    assert answer(file) == {"error": "it has no room"}


def test_the_forwarder_sends_what_is_there_and_what_comes(story):
    (story.root / "own").mkdir()
    kept = store.Store(str(story.root / "own"))
    kept.append([line(1), line(2)], {"series": SERIES, "n": 2}, time.time())
    forwarder = wire.Forwarder(str(story.root / "own"), SERIES, story.place, story.files["one.internal"], story.say)
    forwarder.start()
    assert soon(lambda: forwarder.acknowledged == 2)
    begin = time.monotonic()
    kept.append([line(3)], {"series": SERIES, "n": 3}, time.time())
    forwarder.wake()
    assert soon(lambda: forwarder.acknowledged == 3) and time.monotonic() - begin < 3
    assert [one["n"] for one in story.there()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tls_name": "other.internal"}, "certificate"),
        ({"port": 9}, "refused"),
    ],
)
def test_a_receiver_that_is_not_the_right_one_gets_nothing(story, change, words):
    (story.root / "own").mkdir()
    store.Store(str(story.root / "own")).append([line(1)], {"series": SERIES, "n": 1}, time.time())
    place = {**story.place, **change}
    forwarder = wire.Forwarder(str(story.root / "own"), SERIES, place, story.files["one.internal"], story.say)
    forwarder.start()
    assert soon(lambda: words in forwarder.problem), forwarder.problem
    assert forwarder.acknowledged == -1 and story.there() == []
    assert "it is kept here, and sent when it can be" in " ".join(story.told)


def test_the_oldest_tls_is_1_2(story):
    context = ssl.create_default_context(cafile=story.files["one.internal"][2])
    context.load_cert_chain(*story.files["one.internal"][:2])
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        context.wrap_socket(socket.create_connection(("127.0.0.1", story.place["port"])), server_hostname="watch.internal")
