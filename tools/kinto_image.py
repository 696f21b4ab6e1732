# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the demo application's image and saves it the way an offline site gets one: an archive with a checksum.

`python -m tools.kinto_image` leaves `.cache/demo/kinto-<version>.tar.gz` and, beside it, a JSON file with
`{image, archive, sha256, id}`. Nothing is built while the inputs stay what they were.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools import bed
from tools.bed import ROOT, BedError, say

SOURCE = Path(__file__).resolve().parent / "kinto"
CACHE = ROOT / ".cache" / "demo"
CONTEXT = CACHE / "kinto-context"
PYTHON = "3.13"  # Debian 13's
BASE = "debian13"


def run(command: list[str], remedy: str) -> str:
    """Runs a command, returns its output; a failure ends with its last lines and the remedy."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-20:])
        raise BedError(f"`{' '.join(command[:4])} ...` failed:\n{lines}", remedy)
    return done.stdout


def version() -> str:
    found = re.search(r"^kinto==([^ \\]+)", (SOURCE / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise BedError(f"{SOURCE / 'requirements.txt'} does not pin kinto.", "Add a line: kinto==<version>")
    return found.group(1)


def inputs_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted([*SOURCE.glob("*.*"), SOURCE / "Dockerfile", Path(__file__)]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def current(record: Path, inputs: str) -> dict[str, str] | None:
    """The record of the last build if the same inputs made it and its archive is whole."""
    try:
        known: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
        if known.pop("inputs") == inputs and sha256_of(Path(known["archive"])) == known["sha256"]:
            return known
    except (OSError, ValueError, KeyError):
        pass
    return None


def install_libraries(architecture: str) -> None:
    """Installs the pinned wheels into the build context, for the image's Python and not for this one."""
    platforms = [f"manylinux2014_{architecture}", *(f"manylinux_2_{minor}_{architecture}" for minor in range(17, 42))]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--require-hashes"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    command += [f"--platform={platform}" for platform in platforms]
    command += [f"--target={CONTEXT / 'lib'}", f"--requirement={SOURCE / 'requirements.txt'}"]
    run(command, "Does pip reach its package index from here? `pip config list` shows what it asks.")
    # Scripts for this machine's Python; the image starts modules.
    shutil.rmtree(CONTEXT / "lib" / "bin", ignore_errors=True)


def save(image: str, archive: Path) -> None:
    """docker save, compressed on the way: a third of the size to hand over, and `docker load` reads it as it is."""
    part = archive.with_suffix(".part")
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as process, part.open("wb") as raw:
        assert process.stdout is not None
        with gzip.GzipFile(filename="", mode="wb", compresslevel=3, fileobj=raw, mtime=0) as stream:
            shutil.copyfileobj(process.stdout, stream, 1 << 20)
    if process.returncode:
        part.unlink()
        raise BedError(f"'docker save {image}' failed with {process.returncode}")
    part.replace(archive)


def ensure_archive() -> dict[str, str]:
    """Returns {image, archive, sha256, id}, building what is missing. Raises bed.BedError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two scenarios that start together build it once.
    with (CACHE / "kinto.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ensure_archive()


def _ensure_archive() -> dict[str, str]:
    release = version()
    archive = CACHE / f"kinto-{release}.tar.gz"
    record = CACHE / f"kinto-{release}.json"
    inputs = inputs_hash()
    known = current(record, inputs)
    if known:
        say(f"demo image: {known['image']} is current ({archive.relative_to(ROOT)})")
        return known

    image = f"civitas/kinto:{release}"
    bed.ensure_engine()
    base = bed.ensure_base(BASE)
    machine = bed.docker("info", "--format", "{{.Architecture}}")
    shutil.rmtree(CONTEXT, ignore_errors=True)
    CONTEXT.mkdir(parents=True)
    for name in ("Dockerfile", "kinto_server.py"):
        shutil.copy(SOURCE / name, CONTEXT / name)
    about = {"name": "kinto", "version": release, "source": "https://github.com/Kinto/kinto"}
    (CONTEXT / "version.json").write_text(json.dumps(about) + "\n", encoding="utf-8")
    say(f"demo image: installing Kinto {release} and its libraries for Python {PYTHON} ({machine})")
    install_libraries(machine)
    say(f"demo image: building {image} on {base}")
    run(
        ["docker", "build", "--quiet", "--build-arg", f"BASE={base}", "--tag", image, str(CONTEXT)],
        "Does a container reach the Debian mirror from here?",
    )
    say(f"demo image: saving {archive.relative_to(ROOT)}")
    save(image, archive)
    identity = bed.docker("image", "inspect", "--format", "{{.Id}}", image)
    result = {"image": image, "archive": str(archive), "sha256": sha256_of(archive), "id": identity}
    record.write_text(json.dumps({**result, "inputs": inputs}, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(CONTEXT)
    say(f"demo image: ready, {archive.stat().st_size / 1e6:.0f} MB")
    return result


def main() -> int:
    try:
        result = ensure_archive()
    except BedError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(result, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
