# SPDX-License-Identifier: GPL-3.0-or-later
"""Archives by the real openssl, gzip and tar, good ones and those that are damaged or want to do harm."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._import_archive import (
    ArchiveError,
    Budget,
    Entry,
    Gunzip,
    Tar,
    WrongPassphraseError,
    opened,
    read_passphrase,
)

from tests.unit.import_archives import PASSPHRASE, encrypt, needs_programs, tar, write

pytestmark = needs_programs
LIMIT = 2**30


def entries(path: Path, passphrase: bytes | None = PASSPHRASE, limit: int = LIMIT) -> dict[str, bytes]:
    found = {}
    with opened(str(path), passphrase) as stream:
        budget = Budget(limit)
        archive = Tar(Gunzip(stream, budget), budget)
        for entry in archive:
            found[entry.shown] = b"".join(archive.content())
    return found


@pytest.fixture(name="tree")
def _tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    write(tree / "folder/small", "one")
    write(tree / "large", os.urandom(3_000_000))
    write(tree / ("n" * 60) / ("m" * 60), "a long name")
    (tree / "again").hardlink_to(tree / "large")
    return tree


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
def test_what_tar_and_openssl_make_is_read(tree: Path, tmp_path: Path, form: str) -> None:
    tar(tree, tmp_path / "a.tar.gz", f"--format={form}", ".")
    found = entries(encrypt(tmp_path / "a.tar.gz", tmp_path / "a.enc"))
    assert found["folder/small"] == b"one" and found[f"{'n' * 60}/{'m' * 60}"] == b"a long name"
    # One of the two names holds the content, the other is a link.
    assert sorted([len(found["large"]), len(found["again"])]) == [0, 3_000_000] and "" in found and "folder" in found


def test_busybox_is_read(tree: Path, tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed here")
    subprocess.run(["busybox", "tar", "-czf", str(tmp_path / "a.tar.gz"), "-C", str(tree), "."], check=True)
    assert entries(tmp_path / "a.tar.gz", None)["folder/small"] == b"one"


def test_a_wrong_passphrase(tree: Path, tmp_path: Path) -> None:
    tar(tree, tmp_path / "a.tar.gz")
    file = encrypt(tmp_path / "a.tar.gz", tmp_path / "a.enc")
    with pytest.raises(WrongPassphraseError, match="passphrase is wrong"):
        entries(file, b"another")
    with pytest.raises(ArchiveError, match="it is encrypted"):
        entries(file, None)
    with pytest.raises(ArchiveError, match="not encrypted by"):
        entries(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("cut", [1, 16, 4096, 3_000_000 - 16])
def test_a_cut_archive(tree: Path, tmp_path: Path, cut: int) -> None:
    tar(tree, tmp_path / "a.tar.gz")
    file = encrypt(tmp_path / "a.tar.gz", tmp_path / "a.enc")
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(ArchiveError, match=r"cut off|passphrase|damaged"):
        entries(file)


def test_an_end_that_cannot_be_decrypted(tree: Path, tmp_path: Path) -> None:
    tar(tree, tmp_path / "a.tar.gz")
    whole = (tmp_path / "a.tar.gz").read_bytes()
    # All that counts is in the blocks before the last one.
    (tmp_path / "a.tar.gz").write_bytes(whole + bytes(-len(whole) % 16))
    file = encrypt(tmp_path / "a.tar.gz", tmp_path / "a.enc")
    assert entries(file)["folder/small"] == b"one"
    file.write_bytes(file.read_bytes()[:-16])
    with pytest.raises(ArchiveError, match="its end cannot be decrypted"):
        entries(file)


def test_each_flipped_bit_is_found(tree: Path, tmp_path: Path) -> None:
    tar(tree, tmp_path / "a.tar.gz", "folder")
    file = encrypt(tmp_path / "a.tar.gz", tmp_path / "a.enc")
    good = file.read_bytes()
    # The flags and the time in the header of gzip are of no account; they lie in the first block.
    for at in range(32, len(good), 5):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(ArchiveError):
            entries(file)


def test_a_tar_without_its_end(tree: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-cf", str(tmp_path / "a.tar"), "-C", str(tree), "folder"], check=True)
    whole = (tmp_path / "a.tar").read_bytes()
    for cut, message in ((len(whole.rstrip(b"\0")) // 512 * 512 + 512, "mark at its end"), (1030, "cut off")):
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole[:cut]))
        with pytest.raises(ArchiveError, match=message):
            entries(tmp_path / "a.tar.gz", None)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole + b"more"))
    with pytest.raises(ArchiveError, match="something follows"):
        entries(tmp_path / "a.tar.gz", None)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(whole) + b"more")
    with pytest.raises(ArchiveError, match="something follows"):
        entries(tmp_path / "a.tar.gz", None)


def malicious(path: Path, **changes: object) -> Path:
    info = tarfile.TarInfo("harmless")
    for name, value in changes.items():
        setattr(info, name, value)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(info, io.BytesIO(b"x" * info.size))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../outside"}, "leads out"),
        ({"name": "a/../../outside"}, "leads out"),
        ({"name": "/etc/passwd"}, "leads out"),
        ({"name": "x" * 200 + "/../../../outside"}, "leads out"),
        ({"type": tarfile.LNKTYPE, "linkname": "../../etc/shadow"}, "leads out"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc"}, "not allowed"),
        ({"type": tarfile.SYMTYPE, "linkname": "folder"}, "not allowed"),
        ({"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, "not allowed"),
        ({"type": tarfile.FIFOTYPE}, "not allowed"),
        ({"type": tarfile.GNUTYPE_SPARSE}, "not allowed"),
        ({"pax_headers": {"GNU.sparse.major": "1"}}, "sparse"),
        ({"pax_headers": {"size": "-5"}}, "damaged"),
        ({"pax_headers": {"mtime": "inf"}}, "damaged"),
        ({"pax_headers": {"path": "../outside"}}, "leads out"),
    ],
)
def test_what_wants_to_do_harm_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        entries(malicious(tmp_path / "a.tar.gz", **changes), None)


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    malicious(tmp_path / "a.tar.gz", size=50_000_000)
    assert (tmp_path / "a.tar.gz").stat().st_size < 100_000
    with pytest.raises(ArchiveError, match="more than 10000000 bytes"):
        entries(tmp_path / "a.tar.gz", None, 10_000_000)
    with opened(str(malicious(tmp_path / "b.tar.gz")), None) as stream, pytest.raises(ArchiveError, match="more entries"):
        list(Tar(Gunzip(stream, Budget(LIMIT)), Budget(LIMIT, entries=0)))


def test_the_passphrase_is_on_no_command_line(tree: Path, tmp_path: Path) -> None:
    tar(tree, tmp_path / "a.tar.gz")
    file = encrypt(tmp_path / "a.tar.gz", tmp_path / "a.enc")
    with opened(str(file), PASSPHRASE) as stream:
        stream.read(1)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        commands = [(Path("/proc") / child / part).read_bytes() for child in children for part in ("cmdline", "environ")]
    assert any(b"openssl" in command for command in commands)
    assert not any(b"passphrase with" in command for command in commands)


def test_passphrases_are_read(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(PASSPHRASE + b"\nanother line\n")
    file.chmod(0o640)
    with pytest.raises(ArchiveError, match="chmod 600"):
        read_passphrase(str(file), io.BytesIO())
    file.chmod(0o600)
    assert read_passphrase(str(file), io.BytesIO()) == PASSPHRASE
    assert read_passphrase("-", io.BytesIO(PASSPHRASE)) == PASSPHRASE
    for wrong in (b"", b"\n", b"x" * 1001):
        with pytest.raises(ArchiveError, match="is empty"):
            read_passphrase("-", io.BytesIO(wrong))


def test_entries_show_names_that_are_no_text() -> None:
    assert Entry(b"a\xffb", "f", 0, 0, b"").shown == "a\\xffb"
