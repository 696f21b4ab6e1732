# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of operators, and what sudo itself makes of the rules."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._people_changes import sudoers_text
from ansible_collections.civitas.hosting.plugins.module_utils._people_commands import command_problem, sudoers_command
from hypothesis import given, settings
from hypothesis import strategies as st

GOOD = [
    "/usr/bin/id",
    "/usr/bin/journalctl --no-pager --since today",
    "/usr/bin/systemctl restart nginx.service",
    "/usr/bin/systemctl --no-pager status nginx.service postgresql@15-main.service",
    "/usr/bin/systemctl --no-pager list-timers",
    "/usr/sbin/reboot",
    "/usr/local/sbin/civitas-certificates status",
    "/usr/bin/lsblk --output=NAME,SIZE",
    "/usr/bin/test a=b:c",
    "/usr/sbin/nginx -t",
    "/usr/sbin/nginx -s reload",
    "/usr/bin/systemctl restart civitas-logins.service",
    "/usr/bin/systemctl restart auditd.service",
    "/usr/bin/ls /srv/home/tmp",
    "/usr/bin/ls /var/lib/civitas-exports",
    "/usr/bin/id a..b",
]


@pytest.mark.parametrize("command", GOOD)
def test_commands_that_do_one_thing(command):
    assert command_problem(command) is None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (None, "is no command"),
        (["/usr/bin/id"], "is no command"),
        ("", "blank too many"),
        ("ALL", "path of a program"),
        ("id", "path of a program"),
        ("./id", "path of a program"),
        ("/home/ben/id", "path of a program"),
        ("/tmp/id", "path of a program"),
        ("/usr/bin/../../home/ben/id", "path of a program"),
        ("/usr/bin/", "path of a program"),
        ("/usr/bin/id ../x", "'..'"),
        ("/usr/bin/ls  /root", "blank too many"),
        ("/usr/bin/id\n%civitas-operators ALL=(ALL) ALL", "is no command"),
        ("/usr/bin/id\u2028", "is no command"),
        ("/usr/bin/" + "a" * 1000, "is no command"),
        ("/usr/bin/ls *", "wildcard"),
        ("/usr/bin/ls /srv/?", "wildcard"),
        ("/usr/bin/ls [a-z]", "wildcard"),
        ("/usr/bin/ls ^.*$", "wildcard"),
        ("/usr/bin/ls $HOME", "holds"),
        ("/usr/bin/ls #1000", "holds"),
        ('/usr/bin/ls ""', "holds"),
        ("/usr/bin/ls !x", "holds"),
        ("/usr/bin/ls \\,", "holds"),
        ("/bin/bash", "gives a shell"),
        ("/usr/bin/dash -c id", "gives a shell"),
        ("/usr/bin/su", "gives a shell"),
        ("/usr/bin/sudo id", "gives a shell"),
        ("/usr/bin/systemd-run id", "gives a shell"),
        ("/usr/sbin/chroot /srv", "gives a shell"),
        ("/usr/bin/python3.13 /srv/x.py", "runs whatever"),
        ("/usr/bin/perl x", "runs whatever"),
        ("/usr/bin/awk x", "runs whatever"),
        ("/usr/bin/find /srv -delete", "runs whatever"),
        ("/usr/bin/env id", "runs whatever"),
        ("/usr/bin/git pull", "runs whatever"),
        ("/usr/bin/psql", "runs whatever"),
        ("/usr/bin/vim /etc/hosts", "is an editor"),
        ("/usr/bin/nano /etc/hosts", "is an editor"),
        ("/usr/sbin/visudo", "is an editor"),
        ("/usr/bin/less /var/log/syslog", "is a pager"),
        ("/usr/bin/man ls", "is a pager"),
        ("/usr/bin/docker ps", "as it starts containers"),
        ("/usr/local/bin/kubectl get pods", "as it starts containers"),
        ("/usr/bin/tee /etc/passwd", "writes files"),
        ("/usr/bin/cp /srv/a /etc/passwd", "writes files"),
        ("/usr/bin/chmod 4755 /srv/x", "writes files"),
        ("/usr/bin/mount /srv/x", "writes files"),
        ("/usr/sbin/usermod -aG sudo ben", "writes files"),
        ("/usr/bin/passwd root", "writes files"),
        ("/usr/bin/tar xf /srv/x.tar", "writes files"),
        ("/usr/sbin/tcpdump -i any", "writes files"),
        ("/usr/bin/apt-get upgrade", "asks questions"),
        ("/usr/bin/dpkg -i /srv/x.deb", "asks questions"),
        ("/usr/bin/cat /etc/shadow", "names a secret"),
        ("/usr/bin/head /etc/gshadow-", "names a secret"),
        ("/usr/bin/cat /root/.bash_history", "names a secret"),
        ("/usr/bin/cat /home/ben/.ssh/id_ed25519", "names a secret"),
        ("/usr/bin/cat /etc/civitas/second-factor/amina", "names a secret"),
        ("/usr/bin/cat /etc/ssh/ssh_host_ed25519_key", "names a secret"),
        ("/usr/bin/cat /srv/tls/www.key", "names a secret"),
        ("/usr/bin/cat /proc/1/environ", "names a secret"),
        ("/usr/bin/systemctl edit nginx.service", "the verb 'edit'"),
        ("/usr/bin/systemctl link /srv/x.service", "the verb 'link'"),
        ("/usr/bin/systemctl set-environment A=b", "the verb 'set-environment'"),
        ("/usr/bin/systemctl enable x.service", "the verb 'enable'"),
        ("/usr/bin/systemctl", "the verb ''"),
        ("/usr/bin/systemctl --root=/srv restart x.service", "options that can do more"),
        ("/usr/bin/systemctl -H host restart x.service", "the verb 'host'"),
        ("/usr/bin/systemctl restart", "names no unit"),
        ("/usr/bin/systemctl restart nginx", "units with their type"),
        ("/usr/bin/systemctl restart /srv/x.service", "units with their type"),
        ("/usr/bin/systemctl status nginx.service", "opens a pager"),
        ("/usr/bin/systemctl list-units", "opens a pager"),
        ("/usr/bin/systemctl start debug-shell.service", "gives a shell"),
        ("/usr/bin/systemctl start rescue.target", "gives a shell"),
        ("/usr/bin/journalctl -f", "opens a pager"),
        ("/usr/bin/rsyslogd -f /tmp/x.conf", "not only root"),
        ("/usr/bin/cat /home", "not only root"),
        ("/usr/bin/cat /var/tmp/x", "not only root"),
        ("/usr/bin/cat --file=/tmp/x", "not only root"),
        ("/usr/bin/cat -f/tmp/x", "not only root"),
        ("/usr/bin/cat //tmp/x", "not only root"),
        ("/usr/bin/cat /./tmp/x", "not only root"),
        ("/usr/bin/cat /dev/sda", "not only root"),
        ("/usr/bin/cat /run/user/1000/x", "not only root"),
        ("/usr/bin/cat /var/run/user/1000/x", "not only root"),
        ("/usr/bin/cat --file=../x", "'..'"),
        ("/usr/bin/cat /etc//shadow", "names a secret"),
        ("/usr/bin/cat /etc/civitas", "names a secret"),
        ("/usr/bin/cat /etc/civitas/logins.json", "names a secret"),
        ("/usr/bin/cat /var/lib/civitas/revert/last.json", "names a secret"),
        ("/usr/bin/busctl call org.freedesktop.systemd1 /x y", "runs whatever"),
        ("/usr/bin/dbus-send --system /x", "runs whatever"),
        ("/usr/bin/systemd-tmpfiles --create /srv/x.conf", "writes files"),
        ("/usr/bin/gpg --output /srv/x", "writes files"),
        ("/usr/bin/gpg2 --output /srv/x", "writes files"),
        ("/usr/sbin/nginx -c /srv/x.conf", "another configuration"),
        ("/usr/sbin/nginx -c/srv/x.conf", "another configuration"),
        ("/usr/sbin/nginx -tc /srv/x.conf", "another configuration"),
        ("/usr/sbin/nginx -p /srv", "another configuration"),
        ("/usr/sbin/nginx -g user=root", "another configuration"),
        ("/usr/bin/systemctl stop auditd.service", "watches"),
        ("/usr/bin/systemctl stop nginx.service civitas-firewall.service", "watches"),
        ("/usr/bin/systemctl stop civitas-logins.timer", "watches"),
        ("/usr/bin/systemctl disable auditd.service", "the verb 'disable'"),
        ("/usr/bin/systemctl mask civitas-firewall.service", "the verb 'mask'"),
    ],
)
def test_commands_that_are_as_good_as_root(command, words):
    assert words in (command_problem(command) or "")


def test_a_command_without_arguments_has_none():
    assert sudoers_command("/usr/bin/id") == '/usr/bin/id ""'
    assert sudoers_command("/usr/bin/id -u a,b=c:d") == r"/usr/bin/id -u a\,b\=c\:d"


def visudo(text: str, tmp_path) -> None:
    program = shutil.which("visudo", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("visudo is not on this machine")
    file = tmp_path / "rules"
    file.write_text(text)
    done = subprocess.run([program, "--check", "--strict", "--file", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sudo_reads_the_rules(tmp_path):
    visudo(sudoers_text(GOOD), tmp_path)
    visudo(sudoers_text([]), tmp_path)
    assert "civitas-operators" not in sudoers_text([])


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=40).map(lambda text: "/usr/bin/id " + text) | st.text(max_size=60))
def test_no_text_becomes_more_than_one_rule(command):
    if command_problem(command) is not None:
        return
    rule = sudoers_command(command)
    # Nothing that sudoers reads as more than itself: no separator, comment, negation, tag, wildcard or line end without its backslash.
    assert rule.replace(r"\,", "").replace(r"\:", "").replace(r"\=", "").replace(' ""', "").isprintable()
    for letter in ",:=!#*?[]\n\"'":
        assert letter not in rule.replace("\\" + letter, "").replace(' ""', "")
