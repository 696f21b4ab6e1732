#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_checks
short_description: Proves what a host promises, without changing it
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Runs a list of read-only checks on a host in one call and reports each with its evidence.
  - The checks usually come from the lookup P(civitas.hosting.declarations#lookup) with the kind V(checks).
attributes:
  check_mode:
    description: Can run in check mode; the module never changes the host.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
options:
  checks:
    description:
      - Checks with V(id), V(title), V(type), V(remedy) (what to do when it fails), optionally V(timeout) in seconds, and the keys of their
        type.
      - V(service) - V(units) are active and, unless V(enabled) is V(false), enabled.
      - V(no_failed_units) - no systemd unit has failed.
      - V(command) - V(command) (a list) exits with V(rc) (0) and its output, without the white space around it, matches the
        regular expression V(stdout).
      - V(tcp_listen) - V(port) answers on all V(addresses).
      - V(http) - V(url) answers with V(status) and a body that matches V(body); V(ca_file) is the trust store, V(connect_to) the address.
      - V(certificate) - the server on V(address) and V(port) presents for V(server_name) exactly the first certificate in V(file). It is
        valid for V(minimum_days) (14) more days and verifies against the trust store V(ca_file) (the system's unless given). A service
        that did not load a renewed certificate fails. With V(starttls) as V(smtp) or V(postgres), TLS is asked for in their way.
      - V(exposure) - only V(ports) (declarations) listen beyond loopback; ports that containers publish are included. UDP sockets from
        which the processes of V(clients) (declarations) ask are none of them.
      - V(containers) - all containers of the compose project V(project) run and are healthy; V(services) all have one.
      - V(postgres) - the server on V(port) takes writes and has V(databases).
      - V(file) - V(path) exists and has V(mode), V(owner), V(group).
      - V(hardening) - all is as the module M(civitas.hosting.hardening) with these V(topics) leaves it.
      - V(suid) - no program but those that match the patterns V(allowed) runs with the rights of another user or group.
      - V(accounts) - no account has an empty password, only root has the number 0, and only the V(allowed) system accounts have a shell.
      - V(audit) - the kernel has audit rules with V(key). In a container it cannot.
      - V(apparmor) - profiles of AppArmor are loaded. In a container they are its host's.
      - V(release) - the release gets security updates for V(minimum_days) more days.
    type: list
    elements: dict
    required: true
  fail:
    description: Whether the task fails when a check does.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Prove what the roles declare
  civitas.hosting.host_checks:
    checks: "{{ lookup('civitas.hosting.declarations', 'base', 'nginx', kind='checks') }}"
    fail: true
"""

RETURN = r"""
checks:
  description: One result per check.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: Identifier of the check.
      type: str
      returned: always
    title:
      description: What is checked.
      type: str
      returned: always
    role:
      description: The role that declared it.
      type: str
      returned: always
    ok:
      description: Whether the host passed.
      type: bool
      returned: always
    evidence:
      description: What was seen.
      type: str
      returned: always
    remedy:
      description: What to do when it fails.
      type: str
      returned: always
    seconds:
      description: How long the check took.
      type: float
      returned: always
failed_checks:
  description: The identifiers of the checks that failed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._host_checks import CheckError, run_checks


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checks": {"type": "list", "elements": "dict", "required": True},
            "fail": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    try:
        results = run_checks(module.params["checks"])
    except CheckError as error:
        module.fail_json(msg=str(error))
    failed = [result for result in results if not result["ok"]]
    outcome = {"changed": False, "checks": results, "failed_checks": [result["id"] for result in failed]}
    if failed and module.params["fail"]:
        lines = [f"{result['id']}: {result['evidence']} -> {result['remedy']}" for result in failed]
        module.fail_json(msg=f"{len(failed)} of {len(results)} checks failed: " + " | ".join(lines), **outcome)
    module.exit_json(**outcome)


if __name__ == "__main__":
    main()
