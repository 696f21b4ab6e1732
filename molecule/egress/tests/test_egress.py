# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared is reached, what is not is refused. Before the firewall was there, every one of these probes succeeded (prepare.yml)."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

PROBES = json.loads((Path(__file__).parents[1] / "files/probes.json").read_text())
testinfra_hosts = ["ansible://servers"]
# What bash, dig, ping and timeout end with when nobody answers; anything else is a broken probe.
REFUSED = (1, 2, 9, 124)
RESOLVER = "127.0.0.1 -p 10053"


def probe(host, words):
    return host.run(f"probe {words}")


@pytest.mark.parametrize("words", PROBES["denied"])
def test_what_is_not_declared_is_refused(host, words):
    done = probe(host, words)
    assert done.rc in REFUSED, done.stdout + done.stderr


@pytest.mark.parametrize("words", PROBES["allowed"])
def test_what_is_declared_is_reached(host, words):
    done = probe(host, words)
    assert done.rc == 0, done.stdout + done.stderr


def test_a_refusal_is_told_at_once(host):
    begun = time.monotonic()
    assert probe(host, "tcp4 198.51.100.20 443").rc in REFUSED
    assert time.monotonic() - begun < 3


def test_a_name_below_a_declared_one_is_not_answered(host):
    for name in ("sub.records.test", "undeclared.test", "partners.test"):
        said = host.check_output(f"dig +noall +comments @{RESOLVER} {name}")
        assert "status: NXDOMAIN" in said, (name, said)


def test_answers_are_not_kept_for_long(host):
    answer = host.check_output(f"dig +noall +answer @{RESOLVER} records.test").split()
    assert answer[0] == "records.test." and int(answer[1]) <= 30


def test_every_declared_name_has_an_address(host):
    done = host.run("/usr/local/sbin/civitas-egress")
    assert done.rc in (0, 3), done.stdout + done.stderr


def test_the_firewall_knows_no_other_table_than_its_own(host):
    # Those of the container engine are still there.
    assert "chain DOCKER" in host.check_output("iptables-save -t nat 2>/dev/null; nft list ruleset")


def test_nothing_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
