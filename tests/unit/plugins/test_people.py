# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists of people as they are written: ours, those of OpenCRVS, and wrong ones."""

from __future__ import annotations

import datetime
import json

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.people import people as people_filter
from ansible_collections.civitas.hosting.plugins.filter.people_problems import people_problems
from ansible_collections.civitas.hosting.plugins.module_utils._people import OUR_GROUPS, PeopleError, accounts, normalized, problems_of
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st


def secret(number: int) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def line(number: int, comment: str = "") -> str:
    text = secret(number).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{text} {comment}".strip()


PRIVATE = secret(1).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
FULL = {
    "name": "amina",
    "full_name": "First Administrator",
    "ssh_keys": [line(1, "amina@laptop")],
    "role": "admin",
    "groups": ["adm"],
    "second_factor": True,
    "expires": "2027-01-31",
    "from": ["192.0.2.0/24"],
    "state": "present",
    "remove_home": False,
    "age_recipient": "age1" + "q" * 58,
}


def test_everything_is_kept_and_keys_are_there_without_options():
    (item,) = normalized([FULL])
    assert item == {**FULL, "public_keys": [line(1, "amina@laptop")]}


def test_what_is_left_out_is_the_least():
    (item,) = normalized([{"name": "ben"}])
    assert item == {
        "name": "ben",
        "full_name": "",
        "ssh_keys": [],
        "public_keys": [],
        "role": "user",
        "groups": [],
        "second_factor": True,
        "expires": "",
        "from": [],
        "state": "present",
        "remove_home": False,
        "age_recipient": "",
    }


@pytest.mark.parametrize(
    ("item", "role", "second_factor", "state"),
    [
        # The first version of OpenCRVS.
        ({"sudoer": True, "state": "present", "two_factor": True}, "admin", True, "present"),
        ({"sudoer": True, "state": "present", "two_factor": False}, "admin", False, "present"),
        ({"sudoer": False, "state": "absent"}, "user", True, "absent"),
        # The second.
        ({"role": "admin", "state": "present", "two_factor": False}, "admin", False, "present"),
        ({"role": "operator", "state": "absent", "two_factor": True}, "operator", True, "absent"),
    ],
)
def test_the_lists_of_opencrvs_are_understood(item, role, second_factor, state):
    (found,) = normalized([{"name": "ines", "ssh_keys": [line(1)], **item}])
    assert (found["role"], found["second_factor"], found["state"]) == (role, second_factor, state)
    assert not {"sudoer", "two_factor"} & set(found)


def test_one_form_stays_one_form():
    once = normalized([FULL, {"name": "ben", "sudoer": True, "ssh_keys": [f'from="192.0.2.1",restrict {line(2)}']}])
    assert normalized(once) == once
    assert once[1]["public_keys"] == [line(2)]
    assert once[1]["ssh_keys"] == [f'from="192.0.2.1",restrict {line(2)}']
    assert json.loads(json.dumps(once)) == once


def test_dates_may_be_yaml_dates():
    assert normalized([{"name": "a", "expires": datetime.date(2027, 1, 31)}])[0]["expires"] == "2027-01-31"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({}, "has no name"),
        ({"name": ""}, "has no name"),
        ({"name": None}, "has no name"),
        ({"name": 7}, "has the name '7'"),
        ({"name": "Amina"}, "has the name 'Amina'"),
        ({"name": "amina\n"}, "has the name"),
        ({"name": "\u0430mina"}, "has the name"),
        ({"name": "7up"}, "has the name"),
        ({"name": "-rf"}, "has the name"),
        ({"name": "a" * 33}, "has the name"),
        ({"name": "../etc"}, "has the name"),
        ({"name": "a;id"}, "has the name"),
        ({"name": "a b"}, "has the name"),
        ({"name": "a.b"}, "has the name"),
        ({"name": "root"}, "is root"),
        ({"name": "www-data"}, "system account"),
        ({"name": "docker"}, "system account"),
        ({"name": "sudo"}, "system account"),
        ({"name": "systemd-timesync"}, "system account"),
        ({"name": "civitas-probe"}, "system account"),
        ({"name": "a", "role": "root"}, "has the role 'root'; write admin, operator or user"),
        ({"name": "a", "role": ["admin"]}, "has the role"),
        ({"name": "a", "state": "gone"}, "write present or absent"),
        ({"name": "a", "sudoer": "yes"}, "a text as sudoer; write true or false"),
        ({"name": "a", "sudoer": True, "role": "user"}, "both sudoer and role"),
        ({"name": "a", "two_factor": False, "second_factor": True}, "both two_factor and second_factor"),
        ({"name": "a", "second_factor": "no"}, "a text as second_factor"),
        ({"name": "a", "second_factor": 0}, "a number as second_factor"),
        ({"name": "a", "shell": "/bin/sh"}, "'shell', which means nothing"),
        ({"name": "a", "ssh_keys": line(1)}, "a text as ssh_keys; write a list"),
        ({"name": "a", "ssh_keys": [line(1), line(1, "again")]}, "twice"),
        ({"name": "a", "ssh_keys": [PRIVATE]}, "private key"),
        ({"name": "a", "ssh_keys": [f"{line(1)}\n{line(2)}"]}, "one line for each key"),
        ({"name": "a", "ssh_keys": [f'from="192.0.2.1" {line(1)}'], "from": ["192.0.2.2"]}, "in one of the two"),
        ({"name": "a", "groups": ["docker"]}, "group docker, which is as good as root"),
        ({"name": "a", "groups": ["sudo"]}, "as good as root"),
        ({"name": "a", "groups": ["lxd"]}, "as good as root"),
        ({"name": "a", "groups": ["disk"]}, "as good as root"),
        ({"name": "a", "groups": ["civitas-admins"]}, "by hand"),
        ({"name": "a", "groups": ["a,b"]}, "name of a group"),
        ({"name": "a", "groups": "adm"}, "a text as groups"),
        ({"name": "a", "full_name": "a:b"}, "full_name with one of"),
        ({"name": "a", "full_name": "a,b"}, "full_name with one of"),
        ({"name": "a", "full_name": "a\nroot::0:0::/:/bin/sh"}, "full_name that is no text"),
        ({"name": "a", "full_name": "a\u202eb"}, "full_name that is no text"),
        ({"name": "a", "full_name": "a" * 101}, "full_name that is no text"),
        ({"name": "a", "expires": "31.01.2027"}, "as expires"),
        ({"name": "a", "expires": "2027-02-30"}, "as expires"),
        ({"name": "a", "expires": "never"}, "as expires"),
        ({"name": "a", "expires": 20270131}, "as expires"),
        ({"name": "a", "expires": "1970-01-01"}, "as expires"),
        ({"name": "a", "expires": datetime.datetime(2027, 1, 31)}, "as expires"),
        ({"name": "a", "from": "192.0.2.1"}, "a text as from"),
        ({"name": "a", "from": ["0.0.0.0/0"]}, "everywhere"),
        ({"name": "a", "remove_home": True}, "state: absent only"),
        ({"name": "a", "age_recipient": "ssh-ed25519 AAAA"}, "age_recipient that is none"),
        ({"name": "a", "age_recipient": "AGE-SECRET-KEY-1" + "Q" * 58}, "age_recipient that is none"),
    ],
)
def test_wrong_items_are_refused(item, words):
    with pytest.raises(PeopleError) as caught:
        normalized([item])
    assert words in str(caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(AnsibleFilterError, match="access_people"):
        people_filter([item])


@pytest.mark.parametrize("value", ["amina", {"name": "amina"}, 7, True])
def test_what_is_no_list_is_refused(value):
    with pytest.raises(PeopleError, match=r"access_people is .*; write a list"):
        normalized(value)


def test_an_item_that_is_no_mapping_is_refused():
    with pytest.raises(PeopleError, match=r"access_people\[1\] is a text"):
        normalized([{"name": "a"}, "b"])


def test_nothing_is_nobody():
    assert normalized(None) == normalized([]) == []


def test_all_problems_come_at_once():
    with pytest.raises(PeopleError) as caught:
        normalized([{"name": "root"}, {"name": "a", "role": "x", "state": "y"}])
    assert len(caught.value.problems) == 3


def test_names_and_keys_belong_to_one_account_only():
    found = problems_of(
        {
            "people": [{"name": "a", "ssh_keys": [line(1)]}, {"name": "b", "ssh_keys": [line(1, "other")]}, {"name": "b"}],
            "automation": {"name": "a", "ssh_keys": [line(2)], "from": ["192.0.2.1"]},
            "break_glass": {"name": "glass", "ssh_keys": [line(2)], "from": ["192.0.2.1"]},
        }
    )
    assert [problem.split(";")[0] for problem in found if problem.startswith("the login")] == [
        "the login a is listed 2 times",
        "the login b is listed 2 times",
    ]
    shared = {problem.split(" belongs to ")[1].split(";")[0] for problem in found if problem.startswith("the key")}
    assert shared == {"a and b", "a and glass"}


def test_a_key_may_move_from_who_left():
    assert problems_of({"people": [{"name": "a", "ssh_keys": [line(1)], "state": "absent"}, {"name": "b", "ssh_keys": [line(1)]}]}) == []


AUTOMATION = {"name": "deploy", "ssh_keys": [line(1)], "from": ["192.0.2.1"]}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"automation": {**AUTOMATION, "from": []}}, "access_automation has no from"),
        ({"automation": {**AUTOMATION, "from": ["0.0.0.0/0"]}}, "everywhere"),
        ({"automation": {**AUTOMATION, "name": "root"}}, "access_permit_root_automation: true"),
        ({"automation": {**AUTOMATION, "role": "admin"}}, "'role', which means nothing"),
        ({"automation": "deploy"}, "access_automation is a text"),
        ({"break_glass": {**AUTOMATION, "from": []}}, "access_break_glass has no from"),
        ({"break_glass": {**AUTOMATION, "from": []}, "automation_anywhere": True}, "access_break_glass has no from"),
        ({"break_glass": {**AUTOMATION, "name": "root"}, "permit_root_automation": True}, "access_break_glass is root"),
        ({"people": [{"name": "root"}], "permit_root_automation": True}, "is root"),
        ({"operator_commands": "/usr/bin/id"}, "a text; write a list"),
        ({"operator_commands": ["/usr/bin/id", "/usr/bin/vim"]}, "access_operator_commands[1] ('/usr/bin/vim') is an editor"),
    ],
)
def test_accounts_without_a_code_are_pinned(config, words):
    assert any(words in problem for problem in people_problems(config))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"people": None, "automation": {}, "break_glass": None, "operator_commands": []},
        {"automation": AUTOMATION},
        {"automation": {**AUTOMATION, "from": []}, "automation_anywhere": True},
        {"automation": {"name": "deploy", "ssh_keys": [f'from="192.0.2.1" {line(1)}']}},
        {"automation": {**AUTOMATION, "name": "root"}, "permit_root_automation": True},
        {"break_glass": {"name": "breakglass", "ssh_keys": [], "from": []}},
    ],
)
def test_these_are_accepted(config):
    assert people_problems(config) == []


def test_a_key_without_a_pin_beside_one_with_a_pin_is_found():
    keys = [f'from="192.0.2.1" {line(1)}', line(2)]
    assert any("has no from" in problem for problem in problems_of({"automation": {"name": "deploy", "ssh_keys": keys}}))


def test_groups_follow_from_kind_role_and_second_factor():
    found = accounts(
        {
            "people": [
                {"name": "a", "role": "admin", "ssh_keys": [line(1)], "groups": ["adm"]},
                {"name": "b", "role": "operator", "ssh_keys": [line(2)], "second_factor": False},
                {"name": "c", "ssh_keys": [line(3)]},
                {"name": "d", "role": "admin", "ssh_keys": []},
                {"name": "e", "role": "admin", "ssh_keys": [line(4)], "state": "absent"},
            ],
            "automation": {"name": "f", "ssh_keys": [line(5)], "from": ["192.0.2.1"]},
            "break_glass": {"name": "g", "ssh_keys": [line(6)], "from": ["192.0.2.1"]},
        }
    )
    assert {person.name: person.all_groups for person in found} == {
        "a": ("adm", "civitas-admins", "civitas-people"),
        "b": ("civitas-no-second-factor", "civitas-operators", "civitas-people"),
        "c": ("civitas-people",),
        "d": (),
        "e": (),
        "f": ("civitas-automation",),
        "g": ("civitas-breakglass",),
    }
    assert {group for person in found for group in person.all_groups} - {"adm"} == set(OUR_GROUPS)
    assert found[5].key_lines == (f'from="192.0.2.1" {line(5)}',)


@pytest.mark.parametrize("value", [None, "text", 7, []])
def test_the_filter_wants_the_variables(value):
    with pytest.raises(AnsibleFilterError, match="mapping"):
        people_problems(value)


def test_ten_megabytes_are_refused_in_a_short_message():
    found = problems_of({"people": [{"name": "a" * 10_000_000, "ssh_keys": ["x" * 10_000_000], "role": "r" * 10_000_000}]})
    assert len(found) == 3
    assert all(len(problem) < 500 for problem in found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "name",
    "full_name",
    "ssh_keys",
    "role",
    "groups",
    "second_factor",
    "expires",
    "from",
    "state",
    "remove_home",
    "sudoer",
    "two_factor",
]


@settings(max_examples=500, deadline=None)
@given(JSON | st.lists(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), max_size=3))
def test_anything_is_a_list_in_one_form_or_a_problem(value):
    try:
        once = normalized(value)
    except PeopleError as error:
        assert error.problems
        assert all(problem.isprintable() and len(problem) < 600 for problem in error.problems)
    else:
        assert normalized(once) == once


@settings(max_examples=500, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["people", "automation", "break_glass", "operator_commands", "automation_anywhere"]), JSON, max_size=5)
)
def test_any_variables_are_judged(value):
    assert all(isinstance(problem, str) for problem in problems_of(value))


@pytest.mark.parametrize("name", ["admin", "sudo", "wheel", "libvirt", "incus-admin"])
def test_no_person_is_called_like_a_group_that_is_root(name):
    """Sudo rules of distributions name %admin, and an account's own group has the account's name."""
    (problem,) = problems_of({"people": [{"name": name, "ssh_keys": [line(1)]}]})
    assert "choose another login" in problem


def test_the_automation_and_who_is_to_leave_may_be_called_admin():
    assert problems_of({"people": [{"name": "admin", "state": "absent"}]}) == []
    assert problems_of({"automation": {"name": "admin", "ssh_keys": [line(1)], "from": ["192.0.2.1"]}}) == []
    assert problems_of({"break_glass": {"name": "admin", "ssh_keys": [line(1)], "from": ["192.0.2.1"]}}) == []
