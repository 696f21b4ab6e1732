# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of hosts get all files that they import, and run with the standard library alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.civitas.hosting.plugins.lookup import host_program


def test_all_that_is_imported_at_any_depth():
    certificates = [f"_certificate_{name}" for name in ("install", "program", "store", "watch", "wire")]
    assert host_program.modules(["_certificate_program"]) == [*certificates, "_journal_lines"]
    # These are imported within functions.
    assert {"_login_delivery", "_login_digest", "_login_spool", "_login_text"} < set(host_program.modules(["_login_program"]))


def test_one_that_is_not_there():
    with pytest.raises(AnsibleLookupError, match="no module '_missing'"):
        host_program.modules(["_missing"])


@pytest.mark.parametrize("program", ["_backup_program", "_certificate_program", "_login_program", "_store_program"])
def test_the_files_are_enough(tmp_path, program):
    (files,) = host_program.LookupModule().run([program])
    for file in files:
        path = tmp_path / file["dest"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if "src" in file:
            path.write_bytes(Path(file["src"]).read_bytes())
        else:
            path.write_text(file["content"])
    code = f"import sys; sys.path.insert(0, {str(tmp_path / host_program.LIBRARY)!r}); from {host_program.PACKAGE}.{program} import main"
    code += "; main(['--help'])"
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage: civitas-" in done.stdout, done.stderr
