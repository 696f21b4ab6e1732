# SPDX-License-Identifier: GPL-3.0-or-later
"""What people write wrong about a data volume is told with what to write, and never with a passphrase."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.data_volume_problems import data_volume_problems
from ansible_collections.civitas.hosting.plugins.module_utils import _volume_preflight as preflight

PASSPHRASE = "canary-0123456789abcdef"
SERVER = {"url": "http://tang.example.org", "thumbprint": "A" * 43}
OPERATOR = {"by": "operator", "passphrase": PASSPHRASE}
TANG = {"by": "tang", "passphrase": PASSPHRASE, "servers": [SERVER]}
CONFIG = {
    "device": "/dev/disk/by-id/virtio-civitas-data",
    "path": "/srv/data",
    "filesystem": "ext4",
    "encryption": {},
    "swap_size": "0",
    "directories": [{"path": "/var/lib/postgresql", "owner": "postgres", "mode": "0755", "units": ["postgresql@.service"]}],
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encryption": OPERATOR},
        {"encryption": OPERATOR, "swap_size": "2G"},
        {"encryption": OPERATOR, "swap_size": "512M"},
        {"encryption": OPERATOR, "swap_size": 0},
        {"encryption": TANG},
        {"encryption": {**TANG, "servers": [SERVER, {**SERVER, "url": "https://other.example.org:8443/"}], "threshold": 2}},
        {"encryption": {"by": "tpm2", "passphrase": PASSPHRASE, "pcrs": "0,7"}},
        {"encryption": {"by": "tpm2", "passphrase": PASSPHRASE, "pcrs": ""}},
        {"device": "UUID=0e2a1c3e-9f6f-4c07-9f70-2c6e5a3a9b10"},
        {"device": "LABEL=civitas-data"},
        {"device": "/dev/disk/by-path/pci-0000:00:05.0"},
        {"device": "/dev/vg0/data"},
        {"device": "/dev/mapper/vg0-data"},
        {"directories": [{"path": "/srv/data/backup"}]},
    ],
    ids=str,
)
def test_good_ones(changes):
    assert preflight.problems({**CONFIG, **changes}) == []


def directory(**changes):
    return {"directories": [{"path": "/var/lib/docker", **changes}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"device": "/dev/sdb"}, "another disk's after a restart; write a path below /dev/disk/by-id"),
        ({"device": "/dev/nvme0n1p1"}, "another disk's after a restart"),
        ({"device": "sdb"}, "write a path below"),
        ({"device": "/dev/disk/by-id/../../sda"}, "write a path below"),
        ({"device": None}, "write a path below"),
        ({"path": "/"}, "a directory of its own"),
        ({"path": "/var/lib"}, "a directory of its own"),
        ({"path": "/etc/data"}, "a directory of its own"),
        ({"path": "srv"}, "a directory of its own"),
        ({"path": "/srv/../etc"}, "a directory of its own"),
        ({"filesystem": "btrfs"}, "one of ext4, xfs"),
        ({"encryption": True}, "is a boolean (true or false); write a mapping"),
        ({"encryption": {**OPERATOR, "by": "me"}}, "operator, tang, tpm2"),
        ({"encryption": {**OPERATOR, "passphrase": "canary"}}, "16 characters or more"),
        ({"encryption": {**OPERATOR, "passphrase": f"{PASSPHRASE}\n"}}, "in one line"),
        ({"encryption": {"by": "operator"}}, "has no passphrase"),
        ({"encryption": {**OPERATOR, "keyfile": "/root/key"}}, "'keyfile', which means nothing"),
        ({"encryption": {**OPERATOR, "servers": [SERVER]}}, "write by: tang, or leave servers out"),
        ({"encryption": {**OPERATOR, "pcrs": "7"}}, "write by: tpm2, or leave pcrs out"),
        ({"encryption": {"by": "tang", "passphrase": PASSPHRASE}}, "has no servers"),
        ({"encryption": {**TANG, "servers": ["http://tang"]}}, "servers[0] is a text"),
        ({"encryption": {**TANG, "servers": [{**SERVER, "url": "tang.example.org"}]}}, "write one such as http://"),
        ({"encryption": {**TANG, "servers": [{"url": "http://tang"}]}}, "'tang-show-keys' on that server"),
        ({"encryption": {**TANG, "threshold": 2}}, "how many of the 1 servers"),
        ({"encryption": {"by": "tpm2", "passphrase": PASSPHRASE, "pcrs": "24"}}, "numbers from 0 to 23"),
        ({"encryption": OPERATOR, "swap_size": "2 GB"}, "swap_size is '2 GB'; write one such as 2G or 512M"),
        ({"encryption": OPERATOR, "swap_size": 2}, "swap_size is 2; write one such as 2G or 512M"),
        ({"swap_size": "2G"}, "the volume is not encrypted: memory would lie on its disk in the clear"),
        ({"directories": "/var/lib/docker"}, "is a text"),
        ({"directories": ["/var/lib/docker"]}, "write one such as /var/lib/postgresql"),
        ({"directories": [{"path": "/var"}]}, "write one such as /var/lib/postgresql"),
        ({"directories": [{"path": "/usr/share"}]}, "write one such as /var/lib/postgresql"),
        ({"directories": [{"path": "/srv/data"}]}, "where the volume itself is mounted"),
        (directory(owner="Root"), "write a name"),
        (directory(mode=700), "in quotes"),
        (directory(units=["docker"]), "such as postgresql.service"),
        (directory(user="me"), "'user', which means nothing"),
        ({"directories": [{"path": "/var/lib/docker"}, {"path": "/var/lib/docker/volumes"}]}, "write one of them"),
        ({"directories": [{"path": "/var/lib/docker/volumes"}, {"path": "/var/lib/docker"}]}, "write one of them"),
    ],
    ids=str,
)
def test_one_mistake_is_one_problem(changes, words):
    (problem,) = preflight.problems({**CONFIG, **changes})
    assert words in problem and "canary" not in problem


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://localhost:8080", "http://192.0.2.10", "http://Records1.example.org"])
def test_a_key_on_the_disk_of_its_data_is_told_where_somebody_else_judges(url):
    own = ["records1", "192.0.2.10", "records1.example.org"]
    beside = {**CONFIG, "encryption": {**TANG, "servers": [SERVER, {**SERVER, "url": url}]}}
    (problem,) = preflight.problems(beside, own)
    assert "so the key lies beside the data; write servers that are other machines" in problem and url in problem
    assert preflight.problems(beside) == preflight.problems({**CONFIG, "encryption": TANG}, own) == []
    # One that must answer beside it protects.
    assert preflight.problems({**beside, "encryption": {**beside["encryption"], "threshold": 2}}, own) == []


def test_the_filter_names_what_is_missing():
    assert data_volume_problems(CONFIG) == []
    with pytest.raises(AnsibleFilterError, match="data_volume_problems: KeyError: 'path'"):
        data_volume_problems({"device": "LABEL=x"})
