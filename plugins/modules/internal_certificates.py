#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: internal_certificates
short_description: Issues certificates of the environment's own CA to a host
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - There is a root, which clients trust, and an issuing CA below it, which may sign for O(permitted_names) and private addresses only.
  - The root's key lies in a vault-encrypted file of its own, O(root_file), which is kept offline. It is needed for a new issuing CA only,
    every few years, when names outside of the permitted ones are needed, or when the issuing CA has to be revoked.
  - The issuing CA's key lies in the environment's vault-encrypted secrets file on the controller and never reaches a host.
  - A host makes its keys itself; they never leave it. The controller signs requests for exactly the declared names.
  - A certificate is replaced when it is missing, revoked, not from the issuing CA, for other names, without its key, about to end, or made
    for longer than wanted. Key and certificate are swapped in one step, after both were verified on the host.
  - Each host gets the root's certificate, and the revocation lists of root and issuing CA, which are renewed like certificates.
  - One module call when nothing changes, up to two more when something does.
attributes:
  check_mode:
    description: Predicts what would be issued; creates neither keys nor a CA.
    support: full
  diff_mode:
    description: Says which certificates are issued, and why.
    support: full
options:
  certificates:
    description: The certificates of the host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate and of its directory.
        type: str
        required: true
      hosts:
        description: Names and addresses that the certificate is for.
        type: list
        elements: str
        required: true
      owner:
        description: The user that owns the key.
        type: str
        default: root
      group:
        description: The group that may read the key when O(certificates[].owner) is V(root); the key's mode is V(0640) then, else V(0600).
        type: str
        default: root
      reload_units:
        description: The systemd units that use the certificate; returned for those that changed.
        type: list
        elements: str
        default: []
      placeholder:
        description: Whether it only keeps the place for a certificate of another authority, which is left alone once it is there.
        type: bool
        default: false
      role:
        description: The role that declared the certificate; not used.
        type: str
  store:
    description: Directory on the host; the files are C(<store>/<name>/fullchain.pem) and C(<store>/<name>/key.pem).
    type: path
    default: /etc/civitas/certificates
  ca_file:
    description: Where the root's certificate is written on the host.
    type: path
    default: /etc/civitas/ca.pem
  crl_file:
    description: Where the revocation lists are written on the host, all in one file. Who uses them reads the file again when it is newer.
    type: path
    default: /etc/civitas/crl.pem
  system_trust:
    description: Whether the host's programs trust the root without being told. Needs the package C(ca-certificates).
    type: bool
    default: true
  controller_ca_file:
    description: Where the root's certificate is written on the controller, for people and their browsers; not written when unset.
    type: path
  secrets_file:
    description:
      - The environment's vault-encrypted secrets file on the controller; holds the issuing CA, the root's certificate, the revocation lists
        and what was issued, in values that begin with V(internal_ca_).
    type: path
    required: true
  root_file:
    description:
      - The vault-encrypted file on the controller with the root's key; C(ca-root.yml) beside the secrets file when unset.
      - It is made once, and to be moved to a safe place. The error that asks for it says where to bring it back to.
    type: path
  permitted_names:
    description:
      - Names, each with all names below it, and networks that the CA is for. The addresses of loopback and of private networks always are.
      - A name that is added later needs a new issuing CA, and so the file of the root's key.
    type: list
    elements: str
    required: true
  revoked:
    description:
      - Serial numbers of certificates (hexadecimal, in quotes) that are revoked. One that is in use is replaced in the same run.
      - A name in place of a number revokes all certificates for it, and no new one is issued.
      - What was revoked stays revoked when it is taken out of the list.
    type: list
    elements: str
    default: []
  common_name:
    description: Name of a root that is made new.
    type: str
    default: civitas.hosting internal CA
  lifetime_days:
    description: For how many days certificates and revocation lists are made.
    type: int
    default: 180
  renew_before_days:
    description: How many days before their end certificates and revocation lists are replaced.
    type: int
    default: 120
  phase:
    description: Set by the action plugin, which calls the module once for each phase that is needed.
    type: str
    choices: [inspect, request, install]
    default: inspect
  ca_certificate:
    description: Set by the action plugin.
    type: str
  crls:
    description: Set by the action plugin.
    type: str
  requested:
    description: Set by the action plugin - names to make keys for.
    type: list
    elements: str
    default: []
  signed:
    description: Set by the action plugin - certificates to install.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the certificate.
        type: str
        required: true
      generation:
        description: The generation that holds its key.
        type: str
        required: true
      certificate:
        description: The certificate in PEM.
        type: str
        required: true
seealso:
  - plugin: civitas.hosting.secret
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Issue the certificates that the roles declare
  civitas.hosting.internal_certificates:
    certificates:
      - name: postgres
        hosts: [database.internal, 127.0.0.1]
        group: postgres
        reload_units: [postgresql.service]
    permitted_names: ["{{ civitas_domain }}", internal]
    secrets_file: "{{ civitas_secrets_file }}"
    controller_ca_file: "{{ civitas_ca_file }}"
"""

RETURN = r"""
issued:
  description: Why each new certificate was (in check mode, would be) issued, by name.
  type: dict
  returned: always
  sample: {postgres: its names differ}
changed_units:
  description: Units whose certificate or whose key's permissions changed.
  type: list
  elements: str
  returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Owner, Store, StoreError, write_ca
from ansible_collections.civitas.hosting.plugins.module_utils._system_trust import SystemTrust, TrustError

# Beside the files of others below /usr/local/share/ca-certificates.
TRUST = "civitas-internal"


def publish(params, check):
    """Bring root, revocation lists and the system's trust to what they should be; returns whether that changes anything."""
    trust = SystemTrust(TRUST)
    changed = write_ca(params["ca_file"], params["ca_certificate"], check)
    changed = write_ca(params["crl_file"], params["crls"], check) or changed
    return trust.apply([params["ca_certificate"]] if params["system_trust"] else [], check) or changed


def run_phase(module):
    params = module.params
    store = Store(params["store"])
    owners = {item["name"]: Owner(item["owner"], item["group"]) for item in params["certificates"]}
    if params["phase"] == "request":
        requests = {}
        for name in params["requested"]:
            generation, request = store.request(name, owners[name])
            requests[name] = {"generation": generation, "request": request}
        return {"changed": True, "requests": requests}
    if params["phase"] == "install":
        publish(params, False)
        for signed in params["signed"]:
            store.install(signed["name"], signed["generation"], signed["certificate"], params["ca_file"])
        return {"changed": True}
    found = {name: store.inspect(name, owner) for name, owner in owners.items()}
    repaired = [name for name, state in found.items() if not state["permissions_ok"]]
    if not module.check_mode:
        for name in repaired:
            store.repair_permissions(name, owners[name])
    return {
        "changed": bool(repaired),
        "found": found,
        "repaired": repaired,
        "outdated": publish(params, True),
        "crls": read(params["crl_file"]),
    }


def read(path):
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "certificates": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "hosts": {"type": "list", "elements": "str", "required": True},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "reload_units": {"type": "list", "elements": "str", "default": []},
                    "placeholder": {"type": "bool", "default": False},
                    "role": {"type": "str"},
                },
            },
            "store": {"type": "path", "default": "/etc/civitas/certificates"},
            "ca_file": {"type": "path", "default": "/etc/civitas/ca.pem"},
            "crl_file": {"type": "path", "default": "/etc/civitas/crl.pem"},
            "system_trust": {"type": "bool", "default": True},
            "controller_ca_file": {"type": "path"},
            # A path, not a secret.
            "secrets_file": {"type": "path", "required": True, "no_log": False},
            "root_file": {"type": "path"},
            "permitted_names": {"type": "list", "elements": "str", "required": True},
            "revoked": {"type": "list", "elements": "str", "default": []},
            "common_name": {"type": "str", "default": "civitas.hosting internal CA"},
            "lifetime_days": {"type": "int", "default": 180},
            "renew_before_days": {"type": "int", "default": 120},
            "phase": {"type": "str", "choices": ["inspect", "request", "install"], "default": "inspect"},
            "ca_certificate": {"type": "str"},
            "crls": {"type": "str"},
            "requested": {"type": "list", "elements": "str", "default": []},
            "signed": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "generation": {"type": "str", "required": True},
                    "certificate": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    if not module.params["ca_certificate"]:
        module.fail_json(msg="This module is run by the action plugin of its name; use civitas.hosting.internal_certificates in a task.")
    try:
        module.exit_json(**run_phase(module))
    except (StoreError, TrustError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
