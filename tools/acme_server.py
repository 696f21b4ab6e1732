# SPDX-License-Identifier: GPL-3.0-or-later
"""The ACME server of the tests: Pebble, built from its published Go module with the Go of this machine.

python -m tools.acme_server    build it unless the cache has it, and print the path of the program
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tools import bed
from tools.bed import CACHE, BedError, say

MODULE = "github.com/letsencrypt/pebble/v2/cmd/pebble"
VERSION = "v2.10.1"
PROGRAM = CACHE / "acme" / f"pebble-{VERSION}"


def obstacle() -> str:
    """Why there can be no ACME server here; empty when there is one or can be."""
    if PROGRAM.is_file() or shutil.which("go"):
        return ""
    return "Go is not installed, and the ACME server of the test is built with it"


def build() -> Path:
    """The program; a static one, so that it runs in any host of the test bed. Takes half a minute the first time."""
    if PROGRAM.is_file():
        return PROGRAM
    if reason := obstacle():
        raise BedError(f"{reason}.", "Install Go (1.22 or newer), then repeat.")
    say(f"building Pebble {VERSION}")
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PROGRAM.parent) as folder:
        # GOBIN is refused for foreign platforms; the test bed's hosts are of this machine's.
        environment = {name: value for name, value in os.environ.items() if name not in ("GOOS", "GOARCH")}
        environment.update(CGO_ENABLED="0", GOBIN=folder)
        bed.run("go", "install", "-trimpath", f"{MODULE}@{VERSION}", timeout=600, env=environment)
        # In one step: another run may look for it at the same time.
        Path(folder, "pebble").replace(PROGRAM)
    return PROGRAM


def main() -> int:
    """Entry point; errors are one or two lines, never a traceback."""
    try:
        sys.stdout.write(f"{build()}\n")
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
