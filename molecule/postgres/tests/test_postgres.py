# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server lets in, what it refuses, and what it runs with."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

PASSWORD = "Canary-7781'\"\\ x"
VERSION = {"12": "15", "13": "17", "22.04": "14", "24.04": "16"}


@pytest.fixture
def version(host):
    return VERSION[host.system_info.release]


@pytest.fixture
def bridge(host):
    """The address that the server was told of before it existed."""
    assert host.run("ip address replace 172.30.0.1/32 dev lo").rc == 0
    return "172.30.0.1"


def connect(machine, query="SELECT current_user", password=PASSWORD, **parameters):
    given = {"host": "database.internal", "hostaddr": "127.0.0.1", "user": "records", "dbname": "records", "sslmode": "verify-full"}
    given["sslrootcert"] = "/etc/ssl/test/ca.pem"
    given.update(parameters)
    settings = " ".join(f"{name}={value}" for name, value in given.items())
    return machine.run(f"PGPASSWORD={shlex.quote(password)} psql -XAt {shlex.quote(settings)} -c {shlex.quote(query)}")


def ask(host, query, database="postgres"):
    done = host.run(f"runuser -u postgres -- psql -XAt -d {database} -c {shlex.quote(query)}")
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


def test_the_owner_connects_over_verified_tls_with_scram(host):
    done = connect(host, "SELECT version, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert (done.rc, done.stdout.strip()) == (0, "TLSv1.3|records"), done.stderr
    # Channel binding is a part of SCRAM-SHA-256-PLUS only: the client would refuse any other method.
    assert connect(host, channel_binding="require").rc == 0


def test_the_owner_connects_through_an_address_made_after_the_start(host, bridge):
    done = connect(host, "SELECT inet_client_addr()", hostaddr=bridge)
    assert (done.rc, done.stdout.strip()) == (0, bridge), done.stderr


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"sslmode": "disable"}, "no encryption"),
        ({"password": "wrong"}, "password authentication failed"),
        ({"password": ""}, "no password supplied"),
        ({"sslrootcert": "/etc/ssl/test/other-ca.pem"}, "certificate verify failed"),
        ({"host": "localhost"}, "does not match host name"),
        ({"dbname": "postgres"}, "no pg_hba.conf entry"),
        ({"dbname": "other-db"}, "no pg_hba.conf entry"),
        ({"dbname": "other-db", "user": "other"}, "password authentication failed"),
        ({"user": "postgres", "dbname": "postgres"}, "no pg_hba.conf entry"),
        ({"user": "readers"}, "no pg_hba.conf entry"),
        ({"ssl_max_protocol_version": "TLSv1.1", "ssl_min_protocol_version": "TLSv1"}, "SSL error"),
    ],
)
def test_everything_else_is_refused(host, parameters, reason):
    done = connect(host, **parameters)
    assert done.rc == 2
    assert reason in done.stderr


def test_a_system_user_is_no_database_user(host):
    done = host.run("runuser -u nobody -- psql -XAt -U records -d records -c 'SELECT 1'")
    assert done.rc == 2
    assert "Peer authentication failed" in done.stderr


def test_only_the_owner_may_connect_even_past_the_access_rules(host):
    pairs = "unnest(ARRAY['records', 'other']) r, unnest(ARRAY['records', 'other-db']) d"
    query = f"SELECT r, d, has_database_privilege(r, d, 'CONNECT') FROM {pairs} ORDER BY 1, 2"
    assert ask(host, query).split() == ["other|other-db|t", "other|records|f", "records|other-db|f", "records|records|t"]
    query = "SELECT has_schema_privilege('other', 'public', 'CREATE'), has_schema_privilege('records', 'public', 'CREATE')"
    assert ask(host, query, "records") == "f|t"


def test_roles_are_as_asked_for(host):
    query = "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolconnlimit FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1"
    assert ask(host, query).split() == ["other|t|f|f|-1", "postgres|t|t|t|-1", "readers|f|f|f|-1", "records|t|f|f|20"]
    assert ask(host, "SELECT pg_has_role('records', 'readers', 'MEMBER'), pg_has_role('other', 'readers', 'MEMBER')") == "t|f"


def test_passwords_are_stored_as_scram_only(host):
    assert ask(host, "SELECT left(rolpassword, 18) FROM pg_authid WHERE rolpassword IS NOT NULL").split() == ["SCRAM-SHA-256$4096"] * 2


def test_databases_have_their_owner_encoding_order_and_extensions(host):
    columns = "datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate"
    found = ask(host, f"SELECT {columns} FROM pg_database WHERE datname ~ '^(rec|oth)' ORDER BY 1")
    assert found.split() == ["other-db|other|UTF8|C.UTF-8", "records|records|UTF8|C.UTF-8"]
    assert set(ask(host, "SELECT extname FROM pg_extension", "records").split()) == {"plpgsql", "pg_trgm", "cube", "earthdistance"}
    query = "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'pg_trgm'"
    assert ask(host, query, "records") == "public"


def test_the_owner_can_work(host):
    work = "BEGIN; CREATE TABLE t (a text); INSERT INTO t VALUES ('häß'); SELECT a FROM t; ROLLBACK"
    assert "häß" in connect(host, work).stdout


def test_pages_have_checksums(host):
    assert ask(host, "SHOW data_checksums") == "on"


def test_it_listens_where_it_is_told_and_nowhere_else(host):
    sockets = re.findall(r"(\S+):5432\s", host.run("ss -Hltn").stdout)
    assert sorted(sockets) == ["127.0.0.1", "172.30.0.1"]


def test_the_size_of_the_host_decides(host):
    memory = int(re.search(r"MemTotal:\s+(\d+)", host.file("/proc/meminfo").content_string)[1]) // 1024
    buffers = int(ask(host, "SELECT setting::bigint * 8 / 1024 FROM pg_settings WHERE name = 'shared_buffers'"))
    assert memory / 8 * 0.93 <= buffers <= memory / 8 or buffers == 16384
    assert ask(host, "SHOW max_connections") == "100"
    assert ask(host, "SHOW random_page_cost") == "1.1"


def test_settings_of_ones_own_are_in_force_and_nothing_waits_for_a_restart(host):
    assert ask(host, "SHOW shared_preload_libraries") == "pg_stat_statements"
    assert ask(host, "SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert ask(host, "SELECT setting FROM pg_file_settings WHERE name = 'application_name'") == r"it's a \ test"


def test_files_belong_to_the_server_only(host, version):
    for name in ("pg_hba.conf", "conf.d/civitas.conf"):
        file = host.file(f"/etc/postgresql/{version}/main/{name}")
        assert (file.user, file.group, oct(file.mode)) == ("postgres", "postgres", "0o640")


def test_the_service_runs_and_starts_at_boot(host, version):
    assert host.service("postgresql").is_enabled
    unit = f"postgresql@{version}-main.service"
    shown = host.run(f"systemctl show --property=ActiveState,SubState,UnitFileState,Restart {unit}").stdout.split()
    assert sorted(shown) == ["ActiveState=active", "Restart=on-failure", "SubState=running", "UnitFileState=enabled-runtime"]


def test_no_password_in_any_log(host):
    found = host.run("journalctl --no-pager | cat - /var/log/postgresql/*.log")
    assert "connection authorized: user=records" in found.stdout
    assert "Canary" not in found.stdout
    # The server logs every statement here, but not those with verifiers.
    assert "SCRAM-SHA-256$" not in found.stdout


def test_a_second_run_is_short_and_shows_no_password(host):
    """A run that sets a password again, with the greatest verbosity, watched on the host; then one that has nothing to do."""
    host.run("rm -f /tmp/stop /tmp/seen; runuser -u postgres -- psql -c 'ALTER ROLE other PASSWORD NULL'")
    watch = "while [ ! -e /tmp/stop ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; done > /tmp/seen 2>/dev/null"
    host.run(f"nohup setsid sh -c {shlex.quote(watch)} >/dev/null 2>&1 &")
    first = run_role(host, "-vvvv")
    host.run("touch /tmp/stop")
    assert "action: changed" in first
    seen = host.file("/tmp/seen").content
    assert b"postgres" in seen
    assert b"Canary" not in seen
    assert "Canary" not in first

    second = run_role(host, "-vvv")
    assert re.search(r"changed=0 .*failed=0", second)
    calls = len(re.findall(r"^<[^>]+> EXEC ", second, re.MULTILINE))
    assert 0 < calls <= 9, second


def run_role(host, verbosity):
    scenario = os.environ["MOLECULE_SCENARIO_DIRECTORY"]
    name = host.backend.get_hostname()
    command = [os.path.join(os.path.dirname(sys.executable), "ansible-playbook"), "-i", os.environ["MOLECULE_INVENTORY_FILE"]]
    command += ["--limit", name, "--diff", verbosity, f"{scenario}/converge.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout + done.stderr
