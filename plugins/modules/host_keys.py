#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_keys
short_description: Replaces the SSH host keys of a host without ever being locked out
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - For the day on which somebody else may have a host's private keys. In three steps, O(state), each of which can be repeated.
  - New keys are made on the host, of the kinds that it has; private keys never leave it. On the controller every line of O(known_hosts)
    with an old key of this host gets a line beside it with the new key, so both are accepted.
  - Then the new keys are swapped in with a way back, see M(civitas.hosting.confirm_access), and sshd is asked whether it offers them.
  - At last the lines with the old keys are removed from O(known_hosts), so that nobody can use them against the controller.
options:
  state:
    description:
      - V(staged) makes new keys and lets the controller know them.
      - V(active) brings them into use. M(civitas.hosting.confirm_access) must follow.
      - V(finished) forgets the old ones, here and on the controller.
    type: str
    required: true
    choices: [staged, active, finished]
  known_hosts:
    description:
      - Files of known hosts on the controller. Those that do not exist are left out.
      - When none holds a key of the host, V(staged) refuses, as the controller could not tell the host from an impostor afterwards.
      - An empty list is for hosts that are not reached by SSH.
    type: list
    elements: str
    default: [~/.ssh/known_hosts]
attributes:
  check_mode:
    description: Says what would be done; makes no keys.
    support: full
  diff_mode:
    description: Keys have no text worth comparing.
    support: none
notes:
  - Other machines, and people, keep their own lists of known hosts. Tell them the new fingerprints over a channel they trust.
seealso:
  - module: civitas.hosting.confirm_access
"""

EXAMPLES = r"""
- name: Make new host keys
  civitas.hosting.host_keys:
    state: staged

- name: Bring them into use
  civitas.hosting.host_keys:
    state: active
  register: keys

- name: Prove that the host can still be reached
  civitas.hosting.confirm_access:
  when: keys.revert_pending

- name: Forget the old ones
  civitas.hosting.host_keys:
    state: finished
"""

RETURN = r"""
old:
  description: Public keys that are replaced, C(type base64). With O(state=finished) all that were ever replaced.
  returned: success
  type: list
  elements: str
new:
  description: Public keys that replace them; none in check mode, when they are not made yet.
  returned: success
  type: list
  elements: str
fingerprints:
  description: Fingerprints of RV(new) as C(ssh-keygen -l) shows them.
  returned: success
  type: list
  elements: str
known_hosts_changed:
  description: Files of the controller that were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
revert_pending:
  description: Whether a change waits for M(civitas.hosting.confirm_access).
  returned: success
  type: bool
"""

import base64
import hashlib
import subprocess
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _revert
from ansible_collections.civitas.hosting.plugins.module_utils._host_keys import HostKeyError, HostKeys


def fingerprint(public: str) -> str:
    kind, blob = public.split()
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"


def work(keys: HostKeys, state: str, check_mode: bool) -> t.Dict[str, t.Any]:
    staged = keys.staged() if keys.old() else []
    if state == "staged":
        changed = not staged if check_mode else keys.make()
    elif state == "active":
        changed = keys.public() != staged if check_mode else keys.swap()
        if not check_mode and not keys.is_offered():
            raise HostKeyError("sshd does not offer the new keys after its reload; see 'journalctl -u ssh'. The host goes back by itself")
    else:
        changed = bool(staged) if check_mode else keys.finish()
    finished = state == "finished"
    new = keys.public() if finished else keys.staged()
    return {
        "changed": changed,
        "old": keys.retired() if finished else keys.old() or keys.public(),
        "new": new,
        "fingerprints": [fingerprint(key) for key in new],
        "known_hosts_changed": [],
        "revert_pending": _revert.pending() is not None,
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["staged", "active", "finished"]},
            "known_hosts": {"type": "list", "elements": "str", "default": ["~/.ssh/known_hosts"]},
        },
        supports_check_mode=True,
    )
    shown = subprocess.run(["/usr/sbin/sshd", "-T"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        module.fail_json(msg=f"sshd cannot read its settings: {' '.join(shown.stderr.split())}")
    try:
        result = work(HostKeys(shown.stdout), module.params["state"], module.check_mode)
    except (HostKeyError, _revert.RevertError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
