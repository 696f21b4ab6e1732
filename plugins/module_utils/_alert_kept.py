# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program keeps between two runs, also while the disk is full: that is one of the things to tell.

Private to the collection: no promise of stability. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

DISK, MEMORY = "/var/lib/civitas", "/run/civitas"


class Kept:
    """A JSON file on disk, or in memory while the disk does not take it.

    Args:
        name: of the file.
        directories: where it may be, the preferred one first.
    """

    def __init__(self, name: str, directories: t.Sequence[str] = (DISK, MEMORY)) -> None:
        self.paths = [os.path.join(directory, name) for directory in directories]

    def read(self) -> t.Dict[str, t.Any]:
        """What was kept last; empty when there is nothing or it is damaged, so that a thing is told once more rather than never."""
        for path in reversed(self.paths):
            try:
                with open(path, encoding="utf-8") as file:
                    found = json.load(file)
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                return found
        return {}

    def write(self, document: t.Mapping[str, t.Any]) -> None:
        """Raises OSError when no place takes it."""
        problem: t.Optional[OSError] = None
        for position, path in enumerate(self.paths):
            try:
                os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
                write_json(path, dict(document), 0o600)
            except OSError as error:
                problem = error
                continue
            for other in self.paths[position + 1 :]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(other)
            return
        raise problem or OSError("there is no place for what is kept")
