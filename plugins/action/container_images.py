# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the host what it lacks, judges the archives of exactly these images, uploads them, and lets the host load them."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.civitas.hosting.plugins.module_utils._container_images import archive_problem

Result = t.Dict[str, t.Any]
MODULE = "civitas.hosting.container_images"


class ActionModule(ActionBase):
    TRANSFERS_FILES = True

    def run(self, tmp: t.Optional[str] = None, task_vars: t.Optional[Result] = None) -> Result:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "uploads" in arguments:
            return {"failed": True, "msg": "container_images: 'uploads' is set by the action itself; remove it"}
        result: Result = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        missing = result.get("missing_archives")
        if result.get("failed") or not missing:
            return result

        # The module has accepted the list, so each entry is a mapping with these keys.
        archives = {image["name"]: self._local(image) for image in arguments["images"] if image["name"] in missing}
        problems = [problem for problem in map(archive_problem, archives.values()) if problem]
        if problems:
            return {**result, "failed": True, "changed": False, "msg": "\n".join(problems)}
        if self._task.check_mode:
            return result

        # Removed with the task, whatever happens.
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        directory = self._connection._shell.tmpdir
        uploads = {}
        for number, (name, image) in enumerate(archives.items()):
            uploads[name] = self._connection._shell.join_path(directory, f"image-{number}.tar")
            self._transfer_file(image["archive"], uploads[name])
        self._fixup_perms2((directory, *uploads.values()))
        return t.cast(Result, self._execute_module(MODULE, module_args={**arguments, "uploads": uploads}, task_vars=task_vars))

    def _local(self, image: t.Mapping[str, t.Any]) -> t.Dict[str, t.Any]:
        """The image with the archive's full path; a relative one begins at the playbook."""
        path = self._loader.path_dwim(str(image["archive"]))
        return {"name": str(image["name"]), "archive": path, "sha256": str(image["sha256"])}
