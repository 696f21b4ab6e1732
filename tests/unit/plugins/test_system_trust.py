# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's list of authorities, kept by the real update-ca-certificates of Debian in a copy of its directories."""

from __future__ import annotations

import datetime
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._system_trust import BUNDLE, LOCAL, UPDATE, SystemTrust, TrustError
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca

NOW = datetime.datetime.now(datetime.UTC)
pytestmark = pytest.mark.skipif(not os.access(UPDATE, os.X_OK), reason="update-ca-certificates is not installed here")


def authority(name: str) -> str:
    return _internal_ca.create_root(name, NOW).certificate


ONE, TWO = authority("one"), authority("two")


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    """The directories of a host, with its own program that works on them."""
    for path in ("/etc/ssl/certs", "/etc/ca-certificates/update.d", "/usr/share/ca-certificates", "/usr/sbin", LOCAL):
        (tmp_path / path[1:]).mkdir(parents=True, exist_ok=True)
    (tmp_path / "usr/share/ca-certificates/distribution.crt").write_text(authority("distribution"))
    (tmp_path / "etc/ca-certificates.conf").write_text("distribution.crt\n")
    program = Path(f"{tmp_path}{UPDATE}")
    options = " ".join(
        f"--{option} {tmp_path}{path}"
        for option, path in {
            "certsconf": "/etc/ca-certificates.conf",
            "certsdir": "/usr/share/ca-certificates",
            "localcertsdir": LOCAL,
            "etccertsdir": "/etc/ssl/certs",
            "hooksdir": "/etc/ca-certificates/update.d",
        }.items()
    )
    program.write_text(f'#!/bin/sh\necho run >> {tmp_path}/runs\nexec {UPDATE} {options} "$@"\n')
    program.chmod(0o755)
    return tmp_path


def runs(root: Path) -> int:
    log = root / "runs"
    return len(log.read_text().splitlines()) if log.exists() else 0


def trusted(root: Path, pem: str) -> bool:
    """By the bundle, and by the directory of hashes."""
    certificate = root / "certificate.pem"
    certificate.write_text(pem)
    answers = [
        subprocess.run(["openssl", "verify", *options, str(certificate)], capture_output=True, check=False).returncode == 0
        for options in (
            ["-no-CApath", "-no-CAstore", "-CAfile", f"{root}{BUNDLE}"],
            ["-no-CAfile", "-no-CAstore", "-CApath", f"{root}/etc/ssl/certs"],
        )
    ]
    assert answers[0] is answers[1]
    return answers[0]


def test_authorities_come_and_go(root: Path) -> None:
    trust = SystemTrust("civitas", str(root))
    assert trust.apply([ONE, TWO], check=True) is True
    assert runs(root) == 0
    assert trust.apply([ONE, TWO], check=False) is True
    assert trusted(root, ONE) and trusted(root, TWO)
    assert trust.apply([ONE, TWO], check=False) is False
    assert trust.apply([TWO], check=True) is True
    assert trust.apply([TWO], check=False) is True
    assert not trusted(root, ONE) and trusted(root, TWO)
    assert trust.apply([], check=False) is True
    assert not trusted(root, TWO)
    assert trust.apply([], check=False) is False
    assert runs(root) == 3


def test_nothing_to_trust_changes_nothing(root: Path) -> None:
    assert SystemTrust("civitas", str(root)).apply([], check=False) is False
    assert runs(root) == 0
    assert os.listdir(f"{root}{LOCAL}") == []


@pytest.mark.parametrize("wanted", [[ONE, TWO], [ONE], []], ids=["came", "stayed", "went"])
def test_a_run_that_was_cut_off_before_the_program_is_made_up_for(root: Path, wanted: list[str]) -> None:
    trust = SystemTrust("civitas", str(root))
    trust.apply([ONE], check=False)
    program = Path(trust.update)
    works = program.read_text()
    program.write_text(f"#!/bin/sh\ncat {trust.directory}/*.crt {root}{BUNDLE} > {root}{BUNDLE}.new\nkill -9 $$\n")
    with pytest.raises(TrustError, match="update-ca-certificates"):
        trust.apply([TWO] if wanted == [ONE] else wanted, check=False)
    program.write_text(works)
    assert trust.apply(wanted, check=True) is True
    assert trust.apply(wanted, check=False) is True
    assert [pem for pem in (ONE, TWO) if trusted(root, pem)] == wanted
    assert trust.apply(wanted, check=False) is False


def test_one_directory_leaves_the_other_alone(root: Path) -> None:
    SystemTrust("civitas", str(root)).apply([ONE], check=False)
    internal = SystemTrust("civitas-internal", str(root))
    internal.apply([TWO], check=False)
    internal.apply([], check=False)
    assert trusted(root, ONE) and not trusted(root, TWO)


def test_a_file_that_somebody_changed_is_put_right(root: Path) -> None:
    trust = SystemTrust("civitas", str(root))
    trust.apply([ONE], check=False)
    (file,) = Path(trust.directory).iterdir()
    file.write_text(TWO)
    assert trust.apply([ONE], check=False) is True
    assert file.read_text() == ONE and trusted(root, ONE)


def test_a_list_that_somebody_else_wrote_without_it_is_put_right(root: Path) -> None:
    trust = SystemTrust("civitas", str(root))
    trust.apply([ONE], check=False)
    Path(trust.bundle).write_text(TWO)
    assert trust.apply([ONE], check=False) is True
    assert trusted(root, ONE)


def test_without_the_package(root: Path) -> None:
    trust = SystemTrust("civitas", str(root))
    Path(trust.update).unlink()
    with pytest.raises(TrustError, match="install the package ca-certificates"):
        trust.apply([ONE], check=False)
    assert not os.path.isdir(trust.directory)
    assert trust.apply([ONE], check=False, package_follows=True) is True
    assert len(os.listdir(trust.directory)) == 1
