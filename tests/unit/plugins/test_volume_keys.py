# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict whether an encrypted volume is protected. That a key is found by trying it is proven in the scenario vm."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_keys as keys
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_swap as swap
from ansible_collections.civitas.hosting.plugins.module_utils._volume_mounts import config_of
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Binding, Done, Luks, VolumeError

CONFIG = config_of(
    {"device": "d", "encryption": "operator", "source": "s", "uuid": "u", "luks": "l", "path": "/srv/data", "directories": []}
)
LUKS = Luks("l", "civitas-data", 0, 0, ("0",), ())
TANG = Binding("tang", ("http://a", "http://b"), 1, "1")


def judge(luks=LUKS, files=None, untried=0, here=()):
    return keys.judge(CONFIG, luks, files or {}, untried, lambda server: server in here)


@pytest.mark.parametrize(
    ("luks", "arguments", "words"),
    [
        (LUKS, {}, "the passphrase that people keep"),
        (LUKS, {"files": {"/run/key": ""}}, "lies in memory or on an encrypted disk"),
        (LUKS._replace(slots=("0", "1"), bindings=(TANG,)), {}, "1 of http://a, http://b answers"[:20]),
        (LUKS._replace(slots=("0", "1"), bindings=(TANG._replace(threshold=2),)), {"here": ["http://a"]}, "2 of http://a, http://b"),
        (LUKS._replace(slots=("0", "1"), bindings=(Binding("tpm2", slot="1"),)), {}, "the whole machine is not"),
    ],
)
def test_protected(luks, arguments, words):
    verdict = judge(luks, **arguments)
    assert verdict.protected and words in " ".join(verdict.lines)


@pytest.mark.parametrize(
    ("luks", "arguments", "words"),
    [
        (LUKS, {"files": {"/root/key": "/dev/vda"}}, "not protected: /root/key opens the volume, and lies unencrypted on /dev/vda"),
        (LUKS._replace(slots=("0", "1"), bindings=(TANG,)), {"here": ["http://b"]}, "not protected: the tang server http://b is this host"),
        (LUKS._replace(slots=("0", "1"), bindings=(Binding("other", slot="1"),)), {}, "key slot 1 belongs to a token"),
        (LUKS._replace(slots=("0", "1", "2")), {}, "2 key slots more than"),
        (LUKS, {"untried": 3}, "3 files that look like keys were not tried"),
    ],
)
def test_not_protected(luks, arguments, words):
    verdict = judge(luks, **arguments)
    assert not verdict.protected and len(verdict.lines) == 1 and words in verdict.lines[0]


def test_files_that_look_like_keys(tmp_path):
    for name, content in {
        "disk-encryption.txt": "x" * 20,
        "a/api_key": "x" * 20,
        "a/notes": "x" * 20,
        "ssh_host_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "key.pub": "ssh-ed25519 AAAA",
        "key.empty": "",
        "key.large": "x" * 9000,
        "volume/key": "x" * 20,
        "named": "x",
        "passwd": "root:x:0:0\ndaemon:x:1:1\n",
        "key.pyc": "x" * 20,
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    (tmp_path / "key.bin").write_bytes(b"\xff\n" * 20)
    (tmp_path / "key.link").symlink_to(tmp_path / "a" / "notes")
    found = keys.candidates([str(tmp_path)], [f"{tmp_path}/named", f"{tmp_path}/none"], skip=[f"{tmp_path}/volume"])
    assert found == [f"{tmp_path}/{name}" for name in ("named", "disk-encryption.txt", "a/api_key", "key.bin")]


def test_files_that_the_system_names():
    crypttab = "# data UUID=x /root/comment\ndata UUID=1 /etc/keys/data luks\nother UUID=2 none luks\n"
    cmdline = "root=/dev/vda rd.luks.key=0e2a=/boot/key:UUID=1 luks.key=/key quiet"
    assert keys.named_files(crypttab, cmdline) == ["/etc/keys/data", "/boot/key", "/key"]


def test_a_file_opens_with_or_without_its_line_break(tmp_path):
    given = []

    def cryptsetup(command, key):
        given.append(key)
        assert "secret" not in str(command)
        return Done(0 if key == b"secret" else 2, "", "")

    (tmp_path / "key").write_text("secret\n")
    assert keys.opens("/dev/vdb", f"{tmp_path}/key", cryptsetup) and given == [b"secret"]
    (tmp_path / "key").write_text("other\n")
    assert not keys.opens("/dev/vdb", f"{tmp_path}/key", cryptsetup) and given[1:] == [b"other", b"other\n"]
    assert not keys.opens("/dev/vdb", f"{tmp_path}/none", cryptsetup)


def test_a_file_is_tried_once_for_each_header(tmp_path):
    path, cache, asked = tmp_path / "key", f"{tmp_path}/cache", []
    path.write_text("one")

    def look(header):
        tried = keys.Tried(header, cache)
        found = tried.judge(str(path), lambda one: asked.append(one) is None, True)
        tried.keep()
        return found

    assert look(b"a") is look(b"a") is True and len(asked) == 1
    assert look(b"b") is True and len(asked) == 2
    path.write_text("another")
    assert keys.Tried(b"b", cache).judge(str(path), lambda _one: True, False) is None
    assert look(b"b") is True and len(asked) == 3
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o600


def test_which_server_is_this_host():
    assert keys.is_here("http://127.0.0.1:8080") and keys.is_here("http://localhost")
    assert not keys.is_here("http://192.0.2.1") and not keys.is_here("http://name.invalid") and not keys.is_here("x")


# --- swap

SWAPS = """Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/vda2                               partition\t1048572\t\t0\t\t-2
/dev/dm-1                               partition\t1048572\t\t0\t\t-3
/dev/zram0                              partition\t1048572\t\t0\t\t100
"""
FSTAB = "UUID=1 / ext4 defaults 0 1\n# /dev/vda9 none swap sw 0 0\n/dev/dm-1 none swap sw 0 0\n/dev/vda2 none swap sw 0 0\n"


def host(command, _given):
    if command[0] == "lsblk":
        kind = '"crypt", "children": [{"name": "/dev/vdb", "type": "disk"}]' if command[-1] == "/dev/dm-1" else '"part"'
        return Done(0, f'{{"blockdevices": [{{"name": "{command[-1]}", "type": {kind}}}]}}', "")
    return Done(0, "", "") if command != ["swapoff", "/dev/vda9"] else Done(1, "", "")


def test_swap_in_the_clear_is_turned_off(tmp_path):
    swaps, fstab, asked = tmp_path / "swaps", tmp_path / "fstab", []
    swaps.write_text(SWAPS)
    fstab.write_text(FSTAB)
    fstab.chmod(0o640)

    def watched(command, given):
        asked.append(list(command))
        return host(command, given)

    assert swap.in_use(SWAPS) == ["/dev/vda2", "/dev/dm-1"]
    wanted = [f"take swap in the clear out of {fstab}", "turn off the swap /dev/vda2"]
    # On this machine the disks of the test are not there, so what is written for them counts as in the clear.
    told = swap.off(True, watched, str(fstab), str(swaps))
    assert told == wanted and fstab.read_text() == FSTAB and ["swapoff", "/dev/vda2"] not in asked
    assert swap.off(False, watched, str(fstab), str(swaps)) == wanted
    assert ["swapoff", "/dev/vda2"] in asked and ["swapoff", "/dev/dm-1"] not in asked
    assert f"{swap.MARK}/dev/vda2 none swap sw 0 0\n" in fstab.read_text() and fstab.stat().st_mode & 0o777 == 0o640
    swaps.write_text(SWAPS.splitlines()[0] + "\n")
    assert swap.off(False, watched, str(fstab), str(swaps)) == []
    assert swap.off(False, watched, f"{tmp_path}/none", f"{tmp_path}/none") == []


def test_swap_that_stays_is_told(tmp_path):
    (tmp_path / "swaps").write_text("head\n/dev/vda9 partition 1 0 -2\n")
    with pytest.raises(VolumeError, match=r"swapoff /dev/vda9: .*free memory"):
        swap.off(False, host, f"{tmp_path}/none", f"{tmp_path}/swaps")


def test_only_swap_is_taken_out_of_fstab():
    assert swap.without(FSTAB, lambda path: path == "/dev/vda2") == FSTAB.replace("/dev/vda2", f"{swap.MARK}/dev/vda2")
    assert swap.without(FSTAB, lambda _path: False) == FSTAB
