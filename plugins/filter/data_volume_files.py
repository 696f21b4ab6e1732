# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import VolumeError


def data_volume_files(config: t.Mapping[str, t.Any]) -> t.List[t.Dict[str, t.Any]]:
    try:
        return _volume_mounts.files(_volume_mounts.config_of(config))
    except VolumeError as error:
        raise AnsibleFilterError(f"civitas.hosting.data_volume_files: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"data_volume_files": data_volume_files}
