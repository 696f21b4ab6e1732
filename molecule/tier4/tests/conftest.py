# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the site that several files of tests look at."""

from __future__ import annotations

import pytest
import testinfra


@pytest.fixture(name="vault")
def _vault(host):
    """The host that keeps the backups."""
    names = host.ansible.get_variables()["groups"].get("backup")
    if not names:
        pytest.skip("DISTROS was given: there is the server only")
    return testinfra.get_host(f"docker://{names[0]}")
