# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils._postgres_tuning import tune


def postgres_tuning(
    memory_mb: t.Any, cpus: t.Any, share: t.Any = 0.5, max_connections: t.Any = 100, disk: t.Any = "ssd"
) -> t.Dict[str, t.Union[str, int]]:
    try:
        return tune(int(memory_mb), int(cpus), float(share), int(max_connections), str(disk))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"civitas.hosting.postgres_tuning: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"postgres_tuning": postgres_tuning}
