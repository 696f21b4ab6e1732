#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: second_factors
short_description: Gives people secrets for codes at the SSH login
version_added: 0.1.0
author:
  - The founders of civitas.hosting (@civitas-hosting)
description:
  - Makes a secret for everybody in O(people) who has none, in C(/etc/civitas/second-factor), where only root can read it. One that is there
    is never made again unasked.
  - What the person needs for the authenticator (link, secret, codes for emergencies, QR code as text, PNG and SVG) is encrypted on the host
    to the person's own SSH keys with C(age). Only the ciphertext leaves the host; the action of the same name writes it to O(directory) on
    the controller, as C(NAME.tar.age).
  - An enrolment that did not reach the controller waits on the host, encrypted, and is sent by the next run.
  - Needs the programs C(age) and C(qrencode).
options:
  people:
    description: Who needs a code.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The login.
        type: str
        required: true
      public_keys:
        description: SSH public keys without options. Those of the types ssh-ed25519 and ssh-rsa are encrypted to.
        type: list
        elements: str
        default: []
      age_recipient:
        description: What to encrypt to instead, for people who have other keys only.
        type: str
        default: ""
  host:
    description: What the host is called in the authenticator.
    type: str
    required: true
  directory:
    description: Directory on the controller for the encrypted enrolments of this host. It is made when missing.
    type: path
    required: true
  reset:
    description: Who gets another secret, because the authenticator is lost or was seen by somebody. The old one is of no use at once.
    type: list
    elements: str
    default: []
  revoke:
    description: Whose secret becomes useless without another. That stays until the next O(reset).
    type: list
    elements: str
    default: []
  exclusive:
    description: Whether secrets of people who are not listed are removed.
    type: bool
    default: true
  enrol:
    description: Whether who has no secret gets one unasked. Otherwise only those in O(reset) do, as in a grace window.
    type: bool
    default: true
  acknowledged:
    description: Enrolments that the controller has. Filled in by the action plugin of the same name; not for playbooks.
    type: dict
attributes:
  check_mode:
    description: Reports who would get or lose a secret, and changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Give everybody a second factor
  civitas.hosting.second_factors:
    people: "{{ access_people | civitas.hosting.people }}"
    host: "{{ inventory_hostname }}"
    directory: "{{ inventory_dir }}/enrolment/{{ inventory_hostname }}"

- name: Replace that of a lost telephone
  civitas.hosting.second_factors:
    people: "{{ access_people | civitas.hosting.people }}"
    host: "{{ inventory_hostname }}"
    directory: "{{ inventory_dir }}/enrolment/{{ inventory_hostname }}"
    reset: [ann]
"""

RETURN = r"""
made:
  description: Who got a secret, or would in check mode.
  type: list
  elements: str
  returned: success
reset:
  description: Who got another one.
  type: list
  elements: str
  returned: success
revoked:
  description: Whose secret has become useless.
  type: list
  elements: str
  returned: success
removed:
  description: Whose secret was removed, because they are not listed.
  type: list
  elements: str
  returned: success
without:
  description: Who has no secret.
  type: list
  elements: str
  returned: success
files:
  description: The files that were written on the controller, to be handed to these people.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._second_factors import SecondFactorError, SecondFactors


def main():
    module = AnsibleModule(
        argument_spec={
            "people": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "public_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
                    "age_recipient": {"type": "str", "default": ""},
                },
            },
            "host": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "reset": {"type": "list", "elements": "str", "default": []},
            "revoke": {"type": "list", "elements": "str", "default": []},
            "exclusive": {"type": "bool", "default": True},
            "enrol": {"type": "bool", "default": True},
            "acknowledged": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    params = module.params
    factors = SecondFactors(params["host"])
    try:
        if params["acknowledged"] is not None:
            factors.acknowledge(params["acknowledged"])
            module.exit_json(changed=False)
        outcome = factors.apply(
            params["people"], params["reset"], params["revoke"], params["exclusive"], params["enrol"], module.check_mode
        )
    except (SecondFactorError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=outcome.changed,
        made=outcome.made,
        reset=outcome.reset,
        revoked=outcome.revoked,
        removed=outcome.removed,
        without=outcome.without,
        waiting={name: enrolment._asdict() for name, enrolment in outcome.waiting.items()},
    )


if __name__ == "__main__":
    main()
