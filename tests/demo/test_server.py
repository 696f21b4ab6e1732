# SPDX-License-Identifier: GPL-3.0-or-later
"""What must not be: open doors, secrets in sight, a status that says yes when something is down."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tools import bed, kinto_image, scan

from .conftest import ROOT, SETTINGS, Demo

HOST = SETTINGS["CIVITAS_DEMO_HOST"]


def server_address() -> str:
    return bed.docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", HOST)


def test_from_outside_only_ssh_and_the_edge_answer(demo: Demo) -> None:
    answers = scan.scan("", server_address(), range(1, 65536))
    assert sorted(port for port, answer in answers.items() if answer == "open") == [22, 80, 443]
    # Behind the firewall nothing is there to refuse.
    assert "refused" not in answers.values()


def test_listening_sockets_are_the_declared_ones(demo: Demo) -> None:
    listening = {line.split()[3] for line in demo.on_server("ss", "-Hltn").splitlines()}
    beyond = {address for address in listening if not address.startswith(("127.", "[::1]"))}
    assert {address.rsplit(":", 1)[1] for address in beyond} == {"22", "80", "443", "5432", "10053"}
    # The database and the resolver are there for containers only.
    assert {address for address in beyond if address.endswith((":5432", ":10053"))} == {"172.30.0.1:5432", "172.30.0.1:10053"}


def psql(demo: Demo, host: str, options: str, password: str) -> str:
    return demo.on_server(
        "env", f"PGPASSWORD={password}", "psql", f"host={host} user=kinto dbname=kinto connect_timeout=5 {options}", "-XAtc",
        "SELECT ssl AND version >= 'TLSv1.2' FROM pg_stat_ssl WHERE pid = pg_backend_pid()", check=False,
    )  # fmt: skip


def test_the_database_wants_verified_tls_and_the_right_password(demo: Demo) -> None:
    password = demo.secrets["app_demo_database_password"]
    verified = "sslmode=verify-full sslrootcert=/etc/civitas/ca.pem"
    assert psql(demo, "127.0.0.1", "sslmode=disable", password) == ""
    assert psql(demo, "127.0.0.1", verified.replace("verify-full", "verify-ca"), "wrong") == ""
    assert psql(demo, "localhost", verified, password) == "t"
    assert query(demo, "SELECT rolpassword ~ '^SCRAM-SHA-256' FROM pg_authid WHERE rolname = 'kinto'") == "t"


def test_the_server_trusts_the_root_and_knows_what_is_revoked(demo: Demo) -> None:
    """Programs of the host verify internal links without being told; the lists are there for those that ask."""
    directory = "/etc/civitas/certificates/postgres"
    verify = f"openssl verify -x509_strict -purpose sslserver -verify_hostname database.internal -untrusted {directory}/fullchain.pem"
    demo.on_server(*verify.split(), "-crl_check_all", "-CRLfile", "/etc/civitas/crl.pem", f"{directory}/fullchain.pem")


def query(demo: Demo, statement: str) -> str:
    return demo.on_server("runuser", "-u", "postgres", "--", "psql", "-XAtc", statement)


def test_the_application_s_connections_use_tls(demo: Demo) -> None:
    connections = "FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE usename = 'kinto'"
    assert query(demo, f"SELECT count(*) FILTER (WHERE NOT s.ssl), count(*) > 0 {connections}") == "0|t"


def parts_of(secret: str) -> list[str]:
    """What to look for: short values whole, keys by their lines (the first one is the same for all keys of a type)."""
    lines = [line for line in secret.splitlines() if line and not line.startswith("-----")]
    return lines[1:] if len(lines) > 1 else lines


@pytest.fixture(name="canaries")
def _canaries(demo: Demo) -> list[str]:
    # Of the CA only the keys are secret.
    secret = {name: value for name, value in demo.secrets.items() if not name.startswith("internal_ca_") or name.endswith("_key")}
    assert {"internal_ca_issuing_key", "internal_ca_root_key", "app_demo_admin_password"} <= set(secret)
    canaries = [part for value in secret.values() for part in parts_of(value)]
    assert min(map(len, canaries)) >= 16
    return canaries


@pytest.mark.parametrize("options", [("--diff",), ("--diff", "-e", "app_demo_admin_user=other")], ids=["unchanged", "changed"])
def test_no_secret_is_shown_by_the_most_verbose_run(demo: Demo, canaries: list[str], options: tuple[str, ...]) -> None:
    done = demo.playbook("single.yml", "-vvv", "--check", *options)
    assert done.returncode == 0, done.stdout[-3000:]
    changed = set(re.findall(r"changed=(\d+)", done.stdout))
    assert (changed != {"0"} and "kinto.ini" in done.stdout) if len(options) > 1 else changed == {"0"}
    assert [canary for canary in canaries if canary in done.stdout] == []


def test_no_secret_is_in_sight_on_the_server(demo: Demo, canaries: list[str]) -> None:
    """Arguments and environments of all processes, logs, journal, crontabs, what the engine tells, and the logs on the controller."""
    script = r"""{
        cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -v '^BASH_EXECUTION_STRING='
        cat /etc/crontab /etc/cron.*/* /var/spool/cron/crontabs/* 2>/dev/null
        find /var/log -type f -exec cat {} +
        journalctl --no-pager --quiet --output=export
        docker ps --all --quiet | xargs docker inspect
        docker ps --all --quiet | xargs --max-args=1 docker logs 2>&1
    } | tr --complement --delete '\11\12\40-\176'"""
    seen = demo.on_server("bash", "-c", script)
    assert len(seen) > 10_000
    assert [canary for canary in canaries if canary in seen] == []


def test_no_secret_is_in_a_file_that_others_may_read(demo: Demo, canaries: list[str]) -> None:
    patterns = "\n".join(canaries)
    done = subprocess.run(
        ["docker", "exec", "--interactive", HOST, "grep", "-rlF", "-f", "-", "/etc", "/srv", "/var/lib/civitas", "/root", "/tmp", "/home"],
        input=patterns, capture_output=True, text=True, check=False,
    )  # fmt: skip
    files = done.stdout.split()
    assert files
    modes = {file: demo.on_server("stat", "--format", "%a", file) for file in files}
    assert {file: mode for file, mode in modes.items() if int(mode, 8) & 0o077} == {}


@pytest.fixture(name="broken")
def _broken(demo: Demo, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    for break_it, _repair, _check in request.param:
        demo.on_server("bash", "-c", break_it)
    yield [check for _break, _repair, check in request.param]
    for _break, repair_it, _check in reversed(request.param):
        demo.on_server("bash", "-c", repair_it)
    bed.wait_for("the repair", lambda: demo.playbook("status.yml").returncode == 0, 90)


# Together what does not hide or cause one another: a run takes its time.
@pytest.mark.parametrize(
    "broken",
    [
        [
            ("systemctl stop nginx", "systemctl start nginx", "nginx.service"),
            ("systemctl stop 'postgresql@*'", "systemctl start postgresql", "postgres.service"),
            (
                "systemd-run --unit=stranger python3 -m http.server --bind 0.0.0.0 9999; until ss -Hltn | grep -q :9999; do :; done",
                "systemctl stop stranger",
                "site.exposure",
            ),
            (
                "systemd-run --unit=failing false; until systemctl is-failed failing; do :; done",
                "systemctl reset-failed failing",
                "base.failed_units",
            ),
        ],
        [
            ("docker pause $(docker ps -q)", "docker unpause $(docker ps -q)", "app_demo"),
            ("mv /etc/civitas/certificates /etc/civitas/away", "mv /etc/civitas/away /etc/civitas/certificates", "nginx.configuration"),
        ],
        [
            (
                "mv /etc/nginx/sites-enabled/demo.conf /root/ && systemctl reload nginx",
                "mv /root/demo.conf /etc/nginx/sites-enabled/ && systemctl reload nginx",
                "nginx.site.demo.answers",
            ),
        ],
    ],
    indirect=True,
    ids=lambda cases: "-".join(case[2] for case in cases),
)
def test_status_says_no_and_names_what_is_broken(demo: Demo, broken: list[str]) -> None:
    done = demo.playbook("status.yml")
    assert done.returncode != 0
    named = [check for check in broken if re.search(rf"FAILED +{re.escape(check)}", done.stdout)]
    assert named == broken, done.stdout[-3000:]
    # Nor is everything called broken.
    assert re.search(r"ok +base\.logrotate_timer", done.stdout)


def test_the_application_names_its_version(demo: Demo) -> None:
    script = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8888/v1/__version__').read().decode())"
    about = json.loads(demo.on_server("python3", "-c", script))
    assert (about["name"], about["version"]) == ("kinto", kinto_image.version())


def test_ports_of_the_demo_are_bound_to_loopback_only(demo: Demo) -> None:
    published = bed.docker("port", HOST).splitlines()
    assert len(published) == 3
    assert all("-> 127.0.0.1:" in line for line in published)
    assert not (ROOT / ".demo").exists() or (ROOT / ".demo").stat().st_mode & 0o077 == 0
