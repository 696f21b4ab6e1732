# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _password_digest


def password_digest(password: t.Any, name: t.Any) -> str:
    if not isinstance(password, str) or not password:
        raise AnsibleFilterError("civitas.hosting.password_digest: the password is no text, or empty")
    return _password_digest.digest(str(name), password)


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"password_digest": password_digest}
