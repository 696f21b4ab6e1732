# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardening of a copy of a host's files: what is changed, what is noted, and that the way back leads to where it began."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _hardening
from ansible_collections.civitas.hosting.plugins.module_utils._hardening import Account, Hardening, HardeningError

DEFS = "# comment UMASK 1\nMAIL_DIR\t/var/mail\nUMASK\t\t022\nPASS_MAX_DAYS\t99999\n"
YESCRYPT = "$y$j9T$abc$def"
PROFILE = (
    "Name: x\nDefault: no\nSession-Type: Additional\nSession:\n\t[success=1 default=ignore]\tpam_a.so quiet\n\toptional\tpam_b.so x y\n"
)


class Host:
    """Files below a directory, and the package manager's and PAM's programs as far as they touch them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        self.overrides: dict[str, str] = {}
        self.answers: dict[str, tuple[int, str, str]] = {}
        self.merges = True
        self.armed: list[Sequence[str]] = []

    def write(self, path: str, text: str, mode: int = 0o644) -> Path:
        file = Path(f"{self.root}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def read(self, path: str) -> str:
        return Path(f"{self.root}{path}").read_text()

    def mode(self, path: str) -> int:
        return stat.S_IMODE(os.stat(f"{self.root}{path}").st_mode)

    def run(self, command: Sequence[str]) -> tuple[int, str, str]:
        self.calls.append(list(command))
        name = " ".join(command[:2])
        if name in self.answers:
            return self.answers[name]
        if command[0] == "dpkg-statoverride":
            return self._statoverride(command)
        if command[0] == "dpkg-query":
            return (0, f"mount: {command[2]}\n", "") if command[2] == "/bin/mount" else (1, "", "no path found")
        if command[0] == "pam-auth-update" and self.merges:
            self._merge(command[3:])
        return 0, "", ""

    def _statoverride(self, command: Sequence[str]) -> tuple[int, str, str]:
        if command[1] == "--list":
            return 0, "".join(f"root root {mode} {path}\n" for path, mode in self.overrides.items()), ""
        if "--remove" in command:
            del self.overrides[command[-1]]
        else:
            mode, path = command[-2:]
            self.overrides[path] = mode
            os.chmod(f"{self.root}{path}", int(mode, 8))
        return 0, "", ""

    def _merge(self, profiles: Sequence[str]) -> None:
        lines = []
        for profile in profiles:
            if Path(f"{self.root}/usr/share/pam-configs/{profile}").exists():
                for rule in _hardening.pam_lines(self.read(f"/usr/share/pam-configs/{profile}"))["Session"]:
                    lines.append(f"session\t[success=2 default=ignore]\t{rule}\n")
        for stack in ("common-session", "common-session-noninteractive"):
            self.write(f"/etc/pam.d/{stack}", "session required pam_unix.so\n" + "".join(lines))

    def apply(self, topics: dict, check: bool = False, **how) -> dict[str, list[str]]:
        hardening = Hardening(self.run, check, str(self.root), self.armed.append)
        hardening.apply(topics, **how)
        return hardening.changes


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.write("/etc/login.defs", DEFS, 0o640)
    host.write("/etc/issue", "Distribution 1\n")
    host.write("/usr/bin/chfn", "", 0o4755)
    host.write("/usr/share/pam-configs/ours", PROFILE)
    host.write("/etc/pam.d/common-session", "session required pam_unix.so\n")
    host.write("/etc/pam.d/common-session-noninteractive", "session required pam_unix.so\n")
    host.write("/etc/passwd", "root:x:0:0::/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/bash\n")
    host.write("/etc/shadow", f"root:*:1:0:99999:7:::\nann:{YESCRYPT}:1:0:99999:7:::\n")
    return host


ALL = {
    "umask": {"settings": {"/etc/login.defs": {"UMASK": "027", "NEW": "x"}}, "pam_profiles": ["ours"]},
    "passwords": {"settings": {"/etc/login.defs": {"PASS_MAX_DAYS": 365}}},
    "banners": {"texts": {"/etc/issue": "Beware\n", "/etc/other": "Beware\n"}},
    "suid": {"modes": {"/usr/bin/chf*": "0755"}},
}


def test_everything_is_applied_once_and_undone_to_where_it_began(host: Host) -> None:
    host.apply(ALL)
    assert host.read("/etc/login.defs") == "# comment UMASK 1\nMAIL_DIR\t/var/mail\nUMASK\t027\nPASS_MAX_DAYS\t365\nNEW\tx\n"
    assert host.mode("/etc/login.defs") == 0o640
    assert host.read("/etc/issue") == host.read("/etc/other") == "Beware\n"
    assert host.mode("/usr/bin/chfn") == 0o755
    assert "pam_b.so x y" in host.read("/etc/pam.d/common-session-noninteractive")
    assert host.apply(ALL) == {}
    assert host.apply({})
    assert host.read("/etc/login.defs") == DEFS
    assert host.read("/etc/issue") == "Distribution 1\n"
    assert not Path(f"{host.root}/etc/other").exists()
    assert host.mode("/usr/bin/chfn") == 0o4755
    assert host.overrides == {}
    assert "pam_b" not in host.read("/etc/pam.d/common-session")
    assert host.apply({}) == {}


def test_check_mode_says_the_same_and_changes_nothing(host: Host) -> None:
    before = {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file()}
    predicted = host.apply(ALL, check=True)
    assert {path: path.read_bytes() for path in host.root.rglob("*") if path.is_file()} == before
    assert not [call for call in host.calls if call != ["dpkg-statoverride", "--list"]]
    assert host.apply(ALL) == predicted


def test_what_somebody_changed_since_is_theirs_when_a_topic_ends(host: Host) -> None:
    host.apply(ALL)
    host.write("/etc/issue", "Mine\n")
    host.write("/etc/login.defs", host.read("/etc/login.defs").replace("027", "077"))
    host.apply({})
    assert host.read("/etc/issue") == "Mine\n"
    assert "UMASK\t077" in host.read("/etc/login.defs")
    assert "PASS_MAX_DAYS\t99999" in host.read("/etc/login.defs")


def test_the_state_that_was_changed_by_hand_is_restored_when_wanted_and_the_first_one_when_not(host: Host) -> None:
    host.apply(ALL)
    host.write("/etc/login.defs", host.read("/etc/login.defs").replace("UMASK\t027", "UMASK 022"))
    assert host.apply(ALL, check=True) == {"umask": ["wrote /etc/login.defs"]}
    host.apply(ALL)
    assert "UMASK\t027" in host.read("/etc/login.defs")


def test_note_is_written_before_the_change(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(source: str, target: str) -> None:
        if not target.endswith(_hardening.STATE):
            raise KeyboardInterrupt
        os.replace(source, target)

    monkeypatch.setattr(os, "rename", crash)
    with pytest.raises(KeyboardInterrupt):
        host.apply({"banners": ALL["banners"]})
    monkeypatch.undo()
    assert host.read("/etc/issue") == "Distribution 1\n"
    assert "Distribution 1" in host.read(_hardening.STATE)
    assert [path.name for path in (host.root / "etc").iterdir() if path.name.startswith(".civitas")] == []
    host.apply({"banners": ALL["banners"]})
    host.apply({})
    assert host.read("/etc/issue") == "Distribution 1\n"


def test_part_passes_over_the_other_topics(host: Host) -> None:
    host.apply(ALL)
    for name, topic in ALL.items():
        assert host.apply({name: topic}, check=True, undo=False) == {}
    host.write("/etc/issue", "other\n")
    assert host.apply({"suid": ALL["suid"]}, check=True, undo=False) == {}
    assert host.apply({"banners": ALL["banners"]}, check=True, undo=False) == {"banners": ["wrote /etc/issue"]}


def test_override_of_an_administrator_stays(host: Host) -> None:
    host.overrides["/usr/bin/chfn"] = "4750"
    assert host.apply({"suid": ALL["suid"]}) == {}


def test_mode_that_came_back_is_found(host: Host) -> None:
    host.apply({"suid": ALL["suid"]})
    (host.root / "usr/bin/chfn").chmod(0o4755)
    assert host.apply({"suid": ALL["suid"]}) == {"suid": ["mode of /usr/bin/chfn: 0755"]}
    assert host.mode("/usr/bin/chfn") == 0o755
    host.apply({})
    assert host.mode("/usr/bin/chfn") == 0o4755


def test_program_is_named_as_its_package_has_it(host: Host) -> None:
    host.write("/usr/bin/mount", "", 0o4755)
    (host.root / "bin").symlink_to("usr/bin")
    host.apply({"suid": {"modes": {"/usr/bin/mount": "0755"}}})
    assert host.overrides == {"/bin/mount": "0755"}
    assert host.apply({"suid": {"modes": {"/usr/bin/mount": "0755"}}}) == {}


def test_pam_is_armed_before_it_changes_and_only_then(host: Host) -> None:
    host.apply({"suid": ALL["suid"]})
    assert host.armed == []
    host.apply({"umask": ALL["umask"]})
    assert host.armed == [_hardening.PAM_PATHS]


def test_pam_that_was_edited_by_hand_is_an_error_that_says_what_to_do(host: Host) -> None:
    host.merges = False
    with pytest.raises(HardeningError, match=r"common-session lacks 'pam_a\.so quiet'.*pam-auth-update --force"):
        host.apply({"umask": ALL["umask"]})


def test_profile_that_is_not_there_is_named(host: Host) -> None:
    with pytest.raises(HardeningError, match="there is no /usr/share/pam-configs/missing"):
        host.apply({"umask": {"pam_profiles": ["missing"]}})


AGEING = {"passwords": {"ageing": {"maximum_days": 365, "minimum_days": 1, "warning_days": 14}}}


@pytest.mark.parametrize(
    ("name", "uid", "password", "maximum", "command"),
    [
        ("ann", 1000, YESCRYPT, "99999", ["chage", "--maxdays", "365", "--mindays", "1", "--warndays", "14", "ann"]),
        ("ann", 1000, "!", "365", ["chage", "--maxdays", "-1", "ann"]),
        ("ann", 1000, "!" + YESCRYPT, "365", ["chage", "--maxdays", "-1", "ann"]),
        ("ann", 1000, "*", "", None),
        ("ann", 1000, "!", "99999", None),
        ("root", 0, YESCRYPT, "99999", None),
        ("service", 999, YESCRYPT, "99999", None),
        ("nobody", 65534, YESCRYPT, "99999", None),
    ],
)
def test_only_passwords_of_people_age(host: Host, name: str, uid: int, password: str, maximum: str, command: list[str] | None) -> None:
    host.write("/etc/passwd", f"{name}:x:{uid}:{uid}::/:/bin/bash\n")
    host.write("/etc/shadow", f"{name}:{password}:1:0:{maximum}:7:::\n")
    host.apply(AGEING)
    assert [call for call in host.calls if call[0] == "chage"] == ([command] if command else [])


def test_empty_password_is_locked(host: Host) -> None:
    host.write("/etc/shadow", "ann::1:0:99999:7:::\n")
    assert host.apply({"accounts": {"lock_empty_passwords": True}}) == {"accounts": ["ann had an empty password: locked"]}
    assert ["usermod", "--lock", "ann"] in host.calls


@pytest.mark.parametrize(
    ("status", "check", "loaded", "changed", "warned"),
    [
        ((1, "", "Operation not permitted"), "changed", "", False, False),
        ((0, "enabled 1\n", ""), "No change", "-w /etc/passwd -p wa -k civitas-identity\n", False, False),
        ((0, "enabled 1\n", ""), "No change", "No rules\n", True, False),
        ((0, "enabled 1\n", ""), "Rules have changed", "-w /etc/passwd -p wa -k civitas-identity\n", True, False),
        ((0, "enabled 2\n", ""), "Rules have changed", "-w /etc/passwd -p wa -k civitas-identity\n", False, True),
        ((0, "enabled 0\n", ""), "No change", "-w /etc/passwd -p wa -k civitas-identity\n", True, False),
        ((0, "enabled 2\n", ""), "No change", "No rules\n", False, True),
    ],
)
def test_audit_rules_are_loaded_when_the_kernel_has_others(
    host: Host, status: tuple[int, str, str], check: str, loaded: str, changed: bool, warned: bool
) -> None:
    # The second one cannot be loaded: nobody has made its directory.
    host.write(_hardening.AUDIT_RULES, "-w /etc/passwd -p wa -k civitas-identity\n-w /srv/none/file -p wa -k civitas-x\n")
    host.answers = {"auditctl -s": status, "augenrules --check": (0, check, ""), "auditctl -l": (0, loaded, "")}
    hardening = Hardening(host.run, False, str(host.root))
    hardening.apply({"audit": {"audit_rules": True}})
    assert bool(hardening.changes) is changed is (["augenrules", "--load"] in host.calls)
    assert bool(hardening.warnings) is warned


@pytest.mark.parametrize("immutable", [False, True])
def test_audit_rules_are_loaded_again_for_directories_that_are_new(host: Host, immutable: bool) -> None:
    """The kernel would watch the directory only, and nothing in it."""
    rule = "-w /etc/docker -p wa -k civitas-docker\n"
    host.write(_hardening.AUDIT_RULES, rule)
    boot = host.write(_hardening.BOOT, "one\n")
    enabled = f"enabled {2 if immutable else 1}\n"
    host.answers = {"auditctl -s": (0, enabled, ""), "augenrules --check": (0, "No change", ""), "auditctl -l": (0, rule, "")}

    def loads() -> tuple[bool, bool]:
        host.calls.clear()
        hardening = Hardening(host.run, False, str(host.root))
        hardening.apply({"audit": {"audit_rules": True}})
        assert hardening.changes == {}
        return ["augenrules", "--load"] in host.calls, bool(hardening.warnings)

    assert loads() == (False, False)
    host.write("/etc/docker/daemon.json", "{}")
    assert loads() == (not immutable, immutable)
    if immutable:
        boot.write_text("two\n")
    assert loads() == (False, False)


@pytest.mark.parametrize(
    ("topics", "words"),
    [
        ({"a": []}, "a: a mapping is expected"),
        ({"a": {"mode": {}}}, "no such key 'mode'; known are settings"),
        ({"a": {"texts": []}}, "'texts' must be a mapping"),
        ({"a": {"modes": {"bin/x": "0755"}}}, "absolute path"),
        ({"a": {"modes": {"/bin/x": "u+s"}}}, "octal mode"),
        ({"a": {"ageing": {"max": 1}}}, "no such ageing 'max'"),
    ],
)
def test_topics_that_are_written_wrongly_are_named(topics: dict, words: str) -> None:
    with pytest.raises(HardeningError, match=words):
        _hardening.check_topics(topics)


def test_damaged_notes_are_an_error(host: Host) -> None:
    host.write(_hardening.STATE, "{")
    with pytest.raises(HardeningError, match="is damaged"):
        host.apply({})


def account(name: str, uid: int, shell: str = "/usr/sbin/nologin", password: str = "*") -> Account:
    return Account(name, uid, shell, password, "", "", "")


def test_accounts_are_judged() -> None:
    found = [
        account("root", 0, "/bin/bash"),
        account("daemon", 1),
        account("postgres", 101, "/bin/bash"),
        account("odd", 102, "/bin/bash"),
        account("toor", 0, "/bin/bash"),
        account("ann", 1000, "/bin/bash", ""),
    ]
    assert _hardening.review_accounts(found, ["/bin/bash"], ["postgres"]) == [
        "the system account odd has the shell /bin/bash",
        "toor has the number 0: it is a second root",
        "ann has an empty password",
    ]


def test_programs_are_judged() -> None:
    def run(command: Sequence[str]) -> tuple[int, str, str]:
        assert command[0] == "find" and "/var/lib/docker" in command
        return 0, "4755 /usr/bin/sudo\n4755 /home/ann/x y\n2755 /usr/lib/a/utempter\n", ""

    assert _hardening.review_suid(run, ["/usr/bin/sudo", "/usr/lib/*/utempter"]) == ["4755 /home/ann/x y"]


@pytest.mark.parametrize(
    ("rules", "container", "ok"),
    [
        ((0, "-k civitas-identity\n", ""), False, True),
        ((0, "No rules\n", ""), True, False),
        ((1, "", "no"), False, False),
        ((1, "", "no"), True, True),
    ],
)
def test_audit_is_judged(rules: tuple[int, str, str], container: bool, ok: bool) -> None:
    assert (
        _hardening.review_audit(lambda command: rules if command[0] == "auditctl" else (int(not container), "", ""), "civitas-identity")[0]
        is ok
    )


def test_audit_that_is_switched_off_is_told_whatever_the_rules() -> None:
    answers = {"-l": "-w /etc/passwd -p wa -k civitas-identity\n", "-s": "enabled 0\nfailure 1\n"}
    assert _hardening.review_audit(lambda command: (0, answers[command[1]], ""), "civitas-identity") == (
        False,
        "auditing is switched off in the kernel, whatever the rules are",
    )


@pytest.mark.parametrize(
    ("enabled", "profiles", "container", "ok"),
    [
        ("Y\n", "a (enforce)\n", False, True),
        ("Y\n", "", False, False),
        ("N\n", "", False, False),
        (None, "", False, False),
        (None, "", True, True),
    ],
)
def test_apparmor_is_judged(tmp_path: Path, enabled: str | None, profiles: str, container: bool, ok: bool) -> None:
    host = Host(tmp_path)
    if enabled is not None:
        host.write("/sys/module/apparmor/parameters/enabled", enabled)
    host.write("/sys/kernel/security/apparmor/profiles", profiles)
    assert _hardening.review_apparmor(lambda _command: (int(not container), "", ""), f"{tmp_path}/")[0] is ok
