#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume
short_description: Makes an empty device the data volume of a host, or opens the one it is
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Encrypts an empty device with LUKS2 when that is asked for, opens it, and makes a file system on it. What is there already stays.
  - A device that holds anything else is refused, whatever it is. So is an empty one on a host that had a volume before, as its header may
    be lost.
  - What opens the volume by itself, a tang server or the TPM of the machine, is added to the passphrase and never in its place.
  - A header that the controller has no backup of is brought there, as C(UUID-DIGEST.luks2.bak), readable by its owner only.
  - On a host with an encrypted volume, swap on a disk in the clear is turned off.
attributes:
  check_mode:
    description: Reports what would be done, and changes nothing. What is behind a header that is locked is not known.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  device:
    description: A path that does not change, such as one below C(/dev/disk/by-id), or C(UUID=...), C(LABEL=...).
    type: str
    required: true
  filesystem:
    description: Kind of the file system.
    type: str
    choices: [ext4, xfs]
    default: ext4
  initialize:
    description: Whether an empty device may be made the volume.
    type: bool
    default: false
  encryption:
    description: How it is encrypted; not at all when it is left out.
    type: dict
    suboptions:
      by:
        description: What opens it after a restart.
        type: str
        choices: [operator, tang, tpm2]
        required: true
      passphrase:
        description: Opens it, whatever else does.
        type: str
        required: true
      servers:
        description: Tang servers.
        type: list
        elements: dict
        default: []
        suboptions:
          url:
            description: Address of the server.
            type: str
            required: true
          thumbprint:
            description: Of the key that signs what the server says.
            type: str
            required: true
      threshold:
        description: How many of the servers must answer.
        type: int
        default: 1
      pcrs:
        description: Registers of the TPM that must be as they are now.
        type: str
        default: "7"
  remove_plain_swap:
    description: Whether swap on a disk in the clear is turned off when the volume is encrypted.
    type: bool
    default: true
  header_directory:
    description: Directory on the controller for backups of headers. Required when it is encrypted.
    type: path
  headers:
    description: File names of the backups that are there. Filled in by the action plugin of the same name; not for playbooks.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Make the data volume
  civitas.hosting.data_volume:
    device: /dev/disk/by-id/virtio-data
    initialize: true
    encryption:
      by: operator
      passphrase: "{{ lookup('civitas.hosting.secret', 'data_volume_passphrase') }}"
    header_directory: "{{ inventory_dir }}/luks-headers/{{ inventory_hostname }}"
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [encrypt /dev/vdb, make a file system ext4, back up its header]
source:
  description: What is to be mounted.
  returned: success
  type: str
  sample: /dev/mapper/civitas-data
uuid:
  description: UUID of the file system; empty in check mode while there is none.
  returned: success
  type: str
luks:
  description: UUID of the header; empty when there is none.
  returned: success
  type: str
header_file:
  description: The backup of the header that was written on the controller; empty for none.
  returned: success
  type: str
"""

import base64
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts, _volume_setup, _volume_swap
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import VolumeError

SERVER = {"url": {"type": "str", "required": True}, "thumbprint": {"type": "str", "required": True}}
ENCRYPTION = {
    "by": {"type": "str", "required": True, "choices": ["operator", "tang", "tpm2"]},
    "passphrase": {"type": "str", "required": True, "no_log": True},
    "servers": {"type": "list", "elements": "dict", "default": [], "options": SERVER},
    "threshold": {"type": "int", "default": 1},
    "pcrs": {"type": "str", "default": "7"},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "str", "required": True},
            "filesystem": {"type": "str", "choices": ["ext4", "xfs"], "default": "ext4"},
            "initialize": {"type": "bool", "default": False},
            "encryption": {"type": "dict", "options": ENCRYPTION},
            "remove_plain_swap": {"type": "bool", "default": True},
            "header_directory": {"type": "path"},
            "headers": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    params = module.params
    encryption = params["encryption"] or {}
    if encryption and module.check_mode and shutil.which("cryptsetup") is None:
        module.exit_json(changed=True, steps=["install cryptsetup, and see"], source="", uuid="", luks="")
    wanted = _volume_setup.Wanted(
        params["device"],
        encryption.get("by", "none"),
        params["filesystem"],
        params["initialize"],
        encryption.get("passphrase", "").encode(),
        encryption.get("servers") or [],
        encryption.get("threshold", 1),
        encryption.get("pcrs", "7"),
        _recorded(module),
        params["headers"],
    )
    try:
        outcome = _volume_setup.prepare(wanted, module.check_mode)
        swap = _volume_swap.off(module.check_mode) if encryption and params["remove_plain_swap"] else []
    except (VolumeError, OSError) as error:
        module.fail_json(msg=str(error))
    result = {"source": outcome.source, "uuid": outcome.uuid, "luks": outcome.luks}
    if outcome.header:
        result["header"] = {"name": outcome.header[0], "content": base64.b64encode(outcome.header[1]).decode()}
    module.exit_json(changed=bool(outcome.steps or swap), steps=[*outcome.steps, *swap], **result)


def _recorded(module: AnsibleModule) -> str:
    """The file system that this host had."""
    try:
        return _volume_mounts.read_config().uuid
    except VolumeError as error:
        # One that cannot be read says nothing of what was there.
        if "has no data volume" not in str(error):
            module.fail_json(msg=str(error))
        return ""


if __name__ == "__main__":
    main()
