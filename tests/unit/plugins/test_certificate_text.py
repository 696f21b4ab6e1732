# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters as playbooks use them."""

from __future__ import annotations

import datetime
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.certificate_chain import certificate_chain
from ansible_collections.civitas.hosting.plugins.filter.certificate_info import certificate_info
from ansible_collections.civitas.hosting.plugins.filter.certificate_problems import certificate_problems
from ansible_collections.civitas.hosting.plugins.plugin_utils import _certificate_chain
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_text import TextError, moment
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.unit.pki import DAY, NOW, SERVER, Pki, ec_key, ed25519_key, issue, key_pem, revocation_list, rsa_key, usual

WWW = "www.example.org"
PKI = functools.cache(usual)


def codes(text: Any, **arguments: Any) -> list[str]:
    return [one["code"] for one in certificate_problems(text, **{"trust": PKI().root.pem, **arguments})]


def glued(text: str) -> str:
    return text.replace("-----\n-----BEGIN", "----------BEGIN")


GOOD_TEXTS: dict[str, Callable[[Pki], str]] = {
    "plain": lambda pki: pki.chain_pem,
    "reversed, with the root, twice": lambda pki: (pki.root.pem + pki.intermediate.pem + pki.leaf.pem) * 2,
    "Windows' line ends": lambda pki: pki.chain_pem.replace("\n", "\r\n"),
    "byte order mark": lambda pki: "\ufeff" + pki.chain_pem,
    "text between": lambda pki: f"Dear M\u00fcller,\nthis is it:\n{pki.leaf.pem}\n# the chain\n{pki.intermediate.pem}\nRegards\n",
    "glued": lambda pki: glued(pki.chain_pem),
}


@pytest.mark.parametrize("shape", GOOD_TEXTS)
def test_a_good_text_is_accepted_and_put_in_order(shape: str) -> None:
    pki = PKI()
    text = GOOD_TEXTS[shape](pki)
    arguments: dict[str, Any] = {"trust": pki.root.pem, "hostname": WWW, "private_key": pki.leaf.key_pem()}
    assert certificate_problems(text, **arguments) == []
    assert certificate_chain(text, **arguments) == pki.chain_pem
    assert certificate_chain(text, pki.root.pem, WWW, pki.leaf.key_pem(), NOW.isoformat()) == pki.chain_pem


def test_bad_texts_are_refused() -> None:
    pki = PKI()
    assert codes("") == ["empty_file"]
    assert codes(" \n") == ["empty_file"]
    assert codes("Hello") == ["no_certificate"]
    assert codes(pki.chain_pem[:-60]) == ["truncated"]
    assert codes(pki.chain_pem + pki.leaf.key_pem()) == ["private_key_in_certificate_file"]
    assert codes(pki.leaf.key_pem()) == ["private_key_in_certificate_file"]
    assert codes("x" * 11_000_000) == ["too_large"]
    assert codes(None) == ["empty_file"]


def test_keys_are_compared_and_never_shown() -> None:
    pki = PKI()
    assert codes(pki.chain_pem, private_key=pki.leaf.key_pem()) == []
    assert codes(pki.chain_pem, private_key=key_pem(ec_key())) == ["key_mismatch"]
    assert codes(pki.chain_pem, private_key=pki.leaf.key_pem("secret")) == ["passphrase_missing"]
    assert codes(pki.chain_pem, private_key="") == ["key_missing"]
    assert codes(pki.chain_pem, private_key=pki.leaf.pem) == ["key_missing"]
    assert codes(pki.chain_pem, private_key=pki.leaf.key_pem() + key_pem(ec_key())) == ["key_missing"]
    assert codes(pki.chain_pem, private_key=pki.leaf.key_pem()[:-80]) == ["truncated"]
    body = key_pem(ec_key()).splitlines()[1]
    assert body not in json.dumps(certificate_problems(pki.chain_pem, trust=pki.root.pem, private_key=key_pem(ec_key())))


@pytest.mark.parametrize("make", [ec_key, rsa_key, ed25519_key])
def test_keys_of_all_kinds(make: Any) -> None:
    pki, key = PKI(), make()
    bottom = issue(WWW, pki.intermediate, names=[WWW], key=key)
    assert codes(bottom.pem + pki.intermediate.pem, private_key=key_pem(key), hostname=WWW) == []


def test_names_and_times() -> None:
    pki = PKI()
    assert codes(pki.chain_pem, hostname=[WWW, "example.org"]) == []
    assert codes(pki.chain_pem, hostname=[WWW, "mail.example.org"]) == ["name_mismatch"]
    assert codes(pki.chain_pem, hostname=None) == []
    late = NOW + 91 * DAY
    assert codes(pki.chain_pem, at=late.strftime("%Y-%m-%dT%H:%M:%SZ")) == ["expired"]
    assert codes(pki.chain_pem, at=late.replace(tzinfo=None).isoformat()) == ["expired"]
    assert codes(pki.chain_pem, at=late) == ["expired"]
    assert codes(pki.chain_pem, at=(late - 2 * DAY).date().isoformat()) == []


def test_a_time_says_its_zone_or_is_utc() -> None:
    noon = datetime.datetime(2026, 12, 31, 12, tzinfo=datetime.UTC)
    for text in ("2026-12-31T12:00:00Z", "2026-12-31T12:00:00z", "2026-12-31 12:00:00", "2026-12-31T14:00:00+02:00"):
        assert moment(text) == noon
    assert moment(noon.replace(tzinfo=None)) == noon
    assert moment(None) is None
    with pytest.raises(TextError, match="write a time such as 2026-12-31T12:00:00Z") as failed:
        moment("tomorrow")
    # Ansible would tell the cause as well, and the sentence twice.
    assert failed.value.__suppress_context__ and failed.value.__cause__ is None
    for text in ("9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00"):
        with pytest.raises(TextError, match="outside the years 1 to 9999"):
            moment(text)


def test_a_revocation_list_in_the_text_counts() -> None:
    pki = PKI()
    crl = revocation_list(pki.intermediate, [pki.leaf]).public_bytes(serialization.Encoding.PEM).decode()
    assert codes(pki.chain_pem + crl) == ["revoked"]
    old = revocation_list(pki.intermediate, last=NOW - 90 * DAY, following=NOW - 60 * DAY).public_bytes(serialization.Encoding.PEM).decode()
    assert codes(pki.chain_pem + old) == ["crl_unusable"]


def test_the_chain_is_refused_with_its_codes() -> None:
    pki = PKI()
    with pytest.raises(AnsibleFilterError) as failed:
        certificate_chain(pki.leaf.pem, trust=pki.root.pem, hostname="mail.example.org")
    text = str(failed.value)
    assert text.index("missing_intermediate: ") < text.index("name_mismatch: ")
    assert "http://ca.example.org/i.crt" in text and "Ask the issuer for the missing certificate" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"trust": ""}, "trust is empty"),
        ({}, "trust is empty"),
        ({"trust": "roots.pem"}, "trust cannot be used"),
        ({"trust": ["a"]}, "trust must be text, not list"),
        ({"hostname": "https://www.example.org"}, "neither a host name nor an address"),
        ({"hostname": 1}, "hostname must be text, not int"),
        ({"hostname": ""}, "hostname is empty"),
        ({"hostname": " "}, "hostname is empty"),
        ({"hostname": []}, "hostname is empty"),
        ({"hostname": [WWW, ""]}, "hostname is empty"),
        ({"hostname": [None]}, "hostname is empty"),
        ({"at": "soon"}, "at is 'soon'"),
        ({"private_key": 7}, "private_key must be text"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], said: str) -> None:
    pki = PKI()
    given = arguments if arguments == {} else {"trust": pki.root.pem, **arguments}
    for filter_of, which in ((certificate_problems, "certificate_problems"), (certificate_chain, "certificate_chain")):
        with pytest.raises(AnsibleFilterError, match=said) as failed:
            filter_of(pki.chain_pem, **given)
        assert str(failed.value).startswith(f"civitas.hosting.{which}: ")


def test_a_text_must_be_text() -> None:
    with pytest.raises(AnsibleFilterError, match="the text must be text, not dict"):
        certificate_problems({"a": 1}, trust=PKI().root.pem)


def test_a_controller_without_the_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_certificate_chain, "MISSING", "No module named 'cryptography'")
    for filter_of in (certificate_problems, certificate_chain, certificate_info):
        with pytest.raises(AnsibleFilterError, match=r"needs the Python library cryptography, 45\.0 or newer \(No module"):
            filter_of("")


def test_what_certificates_say() -> None:
    stapled = (x509.TLSFeature([x509.TLSFeatureType.status_request]), False)
    root = issue("Root", ca=True, key=rsa_key(3072), end=NOW + 3650 * DAY)
    bottom = issue(
        WWW, root, names=["*.example.org", "192.0.2.1"], serial=0x4F01, aia="http://a.example/i", ocsp="http://o.example/",
        crl="http://c.example/l", replace=[stapled], start=NOW - DAY, end=NOW + 2 * DAY, purposes=[SERVER],
    )  # fmt: skip
    found = certificate_info(root.pem + bottom.pem, at=NOW.isoformat())
    assert [one["subject"] for one in found] == ["CN=Root", f"CN={WWW}"]
    assert found[1] == {
        "subject": f"CN={WWW}",
        "issuer": "CN=Root",
        "serial": "4f01",
        "names": ["*.example.org", "192.0.2.1"],
        "not_before": (NOW - DAY).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "not_after": (NOW + 2 * DAY).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "days_left": 2,
        "lifetime_days": 3,
        "key_type": "ec",
        "key_bits": 256,
        "curve": "secp256r1",
        "digest": "sha256",
        "is_ca": False,
        "fingerprint_sha256": bottom.certificate.fingerprint(hashes.SHA256()).hex(),
        "self_signed": False,
        "aia_issuers": ["http://a.example/i"],
        "ocsp": ["http://o.example/"],
        "crl_urls": ["http://c.example/l"],
        "must_staple": True,
        "wildcard": True,
    }
    assert {key: found[0][key] for key in ("key_type", "key_bits", "curve", "is_ca", "self_signed", "must_staple", "wildcard")} == {
        "key_type": "rsa", "key_bits": 3072, "curve": "", "is_ca": True, "self_signed": True, "must_staple": False, "wildcard": False,
    }  # fmt: skip
    assert certificate_info(bottom.pem, at=(NOW + 3 * DAY).isoformat())[0]["days_left"] == -1
    json.dumps(found)
    other = issue("Root", issue("Root", ca=True), ca=True)
    assert certificate_info(other.pem)[0]["self_signed"] is False


def test_what_cannot_be_read_is_not_described() -> None:
    pki = PKI()
    for text, said in (("", "empty_file"), ("Hello", "no_certificate"), (pki.leaf.pem[:-70], "truncated")):
        with pytest.raises(AnsibleFilterError, match=said):
            certificate_info(text)
    assert len(certificate_info(pki.chain_pem + pki.leaf.key_pem())) == 2


def test_the_filters_work_in_a_playbook(tmp_path: Path) -> None:
    """With the strict templating of current versions, and with values that come from files."""
    pki = PKI()
    (tmp_path / "bag.pem").write_text(pki.root.pem + pki.intermediate.pem + pki.leaf.pem)
    (tmp_path / "root.pem").write_text(pki.root.pem)
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"bag": "{{ lookup('file', 'bag.pem') }}", "roots": "{{ lookup('file', 'root.pem') }}"},
            "tasks": [
                {
                    "ansible.builtin.assert": {
                        "that": [
                            f"bag | civitas.hosting.certificate_problems(trust=roots, hostname='{WWW}') == []",
                            "(bag | civitas.hosting.certificate_problems(trust=roots, hostname='b.example')"
                            " | map(attribute='code')) == ['name_mismatch']",
                            "(bag | civitas.hosting.certificate_chain(trust=roots) | civitas.hosting.certificate_info | length) == 2",
                        ]
                    }
                }
            ],
        }
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    environment = {**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false"}
    root = str(Path(__file__).resolve().parents[3] / ".cache" / "collections")
    environment["ANSIBLE_COLLECTIONS_PATH"] = root
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "play.yml"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
