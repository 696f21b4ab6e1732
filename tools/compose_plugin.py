# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the Compose plugin out of Debian 13's package, for tests on Debian 12, which has none.

`python -m tools.compose_plugin` leaves `.cache/compose/docker-compose` and, beside it, a JSON file with `{file, sha256}`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys

from tools import bed
from tools.bed import CACHE, BedError, say

PLUGIN = CACHE / "compose" / "docker-compose"
RECORD = PLUGIN.with_suffix(".json")
# The program is written to standard output, everything else to standard error.
SCRIPT = """
set -e
cd /tmp
apt-get -q update >&2
apt-get -q download docker-compose >&2
dpkg-deb --fsys-tarfile docker-compose_*.deb | tar -xO ./usr/libexec/docker/cli-plugins/docker-compose
"""


def ensure_plugin() -> dict[str, str]:
    """Returns {file, sha256}; fetches the package when it is not there yet. Raises bed.BedError."""
    PLUGIN.parent.mkdir(parents=True, exist_ok=True)
    # Two scenarios that start together fetch it once.
    with PLUGIN.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ensure_plugin()


def _ensure_plugin() -> dict[str, str]:
    if PLUGIN.is_file() and RECORD.is_file():
        known: dict[str, str] = json.loads(RECORD.read_text(encoding="utf-8"))
        return known
    bed.ensure_engine()
    base = bed.ensure_base("debian13")
    part = PLUGIN.with_suffix(".part")
    say("taking the Compose plugin out of Debian 13's package")
    with part.open("wb") as output:
        done = subprocess.run(["docker", "run", "--rm", base, "sh", "-c", SCRIPT], stdout=output, stderr=subprocess.PIPE, check=False)
    if done.returncode or not part.stat().st_size:
        lines = done.stderr.decode(errors="replace").splitlines()[-5:]
        raise BedError(
            "Debian's package docker-compose could not be fetched:\n" + "\n".join(lines), "Do containers reach the Debian mirror from here?"
        )
    part.replace(PLUGIN)
    record = {"file": str(PLUGIN), "sha256": hashlib.sha256(PLUGIN.read_bytes()).hexdigest()}
    RECORD.write_text(json.dumps(record) + "\n", encoding="utf-8")
    return record


def main() -> int:
    try:
        sys.stdout.write(json.dumps(ensure_plugin()) + "\n")
    except BedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
