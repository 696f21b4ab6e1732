# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watch tells, and that it tells it once; the program over a real store and a real server."""

from __future__ import annotations

import getpass
import grp
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_metrics
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_watch as watch
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_install import leaf_fingerprint
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_program import main
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Store, StoreError
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_watch import Seen

from tests.unit.pki import DAY, NOW, issue

DAYS = [30, 14, 7, 1]
TODAY = 1_800_000_000.0


def seen(left: float, life: float = 365, fingerprint: str = "aa", trouble: str = "", renews: bool = False) -> Seen:
    ends = TODAY + left * watch.DAY if fingerprint else 0.0
    return Seen("edge", "127.0.0.1:443", fingerprint, ends, life, f"is in trouble ({trouble})" if trouble else "", trouble, renews)


def tell(items: list[Seen]) -> list[list[tuple[int, str]]]:
    """What is told at each of several measurements."""
    told: dict[str, Any] = {}
    heard = []
    for item in items:
        news, told = watch.news([item], told, DAYS, 7, TODAY)
        # As it is kept between two watches.
        told = json.loads(json.dumps(told))
        heard.append([(one.severity, one.text.partition(" presents ")[2] or one.text) for one in news])
    return heard


def numbers(items: list[Seen]) -> list[list[int]]:
    return [[severity for severity, _text in told] for told in tell(items)]


def test_each_threshold_is_told_once() -> None:
    assert numbers([seen(left) for left in (40, 31, 30, 29, 15, 14, 13.9, 8, 7, 6, 2, 1, 0.5, -1)]) == [
        [], [], [4], [], [], [4], [], [], [3], [], [], [3], [], [],
    ]  # fmt: skip


def test_several_thresholds_at_once_are_one_message() -> None:
    assert numbers([seen(31), seen(0.5), seen(0.4)]) == [[], [3], []]


def test_a_renewed_certificate_begins_anew() -> None:
    assert numbers([seen(13), seen(90, fingerprint="bb"), seen(13, fingerprint="bb")]) == [[4], [], [4]]


def test_what_renews_itself_is_not_told_before_it_should_have() -> None:
    assert numbers([seen(left, life=90, renews=True) for left in (30, 29, 15, 14, 7)]) == [[], [], [], [4], [3]]
    assert numbers([seen(left, life=6, renews=True) for left in (5, 3, 1.5, 1)]) == [[], [], [], [3]]
    assert watch.problems([seen(5, life=6, renews=True)], 7, TODAY) == []
    assert watch.problems([seen(1.9, life=6, renews=True)], 7, TODAY) != []


def test_what_people_deliver_is_told_whatever_its_life() -> None:
    assert numbers([seen(left, life=90) for left in (31, 30, 29, 15, 14, 7, 1)]) == [[], [4], [], [], [4], [3], [3]]
    assert numbers([seen(left, life=6) for left in (5, 3, 1)]) == [[3], [], [3]]
    assert watch.problems([seen(5, life=6)], 7, TODAY) != []


def test_a_fault_is_told_once_and_so_is_its_end() -> None:
    gone = seen(0, fingerprint="", trouble="unreachable")
    other = seen(200, fingerprint="bb", trouble="mismatch")
    assert numbers([seen(200), gone, gone, other, other, seen(200), seen(200)]) == [[], [3], [], [3], [], [6], []]


def test_a_fault_does_not_make_the_days_told_again() -> None:
    gone = seen(0, fingerprint="", trouble="unreachable")
    assert numbers([seen(13), gone, seen(12), seen(6)]) == [[4], [3], [6], [3]]


def test_an_expired_certificate_is_named_as_such() -> None:
    assert "ended on 2027-01-14" in tell([seen(-1)])[0][0][1]


def test_metrics_are_in_the_format_of_prometheus() -> None:
    awkward = Seen('a"b', "c\\d", "aa", TODAY, 90, "", "")
    text = watch.metrics([awkward, seen(0, fingerprint="", trouble="unreachable")], DAYS, TODAY)
    assert 'civitas_certificate_not_after_timestamp_seconds{name="a\\"b",place="c\\\\d"} 1800000000\n' in text
    assert 'civitas_certificate_served{name="edge",place="127.0.0.1:443"} 0\n' in text
    assert text.count("civitas_certificate_not_after_timestamp_seconds{") == 1
    assert text.endswith("civitas_certificate_watch_timestamp_seconds 1800000000\n")


def test_metrics_name_the_threshold_that_is_reached() -> None:
    def shown(item: Seen) -> list[float]:
        return [
            value
            for _labels, value in _alert_metrics.parse(watch.metrics([item], DAYS, TODAY)).get("civitas_certificate_threshold_days", [])
        ]

    assert [shown(seen(left)) for left in (31, 30, 14.1, 14, 7, 0.5, -1)] == [[float("inf")], [30], [30], [14], [7], [1], [1]]
    # What renews itself has not failed yet; of what does not answer nothing is known.
    assert shown(seen(20, life=90, renews=True)) == [float("inf")] and shown(seen(10, life=90, renews=True)) == [14]
    assert shown(seen(0, fingerprint="", trouble="unreachable")) == []


@pytest.mark.parametrize("text", ["", "rubbish", "[]", '{"told": []}', '{"time": 5}'])
def test_a_damaged_state_is_told_once_more_rather_than_never(text: str, tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text(text)
    assert watch.read_state(str(tmp_path / "watch.json")) == {}


# --- the program ------------------------------------------------------------------------------------------------------------------------

ROOT = issue("Root", ca=True, start=NOW - 500 * DAY)


class Host:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = {
            "store": str(path / "store"),
            "state_file": str(path / "state" / "watch.json"),
            "metrics_file": str(path / "metrics" / "certificates.prom"),
            "days": DAYS,
            "critical_days": 7,
            "alert_command": ["/bin/sh", "-c", f"cat >> {path}/alerts"],
            "patience": 1,
            "certificates": [
                {
                    "name": "edge",
                    "hosts": ["records.test"],
                    "owner": getpass.getuser(),
                    "group": grp.getgrgid(os.getegid()).gr_name,
                    "trust_file": str(path / "root.pem"),
                }
            ],
        }
        (path / "root.pem").write_text(ROOT.pem)
        self.configure()

    def configure(self, **changes: Any) -> None:
        (self.path / "certificates.json").write_text(json.dumps({**self.document, **changes}))

    def program(self, *arguments: str) -> int:
        return main(["--config", str(self.path / "certificates.json"), *arguments])

    def install(self, days: float, name: str = "records.test") -> int:
        leaf = issue(name, ROOT, names=[name], start=NOW - 400 * DAY, end=NOW + days * DAY)
        (self.path / "chain.pem").write_text(f"from the issuer\n{leaf.pem}")
        (self.path / "key.pem").write_text(leaf.key_pem())
        return self.program("install", "edge", "--chain", str(self.path / "chain.pem"), "--key", str(self.path / "key.pem"))

    def alerts(self) -> list[str]:
        file = self.path / "alerts"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    yield Host(tmp_path)


def test_install_list_and_roll_back(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.install(100.5) == 0
    assert "generation 1 is in use\n" in capsys.readouterr().out
    assert host.install(200.5) == 0
    capsys.readouterr()
    assert host.program("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        "edge: generation 1, kept, ends in 100.5 days",
        "edge: generation 2, in use, ends in 200.5 days",
    ]
    assert host.program("rollback", "edge") == 0
    store = Store(host.document["store"])
    assert store.current("edge") == "1"
    capsys.readouterr()
    # What the playbook reads when it is run again.
    assert host.program("rollback", "edge") == 0
    assert capsys.readouterr().out.splitlines() == [
        "edge: generation 1 is in use already since a rollback; name another one with --generation",
        "edge: generation 1 is in use already; nothing changed",
    ]
    Path(store.path, "edge", ".generations", "1", "fullchain.pem").write_text("rubbish")
    assert host.program("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("edge: generation 1, in use, damaged: ")
    assert lines[1].startswith("edge: generation 2, rolled away from, ends in 200.5 days")


def test_a_roll_back_is_judged_by_the_declared_roots(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.install(100)
    host.install(200)
    (host.path / "root.pem").write_text(issue("Other root", ca=True).pem)
    assert host.program("rollback", "edge") == 1
    assert "generation 1 would not be accepted" in capsys.readouterr().err
    assert Store(host.document["store"]).current("edge") == "2"


def test_what_is_wrong_is_said_and_is_a_failure(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.install(100, "other.test") == 1
    assert "hostname mismatch" in capsys.readouterr().err.lower()
    assert host.program("rollback", "other") == 1
    assert "other is no certificate of this host; there are edge" in capsys.readouterr().err
    (host.path / "chain.pem").write_text("nothing")
    assert host.program("install", "edge", "--chain", str(host.path / "chain.pem"), "--key", str(host.path / "key.pem")) == 1
    assert "holds no certificate" in capsys.readouterr().err
    (host.path / "certificates.json").write_text("{")
    assert host.program("list") == 1
    assert "run the site playbook" in capsys.readouterr().err


def test_a_missing_certificate_is_a_fault(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.program("status") == 1
    assert host.program("watch") == 1
    assert host.program("watch") == 1
    assert host.alerts() == ["the certificate edge: file is not installed"]
    assert host.install(100) == 0
    assert host.program("watch") == 0
    assert host.alerts() == ["the certificate edge: file is well again"]


def test_real_certificates_are_told_at_each_threshold(host: Host) -> None:
    for days, status in ((29.5, 0), (13.5, 0), (6.5, 1), (0.5, 1)):
        host.install(days)
        assert host.program("watch") == status
        assert [f"ends in {days} days" in line for line in host.alerts()] == [True]
        assert host.program("watch") == status
        assert host.alerts() == []


def test_what_nobody_heard_is_told_again(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.install(20)
    host.configure(alert_command=["/bin/sh", "-c", "echo no way >&2; exit 3"])
    assert host.program("watch") == 1
    assert "the alert command failed: no way" in capsys.readouterr().err
    host.configure(alert_command=["/no/such/program"])
    assert host.program("watch") == 1
    host.configure()
    assert host.program("watch") == 0
    assert len(host.alerts()) == 1


def test_a_watch_that_stands_still_is_noticed(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.install(100)
    assert host.program("status") == 0
    assert host.program("watch") == 0
    assert host.program("status") == 0
    state = json.loads(Path(host.document["state_file"]).read_text())
    Path(host.document["state_file"]).write_text(json.dumps({**state, "time": time.time() - 30 * 3600}))
    assert host.program("status") == 1
    assert "has not run for 30 hours" in capsys.readouterr().err


def test_the_journal_learns_how_severe_it_is(host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    host.install(6.5)
    capsys.readouterr()
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    host.program("watch")
    assert capsys.readouterr().err.startswith("<3>the certificate edge: file ")
    assert Path(host.document["metrics_file"]).stat().st_mode & 0o777 == 0o644


def test_the_watch_ends_what_was_cut_off(host: Host) -> None:
    host.install(100)
    store = Store(host.document["store"])
    store.arm("edge")
    assert host.program("watch") == 0
    assert store.pending("edge") is None
    assert ["cut off before it changed anything" in line for line in host.alerts()] == [True]


@pytest.mark.parametrize(("source", "alerts"), [("delivered", 1), ("acme", 0), ("internal", 0)])
def test_the_source_says_whether_it_renews_itself(host: Host, source: str, alerts: int) -> None:
    host.document["certificates"][0]["source"] = source
    host.configure()
    # A third of 90 days: not yet due for what renews itself.
    leaf = issue("records.test", ROOT, names=["records.test"], start=NOW - 60.5 * DAY, end=NOW + 29.5 * DAY)
    (host.path / "chain.pem").write_text(leaf.pem)
    (host.path / "key.pem").write_text(leaf.key_pem())
    assert host.program("install", "edge", "--chain", str(host.path / "chain.pem"), "--key", str(host.path / "key.pem")) == 0
    assert host.program("watch") == 0
    assert len(host.alerts()) == alerts


def test_nobody_waits_while_the_watch_measures(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.install(100)
    real = watch.measure

    def measure(*arguments: Any) -> list[Seen]:
        with Store(host.document["store"]).lock(0):
            return real(*arguments)

    monkeypatch.setattr(watch, "measure", measure)
    assert host.program("watch") == 0


@pytest.mark.parametrize("ended", [True, False])
def test_a_swap_under_way_is_no_fault(host: Host, ended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    host.install(100)
    host.document["certificates"][0]["endpoints"] = [{"host": "127.0.0.1", "port": port} for port in (1, 2)]
    host.configure()
    store = Store(host.document["store"])
    installed = leaf_fingerprint(store.chain("edge", "1"))
    looks: list[tuple[str, bool]] = []

    def look(name: str, endpoint: Any, *_rest: Any) -> Seen:
        try:
            with Store(host.document["store"]).lock(0):
                locked = False
        except StoreError:
            locked = True
        looks.append((str(endpoint), locked))
        swapping = str(endpoint) == "127.0.0.1:2" and not (locked and ended)
        ends = time.time() + 100 * watch.DAY
        return Seen(name, str(endpoint), installed, ends, 400, "presents another" if swapping else "", "mismatch" if swapping else "")

    monkeypatch.setattr(watch, "_look", look)
    assert host.program("watch") == (0 if ended else 1)
    assert looks == [("127.0.0.1:1", False), ("127.0.0.1:2", False), ("127.0.0.1:2", True)]
    assert len(host.alerts()) == (0 if ended else 1)
