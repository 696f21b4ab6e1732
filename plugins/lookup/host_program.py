# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: host_program
author: The founders of civitas.hosting (@civitas-hosting)
version_added: 0.1.0
short_description: The files of a program that runs on hosts without Ansible
description:
  - Names the files that a module of C(plugins/module_utils) needs on a host, as items for O(civitas.hosting.config_tree#module:extra).
    They are the module itself and all of the collection's that it imports, at any depth.
  - On the host they lie below C(/usr/local/lib/civitas). A program puts that directory on Python's path and imports the module by its full
    name.
options:
  _terms:
    description: Names of modules, such as V(_login_program).
    required: true
    type: list
    elements: string
"""

EXAMPLES = r"""
- name: Install the program
  civitas.hosting.config_tree:
    src: "{{ role_path }}/templates/program"
    extra: "{{ lookup('civitas.hosting.host_program', '_login_program') }}"
"""

RETURN = r"""
_raw:
  description: Mappings with C(dest) and either C(src) or C(content).
  type: list
  elements: dict
"""

import ast
import os
import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

PACKAGE = "ansible_collections.civitas.hosting.plugins.module_utils"
LIBRARY = "usr/local/lib/civitas"
_SOURCES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "module_utils")


def modules(names: t.Iterable[str], sources: str = _SOURCES) -> t.List[str]:
    """All modules of C(sources) that C(names) import, themselves included. Raises AnsibleLookupError for one that is not there."""
    found: t.Set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        path = os.path.join(sources, f"{name}.py")
        try:
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read(), path)
        except OSError as error:
            raise AnsibleLookupError(f"There is no module '{name}' in plugins/module_utils of this collection.") from error
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
                waiting.append(str(node.module)[len(PACKAGE) + 1 :])
    return sorted(found)


class LookupModule(LookupBase):
    def run(self, terms: t.List[str], variables: t.Optional[t.Dict[str, t.Any]] = None, **kwargs: t.Any) -> t.List[t.Any]:
        directory = f"{LIBRARY}/{PACKAGE.replace('.', '/')}"
        files: t.List[t.Dict[str, str]] = [
            {"dest": f"{directory}/{name}.py", "src": os.path.join(_SOURCES, f"{name}.py")} for name in modules(self._flatten(terms))
        ]
        # Regular packages: another ansible_collections on the host's Python path must not come first.
        parts = PACKAGE.split(".")
        files += [{"dest": f"{LIBRARY}/{'/'.join(parts[:depth])}/__init__.py", "content": ""} for depth in range(1, len(parts) + 1)]
        # One list as the single result: with lookup() it arrives as this list, with one item as well as with many.
        return [files]
