# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings what the ACME client obtained into use.

Private to the collection: no promise of stability.

The client keeps its certificates as lineages, C(/etc/letsencrypt/live/<name>/{fullchain,privkey}.pem). What services read is installed by
C(civitas-certificates install), which judges, swaps, proves and goes back. This module tells the two apart by fingerprint. It is also the
program C(/usr/local/sbin/civitas-acme) of hosts, which therefore needs nothing but the standard library:

    civitas-acme deploy [NAME ...]    install each lineage that is not the certificate in use; 1 when one could not be installed
    civitas-acme check                one line per certificate; 1 when one is missing, not in use, overdue, or the last renewal failed
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import time
import typing as t

CONFIG = "/etc/civitas/acme.json"
LIVE = "/etc/letsencrypt/live"
STORE = "/etc/civitas/certificates"
INSTALLER = "/usr/local/sbin/civitas-certificates"
UNIT = "certbot.service"

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.S)


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
            found = _CERTIFICATE.search(file.read())
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(found.group())).hexdigest() if found else ""
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


def install(name: str) -> str:
    """Install a lineage; returns why that failed, or nothing. What was in use before is in use after a failure."""
    command = [INSTALLER, "install", name, "--chain", chain_file(name), "--key", os.path.join(LIVE, name, "privkey.pem")]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        return f"{INSTALLER}: {error.strerror}"
    return "" if done.returncode == 0 else done.stdout.strip() or f"{INSTALLER} ended with status {done.returncode}"


def validity(path: str) -> t.Optional[Validity]:
    """Begin and end of a PEM file's first certificate, None when there is none."""
    done = subprocess.run(
        ["openssl", "x509", "-in", path, "-noout", "-startdate", "-enddate"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    dates = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode != 0 or not {"notBefore", "notAfter"} <= set(dates):
        return None
    return Validity(ssl.cert_time_to_seconds(dates["notBefore"]), ssl.cert_time_to_seconds(dates["notAfter"]))


def deploy(declared: t.Sequence[str], wanted: t.Sequence[str]) -> int:
    """Install the lineages C(wanted) that are declared and not in use yet; all declared ones when none is named."""
    status = 0
    for name in waiting(name for name in declared if not wanted or name in wanted):
        problem = install(name)
        sys.stdout.write(f"{name}: {problem or 'the renewed certificate is in use'}\n")
        if problem:
            sys.stdout.write(f"{name}: the certificate from before stays in use; this is tried again with each run of {UNIT}\n")
            status = 1
    return status


def check(declared: t.Sequence[str], now: float) -> int:
    """Say for each certificate how it stands."""
    status = 0
    for name in declared:
        found = validity(chain_file(name))
        if found is None:
            problem = "was not obtained yet"
        else:
            day = time.strftime("%Y-%m-%d", time.gmtime(found.ends))
            problem = f"ends on {day} and should have been renewed" if found.overdue(now) else ""
            problem = problem or ("" if in_use(name) else "was renewed, but the new one is not in use")
        status |= bool(problem)
        sys.stdout.write(f"{name}: {problem or f'ends on {day}'}\n")
    done = subprocess.run(
        ["systemctl", "show", "--property=Result", "--value", UNIT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.stdout.strip() != "success":
        sys.stdout.write(f"the last run of {UNIT} failed: {done.stdout.strip()}\n")
        status = 1
    return status


def main(arguments: t.Sequence[str]) -> int:
    try:
        with open(CONFIG, encoding="utf-8") as file:
            declared = json.load(file)["certificates"]
    except (OSError, ValueError, KeyError) as error:
        sys.stdout.write(f"{CONFIG}: {error}; run the site playbook, it writes this file\n")
        return 1
    if arguments[:1] == ["deploy"]:
        return deploy(declared, arguments[1:])
    if arguments == ["check"]:
        return check(declared, time.time())
    sys.stdout.write("usage: civitas-acme deploy [NAME ...] | civitas-acme check\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
