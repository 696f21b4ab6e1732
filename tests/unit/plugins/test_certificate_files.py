# SPDX-License-Identifier: GPL-3.0-or-later
"""Deliveries in every shape that mail, Windows and issuers give them, and those that must be refused."""

from __future__ import annotations

import base64
import io
import random
import struct
import subprocess
import tempfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping

import pytest
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_files as files
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_files import Bag, read
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12

from tests.unit import pki

PASSPHRASE = "correct horse"
USUAL = pki.usual(key=pki.rsa_key())
LEAF, INTERMEDIATE, ROOT = USUAL.leaf, USUAL.intermediate, USUAL.root
CHAIN = LEAF.pem + INTERMEDIATE.pem
KEY = LEAF.key_pem()
PUBLIC = LEAF.key.public_key()


def codes(bag: Bag) -> list[str]:
    return [found.code for found in bag.problems]


def one(content: bytes | str, passphrase: str | None = None, name: str = "a.crt") -> Bag:
    return read([(name, content.encode() if isinstance(content, str) else content)], passphrase)


def prefixed(prefix: str, text: str) -> str:
    return "".join(f"{prefix}{line}\n" for line in text.splitlines())


def openssl(*arguments: str, content: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=content, capture_output=True, check=True).stdout


# --- shapes that are read ---------------------------------------------------------------------------------------------------------------

TOLD = "Copy everything including the -----BEGIN CERTIFICATE----- and -----END CERTIFICATE----- lines.\n"
TEXTS: dict[str, bytes | str] = {
    "plain": CHAIN.encode(),
    "Windows line ends": CHAIN.replace("\n", "\r\n").encode(),
    "old Mac line ends": CHAIN.replace("\n", "\r").encode(),
    "UTF-8 mark": b"\xef\xbb\xbf" + CHAIN.encode(),
    "UTF-16": CHAIN.encode("utf-16"),
    "UTF-16 big endian": b"\xfe\xff" + CHAIN.encode("utf-16-be"),
    "UTF-16 without mark": CHAIN.encode("utf-16-le"),
    "UTF-16 big endian without mark": CHAIN.encode("utf-16-be"),
    "Windows-1252 text around": "Grüße,\nIhr Zertifikat \u2013 für 5 €:\n".encode("cp1252") + CHAIN.encode(),
    "text between": f"Bag Attributes\n  friendlyName: x\nsubject=CN = x\n{LEAF.pem}\n# the issuer:\n\n{INTERMEDIATE.pem}-- \nRegards",
    "glued": (LEAF.pem.strip() + INTERMEDIATE.pem.strip()),
    "quoted in mail": prefixed("> ", CHAIN),
    "quoted twice": prefixed("> > ", CHAIN),
    "indented": prefixed("      ", CHAIN),
    "spaces at line ends": "".join(f"{line}   \n" for line in CHAIN.splitlines()),
    "empty lines": CHAIN.replace("\n", "\n\n"),
    "one line": CHAIN.replace("\n", " "),
    "escaped line ends": CHAIN.replace("\n", "\\n"),
    "quoted-printable": CHAIN.replace("=", "=3D"),
    "typographic dashes": CHAIN.replace("-----", "\u2013\u2013\u2014"),
    "a lost dash": CHAIN.replace("-----BEGIN", "----BEGIN"),
    "no-break spaces": prefixed("\u00a0", CHAIN),
    "twice": CHAIN + CHAIN,
    "begins with the byte of DER": f"0 s:CN=www.example.org\n{CHAIN}",
    "begins with a number": f"01 Server certificate\n{CHAIN}",
    "begins with a number, UTF-16": f"0 s:CN=www.example.org\n{CHAIN}".encode("utf-16-le"),
    "told what to copy": TOLD + CHAIN,
    "told what to copy in quotes": 'From "-----BEGIN CERTIFICATE-----" to "-----END CERTIFICATE-----".\n' + CHAIN,
    "told what to copy, over two lines": CHAIN + "All between -----BEGIN CERTIFICATE-----\nand -----END CERTIFICATE-----, please.\n",
    "told where it begins": "Begin with the line -----BEGIN CERTIFICATE----- of this:\n" + CHAIN,
    "X509 label": CHAIN.replace("CERTIFICATE", "X509 CERTIFICATE"),
}  # fmt: skip


@pytest.mark.parametrize("shape", TEXTS)
def test_text_is_read_in_any_wrapping(shape: str) -> None:
    text = TEXTS[shape]
    bag = one(text)
    assert codes(bag) == []
    assert bag.certificates == [LEAF.certificate, INTERMEDIATE.certificate]
    assert files.as_pem(bag.certificates) == CHAIN


BINARIES: dict[str, Callable[[], bytes]] = {
    "DER": lambda: LEAF.der,
    "base64 without marks": lambda: base64.encodebytes(LEAF.der),
    "PKCS#7 DER": lambda: pkcs7.serialize_certificates([LEAF.certificate], serialization.Encoding.DER),
    "PKCS#7 PEM": lambda: pkcs7.serialize_certificates([LEAF.certificate], serialization.Encoding.PEM),
    "PKCS#7 under the label of a certificate": lambda: pkcs7.serialize_certificates(
        [LEAF.certificate], serialization.Encoding.PEM
    ).replace(b"PKCS7", b"CERTIFICATE"),
    "with OpenSSL's trust": lambda: openssl("x509", "-trustout", "-addtrust", "serverAuth", content=LEAF.pem.encode()),
}  # fmt: skip


@pytest.mark.parametrize("shape", BINARIES)
def test_other_encodings_are_read(shape: str) -> None:
    bag = one(BINARIES[shape]())
    assert codes(bag) == []
    assert bag.certificates == [LEAF.certificate]


def p12(*options: str, key: bool = True, passphrase: str = PASSPHRASE) -> bytes:
    nokeys = () if key else ("-nokeys",)
    with tempfile.NamedTemporaryFile() as both:
        both.write((CHAIN + KEY).encode())
        both.flush()
        return openssl("pkcs12", "-export", *options, *nokeys, "-in", both.name, "-passout", f"pass:{passphrase}")


@pytest.mark.parametrize(
    "options",
    [(), ("-legacy",), ("-legacy", "-descert"), ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"), ("-nomac",)],
    ids=["today's", "RC2 and 3DES as from Windows", "3DES", "3DES without RC2", "without MAC"],
)
def test_pkcs12_is_read_and_may_hold_both(options: tuple[str, ...]) -> None:
    content = p12(*options)
    bag = one(content, PASSPHRASE, "a.pfx")
    assert codes(bag) == []
    assert set(bag.certificates) == {LEAF.certificate, INTERMEDIATE.certificate}
    assert [files.public_bytes(key.public_key()) for key in bag.keys] == [files.public_bytes(PUBLIC)]
    assert codes(one(content)) == ["passphrase_missing"]
    assert codes(one(content, "wrong")) == ["wrong_passphrase"]


def test_pkcs12_with_other_contents() -> None:
    assert codes(one(p12(passphrase=""), None)) == []
    assert len(one(p12(passphrase=""), "needless").keys) == 1
    without_key = one(p12(key=False), PASSPHRASE)
    assert codes(without_key) == [] and len(without_key.certificates) == 2 and without_key.keys == []
    assert codes(one(p12()[:-100], PASSPHRASE)) == ["truncated"]
    unicode = pkcs12.serialize_key_and_certificates(b"x", LEAF.key, None, None, serialization.BestAvailableEncryption("pä".encode()))
    assert len(one(unicode, "pä").keys) == 1


def test_a_file_that_asks_for_a_day_of_work_is_refused_at_once() -> None:
    normal = p12("-iter", "2048")
    assert struct.pack(">H", 2048) in normal
    # The number of rounds grows from two bytes to four; so do the lengths around it, which a longer salt makes room for.
    for content in (normal, openssl("pkcs8", "-topk8", "-outform", "DER", "-passout", f"pass:{PASSPHRASE}", content=KEY.encode())):
        slow = slowed(content)
        started = time.monotonic()
        bag = one(slow, PASSPHRASE)
        assert time.monotonic() - started < 1
        assert codes(bag) == ["unreadable"]
        assert "too long to open" in bag.problems[0].message


def slowed(der: bytes) -> bytes:
    """The salts of 8 bytes become 6, the rounds of 2 bytes 4: all lengths stay."""
    out, position, changed = bytearray(der), 0, 0
    while (position := der.find(b"\x02\x02\x08\x00", position)) >= 0:
        start = position - 10
        if der[start : start + 2] == b"\x04\x08":
            out[start : position + 4] = b"\x04\x06" + der[start + 2 : start + 8] + b"\x02\x04\x7f\xff\xff\xff"
            changed += 1
        elif der[position - 18 : position - 16] == b"\x04\x10":
            out[position - 18 : position + 4] = b"\x04\x0e" + der[position - 16 : position - 2] + b"\x02\x04\x7f\xff\xff\xff"
            changed += 1
        position += 4
    assert changed
    return bytes(out)


KEYS: dict[str, Callable[[], bytes]] = {
    "PKCS#8": lambda: openssl("pkcs8", "-topk8", "-passout", f"pass:{PASSPHRASE}", content=KEY.encode()),
    "PKCS#8 DER": lambda: openssl("pkcs8", "-topk8", "-outform", "DER", "-passout", f"pass:{PASSPHRASE}", content=KEY.encode()),
    "PKCS#8 3DES": lambda: openssl("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-passout", f"pass:{PASSPHRASE}", content=KEY.encode()),
    "traditional": lambda: openssl("rsa", "-aes256", "-traditional", "-passout", f"pass:{PASSPHRASE}", content=KEY.encode()),
    "traditional 3DES": lambda: openssl("rsa", "-des3", "-traditional", "-passout", f"pass:{PASSPHRASE}", content=KEY.encode()),
    "traditional with Windows line ends": lambda: KEYS["traditional"]().replace(b"\n", b"\r\n"),
    "traditional quoted in mail": lambda: prefixed("> ", KEYS["traditional"]().decode()).encode(),
}


@pytest.mark.parametrize("shape", KEYS)
def test_encrypted_keys(shape: str) -> None:
    content = KEYS[shape]()
    bag = one(content, PASSPHRASE, "a.key")
    assert codes(bag) == []
    assert [files.key_as_pem(key) for key in bag.keys] == [KEY]
    missing, wrong = one(content, None, "a.key"), one(content, "hunter2", "a.key")
    assert (codes(missing), missing.keys) == (["passphrase_missing"], [])
    assert (codes(wrong), wrong.keys) == (["wrong_passphrase"], [])
    assert "hunter2" not in repr(wrong.problems)


def test_a_passphrase_in_the_character_set_of_windows() -> None:
    encryption = serialization.BestAvailableEncryption("Schlüssel".encode("cp1252"))
    pem = LEAF.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    assert len(one(pem, "Schlüssel").keys) == 1
    # A passphrase that this character set does not have is no error of its own.
    assert codes(one(pem, "密码")) == ["wrong_passphrase"]


@pytest.mark.parametrize(
    "content",
    [
        KEY.encode(),
        openssl("rsa", "-traditional", content=KEY.encode()),
        openssl("pkey", "-outform", "DER", content=KEY.encode()),
        openssl("rsa", "-traditional", "-outform", "DER", content=KEY.encode()),
        b"Key:\r\n" + KEY.replace("\n", "\r\n").encode(),
    ],
)
def test_plain_keys_are_read_whether_a_passphrase_is_given_or_not(content: bytes) -> None:
    for passphrase in (None, PASSPHRASE):
        bag = one(content, passphrase, "a.key")
        assert codes(bag) == []
        assert [files.key_as_pem(key) for key in bag.keys] == [KEY]


def test_a_key_after_its_parameters() -> None:
    content = openssl("ecparam", "-name", "prime256v1", "-genkey")
    assert b"EC PARAMETERS" in content
    bag = one(content)
    assert codes(bag) == [] and len(bag.keys) == 1


def test_the_same_key_twice_is_one_and_two_keys_are_two() -> None:
    assert len(read([("a.key", KEY.encode()), ("b.key", openssl("rsa", "-traditional", content=KEY.encode()))]).keys) == 1
    assert len(read([("a.key", KEY.encode()), ("b.key", INTERMEDIATE.key_pem().encode())]).keys) == 2


def test_a_revocation_list_is_read() -> None:
    revoked = pki.revocation_list(INTERMEDIATE, [LEAF])
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        bag = one(revoked.public_bytes(encoding))
        assert codes(bag) == [] and bag.crls == [revoked]


def test_what_is_beside_the_point_is_named() -> None:
    request = openssl("req", "-new", "-key", "/dev/stdin", "-subj", "/CN=x", content=KEY.encode())
    public = openssl("pkey", "-pubout", content=KEY.encode())
    assert b"CERTIFICATE REQUEST" in request
    for content in (request, request.replace(b"BEGIN C", b"BEGIN NEW C").replace(b"END C", b"END NEW C")):
        bag = one(content, name="a.csr")
        assert (codes(bag), bag.certificates) == ([], [])
        assert bag.others == ["a.csr holds a certificate request (CSR): the issuer makes the certificate from it"]
    assert one(public, name="a.pub").others == ["a.pub holds a public key"]


# --- archives ---------------------------------------------------------------------------------------------------------------------------


def archive(members: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as opened:
        for name, member in members.items():
            opened.writestr(name, member)
    return content.getvalue()


def test_an_archive_is_read_in_memory() -> None:
    bag = one(
        archive(
            {
                "cert/": b"",
                "cert/a.crt": LEAF.pem.encode(),
                "cert/ca.cer": INTERMEDIATE.der,
                "a.key": KEY.encode(),
                "README.txt": b"Thank you",
            }
            | {"__MACOSX/cert/._a.crt": b"\0\5", "cert/.DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf", "logo.png": b"\x89PNG\0\0"}
        ),
        name="a.zip",
    )
    assert codes(bag) == []
    assert bag.certificates == [LEAF.certificate, INTERMEDIATE.certificate] and len(bag.keys) == 1
    assert bag.others == [
        "a.zip: README.txt holds neither a certificate nor a key",
        "a.zip: logo.png holds neither a certificate nor a key",
    ]


def test_letters_beside_the_certificates_are_no_fault() -> None:
    letters = {
        "README.txt": TOLD, "n.txt": "01 readme of the delivery, thanks. " * 20, "empty.txt": "", "letter.docx": archive({"x": "a"}),
        "letter.pdf": b"%PDF-1.4 \xff\xfe", "how.html": "<b>-----BEGIN CERTIFICATE-----</b>",
    }  # fmt: skip
    bag = one(archive({"a.crt": CHAIN, **letters}), name="a.zip")
    assert codes(bag) == [] and len(bag.certificates) == 2
    assert [told.split()[1] for told in bag.others] == list(letters)
    assert codes(one(TOLD)) == ["no_certificate"]
    # What may be a part of the delivery that was lost.
    assert codes(one(archive({"a.crt": CHAIN, "b.crt": ""}))) == ["empty_file"]
    assert codes(one(TOLD + CHAIN[:-30])) == codes(one(CHAIN + TOLD + "".join(LINES[3:]))) == ["truncated"]


def encrypted_archive() -> bytes:
    """The standard library reads but does not write them: the flag alone makes it one."""
    content = bytearray(archive({"a.crt": LEAF.pem}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def lying_archive() -> bytes:
    """Says that its member has 10 bytes."""
    content = bytearray(archive({"a.crt": b"\0" * 3_000_000}))
    struct.pack_into("<I", content, 22, 10)
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 10)
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (archive({}), "empty_file"),
        (archive({"__MACOSX/x": "x"}), "empty_file"),
        (archive({"a.key": ""}), "empty_file"),
        (archive({f"{number}.crt": LEAF.pem for number in range(101)}), "too_large"),
        (archive({"a.crt": b" " * (files.MAXIMUM_SIZE + 1)}), "too_large"),
        (archive({f"{number}.crt": b"x" * 400_000 for number in range(3)}), "too_large"),
        (archive({"a.zip": archive({"a.crt": LEAF.pem})}), "unreadable"),
        (archive({"a.crt": LEAF.pem}, zipfile.ZIP_LZMA), "unreadable"),
        (archive({"a.crt": LEAF.pem})[:-30], "truncated"),
        (archive({"a.crt": LEAF.pem + KEY}), "private_key_in_certificate_file"),
        (archive({"a.crt": LEAF.pem[:-30]}), "truncated"),
        (encrypted_archive(), "unreadable"),
        (b"PK\x03\x04" + b"x" * 100, "truncated"),
    ],
)
def test_archives_that_are_refused(content: bytes, code: str) -> None:
    assert (codes(one(content)) or [""])[0] == code


def test_a_bomb_is_not_unpacked() -> None:
    content = HOSTILE["an archive of zeros"]
    tracemalloc.start()
    bag = one(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert codes(bag) == ["too_large"] and peak < 8 * MEBIBYTE


def test_an_archive_that_lies_about_its_size_gives_nothing() -> None:
    bag = one(lying_archive())
    assert bag.problems and bag.certificates == []


# --- what is refused --------------------------------------------------------------------------------------------------------------------

LINES = LEAF.pem.splitlines(keepends=True)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", "empty_file", "a.crt is empty"),
        (" \r\n\t\0\n", "empty_file", "a.crt is empty"),
        (LEAF.pem + " " * files.MAXIMUM_SIZE, "too_large", "a.crt has 1.0 MiB, more than the 1.0 MiB that are read"),
        ("Dear customer", "no_certificate", "neither a certificate nor a key"),
        (LEAF.pem[:-30], "truncated", "the END line is missing"),
        (LEAF.pem[: len(LEAF.pem) // 2], "truncated", "part 1 (CERTIFICATE): the END line is missing"),
        (LEAF.pem + INTERMEDIATE.pem[:200], "truncated", "part 2"),
        (LEAF.pem[:300] + INTERMEDIATE.pem, "truncated", "part 1"),
        ("".join(LINES[3:]), "truncated", "without its BEGIN line"),
        ("".join(LINES[:4] + LINES[5:]), "truncated", "has lost a part"),
        (LEAF.pem.replace("-----BEGIN", "BEGIN"), "truncated", "without its BEGIN line"),
        (LEAF.pem.replace("-----BEGIN", "-BEGIN"), "truncated", "damaged BEGIN line"),
        (LEAF.pem + LEAF.pem.replace("-----BEGIN", "-BEGIN"), "truncated", "damaged BEGIN line"),
        (LEAF.pem.replace("END CERT", "END X509 CERT"), "truncated", "without its BEGIN line"),
        (LINES[0] + LINES[1].replace("A", "A!", 1) + "".join(LINES[2:]), "unreadable", "characters in it"),
        (LEAF.der[:-5], "truncated", "bytes are there"),
        (LEAF.der + b"\0\0", "unreadable", "2 bytes after its end"),
        (b"\x30\x82\x00\x04abcd", "unreadable", "none of the forms"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "no_certificate", "neither"),
        (LEAF.pem + KEY, "private_key_in_certificate_file", "a.crt holds a private key beside the certificate"),
        (KEY + LEAF.pem, "private_key_in_certificate_file", ""),
        (LEAF.pem + "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "unreadable", "for SSH"),
        (LEAF.pem + KEY.replace("MII", "AAA", 1), "private_key_in_certificate_file", "beside the certificate"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "truncated", "has lost a part"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "unreadable", "none of the forms"),
        ("-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n", "unreadable", "no certificate can be read from it"),
        ("-----BEGIN PGP MESSAGE-----\nhQEM\n-----END PGP MESSAGE-----\n", "unreadable", "part 1 (PGP MESSAGE)"),
    ],
)
def test_refusals(content: bytes | str, code: str, words: str) -> None:
    bag = one(content)
    assert code in codes(bag)
    assert words in " ".join(found.message for found in bag.problems)
    assert all(found.remedy for found in bag.problems)


def test_an_encrypted_key_in_a_certificate_file_is_refused_whether_it_opens_or_not() -> None:
    content = CHAIN + KEYS["PKCS#8"]().decode()
    assert codes(one(content, PASSPHRASE)) == ["private_key_in_certificate_file"]
    assert codes(one(content)) == ["private_key_in_certificate_file", "passphrase_missing"]
    assert codes(one(CHAIN + KEYS["traditional"]().decode())) == ["private_key_in_certificate_file", "passphrase_missing"]


def test_no_cut_of_a_file_passes_for_a_whole_one() -> None:
    """A file that lost its end anywhere either gives all that it gave before or says that something is missing."""
    whole = one(CHAIN)
    for end in [*range(0, len(CHAIN), 37), len(CHAIN) - 3, len(CHAIN) - 2]:
        bag = one(CHAIN[:end])
        assert bag.problems or bag.certificates in (whole.certificates, whole.certificates[:1]), end
        if end > len(LEAF.pem) + 12:
            assert bag.problems or bag.certificates == whole.certificates, end


@pytest.mark.parametrize("shape", ["certificate", "PKCS#7"])
def test_whatever_is_damaged_is_told_and_not_thrown(shape: str) -> None:
    der = LEAF.der if shape == "certificate" else pkcs7.serialize_certificates([LEAF.certificate], serialization.Encoding.DER)
    # The version stands within the first bytes, and an unknown one is an error of its own kind.
    for position in [*range(40 * 8), *range(40 * 8, len(der) * 8, 97)]:
        damaged = bytearray(der)
        damaged[position // 8] ^= 1 << position % 8
        bag = one(bytes(damaged))
        assert bag.problems or bag.certificates


def test_names_of_files_cannot_write_on_the_terminal() -> None:
    bag = one("", name="a\x1b[31m.crt\n")
    assert "\x1b" not in bag.problems[0].message and "\n" not in bag.problems[0].message


MEBIBYTE = files.MAXIMUM_SIZE
HOSTILE: dict[str, bytes] = {
    "10 MB": b"-----BEGIN CERTIFICATE-----\n" * (10 * MEBIBYTE // 28),
    "BEGIN lines": b"-----BEGIN CERTIFICATE-----\n" * (MEBIBYTE // 28),
    "BEGIN and END lines": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" * (MEBIBYTE // 54),
    "END lines": b"-----END CERTIFICATE-----\n" * (MEBIBYTE // 26),
    "spaces": b" " * MEBIBYTE,
    "spaces at the end": b"-----BEGIN CERTIFICATE-----" + b" " * (MEBIBYTE - 27),
    "dashes": b"-" * MEBIBYTE,
    "marks without end": b"-----BEGIN " * (MEBIBYTE // 11),
    "a long label": b"-----BEGIN " + b"A " * (MEBIBYTE // 2 - 6),
    "damaged marks": b"-BEGIN A B " * (MEBIBYTE // 11),
    "headers": b"-----BEGIN X-----\n" + b"a:b\n" * (MEBIBYTE // 4 - 20) + b"-----END X-----\n",
    "backslashes": b"-----BEGIN X-----\n" + b"\\n" * (MEBIBYTE // 2 - 20) + b"-----END X-----\n",
    "base64": b"MI" * (MEBIBYTE // 2),
    "nested DER": b"\x30\x80" * (MEBIBYTE // 2),
    "DER of nothing": b"\x30\x83\x0f\xff\xfb" + b"\5\0" * ((MEBIBYTE - 6) // 2) + b"\0",
    "keys that do not open": (KEYS["PKCS#8"]() * (MEBIBYTE // 1800))[:MEBIBYTE],
    "one certificate, many times": LEAF.pem.encode() * (MEBIBYTE // len(LEAF.pem)),
    "UTF-16": ("-----BEGIN CERTIFICATE-----\n" * (MEBIBYTE // 56)).encode("utf-16-le"),
    "noise": random.Random(7).randbytes(MEBIBYTE),
    "an archive of zeros": archive({"a": b"\0" * 100 * MEBIBYTE}),
    "an archive of many": archive({str(number): b"" for number in range(9000)}),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_hostile_files_take_less_than_a_second(shape: str) -> None:
    content = HOSTILE[shape]
    assert len(content) <= MEBIBYTE or shape == "10 MB"
    started = time.process_time()
    bag = one(content, "wrong")
    assert time.process_time() - started < 1
    assert bag.problems or shape == "one certificate, many times"
    assert len(bag.problems) <= 1 + files.MAXIMUM_BROKEN_PARTS


def test_a_bundle_of_300_kilobytes_is_read() -> None:
    root = pki.issue("Root", ca=True)
    many = [pki.issue(f"Authority {number}", root, ca=True, key=root.key) for number in range(520)]
    content = "".join(pair.pem for pair in many)
    assert len(content) > 300_000
    started = time.process_time()
    bag = one(content)
    assert time.process_time() - started < 1
    assert codes(bag) == [] and len(bag.certificates) == 520


def test_no_key_is_ever_in_a_message() -> None:
    damaged = KEY.replace(KEY[200:204], "!!!!")
    for content in (damaged, KEY[:-30], KEY + LEAF.pem, KEY.replace("PRIVATE KEY", "CERTIFICATE")):
        told = repr(one(content).problems)
        assert not any(line in told for line in KEY.splitlines()[1:-1])
