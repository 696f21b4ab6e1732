# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import copy

import pytest
from ansible_collections.civitas.hosting.plugins.filter.app_model import app_model
from ansible_collections.civitas.hosting.plugins.module_utils._app_model import port_problem

GOOD = {
    "name": "demo",
    "services": {
        "web": {
            "image": "civitas/kinto:1",
            "ports": ["127.0.0.1:8888:8888", "[::1]:8888:8888", {"target": 80, "published": 81, "host_ip": "127.0.0.1"}],
            "environment": {"PASSWORD_FILE": "/run/secrets/password", "TOKEN": "", "PASSWORD_LENGTH": 12, "PRICE": "5$$"},
            "secrets": ["password", {"source": "key", "target": "/key"}],
            "configs": [{"source": "page", "target": "/page"}],
            "volumes": ["data:/data", "/srv/x:/x:ro", {"type": "volume", "source": "more", "target": "/more"}],
            "healthcheck": {"test": ["CMD", "true"]},
        },
        "worker": {"image": "worker:2", "healthcheck": {"test": "true"}, "read_only": False, "cap_drop": [], "extra_hosts": ["a:10.0.0.1"]},
    },
    "images": [{"name": "civitas/kinto:1", "archive": "/x.tar", "sha256": "0" * 64}],
    "secrets": ["password", "key"],
    "files": ["page"],
    "jobs": [{"name": "migrate", "service": "web", "command": ["sh", "-c", "echo $HOME"], "run": "every_release"}],
    "ca_file": "/etc/civitas/ca.pem",
    "trust_file": "",
    "secrets_directory": "/s",
    "files_directory": "/f",
}


def changed(path, value):
    """GOOD with one value changed; the path's parts are separated by dots."""
    app = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    target = app
    for part in parents:
        target = target[part]
    target[last] = value
    return app


def test_a_good_model_is_completed():
    model = app_model(GOOD)
    assert model["problems"] == []
    web, worker = model["compose"]["services"]["web"], model["compose"]["services"]["worker"]
    assert model["compose"]["name"] == "demo"
    assert (web["cap_drop"], web["read_only"], web["tmpfs"], web["restart"]) == (["ALL"], True, ["/tmp"], "unless-stopped")
    assert (web["security_opt"], web["pull_policy"]) == (["no-new-privileges:true"], "never")
    assert web["volumes"][-1]["target"] == "/run/civitas/ca.pem"
    assert web["volumes"][-1]["bind"] == {"create_host_path": False}
    assert web["extra_hosts"] == ["database.internal:host-gateway", "mail.internal:host-gateway"]
    # What the service says itself wins.
    assert (worker["cap_drop"], worker["read_only"], "tmpfs" in worker) == ([], False, False)
    assert worker["extra_hosts"] == ["a:10.0.0.1", "database.internal:host-gateway", "mail.internal:host-gateway"]
    assert model["compose"]["secrets"] == {"password": {"file": "/s/password"}, "key": {"file": "/s/key"}}
    assert model["compose"]["configs"] == {"page": {"file": "/f/page"}}
    assert model["compose"]["volumes"] == {"data": None, "more": None}


def test_images_that_only_services_name_are_pulled():
    assert app_model(GOOD)["images"] == [*GOOD["images"], {"name": "worker:2"}]


def test_the_given_model_is_left_alone():
    before = copy.deepcopy(GOOD)
    app_model(GOOD)
    assert before == GOOD


def test_the_host_s_list_of_authorities_is_mounted_on_request():
    volumes = app_model(changed("trust_file", "/etc/ssl/certs/ca-certificates.crt"))["compose"]["services"]["worker"]["volumes"]
    assert [volume["target"] for volume in volumes] == ["/run/civitas/ca.pem", "/run/civitas/trust.pem"]
    assert volumes[1] == {**volumes[0], "source": "/etc/ssl/certs/ca-certificates.crt", "target": "/run/civitas/trust.pem"}
    assert volumes[1]["read_only"] is True


def test_without_a_ca_nothing_is_mounted():
    assert app_model(changed("ca_file", ""))["compose"]["services"]["worker"].get("volumes") is None


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("name", "Demo", "cannot name a project"),
        ("services", {}, "app_services is empty"),
        ("services.web.image", None, "app_services.web.image: is missing"),
        ("services.web.image", "kinto:latest", "write the tag of one release"),
        ("services.web.image", "kinto", "write repository:tag"),
        ("services.web.healthcheck", None, "app_services.web.healthcheck: is missing"),
        ("services.web.healthcheck", {"disable": True, "test": ["CMD"]}, "app_services.web.healthcheck: is missing"),
        ("services.web.build", ".", "app_services.web.build"),
        ("services.web.privileged", True, "app_services.web.privileged"),
        ("services.web.network_mode", "host", "app_services.web.network_mode"),
        ("services.web.networks", ["other"], "app_services.web.networks"),
        ("services.web.container_name", "x", "app_services.web.container_name"),
        ("services.web.restart", "no", "app_services.web.restart"),
        ("services.web.ports", ["8888:8888"], "would be open to everybody"),
        ("services.web.environment", {"DB_PASSWORD": "canary"}, "app_services.web.environment.DB_PASSWORD: looks like a secret"),
        ("services.web.environment", ["api_key=canary"], "app_services.web.environment.api_key: looks like a secret"),
        ("services.web.environment", {"URL": "postgres://me:canary@db/x"}, "app_services.web.environment.URL: looks like a secret"),
        ("services.web.environment", {"X": "$HOME"}, "app_services.web.environment.X: Compose would replace"),
        ("services.web.command", ["echo", "$$$X"], "app_services.web.command: Compose would replace"),
        ("services.web.secrets", ["none"], "'none' is not in app_secrets"),
        ("services.web.configs", ["none"], "'none' is not in app_files"),
        ("services.web.volumes", ["/var/run/docker.sock:/d"], "hands the engine or the whole host"),
        ("services.web.volumes", [{"type": "bind", "source": "/", "target": "/host"}], "hands the engine or the whole host"),
        ("services.web.devices", ["/dev/kvm"], "app_services.web.devices"),
        ("services.web.device_cgroup_rules", ["a *:* rwm"], "app_services.web.device_cgroup_rules"),
        ("services.web.ipc", "host", "app_services.web.ipc"),
        ("services.web.uts", "host", "write hostname"),
        ("services.web.cgroup", "host", "app_services.web.cgroup"),
        ("services.web.security_opt", ["seccomp:unconfined"], "takes the engine's confinement away"),
        ("services.web.security_opt", ["apparmor=unconfined"], "takes the engine's confinement away"),
        ("services.web.security_opt", ["no-new-privileges:false"], "write no-new-privileges:true"),
        ("services.web.security_opt", ["no-new-privileges=false"], "write no-new-privileges:true"),
        ("services.web", "civitas/kinto:1", "is no mapping"),
        ("secrets", ["password", "key", "../x"], "'../x' cannot name a file"),
        ("secrets", ["password", "key", "key"], "'key' is listed twice"),
        ("images", [{"name": "a:1", "archive": "/x"}], "app_images: image 'a:1' has an archive but no sha256"),
        ("jobs", [{"name": "a", "service": "none", "command": "x"}], "there is no service 'none'; write one of web, worker"),
        ("jobs", [{"name": "a", "service": "web", "command": "x", "run": "daily"}], "'daily' is unknown"),
        ("jobs", [{"name": "a", "service": "web", "command": "x", "secrets": ["none"]}], "there is no 'none' in app_secrets"),
        ("jobs", [{"name": "a", "service": "web", "command": "x"}] * 2, "'a' is listed twice"),
        ("jobs", [{"name": "a b", "service": "web", "command": "x"}], "cannot name a job"),
    ],
)
def test_a_problem_is_named_and_nothing_is_rendered(path, value, expected):
    model = app_model(changed(path, value))
    assert [problem for problem in model["problems"] if expected in problem], model["problems"]
    assert "canary" not in str(model["problems"])
    assert (model["compose"], model["images"]) == ({}, [])


@pytest.mark.parametrize("capability", ["SYS_ADMIN", "all", "CAP_SYS_PTRACE", "SYS_MODULE", "net_admin"])
def test_capabilities_that_are_as_good_as_root_are_refused(capability):
    (problem,) = app_model(changed("services.web.cap_add", ["CHOWN", capability]))["problems"]
    assert f"app_services.web.cap_add: {capability} is as good as root" in problem


@pytest.mark.parametrize(
    "source",
    [
        *(
            "/",
            "/etc",
            "/var",
            "/proc",
            "/sys",
            "/dev",
            "/run",
            "/var/run",
            "/var/lib",
            "/var/lib/docker",
            "/root",
            "/boot",
            "/usr",
            "/home",
        ),
        *("//run", "///run", "/./run/", "/srv/../run", "/run/docker.sock", "//var/run/./docker.sock", "/x/docker.sock", "/proc/1/root"),
        *(
            "/var/lib/docker/volumes/",
            "/root/.ssh",
            "/run/containerd/containerd.sock",
            "~",
            "~/.ssh",
            "../../../../etc",
            "./../../../../run/",
        ),
    ],
)
def test_the_host_is_not_mounted_however_it_is_spelled(source):
    for volume in (f"{source}:/x:ro", {"type": "bind", "source": source, "target": "/x"}):
        (problem,) = app_model(changed("services.web.volumes", [volume]))["problems"]
        assert "hands the engine or the whole host" in problem


@pytest.mark.parametrize(
    "source", ["/srv/x", "//srv/x/", "/etc/localtime", "/run/postgresql", "/homes", "/rooted", "./data", "etc", "root"]
)
def test_other_sources_are_mounted(source):
    assert app_model(changed("services.web.volumes", [f"{source}:/x"]))["problems"] == []


def test_what_confines_is_not_refused():
    service = {"cap_add": ["CHOWN", "NET_BIND_SERVICE"], "ipc": "private", "security_opt": ["no-new-privileges:true", "apparmor=mine"]}
    assert app_model(changed("services.web", {**GOOD["services"]["web"], **service}))["problems"] == []


def test_all_problems_come_at_once():
    app = changed("services.web", {"image": "a:latest", "ports": ["1:1"], "privileged": True})
    assert len(app_model(app)["problems"]) >= 4


@pytest.mark.parametrize(
    "port", ["127.0.0.1:1:2", "127.9.9.9:1:2/udp", "[::1]:1:2", {"host_ip": "::1", "target": 1}, "127.0.0.1:8000-8001:8000-8001"]
)
def test_loopback_ports_pass(port):
    assert port_problem(port) == ""


@pytest.mark.parametrize(
    "port",
    [
        "80",
        80,
        "80:80",
        "80:80/tcp",
        "0.0.0.0:80:80",
        "[::]:80:80",
        "10.0.0.1:1:1",
        "localhost:1:1",
        {"target": 80},
        {"target": 80, "host_ip": "0.0.0.0"},
        ":1:1",
    ],
)
def test_other_ports_are_refused(port):
    assert "only the edge is public" in port_problem(port)
