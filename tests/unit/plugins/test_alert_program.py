# SPDX-License-Identifier: GPL-3.0-or-later
"""The program over real files, a real mail relay and a real chat: from what was measured to what somebody reads."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_program as program

from tests.unit import sinks
from tests.unit.plugins.test_alert_bridge import alertmanager, item, payload
from tests.unit.plugins.test_declarations import ROOT

__all__ = ["alertmanager"]

RULES: list[dict[str, Any]] = [
    {"role": "base", "name": "DiskFull", "severity": "critical", "metric": "civitas_mount_used_ratio", "above": 0.7, "unit": "ratio",
     "text": "{mountpoint} is {value} full.", "runbook": "alerts.md#disk"},
    {"role": "base", "name": "Unmeasured", "severity": "critical", "metric": "civitas_collected_time_seconds", "missing": True,
     "text": "{host} is not measured.", "runbook": "alerts.md#measured"},
]  # fmt: skip


class Host:
    """A host below a directory, its relay and its chat."""

    def __init__(self, path: Path, relay: sinks.MailSink, chat: sinks.HttpsSink) -> None:
        self.path, self.relay, self.chat = path, relay, chat
        self.places = program.Places(str(path / "alerts.json"), str(path / "maintenance.json"), (str(path / "disk"), str(path / "run")))
        (path / "metrics").mkdir()
        self.document: dict[str, Any] = {
            "host": "server1",
            "metrics_directory": str(path / "metrics"),
            "rules": RULES,
            "receivers": [
                {"name": "team", "email": {"to": ["a@example.org"]}},
                {"name": "chat", "webhook": {"url": f"{chat.url}/canary", "ca_file": chat.ca_file}},
            ],
            "mail": {"from": "server1@example.org", "port": relay.port},
            "settle_seconds": 0,
        }
        self.configure()
        self.measure(0.5)

    def configure(self, **changes: Any) -> None:
        self.document.update(changes)
        (self.path / "alerts.json").write_text(json.dumps(self.document))

    def measure(self, used: float) -> None:
        text = f'civitas_collected_time_seconds 1\ncivitas_mount_used_ratio{{mountpoint="/srv"}} {used}\n'
        (self.path / "metrics" / "host.prom").write_text(text)

    def run(self, *arguments: str) -> int:
        return program.main(arguments, self.places)

    def heard(self) -> tuple[list[str], list[str]]:
        return [mail["Subject"] for _to, mail in self.relay.mails], [json.loads(request.body)["subject"] for request in self.chat.requests]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with sinks.mail() as relay, sinks.https(tmp_path / "chat") as chat:
        yield Host(tmp_path, relay, chat)


def test_an_alarm_and_its_end_are_heard_by_everybody_once(host: Host) -> None:
    assert host.run("evaluate") == 0 and host.heard() == ([], [])
    host.measure(0.7123)
    assert host.run("evaluate") == 0 == host.run("evaluate")
    told = ["[server1] CRITICAL: /srv is 71.23% full."]
    assert host.heard() == (told, told)
    assert "What to do: docs/runbooks/alerts.md#disk" in host.relay.mails[0][1].get_content()
    host.measure(0.6)
    assert host.run("evaluate") == 0 == host.run("evaluate")
    told += ["[server1] over: /srv is 71.23% full."]
    assert host.heard() == (told, told)


def test_what_is_not_measured_rings(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.path / "metrics" / "host.prom").write_text("rubbish\n")
    assert host.run("evaluate") == 0
    assert host.heard()[0] == ["[server1] CRITICAL: server1 is not measured."]
    assert host.run("evaluate") == 0
    assert capsys.readouterr().err.count("line 1 is no sample") == 1


def test_one_receiver_fails_and_the_other_does_not_notice(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.chat.status = 500
    host.measure(0.9)
    host.run("evaluate")
    host.run("evaluate")
    assert len(host.relay.mails) == 1 and len(host.chat.requests) == 1
    assert host.run("status") == 1
    said = capsys.readouterr()
    assert "chat (warning, critical): webhook: localhost: the answer is 500" in said.err and "canary" not in said.out + said.err


def test_a_full_disk_silences_nothing_and_repeats_nothing(host: Host) -> None:
    (host.path / "disk").write_text("takes no files")
    host.measure(0.9)
    host.run("evaluate")
    host.run("evaluate")
    assert len(host.relay.mails) == 1 == len(host.chat.requests)


def test_a_sign_of_life_goes_outside_while_everybody_can_be_told(
    host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sinks.https(tmp_path / "outside") as outside:
        monkeypatch.setenv("SSL_CERT_FILE", outside.ca_file)
        host.configure(heartbeat=f"{outside.url}/ping/canary")

        def again() -> int:
            # As if it were minutes ago.
            kept = host.places.kept("alerts")
            kept.write({**kept.read(), "heartbeat": {**kept.read().get("heartbeat", {}), "at": 0}})
            assert host.run("evaluate") == 0
            return len(outside.requests)

        assert host.run("evaluate") == 0 == host.run("evaluate")
        assert [request.target for request in outside.requests] == ["/ping/canary"]
        assert again() == 2
        assert host.run("silence", "--for", "1h", "--reason", "x") == 0 and again() == 3, "a maintenance is no end"
        host.run("silence", "--end")
        assert host.run("status") == 0 and "the sign of life for outside: it is sent" in capsys.readouterr().out
        # Not for a host whose alarms nobody hears, or that cannot read what it measured.
        host.chat.status = 500
        host.measure(0.9)
        assert (again(), again()) == (3, 3)
        host.run("status")
        assert "it is held back, as not everybody can be told of alarms" in capsys.readouterr().err
        # What could not be told is over, and the chat has nothing to hear any more.
        host.measure(0.5)
        kept = host.places.kept("alerts")
        document = kept.read()
        document["receivers"]["chat"] = {"problem": "the answer is 500", "tried": time.time() - 1000, "failures": 1}
        kept.write(document)
        host.run("evaluate")
        assert len(outside.requests) == 4
        (host.path / "metrics" / "other.prom").write_text("rubbish\n")
        assert again() == 4
        assert host.run("status") == 1
        said = capsys.readouterr()
        assert "it is held back, as what was measured cannot be read" in said.err and "canary" not in said.err + said.out


def test_status_says_what_rings(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("status") == 1
    assert "what the host measured is not judged by now; see 'systemctl status civitas-alerts.timer" in capsys.readouterr().err
    host.run("evaluate")
    assert host.run("status") == 0
    host.measure(0.9)
    host.run("evaluate")
    capsys.readouterr()
    assert host.run("status") == 1
    said = capsys.readouterr()
    assert "CRITICAL: server1: /srv is 90% full. Since 20" in said.err and "team a@example.org (warning, critical): can be told" in said.out
    host.configure(rules=[*RULES, {**RULES[0], "name": "DiskHalfFull", "severity": "warning", "above": 0.5}])
    host.run("evaluate")
    assert host.run("status") == 1
    assert "WARNING" not in capsys.readouterr().err, "another alarm says more of the same"
    host.configure(receivers=[])
    assert host.run("status") == 1 and "nobody hears an alarm" in capsys.readouterr().err


def test_what_another_release_kept_stops_nothing(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.measure(0.9)
    host.run("evaluate")
    kept = host.path / "disk" / "alerts.json"
    document = json.loads(kept.read_text())
    for state in document["receivers"].values():
        for entry in state["told"].values():
            entry["alert"]["colour"] = "red"
    document["alerts"][0]["colour"] = "red"
    kept.write_text(json.dumps({**document, "time": time.time() - 7200}))
    assert host.run("status") == 1
    assert "what the host measured is not judged since 20" in (said := capsys.readouterr().err) and ", 2h 0m 0s; see" in said
    assert host.run("evaluate") == 0 and len(host.relay.mails) == 1, "it is known that it was told"
    kept.write_text(json.dumps({"time": "x", "alerts": [{}], "receivers": {"chat": {"told": {"k": {"alert": {"name": "X"}}}}}}))
    assert host.run("status") == 1
    assert host.run("evaluate") == 0
    assert [len(found) for found in host.heard()] == [2, 2]


def test_a_drill(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("drill", "--host", "server2") == 1
    assert "there are no rules for server2 here" in capsys.readouterr().err
    host.configure(watched={"server2": RULES})
    assert host.run("drill", "--host", "server2") == 0 and '"DiskFull"' in capsys.readouterr().out
    assert host.run("drill", "--host", "server1") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["alarms"] == {"DiskFull": "critical"} and set(plan["left_out"]) == {"Unmeasured"}
    heard = ("drill", "--host", "server1", "--told", json.dumps(plan["alarms"]))
    host.run("evaluate")
    capsys.readouterr()
    assert host.run(*heard) == 1
    assert capsys.readouterr().out.count(" was not told of DiskFull") == 2
    full = f'civitas_collected_time_seconds 1\ncivitas_mount_used_ratio{{mountpoint="/var/lib/civitas/alarm-drill"}} {plan["filled"]}\n'
    (host.path / "metrics" / "host.prom").write_text(full)
    host.run("evaluate")
    assert host.run(*heard) == 0
    assert all("DRILL, nothing is wrong: CRITICAL: " in subject for way in host.heard() for subject in way)
    assert host.run("drill", "--host", "server1", "--over") == 1
    host.measure(0.5)
    host.run("evaluate")
    host.run("evaluate")
    assert host.run("drill", "--host", "server1", "--over") == 0


def test_a_maintenance(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("silence", "--for", "2h", "--reason", "new disk") == 0
    host.measure(0.9)
    host.run("evaluate")
    host.run("evaluate")
    (subject,) = host.heard()[0]
    assert subject.startswith("[server1] Alarms of server1 are held back until 20") and subject.endswith("UTC: new disk")
    host.run("status")
    assert "alarms are held back until" in capsys.readouterr().out
    assert host.run("silence", "--end") == 0
    host.run("evaluate")
    assert host.heard()[0][1:] == ["[server1] Alarms of server1 are told again: the time for its maintenance is over. (and 1 more)"]
    assert host.run("silence", "--for", "2h") == 1 == host.run("silence", "--for", "3d", "--reason", "x")
    said = capsys.readouterr().err
    assert "there is no reason; write one" in said and "'3d' is no length of a maintenance; write 30m" in said


def test_what_it_says_names_the_program_that_is_there(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    host.places = host.places._replace(program="civitas-site-alerts")
    lines = "".join(f'civitas_mount_used_ratio{{mountpoint="/srv{number}"}} 0.9\n' for number in range(50))
    (host.path / "metrics" / "host.prom").write_text(f"civitas_collected_time_seconds 1\n{lines}")
    host.run("evaluate")
    assert "And 10 more; see 'sudo civitas-site-alerts status' on server1." in host.relay.mails[0][1].get_content()
    host.run("silence", "--for", "1h", "--reason", "x")
    (host.path / "maintenance.json").write_text("{")
    host.run("silence", "--for", "x")
    host.run("status")
    with pytest.raises(SystemExit):
        host.run("--help")
    said = capsys.readouterr()
    assert said.out.count("civitas-site-alerts") >= 2 and said.err.count("civitas-site-alerts") >= 2
    assert "civitas-alerts" not in (said.out + said.err).replace("civitas-alerts.service", "")


def test_a_maintenance_of_one_host(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("silence", "--for", "2h", "--reason", "release", "--alarm", "DiskFull") == 1
    assert "write --host, too" in capsys.readouterr().err
    one = ("silence", "--host", "server1", "--alarm", "DiskFull")
    assert host.run(*one, "--for", "2h", "--reason", "release") == 0
    host.measure(0.9)
    host.run("evaluate")
    host.run("evaluate")
    (subject,) = host.heard()[0]
    assert subject.startswith("[server1] DiskFull alarms of server1 are held back until 20") and subject.endswith("UTC: release.")
    capsys.readouterr()
    host.run("status")
    assert "DiskFull of server1: held back until 20" in capsys.readouterr().out
    (host.path / "metrics" / "host.prom").write_text("")
    host.run("evaluate")
    assert host.heard()[0][1:] == ["[server1] CRITICAL: server1 is not measured."]
    assert host.run("silence", "--end") == 0 and "there is no maintenance" in capsys.readouterr().out
    assert host.run("silence", "--end", "--host", "server1") == 0
    host.measure(0.9)
    host.run("evaluate")
    assert host.heard()[0][2].startswith("[server1] DiskFull alarms of server1 are told again: the time for its maintenance is over.")
    assert "CRITICAL: server1: /srv is 90% full." in host.relay.mails[2][1].get_content()


def test_the_end_of_a_maintenance_waits_for_what_is_about_to_be_over(host: Host) -> None:
    inbox = program.Inbox(host.places.kept("alerts-received"))
    alarm = item(severity="critical")
    inbox.take(payload(alarm), time.time())
    (name, of) = (alarm["labels"]["alertname"], alarm["labels"]["host"])
    host.run("silence", "--host", of, "--alarm", name, "--for", "2h", "--reason", "release")
    begun = time.monotonic()
    assert host.run("silence", "--end", "--host", of, "--patience", "2") == 0
    assert time.monotonic() - begun >= 2, "it still rings"
    host.run("silence", "--host", of, "--alarm", name, "--for", "2h", "--reason", "release")
    threading.Timer(1, inbox.take, (payload({**alarm, "status": "resolved"}), time.time())).start()
    begun = time.monotonic()
    assert host.run("silence", "--end", "--host", of, "--patience", "60") == 0
    assert 1 <= time.monotonic() - begun < 30


def test_a_test_reaches_everybody_or_says_who_not(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("test") == 0
    assert host.heard() == (["[server1] test of alarms"], ["[server1] test of alarms"])
    host.chat.status = 403
    assert host.run("test") == 1 and "chat: webhook: localhost: the answer is 403" in capsys.readouterr().err
    assert host.run("test", "--receiver", "team") == 0
    assert host.run("test", "--receiver", "nobody") == 1
    assert "there is no receiver nobody; there are team a@example.org, chat" in capsys.readouterr().err
    assert len(host.relay.mails) == 3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rules": [{**RULES[0], "above": "x"}]}, "alert DiskFull of role base: above is 'x'; write a number"),
        ({"receivers": [{"name": "x", "sms": {"url": "http://canary"}}]}, "receivers[0].sms.url is no usable address"),
        ({"mail": None}, "run the site playbook"),
        ({"settle_seconds": "soon"}, "run the site playbook"),
    ],
)
def test_a_configuration_that_cannot_be_used(host: Host, capsys: pytest.CaptureFixture[str], changes: Any, problem: str) -> None:
    host.configure(**changes)
    assert host.run("evaluate") == 1
    said = capsys.readouterr().err
    assert problem in said and "canary" not in said


def test_without_a_configuration(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    (host.path / "alerts.json").write_text("{canary")
    assert host.run("evaluate") == 1 and "canary" not in capsys.readouterr().err
    (host.path / "alerts.json").unlink()
    assert host.run("evaluate") == 1 and "No such file" in capsys.readouterr().err


# --- what Alertmanager says

START = """
import sys
from ansible_collections.civitas.hosting.plugins.module_utils import _alert_program as program
program.TICK, program.MOMENT = 0.2, 0.1
sys.exit(program.main(["receive"], program.Places(sys.argv[1], sys.argv[2], tuple(sys.argv[3:]))))
"""


class Bridge:
    """The service as a process of its own."""

    def __init__(self, host: Host, alertmanager_port: int = 0) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.host = host
        host.configure(rules=[], bridge={"port": self.port, "token": "canary-token", "alertmanager": alertmanager_port})
        self.start()

    def start(self) -> None:
        places = self.host.places
        environment = {**os.environ, "PYTHONPATH": str(ROOT / ".cache" / "collections")}
        command = [sys.executable, "-c", START, places.config, places.window, *places.state]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        assert "alarms are taken" in self.process.stdout.readline()

    def stop(self) -> str:
        self.process.send_signal(signal.SIGTERM)
        said, _nothing = self.process.communicate(timeout=10)
        assert self.process.returncode == 0, said
        return said

    def post(self, *items: dict[str, Any]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("POST", "/", json.dumps(payload(*items)), {"Authorization": "Bearer canary-token"})
        assert connection.getresponse().status == 200
        connection.close()

    def wait(self, count: int) -> list[str]:
        end = time.monotonic() + 10
        while len(self.host.relay.mails) < count or len(self.host.chat.requests) < count:
            assert time.monotonic() < end, self.host.heard()
            time.sleep(0.02)
        return self.host.heard()[0]


@pytest.fixture
def bridge(host: Host) -> Iterator[Bridge]:
    found = Bridge(host)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.wait()


def test_what_alertmanager_says_is_told_in_the_same_words(bridge: Bridge, capsys: pytest.CaptureFixture[str]) -> None:
    alarm = {**item(severity="critical"), "annotations": {"text": "/srv is 71.23% full.", "runbook": "alerts.md#disk"}}
    bridge.post(alarm)
    assert bridge.wait(1) == ["[server1] CRITICAL: /srv is 71.23% full."]
    assert bridge.host.run("status") == 1
    assert "CRITICAL: server1: /srv is 71.23% full. Since 2027-01-15 08:00:00 UTC." in capsys.readouterr().err
    # It comes again now and then, and over a restart.
    bridge.post(alarm)
    assert "was told" in bridge.stop()
    bridge.start()
    bridge.post(alarm)
    bridge.post({**alarm, "status": "resolved"})
    assert bridge.wait(2)[1:] == ["[server1] over: /srv is 71.23% full."]
    assert "canary" not in bridge.stop()
    assert [len(found) for found in bridge.host.heard()] == [2, 2]


def test_what_alertmanager_has_and_did_not_say_is_told(host: Host, alertmanager: Any) -> None:
    alertmanager.alarms.append((item(severity="critical"), "active"))
    found = Bridge(host, alertmanager.port)
    try:
        assert found.wait(1) == ["[server1] CRITICAL: /srv is 51% full."]
    finally:
        found.process.kill()
        found.process.wait()


def told(bridge: Bridge) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=5)
    connection.request("GET", "/metrics")
    found = connection.getresponse().read().decode().splitlines()[-1]
    connection.close()
    return found


def test_the_heartbeat_learns_that_nobody_can_be_told(bridge: Bridge) -> None:
    bridge.post(item(severity="critical"))
    bridge.wait(1)
    assert told(bridge) == "civitas_alerts_can_be_told 1"
    bridge.stop()
    kept = bridge.host.path / "disk" / "alerts-told.json"
    document = json.loads(kept.read_text())
    for state in document["receivers"].values():
        state.update({"problem": "refused", "since": time.time() - 1000, "tried": time.time(), "failures": 9})
    kept.write_text(json.dumps(document))
    bridge.start()
    assert told(bridge) == "civitas_alerts_can_be_told 0"


def test_without_a_token_nobody_listens(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run("receive") == 1 and "there is no port and token" in capsys.readouterr().err
