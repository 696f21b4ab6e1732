# SPDX-License-Identifier: GPL-3.0-or-later
"""What backups cost, beside the ways that people would take otherwise. Part of `make bench` (tools/bench.py).

All candidates save the same tree to the same disk, in turn, round after round, with the tree in the page cache: whatever else the machine
does falls on all of them alike. The processor time of a job and of all its programs is less disturbed by others than its seconds are.

The tree is made anew from a fixed seed: scans that do not compress, documents that do a little, many small records that do, and two large
exports. Nobody's data is in it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tools import bed
from tools.bed import BedError, say
from tools.bench_rows import Peak, Row, Spread

PARTS = {"backups": "backups of a tree, in seconds"}
MEBI = 2**20
OURS, REFERENCE = "civitas-backup", "tar.gz | openssl"
_NEEDED = ("age", "age-keygen", "zstd", "ssh-keygen", "tar", "gzip", "openssl")


# --- the tree


def make_tree(directory: Path, megabytes: int) -> int:
    """A tree of so many MiB; its bytes."""
    dice = random.Random(20260301)
    words = [dice.randbytes(dice.randint(2, 5)).hex() for _number in range(4000)]
    total = 0

    def write(name: str, content: bytes) -> None:
        nonlocal total
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        total += len(content)

    def some(count: int) -> str:
        return " ".join(dice.choices(words, k=count))

    def records(count: int) -> bytes:
        return "".join(
            json.dumps(
                {"id": dice.getrandbits(64), "name": " ".join(dice.choices(words, k=3)), "notes": " ".join(dice.choices(words, k=20))}
            )
            + "\n"
            for _number in range(count)
        ).encode()

    pool = records(4000)
    number = 0
    # In shares of the whole: scans, documents, small records.
    while total < megabytes * MEBI * 0.55:
        write(f"scans/{number % 97:02x}/{number:05d}.jpg", b"\xff\xd8\xff\xe0" + dice.randbytes(dice.randint(40_000, 700_000)))
        number += 1
    while total < megabytes * MEBI * 0.75:
        at = dice.randrange(len(pool) // 2)
        parts = [b"%PDF-1.7\n", pool[at : at + dice.randint(20_000, 200_000)], dice.randbytes(dice.randint(50_000, 900_000)), b"%%EOF\n"]
        write(f"documents/{number % 31:02d}/{number:05d}.pdf", b"".join(parts))
        number += 1
    while total < megabytes * MEBI * 0.88:
        at = dice.randrange(len(pool) - 40_000)
        write(f"records/{number % 211:03d}/{number:06d}.json", pool[at : at + dice.randint(300, 16_000)])
        number += 1
    for name in ("export-1.csv", "export-2.csv"):
        write(f"exports/{name}", b"".join(records(500) for _part in range(max(1, int(megabytes * 0.06 * MEBI / 130_000)))))
    return total


# --- measuring


def _measured(command: Sequence[str], environment: Mapping[str, str] | None = None) -> tuple[float, float, int]:
    """Seconds, processor seconds of it and of its programs, and the peak of its memory in MiB. Raises BedError."""
    with tempfile.TemporaryFile() as output:
        begin = time.monotonic()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=bed.ROOT,
        )
        peak = Peak(process.pid)
        peak.start()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begin
        peak.ended.set()
        peak.join()
        if process.returncode:
            output.seek(0)
            raise BedError(f"{command[0]} failed: {output.read().decode(errors='replace')[-2000:]}")
    return seconds, usage.ru_utime + usage.ru_stime, peak.kib // 1024


def _own(what: str, base: Path, number: str) -> list[str]:
    # As the programs of hosts are started: nothing that this environment has besides.
    return [sys.executable, "-IS", str(bed.ROOT / "tools/bench_backup_job.py"), str(bed.CACHE / "collections"), what, str(base), number]


class Series:
    """What one candidate took in all rounds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.processor: list[float] = []
        self.memory = 0

    def add(self, figures: tuple[float, float, int]) -> None:
        self.seconds.append(figures[0])
        self.processor.append(figures[1])
        self.memory = max(self.memory, figures[2])

    def row(self, note: str = "") -> Row:
        processor = Spread.of(self.processor).median
        return Row(self.name, "s", Spread.of(self.seconds), note, {"processor_seconds": processor, "memory_mib": self.memory})


def candidates(base: Path) -> dict[str, Callable[[int], tuple[float, float, int]]]:
    """Full sets by other means, those whose programs are installed; each takes the number of the round."""
    tree = base / "tree"
    secret = {"RESTIC_PASSWORD": "bench", "BORG_PASSPHRASE": "bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
    secret |= {"BORG_BASE_DIR": str(base / "borg-home"), "RESTIC_CACHE_DIR": str(base / "restic-cache")}

    def reference(number: int) -> tuple[float, float, int]:
        line = 'set -o pipefail; tar -czf - -C "$1" . | openssl enc -aes-256-cbc -salt -pbkdf2 -pass file:"$2" -out "$3" && sync "$3"'
        return _measured(["bash", "-c", line, "bash", str(tree), str(base / "passphrase"), str(base / f"reference-{number}")])

    def restic(number: int) -> tuple[float, float, int]:
        repository = ["restic", "--quiet", "--repo", str(base / f"restic-{number}")]
        _measured([*repository, "init"], secret)
        return _measured([*repository, "backup", "--host", "bench", str(tree)], secret)

    def borg(number: int) -> tuple[float, float, int]:
        repository = base / f"borg-{number}"
        _measured(["borg", "init", "--encryption=repokey", str(repository)], secret)
        return _measured(["borg", "create", f"{repository}::one", str(tree)], secret)

    found: dict[str, Callable[[int], tuple[float, float, int]]] = {REFERENCE: reference}
    for name, run in (("restic", restic), ("borg", borg)):
        if shutil.which(name):
            found[name] = run
        else:
            say(f"bench: without {name}, which is not installed")
    return found


@contextmanager
def _base() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="civitas-bench-"))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def measure(rounds: int, megabytes: int) -> list[Row]:
    """Raises BedError."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise BedError(f"The bench of backups needs {', '.join(missing)}.")
    with _base() as base:
        say(f"bench: backups, {rounds} rounds; it takes some minutes")
        keys = subprocess.run(["age-keygen", "-o", str(base / "key")], capture_output=True, text=True, check=True)
        (base / "recipients").write_text(keys.stderr.split()[-1])
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(base / "sign")], check=True)
        (base / "passphrase").write_text("bench\n")
        size = make_tree(base / "tree", megabytes)
        # The program does not trust times that are younger.
        time.sleep(3)
        return _rounds(base, rounds, size)


def _rounds(base: Path, rounds: int, size: int) -> list[Row]:
    others = candidates(base)
    full = {name: Series(f"full set, {name}") for name in (OURS, *others)}
    kept = Series("the same, sent by SSH and proven by a store on this machine")
    unchanged, back, copy = Series("unchanged tree"), Series("restore"), Series("cp -a of the tree, for comparison")
    sync = ["sync", "--file-system", str(base)]
    for number in range(rounds):
        shutil.rmtree(base / "ours", ignore_errors=True)
        for name in full:
            subprocess.run(sync, check=True)
            full[name].add(_measured(_own("make", base, "1")) if name == OURS else others[name](number))
        subprocess.run(sync, check=True)
        kept.add(_kept(base, number))
        # The first set has written a canary, whose time is trusted later.
        time.sleep(3)
        _measured(_own("make", base, "2"))
        unchanged.add(_measured(_own("make", base, "3")))
        for series, command in (
            (copy, ["bash", "-c", 'cp -a "$1/tree" "$1/copy" && sync', "bash", str(base)]),
            (back, _own("restore", base, "3")),
        ):
            subprocess.run(sync, check=True)
            series.add(_measured(command))
        _same(base)
        for name in ("copy", "restored"):
            shutil.rmtree(base / name)
        for path in base.glob(f"*-{number}"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ours = full[OURS].row()

    def compared(row: Row) -> str:
        rate = size / MEBI / row.spread.median
        seconds = row.spread.median / ours.spread.median
        processor = row.extra["processor_seconds"] / ours.extra["processor_seconds"]
        return f"{rate:.0f} MiB/s, {seconds:.1f} times the seconds and {processor:.1f} times the processor time of ours"

    rows = [replace(row, note=compared(row)) for row in (series.row() for series in full.values())]
    share = copy.row().spread.median / back.row().spread.median
    memory = f"{max(series.memory for series in (full[OURS], unchanged, back))} MiB of memory at most, all programs together"
    rows[0] = replace(rows[0], note=f"{size / MEBI / ours.spread.median:.0f} MiB/s of {size / MEBI:.0f} MiB; {memory}")
    return [*rows, kept.row(), unchanged.row(), back.row(f"{share * 100:.0f} % of the speed of cp -a"), copy.row()]


def _kept(base: Path, number: int) -> tuple[float, float, int]:
    """A whole run, whose end is the store's word that it keeps the set. The store's own time is in the seconds only."""
    # The link that makes this checkout the collection.
    sys.path.insert(0, str(bed.CACHE / "collections"))
    from tests.unit.backup_sites import Site, program

    place = base / f"site-{number}"
    site = Site(place)
    try:
        site.config["files"] = [{"name": "data", "path": str(base / "tree")}]
        site.write()
        return _measured([*program("_backup_program"), "--config", str(place / "backup.json"), "run"])
    finally:
        site.close()


def _same(base: Path) -> None:
    """Raises BedError unless what came back is what was there."""
    done = subprocess.run(["diff", "-rq", str(base / "tree"), str(base / "restored")], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BedError(f"What was restored is not what was saved: {done.stdout[:500]}")
