# -*- coding: utf-8 -*-
# Copyright: (c) 2026, The founders of civitas.hosting
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the variables of roles: pure functions over plain data and the roles' argument specs.

Private to the collection: no promise of stability. No message holds the value of an option that is C(no_log) or comes from a vault.
"""

from __future__ import annotations

import re
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible_collections.civitas.hosting.plugins.module_utils._site_rules import Finding, Problem, nearest, show

# Marks in the answer of mentions().
SECRET = "civitas.hosting.secret"
VAULT = "!vault"
# The word by which a template looks up what roles declare.
DECLARED = "declarations"

_TYPES = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "path": "a path",
}
_ELEMENTS = {"str": "texts", "int": "whole numbers", "float": "numbers", "dict": "mappings", "list": "lists", "path": "paths"}

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Vaulted values in ansible-core 2.19 and later, and before.
_VAULTED = ("EncryptedString", "AnsibleVaultEncryptedUnicode")


def mentions(raw: t.Any, variables: t.Mapping[str, t.Any]) -> t.Set[str]:
    """Return the names that an unrendered value refers to, directly or through variables.

    Every word inside a template counts, so it names too much rather than too little.
    """
    found: t.Set[str] = set()
    waiting = [raw]
    while waiting:
        for text in _texts(waiting.pop()):
            if text is None:
                found.add(VAULT)
                continue
            if "{{" not in text and "{%" not in text:
                continue
            if SECRET in text:
                found.add(SECRET)
            for word in set(_WORD.findall(text)) - found:
                found.add(word)
                if word in variables:
                    waiting.append(variables[word])
    return found


def by_need(names: t.Iterable[str], variables: t.Mapping[str, t.Any], without: t.AbstractSet[str]) -> t.Tuple[t.List[str], t.List[str]]:
    """Return those of C(names) that are templates, each behind all that it refers to, in two lists.

    Those in the second one look up what roles declare, which refers to more than their texts say.

    Args:
        names: of variables; one that is not there is passed over.
        variables: their unrendered values.
        without: what refers to one of these names is left out.
    """
    needs = {name: mentions(variables[name], variables) for name in names if name in variables}
    # What a template refers to mentions fewer names than the template does.
    order = [name for name in sorted(needs, key=lambda name: (len(needs[name]), name)) if needs[name] and not needs[name] & without]
    return [name for name in order if DECLARED not in needs[name]], [name for name in order if DECLARED in needs[name]]


def _texts(raw: t.Any) -> t.Iterator[t.Optional[str]]:
    """All texts in a value; V(None) stands for a vaulted one."""
    if type(raw).__name__ in _VAULTED:
        yield None
    elif isinstance(raw, str):
        yield raw
    elif isinstance(raw, dict):
        for key, value in raw.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(raw, (list, tuple)):
        for value in raw:
            yield from _texts(value)


def needs_host(words: t.AbstractSet[str], platform_names: t.AbstractSet[str], inventory_names: t.AbstractSet[str]) -> bool:
    """Can a value be known only when the host has been asked? So it is with facts, what depends on the release, and roles' own results.

    A name of the inventory is known, also one that looks like a role's own.
    """
    return "ansible_facts" in words or bool(words & platform_names) or any(word.startswith("__") for word in words - inventory_names)


def describe(spec: t.Mapping[str, t.Any]) -> str:
    """What to write for an option, from its argument spec."""
    wanted = _TYPES.get(str(spec.get("type", "str")), "a value")
    if spec.get("elements"):
        wanted += f" of {_ELEMENTS.get(str(spec['elements']), 'values')}"
    if spec.get("choices"):
        wanted = "one of " + ", ".join(str(choice) for choice in spec["choices"])
    description = spec.get("description") or ""
    first = description[0] if isinstance(description, (list, tuple)) and description else description
    # C(name) and its like are for pages.
    told = re.sub(r"\b[A-Z]\(([^()]*)\)", r"\1", " ".join(str(first).split()))
    return f"Write {wanted}. {told}".strip()


def check_missing(option: str, spec: t.Mapping[str, t.Any], names: t.Iterable[str]) -> Finding:
    """A required option that nobody sets."""
    if not spec.get("required"):
        return None
    slip = nearest(option, names, 0.85)
    return ("is required and not set" + (f"; {slip} is: did you mean {option}?" if slip else ""), describe(spec))


def check_option(option: str, spec: t.Mapping[str, t.Any], value: t.Any, secret: bool = False, may_be_empty: bool = False) -> Finding:
    """Does a value fit its argument spec, sub-options included? Judged by Ansible's own validator.

    Args:
        option: name of the variable.
        spec: its argument spec.
        value: the rendered value.
        secret: the value may be named in no message.
        may_be_empty: the role's default is null.
    """
    if value is None:
        return None if may_be_empty else ("is empty", f"{describe(spec)} Remove the line for the default.")
    result = ArgumentSpecValidator({option: dict(spec)}).validate({option: value})
    messages = result.error_messages
    if not messages:
        return None
    if secret or spec.get("no_log"):
        return ("has a value that does not fit; it is not shown because it is secret", describe(spec))
    hidden = {text for text in getattr(result, "_no_log_values", ()) if text}
    told = "; ".join(str(remove_values(message, hidden)) for message in messages)
    # Earlier releases of Ansible name the classes of their own texts.
    told = re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", told).replace("AnsibleUnicode", "str")
    # A list or mapping may hold what must not be shown.
    shown = f"is {show(value)} and " if isinstance(value, (str, int, float)) else ""
    return (f"{shown}does not fit: {plain(told)}", describe(spec))


def check_unknown(names: t.Iterable[str], options: t.Mapping[str, t.Iterable[str]]) -> t.List[Problem]:
    """Names with the prefix of a role that the role does not know. C(options) maps roles to their options; where stays empty."""
    problems = []
    for name in sorted(names):
        owners = [role for role in options if name.startswith(f"{role}_")]
        if not owners or any(name in options[role] for role in owners):
            continue
        role = max(owners, key=len)
        known = set(options[role])
        meant = nearest(name, known)
        problems.append(
            Problem(
                "",
                show(name)[1:-1],
                f"is no variable of the role {role}" + (f": did you mean {meant}?" if meant else ""),
                f"Write {meant}." if meant else f"Remove it, or take a name that does not begin with {role}_.",
            )
        )
    return problems


def check_computed(names: t.Iterable[str], computed: t.Mapping[str, str]) -> t.List[Problem]:
    """Names that the playbook computes and the inventory sets all the same; where stays empty."""
    return [
        Problem("", name, f"is computed by the playbook ({computed[name]}), so this value is never used", "Remove it.")
        for name in sorted(names)
        if name in computed
    ]


def plain(text: str) -> str:
    """An error's text on one line, at most 300 characters, nothing that a terminal would obey."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text[:5000]).split())
    return line if len(line) <= 300 else f"{line[:300]}..."
