# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program civitas-import: reads archives that OpenCRVS and Primero made before this host was managed by this collection.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import ArchiveError, read_passphrase
from ansible_collections.civitas.hosting.plugins.module_utils._import_database import Server, restore
from ansible_collections.civitas.hosting.plugins.module_utils._import_extract import extract
from ansible_collections.civitas.hosting.plugins.module_utils._import_set import ATTACHMENT, Archive, Report, look, recognize

# Lines of one kind that people are shown.
_SHOWN = 20
_GIGABYTE = 2**30
# They can be too many to be named one by one.
_ATTACHMENTS = "attachments"
_PROOF = {
    "opencrvs": (
        "Decrypted to the end; the check sums of gzip are right. aes-256-cbc without a signature proves no more: who could write where it"
        " was kept can have put another archive in its place, and a change that was made with intent need not be noticed."
    ),
    "primero": (
        "Its check sums are right. It is neither encrypted nor signed: who could write where it was kept can have changed all of it."
    ),
}


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(
        prog="civitas-import", description="Reads archives of OpenCRVS and Primero. Nothing that is there is changed."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspect = commands.add_parser("inspect", help="what is in archives, of which day, and what is missing")
    verify = commands.add_parser("verify", help="prove that all of it can be read, dumps and archives inside it included")
    out = commands.add_parser("extract", help="verify, and write all files to the side")
    database = commands.add_parser("restore", help="make a new database from an extracted dump of PostgreSQL")
    for one in (inspect, verify, out):
        one.add_argument("archive", nargs="+", help="file under the name that the system gave it")
        one.add_argument("--passphrase-file", help="file of mode 0600 with the passphrase; - for standard input")
        one.add_argument("--limit-gigabytes", type=int, default=2000, help="what may come out at most (default: 2000)")
        one.add_argument("--json", action="store_true", help="print the result as JSON")
    for one in (verify, out):
        one.add_argument(
            "--without",
            action="append",
            default=[],
            metavar="NAME",
            help="what is known to be missing, as it is told, or 'attachments'; may be repeated",
        )
    out.add_argument("--target", required=True, help="new directory")
    database.add_argument("dump", help="file, as extract has written it")
    database.add_argument("--database", required=True, help="name of the new database")
    database.add_argument("--port", type=int, default=5432, help="of the server (default: 5432)")
    database.add_argument("--socket", default="", help="directory of the server's socket")
    database.add_argument("--without-owners", action="store_true", help="all belongs to the superuser, as the dump's roles are not there")
    options = parser.parse_args(list(arguments))
    try:
        if options.command == "restore":
            return _restore(options)
        return _read(options)
    except (ArchiveError, OSError) as error:
        sys.stderr.write(f"civitas-import: {error}\n")
        return 1


def _read(options: argparse.Namespace) -> int:
    archives = recognize(options.archive)
    passphrase = read_passphrase(options.passphrase_file, sys.stdin.buffer) if options.passphrase_file else None
    report = look(archives, passphrase, options.limit_gigabytes * _GIGABYTE, deep=options.command != "inspect")
    report = report._replace(missing=_unknown(report.missing, getattr(options, "without", [])))
    good = not report.problems and not report.missing
    files: t.Optional[int] = None
    if options.command == "extract" and good:
        files = extract(report, passphrase, options.target)
    if options.json:
        sys.stdout.write(json.dumps(_result(options, report, files), indent=1, sort_keys=True) + "\n")
    else:
        _tell(options, report, files)
    return 0 if good or (options.command == "inspect" and not report.problems) else 1


def _unknown(missing: t.Sequence[str], known: t.Sequence[str]) -> t.List[str]:
    """What is missing and nobody knew. Raises ArchiveError when more is known than is missing."""
    fits = [line for line in missing if line in known or (_ATTACHMENTS in known and line.startswith(ATTACHMENT))]
    wrong = [name for name in known if name not in missing and not (name == _ATTACHMENTS and fits)]
    if wrong:
        raise ArchiveError(f"--without names what is not missing: {', '.join(wrong)}")
    return [line for line in missing if line not in fits]


def _result(options: argparse.Namespace, report: Report, files: t.Optional[int]) -> t.Dict[str, t.Any]:
    return {
        "system": report.archives[0].system,
        "label": report.archives[-1].label,
        "archives": [archive.name for archive in report.archives],
        "members": [member._asdict() for member in report.members if member.kind != "attachment"],
        "rows": {path: {".".join(table): rows for table, rows in dump.rows.items()} for (_number, path), dump in report.dumps.items()},
        "attachments": None if report.match is None else {"found": len(report.match.found), "missing": len(report.match.missing)},
        "bytes": report.bytes,
        "missing": report.missing,
        "problems": report.problems,
        "warnings": report.warnings,
        "proof": "" if options.command == "inspect" or report.problems else _PROOF[report.archives[0].system],
        "target": options.target if files is not None else None,
    }


def _tell(options: argparse.Namespace, report: Report, files: t.Optional[int]) -> None:
    for number, archive in enumerate(report.archives):
        members = [member for member in report.members if member.archive == number]
        _print(f"{archive.name}: {_system(archive)}, {len(members)} files, {sum(member.size for member in members)} bytes")
        plain = [member for member in members if member.kind in ("file", "small")]
        attachments = sum(member.kind == "attachment" for member in members)
        for member in members:
            if member.kind in ("postgres", "roles", "mongo", "tar"):
                _print(f"  {member.path}: {member.told or f'{member.size} bytes'}")
        _print(f"  and {len(plain)} other files" + (f", {attachments} attachments" if attachments else ""))
    if report.match is not None:
        _print(
            f"of {len(report.match.found) + len(report.match.missing) + len(report.match.replaced)} attachments of the newest database"
            f" {len(report.match.found)} are there"
        )
    for head, lines in (("", report.warnings), ("missing: ", report.missing), ("DAMAGED: ", report.problems)):
        for line in lines[:_SHOWN]:
            sys.stderr.write(f"{head}{line}\n")
        if len(lines) > _SHOWN:
            sys.stderr.write(f"{head}and {len(lines) - _SHOWN} more; --json tells all\n")
    if options.command != "inspect" and not report.problems:
        _print(_PROOF[report.archives[0].system])
    if files is not None:
        _print(f"{options.target} holds {files} files")
    elif options.command == "extract":
        sys.stderr.write("nothing was extracted; name what is known to be missing with --without\n")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _system(archive: Archive) -> str:
    kind = {"primero": "Primero, database and attachments since the archive before"}.get(
        archive.system, f"OpenCRVS, {archive.store or 'all stores'}"
    )
    return f"{kind}, of {archive.label}"


def _restore(options: argparse.Namespace) -> int:
    via = Server().via if os.geteuid() == 0 else ()
    rows = restore(Server(via, options.socket, options.port), options.dump, options.database, not options.without_owners)
    for table, count in sorted(rows.items()):
        _print(f"{'.'.join(table)}: {count} rows")
    _print(f"the database {options.database} has {sum(rows.values())} rows in {len(rows)} tables, as many as the dump")
    return 0
