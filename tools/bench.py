# SPDX-License-Identifier: GPL-3.0-or-later
"""What a single server costs: a check of the fresh host, the first run, a check and a run when nothing changes.

    python -m tools.bench           on a fresh server of its own, removed at the end
    python -m tools.bench --demo    on the running demonstration server (only the two runs that change nothing)

Prints a table; writes .cache/bench.json. Figures of one machine at one time: compare ratios, not seconds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from tools import bed
from tools.bed import BedError, say

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


class Peak(threading.Thread):
    """The largest sum of the proportional memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.kib, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.3):
            self.kib = max(self.kib, sum(self._pss(pid) for pid in self._family()))

    def _family(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                parents.setdefault(parent, []).append(int(entry.name))
        family = [self.pid]
        for pid in family:
            family.extend(parents.get(pid, []))
        return family

    @staticmethod
    def _pss(pid: int) -> int:
        try:
            return int(re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[1])  # type: ignore[index]
        except (OSError, TypeError):
            return 0


def measure(name: str, command: list[str], environment: dict[str, str]) -> Figures:
    """Run a playbook and count. Raises BedError when it fails."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as calls, tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=bed.ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={
                **environment, "CIVITAS_CALLS_FILE": calls.name, "ANSIBLE_CALLBACK_PLUGINS": str(bed.ROOT / "tools" / "callbacks"),
                "ANSIBLE_CALLBACKS_ENABLED": "module_calls",
            },
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
        lines = [json.loads(line) for line in calls]
    modules = Counter(line["module"] for line in lines if "module" in line)
    hosts = [summary for line in lines if "hosts" in line for summary in line["hosts"].values()]
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
        results = []
        for name, words in runs:
            say(f"bench: {name}")
            results.append(measure(name, words, demo.playbook_environment()))
    finally:
        if not on_demo:
            demo.down()
    return results


def main() -> int:
    try:
        results = bench("--demo" in sys.argv[1:])
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    machine = {"cores": os.cpu_count(), "kernel": os.uname().release}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine, "runs": [asdict(figures) for figures in results]}, indent=2) + "\n")
    print(table(results))
    print("per module, second run: " + ", ".join(f"{module} {count}" for module, count in results[-1].calls.items()))
    print(f"as JSON: {RESULT.relative_to(bed.ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
