# SPDX-License-Identifier: GPL-3.0-or-later
"""A second store elsewhere: what it copies, and that whoever has all of the first store, or of the server, changes nothing of it."""

from __future__ import annotations

import json
import re

import pytest
import testinfra

testinfra_hosts = ["ansible://copies"]

SETS = "/srv/backup/hosts/records-1/sets"
CONFIG = "/etc/civitas/copy.json"


def other(host, group):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups'][group][0]}")


@pytest.fixture(name="records", scope="module")
def _records(host):
    return other(host, "records")


@pytest.fixture(name="store", scope="module")
def _store(host):
    return other(host, "stores")


def run(host):
    """A run as the timer starts it; its exit status, what it said, and what is known of it afterwards."""
    since = host.check_output("date +%s.%N")
    done = host.run("systemctl start civitas-copy")
    host.check_output("journalctl --sync")
    said = host.check_output(f"journalctl --unit civitas-copy --output cat --no-pager --since @{since}")
    host.run("systemctl reset-failed civitas-copy")
    return done.rc, said, json.loads(host.run("civitas-copy status --json").stdout)["hosts"]["records-1"]


def metric(host, name):
    (line,) = re.findall(rf'^{name}{{sender="records-1"}} (\S+)$', host.file("/var/lib/civitas/metrics/copy.prom").content_string, re.M)
    return float(line)


def content(host):
    """All that is kept, but for the store's own notes."""
    return host.check_output(f"cd {SETS} && find . -type f ! -name store.json -exec sha256sum {{}} + | sort -k 2")


def kept(host):
    """What the store of this host says of its sets. Its exit status tells whether something is wrong."""
    return json.loads(host.run("civitas-store status --json").stdout)["hosts"]["records-1"]["sets"]


def copied_sets(listing):
    return {line.split("/")[1] for line in listing.splitlines()}


def backup(records):
    done = records.run("systemctl start civitas-backup")
    assert done.rc == 0, records.run("journalctl --unit civitas-backup --lines 20 --output cat --no-pager").stdout


@pytest.fixture(scope="module", autouse=True)
def _no_second_try(host):
    """What fails is to fail at once; how often it is tried again is proven elsewhere."""
    host.check_output(f'cp -a {CONFIG} /root/tries.json; sed -i \'s/"bandwidth"/"tries": 1, "bandwidth"/\' {CONFIG}')
    yield
    host.check_output(f"mv /root/tries.json {CONFIG}")


@pytest.fixture(name="copied", autouse=True)
def _copied(host, records):
    """All that the first store has, byte by byte; each test begins with one set more."""
    backup(records)
    rc, said, state = run(host)
    assert (rc, state["problem"], state["lacking"]) == (0, "", 0), said
    return content(host)


def test_all_that_the_store_has_is_here(host, store, copied):
    assert copied == content(store)
    assert host.run("civitas-copy status").rc == 0
    # Also what was not complete when it was made: it may be all that there is of that day.
    newest = kept(host)[-1]
    assert newest["good"] and newest["notes"] == [] and {one["set"] for one in kept(host)} == copied_sets(copied)
    for name in ("failed", "lacking", "refused", "gone"):
        assert metric(host, f"civitas_copy_{name}") == 0
    assert metric(host, "civitas_copy_success_time_seconds") > int(host.check_output("date +%s")) - 600
    assert host.run("civitas-store verify").rc == 0


def test_it_runs_by_the_clock_in_utc(host):
    assert host.run("systemctl is-enabled civitas-copy.timer").rc == 0 and host.run("systemctl is-active civitas-copy.timer").rc == 0
    timer = host.check_output("systemctl cat civitas-copy.timer")
    assert "OnCalendar=*-*-* 03:00:00 UTC" in timer and "Persistent=true" in timer


def test_who_has_the_first_store_reaches_nothing_here(host, store, copied):
    address = host.check_output("hostname -I").split()[0]
    # With every key that lies there, as every user that might be here.
    keys = store.check_output("find / -xdev -type f -name '*key*' -exec grep -l 'OPENSSH PRIVATE KEY' {} + 2>/dev/null || true").split()
    assert keys
    for key in keys:
        for user in ("civitas-reader", "civitas-copy", "root"):
            done = store.run(
                f"ssh -F none -T -p 2022 -i {key} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
                f" {user}@{address} -- sets"
            )
            assert done.rc == 255 and "Permission denied" in done.stderr, done
    assert content(host) == copied


def test_what_root_of_the_first_store_does_is_told_and_changes_no_copy(host, store, records, copied, flip):
    backup(records)
    names = store.check_output(f"ls {SETS}").split()
    newest, before = names[-1], names[-2]
    store.check_output(f"cp -a {SETS} /root/sets")
    try:
        # One is removed, one altered that is here, one altered that is not here yet.
        store.check_output(f"rm -rf {SETS}/{before} {SETS}/{names[0]}")
        file = store.check_output(f"ls {SETS}/{newest}/db-main-records*.age")
        store.check_output(f"cp {file} {file}.new")
        flip(store, f"{file}.new")
        store.check_output(f"mv {file}.new {file}")
        rc, said, state = run(host)
        assert rc == 1 and state["problem"] == "", said
        assert list(state["refused"]) == [newest] and "the store has another db-main-records" in state["refused"][newest]
        assert before in state["gone"] and f"{before} is here, and has VANISHED FROM THE FIRST STORE" in said
        assert metric(host, "civitas_copy_refused") == 1 and metric(host, "civitas_copy_gone") >= 1
        assert content(host) == copied and host.run("civitas-copy status").rc == 1
        # All of it, and the store itself.
        store.check_output(f"rm -rf {SETS}; mkdir {SETS}")
        rc, said, state = run(host)
        assert rc == 1 and set(state["gone"]) == {one["set"] for one in kept(host) if one["good"]} and content(host) == copied
        store.check_output("systemctl stop civitas-store-sshd")
        rc, said, state = run(host)
        assert rc == 1 and "Connection refused" in state["problem"] and metric(host, "civitas_copy_failed") == 1
        assert content(host) == copied
    finally:
        store.check_output(f"rm -rf {SETS}; mv /root/sets {SETS}; systemctl start civitas-store-sshd")


def test_another_host_key_is_not_trusted(host, copied):
    known = "/etc/civitas/copy.known_hosts"
    host.check_output(f"cp -a {known} /root/known_hosts; rm -f /root/other*; ssh-keygen -q -t ed25519 -N '' -f /root/other")
    try:
        host.check_output(f"echo \"$(cut -d' ' -f1 {known}) $(cut -d' ' -f1,2 /root/other.pub)\" > /root/line; cat /root/line > {known}")
        rc, said, state = run(host)
        assert rc == 1 and "Host key verification failed" in state["problem"], said
        assert metric(host, "civitas_copy_failed") == 1 and content(host) == copied
    finally:
        host.check_output(f"mv /root/known_hosts {known}")


def test_a_run_that_is_killed_is_told_and_goes_on(host, store, records, copied):
    records.check_output("head -c 20000000 /dev/urandom > /srv/documents/large.bin")
    backup(records)
    host.check_output(f'cp -a {CONFIG} /root/copy.json; sed -i \'s/"bandwidth": 0/"bandwidth": 1000/\' {CONFIG}')
    part = "find /srv/backup/incoming/records-1 -name 'tree-documents-*' -size +3M"
    try:
        host.check_output("systemctl start --no-block civitas-copy")
        host.check_output(f"timeout 120 sh -c 'until test -n \"$({part})\"; do sleep 0.2; done'")
        # What is half there counts for nothing.
        assert content(host) == copied
        host.check_output("systemctl kill --signal KILL civitas-copy")
        host.check_output("timeout 60 sh -c 'until systemctl show -P ActiveState civitas-copy | grep -qx failed; do sleep 0.2; done'")
        assert metric(host, "civitas_copy_failed") == 1
        assert "ended by force" in host.run("civitas-copy status").stderr
        there = host.check_output(f"{part} -printf '%i'")
        assert there and content(host) == copied
    finally:
        host.check_output(f"mv /root/copy.json {CONFIG}; systemctl reset-failed civitas-copy || true")
        records.check_output("rm /srv/documents/large.bin")
    rc, said, _state = run(host)
    assert rc == 0 and content(host) == content(store), said


def test_who_copies_reads_and_changes_nothing_that_is_kept(host, copied):
    name = sorted(copied_sets(copied))[-1]
    for asked in (
        f"ls {SETS}",
        f"cat {SETS}/{name}/manifest.json",
        f"rm -rf {SETS}/{name}",
        f"touch {SETS}/x",
        "cat /etc/civitas/copy/read-records-1",
        "civitas-store grant --host records-1 --key 'ssh-ed25519 AAAA'",
        "civitas-store forget --host records-1 --before 2999-01-01T00:00:00Z --remove",
    ):
        done = host.run(f"runuser -u civitas-copy -- {asked}")
        assert done.rc != 0 and (name not in done.stdout), (asked, done)
    assert content(host) == copied
    # In its own namespace what is kept is not even there.
    unit = host.check_output("systemctl cat civitas-copy.service")
    assert "User=civitas-copy" in unit and "InaccessiblePaths=/srv/backup/hosts" in unit
