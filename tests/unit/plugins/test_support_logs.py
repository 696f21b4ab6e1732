# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a server's log is the server's own, and that nothing that people wrote goes with it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._support_logs import journal, nginx, postgres

AT = "2026-11-22 08:03:46.538 UTC [6826] demo@demo "
KEPT = [
    "LOG:  checkpoint complete: wrote 1013 buffers (0.3%); 0 WAL file(s) added",
    'LOG:  listening on Unix socket "/var/run/postgresql/.s.PGSQL.5432"',
    'FATAL:  password authentication failed for user "demo"',
    'FATAL:  database "other" does not exist',
    'FATAL:  no pg_hba.conf entry for host "172.30.0.9", user "demo", database "demo", no encryption',
    'ERROR:  duplicate key value violates unique constraint "children_pkey"',
    'ERROR:  relation "nothing" does not exist at character 15',
    'ERROR:  null value in column "name" of relation "children" violates not-null constraint',
    "ERROR:  value too long for type character varying(10)",
    "ERROR:  permission denied for table children",
    "ERROR:  canceling statement due to statement timeout",
    "ERROR:  deadlock detected",
    'ERROR:  could not extend file "base/16385/16390": No space left on device',
    "ERROR:  function lower(integer) does not exist at character 8",
    'PANIC:  could not write to file "pg_wal/xlogtemp.1": No space left on device',
]


@pytest.mark.parametrize("line", KEPT)
def test_what_the_database_says_of_itself_stays(line):
    assert postgres(f"{AT}{line}\n") == f"{AT}{line}\n"


CHILD = "Amina Okonkwo"
CUT = [
    f"ERROR:  the child {CHILD} is registered",
    f"ERROR:  invalid child name {CHILD}",
    f"WARNING:  column {CHILD} is odd",
    f"NOTICE:  relation {CHILD} does not exist",
    f'ERROR:  invalid input syntax for type integer: "{CHILD}"',
    f'ERROR:  invalid input value for enum status: "{CHILD}"',
    f'ERROR:  date/time field value out of range: "{CHILD}"',
    f'ERROR:  syntax error at or near "{CHILD}" at character 9',
    f"LOG:  duration: 1002.123 ms  statement: SELECT * FROM children WHERE name = '{CHILD}'",
    f"LOG:  duration: 1002.123 ms  execute <unnamed>: SELECT '{CHILD}'",
    f"LOG:  statement: SELECT '{CHILD}'",
    f"LOG:  execute fetch from S_1/C_2: SELECT '{CHILD}'",
    f"DETAIL:  Key (name)=({CHILD}) already exists.",
    f"STATEMENT:  INSERT INTO children VALUES ('{CHILD}')",
    f"CONTEXT:  COPY children, line 1, column name: {CHILD}",
    f"HINT:  Perhaps you meant {CHILD}.",
    f"DETAIL:  parameters: $1 = '{CHILD}'",
    f"QUERY:  SELECT '{CHILD}'",
    f"LOG:  child {CHILD} was written by RAISE LOG",
    f'LOG:  started with "{CHILD}"',
]


@pytest.mark.parametrize("line", CUT)
def test_values_and_statements_do_not_leave_the_database(line):
    shown = postgres(f"{AT}{line}\n\tand {CHILD}\n{AT}LOG:  shutting down\n")
    assert CHILD not in shown
    assert "Amina" not in shown
    assert shown.endswith(f"{AT}LOG:  shutting down\n")
    severity = line.split(":")[0]
    if severity in ("ERROR", "WARNING", "NOTICE", "LOG"):
        assert shown.startswith(f"{AT}{severity}:  ")
        assert "[redacted: " in shown


def test_what_stands_before_the_first_whole_line_is_left_out():
    assert postgres(f"me = '{CHILD}'\n\t{CHILD}\n{AT}LOG:  shutting down\n") == f"{AT}LOG:  shutting down\n"


NGINX = (
    "2026/11/22 08:00:00 [error] 812#812: *5 connect() failed (111: Connection refused) while connecting to upstream, client: 192.0.2.7, "
    'server: records.example.org, request: "GET /v1/children/amina?name=okonkwo HTTP/1.1", '
    'upstream: "http://127.0.0.1:8888/v1/children/amina?name=okonkwo", host: "records.example.org", referrer: "https://x/amina"\n'
)


def test_the_edge_tells_faults_without_paths():
    shown = nginx(NGINX)
    assert "amina" not in shown
    assert "okonkwo" not in shown
    for word in (
        "(111: Connection refused)",
        "GET [redacted: path] HTTP/1.1",
        "http://127.0.0.1:8888[redacted: path]",
        "client: 192.0.2.7",
    ):
        assert word in shown
    for line in (
        '2026/11/22 08:00:00 [error] 8#8: *5 open() "/srv/files/amina.pdf" failed (2: No), client: 192.0.2.7, request: "GET /amina"',
        '2026/11/22 08:00:00 [info] 8#8: *5 client sent invalid header line: "X-Name: amina" while reading, client: 192.0.2.7',
        '2026/11/22 08:00:00 [error] 8#8: *5 broken, client: 192.0.2.7, request: "GET /a"b" amina HTTP/1.1", host: "x"',
        '2026/11/22 08:00:00 [error] 8#8: *5 broken, client: 192.0.2.7, request: "amina',
    ):
        assert "amina" not in nginx(line)
    own = '2026/11/22 08:00:00 [emerg] 8#8: cannot load certificate "/etc/civitas/certificates/edge/fullchain.pem": no such file\n'
    assert nginx(own) == own


def entry(**fields: object) -> bytes:
    return json.dumps(
        {"__REALTIME_TIMESTAMP": "1795335255041598", "PRIORITY": "4", "SYSLOG_IDENTIFIER": "app", "_PID": "7", **fields}
    ).encode()


def test_an_entry_of_the_journal_is_a_line():
    assert journal(entry(MESSAGE="it began")) == "2026-11-22T08:14:15.041Z warning app[7]: it began\n"
    assert journal(entry(MESSAGE=[105, 116, 255, 27])) == "2026-11-22T08:14:15.041Z warning app[7]: it\\xff\\x1b\n"
    several = journal(entry(MESSAGE="one\ntwo"))
    assert several == "2026-11-22T08:14:15.041Z warning app[7]: one\n2026-11-22T08:14:15.041Z warning app[7]: two\n"
    assert journal(entry(MESSAGE=None)) == "2026-11-22T08:14:15.041Z warning app[7]: \n"


def test_what_containers_wrote_is_shown_only_when_asked_for():
    written = entry(MESSAGE=CHILD, CONTAINER_NAME="demo-web-1")
    assert journal(written) is None
    assert CHILD in (journal(written, applications=True) or "")


def test_the_database_and_the_edge_are_judged_in_the_journal_as_well():
    assert CHILD not in (journal(entry(MESSAGE=f"{AT}ERROR:  no {CHILD}", _COMM="postgres")) or "")
    assert CHILD not in (journal(entry(MESSAGE=f"DETAIL:  {CHILD}", SYSLOG_IDENTIFIER="postgres")) or "")
    assert "amina" not in (journal(entry(MESSAGE=NGINX, SYSLOG_IDENTIFIER="nginx")) or "")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b'{"PRIORITY": "x"}', b'{"__REALTIME_TIMESTAMP": "1e99"}', b"[" * 100_000]
)
def test_what_is_no_entry_is_passed_over(data):
    assert journal(data) is None
