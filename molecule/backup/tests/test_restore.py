# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore refuses leaves the host as it was, and what is killed or was a mistake is taken back; what a reader's key can do.

That records come back, over live data and to a fresh host, the side effect of this scenario has shown.
"""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["ansible://stores"]

SETS = "/srv/backup/hosts/records-1/sets"
STATE = Path(__file__).parents[1] / "files/state.sh"


@pytest.fixture(name="records", scope="module")
def _records(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['records'][0]}")


@pytest.fixture(name="operator", scope="module")
def _operator(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['operators'][0]}")


@pytest.fixture(name="way")
def _way(host, records):
    """A key of the host that may read at the store, as the playbook makes it."""
    records.check_output("install -d -m 0700 /run/civitas-restore; ssh-keygen -q -t ed25519 -N '' -f /run/civitas-restore/transfer")
    key = records.check_output("cat /run/civitas-restore/transfer.pub")
    records.check_output("cp /etc/civitas/backup.known_hosts /run/civitas-restore/known_hosts")
    yield lambda *options: json.loads(
        host.check_output(f"civitas-store grant --host records-1 --key {shlex.quote(key)} {' '.join(options)}")
    )
    host.run(f"civitas-store revoke --key {shlex.quote(key)}")
    records.check_output("rm -r /run/civitas-restore")


def state(records):
    records.check_output(f"cat > /root/state.sh <<'EOF'\n{STATE.read_text()}EOF")
    return records.check_output("sh /root/state.sh; ls -i /srv; runuser -u postgres -- psql -XAtqc 'SELECT oid, datname FROM pg_database'")


def plan(records, operator, user, **changes):
    """The plan, and the private key where no disk keeps it."""
    known = json.loads(records.file("/etc/civitas/backup.json").content_string)
    content = {
        "host": "records-1",
        "signers": [records.check_output("ssh-keygen -y -f /etc/civitas/backup/signing")],
        "identity": "/run/civitas-restore/identity",
        "confirm": "records-1",
        "store": {
            **{name: known["store"][name] for name in ("address", "port")},
            "user": user,
            "key": "/run/civitas-restore/transfer",
            "known_hosts": "/run/civitas-restore/known_hosts",
            "tries": 1,
        },
        **changes,
    }
    key = operator.check_output("cat /root/operator.key")
    records.check_output(f"umask 077; printf '%s\\n' {shlex.quote(key)} > /run/civitas-restore/identity")
    records.check_output(f"printf %s {shlex.quote(json.dumps(content))} > /run/civitas-restore/plan.json")


def restore(records):
    """A restore as the playbook starts it; what it said."""
    since = records.check_output("date +%s.%N")
    done = records.run("systemctl start civitas-restore")
    records.check_output("journalctl --sync")
    said = records.check_output(f"journalctl --unit civitas-restore --output cat --no-pager --since @{since}")
    assert not records.file("/run/civitas-restore/identity").exists
    return done.rc, said


def phase(records):
    return json.loads(records.run("civitas-restore status --json").stdout)["phase"]


# --- refusals on hosts


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("a bit that flips in the store", "the store has another db-main-records"),
        ("a set of another environment", "never restored"),
        ("no room", "there is too little space"),
        ("the wrong key", "is not encrypted to this key"),
        ("live data, and nobody has confirmed", "would be replaced; confirm it with the name of this host"),
    ],
)
def test_what_is_refused_touches_nothing(host, records, operator, way, flip, fault, words):
    before, changes = state(records), {}
    user = way()["user"]
    config = "/etc/civitas/restore.json"
    records.check_output(f"cp -a {config} /root/restore.json")
    member = host.check_output(f"ls {SETS}/*/db-main-records* | tail -n 1")
    host.check_output(f"cp -a {member} /root/kept")
    try:
        if fault == "no room":
            records.check_output(f'sed -i \'s/"minimum_free_bytes": .*/"minimum_free_bytes": {10**15},/\' {config}')
        elif fault == "a set of another environment":
            records.check_output(f'sed -i \'s/"environment": .*/"environment": "qa",/\' {config}')
            words = "'production' holds personal data and 'qa' may not"
        elif fault == "live data, and nobody has confirmed":
            changes["confirm"] = ""
        elif fault == "a bit that flips in the store":
            flip(host, member)
        plan(records, operator, user, **changes)
        if fault == "the wrong key":
            records.check_output("cd /run/civitas-restore; umask 077; rm identity; age-keygen -o identity 2> /dev/null")
        rc, said = restore(records)
    finally:
        records.check_output(f"mv /root/restore.json {config}; systemctl reset-failed civitas-restore")
        host.check_output(f"cat /root/kept > {member}; rm /root/kept")
    assert rc != 0 and words in said, said
    assert "nothing was touched" in said and phase(records) == "refused"
    assert state(records) == before and records.service("writer").is_running


def test_it_is_killed_while_what_writes_is_stopped(host, records, operator, way):
    before = state(records)
    plan(records, operator, way()["user"])
    records.check_output("systemctl start --no-block civitas-restore")
    deadline = time.monotonic() + 120
    while (now := phase(records)) != "stopping":
        assert time.monotonic() < deadline and now in ("refused", "fetching", "proving", "preparing"), now
        time.sleep(0.1)
    records.check_output("systemctl kill --kill-whom=main --signal=KILL civitas-restore")
    while records.check_output("systemctl show --property=ActiveState --value civitas-restore") not in ("failed", "inactive"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert phase(records) == "undone" and not records.file("/run/civitas-restore/identity").exists
    assert state(records) == before and records.service("writer").is_running
    records.check_output("systemctl reset-failed civitas-restore")


def test_one_part_comes_back_and_is_undone(host, records, operator, way):
    before = state(records)
    records.check_output("echo altered > /srv/documents/a/b/9.pdf")
    plan(records, operator, way()["user"], only=["files/documents"])
    rc, said = restore(records)
    assert rc == 0, said
    # Its number of the directory is another one, and all else is the same.
    assert [line for line in state(records).splitlines() if not line.endswith(" documents")][:200] == [
        line for line in before.splitlines() if not line.endswith(" documents")
    ][:200]
    records.check_output("civitas-restore undo")
    assert records.check_output("cat /srv/documents/a/b/9.pdf") == "altered"
    when = json.loads(records.run("civitas-restore status --json").stdout)["last"]["when"]
    records.check_output(f"cp -p /srv/documents.civitas-undone-{when}/a/b/9.pdf /srv/documents/a/b/9.pdf; civitas-restore forget {when}")


def test_a_backup_leaves_out_what_is_kept(host, records):
    """What was there before the restore of the side effect is still beside the data."""
    assert "civitas_before_" in records.check_output("runuser -u postgres -- psql -XAtqc 'SELECT datname FROM pg_database'")
    done = records.run("systemctl start civitas-backup")
    assert done.rc == 0, records.check_output("journalctl --unit civitas-backup --output cat --no-pager --lines 20")


def test_what_is_kept_is_forgotten(records):
    records.check_output("systemctl start civitas-restore-forget")
    assert "civitas_before_" in records.check_output("civitas-restore status")
    records.check_output("civitas-restore forget all")
    assert "civitas_before_" not in records.check_output("runuser -u postgres -- psql -XAtqc 'SELECT datname FROM pg_database'")
    assert records.check_output("ls /srv") == "documents" and records.check_output("ls -A /var/lib/civitas/restore/sets") == ""


# --- what the key of a reader can do


def ask(records, user, asked):
    config = json.loads(records.file("/etc/civitas/backup.json").content_string)["store"]
    return records.run(
        f"ssh -T -F none -p {config['port']} -l {user} -i /run/civitas-restore/transfer -o BatchMode=yes -o StrictHostKeyChecking=yes"
        f" -o UserKnownHostsFile={config['known_hosts']} {config['address']} {shlex.quote(asked)} </dev/null"
    )


def test_a_grant_reads_one_set_and_nothing_else(host, records, way):
    first, *_others, last = sorted(host.check_output(f"ls {SETS}").split())
    user = way("--set", last)["user"]
    assert [one["set"] for one in json.loads(ask(records, user, "sets").stdout)["sets"]] == [last]
    assert ask(records, user, f"get {last} manifest.json 0").stdout == host.file(f"{SETS}/{last}/manifest.json").content_string
    for asked in (
        f"get {first} manifest.json 0",
        f"get {last} store.json 0",
        f"get {last} ../{first}/manifest.json 0",
        "have",
        f"begin {last} 5",
        f"commit {last}",
        f"rsync --server --sender -te.LsfxCIvu . {SETS}/{last}/",
        f"rsync --server -te.LsfxCIvu --inplace . incoming/{last}/",
        "sh -c id",
        "",
    ):
        done = ask(records, user, asked)
        assert done.rc != 0 and (done.stdout == "" or json.loads(done.stdout)["error"]), (asked, done.stdout)
    # Nor can its user, if it got out of the program.
    for command in (
        f"ls {SETS}",
        "cat /run/civitas-store/*.json",
        "touch /run/civitas-store/keys",
        "touch /srv/backup/incoming/records-1/x",
    ):
        assert host.run(f"setpriv --reuid={user} --regid=civitas-backup --clear-groups -- sh -c {shlex.quote(command)}").rc != 0, command
    assert host.run("findmnt -n -o FSTYPE -T /run/civitas-store").stdout.strip() == "tmpfs"


def test_a_grant_ends(host, records, way):
    user = way("--hours", "0.002")["user"]
    assert ask(records, user, "sets").rc == 0
    # The store refuses at that moment, and sshd a little later: it reckons in whole seconds.
    answers, deadline = [ask(records, user, "sets")], time.monotonic() + 60
    while "Permission denied" not in answers[-1].stderr:
        assert time.monotonic() < deadline, answers[-1]
        time.sleep(0.5)
        answers.append(ask(records, user, "sets"))
    ended = next(number for number, done in enumerate(answers) if done.rc != 0)
    for done in answers[ended:]:
        assert done.rc != 0 and '"set"' not in done.stdout, answers
    way()
    assert ask(records, user, "sets").rc == 0
    host.check_output(f"civitas-store revoke --key {shlex.quote(records.check_output('cat /run/civitas-restore/transfer.pub'))}")
    refused = ask(records, user, "sets")
    # sshd has nothing else to say to a reader: not that its home is missing, either.
    assert "Permission denied" in refused.stderr and "chdir" not in "".join(done.stderr for done in answers)


def test_the_key_of_the_host_still_reads_nothing(host, records):
    config = json.loads(records.file("/etc/civitas/backup.json").content_string)["store"]
    done = records.run(
        f"ssh -T -F none -p {config['port']} -l civitas-reader -i {config['key']} -o BatchMode=yes -o StrictHostKeyChecking=yes"
        f" -o UserKnownHostsFile={config['known_hosts']} {config['address']} sets </dev/null"
    )
    assert done.rc != 0 and "Permission denied" in done.stderr
