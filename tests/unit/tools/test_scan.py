# SPDX-License-Identifier: GPL-3.0-or-later
"""What answers is found and told apart."""

from __future__ import annotations

import socket

import pytest

from tools import scan


@pytest.mark.parametrize(("source", "address", "family"), [("", "127.0.0.1", socket.AF_INET), ("::1", "::1", socket.AF_INET6)])
def test_open_and_refused_ports(source, address, family):
    with socket.socket(family) as listening, socket.socket(family) as bound:
        for one in (listening, bound):
            one.bind((address, 0))
        listening.listen()
        ports = [one.getsockname()[1] for one in (listening, bound)]
        assert scan.scan(source, address, ports) == {ports[0]: "open", ports[1]: "refused"}
