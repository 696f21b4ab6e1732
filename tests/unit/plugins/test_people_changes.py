# SPDX-License-Identifier: GPL-3.0-or-later
"""From a host to the list of people: what is planned. That it is really done is proven on hosts, by the scenario people."""

from __future__ import annotations

import dataclasses
import os
import re
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _people_changes as changes
from ansible_collections.civitas.hosting.plugins.module_utils import _people_state as host
from ansible_collections.civitas.hosting.plugins.module_utils._people import accounts
from ansible_collections.civitas.hosting.plugins.module_utils._people_state import Account, Group, HostError, Process, State, rule_owners

from tests.unit.plugins.test_people import line

TODAY = 20778
OURS = ("civitas-people", "civitas-admins", "civitas-operators", "civitas-automation", "civitas-breakglass", "civitas-no-second-factor")


def everybody(*people, **others):
    return accounts({"people": list(people), **others})


AMINA = {"name": "amina", "role": "admin", "ssh_keys": [line(1)]}


@pytest.fixture
def state(monkeypatch, tmp_path):
    """A host on which amina is as AMINA says."""
    monkeypatch.setattr(changes, "_mode_is", lambda _path, _mode: True)
    (tmp_path / "amina").mkdir()
    return State(
        accounts={
            "root": Account("root", 0, 0, "root", "/root", "/bin/bash", "*"),
            "daemon": Account("daemon", 1, 1, "", "/", "/usr/sbin/nologin", "*"),
            "amina": Account("amina", 1000, 1000, "", str(tmp_path / "amina"), "/bin/bash", "*"),
        },
        groups={
            "amina": Group("amina", 1000, []),
            "adm": Group("adm", 4, []),
            "docker": Group("docker", 990, []),
            "sudo": Group("sudo", 27, []),
            **{name: Group(name, 900 + number, []) for number, name in enumerate(OURS)},
            "civitas-people": Group("civitas-people", 900, ["amina"]),
            "civitas-admins": Group("civitas-admins", 901, ["amina"]),
        },
        keys={"amina": (changes._HEADER, line(1))},
        ledger={"amina": {"uid": 1000, "kind": "person"}},
        sudoers={"/etc/sudoers": "%sudo ALL=(ALL) ALL\n@includedir /etc/sudoers.d\n", host.OUR_SUDOERS: changes.sudoers_text([])},
        crontabs=frozenset(),
        at_jobs={},
        linger=frozenset(),
        second_factors=frozenset(),
        system_jobs={},
        processes=[],
        running=frozenset({0}),
        today=TODAY,
    )


def plan(state, *people, **options):
    return changes.make_plan(everybody(*people, **options.pop("others", {})), state, **options)


def actions(result, name):
    (found,) = [item for item in result.people if item.person.name == name]
    return [step.action for step in found.steps]


def commands(result, name):
    (found,) = [item for item in result.people if item.person.name == name]
    return [list(step.command) for step in found.steps if step.command]


def test_nothing_is_to_do_where_all_is_as_it_should_be(state):
    result = plan(state, AMINA)
    assert not result.changed
    assert result.strangers == {}
    assert result.people[0].report([]) == {"changed": False, "state": "present", "actions": [], "removed": [], "left": [], "notes": []}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "operator"}, "groups: joined civitas-operators, left civitas-admins"),
        ({"role": "user"}, "groups: left civitas-admins"),
        ({"groups": ["adm"]}, "groups: joined adm"),
        ({"second_factor": False}, "groups: joined civitas-no-second-factor"),
        ({"full_name": "First Administrator"}, "account: full name First Administrator"),
        ({"expires": "2027-01-31"}, "account: expires on 2027-01-31"),
        ({"ssh_keys": [line(2)]}, "keys: added SHA256:"),
        ({"ssh_keys": [line(1), line(2)]}, "keys: added SHA256:"),
        ({"from": ["192.0.2.1"]}, "keys: rewritten"),
        ({"ssh_keys": [line(1, "new comment")]}, "keys: rewritten"),
    ],
)
def test_one_wish_is_one_action(state, change, words):
    (action,) = actions(plan(state, {**AMINA, **change}), "amina")
    assert action.startswith(words)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"shell": "/usr/sbin/nologin"}, "account: shell /bin/bash"),
        ({"expire": "20000"}, "account: does not expire"),
        ({"password": "$y$hash"}, "account: password locked"),
        ({"password": ""}, "account: password locked"),
        ({"password": "!*"}, "account: unlocked"),
        ({"maximum": "90"}, "no age of a password"),
        ({"inactive": "7"}, "no age of a password"),
        ({"last_change": "0"}, "no age of a password"),
    ],
)
def test_one_drift_is_one_action(state, found, words):
    state.accounts["amina"] = dataclasses.replace(state.accounts["amina"], **found)
    assert actions(plan(state, AMINA), "amina") == [words]


@pytest.mark.parametrize("found", [{"password": "!$y$hash"}, {"password": "!"}, {"expire": "-1"}, {"maximum": "99999"}, {"maximum": "-1"}])
def test_what_means_the_same_is_no_drift(state, found):
    state.accounts["amina"] = dataclasses.replace(state.accounts["amina"], **found)
    assert not plan(state, AMINA).changed


@pytest.mark.parametrize("keys", [None, (), (line(1),), (changes._HEADER, line(1), line(2)), (changes._HEADER, line(2))])
def test_keys_are_exactly_those_of_the_list(state, keys):
    state.keys["amina"] = keys
    (action,) = actions(plan(state, AMINA), "amina")
    assert action.startswith("keys: ")


def test_a_new_person_is_made_in_one_step(state):
    result = plan(state, AMINA, {"name": "ben", "full_name": "Ben K", "role": "operator", "ssh_keys": [line(2)], "expires": "2027-01-31"})
    (command,) = commands(result, "ben")
    assert command[0] == "useradd"
    assert command[-1] == "ben"
    assert command[command.index("--groups") + 1] == "civitas-operators,civitas-people"
    assert command[command.index("--expiredate") + 1] == "2027-01-31"
    assert command[command.index("--comment") + 1] == "Ben K"
    assert result.ledger["ben"] == {"uid": None, "kind": "person"}
    assert actions(result, "amina") == []


@pytest.mark.parametrize("leaving", [{**AMINA, "state": "absent"}, {**AMINA, "ssh_keys": []}, None])
def test_who_leaves_loses_everything(state, leaving, tmp_path):
    home = tmp_path / "amina"
    (home / ".ssh").mkdir()
    (home / ".ssh" / "authorized_keys").write_text(line(3))
    wants = home / ".config/systemd/user/timers.target.wants"
    wants.mkdir(parents=True)
    (wants / "own.timer").symlink_to("/nowhere")
    state.groups["docker"].members.append("amina")
    state.crontabs = state.linger = state.second_factors = frozenset({"amina"})
    state.at_jobs = {1000: ["/var/spool/cron/atjobs/a1"], 1001: ["/var/spool/cron/atjobs/a2"]}
    state.processes = [Process(10, frozenset({1000})), Process(11, frozenset({1001}))]
    state.sudoers["/etc/sudoers.d/amina"] = "amina ALL=(ALL) NOPASSWD:ALL, !/usr/bin/su\n"
    state.sudoers["/etc/sudoers.d/mixed"] = "amina, other ALL=(ALL) ALL\n"
    state.system_jobs = {"/etc/cron.d/job": frozenset({"amina"}), "/etc/cron.d/root": frozenset({"root"})}
    result = plan(state, *([leaving] if leaving else []))
    (person,) = result.closing
    told = [step.action for step in person.steps]
    assert [action.split(" (")[0] for action in told] == [
        "account locked and expired",
        "groups removed",
        "keys removed",
        "own keys removed",
        "sudo rules /etc/sudoers.d/amina removed",
        "services without a session ended",
        "cron jobs removed",
        "at jobs removed",
        "sessions and processes ended",
        "user timers removed",
        "second factor removed",
    ]
    assert person.report(told)["removed"] == told
    assert person.left == ["sudo rules in /etc/sudoers.d/mixed", "a job of the system runs as amina: /etc/cron.d/job"]
    assert commands(result, "amina") == [
        ["usermod", "--lock", "--expiredate", "1", "--shell", "/usr/sbin/nologin", "amina"],
        ["usermod", "--groups", "", "amina"],
    ]
    assert "/etc/sudoers.d/amina" in result.paths
    assert result.ledger == {"amina": {"uid": 1000, "kind": "person"}}
    assert result.undo == []


def test_who_left_stays_closed_and_is_looked_at_again(state):
    state.accounts["amina"] = dataclasses.replace(state.accounts["amina"], password="!*", expire="1", shell="/usr/sbin/nologin")
    for group in state.groups.values():
        group.members.clear()
    del state.keys["amina"]
    assert not plan(state).changed
    state.crontabs = frozenset({"amina"})
    assert actions(plan(state), "amina") == ["cron jobs removed"]


def test_not_exclusive_leaves_who_is_not_listed(state):
    result = plan(state, exclusive=False)
    assert not result.changed
    assert result.people == []


def test_absent_and_never_there_is_no_change(state):
    result = plan(state, AMINA, {"name": "never", "state": "absent"}, {"name": "keyless", "ssh_keys": []})
    assert not result.changed
    assert {item.person.name: item.notes for item in result.closing} == {
        "keyless": ["has no key: no way in, treated as absent", "has no account on this host"],
        "never": ["has no account on this host"],
    }


def test_one_person_only(state):
    result = plan(state, {"name": "ben", "ssh_keys": [line(2)]}, only=["ben"])
    assert [item.person.name for item in result.people] == ["ben"]
    assert set(result.ledger) == {"amina", "ben"}


def test_an_account_that_was_made_again_by_somebody_else_is_a_stranger(state):
    state.ledger["amina"]["uid"] = 4711
    state.accounts["amina"].password = "$y$hash"
    result = plan(state)
    assert result.people == []
    assert result.strangers["amina"]["login"] == ["password"]
    # Its file of keys, in a directory of ours, is none of ours.
    assert [step.action for step in result.first] == ["keys of amina, who is not listed, removed"]
    assert [step.command for step in result.middle] == [
        ("gpasswd", "--delete", "amina", "civitas-people"),
        ("gpasswd", "--delete", "amina", "civitas-admins"),
    ]


def test_strangers_are_reported_and_not_touched(state):
    state.accounts |= {
        "ubuntu": Account("ubuntu", 1001, 1001, "", "/nowhere", "/bin/bash", "$y$hash"),
        "toor": Account("toor", 0, 0, "", "/root", "/usr/sbin/nologin", "*"),
        "harmless": Account("harmless", 1002, 1002, "", "/nowhere", "/bin/bash", "*"),
        "gone": Account("gone", 1003, 1003, "", "/nowhere", "/bin/bash", "$y$hash", expire="1"),
        "app": Account("app", 1004, 1004, "", "/nowhere", "/usr/sbin/nologin", "*"),
        "empty": Account("empty", 1005, 1005, "", "/nowhere", "/bin/sh", ""),
    }
    state.groups["sudo"].members.append("app")
    state.sudoers["/etc/sudoers.d/90-cloud-init-users"] = "# by the installer\nubuntu ALL=(ALL) NOPASSWD:ALL\n"
    result = plan(state, AMINA)
    assert not result.changed
    assert result.strangers == {
        "ubuntu": {"login": ["password"], "groups": [], "sudo": ["/etc/sudoers.d/90-cloud-init-users"], "uid": 1001},
        "toor": {"login": [], "groups": [], "sudo": [], "uid": 0},
        "app": {"login": [], "groups": ["sudo"], "sudo": [], "uid": 1004},
        "empty": {"login": ["password"], "groups": [], "sudo": [], "uid": 1005},
    }


def test_nobody_stays_in_docker(state):
    state.groups["docker"].members += ["amina", "stranger"]
    result = plan(state, AMINA)
    assert result.docker_group == ["amina", "stranger"]
    assert [step.command for step in result.middle] == [("gpasswd", "--delete", "stranger", "docker")]
    assert actions(result, "amina") == ["groups: left docker"]
    assert result.undo == []


def test_the_installers_account_is_taken_over(state):
    state.accounts["ubuntu"] = Account("ubuntu", 1001, 1001, "Ubuntu", "/nowhere", "/bin/bash", "$y$hash")
    state.groups["sudo"].members.append("ubuntu")
    state.sudoers["/etc/sudoers.d/90-cloud-init-users"] = "ubuntu ALL=(ALL) NOPASSWD:ALL\n"
    result = plan(state, AMINA, {"name": "ubuntu", "role": "operator", "ssh_keys": [line(2)]})
    assert actions(result, "ubuntu")[:2] == ["account: password locked", "groups: joined civitas-operators, civitas-people, left sudo"]
    assert "sudo rules /etc/sudoers.d/90-cloud-init-users removed" in actions(result, "ubuntu")
    # What may have been the only way in comes back when nobody confirms.
    assert result.undo == [["usermod", "--unlock", "ubuntu"], ["gpasswd", "--add", "ubuntu", "sudo"]]
    assert result.strangers == {}


def test_rules_of_the_automation_are_left_to_it(state):
    state.accounts["deploy"] = Account("deploy", 1001, 1001, "", "/nowhere", "/bin/bash", "*")
    state.sudoers["/etc/sudoers.d/deploy"] = "deploy ALL=(ALL) NOPASSWD:ALL\n"
    result = plan(state, AMINA, others={"automation": {"name": "deploy", "ssh_keys": [line(2)], "from": ["192.0.2.1"]}})
    assert not any("sudo rules" in action for action in actions(result, "deploy"))
    assert result.ledger["deploy"] == {"uid": 1001, "kind": "automation"}


@pytest.mark.parametrize(
    ("change", "process", "why"),
    [
        ({"ssh_keys": [line(2)]}, {}, "a key was taken"),
        ({"role": "user"}, {}, "a group was left"),
        ({"expires": "2020-01-01"}, {}, "the account has expired"),
        # It left docker in an earlier run that was cut off, or by hand, and its session still has it.
        ({}, {"gids": frozenset({1000, 990})}, "a group was left"),
    ],
)
def test_sessions_end_with_the_right_that_they_use(state, change, process, why):
    state.processes = [Process(10, frozenset({1000}), **process), Process(11, frozenset({1001}))]
    assert f"sessions and processes ended (1): {why}" in actions(plan(state, {**AMINA, **change}), "amina")
    state.running = frozenset({0, 1000})
    result = plan(state, {**AMINA, **change})
    assert not any("ended" in action for action in actions(result, "amina"))
    assert "this run uses the account" in result.people[0].notes[0]


@pytest.mark.parametrize(
    "change", [{}, {"ssh_keys": [line(1), line(2)]}, {"groups": ["adm"]}, {"from": ["192.0.2.1"]}, {"expires": "2099-01-01"}]
)
def test_sessions_go_on_when_nothing_was_lost(state, change):
    state.processes = [Process(10, frozenset({1000}), frozenset({1000, 901, 900}))]
    assert not any("ended" in action for action in actions(plan(state, {**AMINA, **change}), "amina"))


def test_the_day_of_expiry_is_the_first_without_access(state):
    state.processes = [Process(10, frozenset({1000}))]
    state.accounts["amina"].expire = "20778"
    assert actions(plan(state, {**AMINA, "expires": "2026-11-21"}), "amina") == [
        "sessions and processes ended (1): the account has expired"
    ]
    state.accounts["amina"].expire = "20779"
    assert not plan(state, {**AMINA, "expires": "2026-11-22"}).changed


def trouble(state, *people, **options):
    with pytest.raises(HostError) as caught:
        plan(state, *people, **options)
    return str(caught.value)


def test_what_only_the_host_knows_is_refused_at_once(state):
    state.groups["taken"] = Group("taken", 1500, [])
    state.homes = frozenset({"/home/homely"})
    state.foreign = frozenset({"ldap"})
    state.accounts["service"] = Account("service", 200, 200, "", "/", "/bin/sh", "*")
    names = ["taken", "homely", "ldap", "service"]
    people = [{"name": name, "ssh_keys": [line(number)]} for number, name in enumerate(names, start=2)]
    text = trouble(state, {**AMINA, "groups": ["nowhere"]}, *people)
    for words in ("taken: a group of this name", "/home/homely exists", "ldap is an account of a directory", "service is a system account"):
        assert words in text
    assert "amina would be in nowhere" in text


def test_what_a_package_brings_may_be_missing_in_check_mode(state):
    assert "amina would be in later" in trouble(state, {**AMINA, "groups": ["later"]})
    assert actions(plan(state, {**AMINA, "groups": ["later"]}, check_mode=True), "amina") == ["groups: joined later"]


def test_nobody_closes_the_account_that_the_run_uses(state):
    state.running = frozenset({0, 1000})
    assert "amina is who this run logged in as" in trouble(state)


def test_a_primary_group_as_good_as_root_is_refused(state):
    state.accounts["amina"].gid = 990
    assert "primary group docker" in trouble(state, AMINA)


def test_a_host_whose_sudo_reads_no_files_is_refused(state):
    state.sudoers["/etc/sudoers"] = "root ALL=(ALL) ALL\n"
    assert "@includedir /etc/sudoers.d" in trouble(state, AMINA)
    del state.sudoers["/etc/sudoers"]
    assert "sudo is not installed" in trouble(state, AMINA)
    plan(state, AMINA, check_mode=True)


def test_the_automation_may_be_root_and_root_stays_root(state):
    others = {"automation": {"name": "root", "ssh_keys": [line(2)], "from": ["192.0.2.1"]}, "permit_root_automation": True}
    result = plan(state, AMINA, others=others)
    assert commands(result, "root") == [["usermod", "--groups", "civitas-automation", "root"]]
    assert "root" not in result.ledger


@pytest.mark.parametrize(
    ("text", "owners", "whole"),
    [
        ("", set(), True),
        ("# ben ALL=(ALL) ALL\n", set(), True),
        ("ben ALL=(ALL) NOPASSWD:ALL\n", {"ben"}, True),
        ("ben\tALL = (ALL:ALL) ALL\n", {"ben"}, True),
        ("ben, %ops ALL=(ALL) ALL\n", {"ben", "%ops"}, True),
        ("ben ALL=(ALL) \\\n  NOPASSWD: ALL\n", {"ben"}, True),
        ("Defaults:ben !requiretty\nben ALL=(ALL) ALL\n", {"ben"}, True),
        ("ben web1, web2 = /usr/bin/id\n", {"ben"}, True),
        ("User_Alias OPS = ben, carla\nOPS ALL=(ALL) ALL\n", {"ben", "carla"}, False),
        ("Defaults mail_badpass\nben ALL=(ALL) ALL\n", {"mail_badpass", "ben"}, False),
        ("#1001 ALL=(ALL) ALL\n", {"#1001"}, False),
        ("%#1001, carla ALL=(ALL) ALL\n", {"%#1001", "carla"}, False),
        ("ALL ALL=(ALL) ALL\n", {"ALL"}, False),
        ("User_Alias OPS = ben, ALL : DB = #1002\n", {"ben", "ALL", "#1002"}, False),
        ("@include /etc/other\nben ALL=(ALL) ALL\n", {"ben", "include"}, False),
    ],
)
def test_whom_sudo_rules_are_for(text, owners, whole):
    found, all_told = rule_owners(text)
    assert owners <= found
    assert all_told == whole
    if whole:
        assert found == owners


@pytest.mark.parametrize("text", ["ben !web=(ALL) ALL\n", "Defaults@ALL !insults\n", "Host_Alias H = ALL\n", "%admin ALL=(ALL) ALL\n"])
def test_a_rule_for_all_hosts_is_no_rule_for_all_people(text):
    assert "ALL" not in rule_owners(text)[0]


@pytest.mark.parametrize("users", ["#1001", "%#1001", "%#4", "ALL", "%adm", "%ben", "%civitas-people", "User_Alias OPS = #1001\nOPS"])
@pytest.mark.parametrize("role", ["user", "operator"])
def test_rules_that_reach_a_person_by_a_detour_are_told_and_left(state, users, role):
    state.accounts["ben"] = Account("ben", 1001, 1001, "", "/nowhere", "/bin/bash", "*")
    state.groups["ben"] = Group("ben", 1001, [])
    state.sudoers["/etc/sudoers.d/others"] = f"{users} ALL=(ALL) NOPASSWD:ALL\n"
    ben = {"name": "ben", "role": role, "groups": ["adm"], "ssh_keys": [line(2)]}
    result = plan(state, AMINA, ben)
    assert {item.person.name: item.left for item in result.people} == {"amina": [], "ben": ["sudo rules in /etc/sudoers.d/others"]}
    assert not any("sudo rules" in action for action in actions(result, "ben"))
    # Who may have root is not warned about.
    assert plan(state, AMINA, {**ben, "role": "admin"}).people[1].left == []


def test_rules_of_groups_that_a_person_leaves_do_not_reach(state):
    state.groups["sudo"].members.append("amina")
    result = plan(state, {**AMINA, "role": "user"})
    assert result.people[0].left == []
    # The first group stays also with who is closed.
    state.groups["amina"].name = "staffers"
    state.sudoers["/etc/sudoers.d/others"] = "%staffers ALL=(ALL) ALL\n"
    assert "sudo rules in /etc/sudoers.d/others" in plan(state).people[0].left


def test_a_rule_for_all_reaches_nobody_without_an_account(state):
    state.sudoers["/etc/sudoers.d/others"] = "ALL ALL=(ALL) ALL\n"
    result = plan(state, AMINA, {"name": "never", "state": "absent"}, {"name": "ben", "ssh_keys": [line(2)]})
    assert {item.person.name: len(item.left) for item in result.people} == {"amina": 0, "ben": 1, "never": 0}
    assert "daemon" not in result.strangers


@pytest.mark.parametrize("kind", ["automation", "break_glass"])
def test_accounts_that_are_root_anyway_may_be_called_admin(state, kind):
    state.accounts["admin"] = Account("admin", 1001, 1001, "", "/nowhere", "/bin/bash", "*")
    state.groups["admin"] = Group("admin", 1001, [])
    state.processes = [Process(10, frozenset({1001}), frozenset({1001}))]
    given = {kind: {"name": "admin", "ssh_keys": [line(2)], "from": ["192.0.2.1"]}}
    told = actions(plan(state, AMINA, others=given), "admin")
    assert not any("ended" in action for action in told)
    # But not in a group of root's that is not theirs alone.
    state.accounts["admin"].gid = 990
    assert "primary group docker" in trouble(state, AMINA, others=given)


def test_files_of_accounts_are_read_as_they_are():
    found = host._accounts(
        "root:x:0:0:root:/root:/bin/bash\n+::::::\nbroken:x:a:0::/:/bin/sh\nben:x:1000:1000:Ben\u00eft,,,:/home/ben:/bin/bash\nold:secret:1001:1:::\n",
        "root:*:20000:0:99999:7:::\nben:$y$hash:20000:0:90:7:30:20500:\nshort:*\n",
    )
    assert set(found) == {"root", "ben", "old"}
    ben = found["ben"]
    assert (ben.full_name, ben.maximum, ben.inactive, ben.expire, ben.has_password) == ("Ben\u00eft", "90", "30", "20500", True)
    assert found["old"].has_password
    assert host._groups("sudo:x:27:ben,amina\nbroken\nempty:x:5:\n")["sudo"].members == ["ben", "amina"]


def test_links_of_people_lead_nowhere(tmp_path):
    victim = tmp_path / "etc"
    victim.mkdir()
    (victim / "authorized_keys").write_text("root's")
    (victim / "user").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".ssh").symlink_to(victim)
    (home / ".config").mkdir()
    (home / ".config" / "systemd").symlink_to(victim)
    assert changes._home_keys(str(home)) == []
    assert changes._user_units(str(home)) == []
    link = tmp_path / "link"
    link.symlink_to(home)
    assert changes._home_keys(str(link)) == []
    account = Account("a", 1000, 1000, "", str(home), "/bin/sh")
    with pytest.raises(OSError, match=r"\.ssh"):
        changes._remove_home_keys(account)
    changes._remove_user_units(account)
    assert (victim / "authorized_keys").exists()


@pytest.mark.parametrize("home", ["/", "/home", "/root", "/home/../etc", "/home/other/nested", "/nowhere"])
def test_only_a_home_of_the_persons_own_is_deleted(state, home, monkeypatch):
    state.accounts["amina"].home = home
    result = plan(state, {"name": "amina", "state": "absent", "remove_home": True})
    assert not any("deleted" in action for action in actions(result, "amina"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("wrong", ["nothing", "owner", "shared", "link"])
def test_a_home_is_deleted_when_it_is_one_persons(state, wrong, monkeypatch, tmp_path):
    home = tmp_path / "link" if wrong == "link" else tmp_path / "amina"
    if wrong == "link":
        home.symlink_to(tmp_path / "amina")
    os.chown(tmp_path / "amina", 1001 if wrong == "owner" else 1000, 1000)
    state.accounts["amina"].home = str(home)
    if wrong == "shared":
        state.accounts["other"] = Account("other", 1001, 1001, "", str(home), "/usr/sbin/nologin", "*")
    # All homes of this test are where homes are.
    monkeypatch.setattr(changes, "_HOME", re.compile(re.escape(str(tmp_path)) + "/[^/]+"))
    result = plan(state, {"name": "amina", "state": "absent", "remove_home": True})
    assert any("deleted" in action for action in actions(result, "amina")) == (wrong == "nothing")
    assert any("the home" in left for left in result.closing[0].left) == (wrong != "nothing")


def test_a_ledger_that_cannot_be_read_stops_everything(monkeypatch, tmp_path):
    monkeypatch.setattr(host, "LEDGER", str(tmp_path / "people.json"))
    assert host._ledger() == {}
    for text in ("", "{", "[]", "{}", '{"accounts": []}', '{"accounts": {"a": 1}}'):
        (tmp_path / "people.json").write_text(text)
        with pytest.raises(HostError, match="cannot be read; restore it"):
            host._ledger()


def test_failing_for_one_keeps_nobody_else_from_theirs(state, monkeypatch, tmp_path):
    monkeypatch.setattr(host, "LEDGER", str(tmp_path / "access" / "people.json"))
    monkeypatch.setattr(host, "KEYS", str(tmp_path / "keys"))
    (tmp_path / "keys").mkdir()
    result = plan(state, {"name": "ben", "ssh_keys": [line(2)]}, {"name": "carla", "ssh_keys": [line(3)]})
    ran = []

    def run(command):
        ran.append(command)
        return (9, "", "useradd: no") if command[-1] == "ben" else (0, "", "")

    done, _general, failed = changes.apply(result, run)
    assert failed == ["ben: account made (groups civitas-people): useradd ended with 9: useradd: no"]
    assert done["ben"] == []
    assert len(done["carla"]) == 2
    assert not (tmp_path / "keys" / "ben").exists()
    assert (tmp_path / "keys" / "carla").read_text() == f"{changes._HEADER}\n{line(3)}\n"
    # Who leaves comes first.
    assert [command[0] for command in ran] == ["usermod", "usermod", "useradd", "useradd"]


def test_a_change_that_was_taken_back_meanwhile_goes_no_further(state, monkeypatch, tmp_path):
    monkeypatch.setattr(host, "LEDGER", str(tmp_path / "access" / "people.json"))
    monkeypatch.setattr(host, "KEYS", str(tmp_path / "keys"))
    (tmp_path / "keys").mkdir()
    people = [{"name": name, "ssh_keys": [line(number)]} for number, name in enumerate(("ben", "carla", "dede"), start=2)]
    result = plan(state, *people)
    held = []

    def holds():
        held.append(sorted(os.listdir(tmp_path / "keys")))
        return "ben" not in held[-1]

    done, _general, failed = changes.apply(result, lambda _command: (0, "", ""), holds)
    assert sorted(os.listdir(tmp_path / "keys")) == ["ben"]
    assert (len(done["amina"]), len(done["ben"]), done["carla"], done["dede"], failed) == (3, 2, [], [], [])
    # Asked before each step, until the answer was no.
    assert len(held) == 6
    # Who was about to be made is known all the same.
    assert "dede" in (tmp_path / "access" / "people.json").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("holds", [True, False])
def test_homes_are_deleted_last_and_not_after_the_change_was_taken_back(state, monkeypatch, tmp_path, holds):
    monkeypatch.setattr(host, "LEDGER", str(tmp_path / "access" / "people.json"))
    monkeypatch.setattr(host, "KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(changes, "_HOME", re.compile(re.escape(str(tmp_path)) + "/[^/]+"))
    (tmp_path / "keys").mkdir()
    home = tmp_path / "amina"
    os.chown(home, 1000, 1000)
    result = plan(state, {"name": "amina", "state": "absent", "remove_home": True}, {"name": "ben", "ssh_keys": [line(2)]})
    there = []

    def run(command):
        there.append((command[0], home.exists()))
        return 0, "", ""

    done, _general, failed = changes.apply(result, run, lambda: holds or not (tmp_path / "keys" / "ben").exists())
    assert there == [("usermod", True), ("usermod", True), ("useradd", True)]
    assert failed == []
    assert home.exists() != holds
    assert (f"home {home} deleted" in done["amina"]) == holds


def test_while_a_large_home_is_deleted_the_deadline_moves(state, monkeypatch, tmp_path):
    monkeypatch.setattr(host, "LEDGER", str(tmp_path / "access" / "people.json"))
    monkeypatch.setattr(changes, "_BEAT", 0.01)
    asked = []
    slow = changes.Step("home deleted", task=lambda: time.sleep(0.2), removes=True, last=True)
    result = plan(state, AMINA)
    result.people[0].steps.append(slow)
    result.closing.append(result.opening.pop())
    changes.apply(result, lambda _command: (0, "", ""), lambda: asked.append(1) or True)
    assert len(asked) > 5


def test_fifty_people_are_compared_in_a_moment(state):
    people = [{"name": f"p{number}", "ssh_keys": [line(number)]} for number in range(50)]
    for number in range(50):
        name = f"p{number}"
        state.accounts[name] = Account(name, 2000 + number, 2000 + number, "", "/nowhere", "/bin/bash", "*")
        state.keys[name] = (changes._HEADER, line(number))
        state.ledger[name] = {"uid": 2000 + number, "kind": "person"}
        state.groups["civitas-people"].members.append(name)
    began = time.process_time()
    result = plan(state, AMINA | {"ssh_keys": [line(99)]}, *people)
    assert time.process_time() - began < 0.5
    assert [item.person.name for item in result.people if item.steps] == ["amina"]
