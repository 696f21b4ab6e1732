# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose keys are the ones of before: by the key itself, across a run that was cut off."""

from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._user_keys import UserKeyError, UserKeys
from ansible_collections.civitas.hosting.plugins.modules.rotate_user_keys import prove

A, B, C = (f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{letter * 43}" for letter in "ABC")


class Host:
    def __init__(self, base):
        self.keys = base / "keys"
        self.keys.mkdir()
        self.before = base / "state" / "before.json"

    def has(self, **accounts):
        for path in self.keys.iterdir():
            path.unlink()
        for name, lines in accounts.items():
            (self.keys / name).write_text("".join(f"{line}\n" for line in lines))

    @property
    def rotation(self):
        # Anew each time, as each module call is.
        return UserKeys(str(self.keys), str(self.before))


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.mark.parametrize(
    "now",
    [
        {"ann": [A]},
        {"ann": [A, B]},
        {"ann": [B, f"{A} another@comment"]},
        {"ann": [f'from="192.0.2.7",no-pty {A} ann']},
        {"ann": [f'command="/bin/a b" {A}']},
        {"ann": [f"  {A.replace(' ', '   ')}="]},
        {"ann": [B], "ben": [A]},
    ],
)
def test_a_key_of_before_is_named_whatever_stands_around_it(host, now):
    host.has(ann=[f"{A} ann@home"])
    assert host.rotation.begin()
    host.has(**now)
    holder = "ben" if "ben" in now else "ann"
    assert host.rotation.same() == [holder]
    with pytest.raises(UserKeyError, match=f": {holder}[.] Get a new public key"):
        prove(host.rotation, [])
    assert prove(host.rotation, [holder]) == [holder]


def test_keys_that_are_new_pass_and_what_is_no_key_is_left_out(host):
    host.has(ann=[A], ben=[A, B])
    host.rotation.begin()
    host.has(ann=[C, f"# {A}"], ben=["", C])
    (host.keys / ".ann-x1").write_text(A)
    assert prove(host.rotation, []) == []


def test_a_second_run_compares_with_what_the_first_one_found(host):
    host.has(ann=[A], ben=[B])
    assert host.rotation.begin()
    host.has(ann=[C], ben=[B])
    # Cut off here. The new key of ann is no key of before.
    assert not host.rotation.begin()
    assert host.rotation.same() == ["ben"]
    host.has(ann=[C], ben=[A])
    assert host.rotation.same() == ["ben"]
    host.has(ann=[C], ben=[C])
    assert host.rotation.same() == []
    assert host.rotation.finish()
    assert not host.rotation.finish()
    assert host.rotation.since() == ""
    # Another rotation, on another day.
    assert host.rotation.begin()
    assert host.rotation.same() == ["ann", "ben"]


def test_a_host_without_the_directory_proves_nothing(host):
    host.keys.rmdir()
    with pytest.raises(UserKeyError, match="Run the site playbook first"):
        host.rotation.begin()
    assert not host.before.exists()


def test_nothing_is_proven_without_what_was_before(host):
    host.has(ann=[A])
    with pytest.raises(UserKeyError, match="state: begun"):
        host.rotation.same()
    host.rotation.begin()
    host.before.write_text("{")
    with pytest.raises(UserKeyError, match="damaged"):
        host.rotation.same()


def test_check_mode_notes_and_forgets_nothing(host):
    host.has(ann=[A])
    assert host.rotation.begin(check_mode=True)
    assert not host.before.exists()
    host.rotation.begin()
    assert host.rotation.finish(check_mode=True)
    assert stat.S_IMODE(os.stat(host.before).st_mode) == 0o600
