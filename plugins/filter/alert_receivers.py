# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_secrets


def alert_receivers(receivers: t.Any, secrets: t.Any) -> t.List[t.Dict[str, t.Any]]:
    try:
        return _alert_secrets.filled(receivers, secrets)
    except (AttributeError, KeyError, TypeError) as error:
        # Without its text, which may quote a secret.
        raise AnsibleFilterError(f"civitas.hosting.alert_receivers: {type(error).__name__}") from None


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"alert_receivers": alert_receivers}
