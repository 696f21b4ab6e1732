# SPDX-License-Identifier: GPL-3.0-or-later
"""What a device holds, from what the programs of Debian 12 and 13 said of real ones."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Binding, VolumeError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "volume"
RELEASES = {path.stem: path.read_text() for path in sorted(FIXTURES.glob("*.txt"))}


def said(release: str, what: str) -> str:
    """A section of what was captured."""
    parts = re.split(r"^== (.*)$", RELEASES[release], flags=re.M)
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[what].strip()
    # The size of the backup of the header stands behind it.
    return text.rpartition("}")[0] + "}" if what == "luksDump" else text


def test_both_releases_are_there():
    assert list(RELEASES) == ["debian_12", "debian_13"]


@pytest.mark.parametrize("release", RELEASES)
def test_signatures(release):
    for what, kinds in {"luks": ["crypto_LUKS"], "xfs": ["xfs"], "ext": ["ext4"], "gpt": ["gpt", "PMBR"], "none": []}.items():
        found = state.parse_wipefs(said(release, f"wipefs {what}"))
        assert [each.kind for each in found] == kinds
        assert all((each.label, len(each.uuid)) == ("civitas-data", 36) for each in found if what in ("luks", "xfs", "ext"))
    assert state.parse_wipefs("") == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"signatures": [{"label": null}]}', "wipefs: error"])
def test_what_cannot_be_understood_is_no_empty_disk(text):
    with pytest.raises(VolumeError, match="cannot be understood"):
        state.parse_wipefs(text)


@pytest.mark.parametrize("release", RELEASES)
def test_header(release):
    luks = state.parse_luks(said(release, "luksDump"), "u", "civitas-data")
    assert luks == state.Luks("u", "civitas-data", 5242880, 4227072, ("0",), ())
    # As large as cryptsetup's own backup of it.
    assert f"}}{luks.size}\n" in RELEASES[release]
    with pytest.raises(VolumeError, match="cannot be understood"):
        state.parse_luks("{}", "u", "")


def token(told: dict, **more: object) -> dict:
    protected = base64.urlsafe_b64encode(json.dumps({"clevis": told}).encode()).decode().rstrip("=")
    return {"type": "clevis", "keyslots": ["1"], "jwe": {"protected": protected}, **more}


def share(url: str) -> str:
    return token({"pin": "tang", "tang": {"url": url}})["jwe"]["protected"] + ".a.b.c"


@pytest.mark.parametrize(
    ("found", "binding"),
    [
        (token({"pin": "tang", "tang": {"url": "http://tang/"}}), Binding("tang", ("http://tang",), 1, "1")),
        (token({"pin": "tpm2", "tpm2": {"pcr_ids": "7"}}), Binding("tpm2", (), 1, "1")),
        (
            token({"pin": "sss", "sss": {"t": 2, "jwe": [share("http://b"), share("http://a")]}}),
            Binding("tang", ("http://a", "http://b"), 2, "1"),
        ),
        (token({"pin": "sss", "sss": {"t": 1, "jwe": ["x.y"]}}), Binding("other", slot="1")),
        (token({"pin": "null"}), Binding("other", slot="1")),
        ({"type": "systemd-tpm2", "keyslots": ["2"]}, Binding("other", slot="2")),
        ({"type": "clevis"}, Binding("other")),
    ],
)
def test_bindings(found, binding):
    assert state.binding_of(found) == binding


def test_ways_to_write_a_device():
    assert state.device_path("UUID=1-2") == "/dev/disk/by-uuid/1-2"
    assert state.device_path("PARTLABEL=data") == "/dev/disk/by-partlabel/data"
    assert state.device_path("/dev/vg0/data") == "/dev/vg0/data"


def test_sizes():
    assert [state.size_of(value) for value in ("2G", "512M", "0", 0, "")] == [2 << 30, 512 << 20, 0, 0, 0]
    wrong = ("2g", "2 G", "2GB", "G", "0G", "-1G", "1.5G", "2", 2, 2.0, True, False, None, [], "9999999G", "2G\n")
    assert [value for value in wrong if state.size_of(value) is not None] == []


def test_a_device_is_blank_only_with_zeros_at_both_ends(tmp_path):
    disk = tmp_path / "disk"
    size = 4 * state.MEBIBYTE
    disk.write_bytes(b"\0" * size)
    assert state.is_blank(str(disk), size)
    for place in (0, state.MEBIBYTE - 1, size - state.MEBIBYTE, size - 1):
        content = bytearray(size)
        content[place] = 1
        disk.write_bytes(content)
        assert not state.is_blank(str(disk), size), place


def test_a_header_is_named_by_its_content(tmp_path):
    luks = state.Luks("0" * 36, "", 0, 16, (), ())
    disk = tmp_path / "disk"
    disk.write_bytes(b"LUKS\xba\xbe" + b"x" * 20)
    content = state.read_header(str(disk), luks)
    assert len(content) == 16 and re.fullmatch(r"0{36}-[0-9a-f]{16}\.luks2\.bak", state.header_name(luks, content))
    assert state.header_name(luks, content) != state.header_name(luks, content[::-1])
    disk.write_bytes(b"\0" * 32)
    with pytest.raises(VolumeError, match="has no header"):
        state.read_header(str(disk), luks)


def test_mounts():
    text = (
        "24 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        "40 24 252:0 / /srv/my\\040data rw,nosuid shared:5 - ext4 /dev/mapper/civitas-data rw\n"
        "41 24 0:30 / /srv/my\\040data rw - tmpfs tmpfs rw\n"
        "what is no line\n"
    )
    assert state.mounted(text) == {"/": ("254:0", "/dev/vda"), "/srv/my data": ("0:30", "tmpfs")}


def test_a_command_that_is_not_there_is_told():
    assert state.run(["civitas-no-such-program"]) == (127, "", "civitas-no-such-program is not installed")
    with pytest.raises(VolumeError, match="'cat /civitas-nothing' ended with status 1"):
        state.must(state.run, ["cat", "/civitas-nothing"])


def test_what_a_command_reads_is_in_none_of_its_words():
    assert state.run(["cat"], b"canary") == (0, "canary", "")
    with pytest.raises(VolumeError) as caught:
        state.must(state.run, ["grep", "-q", "nothing"], b"canary")
    assert "canary" not in str(caught.value)
