# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a unit against what systemd says. That systemd then does it is proven on hosts by the scenario `base`."""

from __future__ import annotations

import os
import re
import time

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils._systemd_units import (
    Found,
    Manager,
    UnitError,
    Wanted,
    apply,
    found_unit,
    full_name,
    new_drop_ins,
    newer_paths,
    parse_show,
    plan,
    wanted_units,
)

# As printed by systemd 252 and 257: an alias, a unit with another text than asked for, an unknown unit.
SHOW = """Type=notify
RemainAfterExit=no
Result=success
Id=ssh.service
LoadState=loaded
ActiveState=active
SubState=running
FragmentPath=/lib/systemd/system/ssh.service
UnitFileState=enabled
CanReload=yes
NeedDaemonReload=no

Id=apt-daily.timer
LoadState=loaded
ActiveState=inactive
SubState=dead
FragmentPath=/lib/systemd/system/apt-daily.timer
UnitFileState=disabled
CanReload=no
NeedDaemonReload=yes

Id=nothing.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=
CanReload=no
NeedDaemonReload=no
LoadError=org.freedesktop.systemd1.NoSuchUnit "Unit nothing.service not found."
"""


def test_show_is_read_in_order():
    ssh, timer, nothing = (found_unit(values) for values in parse_show(SHOW))
    assert (ssh.id, ssh.enabled, ssh.running, ssh.can_reload, ssh.need_reload) == ("ssh.service", True, True, True, False)
    assert (timer.file, timer.running, timer.need_reload) == ("disabled", False, True)
    assert nothing.missing and not nothing.enabled


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("nginx", "nginx.service"),
        ("ssh.socket", "ssh.socket"),
        ("getty@tty1", "getty@tty1.service"),
        ("a.b", "a.b.service"),
        ("postgresql@17-main.service", "postgresql@17-main.service"),
        ("service", "service.service"),
    ],
)
def test_a_name_without_a_type_is_a_service(name, full):
    assert full_name(name) == full


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"name": "nginx*", "state": "started"}, "no glob"),
        ({"name": "/etc/x.service", "state": "started"}, "no path"),
        ({"name": "--now", "state": "started"}, None),
        ({"name": "getty@", "enabled": True}, "name an instance"),
        ({"name": "a", "masked": True, "enabled": True}, "exclude each other"),
        ({"name": "a", "masked": True, "state": "restarted"}, "masked unit cannot be restarted"),
        ({"name": "a"}, "nothing is asked"),
    ],
)
def test_wrong_items_are_named(item, words):
    if words is None:
        # Begins with a hyphen but is a legal name; it reaches systemctl behind "--".
        assert wanted_units([item])[0].name == "--now.service"
        return
    with pytest.raises(UnitError, match=words):
        wanted_units([item])


def test_all_wrong_items_are_named_at_once():
    with pytest.raises(UnitError) as error:
        wanted_units([{"name": "a", "enabled": True}, {"name": "a.service", "enabled": True}, {"name": "b@", "state": "started"}])
    assert len(str(error.value).splitlines()) == 2


def found(**values):
    return Found(**{"id": "x.service", "file": "disabled", **values})


RUNS = {"active": "active", "sub": "running"}


@pytest.mark.parametrize(
    ("wanted", "host", "actions"),
    [
        ({"enabled": True, "state": "started"}, {}, ["enable", "start"]),
        ({"enabled": True, "state": "started"}, {"file": "enabled", **RUNS}, []),
        ({"enabled": True}, {"file": "enabled-runtime"}, ["enable"]),
        ({"enabled": False}, {"file": "enabled-runtime"}, ["disable"]),
        ({"enabled": False, "state": "stopped"}, {"file": "enabled", **RUNS}, ["disable", "stop"]),
        ({"enabled": False, "state": "stopped"}, {}, []),
        ({"state": "stopped"}, {"active": "failed", "sub": "failed"}, []),
        ({"state": "stopped"}, {"active": "activating", "sub": "auto-restart"}, ["stop"]),
        ({"state": "started"}, {"active": "failed", "sub": "failed"}, ["start"]),
        ({"state": "started"}, {"active": "activating", "sub": "auto-restart"}, ["start"]),
        ({"state": "started"}, {"active": "reloading"}, []),
        ({"state": "restarted"}, RUNS, ["restart"]),
        ({"state": "reloaded"}, {"can_reload": True, **RUNS}, ["reload"]),
        ({"state": "reloaded"}, {"can_reload": True}, ["start"]),
        ({"state": "reloaded_if_running"}, {"can_reload": True, **RUNS}, ["reload"]),
        ({"state": "reloaded_if_running"}, {"can_reload": True}, []),
        ({"state": "reloaded_if_running"}, {"load": "not-found", "file": ""}, []),
        ({"masked": True, "state": "stopped"}, RUNS, ["stop", "mask"]),
        ({"masked": True, "enabled": False}, {"file": "enabled"}, ["disable", "mask"]),
        ({"masked": True, "state": "stopped"}, {"load": "masked", "file": "masked"}, []),
        ({"masked": True}, {"load": "not-found", "file": ""}, ["mask"]),
        ({"masked": False, "enabled": True, "state": "started"}, {"load": "masked", "file": "masked"}, ["unmask", "enable", "start"]),
        ({"masked": False}, {}, []),
        ({"enabled": False, "state": "stopped"}, {"load": "not-found", "file": ""}, []),
        ({"enabled": True}, {"file": "generated", "sysv_enabled": False}, ["enable"]),
        ({"enabled": True}, {"file": "generated", "sysv_enabled": True}, []),
        ({"enabled": True}, {"file": "linked", "has_install": True}, ["enable"]),
    ],
)
def test_only_the_difference_is_planned(wanted, host, actions):
    result = plan(Wanted("x.service", **wanted), found(**host))
    assert (result.actions, result.problem) == (actions, None)


@pytest.mark.parametrize("file", ["static", "indirect", "generated", "transient", "alias", ""])
@pytest.mark.parametrize("enabled", [True, False])
def test_what_cannot_be_enabled_gets_a_note(file, enabled):
    result = plan(Wanted("x.service", enabled=enabled), found(file=file))
    assert (result.actions, result.problem) == ([], None)
    assert "cannot be enabled" in result.notes[0]


def test_a_linked_unit_without_install_section_gets_a_note():
    result = plan(Wanted("x.service", enabled=True), found(file="linked", has_install=False))
    assert result.actions == [] and result.notes


@pytest.mark.parametrize(
    ("wanted", "host", "words"),
    [
        ({"state": "started"}, {"load": "not-found"}, "does not exist on this host; install the package"),
        ({"enabled": True}, {"load": "not-found"}, "does not exist"),
        ({"state": "started"}, {"load": "masked", "file": "masked"}, "write 'masked: false'"),
        (
            {"enabled": True},
            {"load": "bad-setting", "load_error": "no ExecStart", "path": "/etc/systemd/system/x.service"},
            "no ExecStart. Run: systemd-analyze verify /etc/systemd/system/x.service",
        ),
        ({"state": "reloaded"}, RUNS, "write 'state: restarted'"),
        ({"masked": True}, {"path": "/etc/systemd/system/x.service"}, "Remove /etc/systemd/system/x.service, or write 'enabled: false"),
    ],
)
def test_problems_say_what_to_do(wanted, host, words):
    assert words in plan(Wanted("x.service", **wanted), found(**host)).problem


def test_without_systemd_nothing_is_started():
    result = plan(Wanted("x.service", enabled=True, state="started"), found(), booted=False)
    assert result.actions == ["enable"]
    assert "systemd does not run here" in result.notes[0]


def test_an_answer_for_fewer_units_is_an_error():
    manager = Manager(lambda command: (1, "Id=a.service\n", "Failed to get properties"), booted=True)
    with pytest.raises(UnitError, match="1 of 2 units: Failed to get properties"):
        apply([{"name": "a", "state": "started"}, {"name": "b", "state": "started"}], manager, check=True)


def test_a_drop_in_that_systemd_has_not_loaded_is_seen(tmp_path):
    high, low = tmp_path / "etc", tmp_path / "lib"
    for directory in (high, low):
        (directory / "x.service.d").mkdir(parents=True)
    (low / "x.service.d" / "old.conf").touch()
    (low / "x.service.d" / "off.conf").touch()
    (high / "x.service.d" / "off.conf").symlink_to("/dev/null")
    (high / "x.service.d" / "README").touch()
    known = [str(low / "x.service.d" / "old.conf")]
    directories = [str(high), str(low), str(tmp_path / "none")]
    assert new_drop_ins("x.service", known, directories) == []
    new = high / "x.service.d" / "new.conf"
    new.touch()
    assert new_drop_ins("x.service", known, directories) == [str(new)]
    assert new_drop_ins("y.service", [], directories) == []


@pytest.mark.parametrize(
    ("item", "host", "age", "actions"),
    [
        ({"state": "started", "restart_when_newer": ["{file}"]}, RUNS, +5, ["restart"]),
        ({"state": "started", "restart_when_newer": ["{file}"]}, RUNS, -5, []),
        ({"state": "started", "reload_when_newer": ["{file}"]}, {"can_reload": True, **RUNS}, +5, ["reload"]),
        ({"state": "started", "reload_when_newer": ["/nowhere", "{file}"]}, {"can_reload": True, **RUNS}, +5, ["reload"]),
        ({"state": "started", "reload_when_newer": ["/nowhere"]}, {"can_reload": True, **RUNS}, +5, []),
        (
            {"state": "started", "reload_when_newer": ["{file}"], "restart_when_newer": ["{file}"]},
            {"can_reload": True, **RUNS},
            +5,
            ["restart"],
        ),
        ({"state": "started", "reload_when_newer": ["{file}"]}, {}, +5, ["start"]),
        ({"enabled": True, "reload_when_newer": ["{file}"]}, {"file": "enabled"}, +5, []),
    ],
)
def test_what_changed_on_disk_since_the_unit_last_looked(tmp_path, item, host, age, actions):
    file = tmp_path / "configuration"
    file.write_text("x")
    item = {key: [path.format(file=file) for path in value] if key.endswith("newer") else value for key, value in item.items()}
    (wanted,) = wanted_units([{"name": "x", **item}])
    assert plan(wanted, found(changed_at=file.lstat().st_ctime - age, **host)).actions == actions


def test_a_link_that_was_swapped_is_newer(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    link = tmp_path / "pair"
    link.symlink_to("old")
    between = time.time()
    os.utime(tmp_path / "new", (between + 60, between + 60))
    assert newer_paths([str(link)], link.lstat().st_ctime) == []
    (tmp_path / "fresh").symlink_to("new")
    before = link.lstat().st_ctime
    while (tmp_path / "fresh").lstat().st_ctime <= before:
        (tmp_path / "fresh").unlink()
        (tmp_path / "fresh").symlink_to("new")
    (tmp_path / "fresh").replace(link)
    assert newer_paths([str(link)], before) == [str(link)]


def test_a_unit_that_cannot_reload_says_so(tmp_path):
    (wanted,) = wanted_units([{"name": "x", "state": "started", "reload_when_newer": [str(tmp_path)]}])
    assert "write restart_when_newer" in plan(wanted, found(changed_at=1.0, **RUNS)).problem


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"state": "restarted", "reload_when_newer": ["/x"]}, "go with 'state: started' only"),
        ({"state": "started", "reload_when_newer": ["etc/x"]}, "'etc/x' is not an absolute path"),
    ],
)
def test_newer_paths_are_judged(item, words):
    with pytest.raises(UnitError, match=re.escape(words)):
        wanted_units([{"name": "x", **item}])


def test_the_moment_of_the_last_change_is_read_from_systemd():
    (block,) = parse_show(SHOW.split("\n\n", maxsplit=1)[0] + "\nStateChangeTimestampMonotonic=1000000")
    assert found_unit(block).changed_at == pytest.approx(time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + 1, abs=0.1)


def test_drop_ins_of_a_template_are_those_of_its_instances(tmp_path):
    folder = tmp_path / "postgresql@.service.d"
    folder.mkdir()
    (folder / "a.conf").write_text("")
    assert new_drop_ins("postgresql@17-main.service", [], [str(tmp_path)]) == [str(folder / "a.conf")]
