# SPDX-License-Identifier: GPL-3.0-or-later
"""A profile is in effect when its lines are in the files that it adds to; what pam-auth-update does is tried in the scenario logins."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._pam_profile import Profile, ProfileError, rules_of

CONTENT = """\
Name: Greet
Default: yes
Priority: 0
Auth-Type: Additional
Auth:
  optional\tpam_echo.so a
Session-Type: Additional
Session:
  [success=ignore default=1] pam_succeed_if.so quiet service in login
  optional pam_echo.so  b
"""
SESSION = "# comment\nsession\t[success=ignore default=1] pam_succeed_if.so quiet service in login\nsession\toptional pam_echo.so b\n"
UPDATE = """#!/bin/sh
printf 'auth optional pam_echo.so a\\n' > {root}/etc/pam.d/common-auth
printf '{lines}' > {root}/etc/pam.d/common-session
echo "$@" >> {root}/arguments
"""


@pytest.fixture
def root(tmp_path):
    for directory in ("etc/pam.d", "usr/share/pam-configs", "usr/sbin"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("auth", "session"):
        (tmp_path / f"etc/pam.d/common-{file}").write_text("")
    return tmp_path


def update(root, lines):
    program = root / "usr/sbin/pam-auth-update"
    program.write_text(UPDATE.format(root=root, lines=lines.replace("\n", "\\n").replace("\t", "\\t")))
    program.chmod(0o755)


def test_rules():
    assert rules_of(CONTENT) == {
        "common-auth": ["auth optional pam_echo.so a"],
        "common-session": ["session [success=ignore default=1] pam_succeed_if.so quiet service in login", "session optional pam_echo.so b"],
    }


def test_it_is_brought_into_effect_once(root):
    update(root, SESSION)
    profile = Profile("greet", CONTENT, str(root))
    assert profile.differences() == [
        f"{root}/usr/share/pam-configs/greet",
        f"{root}/etc/pam.d/common-auth",
        f"{root}/etc/pam.d/common-session",
    ]
    profile.apply()
    assert profile.differences() == []
    assert (root / "arguments").read_text() == "--package --enable greet\n"


def test_a_line_that_somebody_has_taken_out_is_seen(root):
    update(root, SESSION)
    profile = Profile("greet", CONTENT, str(root))
    profile.apply()
    (root / "etc/pam.d/common-session").write_text("")
    assert profile.differences() == [f"{root}/etc/pam.d/common-session"]


def test_files_that_pam_auth_update_leaves_alone_are_an_error(root):
    update(root, "session required pam_unix.so\n")
    with pytest.raises(ProfileError, match=r"common-session.*pam-auth-update --force"):
        Profile("greet", CONTENT, str(root)).apply()


def test_it_is_taken_away(root):
    update(root, SESSION)
    Profile("greet", CONTENT, str(root)).apply()
    (root / "usr/sbin/pam-auth-update").write_text(f"#!/bin/sh\n: > {root}/etc/pam.d/common-auth\n: > {root}/etc/pam.d/common-session\n")
    none = Profile("greet", "", str(root))
    assert len(none.differences()) == 3
    none.apply()
    assert none.differences() == [] and not (root / "usr/share/pam-configs/greet").exists()
