#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume_mounts
short_description: Mounts the data volume and the directories on it, and makes its swap
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Seals each empty mount point first, so that nobody can write beneath while the volume is not mounted, root included (mode 0000,
    C(chattr +i)). One that holds files is refused, and nothing is changed.
  - Makes the directories on the volume, as the packages made them on the disk of the system, and mounts them.
  - Makes the file for swap on an encrypted volume, all of whose blocks are written, and turns it on; replaces one of another size; removes
    it when C(swap_size) is V(0). What memory cannot take back, and what the volume has no room for, is refused before anything is changed.
  - The units that mount must be there; they come from the filter P(civitas.hosting.data_volume_files#filter).
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  config:
    description: What the host knows of its volume, as in C(/etc/civitas/data.json).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Mount the data volume
  civitas.hosting.data_volume_mounts:
    config: "{{ config }}"
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [mount /srv/data, make /srv/data/var/lib/postgresql, mount /var/lib/postgresql, make the swap /srv/data/.civitas-swap of 2048 MiB]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts, _volume_swapfile
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import VolumeError


def main() -> None:
    module = AnsibleModule(argument_spec={"config": {"type": "dict", "required": True}}, supports_check_mode=True)
    try:
        # What waits is started by the roles that configure it.
        config = _volume_mounts.config_of(module.params["config"])
        steps = _volume_mounts.up(config, module.check_mode, start=False).steps
        steps += _volume_swapfile.bring(config, module.check_mode)
    except (VolumeError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
