#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rotate_user_keys
short_description: Proves that no account of a host has an SSH key of before
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - For the day on which somebody else may have people's private keys. M(civitas.hosting.access_people) replaces the keys; this module notes
    which ones there were, and proves afterwards that none of them is accepted any more.
  - Keys are compared, not files. Another comment or option, or another account, makes no new key.
  - In three steps, O(state), each of which can be repeated. Between them the note stays on the host, so a run that was cut off goes on.
options:
  state:
    description:
      - V(begun) notes the keys that accounts have now, unless that was noted already.
      - V(proven) fails when an account has one of those keys, unless it is one of O(kept).
      - V(finished) forgets the note.
    type: str
    required: true
    choices: [begun, proven, finished]
  kept:
    description: Accounts whose keys may stay, as they were made after the intrusion.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Notes and forgets nothing.
    support: full
  diff_mode:
    description: Keys have no text worth comparing.
    support: none
seealso:
  - module: civitas.hosting.access_people
  - module: civitas.hosting.host_keys
"""

EXAMPLES = r"""
- name: Note which keys people have
  civitas.hosting.rotate_user_keys:
    state: begun

# Here people get new keys.

- name: Prove that none of the old ones is accepted
  civitas.hosting.rotate_user_keys:
    state: proven

- name: Forget the old ones
  civitas.hosting.rotate_user_keys:
    state: finished
"""

RETURN = r"""
since:
  description: When the keys were noted that these are compared with; empty when nothing is noted.
  returned: success
  type: str
same:
  description: Accounts that have a key of before.
  returned: with O(state=proven)
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._user_keys import UserKeyError, UserKeys


def prove(keys: UserKeys, kept: t.Sequence[str]) -> t.List[str]:
    same = keys.same()
    left = [account for account in same if account not in kept]
    if left:
        raise UserKeyError(
            f"these accounts have keys that were accepted before {keys.since()}: {', '.join(left)}. Get a new public key from each, write "
            "it into the inventory instead of the old one, and run this again. Those that were made after the intrusion may stay: "
            "-e kept_keys=NAME,NAME"
        )
    return same


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["begun", "proven", "finished"]},
            "kept": {"type": "list", "elements": "str", "default": [], "no_log": False},
        },
        supports_check_mode=True,
    )
    keys = UserKeys()
    result: t.Dict[str, t.Any] = {"changed": False}
    try:
        if module.params["state"] == "begun":
            result["changed"] = keys.begin(module.check_mode)
        elif module.params["state"] == "proven":
            result["same"] = prove(keys, module.params["kept"])
        else:
            result["changed"] = keys.finish(module.check_mode)
        result["since"] = keys.since()
    except (UserKeyError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
