# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils._firewall_egress import EgressError, egress_rows, egress_text


def egress_table(destinations: t.Sequence[t.Mapping[str, t.Any]], resolvers: t.Sequence[str]) -> t.Dict[str, t.Any]:
    try:
        rows = egress_rows(destinations, resolvers)
    except EgressError as error:
        raise AnsibleFilterError("\n".join(error.problems)) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"civitas.hosting.egress_table: {type(error).__name__}: {error}") from error
    return {"rows": rows, "text": egress_text(rows)}


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"egress_table": egress_table}
