# SPDX-License-Identifier: GPL-3.0-or-later
"""The module with its action, and the playbook, as people run them: no inventory, real files, real servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from tests.unit import pki, tls_servers

ROOT = Path(__file__).resolve().parents[3]
USUAL = pki.usual()
PASSPHRASE = "a-secret-passphrase"


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    for name, content in {
        "a.crt": USUAL.chain_pem,
        "leaf.crt": USUAL.leaf.pem,
        "a.key": USUAL.leaf.key_pem(),
        "encrypted.key": USUAL.leaf.key_pem(PASSPHRASE),
        "root.pem": USUAL.root.pem,
        "both.pem": USUAL.chain_pem + USUAL.leaf.key_pem(),
        "all.crl": pki.revocation_list(USUAL.intermediate, [USUAL.leaf]).public_bytes(serialization.Encoding.PEM).decode(),
        "empty.crt": "",
    }.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def ansible(program: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *arguments],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1", **environment},
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


def infos(place: Path, *calls: dict[str, Any], **environment: str) -> list[dict[str, Any]]:
    """The module's results on this machine, failures too, by one run."""
    tasks = [{"civitas.hosting.certificate_info": arguments, "ignore_errors": True} for arguments in calls]
    play = {"hosts": "localhost", "gather_facts": False, "tasks": tasks}
    (place / "calls.yml").write_text(json.dumps([play]))
    done = ansible("ansible-playbook", "calls.yml", cwd=place, ANSIBLE_STDOUT_CALLBACK="json", **environment)
    played = json.loads(done.stdout[done.stdout.index("{") :])["plays"][0]["tasks"]
    return [task["hosts"]["localhost"] for task in played]


def check(place: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    extra = [part for one in arguments for part in ("-e", one)]
    done = ansible("ansible-playbook", "civitas.hosting.check_certificate", *extra, cwd=place, **environment)
    return done.returncode, done.stdout + done.stderr


def codes(source: dict[str, Any]) -> list[str]:
    return [found["code"] for found in source["problems"]]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_files_servers_and_a_delivery_in_one_call(place: Path) -> None:
    made = tls_servers.context(place, USUAL.chain_pem, USUAL.leaf.key_pem())
    with tls_servers.answering(tls_servers.tls(made)) as port, tls_servers.answering(tls_servers.postgres(made)) as database:
        asked = {
            "files": [
                {"path": str(place / "a.crt"), "key": str(place / "a.key"), "hostnames": ["www.example.org"]},
                {"path": str(place / "both.pem")},
                {"path": str(place / "missing.pem")},
            ],
            "endpoints": [
                {"host": "127.0.0.1", "port": port, "server_name": "www.example.org"},
                {"host": "127.0.0.1", "port": port},
                {"host": "127.0.0.1", "port": database, "server_name": "www.example.org", "starttls": "postgres"},
                {"host": "127.0.0.1", "port": closed_port()},
            ],
            "delivery": {"files": ["a.crt", "encrypted.key"], "passphrase": PASSPHRASE, "hostnames": ["example.org"]},
            "trust": "root.pem",
        }
        result = infos(place, asked, ANSIBLE_KEEP_REMOTE_FILES="1", ANSIBLE_PIPELINING="0", ANSIBLE_REMOTE_TEMP=str(place / "remote"))[0]
    delivered, good, both, missing, served, unnamed, postgres, nobody = result["sources"]
    assert (result["changed"], result["good"]) == (False, False)
    for source in (delivered, good, served, postgres):
        assert source["good"], source
    assert codes(both) == ["private_key_in_certificate_file"]
    assert "No such file" in missing["error"] and not missing["good"]
    assert served["source"] == f"www.example.org on 127.0.0.1:{port}" and served["protocol"] == "TLSv1.3"
    assert codes(unnamed) == ["name_mismatch"]
    assert nobody["error_kind"] == "unreachable"
    assert served["certificates"][0]["names"] == ["www.example.org", "example.org"]
    for secret in (PASSPHRASE, USUAL.leaf.key_pem().splitlines()[1]):
        assert secret not in json.dumps(result)
    # What was sent to the host.
    sent = [path.read_text(errors="replace") for path in (place / "remote").rglob("*.py")]
    assert len(sent) == 1 and str(port) in sent[0] and PASSPHRASE not in sent[0]


def test_time_trust_and_revocation(place: Path) -> None:
    files = [{"path": str(place / "a.crt")}]
    untrusted, text, later, revoked = infos(
        place,
        {"files": files},
        {"files": files, "trust": USUAL.root.pem},
        {"files": files, "trust": "root.pem", "at": "2099-01-01"},
        {"files": files, "trust": "root.pem", "crls": ["all.crl"]},
    )
    assert codes(untrusted["sources"][0]) != []
    assert text["good"] is True
    assert codes(later["sources"][0])[0] == "expired"
    assert codes(revoked["sources"][0]) == ["revoked"]


ERRORS: list[tuple[dict[str, Any], str]] = [
    ({}, "there is nothing to look at; write files, endpoints or delivery"),
    ({"delivery": {"files": ["nope.crt"]}}, "nope.crt cannot be read on this machine: No such file or directory"),
    ({"delivery": {"files": []}}, "delivery.files is empty"),
    ({"delivery": {"files": ["."]}}, "is not a file"),
    ({"files": [{"path": "/a"}], "trust": "nope.pem"}, "trust: "),
    ({"files": [{"path": "/a"}], "trust": "a.key"}, "The trust store holds no certificate"),
    ({"files": [{"path": "/a"}], "trust": "root.pem", "crls": ["a.crt"]}, "there is no revocation list in a.crt"),
    ({"files": [{"path": "/a"}], "trust": "root.pem", "at": "soon"}, "at is 'soon'; write a time"),
    ({"endpoints": [{"host": "x", "starttls": "imap"}]}, "value of starttls must be one of"),
    ({"delivery": {"files": ["a.crt"], "hostnames": ["https://x/"]}, "trust": "root.pem"}, "neither a host name nor an address"),
]


def test_errors_of_the_caller_are_told(place: Path) -> None:
    results = infos(place, *(arguments for arguments, _words in ERRORS))
    for result, (arguments, words) in zip(results, ERRORS, strict=True):
        assert result["failed"] is True and words in result["msg"], (arguments, result)
        assert "Traceback" not in json.dumps(result)


# --- the playbook -----------------------------------------------------------------------------------------------------------------------


def test_a_good_delivery_is_told_and_ends_well(place: Path) -> None:
    rc, out = check(
        place, 'civitas_check_files=["a.crt","a.key"]', 'civitas_check_names=["www.example.org"]', "civitas_check_trust_file=root.pem"
    )
    assert rc == 0, out
    assert "Good: hand it in." in out
    assert f"  www.example.org    Test Intermediate  {pki.NOW - pki.DAY:%Y-%m-%d}" in out
    assert "changed=0" in out
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["a.crt", "leaf.crt", "a.key", "encrypted.key", "root.pem", "both.pem", "all.crl", "empty.crt"]
    )


def test_a_bad_delivery_ends_with_an_error_and_tells_all(place: Path) -> None:
    files, names = 'civitas_check_files=["leaf.crt","encrypted.key","empty.crt"]', "civitas_check_names=www.example.org,b.example.net"
    rc, out = check(place, files, names, "civitas_check_trust_file=root.pem")
    assert rc == 2
    told = " ".join(out.split())
    for words in ("[empty_file]", "[passphrase_missing]", "[missing_intermediate]", "http://ca.example.org/i.crt", "[name_mismatch]"):
        assert words in told, words
    assert "What to do: Ask the issuer for the missing certificate" in told


def test_lists_on_the_command_line(place: Path) -> None:
    rc, out = check(place, "civitas_check_files=[a.crt")
    assert rc == 2 and "begins like a list and is none" in " ".join(out.split()) and "YAML" not in out
    for files in ("a.crt,a.key", "[a.crt, 'a.key']", '{"civitas_check_files": ["a.crt", "a.key"]}'):
        rc, out = check(place, files if files.startswith("{") else f'civitas_check_files="{files}"', "civitas_check_trust_file=root.pem")
        assert rc == 0, out


def test_a_revocation_list_that_judges_nothing_is_loud(place: Path) -> None:
    old = pki.revocation_list(USUAL.intermediate, last=pki.NOW - 90 * pki.DAY, following=pki.NOW - 60 * pki.DAY)
    for name, crl in (("old.crl", old), ("other.crl", pki.revocation_list(pki.issue("Stranger", ca=True)))):
        (place / name).write_bytes(crl.public_bytes(serialization.Encoding.PEM))
    common = ("civitas_check_files=a.crt,a.key", "civitas_check_trust_file=root.pem")
    rc, out = check(place, *common, "civitas_check_crls=old.crl")
    assert rc == 2 and "[crl_unusable]" in out
    rc, out = check(place, *common, "civitas_check_crls=other.crl")
    assert rc == 0 and "Stranger is about no certificate of this chain" in " ".join(out.split())


def test_the_passphrase_is_nowhere_to_be_seen(place: Path) -> None:
    files = 'civitas_check_files=["a.crt","encrypted.key"]'
    for environment in ({"CIVITAS_CHECK_PASSPHRASE": PASSPHRASE}, {"CIVITAS_CHECK_PASSPHRASE": f"wrong{PASSPHRASE}"}):
        rc, out = check(place, files, "civitas_check_trust_file=root.pem", ANSIBLE_VERBOSITY="4", **environment)
        assert rc == (0 if environment["CIVITAS_CHECK_PASSPHRASE"] == PASSPHRASE else 2)
        assert PASSPHRASE not in out
    (place / "vars.yml").write_text(f"the_passphrase: {PASSPHRASE}\n")
    trust, passphrase = "civitas_check_trust_file=root.pem", "civitas_check_passphrase={{ the_passphrase }}"
    rc, out = check(place, files, trust, "@vars.yml", passphrase, ANSIBLE_VERBOSITY="4")
    assert rc == 0 and PASSPHRASE not in out, out


def test_a_server_is_judged(place: Path) -> None:
    made = tls_servers.context(place, USUAL.chain_pem, USUAL.leaf.key_pem())
    with tls_servers.answering(tls_servers.smtp(made)) as port:
        arguments = [f"civitas_check_address=127.0.0.1:{port}", "civitas_check_trust_file=root.pem", "civitas_check_starttls=smtp"]
        rc, out = check(place, *arguments, "civitas_check_server_name=www.example.org")
        assert rc == 0 and "Good: it is served as it should be." in out, out
        rc, out = check(place, *arguments)
        assert rc == 2 and "[name_mismatch]" in out
        rc, out = check(place, *arguments, "civitas_check_names=example.org")
        assert rc == 0, out
    rc, out = check(place, f"civitas_check_address=127.0.0.1:{closed_port()}")
    assert rc == 2 and "Connection refused" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Nothing to judge is given. Write -e civitas_check_files="),
        (["civitas_check_files=a.crt", "civitas_check_address=x:1"], "Both a delivery and an address are given; leave one out."),
        (["civitas_check_address=https://www.example.org/"], "write a name or an address with a port and nothing else"),
        (["civitas_check_files=nope.crt"], "nope.crt cannot be read on this machine"),
        (["civitas_check_files=a.crt", "civitas_check_trust_file=nope.pem"], "nope.pem cannot be read on this machine"),
    ],
)
def test_errors_of_the_user_are_told_with_what_to_write(place: Path, arguments: list[str], words: str) -> None:
    rc, out = check(place, *arguments)
    assert rc == 2 and words in " ".join(out.split()), out
    assert "Traceback" not in out
