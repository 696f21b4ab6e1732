# SPDX-License-Identifier: GPL-3.0-or-later
"""config_tree from real playbooks, against this machine below a temporary root."""

from __future__ import annotations

import base64
import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.release import __version__ as ansible_version
from ansible_collections.civitas.hosting.plugins.module_utils import _config_tree as ct

COLLECTIONS = Path(ct.__file__).parents[5]
ME = pwd.getpwuid(os.geteuid()).pw_name
CORE = tuple(int(part) for part in ansible_version.split(".")[:2])
MINE = grp.getgrgid(os.getegid()).gr_name
CANARY = "canary-5be0d1-never-to-be-seen"


class Project:
    """A directory with one role; what its task is asked for, is run by ansible-playbook."""

    def __init__(self, path):
        self.path = path
        self.root = path / "root"
        self.root.mkdir()
        self.templates = path / "roles/app/templates"
        self.templates.mkdir(parents=True)
        config = path / "ansible.cfg"
        config.write_text("[connection]\npipelining = true\n[defaults]\nnocolor = true\n")
        self.environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS), "ANSIBLE_CONFIG": str(config), "COLUMNS": "400"}

    def template(self, name, content):
        path = self.templates / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)

    def run(self, tasks, *arguments, variables=None, handlers=()):
        """The registered results by task name, the exit status and all that was printed. tasks: name -> options of config_tree."""
        results = self.path / "results.json"
        results.unlink(missing_ok=True)
        steps = [
            {
                "name": f"task {name}",
                "civitas.hosting.config_tree": {"root": str(self.root), "owner": ME, "group": MINE, **options},
                "register": f"result_{name}",
                "ignore_errors": True,
                "notify": ["Everything"] if handlers else [],
            }
            for name, options in tasks.items()
        ]
        collected = "{{ {" + ", ".join(f"'{name}': result_{name}" for name in tasks) + "} | to_json }}"
        keep = {"name": "Keep the results", "ansible.builtin.copy": {"content": collected, "dest": str(results)}}
        steps.append({**keep, "check_mode": False, "diff": False, "no_log": True, "changed_when": False})
        role = self.path / "roles/app"
        for folder, content in (("tasks", steps), ("handlers", list(handlers))):
            (role / folder).mkdir(exist_ok=True)
            (role / folder / "main.yml").write_text(json.dumps(content))
        play = {"hosts": "localhost", "gather_facts": False, "vars": variables or {}, "roles": ["app"]}
        (self.path / "play.yml").write_text(json.dumps([play]))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local"),
                *("-e", f"ansible_python_interpreter={sys.executable}", *arguments, "play.yml"),
            ],
            cwd=self.path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=self.environment,
        )  # fmt: skip
        assert results.exists(), done.stdout
        return json.loads(results.read_text()), done.stdout

    def state(self):
        seen = {}
        for directory, names, files in os.walk(self.root):
            for name in [".", *names, *files]:
                path = os.path.join(directory, name)
                status = os.lstat(path)
                content = os.readlink(path) if os.path.islink(path) else b"" if os.path.isdir(path) else Path(path).read_bytes()
                seen[os.path.relpath(path, self.root)] = (status.st_mode, status.st_uid, status.st_gid, content)
        return seen


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def paths(result, key="changed_paths"):
    return [path.split("/root/", 1)[1] for path in result[key]]


# --- rendering and application


def test_a_role_from_check_mode_to_the_second_run(project):
    project.template("_macros.j2", "{% macro listen(port) %}listen {{ port }};{% endmacro %}")
    project.template(
        "root/etc/app/main.conf.j2",
        "{% import '_macros.j2' as m %}\n# {{ ansible_managed }}\n{% for port in ports %}\n{{ m.listen(port) }}\n{% endfor %}\n"
        "{% include 'tail.j2' %}\n\n",
    )
    project.template("tail.j2", "tail {{ word }}")
    header = "#jinja2: lstrip_blocks: True\n"
    project.template("root/etc/app/{{ word }}/{{ word }}.ini.j2", header + "  {% if true %}\n{{ text }}\n  {% endif %}\n")
    project.template("root/etc/app/raw.bin", b"\0\xff{{ not_rendered }}\r\n")
    project.template("root/etc/app/empty.j2", "")
    project.template("root/etc/app/lone_number.j2", "{{ 5 }}\n")
    project.template("root/etc/app/lone_none.j2", "{{ none }}\n\n")
    project.template("root/etc/app/lone_text.j2", "{{ '{\"a\": 1}' }}\n")
    project.template("root/etc/app/off.j2", "{{ undefined_but_not_rendered }}")
    project.template("root/etc/app/strict", "x\n")
    project.template("site.conf.j2", "site {{ site }} of {{ word }}\n")
    (project.root / "etc/sites").mkdir(parents=True)
    for name in ("old", "mine.local"):
        (project.root / "etc/sites" / name).write_text("x")
    (project.root / "etc/gone").write_text("x")
    (project.root / "etc/app").mkdir()
    (project.root / "etc/app/off").write_text("x")
    options = {
        "src": "{{ role_path }}/templates/root",
        "files": {
            "etc/app/strict": {"mode": "{{ mode }}", "validate": "/bin/grep -q x %s"},
            "etc/app/off": {"enabled": "{{ not true }}"},
        },
        "extra": [
            {"dest": "etc/sites/a.conf", "src": "site.conf.j2", "vars": {"site": "{{ 'a' }}"}},
            {"dest": "etc/sites/b.conf", "src": "site.conf.j2", "vars": {"site": "b"}, "mode": "0600"},
            {"dest": "etc/sites/c.conf", "src": "never.j2", "enabled": False},
            {"dest": "etc/literal", "content": "{{ text }}\nno \\n escape\n"},
            {"dest": "etc/number", "content": "{{ 5 }}"},
        ],
        "links": {"etc/now": "sites/{{ word }}.conf"},
        "directories": {"etc/sites": {"mode": "0750", "exclusive": True, "keep": ["*.local"]}},
        "absent": ["etc/gone"],
        "verify": [f"test -f {project.root}/etc/number"],
    }
    variables = {"ports": [80, 443], "word": "a", "text": 'quote "\\d" {{ raw_braces }}', "mode": "0600", "raw_braces": "ü"}
    before = project.state()

    check, output = project.run({"x": options}, "--check", "--diff", variables=variables)
    assert not check["x"]["failed"], output
    assert project.state() == before
    first, output = project.run({"x": options}, "--diff", variables=variables)
    for key in ("changed", "changed_paths", "removed_paths", "diff"):
        assert check["x"][key] == first["x"][key], key
    assert first["x"]["changed"] is True
    assert paths(first["x"]) == [
        "etc/app/a/a.ini", "etc/app/empty", "etc/app/lone_none", "etc/app/lone_number", "etc/app/lone_text",
        "etc/app/main.conf", "etc/app/raw.bin", "etc/app/strict", "etc/literal",
        "etc/number", "etc/sites/a.conf", "etc/sites/b.conf", "etc/now",
    ]  # fmt: skip
    assert paths(first["x"], "removed_paths") == ["etc/app/off", "etc/gone", "etc/sites/old"]
    read = {path: (project.root / path).read_bytes() for path in paths(first["x"])}
    assert read["etc/app/main.conf"] == b"# Ansible managed\nlisten 80;\nlisten 443;\ntail a\n\n"
    assert read["etc/app/a/a.ini"] == 'quote "\\d" ü\n'.encode()
    assert read["etc/app/raw.bin"] == b"\0\xff{{ not_rendered }}\r\n"
    assert read["etc/app/empty"] == b""
    assert read["etc/app/lone_number"] == b"5\n"
    assert read["etc/app/lone_none"] == b"\n\n"
    assert read["etc/app/lone_text"] == b'{"a": 1}\n'
    assert read["etc/sites/b.conf"] == b"site b of a\n"
    assert read["etc/literal"] == 'quote "\\d" ü\nno \\n escape\n'.encode()
    assert read["etc/number"] == b"5"
    assert sorted(os.listdir(project.root / "etc/sites")) == ["a.conf", "b.conf", "mine.local"]
    modes = {"etc/app/strict": 0o600, "etc/sites/b.conf": 0o600, "etc/sites": 0o750, "etc/app/a": 0o755}
    assert {path: (project.root / path).stat().st_mode & 0o7777 for path in modes} == modes
    entries = {entry["after_header"].split("/root/", 1)[1]: entry for entry in first["x"]["diff"]}
    assert (entries["etc/sites/a.conf"]["before"], entries["etc/sites/a.conf"]["after"]) == ("", "site a of a\n")
    assert entries["etc/app/strict (attributes)"]["after"] == f"owner: {ME}\ngroup: {MINE}\nmode: 0600\n"
    assert entries["etc/gone (removed)"]["after"] == ""
    assert "+listen 443;" in output

    after = project.state()
    second, output = project.run({"x": options}, "--diff", variables=variables)
    assert (second["x"]["changed"], second["x"]["changed_paths"], second["x"]["removed_paths"], second["x"]["diff"]) == (False, [], [], [])
    assert project.state() == after
    assert "changed=0" in output


def test_handlers_by_changed_path(project):
    project.template("root/etc/a/x.j2", "{{ x }}\n")
    project.template("root/etc/b/y.j2", "{{ y }}\n")
    handlers = [
        {
            "name": f"Reload {name}",
            "ansible.builtin.debug": {"msg": f"reloaded-{name}"},
            "when": f"result_t.changed_paths | select('search', '/etc/{name}/') | list | length > 0",
            "listen": "Everything",
        }
        for name in ("a", "b")
    ]
    tasks = {"t": {"src": "root"}}
    output = project.run(tasks, variables={"x": 1, "y": 1}, handlers=handlers)[1]
    assert "reloaded-a" in output
    assert "reloaded-b" in output
    output = project.run(tasks, variables={"x": 1, "y": 2}, handlers=handlers)[1]
    assert "reloaded-a" not in output
    assert "reloaded-b" in output
    output = project.run(tasks, variables={"x": 1, "y": 2}, handlers=handlers)[1]
    assert "reloaded" not in output


def test_a_vaulted_source_is_decrypted(project):
    (project.path / "password").write_text("right")
    project.template("root/key.j2", "key {{ x }}\n")
    project.template("root/plain", "text\n")
    for name in ("key.j2", "plain"):
        subprocess.run(
            [sys.executable, "-m", "ansible", "vault", "encrypt", "--vault-password-file", "password", project.templates / "root" / name],
            cwd=project.path,
            check=True,
            capture_output=True,
        )
    results, output = project.run({"t": {"src": "root"}}, "--vault-password-file", "password", variables={"x": 1})
    assert results["t"]["changed"], output
    assert (project.root / "key").read_text() == "key 1\n"
    assert (project.root / "plain").read_text() == "text\n"


# --- refusals: each names the file and what to write, and nothing is changed

GOOD = {"good/file": "x\n"}
# name: (templates below src, options, what the message must hold)
REFUSED = {
    "escape_extra": (
        {}, {"extra": [{"dest": "../out", "content": "x"}]},
        ["../out: leaves the root; write the path below root without '..'"],
    ),
    "escape_absolute": ({}, {"extra": [{"dest": "/etc/x", "content": "x"}]}, ["/etc/x: ", "write 'etc/x'"]),
    "escape_absent": ({}, {"absent": ["a/../../x"]}, ["a/../../x: leaves the root"]),
    "escape_segment": ({"{{ up }}/x": "x"}, {}, ["{{ up }}/x: the part '{{ up }}' of the path becomes '..', which is no name"]),
    "escape_slash": ({"{{ slash }}/x": "x"}, {}, ["{{ slash }}/x: the part", "becomes 'a/b', which is no name"]),
    "escape_link": ({"out/x": "x"}, {}, ["/root/out/x: lies behind the link", "leaves the root", "remove the link"]),
    "segment_undefined": ({"{{ nowhere_defined }}/x": "x"}, {}, ["{{ nowhere_defined }}/x: 'nowhere_defined' is undefined"]),
    "two_sources": ({"a": "x", "a.j2": "x"}, {}, ["a: has two sources, a and a.j2; remove one of them"]),
    "two_segments": ({"{{ letter }}": "x", "a.j2": "x"}, {}, ["a: has two sources, a.j2 and {{ letter }}"]),
    "two_extra": ({"a": "x"}, {"extra": [{"dest": "a", "content": "x"}]}, ["a: has two sources, in src and extra"]),
    "file_and_directory": ({"a": "x"}, {"directories": {"a": {}}}, ["a: is a file and a directory at once"]),
    "file_and_link": ({"a": "x"}, {"links": {"a": "b"}}, ["a: is a file and a link at once"]),
    "file_and_absent": ({"a": "x"}, {"absent": ["a"]}, ["a: is a file and absent at once"]),
    "link_in_src": ({"a": "x"}, {}, ["made_link: is a symbolic link in src; use links"]),
    "typo": (
        {"nginx.conf": "x"}, {"files": {"ngnix.conf": {"mode": "0600"}}},
        ["ngnix.conf: is listed in files", "do you mean nginx.conf?"],
    ),
    "typo_attribute": (
        {"a": "x"}, {"files": {"a": {"moed": "0600"}}},
        ["a: the option 'moed' is not known; known are enabled, group, mode"],
    ),
    "typo_option": ({}, {"verfy": []}, ["verfy: no such option; do you mean verify?"]),
    "typo_extra": ({}, {"extra": [{"dest": "a", "contents": "x"}]}, ["extra, item 1: no such option 'contents'; do you mean content?"]),
    "extra_both": ({}, {"extra": [{"dest": "a", "content": "x", "src": "x"}]}, ["a: an item of extra has either src or content"]),
    "extra_missing": ({}, {"extra": [{"dest": "a", "src": "nowhere.j2"}]}, ["a: src: Could not find or access 'nowhere.j2'"]),
    "extra_mapping": ({}, {"extra": [{"dest": "a", "content": {"b": 1}}]}, ["a: content becomes a mapping and not a text"]),
    "no_src": ({}, {"src": "{{ role_path }}/templates/nowhere"}, ["/templates/nowhere is no directory on the controller"]),
    "unrenderable": (
        {"a.j2": "one\n\n{{ missing_one }}\n", "b.j2": "{% if %}\n", "c.j2": "\n{{ up | no_such_filter }}\n",
         "e.j2": "{% include 'broken.j2' %}\n", "f.j2": "{{ up.sub.sub }}\n", "g.j2": b"\xff", "h.j2": "{{ 1 / 0 }}",
         "fine.j2": "{{ up }}"},
        {},
        ["7 problems (nothing was changed)", "a: a.j2: 'missing_one' is undefined, line 3", "b: b.j2: ", "line 1",
         "c: c.j2: ", "no_such_filter",
         "e: e.j2: ", "line 3 of broken.j2", "f: f.j2: ", "'sub'", "g: g.j2: is not UTF-8 (byte 1)", "h: h.j2: ", "zero"],
    ),
    "lone_mapping": (
        {"d.j2": "{{ {'a': 1} }}"}, {},
        ["d: d.j2: the whole becomes a mapping and not a text; add a filter such as to_nice_yaml"],
    ),
    "mode_number": (
        {"a": "x"}, {"files": {"a": {"mode": 420}}},
        ['a: the mode 420 is a number', 'write it in quotes, such as mode: "0644"'],
    ),
    "mode_default": ({"a": "x"}, {"mode": 420}, ["mode: the mode 420 is a number"]),
    "mode_symbolic": ({"a": "x"}, {"files": {"a": {"mode": "u=rw"}}}, ["a: the mode 'u=rw' is not octal"]),
    "validate_fails": (
        {"a": "x"}, {"files": {"a": {"validate": "/bin/grep -c y %s"}}},
        ["/root/a: validate failed: /bin/grep", "ended with 1: 0", "(all was put back)"],
    ),
    "validate_placeholder": (
        {"a": "x"}, {"files": {"a": {"validate": "/bin/true"}}},
        ["a: validate lacks %s", "write it, such as '/bin/true %s'"],
    ),
    "validate_missing": (
        {"a": "x"}, {"files": {"a": {"validate": "/no/such %s"}}},
        ["/root/a: the command /no/such does not exist on the host; install"],
    ),
    "owner": (
        {"a": "x"}, {"files": {"a": {"owner": "nobody-7f"}}},
        ["/root/a: the owner nobody-7f does not exist on the host; install the package"],
    ),
    "group": ({"a": "x"}, {"group": "nobody-7f"}, ["/root/a: the group nobody-7f does not exist on the host"]),
    "is_directory": ({"isdir": "x"}, {}, ["/root/isdir: is a directory on the host, but a file is due"]),
    "is_link": ({"islink": "x"}, {}, ["/root/islink: is a link to isdir on the host; put that path into the tree or remove the link"]),
    "verify_fails": (
        {"a": "x", "new/b": "x"}, {"verify": ["/bin/true", "/bin/ls /no/such/place"]},
        ["verify failed: /bin/ls", "/no/such/place", "(all was put back)"],
    ),
    "verify_missing": ({"a": "x"}, {"verify": ["/no/such/judge"]}, ["verify: the command /no/such/judge does not exist on the host"]),
}  # fmt: skip
if CORE < (2, 19):
    del REFUSED["lone_mapping"]  # before, every template gave a text


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """All refusals in one run: each task must fail, so nothing may have changed at the end."""
    project = Project(tmp_path_factory.mktemp("refusals"))
    (project.path / "outside").mkdir()
    (project.root / "isdir").mkdir()
    os.symlink("isdir", project.root / "islink")
    os.symlink("../outside", project.root / "out")
    (project.root / "a").write_text("old")
    project.template("broken.j2", "\n\n{% endif %}\n")
    tasks = {}
    for name, (templates, options, _expected) in REFUSED.items():
        for path, content in {**templates, **GOOD}.items():
            project.template(f"{name}/{path}", content)
        tasks[name] = {"src": "{{ role_path }}/templates/" + name, **options}
    os.symlink("a", project.templates / "link_in_src/made_link")
    before = project.state()
    results, output = project.run(tasks, variables={"up": "..", "slash": "a/b", "letter": "a"})
    return results, before == project.state(), os.listdir(project.path / "outside"), output


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refusals, name):
    results, unchanged, outside, output = refusals
    assert results[name]["failed"], results[name]
    for text in REFUSED[name][2]:
        assert text in results[name]["msg"], results[name]["msg"]
    assert not results[name]["changed"]
    assert unchanged, output
    assert outside == []


def test_a_fresh_host_in_check_mode(project):
    """Users, commands and validators come with packages that check mode has not installed."""
    project.template("root/etc/a", "x")
    files = {"etc/a": {"owner": "nobody-7f", "group": "nobody-7f", "validate": "/no/such %s"}}
    results, output = project.run({"t": {"src": "root", "files": files, "verify": ["/no/such"]}}, "--check")
    assert results["t"]["changed"] is True, output
    assert paths(results["t"]) == ["etc/a"]
    assert os.listdir(project.root) == []


# --- secrets


def needles(text):
    """The text as it is and in base64 at each of its three alignments."""
    yield text
    for offset in range(3):
        yield base64.b64encode(b"x" * offset + text.encode())[4 if offset else 0 : -4].decode()


def test_a_secret_is_in_no_output(project):
    judge = project.path / "judge"
    judge.write_text(f'#!/bin/sh\necho said; cat "$1" {project.root}/s/*; echo; exit 1\n')
    judge.chmod(0o755)
    secret = {"mode": "0600", "secret": True}
    for name in ("ok", "bad"):
        project.template(f"{name}/s/key.j2", "a {{ secret_value }} b\n")
        project.template(f"{name}/plain", "x")
    validated = {"dest": "s/x", "content": "{{ secret_value }}!", "validate": f"{judge} %s", **secret}
    project.template("raise/s/key.j2", "{{ secret_value | from_json }}\n")
    project.template("raise2/s/key.j2", "{{ (secret_value ~ '%Q') | strftime }}\n{{ secret_value / 2 }}\n")
    project.template("old/s/key", CANARY + "-old")
    files = {"s/key": secret}
    extra = [{"dest": "s/lit", "content": "{{ secret_value }}", **secret}]
    results, output = project.run(
        {
            "first": {"src": "old", "files": files},
            "second": {"src": "ok", "files": files, "extra": extra},
            "again": {"src": "ok", "files": files, "extra": extra},
            "validate": {"src": "bad", "files": files, "extra": [validated]},
            "validate_plain": {"src": "ok", "files": files, "extra": [{"dest": "p", "content": "x", "validate": f"{judge} %s"}]},
            "verify": {"src": "old", "files": files, "verify": [f"{judge} /dev/null"]},
            "render": {"src": "raise", "files": files},
            "render2": {"src": "raise2", "files": files},
            "owner": {"src": "old", "files": {"s/key": {**secret, "owner": "nobody-7f"}}},
            "removed": {"src": "ok", "files": {"s/key": {**secret, "enabled": False}}, "directories": {"s": {"exclusive": True}}},
        },
        "-vvv", "--diff",
        variables={"secret_value": CANARY},
    )  # fmt: skip
    failed = [name for name, result in results.items() if result["failed"]]
    assert failed == ["validate", "validate_plain", "verify", "render", "render2", "owner"]
    assert results["second"]["changed"]
    assert not results["again"]["changed"]
    assert "output not shown" in results["validate"]["msg"]
    assert "output not shown" in results["validate_plain"]["msg"]
    assert "output not shown" in results["verify"]["msg"]
    assert "details are not shown" in results["render"]["msg"]
    assert "(new secret content)" in output
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in output  # so the parameters were printed
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" not in json.dumps([result.get("changed_paths") for result in results.values()])
    for needle in needles(CANARY):
        assert needle not in json.dumps(results)
        assert needle not in output


# --- interruption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_module_puts_everything_back(project, number):
    (project.root / "a").write_text("old")
    before = project.state()
    started = project.path / "started"
    judge = project.path / "judge"
    judge.write_text(f"#!/bin/sh\ntouch {started}\nexec sleep 60\n")
    judge.chmod(0o755)
    arguments = {
        "root": str(project.root), "owner": ME, "group": MINE, "files": {"a": {}, "d/b": {}},
        "contents": {"a": ct.encode(b"new"), "d/b": ct.encode(b"new")}, "verify": [str(judge)],
    }  # fmt: skip
    module = Path(ct.__file__).parents[1] / "modules/config_tree.py"
    with subprocess.Popen(
        [sys.executable, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        text=True,
    ) as child:
        child.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        child.stdin.close()
        while not started.exists():
            assert child.poll() is None, child.stdout.read()
            time.sleep(0.01)
        assert (project.root / "a").read_text() == "new"
        child.send_signal(number)
        output = child.stdout.read()
    assert json.loads(output)["msg"] == f"interrupted by signal {int(number)} (all was put back)"
    assert project.state() == before
