# SPDX-License-Identifier: GPL-3.0-or-later
"""What is so while the role runs with other values than those of the scenario; see side_effect.yml.

python states.py STATE ADDRESS
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from edge import gets_nothing, https, plain


def own_address(address):
    """How the host sees this machine."""
    with socket.create_connection((address, 80), timeout=10) as connection:
        print(connection.getsockname()[0])


def let_in(address):
    """This machine is in the network of the closed site, and tests the site that is closed for maintenance."""
    assert https(address, name="closed.records.test").status == 200
    assert https(address).status == 200


def ask(address, name="records.test", **headers):
    lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items())
    return plain(address, f"GET /v1/a?b=c HTTP/1.1\r\nHost: {name}\r\n{lines}Connection: close\r\n\r\n")


def balancer(address):
    """This machine ends TLS in front of the host."""
    assert gets_nothing(https, address)
    answer = ask(address, X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.66, 203.0.113.9", X_Real_IP="203.0.113.66")
    assert answer.startswith("HTTP/1.1 200 ")
    assert '"X-Forwarded-For": "203.0.113.9"' in answer and '"X-Real-IP": "203.0.113.9"' in answer and "203.0.113.66" not in answer
    assert '"X-Forwarded-Proto": "https"' in answer and '"Host": "records.test:8443"' in answer
    assert "Strict-Transport-Security: max-age=31536000\r\n" in answer
    for proto in ({"X_Forwarded_Proto": "http"}, {}):
        answer = ask(address, **proto)
        assert answer.startswith("HTTP/1.1 301 ") and "Location: https://records.test:8443/v1/a?b=c\r\n" in answer
    assert ask(address, "other.test", X_Forwarded_Proto="https") == ""
    # The network of a closed site is that of the client, and not the balancer's.
    assert ask(address, "closed.records.test", X_Forwarded_Proto="https", X_Forwarded_For="203.0.113.9") == ""


def not_the_balancer(address):
    """Somebody else does: nobody but it gets an answer."""
    assert ask(address, X_Forwarded_Proto="https", X_Forwarded_For="198.51.100.7") == ""
    assert ask(address) == ""


{state.__name__: state for state in (own_address, let_in, balancer, not_the_balancer)}[sys.argv[1]](sys.argv[2])
