#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_signing
short_description: The DKIM key of a host, which signs once the DNS has its record
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Makes the key of a selector (RSA, 2048 bits) on the host when it is not there. It never leaves the host.
  - Asks the name servers of the host for its record. When it is there with this key, the key signs from then on. The keys of other
    selectors are removed then; until then the one that signed goes on.
  - What signs is never switched off by what the DNS says, or does not say, later.
  - C(civitas-mail watch) does the last two by itself every two minutes.
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Nothing is shown, since keys are secret.
    support: none
options:
  domain:
    description: The domain that signs (d=).
    type: str
    required: true
  selector:
    description: The name of the key (s=). Another host must not have the same one.
    type: str
    required: true
notes:
  - The directory C(/var/lib/civitas/dkim) and the account C(opendkim) must be there.
"""

EXAMPLES = r"""
- name: Make the key, and sign with it once its record is published
  civitas.hosting.mail_signing:
    domain: example.org
    selector: registry1-server1
  register: signing

- name: Show what to publish
  ansible.builtin.debug:
    msg: "{{ signing.record }}"
  when: not signing.published
"""

RETURN = r"""
name:
  description: The name of the record.
  returned: always
  type: str
  sample: registry1-server1._domainkey.example.org
record:
  description: The record to publish, as it stands in a zone file. Empty in check mode while there is no key.
  returned: always
  type: str
signs:
  description: The name of the record whose key signs now; empty when mail leaves unsigned.
  returned: always
  type: str
published:
  description: Whether the DNS has the record with this key.
  returned: always
  type: bool
summary:
  description: All that in a sentence.
  returned: always
  type: str
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _mail_signing as signing


def main() -> None:
    module = AnsibleModule(
        argument_spec={"domain": {"type": "str", "required": True}, "selector": {"type": "str", "required": True}},
        supports_check_mode=True,
    )
    store = signing.Store()
    wanted = signing.record_name(module.params["domain"], module.params["selector"])
    try:
        made = signing.prepare(store, wanted, module.check_mode)
        if module.check_mode and made:
            module.exit_json(changed=True, name=wanted, record="", signs=store.signs(), published=False, summary="a key would be made")
        seen = signing.look(store, wanted, time.time(), always=True, remember=not module.check_mode)
        switched = signing.settle(store, wanted, seen.answer, signing.reload_signer, module.check_mode)
        if switched and not module.check_mode:
            store.remember(time.time(), wanted, seen.answer)
    except (signing.SigningError, OSError) as error:
        module.fail_json(msg=f"the key of {wanted}: {error}")
    # The role starts the signer later.
    seen = seen._replace(signs=store.signs(), running=True)
    module.exit_json(
        changed=made or switched,
        name=wanted,
        record=signing.zone_line(wanted, signing.record_value(seen.public_key)),
        signs=seen.signs,
        published=seen.answer.state == "published",
        summary=signing.summary(seen),
    )


if __name__ == "__main__":
    main()
