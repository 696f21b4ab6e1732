# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a block device holds, as lsblk, wipefs and cryptsetup tell it.

Private to the collection: no promise of stability. Standard library only. Changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import subprocess
import typing as t

# Name of the mapping, of the header and of the file system.
NAME = "civitas-data"
MAPPING = f"/dev/mapper/{NAME}"
CONFIG = "/etc/civitas/data.json"
OPEN_UNIT = "civitas-data-open.service"
# In the root of the volume, and while it is made. Backups leave it out, restores leave it where it is.
SWAP_FILE = ".civitas-swap"
SWAP_NEW = f"{SWAP_FILE}.new"
MEBIBYTE = 1 << 20

_BY = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
_SWAPS = (f"/{SWAP_FILE}".encode(), f"/{SWAP_NEW}".encode())
_SIZE = re.compile(r"([1-9][0-9]{0,5})([MG])")
_LUKS_MAGIC = b"LUKS\xba\xbe"
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


class VolumeError(Exception):
    """The volume is not as it must be, or a program failed; the text says what to do and holds no secret."""


class Done(t.NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


# A command and what it reads; programs of the host, and in tests what they said there.
Run = t.Callable[[t.Sequence[str], bytes], Done]


def run(command: t.Sequence[str], given: bytes = b"") -> Done:
    """Run a command that reads C(given). One that is not installed ends with status 127."""
    try:
        done = subprocess.run(list(command), input=given, capture_output=True, check=False, timeout=600, env=_ENVIRONMENT)
    except FileNotFoundError:
        return Done(127, "", f"{command[0]} is not installed")
    except subprocess.TimeoutExpired:
        return Done(124, "", f"{command[0]} did not end within ten minutes")
    return Done(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


def must(runner: Run, command: t.Sequence[str], given: bytes = b"") -> str:
    """The output of a command. Raises VolumeError with what it said."""
    done = runner(command, given)
    if done.status != 0:
        said = " ".join((done.err or done.out).split())[:300]
        raise VolumeError(f"'{' '.join(command[:2])}' ended with status {done.status}: {said}")
    return done.out


def device_path(written: str) -> str:
    """The path of a device that is written as a path or in the way of fstab(5)."""
    kind, separator, value = written.partition("=")
    return f"/dev/disk/{_BY[kind]}/{value}" if separator and kind in _BY else written


def size_of(written: t.Any) -> t.Optional[int]:
    """Bytes of a size such as C(2G) or C(512M); 0 for none, and nothing for what is no size."""
    if isinstance(written, bool) or not isinstance(written, (int, str)):
        return None
    found = _SIZE.fullmatch(str(written))
    return int(found[1]) * (MEBIBYTE << 10 if found[2] == "G" else MEBIBYTE) if found else 0 if str(written) in ("", "0") else None


def is_swap_file(path: bytes) -> bool:
    """Whether a path is the swap of a data volume, which is no data: a file of that name in the root of a file system."""
    return path.endswith(_SWAPS) and os.path.isfile(path) and not os.path.islink(path) and os.path.ismount(os.path.dirname(path))


class Signature(t.NamedTuple):
    """One thing that wipefs finds, such as C(ext4), C(gpt), C(crypto_LUKS)."""

    kind: str
    label: str
    uuid: str


class Binding(t.NamedTuple):
    """What opens a volume by itself.

    Attributes:
        pin: C(tang) or C(tpm2); C(other) for what this collection did not make.
        servers: addresses of the tang servers.
        threshold: how many of them must answer.
        slot: the key slot.
    """

    pin: str
    servers: t.Tuple[str, ...] = ()
    threshold: int = 1
    slot: str = ""

    def same(self, other: Binding) -> bool:
        return self[:3] == other[:3]


class Luks(t.NamedTuple):
    """A LUKS2 header.

    Attributes:
        uuid: of the header.
        label: of the header.
        offset: bytes before the data.
        size: bytes of the header with its key slots.
        slots: names of the key slots in use.
        bindings: what opens it by itself.
    """

    uuid: str
    label: str
    offset: int
    size: int
    slots: t.Tuple[str, ...]
    bindings: t.Tuple[Binding, ...]


class Child(t.NamedTuple):
    """What lies on a device: a partition, a mapping, an array."""

    node: str
    kind: str
    mountpoints: t.Tuple[str, ...]


class Device(t.NamedTuple):
    """A block device.

    Attributes:
        node: such as /dev/vdb.
        kind: C(disk), C(part), C(lvm), C(loop), C(crypt).
        size: bytes.
        read_only: whether it takes no writes.
        mountpoints: where it is mounted.
        children: what lies on it.
        signatures: what wipefs finds on it.
        blank: whether its first and last MiB hold nothing but zeros.
    """

    node: str
    kind: str
    size: int
    read_only: bool
    mountpoints: t.Tuple[str, ...]
    children: t.Tuple[Child, ...]
    signatures: t.Tuple[Signature, ...]
    blank: bool

    @property
    def contents(self) -> str:
        """For people."""
        found = [f"{each.kind} {each.label!r}" if each.label else each.kind for each in self.signatures]
        found += [f"{each.kind} {each.node}" for each in self.children]
        return ", ".join(dict.fromkeys(found)) or ("nothing" if self.blank else "data of an unknown kind")


def parse_lsblk(text: str) -> t.Dict[str, t.Any]:
    """The one device that C(lsblk --json) was asked for. Raises VolumeError."""
    try:
        (found,) = json.loads(text)["blockdevices"]
        return dict(found)
    except (ValueError, KeyError, TypeError) as error:
        raise VolumeError(f"lsblk said what cannot be understood: {text[:200]!r}") from error


def parse_wipefs(text: str) -> t.Tuple[Signature, ...]:
    """What C(wipefs --json) listed; it says nothing at all of an empty device. Raises VolumeError."""
    if not text.strip():
        return ()
    try:
        listed = json.loads(text)["signatures"]
        found = (Signature(str(each["type"]), str(each.get("label") or ""), str(each.get("uuid") or "")) for each in listed)
        # The backup of a partition table is the same table.
        return tuple(dict.fromkeys(found))
    except (ValueError, KeyError, TypeError) as error:
        raise VolumeError(f"wipefs said what cannot be understood: {text[:200]!r}") from error


def _mountpoints(found: t.Mapping[str, t.Any]) -> t.Tuple[str, ...]:
    return tuple(str(point) for point in found.get("mountpoints") or [] if point)


def read_device(node: str, runner: Run = run, blank: t.Optional[t.Callable[[str, int], bool]] = None) -> Device:
    """Read a device that is there. Raises VolumeError, OSError."""
    words = ["lsblk", "--json", "--bytes", "--paths", "--output", "NAME,TYPE,SIZE,RO,MOUNTPOINTS", node]
    found = parse_lsblk(must(runner, words))
    signatures = parse_wipefs(must(runner, ["wipefs", "--no-act", "--json", "--output", "TYPE,LABEL,UUID", node]))
    size = int(found["size"])
    children = tuple(Child(str(each["name"]), str(each["type"]), _mountpoints(each)) for each in found.get("children") or [])
    return Device(
        str(found["name"]),
        str(found["type"]),
        size,
        str(found["ro"]) in ("True", "1"),
        _mountpoints(found),
        children,
        signatures,
        not signatures and not children and (blank or is_blank)(node, size),
    )


def is_blank(node: str, size: int) -> bool:
    """Whether the first and the last MiB are zeros. A volume whose header was lost, or one without any, is not taken for empty."""
    with open(node, "rb") as stream:
        for place in (0, max(0, size - MEBIBYTE)):
            stream.seek(place)
            if stream.read(MEBIBYTE).strip(b"\0"):
                return False
    return True


def read_luks(device: Device, runner: Run = run) -> Luks:
    """Read the header of a device that has one. Raises VolumeError when it is none of LUKS2, or damaged."""
    (signature,) = [each for each in device.signatures if each.kind == "crypto_LUKS"][:1] or [Signature("", "", "")]
    done = runner(["cryptsetup", "luksDump", "--dump-json-metadata", device.node], b"")
    if done.status != 0:
        raise VolumeError(
            f"{device.node} has a header that is none of LUKS2, or is damaged: {' '.join(done.err.split())[:200]}; "
            "docs/runbooks/data_volume.md says how to bring back its backup"
        )
    return parse_luks(done.out, signature.uuid, signature.label)


def parse_luks(text: str, uuid: str, label: str) -> Luks:
    """What C(cryptsetup luksDump --dump-json-metadata) showed. Raises VolumeError."""
    try:
        found = json.loads(text)
        segment = found["segments"]["0"]
        config = found["config"]
        bindings = tuple(
            binding_of(token) for _name, token in sorted(found["tokens"].items()) if str(token.get("type")) not in ("luks2-keyring",)
        )
        size = 2 * (int(config["json_size"]) + 4096) + int(config["keyslots_size"])
        return Luks(uuid, label, int(segment["offset"]), size, tuple(sorted(found["keyslots"], key=int)), bindings)
    except (ValueError, KeyError, TypeError) as error:
        raise VolumeError(f"cryptsetup showed a header that cannot be understood: {error}") from error


def binding_of(token: t.Mapping[str, t.Any]) -> Binding:
    """What a token of a header stands for."""
    slot = str((token.get("keyslots") or [""])[0])
    try:
        if token.get("type") != "clevis":
            return Binding("other", slot=slot)
        return _binding(str(token["jwe"]["protected"]))._replace(slot=slot)
    except (ValueError, KeyError, TypeError, binascii.Error):
        return Binding("other", slot=slot)


def _binding(protected: str) -> Binding:
    """Of the protected header of a JWE that clevis made."""
    told = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))["clevis"]
    pin = told["pin"]
    if pin == "tang":
        return Binding("tang", (str(told["tang"]["url"]).rstrip("/"),))
    if pin == "tpm2":
        return Binding("tpm2")
    if pin == "sss":
        shares = [_binding(str(each).split(".", 1)[0]) for each in told["sss"]["jwe"]]
        if all(share.pin == "tang" for share in shares):
            return Binding("tang", tuple(sorted(server for share in shares for server in share.servers)), int(told["sss"]["t"]))
    return Binding("other")


def header_name(luks: Luks, content: bytes) -> str:
    """File name of the backup of a header; another header has another one."""
    return f"{luks.uuid}-{hashlib.sha256(content).hexdigest()[:16]}.luks2.bak"


def read_header(node: str, luks: Luks) -> bytes:
    """The header with its key slots, as C(cryptsetup luksHeaderBackup) writes it. Raises VolumeError, OSError."""
    with open(node, "rb") as stream:
        content = stream.read(luks.size)
    if len(content) != luks.size or not content.startswith(_LUKS_MAGIC):
        raise VolumeError(f"{node} has no header of {luks.size} bytes")
    return content


def mapped_on(mapping: str = MAPPING) -> str:
    """The UUID of the volume behind a mapping that is open; empty when it is none of LUKS or not open."""
    try:
        with open(f"/sys/class/block/{os.path.basename(os.path.realpath(mapping))}/dm/uuid", encoding="ascii") as file:
            told = file.read().strip()
    except OSError:
        return ""
    found = re.match(r"CRYPT-LUKS2-([0-9a-f]{32})-", told)
    if not found:
        return ""
    plain = found[1]
    return "-".join((plain[:8], plain[8:12], plain[12:16], plain[16:20], plain[20:]))


def mounted(mountinfo: str) -> t.Dict[str, t.Tuple[str, str]]:
    """Mount point -> (number of the device, what is mounted from), of the text of /proc/self/mountinfo; the last one covers others."""
    found = {}
    for line in mountinfo.splitlines():
        words = line.split()
        if len(words) > 9 and "-" in words:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), words[4])
            found[point] = (words[2], words[words.index("-") + 2])
    return found


def read_mounts() -> t.Dict[str, t.Tuple[str, str]]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return mounted(file.read())
