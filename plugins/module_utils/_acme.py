# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what the ACME client obtained into use.

Private to the collection: no promise of stability. Standard library only: the program C(civitas-acme) of the hosts is made of it, too.

The client keeps its certificates as lineages, C(/etc/letsencrypt/live/<name>/{fullchain,privkey}.pem). What services read is installed by
the same steps as everything else: judged, swapped, proven on the wire, or taken back. Which of the two differ is told by fingerprint.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_wire as wire
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_install import Installer, InstallError, leaf_fingerprint
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import StoreError

LIVE = "/etc/letsencrypt/live"
STORE = "/etc/civitas/certificates"
UNIT = "certbot.service"
USAGE = """usage: civitas-acme deploy [NAME ...] | civitas-acme check

deploy    bring each certificate of the ACME server into use that is not yet; exit status 1 when one could not be
check     one line per certificate; exit status 1 when one is missing, overdue or not in use, or the last renewal failed
"""


class Validity(t.NamedTuple):
    """When a certificate begins and ends, in seconds since 1970."""

    begins: float
    ends: float

    def overdue(self, now: float) -> bool:
        """Whether it should have been renewed: clients do so with a third of its life, or more, left."""
        return self.ends - now < (self.ends - self.begins) / 4


def fingerprint(path: str) -> str:
    """SHA-256 of the first certificate of a PEM file, empty when there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return leaf_fingerprint(file.read())
    except (OSError, ValueError):
        return ""


def chain_file(name: str) -> str:
    """The chain of a lineage; its key lies beside it."""
    return os.path.join(LIVE, name, "fullchain.pem")


def in_use(name: str) -> bool:
    """Whether the lineage C(name) is what is installed."""
    return fingerprint(chain_file(name)) == fingerprint(os.path.join(STORE, name, "fullchain.pem"))


def waiting(names: t.Iterable[str]) -> t.List[str]:
    """Those that were obtained and are not the installed ones."""
    return [name for name in names if fingerprint(chain_file(name)) and not in_use(name)]


def install(name: str, config: str = program.CONFIG) -> str:
    """Bring a lineage into use; returns why that failed, or nothing. What was in use before is in use after a failure."""
    try:
        found = program.settings(config)
        if name not in found.specs:
            return f"{config} does not name it; run the site playbook, it writes this file"
        with open(chain_file(name), encoding="ascii", errors="replace") as file:
            chain = "".join(wire.certificates(file.read()))
        with open(os.path.join(LIVE, name, "privkey.pem"), encoding="ascii", errors="replace") as file:
            key = file.read()
        Installer(found.store, found.specs[name], found.patience).install(chain, key, found.trust[name])
    except (program.ProgramError, InstallError, StoreError, OSError) as error:
        return str(error)
    return ""


def validity(path: str) -> t.Optional[Validity]:
    """Begin and end of a PEM file's first certificate, None when there is none."""
    done = _run(["openssl", "x509", "-in", path, "-noout", "-startdate", "-enddate"])
    dates = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode != 0 or not {"notBefore", "notAfter"} <= set(dates):
        return None
    return Validity(ssl.cert_time_to_seconds(dates["notBefore"]), ssl.cert_time_to_seconds(dates["notAfter"]))


def declared(config: str) -> t.List[str]:
    """The certificates of this host that come from the ACME server now; the client may keep others, too."""
    with open(config, encoding="utf-8") as file:
        return [item["name"] for item in json.load(file)["certificates"] if item["source"] == "acme"]


def deploy(names: t.Sequence[str], config: str) -> int:
    """Bring those into use that are not yet; returns 1 when one could not be."""
    status = 0
    for name in waiting(names):
        problem = install(name, config)
        text = problem or "the renewed certificate is in use"
        _say(text if text.startswith(f"{name}:") else f"{name}: {text}")
        if problem:
            _say(f"{name}: this is tried again with each run of {UNIT}")
            status = 1
    return status


def check(names: t.Sequence[str], now: float) -> int:
    """Say for each certificate how it stands; returns 1 when something is wrong."""
    problems = []
    for name in names:
        found = validity(chain_file(name))
        if found is None:
            problems.append(f"{name}: was not obtained yet")
            continue
        ends = time.strftime("%Y-%m-%d", time.gmtime(found.ends))
        if found.overdue(now):
            problems.append(f"{name}: ends on {ends} and should have been renewed")
        elif not in_use(name):
            problems.append(f"{name}: was renewed, but the new one is not in use")
        else:
            _say(f"{name}: ends on {ends}")
    result = _run(["systemctl", "show", "--property=Result", "--value", UNIT]).stdout.strip()
    if result != "success":
        problems.append(f"the last run of {UNIT} failed ({result}); see journalctl -u {UNIT}")
    for problem in problems:
        _say(problem)
    return 1 if problems else 0


def main(arguments: t.Sequence[str], config: str = program.CONFIG) -> int:
    command, wanted = "".join(arguments[:1]), arguments[1:]
    if command != "deploy" and (command != "check" or wanted):
        sys.stderr.write(USAGE)
        return 2
    try:
        names = declared(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        _say(f"{config}: {error!r}; run the site playbook, it writes this file")
        return 1
    if command == "check":
        return check(names, time.time())
    return deploy([name for name in names if name in wanted] if wanted else names, config)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _run(command: t.Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
