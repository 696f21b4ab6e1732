#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: acme_certificates
short_description: Obtains certificates from an ACME server and brings them into use
version_added: 0.1.0
author: The founders of civitas.hosting (@civitas-hosting)
description:
  - Compares the certificates that a host should have with those that certbot keeps there, and asks the ACME server only for those that are
    missing, differ, or should have been renewed already. Renewal in time is the work of the distribution's C(certbot.timer).
  - What was obtained and is not in use yet is installed as C(civitas-certificates install) would do it - judged, swapped, proven on the
    wire, or taken back. Who uses a certificate is read from C(/etc/civitas/certificates.json), which the role certificates writes.
  - Certificates that this module once obtained and that are not declared any more are kept, but not renewed.
  - All certificates in one call. One that cannot be obtained keeps none of the others from it; the call fails then and names all problems.
  - The keys are made on the host and never leave it.
requirements:
  - certbot, and for the challenge V(dns-01) python3-certbot-dns-rfc2136
  - openssl
attributes:
  check_mode:
    description: Predicts from files of the host what would be obtained and installed. No server is asked.
    support: full
  diff_mode:
    description: Says which certificates are obtained, and why.
    support: full
options:
  certificates:
    description: The certificates of the host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the certificate, for certbot and for C(civitas-certificates).
        type: str
        required: true
      hosts:
        description: DNS names that the certificate is for.
        type: list
        elements: str
        required: true
      challenge:
        description:
          - How the ACME server is shown that the names are ours. V(http-01) - by a file that the web server of this host serves on port 80.
          - V(dns-01) - by a TXT record that is put into the zone (RFC 2136); the only way to a wildcard.
        type: str
        choices: [http-01, dns-01]
        default: http-01
      key_type:
        description: Type of the key.
        type: str
        choices: [ecdsa, rsa]
        default: ecdsa
  directory:
    description: Address of the ACME server's directory.
    type: str
    required: true
  ca_file:
    description: Trust store on the host for the connection to the ACME server, when its own certificate is not from a public authority.
    type: path
  email:
    description: Address that the ACME server may write to.
    type: str
  eab_kid:
    description: Key identifier of an external account binding, for servers that know customers only. Used when the account is made.
    type: str
  eab_hmac_key:
    description: Secret of the external account binding, in base64url.
    type: str
  webroot:
    description: Directory from which the web server serves C(/.well-known/acme-challenge/).
    type: path
    default: /var/lib/civitas/acme
  http_address:
    description:
      - Address and port of this host's web server. It is asked for a file before the ACME server is, as failed validations count against
        that server's limits. Empty to leave this out.
    type: str
    default: 127.0.0.1:80
  dns_credentials:
    description: File on the host with the name server and its key, as certbot's plugin dns-rfc2136 reads it.
    type: path
  dns_propagation_seconds:
    description: Seconds that a TXT record needs to reach all name servers of the zone.
    type: int
    default: 60
seealso:
  - module: civitas.hosting.internal_certificates
"""

EXAMPLES = r"""
- name: Obtain what is missing
  civitas.hosting.acme_certificates:
    certificates:
      - name: edge
        hosts: [records.example.org, www.records.example.org]
    directory: https://acme-v02.api.letsencrypt.org/directory
    email: operators@example.org
"""

RETURN = r"""
obtained:
  description: Why each certificate was (in check mode, would be) obtained, by name.
  type: dict
  returned: always
  sample: {edge: there is none yet}
renewals:
  description: Certificates that from now on are renewed by the timer (V(true)), or not any more (V(false)), where that changed.
  type: dict
  returned: always
  sample: {former: false}
installed:
  description: Names of the certificates that were (in check mode, would be) brought into use.
  type: list
  elements: str
  returned: always
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.civitas.hosting.plugins.module_utils import _acme
from ansible_collections.civitas.hosting.plugins.module_utils._acme_client import (
    Certificate,
    Client,
    ClientError,
    Settings,
    reason_to_obtain,
    renewals,
    set_renewal,
)


def run(module):
    params = module.params
    certificates = [Certificate(item["name"], tuple(item["hosts"]), item["challenge"], item["key_type"]) for item in params["certificates"]]
    settings = Settings(**{key: params[key] if params[key] is not None else "" for key in Settings._fields})
    client = Client(settings)
    names = [item.name for item in certificates]
    reasons = {item.name: why for item in certificates for why in [reason_to_obtain(item, settings, time.time())] if why}
    result = {
        "obtained": reasons,
        "renewals": renewals(certificates, settings),
        "installed": sorted({*reasons, *_acme.waiting(names)}),
        "diff": [
            {"before_header": f"certificate {name}", "after_header": f"certificate {name}", "before": f"{why}\n", "after": "obtained\n"}
            for name, why in reasons.items()
        ],
    }
    if module.check_mode:
        return {**result, "changed": bool(result["installed"] or result["renewals"])}
    problems = []
    for name, renewed in result["renewals"].items():
        set_renewal(name, renewed)
    obtained = {}
    try:
        registered = client.ensure_account() if reasons else False
    except ClientError as error:
        # Without an account there is nothing to ask; what waits is installed all the same.
        registered = False
        problems.append(f"the account on {settings.directory}: {error}")
    for certificate in certificates if not problems else []:
        if certificate.name in reasons:
            try:
                client.obtain(certificate)
                obtained[certificate.name] = reasons[certificate.name]
            except ClientError as error:
                problems.append(f"the certificate {certificate.name}: {error}")
    installed = []
    for name in _acme.waiting(names):
        problem = _acme.install(name)
        if problem:
            problems.append(f"the certificate {name} was obtained, but the one from before stays in use: {problem}")
        else:
            installed.append(name)
    result.update(changed=bool(registered or result["renewals"] or obtained or installed), obtained=obtained, installed=installed)
    if problems:
        result.update(failed=True, msg="; ".join(problems))
    return result


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
                    "challenge": {"type": "str", "choices": ["http-01", "dns-01"], "default": "http-01"},
                    "key_type": {"type": "str", "choices": ["ecdsa", "rsa"], "default": "ecdsa", "no_log": False},
                },
            },
            "directory": {"type": "str", "required": True},
            "ca_file": {"type": "path"},
            "email": {"type": "str"},
            "eab_kid": {"type": "str"},
            "eab_hmac_key": {"type": "str", "no_log": True},
            "webroot": {"type": "path", "default": "/var/lib/civitas/acme"},
            "http_address": {"type": "str", "default": "127.0.0.1:80"},
            # A path, not the secret.
            "dns_credentials": {"type": "path", "no_log": False},
            "dns_propagation_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except OSError as error:
        module.fail_json(msg=str(error))
    if result.get("failed"):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
