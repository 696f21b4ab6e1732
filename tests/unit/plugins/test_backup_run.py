# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs against a store: over a real sshd and rsync, with the faults that happen, none of which may look like success."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_run as run
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify

from tests.unit.backup_sets import age_key, flip, listing, ssh_key
from tests.unit.backup_sites import Site, needs_programs, program

pytestmark = needs_programs


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    (site.data / "record").write_text("one record")
    (site.data / "scan").write_bytes(os.urandom(300_000))
    yield site
    site.close()


@pytest.fixture(scope="module", name="served")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with one set, for tests that change nothing."""
    site = Site(tmp_path_factory.mktemp("served") / "site")
    (site.data / "record").write_text("one record")
    site.backup()
    yield site
    site.close()


def test_sets_come_and_are_whole(site: Site, tmp_path: Path) -> None:
    assert "the store keeps" in site.backup().stdout
    (site.data / "record").write_text("another record")
    site.backup()
    first, second = site.sets()
    manifests = [site.prove(first), site.prove(second)]
    assert verify.check_chain(manifests) == []
    assert manifests[1].previous == first.name and manifests[1].complete
    # What did not change is there once.
    shared = {path.stat().st_ino for path in first.iterdir()} & {path.stat().st_ino for path in second.iterdir()}
    assert shared or len(manifests[1].sources[0]["packs"]) == 1
    verify.extract_tree(str(second), manifests[1], manifests[1].sources[0], str(site.identity), str(tmp_path / "out"))
    assert listing(tmp_path / "out") == listing(site.data)
    assert list((site.base / "var/outgoing").iterdir()) == []
    figures = (site.base / "backup.prom").read_text()
    assert "civitas_backup_failed 0\n" in figures and "civitas_backup_running 0\n" in figures and "civitas_backup_files 3\n" in figures
    assert 'civitas_store_sets{sender="records1"} 2\n' in (site.base / "store.prom").read_text()
    assert site.backup("status").returncode == 0
    report = json.loads(site.store_program("status", "--json").stdout)
    assert [one["good"] for one in report["hosts"]["records1"]["sets"]] == [True, True]


def test_an_unchanged_tree_sends_the_manifest_only(site: Site) -> None:
    time.sleep(2.1)  # the step within which times of files are not trusted
    site.backup()
    site.backup()
    site.backup()
    assert site.state()["sent"] == 0
    site.prove(site.sets()[-1])


def test_the_commands_of_the_program(site: Site, tmp_path: Path) -> None:
    site.backup()
    (directory,) = site.sets()
    signers = tmp_path / "signers"
    signers.write_text(f"{site.signer}\n")
    common = ["--host", "records1", "--signers", str(signers)]
    assert site.backup("list", str(directory.parent), *common).stdout.startswith(directory.name)
    assert "nobody has tried" in site.backup("verify", str(directory), *common).stdout
    assert "readable" in site.backup("verify", str(directory), *common, "--identity", str(site.identity)).stdout
    target = tmp_path / "out"
    extract = ["extract", str(directory), *common, "--identity", str(site.identity), "--kind", "files", "--target", str(target)]
    site.backup(*extract, "--source", "data")
    assert listing(target) == listing(site.data)
    assert "is there already" in site.backup(*extract, "--source", "data", check=False).stderr
    assert "it has data (files)" in site.backup(*extract, "--source", "x", check=False).stderr
    wrong = tmp_path / "wrong.key"
    age_key(wrong)
    assert "not encrypted to this key" in site.backup("verify", str(directory), *common, "--identity", str(wrong), check=False).stderr


# --- faults of the host


def test_a_command_that_fails_makes_the_set_incomplete(site: Site) -> None:
    site.config["commands"] = [
        {"name": "dump", "run": ["sh", "-c", "echo begin; echo Amina >&2; exit 3"]},
        {"name": "short", "run": ["echo", "x"], "minimum": 10},
        {"name": "cut", "run": ["echo", "begin"], "ends": "-- complete"},
        {"name": "slow", "run": ["sleep", "60"], "timeout": 0.2},
        {"name": "child", "run": ["sh", "-c", "sleep 60; echo done"], "timeout": 0.2},
        {"name": "absent", "run": ["/nonexistent/program"]},
        {"name": "good", "run": ["echo", "all of it\n-- complete"], "ends": "-- complete"},
    ]
    site.write()
    begin = time.monotonic()
    said = site.fails()
    assert time.monotonic() - begin < 50
    for text in (
        "sh ended with 3: Amina",
        "printed 2 bytes",
        "sleep took more than",
        "sh took more than",
        "No such file",
        "is in the store and is not complete",
    ):
        assert text in said
    (directory,) = site.sets()
    manifest = site.prove(directory)
    assert not manifest.complete and len(manifest.failures) == 6
    assert b"Amina" not in manifest.raw
    assert [source["name"] for source in manifest.sources] == ["good", "data"]
    assert "is not good" in site.store_program("status").stderr
    assert site.backup("status", check=False).returncode == 1


def test_nothing_that_could_be_backed_up(site: Site) -> None:
    site.data.rename(site.base / "gone")
    assert "nothing could be backed up" in site.fails()
    assert site.sets() == []


@pytest.mark.parametrize(
    ("recipients", "message"), [([], "0 of the 0"), (["AGE-SECRET-KEY-1XYZ"], "are no public keys"), (["age1" + "q" * 58], "recipient")]
)
def test_a_missing_or_wrong_encryption_key(site: Site, recipients: list[str], message: str) -> None:
    site.config["recipients"] = recipients
    site.write()
    said = site.fails()
    assert message in said and "XYZ" not in said


def test_a_missing_signing_key(site: Site) -> None:
    (site.base / "sign").unlink()
    assert "cannot be signed" in site.fails()


def test_the_disk_of_the_host_is_full(site: Site) -> None:
    site.config["minimum_free_bytes"] = 10**18
    site.write()
    assert "is too full to make a set" in site.fails()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_the_disk_gets_full_while_a_set_is_made(site: Site) -> None:
    directory = site.base / "var/outgoing"
    directory.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(directory)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        assert "No space left" in site.fails()
        assert list(directory.iterdir()) == []
    finally:
        subprocess.run(["umount", str(directory)], check=True)
    assert site.sets() == []
    site.backup()


def test_two_runs_at_once_and_a_lock_of_a_dead_run(site: Site) -> None:
    site.config["commands"] = [{"name": "slow", "run": ["sh", "-c", f"touch {site.base}/started; sleep 30; echo x"]}]
    site.write()
    first = subprocess.Popen([*program("_backup_program"), "--config", str(site.base / "backup.json"), "run"])
    while not (site.base / "started").exists():
        time.sleep(0.02)
    assert "civitas_backup_running 1\n" in (site.base / "backup.prom").read_text()
    second = site.backup(check=False)
    assert second.returncode == 1 and f"another run lasts, process {first.pid}" in second.stderr
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert site.sets() == [] and "success" not in site.state()
    killed = site.backup("status", check=False)
    assert killed.returncode == 1 and "was ended by force" in killed.stderr
    # systemd does it, when the run has ended in whatever way; while one lasts it is that one's.
    with run.lock(str(site.base / "var")):
        assert site.backup("settle").stderr == "" and site.state()["running"] == 1
    assert "NO NEW BACKUP: the run was ended by force" in site.backup("settle").stderr
    figures = (site.base / "backup.prom").read_text()
    assert "civitas_backup_running 0\n" in figures and "civitas_backup_failed 1\n" in figures
    assert site.backup("settle").stderr == ""
    site.config["commands"] = []
    site.write()
    site.backup()
    site.prove(site.sets()[0])


def test_killed_at_any_point(site: Site) -> None:
    """The next run works, and what the store has is whole each time."""
    for path in range(30):
        (site.data / f"f{path}").write_bytes(os.urandom(100_000))
    for turn in range(12):
        (site.data / "changing").write_bytes(os.urandom(200_000))
        run = subprocess.Popen(
            [*program("_backup_program"), "--config", str(site.base / "backup.json"), "run"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            run.wait(timeout=0.25 + 0.15 * turn)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        for directory in site.sets():
            site.prove(directory)
        confirmed = site.state().get("set") if site.state().get("success") else None
        assert confirmed is None or confirmed in [path.name for path in site.sets()]
    time.sleep(0.3)
    done = site.backup(check=False)
    if "just now" in done.stderr:
        done = site.backup()
    assert done.returncode == 0, done.stderr
    assert verify.check_chain([site.prove(directory) for directory in site.sets()]) == []
    assert list((site.base / "var/outgoing").iterdir()) == []


def clock_off(site: Site, seconds: int) -> subprocess.CompletedProcess[str]:
    """A run on a host whose clock is wrong."""
    *before, code = program("_backup_program")
    code = f"import time; real = time.time; time.time = lambda: real() + {seconds}\n{code}"
    return subprocess.run([*before, code, "--config", str(site.base / "backup.json"), "run"], capture_output=True, text=True, check=False)


def test_the_clock_goes_back_by_a_day(site: Site) -> None:
    site.backup()
    done = clock_off(site, -86400)
    assert done.returncode == 0 and "the clock is 86400 seconds off the store's" in done.stderr
    assert "the clock is behind the set before" in done.stderr
    report = json.loads(site.store_program("status", "--json").stdout)
    newest = report["hosts"]["records1"]["sets"][-1]
    assert newest["notes"][0].startswith("it is older than")
    assert site.state()["success"] < time.time() - 86000
    site.backup()


def test_a_clock_that_is_ahead_makes_no_backup_newer(site: Site) -> None:
    done = clock_off(site, 400 * 86400)
    assert done.returncode == 0 and "the clock is 34560000 seconds off the store's" in done.stderr
    assert abs(site.state()["success"] - time.time()) < 60


# --- faults of the way and of the store


def test_the_store_is_not_reached(site: Site) -> None:
    site.config["store"]["port"] = 1
    site.write()
    said = site.fails()
    assert "the store does not answer" in said and said.count("it is tried again") == 2


def test_the_host_key_of_the_store_changed(site: Site) -> None:
    other = ssh_key(site.base / "other_host_key")
    (site.base / "known_hosts").write_text(f"[127.0.0.1]:{site.port} {other}\n")
    assert "Host key verification failed" in site.fails()
    assert site.sets() == []


def cutting_rsync(site: Site, lines: str) -> None:
    """An rsync on the path of the host that first does something else; $count is how often it ran before."""
    directory = site.base / "bin"
    directory.mkdir(exist_ok=True)
    count = f"count=$(cat {site.base}/count 2>/dev/null || echo 0)\necho $((count + 1)) > {site.base}/count"
    (directory / "rsync").write_text(f'#!/bin/sh\n{count}\n{lines}\nexec /usr/bin/rsync "$@"\n')
    (directory / "rsync").chmod(0o755)


def test_a_transfer_that_is_cut_off_goes_on_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.data / "large").write_bytes(os.urandom(8_000_000))
    cut = 'if [ $count = 0 ]; then timeout 3 /usr/bin/rsync --bwlimit=2000 "$@"; exit 30; fi'
    cutting_rsync(site, f'{cut}\nexec /usr/bin/rsync --log-file={site.base}/log "$@"')
    monkeypatch.setenv("PATH", f"{site.base}/bin:{os.environ['PATH']}")
    done = site.backup()
    assert "the transfer was cut off: rsync ended with 30" in done.stderr
    log = (site.base / "log").read_text()
    sent = int(re.findall(r" sent ([\d,]+) bytes", log)[-1].replace(",", ""))
    assert 0 < sent < 7_000_000, log
    site.prove(site.sets()[0])


def test_a_transfer_that_never_ends_well_is_finished_by_the_next_run(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    cutting_rsync(site, f"[ -e {site.base}/repaired ] || exit 12")
    monkeypatch.setenv("PATH", f"{site.base}/bin:{os.environ['PATH']}")
    assert "rsync ended with 12" in site.fails()
    assert (site.base / "count").read_text() == "3\n" and site.sets() == []
    waiting = [path.name for path in (site.base / "var/outgoing").iterdir() if not path.name.endswith(".state")]
    (site.base / "repaired").touch()
    done = site.backup()
    assert "is sent first" in done.stdout
    assert [path.name for path in site.sets()][:1] == waiting and len(site.sets()) == 2
    assert verify.check_chain([site.prove(directory) for directory in site.sets()]) == []


def test_a_member_that_was_altered_on_the_way_is_sent_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    files = f"{site.store}/incoming/records1/*/*000001*"
    overwrite = f"for f in {files}; do printf altered- | dd of=$f bs=1 seek=99 conv=notrunc 2>/dev/null; done"
    damage = f'/usr/bin/rsync "$@" || exit $?\nif [ $count = 0 ]; then {overwrite}; fi\nexit 0'
    cutting_rsync(site, damage)
    monkeypatch.setenv("PATH", f"{site.base}/bin:{os.environ['PATH']}")
    done = site.backup()
    assert "missing, cut off or altered: tree-data-000001" in done.stderr and "these are sent again" in done.stderr
    site.prove(site.sets()[0])


def test_the_store_is_full(site: Site) -> None:
    site.store_config["minimum_free_bytes"] = 10**18
    site.write()
    assert "the store is full" in site.fails()
    site.store_config["minimum_free_bytes"] = 0
    site.store_config["hosts"]["records1"]["quota_bytes"] = 1000
    site.write()
    assert "the share of this host is full" in site.fails()
    site.store_config["hosts"]["records1"]["quota_bytes"] = 10**9
    site.write()
    site.backup()


def test_damage_in_the_store_is_found_and_healed_by_the_next_set(site: Site) -> None:
    site.backup()
    (directory,) = site.sets()
    (pack,) = directory.glob("tree-data-000001*")
    flip(pack)
    checked = site.store_program("verify")
    assert checked.returncode == 1 and f"{directory.name} is damaged: {pack.name}" in checked.stderr
    site.backup()
    assert site.state()["sent"] > 300_000
    assert site.prove(site.sets()[-1]).complete
    report = json.loads(site.store_program("status", "--json").stdout)
    assert [one["good"] for one in report["hosts"]["records1"]["sets"]] == [False, True]


def test_a_host_that_lost_its_memory_goes_on(site: Site) -> None:
    site.backup()
    subprocess.run(["rm", "-r", f"{site.base}/var"], check=True)
    assert "does not know its last set" in site.backup().stderr
    assert verify.check_chain([site.prove(directory) for directory in site.sets()]) == []


def test_a_host_that_was_built_anew_waits_for_its_restore(site: Site) -> None:
    """Its empty set would be the newest one."""
    assert json.loads(site.backup("before").stdout) == {"sets": 0, "newest": None}
    site.backup()
    newest = site.sets()[-1].name
    subprocess.run(["rm", "-r", f"{site.base}/var"], check=True)
    assert json.loads(site.backup("before").stdout) == {"sets": 1, "newest": newest}
    # It remembers, and does not ask again.
    assert json.loads(site.backup("before").stdout)["sets"] == 0
    assert f"the store keeps {newest} from before this host was set up: restore it" in site.backup("status").stderr
    # For a day; then it is a host without backups.
    state = site.state()
    (site.base / "var/status.json").write_text(json.dumps({**state, "try": state["try"] - 27 * 3600}))
    late = site.backup("status", check=False)
    assert late.returncode == 1 and "there is no backup of this host" in late.stderr
    site.backup()
    assert site.backup("status").returncode == 0


def test_a_store_that_lost_a_set_is_noticed(site: Site) -> None:
    site.backup()
    site.backup()
    subprocess.run(["rm", "-r", str(site.sets()[-1])], check=True)
    assert "the newest set of the store is" in site.backup().stderr
    problems = verify.check_chain([site.prove(directory) for directory in site.sets()])
    assert len(problems) == 1 and "is missing, which" in problems[0]


# --- what the host's key can do at the store


@pytest.mark.parametrize(
    "command",
    [
        "",
        "id",
        "sh -c id",
        "scp -t /tmp",
        "/usr/lib/openssh/sftp-server",
        "rsync --server --sender -te.LsfxCIvu . incoming/{set}/",
        "rsync --server -te.LsfxCIvu --inplace --delete . incoming/{set}/",
        "rsync --server -te.LsfxCIvu --inplace --remove-source-files . incoming/{set}/",
        "rsync --server -te.LsfxCIvu --inplace --log-file=/tmp/x . incoming/{set}/",
        "rsync --server -te.LsfxCIvu --inplace --temp-dir=/ . incoming/{set}/",
        "rsync --server -lte.LsfxCIvu --inplace . incoming/{set}/",
        "rsync --server -rte.LsfxCIvu --inplace . incoming/{set}/",
        "rsync --server -te.LsfxCIvu --inplace . hosts/records1/sets/{set}/",
        "rsync --server -te.LsfxCIvu --inplace . incoming/{set}/../../",
        "rsync --server -te.LsfxCIvu --inplace . /etc/",
        "rsync --server -te.LsfxCIvu --inplace . incoming/{set}/",
        "rsync --daemon --config=/tmp/x .",
        "begin {set} 100",
        "begin ../../x 100",
        "begin 20260101T000000Z-0123456789ab -5",
        "begin 20260101T000000Z-0123456789ab 99999999999999999",
        "commit ../sets",
        "commit 20260101T000000Z-0123456789ab",
        "remove {set}",
        "have; id",
        "have --host other",
    ],
)
def test_what_the_key_cannot_do(served: Site, command: str) -> None:
    site = served
    (directory,) = site.sets()
    before = listing(site.store / "hosts")
    done = site.ssh(command.replace("{set}", directory.name))
    assert b"uid=" not in done.stdout
    assert done.returncode != 0 or b'"error": ' in done.stdout, done
    after = listing(site.store / "hosts")
    assert {name: value for name, value in after.items() if "/sets/" in name} == {
        name: value for name, value in before.items() if "/sets/" in name
    }


def test_a_set_of_another_signer_is_not_kept(site: Site) -> None:
    ssh_key(site.base / "thief")
    site.config["signing_key"] = str(site.base / "thief")
    site.write()
    assert "the signature of the manifest is not records1's" in site.fails()
    assert site.sets() == []


def test_more_than_was_announced(site: Site) -> None:
    """The host's key is in wrong hands, and the disk is to be filled."""
    name = "20260101T000000Z-0123456789ab"
    assert b"taken" in site.ssh(f"begin {name} 10").stdout
    allowed = json.loads((site.store / f"incoming/records1/{name}.json").read_text())["bytes"]
    large = site.base / "large"
    with large.open("wb") as file:
        file.truncate(allowed + 2**28)
    shell = shlex.join(
        [
            "ssh",
            "-F",
            "none",
            "-T",
            "-p",
            str(site.port),
            "-i",
            str(site.base / "transfer"),
            "-o",
            f"UserKnownHostsFile={site.base}/known_hosts",
        ]
    )
    done = subprocess.run(
        ["rsync", "-t", "--inplace", "-e", shell, str(large), f"127.0.0.1:incoming/{name}/"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert sum(path.stat().st_size for path in (site.store / f"incoming/records1/{name}").iterdir()) <= allowed + 2**26
