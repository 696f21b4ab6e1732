# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets that a host knows: in files for few, in the settings of services and containers, in what processes were started with.

They are read to take them out of what leaves the host. What looks like a setting, a path or a word of every day is left out, as it
would take words out of every line. Nothing of them is written anywhere.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shlex
import stat
import typing as t
import urllib.parse

from ansible_collections.civitas.hosting.plugins.module_utils._redaction import HARMLESS, SECRET_NAME, WHOLE_WORD, Secret, looks_random

# Files in these directories are secrets as a whole.
SECRET_DIRECTORIES = (
    "etc/civitas/apps/*/secrets",
    "etc/civitas/second-factor",
    "etc/wireguard",
    "etc/credstore",
    "etc/credstore.encrypted",
)
# Files below these are read when not everybody may.
_PRIVATE = ("etc", "srv/civitas", "var/lib/civitas")
# These are read whoever may read them: people write passwords there.
_PUBLIC = (
    *("etc/environment", "etc/apt/apt.conf", "etc/apt/apt.conf.d/*", "etc/apt/auth.conf.d/*", "etc/default/*", "etc/docker/*.json"),
    *("etc/systemd/system/*.service", "etc/systemd/system/*.d/*.conf", "run/systemd/system/*.service", "run/systemd/system/*.d/*.conf"),
    *("run/systemd/transient/*.service", "srv/civitas/apps/*/*", "srv/civitas/apps/*/.env", "etc/civitas/apps/*/files/*"),
    *("root/.pgpass", "root/.netrc", "root/.my.cnf", "root/.docker/config.json", "root/.s3cfg", "root/.aws/credentials"),
)
# Hashes and what is public, or too much of everything.
_NEVER = re.compile(r"etc/(?:g?shadow-?|security/opasswd.*|sudoers.*|ssl/certs/.*|ssh/ssh_host_.*|udev/.*|selinux/.*|aide/.*|audit/.*)\Z")
_LARGEST = 256 << 10
_MOST = 4000

_ASSIGNED = re.compile(r"([A-Za-z0-9_.\-\[\]]{1,128})[\"']?[ \t]*[:=][ \t]*(\S[^\n]*)")
# As curl and ftp have it.
_NETRC = re.compile(r"\bpassword[ \t]+(\S+)")
# As postfix has it: a server, then user:password.
_LOGIN = re.compile(r"(?m)^(?![\"'{])\S*[^\s:][ \t]+(?!SHA256:|MD5:)[^\s:\"']+:(?!//)(\S.*)$")
_RUN = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,}={0,2}")
# Such names stand before an address that lets everybody in who knows it.
_ADDRESS = re.compile(r"(?i)(?:\A|_)(?:url|uri|webhook|dsn)\Z")


def of_host(root: str = "/", containers: t.Iterable[t.Sequence[str]] = ()) -> t.List[Secret]:
    """All that can be found below C(root), and in the environments of C(containers) (lists of C(NAME=value)).

    Returns:
        Each with the path where it is, as a name.
    """
    found: t.Dict[Secret, None] = {}
    for pattern in SECRET_DIRECTORIES:
        for directory in glob.glob(os.path.join(root, pattern)):
            for path in _files(directory):
                found.update(dict.fromkeys(Secret(path, line) for line in _lines(_read(path))))
    public = {path for pattern in _PUBLIC for path in glob.glob(os.path.join(root, pattern))}
    private = {path for directory in _PRIVATE for path in _files(os.path.join(root, directory)) if _is_private(path)}
    for path in sorted(public | private):
        if not _NEVER.match(os.path.relpath(path, root)):
            found.update(dict.fromkeys(Secret(path, value) for value in of_text(_read(path), _is_private(path))))
    for pid in filter(str.isdigit, _names(os.path.join(root, "proc"))):
        for kind in ("environ", "cmdline"):
            words = _read(os.path.join(root, "proc", pid, kind)).split("\0")
            values = _environment(words) if kind == "environ" else _arguments(words)
            found.update(dict.fromkeys(Secret("a process", value) for value in values))
    for environment in containers:
        found.update(dict.fromkeys(Secret("a container", value) for value in _environment(environment)))
    return list(found)[:_MOST]


def of_text(text: str, private: bool) -> t.List[str]:
    """The values in a file of settings of any kind; C(private) files may have some without a name that tells what they are."""
    found: t.List[str] = []
    with contextlib.suppress(ValueError, RecursionError):
        _of_data(json.loads(text), "", private, found)
    # What is commented out is a description as a rule, and its words are those of every day.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";", "//"))]
    for line in lines if not found else ():
        for name, value in _ASSIGNED.findall(line):
            found += _named(name, value, private)
        if line.lstrip().lower().startswith("environment="):
            found += _environment(_words(line.partition("=")[2]))
        if "-" in line:
            found += _arguments(_words(line))
    text = "\n".join(lines)
    if private and "-----BEGIN" not in text:
        found += [match.group() for match in _RUN.finditer(text) if looks_random(match.group()) and not _is_fingerprint(text, match)]
        found += [value for value in [*_LOGIN.findall(text), *_NETRC.findall(text)] if _telling(value)]
        found += [line.split(":", 4)[4] for line in lines if re.match(r"[^:\s]+:(?:\d+|\*):[^:]*:[^:]*:\S", line)]
    return list(dict.fromkeys(found))


def _is_fingerprint(text: str, match: t.Match[str]) -> bool:
    return text[max(0, match.start() - 7) : match.start()] == "SHA256:"


def _of_data(data: t.Any, name: str, private: bool, found: t.List[str]) -> None:
    if isinstance(data, dict):
        for key, value in data.items():
            # What is sent along with a request to an address is what it asks for.
            _of_data(value, "token" if name == "headers" else str(key), private, found)
    elif isinstance(data, list):
        for value in data:
            _of_data(value, name, private, found)
    elif isinstance(data, str):
        found += _named(name, data, private)
        if name == "auth":
            found.append(data)


def _named(name: str, value: str, private: bool) -> t.List[str]:
    value = _bare(value)
    # One plain word in a file for everybody is a word of every day.
    if SECRET_NAME.search(name) and _telling(value) and (private or not re.match(r"[a-z]{1,7}\Z", value)):
        return [value]
    if private and _ADDRESS.search(name) and value.startswith("https://") and len(urllib.parse.urlsplit(value).path) > WHOLE_WORD:
        return [value]
    return _logins(value)


def _environment(words: t.Iterable[str]) -> t.List[str]:
    found = []
    for word in words:
        name, _equals, value = word.partition("=")
        found += _named(name, value, False)
    return found


def _arguments(words: t.Sequence[str]) -> t.List[str]:
    """What a program is told as --name=value or as --name value; one plain word may be the description of an option."""
    found = []
    for word, following in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if name.startswith("-") and SECRET_NAME.search(name) and _telling(value) and not re.match(r"[a-z]{1,7}\Z", value):
            found.append(value)
    return found


def _words(line: str) -> t.List[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _logins(value: str) -> t.List[str]:
    """The passwords in addresses, as those of databases have them."""
    found = []
    for password in re.findall(r"://[^\s/:@\"']{0,128}:([^\s/\"'<>]{1,512})@", value):
        found += [part for part in (password, urllib.parse.unquote(password)) if _telling(part)]
    return found


def _bare(value: str) -> str:
    """Without what stands around it in a file of settings."""
    value = value.strip()
    quoted = re.match(r"([\"'])(.*?)\1[\s,;]*(?:[#;].*)?\Z", value)
    if quoted:
        return quoted.group(2)
    return value.rstrip(",;").strip("\"'")


def _telling(value: str) -> bool:
    """Whether a value can be taken out of a text without taking words of every day with it."""
    return len(value) >= WHOLE_WORD and not HARMLESS.match(value) and not re.match(r"[\[{<$%*]|/(?:etc|run|var|srv|usr|opt)/", value)


def _lines(text: str) -> t.List[str]:
    if "-----BEGIN" in text:
        return [text]
    # The second factor's file has settings, which begin with a quote.
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith('" ')]


def _is_private(path: str) -> bool:
    with contextlib.suppress(OSError):
        return not os.stat(path).st_mode & stat.S_IROTH
    return False


def _files(directory: str) -> t.Iterator[str]:
    for top, _below, names in os.walk(directory):
        for name in names:
            path = os.path.join(top, name)
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    yield path


def _names(directory: str) -> t.List[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(directory))
    return []


def _read(path: str) -> str:
    """The text of a file, nothing when it is no text, too large, or gone."""
    with contextlib.suppress(OSError):
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST + 1)
        if len(data) <= _LARGEST:
            return data.decode("utf-8", "replace")
    return ""
