# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of the texts of /proc and of the answers of programs, as Debian 12 and 13 and Ubuntu 22.04 and 24.04 give them."""

from __future__ import annotations

import os

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _metrics_host as host
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_text import render

# A server with separate /boot/efi and /srv, a bind mount, a snap, an encrypted home with a blank in its name, containers and sessions.
SERVER = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
24 22 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
25 22 0:5 / /dev rw,nosuid,relatime shared:2 - devtmpfs udev rw,size=1986936k,nr_inodes=496734,mode=755,inode64
26 25 0:23 / /dev/shm rw,nosuid,nodev shared:4 - tmpfs tmpfs rw,inode64
27 22 0:24 / /run rw,nosuid,nodev,noexec,relatime shared:5 - tmpfs tmpfs rw,size=401896k,mode=755,inode64
28 27 0:26 / /run/lock rw,nosuid,nodev,noexec,relatime shared:7 - tmpfs tmpfs rw,size=5120k,inode64
29 22 0:31 / /proc/sys/fs/binfmt_misc rw,relatime shared:14 - autofs systemd-1 rw,fd=29,pgrp=1,timeout=0
30 22 8:15 / /boot/efi rw,relatime shared:30 - vfat /dev/sda15 rw,fmask=0077,codepage=437,errors=remount-ro
31 22 254:2 / /srv rw,relatime shared:31 - xfs /dev/mapper/vg-srv rw,attr2,inode64,noquota
32 22 254:2 /www /var/www rw,relatime shared:31 - xfs /dev/mapper/vg-srv rw,attr2,inode64,noquota
33 22 7:0 / /snap/core20/2379 ro,nodev,relatime shared:33 - squashfs /dev/loop0 ro,errors=continue
34 22 254:3 / /srv/old\\040records ro,relatime shared:34 - ext4 /dev/mapper/vg-old ro
35 22 0:50 / /backup rw,relatime shared:35 - nfs4 nas:/backup rw,vers=4.2,addr=192.0.2.9
36 27 0:40 / /run/user/1000 rw,nosuid,nodev,relatime shared:36 - tmpfs tmpfs rw,size=401892k,mode=700,uid=1000,inode64
37 22 0:60 / /var/lib/docker/overlay2/0123/merged rw,relatime shared:37 - overlay overlay rw,lowerdir=a,upperdir=b,workdir=c
38 22 0:41 / /tmp rw,nosuid,nodev shared:38 - tmpfs tmpfs rw,nr_inodes=1048576,inode64
39 22 254:1 /var/lib/civitas /var/lib/civitas rw,relatime - ext4 /dev/mapper/vg-root rw,errors=remount-ro
"""
# The test bed's own host, a container: parts of its host's disk are mounted as single files and as a directory.
CONTAINER = """\
527 495 0:99 / / rw,relatime master:173 - overlay overlay rw,lowerdir=a,upperdir=b,workdir=c
529 527 0:103 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
544 527 0:108 / /run rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw
547 527 254:0 /var/lib/docker/containers/0123/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw,discard
549 527 254:0 /var/lib/docker/volumes/0123/_data /var/lib/docker rw,relatime master:1 - ext4 /dev/vda rw,discard
500 528 0:110 / /proc/acpi ro,relatime - tmpfs tmpfs ro
"""
FSTAB = """\
# <file system> <mount point> <type> <options> <dump> <pass>
/dev/mapper/vg-root / ext4 errors=remount-ro 0 1
/dev/mapper/vg-old /srv/old\\040records ext4 ro,nofail 0 2
#/dev/sdb /srv ext4 ro 0 0
"""


def disk(blocks=1000, free=400, available=350, files=100, files_free=75):
    return os.statvfs_result((4096, 4096, blocks, free, available, files, files_free, files_free, 0, 255))


def values(samples):
    """Without the metrics' prefix: {(name, labels ...): value}; every name has a title."""
    found = list(samples)
    render(found, host.TITLES)
    return {(one.name[len("civitas_") :], *(value for _name, value in one.labels)): one.value for one in found}


def points(text, is_directory=lambda path: True):
    return [mount.point for mount in host.data_mounts(host.parse_mounts(text)[0], is_directory)]


def test_mounts_that_can_fill_up():
    assert points(SERVER) == ["/", "/boot/efi", "/run", "/srv", "/srv/old records", "/tmp"]
    assert points(CONTAINER, lambda path: path != "/etc/hosts") == ["/", "/run", "/var/lib/docker"]


def test_a_mount_over_another_counts():
    over = "40 22 254:9 / /srv rw - ext4 /dev/sdz rw\n"
    found = {mount.point: mount.device for mount in host.data_mounts(host.parse_mounts(SERVER + over)[0], lambda path: True)}
    # The file system below is still seen by its other view.
    assert (found["/srv"], found["/var/www"]) == ("254:9", "254:2")


def measured(text=SERVER, fstab=FSTAB, expected=(), **disks):
    return host.mounts(text, fstab, expected, lambda path: disks.get(path.strip("/") or "root") or disk(), lambda path: True)


def test_how_full_they_are():
    found = values(measured(tmp=disk(blocks=0, free=0, available=0, files=0, files_free=0), srv=disk(available=0, free=50)))
    # As df has it: what only root can use is neither used nor free.
    assert found["mount_used_ratio", "/"] == pytest.approx(600 / 950)
    assert found["mount_used_ratio", "/srv"] == 1.0
    assert found["mount_inodes_used_ratio", "/"] == 0.25
    assert ("mount_used_ratio", "/tmp") not in found and ("mount_inodes_used_ratio", "/tmp") not in found


def test_read_only_by_fault_and_by_choice():
    found = values(measured())
    assert found["mount_writable", "/"] == 1 and ("mount_writable", "/srv/old records") not in found
    failed = SERVER.replace("vg-root rw,errors=remount-ro", "vg-root ro,errors=remount-ro")
    assert values(measured(failed))["mount_writable", "/"] == 0
    # The service sees everything read-only; the file systems themselves are not.
    hardened = SERVER.replace(" rw,relatime shared", " ro,relatime shared")
    assert values(measured(hardened))["mount_writable", "/"] == 1
    assert values(measured(fstab=""))["mount_writable", "/srv/old records"] == 0


def test_expected_mounts():
    found = values(measured(expected=["/backup", "/mnt/disk", "/proc/sys/fs/binfmt_misc"]))
    # Something that waits to be mounted is not mounted.
    assert [found["expected_mount", path] for path in ("/backup", "/mnt/disk", "/proc/sys/fs/binfmt_misc")] == [1, 0, 0]


def test_one_mount_that_fails_does_not_hide_the_others():
    def broken(path):
        if path == "/srv":
            raise OSError(5, "Input/output error")
        return disk()

    got = []
    with pytest.raises(host.MeasureError, match="/srv: Input/output error"):
        got.extend(host.mounts(SERVER, FSTAB, [], broken, lambda path: True))
    assert ("mount_used_ratio", "/tmp") in values(got) and ("mount_used_ratio", "/srv") not in values(got)


def test_a_line_that_is_no_mount_hides_no_other():
    got = []
    with pytest.raises(host.MeasureError, match="mountinfo has a line that is none: '22 1 254:1 /'"):
        got.extend(measured("22 1 254:1 /\n" + SERVER))
    assert ("mount_used_ratio", "/") in values(got) and ("mount_used_ratio", "/tmp") in values(got)


# What Python, but not the kernel, takes for the end of a line.
@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_name_that_looks_like_the_end_of_a_line(end):
    evil = f"41 22 0:70 / /home/eve/m{end}x rw,nosuid - fuse.sshfs eve rw,user_id=1001\n"
    evil += f"42 22 254:8 / /home/eve/n{end} rw - ext4 /dev/loop1 rw\n"
    found = values(measured(evil + SERVER, f"# {end}\n{FSTAB}"))
    assert ("mount_used_ratio", "/") in found and ("mount_used_ratio", "/home/eve/n?") in found
    assert ("mount_writable", "/srv/old records") not in found
    listed = f"nginx.service loaded failed failed A {end}server.service\n"
    assert ("unit_failed", "nginx.service") in values(host.failed_units(listed)) and len(values(host.failed_units(listed))) == 2


MEMINFO = (
    "MemTotal:        2012344 kB\nMemFree:           98304 kB\nMemAvailable:     503086 kB\nSwapTotal:        {} kB\nSwapFree: 250 kB\n"
)


def test_memory():
    assert values(host.memory(MEMINFO.format(1000))) == {("memory_available_ratio",): 0.25, ("swap_used_ratio",): 0.75}
    assert values(host.memory(MEMINFO.format(0))) == {("memory_available_ratio",): 0.25}
    with pytest.raises(host.MeasureError, match="MemAvailable"):
        list(host.memory("MemTotal: 5 kB\n"))


STAT = """\
cpu  {user} 0 1000 8000 500 0 39 11 {guest} 0
cpu0 2735614 36240 973626 1838572 13967 0 11135 5677 0 0
cpu1 2996859 33657 1031473 1495410 29933 0 28420 5719 0 0
intr 1 2 3
"""
LOAD = "4.70 3.00 1.57 2/323 961\n"


def test_processors_are_measured_between_two_looks():
    state = {}
    assert values(host.processors(STAT.format(user=1000, guest=0), LOAD, state)) == {("load_per_cpu",): 1.5}
    # 300 ticks of work and 100 of waiting; what guests get is part of the first number already.
    later = STAT.format(user=1300, guest=300).replace(" 8000 500 ", " 8040 560 ")
    assert values(host.processors(later, LOAD, state))["cpu_busy_ratio",] == 0.75
    # After a boot it begins anew.
    assert ("cpu_busy_ratio",) not in values(host.processors(STAT.format(user=10, guest=0), LOAD, state))
    assert ("cpu_busy_ratio",) not in values(host.processors(STAT.format(user=10, guest=0), LOAD, state))


def test_processors_that_are_wholly_busy_are_measured_each_time():
    state = {}
    list(host.processors(STAT.format(user=1000, guest=0), LOAD, state))
    for run in range(1, 4):
        # Nothing is idle, and what waited for disks is counted anew.
        text = STAT.format(user=1000 + 6000 * run, guest=0).replace(" 8000 500 ", f" 8000 {500 - run} ")
        assert values(host.processors(text, LOAD, state))["cpu_busy_ratio",] == 1.0


def test_no_processors():
    with pytest.raises(host.MeasureError):
        list(host.processors("intr 1\n", LOAD, {}))


# As chronyd 4.6 says it: when it last heard from its source, how far the clock is off, how long before that it heard, and its verdict.
TRACKING = "C0000209,192.0.2.9,3,1764000000.123456789,{},0.000012,0.00002,-12.1,0.001,0.05,0.012,0.001,{},{}\n"
HEARD = 1764000000.0


def test_clock():
    assert values(host.clock(TRACKING.format("-6.250000000", "64.5", "Normal"), False, HEARD + 30)) == {
        ("clock_synchronised",): 1,
        ("clock_offset_seconds",): 6.25,
    }
    # Without a source, chrony says that the offset is 0.
    assert values(host.clock(TRACKING.format("0.000000000", "64.5", "Not synchronised"), True, HEARD)) == {("clock_synchronised",): 0}
    # No chrony: a container on a host whose kernel knows, or does not.
    assert values(host.clock("", True, HEARD)) == {("clock_synchronised",): 1}
    assert values(host.clock("506 Cannot talk to daemon\n", False, HEARD)) == {("clock_synchronised",): 0}


@pytest.mark.parametrize(
    ("interval", "age", "synchronised"),
    [
        ("64.2", 3500, 1),
        ("64.2", 3700, 0),
        # Three questions in a row without an answer are none yet.
        ("1038.1", 3500, 1),
        ("1038.1", 4200, 0),
        ("4130.0", 12400, 1),
        ("4130.0", 17000, 0),
        # The last one came after an outage of a week.
        ("604800.0", 90000, 0),
        # The clock was set back.
        ("64.2", -7200, 1),
    ],
)
def test_a_clock_whose_sources_are_gone(interval, age, synchronised):
    tracking = TRACKING.format("0.000000341", interval, "Normal")
    found = values(host.clock(tracking, True, HEARD + age))
    assert found == {("clock_synchronised",): synchronised, ("clock_offset_seconds",): 3.41e-07}


def test_failed_units():
    listed = "nginx.service       loaded failed failed A high performance web server\nsrv-data.mount loaded failed failed /srv/data\n"
    assert values(host.failed_units(listed)) == {
        ("units_failed",): 2,
        ("unit_failed", "nginx.service"): 1,
        ("unit_failed", "srv-data.mount"): 1,
    }
    assert values(host.failed_units("")) == {("units_failed",): 0}


def test_units_that_are_to_run():
    units = ["a.service", "b.service", "c.timer", "d.service"]
    shown = "ActiveState=active\n\nActiveState=inactive\n\nActiveState=reloading\n\nActiveState=activating\n"
    assert list(values(host.running_units(units, shown)).values()) == [1, 0, 1, 0]
    with pytest.raises(host.MeasureError, match="1 of 4"):
        list(host.running_units(units, "ActiveState=active\n"))
