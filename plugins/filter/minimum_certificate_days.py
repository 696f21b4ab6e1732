# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _policy


def minimum_certificate_days(environment: t.Any, waivers: t.Any = None) -> int:
    if not isinstance(environment, str) or environment not in _policy.POLICIES:
        raise AnsibleFilterError(f"There is no kind of environment {str(environment)[:40]!r}. Write one of {', '.join(_policy.POLICIES)}.")
    waived = any(waiver.rule == "days_left" for waiver in _policy.waivers_of(waivers))
    return 0 if waived else _policy.POLICIES[environment].minimum_days_left


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"minimum_certificate_days": minimum_certificate_days}
