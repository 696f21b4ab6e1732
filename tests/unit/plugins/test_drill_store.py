# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that drills by itself: it reads the sets of the hosts it is told to over a real sshd, for as long as the store says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _store_give as give

from tests.unit.backup_sets import flip
from tests.unit.backup_sites import Site, needs_programs, program

pytestmark = needs_programs


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "site")
    (site.data / "record").write_bytes(bytes(range(256)) * 4000)
    site.backup()
    site.standing()
    yield site
    site.close()


def drill(site: Site) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """How it ended, and its newest report."""
    config = {
        "host": "staging1",
        "environment": "staging",
        "directory": str(site.base / "drill"),
        "metrics_file": str(site.base / "drill.prom"),
        "minimum_free_bytes": 0,
        "keep_reports": 100,
        "late_hours": 26,
        "origins": [
            {
                "host": "records1",
                "signers": [site.signer],
                "identity": str(site.identity),
                "store": {**site.config["store"], "key": str(site.base / "reader"), "tries": 1},
            }
        ],
        "programs": "/usr/lib/postgresql/{major}/bin",
        "via": [],
        "settings": {},
        "anonymise": [],
        "logins": [],
    }
    path = site.base / "drill.json"
    path.write_text(json.dumps(config))
    if not (site.base / "drill").exists():
        # A host that was just set up is not at fault; an alarm rings when none ever comes.
        new = subprocess.run([*program("_drill_program"), "--config", str(path), "status"], capture_output=True, text=True, check=False)
        assert new.returncode == 0 and "records1: no drill has ended yet" in new.stdout + new.stderr, new
    done = subprocess.run([*program("_drill_program"), "--config", str(path), "run"], capture_output=True, text=True, check=False)
    status = subprocess.run(
        [*program("_drill_program"), "--config", str(path), "status", "--json"], capture_output=True, text=True, check=False
    )
    state = json.loads(status.stdout)["records1"]
    assert status.returncode == done.returncode and bool(state["problem"]) == bool(done.returncode), (state, done)
    assert not (site.base / "drill/work").exists()
    return done, dict(json.loads(Path(state["report"]).with_suffix(".json").read_text()))


def test_a_set_from_the_store(site: Site) -> None:
    done, report = drill(site)
    assert (done.returncode, report["problems"]) == (0, []), done.stderr
    assert report["set"] == site.sets()[-1].name and report["seconds"]["fetch"] > 0
    assert report["sources"][0]["files"] == 2


def test_a_set_that_the_store_has_lost_a_bit_of(site: Site) -> None:
    flip(next(site.sets()[-1].glob("tree-data-0*.age")))
    done, report = drill(site)
    assert done.returncode == 1
    assert "the store has another tree-data-0" in report["problems"][0] and report["problems"][0] in done.stderr


def test_a_store_that_is_told_nothing_any_more(site: Site) -> None:
    site.store_config["hosts"]["records1"]["readers"] = []
    site.write()
    done, report = drill(site)
    assert done.returncode == 1 and "this grant has ended" in report["problems"][0]


def test_the_key_reads_no_other_host_and_writes_nothing(site: Site) -> None:
    words = ["ssh", "-F", "none", "-T", "-p", str(site.port), "-i", str(site.base / "reader"), "-o", "BatchMode=yes"]
    words += ["-o", f"UserKnownHostsFile={site.base}/known_hosts", "127.0.0.1", "--"]
    newest = site.sets()[-1].name
    for asked in ("have", f"begin {newest} 5", f"commit {newest}", "sh", f"get ../../other/sets/{newest} manifest.json 0"):
        done = subprocess.run([*words, asked], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode != 0 and (not done.stdout or b"error" in done.stdout), done
    (grant,) = list(give.standing({"other": [(site.base / "reader.pub").read_text().strip()]}))
    assert grant not in (site.base / "authorized").read_text()
