# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_secrets


def alert_secrets(receivers: t.Any) -> t.List[str]:
    try:
        return _alert_secrets.names(receivers)
    except (AttributeError, KeyError, TypeError) as error:
        raise AnsibleFilterError(f"civitas.hosting.alert_secrets: {type(error).__name__}") from None


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"alert_secrets": alert_secrets}
