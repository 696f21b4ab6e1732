# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated parts of the pages: up to date in the tree, and right for what roles may write."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import pages

ROOT = Path(__file__).resolve().parents[2]

SPECS = """
argument_specs:
  main:
    short_description: Serves a <site> over HTTPS
    description:
      - One paragraph.
      - Another with O(edge_port) and V(a|b).
    options:
      edge_port:
        type: int
        default: 443
        description: The port.
      edge_mode:
        choices: [strict, "yes"]
        default: strict
        description: [First., Second <b>.]
      edge_name:
        required: true
        description: The name.
      edge_sites:
        type: list
        elements: dict
        default: []
        description: Sites.
        options:
          name:
            type: str
            required: true
            description: Name of a site.
          locations:
            type: list
            elements: dict
            description: Its locations.
            options:
              path: {type: path, description: A path.}
"""
DECLARATIONS = """
ports:
  - {name: https, port: "{{ edge_port }}", protocol: tcp, addresses: ["0.0.0.0", "::"], from: public, purpose: browsers}
packages:
  - {name: nginx-light}
  - {name: openssl}
  - "{{ edge_packages | map('community.general.dict_kv', 'name') }}"
checks:
  - {id: edge.service, title: It runs, type: service, units: [edge.service], remedy: Start it.}
alerts:
  - {name: EdgeDown, severity: critical, metric: civitas_edge, equals: 0, text: "{host} is down.", runbook: "alerts.md#edge"}
sites: "{{ edge_sites }}"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write(tmp_path, "roles/edge/meta/argument_specs.yml", SPECS)
    write(tmp_path, "roles/edge/meta/declarations.yml", DECLARATIONS)
    write(tmp_path, "README.md", "# Title\n\n<!-- roles:begin -->\n<!-- roles:end -->\n\nThe end.\n")
    return tmp_path


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def page_of(tree: Path) -> str:
    return (tree / "roles" / "edge" / "README.md").read_text(encoding="utf-8")


def test_pages_of_the_tree_are_up_to_date() -> None:
    run = subprocess.run([sys.executable, "-m", "tools.pages", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_role_page_shows_every_option_and_declaration(tree: Path) -> None:
    assert pages.main([], tree) == 0
    lines = page_of(tree).splitlines()
    assert "# edge" in lines
    assert "Another with `edge_port` and `a\\|b`." in lines
    assert "| `edge_port` | int | `443` | The port. |" in lines
    assert "| `edge_mode` | str: `strict`, `yes` | `strict` | First. Second &lt;b>. |" in lines
    assert "| `edge_name` | str | required | The name. |" in lines
    assert "| `edge_sites` | list of dict | `[]` | Sites. |" in lines
    assert lines.index("### `edge_sites`") < lines.index("| `name` | str | required | Name of a site. |")
    assert lines.index("### `edge_sites.locations`") < lines.index("| `path` | path | - | A path. |")
    assert '| `https` | `{{ edge_port }}` | `tcp` | `["0.0.0.0", "::"]` | `public` | browsers |' in lines
    assert "`nginx-light`, `openssl`." in lines
    assert "More, depending on the variables: see [meta/declarations.yml](meta/declarations.yml)." in lines
    assert "| `edge.service` | It runs | Start it. |" in lines
    assert "| `EdgeDown` | `critical` | `{host} is down.` | `alerts.md#edge` |" in lines
    assert lines[lines.index("### Sites") + 2] == "Depends on the variables: see [meta/declarations.yml](meta/declarations.yml)."


def test_rows_have_as_many_cells_as_their_head(tree: Path) -> None:
    pages.main([], tree)
    width = 0
    for line in page_of(tree).splitlines():
        cells = line.replace("\\|", "").count("|")
        if line.startswith("|"):
            width = width or cells
            assert cells == width, line
        else:
            width = 0


def test_words_outside_the_markers_are_kept(tree: Path) -> None:
    words = "# edge\n\nBy hand, above.\n\n<!-- reference:begin -->\nold\n<!-- reference:end -->\n\nBy hand, below.\n"
    write(tree, "roles/edge/README.md", words)
    pages.main([], tree)
    text = page_of(tree)
    assert text.startswith("# edge\n\nBy hand, above.\n\n<!-- reference:begin -->\n## Variables\n")
    assert text.endswith("<!-- reference:end -->\n\nBy hand, below.\n")
    assert "old" not in text


def test_a_page_without_markers_gets_them_at_its_end(tree: Path) -> None:
    write(tree, "roles/edge/README.md", "# edge\n\nBy hand.\n")
    pages.main([], tree)
    assert page_of(tree).startswith("# edge\n\nBy hand.\n\n<!-- reference:begin -->\n## Variables\n")


def test_a_second_run_changes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages.main([], tree)
    assert "written: roles/edge/README.md" in capsys.readouterr().out
    assert pages.main([], tree) == 0
    assert capsys.readouterr().out == ""
    assert pages.main(["--check"], tree) == 0


def test_check_names_stale_pages_and_writes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--check"], tree) == 1
    assert "stale: roles/edge/README.md" in capsys.readouterr().out
    assert not (tree / "roles" / "edge" / "README.md").exists()
    pages.main([], tree)
    write(tree, "roles/edge/meta/argument_specs.yml", SPECS.replace("443", "8443"))
    assert pages.main(["--check"], tree) == 1
    assert "`443`" in page_of(tree)


def test_the_table_of_roles_names_the_scenarios_that_run_a_role(tree: Path) -> None:
    row = "| [edge](roles/edge/README.md) | Serves a &lt;site> over HTTPS | {} |\n"
    pages.main([], tree)
    assert row.format("no scenario yet") in (tree / "README.md").read_text(encoding="utf-8")
    write(tree, "playbooks/site.yml", "- import_playbook: single.yml\n")
    write(tree, "playbooks/single.yml", '- hosts: all\n  roles:\n    - role: "civitas.hosting.app_{{ civitas_application }}"\n')
    write(tree, "roles/app_x/tasks/main.yml", "- ansible.builtin.include_role: {name: civitas.hosting.edge}\n")
    write(tree, "molecule/edge/molecule.yml", "---\n")
    write(tree, "molecule/edge/converge.yml", "- hosts: all\n  roles: [civitas.hosting.edge]\n")
    write(tree, "molecule/other/molecule.yml", "---\n")
    write(tree, "molecule/other/converge.yml", "- hosts: all\n  roles: [civitas.hosting.edge_case]\n")
    write(tree, "molecule/story/molecule.yml", "    civitas_application: x\n")
    write(tree, "molecule/tale/molecule.yml", "    civitas_application: y\n")
    write(tree, "molecule/tale/converge.yml", "- import_playbook: civitas.hosting.site\n")
    write(tree, "molecule/story/converge.yml", "- import_playbook: civitas.hosting.site\n")
    pages.main([], tree)
    text = (tree / "README.md").read_text(encoding="utf-8")
    assert row.format("tested by `edge`, `story`") in text
    assert text.startswith("# Title\n\n<!-- roles:begin -->\n| role |")
    assert text.endswith("<!-- roles:end -->\n\nThe end.\n")


def test_a_role_of_some_hosts_is_tested_where_one_asks_for_it(tree: Path) -> None:
    write(tree, "playbooks/site.yml", "- hosts: all\n  roles: [civitas.hosting.data_volume]\n")
    (tree / "roles/data_volume").mkdir()
    for name, more in (("plain", ""), ("disk", "    civitas_data_volume: {device: LABEL=data}\n")):
        write(tree, f"molecule/{name}/molecule.yml", f"---\n{more}")
        write(tree, f"molecule/{name}/converge.yml", "- import_playbook: civitas.hosting.site\n")
    assert pages.scenarios_of(tree, "data_volume") == ["disk"]


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("README.md", "# Title\n", "needs exactly one line '<!-- roles:begin -->'"),
        ("README.md", "<!-- roles:end -->\n<!-- roles:begin -->\n", "needs exactly one line"),
        ("roles/edge/README.md", "<!-- reference:begin -->\n", "needs exactly one line '<!-- reference:begin -->'"),
        ("roles/edge/meta/argument_specs.yml", "main: {}\n", "write a mapping 'argument_specs' with the entry point 'main'"),
        ("roles/edge/meta/argument_specs.yml", "a: [\n", "not valid YAML"),
    ],
)
def test_unusable_sources_are_named(tree: Path, capsys: pytest.CaptureFixture[str], path: str, text: str, message: str) -> None:
    write(tree, path, text)
    assert pages.main([], tree) == 2
    error = capsys.readouterr().err
    assert path in error
    assert message in error


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", '`""`'),
        ("a", "`a`"),
        (True, "`true`"),
        (None, "`null`"),
        ("a|b", "`a\\|b`"),
        ("a`b", "`` a`b ``"),
        ({"é": 1}, '`{"é": 1}`'),
        ("a\n b", "`a b`"),
    ],
)
def test_values_are_shown_as_code_in_one_line(value: object, text: str) -> None:
    assert pages.literal(value) == text


def test_every_reason_for_a_refusal_is_explained(tmp_path: Path) -> None:
    table = pages.refusal_table(ROOT)
    assert "| `key_mismatch` | Key and certificate do not belong together. | " in table
    write(tmp_path, "plugins/plugin_utils/_certificate_problems.py", 'CODES = {"late": "Hurry."}\nMEANINGS = {"late": "Too <late>."}\n')
    assert pages.refusal_table(tmp_path).splitlines()[2:] == ["| `late` | Too &lt;late>. | Hurry. |"]
    write(tmp_path, "docs/certificates.md", "Before.\n<!-- refusals:begin -->\n<!-- refusals:end -->\nAfter.\n")
    assert pages.main([], tmp_path) == 0
    text = (tmp_path / "docs/certificates.md").read_text(encoding="utf-8")
    assert text.startswith("Before.\n<!-- refusals:begin -->\n| code |") and "| `late` |" in text and text.endswith("\nAfter.\n")


@pytest.mark.parametrize("meanings", [{}, {"a": "x", "c": "x"}, {"b": "x", "a": "x"}])
def test_a_reason_without_explanation_is_an_error(meanings: dict[str, str]) -> None:
    with pytest.raises(pages.PageError, match="same codes"):
        pages.refusal_rows({"a": "x", "b": "x"}, meanings)
