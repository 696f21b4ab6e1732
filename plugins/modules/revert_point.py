#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: revert_point
short_description: Tells, confirms or takes back the changes to the way in that a host would take back by itself
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Modules that change SSH, PAM, firewall or network note on the host what was there before. The host goes back to it by itself within 120
    seconds, unless the change is confirmed.
  - To confirm a change use M(civitas.hosting.confirm_access), which does so over a new connection; over an old one it proves nothing.
  - On the host itself, without Ansible, the same is had by C(/usr/bin/python3 /usr/local/lib/civitas/revert.py status) and C(restore).
attributes:
  check_mode:
    description: Neither confirms nor takes back, and says what would be.
    support: full
  diff_mode:
    description: There is no text to compare.
    support: none
options:
  state:
    description:
      - V(status) changes nothing.
      - V(confirmed) lets the changes stay.
      - V(restored) takes them back now.
    type: str
    choices: [status, confirmed, restored]
    default: status
"""

EXAMPLES = r"""
- name: Look whether the host waits for a confirmation
  civitas.hosting.revert_point:

- name: Take the changes of an interrupted run back without waiting
  civitas.hosting.revert_point:
    state: restored
"""

RETURN = r"""
pending:
  description: What waits now. Nothing when there is nothing.
  returned: always
  type: dict
  contains:
    id: {description: Name of the log., type: str}
    since: {description: Time of the first change., type: str}
    seconds_left: {description: Time until the host goes back., type: int}
    restoring: {description: Whether it is going back at this moment., type: bool}
    paths: {description: Files and directories that are noted., type: list, elements: str}
    tables: {description: Tables of nftables that are noted., type: list, elements: str}
    sysctls: {description: Kernel parameters that are noted., type: list, elements: str}
confirmed:
  description: What was confirmed, in the form of RV(pending). Nothing when nothing waited.
  returned: when O(state=confirmed)
  type: dict
reverted:
  description:
    - The report, in the form of RV(last), of a change that the host took back before it was confirmed. It is given once, and stays until
      then, also when a later change is confirmed.
  returned: when O(state=confirmed)
  type: dict
last:
  description: How the last change ended. Nothing when there was none.
  returned: always
  type: dict
  contains:
    id: {description: Name of the log., type: str}
    outcome: {description: "V(confirmed), V(restored), or V(failed) when something could not be put back.", type: str}
    since: {description: Time of the first change., type: str}
    at: {description: Time of the end., type: str}
    time: {description: The same in seconds., type: float}
    seconds_ago: {description: Time since then., type: int}
    why: {description: Reason of the end., type: str}
    restored: {description: What was put back., type: list, elements: str}
    problems: {description: What could not be put back., type: list, elements: str}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._revert import Revert, RevertError


def main() -> None:
    module = AnsibleModule(
        argument_spec={"state": {"type": "str", "choices": ["status", "confirmed", "restored"], "default": "status"}},
        supports_check_mode=True,
    )
    state = module.params["state"]
    log = Revert()
    result: t.Dict[str, t.Any] = {"changed": False}
    try:
        found = log.pending()
        if state == "confirmed":
            going_back = found is not None and found["restoring"]
            result["confirmed"] = None if going_back else found if module.check_mode else log.confirm()
            result["reverted"] = None if going_back or module.check_mode else log.unheard()
            result["changed"] = result["confirmed"] is not None
        elif state == "restored":
            result["changed"] = found is not None if module.check_mode else log.restore("asked for") is not None
            if result["changed"] and not module.check_mode:
                # Who asks need not be told later.
                log.unheard()
        result.update(pending=log.pending(), last=log.last())
    except (RevertError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
