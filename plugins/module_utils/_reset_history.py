# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people typed, as shells and clients of databases keep it: lines that hold secrets are taken out, and nothing of them is told.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import re
import stat
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._redaction import Redactor

FILES = (
    *(".bash_history", ".zsh_history", ".sh_history", ".ash_history", ".history", ".python_history", ".node_repl_history", ".irb_history"),
    *(".psql_history", ".mysql_history", ".mariadb_history", ".sqlite_history", ".dbshell", ".rediscli_history", ".lesshst", ".viminfo"),
    *(".mongodb/mongosh/mongosh_repl_history", ".local/share/fish/fish_history", ".wget-hsts"),
)
# What is larger was written by no person.
_BYTES = 64 * 2**20
# Parts of a line that may be a value: shells quote in many ways.
_WORDS = re.compile(r"[^\s'\"`;|&<>(){}$\\]+")
_PARTS = re.compile(r"[=:/@,?#]")
_SHORTEST = 6
# Programs that take a password by a short option, which no name in the line gives away.
_OPTIONS = re.compile(
    r"(?:^|[\s;|&(/])(?:"
    r"(?:curl|wget)\b.*\s(?:-u|--user|--proxy-user)[ =]?['\"]?[^\s:'\"]+:[^\s]"
    r"|(?:mysql|mysqldump|mysqladmin|mariadb|mariadb-dump|7z|7za)\b.*\s-p[^\s]"
    r"|(?:sshpass|mongo|mongosh|mongodump|mongorestore|docker)\b.*\s-p\s*['\"]?[^\s-]"
    r"|redis-cli\b.*\s-a\s|(?:ldap\w+)\b.*\s-w\s|zip\b.*\s-P\s|htpasswd\b.*\s-\w*b|smbclient\b.*%"
    r"|openssl\b.*\s(?:-k\s|-K\s|-pass\w*\s+pass:)"
    r")"
)
# docker run -p 80:80 and the like publish ports.
_PORTS = re.compile(r"docker\b.*\s(?:run|create|ps|compose|container|rm|port)\b")


class HistoryError(Exception):
    """A file cannot be read or written; the text names it."""


class Cleaned(t.NamedTuple):
    """A file from which lines were, or are to be, taken out."""

    path: str
    lines: int


def hashed(value: str) -> str:
    """How a secret is known here."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()


def clean(known: t.Container[str], change: bool, homes: t.Optional[t.Iterable[str]] = None) -> t.List[Cleaned]:
    """Take the lines out that look like secrets or hold one that is known.

    Args:
        known: SHA-256 of secrets, in hexadecimal; a host is not told them.
        change: whether to write.
        homes: directories; those of all accounts unless given.

    Raises:
        HistoryError: a file is not as it should be; the others were done.
    """
    found, problems = [], []
    redactor = Redactor()
    for home in sorted(set(homes if homes is not None else (one.pw_dir for one in pwd.getpwall()))):
        for name in FILES:
            directory, _slash, file = os.path.join(home, name).rpartition("/")
            try:
                lines = _clean(directory, file, redactor, known, change)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                problems.append(f"{directory}/{file}: {error.strerror or error}")
                continue
            if lines:
                found.append(Cleaned(f"{directory}/{file}", lines))
    if problems:
        raise HistoryError("; ".join(problems))
    return found


def _clean(directory: str, name: str, redactor: Redactor, known: t.Container[str], change: bool) -> int:
    """The number of lines. Who owns the directory may change it meanwhile, so nothing is followed. Raises OSError."""
    with contextlib.ExitStack() as stack:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        stack.callback(os.close, handle)
        file = stack.enter_context(
            os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle), "rb"),
        )
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            # Such as a link to /dev/null, which keeps nothing.
            return 0
        if about.st_size > _BYTES:
            raise OSError(0, "it is too large to be looked at")
        lines = file.read().decode("utf-8", "surrogateescape").splitlines(keepends=True)
        kept = [line for line in lines if not _is_secret(line, redactor, known)]
        removed = len(lines) - len(kept)
        if removed and change:
            _write(handle, name, about, "".join(kept).encode("utf-8", "surrogateescape"))
        return removed


def _is_secret(line: str, redactor: Redactor, known: t.Container[str]) -> bool:
    for word in _WORDS.findall(line):
        parts = [word, *_PARTS.split(word)]
        if any(len(part) >= _SHORTEST and hashed(part) in known for part in parts):
            return True
    if _OPTIONS.search(line) and not _PORTS.search(line):
        return True
    shown = line.encode("utf-8", "backslashreplace").decode()
    return redactor.redact(shown) != shown


def _write(directory: int, name: str, about: os.stat_result, data: bytes) -> None:
    temporary = f".civitas-{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    try:
        with open(handle, "wb") as file:
            file.write(data)
            file.flush()
            if os.geteuid() == 0:
                os.fchown(file.fileno(), about.st_uid, about.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(about.st_mode))
            os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise
