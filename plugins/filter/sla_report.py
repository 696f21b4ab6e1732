# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _sla


def sla_periods(now: t.Any) -> t.List[t.Dict[str, t.Any]]:
    try:
        return [period._asdict() for period in _sla.periods(float(now))]
    except (TypeError, ValueError, OverflowError) as error:
        raise AnsibleFilterError(f"civitas.hosting.sla_periods: {error}") from error


def sla_report(answers: t.Sequence[t.Mapping[str, t.Any]], now: t.Any, target: t.Any = 99) -> t.Dict[str, t.Any]:
    try:
        return _sla.report(answers, float(now), float(target))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise AnsibleFilterError(f"civitas.hosting.sla_report: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"sla_periods": sla_periods, "sla_report": sla_report}
