# SPDX-License-Identifier: GPL-3.0-or-later
"""What befalls mail, on the host itself: real mail, real smarthosts, a real disk.

Each story prints a line; the first that fails ends it.
"""

import collections
import contextlib
import email
import email.policy
import json
import re
import signal
import smtplib
import ssl
import subprocess
import sys
import time
from pathlib import Path

HERE = Path("/srv/sink")
SPOOL = "/var/spool/postfix"
UNIT = json.loads(Path("/etc/civitas/mail.json").read_text())["unit"]
# Way of a smarthost to be wrong -> what Postfix says to that.
WRONG = {
    "clear": "TLS is required, but was not offered",
    "selfsigned": "not verified|not trusted",
    "expired": "not verified|not trusted",
    "wrongname": "not verified|not trusted",
    "oldtls": "Cannot start TLS",
    "login": "authentication failed",
    "later": "450 4.2.0",
    "never": "sending is not allowed any more",
    "hang": "timed out|lost connection",
    "closed": "Connection refused",
}
# Those that would take mail if they were let.
IMPOSTORS = ("clear", "selfsigned", "expired", "wrongname", "oldtls")


def run(*command, check=True, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=120, **more)
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: {done.returncode}: {done.stdout}{done.stderr}")
    return done


def lines(name, since=0):
    path = HERE / name
    return [json.loads(line) for line in path.read_text().splitlines()][since:] if path.exists() else []


def mails(since=0):
    """What the smarthost took: subject -> mails."""
    found = collections.defaultdict(list)
    for line in lines("mail.jsonl", since):
        mail = email.message_from_string(line["raw"], policy=email.policy.default)
        found[mail["Subject"]].append({**line, "mail": mail})
    return found


def chats(since=0):
    return [line["body"] for line in lines("chat.jsonl", since)]


def queue():
    return [json.loads(line) for line in run("postqueue", "-j").stdout.splitlines()]


def reason(address):
    found = [recipient for mail in queue() for recipient in mail["recipients"] if recipient["address"] == address]
    return found[0].get("delay_reason", "") if found else ""


def wait(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s; {run('postqueue', '-p').stdout}")
        time.sleep(0.5)


def smarthost(mode):
    run("systemctl", "stop", "sink@*.service")
    run("systemctl", "start", "sink@chat.service", *([f"sink@{mode}.service"] if mode else []))


def send(subject, sender="root", to="root", head=(), body="canary-text"):
    """As programs of the host do."""
    text = "\n".join([f"Subject: {subject}", f"From: {sender}", f"To: {to}", *head, "", body, ""])
    run("sendmail", "-i", "-f", sender, to, input=text)


def by_smtp(source, subject, sender="app@office.records.test", to="person@elsewhere.test", body="canary-text"):
    """As a container does; what it got for an answer when it was refused."""
    try:
        with smtplib.SMTP("172.30.0.1", 25, "container", timeout=30, source_address=(source, 0)) as client:
            client.sendmail(sender, to, f"Subject: {subject}\r\nFrom: {sender}\r\nTo: {to}\r\n\r\n{body}\r\n")
        return 250, ""
    except smtplib.SMTPRecipientsRefused as error:
        code, answer = next(iter(error.recipients.values()))
        return code, answer.decode()
    except smtplib.SMTPResponseException as error:
        return error.smtp_code, error.smtp_error.decode()


def everybody_sends_as_somebody_who_may():
    smarthost("good")
    since = len(lines("mail.jsonl"))
    nested = ["Reply-To: clerk@ministry.test", "MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b"]
    body = "--b\nContent-Type: message/rfc822\n\nReply-To: inner@ministry.test\nFrom: inner@ministry.test\nSubject: inner\n\nx\n--b--"
    send("account", "www-data", "www-data")
    send("stranger", "minister@ministry.test", "person@elsewhere.test", nested, body)
    send("office", "desk@office.records.test", "person@elsewhere.test")
    cron = Path("/etc/cron.d/story")
    cron.write_text("* * * * * root echo canary-text\n")
    try:
        found = wait("mails", lambda: (found := mails(since)) and [s for s in found if "Cron" in s] and len(found) >= 4 and found, 90)
    finally:
        cron.unlink()
    for subject, (mail, *more) in found.items():
        assert not more and mail["tls"] and mail["user"] == "registry", (subject, mail)
        wanted = "desk@office.records.test" if subject == "office" else "registry@records.test"
        assert mail["sender"] == wanted, (subject, mail)
        assert mail["mail"]["From"].addresses[0].addr_spec == wanted, (subject, mail)
        there = ["person@elsewhere.test"] if subject in ("stranger", "office") else ["admins@records.test", "security@records.test"]
        assert sorted(mail["to"]) == there, (subject, mail)
    raw = found["stranger"][0]["raw"]
    assert found["stranger"][0]["mail"]["Reply-To"] == "clerk@ministry.test" and "X-Civitas" not in raw, raw
    assert "Reply-To: inner@ministry.test" in raw and "From: inner@ministry.test" in raw, raw
    return "cron, accounts and strangers send as registry@, the office as itself; Reply-To stays"


def containers_send_and_strangers_do_not():
    # Postfix has run without that address until now, as before Docker has made its bridge.
    for address in ("172.30.0.1/32", "172.30.128.2/32", "172.31.0.2/32"):
        run("ip", "address", "replace", address, "dev", "lo")
    since = len(lines("mail.jsonl"))
    assert by_smtp("172.30.128.2", "container") == (250, "")
    code, answer = by_smtp("172.31.0.2", "relay")
    assert (code, "Access denied" in answer or "rejected" in answer) == (554, True), (code, answer)
    code, answer = by_smtp("172.30.128.2", "large", body="x" * 3 * 2**20)
    assert code == 552, (code, answer)
    answers = [by_smtp("172.30.128.2", f"flood {number}")[0] for number in range(25)]
    assert answers[0] == 250 and 450 in answers, answers
    taken = answers.count(250)
    found = wait("the mails", lambda: len(found := mails(since)) == taken + 1 and found, 90)
    assert {len(each) for each in found.values()} == {1} and not {"relay", "large"} & set(found), found
    # As fast as the smarthost is to get them.
    times = sorted(line["time"] for line in lines("mail.jsonl", since))
    assert times[-1] - times[0] > 0.8 * (len(times) - 1), times
    return f"a container sends, {taken} in a row and one a second, no more; a stranger does not, nor does a large one"


def unknown_recipients_come_back():
    since = len(lines("mail.jsonl"))
    send("unknown", "desk@office.records.test", "nobody@elsewhere.test")
    found = wait("the bounce", lambda: mails(since), 60)
    ((subject, (mail,)),) = found.items()
    assert subject.startswith("Undelivered Mail") and mail["sender"] == "<>" and mail["to"] == ["desk@office.records.test"], mail
    wait("the end", lambda: not queue())
    return "mail for somebody who does not exist comes back at once"


def careless(mode):
    """Send as a program that verifies nothing, to show that this smarthost takes mail of such."""
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    trusting.minimum_version = ssl.TLSVersion.TLSv1
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    smarthost(mode)
    with smtplib.SMTP("smarthost.test", 587, timeout=30) as client:
        if mode != "clear":
            client.starttls(context=trusting)
        client.login("registry", "canary-smtp-password: # $1")
        client.sendmail("careless@records.test", "person@elsewhere.test", "Subject: careless\r\n\r\nx\r\n")


def refused(mode, words, talked):
    address = f"{mode}@elsewhere.test"
    smarthost("" if mode == "closed" else mode)
    send(f"wrong {mode}", to=address)
    # What Postfix found dead a moment ago it does not try by itself.
    run("postqueue", "-f")
    if mode not in ("hang", "closed"):
        wait(f"{mode} is talked to", lambda: [line for line in lines("said.jsonl", talked) if line["mode"] == mode])
    wait(f"{mode}: {words}", lambda: re.search(words, reason(address)), 100)


def nothing_leaves_by_a_wrong_smarthost():
    before = len(lines("mail.jsonl"))
    for mode in IMPOSTORS:
        careless(mode)
    assert len(mails(before)["careless"]) == len(IMPOSTORS)
    since, talked, told, begin = len(lines("mail.jsonl")), len(lines("said.jsonl")), len(lines("chat.jsonl")), time.time()
    for mode, words in WRONG.items():
        refused(mode, words, talked)
    assert len(queue()) == len(WRONG) and not mails(since)
    said = [line for line in lines("said.jsonl", talked) if line["clear"]]
    verbs = {words.split()[0].upper() for line in said for words in line["said"].splitlines()}
    assert {line["mode"] for line in said} == set(WRONG) - {"hang", "closed"} and verbs <= {"EHLO", "STARTTLS", "QUIT"}, said
    impostors = [line for line in lines("said.jsonl", talked) if line["mode"] in IMPOSTORS]
    assert not [line for line in impostors if not line["clear"] and line["said"].strip().upper() != "QUIT"], impostors
    (alert,) = wait("the alert", lambda: chats(told), 240)
    late = time.time() - begin
    assert "mail waits" in alert["text"] or "mails wait" in alert["text"], alert
    assert "@" not in alert["text"] and "canary" not in json.dumps(alert), alert
    assert run("civitas-mail", "status", check=False).returncode == 1
    assert run("postqueue", "-j").stdout.count("arrival_time") == len(WRONG)
    return f"{len(WRONG)} wrong smarthosts: nothing left, and with one minute for a limit it was told after {late:.0f} s"


def nothing_is_lost_by_restarts():
    run("systemctl", "restart", UNIT)
    run("killall", "-9", "master")
    told = len(lines("chat.jsonl"))
    send("while it was down")
    run("systemctl", "start", "civitas-mail.service")
    assert "Postfix does not run" in chats(told)[0]["text"], chats(told)
    run("systemctl", "restart", UNIT)
    wait("all that waits", lambda: len(queue()) == len(WRONG) + 1)
    return "a restart, and the death of Postfix, which is told"


def repaired():
    since = len(lines("mail.jsonl"))
    told = len(lines("chat.jsonl"))
    smarthost("good")
    begin = time.monotonic()
    wanted = {f"wrong {mode}" for mode in WRONG} | {"while it was down"}
    wait("all mails", lambda: not queue(), 300)
    seconds = time.monotonic() - begin
    found = mails(since)
    assert set(found) == wanted and {len(each) for each in found.values()} == {1}, found
    run("systemctl", "start", "civitas-mail.service")
    assert [chat["text"] for chat in chats(told)] == ["Mail leaves this host again.\n"], chats(told)
    assert run("civitas-mail", "status").returncode == 0
    # Nothing comes twice, nor is anything told twice.
    time.sleep(5)
    assert len(lines("mail.jsonl")) == since + len(wanted) and len(chats(told)) == 1
    return f"all {len(wanted)} mails left {seconds:.0f} s after the repair, each once"


def full_disk():
    told = len(lines("chat.jsonl"))
    run("systemctl", "stop", UNIT)
    run("cp", "-a", SPOOL, "/var/spool/kept")
    run("mount", "-t", "tmpfs", "-o", "size=64m,mode=0755", "tmpfs", SPOOL)
    try:
        run("cp", "-a", "/var/spool/kept/.", SPOOL)
        run("systemctl", "start", UNIT)
        code, answer = wait("Postfix", lambda: (found := by_smtp("172.30.128.2", "full"))[0] and found, 30)
        assert code in (452, 451), (code, answer)
        run("systemctl", "start", "civitas-mail.service")
        assert "mail is not taken" in chats(told)[0]["text"], chats(told)
        # State and measurements cannot be written either.
        run("mount", "-t", "tmpfs", "-o", "size=4k,mode=0755", "tmpfs", "/var/lib/civitas")
        with contextlib.suppress(OSError):
            Path("/var/lib/civitas/full").write_bytes(b"x" * 8192)
        Path("/run/civitas/mail.json").unlink(missing_ok=True)
        run("systemctl", "start", "civitas-mail.service")
        run("systemctl", "start", "civitas-mail.service")
        assert len(chats(told)) == 2, chats(told)
    finally:
        run("umount", "/var/lib/civitas", check=False)
        run("systemctl", "stop", UNIT)
        run("umount", SPOOL)
        run("rm", "-r", "/var/spool/kept")
        run("systemctl", "start", UNIT)
    run("systemctl", "start", "civitas-mail.service")
    assert chats(told)[-1]["text"] == "Mail leaves this host again.\n"
    return "no mail is taken on a full disk, and that is told once, with nothing that could be written"


STORIES = (
    everybody_sends_as_somebody_who_may, containers_send_and_strangers_do_not, unknown_recipients_come_back,
    nothing_leaves_by_a_wrong_smarthost, nothing_is_lost_by_restarts, repaired, full_disk,
)  # fmt: skip

if __name__ == "__main__":
    signal.alarm(1500)
    for story in STORIES:
        if sys.argv[1:] in ([], [story.__name__]):
            begin = time.monotonic()
            print(f"{story.__name__}: {story()} ({time.monotonic() - begin:.0f} s)", flush=True)
