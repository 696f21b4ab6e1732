# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal CA judged by openssl, by Python's ssl and by the collection's own judge, and pairs swapped in a real directory."""

from __future__ import annotations

import datetime
import getpass
import grp
import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_store as certificate_store
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Owner, Store, StoreError, write_ca
from ansible_collections.civitas.hosting.plugins.plugin_utils import _internal_ca as internal_ca
from ansible_collections.civitas.hosting.plugins.plugin_utils._certificate_chain import judge
from ansible_collections.civitas.hosting.plugins.plugin_utils._internal_ca import Ca, CaError, Policy, Root
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
ME = Owner(getpass.getuser(), grp.getgrgid(os.getegid()).gr_name)
POLICY = Policy("test CA", ["test", "localhost", "192.0.2.0/24", "2001:db8::/32"], 90 * DAY, 30 * DAY)
VERIFY = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver"]


def new_ca(policy: Policy = POLICY, now: datetime.datetime = NOW) -> tuple[Root, Ca]:
    root = internal_ca.create_root(policy.common_name, now)
    return root, internal_ca.renew_list(internal_ca.renew(Ca(), root, policy, [], now), policy, now)


def revoking(*revoked: str) -> Policy:
    return POLICY._replace(revoked=list(revoked))


def request_pem() -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def links(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def revoked_in(crls: str, issuer_pem: str) -> set[int]:
    found = internal_ca._list_of(crls, links(issuer_pem)[0])
    assert found is not None
    return {entry.serial_number for entry in found}


@pytest.fixture(name="both", scope="module")
def _both() -> tuple[Root, Ca]:
    return new_ca()


@pytest.fixture(name="ca", scope="module")
def _ca(both: tuple[Root, Ca]) -> Ca:
    return both[1]


@pytest.fixture(name="store")
def _store(tmp_path: Path, ca: Ca) -> Store:
    write_ca(str(tmp_path / "ca.pem"), ca.root, check=False)
    return Store(str(tmp_path / "certificates"))


def put(store: Store, ca: Ca, name: str, hosts: list[str], lifetime: datetime.timedelta = 90 * DAY) -> str:
    generation, request = store.request(name, ME)
    chain = internal_ca.issue(ca, request, hosts, POLICY._replace(lifetime=lifetime), NOW)
    store.install(name, generation, chain, str(Path(store.path).parent / "ca.pem"))
    return generation


def reason(store: Store, ca: Ca, name: str, hosts: list[str], now: datetime.datetime = NOW, policy: Policy = POLICY) -> str:
    found = store.inspect(name, ME)
    return internal_ca.reason_to_issue(found["certificate"], found["public_key"], hosts, ca, policy, now)


# Leafs, as clients that trust the root see them.


def accepted(directory: Path, chain: str, ca: Ca, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "chain.pem").write_text(chain)
    (directory / "root.pem").write_text(ca.root)
    (directory / "crls.pem").write_text(ca.crls)
    files = ["-CAfile", "root.pem", "-untrusted", "chain.pem"]
    return subprocess.run([*VERIFY, *files, *options, "chain.pem"], cwd=directory, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("option", "value", "good"),
    [
        ("-verify_hostname", "records.test", True),
        ("-verify_hostname", "a.records.test", True),
        ("-verify_hostname", "other.test", False),
        ("-verify_ip", "192.0.2.7", True),
        ("-verify_ip", "2001:db8::1", True),
        ("-verify_ip", "10.9.8.7", True),
        ("-verify_ip", "192.0.2.8", False),
    ],
)
def test_openssl_accepts_the_leaf_for_its_names_only(tmp_path: Path, ca: Ca, option: str, value: str, good: bool) -> None:
    hosts = ["records.test", "*.records.test", "192.0.2.7", "2001:db8::1", "10.9.8.7"]
    chain = internal_ca.issue(ca, request_pem(), hosts, POLICY, NOW)
    done = accepted(tmp_path, chain, ca, option, value, "-crl_check_all", "-CRLfile", "crls.pem")
    assert (done.returncode == 0) is good, done.stderr


@pytest.mark.parametrize("hosts", [["192.0.2.7"], ["127.0.0.1", "localhost"], ["fd00::7"], [f"{'a' * 60}.{'b' * 60}.test"]], ids=str)
def test_openssl_accepts_leafs_of_any_kind_of_name(tmp_path: Path, ca: Ca, hosts: list[str]) -> None:
    done = accepted(tmp_path, internal_ca.issue(ca, request_pem(), hosts, POLICY, NOW), ca)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("host", ["bank.example", "test.example", "mytest", "8.8.8.8", "193.0.2.7", "2001:db9::1"])
def test_a_leaf_beyond_the_constraints_is_neither_issued_nor_accepted(
    tmp_path: Path, ca: Ca, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CaError, match="may not sign"):
        internal_ca.issue(ca, request_pem(), [host], POLICY, NOW)
    # What a thief of the issuing CA's key could do.
    monkeypatch.setattr(internal_ca, "outside", lambda *_arguments: [])
    done = accepted(tmp_path, internal_ca.issue(ca, request_pem(), [host], POLICY, NOW), ca)
    assert done.returncode != 0
    assert "permitted subtree violation" in done.stderr


@pytest.mark.parametrize("hosts", [["records.test", "*.records.test", "10.0.0.1"], ["192.0.2.7"]], ids=str)
def test_the_collection_s_own_judge_accepts_what_it_issues(ca: Ca, hosts: list[str]) -> None:
    chain = internal_ca.issue(ca, request_pem(), hosts, POLICY, NOW)
    crls = internal_ca._lists(ca.crls)
    verdict = judge([*links(chain), *links(ca.root)], links(ca.root), hostnames=hosts, at=NOW, crls=crls)
    assert verdict.problems == []
    assert (list(verdict.chain), verdict.root) == (links(chain), links(ca.root)[0])


def test_the_collection_s_own_judge_refuses_what_is_revoked_or_beyond_the_constraints(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = internal_ca.issue(ca, request_pem(), ["a.test"], POLICY, NOW)
    revoked = internal_ca.renew_list(ca, revoking(f"{links(chain)[0].serial_number:x}"), NOW)
    verdict = judge(links(chain), links(ca.root), hostnames=["a.test"], at=NOW, crls=internal_ca._lists(revoked.crls))
    assert [problem.code for problem in verdict.problems] == ["revoked"]
    monkeypatch.setattr(internal_ca, "outside", lambda *_arguments: [])
    for host in ("bank.example", "8.8.8.8"):
        chain = internal_ca.issue(ca, request_pem(), [host], POLICY, NOW)
        verdict = judge(links(chain), links(ca.root), hostnames=[host], at=NOW)
        assert [problem.code for problem in verdict.problems] == ["name_constraints"]


def test_without_the_issuing_ca_the_chain_is_not_complete(tmp_path: Path, ca: Ca) -> None:
    chain = internal_ca.issue(ca, request_pem(), ["records.test"], POLICY, NOW)
    leaf = chain.split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    assert chain == leaf + ca.certificate
    assert accepted(tmp_path, leaf, ca).returncode != 0


def test_a_handshake_of_python(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["localhost", "127.0.0.1"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{store.path}/edge/fullchain.pem", f"{store.path}/edge/key.pem")
    client = ssl.create_default_context(cadata=ca.root)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT | ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    client.load_verify_locations(cadata=ca.root)
    crls = Path(store.path).parent / "crls.pem"
    crls.write_text(ca.crls)
    client.load_verify_locations(cafile=str(crls))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: server.wrap_socket(listener.accept()[0], server_side=True).close())
        thread.start()
        with socket.create_connection(listener.getsockname()) as plain, client.wrap_socket(plain, server_hostname="localhost") as tls:
            assert tls.version() == "TLSv1.3"
        thread.join(10)


def test_the_shape_of_the_authorities(both: tuple[Root, Ca]) -> None:
    root, ca = both
    assert root.certificate == ca.root
    authority, issuing = links(ca.root)[0], links(ca.certificate)[0]
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 1
    assert issuing.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert issuing.extensions.get_extension_for_class(x509.NameConstraints).critical
    assert authority.subject != issuing.subject
    leaf = links(internal_ca.issue(ca, request_pem(), ["a.test"], POLICY, NOW))[0]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.not_valid_after_utc - NOW <= POLICY.lifetime


def test_a_leaf_never_outlives_the_issuing_ca_and_is_not_renewed_in_vain(ca: Ca) -> None:
    late = internal_ca.end_of_issuing(ca) - 20 * DAY
    chain = internal_ca.issue(ca, request_pem(), ["a.test"], POLICY, late)
    assert links(chain)[0].not_valid_after_utc == internal_ca.end_of_issuing(ca)
    public = links(chain)[0].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    assert internal_ca.reason_to_issue(chain, public, ["a.test"], ca, POLICY, late) == ""


@pytest.mark.parametrize("pem", ["", "rubbish", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"])
def test_a_bad_request_is_refused(ca: Ca, pem: str) -> None:
    with pytest.raises(CaError):
        internal_ca.issue(ca, pem, ["a.test"], POLICY, NOW)
    with pytest.raises(CaError):
        internal_ca.issue(ca, request_pem(), [], POLICY, NOW)


# When a leaf is replaced.


def test_a_good_certificate_stays(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test", "2001:DB8::1"])
    assert reason(store, ca, "edge", ["2001:db8:0::1", "Records.test"]) == ""


@pytest.mark.parametrize(
    ("hosts", "after", "why"),
    [
        (["records.test", "new.test"], 0, "its names differ"),
        (["records.test"], 59, ""),
        (["records.test"], 61, "it ends on"),
        (["records.test"], 400, "it ends on"),
        (["records.test"], -1, "it is not valid yet"),
    ],
)
def test_what_is_replaced(store: Store, ca: Ca, hosts: list[str], after: int, why: str) -> None:
    put(store, ca, "edge", ["records.test"])
    found = reason(store, ca, "edge", hosts, NOW + after * DAY)
    assert why in found and bool(why) is bool(found)


def test_nothing_there_another_ca_another_key_rubbish(store: Store, ca: Ca) -> None:
    assert reason(store, ca, "edge", ["records.test"]) == "there is none"
    put(store, ca, "edge", ["records.test"])
    assert reason(store, new_ca()[1], "edge", ["records.test"]) == "it is not from the issuing CA"
    key = Path(f"{store.path}/edge/key.pem")
    good = key.read_text()
    key.write_text(subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519"], capture_output=True, text=True, check=True).stdout)
    assert reason(store, ca, "edge", ["records.test"]) == "its key is another one"
    key.unlink()
    assert reason(store, ca, "edge", ["records.test"]) == "its key is missing"
    key.write_text(good)
    chain = Path(f"{store.path}/edge/fullchain.pem")
    chain.write_text(chain.read_text().removesuffix(ca.certificate))
    assert reason(store, ca, "edge", ["records.test"]) == "its chain is not complete"
    chain.write_text("rubbish")
    assert reason(store, ca, "edge", ["records.test"]) == "it cannot be read"


def test_one_that_was_made_for_longer_than_is_wanted_now(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test"], 397 * DAY)
    assert reason(store, ca, "edge", ["records.test"]) == "it lives longer than 90 days"


# Authorities over time.


def needs(ca: Ca, policy: Policy = POLICY, hosts: tuple[str, ...] = (), now: datetime.datetime = NOW) -> list[internal_ca.Need]:
    return internal_ca.needs_of_root(ca, policy, hosts, now)


def test_nothing_needs_the_root_day_by_day(ca: Ca) -> None:
    assert needs(ca, hosts=("a.test", "10.0.0.1")) == []
    assert not internal_ca.list_is_due(ca, POLICY, NOW)
    assert needs(ca, now=internal_ca.end_of_issuing(ca) - 366 * DAY) == []


@pytest.mark.parametrize(
    ("policy", "hosts", "before_end", "reason", "urgent"),
    [
        (POLICY, ("b.example",), 1000, "may not sign for b.example, only for localhost, test, 192.0.2.0/24, 2001:db8::/32", True),
        (POLICY, (), 364, "the issuing CA ends on", False),
        (POLICY, (), -1, "the issuing CA ended on", True),
        (POLICY._replace(permitted=["test", "new.example"]), ("a.test",), 1000, "permitted_names changed", False),
    ],
)
def test_why_the_root_is_needed(ca: Ca, policy: Policy, hosts: tuple[str, ...], before_end: int, reason: str, urgent: bool) -> None:
    (need,) = needs(ca, policy, hosts, internal_ca.end_of_issuing(ca) - before_end * DAY)
    assert reason in need.reason
    assert need.urgent is urgent


def test_people_are_not_told_of_names_that_nobody_needs_yet(ca: Ca) -> None:
    assert [need.told for need in needs(ca, POLICY._replace(permitted=["test", "new.example"]))] == [False]


def test_a_new_issuing_ca_cuts_nothing_off(tmp_path: Path, both: tuple[Root, Ca]) -> None:
    root, old = both
    before = internal_ca.issue(old, request_pem(), ["a.test"], POLICY, NOW)
    later = NOW + DAY
    changed = POLICY._replace(permitted=["test", "new.example"])
    new = internal_ca.renew_list(internal_ca.renew(old, root, changed, ["b.new.example"], later), changed, later)
    assert (new.root, new.certificate != old.certificate) == (old.root, True)
    assert needs(new, changed, ("b.new.example",), later) == []
    after = internal_ca.issue(new, request_pem(), ["b.new.example"], changed, later)
    # Clients trust the root and check revocation: servers of both generations are good, with both old and new lists.
    (tmp_path / "both.pem").write_text(new.crls)
    for chain in (before, after):
        done = accepted(tmp_path, chain, new, "-crl_check_all", "-CRLfile", "both.pem", "-attime", str(int(later.timestamp())))
        assert done.returncode == 0, done.stderr
    public = (
        links(before)[0].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    )
    assert internal_ca.reason_to_issue(before, public, ["a.test"], new, changed, later) == "it is not from the issuing CA"
    # Nothing of the old generation outlives what tells of its revocation.
    last = internal_ca._list_of(new.crls, links(old.certificate)[0])
    assert last is not None and last.next_update_utc == (later + POLICY.lifetime).replace(microsecond=0)
    strangers = internal_ca.issue(new_ca(now=later)[1], request_pem(), ["a.test"], POLICY, later)
    assert not internal_ca.is_newer(strangers, old)
    assert internal_ca.is_newer(after, old) and not internal_ca.is_newer(before, new) and not internal_ca.is_newer(before, old)


def test_the_root_brought_back_is_judged(both: tuple[Root, Ca]) -> None:
    root, ca = both
    internal_ca.check_root(root, ca)
    other, _other_ca = new_ca()
    with pytest.raises(CaError, match="root of another CA"):
        internal_ca.check_root(other, ca)
    with pytest.raises(CaError, match="does not belong"):
        internal_ca.check_root(Root(other.key, root.certificate), ca)
    with pytest.raises(CaError, match="no PEM key"):
        internal_ca.check_root(Root("", root.certificate), ca)


def test_a_stored_ca_is_judged(ca: Ca) -> None:
    other = new_ca()[1]
    internal_ca.check(Ca(), NOW)
    internal_ca.check(ca, NOW)
    # The way to a new issuing CA when the newest secrets file is lost.
    internal_ca.check(ca._replace(key="", certificate=""), NOW)
    for wrong, words in (
        (ca._replace(key=other.key), "does not belong to its certificate"),
        (ca._replace(root=other.root), "not from the stored root"),
        (ca._replace(key="rubbish"), "cannot be read"),
        (ca._replace(issued="one two\n"), "line 1 of internal_ca_issued is incomplete"),
        (ca._replace(key=""), "a part of the internal CA only, not its issuing key"),
        (Ca(issued=ca.issued), "a part of the internal CA only"),
    ):
        with pytest.raises(CaError, match=words):
            internal_ca.check(wrong, NOW)


def test_a_clock_that_is_wrong(ca: Ca) -> None:
    with pytest.raises(CaError, match="correct the controller's clock"):
        internal_ca.check(ca, NOW - DAY)
    with pytest.raises(CaError, match="If the controller's clock is right"):
        internal_ca.check(ca, NOW + 8000 * DAY)
    ahead = internal_ca.renew_list(ca, POLICY, NOW + 3 * DAY)
    with pytest.raises(CaError, match=r"revocation list is of .* correct the controller's clock"):
        internal_ca.is_behind(ca, ahead.crls, NOW)


# Revocation.


def issued(ca: Ca, name: str) -> tuple[Ca, str, int]:
    chain = internal_ca.issue(ca, request_pem(), [name], POLICY, NOW)
    entry = internal_ca.entry_of(chain, f"host/{name}")
    return internal_ca.record(ca, [entry], NOW), chain, entry.serial


def test_a_leaf_is_revoked_by_its_serial_number(tmp_path: Path, ca: Ca) -> None:
    ca, chain, serial = issued(ca, "a.test")
    ca, other, _serial = issued(ca, "b.test")
    text = f"{serial:040X}"
    for written in (text, text.lower(), ":".join(text[i : i + 2] for i in range(0, 40, 2))):
        assert internal_ca.policy_problems(revoking(written)) == []
        assert internal_ca.list_is_due(ca, revoking(written), NOW)
    policy = revoking(text)
    assert internal_ca.reason_to_issue(chain, public_of(chain), ["a.test"], ca, policy, NOW) == "it is revoked"
    revoked = internal_ca.renew_list(ca, policy, NOW)
    assert not internal_ca.list_is_due(revoked, policy, NOW)
    options = ("-crl_check_all", "-CRLfile", "crls.pem")
    assert "certificate revoked" in accepted(tmp_path, chain, revoked, *options).stderr
    assert accepted(tmp_path, other, revoked, *options).returncode == 0
    # It stays so when somebody tidies up.
    assert not internal_ca.list_is_due(revoked, POLICY, NOW)
    assert revoked_in(internal_ca.renew_list(revoked, POLICY, NOW + DAY).crls, ca.certificate) == {serial}


def public_of(chain: str) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return links(chain)[0].public_key().public_bytes(encoding, form).decode()


def test_all_certificates_for_a_name_are_revoked(ca: Ca) -> None:
    ca, _chain, first = issued(ca, "a.test")
    ca, _chain, second = issued(ca, "a.test")
    ca, _chain, _other = issued(ca, "b.test")
    assert revoked_in(internal_ca.renew_list(ca, revoking("A.test"), NOW).crls, ca.certificate) == {first, second}
    assert internal_ca.revoked_names(revoking("A.test"), ["a.test", "b.test"]) == ["a.test"]


def test_an_issuing_ca_is_revoked_by_the_root_and_replaced(tmp_path: Path, both: tuple[Root, Ca]) -> None:
    root, ca = both
    chain = internal_ca.issue(ca, request_pem(), ["a.test"], POLICY, NOW)
    serial = links(ca.certificate)[0].serial_number
    policy = revoking(f"{serial:x}")
    (need,) = needs(ca, policy)
    assert need.urgent and "is in certificates_revoked" in need.reason
    new = internal_ca.renew_list(internal_ca.renew(ca, root, policy, [], NOW), policy, NOW)
    assert needs(new, policy) == []
    assert (revoked_in(new.crls, new.root), revoked_in(new.crls, new.certificate)) == ({serial}, set())
    assert "certificate revoked" in accepted(tmp_path, chain, new, "-crl_check_all", "-CRLfile", "crls.pem").stderr
    fresh = internal_ca.issue(new, request_pem(), ["a.test"], policy, NOW)
    assert accepted(tmp_path, fresh, new, "-crl_check_all", "-CRLfile", "crls.pem").returncode == 0


def test_an_earlier_issuing_ca_is_revoked_without_a_new_one(both: tuple[Root, Ca]) -> None:
    root, first = both
    wider = POLICY._replace(permitted=[*POLICY.permitted, "new.example"])
    second = internal_ca.renew(first, root, wider, [], NOW)
    serial = links(first.certificate)[0].serial_number
    policy = wider._replace(revoked=[f"{serial:x}"])
    (need,) = needs(second, policy)
    assert need.urgent and not need.issuing
    third = internal_ca.renew(second, root, policy, [], NOW)
    assert third.certificate == second.certificate
    assert revoked_in(third.crls, third.root) == {serial}


def test_lists_are_renewed_like_certificates(ca: Ca) -> None:
    assert not internal_ca.list_is_due(ca, POLICY, NOW + 59 * DAY)
    assert internal_ca.list_is_due(ca, POLICY, NOW + 61 * DAY)
    assert internal_ca.list_is_due(ca._replace(crls=""), POLICY, NOW)
    (need,) = needs(ca._replace(crls=""))
    assert need.reason == "the root's revocation list is missing" and not need.urgent
    root, issuing = internal_ca._lists(ca.crls)
    assert root.next_update_utc == internal_ca.end_of_issuing(ca)
    assert issuing.next_update_utc == (NOW + POLICY.lifetime).replace(microsecond=0)


def test_an_older_copy_of_the_secrets_catches_up(ca: Ca) -> None:
    newer, _chain, serial = issued(ca, "a.test")
    newer = internal_ca.renew_list(newer, revoking(f"{serial:x}"), NOW + DAY)
    later = NOW + 2 * DAY
    assert internal_ca.is_behind(ca, newer.crls, later)
    assert not internal_ca.is_behind(newer, ca.crls, later)
    assert not internal_ca.is_behind(ca, "", later)
    assert not internal_ca.is_behind(ca, new_ca()[1].crls, later)
    forged = internal_ca._sign_list(new_ca()[1].key, links(ca.certificate)[0], {}, ca, later, later + DAY)
    assert not internal_ca.is_behind(ca, internal_ca._with_list(ca, forged).crls, later)
    caught_up = internal_ca.catch_up(ca, newer.crls, POLICY, later)
    assert revoked_in(caught_up.crls, ca.certificate) == {serial}
    assert not internal_ca.is_behind(caught_up, newer.crls, later)


def test_lists_are_numbered_by_the_time_and_not_by_what_a_copy_remembers(ca: Ca) -> None:
    issuing = links(ca.certificate)[0]
    numbers = [internal_ca._number(internal_ca._list_of(internal_ca.renew_list(ca, POLICY, NOW + n * DAY).crls, issuing)) for n in (1, 2)]
    assert numbers[1] - numbers[0] == 86400


def test_the_ledger_forgets_what_has_ended_and_finds_what_it_forgot(ca: Ca) -> None:
    with_entry, chain, serial = issued(ca, "a.test")
    assert internal_ca.is_forgotten(chain, ca) and not internal_ca.is_forgotten(chain, with_entry)
    assert not internal_ca.is_forgotten("", ca)
    assert not internal_ca.is_forgotten(internal_ca.issue(new_ca()[1], request_pem(), ["a.test"], POLICY, NOW), ca)
    assert internal_ca.unknown_serials(revoking(f"{serial:x}"), with_entry) == []
    assert internal_ca.unknown_serials(revoking(f"{serial:x}"), ca) == [f"{serial:x}"]
    later = internal_ca.record(with_entry, [], NOW + 91 * DAY)
    assert [entry.owner for entry in internal_ca.ledger(later.issued)] == ["issuing-ca"]
    revoked = internal_ca.renew_list(with_entry, revoking(f"{serial:x}"), NOW)
    assert revoked_in(internal_ca.renew_list(revoked, POLICY, NOW + 92 * DAY).crls, ca.certificate) == set()


# What people write.


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (POLICY._replace(renew_before=90 * DAY), "certificates_renew_before_days smaller than certificates_lifetime_days"),
        (POLICY._replace(permitted=[]), "could sign for all names"),
        (POLICY._replace(permitted=["10.0.0.0/8"]), "could sign for all names"),
        (POLICY._replace(permitted=["test", "0.0.0.0/0"]), "every address"),
        (POLICY._replace(permitted=["*.records.test"]), "write records.test"),
        (POLICY._replace(permitted=[".records.test"]), "write records.test"),
        (POLICY._replace(permitted=["re_cords.test"]), "letters, digits and hyphens"),
        (POLICY._replace(permitted=["test", 7]), "in quotes"),
        (revoking("not a serial!"), "neither a serial number"),
        (POLICY._replace(revoked=[12345678901234567890]), "put quotes around"),
    ],
)
def test_a_policy_that_cannot_be_kept(policy: Policy, words: str) -> None:
    assert [words in problem for problem in internal_ca.policy_problems(policy)].count(True) == 1


def test_a_good_policy_has_no_problems() -> None:
    assert internal_ca.policy_problems(POLICY) == []


@pytest.mark.parametrize(
    "host", ["test", "a.test", "*.a.test", "*.test", "A.TEST", "192.0.2.255", "10.1.1.1", "::1", "fd12::1", "2001:db8:1::1"]
)
def test_names_inside(host: str) -> None:
    assert internal_ca.outside([host], POLICY.permitted) == []


@pytest.mark.parametrize("host", ["atest", "test.example", "example", "192.0.3.1", "8.8.8.8", "2001:db9::1", "fe80::1"])
def test_names_outside(host: str) -> None:
    assert internal_ca.outside(["a.test", host], POLICY.permitted) == [host]


@pytest.mark.parametrize(
    "host", ["a_b.test", "-a.test", "a..test", "", "*.*.test", "a b.test", "naïve.test", "a" * 64 + ".test", "x;y.test"]
)
def test_hosts_that_are_no_names(host: str) -> None:
    assert internal_ca.check_host(host)


@pytest.mark.parametrize("host", ["localhost", "a.test", "*.a.test", "xn--nave-6pa.test", "192.0.2.1", "2001:db8::1"])
def test_hosts_that_are_names(host: str) -> None:
    assert internal_ca.check_host(host) is None


# The directory on the host.


def test_the_swap_is_one_step_and_leaves_nothing_behind(store: Store, ca: Ca) -> None:
    first = put(store, ca, "edge", ["records.test"])
    second = put(store, ca, "edge", ["records.test"])
    assert os.readlink(f"{store.path}/edge/current") == f".generations/{second}" != f".generations/{first}"
    assert os.listdir(f"{store.path}/edge/.generations") == [second]


def test_a_pair_that_does_not_verify_is_refused_and_the_old_one_stays(store: Store, ca: Ca) -> None:
    good = put(store, ca, "edge", ["records.test"])
    generation, request = store.request("edge", ME)
    other = internal_ca.issue(new_ca()[1], request, ["records.test"], POLICY, NOW)
    with pytest.raises(StoreError, match="openssl verify"):
        store.install("edge", generation, other, str(Path(store.path).parent / "ca.pem"))
    assert os.readlink(f"{store.path}/edge/current") == f".generations/{good}"
    assert reason(store, ca, "edge", ["records.test"]) == ""


def test_a_certificate_for_another_key_is_refused(store: Store, ca: Ca) -> None:
    _first, request_of_first = store.request("one", ME)
    generation, _request = store.request("two", ME)
    with pytest.raises(StoreError, match="does not belong to the key"):
        store.install(
            "two", generation, internal_ca.issue(ca, request_of_first, ["a.test"], POLICY, NOW), str(Path(store.path).parent / "ca.pem")
        )
    assert not os.path.lexists(f"{store.path}/two/current")


def test_a_run_that_was_cut_off_between_key_and_certificate(store: Store, ca: Ca) -> None:
    good = put(store, ca, "edge", ["records.test"])
    store.request("edge", ME)
    assert reason(store, ca, "edge", ["records.test"]) == ""
    put(store, ca, "edge", ["new.test"])
    assert len(os.listdir(f"{store.path}/edge/.generations")) == 1
    assert good not in os.listdir(f"{store.path}/edge/.generations")


def test_a_disk_that_is_full_leaves_the_old_pair(store: Store, ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    good = put(store, ca, "edge", ["records.test"])
    generation, request = store.request("edge", ME)

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certificate_store, "_write", full)
    chain = internal_ca.issue(ca, request, ["records.test"], POLICY, NOW)
    with pytest.raises(OSError, match="No space left"):
        store.install("edge", generation, chain, str(Path(store.path).parent / "ca.pem"))
    assert os.readlink(f"{store.path}/edge/current") == f".generations/{good}"


def test_names_of_generations_are_not_confused(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["a.test"])
    put(store, ca, "edge-2", ["b.test"])
    put(store, ca, "edge", ["a.test"])
    assert reason(store, ca, "edge-2", ["b.test"]) == ""


def test_key_permissions_are_seen_and_repaired(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test"])
    key = Path(f"{store.path}/edge/key.pem")
    assert key.stat().st_mode & 0o7777 == ME.mode
    key.chmod(0o644)
    assert store.inspect("edge", ME)["permissions_ok"] is False
    store.repair_permissions("edge", ME)
    assert store.inspect("edge", ME)["permissions_ok"] is True


def test_an_unknown_owner_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match="install the package"):
        store.request("edge", Owner("nobody-of-this-name", "root"))
