# SPDX-License-Identifier: GPL-3.0-or-later
"""What is gathered on a host: certificates and public keys, never a private one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_sources import MAXIMUM_SIZE, gather_endpoint, gather_file
from cryptography.hazmat.primitives import serialization

from tests.unit import pki, tls_servers

USUAL = pki.usual()
KEY = USUAL.leaf.key_pem()
PUBLIC = USUAL.leaf.key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def file(directory: Path, content: str | bytes, name: str = "a.pem") -> str:
    (directory / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return str(directory / name)


def test_certificates_and_the_public_half_of_a_key(tmp_path: Path) -> None:
    found = gather_file(file(tmp_path, f"text\n{USUAL.chain_pem}text"), file(tmp_path, KEY, "a.key"))
    assert found == {"certificates": USUAL.chain_pem.rstrip(), "holds_key": False, "public_key": PUBLIC, "error": ""}
    der = gather_file(file(tmp_path, USUAL.leaf.der))
    assert (der["certificates"], der["error"]) == (USUAL.leaf.pem, "")


@pytest.mark.parametrize(
    "content",
    [
        KEY + USUAL.chain_pem,
        USUAL.chain_pem + KEY,
        USUAL.leaf.pem + KEY + USUAL.intermediate.pem,
        USUAL.chain_pem + KEY.replace("-----END", "END"),
        USUAL.chain_pem + USUAL.leaf.key_pem("x"),
        USUAL.leaf.pem.replace("-----END CERTIFICATE-----", "") + KEY,
    ],
)
def test_a_private_key_stays_where_it_is(tmp_path: Path, content: str) -> None:
    found = gather_file(file(tmp_path, content))
    assert found["holds_key"] is True
    assert "PRIVATE" not in found["certificates"]
    assert not any(line in found["certificates"] for line in KEY.splitlines()[1:-1])
    assert "BEGIN CERTIFICATE" in found["certificates"]


def test_what_was_cut_off_is_handed_on_as_it_is(tmp_path: Path) -> None:
    cut = USUAL.chain_pem[:-40]
    assert gather_file(file(tmp_path, cut))["certificates"] == cut


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    fifo, big = str(tmp_path / "fifo"), file(tmp_path, b" " * (MAXIMUM_SIZE + 1), "big")
    os.mkfifo(fifo)
    good = file(tmp_path, USUAL.chain_pem)
    encrypted, nothing = file(tmp_path, USUAL.leaf.key_pem("x"), "encrypted.key"), file(tmp_path, "nothing", "nothing")
    for path, key, words in (
        (str(tmp_path / "missing"), None, "missing: No such file or directory"),
        (str(tmp_path), None, "is not a file"),
        (fifo, None, "is not a file"),
        (big, None, "is larger than 1024 KiB"),
        (nothing, None, "holds no certificate"),
        (file(tmp_path, KEY, "only.key"), None, "holds no certificate"),
        (file(tmp_path, b"\x30\x03\x02\x01\x01", "der"), None, "holds no certificate"),
        (good, str(tmp_path / "missing.key"), "missing.key: No such file"),
        (good, nothing, "holds no private key"),
        (good, encrypted, "has a passphrase, so no service can read it"),
    ):
        found = gather_file(path, key)
        assert words in found["error"], found


def test_a_server(tmp_path: Path) -> None:
    made = tls_servers.context(tmp_path, USUAL.chain_pem, KEY)
    with tls_servers.answering(tls_servers.smtp(made)) as port:
        found = gather_endpoint("127.0.0.1", port, "www.example.org", "smtp", 5)
        assert (found["certificates"], found["protocol"], found["error"], found["error_kind"]) == (USUAL.chain_pem, "TLSv1.3", "", "")
        refused = gather_endpoint("127.0.0.1", port, None, "", 5)
    assert (refused["certificates"], refused["error_kind"]) == ("", "no_tls")


def test_the_usual_ports() -> None:
    for starttls, port in (("", 443), ("smtp", 25), ("postgres", 5432)):
        assert f":{port}:" in gather_endpoint("does-not-exist.invalid", None, None, starttls, 3)["error"]


def test_a_public_key_is_what_openssl_says(tmp_path: Path) -> None:
    for key in (pki.rsa_key(), pki.ec_key(), pki.ed25519_key()):
        path = file(tmp_path, pki.key_pem(key), "k")
        told = subprocess.run(["openssl", "pkey", "-in", path, "-pubout"], capture_output=True, text=True, check=True).stdout
        assert gather_file(file(tmp_path, USUAL.leaf.pem), path)["public_key"] == told
