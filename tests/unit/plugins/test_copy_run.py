# SPDX-License-Identifier: GPL-3.0-or-later
"""A second store that copies from the first over a real sshd, whatever is done to the first by who has all of it."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_run import lock
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._copy_run import vanished
from ansible_collections.civitas.hosting.plugins.module_utils._restore_fetch import Fetcher, Found

from tests.unit.backup_sets import flip, ssh_key
from tests.unit.backup_sites import Site, needs_programs, program, serve_store

pytestmark = needs_programs
DAY = 86400.0
PARTS = ("store", "var", "data", "authorized")


class Copy:
    """A store on another host, with what copies from the first."""

    def __init__(self, site: Site, base: Path) -> None:
        self.site = site
        self.base = base / "copy"
        self.base.mkdir()
        self.store = self.base / "store"
        self.store.mkdir()
        host = {"user": getpass.getuser(), "signers": [site.signer], "quota_bytes": 10**10, "retention": "7 days", "copied": True}
        self.store_config: dict[str, Any] = {
            **site.store_config,
            "directory": str(self.store),
            "socket": str(self.base / "socket"),
            "grants": str(self.base / "grants"),
            "metrics_file": str(self.base / "store.prom"),
            "hosts": {"records1": host},
            "late_hours": 36,
        }
        origin = {
            "host": "records1",
            "signers": [site.signer],
            "retention": "7 days",
            "store": {**site.standing(f"copier-{base.name}"), "tries": 2},
        }
        self.config: dict[str, Any] = {
            "directory": str(self.base / "var"),
            "incoming": str(self.store / "incoming"),
            "socket": self.store_config["socket"],
            "metrics_file": str(self.base / "copy.prom"),
            "origins": [origin],
        }
        self.write()
        self._listener = serve_store(self.store_config["socket"], self.base / "store.json")

    def write(self) -> None:
        (self.base / "store.json").write_text(json.dumps(self.store_config))
        (self.base / "copy.json").write_text(json.dumps(self.config))

    def close(self) -> None:
        self._listener.close()

    def command(self, *words: str) -> list[str]:
        return [*program("_copy_program"), "--config", str(self.base / "copy.json"), *words]

    def run(self, *words: str, via: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*via, *self.command(*(words or ("run",)))], capture_output=True, text=True, check=False)

    def fails(self, via: tuple[str, ...] = ()) -> str:
        """A run that must not end well, and leaves no trace of success; what it said."""
        before = self.state().get("success", 0)
        done = self.run(via=via)
        assert done.returncode == 1 and "THE COPY IS NOT COMPLETE" in done.stderr, done
        assert self.state().get("success", 0) == before
        assert self.figures()["failed"] == 1 and self.run("status").returncode == 1
        return done.stderr

    def comes(self) -> list[str]:
        """A run that is well; names of the sets that are new."""
        done = self.run()
        assert done.returncode == 0, done
        assert self.figures() == {"failed": 0, "lacking": 0, "refused": 0, "gone": 0, "success_time_seconds": int(self.state()["success"])}
        assert self.run("status").returncode == 0
        return list(self.state()["copied"])

    def refuses(self) -> dict[str, str]:
        """A run that finds what the host has not sent, and comes to its end all the same; sets and reasons."""
        done = self.run()
        refused = dict(self.state()["refused"])
        assert done.returncode == 1 and self.state()["problem"] == "", done
        assert all(f"{name} is NOT WHAT THE HOST HAS SENT" in done.stderr for name in refused)
        assert self.figures()["refused"] == len(refused) > 0 and self.run("status").returncode == 1
        return refused

    def state(self) -> dict[str, Any]:
        path = self.base / "var/state.json"
        return dict(json.loads(path.read_text())["records1"]) if path.exists() else {}

    def figures(self) -> dict[str, float]:
        assert self.run("tell").returncode == 0
        lines = [line for line in (self.base / "copy.prom").read_text().splitlines() if line[0] != "#"]
        return {line.partition("{")[0].replace("civitas_copy_", ""): float(line.rpartition(" ")[2]) for line in lines}

    def sets(self) -> dict[str, dict[str, bytes]]:
        """All that is kept, byte by byte, but for the store's own notes."""
        directory = self.store / "hosts/records1/sets"
        return {
            one.name: {path.name: path.read_bytes() for path in one.iterdir() if path.name != "store.json"}
            for one in (sorted(directory.iterdir()) if directory.exists() else [])
        }

    def notes(self) -> dict[str, list[str]]:
        directory = self.store / "hosts/records1/sets"
        return {one.name: json.loads((one / "store.json").read_text())["notes"] for one in directory.iterdir()}


@pytest.fixture(scope="module", name="first")
def _first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A store with two sets. Its parts are kept as they are, to be put back before each test."""
    site = Site(tmp_path_factory.mktemp("first") / "site")
    (site.data / "record").write_bytes(bytes(range(256)) * 100)
    (site.data / "scan").write_bytes(os.urandom(1_500_000))
    site.backup()
    (site.data / "another").write_text("another record")
    site.backup()
    (site.base / "kept").mkdir()
    subprocess.run(["cp", "-a", *(str(site.base / name) for name in PARTS), str(site.base / "kept")], check=True)
    yield site
    site.close()


@pytest.fixture(name="copy")
def _copy(first: Site, tmp_path: Path) -> Iterator[Copy]:
    for name in PARTS:
        path = first.base / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        subprocess.run(["cp", "-a", str(first.base / "kept" / name), str(path)], check=True)
    first.store_config["hosts"]["records1"].pop("readers", None)
    first.write()
    copy = Copy(first, tmp_path)
    yield copy
    copy.close()


def pack(directory: Path) -> Path:
    """The member with what is large."""
    return max(directory.glob("tree-data-0*.age"), key=lambda path: path.stat().st_size)


def asked(copy: Copy, script: str = "real") -> Callable[[], list[str]]:
    """From now on the first store does what this shell script says; C(real) does what it should. What was asked of it since, on demand."""
    authorized, log, path = copy.site.base / "authorized", copy.base / "asked", copy.base / "first-store.sh"
    own, honest = copy.site.base / "own", copy.base / "honest"
    if not honest.exists():
        honest.write_text(authorized.read_text())
    *others, line = honest.read_text().splitlines()
    command, _separator, key = line.partition('command="')[2].rpartition('" ')
    command = command.replace('\\"', '"').replace("\\\\", "\\")
    path.write_text(f'#!/bin/sh\necho "$SSH_ORIGINAL_COMMAND" >> {log}\nreal() {{ {command}; }}\n{script}\n')
    log.write_text("")
    own.write_text("\n".join([*others, f'restrict,command="sh {path}" {key}']) + "\n")
    own.rename(authorized)
    return lambda: log.read_text().splitlines()


def forge(copy: Copy, key: Path, **changes: Any) -> Path:
    """A set in the first store that somebody has made who has root there, and a key."""
    newest = copy.site.sets()[-1]
    content = json.loads((newest / form.MANIFEST).read_text())
    begin = changes.pop("begin", time.time())
    name = form.new_set_id(begin)
    content.update(set=name, begin=form.format_time(begin), end=form.format_time(begin + 1), **changes)
    made = newest.parent / name
    shutil.copytree(newest, made)
    raw = form.encode(content)
    for file, data in ((form.MANIFEST, raw), (form.SIGNATURE, form.sign(raw, str(key)))):
        (made / file).unlink()
        (made / file).write_bytes(data)
    return made


def test_all_sets_come_and_are_whole(copy: Copy) -> None:
    assert copy.run("status").returncode == 1 and copy.figures()["failed"] == 1
    names = [path.name for path in copy.site.sets()]
    assert copy.comes() == names
    assert copy.sets() == {
        path.name: {one.name: one.read_bytes() for one in path.iterdir() if one.name != "store.json"} for path in copy.site.sets()
    }
    for name in names:
        copy.site.prove(copy.store / "hosts/records1/sets" / name)
    # Each shared member came once, and lies here once.
    first, second = (copy.store / "hosts/records1/sets" / name for name in names)
    assert pack(first).samefile(second / pack(first).name)
    told = asked(copy)
    assert copy.comes() == [] and told() == ["sets"]
    (copy.site.data / "new").write_text("new")
    copy.site.backup()
    assert copy.comes() == [copy.site.sets()[-1].name]
    assert not any(pack(first).name in line for line in told())
    assert set(map(tuple, copy.notes().values())) == {()}
    # The program of the store looks after the copies as after all sets.
    done = subprocess.run(
        [*program("_store_program"), "--config", str(copy.base / "store.json"), "status"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "records1: 3 sets" in done.stdout, done


def test_a_history_is_copied_with_its_dates(copy: Copy) -> None:
    now = time.time()
    first, last = copy.site.sets()
    shutil.rmtree(first)
    old = [forge(copy, copy.site.base / "sign", begin=now - days * DAY, previous=None, previous_sha256=None) for days in (90, 60, 30)]
    assert copy.comes() == [*(path.name for path in old), last.name]
    moments = {path.name: json.loads((copy.store / "hosts/records1/sets" / path.name / "store.json").read_text()) for path in old}
    assert [int(moments[path.name]["moment"]) for path in old] == [int(now - days * DAY) for days in (90, 60, 30)]
    assert all(copy.notes()[path.name] == [] for path in old)
    # One that is dated into the past of what is here counts by its arrival: nobody pushes out older sets with it.
    late = forge(copy, copy.site.base / "sign", begin=now - 45 * DAY)
    assert copy.comes() == [late.name]
    record = json.loads((copy.store / "hosts/records1/sets" / late.name / "store.json").read_text())
    assert record["moment"] == record["arrival"] and "older than" in record["notes"][0]


def test_what_was_cut_off_half_way_goes_on(copy: Copy) -> None:
    first = copy.site.sets()[0]
    half = pack(first).stat().st_size // 2
    asked(copy, f'case "$SSH_ORIGINAL_COMMAND" in *{pack(first).name}*) real | head -c {half}; exit 1;; *) real;; esac')
    copy.config["origins"][0]["store"]["tries"] = 1
    copy.write()
    assert "the transfer was cut off" in copy.fails() and copy.sets() == {} and copy.figures()["lacking"] == 2
    told = asked(copy)
    assert copy.comes() == [path.name for path in copy.site.sets()]
    (line,) = [line for line in told() if pack(first).name in line]
    assert line == f"get {first.name} {pack(first).name} {half}"
    # A store that is cut off again and again is not asked for ever.
    (copy.site.data / "new").write_bytes(os.urandom(100_000))
    copy.site.backup()
    told = asked(copy, 'case "$SSH_ORIGINAL_COMMAND" in *tree-*) exit 1;; *) real;; esac')
    copy.config["origins"][0]["store"]["tries"] = 3
    copy.write()
    copy.fails()
    assert sum("tree-" in line for line in told()) == 3


def test_a_run_that_was_killed_is_told_and_goes_on(copy: Copy) -> None:
    store = copy.config["origins"][0]["store"]
    copy.config["origins"][0]["store"] = {**store, "bandwidth": 200}
    copy.write()
    name = pack(copy.site.sets()[0]).name
    partial = copy.store / "incoming/records1" / copy.site.sets()[0].name / name
    killed = subprocess.Popen(copy.command("run"))
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < 300_000:
        assert time.monotonic() < deadline and killed.poll() is None
        time.sleep(0.02)
    # While it lasts, nobody else begins, and it counts for nothing yet.
    second = copy.run()
    assert second.returncode == 1 and "another run lasts" in second.stderr
    assert "a run lasts" in copy.run("status").stderr + copy.run("status").stdout
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert copy.figures()["failed"] == 1 and "ended by force" in copy.run("status").stderr
    assert copy.sets() == {}
    copy.config["origins"][0]["store"] = store
    copy.write()
    told = asked(copy)
    assert copy.comes() == [path.name for path in copy.site.sets()]
    (line,) = [line for line in told() if name in line]
    assert int(line.split()[-1]) >= 300_000


def test_one_run_at_a_time(copy: Copy) -> None:
    with lock(str(copy.base / "var")):
        done = copy.run()
        assert done.returncode == 1 and "another run lasts" in done.stderr and copy.sets() == {}
    assert len(copy.comes()) == 2


def test_a_slow_line_is_not_filled(copy: Copy) -> None:
    first = copy.site.sets()[0]
    way = copy.config["origins"][0]["store"]
    target = copy.base / first.name
    manifest = Fetcher(Store(**way), print).manifest(first.name, str(target), "records1", [copy.site.signer])
    member = manifest.members[pack(first).name]
    began = time.monotonic()
    Fetcher(Store(**{**way, "bandwidth": 200}), print).members(first.name, str(target), [member])
    # What cannot be compressed, so it is 1.5 MB: less than a second without a limit.
    assert time.monotonic() - began > member.bytes / (200 * 1024) > 7


def test_a_store_that_says_nothing_is_not_waited_for(copy: Copy) -> None:
    copy.config["origins"][0]["store"].update(timeout=1, tries=1)
    copy.write()
    asked(copy, 'case "$SSH_ORIGINAL_COMMAND" in get*manifest.json*) sleep 60;; *) real;; esac')
    began = time.monotonic()
    assert "nothing came for 1 seconds" in copy.fails() and time.monotonic() - began < 40


def alter(directory: Path) -> str:
    flip(pack(directory))
    return "the store has another tree-data-0"


def cut(directory: Path) -> str:
    path = pack(directory)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 2])
    return "the store has another tree-data-0"


def lengthen(directory: Path) -> str:
    path = pack(directory)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data + bytes(1000))
    return "the store sends more than"


def sign_wrong(directory: Path) -> str:
    flip(directory / form.SIGNATURE)
    return "signature"


def sign_other(directory: Path) -> str:
    manifest = directory / form.MANIFEST
    raw = manifest.read_bytes().replace(b'"site":"demo"', b'"site":"evil"')
    manifest.unlink()
    manifest.write_bytes(raw)
    if not (directory.parents[3] / "thief").exists():
        ssh_key(directory.parents[3] / "thief")
    (directory / form.SIGNATURE).unlink()
    (directory / form.SIGNATURE).write_bytes(form.sign(raw, str(directory.parents[3] / "thief")))
    return "signature"


def exchange(directory: Path) -> str:
    other = next(path for path in directory.parent.iterdir() if path != directory)
    for name in (form.MANIFEST, form.SIGNATURE):
        (directory / name).unlink()
        shutil.copyfile(other / name, directory / name)
    return "the first store has it damaged: manifest.json"


def lose(directory: Path) -> str:
    pack(directory).unlink()
    return "No such file or directory"


def mark(directory: Path) -> str:
    record = json.loads((directory / "store.json").read_text())
    (directory / "store.json").write_text(json.dumps({**record, "bad": [pack(directory).name]}))
    return "the first store has it damaged"


@pytest.mark.parametrize("damage", [alter, cut, lengthen, sign_wrong, sign_other, exchange, lose, mark])
def test_what_the_host_has_not_sent_is_refused(copy: Copy, damage: Callable[[Path], str]) -> None:
    first, second = copy.site.sets()
    # So that members of one are not had from the other.
    shutil.rmtree(second)
    (copy.site.data / "scan").write_bytes(os.urandom(1_000_000))
    copy.site.backup()
    good = [path for path in copy.site.sets() if path != first]
    told = damage(first)
    refused = copy.refuses()
    assert list(refused) == [first.name] and told in refused[first.name]
    # The others come all the same.
    assert list(copy.sets()) == [path.name for path in good] and copy.state()["copied"] == [path.name for path in good]
    # And what is here already is neither replaced nor doubted.
    kept = copy.sets()
    damage(good[0])
    copy.refuses()
    assert copy.sets() == kept


def test_who_has_all_of_the_first_store_changes_no_copy(copy: Copy) -> None:
    assert len(copy.comes()) == 2
    kept = copy.sets()
    first, second = copy.site.sets()
    shutil.rmtree(first)
    done = copy.run()
    assert done.returncode == 1 and f"{first.name} is here, and has VANISHED FROM THE FIRST STORE" in done.stderr
    assert copy.figures()["gone"] == 1 and copy.sets() == kept
    # Another set of the same name, with a key that is not the host's, and then with the host's own.
    for key in (copy.base / "thief", copy.site.base / "sign"):
        if not key.exists():
            ssh_key(key)
        raw = (second / form.MANIFEST).read_bytes().replace(b'"site":"demo"', b'"site":"evil"')
        for name, data in ((form.MANIFEST, raw), (form.SIGNATURE, form.sign(raw, str(key)))):
            (second / name).unlink()
            (second / name).write_bytes(data)
        assert copy.refuses() == {second.name: "the first store has another set of this name than the one that is here"}
        assert copy.sets() == kept
    # The whole disk is gone, and what answers is of somebody else.
    shutil.rmtree(copy.site.store / "hosts")
    assert copy.run().returncode == 1 and copy.figures()["gone"] == 2 and copy.sets() == kept
    # What it can reach of the copy: nothing but what it was asked for.
    asked(copy, 'echo \'{"sets": [{"set": "../../../../etc", "begin": "x"}]}\'')
    assert copy.run().returncode == 1 and copy.figures()["gone"] == 2 and copy.sets() == kept
    asked(copy, "echo '{'")
    copy.fails()
    assert copy.figures()["gone"] == 2 and copy.sets() == kept
    names = [f"2026{month:02}01T000000Z-{'e' * 12}" for month in range(1, 13)]
    one = {"begin": "2027-01-01T00:00:00Z", "bytes": 5, "good": True, "failures": [], "bad": [], "sha256": "0" * 64}
    (copy.base / "list").write_text(json.dumps({"sets": [{**one, "set": name} for name in names]}))
    asked(copy, f'case "$SSH_ORIGINAL_COMMAND" in sets) cat {copy.base}/list;; *) echo x;; esac')
    assert set(copy.refuses()) == set(names) and copy.sets() == kept


def test_a_set_of_the_future_counts_by_its_arrival(copy: Copy) -> None:
    made = forge(copy, copy.site.base / "sign", begin=time.time() + 400 * DAY)
    assert made.name in copy.comes()
    record = json.loads((copy.store / "hosts/records1/sets" / made.name / "store.json").read_text())
    assert record["moment"] == record["arrival"] and "which is to come" in record["notes"][0]
    assert 'civitas_store_sets_strange{sender="records1"} 1\n' in (copy.base / "store.prom").read_text()


def test_with_an_earlier_key_nothing_new_is_taken(copy: Copy) -> None:
    earlier = ssh_key(copy.base / "earlier")
    made = forge(copy, copy.base / "earlier")
    assert "signature" in copy.refuses()[made.name]
    copy.config["origins"][0]["signers"].append(earlier)
    copy.write()
    assert copy.comes() == [] and "an earlier key" in copy.state()["passed"][made.name] and made.name not in copy.sets()


def test_what_the_copys_own_rules_have_removed_does_not_come_again(copy: Copy) -> None:
    first, second = copy.comes()
    removed = copy.store / "hosts/records1/removed" / first
    shutil.rmtree(copy.store / "hosts/records1/sets" / first)
    removed.write_text("{}")
    assert copy.comes() == [] and list(copy.sets()) == [second]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hosts": {"quota_bytes": 100_000}}, "the share of this host is full"),
        ({"minimum_free_bytes": 10**17}, "the store is full"),
        ({"hosts": {"user": "nobody"}}, "does not know this host"),
        ({"hosts": {"copied": False}}, "come from the host itself"),
    ],
)
def test_a_copy_that_takes_nothing_says_why(copy: Copy, change: dict[str, Any], told: str) -> None:
    before = json.loads(json.dumps(copy.store_config))
    hosts = {"records1": {**before["hosts"]["records1"], **change.pop("hosts", {})}}
    copy.store_config = {**before, **change, "hosts": hosts}
    copy.write()
    assert told in copy.fails() and copy.sets() == {}
    copy.store_config = before
    copy.write()
    assert len(copy.comes()) == 2


def test_a_disk_that_takes_no_more_is_named(copy: Copy) -> None:
    # The kernel's own refusal in the middle of a member.
    said = copy.fails(via=("prlimit", "--fsize=200000"))
    assert "tree-data-0" in said or "File too large" in said
    assert copy.sets() == {} and len(copy.comes()) == 2


def test_a_first_store_that_is_not_there_or_is_another_one(copy: Copy) -> None:
    copy.comes()
    kept = copy.sets()
    (copy.site.data / "new").write_text("new")
    copy.site.backup()
    store = copy.config["origins"][0]["store"]
    other = copy.base / "other_hosts"
    other.write_text(f"[127.0.0.1]:{copy.site.port} {ssh_key(copy.base / 'other_host')}\n")
    for change, told in (
        ({"known_hosts": str(other)}, "Host key verification failed"),
        ({"port": 1}, "Connection refused"),
        ({"key": str(copy.base / "other_host")}, "Permission denied"),
    ):
        copy.config["origins"][0]["store"] = {**store, **change}
        copy.write()
        assert told in copy.fails() and copy.sets() == kept
    copy.site.store_config["hosts"]["records1"]["readers"] = []
    copy.site.write()
    copy.config["origins"][0]["store"] = store
    copy.write()
    assert "this grant has ended" in copy.fails() and copy.sets() == kept


def test_a_set_that_the_first_stores_rules_remove_meanwhile(copy: Copy) -> None:
    first, second = copy.site.sets()
    asked(copy, f'case "$SSH_ORIGINAL_COMMAND" in *{first.name}*tree*) rm -rf {first};; esac; real')
    assert copy.comes() == [second.name] and "does not have it any more" in copy.state()["passed"][first.name]


def test_a_set_is_read_from_the_copy_as_from_the_first(copy: Copy) -> None:
    names = copy.comes()
    shutil.rmtree(copy.site.store / "hosts")
    manifest = verify.read_set(str(copy.store / "hosts/records1/sets" / names[-1]), "records1", [copy.site.signer])
    target = copy.base / "restored"
    verify.extract_tree(
        str(copy.store / "hosts/records1/sets" / names[-1]), manifest, manifest.sources[0], str(copy.site.identity), str(target)
    )
    for name in ("record", "scan", "another"):
        assert (target / name).read_bytes() == (copy.site.data / name).read_bytes()


def test_what_should_still_be_there() -> None:
    def there(*days: int) -> list[Found]:
        return [Found(f"s{day}", day * DAY, 1, True, [], "", []) for day in days]

    here = [{"set": f"s{day}", "begin": day * DAY, "good": True} for day in range(1, 11)]
    # Its rules have removed the old ones.
    assert vanished(there(8, 9, 10), here, 3) == []
    # More than they remove is gone.
    assert vanished(there(8, 10), here[6:], 3) == ["s7", "s9"]
    assert vanished(there(1, 2, 3, 4, 5, 6, 8, 9, 10), here, 3) == []
    assert vanished(there(1, 2, 3, 4, 5, 6, 7, 8, 10), here, 3) == ["s9"]
    assert vanished([], here[-1:], 1) == ["s10"]
    assert vanished([], [{**here[0], "good": False}], 1) == []
