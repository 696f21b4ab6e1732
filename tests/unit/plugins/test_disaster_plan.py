# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan names what the site has, and says loudly what it lacks."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.civitas.hosting.plugins.filter.disaster_plan import disaster_plan


def host(name: str, group: str) -> dict[str, str]:
    return {"name": name, "address": f"{name}.example.org", "user": "deploy", "group": group}


DRILL = {"good": True, "recovery_time_seconds": 754.2, "recovery_point_seconds": 30000, "end": "2026-11-20T03:12:00Z"}
SET = {"set": "20261121T000000Z-aaaaaaaaaaaa", "begin": "2026-11-21T00:00:00Z", "bytes": 5 * 2**30, "good": True}
FACTS: dict[str, Any] = {
    "site": "records.example.org",
    "environment": "production",
    "made": "2026-11-22 12:00 UTC",
    "inventory": "hosts.yml",
    "files": {"secrets": "secrets.yml", "backup_keys": "own/keys.txt", "ca": "ca.pem"},
    "hosts": [host("watch", "monitoring"), host("records", "server"), host("vault", "backup"), host("gate", "bastion")],
    "people": [{"name": "first_admin", "role": "admin"}],
    "contacts": [{"name": "The head of registry", "does": "decides", "phone": "+1 555 0100"}],
    "recipients": ["age1abc"],
    "copy": "",
    "sets": {"records": [{**SET, "begin": "2026-11-20T00:00:00Z"}, SET, {**SET, "good": False, "begin": "2026-11-22T00:00:00Z"}]},
    "drills": {"records": DRILL},
    "rebuilds": {"records": {"seconds": 5400, "end": "2026-10-02T10:00:00Z"}},
}


def test_a_site_that_is_prepared() -> None:
    plan = disaster_plan(FACTS)
    assert "| The head of registry | decides | +1 555 0100 |  |" in plan
    assert "a copy that somebody took elsewhere" in plan and "restore_store" not in plan
    assert plan.index("systemctl stop civitas-firewall-watch.timer") < plan.index("nft add element")
    assert plan.count("nft add element inet civitas admin4") == plan.count("/etc/ssh/civitas/keys/deploy") == 1
    assert "that run ends with `FAILED  backup_store.sets`" in plan
    assert "In this order: gate, vault, records, watch." in plan
    assert "Of records 2 good sets, from 2026-11-20T00:00:00Z to 2026-11-21T00:00:00Z, the last one of 5 GiB." in plan
    assert "| records | restore, in the drill | 12 minutes | 2026-11-20T03:12:00Z |" in plan
    assert "| records | built anew and restored | 90 minutes | 2026-10-02T10:00:00Z |" in plan
    assert "In the last drill of records, 8 hours 20 minutes of work would have been lost." in plan
    assert "ansible-playbook -i hosts.yml civitas.hosting.rebuild -e rebuild_host=records -e restore_key_file=KEY\n" in plan
    assert "`age1abc`" in plan
    assert "`own/keys.txt`" in plan
    assert "a fresh system and the account `deploy` with" in plan
    assert "**" not in plan.replace("**Print it**", "").replace("**one**", "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"contacts": []}, "**Nobody is named.**"),
        ({"hosts": [{**host("records", "server"), "user": ""}]}, "which `ansible_user` does not name"),
        ({"people": []}, "Nobody gets into the hosts but Ansible"),
        ({"recipients": []}, "**none is written; there are no backups**"),
        ({"copy": "vault2"}, "Restore from vault2 until then: add `-e restore_store=vault2`."),
        ({"copy": "vault2"}, "add `-e restore_store=vault2`, as far as that one is left:"),
        ({"sets": {"records": [SET]}}, "Of records one good set, from 2026-11-21T00:00:00Z, of 5 GiB."),
        ({"copy": "vault"}, "It copies all again that the other one keeps"),
        ({"sets": {}}, "**Nothing: this site keeps no backups.**"),
        ({"sets": {"records": [{**SET, "good": False}]}}, "**There is no good backup of records.**"),
        ({"sets": {"records": None}}, "it did not answer"),
        ({"drills": {"records": None}, "rebuilds": {}}, "**It was never measured.**"),
        ({"drills": {"records": {**DRILL, "good": False}}}, "in a drill that FAILED"),
    ],
)
def test_what_is_missing_is_said(change: dict[str, Any], said: str) -> None:
    assert said in disaster_plan({**FACTS, **change})


def test_cells_hold_what_they_are_given() -> None:
    assert "| a \\| b | c d |" in disaster_plan({**FACTS, "contacts": [{"name": "a | b", "does": "c\nd"}]})


def test_a_part_that_is_missing() -> None:
    with pytest.raises(AnsibleFilterError, match="KeyError: 'hosts'"):
        disaster_plan({key: value for key, value in FACTS.items() if key != "hosts"})
