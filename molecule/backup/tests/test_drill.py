# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore drills: by hand on the host whose backup it is, and by a host of its own that reads at the store."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest
import testinfra

testinfra_hosts = ["ansible://drills"]

DRILL = "/var/lib/civitas/drill"
STORED = "/srv/backup/hosts/records-1/sets"


def other(host, group):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups'][group][0]}")


@pytest.fixture(name="records", scope="module")
def _records(host):
    return other(host, "records")


@pytest.fixture(name="store", scope="module")
def _store(host):
    return other(host, "stores")


def drill(host, unit="civitas-drill"):
    """A drill as the timer starts it; its exit status, what it said, and what is known of it afterwards."""
    since = host.check_output("date +%s.%N")
    done = host.run(f"systemctl start {unit}")
    host.check_output("journalctl --sync")
    said = host.check_output(f"journalctl --unit {unit} --output cat --no-pager --since @{since}")
    return done.rc, said, json.loads(host.run("civitas-drill status --json").stdout)["records-1"]


def metric(host, name):
    (line,) = re.findall(rf'^{name}{{sender="records-1"}} (\S+)$', host.file("/var/lib/civitas/metrics/drill.prom").content_string, re.M)
    return float(line)


def is_clean(host):
    return not host.file(f"{DRILL}/work").exists and host.run(f"pgrep -f {DRILL}/work/[p]ostgres").rc != 0


def test_the_drill_by_hand_left_a_report_and_no_key(host, records):
    state = json.loads(records.check_output("civitas-drill status --json"))["records-1"]
    assert state["problem"] == "" and records.file(state["report"]).exists
    assert not records.file("/run/civitas-drill").exists
    assert not records.file("/etc/civitas/drill/identity").exists
    assert is_clean(records)
    assert records.run("systemctl is-enabled civitas-drill.timer").rc != 0
    # The server of the host itself was not touched, and has nothing of the drill; what a restore has kept is older.
    found = records.check_output("runuser -u postgres -- psql -XAtc 'SELECT datname FROM pg_database'").split()
    kept = {name for name in found if re.fullmatch(r"civitas_(before|undone)_\d{14}_records", name)}
    assert set(found) - kept == {"postgres", "records", "template0", "template1"}
    assert kept == set(re.findall(r"civitas_\w+", records.check_output("civitas-restore status")))
    assert "AGE-SECRET-KEY" not in records.check_output("journalctl --no-pager --output cat")
    store = other(host, "stores")
    assert json.loads(store.check_output("civitas-store grants")) == []


def test_a_drill_that_is_killed_leaves_nothing(host):
    """Not even until the next one: systemd cleans up after it."""
    host.check_output("systemctl start --no-block civitas-drill")
    deadline = time.monotonic() + 120
    while not host.file(f"{DRILL}/work/postgres/data/postmaster.pid").exists:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    host.check_output("systemctl kill --kill-whom=main --signal=KILL civitas-drill")
    while host.run("systemctl is-active civitas-drill").stdout.strip() not in ("failed", "inactive"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert is_clean(host)
    assert metric(host, "civitas_drill_failed") == 1 and metric(host, "civitas_drill_running") == 0
    assert "ended by force" in host.run("civitas-drill status").stderr


def test_a_set_that_the_store_altered(host, store, flip):
    newest = store.check_output(f"ls {STORED}").split()[-1]
    before = metric(host, "civitas_backup_drill_time_seconds")
    (name,) = store.check_output(f"cd {STORED}/{newest}; ls db-main-records*").split()
    path = shlex.quote(f"{STORED}/{newest}/{name}")
    store.check_output(f"cp -a {path} /root/member; cp /root/member {path}.new; chmod 0600 {path}.new; mv {path}.new {path}")
    flip(store, f"{STORED}/{newest}/{name}")
    try:
        rc, said, state = drill(host)
    finally:
        store.check_output(f"mv /root/member {path}")
    assert rc != 0 and "the restore drill FAILED" in said and f"the store has another {name}" in said, said
    assert "FAILED" in host.file(state["report"]).content_string
    assert metric(host, "civitas_drill_failed") == 1 and metric(host, "civitas_backup_drill_time_seconds") == before
    assert host.run("civitas-drill status").rc == 1 and is_clean(host)


def test_the_key_of_the_drills_opens_nothing_that_the_store_has_not_given(host, store):
    """It reads sets of the one host, changes nothing, and logs nobody in."""
    (config,) = (one for one in json.loads(host.file("/etc/civitas/drill.json").content_string)["origins"])
    way = config["store"]
    ssh = f"ssh -F none -T -p {way['port']} -l {way['user']} -i {way['key']} -o BatchMode=yes -o UserKnownHostsFile={way['known_hosts']}"
    newest = store.check_output(f"ls {STORED}").split()[-1]
    assert newest in host.check_output(f"{ssh} {way['address']} sets")
    for asked in ("id", "have", f"commit {newest}", "get ../other manifest.json 0", "rsync --server --sender . /"):
        done = host.run(f"{ssh} {way['address']} {shlex.quote(asked)}")
        assert done.rc != 0 and "uid=" not in done.stdout, done


def test_the_host_that_drills_by_itself(host):
    """After all that went wrong before."""
    rc, said, state = drill(host)
    assert rc == 0 and "was restored and is good" in said, said
    report = json.loads(host.file(state["report"].replace(".md", ".json")).content_string)
    server, _printed, *trees = report["sources"]
    # Its server is of a later version than the one that the set is of.
    (database,) = server["databases"]
    assert (server["server"], database["rows"], database["logins"]) == (17, 20001, ["registrar"])
    assert [tree["path"] for tree in trees] == ["/srv/documents", "/etc/records"] and trees[0]["files"] == 203
    assert report["environment"] == "production" and 0 < report["recovery_time_seconds"] < 300
    assert metric(host, "civitas_drill_failed") == 0 and metric(host, "civitas_backup_drill_time_seconds") > 1.7e9
    assert is_clean(host)
    assert host.run("civitas-drill status").rc == 0
    assert "civitas-drill.timer" in host.check_output("systemctl list-timers --no-pager")
    assert host.file("/etc/civitas/drill/identity").mode == 0o600
    # Nobody but root reads the reports.
    assert host.run(f"runuser -u postgres -- ls {DRILL}/reports").rc != 0
