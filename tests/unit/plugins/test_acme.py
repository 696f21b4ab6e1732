# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ACME client obtained and what is in use: told apart, brought together, or said. Certificates, store and installer are real."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import subprocess
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _acme


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host with one lineage, `edge`, that is not in use yet; systemd says that the last renewal went well."""
    monkeypatch.setattr(_acme, "LIVE", str(tmp_path / "live"))
    monkeypatch.setattr(_acme, "STORE", str(tmp_path / "store"))
    systemctl(tmp_path, "success")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    renew(tmp_path, "edge")
    configure(tmp_path, edge="acme", other="delivered")
    return tmp_path


def systemctl(folder, result):
    program = folder / "systemctl"
    program.write_text(f"#!/bin/sh\necho {result}\n")
    program.chmod(0o755)


def configure(folder, **sources):
    own = {"owner": pwd.getpwuid(os.getuid()).pw_name, "group": grp.getgrgid(os.getgid()).gr_name}
    certificates = [
        {"name": name, "hosts": ["records.test"], "source": source, "trust_file": str(folder / "root.pem"), **own}
        for name, source in sources.items()
    ]
    document = {"store": str(folder / "store"), "state_file": "/none", "metrics_file": "/none", "days": [], "critical_days": 7}
    document.update(patience=1, alert_command=[], certificates=certificates)
    (folder / "certificates.json").write_text(json.dumps(document))


def renew(folder, name):
    """A new certificate of a new root, as certbot leaves it."""
    live = folder / "live" / name
    live.mkdir(parents=True, exist_ok=True)

    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(
        "req",
        "-x509",
        *new,
        "-subj",
        "/CN=root",
        "-days",
        "90",
        "-addext",
        "keyUsage=keyCertSign",
        "-keyout",
        "root.key",
        "-out",
        "root.pem",
    )
    openssl("req", *new, "-subj", "/CN=records.test", "-keyout", live / "privkey.pem", "-out", "request.pem")
    (folder / "extensions").write_text(
        "subjectAltName=DNS:records.test\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nkeyUsage=digitalSignature\n"
    )
    sign = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "90", "-extfile", "extensions"]
    openssl("x509", "-req", "-in", "request.pem", *sign, "-out", live / "fullchain.pem")


def civitas_acme(host, *arguments):
    return _acme.main(arguments, str(host / "certificates.json"))


def test_what_was_obtained_is_brought_into_use_once(host, capsys):
    assert _acme.waiting(["edge"]) == ["edge"]
    assert civitas_acme(host, "deploy") == 0
    assert capsys.readouterr().out == "edge: the renewed certificate is in use\n"
    assert _acme.waiting(["edge"]) == []
    assert civitas_acme(host, "deploy") == 0
    assert capsys.readouterr().out == ""


def test_a_renewal_that_cannot_be_brought_into_use_is_told_and_tried_again(host, capsys):
    assert civitas_acme(host, "deploy") == 0
    before = _acme.fingerprint(str(host / "store" / "edge" / "fullchain.pem"))
    good_root = (host / "root.pem").read_text()
    renew(host, "edge")
    new_root = (host / "root.pem").read_text()
    (host / "root.pem").write_text(good_root)
    assert civitas_acme(host, "check") == 1
    assert "was renewed, but the new one is not in use" in capsys.readouterr().out
    assert civitas_acme(host, "deploy", "edge") == 1
    told = capsys.readouterr().out
    assert "openssl verify" in told
    assert "this is tried again with each run of certbot.service" in told
    assert _acme.fingerprint(str(host / "store" / "edge" / "fullchain.pem")) == before
    (host / "root.pem").write_text(new_root)
    assert civitas_acme(host, "deploy") == 0
    assert _acme.in_use("edge")
    assert civitas_acme(host, "check") == 0


@pytest.mark.parametrize("name", ["other", "foreign"])
def test_lineages_that_the_host_does_not_take_from_the_acme_server_are_left_alone(host, name):
    """The hook is run for every renewal, also for one whose certificate is delivered by now."""
    shutil.copytree(host / "live" / "edge", host / "live" / name)
    assert civitas_acme(host, "deploy", name) == 0
    assert not (host / "store").exists()


def test_what_is_missing_overdue_or_failed_is_seen(host, capsys):
    assert civitas_acme(host, "deploy") == 0
    assert civitas_acme(host, "check") == 0
    assert "edge: ends on 20" in capsys.readouterr().out
    assert _acme.check(["edge"], time.time() + 70 * 86400) == 1
    assert "should have been renewed" in capsys.readouterr().out
    systemctl(host, "exit-code")
    assert civitas_acme(host, "check") == 1
    assert "the last run of certbot.service failed (exit-code)" in capsys.readouterr().out
    configure(host, edge="acme", second="acme")
    assert civitas_acme(host, "check") == 1
    assert "second: was not obtained yet" in capsys.readouterr().out


def test_a_host_without_its_configuration_says_so(host, capsys):
    (host / "certificates.json").unlink()
    assert civitas_acme(host, "check") == 1
    assert "run the site playbook" in capsys.readouterr().out
    assert civitas_acme(host, "renew") == 2


def test_a_certificate_that_the_installer_does_not_know_is_not_installed(host):
    assert "does not name it" in _acme.install("foreign", str(host / "certificates.json"))
