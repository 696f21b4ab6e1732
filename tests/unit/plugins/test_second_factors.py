# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are made once and told to one person. Programs are the real ones in the scenario `access`; here they are named."""

from __future__ import annotations

import base64
import io
import os
import re
import tarfile

import pytest
from ansible_collections.civitas.hosting.plugins.action import second_factors as action
from ansible_collections.civitas.hosting.plugins.module_utils import _second_factors as module
from ansible_collections.civitas.hosting.plugins.module_utils._login_probe import servers, totp, wrong_code

ANN = {"name": "ann", "public_keys": ["ssh-ed25519 AAAA ann"], "age_recipient": ""}
BOB = {"name": "bob", "public_keys": ["ssh-rsa AAAA bob"], "age_recipient": ""}


@pytest.fixture(name="factors")
def _factors(tmp_path, monkeypatch):
    # Neither program is on every developer's machine. What goes through the pipe stays readable.
    monkeypatch.setattr(
        module, "_pipe", lambda argv, data: b"to " + argv[-1].encode() + b": " + data if argv[0] == "age" else argv[2].encode()
    )
    return module.SecondFactors("host", str(tmp_path / "etc" / "secrets"), str(tmp_path / "var" / "outbox"))


def files(factors):
    return {name: (module.os.path.join(factors.directory, name)) for name in sorted(os.listdir(factors.directory))}


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_a_secret_is_made_once(factors):
    first = factors.apply([ANN, BOB])
    assert (first.made, sorted(first.waiting), first.changed) == (["ann", "bob"], ["ann", "bob"], True)
    before = {name: content(path) for name, path in files(factors).items()}
    factors.acknowledge({name: enrolment.id for name, enrolment in first.waiting.items()})
    second = factors.apply([ANN, BOB])
    assert (second.changed, second.waiting) == (False, {})
    assert {name: content(path) for name, path in files(factors).items()} == before


def test_files_are_roots_alone_whatever_the_umask(factors):
    mask = os.umask(0)
    try:
        factors.apply([ANN])
    finally:
        os.umask(mask)
    for path, mode in ((factors.directory, 0o700), (factors.outbox, 0o700), (files(factors)["ann"], 0o600)):
        assert os.stat(path).st_mode & 0o777 == mode
    assert {os.stat(os.path.join(factors.outbox, name)).st_mode & 0o777 for name in os.listdir(factors.outbox)} == {0o600}


def test_the_secret_is_as_the_module_of_pam_wants_it(factors):
    factors.apply([ANN])
    secret, *rest = content(files(factors)["ann"]).splitlines()
    assert len(base64.b32decode(secret)) == 20
    assert rest[:4] == ['" RATE_LIMIT 3 30', '" WINDOW_SIZE 3', '" DISALLOW_REUSE', '" TOTP_AUTH']
    assert len(set(rest[4:])) == 8
    assert all(re.fullmatch(r"[1-9]\d{7}", code) for code in rest[4:])


def test_what_the_person_gets_is_the_secret_in_force(factors):
    outcome = factors.apply([ANN])
    cipher = base64.b64decode(outcome.waiting["ann"].ciphertext)
    head, _colon, data = cipher.partition(b": ")
    assert head == b"to ssh-ed25519 AAAA ann"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["ann/enrolment.txt", "ann/enrolment.png", "ann/enrolment.svg"]
        text = tar.extractfile("ann/enrolment.txt").read().decode()
    secret, *rest = content(files(factors)["ann"]).splitlines()
    assert f"otpauth://totp/civitas:ann@host?secret={secret}&issuer=civitas&algorithm=SHA1&digits=6&period=30" in text
    assert all(code in text for code in rest[4:])


def test_an_enrolment_waits_until_the_controller_has_it(factors):
    first = factors.apply([ANN]).waiting["ann"]
    again = factors.apply([ANN])
    assert (again.changed, again.waiting["ann"]) == (False, first)
    # A login rewrites the file; the secret is the same.
    with open(files(factors)["ann"], "a", encoding="utf-8") as file:
        file.write("")
    path = files(factors)["ann"]
    text = content(path).replace('" DISALLOW_REUSE', '" DISALLOW_REUSE 59842445')
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    assert factors.apply([ANN]).waiting["ann"] == first
    factors.acknowledge({"ann": first.id})
    assert factors.apply([ANN]).waiting == {}
    factors.acknowledge({"ann": first.id})


def test_a_crash_between_the_two_writes_leaves_nothing_wrong(factors, monkeypatch):
    factors.apply([ANN])
    old = content(files(factors)["ann"])
    real = module.write_private

    def crash(path, data):
        if path.startswith(factors.directory):
            raise OSError("power cut")
        real(path, data)

    monkeypatch.setattr(module, "write_private", crash)
    with pytest.raises(OSError, match="power cut"):
        factors.apply([ANN], reset=["ann"])
    monkeypatch.setattr(module, "write_private", real)
    assert content(files(factors)["ann"]) == old
    # Two are in the outbox: the one that belongs to the secret in force is sent.
    assert len(os.listdir(factors.outbox)) == 2
    assert factors.apply([ANN]).waiting["ann"].id == module.secret_id(old)
    assert len(os.listdir(factors.outbox)) == 1


def test_a_reset_makes_another_and_forgets_the_old_enrolment(factors):
    factors.apply([ANN])
    old = content(files(factors)["ann"])
    outcome = factors.apply([ANN], reset=["ann"])
    assert (outcome.made, outcome.reset, outcome.changed) == ([], ["ann"], True)
    assert content(files(factors)["ann"]).splitlines()[0] != old.splitlines()[0]
    assert len(os.listdir(factors.outbox)) == 1


def test_what_was_revoked_stays_so_until_a_reset(factors):
    factors.apply([ANN, BOB])
    outcome = factors.apply([ANN, BOB], revoke=["ann"])
    assert (outcome.revoked, sorted(outcome.waiting)) == (["ann"], ["bob"])
    assert content(files(factors)["ann"]) == module.REVOKED
    assert factors.apply([ANN, BOB], revoke=["ann"]).changed is False
    assert factors.apply([ANN, BOB]).changed is False
    assert factors.apply([ANN, BOB], reset=["ann"]).reset == ["ann"]


def test_who_is_not_listed_loses_it(factors):
    factors.apply([ANN, BOB])
    assert factors.apply([BOB], exclusive=False).removed == []
    outcome = factors.apply([BOB])
    assert (outcome.removed, sorted(outcome.waiting)) == (["ann"], ["bob"])
    assert list(files(factors)) == ["bob"]


def test_in_a_grace_window_nobody_is_enrolled_unasked(factors):
    outcome = factors.apply([ANN, BOB], reset=["bob"], enrol=False)
    assert (outcome.reset, outcome.without) == (["bob"], ["ann"])
    assert list(files(factors)) == ["bob"]


def test_check_mode_says_what_would_be_and_does_nothing(factors):
    outcome = factors.apply([ANN], check=True)
    assert (outcome.made, outcome.changed) == (["ann"], True)
    assert not os.path.exists(factors.directory)


def test_all_problems_are_named_before_anything_is_done(factors):
    token = {"name": "carl", "public_keys": ["sk-ssh-ed25519@openssh.com AAAA", "ecdsa-sha2-nistp256 AAAA"], "age_recipient": ""}
    with pytest.raises(module.SecondFactorError) as error:
        factors.apply([ANN, token, {**BOB, "age_recipient": "age-secret"}], reset=["dora"], revoke=["emil"])
    for words in ("carl: none of the SSH keys", "bob: age_recipient must begin with age1", "dora: has no second factor", "emil: has no"):
        assert words in str(error.value)
    assert not os.path.exists(factors.directory)
    assert factors.apply([{**token, "age_recipient": "age1abc"}]).made == ["carl"]


def test_a_full_disk_leaves_the_old_secret(factors, monkeypatch):
    factors.apply([ANN])
    path = files(factors)["ann"]
    old = content(path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        module.write_private(path, b"other")
    assert content(path) == old
    assert list(files(factors)) == ["ann"]


def test_a_program_that_fails_is_named_without_what_it_read():
    with pytest.raises(module.SecondFactorError, match=r"^false: $"):
        module._pipe(["false"], b"secret")
    with pytest.raises(module.SecondFactorError, match="no-such-program is not installed"):
        module._pipe(["no-such-program"], b"secret")


def test_the_controller_writes_what_it_got_and_nothing_elsewhere(tmp_path):
    waiting = {"ann": {"id": "x", "ciphertext": base64.b64encode(b"cipher").decode()}}
    (path,) = action.write_enrolments(str(tmp_path / "host"), waiting)
    assert path == str(tmp_path / "host" / "ann.tar.age")
    assert (tmp_path / "host" / "ann.tar.age").read_bytes() == b"cipher"
    assert (tmp_path / "host" / "ann.tar.age").stat().st_mode & 0o777 == 0o600
    for name in ("../ann", "/etc/x", ".x"):
        with pytest.raises(OSError, match="outside"):
            action.write_enrolments(str(tmp_path / "host"), {name: waiting["ann"]})


# --- codes (RFC 6238, appendix B, cut to six digits)

RFC = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(("moment", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")])
def test_codes_are_those_of_the_standard(moment, code):
    assert totp(RFC, moment) == code
    assert wrong_code(RFC, moment + 3000) not in {totp(RFC, moment + 3000 + 30 * step) for step in (-1, 0, 1)}


def test_the_server_is_asked_where_it_listens():
    assert servers({}) == [("127.0.0.1", 22)]
    assert servers({"listenaddress": ["[::]:2222", "0.0.0.0:2222"]}) == [("127.0.0.1", 2222), ("::1", 2222)]
    assert servers({"listenaddress": ["10.0.0.5:22", "[fe80::1%eth0]:22"]}) == [("10.0.0.5", 22), ("fe80::1", 22)]


def test_what_waits_for_others_is_not_sent_with_one_persons(factors):
    factors.apply([ANN, BOB])
    assert list(factors.apply([ANN], exclusive=False).waiting) == ["ann"]
    assert sorted(factors.apply([ANN, BOB]).waiting) == ["ann", "bob"]
