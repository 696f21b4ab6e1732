# SPDX-License-Identifier: GPL-3.0-or-later
"""What an intruder knew is replaced: secrets in real vault files, lines of known hosts, host keys by ssh-keygen, and the proofs."""

from __future__ import annotations

import base64
import http.server
import json
import os
import pathlib
import stat
import subprocess
import sys
import threading

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.civitas.hosting.plugins.module_utils import _host_keys, _secrets_proof
from ansible_collections.civitas.hosting.plugins.module_utils._host_keys import HostKeyError, HostKeys
from ansible_collections.civitas.hosting.plugins.module_utils._secrets import SecretsError, SecretsFile
from ansible_collections.civitas.hosting.plugins.plugin_utils import _known_hosts, _secrets_rotation

CANARY = "canary-1f9c7a-0123456789"


def vault():
    return VaultLib([("default", VaultSecret(b"right"))])


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "secrets.yml"
    path.write_bytes(vault().encrypt(f"# a comment\none: {CANARY}-one\ntwo: {CANARY}-two\nmail: {CANARY}-mail\n"))
    return SecretsFile(str(path), vault())


def values(store):
    fresh = SecretsFile(store.path, vault())
    return {name: fresh.get(name) for name in fresh.names()}


# --- secrets


def test_only_what_is_asked_for_gets_a_new_value(store):
    assert _secrets_rotation.begin(store, {"one": 20, "two": 30}) == (["one", "two"], ["one", "two"])
    now = values(store)
    assert (len(now["one"]), len(now["two"]), now["mail"]) == (20, 30, f"{CANARY}-mail")
    kept = SecretsFile(_secrets_rotation.kept_path(store.path), vault())
    assert kept.get("one") == f"{CANARY}-one"
    assert kept.get("mail") == f"{CANARY}-mail"


def test_the_kept_file_is_encrypted_private_and_no_inventory(store):
    before = pathlib.Path(store.path).read_bytes()
    _secrets_rotation.begin(store, {"one": 20})
    kept = pathlib.Path(_secrets_rotation.kept_path(store.path))
    assert kept.read_bytes() == before
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.name.startswith(".")
    assert sorted(os.listdir(kept.parent)) == [".secrets.yml.before-rotation", ".secrets.yml.lock", "secrets.yml"]


def test_a_rotation_that_was_cut_off_goes_on(store):
    _secrets_rotation.begin(store, {"one": 20})
    first = values(store)["one"]
    assert _secrets_rotation.begin(store, {"one": 20, "two": 20}) == (["two"], ["one", "two"])
    assert values(store)["one"] == first
    kept = SecretsFile(_secrets_rotation.kept_path(store.path), vault())
    assert (kept.get("one"), kept.get("two")) == (f"{CANARY}-one", f"{CANARY}-two")


def test_cut_off_between_keeping_and_changing(store):
    _secrets_rotation._keep(store.path, _secrets_rotation.kept_path(store.path))
    assert _secrets_rotation.begin(store, {"one": 20})[0] == ["one"]
    assert SecretsFile(_secrets_rotation.kept_path(store.path), vault()).get("one") == f"{CANARY}-one"


def test_the_next_rotation_begins_after_the_end_of_this_one(store):
    _secrets_rotation.begin(store, {"one": 20})
    first = values(store)["one"]
    assert _secrets_rotation.finish(store)
    assert not _secrets_rotation.finish(store)
    assert _secrets_rotation.begin(store, {"one": 20})[0] == ["one"]
    assert values(store)["one"] != first
    assert SecretsFile(_secrets_rotation.kept_path(store.path), vault()).get("one") == first


def test_an_unknown_name_changes_nothing(store):
    before = pathlib.Path(store.path).read_bytes()
    with pytest.raises(SecretsError, match="has no three") as refused:
        _secrets_rotation.begin(store, {"one": 20, "three": 20})
    assert CANARY not in str(refused.value)
    assert pathlib.Path(store.path).read_bytes() == before
    assert not os.path.exists(_secrets_rotation.kept_path(store.path))


def test_check_mode_changes_nothing(store):
    before = pathlib.Path(store.path).read_bytes()
    assert _secrets_rotation.begin(store, {"one": 20}, check_mode=True)[0] == ["one"]
    assert pathlib.Path(store.path).read_bytes() == before
    assert not os.path.exists(_secrets_rotation.kept_path(store.path))


def test_a_file_that_cannot_be_kept_is_not_changed(store, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    before = pathlib.Path(store.path).read_bytes()
    with pytest.raises(SecretsError, match="No space left"):
        _secrets_rotation.begin(store, {"one": 20})
    assert pathlib.Path(store.path).read_bytes() == before
    assert not [name for name in os.listdir(os.path.dirname(store.path)) if "before-rotation" in name]


# --- the proof


def test_old_values_are_found_in_files_and_processes(tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/password").write_text(f"PASSWORD={CANARY}\n")
    (tmp_path / "app/other").write_text("nothing\n")
    (tmp_path / "app/link").symlink_to("/etc/shadow")
    process = subprocess.Popen([sys.executable, "-c", "input()"], env={"SECRET": CANARY}, stdin=subprocess.PIPE)
    try:
        # Until it is the new program, its environment is this one's.
        while CANARY.encode() not in pathlib.Path(f"/proc/{process.pid}/environ").read_bytes():
            pass
        found = _secrets_proof.find({"mine": CANARY, "other": "not-there-98765"}, [str(tmp_path / "app")])
    finally:
        process.communicate(b"\n")
    assert {name for name, dummy in found} == {"mine"}
    assert [text for dummy, text in found if str(tmp_path) in text] == [f"{tmp_path}/app/password holds the old value of mine"]
    assert any(f"process {process.pid} (" in text for dummy, text in found)
    assert all(CANARY not in text for dummy, text in found)
    assert not [
        text for dummy, text in _secrets_proof.find({"mine": CANARY}, [str(tmp_path / "none")]) if f"process {process.pid} " in text
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ((False, "password authentication failed"), (True, ""), []),
        ((True, ""), (True, ""), ["OLD password still works"]),
        ((False, "x"), (False, "password authentication failed"), ["new password does not work"]),
        ((None, "could not connect"), (None, "could not connect"), ["new password does not work", "nobody could tell"]),
    ],
)
def test_what_a_database_says(monkeypatch, old, new, said):
    monkeypatch.setattr(_secrets_proof, "login", lambda *words: old if words[-1] == "old" else new)
    target = {"host": "127.0.0.1", "port": 5432, "database": "d", "user": "u"}
    problems = _secrets_proof.prove_login("name", target, "old", "new")
    assert len(problems) == len(said)
    for problem, expected in zip(problems, said, strict=True):
        assert expected in problem


class Application(http.server.BaseHTTPRequestHandler):
    """Takes some passwords, and leads those who come with another one elsewhere when it is told to."""

    taken: frozenset[str] = frozenset()
    refusal = 401

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        user, _sign, password = base64.b64decode(self.headers["Authorization"].split()[1]).decode().partition(":")
        self.send_response(200 if user == "admin" and password in self.taken else self.refusal)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def application(monkeypatch):
    # A proxy that nobody answers at: it must not be asked.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"user": "admin", "url": f"http://127.0.0.1:{server.server_port}/accounts/admin", "database": None}
        server.shutdown()


@pytest.mark.parametrize(
    ("taken", "refusal", "said"),
    [
        ({"new"}, 401, []),
        ({"new"}, 403, []),
        ({"new", "old"}, 401, ["OLD password still works for admin at http://"]),
        ({"old"}, 401, ["new password does not work for admin", "OLD password still works"]),
        ({"new"}, 302, ["nobody could tell"]),
        ({"new"}, 500, ["nobody could tell"]),
    ],
)
def test_what_an_application_says(monkeypatch, application, taken, refusal, said):
    monkeypatch.setattr(Application, "taken", taken)
    monkeypatch.setattr(Application, "refusal", refusal)
    problems = _secrets_proof.prove_login("name", application, "old", "new")
    assert [expected for expected, problem in zip(said, problems, strict=True) if expected not in problem] == []


def test_an_application_that_does_not_run_proves_nothing():
    target = {"user": "admin", "url": "http://127.0.0.1:9/"}
    assert len(_secrets_proof.prove_login("name", target, "old", "new")) == 2


# --- known hosts

OLD = ["ssh-ed25519 AAAAold1", "ssh-rsa AAAAold2"]
NEW = ["ssh-ed25519 AAAAnew1", "ssh-rsa AAAAnew2"]


@pytest.fixture
def known(tmp_path):
    path = tmp_path / "known_hosts"
    path.write_text(
        "# mine\n"
        "gate,192.0.2.1 ssh-ed25519 AAAAold1 comment\n"
        "|1|b0RTNTPqtVfx2VbkLJ10YjJBlNI=|rvg1QcsDKVfaV0wQebCM7/j8F18= ssh-rsa AAAAold2\n"
        "[other]:2200 ssh-ed25519 AAAAother\n"
        "@cert-authority *.example.org ssh-ed25519 AAAAold1\n"
        "gate ecdsa-sha2-nistp256 AAAAold3\n"
    )
    path.chmod(0o640)
    return path


def test_new_keys_stand_beside_old_ones_and_then_alone(known):
    before = known.read_text().splitlines()
    assert _known_hosts.add_beside(str(known), OLD, NEW)
    lines = known.read_text().splitlines()
    assert [line for line in lines if "new" not in line] == before
    assert "gate,192.0.2.1 ssh-ed25519 AAAAnew1" in lines
    assert "|1|b0RTNTPqtVfx2VbkLJ10YjJBlNI=|rvg1QcsDKVfaV0wQebCM7/j8F18= ssh-rsa AAAAnew2" in lines
    assert not _known_hosts.add_beside(str(known), OLD, NEW)
    assert _known_hosts.remove(str(known), OLD)
    left = known.read_text()
    assert "gate,192.0.2.1 ssh-ed25519 AAAAold1" not in left
    assert "AAAAold2" not in left
    # What vouches for others, what is of another host or of a kind that was not replaced, stays.
    for kept in ("# mine", "[other]:2200 ssh-ed25519 AAAAother", "@cert-authority *.example.org ssh-ed25519 AAAAold1", "AAAAold3"):
        assert kept in left
    assert stat.S_IMODE(known.stat().st_mode) == 0o640
    assert os.listdir(known.parent) == ["known_hosts"]


def test_a_dry_run_and_a_file_that_is_not_there(known):
    before = known.read_text()
    assert _known_hosts.add_beside(str(known), OLD, NEW, write=False)
    assert known.read_text() == before
    assert not _known_hosts.add_beside(str(known.parent / "none"), OLD, NEW)
    assert not (known.parent / "none").exists()
    assert _known_hosts.holds(str(known), OLD)
    assert not _known_hosts.holds(str(known), NEW)


def test_a_link_stays_one(known):
    link = known.parent / "link"
    link.symlink_to(known)
    assert _known_hosts.remove(str(link), OLD)
    assert link.is_symlink()
    assert "AAAAold2" not in known.read_text()


# --- host keys


@pytest.fixture
def keys(tmp_path, monkeypatch):
    (tmp_path / "ssh").mkdir()
    armed, run = [], _host_keys._run
    for kind in ("ed25519", "ecdsa"):
        run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "root@x", "-f", str(tmp_path / f"ssh/ssh_host_{kind}_key")])
    settings = (
        "".join(f"hostkey {tmp_path}/ssh/ssh_host_{kind}_key\n" for kind in ("ed25519", "ecdsa")) + "port 2200\nhostcertificate none\n"
    )
    # The unit test has no host: that the way back is armed before the first change is seen here, that it works in the scenario.
    monkeypatch.setattr(_host_keys._revert, "arm", lambda paths, actions: armed.append((list(paths), found.public())))
    monkeypatch.setattr(_host_keys, "_run", lambda words: None if words[0] == "systemctl" else run(words))
    found = HostKeys(settings, str(tmp_path / "stage"), str(tmp_path / "retired.json"))
    found.armed = armed
    return found


def test_host_keys_are_replaced_kind_by_kind(keys):
    old = keys.public()
    assert keys.make()
    assert not keys.make()
    assert keys.public() == old == keys.old()
    new = keys.staged()
    assert [key.split()[0] for key in new] == [key.split()[0] for key in old]
    assert not set(new) & set(old)
    assert keys.swap()
    ((paths, before),) = keys.armed
    assert before == old
    assert len(paths) == 4
    assert keys.public() == new
    assert not keys.swap()
    for path in keys.paths:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        derived = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout.split()[:2]
        assert " ".join(derived) in new
    assert keys.finish()
    assert keys.retired() == sorted(old)
    assert not keys.finish()
    assert keys.retired() == sorted(old)
    assert not os.path.exists(keys.stage)


def test_keys_that_were_cut_off_in_the_making_are_made_anew(keys):
    keys.make()
    first = keys.staged()
    os.unlink(os.path.join(keys.stage, "old.json"))
    assert keys.make()
    assert keys.staged() != first


def test_nothing_is_forgotten_before_it_is_replaced(keys):
    keys.make()
    with pytest.raises(HostKeyError, match="not in use"):
        keys.finish()
    assert keys.staged()


def test_no_keys_to_swap_in(keys):
    with pytest.raises(HostKeyError, match="state: staged"):
        keys.swap()
    assert not keys.armed


@pytest.mark.parametrize(("settings", "said"), [("port 22\n", "no host key"), ("hostkey /a\nhostcertificate /b\n", "certificate")])
def test_hosts_that_are_not_understood(settings, said):
    with pytest.raises(HostKeyError, match=said):
        HostKeys(settings)


def test_state_files_hold_public_keys_only(keys):
    keys.make()
    for text in (json.dumps(keys.old()), json.dumps(keys.staged())):
        assert "PRIVATE" not in text
