# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured of the PostgreSQL servers of a host: whether they answer, put their WAL away, and are followed by their replicas.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import Sample, sample

TITLES = {
    "civitas_postgres_up": "1 when the server answers.",
    "civitas_postgres_connections_ratio": "How many of the connections that applications can have are in use.",
    "civitas_postgres_archive_failing": "1 when the last attempt to put a piece of the WAL away failed; absent when nothing is put away.",
    "civitas_postgres_archive_waiting": "How many pieces of the WAL wait to be put away; absent when nothing is put away.",
    "civitas_postgres_archive_discarding": "1 when the archive command keeps nothing of the WAL; absent when nothing is put away.",
    "civitas_postgres_archive_missing": "How many pieces of the WAL are missing between those in the directory of the archive command.",
    "civitas_postgres_replication_lag_seconds": "How far a replica is behind, as its primary sees it and as it sees itself.",
    "civitas_postgres_replication_lag_bytes": "How much of the WAL a replica has not replayed, as its primary sees it.",
    "civitas_postgres_slot_retained_bytes": "How much of the WAL is kept for a replica that is not connected.",
    "civitas_postgres_transactions_used_ratio": "How many of the numbers of transactions are used up; at 1 nothing is written any more.",
}
DIRECTORY = "/run/postgresql"
PREFIX = ".s.PGSQL."
# Its own sight of itself.
ITSELF = "this server"
# Without a session of PAM, which would be a line in the journal every minute.
_AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
# One row, so that all of it is of one moment. What began a base backup is no replica. A replica that gets files alone has replayed all
# there are when it waits for the next one: how old the last transaction is says nothing then, as the primary may be quiet.
# An archive command that is not even told of the piece, by its path or name, can only be one that keeps nothing. One that is empty lets the
# pieces wait; a library takes the place of the command. Where it names a directory of this host, as 'cp %p /srv/wal/%f' does, that can be
# looked into; what programs with archives of their own keep is not seen.
QUERY = r"""
SELECT json_build_object(
  'connections', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()),
  'connections_allowed', current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int,
  'archiving', current_setting('archive_mode') <> 'off',
  'archive_failing', (SELECT coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) FROM pg_stat_archiver),
  'archive_waiting', (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
  'archive_discarding', coalesce(current_setting('archive_library', true), '') = '' AND current_setting('archive_command') <> ''
    AND (current_setting('archive_command') !~ '%[pf]' OR current_setting('archive_command') ~ '^\s*((/usr)?/bin/)?(true|:)(\s|$)'),
  'archive_directory', CASE WHEN coalesce(current_setting('archive_library', true), '') = ''
    THEN substring(current_setting('archive_command') FROM '(?:^|[\s"''])(/[^\s"'';|&%]+)/%f') END,
  'segment_bytes', (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
  'replicas', (SELECT coalesce(json_agg(json_build_object(
      'name', concat_ws(' at ', nullif(application_name, ''), client_addr),
      'seconds', coalesce(extract(epoch FROM replay_lag), 0),
      'bytes', greatest(0, pg_wal_lsn_diff(here.lsn, replay_lsn)))), '[]')
    FROM pg_stat_replication WHERE state IN ('streaming', 'catchup') AND replay_lsn IS NOT NULL),
  'behind', CASE WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
    WHEN current_setting('primary_conninfo') = '' AND EXISTS (
      SELECT FROM pg_stat_activity WHERE backend_type = 'startup' AND wait_event = 'RecoveryRetrieveRetryInterval') THEN 0
    ELSE extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END,
  'slots', (SELECT coalesce(json_agg(json_build_object('name', slot_name, 'bytes', pg_wal_lsn_diff(here.lsn, restart_lsn))), '[]')
    FROM pg_replication_slots WHERE NOT active AND restart_lsn IS NOT NULL),
  'transactions', (SELECT max(age(datfrozenxid)) FROM pg_database))
FROM (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) AS here
"""
# Rows that are older than that would be taken for ones of the future.
_TRANSACTIONS = 2.0**31
# A server that does not answer by then does not answer; nothing that it logs by order of others is logged for this.
ENVIRONMENT = {
    "PGCONNECT_TIMEOUT": "3",
    "PGAPPNAME": "civitas-metrics",
    "PGOPTIONS": "-c statement_timeout=3s -c log_statement=none -c log_min_duration_statement=-1",
}


# A piece as it is, or compressed; not one that is only half written, and no label of a base backup.
_PIECE = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(?:\.(?!partial|tmp)\w+)?\Z")


def ports(names: t.Iterable[str]) -> t.List[str]:
    """The ports of the servers whose sockets have these names, in order."""
    return sorted((name[len(PREFIX) :] for name in names if name.startswith(PREFIX) and name[len(PREFIX) :].isdigit()), key=int)


def command(port: str) -> t.List[str]:
    """What asks a server; see also C(ENVIRONMENT)."""
    return [*_AS_POSTGRES, "psql", "-XAtq", "-h", DIRECTORY, "-p", port, "-d", "postgres", "-c", QUERY]


def archive_command(answer: str) -> t.Optional[t.List[str]]:
    """What lists the directory that a server puts its WAL into; V(None) where it names none. Raises ValueError, KeyError, TypeError."""
    found = json.loads(answer)
    directory = found["archive_directory"] if found["archiving"] else None
    # As the one that writes there, and one after the other as they come: there may be very many.
    return [*_AS_POSTGRES, "ls", "-U", "--escape", "--", directory] if directory else None


def missing_pieces(names: t.Iterable[str], segment_bytes: int) -> int:
    """How many pieces of the WAL are missing between the oldest and the newest file of an archive.

    After a promotion the numbers go on in a new timeline. Pieces that the old one has beyond its beginning are of a server that went on
    alone, and nobody needs them.
    """
    each = 0x100000000 // segment_bytes
    timelines: t.Dict[int, t.Set[int]] = {}
    for name in names:
        piece = _PIECE.match(name)
        if piece:
            timeline, high, low = (int(digits, 16) for digits in piece.groups())
            timelines.setdefault(timeline, set()).add(high * each + low)
    missing = 0
    end: t.Optional[int] = None
    for timeline in sorted(timelines, reverse=True):
        numbers = timelines[timeline]
        first = min(numbers)
        end = max(numbers) + 1 if end is None else end
        missing += max(0, end - first) - sum(number < end for number in numbers)
        end = min(end, first)
    return missing


def server(port: str, answer: t.Optional[str], archived: t.Optional[t.Sequence[str]] = None) -> t.Iterator[Sample]:
    """What a server answered, or V(None) for one that did not.

    C(archived) are the names in the directory that it puts its WAL into, V(None) where nobody can look. Raises ValueError, KeyError,
    TypeError.
    """
    yield sample("civitas_postgres_up", answer is not None, port=port)
    if answer is None:
        return
    found = json.loads(answer)
    yield sample("civitas_postgres_connections_ratio", found["connections"] / max(1, found["connections_allowed"]), port=port)
    if found["archiving"]:
        yield sample("civitas_postgres_archive_failing", bool(found["archive_failing"]), port=port)
        yield sample("civitas_postgres_archive_waiting", found["archive_waiting"], port=port)
        yield sample("civitas_postgres_archive_discarding", bool(found["archive_discarding"]), port=port)
    if archived is not None:
        yield sample("civitas_postgres_archive_missing", missing_pieces(archived, found["segment_bytes"]), port=port)
    for replica in found["replicas"]:
        yield sample("civitas_postgres_replication_lag_seconds", replica["seconds"], port=port, replica=replica["name"])
        yield sample("civitas_postgres_replication_lag_bytes", replica["bytes"], port=port, replica=replica["name"])
    if found["behind"] is not None:
        yield sample("civitas_postgres_replication_lag_seconds", max(0, found["behind"]), port=port, replica=ITSELF)
    for slot in found["slots"]:
        yield sample("civitas_postgres_slot_retained_bytes", max(0, slot["bytes"]), port=port, slot=slot["name"])
    yield sample("civitas_postgres_transactions_used_ratio", found["transactions"] / _TRANSACTIONS, port=port)
