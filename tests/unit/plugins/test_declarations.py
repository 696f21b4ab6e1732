# SPDX-License-Identifier: GPL-3.0-or-later
"""The shape of declarations, and the lookup over a real role with ansible's own templating."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible_collections.civitas.hosting.plugins.module_utils._declarations import KINDS, DeclarationError, check_document, check_items

ROOT = Path(__file__).resolve().parents[3]
PORT = {"name": "x", "port": "80", "protocol": "tcp", "addresses": ["::"], "from": "public", "purpose": "p"}


def declare(*roles: str, kind: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """What a task of a real run gets from the lookup."""
    terms = ", ".join(f"'{role}'" for role in roles)
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), "localhost", "-m", "ansible.builtin.debug", "-o", "-e", json.dumps(variables),
         "-a", f"msg={{{{ lookup('civitas.hosting.declarations', {terms}, kind='{kind}') }}}}"],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_NOCOLOR": "1"},
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip


def items(*roles: str, kind: str, **variables: object) -> list[dict[str, object]]:
    done = declare(*roles, kind=kind, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, object]] = json.loads(done.stdout.split("=>", 1)[1])["msg"]
    return found


def test_items_get_their_role_and_nested_or_absent_items_are_flattened() -> None:
    assert check_items("r", "packages", [{"name": "a"}, None, "", [[{"name": "b"}]]]) == [
        {"name": "a", "role": "r"},
        {"name": "b", "role": "r"},
    ]


def test_port_numbers_become_numbers() -> None:
    assert check_items("r", "ports", [dict(PORT)])[0]["port"] == 80


def test_a_bad_rule_of_an_alarm_is_refused_by_name() -> None:
    rule = {"name": "Down", "severity": "critical", "metric": "civitas_x", "equals": 0, "text": "x", "runbook": "alerts.md#x"}
    assert check_items("r", "alerts", [rule]) == [{**rule, "role": "r"}]
    with pytest.raises(DeclarationError, match="alert Down of role r: equals is 'no'; write a number"):
        check_items("r", "alerts", [{**rule, "equals": "no"}])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"port": 0}, "is not a port number"),
        ({"port": "ssh"}, "is not a port number"),
        ({"port": 65536}, "is not a port number"),
        ({"protocol": "sctp"}, "neither tcp nor udp"),
        ({"from": "world"}, "none of public"),
        ({"addresses": []}, "addresses is empty"),
    ],
)
def test_a_bad_port_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(DeclarationError, match=named):
        check_items("r", "ports", [{**PORT, **change}])


@pytest.mark.parametrize(
    ("item", "named"),
    [
        ({"type": "mysql"}, "none of postgres, files, command"),
        ({"type": "files"}, "lacks path"),
        ({"type": "postgres", "databases": []}, "lacks port"),
        ({"type": "files", "path": "/srv/x", "restore": "here"}, "none of place, side"),
    ],
)
def test_a_backup_that_could_not_be_made_is_refused_by_name(item: dict[str, object], named: str) -> None:
    with pytest.raises(DeclarationError, match=f"backup records.*{named}"):
        check_items("r", "backups", [{"name": "records", **item}])


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_item_without_its_keys_is_refused(kind: str) -> None:
    with pytest.raises(DeclarationError, match="lacks"):
        check_items("r", kind, [{}])


@pytest.mark.parametrize("items", [["text"], [1], "text"])
def test_an_item_that_is_no_mapping_is_refused(items: object) -> None:
    with pytest.raises(DeclarationError, match="must be a mapping"):
        check_items("r", "packages", items)


@pytest.mark.parametrize("document", [[], "text", {"prots": []}])
def test_a_document_of_another_shape_is_refused(document: object) -> None:
    with pytest.raises(DeclarationError):
        check_document("r", document)


def test_role_variables_render_and_a_host_overrides_them() -> None:
    assert [item["port"] for item in items("nginx", kind="ports")] == [80, 443]
    assert [item["port"] for item in items("nginx", kind="ports", nginx_https_port=8443)] == [80, 8443]


def test_several_roles_in_order_and_a_kind_that_a_role_lacks() -> None:
    found = [(item["role"], item["name"]) for item in items("nginx", "certificates", kind="packages")]
    assert found == [("nginx", "nginx"), ("certificates", "openssl"), ("certificates", "ca-certificates")]
    assert items("certificates", kind="ports") == []


def test_a_role_that_does_not_exist_is_named() -> None:
    assert "no role 'ngnix'" in declare("ngnix", kind="ports").stdout


def test_an_undefined_variable_names_role_and_kind() -> None:
    assert "role nginx: meta/declarations.yml, 'ports'" in declare("nginx", kind="ports", nginx_https_port="{{ nowhere }}").stdout


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/meta/declarations.yml")), ids=lambda path: path.parts[-3])
def test_every_role_has_a_document_of_known_kinds(path: Path) -> None:
    check_document(path.parts[-3], yaml.safe_load(path.read_text()))


def test_the_documented_kinds_are_the_known_ones() -> None:
    documentation = yaml.safe_load((ROOT / "plugins/lookup/declarations.py").read_text().split('r"""')[1].split('"""')[0])
    assert documentation["options"]["kind"]["choices"] == list(KINDS)
