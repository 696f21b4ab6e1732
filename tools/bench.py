# SPDX-License-Identifier: GPL-3.0-or-later
"""What things cost.

    runs         a single server: a check of the fresh host, the first run, a check and a run when nothing changes; the way in alone
                 (base, access, firewall) with 50 people, first and when nothing changes
    site         the site of four hosts of molecule/tier4, first run and when nothing changes, of one, two and four hosts of it
    chains       milliseconds until certificates that are handed in are accepted or refused
    handshakes   TLS handshakes a second: ECDSA, RSA, the distribution's nginx
    requests     requests a second through the edge and without it
    backups      full sets beside tar.gz | openssl, restic and borg, a tree that did not change, restoring, memory

    python -m tools.bench                 all of it, on fresh servers of its own, removed at the end
    python -m tools.bench chains requests some parts
    python -m tools.bench runs --demo     on the running demonstration server (only the two runs that change nothing)

Prints tables; writes .cache/bench.json, where parts that were not measured keep their last figures. Figures of one machine at one time:
compare ratios, not seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools import bed, bench_backup, bench_tls, testrun
from tools.bed import BedError, say
from tools.bench_rows import Peak
from tools.bench_rows import table as rows_table

RESULT = bed.CACHE / "bench.json"


@dataclass
class Figures:
    """One run. seconds: wall clock; tasks: run, skipped ones not counted; module_calls: on the host; memory_mib: peak of the controller."""

    run: str
    seconds: float
    tasks: int
    module_calls: int
    changed: int
    memory_mib: int
    calls: dict[str, int]


def counting(file: str) -> dict[str, str]:
    """The environment in which playbooks write what they cost to a file, one JSON object a line."""
    callbacks = str(bed.ROOT / "tools" / "callbacks")
    return {"CIVITAS_CALLS_FILE": file, "ANSIBLE_CALLBACK_PLUGINS": callbacks, "ANSIBLE_CALLBACKS_ENABLED": "module_calls"}


def module_calls(lines: Iterable[str]) -> Counter[str]:
    """How often each module was called on a host, from the lines of such a file."""
    return Counter(line["module"] for line in map(json.loads, lines) if "module" in line)


def measure(name: str, command: list[str], environment: dict[str, str]) -> Figures:
    """Run a playbook and count. Raises BedError when it fails."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as calls, tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=bed.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**environment, **counting(calls.name)},
        )  # fmt: skip
        peak = Peak(process.pid)
        peak.start()
        code = process.wait()
        seconds = time.monotonic() - started
        peak.ended.set()
        peak.join()
        if code:
            output.seek(0)
            raise BedError("\n".join([f"The run '{name}' failed; its last lines were:", *output.read().splitlines()[-40:]]))
        lines = calls.readlines()
    modules = module_calls(lines)
    hosts = [summary for line in map(json.loads, lines) if "hosts" in line for summary in line["hosts"].values()]
    return Figures(
        name, round(seconds, 1), sum(host["ok"] for host in hosts), sum(modules.values()), sum(host["changed"] for host in hosts),
        peak.kib // 1024, dict(modules.most_common()),
    )  # fmt: skip


def table(figures: list[Figures]) -> str:
    lines = [f"{'run':<22} {'seconds':>8} {'tasks':>6} {'module calls':>13} {'changed':>8} {'controller MiB':>15}"]
    lines += [f"{f.run:<22} {f.seconds:>8.1f} {f.tasks:>6} {f.module_calls:>13} {f.changed:>8} {f.memory_mib:>15}" for f in figures]
    return "\n".join(lines)


def bench(on_demo: bool) -> list[Figures]:
    if not on_demo:
        # A server beside the demonstration, with its own ports and its own generated files.
        os.environ.update(
            CIVITAS_DEMO_HOST=f"civitas-bench-{bed.CHECKOUT}", CIVITAS_DEMO_DIR=str(bed.CACHE / "bench"), CIVITAS_DEMO_HTTPS_PORT="18443",
            CIVITAS_DEMO_HTTP_PORT="18080", CIVITAS_DEMO_SSH_PORT="12222",
        )  # fmt: skip
    # They read the environment when they are imported.
    from tools import demo

    bed.ensure_engine()
    if not on_demo:
        demo.down()
    try:
        demo.start_server()
        command = demo.playbook_command("single.yml")
        runs = [("check, unchanged", [*command, "--check"]), ("second run", command)]
        if not on_demo:
            runs = [("check, fresh host", [*command, "--check"]), ("first run", command), *runs]
            way_in = [*demo.playbook_command("../tools/way_in.yml"), "--extra-vars", f"@{crowd(demo.DIRECTORY)}"]
            runs += [("way in, 50 people", way_in), ("way in, second run", way_in)]
        results = []
        for name, words in runs:
            say(f"bench: {name}")
            results.append(measure(name, words, demo.playbook_environment()))
    finally:
        if not on_demo:
            demo.down()
    return results


def bench_site() -> list[Figures]:
    """The site of molecule/tier4, from nothing. What a further host costs is seen when nothing changes."""
    folder = bed.CACHE / "molecule" / "tier4"
    environment = {**testrun.environment(), "MOLECULE_EPHEMERAL_DIRECTORY": str(folder)}
    molecule = [str(testrun.BIN / "molecule")]
    results = []
    try:
        for step in ("destroy", "create", "prepare"):
            say(f"bench: {step} the site")
            bed.run(*molecule, step, "-s", "tier4", env=environment, timeout=1200)
        ansible = {
            **environment,
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_VAULT_PASSWORD_FILE": str(bed.ROOT / "tests/fixtures/vault-password"),
            "MOLECULE_PROJECT_DIRECTORY": str(bed.ROOT),
        }
        command = [str(testrun.BIN / "ansible-playbook"), "-i", str(folder / "inventory"), str(bed.ROOT / "molecule/tier4/converge.yml")]
        hosts = {group: f"{bed.CHECKOUT}-tier4-{name}" for group, name in (("server", "debian12"), ("backup", "vault"))}
        runs = {
            "four hosts, first run": [],
            "four hosts, second run": [],
            "two hosts, second run": ["--limit", f"localhost,{hosts['server']},{hosts['backup']}"],
            "one host, second run": ["--limit", f"localhost,{hosts['server']}"],
        }
        for name, limit in runs.items():
            say(f"bench: {name}")
            results.append(measure(name, [*command, *limit], ansible))
    finally:
        bed.run(*molecule, "destroy", "-s", "tier4", env=environment, timeout=600, check=False)
    return results


def crowd(directory: Path, size: int = 50) -> Path:
    """A file of variables with so many people, each with a key of their own."""
    people = []
    for number in range(size):
        key = directory / f"crowd-{number}"
        if not key.exists():
            bed.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key.name, "-f", str(key))
        people.append({"name": f"crowd{number}", "role": "user", "ssh_keys": [key.with_suffix(".pub").read_text().strip()]})
    file = directory / "crowd.json"
    file.write_text(json.dumps({"civitas_people": people}))
    return file


def store(path: Path, parts: Mapping[str, Any]) -> None:
    """Write figures; parts that are not among them keep those of their last time."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    machine = {"cores": os.cpu_count(), "kernel": os.uname().release}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**known, "machine": machine, **parts}, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench")
    choices = ("runs", "site", *bench_tls.PARTS, *bench_backup.PARTS)
    parser.add_argument("part", nargs="*", help=f"{', '.join(choices)}; default: all")
    parser.add_argument("--demo", action="store_true", help="measure the runs on the running demonstration server")
    parser.add_argument("--seconds", type=float, default=3, help="length of a round of chains, handshakes and requests (default: 3)")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default: 5)")
    parser.add_argument("--megabytes", type=int, default=640, help="size of the tree that is backed up (default: 640)")
    parser.add_argument("--result", type=Path, default=RESULT, help="file for the figures as JSON")
    parser.add_argument("--prefix", default="civitas-bench", help="how the names of the bench's own servers begin")
    options = parser.parse_args(argv)
    if unknown := set(options.part) - set(choices):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; write some of: {', '.join(choices)}")
    parts = options.part or ["runs"] if options.demo else options.part or choices
    try:
        if "runs" in parts:
            figures = bench(options.demo)
            store(options.result, {"runs": [asdict(each) for each in figures]})
            print(f"runs of the single server\n\n{table(figures)}")
            for each in figures:
                if each.run.endswith("second run"):
                    print(f"per module, {each.run}: " + ", ".join(f"{module} {count}" for module, count in each.calls.items()))
        if "site" in parts:
            figures = bench_site()
            store(options.result, {"site": [asdict(each) for each in figures]})
            print(f"\nruns of a site of four hosts\n\n{table(figures)}")
        measured = bench_tls.measure(parts, options.seconds, options.rounds, options.prefix)
        if "backups" in parts:
            measured["backups"] = bench_backup.measure(options.rounds, options.megabytes)
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    store(options.result, {part: [row.as_dict() for row in rows] for part, rows in measured.items()})
    for part, rows in measured.items():
        print(f"\n{ {**bench_tls.PARTS, **bench_backup.PARTS}[part] }\n\n{rows_table(rows)}")
    print(f"\nas JSON: {options.result}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
