# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import os

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _app_jobs as jobs
from ansible_collections.civitas.hosting.plugins.module_utils import _compose_project as compose
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

ONCE = {"name": "seed", "service": "web", "command": "seed", "run": "once"}
EVERY = {"name": "migrate", "service": "web", "command": "migrate", "run": "every_release"}


@pytest.mark.parametrize(
    ("ledger", "release", "expected"),
    [
        ({}, "1", ["migrate", "seed"]),
        ({"migrate": {"release": "1"}}, "1", ["seed"]),
        ({"migrate": {"release": "1"}, "seed": {"release": "1"}}, "1", []),
        ({"migrate": {"release": "1"}, "seed": {"release": "1"}}, "2", ["migrate"]),
        # Back to an older release: its migration is asked again, which says by itself that there is nothing to do.
        ({"migrate": {"release": "2"}, "seed": {"release": "1"}}, "1", ["migrate"]),
        ({"migrate": {}, "seed": {}}, "1", ["migrate"]),
    ],
)
def test_what_is_pending(ledger, release, expected):
    assert [job["name"] for job in jobs.pending([EVERY, ONCE], ledger, release)] == expected


def test_a_job_runs_again_when_a_secret_of_it_is_another_file(tmp_path):
    job = {**ONCE, "secrets": ["password"]}
    (tmp_path / "password").write_text("first")
    ledger = {"seed": {"release": "1", "secrets": jobs.versions(job, str(tmp_path))}}
    assert jobs.pending([job], ledger, "1", str(tmp_path)) == []
    # As it is written on a host: a new file under the old name.
    (tmp_path / "new").write_text("other")
    (tmp_path / "new").rename(tmp_path / "password")
    assert jobs.pending([job], ledger, "1", str(tmp_path)) == [job]
    assert "other" not in str(jobs.versions(job, str(tmp_path)))
    # What an earlier release entered does not say.
    assert jobs.pending([job], {"seed": {"release": "1"}}, "1", str(tmp_path)) == [job]
    assert jobs.pending([ONCE], {"seed": {"release": "1"}}, "1", str(tmp_path)) == []


def test_the_ledger_is_kept(tmp_path):
    path = tmp_path / "jobs.json"
    assert jobs.read(str(path)) == {}
    write_json(str(path), {"seed": {"release": "1", "rc": 0}})
    assert jobs.read(str(path)) == {"seed": {"release": "1", "rc": 0}}


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_ledger_is_an_error_and_not_an_empty_one(tmp_path, content):
    path = tmp_path / "jobs.json"
    path.write_text(content)
    with pytest.raises(jobs.JobsError, match=r"[Rr]estore it"):
        jobs.read(str(path))


def test_only_one_run_at_a_time(tmp_path):
    path = str(tmp_path / "jobs.json")
    with jobs.locked(path), pytest.raises(jobs.JobsError, match=f"process {os.getpid()}"), jobs.locked(path):
        pass
    with jobs.locked(path):
        pass


def test_the_lock_names_nobody_who_is_gone(tmp_path):
    lock = tmp_path / "jobs.json.lock"
    with pytest.raises(ValueError, match="of the job"), jobs.locked(str(tmp_path / "jobs.json")):
        assert lock.read_text() == f"{os.getpid()}\n"
        raise ValueError("of the job")
    assert lock.read_text() == ""
    with lock.open(encoding="utf-8") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        with pytest.raises(jobs.JobsError, match="process unknown"), jobs.locked(str(tmp_path / "jobs.json")):
            pass


def test_nobody_else_may_open_the_lock(tmp_path):
    """Also not one that an earlier release left readable: to read is enough to hold it."""
    state = tmp_path / "demo"
    lock = state / "jobs.json.lock"
    state.mkdir(0o755)
    lock.touch(0o644)
    jobs.make_directory(str(state))
    with jobs.locked(str(state / "jobs.json")):
        assert lock.stat().st_mode & 0o7777 == 0o600
    assert state.stat().st_mode & 0o7777 == 0o700
    lock.unlink()
    with jobs.locked(str(state / "jobs.json")):
        assert lock.stat().st_mode & 0o7777 == 0o600


def test_the_lock_is_no_link_to_another_file(tmp_path):
    (tmp_path / "other").write_text("kept")
    (tmp_path / "jobs.json.lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError), jobs.locked(str(tmp_path / "jobs.json")):
        pass
    assert (tmp_path / "other").read_text() == "kept"


@pytest.mark.parametrize(
    ("command", "expected"),
    [("migrate --all", ["migrate", "--all"]), ("a 'b c'", ["a", "b c"]), (["a", 1], ["a", "1"]), ("echo $X; rm", ["echo", "$X;", "rm"])],
)
def test_commands_are_lists(command, expected):
    assert jobs.arguments(command) == expected


def test_secrets_are_masked(tmp_path):
    url = "postgresql://me:{}@db"
    (tmp_path / "password").write_text("canary-password\n")
    (tmp_path / "short").write_text("true")
    (tmp_path / "app.ini").write_text(
        f"[app]\nurl = {url.format('canary%%40url')}/x?a=b\nhmac_secret = canary-hmac\nname = demonstration\n"
    )
    (tmp_path / "key.pem").write_text("-----BEGIN-----\nabc\n-----END-----\n")
    secrets = compose.secret_values(str(tmp_path))
    shown = compose.mask(f"true canary-password, {url.format('canary%%40url')} canary-hmac demonstration", secrets)
    assert shown == f"true ********, {url.format('********')} ******** demonstration"
    assert compose.secret_values(str(tmp_path / "none")) == []


def test_the_longest_secret_is_masked_first():
    assert compose.mask("canary-and-more", ["canary-a", "canary-and-more"]) == "********"


def test_a_replaced_file_is_found_by_what_the_container_sees(tmp_path):
    """The container's root is a directory here; a hard link stands for the mount of the same file."""
    (tmp_path / "root").mkdir()
    source, seen = tmp_path / "secret", tmp_path / "root" / "secret"
    source.write_text("first")
    os.link(source, seen)
    container = {
        "State": {"Running": True, "Pid": 1},
        "Mounts": [
            {"Type": "bind", "Source": str(source), "Destination": "/secret"},
            {"Type": "bind", "Source": str(tmp_path), "Destination": "/"},
            {"Type": "bind", "Source": str(tmp_path / "gone"), "Destination": "/gone"},
            {"Type": "volume", "Source": "/", "Destination": "/data"},
        ],
    }
    root = str(tmp_path / "root")
    assert compose.outdated_files(container, root) == []
    replacement = tmp_path / "new"
    replacement.write_text("second")
    replacement.rename(source)
    assert compose.outdated_files(container, root) == [str(source)]
    assert compose.outdated_files({**container, "State": {"Running": False, "Pid": 0}}, root) == []


@pytest.mark.parametrize(
    ("state", "health", "expected"),
    [
        ("running", "", True),
        ("running", "healthy", True),
        ("running", "starting", False),
        ("running", "unhealthy", False),
        ("exited", "", False),
        ("restarting", "", False),
    ],
)
def test_which_services_are_well(state, health, expected):
    assert compose.well({"state": state, "health": health}) is expected
