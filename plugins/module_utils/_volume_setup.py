# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a device the data volume: encrypted, opened, with a file system. Nothing is ever written over what a device holds.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import json
import os
import stat
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import NAME, Binding, Device, Luks, Run, VolumeError, must

# A header is brought to the controller whole, so it is no larger than need be: room for a dozen key slots.
_SLOTS_BYTES = 4 * state.MEBIBYTE
# Whoever opens it has this much free memory, also on a host of 1 GB; the passphrase is a random one.
_PBKDF_KIBIBYTES = 262144
_RUNBOOK = "docs/runbooks/data_volume.md"
FILE_SYSTEMS = ("ext4", "xfs")
ENCRYPTIONS = ("none", "operator", "tang", "tpm2")


class Wanted(t.NamedTuple):
    """The volume as it shall be.

    Attributes:
        device: a stable path, or C(UUID=...) and the like.
        encryption: one of C(ENCRYPTIONS).
        filesystem: one of C(FILE_SYSTEMS).
        initialize: whether an empty device may be made the volume.
        passphrase: opens the volume, whatever else does.
        tang: C({url, thumbprint}) of servers.
        threshold: how many of them must answer.
        pcrs: registers of the TPM that must be as they are now, such as C("7").
        recorded: UUID of the file system that this host had; empty when it had none.
        headers: file names of the backups of headers that the controller has of this host.
    """

    device: str
    encryption: str
    filesystem: str = "ext4"
    initialize: bool = False
    passphrase: bytes = b""
    tang: t.Sequence[t.Mapping[str, str]] = ()
    threshold: int = 1
    pcrs: str = "7"
    recorded: str = ""
    headers: t.Sequence[str] = ()

    @property
    def encrypted(self) -> bool:
        return self.encryption != "none"

    @property
    def by_name(self) -> bool:
        """Whether what is meant is a content and not a place."""
        return self.device.startswith(("UUID=", "LABEL=", "/dev/disk/by-uuid/", "/dev/disk/by-label/"))

    @property
    def binding(self) -> t.Optional[Binding]:
        if self.encryption == "tang":
            return Binding("tang", tuple(sorted(server["url"].rstrip("/") for server in self.tang)), self.threshold)
        return Binding("tpm2") if self.encryption == "tpm2" else None


class Outcome(t.NamedTuple):
    """What was done, or would be.

    Attributes:
        steps: for people, in order.
        source: what is mounted, such as /dev/mapper/civitas-data.
        uuid: of the file system; empty in check mode while there is none.
        luks: UUID of the header; empty when there is none.
        header: name and content of a header that the controller has no backup of, or nothing.
    """

    steps: t.List[str]
    source: str
    uuid: str
    luks: str
    header: t.Optional[t.Tuple[str, bytes]]


def find(written: str, runner: Run = state.run) -> str:
    """The node of a device. Raises VolumeError with the empty disks of the host when it is not there."""
    path = state.device_path(written)
    try:
        if stat.S_ISBLK(os.stat(path).st_mode):
            return os.path.realpath(path)
    except OSError:
        pass
    raise VolumeError(f"there is no block device {written} on this host. {_offers(runner)}")


def _offers(runner: Run) -> str:
    done = runner(["lsblk", "--json", "--bytes", "--paths", "--output", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINTS"], b"")
    try:
        listed = json.loads(done.out)["blockdevices"]
    except (ValueError, KeyError):
        return "Attach it, or correct device"
    empty = [
        str(each["name"])
        for each in listed
        if each["type"] == "disk" and not each.get("children") and not each["fstype"] and not any(each.get("mountpoints") or [])
    ]
    names = [stable_name(node) for node in empty if not node.startswith(("/dev/zram", "/dev/ram", "/dev/nbd"))]
    return f"Disks without anything on them: {', '.join(sorted(names)) or 'none'}"


def stable_name(node: str, directory: str = "/dev/disk/by-id") -> str:
    """A path that leads to the same disk after a restart as well, if there is one."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return node
    return next((f"{directory}/{name}" for name in names if os.path.realpath(f"{directory}/{name}") == node), node)


def judge(wanted: Wanted, device: Device) -> str:
    """What to do with a device: C(make) it the volume, or C(use) it as the one it is. Raises VolumeError for everything else."""
    place = f"{wanted.device} ({device.node})"
    luks = [each for each in device.signatures if each.kind == "crypto_LUKS"]
    systems = [each for each in device.signatures if each.kind in FILE_SYSTEMS]
    ours = [each for each in luks + systems if each.label == NAME or wanted.by_name]
    if device.read_only:
        raise VolumeError(f"{place} takes no writes; attach it writable")
    strangers = [child for child in device.children if child.node != state.MAPPING]
    if len(device.signatures) == 1 and ours and not strangers:
        if bool(luks) != wanted.encrypted:
            raise VolumeError(
                f"{place} is {'encrypted' if luks else 'not encrypted'}, and encryption asks for {wanted.encryption}. "
                f"An existing volume is not converted: write {'by: operator, tang or tpm2' if luks else '{}'}, "
                f"or move the data to a new one as {_RUNBOOK} says"
            )
        if systems and systems[0].kind != wanted.filesystem:
            raise VolumeError(f"{place} has the file system {systems[0].kind}; write filesystem: {systems[0].kind}")
        return "use"
    if (wanted.recorded or wanted.headers) and not (device.signatures or device.children or device.mountpoints):
        known = f"the file system {wanted.recorded}" if wanted.recorded else f"an encrypted volume ({wanted.headers[0]})"
        raise VolumeError(
            f"{place} has neither header nor file system, and this host had {known}. When its header was lost, bring back the backup; "
            f"when the disk is a new one, make the host forget the old one. Both as {_RUNBOOK} says"
        )
    if not device.blank or device.mountpoints:
        used = f", mounted at {', '.join(device.mountpoints)}" if device.mountpoints else ""
        advice = (
            f"write device: UUID={systems[0].uuid} to use it with what it holds"
            if len(device.signatures) == 1 and systems and not wanted.encrypted
            else "name an empty disk"
        )
        raise VolumeError(
            f"{place} holds {device.contents}{used}, and is not touched: {advice}. "
            f"When nobody needs what is on it, empty it by hand as {_RUNBOOK} says"
        )
    if not wanted.initialize:
        raise VolumeError(f"{place} is empty ({device.size // state.MEBIBYTE} MiB). Write initialize: true to make it the volume")
    if wanted.by_name:
        raise VolumeError(f"{place} holds nothing of that name; name the disk, such as /dev/disk/by-id/...")
    return "make"


def prepare(wanted: Wanted, check: bool = False, runner: Run = state.run) -> Outcome:
    """Bring a device into the state wanted. Raises VolumeError, OSError."""
    outcome = _prepare(wanted, check, runner)
    if wanted.recorded and outcome.uuid != wanted.recorded:
        raise VolumeError(
            f"{wanted.device} has the file system {outcome.uuid or 'none'}, and this host knows "
            f"{wanted.recorded}: it is another disk. "
            f"When that is meant, make the host forget the old one as {_RUNBOOK} says"
        )
    return outcome


def _prepare(wanted: Wanted, check: bool, runner: Run) -> Outcome:
    node = find(wanted.device, runner)
    device = state.read_device(node, runner)
    steps: t.List[str] = []
    make = judge(wanted, device) == "make"
    if not wanted.encrypted:
        return _plain(wanted, device, make, steps, check, runner)
    if not wanted.passphrase:
        raise VolumeError("encryption has no passphrase; an encrypted volume has one, whatever else opens it")
    if make:
        steps.append(f"encrypt {node}")
        if check:
            more = [
                "open it",
                f"make a file system {wanted.filesystem}",
                *([f"let it open by {wanted.encryption}"] if wanted.binding else []),
            ]
            return Outcome([*steps, *more, "back up its header"], state.MAPPING, "", "", None)
        _encrypt(node, wanted.passphrase, runner)
        device = state.read_device(node, runner)
    luks = state.read_luks(device, runner)
    uuid = _open(wanted, device, luks, steps, check, runner)
    luks = _bind(wanted, device, luks, steps, check, runner)
    content = state.read_header(node, luks)
    name = state.header_name(luks, content)
    header = None if name in wanted.headers else (name, content)
    if header:
        steps.append("back up its header")
    return Outcome(steps, state.MAPPING, uuid, luks.uuid, None if check else header)


def _plain(wanted: Wanted, device: Device, make: bool, steps: t.List[str], check: bool, runner: Run) -> Outcome:
    if make:
        steps.append(f"make a file system {wanted.filesystem} on {device.node}")
        if not check:
            _make_file_system(device.node, wanted.filesystem, runner)
            device = state.read_device(device.node, runner)
    uuid = next((each.uuid for each in device.signatures), "")
    return Outcome(steps, f"/dev/disk/by-uuid/{uuid}" if uuid else device.node, uuid, "", None)


def _encrypt(node: str, passphrase: bytes, runner: Run) -> None:
    words = ["cryptsetup", "luksFormat", "--type", "luks2", "--batch-mode", "--label", NAME, "--pbkdf-memory", str(_PBKDF_KIBIBYTES)]
    must(runner, [*words, "--luks2-keyslots-size", str(_SLOTS_BYTES), "--key-file", "-", node], passphrase)


def open_mapping(node: str, passphrase: bytes, runner: Run = state.run) -> None:
    """Open a volume. Raises VolumeError."""
    done = runner(["cryptsetup", "open", "--type", "luks2", "--key-file", "-", node, NAME], passphrase)
    if done.status == 2:
        raise VolumeError(f"the passphrase does not open {node}; nothing was changed")
    if done.status != 0:
        raise VolumeError(f"{node} cannot be opened: {' '.join(done.err.split())[:300]}")
    settle(runner)


def settle(runner: Run = state.run) -> None:
    """Wait until the links of devices are there."""
    runner(["udevadm", "settle", "--timeout", "60"], b"")


def _open(wanted: Wanted, device: Device, luks: Luks, steps: t.List[str], check: bool, runner: Run) -> str:
    """Open a volume and make its file system when it has none; returns the UUID of that."""
    behind = state.mapped_on()
    if behind and behind != luks.uuid:
        raise VolumeError(f"{state.MAPPING} is open already, and is the volume {behind} and not {luks.uuid} on {device.node}")
    if not behind:
        steps.append(f"open {device.node}")
        if check:
            return wanted.recorded
        open_mapping(device.node, wanted.passphrase, runner)
    else:
        # Else nobody would know before the next restart.
        done = runner(["cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", "-", device.node], wanted.passphrase)
        if done.status != 0:
            raise VolumeError(
                f"the volume is open, but its passphrase in the secrets file does not open {device.node}; after a restart nobody could. "
                f"Correct it; {_RUNBOOK} says how to set another one while the volume is open"
            )
    inner = state.read_device(state.MAPPING, runner)
    systems = [each for each in inner.signatures if each.kind in FILE_SYSTEMS]
    if len(inner.signatures) == 1 and systems:
        if systems[0].kind != wanted.filesystem:
            raise VolumeError(f"the volume has the file system {systems[0].kind}; write filesystem: {systems[0].kind}")
        return systems[0].uuid
    # A run that was cut off leaves a header that is ours and nothing behind it. There the zeros of the disk look like noise.
    known = wanted.recorded or any(name.startswith(luks.uuid) for name in wanted.headers)
    if inner.signatures or inner.children or luks.label != NAME or known:
        raise VolumeError(f"{device.node} opens, and holds {inner.contents} in place of a file system; nothing was changed")
    steps.append(f"make a file system {wanted.filesystem}")
    if check:
        return ""
    _make_file_system(state.MAPPING, wanted.filesystem, runner)
    return next((each.uuid for each in state.read_device(state.MAPPING, runner).signatures), "")


def _make_file_system(node: str, kind: str, runner: Run) -> None:
    words = ["mkfs.ext4", "-q", "-L", NAME, node] if kind == "ext4" else ["mkfs.xfs", "-q", "-L", NAME, node]
    must(runner, words)
    settle(runner)


def _bind(wanted: Wanted, device: Device, luks: Luks, steps: t.List[str], check: bool, runner: Run) -> Luks:
    """Let it open by what is wanted, and by nothing else that clevis made."""
    keep = wanted.binding
    foreign = [each for each in luks.bindings if each.pin in ("tang", "tpm2") and not (keep and each.same(keep))]
    missing = keep is not None and not any(each.same(keep) for each in luks.bindings)
    if missing:
        steps.append(f"let it open by {wanted.encryption}")
        if not check:
            _add_binding(wanted, device.node, runner)
    for binding in foreign:
        steps.append(f"let it not open by {binding.pin} {' '.join(binding.servers)}".rstrip())
        if not check:
            must(runner, ["clevis", "luks", "unbind", "-d", device.node, "-s", binding.slot, "-f"])
    if check or not (missing or foreign):
        return luks
    return state.read_luks(state.read_device(device.node, runner), runner)


def clevis_config(wanted: Wanted) -> t.Tuple[str, str]:
    """Pin and configuration for clevis."""
    if wanted.encryption == "tpm2":
        return "tpm2", json.dumps({"pcr_bank": "sha256", "pcr_ids": wanted.pcrs} if wanted.pcrs else {})
    servers = [{"url": server["url"].rstrip("/"), "thp": server["thumbprint"]} for server in wanted.tang]
    if len(servers) == 1:
        return "tang", json.dumps(servers[0])
    return "sss", json.dumps({"t": wanted.threshold, "pins": {"tang": servers}})


def _add_binding(wanted: Wanted, node: str, runner: Run) -> None:
    pin, config = clevis_config(wanted)
    done = runner(["clevis", "luks", "bind", "-f", "-y", "-k", "-", "-d", node, pin, config], wanted.passphrase)
    if done.status != 0:
        raise VolumeError(
            f"clevis cannot let {node} open by {wanted.encryption}: {' '.join((done.err or done.out).split())[:300]}. "
            "The volume is as it was"
        )


def open_by_itself(node: str, runner: Run = state.run) -> None:
    """Open a volume by its binding. Raises VolumeError."""
    done = runner(["clevis", "luks", "unlock", "-d", node, "-n", NAME], b"")
    if done.status != 0:
        raise VolumeError(f"{node} does not open by itself: {' '.join((done.err or done.out).split())[:300]}")
    settle(runner)
