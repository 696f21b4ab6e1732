# SPDX-License-Identifier: GPL-3.0-or-later
"""Which device is made the data volume, and which is refused. That it is encrypted, opened and lost is proven in the scenario vm."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_setup as setup
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Binding, Child, Device, Done, Signature, VolumeError

GIB = 1 << 30
UUID = "0e2a1c3e-9f6f-4c07-9f70-2c6e5a3a9b10"
EMPTY = Device("/dev/vdb", "disk", GIB, False, (), (), (), True)
LUKS = EMPTY._replace(signatures=(Signature("crypto_LUKS", "civitas-data", UUID),), blank=False)
PLAIN = EMPTY._replace(signatures=(Signature("ext4", "civitas-data", UUID),), blank=False)
OPEN = LUKS._replace(children=(Child(state.MAPPING, "crypt", ("/srv/data",)),))
STRANGE = EMPTY._replace(signatures=(Signature("ext4", "patients", UUID),), blank=False)
DEVICE = "/dev/disk/by-id/virtio-data"
CLEAR = setup.Wanted(DEVICE, "none", initialize=True)
SECRET = setup.Wanted(DEVICE, "operator", initialize=True, passphrase=b"canary")


def test_an_empty_disk_is_made_the_volume():
    assert setup.judge(CLEAR, EMPTY) == setup.judge(SECRET, EMPTY) == "make"


@pytest.mark.parametrize(
    ("wanted", "device"),
    [
        (SECRET, LUKS),
        (SECRET, OPEN),
        (CLEAR, PLAIN),
        (CLEAR, PLAIN._replace(mountpoints=("/srv/data",))),
        (CLEAR._replace(device=f"UUID={UUID}"), STRANGE),
        (CLEAR._replace(device="LABEL=patients"), STRANGE),
        (SECRET._replace(recorded=UUID, headers=["x"]), LUKS),
    ],
)
def test_the_volume_is_used_as_it_is(wanted, device):
    assert setup.judge(wanted, device) == "use"


@pytest.mark.parametrize(
    ("wanted", "device", "words"),
    [
        (CLEAR, STRANGE, f"holds ext4 'patients', and is not touched: write device: UUID={UUID}"),
        (SECRET, STRANGE, "holds ext4 'patients', and is not touched: name an empty disk"),
        (SECRET, STRANGE._replace(mountpoints=("/",)), "mounted at /, and is not touched"),
        (SECRET, EMPTY._replace(blank=False), "holds data of an unknown kind"),
        (SECRET, EMPTY._replace(blank=False, children=(Child("/dev/vdb1", "part", ()),)), "holds part /dev/vdb1"),
        (SECRET, LUKS._replace(signatures=(Signature("crypto_LUKS", "theirs", UUID),)), "holds crypto_LUKS 'theirs'"),
        (SECRET, LUKS._replace(children=(Child("/dev/mapper/theirs", "crypt", ()),)), "is not touched"),
        (SECRET, LUKS._replace(signatures=(*LUKS.signatures, Signature("ext4", "", ""))), "is not touched"),
        (SECRET, EMPTY._replace(signatures=(Signature("gpt", "", ""),), blank=False), "holds gpt, and is not touched"),
        (SECRET, EMPTY._replace(read_only=True), "takes no writes"),
        (SECRET, EMPTY._replace(mountpoints=("/mnt",)), "mounted at /mnt"),
        (CLEAR, LUKS, "is encrypted, and encryption asks for none"),
        (SECRET, PLAIN, "is not encrypted, and encryption asks for operator"),
        (CLEAR._replace(filesystem="xfs"), PLAIN, "write filesystem: ext4"),
        (SECRET._replace(initialize=False), EMPTY, "(1024 MiB). Write initialize: true"),
        (SECRET._replace(recorded=UUID), EMPTY, f"has neither header nor file system, and this host had the file system {UUID}"),
        (SECRET._replace(recorded=UUID), EMPTY._replace(blank=False), "has neither header nor file system, and this host had"),
        (SECRET._replace(headers=["a.luks2.bak"]), STRANGE, "holds ext4 'patients'"),
        (SECRET._replace(headers=["a.luks2.bak"]), EMPTY, "and this host had an encrypted volume (a.luks2.bak)"),
        (CLEAR._replace(device=f"UUID={UUID}"), EMPTY, "holds nothing of that name"),
    ],
)
def test_everything_else_is_refused(wanted, device, words):
    with pytest.raises(VolumeError) as caught:
        setup.judge(wanted, device)
    assert words in str(caught.value) and "canary" not in str(caught.value)


def test_a_device_that_is_not_there_is_told_with_those_that_could_be_meant():
    listed = {
        "blockdevices": [
            {"name": "/dev/vda", "type": "disk", "fstype": "ext4", "mountpoints": ["/"]},
            {"name": "/dev/vdb", "type": "disk", "fstype": None, "mountpoints": [None]},
            {"name": "/dev/vdc", "type": "disk", "fstype": None, "mountpoints": [None], "children": [{}]},
            {"name": "/dev/zram0", "type": "disk", "fstype": None, "mountpoints": [None]},
        ]
    }
    with pytest.raises(VolumeError, match=r"no block device /dev/disk/by-id/none-such.*: /dev/vdb$"):
        setup.find("/dev/disk/by-id/none-such", lambda _command, _given: Done(0, json.dumps(listed), ""))
    # A file is none either.
    with pytest.raises(VolumeError, match="no block device"):
        setup.find(__file__, lambda _command, _given: Done(1, "", ""))


def test_names_that_last(tmp_path):
    (tmp_path / "virtio-data").symlink_to("/dev/null")
    assert setup.stable_name("/dev/null", str(tmp_path)) == f"{tmp_path}/virtio-data"
    assert setup.stable_name("/dev/zero", str(tmp_path)) == "/dev/zero"


def test_what_clevis_is_told():
    one = SECRET._replace(encryption="tang", tang=[{"url": "http://a/", "thumbprint": "x"}])
    assert setup.clevis_config(one) == ("tang", '{"url": "http://a", "thp": "x"}')
    two = one._replace(tang=[*one.tang, {"url": "http://b", "thumbprint": "y"}], threshold=2)
    pin, config = setup.clevis_config(two)
    assert pin == "sss" and json.loads(config) == {
        "t": 2,
        "pins": {"tang": [{"url": "http://a", "thp": "x"}, {"url": "http://b", "thp": "y"}]},
    }
    assert two.binding == Binding("tang", ("http://a", "http://b"), 2)
    assert setup.clevis_config(SECRET._replace(encryption="tpm2")) == ("tpm2", '{"pcr_bank": "sha256", "pcr_ids": "7"}')
    assert setup.clevis_config(SECRET._replace(encryption="tpm2", pcrs="")) == ("tpm2", "{}")


class Host:
    """Answers as the programs do, and keeps what they were told."""

    def __init__(self, **answers: Done) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, command, given):
        self.asked.append((list(command), given))
        return self.answers.get(command[0], Done(0, "", ""))


def test_the_passphrase_goes_through_standard_input_alone():
    host = Host()
    setup._encrypt("/dev/vdb", b"canary", host)
    setup.open_mapping("/dev/vdb", b"canary", host)
    setup._add_binding(SECRET._replace(encryption="tpm2"), "/dev/vdb", host)
    told = [command for command, given in host.asked if given == b"canary"]
    assert [command[:2] for command in told] == [["cryptsetup", "luksFormat"], ["cryptsetup", "open"], ["clevis", "luks"]]
    assert "canary" not in str([command for command, _given in host.asked])


def test_a_wrong_passphrase_is_told_apart_from_a_broken_volume():
    with pytest.raises(VolumeError, match="the passphrase does not open /dev/vdb; nothing was changed"):
        setup.open_mapping("/dev/vdb", b"canary", Host(cryptsetup=Done(2, "", "No key available")))
    with pytest.raises(VolumeError, match="cannot be opened: Device is in use"):
        setup.open_mapping("/dev/vdb", b"canary", Host(cryptsetup=Done(5, "", "Device is in use")))


def test_another_disk_in_its_place_is_refused(monkeypatch):
    monkeypatch.setattr(setup, "_prepare", lambda *_arguments: setup.Outcome([], "/dev/x", "other", "", None))
    assert setup.prepare(CLEAR).uuid == "other"
    with pytest.raises(VolumeError, match="it is another disk"):
        setup.prepare(CLEAR._replace(recorded=UUID))


@pytest.fixture
def disk(tmp_path):
    """A block device of 64 MiB with nothing on it."""
    if os.geteuid() != 0 or shutil.which("losetup") is None:
        pytest.skip("only root can make a block device, with losetup")
    file = tmp_path / "disk"
    with file.open("wb") as stream:
        stream.truncate(64 * state.MEBIBYTE)
    made = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no block device can be made here: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_real_disk_is_made_the_volume_once(disk):
    wanted = CLEAR._replace(device=disk)
    with pytest.raises(VolumeError, match="Write initialize: true"):
        setup.prepare(wanted._replace(initialize=False))
    assert setup.prepare(wanted, check=True).uuid == ""
    made = setup.prepare(wanted)
    assert made.steps == [f"make a file system ext4 on {disk}"] and made.source == f"/dev/disk/by-uuid/{made.uuid}"
    assert setup.prepare(wanted) == made._replace(steps=[])
    assert setup.prepare(wanted._replace(recorded=made.uuid)).steps == []
    with pytest.raises(VolumeError, match="it is another disk"):
        setup.prepare(wanted._replace(recorded=UUID))


def test_a_real_disk_that_holds_something_is_not_touched(disk):
    def content():
        with open(disk, "rb") as stream:
            return stream.read()

    end = f"printf x | dd of={disk} bs=1 seek={64 * state.MEBIBYTE - 1} conv=notrunc,fsync"
    for make in (["mkfs.ext4", "-q", "-L", "patients", disk], ["mkswap", disk], ["sh", "-c", f"wipefs --all {disk} && {end}"]):
        subprocess.run(make, capture_output=True, check=True)
        before = content()
        for wanted in (CLEAR._replace(device=disk), SECRET._replace(device=disk)):
            with pytest.raises(VolumeError, match="and is not touched"):
                setup.prepare(wanted)
        assert content() == before
