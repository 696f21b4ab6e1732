# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make demo` promises: a printed address that works as printed, the second time without a change, and a clean removal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tools import bench
from tools import demo as demonstration

from .conftest import DIRECTORY, ROOT, SETTINGS, Demo


def test_the_printed_curl_command_verifies_the_chain(demo: Demo) -> None:
    command = re.search(r"curl --cacert \S+ https://\S+", demo.output)
    assert command, demo.output
    done = subprocess.run(command[0].split(), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"project_name":' in done.stdout
    without_our_ca = [word for word in command[0].split() if "ca.pem" not in word and word != "--cacert"]
    assert subprocess.run(without_our_ca, capture_output=True, check=False).returncode == 60


def test_the_printed_credentials_open_the_application(demo: Demo) -> None:
    command = re.search(r"\S*ansible-vault view .*", demo.output)
    assert command
    shown = subprocess.run(command[0].split(), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    password = re.search(r"^app_demo_admin_password: (\S+)$", shown, re.MULTILINE)
    assert password
    records = demonstration.Records("localhost", 28443, DIRECTORY / "ca.pem", address="127.0.0.1")
    _status, _headers, body = records.call("GET", "/v1/", ("admin", password[1].strip("\"'")))
    assert body["user"]["id"] == "account:admin"


def test_the_printed_ssh_command_reaches_the_server(demo: Demo) -> None:
    command = re.search(r"ssh -i .* root@127\.0\.0\.1", demo.output)
    assert command
    done = subprocess.run(
        [*command[0].split(), "hostname"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == SETTINGS["CIVITAS_DEMO_HOST"], done.stderr


def test_the_admin_page_is_served(demo: Demo) -> None:
    records = demonstration.Records("localhost", 28443, DIRECTORY / "ca.pem", address="127.0.0.1")
    status, headers, body = records.call("GET", "/v1/admin/")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    assert "<script" in body


def test_progress_and_elapsed_time_are_visible(demo: Demo) -> None:
    stamps = [int(stamp) for stamp in re.findall(r"^\[ *(\d+) s\]", demo.output, re.MULTILINE)]
    assert len(stamps) > 20
    assert stamps == sorted(stamps)


def test_a_second_time_changes_nothing_and_stays_in_its_budget(demo: Demo, tmp_path: Path) -> None:
    calls = tmp_path / "calls.jsonl"
    done = demo.make("demo", **bench.counting(str(calls)))
    assert done.returncode == 0, done.stdout
    recap = re.findall(r"changed=(\d+) +unreachable=(\d+) +failed=(\d+)", (DIRECTORY / "ansible.log").read_text())
    assert set(recap) == {("0", "0", "0")}
    counted = bench.module_calls(calls.read_text().splitlines())
    assert 10 < counted.total() <= 80, counted
