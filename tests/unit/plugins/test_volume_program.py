# SPDX-License-Identifier: GPL-3.0-or-later
"""What civitas-data says of a volume. That it opens, closes and starts what waits is proven in the scenario vm."""

from __future__ import annotations

import pytest
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts as mounting
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_program as program
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_setup as setup
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_state as state
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_swapfile as swapfile
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Done, VolumeError

LUKS = "0e2a1c3e-9f6f-4c07-9f70-2c6e5a3a9b10"
SYSTEM, VOLUME = ("254:0", "/dev/vda"), ("252:0", "/dev/mapper/civitas-data")
ALL = {"/": SYSTEM, "/srv/data": VOLUME, "/var/lib/civitas-probe": VOLUME}


def config(tmp_path, **changes):
    return mounting.config_of(
        {
            "device": "/dev/disk/by-id/virtio-data",
            "encryption": "operator",
            "source": "/dev/mapper/civitas-data",
            "uuid": "u",
            "luks": LUKS,
            "path": "/srv/data",
            "directories": [{"path": "/var/lib/civitas-probe", "units": ["probe.service"]}],
            "metrics_file": f"{tmp_path}/data.prom",
            **changes,
        }
    )


@pytest.fixture
def at(monkeypatch):
    """Puts a volume into a state: what is open, what is mounted, which units wait."""

    def put(behind, mounts, waiting=()):
        monkeypatch.setattr(state, "mapped_on", lambda: behind)
        monkeypatch.setattr(state, "read_mounts", lambda: mounts)
        monkeypatch.setattr(mounting, "waiting", lambda *_arguments: list(waiting))
        monkeypatch.setattr(mounting, "is_protected", lambda *_arguments: True)

    return put


@pytest.mark.parametrize(
    ("behind", "mounts", "waiting", "problem"),
    [
        (LUKS, ALL, (), ""),
        ("", {"/": SYSTEM}, ["probe.service"], "the volume is locked"),
        (LUKS, {"/": SYSTEM}, (), "nothing is mounted at /srv/data, /var/lib/civitas-probe: see 'systemctl status srv-data.mount'"),
        (LUKS, {"/": SYSTEM, "/srv/data": VOLUME}, (), "nothing is mounted at /var/lib/civitas-probe"),
        (LUKS, {**ALL, "/var/lib/civitas-probe": ("0:30", "tmpfs")}, (), "/var/lib/civitas-probe is not the directory on the volume"),
        (LUKS, {**ALL, "/": VOLUME}, (), "/srv/data lies on the file system of the host itself"),
        (LUKS, ALL, ["probe.service"], "not running: probe.service"),
    ],
)
def test_status(at, tmp_path, behind, mounts, waiting, problem):
    at(behind, mounts, waiting)
    seen = program.look(config(tmp_path))
    assert seen.locked is (behind == "")
    assert [text[: len(problem)] for text in seen.problems] == ([problem] if problem else [])


def test_a_mount_point_that_takes_writes_is_told(at, tmp_path, monkeypatch):
    at("", {"/": SYSTEM})
    monkeypatch.setattr(mounting, "is_protected", lambda *_arguments: False)
    seen = program.look(config(tmp_path, path=str(tmp_path)))
    assert f"{tmp_path} could be written to while the volume is not mounted" in seen.problems[-1]


def test_what_is_measured(at, tmp_path):
    for behind, mounts, values in (("", {"/": SYSTEM}, "1 0 1"), (LUKS, ALL, "0 1 1")):
        at(behind, mounts, ["probe.service"])
        assert program._watch(config(tmp_path)) == 0
        lines = (tmp_path / "data.prom").read_text().splitlines()
        found = dict(line.split() for line in lines if not line.startswith("#"))
        names = ("locked", "mounted", "waiting_units")
        assert " ".join(found[f"civitas_data_volume_{name}"] for name in names) == values


def test_a_volume_of_somebody_else_is_not_ours(at, tmp_path):
    at("another", {"/": SYSTEM})
    with pytest.raises(VolumeError, match="is another volume"):
        program._open(config(tmp_path))


def test_at_boot_one_for_people_stays_locked(at, tmp_path, monkeypatch):
    at("", {"/": SYSTEM})
    monkeypatch.setattr(setup, "find", lambda *_arguments: "/dev/vdb")
    with pytest.raises(VolumeError, match="the volume is locked"):
        program._open(config(tmp_path))
    at(LUKS, {"/": SYSTEM})
    assert program._open(config(tmp_path)) == 0


def test_unlocking_in_check_mode_opens_nothing(at, tmp_path, monkeypatch):
    at("", {"/": SYSTEM})
    monkeypatch.setattr(setup, "find", lambda *_arguments: "/dev/vdb")
    asked = []
    steps = program.unlock(config(tmp_path), b"canary", True, lambda command, _given: asked.append(command) or Done(0, "", ""))
    assert steps == ["open /dev/vdb", "mount /srv/data", "mount /var/lib/civitas-probe"] and asked == []


def test_swap_that_is_not_in_use_is_told(at, tmp_path, monkeypatch):
    told = "/srv/data/.civitas-swap is not in use as swap: see 'systemctl status srv-data-.civitas\\x2dswap.swap'"
    for inside, problems in ((None, [told]), (0, [])):
        monkeypatch.setattr(swapfile, "used", lambda *_arguments, inside=inside: inside)
        at(LUKS, ALL)
        assert program.look(config(tmp_path, swap_size="2G")).problems == problems
        assert program.look(config(tmp_path)).problems == []
        # Locked, it can be in no use.
        at("", {"/": SYSTEM})
        assert len(program.look(config(tmp_path, swap_size="2G")).problems) == 1


def test_unlocking_turns_the_swap_on(at, tmp_path, monkeypatch):
    """It is waited for, and told once."""
    (tmp_path / ".civitas-swap").touch()
    asked, steps = [], mounting.Outcome(["mount"], [])
    monkeypatch.setattr(mounting, "up", lambda *_arguments, **_named: steps._replace(steps=list(steps.steps)))
    monkeypatch.setattr(swapfile, "used", lambda *_arguments: None)
    at(LUKS, ALL)
    known = config(tmp_path, path=str(tmp_path), swap_size="2G")
    done = program.unlock(known, b"", False, lambda command, _given: asked.append(list(command)) or Done(0, "", ""))
    assert done == ["mount", f"turn on the swap {known.swap_file}"]
    assert asked == [["systemctl", "start", state.OPEN_UNIT], ["systemctl", "start", known.swap_unit]]
    monkeypatch.setattr(swapfile, "used", lambda *_arguments: 0)
    assert program.unlock(known, b"", False, lambda *_arguments: Done(0, "", "")) == ["mount"]


def test_a_volume_whose_swap_stays_on_is_not_closed(at, tmp_path, monkeypatch):
    asked = []
    at(LUKS, ALL)
    ends = {"cryptsetup": Done(5, "", "Device civitas-data is still in use.")}
    monkeypatch.setattr(state, "run", lambda command, *_given: asked.append(list(command)) or ends.get(command[0], Done(0, "", "")))
    for inside, told in ((5 << 20, r"the volume stays open: its swap .* 5 MiB that lie in it\. Stop what needs"), (None, "still in use")):
        monkeypatch.setattr(swapfile, "used", lambda *_arguments, inside=inside: inside)
        with pytest.raises(VolumeError, match=told):
            program._lock(config(tmp_path))
    ends.clear()
    assert program._lock(config(tmp_path)) == 0
    assert asked[-2:] == [["systemctl", "stop", state.OPEN_UNIT], ["cryptsetup", "close", "civitas-data"]]


def test_a_wrong_passphrase_starts_nothing(at, tmp_path, monkeypatch):
    at("", {"/": SYSTEM})
    monkeypatch.setattr(setup, "find", lambda *_arguments: "/dev/vdb")
    asked = []
    with pytest.raises(VolumeError, match="does not open"):
        program.unlock(config(tmp_path), b"canary", False, lambda command, _given: asked.append(command[0]) or Done(2, "", ""))
    assert asked == ["cryptsetup"]


def test_a_host_without_a_volume_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(mounting.read_config, "__defaults__", (str(tmp_path / "none"),))
    assert program.main(["status"]) == 1
    assert "this host has no data volume; the site playbook makes it" in capsys.readouterr().err
    monkeypatch.setattr(mounting, "read_config", lambda: config(tmp_path, encryption="none", luks=""))
    assert program.main(["key"]) == 1 and "not protected: the volume is not encrypted" in capsys.readouterr().err
    assert program.main(["lock"]) == 1
