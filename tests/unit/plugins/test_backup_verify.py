# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets that were tampered with: each is refused before anything is written, and what is wrong is named. And the page's commands by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_format as form
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tree as tree
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils._backup_verify import VerifyError

from tests.unit.backup_sets import Host, age_key, block, flip, listing, needs_programs, ssh_key
from tests.unit.plugins.test_backup_tree import strange_tree

pytestmark = needs_programs


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "host")
    (host.data / "record").write_text("one record")
    (host.data / "scan").write_bytes(os.urandom(100_000))
    return host


def problems(host: Host, directory: Path) -> list[str]:
    return verify.check_ciphers(str(directory), host.read(directory))


def test_a_good_set(host: Host) -> None:
    directory = host.backup()
    assert problems(host, directory) == []
    verify.check_contents(str(directory), host.read(directory), str(host.key))
    verify.check_contents(str(directory), host.read(directory), str(host.base / "escrow.key"))


def test_members_that_are_not_what_was_sent(host: Host) -> None:
    directory = host.backup()
    index, rest, pack = (directory / member.name for member in host.read(directory).members.values())
    flip(pack)
    assert problems(host, directory) == [f"{pack.name} was altered: its size is right, its SHA-256 is not"]
    pack.write_bytes(pack.read_bytes()[:1000])
    assert problems(host, directory)[0].startswith(f"{pack.name} is truncated: 1000 of ")
    pack.unlink()
    assert problems(host, directory) == [f"{pack.name} is missing"]
    rest.rename(directory / "x")
    index.rename(rest)
    (directory / "x").rename(index)
    assert problems(host, directory)[:2] == [
        f"{index.name} holds what {rest.name} should hold",
        f"{rest.name} holds what {index.name} should hold",
    ]
    (directory / "x").write_bytes(index.read_bytes())
    rest.rename(index)
    (directory / "x").rename(rest)
    with rest.open("ab") as file:
        file.write(b"x")
    assert problems(host, directory)[0] == f"{rest.name} is 1 bytes too long"


def test_the_wrong_key(host: Host, tmp_path: Path) -> None:
    directory = host.backup()
    age_key(tmp_path / "wrong")
    with pytest.raises(
        VerifyError, match=rf"tree-data-index-\w+.tar.zst.age is not encrypted to this key; take .*, {' or '.join(host.recipients)};"
    ):
        verify.check_contents(str(directory), host.read(directory), str(tmp_path / "wrong"))
    with pytest.raises(VerifyError, match="cannot be decrypted"):
        verify.check_contents(str(directory), host.read(directory), str(tmp_path / "none"))


def test_manifests_of_others(host: Host, tmp_path: Path) -> None:
    directory = host.backup()
    thief = ssh_key(tmp_path / "thief")
    with pytest.raises(VerifyError, match="the signature of the manifest is not records1's"):
        verify.read_set(str(directory), "records1", [thief])
    with pytest.raises(VerifyError, match="nobody is known to sign"):
        verify.read_set(str(directory), "records1", [])
    # The same key signs for two hosts.
    with pytest.raises(VerifyError, match="is a set of records1 and not of records2"):
        verify.read_set(str(directory), "records2", [host.signer])
    # A signature for something else.
    raw = (directory / "manifest.json").read_bytes()
    other = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(host.base / "sign"), "-n", "git"], input=raw, capture_output=True, check=True
    )
    (directory / "manifest.json.sig").write_bytes(other.stdout)
    with pytest.raises(VerifyError, match="the signature of the manifest is not"):
        host.read(directory)
    (directory / "manifest.json.sig").unlink()
    with pytest.raises(VerifyError, match=r"manifest.json.sig is missing"):
        host.read(directory)


def test_an_altered_manifest(host: Host) -> None:
    directory = host.backup()
    raw = (directory / "manifest.json").read_bytes()
    (directory / "manifest.json").write_bytes(raw.replace(b'"files":3', b'"files":4'))
    assert raw != (directory / "manifest.json").read_bytes()
    with pytest.raises(VerifyError, match="the signature of the manifest is not"):
        host.read(directory)


def test_an_old_set_under_a_new_name(host: Host) -> None:
    directory = host.backup()
    new = directory.with_name(form.new_set_id(time.time() + 86400))
    shutil.copytree(directory, new)
    with pytest.raises(VerifyError, match=f"holds the manifest of the set {directory.name}; somebody has put it there"):
        host.read(new)


def test_the_chain(host: Host) -> None:
    now = time.time() - 10_000
    sets = [host.read(host.backup(now + 1000 * number)) for number in range(4)]
    assert verify.check_chain(sets) == []
    assert verify.check_chain(sets[1:]) == []
    assert verify.check_chain([sets[0], *sets[2:]]) == [f"{sets[1].set_id} is missing, which {sets[2].set_id} follows"]
    replaced = sets[1]._replace(sha256="0" * 64)
    assert verify.check_chain([sets[0], replaced, *sets[2:]]) == [
        f"{sets[2].set_id} follows another {sets[1].set_id} than the one that is here"
    ]
    assert verify.check_chain([sets[0], sets[1]._replace(previous=None)]) == [f"{sets[1].set_id} follows none, and is not the first"]


# --- what a host in wrong hands may have signed


def resign(host: Host, directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((directory / "manifest.json").read_text())
    change(content)
    raw = form.encode(content)
    (directory / "manifest.json").write_bytes(raw)
    (directory / "manifest.json.sig").write_bytes(form.sign(raw, str(host.base / "sign")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=2), "has format 2"),
        (lambda content: content.update(host="../x"), "the name of its host"),
        (lambda content: content.update(environment="../x"), "the kind of its environment"),
        (lambda content: content.pop("environment"), "cannot be read: KeyError"),
        (lambda content: content.update(begin="2020-01-01T00:00:00Z"), "its times"),
        (lambda content: content.update(complete=False), "it is complete and has failures"),
        (lambda content: content["members"][0].update(name="../../etc/x.age"), "the member '../../etc/x.age'"),
        (lambda content: content["members"][0].update(bytes=True), "the sizes of"),
        (lambda content: content["members"].append(content["members"][0]), "a member is there twice"),
        (lambda content: content["sources"][0].update(kind="x"), "the kind or name of a source"),
        (lambda content: content.update(sources=[]), "members and sources do not fit"),
        (lambda content: content.pop("members"), "cannot be read: KeyError"),
    ],
)
def test_manifests_that_are_none(host: Host, change: Callable[[dict[str, Any]], None], message: str) -> None:
    directory = host.backup()
    resign(host, directory, change)
    with pytest.raises(VerifyError, match=re.escape(message)):
        host.read(directory)


def test_manifests_that_are_written_in_another_way(host: Host) -> None:
    directory = host.backup()
    raw = json.dumps(json.loads((directory / "manifest.json").read_text())).encode()
    (directory / "manifest.json").write_bytes(raw)
    (directory / "manifest.json.sig").write_bytes(form.sign(raw, str(host.base / "sign")))
    with pytest.raises(VerifyError, match="not written in the one way"):
        host.read(directory)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"path": "../outside"}, "is wrong"),
        ({"path": "/etc/cron.d/x"}, "is wrong"),
        ({"path": "nowhere/x"}, "is wrong"),
        ({"sha256": "0" * 64}, "is not what the index says"),
        ({"at": 99}, "lacks 1 files"),
        ({"pack": "x"}, "an index cannot be read"),
        ({"size": 1}, "is not what the index says"),
    ],
)
def test_an_index_that_lies(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: dict[str, Any], message: str) -> None:
    real = tree.index_line

    def lie(row: tree.Row, pack: str) -> bytes:
        found = json.loads(real(row, pack))
        return (json.dumps({**found, **line}) + "\n").encode() if row.name == b"record" else real(row, pack)

    monkeypatch.setattr(tree, "index_line", lie)
    directory = host.backup()
    manifest = host.read(directory)
    with pytest.raises(VerifyError, match=message):
        verify.check_contents(str(directory), manifest, str(host.key))
    with pytest.raises(VerifyError, match=message):
        verify.extract_tree(str(directory), manifest, manifest.sources[0], str(host.key), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_canary(host: Host) -> None:
    directory = host.backup()
    resign(host, directory, lambda content: content["sources"][0]["canary"].update(nonce="f" * 32))
    with pytest.raises(VerifyError, match="the canary of data is not the one"):
        verify.check_contents(str(directory), host.read(directory), str(host.key))


def test_a_size_of_the_plain_text_that_is_wrong(host: Host) -> None:
    directory = host.backup()
    resign(host, directory, lambda content: content["members"][-1].update(plain_bytes=1))
    with pytest.raises(VerifyError, match="its content is not what the manifest says"):
        verify.check_contents(str(directory), host.read(directory), str(host.key))


def test_what_another_release_says_of_a_member_besides(host: Host) -> None:
    directory = host.backup()
    resign(host, directory, lambda content: [member.update(plain_sha256="0" * 64) for member in content["members"]])
    verify.check_contents(str(directory), host.read(directory), str(host.key))


def test_a_target_that_is_there(host: Host, tmp_path: Path) -> None:
    directory = host.backup()
    manifest = host.read(directory)
    with pytest.raises(VerifyError, match="is there already"):
        verify.extract_tree(str(directory), manifest, manifest.sources[0], str(host.key), str(tmp_path))
    assert host.data.exists()


# --- by hand


def by_hand(title: str, **variables: str) -> subprocess.CompletedProcess[str]:
    script = "set -eu\n" + "".join(f"{name}='{value}'\n" for name, value in variables.items()) + block(title)
    return subprocess.run(["sh"], input=script, capture_output=True, text=True, check=False)


def test_the_page_proves_a_set(host: Host) -> None:
    directory = host.backup()
    variables = {"SET": str(directory), "HOST": "records1", "SIGNER": host.signer}
    done = by_hand("Is it what the host has sent\\?", **variables)
    assert done.returncode == 0 and "Good" in done.stdout, done
    flip(next(directory.glob("tree-data-0*")))
    assert by_hand("Is it what the host has sent\\?", **variables).returncode != 0
    (directory / "manifest.json").write_bytes((directory / "manifest.json").read_bytes().replace(b'"files":3', b'"files":4'))
    done = by_hand("Is it what the host has sent\\?", **variables)
    assert done.returncode != 0 and "Good" not in done.stdout


def test_the_page_restores_a_tree(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_STEP", 0)
    strange_tree(host.data)
    (host.data / "was-directory").mkdir()
    (host.data / "was-directory/x").write_text("1")
    (host.data / "was-file").write_text("1")
    host.backup()
    shutil.rmtree(host.data / "was-directory")
    (host.data / "was-directory").write_text("a file now")
    (host.data / "was-file").unlink()
    (host.data / "was-file").mkdir()
    (host.data / "was-file/y").write_text("y")
    (host.data / "new\nline").unlink()
    (host.data / "empty").unlink()
    directory = host.backup()
    assert host.made is not None and len(host.made.source["packs"]) == 2
    done = by_hand("A file tree", SET=str(directory), KEY=str(host.key), NAME="data", OUT=str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (0, "")
    assert listing(tmp_path / "out") == listing(host.data)
