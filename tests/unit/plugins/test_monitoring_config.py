# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.monitoring_config import monitoring_config, monitoring_retention
from ansible_collections.civitas.hosting.plugins.filter.monitoring_problems import monitoring_problems

GOOD = {
    "host_name": "watch-1",
    "targets": [
        {
            "name": "records-1",
            "address": "10.0.0.5",
            "tls_name": "records-1.example.org",
            "modules": ["node", "postgres"],
            "labels": {"site": "a"},
        },
        {"name": "records-2", "address": "fd00::5", "port": 9443, "tls_name": None, "modules": None, "labels": None},
    ],
    "probes": [
        {"name": "site", "type": "http", "target": "https://records.example.org/", "host": "records-1"},
        {"name": "login", "type": "http", "target": "http://10.0.0.5:8080/login", "statuses": [302, "401"], "contains": "a.b (c)"},
        {"name": "ldap", "type": "tls", "target": "10.0.0.5:636", "tls_name": "ldap.example.org", "ca_file": "/etc/ssl/ldap.pem"},
        {"name": "ssh", "type": "tcp", "target": "[fd00::5]:22", "expect": "^SSH-2.0-", "timeout": 3},
        {"name": "ping", "type": "icmp", "target": "10.0.0.5"},
    ],
    "interval": 30,
    "ca_file": "/etc/civitas/ca.pem",
    "client_certificate": "monitoring-client",
    "retention_days": 400,
    "retention_share": 0.25,
    "receivers": [{"name": "team", "webhook": {"url": "https://chat.example.org/canary"}}],
    "mail_from": "monitoring@example.org",
    "runbooks": "docs/runbooks/",
    "bridge_port": 9099,
    "heartbeat_url": "https://hc.example.org/ping/canary-4711",
    "heartbeat_minutes": 5,
    "page_name": "monitoring.example.org",
    "page_users": [{"name": "anna", "password": "canary-4711-x"}],
}


def with_(key, **change):
    """GOOD with another first item of a list."""
    return {**GOOD, key: [{**GOOD[key][0], **change}, *GOOD[key][1:]]}


# --- what is wrong


def test_a_good_configuration_has_no_problem():
    assert monitoring_problems(GOOD) == []
    assert monitoring_problems({**GOOD, "targets": [], "probes": [], "heartbeat_url": "", "page_name": "", "page_users": []}) == []


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({**GOOD, "interval": 5}, "whole number from 15 to 300"),
        ({**GOOD, "interval": True}, "monitoring_interval is True"),
        ({**GOOD, "retention_days": "a year"}, "monitoring_retention_days"),
        ({**GOOD, "retention_share": 0.95}, "from 0.05 to 0.8"),
        ({**GOOD, "retention_share": "half"}, "from 0.05 to 0.8"),
        ({**GOOD, "ca_file": "ca.pem"}, "monitoring_ca_file is 'ca.pem'; write an absolute path"),
        ({**GOOD, "client_certificate": "../x"}, "monitoring_client_certificate"),
        ({**GOOD, "host_name": 'a"b'}, "monitoring_host_name"),
        ({**GOOD, "targets": [GOOD["targets"][0]] * 2}, "has the name records-1 twice"),
        (with_("targets", name="a b"), "monitoring_targets[0].name"),
        (with_("targets", address="10.0.0.5:9998"), "without a port"),
        (with_("targets", port=0), "records-1: port is 0"),
        (with_("targets", tls_name="a b"), "tls_name is 'a b'"),
        (with_("targets", modules=["node?"]), "names of exporters"),
        (with_("targets", modules=["node", "node"]), "node twice"),
        (with_("targets", labels={"host": "x"}), "none of job"),
        ({**GOOD, "probes": [GOOD["probes"][0]] * 2}, "has the name site twice"),
        (with_("probes", name="my site"), "monitoring_probes[0].name"),
        (with_("probes", type="udp"), "one of http, tcp, icmp, tls"),
        (with_("probes", target="records.example.org"), "an address such as https://"),
        (with_("probes", target="https://anna:" + "x@records.example.org/"), "holds a password"),
        (with_("probes", type="tcp", target="10.0.0.5"), "address:port"),
        (with_("probes", type="tls", target="10.0.0.5:70000"), "address:port"),
        (with_("probes", type="icmp", target="https://x/"), "an address or a name"),
        (with_("probes", type="tcp", target="10.0.0.5:22", statuses=[200]), "statuses is for http"),
        (with_("probes", expect="x"), "expect is for tcp"),
        (with_("probes", ca_file="ca.pem"), "ca_file is 'ca.pem'"),
        (with_("probes", timeout=30), "from 1 to 9"),
        (with_("probes", statuses=[20]), "from 100 to 599"),
        ({**GOOD, "receivers": [{"name": "team"}]}, "monitoring_receivers[0] has no way to reach it"),
        (with_("receivers", webhook={"url": "http://chat.example.org/canary"}), "it must be https"),
        ({**GOOD, "mail_from": "root"}, "monitoring_mail_from is 'root'"),
        ({**GOOD, "runbooks": "docs"}, "ends in /"),
        ({**GOOD, "bridge_port": 80}, "monitoring_bridge_port"),
        ({**GOOD, "heartbeat_url": "canary-4711"}, "monitoring_heartbeat_url is no address"),
        ({**GOOD, "heartbeat_minutes": 0}, "monitoring_heartbeat_minutes"),
        ({**GOOD, "page_name": "Monitoring.example.org"}, "a DNS name in lower case"),
        ({**GOOD, "page_users": []}, "nobody could see the page"),
        ({**GOOD, "page_users": GOOD["page_users"] * 2}, "anna twice"),
        (with_("page_users", name="a:b"), "page_users[0].name"),
        (with_("page_users", password="canary-4711"), "fewer than 12"),
    ],
)
def test_each_problem_says_what_to_write(config, expected):
    found = monitoring_problems(config)
    assert len(found) == 1, found
    assert expected in found[0]
    assert "canary" not in found[0]


# --- what is written


def jobs(config=None):
    return {job["job_name"]: job for job in monitoring_config(config or GOOD, "prometheus")["scrape_configs"]}


def test_each_exporter_of_a_host_is_asked_over_tls_with_a_certificate():
    job = jobs()["records-1/postgres"]
    assert (job["scheme"], job["metrics_path"], job["params"]) == ("https", "/proxy", {"module": ["postgres"]})
    assert job["tls_config"]["server_name"] == "records-1.example.org"
    assert job["tls_config"]["cert_file"] == "/etc/civitas/certificates/monitoring-client/fullchain.pem"
    assert "insecure_skip_verify" not in job["tls_config"]
    (static,) = job["static_configs"]
    assert static["targets"] == ["10.0.0.5:9998"]
    assert static["labels"] == {"site": "a", "job": "postgres", "host": "records-1", "instance": "records-1"}


def test_a_host_without_options_has_the_usual_ones():
    job = jobs()["records-2/node"]
    assert job["tls_config"]["server_name"] == "fd00::5"
    assert job["static_configs"][0]["targets"] == ["[fd00::5]:9443"]


def test_every_job_has_limits():
    assert all(job["sample_limit"] and job["body_size_limit"] for job in jobs().values())


def test_probes_are_of_the_host_that_they_tell_of():
    (static,) = jobs()["probe/site"]["static_configs"]
    assert static["labels"]["host"] == "records-1"
    assert jobs()["probe/ssh"]["static_configs"][0]["labels"]["host"] == "watch-1"
    assert jobs()["probe/site"]["params"] == {"module": ["site"], "target": ["https://records.example.org/"]}


def test_probes_verify_what_they_are_shown():
    modules = monitoring_config(GOOD, "blackbox")["modules"]
    assert modules["site"]["http"]["tls_config"] == {"ca_file": "/etc/civitas/ca.pem"}
    assert modules["site"]["http"]["fail_if_not_ssl"] is True
    assert modules["login"]["http"]["valid_status_codes"] == [302, 401]
    assert modules["login"]["http"]["fail_if_body_not_matches_regexp"] == [r"a\.b\ \(c\)"]
    assert "tls_config" not in modules["login"]["http"]
    assert modules["ldap"] == {
        "prober": "tcp",
        "timeout": "8s",
        "tcp": {
            "preferred_ip_protocol": "ip4",
            "tls": True,
            "tls_config": {"ca_file": "/etc/ssl/ldap.pem", "server_name": "ldap.example.org"},
        },
    }
    assert modules["ssh"]["tcp"]["query_response"] == [{"expect": "^SSH-2.0-"}]
    assert modules["ping"]["prober"] == "icmp"


def test_the_program_that_tells_people_hears_of_every_alarm():
    assert monitoring_config(GOOD, "alertmanager")["inhibit_rules"] == []


def test_people_hear_all_but_the_heartbeat():
    found = monitoring_config(GOOD, "alertmanager", "t")
    beat, warnings = found["route"]["routes"]
    assert (beat["receiver"], beat["group_interval"], beat["repeat_interval"]) == ("heartbeat", "5m", "270s")
    assert (found["route"]["repeat_interval"], warnings["repeat_interval"]) == ("4h", "24h")
    receivers = {receiver["name"]: receiver for receiver in found["receivers"]}
    assert receivers["people"]["webhook_configs"] == [
        {
            "url": "http://127.0.0.1:9099/",
            "send_resolved": True,
            "max_alerts": 1000,
            "http_config": {"authorization": {"credentials": "t"}},
        }
    ]
    assert receivers["heartbeat"]["webhook_configs"][0]["url"] == GOOD["heartbeat_url"]


def test_without_a_service_outside_the_heartbeat_goes_nowhere():
    receivers = monitoring_config({**GOOD, "heartbeat_url": ""}, "alertmanager")["receivers"]
    assert receivers[1] == {"name": "heartbeat"}


def test_alertmanager_answers_only_who_has_the_token():
    made = monitoring_config(GOOD, "alertmanager_web", "canary-4711")
    assert made == monitoring_config(GOOD, "alertmanager_web", "canary-4711")
    assert made["basic_auth_users"]["civitas"].startswith("$2b$") and "canary" not in str(made)
    login = {"username": "civitas", "password_file": "/etc/prometheus/alertmanager.password"}
    found = monitoring_config(GOOD, "prometheus")
    assert found["alerting"]["alertmanagers"][0]["basic_auth"] == login
    assert [job["job_name"] for job in found["scrape_configs"] if job.get("basic_auth") == login] == ["alertmanager"]


def test_another_program_is_an_error():
    with pytest.raises(AnsibleFilterError, match="write prometheus, blackbox, alertmanager or alertmanager_web"):
        monitoring_config(GOOD, "grafana")
    with pytest.raises(AnsibleFilterError, match="KeyError"):
        monitoring_config({}, "prometheus")


# --- how much history


@pytest.mark.parametrize(
    ("disk", "share", "expected"), [(40 * 1024**3, 0.25, 10240), (4 * 1024**3, 0.25, 1024), ("4398046511104", "0.5", 2097152)]
)
def test_history_takes_a_share_of_the_disk(disk, share, expected):
    assert monitoring_retention(disk, share) == expected


def test_a_disk_that_is_too_small_is_refused_with_what_to_do():
    with pytest.raises(AnsibleFilterError, match=r"25% of the file system .* are 768 MB, .* 1024 MB; .* larger monitoring_retention_share"):
        monitoring_retention(3 * 1024**3, 0.25)
