# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules for roles of CONTRIBUTING.md, for every role, and each rule against a role that breaks it.

A rule is a function from a Role to a list of problems.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.module_utils import _declarations

from tools import pages

ROOT = Path(__file__).resolve().parents[2]

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
FACTS = sorted((ROOT / "tests" / "fixtures" / "facts").glob("*.json"))
PLATFORMS = ("Debian_12", "Debian_13", "Ubuntu_22", "Ubuntu_24")


# --- reading a role ---------------------------------------------------------------------------------------------------------------------


class Loader(yaml.SafeLoader):
    """YAML with Ansible's tags taken for the value that they mark."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: loader.construct_scalar(node))


@dataclass
class Task:
    file: Path
    body: dict[str, Any]
    no_log: Any = False

    @property
    def where(self) -> str:
        return f"{self.file.parent.name}/{self.file.name}: {self.body.get('name', 'a task without a name')!r}"

    @property
    def action(self) -> str:
        """The module's name without its collection when that is ansible.builtin."""
        name = next((key for key in self.body if key not in KEYWORDS and not key.startswith("with_")), "")
        return name.removeprefix("ansible.builtin.")


# What a task may say beside its module.
KEYWORDS = {
    *("name", "when", "tags", "register", "vars", "loop", "loop_control", "no_log", "notify", "listen", "become", "become_user"),
    *("become_method", "changed_when", "failed_when", "until", "retries", "delay", "check_mode", "diff", "environment", "delegate_to"),
    *("delegate_facts", "run_once", "ignore_errors", "ignore_unreachable", "any_errors_fatal", "args", "async", "poll", "throttle"),
    *("timeout", "block", "rescue", "always", "module_defaults", "collections", "connection", "remote_user"),
}


@dataclass
class Role:
    path: Path
    root: Path = ROOT
    tasks: list[Task] = field(init=False)

    def __post_init__(self) -> None:
        files = [*sorted(self.path.glob("tasks/**/*.yml")), *sorted(self.path.glob("handlers/**/*.yml"))]
        self.tasks = [task for file in files for task in flat(file, load(file) or [])]

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def options(self) -> dict[str, dict[str, Any]]:
        """All options of all entry points."""
        specs = (load(self.path / "meta" / "argument_specs.yml") or {}).get("argument_specs") or {}
        return {name: option or {} for spec in specs.values() for name, option in ((spec or {}).get("options") or {}).items()}

    @cached_property
    def defaults(self) -> dict[str, Any]:
        return load(self.path / "defaults" / "main.yml") or {}

    def sources(self, *folders: str) -> Iterator[tuple[Path, str]]:
        """Every text file below the folders, without comments."""
        for folder in folders or ("defaults", "vars", "tasks", "handlers", "templates", "meta"):
            for file in sorted((self.path / folder).rglob("*")):
                if file.is_file() and file.name != "argument_specs.yml":
                    text = re.sub(r"\{#.*?#\}", "", file.read_text(encoding="utf-8"), flags=re.S)
                    yield file.relative_to(self.path), re.sub(r"(?m)^\s*#.*$", "", text)


def load(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader) if path.exists() else None


def flat(file: Path, entries: list[dict[str, Any]], no_log: Any = False) -> Iterator[Task]:
    """Tasks of a file, those inside blocks included; the blocks themselves are no tasks."""
    for entry in entries:
        inherited = entry.get("no_log", no_log)
        if "block" in entry:
            for part in ("block", "rescue", "always"):
                yield from flat(file, entry.get(part) or [], inherited)
        else:
            yield Task(file, entry, inherited)


# --- rules ------------------------------------------------------------------------------------------------------------------------------


def has_its_files(role: Role) -> list[str]:
    wanted = ("README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "meta/declarations.yml", "tasks/main.yml")
    return [f"there is no {name}" for name in wanted if not (role.path / name).is_file()]


def defaults_equal_specs(role: Role) -> list[str]:
    problems = []
    for name in sorted({*role.defaults, *role.options}):
        option = role.options.get(name)
        if option is None:
            problems.append(f"{name}: in the defaults, but not in the argument specs")
        elif option.get("required"):
            problems += [f"{name}: required, but in the defaults"] if name in role.defaults else []
            problems += [f"{name}: required, but has a default in the argument specs"] if "default" in option else []
        elif name not in role.defaults:
            problems.append(f"{name}: in the argument specs, but not in the defaults; a variable without a sane default is required")
        elif "default" not in option:
            problems.append(f"{name}: the argument specs do not name its default")
        elif text_of(option["default"]) != text_of(role.defaults[name]):
            problems.append(f"{name}: default {role.defaults[name]!r}, but the argument specs say {option['default']!r}")
    return problems


def text_of(value: Any) -> str:
    """A value in a form in which 1, '1' and true differ, and folded text does not depend on its last line break."""
    return json.dumps(value.rstrip("\n") if isinstance(value, str) else value, sort_keys=True, default=str)


TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
    "raw": (object,),
}


def options_are_described(role: Role) -> list[str]:
    return [problem for name, option in role.options.items() for problem in option_problems(name, option)]


def option_problems(name: str, option: dict[str, Any]) -> list[str]:
    """Type, description and fitting default of an option and of those below it."""
    kind = option.get("type")
    if kind not in TYPES:
        return [f"{name}: type {kind!r} is none of {', '.join(TYPES)}"]
    problems = [] if option.get("description") else [f"{name}: no description"]
    if kind == "list" and "elements" not in option:
        problems.append(f"{name}: a list without 'elements'")
    default = option.get("default")
    template = isinstance(default, str) and "{{" in default
    if (
        default is not None
        and not template
        and (not isinstance(default, TYPES[kind]) or (kind in ("int", "float") and isinstance(default, bool)))
    ):
        problems.append(f"{name}: default {default!r} is no {kind}")
    for key, nested in (option.get("options") or {}).items():
        problems += option_problems(f"{name}.{key}", nested or {})
    return problems


def names_have_the_prefix(role: Role) -> list[str]:
    public, private = f"{role.name}_", f"__{role.name}_"
    problems = [f"{name}: does not begin with {public}" for name in sorted({*role.defaults, *role.options}) if not name.startswith(public)]
    for file in sorted(role.path.glob("vars/*.yml")):
        problems += [f"vars/{file.name}: {name} does not begin with {private}" for name in load(file) or {} if not name.startswith(private)]
    for task in role.tasks:
        names = [task.body["register"]] if "register" in task.body else []
        if task.action == "set_fact":
            # A role that moves SSH to another port goes on by that one.
            names += [name for name in task.body.get("ansible.builtin.set_fact") or {} if name not in ("cacheable", "ansible_port")]
        if task.action not in ("include_role", "import_role"):
            names += [name for name in task.body.get("vars") or {} if not name.startswith("ansible_")]
        loop_variable = (task.body.get("loop_control") or {}).get("loop_var")
        names += [loop_variable] if loop_variable else []
        problems += [f"{task.where}: {name} does not begin with {private}" for name in names if not name.startswith(private)]
    return problems


def main_is_a_table_of_contents(role: Role) -> list[str]:
    path = role.path / "tasks" / "main.yml"
    lines = len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0
    return [] if lines <= 60 else [f"tasks/main.yml has {lines} lines, more than 60"]


# What Ansible itself defines beside facts. Anything else that begins with ansible_ is a fact that was injected as a variable.
MAGIC = re.compile(
    r"ansible_(facts|check_mode|diff_mode|verbosity|managed|version|config_file|limit|run_tags|skip_tags|forks|inventory_sources|playbook_python"
    r"|host|port|user|connection|python_interpreter|pipelining|password|become\w*|ssh_\w+"
    r"|play_\w+|role_name|role_names|parent_role_\w+|dependent_role_names|collection_name|collections|search_path"
    r"|loop|loop_var|index_var|failed_task|failed_result)"
)


def facts_are_not_injected(role: Role) -> list[str]:
    problems = []
    for file, text in role.sources():
        problems += [
            f"{file}: {name}: write ansible_facts['...']"
            for name in sorted(set(re.findall(r"\bansible_\w+", text)))
            if not MAGIC.fullmatch(name)
        ]
        problems += [f"{file}: {name}: write ansible_facts['...']" for name in sorted(set(re.findall(r"\bansible_facts\.\w+", text)))]
    return problems


def declarations_are_known(role: Role) -> list[str]:
    document = load(role.path / "meta" / "declarations.yml")
    if not isinstance(document, dict):
        return ["meta/declarations.yml: not a mapping of kinds to lists"]
    problems = []
    for kind, items in document.items():
        if kind not in _declarations.KINDS:
            problems.append(f"meta/declarations.yml: kind {kind!r} is none of {', '.join(_declarations.KINDS)}")
            continue
        if not isinstance(items, (list, str)):
            problems.append(f"meta/declarations.yml: {kind}: neither a list nor a template")
        for item in items if isinstance(items, list) else []:
            if isinstance(item, dict):
                problems += [f"meta/declarations.yml: {kind}: {item} lacks {key}" for key in _declarations.KINDS[kind] if key not in item]
            elif not (isinstance(item, str) and "{" in item):
                problems.append(f"meta/declarations.yml: {kind}: {item!r} is neither a mapping nor a template")
    return problems


def is_named_in_a_scenario(role: Role) -> list[str]:
    return [] if pages.scenarios_of(role.root, role.name) else ["no scenario under molecule/ runs it"]


def platforms_are_complete(role: Role) -> list[str]:
    files = {path.stem: set(load(path) or {}) for path in sorted(role.path.glob("vars/*")) if path.name != "main.yml"}
    problems = [f"vars/{name}: is none of {', '.join(PLATFORMS)}" for name in files if name not in PLATFORMS]
    if not files:
        return []
    problems += [f"vars/{name}.yml is missing" for name in PLATFORMS if name not in files]
    everything = set().union(*files.values())
    problems += [f"vars/{name}.yml lacks {', '.join(sorted(everything - keys))}" for name, keys in files.items() if everything - keys]
    if not everything:
        problems.append("vars: the files of the platforms are empty")
    return problems


def tasks_are_named(role: Role) -> list[str]:
    problems = []
    for task in role.tasks:
        name = str(task.body.get("name", ""))
        topic = "" if task.file.parent.name == "handlers" or task.file.name == "main.yml" else f"{task.file.stem} | "
        if not name:
            problems.append(f"{task.where} ({task.action})")
        elif not name.startswith(topic):
            problems.append(f"{task.where}: write '{topic}...'")
    return problems


def groups_are_unknown(role: Role) -> list[str]:
    pattern = re.compile(r"(?<![\w.'\"])(?:groups\s*(?:\[|\.\w|\|)|group_names\b)")
    return [
        f"{file}: {match.strip()}: roles do not know the inventory's groups"
        for file, text in role.sources()
        for match in pattern.findall(text)
    ]


def other_roles_are_unknown(role: Role) -> list[str]:
    """No variable of another role is read or written here, save what a role is given that this one includes."""
    foreign = {
        name
        for other in (role.root / "roles").iterdir()
        if other.name != role.name and other.is_dir()
        for name in Role(other, role.root).options
    }
    given = {name for task in role.tasks if task.action in ("include_role", "import_role") for name in task.body.get("vars") or {}}
    problems = []
    for file, text in role.sources():
        if given and file.parts[0] == "tasks":
            # As keys they are given; in a value they would be read.
            text = re.sub(rf"(?m)^\s+(?:{'|'.join(sorted(given))}):", "", text)
        problems += [f"{file}: {name} belongs to another role" for name in sorted(set(re.findall(r"\b[a-z]\w+", text)) & foreign)]
    return problems


COMMANDS = ("command", "shell", "raw", "script", "expect")


def commands_say_what_changes(role: Role) -> list[str]:
    return [
        f"{task.where}: {task.action} without changed_when"
        for task in role.tasks
        if task.action in COMMANDS and "changed_when" not in task.body
    ]


def modules_have_full_names(role: Role) -> list[str]:
    return [
        f"{task.where}: {task.action}: write the full name"
        for task in role.tasks
        if not re.search(r"\w\.\w", next(iter(module_keys(task)), ""))
    ]


def module_keys(task: Task) -> list[str]:
    return [key for key in task.body if key not in KEYWORDS and not key.startswith("with_")]


def nothing_starts_with_a_distributions_configuration(role: Role) -> list[str]:
    """Packages are installed with policy_rc_d, so that no service runs before it is configured."""
    problems = []
    for task in role.tasks:
        if task.action == "apt":
            arguments = task.body["ansible.builtin.apt"]
            installs = (
                isinstance(arguments, dict) and {"name", "pkg", "package", "deb"} & set(arguments) and arguments.get("state") != "absent"
            )
            if installs and arguments.get("policy_rc_d") != 101:
                problems.append(f"{task.where}: write policy_rc_d: 101")
    return problems


# Formats that know no comments.
NO_COMMENTS = (".json", ".pem", ".crt", ".key", ".csv", ".txt")
NO_COMMENTS_IN = ("pam-configs",)
COMMENT = re.compile(r"^\s*(#|;|//|--|/\*|<!--|\"|!)|\|\s*comment\b")


def templates_are_marked(role: Role) -> list[str]:
    problems = []
    for file in sorted(role.path.glob("templates/**/*.j2")):
        if file.with_suffix("").suffix in NO_COMMENTS or file.parent.name in NO_COMMENTS_IN:
            continue
        text = re.sub(r"\{#.*?#\}|\{%.*?%\}", "", file.read_text(encoding="utf-8"), flags=re.S)
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("#!", "<?xml", "<!DOCTYPE", "---"))]
        if not lines or "ansible_managed" not in lines[0] or not COMMENT.search(lines[0]):
            problems.append(f"{file.relative_to(role.path)}: its first line is not a comment with ansible_managed")
    return problems


SECRET_LOOKUP = re.compile(r"civitas\.hosting\.secrets?\b")
SECRET_NAME = re.compile(r"\b\w*(?:password|passphrase|private_key|_secret|_token)s?\b")
# Names that speak of a secret without holding one.
BESIDE = re.compile(r"\w+(?:\[\w+\])?\.(?:name|mode|uid|gid|owner|group|path|file)\b|\w+\s*\|\s*length\b")
HARMLESS = re.compile(r"\w*(?:_file|_path|_length|_name)|password_secret|\w*password_(?:encryption|policy)\w*")


def secrets_stay_out_of_the_log(role: Role) -> list[str]:
    """A task whose own text evaluates a secret has no_log. Templates of config_tree do not count: it hides files marked secret itself."""
    known: dict[str, Any] = {**role.defaults}
    for file in sorted(role.path.glob("vars/*.yml")):
        known.update(load(file) or {})
    problems = []
    for task in role.tasks:
        if task.action.startswith(("import_", "include_")):
            continue
        if task.no_log in (False, None, "false", "no") and holds_secret(task.body, {**known, **(task.body.get("vars") or {})}):
            problems.append(f"{task.where}: evaluates a secret without no_log")
    return problems


def holds_secret(value: Any, variables: dict[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a value evaluates a secret: by the lookup, by a variable named so, or by a variable that does."""
    if isinstance(value, dict):
        return any(holds_secret(part, variables, seen) for key, part in value.items() if key not in ("name", "register", "notify"))
    if isinstance(value, list):
        return any(holds_secret(part, variables, seen) for part in value)
    if not isinstance(value, str) or ("{{" not in value and "{%" not in value):
        return False
    for expression in re.findall(r"\{[{%].*?[%}]\}", value, flags=re.S):
        if SECRET_LOOKUP.search(expression):
            return True
        code = BESIDE.sub("", re.sub(r"'[^']*'|\"[^\"]*\"", "''", expression))
        for name in set(re.findall(r"\b[A-Za-z_]\w*", code)):
            if SECRET_NAME.fullmatch(name) and not HARMLESS.fullmatch(name):
                return True
            if name in variables and name not in seen and holds_secret(variables[name], variables, seen | {name}):
                return True
    return False


RULES: list[Callable[[Role], list[str]]] = [
    has_its_files,
    defaults_equal_specs,
    options_are_described,
    names_have_the_prefix,
    main_is_a_table_of_contents,
    facts_are_not_injected,
    declarations_are_known,
    is_named_in_a_scenario,
    platforms_are_complete,
    tasks_are_named,
    modules_have_full_names,
    groups_are_unknown,
    other_roles_are_unknown,
    commands_say_what_changes,
    nothing_starts_with_a_distributions_configuration,
    templates_are_marked,
    secrets_stay_out_of_the_log,
]


# --- the roles of the tree --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("name", ROLES)
def test_role_keeps_the_rule(name: str, rule: Callable[[Role], list[str]]) -> None:
    problems = rule(Role(ROOT / "roles" / name))
    assert not problems, "\n".join(problems)


def share_of_commands(tasks: list[Task]) -> float:
    return sum(task.action in COMMANDS for task in tasks) / max(len(tasks), 1)


def test_commands_are_rare() -> None:
    tasks = [task for name in ROLES for task in Role(ROOT / "roles" / name).tasks]
    assert tasks
    assert share_of_commands(tasks) < 0.02, [task.where for task in tasks if task.action in COMMANDS]


def platform_of(facts: dict[str, Any]) -> str:
    facts = facts.get("ansible_facts", facts)
    return f"{facts['distribution']}_{facts['distribution_major_version']}"


def test_there_are_facts_of_every_platform() -> None:
    assert {platform_of(json.loads(path.read_text(encoding="utf-8"))) for path in FACTS} >= set(PLATFORMS)


@pytest.mark.parametrize("path", FACTS, ids=lambda path: path.stem)
def test_every_role_has_the_values_of_a_supported_host(path: Path) -> None:
    platform = platform_of(json.loads(path.read_text(encoding="utf-8")))
    if platform not in PLATFORMS:
        pytest.skip(f"{platform} is not supported; the role base refuses it")
    with_platforms = [path for path in (ROOT / "roles").iterdir() if any(path.glob("vars/[A-Z]*.yml"))]
    assert with_platforms
    assert [path.name for path in with_platforms if not (path / "vars" / f"{platform}.yml").is_file()] == []


# --- the rules against a role that breaks them ------------------------------------------------------------------------------------------

GOOD = {
    "README.md": "# edge\n",
    "meta/main.yml": "galaxy_info: {}\n",
    "meta/argument_specs.yml": """
argument_specs:
  main:
    short_description: An edge
    options:
      edge_port: {type: int, default: 443, description: The port.}
      edge_name: {type: str, required: true, description: The name.}
      edge_password: {type: str, default: "", description: A password.}
      edge_sites: {type: list, elements: dict, default: [], description: Sites., options: {name: {type: str, description: A name.}}}
""",
    "meta/declarations.yml": "packages: [{name: nginx-light}, '{{ edge_more }}']\nsecrets: '{{ edge_secrets }}'\n",
    "defaults/main.yml": "edge_port: 443\nedge_password: ''\nedge_sites: []\n",
    "tasks/main.yml": "- name: Configure\n  ansible.builtin.import_tasks: configure.yml\n",
    "tasks/configure.yml": """
# ansible_distribution in a comment is no use, nor is groups['x'].
- name: configure | Install
  ansible.builtin.apt: {name: nginx-light, policy_rc_d: 101}
  when: ansible_facts['distribution'] == 'Debian' and not ansible_check_mode
- name: configure | Both
  no_log: "{{ edge_secure_logging }}"
  block:
    - name: configure | Set the password
      civitas.hosting.thing: {password: "{{ edge_password }}"}
      register: __edge_thing
- name: configure | Ask
  ansible.builtin.command: {cmd: "true"}
  changed_when: false
""",
    "handlers/main.yml": "- name: Reload\n  civitas.hosting.systemd_units: {units: []}\n",
    "templates/etc/edge.conf.j2": "{#- SPDX -#}\n{% set a = 1 %}\n# {{ ansible_managed }}\nport={{ edge_port }}\n",
    "templates/etc/edge.json.j2": "{}\n",
    **{f"vars/{platform}.yml": "__edge_package: nginx\n" for platform in PLATFORMS},
}


def make(root: Path, changes: dict[str, str | None]) -> Role:
    tree = {
        **{f"roles/edge/{path}": text for path, text in GOOD.items()},
        "roles/other/meta/argument_specs.yml": "argument_specs: {main: {options: {other_port: {type: int}}}}\n",
        "molecule/edge/molecule.yml": "---\n",
        "molecule/edge/converge.yml": "- hosts: all\n  roles: [civitas.hosting.edge]\n",
        **changes,
    }
    for path, text in tree.items():
        if text is not None:
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return Role(root / "roles" / "edge", root)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_role_passes(rule: Callable[[Role], list[str]], tmp_path: Path) -> None:
    assert rule(make(tmp_path, {})) == []


def task(text: str) -> dict[str, str | None]:
    return {"roles/edge/tasks/configure.yml": text}


def spec(options: str) -> dict[str, str | None]:
    return {"roles/edge/meta/argument_specs.yml": f"argument_specs: {{main: {{options: {options}}}}}\n"}


DEFAULTS = "roles/edge/defaults/main.yml"
DECLARED = "roles/edge/meta/declarations.yml"
VARS = "roles/edge/vars/Debian_12.yml"
TEMPLATE = "roles/edge/templates/etc/edge.conf.j2"
NAMED = "- name: configure | A\n  "
STAT = NAMED + "ansible.builtin.stat: {path: /}\n  "
INCLUDE = NAMED + "ansible.builtin.include_role: {name: civitas.hosting.other}\n  vars:\n    other_port: 1\n    "
THING = NAMED + "civitas.hosting.thing: "

BAD: list[tuple[Callable[[Role], list[str]], dict[str, str | None], str]] = [
    (has_its_files, {"roles/edge/README.md": None}, "no README.md"),
    (has_its_files, {"roles/edge/meta/declarations.yml": None}, "no meta/declarations.yml"),
    (defaults_equal_specs, {DEFAULTS: GOOD["defaults/main.yml"] + "edge_extra: 1\n"}, "edge_extra: in the defaults, but not"),
    (defaults_equal_specs, {DEFAULTS: GOOD["defaults/main.yml"] + "edge_name: a\n"}, "edge_name: required, but in the defaults"),
    (defaults_equal_specs, {DEFAULTS: "edge_port: 443\nedge_sites: []\n"}, "edge_password: in the argument specs, but not"),
    (defaults_equal_specs, {DEFAULTS: GOOD["defaults/main.yml"].replace("443", "'443'")}, "edge_port: default '443'"),
    (defaults_equal_specs, {DEFAULTS: GOOD["defaults/main.yml"].replace("443", "8443")}, "edge_port: default 8443"),
    (defaults_equal_specs, {**spec("{edge_a: {type: bool, default: true}}"), DEFAULTS: "edge_a: 1\n"}, "edge_a: default 1"),
    (defaults_equal_specs, {**spec("{edge_a: {type: int}}"), DEFAULTS: "edge_a: 1\n"}, "do not name its default"),
    (defaults_equal_specs, {**spec("{edge_a: {type: int, required: true, default: 1}}"), DEFAULTS: ""}, "required, but has a default"),
    (options_are_described, spec("{edge_a: {description: A.}}"), "type None"),
    (options_are_described, spec("{edge_a: {type: string, description: A.}}"), "type 'string'"),
    (options_are_described, spec("{edge_a: {type: int}}"), "no description"),
    (options_are_described, spec("{edge_a: {type: list, description: A.}}"), "without 'elements'"),
    (options_are_described, spec("{edge_a: {type: int, description: A., default: '1'}}"), "is no int"),
    (options_are_described, spec("{edge_a: {type: int, description: A., default: true}}"), "is no int"),
    (options_are_described, spec("{edge_a: {type: dict, description: A., options: {b: {type: str}}}}"), "edge_a.b: no description"),
    (names_have_the_prefix, {DEFAULTS: "port: 1\n"}, "port: does not begin with edge_"),
    (names_have_the_prefix, {VARS: "edge_package: a\n"}, "does not begin with __edge_"),
    (names_have_the_prefix, task(STAT + "register: result\n"), "result does not"),
    (names_have_the_prefix, task(NAMED + "ansible.builtin.set_fact: {edge_x: 1}\n"), "edge_x does not"),
    (names_have_the_prefix, task(STAT + "vars: {edge_x: 1}\n"), "edge_x does not"),
    (names_have_the_prefix, task(STAT + "loop: []\n  loop_control: {loop_var: it}\n"), "it does not"),
    (main_is_a_table_of_contents, {"roles/edge/tasks/main.yml": "#\n" * 61}, "61 lines"),
    (facts_are_not_injected, task(STAT + "when: ansible_distribution == 'x'\n"), "ansible_distribution:"),
    (facts_are_not_injected, task(STAT + "when: ansible_facts.distribution\n"), "ansible_facts.distribution"),
    (facts_are_not_injected, {TEMPLATE: "# {{ ansible_managed }}\n{{ ansible_memtotal_mb }}\n"}, "ansible_memtotal_mb"),
    (declarations_are_known, {DECLARED: "port: []\n"}, "kind 'port' is none of"),
    (declarations_are_known, {DECLARED: "- packages\n"}, "not a mapping"),
    (declarations_are_known, {DECLARED: "packages: {name: a}\n"}, "neither a list nor a template"),
    (declarations_are_known, {DECLARED: "packages: [nginx]\n"}, "neither a mapping nor a template"),
    (declarations_are_known, {DECLARED: "ports: [{name: a, port: 1, protocol: tcp, addresses: ['::'], from: public}]\n"}, "lacks purpose"),
    (is_named_in_a_scenario, {"molecule/edge/converge.yml": "- hosts: all\n  roles: [civitas.hosting.edges]\n"}, "no scenario"),
    (is_named_in_a_scenario, {"molecule/edge/molecule.yml": None}, "no scenario"),
    (platforms_are_complete, {"roles/edge/vars/Ubuntu_24.yml": None}, "vars/Ubuntu_24.yml is missing"),
    (platforms_are_complete, {VARS: "__edge_package: a\n__edge_more: b\n"}, "vars/Debian_13.yml lacks __edge_more"),
    (platforms_are_complete, {"roles/edge/vars/Debian.yml": "__edge_package: a\n"}, "vars/Debian: is none of"),
    (platforms_are_complete, {f"roles/edge/vars/{name}.yml": "---\n" for name in PLATFORMS}, "are empty"),
    (tasks_are_named, task("- name: Install\n  ansible.builtin.stat: {path: /}\n"), "write 'configure | ...'"),
    (tasks_are_named, task("- ansible.builtin.stat: {path: /}\n"), "without a name"),
    (tasks_are_named, task("- name: A\n  block: [{name: B, ansible.builtin.stat: {path: /}}]\n"), "write 'configure | ...'"),
    (modules_have_full_names, task(NAMED + "stat: {path: /}\n"), "write the full name"),
    (groups_are_unknown, task(STAT + "when: groups['db'] | length > 0\n"), "groups["),
    (groups_are_unknown, {TEMPLATE: "{{ groups.db }}\n"}, "groups.d"),
    (groups_are_unknown, task(STAT + "when: \"'db' in group_names\"\n"), "group_names"),
    (other_roles_are_unknown, {TEMPLATE: "{{ other_port }}\n"}, "other_port belongs to another role"),
    (other_roles_are_unknown, task(STAT + "vars:\n    other_port: 1\n"), "other_port belongs to another role"),
    (other_roles_are_unknown, task(INCLUDE + "edge_x: '{{ other_port }}'\n"), "other_port belongs to another role"),
    (other_roles_are_unknown, {DECLARED: "packages: '{{ other_port }}'\n"}, "other_port belongs to another role"),
    (commands_say_what_changes, task(NAMED + "ansible.builtin.command: {cmd: a}\n"), "without changed_when"),
    (nothing_starts_with_a_distributions_configuration, task(NAMED + "ansible.builtin.apt: {name: nginx}\n"), "policy_rc_d: 101"),
    (templates_are_marked, {TEMPLATE: "port=1\n# {{ ansible_managed }}\n"}, "first line is not a comment"),
    (templates_are_marked, {TEMPLATE: "{{ ansible_managed }}\n"}, "first line is not a comment"),
    (templates_are_marked, {TEMPLATE: "{# {{ ansible_managed }} #}\nport=1\n"}, "first line is not a comment"),
    (secrets_stay_out_of_the_log, task(THING + "{a: \"{{ lookup('civitas.hosting.secret', 'x') }}\"}\n"), "without no_log"),
    (secrets_stay_out_of_the_log, task(THING + "{a: '{{ edge_password }}'}\n"), "without no_log"),
    (secrets_stay_out_of_the_log, task(THING + "{a: '{{ edge_secrets[0].value }}'}\n"), "without no_log"),
    (secrets_stay_out_of_the_log, task(THING + "{a: '{{ edge_password }}'}\n  no_log: false\n"), "without no_log"),
    (secrets_stay_out_of_the_log, task(THING + "{a: '{{ __edge_x }}'}\n  vars: {__edge_x: '{{ a_token }}'}\n"), "without no_log"),
    (
        secrets_stay_out_of_the_log,
        {**task(THING + "{a: '{{ __edge_b }}'}\n"), VARS: "__edge_b: '{{ edge_password }}'\n"},
        "without no_log",
    ),
]


@pytest.mark.parametrize(("rule", "changes", "problem"), BAD, ids=[f"{case[0].__name__}-{number}" for number, case in enumerate(BAD)])
def test_a_bad_role_is_found(rule: Callable[[Role], list[str]], changes: dict[str, str | None], problem: str, tmp_path: Path) -> None:
    problems = rule(make(tmp_path, changes))
    assert [text for text in problems if problem in text], problems


def test_every_rule_has_a_bad_role() -> None:
    assert {rule.__name__ for rule in RULES} == {case[0].__name__ for case in BAD}


def test_the_share_of_commands_counts(tmp_path: Path) -> None:
    role = make(tmp_path, {})
    assert len(role.tasks) == 5
    assert share_of_commands(role.tasks) == 1 / 5


def test_an_included_role_may_be_given_its_variables(tmp_path: Path) -> None:
    assert other_roles_are_unknown(make(tmp_path, task(INCLUDE + "edge_x: 1\n"))) == []


@pytest.mark.parametrize(
    "text",
    [
        "civitas.hosting.thing: {file: '{{ edge_secrets_file }}', password_secret: database}\n",
        "civitas.hosting.thing: {a: '{{ edge_password }}'}\n  no_log: true\n",
        "civitas.hosting.thing: {a: \"{{ x['password'] | d('the_password') }}\"}\n",
        "ansible.builtin.import_tasks: password.yml\n",
        "civitas.hosting.thing: {a: '{{ edge_secrets[0].name }}', b: '{{ range(edge_secrets | length) }}'}\n",
    ],
)
def test_tasks_that_only_speak_of_secrets_pass(text: str, tmp_path: Path) -> None:
    assert secrets_stay_out_of_the_log(make(tmp_path, task(NAMED + text))) == []
