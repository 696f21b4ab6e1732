# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill a run after its change, and measure how long nobody can log in: INVENTORY HOST ADDRESS KEY. Prints the seconds since the change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# Slower than the SSH server adds up its penalties for failed logins.
PAUSE = 6


def login(address: str, key: str) -> bool:
    options = [
        "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ConnectTimeout=5",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
    ]  # fmt: skip
    done = subprocess.run(["ssh", *options, f"deploy@{address}", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return done.returncode == 0


def main() -> None:
    inventory, host, address, key = sys.argv[1:]
    assert login(address, key), "nobody can log in before the change"
    playbook = Path(__file__).resolve().parents[1] / "interrupted.yml"
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", inventory, "--limit", host, str(playbook)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment) as run:
        assert run.stdout is not None
        changed, results = 0.0, 0
        # The change, and that it is in effect. The third task never ends.
        while results < 2:
            line = run.stdout.readline()
            assert line, "the run ended by itself"
            if line.startswith("changed:"):
                results += 1
                changed = changed or time.monotonic()
        os.killpg(run.pid, signal.SIGKILL)
    assert not login(address, key), "the change locked nobody out"
    while not login(address, key):
        assert time.monotonic() - changed < 300, "nobody can log in any more"
        time.sleep(PAUSE)
    print(f"{time.monotonic() - changed:.0f}")


main()
