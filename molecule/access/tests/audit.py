# SPDX-License-Identifier: GPL-3.0-or-later
"""What ssh-audit, an independent judge, says of an SSH server.

python audit.py ADDRESS default|strict    ends with 1 when that is more than the profile allows
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import bed, judges


def objections(address: str, profile: str) -> list[str]:
    """The default profile allows key exchanges that a quantum computer breaks beside others, the strict one nothing at all."""
    environment = judges.ensure_programs(judges.SOURCES / "requirements-ssh.txt", bed.CACHE / "judges-ssh")
    program = [str(environment / "ssh-audit"), "--json", "--skip-rate-test", address]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    said = json.loads(done.stdout)
    if not all(said[kind] for kind in ("kex", "key", "enc", "mac")):
        return [f"nothing was judged: {done.stdout[:300]}"]
    notes = [
        f"{level}: {entry['algorithm']}: {text}"
        for kind in ("kex", "key", "enc", "mac")
        for entry in said[kind]
        for level in ("fail", "warn")
        for text in entry.get("notes", {}).get(level, [])
    ]
    if profile == "strict":
        return notes or ([f"exit status {done.returncode}"] if done.returncode else [])
    return [note for note in notes if note.startswith("fail") or "post-quantum" not in note]


if __name__ == "__main__":
    found = objections(*sys.argv[1:])
    print("\n".join(found))
    sys.exit(1 if found else 0)
