#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: grow_disk
short_description: Grows a mounted file system, and what it lies on, as far as the disk allows
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - From the disk upward, online - partition (the last one on the disk), LUKS, file system (ext4, xfs). Each takes what the one below has
    more, when that is 16 MiB or more.
  - Nothing is moved and nothing shrinks. A logical volume is grown by hand; what lies on it grows then.
attributes:
  check_mode:
    description: Reports what would grow, and changes nothing.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  path:
    description: Where the file system is mounted.
    type: path
    required: true
  passphrase:
    description: Of a volume that is encrypted.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Grow the disk of the system
  civitas.hosting.grow_disk:
    path: /
"""

RETURN = r"""
grown:
  description: What grew, or would grow.
  returned: success
  type: list
  elements: str
  sample: ["crypt /dev/mapper/civitas-data: 304 MiB -> 496 MiB", "ext4 /dev/dm-0: 304 MiB -> 496 MiB"]
notes:
  description: Why something did not that has room.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_grow
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import VolumeError


def main() -> None:
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "passphrase": {"type": "str", "default": "", "no_log": True}},
        supports_check_mode=True,
    )
    try:
        outcome = _volume_grow.grow(module.params["path"], module.params["passphrase"].encode(), module.check_mode)
    except (VolumeError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=outcome.changed, grown=outcome.lines, notes=outcome.notes)


if __name__ == "__main__":
    main()
