# SPDX-License-Identifier: GPL-3.0-or-later
"""What people get from a bastion, asked from outside with a real client; and what is written down about it."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest
import testinfra
from ansible_collections.civitas.hosting.plugins.module_utils._login_probe import totp

testinfra_hosts = ["ansible://bastions"]

OPTIONS = "-F none -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile=/root/known_hosts -o ConnectTimeout=5"


@pytest.fixture(scope="module")
def names(host):
    groups = host.ansible.get_variables()["groups"]
    return {"outside": groups["outside"][0], "inner": groups["inner"][0], "bastion": host.backend.host}


@pytest.fixture(scope="module")
def outside(names):
    return testinfra.get_host(f"docker://{names['outside']}")


def ssh(outside, user, *words, program="ssh", key=None):
    """Run a client outside, as root there, with a person's key."""
    return outside.run(f"timeout 20 {program} {OPTIONS} -i /root/{key or user} -o User={user} {shlex.join(words)}")


def jump(names, user="anna", port=22):
    proxy = f"ssh {OPTIONS} -i /root/{user} -l {user} -W %h:%p {names['bastion']}"
    return ("-o", f"ProxyCommand={proxy}", "-p", str(port), names["inner"])


def records(host, since=0):
    text = host.check_output("cat /var/log/civitas/bastion.jsonl")
    return [json.loads(line) for line in text.splitlines()][since:]


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
    return found


def settled(host):
    """Whether everything that sshd has said is read, and nobody is logged in."""
    state = json.loads(host.check_output("cat /var/lib/civitas/bastion/state.json"))
    last = host.check_output("journalctl -t sshd -t sshd-session -n 1 -o cat --show-cursor --quiet").splitlines()[-1]
    return last.endswith(state["cursor"]) and not [item for item in state["recorder"]["sessions"].values() if "since" in item]


@pytest.fixture(autouse=True)
def before(host):
    """How many records there are before a test."""
    # Ansible keeps a connection open for a minute after its last task.
    wait_for(lambda: settled(host), 90)
    return len(records(host))


# --- the way through


def test_the_server_answers_nobody_directly(outside, names):
    direct = ssh(outside, "anna", names["inner"], "id")
    assert direct.rc == 255
    assert re.search(r"refused|reset|timed out", direct.stderr), direct.stderr


@pytest.mark.parametrize("user", ["anna", "deploy"])
def test_people_and_automation_get_through(host, outside, names, user, before):
    done = ssh(outside, user, *jump(names, user), "hostname; echo $SSH_CONNECTION")
    assert done.rc == 0, done.stderr
    hostname, connection = done.stdout.splitlines()
    assert hostname == names["inner"]
    assert connection.split()[0] == host.ansible("ansible.builtin.setup")["ansible_facts"]["ansible_default_ipv4"]["address"]
    new = wait_for(lambda: [item for item in records(host, before) if item["event"] == "logout"] and records(host, before))
    assert [item["event"] for item in new] == ["login", "open", "close", "logout"]
    key = outside.check_output("ssh-keygen -lf /root/%s", user).split()[1]
    address = outside.check_output("hostname -i").split()[0]
    for item in new:
        assert (item["user"], item["from"], item["key"]) == (user, address, key)
        assert item["session"] == new[0]["session"]
    assert {item["to"] for item in new if "to" in item} == {f"{names['inner']}:22"}


def test_proxy_jump_as_people_write_it(outside, names):
    config = "Host *\n  UserKnownHostsFile /root/known_hosts\n  IdentityFile /root/anna\n  User anna\n"
    config += f"Host {names['inner']}\n  ProxyJump {names['bastion']}\n"
    outside.check_output("printf %s > /root/config", config)
    assert outside.check_output("ssh -F /root/config -o BatchMode=yes %s hostname", names["inner"]) == names["inner"]


def test_how_long_is_written_down(host, outside, names, before):
    assert ssh(outside, "anna", *jump(names), "sleep 2").rc == 0
    (closed,) = wait_for(lambda: [item for item in records(host, before) if item["event"] == "close"])
    assert 1.8 < closed["seconds"] < 10


def test_records_are_in_the_journal_as_well(host, outside, names, before):
    assert ssh(outside, "anna", *jump(names), "true").rc == 0
    (opened,) = wait_for(lambda: [item for item in records(host, before) if item["event"] == "open"])
    told = wait_for(
        lambda: [line for line in host.check_output("journalctl -t civitas-bastion -o cat").splitlines() if opened["session"] in line]
    )
    assert opened in [json.loads(line) for line in told]


# --- nothing else


@pytest.mark.parametrize("port", [80, 5432])
def test_another_port_of_a_declared_host_is_refused(host, outside, names, port, before):
    done = ssh(outside, "anna", *jump(names, port=port), "true")
    assert done.rc == 255
    assert "administratively prohibited" in done.stderr
    (refused,) = wait_for(lambda: [item for item in records(host, before) if item["event"] == "refused"])
    assert (refused["user"], refused["to"]) == ("anna", f"{names['inner']}:{port}")


@pytest.mark.parametrize("target", ["localhost:22", "127.0.0.1:22", "{outside}:22", "[::1]:22"])
def test_another_host_is_refused(outside, names, target):
    done = ssh(outside, "anna", "-W", target.format(**names), names["bastion"])
    assert done.rc == 255
    assert "administratively prohibited" in done.stderr


def test_a_declared_port_that_nobody_answers_is_a_failure_and_no_refusal(host, outside, names, before):
    done = ssh(outside, "anna", "-W", f"{names['inner']}:2222", names["bastion"])
    assert "Connection refused" in done.stderr
    (failed,) = wait_for(lambda: [item for item in records(host, before) if item["event"] == "failed"])
    assert (failed["to"], failed["reason"]) == (f"{names['inner']}:2222", "Connection refused")
    ssh(outside, "anna", "-W", "nowhere.invalid:22", names["bastion"])
    # The bastion asks its name server, which may be slow to say no.
    assert wait_for(lambda: [item for item in records(host, before) if item.get("to") == "nowhere.invalid:22"], 90)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["{bastion}", "touch /tmp/was-here"], id="exec"),
        pytest.param(["-tt", "{bastion}"], id="shell"),
        pytest.param(["-T", "{bastion}"], id="shell-without-terminal"),
        pytest.param(["-s", "{bastion}", "sftp"], id="sftp"),
        pytest.param(["-A", "{bastion}", "touch /tmp/was-here"], id="agent"),
        pytest.param(["-X", "{bastion}", "touch /tmp/was-here"], id="x11"),
    ],
)
def test_no_session_is_opened(host, outside, names, words):
    done = ssh(outside, "anna", *(word.format(**names) for word in words))
    assert done.rc == 255, (done.rc, done.stdout, done.stderr)
    assert "open failed" in done.stderr
    assert done.stdout == ""
    assert not host.file("/tmp/was-here").exists


def test_no_file_is_copied(host, outside, names):
    done = ssh(outside, "anna", "/etc/hostname", f"{names['bastion']}:/tmp/was-here", program="scp")
    assert done.rc != 0
    assert not host.file("/tmp/was-here").exists


@pytest.mark.parametrize("user", ["anna", "deploy"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["-R", "9999:127.0.0.1:22"], "remote port forwarding failed", id="remote"),
        pytest.param(["-R", "/tmp/was-here:127.0.0.1:22"], "remote port forwarding failed", id="remote-socket"),
        pytest.param(["-w", "any"], "Tunnel|tun", id="tunnel"),
    ],
)
def test_nothing_is_opened_on_the_bastion(host, outside, names, user, words, said):
    done = ssh(outside, user, "-N", "-o", "ExitOnForwardFailure=yes", *words, names["bastion"])
    assert done.rc == 255, (done.rc, done.stderr)
    assert re.search(said, done.stderr), done.stderr
    assert not host.file("/tmp/was-here").exists


@pytest.mark.parametrize("user", ["anna", "deploy"])
def test_sockets_of_the_bastion_are_out_of_reach(outside, names, user):
    options = f"{OPTIONS} -i /root/{user} -l {user}"
    script = f"""
        rm -f /tmp/here
        ssh {options} -N -o ExitOnForwardFailure=yes -L /tmp/here:/run/systemd/journal/stdout {names["bastion"]} 2>/tmp/said &
        for i in $(seq 50); do [ -S /tmp/here ] && break; sleep 0.1; done
        [ -S /tmp/here ] || exit 3
        echo hello | socat -t 3 STDIO UNIX-CONNECT:/tmp/here; sleep 0.5; kill $!; cat /tmp/said
    """
    done = outside.run("bash -c %s", script)
    assert "open failed" in done.stdout, (done.rc, done.stdout, done.stderr)


def test_automation_looks_after_the_bastion_itself(outside, names):
    done = ssh(outside, "deploy", names["bastion"], "sudo -n id -u")
    assert (done.rc, done.stdout.strip()) == (0, "0"), done.stderr


def test_automation_goes_no_further_than_people(outside, names):
    done = ssh(outside, "deploy", "-W", f"{names['inner']}:80", names["bastion"])
    assert "administratively prohibited" in done.stderr


def test_a_stranger_gets_nothing(outside, names):
    done = ssh(outside, "anna", "-W", f"{names['inner']}:22", names["bastion"], key="stranger")
    assert done.rc == 255
    assert "Permission denied" in done.stderr


def test_a_person_needs_the_code_for_going_through(host, outside, names, before):
    place = f"{names['inner']}:22"
    alone = ssh(outside, "carl", "-W", place, names["bastion"])
    assert (alone.rc, alone.stdout) == (255, "")
    assert "Permission denied (keyboard-interactive)" in alone.stderr
    code = totp(host.check_output("head -n 1 /etc/civitas/second-factor/carl"), time.time())
    outside.check_output("printf '#!/bin/sh\\necho %s\\n' > /root/askpass; chmod 0700 /root/askpass", code)
    options = OPTIONS.replace("BatchMode=yes", "NumberOfPasswordPrompts=1")
    command = f"ssh {options} -i /root/carl -l carl -W {place} {names['bastion']} < /dev/null"
    with_code = outside.run(f"SSH_ASKPASS=/root/askpass SSH_ASKPASS_REQUIRE=force timeout 20 {command}")
    assert with_code.stdout.startswith("SSH-2.0-"), with_code.stderr
    (login,) = wait_for(lambda: [item for item in records(host, before) if item["event"] == "login"])
    assert (login["user"], login["method"]) == ("carl", "publickey+keyboard-interactive/pam")


def test_an_administrator_has_no_shell_here_either(host):
    shown = host.check_output("sshd -T -C user=carl,host=x,addr=192.0.2.1")
    assert "\nmaxsessions 0\n" in shown


def test_the_emergency_was_exercised(host):
    assert json.loads(host.check_output("cat /var/lib/civitas/break-glass.json"))["last"] > "2026"


# --- records survive


def test_what_happened_while_the_service_was_down_is_made_up_for(host, outside, names, before):
    host.check_output("systemctl stop civitas-bastion")
    try:
        assert ssh(outside, "anna", *jump(names), "true").rc == 0
        assert records(host, before) == []
    finally:
        host.check_output("systemctl start civitas-bastion")
    wait_for(lambda: [item for item in records(host, before) if item["event"] == "logout"])
    assert [item["event"] for item in records(host, before)] == ["login", "open", "close", "logout"]


def test_a_killed_service_comes_back_and_writes_nothing_twice(host, outside, names, before):
    assert ssh(outside, "anna", *jump(names), "true").rc == 0
    wait_for(lambda: [item for item in records(host, before) if item["event"] == "logout"])
    # As if the power had failed between the records and the note of what was read.
    host.check_output("systemctl kill --signal=KILL --kill-whom=all civitas-bastion || systemctl kill --signal=KILL civitas-bastion")
    wait_for(lambda: host.service("civitas-bastion").is_running, 20)
    assert ssh(outside, "anna", *jump(names), "true").rc == 0
    wait_for(lambda: len([item for item in records(host, before) if item["event"] == "logout"]) == 2)
    assert [item["event"] for item in records(host, before)] == ["login", "open", "close", "logout"] * 2


def test_rotation_keeps_the_records(host, outside, names):
    before = len(records(host))
    host.check_output("logrotate --force /etc/logrotate.d/civitas-bastion")
    assert records(host) == []
    assert ssh(outside, "anna", *jump(names), "true").rc == 0
    wait_for(lambda: [item for item in records(host) if item["event"] == "logout"])
    kept = host.check_output("ls /var/log/civitas/bastion.jsonl-*").split()
    assert sum(len(host.check_output("cat %s", name).splitlines()) for name in kept[-1:]) == before
    for name in kept:
        host.check_output("rm %s", name)


def test_only_root_and_adm_read_the_records(host):
    file = host.file("/var/log/civitas/bastion.jsonl")
    assert (file.user, file.mode & 0o007) == ("root", 0)


# --- everybody behind one address


def bad_logins(client, names, count=20):
    client.check_output("rm -f /root/nobody-key; ssh-keygen -q -t ed25519 -N '' -f /root/nobody-key")
    command = f"ssh {OPTIONS} -i /root/nobody-key -l anna -W localhost:22 {names['bastion']} </dev/null"
    return [client.run(command).stderr for _attempt in range(count)]


def test_mistakes_of_one_shut_out_nobody_behind_the_same_address(outside, names):
    assert all("Permission denied" in text for text in bad_logins(outside, names))
    assert ssh(outside, "anna", *jump(names), "true").rc == 0


def test_mistakes_from_elsewhere_are_still_punished(host, names):
    if host.run("sshd -T | grep -q '^persourcepenalties'").rc != 0:
        pytest.skip("this release of OpenSSH knows no penalties")
    inner = testinfra.get_host(f"docker://{names['inner']}")
    keys = {name: host.file(f"/etc/ssh/ssh_host_{name}_key.pub").content_string.split()[:2] for name in ("ed25519",)}
    inner.check_output("echo %s > /root/known_hosts", f"{names['bastion']} {' '.join(keys['ed25519'])}")
    told = bad_logins(inner, names)
    assert "Permission denied" in told[0]
    assert not any("Permission denied" in text for text in told[-5:]), told[-1]


# --- what the role says of itself


def test_the_check_agrees(host):
    assert host.run("civitas-bastion check").rc == 0


def test_the_check_sees_what_another_file_allows(host):
    text = "Match Group civitas-people\\n AllowTcpForwarding yes\\n PermitTTY yes\\nMatch all\\n"
    host.check_output(f"printf '{text}' > /etc/ssh/sshd_config.d/10-bed.conf")
    try:
        done = host.run("civitas-bastion check")
    finally:
        host.check_output("rm /etc/ssh/sshd_config.d/10-bed.conf")
    assert done.rc == 1
    assert "allowtcpforwarding is 'yes'" in done.stderr
    assert "permittty is 'yes'" in done.stderr


def test_no_change_waits_for_confirmation(host):
    assert "armed" not in host.run("systemctl list-timers --no-legend 'civitas-revert*'").stdout
