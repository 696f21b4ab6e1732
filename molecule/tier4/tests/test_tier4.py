# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole server on Debian 12, from outside and inside. What it survives is proven by tests/demo on Debian 13."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from tools import scan
from tools.records import Records, Story

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
testinfra_hosts = ["ansible://servers"]


@pytest.fixture(name="records")
def _records(host):
    address = next(address for address in host.interface("eth0").addresses if "." in address)
    return Records("www.records.example.org", 443, DIRECTORY / "root.pem", address=address)


@pytest.fixture(name="addresses")
def _addresses():
    return json.loads((DIRECTORY / "addresses.json").read_text())


def test_the_server_is_reached_through_the_bastion_only(host, addresses):
    gates = [name for name in addresses if name.endswith("-gate")]
    if not gates:
        pytest.skip("DISTROS was given: there is no bastion")
    (gate,), server = gates, addresses[host.backend.get_hostname()]
    assert sorted(port for port, answer in scan.scan("", server, range(1, 65536)).items() if answer == "open") == [80, 443]
    assert [port for port, answer in scan.scan("", addresses[gate], range(1, 65536)).items() if answer == "open"] == [22]
    options = ["-o", f"UserKnownHostsFile={DIRECTORY / 'known_hosts'}", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    way = ["ssh", "-i", str(DIRECTORY / "automation"), *options]
    jump = f"ProxyCommand={' '.join([*way, '-W', '%h:%p', f'deploy@{addresses[gate]}'])}"
    seen = subprocess.run([*way, "-o", jump, f"deploy@{server}", "echo $SSH_CONNECTION"], capture_output=True, text=True, check=False)
    assert seen.stdout.split()[:1] == [addresses[gate]], seen.stderr
    # Nobody came another way.
    assert host.run(f"ss -Htn state established sport = :22 | grep -v {addresses[gate]}").rc == 1


def fingerprints(pem: str) -> list[str]:
    return [certificate.fingerprint(hashes.SHA256()).hex() for certificate in x509.load_pem_x509_certificates(pem.encode())]


def served(records) -> list[str]:
    """What the edge presents, leaf first."""
    command = ["openssl", "s_client", "-showcerts", "-connect", f"{records.address}:443", "-servername", records.name]
    return fingerprints(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=30).stdout)


def test_the_job_is_done_through_the_public_name(records):
    records.wait(60)
    shown = subprocess.run(["ansible-vault", "view", str(DIRECTORY / "secrets.yml")], capture_output=True, text=True, check=True).stdout
    assert Story(records, ("admin", yaml.safe_load(shown)["app_demo_admin_password"])).is_kept()


def test_people_get_the_delivered_certificate_with_its_chain_in_order(records):
    assert served(records) == fingerprints((DIRECTORY / "expected.pem").read_text())


def test_the_key_of_the_delivery_is_the_host_s_alone(host):
    key = host.file("/etc/civitas/certificates/edge/key.pem")
    assert (key.user, key.mode & 0o077) == ("root", 0)
    assert "ENCRYPTED" not in key.content_string
    assert host.run("grep -rlF 'a passphrase of this test' /etc /var/lib/civitas /usr/local /srv").stdout == ""


def test_a_bad_delivery_is_refused_before_the_host_is_touched(host, records):
    program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
    files = [str(DIRECTORY / "certificate" / name) for name in ("bad.pem", "key.pem")]
    command = [program, "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-e", json.dumps({"civitas_certificate_files": files})]
    # A host that answers nobody: whoever asked it would fail otherwise than with the problems.
    command += ["-e", "ansible_host=none.invalid", "civitas.hosting.site"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode != 0
    output = run.stdout + run.stderr
    for code in ("key_mismatch", "missing_intermediate", "name_mismatch"):
        assert f"{code}: " in output, output
    assert "No host was contacted, nothing was changed." in output
    assert output.count("PLAY [") == 1
    assert "a passphrase of this test" not in output
    assert served(records) == fingerprints((DIRECTORY / "expected.pem").read_text())


def test_everything_runs_on_the_distribution_s_packages(host):
    assert host.check_output("docker --version").startswith("Docker version 20.10.")
    assert host.check_output("ls /usr/lib/postgresql") == "15"
    assert host.run("apt-get --just-print --quiet check").rc == 0
    assert host.check_output("dpkg --audit") == ""


def test_everything_comes_back_after_a_reboot(host):
    for unit in ("nginx", "postgresql", "docker", "chrony", "unattended-upgrades"):
        assert host.service(unit).is_enabled, unit
    assert host.check_output("docker inspect --format '{{.HostConfig.RestartPolicy.Name}}' $(docker ps --quiet)") == "unless-stopped"


def test_containers_mail_and_that_of_the_host_wait_for_the_one_server_they_may_leave_by(host):
    container = host.check_output("docker ps --quiet")
    script = (
        "import smtplib; server = smtplib.SMTP('mail.internal', 25, timeout=20); "
        "server.sendmail('shop@elsewhere.example', ['parent@example.net'], 'Subject: from a container\\n\\nIt is ready.')"
    )
    assert host.run(f'docker exec {container} python3 -c "{script}"').rc == 0
    host.check_output("printf 'Subject: from cron\\n\\nsomething' | sendmail root")
    waiting = [json.loads(line) for line in host.check_output("postqueue -j").splitlines()]
    reached = {recipient["address"] for mail in waiting for recipient in mail["recipients"]}
    assert {"parent@example.net", "administrators@example.org"} <= reached
    assert host.run("civitas-mail check").rc == 0
    assert host.check_output("postconf -hx relayhost") == "[smarthost.example.org]:587"


def test_all_that_the_roles_of_the_server_run_is_measured(host):
    measured = host.check_output("cat /var/lib/civitas/metrics/host.prom")
    running = dict(re.findall(r'^civitas_unit_running{unit="(.*?)"} (\d)$', measured, re.M))
    assert {"nginx.service", "docker.service", "ssh.service", "postfix.service"} & set(running) >= {"nginx.service", "docker.service"}
    # That one is stopped, which test_watch.py hears of.
    assert running.pop("logrotate.timer")
    assert set(running.values()) == {"1"}, running
    assert 'civitas_container_running{project="demo",service="web"} 1' in measured


def another(host, group):
    """A host of a group that DISTROS leaves out."""
    names = host.ansible.get_variables()["groups"].get(group)
    if not names:
        pytest.skip("DISTROS was given: there is the server only")
    return testinfra.get_host(f"docker://{names[0]}")


def asked(watch, path):
    """What Prometheus answers on the host that watches."""
    program = f"import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:9090/api/v1/{path}', timeout=20).read().decode())"
    return json.loads(watch.check_output("/usr/bin/python3 -c %s", program))["data"]


def test_the_server_is_watched_by_what_all_its_roles_declare(host):
    watch = another(host, "monitoring")
    server, light = host.backend.get_hostname(), [another(host, group).backend.name for group in ("bastion", "backup")]
    jobs = [("node", server), ("postgres", server), ("nginx", server), ("node", watch.backend.name), ("nginx", watch.backend.name)]
    wanted = dict.fromkeys(jobs, "1")

    def up():
        found = {(item["metric"]["job"], item["metric"]["host"]): item["value"][1] for item in asked(watch, "query?query=up")["result"]}
        return {key: value for key, value in found.items() if key[0] in ("node", "postgres", "nginx")}

    # The site answers by its public names with a certificate that its people trust, and the hosts that judge themselves are there.
    answering = dict.fromkeys(["records.example.org", "www.records.example.org", *(f"ping-{name}" for name in light)], "1")

    def probed():
        return {item["metric"]["probe"]: item["value"][1] for item in asked(watch, "query?query=probe_success")["result"]}

    # Each is asked every minute, and a busy host answers late now and then.
    deadline = time.monotonic() + 180
    while (up() != wanted or probed() != answering) and time.monotonic() < deadline:
        time.sleep(2)
    assert up() == wanted and probed() == answering
    rules = [rule for group in asked(watch, "rules")["groups"] for rule in group["rules"] if rule["type"] == "alerting"]
    of_server = {
        rule["name"] for rule in rules if server in re.findall(r'[^"|]+', "".join(re.findall(r'host=~?"([^"]*)"', rule["query"])[:1]))
    }
    assert {"DiskHalfFull", "ContainerDown", "MailLate", "CertificateEnded", "SecondFactorMissing"} <= of_server
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    assert float(asked(watch, "query?query=sum(nginx_connections_accepted)")["result"][0]["value"][1]) > 0
    config = json.loads(watch.check_output("cat /etc/civitas/site-alerts.json"))
    assert [set(receiver) - {"name"} for receiver in config["receivers"]] == [{"email"}, {"webhook"}]


def test_a_site_that_is_closed_rings_nowhere_until_it_is_open_again(host):
    watch, server = another(host, "monitoring"), host.backend.get_hostname()
    program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")

    def maintenance(**values):
        command = [program, "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-e", json.dumps(values), "civitas.hosting.maintenance"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    maintenance(civitas_maintenance="on", civitas_maintenance_for="30m", civitas_maintenance_reason="release of a test")
    try:
        said = watch.run("civitas-site-alerts status").stdout
        assert f"ProbeFailed of {server}: held back until " in said and "release of a test" in said
        assert host.check_output("ls /etc/civitas/nginx/maintenance") != ""
    finally:
        maintenance(civitas_maintenance="off")
    assert "held back" not in watch.run("civitas-site-alerts status").stdout
    assert host.check_output("ls /etc/civitas/nginx/maintenance") == ""


def test_the_page_of_the_monitoring_is_for_its_people_only(host, addresses):
    watch = another(host, "monitoring")
    shown = subprocess.run(["ansible-vault", "view", str(DIRECTORY / "secrets.yml")], capture_output=True, text=True, check=True).stdout
    page = [
        "curl",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--cacert",
        str(DIRECTORY / "ca.pem"),
        "https://monitoring.records.example.org/",
    ]
    page += ["--connect-to", f"::{addresses[watch.backend.name]}:"]
    for login, status in (("", "401"), (f"anna:{yaml.safe_load(shown)['monitoring_page_anna']}", "200")):
        done = subprocess.run(
            [*page, "--config", "-"], input=f'user = "{login}"\n' if login else "", capture_output=True, text=True, check=True
        )
        assert done.stdout == status
    # From the server the site's own firewall and nginx let nobody in.
    reached = host.run(
        "curl -sk -m 10 -o /dev/null -w %%{http_code} https://%s/ -H 'Host: monitoring.records.example.org'", addresses[watch.backend.name]
    )
    assert reached.stdout != "200" and reached.stdout != "401"


def test_the_bastion_judges_itself_by_what_all_its_roles_declare(host):
    gate = another(host, "bastion")
    config = json.loads(gate.check_output("cat /etc/civitas/alerts.json"))
    assert {"DiskHalfFull", "MailLate", "SecondFactorMissing"} <= {rule["name"] for rule in config["rules"]}
    assert [set(receiver) - {"name"} for receiver in config["receivers"]] == [{"email"}, {"webhook"}]
    assert gate.run("civitas-alerts status").rc == 0, gate.run("civitas-alerts status").stdout
    assert host.run("test -e /etc/civitas/alerts.json && grep -q '\"receivers\": \\[{' /etc/civitas/alerts.json").rc == 1, (
        "the server would tell, too"
    )


def test_nobody_is_root_by_way_of_the_engine(host):
    assert host.group("docker").members == []


def test_the_container_has_few_rights(host):
    wanted = "{{.HostConfig.Privileged}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}"
    inspected = host.check_output(f"docker inspect --format '{wanted}' $(docker ps --quiet)")
    assert inspected == "false true [ALL] 10001:10001"


def test_what_others_may_write_did_not_change(host):
    """No role loosened a directory of the system."""
    assert host.check_output("find /etc /usr /srv /var/lib/civitas -xdev -perm -o+w ! -type l ! -perm -1000") == ""
