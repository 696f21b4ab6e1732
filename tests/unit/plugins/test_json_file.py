# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_a_file_is_written_and_replaced_with_its_mode(tmp_path, mode):
    path = tmp_path / "a.json"
    write_json(str(path), {"old": 1}, mode)
    write_json(str(path), {"b": [1], "a": "ä"}, mode)
    assert path.read_text() == '{\n  "a": "\\u00e4",\n  "b": [\n    1\n  ]\n}\n'
    assert path.stat().st_mode & 0o7777 == mode
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(str(path), {"old": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_json(str(path), {"new": {1, 2}})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_keeps_the_whole_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(str(path), {"old": 1})
    with path.open(encoding="utf-8") as reader:
        write_json(str(path), {"new": 2})
        assert "old" in reader.read()
    assert "new" in path.read_text()
