# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may be shown of logs whose lines hold what people wrote: PostgreSQL's, nginx', and entries of the journal.

Only what is known to be the server's own words stays. A message that is not known is replaced, with its time, severity and code kept.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import datetime
import json
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._redaction import harmless, mark

# --- PostgreSQL -------------------------------------------------------------------------------------------------------

_SEVERITY = re.compile(
    r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[^\n:]|:(?! )){0,200}?)\b(PANIC|FATAL|ERROR|WARNING|NOTICE|INFO|LOG|DEBUG[1-5]?):  ?"
)
# What the server says of itself begins like this, with the severities that nothing but the server uses.
_OF_ITSELF = re.compile(
    r"(?:aborting (?:any|startup)|all server processes|archive (?:command|recovery|mode)|archived |archiver "
    r"|automatic (?:vacuum|analyze)|autovacuum|background worker|backup|base backup|cancel|certificate authentication"
    r"|checkpoint|consistent recovery|connection (?:received|auth|to)|configuration file"
    r"|could not (?:accept|access|bind|connect|create|extend|flush|fork|fsync|load|locate|map|open|read|receive"
    r"|remove|rename|resize|restore|send|set|stat|translate|truncate|write)"
    r"|data directory|database files|database system|database \"|disconnection: |duration: |ending |entering standby|failed to"
    r"|hash|incomplete |invalid (?:length of|magic|primary|record|resource|checkpoint)|invalidating|last completed"
    r"|listening on|logical |lost connection|no pg_hba|no space|number of|out of (?:memory|shared)|parameter \""
    r"|password authentication|peer authentication|performing|pg_hba|provided user name|process \d|received |recovery |redo "
    r"|remaining connection|replication |restartpoint|restored |role \"|selected |server process|shutting down|skipping "
    r"|sorry, too many|SSL |SSPI|started |starting |startup process|statement: |still waiting|streaming|temporary file"
    r"|terminat|the database system|time zone|too many|unexpected EOF|unsupported|using |waiting |execute )"
)
# What it says of statements. A function can say anything with these severities, so these are whole sentences: %n a name that the schema
# gave, %i the same without quotes, %v a value, %d a number.
_SENTENCES = (
    *("relation %n does not exist", "column %n does not exist", "column %i does not exist", "column %n of relation %n does not exist"),
    *("schema %n does not exist", "database %n does not exist", "role %n does not exist", "type %n does not exist"),
    *(
        "extension %n does not exist",
        "sequence %n does not exist",
        "constraint %n of relation %n does not exist",
        "index %n does not exist",
    ),
    *("relation %n already exists", "column %n of relation %n already exists", "role %n already exists", "database %n already exists"),
    *("schema %n already exists", "type %n already exists", "extension %n already exists", "constraint %n for relation %n already exists"),
    *("extension %n is not available", "permission denied for %w %i", "permission denied to create %w", "must be owner of %w %i"),
    *("permission denied to create extension %n", "must be superuser", "duplicate key value violates unique constraint %n"),
    *("could not create unique index %n", "null value in column %n of relation %n violates not-null constraint"),
    *("null value in column %n violates not-null constraint", "insert or update on table %n violates foreign key constraint %n"),
    *(
        "update or delete on table %n violates foreign key constraint %n on table %n",
        "new row for relation %n violates check constraint %n",
    ),
    *("new row violates row-level security policy for table %n", "check constraint %n of relation %n is violated by some row"),
    *(
        "value too long for type %t",
        "invalid input syntax for type %t: %v",
        "invalid input syntax for type %t",
        "invalid input value for enum %i: %v",
    ),
    *("numeric field overflow", "integer out of range", "bigint out of range", "smallint out of range", "division by zero"),
    *("value %v is out of range for type %t", "date/time field value out of range: %v", "invalid byte sequence for encoding %n: %v"),
    *("syntax error at or near %v", "syntax error at end of input", "unterminated quoted string at or near %v", "deadlock detected"),
    *("canceling statement due to %w", "canceling autovacuum task", "could not serialize access due to %w"),
    *("current transaction is aborted, commands ignored until end of transaction block", "could not obtain lock on relation %n"),
    *("could not obtain lock on row in relation %n", "out of memory", "out of shared memory", "cached plan must not change result type"),
    *("prepared statement %n already exists", "prepared statement %n does not exist", "cannot execute %w in a read-only transaction"),
    *("there is no unique constraint matching given keys for referenced table %n", "relation %n already exists, skipping"),
    *("there is already a transaction in progress", "there is no transaction in progress", "function %i%p does not exist"),
    *("operator does not exist: %t", "missing chunk number %d for toast value %d in %i", "invalid page in block %d of relation %i"),
    *("could not %w file %n: %s", "could not read block %d in file %n: %s", "could not resize shared memory segment %n to %d bytes: %s"),
    *("terminating connection due to %w", "subquery must return only one column", "column reference %n is ambiguous"),
    *("table %n does not exist, skipping", "schema %n already exists, skipping", "extension %n already exists, skipping"),
    *(
        "database %n has a collation version mismatch",
        "could not open extension control file %n: %s",
        "unrecognized configuration parameter %n",
    ),
)
_HOLES = {
    "n": r"\"[^\"]{1,127}\"",
    "i": r"[A-Za-z_][\w.]{0,127}",
    "v": r"(?P<value>.*)",
    "d": r"\d+",
    "t": r"[A-Za-z_\"][\w \[\](),.\"=<>]{0,127}",
    "p": r"\([\w \[\](),.\"]{0,512}\)",
    "w": r"[A-Za-z][A-Za-z /-]{0,100}",
    "s": r"[A-Z][A-Za-z /-]{0,100}",
}


def _sentence(text: str) -> t.Pattern[str]:
    parts = re.split(r"%(.)", text)
    pattern = "".join(_HOLES[part] if index % 2 else re.escape(part) for index, part in enumerate(parts))
    return re.compile(rf"{pattern}(?: at character \d+)?\Z")


_KNOWN = [_sentence(text) for text in _SENTENCES]
# What a name stands behind that the schema or the server gave; anything else in quotes may be a value.
_NAMED = re.compile(
    r"(?i)(?:relation|column|constraint|database|role|user|table|index|schema|function|extension|parameter|file|directory|tablespace"
    r"|publication|subscription|slot|sequence|type|trigger|view|worker|language|operator|encoding|address|entry for host|host|library"
    r"|application_name|on table|of relation|process|timeline|segment|configuration|command|socket)[ =]\Z"
)
_STATEMENT = re.compile(
    r"(?i)\b(statement|execute [^:]{1,64}|parse [^:]{1,64}|bind [^:]{1,64}|fastpath function call|query|parameters?): .*"
)
_QUOTED = re.compile(r"\"[^\"]*\"?|'[^']*'?|\([^()]*\)=\([^()]*\)?")


def postgres(text: str) -> str:
    """Lines of PostgreSQL's log without statements, details and values.

    What continues a line, and what stands before the first whole one, is left out.
    """
    found = []
    for line in text.split("\n"):
        match = _SEVERITY.match(line)
        if match:
            told = _of_itself if match.group(2) in ("LOG", "FATAL", "PANIC") else _of_statement
            found.append(f"{match.group()}{told(line[match.end() :])}\n")
    return "".join(found)


def _of_itself(message: str) -> str:
    if not _OF_ITSELF.match(message):
        return _of_statement(message)
    message = _STATEMENT.sub(lambda match: f"{match.group(1)}: {mark('value')}", message)

    def replace(match: t.Match[str]) -> str:
        return match.group() if _NAMED.search(message[: match.start()]) and len(match.group()) < 130 else f'"{mark("value")}"'

    return _QUOTED.sub(replace, message)


def _of_statement(message: str) -> str:
    for pattern in _KNOWN:
        match = pattern.match(message)
        if match:
            return message[: match.start("value")] + mark("value") if "value" in pattern.groupindex else message
    return mark("message")


# --- nginx ------------------------------------------------------------------------------------------------------------

_REQUEST = re.compile(
    r"(, (?:request|referrer|subrequest): \")(?:([A-Z]{1,16}) )?([^\n]*?)( HTTP/[0-9.]{1,4})?"
    r"(?=\"?(?:, (?:subrequest|upstream|host|referrer): \"|$))"
)
_UPSTREAM = re.compile(r"(, upstream: \"[a-z]{1,16}://[^/\"\n]{0,300})[^\"\n]*")
_FREE = re.compile(r"\"[^\"\n]*\"?")
_OWN_PATH = re.compile(r"\"/(?:etc|run|usr|var/(?:lib|log|cache)/(?:nginx|civitas))/[A-Za-z0-9_./-]*\"\Z")
_TAIL = re.compile(r", (?:client|server|request|subrequest|upstream|host|referrer): ")


def nginx(text: str) -> str:
    """Lines of nginx' error log without paths and what else requests brought."""
    return "\n".join(_of_nginx(line) for line in text.split("\n"))


def _of_nginx(line: str) -> str:
    tail = _TAIL.search(line)
    at = tail.start() if tail else len(line)

    def own(match: t.Match[str]) -> str:
        return match.group() if _OWN_PATH.match(match.group()) else f'"{mark("value")}"'

    message, rest = _FREE.sub(own, line[:at]), line[at:]

    def request(match: t.Match[str]) -> str:
        method = f"{match.group(2)} " if match.group(2) else ""
        return f"{match.group(1)}{method}{mark('path')}{match.group(4) or ''}"

    rest = _REQUEST.sub(request, rest)
    return message + _UPSTREAM.sub(lambda match: match.group(1) + mark("path"), rest)


# --- the journal ------------------------------------------------------------------------------------------------------

_PRIORITIES = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
FIELDS = (
    *("MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "_COMM", "_PID", "_SYSTEMD_UNIT", "UNIT", "CONTAINER_ID", "CONTAINER_NAME", "_TRANSPORT"),
)


def journal(data: bytes, applications: bool = False) -> t.Optional[str]:
    """One entry of C(journalctl --output=json) as a line, or as several when its message has several.

    Args:
        applications: whether what containers wrote is shown.

    Returns:
        V(None) for what is not shown: what containers wrote, and what is no entry.
    """
    try:
        entry = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or ((entry.get("CONTAINER_ID") or entry.get("CONTAINER_NAME")) and not applications):
        return None
    message = _message(entry.get("MESSAGE"))
    program = str(entry.get("SYSLOG_IDENTIFIER") or entry.get("_COMM") or "kernel")
    if entry.get("_COMM") == "postgres" or program == "postgres":
        message = postgres(message).rstrip("\n") or mark("message")
    elif entry.get("_COMM") == "nginx" or program == "nginx":
        message = nginx(message)
    try:
        moment = datetime.datetime.fromtimestamp(int(entry.get("__REALTIME_TIMESTAMP", 0)) / 1e6, datetime.timezone.utc)
        priority = _PRIORITIES[int(entry.get("PRIORITY", 6))]
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
    pid = f"[{entry['_PID']}]" if entry.get("_PID") else ""
    before = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z {priority} {program}{pid}: "
    return before + message.replace("\n", f"\n{before}") + "\n"


def _message(value: t.Any) -> str:
    """A message of the journal: text, or numbers of bytes when it is none, or several."""
    if isinstance(value, str):
        return harmless(value.encode("utf-8", "surrogatepass")).rstrip("\n")
    if isinstance(value, list) and all(isinstance(item, int) and 0 <= item < 256 for item in value):
        return harmless(bytes(value)).rstrip("\n")
    return " ".join(map(_message, value)) if isinstance(value, list) else ""
