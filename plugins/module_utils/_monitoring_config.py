# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Prometheus, Alertmanager and the blackbox exporter read, made of the variables of the role monitoring.

Private to the collection: no promise of stability. Standard library only. The variables are those that were judged before,
without their prefix.
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils import _bcrypt
from ansible_collections.civitas.hosting.plugins.module_utils._alert_bridge import MOST, PEOPLE, USER

Config = t.Mapping[str, t.Any]
Made = t.Dict[str, t.Any]

# The services of this role, all on loopback.
PROMETHEUS = "127.0.0.1:9090"
ALERTMANAGER = "127.0.0.1:9093"
BLACKBOX = "127.0.0.1:9115"

# Who asks Alertmanager, by the token that it shows to the program that tells people: any user of the host could silence it otherwise.
PASSWORD_FILE = "/etc/prometheus/alertmanager.password"
LOGIN = {"basic_auth": {"username": USER, "password_file": PASSWORD_FILE}}
RULES = "/etc/prometheus/rules/*.yml"
CERTIFICATES = "/etc/civitas/certificates"
HEARTBEAT = "DeadMan"
# A host that goes mad, or an exporter that was exchanged, must not fill the disk of the one that watches.
LIMITS = {"sample_limit": 50000, "label_limit": 64, "body_size_limit": "32MB"}
MEGABYTE = 1024 * 1024
LEAST_MEGABYTES = 1024


def retention_megabytes(disk_bytes: int, share: float) -> int:
    """How large the history may grow: a share of the whole file system that it lies on, so that it is the same in each run.

    Raises:
        ValueError: the disk is too small.
    """
    megabytes = int(disk_bytes * share / MEGABYTE)
    if megabytes < LEAST_MEGABYTES:
        raise ValueError(
            f"{share:.0%} of the file system below /var/lib/prometheus are {megabytes} MB, and history needs {LEAST_MEGABYTES} MB; "
            "give it a larger disk, or write a larger monitoring_retention_share"
        )
    return megabytes


def prometheus(config: Config) -> Made:
    """The content of C(prometheus.yml)."""
    jobs = [
        _own(name, address, config)
        for name, address in (
            ("prometheus", PROMETHEUS),
            ("alertmanager", ALERTMANAGER),
            ("blackbox", BLACKBOX),
            ("alerts", f"127.0.0.1:{config['bridge_port']}"),
        )
    ]
    jobs += [_agent(target, module, config) for target in config["targets"] for module in _modules(target)]
    jobs += [_probe(probe, config) for probe in config["probes"]]
    return {
        "global": {"scrape_interval": f"{config['interval']}s", "scrape_timeout": "10s", "evaluation_interval": f"{config['interval']}s"},
        "rule_files": [RULES],
        "alerting": {"alertmanagers": [{**LOGIN, "static_configs": [{"targets": [ALERTMANAGER]}]}]},
        "scrape_configs": jobs,
    }


def _modules(target: Config) -> t.Sequence[str]:
    return target.get("modules") or ["node"]


def _own(name: str, address: str, config: Config) -> Made:
    labels = {"host": config["host_name"], "instance": name}
    login = LOGIN if address == ALERTMANAGER else {}
    return {"job_name": name, **login, **LIMITS, "static_configs": [{"targets": [address], "labels": labels}]}


def _agent(target: Config, module: str, config: Config) -> Made:
    # A job for each, as only jobs have a name for TLS; the label says what they have in common.
    labels = {**(target.get("labels") or {}), "job": module, "host": target["name"], "instance": target["name"]}
    pair = f"{CERTIFICATES}/{config['client_certificate']}"
    return {
        "job_name": f"{target['name']}/{module}",
        "scheme": "https",
        "metrics_path": "/proxy",
        "params": {"module": [module]},
        "tls_config": {
            "ca_file": config["ca_file"],
            "cert_file": f"{pair}/fullchain.pem",
            "key_file": f"{pair}/key.pem",
            "server_name": target.get("tls_name") or target["address"],
        },
        **LIMITS,
        "static_configs": [{"targets": [f"{_bracketed(str(target['address']))}:{target.get('port') or 9998}"], "labels": labels}],
    }


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _probe(probe: Config, config: Config) -> Made:
    name = probe["name"]
    labels = {
        "job": "probe",
        "instance": name,
        "probe": name,
        "target": str(probe["target"]),
        "host": probe.get("host") or config["host_name"],
    }
    return {
        "job_name": f"probe/{name}",
        "metrics_path": "/probe",
        "params": {"module": [name], "target": [str(probe["target"])]},
        **LIMITS,
        "static_configs": [{"targets": [BLACKBOX], "labels": labels}],
    }


# --- probes


def blackbox(config: Config) -> Made:
    """The content of C(blackbox.yml): a module for each probe."""
    return {"modules": {probe["name"]: _module(probe, config) for probe in config["probes"]}}


def _module(probe: Config, config: Config) -> Made:
    kind = probe["type"]
    options: Made = {"preferred_ip_protocol": probe.get("ip_protocol") or "ip4"}
    tls = {"ca_file": probe.get("ca_file") or config["ca_file"]}
    if probe.get("tls_name"):
        tls["server_name"] = probe["tls_name"]
    if kind == "http":
        if str(probe["target"]).startswith("https://"):
            # A redirect to plain HTTP is no answer.
            options.update({"fail_if_not_ssl": True, "tls_config": tls})
        if probe.get("statuses"):
            options.update({"valid_status_codes": [int(status) for status in probe["statuses"]], "follow_redirects": False})
        if probe.get("contains"):
            options["fail_if_body_not_matches_regexp"] = [re.escape(probe["contains"])]
    elif kind == "tls":
        options.update({"tls": True, "tls_config": tls})
    elif kind == "tcp" and probe.get("expect"):
        options["query_response"] = [{"expect": probe["expect"]}]
    prober = "tcp" if kind == "tls" else kind
    return {"prober": prober, "timeout": f"{probe.get('timeout') or 8}s", prober: options}


# --- alarms


def alertmanager_web(token: str) -> Made:
    """The content of C(alertmanager-web.yml): whom it answers."""
    return {"basic_auth_users": {USER: _bcrypt.digest(USER, token)}}


def alertmanager(config: Config, token: str) -> Made:
    """The content of C(alertmanager.yml).

    Args:
        token: what is shown to the program that tells people.
    """
    beat = int(config["heartbeat_minutes"])
    heartbeat: Made = {"name": "heartbeat"}
    if config["heartbeat_url"]:
        heartbeat["webhook_configs"] = [{"url": config["heartbeat_url"], "send_resolved": False, "max_alerts": 1}]
    people = {
        "url": f"http://127.0.0.1:{config['bridge_port']}/",
        "send_resolved": True,
        # What is left out, the program asks for by itself.
        "max_alerts": MOST,
        "http_config": {"authorization": {"credentials": token}},
    }
    return {
        "global": {"resolve_timeout": "5m"},
        "route": {
            "receiver": PEOPLE,
            "group_by": ["host", "severity"],
            "group_wait": "10s",
            # Who tells people gathers by itself; what is over is to be known soon.
            "group_interval": "1m",
            "repeat_interval": "4h",
            "routes": [
                {
                    "receiver": "heartbeat",
                    "matchers": [f'alertname="{HEARTBEAT}"'],
                    "group_by": ["alertname"],
                    "group_wait": "0s",
                    # It is told again at the first look that comes after the second time.
                    "group_interval": f"{beat}m",
                    "repeat_interval": f"{beat * 60 - 30}s",
                },
                {"receiver": PEOPLE, "matchers": ['severity="warning"'], "repeat_interval": "24h"},
            ],
        },
        # Which alarm says more than another, the program that tells people knows. It must hear of all: Alertmanager keeps silent of the
        # end of what it held back.
        "inhibit_rules": [],
        "receivers": [{"name": PEOPLE, "webhook_configs": [people]}, heartbeat],
    }
