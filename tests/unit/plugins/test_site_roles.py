# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule for the variables of roles, on its own."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _site_roles as roles

CANARY = "canary-1f9c7a"
PORT = {"type": "int", "description": ["The port of V(x). More text."]}
DATABASES = {
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["a", "b"]},
        "password": {"type": "str", "no_log": True},
    },
}


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (PORT, 5432),
        (PORT, "5432"),
        ({"type": "bool"}, "yes"),
        ({"type": "str"}, "x"),
        ({"type": "list", "elements": "str"}, ["x"]),
        ({"type": "raw"}, object()),
        (DATABASES, [{"name": "x", "kind": "a", "password": CANARY}]),
        ({**PORT, "required": True}, 1),
    ],
)
def test_fitting_values(spec, value):
    assert roles.check_option("x_option", spec, value) is None


@pytest.mark.parametrize(
    ("spec", "value", "problem", "remedy"),
    [
        (PORT, "eighty", "is 'eighty' and does not fit", "Write a whole number. The port of x. More text."),
        (PORT, None, "is empty", "Remove the line for the default."),
        ({"type": "bool"}, "perhaps", "is 'perhaps' and does not fit", "Write true or false."),
        ({"type": "str", "choices": ["lax", "strict"]}, "loose", "is 'loose' and does not fit", "Write one of lax, strict."),
        ({"type": "list", "elements": "int"}, ["a"], "does not fit", "Write a list of whole numbers."),
        ({"type": "dict"}, "text", "is 'text' and does not fit", "Write a mapping."),
        (DATABASES, [{"kind": "a"}], "missing required arguments: name", "Write a list of mappings."),
        (DATABASES, [{"name": "x", "kind": "c"}], "one of: a, b, got: c", "Write a list of mappings."),
        (DATABASES, [{"name": "x", "nmae": "y"}], "nmae. Supported parameters include: kind, name, password", "Write a list of mappings."),
        ({"type": "int"}, "7" * 10_000_000 + "x", "(10000001 characters) and does not fit", "Write a whole number."),
        ({"type": "int"}, "a\nb\x1b[2J", "does not fit", "Write a whole number."),
    ],
)
def test_unfitting_values(spec, value, problem, remedy):
    found = roles.check_option("x_option", spec, value)
    assert problem in found[0]
    assert remedy in found[1]
    assert len(found[0]) < 500
    assert "\n" not in found[0] and "\x1b" not in found[0]


def test_an_empty_default_may_be_empty():
    assert roles.check_option("x_option", PORT, None, may_be_empty=True) is None


def test_no_message_shows_a_secret():
    found = [
        roles.check_option("x_password", {"type": "int", "no_log": True}, CANARY),
        roles.check_option("x_password", {"type": "int"}, CANARY, secret=True),
        roles.check_option("x_databases", DATABASES, [{"name": "x", "kind": CANARY, "password": CANARY}]),
        roles.check_option("x_databases", DATABASES, [{"name": "x", "kind": "c", "password": [CANARY]}]),
    ]
    assert all(found)
    assert CANARY not in repr(found)


def test_missing():
    spec = {"type": "str", "required": True, "description": "The name."}
    assert roles.check_missing("x_name", {"type": "str"}, []) is None
    assert roles.check_missing("x_name", spec, []) == ("is required and not set", "Write a text. The name.")
    assert roles.check_missing("postgres_name", spec, ["postgress_name"])[0] == (
        "is required and not set; postgress_name is: did you mean postgres_name?"
    )


def test_unknown():
    options = {"app": ["app_image"], "app_demo": ["app_demo_port"], "postgres": ["postgres_databases", "postgres_port"]}
    names = [
        "postgres_databses",
        "postgres_port",
        "app_demo_prot",
        "app_demo_port",
        "app_image",
        "postgres_zzzzzzzzz",
        "mine",
        "appendix_x",
    ]
    found = roles.check_unknown(names, options)
    assert [(problem.variable, problem.problem) for problem in found] == [
        ("app_demo_prot", "is no variable of the role app_demo: did you mean app_demo_port?"),
        ("postgres_databses", "is no variable of the role postgres: did you mean postgres_databases?"),
        ("postgres_zzzzzzzzz", "is no variable of the role postgres"),
    ]
    assert found[2].remedy == "Remove it, or take a name that does not begin with postgres_."


def test_computed():
    (problem,) = roles.check_computed(["postgres_databases", "x"], {"postgres_databases": "from declarations"})
    assert problem.problem == "is computed by the playbook (from declarations), so this value is never used"


class EncryptedString:
    """Stands for Ansible's class of this name by its name, as in the rule."""


def test_mentions():
    variables = {
        "a": "{{ b | int }}",
        "b": ["{{ ansible_facts['x'] }}"],
        "loop": "{{ loop }}",
        "plain": "ansible_facts",
        "vaulted": EncryptedString(),
    }
    assert {"a", "b", "ansible_facts"} <= roles.mentions("{{ a }}", variables)
    assert "ansible_facts" not in roles.mentions("{{ plain }}", variables)
    assert roles.mentions("no template", variables) == set()
    assert "loop" in roles.mentions({"k": ["{{ loop }}"]}, variables)
    assert roles.SECRET in roles.mentions("{{ lookup('civitas.hosting.secret', 'x') }}", variables)
    assert roles.VAULT in roles.mentions("{{ vaulted }}", variables)
    assert roles.VAULT in roles.mentions(EncryptedString(), variables)


def test_by_need():
    variables = {
        "top": "{{ middle }} {{ bottom }}",
        "middle": ["{{ bottom }}"],
        "bottom": "{{ plain }}",
        "plain": "text",
        "from_roles": "{{ lookup('civitas.hosting.declarations', 'base', kind='ports') }}",
        "elsewhere": "{{ hidden }}",
        "hidden": "{{ role_path }}/x",
    }
    ordered = (["bottom", "middle", "top"], ["from_roles"])
    assert roles.by_need([*variables, "no_variable"], variables, {"role_path"}) == ordered
    # One that is not asked for is left out, and what refers to it is not.
    assert roles.by_need(["top", "bottom"], variables, set()) == (["bottom", "top"], [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"ansible_facts"}, True),
        ({"__role_result"}, True),
        ({"platform_name"}, True),
        ({"civitas_domain", "int"}, False),
        (set(), False),
        ({"__of_the_inventory"}, False),
        ({"__of_the_inventory", "__role_result"}, True),
    ],
)
def test_needs_host(words, expected):
    assert roles.needs_host(words, frozenset({"platform_name"}), {"__of_the_inventory", "civitas_domain"}) == expected
