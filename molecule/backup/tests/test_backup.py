# SPDX-License-Identifier: GPL-3.0-or-later
"""What the store keeps, what the sending host can do to it, and whether the person with the key gets everything back."""

from __future__ import annotations

import json
import re
import shlex

import pytest
import testinfra

testinfra_hosts = ["ansible://stores"]

SETS = "/srv/backup/hosts/records-1/sets"
ROWS = "SELECT count(*), md5(string_agg(births::text, ',' ORDER BY id)) FROM births"


def other(host, group):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups'][group][0]}")


@pytest.fixture(name="records", scope="module")
def _records(host):
    return other(host, "records")


@pytest.fixture(name="operator", scope="module")
def _operator(host):
    return other(host, "operators")


def status(host):
    return json.loads(host.run("civitas-store status --json").stdout)


def sets(host):
    return host.check_output(f"ls {SETS}").split()


def backup(records):
    """A run as the timer starts it; returns what it said."""
    since = records.check_output("date +%s.%N")
    done = records.run("systemctl start civitas-backup")
    records.check_output("journalctl --sync")
    said = records.check_output(f"journalctl --unit civitas-backup --output cat --no-pager --since @{since}")
    return done.rc, said


def move(source, target, read, write):
    """What one host writes, into what another one reads, by the test's own hands."""
    data = source.check_output(f"{read} | base64 -w 0")
    target.check_output("rm -f /root/part")
    for start in range(0, len(data), 100_000):
        target.check_output(f"printf %s {data[start : start + 100_000]} >> /root/part")
    target.check_output(f"base64 -d /root/part | {write}; rm /root/part")


def copied(host, operator, name):
    """The set on the machine of the person who has the key."""
    operator.check_output("rm -rf /root/sets; mkdir -p /root/sets")
    move(host, operator, f"tar -C {SETS} -c {name}", "tar -C /root/sets -x")
    return f"/root/sets/{name}"


# --- what is kept


def test_the_night_brought_a_good_set(host, records):
    found = status(host)
    assert found["problems"] == [] and [one["good"] for one in found["hosts"]["records-1"]["sets"]]
    assert records.run("civitas-backup status").rc == 0
    manifest = json.loads(host.file(f"{SETS}/{sets(host)[-1]}/manifest.json").content_string)
    assert manifest["complete"] and manifest["host"] == "records-1"
    by_kind = {(one["kind"], one["name"]): one for one in manifest["sources"]}
    (database,) = by_kind["postgres", "main"]["databases"]
    assert database["rows"]["public.births"] == 20000 and database["rows"]["public.nobody"] == 0
    assert by_kind["files", "documents"]["files"] == 203


def test_nothing_is_readable_on_the_store(host, records):
    found = host.run(f"grep -rlaE 'child |key: value|a name with|settings.yml|odd ' {SETS}")
    assert found.stdout == "" and found.rc == 1
    assert records.run("ls -A /var/lib/civitas/backup/outgoing").stdout.strip() == ""


def test_a_night_without_changes_sends_little(records):
    rc, said = backup(records)
    assert rc == 0, said
    sent = int(re.search(r"(\d+) of them new", said).group(1))
    # Databases and commands are made anew; the documents, 4 MB, are not.
    assert sent < 1_000_000, said


def test_figures_for_monitoring(host, records):
    assert "civitas_backup_failed 0" in records.file("/var/lib/civitas/metrics/backup.prom").content_string
    assert 'civitas_store_newest_missing{sender="records-1"} 0' in host.file("/var/lib/civitas/metrics/store.prom").content_string


# --- what the sending host can do with everything it has


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "sh",
        "ls",
        "cat /etc/passwd",
        "rm -rf /srv/backup",
        "have; id",
        "rsync --server --sender -logDtpr . incoming/",
        "rsync --server -te.iLsfxCIvu --inplace --delete . incoming/",
        "rsync --server -te.iLsfxCIvu --inplace . /etc/",
        "scp -t /tmp",
        "internal-sftp",
        "commit ../../hosts",
        "begin 20260101T000000Z-000000000000 -1",
    ],
)
def test_its_key_runs_nothing_else(host, records, asked):
    done = records.run(f"{ssh(host, records)} {shlex.quote(asked)} </dev/null")
    # What the store itself refuses, it says in an answer.
    assert (done.rc != 0 or json.loads(done.stdout)["error"]) and "root:" not in done.stdout, done.stdout
    assert "uid=" not in done.stdout and not host.file("/tmp/passwd").exists


def ssh(host, records):
    config = json.loads(records.file("/etc/civitas/backup.json").content_string)["store"]
    return (
        f"ssh -T -F none -p {config['port']} -l {config['user']} -i {config['key']} -o BatchMode=yes -o StrictHostKeyChecking=yes "
        f"-o UserKnownHostsFile={config['known_hosts']} {config['address']}"
    )


@pytest.mark.parametrize("option", ["-L 9999:127.0.0.1:22 -N", "-R 9999:127.0.0.1:22 -N", "-D 9999 -N", "-W 127.0.0.1:22", "-tt"])
def test_its_key_forwards_nothing(host, records, option):
    command = ssh(host, records).replace("ssh -T", f"timeout 15 ssh -o ExitOnForwardFailure=yes {option}")
    assert records.run(f"{command} </dev/null").rc != 0
    assert not records.socket("tcp://127.0.0.1:9999").is_listening


def test_the_user_of_the_host_reads_and_changes_no_set(host):
    user = json.loads(host.file("/etc/civitas/store.json").content_string)["hosts"]["records-1"]["user"]
    name = sets(host)[0]
    for command in (
        f"cat {SETS}/{name}/manifest.json",
        f"ls {SETS}",
        f"rm -rf {SETS}/{name}",
        f"touch {SETS}/{name}/x",
        "touch /srv/backup/incoming/x",
    ):
        done = host.run(f"setpriv --reuid={user} --regid=civitas-backup --clear-groups -- sh -c {shlex.quote(command)}")
        assert done.rc != 0, command
    assert name in sets(host)


# --- what the store's disk does


def test_a_bit_that_flips_in_the_store_is_found(host, flip):
    name = sets(host)[-1]
    path = next(path for path in host.check_output(f"ls {SETS}/{name}/*.age").split() if "/db-" in path)
    host.check_output(f"cp -a {path} /root/kept")
    flip(host, path)
    try:
        done = host.run("civitas-store verify")
        assert done.rc == 1 and name in done.stderr, done.stderr
        assert host.run("civitas-store status").rc == 1
        held = host.run("civitas-store retain")
        assert "nothing is removed" in held.stdout + held.stderr
    finally:
        host.check_output(f"cat /root/kept > {path}; rm /root/kept")
    assert host.run("civitas-store verify").rc == 0


# --- getting it back, by a person with nothing but the key


def test_everything_comes_back(host, records, operator):
    name = sets(host)[-1]
    directory = copied(host, operator, name)
    signer = records.check_output("ssh-keygen -y -f /etc/civitas/backup/signing")
    operator.check_output(f"printf '%s\\n' {shlex.quote(signer)} > /root/signers")
    # The program of the collection, as it lies on a host; the machine has no other part of it.
    move(records, operator, "tar -C / -cz usr/local/lib/civitas usr/local/sbin/civitas-backup", "tar -C / -xz")
    program = f"/usr/local/sbin/civitas-backup {{}} --host records-1 --signers /root/signers --identity /root/{{}}.key {directory}"
    for key in ("operator", "escrow"):
        assert operator.run(program.format("verify", key)).rc == 0
    assert (
        "is not encrypted to this key"
        in operator.run("cd /root; age-keygen -o other.key 2>/dev/null; " + program.format("verify", "other")).stderr
    )
    operator.check_output("rm -rf /root/out /root/db")
    operator.check_output(f"{program.format('extract', 'operator')} --kind files --source documents --target /root/out")
    tree = (
        "cd {} && find . ! -name .civitas-canary -printf '%P %y %m %U %G %s %T@ %l\\n' | sort; "
        "find . -type f -exec sha256sum {{}} + | sort -k 2"
    )
    assert operator.check_output(tree.format("/root/out")) == records.check_output(tree.format("/srv/documents"))
    operator.check_output(f"{program.format('extract', 'operator')} --kind postgres --source main --target /root/db")
    operator.check_output("chmod 0755 /root /root/db; chmod 0644 /root/db/*; pg_ctlcluster 17 main restart; cd /tmp")
    asked = "cd /tmp; runuser -u postgres -- psql -XAtq"
    operator.run(f"{asked} -d postgres < /root/db/db-main-globals.sql")
    operator.check_output(f"{asked} -d postgres -c 'DROP DATABASE IF EXISTS records' -c 'CREATE DATABASE records OWNER registrar'")
    operator.check_output("cd /tmp; runuser -u postgres -- pg_restore --exit-on-error -d records /root/db/db-main-records.dump")
    here, there = (machine.check_output(f"{asked} -d records -c {shlex.quote(ROWS)}") for machine in (operator, records))
    assert here == there and here.startswith("20000|")
    manifest = json.loads(operator.check_output(f"cat {directory}/manifest.json"))
    (database,) = next(one for one in manifest["sources"] if one["kind"] == "postgres")["databases"]
    assert operator.check_output(f"{asked} -d records -c 'SELECT nonce FROM civitas_backup.canary'") == database["canary"]
