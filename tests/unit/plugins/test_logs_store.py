# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of evidence are on disk whole or not at all, are found again behind a number, and stay as long as they are to."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _logs_store as store

SERIES = "a" * 16
NOON = 1795348800.0  # 2026-11-22, 12:00


def line(number, series=SERIES):
    return json.dumps({"series": series, "n": number}).encode() + b"\n"


def add(kept, numbers, now=NOON):
    kept.append([line(number) for number in numbers], {"series": SERIES, "n": numbers[-1]}, now)


def names(directory):
    return sorted(os.listdir(directory))


def test_a_file_a_day(tmp_path):
    kept = store.Store(str(tmp_path))
    assert kept.last == {}
    add(kept, [1, 2])
    add(kept, [3], NOON + store.DAY)
    # A clock that is set back does not write into what is over.
    add(kept, [4])
    assert names(tmp_path) == ["2026-11-22.jsonl", "2026-11-23.jsonl"]
    assert (tmp_path / "2026-11-23.jsonl").read_bytes() == line(3) + line(4)
    assert store.Store(str(tmp_path)).last == {"series": SERIES, "n": 4}
    assert (tmp_path / "2026-11-22.jsonl").stat().st_mode & 0o777 & ~0o640 == 0


@pytest.mark.parametrize("torn", [b"{", line(3)[:-1], b"\0" * 4096])
def test_half_a_line_is_taken_away(tmp_path, torn):
    kept = store.Store(str(tmp_path))
    add(kept, [1, 2])
    path = tmp_path / "2026-11-22.jsonl"
    path.write_bytes(path.read_bytes() + torn)
    again = store.Store(str(tmp_path))
    assert again.last["n"] == 2
    add(again, [3])
    assert path.read_bytes() == line(1) + line(2) + line(3)


def test_a_file_in_which_nothing_can_be_read_is_passed_over(tmp_path):
    add(store.Store(str(tmp_path)), [1, 2])
    (tmp_path / "2026-11-23.jsonl").write_bytes(b"half")
    (tmp_path / "2026-11-24.jsonl").write_bytes(b"rubbish\n")
    kept = store.Store(str(tmp_path))
    assert kept.last["n"] == 2
    add(kept, [3])
    assert (tmp_path / "2026-11-24.jsonl").read_bytes() == b"rubbish\n" + line(3)


def test_the_last_line_of_a_day_that_was_put_away(tmp_path):
    (tmp_path / "2026-11-01.jsonl.gz").write_bytes(gzip.compress(line(1) + line(2)))
    assert store.Store(str(tmp_path)).last["n"] == 2


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    kept = store.Store(str(tmp_path))
    add(kept, [1])
    real = os.write
    monkeypatch.setattr(store.os, "write", lambda handle, data: real(handle, data[:5]))
    with pytest.raises(OSError, match="space"):
        add(kept, [2])
    monkeypatch.undo()
    assert kept.last["n"] == 1
    add(kept, [2])
    assert (tmp_path / "2026-11-22.jsonl").read_bytes() == line(1) + line(2)


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "2026-11-22.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        kept = store.Store.__new__(store.Store)
        kept._directory, kept._mode, kept._handle, kept._day = str(tmp_path), 0o640, -1, ""
        add(kept, [1])
    assert not (tmp_path / "elsewhere").exists()


def test_how_much_was_written_today(tmp_path):
    kept = store.Store(str(tmp_path))
    assert kept.written_today(NOON) == 0
    add(kept, [1, 2])
    assert store.Store(str(tmp_path)).written_today(NOON) == len(line(1) + line(2)) == kept.written_today(NOON)
    assert kept.written_today(NOON + store.DAY) == 0


def numbers(tail, most=10**6):
    found, last = tail.batch(most)
    return [json.loads(data)["n"] for data in found], last


def test_lines_behind_a_number_over_days(tmp_path):
    kept = store.Store(str(tmp_path))
    for day in range(5):
        add(kept, [3 * day + 1, 3 * day + 2, 3 * day + 3], NOON + day * store.DAY)
    store.tidy(str(tmp_path), 90, NOON + 4 * store.DAY)
    assert [name[-3:] for name in names(tmp_path)] == [".gz", ".gz", ".gz", "onl", "onl"]
    for number in range(16):
        tail = store.Tail(str(tmp_path), SERIES, number)
        assert numbers(tail) == (list(range(number + 1, 16)), max(15, number))
        tail.close()
    tail = store.Tail(str(tmp_path), SERIES, 4)
    assert numbers(tail, 30) == ([5], 5)
    assert numbers(tail) == (list(range(6, 16)), 15)
    assert numbers(tail) == ([], 15)
    add(kept, [16], NOON + 4 * store.DAY)
    add(kept, [17], NOON + 5 * store.DAY)
    assert numbers(tail) == ([16, 17], 17)


def test_nothing_there_yet_another_series_and_half_a_line(tmp_path):
    tail = store.Tail(str(tmp_path), SERIES, 0)
    assert numbers(tail) == ([], 0)
    path = tmp_path / "2026-11-22.jsonl"
    path.write_bytes(line(1, "b" * 16) + b"rubbish\n" + line(1)[:9])
    assert numbers(tail) == ([], 0)
    path.write_bytes(path.read_bytes() + line(1)[9:] + line(2))
    assert numbers(tail) == ([1, 2], 2)


def test_who_reads_misses_nothing_while_days_begin(tmp_path):
    kept, last = store.Store(str(tmp_path)), 2000
    writing = threading.Thread(target=lambda: [add(kept, [n], NOON + n // 3 * store.DAY) for n in range(1, last + 1)])
    tail, found = store.Tail(str(tmp_path), SERIES, 0), []
    writing.start()
    deadline = time.monotonic() + 60
    while len(found) < last and time.monotonic() < deadline:
        found += numbers(tail)[0]
    writing.join()
    assert found == list(range(1, last + 1))


def test_days_are_put_away_and_removed_when_they_are_old(tmp_path):
    for age in range(200):
        path = tmp_path / f"{store.date(NOON - age * store.DAY)}.jsonl"
        path.write_bytes(line(200 - age))
        os.utime(path, (NOON, NOON - age * store.DAY))
    (tmp_path / "notes.txt").write_text("not ours")
    store.tidy(str(tmp_path), 90, NOON)
    found = store.files(str(tmp_path))
    assert [day for day, _path in found] == sorted(store.date(NOON - age * store.DAY) for age in range(91))
    assert [path[-3:] for _day, path in found] == [".gz"] * 89 + ["onl"] * 2
    for place, (_day, path) in enumerate(found):
        with store.reading(path) as file:
            assert file.read() == line(110 + place)
        assert os.stat(path).st_mtime == NOON - (90 - place) * store.DAY
    assert (tmp_path / "notes.txt").exists()


def test_a_wrong_clock_removes_nothing(tmp_path):
    for age in range(80):
        (tmp_path / f"{store.date(NOON - age * store.DAY)}.jsonl").write_bytes(line(80 - age))
    store.tidy(str(tmp_path), 90, NOON + 3000 * store.DAY)
    assert len(store.files(str(tmp_path))) == 80


def test_what_was_cut_off_while_it_put_a_day_away_is_done_again(tmp_path):
    day = "2026-11-01"
    (tmp_path / f"{day}.jsonl").write_bytes(line(1))
    (tmp_path / f"{day}.jsonl.gz").write_bytes(b"half")
    (tmp_path / f"{day}.jsonl.tmp").write_bytes(b"half")
    assert store.files(str(tmp_path)) == [(day, str(tmp_path / f"{day}.jsonl"))]
    store.tidy(str(tmp_path), 90, NOON)
    assert names(tmp_path) == [f"{day}.jsonl.gz"]
    assert gzip.decompress((tmp_path / f"{day}.jsonl.gz").read_bytes()) == line(1)
