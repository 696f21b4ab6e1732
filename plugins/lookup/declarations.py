# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: declarations
author: The founders of civitas.hosting (@civitas-hosting)
version_added: 0.1.0
short_description: What roles declare that they need from others
description:
  - Reads C(meta/declarations.yml) of each named role, renders one kind of it with the role's defaults and the host's variables, and returns
    the items of all roles in one list.
  - It runs on the controller and is evaluated where it is used, so secrets that a declaration refers to are never kept in a fact.
options:
  _terms:
    description: Names of roles of this collection, or fully qualified names of roles of other collections.
    required: true
    type: list
    elements: string
  kind:
    description: Which kind of declaration.
    required: true
    type: string
    choices:
      - packages
      - ports
      - checks
      - secrets
      - certificates
      - databases
      - sites
      - networks
      - artifacts
      - destinations
      - clients
      - alerts
      - backups
      - writers
      - data
  host:
    description:
      - A host of the inventory whose variables take the place of this host's. What is known only when that host was asked is not there,
        unless this run has asked it.
    type: string
    default: ""
"""

EXAMPLES = r"""
- name: The ports that the roles of a single server open
  ansible.builtin.debug:
    msg: "{{ lookup('civitas.hosting.declarations', 'base', 'nginx', kind='ports') }}"
"""

RETURN = r"""
_raw:
  description: The items in the order of the roles, each with the key C(role) added.
  type: list
  elements: dict
"""

import os
import typing as t

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible.utils.collection_loader._collection_finder import _get_collection_role_path
from ansible_collections.civitas.hosting.plugins.module_utils import _declarations

# What files of roles hold, for as long as this process runs.
_FILES: t.Dict[str, t.Any] = {}
_OWN_ROLES = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "roles")


def _role_path(role: str) -> str:
    if "." not in role:
        path = os.path.join(_OWN_ROLES, role)
        if os.path.isdir(path):
            return path
    else:
        found = _get_collection_role_path(role)
        if found:
            return t.cast(str, found[1])
    raise AnsibleLookupError(f"There is no role '{role}'. Write the name of a role of this collection or namespace.collection.role.")


def _variables_of(host: str, variables: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
    """The variables of the play with those of a host in place of this host's own."""
    hostvars = variables["hostvars"]
    if host not in hostvars:
        raise AnsibleLookupError(f"There is no host '{host}'. Write the name of a host of this inventory.")
    judged: t.Dict[str, t.Dict[str, t.Any]] = variables.get(_declarations.JUDGED, {})
    if host in judged:
        return judged[host]
    own = dict(hostvars.raw_get(variables["inventory_hostname"]))
    played = {name: value for name, value in variables.items() if name not in own and name != "ansible_facts"}
    return {**played, **hostvars.raw_get(host)}


class LookupModule(LookupBase):
    def run(self, terms: t.List[str], variables: t.Optional[t.Dict[str, t.Any]] = None, **kwargs: t.Any) -> t.List[t.Any]:
        self.set_options(var_options=variables, direct=kwargs)
        kind = self.get_option("kind")
        host = self.get_option("host")
        if host:
            variables = _variables_of(host, variables or {})
        items: t.List[t.Any] = []
        # One for all roles; a new one would look for all filters again.
        templar = self._templar.copy_with_new_env()
        for role in self._flatten(terms):
            items.extend(self._role_items(role, kind, variables or {}, templar))
        # One list as the single result: with lookup() it arrives as this list, with one item as well as with many.
        return [items]

    def _role_items(self, role: str, kind: str, variables: t.Dict[str, t.Any], templar: t.Any) -> t.List[t.Dict[str, t.Any]]:
        path = _role_path(role)
        try:
            document = _declarations.check_document(role, self._load(os.path.join(path, "meta", "declarations.yml")))
            if kind not in document:
                return []
            role_variables: t.Dict[str, t.Any] = {}
            role_variables.update(self._load(os.path.join(path, "defaults", "main.yml")) or {})
            role_variables.update(self._platform(path, variables))
            role_variables.update(variables)
            fixed = self._load(os.path.join(path, "vars", "main.yml")) or {}
            # They are there already while a site is judged, and may be rendered.
            judged = _declarations.JUDGED in variables
            role_variables.update({name: value for name, value in fixed.items() if not judged or name not in variables})
            role_variables["role_path"] = path
            templar.available_variables = role_variables
            try:
                rendered = templar.template(document[kind])
            except AnsibleError as error:
                raise _declarations.DeclarationError(f"role {role}: meta/declarations.yml, '{kind}' cannot be rendered: {error}") from error
            return _declarations.check_items(role, kind, rendered)
        except _declarations.DeclarationError as error:
            raise AnsibleLookupError(str(error)) from error

    def _platform(self, path: str, variables: t.Dict[str, t.Any]) -> t.Dict[str, t.Any]:
        """The role's values for the host's release, when the host's facts are known."""
        facts = variables.get("ansible_facts") or {}
        if "distribution" not in facts or "distribution_major_version" not in facts:
            return {}
        name = f"{facts['distribution']}_{facts['distribution_major_version']}.yml"
        return self._load(os.path.join(path, "vars", name)) or {}

    def _load(self, path: str) -> t.Any:
        """The content of a file of a role, which nobody may change: a play reads it hundreds of times."""
        if path not in _FILES:
            _FILES[path] = self._parsed(path) if os.path.exists(path) else None
        return _FILES[path]

    def _parsed(self, path: str) -> t.Any:
        # Without the loader's cache, and so without the copies that protect it, which take longer than all else here.
        try:
            # ansible-core 2.19 renders only what is marked as trusted; earlier releases do not know the argument.
            return self._loader.load_from_file(path, cache="none", unsafe=True, trusted_as_template=True)
        except TypeError:
            return self._loader.load_from_file(path, cache="none", unsafe=True)
