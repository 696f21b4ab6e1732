# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils._bastion import permit_open


def bastion_permit_open(forward_to: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[str]:
    try:
        return permit_open(forward_to)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"civitas.hosting.bastion_permit_open: a list of {{host, ports}} is expected: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"bastion_permit_open": bastion_permit_open}
