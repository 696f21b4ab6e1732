# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs brought into use before a real TLS server, cut off at every step, taken back, healed."""

from __future__ import annotations

import getpass
import grp
import itertools
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_wire as wire
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_install import Endpoint, Installer, InstallError, Spec
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Owner, Store, StoreError, trust_file

from tests.unit.pki import DAY, NOW, Pair, issue

ME = Owner(getpass.getuser(), grp.getgrgid(os.getegid()).gr_name)
ROOT = issue("Root", ca=True)
BETWEEN = issue("Intermediate", ROOT, ca=True, path_length=0)


def pair(name: str = "records.test", **arguments: Any) -> tuple[str, str]:
    leaf: Pair = issue(name, BETWEEN, names=[name], **arguments)
    return leaf.pem + BETWEEN.pem, leaf.key_pem()


FIRST, SECOND, THIRD = pair(), pair(), pair()


class Server:
    """Presents the pair that it loaded last: at its start, and before the next connection when the file C(flag) is there."""

    def __init__(self, directory: Path, flag: Path) -> None:
        self.directory, self.flag = directory, flag
        self.deaf = self.closing = False
        self.load()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def load(self) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(self.directory / "fullchain.pem", self.directory / "key.pem")

    def close(self) -> None:
        """End the thread before its listener: else it might accept with the same number as the next server's."""
        self.closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.thread.join()
        self.listener.close()

    def serve(self) -> None:
        while True:
            connection, _address = self.listener.accept()
            if self.closing:
                connection.close()
                return
            if self.flag.exists() and not self.deaf:
                self.flag.unlink()
                self.load()
            try:
                self.context.wrap_socket(connection, server_side=True).close()
            except OSError:
                connection.close()


class World:
    """A store with the pair FIRST in use, a server that presents it, and what an installer is told."""

    def __init__(self, path: Path) -> None:
        self.store = Store(str(path / "store"))
        self.root = path / "root.pem"
        self.root.write_text(ROOT.pem)
        self.flag = path / "reload"
        self.install(*FIRST, spec=Spec("edge", ["records.test"], ME))
        self.server = Server(path / "store" / "edge", self.flag)

    def spec(self, **changes: Any) -> Spec:
        endpoint = Endpoint("127.0.0.1", self.server.port, "records.test", "")
        return Spec("edge", ["records.test"], ME, run=[f"touch {self.flag}"], endpoints=[endpoint])._replace(**changes)

    def installer(self, spec: Spec | None = None) -> Installer:
        return Installer(self.store, spec or self.spec(), patience=0.5, lock_patience=0.2)

    def install(self, chain: str, key: str, spec: Spec | None = None) -> Any:
        return self.installer(spec).install(chain, key, str(self.root))

    def linked(self) -> str:
        return Path(self.store.path, "edge", "fullchain.pem").read_text()

    def presented(self) -> str:
        return wire.fetch("127.0.0.1", self.server.port, "records.test").chain_pem

    def is_settled(self, wanted: tuple[str, str]) -> None:
        assert self.linked() == wanted[0]
        assert self.presented() == wanted[0]
        assert self.store.key_is("edge", wanted[1])
        inner = os.listdir(Path(self.store.path, "edge", ".generations"))
        assert all(entry.isdigit() or entry == "history" for entry in inner), inner


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.server.close()


def test_a_new_pair_is_proven_on_the_wire(world: World) -> None:
    outcome = world.install(*SECOND)
    assert (outcome.changed, outcome.generation, outcome.notes) == (True, "2", [])
    world.is_settled(SECOND)
    assert world.install(*SECOND) == (False, "2", [])


def test_the_last_three_are_kept(world: World) -> None:
    for wanted in (SECOND, THIRD, FIRST, SECOND):
        world.install(*wanted)
    assert world.store.generations("edge") == ["3", "4", "5"]


def test_a_swap_changes_the_directory_and_what_follows_does_not(world: World) -> None:
    """So that services that look for what is newer than they are load it once."""
    directory = Path(world.store.path, "edge")
    before = directory.stat().st_ctime_ns
    world.install(*SECOND)
    swapped = directory.stat().st_ctime_ns
    assert swapped > before
    world.installer().heal()
    world.store.settle("edge", 1)
    assert directory.stat().st_ctime_ns == swapped


@pytest.mark.parametrize(
    ("chain", "key", "why"),
    [
        (SECOND[0], THIRD[1], "does not belong"),
        (*pair("other.test"), "hostname mismatch"),
        (issue("records.test", issue("Strange", ca=True), names=["records.test"]).pem, SECOND[1], "openssl verify"),
        (*pair(start=NOW - 9 * DAY, end=NOW - 2 * DAY), "expired"),
        ("", SECOND[1], "openssl verify"),
    ],
)
def test_what_the_host_refuses_changes_nothing(world: World, chain: str, key: str, why: str) -> None:
    with pytest.raises(StoreError, match=f"(?i){why}"):
        world.install(chain, key)
    world.is_settled(FIRST)
    assert world.store.generations("edge") == ["1"]


@pytest.mark.parametrize("changes", [{"verify": ["false"]}, {"verify": ["no-such-program -t"]}])
def test_what_a_user_refuses_is_taken_back(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(InstallError, match="taken back"):
        world.install(*SECOND, spec=world.spec(**changes))
    # Also the way back could not be told: it stays noted, and is ended by the next who comes.
    assert world.linked() == FIRST[0]
    assert "told now" in world.installer().heal()[0]
    world.is_settled(FIRST)


def test_one_that_is_not_presented_is_taken_back(world: World) -> None:
    world.server.deaf = True
    with pytest.raises(InstallError, match=r"presents another certificate.*in use again, seen on 127\.0\.0\.1"):
        world.install(*SECOND)
    world.server.deaf = False
    world.is_settled(FIRST)
    assert world.store.generations("edge") == ["1"]


def test_an_endpoint_that_did_not_answer_before_is_not_judged(world: World) -> None:
    closed = Endpoint("127.0.0.1", 1, "records.test", "")
    outcome = world.install(*SECOND, spec=world.spec(endpoints=[closed, *world.spec().endpoints]))
    assert outcome.notes == ["edge: 127.0.0.1:1 as records.test did not answer before the change, so it was not measured"]
    world.is_settled(SECOND)


def test_an_endpoint_that_is_new_to_the_certificate_is_not_judged(world: World) -> None:
    new = Endpoint("127.0.0.1", world.server.port, "new.test", "")
    world.server.deaf = True
    outcome = world.install(*SECOND, spec=world.spec(endpoints=[new]))
    assert "the pair before was not for new.test" in outcome.notes[0]


def test_the_first_pair_is_put_in_place_only(world: World) -> None:
    outcome = world.install(*SECOND, spec=world.spec(name="new", verify=["false"]))
    assert outcome.changed
    assert "first pair" in outcome.notes[0]
    assert world.store.pending("new") is None


def test_permissions_alone_are_repaired(world: World) -> None:
    key = Path(world.store.path, "edge", "key.pem")
    key.chmod(0o644)
    assert world.install(*FIRST).changed
    assert key.stat().st_mode & 0o7777 == ME.mode
    assert world.store.generations("edge") == ["1"]


def test_an_unknown_owner_and_a_stranger_in_the_place_are_named(world: World) -> None:
    with pytest.raises(StoreError, match="install the package"):
        world.install(*SECOND, spec=world.spec(owner=Owner("nobody-of-this-name", "root")))
    world.is_settled(FIRST)
    Path(world.store.path, "taken").mkdir()
    Path(world.store.path, "taken", "file").touch()
    with pytest.raises(StoreError, match="move it away"):
        world.install(*SECOND, spec=world.spec(name="taken"))


# --- cut off ----------------------------------------------------------------------------------------------------------------------------


def killed(world: World, where: str, after: bool, spec: Spec | None = None) -> None:
    """Install SECOND in a process of its own that is killed before or after a step."""
    installer = world.installer(spec)
    owner: Any = world.store if hasattr(world.store, where) else installer
    step: Callable[..., Any] = getattr(owner, where)

    def last(*arguments: Any) -> None:
        if after:
            step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        setattr(owner, where, last)
        try:
            installer.install(*SECOND, str(world.root))
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("where", "after"),
    [("arm", True), ("stage", True), ("judge", True), ("_measure", True), ("swap", False)],
)
def test_killed_before_the_swap(world: World, where: str, after: bool) -> None:
    killed(world, where, after)
    assert (world.linked(), world.presented()) == (FIRST[0], FIRST[0])
    assert "before it changed anything" in world.installer().heal()[0]
    world.is_settled(FIRST)
    assert world.store.generations("edge") == ["1"]
    assert world.installer().heal() == []


@pytest.mark.parametrize(("where", "after"), [("swap", True), ("_tell", True), ("_wait_for", True), ("settle", False)])
def test_killed_after_the_swap(world: World, where: str, after: bool) -> None:
    killed(world, where, after)
    assert world.linked() == SECOND[0]
    assert "proven now" in world.installer().heal()[0]
    world.is_settled(SECOND)


def test_killed_after_the_swap_with_a_pair_that_nobody_loads(world: World) -> None:
    killed(world, "swap", True)
    world.server.deaf = True
    with pytest.raises(InstallError, match="taken back"):
        world.installer().heal()
    world.server.deaf = False
    world.is_settled(FIRST)
    killed(world, "swap", True)
    # Who brings another pair needs no second run, and goes back to the last pair that was proven.
    world.server.deaf = True
    with pytest.raises(InstallError, match="taken back"):
        world.install(*THIRD)
    world.server.deaf = False
    world.is_settled(FIRST)
    killed(world, "swap", True)
    assert world.install(*THIRD).changed
    world.is_settled(THIRD)


@pytest.mark.parametrize(("file", "text"), [("key.pem", THIRD[1]), ("fullchain.pem", "rubbish"), ("fullchain.pem", "")])
def test_a_pair_that_was_damaged_after_the_swap_is_taken_back(world: World, file: str, text: str) -> None:
    killed(world, "swap", True)
    Path(world.store.path, "edge", ".generations", "2", file).write_text(text)
    with pytest.raises(InstallError, match="taken back"):
        world.installer().heal()
    world.is_settled(FIRST)


def test_a_pair_whose_user_refuses_it_after_the_swap_is_taken_back(world: World) -> None:
    killed(world, "swap", True)
    with pytest.raises(InstallError, match="taken back"):
        world.installer(world.spec(verify=[f"cmp {world.store.path}/edge/key.pem {world.store.path}/edge/.generations/1/key.pem"])).heal()
    world.is_settled(FIRST)


def test_a_pair_that_nobody_presents_is_not_proven(world: World) -> None:
    killed(world, "swap", True)
    nobody = world.spec(endpoints=[Endpoint("127.0.0.1", 1, "records.test", "")])
    for _attempt in range(2):
        assert "not proven yet, as nobody answers at 127.0.0.1:1" in world.installer(nobody).heal()[0]
        assert world.store.pending("edge")
    assert "proven now" in world.installer().heal()[0]
    world.is_settled(SECOND)


def test_an_unproven_pair_is_in_nobodys_way(world: World) -> None:
    nobody = world.spec(endpoints=[Endpoint("127.0.0.1", 1, "records.test", "")])
    killed(world, "swap", True)
    # It is what a rollback is to take away, and nothing more.
    outcome = world.installer(nobody).roll_back()
    assert (outcome.changed, outcome.generation) == (True, "1")
    killed(world, "swap", True)
    assert world.install(*THIRD, spec=nobody).changed
    assert world.store.history("edge").before == "1"
    assert world.store.pending("edge") is None


@pytest.mark.parametrize("after", [False, True])
def test_killed_on_the_way_back(world: World, after: bool) -> None:
    world.server.deaf = True
    killed(world, "go_back", after)
    world.server.deaf = False
    if after:
        assert "told now" in world.installer().heal()[0]
        world.is_settled(FIRST)
    else:
        # Still the new pair, which is presented now.
        assert "proven now" in world.installer().heal()[0]
        world.is_settled(SECOND)


def test_killed_at_the_first_pair(world: World) -> None:
    killed(world, "swap", False, world.spec(name="new"))
    world.installer(world.spec(name="new")).heal()
    assert world.install(*SECOND, spec=world.spec(name="new")).changed


def test_only_one_installer_works_at_a_time(world: World) -> None:
    with Store(world.store.path).lock(0), pytest.raises(StoreError, match="another installation is at work"):
        world.install(*SECOND)
    assert world.install(*SECOND).changed


@pytest.mark.parametrize("where", ["_write", "_sync"])
def test_a_full_disk_changes_nothing(world: World, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every write: the real disk is filled in the scenario."""
    from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_store as module

    real = getattr(module, where)
    for number in range(20):
        calls = itertools.count()

        def full(*arguments: Any, number: int = number, calls: Iterator[int] = calls) -> None:
            if next(calls) == number:
                raise OSError(28, "No space left on device")
            real(*arguments)

        monkeypatch.setattr(module, where, full)
        try:
            world.install(*SECOND)
        except OSError:
            monkeypatch.setattr(module, where, real)
            world.installer().heal()
            assert world.linked() == world.presented()
            if world.linked() == FIRST[0]:
                world.is_settled(FIRST)
                continue
        else:
            monkeypatch.setattr(module, where, real)
        break
    else:
        raise AssertionError("never enough space")
    world.is_settled(SECOND)
    assert number > 1


# --- back -------------------------------------------------------------------------------------------------------------------------------


def test_roll_back_and_forth(world: World) -> None:
    world.install(*SECOND)
    assert world.installer().roll_back().generation == "1"
    world.is_settled(FIRST)
    # Again, as for another host: nothing further.
    again = world.installer().roll_back()
    assert (again.changed, again.generation) == (False, "1")
    assert "generation 1 is in use already since a rollback" in again.notes[0]
    assert world.installer().roll_back("2").changed
    world.is_settled(SECOND)
    assert not world.installer().roll_back("2").changed
    assert world.installer().roll_back().generation == "1"


def test_the_first_pair_has_none_before_it(world: World) -> None:
    with pytest.raises(InstallError, match="no earlier pair; kept are 1"):
        world.installer().roll_back()


def test_a_pair_that_was_rolled_away_from_is_never_chosen(world: World) -> None:
    world.install(*SECOND)
    world.installer().roll_back()
    assert world.install(*THIRD).generation == "3"
    assert world.installer().roll_back().generation == "1"
    world.is_settled(FIRST)
    assert not world.installer().roll_back().changed
    world.is_settled(FIRST)


def test_what_was_rolled_away_from_is_removed_first(world: World) -> None:
    world.install(*SECOND)
    world.installer().roll_back()
    world.install(*THIRD)
    world.install(*SECOND)
    assert world.store.generations("edge") == ["1", "3", "4"]
    assert world.installer().roll_back().generation == "3"
    world.is_settled(THIRD)


def test_a_roll_back_that_failed_can_be_run_again(world: World) -> None:
    world.install(*SECOND)
    world.install(*THIRD)
    world.server.deaf = True
    with pytest.raises(InstallError, match="taken back"):
        world.installer().roll_back()
    world.server.deaf = False
    assert world.installer().roll_back().generation == "2"
    world.is_settled(SECOND)


def test_without_a_note_the_numbers_tell(world: World) -> None:
    world.install(*SECOND)
    world.installer().roll_back()
    note = Path(world.store.path, "edge", ".generations", "history")
    assert note.exists()
    note.write_text("rubbish")
    assert world.store.history("edge") == (["1"], False)
    with pytest.raises(InstallError, match="no earlier pair"):
        world.installer().roll_back()


@pytest.mark.parametrize(("file", "text"), [("key.pem", THIRD[1]), ("fullchain.pem", "rubbish")])
def test_there_is_no_way_back_to_a_damaged_pair(world: World, file: str, text: str) -> None:
    world.install(*SECOND)
    Path(world.store.path, "edge", ".generations", "1", file).write_text(text)
    with pytest.raises(InstallError, match="generation 1 would not be accepted"):
        world.installer().roll_back()
    world.is_settled(SECOND)


def test_there_is_no_way_back_to_a_pair_that_does_not_verify(world: World, tmp_path: Path) -> None:
    world.install(*SECOND)
    (tmp_path / "other.pem").write_text(issue("Other root", ca=True).pem)
    with pytest.raises(InstallError, match="openssl verify"):
        world.installer().roll_back("", str(tmp_path / "other.pem"))
    world.is_settled(SECOND)
    assert world.installer().roll_back("", str(world.root)).changed


def test_a_pair_rolled_back_to_has_to_be_seen_somewhere(world: World) -> None:
    world.install(*SECOND)
    nowhere = world.spec(endpoints=[Endpoint("127.0.0.1", 1, "records.test", "")])
    with pytest.raises(InstallError, match=r"taken back: no endpoint presents it"):
        world.installer(nowhere).roll_back()
    world.is_settled(SECOND)
    # Where its service does not run it cannot be.
    assert world.installer(nowhere._replace(reload_units=["no-such-unit.service"])).roll_back().changed


def test_a_roll_back_is_proven_too(world: World) -> None:
    world.install(*SECOND)
    world.server.deaf = True
    with pytest.raises(InstallError, match="taken back"):
        world.installer().roll_back()
    world.server.deaf = False
    world.is_settled(SECOND)
    assert world.store.generations("edge") == ["1", "2"]


def test_there_is_no_way_back_to_an_expired_pair(world: World) -> None:
    world.install(*SECOND)
    old = pair(start=NOW - 9 * DAY, end=NOW - 2 * DAY)
    for file, text in zip(("fullchain.pem", "key.pem"), old, strict=True):
        Path(world.store.path, "edge", ".generations", "1", file).write_text(text)
    with pytest.raises(InstallError, match="expired"):
        world.installer().roll_back()
    world.is_settled(SECOND)


def test_a_specification_has_defaults() -> None:
    spec = Spec.of({"name": "edge", "endpoints": [{"host": "::1", "port": "443"}], "containers": [{"name": "web"}], "owner": None})
    assert spec.owner == Owner("root", "root")
    assert [str(endpoint) for endpoint in spec.endpoints] == ["[::1]:443"]
    assert spec.containers[0].signal == "HUP"
    assert spec.keep == 3


def test_roots_are_handed_over_in_a_file_that_does_not_stay() -> None:
    with trust_file(ROOT.pem) as path:
        assert Path(path).read_text() == ROOT.pem
    assert not os.path.exists(path)
    with trust_file("") as path:
        assert path == ""
