# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_promql
from ansible_collections.civitas.hosting.plugins.module_utils._alert_rules import RuleError


def prometheus_rules(declared: t.Mapping[str, t.Sequence[t.Mapping[str, t.Any]]]) -> t.Dict[str, t.Any]:
    if not isinstance(declared, t.Mapping):
        raise AnsibleFilterError("civitas.hosting.prometheus_rules: write a mapping of host to the rules that its roles declare")
    try:
        return _alert_promql.render(declared)
    except RuleError as error:
        raise AnsibleFilterError(f"civitas.hosting.prometheus_rules: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"prometheus_rules": prometheus_rules}
