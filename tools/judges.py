# SPDX-License-Identifier: GPL-3.0-or-later
"""Independent judges: gixy (nginx's configuration), testssl.sh (grade) and sslyze (Mozilla's profiles) of the TLS edge, promtool of rules.

    python -m tools.judges    installs them: an environment of pinned versions in .cache, and an image of the test bed

Each judge returns what it objects to, and raises BedError when it could not judge: silence is never agreement.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import bed
from tools.bed import BedError, say

SOURCES = bed.ROOT / "tests" / "judges"
REQUIREMENTS = SOURCES / "requirements.txt"
ENVIRONMENT = bed.CACHE / "judges"
IMAGE = "civitas-bed/judges"
# Everything but the table of what 60 browsers would negotiate: a third of the time, and no part of the grade.
_WHAT_IS_TESTED = (
    "--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--headers", "--vulnerable",
)  # fmt: skip
# The oldest and the newest Prometheus of the distributions that may evaluate the rules.
PROMTOOLS = ("debian12", "debian13")
_CA_IN_IMAGE = "/usr/local/share/civitas-ca.pem"


# --- their installation


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    bed.CACHE.mkdir(exist_ok=True)
    with (bed.CACHE / "judges.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def ensure_programs(requirements: Path = REQUIREMENTS, environment: Path = ENVIRONMENT) -> Path:
    """The directory with the programs `gixy` and `sslyze` of the pinned versions; installed when missing or when the pins changed.

    Raises BedError when the packages cannot be had.
    """
    stamp = environment / f"made-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]}"
    with _one_at_a_time():
        if not stamp.exists():
            say(f"installing the judges of the TLS edge ({requirements.name})")
            shutil.rmtree(environment, ignore_errors=True)
            bed.run(sys.executable, "-m", "venv", "--without-pip", str(environment), timeout=120)
            pip = [sys.executable, "-m", "pip", "--python", str(environment), "install", "--quiet", "--disable-pip-version-check"]
            try:
                bed.run(*pip, "--retries", "1", "--requirement", str(requirements), timeout=600)
            except BedError as error:
                raise BedError(f"The packages of {requirements} cannot be had: {error.message}") from None
            stamp.touch()
    return environment / "bin"


def ensure_image() -> str:
    """The image with testssl.sh and the load generators of the bench; made when missing or when its files changed. Returns its name."""
    bed.ensure_engine()
    digest = bed._digest(SOURCES / "image")
    if not bed._image_has(IMAGE, digest):
        with bed.locked():
            if not bed._image_has(IMAGE, digest):
                bed._build(IMAGE, digest, bed.ensure_base("debian13"), SOURCES / "image")
    return IMAGE


def ensure_promtool(name: str) -> str:
    """The image with promtool of a distribution; made when missing or when its files changed. Returns its name. Raises BedError."""
    bed.ensure_engine()
    image, files = f"civitas-bed/promtool-{name}", SOURCES / "promtool"
    digest = bed._digest(files)
    if not bed._image_has(image, digest):
        with bed.locked():
            if not bed._image_has(image, digest):
                bed._build(image, digest, bed.ensure_base(name), files)
    return image


# --- promtool


def promtool(name: str, files: Mapping[str, str], *arguments: str) -> str:
    """What promtool of a distribution objects to; empty when it agrees.

    files: name to content, those that the arguments name.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content.encode())
            tar.addfile(member, io.BytesIO(content.encode()))
    # Files go in as a stream and not as mounts: the engine may be another machine's.
    script = 'tar --extract --directory /tmp && cd /tmp && exec promtool "$@"'
    command = ["docker", "run", "--rm", "--interactive", *_labels(), "--network", "none", ensure_promtool(name), "sh", "-c", script, "sh"]
    done = subprocess.run([*command, *arguments], input=archive.getvalue(), capture_output=True, timeout=600, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode not in (0, 1) or (done.returncode == 0 and "SUCCESS" not in said):
        raise BedError(f"promtool could not judge: exit status {done.returncode}: {said[-500:]}")
    return said if done.returncode else ""


# --- gixy


@dataclass(frozen=True)
class Finding:
    """What a judge objects to. check: the judge's own name of it."""

    check: str
    severity: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity} {self.check}: {self.text}"


def gixy(dump: str) -> list[Finding]:
    """Findings of any level over a whole configuration, given as the output of `nginx -T`."""
    if "# configuration file " not in dump:
        raise BedError("gixy was given no output of `nginx -T`.")
    done = _program("gixy", "--format", "json", "-", stdin=dump)
    # 1 says that there are findings; a configuration that it cannot read is no list either.
    if done.returncode not in (0, 1) or not done.stdout.lstrip().startswith("["):
        raise BedError(f"gixy could not judge: {_last_words(done)}")
    found = [Finding(item["plugin"], item["severity"], _one_line(item)) for item in json.loads(done.stdout)]
    if bool(found) != bool(done.returncode):
        raise BedError(f"gixy contradicts itself: {len(found)} findings and exit status {done.returncode}")
    return found


def _one_line(item: dict[str, Any]) -> str:
    """Why and where; gixy puts all places with the same fault into one finding."""
    return " ".join(f"{item['reason'] or item['summary']} In: {item['config']}".split())


# --- sslyze


def sslyze(address: str, port: int, name: str, ca_file: Path, profile: str) -> dict[str, str]:
    """What in the handshake of a server does not follow Mozilla's profile (`modern` or `intermediate`): criterion to sentence.

    An empty answer is given only when sslyze has said in words that the server is compliant.
    """
    done = _program(
        "sslyze", f"--mozilla_config={profile}", f"--certinfo_ca_file={ca_file}", f"{name}:{port}{{{address}}}",
    )  # fmt: skip
    verdict = done.stdout.rpartition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    issues = dict(re.findall(r"^\s+\* (\w+): (.+)$", verdict, re.M))
    # It ends with 0 also when there was nobody to talk to.
    if not issues and (done.returncode or f'"{profile}"' not in verdict or "OK - Compliant." not in verdict):
        raise BedError(f"sslyze could not judge {name} at {address}:{port}: {_last_words(done)}")
    return issues


# --- testssl.sh


@dataclass(frozen=True)
class Grade:
    """What testssl.sh says. reasons: why it is not better; findings: those of some severity, by id."""

    grade: str
    score: int
    reasons: list[str]
    findings: list[Finding]


def testssl(address: str, port: int, name: str, ca_file: Path) -> Grade:
    """The grade of a server whose certificate the given CA has issued. Takes about a minute."""
    image = ensure_image()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ca_file, Path(folder) / "ca.pem")
        # Files go in and out as streams and not as mounts: the engine may be another machine's.
        box = bed.docker(
            "create", *_labels(), "--network", bed.NETWORK, "--add-host", f"{name}:{address}", image,
            "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", address, "--add-ca", _CA_IN_IMAGE,
            *_WHAT_IS_TESTED, "--jsonfile", "/tmp/findings.json", f"{name}:{port}",
        )  # fmt: skip
        try:
            bed.docker("cp", f"{folder}/ca.pem", f"{box}:{_CA_IN_IMAGE}")
            # Its exit status counts findings; what it wrote tells whether it came to the end.
            done = bed.run("docker", "start", "--attach", box, timeout=900, check=False)
            bed.docker("cp", f"{box}:/tmp/findings.json", folder, check=False)
        finally:
            bed.remove_host(box)
        written = Path(folder) / "findings.json"
        try:
            answers = json.loads(written.read_text())
        except (OSError, ValueError):
            raise BedError(f"testssl.sh could not judge {name} at {address}:{port}: {_last_words(done)}") from None
    return grade(answers)


def _labels() -> list[str]:
    """By which the bed removes what a killed run left."""
    scenario = os.environ.get("MOLECULE_SCENARIO_NAME", "")
    return ["--label", f"{bed.LABEL}={bed.CHECKOUT}", *(["--label", f"{bed.LABEL}.scenario={scenario}"] if scenario else [])]


def grade(answers: list[dict[str, Any]]) -> Grade:
    """The grade in testssl.sh's JSON. BedError when it gave none."""
    said = {answer["id"]: str(answer["finding"]) for answer in answers}
    if "overall_grade" not in said:
        fatal = [str(answer["finding"]) for answer in answers if answer["severity"] in ("FATAL", "WARN")]
        raise BedError(f"testssl.sh gave no grade: {'; '.join(fatal) or 'it did not come to its end'}")
    return Grade(
        said["overall_grade"],
        int(said["final_score"]),
        [text for key, text in said.items() if key.startswith(("grade_cap_reason", "grade_cap_warning"))],
        [Finding(answer["id"], answer["severity"], str(answer["finding"])) for answer in answers if answer["severity"] in SEVERITIES],
    )


# WARN is about testssl.sh itself.
SEVERITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")


# --- common


@functools.cache
def _programs() -> Path:
    return ensure_programs()


def _program(name: str, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return bed.run(str(_programs() / name), *arguments, stdin=stdin, timeout=300, check=False)


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip(" -=")]
    return f"exit status {done.returncode}: {' | '.join(lines[-3:])}"


def main() -> int:
    try:
        ensure_programs()
        ensure_image()
        for name in PROMTOOLS:
            ensure_promtool(name)
    except BedError as error:
        print(error, file=sys.stderr)
        return 1
    say("the judges are ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
