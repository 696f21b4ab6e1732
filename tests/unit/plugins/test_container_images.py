# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _container_images as images

SUM = "0" * 64


def write_archive(path, tags, members=("manifest.json",), pack=lambda data: data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            data = json.dumps([{"Config": "x.json", "RepoTags": tags, "Layers": []}]).encode()
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    path.write_bytes(pack(buffer.getvalue()))
    return {"name": "civitas/kinto:1", "archive": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


class FakeCommands:
    """Answers what docker answers, and remembers what it was asked."""

    def __init__(self, ids=None, answers=True):
        self.ids, self.answers, self.asked = dict(ids or {}), answers, []

    def __call__(self, command):
        self.asked.append(command[1:])
        if not self.answers:
            return 1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
        if command[1] == "image":
            name = command[-1]
            return (0, f"{self.ids[name]}\n", "") if name in self.ids else (1, "\n", f"Error: No such image: {name}\n")
        if command[1] == "load":
            self.ids["civitas/kinto:1"] = "sha256:loaded"
        return 0, "26.1\n", ""


@pytest.mark.parametrize(
    "name",
    ["civitas/kinto:25.0.0", "kinto:1", "registry.example.org:5000/a/b:v1.2_3", f"a/b:1@sha256:{SUM}"],
)
def test_exact_names_pass(name):
    assert images.name_problem(name) == ""


@pytest.mark.parametrize("name", ["kinto", "registry.example.org:5000/a/b", "Kinto:1", "a b:1", "a:1@sha256:12", "", f"a@sha256:{SUM}"])
def test_names_without_a_tag_are_refused(name):
    assert "write repository:tag" in images.name_problem(name)


@pytest.mark.parametrize("name", ["kinto:latest", "a/b:none", f"kinto:latest@sha256:{SUM}"])
def test_moving_tags_are_refused(name):
    assert "write the tag of one release" in images.name_problem(name)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"name": "a:1", "archive": "/x"}], "has an archive but no sha256"),
        ([{"name": "a:1", "archive": "/x", "sha256": SUM[:-1]}], "has an archive but no sha256"),
        ([{"name": "a:1", "sha256": SUM}], "has a sha256 but no archive"),
        ([{"name": "a:1"}, {"name": "a:1"}], "listed twice"),
        ([{"name": f"a:1@sha256:{SUM}", "archive": "/x", "sha256": SUM}], "without '@sha256"),
    ],
)
def test_a_wrong_list_is_refused(entries, expected):
    assert [problem for problem in images.list_problems(entries) if expected in problem]


def test_all_problems_come_at_once():
    assert len(images.list_problems([{"name": "a"}, {"name": "b:latest"}, {"name": "c:1", "sha256": SUM}])) == 3


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_a_good_archive_passes(tmp_path, pack):
    assert images.archive_problem(write_archive(tmp_path / "a.tar", ["docker.io/civitas/kinto:1"], pack=pack)) == ""


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: {"name": "civitas/kinto:1", "archive": str(path), "sha256": SUM}, "there is no file"),
        (lambda path: {**write_archive(path, ["civitas/kinto:1"]), "sha256": SUM}, "damaged or another one"),
        (lambda path: write_archive(path, ["civitas/kinto:2"]), "which holds civitas/kinto:2"),
        (lambda path: write_archive(path, None), "images without a name"),
        (lambda path: write_archive(path, [], members=["index.json"]), "no manifest.json"),
        (lambda path: write_archive(path, ["civitas/kinto:1"], pack=lambda data: b"junk"), "is no archive of 'docker save'"),
        (
            lambda path: write_archive(path, ["civitas/kinto:1"], pack=lambda data: gzip.compress(data)[:60]),
            "is no archive of 'docker save'",
        ),
    ],
)
def test_a_bad_archive_is_refused(tmp_path, make, expected):
    assert expected in images.archive_problem(make(tmp_path / "a.tar"))


ARCHIVED = {"name": "civitas/kinto:1", "archive": "/x", "sha256": SUM}


@pytest.mark.parametrize(
    ("ids", "ledger", "missing"),
    [
        ({}, {}, True),
        ({"civitas/kinto:1": "sha256:a"}, {}, True),
        ({"civitas/kinto:1": "sha256:a"}, {"civitas/kinto:1": {"archive_sha256": SUM, "id": "sha256:a"}}, False),
        # Somebody gave the tag to another image; the archive was built again; the image was removed.
        ({"civitas/kinto:1": "sha256:b"}, {"civitas/kinto:1": {"archive_sha256": SUM, "id": "sha256:a"}}, True),
        ({"civitas/kinto:1": "sha256:a"}, {"civitas/kinto:1": {"archive_sha256": "1" * 64, "id": "sha256:a"}}, True),
        ({}, {"civitas/kinto:1": {"archive_sha256": SUM, "id": "sha256:a"}}, True),
    ],
)
def test_only_what_differs_is_brought(ids, ledger, missing):
    engine = images.Engine(FakeCommands(ids), "docker")
    right, wanted = images.differences([ARCHIVED], engine, ledger)
    assert wanted == ([ARCHIVED] if missing else [])
    assert list(right) == ([] if missing else ["civitas/kinto:1"])


def test_an_image_without_an_archive_is_right_when_it_is_there():
    engine = images.Engine(FakeCommands({"a:1": "sha256:a"}), "docker")
    assert images.differences([{"name": "a:1"}, {"name": "b:1"}], engine, {}) == ({"a:1": "sha256:a"}, [{"name": "b:1"}])


@pytest.mark.parametrize(("docker", "answers", "why"), [(None, True, "not installed"), ("docker", False, "Cannot connect")])
def test_a_host_without_an_engine_lacks_everything(docker, answers, why):
    engine = images.Engine(FakeCommands(answers=answers), docker)
    assert not engine.present
    assert why in engine.why_absent
    assert images.differences([ARCHIVED], engine, {}) == ({}, [ARCHIVED])


def test_loading_gives_the_id_that_the_engine_uses():
    assert images.Engine(FakeCommands(), "docker").load("civitas/kinto:1", "/x") == "sha256:loaded"


def test_an_archive_that_did_not_bring_the_image_is_an_error():
    with pytest.raises(images.ImagesError, match="is not there after its archive was loaded"):
        images.Engine(FakeCommands(), "docker").load("civitas/other:1", "/x")


def test_an_engine_that_fails_is_not_taken_for_a_missing_image():
    commands = FakeCommands()
    engine = images.Engine(commands, "docker")
    commands.answers = False
    with pytest.raises(images.ImagesError, match="Cannot connect"):
        engine.image_id("a:1")


def test_the_ledger_is_kept(tmp_path):
    path = tmp_path / "civitas" / "images.json"
    images.write_ledger(str(path), {"a:1": {"archive_sha256": SUM, "id": "sha256:a"}})
    assert images.read_ledger(str(path)) == {"a:1": {"archive_sha256": SUM, "id": "sha256:a"}}
    assert [entry.name for entry in path.parent.iterdir()] == ["images.json"]
    path.write_text("{")
    assert images.read_ledger(str(path)) == {}
    assert images.read_ledger(str(tmp_path / "none")) == {}
