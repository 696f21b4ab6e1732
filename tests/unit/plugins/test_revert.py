# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo log on real files: what comes back, and what a crash at any step, a full disk, a reboot and a second run make of it."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._revert import Revert, RevertError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SOURCE = Path(_revert.__file__)
# A parameter that every kernel has and nobody needs to write for this.
SYSCTL = "kernel.ostype"


class Host(Revert):
    """A host below a directory. There is no systemd in it: what would be asked of it is noted."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.asked: list[tuple[str, ...]] = []

    def _systemctl(self, *words: str) -> None:
        self.asked.append(words)


@pytest.fixture(autouse=True)
def _no_lock_stays() -> Iterator[None]:
    yield
    release()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """What is changed: a file, a secret one, a link, a directory with what is in it."""
    etc = tmp_path / "etc"
    (etc / "tree" / "deep").mkdir(parents=True)
    (etc / "file").write_text("old\n")
    (etc / "secret").write_text("canary\n")
    (etc / "secret").chmod(0o600)
    (etc / "link").symlink_to("file")
    (etc / "tree" / "one").write_text("one\n")
    (etc / "tree" / "deep" / "two").write_bytes(b"\0\xff")
    (etc / "tree" / "deep").chmod(0o750)
    os.utime(etc / "file", (1000, 2000))
    return etc


PATHS = ("file", "secret", "link", "tree", "new", "newdir/a/b")


def release() -> None:
    """As at the end of a module's process."""
    while _revert._changing:
        os.close(_revert._changing.pop())


def paths(etc: Path) -> list[str]:
    return [str(etc / name) for name in PATHS]


def ruin(etc: Path) -> None:
    """Every kind of change to every kind of thing."""
    for name in ("link", "secret"):
        (etc / name).unlink()
    (etc / "link").write_text("no link any more")
    (etc / "secret").mkdir()
    (etc / "secret" / "inner").write_text("x")
    (etc / "file").write_text("new\n")
    (etc / "file").chmod(0o777)
    shutil.rmtree(etc / "tree" / "deep")
    (etc / "tree" / "one").unlink()
    (etc / "tree" / "one").symlink_to("/dev/null")
    (etc / "tree" / "added").mkdir()
    (etc / "tree" / "added" / "more").write_text("more")
    (etc / "new").write_text("new")
    (etc / "newdir" / "a" / "b").mkdir(parents=True)


def state(top: Path) -> dict[str, Any]:
    """Everything that can be seen of a directory: kinds, contents, owners, modes."""
    seen: dict[str, Any] = {}
    for path in sorted(top.rglob("*")):
        status = path.lstat()
        mode, content = stat.S_IMODE(status.st_mode), b""
        if path.is_symlink():
            mode, content = 0, os.readlink(path).encode()
        elif path.is_file():
            content = path.read_bytes()
        seen[str(path)] = (stat.S_IFMT(status.st_mode), mode, status.st_uid, status.st_gid, content)
    return seen


def log_of(host: Revert) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(Path(host.armed).read_text())
    return log


def expire(host: Revert, seconds_left: float = 0.0) -> None:
    log = log_of(host)
    log["deadline"] = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds_left
    _revert._write(host.armed, log)


# --- what comes back ------------------------------------------------------------------------------------------------------------------


def test_everything_comes_back(host: Host, etc: Path) -> None:
    before = state(etc)
    log = host.arm(paths(etc))
    ruin(etc)
    assert state(etc) != before
    waiting = host.pending()
    assert waiting is not None
    assert waiting["id"] == log
    assert not waiting["restoring"]
    assert set(paths(etc)) - set(waiting["paths"]) == set()

    report = host.restore("asked for")

    assert report is not None
    assert state(etc) == before
    assert report["outcome"] == "restored"
    assert report["why"] == "asked for"
    assert str(etc / "file") in report["restored"]
    assert host.pending() is None
    assert host.restore() is None
    # No copy of a secret stays.
    assert sorted(os.listdir(host.state)) == ["changing", "last.json", "lock"]
    assert (etc / "file").stat().st_mtime == 2000
    # What came back is newer for those who compare with the start of a service.
    assert (etc / "file").stat().st_ctime > time.time() - 60


def test_what_was_not_changed_is_not_touched(host: Host, etc: Path) -> None:
    host.arm(paths(etc))
    before = {path: path.lstat().st_ctime_ns for path in etc.rglob("*")}
    report = host.restore()
    assert report is not None
    assert report["restored"] == []
    assert {path: path.lstat().st_ctime_ns for path in etc.rglob("*")} == before


def test_a_directory_that_others_use_meanwhile_stays(host: Host, etc: Path) -> None:
    host.arm([str(etc / "newdir" / "mine")])
    (etc / "newdir").mkdir()
    (etc / "newdir" / "mine").write_text("x")
    (etc / "newdir" / "theirs").write_text("x")
    host.restore()
    assert os.listdir(etc / "newdir") == ["theirs"]


def test_of_attributes_only_owner_and_mode_come_back(host: Host, etc: Path) -> None:
    host.arm(attributes=[str(etc / "tree")])
    (etc / "tree").chmod(0o700)
    (etc / "tree" / "added").write_text("stays")
    host.restore()
    assert stat.S_IMODE((etc / "tree").stat().st_mode) == 0o755
    assert (etc / "tree" / "added").read_text() == "stays"


def test_a_path_through_a_link_is_the_real_one(host: Host, etc: Path) -> None:
    (etc / "alias").symlink_to("tree")
    host.arm([str(etc / "alias" / "one")])
    (etc / "tree" / "one").write_text("changed")
    host.restore()
    assert (etc / "tree" / "one").read_text() == "one\n"


NAMES = st.sampled_from(["a", "b", "c", "a/x", "a/y", "b/x", "b/x/z"])
STEPS = st.lists(st.tuples(st.sampled_from(["write", "mkdir", "link", "remove", "chmod", "arm"]), NAMES), max_size=14)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=STEPS, second=STEPS)
def test_any_change_is_taken_back_when_it_was_armed(tmp_path: Path, first: list[tuple[str, str]], second: list[tuple[str, str]]) -> None:
    top, host = tmp_path / "any", Host(tmp_path / "anyhost")
    for folder in (top, tmp_path / "anyhost"):
        shutil.rmtree(folder, ignore_errors=True)
    top.mkdir()

    def step(what: str, path: Path) -> None:
        if what == "arm":
            return
        if what == "remove" or path.is_symlink() or (path.exists() and what in ("mkdir", "link") and not path.is_dir()):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        if what == "chmod" and path.exists():
            path.chmod(0o700)
        elif what == "write" and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{path.name}{len(str(path))}")
        elif what == "mkdir":
            path.mkdir(parents=True, exist_ok=True)
        elif what == "link" and not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("nowhere")

    for what, name in first:
        try:
            step(what, top / name)
        except (FileExistsError, NotADirectoryError):
            continue
    before = state(top)
    for what, name in second:
        # As a module would: first armed, then changed; several times over.
        host.arm([str(top / name)])
        try:
            step(what, top / name)
        except (FileExistsError, NotADirectoryError):
            continue
    host.restore()
    assert state(top) == before


# --- arming ---------------------------------------------------------------------------------------------------------------------------


def test_arming_again_extends_and_never_notes_twice(host: Host, etc: Path) -> None:
    before = state(etc)
    first = host.arm([str(etc / "file")], [["true"], ["echo", "a"]], seconds=60)
    deadline = log_of(host)["deadline"]
    (etc / "file").write_text("changed")
    second = host.arm([str(etc / "file"), str(etc / "new")], [["echo", "a"], ["echo", "b"], ["echo", "b"]], seconds=90)
    (etc / "new").write_text("new")
    assert first == second
    assert log_of(host)["actions"] == [["true"], ["echo", "a"], ["echo", "b"]]
    assert log_of(host)["deadline"] >= deadline + 29
    host.arm(seconds=5)
    assert log_of(host)["deadline"] >= deadline + 29, "a deadline is never brought forward"
    host.restore()
    assert state(etc) == before


def test_arming_installs_a_program_that_needs_nothing_else(host: Host, etc: Path) -> None:
    host.arm()
    assert [words[0] for words in host.asked] == ["daemon-reload", "start", "restart"]
    assert host.asked[-1] == ("restart", "civitas-revert.service")
    program = Path(host.program)
    assert program.read_text() == SOURCE.read_text()
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(program.read_text()))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
        + ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
    }
    assert imported <= sys.stdlib_module_names
    done = subprocess.run([sys.executable, "-I", program, "nonsense"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "usage: revert.py status | restore\n")

    host.asked.clear()
    host.arm()
    assert host.asked == [("restart", "civitas-revert.service")]
    program.write_text("another version")
    host.arm()
    assert program.read_text() == SOURCE.read_text()


def test_only_root_reads_what_was_there(host: Host, etc: Path) -> None:
    host.arm(paths(etc))
    assert stat.S_IMODE(os.stat(host.state).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(host.armed).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.join(host.state, log_of(host)["id"])).st_mode) == 0o700
    assert "canary" not in Path(host.armed).read_text()
    os.chmod(host.state, 0o755)
    host.arm()
    assert stat.S_IMODE(os.stat(host.state).st_mode) == 0o700


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"paths": ["etc/passwd"]}, "not absolute"),
        ({"paths": ["/etc/../etc/passwd"]}, "not absolute"),
        ({"paths": ["/"]}, "not absolute"),
        ({"paths": [None]}, "not absolute"),
        ({"attributes": ["etc"]}, "not absolute"),
        ({"actions": ["systemctl reload ssh"]}, "list of words"),
        ({"actions": [[]]}, "list of words"),
        ({"actions": [["sleep", 5]]}, "list of words"),
        ({"tables": ["civitas"]}, "family and name"),
        ({"tables": ["inet civitas; flush"]}, "family and name"),
        ({"tables": ["inet civitas\n"]}, "family and name"),
        ({"sysctls": ["../../etc/passwd"]}, "names no sysctl"),
        ({"sysctls": ["net.ipv4.no_such_thing"]}, "no sysctl net.ipv4.no_such_thing"),
        ({"seconds": 4}, "5 to 100"),
        ({"seconds": 101}, "5 to 100"),
        ({"seconds": True}, "5 to 100"),
    ],
)
def test_what_cannot_be_meant_is_refused(host: Host, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(RevertError, match=words):
        host.arm(**arguments)
    assert host.pending() is None


def test_a_device_cannot_be_noted(host: Host, etc: Path) -> None:
    os.mkfifo(etc / "pipe")
    with pytest.raises(RevertError, match="pipe"):
        host.arm([str(etc / "pipe")])
    assert host.pending() is None


def test_without_a_service_that_waits_the_change_is_refused(tmp_path: Path, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_revert, "PATH", str(tmp_path))  # no systemctl in it
    monkeypatch.setenv("PATH", str(tmp_path))
    host = Revert(str(tmp_path / "host"))
    with pytest.raises(RevertError, match="nothing would take it back"):
        host.arm(paths(etc))
    assert host.pending() is None


# --- the kernel and the actions -------------------------------------------------------------------------------------------------------


def test_sysctls_are_noted(host: Host) -> None:
    host.arm(sysctls=[SYSCTL])
    assert log_of(host)["sysctls"] == {SYSCTL: "Linux"}
    report = host.restore()
    assert report is not None
    assert report["restored"] == []


def test_names_of_sysctls_may_hold_dots() -> None:
    assert _revert._sysctl_file("net.ipv4.ip_forward") == "/proc/sys/net/ipv4/ip_forward"
    assert _revert._sysctl_file("net/ipv4/conf/eth0.5/rp_filter") == "/proc/sys/net/ipv4/conf/eth0.5/rp_filter"


def test_actions_run_in_their_order_after_the_files(host: Host, etc: Path) -> None:
    (etc / "order").write_text("")
    host.arm([str(etc / "file")], [["sh", "-c", f"cat {etc}/file >> {etc}/order"], ["sh", "-c", f"echo second >> {etc}/order"]])
    (etc / "file").write_text("changed\n")
    host.restore()
    assert (etc / "order").read_text() == "old\nsecond\n"


def test_an_action_that_hangs_is_left(host: Host, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_revert, "ACTION_SECONDS", 0.2)
    host.arm([str(etc / "new")], [["sleep", "60"], ["touch", str(etc / "done")]])
    (etc / "new").write_text("x")
    with pytest.raises(RevertError, match="sleep 60: did not end within"):
        host.restore()
    assert (etc / "done").exists()
    assert not (etc / "new").exists()
    # It is tried again until someone gives up.
    found = host.pending()
    assert found is not None
    assert found["restoring"]


def test_during_a_boot_nothing_is_started(host: Host, etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {etc}/called\n')
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setattr(_revert, "PATH", f"{tools}:/usr/bin:/bin")
    host.arm(
        [str(etc / "file")],
        [["systemctl", "reload-or-restart", "ssh.service"], ["systemctl", "daemon-reload"], ["systemctl", "disable", "--now", "x.service"]],
    )
    (etc / "file").write_text("changed")
    shutil.rmtree(host.boot)  # it lies on a file system in memory
    host.asked.clear()
    host.at_boot()
    assert (etc / "file").read_text() == "old\n"
    assert (etc / "called").read_text() == "--no-block daemon-reload\n--no-block disable --now x.service\n"
    assert host.asked == []
    last = host.last()
    assert last is not None
    assert last["why"] == "the host was restarted before the change was confirmed"


def test_in_the_same_boot_the_deadline_is_waited_for(host: Host, etc: Path) -> None:
    host.arm([str(etc / "file")])
    (etc / "file").write_text("changed")
    host.asked.clear()
    host.at_boot()
    assert (etc / "file").read_text() == "changed"
    assert host.asked == [("start", "civitas-revert.service", "--no-block")]


# --- confirming -----------------------------------------------------------------------------------------------------------------------


def test_what_is_confirmed_stays(host: Host, etc: Path) -> None:
    host.arm(paths(etc))
    ruin(etc)
    after = state(etc)
    release()
    confirmed = host.confirm()
    assert confirmed is not None
    assert str(etc / "new") in confirmed["paths"]
    assert host.confirm() is None
    assert host.restore() is None
    expired = Host(Path(host.root))
    expired.wait()
    assert state(etc) == after
    last = host.last()
    assert last is not None
    assert last["outcome"] == "confirmed"
    assert sorted(os.listdir(host.state)) == ["changing", "last.json", "lock"]


def test_nothing_is_confirmed_while_a_module_is_changing(host: Host, etc: Path) -> None:
    """Of two runs at once one would else change without a way back."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        host.arm([str(etc / "file")])
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os.write(done[1], b".")
        os._exit(0)
    assert host.confirm() is not None
    assert time.monotonic() - began >= 0.5
    for each in (child, pid):
        os.waitpid(each, 0)


def test_what_is_going_back_cannot_be_confirmed_or_changed(host: Host, etc: Path) -> None:
    host.arm([str(etc / "file")], [["false"]])
    release()
    with pytest.raises(RevertError, match="false"):
        host.restore()
    with pytest.raises(RevertError, match="going back"):
        host.confirm()
    with pytest.raises(RevertError, match="going back"):
        host.arm([str(etc / "file")])


def test_the_run_that_was_taken_back_is_told_once(host: Host, etc: Path) -> None:
    assert host.unheard() is None
    host.arm([str(etc / "file")])
    (etc / "file").write_text("changed")
    host.restore("the reason")
    heard = host.unheard()
    assert heard is not None
    assert heard["why"] == "the reason"
    assert heard["restored"] == [str(etc / "file")]
    assert host.unheard() is None


@pytest.mark.parametrize("told", ["report", "log"])
def test_what_was_taken_back_unheard_is_told_after_a_later_change_was_confirmed(host: Host, etc: Path, told: str) -> None:
    first = host.arm([str(etc / "file")])
    if told == "log":  # as on a full disk
        Path(host.armed).rename(host.report)
    else:
        host.restore("the reason")
    second = host.arm([str(etc / "secret")])
    release()
    confirmed = host.confirm()
    assert confirmed is not None
    assert confirmed["id"] == second
    last = host.last()
    assert last is not None
    assert last["outcome"] == "confirmed"
    heard = host.unheard()
    assert heard is not None
    assert (heard["id"], heard["outcome"], heard["restored"]) == (first, "restored", [str(etc / "file")] if told == "log" else [])
    assert heard["seconds_ago"] >= 0
    assert host.unheard() is None
    # What was heard is not told again.
    host.arm([str(etc / "file")])
    host.restore("again")
    assert host.unheard() is not None
    host.arm([str(etc / "file")])
    release()
    assert host.confirm() is not None
    assert host.unheard() is None


def test_who_asks_to_go_back_has_heard(tmp_path: Path, host: Host, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_revert, "Revert", lambda: host)
    host.arm([str(etc / "file")])
    release()
    assert _revert.main(["restore"]) == 0
    assert host.unheard() is None


# --- waiting --------------------------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_the_service_goes_back_at_the_deadline_and_not_before(host: Host, etc: Path) -> None:
    before = state(etc)
    host.arm(paths(etc))
    ruin(etc)
    expire(host, 1.5)
    child = in_child(host.wait)
    time.sleep(0.7)
    assert state(etc) != before
    os.waitpid(child, 0)
    assert state(etc) == before
    last = host.last()
    assert last is not None
    assert last["why"] == "no new connection confirmed the change within 90 seconds"


def test_the_service_ends_when_it_is_confirmed(host: Host, etc: Path) -> None:
    host.arm(paths(etc))
    ruin(etc)
    after = state(etc)
    release()
    child = in_child(host.wait)
    host.confirm()
    os.waitpid(child, 0)
    assert state(etc) == after


def test_the_service_is_killed_over_and_over(host: Host, etc: Path) -> None:
    before = state(etc)
    host.arm(paths(etc))
    ruin(etc)
    expire(host, 0.4)
    until = time.monotonic() + 20
    delay = 0.001
    while host.pending() is not None:
        assert time.monotonic() < until
        child = in_child(host.wait)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        delay += 0.002
    assert state(etc) == before


def test_what_cannot_be_put_back_is_given_up_and_kept(host: Host, etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_revert, "PAUSE", 0.01)
    host.arm([str(etc / "file")], [["false"]])
    (etc / "file").write_text("changed")
    expire(host)
    host.wait()
    assert (etc / "file").read_text() == "old\n"
    last = host.last()
    assert last is not None
    assert last["outcome"] == "failed"
    assert "false: ended with 1" in last["problems"][0]
    assert host.pending() is None
    kept = json.loads(Path(host.failed).read_text())
    assert Path(host.state, kept["id"], "1").read_text() == "old\n"
    # The next change begins anew.
    host.arm([str(etc / "file")])
    assert not os.path.exists(host.failed)
    assert not os.path.exists(os.path.join(host.state, kept["id"]))


# --- crashes --------------------------------------------------------------------------------------------------------------------------

# Everything that changes a file system or opens a file tells its name to audit hooks first.
STEPS_OF_FILES = ("open", "fcntl.flock", "os.", "shutil.")


def killed_at(number: int, work: Callable[[], Any]) -> bool:
    """Run in a process that is killed before its step NUMBER. Whether it was; it has ended by itself otherwise."""
    child = os.fork()
    if child == 0:
        count = 0

        def hook(event: str, _arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event.startswith(STEPS_OF_FILES):
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(hook)
            work()
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def fresh(tmp_path: Path, number: int) -> tuple[Host, Path]:
    """The same host and files again, elsewhere."""
    top = tmp_path / f"case-{number}"
    shutil.copytree(tmp_path / "etc", top / "etc", symlinks=True)
    return Host(top / "host"), top / "etc"


def crashes(tmp_path: Path, case: Callable[[Host, Path, int], bool]) -> int:
    """Run a case with a crash at its first step, its second and so on, until it ends by itself."""
    number = 0
    killed = True
    while killed:
        number += 1
        host, etc = fresh(tmp_path, number)
        killed = case(host, etc, number)
        shutil.rmtree(tmp_path / f"case-{number}")
        release()
    return number


def test_a_crash_while_arming_changes_nothing_and_hinders_nobody(tmp_path: Path, etc: Path) -> None:
    def case(host: Host, etc: Path, number: int) -> bool:
        before = state(etc)
        killed = killed_at(number, lambda: host.arm(paths(etc), [["true"]], sysctls=[SYSCTL]))
        assert state(etc) == before
        host.arm(paths(etc))
        ruin(etc)
        host.restore()
        assert state(etc) == before
        return killed

    assert crashes(tmp_path, case) > 40


def test_a_crash_while_arming_again_keeps_the_first_way_back(tmp_path: Path, etc: Path) -> None:
    def case(host: Host, etc: Path, number: int) -> bool:
        before = state(etc)
        host.arm([str(etc / "file")])
        (etc / "file").write_text("changed")
        release()
        killed = killed_at(number, lambda: host.arm(paths(etc)))
        assert host.pending() is not None
        host.restore()
        assert state(etc) == before
        return killed

    assert crashes(tmp_path, case) > 20


@pytest.mark.parametrize("restart", [False, True])
def test_a_crash_while_going_back_is_made_up_for(tmp_path: Path, etc: Path, restart: bool) -> None:
    def case(host: Host, etc: Path, number: int) -> bool:
        before = state(etc)
        host.arm(paths(etc))
        ruin(etc)
        killed = killed_at(number, host.restore)
        if restart:
            shutil.rmtree(host.boot, ignore_errors=True)
            host.at_boot()
        else:
            expire(host) if os.path.exists(host.armed) else None
            host.wait()
        assert state(etc) == before
        assert host.pending() is None
        last = host.last()
        assert last is not None
        assert last["outcome"] == "restored"
        return killed

    assert crashes(tmp_path, case) > 40


def test_two_crashes_while_going_back_are_made_up_for(tmp_path: Path, etc: Path) -> None:
    def case(host: Host, etc: Path, number: int) -> bool:
        before = state(etc)
        host.arm(paths(etc))
        ruin(etc)
        killed = killed_at(number, host.restore)
        killed_at(max(1, number // 2), host.restore)
        host.restore()
        assert state(etc) == before
        return killed

    assert crashes(tmp_path, case) > 40


def test_a_crash_while_confirming_leaves_the_new_state_or_the_way_back(tmp_path: Path, etc: Path) -> None:
    outcomes = set()

    def case(host: Host, etc: Path, number: int) -> bool:
        before = state(etc)
        host.arm(paths(etc))
        ruin(etc)
        after = state(etc)
        release()
        killed = killed_at(number, host.confirm)
        waits = host.pending() is not None
        outcomes.add(waits)
        host.restore()
        assert state(etc) == (before if waits else after)
        # The service removes the copies that the crash left.
        host.wait()
        assert not [name for name in os.listdir(host.state) if os.path.isdir(os.path.join(host.state, name))]
        return killed

    assert crashes(tmp_path, case) > 5
    assert outcomes == {True, False}


# --- full disks -----------------------------------------------------------------------------------------------------------------------

IN_MEMORY = f"""
import os, sys, time
sys.path.insert(0, {str(SOURCE.parent)!r})
import _revert
class Host(_revert.Revert):
    def _systemctl(self, *words):
        pass
top, kind = sys.argv[1:]
host = Host(top + ("/small" if kind != "elsewhere" else "/host"))
etc = top + "/small/conf"
def fill():
    with open(top + "/small/filler", "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            pass
    with open(top + "/small/filler2", "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 64)
        except OSError:
            pass
os.mkdir(etc)
for name in "ab":
    with open(etc + "/" + name, "w") as stream:
        stream.write(name * 9000)
if kind == "arming":
    fill()
    try:
        host.arm([etc + "/a", etc + "/b"])
    except _revert.RevertError as error:
        print(error)
    print(host.pending())
else:
    host.arm([etc + "/a", etc + "/b", etc + "/c"])
    for name in "abc":
        with open(etc + "/" + name, "w") as stream:
            stream.write("changed" * 1300)
    fill()
    host.restore()
    same = all(open(etc + "/" + name).read() == name * 9000 for name in "ab")
    print(sorted(os.listdir(etc)), same, host.pending(), host.unheard()["outcome"])
"""


@pytest.mark.parametrize(
    ("kind", "size", "said"),
    [
        ("arming", "200k", "No space left on device); nothing was changed, as it could not be taken back\nNone\n"),
        ("same", "200k", "['a', 'b'] True None restored\n"),
        # No link leads from one file system to another.
        ("elsewhere", "60k", "['a', 'b'] True None restored\n"),
    ],
)
def test_a_full_disk(tmp_path: Path, kind: str, size: str, said: str) -> None:
    """Arming is refused on it. Going back works on it."""
    (tmp_path / "small").mkdir()
    words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no name spaces for this user")
    script = f'mount -t tmpfs -o size={size} none "$1/small" && exec "$2" -c "$3" "$1" "$4"'
    done = subprocess.run(
        [*words, script, "sh", str(tmp_path), sys.executable, IN_MEMORY, kind], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.endswith(said), done.stdout
