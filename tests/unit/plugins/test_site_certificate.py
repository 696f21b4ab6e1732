# SPDX-License-Identifier: GPL-3.0-or-later
"""A site's certificate before any host is touched: the source, the files as they lie there, and the rules."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _policy
from ansible_collections.civitas.hosting.plugins.plugin_utils import _site_certificate
from ansible_collections.civitas.hosting.plugins.plugin_utils._site_certificate import Settings

from tests.unit import pki

NAMES = ["records.example.org", "www.example.org"]
PKI = pki.usual(subject=NAMES[0], names=NAMES, end=pki.NOW + 100 * pki.DAY)


class Folder:
    """Files of a delivery, and the settings that name them."""

    def __init__(self, path):
        self.path = path
        (path / "root.pem").write_text(PKI.root.pem)

    def put(self, mode=0o600, **files):
        for name, content in files.items():
            path = self.path / f"{name}.pem"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            path.chmod(mode)
        return [str(self.path / f"{name}.pem") for name in files]

    def settings(self, files, kind="production", **changes):
        values = {
            "policy": _policy.POLICIES[kind],
            "application": "demo",
            "domain": NAMES[0],
            "aliases": NAMES[1:],
            "source": "delivered",
            "files": files,
            "trust_file": str(self.path / "root.pem"),
        }
        return Settings(**{**values, **changes})


@pytest.fixture(name="folder")
def _folder(tmp_path):
    return Folder(tmp_path)


def judge(settings):
    return _site_certificate.judge(settings)


def test_a_disordered_delivery_is_taken(folder):
    files = folder.put(chain=PKI.root.pem + PKI.intermediate.pem + PKI.leaf.pem, key=PKI.leaf.key_pem("secret"))
    assert judge(folder.settings(files, passphrase="secret")) == ([], [], [])


@pytest.mark.parametrize(("passphrase", "code"), [(None, "passphrase_missing"), ("wrong", "wrong_passphrase")])
def test_the_passphrase_is_asked_for_and_never_told(folder, passphrase, code):
    files = folder.put(chain=PKI.chain_pem, key=PKI.leaf.key_pem("secret"))
    ((variable, problem, remedy),) = judge(folder.settings(files, passphrase=passphrase)).findings
    assert variable == "civitas_certificate_files"
    assert problem.startswith(f"{code}: ")
    assert "secret" not in problem and "wrong " not in problem and "secrets file" in remedy


def test_all_problems_at_once(folder):
    leaf = pki.issue(
        "other.example.org", PKI.intermediate, names=["other.example.org"], start=pki.NOW - 90 * pki.DAY, end=pki.NOW - pki.DAY
    )
    files = folder.put(leaf=leaf.pem, key=PKI.leaf.key_pem())
    found = [problem.split(":")[0] for _variable, problem, _remedy in judge(folder.settings(files)).findings]
    assert set(found) >= {"key_mismatch", "expired", "name_mismatch"}


def test_files_that_are_not_there(folder):
    found = judge(folder.settings([str(folder.path / "none.pem"), str(folder.path)], trust_file=str(folder.path / "no-root.pem"))).findings
    assert [(variable, problem.split(str(folder.path))[1]) for variable, problem, _remedy in found] == [
        ("civitas_certificate_files", "/none.pem: there is no such file on this machine"),
        ("civitas_certificate_files", ", which is not a file"),
        ("civitas_certificate_trust_file", "/no-root.pem: there is no such file on this machine"),
    ]


def test_a_trust_file_without_a_certificate(folder):
    files = folder.put(chain=PKI.chain_pem, key=PKI.leaf.key_pem(), notes="see the other file")
    ((variable, problem, _remedy),) = judge(folder.settings(files[:2], trust_file=files[2])).findings
    assert variable == "civitas_certificate_trust_file"
    assert problem.startswith("cannot be used: ")


def test_an_authority_that_only_the_site_knows_must_be_named(folder):
    files = folder.put(chain=PKI.chain_pem, key=PKI.leaf.key_pem())
    (found,) = judge(folder.settings(files, trust_file="")).findings
    assert found[1].startswith("untrusted_root: ")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_key_that_others_can_read(folder, mode, warned):
    files = folder.put(mode, chain=PKI.chain_pem, key=PKI.leaf.key_pem())
    judgement = judge(folder.settings(files))
    assert judgement.findings == []
    assert judgement.advice == (
        [f"The private key in {files[1]} can be read by everybody on this machine. Run chmod 600 {files[1]}"] if warned else []
    )


def test_the_policy_refuses_and_a_waiver_sets_aside(folder):
    leaf = pki.issue("*.example.org", PKI.intermediate, names=["*.example.org"], end=pki.NOW + 100 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    ((_variable, problem, remedy),) = judge(folder.settings(files)).findings
    assert problem.startswith("policy_wildcard: It holds *.example.org, and 'production' takes no wildcard.")
    assert "add to civitas_waivers: {rule: wildcard, " in remedy
    waivers = [_policy.Waiver("wildcard", "For the test.", datetime.date.today())]
    assert judge(folder.settings(files, waivers=waivers)) == ([], [], ["wildcard"])
    assert judge(folder.settings(files, kind="qa")).findings == []


def test_an_aging_certificate_is_told_and_does_not_stop_a_run(folder):
    leaf = pki.issue(NAMES[0], PKI.intermediate, names=NAMES, start=pki.NOW - 90 * pki.DAY, end=pki.NOW + 20 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    judgement = judge(folder.settings(files))
    assert judgement.findings == []
    assert len(judgement.advice) == 1 and "'production' takes one that lasts 30 days or more. Ask the issuer" in judgement.advice[0]
    waivers = [_policy.Waiver("days_left", "For the test.", datetime.date.today())]
    assert judge(folder.settings(files, waivers=waivers)) == ([], [], ["days_left"])


def test_a_short_key_is_told_once(folder):
    leaf = pki.issue(NAMES[0], PKI.intermediate, names=NAMES, key=pki.rsa_key(1024), end=pki.NOW + 100 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    assert [problem.split(":")[0] for _variable, problem, _remedy in judge(folder.settings(files)).findings] == ["weak_key"]


def test_a_key_that_browsers_do_not_take(folder):
    leaf = pki.issue(NAMES[0], PKI.intermediate, names=NAMES, key=pki.ed25519_key(), end=pki.NOW + 100 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    assert "policy_key_type" in [problem.split(":")[0] for _variable, problem, _remedy in judge(folder.settings(files)).findings]


def test_pryv_is_judged_by_its_wildcard(folder):
    names = ["reg.example.org", "co1.example.org", "example.org"]
    leaf = pki.issue("example.org", PKI.intermediate, names=names, end=pki.NOW + 100 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    settings = folder.settings(files, application="pryv", domain="example.org", aliases=[])
    ((_variable, problem, remedy),) = judge(settings).findings
    assert problem.startswith("policy_wildcard_needed: It lists reg.example.org, co1.example.org in place of *.example.org; every user")
    assert "waiver" not in remedy
    leaf = pki.issue("*.example.org", PKI.intermediate, names=["*.example.org"], end=pki.NOW + 100 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    judgement = judge(settings)
    assert judgement.findings == []
    assert judgement.advice == ["The certificate does not hold example.org itself beside *.example.org; order the next one with both."]


@pytest.mark.parametrize(("kind", "refused"), [("production", True), ("staging", True), ("qa", False), ("development", False)])
def test_the_internal_ca(folder, kind, refused):
    judgement = judge(folder.settings([], kind, source="internal", trust_file=""))
    assert [finding[0] for finding in judgement.findings] == (["civitas_certificate_source"] if refused else [])
    waivers = [_policy.Waiver("internal_ca", "For the test.", datetime.date.today())]
    assert judge(folder.settings([], kind, source="internal", waivers=waivers)).waived == (["internal_ca"] if refused else [])


def test_acme(folder):
    lets_encrypt = "https://acme-v02.api.letsencrypt.org/directory"
    settings = folder.settings([], source="acme", trust_file="", acme_directory=lets_encrypt)
    ((variable, problem, _remedy),) = judge(settings).findings
    assert (variable, problem.split(":")[0]) == ("civitas_acme_directory", "policy_lets_encrypt")
    settings = settings._replace(acme_directory="https://acme.example.org/directory")
    assert judge(settings).findings == []
    ((variable, problem, _remedy),) = judge(settings._replace(application="pryv")).findings
    assert (variable, problem.split(",")[0]) == ("civitas_acme_challenge", "is http-01")
    assert judge(settings._replace(application="pryv", acme_challenge="dns-01")).findings == []


def test_a_controller_that_cannot_judge(folder, monkeypatch):
    monkeypatch.setattr(_site_certificate._certificate_delivery, "MISSING", "No module named 'cryptography'")
    ((variable, problem, remedy),) = judge(folder.settings([])).findings
    assert variable == "civitas_certificate_source" and "No module named" in problem and "cryptography, 45 or newer" in remedy


@pytest.mark.parametrize(("known", "limit"), [(True, "398"), (False, "825")])
def test_a_trust_file_loosens_nothing_for_a_root_that_browsers_know(folder, monkeypatch, known, limit):
    other = pki.issue("Other Root", ca=True)
    monkeypatch.setattr(_site_certificate._certificate_delivery, "system_trust", lambda: PKI.root.pem if known else other.pem)
    leaf = pki.issue(NAMES[0], PKI.intermediate, names=NAMES, start=pki.NOW - pki.DAY, end=pki.NOW + 500 * pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem(), trust=other.pem + PKI.root.pem)
    judgement = judge(folder.settings(files[:2], trust_file=files[2]))
    assert [problem.split(":")[0] for _variable, problem, _remedy in judgement.findings] == (["policy_lifetime"] if known else [])
    assert any("an authority that browsers know may give" in sentence for sentence in judgement.advice) is known
    assert not known or limit in judgement.findings[0][1]


def test_the_internal_ca_does_not_become_another_one_by_being_handed_in(folder):
    files = folder.put(chain=PKI.chain_pem, key=PKI.leaf.key_pem(), ca=PKI.root.pem, damaged="none")
    settings = folder.settings(files[:2], internal_ca_file=files[2])
    ((_variable, problem, _remedy),) = judge(settings).findings
    assert problem.startswith("policy_internal_ca: ")
    assert judge(settings._replace(policy=_policy.POLICIES["qa"])).findings == []
    for path in ("", "/no/such/file", files[3]):
        assert judge(settings._replace(internal_ca_file=path)).findings == []


def test_an_expired_delivery_stops_the_run_and_the_internal_ca_with_a_waiver_does_not(folder):
    leaf = pki.issue(NAMES[0], PKI.intermediate, names=NAMES, start=pki.NOW - 90 * pki.DAY, end=pki.NOW - pki.DAY)
    files = folder.put(chain=leaf.pem + PKI.intermediate.pem, key=leaf.key_pem())
    assert judge(folder.settings(files)).findings[0][1].startswith("expired: ")
    waivers = [_policy.Waiver("internal_ca", "The certificate has ended.", datetime.date.today())]
    assert judge(folder.settings([], source="internal", trust_file="", waivers=waivers)) == ([], [], ["internal_ca"])
