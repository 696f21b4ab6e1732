# SPDX-License-Identifier: GPL-3.0-or-later
"""A service model as it runs: confined, healthy, without its secrets anywhere but in their files."""

from __future__ import annotations

import json
import time

import pytest

CANARY = "Canary-4411-secret"


def run(host, command):
    done = host.run(command)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


def container(host):
    return json.loads(run(host, "docker inspect tiny-web-1"))[0]


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.3)


def healthy(host):
    done = host.run("docker inspect --format '{{.State.Health.Status}}' tiny-web-1")
    return done.stdout.strip() == "healthy"


@pytest.fixture(autouse=True)
def settled(host):
    wait_for(lambda: healthy(host))


def test_it_answers_on_loopback_and_nowhere_else(host):
    assert "hello" in run(host, "python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/').read())\"")
    assert [line for line in host.socket.get_listening_sockets() if line.endswith(":8000")] == ["tcp://127.0.0.1:8000"]


def test_it_is_confined(host):
    config = container(host)["HostConfig"]
    assert config["CapDrop"] == ["ALL"]
    assert config["ReadonlyRootfs"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["RestartPolicy"]["Name"] == "unless-stopped"
    assert config["LogConfig"] == {"Type": "local", "Config": {"max-file": "5", "max-size": "20m"}}
    pid = container(host)["State"]["Pid"]
    assert "CapEff:\t0000000000000000" in host.file(f"/proc/{pid}/status").content_string
    assert host.run("docker exec tiny-web-1 touch /etc/x").rc != 0
    assert host.run("docker exec tiny-web-1 touch /tmp/x").rc == 0


def test_the_host_has_a_name(host):
    assert (
        run(host, "docker exec tiny-web-1 python3 -c \"import socket; print(socket.gethostbyname('database.internal'))\"") == "172.30.0.1"
    )


def test_its_programs_trust_what_the_host_does(host):
    count = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    of_the_host = run(host, f'python3 -c "{count}"')
    assert int(of_the_host) > 50
    assert run(host, f'docker exec tiny-web-1 python3 -c "{count}"') == of_the_host


def test_the_secret_is_a_file_for_the_containers_user_only(host):
    secret = host.file("/etc/civitas/apps/tiny/secrets/greeting")
    assert (secret.uid, secret.mode, secret.content_string) == (10001, 0o400, CANARY)
    assert host.file("/etc/civitas/apps/tiny/secrets").mode == 0o700
    assert run(host, "docker exec tiny-web-1 cat /run/secrets/greeting") == CANARY


@pytest.mark.parametrize(
    "command",
    [
        "docker inspect tiny-web-1",
        "docker exec tiny-web-1 env",
        "docker image history --no-trunc $(docker inspect --format '{{.Image}}' tiny-web-1)",
        "cat /srv/civitas/apps/tiny/compose.yml",
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -v Canary-4411-grep",
        "journalctl --no-pager",
        "cat /var/lib/civitas/images.json /var/lib/civitas/apps/tiny/jobs.json",
    ],
)
def test_the_secret_is_nowhere_else(host, command):
    shown = run(host, command)
    assert shown
    assert "Canary" not in shown


def test_jobs_are_in_the_ledger(host):
    ledger = json.loads(host.file("/var/lib/civitas/apps/tiny/jobs.json").content_string)
    assert set(ledger) == {"prepare", "migrate"}
    assert {entry["rc"] for entry in ledger.values()} == {0}
    assert ledger["migrate"]["release"] == "1.0"
    assert host.file("/srv/trace/prepare").content_string == "x"


def test_no_job_leaves_a_container(host):
    assert run(host, "docker ps --all --format '{{.Names}}'") == "tiny-web-1"


def test_it_comes_back_after_its_process_was_killed(host):
    before = container(host)["State"]
    run(host, f"kill -9 {before['Pid']}")
    wait_for(lambda: container(host)["State"]["Pid"] not in (0, before["Pid"]))
    wait_for(lambda: healthy(host))


def test_it_does_not_notice_a_restart_of_the_engine(host):
    pid = container(host)["State"]["Pid"]
    run(host, "systemctl restart docker")
    assert container(host)["State"]["Pid"] == pid
    assert host.file(f"/proc/{pid}").exists
