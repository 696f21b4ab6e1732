# SPDX-License-Identifier: GPL-3.0-or-later
"""The tree on real files: what is refused, what is changed, what is put back."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import posixpath
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _config_tree as ct
from ansible_collections.civitas.hosting.plugins.module_utils._config_tree import TreeError, apply, build, encode, plan
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

ME = pwd.getpwuid(os.geteuid()).pw_name
MINE = grp.getgrgid(os.getegid()).gr_name
NOBODY = "no-such-user-7f3a"
CANARY = "canary-93c1e7"


def tree(root, files=None, **options):
    """Parameters as the module gets them; files are path: text, or path: (text, options)."""
    attributes, contents = {}, {}
    for path, value in (files or {}).items():
        content, extra = value if isinstance(value, tuple) else (value, {})
        attributes[path] = extra
        contents[path] = encode(content if isinstance(content, bytes) else content.encode())
    return {"root": str(root), "owner": ME, "group": MINE, "files": attributes, "contents": contents, **options}


def run(root, files=None, **options):
    todo = plan(build(tree(root, files, **options)))
    apply(todo)
    return todo


def refused(root, files=None, check_mode=False, **options):
    """The problems of a tree that must be refused, after proof that nothing below root has changed."""
    before = state(root)
    with pytest.raises(TreeError) as caught:
        todo = plan(build(tree(root, files, **options)), check_mode)
        apply(todo)
    assert state(root) == before
    return caught.value.problems


def state(root):
    """Everything that can be seen of a directory: names, kinds, contents, owners, modes."""
    seen = {}
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = b""
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path).encode()
            seen[path] = (stat.S_IFMT(status.st_mode), ct.Ids.of(status), hashlib.sha256(content).hexdigest())
    return seen


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    return path


def program(path, body):
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


# --- description


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("../etc/passwd", "without '..'"),
        ("etc/../../passwd", "without '..'"),
        ("etc/..", "without '..'"),
        ("/etc/passwd", "write 'etc/passwd'"),
        ("//etc/passwd", "write 'etc/passwd'"),
        ("etc//x", "write 'etc/x'"),
        ("./etc", "write 'etc'"),
        ("etc/", "write 'etc'"),
        (".", "root itself"),
        ("/", "root itself"),
        ("", "a path is expected"),
        ("etc/a\nb", "characters that cannot be seen"),
        ("etc/a\0b", "characters that cannot be seen"),
        ("etc/\udcff", "characters that cannot be seen"),
        ("a" * 256, "longer than 255"),
        (None, "a path is expected"),
        (7, "a path is expected"),
    ],
)
def test_hostile_paths(root, path, remedy):
    for options in (
        {"files": {path: "x"}},
        {"links": {path: "x"}},
        {"directories": {path: {}}},
        {"absent": [path]},
    ):
        problems = refused(root, **options)
        assert len(problems) == 1
        assert remedy in problems[0]


@pytest.mark.parametrize("mode", [420, 644, 0, True, "u=rw", "0888", "rw-r--r--", "64", "00000644", "0644\n", ""])
def test_bad_modes(root, mode):
    (problem,) = refused(root, {"etc/a": ("x", {"mode": mode})})
    assert problem.startswith("etc/a: the mode ")
    assert 'mode: "0644"' in problem


def test_bad_default_is_named_once(root):
    assert len(refused(root, {"a": "x", "b": "x", "c": "x"}, mode=420)) == 1


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ({"a": "x"}, {"links": {"a": "b"}}, "a: is a file and a link at once"),
        ({"a": "x"}, {"directories": {"a": {}}}, "a: is a file and a directory at once"),
        ({"a": "x"}, {"absent": ["a"]}, "a: is a file and absent at once"),
        ({}, {"links": {"a": "b"}, "absent": ["a"]}, "a: is a link and absent at once"),
        ({}, {"directories": {"a": {}}, "absent": ["a"]}, "a: is a directory and absent at once"),
        ({"a": "x", "a/b": "x"}, {}, "a/b: lies below a, which is a file"),
        ({"a/b/c": "x"}, {"links": {"a": "/etc"}}, "a/b/c: lies below a, which is a link"),
        ({"a/b": "x"}, {"absent": ["a"]}, "a/b: lies below a, which is absent"),
        ({"a": ("x", {"moed": "0644"})}, {}, "a: the option 'moed' is not known"),
        ({"a": ("x", {"owner": True})}, {}, "a: the owner True is neither"),
        ({"a": ("x", {"owner": "x y"})}, {}, "a: the owner 'x y' is neither"),
        ({"a": ("x", {"enabled": "perhaps"})}, {}, "a: enabled is neither true nor false"),
        ({"a": ("x", {"secret": "perhaps"})}, {}, "a: secret is neither true nor false"),
        ({"a": ("x", {"validate": "/bin/true"})}, {}, "a: validate lacks %s"),
        ({"a": ("x", {"validate": "/bin/true '%s"})}, {}, "a: validate cannot be split"),
        ({"a": ("x", {"validate": ""})}, {}, "a: validate is empty"),
        ({"a": ("x", {"validate": ["/bin/true"]})}, {}, "a: validate is not a text"),
        ({}, {"verify": [" "]}, "verify: verify is empty"),
        ({}, {"verify": "nginx -t"}, "verify: a list is expected"),
        ({}, {"absent": "a"}, "absent: a list is expected"),
        ({}, {"links": ["a"]}, "links: a mapping is expected"),
        ({}, {"links": {"a": None}}, "a: a link's target is a path"),
        ({}, {"directories": {"a": {"keep": "*.local"}}}, "a: keep is not a list"),
        ({}, {"directories": {"a": ["x"]}}, "a: a mapping is expected"),
        ({}, {"root": "srv"}, "root: 'srv' is not an absolute path"),
        ({}, {"root": "/srv/../etc"}, "root: '/srv/../etc' is not an absolute path"),
        ({}, {"root": "/", "directories": {"etc": {"exclusive": True}}}, "etc: is a directory of the whole system"),
        ({}, {"files": {"a": {}}}, "a: has no content"),
    ],
)
def test_bad_descriptions(root, files, options, expected):
    params = tree(root, files)
    params.update(options)
    with pytest.raises(TreeError) as caught:
        build(params)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(expected)


def test_all_problems_at_once(root):
    problems = refused(root, {"../a": "x", "b": ("x", {"mode": 1}), "c": ("x", {"validate": "true"})}, absent=["/d"])
    assert [problem.split(":")[0] for problem in problems] == ["../a", "b", "c", "/d"]


# --- application


def test_first_second_and_changed_run(root):
    files = {"etc/a.conf": ("one\n", {"mode": "0640"}), "etc/deep/er/b": b"\0\xff"}
    options = {"links": {"etc/l": "a.conf"}, "directories": {"srv/d": {"mode": "0750"}}, "directory_mode": "0711"}
    todo = run(root, files, **options)
    assert todo.changed_paths == [f"{root}/etc/a.conf", f"{root}/etc/deep/er/b", f"{root}/etc/l"]
    assert (root / "etc/a.conf").read_text() == "one\n"
    assert (root / "etc/deep/er/b").read_bytes() == b"\0\xff"
    assert os.readlink(root / "etc/l") == "a.conf"
    made = ("etc", "etc/deep/er", "srv", "srv/d", "etc/a.conf", "etc/deep/er/b")
    modes = {path: stat.S_IMODE(os.lstat(root / path).st_mode) for path in made}
    assert modes == {"etc": 0o711, "etc/deep/er": 0o711, "srv": 0o711, "srv/d": 0o750, "etc/a.conf": 0o640, "etc/deep/er/b": 0o644}

    inodes = {path: os.lstat(path).st_ino for path in state(root)}
    again = run(root, files, **options)
    assert not again.changed
    assert (again.changed_paths, again.removed_paths, again.diff) == ([], [], [])
    assert inodes == {path: os.lstat(path).st_ino for path in state(root)}

    files["etc/a.conf"] = ("two\n", {"mode": "0640"})
    assert run(root, files, **options).changed_paths == [f"{root}/etc/a.conf"]
    assert (root / "etc/a.conf").read_text() == "two\n"


def test_change_of_mode_only_keeps_the_file(root):
    run(root, {"a": "x"})
    inode = (root / "a").stat().st_ino
    todo = run(root, {"a": ("x", {"mode": "0600"})})
    assert todo.changed_paths == [f"{root}/a"]
    assert (root / "a").stat().st_ino == inode
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o600
    (entry,) = todo.diff
    assert entry["before_header"] == f"{root}/a (attributes)"
    assert (entry["before"].splitlines()[-1], entry["after"].splitlines()[-1]) == ("mode: 0644", "mode: 0600")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_and_group(root):
    todo = run(root, {"a": ("x", {"owner": "nobody", "group": "4242", "mode": "4755"})})
    status = (root / "a").stat()
    assert (status.st_uid, status.st_gid) == (pwd.getpwnam("nobody").pw_uid, 4242)
    assert stat.S_IMODE(status.st_mode) == 0o4755
    assert todo.changed
    assert not run(root, {"a": ("x", {"owner": "nobody", "group": "4242", "mode": "4755"})}).changed
    run(root, {"a": ("x", {"mode": "4755"})})
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o4755  # chown clears the bit, it is set again


def test_existing_directories_that_are_not_listed_are_left_alone(root):
    (root / "etc").mkdir(mode=0o700)
    run(root, {"etc/a": "x"}, directory_mode="0755")
    assert stat.S_IMODE((root / "etc").stat().st_mode) == 0o700


def test_switched_off_files_are_removed(root):
    run(root, {"a": "x", "b": "x"})
    todo = run(root, {"a": ("", {"enabled": False}), "b": "x", "gone/below": ("", {"enabled": "no"})})
    assert todo.removed_paths == [f"{root}/a"]
    assert os.listdir(root) == ["b"]


def test_exclusive_directory(root):
    run(root, {"sites/a": "x", "sites/b": "x", "sites/below/c": "x"}, links={"sites/l": "a", "sites/m": "a"})
    (root / "sites/mine.local").write_text("x")
    os.mkfifo(root / "sites/pipe")
    options = {"directories": {"sites": {"exclusive": True, "keep": ["*.local"]}}, "links": {"sites/m": "a"}}
    todo = run(root, {"sites/a": "x"}, **options)
    assert todo.removed_paths == [f"{root}/sites/b", f"{root}/sites/l"]
    assert sorted(os.listdir(root / "sites")) == ["a", "below", "m", "mine.local", "pipe"]
    assert os.listdir(root / "sites/below") == ["c"]
    assert not run(root, {"sites/a": "x"}, **options).changed


def test_absent(root):
    run(root, {"a": "x"}, links={"l": "/nowhere"})
    todo = run(root, absent=["a", "l", "never", "no/such/directory"])
    assert todo.removed_paths == [f"{root}/a", f"{root}/l"]
    assert os.listdir(root) == []


def test_check_mode_equals_the_real_run_and_writes_nothing(root):
    run(root, {"a": "x", "b": "x", "sites/old": "x"}, links={"l": "a"})
    files = {"a": "y", "b": ("x", {"mode": "0600"}), "c/d": "x", "e": ("", {"enabled": False})}
    options = {"links": {"l": "b"}, "directories": {"sites": {"exclusive": True}, "f": {}}, "absent": ["a2"], "verify": ["/bin/false-7"]}
    before = state(root)
    foreseen = plan(build(tree(root, files, **options)), check_mode=True)
    assert state(root) == before
    options["verify"] = []
    done = run(root, files, **options)
    assert (foreseen.changed_paths, foreseen.removed_paths, foreseen.diff) == (done.changed_paths, done.removed_paths, done.diff)


def test_fresh_host_in_check_mode(tmp_path):
    """Neither the user nor the command nor the root is there yet."""
    files = {"etc/a": ("x", {"owner": NOBODY, "group": NOBODY, "validate": "/no/such/command %s"})}
    todo = plan(build(tree(tmp_path / "later", files, verify=["/no/such/command"])), check_mode=True)
    assert todo.changed_paths == [f"{tmp_path}/later/etc/a"]
    assert f"owner: {NOBODY}\n" in todo.diff[-1]["after"]
    with pytest.raises(TreeError, match="is no directory on the host; create it"):
        plan(build(tree(tmp_path / "later", {"etc/a": "x"})))


# --- what a host may have against it


def test_unknown_user_group_and_commands(root):
    run(root, {"old": "x"})
    problems = refused(
        root,
        {"a": ("x", {"owner": NOBODY}), "b": ("x", {"group": NOBODY}), "c": ("x", {"validate": "/no/command %s"}), "old": "y"},
        verify=["no-such-command-1 -t"],
    )
    assert [problem.split("; ")[0] for problem in problems] == [
        f"{root}/a: the owner {NOBODY} does not exist on the host",
        f"{root}/b: the group {NOBODY} does not exist on the host",
        f"{root}/c: the command /no/command does not exist on the host",
        "verify: the command no-such-command-1 does not exist on the host",
    ]


def test_unknown_owner_of_a_directory_that_has_to_be_made(root):
    params = tree(root, {"new/a": ("x", {"owner": ME, "group": MINE})})
    params["owner"] = NOBODY
    with pytest.raises(TreeError, match=f"new: the owner {NOBODY} does not exist"):
        plan(build(params))


def test_target_of_another_kind(root):
    (root / "dir").mkdir()
    (root / "file").write_text("x")
    os.symlink("file", root / "link")
    os.mkfifo(root / "pipe")
    assert "is a directory on the host, but a file is due" in refused(root, {"dir": "x"})[0]
    assert "is a link to file on the host; put that path into the tree" in refused(root, {"link": "x"})[0]
    assert "is a device, pipe or socket on the host, but a file" in refused(root, {"pipe": "x"})[0]
    assert "is a file on the host, but a link is due" in refused(root, links={"file": "x"})[0]
    assert "is a directory on the host, but a link is due" in refused(root, links={"dir": "x"})[0]
    assert "absent removes files and links only" in refused(root, absent=["dir"])[0]
    assert "is no directory on the host" in refused(root, {"file/below": "x"})[0]
    assert "is no directory on the host" in refused(root, directories={"file": {}})[0]
    (root / "to").mkdir()
    os.symlink("to", root / "elsewhere")
    assert "is a link to" in refused(root, directories={"elsewhere": {}})[0]


def test_parent_links_stay_below_root(root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("x")
    (root / "inside").mkdir()
    os.symlink(outside, root / "out")
    os.symlink("../outside", root / "relative")
    os.symlink("inside", root / "in")
    os.symlink("nowhere", root / "dangling")
    before = state(outside)
    for path in ("out/a", "relative/a", "out/new/a"):
        assert "leaves the root" in refused(root, {path: "y"})[0]
        assert "leaves the root" in refused(root, links={path: "y"})[0]
        assert "leaves the root" in refused(root, absent=[path])[0]
    for path in ("out", "relative", "out/new"):
        assert "leaves the root" in refused(root, directories={path: {"exclusive": True}})[0]
    assert "leads to no directory" in refused(root, {"dangling/a": "y"})[0]
    assert state(outside) == before
    assert not (root / "nowhere").exists()
    run(root, {"in/a": "x"})
    assert (root / "inside/a").read_text() == "x"
    assert "is the same place as" in refused(root, {"in/a": "y", "inside/a": "z"})[0]
    assert "is the same place as" in refused(root, {"in/a": "y"}, absent=["inside/a"])[0]


def test_one_directory_by_two_names_is_made_once(root):
    (root / "usr/lib").mkdir(parents=True)
    os.symlink("usr/lib", root / "lib")
    files = {"lib/new/a": "x", "usr/lib/new/b": "x"}
    options = {"directories": {"usr/lib/new": {"mode": "0750"}}}
    run(root, files, **options)
    assert stat.S_IMODE((root / "lib/new").stat().st_mode) == 0o750
    assert not run(root, files, **options).changed


# --- validation, verification, putting back


def test_failing_validation_shows_output_and_all_of_them(root, tmp_path):
    run(root, {"a": "old"})
    beside = 'case "$2" in */.civitas-*.c|*/.civitas-*.a) ;; *) exit 9;; esac\n'
    judge = program(tmp_path / "judge", beside + 'echo "bad line: $(cat "$2")"; exit 3\n')
    validate = {"validate": f"{judge} --file %s"}
    problems = refused(root, {"a": ("one", validate), "b": "x", "new/c": ("two", validate)})
    assert [problem.split(": validate failed")[0] for problem in problems] == [f"{root}/a", f"{root}/new/c"]
    assert "ended with 3: bad line: one" in problems[0]
    assert "ended with 3: bad line: two" in problems[1]


def test_validation_sees_the_final_owner_and_mode_and_no_shell(root, tmp_path):
    log = tmp_path / "log"
    judge = program(tmp_path / "judge", f'stat -c %a "$2" >> {log}; echo "$1" >> {log}\n')
    run(root, {"a": ("x", {"mode": "0604", "validate": f"{judge} '$(id) ; *' %s"})})
    assert log.read_text() == "604\n$(id) ; *\n"
    run(root, {"a": ("x", {"mode": "0604", "validate": f"{judge} again %s"})})
    assert "again" not in log.read_text()  # nothing to judge when the content stays


def test_failing_verify_puts_everything_back(root, tmp_path):
    run(root, {"a": ("old", {"mode": "0600"}), "sites/gone": "x", "b": "x", "same": "x"}, links={"l": "a", "k": "a"})
    (root / "sites").chmod(0o700)
    inode = (root / "a").stat().st_ino
    seen = tmp_path / "seen"
    look = f"cat {root}/a {root}/n/e/w > {seen}; ls {root}/sites >> {seen}; readlink {root}/l >> {seen}\n"
    judge = program(tmp_path / "judge", look + "echo because; exit 1\n")
    (problem,) = refused(
        root,
        {"a": "new", "n/e/w": "fresh\n", "b": ("x", {"mode": "0600"}), "same": "x"},
        links={"l": "b", "m": "b"},
        absent=["k"],
        directories={"sites": {"exclusive": True}},
        verify=["true", judge],
    )
    assert problem.startswith("verify failed:")
    assert problem.endswith("ended with 1: because")
    assert seen.read_text() == "newfresh\nb\n"  # it judged the new state
    assert (root / "a").stat().st_ino == inode


def test_verify_runs_only_after_a_change(root, tmp_path):
    log = tmp_path / "log"
    judge = program(tmp_path / "judge", f"echo run >> {log}\n")
    run(root, {"a": "x"}, verify=[judge])
    run(root, {"a": "x"}, verify=[judge])
    assert log.read_text() == "run\n"
    assert not run(root, {"a": "x"}, verify=["/no/such/command"]).changed


def test_error_while_renaming_puts_everything_back(root, monkeypatch):
    """The one fault that cannot be had from a real file system at will: the third rename fails."""
    files = {name: f"old {name}" for name in "abcde"}
    run(root, files, links={"l": "a"})
    real, calls = os.rename, []

    def rename(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    (problem,) = refused(root, {name: f"new {name}" for name in "abcdef"}, links={"l": "b"}, absent=["z"])
    assert problem == f"{root}/c: Input/output error"


@pytest.mark.skipif(shutil.which("chattr") is None or os.geteuid() != 0, reason="needs root and chattr")
def test_immutable_file_puts_everything_back(root):
    run(root, {"a": "old", "b": "old", "c": "old"})
    if subprocess.run(["chattr", "+i", root / "c"], capture_output=True, check=False).returncode:
        pytest.skip("the file system has no immutable files")
    try:
        (problem,) = refused(root, {"a": "new", "b": "new", "c": "new", "d/e": "new"})
        assert problem == f"{root}/c: Operation not permitted"
    finally:
        subprocess.run(["chattr", "-i", root / "c"], check=True)


def test_what_cannot_be_put_back_is_kept_and_named(root, monkeypatch):
    run(root, {"a": "old"})
    real = os.rename

    def rename(source, target):
        if source.endswith("~"):
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(TreeError) as caught:
        run(root, {"a": "new"}, verify=["/bin/false"])
    assert "not all could be put back" in str(caught.value)
    kept = caught.value.problems[-1].split("it is kept as ")[1].split(";")[0]
    assert Path(kept).read_text() == "old"


def test_full_disk_while_staging(root):
    """A file size limit stands for the full disk: the same place, the same clean-up."""
    run(root, {"a": "old"})
    code = (
        "import resource, signal, sys, json; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "import _config_tree as ct;"
        "params = json.load(sys.stdin)\n"
        "try: ct.apply(ct.plan(ct.build(params)))\n"
        "except ct.TreeError as error: print(error)"
    )
    before = state(root)
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(tree(root, {"a": "new", "big": "x" * 5000, "c/d": "x"})),
        capture_output=True,
        text=True,
        check=True,
        env=child_environment(),
    )
    assert done.stdout == f"{root}/big: File too large (all was put back)\n"
    assert state(root) == before


# --- secrets


def test_secret_contents_are_in_no_result(root, tmp_path):
    run(root, {"s": CANARY + "old"})
    secret = {"secret": True, "mode": "0600"}
    todo = plan(build(tree(root, {"s": (CANARY, secret), "off": ("", {"enabled": False, "secret": True})})))
    assert CANARY not in repr(todo.diff)
    assert todo.diff[0]["before"] != todo.diff[0]["after"]  # the change itself is shown
    judge = program(tmp_path / "judge", f'cat "$1" {root}/s; exit 1\n')
    for files, verify in (
        ({"s": (CANARY, {**secret, "validate": f"{judge} %s"})}, []),
        ({"s": (CANARY, secret), "plain": ("x", {"validate": f"{judge} %s"})}, []),
        ({"s": (CANARY, secret)}, [judge + " /dev/null"]),
        ({"s": ("", {"secret": True, "enabled": False}), "plain": "x"}, [judge + " /dev/null"]),
    ):
        (problem,) = refused(root, files, verify=verify)
        assert CANARY not in problem
        assert "ended with 1: (output not shown" in problem


def test_contents_of_removed_files_are_not_shown(root):
    run(root, {"d/s": CANARY, "t": CANARY})
    todo = run(root, directories={"d": {"exclusive": True}}, absent=["t"])
    assert len(todo.diff) == 2
    assert CANARY not in repr(todo.diff)


def test_diff_of_what_is_no_text_or_too_large(root):
    run(root, {"a": b"\xff", "b": "x" * (ct.DIFF_LIMIT + 1)})
    todo = run(root, {"a": "text\n", "b": "y"})
    entries = {entry["before_header"]: (entry["before"], entry["after"]) for entry in todo.diff}
    assert entries[f"{root}/a"] == ("(content that is no text)\n", "text\n")
    assert len(entries[f"{root}/b"][0]) < 80


# --- kill and signals


def child_environment():
    return {**os.environ, "PYTHONPATH": os.path.dirname(ct.__file__)}


# Ends without a word after so many files were put in place.
KILLED = """
import json, os, signal, sys
import _config_tree as ct
rename, left = os.rename, int(sys.argv[1])
def renamed(*names):
    global left
    rename(*names)
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
os.rename = renamed
ct.apply(ct.plan(ct.build(json.load(sys.stdin))))
"""


@pytest.mark.parametrize("moment", [1, 2, 51, 149, 150])
def test_killed_in_the_middle(root, moment):
    """Whatever the moment, each file is the old or the new one, and the next run completes the work and leaves no trace."""
    names = [f"d{index // 50}/f{index:03}" for index in range(150)]
    texts = {word: word * 100 for word in ("old", "new")}
    run(root, dict.fromkeys(names, texts["old"]))
    params = json.dumps(tree(root, dict.fromkeys(names, texts["new"]))).encode()
    done = subprocess.run([sys.executable, "-c", KILLED, str(moment)], input=params, env=child_environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted((root / name).read_text() for name in names) == [texts["new"]] * moment + [texts["old"]] * (150 - moment)
    assert any(".civitas-" in path for path in state(root)), "the kill left nothing; the clean-up is not tried"
    run(root, dict.fromkeys(names, texts["new"]))
    assert {(root / name).read_text() for name in names} == {texts["new"]}
    assert not [path for path in state(root) if ".civitas-" in path]


def test_work_in_progress_of_another_run_is_left_alone(root):
    """Only what a dead process left is cleaned up."""
    mine = root / f".civitas-{os.getppid()}-0123abcd.a"
    dead = root / ".civitas-4194999-0123abcd.a"  # above the largest process id of Linux
    for path in (mine, dead):
        path.write_text("x")
    run(root, {"a": "x"}, directories={"d": {"exclusive": True}})
    assert mine.exists()
    assert not dead.exists()


# --- properties

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILE = st.fixed_dictionaries({"mode": st.sampled_from(["0644", "0600", "0755"]), "enabled": st.sampled_from([True, True, False])})
DIRECTORY = st.fixed_dictionaries({"exclusive": st.booleans(), "mode": st.sampled_from(["0755", "0700"])})
TREES = st.fixed_dictionaries(
    {
        "files": st.dictionaries(PATHS, st.tuples(st.sampled_from(["", "x", "y\n"]), FILE), max_size=4),
        "links": st.dictionaries(PATHS, st.sampled_from(["a", "../b", "/nowhere"]), max_size=2),
        "directories": st.dictionaries(PATHS, DIRECTORY, max_size=2),
        "absent": st.lists(PATHS, max_size=2),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TREES, min_size=1, max_size=4))
def test_any_sequence_of_trees(trees):
    """Refused and nothing changed, or applied: then as foreseen in check mode, and a second time without a change."""
    with tempfile.TemporaryDirectory() as directory:
        for options in trees:
            before = state(directory)
            params = tree(directory, **options)
            try:
                wanted = build(params)
                foreseen = plan(wanted, check_mode=True)
                todo = plan(wanted)
                apply(todo)
            except TreeError:
                assert state(directory) == before
                continue
            assert foreseen == todo
            assert (state(directory) != before) == todo.changed
            again = plan(wanted)
            assert not again.changed
            assert again.diff == []
            for path, (content, attributes) in options["files"].items():
                target = Path(directory, path)
                if attributes["enabled"]:
                    assert target.read_text() == content
                    assert stat.S_IMODE(target.lstat().st_mode) == int(attributes["mode"], 8)
                else:
                    assert not os.path.lexists(target) or path in options["links"] or target.is_dir()
            assert not [path for path in state(directory) if ".civitas-" in path]


PARTS = st.sampled_from(["..", ".", "", "a", "out", "in", "~", "*", "$HOME", "a\0", "b\n", "%s", "{{ x }}"])
HOSTILE = st.one_of(st.text(max_size=12), st.lists(PARTS, min_size=1, max_size=5).map("/".join))


@settings(max_examples=300, deadline=None)
@example(path="/\x80", kind="file")
@given(path=HOSTILE, kind=st.sampled_from(["file", "link", "directory", "absent"]))
def test_nothing_outside_of_root_is_touched(path, kind):
    with tempfile.TemporaryDirectory() as directory:
        outside, root = Path(directory, "outside"), Path(directory, "root")
        for each in (outside, root, root / "inside"):
            each.mkdir()
        for name in ("a", "b", "keep"):
            (outside / name).write_text(name)
        os.symlink(outside, root / "out")
        os.symlink("inside", root / "in")
        before = {name: value for name, value in state(directory).items() if not name.startswith(str(root) + "/")}
        params = {
            "file": lambda: tree(root, {path: "x"}),
            "link": lambda: tree(root, links={path: "/etc"}),
            "directory": lambda: tree(root, directories={path: {"exclusive": True, "mode": "0700"}}),
            "absent": lambda: tree(root, absent=[path]),
        }[kind]()
        try:
            apply(plan(build(params)))
        except TreeError as error:
            assert str(error).isprintable() or "\n" in str(error)
        after = {name: value for name, value in state(directory).items() if not name.startswith(str(root) + "/")}
        assert after == before
        for name in state(root):
            assert posixpath.normpath(name).startswith(str(root))
