#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_info
short_description: Judges certificates in files, on live servers and as delivered
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Looks at certificates and tells all that is wrong with them; changes nothing, and never fails because of a certificate.
  - Files and servers are looked at from the host that the task runs on. What was found there is judged on the controller, which therefore
    needs Python's C(cryptography) 45 or newer; a host needs C(openssl) only. No private key leaves a host.
  - A delivery, the files as an issuer sent them, is read on the controller. PEM in any wrapping, DER, PKCS#7, PKCS#12 and zip archives are
    understood.
attributes:
  check_mode:
    description: The same as without.
    support: full
  diff_mode:
    description: There is nothing to compare, since nothing is changed.
    support: none
options:
  files:
    description: Certificate files on the host; each holds a certificate and its chain.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      key:
        description: The file of the private key that must belong to it. Not compared when unset.
        type: path
      hostnames:
        description: Names and addresses that the certificate must be for.
        type: list
        elements: str
        default: []
  endpoints:
    description: Servers to ask for their certificates, from the host.
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: Name or address to connect to.
        type: str
        required: true
      port:
        description: The port; 443 unless set, 25 for SMTP, 5432 for PostgreSQL.
        type: int
      server_name:
        description: The name to ask for (SNI). The host unless set.
        type: str
      starttls:
        description: The protocol in which the server is asked for TLS first.
        type: str
        choices: ['', smtp, postgres]
        default: ''
      hostnames:
        description: Names and addresses that the certificate must be for; the name asked for unless set.
        type: list
        elements: str
  delivery:
    description: Files on the controller that belong together, as an issuer sent them.
    type: dict
    suboptions:
      files:
        description: The files, in any order. A relative path begins at the directory in which Ansible was started.
        type: list
        elements: path
        required: true
      passphrase:
        description: Opens an encrypted key or PKCS#12 file.
        type: str
      hostnames:
        description: Names and addresses that the certificate must be for.
        type: list
        elements: str
        default: []
      key_needed:
        description: Whether the private key must be there too.
        type: bool
        default: true
      fetch_missing:
        description:
          - Whether a missing intermediate certificate is fetched from the public address that the certificate names. The controller does
            so, directly and not through a proxy.
        type: bool
        default: false
  trust:
    description:
      - The roots to trust, as PEM text or as the path of a PEM file on the controller.
      - The controller's own trusted roots unless set.
    type: str
    default: ''
  crls:
    description: Files with certificate revocation lists on the controller, PEM or DER.
    type: list
    elements: path
    default: []
  at:
    description: The time to judge at, ISO 8601, UTC unless it says otherwise. Now unless set.
    type: str
  timeout:
    description: Seconds to wait for a server.
    type: float
    default: 10
  show:
    description: Whether the report is also written to the terminal, as text that can be read out.
    type: bool
    default: false
seealso:
  - plugin: civitas.hosting.certificate_problems
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Judge what a server presents
  civitas.hosting.certificate_info:
    endpoints:
      - host: records.example.org
      - host: mail.example.org
        starttls: smtp
  delegate_to: localhost
  register: presented

- name: Refuse to go on with a bad one
  ansible.builtin.assert:
    that: presented.good
    fail_msg: "{{ presented.report }}"

- name: Judge a delivery before it is installed
  civitas.hosting.certificate_info:
    delivery:
      files: [delivery/records.zip, delivery/records.key]
      passphrase: "{{ lookup('civitas.hosting.secret', 'records_key_passphrase') }}"
      hostnames: [records.example.org]
    trust: "{{ inventory_dir }}/trusted-roots.pem"
  delegate_to: localhost
"""

RETURN = r"""
good:
  description: Whether nothing is wrong with any of them.
  type: bool
  returned: always
report:
  description: All of it as text for people.
  type: str
  returned: always
sources:
  description: What was found, one for each file and endpoint, and one for the delivery.
  type: list
  elements: dict
  returned: always
  contains:
    source:
      description: The file, the server, or the names of the delivered files.
      type: str
      sample: records.example.org:443
    kind:
      description: V(file), V(endpoint) or V(delivery).
      type: str
    good:
      description: Whether nothing is wrong with it.
      type: bool
    certificates:
      description: Facts about the certificates, the server's own first; those of a server in the order sent.
      type: list
      elements: dict
      sample:
        - subject: CN=records.example.org
          issuer: CN=Example Issuing CA,O=Example Trust
          names: [records.example.org]
          not_before: "2026-01-01T00:00:00Z"
          not_after: "2026-12-31T23:59:59Z"
          days_left: 211
    problems:
      description: What is wrong, with a stable code, a sentence, what to do or to ask the issuer for, and the certificate meant.
      type: list
      elements: dict
      sample:
        - code: expired
          message: The leaf CN=records.example.org ended on 2026-01-01.
          remedy: Ask the issuer for a renewed certificate.
          certificate: leaf CN=records.example.org
    notes:
      description: What is no fault and worth knowing.
      type: list
      elements: str
    error:
      description: Why no certificate could be read, empty otherwise.
      type: str
    error_kind:
      description: V(unreachable), V(timeout), V(no_tls) or V(unusable) for a server, V(unreadable) for a file, empty without an error.
      type: str
    protocol:
      description: The TLS version spoken, for a server.
      type: str
    cipher:
      description: The cipher agreed on, for a server.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_sources import gather_endpoint, gather_file

ARGUMENT_SPEC = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "key": {"type": "path", "no_log": False},
            "hostnames": {"type": "list", "elements": "str", "default": []},
        },
    },
    "endpoints": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "host": {"type": "str", "required": True},
            "port": {"type": "int"},
            "server_name": {"type": "str"},
            "starttls": {"type": "str", "choices": ["", "smtp", "postgres"], "default": ""},
            "hostnames": {"type": "list", "elements": "str"},
        },
    },
    "delivery": {
        "type": "dict",
        "options": {
            "files": {"type": "list", "elements": "path", "required": True},
            "passphrase": {"type": "str", "no_log": True},
            "hostnames": {"type": "list", "elements": "str", "default": []},
            "key_needed": {"type": "bool", "default": True, "no_log": False},
            "fetch_missing": {"type": "bool", "default": False},
        },
    },
    "trust": {"type": "str", "default": ""},
    "crls": {"type": "list", "elements": "path", "default": []},
    "at": {"type": "str"},
    "timeout": {"type": "float", "default": 10},
    "show": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    module.exit_json(
        changed=False,
        files=[gather_file(one["path"], one["key"]) for one in params["files"]],
        endpoints=[
            gather_endpoint(one["host"], one["port"], one["server_name"], one["starttls"], params["timeout"]) for one in params["endpoints"]
        ],
    )


if __name__ == "__main__":
    main()
