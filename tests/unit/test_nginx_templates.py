# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge's configuration as each platform gets it, the ones included that cannot be run here. The sites are those of molecule/nginx."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles" / "nginx"
PLATFORMS = sorted(path.stem for path in (ROLE / "vars").glob("[A-Z]*.yml"))

PLAY = """
- hosts: all
  gather_facts: false
  vars_files:
    - "{{ role }}/defaults/main.yml"
    - "{{ role }}/vars/main.yml"
    - "{{ role }}/vars/{{ inventory_hostname }}.yml"
    - "{{ out }}/given.json"
  tasks:
    - ansible.builtin.copy:
        content: >-
          {%- set files = {} -%}
          {%- for source in query('fileglob', role ~ '/templates/root/etc/nginx/*.j2', role ~ '/templates/root/etc/nginx/civitas/*.j2') -%}
          {%- set _ = files.update({source | basename | regex_replace('[.]j2$', ''): lookup('ansible.builtin.template', source)}) -%}
          {%- endfor -%}
          {%- for site in nginx_sites -%}
          {%- set text = lookup('ansible.builtin.template', role ~ '/templates/site.conf.j2', template_vars={'site': site}) -%}
          {%- set _ = files.update({'site-' ~ site.name ~ '.conf': text}) -%}
          {%- endfor -%}
          {{ files | to_json }}
        dest: "{{ out }}/{{ inventory_hostname }}.json"
"""


@pytest.fixture(name="rendered", scope="module")
def _rendered(tmp_path_factory):
    """A function from values of the role's variables to (platform, file) -> text."""

    def render(**given):
        folder = tmp_path_factory.mktemp("edge")
        scenario = yaml.safe_load((ROOT / "molecule/nginx/molecule.yml").read_text(encoding="utf-8"))
        values = scenario["provisioner"]["inventory"]["group_vars"]["servers"]
        (folder / "given.json").write_text(json.dumps({**values, **given}), encoding="utf-8")
        (folder / "play.yml").write_text(PLAY, encoding="utf-8")
        (folder / "inventory").write_text("".join(f"{name} ansible_connection=local\n" for name in PLATFORMS), encoding="utf-8")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "inventory"), str(folder / "play.yml"),
             "-e", json.dumps({"role": str(ROLE), "out": str(folder), "ansible_python_interpreter": sys.executable})],
            env={**os.environ, "MOLECULE_EPHEMERAL_DIRECTORY": str(folder), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_GATHERING": "explicit"},
            cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        rendered = {platform: json.loads((folder / f"{platform}.json").read_text(encoding="utf-8")) for platform in PLATFORMS}
        return {(platform, name): text for platform in PLATFORMS for name, text in rendered[platform].items()}

    return render


@pytest.fixture(name="files", scope="module")
def _files(rendered):
    return rendered()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_gets_what_its_nginx_knows(files, platform):
    own = {name: text for (of, name), text in files.items() if of == platform}
    assert set(own) == {
        *("nginx.conf", "acme.conf", "headers.conf", "proxy.conf"),
        *(f"site-{name}.conf" for name in ("records", "apps", "closed", "users", "maybe", "lost")),
    }
    everything = "\n".join(own.values())
    assert everything.count("{") == everything.count("}")
    assert ("http2 on;" in everything) == (platform == "Debian_13")
    assert (":443 ssl http2" in everything) == (platform != "Debian_13")
    assert ("ssl_reject_handshake on;" in everything) == (platform != "Ubuntu_22")
    assert ("MLKEM" in everything) == (platform == "Debian_13")
    # Every server on the TLS port that ends a handshake has a certificate.
    for server in re.findall(r"(?ms)^ *server \{$.*?^ *include|^server \{$.*?^\}", everything):
        if " ssl" in server:
            assert "ssl_certificate_key " in server or "ssl_reject_handshake on;" in server


def test_the_releases_without_a_machine_here_differ_in_known_lines_only(files):
    assert [files["Ubuntu_24", name] == files["Debian_12", name] for name in ("nginx.conf", "site-records.conf")] == [True, True]
    assert files["Ubuntu_22", "site-records.conf"] == files["Debian_12", "site-records.conf"]
    lines = [set(files[platform, "nginx.conf"].splitlines()) for platform in ("Ubuntu_22", "Debian_12")]
    assert {line.strip().split()[0] for line in lines[0] ^ lines[1]} == {"ssl_reject_handshake", "ssl_certificate", "ssl_certificate_key"}


def test_modern_is_the_newest_protocol_alone(rendered):
    files = rendered(nginx_tls_profile="modern")
    for platform in PLATFORMS:
        assert "ssl_protocols TLSv1.3;" in files[platform, "nginx.conf"]
        assert "ssl_ciphers" not in files[platform, "nginx.conf"]


def test_behind_a_balancer_nothing_speaks_tls(rendered):
    files = rendered(nginx_tls_mode="upstream", nginx_load_balancers=["10.0.0.7"])
    for platform in PLATFORMS:
        texts = "\n".join(text for (of, _name), text in files.items() if of == platform)
        assert not re.search(r"ssl_certificate|listen [^;]*(443| ssl)", re.sub(r"ssl_client_certificate", "", texts))
        sites = [text for (of, name), text in files.items() if of == platform and name.startswith("site-")]
        assert all("if ($civitas_stranger_in_front)" in text for text in sites)
        assert "set_real_ip_from 10.0.0.7;" in texts and texts.count("set_real_ip_from") == 1


def test_the_counts_are_for_the_host_itself(files, rendered):
    counting = rendered(nginx_status_port=9112)
    for platform in PLATFORMS:
        assert "stub_status" not in files[platform, "nginx.conf"]
        text = counting[platform, "nginx.conf"]
        assert "listen 127.0.0.1:9112;" in text and re.findall(r"listen [^;]*9112[^;]*;", text) == ["listen 127.0.0.1:9112;"]


def test_an_empty_list_of_networks_is_nobody(rendered):
    """It is refused before; should it ever come here, nobody gets in."""
    files = rendered(civitas_test_networks=[])
    text = files["Debian_13", "site-closed.conf"]
    assert re.search(r'geo \$civitas_outside_closed \{\s+default 1;\s+127\.0\.0\.1 "";\s+::1 "";\s+\}', text)
    assert text.count("if ($civitas_outside_closed)") == 2


def test_a_site_with_an_address_of_its_own_hides_no_other(rendered):
    """nginx asks the sites of the address that a connection came to, and no others."""
    scenario = yaml.safe_load((ROOT / "molecule/nginx/molecule.yml").read_text(encoding="utf-8"))
    sites = scenario["provisioner"]["inventory"]["group_vars"]["servers"]["civitas_test_sites"]
    sites = [
        {**site, "listen_addresses": ["10.8.0.1"]} if site["name"] == "closed" else site
        for site in sites
        if site["name"] in ("closed", "lost")
    ]
    files = rendered(nginx_sites=sites)
    for name, addresses in {"closed": ["10.8.0.1"], "lost": ["0.0.0.0", "[::]", "10.8.0.1"]}.items():
        assert re.findall(r"listen (\S+):443", files["Debian_13", f"site-{name}.conf"]) == addresses
    assert re.findall(r"listen (\S+):443", files["Debian_13", "nginx.conf"]) == ["0.0.0.0", "[::]", "10.8.0.1"]


def test_a_password_is_asked_for_by_the_whole_site_and_not_handed_on(rendered):
    location = {"path": "/api/v1/query", "upstream": "http://127.0.0.1:9090"}
    site = {"name": "watch", "server_names": ["watch.records.test"], "certificate": "further", "locations": [location]}
    users = [{"name": "anna", "digest": "$6$salt$x"}]
    closed = {**site, "basic_auth": {"users": users}, "locations": [{**location, "exact": True, "methods": ["GET"]}]}
    files = rendered(nginx_sites=[closed])
    for platform in PLATFORMS:
        text = files[platform, "site-watch.conf"]
        server = text[text.index(" ssl") :]
        assert server.index("auth_basic_user_file /etc/nginx/civitas/users/watch;") < server.index("location ")
        assert "location = /api/v1/query {\n        limit_except GET {\n            deny all;" in text
        assert text.count('proxy_set_header Authorization "";') == 1
        assert "$6$" not in text
    open_to_all = rendered(nginx_sites=[site])["Debian_13", "site-watch.conf"]
    assert not re.search("auth_basic|limit_except|Authorization|location = /api", open_to_all)
