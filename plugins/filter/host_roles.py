# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils._site_rules import roles_of


def host_roles(group_roles: t.Any, variables: t.Any) -> t.List[str]:
    if not isinstance(group_roles, t.Mapping):
        raise AnsibleFilterError("civitas.hosting.host_roles: needs a mapping of groups to lists of roles, such as {all: [base, nginx]}")
    if not isinstance(variables, t.Mapping) or "group_names" not in variables:
        raise AnsibleFilterError("civitas.hosting.host_roles: needs the variables of a host, such as hostvars[inventory_hostname]")
    return roles_of(group_roles, variables["group_names"], variables)


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"host_roles": host_roles}
