# SPDX-License-Identifier: GPL-3.0-or-later
"""What befalls signatures, on the host itself: real mail, verified by dkimpy as receivers do, with the records of a real name server.

python3 signatures.py before: until another key is asked for; python3 signatures.py after: once it was.
"""

import json
import re
import signal
import sys
import time
from pathlib import Path

import dkim
import dns.resolver
from stories import by_smtp, chats, lines, mails, queue, run, send, smarthost, wait

RECORDS = Path("/srv/sink/records.conf")
KEYS = Path("/var/lib/civitas/dkim")
SIGNER = "civitas-dkim.service"
ALLOWED = "desk@office.records.test"


def publish(*lines):
    """Have the name server answer these records, as they stand in a zone file, and no others."""
    with RECORDS.open("w") as file:
        for line in lines:
            name, _in, _txt, strings = line.split(" ", 3)
            file.write("txt-record=" + name.rstrip(".") + "," + strings.replace('" "', '","') + "\n")
    run("systemctl", "restart", "names.service")
    wait("the name server", lambda: answers(dns.resolver.Resolver()), 10)


def answers(resolver):
    try:
        resolver.resolve("records.test", "TXT", raise_on_no_answer=False, lifetime=1)
    except dns.resolver.NXDOMAIN:
        return True
    except dns.exception.DNSException:
        return False
    return True


def shown(status):
    """The record that the program shows, and what it says of it."""
    said = run("civitas-mail", "dkim", check=False)
    assert said.returncode == status, said
    (record,) = [line for line in said.stdout.splitlines() if " IN TXT " in line]
    return record, said.stdout + said.stderr


def watch():
    run("systemctl", "start", "civitas-mail.service")
    return Path("/var/lib/civitas/metrics/mail.prom").read_text()


def signature(mail):
    """Its tags, when an independent verifier and the DNS agree with it."""
    head = mail["raw"].partition("\r\n\r\n")[0]
    found = re.findall(r"^DKIM-Signature:((?:.|\r\n[ \t])*)\r\n", head, re.MULTILINE)
    assert len(found) == 1 and dkim.verify(mail["raw"].encode()) is True, mail["raw"]
    return dict(tag.strip().split("=", 1) for tag in found[0].split(";") if tag.strip())


def arrived(since, *subjects):
    found = wait("mails", lambda: set(found := mails(since)) >= set(subjects) and found)
    assert {len(each) for each in found.values()} == {1}, found
    return [found[subject][0] for subject in subjects]


def unsigned_until_the_record_is_there():
    smarthost("good")
    told, since = len(chats()), len(lines("mail.jsonl"))
    send("early")
    (mail,) = arrived(since, "early")
    assert "DKIM-Signature" not in mail["raw"]
    assert "mail leaves unsigned until the record first._domainkey.records.test is published" in shown(1)[1]
    assert "civitas_mail_signing 0\n" in watch()
    # Whoever has an hour's patience is told.
    run("touch", "-d", "2 hours ago", *KEYS.glob("*.pem"))
    watch()
    assert "leaves unsigned" in chats(told)[0]["text"], chats(told)
    return "mail leaves unsigned, and it is told"


def signed_once_it_is():
    told, since = len(chats()), len(lines("mail.jsonl"))
    publish(shown(1)[0])
    assert "civitas_mail_signing 1\n" in watch()
    assert [chat["text"] for chat in chats(told)] == ["Mail of this host is signed as it should be.\n"]
    shown(0)
    more = ["Reply-To: clerk@ministry.test", "MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8"]
    more += ["Content-Transfer-Encoding: 8bit"]
    send("own")
    send("stranger", "minister@ministry.test", "person@elsewhere.test", more, "Grüße, \t ...\n.\n\n")
    assert by_smtp("172.30.128.2", "container") == (250, "")
    send("lost", ALLOWED, "nobody@elsewhere.test")
    found = arrived(since, "own", "stranger", "container", "Undelivered Mail Returned to Sender")
    for mail in found:
        tags = signature(mail)
        assert (tags["d"], tags["s"], tags["c"], tags["a"]) == ("records.test", "first", "relaxed/simple", "rsa-sha256"), tags
        names = re.sub(r"\s", "", tags["h"]).lower().split(":")
        assert "l" not in tags and names.count("from") == 2 and "subject" in names, tags
    assert "Reply-To: clerk@ministry.test" in found[1]["raw"] and "Grüße" in found[1]["raw"]
    assert found[3]["sender"] == "<>"
    # The verifier would see it if somebody had changed a letter, or set another sender above.
    raw = found[0]["raw"]
    assert not dkim.verify(raw.replace("canary-text", "canary-test").encode())
    assert not dkim.verify(f"From: minister@ministry.test\r\n{raw}".encode())
    return "accounts, strangers, containers and returned mail are signed, and the verifier agrees"


def a_silent_dns_changes_nothing():
    told, since = len(chats()), len(lines("mail.jsonl"))
    run("systemctl", "stop", "names.service")
    assert "first._domainkey.records.test; " in shown(1)[1]
    watch()
    send("silent")
    (mail,) = arrived(since, "silent")
    run("systemctl", "start", "names.service")
    wait("the name server", lambda: answers(dns.resolver.Resolver()), 10)
    assert signature(mail)["s"] == "first" and chats(told) == [], chats(told)
    return "without a name server mail is signed as before, and nobody is told"


def a_wrong_record_is_told():
    told, since = len(chats()), len(lines("mail.jsonl"))
    record, _said = shown(0)
    publish(record.replace("p=MII", "p=MIJ"))
    assert "the record has another key than this host" in shown(1)[1]
    assert "civitas_mail_signature_wrong 1\n" in watch()
    assert "receivers cannot verify" in chats(told)[0]["text"], chats(told)
    send("wrong")
    (mail,) = arrived(since, "wrong")
    assert "DKIM-Signature" in mail["raw"]
    publish(record)
    assert "civitas_mail_signature_wrong 0\n" in watch() and len(chats(told)) == 2
    assert signature(mail)["s"] == "first"
    return "another key in the DNS is told at once, and mail is signed nevertheless"


def nothing_leaves_without_the_signer():
    told, since = len(chats()), len(lines("mail.jsonl"))
    run("systemctl", "stop", SIGNER)
    send("waits")
    code, answer = by_smtp("172.30.128.2", "refused for the moment")
    assert code == 451, (code, answer)
    wait("the mail", lambda: [mail["queue_name"] for mail in queue()] == ["maildrop"])
    assert "civitas_mail_signer_running 0\n" in watch()
    assert "opendkim does not run; mail waits" in chats(told)[0]["text"], chats(told)
    assert run("civitas-mail", "status", check=False).returncode == 1
    assert not mails(since)
    run("systemctl", "start", SIGNER)
    wait("the signer", Path("/run/civitas-dkim/milter").is_socket, 10)
    run("postkick", "public", "pickup", "W")
    (mail,) = arrived(since, "waits")
    assert signature(mail)["s"] == "first" and not queue()
    watch()
    assert chats(told)[-1]["text"] == "Mail leaves this host again.\n"
    # Killed, it comes back by itself.
    run("systemctl", "kill", "-s", "KILL", SIGNER)
    wait("the signer", lambda: run("systemctl", "is-active", SIGNER, check=False).stdout == "active\n", 20)
    return "without the signer mail waits, which is told, and leaves signed and once after that"


def the_new_key_waits_for_its_record():
    since = len(lines("mail.jsonl"))
    record, said = shown(1)
    assert "signed with first._domainkey.records.test until the record second._domainkey.records.test is published" in said, said
    assert sorted(path.name for path in KEYS.glob("*.pem")) == [f"{name}._domainkey.records.test.pem" for name in ("first", "second")]
    send("still first")
    (mail,) = arrived(since, "still first")
    assert signature(mail)["s"] == "first"
    old = RECORDS.read_text()
    publish(record)
    RECORDS.write_text(RECORDS.read_text() + old)
    run("systemctl", "restart", "names.service")
    watch()
    assert [path.name for path in KEYS.glob("*.pem")] == ["second._domainkey.records.test.pem"]
    send("second")
    (mail,) = arrived(since, "second")
    assert signature(mail)["s"] == "second"
    shown(0)
    state = json.loads((KEYS / "state.json").read_text())
    assert [key["selector"] for key in state["keys"]] == ["second"] and state["keys"][0]["public_key"][:60] in record
    return "the old key signs until the record of the new one is there, and is gone then"


STORIES = {
    "before": (
        unsigned_until_the_record_is_there, signed_once_it_is, a_silent_dns_changes_nothing, a_wrong_record_is_told,
        nothing_leaves_without_the_signer,
    ),
    "after": (the_new_key_waits_for_its_record,),
}  # fmt: skip

if __name__ == "__main__":
    signal.alarm(300)
    for story in STORIES[sys.argv[1]]:
        begin = time.monotonic()
        print(f"{story.__name__}: {story()} ({time.monotonic() - begin:.0f} s)", flush=True)
