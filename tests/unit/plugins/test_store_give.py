# SPDX-License-Identifier: GPL-3.0-or-later
"""What the key of a grant may read over a real sshd, and that it ends."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _backup_verify as verify
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_fetch as fetching
from ansible_collections.civitas.hosting.plugins.module_utils import _store_give as give
from ansible_collections.civitas.hosting.plugins.module_utils import _store_program as store_program
from ansible_collections.civitas.hosting.plugins.module_utils._backup_send import Store
from ansible_collections.civitas.hosting.plugins.module_utils._store_sets import StoreError

from tests.unit.backup_sets import flip, ssh_key
from tests.unit.backup_sites import Site, needs_programs

pytestmark = needs_programs


@pytest.fixture(scope="module", name="site")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A store with two sets; the tests change nothing of them."""
    site = Site(tmp_path_factory.mktemp("given") / "site")
    (site.data / "record").write_bytes(bytes(range(256)) * 4000)
    site.backup()
    (site.data / "another").write_text("another record")
    site.backup()
    yield site
    site.close()


@pytest.fixture(name="way")
def _way(site: Site, tmp_path: Path) -> dict[str, Any]:
    return site.grant(name=f"reader-{tmp_path.name}")


@pytest.fixture(autouse=True)
def _no_grant_is_left(site: Site) -> Iterator[None]:
    yield
    for one in give.grants(str(site.base / "grants"), time.time()):
        give.revoke(str(site.base / "grants"), "true", one.key, time.time())


def fetcher(way: dict[str, Any]) -> fetching.Fetcher:
    return fetching.Fetcher(Store(**{**way, "tries": 2}), lambda line: None)


def ask(site: Site, way: dict[str, Any], asked: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = ["ssh", "-F", "none", "-T", "-p", str(site.port), "-i", way["key"], "-o", "BatchMode=yes", *options]
    command += ["-o", f"UserKnownHostsFile={site.base}/known_hosts", "127.0.0.1", "--", asked]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)


def test_a_set_comes_and_is_whole(site: Site, way: dict[str, Any], tmp_path: Path) -> None:
    found = fetcher(way).sets()
    assert [one.set_id for one in found] == [path.name for path in site.sets()]
    assert all(one.good and not one.problems for one in found)
    target = tmp_path / found[-1].set_id
    manifest = fetcher(way).fetch(found[-1].set_id, str(target), "records1", [site.signer])
    assert verify.check_ciphers(str(target), manifest) == [] and found[-1].bytes == manifest.bytes
    verify.check_contents(str(target), manifest, str(site.identity))


def test_what_was_cut_off_goes_on(site: Site, way: dict[str, Any], tmp_path: Path) -> None:
    target = tmp_path / site.sets()[0].name
    target.mkdir()
    source = next(site.sets()[0].glob("tree-data-0*.age"))
    whole = source.read_bytes()
    (target / source.name).write_bytes(whole[:5000])
    assert ask(site, way, f"get {target.name} {source.name} 5000").stdout == whole[5000:]
    fetcher(way).fetch(target.name, str(target), "records1", [site.signer])
    assert (target / source.name).read_bytes() == whole
    # What is there and wrong is fetched again, and from its beginning.
    flip(target / source.name)
    index = next(site.sets()[0].glob("tree-data-index*.age"))
    (target / index.name).write_bytes(b"x" * 10)
    fetcher(way).fetch(target.name, str(target), "records1", [site.signer])
    assert (target / source.name).read_bytes() == whole and (target / index.name).read_bytes() == index.read_bytes()


@pytest.mark.parametrize(
    "asked",
    [
        "",
        "sh",
        "have",
        "begin 20260101T000000Z-0123456789ab 5",
        "get {set} ../../../../lock 0",
        "get {set} store.json 0",
        "get {set}/../{set} manifest.json 0",
        "get {set} manifest.json -1",
        "get {set} manifest.json 0 0",
        "get 20260101T000000Z-0123456789ab manifest.json 0",
        "sets; id",
        "rsync --server --sender -te.LsfxCIvu . {set}",
        "rsync --server -te.LsfxCIvu --inplace . incoming/{set}/",
    ],
)
def test_nothing_else_is_served(site: Site, way: dict[str, Any], asked: str) -> None:
    done = ask(site, way, asked.format(set=site.sets()[0].name))
    assert done.returncode != 0
    assert done.stdout == b"" or "error" in json.loads(done.stdout), done.stdout


def test_a_grant_is_for_one_host_and_one_set(site: Site, tmp_path: Path) -> None:
    first, second = site.sets()
    one = site.grant(set_id=first.name, name="of-one-set")
    assert [found.set_id for found in fetcher(one).sets()] == [first.name]
    fetcher(one).fetch(first.name, str(tmp_path / first.name), "records1", [site.signer])
    with pytest.raises(fetching.FetchError, match="this grant is for other files"):
        fetcher(one).fetch(second.name, str(tmp_path / second.name), "records1", [site.signer])
    other = site.grant(host="other", name="of-another-host")
    assert fetcher(other).sets() == []
    assert ask(site, other, f"get {first.name} manifest.json 0").stdout == b""


def test_a_grant_ends(site: Site) -> None:
    directory, now = str(site.base / "grants"), time.time()
    late = site.grant(hours=0.0003, name="ends")
    deadline = time.monotonic() + 30
    while ask(site, late, "sets").returncode == 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    # A key that sshd still takes is refused by the service.
    assert [one.key for one in give.grants(directory, now)] != [] and give.grants(directory, now + 10) == []
    revoked = site.grant(name="revoked")
    (grant,) = give.grants(directory, time.time())
    assert ask(site, revoked, "sets").returncode == 0
    assert give.revoke(directory, "true", grant.key, time.time())
    assert not give.revoke(directory, "true", grant.key, time.time())
    assert b"Permission denied" in ask(site, revoked, "sets").stderr
    assert (site.base / "grants/keys").read_text() == ""


def test_the_service_refuses_a_grant_that_has_ended(site: Site, way: dict[str, Any]) -> None:
    (grant,) = give.grants(str(site.base / "grants"), time.time())
    path = site.base / "grants" / f"{grant.grant_id}.json"
    path.write_text(json.dumps({**grant._asdict(), "until": time.time() - 1}))
    assert "this grant has ended" in json.loads(ask(site, way, "sets").stdout)["error"]
    with pytest.raises(fetching.FetchError, match="this grant has ended"):
        fetcher(way).sets()


def test_the_key_of_a_host_reads_nothing_by_a_grant(site: Site, way: dict[str, Any]) -> None:
    assert way
    done = ask(site, {"key": str(site.base / "transfer")}, f"get {site.sets()[0].name} manifest.json 0")
    assert done.returncode != 0 and done.stdout == b"" and b"a host may say" in done.stderr
    assert "a host may say" in json.loads(ask(site, {"key": str(site.base / "transfer")}, "sets").stdout)["error"]


def test_what_root_grants_and_takes_back(site: Site, tmp_path: Path) -> None:
    """As the module store_grant asks for it."""
    config, now = store_program.read_config(str(site.base / "store.json")), time.time()
    directory, key = str(site.base / "grants"), ssh_key(tmp_path / "reader")
    newest = site.sets()[-1].name
    assert store_program.grant(config, "records1", newest, key, 1.0, now, check=True)["until"] == ""
    assert give.grants(directory, now) == [] and not store_program.revoke(config, key, now, check=True)
    made = store_program.grant(config, "records1", newest, f"{key} somebody", 1.0, now)
    (known,) = give.grants(directory, now)
    assert (known.grant_id, known.set_id, known.key, made["user"]) == (made["grant"], newest, key, config.reader)
    assert store_program.revoke(config, key, now, check=True) and give.grants(directory, now) == [known]
    assert store_program.revoke(config, f"{key} somebody", now) and give.grants(directory, now) == []
    assert not store_program.revoke(config, key, now)
    for host, set_id, message in (
        ("nobody", "", "keeps nothing of nobody"),
        ("records1", "20200101T000000Z-0123456789ab", "there is no set"),
    ):
        with pytest.raises(StoreError, match=message):
            store_program.grant(config, host, set_id, key, 1.0, now)


def test_grants_that_would_be_none(tmp_path: Path) -> None:
    public = ssh_key(tmp_path / "key")
    for key, set_id, hours, message in (
        ("ssh-rsa AAAA", "", 1, "no public key of the type"),
        (f'command="sh" {public}', "", 1, "no public key of the type"),
        (public, "../x", 1, "no name of a set"),
        (public, "", 0, "72 hours at most"),
        (public, "", 73, "72 hours at most"),
        (public, "", float("nan"), "72 hours at most"),
    ):
        with pytest.raises(StoreError, match=message):
            give.add(str(tmp_path / "grants"), "x", "records1", set_id, key, hours, time.time())
    assert not (tmp_path / "grants").exists()


def test_the_store_cannot_send_what_the_host_did_not(site: Site, way: dict[str, Any], tmp_path: Path) -> None:
    name = site.sets()[0].name
    with pytest.raises(verify.VerifyError, match="signature"):
        fetcher(way).fetch(name, str(tmp_path / name), "records1", [ssh_key(tmp_path / "thief")])
    member = next(site.sets()[0].glob("tree-data-rest*.age"))
    whole = member.read_bytes()
    flip(member)
    try:
        with pytest.raises(fetching.FetchError, match="the store has another tree-data-rest"):
            fetcher(way).fetch(name, str(tmp_path / name), "records1", [site.signer])
        member.write_bytes(whole + b"x" * 100)
        with pytest.raises(fetching.FetchError, match="sends more than"):
            fetcher(way).fetch(name, str(tmp_path / name), "records1", [site.signer])
    finally:
        member.unlink()
        member.write_bytes(whole)
