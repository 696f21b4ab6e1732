# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _copy_preflight


def backup_copy_problems(config: t.Mapping[str, t.Any], check: bool = False) -> t.List[str]:
    try:
        return _copy_preflight.problems(config, check)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"civitas.hosting.backup_copy_problems: {type(error).__name__}: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"backup_copy_problems": backup_copy_problems}
