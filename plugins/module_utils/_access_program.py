# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the way in is as it should be: what sshd makes of its files, PAM, the secrets, the clock. The program civitas-access.

Private to the collection: no promise of stability. Standard library only. Changes nothing.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import pwd
import re
import shlex
import stat
import subprocess
import sys
import time
import typing as t

Config = t.Mapping[str, t.Any]
Settings = t.Dict[str, t.List[str]]
Run = t.Callable[[t.Sequence[str]], t.Tuple[int, str]]

CONFIG = "/etc/civitas/access.json"
SECRETS = "/etc/civitas/second-factor"
KEYS = "/etc/ssh/civitas/keys"
MAIN = "/etc/ssh/sshd_config"
OURS = "/etc/ssh/sshd_config.d/00-civitas.conf"
EXCEPTIONS = "/etc/ssh/sshd_config.d/99-civitas-match.conf"
GRACE = "/usr/local/lib/civitas/second-factor-grace"
BOTH = "publickey,keyboard-interactive:pam"

# What a foreign Match may not set: each of these decides who gets in and with what.
_PROTECTED = """
allowgroups allowusers authenticationmethods authorizedkeyscommand authorizedkeysfile authorizedprincipalscommand authorizedprincipalsfile
denygroups denyusers gssapiauthentication hostbasedauthentication kbdinteractiveauthentication kerberosauthentication passwordauthentication
permitemptypasswords permitrootlogin pubkeyauthentication trustedusercakeys
"""
PROTECTED = frozenset(_PROTECTED.split())
# Holds for every login whatever comes from where.
EVERYBODY = {
    "authorizedkeyscommand": "none",
    "authorizedkeysfile": f"{KEYS}/%u",
    "authorizedprincipalsfile": "none",
    "gssapiauthentication": "no",
    "hostbasedauthentication": "no",
    "kerberosauthentication": "no",
    "passwordauthentication": "no",
    "permitemptypasswords": "no",
    "permituserenvironment": "no",
    "pubkeyauthentication": "yes",
    "trustedusercakeys": "none",
    "usepam": "yes",
}
# How sshd -T writes what people write otherwise.
_CANONICAL = {"prohibit-password": "without-password"}
# Each line adds one; the order does not matter.
_CUMULATIVE = ("port", "hostkey", "allowgroups")
# Debian's own keyword is not shown by all releases; addresses are shown with ports, and for both families.
_UNJUDGED = ("debianbanner", "listenaddress")
RSA_BITS = 3072


def run(argv: t.Sequence[str]) -> t.Tuple[int, str]:
    """Exit code and output, standard error included, of a command."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=20, check=False
        )
    except FileNotFoundError:
        return 127, f"{argv[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{argv[0]} did not end within 20 s"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


# --- sshd


def parse_settings(text: str) -> Settings:
    """Keyword in lower case to its values, in the order of the lines, of C(sshd -T) or of a file without Match."""
    settings: Settings = {}
    for line in text.splitlines():
        words = line.strip().split(None, 1)
        if words and not words[0].startswith("#"):
            keyword, value = words[0].lower(), words[1].strip() if len(words) > 1 else ""
            settings.setdefault(keyword, []).append(value)
    return settings


def values(settings: Settings, keyword: str) -> t.List[str]:
    """The values of a keyword as C(sshd -T) would show them; of one that adds up, all of them sorted."""
    found = settings.get(keyword, [])
    if keyword in _CUMULATIVE:
        return sorted(word for value in found for word in value.split())
    return [_CANONICAL.get(value.lower(), value.lower()) for value in found[:1]]


def ineffective(written: str, effective: Settings) -> t.List[str]:
    """Which lines of our file sshd does not go by, because something before it said otherwise or added to it."""
    wanted = parse_settings(written)
    problems = []
    for keyword in wanted:
        if keyword in _UNJUDGED:
            continue
        # Shown only when there are any.
        if values(wanted, keyword) != (values(effective, keyword) or ["none"]):
            shown = " ".join(values(effective, keyword)) or "nothing"
            problems.append(f"sshd goes by '{keyword} {shown}', but {OURS} says '{' '.join(values(wanted, keyword))}'")
    return problems


def kinds(config: Config) -> t.List[t.Tuple[str, str, str, t.Dict[str, str]]]:
    """Everybody to ask sshd about: kind, login, address, and what must hold for them beside EVERYBODY."""
    everybody = dict(EVERYBODY)
    if config["second_factor"]:
        everybody["kbdinteractiveauthentication"] = "yes"
    both = {"authenticationmethods": BOTH if config["second_factor"] else "publickey", "permitrootlogin": "no"}
    key = {"authenticationmethods": "publickey", "permitrootlogin": "no"}
    home, away = "127.0.0.1", "198.51.100.7"
    asked = [("person", name, away, both) for name in config["people"]]
    asked += [("person without second factor", name, away, key) for name in config["excepted_people"]]
    asked += [("automation or break-glass", name, config["bypass_address"], key) for name in config["bypass"] if name != "root"]
    asked += [("unknown", "nobody", address, both) for address in (home, away)]
    asked += [("root", "root", address, both) for address in (home, away) if not config["root_login"]]
    if config["root_login"]:
        asked.append(("root", "root", config["bypass_address"], {**key, "permitrootlogin": "without-password"}))
    return [(kind, user, address, {**everybody, **wanted}) for kind, user, address, wanted in asked]


def config_files(main: str = MAIN) -> t.Iterator[t.Tuple[str, int, str, bool]]:
    """File, number, text of each line that sshd reads, files in the order of their names, and whether a Match rules it."""
    yield from _lines(main, os.path.dirname(main), False, 0)


def _lines(path: str, directory: str, matched: bool, depth: int) -> t.Iterator[t.Tuple[str, int, str, bool]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for number, line in enumerate(lines, 1):
        words = re.split(r"[\s=]+", line.strip(), maxsplit=1)
        keyword = words[0].lower()
        if keyword == "match":
            matched = True
        yield path, number, line.strip(), matched
        if keyword == "include" and len(words) > 1 and depth < 16:
            for pattern in shlex.split(words[1]):
                for name in sorted(glob.glob(os.path.join(directory, pattern))):
                    yield from _lines(name, directory, matched, depth + 1)


def foreign_matches(lines: t.Iterable[t.Tuple[str, int, str, bool]]) -> t.List[str]:
    """Lines below a Match of somebody else that decide who gets in."""
    problems = []
    for path, number, line, matched in lines:
        keyword = re.split(r"[\s=]+", line, maxsplit=1)[0].lower()
        if matched and keyword in PROTECTED and path not in (OURS, EXCEPTIONS):
            problems.append(
                f"{path}, line {number}: '{line}' below a Match decides who gets in; remove it, that is said in {EXCEPTIONS} only"
            )
    return problems


def host_key_problems(paths: t.Sequence[str], ask: Run = run) -> t.List[str]:
    problems = []
    for path in paths:
        rc, out = ask(["ssh-keygen", "-l", "-f", f"{path}.pub"])
        if not os.path.exists(path) or rc != 0:
            problems.append(f"{path} is missing or not a key; make the host's keys with: ssh-keygen -A")
            continue
        if stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            problems.append(f"{path} can be read by others than root; set it with: chmod 0600 {path}")
        bits = out.split()[0]
        if out.endswith("(RSA)") and bits.isdigit() and int(bits) < RSA_BITS:
            problems.append(f"{path} has {bits} bits, wanted {RSA_BITS}; make another with: ssh-keygen -t rsa -b 4096 -N '' -f {path}")
    return problems


def sshd_problems(config: Config, ask: Run = run) -> t.List[str]:
    """What sshd makes of its files, for every kind of login."""
    # A service that does not run has no such directory, and sshd does not even judge its configuration without.
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    rc, out = ask(["/usr/sbin/sshd", "-t"])
    if rc != 0:
        return [f"sshd refuses its configuration: {out}"]
    rc, out = ask(["/usr/sbin/sshd", "-T"])
    if rc != 0:
        return [f"sshd -T: {out}"]
    effective = parse_settings(out)
    with open(OURS, encoding="utf-8") as file:
        problems = ineffective(file.read(), effective)
    for keyword in ("allowusers", "denyusers", "denygroups"):
        if keyword in effective:
            problems.append(f"sshd goes by '{keyword} {' '.join(effective[keyword])}', which this role does not write; remove it")
    problems += host_key_problems(effective.get("hostkey", []), ask)
    wrong: t.Dict[str, t.List[str]] = {}
    for kind, user, address, wanted in kinds(config):
        rc, out = ask(["/usr/sbin/sshd", "-T", "-C", f"user={user},host={address},addr={address},laddr={address},lport={config['port']}"])
        found = parse_settings(out)
        for keyword, value in wanted.items():
            shown = " ".join(values(found, keyword)) or "none"
            if rc != 0 or shown != _CANONICAL.get(value, value).lower():
                wrong.setdefault(f"{kind}: sshd goes by '{keyword} {shown}', wanted '{value}'", []).append(f"{user} from {address}")
    problems += [f"{text} ({', '.join(logins[:3])}{' and others' if len(logins) > 3 else ''})" for text, logins in wrong.items()]
    return problems + foreign_matches(config_files())


# --- PAM


def pam_lines(text: str, kind: str) -> t.List[str]:
    """The lines of a type, with single spaces, in order; includes without a type count to every type."""
    joined = text.replace("\\\n", " ")
    lines = [" ".join(line.split("#", 1)[0].split()) for line in joined.splitlines()]
    return [line for line in lines if line.startswith((f"{kind} ", f"-{kind} ")) or (line.startswith("@include") and kind in line)]


def pam_problems(config: Config, service: str = "/etc/pam.d/sshd", roots: t.Sequence[str] = ("/lib", "/usr/lib")) -> t.List[str]:
    """Whether a code is asked for, and nothing else lets anybody in."""
    try:
        with open(service, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        return [f"{service}: {error.strerror}; run the role access"]
    lines = pam_lines(text, "auth")
    code = f"auth required pam_google_authenticator.so user=root secret={SECRETS}/${{USER}} noskewadj"
    wanted = [code] if config["second_factor"] else ["auth required pam_deny.so"]
    if config["second_factor"] and config["grace_until"]:
        wanted.insert(0, f"auth [success=done default=ignore] pam_exec.so quiet {GRACE}")
    problems = []
    if lines != wanted:
        problems.append(f"{service} asks for '{'; '.join(lines) or 'nothing'}', wanted '{'; '.join(wanted)}'; run the role access")
    for name in sorted(set(re.findall(r"^(?!\s*(?:#|-|.*module_unknown=ignore)).*?\s(pam_\w+\.so)\b", text, re.MULTILINE))):
        if not any(glob.glob(f"{root}/{place}security/{name}") for root in roots for place in ("", "*/")):
            package = "libpam-google-authenticator" if "google" in name else "libpam-modules"
            problems.append(f"{service} needs {name}, which is not there, so nobody gets in; install {package}")
    return problems


# --- secrets


def secrets_problems(config: Config, directory: str = SECRETS, owner: int = 0) -> t.List[str]:
    """Whether everybody who needs a secret has one that only root can read."""
    if not config["second_factor"]:
        return []
    if not os.path.isdir(directory):
        return [f"{directory} is not there, so no code is right; restore it, or run the role access and enrol everybody anew"]
    problems = []
    status = os.stat(directory)
    if stat.S_IMODE(status.st_mode) != 0o700 or status.st_uid != owner:
        problems.append(f"{directory} is not root's alone; set it with: chown root:root {directory}; chmod 0700 {directory}")
    for name in sorted(os.listdir(directory)):
        status = os.lstat(os.path.join(directory, name))
        if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) & 0o177 or status.st_uid != owner:
            problems.append(f"{directory}/{name} is not a file of root's alone; set it with: chown root:root ...; chmod 0600 ...")
    missing = [name for name in config["people"] if not os.path.exists(os.path.join(directory, name))]
    if missing and time.strftime("%Y-%m-%d", time.gmtime()) > config["grace_until"]:
        problems.append(f"no secret for {', '.join(missing)}; run the role access")
    return problems


# --- the way around


def bypass_problems(config: Config, keys: str = KEYS, today: t.Optional[int] = None) -> t.List[str]:
    """Whether somebody gets in when no code is right any more."""
    if not config["second_factor"]:
        return []
    if not config["bypass"]:
        return [
            "nobody gets in without a code; give access_break_glass or access_automation (in a site's inventory: civitas_break_glass, "
            "civitas_automation) a key"
        ]
    day = int(time.time() // 86400) if today is None else today
    problems = [_bypass_problem(name, keys, day) for name in config["bypass"]]
    return [] if "" in problems else problems


def _bypass_problem(name: str, keys: str, day: int) -> str:
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        return f"the account {name} is not there; run the role access"
    if os.path.basename(account.pw_shell) in ("nologin", "false") or not os.access(account.pw_shell or "/bin/sh", os.X_OK):
        return f"the account {name} has no shell ({account.pw_shell})"
    if _expired(name, day):
        return f"the account {name} has expired"
    try:
        with open(os.path.join(keys, name), encoding="utf-8") as file:
            lines = [line for line in file if line.strip() and not line.startswith("#")]
    except OSError:
        lines = []
    return "" if lines else f"the account {name} has no key in {keys}"


def _expired(name: str, day: int, shadow: str = "/etc/shadow") -> bool:
    with open(shadow, encoding="utf-8") as file:
        for line in file:
            fields = line.rstrip("\n").split(":")
            if fields[0] == name and len(fields) > 7 and fields[7].lstrip("-").isdigit():
                return int(fields[7]) <= day
    return False


# --- the clock


def clock_problems(config: Config, ask: Run = run) -> t.List[str]:
    """Whether the clock is known to be right; codes are of no use otherwise."""
    problem, _evidence = clock_state(config["clock_tolerance"], ask)
    return [problem] if problem and config["second_factor"] else []


def clock_state(tolerance: float, ask: Run = run) -> t.Tuple[str, str]:
    """What is wrong with the clock, or nothing; and how that was found out."""
    rc, kind = ask(["systemd-detect-virt", "--container"])
    if rc == 0:
        return "", f"a container ({kind}) has its host's clock"
    rc, out = ask(["chronyc", "-n", "-c", "tracking"])
    if rc == 0:
        return judge_tracking(out, tolerance)
    rc, out = ask(["timedatectl", "show", "--property=NTPSynchronized", "--value"])
    if rc == 0 and out == "yes":
        return "", "systemd says that the clock is synchronized"
    return "nothing keeps the clock; run chrony (role base), and see that its servers are reached: chronyc sources", ""


def judge_tracking(line: str, tolerance: float) -> t.Tuple[str, str]:
    """The answer of C(chronyc -c tracking): offset of the clock, distance to the reference, and whether there is one."""
    fields = line.split(",")
    try:
        offset, delay, dispersion, leap = float(fields[4]), float(fields[10]), float(fields[11]), fields[13]
    except (IndexError, ValueError):
        return f"chronyc tracking says what is not understood: {line[:100]}", ""
    if leap == "Not synchronised":
        return "chrony knows no right time yet; see that its servers are reached: chronyc sources", ""
    # What chrony itself calls the bound of the error.
    error = abs(offset) + dispersion + delay / 2
    if error > tolerance:
        return f"the clock may be off by {error:.1f} s, wanted at most {tolerance:g} s; see: chronyc tracking", ""
    return "", f"the clock is right to {error:.3f} s"


# --- the program

TOPICS: t.Dict[str, t.Tuple[t.Callable[[Config], t.List[str]], str]] = {
    "sshd": (sshd_problems, "sshd goes by what the role wrote, for every kind of login"),
    "pam": (pam_problems, "PAM asks for the code and for nothing less"),
    "secrets": (secrets_problems, "the secrets are there and root's alone"),
    "bypass": (bypass_problems, "somebody gets in when codes fail"),
    "clock": (clock_problems, "the clock is right"),
}


def read_config(path: str = CONFIG) -> Config:
    with open(path, encoding="utf-8") as file:
        return t.cast(Config, json.load(file))


def main(argv: t.Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="civitas-access",
        description="Says whether the way in is as it should be. Changes nothing.",
        epilog="; ".join(f"{name}: {title}" for name, (_judge, title) in TOPICS.items()),
    )
    parser.add_argument("topic", nargs="*", choices=[*TOPICS, []], help="what to look at; everything unless given")
    topics = parser.parse_args(argv).topic or list(TOPICS)
    try:
        config = read_config()
        problems = [problem for topic in topics for problem in TOPICS[topic][0](config)]
    except OSError as error:
        problems = [str(error)]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if not problems:
        sys.stdout.write("; ".join(TOPICS[topic][1] for topic in topics) + "\n")
    return 1 if problems else 0
