# SPDX-License-Identifier: GPL-3.0-or-later
"""No secret leaves the site with a support bundle, wherever a host leaks it; and what a helper needs is in it.

The secrets are made here, laid where hosts have them, and leaked as programs leak them. A word of the application's stands for a record.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shlex
import subprocess
import sys
import tarfile
import urllib.parse
from pathlib import Path

import pytest
import testinfra
import yaml

from tests.unit import pki

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
testinfra_hosts = ["ansible://servers"]
WORDS = ("river", "candle", "orbit", "maple", "violin", "harbour", "copper", "meadow", "falcon", "pepper", "winter", "saddle")


def phrase() -> str:
    """Words, so that nothing but being known gives it away."""
    return " ".join(secrets.choice(WORDS) for _word in range(5))


def forms(value: str) -> list[str]:
    data = value.encode()
    quoted = [urllib.parse.quote(value), urllib.parse.quote_plus(value), json.dumps(value), shlex.quote(value)]
    coded = [data.hex(), data.hex().upper(), base64.b64encode(data).decode(), base64.b64encode(b"u:" + data).decode()]
    return [value, *quoted, *coded]


def parts(value: str) -> list[str]:
    """What must be found nowhere: all its forms, and what base64 makes of it behind other text."""
    found = [form.strip("\"'") for form in forms(value)]
    return [*found, *(base64.b64encode(b"u" * offset + value.encode()).decode()[4:-4] for offset in range(3))]


def say(host, priority: str, text: str) -> None:
    host.check_output("logger -t canary -p user.%s -- %s", priority, text)


def shown() -> dict[str, str]:
    """The secrets file of the site."""
    command = ["ansible-vault", "view", str(DIRECTORY / "secrets.yml")]
    return yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.fixture(scope="module", name="canaries")
def _canaries(host):
    """Secrets that lie on the host, one that only the controller knows, and one that nobody knows but its look; each in the logs."""
    known = {name: phrase() for name in ("file", "unit", "container", "compose", "argument", "totp")}
    for name, path in (("file", "/etc/civitas/apps/demo/secrets/canary"), ("totp", "/etc/civitas/second-factor/canary")):
        host.check_output("install -m 600 /dev/null %s && printf '%%s\\n' %s > %s", path, known[name], path)
    compose = f"services:\n  web:\n    environment:\n      CANARY_PASSWORD: {known['compose']}\n"
    host.check_output("mkdir -p /srv/civitas/apps/canary && printf %%s %s > /srv/civitas/apps/canary/compose.yml", compose)
    host.check_output("systemd-run --quiet --unit=civitas-canary --setenv=CANARY_TOKEN=%s sleep infinity", known["unit"])
    told = "import sys, time; time.sleep(100000)"
    host.check_output("systemd-run --quiet --unit=civitas-canary-told /usr/bin/python3 -c %s --password=%s", told, known["argument"])
    record = f"record-{secrets.token_hex(6)}"
    script = f"echo {record}; echo {record} >&2; echo token is {known['container']}; sleep 100000"
    image = host.check_output("docker inspect --format '{{.Config.Image}}' demo-web-1")
    host.check_output(
        "docker run --detach --rm --name canary --network none --env %s --entrypoint sh %s -c %s",
        f"CANARY_SECRET={known['container']}",
        image,
        script,
    )
    site = shown()
    known.update(passphrase=site["certificate_passphrase"], admin=site["app_demo_admin_password"], webhook=site["mail_webhook_url"])
    for value in known.values():
        for form in forms(value):
            say(host, "err", f"leaked {form} there")
            say(host, "info", f"leaked {form} there")
    key = pki.key_pem(pki.rsa_key())
    for line in key.splitlines():
        say(host, "err", line)
    looks = {"assigned": secrets.token_hex(9), "bearer": secrets.token_urlsafe(30), "hash": f"$6$salt${secrets.token_urlsafe(40)}"}
    say(host, "err", f"password={looks['assigned']} Authorization: Bearer {looks['bearer']} {looks['hash']}")
    say(host, "err", "mail from anna.example@example.net and the address 198.51.100.23")
    say(host, "err", "nothing secret is here: canary-intact")
    # The database says values, statements and hashes; the edge says paths.
    value = f"child-{secrets.token_hex(6)}"
    psql = "setpriv --reuid=postgres --regid=postgres --init-groups psql -X -d postgres -Atc %s"
    host.run(psql, f"SELECT '{value}'::integer")
    host.run(psql, f"DO $$ BEGIN RAISE WARNING 'the child {value}'; RAISE EXCEPTION 'the child {value} is there'; END $$")
    host.run(psql, f"CREATE ROLE canary PASSWORD '{known['file']}' LOGIN NOSUCHOPTION")
    looks["scram"] = host.check_output(psql, "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL LIMIT 1")
    assert looks["scram"].startswith("SCRAM-SHA-256$")
    say(host, "err", f"dump {looks['scram']}")
    request = f'request: "GET /{value}?token={urllib.parse.quote(known["file"])} HTTP/1.1", host: "records.example.org"'
    edge = f"2026/11/22 08:00:00 [error] 8#8: *5 connect() failed (111: Connection refused), client: 192.0.2.9, server: x, {request}"
    host.check_output("printf '%%s\\n' %s >> /var/log/nginx/error.log", edge)
    yield {
        "known": known,
        "looks": {**looks, **{f"key {n}": line for n, line in enumerate(key.splitlines()[1:-1])}},
        "record": record,
        "value": value,
    }
    host.run("docker rm --force canary; systemctl stop civitas-canary civitas-canary-told")
    host.run("rm -rf /srv/civitas/apps/canary /etc/civitas/apps/demo/secrets/canary /etc/civitas/second-factor/canary")
    host.run("truncate --size 0 /var/log/nginx/error.log")


def collect(target: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Over SSH and through the bastion, as people do."""
    addresses = json.loads((DIRECTORY / "addresses.json").read_text())
    common = f"-o UserKnownHostsFile={DIRECTORY / 'known_hosts'} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
    way = {"ansible_connection": "ssh", "ansible_user": "deploy", "ansible_ssh_private_key_file": str(DIRECTORY / "automation")}
    hosts = {
        name: {**way, "ansible_ssh_common_args": common, "ansible_host": address}
        for name, address in addresses.items()
        if name != "controller"
    }
    target.mkdir(mode=0o700, parents=True)
    overlay = target.parent / f"{target.name}.yml"
    overlay.write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    program = os.path.join(os.path.dirname(sys.executable), "ansible-playbook")
    command = [program, "-vvv", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-i", str(overlay), "civitas.hosting.support_bundle"]
    command += ["-e", f"support_bundle_directory={target}", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def unpacked(target: Path) -> dict[str, str]:
    """All files of all hosts, and what lies beside them."""
    (bundle,) = [path for path in target.iterdir() if path.is_dir()]
    assert bundle.stat().st_mode & 0o777 == 0o700
    files = {"README.txt": (bundle / "README.txt").read_text()}
    for path in bundle.glob("*.tar.gz"):
        assert path.stat().st_mode & 0o777 == 0o600
        with tarfile.open(path) as archive:
            files.update({member.name: archive.extractfile(member).read().decode() for member in archive.getmembers()})
    return files


@pytest.fixture(scope="module", name="run")
def _run(host, canaries, tmp_path_factory):
    target = tmp_path_factory.mktemp("bundle") / "support"
    run = collect(target)
    assert run.returncode == 0, run.stdout[-3000:]
    return run.stdout + run.stderr, unpacked(target)


def leaks(canaries, text: str) -> list[str]:
    """Names of what must not be there and is."""
    wanted = {f"{name}: {number}": part for name, value in canaries["known"].items() for number, part in enumerate(parts(value))}
    wanted.update(canaries["looks"])
    return [name for name, part in wanted.items() if len(part) > 6 and part in text]


def test_no_secret_is_in_a_bundle(canaries, run):
    _output, files = run
    assert {name: found for name, text in files.items() if (found := leaks(canaries, text))} == {}


def test_no_record_is_in_a_bundle(canaries, run):
    _output, files = run
    for word in (canaries["record"], canaries["value"], "anna.example@", "198.51.100.23", "192.0.2.9"):
        assert [name for name, text in files.items() if word in text] == [], word


def test_no_secret_is_in_what_the_terminal_shows(canaries, run):
    output, _files = run
    assert leaks(canaries, output) == []
    assert "canary-intact" not in output


def test_what_a_helper_needs_is_in_it(host, run):
    _output, files = run
    name = host.backend.get_hostname()
    own = {path.partition("/")[2]: text for path, text in files.items() if path.startswith(f"{name}/")}
    for path, word in {
        "logs/journal.txt": ": nothing secret is here: canary-intact",
        "logs/journal-units.txt": "dockerd",
        "services/units.txt": "Id=nginx.service",
        "services/timers.txt": "civitas-metrics.timer",
        "packages/installed.txt": "nginx",
        "network/listening.txt": ":443",
        "network/firewall.txt": "table inet civitas",
        "system/disks.txt": "Filesystem",
        "system/clock.txt": "Reference ID",
        "containers/list.txt": "(healthy)",
        "containers/state.txt": "restarts=0",
        "postgresql/databases.txt": "kinto",
        "logs/nginx/error.log": "connect() failed (111: Connection refused), client: [address ",
        "files/etc/nginx/nginx.conf": "error_log /var/log/nginx/error.log",
        "files/var/lib/civitas/metrics/host.prom": "civitas_unit_running",
        "MANIFEST.txt": "containers/logs: nobody asked for it",
    }.items():
        assert word in own[path], path
    (log,) = [text for path, text in own.items() if path.startswith("logs/postgresql/")]
    assert "ERROR:  invalid input syntax for type integer: [redacted: value]" in log
    assert "WARNING:  [redacted: message]" in log
    assert "database system is ready to accept connections" in log
    assert "mail from [redacted: local part]@example.net and the address [address " in own["logs/journal.txt"]
    assert "secret" in files["README.txt"]
    groups = host.ansible.get_variables()["groups"]
    assert all(f"{member}/system/kernel.txt" in files for member in groups["all"] if member != "localhost")


def test_nothing_stays_on_the_hosts(host, canaries, run):
    groups = host.ansible.get_variables()["groups"]
    for name in groups["all"]:
        machine = testinfra.get_host(f"docker://{name}")
        assert machine.run("ls -d /run/civitas-support-bundle*").stdout == ""
        assert "civitas-support-bundle" not in machine.check_output(
            "systemctl list-units --all --plain --no-legend --no-pager 'civitas-support*'"
        )
        for value in canaries["known"].values():
            search = "grep -rslaF --exclude-dir=log --exclude-dir=systemd --exclude-dir=docker --exclude-dir=containerd -- %s"
            assert machine.run(f"{search} /run /tmp /var/tmp /home /root /dev/shm", value).stdout == ""


def test_what_applications_log_is_there_when_it_is_asked_for_and_without_secrets(host, canaries, tmp_path):
    done = collect(tmp_path / "support", "-e", "support_bundle_application_logs=true", "--limit", host.backend.get_hostname())
    assert done.returncode == 0, done.stdout[-3000:]
    files = unpacked(tmp_path / "support")
    (log,) = [text for name, text in files.items() if name.endswith("containers/logs/canary.txt")]
    assert log.count(canaries["record"]) == 2
    assert "token is [redacted: secret]" in log
    assert leaks(canaries, "".join(files.values())) == []


def test_check_mode_says_what_would_be_collected_and_writes_nothing(host, tmp_path):
    done = collect(tmp_path / "support", "--check", "--limit", host.backend.get_hostname())
    assert done.returncode == 0, done.stdout[-3000:]
    for word in ("files/etc/nginx/nginx.conf", "logs/journal.txt", "containers/state.txt"):
        assert word in done.stdout
    assert list((tmp_path / "support").iterdir()) == []
