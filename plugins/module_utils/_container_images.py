# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images of a host: what is asked for, what an archive holds, what the engine has.

Private to the collection: no promise of stability.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import typing as t

from ansible_collections.civitas.hosting.plugins.module_utils._json_file import write_json

# An image as the caller names it: {"name": "repository:tag", "archive": path or None, "sha256": hex or None}.
Image = t.Mapping[str, t.Any]
# Runs a command (a list), returns (rc, stdout, stderr).
Run = t.Callable[[t.List[str]], t.Tuple[int, str, str]]

LEDGER = "/var/lib/civitas/images.json"
# registry:port/path:tag@digest, of which only path and tag must be there.
_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]*(?::[0-9]+/[a-z0-9._/-]+)?:(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})(?:@sha256:[0-9a-f]{64})?")


class ImagesError(Exception):
    """What is wrong with an image, where, and what to write or do; may hold several lines."""


def name_problem(name: str) -> str:
    """Why C(name) does not say exactly one release of an image; empty when it does."""
    found = _NAME.fullmatch(name)
    if not found:
        return f"image '{name}' has no tag or is no image name; write repository:tag, such as civitas/kinto:25.0.0"
    if found["tag"] in ("latest", "none"):
        return f"image '{name}': the tag '{found['tag']}' can mean another program tomorrow; write the tag of one release"
    return ""


def list_problems(images: t.Iterable[Image]) -> t.List[str]:
    """Everything that is wrong with the list itself, before any file or host is looked at."""
    problems = []
    seen: t.Set[str] = set()
    for image in images:
        name = image["name"]
        problem = name_problem(name)
        if problem:
            problems.append(problem)
        if name in seen:
            problems.append(f"image '{name}' is listed twice; remove one entry")
        seen.add(name)
        if image.get("archive"):
            if not re.fullmatch(r"[0-9a-f]{64}", image.get("sha256") or ""):
                problems.append(f"image '{name}' has an archive but no sha256; write the 64 digits that 'sha256sum' prints for it")
            if "@" in name:
                problems.append(f"image '{name}': an archive keeps no digest; write the name without '@sha256:...'")
        elif image.get("sha256"):
            problems.append(f"image '{name}' has a sha256 but no archive; write archive, or name the digest: {name}@sha256:...")
    return problems


def sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def familiar(name: str) -> str:
    """The name as docker shows it, without the parts that it adds by itself."""
    for prefix in ("docker.io/library/", "docker.io/"):
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def archive_tags(path: str) -> t.List[str]:
    """The names in an archive that C(docker save) wrote, compressed or not. Raises ImagesError when it is no such archive."""
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile("manifest.json")
            manifest = json.load(member) if member else []
        return [tag for entry in manifest for tag in entry.get("RepoTags") or []]
    except KeyError:
        raise ImagesError(f"{path} has no manifest.json; write the archive with 'docker save'") from None
    except (tarfile.TarError, EOFError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise ImagesError(f"{path} is no archive of 'docker save' ({reason})") from None


def archive_problem(image: Image) -> str:
    """Why the archive of C(image), a file of this machine, cannot be loaded; empty when it can."""
    name, path = image["name"], image["archive"]
    if not os.path.isfile(path):
        return f"image '{name}': there is no file {path} on the controller; put the archive there or correct its path"
    actual = sha256_of(path)
    if actual != image["sha256"]:
        return (
            f"image '{name}': {path} has the sha256 {actual}, not {image['sha256']}; "
            "it is damaged or another one: fetch it again, or correct sha256"
        )
    try:
        tags = archive_tags(path)
    except ImagesError as error:
        return f"image '{name}': {error}"
    if familiar(name) not in [familiar(tag) for tag in tags]:
        held = ", ".join(tags) or "images without a name"
        return f"image '{name}' is not in {path}, which holds {held}; write one of these names or save the right image"
    return ""


def read_ledger(path: str) -> t.Dict[str, t.Dict[str, str]]:
    """name -> {archive_sha256, id}: which archive an image of the engine came from."""
    try:
        with open(path, encoding="utf-8") as stream:
            ledger = json.load(stream)
    except (FileNotFoundError, ValueError):
        # Nothing but a memory of what was loaded: without it, archives are loaded once more.
        return {}
    return ledger if isinstance(ledger, dict) else {}


def write_ledger(path: str, ledger: t.Mapping[str, t.Any]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_json(path, ledger)


def last_lines(text: str, count: int = 10) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


class Engine:
    """The container engine of this host, through its command line."""

    def __init__(self, run: Run, docker: t.Optional[str]) -> None:
        self.run = run
        self.docker = docker or "docker"
        self.why_absent = "" if docker else "the command docker is not installed"
        if docker:
            rc, _out, err = run([docker, "version", "--format", "{{.Server.Version}}"])
            if rc != 0:
                self.why_absent = last_lines(err, 1) or "docker does not answer"

    @property
    def present(self) -> bool:
        return not self.why_absent

    def image_id(self, name: str) -> t.Optional[str]:
        rc, out, err = self.run([self.docker, "image", "inspect", "--format", "{{.Id}}", name])
        if rc == 0:
            return out.strip()
        if "no such image" in err.lower():
            return None
        raise ImagesError(f"image '{name}': docker image inspect failed: {last_lines(err, 3)}")

    def load(self, name: str, path: str) -> str:
        """Load the archive, return the id that C(name) has now."""
        rc, out, err = self.run([self.docker, "load", "--quiet", "--input", path])
        if rc != 0:
            raise ImagesError(f"image '{name}': docker load failed: {last_lines(err or out)}")
        identity = self.image_id(name)
        if identity is None:
            raise ImagesError(f"image '{name}' is not there after its archive was loaded; docker said: {last_lines(out)}")
        return identity

    def pull(self, name: str) -> str:
        rc, out, err = self.run([self.docker, "pull", "--quiet", name])
        identity = self.image_id(name) if rc == 0 else None
        if identity is None:
            raise ImagesError(
                f"image '{name}' could not be pulled: {last_lines(err or out)}\n"
                "Give it as an archive of 'docker save' with its sha256, or let the host reach its registry"
            )
        return identity


def differences(
    images: t.Iterable[Image], engine: Engine, ledger: t.Mapping[str, t.Mapping[str, str]]
) -> t.Tuple[t.Dict[str, str], t.List[Image]]:
    """(name -> id of the images that are right, the images to load or pull).

    An image from an archive is right when the engine's image is the one that this very archive became: the tag alone would not notice an
    archive that was built again, and an id inside the archive is not what every image store calls it.
    """
    right: t.Dict[str, str] = {}
    wanted: t.List[Image] = []
    for image in images:
        identity = engine.image_id(image["name"]) if engine.present else None
        known = ledger.get(image["name"], {})
        if identity and (not image.get("archive") or (known.get("archive_sha256") == image["sha256"] and known.get("id") == identity)):
            right[image["name"]] = identity
        else:
            wanted.append(image)
    return right, wanted
