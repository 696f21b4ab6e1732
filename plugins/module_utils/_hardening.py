# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hardening of what the distribution owns, topic by topic, with the way back noted before each change.

A topic that is no longer wanted is undone: its settings, texts and modes become what they were, unless somebody has changed them since.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import re
import stat
import tempfile
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _json_file

STATE = "/var/lib/civitas/hardening.json"
# What augenrules makes of all files of rules.
AUDIT_RULES = "/etc/audit/audit.rules"
BOOT = "/proc/sys/kernel/random/boot_id"
TOPIC_KEYS = ("settings", "texts", "modes", "pam_profiles", "ageing", "lock_empty_passwords", "audit_rules")
AGEING_KEYS = ("maximum_days", "minimum_days", "warning_days")
PAM_STACKS = {
    "Auth": ("common-auth",),
    "Account": ("common-account",),
    "Password": ("common-password",),
    "Session": ("common-session", "common-session-noninteractive"),
}
# Read again by nobody: what logs in next reads the new stacks.
PAM_PATHS = ("/var/lib/pam", *("/etc/pam.d/" + name for names in PAM_STACKS.values() for name in names))
# People's accounts; nobody (65534) and dynamic users are above.
FIRST_PERSON, LAST_PERSON = 1000, 59999
# Not the host's own files: images of containers, and file systems of others.
PRUNED = ("/proc", "/sys", "/dev", "/run", "/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/var/lib/kubelet", "/snap")

# Argument list -> exit code, standard output, standard error.
Run = t.Callable[[t.Sequence[str]], t.Tuple[int, str, str]]
Topics = t.Mapping[str, t.Mapping[str, t.Any]]


class HardeningError(Exception):
    """Something that cannot be done, or was asked for in a wrong way; the text says what to write or to do."""


class Account(t.NamedTuple):
    """A line of passwd with its line of shadow; the days are as there, empty when not set."""

    name: str
    uid: int
    shell: str
    password: str
    minimum: str
    maximum: str
    warning: str

    @property
    def has_password(self) -> bool:
        """Whether one can log in with a password: neither locked (!), nor none (*), nor empty."""
        return self.password.startswith(("$", "_")) or (len(self.password) == 13 and self.password[0] not in "!*")

    @property
    def is_person(self) -> bool:
        return FIRST_PERSON <= self.uid <= LAST_PERSON


def check_topics(topics: t.Any) -> None:
    """HardeningError when TOPICS is not a mapping of names to mappings of TOPIC_KEYS."""
    problems = []
    for name, topic in topics.items():
        if not isinstance(topic, dict):
            problems.append("%s: a mapping is expected" % name)
            continue
        for key, value in topic.items():
            kind = {"pam_profiles": list, "lock_empty_passwords": bool, "audit_rules": bool}.get(key, dict)
            if key not in TOPIC_KEYS:
                problems.append("%s: no such key '%s'; known are %s" % (name, key, ", ".join(TOPIC_KEYS)))
            elif not isinstance(value, kind):
                problems.append("%s: '%s' must be a %s" % (name, key, {dict: "mapping", list: "list", bool: "boolean"}[kind]))
        for pattern, mode in _items(topic, "modes"):
            if not re.match(r"/[^\s]+\Z", pattern) or not re.match(r"[0-7]{3,4}\Z", str(mode)):
                problems.append("%s: modes are an absolute path or pattern and an octal mode in quotes, not %r: %r" % (name, pattern, mode))
        unknown = [key for key, _days in _items(topic, "ageing") if key not in AGEING_KEYS]
        if unknown:
            problems.append("%s: no such ageing '%s'; known are %s" % (name, unknown[0], ", ".join(AGEING_KEYS)))
    if problems:
        raise HardeningError("; ".join(problems))


def _items(topic: t.Mapping[str, t.Any], key: str) -> t.Iterable[t.Tuple[str, t.Any]]:
    value = topic.get(key)
    return value.items() if isinstance(value, dict) else ()


class Hardening:
    """The host below ROOT. CHANGES: what was (with CHECK: would be) done, from topic to lines. DIFF: pairs of texts, by path."""

    def __init__(self, run: Run, check: bool, root: str = "/", arm: t.Optional[t.Callable[[t.Sequence[str]], object]] = None) -> None:
        self.run = run
        self.check = check
        self.root = root
        self.arm = arm
        self.changes: t.Dict[str, t.List[str]] = {}
        self.diff: t.Dict[str, t.Tuple[str, str]] = {}
        self.warnings: t.List[str] = []
        self.state: t.Dict[str, t.Any] = {}

    def apply(self, topics: Topics, undo: bool = True) -> None:
        """Bring the host into the state that TOPICS describe, and undo what earlier topics did that are not among them.

        Without UNDO, which goes with CHECK only, TOPICS are a part, and the others are passed over.

        HardeningError when a command fails or the PAM stacks do not become what they must be.
        """
        check_topics(topics)
        self.state = _read_state(self._path(STATE))
        if not undo:
            self.state = _part(self.state, topics)
        self._texts(topics)
        self._settings(topics)
        self._modes(topics)
        # Before what may end in an error of its own.
        self._accounts(topics)
        self._pam(topics)
        self._audit(topics)

    # --- files

    def _texts(self, topics: Topics) -> None:
        kept = self.state.setdefault("texts", {})
        wanted = {path: (name, text) for name, topic in topics.items() for path, text in _items(topic, "texts")}
        for path, (name, text) in sorted(wanted.items()):
            found = _text(self._path(path))
            if found == text:
                continue
            if path not in kept or found != kept[path]["ours"]:
                kept[path] = {"topic": name, "before": found}
            kept[path]["ours"] = text
            self._write(name, path, text)
        for path in sorted(set(kept) - set(wanted)):
            note = kept.pop(path)
            if _text(self._path(path)) == note["ours"]:
                self._write(note["topic"], path, note["before"])
            self._save()

    def _settings(self, topics: Topics) -> None:
        kept = self.state.setdefault("settings", {})
        wanted: t.Dict[str, t.Dict[str, t.Tuple[str, str]]] = {}
        for name, topic in topics.items():
            for path, settings in _items(topic, "settings"):
                for key, value in settings.items():
                    wanted.setdefault(path, {})[key] = (name, "%s\t%s" % (key, value))
        for path in sorted(set(wanted) | set(kept)):
            before = _text(self._path(path))
            if before is None:
                if self.check:
                    continue
                raise HardeningError("%s does not exist; install the package that it belongs to (dpkg --search %s)" % (path, path))
            lines = before.splitlines()
            notes = kept.setdefault(path, {})
            touched = []
            for key, (name, line) in sorted(wanted.get(path, {}).items()):
                found = _setting(lines, key)
                if found is not None and found.split() == line.split():
                    continue
                if key not in notes or (found or "").split() != notes[key]["ours"].split():
                    notes[key] = {"topic": name, "before": found}
                notes[key]["ours"] = line
                lines = _with_setting(lines, key, line)
                touched.append(name)
            for key in sorted(set(notes) - set(wanted.get(path, {}))):
                note = notes.pop(key)
                if (_setting(lines, key) or "").split() == note["ours"].split():
                    lines = _with_setting(lines, key, note["before"])
                    touched.append(note["topic"])
            if not notes:
                del kept[path]
            if touched:
                self._write(" and ".join(dict.fromkeys(touched)), path, "\n".join(lines) + "\n")

    def _write(self, topic: str, path: str, text: t.Optional[str]) -> None:
        self._changed(topic, "%s %s" % ("wrote" if text is not None else "removed", path))
        self.diff[path] = (_text(self._path(path)) or "", text or "")
        if self.check:
            return
        # The note of what was there comes first: a run that is cut off in between can still be undone.
        self._save()
        if text is None:
            os.unlink(self._path(path))
            return
        target = os.path.realpath(self._path(path))
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".civitas-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as stream:
                stream.write(text)
                stream.flush()
                old = os.stat(target) if os.path.exists(target) else None
                os.fchown(stream.fileno(), old.st_uid if old else 0, old.st_gid if old else 0)
                os.fchmod(stream.fileno(), stat.S_IMODE(old.st_mode) if old else 0o644)
                os.fsync(stream.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise

    # --- modes: overrides of the package manager, so that they outlast upgrades

    def _modes(self, topics: Topics) -> None:
        kept = self.state.setdefault("modes", {})
        wanted: t.Dict[str, t.Tuple[str, int, str]] = {}
        patterns = set()
        for name, topic in topics.items():
            for pattern, mode in _items(topic, "modes"):
                patterns.add(pattern)
                for path in self._matching(pattern):
                    wanted[path] = (name, int(str(mode), 8), pattern)
        overrides = self._overrides() if wanted or kept else {}
        for path, (name, mode, pattern) in sorted(wanted.items()):
            found = os.stat(self._path(path))
            foreign = path in overrides and path not in kept
            # Somebody decided about this file; that is theirs.
            if foreign or (stat.S_IMODE(found.st_mode) == mode and path in overrides and overrides[path] == mode):
                continue
            kept.setdefault(path, {"topic": name, "before": "%04o" % stat.S_IMODE(found.st_mode)})["pattern"] = pattern
            self._changed(name, "mode of %s: %04o" % (path, mode))
            if not self.check:
                self._save()
                if path in overrides:
                    self._do("dpkg-statoverride", "--quiet", "--remove", self._known_as(path))
                # Owner and group stay, by number: names may come from a directory service that is not there at boot.
                owner = ["#%d" % found.st_uid, "#%d" % found.st_gid, "%04o" % mode]
                self._do("dpkg-statoverride", "--update", "--force-all", "--add", *owner, self._known_as(path))
        for path in sorted(kept):
            if path in wanted or kept[path]["pattern"] in patterns:
                continue
            note = kept.pop(path)
            self._changed(note["topic"], "mode of %s: %s again" % (path, note["before"]))
            if not self.check:
                if path in overrides:
                    self._do("dpkg-statoverride", "--quiet", "--remove", self._known_as(path))
                if os.path.exists(self._path(path)):
                    os.chmod(self._path(path), int(note["before"], 8))
                self._save()

    def _matching(self, pattern: str) -> t.List[str]:
        """Files and directories that a pattern names, links resolved: a link has no mode."""
        found = {os.path.realpath(path) for path in glob.glob(self._path(pattern))}
        top = self.root.rstrip("/")
        return sorted(path[len(top) :] for path in found if path.startswith(top + "/") and os.path.exists(path))

    def _overrides(self) -> t.Dict[str, int]:
        _rc, out, _err = self.run(["dpkg-statoverride", "--list"])
        fields = [line.split(None, 3) for line in out.splitlines()]
        top = len(self.root.rstrip("/"))
        return {os.path.realpath(self._path(field[3]))[top:]: int(field[2], 8) for field in fields if len(field) == 4}

    def _known_as(self, path: str) -> str:
        """The path as its package has it: releases with a merged /usr still ship /bin/su, and an override of /usr/bin/su would not hold."""
        if re.match(r"/usr/(s?bin|lib[0-9a-z]*)/", path):
            _rc, out, _err = self.run(["dpkg-query", "--search", path[4:]])
            if out.rstrip().endswith(": " + path[4:]):
                return path[4:]
        return path

    # --- PAM

    def _pam(self, topics: Topics) -> None:
        kept = self.state.setdefault("pam_profiles", {})
        wanted = {profile: name for name, topic in topics.items() for profile in topic.get("pam_profiles", ())}
        missing = [profile for profile in sorted(wanted) if self._pam_problems(profile)]
        gone = sorted(set(kept) - set(wanted))
        for profile in missing:
            self._changed(wanted[profile], "PAM profile %s enabled" % profile)
        for profile in gone:
            self._changed(kept[profile], "PAM profile %s removed" % profile)
        if self.check or not (missing or gone):
            return
        if self.arm:
            self.arm(PAM_PATHS)
        kept.update(wanted)
        self._save()
        # A profile whose file is gone is dropped by --package, too.
        self._do("pam-auth-update", "--package", *(["--enable", *sorted(wanted)] if wanted else []))
        problems = [problem for profile in sorted(wanted) for problem in self._pam_problems(profile)]
        if problems:
            raise HardeningError(
                "pam-auth-update left the PAM stacks as they were: %s. Somebody has edited /etc/pam.d/common-* by hand. Look at the edits, "
                "run 'pam-auth-update --force' on the host, which drops them, and then this again; or switch the topic off, with a reason."
                % "; ".join(problems)
            )
        for profile in gone:
            del kept[profile]
        self._save()

    def _pam_problems(self, profile: str) -> t.List[str]:
        """What of a profile is not in the stacks."""
        text = _text(self._path("/usr/share/pam-configs/" + profile))
        if text is None:
            return ["there is no /usr/share/pam-configs/%s" % profile]
        problems = []
        for kind, lines in pam_lines(text).items():
            for stack in PAM_STACKS[kind]:
                present = [_module_of(line) for line in (_text(self._path("/etc/pam.d/" + stack)) or "").splitlines()]
                problems += ["%s lacks '%s'" % (stack, line) for line in lines if line not in present]
        return problems

    # --- accounts

    def _accounts(self, topics: Topics) -> None:
        for name, topic in topics.items():
            if topic.get("lock_empty_passwords"):
                for account in self.accounts():
                    if account.password == "":
                        self._changed(name, "%s had an empty password: locked" % account.name)
                        self._change("usermod", "--lock", account.name)
            ageing = topic.get("ageing")
            if ageing:
                for account in self.accounts():
                    self._age(name, account, ageing)

    def _age(self, topic: str, account: Account, ageing: t.Mapping[str, t.Any]) -> None:
        """People's passwords age. An account with a key only never does: its login would be refused, for a password that nobody has."""
        if not account.is_person:
            return
        found = (account.maximum, account.minimum, account.warning)
        if account.has_password:
            wanted = tuple(str(ageing[key]) for key in AGEING_KEYS)
            if found != wanted:
                self._changed(topic, "password of %s: changed at the latest after %s days" % (account.name, wanted[0]))
                self._change("chage", "--maxdays", wanted[0], "--mindays", wanted[1], "--warndays", wanted[2], account.name)
        elif account.maximum not in ("", "-1", "99999"):
            self._changed(topic, "%s has no password: no end for it" % account.name)
            self._change("chage", "--maxdays", "-1", account.name)

    def accounts(self) -> t.List[Account]:
        shadow = {}
        for line in (_text(self._path("/etc/shadow")) or "").splitlines():
            fields = line.split(":")
            if len(fields) >= 6:
                shadow[fields[0]] = fields
        result = []
        for line in (_text(self._path("/etc/passwd")) or "").splitlines():
            fields = line.split(":")
            if len(fields) == 7 and fields[2].isdigit():
                # Without a line in shadow the field of passwd counts, as it does for PAM.
                secret = shadow.get(fields[0], ["", fields[1], "", "", "", ""])
                result.append(Account(fields[0], int(fields[2]), fields[6], secret[1], secret[3], secret[4], secret[5]))
        return result

    # --- audit

    def _audit(self, topics: Topics) -> None:
        """Load the rules of /etc/audit/rules.d when the kernel has others. Where it lets this host not audit, as in containers: nothing."""
        for name, topic in topics.items():
            status = self.run(["auditctl", "-s"]) if topic.get("audit_rules") else (1, "", "")
            if status[0] != 0:
                continue
            _rc, compiled, _err = self.run(["augenrules", "--check"])
            _rc, loaded, _err = self.run(["auditctl", "-l"])
            enabled = re.search(r"^enabled (\d)$", status[1], re.MULTILINE)
            # A rule whose file has no directory yet cannot be loaded.
            possible = [path for path in self._watched() if os.path.isdir(self._path(os.path.dirname(path)))]
            differ = (
                "No change" not in compiled
                or (enabled is not None and enabled[1] == "0")
                or any("-w %s " % path not in loaded for path in possible)
            )
            # A directory that was made after its rule was loaded is watched, and what lies in it is not. The rule is the same all the same.
            noted = self.state.get("audit", {"boot": "", "directories": []})
            boot = (_text(self._path(BOOT)) or "").strip()
            grown = noted["boot"] == boot and not set(self._watched(os.path.isdir)) <= set(noted["directories"])
            if differ or grown:
                if enabled is not None and enabled[1] == "2":
                    self.warnings.append(
                        "The audit rules, or the directories that they are about, have changed since they were loaded, and they are "
                        "immutable until the next start: reboot the host to load them."
                    )
                    continue
                if differ:
                    self._changed(name, "audit rules loaded")
                self._change("augenrules", "--load")
            found = {"boot": boot, "directories": self._watched(os.path.isdir)}
            if found != noted:
                self.state["audit"] = found
                self._save()

    def _watched(self, only: t.Callable[[str], bool] = lambda _path: True) -> t.List[str]:
        """Files and directories that the audit rules watch."""
        found = re.findall(r"^-w\s+(\S+)", _text(self._path(AUDIT_RULES)) or "", re.MULTILINE)
        return [path for path in found if only(self._path(path))]

    # --- tools

    def _changed(self, topic: str, text: str) -> None:
        self.changes.setdefault(topic, []).append(text)

    def _path(self, path: str) -> str:
        return self.root.rstrip("/") + path

    def _save(self) -> None:
        if not self.check:
            os.makedirs(self._path(os.path.dirname(STATE)), exist_ok=True)
            _json_file.write_json(self._path(STATE), self.state, 0o600)

    def _change(self, *command: str) -> None:
        if not self.check:
            self._do(*command)

    def _do(self, *command: str) -> None:
        rc, out, err = self.run(command)
        if rc != 0:
            raise HardeningError("%s: %s" % (" ".join(command), (err or out).strip() or "exit code %d" % rc))


# --- what is read only, for reports and checks


def review_suid(run: Run, allowed: t.Sequence[str]) -> t.List[str]:
    """Programs on the host's own file systems that run with another's rights and match none of the patterns, as 'mode path'."""
    command = ["find", "/", "-xdev", "("]
    for path in PRUNED:
        command += ["-path", path, "-o"]
    command[-1:] = [")", "-prune", "-o", "-type", "f", "-perm", "/6000", "-printf", "%m %p\\n"]
    _rc, out, _err = run(command)
    return sorted(line for line in out.splitlines() if not any(fnmatch.fnmatch(line.partition(" ")[2], one) for one in allowed))


def review_accounts(accounts: t.Sequence[Account], shells: t.Sequence[str], allowed: t.Sequence[str]) -> t.List[str]:
    """What is wrong with accounts: a second root, an empty password, a system account that can log in. SHELLS: the valid ones."""
    problems = []
    for account in accounts:
        if account.uid == 0 and account.name != "root":
            problems.append("%s has the number 0: it is a second root" % account.name)
        if account.password == "":
            problems.append("%s has an empty password" % account.name)
        if 0 < account.uid < FIRST_PERSON and account.shell in shells and account.name not in allowed:
            problems.append("the system account %s has the shell %s" % (account.name, account.shell))
    return problems


def review_audit(run: Run, key: str) -> t.Tuple[bool, str]:
    """Whether the kernel has rules with this key, and heeds them; evidence."""
    rc, out, err = run(["auditctl", "-l"])
    if rc != 0 and _in_container(run):
        return True, "the kernel lets no container audit; its host does"
    if rc == 0 and re.search(r"^enabled 0$", run(["auditctl", "-s"])[1], re.MULTILINE):
        return False, "auditing is switched off in the kernel, whatever the rules are"
    rules = [line for line in out.splitlines() if key in line]
    return bool(rules), "%d rules with %s" % (len(rules), key) if rc == 0 else (err or out).strip() or "auditctl is not installed"


def review_apparmor(run: Run, root: str = "/") -> t.Tuple[bool, str]:
    """Whether the kernel enforces AppArmor's profiles; evidence."""
    if (_text(root + "sys/module/apparmor/parameters/enabled") or "").strip() != "Y":
        return _in_container(run), "the kernel has no AppArmor" + (", or not for this container" if _in_container(run) else " enabled")
    try:
        profiles = _text(root + "sys/kernel/security/apparmor/profiles")
    except PermissionError:
        profiles = None
    if profiles is None and _in_container(run):
        return True, "the profiles are those of the container's host"
    count = len((profiles or "").splitlines())
    return count > 0, "%d profiles are loaded" % count


def _in_container(run: Run) -> bool:
    return run(["systemd-detect-virt", "--quiet", "--container"])[0] == 0


def valid_shells(text: str) -> t.List[str]:
    """The lines of /etc/shells."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def pam_lines(profile: str) -> t.Dict[str, t.List[str]]:
    """Modules with their arguments by kind (keys of PAM_STACKS), as a profile of pam-auth-update wants them below the first position."""
    lines: t.Dict[str, t.List[str]] = {}
    kind = ""
    for line in profile.splitlines():
        heading = re.match(r"([A-Za-z-]+):", line)
        if heading:
            kind = heading.group(1) if heading.group(1) in PAM_STACKS else ""
        elif kind and line[:1].isspace() and line.strip():
            lines.setdefault(kind, []).append(_rule(line))
    return lines


def _rule(line: str) -> str:
    """A rule without its control field: jumps are counted anew in each stack."""
    return " ".join(re.sub(r"^\s*(\[[^]]*\]|\S+)\s+", "", line).split())


def _module_of(line: str) -> str:
    """The same of a line of a stack, which has the kind before it."""
    match = re.match(r"(?:auth|account|password|session)\s+(.*)", line)
    return _rule(match.group(1)) if match else ""


def _setting(lines: t.Sequence[str], key: str) -> t.Optional[str]:
    """The line that sets KEY; the last one counts."""
    found = [line for line in lines if line.split()[:1] == [key]]
    return found[-1] if found else None


def _with_setting(lines: t.Sequence[str], key: str, line: t.Optional[str]) -> t.List[str]:
    """LINES with LINE in the place of the last one that sets KEY, or at the end; None takes it away."""
    result = list(lines)
    places = [number for number, found in enumerate(result) if found.split()[:1] == [key]]
    if places:
        result[places[-1] : places[-1] + 1] = [] if line is None else [line]
    elif line is not None:
        result.append(line)
    return result


def _text(path: str) -> t.Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def _part(state: t.Mapping[str, t.Any], topics: Topics) -> t.Dict[str, t.Any]:
    """What the state notes about TOPICS."""
    part: t.Dict[str, t.Any] = {
        kind: {path: note for path, note in state.get(kind, {}).items() if note["topic"] in topics} for kind in ("texts", "modes")
    }
    part["settings"] = {
        path: {key: note for key, note in notes.items() if note["topic"] in topics} for path, notes in state.get("settings", {}).items()
    }
    part["pam_profiles"] = {profile: topic for profile, topic in state.get("pam_profiles", {}).items() if topic in topics}
    return part


def _read_state(path: str) -> t.Dict[str, t.Any]:
    text = _text(path)
    try:
        value = json.loads(text) if text else {}
    except ValueError as error:
        raise HardeningError("%s is damaged (%s); restore or remove it: what it notes can then not be undone" % (path, error)) from None
    return t.cast(t.Dict[str, t.Any], value)
