# SPDX-License-Identifier: GPL-3.0-or-later
"""What containers get from the engine, what they open, and what they survive."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._metrics_containers import parse

# A root file system with one program and its libraries.
IMAGE = """
set -e
docker image inspect tiny:1 >/dev/null 2>&1 ||
  tar -C / --dereference -cf - usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*' | cut -c2-) | docker import - tiny:1 >/dev/null
"""


def run(host, command):
    done = host.run(command)
    assert done.rc == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def container(host):
    """Starts containers that sleep; removes them afterwards."""
    run(host, IMAGE)
    names = []

    def start(*options):
        names.append(f"test-{len(names)}")
        run(host, f"docker run --detach --name {names[-1]} {' '.join(options)} tiny:1 /usr/bin/sleep 3600")
        return json.loads(run(host, f"docker inspect {names[-1]}"))[0]

    yield start
    for name in names:
        host.run(f"docker rm --force {name}")


def allow_a_start(host):
    """The unit may be started three times a minute; the tests before this one may have used them up."""
    run(host, "systemctl reset-failed docker.service")


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.3)
    return result


def test_the_engine_runs_and_is_enabled(host):
    assert host.service("docker").is_running
    assert host.service("docker").is_enabled


def test_compose_is_version_2(host):
    assert run(host, "docker compose version --short").lstrip("v").startswith("2.")


def test_nobody_is_in_the_group_docker(host):
    assert host.group("docker").members == []


def test_the_bridge_has_its_address(host):
    assert "172.30.0.1" in host.interface("docker0").addresses


def test_networks_come_from_the_pool(host):
    run(host, "docker network create test")
    try:
        subnet = json.loads(run(host, "docker network inspect test"))[0]["IPAM"]["Config"][0]["Subnet"]
    finally:
        run(host, "docker network rm test")
    assert subnet == "172.30.128.0/24"


def test_logs_are_bounded(container):
    assert container()["HostConfig"]["LogConfig"] == {"Type": "local", "Config": {"max-file": "5", "max-size": "20m"}}


def test_a_log_without_bounds_is_noticed(host, container):
    """By what measures hosts: one that somebody started beside what the engine prescribes."""
    loud = container("--log-driver json-file")
    assert loud["HostConfig"]["LogConfig"]["Config"].get("max-size") is None
    assert not parse(loud).log_bounded
    assert parse(container()).log_bounded


def test_containers_gain_no_privileges(host, container):
    pid = container()["State"]["Pid"]
    assert "NoNewPrivs:\t1" in host.file(f"/proc/{pid}/status").content_string


def test_a_port_without_an_address_is_open_on_loopback_only(host, container):
    container("--publish 18080:80")
    assert host.socket("tcp://127.0.0.1:18080").is_listening
    assert [line for line in host.socket.get_listening_sockets() if line.endswith(":18080")] == ["tcp://127.0.0.1:18080"]


def test_the_same_in_a_network_of_an_application(host, container):
    if host.system_info.release == "12":
        pytest.skip("the engine of Debian 12 cannot set it for all networks; the role app refuses such ports")
    run(host, "docker network create test")
    try:
        container("--network test --publish 18081:80")
        assert [line for line in host.socket.get_listening_sockets() if line.endswith(":18081")] == ["tcp://127.0.0.1:18081"]
        host.run("docker rm --force test-0")
    finally:
        run(host, "docker network rm test")


def test_containers_outlive_a_restart_of_the_engine(host, container):
    pid = container()["State"]["Pid"]
    allow_a_start(host)
    run(host, "systemctl restart docker")
    assert json.loads(run(host, "docker inspect test-0"))[0]["State"]["Pid"] == pid
    assert host.file(f"/proc/{pid}").exists


def test_the_engine_comes_back_after_a_crash_and_containers_do_not_notice(host, container):
    pid = container()["State"]["Pid"]
    engine = run(host, "systemctl show --property MainPID --value docker")
    allow_a_start(host)
    run(host, f"kill -9 {engine}")
    wait_for(lambda: host.run("docker info").rc == 0 and run(host, "systemctl show --property MainPID --value docker") != engine)
    assert json.loads(run(host, "docker inspect test-0"))[0]["State"]["Pid"] == pid
