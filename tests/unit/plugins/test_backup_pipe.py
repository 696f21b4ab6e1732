# SPDX-License-Identifier: GPL-3.0-or-later
"""Members by the real age and zstd: what goes in comes out, and what cannot be made or read is said."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_pipe as pipe
from ansible_collections.civitas.hosting.plugins.module_utils._backup_format import Member
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import PipeError, Writer, WrongKeyError

from tests.unit.backup_sets import age_key, flip, needs_programs
from tests.unit.backup_sites import COLLECTIONS

pytestmark = needs_programs


def make(path: Path, recipients: list[str], *parts: bytes) -> Member:
    writer = Writer(path.name, recipients, path.open("wb"), lambda: None)
    for part in parts:
        writer.write(part)
    return writer.close()


def read(path: Path, member: Member, key: Path) -> bytes:
    with pipe.reader(str(path), member, str(key)) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


def test_each_recipient_reads_it(tmp_path: Path) -> None:
    keys = [tmp_path / "operator", tmp_path / "escrow"]
    recipients = [age_key(key) for key in keys]
    parts = [b"one", b"", os.urandom(3_000_000), b"end"]
    member = make(tmp_path / "m.age", recipients, *parts)
    plain = b"".join(parts)
    cipher = (tmp_path / "m.age").read_bytes()
    assert member == ("m.age", len(cipher), hashlib.sha256(cipher).hexdigest(), len(plain))
    assert [read(tmp_path / "m.age", member, key) for key in keys] == [plain, plain]


def test_nothing_at_all(tmp_path: Path) -> None:
    recipient = age_key(tmp_path / "key")
    assert read(tmp_path / "m.age", make(tmp_path / "m.age", [recipient]), tmp_path / "key") == b""


def test_what_cannot_be_read(tmp_path: Path) -> None:
    recipient = age_key(tmp_path / "key")
    age_key(tmp_path / "wrong")
    path = tmp_path / "m.age"
    member = make(path, [recipient], os.urandom(300_000))
    with pytest.raises(WrongKeyError):
        read(path, member, tmp_path / "wrong")
    whole = path.read_bytes()
    for damage in (
        lambda: flip(path, -20),
        lambda: flip(path, 20),
        lambda: path.write_bytes(whole[:200_000]),
        lambda: path.write_bytes(b""),
    ):
        damage()
        with pytest.raises(PipeError, match="cannot be decrypted"):
            read(path, member, tmp_path / "key")
        path.write_bytes(whole)
    other = make(path, [recipient], b"something else")
    assert read(path, other, tmp_path / "key") == b"something else"
    with pytest.raises(PipeError, match="its content is not what the manifest says"):
        read(path, member, tmp_path / "key")


def test_the_end_is_judged_before_who_reads_sees_it(tmp_path: Path) -> None:
    """Else a damaged stream would be taken for a short one."""
    recipient = age_key(tmp_path / "key")
    path = tmp_path / "m.age"
    member = make(path, [recipient], os.urandom(300_000))
    path.write_bytes(path.read_bytes()[:200_000])
    with pipe.reader(str(path), member, str(tmp_path / "key")) as stream, pytest.raises(PipeError):
        while True:
            assert stream.read(1000)


@pytest.mark.parametrize("missing", ["age", "zstd"])
def test_a_program_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    recipient = age_key(tmp_path / "key")
    for name in {"age", "zstd"} - {missing}:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(PipeError, match=f"the package {missing} is missing"):
        pipe.check_recipients([recipient])


def test_a_program_that_dies(tmp_path: Path) -> None:
    writer = Writer("m.age", [age_key(tmp_path / "key")], (tmp_path / "m.age").open("wb"), lambda: None)
    writer._parts[0].kill()
    with pytest.raises(PipeError, match="zstd ended with -9"):
        for _turn in range(100):
            writer.write(os.urandom(2**20))


@pytest.mark.parametrize("part", [0, 1], ids=["zstd", "age"])
def test_a_program_that_dies_at_the_end(tmp_path: Path, part: int) -> None:
    writer = Writer("m.age", [age_key(tmp_path / "key")], (tmp_path / "m.age").open("wb"), lambda: None)
    writer.write(b"little")
    writer._parts[part].kill()
    writer._parts[part].wait()
    with pytest.raises(PipeError, match="ended with -9"):
        writer.close()


def test_a_full_disk_is_seen_at_the_end_as_well(tmp_path: Path) -> None:
    writer = Writer("m.age", [age_key(tmp_path / "key")], open("/dev/full", "wb", buffering=0), lambda: None)  # noqa: SIM115
    writer.write(b"little")
    with pytest.raises(PipeError, match="No space left on device"):
        writer.close()


def test_a_full_disk(tmp_path: Path) -> None:
    writer = Writer("m.age", [age_key(tmp_path / "key")], open("/dev/full", "wb", buffering=0), lambda: None)  # noqa: SIM115
    with pytest.raises(PipeError, match="No space left on device"):
        for _turn in range(100):
            writer.write(os.urandom(2**20))
        writer.close()


def test_room_is_asked_for(tmp_path: Path) -> None:
    def room() -> None:
        raise PipeError("too full")

    writer = Writer("m.age", [age_key(tmp_path / "key")], (tmp_path / "m.age").open("wb"), room)
    with pytest.raises(PipeError, match="too full"):
        for _turn in range(100):
            writer.write(os.urandom(2**20))
        writer.close()


def test_memory_and_the_command_lines(tmp_path: Path) -> None:
    """However much it is; and what others see of the programs holds no secret."""
    recipient = age_key(tmp_path / "key")
    code = f"""
import os, sys, tempfile
sys.path.insert(0, {str(COLLECTIONS)!r})
from ansible_collections.civitas.hosting.plugins.module_utils._backup_pipe import Writer
writer = Writer("m", [{recipient!r}], tempfile.TemporaryFile(), lambda: None)
part = os.urandom(2**20)
for turn in range(200):
    writer.write(part)
for process in writer._parts:
    print(open(f"/proc/{{process.pid}}/cmdline").read().replace(chr(0), " "), file=sys.stderr)
peaks = [open(f"/proc/{{number}}/status").read().split("VmHWM:")[1].split()[0] for number in ["self", *(one.pid for one in writer._parts)]]
writer.close()
print(sum(map(int, peaks)))
"""
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False)
    lines = done.stderr.splitlines()
    assert lines[0].split() == ["zstd", "-q", "-c", f"-T{pipe.THREADS}", "-3"] and lines[1].split() == ["age", "-r", recipient]
    assert int(done.stdout) < 150 * 1024
