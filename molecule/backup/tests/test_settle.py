# SPDX-License-Identifier: GPL-3.0-or-later
"""What a power failure and a lost line leave behind: data that are half swapped, and a private key with which nobody begins.

The tests restart the host that has the records, so they come last.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra

testinfra_hosts = ["ansible://stores"]

SETS = "/srv/backup/hosts/records-1/sets"
STATE = Path(__file__).parents[1] / "files/state.sh"
# All is swapped, and nobody has looked at it; then the power is gone.
CUT_OFF = """
import os, signal, sys
sys.path.insert(0, "/usr/local/lib/civitas")
from ansible_collections.civitas.hosting.plugins.module_utils import _restore_program as program, _restore_trees as trees
trees.check = lambda path, sample: os.kill(os.getpid(), signal.SIGKILL) if path == "/srv/documents" else []
sys.exit(program.main(["run", "--plan", "/root/plan.json"]))
"""
# /srv is on a volume that somebody unlocks. The role data_volume orders its mounts in the same way.
VOLUME = {
    "unlocked.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/usr/bin/test -e /run/unlocked\n",
    "srv.mount": """[Unit]
DefaultDependencies=no
Requires=unlocked.service
After=unlocked.service
Before=umount.target civitas-restore-settle.service
Conflicts=umount.target
[Mount]
What=/var/volume
Where=/srv
Type=none
Options=bind
""",
}
WANTS = "/etc/systemd/system/multi-user.target.wants"


@pytest.fixture(name="records", scope="module")
def _records(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['records'][0]}")


@pytest.fixture(name="operator", scope="module")
def _operator(host):
    return testinfra.get_host(f"docker://{host.ansible.get_variables()['groups']['operators'][0]}")


def until(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def show(host, unit, name):
    return host.check_output(f"systemctl show --property={name} --value {unit}")


def state(records):
    """Rows, files, and that nothing lies beside them."""
    records.check_output(f"cat > /root/state.sh <<'EOF'\n{STATE.read_text()}EOF")
    return records.check_output(
        "sh /root/state.sh; ls /srv; runuser -u postgres -- psql -XAtqc 'SELECT datname FROM pg_database ORDER BY 1'"
    )


def restart(records):
    """The host, and what is there when all was started."""
    subprocess.run(["docker", "restart", "--time", "60", records.backend.name], check=True, capture_output=True, timeout=120)
    until(lambda: records.run("systemctl is-system-running").stdout.strip() in ("running", "degraded"), "it does not come up")
    assert "ordering cycle" not in records.check_output("journalctl --boot --no-pager --output cat _PID=1")


def phase(records):
    return json.loads(records.run("civitas-restore status --json").stdout)["phase"]


@pytest.fixture(name="half")
def _half(host, records, operator):
    """A restore that lost its power half way, of documents that lie on a volume of which the system starts without."""
    records.check_output("civitas-restore forget all; rm -rf /root/sets; install -d -m 0700 /root/sets")
    newest = host.check_output(f"ls {SETS} | sort | tail -n 1")
    inside = host.check_output(f"tar -C {SETS} -c {newest} | base64 -w 0")
    subprocess.run(
        ["docker", "exec", "-i", records.backend.name, "sh", "-c", "base64 -d | tar -C /root/sets -x"],
        input=inside.encode(),
        check=True,
        capture_output=True,
    )
    plan = {"host": "records-1", "identity": "/run/identity", "sets": "/root/sets", "confirm": "records-1"}
    plan["signers"] = [records.check_output("ssh-keygen -y -f /etc/civitas/backup/signing")]
    records.check_output(f"printf %s {shlex.quote(json.dumps(plan))} > /root/plan.json")
    key = operator.check_output("cat /root/operator.key")
    records.check_output(f"umask 077; printf '%s\\n' {shlex.quote(key)} > /run/identity")
    records.check_output(f"systemctl start writer; ln -s ../writer.service {WANTS}/writer.service")
    before = state(records)
    assert records.run(f"/usr/bin/python3 -I -c {shlex.quote(CUT_OFF)}").rc != 0
    assert phase(records) == "checking" and not records.service("writer").is_running
    for name, content in VOLUME.items():
        records.check_output(f"printf %s {shlex.quote(content)} > /etc/systemd/system/{name}")
    records.check_output(f"ln -s ../srv.mount {WANTS}/srv.mount; mkdir /var/volume; mv /srv/* /var/volume; systemctl daemon-reload")
    yield before
    records.check_output(f"systemctl stop srv.mount; rm {WANTS}/srv.mount {WANTS}/writer.service; mv /var/volume/* /srv; rmdir /var/volume")
    records.check_output("cd /etc/systemd/system; rm srv.mount unlocked.service; rm -r /root/sets; systemctl daemon-reload")


def test_what_was_cut_off_is_taken_back_when_its_volume_is_there_and_before_anything_writes(records, half):
    restart(records)
    # Nobody has unlocked it: it says so, and what writes was not started.
    assert show(records, "civitas-restore-settle", "ActiveState") == "failed"
    said = records.check_output("journalctl --boot --no-pager --output cat --unit civitas-restore-settle")
    assert "mount the disk on which it lies" in said
    assert show(records, "writer", "ActiveEnterTimestampMonotonic") == "0" and records.run("systemctl start writer").rc != 0
    # A backup would be one of data that belong together at no time.
    assert (
        records.run("systemctl start civitas-backup").rc != 0 and show(records, "civitas-backup", "ExecMainStartTimestampMonotonic") == "0"
    )
    assert records.run("civitas-restore status").rc == 1 and records.service("postgresql@15-main").is_running
    # As an unlock does.
    records.check_output("touch /run/unlocked; systemctl start srv.mount; systemctl start writer")
    ended = int(show(records, "civitas-restore-settle", "ExecMainExitTimestampMonotonic"))
    assert 0 < ended < int(show(records, "writer", "ExecMainStartTimestampMonotonic"))
    until(lambda: phase(records) == "undone", "it is not finished")
    assert state(records) == half and records.service("writer").is_running
    until(lambda: show(records, "civitas-restore-finish", "ActiveState") == "inactive", "it does not end")
    assert records.check_output("systemctl --failed --plain --no-legend | grep -v unlocked.service | grep restore || true") == ""
    # With nothing to take back it starts as ever, whatever becomes of its disks.
    restart(records)
    assert records.service("writer").is_running and not records.file("/srv/documents").exists
    assert show(records, "civitas-restore-settle", "Result") == "success"
    records.check_output("touch /run/unlocked; systemctl start srv.mount")


@pytest.mark.parametrize(
    ("tasks", "unit", "place"),
    [
        ("restore", "civitas-restore", "/run/civitas-restore"),
        ("restore_drill", "civitas-drill-operator", "/run/civitas-drill"),
    ],
)
def test_a_key_with_which_nobody_begins_is_removed(records, tasks, unit, place):
    timer = f"{Path(place).name}-key.timer"
    began = show(records, unit, "ExecMainStartTimestampMonotonic")
    # So that it cannot begin before the machine that asked is lost.
    records.check_output("systemd-run --quiet --collect --unit=hold --property=Type=oneshot --no-block sleep infinity")
    held = f"/run/systemd/system/{unit}.service.d"
    records.check_output(f"mkdir {held}; printf '[Unit]\\nAfter=hold.service\\n' > {held}/hold.conf; systemctl daemon-reload")
    playbook = [Path(sys.executable).with_name("ansible-playbook"), "-i", os.environ["MOLECULE_INVENTORY_FILE"]]
    playbook += ["-e", json.dumps({"key_left_by": tasks}), Path(__file__).parents[1] / "key_left.yml"]
    asked = subprocess.Popen(playbook, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        until(lambda: records.file(f"{place}/identity").exists or asked.poll() is not None, "no key comes", 300)
        assert asked.poll() is None, asked.stdout.read()
    finally:
        os.killpg(asked.pid, signal.SIGKILL)
        asked.wait()
    try:
        records.check_output(f"systemctl stop {unit}")
        assert records.file(f"{place}/identity").exists and show(records, unit, "ExecMainStartTimestampMonotonic") == began
        assert show(records, timer, "ActiveState") == "active" and "15min" in show(records, timer, "TimersMonotonic")
        # Its time is up sooner; nobody starts anything.
        since = (
            float(records.check_output("cut -d ' ' -f 1 /proc/uptime")) - int(show(records, timer, "ActiveEnterTimestampMonotonic")) / 1e6
        )
        sooner = f"[Timer]\nOnActiveSec=\nOnActiveSec={since + 5:.0f}s\nAccuracySec=100ms\n"
        records.check_output(f"mkdir -p /run/systemd/system/{timer}.d")
        records.check_output(f"printf %s {shlex.quote(sooner)} > /run/systemd/system/{timer}.d/sooner.conf; systemctl daemon-reload")

        def gone():
            # What that machine had begun on this host may ask for the start after it is lost, and would wait for ever.
            records.check_output(f"systemctl stop {unit}")
            return not records.file(place).exists

        until(gone, "the key is still there", 60)
        assert show(records, unit, "ExecMainStartTimestampMonotonic") == began
    finally:
        records.check_output(
            f"systemctl stop hold {timer}; rm -rf /run/systemd/system/{unit}.service.d /run/systemd/system/{timer}.d {place}"
        )
        records.check_output("systemctl daemon-reload")


def test_a_restore_that_has_begun_keeps_its_key(records):
    """However long it lasts, its own service removes it."""
    records.check_output("systemctl start civitas-restore-key.timer; install -d -m 0700 /run/civitas-restore")
    records.run("systemctl start civitas-restore")
    assert show(records, "civitas-restore-key.timer", "ActiveState") == "inactive"
    records.check_output("rm -rf /run/civitas-restore; systemctl reset-failed civitas-restore")
