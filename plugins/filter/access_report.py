# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _login_report


def access_report(hosts: t.Mapping[str, t.Any], since: str, until: str, now: str) -> str:
    try:
        return _login_report.render(hosts, since, until, now)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"civitas.hosting.access_report: {type(error).__name__}: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"access_report": access_report}
