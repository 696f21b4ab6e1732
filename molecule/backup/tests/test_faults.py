# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong with a backup is no success: not in the exit status, the journal, the figures, and what the store counts as good.

docs/backup-faults.md names each fault with what is told, and the test that shows it, here or elsewhere.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any, NamedTuple

import pytest
import testinfra

testinfra_hosts = ["ansible://stores"]

OWN = "/srv/backup/hosts/records-1"
COMING = "/srv/backup/incoming/records-1"
STATE = "/var/lib/civitas/backup"
CONFIG = "/etc/civitas/backup.json"
DROP_IN = "/run/systemd/system/civitas-backup.service.d/fault.conf"
PSQL = "runuser -u postgres -- psql -qXv ON_ERROR_STOP=1"
DAY = 86400


def figures(machine, name):
    """What monitoring reads, by name and labels."""
    lines = machine.file(f"/var/lib/civitas/metrics/{name}.prom").content_string.splitlines()
    return {metric: float(value) for metric, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


class Site:
    """The host that sends and the store, each of which is brought back to what it was."""

    def __init__(self, store, records):
        self.store, self.records = store, records
        self.config = json.loads(records.file(CONFIG).content_string)

    def keep(self):
        self.store.check_output(f"rm -rf /srv/backup/kept; cp -al {OWN} /srv/backup/kept")
        self.records.check_output(
            f"rm -rf /root/kept; mkdir /root/kept; cp -a {STATE} {CONFIG} /var/lib/civitas/metrics/backup.prom /root/kept/"
        )

    def bring_back(self):
        self.records.check_output("systemctl stop civitas-backup; systemctl reset-failed civitas-backup")
        self.clear()
        self.records.check_output(
            f"rm -rf {STATE}; mv /root/kept/backup {STATE}; mv /root/kept/backup.json {CONFIG};"
            " mv /root/kept/backup.prom /var/lib/civitas/metrics/"
        )
        self.store.check_output(f"rm -rf {COMING}/* {OWN}; mv /srv/backup/kept {OWN}; civitas-store status || true")

    def configure(self, **changes):
        """The settings of the scenario with some changes; no step is tried twice."""

        def merge(old, new):
            return {**old, **{name: merge(old[name], one) if isinstance(one, dict) else one for name, one in new.items()}}

        content = merge(merge(self.config, {"store": {"tries": 1}}), changes)
        self.records.check_output(f"printf %s {shlex.quote(json.dumps(content))} > {CONFIG}")

    def drop_in(self, *lines):
        """Further lines for the service of backups, as long as the fault lasts."""
        text = "\n".join(("[Service]", *lines))
        self.records.check_output(f"mkdir -p $(dirname {DROP_IN}); printf '%s\\n' {shlex.quote(text)} > {DROP_IN}; systemctl daemon-reload")

    def clear(self):
        self.records.check_output(f"rm -f {DROP_IN}; systemctl daemon-reload")

    def clock(self, seconds):
        """The clock of the runs is off from now on."""
        (library,) = self.records.check_output("ls /usr/lib/*/faketime/libfaketime.so.1").split()
        self.drop_in(f"Environment=LD_PRELOAD={library} FAKETIME={seconds:+d}")

    def sets(self):
        """What the store says of each set, by name, from old to new."""
        found = json.loads(self.store.run("civitas-store status --json").stdout)
        return {one["set"]: one for one in found["hosts"]["records-1"]["sets"]}

    def good(self):
        return [name for name, one in self.sets().items() if one["good"]]

    def digests(self, name):
        """Of all that the host has sent as this set."""
        return self.store.check_output(f"cd {OWN}/sets/{name} && sha256sum manifest.json* *.age")

    def now(self):
        return self.records.check_output("date +%s.%N")

    def said(self, since):
        self.records.check_output("journalctl --sync")
        return self.records.check_output(f"journalctl --unit civitas-backup --output cat --no-pager --since @{since}")

    def backup(self):
        """A run as the timer starts it; its exit status, and what the journal has of it."""
        since = self.now()
        return self.records.run("systemctl start civitas-backup").rc, self.said(since)

    def begin(self, until):
        """A run has begun, and a command on the store has found what it waits for. Returns when the run began."""
        since = self.now()
        self.records.check_output("systemctl start --no-block civitas-backup")
        self.store.check_output(f"timeout 60 sh -c {shlex.quote(f'until {until}; do sleep 0.05; done')}")
        return since

    def end(self):
        """The run has ended; how."""
        deadline = time.monotonic() + 120
        while (active := self.records.check_output("systemctl show --property=ActiveState --value civitas-backup")).endswith("activating"):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        return active, self.records.check_output("systemctl show --property=Result --value civitas-backup")


@pytest.fixture(name="records", scope="module")
def _records(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['records'][0]}")


@pytest.fixture(name="begun", scope="module")
def _begun(host, records):
    """The last set is a good one, and nobody says anything else."""
    site = Site(host, records)
    rc, said = site.backup()
    assert rc == 0, said
    return site


@pytest.fixture(name="site")
def _site(begun):
    begun.keep()
    yield begun
    begun.bring_back()


class Known(NamedTuple):
    """What must be the same after a run that came to nothing."""

    good: list[str]
    digests: str
    success: float
    newest: float


def known(site):
    good = site.good()
    newest = figures(site.store, "store")['civitas_store_newest_time_seconds{sender="records-1"}']
    return Known(good, site.digests(good[-1]), figures(site.records, "backup")["civitas_backup_success_time_seconds"], newest)


def no_success(site, before, words, said):
    """All who could be asked say that there is no new backup, and what there was is as it was."""
    assert "NO NEW BACKUP" in said and words in said, said
    assert "the store keeps" not in said
    assert figures(site.records, "backup")["civitas_backup_failed"] == 1
    told = site.records.run("civitas-backup status")
    assert told.rc == 1 and "the last run failed" in told.stderr
    assert known(site) == before


class Fault(NamedTuple):
    """A fault of one run.

    Attributes:
        words: what the journal must say.
        break_it, repair: commands on the host that sends.
        break_store, repair_store: commands on the store.
        settings: changes of the host's settings.
        service: further lines of its service.
        kept: the store takes what could be made, and does not count it as good.
    """

    words: str
    break_it: str = "true"
    repair: str = "true"
    break_store: str = "true"
    repair_store: str = "true"
    settings: dict[str, Any] = {}
    service: tuple[str, ...] = ()
    kept: bool = False


TREE = {"name": "documents", "path": "/srv/documents"}
WITH_PASSWORD = {
    "name": "main",
    "databases": ["records"],
    "socket": "127.0.0.1",
    "via": ["env", "PGUSER=postgres", "PGPASSFILE=/root/pgpass"],
}
HOST_KEY = "/etc/ssh/civitas/backup/host_ed25519_key"
FAULTS = {
    "a tree is gone": Fault("/srv/documents: No such file", "mv /srv/documents /srv/away", "mv /srv/away /srv/documents", kept=True),
    "a tree is empty": Fault(
        "holds no file",
        "mv /srv/documents /srv/away && mkdir /srv/documents",
        "rmdir /srv/documents && mv /srv/away /srv/documents",
        kept=True,
    ),
    "a disk is not mounted": Fault(
        "/srv/disk is not mounted",
        "mkdir /srv/disk && mount -t tmpfs tmpfs /srv/disk && touch /srv/disk/scan && umount /srv/disk",
        "rmdir /srv/disk",
        settings={"files": [TREE, {"name": "disk", "path": "/srv/disk", "mount": True}]},
        kept=True,
    ),
    "a file may not be read": Fault(
        "1 files or directories could not be read",
        "chmod 0 /srv/documents/a/b/4.pdf",
        "chmod 0604 /srv/documents/a/b/4.pdf",
        # What else keeps root out, such as a file system of another host, looks the same.
        service=("CapabilityBoundingSet=~CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH",),
        kept=True,
    ),
    "a file never stands still": Fault(
        "1 files changed each time they were read",
        "truncate --size=60M /srv/documents/open"
        " && systemd-run --quiet --unit=fault-writer sh -c 'while :; do touch /srv/documents/open; done'",
        "systemctl stop fault-writer; rm /srv/documents/open",
        kept=True,
    ),
    "the server is down": Fault(
        "connection to server on socket",
        "systemctl stop postgresql@15-main",
        "systemctl start postgresql@15-main",
        kept=True,
    ),
    "the password is wrong": Fault(
        "password authentication failed",
        f"(umask 077; echo '*:*:*:*:wrong' > /root/pgpass); echo \"ALTER ROLE postgres PASSWORD 'right'\" | {PSQL}",
        f"{PSQL} -c 'ALTER ROLE postgres PASSWORD NULL'; rm /root/pgpass",
        settings={"postgres": [WITH_PASSWORD]},
        kept=True,
    ),
    "a database is gone": Fault(
        "'records' is not there",
        f"{PSQL} -c 'ALTER DATABASE records RENAME TO elsewhere'",
        f"{PSQL} -c 'ALTER DATABASE elsewhere RENAME TO records'",
        kept=True,
    ),
    "nobody has declared a database": Fault(
        "nobody has declared the database 'newcomer'",
        f"{PSQL} -c 'CREATE DATABASE newcomer'",
        f"{PSQL} -c 'DROP DATABASE newcomer'",
        kept=True,
    ),
    "the server is of another version than the programs": Fault(
        "the server has version 15, and pg_dump is not of this version",
        "mv /usr/lib/postgresql/15/bin/pg_dump /root/",
        "mv /root/pg_dump /usr/lib/postgresql/15/bin/",
        kept=True,
    ),
    "a dump is killed": Fault(
        "db-main-records.dump.zst.age: runuser ended with",
        # Long enough to be there when somebody comes.
        f"{PSQL} -d records -c 'CREATE TABLE long AS SELECT md5(n::text) FROM generate_series(1, 700000) n'"
        " && systemd-run --quiet --unit=fault-killer sh -c"
        " 'until pkill -KILL -f \"^/usr/lib/postgresql/15/bin/pg_dump --format\"; do sleep 0.01; done'",
        f"systemctl stop fault-killer 2> /dev/null; {PSQL} -d records -c 'DROP TABLE long'",
        kept=True,
    ),
    "a command prints too little": Fault(
        "not all that it should print", settings={"commands": [{"name": "packages", "run": ["true"]}]}, kept=True
    ),
    "the disk of the host gets full": Fault(
        "No space left on device",
        f"mount -t tmpfs -o size=256k,mode=0700 tmpfs {STATE}/outgoing",
        f"umount {STATE}/outgoing",
        settings={"minimum_free_bytes": 0},
    ),
    "the disk of the store gets full": Fault(
        "the transfer was cut off",
        break_store=f"mount -t tmpfs -o size=256k,mode=0711 tmpfs {COMING}",
        repair_store=f"umount {COMING}",
    ),
    "the share of the host is used up": Fault(
        "the share of this host is full",
        break_store='cp /etc/civitas/store.json /root/ && sed -i \'s/"quota_bytes": .*/"quota_bytes": 1000,/\' /etc/civitas/store.json',
        repair_store="mv /root/store.json /etc/civitas/store.json",
    ),
    "the store does not answer": Fault(
        "Connection refused",
        break_store="systemctl stop civitas-store-sshd",
        repair_store="systemctl start civitas-store-sshd",
    ),
    "the store has another host key": Fault(
        "Host key verification failed",
        break_store=f"cp -p {HOST_KEY}* /root/ && rm {HOST_KEY}* && ssh-keygen -q -t ed25519 -N '' -f {HOST_KEY}"
        " && systemctl restart civitas-store-sshd",
        repair_store=f"mv /root/host_ed25519_key* {HOST_KEY.rpartition('/')[0]}/ && systemctl restart civitas-store-sshd",
    ),
    "nobody could decrypt it": Fault("0 of the 0 recipients are no public keys of age", settings={"recipients": []}),
    "a key for encrypting is none": Fault("1 of the 1 recipients are no public keys of age", settings={"recipients": ["age1wrong"]}),
    "the key for signing is gone": Fault(
        "the manifest cannot be signed",
        "mv /etc/civitas/backup/signing /root/",
        "mv /root/signing /etc/civitas/backup/",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_no_success(site, fault):
    one, before = FAULTS[fault], known(site)
    site.configure(**one.settings)
    site.drop_in(*one.service)
    site.store.check_output(one.break_store)
    try:
        site.records.check_output(one.break_it)
        try:
            rc, said = site.backup()
        finally:
            site.records.check_output(one.repair)
    finally:
        site.store.check_output(one.repair_store)
    assert rc != 0, said
    no_success(site, before, one.words, said)
    more = [found for name, found in site.sets().items() if name > before.good[-1]]
    assert [found["good"] for found in more] == [False] * one.kept
    if one.kept:
        # The store tells it by itself as well, whatever becomes of the host.
        assert more[0]["failures"] and figures(site.store, "store")['civitas_store_newest_missing{sender="records-1"}'] == 1
        assert site.store.run("civitas-store status").rc == 1


# --- what befalls a run


def test_a_file_that_vanishes_while_it_is_read(site):
    """It was removed, so it is in no set; that is told, and no more."""
    site.configure()
    site.records.check_output("truncate --size=400M /srv/documents/0-large; echo x > /srv/documents/a/b/vanishing")
    since = site.now()
    try:
        # The packs come after all names were read, and the large file comes before the others.
        site.records.check_output(
            "systemctl start --no-block civitas-backup; timeout 60 sh -c"
            f" 'until ls {STATE}/outgoing/*/tree-documents-0* 2> /dev/null; do sleep 0.01; done'; rm /srv/documents/a/b/vanishing"
        )
        assert site.end() == ("inactive", "success")
    finally:
        site.records.check_output("rm -f /srv/documents/0-large /srv/documents/a/b/vanishing")
    told = "/srv/documents: 1 files vanished before they were read"
    assert told in site.said(since)
    assert figures(site.records, "backup")["civitas_backup_warnings"] == 1
    assert told in site.records.run("civitas-backup status").stderr
    newest = list(site.sets().values())[-1]
    assert newest["good"] and newest["warnings"] == [told]


def test_a_transfer_that_is_cut_at_half(site):
    before, sets = known(site), list(site.sets())
    site.configure(store={"bandwidth": 300})
    site.records.check_output("head -c 2000000 /dev/urandom > /srv/documents/large")
    try:
        since = site.begin(f'[ "$(du -sbc {COMING}/*/ 2> /dev/null | tail -n 1 | cut -f 1)" -gt 1300000 ]')
        site.store.check_output("pkill -KILL -x rsync")
        assert site.end() == ("failed", "exit-code")
        come = int(site.store.check_output(f"du -sbc {COMING}/*/ | tail -n 1").split()[0])
        announced = json.loads(site.store.check_output(f"cat {COMING}/*.json"))["bytes"] - 32 * 2**20
        assert 0.2 < come / announced < 0.9
        no_success(site, before, "the transfer was cut off", site.said(since))
        assert list(site.sets()) == sets
        site.configure()
        rc, said = site.backup()
    finally:
        site.records.check_output("rm /srv/documents/large")
    assert rc == 0 and "was made by an earlier run, and is sent first" in said, said
    # That one, and the one of this run; both are good.
    assert len(site.good()) == len(before.good) + 2 and site.store.run("civitas-store status").rc == 0


def test_a_run_that_is_killed_and_the_lock_that_it_leaves(site):
    before = known(site)
    site.configure(store={"bandwidth": 50})
    since = site.begin(f"ls {COMING}/*/*.age")
    site.records.check_output("systemctl kill --kill-whom=main --signal=KILL civitas-backup")
    assert site.end() == ("failed", "signal")
    no_success(site, before, "the run was ended by force", site.said(since))
    assert figures(site.records, "backup")["civitas_backup_running"] == 0
    assert site.records.file(f"{STATE}/lock").size > 0
    site.configure()
    rc, said = site.backup()
    assert rc == 0, said
    assert len(site.good()) == len(before.good) + 2 and site.records.run("civitas-backup status").rc == 0


def test_two_runs_at_once(site):
    before = known(site)
    site.configure(store={"bandwidth": 200})
    site.begin(f"ls {COMING}/*/*.age")
    second = site.records.run("civitas-backup run")
    assert second.rc == 1 and "another run lasts" in second.stderr
    # Of the one that lasts nothing was lost, and nothing was said too early.
    assert figures(site.records, "backup")["civitas_backup_running"] == 1 and site.good() == before.good
    assert site.end() == ("inactive", "success")
    assert len(site.good()) == len(before.good) + 1


def test_a_clock_that_is_a_day_behind(site):
    before = known(site)
    site.configure()
    site.clock(-DAY)
    rc, said = site.backup()
    assert rc == 0 and re.search(r"the clock is 86\d{3} seconds off the store's", said) and "the clock is behind the set before" in said
    after = known(site)
    # It is kept, and makes nothing look newer.
    assert after.newest == before.newest and after.success < before.success and len(after.good) == len(before.good) + 1
    newest = list(site.sets().values())[-1]
    assert newest["notes"][0].startswith("it is older than")
    assert figures(site.store, "store")['civitas_store_sets_strange{sender="records-1"}'] == 1
    assert site.store.run("civitas-store status").rc == 1


def test_dates_to_come_push_nothing_out(site):
    before = known(site)
    site.configure()
    site.clock(400 * DAY)
    for _night in range(2):
        rc, said = site.backup()
        assert rc == 0 and re.search(r"the clock is 345\d{5} seconds off the store's", said)
    done = site.store.run("civitas-store retain")
    assert done.rc == 0 and "was removed" not in done.stdout
    after = known(site)
    assert set(before.good) < set(after.good) and len(after.good) == len(before.good) + 2
    # Neither the store nor the host takes it for a backup of next year.
    assert max(after.newest, after.success) < time.time() + 60
    assert [bool(one["notes"]) for one in site.sets().values()][-2:] == [True, True]
    assert figures(site.store, "store")['civitas_store_sets_strange{sender="records-1"}'] == 2


def test_nothing_runs_any_more(site):
    """The timer stands still. After a day each of both says so by itself."""
    site.records.check_output("systemctl stop civitas-backup.timer")
    try:
        later = "LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketime.so.1) FAKETIME=+27h"
        told = site.records.run(f"{later} civitas-backup status")
        assert told.rc == 1 and "the last backup is 27 hours old" in told.stderr
        told = site.store.run(f"{later} civitas-store status")
        assert told.rc == 1 and "the newest good set is 27 hours old" in told.stderr
        assert figures(site.store, "store")['civitas_store_newest_missing{sender="records-1"}'] == 1
        assert "civitas-backup.timer" not in site.records.check_output("systemctl list-timers --no-pager")
    finally:
        site.records.check_output("systemctl start civitas-backup.timer")


# --- what befalls the store


def test_a_file_that_is_missing_in_the_store(site):
    newest = site.good()[-1]
    (member,) = site.store.check_output(f"cd {OWN}/sets/{newest}; ls db-main-records*").split()
    site.store.check_output(f"rm {OWN}/sets/{newest}/{member}")
    done = site.store.run("civitas-store verify")
    assert done.rc == 1 and f"{newest} is damaged: {member}" in done.stderr, done.stderr
    found = figures(site.store, "store")
    assert found['civitas_store_newest_missing{sender="records-1"}'] == found['civitas_store_sets_bad{sender="records-1"}'] == 1
    assert newest not in site.good() and site.store.run("civitas-store status").rc == 1
    held = site.store.run("civitas-store retain")
    assert "nothing is removed" in held.stdout + held.stderr
    # The next night brings a whole one.
    rc, said = site.backup()
    assert rc == 0 and site.good()[-1] > newest, said


# --- after all that


def test_the_night_after_is_a_good_one(host, records, begun):
    rc, said = begun.backup()
    assert rc == 0 and re.search(r"the store keeps \S+: \d+ bytes", said), said
    assert host.run("civitas-store verify").rc == 0
    assert host.run("civitas-store status").rc == 0
    assert records.run("civitas-backup status").rc == 0
    assert figures(records, "backup")["civitas_backup_failed"] == 0
