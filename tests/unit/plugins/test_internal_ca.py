# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal CA judged by openssl, and pairs swapped in a real directory."""

from __future__ import annotations

import datetime
import getpass
import grp
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_store as certificate_store
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Owner, Store, StoreError, write_ca
from ansible_collections.civitas.hosting.plugins.plugin_utils._internal_ca import (
    Ca,
    CaError,
    check_ca,
    check_host,
    create_ca,
    issue,
    reason_to_issue,
)
from cryptography import x509

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
ME = Owner(getpass.getuser(), grp.getgrgid(os.getegid()).gr_name)


@pytest.fixture(name="ca", scope="module")
def _ca() -> Ca:
    return create_ca("test CA", NOW)


@pytest.fixture(name="store")
def _store(tmp_path: Path, ca: Ca) -> Store:
    write_ca(str(tmp_path / "ca.pem"), ca.certificate, check=False)
    return Store(str(tmp_path / "certificates"))


def put(store: Store, ca: Ca, name: str, hosts: list[str], lifetime: datetime.timedelta = 90 * DAY) -> str:
    generation, request = store.request(name, ME)
    store.install(name, generation, issue(ca, request, hosts, NOW, lifetime), str(Path(store.path).parent / "ca.pem"))
    return generation


def reason(store: Store, ca: Ca, name: str, hosts: list[str], now: datetime.datetime = NOW) -> str:
    found = store.inspect(name, ME)
    return reason_to_issue(found["certificate"], found["public_key"], hosts, ca, now, 30 * DAY)


def test_openssl_accepts_the_leaf_for_its_names_only(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test", "*.records.test", "192.0.2.7", "2001:db8::1"])
    chain = f"{store.path}/edge/fullchain.pem"
    verify = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(Path(store.path).parent / "ca.pem")]
    for option, value, good in [
        ("-verify_hostname", "records.test", True),
        ("-verify_hostname", "a.records.test", True),
        ("-verify_hostname", "other.test", False),
        ("-verify_ip", "192.0.2.7", True),
        ("-verify_ip", "2001:db8::1", True),
        ("-verify_ip", "192.0.2.8", False),
    ]:
        assert (subprocess.run([*verify, option, value, chain], capture_output=True, check=False).returncode == 0) is good, value


def test_a_leaf_cannot_sign_and_the_ca_cannot_have_sub_cas(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test"])
    leaf = x509.load_pem_x509_certificate(Path(f"{store.path}/edge/fullchain.pem").read_bytes())
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    authority = x509.load_pem_x509_certificate(ca.certificate.encode())
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_a_good_certificate_stays(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test", "2001:DB8::1"])
    assert reason(store, ca, "edge", ["2001:db8:0::1", "Records.test"]) == ""


@pytest.mark.parametrize(
    ("hosts", "after", "why"),
    [
        (["records.test", "new.test"], 0, "its names differ"),
        (["records.test"], 61, "it ends on"),
        (["records.test"], 400, "it ends on"),
        (["records.test"], -1, "it is not valid yet"),
    ],
)
def test_what_is_replaced(store: Store, ca: Ca, hosts: list[str], after: int, why: str) -> None:
    put(store, ca, "edge", ["records.test"])
    assert why in reason(store, ca, "edge", hosts, NOW + after * DAY)


def test_nothing_there_another_ca_another_key_rubbish(store: Store, ca: Ca) -> None:
    assert reason(store, ca, "edge", ["records.test"]) == "there is none"
    put(store, ca, "edge", ["records.test"])
    assert reason(store, create_ca("test CA", NOW), "edge", ["records.test"]) == "it is not from this CA"
    key = Path(f"{store.path}/edge/key.pem")
    good = key.read_text()
    key.write_text(subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519"], capture_output=True, text=True, check=True).stdout)
    assert reason(store, ca, "edge", ["records.test"]) == "its key is another one"
    key.unlink()
    assert reason(store, ca, "edge", ["records.test"]) == "its key is missing"
    key.write_text(good)
    Path(f"{store.path}/edge/fullchain.pem").write_text("rubbish")
    assert reason(store, ca, "edge", ["records.test"]) == "it cannot be read"


def test_the_swap_is_one_step_and_leaves_nothing_behind(store: Store, ca: Ca) -> None:
    first = put(store, ca, "edge", ["records.test"])
    second = put(store, ca, "edge", ["records.test"])
    assert os.readlink(f"{store.path}/edge/current") == f".generations/{second}" != f".generations/{first}"
    assert os.listdir(f"{store.path}/edge/.generations") == [second]


def test_a_pair_that_does_not_verify_is_refused_and_the_old_one_stays(store: Store, ca: Ca) -> None:
    good = put(store, ca, "edge", ["records.test"])
    generation, request = store.request("edge", ME)
    other = issue(create_ca("other", NOW), request, ["records.test"], NOW, 90 * DAY)
    with pytest.raises(StoreError, match="openssl verify"):
        store.install("edge", generation, other, str(Path(store.path).parent / "ca.pem"))
    assert os.readlink(f"{store.path}/edge/current") == f".generations/{good}"
    assert reason(store, ca, "edge", ["records.test"]) == ""


def test_a_certificate_for_another_key_is_refused(store: Store, ca: Ca) -> None:
    _first, request_of_first = store.request("one", ME)
    generation, _request = store.request("two", ME)
    with pytest.raises(StoreError, match="does not belong to the key"):
        store.install("two", generation, issue(ca, request_of_first, ["a.test"], NOW, DAY), str(Path(store.path).parent / "ca.pem"))
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
    with pytest.raises(OSError, match="No space left"):
        store.install("edge", generation, issue(ca, request, ["records.test"], NOW, 90 * DAY), str(Path(store.path).parent / "ca.pem"))
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


@pytest.mark.parametrize(
    "host", ["a_b.test", "-a.test", "a..test", "", "*.*.test", "a b.test", "naïve.test", "a" * 64 + ".test", "x;y.test"]
)
def test_hosts_that_are_no_names(host: str) -> None:
    assert check_host(host)


@pytest.mark.parametrize("host", ["localhost", "a.test", "*.a.test", "xn--nave-6pa.test", "192.0.2.1", "2001:db8::1"])
def test_hosts_that_are_names(host: str) -> None:
    assert check_host(host) is None


def test_a_stored_ca_is_judged(ca: Ca) -> None:
    check_ca(ca, NOW)
    with pytest.raises(CaError, match="does not belong"):
        check_ca(Ca(create_ca("x", NOW).key, ca.certificate), NOW)
    with pytest.raises(CaError, match="not a PEM key"):
        check_ca(Ca("rubbish", ca.certificate), NOW)
    with pytest.raises(CaError, match="not now"):
        check_ca(ca, NOW + 4000 * DAY)


def test_a_leaf_never_outlives_the_ca(store: Store, ca: Ca) -> None:
    put(store, ca, "edge", ["records.test"], 5000 * DAY)
    leaf = x509.load_pem_x509_certificate(Path(f"{store.path}/edge/fullchain.pem").read_bytes())
    assert leaf.not_valid_after_utc <= x509.load_pem_x509_certificate(ca.certificate.encode()).not_valid_after_utc


@pytest.mark.parametrize("request_pem", ["", "rubbish", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"])
def test_a_bad_request_is_refused(ca: Ca, request_pem: str) -> None:
    with pytest.raises(CaError):
        issue(ca, request_pem, ["a.test"], NOW, DAY)
