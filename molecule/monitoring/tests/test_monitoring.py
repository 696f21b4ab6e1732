# SPDX-License-Identifier: GPL-3.0-or-later
"""What is watched, who is told, and what the page lets through."""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import re
import socket
import ssl
import struct
import time
import urllib.parse
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["ansible://monitoring"]

FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
PICTURES = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]) / ".cache" / "pictures"
NAME = "monitoring.records.test"
SECRETS = ("Canary-4711-beat", "Canary-4711-hook", "Canary-4711-page")
SERVICES = ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "civitas-alerts-receive")


@pytest.fixture(name="address")
def _address(host):
    return next(address for address in host.interface("eth0").addresses if "." in address)


@pytest.fixture(name="heard", scope="module")
def _heard(host):
    return [json.loads(line) for line in host.file("/srv/story/heard.jsonl").content_string.splitlines()]


@pytest.fixture(name="told", scope="module")
def _told(heard):
    """Every alarm that people were told of in the chat, with its message."""
    messages = [one for one in heard if one["way"] == "chat"]
    assert {one["path"] for one in messages} == {"/hook/Canary-4711-hook"}
    return [(alert, one["body"]) for one in messages for alert in one["body"]["alerts"]]


@pytest.fixture(name="real", scope="module")
def _real(told):
    """Without what a drill raised."""
    return [(alert, message) for alert, message in told if not drilled(alert)]


@pytest.fixture(name="mail", scope="module")
def _mail(heard):
    return [one for one in heard if one["way"] == "mail"]


def other(host, group):
    """Another host of the scenario."""
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups'][group][0]}")


def states(told, name, where):
    """What was told of an alarm, in order."""
    return [alert["state"] for alert, _message in told if (alert["name"], alert["host"]) == (name, where)]


def ask(address, path, method="GET", login="anna:Canary-4711-page", body=None):
    """Status, headers and content of what the page's host answers, its certificate verified."""
    connection = http.client.HTTPSConnection(NAME, 443, timeout=20)
    context = ssl.create_default_context(cafile=str(FOLDER / "ca.pem"))
    connection.sock = context.wrap_socket(socket.create_connection((address, 443), timeout=20), server_hostname=NAME)
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def query(host, text):
    """The result of an instant query on the host itself, by labels' values."""
    url = "http://127.0.0.1:9090/api/v1/query?query=" + urllib.parse.quote(text)
    program = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=20).read().decode())"
    return json.loads(host.check_output("/usr/bin/python3 -c %s", program))["data"]["result"]


def local(host, port, path, method="GET"):
    """Status and content of a service on loopback."""
    program = (
        "import http.client; c = http.client.HTTPConnection('127.0.0.1', %d, timeout=20); c.request(%r, %r); r = c.getresponse(); "
        "print(r.status); print(r.read().decode())" % (port, method, path)
    )
    status, _separator, content = host.check_output("/usr/bin/python3 -c %s", program).partition("\n")
    return int(status), content


# --- who can ask


@pytest.mark.parametrize("port", [9090, 9093, 9094, 9099, 9115])
def test_nothing_but_the_page_answers_from_outside(host, address, port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=5)
    if port != 9094:
        host.check_output(f"ss -Hltn 'sport = :{port}' | grep -q 127.0.0.1:{port}")


def test_the_page_needs_a_login(address):
    for login in ("", "anna:wrong", "bert:Canary-4711-page"):
        for path in ("/", "/page.js", "/api/v1/query?query=up"):
            status, headers, content = ask(address, path, login=login)
            assert status == 401
            assert headers["WWW-Authenticate"].startswith("Basic")
            assert b"script" not in content
            assert b'"status"' not in content


def test_the_page_is_whole_and_asks_nobody_else(address):
    status, _headers, content = ask(address, "/")
    assert status == 200
    text = content.decode()
    assert "default-src 'none'" in text
    parts = re.findall(r'(?:src|href)="([^"]+)"', text)
    assert sorted(parts) == ["data:,", "page.css", "page.js"]
    for part, kind in (("page.css", "text/css"), ("page.js", "javascript")):
        status, headers, content = ask(address, f"/{part}")
        assert status == 200
        assert kind in headers["Content-Type"]
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", content)


@pytest.mark.parametrize("path", ["/api/v1/query?query=up", "/api/v1/query_range?query=up&start=1&end=2&step=1", "/api/v1/alerts"])
def test_questions_pass(address, path):
    status, _headers, content = ask(address, path)
    assert status == 200
    assert json.loads(content)["status"] == "success"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/-/reload"),
        ("PUT", "/-/quit"),
        ("GET", "/-/healthy"),
        ("GET", "/graph"),
        ("GET", "/metrics"),
        ("GET", "/federate?match[]=up"),
        ("POST", "/api/v1/admin/tsdb/delete_series?match[]=up"),
        ("POST", "/api/v1/admin/tsdb/snapshot"),
        ("GET", "/api/v1/status/config"),
        ("GET", "/api/v1/targets"),
        ("GET", "/api/v1/series?match[]=up"),
        ("GET", "/api/v1/query/../status/config"),
        ("GET", "/api/v1/query%2f..%2fstatus%2fconfig"),
        ("POST", "/api/v1/query"),
        ("DELETE", "/api/v1/query"),
        ("POST", "/"),
    ],
)
def test_nothing_else_passes(address, method, path):
    status, _headers, content = ask(address, path, method, body=b"query=up" if method == "POST" else None)
    assert status in (403, 404, 405), content
    assert b"Prometheus" not in content
    assert ask(address, path, method, login="")[0] in (401, 403)


def test_not_even_the_host_itself_can_stop_it_or_delete_history(host):
    for path in ("/-/reload", "/-/quit", "/api/v1/admin/tsdb/snapshot"):
        status, content = local(host, 9090, path, "POST")
        assert status in (403, 500, 503), content
        assert re.search("not enabled|disabled", content)


def test_who_is_on_the_host_cannot_ring_alarms(host):
    assert local(host, 9099, "/", "POST")[0] == 401


# --- what is watched


def test_everything_answers_and_is_verified(host):
    found = {(item["metric"]["job"], item["metric"]["host"]): item["value"][1] for item in query(host, 'up{job!="probe"}')}
    assert found == {
        ("prometheus", "watch-1"): "1", ("alertmanager", "watch-1"): "1", ("blackbox", "watch-1"): "1", ("alerts", "watch-1"): "1",
        ("node", "records-1"): "1",
    }  # fmt: skip
    assert query(host, 'civitas_memory_available_ratio{host="records-1",site="test"}')


def test_the_exporter_wants_the_certificate(host):
    """So that the pair of the role is what let it in."""
    records = json.loads((FOLDER / "addresses.json").read_text(encoding="utf-8"))["records"]
    done = host.run("echo | openssl s_client -connect %s:9998 -tls1_2 -CAfile /etc/civitas/ca.pem", records)
    assert "alert" in done.stderr, done.stderr


def test_probes_see_what_is_and_verify_it(host):
    found = {item["metric"]["probe"]: item["value"][1] for item in query(host, "probe_success")}
    assert found == {"page": "1", "certificate": "1", "untrusted": "0", "ssh": "1", "backup-1": "1"}
    assert {item["metric"]["host"] for item in query(host, 'probe_success{probe="ssh"}')} == {"records-1"}


def test_all_rules_are_evaluated(host):
    groups = json.loads(local(host, 9090, "/api/v1/rules")[1])["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {"HostSilent", "ProbeFailed", "DeadMan", "DiskFillingUp", "CertificateEnded"} <= {rule["name"] for rule in rules}
    assert [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"] == []


def test_history_is_bounded_by_the_disk(host):
    disk = int(host.check_output("df --output=size --block-size=1 /var/lib/prometheus").splitlines()[1])
    bound = disk // 4 // 2**20 * 2**20
    assert query(host, "prometheus_tsdb_retention_limit_bytes")[0]["value"][1] == str(bound)


def test_what_the_exporter_refused_was_put_back(host):
    """In between, the role was asked for a probe with an expression that is none."""
    assert "wrong" not in host.file("/etc/prometheus/blackbox.yml").content_string
    assert "probe/wrong" not in host.file("/etc/prometheus/prometheus.yml").content_string
    assert "error parsing config" in host.file("/srv/story/refusal.json").content_string.lower()
    assert query(host, "min(prometheus_config_last_reload_successful)")[0]["value"][1] == "1"


# --- who is told


@pytest.mark.parametrize(
    ("name", "where", "words"),
    [
        ("UnitDown", "records-1", "story.service"),
        ("UnitDown", "backup-1", "story.service"),
        ("DiskFillingUp", "records-1", "/srv/small is 71."),
        ("DiskFillingUp", "backup-1", "/srv/small is 71."),
        ("BackupOld", "records-1", "The last good backup is 2d 0h "),
        ("BackupOld", "backup-1", "The last good backup is 2d 0h "),
        ("CertificateEnded", "records-1", "The certificate story at file ended 1d "),
        ("HostSilent", "records-1", "records-1 does not answer"),
    ],
)
def test_what_went_wrong_was_told_once_in_words_and_then_that_it_is_over(real, mail, name, where, words):
    """By the monitoring of a host and by a host itself, and by both ways."""
    assert states(real, name, where) == ["new", "over"]
    (alert, message) = next((alert, message) for alert, message in real if (alert["name"], alert["host"]) == (name, where))
    assert alert["severity"] == "critical"
    assert words in alert["text"]
    assert f"CRITICAL: {where}: {alert['text']}" in message["text"]
    assert re.search(r"What to do: docs/runbooks/[a-z_]+\.md#[a-z-]+", message["text"])
    for lead in (f"CRITICAL: {where}: ", f"over: {where}: "):
        lines = [line for one in mail for line in one["text"].splitlines() if line.startswith(lead + words)]
        assert len(lines) == 1, lines


def test_mail_is_sent_over_tls_and_says_who(mail):
    assert {one["tls"] for one in mail} == {True}
    assert {address for one in mail for address in one["to"]} == {"administrators@records.test"}
    assert all(re.match(r"\[(records-1|backup-1|watch-1|[0-9] hosts)\] ", one["subject"]) for one in mail), [one["subject"] for one in mail]


def test_half_full_was_a_warning_and_not_told_again(real):
    warnings = [alert for alert, _message in real if (alert["name"], alert["state"]) == ("DiskHalfFull", "new")]
    assert [(alert["host"], alert["severity"]) for alert in warnings] == [("records-1", "warning")]
    assert "/srv/small is 51." in warnings[0]["text"]


def test_nothing_else_rang_while_the_host_was_away(real):
    rang = {alert["name"] for alert, _message in real if alert["host"] == "records-1"}
    wanted = {"UnitDown", "DiskHalfFull", "DiskFillingUp", "BackupOld", "CertificateEnded", "CertificateEndsWithin1Days", "HostSilent"}
    assert rang == wanted


def test_the_probe_that_does_not_hold_was_told(told):
    assert {alert["labels"]["probe"] for alert, _message in told if alert["name"] == "ProbeFailed"} == {"untrusted"}


def test_the_service_outside_hears_the_heartbeat_and_nothing_else(heard):
    beats = [one for one in heard if one["way"] == "heartbeat"]
    assert {beat["path"] for beat in beats} == {"/heartbeat/Canary-4711-beat"}
    assert len(beats) >= 3
    gaps = [after["time"] - before["time"] for before, after in itertools.pairwise(beats)]
    assert max(gaps) < 150, "a service that waits for two minutes and a half would have told people"
    assert {alert["labels"]["alertname"] for beat in beats for alert in beat["body"]["alerts"]} == {"DeadMan"}


def test_people_do_not_hear_the_heartbeat(told):
    assert [alert for alert, _message in told if alert["name"] == "DeadMan"] == []


def drilled(alert):
    return any("alarm-drill" in value for value in alert["labels"].values())


@pytest.mark.parametrize("where", ["records-1", "backup-1"])
def test_a_drill_is_heard_as_one_and_ends(host, told, mail, where):
    drills = [(alert, message) for alert, message in told if alert["host"] == where and drilled(alert)]
    names = {alert["name"] for alert, _message in drills}
    assert {"DiskFillingUp", "InodesUsedUp", "BackupOld", "CertificateEnded" if where == "records-1" else "MailVeryLate"} <= names
    for name in names:
        assert [alert["state"] for alert, _message in drills if alert["name"] == name] == ["new", "over"], name
    for alert, message in drills:
        assert f"{where}: {alert['text']}" in message["text"]
        (line,) = {line for line in message["text"].splitlines() if f"{where}: {alert['text']}" in line}
        assert line.startswith("DRILL, nothing is wrong: ")
    assert [one for one in mail if f"DRILL, nothing is wrong: CRITICAL: {where}: /var/lib/civitas/alarm-drill is" in one["text"]]
    said = (FOLDER / "drill.txt").read_text(encoding="utf-8")
    assert "heard, and that it is over: " in said and "rings after 30 minutes only" in said
    there = other(host, "servers" if where == "records-1" else "backups")
    assert there.run("mountpoint /var/lib/civitas/alarm-drill").rc != 0
    assert not there.file("/var/lib/civitas/metrics/alarm-drill.prom").exists


# --- what people see


@pytest.mark.parametrize(("name", "size"), [("desktop", (1280, 1500)), ("phone", (390, 1900))])
def test_a_browser_shows_the_page(name, size):
    """A blank page compresses to next to nothing; what it shows, the documentation has."""
    picture = (PICTURES / f"monitoring-{name}.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == size
    assert len(picture) > 20_000


# --- secrets, and the host


def test_no_secret_is_where_others_read(host):
    prometheus = [f"/etc/prometheus/alertmanager{name}" for name in (".yml", "-web.yml", ".password")]
    for path in (*prometheus, "/etc/civitas/site-alerts.json", "/etc/nginx/civitas/users/monitoring"):
        assert not host.file(path).mode & 0o007, path
    assert "Canary-4711" not in host.file("/etc/nginx/civitas/users/monitoring").content_string
    for secret in SECRETS:
        assert secret not in host.check_output("journalctl --no-pager -q -o cat")
        assert secret not in host.check_output("ps -eo args")
        assert secret not in local(host, 9090, "/api/v1/status/config")[1]
    assert local(host, 9093, "/api/v2/status")[0] == 401


@pytest.mark.parametrize("service", SERVICES)
def test_services_run_and_come_back(host, service):
    assert host.service(service).is_running
    assert host.service(service).is_enabled
    assert host.check_output(f"systemctl show -p Restart --value {service}") == "always"
    pid = host.check_output(f"systemctl show -p MainPID --value {service}")
    assert "NoNewPrivs:\t1" in host.file(f"/proc/{pid}/status").content_string
    assert host.check_output(f"systemctl show -p NRestarts --value {service}") == "0", "it fell over"


# --- what was promised


def resident(host, *units):
    """Megabytes in memory, of all processes of these units."""
    total = 0
    for unit in units:
        group = host.check_output(f"systemctl show -p ControlGroup --value {unit}")
        for pid in host.check_output(f"cat /sys/fs/cgroup{group}/cgroup.procs || cat /sys/fs/cgroup/systemd{group}/cgroup.procs").split():
            total += int(re.search(r"VmRSS:\s+(\d+)", host.file(f"/proc/{pid}/status").content_string)[1])
    return total // 1024


def test_memory(host):
    """What the documentation says, with room."""
    assert 20 < resident(host, *SERVICES) < 300
    records, backup = other(host, "servers"), other(host, "backups")
    assert 5 < resident(records, "prometheus-node-exporter", "prometheus-exporter-exporter") < 60
    # In the light mode nothing stays.
    assert backup.check_output("systemctl show -p Type --value civitas-metrics.service") == "oneshot"
    assert "exporter" not in backup.check_output("ps -eo args")


def test_the_report_has_the_figures_of_prometheus(host):
    deadline = time.time() + 330
    while not query(host, "civitas:probe_measured_seconds:5m"):
        assert time.time() < deadline, "nothing was recorded in five minutes"
        time.sleep(5)
    (path,) = (FOLDER / "reports").glob("sla-*.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["target"] == 99
    # The report was made before this test; it has what was recorded until then.
    for probe in report["probes"].values():
        for figures in probe.values():
            assert 0 <= figures["down"] <= figures["measured"]
    down = {item["metric"]["probe"]: float(item["value"][1]) for item in query(host, "civitas:probe_down_seconds:5m")}
    assert down["untrusted"] > 200
    assert down["backup-1"] == 0
    assert "Availability of what is probed" in path.with_suffix(".txt").read_text(encoding="utf-8")
