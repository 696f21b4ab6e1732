# SPDX-License-Identifier: GPL-3.0-or-later
"""What befalls announcements, on the host itself: real logins, a real relay, a real disk.

Each story prints a line; the first that fails ends it.
"""

import contextlib
import email
import email.policy
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path("/srv/sink")
SPOOL = Path("/var/spool/civitas/logins")
CONFIG = Path("/etc/civitas/logins.json")
STATE = Path("/var/lib/civitas/logins.json")
SSH = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
       "-o", "ControlPath=none", "-i", str(HERE / "id")]  # fmt: skip
FINGERPRINT = subprocess.run(["ssh-keygen", "-lf", HERE / "id.pub"], capture_output=True, text=True, check=True).stdout.split()[1]


def run(*command, check=True, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=120, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
    return done


def ssh(user, *command, source="127.0.0.2", options=(), **more):
    return run("ssh", *SSH, *options, "-b", source, f"{user}@127.0.0.1", *command, **more)


def lines(name):
    path = HERE / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def mails(since):
    found = []
    for line in lines("mail.jsonl")[since[0] :]:
        mail = email.message_from_string(line["raw"], policy=email.policy.default)
        found.append({**line, "mail": mail, "text": mail.get_content(), "subject": mail["Subject"], "id": mail["Message-ID"]})
    return found


def chats(since):
    return [line["body"] for line in lines("chat.jsonl")[since[1] :]]


def now():
    """Where the takers of messages are."""
    return len(lines("mail.jsonl")), len(lines("chat.jsonl"))


def wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s; {run('civitas-logins', 'status', check=False)}")
        time.sleep(0.3)


def journal(since):
    return run("journalctl", "--output=cat", "--identifier=civitas-logins", f"--since=@{since}").stdout


def relay(mode):
    run("systemctl", "stop", "sink@mail.service", "sink@strange.service", "sink@hang.service")
    if mode:
        run("systemctl", "start", f"sink@{mode}.service")


def console(user, password):
    """Log in where a person would sit."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv("/bin/login", ["login"])
    said = ""

    def expect(pattern):
        nonlocal said
        end = time.monotonic() + 20
        while not re.search(pattern, said):
            if time.monotonic() > end:
                raise AssertionError(f"login said {said!r}, expected {pattern!r}")
            try:
                if select.select([terminal], [], [], 1)[0]:
                    said += os.read(terminal, 4096).decode(errors="replace")
            except OSError:
                # login hangs up the terminal before it opens it again.
                time.sleep(0.1)
        said = ""

    expect("login: ")
    os.write(terminal, f"{user}\n".encode())
    expect("assword: ")
    os.write(terminal, f"{password}\n".encode())
    expect("[#$] " if password == "console-password" else "incorrect")
    os.write(terminal, b"exit\n" if password == "console-password" else b"\x04")
    os.close(terminal)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 15)
    os.waitpid(pid, 0)


def every_way_in():
    since, begin = now(), time.time()
    ssh("alice", "true", source="127.0.0.2")
    ssh("alice", source="127.0.0.3", options=["-tt"], input="exit\n")
    run("sftp", *SSH, "-o", "BindAddress=127.0.0.4", "-b", "-", "alice@127.0.0.1", input="pwd\n")
    forwarding = subprocess.Popen(["ssh", *SSH, "-b", "127.0.0.5", "-N", "alice@127.0.0.1"])
    ssh("deploy", "true", source="127.0.0.6")
    ssh("glass", "true", source="127.0.0.7")
    console("root", "console-password")
    console("alice", "console-password")
    wait("messages", lambda: len(mails(since)) >= 8 and len(chats(since)) >= 8)
    seconds = time.time() - begin
    forwarding.terminate()
    forwarding.wait()
    # Nothing comes late.
    time.sleep(5)
    assert len(mails(since)) == 8, [mail["subject"] for mail in mails(since)]
    logins = [message["login"] for message in chats(since)]
    found = {login["address"] or (login["user"], login["service"]): login for login in logins}
    wanted = {
        "127.0.0.2": ("alice", "person", "command"),
        "127.0.0.3": ("alice", "person", "interactive"),
        "127.0.0.4": ("alice", "person", "sftp"),
        "127.0.0.5": ("alice", "person", "none yet (forwarding only, or idle)"),
        "127.0.0.6": ("deploy", "automation", "command"),
        "127.0.0.7": ("glass", "break-glass", "command"),
        ("root", "login"): ("root", "root console", "console"),
        ("alice", "login"): ("alice", "person", "console"),
    }
    assert {place: (login["user"], login["kind"], login["session"]) for place, login in found.items()} == wanted, found
    for place, login in found.items():
        keys = [] if isinstance(place, tuple) else [{"type": "ssh-ed25519", "fingerprint": FINGERPRINT}]
        assert login["keys"] == keys, login
        assert abs(login["time"] - begin) < 60, login
    for mail in mails(since):
        assert mail["tls"] and mail["user"] == "logins", mail
        assert mail["to"] == ["administrators@registry.test", "security@registry.test"], mail
    (alarm,) = [mail for mail in mails(since) if "BREAK-GLASS" in mail["subject"]]
    assert "login of glass (break-glass) from 127.0.0.7" in alarm["subject"], alarm["subject"]
    for words in ("User:     glass", FINGERPRINT, "Kind:     break-glass", " UTC", "From:     127.0.0.7 port "):
        assert words in alarm["text"], (words, alarm["text"])
    return f"8 ways in, 8 messages to each destination, all within {seconds:.0f} s"


def ten_at_once():
    since, begin = now(), time.time()
    logins = [subprocess.Popen(["ssh", *SSH, "-b", f"127.0.1.{number}", "alice@127.0.0.1", "true"]) for number in range(1, 11)]
    assert [login.wait() for login in logins] == [0] * 10
    wait("ten messages", lambda: len(mails(since)) >= 10 and len(chats(since)) >= 10)
    seconds = time.time() - begin
    time.sleep(5)
    sources = sorted(message["login"]["address"] for message in chats(since))
    assert sources == sorted(f"127.0.1.{number}" for number in range(1, 11)), sources
    assert len({mail["id"] for mail in mails(since)}) == len(mails(since)) == 10
    return f"10 logins at once, 10 messages to each destination after {seconds:.0f} s"


def relay_down():
    since = now()
    relay("")
    ssh("alice", "true", source="127.0.2.1")
    wait("the message in the chat", lambda: len(chats(since)) == 1)
    wait("the problem", lambda: "port 587" in run("civitas-logins", "status", check=False).stderr)
    assert len(list(SPOOL.glob("mail/*.json"))) == 1
    relay("mail")
    begin = time.time()
    wait("the mail", lambda: len(mails(since)) == 1, 300)
    wait("an end of the problem", lambda: run("civitas-logins", "status", check=False).returncode == 0)
    return f"the relay was down; delivered {time.time() - begin:.0f} s after it was back"


def relay_hangs_or_is_another():
    since = now()
    relay("hang")
    ssh("alice", "true", source="127.0.3.1")
    ssh("alice", "true", source="127.0.3.2")
    wait("the messages in the chat", lambda: len(chats(since)) == 2)
    wait("the problem", lambda: "timed out" in run("civitas-logins", "status", check=False).stderr, 90)
    relay("strange")
    said = len((HERE / "said.log").read_text().splitlines())
    shown = run("civitas-logins", "retry", check=False)
    assert shown.returncode == 1 and "certificate verify failed" in shown.stderr, shown
    commands = re.findall(r">> b'(.*)'", "\n".join((HERE / "said.log").read_text().splitlines()[said:]))
    assert [command.split()[0].upper() for command in commands] == ["EHLO", "STARTTLS"], commands
    assert len(mails(since)) == 0
    relay("mail")
    run("civitas-logins", "retry")
    assert Path("/run/civitas/logins").stat().st_mode & 0o777 == 0o700
    assert sorted(re.search(r"127\.0\.3\.\d", mail["subject"])[0] for mail in mails(since)) == ["127.0.3.1", "127.0.3.2"]
    time.sleep(3)
    assert (len(mails(since)), len(chats(since))) == (2, 2)
    return "a relay that hangs delays nothing else, one with another certificate gets nothing, and the right one gets each message once"


def relay_dies():
    since = now()
    (HERE / "die").touch()
    ssh("alice", "true", source="127.0.4.1")
    wait("the mail again", lambda: len(mails(since)) == 2, 120)
    first, second = mails(since)
    assert first["id"] == second["id"], (first["id"], second["id"])
    wait("the end", lambda: not list(SPOOL.glob("mail/*.json")))
    assert len(chats(since)) == 1
    return "a relay that died after it had taken a message got the same one again, with the same Message-ID"


def disk():
    since, begin = now(), int(time.time())
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", SPOOL)
    try:
        run("dd", "if=/dev/zero", f"of={SPOOL}/full", "bs=4k", check=False)
        start = time.monotonic()
        ssh("alice", "true", source="127.0.5.1")
        full = time.monotonic() - start
        wait("the message in spite of a full disk", lambda: len(mails(since)) == 1 and len(chats(since)) == 1)
    finally:
        run("umount", SPOOL)
    assert "noted in /run/civitas/logins" in journal(begin), journal(begin)
    shutil.rmtree(SPOOL)
    ssh("alice", "true", source="127.0.5.2")
    wait("the message without the directory", lambda: len(mails(since)) == 2 and len(chats(since)) == 2)
    assert SPOOL.stat().st_mode & 0o777 == 0o700
    for path in (SPOOL, Path("/run/civitas/logins")):
        shutil.chown(path, "nobody")
    ssh("alice", "true", source="127.0.5.3")
    wait("the journal", lambda: "WILL NOT BE ANNOUNCED BY ITSELF" in journal(begin))
    for path in (SPOOL, Path("/run/civitas/logins")):
        shutil.chown(path, "root")
    ssh("alice", "true", source="127.0.5.4")
    wait("the message with the right owner", lambda: len(mails(since)) == 3)
    return f"a full disk ({full:.1f} s for the login), a missing directory and a wrong owner: nobody is kept out, and the journal has it"


def hostile_names():
    since = now()
    environment = {
        "PAM_TYPE": "open_session",
        "PAM_SERVICE": "sshd",
        "PAM_USER": "eve\r\nBcc: eve@evil.test\n\n<!channel> & \x1b[2J",
        "PAM_RHOST": "evil.test\nX-Evil: yes\n.\nMAIL FROM:<eve@evil.test>",
        "PAM_TTY": "ssh",
    }
    run("/usr/local/sbin/civitas-logins", "pam", env=environment)
    wait("the message", lambda: len(mails(since)) == 1)
    time.sleep(2)
    (mail,) = mails(since)
    assert sorted(mail["mail"].keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"]
    ), mail["raw"]
    assert mail["to"] == ["administrators@registry.test", "security@registry.test"]
    assert "\x1b" not in mail["text"] and "eve??Bcc: eve@evil.test" in mail["subject"], mail
    return "line ends and control characters in names stay names"


def failures():
    since = now()
    STATE.write_text(json.dumps({**json.loads(STATE.read_text()), "digest": int(time.time()) - 5}))
    time.sleep(6)
    assert ssh("alice", "true", options=["-o", "IdentitiesOnly=yes", "-i", str(HERE / "unknown")], check=False).returncode == 0
    wrong = [word if word != str(HERE / "id") else str(HERE / "unknown") for word in SSH]
    for user in ("alice", "mallory", "mallory"):
        assert run("ssh", *wrong, "-b", "127.0.6.1", f"{user}@127.0.0.1", "true", check=False).returncode == 255
    console("alice", "wrong")
    # A PAM line that somebody has taken out.
    stack = Path("/etc/pam.d/sshd")
    text = stack.read_text()
    stack.write_text(text.replace("session optional pam_exec.so", "#"))
    try:
        ssh("glass", "true", source="127.0.6.9")
    finally:
        stack.write_text(text)
    # A digest ends with the last whole second; what comes after is in the next one.
    time.sleep(1.5)
    run("systemctl", "start", "civitas-logins-digest.service")
    (mail,) = wait("the digest", lambda: [mail for mail in mails(since) if "failed login" in mail["subject"]])
    (chat,) = wait("the digest in the chat", lambda: [chat for chat in chats(since) if chat["type"] == "digest"])
    table = {(row["user"], row["source"]): (row["reason"], row["count"]) for row in chat["failed"]}
    assert table[("mallory", "127.0.6.1")] == ("no such user", 2), chat
    assert table[("alice", "127.0.6.1")] == ("key not accepted", 1), chat
    consoles = [row for row in chat["failed"] if row["reason"] == "wrong password at the console"]
    assert [(row["user"], row["count"]) for row in consoles] == [("alice", 1)], chat
    assert chat["failed_count"] == 4 and chat["unannounced"] == 1, chat
    assert "4 failed logins, 1 NOT ANNOUNCED" in mail["subject"], mail["subject"]
    assert "NOT ANNOUNCED: glass got in from 127.0.6.9" in mail["text"], mail["text"]
    since = now()
    time.sleep(2)
    run("systemctl", "start", "civitas-logins-digest.service")
    (mail,) = wait("the next digest", lambda: [mail for mail in mails(since) if "failed login" in mail["subject"]])
    assert "0 failed logins" in mail["subject"] and "NOT" not in mail["subject"], mail["subject"]
    return "a digest counts 4 failures and the login that PAM did not tell; the next one says that there were none"


def automation():
    since, text = now(), CONFIG.read_text()
    CONFIG.write_text(json.dumps({**json.loads(text), "automation": "summary", "automation_minutes": 0.25}))
    try:
        for number in range(1, 6):
            ssh("deploy", "true", source=f"127.0.7.{number}")
        ssh("alice", "true", source="127.0.7.9")
        wait("all of them", lambda: sum(chat.get("count", 0) for chat in chats(since)) == 5 and len(chats(since)) >= 2)
        wait("the mails", lambda: len(mails(since)) == len(chats(since)))
    finally:
        CONFIG.write_text(text)
    summaries = [chat for chat in chats(since) if chat["type"] == "summary"]
    assert len(summaries) <= 3, summaries
    assert sorted(row["source"] for chat in summaries for row in chat["logins"]) == [f"127.0.7.{number}" for number in range(1, 6)]
    assert [chat["login"]["user"] for chat in chats(since) if chat["type"] == "login"] == ["alice"]
    return f"5 logins of automation in {len(summaries)} summaries, none lost"


def record():
    logins = [json.loads(line) for line in Path("/var/log/civitas/logins.jsonl").read_text().splitlines()]
    announced = {chat["login"]["id"] for chat in chats((0, 0)) if chat["type"] == "login"}
    assert announced <= {login["id"] for login in logins}
    assert {login["address"] for login in logins if login["kind"] == "automation"} >= {f"127.0.7.{number}" for number in range(1, 6)}
    return f"the record has all {len(announced)} announced logins"


STORIES = (
    every_way_in, ten_at_once, relay_down, relay_hangs_or_is_another, relay_dies, disk, hostile_names, failures, automation, record,
)  # fmt: skip

if __name__ == "__main__":
    for story in STORIES:
        if sys.argv[1:] in ([], [story.__name__]):
            begin = time.monotonic()
            print(f"{story.__name__}: {story()} ({time.monotonic() - begin:.0f} s)", flush=True)
