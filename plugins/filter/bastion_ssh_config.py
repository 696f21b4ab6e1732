# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.plugin_utils import _bastion_connection


def bastion_ssh_config(hostvars: _bastion_connection.HostVars, hosts: t.Sequence[str], bastion: str) -> str:
    try:
        return _bastion_connection.ssh_config(hostvars, hosts, bastion)
    except _bastion_connection.BastionError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"bastion_ssh_config": bastion_ssh_config}
