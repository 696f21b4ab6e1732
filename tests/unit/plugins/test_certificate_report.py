# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told about files, servers and deliveries, in words for people."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_report import Judge, report
from cryptography.hazmat.primitives import serialization

from tests.unit import pki

USUAL = pki.usual()
NAMES = ["www.example.org"]
JUDGE = Judge(USUAL.root.pem, pki.NOW)


def public(key: Any) -> str:
    pem: bytes = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


def gathered(certificates: str = USUAL.chain_pem, **other: Any) -> dict[str, Any]:
    nothing = {"holds_key": False, "public_key": "", "error": "", "error_kind": "", "protocol": "TLSv1.3", "cipher": "TLS_X"}
    return {"certificates": certificates, **nothing, **other}


def codes(source: dict[str, Any]) -> list[str]:
    return [found["code"] for found in source["problems"]]


def test_a_good_one_of_each() -> None:
    sources = [
        JUDGE.file("/etc/a.pem", gathered(public_key=public(USUAL.leaf.key)), NAMES),
        JUDGE.endpoint("www.example.org:443", gathered(), NAMES),
        JUDGE.delivery([("a.crt", USUAL.chain_pem.encode()), ("a.key", USUAL.leaf.key_pem().encode())], NAMES),
    ]
    assert [source["good"] for source in sources] == [True] * 3
    assert [source["kind"] for source in sources] == ["file", "endpoint", "delivery"]
    assert all(source["certificates"][0]["subject"] == "CN=www.example.org" for source in sources)
    told = report(sources)
    day, last = pki.NOW - pki.DAY, pki.NOW + 90 * pki.DAY
    row = f"  www.example.org    Test Intermediate  {day:%Y-%m-%d}  {last:%Y-%m-%d}  90"
    assert told.splitlines().count(row) == 3, told
    assert "www.example.org:443 (TLSv1.3)\n" in told and told.endswith("Good: hand it in.")
    assert max(map(len, told.splitlines())) <= 100


@pytest.mark.parametrize(
    ("found", "names", "wanted"),
    [
        (gathered(holds_key=True), NAMES, ["private_key_in_certificate_file"]),
        (gathered(public_key=public(USUAL.intermediate.key)), NAMES, ["key_mismatch"]),
        (gathered(USUAL.leaf.pem), NAMES, ["missing_intermediate"]),
        (gathered(), ["a.example.net"], ["name_mismatch"]),
        (gathered(USUAL.chain_pem[:-40]), NAMES, ["truncated", "missing_intermediate"]),
        (gathered("-----BEGIN CERTIFICATE-----\nMIIB"), NAMES, ["truncated"]),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(found: dict[str, Any], names: list[str], wanted: list[str]) -> None:
    source = JUDGE.file("/etc/a.pem", found, names)
    assert source["good"] is False and codes(source) == wanted
    told = " ".join(report([source]).split())
    for number, one in enumerate(source["problems"], 1):
        assert f"{number}. {' '.join(one['message'].split())} [{one['code']}]" in told
        assert f"What to do: {one['remedy']}" in told


def test_a_revoked_one_and_an_expired_one() -> None:
    lists = [pki.revocation_list(USUAL.intermediate, [USUAL.leaf])]
    assert codes(Judge(USUAL.root.pem, pki.NOW, lists).endpoint("x:443", gathered(), NAMES)) == ["revoked"]
    later = Judge(USUAL.root.pem, pki.NOW + 100 * pki.DAY)
    source = later.endpoint("x:443", gathered(), NAMES)
    assert codes(source) == ["expired"] and source["certificates"][0]["days_left"] == -10
    assert "-10" in report([source])


def test_nobody_there_is_said_in_a_sentence() -> None:
    source = JUDGE.endpoint("x:443", gathered("", error="x:443: Connection refused", error_kind="unreachable"), NAMES)
    assert (source["good"], source["error_kind"]) == (False, "unreachable")
    assert report([source]) == "x:443\n  No certificate: x:443: Connection refused."
    unread = JUDGE.file("/a", gathered("", error="/a: No such file or directory"), NAMES)
    assert (unread["good"], unread["error_kind"]) == (False, "unreadable")


def test_what_is_no_fault_is_noted() -> None:
    disordered = JUDGE.endpoint("x:443", gathered(USUAL.intermediate.pem + USUAL.leaf.pem), NAMES)
    assert disordered["good"] and "not in their order" in disordered["notes"][-1]
    with_root = JUDGE.endpoint("x:443", gathered(USUAL.chain_pem + USUAL.root.pem), NAMES)
    assert with_root["good"] and "more certificates than are needed" in with_root["notes"][-1]
    unnamed = JUDGE.delivery([("a.crt", USUAL.chain_pem.encode())], [], key_needed=False)
    assert unnamed["good"] and "No name was given" in unnamed["notes"][-1]
    assert "Note: No name was given" in report([unnamed])


def test_names_that_are_long_strange_or_missing() -> None:
    for subject, shown in (
        (pki.name("", organization="Only, Inc."), "Only, Inc."),
        (pki.name(""), "(no name)"),
        (pki.name("x" * 60), "x" * 37 + "..."),
        (pki.name("a, b+c"), "a, b+c"),
        (pki.name("www.example.org", organization="CN=other"), "www.example.org"),
        (pki.name("red\x1b[31m"), "red"),
    ):
        usual = pki.usual(subject=subject, names=NAMES)
        told = report([Judge(usual.root.pem, pki.NOW).file("/a", gathered(usual.chain_pem), NAMES)])
        assert f"\n  {shown}" in told, told
        assert "\x1b" not in told
