# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the generated parts of the pages: role references, the table of roles, the summary of the requirements,
the table of reasons for which a certificate is refused.

    python -m tools.pages           writes what is stale
    python -m tools.pages --check   writes nothing, names the stale pages, ends with 1 when there are any

Only the text between the markers is generated; everything around it is written by hand and kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent

STATES = ("proven", "built, unproven", "missing")
SYSTEMS = {"H": "Primero, hosted", "T": "Primero, self-hosted", "O": "OpenCRVS", "C": "OpenCRVS checklist", "P": "Pryv.io"}

PROSE_KEYS = ("purpose", "title", "remedy")
# How a check is done, or an alarm judged, is for the machine.
SHOWN_KEYS = {"checks": ("id", "title", "remedy"), "alerts": ("name", "severity", "text", "runbook")}
REFERENCE = "\n\n<!-- reference:begin -->\n<!-- reference:end -->\n"


class PageError(Exception):
    """A page or a source that cannot be used; the text names the file and what to write."""


# --- Markdown ---------------------------------------------------------------------------------------------------------------------------


def code(value: str) -> str:
    """C(value) as inline code, safe in a table cell."""
    value = " ".join(value.split())
    fence = "``" if "`" in value else "`"
    pad = " " if fence == "``" else ""
    return (fence + pad + value + pad + fence).replace("|", "\\|")


def literal(value: Any) -> str:
    """A YAML value as inline code in one line."""
    return code(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))


def prose(text: Any) -> str:
    """A description (string or list of strings) as one line of Markdown, Ansible's markup translated, HTML made harmless."""
    joined = " ".join(" ".join(str(part).split()) for part in (text if isinstance(text, list) else [text or ""]))
    joined = re.sub(r"\b[CVOEP]\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", joined)
    joined = re.sub(r"\bB\(([^()]*)\)", r"**\1**", joined)
    joined = re.sub(r"\bI\(([^()]*)\)", r"*\1*", joined)
    parts = joined.split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts)).replace("|", "\\|")


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(cell or "-" for cell in row) + " |" for row in rows]


def fill(text: str, name: str, block: str) -> str:
    """C(text) with C(block) between the markers C(name).

    Raises:
        PageError: there is not exactly one pair of markers in the right order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise PageError(f"needs exactly one line '{begin}' and after it one line '{end}'")
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{block.strip()}\n{end}{tail}"


# --- role pages -------------------------------------------------------------------------------------------------------------------------


def type_of(option: dict[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    if kind == "list" and option.get("elements"):
        kind = f"list of {option['elements']}"
    choices = option.get("choices")
    return kind + (": " + ", ".join(literal(choice) for choice in choices) if choices else "")


def default_of(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    return literal(option["default"]) if "default" in option else "-"


def option_tables(options: dict[str, Any], path: str = "") -> list[str]:
    """A table of options, followed by one table for each option that has options of its own."""
    rows = []
    nested: list[str] = []
    for name, option in options.items():
        option = option or {}
        rows.append([code(name), type_of(option), default_of(option), prose(option.get("description"))])
        if option.get("options"):
            full = f"{path}.{name}" if path else name
            nested += [f"### {code(full)}", "", *option_tables(option["options"], full)]
    return [*table(["name", "type", "default", "description"], rows), "", *nested]


def declaration_tables(declarations: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for kind, items in declarations.items():
        items = items if isinstance(items, list) else [items]
        mappings = [item for item in items if isinstance(item, dict)]
        keys = list(dict.fromkeys(key for item in mappings for key in item))
        lines += [f"### {kind.capitalize()}", ""]
        if keys == ["name"]:
            lines += [", ".join(cell(item["name"]) for item in mappings) + ".", ""]
        elif mappings:
            keys = [key for key in keys if key in SHOWN_KEYS.get(kind, keys)]
            rows = [[prose(item.get(key, "")) if key in PROSE_KEYS else cell(item.get(key)) for key in keys] for item in mappings]
            lines += [*table(keys, rows), ""]
        if len(mappings) < len(items):
            more = "More, depending on the variables" if mappings else "Depends on the variables"
            lines += [f"{more}: see [meta/declarations.yml](meta/declarations.yml).", ""]
    return lines


def cell(value: Any) -> str:
    return "-" if value in (None, "", [], {}) else literal(value)


def role_block(specs: dict[str, Any], declarations: dict[str, Any]) -> str:
    """The generated part of a role's page.

    Args:
        specs: C(argument_specs) of C(meta/argument_specs.yml): entry point to its specification.
        declarations: what C(meta/declarations.yml) holds.
    """
    lines: list[str] = []
    for entry, spec in specs.items():
        title = "Variables" if entry == "main" else f"Variables of the entry point `{entry}`"
        lines += [f"## {title}", "", *(option_tables(spec["options"]) if spec.get("options") else ["None.", ""])]
    if declarations:
        lines += ["## What it declares to others", "", *declaration_tables(declarations)]
    return "\n".join(lines)


# Roles that playbooks run on hosts only which ask for them by a variable with this in its name.
_OF_SOME_HOSTS = ("data_volume",)


def load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    except yaml.YAMLError as error:
        raise PageError(f"{path}: not valid YAML: {error}") from error


def roles(root: Path) -> dict[str, dict[str, Any]]:
    """Role name to its argument specs, for every role that has them."""
    found = {path.parent.parent.name: load(path) or {} for path in sorted(root.glob("roles/*/meta/argument_specs.yml"))}
    for role, document in found.items():
        if not isinstance(document.get("argument_specs"), dict) or "main" not in document["argument_specs"]:
            raise PageError(f"roles/{role}/meta/argument_specs.yml: write a mapping 'argument_specs' with the entry point 'main'")
    return {role: document["argument_specs"] for role, document in found.items()}


def new_role_page(role: str, spec: dict[str, Any]) -> str:
    lines = ["<!-- SPDX-License-Identifier: GPL-3.0-or-later -->", f"# {role}", ""]
    for part in spec.get("description") or [spec.get("short_description", "")]:
        lines += [prose(part), ""]
    return "\n".join(lines)


def role_table(root: Path, found: dict[str, dict[str, Any]]) -> str:
    """Role, what it does, and what shows it: the Molecule scenarios that name the role."""
    rows = []
    for role, specs in found.items():
        scenarios = [f"`{name}`" for name in scenarios_of(root, role)]
        state = "tested by " + ", ".join(scenarios) if scenarios else "no scenario yet"
        rows.append([f"[{role}](roles/{role}/README.md)", prose(specs["main"].get("short_description")), state])
    return "\n".join(table(["role", "does", "state"], rows))


def scenarios_of(root: Path, role: str) -> list[str]:
    """Names of the Molecule scenarios that run the role: by its name, through a playbook of the collection, or through another role."""
    parts = {f"playbooks/{path.stem}": [path] for path in [*root.glob("playbooks/*.yml"), *root.glob("playbooks/tasks/*.yml")]}
    parts |= {f"roles/{path.name}": sorted(path.glob("tasks/*.yml")) for path in root.glob("roles/*")}
    return [path.parent.name for path in sorted(root.glob("molecule/*/molecule.yml")) if f"roles/{role}" in reached(path.parent, parts)]


def reached(scenario: Path, parts: dict[str, list[Path]]) -> set[str]:
    """Which C(parts) of the collection (roles and playbooks, each with its files) a scenario runs."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(scenario.glob("*.yml"))]
    asked_for = "\n".join(texts)
    application = "".join(re.findall(r"^\s*civitas_application: (\w+)", "\n".join(texts), re.MULTILINE)[:1])
    found: set[str] = set()
    while texts:
        # The one name that is computed: the role of the application.
        text = texts.pop().replace("app_{{ civitas_application }}", f"app_{application}")
        names = {f"{kind}/{name}" for name in re.findall(r"\bcivitas\.hosting\.(\w+)", text) for kind in ("roles", "playbooks")}
        plays = re.findall(r"(?:import_playbook: |playbooks/|import_tasks: tasks/)(\w+)\.yml", text)
        names |= {f"playbooks/{name}" for name in plays}
        for name in (names & set(parts)) - found:
            found.add(name)
            texts += [path.read_text(encoding="utf-8") for path in parts[name]]
    return found - {f"roles/{role}" for role in _OF_SOME_HOSTS if role not in asked_for}


# --- requirements -----------------------------------------------------------------------------------------------------------------------


def requirement_rows(text: str) -> list[list[str]]:
    """The rows of all tables of the requirements: [id, requirement, met by, proven by, state]."""
    lines = [line.strip() for line in text.splitlines() if re.match(r"\|\s*[A-Z]+\d+\s*\|", line)]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def summary_block(rows: list[list[str]]) -> str:
    count = Counter((row[0][0], row[-1]) for row in rows)
    lines = []
    for letter, name in SYSTEMS.items():
        numbers = [count[letter, state] for state in STATES]
        lines.append([f"{letter}: {name}", *(str(number) for number in numbers), str(sum(numbers))])
    totals = [sum(count[letter, state] for letter in SYSTEMS) for state in STATES]
    lines.append(["**all**", *(f"**{number}**" for number in totals), f"**{sum(totals)}**"])
    return "\n".join(table(["system", *STATES, "all"], lines))


# --- certificates -----------------------------------------------------------------------------------------------------------------------


def refusal_table(root: Path) -> str:
    """Every code for which a certificate is refused: what it means and what to do."""
    spec = importlib.util.spec_from_file_location("_certificate_problems", root / "plugins" / "plugin_utils" / "_certificate_problems.py")
    if spec is None or spec.loader is None:
        raise PageError("plugins/plugin_utils/_certificate_problems.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return "\n".join(table(["code", "what it means", "what to do"], refusal_rows(module.CODES, module.MEANINGS)))


def refusal_rows(remedies: dict[str, str], meanings: dict[str, str]) -> list[list[str]]:
    if list(remedies) != list(meanings):
        raise PageError("CODES and MEANINGS of _certificate_problems.py do not have the same codes in the same order")
    return [[code(name), prose(meanings[name]), prose(remedies[name])] for name in remedies]


# --- all pages --------------------------------------------------------------------------------------------------------------------------


def pages(root: Path) -> dict[Path, str]:
    """Every page with generated parts, as it should be."""
    result: dict[Path, str] = {}
    found = roles(root)
    for role, specs in found.items():
        path = root / "roles" / role / "README.md"
        text = path.read_text(encoding="utf-8") if path.exists() else new_role_page(role, specs["main"])
        if "<!-- reference:" not in text:
            text = text.rstrip() + REFERENCE
        result[path] = filled(path, text, "reference", role_block(specs, load(path.parent / "meta" / "declarations.yml") or {}))
    readme = root / "README.md"
    if readme.exists():
        result[readme] = filled(readme, readme.read_text(encoding="utf-8"), "roles", role_table(root, found))
    requirements = root / "docs" / "requirements.md"
    if requirements.exists():
        text = requirements.read_text(encoding="utf-8")
        result[requirements] = filled(requirements, text, "summary", summary_block(requirement_rows(text)))
    certificates = root / "docs" / "certificates.md"
    if certificates.exists():
        result[certificates] = filled(certificates, certificates.read_text(encoding="utf-8"), "refusals", refusal_table(root))
    return result


def filled(path: Path, text: str, name: str, block: str) -> str:
    try:
        return fill(text, name, block)
    except PageError as error:
        raise PageError(f"{path}: {error}") from error


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of the pages.")
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a page is stale")
    arguments = parser.parse_args(argv)
    try:
        wanted = pages(root)
    except PageError as error:
        print(f"pages: {error}", file=sys.stderr)
        return 2
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if not arguments.check:
            path.write_text(wanted[path], encoding="utf-8")
        print(f"{'stale' if arguments.check else 'written'}: {path.relative_to(root)}")
    if stale and arguments.check:
        print("Run 'make docs' and commit the result.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
