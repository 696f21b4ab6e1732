# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions and answers of the program that keeps addresses let through, and what it tells nftables."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _egress_refresh as refresh
from hypothesis import given
from hypothesis import strategies as st

ASKED = refresh.question("records.test", 1, 7)
POINTER = b"\xc0\x0c"


def answer(*records, number=7, flags=0x8180, questions=1):
    body = b"".join(POINTER + struct.pack("!HHIH", kind, 1, 60, len(data)) + data for kind, data in records)
    return struct.pack("!HHHHHH", number, flags, questions, len(records), 0, 0) + ASKED[12:] + body


def test_addresses_are_found_behind_aliases():
    alias = (5, b"\x05other\x04test\x00")
    assert refresh.addresses(answer(alias, (1, bytes([192, 0, 2, 1])), (1, bytes([192, 0, 2, 2]))), ASKED, 1) == ["192.0.2.1", "192.0.2.2"]
    assert refresh.addresses(answer((28, bytes(15) + b"\1")), ASKED, 28) == ["::1"]


def test_texts_are_put_together():
    assert refresh.texts(answer((16, b"\x02ab\x00\x01c"), (16, b"")), ASKED, refresh.TEXT) == ["abc", ""]


def test_a_name_without_addresses_has_none():
    assert refresh.addresses(answer(), ASKED, 1) == []
    assert refresh.addresses(answer(flags=0x8183), ASKED, 1) == []


@pytest.mark.parametrize(
    ("message", "named"),
    [
        (answer(number=8), "not the answer"),
        (answer(flags=0x0100), "not the answer"),
        (answer(questions=0), "not the answer"),
        (answer(flags=0x8182), "could not find out"),
        (answer(flags=0x8185), "could not find out"),
        (answer(flags=0x8380), "cut short"),
        (answer((1, b"abc")), "damaged"),
        (answer((1, b"abcd"))[:-1], "cut short"),
        (struct.pack("!HHHHHH", 7, 0x8180, 1, 1, 0, 0) + b"\x40", "damaged"),
        (b"", "damaged"),
    ],
)
def test_what_is_no_answer_is_refused(message, named):
    with pytest.raises(refresh.AnswerError, match=named):
        refresh.addresses(message, ASKED, 1)


@given(st.binary(max_size=200), st.sampled_from([1, 28]))
def test_no_message_does_harm(noise, kind):
    for message in (noise, answer()[:12] + noise, ASKED[:2] + b"\x81\x80" + noise):
        with contextlib.suppress(refresh.AnswerError):
            refresh.addresses(message, ASKED, kind)


@pytest.mark.parametrize("name", ["a..b", "", "a" * 64 + ".test"])
def test_what_is_no_name_is_not_asked_for(name):
    with pytest.raises(ValueError):
        refresh.question(name, 1, 1)


def test_a_lost_and_a_late_answer_are_waited_out():
    """A server that says nothing at first, then answers another question, then the right one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve():
            server.recvfrom(512)
            message, client = server.recvfrom(512)
            number = struct.unpack_from("!H", message)[0]
            server.sendto(answer((1, bytes(4)), number=number ^ 1), client)
            server.recvfrom(512)
            server.sendto(answer((1, bytes([192, 0, 2, 9])), number=number), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert refresh.ask("records.test", 4, server.getsockname()) == ["192.0.2.9"]
        thread.join(5)


def test_missing_addresses_are_added_and_old_ones_renewed():
    sets = {"egress_a_4": {"192.0.2.1": 3000.0, "192.0.2.2": 10.0, "192.0.2.9": 5.0}}
    wanted = {"egress_a_4": {"192.0.2.1", "192.0.2.2", "192.0.2.3"}, "egress_gone_4": {"192.0.2.1"}}
    second, third = ("element inet civitas egress_a_4 { 192.0.2.%d }" % number for number in (2, 3))
    assert refresh.changes(wanted, sets, 1800) == [f"add {second}", f"delete {second}", f"add {second}", f"add {third}"]


def test_the_listing_of_nftables_is_understood():
    def named(name, table="civitas", **more):
        return {"set": {"family": "inet", "name": name, "table": table, **more}}

    elements = [{"elem": {"val": "192.0.2.1", "expires": 5}}, "192.0.2.0"]
    listing = {"nftables": [{"metainfo": {}}, named("a", elem=elements), named("b"), named("a", table="other")]}
    assert refresh.present(listing) == {"a": {"192.0.2.1": 5.0}, "b": {}}
