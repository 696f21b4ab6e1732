# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils._people import problems_of


def people_problems(config: t.Any) -> t.List[str]:
    if not isinstance(config, t.Mapping):
        raise AnsibleFilterError("civitas.hosting.people_problems: needs the role's variables as a mapping")
    return problems_of(config)


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"people_problems": people_problems}
