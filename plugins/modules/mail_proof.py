#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mail_proof
short_description: Proves that mail of a domain is believed and arrives
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Looks at all that receivers judge mail by, SPF, DKIM, DMARC, reverse names and the domain of the return address, and tells what is wrong
    with the DNS record to write.
  - Looks from the host whether its smarthost offers TLS that verifies; sends a message through the host's own relay and finds it in a
    mailbox.
  - That a name server failed or was silent is told as such (V(unknown)), and never as a missing record.
  - The DNS is asked, and the mailbox read, from the controller. It needs C(dnspython) 2.6, C(pyspf) 2.0.14 and C(cryptography) 45 or
    newer; a host needs C(openssl) only.
  - Changes nothing on the host, in the DNS and in the mailbox.
attributes:
  check_mode:
    description: Looks at the same.
    support: partial
    details: No message is sent, so none is looked for.
  diff_mode:
    description: There is nothing to compare, since nothing is changed.
    support: none
options:
  domain:
    description: The domain of the address in From. The DNS is not asked without it.
    type: str
  envelope_domain:
    description: The domain of the return address (MAIL FROM, Return-Path), which SPF is for. O(domain) unless set.
    type: str
  addresses:
    description: Addresses that receivers get the mail from; those of the smarthost, as a rule, as it leaves the smarthost.
    type: list
    elements: str
    default: []
  dkim:
    description: The DKIM keys that sign mail of the domain.
    type: list
    elements: dict
    default: []
    suboptions:
      selector:
        description: The selector (s= of a signature).
        type: str
        required: true
      domain:
        description: The signing domain (d= of a signature). O(domain) unless set.
        type: str
      public_key:
        description: The public key that must be in the record, in PEM or as in p=.
        type: str
      private_key:
        description: The private key that signs, in PEM without passphrase, in place of the public one. It does not leave the controller.
        type: str
  nameservers:
    description: Addresses of the name servers to ask, with a port where it is not 53. Those of the controller unless set.
    type: list
    elements: str
    default: []
  smarthost:
    description: The server that takes all mail of the host.
    type: dict
    suboptions:
      host:
        description: Its name.
        type: str
        required: true
      port:
        description: The port; 587 unless set, 465 for O(smarthost.tls=tls).
        type: int
      tls:
        description: Whether it is asked for TLS first, or speaks it from the first byte.
        type: str
        choices: [starttls, tls]
        default: starttls
      tls_name:
        description: The name that its certificate is for. O(smarthost.host) unless set.
        type: str
      ca_file:
        description: A file on the host with the authorities to verify it by. The host's own unless set.
        type: path
  test_message:
    description: A message to send through the relay of the host.
    type: dict
    suboptions:
      sender:
        description: The address in From, and the return address before the relay rewrites it.
        type: str
        required: true
      recipient:
        description: Whom it goes to.
        type: str
        required: true
      relay:
        description: The loopback address of the host on which the relay listens.
        type: str
        default: 127.0.0.1
      relay_port:
        description: The port of the relay.
        type: int
        default: 25
  mailbox:
    description: The mailbox of O(test_message.recipient), which the controller reads by IMAP over verified TLS. Without it is only told
      whether the relay took the message.
    type: dict
    suboptions:
      host:
        description: The IMAP server.
        type: str
        required: true
      port:
        description: The port; 993 unless set, 143 for O(mailbox.tls=starttls).
        type: int
      tls:
        description: Whether it speaks TLS from the first byte, or is asked for it first.
        type: str
        choices: [starttls, tls]
        default: tls
      ca_file:
        description: A file on the controller with the authorities to verify it by. The controller's own unless set.
        type: path
      user:
        description: Who logs in.
        type: str
        required: true
      password:
        description: The password, such as by P(civitas.hosting.secret#lookup).
        type: str
        required: true
      inbox:
        description: The folder in which the message should arrive.
        type: str
        default: INBOX
      spam_folders:
        description: Folders to look into as well. A message found there counts as taken for spam.
        type: list
        elements: str
        default: []
  wait:
    description: Seconds to wait for the message.
    type: int
    default: 300
  timeout:
    description: Seconds to wait for one answer of the DNS; three times as long for the smarthost and the relay.
    type: float
    default: 5
  fail_on:
    description: The task fails when there is a finding of one of these severities. It never does unless set.
    type: list
    elements: str
    choices: [error, unknown, warning]
    default: []
  show:
    description: Whether the report is also written to the terminal, as text that can be read out.
    type: bool
    default: false
notes:
  - Macros in SPF records (RFC 7208, 7) are evaluated for C(postmaster) of O(envelope_domain).
seealso:
  - module: civitas.hosting.certificate_info
"""

EXAMPLES = r"""
- name: Ask the DNS
  civitas.hosting.mail_proof:
    domain: example.org
    addresses: [203.0.113.25]
    dkim:
      - selector: mail2026
        private_key: "{{ lookup('civitas.hosting.secret', 'dkim_key', generate=false) }}"
    fail_on: [error]
  delegate_to: localhost

- name: Send a message from each host and find it
  civitas.hosting.mail_proof:
    smarthost:
      host: smtp.example.net
    test_message:
      sender: "server@example.org"
      recipient: "proof@example.com"
    mailbox:
      host: imap.example.com
      user: "proof@example.com"
      password: "{{ lookup('civitas.hosting.secret', 'proof_mailbox_password', generate=false) }}"
      spam_folders: [Junk]
  register: sent
"""

RETURN = r"""
good:
  description: Whether there is no error and nothing unknown; warnings may be.
  type: bool
  returned: always
findings:
  description: All that was looked at.
  type: list
  elements: dict
  returned: always
  contains:
    id:
      description: >-
        What was looked at: V(domain.exists), V(spf.record), V(spf.single), V(spf.valid), V(spf.lookups), V(spf.void_lookups), V(spf.all),
        V(spf.address), V(dkim.record), V(dkim.single), V(dkim.valid), V(dkim.revoked), V(dkim.strength), V(dkim.use), V(dkim.match),
        V(dmarc.record), V(dmarc.single), V(dmarc.valid), V(dmarc.policy), V(dmarc.reports), V(dmarc.spf_alignment),
        V(dmarc.dkim_alignment), V(address.public), V(ptr.record), V(ptr.confirmed), V(ptr.generic), V(mx.record), V(mx.address),
        V(tls.reached), V(tls.offered), V(tls.verified), V(tls.protocol), V(delivery.taken), V(delivery.mailbox), V(delivery.arrived),
        V(delivery.inbox), V(delivery.spf), V(delivery.dkim) or V(delivery.dmarc). What one needs another for, is left out when that one
        is not good.
      type: str
    subject:
      description: The name, address or server that it was looked at for.
      type: str
    ok:
      description: Whether it is as it should be.
      type: bool
    severity:
      description: V(error) (mail is refused or taken for spam), V(warning) (it could be better), V(unknown) (nobody could tell) or V(none).
      type: str
    found:
      description: What was seen.
      type: str
    expected:
      description: What should be seen.
      type: str
    remedy:
      description: What to do, with the DNS record to write where there is one; empty when nothing is to do.
      type: str
  sample:
    - id: spf.record
      subject: example.org
      ok: false
      severity: error
      found: no SPF record
      expected: one TXT record that begins with v=spf1
      remedy: 'example.org. IN TXT "v=spf1 ip4:203.0.113.25 -all"'
problems:
  description: The identifiers of the findings that are not good, each once.
  type: list
  elements: str
  returned: always
  sample: [spf.record]
report:
  description: All of it as text for people.
  type: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._mail_probe import look, send

ARGUMENT_SPEC = {
    "domain": {"type": "str"},
    "envelope_domain": {"type": "str"},
    "addresses": {"type": "list", "elements": "str", "default": []},
    "dkim": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "selector": {"type": "str", "required": True},
            "domain": {"type": "str"},
            "public_key": {"type": "str", "no_log": False},
            "private_key": {"type": "str", "no_log": True},
        },
    },
    "nameservers": {"type": "list", "elements": "str", "default": []},
    "smarthost": {
        "type": "dict",
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int"},
            "tls": {"type": "str", "choices": ["starttls", "tls"], "default": "starttls"},
            "tls_name": {"type": "str"},
            "ca_file": {"type": "path"},
        },
    },
    "test_message": {
        "type": "dict",
        "options": {
            "sender": {"type": "str", "required": True},
            "recipient": {"type": "str", "required": True},
            "relay": {"type": "str", "default": "127.0.0.1"},
            "relay_port": {"type": "int", "default": 25},
        },
    },
    "mailbox": {
        "type": "dict",
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int"},
            "tls": {"type": "str", "choices": ["starttls", "tls"], "default": "tls"},
            "ca_file": {"type": "path"},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "inbox": {"type": "str", "default": "INBOX"},
            "spam_folders": {"type": "list", "elements": "str", "default": []},
        },
    },
    "wait": {"type": "int", "default": 300},
    "timeout": {"type": "float", "default": 5},
    "fail_on": {"type": "list", "elements": "str", "choices": ["error", "unknown", "warning"], "default": []},
    "show": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    patience = 3 * params["timeout"]
    module.exit_json(
        changed=False,
        smarthost=look(params["smarthost"], patience) if params["smarthost"] else None,
        test_message=send(params["test_message"], patience) if params["test_message"] and not module.check_mode else None,
    )


if __name__ == "__main__":
    main()
