# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as people read them, and records as they stand in a zone file."""

from __future__ import annotations

from ansible_collections.civitas.hosting.plugins.plugin_utils._mail_findings import bad, good, report, shown, txt_record, unknown
from dnslib import RR


def test_a_long_record_is_split_and_means_the_same() -> None:
    value = "v=DKIM1; p=" + "A" * 600 + '"\\'
    record = txt_record("a._domainkey.example.org", value)
    (read,) = RR.fromZone(record)
    assert b"".join(read.rdata.data).decode() == value
    assert [len(one) for one in read.rdata.data] == [255, 255, 103]
    assert txt_record("example.org", "") == 'example.org. IN TXT ""'


def test_what_strangers_wrote_moves_no_cursor() -> None:
    assert shown("a\x1b[2Jb\nc") == "a?[2Jb?c"
    assert shown("a" * 2000) == "a" * 1000 + "..."
    assert bad("x", "y", "\x07", "", "").found == "?"
    assert "\x1b" not in txt_record("a", "\x1b")


def test_the_worst_comes_first_and_a_record_stays_in_one_piece() -> None:
    record = txt_record("example.org", "v=spf1 " + "ip4:203.0.113.25 " * 10 + "-all")
    told = report(
        [
            good("mx.record", "example.org", "10 mx.example.org", "an MX record"),
            bad("dmarc.policy", "example.org", "p=none", "p=reject", "Do it.", "warning"),
            unknown("dkim.record", "example.org", OSError("no answer"), "a record"),
            bad("spf.record", "example.org", "no SPF record", "one", f"Write {'very ' * 30}soon:\n{record}"),
        ]
    )
    assert told.index("ERROR spf.record (example.org)") < told.index("UNKNOWN dkim.record") < told.index("WARNING dmarc.policy")
    assert record in told
    assert "  found:    no answer" in told
    assert told.endswith("Good:\n  mx.record (example.org)")
    assert report([]) == ""
