# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils._site_rules import servers_of


def site_servers(groups: t.Any) -> t.List[str]:
    if not isinstance(groups, t.Mapping):
        raise AnsibleFilterError("civitas.hosting.site_servers: needs a mapping of groups to hosts, such as the variable groups")
    return servers_of(groups)


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"site_servers": site_servers}
