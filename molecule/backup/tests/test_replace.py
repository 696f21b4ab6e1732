# SPDX-License-Identifier: GPL-3.0-or-later
"""A staging host gets the data of production by its drill, without names, or keeps its own to the last byte.

The side effect has configured it with the roles; here that configuration is in place, and other tests have the one that only drills.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["ansible://drills"]

DRILL = "/var/lib/civitas/drill"
STORED = "/srv/backup/hosts/records-1/sets"
FILES = Path(__file__).parents[1] / "files"
HOOK = "/usr/local/sbin/anonymise"
PSQL = "runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1"
OWN = """
set -e
umask 077
printf '127.0.0.1:*:*:registrar:%s\\n' "$(od -An -N16 -tx1 /dev/urandom | tr -d ' \\n')" > /root/registrar
{
  echo "DROP DATABASE IF EXISTS records WITH (FORCE);"
  echo "SELECT 'CREATE ROLE registrar LOGIN' WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'registrar') \\gexec"
  echo "ALTER ROLE registrar PASSWORD '$(cut -d: -f5 /root/registrar)';"
  cat <<'SQL'
CREATE DATABASE records OWNER registrar;
\\connect records
SET ROLE registrar;
CREATE TABLE births (id bigint PRIMARY KEY, name text NOT NULL, born date NOT NULL);
INSERT INTO births SELECT number, 'of staging ' || number, '2020-01-01' FROM generate_series(1, 7) AS number;
CREATE TABLE drafts (id int);
SQL
} > /root/own.sql
cd /; runuser -u postgres -- psql -qX -v ON_ERROR_STOP=1 < /root/own.sql > /dev/null
rm -rf /root/own.sql /srv/documents
umask 022
mkdir -p /srv/documents/drafts
echo 'of staging' > /srv/documents/drafts/own.txt
chown -R postgres /srv/documents/drafts
"""
# All but names, which are to be gone.
ROWS = "SELECT count(*), md5(string_agg(id || ' ' || born, ',' ORDER BY id)) FROM births"
OWNERS = (
    "SELECT relname, relkind, pg_get_userbyid(relowner), relacl FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1;"
    " SELECT datname, pg_get_userbyid(datdba), datacl FROM pg_database WHERE datname = 'records'"
)
TREE = (
    "cd /srv/documents && find . ! -name .civitas-canary ! -name 7.pdf ! -path ./a/b -printf '%P %y %m %U %G %s %l\\n' | sort &&"
    " find . -type f ! -name .civitas-canary ! -name 7.pdf -exec sha256sum {} + | sort -k 2"
)


@pytest.fixture(name="records", scope="module")
def _records(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['records'][0]}")


@pytest.fixture(name="store", scope="module")
def _store(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['stores'][0]}")


@pytest.fixture(name="newest", scope="module")
def _newest(records, store):
    """A set of production as it is now."""
    done = records.run("systemctl start civitas-backup")
    assert done.rc == 0, records.run("journalctl --unit civitas-backup --lines 20 --output cat --no-pager").stdout
    return store.check_output(f"ls {STORED}").split()[-1]


@pytest.fixture(name="staging", scope="module")
def _staging(host, newest):
    """The host as its roles have configured it for staging; it has data of its own."""
    host.check_output("cp -a /etc/civitas/drill.json /etc/civitas/restore.json /root/; cp -a /root/staging/*.json /etc/civitas/")
    host.check_output(OWN)
    host.check_output(f"cat > /root/state.sh <<'EOF'\n{(FILES / 'state.sh').read_text()}EOF")
    yield host
    host.check_output("civitas-restore forget all; mv /root/drill.json /root/restore.json /etc/civitas/; rm -f /root/registrar")
    host.check_output(f"rm -f /run/ill; systemctl reset-failed civitas-drill || true; cat > {HOOK} <<'EOF'\n{hook()}EOF")


def hook():
    return (FILES / "anonymise.sh").read_text()


def state(host):
    """What people use: rows, files and their owners, passwords, which database and which directory it is, and what writes."""
    return host.check_output(
        f"sh /root/state.sh; ls -id /srv/documents; systemctl is-active writer; {PSQL} -c 'SELECT md5(string_agg(a::text, chr(10)"
        " ORDER BY rolname)) FROM pg_authid a' -c \"SELECT oid, datname, datallowconn FROM pg_database WHERE datname !~ '^civitas_'"
        ' ORDER BY datname"'
    )


def beside(host):
    """What restores have left beside the data."""
    return host.check_output(f"ls /srv; {PSQL} -c \"SELECT datname FROM pg_database WHERE datname ~ '^civitas_' ORDER BY 1\"")


def drill(host):
    """A drill as the timer starts it; its exit status, what it said, what is known of it, and its report."""
    since = host.check_output("date +%s.%N")
    done = host.run("systemctl start civitas-drill")
    host.check_output("journalctl --sync")
    said = host.check_output(f"journalctl --unit civitas-drill --output cat --no-pager --since @{since}")
    known = json.loads(host.run("civitas-drill status --json").stdout)["records-1"]
    return done.rc, said, known, json.loads(host.file(known["report"].replace(".md", ".json")).content_string)


def metric(host, name):
    (line,) = re.findall(rf'^{name}{{sender="records-1"}} (\S+)$', host.file("/var/lib/civitas/metrics/drill.prom").content_string, re.M)
    return float(line)


def fails(host, *words):
    """The drill says loudly that it failed, and all that people use is what it was."""
    before = state(host)
    good = int(json.loads(host.run("civitas-drill status --json").stdout).get("records-1", {}).get("success", 0))
    rc, said, known, report = drill(host)
    assert rc != 0 and "the restore drill FAILED" in said and all(one in said for one in words), said
    assert host.run("systemctl is-failed civitas-drill").stdout.strip() == "failed"
    assert known["problem"] and not report["good"] and report["replaced"] is None
    assert all(one in " ".join(report["problems"]) for one in words)
    assert "FAILED" in host.file(known["report"]).content_string.splitlines()[0]
    assert metric(host, "civitas_drill_failed") == 1 and metric(host, "civitas_drill_running") == 0
    assert metric(host, "civitas_backup_drill_time_seconds") == good and host.run("civitas-drill status").rc == 1
    assert state(host) == before and not host.file(f"{DRILL}/work").exists
    host.check_output("systemctl reset-failed civitas-drill")
    return said


def test_it_runs_every_day_and_is_not_cut_off(staging):
    assert "OnCalendar=*-*-* 04:00:00 UTC" in staging.check_output("systemctl cat civitas-drill.timer")
    assert staging.run("systemctl is-enabled civitas-drill.timer").rc == 0
    shown = staging.check_output("systemctl show --property=TimeoutStartUSec,TimeoutStopUSec,After civitas-drill")
    assert {"TimeoutStartUSec=infinity", "TimeoutStopUSec=infinity"} < set(shown.splitlines())
    assert "postgresql.service" in shown and "civitas-restore-settle.service" in shown


@pytest.mark.parametrize("file", ["db-main-records*", "manifest.json.sig"])
def test_a_set_that_was_altered_changes_nothing(staging, store, newest, file):
    (path,) = store.check_output(f"ls {STORED}/{newest}/{file}").split()
    there = beside(staging)
    # One bit, in the middle.
    flip = (
        "import sys; file = open(sys.argv[1], 'r+b'); place = file.seek(0, 2) // 2; file.seek(place); byte = file.read(1)[0];"
        " file.seek(place); file.write(bytes([byte ^ 1]))"
    )
    store.check_output(f"cp -a {path} /root/member; chmod u+w {path}; python3 -c {shlex.quote(flip)} {path}")
    try:
        words = "the store has another db-main-records" if file.startswith("db") else "the signature of the manifest is not records-1's"
        fails(staging, words)
    finally:
        store.check_output(f"cat /root/member > {path}; chmod --reference /root/member {path}; rm /root/member")
    assert beside(staging) == there


def test_a_command_that_fails_changes_nothing(staging):
    """With the new data of this host, after it went well where nobody uses them."""
    there = beside(staging)
    for where in ("civitas_restore_*", "/srv/*"):
        text = hook().replace("set -eu\n", f"set -eu\ncase ${{CIVITAS_TREE:-$PGDATABASE}} in {where}) exit 3 ;; esac\n")
        staging.check_output(f"cat > {HOOK} <<'EOF'\n{text}EOF")
        try:
            fails(staging, "/usr/local/sbin/anonymise ended with 3", "nothing was touched")
        finally:
            staging.check_output(f"cat > {HOOK} <<'EOF'\n{hook()}EOF")
        assert beside(staging) == there


def test_an_application_that_does_not_work_gets_its_data_back(staging):
    staging.check_output("touch /run/ill")
    try:
        fails(staging, "the application does not work with the new data", "all is as it was before")
    finally:
        staging.check_output("rm /run/ill")
    assert "civitas_undone_" in beside(staging)


def test_production_comes_without_names(staging, records, store, newest):
    """After all that went wrong before."""
    was, password = state(staging), staging.check_output("cut -d: -f5 /root/registrar")
    server_log = "cat /var/log/postgresql/*"
    begin, logged = staging.check_output(f"date +%s.%N; {server_log} | wc -l").split()
    # What any user of the host sees while it runs.
    staging.check_output(
        'systemd-run --quiet --collect --unit argv sh -c \'while :; do cat /proc/[0-9]*/cmdline 2> /dev/null | tr "\\0" " "; echo;'
        " sleep 0.05; done > /root/argv'"
    )
    try:
        rc, said, known, report = drill(staging)
    finally:
        staging.check_output("systemctl stop argv")
    assert rc == 0 and "was restored and is good" in said and "and is in place" in said, said
    # Rows and files are those of the set.
    rows = staging.check_output(f"{PSQL} -d records -c {shlex.quote(ROWS)}")
    assert rows == records.check_output(f"{PSQL} -d records -c {shlex.quote(ROWS)}")
    manifest = json.loads(store.file(f"{STORED}/{newest}/manifest.json").content_string)
    (database,) = next(one for one in manifest["sources"] if one["kind"] == "postgres")["databases"]
    assert rows.split("|")[0] == str(database["rows"]["public.births"]) == "20000"
    assert staging.check_output(TREE) == records.check_output(TREE)
    assert staging.check_output(f"{PSQL} -d records -c {shlex.quote(OWNERS)}") == records.check_output(
        f"{PSQL} -d records -c {shlex.quote(OWNERS)}"
    )
    # What the command takes out is gone, also from the files of the database; what was there before is beside it.
    assert staging.check_output(f"{PSQL} -d records -c 'SELECT DISTINCT name FROM births'") == ""
    assert records.check_output(f"{PSQL} -d records -c 'SELECT count(*) FROM births WHERE name <> $$$$'") == "20000"
    assert records.file("/srv/documents/a/b/7.pdf").exists and not staging.file("/srv/documents/a/b/7.pdf").exists
    file = staging.check_output(f"{PSQL} -d records -c CHECKPOINT -c \"SELECT pg_relation_filepath('births')\"")
    directory = staging.check_output(f"{PSQL} -c 'SHOW data_directory'")
    assert staging.run(f"grep -c 'child ' {directory}/{file}").stdout.strip() == "0"
    assert state(staging) != was and f"civitas_before_{report['replaced']}_records" in beside(staging)
    assert staging.check_output(f"cat /srv/documents.civitas-before-{report['replaced']}/drafts/own.txt") == "of staging"
    # The application logs in with the password of staging, reads and writes; what writes runs.
    asked = "PGPASSFILE=/root/registrar psql -w -h 127.0.0.1 -U registrar -d records -XAtqc"
    assert staging.check_output(f"{asked} 'SELECT count(*) FROM births'") == "20000"
    staging.check_output(f"{asked} \"INSERT INTO births VALUES (0, '', '2026-01-01')\"")
    assert staging.service("writer").is_running
    # What was measured.
    assert report["good"] and report["set"] == newest and report["drilled_on"] == "staging-1" and report["environment"] == "production"
    assert set(report["seconds"]) == {"fetch", "verify", "restore", "check"} and 0 < report["recovery_time_seconds"] < 300
    assert 0 <= report["recovery_point_seconds"] < 3600
    (shown,) = report["sources"][0]["databases"]
    assert (shown["rows"], shown["logins"]) == (20001, ["registrar"])
    text = staging.file(known["report"]).content_string
    assert "# Restore drill of records-1: good" in text and newest in text and "took the place of the data of staging-1" in text
    assert metric(staging, "civitas_drill_failed") == 0 and metric(staging, "civitas_drill_running") == 0
    assert metric(staging, "civitas_backup_drill_time_seconds") >= int(float(begin))
    assert metric(staging, "civitas_drill_recovery_point_seconds") == report["recovery_point_seconds"]
    assert metric(staging, "civitas_drill_seconds") == report["recovery_time_seconds"]
    assert staging.run("civitas-drill status").rc == 0 and staging.run("civitas-restore status").rc == 0
    # Neither a key, nor a password, nor a name.
    seen = staging.check_output("cat /root/argv; rm /root/argv")
    assert "/etc/civitas/drill/read-records-1" in seen and HOOK in seen and "civitas-drill run" in seen
    staging.check_output("journalctl --sync")
    logs = staging.check_output(
        f"journalctl --no-pager --output cat --since @{begin}; {server_log} | tail -n +{int(logged) + 1}; cat {DRILL}/reports/*"
    )
    lines = staging.check_output("cat /etc/civitas/drill/identity /etc/civitas/drill/read-records-1").splitlines()
    secret = [line for line in lines if line.startswith("AGE-SECRET-KEY") or (len(line) > 40 and line[0] not in "#-")]
    assert len(secret) > 3
    for one in (*secret, password, "AGE-SECRET-KEY"):
        assert one not in seen and one not in logs
    assert "child " not in logs and "child " not in seen
    left = staging.run("grep -rlaE 'AGE-SECRET-KEY|OPENSSH PRIVATE|child [0-9a-f]' /var/lib/civitas /run/civitas* /tmp /var/tmp")
    assert left.stdout == "", left.stdout


def test_the_next_day(staging, records):
    """What staging has written since is put aside, and a person gets it back."""
    rc, said, _known, report = drill(staging)
    assert rc == 0, said
    rows = f"{PSQL} -d records -c {shlex.quote(ROWS)}"
    assert staging.check_output(rows) == records.check_output(rows)
    assert json.loads(staging.check_output("civitas-restore status --json"))["last"]["when"] == report["replaced"]
    staging.check_output("civitas-restore undo")
    assert staging.check_output(f"{PSQL} -d records -c 'SELECT count(*) FROM births'") == "20001"
