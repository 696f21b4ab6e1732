# SPDX-License-Identifier: GPL-3.0-or-later
"""The way through a bastion: judged by what ssh itself and Ansible make of it."""

from __future__ import annotations

import os
import pathlib
import shlex
import stat
import subprocess
import sys

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.plugin_utils import _bastion_connection
from ansible_collections.civitas.hosting.plugins.plugin_utils._bastion_connection import BastionError, arguments, ssh_config

COLLECTION = pathlib.Path(__file__).resolve().parents[3]
HOSTS = {
    "gate": {"ansible_host": "192.0.2.1", "ansible_port": 2200, "ansible_user": "deploy"},
    "inner": {"ansible_host": "10.0.0.5"},
}


def hosts(**changes):
    return {name: {**values, **changes.get(name, {})} for name, values in HOSTS.items()}


def proxy(hostvars, host="inner"):
    """The words of the proxy command, as the shell that ssh starts sees them."""
    words = shlex.split(arguments(hostvars, host, "gate"))
    (command,) = [word.split("=", 1)[1] for word in words if word.startswith("ProxyCommand=")]
    return shlex.split(command)


def test_without_a_bastion_nothing_changes():
    assert arguments(hosts(), "inner", "") == ""
    assert arguments(hosts(inner={"ansible_ssh_extra_args": "-v"}), "inner", "") == "-v"


def test_the_bastion_itself_is_reached_directly():
    assert arguments(hosts(), "gate", "gate") == ""


def test_own_arguments_stay():
    assert arguments(hosts(inner={"ansible_ssh_extra_args": "-o ServerAliveInterval=9"}), "inner", "gate").startswith(
        "-o ServerAliveInterval=9 -o "
    )


def test_it_logs_in_as_ansible_would():
    words = proxy(hosts(gate={"ansible_ssh_private_key_file": "/keys/my key", "ansible_ssh_common_args": "-o UserKnownHostsFile=/known"}))
    assert words[:3] == ["ssh", "-W", "[%h]:%p"]
    assert words[-2:] == ["--", "192.0.2.1"]
    for setting in (
        "Port=2200",
        "User=deploy",
        'IdentityFile="/keys/my key"',
        "UserKnownHostsFile=/known",
        "StrictHostKeyChecking=yes",
        "BatchMode=yes",
    ):
        assert words[words.index(setting) - 1] == "-o"
    # Of two that say the same the first counts.
    assert words.index("UserKnownHostsFile=/known") < words.index("StrictHostKeyChecking=yes")


def test_ssh_understands_it():
    given = arguments(
        hosts(gate={"ansible_ssh_private_key_file": "/keys/100% mine", "ansible_ssh_common_args": "-o 'UserKnownHostsFile=/a b'"}),
        "inner",
        "gate",
    )
    shown = subprocess.run(["ssh", "-G", "-F", "none", *shlex.split(given), "10.0.0.5"], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in shown.splitlines() if line.startswith("proxycommand ")]
    assert "100%% mine" in line
    assert "[%h]:%p" in line


@pytest.mark.parametrize(
    "value", ["-J other", "-o ProxyJump=other", "-oProxyCommand='nc %h %p'", '-C -o "ProxyCommand ssh -W %h:%p x"', "-o proxyjump=x"]
)
@pytest.mark.parametrize("name", ["ansible_ssh_common_args", "ansible_ssh_extra_args", "ansible_ssh_args"])
def test_a_second_proxy_is_refused(name, value):
    with pytest.raises(BastionError, match=f"inner: {name} sets a proxy"):
        arguments(hosts(inner={name: value}), "inner", "gate")


@pytest.mark.parametrize("value", ["-o UserKnownHostsFile=/x/ProxyJumpers", "-i /keys/my-Jewel", "-o SetEnv=A=no-J"])
def test_what_only_looks_like_a_proxy_is_none(value):
    assert "ProxyCommand=" in arguments(hosts(inner={"ansible_ssh_common_args": value}), "inner", "gate")


@pytest.mark.parametrize(
    ("change", "bastion", "said"),
    [
        ({}, "gat", "no host of this inventory"),
        ({}, ["gate"], "no host of this inventory"),
        ({"gate": {"ansible_connection": "community.docker.docker"}}, "gate", "not reached by SSH"),
        ({"gate": {"civitas_bastion": "inner"}}, "gate", "behind another"),
    ],
)
def test_a_bastion_that_is_none(change, bastion, said):
    with pytest.raises(BastionError, match=said):
        arguments(hosts(**change), "inner", bastion)


def test_the_block_for_people(tmp_path):
    path = tmp_path / "config"
    path.write_text(ssh_config(hosts(), ["inner", "gate"], "gate"))
    shown = subprocess.run(["ssh", "-G", "-F", path, "inner"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"hostname 10.0.0.5", "proxyjump gate", "stricthostkeychecking true", "forwardagent no"} <= set(shown)
    shown = subprocess.run(["ssh", "-G", "-F", path, "gate"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"hostname 192.0.2.1", "port 2200"} <= set(shown)
    assert not [line for line in shown if line.startswith("proxyjump")]


def test_literal_percent_signs():
    assert _bastion_connection._literal("100%h") == "100%%h"


def test_a_play_with_the_file_of_variables(tmp_path):
    """A real run: a program in the place of ssh writes down what it was started with."""
    (tmp_path / "collections/ansible_collections/civitas").mkdir(parents=True)
    (tmp_path / "collections/ansible_collections/civitas/hosting").symlink_to(COLLECTION)
    fake = tmp_path / "ssh"
    fake.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" ENDE >> {tmp_path}/said\nexit 255\n')
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    inventory = {
        "all": {
            "vars": {"civitas_bastion": "gate", "ansible_ssh_executable": str(fake), "ansible_ssh_retries": 0},
            "hosts": {"gate": HOSTS["gate"], "inner": {**HOSTS["inner"], "ansible_ssh_common_args": "-o UserKnownHostsFile=/common"}},
        }
    }

    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.raw": "true"}]}
    play["vars_files"] = [str(COLLECTION / "playbooks/vars/connection.yml")]
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment = {
        **kept,
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
    }
    program = str(pathlib.Path(sys.executable).parent / "ansible-playbook")
    subprocess.run(
        [program, "-i", tmp_path / "hosts.yml", tmp_path / "play.yml"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    calls = [call.splitlines() for call in (tmp_path / "said").read_text().split("ENDE\n") if call]
    direct = [call for call in calls if "192.0.2.1" in call]
    through = [call for call in calls if "10.0.0.5" in call]
    assert direct and through
    assert not any(word.startswith("ProxyCommand") for call in direct for word in call)
    for call in through:
        (command,) = [word for word in call if word.startswith("ProxyCommand=")]
        assert command.endswith("-- 192.0.2.1")
        assert "UserKnownHostsFile=/common" in call
