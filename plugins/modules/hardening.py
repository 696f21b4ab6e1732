#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hardening
short_description: Harden what the distribution owns, with a way back
version_added: 0.1.0
description:
  - Changes settings, texts and modes of files that belong to packages, enables PAM profiles, and looks after accounts, in one call.
  - Notes what was there before each change. A topic that is no longer in O(topics) is undone; what somebody has changed since stays.
  - A change of the PAM stacks arms the host's automatic revert first; confirm it with M(civitas.hosting.confirm_access).
author:
  - The founders of civitas.hosting (@civitas-hosting)
attributes:
  check_mode:
    description: Reports what would change and changes nothing. Files that are missing are no error then.
    support: full
  diff_mode:
    description: Shows files before and after.
    support: full
options:
  topics:
    description:
      - From the name of a topic to what it consists of.
      - C(settings) - lines C(KEY value) of files such as C(/etc/login.defs), from path to key to value.
      - C(texts) - whole files, from path to content.
      - C(modes) - modes of files and directories, from path or shell pattern to octal mode in quotes. They are overrides of the package
        manager and outlast upgrades. Links are followed, what does not exist is passed over, an administrator's own override stays.
      - C(pam_profiles) - names of profiles in C(/usr/share/pam-configs) to enable.
      - C(ageing) - C(maximum_days), C(minimum_days) and C(warning_days) of people's passwords. Accounts without a password never age, as
        they would be locked out for a password that nobody has. Not undone.
      - C(lock_empty_passwords) - whether accounts with an empty password are locked. Not undone.
      - C(audit_rules) - whether the rules in C(/etc/audit/rules.d) are loaded when the kernel has others. Nothing is done where it lets
        this host not audit, as in a container.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Harden the host
  civitas.hosting.hardening:
    topics:
      umask:
        settings:
          /etc/login.defs: {UMASK: "027"}
        pam_profiles: [civitas-umask]
      suid:
        modes: {/usr/bin/chfn: "0755"}
"""

RETURN = r"""
changes:
  description: What was done, or would be in check mode, from topic to lines.
  returned: always
  type: dict
  sample: {suid: ["mode of /usr/bin/chfn: 0755"]}
revert_pending:
  description: Whether a change of the way in, of this or of an interrupted run, waits for M(civitas.hosting.confirm_access).
  returned: always
  type: bool
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._hardening import Hardening, HardeningError


def main() -> None:
    module = AnsibleModule(argument_spec={"topics": {"type": "dict", "required": True}}, supports_check_mode=True)
    # Messages of commands are parsed.
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}

    def run(command: t.Sequence[str]) -> t.Tuple[int, str, str]:
        # A program that is missing is an answer: in check mode packages are not there yet.
        try:
            return t.cast(t.Tuple[int, str, str], module.run_command(list(command), handle_exceptions=False))
        except OSError as error:
            return 127, "", str(error)

    host = Hardening(run, module.check_mode, arm=_revert.arm)
    try:
        host.apply(module.params["topics"])
        pending = _revert.pending() is not None
    except (HardeningError, _revert.RevertError, OSError) as error:
        module.fail_json(msg=str(error), changes=host.changes)
    for warning in host.warnings:
        module.warn(warning)
    module.exit_json(
        changed=bool(host.changes),
        changes=host.changes,
        revert_pending=pending,
        diff=[{"before_header": path, "after_header": path, "before": old, "after": new} for path, (old, new) in sorted(host.diff.items())],
    )


if __name__ == "__main__":
    main()
