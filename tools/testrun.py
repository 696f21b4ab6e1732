# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the tests and says what they proved.

    python -m tools.testrun                       everything
    python -m tools.testrun lint unit             some parts: lint, unit, sanity, molecule, demo
    python -m tools.testrun molecule/postgres     one scenario
    python -m tools.testrun --do converge molecule/postgres   one Molecule command instead of the whole sequence; hosts stay

Two scenarios run at a time, and one that mostly waits beside them; so do lint, sanity and unit. When everything is asked for, none begins
that would not have ended an hour after the start (CIVITAS_TEST_MINUTES; 0 for no end); what is left out is named as skipped.

The output of each lies in .cache/logs/.
The last line is `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tools import bed, vm
from tools.bed import CACHE, LABEL, LOGS, ROOT, BedError, say

TIMES = CACHE / "testrun.json"
SCENARIOS = ROOT / "molecule"
BIN = Path(sys.executable).parent
AT_ONCE = 2
# Wait most of their time, such as until an alarm has been quiet for minutes: one of them runs beside the two.
PATIENT = frozenset({"molecule/monitoring", "molecule/mail_relay"})
# So many minutes after `make` all scenarios have ended, when everything is asked for: who runs the tests has a limit, and what is cut off
# by it tells nothing. 0 for no end.
MINUTES = float(os.environ.get("CIVITAS_TEST_MINUTES") or 60)
# What scenarios take beside others on two cores, in minutes, where the last run says nothing; the rest takes less.
WHOLE = "tier4"
EXPECTED = {WHOLE: 36, "monitoring": 34, "vm": 20, "rotation": 17, "tls": 16, "backup": 15, "mail_relay": 10, "docker": 7, "postgres": 7}
ANY = 6
TAIL = 60

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass
class Result:
    """What a part or a scenario came to."""

    name: str
    state: str
    seconds: float = 0.0
    reason: str = ""


class Failure(Exception):
    """A part failed; the text says why in a few words."""


class Skip(Exception):
    """A part cannot run here; the text says why."""


# --- processes

_running: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()


def environment() -> dict[str, str]:
    """In what Molecule and the tests run."""
    found = dict(os.environ)
    found.update(
        PATH=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        PYTHONPATH=str(ROOT),
        ANSIBLE_COLLECTIONS_PATH=str(CACHE / "collections"),
        ANSIBLE_LOCALHOST_WARNING="false",
        # Logs are read by people and by grep.
        NO_COLOR="1",
        ANSIBLE_NOCOLOR="1",
        ANSIBLE_FORCE_COLOR="0",
        PY_COLORS="0",
        MOLECULE_COMMAND_BORDERS="0",
        MOLECULE_GLOB="molecule/*/molecule.yml",
        CIVITAS_BED_ID=bed.CHECKOUT,
    )
    return found


def execute(
    command: Sequence[str | Path], log: Path, *, cwd: Path = ROOT, env: dict[str, str] | None = None, keep: Sequence[int] = ()
) -> int:
    """Run a command with its output in a log; returns its exit status. It and its children end when this process is stopped.

    keep: file descriptors that it inherits.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as handle:
        handle.write(f"$ {' '.join(str(word) for word in command)}\n".encode())
        handle.flush()
        if _stopping.is_set():
            raise Failure("stopped")
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=handle,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**environment(), **(env or {})},
            start_new_session=True,
            pass_fds=keep,
        )
        _running.add(process)
        try:
            status = process.wait()
        finally:
            _running.discard(process)
    if _stopping.is_set():
        raise Failure("stopped")
    return status


def _with_descendants(pids: Sequence[int]) -> list[int]:
    """Processes and all that they started. A process group is not enough: Ansible's workers have sessions of their own."""
    children: dict[int, list[int]] = {}
    for line in bed.run("ps", "-e", "-o", "pid=,ppid=").stdout.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    found = list(pids)
    for pid in found:
        found += children.get(pid, [])
    return found


def _stop_everything() -> None:
    """End the processes that this run started."""
    _stopping.set()
    victims = _with_descendants([process.pid for process in _running])
    for sign, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        end = time.monotonic() + patience
        while time.monotonic() < end and any(_alive(pid) for pid in victims):
            time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def tail(log: Path, until: str = "") -> str:
    """The end of a log, for people; with a pattern, the end of what comes before its first match (cleaning up is of no interest)."""
    try:
        text = log.read_text(errors="replace").rstrip()
    except OSError:
        return ""
    if until and (end := re.search(until, text, re.M)):
        text = text[: end.start()].rstrip()
    lines = text.splitlines()
    return "\n".join([f"    (from {log.relative_to(ROOT)})", *(f"    {line}" for line in lines[-TAIL:])])


def what_failed(log: str) -> str:
    """The task and host, or the tests, that a scenario's log says failed: a summary may be all that somebody sees of a run."""
    tests = re.findall(r"^FAILED \S*::(.+)$", log, re.M)
    if tests:
        return "; ".join(tests)[:400]
    task = answer = ""
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if match := re.match(r"(?:TASK|RUNNING HANDLER) \[(.+?)\] \**$", line):
            task = match[1]
        elif re.match(r"(?:fatal|failed): \[", line):
            message = re.search(r"\bmsg: (.*?)(?=^\S|^    \w+:|\Z)", "\n".join(lines[number + 1 : number + 200]), re.M | re.S)
            answer = " ".join(f"{task}: {line if message is None else line.split(']')[0] + '] ' + message[1]}".split())
        elif line.startswith("...ignoring"):
            answer = ""
    return answer[:400]


# --- lint


def tracked(*patterns: str) -> list[str]:
    """Files that git knows or would add, as paths relative to the root."""
    found = bed.run("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns).stdout
    return sorted({name for name in found.split("\0") if name and (ROOT / name).is_file()})


# Formats without comments, texts that are not ours, and files that a tool writes.
_WITHOUT_SPDX = re.compile(
    r"(^LICENSE$|\.(json|pem|crt|key|csv|png|svg|gz|tar|lock|txt\.golden)$|^changelogs/changelog\.yaml$|^CHANGELOG\.md$|/py\.typed$)"
)


def without_spdx() -> list[str]:
    """Files that could carry an SPDX line near their beginning and do not."""
    missing = []
    for name in tracked():
        if _WITHOUT_SPDX.search(name):
            continue
        head = (ROOT / name).read_bytes()[:1000]
        if b"\0" not in head and head.strip() and b"SPDX-License-Identifier:" not in head:
            missing.append(name)
    return missing


def shell_files() -> list[str]:
    """Scripts whose first line names a POSIX shell or bash."""
    shells = re.compile(rb"#!\s*/(usr/)?bin/(env )?(ba|da)?sh\b")
    return [name for name in tracked() if not name.endswith((".j2", ".md")) and shells.match((ROOT / name).read_bytes()[:64])]


def lint() -> str:
    """All linters; each is run even when one before it has failed. Returns what could not be run."""
    log = LOGS / "lint.log"
    log.unlink(missing_ok=True)
    typed = [name for name in ("plugins/module_utils", "plugins/plugin_utils", "tools") if any((ROOT / name).glob("*.py"))]
    checks: list[tuple[str, list[str | Path]]] = [
        ("yamllint", ["yamllint", "--strict", "."]),
        ("ruff check", ["ruff", "check", "."]),
        ("ruff format", ["ruff", "format", "--check", "."]),
        ("mypy", ["mypy", *typed]),
        ("antsibull-changelog", ["antsibull-changelog", "lint"]),
        ("ansible-lint", ["ansible-lint", "--offline", "--strict"]),
    ]
    note = ""
    if shutil.which("shellcheck"):
        checks.append(("shellcheck", ["shellcheck", *shell_files()]))
    else:
        note = "without shellcheck, which is not installed"
    failed = []
    for name, command in checks:
        own = LOGS / f"lint-{name.replace(' ', '-')}.log"
        # Of a copy of this collection that somebody installed for themselves ansible-lint would read the roles first.
        if execute(command, own, env={**environment(), "ANSIBLE_HOME": str(CACHE / "ansible")}) != 0:
            failed.append(name)
            print(f"{name}:\n{tail(own)}", flush=True)
    if missing := without_spdx():
        failed.append("SPDX lines")
        print("SPDX lines: these files have no `SPDX-License-Identifier: GPL-3.0-or-later`:\n    " + "\n    ".join(missing), flush=True)
    if failed:
        raise Failure(", ".join(failed))
    return note


# --- unit


def _pytest(name: str, folder: str, *options: str) -> str:
    log = LOGS / f"{name}.log"
    if not any((ROOT / folder).rglob("test_*.py")):
        raise Skip(f"there is nothing in {folder}")
    status = execute([sys.executable, "-m", "pytest", "-q", "--durations=20", *options, folder], log)
    text = log.read_text(errors="replace").rstrip()
    lines = text.splitlines()
    if status != 0:
        print(tail(log), flush=True)
        culprit = what_failed(text)
        raise Failure(f"{lines[-1].strip('= ')}{f': {culprit}' if culprit else ''}" if lines else f"exit status {status}")
    return lines[-1].strip("= ")


# --- sanity

# The version of pip that the pinned ansible-core starts its virtual environments with.
_ANSIBLE_TEST_PIP = "24_2"


def _interpreter_path(links: Path) -> str:
    """PATH on which ansible-test finds this machine's Python versions, and only those that run; it takes whatever has the right name.

    A version manager's commands fail for versions that are not activated: they are asked for the real program. Of those the oldest, the
    newest and this process's own get a link: each costs time, and what is right for the oldest and the newest is right between them.
    """
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    found: dict[int, str] = {}
    environment = dict(os.environ)
    if shutil.which("pyenv"):
        environment["PYENV_VERSION"] = ":".join(bed.run("pyenv", "versions", "--bare", check=False).stdout.split())
    folders = []
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        works = True
        for minor, path in ((minor, path) for minor in range(8, 15) if (path := Path(folder) / f"python3.{minor}").exists()):
            real = bed.run(str(path), "-c", "import sys; print(sys.executable)", check=False, env=environment)
            if real.returncode == 0:
                found.setdefault(minor, real.stdout.strip())
            works &= bed.run(str(path), "-c", "", check=False).returncode == 0
        if works:
            folders.append(folder)
    for minor in {min(found), max(found), sys.version_info.minor} & set(found) if found else ():
        (links / f"python3.{minor}").symlink_to(found[minor])
    return os.pathsep.join([str(BIN), str(links), *folders])


def sanity() -> str:
    """ansible-test in a copy of what git knows: it takes the name of the collection from the path, and reads every file it finds."""
    log = LOGS / "sanity.log"
    home = CACHE / "sanity"
    target = home / "ansible_collections" / "civitas" / "hosting"
    shutil.rmtree(target, ignore_errors=True)
    for name in tracked():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy, follow_symlinks=False)
    bed.run("git", "-C", str(target), "init", "--quiet")
    bed.run("git", "-C", str(target), "add", "--all")
    # ansible-test keeps the virtual environments of its tests below HOME; ours outlive a run, and the person's own stay untouched.
    bootstrap = home / ".ansible/test/cache" / f"get_pip_{_ANSIBLE_TEST_PIP}.py"
    bootstrap.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "tools" / "sanity_pip.py", bootstrap)
    person = Path.home()
    environment = {
        "PATH": _interpreter_path(home / "bin"),
        "HOME": str(home),
        # The person's settings and cache of pip are meant all the same.
        "XDG_CONFIG_HOME": os.environ.get("XDG_CONFIG_HOME", str(person / ".config")),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(person / ".cache")),
    }
    status = execute(["ansible-test", "sanity", "--color", "no"], log, cwd=target, env=environment)
    if status != 0:
        text = log.read_text(errors="replace")
        problems = re.findall(r"^ERROR: (?!Found ).*", text, re.M)
        print("\n".join(f"    {line}" for line in problems) if problems else tail(log), flush=True)
        listed = re.search(r"sanity test\(s\) listed below.*\n((?:.+\n?)+)\Z", text)
        raise Failure(", ".join(listed.group(1).split("\n")).strip(", ") if listed else f"exit status {status}")
    return ""


# --- Molecule


def scenarios() -> list[str]:
    """Names of all scenarios, the longest of the last run first and new ones before all; of those, the ones that need a machine."""
    times = _times()
    names = [path.parent.name for path in SCENARIOS.glob("*/molecule.yml")]

    def key(name: str) -> tuple[float, float, bool, str]:
        return -times.get(f"molecule/{name}", 1e9), -EXPECTED.get(name, ANY), not (SCENARIOS / name / "requires.py").is_file(), name

    return sorted(names, key=key)


def turns(names: Sequence[str], commit: str) -> list[str]:
    """The scenarios in the order in which this commit runs them: the whole story, and the others in another order for each commit.

    So what one run has no time for is run by another one.
    """
    first = [name for name in names if name == WHOLE]
    rest = [name for name in names if name not in first]
    return first + sorted(rest, key=lambda name: hashlib.sha256(f"{commit} {name}".encode()).digest())


def in_time(name: str, part: Callable[[], str], minutes: float = MINUTES) -> str:
    """Run a scenario, unless it would not end in time. Raises Skip."""
    takes = _times().get(f"molecule/{name}", EXPECTED.get(name, ANY) * 60)
    if minutes and bed.elapsed() + takes > minutes * 60:
        raise Skip(f"takes {takes / 60:.0f} of {minutes:g} minutes, which are not left; make molecule S={name}")
    return part()


def obstacle(name: str) -> str:
    """Why a scenario cannot run here: what its requires.py prints. Nothing printed: it can."""
    script = SCENARIOS / name / "requires.py"
    if not script.is_file():
        return ""
    asked = subprocess.run(
        [sys.executable, script],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if asked.returncode != 0:
        raise Failure(f"molecule/{name}/requires.py failed: {asked.stderr.strip().splitlines()[-1:]}")
    return " ".join(asked.stdout.split())


def _platforms_file(distros: Sequence[str]) -> Path:
    """A second base configuration with the platforms that DISTROS names."""
    lines = ["platforms:"]
    for distro in distros:
        lines += [
            f"  - name: {bed.CHECKOUT}-${{MOLECULE_SCENARIO_NAME}}-{distro}",
            f"    image: civitas-bed/{distro}",
            "    groups: [servers]",
        ]
    path = CACHE / f"platforms-{'-'.join(distros)}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def _clean(name: str) -> None:
    """Remove whatever hosts of a scenario are still there, and Molecule's belief in them."""
    bed.leftovers(f"{LABEL}={bed.CHECKOUT}", f"{LABEL}.scenario={name}")
    vm.remove(f"{bed.CHECKOUT}-{name}")
    shutil.rmtree(CACHE / "molecule" / name, ignore_errors=True)


@contextlib.contextmanager
def _only_run(name: str) -> Iterator[int]:
    """Hold the lock of a scenario. Molecule inherits it: if this process is killed, Molecule goes on, and the lock holds."""
    path = CACHE / "molecule" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure("another run of this scenario is going on in this checkout: wait for its end, or end it") from None
        yield handle.fileno()


def scenario(name: str, distros: Sequence[str]) -> str:
    """One scenario from nothing to nothing."""
    log = LOGS / f"molecule-{name}.log"
    folder = SCENARIOS / name
    if not folder.joinpath("molecule.yml").is_file():
        raise Failure(f"there is no molecule/{name}/molecule.yml; there are: {', '.join(sorted(scenarios()))}")
    # Molecule only warns about these, and ends with 0.
    for needed in ("converge.yml", "tests/test_*.py"):
        if not any(folder.glob(needed)):
            raise Failure(f"molecule/{name}/{needed} is missing: the scenario proves nothing")
    if reason := obstacle(name):
        raise Skip(reason)
    words: list[str | Path] = ["molecule"]
    environment = {"MOLECULE_EPHEMERAL_DIRECTORY": str(CACHE / "molecule" / name)}
    if distros:
        words += ["-c", ROOT / ".config/molecule/config.yml", "-c", _platforms_file(distros)]
        environment["CIVITAS_BED_DISTRO"] = distros[0]
    # The hosts are removed below, whatever becomes of Molecule.
    words += ["test", "--destroy", "never", "-s", name]
    with _only_run(name) as lock:
        _clean(name)
        try:
            status = execute(words, log, env=environment, keep=[lock])
        finally:
            _clean(name)
    if status != 0:
        text = log.read_text(errors="replace")
        steps = re.findall(r"^(?:ERROR|CRITICAL)\s+\[\S+ > (\w+)\]", text, re.M)
        print(tail(log, r"^CRITICAL (?!'molecule/default)"), flush=True)
        where = f"in {steps[0]}" if steps else f"exit status {status}"
        culprit = what_failed(text)
        raise Failure(f"{where}: {culprit}" if culprit else where)
    return ""


# --- the run


def _times() -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(TIMES.read_text()).items()}
    except (OSError, ValueError):
        return {}


def _remember(results: Sequence[Result]) -> None:
    times = _times()
    times.update({result.name: round(result.seconds, 1) for result in results if result.state == PASSED})
    TIMES.parent.mkdir(parents=True, exist_ok=True)
    temporary = TIMES.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n")
    temporary.replace(TIMES)


def measure(name: str, part: Callable[[], str]) -> Result:
    """Run one part; what it returns or raises becomes its result."""
    began = time.monotonic()
    try:
        result = Result(name, PASSED, reason=part())
    except Skip as reason:
        result = Result(name, SKIPPED, reason=str(reason))
    except (Failure, BedError) as reason:
        result = Result(name, FAILED, reason=" ".join(str(reason).split()))
    result.seconds = time.monotonic() - began
    say(f"{result.name}: {result.state} in {result.seconds:.0f} s{f' ({result.reason})' if result.reason else ''}")
    return result


def ensure_bed(distros: Sequence[str]) -> None:
    """What all test hosts need, before the first of them is started. Raises BedError."""
    bed.ensure_engine()
    for distro in distros or ("debian12", "debian13"):
        bed.ensure_image(distro)
    bed.ensure_cache()


def run_together(parts: Mapping[str, Callable[[], str]], names: Sequence[str]) -> list[Result]:
    """Parts, two at a time, in their order. When it is stopped, the hosts of the scenarios C(names) are removed."""
    results = []
    with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(1) as beside:
        jobs = [(beside if name in PATIENT else pool).submit(measure, name, part) for name, part in parts.items()]
        try:
            for job in as_completed(jobs):
                results.append(job.result())
                _remember(results[-1:])
        except KeyboardInterrupt:
            for job in jobs:
                job.cancel()
            _stop_everything()
            for name in names:
                _clean(name)
            raise
    return results


PARTS: dict[str, Callable[[], str]] = {
    "lint": lint,
    # A file's tests share their keys and servers, so a file stays with one process.
    "unit": functools.partial(_pytest, "unit", "tests/unit", "--numprocesses", str(os.cpu_count() or 1), "--dist", "loadfile"),
    "sanity": sanity,
    "demo": functools.partial(_pytest, "demo", "tests/demo"),
}
# What runs side by side: the first two use one core each, and `unit` what they leave. The demonstration is the longest, so it begins.
STAGES = (("lint", "sanity", "unit"), ("demo", "molecule"))
ORDER = tuple(part for stage in STAGES for part in stage)


def table(results: Sequence[Result]) -> str:
    """The parts, one a line, those that failed at the end (somebody may see no more of it), and the counts alone on the last line."""
    order = (PASSED, SKIPPED, FAILED)
    results = sorted(results, key=lambda result: order.index(result.state))
    width = max((len(result.name) for result in results), default=4)
    lines = [f"{'part':<{width}}  result   time    reason"]
    for result in results:
        lines.append(f"{result.name:<{width}}  {result.state:<7} {result.seconds:5.0f} s  {result.reason}".rstrip())
    counts = {state: sum(result.state == state for result in results) for state in (PASSED, FAILED, SKIPPED)}
    return "\n".join([*lines, "", ", ".join(f"{number} {state}" for state, number in counts.items())])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts that are asked for; 0 when something passed and nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.testrun")
    parser.add_argument("part", nargs="*", help=f"{', '.join(ORDER)} or molecule/<scenario>; default: everything")
    parser.add_argument("--distros", default=os.environ.get("DISTROS", ""), help="hosts of the scenarios, such as 'debian13 ubuntu2404'")
    parser.add_argument("--do", default="test", metavar="COMMAND", help="Molecule command for the scenarios: converge, verify, destroy ...")
    options = parser.parse_args(argv)
    wanted = options.part or list(ORDER)
    distros = options.distros.replace(",", " ").split()
    for distro in distros:
        if distro not in bed.DISTROS:
            parser.error(f"there is no distribution {distro!r}; write one of: {', '.join(bed.DISTROS)}")
    for part in wanted:
        if part not in ORDER and not part.startswith("molecule/"):
            parser.error(f"there is no part {part!r}; write one of: {', '.join(ORDER)} or molecule/<scenario>")

    names = [part.removeprefix("molecule/") for part in wanted if part.startswith("molecule/")]
    if options.do != "test":
        return _by_hand(names, distros, options.do)
    if "molecule" in wanted:
        names = turns(scenarios(), bed.run("git", "-C", str(ROOT), "rev-parse", "HEAD", check=False).stdout)

    results: list[Result] = []
    asked = {part.split("/")[0] for part in wanted}
    for stage in STAGES:
        parts = {part: PARTS[part] for part in stage if part in asked and part in PARTS}
        if "molecule" in stage and names:
            try:
                ensure_bed(distros)
            except BedError as error:
                results += [Result(f"molecule/{name}", FAILED, reason=" ".join(str(error).split())) for name in names]
            else:
                runs = {name: functools.partial(scenario, name, distros) for name in names}
                # Who names scenarios, or asks for them alone, waits for their end.
                everything = not options.part
                parts.update(
                    {f"molecule/{name}": functools.partial(in_time, name, run) if everything else run for name, run in runs.items()}
                )
        if parts:
            say(f"{', '.join(part for part in stage if part in asked)} ...")
            results += run_together(parts, [name for name in names if f"molecule/{name}" in parts])
    print(f"\n{table(results)}", flush=True)
    states = [result.state for result in results]
    return 0 if FAILED not in states and PASSED in states else 1


def _by_hand(names: Sequence[str], distros: Sequence[str], command: str) -> int:
    """One Molecule command with its output on the terminal, while a scenario is being written."""
    for name in names:
        words: list[str | Path] = ["molecule"]
        if distros:
            words += ["-c", ROOT / ".config/molecule/config.yml", "-c", _platforms_file(distros)]
        own = {**environment(), "MOLECULE_EPHEMERAL_DIRECTORY": str(CACHE / "molecule" / name)}
        if distros:
            own["CIVITAS_BED_DISTRO"] = distros[0]
        status = subprocess.run([*map(str, words), *command.split(), "-s", name], cwd=ROOT, env=own, check=False).returncode
        if status != 0:
            return status
    return 0


def _terminated(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = main()
    except KeyboardInterrupt:
        _stop_everything()
        print("\nStopped; hosts of running scenarios were removed.", file=sys.stderr)
        code = 130
    except BedError as error:
        print(error, file=sys.stderr)
        code = 1
    sys.exit(code)
