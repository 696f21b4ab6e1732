# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which commands operators may run as root. Runs on the controller and on hosts.

Private to the collection: no promise of stability.

Arguments are part of a command, so what is left to judge is what a fixed command line lets its user do: type into it, be asked by it, or
put a file where it reads. Programs that are made for that are refused. The list cannot be complete, and says so where it is documented.
"""

from __future__ import annotations

import re
import typing as t

# Where only root and packages write.
_DIRECTORIES = ("/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
# Neither white space, quotes, wildcards nor anything else that sudoers reads as more than itself, once , : = and \ are escaped.
_WORD = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")

_REASONS: t.Tuple[t.Tuple[str, str], ...] = (
    (
        "gives a shell",
        r"(ba|da|z|k|mk|c|tc|fi|a|r|rba)?sh|busybox|su|sudo|sudoedit|doas|pkexec|runuser|setpriv|login|newgrp|sg|machinectl|systemd-run"
        r"|screen|tmux|script|expect|ssh|sftp|ftp|telnet|gdb|strace|ltrace|nsenter|unshare|chroot|capsh|start-stop-daemon|openvt|agetty",
    ),
    (
        "runs whatever it is given",
        r"python[0-9.]*|pypy[0-9.]*|perl[0-9.]*|ruby[0-9.]*|node|nodejs|lua[0-9.]*|php[0-9.]*|tclsh|wish|[mgn]?awk|mawk|env|xargs|find"
        r"|nice|ionice|nohup|timeout|time|watch|setsid|stdbuf|flock|parallel|make|git|ansible[a-z-]*|at|batch|crontab|run-parts|faketime"
        r"|eatmydata|logrotate|busctl|dbus-send|gdbus|psql|mysql|sqlite3|mongo|mongosh|redis-cli|socat|nc|ncat|netcat",
    ),
    (
        "is an editor",
        r"vi|vim|vim\.[a-z]+|vimdiff|view|rvim|nvim|nano|rnano|ed|red|ex|emacs|joe|mcedit|mc|pico|micro|editor|sensible-editor"
        r"|visudo|vipw|vigr",
    ),
    ("is a pager, which gives a shell", r"less|more|most|pg|pager|man|info|bat|batcat|lesspipe|zless|zmore"),
    (
        "is as good as root, as it starts containers",
        r"docker|docker-compose|dockerd|containerd|ctr|nerdctl|podman|buildah|runc|crun|crictl|kubectl|k3s|helm|lxc|lxd|incus|virsh|systemd-nspawn",
    ),
    (
        "writes files or gives rights",
        r"cp|mv|ln|rm|dd|tee|install|chmod|chown|chgrp|chattr|setfacl|setcap|rsync|scp|tar|cpio|unzip|7z|patch|sed|truncate|touch|mount|umount"
        r"|losetup|debugfs|mkfs[.a-z0-9]*|systemd-tmpfiles|systemd-sysusers|gpg[a-z0-9-]*|passwd|chpasswd"
        r"|chage|chsh|chfn|usermod|useradd|adduser|deluser|userdel|groupadd|groupmod|gpasswd"
        r"|addgroup|insmod|modprobe|rmmod|sysctl|update-alternatives|wget|curl|iptables[a-z0-9-]*|ip6tables[a-z0-9-]*|nft|ip|tcpdump|ldconfig",
    ),
    (
        "can run scripts of packages and asks questions",
        r"apt|apt-get|aptitude|dpkg|dpkg-reconfigure|snap|pip[0-9.]*|npm|gem|debconf[a-z-]*",
    ),
)
_FORBIDDEN = tuple((reason, re.compile(pattern)) for reason, pattern in _REASONS)
# What these print is a secret, whatever prints it.
_SECRETS = re.compile(
    r"/etc/(g?shadow-?|sudoers(\.d)?|ssl/private|civitas|ssh/ssh_host_[a-z0-9]+_key)(/|$)|/var/lib/civitas(/|$)"
    r"|/root(/|$)|\.key$|/\.ssh(/|$)|/proc/"
)
# Where operators can put another file in the place of the one that was meant, and devices. A path may follow an option's letter or its =.
_OTHERS = re.compile(r"(^|[=:,@+%]|^-[A-Za-z0-9]+)/(home|tmp|var/tmp|dev|(var/)?run/user)(/|$)")
_LISTS = ("list-units", "list-timers")
_SYSTEMCTL = ("start", "stop", "restart", "reload", "status", "show", "is-active", "is-enabled", "is-failed", *_LISTS)
_OPTIONS = ("--no-pager", "--quiet", "--failed", "--all", "--no-legend", "--full")
_UNIT = re.compile(r"[A-Za-z0-9@_.:-]+\.(service|socket|timer|target|path)")
# Units whose only purpose is a shell on the console.
_SHELLS = re.compile(r"(rescue|emergency|debug-shell|sulogin|.*getty.*)\..*")
# Units that record what operators do, or guard the host.
_WATCHERS = re.compile(r"(auditd|audit-rules|systemd-journald.*|civitas-.*)\..*")
_NGINX = ("-t", "-T", "-q", "-v", "-V", "-s", "reload", "reopen", "quit", "stop")


def command_problem(text: t.Any) -> t.Optional[str]:
    """What is wrong with a command of O(access_operator_commands), and what to write; V(None) when it is accepted."""
    if not isinstance(text, str) or not text.isprintable() or len(text) > 500:
        return "is no command; write a text such as /usr/bin/systemctl restart nginx.service"
    words = text.split(" ")
    for word in words:
        if not word:
            return "has a blank too many; write the words with one blank between them"
        if not _WORD.fullmatch(word):
            return (
                f"holds {word[:60]!r}; words are made of letters, digits and _@%+=:,./- only: a wildcard would also stand for blanks and "
                "further arguments, so write one item for each command"
            )
    directory, _slash, name = words[0].rpartition("/")
    # A directory would stand for all programs in it.
    if directory not in _DIRECTORIES or not name:
        return f"does not begin with the path of a program below {', '.join(_DIRECTORIES)}, where only root can put another one"
    if ".." in re.split(r"[ /=:,@+%]", text):
        return "holds '..'; write the path itself"
    for reason, pattern in _FORBIDDEN:
        if pattern.fullmatch(name):
            return f"{reason}; write the exact command of a program that does one thing, or give the role admin to whom it is for"
    paths = [re.sub(r"/(\.?/)+", "/", word) for word in words[1:]]
    if any(_SECRETS.search(path) for path in paths):
        return "names a secret or a directory of secrets"
    if any(_OTHERS.search(path) for path in paths):
        return "names a device, or a place where not only root writes; write a path below a directory of root's"
    if name == "systemctl":
        return _systemctl_problem(words[1:])
    if name == "nginx" and set(words[1:]).difference(_NGINX):
        return f"can give nginx another configuration, which runs as root; accepted are {', '.join(_NGINX)}"
    if name == "journalctl" and "--no-pager" not in words:
        return "opens a pager, which gives a shell; write --no-pager as its first argument"
    return None


def _systemctl_problem(arguments: t.Sequence[str]) -> t.Optional[str]:
    plain = [word for word in arguments if not word.startswith("-")]
    options = {word for word in arguments if word.startswith("-")}
    verb = plain[0] if plain else ""
    if verb not in _SYSTEMCTL:
        return f"has the verb {verb!r}; accepted are {', '.join(sorted(_SYSTEMCTL))}"
    if options.difference(_OPTIONS):
        return f"has options that can do more than the verb says; accepted are {', '.join(_OPTIONS)}"
    if verb in ("status", "show", *_LISTS) and "--no-pager" not in options:
        return "opens a pager, which gives a shell; write --no-pager before the verb"
    bad = [unit for unit in plain[1:] if not _UNIT.fullmatch(unit)]
    if bad:
        return f"names {bad[0]!r}; write units with their type, such as nginx.service"
    if any(_SHELLS.fullmatch(unit) for unit in plain[1:]):
        return "names a unit that gives a shell"
    if verb == "stop" and any(_WATCHERS.fullmatch(unit) for unit in plain[1:]):
        return "stops a unit that watches or guards the host; leave that to the role admin"
    if verb not in _LISTS and len(plain) < 2:
        return "names no unit; write it with its type, such as nginx.service"
    return None


def sudoers_command(text: str) -> str:
    """A command as sudoers reads it: exactly these arguments, and none where none are written."""
    words = [re.sub(r"([,:=\\])", r"\\\1", word) for word in text.split(" ")]
    return " ".join(words if len(words) > 1 else [*words, '""'])
