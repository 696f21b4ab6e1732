# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program C(civitas-bastion) on a bastion: C(record) keeps the records, C(check) asks sshd what it would really let people do.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import select
import subprocess
import sys
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _bastion_records
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

CONFIG_FILE = "/etc/civitas/bastion.json"
RECORDS_FILE = "/var/log/civitas/bastion.jsonl"
STATE_FILE = "/var/lib/civitas/bastion/state.json"
_FIELDS = "MESSAGE,_PID,_UID,_BOOT_ID"
# How sshd names itself; the second name since OpenSSH 9.8.
_IDENTIFIERS = ("sshd", "sshd-session")
# The role access tries its own work with it, see the template of sshd's settings.
_PROBE = "civitas-probe"

# What must hold for everybody, for people, and for those who also look after the bastion: as sshd -T prints it.
_NOTHING_ELSE = {
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "gatewayports": "no",
    "permittunnel": "no",
    "x11forwarding": "no",
}
_FORWARDING_ONLY = {**_NOTHING_ELSE, "allowtcpforwarding": "local", "maxsessions": "0", "permittty": "no", "permituserrc": "no"}
_KEEPERS = {**_NOTHING_ELSE, "allowtcpforwarding": "local"}


def main(arguments: t.Sequence[str]) -> int:
    """Run one command; the exit status is 0 when all is well."""
    parser = argparse.ArgumentParser(prog="civitas-bastion", description="The records of a bastion, and what its sshd lets people do.")
    parser.add_argument("command", choices=["record", "check"], help="record: follow the journal for ever; check: judge sshd's settings")
    options = parser.parse_args(list(arguments))
    if options.command == "record":
        return record(RECORDS_FILE)
    with open(CONFIG_FILE, encoding="utf-8") as stream:
        config = json.load(stream)
    problems = check(config)
    for line in problems:
        sys.stderr.write(f"{line}\n")
    if not problems:
        sys.stdout.write(f"people may reach {', '.join(config['permit_open'])} through this host, and do nothing else on it\n")
    return 1 if problems else 0


# --- records


def record(path: str) -> int:
    """Follow the journal and write records until the journal ends; what is written is known to C(STATE_FILE) afterwards."""
    # The one who makes the directory gives it its mode; other programs of this host keep their records there, too.
    os.makedirs(os.path.dirname(path), mode=0o750, exist_ok=True)
    os.makedirs(os.path.dirname(STATE_FILE), mode=0o700, exist_ok=True)
    known = _known()
    recorder = _bastion_records.Recorder(known.get("recorder"))
    command = ["journalctl", "--follow", "--quiet", "--no-pager", "--output=json", f"--output-fields={_FIELDS}"]
    command += [f"--identifier={name}" for name in _IDENTIFIERS]
    # At the very first start: from this boot on, as who is logged in now came in then.
    command += [f"--after-cursor={known['cursor']}"] if known else ["--boot"]
    command += ["--lines=all"]
    written = int(known.get("written", 0))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as journal:
        for batch in _batches(t.cast(t.IO[bytes], journal.stdout).fileno()):
            records = [item for entry in batch for item in recorder.feed(entry)]
            written = _bastion_records.append(path, records, written)
            write_json(STATE_FILE, {"cursor": batch[-1]["__CURSOR"], "written": written, "recorder": recorder.state()}, 0o600)
            for item in records:
                sys.stdout.write(json.dumps(item) + "\n")
            sys.stdout.flush()
    return 1  # the service starts it again


def _known() -> t.Dict[str, t.Any]:
    try:
        with open(STATE_FILE, encoding="utf-8") as stream:
            return dict(json.load(stream))
    except FileNotFoundError:
        return {}
    except ValueError:
        sys.stderr.write(f"{STATE_FILE} cannot be read; records begin anew with this boot\n")
        return {}


def _batches(handle: int) -> t.Iterator[t.List[t.Dict[str, t.Any]]]:
    """Entries as they come, all that are there at once: on a busy host one write stands for many."""
    rest = b""
    while True:
        select.select([handle], [], [])
        data = os.read(handle, 1 << 20)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [json.loads(line) for line in lines]


# --- settings


def check(config: t.Mapping[str, t.Any], sshd: str = "/usr/sbin/sshd") -> t.List[str]:
    """Return what sshd's effective settings let people do beyond what the role promises, one sentence per problem."""
    problems = _judge("nobody", {"allowtcpforwarding": "no", **_NOTHING_ELSE}, [], sshd)
    people = [name for name in members(config["groups"]) if name != _PROBE]
    for name in people:
        problems += _judge(name, _FORWARDING_ONLY, config["permit_open"], sshd)
    for name in members(config["keeper_groups"]):
        if name not in people:
            problems += _judge(name, _KEEPERS, config["permit_open"], sshd)
    return problems


def members(groups: t.Iterable[str]) -> t.List[str]:
    """Names of the accounts in any of these groups, also those that have one as their own; a group that does not exist has none."""
    found: t.Set[str] = set()
    for name in groups:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            continue
        found.update(group.gr_mem)
        found.update(account.pw_name for account in pwd.getpwall() if account.pw_gid == group.gr_gid)
    return sorted(found)


def _judge(user: str, wanted: t.Mapping[str, str], permit_open: t.Sequence[str], sshd: str) -> t.List[str]:
    # An address and a name that no Match block is likely to speak of.
    command = [sshd, "-T", "-C", f"user={user},host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return [f"sshd cannot say what {user} may do: {' '.join(done.stderr.split())}"]
    return judge(user, done.stdout, wanted, permit_open)


def judge(user: str, shown: str, wanted: t.Mapping[str, str], permit_open: t.Sequence[str]) -> t.List[str]:
    """Compare what C(sshd -T) printed for one account with what is wanted."""
    found: t.Dict[str, str] = {}
    for line in shown.splitlines():
        key, value = line.partition(" ")[::2]
        found.setdefault(key, value.strip())
    advice = "Look for a line in /etc/ssh/sshd_config or an earlier file of /etc/ssh/sshd_config.d that sets it, and remove that."
    problems = [
        f"{key} is '{found.get(key, 'unset')}' and not '{value}' for {user}. {advice}"
        for key, value in wanted.items()
        if found.get(key) != value
    ]
    if permit_open and sorted(found.get("permitopen", "").split()) != sorted(permit_open):
        problems.append(f"permitopen is '{found.get('permitopen', '')}' for {user}, not what is declared. {advice}")
    return problems
