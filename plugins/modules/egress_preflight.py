#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: egress_preflight
short_description: Judge what a host reaches before its outgoing connections are restricted
version_added: 0.1.0
description:
  - Finds the name servers that the host asks, and judges whether the host's package sources are among what it may reach.
  - Reports all problems at once, each with what to write. Changes nothing.
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: The module never changes anything.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  destinations:
    description:
      - What the host and its containers may reach, as declared; see the role C(civitas.hosting.firewall).
      - For each a name, C(hosts) (names, names that begin with C(*.), addresses or networks), C(ports), C(protocol) and C(from), who may.
      - With C(found) set to V(package_sources) it stands for what apt fetches from, or its proxy, instead of hosts, ports and protocol.
    type: list
    elements: dict
    required: true
  resolvers:
    description: Addresses of the name servers to ask. When empty, those that the host asks already.
    type: list
    elements: str
    default: []
  resolvable:
    description: Names that are answered, with all below them, although they are no destinations. V(*) stands for every name.
    type: list
    elements: str
    default: []
  fill_sets:
    description: Whether the host's dnsmasq can fill sets of nftables, which version 2.87 and later can. Without it there are no wildcards.
    type: bool
    default: true
seealso:
  - module: civitas.hosting.host_preflight
"""

EXAMPLES = r"""
- name: Judge what the host reaches
  civitas.hosting.egress_preflight:
    destinations:
      - {name: packages, hosts: [mirror.example.org], ports: [80], protocol: tcp, from: host, purpose: Packages}
  register: egress
"""

RETURN = r"""
destinations:
  description: The declarations, with the host's package sources in the place of those that are to be found.
  returned: success
  type: list
  elements: dict
resolvers:
  description: Addresses of the name servers.
  returned: success
  type: list
  elements: str
  sample: [192.0.2.53]
resolver_lines:
  description: Lines for dnsmasq, which names it answers and which sets it fills.
  returned: success
  type: list
  elements: str
names:
  description: Declared names without a wildcard, each with the sets that its addresses belong to.
  returned: success
  type: dict
  sample: {mirror.example.org: [egress_host_tcp_80]}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _egress_preflight as preflight
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import (
    EgressError,
    egress_problems,
    grouped,
    name_sets,
    resolver_lines,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "destinations": {"type": "list", "elements": "dict", "required": True},
            "resolvers": {"type": "list", "elements": "str", "default": []},
            "resolvable": {"type": "list", "elements": "str", "default": []},
            "fill_sets": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    destinations = module.params["destinations"]
    resolvers = module.params["resolvers"]
    problems = []
    if not resolvers:
        try:
            resolvers = preflight.name_servers()
        except EgressError as error:
            problems += error.problems
    # That there is no name server was said above, by whoever knows where it was looked for.
    judged = egress_problems({"destinations": destinations, "resolvers": resolvers or None, "resolvable": module.params["resolvable"]})
    problems += judged
    if not judged:
        sources = preflight.package_sources()
        destinations = preflight.with_found(destinations, sources, resolvers)
        # Found as they are, they may still be no names that one could write.
        problems += egress_problems({"destinations": destinations}) + preflight.undeclared(sources, destinations)
    if not problems:
        names = name_sets(grouped(destinations))
        if not module.params["fill_sets"]:
            problems += [
                f"destination {name}: this release's dnsmasq cannot follow wildcards; list the names"
                for name in names
                if name.startswith("*.")
            ]
    if problems:
        module.fail_json(msg="\n".join(problems), problems=problems)
    module.exit_json(
        changed=False,
        destinations=destinations,
        resolvers=resolvers,
        resolver_lines=resolver_lines(destinations, resolvers, module.params["resolvable"], module.params["fill_sets"]),
        names={name: sets for name, sets in names.items() if not name.startswith("*.")},
    )


if __name__ == "__main__":
    main()
