# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole server on Debian 12, from outside and inside. What it survives is proven by tests/demo on Debian 13."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tools.records import Records, Story

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])


@pytest.fixture(name="records")
def _records(host):
    address = next(address for address in host.interface("eth0").addresses if "." in address)
    return Records("www.records.example.org", 443, DIRECTORY / "ca.pem", address=address)


def test_the_job_is_done_through_the_public_name(records):
    records.wait(60)
    shown = subprocess.run(["ansible-vault", "view", str(DIRECTORY / "secrets.yml")], capture_output=True, text=True, check=True).stdout
    assert Story(records, ("admin", yaml.safe_load(shown)["app_demo_admin_password"])).is_kept()


def test_everything_runs_on_the_distribution_s_packages(host):
    assert host.check_output("docker --version").startswith("Docker version 20.10.")
    assert host.check_output("ls /usr/lib/postgresql") == "15"
    assert host.run("apt-get --just-print --quiet check").rc == 0
    assert host.check_output("dpkg --audit") == ""


def test_everything_comes_back_after_a_reboot(host):
    for unit in ("nginx", "postgresql", "docker", "chrony", "unattended-upgrades"):
        assert host.service(unit).is_enabled, unit
    assert host.check_output("docker inspect --format '{{.HostConfig.RestartPolicy.Name}}' $(docker ps --quiet)") == "unless-stopped"


def test_nobody_is_root_by_way_of_the_engine(host):
    assert host.group("docker").members == []


def test_the_container_has_few_rights(host):
    wanted = "{{.HostConfig.Privileged}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}"
    inspected = host.check_output(f"docker inspect --format '{wanted}' $(docker ps --quiet)")
    assert inspected == "false true [ALL] 10001:10001"


def test_what_others_may_write_did_not_change(host):
    """No role loosened a directory of the system."""
    assert host.check_output("find /etc /usr /srv /var/lib/civitas -xdev -perm -o+w ! -type l ! -perm -1000") == ""
