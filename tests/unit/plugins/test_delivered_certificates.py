# SPDX-License-Identifier: GPL-3.0-or-later
"""delivered_certificates with the real module as a process of its own: this machine is controller and host, below a temporary directory."""

from __future__ import annotations

import datetime
import getpass
import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader as plugins
from ansible.template import Templar
from ansible_collections.civitas.hosting.plugins.action.delivered_certificates import ActionModule
from ansible_collections.civitas.hosting.plugins.module_utils import _certificate_store
from ansible_collections.civitas.hosting.plugins.module_utils._certificate_store import Store

from tests.unit.pki import DAY, NOW, Pair, issue

COLLECTIONS = Path(_certificate_store.__file__).parents[5]
ROOT = issue("Root", ca=True)
BETWEEN = issue("Intermediate", ROOT, ca=True, path_length=0)


class Action(ActionModule):
    """Counts its calls, keeps what was sent, and needs no connection."""

    def _execute_module(self, module_name: Any = None, module_args: Any = None, **_others: Any) -> Any:
        arguments = {**module_args, "_ansible_check_mode": self._task.check_mode}
        self.sent = [*getattr(self, "sent", []), arguments]
        done = subprocess.run(
            [sys.executable, "-m", f"ansible_collections.civitas.hosting.plugins.modules.{module_name.rpartition('.')[2]}"],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}), env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        self.printed = [*getattr(self, "printed", []), done.stdout + done.stderr]
        return json.loads(done.stdout)


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = Store(str(path / "store"))
        (path / "root.pem").write_text(ROOT.pem)

    def deliver(self, name: str = "records.test", *, passphrase: str = "", **arguments: Any) -> Pair:
        """Files as they come: the leaf last, and a locked key."""
        leaf = issue(name, BETWEEN, names=[name], **arguments)
        (self.path / "chain.pem").write_text(BETWEEN.pem + leaf.pem)
        (self.path / "site.key").write_text(leaf.key_pem(passphrase))
        return leaf

    def item(self, **changes: Any) -> dict[str, Any]:
        return {
            "name": "edge",
            "hosts": ["records.test"],
            "files": ["chain.pem", "site.key"],
            "trust_file": "root.pem",
            "owner": getpass.getuser(),
            "group": grp.getgrgid(os.getegid()).gr_name,
            **changes,
        }

    def run(self, *certificates: dict[str, Any], check: bool = False) -> tuple[Action, dict[str, Any]]:
        task = Task()
        task.args = {"certificates": list(certificates) or [self.item()], "store": self.store.path, "patience": 1}
        task.check_mode = check
        loader = DataLoader()
        action = Action(
            task=task, connection=plugins.connection_loader.get("local", PlayContext(), os.devnull), play_context=PlayContext(),
            loader=loader, templar=Templar(loader=loader), shared_loader_obj=plugins,
        )  # fmt: skip
        self.action = action
        return action, action.run(task_vars={"inventory_dir": str(self.path)})


@pytest.fixture(name="site")
def _site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_delivery_is_put_in_order_and_brought_into_use(site: Site) -> None:
    leaf = site.deliver()
    _action, result = site.run()
    assert result["changed"] is True
    assert result["installed"] == {"edge": "there is none"}
    assert site.store.chain("edge", "1") == leaf.pem + BETWEEN.pem
    assert "for: records.test\nfrom: CN=Intermediate\n" in result["diff"][0]["after"]


def test_the_second_run_changes_nothing_with_one_call_and_sends_no_key(site: Site) -> None:
    site.deliver()
    site.run()
    action, result = site.run()
    assert (result["changed"], result["installed"], len(action.sent)) == (False, {}, 1)
    assert "PRIVATE KEY" not in json.dumps(action.sent)


def test_keys_and_passphrases_are_in_nothing_that_is_shown(site: Site) -> None:
    leaf = site.deliver(passphrase="canary-of-the-key")
    action, result = site.run(site.item(passphrase="canary-of-the-key"))
    assert len(action.sent) == 2
    line = leaf.key_pem().splitlines()[1]
    shown = json.dumps(result) + "".join(action.printed)
    # The module shows its arguments to who asks for them with -vvv.
    assert "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" in shown
    assert line not in shown
    assert "canary" not in shown
    assert "canary" not in json.dumps(action.sent)


def test_a_new_delivery_is_installed_and_check_mode_only_says_so(site: Site) -> None:
    site.deliver()
    site.run()
    after = site.deliver()
    action, result = site.run(check=True)
    assert (result["changed"], result["installed"], len(action.sent)) == (True, {"edge": "another certificate is in use"}, 1)
    assert site.store.current("edge") == "1"
    assert "SHA-256" in result["diff"][0]["before"]
    site.run()
    assert site.store.chain("edge", "2") == after.pem + BETWEEN.pem


def test_another_key_is_a_reason(site: Site) -> None:
    site.deliver()
    site.run()
    key = Path(site.store.path, "edge", "key.pem")
    good = key.read_text()
    key.write_text(issue("other.test").key_pem())
    assert site.run()[1]["installed"] == {"edge": "its key is another one"}
    key = Path(site.store.path, "edge", "key.pem")
    assert key.read_text() == good
    key.unlink()
    assert site.run()[1]["installed"] == {"edge": "its key is missing"}


def test_permissions_are_repaired_and_a_run_that_was_cut_off_is_ended(site: Site) -> None:
    site.deliver()
    site.run()
    key = Path(site.store.path, "edge", "key.pem")
    key.chmod(0o644)
    site.store.arm("edge")
    assert site.run(check=True)[1]["changed"] is True
    assert site.store.pending("edge") is not None
    result = site.run()[1]
    assert result["changed"] is True
    assert "cut off before it changed anything" in result["healed"][0]
    assert key.stat().st_mode & 0o077 == 0
    assert site.run()[1]["changed"] is False


def test_all_problems_of_all_deliveries_are_told_at_once_and_nothing_is_sent(site: Site) -> None:
    site.deliver("other.test")
    with pytest.raises(AnsibleActionFail) as refused:
        site.run(site.item(), site.item(name="second", files=["missing.pem"]), site.item(name="third", trust_file="none.pem"))
    for part in ("edge: name_mismatch: ", "second: ", "missing.pem: No such file", "third: ", "none.pem: No such file"):
        assert part in str(refused.value)
    assert not hasattr(site.action, "sent")


def test_a_host_that_is_no_name_is_told_with_the_other_problems(site: Site) -> None:
    site.deliver("other.test")
    with pytest.raises(AnsibleActionFail) as refused:
        site.run(site.item(name="first", hosts=["a b"]), site.item())
    for part in ("Nothing was changed. first: ", "a b", "edge: name_mismatch: "):
        assert part in str(refused.value)


def test_what_is_no_file_is_refused_and_a_missing_one_says_what_to_write(site: Site) -> None:
    site.deliver()
    os.mkfifo(site.path / "pipe")
    with pytest.raises(AnsibleActionFail) as refused:
        site.run(
            site.item(files=["pipe", "none.pem"]), site.item(name="second", trust_file="pipe"), site.item(name="third", files=["/dev/zero"])
        )
    what = "put the file there, or write in files where it is; paths begin at the inventory's folder"
    for part in (f"edge: {site.path}/pipe is not a file; {what}", f"none.pem: No such file or directory; {what}"):
        assert part in str(refused.value)
    for part in (f"second: {site.path}/pipe is not a file; ", "third: /dev/zero is not a file; "):
        assert part in str(refused.value)


def test_too_few_days_refuse_a_new_certificate_but_not_the_one_in_use(site: Site) -> None:
    site.deliver(end=NOW + 10 * DAY + datetime.timedelta(hours=1))
    with pytest.raises(AnsibleActionFail, match="edge: policy_days_left: it is valid for 10 more days, wanted are 20"):
        site.run(site.item(minimum_days=20))
    site.run()
    assert site.run(site.item(minimum_days=20))[1]["changed"] is False


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "../escape"}, "is no name for a certificate"),
        ({"name": "ümlaut"}, "is no name for a certificate"),
        ({"hosts": []}, "needs hosts"),
        ({"files": None}, "needs files"),
    ],
)
def test_what_cannot_be_meant_is_refused(site: Site, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(AnsibleActionFail, match=why):
        site.run(site.item(**changes))


def test_a_name_twice_is_refused(site: Site) -> None:
    with pytest.raises(AnsibleActionFail, match="declared 2 times"):
        site.run(site.item(), site.item())


def test_what_the_host_refuses_fails_with_its_words(site: Site) -> None:
    site.deliver()
    _action, result = site.run(site.item(owner="nobody-of-this-name"))
    assert result["failed"] is True
    assert "no user nobody-of-this-name or no group" in result["msg"]


def test_what_a_user_refuses_fails_and_the_pair_from_before_stays(site: Site) -> None:
    site.deliver()
    site.run()
    site.deliver()
    _action, result = site.run(site.item(verify=[f"test -e {site.store.path}/edge/.generations/back -a -e /no/such/file"]))
    assert result["failed"] is True
    assert "the certificate edge was not installed: edge: the new pair was taken back" in result["msg"]
    assert site.store.current("edge") == "1"
