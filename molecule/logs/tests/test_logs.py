# SPDX-License-Identifier: GPL-3.0-or-later
"""What befalls logins is kept on the host and on another one, whole and once, and nobody makes it say something else."""

from __future__ import annotations

import collections
import datetime
import json
import re
import time

import pytest
import testinfra

testinfra_hosts = ["ansible://servers"]

EVIDENCE = "/var/log/civitas/evidence"
RECEIVED = "/var/log/civitas/received"
PORT = 9997
# In all that is said here, so that the tests can be run again.
RUN = f"{time.time_ns():x}"[-11:]
SSH = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
# A sender that somebody has taken over: greets, sends, and prints what it is told.
CLIENT = """
import json, socket, ssl, sys
address, certificate, greeting, lines, wanted, padding = json.loads(sys.stdin.read())
context = ssl.create_default_context(cafile="/etc/civitas/ca.pem")
context.load_cert_chain(certificate + "/fullchain.pem", certificate + "/key.pem")
try:
    with socket.create_connection((address, 9997), timeout=10) as plain:
        with context.wrap_socket(plain, server_hostname="watch-1.internal") as connection:
            connection.sendall(greeting.encode())
            file = connection.makefile("rb")
            print(file.readline().decode().strip())
            for line in lines:
                connection.sendall(line.replace("PADDING", "x" * padding).encode())
            for _one in range(wanted):
                print(file.readline().decode().strip())
except OSError as error:
    print("refused:", error)
"""


@pytest.fixture(name="watch", scope="module")
def _watch(host):
    """The host that receives."""
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['monitoring'][0]}")


@pytest.fixture(name="address", scope="module")
def _address(watch):
    return next(address for address in watch.interface("eth0").addresses if "." in address)


@pytest.fixture(autouse=True, scope="module")
def _fresh(watch):
    """The other sender has its whole share of the day."""
    watch.check_output(f"systemctl stop civitas-logs-receive && rm -f {RECEIVED}/other-1/* && systemctl start civitas-logs-receive")


@pytest.fixture(autouse=True)
def _quiet(host, watch):
    """Whatever a test did, the next one finds both services running."""
    yield
    watch.check_output("systemctl start civitas-logs-receive")
    host.check_output("systemctl start civitas-logs")


def kept(host):
    return [json.loads(line) for line in host.check_output("civitas-logs show --json").splitlines()]


def received(watch, sender="records-1"):
    found = watch.check_output(f"cat $(ls {RECEIVED}/{sender}/*.jsonl) /dev/null").splitlines()
    return [json.loads(line) for line in found if line.startswith("{")]


def messages(lines):
    return [line.get("line", line).get("said", {}).get("message", "") for line in lines]


def soon(question, seconds=45):
    """What C(question) answers once that is true."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.2)


def arrived(watch, text, sender="records-1"):
    """The lines with this text, once there is one."""
    return soon(lambda: [line for line in received(watch, sender) if text in line["line"].get("said", {}).get("message", "")])


def client(host, address, certificate, greeting, lines=(), wanted=0, padding=0):
    given = json.dumps([address, f"/etc/civitas/certificates/{certificate}", greeting, list(lines), wanted, padding])
    return host.check_output("printf %%s %s | python3 -c %s", given, CLIENT).splitlines()


def a_series(letter):
    return f"{letter * 5}{RUN}"


def greeting(series):
    return json.dumps({"civitas_logs": 1, "series": series}) + "\n"


def line(series, number, **more):
    return json.dumps({"series": series, "n": number, **more}) + "\n"


def native(host, **fields):
    """Anna says something by the journal's own protocol."""
    program = (
        "import json, socket, struct, sys; "
        "data = b''.join(name.encode() + b'\\n' + struct.pack('<Q', len(text.encode())) + text.encode() + b'\\n' "
        "for name, text in json.loads(sys.argv[1]).items()); "
        "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(data, '/run/systemd/journal/socket')"
    )
    host.check_output("runuser -u anna -- python3 -c %s %s", program, json.dumps(fields))


# --- what is kept and sent


def test_who_got_in_and_who_did_not_and_what_they_did_arrives(host, watch):
    begin = time.monotonic()
    host.check_output(f"{SSH} -i /root/right anna@127.0.0.1 sudo -n true")
    assert host.run(f"{SSH} -i /root/wrong anna@127.0.0.1 true").rc == 255
    fingerprint = re.escape(host.check_output("ssh-keygen -lf /root/right.pub").split()[1])
    for text in (f"Accepted publickey for anna from 127.0.0.1 port .* {fingerprint}", "Connection closed by authenticating user anna"):
        found = soon(lambda text=text: [one for one in received(watch) if re.search(text, one["line"]["said"]["message"])])
        assert found, text
        # Of a process that has ended when the journal looks, only the kernel's own word of its user is left.
        seen = {"unit": "ssh.service", "exe": "/usr/sbin/sshd", **found[-1]["line"]["seen"]}
        assert seen["uid"] == 0 and seen["unit"] == "ssh.service", found[-1]
        assert seen["exe"].startswith(("/usr/sbin/sshd", "/usr/lib/openssh/sshd")), found[-1]
    (run,) = [one for one in arrived(watch, "COMMAND=/usr/bin/true") if "anna" in one["line"]["said"]["message"]][-1:]
    assert run["line"]["seen"].get("exe", "/usr/bin/sudo") == "/usr/bin/sudo" and run["line"]["seen"]["uid"] == 1000
    assert run["sender"] == "records-1" and run["address"] != "" and run["received"] >= run["line"]["time"]
    assert time.monotonic() - begin < 60


def test_every_line_is_here_and_there_once_and_in_order(host, watch):
    host.check_output(f"logger -p auth.info last-of-{RUN}")
    arrived(watch, f"last-of-{RUN}")
    here, there = kept(host), received(watch)
    series = here[-1]["series"]
    numbers = [one["n"] for one in here]
    assert numbers == list(range(1, len(numbers) + 1)) and {one["series"] for one in here} == {series}
    sent = [one for one in there if one["series"] == series]
    assert [one["n"] for one in sent] == list(range(1, len(sent) + 1))
    assert messages(sent) == messages(here)[: len(sent)] and f"last-of-{RUN}" in messages(sent)


def test_who_pretends_to_be_sshd_is_recognised(host, watch):
    made_up = f"SHA256:{RUN}"
    text = f"Accepted publickey for root from 203.0.113.7 port 22 ssh2: ED25519 {made_up}"
    host.check_output("runuser -u anna -- logger -p authpriv.info -t sshd -- %s", text)
    # By the journal's own protocol, with everything that one may claim.
    claims = {"_UID": "0", "_PID": "1", "_SYSTEMD_UNIT": "ssh.service", "_EXE": "/usr/sbin/sshd"}
    native(host, SYSLOG_FACILITY="10", SYSLOG_IDENTIFIER="sshd", MESSAGE=f"{text} too", **claims)
    found = soon(lambda: [one for one in arrived(watch, made_up) if one["line"]["said"]["message"].endswith("too")])
    for one in (*arrived(watch, made_up), *found):
        assert one["line"]["said"]["identifier"] == "sshd"
        assert one["line"]["seen"]["uid"] == 1000 and one["line"]["seen"].get("unit") != "ssh.service", one
    shown = [one for one in watch.check_output("civitas-logs show --sender records-1").splitlines() if made_up in one]
    assert len(shown) == 2 and all(one.startswith("! ") and "uid=1000" in one for one in shown), shown


def test_nobody_writes_two_lines_with_one_or_leaves_something_out(host, watch):
    native(host, SYSLOG_FACILITY="10", MESSAGE='two\n{"n":1}\x1b[2J "quoted" ' + RUN + "x" * 6000)
    (one,) = arrived(watch, f'"quoted" {RUN}')
    assert len(one["line"]["said"]["message"]) == 4096
    assert "\x1b" not in watch.check_output("civitas-logs show --sender records-1")


def test_what_is_declared_leaves_the_host_and_nothing_else_does(host, watch):
    host.check_output(f"logger -p user.info -t diary a-secret-{RUN} && logger -p user.info -t story this-may-go-{RUN}")
    assert arrived(watch, f"this-may-go-{RUN}")
    assert host.run(f"grep -r a-secret-{RUN} {EVIDENCE}").rc == 1 and watch.run(f"grep -r a-secret-{RUN} {RECEIVED}").rc == 1


def test_lines_are_root_s(host, watch):
    for one, path in ((host, EVIDENCE), (watch, f"{RECEIVED}/records-1")):
        assert one.run(f"runuser -u nobody -- ls {path}").rc != 0
        assert one.check_output(f"stat -c %a {path}/*.jsonl").split() == ["640"]
    assert watch.check_output("ps -o user= -p $(systemctl show -P MainPID civitas-logs-receive)").strip() == "civitas-logs"
    assert watch.run("runuser -u civitas-logs -- cat /etc/civitas/certificates/logs/key.pem").rc != 0


# --- when something stops


def said(host, name, numbers):
    host.check_output(f"for n in $(seq {numbers[0]} {numbers[-1]}); do logger -p authpriv.info {name}-{RUN}-$n-; done")


def test_nothing_is_lost_or_comes_twice_whoever_stops(host, watch):
    """Whether it is asked to or killed, the one that sends or the one that receives, or journald has begun a new file."""
    said(host, "story", range(1, 6))
    assert arrived(watch, f"story-{RUN}-5-")
    watch.check_output("systemctl stop civitas-logs-receive")
    begin = time.monotonic()
    host.check_output(f"{SSH} -i /root/right anna@127.0.0.1 true")
    assert time.monotonic() - begin < 5, "logins wait for it"
    said(host, "story", range(6, 9))
    host.check_output("systemctl restart civitas-logs")
    said(host, "story", range(9, 12))
    host.check_output("systemctl kill -s KILL civitas-logs && journalctl --rotate --quiet")
    said(host, "story", range(12, 15))
    host.check_output("systemctl stop civitas-logs")
    said(host, "story", range(15, 18))
    host.check_output("systemctl start civitas-logs")
    assert soon(lambda: f"story-{RUN}-17-" in messages(kept(host)))
    watch.check_output("systemctl start civitas-logs-receive")
    assert arrived(watch, f"story-{RUN}-17-")
    # While lines come.
    host.check_output(f"nohup sh -c 'for n in $(seq 18 400); do logger -p authpriv.info story-{RUN}-$n-; done' > /dev/null 2>&1 &")
    for one in (watch, host, watch, host):
        unit = "civitas-logs-receive" if one is watch else "civitas-logs"
        one.check_output(f"sleep 0.3; systemctl kill -s KILL {unit}; systemctl reset-failed {unit}; systemctl start {unit}")
    assert arrived(watch, f"story-{RUN}-400-")
    found = collections.Counter(text for text in messages(received(watch)) if re.fullmatch(f"story-{RUN}-[0-9]+-", text))
    assert found == {f"story-{RUN}-{number}-": 1 for number in range(1, 401)}


def test_a_line_that_breaks_without_a_word(host, watch):
    """As a host without power: it keeps its address and answers nobody."""
    process = watch.check_output("systemctl show -P MainPID civitas-logs-receive")
    watch.check_output(f"kill -STOP {process}")
    said(host, "frozen", range(1, 4))
    host.check_output("systemctl restart civitas-logs")
    watch.check_output(f"kill -CONT {process}")
    assert arrived(watch, f"frozen-{RUN}-3-")
    assert [text[-2] for text in messages(received(watch)) if text.startswith(f"frozen-{RUN}-")] == ["1", "2", "3"]


# --- who may send


def test_a_certificate_of_another_authority_is_refused(host, watch, address):
    host.check_output(
        "mkdir -p /etc/civitas/certificates/foreign && cd /etc/civitas/certificates/foreign && openssl req -x509 -newkey ec -pkeyopt "
        "ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=records-1.internal -addext subjectAltName=DNS:records-1.internal "
        "-keyout key.pem -out fullchain.pem 2> /dev/null"
    )
    before = received(watch)
    (answer, *_rest) = client(host, address, "foreign", greeting(a_series("f")), [line(a_series("f"), 1, said={"message": "foreign"})]) or [
        ""
    ]
    assert "have" not in answer
    assert soon(lambda: "certificate verify failed" in watch.check_output("journalctl -u civitas-logs-receive -o cat"))
    assert len(received(watch)) >= len(before) and "foreign" not in messages(received(watch))


def test_a_certificate_of_nobody_who_may_send_is_refused(host, watch, address):
    (answer, *_rest) = client(host, address, "stranger", greeting(a_series("e")), [line(a_series("e"), 1)]) or [""]
    assert "have" not in answer
    assert soon(lambda: "stranger.internal, who is no sender" in watch.check_output("journalctl -u civitas-logs-receive -o cat"))
    assert watch.check_output(f"ls {RECEIVED}").split() == ["other-1", "records-1"]


def test_nothing_comes_in_without_tls(host, watch, address):
    before = watch.check_output(f"cat {RECEIVED}/*/*.jsonl | wc -l")
    text = (greeting(a_series("d")) + line(a_series("d"), 1)).replace('"', '\\"').replace("\n", "\\n")
    program = f'import socket; s = socket.create_connection(("{address}", {PORT})); s.sendall(b"{text}"); print(s.recv(99))'
    assert "have" not in host.run("python3 -c %s", program).stdout
    assert int(watch.check_output(f"cat {RECEIVED}/*/*.jsonl | grep -c {a_series('d')} || true")) == 0
    assert int(before) <= int(watch.check_output(f"cat {RECEIVED}/*/*.jsonl | wc -l"))


def test_who_sends_as_another_host_does_so_under_its_own_name(host, watch, address):
    mine = a_series("c")
    claims = {"sender": "records-1", "address": "192.0.2.1", "host": "records-1", "line": {"sender": "records-1"}}
    lines = [line(mine, 1, said={"message": f"i-am-records-1-{RUN}"}, **claims)]
    assert client(host, address, "other", greeting(mine), lines, 1) == ['{"have": 0}', '{"have": 1}']
    (found,) = arrived(watch, f"i-am-records-1-{RUN}", "other-1")
    assert (found["sender"], found["line"]["sender"]) == ("other-1", "records-1") and found["address"] != "192.0.2.1"
    assert f"i-am-records-1-{RUN}" not in messages(received(watch))


def test_who_was_taken_over_changes_and_reads_nothing_from_before(host, watch, address):
    """With its own certificate: lines with numbers that are there already, words for other things, names of files."""
    mine = a_series("b")
    client(host, address, "other", greeting(mine), [line(mine, n, said={"message": f"before-{n}"}) for n in (1, 2, 3)], 1)
    before = watch.check_output(f"cat {RECEIVED}/other-1/*.jsonl")
    assert "before-3" in before
    again = [line(mine, n, said={"message": "changed"}) for n in (1, 2, 3)]
    assert client(host, address, "other", greeting(mine), ["".join(again)], 1) == ['{"have": 3}', '{"have": 3}']
    for words in ({"delete": 1}, {"read": 1, "series": mine}, {"series": "../../records-1", "n": 1}, {"series": mine, "n": -1}, []):
        answers = client(host, address, "other", greeting(mine), [json.dumps(words) + "\n"], 1)
        assert answers[0] == '{"have": 3}' and "have" not in "".join(answers[1:]) and "before" not in "".join(answers), answers
    deep = client(host, address, "other", greeting(mine), ["PADDING".join("[\n"), "PADDING"], 1, 300000)
    assert deep[0] == '{"have": 3}' and "before" not in "".join(deep)
    assert watch.check_output(f"cat {RECEIVED}/other-1/*.jsonl") == before
    assert watch.service("civitas-logs-receive").is_running


def test_lines_that_were_removed_before_they_were_sent_are_missed(host, watch, address):
    mine = a_series("a")
    assert client(host, address, "other", greeting(mine), [line(mine, 1) + line(mine, 5)], 1)[1] == '{"have": 5}'
    assert "other-1 has skipped the lines 2 to 4" in watch.check_output("journalctl -u civitas-logs-receive -o cat")


def test_a_sender_cannot_fill_the_disk_and_hinders_no_other(host, watch, address):
    mine = a_series("9")
    lines = [line(mine, n, said={"message": "PADDING"}) for n in range(1, 181)]
    answers = client(host, address, "other", greeting(mine), lines, 400, 60000)
    assert any("as much as it may in a day" in answer for answer in answers), answers[-3:]
    assert int(watch.check_output(f"du -sm {RECEIVED}/other-1").split()[0]) <= 9
    host.check_output(f"logger -p authpriv.info still-here-{RUN}")
    assert arrived(watch, f"still-here-{RUN}")


# --- for how long


def test_days_are_put_away_and_old_ones_removed_not_before_their_time(host, watch):
    today = datetime.datetime.now(datetime.UTC).date()
    days = [str(today - datetime.timedelta(days=age)) for age in range(1, 121)]
    for one, path, owner, unit in (
        (host, EVIDENCE, "root", "civitas-logs"), (watch, f"{RECEIVED}/records-1", "civitas-logs", "civitas-logs-receive"),
    ):  # fmt: skip
        last = one.check_output(f"tail -n 1 {path}/{today}.jsonl")
        program = f"for day in {' '.join(days)}; do echo old-line-of-$day > {path}/$day.jsonl; chown {owner} {path}/$day.jsonl; done"
        one.check_output(program)
        one.check_output(f"systemctl restart {unit}")
        # The last is the first that is removed after all were compressed.
        assert soon(lambda one=one, path=path: one.run(f"ls {path}/{days[90]}.jsonl*").rc != 0), "what is old stays"
        there = one.check_output(f"ls {path}").split()
        assert there == sorted([f"{day}.jsonl.gz" for day in days[1:90]] + [f"{days[0]}.jsonl", f"{today}.jsonl"])
        assert one.check_output(f"zcat {path}/{days[89]}.jsonl.gz") == f"old-line-of-{days[89]}"
        assert last in one.check_output(f"cat {path}/{today}.jsonl"), "what is of today is as it was"
    assert f"old-line-of-{days[89]}" in host.check_output(f"civitas-logs show --since {days[89]}")
    host.check_output(f"logger -p authpriv.info after-that-{RUN}")
    assert arrived(watch, f"after-that-{RUN}")
    host.check_output(f"rm {EVIDENCE}/*.gz {EVIDENCE}/{days[0]}.jsonl")
    watch.check_output(f"rm {RECEIVED}/records-1/*.gz {RECEIVED}/records-1/{days[0]}.jsonl")


# --- what people and monitoring see


def measured(host):
    lines_ = host.file("/var/lib/civitas/metrics/logs.prom").content_string.splitlines()
    return {name: float(value) for name, _space, value in (one.rpartition(" ") for one in lines_ if not one.startswith("#"))}


def test_what_is_measured(host, watch):
    host.check_output(f"logger -p authpriv.info measured-now-{RUN}")
    arrived(watch, f"measured-now-{RUN}")
    for one in (host, watch):
        one.check_output("systemctl restart civitas-logs")
    now = float(host.check_output("date +%s"))
    assert soon(lambda: measured(host).get("civitas_logs_measured_time_seconds", 0) >= now - 1)
    assert now - measured(host)["civitas_logs_kept_time_seconds"] < 60
    assert measured(host)["civitas_logs_acknowledged_time_seconds"] <= now + 60
    assert soon(lambda: measured(watch).get("civitas_logs_measured_time_seconds", 0) >= now - 1)
    assert now - measured(watch)['civitas_logs_received_time_seconds{sender="records-1"}'] < 60
    assert measured(watch)['civitas_logs_received_ratio{sender="other-1"}'] > 0.5


def test_who_has_gone_silent_is_named(host, watch):
    assert watch.run("civitas-logs status").rc == 0
    watch.check_output(f"touch -d '4 hours ago' {RECEIVED}/other-1/*")
    done = watch.run("civitas-logs status")
    assert done.rc == 1 and "other-1 was heard of 240 minutes ago" in done.stderr and "records-1" in done.stdout, done
    watch.check_output("systemctl restart civitas-logs")
    series = 'civitas_logs_received_time_seconds{sender="other-1"}'
    assert soon(lambda: time.time() - measured(watch)[series] > 14000)
    watch.check_output(f"touch {RECEIVED}/other-1/*")


def test_it_costs_little(host, watch):
    for one, unit in ((host, "civitas-logs"), (watch, "civitas-logs"), (watch, "civitas-logs-receive")):
        main = one.check_output(f"systemctl show -P MainPID {unit}")
        processes = one.check_output(f"ps -o pid= --pid {main} --ppid {main}").split()
        files = " ".join(f"/proc/{process}/status" for process in processes)
        used = sum(int(text.split()[1]) for text in one.check_output(f"grep -h RssAnon {files}").splitlines())
        assert 1000 < used <= 15 * 1024, f"{unit}: {used} KiB"
