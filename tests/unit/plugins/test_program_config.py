# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that configure a program on a host."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _program_config as config


class Way(t.NamedTuple):
    address: str
    options: t.Tuple[str, ...]


def parse(found):
    return Way(**config.with_tuples(found["way"]))


def test_lists_become_tuples(tmp_path):
    (tmp_path / "one.json").write_text('{"way": {"address": "10.0.0.1", "options": ["-J", "gate"]}}')
    assert config.parsed(str(tmp_path / "one.json"), parse) == Way("10.0.0.1", ("-J", "gate"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "JSONDecodeError"),
        ("{}", "KeyError: 'way'"),
        ("[]", "TypeError"),
        ('{"way": 1}', "AttributeError"),
        ('{"way": {"port": 1}}', "unexpected keyword"),
        ("\xe9".encode("latin-1"), "UnicodeDecodeError"),
        (None, "FileNotFoundError"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_to_do(tmp_path, content, told):
    path = tmp_path / "one.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(config.ConfigError) as error:
        config.parsed(str(path), parse)
    assert str(error.value).startswith(f"{path}: ") and told in str(error.value)
    assert str(error.value).endswith("; run the site playbook, it writes this file")


def test_a_file_that_is_no_json_is_not_quoted(tmp_path):
    (tmp_path / "one.json").write_text('{"password": "hunter2" "')
    with pytest.raises(config.ConfigError) as error:
        config.parsed(str(tmp_path / "one.json"), parse, "")
    assert "hunter2" not in str(error.value) and error.value.__cause__ is not None
