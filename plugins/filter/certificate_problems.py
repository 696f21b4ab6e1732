# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import as_dict
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_text import TextError, judge_text


def certificate_problems(
    pem_text: t.Any, trust: t.Any = "", hostname: t.Any = None, private_key: t.Any = None, at: t.Any = None
) -> t.List[t.Dict[str, str]]:
    try:
        return [as_dict(one) for one in judge_text(pem_text, trust, hostname, private_key, at).problems]
    except TextError as error:
        raise AnsibleFilterError(f"civitas.hosting.certificate_problems: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"certificate_problems": certificate_problems}
