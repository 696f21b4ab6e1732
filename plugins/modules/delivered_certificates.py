#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: delivered_certificates
short_description: Takes in certificates that were bought or sent, and brings them into use, proven on the wire
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - The files of a delivery lie on the controller, in whatever form the issuer sent them. They are read, put in order and judged there; all
    problems of all deliveries are told at once, each with what to ask the issuer for, and nothing is changed then.
  - A pair that is not in use on the host yet is sent there, judged once more by the host's C(openssl), and brought into use - both files
    are swapped in one step, its users judge it and load it, and every endpoint is asked on a new connection until it presents the new
    certificate.
  - What cannot be proven is taken back by itself - the pair from before is swapped in again, its users are told, and the task fails with
    the reason. A run that was cut off in between is ended or taken back by the next one.
  - The first pair of a name is put in place only, as nobody can use it yet.
  - One module call when nothing changes, one more when a pair is installed. Keys are sent only then.
attributes:
  check_mode:
    description: Judges the deliveries and predicts what would be installed.
    support: full
  diff_mode:
    description: Shows what is certified, by whom and how long, before and after; never a key.
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
        description: Names and addresses that the certificate must be valid for.
        type: list
        elements: str
        required: true
      files:
        description:
          - Files of the delivery on the controller - certificate, chain and key, in one file or in many. A relative path begins at the
            directory of the inventory.
        type: list
        elements: path
        required: true
      passphrase:
        description: Opens the key when it is locked.
        type: str
      trust_file:
        description: File on the controller with the roots that are trusted, in PEM; the controller's own roots unless given.
        type: path
      fetch_missing:
        description: Whether the controller may fetch a missing certificate of the chain from the address that the certificate names.
        type: bool
        default: false
      minimum_days:
        description: For how many days a certificate must still be valid when it is installed.
        type: int
        default: 0
      owner:
        description: The user that owns the key.
        type: str
        default: root
      group:
        description: The group that may read the key when O(certificates[].owner) is V(root); the key's mode is V(0640) then, else V(0600).
        type: str
        default: root
      reload_units:
        description: The systemd units that load the certificate. Those that run are reloaded.
        type: list
        elements: str
        default: []
      verify:
        description:
          - Commands that judge the configuration with the new pair before anybody loads it, such as C(nginx -t). They are run without a
            shell, and not when none of O(certificates[].reload_units) runs.
        type: list
        elements: str
        default: []
      containers:
        description: Containers that use the certificate. Those that run get a signal.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the container.
            type: str
            required: true
          signal:
            description: The signal at which it loads its certificate.
            type: str
            default: HUP
      run:
        description: Further commands that tell users of the certificate. They are run without a shell; one that fails takes the pair back.
        type: list
        elements: str
        default: []
      endpoints:
        description:
          - Where the certificate is seen. After a change each of them must present it. One that gave no answer before the change, or that
            the pair before was not for, is not judged; a warning says so.
        type: list
        elements: dict
        default: []
        suboptions:
          host:
            description: Name or address to connect to, from the host itself.
            type: str
            required: true
          port:
            description: Port to connect to.
            type: int
            required: true
          server_name:
            description: Name to ask for; O(certificates[].endpoints[].host) unless given.
            type: str
          starttls:
            description: Protocol in which the server is asked for TLS first.
            type: str
            choices: ["", smtp, postgres]
            default: ""
      keep:
        description: How many pairs are kept on the host, the one in use included.
        type: int
        default: 3
      role:
        description: The role that declared the certificate; not used.
        type: str
  store:
    description: Directory on the host; the files are C(<store>/<name>/fullchain.pem) and C(<store>/<name>/key.pem).
    type: path
    default: /etc/civitas/certificates
  patience:
    description: Seconds that endpoints get to present a new certificate.
    type: int
    default: 20
  pairs:
    description: Set by the action plugin - what is to be installed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the certificate.
        type: str
        required: true
      chain:
        description: The certificates in PEM.
        type: str
        required: true
      key:
        description: The key in PEM.
        type: str
        required: true
      roots:
        description: The roots to judge it by, in PEM.
        type: str
        required: true
notes:
  - A container that mounts C(<store>/<name>) as a directory sees later pairs, too; one that mounts the files in it does not.
seealso:
  - module: civitas.hosting.internal_certificates
"""

EXAMPLES = r"""
- name: Bring the delivered certificate into use
  civitas.hosting.delivered_certificates:
    certificates:
      - name: edge
        hosts: [records.example.org]
        files: [certificates/records.example.org.zip, certificates/records.example.org.key]
        reload_units: [nginx.service]
        verify: [/usr/sbin/nginx -t]
        endpoints:
          - {host: 127.0.0.1, port: 443, server_name: records.example.org}
"""

RETURN = r"""
installed:
  description: Why each pair was (in check mode, would be) installed, by name.
  type: dict
  returned: always
  sample: {edge: another certificate is in use}
healed:
  description: What was left by a run that was cut off, and how it ended.
  type: list
  elements: str
  returned: always
notes:
  description: What could not be told or measured while a pair was installed, and why.
  type: list
  elements: str
  returned: when something was installed
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_install import Installer, InstallError, Spec
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Store, StoreError, trust_file


def inspect(module: AnsibleModule, store: Store, specs: t.Mapping[str, Spec]) -> t.Dict[str, t.Any]:
    healed: t.List[str] = []
    repaired: t.List[str] = []
    problems: t.List[str] = []
    found = {}
    for spec in specs.values():
        if not module.check_mode:
            try:
                healed += Installer(store, spec, module.params["patience"]).heal()
            except InstallError as error:
                # It went back; the pair that is wanted is installed next.
                healed.append(str(error))
                if store.pending(spec.name):
                    problems.append(str(error))
        found[spec.name] = store.inspect(spec.name, spec.owner)
        if not found[spec.name]["permissions_ok"]:
            repaired.append(spec.name)
            if not module.check_mode:
                store.repair_permissions(spec.name, spec.owner)
    if problems:
        module.fail_json(msg="; ".join(problems), healed=healed)
    return {"changed": bool(healed or repaired), "healed": healed, "repaired": repaired, "found": found}


def install(module: AnsibleModule, store: Store, specs: t.Mapping[str, Spec]) -> t.Dict[str, t.Any]:
    notes: t.List[str] = []
    installed: t.List[str] = []
    for pair in module.params["pairs"]:
        spec = specs[pair["name"]]
        try:
            with trust_file(pair["roots"]) as roots:
                outcome = Installer(store, spec, module.params["patience"]).install(pair["chain"], pair["key"], roots)
        except (InstallError, StoreError, OSError) as error:
            text = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
            before = f" Installed before it: {', '.join(installed)}." if installed else ""
            module.fail_json(msg=f"the certificate {spec.name} was not installed: {text}.{before}", changed=bool(installed), notes=notes)
        installed.append(spec.name)
        notes += outcome.notes
    return {"changed": bool(installed), "notes": notes}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "certificates": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "hosts": {"type": "list", "elements": "str", "required": True},
                    "files": {"type": "list", "elements": "path", "required": True},
                    "passphrase": {"type": "str", "no_log": True},
                    "trust_file": {"type": "path"},
                    "fetch_missing": {"type": "bool", "default": False},
                    "minimum_days": {"type": "int", "default": 0},
                    "owner": {"type": "str", "default": "root"},
                    "group": {"type": "str", "default": "root"},
                    "reload_units": {"type": "list", "elements": "str", "default": []},
                    "verify": {"type": "list", "elements": "str", "default": []},
                    "containers": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {"name": {"type": "str", "required": True}, "signal": {"type": "str", "default": "HUP"}},
                    },
                    "run": {"type": "list", "elements": "str", "default": []},
                    "endpoints": {
                        "type": "list",
                        "elements": "dict",
                        "default": [],
                        "options": {
                            "host": {"type": "str", "required": True},
                            "port": {"type": "int", "required": True},
                            "server_name": {"type": "str"},
                            "starttls": {"type": "str", "choices": ["", "smtp", "postgres"], "default": ""},
                        },
                    },
                    "keep": {"type": "int", "default": 3},
                    "role": {"type": "str"},
                },
            },
            "store": {"type": "path", "default": "/etc/civitas/certificates"},
            "patience": {"type": "int", "default": 20},
            "pairs": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "chain": {"type": "str", "required": True},
                    "key": {"type": "str", "required": True, "no_log": True},
                    "roots": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    store = Store(module.params["store"])
    specs = {item["name"]: Spec.of(item) for item in module.params["certificates"]}
    try:
        result = install(module, store, specs) if module.params["pairs"] else inspect(module, store, specs)
    except (StoreError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
