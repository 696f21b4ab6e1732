# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for the collection as a whole: metadata, headers, documentation, and what must never be committed.

A rule is a function from the root of a tree (or from a file) to a list of problems, so that each can be seen to fail.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

# What the Galaxy tarball holds at its top, and what must not be in it.
SHIPPED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "ansible.cfg",
    "changelogs",
    "docs",
    "meta",
    "playbooks",
    "plugins",
    "roles",
)
UNSHIPPED = (".cache", ".ci", ".demo", ".git", ".venv", "inventories", "molecule", "tests", "tools")


@cache
def tree(root: Path) -> tuple[Path, ...]:
    """The files that are, or are about to be, under version control."""
    run = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True
    )
    return tuple(path for name in sorted(set(run.stdout.split("\0"))) if name and (path := root / name).is_file() and not path.is_symlink())


def text_of(path: Path) -> str:
    """A file's text; nothing when it is not text."""
    content = path.read_bytes()
    return "" if b"\0" in content[:8192] else content.decode("utf-8", errors="replace")


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


# --- metadata ---------------------------------------------------------------------------------------------------------------------------


def metadata_is_sound(root: Path) -> list[str]:
    galaxy = load(root / "galaxy.yml")
    problems = [
        f"galaxy.yml: {key} is not {value}" for key, value in (("namespace", "civitas"), ("name", "hosting")) if galaxy.get(key) != value
    ]
    if not re.fullmatch(r"\d+\.\d+\.\d+", str(galaxy.get("version"))):
        problems.append(f"galaxy.yml: version {galaxy.get('version')!r} is not three numbers")
    for key in ("readme", "license_file"):
        if not galaxy.get(key) or not (root / galaxy[key]).is_file():
            problems.append(f"galaxy.yml: {key} {galaxy.get(key)!r} does not exist")
    problems += [
        f"galaxy.yml: dependency {name} has no lower bound" for name, want in (galaxy.get("dependencies") or {}).items() if ">=" not in want
    ]
    requires = str((load(root / "meta" / "runtime.yml") or {}).get("requires_ansible"))
    if not re.fullmatch(r">=\d+\.\d+\.\d+", requires):
        problems.append(f"meta/runtime.yml: requires_ansible {requires!r} is not one lower bound and nothing else")
    environment = (load(root / "meta" / "execution-environment.yml") or {}).get("dependencies") or {}
    for kind, name in environment.items():
        if isinstance(name, str) and not (root / "meta" / name).is_file() and not (root / name).is_file():
            problems.append(f"meta/execution-environment.yml: {kind}: {name} does not exist")
    return problems


def version_is_the_next(root: Path) -> list[str]:
    """galaxy.yml holds what the changelog does not have yet, or exactly the newest release when nothing has changed since."""
    version = str(load(root / "galaxy.yml")["version"])
    releases = list((load(root / "changelogs" / "changelog.yaml") or {}).get("releases") or {})
    fragments = sorted(path.name for path in root.glob("changelogs/fragments/*.y*ml"))
    newest = max(releases, key=number) if releases else "0.0.0"
    if number(version) < number(newest):
        return [f"galaxy.yml has {version}, but {newest} is released"]
    if version == newest and fragments:
        return [f"{version} is released, but {', '.join(fragments)} came after it: raise the version in galaxy.yml"]
    if version != newest and not fragments:
        return [f"galaxy.yml has {version}, the newest release is {newest}, and no fragment says what is new"]
    return []


def tarball_is_decided(root: Path) -> list[str]:
    """Every file at the top is either shipped or ignored; no pattern hides what is shipped."""
    ignored = load(root / "galaxy.yml").get("build_ignore") or []
    problems = [
        f"build_ignore: {entry!r}: write a path below the root"
        for entry in ignored
        if str(entry).startswith(("/", "..", "~")) or entry in ("*", ".", "")
    ]
    problems += [f"build_ignore: {entry!r} twice" for entry in sorted({entry for entry in ignored if ignored.count(entry) > 1})]
    shipped = [path for path in tree(root) if path.relative_to(root).parts[0] in SHIPPED]
    for path in shipped:
        # Ansible matches a pattern against the path of every file and folder, with * for anything including a slash.
        file = path.relative_to(root)
        places = [str(place) for place in (file, *file.parents[:-1])]
        problems += [f"build_ignore: {entry!r} leaves out {file}" for entry in ignored for place in places if fnmatch(place, str(entry))]
    problems += [f"build_ignore: {name!r} is missing" for name in UNSHIPPED if name not in ignored]
    for name in sorted({path.relative_to(root).parts[0] for path in tree(root)}):
        if name not in SHIPPED and name != "galaxy.yml" and not any(fnmatch(name, str(entry)) for entry in ignored):
            problems.append(f"{name}: neither shipped nor in build_ignore")
    return problems


# --- plugins ----------------------------------------------------------------------------------------------------------------------------

HEADER = (
    "# -*- coding: utf-8 -*-",
    "# Copyright: (c) 2026, The founders of civitas.hosting",
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-Identifier: GPL-3.0-or-later",
)
SPDX = "SPDX-License-Identifier: GPL-3.0-or-later"


def headers_are_there(root: Path) -> list[str]:
    problems = []
    for path in tree(root):
        name = path.relative_to(root)
        text = text_of(path)
        if not text.strip():
            continue
        if name.parts[0] == "plugins" and path.suffix == ".py":
            missing = [line for line in HEADER if line not in text.splitlines()[:5]]
            problems += [f"{name}: its head lacks '{line}'" for line in missing]
        elif (
            (path.suffix in COMMENTED or path.name in COMMENTED)
            and str(name) not in WRITTEN_BY_TOOLS
            and SPDX not in "\n".join(text.splitlines()[:5])
        ):
            problems.append(f"{name}: no SPDX line in its head")
    return problems


# Files that can carry a comment, by ending or name, and those of them that a tool writes whole.
COMMENTED = (".py", ".yml", ".yaml", ".md", ".cfg", ".toml", ".sh", "Makefile", "Dockerfile")
WRITTEN_BY_TOOLS = ("changelogs/changelog.yaml", "CHANGELOG.md")


def constants(path: Path) -> dict[str, str]:
    """The strings that a plugin assigns at its top level."""
    found = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.update({target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)})
    return found


def plugins_are_documented(root: Path) -> list[str]:
    problems = []
    for kind in ("modules", "lookup", "filter", "test"):
        for path in sorted((root / "plugins" / kind).glob("*.py")):
            if path.name != "__init__.py":
                documents = [constants(path)]
                if kind in ("filter", "test") and not documents[0].get("DOCUMENTATION"):
                    documents = [sidecar(root / "plugins" / kind / f"{name}.yml") for name in names_of_filters(path)]
                problems += [
                    f"plugins/{kind}/{path.name}: {problem}"
                    for texts in documents
                    for problem in documentation_problems(kind, path.stem, texts)
                ]
    for path in sorted((root / "plugins" / "action").glob("*.py")):
        if path.name != "__init__.py" and not (root / "plugins" / "modules" / path.name).is_file():
            problems.append(f"plugins/action/{path.name}: no module of the same name documents it")
    return problems


def names_of_filters(path: Path) -> list[str]:
    """The names that a file of filters or tests offers: the keys of the mapping that its method returns."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name in ("filters", "tests"):
            keys = [key for part in ast.walk(node) if isinstance(part, ast.Dict) for key in part.keys]
            return [str(key.value) for key in keys if isinstance(key, ast.Constant)]
    return []


def sidecar(path: Path) -> dict[str, str]:
    document = load(path) or {}
    texts = {key: yaml.safe_dump(value) if not isinstance(value, str) else value for key, value in document.items()}
    return {**texts, "NAME": path.stem}


def documentation_problems(kind: str, stem: str, texts: dict[str, str]) -> list[str]:
    problems = [f"no {name}" for name in ("DOCUMENTATION", "EXAMPLES", "RETURN") if not texts.get(name)]
    if problems:
        return problems
    document = yaml.safe_load(texts["DOCUMENTATION"])
    name = document.get("module" if kind == "modules" else "name")
    if name != texts.get("NAME", stem):
        problems.append(f"documents {name!r}")
    problems += [
        f"DOCUMENTATION lacks {key}" for key in ("short_description", "description", "author", "version_added") if not document.get(key)
    ]
    if kind == "modules":
        fragment = "civitas.hosting._attributes" in str(document.get("extends_documentation_fragment"))
        problems += [
            f"attributes lack {key}"
            for key in ("check_mode", "diff_mode")
            if not fragment and key not in (document.get("attributes") or {})
        ]
    if f"civitas.hosting.{name}" not in texts["EXAMPLES"]:
        problems.append(f"EXAMPLES do not use civitas.hosting.{name}")
    return problems


def imports(path: Path) -> set[str]:
    """All parts of all names that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {*(node.module or "").split("."), *(name.name for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {part for name in node.names for part in name.name.split(".")}
    return found


def logic_is_tested(root: Path) -> list[str]:
    """Every file of shared logic is private, and a unit test reaches it: by import, or through a plugin that it imports or runs by name."""
    tests = sorted((root / "tests" / "unit").rglob("test_*.py"))
    reached = {name for path in tests for name in imports(path)}
    for path in tests:
        reached |= set(re.findall(r"\bcivitas\.hosting\.(\w+)", path.read_text(encoding="utf-8")))
    logic = [*root.glob("plugins/module_utils/*.py"), *root.glob("plugins/plugin_utils/*.py")]
    plugins = [path for path in root.glob("plugins/*/*.py") if path not in logic and path.stem in reached]
    reached |= {name for path in plugins for name in imports(path)}
    problems = []
    for path in sorted(logic):
        if path.name == "__init__.py":
            continue
        name = path.relative_to(root)
        problems += [] if path.name.startswith("_") else [f"{name}: shared logic is private: its name begins with an underscore"]
        problems += [] if path.stem in reached else [f"{name}: no unit test reaches it"]
    return problems


# --- what must never be committed -------------------------------------------------------------------------------------------------------

# A canary is what a test looks for where it must not be.
SECRETS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\\n|\s)+[A-Za-z0-9+/=]{40}"),
    "an age key": re.compile(r"AGE-SECRET-KEY-1[0-9A-Z]{20}"),
    "a vault file": re.compile(r"\A\$ANSIBLE_VAULT;"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+]*://[^\s/:@{'\"<]+:(?!canary)[^\s/:@{'\"<%]+@[\w.-]+"),
}
# Where packages come from is the business of the machine that builds, so no index, registry or mirror is named.
SOURCES = re.compile(
    r"(?i)\b(?:pypi|registry|galaxy|mirrors?|packages|artifactory|nexus|index)\.(?:[a-z0-9-]+\.)*(?:org|com|io|net|dev|cloud)\b"
)
RESERVED = re.compile(r"(?i)\bexample\.(?:org|com|net)$|\.(?:example|test|invalid)$")
HOMES = re.compile(r"/(?:home|Users)/[a-z]\w*/|/root/\.(?:pyenv|cache|local)\b")


def secrets_are_not_committed(root: Path) -> list[str]:
    found = []
    for path in tree(root):
        text = text_of(path)
        found += [f"{path.relative_to(root)}: {what}" for what, pattern in SECRETS.items() if pattern.search(text)]
    return found


def sources_are_not_named(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)}: {host}" for path in tree(root) for host in SOURCES.findall(text_of(path)) if not RESERVED.search(host)
    ]


def machine_is_not_named(root: Path) -> list[str]:
    """Neither the place of this checkout nor somebody's home. Tests have accounts of their own, with homes."""
    here = re.compile(re.escape(str(root)) + r"\b") if len(root.parts) > 2 else HOMES
    return [
        f"{path.relative_to(root)}: {match}"
        for path in tree(root)
        for pattern in ((here,) if path.relative_to(root).parts[0] in ("tests", "molecule") else (here, HOMES))
        for match in pattern.findall(text_of(path))
    ]


RULES: list[Callable[[Path], list[str]]] = [
    metadata_is_sound,
    version_is_the_next,
    tarball_is_decided,
    headers_are_there,
    plugins_are_documented,
    logic_is_tested,
    secrets_are_not_committed,
    sources_are_not_named,
    machine_is_not_named,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_collection_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    problems = rule(ROOT)
    assert not problems, "\n".join(problems)


def test_the_tree_is_not_empty() -> None:
    assert ROOT / "galaxy.yml" in tree(ROOT)
    assert not [path for path in tree(ROOT) if ".venv" in path.parts]


def test_changelog_fragments_are_valid() -> None:
    run = subprocess.run([sys.executable, "-m", "antsibull_changelog", "lint"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# --- the rules against a tree that breaks them ------------------------------------------------------------------------------------------

DOCUMENTED = '''
DOCUMENTATION = r"""
module: thing
short_description: A thing
description: [A thing.]
author: [The founders]
version_added: 0.1.0
attributes: {check_mode: {support: full}, diff_mode: {support: none}}
"""
EXAMPLES = r"""
- civitas.hosting.thing:
"""
RETURN = r"""
a: {}
"""
'''
HEAD = "\n".join(HEADER) + "\n"
GOOD = {
    "galaxy.yml": f"# {SPDX}\nnamespace: civitas\nname: hosting\nversion: 0.2.0\nreadme: README.md\nlicense_file: LICENSE\n"
    f"dependencies: {{a.b: '>=1.0.0'}}\nbuild_ignore: [{', '.join(UNSHIPPED)}, '*.tar.gz', .gitignore]\n",
    "README.md": f"<!-- {SPDX} -->\nmirror.example.org is nobody's, postgresql://user:{{{{ password }}}}@host neither\n",
    "LICENSE": "GPL\n",
    ".gitignore": ".cache\n",
    "meta/runtime.yml": f"# {SPDX}\nrequires_ansible: '>=2.17.0'\n",
    "meta/execution-environment.yml": f"# {SPDX}\ndependencies: {{system: bindep.txt}}\n",
    "meta/bindep.txt": "openssl\n",
    "changelogs/changelog.yaml": "releases: {0.1.0: {}}\n",
    "changelogs/fragments/a.yml": f"# {SPDX}\nbugfixes: [a]\n",
    "plugins/modules/thing.py": HEAD + DOCUMENTED,
    "plugins/action/thing.py": HEAD,
    "plugins/filter/thing.py": HEAD + DOCUMENTED.replace("module:", "name:"),
    "plugins/filter/many.py": HEAD + "class FilterModule:\n    def filters(self):\n        return {'one': 1}\n",
    "plugins/filter/one.yml": f"# {SPDX}\nDOCUMENTATION: {{name: one, short_description: a, description: a, author: a, version_added: a}}\n"
    "EXAMPLES: 'a | civitas.hosting.one'\nRETURN: {a: {}}\n",
    "plugins/module_utils/_thing.py": HEAD + "MARK = '-----BEGIN PRIVATE KEY-----'\n",
    "tests/unit/test_thing.py": f"# {SPDX}\nfrom x.module_utils import _thing\n",
}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[dict[str, str | None]], Path]:
    def build(changes: dict[str, str | None]) -> Path:
        for path, text in {**GOOD, **changes}.items():
            if text is not None:
                file = tmp_path / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        return tmp_path

    return build


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_tree_passes(rule: Callable[[Path], list[str]], make: Callable[[dict[str, str | None]], Path]) -> None:
    assert rule(make({})) == []


def replaced(path: str, old: str, new: str) -> dict[str, str | None]:
    assert old in GOOD[path]
    return {path: GOOD[path].replace(old, new)}


# Put together here, so that this file does not hold what it looks for.
KEY = "-----BEGIN EC " + "PRIVATE KEY-----\n" + "MHcCAQEE" * 6 + "\n"
AGE = "AGE-SECRET-" + "KEY-1" + "Q" * 58
HOST = "https://pypi" + ".org/simple"

BAD: list[tuple[Callable[[Path], list[str]], dict[str, str | None], str]] = [
    (metadata_is_sound, replaced("galaxy.yml", "0.2.0", "0.2"), "is not three numbers"),
    (metadata_is_sound, replaced("galaxy.yml", "hosting", "hosts"), "name is not hosting"),
    (metadata_is_sound, {"README.md": None}, "readme 'README.md' does not exist"),
    (metadata_is_sound, replaced("galaxy.yml", ">=1.0.0", "*"), "a.b has no lower bound"),
    (metadata_is_sound, replaced("meta/runtime.yml", ">=2.17.0", ">=2.17.0,<2.21"), "is not one lower bound"),
    (metadata_is_sound, {"meta/runtime.yml": None}, "is not one lower bound"),
    (metadata_is_sound, {"meta/bindep.txt": None}, "bindep.txt does not exist"),
    (version_is_the_next, {"changelogs/changelog.yaml": "releases: {0.10.0: {}, 0.9.0: {}}\n"}, "0.10.0 is released"),
    (version_is_the_next, {"changelogs/changelog.yaml": "releases: {0.2.0: {}}\n"}, "raise the version"),
    (version_is_the_next, {"changelogs/fragments/a.yml": None}, "no fragment says what is new"),
    (tarball_is_decided, replaced("galaxy.yml", "*.tar.gz", "/tests"), "write a path below the root"),
    (tarball_is_decided, replaced("galaxy.yml", "*.tar.gz", "*.yml"), "leaves out meta/runtime.yml"),
    (tarball_is_decided, replaced("galaxy.yml", "*.tar.gz", "plugins/mod*"), "leaves out plugins/modules/thing.py"),
    (tarball_is_decided, replaced("galaxy.yml", "molecule, ", ""), "'molecule' is missing"),
    (tarball_is_decided, {"scratch.txt": "a\n"}, "scratch.txt: neither shipped nor"),
    (headers_are_there, {"plugins/modules/thing.py": f"# {SPDX}\n" + DOCUMENTED}, "its head lacks '# GNU"),
    (headers_are_there, {"plugins/modules/thing.py": "\n".join(HEADER[:3]) + DOCUMENTED}, "its head lacks '# SPDX"),
    (headers_are_there, {"roles/edge/tasks/main.yml": "---\n[]\n"}, "no SPDX line"),
    (headers_are_there, {"Makefile": "all:\n"}, "Makefile: no SPDX line"),
    (plugins_are_documented, replaced("plugins/modules/thing.py", "RETURN", "RESULT"), "no RETURN"),
    (plugins_are_documented, replaced("plugins/modules/thing.py", "module: thing", "module: think"), "documents 'think'"),
    (plugins_are_documented, replaced("plugins/modules/thing.py", "version_added: 0.1.0\n", ""), "lacks version_added"),
    (plugins_are_documented, replaced("plugins/modules/thing.py", "diff_mode", "diff"), "attributes lack diff_mode"),
    (plugins_are_documented, replaced("plugins/modules/thing.py", "civitas.hosting.thing", "thing"), "EXAMPLES do not use"),
    (plugins_are_documented, {"plugins/filter/one.yml": None}, "many.py: no DOCUMENTATION"),
    (plugins_are_documented, {"plugins/action/other.py": HEAD}, "no module of the same name"),
    (logic_is_tested, {"plugins/module_utils/_other.py": HEAD}, "_other.py: no unit test reaches it"),
    (
        logic_is_tested,
        {"plugins/module_utils/open.py": HEAD, "tests/unit/test_a.py": "import x.open\n"},
        "its name begins with an underscore",
    ),
    (secrets_are_not_committed, {"key.pem": KEY}, "key.pem: a private key"),
    (secrets_are_not_committed, {"a.py": f"A = {KEY!r}\n"}, "a.py: a private key"),
    (secrets_are_not_committed, {"key.txt": AGE}, "an age key"),
    (secrets_are_not_committed, {"secrets.yml": "$ANSIBLE_VAULT;1.1;AES256\n3132\n"}, "a vault file"),
    (secrets_are_not_committed, {"a.md": "postgresql://user:" + "hunter2@db/x\n"}, "a password in a URL"),
    (sources_are_not_named, {"a.md": HOST}, "a.md"),
    (sources_are_not_named, {"a.md": "registry" + ".some.cloud.io"}, "a.md"),
    (machine_is_not_named, {"a.md": "/ho" + "me/jo/project/\n"}, "a.md"),
]


@pytest.mark.parametrize(("rule", "changes", "problem"), BAD, ids=[f"{case[0].__name__}-{position}" for position, case in enumerate(BAD)])
def test_a_bad_tree_is_found(
    rule: Callable[[Path], list[str]], changes: dict[str, str | None], problem: str, make: Callable[[dict[str, str | None]], Path]
) -> None:
    problems = rule(make(changes))
    assert [text for text in problems if problem in text], problems


def test_the_place_of_the_checkout_is_found(make: Callable[[dict[str, str | None]], Path]) -> None:
    root = make({})
    (root / "a.md").write_text(f"see {root}/docs\n", encoding="utf-8")
    assert machine_is_not_named(root) == [f"a.md: {root}"]


def test_every_rule_has_a_bad_tree() -> None:
    assert {rule.__name__ for rule in RULES} == {case[0].__name__ for case in BAD}


def test_no_file_names_a_package_registry_of_this_machine() -> None:
    """The hosts are read where they are configured; the tests of users behind a mirror of their own look for that one."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")] if Path("/etc/apt").is_dir() else []
    configured = "".join(path.read_text(errors="replace") for path in sources if path.is_file())
    hosts = set(re.findall(r"https?://(?:[^/@\s]*@)?([a-z0-9.-]+\.[a-z]+)", configured))
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    named = [
        f"{name}: {host}"
        for name in filter(None, tracked)
        if (ROOT / name).is_file()
        for host in hosts
        if host in (ROOT / name).read_text(encoding="utf-8", errors="replace")
    ]
    assert named == []


def plays_without_the_way(root: Path) -> list[str]:
    """Plays that touch hosts and would not go through the bastion that the inventory names."""
    problems = []
    for file in sorted((root / "playbooks").glob("*.yml")):
        for play in yaml.safe_load(file.read_text()):
            if "hosts" not in play or play["hosts"] == "localhost" or file.name in ("validate.yml", "ssh_config.yml"):
                continue
            if "vars/connection.yml" not in play.get("vars_files", []):
                problems.append(f"{file.name}: '{play['name']}' lacks vars/connection.yml among its vars_files")
    return problems


def test_every_play_goes_through_the_bastion() -> None:
    assert plays_without_the_way(ROOT) == []


def test_a_play_that_goes_directly_is_found(tmp_path: Path) -> None:
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "a.yml").write_text("- {name: One, hosts: all}\n- {name: Two, hosts: localhost}\n- import_playbook: b.yml\n")
    assert len(plays_without_the_way(tmp_path)) == 1
