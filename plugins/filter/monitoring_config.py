# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.module_utils import _monitoring_config


def monitoring_config(config: t.Mapping[str, t.Any], program: str, token: str = "") -> t.Dict[str, t.Any]:
    try:
        if program == "prometheus":
            return _monitoring_config.prometheus(config)
        if program == "blackbox":
            return _monitoring_config.blackbox(config)
        if program == "alertmanager":
            return _monitoring_config.alertmanager(config, token)
        if program == "alertmanager_web":
            return _monitoring_config.alertmanager_web(token)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"civitas.hosting.monitoring_config: {type(error).__name__}: {error}") from error
    known = "prometheus, blackbox, alertmanager or alertmanager_web"
    raise AnsibleFilterError(f"civitas.hosting.monitoring_config: program is {program!r}; write {known}")


def monitoring_retention(disk_bytes: t.Any, share: t.Any) -> int:
    try:
        return _monitoring_config.retention_megabytes(int(disk_bytes), float(share))
    except (TypeError, ValueError) as error:
        raise AnsibleFilterError(f"civitas.hosting.monitoring_retention: {error}") from error


class FilterModule:
    def filters(self) -> t.Dict[str, t.Callable[..., t.Any]]:
        return {"monitoring_config": monitoring_config, "monitoring_retention": monitoring_retention}
