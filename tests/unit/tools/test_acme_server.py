# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from tools import acme_server
from tools.bed import BedError


def test_without_go_the_reason_is_named_and_nothing_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr(acme_server, "PROGRAM", tmp_path / "pebble")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "Go is not installed" in acme_server.obstacle()
    with pytest.raises(BedError, match="Go is not installed"):
        acme_server.build()


def test_a_program_that_was_built_needs_no_go(tmp_path, monkeypatch):
    monkeypatch.setattr(acme_server, "PROGRAM", tmp_path / "pebble")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "pebble").touch()
    assert acme_server.obstacle() == ""
    assert acme_server.build() == tmp_path / "pebble"
