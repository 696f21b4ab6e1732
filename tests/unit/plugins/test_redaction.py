# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for all secrets in all texts, what secrets look like, what stays, and that nobody keeps it busy."""

from __future__ import annotations

import base64
import contextlib
import html
import json
import random
import resource
import secrets
import shlex
import string
import subprocess
import time
import urllib.parse

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _redaction as redaction
from ansible_collections.civitas.hosting.plugins.module_utils._redaction import LastLook, Redactor, Secret, harmless, whole_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit import pki

ALPHANUMERIC = string.ascii_letters + string.digits


def redact(text: str, *values: str) -> str:
    return Redactor([Secret("name", value) for value in values]).redact(text)


# Made here, and by the programs' own libraries: what the redactor knows of encodings is not asked.
WAYS = {
    "raw": lambda value: value,
    "url": lambda value: urllib.parse.quote(value, safe=""),
    "url path": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "form in a url": lambda value: urllib.parse.quote(urllib.parse.quote(value, safe=""), safe=""),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for urls": lambda value: base64.urlsafe_b64encode(value.encode()).decode().rstrip("="),
    "base64 in a url": lambda value: urllib.parse.quote(base64.b64encode(value.encode()).decode(), safe=""),
    "login": lambda value: base64.b64encode(f"admin:{value}".encode()).decode(),
    "login of two": lambda value: base64.b64encode(f"anna1:{value}:end".encode()).decode(),
    "json": json.dumps,
    "json as it is": lambda value: json.dumps(value, ensure_ascii=False),
    "json in json": lambda value: json.dumps(json.dumps({"a": value})),
    "json in base64": lambda value: base64.b64encode(json.dumps({"a": value}).encode()).decode(),
    "shell": shlex.quote,
    "sql": lambda value: value.replace("'", "''"),
    "html": html.escape,
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "python": repr,
    "bytes of python": lambda value: repr(value.encode()),
    "colours": lambda value: f"\x1b[31m{value}\x1b[0m",
    "utf-16": lambda value: value.encode("utf-16-le").decode("latin-1") if value.isascii() else value,
}
# What a person or a generator makes; blanks at its ends are no part of it, as files end with a line.
VALUE = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Mn")), min_size=6, max_size=40)
VALUE = VALUE.map(str.strip).filter(lambda value: len(value) >= 6 and harmless(value.encode()) == value)
VALUE |= st.text(ALPHANUMERIC, min_size=6, max_size=64) | st.text("'\"\\/+ %&=$", min_size=3, max_size=8).map(
    lambda value: f"a{value}9{value}z"
)
AROUND = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=30)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(value=VALUE, before=AROUND, after=AROUND)
def test_a_secret_is_gone_in_every_encoding(way, value, before, after):
    form = WAYS[way](value)
    text = harmless(f"{before}\n{form}\n{after} {form}".encode())
    clean = redact(text, value)
    assert not LastLook([Secret("name", value)]).names(clean)
    left = redaction.MARK.sub("\n", clean)
    assert harmless(form.encode()) not in left
    for word in left.encode("ascii", "ignore").split():
        with contextlib.suppress(ValueError):
            assert value.encode() not in base64.b64decode(word[: len(word) // 4 * 4])


@settings(max_examples=200, deadline=None)
@given(first=st.text("ab", min_size=6, max_size=12), second=st.text("ab", min_size=6, max_size=12), text=st.text("ab ", max_size=80))
def test_secrets_that_overlap_are_both_gone(first, second, text):
    clean = redaction.MARK.sub("\n", redact(text, first, second))
    assert first not in clean
    assert second not in clean


LINES = [
    "2026-11-22T08:23:48.629Z info sshd[10815]: Accepted publickey for deploy from 10.0.0.7 port 50022 ssh2: ED25519 SHA256:"
    "Zm9vYmFyMTIzNDU2Nzg5MEFCQ0RFRkdISUpLTE1OT1A",
    "2026-11-22T08:23:48.629Z notice sshd[1]: Failed password for invalid user admin from 10.0.0.7 port 50022 ssh2",
    "2026-11-22T08:23:48.629Z info sudo[5]: pam_unix(sudo:session): session opened for user root(uid=0) by deploy(uid=1000)",
    "2026-11-22 08:23:48.925 UTC [6824] LOG:  checkpoint complete: wrote 11 buffers (0.0%); 0 WAL file(s) added, 0 removed",
    "/demo-web-1\timage=civitas/kinto:25.0.0\tdigest=sha256:62e37c831868e70fc65522bdc97eea779f28cd039bb2d4286167c43b2d407dc4\tstatus=running",
    "deploy ALL=(ALL) NOPASSWD: ALL",
    "password_encryption = 'scram-sha-256'",
    "POSTGRES_PASSWORD_FILE: /run/secrets/database_password",
    "    secret_files: [/etc/civitas/apps/demo/secrets/admin]",
    "KexAlgorithms curve25519-sha256@libssh.org,mlkem768x25519-sha256",
    "Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com",
    "postgresql@15-main.service loaded active running PostgreSQL Cluster 15-main",
    'tcp LISTEN 0 511 0.0.0.0:443 0.0.0.0:* users:(("nginx",pid=812,fd=6))',
    "/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-scsi0 /var/lib/docker/overlay2/5e67eae5d681694404178105cd1d5e6d39ad2d6f/merged",
    "Basic system initialisation is done, basic authentication is off, the bearer is unknown",
    "net.ipv4.tcp_syncookies = 1",
    "Get https://registry.example.org/v2/: x509: certificate signed by unknown authority",
]


@pytest.mark.parametrize("line", LINES)
def test_text_without_secrets_stays_as_it_was(line):
    assert redact(f"{line}\n", "a passphrase of this test", "qGGGzzzz12345zzzzz") == f"{line}\n"


@settings(deadline=None)
@given(st.text("abcdefghij 0123456789.,()[]\n", max_size=400))
def test_words_and_numbers_stay_as_they_were(text):
    assert redact(text, "another-secret") == text


RANDOM = (
    "".join(secrets.choice(ALPHANUMERIC) for _each in range(10))
    + "aB3"
    + "".join(secrets.choice(ALPHANUMERIC) for _each in range(20))
    + "xY7qZ1"
)
LOOKS = {
    "assigned": ("db_password=%s next", "b3stkept"),
    "yaml": ("  admin_passphrase: %s\n", "some words that are long"),
    "json": ('{"user": "anna", "apiKey": "%s"}', "b3stkept"),
    "json in a log": ('msg="{\\"token\\": \\"%s\\"}"', "b3stkept"),
    "escaped quote": ('{"secret": "%s"}', 'b3st\\"kept'),
    "query": ("GET /?access_token=%s&a=b HTTP/1.1", "b3stkept"),
    "encoded query": ("next=%%2Fx%%3Fpassword%%3D%s", "b3stkept"),
    "option": ("COMMAND=/usr/bin/tool --db-password %s --verbose", "b3stkept"),
    "option with a sign": ("tool --client-secret='%s'", "b3stkept two"),
    "sql": ("ALTER ROLE demo PASSWORD '%s'", "b3stkept"),
    "short": ("password=%s", "q"),
    "basic": ("Authorization: Basic %s", base64.b64encode(b"anna:b3stkept").decode()),
    "basic without a name": ("sent Basic %s to it", base64.b64encode(b"anna:b3stkept").decode()),
    "bearer": ('-H "authorization: Bearer %s"', "abcdefghijklmnop"),
    "cookie": ("Cookie: session=%s; other=1", "b3stkept"),
    "set-cookie": ("< Set-Cookie: sid=%s; Path=/", "b3stkept"),
    "url": ("postgres://demo:%s@database.internal:5432/demo", "b3stkept"),
    "shadow": ("root:%s:19000:0", "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"),
    "sha512": ("hash %s", "$6$rounds=5000$abcdefgh$Zm9vYmFyMTIzNDU2Nzg5MEFCQ0RFRkdISUpLTE1OT1A"),
    "scram": ("rolpassword %s", "SCRAM-SHA-256$4096:c2FsdHNhbHQ=$c3RvcmVk:c2VydmVy"),
    "jwt": ("got %s", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl"),
    "age": ("key %s", "AGE-SECRET-KEY-" + "1QQPQRSTUVWXYZ023456789ACDEFGHJKLMN"),
    "wireguard": ("peer %s", base64.b64encode(bytes(range(32))).decode()),
    "random": ("started with %s and so", RANDOM),
    "github": ("cloning with %s", "ghp_abcdefghijklmnopqrstuvwxyz"),
    "mail": ("to=<%s@example.org>, relay=none", "anna.example"),
    "mail in a url": ("/accounts/%s%%40example.org", "anna.example"),
    "audit": ("type=PROCTITLE msg=audit(1.2:3): proctitle=%s", b"tool --x b3stkept".hex()),
    "audit arguments": ('type=EXECVE msg=audit(1.2:3): argc=2 a0="tool" a1="%s"', "b3stkept"),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_what_looks_like_a_secret_is_gone_though_nobody_told_of_it(kind):
    frame, value = LOOKS[kind]
    clean = redact(frame % value)
    assert value not in redaction.MARK.sub("\n", clean)
    assert redaction.MARK.search(clean)


def test_what_was_redacted_is_left_alone():
    once = redact("password=hunter22 Authorization: Basic YW5uYTpiM3N0 token: letmein now", "letmein")
    assert redact(once, "letmein") == once
    assert "[redacted: password] password]" not in once


def test_the_mark_of_somebody_else_hides_nothing():
    assert "b3stkept" not in redact("password=[redacted: secret]b3stkept cookie: [redacted: x] sid=b3stkept")


KEY = pki.key_pem(pki.rsa_key())
PREFIX = "2026-11-22T08:00:00.000Z info app[7]: "


def framed(lines: list[str]) -> str:
    return "".join(f"{PREFIX}{line}\n" for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        framed(KEY.splitlines()),
        framed(KEY.splitlines()[:-1]),  # the log ends within it
        framed(KEY.splitlines()[4:]),  # the log begins within it
        "".join(KEY.splitlines(keepends=True)[4:]),
        json.dumps({"key": KEY}),
        f"key {KEY.replace(chr(10), ' ')} end",
        framed([line[at : at + 33] for line in KEY.splitlines() for at in range(0, len(line), 33)]),
    ],
    ids=["whole", "log", "without its end", "without its begin", "bare, without its begin", "json", "one line", "broken lines"],
)
def test_a_private_key_is_gone_however_it_is_cut(text):
    clean = redact(f"{PREFIX}before.\n{text}\n{PREFIX}after.\n")
    for line in KEY.splitlines()[1:-1]:
        for at in range(len(line) - 15):
            assert line[at : at + 16] not in clean
    assert f"{PREFIX}before.\n" in clean
    assert f"{PREFIX}after.\n" in clean


def test_a_private_key_is_gone_when_pieces_end_within_it():
    lines = framed(["before.", *KEY.splitlines(), "after."]).splitlines(keepends=True)
    for cut in range(1, len(lines)):
        stream = Redactor().stream()
        clean = stream.feed("".join(lines[:cut])) + stream.feed("".join(lines[cut:]))
        assert not any(line in clean for line in KEY.splitlines()[1:-2])
        assert "after." in clean


def test_short_secrets_are_taken_out_as_whole_words_and_shorter_ones_are_named():
    redactor = Redactor([Secret("four", "kiwi"), Secret("three", "abc"), Secret("none", "")])
    assert redactor.redact("kiwi kiwis akiwi (kiwi) abc abcd\n") == "[redacted: secret] kiwis akiwi ([redacted: secret]) abc abcd\n"
    assert redactor.too_short == ["three"]
    assert LastLook([Secret("four", "kiwi")]).names("kiwis kiwi") == ["four"]
    assert LastLook([Secret("four", "kiwi")]).names("kiwis") == []


def test_the_address_of_a_webhook_is_secret_in_its_parts():
    clean = redact("POST /services/T0001/b3stkept to chat.example.org", "https://chat.example.org/services/T0001/b3stkept")
    assert "b3stkept" not in clean
    assert "chat.example.org" in clean


def test_bytes_that_are_no_text_become_harmless():
    text = harmless(b"a\x00b\xff\xfe\x1b]0;title\x07c\x1b[2Jd\x08e\r\nf\rg\xe2\x80\xaeh\xc2\x85\xe2\x80\xa8i\tj")
    assert text == "ab\\xff\\xfecd\\x08e\nf\\x0dgh\\x85\\u2028i\tj"
    assert len(text.splitlines()) == 2


def log(size: int) -> bytes:
    words = [
        word for word in subprocess.run(["man", "-k", "."], capture_output=True, text=True, check=False).stdout.split() if word.isalpha()
    ]
    words = words or ["started", "unit", "service", "connection", "closed", "session", "reached", "target", "failed", "password"]
    source, lines, length = random.Random(1), [], 0
    while length < size:
        line = f"2026-11-22T08:{source.randrange(60):02}:00.{source.randrange(1000):03}Z info unit[{source.randrange(99999)}]: "
        line += " ".join(source.choices(words, k=14))
        line += source.choice(["", "", "", " for anna@example.org", " token=abc", f" key {RANDOM}", " https://h/x"])
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines).encode()


def test_a_large_log_takes_seconds_and_little_memory():
    data = log(50 << 20)
    values = [Secret(f"s{number}", secrets.token_urlsafe(30)) for number in range(60)]
    middle = data.index(b"\n", len(data) // 2)
    data = data[:middle] + f" {values[7].value} ".encode() + data[middle:]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, stream, size = time.process_time(), Redactor(values).stream(), 0
    for piece in whole_lines(data[at : at + 65536] for at in range(0, len(data), 65536)):
        size += len(stream.feed(piece))
    assert time.process_time() - start < 60
    assert size > 30 << 20
    assert stream.counts["secret"] == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


HOSTILE = {
    "one letter": "a" * 10_000_000,
    "base64": "aB3/" * 2_500_000,
    "names of secrets": "password=" * 1_000_000,
    "quotes": 'password="' * 1_000_000,
    "blanks": "password" + " " * 10_000_000 + "=x",
    "at": "a@b." * 2_500_000,
    "keys on one line": "-----BEGIN PRIVATE KEY-----" * 300_000,
    "ends on one line": "-----END PRIVATE KEY-----" * 300_000,
    "keys": "-----BEGIN PRIVATE KEY-----\n" * 100_000,
    "ends": "abcd3\n-----END PRIVATE KEY-----\n" * 100_000,
    "dashes": "--" * 5_000_000 + "token",
    "backslashes": "\\" * 10_000_000 + "password",
    "urls": "://a" * 2_500_000 + "@",
    "dollars": "$6$" * 3_000_000,
    "cookies": "cookie: " * 1_200_000,
    "colons": ":" * 10_000_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_line_keeps_it_busy(kind):
    start = time.process_time()
    redact(HOSTILE[kind], 'a"b\\c/d e', "\\\\\\\\\\\\", RANDOM)
    assert time.process_time() - start < 30
