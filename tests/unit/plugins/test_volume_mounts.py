# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of the data volume, and what lies beneath it. That nothing starts or writes without it is proven in the scenario vm."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.data_volume_files import data_volume_files
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_mounts as mounting
from ansible_collections.civitas.hosting.plugins.module_utils._volume_state import Done, VolumeError

FOUND = {
    "device": "/dev/disk/by-id/virtio-data",
    "encryption": "operator",
    "source": "/dev/mapper/civitas-data",
    "uuid": "u",
    "luks": "l",
    "path": "/srv/data",
    "directories": [
        {"path": "/var/lib/postgresql", "units": ["postgresql.service", "postgresql@.service"]},
        {"path": "/srv/data/backup", "units": ["civitas-store.service", "postgresql.service"], "name": "backup", "role": "x"},
        {"path": "/var/lib/with-hyphen"},
    ],
}


def test_the_configuration():
    config = mounting.config_of(FOUND)
    assert config.points == ["/srv/data", "/var/lib/postgresql", "/var/lib/with-hyphen"]
    assert config.units == ["civitas-store.service", "postgresql.service", "postgresql@.service"]
    assert [config.place(each) for each in config.directories] == [
        "/srv/data/var/lib/postgresql",
        "/srv/data/backup",
        "/srv/data/var/lib/with-hyphen",
    ]
    assert config.swap_size == mounting.config_of({**FOUND, "swap_size": 0}).swap_size == 0
    assert mounting.config_of({**FOUND, "swap_size": "512M"}).swap_size == 512 << 20
    assert config.encrypted and not mounting.config_of({**FOUND, "encryption": "none"}).encrypted


def test_a_configuration_that_is_none_is_told(tmp_path):
    with pytest.raises(VolumeError, match="this host has no data volume"):
        mounting.read_config(str(tmp_path / "none"))
    for content in ("{", "{}", '{"directories": [1]}', '{"directories": 1}'):
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(VolumeError, match="run the site playbook, it writes this file"):
            mounting.read_config(str(tmp_path / "data.json"))
    (tmp_path / "data.json").write_text(json.dumps(FOUND))
    assert mounting.read_config(str(tmp_path / "data.json")).luks == "l"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/data", "srv-data.mount"),
        ("/var/lib/with-hyphen", "var-lib-with\\x2dhyphen.mount"),
        ("/srv/.hidden/a.b", "srv-.hidden-a.b.mount"),
        ("/.hidden", "\\x2ehidden.mount"),
        ("/", "-.mount"),
    ],
)
def test_names_of_units(path, name):
    assert mounting.unit_name(path) == name
    if shutil.which("systemd-escape"):
        told = subprocess.run(["systemd-escape", "--path", "--suffix=mount", path], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == name


def test_the_files():
    files = {item["dest"]: item for item in data_volume_files(FOUND)}
    units = "etc/systemd/system"
    assert sorted(files) == [
        f"{units}/civitas-store.service.d/50-civitas-data.conf",
        f"{units}/postgresql.service.d/50-civitas-data.conf",
        f"{units}/postgresql@.service.d/50-civitas-data.conf",
        f"{units}/srv-data-.civitas\\x2dswap.swap",
        f"{units}/srv-data.mount",
        f"{units}/var-lib-postgresql.mount",
        f"{units}/var-lib-with\\x2dhyphen.mount",
    ]
    volume = files[f"{units}/srv-data.mount"]["vars"]
    assert volume["__data_volume_fsck"] == "systemd-fsck@dev-mapper-civitas\\x2ddata.service"
    assert volume["__data_volume_wants"] == "var-lib-postgresql.mount var-lib-with\\x2dhyphen.mount"
    waits = files[f"{units}/postgresql.service.d/50-civitas-data.conf"]["vars"]
    assert waits == {"__data_volume_paths": "/srv/data /var/lib/postgresql /srv/data/backup", "__data_volume_after": ""}
    assert files[f"{units}/srv-data-.civitas\\x2dswap.swap"]["enabled"] is False
    with pytest.raises(AnsibleFilterError, match="data_volume_files: KeyError: 'directories'"):
        data_volume_files({})


def test_the_files_with_swap():
    files = {item["dest"].rpartition("systemd/system/")[2]: item for item in data_volume_files({**FOUND, "swap_size": "2G"})}
    swap = files["srv-data-.civitas\\x2dswap.swap"]
    assert swap["enabled"] is True and swap["vars"] == {"__data_volume_swap_file": "/srv/data/.civitas-swap"}
    # The mount brings it, and what needs memory stops before it goes.
    wants = "var-lib-postgresql.mount var-lib-with\\x2dhyphen.mount srv-data-.civitas\\x2dswap.swap"
    assert files["srv-data.mount"]["vars"]["__data_volume_wants"] == wants
    waits = files["postgresql.service.d/50-civitas-data.conf"]["vars"]
    assert waits["__data_volume_after"] == "srv-data-.civitas\\x2dswap.swap"
    with pytest.raises(AnsibleFilterError, match="data_volume_files: swap_size is 'much'; write one such as 2G"):
        data_volume_files({**FOUND, "swap_size": "much"})


def config_in(tmp_path, *names):
    return mounting.config_of({**FOUND, "path": f"{tmp_path}/data", "directories": [{"path": f"{tmp_path}/{name}"} for name in names]})


def test_data_beneath_is_never_hidden(tmp_path):
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "full" / "deeper").mkdir(parents=True)
    config = config_in(tmp_path, "empty", "full", "none")
    assert mounting.refusals(config, {}) == []
    for make in (lambda path: path.write_text(""), lambda path: path.symlink_to("/etc"), os.mkfifo):
        path = tmp_path / "full" / "deeper" / "thing"
        make(path)
        (problem,) = mounting.refusals(config, {})
        assert f"{tmp_path}/full holds data, such as {path}, which the volume would hide" in problem
        # What is mounted there already is the volume's own.
        assert mounting.refusals(config, {f"{tmp_path}/full": ("1:2", "x")}) == []
        path.unlink()
    (tmp_path / "none").write_text("")
    assert mounting.refusals(config, {}) == [f"{tmp_path}/none is no directory"]


def test_a_directory_on_the_volume_is_as_its_package_made_it(tmp_path):
    (tmp_path / "made").mkdir(mode=0o750)
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert mounting._attributes(mounting.Directory(f"{tmp_path}/made")) == (os.geteuid(), (tmp_path / "made").stat().st_gid, 0o750)
    assert mounting._attributes(mounting.Directory(f"{tmp_path}/none")) == (0, 0, 0o755)
    assert mounting._attributes(mounting.Directory(f"{tmp_path}/made", me, "", "0700"))[2] == 0o700
    # One that was sealed says nothing.
    (tmp_path / "made").chmod(0)
    assert mounting._attributes(mounting.Directory(f"{tmp_path}/made"))[2] == 0o755
    with pytest.raises(VolumeError, match=r"civitas-nobody.*install the package that makes it first"):
        mounting._attributes(mounting.Directory("/x", "civitas-nobody"))


class Host:
    """Answers as lsattr and chattr do."""

    def __init__(self) -> None:
        self.sealed: set[str] = set()

    def __call__(self, command, _given):
        if command[0] == "chattr":
            self.sealed.add(command[-1])
        return Done(0, f"{'----i---------e-------' if command[-1] in self.sealed else '--------------e-------'} {command[-1]}\n", "")


def test_an_empty_mount_point_is_sealed(tmp_path):
    host = Host()
    (tmp_path / "point" / "deeper" / "still").mkdir(parents=True)
    for _again in range(2):
        mounting.seal(f"{tmp_path}/point", host)
        assert host.sealed == {f"{tmp_path}/point"} and (tmp_path / "point").stat().st_mode & 0o777 == 0
    assert not os.listdir(tmp_path / "point") and mounting.is_protected(f"{tmp_path}/point", host)
    (tmp_path / "point").chmod(0o700)
    assert not mounting.is_protected(f"{tmp_path}/point", host)
    assert not mounting.is_protected(f"{tmp_path}/point", lambda _command, _given: Done(1, "", ""))


SHOWN = {
    "docker.service": ("docker.service", "notify", "no", "inactive", "enabled"),
    "off.service": ("off.service", "simple", "no", "inactive", "disabled"),
    "apt-daily-upgrade.service": ("apt-daily-upgrade.service", "oneshot", "no", "inactive", "static"),
    "once.service": ("once.service", "oneshot", "no", "inactive", "enabled"),
    "postgresql.service": ("postgresql.service", "oneshot", "yes", "active", "enabled"),
}


def systemd(active_instance: str):
    def answer(command, _given):
        if "--property=Wants" in command:
            return Done(0, "postgresql@15-main.service network.target\n", "")
        if "--property=ActiveState" in command:
            return Done(0, f"{active_instance}\n", "")
        keys = ("Id", "Type", "RemainAfterExit", "ActiveState", "UnitFileState")
        blocks = ["".join(f"{key}={value}\n" for key, value in zip(keys, SHOWN[unit], strict=True)) for unit in command[4:]]
        return Done(0, "\n".join(blocks), "")

    return answer


def test_what_waits():
    units = [*SHOWN, "postgresql@.service"]
    config = mounting.config_of({**FOUND, "directories": [{"path": "/x", "units": units}]})
    # In the order of their names: what a service pulls in is found behind it.
    assert mounting.waiting(config, systemd("inactive")) == ["docker.service", "postgresql@15-main.service"]
    assert mounting.waiting(config, systemd("active")) == ["docker.service"]
    assert mounting.waiting(mounting.config_of({**FOUND, "directories": []}), systemd("active")) == []


@pytest.mark.parametrize(
    ("state", "enabled", "expected"), [("failed", "enabled", True), ("inactive", "enabled", False), ("failed", "", False)]
)
def test_what_failed_without_the_volume_is_started_again_before_all_that_waits(monkeypatch, state, enabled, expected):
    monkeypatch.setitem(SHOWN, "settle.service", ("settle.service", "oneshot", "no", state, enabled))
    config = mounting.config_of({**FOUND, "directories": [{"path": "/x", "units": ["docker.service"]}], "again": ["settle.service"]})
    assert mounting.waiting(config, systemd("active")) == (["settle.service"] if expected else []) + ["docker.service"]
    # It starts without the volume, too.
    assert not [item for item in mounting.files(config) if "settle" in item["dest"]]
