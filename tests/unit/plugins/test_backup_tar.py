# SPDX-License-Identifier: GPL-3.0-or-later
"""Tar streams: what tar(1) makes of them, and what the reader makes of anything."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_tar as tar
from ansible_collections.civitas.hosting.plugins.module_utils._backup_tar import Entry, TarError, TarReader
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name)
ENTRIES = st.builds(
    Entry,
    path=NAMES,
    kind=st.sampled_from([tar.FILE, tar.DIRECTORY, tar.SYMBOLIC_LINK, tar.FIFO]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime=st.integers(0, 2**33 * 10**9),
    size=st.just(0),
    device=st.just((0, 0)),
    link=st.one_of(st.just(b""), NAMES),
    xattrs=st.lists(
        st.tuples(st.sampled_from([b"user.a", b"user.long name", b"security.x"]), st.binary(max_size=200)), unique_by=lambda one: one[0]
    ).map(tuple),
)


def stream(*parts: tuple[Entry, bytes]) -> bytes:
    return b"".join(tar.header(entry._replace(size=len(data))) + data + tar.padding(len(data)) for entry, data in parts) + tar.END


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    found = []
    reader = TarReader(io.BytesIO(data))
    for entry in reader:
        found.append((entry, b"".join(reader.content())))
    return found


@given(st.lists(st.tuples(ENTRIES, st.binary(max_size=2000)), max_size=5))
def test_what_is_written_is_read(parts: list[tuple[Entry, bytes]]) -> None:
    wanted = [(entry._replace(size=len(data)), data) for entry, data in parts]
    assert read(stream(*parts)) == wanted


def test_sizes_that_the_old_header_has_no_room_for() -> None:
    entry = Entry(b"large", tar.FILE, 0o600, 0, 0, 0, 9 * 2**30)
    reader = iter(TarReader(io.BytesIO(tar.header(entry))))
    assert next(reader).size == 9 * 2**30
    with tarfile.open(fileobj=io.BytesIO(tar.header(entry))) as archive:
        assert next(iter(archive)).size == 9 * 2**30


def test_tar_takes_it(tmp_path: Path) -> None:
    long = b"d" * 99 + b"/" + b"f" * 200
    parts = [
        (Entry(b"d" * 99, tar.DIRECTORY, 0o750, os.getuid(), os.getgid(), 5 * 10**9), b""),
        (Entry(long, tar.FILE, 0o640, os.getuid(), os.getgid(), 1_234_567_890_123_456_789), b"content"),
        (Entry(b"no\xffutf", tar.FILE, 0o4711, os.getuid(), os.getgid(), 1), b""),
        (Entry(b"link", tar.SYMBOLIC_LINK, 0o777, os.getuid(), os.getgid(), 1, link=b"x" * 150), b""),
        (Entry(b"hard", tar.HARD_LINK, 0o640, os.getuid(), os.getgid(), 1, link=long), b""),
    ]
    done = subprocess.run(["tar", "-xp", "-C", str(tmp_path)], input=stream(*parts), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    root = os.fsencode(tmp_path) + b"/"
    assert os.stat(root + long).st_mtime_ns == 1_234_567_890_123_456_789
    assert os.stat(root + b"hard").st_ino == os.stat(root + long).st_ino
    assert os.readlink(root + b"link") == b"x" * 150
    assert os.stat(root + b"no\xffutf").st_mode & 0o7777 == 0o4711


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1023, 1024])
def test_what_is_cut_off(size: int) -> None:
    whole = stream((Entry(b"a", tar.FILE, 0o600, 0, 0, 10**9), b"x" * 100))
    with pytest.raises(TarError):
        read(whole[:size])


@pytest.mark.parametrize("size", [9, 98, 99, 996, 997, 9995])
def test_lengths_of_records_count_themselves(size: int) -> None:
    entry = Entry(b"a" * size, tar.FILE, 0o600, 0, 0, 0)
    assert read(stream((entry, b"")))[0][0].path == b"a" * size


@pytest.mark.parametrize("damage", [0, 100, 124, 148, 156, 257])
def test_a_damaged_header(damage: int) -> None:
    data = bytearray(stream((Entry(b"a", tar.FILE, 0o600, 0, 0, 0), b"x")))
    start = data.index(b"ustar") - 257
    data[start + damage] ^= 1
    with pytest.raises(TarError):
        read(bytes(data))


@given(st.binary(max_size=3000))
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(TarError):
        read(data)


def test_something_behind_the_end() -> None:
    with pytest.raises(TarError, match="something follows the end"):
        read(tar.END + b"x")
