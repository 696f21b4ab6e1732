#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: system_trust
short_description: Makes a host trust authorities beside those of its distribution
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Keeps one directory below C(/usr/local/share/ca-certificates) and runs C(update-ca-certificates) when the system's bundle is not in step
    with it, whichever run left it so.
attributes:
  check_mode:
    description: Predicts whether the trust would change.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
options:
  certificates:
    description: The authorities to trust, one certificate in PEM each. One that is taken out of the list is no longer trusted.
    type: list
    elements: str
    required: true
  directory:
    description: Name of the directory. It holds nothing else.
    type: str
    default: civitas
  package_follows:
    description: Whether the package C(ca-certificates) may be installed after this task; it brings the bundle up to date then itself.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Trust the authority of an inspecting proxy
  civitas.hosting.system_trust:
    certificates: ["{{ lookup('ansible.builtin.file', 'proxy.pem') }}"]
"""

RETURN = r"""
# Nothing but what all modules return.
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._system_trust import SystemTrust, TrustError


def main():
    module = AnsibleModule(
        argument_spec={
            "certificates": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "str", "default": "civitas"},
            "package_follows": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", params["directory"]):
        module.fail_json(msg=f"directory: {params['directory']!r} is no name; write lower-case letters, digits and hyphens")
    for pem in params["certificates"]:
        if not re.fullmatch(r"\s*-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*", pem):
            module.fail_json(msg="certificates: each item must be one certificate in PEM, with nothing around it")
    certificates = [pem.strip() + "\n" for pem in params["certificates"]]
    try:
        changed = SystemTrust(params["directory"]).apply(certificates, module.check_mode, params["package_follows"])
    except (TrustError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
