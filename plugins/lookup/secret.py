# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: secret
author: The founders of civitas.hosting (@civitas-hosting)
version_added: 0.1.0
short_description: A secret of the environment, generated once
description:
  - Returns the value of a name from the vault-encrypted secrets file of the environment.
  - A name that the file does not have is generated with the system's random generator, written to the file, and from then on stays. A value
    that the file has is never changed, whoever wrote it.
  - Parallel processes agree on one value. The file keeps its vault id, its comments and its mode.
  - In check mode nothing is written; a missing secret is then a random value that nobody keeps.
options:
  _terms:
    description: Names of secrets; lower-case letters, digits and underscores.
    required: true
    type: list
    elements: string
  file:
    description:
      - The secrets file, a YAML mapping of names to texts, encrypted with C(ansible-vault). It is made when it does not exist.
      - The variable C(civitas_secrets_file) when left out, else C(secrets.yml) beside the inventory.
      - A relative path begins at the directory of the inventory.
    type: string
  length:
    description: Number of letters and digits of a generated value, 16 to 1024.
    type: integer
    default: 40
  generate:
    description: Set to V(false) for what somebody else gave, such as the password of a mail account. A name that the file does not have is
      then an error.
    type: boolean
    default: true
notes:
  - A vault password is needed, C(--vault-password-file) or E(ANSIBLE_VAULT_PASSWORD_FILE). A new file is encrypted with the identity of
    C(--encrypt-vault-id), else with the first one.
  - Values that are empty, no text, or placeholders such as V(changeme) are refused.
"""

EXAMPLES = r"""
- name: Give the application its database password
  ansible.builtin.copy:
    content: "{{ lookup('civitas.hosting.secret', 'app_demo_database_password') }}"
    dest: /etc/civitas/apps/demo/secrets/database_password
    mode: "0400"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The values, in the order of the names.
  type: list
  elements: string
"""

import typing as t

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.civitas.hosting.plugins.module_utils import _secrets
from ansible_collections.civitas.hosting.plugins.plugin_utils import _secrets_run


class LookupModule(LookupBase):
    def run(self, terms: t.List[t.Any], variables: t.Optional[t.Dict[str, t.Any]] = None, **kwargs: t.Any) -> t.List[str]:
        variables = variables or {}
        self.set_options(var_options=variables, direct=kwargs)
        length = self.get_option("length")
        try:
            path = self.get_option("file") or self._default_file(variables)
            store = _secrets_run.secrets_file(path, variables.get("inventory_dir"), self._loader)
            _secrets.random_value(length)
            names = [_secrets.check_name(term) for term in terms]
            missing = [] if self.get_option("generate") else store.names_missing(names)
            if missing:
                remedy = f'Run ansible-vault edit {store.path} and write {missing[0]}: "...", as it was given to you.'
                raise _secrets.SecretsError(f"{store.path} has no {', '.join(missing)}", remedy)
            if variables.get("ansible_check_mode"):
                return [store.get(name) or _secrets.random_value(length) for name in names]
            values = store.ensure({name: lambda: _secrets.random_value(length) for name in names})
            return [values[name] for name in names]
        except _secrets.SecretsError as error:
            raise AnsibleLookupError(str(error)) from None

    def _default_file(self, variables: t.Dict[str, t.Any]) -> t.Any:
        if "civitas_secrets_file" not in variables:
            return None
        try:
            return self._templar.template(variables["civitas_secrets_file"])
        except AnsibleError as error:
            raise AnsibleLookupError(f"civitas_secrets_file cannot be rendered: {error}") from error
