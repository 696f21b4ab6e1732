# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_text import TextError, describe_text


def certificate_info(pem_text: t.Any, at: t.Any = None) -> t.List[t.Dict[str, t.Any]]:
    try:
        return describe_text(pem_text, at)
    except TextError as error:
        raise AnsibleFilterError(f"civitas.hosting.certificate_info: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"certificate_info": certificate_info}
