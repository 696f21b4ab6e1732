#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_rules
short_description: Put the declared firewall of a host in force
version_added: 0.1.0
description:
  - Makes the table C(inet civitas) of nftables from what may reach the host and what it may reach, and replaces it as a whole or not at
    all. Other tables are not touched.
  - Compares the table that is in force with the declared one, so that one that was flushed or changed by others is repaired as well.
  - Refuses rules that would end the way in, such as when the address that the connection in use comes from is not an administrator's.
  - Arms the host's automatic revert before a change; M(civitas.hosting.confirm_access) disarms it over a new connection.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Judges the rules, by nft too where there were rules before, and changes nothing.
    support: full
  diff_mode:
    description: Shows the rules before and after.
    support: full
options:
  ports:
    description: What listens and who may reach it, items of the kind C(ports) of the collection's declarations.
    type: list
    elements: dict
    required: true
  admin_networks:
    description: Networks that reach what is from V(admin).
    type: list
    elements: str
    required: true
  peers:
    description: Addresses that reach what is from V(cluster).
    type: list
    elements: str
    default: []
  monitoring:
    description: Addresses that reach what is from V(monitoring).
    type: list
    elements: str
    default: []
  public_networks:
    description: Networks that reach what is from V(public).
    type: list
    elements: str
    default: ["0.0.0.0/0", "::/0"]
  container_interfaces:
    description: Interfaces that containers are behind; a final C(*) stands for any ending.
    type: list
    elements: str
    default: []
  ssh_port:
    description:
      - The port of SSH, which must be among O(ports).
      - While the connection in use comes to another one, as before SSH is moved, both are open to O(admin_networks), with a warning.
    type: int
    default: 22
  egress:
    description:
      - What host and containers may reach. C(mode) is V(open) or V(restricted), which needs C(destinations), and C(resolvers) and
        C(resolver_addresses) where destinations are names.
    type: dict
    default: {mode: open}
  log_drops:
    description: Whether dropped packets are logged, at most five in a second.
    type: bool
    default: true
  other_firewalls:
    description: Whether another firewall on the host is an error or only a warning.
    type: str
    choices: [refuse, accept]
    default: refuse
  revert_seconds:
    description: Seconds after which the host goes back unless the change was confirmed.
    type: int
    default: 90
notes:
  - The rules are kept in C(/etc/civitas/firewall.nft), for the boot.
  - Needs nftables on the host; in check mode it may be missing.
"""

EXAMPLES = r"""
- name: Let administrators in by SSH, and everybody to the sites
  civitas.hosting.firewall_rules:
    ports:
      - {name: ssh, port: 22, protocol: tcp, addresses: ["0.0.0.0", "::"], from: admin}
      - {name: https, port: 443, protocol: tcp, addresses: ["0.0.0.0", "::"], from: public}
    admin_networks: [192.0.2.0/24]
    container_interfaces: [docker0, "br-*"]
  register: rules

- name: Prove over a new connection that the way in is open
  civitas.hosting.confirm_access:
  when: rules.revert_pending
"""

RETURN = r"""
drift:
  description: How the table in force differed from the one that was loaded last; empty when it did not.
  returned: success
  type: str
  sample: the table inet civitas is gone
revert_pending:
  description: Whether a change waits for its confirmation, of this run or of one that was cut off.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_run import FirewallRefused, run


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "dict", "required": True},
            "admin_networks": {"type": "list", "elements": "str", "required": True},
            "peers": {"type": "list", "elements": "str", "default": []},
            "monitoring": {"type": "list", "elements": "str", "default": []},
            "public_networks": {"type": "list", "elements": "str", "default": ["0.0.0.0/0", "::/0"]},
            "container_interfaces": {"type": "list", "elements": "str", "default": []},
            "ssh_port": {"type": "int", "default": 22},
            "egress": {"type": "dict", "default": {"mode": "open"}},
            "log_drops": {"type": "bool", "default": True},
            "other_firewalls": {"type": "str", "choices": ["refuse", "accept"], "default": "refuse"},
            "revert_seconds": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    try:
        outcome = run(module.params, module.check_mode)
    except FirewallRefused as error:
        module.fail_json(msg=str(error))
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(changed=outcome.changed, drift=outcome.drift, revert_pending=outcome.revert_pending, diff=outcome.diff)


if __name__ == "__main__":
    main()
