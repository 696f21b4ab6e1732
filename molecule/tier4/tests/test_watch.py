# SPDX-License-Identifier: GPL-3.0-or-later
"""What ended on the server rings on the host that watches, and is quiet again afterwards. That people hear it is shown elsewhere.

It comes late among the tests, as the alarm takes minutes to ring.
"""

from __future__ import annotations

import time

import pytest
import testinfra

testinfra_hosts = ["ansible://servers"]


def test_an_alarm_rings_and_ends(host):
    names = host.ansible.get_variables()["groups"].get("monitoring")
    if not names:
        pytest.skip("DISTROS was given: there is the server only")
    watch = testinfra.get_host(f"docker://{names[0]}")
    told = f"CRITICAL: {host.backend.get_hostname()}: logrotate.timer does not run."

    def wait_for(rings: bool) -> None:
        deadline = time.monotonic() + 420
        while (told in watch.run("civitas-site-alerts status").stderr) is not rings:
            assert time.monotonic() < deadline, watch.run("civitas-site-alerts status").stderr
            time.sleep(3)

    wait_for(True)
    host.check_output("systemctl start logrotate.timer")
    wait_for(False)
