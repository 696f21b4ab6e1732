# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd, PAM, files and chrony say against what is wanted. That they say so is proven on hosts by the scenario `access`."""

from __future__ import annotations

import os
import pwd

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _access_program as program

OURS = """\
# Managed
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_rsa_key
AllowGroups civitas-people civitas-automation
PermitRootLogin no
DebianBanner no
AuthorizedPrincipalsCommand none
LogLevel VERBOSE
"""
EFFECTIVE = """\
port 22
hostkey /etc/ssh/ssh_host_rsa_key
hostkey /etc/ssh/ssh_host_ed25519_key
allowgroups civitas-people
allowgroups civitas-automation
permitrootlogin no
loglevel VERBOSE
"""
CONFIG = {
    "port": 22,
    "second_factor": True,
    "grace_until": "",
    "clock_tolerance": 5,
    "people": ["ann"],
    "excepted_people": ["kate"],
    "bypass": ["deploy"],
    "bypass_address": "192.0.2.1",
    "root_login": False,
}


def test_our_file_is_in_force():
    assert program.ineffective(OURS, program.parse_settings(EFFECTIVE)) == []


@pytest.mark.parametrize(
    ("instead", "words"),
    [
        (("port 22", "port 22\nport 2222"), "'port 22 2222', but"),
        (("permitrootlogin no", "permitrootlogin without-password"), "'permitrootlogin without-password', but"),
        (("allowgroups civitas-people\n", "allowgroups civitas-people\nallowgroups staff\n"), "staff"),
        (("loglevel VERBOSE\n", ""), "'loglevel nothing', but"),
    ],
)
def test_a_line_that_is_not_in_force_is_named(instead, words):
    (problem,) = program.ineffective(OURS, program.parse_settings(EFFECTIVE.replace(*instead)))
    assert words in problem


def test_what_is_written_otherwise_is_the_same():
    assert program.ineffective("PermitRootLogin prohibit-password\n", program.parse_settings("permitrootlogin without-password\n")) == []


def kinds_by_login(**other):
    return {(kind, user): wanted for kind, user, _address, wanted in program.kinds({**CONFIG, **other})}


def test_every_kind_of_login_is_asked_for_with_what_must_hold():
    found = kinds_by_login()
    assert {user: wanted["authenticationmethods"] for (_kind, user), wanted in found.items()} == {
        "ann": program.BOTH,
        "kate": "publickey",
        "deploy": "publickey",
        "nobody": program.BOTH,
        "root": program.BOTH,
    }
    assert {wanted["passwordauthentication"] for wanted in found.values()} == {"no"}
    assert {wanted["permitrootlogin"] for wanted in found.values()} == {"no"}


def test_root_as_the_automation_may_log_in_from_its_address_only():
    found = kinds_by_login(root_login=True, bypass=["root"])
    assert found[("root", "root")]["permitrootlogin"] == "without-password"
    assert found[("unknown", "nobody")]["permitrootlogin"] == "no"


def test_without_a_second_factor_the_key_is_all():
    found = kinds_by_login(second_factor=False)
    assert {wanted["authenticationmethods"] for wanted in found.values()} == {"publickey"}
    assert all("kbdinteractiveauthentication" not in wanted for wanted in found.values())


def test_a_foreign_match_is_found_through_includes(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "main").write_text("Include d/*.conf\nUsePAM yes\n")
    (tmp_path / "d" / "10.conf").write_text("X11Forwarding no\nMatch User bob\n  ForceCommand none\n  PasswordAuthentication=yes\n")
    (tmp_path / "d" / "20.conf").write_text("PasswordAuthentication no\n")
    (problem,) = program.foreign_matches(program.config_files(str(tmp_path / "main")))
    assert "10.conf, line 4: 'PasswordAuthentication=yes'" in problem


def test_our_own_match_is_no_problem():
    assert program.foreign_matches([(program.EXCEPTIONS, 3, "AuthenticationMethods publickey", True)]) == []


def test_an_include_that_includes_itself_ends(tmp_path):
    (tmp_path / "main").write_text("Include main\nMatch User x\nAllowUsers x\n")
    assert program.foreign_matches(program.config_files(str(tmp_path / "main")))


# --- host keys


def key_file(tmp_path, mode=0o600):
    path = tmp_path / "ssh_host_rsa_key"
    path.write_text("key")
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("mode", "answer", "words"),
    [
        (0o600, (0, "3072 SHA256:x root@host (RSA)"), []),
        (0o600, (0, "256 SHA256:x root@host (ED25519)"), []),
        (0o600, (0, "2048 SHA256:x root@host (RSA)"), ["has 2048 bits, wanted 3072"]),
        (0o644, (0, "3072 SHA256:x root@host (RSA)"), ["chmod 0600"]),
        (0o600, (1, "is not a key file"), ["ssh-keygen -A"]),
    ],
)
def test_host_keys_are_long_and_private(tmp_path, mode, answer, words):
    problems = program.host_key_problems([key_file(tmp_path, mode)], lambda argv: answer)
    assert [word in problem for word, problem in zip(words, problems, strict=True)] == [True] * len(words)


# --- PAM

CODE = f"auth required pam_google_authenticator.so user=root secret={program.SECRETS}/${{USER}} noskewadj\n"
REST = """\
account required pam_unix.so no_pass_expiry
@include common-session
session [default=bad module_unknown=ignore] pam_selinux.so close
"""


def pam(tmp_path, text, **other):
    security = tmp_path / "lib" / "x86_64-linux-gnu" / "security"
    security.mkdir(parents=True, exist_ok=True)
    for name in ("pam_google_authenticator.so", "pam_unix.so", "pam_deny.so", "pam_exec.so"):
        (security / name).touch()
    (tmp_path / "sshd").write_text(text)
    return program.pam_problems({**CONFIG, **other}, str(tmp_path / "sshd"), [str(tmp_path / "lib")])


def test_the_code_and_nothing_else_is_right(tmp_path):
    assert pam(tmp_path, CODE + REST) == []
    assert pam(tmp_path, "auth required pam_deny.so\n" + REST, second_factor=False) == []
    grace = f"auth [success=done default=ignore] pam_exec.so quiet {program.GRACE}\n"
    assert pam(tmp_path, grace + CODE + REST, grace_until="2027-01-31") == []


@pytest.mark.parametrize(
    "text",
    [
        CODE.replace("noskewadj", "noskewadj nullok") + REST,
        "@include common-auth\n" + CODE + REST,
        CODE + "auth sufficient pam_permit.so\n" + REST,
        f"auth [success=done default=ignore] pam_exec.so quiet {program.GRACE}\n" + CODE + REST,
        "auth required pam_deny.so\n" + REST,
        "-auth required pam_permit.so\n" + CODE + REST,
        "auth \\\n sufficient pam_permit.so\n" + CODE + REST,
        REST,
    ],
    ids=["nullok", "include", "permit", "grace", "none", "optional", "two lines", "empty"],
)
def test_anything_less_is_named(tmp_path, text):
    assert any("asks for" in problem for problem in pam(tmp_path, text))


def test_a_missing_module_is_named_unless_it_may_be_missing(tmp_path):
    (problem,) = pam(tmp_path, CODE + REST + "session required pam_limits.so\n")
    assert "pam_limits.so, which is not there" in problem


def test_a_missing_file_is_named(tmp_path):
    (problem,) = program.pam_problems(CONFIG, str(tmp_path / "none"))
    assert "No such file" in problem


# --- secrets


def secrets(tmp_path, **other):
    return program.secrets_problems({**CONFIG, **other}, str(tmp_path / "secrets"), os.getuid())


def test_secrets_are_there_and_private(tmp_path):
    directory = tmp_path / "secrets"
    assert "is not there" in secrets(tmp_path)[0]
    assert secrets(tmp_path, second_factor=False) == []
    directory.mkdir(mode=0o700)
    assert "no secret for ann" in secrets(tmp_path)[0]
    assert secrets(tmp_path, grace_until="9999-12-31") == []
    (directory / "ann").touch(mode=0o400)
    assert secrets(tmp_path) == []
    (directory / "ann").chmod(0o440)
    assert "ann is not a file of root's alone" in secrets(tmp_path)[0]
    (directory / "ann").chmod(0o600)
    directory.chmod(0o755)
    assert "is not root's alone" in secrets(tmp_path)[0]


# --- the way around


def test_somebody_gets_in_without_a_code(tmp_path):
    name = pwd.getpwuid(os.getuid()).pw_name
    config = {**CONFIG, "bypass": ["nobody-of-this-name", name]}
    assert "has no key" in program.bypass_problems(config, str(tmp_path), 0)[1]
    (tmp_path / name).write_text("# nothing\n\n")
    assert len(program.bypass_problems(config, str(tmp_path), 0)) == 2
    (tmp_path / name).write_text("ssh-ed25519 AAAA\n")
    assert program.bypass_problems(config, str(tmp_path), 0) == []
    assert "civitas_break_glass" in program.bypass_problems({**config, "bypass": []})[0]
    assert program.bypass_problems({**config, "bypass": [], "second_factor": False}) == []


def test_an_account_without_a_shell_is_no_way(tmp_path):
    (tmp_path / "nobody").write_text("ssh-ed25519 AAAA\n")
    (problem,) = program.bypass_problems({**CONFIG, "bypass": ["nobody"]}, str(tmp_path), 0)
    assert "has no shell" in problem


@pytest.mark.parametrize(("field", "expired"), [("", False), ("20000", True), ("20001", False), ("1", True)])
def test_the_day_of_the_end_counts(tmp_path, field, expired):
    (tmp_path / "shadow").write_text(f"other:*:1:0:99999:7:::\nann:!:19000:0:99999:7::{field}:\n")
    assert program._expired("ann", 20000, str(tmp_path / "shadow")) is expired


# --- the clock

# As chrony 4.3 and 4.6 say it.
GOOD = "CB00710F,203.0.113.15,2,1795270000.1,0.000012,-0.000034,0.000040,-1.2,0.001,0.05,0.012,0.0007,64.2,Normal"
LOST = "00000000,,0,0.0,0.000000000,0.000000000,0.000000000,0.000,0.000,0.000,1.000000000,1.000000000,0.0,Not synchronised"


def test_a_clock_that_is_kept_is_right():
    assert program.judge_tracking(GOOD, 5)[0] == ""


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (LOST, "knows no right time yet"),
        (GOOD.replace("0.000012", "-6.5"), "may be off by 6.5 s"),
        (GOOD.replace(",0.0007,", ",9.0,"), "may be off by 9.0 s"),
        ("506 Cannot talk to daemon", "not understood"),
    ],
)
def test_a_clock_that_is_not_known_to_be_right_is_named(line, words):
    assert words in program.judge_tracking(line, 5)[0]


def answers(**known):
    return lambda argv: known.get(argv[0].replace("-", "_"), (127, "not installed"))


def test_who_keeps_the_clock_is_found_out():
    assert program.clock_state(5, answers(systemd_detect_virt=(0, "docker")))[0] == ""
    assert program.clock_state(5, answers(systemd_detect_virt=(1, "none"), chronyc=(0, GOOD)))[0] == ""
    assert "no right time" in program.clock_state(5, answers(chronyc=(0, LOST)))[0]
    assert program.clock_state(5, answers(timedatectl=(0, "yes")))[0] == ""
    assert "run chrony" in program.clock_state(5, answers(timedatectl=(0, "no")))[0]


def test_no_code_no_clock():
    assert program.clock_problems(CONFIG, answers(chronyc=(0, LOST)))
    assert program.clock_problems({**CONFIG, "second_factor": False}, answers(chronyc=(0, LOST))) == []


def test_the_program_says_what_is_missing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(program, "CONFIG", str(tmp_path / "none"))
    monkeypatch.setattr(program.read_config, "__defaults__", (str(tmp_path / "none"),))
    assert program.main(["pam"]) == 1
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.main(["pan"])
