# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host may ask of a store. What its key does over a real sshd is in test_backup_run."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _store_receive as receiver
from ansible_collections.civitas.hosting.plugins.module_utils._store_receive import rsync_command
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import HostStore, StoreError
from hypothesis import given
from hypothesis import strategies as st

SET = "20260101T000000Z-0123456789ab"
GOOD = f"rsync --server -te.LsfxCIvu --timeout=60 --bwlimit=1000 --inplace . incoming/{SET}/"


@pytest.mark.parametrize("flags", ["-te.LsfxCIvu", "-te.iLsfxCIvu", "-vte.LsfxC", "-te.LsfxCIvu --timeout=60"])
def test_what_the_sending_program_asks(flags: str) -> None:
    command, set_id = rsync_command(f"rsync --server {flags} --inplace . incoming/{SET}/".split(" "))
    assert command == ["rsync", "--server", *flags.split(" "), "--inplace", "."] and set_id == SET


@pytest.mark.parametrize(
    "word",
    [
        "--sender",
        "--delete",
        "--remove-source-files",
        "--log-file=/x",
        "--temp-dir=/",
        "--partial-dir=/",
        "--backup-dir=/",
        "-l",
        "--copy-devices",
        "--write-devices",
        "--files-from=-",
        "--link-dest=/",
        "--daemon",
        "--rsync-path=x",
        "--super",
        "--fake-super",
        "--chown=root",
        ".",
        "",
        "x",
    ],
)
@pytest.mark.parametrize("place", range(1, 8))
def test_any_other_word_at_any_place(word: str, place: int) -> None:
    words = GOOD.split(" ")
    words.insert(place, word)
    with pytest.raises(StoreError):
        rsync_command(words)


@given(
    st.lists(
        st.sampled_from([*GOOD.split(" "), "--sender", "..", "/", f"incoming/{SET}/..", "-rte.x", "-te.", "--inplace=1", "\n"]), max_size=9
    )
)
def test_nothing_else_is_taken(words: list[str]) -> None:
    try:
        command, set_id = rsync_command(words)
    except StoreError:
        return
    assert set_id == SET and command[:2] == ["rsync", "--server"] and command[-1] == "."
    assert all(word.startswith(("-te.", "--timeout=", "--bwlimit=", "--inplace")) for word in command[2:-1])


def asked(request: bytes, stores: dict[str, HostStore]) -> Any:
    """What the service answers to this process."""
    mine, its = socket.socketpair()

    def store_of(name: str, uid: int) -> HostStore:
        if name in stores and uid == os.getuid():
            return stores[name]
        raise StoreError("this store does not know this host", final=True)

    with mine, its:
        mine.sendall(request)
        mine.shutdown(socket.SHUT_WR)
        receiver.answer(its, store_of, lambda request, uid: {"served": request["grant"]})
        return json.loads(mine.makefile().readline())


def test_the_service_answers(tmp_path: Path) -> None:
    stores = {"records1": HostStore(str(tmp_path), "records1", [], 10**12, 0)}
    assert asked(b'{"request": "have", "host": "records1"}\n', stores)["sets"] == []
    assert asked(f'{{"request": "begin", "host": "records1", "set": "{SET}", "bytes": 5}}\n'.encode(), stores) == {"taken": []}
    reply = asked(f'{{"request": "commit", "host": "records1", "set": "{SET}"}}\n'.encode(), stores)
    assert reply["bad"] == ["manifest.json", "manifest.json.sig"] and reply["final"] is False
    assert asked(b'{"request": "have", "host": "other"}\n', stores) == {
        "error": "this store does not know this host",
        "bad": [],
        "final": True,
    }


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\n",
        b"[]",
        b"{",
        b'{"host": "records1"}',
        b'{"request": "x", "host": "records1"}',
        b'{"request": "begin", "host": "records1", "set": 5, "bytes": []}',
        b"\xff\n",
        b"x" * 10_000,
        b'{"request": "commit", "host": "records1", "set": "../../etc"}',
    ],
)
def test_requests_that_are_none(tmp_path: Path, request_: bytes) -> None:
    reply = asked(request_, {"records1": HostStore(str(tmp_path), "records1", [], 10**12, 0)})
    assert set(reply) == {"error", "bad", "final"}
    assert str(tmp_path) not in reply["error"]


def test_the_kernel_says_who_asks(tmp_path: Path) -> None:
    """Not the request."""
    path = str(tmp_path / "s")
    seen: list[tuple[str, int]] = []

    def store_of(name: str, uid: int) -> HostStore:
        seen.append((name, uid))
        raise StoreError("no")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as connection:
                receiver.answer(connection, store_of, lambda request, uid: None)

        thread = threading.Thread(target=serve)
        thread.start()
        reply = json.loads(receiver.ask(path, {"request": "have", "host": "records1", "uid": 0, "user": "root"}))
        thread.join()
    assert seen == [("records1", os.getuid())] and reply["error"] == "no"
