# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From notes to messages that arrive: recorded, queued for each destination, sent, tried again.

C(new) holds what PAM noted. C(mail) and C(webhook) hold messages, each until its destination has taken it. Every step can be repeated: a
message keeps its name and so its Message-ID, and notes are sorted before anything is sent. So what is cut off anywhere is made up for by
the next run; the one message that a relay took while the power failed comes twice, with the same Message-ID.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import email.message
import email.policy
import email.utils
import fcntl
import functools
import grp
import hashlib
import json
import math
import os
import pwd
import re
import select
import signal
import smtplib
import subprocess
import time
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _login_text as text
from ansible_collections.civitas.hosting.plugins.module_utils._login_spool import BASES, LIMIT, LOST, count_lost, open_directory, to_journal
from ansible_collections.civitas.hosting.plugins.module_utils._login_spool import write as write_file
from ansible_collections.civitas.hosting.plugins.module_utils._program_config import parsed
from ansible_collections.civitas.hosting.plugins.module_utils._webhook import Rejected, Undelivered, Webhook, trust

CONFIG = "/etc/civitas/logins.json"
RECORD = "/var/log/civitas/logins.jsonl"
STATE = "/var/lib/civitas/logins.json"
DESTINATIONS = ("mail", "webhook")
# After this many seconds sshd has said what a connection is for, unless it is for forwarding only.
SETTLE = 4.0
# A destination that takes longer than this for one message hangs.
SEND_SECONDS = 25
# Waiting after the first, second ... failure in a row. With the timer's ten seconds, what comes back is found within five minutes.
WAITS = (0, 20, 45, 90, 150)
SSHD = ("sshd", "sshd-session", "sshd-auth")
_CHILD = re.compile(r"User child is on pid ([0-9]+)$")
SSHD_PROGRAMS = ("/usr/sbin/sshd", "/usr/lib/openssh/sshd-session", "/usr/lib/openssh/sshd-auth")


class Config(t.NamedTuple):
    """The file C(CONFIG), which the role access writes."""

    host: str
    smtp: t.Dict[str, t.Any]
    webhook: t.Dict[str, t.Any]
    automation: str
    automation_seconds: float

    @property
    def destinations(self) -> t.List[str]:
        return [name for name, options in zip(DESTINATIONS, (self.smtp, self.webhook)) if options]


def read_config(path: str = CONFIG) -> Config:
    """Raises ConfigError."""
    return parsed(path, _config)


def _config(found: t.Dict[str, t.Any]) -> Config:
    return Config(
        str(found["host"]),
        dict(found["smtp"]),
        dict(found["webhook"]),
        str(found["automation"]),
        60.0 * float(found["automation_minutes"]),
    )


def read_state(path: str = STATE) -> t.Dict[str, t.Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
            return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


class Delivery:
    """One host's queues.

    Args:
        config: where messages go.
        bases: directories with C(new) and queues, the first one preferred.
        record: file of all logins, a line of JSON each.
        state: file of what is remembered between runs.
        senders: how a destination is given a message, for tests.
    """

    def __init__(
        self,
        config: Config,
        bases: t.Sequence[str] = BASES,
        record: str = RECORD,
        state: str = STATE,
        senders: t.Optional[t.Mapping[str, t.Callable[[], Sender]]] = None,
    ) -> None:
        self.config = config
        self.bases = list(bases)
        self.record_file = record
        self.state_file = state
        self.senders = senders or {"mail": lambda: Mail(config.smtp, config.host), "webhook": lambda: Webhook(config.webhook)}

    # --- the whole

    def run(self, seconds: float = 240) -> None:
        """Deliver until nothing is left that could be delivered now. One process at a time."""
        with self.locked():
            end = time.time() + seconds
            self.forget()
            while True:
                waits = self.sort(time.time())
                self.summarize(time.time())
                self.tell_lost()
                self.send_all()
                if waits is None or time.time() + waits > end:
                    return
                time.sleep(max(0.1, waits))

    @contextlib.contextmanager
    def locked(self) -> t.Iterator[None]:
        # In memory: it works with a full disk as well.
        directory = open_directory(self.bases[-1], "lock")
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def forget(self) -> None:
        """Throw away what waits for a destination that is configured no more."""
        for name in set(DESTINATIONS) - set(self.config.destinations):
            for base in self.bases:
                for file in self.names(base, name):
                    to_journal(4, f"the message {file} was for {name}, which is not configured any more")
                    self.remove(base, name, file)

    # --- notes become messages

    def sort(self, now: float) -> t.Optional[float]:
        """Record and queue every note that is old enough; returns in how many seconds the next one is, if there is one."""
        waits: t.List[float] = []
        ripe = []
        for base in self.bases:
            for name in self.names(base, "new"):
                note = self.read(base, "new", name)
                if note is None or not {"id", "time", "pam_user", "pam_service", "pam_rhost", "pam_tty"} <= set(note):
                    # A disk that lost what it promised to keep; told, and not in the way of others.
                    to_journal(3, f"the note {name} of a login is damaged and was not announced")
                    self.remove(base, "new", name)
                    continue
                # A clock that was set back must not keep a note for ever.
                if 0 <= now - float(note["time"]) < SETTLE:
                    waits.append(SETTLE - (now - float(note["time"])))
                else:
                    ripe.append((base, name, note))
        if ripe:
            asked, told = self.asked(min(float(note["time"]) for _base, _name, note in ripe))
            groups = groups_of({str(note["pam_user"]) for _base, _name, note in ripe})
            for base, name, note in ripe:
                words = str(note.get("ssh_connection") or "").split()
                connection = (words[0], words[1]) if len(words) == 4 else ("", "")
                login = text.record(note, groups.get(str(note["pam_user"]), ()), asked.get(connection, ()), told)
                if self.queue_login(login, now):
                    self.remove(base, "new", name)
        return min(waits) if waits else None

    def queue_login(self, login: t.Mapping[str, t.Any], now: float) -> bool:
        """Record and queue one login; returns whether all of it is safe."""
        try:
            if login["kind"] == "automation" and self.config.automation == "summary":
                self.put("automation", login["id"], login)
            else:
                self.queue(text.announcement(self.config.host, login))
            self.append(login)
            return True
        except OSError as error:
            to_journal(3, f"a login of {login['user']} stays in the queue for later: {error.strerror or error}")
            return False

    def queue(self, message: t.Mapping[str, t.Any]) -> None:
        """Give a message to every destination. One that takes none for long gets a number in the end, and does not hinder others."""
        for name in self.config.destinations:
            if sum(len(self.names(base, name)) for base in self.bases) >= LIMIT:
                open_directory_and_close(self.bases[0], name)
                count_lost(f"{self.bases[0]}/{name}", time.time())
            else:
                self.put(name, str(message["id"]), message)

    def append(self, login: t.Mapping[str, t.Any]) -> None:
        """Add a line to the record, whole or not at all. A step that is repeated adds it again; readers go by its id."""
        os.makedirs(os.path.dirname(self.record_file), mode=0o755, exist_ok=True)
        handle = os.open(self.record_file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            before = os.fstat(handle).st_size
            data = json.dumps(dict(login), sort_keys=True).encode("ascii") + b"\n"
            try:
                if os.write(handle, data) != len(data):
                    raise OSError("no space left for the record of logins")
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)

    def asked(self, since: float) -> t.Tuple[t.Dict[t.Tuple[str, str], t.List[str]], bool]:
        """What connections are for, from sshd's log; and whether the log says such things."""
        lines = said_by_sshd(list(journal(since - 2, None, SSHD)))
        verbose = any(line.startswith(("Starting session: ", "User child is on pid ", "Postponed publickey for ")) for line in lines)
        return text.sessions(lines), verbose

    def summarize(self, now: float) -> None:
        """Make one message of the waiting logins of automation, when the last one is long enough ago.

        The batch is put aside by one rename, and what it becomes is named by its content: cut off and repeated, it is the same message.
        """
        for base in self.bases:
            waiting, batch = f"{base}/automation", f"{base}/batch"
            if not os.path.isdir(batch):
                state = read_state(self.state_file)
                if now - float(state.get("summary", 0)) < self.config.automation_seconds or not self.names(base, "automation"):
                    continue
                os.rename(waiting, batch)
            logins = [login for login in (self.read(base, "batch", name) for name in self.names(base, "batch")) if login]
            if logins:
                identifier = hashlib.sha256("".join(sorted(login["id"] for login in logins)).encode()).hexdigest()[:24]
                self.queue(text.summary(f"summary-{identifier}", self.config.host, logins))
            self.remember(summary=now)
            for name in os.listdir(batch):
                self.remove(base, "batch", name)
            os.rmdir(batch)

    def tell_lost(self) -> None:
        """Say how many logins found no place, once there is place again."""
        for base in self.bases:
            if os.path.exists(f"{base}/{LOST}") and len(self.names(base, "new")) < LIMIT // 2:
                self.tell_lost_of(base, self.config.destinations)
            for name in self.config.destinations:
                if os.path.exists(f"{base}/{name}/{LOST}") and len(self.names(base, name)) < LIMIT // 2:
                    self.tell_lost_of(f"{base}/{name}", [name])

    def tell_lost_of(self, directory: str, destinations: t.Sequence[str]) -> None:
        aside = f"{directory}/{LOST}.told"
        if not os.path.exists(aside):
            os.rename(f"{directory}/{LOST}", aside)
        with open(aside, encoding="ascii", errors="replace") as file:
            times = [int(line) for line in file.read().split() if line.isdigit()]
        if times:
            found = text.lost(f"lost-{min(times)}-{max(times)}-{len(times)}", self.config.host, len(times), min(times), max(times))
            for name in destinations:
                self.put(name, found["id"], found)
        os.unlink(aside)

    # --- messages leave

    def send_all(self) -> None:
        """Try every destination that is due, all at the same time: one that hangs must not delay another."""
        due, states = {}, {}
        for name in self.config.destinations:
            state = states[name] = read_state(self.state_file).get(name, {})
            failures = int(state.get("failures", 0))
            wait = WAITS[min(failures, len(WAITS) - 1)]
            # A clock that was set back must not stop delivery.
            if any(self.names(base, name) for base in self.bases) and not 0 <= time.time() - float(state.get("tried", 0)) < wait:
                due[name] = functools.partial(self.send_one, name)
        for name, answer in side_by_side(due):
            self.remember_outcome(name, "" if answer == "ok" else answer or f"{name}: the sender died", states[name])

    def remember_outcome(self, name: str, problem: str, before: t.Mapping[str, t.Any]) -> None:
        now = time.time()
        if problem:
            if problem != before.get("problem"):
                to_journal(3, f"{problem}; messages wait and are tried again")
            since = before.get("since") or now
            self.remember(**{name: {"failures": int(before.get("failures", 0)) + 1, "tried": now, "problem": problem, "since": since}})
            return
        if before.get("problem"):
            to_journal(5, f"{name}: messages are delivered again")
        self.remember(**{name: {"delivered": now}})

    def remember(self, **values: t.Any) -> None:
        state = {**read_state(self.state_file), **values}
        directory, name = os.path.split(self.state_file)
        try:
            os.makedirs(directory, mode=0o755, exist_ok=True)
            handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_file(handle, name, json.dumps(state).encode("ascii"))
            finally:
                os.close(handle)
        except OSError as error:
            to_journal(4, f"{self.state_file}: {error.strerror or error}; tries are not spaced")

    def send_one(self, name: str) -> str:
        """Send all messages of one destination; returns V(ok), or why some are left."""
        problem = ""
        try:
            with timed(SEND_SECONDS), contextlib.closing(self.senders[name]()) as sender:
                for base in self.bases:
                    for file in self.names(base, name):
                        message = self.read(base, name, file)
                        if message is not None:
                            signal.alarm(SEND_SECONDS)
                            try:
                                left = sender.send(message)
                            except Rejected as error:
                                problem = str(error)
                                continue
                            finally:
                                # What is delivered is taken off the queue, however long it took.
                                signal.alarm(0)
                            if left:
                                # Some took it: only the others get it again.
                                self.put(name, str(message["id"]), {**message, "to": left})
                                problem = f"mail: the relay does not take messages for {', '.join(left)} now"
                                continue
                        self.remove(base, name, file)
        except Undelivered as error:
            return str(error) if str(error).startswith(name) else f"{name}: {error}"
        except OSError as error:
            return f"{name}: {error.strerror or error}"
        return problem or "ok"

    def send_now(self, name: str, message: t.Mapping[str, t.Any]) -> str:
        """Send one message past the queue; returns why it was not taken, or nothing."""
        try:
            with timed(SEND_SECONDS), contextlib.closing(self.senders[name]()) as sender:
                left = sender.send(message)
                return f"{name}: {', '.join(left)} cannot get messages now" if left else ""
        except Undelivered as error:
            return str(error)

    # --- files

    def waiting(self) -> t.List[t.Dict[str, t.Any]]:
        """The logins that are noted and not recorded yet."""
        notes = [self.read(base, "new", name) for base in self.bases for name in self.names(base, "new")]
        return [text.record(note, (), (), False) for note in notes if note]

    def age(self, base: str, kind: str, name: str) -> float:
        """When a file was written, in seconds since 1970."""
        try:
            return os.stat(f"{base}/{kind}/{name}").st_mtime
        except OSError:
            return time.time()

    def names(self, base: str, kind: str) -> t.List[str]:
        try:
            return sorted(name for name in os.listdir(f"{base}/{kind}") if name.endswith(".json") and not name.startswith("."))
        except OSError:
            return []

    def read(self, base: str, kind: str, name: str) -> t.Optional[t.Dict[str, t.Any]]:
        try:
            with open(f"{base}/{kind}/{name}", encoding="utf-8") as file:
                found = json.load(file)
            return found if isinstance(found, dict) else None
        except (OSError, ValueError):
            return None

    def put(self, kind: str, identifier: str, document: t.Mapping[str, t.Any]) -> None:
        """Write a document where there is place for it. It may be there already: it is the same."""
        data = json.dumps(dict(document)).encode("ascii")
        problem: t.Optional[OSError] = None
        for base in self.bases:
            try:
                directory = open_directory(base, kind)
            except OSError as error:
                problem = error
                continue
            try:
                write_file(directory, f"{identifier}.json", data)
                return
            except OSError as error:
                problem = error
            finally:
                os.close(directory)
        raise problem or OSError("there is no directory for messages")

    def remove(self, base: str, kind: str, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{base}/{kind}/{name}")


def open_directory_and_close(base: str, name: str) -> None:
    os.close(open_directory(base, name))


def groups_of(users: t.Collection[str]) -> t.Dict[str, t.Set[str]]:
    """The groups of users that say what kind they are."""
    found: t.Dict[str, t.Set[str]] = {user: set() for user in users}
    for name, _kind in text.GROUPS:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            continue
        for user in users:
            with contextlib.suppress(KeyError, ValueError):
                if user in group.gr_mem or pwd.getpwnam(user).pw_gid == group.gr_gid:
                    found[user].add(name)
    return found


def journal(since: float, until: t.Optional[float], identifiers: t.Sequence[str]) -> t.Iterator[t.Dict[str, t.Any]]:
    """Entries of the system's journal, oldest first; none where it cannot be read."""
    command = ["journalctl", "--output=json", "--no-pager", "--quiet", f"--since=@{int(since)}"]
    command += [f"--until=@{int(until)}"] if until is not None else []
    command += [f"--identifier={name}" for name in identifiers]
    command += ["--output-fields=MESSAGE,_PID,_UID,_EXE,SYSLOG_IDENTIFIER"]
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            for line in t.cast(t.IO[bytes], process.stdout):
                with contextlib.suppress(ValueError):
                    entry = {"MESSAGE": "", "_PID": "", "_UID": "", "_EXE": "", "SYSLOG_IDENTIFIER": "", **json.loads(line)}
                    # What is no text comes as a list of bytes.
                    if isinstance(entry["MESSAGE"], list):
                        entry["MESSAGE"] = bytes(entry["MESSAGE"]).decode("utf-8", "replace")
                    yield entry
    except OSError:
        return


def said_by_sshd(entries: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    """The messages of C(entries) that are sshd's own. Anybody may write to the journal under its name.

    A session's process belongs to the user already, so it is known by its program. When it ended before the journal looked, its program is
    unknown; then root's process counts, and one of which root has said that it is a session's.
    """
    own = [entry for entry in entries if not entry["_EXE"] or entry["_EXE"] in SSHD_PROGRAMS]
    children = {found[1] for entry in own if entry["_UID"] == "0" and (found := _CHILD.match(str(entry["MESSAGE"])))}
    return [str(entry["MESSAGE"]) for entry in own if entry["_EXE"] or entry["_UID"] == "0" or entry["_PID"] in children]


def journal_begins() -> t.Optional[float]:
    """The time of the oldest entry, if there is one."""
    # It begins with the oldest; older versions cannot be asked for that line alone.
    command = ["journalctl", "--output=json", "--no-pager", "--quiet", "--output-fields=_PID"]
    try:
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            line = t.cast(t.IO[bytes], process.stdout).readline()
            process.kill()
        return int(json.loads(line)["__REALTIME_TIMESTAMP"]) / 1e6
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def timed(seconds: int) -> t.Iterator[None]:
    """Whatever is done within ends after C(seconds) as Undelivered: time limits of sockets count each byte anew."""

    def stop(_number: int, _frame: t.Any) -> None:
        raise Undelivered(f"the destination did not answer within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def side_by_side(
    jobs: t.Mapping[str, t.Callable[[], str]], at_once: int = 8, seconds: float = math.inf, begin: float = math.inf
) -> t.Iterator[t.Tuple[str, str]]:
    """Run each job in a process of its own; gives its name and what it answers (at most 4000 bytes) as soon as it does.

    Args:
        jobs: in the order in which they begin.
        at_once: so many of them.
        seconds: a job that takes longer is ended; it answers nothing, as one that dies.
        begin: what has not begun after so many seconds is left out.
    """
    waiting = list(jobs.items())
    running: t.Dict[int, t.Tuple[str, int, float]] = {}
    answers: t.Dict[int, bytes] = {}
    last = time.monotonic() + begin
    while waiting or running:
        if time.monotonic() > last:
            waiting.clear()
        while waiting and len(running) < at_once:
            name, job = waiting.pop(0)
            try:
                child, stream = _apart(job)
            except OSError as error:
                # Too many processes, for instance.
                yield name, f"{error.strerror or error}"
                continue
            running[stream], answers[stream] = (name, child, time.monotonic() + seconds), b""
        for _name, child, end in running.values():
            if time.monotonic() >= end:
                os.kill(child, signal.SIGKILL)
        ready, _write, _wrong = select.select(list(running), [], [], 1 if running else 0)
        for stream in ready:
            data = os.read(stream, 4096)
            answers[stream] += data
            if not data:
                os.close(stream)
                name, child, _end = running.pop(stream)
                os.waitpid(child, 0)
                yield name, answers.pop(stream).decode("utf-8", "replace")


def _apart(job: t.Callable[[], str]) -> t.Tuple[int, int]:
    """Begin it; returns the process and where its answer is read. Raises OSError."""
    ready, done = os.pipe()
    try:
        child = os.fork()
    except OSError:
        os.close(ready)
        os.close(done)
        raise
    if child == 0:
        os.close(ready)
        try:
            os.write(done, job().encode("utf-8", "replace")[:4000])
        finally:
            os._exit(0)
    os.close(done)
    return child, ready


class Sender(t.Protocol):
    """A way to one destination."""

    def send(self, message: t.Mapping[str, t.Any]) -> t.List[str]:
        """Hand over one message; returns who did not get it yet."""

    def close(self) -> None: ...


class Mail:
    """One conversation with the relay, for all messages that wait."""

    def __init__(self, options: t.Mapping[str, t.Any], host: str) -> None:
        self.options = options
        self.domain = re.sub(r"[^A-Za-z0-9.-]", "-", host) or "localhost"
        place = f"mail: {options['host']} port {options['port']}"
        self.place = place
        self.relay: t.Optional[smtplib.SMTP] = None
        try:
            if options["tls"] == "tls":
                context = trust(options["ca_file"])
                self.relay = smtplib.SMTP_SSL(options["host"], options["port"], self.domain, timeout=15, context=context)
            else:
                self.relay = smtplib.SMTP(options["host"], options["port"], self.domain, timeout=15)
                if options["tls"] == "starttls":
                    # A relay that does not offer it gets nothing at all.
                    self.relay.starttls(context=trust(options["ca_file"]))
            if options["user"]:
                self.relay.login(options["user"], options["password"])
        except smtplib.SMTPAuthenticationError as error:
            self.drop()
            # The answer may quote what was sent.
            raise Undelivered(f"{place}: user or password is refused ({error.smtp_code})") from None
        except (smtplib.SMTPException, OSError) as error:
            self.drop()
            raise Undelivered(f"{place}: {text.clean(error)}") from None
        except Undelivered:
            self.drop()
            raise

    def send(self, message: t.Mapping[str, t.Any]) -> t.List[str]:
        recipients = list(message.get("to") or self.options["to"])
        mail = compose(message, self.options["from"], self.options["to"], self.domain)
        try:
            refused = t.cast(smtplib.SMTP, self.relay).sendmail(self.options["from"], recipients, mail)
        except smtplib.SMTPRecipientsRefused as error:
            code, answer = next(iter(error.recipients.values()))
            raise Rejected(f"{self.place}: no recipient is accepted: {code} {text.clean(answer.decode('ascii', 'replace'))}") from None
        except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
            answer = error.smtp_error if isinstance(error.smtp_error, bytes) else str(error.smtp_error).encode()
            raise Rejected(f"{self.place}: {error.smtp_code} {text.clean(answer.decode('ascii', 'replace'))}") from None
        except (smtplib.SMTPException, OSError) as error:
            self.drop()
            raise Undelivered(f"{self.place}: {text.clean(error)}") from None
        except Undelivered:
            self.drop()
            raise
        for recipient, (code, answer) in refused.items():
            to_journal(3, f"{self.place}: {recipient} is not accepted: {code} {text.clean(answer.decode('ascii', 'replace'))}")
        # Who does not exist gets nothing later either.
        return [recipient for recipient, (code, _answer) in refused.items() if code < 500]

    def drop(self) -> None:
        """End it without a word: who hangs does not answer a farewell either."""
        if self.relay is not None:
            self.relay.close()
            self.relay = None

    def close(self) -> None:
        if self.relay is not None:
            with contextlib.suppress(smtplib.SMTPException, OSError, Undelivered):
                self.relay.quit()
        self.drop()


def compose(message: t.Mapping[str, t.Any], sender: str, recipients: t.Sequence[str], domain: str) -> bytes:
    """The mail. Line feeds cannot get into its headers: the policy refuses them, and the subject has none."""
    mail = email.message.EmailMessage(policy=email.policy.SMTP)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Subject"] = text.clean(message["subject"])
    mail["Date"] = email.utils.formatdate(usegmt=True)
    mail["Message-ID"] = f"<{re.sub('[^A-Za-z0-9.-]', '-', str(message['id']))}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(str(message["text"]), cte="quoted-printable")
    return mail.as_bytes()
