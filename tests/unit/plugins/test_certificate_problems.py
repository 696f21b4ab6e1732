# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of reasons."""

from __future__ import annotations

import re

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_problems import (
    CODES,
    as_dict,
    in_order,
    in_words,
    problem,
)


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_a_word_and_its_remedy_a_sentence(code: str) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert re.fullmatch(r"[A-Z][^\n]{20,}[.]", CODES[code])
    assert "  " not in CODES[code]


def test_an_unknown_code_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        problem("rotten", "It smells.")


def test_what_hides_others_is_told_first_and_nothing_twice() -> None:
    late, early = problem("weak_digest", "SHA-1."), problem("truncated", "No end.")
    other = problem("weak_digest", "MD5.")
    assert in_order([late, other, early, late]) == [early, late, other]


def test_plain_data_and_words_hold_all_of_it() -> None:
    found = problem("expired", "It ended.", "leaf CN=a, serial 1")
    assert as_dict(found) == {"code": "expired", "message": "It ended.", "remedy": CODES["expired"], "certificate": "leaf CN=a, serial 1"}
    assert in_words([found]) == f"- expired: It ended. {CODES['expired']}"
