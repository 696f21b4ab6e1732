# SPDX-License-Identifier: GPL-3.0-or-later
"""After an intrusion: the keys and secrets of the whole server are replaced, by a run that is cut off and by the next one, and what an
intruder knew opens nothing any more. The proofs of the playbook are not believed: everything is asked again from outside."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tools import demo as demonstration
from tools.records import Records, Story

from .conftest import DIRECTORY, SETTINGS, Demo

EVERYTHING = ("-e", "rotate=host_keys,user_keys,secrets", "-e", f"known_hosts_file={DIRECTORY / 'known_hosts'}")
KEPT = DIRECTORY / ".secrets.yml.before-rotation"
# The first task of the site after the database has its new password: the application still runs with the old one.
HALF_WAY = "app : configure | Write service model"


@dataclass
class Rotation:
    """What was before, what was said, and what the application keeps."""

    records: Records
    story: Story
    secrets: dict[str, str] = field(repr=False)
    output: str = ""
    half_way: dict[str, bool] = field(default_factory=dict)
    own_record: str = "/v1/buckets/default/collections/notes/records/kept"


def logs_in(password: str) -> bool:
    """Whether the database takes a password over verified TLS; nothing else may go wrong."""
    words = "host=localhost user=kinto dbname=kinto sslmode=verify-full sslrootcert=/etc/civitas/ca.pem connect_timeout=5"
    command = ["docker", "exec", "--env", "PGPASSWORD", SETTINGS["CIVITAS_DEMO_HOST"], "psql", words, "-XAtc", "SELECT 1"]
    done = subprocess.run(command, env={**os.environ, "PGPASSWORD": password}, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "password authentication failed" in done.stderr, done.stderr
    return done.returncode == 0


def ssh(key: str, login: str, known_hosts: str = "known_hosts") -> str:
    """What ssh says when it is asked to log in with this key; empty when it got in."""
    options = ("-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={DIRECTORY / known_hosts}", "-o", "ControlPath=none")
    command = demonstration.ssh_command(key, login, *options)
    # The first value of an option counts.
    command[1:1] = options
    done = subprocess.run([*command, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""


def make_key(name: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(DIRECTORY / name)], check=True)


def rename_key(name: str, other: str) -> None:
    for end in ("", ".pub"):
        os.replace(f"{DIRECTORY / name}{end}", f"{DIRECTORY / other}{end}")


def cut_off(command: list[str], task: str) -> str:
    """Run a playbook until a task begins, and let it die there with all that it started. What it said."""
    said = []
    with subprocess.Popen(
        command, cwd=demonstration.ROOT, env=demonstration.playbook_environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if task in line:
                break
        for pid in [process.pid, *children_of(process.pid)]:
            # One may have ended by itself meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    output = "".join(said)
    assert task in output, output[-3000:]
    return output


def children_of(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout.split()
    return [each for child in found for each in (int(child), *children_of(int(child)))]


@pytest.fixture(scope="module", name="rotation")
def _rotation(demo: Demo) -> Iterator[Rotation]:
    records = Records("localhost", 28443, DIRECTORY / "ca.pem", address="127.0.0.1")
    story = Story(records, ("admin", demo.secrets[demonstration.ADMINISTRATOR_SECRET]))
    before = Rotation(records, story, dict(demo.secrets))
    # In the bucket that the application gives to each account, whose name it derives from a secret.
    status, _headers, body = records.call("PUT", before.own_record, story.user, {"data": story.data})
    assert status == 201, body
    shutil.copy(DIRECTORY / "known_hosts", DIRECTORY / "old-known_hosts")
    rename_key("visitor_key", "old-visitor_key")
    make_key("visitor_key")
    make_key("new-ssh_key")
    # Ansible's own key has a successor beside it as long as Ansible logs in with it.
    both = [(DIRECTORY / f"{name}.pub").read_text() for name in ("ssh_key", "new-ssh_key")]
    extra = ("-e", json.dumps({"civitas_automation": {"name": "root", "ssh_keys": both}}))
    cut_off(demonstration.playbook_command("rotate_keys.yml", *EVERYTHING, *extra), HALF_WAY)
    demo.read_secrets()
    name = "app_demo_database_password"
    before.half_way = {"old": logs_in(before.secrets[name]), "new": logs_in(demo.secrets[name]), "kept": KEPT.exists()}
    rename_key("ssh_key", "old-ssh_key")
    rename_key("new-ssh_key", "ssh_key")
    done = demo.playbook("rotate_keys.yml", *EVERYTHING)
    # Without the line ends of the terminal.
    before.output = " ".join(done.stdout.split())
    demo.read_secrets()
    assert done.returncode == 0, done.stdout[-5000:]
    yield before


def test_it_was_cut_off_while_the_application_had_the_old_password(rotation: Rotation) -> None:
    assert rotation.half_way == {"old": False, "new": True, "kept": True}


def test_the_second_run_goes_on_where_the_first_one_ended(demo: Demo, rotation: Rotation) -> None:
    assert re.search(r"The old values are of no use any more: .*app_demo_admin_password.*app_demo_database_password", rotation.output)
    assert "No key that was accepted before" in rotation.output
    assert not KEPT.exists()
    left = ["/var/lib/civitas/user-keys-before.json", "/var/lib/civitas/host-keys"]
    assert demo.on_server("sh", "-c", f"ls -d {' '.join(left)} 2>/dev/null || true") == ""


def test_the_host_has_other_keys_which_only_the_new_list_knows(rotation: Rotation) -> None:
    assert ssh("ssh_key", "root") == ""
    assert "Host key verification failed" in ssh("ssh_key", "root", "old-known_hosts")
    old = {line.split()[-1] for line in (DIRECTORY / "old-known_hosts").read_text().splitlines()}
    assert not old & set((DIRECTORY / "known_hosts").read_text().split())


def test_old_keys_of_people_and_of_ansible_are_refused(rotation: Rotation) -> None:
    assert "Permission denied (publickey)" in ssh("old-ssh_key", "root")
    assert "Permission denied (publickey" in (said := ssh("old-visitor_key", "visitor")), said
    # The new one is taken, and a code is asked for.
    assert "Permission denied (keyboard-interactive)" in ssh("visitor_key", "visitor")


def test_the_database_takes_the_new_password_only(demo: Demo, rotation: Rotation) -> None:
    name = "app_demo_database_password"
    assert (logs_in(rotation.secrets[name]), logs_in(demo.secrets[name])) == (False, True)


def test_the_application_takes_the_new_administrator_password_only(demo: Demo, rotation: Rotation) -> None:
    name = demonstration.ADMINISTRATOR_SECRET
    answers = [rotation.records.call("GET", "/v1/accounts/admin", ("admin", each[name]))[0] for each in (rotation.secrets, demo.secrets)]
    assert answers == [401, 200]


def test_secrets_that_data_depends_on_stay_and_all_others_are_new(demo: Demo, rotation: Rotation) -> None:
    same = {name for name, value in demo.secrets.items() if name.startswith("app_demo_") and value == rotation.secrets[name]}
    assert same == {"app_demo_bucket_secret"}
    assert "app_demo_bucket_secret stays as it is: the names of " in rotation.output


def test_no_secret_was_shown(demo: Demo, rotation: Rotation) -> None:
    values = [value for each in (rotation.secrets, demo.secrets) for name, value in each.items() if name.startswith("app_demo_")]
    assert [value for value in values if value in rotation.output] == []


def test_records_are_kept(rotation: Rotation) -> None:
    assert rotation.story.is_kept()
    status, _headers, body = rotation.records.call("GET", rotation.own_record, rotation.story.user)
    assert status == 200, body
    assert rotation.story.data.items() <= body["data"].items()


def test_the_site_is_as_it_must_be(demo: Demo, rotation: Rotation) -> None:
    done = demo.playbook("single.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    assert set(re.findall(r"changed=(\d+)", done.stdout)) == {"0"}
