# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in with what: every outcome by a real login from the controller.

Nobody's secret is used by two tests, as a code works once and three logins in half a minute are the limit.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import re
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from audit import objections
from door import MADE, Door, code, hostname, opened, quiet_moment, wrong

SECRETS = "/etc/civitas/second-factor"
CHECK = "/usr/local/sbin/civitas-access"
PEOPLE = ["ann", "bob", "carl", "dora", "emil", "fred", "gina", "hugo", "ines", "jens"]


@pytest.fixture(name="address")
def _address(host):
    return next(address for address in host.interface("eth0").addresses if "." in address)


@pytest.fixture(name="door")
def _door(address):
    return Door(address)


@functools.cache
def enrolment_of(host, name):
    return opened(host, name)


def secret(host, name):
    """What the person's authenticator would hold: the secret of the link in the enrolment that the person opened."""
    text = base64.b64decode(enrolment_of(host, name)[f"{name}/enrolment.txt"]).decode()
    link = re.search(r"^link: +(\S+)$", text, re.MULTILINE).group(1)
    assert unquote(urlsplit(link).path) == f"/civitas:{name}@{hostname(host)}"
    return parse_qs(urlsplit(link).query)["secret"][0]


def emergency_codes(host, name):
    """Those that the person was sent and that still work."""
    text = base64.b64decode(enrolment_of(host, name)[f"{name}/enrolment.txt"]).decode()
    sent = re.findall(r"^    (\d{8})$", text, re.MULTILINE)
    assert len(sent) == 8
    return [each for each in sent if each in host.check_output(f"cat {SECRETS}/{name}").splitlines()]


@contextlib.contextmanager
def state(host, broken, repaired):
    """The host in another state for a while."""
    try:
        host.check_output(broken)
        yield
    finally:
        host.check_output(repaired)


def found(host, topic):
    """What the program objects to; nothing when it is content."""
    done = host.run(f"{CHECK} {topic}")
    assert done.rc == (1 if done.stderr else 0), done
    return done.stderr


# --- codes


def test_key_and_code_open_and_the_same_code_does_not_open_again(host, door):
    answer = code(secret(host, "ann"))
    assert door.login("ann", answer)
    assert not door.login("ann", answer)


def test_a_clock_that_is_off_by_half_a_minute_is_forgiven_by_more_than_a_minute_not(host, door):
    assert not door.login("carl", code(secret(host, "carl"), -75))
    # The code of the step before, and not of the one before that by the time it arrives.
    quiet_moment()
    assert door.login("carl", code(secret(host, "carl"), -30))


def test_the_right_code_is_refused_after_three_wrong_ones(host, door):
    for _attempt in range(3):
        assert not door.login("dora", wrong(secret(host, "dora")))
    assert not door.login("dora", code(secret(host, "dora")))


def rested(host, name):
    """Wait until none of the three tries within half a minute is used up, by whatever came before."""
    last = f"awk '$2 == \"RATE_LIMIT\" {{ for (i = 5; i <= NF; i++) if ($i > last) last = $i }} END {{ print last + 0 }}' {SECRETS}/{name}"
    ages = iter(lambda: host.check_output(f"expr $(date +%s) - $({last})"), None)
    while int(next(ages)) <= 30:
        time.sleep(0.5)  # between two looks at the clock


def test_an_emergency_code_opens_once(host, door):
    one, two, *_rest = emergency_codes(host, "emil")
    rested(host, "emil")
    assert door.login("emil", one)
    assert not door.login("emil", one)
    assert door.login("emil", two)


def test_an_rsa_key_gets_its_enrolment_as_well(host, door):
    assert door.login("bob", code(secret(host, "bob")))


def test_the_pictures_are_of_the_same_link(host):
    assert base64.b64decode(enrolment_of(host, "ann")["ann/enrolment.png"]).startswith(b"\x89PNG")
    assert b"<svg" in base64.b64decode(enrolment_of(host, "ann")["ann/enrolment.svg"])
    assert sorted(enrolment_of(host, "ann")) == ["ann/enrolment.png", "ann/enrolment.svg", "ann/enrolment.txt"]


def test_nobody_else_opens_an_enrolment(host):
    cipher = base64.b64encode((MADE / "enrolment" / hostname(host) / "ann.tar.age").read_bytes()).decode()
    private = base64.b64encode((MADE / "stranger").read_bytes()).decode()
    done = host.run(f"cd $(mktemp -d) && printf %s {private} | base64 -d > k && printf %s {cipher} | base64 -d > c && age -d -i k c")
    assert done.rc != 0
    assert "no identity matched" in done.stderr


# --- without a code


WAYS = {
    "a command": ["ssh", "fred@{address}", "id -un"],
    "a shell": ["ssh", "-tt", "fred@{address}"],
    "a shell without profile": ["ssh", "fred@{address}", "bash --norc"],
    "sftp": ["sftp", "-b", "/dev/null", "fred@{address}"],
    "scp": ["scp", "fred@{address}:/etc/hostname", "/dev/null"],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_key_alone_opens_no_way(door, address, way):
    program, *rest = [word.format(address=address) for word in WAYS[way]]
    done = door.run(door.command(program, "fred", "-o", "KbdInteractiveAuthentication=no", *rest))
    assert done.returncode == 255
    assert "Permission denied (keyboard-interactive)" in done.stderr
    assert done.stdout == ""


def test_the_key_alone_forwards_no_port(door):
    assert "Permission denied (keyboard-interactive)" in door.forwards("fred")


def test_with_a_code_files_are_copied_and_ports_are_not_forwarded(host, door, address, tmp_path):
    one, two, three, *_rest = emergency_codes(host, "gina")
    done = door.run(door.command("scp", "gina", f"gina@{address}:/etc/hostname", str(tmp_path / "copy")), one)
    assert (done.returncode, (tmp_path / "copy").read_text().strip()) == (0, host.check_output("hostname")), done
    done = door.run(door.command("sftp", "gina", f"gina@{address}"), two, stdin="pwd\n")
    assert "/home/gina" in done.stdout, done
    assert "SSH" not in door.forwards("gina", three)


def test_a_password_opens_nothing(host, door):
    options = ("-o", "PubkeyAuthentication=no")
    with state(host, "echo fred:a-long-password-of-fred | chpasswd", "usermod --password '!' fred"):
        assert not door.login("fred", "a-long-password-of-fred", "", *options)
        assert not door.login("fred", "a-long-password-of-fred", None, "-o", "PreferredAuthentications=publickey,password")


def test_what_people_put_into_their_homes_is_not_read(host, door):
    key = (MADE / "stranger.pub").read_text().strip()
    own = (MADE / "hugo.pub").read_text().strip()
    lines = f'{key}\\ncommand="echo from home" {own}\\n'
    make = (
        f"install -d -o hugo -m 0700 /home/hugo/.ssh && printf '{lines}' > /home/hugo/.ssh/authorized_keys && chown hugo /home/hugo/.ssh/*"
    )
    with state(host, make, "rm -r /home/hugo/.ssh"):
        one, two, *_rest = emergency_codes(host, "hugo")
        assert not door.login("hugo", one, "stranger")
        assert door.login("hugo", two)


# --- others


@pytest.mark.parametrize("name", ["deploy", "glass", "kate"])
def test_who_needs_no_code_gets_in_by_key(door, name):
    assert door.login(name)


@pytest.mark.parametrize("name", ["deploy", "glass"])
def test_their_keys_open_nothing_from_elsewhere(host, name):
    private = base64.b64encode((MADE / name).read_bytes()).decode()
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    done = host.run(
        f"k=$(mktemp) && printf %s {private} | base64 -d > $k && ssh -n -i $k {options} {name}@127.0.0.1 id; r=$?; rm -f $k; exit $r"
    )
    assert done.rc == 255
    assert "Permission denied" in done.stderr


@pytest.mark.parametrize("name", ["root", "nobody", "noone"])
def test_nobody_else_gets_in(door, name):
    assert not door.login(name, "", "stranger")


def test_who_shares_an_address_with_a_guesser_still_gets_in(door):
    # As many as a scanner makes in a minute, all from the address of this machine.
    for _attempt in range(20):
        assert not door.login("noone", "", "stranger")
    assert door.login("deploy")


# --- accounts


def test_an_account_whose_time_is_over_is_shut(host, door):
    assert not door.login("jens", code(secret(host, "jens")))


def test_a_locked_account_is_shut_also_for_codes(host, door):
    one, two, *_rest = emergency_codes(host, "ines")
    with state(host, "usermod --lock --expiredate 1 ines", "usermod --expiredate '' ines"):
        assert not door.login("ines", one)
    assert door.login("ines", two)


def test_the_age_of_a_password_that_nobody_uses_shuts_nobody_out(host, door):
    with state(host, "chage --lastday 2000-01-01 --maxdays 30 kate", "chage --lastday -1 --maxdays -1 kate"):
        assert door.login("kate")


# --- secrets


def test_people_read_no_secret_not_even_their_own(host, door):
    own = emergency_codes(host, "hugo")[-1]
    assert not door.login("hugo", own, None, run=f"cat {SECRETS}/hugo")
    assert host.run(f"runuser -u hugo -- ls {SECRETS}").rc != 0
    # The module of PAM leaves a file that even root only reads.
    assert host.check_output(f"stat -c '%a %U %G' {SECRETS} {SECRETS}/hugo") in (
        "700 root root\n400 root root",
        "700 root root\n600 root root",
    )


def test_only_ciphertext_left_the_host_and_it_is_the_owners(host):
    directory = MADE / "enrolment" / hostname(host)
    assert sorted(path.name for path in directory.iterdir()) == [f"{name}.tar.age" for name in PEOPLE]
    for path in directory.iterdir():
        assert path.read_bytes().startswith(b"age-encryption.org/v1\n")
        assert path.stat().st_mode & 0o777 == 0o600
    assert host.check_output("ls /var/lib/civitas/access/enrolment") == ""


def test_no_secret_is_in_the_journal(host):
    assert host.run(f"journalctl --quiet --grep {secret(host, 'ann')}").stdout == ""


@pytest.mark.parametrize(
    ("broken", "repaired", "topic", "words"),
    [
        (f"mv {SECRETS}/ann /root/ann", f"mv /root/ann {SECRETS}/ann", "secrets", "no secret for ann"),
        (f"mv {SECRETS} {SECRETS}.away", f"mv {SECRETS}.away {SECRETS}", "secrets", "is not there, so no code is right"),
        # A code that was used has to be written down.
        (
            f's=$(cat {SECRETS}/ann) && mount -t tmpfs -o size=8k,mode=0700 none {SECRETS} && umask 077 && echo "$s" > {SECRETS}/ann'
            f" && head -c 8192 /dev/zero > {SECRETS}/full; test -s {SECRETS}/ann",
            f"umount {SECRETS}",
            "",
            "",
        ),
        (
            "m=$(find /usr/lib -name pam_google_authenticator.so) && mv $m $m.away",
            "m=$(find /usr/lib -name pam_google_authenticator.so.away) && mv $m ${m%.away}",
            "pam",
            "pam_google_authenticator.so, which is not there",
        ),
    ],
    ids=["not enrolled", "secrets gone", "disk full", "module gone"],
)
def test_with_a_broken_second_factor_only_who_needs_none_gets_in(host, door, broken, repaired, topic, words):
    answer = code(secret(host, "ann"), 30)
    with state(host, broken, repaired):
        assert not door.login("ann", answer)
        assert door.login("glass")
        if topic:
            assert words in found(host, topic)
    if topic:
        assert found(host, topic) == ""


# --- what sshd makes of its files


DROP_INS = "/etc/ssh/sshd_config.d"
FAULTS = {
    "no PAM": ("00-aaa.conf", "UsePAM no", "usepam no"),
    "no question": ("00-aaa.conf", "KbdInteractiveAuthentication no", "sshd refuses its configuration|kbdinteractiveauthentication no"),
    "passwords before ours": ("00-aaa.conf", "PasswordAuthentication yes", "passwordauthentication yes"),
    "another port": ("50-x.conf", "Port 2222", "port 22 2222"),
    "one more host key": ("50-x.conf", "HostKey /etc/ssh/ssh_host_ecdsa_key", "hostkey .*ecdsa"),
    "a person by key alone": (
        "40-x.conf",
        "Match User ann\\nAuthenticationMethods publickey",
        "person: .*authenticationmethods publickey.*ann from",
    ),
    "a whole network": ("40-x.conf", "Match Address 10.99.0.0/16\\nAuthenticationMethods publickey", "40-x.conf, line 2: .*below a Match"),
    "a Match that leaks": ("00-aaa.conf", "Match User zz\\nPermitRootLogin yes", "00-aaa.conf, line 2: 'PermitRootLogin yes'"),
    "only some": ("50-x.conf", "AllowUsers ann", "allowusers ann"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_others_write_for_sshd_is_found(host, fault):
    name, text, words = FAULTS[fault]
    with state(host, f"printf '{text}\\n' > {DROP_INS}/{name}", f"rm {DROP_INS}/{name}"):
        assert re.search(words, found(host, "sshd"))
    assert found(host, "sshd") == ""


def test_what_the_provider_wrote_has_no_effect(host):
    assert host.file(f"{DROP_INS}/50-cloud-init.conf").content_string == "PasswordAuthentication yes\n"
    for line in ("passwordauthentication no", "usedns no", "loglevel VERBOSE", "maxstartups 100:30:300"):
        assert line in host.check_output("sshd -T").splitlines()


def test_a_first_line_that_says_nullok_is_found(host):
    with state(
        host, "cp -a /etc/pam.d/sshd /root/sshd.pam && sed -i 's/noskewadj/nullok/' /etc/pam.d/sshd", "mv /root/sshd.pam /etc/pam.d/sshd"
    ):
        assert "nullok" in found(host, "pam")
    with state(
        host,
        "cp -a /etc/pam.d/sshd /root/sshd.pam && sed -i '1i @include common-auth' /etc/pam.d/sshd",
        "mv /root/sshd.pam /etc/pam.d/sshd",
    ):
        assert "@include common-auth" in found(host, "pam")


def test_a_secret_that_others_can_read_is_found(host):
    with state(host, f"chmod 0644 {SECRETS}/ann", f"chmod 0600 {SECRETS}/ann"):
        assert f"{SECRETS}/ann" in found(host, "secrets")


def test_a_short_host_key_is_found(host):
    key = "/etc/ssh/ssh_host_rsa_key"
    broken = f"mkdir /root/keys && mv {key} {key}.pub /root/keys && ssh-keygen -q -t rsa -b 2048 -N '' -f {key}"
    with state(host, broken, "mv /root/keys/* /etc/ssh && rmdir /root/keys"):
        assert "has 2048 bits" in found(host, "sshd")


# --- independent judge


def test_ssh_audit_has_nothing_to_say_of_the_strict_profile(host, address):
    # The default one was judged while it was in force (side_effect.yml).
    assert not re.search(r"(?m)^kexalgorithms .*\bcurve25519-sha256", host.check_output("sshd -T"))
    assert objections(address, "strict") == []


def test_no_probe_stays(host):
    assert host.run("id civitas-probe").rc != 0
    assert host.run("ls /etc/ssh/civitas/keys/civitas-probe").rc != 0
