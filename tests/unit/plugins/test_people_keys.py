# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of public keys, judged beside ssh-keygen."""

from __future__ import annotations

import base64
import subprocess

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._people_keys import KeyProblem, parse_key, parse_source
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st


def public(key) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def packed(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LINE = public(ED25519)
BLOB = LINE.split()[1]
GOOD = {
    "ed25519": LINE,
    "rsa": public(rsa.generate_private_key(65537, 3072)),
    "p256": public(ec.generate_private_key(ec.SECP256R1())),
    "p384": public(ec.generate_private_key(ec.SECP384R1())),
    "p521": public(ec.generate_private_key(ec.SECP521R1())),
    "token": "sk-ssh-ed25519@openssh.com " + packed(b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"),
}


@pytest.mark.parametrize("kind", [kind for kind in GOOD if kind != "token"])
def test_good_keys_are_what_ssh_keygen_reads(kind, tmp_path):
    file = tmp_path / "key.pub"
    key = parse_key(f"  {GOOD[kind]}\t a  comment \r\n")
    file.write_text(key.line() + "\n")
    shown = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True).stdout.split()
    assert shown[1] == key.fingerprint
    assert key.line() == f"{GOOD[kind]} a comment"


def test_a_token_is_taken():
    assert parse_key(GOOD["token"]).kind == "sk-ssh-ed25519@openssh.com"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        (None, "is no text"),
        (7, "is no text"),
        (["ssh-ed25519"], "is no text"),
        ("ssh-ed25519", "no whole ssh-ed25519 key"),
        ("amina@laptop", "is no public key"),
        ("ssh-ed25519 AAAA", "no whole"),
        (f"ssh-ed25519 {BLOB[:-4]}", "no whole"),
        (f"ssh-ed25519 {BLOB}AAAA", "no whole"),
        (f"ssh-ed25519 {BLOB[:20]} {BLOB[20:]}", "no whole"),
        (f"ssh-rsa {BLOB}", "no whole ssh-rsa"),
        (f"ssh-ed25519 {packed(b'ssh-ed25510', bytes(32))}", "no whole"),
        (f"ssh-ed25519 {packed(b'ssh-ed25519', bytes(31))}", "no whole"),
        (f"ssh-ed25519 {packed(b'ssh-ed25519', b'')}", "no whole"),
        (f"sk-ssh-ed25519@openssh.com {packed(b'sk-ssh-ed25519@openssh.com', bytes(31), b'ssh:')}", "no whole"),
        (f"ecdsa-sha2-nistp256 {packed(b'ecdsa-sha2-nistp256', b'nistp384', bytes(97))}", "no whole"),
        (f"ecdsa-sha2-nistp256 {packed(b'ecdsa-sha2-nistp256', b'nistp256', bytes(64))}", "no whole"),
        (f"ssh-ed25519 \u00e9{BLOB}", "no whole"),
        (f"{LINE}\n{LINE}", "one line for each key"),
        (f"{LINE}\x00", "control character"),
        (f"{LINE} a\u2028b", "control character"),
        (f"{LINE} a\u202eb", "control character"),
        (public(rsa.generate_private_key(65537, 2048)), "2048 bits, 3072 are the least"),
        (f"ssh-rsa {packed(b'ssh-rsa', bytes([3]), bytes([255]) * 400)}", "weak exponent"),
        ("ssh-dss " + packed(b"ssh-dss", b"a", b"b", b"c", b"d"), "DSA"),
        (f"ssh-ed25519-cert-v01@openssh.com {BLOB}", "is a certificate"),
        (f"ssh-unknown {BLOB}", "unknown type"),
        ("---- BEGIN SSH2 PUBLIC KEY ----", "ssh-keygen -i"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "private key"),
        (f'command="id" {LINE}', "'command'"),
        (f"cert-authority {LINE}", "'cert-authority'"),
        (f'environment="A=B" {LINE}', "'environment'"),
        (f"agent-forwarding {LINE}", "'agent-forwarding'"),
        (f'permitopen="a:1" {LINE}', "'permitopen'"),
        (f"no-touch-required {LINE}", "'no-touch-required'"),
        (f"restrict,restrict {LINE}", "twice"),
        (f'from="192.0.2.1",from="192.0.2.2" {LINE}', "'from'"),
        (f"from {LINE}", "'from'"),
        (f'from="192.0.2.1"x {LINE}', "cannot be read"),
        (f'from="*" {LINE}', "is no address"),
        (f'from="!192.0.2.1" {LINE}', "is no address"),
        (f'from="a.example.org" {LINE}', "names depend on"),
        (f'from="" {LINE}', "is no address"),
        (f'expiry-time="soon" {LINE}', "'expiry-time'"),
        (f'restrict="a" {LINE}', "'restrict'"),
    ],
)
def test_bad_lines_are_refused(line, words):
    with pytest.raises(KeyProblem, match=words):
        parse_key(line)


def test_a_private_key_is_refused_and_never_quoted():
    for format_ in (PrivateFormat.OpenSSH, PrivateFormat.PKCS8):
        text = ED25519.private_bytes(Encoding.PEM, format_, NoEncryption()).decode()
        with pytest.raises(KeyProblem, match="private key") as caught:
            parse_key(text)
        assert not any(line in str(caught.value) for line in text.splitlines())


def test_a_real_dsa_key_is_told_from_a_wrong_line():
    key = dsa.generate_private_key(2048)
    numbers = key.public_key().public_numbers()
    parameters = numbers.parameter_numbers
    fields = [value.to_bytes(257, "big") for value in (parameters.p, parameters.q, parameters.g, numbers.y)]
    with pytest.raises(KeyProblem, match="DSA"):
        parse_key("ssh-dss " + packed(b"ssh-dss", *fields) + " old@laptop")


def test_options_that_take_something_away_are_kept_in_one_form():
    key = parse_key(f'FROM="192.0.2.0/24,2001:DB8::1",Restrict,no-pty,expiry-time="20301231" {LINE} a')
    assert key.sources == ("192.0.2.0/24", "2001:db8::1")
    assert key.line() == f'from="192.0.2.0/24,2001:db8::1",restrict,no-pty,expiry-time="20301231" {LINE} a'
    assert key.line(["198.51.100.1"]) == key.line()
    assert key.bare == f"{LINE} a"


def test_the_addresses_of_the_account_pin_a_key_without_its_own():
    assert parse_key(LINE).line(["192.0.2.1", "192.0.2.8/29"]) == f'from="192.0.2.1,192.0.2.8/29" {LINE}'


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1"),
    ],
)
def test_addresses_have_one_form(written, meant):
    assert parse_source(written) == meant


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("192.0.2.1/24", "write 192.0.2.0/24 or 192.0.2.1"),
        ("0.0.0.0/0", "everywhere"),
        ("::/0", "everywhere"),
        ("8.0.0.0/7", "everywhere"),
        ("2000::/31", "everywhere"),
        ("192.0.2.256", "is no address"),
        ("192.0.2.1/33", "is no address"),
        ("192.0.2.1,192.0.2.2", "is no address"),
        ('192.0.2.1" ssh', "is no address"),
        ("\u0661.1.1.1", "is no address"),
        ("", "is no address"),
        (3232235777, "is no address"),
        (None, "is no address"),
    ],
)
def test_what_is_no_pin_is_refused(written, words):
    with pytest.raises(KeyProblem, match=words):
        parse_source(written)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda data: "ssh-ed25519 " + base64.b64encode(data).decode()))
def test_any_text_is_a_key_of_one_line_or_a_problem(text):
    try:
        key = parse_key(text)
    except KeyProblem as problem:
        assert str(problem).isprintable()
    else:
        assert key.line().isprintable()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(GOOD)),
    st.lists(st.sampled_from(["restrict", "no-pty", "no-port-forwarding", 'expiry-time="20301231"']), unique=True),
    st.lists(st.ip_addresses().map(str), max_size=3),
    st.text(st.characters(min_codepoint=33, max_codepoint=0x250), max_size=20),
)
def test_what_is_written_is_read_as_the_same(kind, options, sources, comment):
    text = ",".join(([f'from="{",".join(sources)}"'] if sources else []) + options)
    try:
        key = parse_key(f"{text} {GOOD[kind]} {comment}")
    except KeyProblem:
        assert not comment.isprintable()
        return
    assert parse_key(key.line()) == key
    assert set(key.options) == set(options)
    assert len(key.sources) == len(sources)
