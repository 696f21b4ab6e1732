# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DKIM keys of a host: made on it, never leaving it, and signing only once the DNS has their record.

A signature that nobody can verify is worse than none. What signs goes on signing, whatever the DNS says later, until the record of the
next key is there.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text
from ansible_collections.civitas.hosting.plugins.module_utils._egress_refresh import AnswerError, ask_texts
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json, write_text

UNIT = "civitas-dkim.service"
BITS = 2048
# How long people have to publish a new record until they are told that it is missing, and how often a published one is looked at.
GRACE = 3600.0
LOOK = 3600.0
_STRING = 255
_RECORD = re.compile(r"(?P<selector>[a-z0-9.-]+)\._domainkey\.(?P<domain>[a-z0-9.-]+)")
_TAG = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)", re.DOTALL)

Ask = t.Callable[[str, t.Tuple[str, int]], t.List[str]]


class SigningError(Exception):
    """A key cannot be made or read; the text says nothing of what is in it."""


class Answer(t.NamedTuple):
    """What the DNS says of a key.

    Attributes:
        state: C(published), C(missing), C(wrong), or C(unknown) when no name server could tell.
        detail: for people; empty when it is published.
    """

    state: str
    detail: str = ""


class Seen(t.NamedTuple):
    """The host at one moment.

    Attributes:
        wanted: the name of the record of the key that shall sign.
        public_key: what stands in p= of that record; empty when the key is not there.
        signs: the name of the record whose key signs; empty when mail leaves unsigned.
        answer: what the DNS says of C(wanted).
        age: seconds since the key was made.
        running: whether the signer runs, without which mail waits.
    """

    wanted: str
    public_key: str
    signs: str
    answer: Answer
    age: float = 0.0
    running: bool = True

    @property
    def wrong(self) -> bool:
        """Whether receivers are known to find signatures that they cannot verify."""
        return bool(self.signs) and self.signs == self.wanted and self.answer.state in ("missing", "wrong")

    @property
    def good(self) -> bool:
        return self.running and bool(self.public_key) and self.signs == self.wanted and self.answer.state == "published"


def record_name(domain: str, selector: str) -> str:
    return f"{selector}._domainkey.{domain}".lower()


def record_value(public_key: str) -> str:
    return f"v=DKIM1; k=rsa; p={public_key}"


def zone_line(name: str, value: str) -> str:
    """A TXT record as it stands in a zone file: strings of 255 characters at most, one after the other."""
    strings = " ".join(f'"{value[place : place + _STRING]}"' for place in range(0, len(value), _STRING))
    return f"{name}. IN TXT {strings}"


# --- the DNS


def name_servers(path: str = "/etc/resolv.conf") -> t.List[str]:
    """Those that programs of this host ask."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver" and "%" not in words[1]]


def ask_dns(name: str, public_key: str, servers: t.Sequence[str], ask: Ask = ask_texts) -> Answer:
    """Whether the DNS has the record of a key. The first server that answers is believed."""
    problem = "/etc/resolv.conf names no name server"
    for server in servers:
        try:
            return judge(ask(name, (server, 53)), public_key)
        except (AnswerError, OSError, ValueError) as error:
            problem = f"{server}: {text.clean(error)}"
    return Answer("unknown", problem)


def judge(found: t.Sequence[str], public_key: str) -> Answer:
    """What the texts of a record's name are worth."""
    if not found:
        return Answer("missing", "the DNS has no such record")
    if len(found) > 1:
        return Answer("wrong", f"the DNS has {len(found)} records of that name, and receivers take any; remove all but one")
    try:
        tags = _tags(found[0])
    except ValueError as error:
        return Answer("wrong", text.clean(error))
    if tags.get("v", "DKIM1") != "DKIM1" or (next(iter(tags)) != "v" and "v" in tags):
        return Answer("wrong", "the record does not begin with v=DKIM1")
    if tags.get("p") == "":
        return Answer("wrong", "p= is empty, which revokes the key")
    if tags.get("k", "rsa") != "rsa" or "".join(tags.get("p", "").split()) != public_key:
        return Answer("wrong", "the record has another key than this host")
    if "sha256" not in _words(tags.get("h", "sha256")):
        return Answer("wrong", "h= leaves out sha256")
    if not {"*", "email"} & set(_words(tags.get("s", "*"))):
        return Answer("wrong", "s= says that the key is not for mail")
    if "y" in _words(tags.get("t", "")):
        return Answer("wrong", "t=y makes receivers treat signatures as if there were none")
    return Answer("published")


def _tags(record: str) -> t.Dict[str, str]:
    found: t.Dict[str, str] = {}
    for part in record.rstrip("; \t").split(";"):
        tag = _TAG.fullmatch(part)
        if not tag or tag[1] in found:
            raise ValueError(f"{part.strip()!r} is no tag with a value, or comes twice")
        found[tag[1]] = tag[2].strip()
    return found


def _words(value: str) -> t.List[str]:
    return [word.strip() for word in value.split(":")]


# --- the keys


class Store:
    """The directory with the keys, and with the tables that tell the signer which of them signs.

    C(owner) is the account of the signer, which reads the keys.
    """

    def __init__(self, directory: str = "/var/lib/civitas/dkim", owner: str = "opendkim") -> None:
        self.directory, self.owner = directory, owner
        self.senders, self.keys, self.state = (os.path.join(directory, name) for name in ("senders", "keys", "state.json"))

    def key_file(self, name: str) -> str:
        return os.path.join(self.directory, f"{name}.pem")

    def names(self) -> t.List[str]:
        """The record names of all keys that are there."""
        try:
            files = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        return [file[: -len(".pem")] for file in files if file.endswith(".pem") and _RECORD.fullmatch(file[: -len(".pem")])]

    def signs(self) -> str:
        """The record name of the key that signs, whose file may be lost; empty for none."""
        try:
            with open(self.senders, encoding="utf-8") as file:
                words = file.read().split()
        except FileNotFoundError:
            return ""
        return words[1] if len(words) == 2 else ""

    def age(self, name: str, now: float) -> float:
        try:
            return max(0.0, now - os.stat(self.key_file(name)).st_mtime)
        except FileNotFoundError:
            return 0.0

    def public_key(self, name: str) -> str:
        """What stands in p=; empty when there is no such key. Raises SigningError."""
        if not os.path.exists(self.key_file(name)):
            return ""
        return base64.b64encode(_openssl("pkey", "-in", self.key_file(name), "-pubout", "-outform", "DER")).decode()

    def make(self, name: str) -> None:
        """Make a key, whole or not at all. Raises SigningError, OSError."""
        temporary = os.path.join(self.directory, f".{name}.new")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            # Nobody can read what openssl writes into it, from the first byte on.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_bits:{BITS}", "-out", temporary)
            os.chmod(temporary, 0o600)
            shutil.chown(temporary, self.owner, self.owner)
            os.rename(temporary, self.key_file(name))
        except LookupError as error:
            raise SigningError(f"there is no account {self.owner}; install the package opendkim") from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def use(self, name: str, names: t.Sequence[str]) -> None:
        """Write the tables of the signer: C(name) signs, which is one of C(names), or nobody when it is empty."""
        lines = []
        for each in names:
            parts = _RECORD.fullmatch(each)
            if parts:
                lines.append(f"{each} {parts['domain']}:{parts['selector']}:{self.key_file(each)}\n")
        # Mail goes on waiting for a key that is not in the table, so that one comes first.
        write_text(self.keys, "".join(lines))
        # All mail that leaves has a sender of the domain, whatever it came with.
        write_text(self.senders, f"* {name}\n" if name else "")

    def recall(self) -> t.Tuple[float, str, Answer]:
        """When the DNS was asked for the last time, for which record, and what it said."""
        try:
            with open(self.state, encoding="utf-8") as file:
                found = json.load(file)
            return float(found["looked"]), str(found["name"]), Answer(str(found["state"]), str(found["detail"]))
        except (OSError, ValueError, KeyError, TypeError):
            return 0.0, "", Answer("unknown", "nobody has asked the DNS yet")

    def remember(self, now: float, name: str, answer: Answer) -> None:
        """Write down what the DNS said, and the public keys, for mail_proof. Raises SigningError, OSError."""
        keys = []
        for each in self.names():
            parts = _RECORD.fullmatch(each)
            if parts:
                keys.append({**parts.groupdict(), "public_key": self.public_key(each)})
        write_json(self.state, {"looked": now, "name": name, **answer._asdict(), "keys": keys})


def _openssl(*words: str) -> bytes:
    done = subprocess.run(["openssl", *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)
    if done.returncode != 0:
        # What openssl says of a key it cannot read may quote it.
        raise SigningError(f"'openssl {' '.join(words)}' ended with exit status {done.returncode}")
    return done.stdout


# --- which of them signs


def prepare(store: Store, wanted: str, check_mode: bool = False) -> bool:
    """Make what is missing; returns whether something was. Raises SigningError, OSError."""
    there, signs = store.names(), store.signs()
    # A lost key is made anew and needs a record of its own; until then nothing signs with it.
    lost = bool(signs) and signs not in there
    changed = wanted not in there or lost or not os.path.exists(store.senders)
    if changed and not check_mode:
        if lost:
            store.use("", there)
        if wanted not in there:
            store.make(wanted)
        store.use("" if lost else signs, store.names())
    return changed


def settle(store: Store, wanted: str, answer: Answer, reload: t.Callable[[], None], check_mode: bool = False) -> bool:
    """Let the wanted key sign when its record is published, and remove the others then; returns whether that changed anything.

    Raises OSError.
    """
    there, signs = store.names(), store.signs()
    if wanted not in there:
        return False
    switch = signs != wanted and answer.state == "published"
    others = [name for name in there if name != wanted] if switch or signs == wanted else []
    if check_mode:
        return switch or bool(others)
    if switch:
        store.use(wanted, there)
        reload()
    for name in others:
        os.unlink(store.key_file(name))
    if others:
        store.use(wanted, [wanted])
    return switch or bool(others)


def look(store: Store, wanted: str, now: float, always: bool = False, remember: bool = True, ask: Ask = ask_texts) -> Seen:
    """See which key signs, and what the DNS says of the wanted one; when that is well, it is asked every hour only.

    Args:
        always: ask it in any case.
        remember: write down what it said.

    Raises:
        SigningError, OSError: keys cannot be read.
    """
    key, signs = store.public_key(wanted), store.signs()
    looked, name, answer = store.recall()
    fresh = name == wanted and answer.state == "published" and signs == wanted and 0 <= now - looked < LOOK
    if key and (always or not fresh):
        answer = ask_dns(wanted, key, name_servers(), ask)
        if remember:
            store.remember(now, wanted, answer)
    return Seen(wanted, key, signs, answer, store.age(wanted, now), _runs())


def _runs() -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", UNIT], stdin=subprocess.DEVNULL, check=False).returncode == 0


def reload_signer() -> None:
    """The signer reads its tables again, when it runs. Raises OSError."""
    done = subprocess.run(
        ["systemctl", "try-reload-or-restart", UNIT], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise OSError(f"systemctl try-reload-or-restart {UNIT}: {text.clean(' '.join(done.stderr.split()))}")


# --- what is told


def summary(seen: Seen) -> str:
    """One sentence for people."""
    if not seen.public_key:
        return f"the key of {seen.wanted} is not there; run the site playbook"
    if not seen.running:
        return f"opendkim does not run; mail waits. See 'journalctl -u {UNIT}'"
    said = seen.answer.detail or "its record is published"
    if seen.signs == seen.wanted:
        return f"mail is signed with {seen.wanted}; {said}"
    if seen.signs:
        return f"mail is signed with {seen.signs} until the record {seen.wanted} is published; {said}"
    return f"mail leaves unsigned until the record {seen.wanted} is published; {said}"


def problems(seen: Seen) -> t.Dict[str, str]:
    """What is wrong, by a key that stays the same while it lasts."""
    hint = "See 'civitas-mail dkim'"
    if not seen.running:
        return {"signer": summary(seen)}
    if not seen.public_key:
        return {"signing": summary(seen)}
    if seen.wrong:
        return {"signature": f"receivers cannot verify the signatures of mail with {seen.signs}: {seen.answer.detail}. {hint}"}
    if seen.signs != seen.wanted and seen.age > GRACE:
        return {"signing": f"{summary(seen)}. {hint}"}
    return {}


def metrics(seen: Seen) -> str:
    """The text format of Prometheus."""
    lines = []
    for name, title, value in (
        ("civitas_mail_signer_running", "1 when opendkim runs.", seen.running),
        ("civitas_mail_signing", "1 when mail is signed.", bool(seen.signs)),
        ("civitas_mail_signature_wrong", "1 when mail is signed with a key that the DNS does not have.", seen.wrong),
    ):
        lines += [f"# HELP {name} {title}", f"# TYPE {name} gauge", f"{name} {value:d}"]
    return "\n".join(lines) + "\n"
