#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume_unlock
short_description: Opens the data volume of a host and starts what waited for it
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Opens the encrypted volume that C(/etc/civitas/data.json) names, mounts it, turns on its swap, and starts the enabled
    services that do not run without it.
  - The passphrase reaches C(cryptsetup) through its standard input.
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  passphrase:
    description: Opens the volume. Not needed when it is open or not encrypted.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Unlock
  civitas.hosting.data_volume_unlock:
    passphrase: "{{ lookup('civitas.hosting.secret', 'data_volume_passphrase', generate=false) }}"
"""

RETURN = r"""
steps:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: [open /dev/vdb, mount /srv/data, mount /var/lib/postgresql, start docker.service]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts, _volume_program
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import VolumeError


def main() -> None:
    module = AnsibleModule(argument_spec={"passphrase": {"type": "str", "default": "", "no_log": True}}, supports_check_mode=True)
    try:
        steps = _volume_program.unlock(_volume_mounts.read_config(), module.params["passphrase"].encode(), module.check_mode)
    except (VolumeError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
