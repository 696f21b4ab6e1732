# SPDX-License-Identifier: GPL-3.0-or-later
"""The server is drilled, lost and built anew after an intrusion: from the inventory, the store and a person's key.

Its name is the last one: the other tests look at the server that was there before.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import testinfra
import yaml

from tools import bed
from tools.records import Records, RecordsError, Story

DIRECTORY = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
SCENARIO = Path(__file__).parents[1]
testinfra_hosts = ["ansible://servers"]
WAY = "-o UserKnownHostsFile={}/known_hosts -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes"
COUNTED = (
    "SELECT relname || ' ' || (xpath('/row/n/text()', query_to_xml(format("
    "'SELECT count(*) || '' '' || coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '''') AS n FROM public.%I t', relname),"
    " false, true, '')))[1]::text FROM pg_stat_user_tables WHERE schemaname = 'public'"
    " AND relname NOT IN ('cache', 'timestamps') ORDER BY relname"
)


def playbook(name: str, **values: object) -> subprocess.CompletedProcess[str]:
    """A playbook over SSH, as people run it."""
    addresses = json.loads((DIRECTORY / "addresses.json").read_text())
    hosts = {
        host: {
            "ansible_connection": "ssh",
            "ansible_host": address,
            "ansible_user": "deploy",
            "ansible_ssh_private_key_file": str(DIRECTORY / "automation"),
            "ansible_ssh_common_args": WAY.format(DIRECTORY),
        }
        for host, address in addresses.items()
        if host != "controller"
    }
    over_ssh = DIRECTORY / "over-ssh"
    over_ssh.mkdir(exist_ok=True)
    (over_ssh / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [program, "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-i", over_ssh / "hosts.yml", "-e", json.dumps(values)]
    return subprocess.run([*map(str, command), f"civitas.hosting.{name}"], capture_output=True, text=True, timeout=3000, check=False)


def rows(host) -> list[str]:
    """The tables of the application with the number and a digest of their rows; `cache` and `timestamps` change by use."""
    return host.check_output(f'runuser -u postgres -- psql -XAtq -d kinto -c "{COUNTED}"').splitlines()


def secrets() -> dict[str, str]:
    shown = subprocess.run(["ansible-vault", "view", str(DIRECTORY / "secrets.yml")], capture_output=True, text=True, check=True).stdout
    return dict(yaml.safe_load(shown))


def records(name: str) -> Records:
    found = Records(
        "www.records.example.org", 443, DIRECTORY / "root.pem", address=json.loads((DIRECTORY / "addresses.json").read_text())[name]
    )
    found.wait(120)
    return found


def test_the_newest_set_is_drilled(host, vault):
    host.check_output("systemctl start civitas-backup")
    done = playbook("restore_drill", restore_key_file=str(DIRECTORY / "operator.key"))
    assert done.returncode == 0, done.stdout + done.stderr
    (report,) = [json.loads(path.read_text()) for path in DIRECTORY.glob("**/drills/*.json.txt")]
    assert report["good"] and report["problems"] == [] and report["host"] == host.backend.get_hostname()
    assert report["recovery_time_seconds"] > 0
    assert "AGE-SECRET-KEY" not in done.stdout + done.stderr
    assert host.run("find /run /var/lib/civitas /tmp -name identity -o -name 'operator.key'").stdout == ""
    assert json.loads(vault.check_output("civitas-store grants")) == []


def test_the_newest_set_is_restored_over_what_is_there(host, vault):
    """As somebody does on any day: with nothing but this playbook, and while the application runs."""
    before, name = rows(host), host.backend.get_hostname()
    wanted = {"restore_key_file": str(DIRECTORY / "operator.key")}
    refused = playbook("restore", **wanted)
    assert refused.returncode != 0 and name in refused.stdout and rows(host) == before
    assert "AGE-SECRET-KEY" not in refused.stdout + refused.stderr
    done = playbook("restore", restore_confirm=name, **wanted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "AGE-SECRET-KEY" not in done.stdout + done.stderr
    assert json.loads(host.check_output("civitas-restore status --json"))["phase"] == "accepted"
    assert rows(host) == before
    assert records(name)
    assert host.run("find /run /var/lib/civitas /tmp -name identity -o -name 'operator.key'").stdout == ""
    assert json.loads(vault.check_output("civitas-store grants")) == []


@pytest.mark.parametrize(
    ("host_name", "key", "words"),
    [
        ("", "operator.key", "Write which server was lost: -e rebuild_host="),
        ("vault", "operator.key", "Hosts of other groups have no data that are restored"),
        (None, "", "Write where the private key of age lies"),
        (None, "none.key", "is no file of this machine"),
        (None, "automation.pub", "holds no private key of age"),
    ],
)
def test_a_rebuild_that_is_not_clear_begins_nothing(host, host_name, key, words):
    given = host.backend.get_hostname() if host_name is None else host_name
    done = playbook("rebuild", rebuild_host=given, restore_key_file=str(DIRECTORY / key) if key else "")
    told = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode != 0 and words in told and "changed=0" in done.stdout, told
    assert done.stdout.count("PLAY [") == 1


def replaced(name: str) -> None:
    """The machine is gone; the provider gives a fresh one with the account and the key that Ansible logs in with."""
    (platform,) = [one for one in yaml.safe_load((SCENARIO / "molecule.yml").read_text())["platforms"] if one["name"].endswith("-debian12")]
    platform["name"] = name
    given = json.dumps({"scenario": "tier4", "platforms": [platform]})
    # Its address is not free again: the new one has another.
    bed.docker("rename", name, f"{name}-lost")
    bed.docker("pause", f"{name}-lost")
    bed.run(sys.executable, "-m", "tools.bed", "create", stdin=given, env={**os.environ, "PYTHONPATH": str(bed.ROOT)}, timeout=300)
    fresh = testinfra.get_host(f"docker://{name}")
    fresh.check_output("useradd --create-home --shell /bin/bash --password '*' deploy && install -d -m 0700 -o deploy /home/deploy/.ssh")
    fresh.check_output("echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/90-first-login")
    fresh.check_output(f"echo '{(DIRECTORY / 'automation.pub').read_text().strip()}' > /home/deploy/.ssh/authorized_keys")
    fresh.check_output("chown -R deploy: /home/deploy/.ssh && chmod 0600 /home/deploy/.ssh/authorized_keys")
    address = next(one for one in fresh.interface("eth0").addresses if "." in one)
    known = json.loads((DIRECTORY / "addresses.json").read_text())
    lines = [line for line in (DIRECTORY / "known_hosts").read_text().splitlines() if line.split()[:1] != [known[name]]]
    lines.append(f"{address} {fresh.check_output('cat /etc/ssh/ssh_host_ed25519_key.pub')}")
    (DIRECTORY / "known_hosts").write_text("\n".join(lines) + "\n")
    (DIRECTORY / "addresses.json").write_text(json.dumps({**known, name: address}))


def test_a_lost_server_is_built_anew_and_has_its_data(host, vault):
    name = host.backend.get_hostname()
    asked = {"rebuild_host": name, "restore_key_file": str(DIRECTORY / "operator.key")}
    old = secrets()
    story = Story(records(name), ("admin", old["app_demo_admin_password"]))
    host.check_output("systemctl start civitas-backup")
    before = rows(host)
    assert any(not line.endswith(" ") for line in before)
    kept = {one["set"] for one in json.loads(vault.run("civitas-store status --json").stdout)["hosts"][name]["sets"]}

    refused = playbook("rebuild", **asked)
    told = re.sub(r"\s+", " ", refused.stdout + refused.stderr)
    assert refused.returncode != 0 and "was built by this collection already" in told, told
    assert "changed=0" in refused.stdout and rows(host) == before

    replaced(name)
    done = playbook("rebuild", **asked, rebuild_after_intrusion=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "The old values are of no use any more" in re.sub(r"\s+", " ", done.stdout)
    assert not any(value in done.stdout + done.stderr for value in (old["app_demo_admin_password"], secrets()["app_demo_admin_password"]))
    fresh = testinfra.get_host(f"docker://{name}")
    # Of accounts one has another password now; the restore itself has compared all of them before.
    assert [line.rsplit(" ", 1)[0] for line in rows(fresh)] == [line.rsplit(" ", 1)[0] for line in before]
    assert secrets()["app_demo_database_password"] != old["app_demo_database_password"]
    # The record that was entered before is there; nobody administers with the old password.
    story.records = records(name)
    assert story.is_kept()
    with pytest.raises(RecordsError, match="401"):
        Story(story.records, ("admin", old["app_demo_admin_password"]))
    assert Story(story.records, ("admin", secrets()["app_demo_admin_password"])).is_kept()
    # The sets of the old machine are good, though another key signs now; and there is one of the new machine.
    assert vault.run("civitas-store verify").rc == 0
    after = {one["set"]: one["good"] for one in json.loads(vault.run("civitas-store status --json").stdout)["hosts"][name]["sets"]}
    assert kept < set(after) and all(after.values())
    assert fresh.run("civitas-backup status").rc == 0

    plan = playbook("disaster_plan", file=str(DIRECTORY / "disaster-plan.md"))
    assert plan.returncode == 0, plan.stdout
    text = (DIRECTORY / "disaster-plan.md").read_text()
    assert f"| {name} | built anew and restored | " in text and f"| {name} | restore, in the drill | " in text
    assert f"Of {name} {len(after)} good sets" in text
