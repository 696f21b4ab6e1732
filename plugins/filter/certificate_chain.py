# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_files import as_pem
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import in_words
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_text import TextError, judge_text


def certificate_chain(pem_text: t.Any, trust: t.Any = "", hostname: t.Any = None, private_key: t.Any = None, at: t.Any = None) -> str:
    try:
        verdict = judge_text(pem_text, trust, hostname, private_key, at)
    except TextError as error:
        raise AnsibleFilterError(f"civitas.hosting.certificate_chain: {error}") from error
    if verdict.problems:
        raise AnsibleFilterError("civitas.hosting.certificate_chain: the certificate cannot be used.\n" + in_words(verdict.problems))
    return as_pem(verdict.chain)


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"certificate_chain": certificate_chain}
