# SPDX-License-Identifier: GPL-3.0-or-later
"""Property tests look for new cases where a person can look at them; CI repeats the same ones, so that a red run is about the change."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
